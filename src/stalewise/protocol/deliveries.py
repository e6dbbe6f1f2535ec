"""What workers delivered and no step has used yet."""

from collections import defaultdict, deque
from typing import Generic, TypeVar

from stalewise.protocol.instructions import Step

Payload = TypeVar("Payload")


class Deliveries(Generic[Payload]):
    """Payloads (gradients, say) by worker, in the order of their arrival: a worker may have several held."""

    def __init__(self) -> None:
        self._of: defaultdict[int, deque[Payload]] = defaultdict(deque)

    def add(self, worker: int, payload: Payload) -> None:
        """``worker``'s payload has arrived; the server's instructions say what becomes of it."""
        self._of[worker].append(payload)

    def newest(self, worker: int) -> Payload:
        """What ``worker`` delivered last, which stays."""
        return self._of[worker][-1]

    def last(self, worker: int) -> Payload:
        """Take out what ``worker`` delivered last: it was dropped, or not sent."""
        return self._of[worker].pop()

    def oldest(self, worker: int) -> Payload:
        """Take out what ``worker`` delivered first of what is left: it expired."""
        return self._of[worker].popleft()

    def used(self, step: Step) -> list[Payload]:
        """Take out the payloads of a step, in the order of its contributions."""
        return [self._of[one.worker].popleft() for one in step.gradients]

    def left(self) -> list[Payload]:
        """What no step has used."""
        return [payload for held in self._of.values() for payload in held]
