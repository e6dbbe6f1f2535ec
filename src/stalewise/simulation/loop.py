"""Virtual time, plainly: the protocol's server, a heap of finish times, and the caller's arithmetic."""

import heapq
from collections.abc import Callable, Iterator

from stalewise.delays.compiled import DelayStream
from stalewise.protocol import Again, Cancel, Instruction, Server, Start


class VirtualCluster:
    """Workers whose only property is how long they take. Iterating gives ``(time, worker, instructions)`` for ever.

    ``norm`` tells the norm of the gradient that a worker is about to deliver, where the server has a trigger.
    """

    def __init__(
        self, server: Server, delays: DelayStream, *, residual_mean: float | None = None,
        norm: Callable[[int], float] | None = None,
    ) -> None:  # fmt: skip
        self._server = server
        self._delays = delays
        self._norm = norm if server.rules.trigger > 0 else None
        self._heap: list[tuple[float, int, int]] = []
        self._current: dict[int, int] = {}
        self._order = 0
        self.first = self._server.begin()
        for instruction in self.first:
            if isinstance(instruction, Start):
                worker = instruction.worker
                wait = delays.next(worker) if residual_mean is None else delays.residual(worker, residual_mean)
                self._push(wait, worker)

    @property
    def next_time(self) -> float:
        """When the next gradient arrives [s]."""
        while self._current.get(self._heap[0][2]) != self._heap[0][1]:  # cancelled
            heapq.heappop(self._heap)
        return self._heap[0][0]

    def __iter__(self) -> Iterator[tuple[float, int, list[Instruction]]]:
        return self

    def __next__(self) -> tuple[float, int, list[Instruction]]:
        now = self.next_time
        _, _, worker = heapq.heappop(self._heap)
        instructions = self._server.finished(worker, self._norm(worker) if self._norm else None)
        for instruction in instructions:
            match instruction:
                case Cancel(worker=stopped):
                    del self._current[stopped]
                case Start(worker=other) | Again(worker=other):
                    self._push(now + self._delays.next(other), other)
        return now, worker, instructions

    def _push(self, time: float, worker: int) -> None:
        heapq.heappush(self._heap, (time, self._order, worker))
        self._current[worker] = self._order
        self._order += 1
