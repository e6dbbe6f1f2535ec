r"""Staleness given the own delay, and of each worker where workers are unlike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from stalewise import checks
from stalewise.delays import AbstractDelay
from stalewise.errors import InputError
from stalewise.staleness.law import StalenessLaw, has_formula, is_exponential
from stalewise.staleness.renewal import MOST_STEPS, equilibrium_counts, finest, hat_weights, lattice
from stalewise.staleness.sums import mixture

Array = NDArray[np.float64]
TIMES = 1500


@dataclass(frozen=True, eq=False)
class GroupStaleness:
    """Equal workers among unlike ones, fully asynchronous.

    Attributes:
        share: Their part of all updates.
        staleness: Of their gradients, in updates of everybody.
    """

    share: float
    staleness: StalenessLaw


def conditional_law(delay: AbstractDelay, workers: int, own_delay: float) -> StalenessLaw:
    r"""Staleness of a gradient that took ``own_delay`` [s], among N equal workers that apply every gradient.

    The sum of N - 1 independent stationary renewal counts over that time; its mean is (N - 1) t/mu. Poisson for
    exponential delays, binomial for constant ones of staggered workers (both exact), else on a grid, and above 65
    workers taken as normal.

    Args:
        delay: Law of one cycle [s].
        workers: Active workers N.
        own_delay: The time t [s].
    """
    checks.at_least("workers", workers, 1)
    checks.non_negative("own_delay", own_delay, "seconds")
    others, expected = workers - 1, own_delay / delay.mean
    if delay.cv < 1e-9:
        whole, part = divmod(expected, 1.0)
        chances = stats.binom.pmf(np.arange(others + 1), others, part)
        return StalenessLaw(np.append(np.zeros(int(whole) * others), chances), "exact: constant delays")
    if is_exponential(delay):
        k = np.arange(math.ceil(others * expected + 12 * math.sqrt(others * expected) + 12))
        pmf = stats.poisson.pmf(k, others * expected)
        return StalenessLaw(pmf / pmf.sum(), "exact: memoryless workers")
    table = _counts_at(delay, np.array([own_delay]))
    return _law(mixture([(table, others)], np.ones(1)))


def cluster_staleness(groups: Sequence[tuple[AbstractDelay, int]]) -> list[GroupStaleness]:
    r"""Share of the updates and staleness of each group of equal workers, all independent, none dropped.

    A worker of group i makes a part :math:`\mu_i^{-1} / \sum_j n_j \mu_j^{-1}` of the updates. Given its own delay
    D = t, its staleness is the sum of everybody else's stationary renewal counts over t; the mean is
    :math:`(R - 1/\mu_i)\mu_i` with the update rate R, and over all updates N - 1. Same accuracy as `staleness_law`.

    Args:
        groups: Law of one cycle [s] and number of workers, for each group.

    Returns:
        One entry for each group, in order.

    Raises:
        InputError: No group, a group without workers, or a law that is no renewal process on a grid.
    """
    if not groups:
        raise InputError("groups: at least one (delay, workers) is needed, got none")
    for delay, workers in groups:
        checks.at_least("workers", workers, 1)
        if not has_formula(delay):
            raise InputError(f"groups: {delay} has no formula; simulate it")
    total = sum(workers / delay.mean for delay, workers in groups)
    return [
        GroupStaleness(workers / delay.mean / total, _staleness_in(groups, i))
        for i, (delay, workers) in enumerate(groups)
    ]


def _staleness_in(groups: Sequence[tuple[AbstractDelay, int]], own: int) -> StalenessLaw:
    time, weights = _times(groups[own][0])
    others = [(delay, workers - (i == own)) for i, (delay, workers) in enumerate(groups)]
    terms = [(_counts_at(delay, time), workers) for delay, workers in others if workers > 0]
    return _law(mixture(terms, weights)) if terms else StalenessLaw(np.ones(1), "exact: alone")


def _times(delay: AbstractDelay) -> tuple[Array, Array]:
    """Times that stand for a law, and their weights: neighbours on its grid are merged."""
    if delay.cv < 1e-9:
        return np.array([delay.mean]), np.ones(1)
    step, weights = lattice(delay)
    group = np.floor(np.minimum(np.cumsum(weights), 1.0 - 1e-12) * TIMES / 2).astype(np.int64)
    group += np.floor(np.arange(len(weights)) * (TIMES / 2 / len(weights))).astype(np.int64)
    which = np.unique(group, return_inverse=True)[1]
    total = np.bincount(which, weights)
    kept = total > 1e-13
    middle = np.bincount(which, weights * np.arange(len(weights)) * step)[kept] / total[kept]
    return middle, total[kept] / total[kept].sum()


def _counts_at(delay: AbstractDelay, time: Array) -> Array:
    """Law of a worker's completions within each time from a random moment, shape (times, counts)."""
    if delay.cv < 1e-9:
        whole, part = np.divmod(time / delay.mean, 1.0)
        table = np.zeros((len(time), int(whole.max()) + 2))
        rows = np.arange(len(time))
        table[rows, whole.astype(np.int64)] = 1.0 - part
        table[rows, whole.astype(np.int64) + 1] = part
        return table
    end = max(float(time.max()), delay.mean)
    step = max(finest(delay), end / MOST_STEPS)
    points = math.ceil(end / step) + 2
    counts = equilibrium_counts(step, hat_weights(delay, step, points), delay.mean)
    low = np.minimum((time / step).astype(np.int64), points - 2)
    part = (time / step - low)[:, None]
    return (1.0 - part) * counts[low] + part * counts[low + 1]


def _law(pmf: Array) -> StalenessLaw:
    pmf = np.trim_zeros(np.where(pmf < 1e-15, 0.0, pmf), "b")
    return StalenessLaw(pmf / pmf.sum(), "renewal counts given the own delay")
