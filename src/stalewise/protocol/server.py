"""The server as a pure state machine: event in, instructions out. No clock, no tensors, no network.

Virtual time (`stalewise.simulation`) and real time (`stalewise.training`) drive this same object; the compiled
event kernel is tested to give the same instructions, event for event.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from stalewise import checks
from stalewise.errors import InputError
from stalewise.protocol.instructions import Contribution, Drop, Hold, Instruction, Start, Step


@dataclass
class Tally:
    """What became of every gradient begun. ``computed`` is the sum of the others."""

    applied: int = 0
    dropped: int = 0
    cancelled: int = 0
    unsent: int = 0
    lost: int = 0
    in_flight: int = 0

    @property
    def computed(self) -> int:
        """Gradients begun."""
        return self.applied + self.dropped + self.cancelled + self.unsent + self.lost + self.in_flight


class AbstractServer(ABC):
    """A policy and its state.

    Attributes:
        version: Steps taken so far.
        reading: For each worker at work, the version it read.
        tally: What became of every gradient.
    """

    def __init__(self, workers: int) -> None:
        self.workers = checks.at_least("workers", workers, 1)
        self.version = 0
        self.reading: dict[int, int] = {}
        self.tally = Tally()

    def begin(self) -> list[Instruction]:
        """Set every worker to work on the first parameters."""
        return [self._start(worker) for worker in range(self.workers)]

    def finished(self, worker: int) -> list[Instruction]:
        """``worker``'s gradient has arrived."""
        return self._arrived(worker, self._take(worker))

    def lost(self, worker: int) -> list[Instruction]:
        """``worker`` died with its gradient; it may come back with `joined`."""
        self._take(worker)
        self.tally.in_flight -= 1
        self.tally.lost += 1
        return self._departed(worker)

    def joined(self, worker: int) -> list[Instruction]:
        """A worker that was lost is back and wants work."""
        if worker in self.reading:
            raise InputError(f"worker {worker} is at work already; only a lost worker can join")
        return [self._start(worker)]

    @abstractmethod
    def _arrived(self, worker: int, version: int) -> list[Instruction]:
        """The policy: what to do with a gradient computed from ``version``."""

    def _departed(self, worker: int) -> list[Instruction]:  # noqa: ARG002
        """What a loss changes for the others; nothing by default."""
        return []

    def _take(self, worker: int) -> int:
        if worker not in self.reading:
            raise InputError(f"worker {worker} has no gradient in flight")
        return self.reading.pop(worker)

    def _start(self, worker: int) -> Start:
        self.reading[worker] = self.version
        self.tally.in_flight += 1
        return Start(worker, self.version)

    def _step(self, contributions: tuple[Contribution, ...]) -> Step:
        self.version += 1
        self.tally.in_flight -= len(contributions)
        self.tally.applied += len(contributions)
        return Step(self.version, contributions)


class AsyncServer(AbstractServer):
    """Fully asynchronous SGD: every gradient is a step, and its worker reads the result.

    With ``max_staleness``, a gradient whose parameters are more than that many versions old is dropped and its
    worker reads afresh (``on_stale="drop"``; the rule of TensorFlow's DropStaleGradientOptimizer: apply if and only
    if staleness <= threshold).
    """

    def __init__(self, workers: int, max_staleness: int | None = None) -> None:
        super().__init__(workers)
        self.max_staleness = None if max_staleness is None else checks.at_least("max_staleness", max_staleness, 0)

    def _arrived(self, worker: int, version: int) -> list[Instruction]:
        staleness = self.version - version
        if self.max_staleness is not None and staleness > self.max_staleness:
            self.tally.in_flight -= 1
            self.tally.dropped += 1
            return [Drop(worker, staleness), self._start(worker)]
        return [self._step((Contribution(worker, staleness),)), self._start(worker)]


class SyncServer(AbstractServer):
    """Synchronous SGD: wait for every worker, average, take one step, hand everybody the result."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._held: set[int] = set()

    def joined(self, worker: int) -> list[Instruction]:
        """A worker that was lost is back and wants work."""
        if worker in self._held:
            raise InputError(f"worker {worker} waits for the others already; only a lost worker can join")
        return super().joined(worker)

    def _arrived(self, worker: int, version: int) -> list[Instruction]:  # noqa: ARG002
        self._held.add(worker)
        return self._close_round() if not self.reading else [Hold(worker)]

    def _departed(self, worker: int) -> list[Instruction]:  # noqa: ARG002
        return self._close_round() if self._held and not self.reading else []

    def _close_round(self) -> list[Instruction]:
        present = sorted(self._held)
        self._held.clear()
        step = self._step(tuple(Contribution(worker, 0) for worker in present))
        return [step, *(self._start(worker) for worker in present)]
