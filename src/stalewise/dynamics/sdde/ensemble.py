"""Many paths on all cores: blocks of 64 in fixed groups, each group with its own random stream and its own sums.

Groups are made before threads are: a result depends on the seed and on the number of paths, never on the cores.
Memory is a thread's ring, and a group's sums: it grows neither with paths nor with steps.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stalewise import checks
from stalewise.dynamics.sdde.kernel import Plan, room_for, run_paths
from stalewise.dynamics.sdde.normals import LANES, streams
from stalewise.errors import InputError
from stalewise.jit import compiled

Array = NDArray[np.floating]
MOST_GROUPS = 64
DRAWN = np.zeros((0, 0, 0))


@dataclass(frozen=True)
class SamplePaths:
    """Statistics of an ensemble at saved times.

    Attributes:
        time: [s], shape (m,).
        mean, variance: Of x, shape (m,).
        mean_error, variance_error: Their standard errors, shape (m,).
        values: The paths that were kept, shape (m, keep).
        step: h [s].
        paths: How many there were.
        warnings: Where these numbers mislead, as sentences.
    """

    time: Array
    mean: Array
    variance: Array
    mean_error: Array
    variance_error: Array
    values: Array
    step: float
    paths: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class HittingTimes:
    """Law of the time T at which paths first cross a level, or last leave a band.

    Attributes:
        time: [s], shape (m,); the last one is the horizon.
        survival: P(T > time), shape (m,).
        survival_error: Its standard error, shape (m,).
        mean: E min(T, horizon) [s]: the mean of T only if the last of ``survival`` is next to 0.
        mean_error: Its standard error [s].
        step: h [s].
        paths: How many there were.
        warnings: Where these numbers mislead, as sentences.
    """

    time: Array
    survival: Array
    survival_error: Array
    mean: float
    mean_error: float
    step: float
    paths: int
    warnings: tuple[str, ...] = ()

    @property
    def cdf(self) -> Array:
        """P(T <= time), shape (m,)."""
        return 1.0 - self.survival

    def quantile(self, p: float) -> float:
        """Time [s] by which a share ``p`` of paths is there, between saved times on a straight line; inf if none."""
        if not 0.0 <= p <= 1.0:
            raise InputError(f"quantile: p must be between 0 and 1, got {p!r}")
        return _reaches(self.time, self.cdf, p)

    def quantile_error(self, p: float) -> float:
        """Standard error of `quantile` [s]: half the way between the quantiles of the cdf one error up and down."""
        middle = self.quantile(p)
        early = _reaches(self.time, self.cdf + self.survival_error, p)
        late = _reaches(self.time, self.cdf - self.survival_error, p)
        return 0.5 * (late - early) if math.isfinite(middle) else math.inf


def _reaches(time: Array, rising: Array, p: float) -> float:
    """First time at which values are at p, joined by straight lines; infinite if they never are."""
    if rising[-1] < p:
        return math.inf
    after = int(np.argmax(rising >= p))
    if after == 0:
        return float(time[0])
    share = (p - rising[after - 1]) / (rising[after] - rising[after - 1])
    return float(time[after - 1] + share * (time[after] - time[after - 1]))


@dataclass(frozen=True)
class Sums:
    """Moments of the columns that were added: number, mean, squares about it, and the same of blocks' variances."""

    count: int
    mean: Array
    squares: Array
    block_variances: Array
    blocks: int

    @property
    def variance(self) -> Array:
        """Unbiased, shape (m,)."""
        return self.squares / max(self.count - 1, 1)

    @property
    def mean_error(self) -> Array:
        """Standard error of the mean, shape (m,)."""
        return np.sqrt(self.variance / self.count)

    @property
    def variance_error(self) -> Array:
        """Standard error of the variance: from the scatter between blocks of 64, or as of normals if they are few."""
        if self.blocks < 16:
            return self.variance * math.sqrt(2.0 / max(self.count - 1, 1))
        mean = self.block_variances[:, 0] / self.blocks
        scatter = np.maximum(self.block_variances[:, 1] / self.blocks - mean**2, 0.0)
        return np.sqrt(scatter / (self.blocks - 1))


@compiled
def _add_block(values, used, count, sums):  # pragma: no cover
    """Merge ``used`` columns of values, shape (m, 64), into sums, shape (m, 4), that hold ``count`` columns.

    Rows of sums: mean, squares about it, sum of blocks' variances, sum of their squares (Chan, Golub, LeVeque 1979).
    """
    for i in range(len(values)):
        mean = 0.0
        for j in range(used):
            mean += values[i, j]
        mean /= used
        squares = 0.0
        for j in range(used):
            squares += (values[i, j] - mean) ** 2
        apart = mean - sums[i, 0]
        total = count + used
        sums[i, 0] += apart * used / total
        sums[i, 1] += squares + apart * apart * count * used / total
        if used == 64:
            sums[i, 2] += squares / 63.0
            sums[i, 3] += (squares / 63.0) ** 2


@compiled
def _survival(stay, times, ends, band, lived):  # pragma: no cover
    """Turn what was kept off in each interval, shape (m, 64), into P(T > t); ``lived`` [1, 64]: its integral.

    A band above 0 asks for the last time: paths whose ``ends`` lie outside of it have not settled by the horizon.
    """
    m = len(stay)
    for j in range(64):
        if band > 0.0:
            product = 1.0 if abs(ends[j]) < band else 0.0
            for i in range(m - 1, -1, -1):
                here = stay[i, j]
                stay[i, j] = 1.0 - product
                product *= here
        else:
            for i in range(1, m):
                stay[i, j] *= stay[i - 1, j]
        total = 0.0
        for i in range(1, m):
            total += 0.5 * (stay[i, j] + stay[i - 1, j]) * (times[i] - times[i - 1])
        lived[0, j] = total


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_groups(paths: int, rng: np.random.Generator, threads: int | None, work: Callable) -> list:
    """Call ``work(seed, blocks)`` for each group, ``blocks`` a list of (first path, paths in it); answers in order."""
    paths = checks.at_least("paths", paths, 2)
    threads = cores() if threads is None else checks.at_least("threads", threads, 1)
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng must be a numpy.random.Generator, got {rng!r}; try numpy.random.default_rng(seed)")
    blocks = [(first, min(LANES, paths - first)) for first in range(0, paths, LANES)]
    groups = min(len(blocks), MOST_GROUPS)
    seeds = np.random.SeedSequence(rng.integers(2**63, size=4).tolist()).spawn(groups)
    shares = [blocks[group::groups] for group in range(groups)]
    if threads == 1:
        return [work(seed, share) for seed, share in zip(seeds, shares, strict=True)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, seeds, shares))


def _merged(parts: list[tuple[int, Array, int]]) -> Sums:
    """One `Sums` of those of the groups, given as (columns, sums of shape (m, 4), full blocks)."""
    count, total, blocks = 0, np.zeros_like(parts[0][1]), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for columns, part, full in parts:
            apart = part[:, 0] - total[:, 0]
            share = columns / (count + columns)
            total[:, 0] += apart * share
            total[:, 1] += part[:, 1] + apart**2 * count * share
            total[:, 2:] += part[:, 2:]
            count, blocks = count + columns, blocks + full
    return Sums(count, total[:, 0], total[:, 1], total[:, 2:], blocks)


Walker = Callable[[np.random.SeedSequence], Callable[[], tuple[Array, Array]]]
"""Makes, for the seed of a group, a function whose every call walks 64 more paths.

It returns their values at the saved times and the probabilities to have kept off a level between them, each of shape
(m, 64), in arrays that it may use again.
"""


def planned(plan: Plan, past: Array) -> Walker:
    """Paths that obey ``plan`` from the history ``past`` on."""

    def prepare(seed: np.random.SeedSequence):
        room, rng = room_for(plan, streams(seed)), np.random.Generator(np.random.SFC64(seed.spawn(1)[0]))

        def run() -> tuple[Array, Array]:
            run_paths(plan, room, past, DRAWN, rng)
            return room.values, room.stay

        return run

    return prepare


def sample_paths(
    times: Array, step: float, paths: int, rng: np.random.Generator, keep: int, threads: int | None, walker: Walker
) -> SamplePaths:
    """Statistics of the paths that ``walker`` makes."""
    kept = np.empty((len(times), min(checks.at_least("keep", keep, 0), checks.at_least("paths", paths, 2))))

    def work(seed: np.random.SeedSequence, blocks: list[tuple[int, int]]) -> tuple[int, Array, int]:
        run = walker(seed)
        return _added(blocks, len(times), lambda: run()[0], kept)

    sums = _merged(over_groups(paths, rng, threads, work))
    with np.errstate(over="ignore", invalid="ignore"):
        columns = [sums.mean, sums.variance, sums.mean_error, sums.variance_error]
    lost = ~np.isfinite(sums.mean)
    mean, variance, *errors = (np.where(lost | np.isnan(column), math.inf, column) for column in columns)
    kept[np.isnan(kept)] = math.inf
    warnings = (f"paths overflow by {times[lost][0]:.4g} s: what overflows is given as infinite",) if lost.any() else ()
    return SamplePaths(times, mean, variance, errors[0], errors[1], kept, step, sums.count, warnings)


def hitting_times(
    times: Array,
    step: float,
    paths: int,
    rng: np.random.Generator,
    threads: int | None,
    band: float,
    walker: Walker,
    warnings: tuple[str, ...] = (),
) -> HittingTimes:
    """Law of the time at which the walker's level is first crossed, or a band above 0 left for the last time."""
    rows, nothing = len(times), np.empty((0, 0))

    def work(seed: np.random.SeedSequence, blocks: list[tuple[int, int]]) -> tuple[int, Array, int]:
        run, both = walker(seed), np.empty((rows + 1, LANES))

        def survivals() -> Array:
            values, both[:rows] = run()
            _survival(both[:rows], times, values[-1], band, both[rows:])
            return both

        return _added(blocks, rows + 1, survivals, nothing)

    sums = _merged(over_groups(paths, rng, threads, work))
    law, error = sums.mean, sums.mean_error
    return HittingTimes(times, law[:-1], error[:-1], float(law[-1]), float(error[-1]), step, sums.count, warnings)


def _added(blocks: list[tuple[int, int]], rows: int, run: Callable[[], Array], kept: Array) -> tuple[int, Array, int]:
    """Columns, sums and full blocks of what ``run()`` gives, shape (rows, 64); ``kept`` takes the first paths."""
    sums, count = np.zeros((rows, 4)), 0
    for first, used in blocks:
        values = run()
        _add_block(values, used, count, sums)
        count += used
        if first < kept.shape[1]:
            last = min(first + used, kept.shape[1])
            kept[:, first:last] = values[:, : last - first]
    return count, sums, sum(used == LANES for _, used in blocks)
