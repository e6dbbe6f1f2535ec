"""What a search hands back, and what both searches say in the same words."""

import math
from dataclasses import dataclass, field
from typing import Any

from stalewise.planning.objectives import Goal, Spent
from stalewise.staleness import Arrivals
from stalewise.study import Study
from stalewise.workloads import open_network

RARE = 1e-4
APART = 1000  # between the seeds of a search and those of a check
STEADY = 1.02  # what is simpler, such as fewer workers, is preferred as long as it costs no more than this factor
MARGIN = 0.9  # of the mean-square limit: the most a plan uses
FRESH = ("sync", "k-sync", "k-batch-sync", "rennala")  # policies that apply nothing stale


@dataclass(frozen=True)
class Candidate:
    """A schedule tried: its study, what it takes (infinite if it never settles) and a remark."""

    study: Study
    spent: Spent
    note: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schedule": self.study.schedule.model_dump(exclude_none=True),
            "time_to_target": _finite(self.spent.time),
            "cost": _finite(self.spent.cost),
            "traffic": _finite(self.spent.traffic),
            "note": self.note,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Found:
    """The pick of a search, published rules beside it, and what no other schedule tried beats in all that it takes.

    ``asynchronous`` is the best schedule under policy async, where that was tuned; ``gradients`` what the search cost,
    of the study's batch size.
    """

    study: Study
    alternatives: list[dict[str, Any]]
    reasons: list[str]
    stay_synchronous: bool
    baselines: list[dict[str, Any]] = field(default_factory=list)
    front: list[dict[str, Any]] = field(default_factory=list)
    asynchronous: Study | None = None
    gradients: float = 0.0


def size_of(study: Study) -> int:
    """Parameters."""
    if study.workload.is_quadratic:
        return len(study.workload.modes().eigenvalues)
    return open_network(study)[0].size


def many(number: int, what: str = "worker") -> str:
    """1 worker, 2 workers."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """A share in percent, two digits at least where they say something."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def is_fresh(policy: str) -> bool:
    """Whether a policy applies nothing stale."""
    return policy in FRESH


def guard(timing: Arrivals, workers: int) -> int:
    """A staleness threshold that fires on less than one gradient in ten thousand, and at twice N - 1 or more."""
    return max(timing.staleness.quantile(1.0 - RARE), 2 * (workers - 1), 1)


def guard_sentence(bound: int, workers: int) -> str:
    """Why that threshold."""
    return (
        f"max_staleness = {bound} (drop) is a guard: in normal running fewer than 1 gradient in 10,000 is older, so it "
        f"costs nothing and only a worker that got stuck meets it (mean staleness is N - 1 = {workers - 1})."
    )


def synchronous_sentence(asynchronous: float, synchronous: float, *, tie: bool = False) -> str:
    """How the best asynchronous schedule compares with the best synchronous one; a tie is within chance."""
    if not math.isfinite(synchronous):
        return "No synchronous schedule tried reaches the target."
    if not math.isfinite(asynchronous):
        return f"Stay synchronous: {synchronous:.4g} s, while no asynchronous schedule tried reaches the target."
    ratio = synchronous / asynchronous
    if ratio <= 1.0 and tie:
        return (
            f"Stay synchronous: {synchronous:.4g} s against {asynchronous:.4g} s, the same within the spread over "
            "seeds, and simpler."
        )
    if ratio <= 1.0:
        return (
            f"Stay synchronous: the best synchronous schedule takes {synchronous:.4g} s, the best asynchronous one "
            f"{asynchronous:.4g} s. Delays this even leave nothing for asynchrony to win."
        )
    tail = ""
    if tie or ratio <= 1.1:
        tail = f"; that is {'within the spread over seeds' if tie else 'close'}, and synchronous training is simpler"
    return f"Synchronous training would take {synchronous:.4g} s, {ratio:.2f} times as long{tail}."


def fresh_sentence(policy: str, stale: float, fresh: float) -> str:
    """How the best schedule that applies stale gradients compares with the best one, of that policy, that does not."""
    if policy == "sync" or not math.isfinite(min(stale, fresh)):
        return synchronous_sentence(stale, fresh)
    if fresh <= stale:
        return (
            f"Apply fresh gradients alone: {policy}, which does not wait for the slowest, takes {fresh:.4g} s, the "
            f"best schedule with stale ones {stale:.4g} s."
        )
    return f"Fresh gradients alone ({policy}) would take {fresh:.4g} s, {fresh / stale:.2f} times as long."


def rounded(rate: float) -> float:
    """Three significant digits: a learning rate people can read."""
    return float(f"{rate:.3g}")


def rank(candidates: list[Candidate], goal: Goal | None = None) -> list[dict[str, Any]]:
    """Alternatives as plain values, best first."""
    order = (goal or Goal()).order
    return [c.as_dict() for c in sorted(candidates, key=lambda c: order(c.spent))]
