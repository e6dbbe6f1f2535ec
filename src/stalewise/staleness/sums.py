r"""Laws of sums of many independent counts, time by time."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from stalewise.jit import compiled

Array = NDArray[np.float64]
SUMMED_EXACTLY = 64
BLOCK = 64  # times taken at once
Terms = Sequence[tuple[Array, int]]  # P(count = n) at given times, shape (times, counts), and how many such counts


def moments(terms: Terms) -> tuple[Array, Array]:
    """Mean and standard deviation of the sum at each time, shape (times,)."""
    mean, variance = np.zeros(len(terms[0][0])), np.zeros(len(terms[0][0]))
    for table, copies in terms:
        n = np.arange(table.shape[1])
        first = table @ n
        mean += copies * first
        variance += copies * np.maximum(table @ n**2 - first**2, 0.0)
    return mean, np.sqrt(variance)


def sum_laws(terms: Terms, length: int) -> Array:
    r"""P(sum = k) for k < ``length`` at each time, shape (times, length).

    By discrete Fourier transform, exact to rounding. Above 64 terms the sum is taken as normal at times when its mean
    is more than 6 deviations, which moves no probability by more than 0.01.
    """
    mean, deviation = moments(terms)
    exact = _summed(terms, mean, deviation)
    out = np.empty((len(mean), length))
    if exact.any():
        out[exact] = exact_sum_laws(_at(terms, exact), length)
    edges = np.arange(-1, length) + 0.5
    below = special.ndtr((edges - mean[~exact, None]) / np.maximum(deviation[~exact], 0.03)[:, None])
    out[~exact] = np.diff(below, axis=1)
    return out


def exact_sum_laws(terms: Terms, length: int) -> Array:
    """As `sum_laws`, by transform whatever the number of terms."""
    out = np.empty((len(terms[0][0]), length))
    for part, transform, size in _transforms(terms):
        row = np.fft.irfft(transform, size, axis=1)[:, :length]
        out[part, : row.shape[1]] = np.maximum(row, 0.0)
        out[part, row.shape[1] :] = 0.0
    return out


def mixture(terms: Terms, weights: Array) -> Array:
    """Law of the sum at a random time with these weights; as accurate as `sum_laws`."""
    mean, deviation = moments(terms)
    exact = _summed(terms, mean, deviation)
    parts = [_mixture_of_normals(mean[~exact], deviation[~exact], weights[~exact])] if not exact.all() else []
    if exact.any():
        chosen, total, size = weights[exact], 0.0, 0
        for part, transform, length in _transforms(_at(terms, exact)):
            total, size = total + chosen[part] @ transform, length
        parts.append(np.fft.irfft(total, size))
    pmf = np.zeros(max(map(len, parts)))
    for part in parts:
        pmf[: len(part)] += part
    return pmf


def _summed(terms: Terms, mean: Array, deviation: Array) -> NDArray[np.bool_]:
    """At which times the sum is computed term by term, and not taken as normal."""
    if sum(copies for _, copies in terms) <= SUMMED_EXACTLY:
        return np.ones(len(mean), bool)
    return mean <= 6.0 * deviation


def _at(terms: Terms, times: NDArray[np.bool_]) -> Terms:
    return [(table[times], copies) for table, copies in terms]


def _transforms(terms: Terms):
    """For blocks of times: which, E z^sum on the upper unit circle, and the length of the transform."""
    mean, deviation = moments(terms)
    size = 1 << math.ceil(math.log2(max(float((mean + 9 * deviation + 9).max()), 8)))
    for start in range(0, len(mean), BLOCK):
        part = slice(start, start + BLOCK)
        transform = np.ones((len(mean[part]), size // 2 + 1), complex)
        for table, copies in terms:
            _times_power(transform.ravel(), np.fft.rfft(_folded(table[part], size), axis=1).ravel(), copies)
        yield part, transform, size


def _folded(table: Array, size: int) -> Array:
    """The counts modulo ``size``, shape (times, size): what a transform of that length sees of them."""
    folded = np.zeros((len(table), size))
    for start in range(0, table.shape[1], size):
        some = table[:, start : start + size]
        folded[:, : some.shape[1]] += some
    return folded


@compiled
def _times_power(product, base, exponent):  # pragma: no cover
    """Multiply, in place, by an integer power, by repeated squaring."""
    for i in range(len(base)):
        left, square, power = exponent, base[i], product[i]
        while left > 0:
            if left & 1:
                power *= square
            square *= square
            left >>= 1
        product[i] = power


def _mixture_of_normals(mean: Array, deviation: Array, weights: Array) -> Array:
    deviation = np.maximum(deviation, 0.03)
    top = int((mean + 8 * deviation).max()) + 2
    edges = np.arange(-1, top) + 0.5
    pmf = np.zeros(top)
    for weight, middle, width in zip(weights, mean, deviation, strict=True):
        low = max(int(middle - 8 * width), 0)
        high = min(int(middle + 8 * width) + 2, top)
        pmf[low:high] += weight * np.diff(special.ndtr((edges[low : high + 1] - middle) / width))
    return pmf
