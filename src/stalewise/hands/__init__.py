"""Work that fans out: the same calls in this process, on all cores here, or on a Ray cluster; what is done is kept.

A hand is a process that does one call after the other. Calls of one name go to the same hand, which may still hold what
the last one left it; where it does not, because the hand was lost, the call does its work from the start.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from stalewise.hands.cluster import joined_ray, local_ray
from stalewise.hands.kept import Kept, identity
from stalewise.study import Study

RETRIES = 5  # of a call whose hand is lost

__all__ = ["Call", "Hands", "Kept", "borrowed", "identity", "joined_ray", "local_ray"]


class Call(NamedTuple):
    """One piece of work.

    Attributes:
        name: Calls of one name are served by one hand.
        function: Importable by name; returns plain values, such as JSON has.
        arguments: Of the function.
        key: What the answer depends on, as plain values; None for work that is not kept.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    key: Any = None


class Hands:
    """Calls done in this process.

    Args:
        folder: Where answers are kept and looked up; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._kept = Kept(folder)

    def each(self, calls: Sequence[Call], done: Callable[[int], None] | None = None) -> list[Any]:
        """Answers in the order of the calls.

        Args:
            calls: What to do.
            done: Called after each answer with how many there are.
        """
        answers = [self._kept.get(call.key) for call in calls]
        missing = [i for i, answer in enumerate(answers) if answer is None]
        ready = len(calls) - len(missing)
        for i, answer in self._answers([(i, calls[i]) for i in missing]):
            self._kept.put(calls[i].key, answer)
            answers[i] = answer
            ready += 1
            if done is not None:
                done(ready)
        return answers

    def _answers(self, calls: Sequence[tuple[int, Call]]) -> Iterator[tuple[int, Any]]:
        """Answers as they come."""
        for i, call in calls:
            yield i, call.function(*call.arguments)


class RayHands(Hands):
    """Calls done by Ray actors, one on each CPU. An actor that is lost is begun again, with what it had to do."""

    def __init__(self, ray: Any, folder: Path | None = None) -> None:
        super().__init__(folder)
        self._ray = ray
        actor = ray.remote(_Hand).options(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)
        self._hands = [actor.remote() for _ in range(max(int(ray.cluster_resources().get("CPU", 1)), 1))]
        self._whose: dict[str, int] = {}

    def _answers(self, calls: Sequence[tuple[int, Call]]) -> Iterator[tuple[int, Any]]:
        waiting = {self._hand(call).call.remote(call.function, call.arguments): i for i, call in calls}
        while waiting:
            ready, _ = self._ray.wait(list(waiting))
            for one in ready:
                yield waiting.pop(one), self._answer(one)

    def _hand(self, call: Call) -> Any:
        self._whose.setdefault(call.name, len(self._whose) % len(self._hands))
        return self._hands[self._whose[call.name]]

    def _answer(self, one: Any) -> Any:
        try:
            return self._ray.get(one)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None


class _Hand:
    """A process of its own, with one thread for PyTorch."""

    def __init__(self) -> None:
        if find_spec("torch") is not None:
            import torch  # noqa: PLC0415  (an extra)

            torch.set_num_threads(1)

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return function(*arguments)


@contextmanager
def borrowed(
    study: Study, *, address: str | None = None, cores: int | None = None, folder: Path | None = None
) -> Iterator[Hands]:
    """Hands for work on a study.

    Args:
        study: Whose own module goes with the job to other nodes.
        address: Of a Ray cluster to join; all of its CPUs are used.
        cores: Of this machine, without an address: 1 for this process; all of them unless given, if Ray is installed.
        folder: Where answers are kept and looked up.

    Raises:
        InputError: There is no cluster at the address, or it does not let us in.
    """
    many = (os.cpu_count() or 1) if cores is None else cores
    if address is None and (many == 1 or (cores is None and find_spec("ray") is None)):
        yield Hands(folder)
        return
    with joined_ray(address, study) if address is not None else local_ray(cores) as ray:
        yield RayHands(ray, folder)
