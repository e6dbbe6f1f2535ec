"""Quadratics in virtual time: many seeds through the compiled kernel, with standard errors."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stalewise.delays.compiled import encode
from stalewise.protocol import Tally
from stalewise.simulation.kernel import Counts, Fleet, Problem, Records, runner
from stalewise.study import Study

Array = NDArray[np.float64]
FATES = ("applied", "dropped", "cancelled", "unsent", "in_flight")
COUNTED = 1 << 18  # greater staleness is counted as this, unless four times the workers is more
SHORT = 200_000  # gradients times modes of all runs: fewer are over before a second thread is of use


@dataclass(frozen=True)
class Ensemble:
    """What many seeds of one study did.

    Attributes:
        time: Times of record [s], shape (points,).
        loss: Loss of every seed, shape (seeds, points); infinite from where a seed blew up.
        updates: Updates of every seed by then, shape (seeds, points).
        counts: How often each staleness was applied, shape (length,).
        largest: Largest staleness applied.
        tally: What became of every gradient, summed over seeds.
        ages, ages_squared: Sums over applied gradients [s], [s^2].
    """

    time: Array
    loss: Array
    updates: Array
    counts: Array
    largest: int
    tally: Tally
    ages: float
    ages_squared: float

    @property
    def blew_up(self) -> bool:
        """Whether any seed's loss went to infinity."""
        return not np.isfinite(self.loss[:, -1]).all()


def fleet_of(study: Study) -> Fleet:
    """Active workers of a study, and its link or trainer, for the kernel."""
    workers, service = study.workers(), study.cluster.service_law()
    return Fleet(
        workers.count,
        workers.encoded(),
        workers.mean_cycle,
        study.cluster.start == "staggered",
        service.mean > 0,
        encode(service.components(), service.mean),
    )


def problem_of(study: Study) -> Problem:
    """The quadratic of a study, for the kernel; modes that stay at 0 are left out."""
    modes, descent = study.workload.modes(), study.descent()
    pull, noisier = study.pull(modes.eigenvalues)
    moving = (modes.start != 0.0) | (modes.noise > 0.0) | (modes.noise_growth > 0.0)
    noise, growth = (one[moving] * noisier[moving] / study.batch_size for one in (modes.noise, modes.noise_growth))
    return Problem(
        modes.eigenvalues[moving], pull[moving], np.sqrt(noise), growth, modes.start[moving], bool(growth.any()),
        descent.learning_rate, descent.momentum, descent.shares, descent.weight_decay,
    )  # fmt: skip


def run_ensemble(study: Study, time: Array, *, seeds: int, seed: int) -> Ensemble:
    """Run ``seeds`` independent repetitions of a quadratic study, recorded at ``time`` [s]."""
    fleet, rules = fleet_of(study), study.rules()
    problem, workers, bound = problem_of(study), fleet.workers, rules.max_staleness
    once = runner(fleet, rules, problem)
    length = min(64 * workers + 256, max(4 * workers, COUNTED)) if bound is None else min(bound, COUNTED) + 1
    children = np.random.SeedSequence(seed).spawn(seeds)
    loss, updates = np.full((seeds, len(time)), np.inf), np.zeros((seeds, len(time)))
    short = seeds * workers * (1 + len(problem.start)) * float(time[-1]) < SHORT * fleet.mean_cycle
    threads = 1 if short else min(os.cpu_count() or 1, seeds)

    def share_of(thread: int) -> tuple[NDArray[np.int64], list[Counts]]:
        staleness, found = np.zeros(length, np.int64), []
        for i in range(thread, seeds, threads):
            records = Records(time, loss[i], updates[i], staleness, np.zeros((0, 4)))
            counts = once(records, *(np.random.default_rng(s) for s in children[i].spawn(2)))
            if counts.point < 0:
                loss[i, -counts.point - 1 :] = np.inf
                updates[i, -counts.point :] = updates[i, -counts.point - 1]
            found.append(counts)
        return staleness, found

    with ThreadPoolExecutor(threads) as pool:
        shares = list(pool.map(share_of, range(threads)))
    every = [counts for _, found in shares for counts in found]
    applied = np.trim_zeros(np.sum([staleness for staleness, _ in shares], axis=0), "b")
    return Ensemble(
        time=time,
        loss=loss,
        updates=updates,
        counts=applied.astype(float) if len(applied) else np.zeros(1),
        largest=max(counts.largest for counts in every),
        tally=Tally(**{name: sum(getattr(counts, name) for counts in every) for name in FATES}),
        ages=sum(counts.ages for counts in every),
        ages_squared=sum(counts.ages_squared for counts in every),
    )
