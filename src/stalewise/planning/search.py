"""What a search hands back, and what both searches say in the same words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stalewise.planning.objectives import Goal, Spent
from stalewise.staleness import Arrivals
from stalewise.study import Study
from stalewise.workloads import open_network

RARE = 1e-4
ALONE = "Stay synchronous: with one worker nothing is stale, and asynchronous training is the same."
UNITS = {"time": "s", "cost": "(worker-seconds x price)", "traffic": "bytes"}
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
    of the study's batch size, ``beside`` that of published rules; ``time`` what the pick takes [s].
    """

    study: Study
    alternatives: list[dict[str, Any]]
    reasons: list[str]
    stay_synchronous: bool
    baselines: list[dict[str, Any]] = field(default_factory=list)
    front: list[dict[str, Any]] = field(default_factory=list)
    asynchronous: Study | None = None
    gradients: float = 0.0
    beside: float = 0.0
    time: float = math.inf


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


def synchronous_sentence(asynchronous: float, synchronous: float, objective: str = "time") -> str:
    """How the best asynchronous schedule compares with the best synchronous one, in what is to be least."""
    unit = UNITS[objective]
    if not math.isfinite(synchronous):
        return "No synchronous schedule tried reaches the target."
    if not math.isfinite(asynchronous):
        return f"Stay synchronous: {synchronous:.4g} {unit}, while no asynchronous schedule tried reaches the target."
    if synchronous <= asynchronous:
        return (
            f"Stay synchronous: the best synchronous schedule takes {synchronous:.4g} {unit}, the best asynchronous "
            f"one {asynchronous:.4g} {unit}."
        )
    ratio = synchronous / asynchronous
    tail = "; that is close, and synchronous training is simpler" if ratio <= 1.1 else ""
    return f"Synchronous training would take {synchronous:.4g} {unit}, {_times(ratio, objective)}{tail}."


def _times(ratio: float, objective: str) -> str:
    return f"{ratio:.2f} times as {'long' if objective == 'time' else 'much'}"


def fresh_sentence(policy: str, stale: float, fresh: float, objective: str = "time") -> str:
    """How the best schedule that applies stale gradients compares with the best one, of that policy, that does not."""
    unit = UNITS[objective]
    if policy == "sync" or not math.isfinite(min(stale, fresh)):
        return synchronous_sentence(stale, fresh, objective)
    if fresh <= stale:
        return (
            f"Apply fresh gradients alone: {policy}, which does not wait for the slowest, takes {fresh:.4g} {unit}, "
            f"the best schedule with stale ones {stale:.4g} {unit}."
        )
    return f"Fresh gradients alone ({policy}) would take {fresh:.4g} {unit}, {_times(fresh / stale, objective)}."


def plain_sentence(policy: str, own: float, plain: float, objective: str = "time") -> str:
    """How a policy that applies nothing stale compares with the best schedule that waits for all workers."""
    if not math.isfinite(plain):
        return "No schedule tried that waits for all workers reaches the target."
    if not math.isfinite(own):
        return f"Waiting for all workers, sync, takes {plain:.4g} {UNITS[objective]}; {policy} does not get there."
    told = _times(plain / own, objective)
    return (
        f"{policy} applies nothing stale; waiting for all workers, sync, takes {plain:.4g} {UNITS[objective]}, {told}."
    )


def of_limits(saved: Mapping[str, float], how: str) -> str:
    """What limits a run: times without something over the time with it."""
    order = sorted(saved, key=saved.__getitem__)
    parts = [f"{name} {change(saved[name])}" for name in order]
    return f"What limits this run, as time saved without it: {', '.join(parts)} ({how})."


def change(ratio: float) -> str:
    """In percent, with its sign; no minus before nothing."""
    return f"{round(100 * (ratio - 1)) or 0:+d} %" if math.isfinite(ratio) else "never settles"


def rounded(rate: float) -> float:
    """Three significant digits: a learning rate people can read."""
    return float(f"{rate:.3g}")


def rank(candidates: list[Candidate], goal: Goal | None = None) -> list[dict[str, Any]]:
    """Alternatives as plain values, best first."""
    order = (goal or Goal()).order
    return [c.as_dict() for c in sorted(candidates, key=lambda c: order(c.spent))]
