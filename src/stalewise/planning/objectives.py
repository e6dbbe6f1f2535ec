"""What a plan is to save: time, money or traffic; and limits on each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stalewise import checks
from stalewise.staleness import Arrivals
from stalewise.trajectory import Gradients

OBJECTIVES = ("time", "cost", "traffic")
FLOAT = 4  # bytes of a parameter or of an entry of a gradient


@dataclass(frozen=True)
class Spent:
    """What it takes to get to the target: seconds, worker-seconds x price, bytes; infinite if it never gets there."""

    time: float
    cost: float
    traffic: float


def computed_rate(timing: Arrivals) -> float:
    """Gradients computed a second, rate x K / acceptance; infinite where none is ever applied."""
    return timing.rate * timing.gradients_a_step / timing.acceptance if timing.acceptance > 0.0 else math.inf


def spent(timing: Arrivals, workers: int, size: int, time: float, price: float) -> Spent:
    r"""What ``workers`` spend until ``time`` [s].

    All active workers are paid for, idle or not; gradients are computed at timing.rate x K / acceptance.
    """
    return Spent(time, price * workers * time, traffic_of(computed_rate(timing), size, time))


def traffic_of(rate: float, size: int, time: float) -> float:
    """Bytes: every gradient computed, ``rate`` a second, reads ``size`` parameters and sends as many entries."""
    return 2 * FLOAT * size * rate * time


def traffic_counted(gradients: Gradients, size: int, *, keeps: bool = False) -> float:
    """Bytes of gradients that were counted: every one begun reads parameters, those applied or dropped were sent.

    With ``keeps`` a worker that has sent nothing goes on from the parameters it has, and reads none.
    """
    read = gradients.computed - (gradients.unsent if keeps else 0.0)
    return FLOAT * size * (read + gradients.applied + gradients.dropped)


@dataclass(frozen=True)
class Goal:
    """What is to be least, and what each may be at most.

    Attributes:
        objective: One of `OBJECTIVES`.
        price: Of a worker-second, in any currency.
        time: At most [s].
        cost: At most.
        traffic: At most [bytes].
    """

    objective: str = "time"
    price: float = 1.0
    time: float = math.inf
    cost: float = math.inf
    traffic: float = math.inf

    def __post_init__(self) -> None:
        """Refuse what is none."""
        checks.one_of("objective", self.objective, OBJECTIVES)
        for name in ("price", *OBJECTIVES):
            if getattr(self, name) != math.inf:
                checks.positive(name, getattr(self, name))

    def order(self, one: Spent) -> tuple[float, float]:
        """Least is best: within all limits, or as near as can be, then what is to be saved."""
        if not math.isfinite(one.time):
            return math.inf, math.inf
        over = max(getattr(one, name) / getattr(self, name) for name in OBJECTIVES)
        return max(over, 1.0), getattr(one, self.objective)

    def holds(self, one: Spent) -> bool:
        """Whether all limits do."""
        return all(getattr(one, name) <= getattr(self, name) for name in OBJECTIVES)


def front(all_: Sequence[Spent]) -> list[int]:
    """Which are on the Pareto front of time, cost and traffic: no other is as good in each and better in one."""
    found = []
    for i, one in enumerate(all_):
        mine = (one.time, one.cost, one.traffic)
        better = any(
            all(a <= b for a, b in zip(theirs, mine, strict=True)) and theirs != mine
            for other in all_
            if (theirs := (other.time, other.cost, other.traffic))
        )
        if math.isfinite(one.time) and not better:
            found.append(i)
    return sorted(found, key=lambda i: all_[i].time)
