"""Virtual time, plainly: the protocol's server, a heap of finish times, and the caller's arithmetic."""

import heapq
from collections.abc import Iterator

from stalewise.delays.compiled import DelayStream
from stalewise.protocol import AbstractServer, Instruction, Start


class VirtualCluster:
    """Workers whose only property is how long they take. Iterating gives ``(time, worker, instructions)`` for ever."""

    def __init__(self, server: AbstractServer, delays: DelayStream, *, residual_mean: float | None = None) -> None:
        self._server = server
        self._delays = delays
        self._heap: list[tuple[float, int, int]] = []
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
        return self._heap[0][0]

    def __iter__(self) -> Iterator[tuple[float, int, list[Instruction]]]:
        return self

    def __next__(self) -> tuple[float, int, list[Instruction]]:
        now, _, worker = heapq.heappop(self._heap)
        instructions = self._server.finished(worker)
        for instruction in instructions:
            if isinstance(instruction, Start):
                self._push(now + self._delays.next(instruction.worker), instruction.worker)
        return now, worker, instructions

    def _push(self, time: float, worker: int) -> None:
        heapq.heappush(self._heap, (time, self._order, worker))
        self._order += 1
