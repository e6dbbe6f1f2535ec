"""Exceptions a caller may want to catch.

Wrong input is an :class:`InputError` (the command line prints it as one line
and exits with 2). Outcomes of a computation that a caller may handle have
exceptions of their own. What a user's own task raises is a
:class:`TaskError` (one line, 2).
"""


class InputError(ValueError):
    """A value from outside is wrong: names the field, its value and what is allowed."""


class NotConvergedError(ArithmeticError):
    """A numerical search ended without an answer it can vouch for."""


class TaskError(RuntimeError):
    """The user's own task (model, loss or data) raised: what, and where in their code; the cause has the traceback.

    Attributes:
        kind: The workload's kind.
        raised: Type and text of the exception and, where there is one, file:line of the user's own code.
    """

    def __init__(self, kind: str, raised: str) -> None:
        super().__init__(kind, raised)
        self.kind, self.raised = kind, raised

    def __str__(self) -> str:
        return f"workload.kind: {self.kind} raised {self.raised}"


class MissingExtraError(ImportError):
    """An optional dependency is needed: says which extra installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs {package}, which is not installed; install it with: pip install 'stalewise[{extra}]'"
        )
