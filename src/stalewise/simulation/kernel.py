"""The compiled event kernel: SGD on a quadratic under any `Rules`, event for event what the protocol does.

Order is fixed by (time of arrival, order of start), and delays come from `stalewise.delays.compiled.draw` in start
order, so a plain loop around `stalewise.protocol` with the same generators gives the same events
(`tests/simulation/test_kernel.py`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.delays.compiled import Encoded, draw, draw_residual, new_cursors
from stalewise.jit import compiled, inlined
from stalewise.protocol import ON_STALE, Rules
from stalewise.simulation.calendar import WORKER, cancel, clear, first, new_calendar, pop, push

STEP, DROP, HOLD, UNSENT = 0, 1, 2, 3
_DROP, _WAIT, _ADMIT, _CANCEL = range(4)
BLOW_UP = 1e12

Array = NDArray[np.float64]


class Problem(NamedTuple):
    """A quadratic and how it is trained: curvatures, standard deviation of one gradient, start, each (modes,)."""

    eigenvalues: Array
    noise: Array
    start: Array
    learning_rate: float


class Fleet(NamedTuple):
    """Workers and how long their gradients take."""

    workers: int
    law: Encoded
    mean_cycle: float
    staggered: bool


class Counts(NamedTuple):
    """What the kernel counts: gradients by fate, sums of ages [s], [s^2] over the applied, points of the grid reached.

    ``point`` is negative if the loss blew up there.
    """

    applied: int
    dropped: int
    cancelled: int
    unsent: int
    in_flight: int
    largest: int
    ages: float
    ages_squared: float
    events: int
    point: int


class Records(NamedTuple):
    """What the kernel writes: loss and updates on a grid of times, applied staleness, and a log of events.

    The last entry of ``staleness`` takes the rest; ``log`` rows are (time, worker, fate, staleness), as many as fit.
    """

    grid: Array
    loss: Array
    updates: Array
    staleness: NDArray[np.int64]
    log: Array


class _EncodedRules(NamedTuple):
    """`Rules` as numbers; -1 for none."""

    group: int
    idles: bool
    flushes: bool
    bound: int
    on_stale: int
    lead: int
    trigger: float
    keeps: bool


class _Lists(NamedTuple):
    """Room for what changes in length.

    ``waiting`` is a ring of workers that wait for leave to start, described by ``line``: its first place, its length,
    and the clock of the slowest when it was last looked through. ``idle``: until a step; ``freed``: to be set to work.
    """

    waiting: NDArray[np.int64]
    line: NDArray[np.int64]
    idle: NDArray[np.int64]
    freed: NDArray[np.int64]
    held_at: Array
    held_age: NDArray[np.int64]


class _Position(NamedTuple):
    """Room for the parameters: now, as each worker read them, one gradient, and the sum of those held."""

    now: Array
    read: Array
    gradient: Array
    total: Array


def run(
    fleet: Fleet, rules: Rules, problem: Problem, records: Records, delay_rng: np.random.Generator,
    noise_rng: np.random.Generator,
) -> Counts:  # fmt: skip
    """Run one policy until the grid's last time, or until the loss blows up.

    Memory is that of the workers, whatever the number of events: 56 bytes each, 48 for the queue, and their parameters.
    """
    workers, modes = fleet.workers, len(problem.start)
    encoded = _EncodedRules(
        rules.group,
        rules.idles,
        rules.flushes,
        -1 if rules.max_staleness is None else rules.max_staleness,
        ON_STALE.index(rules.on_stale),
        -1 if rules.lead is None else rules.lead,
        rules.trigger,
        rules.on_quiet == "keep",
    )
    room = rules.group + workers
    lists = _Lists(
        np.empty(workers, np.int64),
        np.zeros(3, np.int64),
        np.empty(workers, np.int64),
        np.arange(workers + 1),
        np.empty(room),
        np.empty(room, np.int64),
    )
    position = _Position(problem.start.copy(), np.empty((workers, modes)), np.empty(modes), np.zeros(modes))
    cursors = new_cursors(fleet.law, workers, delay_rng)
    return _run(
        fleet, cursors, np.zeros(workers + 1, WORKER), new_calendar(workers, fleet.mean_cycle), encoded, lists,
        position, problem, records, delay_rng, noise_rng,
    )  # fmt: skip


@inlined
def _loss(x, eigenvalues):  # pragma: no cover
    total = 0.0
    for i in range(len(x)):
        total += 0.5 * eigenvalues[i] * x[i] * x[i]
    return total


@inlined
def _blow_up_limit(problem):  # pragma: no cover
    """Loss beyond which a run has blown up: 1e12 times the start and what gradient noise alone would hold."""
    rate, held = problem.learning_rate, 0.0
    for i in range(len(problem.noise)):
        held += rate * problem.noise[i] ** 2 * (1.0 + rate * problem.eigenvalues[i])
    return BLOW_UP * max(_loss(problem.start, problem.eigenvalues) + held, 1e-300)


@inlined
def _norm(gradient, noise, rng):  # pragma: no cover
    """Add noise to a gradient; its norm."""
    square = 0.0
    for i in range(len(gradient)):
        if noise[i] > 0.0:
            gradient[i] += noise[i] * rng.standard_normal()
        square += gradient[i] * gradient[i]
    return np.sqrt(square)


@inlined
def _step(position, problem, held, noisy, rng):  # pragma: no cover
    """Move along the mean of what is held; ``noisy`` if its noise is to be added here."""
    for i in range(len(position.now)):
        mean = position.total[i] / held
        if noisy and problem.noise[i] > 0.0:
            mean += problem.noise[i] / np.sqrt(held) * rng.standard_normal()
        position.now[i] -= problem.learning_rate * mean
        position.total[i] = 0.0


@inlined
def _join(lists, worker):  # pragma: no cover
    waiting, line = lists.waiting, lists.line
    waiting[(line[0] + line[1]) % len(waiting)] = worker
    line[1] += 1


@inlined
def _leave(lists):  # pragma: no cover
    waiting, line = lists.waiting, lists.line
    worker = waiting[line[0]]
    line[0] = (line[0] + 1) % len(waiting)
    line[1] -= 1
    return worker


@compiled
def _admitted(lists, freeing, rules, version, oldest, under_way):  # pragma: no cover
    """Put who may start into ``freed``, first come first served: the rest of the line, and the freed, wait."""
    for i in range(freeing):
        _join(lists, lists.freed[i])
    freeing = 0
    while lists.line[1] > 0 and version + (under_way + freeing) // rules.group <= oldest + rules.bound:
        lists.freed[freeing] = _leave(lists)
        freeing += 1
    return freeing


@compiled
def _not_ahead(lists, freeing, workers, lead, slowest):  # pragma: no cover
    """The same for a bounded lead; who waits already is looked at only when the slowest has moved."""
    asking = freeing
    if slowest > lists.line[2]:
        lists.line[2] = slowest
        for i in range(freeing):
            _join(lists, lists.freed[i])
        asking = lists.line[1]
        for i in range(asking):
            lists.freed[i] = _leave(lists)
    freeing = 0
    for i in range(asking):
        worker = lists.freed[i]
        if workers[worker].clock - slowest <= lead:
            lists.freed[freeing] = worker
            freeing += 1
        else:
            _join(lists, worker)
    return freeing


@compiled
def _run(
    fleet, cursors, workers, calendar, rules, lists, position, problem, records, delay_rng, noise_rng
):  # pragma: no cover
    count, law = fleet.workers, fleet.law
    group, bound, lead, trigger = rules.group, rules.bound, rules.lead, rules.trigger
    admits = bound >= 0 and rules.on_stale == _ADMIT
    waits = bound >= 0 and rules.on_stale == _WAIT
    cancels = bound >= 0 and rules.on_stale == _CANCEL
    drops = bound >= 0 and rules.on_stale == _DROP
    in_order = rules.flushes or admits or waits or cancels  # who is in flight is kept by start, in a ring
    ring = count  # the record that closes the ring
    workers[ring].older = workers[ring].newer = ring
    modes, grid = len(position.now), records.grid
    limit = _blow_up_limit(problem)
    version = applied = dropped = cancelled = unsent = largest = events = point = 0
    flying = held = idling = slowest = next_order = 0
    at_slowest = count
    ages = ages_squared = now = 0.0
    freeing = count
    began = False
    while True:
        # -- set to work who is free, and who waits for leave, as far as the rules allow
        if admits:
            oldest = workers[workers[ring].newer].version if flying > 0 else version
            freeing = _admitted(lists, freeing, rules, version, oldest, held + flying)
        elif lead >= 0:
            freeing = _not_ahead(lists, freeing, workers, lead, slowest)
        for i in range(freeing):
            worker = lists.freed[i]
            for mode in range(modes):
                position.read[worker, mode] = position.now[mode]
            me = workers[worker]
            me.version = version
            me.read_at = now
            if fleet.staggered and not began:
                me.due = now + draw_residual(law, cursors, worker, delay_rng, fleet.mean_cycle)
            else:
                me.due = now + draw(law, cursors, worker, delay_rng)
            me.order = next_order
            next_order += 1
            if in_order:
                newest = workers[ring].older
                me.older, me.newer = newest, ring
                workers[newest].newer = workers[ring].older = worker
            push(calendar, workers, worker, cancels)
        flying += freeing
        freeing = 0
        began = True
        # -- the next arrival
        worker = first(calendar, workers, cancels)
        me = workers[worker]
        now = me.due
        while grid[point] < now:
            loss = _loss(position.now, problem.eigenvalues)
            records.loss[point] = loss
            records.updates[point] = version
            point += 1
            ended = point == len(grid)
            if not loss <= limit:
                ended, point = True, -point
            if ended:
                return Counts(
                    applied, dropped, cancelled, unsent, flying + held, largest, ages, ages_squared, events, point
                )
        pop(calendar)
        staleness = version - me.version
        for mode in range(modes):
            position.gradient[mode] = problem.eigenvalues[mode] * position.read[worker, mode]
        quiet = trigger > 0.0 and _norm(position.gradient, problem.noise, noise_rng) <= trigger
        if quiet and rules.keeps:
            unsent += 1
            me.due = now + draw(law, cursors, worker, delay_rng)
            me.order = next_order
            next_order += 1
            push(calendar, workers, worker, cancels)
            if events < len(records.log):
                log = records.log[events]
                log[0], log[1], log[2], log[3] = now, worker, UNSENT, 0
            events += 1
            continue
        flying -= 1
        if in_order:
            workers[me.older].newer = me.newer
            workers[me.newer].older = me.older
        fate = HOLD
        if quiet:
            fate = UNSENT
            unsent += 1
            staleness = 0
            lists.freed[0], freeing = worker, 1
        elif drops and staleness > bound:
            fate = DROP
            dropped += 1
            lists.freed[0], freeing = worker, 1
        else:
            for mode in range(modes):
                position.total[mode] += position.gradient[mode]
            lists.held_at[held], lists.held_age[held] = me.read_at, staleness
            held += 1
            if lead >= 0:
                at_slowest -= me.clock == slowest
                me.clock += 1
                if at_slowest == 0:
                    slowest += 1
                    for other in range(count):
                        at_slowest += workers[other].clock == slowest
            ready = held >= group
            blocked = ready and waits and flying > 0 and version - workers[workers[ring].newer].version >= bound
            if rules.idles or blocked:
                lists.idle[idling] = worker
                idling += 1
            else:
                lists.freed[0], freeing = worker, 1
            if ready and not blocked:
                fate = STEP
                _step(position, problem, held, trigger <= 0.0, noise_rng)
                for i in range(held):
                    age = now - lists.held_at[i]
                    ages += age
                    ages_squared += age * age
                    largest = max(largest, lists.held_age[i])
                    records.staleness[min(lists.held_age[i], len(records.staleness) - 1)] += 1
                version += 1
                applied += held
                held = 0
                if idling > 0:  # they begin first
                    if freeing > 0:
                        lists.freed[idling] = lists.freed[0]
                    for i in range(idling):
                        lists.freed[i] = lists.idle[i]
                    freeing += idling
                    idling = 0
                if rules.flushes:
                    cancelled += flying
                    flying = 0
                    clear(calendar)
                    workers[ring].older = workers[ring].newer = ring
                    for i in range(count):
                        lists.freed[i] = i
                    freeing = count
                while cancels and flying > 0 and version - workers[workers[ring].newer].version > bound:
                    stopped = workers[ring].newer
                    after = workers[stopped].newer
                    workers[ring].newer = after
                    workers[after].older = ring
                    cancel(calendar, workers, stopped)
                    flying -= 1
                    cancelled += 1
                    lists.freed[freeing] = stopped
                    freeing += 1
        if events < len(records.log):
            log = records.log[events]
            log[0], log[1], log[2], log[3] = now, worker, fate, staleness
        events += 1
