"""`limit`: how far learning rate and workers can be pushed before training diverges; and the chart of it."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stalewise import checks
from stalewise.dynamics import StepLimit
from stalewise.prediction.modes import learning_rate_limit, stiffest
from stalewise.protocol.rules import ONE_EACH
from stalewise.staleness import arrivals
from stalewise.study import Study

SEARCHED = 10_000  # workers up to which a limit is looked for, beyond those of the study
CHARTED = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Limit:
    """Largest learning rate, and most active workers at the study's own learning rate; None where there is no limit.

    Attributes:
        learning_rate: ``mean`` and ``mean_square`` limits for the study's active workers.
        active_workers: ``mean`` and ``mean_square``: most workers at the study's learning rate.
        method: How the limits were found.
        notes: What to know about them.
        diverges: Whether the study's own schedule is past the mean-square limit; None if it has no learning
            rate, and for networks, whose curvature gives way.
    """

    learning_rate: dict[str, float | None]
    active_workers: dict[str, int | None]
    method: str
    notes: list[str] = field(default_factory=list)
    diverges: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def limit(study: Study, *, seed: int = 0) -> Limit:
    """Find the convergence condition of a study.

    Args:
        study: Its schedule's policy (async unless given) and, for the limit in workers, its learning rate.
        seed: Used where staleness is counted in virtual time.

    Returns:
        Limits of the mean and of the mean square; the mean square is the one to trust.
    """
    checks.at_least("seed", seed, 0)
    study = _with_policy(study)
    _, notes = stiffest(study)
    if study.schedule.trigger > 0:
        study = study.with_schedule(trigger=0.0)
        notes.append("this is the limit with every gradient sent; a trigger keeps small ones back")
    found = rates_of(study, study.active_workers, seed)
    rates: dict[str, float | None] = {"mean": found.mean, "mean_square": found.mean_square}
    workers: dict[str, int | None] = {"mean": None, "mean_square": None}
    diverges = None
    rate = study.schedule.learning_rate
    if rate is not None:
        past = rate >= found.mean_square
        diverges = past if study.workload.is_quadratic else None
        if past and diverges is None:
            notes.append(
                f"learning rate {rate:g} is past this limit; whether it trains all the same, `stalewise simulate` tells"
            )
        most = _most_that_may_be(study)
        for name in ("mean", "mean_square"):
            workers[name] = _most_workers(study, name, rate, most, seed)
            if workers[name] is None:
                notes.append(f"active_workers.{name}: no limit found up to {most} workers")
            elif workers[name] == 0:
                notes.append(f"active_workers.{name}: learning rate {rate:g} diverges with the fewest workers")
    else:
        notes.append("active_workers: needs schedule.learning_rate")
    return Limit(rates, workers, found.method, notes, diverges)


def rates_of(study: Study, workers: int, seed: int) -> StepLimit:
    """Limits of the learning rate with that many workers."""
    if workers > study.cluster.workers:
        study = study.with_cluster(workers=workers)
    study = study.with_schedule(active_workers=workers)
    return learning_rate_limit(study, arrivals(study, seed=seed))


def stability_chart(study: Study, *, seed: int = 0) -> dict[str, Any]:
    """Limits of the learning rate against the number of workers, and where the study's schedule lies.

    Returns:
        ``workers``, ``mean`` and ``mean_square`` (learning rates; equal lengths), ``point`` {workers, learning_rate},
        ``curvature`` and a ``note``.
    """
    study = _with_policy(study).with_schedule(trigger=0.0)
    curvature, notes = stiffest(study)
    top = study.cluster.workers if study.cluster.group is not None else max(2 * study.cluster.workers, 16)
    fewest = study.schedule.group if study.schedule.policy in ONE_EACH else 1
    workers = sorted({n for n in CHARTED if fewest <= n <= top} | {study.active_workers, study.cluster.workers})
    limits = [rates_of(study, n, seed) for n in workers]
    return {
        "workers": workers,
        "mean": [one.mean for one in limits],
        "mean_square": [one.mean_square for one in limits],
        "point": {"workers": study.active_workers, "learning_rate": study.schedule.learning_rate},
        "curvature": curvature,
        "note": " ".join([f"Largest curvature {curvature:.4g}.", *notes]),
    }


def _most_that_may_be(study: Study) -> int:
    """How far to look for a limit of the workers: unlike ones are as many as there are."""
    if study.cluster.group is not None:
        return study.cluster.workers
    return min(max(4 * study.cluster.workers, 64), max(study.cluster.workers, SEARCHED))


def _with_policy(study: Study) -> Study:
    return study if study.schedule.policy else study.with_schedule(policy="async")


def _most_workers(study: Study, name: str, rate: float, most: int, seed: int) -> int | None:
    def holds(workers: int) -> bool:
        return rate < getattr(rates_of(study, workers, seed), name)

    low = study.schedule.group if study.schedule.policy in ONE_EACH else 1
    if holds(most):
        return None
    if not holds(low):
        return 0
    high = most
    while high - low > 1:
        middle = int(np.sqrt(low * high)) if high > 2 * low else (low + high) // 2
        middle = min(max(middle, low + 1), high - 1)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
