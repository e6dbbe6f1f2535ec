"""Logical workers on worker processes: hand out work, collect what is done, notice who died."""

import heapq
import os
import secrets
import statistics
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import NotConvergedError
from stalewise.protocol import parse_compression
from stalewise.study import Study
from stalewise.training.host import OK, QUIET, Answer, Host, Order
from stalewise.training.hosts import Hosts
from stalewise.training.lines import Arrival, Lines
from stalewise.training.memory import Memory, Slots

Vector = NDArray[np.float32]
SPARE = 5  # rows of memory besides one a worker: the version now, the next one, one whose loss is computed, two more
BY_VALUE = 1 << 20  # parameters of at most so many bytes go inside the Ray call
FIRST_WAIT = 600.0  # for the first process, which may have a large data set to read [s]
OTHERS_WAIT = 60.0  # for the others, once one is there [s]
PATIENCE = 60.0  # with a worker that does not answer, at least [s]
SLOW = 20.0  # and at least so many times what its gradients take


@dataclass
class Outcome:
    """A gradient that has arrived.

    Attributes:
        worker: Whose.
        pulled: When its ``parameters`` were handed out [s].
        began: When it was begun [s]: later, if it is another one from the same parameters.
        drawn: Delay it was to take [s]; None where delays are real.
        arrived: When it was there [s].
        state: What it is: `OK`, `QUIET` (it stayed at the worker), or why it is refused.
        gradient: Shape (size,), until the worker is at work again: `keep` makes it last. None unless OK.
        parameters: Those it was computed at, as long.
        norm: Of the gradient.
        seconds: It took to compute [s].
    """

    worker: int
    pulled: float
    began: float
    drawn: float | None
    arrived: float
    state: int
    gradient: Vector | None
    parameters: Vector
    norm: float
    seconds: float

    @property
    def overrun(self) -> float:
        """How much later it was there than drawn [s]."""
        return self.arrived - self.began - (self.drawn or 0.0)

    def keep(self, *, parameters: bool) -> None:
        """Have copies, for the worker goes on; of the ``parameters`` too, where somebody will want them."""
        if self.gradient is not None:
            self.gradient = self.gradient.copy()
        if parameters:
            self.parameters = self.parameters.copy()


class Lost(NamedTuple):
    """A worker whose process died with its gradient, begun at ``began`` [s]."""

    worker: int
    began: float


class Joined(NamedTuple):
    """A worker whose process is there (again)."""

    worker: int


Event = Outcome | Lost | Joined


@dataclass
class _Pending:
    worker: int
    host: int
    pulled: float
    began: float
    drawn: float | None
    cancelled: bool = False


class Fleet:
    """N logical workers on processes (one each where delays are real).

    The parameters' versions lie in rows of shared memory; a worker holds the row it read until it reads another.

    Args:
        ray: The module, initialised.
        study: What is trained.
        size: Parameters.
        seed: Of the batches.
        real: Whether gradients take as long as they take.
        joined: Whether Ray is a cluster that was joined.
        patience: A worker that does not answer for so long is killed [s]; None: 60 s, or 20 times the median gradient.
        index: How many batches each worker has drawn so far, where a run goes on.
        host: What runs in the processes.

    Attributes:
        hosts: The processes.
        index: How many batches each worker has drawn.
        deaths: Processes that died.
        bytes: What gradients on their way took, compressed.
    """

    def __init__(
        self, ray: Any, study: Study, size: int, seed: int, *, real: bool, joined: bool = False,
        patience: float | None = None, index: dict[int, int] | None = None, host: type[Host] = Host,
    ) -> None:  # fmt: skip
        workers = study.active_workers
        self._ray, self._seed, self._steps = ray, seed, study.schedule.local_steps
        self._memory, self._slots = Memory(size, workers + SPARE, workers), Slots(workers + SPARE)
        self._run = secrets.randbits(62)
        self._lines = Lines(self._run, self._memory)
        try:
            self.hosts = Hosts(ray, study, self._run, self._lines, real=real, joined=joined, host=host)
        except BaseException:
            self._lines.close()
            raise
        self._compression = parse_compression(study.schedule.compression)
        self._unpack = _unpacker(study, size)
        self._patience = patience
        mode = os.environ.get("RAY_AUTH_MODE", "disabled")
        self._hint = f"; does the cluster have RAY_AUTH_MODE={mode}, as is set here?" if joined else ""
        self._tickets = 0
        self._pending: dict[int, _Pending] = {}
        self._ticket_of: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._cancelled: dict[int, int] = {}
        self._due: list[tuple[float, int, Outcome]] = []
        self._events: deque[Event] = deque()
        self._absent = set(range(workers))
        self._read: dict[int, tuple[int, float]] = {}
        self._sent: dict[int, Any] = {}
        self._seconds: deque[float] = deque(maxlen=1000)
        self._looked = self._latest = 0.0
        self.index: Counter[int] = Counter(index or {})
        self.deaths = 0
        self.bytes = 0

    # Versions of the parameters

    def fresh(self) -> tuple[int, Vector]:
        """A row for the next version, and its memory."""
        row = self._slots.take()
        return row, self._memory.versions[row]

    def hold(self, row: int) -> None:
        """Have a version last until `release`."""
        self._slots.hold(row)

    def release(self, row: int) -> None:
        """One reader less of a version."""
        if self._slots.release(row):
            self._sent.pop(row, None)

    # Workers

    @property
    def present(self) -> int:
        """Workers whose processes are there."""
        return self._memory.shape[2] - len(self._absent)

    @property
    def spare_processors(self) -> int:
        """Processors of this node that have no worker process, 1 at least."""
        return max(1, (os.cpu_count() or 1) - sum(seat.up and not seat.remote for seat in self.hosts.seats))

    def gather(self) -> set[int]:
        """Wait until processes are there: 600 s for the first, 60 s for the others; workers that are.

        Raises:
            NotConvergedError: None came, or one cannot run.
        """
        began = first = time.monotonic()
        while True:
            for arrival in self._lines.arrivals(0.02):
                self._arrived(arrival)
            self._look()
            now = time.monotonic()
            if not self.hosts.up():
                first = now
                if now - began > FIRST_WAIT:
                    raise NotConvergedError(f"no worker process was there after {FIRST_WAIT:.0f} s{self._hint}")
            elif not self._absent or now - first > OTHERS_WAIT:
                self._events.clear()
                return set(range(self._memory.shape[2])) - self._absent

    def dispatch(self, worker: int, row: int, drawn: float | None) -> None:
        """Hand ``worker`` a version; its gradient is due ``drawn`` seconds from now, or when it is done."""
        self._slots.hold(row)
        if worker in self._read:
            self.release(self._read[worker][0])
        self._read[worker] = (row, time.monotonic())
        self.again(worker, drawn)

    def again(self, worker: int, drawn: float | None) -> None:
        """Have ``worker`` compute another gradient from the parameters it has."""
        row, pulled = self._read[worker]
        host, now = self.hosts.of[worker], time.monotonic()
        seat = self.hosts.seats[host]
        self._tickets += 1
        cancelled = self._cancelled.pop(worker, 0)
        order = Order(self._run, self._tickets, worker, row, self._seed, self.index[worker], cancelled)
        self._last[worker] = order.ticket
        self.index[worker] += self._steps
        self._pending[order.ticket] = _Pending(worker, host, pulled, now, drawn)
        self._ticket_of[worker] = order.ticket
        seat.tickets[order.ticket] = now
        if seat.remote:
            self._lines.call(host, seat.actor.gradient.remote(self._parameters(row), order))
        elif not (seat.up and self._lines.send(host, order)):
            self._lose(order.ticket)

    def _parameters(self, row: int) -> Any:
        """What a Ray call takes for a version: it is published once."""
        if row not in self._sent:
            values = self._memory.versions[row].copy()
            self._sent[row] = values if values.nbytes <= BY_VALUE else self._ray.put(values)
        return self._sent[row]

    def cancel(self, worker: int) -> float:
        """Forget ``worker``'s gradient, wherever it is; says when it was begun [s]."""
        self.stopped(worker)
        for place, (_, _, outcome) in enumerate(self._due):
            if outcome.worker == worker:
                self._due.pop(place)
                heapq.heapify(self._due)
                return outcome.began
        for event in self._events:
            if isinstance(event, Outcome | Lost) and event.worker == worker:
                self._events.remove(event)
                return event.began
        pending = self._pending[self._ticket_of.pop(worker)]
        pending.cancelled = True
        return pending.began

    def stopped(self, worker: int) -> None:
        """``worker``'s last gradient came to nothing, wherever that was: it hears of it with its next order."""
        self._cancelled[worker] = self._last[worker]

    def in_flight(self) -> list[tuple[int, float]]:
        """Workers whose gradients were not collected, and when they were begun [s]."""
        waiting = [event for event in self._events if isinstance(event, Outcome | Lost)]
        outcomes = [outcome for *_, outcome in self._due] + waiting
        pending = [one for one in self._pending.values() if not one.cancelled]
        return [(one.worker, one.began) for one in (*outcomes, *pending)]

    def collect(self, timeout: float) -> Event | None:
        """What happens next; None if nothing does within ``timeout`` [s]."""
        now = time.monotonic()
        self._release_due(now)
        if not self._events:
            until = min(timeout, max(self._due[0][0] - now, 0.0) if self._due else timeout)
            for arrival in self._lines.arrivals(until):
                self._arrived(arrival)
            self._release_due(time.monotonic())
        if now - self._looked > 1.0 or self._absent:
            self._looked = now
            self._look()
        return self._events.popleft() if self._events else None

    def _release_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, _, outcome = heapq.heappop(self._due)
            outcome.arrived = self._stamp(now)
            self._events.append(outcome)

    def _stamp(self, now: float) -> float:
        """``now``, or a little later: no two arrivals are at once, so that their times tell their order."""
        self._latest = max(now, self._latest + 1e-8)
        return self._latest

    def _arrived(self, arrival: Arrival) -> None:
        if arrival.here:
            self.hosts.arrived(arrival.host)
            self._join(arrival.host)
        elif arrival.answer is None:
            self._died(arrival.host, arrival.error)
        else:
            self._answered(arrival.host, arrival.answer, arrival.payload)

    def _answered(self, host: int, answer: Answer, payload: Any) -> None:
        """An order is done; one that this run never gave, or that was given up, is let go."""
        pending = self._pending.pop(answer.ticket, None) if answer.run == self._run else None
        if pending is None:
            return
        seat = self.hosts.seats[host]
        seat.tickets.pop(answer.ticket, None)
        seat.deaths = 0
        self._seconds.append(answer.seconds)
        if pending.cancelled:
            return
        self._ticket_of.pop(pending.worker, None)
        self.bytes += self._compression.bytes_of(self._memory.shape[0]) if answer.state == OK else 0
        gradient = None
        if answer.state == OK:
            gradient = self._memory.gradients[pending.worker] if payload is None else self._unpack(payload)
        now, due = self._stamp(time.monotonic()), pending.began + (pending.drawn or 0.0)
        outcome = Outcome(
            pending.worker, pending.pulled, pending.began, pending.drawn, now, answer.state, gradient,
            self._memory.versions[self._read[pending.worker][0]], answer.norm, answer.seconds,
        )  # fmt: skip
        if pending.drawn is not None and due > now:
            heapq.heappush(self._due, (due, answer.ticket, outcome))
        else:
            self._events.append(outcome)

    def _look(self) -> None:
        for host in self.hosts.look():
            self._join(host)
        patience = self._patience
        if patience is None:
            patience = max(PATIENCE, SLOW * statistics.median(self._seconds)) if self._seconds else 10.0 * PATIENCE
        for host in self.hosts.hung(patience):
            self.hosts.kill(host)
            self._lines.hang_up(host)
            self._died(host)

    def _join(self, host: int) -> None:
        back = self._absent.intersection(self.hosts.seats[host].place.workers)
        self._absent -= back
        self._events.extend(Joined(worker) for worker in sorted(back))

    def _died(self, host: int, error: Exception | None = None) -> None:
        seat = self.hosts.seats[host]
        self.deaths += seat.up
        for ticket in self.hosts.died(host, error):
            self._lose(ticket)

    def _lose(self, ticket: int) -> None:
        pending = self._pending.pop(ticket)
        self.hosts.seats[pending.host].tickets.pop(ticket, None)
        self._absent.add(pending.worker)
        if not pending.cancelled:
            self._ticket_of.pop(pending.worker, None)
            self._events.append(Lost(pending.worker, pending.began))

    def close(self) -> None:
        """End all processes."""
        self._lines.close()
        self.hosts.close()
        self._memory.close()


def _unpacker(study: Study, size: int) -> Any:
    from stalewise.workloads.compressor import Compressor  # noqa: PLC0415  (PyTorch is an extra)

    return Compressor(parse_compression(study.schedule.compression), size).unpack


__all__ = ["OK", "QUIET", "Event", "Fleet", "Joined", "Lost", "Outcome"]
