"""Delays drawn one at a time inside compiled code, the same draws for the event kernel and for a plain loop.

A law is a list of `Component`; `encode` lays them out as flat arrays that numba can walk, and `DelayStream`
is the same thing with a Python face. Both call `draw`, so the two see the same random numbers in the same order.
"""

import enum
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stalewise.jit import compiled, inlined


class Kind(enum.IntEnum):
    """What `draw` does for one component."""

    CONSTANT = 0
    SHIFTED_EXPONENTIAL = 1
    GAMMA = 2
    LOGNORMAL = 3
    UNIFORM = 4
    EMPIRICAL = 5
    REPLAY = 6


@dataclass(frozen=True)
class Component:
    """One summand of a law: its kind, two parameters, and sequences of measured delays if it has any."""

    kind: Kind
    first: float = 0.0
    second: float = 0.0
    sequences: tuple[NDArray[np.float64], ...] = ()


class Encoded(NamedTuple):
    """Components as arrays. ``ranges[p]`` are the rows of ``spans`` that hold component p's sequences."""

    kinds: NDArray[np.int64]
    parameters: NDArray[np.float64]
    ranges: NDArray[np.int64]
    spans: NDArray[np.int64]
    table: NDArray[np.float64]


def encode(components: tuple[Component, ...]) -> Encoded:
    """Lay components out as flat arrays."""
    spans: list[tuple[int, int]] = []
    ranges: list[tuple[int, int]] = []
    table: list[NDArray[np.float64]] = []
    length = 0
    for component in components:
        first = len(spans)
        for sequence in component.sequences:
            spans.append((length, len(sequence)))
            table.append(np.asarray(sequence, float))
            length += len(sequence)
        ranges.append((first, len(spans)))
    return Encoded(
        np.array([int(c.kind) for c in components], np.int64),
        np.array([(c.first, c.second) for c in components], float).reshape(-1, 2),
        np.array(ranges, np.int64).reshape(-1, 2),
        np.array(spans, np.int64).reshape(-1, 2),
        np.concatenate(table) if table else np.zeros(1),
    )


@njit(cache=True, nogil=True)
def new_cursors(law, workers, rng):  # pragma: no cover
    """Where each worker's replay begins, shape (components, workers): a random place in its own sequence."""
    cursors = np.zeros((len(law.kinds), workers), np.int64)
    for part in range(len(law.kinds)):
        if law.kinds[part] == 6:
            count = law.ranges[part, 1] - law.ranges[part, 0]
            for worker in range(workers):
                length = law.spans[law.ranges[part, 0] + worker % count, 1]
                cursors[part, worker] = min(int(rng.random() * length), length - 1)
    return cursors


@inlined
def draw(law, cursors, worker, rng):  # pragma: no cover
    """One delay [s] of ``worker``; moves its replay cursors on."""
    total = 0.0
    for part in range(len(law.kinds)):
        kind = law.kinds[part]
        a = law.parameters[part, 0]
        b = law.parameters[part, 1]
        if kind == 0:
            total += a
        elif kind == 1:
            total += a + b * rng.standard_exponential()
        elif kind == 2:
            total += b * rng.standard_gamma(a)
        elif kind == 3:
            total += np.exp(a + b * rng.standard_normal())
        elif kind == 4:
            total += a + (b - a) * rng.random()
        else:
            first = law.ranges[part, 0]
            if kind == 5:
                start, length = law.spans[first, 0], law.spans[first, 1]
                total += law.table[start + min(int(rng.random() * length), length - 1)]
            else:
                row = first + worker % (law.ranges[part, 1] - first)
                start, length = law.spans[row, 0], law.spans[row, 1]
                total += law.table[start + cursors[part, worker]]
                cursors[part, worker] = (cursors[part, worker] + 1) % length
    return total


@compiled
def draw_residual(law, cursors, worker, rng, mean):  # pragma: no cover
    """Time [s] until ``worker`` finishes, its clock having run since long before: 20 to 21 mean cycles."""
    clock = -(20.0 + rng.random()) * mean
    while clock <= 0.0:
        clock += draw(law, cursors, worker, rng)
    return clock


class DelayStream:
    """Delays of a fleet of workers, one at a time: ``stream.next(worker)`` [s]."""

    def __init__(self, law: Encoded, workers: int, rng: np.random.Generator) -> None:
        self._law = law
        self._rng = rng
        self._cursors = new_cursors(law, workers, rng)

    def next(self, worker: int) -> float:
        """Delay of ``worker``'s next gradient [s]."""
        return float(draw(self._law, self._cursors, worker, self._rng))

    def residual(self, worker: int, mean: float) -> float:
        """Time [s] to the end of ``worker``'s first gradient when clocks are in their stationary state."""
        return float(draw_residual(self._law, self._cursors, worker, self._rng, mean))
