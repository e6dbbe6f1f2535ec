"""The loop over events, compiled: what a server does with gradients, on a calendar queue, for any rules.

Each part is a function that is compiled into the loop. What a part changes in passing (versions, how many are in
flight, held, idle) it takes and gives back as numbers, which stay in registers: 5 ns an event less than in memory.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.delays.compiled import draw, draw_residual
from stalewise.jit import called, compiled, inlined
from stalewise.protocol import weigh
from stalewise.simulation.calendar import cancel, clear, first, pop, push

STEP, DROP, HOLD, UNSENT = 0, 1, 2, 3  # what became of an arrival; STEP also logs the end of a trainer's step
BLOW_UP = 1e12
NEVER = 1 << 62  # updates, more than any staleness
TRAINER = -1  # the worker that is logged with the end of a trainer's step
HELD = np.dtype([("read_at", "f8"), ("version", "i8"), ("loss", "f8")])
TALLY = np.dtype(
    [
        ("applied", "i8"),
        ("dropped", "i8"),
        ("cancelled", "i8"),
        ("unsent", "i8"),
        ("in_flight", "i8"),
        ("largest", "i8"),
        ("ages", "f8"),
        ("ages_squared", "f8"),
        ("events", "i8"),
        ("slowest", "i8"),  # clock of the slowest worker, and how many stand there
        ("at_slowest", "i8"),
        ("head", "i8"),  # where the gradients held begin in their ring, and the version of the oldest, for a trainer
        ("stalest", "i8"),
        ("squares", "f8"),  # of the weights of what is summed up, and times the loss where each was computed
        ("losses", "f8"),
    ],
    align=True,
)

Array = NDArray[np.float64]


class EncodedRules(NamedTuple):
    """`Rules` as numbers, -1 for no bound and no lead; and what follows from them.

    Either may not start if a gradient could become too old (``admits``; ``strict`` if whatever the order of arrival),
    or steps wait, or what is too old is cancelled or dropped, ``drops_beyond`` that staleness. ``in_order``: who is in
    flight is linked by start.
    ``links``: gradients pass a shared link.
    """

    group: int = 1
    idles: bool = False
    flushes: bool = False
    bound: int = -1
    lead: int = -1
    trigger: float = 0.0
    keeps: bool = False
    trains: bool = False
    admits: bool = False
    strict: bool = False
    waits: bool = False
    cancels: bool = False
    drops_beyond: int = NEVER
    in_order: bool = False
    links: bool = False
    weight: int = 0
    first: float = 0.0
    second: float = 0.0


PLAIN = EncodedRules()  # fully asynchronous SGD with nothing to it; the loop for it also drops


class Lists(NamedTuple):
    """Room for what changes in length.

    ``waiting`` is a ring of workers that wait for leave to start, described by ``line``: its first place, its length,
    and the clock of the slowest when it was last looked through. ``idle``: until a step; ``freed``: to be set to work.
    ``older`` and ``newer`` link who is in flight by start, a ring closed by one entry more than there are workers;
    ``clock`` counts what each delivered. Those are empty where no rule asks for them.
    """

    waiting: NDArray[np.int64]
    line: NDArray[np.int64]
    idle: NDArray[np.int64]
    freed: NDArray[np.int64]
    older: NDArray[np.int32]
    newer: NDArray[np.int32]
    clock: NDArray[np.int64]
    held: NDArray


class Position(NamedTuple):
    """Room for the parameters: now, their velocity, as each worker read them, one gradient, the sum of those held.

    And each one held, for a trainer, which uses some and leaves the others.
    """

    now: Array
    velocity: Array
    read: Array
    gradient: Array
    total: Array
    held: Array


@inlined
def _loss(x, eigenvalues):  # pragma: no cover
    total = 0.0
    for i in range(len(x)):
        total += 0.5 * eigenvalues[i] * x[i] * x[i]
    return total


@inlined
def _blow_up_limit(problem):  # pragma: no cover
    """Loss beyond which a run has blown up: 1e12 times the start and what gradient noise alone would hold."""
    rate, held = problem.learning_rate / (1.0 - problem.momentum), 0.0
    for i in range(len(problem.noise)):
        held += rate * problem.noise[i] ** 2 * (1.0 + rate * problem.eigenvalues[i])
    return BLOW_UP * max(_loss(problem.start, problem.eigenvalues) + held, 1e-300)


@inlined
def _deviation(problem, mode, squares, losses):  # pragma: no cover
    """Standard deviation of a sum of gradients' noise: of so much weight squared, and of that times loss."""
    if problem.grows:
        return np.sqrt(problem.noise[mode] ** 2 * squares + problem.growth[mode] * losses)
    return problem.noise[mode] * np.sqrt(squares)


@inlined
def _norm(gradient, problem, loss, rng):  # pragma: no cover
    """Add noise to a gradient; its norm."""
    square = 0.0
    for i in range(len(gradient)):
        deviation = _deviation(problem, i, 1.0, loss)
        if deviation > 0.0:
            gradient[i] += deviation * rng.standard_normal()
        square += gradient[i] * gradient[i]
    return np.sqrt(square)


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


@called
def _admitted(lists, freeing, rules, version, oldest, under_way):  # pragma: no cover
    """Put who may start into ``freed``, first come first served: the rest of the line, and the freed, wait."""
    for i in range(freeing):
        _join(lists, lists.freed[i])
    freeing = 0
    while lists.line[1] > 0 and version + (under_way + freeing) // rules.group <= oldest + rules.bound:
        lists.freed[freeing] = _leave(lists)
        freeing += 1
    return freeing


@called
def _not_ahead(lists, freeing, lead, slowest):  # pragma: no cover
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
        if lists.clock[worker] - slowest <= lead:
            lists.freed[freeing] = worker
            freeing += 1
        else:
            _join(lists, worker)
    return freeing


@inlined
def _oldest(lists):  # pragma: no cover
    """Who started first of those in flight; only if there is one."""
    return lists.newer[len(lists.newer) - 1]


@inlined
def _take_off(lists, worker):  # pragma: no cover
    """Link ``worker`` as the last to have started."""
    end = len(lists.older) - 1
    newest = lists.older[end]
    lists.older[worker], lists.newer[worker] = newest, end
    lists.newer[newest] = lists.older[end] = worker


@inlined
def _land(lists, worker):  # pragma: no cover
    """``worker`` is no longer in flight."""
    older, newer = lists.older[worker], lists.newer[worker]
    lists.newer[older], lists.older[newer] = newer, older


@inlined
def _enter(calendar, workers, worker, due, order, cancels):  # pragma: no cover
    """The next of ``worker`` is due then."""
    workers[worker].due, workers[worker].order = due, order
    push(calendar, workers, worker, cancels)


@inlined
def _report(records, position, problem, version, point, now, limit):  # pragma: no cover
    """Write the grid up to ``now``; its next point, and whether the run ends, the point negative if it blew up."""
    while records.grid[point] < now:
        loss = _loss(position.now, problem.eigenvalues)
        records.loss[point], records.updates[point] = loss, version
        point += 1
        if not loss <= limit:
            return -point, True
        if point == len(records.grid):
            return point, True
    return point, False


@inlined
def _log(records, events, now, worker, fate, staleness):  # pragma: no cover
    if events < len(records.log):
        row = records.log[events]
        row[0], row[1], row[2], row[3] = now, worker, fate, staleness


@inlined
def _computed(position, problem, rules, me, worker, rng):  # pragma: no cover
    """Put ``worker``'s gradient together; whether it is too small to be sent, and the loss where it was computed.

    Under a trigger its noise is drawn at once, and what passes the link afterwards is the gradient itself.
    """
    through = rules.links and me.stage == 1
    loss = 0.0
    if problem.grows and not (through and rules.trigger > 0.0):
        loss = _loss(position.read[worker], problem.eigenvalues)
    for mode in range(len(position.now)):
        position.gradient[mode] = position.read[worker, mode]
        if not (through and rules.trigger > 0.0):
            position.gradient[mode] *= problem.pull[mode]
    quiet = rules.trigger > 0.0 and not through and _norm(position.gradient, problem, loss, rng) <= rules.trigger
    return quiet, loss


@inlined
def _add(position, tally, rules, staleness, loss):  # pragma: no cover
    """Add a gradient to the sum, computed where the loss was that."""
    weight = weigh(rules.weight, rules.first, rules.second, staleness)
    for mode in range(len(position.now)):
        position.total[mode] += weight * position.gradient[mode]
    tally.squares += weight * weight
    tally.losses += weight * weight * loss


@inlined
def _hold(lists, position, tally, rules, held, me, staleness, loss):  # pragma: no cover
    """Take a gradient in; a trainer looks at it later."""
    place = held
    if rules.trains:
        place = (tally.head + held) % len(lists.held)
        tally.stalest = me.version if held == 0 else min(tally.stalest, me.version)
        for mode in range(len(position.now)):
            position.held[place, mode] = position.gradient[mode]
    else:
        _add(position, tally, rules, staleness, loss)
    one = lists.held[place]
    one.read_at, one.version, one.loss = me.read_at, me.version, loss


@inlined
def _tick(lists, tally, worker):  # pragma: no cover
    """Count what ``worker`` delivered, for a bounded lead."""
    tally.at_slowest -= lists.clock[worker] == tally.slowest
    lists.clock[worker] += 1
    if tally.at_slowest == 0:
        tally.slowest += 1
        for other in range(len(lists.clock)):
            tally.at_slowest += lists.clock[other] == tally.slowest


@inlined
def _step(lists, position, tally, rules, problem, records, taken, version, now, rng):  # pragma: no cover
    """Move along the mean of the gradients taken; the staleness of the last of them."""
    staleness = np.int64(0)
    for i in range(taken):
        place = (tally.head + i) % len(lists.held) if rules.trains else i
        age = now - lists.held[place].read_at
        tally.ages += age
        tally.ages_squared += age * age
        staleness = version - lists.held[place].version
        tally.largest = max(tally.largest, staleness)
        records.staleness[min(staleness, len(records.staleness) - 1)] += 1
        if rules.trains:
            for mode in range(len(position.now)):
                position.gradient[mode] = position.held[place, mode]
            _add(position, tally, rules, staleness, lists.held[place].loss)
    for mode in range(len(position.now)):
        along = position.total[mode] / taken + problem.weight_decay * position.now[mode]
        deviation = _deviation(problem, mode, tally.squares, tally.losses)
        if rules.trigger <= 0.0 and deviation > 0.0:  # else it is in the gradients
            along += deviation / taken * rng.standard_normal()
        position.velocity[mode] = problem.momentum * position.velocity[mode] + along
        along = problem.shares[0] * along + problem.shares[1] * position.velocity[mode]
        position.now[mode] -= problem.learning_rate * along
        position.total[mode] = 0.0
    tally.squares = tally.losses = 0.0
    tally.applied += taken
    if rules.trains:
        tally.head = (tally.head + taken) % len(lists.held)
    return staleness


@called
def _fresh(lists, position, tally, held, oldest):  # pragma: no cover
    """Throw out what is held and was read before version ``oldest``; how many stay."""
    room, kept = len(lists.held), 0
    tally.stalest = NEVER
    for i in range(held):
        one, to = (tally.head + i) % room, (tally.head + kept) % room
        version = lists.held[one].version
        if version >= oldest:
            tally.stalest = min(tally.stalest, version)
            lists.held[to].version, lists.held[to].read_at = version, lists.held[one].read_at
            lists.held[to].loss = lists.held[one].loss
            for mode in range(len(position.now)):
                position.held[to, mode] = position.held[one, mode]
            kept += 1
    tally.dropped += held - kept
    return kept


@inlined
def _free_idle(lists, freeing, idling):  # pragma: no cover
    """Set to work who idled until the step; they begin before who delivered last."""
    if freeing > 0:
        lists.freed[idling] = lists.freed[0]
    for i in range(idling):
        lists.freed[i] = lists.idle[i]


@inlined
def _flush(lists, calendar):  # pragma: no cover
    """Cancel all that is in flight, and set everybody to work."""
    clear(calendar)
    end = len(lists.older) - 1
    lists.older[end] = lists.newer[end] = end
    for worker in range(end):
        lists.freed[worker] = worker


@inlined
def _cancel_old(lists, freeing, flying, workers, calendar, oldest):  # pragma: no cover
    """Cancel what is in flight and was read before version ``oldest``, to begin it anew; how many they are."""
    cancelled = 0
    while cancelled < flying and workers[_oldest(lists)].version < oldest:
        stopped = _oldest(lists)
        cancel(calendar, workers, stopped)
        _land(lists, stopped)
        lists.freed[freeing + cancelled] = stopped
        cancelled += 1
    return cancelled


def _compiled_for(general: bool) -> Callable[..., int]:
    """The loop over events, compiled for any rules, or else for `PLAIN` ones, with any bound kept by dropping.

    What stands behind ``general and`` costs the plain loop no time to compile: numba leaves out what a constant rules
    out. It returns how many points of the grid it wrote, negative if the loss blew up; the rest stands in the tally.
    """

    @compiled
    def loop(
        fleet, cursors, service_cursors, workers, calendar, given, lists, position, tallies, problem, records,
        delay_rng, noise_rng,
    ):  # pragma: no cover  # fmt: skip
        rules, cancels = (given, given.cancels) if general else (PLAIN, None)
        tally, law, trainer = tallies[0], fleet.law, fleet.workers + 1
        limit = _blow_up_limit(problem)
        point = version = order = flying = held = idling = events = np.int64(0)
        now = link_free = 0.0
        began = training = False
        freeing = fleet.workers
        while True:
            # -- set to work who is free, and who waits for leave, as far as the rules allow
            if general and rules.admits:
                oldest = workers[_oldest(lists)].version if rules.strict and flying > 0 else version
                freeing = _admitted(lists, freeing, rules, version, oldest, held + flying)
            elif general and rules.lead >= 0:
                freeing = _not_ahead(lists, freeing, rules.lead, tally.slowest)
            for i in range(freeing):
                worker = lists.freed[i]
                for mode in range(len(position.now)):
                    position.read[worker, mode] = position.now[mode]
                workers[worker].version, workers[worker].read_at, workers[worker].stage = version, now, 0
                if fleet.staggered and not began:
                    due = now + draw_residual(law, cursors, worker, delay_rng)
                else:
                    due = now + draw(law, cursors, worker, delay_rng)
                if general and rules.in_order:
                    _take_off(lists, worker)
                _enter(calendar, workers, worker, due, order, cancels)
                order += 1
            flying += freeing
            freeing, began = 0, True
            # -- the next event
            worker = first(calendar, workers, cancels)
            me = workers[worker]
            now = me.due
            point, ended = _report(records, position, problem, version, point, now, limit)
            if ended:
                tally.in_flight, tally.events = flying + held, events
                return point
            pop(calendar)
            fate, staleness = HOLD, version - me.version
            stepping = general and rules.trains and worker == trainer
            if stepping:
                training = False
            else:
                quiet, loss = _computed(position, problem, rules, me, worker, noise_rng)
                if general and quiet and rules.keeps:  # go on from the parameters it has
                    tally.unsent += 1
                    _enter(calendar, workers, worker, now + draw(law, cursors, worker, delay_rng), order, cancels)
                    order += 1
                    _log(records, events, now, worker, UNSENT, 0)
                    events += 1
                    continue
                if general and rules.links and me.stage == 0 and not quiet:  # queue for the shared link
                    for mode in range(len(position.now) if rules.trigger > 0.0 else 0):
                        position.read[worker, mode] = position.gradient[mode]
                    me.stage = 1
                    link_free = max(link_free, now) + draw(fleet.service, service_cursors, np.int64(0), delay_rng)
                    _enter(calendar, workers, worker, link_free, order, cancels)
                    order += 1
                    continue
                flying -= 1
                if general and rules.in_order:
                    _land(lists, worker)
                idles = False
                if general and quiet:
                    fate, staleness = UNSENT, np.int64(0)
                    tally.unsent += 1
                elif staleness > given.drops_beyond:
                    fate = DROP
                    tally.dropped += 1
                else:
                    _hold(lists, position, tally, rules, held, me, staleness, loss)
                    held += 1
                    if general and rules.lead >= 0:
                        _tick(lists, tally, worker)
                    ready = held >= rules.group and not rules.trains
                    stepping, idles = ready, rules.idles
                    if general and ready and rules.waits and flying > 0:
                        stepping = version - workers[_oldest(lists)].version < rules.bound
                        idles = idles or not stepping
                if idles:
                    lists.idle[idling] = worker
                    idling += 1
                else:
                    lists.freed[0], freeing = worker, 1
            if stepping:
                fate, taken = STEP, rules.group if rules.trains else held
                staleness = _step(lists, position, tally, rules, problem, records, taken, version, now, noise_rng)
                version += 1
                held -= taken
                if general and rules.trains and held > 0 and version - tally.stalest > rules.drops_beyond:
                    held = _fresh(lists, position, tally, held, version - rules.bound)
                if general and idling > 0:
                    _free_idle(lists, freeing, idling)
                    freeing, idling = freeing + idling, 0
                if general and rules.flushes:
                    _flush(lists, calendar)
                    tally.cancelled += flying
                    flying, freeing = 0, fleet.workers
                if general and rules.cancels:
                    stopped = _cancel_old(lists, freeing, flying, workers, calendar, version - rules.bound)
                    tally.cancelled += stopped
                    flying, freeing = flying - stopped, freeing + stopped
            if general and rules.trains and not training and held >= rules.group:
                training = True
                due = now + draw(fleet.service, service_cursors, np.int64(0), delay_rng)
                _enter(calendar, workers, trainer, due, order, cancels)
                order += 1
            _log(records, events, now, TRAINER if worker == trainer else worker, fate, staleness)
            events += 1

    return loop


run_any = _compiled_for(True)
run_plain = _compiled_for(False)
