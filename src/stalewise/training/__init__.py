"""Real time: Ray workers around the protocol."""

from stalewise.training.engine import train

__all__ = ["train"]
