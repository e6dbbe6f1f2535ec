r"""Counts of one worker's completions: the renewal process behind arrivals and staleness."""

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft, integrate, special

from stalewise.delays import AbstractDelay

Array = NDArray[np.float64]
TAIL = 1e-7
STEPS_PER_DEVIATION = 10
STEPS_PER_MEAN = 80
MOST_STEPS = 40_000
FAR, POINTS, SMOOTH = 200.0, 1200, 0.2  # means up to which completions are counted, grid, and variation it is for
CERTAIN = 40.0  # -log of a chance, from where on it is none


@functools.lru_cache(maxsize=64)
def lattice(delay: AbstractDelay) -> tuple[float, Array]:
    r"""A law on the grid 0, step, 2 step, ...: hat-function weights, which keep its mean.

    The weight of grid point j is :math:`\int \Delta_j\,dF` with the hat :math:`\Delta_j`, from the integrated
    distribution function. The tail beyond probability 1e-7 sits on the last point. Renewal quantities computed on the
    grid are off by second order in the step (mean/80 or deviation/10, whichever is smaller).

    Returns:
        Step [s] and weights, shape (points,).
    """
    end = float(delay.quantile(1.0 - TAIL))
    step = max(finest(delay), end / MOST_STEPS)
    weights = hat_weights(delay, step, math.ceil(end / step) + 2)
    weights[-1] += max(1.0 - weights.sum(), 0.0)
    return step, weights / weights.sum()


def finest(delay: AbstractDelay) -> float:
    """Step that resolves a law [s]."""
    return min(delay.mean / STEPS_PER_MEAN, math.sqrt(delay.variance) / STEPS_PER_DEVIATION)


def hat_weights(delay: AbstractDelay, step: float, points: int) -> Array:
    """The law below ``points * step`` on a grid, shape (points,), see `lattice`; what lies beyond is left out."""
    fine = np.arange(8 * points + 1) * (step / 8.0)
    area = integrate.cumulative_trapezoid(delay.cdf(fine), fine, initial=0.0)[::8]
    weights = np.empty(points)
    weights[0] = area[1] / step
    weights[1:] = np.diff(area, 2) / step
    return np.maximum(weights, 0.0)


def fresh_counts(delay: AbstractDelay, step: float, points: int) -> Array:
    r"""Law of the completions of a worker that began at 0, within grid times: :math:`P(N(t) \ge n) = F^{*n}(t)`.

    Returns:
        P(N(t) = n), shape (points, counts); counts reach to where P(N >= n) < 1e-12.
    """
    time = np.arange(points) * step
    return _table([np.ones(points), np.asarray(delay.cdf(time))], hat_weights(delay, step, points))


def convolution(kernel: Array) -> Callable[[Array], Array]:
    """Convolution with a kernel of what has its length, cut to that, along the last axis; transformed only once."""
    points = len(kernel)
    size = fft.next_fast_len(2 * points - 1, real=True)
    transform = np.fft.rfft(kernel, size)
    return lambda other: np.fft.irfft(np.fft.rfft(other, size) * transform, size)[..., :points]


def _table(at_least: list[Array], weights: Array) -> Array:
    """P(N = n) from P(N >= 0) and P(N >= 1), one more delay at a time."""
    one_more = convolution(weights)
    while at_least[-1][-1] > 1e-12 and len(at_least) < 4096:
        at_least.append(np.clip(one_more(at_least[-1]), 0.0, 1.0))
    table = np.array(at_least).T
    return np.concatenate([table[:, :-1] - table[:, 1:], table[:, -1:]], axis=1)


def equilibrium_counts(step: float, weights: Array, mean: float | None = None) -> Array:
    r"""Law of the completions of a worker, seen from a random moment, within a time t.

    :math:`P(N_e(t) \ge n) = (F_e * F^{*(n-1)})(t)` with the residual law
    :math:`F_e(t) = \mu^{-1}\int_0^t (1 - F)`.

    Args:
        step: Grid step [s].
        weights: The delay law on the grid, shape (points,).
        mean: Mean delay [s], where the grid ends before the law does.

    Returns:
        P(N_e(t) = n) at the grid times, shape (points, counts); counts reach to where P(N_e >= n) < 1e-12.
    """
    points = len(weights)
    survival = 1.0 - np.cumsum(weights)
    mean = mean or step * float(np.arange(points) @ weights)
    residual = np.concatenate([[0.0], np.cumsum(survival)[:-1]]) * (step / mean)
    return _table([np.ones(points), np.minimum(residual, 1.0)], weights)


def count_moments(delay: AbstractDelay, time: Array) -> tuple[Array, Array]:
    r"""Mean and variance of the completions by ``time`` of a worker that began at 0.

    :math:`P(N(t) \ge n) = P(S_n \le t)`; the sum :math:`S_1` has the law itself, :math:`S_n` for n > 1 the gamma law
    of its mean and variance (exact for gamma delays). Beyond 200 means the straight lines of renewal theory:
    mean :math:`t/\mu - (1 - c^2)/2`, variance slope :math:`c^2/\mu`, with c the coefficient of variation.

    Args:
        delay: Law of one cycle.
        time: Times [s], shape (points,).

    Returns:
        Means and variances, each of shape (points,).
    """
    mean, square = delay.mean, delay.cv**2
    if square < 1e-18:
        return np.floor(time / mean * (1 + 1e-12)), np.zeros_like(time)
    near = np.minimum(time, FAR * mean)
    once = np.asarray(delay.cdf(near))
    if delay.cv >= SMOOTH:
        scaled, *known = _later_counts(square)
        later, spread = (np.interp(near / mean, scaled, row) for row in known)
    else:
        later, spread = _later_counts_at(square, near / mean)
    beyond, variance = (time - near) / mean, spread + once * (1.0 - once - 2.0 * later)
    return once + later + beyond, np.maximum(variance, 0.0) + square * beyond


@functools.lru_cache(maxsize=16)
def _later_counts(square: float) -> tuple[Array, Array, Array]:
    """`_later_counts_at` a grid up to `FAR` means, ever wider: lines between its points are within 3e-4."""
    time = FAR * np.linspace(0.0, 1.0, POINTS) ** 2
    return time, *_later_counts_at(square, time)


def _later_counts_at(square: float, time: Array) -> tuple[Array, Array]:
    """Sums over n > 1 of P(N >= n), and of (2 n - 1) P(N >= n) less the square of the first; times in means."""
    reach = max(float(time.max()), 1.0)
    n = np.arange(2, int(reach + 8.0 * math.sqrt(reach * square) + 20) + 1)
    at_least = _gamma_chances(n / square, time / square)
    first = at_least.sum(axis=1)
    return first, at_least @ (2.0 * n - 1.0) - first**2


def _gamma_chances(shape: Array, scaled: Array) -> Array:
    """P(gamma of these shapes <= these values), shape (values, shapes); 0 or 1 where Chernoff's bound is sure."""
    wide = scaled[:, None] - shape
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = wide - shape * (np.log(scaled)[:, None] - np.log(shape))
    chances = (wide > 0.0).astype(float)
    doubt = np.nonzero(exponent < CERTAIN)
    chances[doubt] = special.gammainc(shape[doubt[1]], scaled[doubt[0]])
    return chances
