"""The command line: one file a verb: parse, call, print."""

from stalewise.cli.main import main

__all__ = ["main"]
