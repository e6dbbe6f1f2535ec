r"""Second moments along a recorded path: what no formula knows, how staleness hangs together from step to step.

Given which gradients each step took, the recursion

.. math:: x_{k+1} = x_k - \frac{h}{n_k} \sum_c w_c\,x_{k-\tau_c} - \text{noise}

is linear, so that one run of a schedule, without gradients, serves every learning rate and curvature. The growth of
:math:`E x_k^2` from a standing start, averaged over many stretches of the path, is zero at the mean-square limit.

The index equation with a share w of the staleness' jitter as independent noise (`variance_factor`) has a pole where
:math:`w h^2 (g_0 - g_1) = 1`. Putting that pole at the limit found, and at a quarter, a half and three quarters of it
the variance that the path has, gives w(h), and from it follow variances and transients of any mode. That variance is a
mean over time: how long a value stands is not independent of it.
"""

import functools
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.dynamics.inertia import NO_INERTIA, Inertia, StepFilter
from stalewise.dynamics.recursion import mean_square_step_limit, mean_step_limit, noise_gain
from stalewise.errors import NotConvergedError
from stalewise.jit import called, compiled, lanewise
from stalewise.staleness import Arrivals, StalenessLaw

Array = NDArray[np.float64]
FROM, TO = 3.0, 15.0  # cycles of sqrt(E (staleness + 1)^2) updates over which growth is measured
TINY, HUGE = 1e-300, 1e100
GROUPS = 8  # of stretches, for the standard error
REACH = np.linspace(0.25, 1.75, 31)  # of the index equation's limit: where the limit is looked for, and beyond
FARTHEST = 6  # times
NARROW = np.linspace(0.88, 1.12, 31)
NEAR = 0.995
KNOTS = (0.25, 0.5, 0.75, 1.0)
POINTS = 241  # times at which a decay is looked at
STRETCHES, LONG = 400, 40.0  # stretches over which a transient is averaged, and cycles one has at least


@dataclass(frozen=True)
class Dispersion:
    """How staleness jitter acts under one schedule.

    Attributes:
        limit: Largest h that is mean-square stable, less one standard error.
        error: Relative standard error.
        shares: Share w of the jitter that acts as independent noise at `KNOTS` of the limit.
        noise: Mean noise of a step over that of a step of `Arrivals.averaged` gradients.
    """

    limit: float
    error: float
    shares: tuple[float, ...]
    noise: float

    def weight(self, step: float) -> float:
        """Share w at a given h; below a quarter of the limit, where little depends on it, as there."""
        return float(np.interp(step / self.limit, KNOTS, self.shares))


@functools.lru_cache(maxsize=512)
def dispersion(arrivals: Arrivals, inertia: Inertia = NO_INERTIA) -> Dispersion | None:
    """Measure it along the arrivals' path; None if they have none, or its limit lies out of reach.

    Steps are those of ``arrivals``, in blocks if it counts in blocks. Standard error of the limit: 0.1 to 0.5 % for
    delays of coefficient of variation up to 0.5, 1 to 3 % for memoryless ones, whose moments grow by rare events.
    Weight decay is not measured: it changes the limit as it does that of the index equation.
    """
    inertia.check_resolved(arrivals.block)
    if arrivals.path is None:
        return None
    if inertia.decay > 0.0:
        return _decayed(arrivals, inertia)
    block, law, how = arrivals.block, arrivals.staleness, inertia.filter(arrivals.block)
    along, lasted = _along_path(arrivals)
    along = along._replace(how=_numbers(inertia.filter()))
    mean_limit = mean_step_limit(law, how)
    guess = mean_square_step_limit(law, mean_limit, how, weight=1.0 / block, precision=0.03) / block
    cycle = math.sqrt(float(law.pmf @ (block * np.arange(len(law.pmf)) + 1.0 + inertia.filter().lag) ** 2))
    if len(along.ends) < 2 * GROUPS * int((TO + 1.0) * cycle):
        return None
    found = _limit(guess, along, cycle)
    if found is None:
        return None
    step, error = found
    limit = step * block
    normals, shares, noise = _normals(len(along.ends)), [], 1.0
    for knot in KNOTS[:-1]:
        seen, noise = _variance(along, knot * step, normals, lasted, np.zeros(along.ring))
        shares.append(_weight_for(knot * limit, law, how, seen / noise / block))
    shares.append(shares[-1])  # at the mean's limit by the index equation there is no pole to put: its own is kept
    if limit < NEAR * mean_limit:
        with suppress(NotConvergedError):  # hardly anything is stale, and the limits are the same but for chance
            shares[-1] = _weight_for(limit, law, how, math.inf)
    usual = arrivals.weight_square / arrivals.weight_mean**2 / arrivals.averaged
    return Dispersion(limit, error, tuple(shares), noise / usual)


@functools.lru_cache(maxsize=2)
def _normals(count: int) -> Array:
    return np.random.default_rng(0).standard_normal(count)


def _decayed(arrivals: Arrivals, inertia: Inertia) -> Dispersion | None:
    """`dispersion` with weight decay, from the one without."""
    without = replace(inertia, decay=0.0)
    found, law, share = dispersion(arrivals, without), arrivals.staleness, 1.0 / arrivals.block
    if found is None:
        return None
    index, index_without = (
        mean_square_step_limit(law, None, each.filter(arrivals.block), weight=share, precision=1e-4)
        for each in (inertia, without)
    )
    limit = found.limit * index / index_without
    return replace(found, limit=limit)


def decay_along(step: float, arrivals: Arrivals, updates: int, inertia: Inertia = NO_INERTIA) -> Array:
    """Mean of x_k^2 along the arrivals' path from x = 1, without noise, shape (updates + 1,).

    Averaged over 400 stretches of the path or more, unless these were shorter than 40 cycles; what does not fit goes on
    at the rate of the last third.
    """
    along, _ = _along_path(arrivals)
    along = along._replace(how=_numbers(inertia.filter()))
    cycles = round(LONG * ((arrivals.staleness.mean + 1.0) * arrivals.block + inertia.filter().lag))
    length = min(updates * arrivals.block, max(len(along.ends) // STRETCHES, cycles))
    moments = _second_moments(along, np.array([step / arrivals.block]), length, 1)[0, :: arrivals.block, 0]
    moments /= moments[0]
    if len(moments) > updates:
        return moments[: updates + 1]
    third = np.log(np.maximum(moments[-max(len(moments) // 3, 2) :], TINY))
    slope = min(float(np.polyfit(np.arange(len(third)), third, 1)[0]), 0.0)
    further = np.arange(1.0, updates + 2.0 - len(moments))
    return np.concatenate([moments, math.exp(third.mean() + 0.5 * slope * len(third)) * np.exp(slope * further)])


def decay_in_time(step: float, arrivals: Arrivals, inertia: Inertia = NO_INERTIA) -> tuple[float, float]:
    """Rate at which the root mean square of a mode falls along the arrivals' path [1/s], and its standard error.

    From the mean of x^2 over stretches of the path at given times: half of the slope of its logarithm from 3 to 15
    cycles, by least squares, the error from 8 groups of stretches.
    """
    along, lasted = _along_path(arrivals)
    along = along._replace(how=_numbers(inertia.filter()))
    cycle = ((arrivals.staleness.mean + 1.0) * arrivals.block + inertia.filter().lag) / (arrivals.rate * arrivals.block)
    time = np.linspace(0.0, TO * cycle, POINTS)
    moments = _moments_in_time(along, step / arrivals.block, lasted, time, GROUPS)
    late = time >= FROM * cycle

    def slope(row: Array) -> float:
        return -0.5 * float(np.polyfit(time[late], np.log(np.maximum(row[late], TINY)), 1)[0])

    return slope(moments.sum(axis=0)), float(np.std([slope(row) for row in moments], ddof=1)) / math.sqrt(GROUPS)


class _Along(NamedTuple):
    """A path as compiled code takes it: weights by staleness are over their mean, the ring is a power of two.

    ``how``: what x takes off of a gradient, and of the velocity; what a step keeps of the velocity; weight decay over
    curvature.
    """

    staleness: NDArray[np.int32]
    ends: NDArray[np.int64]
    weights: Array
    ring: int
    how: tuple[float, float, float, float]


@functools.lru_cache(maxsize=4)
def _along_path(arrivals: Arrivals) -> tuple[_Along, Array]:
    """The path of these arrivals, and how long the state after each step stood [s]; the last four are kept."""
    assert arrivals.path is not None
    path = arrivals.path()
    weights = arrivals.weight.of(np.arange(path.staleness.max() + 1)) / arrivals.weight_mean
    ring = 1 << math.ceil(math.log2(len(weights) + 1))
    lasted = np.diff(path.times, append=path.times[-1])
    return _Along(path.staleness, path.ends, weights, ring, _numbers(NO_INERTIA.filter())), lasted


def _numbers(how: StepFilter) -> tuple[float, float, float, float]:
    return how.now, how.carried, how.pole, how.decay


def _weight_for(step: float, law: StalenessLaw, how: StepFilter, variance: float) -> float:
    """Weight w that gives this stationary variance for unit noise, 0 at least; 0 where all are equally stale."""
    gain = noise_gain(step, law, how, tolerance=1e-4)
    jitter = gain.additive - gain.read
    return max((1.0 - gain.additive / variance) / (step**2 * jitter), 0.0) if jitter > 0.0 else 0.0


def _limit(guess: float, along: _Along, cycle: float) -> tuple[float, float] | None:
    """Limit of the step, less one standard error, and that error; looked for around a guess, ever farther away."""
    found, steps = 0.0, guess * REACH
    for _ in range(FARTHEST):
        found, _ = _crossing(steps, along, cycle)
        if 0.0 < found < math.inf:
            break
        steps = steps * (REACH[-1] / REACH[0] if found else REACH[0] / REACH[-1])
    found, error = _crossing(found * NARROW, along, cycle) if 0.0 < found < math.inf else (0.0, 0.0)
    return (found * (1.0 - error), error) if 0.0 < found < math.inf else None


def _crossing(steps: Array, along: _Along, cycle: float) -> tuple[float, float]:
    """Step at which the second moment neither grows nor decays, and its relative standard error.

    0 if it grows at all of the steps, infinite if at none. Growth is the slope of the logarithm of the moment, averaged
    over a cycle, by least squares.
    """
    moments = _second_moments(along, steps, int((TO + 1.0) * cycle), GROUPS)
    window = max(round(cycle), 1)
    summed = np.cumsum(np.concatenate([moments.mean(axis=0, keepdims=True), moments]), axis=1)
    smooth = np.log(np.maximum(summed[:, window:] - summed[:, :-window], TINY))[:, int(FROM * cycle) :]
    at = np.arange(smooth.shape[1]) - (smooth.shape[1] - 1) / 2.0
    found, *parts = (_zero(steps, row) for row in np.einsum("t,gts->gs", at, smooth))
    if not 0.0 < found < math.inf:
        return found, math.inf
    spread = np.clip(parts, steps[0], steps[-1]).std(ddof=1)  # beyond the first and last, for want of better
    return found, float(spread) / math.sqrt(GROUPS) / found


def _zero(steps: Array, growth: Array) -> float:
    above = np.flatnonzero(growth > 0)
    if len(above) == 0:
        return math.inf
    i = above[0]
    if i == 0:
        return 0.0
    return float(np.interp(0.0, growth[i - 1 : i + 1], steps[i - 1 : i + 1]))


def _second_moments(along: _Along, steps: Array, length: int, groups: int) -> Array:
    """Sum of x_k^2 over stretches of the path, each begun at x = 1, shape (groups, length + 1, steps)."""
    out, x = np.zeros((groups, length + 1, len(steps))), np.empty((along.ring, len(steps)))
    _add_second_moments(along, steps, length, x, np.empty((2, len(steps))), out)
    return out


@lanewise
def _add_second_moments(along, steps, length, x, room, out):  # pragma: no cover
    """`_second_moments` in the room given: a ring of values, pulls and velocities, and the sums."""
    modes, groups, ring = len(steps), len(out), len(x)
    staleness, ends, weights = along.staleness, along.ends, along.weights
    taken, carried, kept, decay = along.how
    pull, velocity = room[0], room[1]
    stretches = len(ends) // length
    for stretch in range(stretches):
        group = out[stretch * groups // stretches]
        for i in range(modes):  # nothing before the first is ever read
            x[0, i] = 1.0
            velocity[i] = 0.0
            group[0, i] += 1.0
        for k in range(length):
            at = stretch * length + k
            begin = ends[at - 1] if at > 0 else 0
            for i in range(modes):
                pull[i] = 0.0
            for c in range(begin, ends[at]):
                age = min(staleness[c], k)
                read, weight = x[(k - age) & (ring - 1)], weights[age] / (ends[at] - begin)
                for i in range(modes):
                    pull[i] += weight * read[i]
            now, new, row = x[k & (ring - 1)], x[(k + 1) & (ring - 1)], group[k + 1]
            for i in range(modes):
                push = steps[i] * (pull[i] + decay * now[i])
                value = min(max(now[i] - taken * push - carried * velocity[i], -HUGE), HUGE)
                velocity[i] = min(max(kept * velocity[i] + push, -HUGE), HUGE)
                new[i] = value
                row[i] += value * value


@called
def _pulled(staleness, ends, weights, x, at, k):  # pragma: no cover
    """What the gradients of step ``at`` of the path pull at, k steps into a stretch; and the sum of squared weights."""
    begin = ends[at - 1] if at > 0 else 0
    pull = squares = 0.0
    for c in range(begin, ends[at]):
        age = min(staleness[c], k)
        pull += weights[age] * x[(k - age) & (len(x) - 1)]
        squares += weights[age] * weights[age]
    return pull / (ends[at] - begin), squares / (ends[at] - begin) ** 2


def _moments_in_time(along: _Along, step: float, lasted: Array, time: Array, groups: int) -> Array:
    """Sum of x^2 at given times over stretches of the path, each begun at x = 1, shape (groups, times)."""
    out = np.zeros((groups, len(time)))
    _add_moments_in_time(along, step, lasted, lasted.sum(), time, np.empty(along.ring), out)
    return out


@compiled
def _add_moments_in_time(along, step, lasted, total, time, x, out):  # pragma: no cover
    """`_moments_in_time` in the room given: a ring of values, and the sums."""
    staleness, ends, weights = along.staleness, along.ends, along.weights
    taken, carried, kept, decay = along.how
    groups, ring = len(out), len(x)
    at, gone = np.int64(0), 0.0
    while at < len(ends) and gone + time[-1] < total:
        x[0] = 1.0
        velocity = now = 0.0
        group = out[min(int(gone / total * groups), groups - 1)]
        point = k = np.int64(0)
        while point < len(time) and at < len(ends):
            pull, _ = _pulled(staleness, ends, weights, x, at, k)
            old = x[k & (ring - 1)]
            push = step * (pull + decay * old)
            value = min(max(old - taken * push - carried * velocity, -HUGE), HUGE)
            velocity = min(max(kept * velocity + push, -HUGE), HUGE)
            k += 1
            x[k & (ring - 1)] = value
            later = now + lasted[at]
            while point < len(time) and time[point] < later:
                group[point] += value * value
                point += 1
            now = later
            at += 1
        gone += now
    return out


@compiled
def _variance(along, step, normals, lasted, x):  # pragma: no cover
    """Mean of x^2 over time in the long run, and mean noise of a step, for unit noise a gradient; ``x`` a ring of 0."""
    staleness, ends, weights, ring = along.staleness, along.ends, along.weights, len(x)
    taken, carried, kept, decay = along.how
    total = added = time = velocity = 0.0
    warm = len(ends) // 20
    for k in range(len(ends)):
        pull, noise = _pulled(staleness, ends, weights, x, k, k)
        now = x[k & (ring - 1)]
        push = step * (pull + decay * now) + np.sqrt(noise) * normals[k]
        value = now - taken * push - carried * velocity
        velocity = kept * velocity + push
        x[(k + 1) & (ring - 1)] = value
        if k >= warm:
            total += lasted[k] * value * value
            time += lasted[k]
            added += noise
    return total / time, added / (len(ends) - warm)
