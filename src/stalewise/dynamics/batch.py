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
CUT, LONGEST = 1e-5, 300  # tail of the staleness, and age in blocks, that are put on the longest age kept
SETTLED, ROUNDS = 1e-3, 48  # of a rate between quarters, to be an exponential; memories that are followed at most
BISECTIONS, NEAR, POINTS = 30, 3e-4, 512
KEPT = 64  # modes whose responses are kept
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


def settle_together(
    schedule: Arrivals, step: Array, curvature: Array, noise: Array, start: Array, target: float, *, limit: float
) -> tuple[Array, Array]:
    """Settling times [s] and noise floors of the loss of all modes, for each row of steps, as rough as `settle`.

    Each mode is given its own noise floor and an equal share of what is left of the target, the share of those that
    begin above theirs.

    Args:
        schedule: Arrivals.
        step: h, shape (rows, modes).
        curvature: Of each mode, shape (modes,).
        noise: Variance of one step's noise, shape (rows, modes).
        start: Distance at first, shape (modes,).
        target: Loss.
        limit: What `step_limits` said of the schedule.
    """
    begun = 0.5 * curvature * start**2
    parts = max(int((begun > target / len(begun)).sum()), 1)
    floor, time = np.empty(len(step)), np.empty(len(step))
    _settle_together(_ages(schedule), limit, step, curvature, noise, start, target, parts, floor, time)
    return time, floor


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
    """Largest step with a decaying response and weight x step^2 x (sum X^2 - sum (P X)^2) below 1.

    By secants of the logarithms where both ends have that sum, else by bisection.
    """
    length = len(reversed_pmf)
    response = np.empty(ROUNDS * (length + 4) + 1)
    low, high, below, above = 0.0, 2.0, 0.0, np.inf
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high) if low > 0.0 else 0.25 * high
        if below > 0.0 and above < np.inf:
            share = np.log(below) / np.log(below / above)
            middle = low * (high / low) ** min(max(share, 0.02), 0.98)
        _, _, squares, reads, _, fades = _respond(reversed_pmf, middle, response)
        jitter = weight * middle * middle * (squares - reads) if fades else np.inf
        if abs(jitter - 1.0) < NEAR:
            return middle
        if jitter < 1.0:
            low, below = middle, jitter
        else:
            high, above = middle, jitter
        if high - low < NEAR * high:
            break
    return low


@_compiled
def _kicked(ages, limit, step, curvature, noise, start, response):  # pragma: no cover
    """Floor of one mode; of its response how many updates were followed, noise a step, and rate; 0 past the limit."""
    h, half = step * ages.block, 0.5 * curvature
    if step >= limit or h == 0.0:
        return np.inf if step >= limit else half * start**2, 0, 0.0, np.nan
    last, _, squares, reads, rate, _ = _respond(ages.pmf, h, response)
    louder = 1.0 / max(1.0 - ages.weight * h * h * (squares - reads), 1e-9)
    scale = noise * ages.block * louder
    return half * scale * squares, last, scale, rate


@_compiled
def _time_below(ages, floor, last, scale, rate, step, curvature, start, target, response):  # pragma: no cover
    """Settling time of one mode with this response below its target."""
    h, half = step * ages.block, 0.5 * curvature
    if last == 0:
        return np.inf if half * start**2 > target or np.isinf(floor) else 0.0
    if floor >= target:
        return np.inf
    mean, held, crossed, above, slope = 1.0, 0.0, -1.0, half * start**2, 0.0
    before = above
    for k in range(1, last + 1):
        mean -= h * response[k - 1]
        held += response[k - 1] ** 2
        loss = half * (start**2 * mean * mean + scale * held)
        if before > target >= loss:
            share = (before - target) / (before - loss)
            crossed = k - 1.0 + share
            slope = np.log(max(before - floor, 1e-300) / max(loss - floor, 1e-300)) if loss > floor else 0.0
        before = loss
    if before > target:
        crossed = -1.0
        if not np.isnan(rate):  # the rest is an exponential: level and excess of the loss
            excess, slope = before - floor, 2.0 * rate
            if excess > 0.0:
                crossed = last + np.log(excess / (target - floor)) / slope
    elif above <= target and crossed < 0.0:
        crossed = 0.0
    if crossed < 0.0:
        return np.inf
    spread = np.interp(crossed, ages.blocks, ages.scatter) * max(crossed / ages.blocks[-1], 1.0)
    count = crossed + 0.5 * max(slope, 0.0) * spread
    pace = (ages.times[-1] - ages.times[-40]) / (ages.blocks[-1] - ages.blocks[-40])
    return np.interp(count, ages.blocks, ages.times) + max(count - ages.blocks[-1], 0.0) * pace


@_compiled
def _settle(ages, limit, step, curvature, noise, start, target, floor, time):  # pragma: no cover
    """Floor and settling time of every mode under one schedule."""
    response = np.empty(ROUNDS * (len(ages.pmf) + 4) + 1)
    for i in range(len(step)):
        floor[i], last, scale, rate = _kicked(ages, limit, step[i], curvature[i], noise[i], start[i], response)
        time[i] = _time_below(
            ages, floor[i], last, scale, rate, step[i], curvature[i], start[i], target[i], response
        )  # fmt: skip


@_compiled
def _settle_together(ages, limit, step, curvature, noise, start, target, parts, floor, time):  # pragma: no cover
    """Floor and settling time of the loss of all modes together, for each row of steps."""
    rows, modes = step.shape
    kept = min(modes, KEPT)  # of the others the response is followed again
    responses = np.empty((kept + 1, ROUNDS * (len(ages.pmf) + 4) + 1))
    floors, lasts, scales, rates = np.empty(modes), np.empty(modes, np.int64), np.empty(modes), np.empty(modes)
    for j in range(rows):
        for i in range(modes):
            floors[i], lasts[i], scales[i], rates[i] = _kicked(
                ages, limit, step[j, i], curvature[i], noise[j, i], start[i], responses[min(i, kept)]
            )  # fmt: skip
        floor[j] = floors.sum()
        left = target - floor[j]
        time[j] = 0.0 if left > 0.0 else np.inf
        for i in range(modes if left > 0.0 else 0):
            if i >= kept:
                _kicked(ages, limit, step[j, i], curvature[i], noise[j, i], start[i], responses[kept])
            own = _time_below(
                ages, floors[i], lasts[i], scales[i], rates[i], step[j, i], curvature[i], start[i],
                floors[i] + left / parts, responses[min(i, kept)],
            )  # fmt: skip
            time[j] = max(time[j], own)
