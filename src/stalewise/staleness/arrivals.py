r"""How updates arrive and how old their gradients are: everything about time that the dynamics need."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import integrate

from stalewise.delays import AbstractDelay
from stalewise.errors import InputError
from stalewise.simulation.quadratic import Ensemble, run_ensemble
from stalewise.staleness.law import StalenessLaw, has_formula, law_from_counts, staleness_law
from stalewise.staleness.renewal import count_moments
from stalewise.study import Study, Workload

Array = NDArray[np.float64]
MEASURED_UPDATES = 200_000
MEASURED_SEEDS = 16
BLOCKED = 200  # mean staleness from twice which on ages are counted in blocks


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Steps of the server under one schedule.

    Attributes:
        rate: Steps a second in the long run.
        gradients_a_step: Gradients averaged in one step.
        staleness: Law of the staleness of an applied gradient.
        delay_mean, delay_cv: Age of the parameters behind it [s], and its coefficient of variation.
        acceptance: Share of the gradients computed that are applied.
        counts: Mean and variance of the number of steps by given times [s].
        memoryless: Whether every worker's delay is exponential and none is dropped: then the moments close exactly.
        heavy_tailed: Whether the delay's transform does not exist left of the axis.
        block: Updates that are counted as one, see `coarse`.
    """

    rate: float
    gradients_a_step: int
    staleness: StalenessLaw
    delay_mean: float
    delay_cv: float
    acceptance: float
    counts: Callable[[Array], tuple[Array, Array]]
    memoryless: bool
    heavy_tailed: bool
    block: int = 1

    @property
    def dispersion_weight(self) -> float:
        """Share of the delay's jitter that acts as independent noise, c^2/(1 + c^2): see docs/theory, heuristic.

        Over a block it averages out.
        """
        return self.delay_cv**2 / (1.0 + self.delay_cv**2) / self.block

    @functools.cached_property
    def coarse(self) -> "Arrivals":
        """The same, counted in blocks of updates where ages are long; a block of b is one step of b h.

        Ages are then 200 to 400 blocks on average. Limits of h for gamma(4) delays move by 0.2 % at 1,000 workers;
        laws with density at age 0 err low (exponential ages 3 % at 1,000 workers, but there closed forms are used).
        """
        block = int(self.staleness.mean // BLOCKED)
        if self.memoryless or block < 2:
            return self

        def counts(time: Array) -> tuple[Array, Array]:
            mean, variance = self.counts(time)
            return mean / block, variance / block**2

        staleness = self.staleness.in_blocks(block)
        return replace(self, rate=self.rate / block, staleness=staleness, counts=counts, block=block)


def arrivals(study: Study, *, seed: int = 0) -> Arrivals:
    """Arrivals and staleness of a study's schedule: by formula where there is one, else counted in virtual time."""
    delay, workers = study.delay(), study.active_workers
    if study.schedule.trigger > 0:
        raise InputError("policy 'event-triggered' has no formula: how much is sent depends on the loss; use simulate")
    if has_formula(delay) and study.policy == "sync":
        return _synchronous(delay, workers)
    if not has_formula(delay) or study.policy not in ("async", "event-triggered") or study.schedule.on_stale != "drop":
        return _measured(study, delay, seed)
    bound = study.schedule.max_staleness
    if bound is not None and staleness_law(delay, workers).pmf[bound + 1 :].sum() > 1e-4:
        return _measured(study, delay, seed)
    return _asynchronous(delay, workers, study.cluster.start == "together")


@functools.lru_cache(maxsize=256)
def _asynchronous(delay: AbstractDelay, workers: int, together: bool) -> Arrivals:
    law = staleness_law(delay, workers)

    def counts(time: Array) -> tuple[Array, Array]:
        mean, variance = count_moments(delay, time)
        return workers * (mean if together else time / delay.mean), workers * variance

    return Arrivals(
        rate=workers / delay.mean,
        gradients_a_step=1,
        staleness=law,
        delay_mean=delay.mean,
        delay_cv=delay.cv,
        acceptance=1.0,
        counts=counts,
        memoryless=law.method.startswith("exact: memoryless"),
        heavy_tailed=delay.abscissa == 0.0,
    )


@functools.lru_cache(maxsize=256)
def longest_of(delay: AbstractDelay, workers: int) -> tuple[float, float]:
    r"""Mean [s] and variance [s^2] of the longest of N independent delays.

    :math:`E \max = \int_0^\infty (1 - F^N)\,dt`, :math:`E \max^2 = \int_0^\infty 2 t (1 - F^N)\,dt`.
    """
    if delay.cv < 1e-12:
        return delay.mean, 0.0
    end = float(delay.quantile(1.0 - 1e-12 / workers))
    end = end if math.isfinite(end) else float(delay.quantile(1.0 - 1e-15))
    start = float(delay.quantile(1e-15))
    time = np.concatenate([[0.0], np.geomspace(max(start, end * 1e-9), end, 40_001)])
    above = -np.expm1(workers * np.log(np.maximum(delay.cdf(time), 1e-300)))
    mean = float(integrate.simpson(above, x=time))
    return mean, max(float(integrate.simpson(2 * time * above, x=time)) - mean**2, 0.0)


@functools.lru_cache(maxsize=256)
def _synchronous(delay: AbstractDelay, workers: int) -> Arrivals:
    mean, variance = longest_of(delay, workers)
    square = variance / mean**2

    def counts(time: Array) -> tuple[Array, Array]:
        if square < 1e-18:
            return np.floor(time / mean * (1 + 1e-12)), np.zeros_like(time)
        steps = np.maximum(time / mean - 0.5 * (1.0 - square), 0.0)
        return steps, square * steps

    return Arrivals(
        rate=1.0 / mean,
        gradients_a_step=workers,
        staleness=StalenessLaw(np.ones(1), "exact: synchronous"),
        delay_mean=mean,
        delay_cv=math.sqrt(square),
        acceptance=1.0,
        counts=counts,
        memoryless=False,
        heavy_tailed=False,
    )


def _without(run: Ensemble, begun: Ensemble) -> Ensemble:
    """A run without its own beginning: the first gradients cannot be older than the run.

    Left in, they add about N^3/3 over the updates counted to the variance of staleness, a tenth for 32 regular workers.
    """
    counts = run.counts.copy()
    counts[: len(begun.counts)] -= begun.counts
    names = ("applied", "dropped", "ages", "ages_squared")
    return replace(run, counts=counts, **{name: getattr(run, name) - getattr(begun, name) for name in names})


def _measured(study: Study, delay: AbstractDelay, seed: int) -> Arrivals:
    """Count arrivals in virtual time: replayed traces, delays of too many scales, dropped gradients."""
    still = study.model_copy(update={"workload": Workload(eigenvalues=[1.0], start=0.0)})
    if still.schedule.learning_rate is None:
        still = still.with_schedule(learning_rate=1.0)
    workers = study.active_workers
    cycles = max(64.0, MEASURED_UPDATES / MEASURED_SEEDS / workers)
    time = np.linspace(0.0, cycles * delay.mean, 2049)
    run = run_ensemble(still, time, seeds=MEASURED_SEEDS, seed=seed)
    begun = run_ensemble(still, time[: len(time) // 16], seeds=MEASURED_SEEDS, seed=seed)
    run = _without(run, begun)
    from_ = len(time) // 4
    mean, variance = run.updates.mean(axis=0), run.updates.var(axis=0, ddof=1)
    rate = float((mean[-1] - mean[from_]) / (time[-1] - time[from_]))
    growth = float(variance[-1] / time[-1])

    def counts(at: Array) -> tuple[Array, Array]:
        beyond = np.maximum(at - time[-1], 0.0)
        return np.interp(at, time, mean) + rate * beyond, np.interp(at, time, variance) + growth * beyond

    average = run.ages / max(run.tally.applied, 1)
    spread = math.sqrt(max(run.ages_squared / max(run.tally.applied, 1) - average**2, 0.0))
    what = "no formula for these delays" if not has_formula(delay) else f"{study.policy} with bound or group"
    return Arrivals(
        rate=rate,
        gradients_a_step=study.rules().group,
        staleness=law_from_counts(run.counts, f"counted over {run.tally.applied} gradients in virtual time, {what}"),
        delay_mean=average,
        delay_cv=spread / average if average > 0 else 0.0,
        acceptance=run.tally.applied / max(run.tally.computed - run.tally.in_flight, 1),
        counts=counts,
        memoryless=False,
        heavy_tailed=False,
    )
