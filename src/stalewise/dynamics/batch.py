r"""Limits, floors and settling times of many modes under many schedules at once, for a search.

Everything follows from one recursion a mode, its response X to a unit kick. From a standing start at 1 the mean is
:math:`m_k = 1 - h\sum_{j<k} X_j`, noise makes the variance :math:`\nu\sum X_j^2`, and with r = P * X, what is read of a
kick, staleness jitter multiplies that by :math:`1/(1 - w h^2\sum(X^2 - r^2))`, infinite past the limit. Ages are
counted in blocks of updates, 24 to 48 on average; what goes on when the response has become one exponential is
summed as a geometric series.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from stalewise import checks
from stalewise.dynamics.memoryless import memoryless_step_limit
from stalewise.errors import InputError
from stalewise.staleness import Arrivals, StalenessLaw

Array = NDArray[np.float64]
AGES = 24  # mean staleness in blocks, or up to twice that
CUT, LONGEST = 1e-5, 600  # tail of the staleness, and age in blocks, that are put on the longest age kept
SETTLED, ROUNDS = 1e-3, 48  # of a rate between quarters, to be an exponential; memories that are followed at most
BISECTIONS, POINTS = 30, 512
_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})


@dataclass(frozen=True)
class Settling:
    """What `settle` found.

    Attributes:
        limit: Mean-square limit of h of every schedule, shape (schedules,).
        floor: Loss that noise holds, infinite past the limit, shape (schedules, modes).
        time: Settling time of every mode by itself [s], infinite where never, shape (schedules, modes).
    """

    limit: Array
    floor: Array
    time: Array


class _Ages(NamedTuple):
    """A schedule as compiled code takes it: ages in blocks, oldest first; time and scatter against blocks."""

    pmf: Array
    block: int
    weight: float
    blocks: Array
    times: Array
    scatter: Array


def settle(
    schedules: Sequence[Arrivals], step: ArrayLike, curvature: ArrayLike, noise: ArrayLike, start: ArrayLike,
    target: ArrayLike, *, limit: ArrayLike | None = None,
) -> Settling:  # fmt: skip
    """Limits, noise floors and settling times of all modes under all schedules, without momentum.

    Args:
        schedules: Arrivals of each.
        step: h = learning rate x curvature x mean staleness weight, shape (schedules, modes) or what broadcasts to it.
        curvature: Of each mode, likewise.
        noise: Variance of one step's noise in x, learning rate^2 x gradient-noise variance / gradients a step.
        start: Distance at first.
        target: Loss under which each mode is to settle.
        limit: What `step_limits` said of the schedules, if it is known.

    Raises:
        InputError: Shapes do not fit, or a value is negative or not finite.

    Limits:
        For a search, not for the answer. The limit takes every staleness as drawn independently (exact for memoryless
        workers): up to 16 % low at 2 workers, 7 % from 16 on. Jitter counts in the noise with the heuristic weight
        c^2/(1 + c^2), c the coefficient of variation of the delay, and not in how the start is forgotten. Times of one
        mode against `prediction.quadratic.settling`, 8 laws and 1 to 64 workers: within 2 % up to a tenth of the limit
        (c >= 1: 5 %, Weibull(0.7) 35 % short), within 3 % at 0.3 of it for c <= 0.5 (one worker 10 % short); for c >= 1
        up to 70 % short there.
    """
    fields = {"step": step, "curvature": curvature, "noise": noise, "start": start, "target": target}
    try:
        shaped = np.broadcast_arrays(
            np.empty((len(schedules), 1)), *(np.asarray(one, float) for one in fields.values())
        )
    except ValueError:
        shapes = ", ".join(f"{name} {np.shape(one)}" for name, one in fields.items())
        raise InputError(f"settle: shapes do not fit {len(schedules)} schedules: {shapes}") from None
    for name, one in zip(fields, shaped[1:], strict=True):
        checks.non_negative(name, float(np.min(one)) if np.isfinite(one).all() else math.nan)
    found = step_limits(schedules) if limit is None else np.asarray(limit, float)
    floor, time = np.empty(shaped[1].shape), np.empty(shaped[1].shape)
    for i, schedule in enumerate(schedules):
        h, half, held, begun, wanted = (np.array(one[i]) for one in shaped[1:])
        _settle(_ages(schedule), found[i], h, half, held, begun, wanted, floor[i], time[i])
    return Settling(found, floor, time)


def step_limits(schedules: Sequence[Arrivals]) -> Array:
    """Mean-square limits of h of all schedules, (schedules,), as `settle` knows them."""
    found = np.empty(len(schedules))
    for i, schedule in enumerate(schedules):
        if len(schedule.staleness.pmf) == 1:
            found[i] = 2.0
        elif schedule.memoryless:
            found[i] = memoryless_step_limit((round(schedule.staleness.mean) + 1) * schedule.block) * schedule.block
        else:
            found[i] = _index_limit(schedule)
    return found


@functools.lru_cache(maxsize=64)
def _index_limit(schedule: Arrivals) -> float:
    ages = _ages(schedule)
    return _limit(ages.pmf, 1.0 / ages.block) / ages.block


@functools.lru_cache(maxsize=64)
def _ages(schedule: Arrivals) -> _Ages:
    law, rate = schedule.staleness, schedule.rate
    block = max(int(law.mean // AGES), 1)
    if block > 1:
        law = law.in_blocks(block)
    long = 4.0 * POINTS * (schedule.staleness.mean + 1.0) / rate
    times = np.concatenate([[0.0], np.geomspace(1e-2 / rate, long, POINTS)])
    mean, variance = schedule.counts(times)
    weight = schedule.dispersion_weight * schedule.block / (block * schedule.block)
    return _Ages(_cut(law)[::-1].copy(), block, weight, np.maximum.accumulate(mean) / block, times, variance / block**2)


def _cut(law: StalenessLaw) -> Array:
    """The law without its far tail, which is put on the longest age kept."""
    beyond = np.flatnonzero(np.cumsum(law.pmf[::-1])[::-1] > CUT)
    length = min(int(beyond[-1]) + 1, LONGEST)
    pmf = law.pmf[:length].copy()
    pmf[-1] += 1.0 - pmf.sum()
    return pmf


@_compiled
def _respond(reversed_pmf, step, response):  # pragma: no cover
    """Follow a unit kick until it is one exponential or has died out.

    Returns how many updates were followed, sums of X, X^2 and (P * X)^2 over all of time, the rate of |X| at the end
    [1/update] (NaN if it oscillates there), and whether it decayed.
    """
    length = len(reversed_pmf)
    most = len(response) - 1
    response[0] = 1.0
    total, squares, reads = 1.0, 1.0, 0.0
    window = 4 * (length // 2 + 4)
    quarter = window // 4
    early = middle = late = np.nan
    peak = last_peak = 1.0
    k = 0
    while k < most:
        first = max(k - length + 1, 0)
        read = 0.0
        offset = length - (k - first + 1)
        for i in range(first, k + 1):
            read += reversed_pmf[offset + i - first] * response[i]
        value = response[k] - step * read
        if (k + 1) % quarter == 0:  # rate of the last step, exact also where a step is below rounding
            taken = step * read / response[k] if response[k] != 0.0 else np.nan
            early, middle, late = middle, late, -np.log1p(-taken) if 0.0 < taken < 1.0 else np.nan
        k += 1
        response[k] = value
        total += value
        squares += value * value
        reads += read * read
        if k % window == 0:
            last_peak, peak = peak, 0.0
            for i in range(k - window + 1, k + 1):
                peak = max(peak, abs(response[i]))
            if peak < 1e-7 or peak > 1e3 or (k >= 6 * window and peak > last_peak):
                return k, total, squares, reads, np.nan, peak < 1.0
            if value > 0.0 and abs(late - early) < SETTLED * late and abs(late - middle) < SETTLED * late:
                left = np.exp(-late)
                more = value * value * left * left / -np.expm1(-2.0 * late)
                return k, total + value * left / -np.expm1(-late), squares + more, reads + more, late, True
    return k, total, squares, reads, np.nan, peak < last_peak


@_compiled
def _limit(reversed_pmf, weight):  # pragma: no cover
    """Largest step with a decaying response and weight x step^2 x (sum X^2 - sum (P X)^2) below 1, by bisection."""
    length = len(reversed_pmf)
    response = np.empty(ROUNDS * (length + 4) + 1)
    low, high = 0.0, 2.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high) if low > 0.0 else 0.25 * high
        _, _, squares, reads, _, fades = _respond(reversed_pmf, middle, response)
        if fades and weight * middle * middle * (squares - reads) < 1.0:
            low = middle
        else:
            high = middle
        if high - low < 1e-4 * high:
            break
    return low


@_compiled
def _settle(ages, limit, step, curvature, noise, start, target, floor, time):  # pragma: no cover
    """Floor and settling time of every mode under one schedule."""
    length = len(ages.pmf)
    response = np.empty(ROUNDS * (length + 4) + 1)
    for i in range(len(step)):
        h, half = step[i] * ages.block, 0.5 * curvature[i]
        if step[i] >= limit or h == 0.0:
            moves = step[i] >= limit or half * start[i] ** 2 > target[i]
            floor[i], time[i] = np.inf if step[i] >= limit else half * start[i] ** 2, np.inf if moves else 0.0
            continue
        last, _, squares, reads, rate, _ = _respond(ages.pmf, h, response)
        louder = 1.0 / max(1.0 - ages.weight * h * h * (squares - reads), 1e-9)
        scale = noise[i] * ages.block * louder
        floor[i] = half * scale * squares
        if floor[i] >= target[i]:
            time[i] = np.inf
            continue
        mean, held, crossed, above, slope = 1.0, 0.0, -1.0, half * start[i] ** 2, 0.0
        before = above
        for k in range(1, last + 1):
            mean -= h * response[k - 1]
            held += response[k - 1] ** 2
            loss = half * (start[i] ** 2 * mean * mean + scale * held)
            if before > target[i] >= loss:
                share = (before - target[i]) / (before - loss)
                crossed = k - 1.0 + share
                slope = (
                    np.log(max(before - floor[i], 1e-300) / max(loss - floor[i], 1e-300)) if loss > floor[i] else 0.0
                )
            before = loss
        if before > target[i]:
            crossed = -1.0
            if not np.isnan(rate):  # the rest is an exponential: level and excess of the loss
                excess, slope = before - floor[i], 2.0 * rate
                if excess > 0.0:
                    crossed = last + np.log(excess / (target[i] - floor[i])) / slope
        elif above <= target[i] and crossed < 0.0:
            crossed = 0.0
        if crossed < 0.0:
            time[i] = np.inf
            continue
        spread = np.interp(crossed, ages.blocks, ages.scatter) * max(crossed / ages.blocks[-1], 1.0)
        count = crossed + 0.5 * max(slope, 0.0) * spread
        pace = (ages.times[-1] - ages.times[-40]) / (ages.blocks[-1] - ages.blocks[-40])
        time[i] = np.interp(count, ages.blocks, ages.times) + max(count - ages.blocks[-1], 0.0) * pace
