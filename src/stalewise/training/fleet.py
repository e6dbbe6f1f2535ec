"""Logical workers on Ray actors: hand out work, collect what is done, notice who died."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from stalewise.study import Study
from stalewise.training.actor import Finished, GradientActor

REST_AFTER_LOSS = 1.0  # a restarted actor needs this long before it takes work again [s]


@dataclass(frozen=True)
class Outcome:
    """What became of one gradient: ``finished`` is None if its process died; ``pulled`` is when it was handed out."""

    worker: int
    pulled: float
    drawn: float | None
    finished: Finished | None


class Fleet:
    """N logical workers on a few processes (one each where delays are real)."""

    def __init__(self, ray: Any, study: Study, *, real: bool) -> None:
        self._ray = ray
        workers = study.active_workers
        processes = workers if real else min(workers, os.cpu_count() or 1)
        remote = ray.remote(GradientActor).options(
            num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=max(2, -(-workers // processes) + 1)
        )
        self._actors = [remote.remote(study.workload.kind, study.batch_size) for _ in range(processes)]
        self._pending: dict[Any, tuple[int, float, float | None]] = {}
        self._index: Counter[int] = Counter()
        ray.get([actor.ready.remote() for actor in self._actors])

    def actor_of(self, worker: int) -> Any:
        """The Ray actor that hosts ``worker``."""
        return self._actors[worker % len(self._actors)]

    def dispatch(self, worker: int, parameters: np.ndarray, seed: int, drawn: float | None, now: float) -> None:
        """Hand ``worker`` the parameters; its gradient is due ``drawn`` seconds after ``now``, or when it is done."""
        batch = (seed, worker, self._index[worker])
        self._index[worker] += 1
        due = None if drawn is None else now + drawn
        reference = self.actor_of(worker).gradient.remote(parameters, batch, due)
        self._pending[reference] = (worker, now, drawn)

    def collect(self, timeout: float) -> list[Outcome]:
        """Everything that is done, waiting up to ``timeout`` [s] for the first; in the order of the finish stamps."""
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
        worker, pulled, drawn = self._pending.pop(reference)
        try:
            return Outcome(worker, pulled, drawn, Finished(*self._ray.get(reference)))
        except self._ray.exceptions.RayError:
            return Outcome(worker, pulled, drawn, None)
