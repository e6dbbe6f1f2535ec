"""A calendar queue for compiled code: the next gradient to arrive, at a cost that does not grow with the workers.

Time is cut into days. Gradients due on one of the next days hang in that day's list, a ring of lists through the
workers' own records; those due today wait in a small heap, those due beyond the ring in a heap of their own. Order is
exactly (due, order), whatever the days.

Reference: Brown, "Calendar queues", CACM 31 (1988) 1220. Heaps for today and for the far future are ours: with them
equal delays (everything due at once) and heavy tails (a straggler years ahead) cost a logarithm and not a scan.

Compiled functions cannot allocate (`stalewise.jit`); `new_calendar` does.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.jit import inlined

WORKER = np.dtype(
    [
        ("due", "f8"),  # when its gradient arrives [s]
        ("read_at", "f8"),  # when its parameters were read [s]
        ("order", "i8"),  # number of its start; ties in time go by it
        ("version", "i8"),  # updates made when its parameters were read
        ("next", "i4"),  # in the same day, -1 for the last; -2 if it stands in a heap
        ("stage", "i4"),  # 0 at work, 1 on the shared link
    ],
    align=True,
)
_EVENT = np.dtype([("due", "f8"), ("order", "i8"), ("worker", "i8")], align=True)
_TODAY, _RING, _NEAR, _FAR = 0, 1, 2, 3
_LAST_DAY = 4e18
_NEVER = 1 << 62
_IN_HEAP = -2
_EVENTS_A_DAY = 2.0
_CYCLES = 4.0  # that the ring reaches ahead


class Calendar(NamedTuple):
    """State of the queue.

    ``days`` heads of lists, a power of two; ``near`` and ``far`` heaps, twice as long as there are workers, since
    they may hold events that no longer count; ``state`` today, and how many hang in the ring and stand in the heaps.
    ``previous``, of each worker in its day, -1 for the first, is kept only for who may be cancelled.
    """

    days: NDArray[np.int32]
    previous: NDArray[np.int32]
    near: NDArray
    far: NDArray
    state: NDArray[np.int64]
    per_second: float


def new_calendar(workers: int, mean_cycle: float, cancellable: bool) -> Calendar:
    """An empty calendar for workers of this mean cycle [s]; another cycle only makes it slower."""
    per_second = workers / (_EVENTS_A_DAY * mean_cycle)
    days = 1 << int(np.ceil(np.log2(max(_CYCLES * per_second * mean_cycle, 2.0))))
    near, far = np.zeros(2 * workers + 2, _EVENT), np.zeros(2 * workers + 2, _EVENT)
    state = np.zeros(4, np.int64)
    state[_TODAY] = -1
    previous = np.empty(workers if cancellable else 0, np.int32)
    return Calendar(np.full(days, -1, np.int32), previous, near, far, state, per_second)


@inlined
def _insert(heap, size, due, order, worker):  # pragma: no cover
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        above = heap[parent]
        if above.due < due or (above.due == due and above.order < order):
            break
        heap[at].due, heap[at].order, heap[at].worker = above.due, above.order, above.worker
        at = parent
    heap[at].due, heap[at].order, heap[at].worker = due, order, worker


@inlined
def _sink(heap, size, at, due, order, worker):  # pragma: no cover
    """Put an event at a place of a heap, or below."""
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        first = heap[child]
        if child + 1 < size:
            second = heap[child + 1]
            if second.due < first.due or (second.due == first.due and second.order < first.order):
                child += 1
                first = second
        if due < first.due or (due == first.due and order < first.order):
            break
        heap[at].due, heap[at].order, heap[at].worker = first.due, first.order, first.worker
        at = child
    heap[at].due, heap[at].order, heap[at].worker = due, order, worker


@inlined
def _drop_first(heap, size):  # pragma: no cover
    last = heap[size - 1]
    _sink(heap, size - 1, np.int64(0), last.due, last.order, last.worker)


@inlined
def _without_cancelled(heap, size, fleet):  # pragma: no cover
    """Throw out events that no longer count; the heap's new size."""
    kept = 0
    for at in range(size):
        event = heap[at]
        if fleet[event.worker].order == event.order:
            heap[kept].due, heap[kept].order, heap[kept].worker = event.due, event.order, event.worker
            kept += 1
    for at in range(kept // 2 - 1, -1, -1):
        _sink(heap, kept, at, heap[at].due, heap[at].order, heap[at].worker)
    return kept


@inlined
def _day(calendar, due):  # pragma: no cover
    return np.int64(min(due * calendar.per_second, _LAST_DAY))


@inlined
def push(calendar, fleet, worker, cancellable):  # pragma: no cover
    """Enter ``worker``'s gradient at its ``due`` and ``order``; only if ``cancellable`` may `cancel` take it out.

    None, of a loop that never cancels, leaves out what that would take to compile; so in `first`.
    """
    state = calendar.state
    due, order = fleet[worker].due, fleet[worker].order
    day = _day(calendar, due)
    if day <= state[_TODAY]:
        if cancellable is not None and state[_NEAR] == len(calendar.near):
            state[_NEAR] = _without_cancelled(calendar.near, state[_NEAR], fleet)
        _insert(calendar.near, state[_NEAR], due, order, worker)
        if cancellable is not None and cancellable:
            fleet[worker].next = _IN_HEAP
        state[_NEAR] += 1
    elif day < state[_TODAY] + len(calendar.days):
        place = day & (len(calendar.days) - 1)
        head = calendar.days[place]
        fleet[worker].next = head
        if cancellable is not None and cancellable:
            calendar.previous[worker] = -1
            if head >= 0:
                calendar.previous[head] = worker
        calendar.days[place] = worker
        state[_RING] += 1
    else:
        if cancellable is not None and state[_FAR] == len(calendar.far):
            state[_FAR] = _without_cancelled(calendar.far, state[_FAR], fleet)
        _insert(calendar.far, state[_FAR], due, order, worker)
        if cancellable is not None and cancellable:
            fleet[worker].next = _IN_HEAP
        state[_FAR] += 1


@inlined
def _open_next_day(calendar, fleet, cancellable):  # pragma: no cover
    """Go to the next day that has events, and set them out."""
    days, near, far, state = calendar.days, calendar.near, calendar.far, calendar.state
    mask = len(days) - 1
    far_day = _day(calendar, far[0].due) if state[_FAR] > 0 else _NEVER
    if state[_RING] == 0:
        today = far_day
    else:
        today = state[_TODAY] + 1
        while days[today & mask] < 0 and today < far_day:
            today += 1
    state[_TODAY] = today
    size = state[_NEAR]
    worker = days[today & mask]
    days[today & mask] = -1
    while worker >= 0:
        _insert(near, size, fleet[worker].due, fleet[worker].order, worker)
        size += 1
        state[_RING] -= 1
        following = fleet[worker].next
        if cancellable is not None and cancellable:
            fleet[worker].next = _IN_HEAP
        worker = following
    while far_day <= today:
        first = far[0]
        if fleet[first.worker].order == first.order:
            _insert(near, size, first.due, first.order, first.worker)
            size += 1
        _drop_first(far, state[_FAR])
        state[_FAR] -= 1
        far_day = _day(calendar, far[0].due) if state[_FAR] > 0 else _NEVER
    state[_NEAR] = size


@inlined
def first(calendar, fleet, cancellable):  # pragma: no cover
    """Worker whose gradient arrives next; -1 if none is in flight."""
    state, near = calendar.state, calendar.near
    while True:
        if state[_NEAR] == 0:
            if state[_RING] + state[_FAR] == 0:
                return -1
            _open_next_day(calendar, fleet, cancellable)
        elif cancellable is None or not cancellable or fleet[near[0].worker].order == near[0].order:
            return near[0].worker
        else:
            _drop_first(near, state[_NEAR])
            state[_NEAR] -= 1


@inlined
def pop(calendar):  # pragma: no cover
    """Take out what `first` found."""
    _drop_first(calendar.near, calendar.state[_NEAR])
    calendar.state[_NEAR] -= 1


@inlined
def cancel(calendar, fleet, worker):  # pragma: no cover
    """Take ``worker``'s gradient out before it arrives; its order becomes -1."""
    record = fleet[worker]
    if record.next != _IN_HEAP:
        previous = calendar.previous[worker]
        if record.next >= 0:
            calendar.previous[record.next] = previous
        if previous >= 0:
            fleet[previous].next = record.next
        else:
            calendar.days[_day(calendar, record.due) & (len(calendar.days) - 1)] = record.next
        calendar.state[_RING] -= 1
    record.order = -1


@inlined
def clear(calendar):  # pragma: no cover
    """Take all out."""
    for day in range(len(calendar.days)):
        calendar.days[day] = -1
    calendar.state[_RING] = calendar.state[_NEAR] = calendar.state[_FAR] = 0
