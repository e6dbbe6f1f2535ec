"""Delays drawn one at a time inside compiled code, the same draws for the event kernel and for a plain loop.

A law is a list of `Component`, to be added up; one may hold lists of its own, of which it chooses one. `encode` lays
the tree out as a program that numba can walk: an instruction adds a draw to the delay, or goes to the beginning of a
branch, and every branch but the last ends with a jump behind them all, so that no stack is needed however deep laws
are nested. `DelayStream` is the same thing with a Python face. Both draw by `draw`, so the two see the same random
numbers in the same order.
"""

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError
from stalewise.jit import called, compiled, inlined


class Kind(enum.IntEnum):
    """What `draw` does for one instruction."""

    CONSTANT = 0
    SHIFTED_EXPONENTIAL = 1
    GAMMA = 2
    LOGNORMAL = 3
    UNIFORM = 4
    EMPIRICAL = 5
    REPLAY = 6
    WEIBULL = 7
    PARETO = 8
    NORMAL = 9
    MIXTURE = 10
    REGIMES = 11
    JUMP = 12


@dataclass(frozen=True)
class Component:
    """One summand of a law: its kind, two parameters, sequences of measured delays if it has any.

    A choice has ``branches``, each a list of summands, and for each of them ``chances``: its probability, the
    probability to leave it after a delay, and its mean [s].
    """

    kind: Kind
    first: float = 0.0
    second: float = 0.0
    sequences: tuple[NDArray[np.float64], ...] = ()
    branches: tuple[tuple["Component", ...], ...] = ()
    chances: tuple[tuple[float, float, float], ...] = ()


class Encoded(NamedTuple):
    """Instructions as arrays.

    ``ranges[i]`` are the rows of ``spans`` that belong to instruction i: where each sequence begins in ``table`` and
    its length; for a choice, where each branch begins and where its three chances stand in ``table``. The parameters
    of `Kind.REGIMES` are how often a delay comes by (1 outside a mixture) and its mean [s]; that of `Kind.JUMP` is
    where to go on.
    """

    kinds: NDArray[np.int64]
    parameters: NDArray[np.float64]
    ranges: NDArray[np.int64]
    spans: NDArray[np.int64]
    table: NDArray[np.float64]
    programs: NDArray[np.int64]
    means: NDArray[np.float64]
    group: NDArray[np.int32]


class _Program:
    """What `encode` has written so far."""

    def __init__(self) -> None:
        self.kinds: list[int] = []
        self.parameters: list[tuple[float, float]] = []
        self.ranges: list[tuple[int, int]] = []
        self.spans: list[tuple[int, int]] = []
        self.table: list[NDArray[np.float64]] = []
        self.length = 0

    def write(self, components: tuple[Component, ...], share: float) -> None:
        """Add summands that a delay reaches with probability ``share``."""
        for component in components:
            at = len(self.kinds)
            rows = len(component.sequences) + len(component.branches)
            self._instruction(component.kind, component.first, component.second, rows)
            for row, sequence in enumerate(component.sequences, self.ranges[at][0]):
                self.spans[row] = (self._tabulate(sequence), len(sequence))
            if component.branches:
                self._choice(component, at, share)

    def _choice(self, component: Component, at: int, share: float) -> None:
        self.parameters[at] = (share, sum(p * mean for p, _, mean in component.chances))
        jumps = []
        for row, (branch, chance) in enumerate(
            zip(component.branches, component.chances, strict=True), self.ranges[at][0]
        ):
            self.spans[row] = (len(self.kinds), self._tabulate(np.array(chance)))
            self.write(branch, share * chance[0])
            jumps.append(len(self.kinds))
            self._instruction(Kind.JUMP)
        for jump in jumps:
            self.parameters[jump] = (len(self.kinds), 0.0)

    def _instruction(self, kind: Kind, first: float = 0.0, second: float = 0.0, rows: int = 0) -> None:
        self.kinds.append(int(kind))
        self.parameters.append((first, second))
        self.ranges.append((len(self.spans), len(self.spans) + rows))
        self.spans += [(0, 0)] * rows

    def _tabulate(self, values: NDArray[np.float64]) -> int:
        self.table.append(np.asarray(values, float))
        self.length += len(values)
        return self.length - len(values)


def encode(components: tuple[Component, ...], mean: float) -> Encoded:
    """Lay the components of one law, of this mean [s], out as flat arrays."""
    return encode_groups([(1, components, mean)])


def encode_groups(groups: list[tuple[int, tuple[Component, ...], float]]) -> Encoded:
    """Lay out the laws of groups of workers, each given as (workers, components, mean [s])."""
    program, programs = _Program(), []
    for _, components, _ in groups:
        begin = len(program.kinds)
        program.write(components, 1.0)
        programs.append((begin, len(program.kinds)))
    return Encoded(
        np.array(program.kinds, np.int64),
        np.array(program.parameters, float).reshape(-1, 2),
        np.array(program.ranges, np.int64).reshape(-1, 2),
        np.array(program.spans, np.int64).reshape(-1, 2),
        np.concatenate(program.table) if program.table else np.zeros(1),
        np.array(programs, np.int64),
        np.array([mean for *_, mean in groups], float),
        np.repeat(np.arange(len(groups), dtype=np.int32), [count for count, *_ in groups]),
    )


@called
def _choose(law, at, u):  # pragma: no cover
    """Row of the branch on which u in [0, 1) falls."""
    row = law.ranges[at, 0]
    last = law.ranges[at, 1] - 1
    u -= law.table[law.spans[row, 1]]
    while u >= 0.0 and row < last:
        row += 1
        u -= law.table[law.spans[row, 1]]
    return row


def new_cursors(law: Encoded, workers: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """What each worker remembers for each instruction, shape (instructions, workers).

    Of a replay its place, at first a random one in the worker's own sequence; of regimes the one it is in, at first
    by the share of delays that fall in each.
    """
    cursors = np.zeros((len(law.kinds), workers), np.int64)
    if not {Kind.REPLAY, Kind.REGIMES}.isdisjoint(law.kinds.tolist()):
        _set_out(law, cursors, rng)
    return cursors


@compiled
def _set_out(law, cursors, rng):  # pragma: no cover
    """Where each worker begins, in place."""
    workers = cursors.shape[1]
    for at in range(len(law.kinds)):
        if law.kinds[at] == 6:
            count = law.ranges[at, 1] - law.ranges[at, 0]
            for worker in range(workers):
                length = law.spans[law.ranges[at, 0] + worker % count, 1]
                cursors[at, worker] = min(int(rng.random() * length), length - 1)
        elif law.kinds[at] == 11:
            for worker in range(workers):
                cursors[at, worker] = _choose(law, at, rng.random()) - law.ranges[at, 0]


@called
def _measured(law, at, cursors, worker, rng):  # pragma: no cover
    """A delay out of a record, at random or the worker's next."""
    first = law.ranges[at, 0]
    if law.kinds[at] == 5:
        start, length = law.spans[first, 0], law.spans[first, 1]
        return law.table[start + min(int(rng.random() * length), length - 1)]
    row = first + worker % (law.ranges[at, 1] - first)
    start, length = law.spans[row, 0], law.spans[row, 1]
    value = law.table[start + cursors[at, worker]]
    cursors[at, worker] = (cursors[at, worker] + 1) % length
    return value


@called
def _enter(law, at, cursors, worker, rng):  # pragma: no cover
    """Where the chosen branch begins; of regimes the worker's present one, which it may then leave."""
    first = law.ranges[at, 0]
    if law.kinds[at] == 10:
        return law.spans[_choose(law, at, rng.random()), 0]
    regime = cursors[at, worker]
    if rng.random() < law.table[law.spans[first + regime, 1] + 1]:
        others = law.ranges[at, 1] - first - 1
        cursors[at, worker] = (regime + 1 + min(int(rng.random() * others), others - 1)) % (others + 1)
    return law.spans[first + regime, 0]


@inlined
def draw(law, cursors, worker, rng):  # pragma: no cover
    """One delay [s] of ``worker``; moves what it remembers on."""
    total = 0.0
    at = 0
    end = len(law.kinds)
    if len(law.programs) > 1:
        at, end = law.programs[law.group[worker], 0], law.programs[law.group[worker], 1]
    while at < end:
        kind = law.kinds[at]
        a = law.parameters[at, 0]
        b = law.parameters[at, 1]
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
        elif kind <= 6:
            total += _measured(law, at, cursors, worker, rng)
        elif kind == 7:
            total += a * rng.standard_exponential() ** b
        elif kind == 8:
            total += a * np.exp(b * rng.standard_exponential())
        elif kind == 9:
            value = -1.0
            while value <= 0.0:
                value = a + b * rng.standard_normal()
            total += value
        elif kind == 12:
            at = int(a) - 1
        else:
            at = _enter(law, at, cursors, worker, rng) - 1
        at += 1
    return total


@called
def draw_residual(law, cursors, worker, rng):  # pragma: no cover
    """Time [s] until ``worker`` finishes, its clock having run since long before: 20 to 21 mean cycles.

    The regimes it was in then are drawn by the share of time spent in each: a delay of regime i and what passes
    between two of them last m_i + mean/share - m on average, with m the regimes' mean delay.
    """
    group = law.group[worker] if len(law.programs) > 1 else 0
    mean = law.means[group]
    for at in range(law.programs[group, 0], law.programs[group, 1]):
        if law.kinds[at] == 11:
            first = law.ranges[at, 0]
            between = mean / law.parameters[at, 0] - law.parameters[at, 1]
            u = rng.random() * mean / law.parameters[at, 0]
            for row in range(first, law.ranges[at, 1]):
                place = law.spans[row, 1]
                u -= law.table[place] * (law.table[place + 2] + between)
                if u < 0.0 or row == law.ranges[at, 1] - 1:
                    cursors[at, worker] = row - first
                    break
    clock = -(20.0 + rng.random()) * mean
    while clock <= 0.0:
        clock += draw(law, cursors, worker, rng)
    return clock


@compiled
def draw_one(law, cursors, worker, rng):  # pragma: no cover
    """`draw` for Python to call."""
    return draw(law, cursors, worker, rng)


@compiled
def draw_first(law, cursors, worker, rng):  # pragma: no cover
    """`draw_residual` for Python to call."""
    return draw_residual(law, cursors, worker, rng)


class DelayStream:
    """Delays of a fleet of workers, one at a time: ``stream.next(worker)`` [s]."""

    def __init__(self, law: Encoded, workers: int, rng: np.random.Generator) -> None:
        self._law = law
        self._rng = rng
        self._cursors = new_cursors(law, workers, rng)

    def next(self, worker: int) -> float:
        """Delay of ``worker``'s next gradient [s]."""
        return float(draw_one(self._law, self._cursors, worker, self._rng))

    def residual(self, worker: int) -> float:
        """Time [s] to the end of ``worker``'s first gradient when clocks are in their stationary state."""
        return float(draw_first(self._law, self._cursors, worker, self._rng))

    def state(self) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """What later delays depend on: cursors, and the random numbers' state."""
        return self._cursors.copy(), dict(self._rng.bit_generator.state)

    def restore(self, cursors: NDArray[np.int64], state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        if cursors.shape != self._cursors.shape:
            raise InputError(f"delays: the state of {cursors.shape} is not of these laws, {self._cursors.shape}")
        self._cursors[:] = cursors
        self._rng.bit_generator.state = state
