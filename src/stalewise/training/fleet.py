"""Logical workers on Ray actors: hand out work, collect what is done, notice who died."""

import os
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from stalewise.study import Study
from stalewise.training.actor import Finished, GradientActor

REST_AFTER_LOSS = 1.0  # a restarted actor needs this long before it takes work again [s]


@dataclass(frozen=True)
class Outcome:
    """What became of one gradient: ``finished`` is None if its process died.

    ``pulled`` is when its ``parameters`` were handed out, ``began`` when it was begun: later if it is another one from
    the same parameters.
    """

    worker: int
    pulled: float
    began: float
    drawn: float | None
    parameters: np.ndarray
    finished: Finished | None


class _Pending(NamedTuple):
    worker: int
    pulled: float
    began: float
    drawn: float | None


class Fleet:
    """N logical workers on a few processes (one each where delays are real)."""

    def __init__(self, ray: Any, study: Study, *, real: bool) -> None:
        self._ray = ray
        workers = study.active_workers
        processes = workers if real else min(workers, os.cpu_count() or 1)
        remote = ray.remote(GradientActor).options(
            num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=max(2, -(-workers // processes) + 1)
        )
        self._steps = study.schedule.local_steps
        how = (study.workload, study.batch_size, self._steps, study.learning_rate)
        self._actors = [remote.remote(*how) for _ in range(processes)]
        self._pending: dict[Any, _Pending] = {}
        self._doing: dict[int, Any] = {}
        self._done: deque[Outcome] = deque()
        self._read: dict[int, tuple[np.ndarray, float]] = {}
        self._index: Counter[int] = Counter()
        ray.get([actor.ready.remote() for actor in self._actors])

    def actor_of(self, worker: int) -> Any:
        """The Ray actor that hosts ``worker``."""
        return self._actors[worker % len(self._actors)]

    def dispatch(self, worker: int, parameters: np.ndarray, seed: int, drawn: float | None, now: float) -> None:
        """Hand ``worker`` the parameters; its gradient is due ``drawn`` seconds after ``now``, or when it is done."""
        self._read[worker] = (parameters, now)
        self.again(worker, seed, drawn, now)

    def again(self, worker: int, seed: int, drawn: float | None, now: float) -> None:
        """Have ``worker`` compute another gradient from the parameters it has."""
        parameters, pulled = self._read[worker]
        batch = (seed, worker, self._index[worker])
        self._index[worker] += self._steps
        due = None if drawn is None else now + drawn
        reference = self.actor_of(worker).gradient.remote(parameters, batch, due)
        self._pending[reference] = _Pending(worker, pulled, now, drawn)
        self._doing[worker] = reference

    def cancel(self, worker: int) -> float:
        """Stop ``worker``'s gradient, or forget it if it is there already; says when it was begun [s]."""
        for outcome in self._done:
            if outcome.worker == worker:
                self._done.remove(outcome)
                return outcome.began
        reference = self._doing[worker]
        self._ray.cancel(reference)
        return self._pending.pop(reference).began

    def in_flight(self) -> list[tuple[int, float]]:
        """Workers whose gradients were not collected, and when they were begun [s]."""
        return [(one.worker, one.began) for one in (*self._done, *self._pending.values())]

    def collect(self, timeout: float) -> Outcome | None:
        """What is done next, in the order of the finish stamps; None if nothing is within ``timeout`` [s]."""
        if not self._done:
            self._done.extend(self._finished(timeout))
        return self._done.popleft() if self._done else None

    def _finished(self, timeout: float) -> list[Outcome]:
        if not self._pending:
            time.sleep(min(timeout, 0.05))
            return []
        ready, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=timeout)
        if ready:
            more, _ = self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
            ready = more or ready
        outcomes = [self._outcome(reference) for reference in ready]
        return sorted(outcomes, key=lambda o: o.finished.ended if o.finished else float("inf"))

    def _outcome(self, reference: Any) -> Outcome:
        worker, pulled, began, drawn = self._pending.pop(reference)
        parameters, _ = self._read[worker]
        try:
            return Outcome(worker, pulled, began, drawn, parameters, Finished(*self._ray.get(reference)))
        except self._ray.exceptions.RayError:
            return Outcome(worker, pulled, began, drawn, parameters, None)
