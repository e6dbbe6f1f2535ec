r"""Compiled steps of 64 copies of many modes at a time, of which only the loss is kept.

Modes share the kernel of the delay. Where their noise does not depend on the loss they are walked one after the other
over a few steps, so that one mode's past stays in cache; memory is modes x longest lag x 64 numbers a thread.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.dynamics.sdde.kernel import NO_LEVEL, take_off, watch_level
from stalewise.dynamics.sdde.normals import LANES, draw_normals
from stalewise.jit import lanewise

Array = NDArray[np.floating]


class ModePlan(NamedTuple):
    """What a step does; modes are d, lags n, saved times m.

    Attributes:
        steps: How many.
        chunk: So many of them a mode takes before the next mode does.
        saved: Steps at which the loss is kept, ascending from 0, shape (m,).
        offsets, weights: Lags in steps, and step x weight of the drift, shape (n,).
        gains: Shape (d,) [1/s].
        scale: What new values are multiplied by (an implicit step), shape (d,).
        noise: Standard deviation of the noise of a step, shape (d,).
        growth: Its squared increase per unit of delayed loss, shape (d,).
        halves: Half of the curvature, shape (d,).
        starts: Constant history, shape (d,).
        loss_offsets, loss_weights: Lags, and weights, of the delayed loss; none if nothing grows with it.
        watch: `NO_LEVEL`, `FALL` (first time at the level) or `RISE` (kept below it).
        level: Of the watch, as the square root of twice a loss.
    """

    steps: int
    chunk: int
    saved: NDArray[np.int64]
    offsets: NDArray[np.int64]
    weights: Array
    gains: Array
    scale: Array
    noise: Array
    growth: Array
    halves: Array
    starts: Array
    loss_offsets: NDArray[np.int64]
    loss_weights: Array
    watch: int
    level: float


class ModeRoom(NamedTuple):
    """Memory of one thread.

    Attributes:
        state, raw, normals: Of the random numbers, shapes (4, 64), (64,) and (64,).
        ring: Past values, shape (d, longest lag + 1, 64).
        losses: Past losses, shape (longest lag + chunk + 1, 64).
        drift, delayed, x, fresh, spread: Of one step, each of shape (64,); the last three of sqrt(2 loss).
        slopes: Variance of a step of the loss at the slope where it begins, and where it ends, shape (2, chunk, 64).
        values, stay: Kept losses, and probability to have kept off the level since the last save, shape (m, 64).
    """

    state: NDArray[np.uint64]
    raw: NDArray[np.uint64]
    normals: Array
    ring: Array
    losses: Array
    drift: Array
    delayed: Array
    x: Array
    fresh: Array
    spread: Array
    slopes: Array
    values: Array
    stay: Array


def mode_room(plan: ModePlan, state: NDArray[np.uint64]) -> ModeRoom:
    """Memory for a plan; ``state`` as of `streams`."""
    longest = int(max(plan.offsets[-1], plan.loss_offsets[-1] if len(plan.loss_offsets) else 0))
    rows, row = len(plan.saved), np.zeros(LANES)
    return ModeRoom(
        state.copy(),
        np.zeros(LANES, np.uint64),
        row.copy(),
        np.zeros((len(plan.gains), longest + 1, LANES)),
        np.zeros((longest + plan.chunk + 1, LANES)),
        row.copy(),
        row.copy(),
        row.copy(),
        row.copy(),
        row.copy(),
        np.zeros((2, plan.chunk, LANES)),
        np.zeros((rows, LANES)),
        np.ones((rows, LANES)),
    )


@lanewise
def run_modes(plan, room):  # pragma: no cover
    """Walk 64 copies of all modes; their losses are left in ``room.values`` and ``room.stay``."""
    size, sizes, modes = room.ring.shape[1], len(room.losses), len(plan.gains)
    losses, slopes, drift, delayed, normals = room.losses, room.slopes, room.drift, room.delayed, room.normals
    total = 0.0
    for i in range(modes):
        total += plan.halves[i] * plan.starts[i] ** 2
        for row in range(size):
            for j in range(LANES):
                room.ring[i, row, j] = plan.starts[i]
    for row in range(sizes):
        for j in range(LANES):
            losses[row, j] = total
    for row in range(len(room.stay)):
        for j in range(LANES):
            room.stay[row, j] = 1.0
    for j in range(LANES):
        room.values[0, j] = total
    upcoming = 1
    for begin in range(0, plan.steps, plan.chunk):
        count = min(plan.chunk, plan.steps - begin)
        for n in range(begin, begin + count):
            for j in range(LANES):
                losses[(n + 1) % sizes, j] = 0.0
                slopes[0, n - begin, j] = 0.0
                slopes[1, n - begin, j] = 0.0
        for i in range(modes):
            ring, half, growth, noise = room.ring[i], plan.halves[i], plan.growth[i], plan.noise[i]
            gain, scale = plan.gains[i], plan.scale[i]
            for n in range(begin, begin + count):
                slot, after = n % size, (n + 1) % size
                draw_normals(room.state, room.raw, normals)
                take_off(plan.offsets, plan.weights, ring, drift, slot)
                now = (n + 1) % sizes
                if growth > 0.0:
                    take_off(plan.loss_offsets, plan.loss_weights, losses, delayed, n % sizes)
                    for j in range(LANES):
                        normals[j] *= np.sqrt(noise * noise + growth * delayed[j])
                        delayed[j] = noise * noise + growth * delayed[j]
                else:
                    for j in range(LANES):
                        normals[j] *= noise
                        delayed[j] = noise * noise
                for j in range(LANES):
                    x = ring[slot, j]
                    fresh = scale * (x - gain * drift[j] + normals[j])
                    ring[after, j] = fresh
                    losses[now, j] += half * fresh * fresh
                    steep = 4.0 * half * half * delayed[j]
                    slopes[0, n - begin, j] += steep * x * x
                    slopes[1, n - begin, j] += steep * fresh * fresh
        for n in range(begin, begin + count):
            now, before = (n + 1) % sizes, n % sizes
            if plan.watch != NO_LEVEL:
                for j in range(LANES):
                    twice, then = max(2.0 * losses[before, j], 1e-300), max(2.0 * losses[now, j], 1e-300)
                    room.x[j], room.fresh[j] = np.sqrt(twice), np.sqrt(then)
                    room.spread[j] = 0.5 * (slopes[0, n - begin, j] / twice + slopes[1, n - begin, j] / then)
                watch_level(plan, room, upcoming)
            if n + 1 == plan.saved[upcoming]:
                for j in range(LANES):
                    room.values[upcoming, j] = losses[now, j]
                upcoming = min(upcoming + 1, len(plan.saved) - 1)
