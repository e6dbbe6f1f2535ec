"""Gradient noise: its total, its scale, its covariance along eigenvectors; time of one gradient."""

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from stalewise.landscape.result import Covariance, Estimate, Seconds

if TYPE_CHECKING:
    from stalewise.workloads.network import Network, Vector

Array = NDArray[np.float64]
GROUPS = 20
COLUMNS = 1 << 16
SHORTEST = 3  # batches of a round that are told apart
WARM = 1000  # after the worker that batches are named by: one that warms up
LOST = 2.0  # standard errors that a squared mean gradient must stand out by


@dataclass(frozen=True)
class Sums:
    """What is kept of gradients, group by group: all groups are of one size.

    Attributes:
        batch_size: Samples a gradient.
        count: Gradients a group.
        products: Scalar products of the groups' sums, shape (groups, groups).
        squares: Sums of squared lengths, shape (groups,).
        along: Gradients' parts along directions, shape (gradients, directions).
        seconds: Time of every gradient, shape (gradients,).
    """

    batch_size: int
    count: int
    products: Array
    squares: Array
    along: Array
    seconds: Array


@dataclass(frozen=True)
class Rounds:
    """What is kept of gradients of a loader that gives its batches in rounds, blocks of places in a round together.

    Attributes:
        batch_size: Samples a gradient.
        rounds: Whole rounds.
        places: Batches of a round in each block, shape (blocks,).
        within: Scalar products of the blocks' sums in one round, added up over rounds, shape (blocks, blocks).
        across: Those of their sums over all rounds, shape (blocks, blocks).
        squares: Sums of squared lengths, shape (blocks,).
        along: Gradients' parts along directions, shape (gradients, directions).
        seconds: Time of every gradient, shape (gradients,).
    """

    batch_size: int
    rounds: int
    places: Array
    within: Array
    across: Array
    squares: Array
    along: Array
    seconds: Array


def collect(
    network: "Network",
    parameters: "Vector",
    batch_size: int,
    gradients: int,
    directions: Array,
    name: tuple[int, int],
    told: Callable[[], None],
) -> Sums | Rounds:
    """Draw gradients and add them up, in whole rounds where a loader's are short enough for two of them.

    Args:
        network: What is trained.
        parameters: Where, shape (size,).
        batch_size: Samples a gradient.
        gradients: How many, rounded down to whole groups or rounds.
        directions: Shape (size, directions).
        name: Seed and worker that batches are named by.
        told: Called after each gradient.
    """
    along, seconds, slim = [], [], directions.astype(np.float32)
    network.gradient(parameters, (name[0], name[1] + WARM, 0), batch_size)

    def drawn(count: int) -> Iterator[tuple[int, "Vector"]]:
        for i in range(count):
            begun = time.perf_counter()
            gradient, _ = network.gradient(parameters, (*name, i), batch_size)
            seconds.append(time.perf_counter() - begun)
            along.append(gradient @ slim)
            yield i, gradient
            told()

    length = network.round(gradients // 2)
    if length is not None and length >= SHORTEST:
        kept = _in_rounds(drawn(gradients // length * length), length, network.size)
        return Rounds(batch_size, gradients // length, *kept, np.array(along, float), np.array(seconds))
    groups = min(GROUPS, gradients // 2)
    count = gradients // groups
    sums, squares = np.zeros((groups, network.size), np.float32), np.zeros(groups)
    for i, gradient in drawn(groups * count):
        sums[i % groups] += gradient
        squares[i % groups] += np.dot(gradient, gradient)
    return Sums(batch_size, count, _products(sums), squares, np.array(along, float), np.array(seconds))


def _in_rounds(drawn: Iterable[tuple[int, "Vector"]], length: int, size: int) -> tuple[Array, Array, Array, Array]:
    """Places, products within and across rounds, and squares of gradients in rounds of ``length``."""
    blocks = min(GROUPS, length)
    block = np.arange(length) * blocks // length
    this, every = (np.zeros((blocks, size), np.float32) for _ in range(2))
    within, squares = np.zeros((blocks, blocks)), np.zeros(blocks)
    for i, gradient in drawn:
        at = block[i % length]
        this[at] += gradient
        squares[at] += np.dot(gradient, gradient)
        if i % length == length - 1:
            within += _products(this)
            every += this
            this[:] = 0.0
    return np.bincount(block).astype(float), within, _products(every), squares


def _products(sums: NDArray[np.float32]) -> Array:
    total = np.zeros((len(sums), len(sums)))
    for begin in range(0, sums.shape[1], COLUMNS):
        part = sums[:, begin : begin + COLUMNS].astype(np.float64)
        total += part @ part.T
    return total


@dataclass(frozen=True)
class Noise:
    r"""Variance of one sample's gradient over all parameters, :math:`\mathrm{tr}\,\Sigma`, and the noise scale.

    With n gradients of B samples, :math:`\mathrm{tr}\,\Sigma = B\sum_i|g_i - \bar g|^2/(n - 1)` and
    :math:`|G|^2 = |\bar g|^2 - \mathrm{tr}\,\Sigma/(nB)` (direct). From lengths of small batches and of big ones, the
    means of a group, alone (two batches, McCandlish et al. 2018):

    .. math:: \mathrm{tr}\,\Sigma = \frac{|G_B|^2 - |G_{cB}|^2}{1/B - 1/(cB)}, \qquad
              |G|^2 = \frac{cB\,|G_{cB}|^2 - B\,|G_B|^2}{cB - B}.

    The noise scale is their ratio :math:`\mathrm{tr}\,\Sigma/|G|^2` [samples]: the batch at which the noise of a
    gradient is as large as the gradient. None where the gradient is lost in the noise. Standard errors are those of
    the jackknife over groups.

    A loader may give every sample once a round, or the same batches in every round: then batches are no independent
    draws. Of E rounds of M batches, with :math:`\bar g_e` the mean of one,

    .. math:: \mathrm{tr}\,\Sigma = \frac{B}{E(M-1)}\sum_{e,i}|g_{ei} - \bar g_e|^2, \qquad
              |G|^2 = \frac{1}{E(E-1)}\sum_{e \ne f}\bar g_e \cdot \bar g_f

    hold for such loaders as for independent draws. The jackknife leaves out places in the round, with what was drawn
    there in all of them; there is no estimate by two batches.
    """

    total: Estimate
    gradient_square: Estimate
    scale: Estimate | None
    two_batch: Estimate | None


def noise_of(sums: Sums | Rounds) -> Noise:
    """Noise of gradients at one place."""
    groups = len(sums.squares)
    if isinstance(sums, Rounds):
        total, square, scale = _jackknife(groups, functools.partial(_by_rounds, sums))
        return Noise(total, square, scale if _stands_out(square) else None, None)
    total, square, scale = _jackknife(groups, functools.partial(_direct, sums))
    *_, two_batch = _jackknife(groups, functools.partial(_two_batch, sums))
    return Noise(total, square, scale if _stands_out(square) else None, two_batch if _stands_out(square) else None)


def _stands_out(one: Estimate) -> bool:
    return one.value > LOST * one.standard_error


def _jackknife(groups: int, of: Callable[[NDArray[np.intp]], tuple[float, ...]]) -> list[Estimate]:
    """Estimates from all groups, with the spread of those that leave one out."""
    every = np.arange(groups)
    without = np.array([of(np.delete(every, i)) for i in every])
    errors = np.sqrt((len(every) - 1) * without.var(0))
    return [Estimate(value=float(v), standard_error=float(e)) for v, e in zip(of(every), errors, strict=True)]


def _by_rounds(rounds: Rounds, kept: NDArray[np.intp]) -> tuple[float, ...]:
    count, length = rounds.rounds, float(rounds.places[kept].sum())
    within, across = (float(one[np.ix_(kept, kept)].sum()) for one in (rounds.within, rounds.across))
    variance = (float(rounds.squares[kept].sum()) - within / length) / (count * (length - 1))
    square = (across - within) / (count * (count - 1) * length**2)
    return rounds.batch_size * variance, square, _ratio(rounds.batch_size * variance, square)


def _direct(sums: Sums, kept: NDArray[np.intp]) -> tuple[float, ...]:
    n = sums.count * len(kept)
    mean_square = float(sums.products[np.ix_(kept, kept)].sum()) / n**2
    variance = (float(sums.squares[kept].sum()) - n * mean_square) / (n - 1)
    square = mean_square - variance / n
    return sums.batch_size * variance, square, _ratio(sums.batch_size * variance, square)


def _two_batch(sums: Sums, kept: NDArray[np.intp]) -> tuple[float, ...]:
    c, b = sums.count, sums.batch_size
    small = float(sums.squares[kept].mean()) / c
    big = float(np.diag(sums.products)[kept].mean()) / c**2
    total, square = (small - big) / (1 / b - 1 / (c * b)), (c * big - small) / (c - 1)
    return total, square, _ratio(total, square)


def _ratio(noise: float, square: float) -> float:
    """Noise scale; none that counts where there is no gradient (`_stands_out`)."""
    return noise / square if square else 0.0


def covariance_of(slopes: Array, batch_size: int, route: Literal["samples", "batches"]) -> Covariance:
    r"""Noise along eigenvectors.

    Args:
        slopes: Gradients' parts along eigenvectors, shape (gradients, eigenvectors).
        batch_size: Samples behind each of them; the covariance is that of one sample.
        route: Where they come from.

    Returns:
        The covariance of one sample's gradient, and what of it is off the diagonal:
        :math:`\sum_{i \ne j} C_{ij}^2/\sum_{ij} C_{ij}^2`. A variance's standard error is
        :math:`\sqrt{(m_4 - C_{ii}^2)/n}` with the fourth moment.
    """
    apart = slopes - slopes.mean(0)
    n = len(slopes)
    matrix = batch_size * (apart.T @ apart) / (n - 1)
    variances = np.diag(matrix)
    fourth = batch_size**2 * (apart**4).mean(0)
    errors = np.sqrt(np.maximum(fourth - variances**2, 0.0) / n)
    squares = float((matrix**2).sum())
    return Covariance(
        along=[Estimate(value=float(v), standard_error=float(e)) for v, e in zip(variances, errors, strict=True)],
        matrix=matrix.tolist(),
        off_diagonal=1.0 - float((variances**2).sum()) / squares if squares > 0 else 0.0,
        route=route,
        gradients=n,
    )


def seconds_of(sums: Sums | Rounds) -> Seconds:
    """Time of one gradient; the median's error is half of what 68 % of medians lie within, by order statistics."""
    reach = 0.5 / math.sqrt(len(sums.seconds))
    low, left, median, right, high = np.quantile(
        sums.seconds, [0.1, max(0.5 - reach, 0), 0.5, min(0.5 + reach, 1), 0.9]
    )
    return Seconds(median=float(median), standard_error=float(right - left) / 2, low=float(low), high=float(high))
