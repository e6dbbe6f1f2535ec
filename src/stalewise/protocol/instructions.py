"""What a server tells the world to do, as plain values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Start:
    """Hand ``worker`` the parameters as they are now (``version``); it begins its next gradient."""

    worker: int
    version: int


@dataclass(frozen=True, slots=True)
class Again:
    """``worker`` had nothing to push: it computes another gradient from the parameters it has."""

    worker: int


@dataclass(frozen=True, slots=True)
class Contribution:
    """One worker's gradient inside a step, how many versions old the parameters behind it are, and its weight."""

    worker: int
    staleness: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """Average these gradients, each times its weight, and take one step; the parameters become ``version``.

    They stand in the order of their arrival; a worker's that were held come before the one that has just arrived.
    """

    version: int
    gradients: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep ``worker``'s gradient for a later step."""

    worker: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Throw away ``worker``'s gradient, just arrived: ``staleness`` versions old, it is over the threshold."""

    worker: int
    staleness: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Throw away the oldest of ``worker``'s gradients that are held: at ``staleness`` it is over the threshold."""

    worker: int
    staleness: int


@dataclass(frozen=True, slots=True)
class Train:
    """Begin a step on the gradients held longest; say `Server.trained` when it is done."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """``worker`` keeps its gradient to itself: its norm is not above the trigger."""

    worker: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop ``worker``'s gradient in flight."""

    worker: int


Instruction = Start | Again | Step | Hold | Drop | Expire | Train | Unsent | Cancel
