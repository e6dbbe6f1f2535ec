"""Which gradients took far longer than their worker's others, and what share of the time is theirs?"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FENCE = 3.0
"""Interquartile ranges of the logarithm above the upper quartile."""
LEAST_RATIO = 1.5
"""Delays that are less than this times the median are no outliers, however regular the others."""
_NAMED = 10


class Outlier(NamedTuple):
    """One gradient: its worker, when it began [s], how long it took [s], and that over the worker's median."""

    worker: str
    time: float
    delay: float
    ratio: float


class Outliers(NamedTuple):
    """Delays beyond the far fence of their worker.

    ``number`` and ``share_of_rows`` say how many gradients, ``share_of_time`` how much of all workers' time is theirs.
    ``slowest_percent`` is the share of time of the slowest 1 % of gradients, outliers or not; ``worst`` names the ten
    that are longest for their worker.
    """

    number: int
    share_of_rows: float
    share_of_time: float
    slowest_percent: float
    worst: tuple[Outlier, ...]


def find_outliers(sequences: Mapping[str, Array], starts: Mapping[str, Array]) -> Outliers:
    """Delays whose logarithm lies more than `FENCE` interquartile ranges above their worker's upper quartile.

    And of at least `LEAST_RATIO` times its median.
    A normal law goes there once in a million, an exponential one never; a Pareto law with one in 110, for it is made
    of such delays.

    Source:
        Tukey (1977), Exploratory Data Analysis, 2D (far out).
    """
    found = [one for label, values in sequences.items() for one in _of_worker(label, values, starts[label])]
    everything = np.sort(np.concatenate(list(sequences.values())))
    total = float(everything.sum())
    slowest = everything[-max(len(everything) // 100, 1) :]
    worst = sorted(found, key=lambda one: -one.ratio)[:_NAMED]
    return Outliers(
        number=len(found),
        share_of_rows=len(found) / len(everything),
        share_of_time=sum(one.delay for one in found) / total,
        slowest_percent=float(slowest.sum()) / total,
        worst=tuple(worst),
    )


def _of_worker(label: str, values: Array, starts: Array) -> list[Outlier]:
    if len(values) < 8:
        return []
    low, middle, high = np.quantile(np.log(values), [0.25, 0.5, 0.75])
    far = np.flatnonzero(np.log(values) > max(high + FENCE * (high - low), middle + np.log(LEAST_RATIO)))
    return [Outlier(label, float(starts[i]), float(values[i]), float(values[i] / np.exp(middle))) for i in far]
