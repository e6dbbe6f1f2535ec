"""Quadratics in virtual time: many seeds through the compiled kernel, with standard errors."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stalewise.delays.compiled import encode
from stalewise.protocol import Tally
from stalewise.simulation.kernel import encode_rules, run
from stalewise.study import Study

Array = NDArray[np.float64]
FATES = ("applied", "dropped", "cancelled", "unsent", "in_flight")  # in the order in which the kernel returns them
COUNTED = 1 << 18  # greater staleness is counted as this, unless four times the workers is more


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


def _added(counts: list[NDArray[np.int64]]) -> Array:
    """Sum of arrays of unequal length, at least one long."""
    total = np.zeros(max(1, *(len(c) for c in counts)))
    for one in counts:
        total[: len(one)] += one
    return total


def run_ensemble(study: Study, time: Array, *, seeds: int, seed: int) -> Ensemble:
    """Run ``seeds`` independent repetitions of a quadratic study, recorded at ``time`` [s]."""
    law = study.cluster.delay()
    encoded = encode(law.components())
    eigenvalues, variance, start = study.workload.modes()
    noise = np.sqrt(variance / study.batch_size)
    workers = study.active_workers
    rules = study.rules()
    bound = rules.max_staleness
    length = min(64 * workers + 256, max(4 * workers, COUNTED)) if bound is None else min(bound, COUNTED) + 1

    def repeat(child: np.random.SeedSequence):
        delay_rng, noise_rng = (np.random.default_rng(s) for s in child.spawn(2))
        loss, updates = np.full(len(time), np.inf), np.zeros(len(time))
        counts, log = np.zeros(length, np.int64), np.zeros((0, 4))
        done = run(
            encoded, law.mean, study.cluster.start == "staggered", workers, encode_rules(rules), study.learning_rate,
            eigenvalues, noise, start, time, delay_rng, noise_rng, loss, updates, counts, log,
        )  # fmt: skip
        reached = done[9]
        if reached < len(time):
            loss[reached - 1 :] = np.inf
            updates[reached:] = updates[reached - 1]
        return loss, updates, np.trim_zeros(counts, "b"), done

    children = np.random.SeedSequence(seed).spawn(seeds)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(repeat, children))
    ends = np.array([done[:8] for *_, done in results], float)
    return Ensemble(
        time=time,
        loss=np.array([loss for loss, *_ in results]),
        updates=np.array([updates for _, updates, *_ in results]),
        counts=_added([counts for _, _, counts, _ in results]),
        largest=int(ends[:, 7].max()),
        tally=Tally(**{name: int(ends[:, i].sum()) for i, name in enumerate(FATES)}),
        ages=float(ends[:, 5].sum()),
        ages_squared=float(ends[:, 6].sum()),
    )
