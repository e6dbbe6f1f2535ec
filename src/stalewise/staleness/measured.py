"""Arrivals counted in virtual time, where there is no formula."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stalewise.protocol.rules import CANCEL
from stalewise.simulation.paths import recorded_path
from stalewise.simulation.quadratic import Ensemble, run_ensemble
from stalewise.staleness.law import has_formula, law_from_counts
from stalewise.staleness.timing import Arrivals, FirstSteps
from stalewise.study import FOR_NETWORKS, Schedule, Study, Workload

Array = NDArray[np.float64]
START_UPDATES = 200_000
START_SEEDS, ROUGH_SEEDS = 16, 40
START_CYCLES, ROUGH_CYCLES = 64.0, 16.0
FIRST, FIRST_POINTS = 20.0, 641  # steps expected, and times, at which chances of their number are counted
FIRST_GRADIENTS, FIRST_SEEDS = 2_000_000, (64, 512)  # for that
TOGETHER_CYCLES, START_GRADIENTS = 16.0, 400_000  # of runs that are known by formula but for their start
LONG_SEEDS = 8
GRADIENTS = 1_000_000  # that the long run counts, of workers that never wait
WARM_UP, ROUGH_WARM_UP = 30.0, 8.0  # cycles before it counts
FEWEST_CYCLES, ROUGH_FEWEST = 120.0, 60.0
PILOT, BUSY = 4.0, 4.0  # cycles of one run, and gradients begun a worker and cycle, from where on runs are shorter
PRECISION = 0.003  # wanted of the update rate
VARIES = 0.01  # of the group: from where on a step's mean number of gradients is told in its place
STEPS_SEEN = 100_000  # gradients of the path on which it is seen how that number varies
LONGER = 5.0  # times the first length, at most


def measured(study: Study, seed: int = 0, share: float = 1.0, length: float = 1.0) -> Arrivals:
    """Count arrivals in virtual time.

    Rate, staleness and ages come from 8 runs of staggered workers, 1,000,000 gradients in all where none is lost,
    after 30 cycles that do not count: the 99 % quantile of the staleness is then known to 1 % for a geometric law.
    They are made up to 5 times longer where the update rate is not known to 0.3 %; what is reached is said. A ``share``
    of all that may do for a rough look, 40 runs then for the number of steps. Where steps cancel work, so that a worker
    begins more than 4 gradients a cycle, all runs are shorter in proportion. ``length`` is the part of the 1,000,000
    that may do for a search; the rate is then known to 0.3 % over its root. Gradients a step are those applied over the
    steps taken, where that is more than 1 % from the group (a bound kept by waiting).

    The number of steps by a given time comes from 16 runs begun as the study says, that of the first 20 from 64 to 512,
    as many as 2,000,000 gradients times ``length`` make.

    With a ``trigger`` what is sent depends on the gradients, so the study's own workload and learning rate are run.
    """
    still = _still(study)
    workers = study.workers()
    group = study.rules().group
    begin, end, rates = _long_run(still, workers.mean_cycle, workers.count, seed, share, length)
    applied = end.tally.applied - begin.tally.applied
    finished = applied + sum(
        getattr(end.tally, fate) - getattr(begin.tally, fate) for fate in ("dropped", "cancelled", "unsent")
    )
    taken = applied / max(float((end.updates[:, 2] - end.updates[:, 1]).sum()), 1.0)
    uneven = applied > 0 and abs(taken / group - 1.0) > VARIES
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
    acceptance, a_step = applied / max(finished, 1), taken if uneven else float(group)
    noise = None
    if uneven and study.rules().trigger == 0.0:
        noise = _noise_gradients(still, min(share, 1.0), acceptance, rate * a_step, seed)
    early = _first_steps(still, rate, a_step / max(acceptance, 1e-3), seed, min(length, 1.0)) if share >= 1.0 else None
    return Arrivals(
        rate=rate,
        gradients_a_step=a_step,
        staleness=law_from_counts(counts if applied else np.ones(1), method),
        delay_mean=age,
        delay_cv=spread / age if age > 0 else 0.0,
        acceptance=acceptance,
        counts=_counts_from_start(still, workers.mean_cycle, workers.count, seed, rate, share, early),
        memoryless=False,
        heavy_tailed=False,
        first_steps=None if early is None else lambda: early,
        noise_gradients=noise,
    )


def begun_together(found: Arrivals, study: Study, seed: int, share: float) -> Arrivals:
    """Arrivals known in the long run, with the steps of the first 16 cycles counted where all workers begin at once.

    By 64 to 512 runs, as many as 400,000 gradients make; ``share`` of that may do for a search.
    """
    workers = study.workers()
    seeds = START_GRADIENTS * share * found.acceptance / (TOGETHER_CYCLES * workers.count)
    seeds = round(min(max(seeds, FIRST_SEEDS[0]), FIRST_SEEDS[1]))
    time = TOGETHER_CYCLES * workers.mean_cycle * np.linspace(0.0, 1.0, FIRST_POINTS) ** 2
    updates = run_ensemble(_still(study), time, seeds=seeds, seed=seed).updates
    mean, variance = updates.mean(axis=0), updates.var(axis=0)
    _, growth = found.counts(np.ones(1))

    def counts(at: Array) -> tuple[Array, Array]:
        beyond = np.maximum(at - time[-1], 0.0)
        steps = np.interp(at, time, mean) + found.rate * beyond
        return steps, np.interp(at, time, variance) + growth * beyond

    early = _few(time, updates)
    return replace(found, counts=counts, first_steps=None if early is None else lambda: early)


def _still(study: Study) -> Study:
    """The same arrivals where nothing is learnt; under a trigger what is sent depends on that."""
    still = study
    if study.rules().trigger == 0.0:
        plain = {name: Schedule.model_fields[name].default for name in FOR_NETWORKS}
        schedule = study.schedule.model_copy(update=plain)
        still = study.model_copy(update={"workload": Workload(eigenvalues=[1.0], start=0.0), "schedule": schedule})
    return still if still.schedule.learning_rate is not None else still.with_schedule(learning_rate=1.0)


def _noise_gradients(study: Study, share: float, acceptance: float, rate: float, seed: int) -> float:
    """1/E[1/n] over the steps of a recorded path, n the gradients of each."""
    ends = recorded_path(study, round(STEPS_SEEN * max(share, 0.1)), acceptance, rate, seed=seed).ends
    return float(1.0 / np.mean(1.0 / np.diff(ends, prepend=0)))


def _long_run(
    study: Study, cycle: float, workers: int, seed: int, share: float, length: float
) -> tuple[Ensemble, Ensemble, Array]:
    """The same runs up to the end of the warm-up and to the end, and the update rate of each between the two.

    Repeated once, longer, if the standard error of the rate calls for it.
    """
    staggered = study.with_cluster(start="staggered")
    warm_up, fewest = (WARM_UP, FEWEST_CYCLES) if share >= 1.0 else (ROUGH_WARM_UP, ROUGH_FEWEST)
    part = _part(study, cycle, workers, seed)
    first = cycles = part * max(fewest, share * length * GRADIENTS / LONG_SEEDS / workers)
    while True:
        time = np.array([0.0, part * warm_up, part * warm_up + cycles]) * cycle
        begin, end = (run_ensemble(staggered, at, seeds=LONG_SEEDS, seed=seed) for at in (time[:2], time))
        rates = (end.updates[:, 2] - end.updates[:, 1]) / (time[2] - time[1])
        longer = length * (standard_error(rates) / PRECISION) ** 2
        if longer <= 1.0 or share < 1.0 or cycles > 1.5 * first:
            return begin, end, rates
        cycles *= min(max(longer, 2.0), LONGER)


def _part(study: Study, cycle: float, workers: int, seed: int) -> float:
    """Of the usual length: less where steps cancel work, so that a cycle has many more gradients than workers."""
    if not (study.rules().flushes or study.rules().on_stale == CANCEL):
        return 1.0
    tally = run_ensemble(study, np.array([0.0, PILOT * cycle]), seeds=1, seed=seed).tally
    begun = tally.applied + tally.dropped + tally.cancelled + tally.in_flight
    return min(1.0, BUSY * PILOT * workers / begun)


def standard_error(rates: Array) -> float:
    """Relative standard error of the mean rate; 0 if nothing happened."""
    rate = float(rates.mean())
    return float(rates.std(ddof=1)) / math.sqrt(len(rates)) / rate if rate > 0 else 0.0


def _first_steps(study: Study, rate: float, computed: float, seed: int, length: float) -> FirstSteps | None:
    """Chances of the first steps, ``computed`` gradients each, from many short runs; None if there are no steps."""
    gradients = FIRST * computed  # a run, about
    seeds = round(min(max(length * FIRST_GRADIENTS / gradients, FIRST_SEEDS[0]), FIRST_SEEDS[1]))
    if not rate > 0:
        return None
    time = FIRST / rate * np.linspace(0.0, 1.0, FIRST_POINTS) ** 2  # where workers begin together the first come sooner
    updates = run_ensemble(study, time, seeds=seeds, seed=seed).updates
    return _few(time, updates)


def _few(time: Array, updates: Array) -> FirstSteps | None:
    """Chances of the first steps by the counts of many runs, shape (runs, times)."""
    few = np.flatnonzero(updates.mean(axis=0) <= FIRST)
    updates = updates[:, few]
    n = np.arange(1, int(updates.max()) + 1)
    reached = np.array([(updates >= k).mean(axis=0) for k in n]).T
    return FirstSteps(time[few], reached) if len(n) and len(few) > 1 else None


def _counts_from_start(
    study: Study, cycle: float, workers: int, seed: int, rate: float, share: float, early: FirstSteps | None
):  # fmt: skip
    """Mean and variance of the steps by given times."""
    fewest = START_CYCLES if share >= 1.0 else ROUGH_CYCLES
    cycles = _part(study, cycle, workers, seed) * max(fewest, share * START_UPDATES / START_SEEDS / workers)
    time = cycles * cycle * np.linspace(0.0, 1.0, 2049) ** 2
    run = run_ensemble(study, time, seeds=START_SEEDS if share >= 1.0 else ROUGH_SEEDS, seed=seed)
    mean, variance = run.updates.mean(axis=0), run.updates.var(axis=0, ddof=1)
    growth = float(variance[-1] / time[-1])
    if early is not None:  # the longer runs are fewer: they go on from there
        (known,), _ = early.moments(early.time[-1:])
        mean += known - np.interp(early.time[-1], time, mean)

    def counts(at: Array) -> tuple[Array, Array]:
        beyond = np.maximum(at - time[-1], 0.0)
        steps, scatter = np.interp(at, time, mean) + rate * beyond, np.interp(at, time, variance) + growth * beyond
        if early is not None:
            few = at <= early.time[-1]
            steps[few], scatter[few] = early.moments(at[few])
        return steps, scatter

    return counts
