"""The compiled event kernel: asynchronous and synchronous SGD on a quadratic, event for event what the protocol does.

Order is fixed by (finish time, start order), and delays come from `stalewise.delays.compiled.draw` in start order, so
a plain loop around `stalewise.protocol` with the same generator gives the same events (`tests/simulation`).
"""

import numpy as np
from numba import njit

from stalewise.delays.compiled import draw, draw_residual, new_cursors

STEP, DROP, HOLD = 0, 1, 2
BLOW_UP = 1e12


@njit(cache=True, nogil=True)
def _sift_down(times, orders, workers, size):  # pragma: no cover
    """Restore the heap after its root changed; ties in time go by start order."""
    at = 0
    time, order, worker = times[0], orders[0], workers[0]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and (
            times[right] < times[child] or (times[right] == times[child] and orders[right] < orders[child])
        ):
            child = right
        if times[child] > time or (times[child] == time and orders[child] > order):
            break
        times[at], orders[at], workers[at] = times[child], orders[child], workers[child]
        at = child
    times[at], orders[at], workers[at] = time, order, worker


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
def run_async(
    law, mean_cycle, staggered, workers, max_staleness, rate, eigenvalues, noise, start, grid, delay_rng, noise_rng,
    loss, updates, counts, log,
):  # pragma: no cover  # fmt: skip
    """Fully asynchronous SGD until ``grid[-1]``.

    Args: ``law`` encoded delays; ``max_staleness`` -1 for none; ``noise`` standard deviation of one gradient along
    each eigenvector; ``grid`` times of record [s]. Filled: ``loss`` and ``updates`` on the grid, ``counts`` of applied
    staleness (its last entry takes the rest), ``log`` rows (worker, what, staleness) and times as far as it reaches.

    Returns:
        (applied, dropped, sum of ages, sum of squared ages, largest staleness, rows logged, grid points reached).
    """
    modes = len(start)
    x = start.copy()
    read = np.empty((workers, modes))
    version_read = np.zeros(workers, np.int64)
    time_read = np.zeros(workers)
    times = np.empty(workers)
    orders = np.arange(workers)
    names = np.arange(workers)
    cursors = new_cursors(law, workers, delay_rng)
    for worker in range(workers):
        read[worker] = x
        if staggered:
            times[worker] = draw_residual(law, cursors, worker, delay_rng, mean_cycle)
        else:
            times[worker] = draw(law, cursors, worker, delay_rng)
    ranking = np.argsort(times, kind="mergesort")
    times = times[ranking]
    orders = orders[ranking]
    names = names[ranking]
    noisy = noise.max() > 0.0
    limit = _blow_up_limit(start, noise, rate, eigenvalues)
    version = applied = dropped = largest = rows = point = 0
    next_order = workers
    ages = ages_squared = 0.0
    while True:
        now = times[0]
        while point < len(grid) and grid[point] < now:
            loss[point] = _loss(x, eigenvalues)
            updates[point] = version
            point += 1
            if loss[point - 1] > limit or not np.isfinite(loss[point - 1]):
                return applied, dropped, ages, ages_squared, largest, rows, point
        if point == len(grid):
            return applied, dropped, ages, ages_squared, largest, rows, point
        worker = names[0]
        staleness = version - version_read[worker]
        keep = max_staleness < 0 or staleness <= max_staleness
        if rows < len(log):
            log[rows, 0] = now
            log[rows, 1] = worker
            log[rows, 2] = STEP if keep else DROP
            log[rows, 3] = staleness
            rows += 1
        if keep:
            for i in range(modes):
                gradient = eigenvalues[i] * read[worker, i]
                if noisy:
                    gradient += noise[i] * noise_rng.standard_normal()
                x[i] -= rate * gradient
            version += 1
            applied += 1
            age = now - time_read[worker]
            ages += age
            ages_squared += age * age
            largest = max(largest, staleness)
            counts[min(staleness, len(counts) - 1)] += 1
        else:
            dropped += 1
        for i in range(modes):
            read[worker, i] = x[i]
        version_read[worker] = version
        time_read[worker] = now
        times[0] = now + draw(law, cursors, worker, delay_rng)
        orders[0] = next_order
        next_order += 1
        _sift_down(times, orders, names, workers)


@njit(cache=True, nogil=True)
def run_sync(
    law, mean_cycle, staggered, workers, rate, eigenvalues, noise, start, grid, delay_rng, noise_rng, loss, updates,
    counts, log,
):  # pragma: no cover  # fmt: skip
    """Synchronous SGD until ``grid[-1]``; arguments and returns as `run_async`. One noise draw a step, scaled."""
    modes = len(start)
    x = start.copy()
    cursors = new_cursors(law, workers, delay_rng)
    finish = np.empty(workers)
    noisy = noise.max() > 0.0
    limit = _blow_up_limit(start, noise, rate, eigenvalues)
    steps = rows = point = 0
    began = ages = ages_squared = 0.0
    while True:
        for worker in range(workers):
            if staggered and steps == 0:
                finish[worker] = draw_residual(law, cursors, worker, delay_rng, mean_cycle)
            else:
                finish[worker] = began + draw(law, cursors, worker, delay_rng)
        end = finish.max()
        while point < len(grid) and grid[point] < end:
            loss[point] = _loss(x, eigenvalues)
            updates[point] = steps
            point += 1
            if loss[point - 1] > limit or not np.isfinite(loss[point - 1]):
                return steps * workers, 0, ages, ages_squared, 0, rows, point
        if len(log) > 0:
            last = workers - 1
            for place, worker in enumerate(np.argsort(finish, kind="mergesort")):
                if rows < len(log) and finish[worker] <= grid[-1]:
                    log[rows, 0] = finish[worker]
                    log[rows, 1] = worker
                    log[rows, 2] = STEP if place == last else HOLD
                    log[rows, 3] = 0
                    rows += 1
        if point == len(grid):
            return steps * workers, 0, ages, ages_squared, 0, rows, point
        for i in range(modes):
            gradient = eigenvalues[i] * x[i]
            if noisy:
                gradient += noise[i] / np.sqrt(workers) * noise_rng.standard_normal()
            x[i] -= rate * gradient
        steps += 1
        counts[0] += workers
        ages += workers * (end - began)
        ages_squared += workers * (end - began) ** 2
        began = end
