"""Compiled steps of 64 paths at a time.

Past values stand in a ring of rows of 64: one row more than the longest lag, for a path needs its present value and
the one a whole delay ago at the same moment.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.dynamics.sdde.normals import HALF, LANES, draw_bits, draw_normals, exp_minus, normal_pair
from stalewise.jit import lanewise, lanewise_part

Array = NDArray[np.floating]
NO_LEVEL, FALL, RISE, BAND = range(4)
MANY_JUMPS = 0.1  # steps between jumps, below which their sum is drawn


class Plan(NamedTuple):
    """What a step does: the numbers of one equation, one grid and one scheme.

    Attributes:
        steps: How many.
        saved: Steps at which values are kept, ascending from 0, shape (m,).
        offsets: Lags in steps, ascending, shape (n,).
        weights: What a lagged value takes off, gain x step x weight, shape (n,).
        scale: What the new value is multiplied by (below 1 where a scheme is implicit).
        root_step: Square root of the step [s^0.5].
        diffusion: Additive noise [1/s^0.5].
        present: Noise per present value [1/s^0.5].
        delayed: Noise per delayed value [1/s^0.5].
        per_drift: Delayed value per unit taken off.
        terms: Terms of the double integrals; below 0: none of them (Euler).
        watch: `NO_LEVEL`, or which way a level is crossed: `FALL`, `RISE`, or out of the `BAND` between -level and it.
        level: Of the watch.
        jump_gap: Mean number of steps between jumps; 0: there are none.
        jump_mean, jump_spread: Mean and standard deviation of a jump.
    """

    steps: int
    saved: NDArray[np.int64]
    offsets: NDArray[np.int64]
    weights: Array
    scale: float
    root_step: float
    diffusion: float
    present: float
    delayed: float
    per_drift: float
    terms: int
    watch: int
    level: float
    jump_gap: float
    jump_mean: float
    jump_spread: float


class Room(NamedTuple):
    """Memory of one thread.

    Attributes:
        state, raw: Of the random bits, shapes (4, 64) and (64,).
        noise: Normals of a step, shape (sources x terms, 64); sources are additive, present, delayed.
        ring: Past values, shape (longest lag + 1, 64).
        own: Past martingale parts of the value, in Legendre terms, shape (longest lag + 1, terms, 64).
        x, drift, fresh, spread: Value, what is taken off, next value, variance of a step, each of shape (64,).
        values: Kept values, shape (m, 64).
        due: When the next jump comes, in steps, shape (64,).
        stay: Probability to have kept off the level between two saves, shape (m, 64).
    """

    state: NDArray[np.uint64]
    raw: NDArray[np.uint64]
    noise: Array
    ring: Array
    own: Array
    x: Array
    drift: Array
    fresh: Array
    spread: Array
    values: Array
    due: Array
    stay: Array


def room_for(plan: Plan, state: NDArray[np.uint64]) -> Room:
    """Memory for a plan; ``state`` as of `streams`."""
    longest = int(plan.offsets[-1])
    terms = max(plan.terms, 0) + 1
    rows = longest + 1 if plan.terms >= 0 else 1
    watched = len(plan.saved) if plan.watch != NO_LEVEL else 1
    return Room(
        state.copy(),
        np.zeros(LANES, np.uint64),
        np.zeros((3 * terms, LANES)),
        np.zeros((longest + 1, LANES)),
        np.zeros((rows, terms, LANES)),
        np.zeros(LANES),
        np.zeros(LANES),
        np.zeros(LANES),
        np.zeros(LANES),
        np.zeros((len(plan.saved), LANES)),
        np.zeros(LANES),
        np.ones((watched, LANES)),
    )


@lanewise_part
def _behind(slot, lag, size):  # pragma: no cover
    """Row of the ring ``lag`` rows before ``slot``."""
    row = slot - lag
    return row + size if row < 0 else row


@lanewise_part
def take_off(offsets, weights, ring, drift, slot):  # pragma: no cover
    """Put the weighted sum of lagged rows of the ring into ``drift`` [64]; four lags at a time."""
    size, count = len(ring), len(offsets)
    done = count & 3
    for j in range(LANES):
        drift[j] = 0.0
    for k in range(done):
        w, a = weights[k], _behind(slot, offsets[k], size)
        for j in range(LANES):
            drift[j] += w * ring[a, j]
    while done < count:
        a = _behind(slot, offsets[done], size)
        b = _behind(slot, offsets[done + 1], size)
        c = _behind(slot, offsets[done + 2], size)
        d = _behind(slot, offsets[done + 3], size)
        wa, wb, wc, wd = weights[done], weights[done + 1], weights[done + 2], weights[done + 3]
        for j in range(LANES):
            drift[j] += (wa * ring[a, j] + wb * ring[b, j]) + (wc * ring[c, j] + wd * ring[d, j])
        done += 4


@lanewise_part
def _draw_step(plan, room, given, at):  # pragma: no cover
    """The normals of a step: drawn, or taken from ``given`` if that is not empty."""
    terms = max(plan.terms, 0) + 1
    for source in range(3):
        if (source == 0 and plan.diffusion == 0.0) or (source == 1 and plan.present == 0.0):
            continue
        if source == 2 and plan.delayed == 0.0:
            continue
        for k in range(terms):
            row = source * terms + k
            if len(given) > 0:
                for j in range(LANES):
                    room.noise[row, j] = given[at, row, j]
            else:
                draw_normals(room.state, room.raw, room.noise[row])


@lanewise_part
def _add_double_integral(fresh, factor, inner, noise, first, terms):  # pragma: no cover
    r"""Add factor times the double integral of ``inner`` (inside) and a source of noise (outside), times 2/h.

    :math:`\zeta_0\zeta_0' + \sum_k (\zeta_{k-1}\zeta_k' - \zeta_k\zeta_{k-1}')/\sqrt{4k^2-1}`, Legendre terms.
    """
    for j in range(LANES):
        fresh[j] += factor * inner[0, j] * noise[first, j]
    for k in range(1, terms):
        part = factor / np.sqrt(4.0 * k * k - 1.0)
        for j in range(LANES):
            fresh[j] += part * (inner[k - 1, j] * noise[first + k, j] - inner[k, j] * noise[first + k - 1, j])


@lanewise_part
def _multiplicative(plan, room, slot, lagged):  # pragma: no cover
    """The next value where noise depends on the path: Euler's, and the double integrals of the scheme of order 1."""
    terms = max(plan.terms, 0) + 1
    s, b, c, root = plan.diffusion, plan.present, plan.delayed, plan.root_step
    x, drift, fresh, noise = room.x, room.drift, room.fresh, room.noise
    own = room.own[slot if plan.terms >= 0 else 0]
    for k in range(terms):
        for j in range(LANES):
            seen = plan.per_drift * drift[j]
            own[k, j] = s * noise[k, j] + b * x[j] * noise[terms + k, j] + c * seen * noise[2 * terms + k, j]
    for j in range(LANES):
        seen = plan.per_drift * drift[j]
        room.spread[j] = root * root * (s * s + b * b * x[j] * x[j] + c * c * seen * seen)
        fresh[j] = x[j] - drift[j] + root * own[0, j]
    if plan.terms >= 0:
        half = 0.5 * root * root
        if b != 0.0:
            for j in range(LANES):
                fresh[j] -= half * b * b * x[j]
            _add_double_integral(fresh, half * b, own, noise, terms, terms)
        if c != 0.0 and lagged >= 0:
            _add_double_integral(fresh, half * c, room.own[lagged], noise, 2 * terms, terms)


@lanewise_part
def _poisson(expected, rng):  # pragma: no cover
    """A Poisson number of mean 10 or more: transformed rejection (PTRS; Hormann 1993, Insurance: Math. Econ. 12)."""
    b = 0.931 + 2.53 * np.sqrt(expected)
    a = -0.059 + 0.02483 * b
    while True:
        u, v = rng.random() - 0.5, rng.random()
        left = 0.5 - abs(u)
        k = np.floor((2.0 * a / left + b) * u + expected + 0.43)
        if left >= 0.07 and v <= 0.9277 - 3.6224 / (b - 2.0):
            return k
        if k < 0.0 or (left < 0.013 and v > left):
            continue
        tried = np.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / (left * left) + b))
        if tried <= k * np.log(expected) - expected - math.lgamma(k + 1.0):
            return k


@lanewise_part
def _jump(plan, room, now, rng):  # pragma: no cover
    """Add the jumps that are due by the end of the step; say when the next one is.

    Where many fall in a step their number is drawn, and then their sum; beyond 10^12 of them the number as normal.
    """
    if plan.jump_gap < MANY_JUMPS:
        for j in range(LANES):
            expected = 1.0 / plan.jump_gap
            if expected > 1e12:
                count = expected + np.sqrt(expected) * rng.standard_normal()
            else:
                count = _poisson(expected, rng)
            room.fresh[j] += count * plan.jump_mean + np.sqrt(count) * plan.jump_spread * rng.standard_normal()
        return now
    earliest = np.inf
    for j in range(LANES):
        while room.due[j] <= now:
            room.fresh[j] += plan.jump_mean + plan.jump_spread * rng.standard_normal()
            room.due[j] += plan.jump_gap * rng.standard_exponential()
        earliest = min(earliest, room.due[j])
    return earliest


@lanewise_part
def watch_level(plan, room, row):  # pragma: no cover
    """Multiply the probability to have kept off the level by that of a Brownian bridge over this step."""
    level, stay = plan.level, room.stay
    if plan.watch == BAND:
        for j in range(LANES):
            v = max(room.spread[j], 1e-300)
            above = min(level - room.x[j], level - room.fresh[j])
            under = min(level + room.x[j], level + room.fresh[j])
            up = (level - room.x[j]) * (level - room.fresh[j])
            down = (level + room.x[j]) * (level + room.fresh[j])
            off = (1.0 - exp_minus(2.0 * max(up, 0.0) / v)) * (1.0 - exp_minus(2.0 * max(down, 0.0) / v))
            stay[row, j] *= off if min(above, under) > 0.0 else 0.0
    else:
        sign = 1.0 if plan.watch == FALL else -1.0
        for j in range(LANES):
            v = max(room.spread[j], 1e-300)
            here, there = sign * (room.x[j] - level), sign * (room.fresh[j] - level)
            off = 1.0 - exp_minus(2.0 * max(here * there, 0.0) / v)
            stay[row, j] *= off if min(here, there) > 0.0 else 0.0


@lanewise_part
def _run_constant(plan, room, amplitude):  # pragma: no cover
    """A constant delay and additive noise, and nothing else to do: most of its time is the normals'."""
    size, slot = len(room.ring), 0
    ring, raw, state = room.ring, room.raw, room.state
    w = plan.weights[len(plan.weights) - 1]
    nearer = plan.weights[0] if len(plan.weights) == 2 else 0.0  # one step later than the delay
    for interval in range(1, len(plan.saved)):
        for _ in range(plan.saved[interval] - plan.saved[interval - 1]):
            draw_bits(state, raw)
            after = slot + 1 if slot + 1 < size else 0
            # the row of the longest lag is the one to be written next
            if nearer == 0.0:
                for j in range(HALF):
                    k = HALF + j
                    one, other = normal_pair(raw[j], raw[k])
                    ring[after, j] = ring[slot, j] - w * ring[after, j] + amplitude * one
                    ring[after, k] = ring[slot, k] - w * ring[after, k] + amplitude * other
            else:
                later = after + 1 if after + 1 < size else 0
                for j in range(HALF):
                    k = HALF + j
                    one, other = normal_pair(raw[j], raw[k])
                    taken, lost = (
                        w * ring[after, j] + nearer * ring[later, j],
                        w * ring[after, k] + nearer * ring[later, k],
                    )
                    ring[after, j] = ring[slot, j] - taken + amplitude * one
                    ring[after, k] = ring[slot, k] - lost + amplitude * other
            slot = after
        for j in range(LANES):
            room.values[interval, j] = ring[slot, j]


@lanewise
def run_paths(plan, room, past, given, rng):  # pragma: no cover
    """Walk 64 paths; what was asked for is left in ``room.values`` and ``room.stay``.

    Args:
        plan: See `Plan`.
        room: See `Room`.
        past: Values at 0, -h, ..., shape (longest lag + 1,).
        given: Normals to use, shape (steps, sources x terms, 64), or none, shape (0, 0, 0).
        rng: Source of the jumps.
    """
    size = len(room.ring)
    last = len(plan.offsets) - 1
    for lag in range(size):
        row = size - lag if lag > 0 else 0
        for j in range(LANES):
            room.ring[row, j] = past[lag]
    for j in range(LANES):
        room.x[j] = past[0]
        room.values[0, j] = past[0]
        room.spread[j] = (plan.diffusion * plan.root_step) ** 2
    for row in range(len(room.stay)):
        for j in range(LANES):
            room.stay[row, j] = 1.0
    for row in range(len(room.own)):
        for k in range(room.own.shape[1]):
            for j in range(LANES):
                room.own[row, k, j] = 0.0
    additive = plan.present == 0.0 and plan.delayed == 0.0
    constant = last == 0 or (last == 1 and plan.offsets[1] - plan.offsets[0] == 1)
    amplitude = plan.diffusion * plan.root_step
    x, fresh, noise, ring = room.x, room.fresh, room.noise, room.ring
    if (
        constant
        and additive
        and plan.watch == NO_LEVEL
        and plan.jump_gap == 0.0
        and plan.scale == 1.0
        and len(given) == 0
    ):
        _run_constant(plan, room, amplitude)
        return
    earliest = np.inf
    if plan.jump_gap > 0.0:
        for j in range(LANES):
            room.due[j] = plan.jump_gap * rng.standard_exponential()
        earliest = 0.0
    slot = 0
    upcoming = 1
    for n in range(plan.steps):
        _draw_step(plan, room, given, n)
        after = slot + 1 if slot + 1 < size else 0
        take_off(plan.offsets, plan.weights, room.ring, room.drift, slot)
        if additive:
            for j in range(LANES):
                fresh[j] = plan.scale * (x[j] - room.drift[j] + amplitude * noise[0, j])
        else:
            lagged = _behind(slot, plan.offsets[last], size) if last == 0 else -1
            _multiplicative(plan, room, slot, lagged)
        if n + 1.0 >= earliest:
            earliest = _jump(plan, room, n + 1.0, rng)
        if plan.watch != NO_LEVEL:
            watch_level(plan, room, upcoming)
        for j in range(LANES):
            x[j] = fresh[j]
            ring[after, j] = fresh[j]
        slot = after
        if n + 1 == plan.saved[upcoming]:
            for j in range(LANES):
                room.values[upcoming, j] = x[j]
            upcoming = min(upcoming + 1, len(plan.saved) - 1)
