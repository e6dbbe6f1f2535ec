"""What runs on a Ray worker: compute a gradient, and sleep out the rest of an injected delay."""

import asyncio
import time
from typing import NamedTuple

import numpy as np

from stalewise.study import Workload
from stalewise.workloads import load_network


class Finished(NamedTuple):
    """One gradient as it comes back."""

    gradient: np.ndarray
    began: float
    computed: float
    ended: float


class GradientActor:
    """Hosts one or more logical workers; several sleep side by side in one process."""

    def __init__(self, workload: Workload, batch_size: int, local_steps: int, learning_rate: float) -> None:
        import torch  # noqa: PLC0415  (heavy: on the worker only)

        torch.set_num_threads(1)
        self._network = load_network(workload)
        self._how = (batch_size, local_steps, learning_rate)
        self._network.gradient(self._network.start(0), (0, 0, 0), batch_size)

    async def ready(self) -> float:
        """The worker's clock, once it is warm [s]."""
        return time.monotonic()

    async def gradient(self, parameters: np.ndarray, batch: tuple[int, int, int], due: float | None) -> Finished:
        """What the worker sends of the batch (seed, worker, index), no earlier than ``due`` on the monotonic clock."""
        began = time.monotonic()
        gradient = self._network.local_gradient(parameters, batch, *self._how)
        computed = time.monotonic() - began
        rest = 0.0 if due is None else due - time.monotonic()
        if rest > 0:
            await asyncio.sleep(rest)
        return Finished(gradient, began, computed, time.monotonic())
