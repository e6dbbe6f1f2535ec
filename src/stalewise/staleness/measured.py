"""Arrivals counted in virtual time, where there is no formula."""

import math

import numpy as np
from numpy.typing import NDArray

from stalewise.simulation.quadratic import Ensemble, run_ensemble
from stalewise.staleness.law import has_formula, law_from_counts
from stalewise.staleness.timing import Arrivals
from stalewise.study import Study, Workload

Array = NDArray[np.float64]
START_UPDATES = 200_000
START_SEEDS = 16
LONG_SEEDS = 8
GRADIENTS = 1_000_000  # that the long run counts, of workers that never wait
WARM_UP = 30.0  # cycles before it counts
FEWEST_CYCLES = 120.0
PRECISION = 0.003  # wanted of the update rate
LONGER = 5.0  # times the first length, at most


def measured(study: Study, seed: int = 0, share: float = 1.0) -> Arrivals:
    """Count arrivals in virtual time.

    Rate, staleness and ages come from 8 runs of staggered workers, 1,000,000 gradients in all where none is lost,
    after 30 cycles that do not count: the 99 % quantile of the staleness is then known to 1 % for a geometric law.
    They are made up to 5 times longer where the update rate is not known to 0.3 %; what is reached is said. A ``share``
    of all that may do for a rough look.
    The number of steps by a given time comes from 16 runs begun as the study says.

    With a ``trigger`` what is sent depends on the gradients, so the study's own workload and learning rate are run.
    """
    still = study
    if study.rules().trigger == 0.0:
        still = study.model_copy(update={"workload": Workload(eigenvalues=[1.0], start=0.0)})
    if still.schedule.learning_rate is None:
        still = still.with_schedule(learning_rate=1.0)
    workers = study.workers()
    begin, end, rates = _long_run(still, workers.mean_cycle, workers.count, seed, share)
    applied = end.tally.applied - begin.tally.applied
    finished = applied + sum(
        getattr(end.tally, fate) - getattr(begin.tally, fate) for fate in ("dropped", "cancelled", "unsent")
    )
    counts = end.counts.copy()
    counts[: len(begin.counts)] -= begin.counts
    age = (end.ages - begin.ages) / max(applied, 1)
    spread = math.sqrt(max((end.ages_squared - begin.ages_squared) / max(applied, 1) - age**2, 0.0))
    rate = float(rates.mean())
    formulas = all(has_formula(law) for _, law in workers.groups)
    what = f"{study.policy} with these settings" if formulas else "these delays"
    method = (
        f"counted over {applied} gradients in virtual time, no formula for {what}; "
        f"standard error of the update rate {100 * standard_error(rates):.2g} %"
    )
    return Arrivals(
        rate=rate,
        gradients_a_step=study.rules().group,
        staleness=law_from_counts(counts if applied else np.ones(1), method),
        delay_mean=age,
        delay_cv=spread / age if age > 0 else 0.0,
        acceptance=applied / max(finished, 1),
        counts=_counts_from_start(still, workers.mean_cycle, workers.count, seed, rate, share),
        memoryless=False,
        heavy_tailed=False,
    )


def _long_run(study: Study, cycle: float, workers: int, seed: int, share: float) -> tuple[Ensemble, Ensemble, Array]:
    """The same runs up to the end of the warm-up and to the end, and the update rate of each between the two.

    Repeated once, longer, if the standard error of the rate calls for it.
    """
    staggered = study.with_cluster(start="staggered")
    cycles = max(FEWEST_CYCLES, share * GRADIENTS / LONG_SEEDS / workers)
    while True:
        time = np.array([0.0, WARM_UP, WARM_UP + cycles]) * cycle
        begin, end = (run_ensemble(staggered, at, seeds=LONG_SEEDS, seed=seed) for at in (time[:2], time))
        rates = (end.updates[:, 2] - end.updates[:, 1]) / (time[2] - time[1])
        longer = (standard_error(rates) / PRECISION) ** 2
        if (
            longer <= 1.0
            or share < 1.0
            or cycles * workers > 1.5 * max(GRADIENTS / LONG_SEEDS, FEWEST_CYCLES * workers)
        ):
            return begin, end, rates
        cycles *= min(max(longer, 2.0), LONGER)


def standard_error(rates: Array) -> float:
    """Relative standard error of the mean rate; 0 if nothing happened."""
    rate = float(rates.mean())
    return float(rates.std(ddof=1)) / math.sqrt(len(rates)) / rate if rate > 0 else 0.0


def _counts_from_start(study: Study, cycle: float, workers: int, seed: int, rate: float, share: float):
    """Mean and variance of the steps by given times."""
    cycles = max(64.0, share * START_UPDATES / START_SEEDS / workers)
    time = np.linspace(0.0, cycles * cycle, 2049)
    run = run_ensemble(study, time, seeds=START_SEEDS, seed=seed)
    mean, variance = run.updates.mean(axis=0), run.updates.var(axis=0, ddof=1)
    growth = float(variance[-1] / time[-1])

    def counts(at: Array) -> tuple[Array, Array]:
        beyond = np.maximum(at - time[-1], 0.0)
        return np.interp(at, time, mean) + rate * beyond, np.interp(at, time, variance) + growth * beyond

    return counts
