"""Virtual time, plainly: the protocol's server, a heap of events, and the caller's arithmetic."""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from stalewise.delays.compiled import DelayStream, encode
from stalewise.errors import InputError
from stalewise.protocol import Again, Cancel, Instruction, Server, Start, Train
from stalewise.study import Study

TRAINER = -1


class VirtualCluster:
    """Workers whose only property is how long they take. Iterating gives ``(time, worker, instructions)`` for ever.

    The worker is `TRAINER` where a trainer's step ends. Gradients that pass a shared link do so one at a time, first
    come first served; one that is cancelled there keeps its turn.

    Args:
        study: Workers, their laws, and the link or trainer.
        server: What decides.
        rng: Of the delays.
        norm: The norm of the gradient that a worker has computed, where the server has a trigger.
    """

    def __init__(
        self, study: Study, server: Server, rng: np.random.Generator, norm: Callable[[int], float] | None = None
    ) -> None:
        workers, service = study.workers(), study.cluster.service_law()
        self._server = server
        self._delays = DelayStream(workers.encoded(), workers.count, rng)
        self._service = DelayStream(encode(service.components(), service.mean), 1, rng)
        self._links = service.mean > 0 and not server.rules.trains
        self._link_free = 0.0
        self._norm = norm if server.rules.trigger > 0 else None
        self._norms: dict[int, float] = {}
        self._heap: list[tuple[float, int, int, bool]] = []
        self._current: dict[int, int] = {}
        self._order = 0
        self.first = self._server.begin()
        staggered = study.cluster.start == "staggered"
        for instruction in self.first:
            if isinstance(instruction, Start):
                worker = instruction.worker
                self._push(self._delays.residual(worker) if staggered else self._delays.next(worker), worker)

    @property
    def upcoming(self) -> tuple[float, int]:
        """When something happens next [s], and whose gradient is computed or arrives then, or `TRAINER`."""
        while True:
            now, order, worker, _ = self._heap[0]
            if self._current.get(worker) == order:
                return now, worker
            heapq.heappop(self._heap)  # cancelled

    @property
    def next_time(self) -> float:
        """When the next gradient arrives, or the trainer's step ends [s]."""
        while True:
            now, worker = self.upcoming
            through = self._heap[0][3]
            if through or worker == TRAINER or not self._computed(worker):
                return now
            heapq.heappop(self._heap)
            self._link_free = max(self._link_free, now) + self._service.next(0)
            self._push(self._link_free, worker, through=True)

    def _computed(self, worker: int) -> bool:
        """Ask for the norm of what ``worker`` has computed; whether it goes over a link before it arrives."""
        if self._norm and worker not in self._norms:
            self._norms[worker] = self._norm(worker)
        return self._links and not self._server.is_quiet(self._norms.get(worker))

    def __iter__(self) -> Iterator[tuple[float, int, list[Instruction]]]:
        return self

    def __next__(self) -> tuple[float, int, list[Instruction]]:
        now = self.next_time
        _, _, worker, _ = heapq.heappop(self._heap)
        if worker == TRAINER:
            instructions = self._server.trained()
        else:
            instructions = self._server.finished(worker, self._norms.pop(worker, None))
        for instruction in instructions:
            match instruction:
                case Cancel(worker=stopped):
                    del self._current[stopped]
                    self._norms.pop(stopped, None)
                case Start(worker=other) | Again(worker=other):
                    self._push(now + self._delays.next(other), other)
                case Train():
                    self._push(now + self._service.next(0), TRAINER)
        return now, worker, instructions

    def _push(self, time: float, worker: int, *, through: bool = False) -> None:
        heapq.heappush(self._heap, (time, self._order, worker, through))
        self._current[worker] = self._order
        self._order += 1


class RecordedCluster:
    """Gradients arrive when and from whom a record says; otherwise a `VirtualCluster`.

    Args:
        server: What decides, as always.
        arrivals: Times [s], not falling, and workers.
        norm: As there.

    Raises:
        InputError: The server's steps take time, whose ends no record of arrivals tells; later, where a worker that
            has nothing in flight is said to deliver.
    """

    def __init__(
        self, server: Server, arrivals: Sequence[tuple[float, int]], norm: Callable[[int], float] | None = None
    ) -> None:
        if server.rules.trains:
            raise InputError("a record of arrivals does not tell when a trainer's steps ended: it cannot be replayed")
        self._server, self._arrivals, self._seen = server, arrivals, 0
        self._norm = norm if server.rules.trigger > 0 else None
        self.first = server.begin()

    @property
    def upcoming(self) -> tuple[float, int]:
        """When the next gradient arrives [s], and whose; never, once all have."""
        return self._arrivals[self._seen] if self._seen < len(self._arrivals) else (math.inf, TRAINER)

    @property
    def next_time(self) -> float:
        """When that is [s]."""
        return self.upcoming[0]

    def __iter__(self) -> Iterator[tuple[float, int, list[Instruction]]]:
        return self

    def __next__(self) -> tuple[float, int, list[Instruction]]:
        now, worker = self.upcoming
        if worker == TRAINER:
            raise StopIteration
        if worker not in self._server.reading:
            raise InputError(
                f"arrival {self._seen + 1} is of worker {worker}, which has no gradient in flight then: is this the "
                "study's trace, and was no gradient lost?"
            )
        self._seen += 1
        return now, worker, self._server.finished(worker, self._norm(worker) if self._norm else None)
