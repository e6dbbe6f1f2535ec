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
from stalewise.protocol import ON_STALE, Rules, weigh
from stalewise.simulation.calendar import WORKER, cancel, clear, first, new_calendar, pop, push

STEP, DROP, HOLD, UNSENT = 0, 1, 2, 3  # what became of an arrival; STEP also logs the end of a trainer's step
_DROP, _WAIT, _ADMIT, _CANCEL = range(4)
BLOW_UP = 1e12
TRAINER = -1  # the worker that is logged with the end of a trainer's step
_HELD = np.dtype([("read_at", "f8"), ("version", "i8")])

Array = NDArray[np.float64]


class Problem(NamedTuple):
    """A quadratic and how it is trained; all but the learning rate of shape (modes,).

    ``pull`` is what a worker sends in place of the curvature (`Study.pull`), ``noise`` one gradient's deviation.
    """

    eigenvalues: Array
    pull: Array
    noise: Array
    start: Array
    learning_rate: float


class Fleet(NamedTuple):
    """Workers and how long their gradients take; of the shared link or trainer, ``service``, if there is one."""

    workers: int
    law: Encoded
    mean_cycle: float
    staggered: bool
    serves: bool
    service: Encoded


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
    trains: bool
    weight: int
    first: float
    second: float


class _Lists(NamedTuple):
    """Room for what changes in length.

    ``waiting`` is a ring of workers that wait for leave to start, described by ``line``: its first place, its length,
    and the clock of the slowest when it was last looked through. ``idle``: until a step; ``freed``: to be set to work.
    """

    waiting: NDArray[np.int64]
    line: NDArray[np.int64]
    idle: NDArray[np.int64]
    freed: NDArray[np.int64]
    held: NDArray


class _Position(NamedTuple):
    """Room for the parameters: now, as each worker read them, one gradient, the sum of those held, and each held one.

    The last is for a trainer, which uses some and leaves the others.
    """

    now: Array
    read: Array
    gradient: Array
    total: Array
    held: Array


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
        rules.trains,
        rules.weight.code,
        rules.weight.first,
        rules.weight.second,
    )
    room = rules.group + workers
    if rules.trains:
        room += rules.group * (encoded.bound + 1)
    lists = _Lists(
        np.empty(workers, np.int64),
        np.zeros(3, np.int64),
        np.empty(workers, np.int64),
        np.arange(workers + 1),
        np.empty(room, _HELD),
    )
    position = _Position(
        problem.start.copy(),
        np.empty((workers, modes)),
        np.empty(modes),
        np.zeros(modes),
        np.empty((room if rules.trains else 0, modes)),
    )
    cursors = new_cursors(fleet.law, workers, delay_rng)
    return _run(
        fleet, cursors, new_cursors(fleet.service, 1, delay_rng), np.zeros(workers + 2, WORKER),
        new_calendar(workers + 1, fleet.mean_cycle), encoded, lists, position, problem, records, delay_rng, noise_rng,
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
def _step(position, problem, taken, squares, rng):  # pragma: no cover
    """Move along the mean of gradients summed up; ``squares`` of their weights if noise is to be added here, else 0."""
    for i in range(len(position.now)):
        mean = position.total[i] / taken
        if squares > 0.0 and problem.noise[i] > 0.0:
            mean += problem.noise[i] * np.sqrt(squares) / taken * rng.standard_normal()
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


@inlined
def _add(position, weight):  # pragma: no cover
    """Add a gradient to the sum."""
    for mode in range(len(position.now)):
        position.total[mode] += weight * position.gradient[mode]


@compiled
def _fresh(lists, position, head, held, oldest):  # pragma: no cover
    """Throw out what is held and was read before version ``oldest``; how many stay, and the oldest version of them."""
    room, kept, stalest = len(lists.held), 0, np.int64(1 << 62)
    for i in range(held):
        one, to = (head + i) % room, (head + kept) % room
        version = lists.held[one].version
        if version >= oldest:
            stalest = min(stalest, version)
            lists.held[to].version, lists.held[to].read_at = version, lists.held[one].read_at
            for mode in range(len(position.now)):
                position.held[to, mode] = position.held[one, mode]
            kept += 1
    return kept, stalest


@compiled
def _run(
    fleet, cursors, service_cursors, workers, calendar, rules, lists, position, problem, records, delay_rng, noise_rng
):  # pragma: no cover
    count, law = fleet.workers, fleet.law
    group, bound, lead, trigger, trains = rules.group, rules.bound, rules.lead, rules.trigger, rules.trains
    strict = bound >= 0 and rules.on_stale == _ADMIT
    admits = strict or trains
    waits = bound >= 0 and rules.on_stale == _WAIT
    cancels = bound >= 0 and rules.on_stale == _CANCEL
    drops = bound >= 0 and rules.on_stale == _DROP
    in_order = rules.flushes or strict or waits or cancels  # who is in flight is kept by start, in a ring
    links = fleet.serves and not trains  # gradients pass a shared link
    ring, trainer = count, count + 1  # records: the one that closes the ring, and the trainer's
    workers[ring].older = workers[ring].newer = ring
    modes, grid, room = len(position.now), records.grid, len(lists.held)
    limit = _blow_up_limit(problem)
    version = applied = dropped = cancelled = unsent = largest = events = point = 0
    flying = held = head = idling = slowest = next_order = stalest = 0
    at_slowest = count
    ages = ages_squared = now = link_free = squares = 0.0
    training = began = False
    freeing = count
    while True:
        # -- set to work who is free, and who waits for leave, as far as the rules allow
        if admits:
            oldest = workers[workers[ring].newer].version if strict and flying > 0 else version
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
            me.stage = 0
            if fleet.staggered and not began:
                me.due = now + draw_residual(law, cursors, worker, delay_rng)
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
        # -- the next event
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
        stepping = trains and worker == trainer
        again = quiet = False
        if not stepping:
            through = links and me.stage == 1
            for mode in range(modes):
                position.gradient[mode] = position.read[worker, mode]
                if not (through and trigger > 0.0):  # else the gradient itself stands there, its noise drawn
                    position.gradient[mode] *= problem.pull[mode]
            quiet = trigger > 0.0 and not through and _norm(position.gradient, problem.noise, noise_rng) <= trigger
            again = quiet and rules.keeps
            if again or (links and not through and not quiet):
                if again:
                    unsent += 1
                    me.due = now + draw(law, cursors, worker, delay_rng)
                else:
                    for mode in range(modes if trigger > 0.0 else 0):
                        position.read[worker, mode] = position.gradient[mode]
                    me.stage = 1
                    link_free = max(link_free, now) + draw(fleet.service, service_cursors, 0, delay_rng)
                    me.due = link_free
                me.order = next_order
                next_order += 1
                push(calendar, workers, worker, cancels)
                if again and events < len(records.log):
                    log = records.log[events]
                    log[0], log[1], log[2], log[3] = now, worker, UNSENT, 0
                events += again
                continue
            flying -= 1
            if in_order:
                workers[me.older].newer = me.newer
                workers[me.newer].older = me.older
        fate = HOLD
        blocked = False
        if stepping:
            training = False
            worker = TRAINER
        elif quiet:
            fate = UNSENT
            unsent += 1
            staleness = 0
            lists.freed[0], freeing = worker, 1
        elif drops and staleness > bound:
            fate = DROP
            dropped += 1
            lists.freed[0], freeing = worker, 1
        else:
            place = held
            if trains:
                place = (head + held) % room
                stalest = me.version if held == 0 else min(stalest, me.version)
                for mode in range(modes):
                    position.held[place, mode] = position.gradient[mode]
            else:
                weight = weigh(rules.weight, rules.first, rules.second, staleness)
                _add(position, weight)
                squares += weight * weight
            lists.held[place].read_at, lists.held[place].version = me.read_at, me.version
            held += 1
            if lead >= 0:
                at_slowest -= me.clock == slowest
                me.clock += 1
                if at_slowest == 0:
                    slowest += 1
                    for other in range(count):
                        at_slowest += workers[other].clock == slowest
            stepping = held >= group and not trains
            blocked = stepping and waits and flying > 0 and version - workers[workers[ring].newer].version >= bound
            stepping = stepping and not blocked
            if rules.idles or blocked:
                lists.idle[idling] = worker
                idling += 1
            else:
                lists.freed[0], freeing = worker, 1
        if stepping:
            fate = STEP
            taken = group if trains else held
            for i in range(taken):
                place = (head + i) % room if trains else i
                age = now - lists.held[place].read_at
                ages += age
                ages_squared += age * age
                staleness = version - lists.held[place].version
                largest = max(largest, staleness)
                records.staleness[min(staleness, len(records.staleness) - 1)] += 1
                if trains:
                    for mode in range(modes):
                        position.gradient[mode] = position.held[place, mode]
                    weight = weigh(rules.weight, rules.first, rules.second, staleness)
                    _add(position, weight)
                    squares += weight * weight
            _step(position, problem, taken, squares if trigger <= 0.0 else 0.0, noise_rng)
            squares = 0.0
            version += 1
            applied += taken
            held -= taken
            if trains:
                head = (head + taken) % room
                if drops and held > 0 and version - stalest > bound:
                    kept, stalest = _fresh(lists, position, head, held, version - bound)
                    dropped += held - kept
                    held = kept
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
        if trains and not training and held >= group:
            training = True
            workers[trainer].due = now + draw(fleet.service, service_cursors, 0, delay_rng)
            workers[trainer].order = next_order
            next_order += 1
            push(calendar, workers, trainer, cancels)
        if events < len(records.log):
            log = records.log[events]
            log[0], log[1], log[2], log[3] = now, worker, fate, staleness
        events += 1
