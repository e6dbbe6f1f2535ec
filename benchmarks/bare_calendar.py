"""A calendar queue with no policy around it: the yardstick of the event kernel. Exponential delays of mean 1 s."""

import numpy as np

from stalewise.jit import compiled

EVENTS_A_DAY, CYCLES = 2.0, 4.0


@compiled
def _loop(days, following, due, read, counts, events, per_second, rng):
    """Days are lists; the least of today's list is taken, found by a scan. Staleness is counted."""
    mask, workers = len(days) - 1, len(due)
    for worker in range(workers):
        due[worker] = rng.standard_exponential()
        day = np.int64(due[worker] * per_second) & mask
        following[worker] = days[day]
        days[day] = worker
    today, version, now = np.int64(0), 0, 0.0
    while version < events:
        best, before_best, before, worker = -1, -1, -1, days[today & mask]
        while worker >= 0:
            if np.int64(due[worker] * per_second) == today and (best < 0 or due[worker] < due[best]):
                best, before_best = worker, before
            before, worker = worker, following[worker]
        if best < 0:
            today += 1
            continue
        if before_best < 0:
            days[today & mask] = following[best]
        else:
            following[before_best] = following[best]
        now = due[best]
        counts[min(version - read[best], len(counts) - 1)] += 1
        version += 1
        read[best] = version
        due[best] = now + rng.standard_exponential()
        day = np.int64(due[best] * per_second) & mask
        following[best] = days[day]
        days[day] = best
    return now


def bare(workers: int, events: int, rng: np.random.Generator, length: int) -> np.ndarray:
    """Counts of each staleness over that many gradients."""
    per_second = workers / EVENTS_A_DAY
    days = np.full(1 << int(np.ceil(np.log2(max(CYCLES * per_second, 2.0)))), -1, np.int32)
    counts = np.zeros(length, np.int64)
    room = np.zeros(workers, np.int32), np.zeros(workers), np.zeros(workers, np.int64)
    _loop(days, *room, counts, events, per_second, rng)
    return counts
