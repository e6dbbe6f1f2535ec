"""The compiled event kernel: SGD on a quadratic under any `Rules`, event for event what the protocol does.

Order is fixed by (finish time, start order), and delays come from `stalewise.delays.compiled.draw` in start order, so
a plain loop around `stalewise.protocol` with the same generator gives the same events (`tests/simulation`).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from stalewise.delays.compiled import draw, draw_residual, new_cursors
from stalewise.protocol import ON_STALE, Rules

STEP, DROP, HOLD, UNSENT = 0, 1, 2, 3
DROP_STALE, WAIT, ADMIT, CANCEL = range(4)
BLOW_UP = 1e12


class EncodedRules(NamedTuple):
    """`Rules` as numbers; -1 for none."""

    group: int
    idles: bool
    flushes: bool
    bound: int
    on_stale: int
    lead: int
    trigger: float
    keeps: bool


def encode_rules(rules: Rules) -> EncodedRules:
    """Rules as the kernel reads them."""
    return EncodedRules(
        rules.group,
        rules.idles,
        rules.flushes,
        -1 if rules.max_staleness is None else rules.max_staleness,
        ON_STALE.index(rules.on_stale),
        -1 if rules.lead is None else rules.lead,
        rules.trigger,
        rules.on_quiet == "keep",
    )


@njit(cache=True, nogil=True)
def _loss(x, eigenvalues):  # pragma: no cover
    total = 0.0
    for i in range(len(x)):
        total += 0.5 * eigenvalues[i] * x[i] * x[i]
    return total


@njit(cache=True, nogil=True)
def _blow_up_limit(start, noise, rate, eigenvalues):  # pragma: no cover
    """Loss beyond which a run has blown up: 1e12 times the start and what gradient noise alone would hold."""
    held = 0.0
    for i in range(len(noise)):
        held += rate * noise[i] * noise[i] * (1.0 + rate * eigenvalues[i])
    return BLOW_UP * max(_loss(start, eigenvalues) + held, 1e-300)


@njit(cache=True, nogil=True)
def _earlier(times, orders, a, b):  # pragma: no cover
    """Whether worker a's gradient arrives before worker b's; ties in time go by start order."""
    return times[a] < times[b] or (times[a] == times[b] and orders[a] < orders[b])


@njit(cache=True, nogil=True)
def _sift_down(heap, place, times, orders, at, size):  # pragma: no cover
    worker = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _earlier(times, orders, heap[child + 1], heap[child]):
            child += 1
        if _earlier(times, orders, worker, heap[child]):
            break
        heap[at] = heap[child]
        place[heap[at]] = at
        at = child
    heap[at] = worker
    place[worker] = at


@njit(cache=True, nogil=True)
def _sift_up(heap, place, times, orders, at):  # pragma: no cover
    worker = heap[at]
    while at > 0:
        parent = (at - 1) // 2
        if not _earlier(times, orders, worker, heap[parent]):
            break
        heap[at] = heap[parent]
        place[heap[at]] = at
        at = parent
    heap[at] = worker
    place[worker] = at


@njit(cache=True, nogil=True)
def _remove(heap, place, times, orders, at, size):  # pragma: no cover
    """Take the event at a place out of a heap of ``size``; its last event fills the gap."""
    last = heap[size - 1]
    if at < size - 1:
        heap[at] = last
        place[last] = at
        _sift_down(heap, place, times, orders, at, size - 1)
        _sift_up(heap, place, times, orders, place[last])


@njit(cache=True, nogil=True)
def run(
    law, mean_cycle, staggered, workers, rules, rate, eigenvalues, noise, start, grid, delay_rng, noise_rng, loss,
    updates, counts, log,
):  # pragma: no cover  # fmt: skip
    """One policy on a quadratic until ``grid[-1]``.

    Args: ``law`` encoded delays; ``rules`` from `encode_rules`; ``noise`` standard deviation of one gradient along each
    eigenvector; ``grid`` times of record [s]. Filled: ``loss`` and ``updates`` on the grid, ``counts`` of applied
    staleness (its last entry takes the rest), ``log`` rows (time, worker, fate, staleness) as far as it reaches.
    Memory is that of the workers, whatever the number of events.

    Returns:
        (applied, dropped, cancelled, unsent, in flight, sum of ages, sum of squared ages, largest staleness, rows
        logged, grid points reached).
    """
    group, idles, flushes, bound, on_stale, lead, keeps = (
        rules.group,
        rules.idles,
        rules.flushes,
        rules.bound,
        rules.on_stale,
        rules.lead,
        rules.keeps,
    )
    trigger = rules.trigger
    modes = len(start)
    x = start.copy()
    read = np.empty((workers, modes))
    gradient = np.empty(modes)
    total = np.zeros(modes)
    version_read = np.zeros(workers, np.int64)
    time_read = np.zeros(workers)
    times = np.empty(workers)
    orders = np.zeros(workers, np.int64)
    heap = np.empty(workers, np.int64)
    place = np.empty(workers, np.int64)
    older = np.full(workers + 1, workers, np.int64)  # workers in flight by start, a ring closed by `workers`
    newer = np.full(workers + 1, workers, np.int64)
    waiting = np.empty(workers, np.int64)
    idle = np.empty(workers, np.int64)
    freed = np.empty(workers + 1, np.int64)
    held_time = np.empty(group + workers)
    held_age = np.empty(group + workers, np.int64)
    clock = np.zeros(workers, np.int64)
    at_clock = np.zeros(lead + 2 if lead >= 0 else 1, np.int64)
    at_clock[0] = workers
    cursors = new_cursors(law, workers, delay_rng)
    noisy = noise.max() > 0.0
    limit = _blow_up_limit(start, noise, rate, eigenvalues)
    version = applied = dropped = cancelled = unsent = largest = rows = point = 0
    size = held = idling = first_waiting = number_waiting = slowest = next_order = 0
    ages = ages_squared = now = 0.0
    freeing = workers
    for worker in range(workers):
        freed[worker] = worker
    began = False
    while True:
        # -- set to work who is free, and who waits for leave, as far as the rules allow
        for i in range(freeing):
            waiting[(first_waiting + number_waiting) % workers] = freed[i]
            number_waiting += 1
        asked = number_waiting
        for _ in range(asked):
            worker = waiting[first_waiting]
            if lead >= 0:
                may = clock[worker] - slowest <= lead
            elif on_stale == ADMIT and bound >= 0:
                oldest = version_read[newer[workers]] if newer[workers] != workers else version
                may = version + (held + size) // group <= oldest + bound
            else:
                may = True
            first_waiting = (first_waiting + 1) % workers
            if not may:  # to the end of the line, which after a whole round is as it was
                waiting[(first_waiting + number_waiting - 1) % workers] = worker
                continue
            number_waiting -= 1
            for i in range(modes):
                read[worker, i] = x[i]
            version_read[worker] = version
            time_read[worker] = now
            if staggered and not began:
                times[worker] = now + draw_residual(law, cursors, worker, delay_rng, mean_cycle)
            else:
                times[worker] = now + draw(law, cursors, worker, delay_rng)
            orders[worker] = next_order
            next_order += 1
            newest = older[workers]
            older[worker], newer[worker] = newest, workers
            newer[newest], older[workers] = worker, worker
            heap[size] = worker
            size += 1
            _sift_up(heap, place, times, orders, size - 1)
        began = True
        freeing = 0
        # -- the next arrival
        worker = heap[0]
        now = times[worker]
        while point < len(grid) and grid[point] < now:
            loss[point] = _loss(x, eigenvalues)
            updates[point] = version
            point += 1
            if loss[point - 1] > limit or not np.isfinite(loss[point - 1]):
                point = -point
                break
        if point < 0 or point == len(grid):
            flying = size + held
            return (applied, dropped, cancelled, unsent, flying, ages, ages_squared, largest, rows, abs(point))
        staleness = version - version_read[worker]
        for i in range(modes):
            gradient[i] = eigenvalues[i] * read[worker, i]
        fate = HOLD
        if trigger > 0.0:
            square = 0.0
            for i in range(modes):
                if noisy:
                    gradient[i] += noise[i] * noise_rng.standard_normal()
                square += gradient[i] * gradient[i]
            if np.sqrt(square) <= trigger:
                fate = UNSENT
        if fate == UNSENT and keeps:
            unsent += 1
            times[worker] = now + draw(law, cursors, worker, delay_rng)
            orders[worker] = next_order
            next_order += 1
            _sift_down(heap, place, times, orders, 0, size)
            if rows < len(log):
                log[rows, 0], log[rows, 1], log[rows, 2], log[rows, 3] = now, worker, fate, 0
                rows += 1
            continue
        _remove(heap, place, times, orders, 0, size)
        size -= 1
        newer[older[worker]], older[newer[worker]] = newer[worker], older[worker]
        if fate == UNSENT:
            unsent += 1
            staleness = 0
            freed[0], freeing = worker, 1
        elif bound >= 0 and staleness > bound and on_stale == DROP_STALE:
            fate = DROP
            dropped += 1
            freed[0], freeing = worker, 1
        else:
            for i in range(modes):
                total[i] += gradient[i]
            held_time[held], held_age[held] = time_read[worker], staleness
            held += 1
            if lead >= 0:
                at_clock[clock[worker] % len(at_clock)] -= 1
                clock[worker] += 1
                at_clock[clock[worker] % len(at_clock)] += 1
                while at_clock[slowest % len(at_clock)] == 0:
                    slowest += 1
            ready = held >= group
            blocked = False
            if ready and on_stale == WAIT and bound >= 0 and newer[workers] != workers:
                blocked = version - version_read[newer[workers]] >= bound
                ready = not blocked
            if idles or blocked:
                idle[idling] = worker
                idling += 1
            else:
                freed[0], freeing = worker, 1
            if ready:
                fate = STEP
                for i in range(modes):
                    mean = total[i] / held
                    if noisy and trigger <= 0.0:
                        mean += noise[i] / np.sqrt(held) * noise_rng.standard_normal()
                    x[i] -= rate * mean
                    total[i] = 0.0
                for i in range(held):
                    age = now - held_time[i]
                    ages += age
                    ages_squared += age * age
                    largest = max(largest, held_age[i])
                    counts[min(held_age[i], len(counts) - 1)] += 1
                version += 1
                applied += held
                held = 0
                if idling > 0:  # they begin first
                    if freeing > 0:
                        freed[idling] = freed[0]
                    for i in range(idling):
                        freed[i] = idle[i]
                    freeing += idling
                    idling = 0
                oldest = version if flushes else version - bound
                if flushes or (on_stale == CANCEL and bound >= 0):
                    while newer[workers] != workers and version_read[newer[workers]] < oldest:
                        stopped = newer[workers]
                        newer[workers] = newer[stopped]
                        older[newer[stopped]] = workers
                        _remove(heap, place, times, orders, place[stopped], size)
                        size -= 1
                        cancelled += 1
                        freed[freeing] = stopped
                        freeing += 1
                    if flushes:
                        freed[:freeing].sort()
        if rows < len(log):
            log[rows, 0], log[rows, 1], log[rows, 2], log[rows, 3] = now, worker, fate, staleness
            rows += 1
