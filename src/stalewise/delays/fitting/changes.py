"""Did a worker change its pace, and when?"""

import functools
import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from stalewise.delays.fitting.dependence import autocorrelation

Array = NDArray[np.float64]

FALSE_ALARM = 0.01
"""Chance that a log of workers that never change has a change in it."""
LEAST_SIDE = 8
"""Delays on either side of a change."""
LEAST_SIZE = 0.02
"""Smallest change of the level that is told, as a share of it."""
MOST = 8
_NULL_DRAWS = 2000
_LONGEST = 1000


class Change(NamedTuple):
    """A worker's change of regime: before its delay number ``row`` (from 0), which began at ``time`` [s].

    ``before`` and ``after`` are median delays [s] of the stretches on either side, ``p_value`` that of the split.
    """

    worker: str
    row: int
    time: float
    before: float
    after: float
    p_value: float


def find_changes(label: str, values: Array, starts: Array, *, workers: int = 1) -> list[Change]:
    r"""Change points of one worker's level, by binary segmentation.

    A stretch is split where :math:`|\sum_{i\le k} z_i|/\sqrt{k(n-k)/n}` is greatest, z being the delays' normal scores,
    so that neither their law nor outliers matter. The statistic is divided by :math:`\sqrt{(1+r)/(1-r)}`, r the lag-1
    autocorrelation left on both sides of the split, and compared with splits of shuffled scores. Stretches longer than
    1,000 are first averaged in that many blocks.

    Args:
        label: The worker.
        values: Its delays in their order [s].
        starts: When they began [s].
        workers: How many workers are searched; `FALSE_ALARM` is shared between them.

    Source:
        Vostrikova (1981), Detecting disorder in multidimensional random processes; Antoch, Huskova & Prasankova (1997),
        Effect of dependence on statistics for determination of change.
    """
    found: list[tuple[int, float]] = []
    stretches = [(0, len(values))]
    while stretches and len(found) < MOST:
        low, high = stretches.pop(0)
        split = _split(values[low:high])
        if split is None or split[1] > FALSE_ALARM / workers:
            continue
        at = low + split[0]
        found.append((at, split[1]))
        stretches += [(low, at), (at, high)]
    found.sort()
    edges = [0, *(at for at, _ in found), len(values)]
    levels = [float(np.median(values[a:b])) for a, b in pairwise(edges)]
    return [
        Change(label, at, float(starts[at]), before, after, p)
        for (at, p), (before, after) in zip(found, pairwise(levels), strict=True)
    ]


def segments(values: Array, changes: list[Change]) -> list[Array]:
    """Delays between changes."""
    return np.split(values, [change.row for change in changes])


def _split(values: Array) -> tuple[int, float] | None:
    """Best split of a stretch and its p-value; None where it is too short, level, or the change too small."""
    if len(values) < 4 * LEAST_SIDE or np.ptp(values) == 0:
        return None
    block = -(-len(values) // _LONGEST)
    coarse = _averaged(values, block)
    least = max(LEAST_SIDE // block, 2)
    scores = _normal_scores(coarse)
    gaps = _gaps(scores, least)
    at = least + int(np.argmax(gaps))
    sides = np.concatenate([scores[:at] - scores[:at].mean(), scores[at:] - scores[at:].mean()])
    r = min(max(autocorrelation(sides) + 3.0 / len(sides), 0.0), 0.97)
    statistic = float(gaps.max()) / (math.sqrt((1.0 + r) / (1.0 - r)) * max(float(sides.std()), 0.05))
    at = _sharpened(values, at * block, block)
    before, after = float(np.median(values[:at])), float(np.median(values[at:]))
    if abs(after / before - 1.0) < LEAST_SIZE:
        return None
    return at, _p_value(statistic, len(coarse), least)


def _averaged(values: Array, block: int) -> Array:
    whole = len(values) // block * block
    return values[:whole].reshape(-1, block).mean(axis=1)


def _sharpened(values: Array, at: int, block: int) -> int:
    """The best split of single delays within two blocks of ``at``."""
    if block == 1:
        return at
    low, high = max(at - 2 * block, 0), min(at + 2 * block, len(values))
    part = _normal_scores(values[low:high])
    if len(part) < 2 * LEAST_SIDE + 1:
        return at
    return low + LEAST_SIDE + int(np.argmax(_gaps(part, LEAST_SIDE)))


def _normal_scores(values: Array) -> Array:
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values)) + 0.5
    first, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)[0:3]
    if len(first) < len(values):
        ranks = (np.bincount(inverse, ranks) / counts)[inverse]
    scores = special.ndtri(ranks / len(values))
    return (scores - scores.mean()) / max(float(scores.std()), 1e-12)


def _gaps(scores: Array, least: int) -> Array:
    """Standardised difference of the levels on either side of each split, ``least`` from either end."""
    n = scores.shape[-1]
    place = np.arange(least, n - least + 1)
    return np.abs(np.cumsum(scores, axis=-1)[..., place - 1]) / np.sqrt(place * (n - place) / n)


def _p_value(statistic: float, n: int, least: int) -> float:
    """Share of shuffles beyond the statistic; past the twentieth greatest by the Gumbel law through the upper tenth."""
    null = _null(_rounded_size(n), least)
    beyond = len(null) - int(np.searchsorted(null, statistic, side="left"))
    if beyond >= 20:
        return (beyond + 1) / (len(null) + 1)
    upper, middle = null[int(0.99 * len(null))], null[int(0.9 * len(null))]
    scale = (upper - middle) / (math.log(-math.log(0.9)) - math.log(-math.log(0.99)))
    return float(min(-math.expm1(-math.exp(-(statistic - upper) / scale + math.log(-math.log(0.99)))), 1.0))


def _rounded_size(n: int) -> int:
    """``n`` to within 5 %, so that few null laws are drawn."""
    return round(1.1 ** round(math.log(n) / math.log(1.1)))


@functools.lru_cache(maxsize=128)
def _null(n: int, least: int) -> Array:
    """Sorted statistics of shuffled normal scores; standardised by the spread on both sides, as the observed one."""
    rng = np.random.default_rng(n)
    scores = special.ndtri((np.arange(n) + 0.5) / n)
    scores /= scores.std()
    found = np.empty(_NULL_DRAWS)
    for i in range(0, _NULL_DRAWS, 200):
        rows = rng.permuted(np.tile(scores, (200, 1)), axis=1)
        largest = _gaps(rows, least).max(axis=1)
        found[i : i + 200] = largest / np.sqrt(np.maximum(1.0 - largest**2 / n, 1e-6))
    return np.sort(found)
