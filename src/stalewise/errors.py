"""Exceptions a caller may want to catch.

Wrong input is an :class:`InputError` (the command line prints it as one line
and exits with 2). Outcomes of a computation that a caller may handle have
exceptions of their own.
"""


class InputError(ValueError):
    """A value from outside is wrong: names the field, its value and what is allowed."""


class NotConvergedError(ArithmeticError):
    """A numerical search ended without an answer it can vouch for."""


class MissingExtraError(ImportError):
    """An optional dependency is needed: says which extra installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs {package}, which is not installed; install it with: pip install 'stalewise[{extra}]'"
        )
