r"""How long a round takes where all wait for some: order statistics, and counts of fresh gradients."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special

from stalewise.delays import AbstractDelay, Equilibrium
from stalewise.staleness.renewal import equilibrium_counts, finest, fresh_counts, hat_weights
from stalewise.staleness.sums import exact_sum_laws
from stalewise.staleness.timing import FirstSteps

Array = NDArray[np.float64]
TIMES = 600
LEFT, LONGER, ROUGH = (
    1e-8,
    1.5,
    8,
)  # chance at the end of the grid; steps to there, looked for on a grid so much coarser
FEW = 20  # rounds up to which chances are computed one by one
MANY, EVEN = 64, 2.0  # gradients a worker, and largest coefficient of variation, from where on counts are normal


@functools.lru_cache(maxsize=256)
def kth_of(delay: AbstractDelay, workers: int, k: int) -> tuple[float, float]:
    r"""Mean [s] and variance [s^2] of the k-th shortest of N independent delays.

    :math:`P(T > t) = I_{1-F(t)}(N-k+1, k)`, the regularised incomplete beta function;
    :math:`E T = \int P(T > t)\,dt`, :math:`E T^2 = \int 2 t P(T > t)\,dt` by Simpson's rule (relative error 1e-5).
    """
    if delay.cv < 1e-12:
        return delay.mean, 0.0
    return _kth_of(delay, workers, k)


@functools.lru_cache(maxsize=256)
def kth_left(delay: AbstractDelay, workers: int, k: int) -> float:
    """Mean [s] of the k-th shortest of what is left, at a random moment, of N independent delays."""
    return _kth_of(delay.equilibrium(), workers, k)[0]


def _kth_of(delay: AbstractDelay | Equilibrium, workers: int, k: int) -> tuple[float, float]:
    end = float(delay.quantile(1.0 - 1e-12 / workers))
    end = end if math.isfinite(end) else float(delay.quantile(1.0 - 1e-15))
    start = float(delay.quantile(1e-15))
    start = max(start, end * 1e-9)
    time = np.geomspace(start, end, 40_001)
    above = special.betainc(workers - k + 1, k, delay.survival(time))
    mean = start + float(integrate.simpson(above, x=time))
    return mean, max(start**2 + float(integrate.simpson(2 * time * above, x=time)) - mean**2, 0.0)


@functools.lru_cache(maxsize=256)
def first_rounds(mean: float, square: float, first: float) -> FirstSteps:
    """Chances that n independent rounds are over, as if rounds were gamma-distributed (exact for memoryless ones).

    Args:
        mean: Of a round [s].
        square: Squared coefficient of variation of a round, above 0.
        first: Mean of the first one [s].
    """
    most = math.ceil(FEW + 7.0 * math.sqrt(FEW * max(square, 0.1)) + 4.0 * square)
    time = np.arange(16 * FEW + 1) / 16.0
    n = np.arange(most)
    middle = first / mean + n
    shape = middle**2 / (square * ((first / mean) ** 2 + n))
    return FirstSteps(mean * time, special.gammainc(shape, shape * time[:, None] / middle))


def longest_of(delay: AbstractDelay, workers: int) -> tuple[float, float]:
    """Mean [s] and variance [s^2] of the longest of N independent delays."""
    return kth_of(delay, workers, workers)


@functools.lru_cache(maxsize=256)
def kth_gradient(delay: AbstractDelay, workers: int, k: int, *, stale_first: bool = False) -> tuple[float, float]:
    r"""Mean [s] and variance [s^2] of the time until N workers have k gradients together, each going on at once.

    :math:`P(T > t) = P(\sum_i N_i(t) < k)`, with renewal counts :math:`N_i`. All begin at 0 (``k-batch-sync``: exact
    up to the grid, 0.05 % measured). With ``stale_first`` one worker begins at 0 and the others are amid a gradient
    that does not count (``rennala``): :math:`N_i = \max(N_e - 1, 0)` with :math:`N_e` counted from a random moment.
    A step is no random moment, so this is exact for memoryless workers alone.

    From 64 gradients a worker on (CV up to 2) counts are taken as normal, with the renewal function's asymptote
    :math:`t/\mu + (c^2-1)/2` (from a random moment :math:`t/\mu`) and variance :math:`c^2 t/\mu`:

    .. math:: E T = \mu\Big(\frac{k - 1/2}{N} + \frac{1 - c^2}{2} + \frac{c^2}{2N}\Big), \qquad
              \mathrm{Var}\,T = \frac{c^2\mu^2 k}{N^2},

    and with ``stale_first`` :math:`(k - 1/2 + N - 1)/N + (1 - c^2)/(2N)` in place of the first two terms. At 64
    gradients a worker within 0.001 % of the mean and 4 % of the variance of the sums (tests/staleness).

    Limits:
        ``stale_first``: see `stalewise.staleness.arrivals` for the errors measured.
    """
    if delay.cv < 1e-12:
        return delay.mean * ((workers - 1 + k) / workers if stale_first else math.ceil(k / workers)), 0.0
    if workers == 1:
        return k * delay.mean, k * delay.variance
    if k >= MANY * workers and delay.cv <= EVEN:
        return _kth_of_many(delay, workers, k, stale_first)
    end = delay.mean * (k / workers + float(stale_first))
    while True:
        rough = min(ROUGH * finest(delay), end / (TIMES / ROUGH))
        if _above(delay, workers, k, rough, [math.ceil(end / rough)], stale_first)[-1] >= LEFT:
            end *= LONGER
            continue
        step = min(finest(delay), end / TIMES)
        points = math.ceil(end / step)
        spread = np.concatenate([np.linspace(0, points - 1, TIMES), np.geomspace(1, points, TIMES) - 1])
        rows = np.unique(np.round(spread).astype(np.int64))  # dense at the start
        above = _above(delay, workers, k, step, rows, stale_first)
        if above[-1] < LEFT:
            break
        end *= LONGER
    time = rows * step
    mean = float(integrate.simpson(above, x=time))
    return mean, max(float(integrate.simpson(2 * time * above, x=time)) - mean**2, 0.0)


def _kth_of_many(delay: AbstractDelay, workers: int, k: int, stale_first: bool) -> tuple[float, float]:
    square = delay.cv**2
    if stale_first:
        cycles = (k - 0.5 + workers - 1) / workers + (1.0 - square) / (2 * workers)
    else:
        cycles = (k - 0.5) / workers + 0.5 * (1.0 - square)
    return delay.mean * (cycles + square / (2 * workers)), square * delay.mean**2 * k / workers**2


def _above(
    delay: AbstractDelay, workers: int, k: int, step: float, rows: Sequence[int] | NDArray[np.int64], stale_first: bool
) -> Array:
    """P(T > t) at these rows of a grid, the last of which is its end."""
    points = int(rows[-1]) + 1
    terms = [(fresh_counts(delay, step, points)[rows], 1 if stale_first else workers)]
    if stale_first and workers > 1:
        counts = equilibrium_counts(step, hat_weights(delay, step, points), delay.mean)[rows]
        useful = counts[:, 1:].copy()
        useful[:, 0] += counts[:, 0]
        terms.append((useful, workers - 1))
    return exact_sum_laws(terms, k).sum(axis=1)
