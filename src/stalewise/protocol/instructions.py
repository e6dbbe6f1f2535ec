"""What a server tells the world to do, as plain values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Start:
    """Hand ``worker`` the parameters as they are now (``version``); it begins its next gradient."""

    worker: int
    version: int


@dataclass(frozen=True, slots=True)
class Contribution:
    """One worker's gradient inside a step, and how many versions old the parameters behind it are."""

    worker: int
    staleness: int


@dataclass(frozen=True, slots=True)
class Step:
    """Average these gradients and take one step; the parameters become ``version``."""

    version: int
    gradients: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep ``worker``'s gradient for a later step."""

    worker: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Throw ``worker``'s gradient away: it is ``staleness`` versions old, over the threshold."""

    worker: int
    staleness: int


Instruction = Start | Step | Hold | Drop
