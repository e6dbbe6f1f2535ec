r"""How many versions old a gradient is when it is applied."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stalewise import checks
from stalewise.delays import AbstractDelay, ShiftedExponential
from stalewise.staleness.renewal import TAIL, equilibrium_counts, lattice
from stalewise.staleness.sums import SUMMED_EXACTLY, mixture

Array = NDArray[np.float64]
CONSTANT = "exact: constant delays"
FINE = 2000  # grid times that are all kept
WIDEST = 2.5
LONGEST = 500.0


@dataclass(frozen=True, eq=False)
class StalenessLaw:
    """Law of the staleness K of an applied gradient, in updates.

    Attributes:
        pmf: P(K = k), shape (length,), sums to 1.
        method: How it was found, in words.
    """

    pmf: Array
    method: str

    @property
    def mean(self) -> float:
        """Expected staleness."""
        return float(self.pmf @ np.arange(len(self.pmf)))

    @property
    def variance(self) -> float:
        """Variance of the staleness."""
        return float(self.pmf @ (np.arange(len(self.pmf)) - self.mean) ** 2)

    def quantile(self, p: float) -> int:
        """Smallest k with P(K <= k) >= p."""
        return int(np.searchsorted(np.cumsum(self.pmf), p * (1 - 1e-12)))

    def in_blocks(self, block: int) -> "StalenessLaw":
        """The law of ages counted in blocks of updates, set so that age + 1/2 keeps its mean.

        The delay of a recursion is its staleness and half an update; ages between two whole blocks are shared by them.
        """
        ages = np.maximum((np.arange(len(self.pmf)) + 0.5) / block - 0.5, 0.0)
        place = ages.astype(np.int64)
        share = ages - place
        pmf = np.bincount(place, self.pmf * (1.0 - share), minlength=int(place[-1]) + 2)
        pmf[1:] += np.bincount(place, self.pmf * share, minlength=int(place[-1]) + 1)
        return StalenessLaw(np.asarray(np.trim_zeros(pmf, "b"), np.float64), self.method)

    def generating_function(self, z: ArrayLike) -> NDArray[np.complex128]:
        """E z^K at complex z, element by element."""
        return np.asarray(np.polynomial.polynomial.polyval(np.asarray(z, complex), self.pmf), complex)


def has_formula(delay: AbstractDelay) -> bool:
    """Whether workers with this law are independent renewal processes that a grid resolves.

    Autocorrelated delays (a replayed trace, regimes) are none; a law of coefficient of variation above `WIDEST`
    (infinite for some) or with delays `LONGEST` times the mean spans too many scales for the grid.
    """
    return delay.independent and delay.cv <= WIDEST and bool(delay.quantile(1.0 - TAIL) <= LONGEST * delay.mean)


def is_exponential(delay: AbstractDelay) -> bool:
    """Whether the delay is memoryless."""
    return isinstance(delay, ShiftedExponential) and delay.shift == 0


def memoryless_law(workers: int) -> StalenessLaw:
    """Geometric: N workers with exponential delays."""
    pmf = (1 - 1 / workers) ** np.arange(math.ceil(40 * workers)) / workers
    return StalenessLaw(pmf / pmf.sum(), "exact: memoryless workers")


@functools.lru_cache(maxsize=256)
def staleness_law(delay: AbstractDelay, workers: int) -> StalenessLaw:
    r"""Staleness of fully asynchronous SGD with independent, equal workers, none dropped.

    Given the own cycle D = t, K is the sum of N - 1 independent stationary renewal counts:
    :math:`E z^K = E_D\big[(\sum_n P(N_e(D) = n) z^n)^{N-1}\big]`. Its mean is N - 1 for every law. Exact for constant
    (K = N - 1) and exponential delays (geometric); else on a grid (total variation below 0.005), and above 64 workers
    with the sum of counts taken as normal unless it is small (below 0.01).

    Args:
        delay: Law of one cycle [s]; not a replayed trace.
        workers: Active workers N.
    """
    checks.at_least("workers", workers, 1)
    if workers == 1 or delay.cv < 1e-9:
        return StalenessLaw(_point(workers - 1), CONSTANT)
    if is_exponential(delay):
        return memoryless_law(workers)
    weights, counts = _counted(delay)
    weights, counts = _thinned(weights, counts, workers - 1)
    used = weights > 1e-12
    pmf = _clean(mixture([(counts[used], workers - 1)], weights[used]))
    how = "summed exactly" if workers - 1 <= SUMMED_EXACTLY else "their sum as normal"
    return StalenessLaw(pmf, f"renewal counts, {how}")


@functools.lru_cache(maxsize=2)
def _counted(delay: AbstractDelay) -> tuple[Array, Array]:
    """A law on its lattice, and one worker's completions from a random moment within the times there."""
    step, weights = lattice(delay)
    return weights, equilibrium_counts(step, weights)


def mixed_poisson(delay: AbstractDelay, workers: int) -> StalenessLaw:
    r"""Staleness if arrivals were Poisson: given D, Poisson((N - 1) D / mean).

    Right for exponential delays; for others the variance is too large, since a window of length D sees the
    arrivals of other workers that are more regular than Poisson.
    """
    if delay.cv < 1e-9:
        mean = workers - 1
        top = int(mean + 12 * math.sqrt(mean) + 12)
        return StalenessLaw(stats.poisson.pmf(np.arange(top), mean), "Poisson arrivals")
    step, weights = lattice(delay)
    rates = (workers - 1) / delay.mean * step * np.arange(len(weights))
    top = int(rates[-1] + 10 * math.sqrt(rates[-1]) + 10)
    group = np.floor(8.0 * np.sqrt(rates)).astype(np.int64)  # rates a quarter of a deviation apart are taken together
    total = np.bincount(group, weights)
    middle = np.bincount(group, weights * rates) / np.where(total > 0, total, 1.0)
    pmf = np.zeros(top)
    for weight, rate in zip(total[total > 1e-12], middle[total > 1e-12], strict=True):
        low, high = (int(rate + side * (10 * math.sqrt(rate) + 10)) for side in (-1, 1))
        k = np.arange(max(low, 0), min(high, top))
        pmf[k] += weight * stats.poisson.pmf(k, rate)
    return StalenessLaw(pmf / pmf.sum(), "mixed Poisson")


def law_from_counts(counts: ArrayLike, method: str) -> StalenessLaw:
    """The law of what was counted: ``counts[k]`` gradients had staleness k."""
    kept = np.asarray(np.trim_zeros(np.asarray(counts, float), "b"))
    return StalenessLaw(kept / kept.sum(), method)


def _point(value: int) -> Array:
    pmf = np.zeros(value + 1)
    pmf[value] = 1.0
    return pmf


def _thinned(weights: Array, counts: Array, others: int) -> tuple[Array, Array]:
    """Fewer grid times where the count of the others varies little between neighbours: long tails, few workers.

    Times are merged while the mean of the sum moves by less than a quarter of its deviation. Merging averages the
    counts, so the mean staleness is kept and its variance given the time is off by less than 1 %.
    """
    if len(weights) <= FINE:
        return weights, counts
    n = np.arange(counts.shape[1])
    mean = others * (counts @ n)
    deviation = np.sqrt(np.maximum(others * (counts @ n**2 - (counts @ n) ** 2), 1e-6))
    travelled = np.cumsum(np.diff(mean, prepend=0.0) / np.maximum(deviation, 0.25))
    group = np.unique(np.floor(4.0 * travelled), return_inverse=True)[1]
    total = np.asarray(np.bincount(group, weights), np.float64)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    merged = np.add.reduceat(weights[:, None] * counts, starts, axis=0)
    kept = total > 0
    return total[kept], merged[kept] / total[kept, None]


def _clean(pmf: Array) -> Array:
    pmf = np.trim_zeros(np.where(pmf < 1e-15, 0.0, pmf), "b")
    return pmf / pmf.sum()
