"""Networks in virtual time: real gradients, plain loop, one gradient computed when its parameters are read."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stalewise.protocol import (
    Again,
    Cancel,
    Deliveries,
    Drop,
    Expire,
    Instruction,
    Start,
    Step,
    Unsent,
    parse_compression,
)
from stalewise.simulation.loop import TRAINER, VirtualCluster
from stalewise.study import Study

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

BLOW_UP = 1e3


class Computed(NamedTuple):
    """A gradient, the parameters behind it, and when they were read [s]."""

    gradient: np.ndarray
    parameters: np.ndarray
    read_at: float


class NetworkRun:
    """One repetition of a network study in virtual time, advanced as far as the caller asks.

    ``seed`` names its batches and delays, ``start`` its first parameters.

    Attributes:
        time: Times of record [s], every half mean cycle.
        loss: Training loss on all of the data at those times; infinite once it blew up.
        updates: Steps taken by then.
        server: The protocol's server, with its tally.
        counts: How often each staleness was applied.
    """

    def __init__(self, study: Study, network: "Network", seed: int, start: np.ndarray) -> None:
        from stalewise.workloads.compressor import Compressor  # noqa: PLC0415  (PyTorch is an extra)
        from stalewise.workloads.optimizer import Optimizer  # noqa: PLC0415

        delay_rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[0])
        self.server = study.server()
        self._study, self._network, self._seed = study, network, seed
        self._optimizer = Optimizer(study.schedule, network.size)
        self._compressor = Compressor(parse_compression(study.schedule.compression), network.size)
        self._parameters = start
        self._index: Counter[int] = Counter()
        self._computing: dict[int, Computed] = {}
        self._delivered: Deliveries[Computed] = Deliveries()
        self.counts: Counter[int] = Counter()
        self.age_moments = np.zeros(3)
        self._cluster = VirtualCluster(study, self.server, delay_rng, self._norm)
        for instruction in self._cluster.first:
            self._obey(instruction, 0.0)
        self._interval = 0.5 * study.workers().mean_cycle
        self.time, self.loss, self.updates = [0.0], [network.loss(self._parameters)], [0]
        self.blew_up = False

    @property
    def samples(self) -> int:
        """Training samples spent on gradients so far."""
        return sum(self._index.values()) * self._study.batch_size

    @property
    def parameters(self) -> np.ndarray:
        """Parameters as they are now, shape (size,)."""
        return self._parameters

    def advance(self, until: float) -> None:
        """Run on until the records reach ``until`` [s] or the loss blows up."""
        while not self.blew_up and self.time[-1] < until:
            due = len(self.time) * self._interval
            while self._cluster.next_time <= due:
                now, worker, instructions = next(self._cluster)
                if worker != TRAINER:
                    self._delivered.add(worker, self._computing[worker])
                for instruction in instructions:
                    self._obey(instruction, now)
            loss = self._network.loss(self._parameters)
            self.blew_up = not (np.isfinite(loss) and loss < BLOW_UP * self.loss[0])
            self.time.append(due)
            self.loss.append(np.inf if self.blew_up else loss)
            self.updates.append(self.server.version)

    def _obey(self, instruction: Instruction, now: float) -> None:
        match instruction:
            case Start(worker=worker):
                self._compute(worker, self._parameters, now)
            case Again(worker=worker):
                self._compute(worker, self._computing[worker].parameters, self._computing[worker].read_at)
            case Cancel(worker=worker):
                del self._computing[worker]
            case Drop(worker=worker) | Unsent(worker=worker):
                self._delivered.last(worker)
            case Expire(worker=worker):
                self._delivered.oldest(worker)
            case Step() as step:
                self._step(step, now)

    def _compute(self, worker: int, parameters: np.ndarray, read_at: float) -> None:
        batch = (self._seed, worker, self._index[worker])
        study, steps = self._study, self._study.schedule.local_steps
        gradient = self._network.local_gradient(parameters, batch, study.batch_size, steps, study.learning_rate)
        gradient = self._compressor.sent(worker, gradient)
        self._computing[worker] = Computed(gradient, parameters, read_at)
        self._index[worker] += steps

    def _norm(self, worker: int) -> float:
        return float(np.linalg.norm(self._computing[worker].gradient))

    def _step(self, step: Step, now: float) -> None:
        taken = self._delivered.used(step)
        for one, computed in zip(step.gradients, taken, strict=True):
            age = now - computed.read_at
            self.age_moments += (1.0, age, age * age)
            self.counts[one.staleness] += 1
        strength = self._study.schedule.delay_compensation
        gradients = [compensated(c.gradient, c.parameters, self._parameters, strength) for c in taken]
        weights = [one.weight for one in step.gradients]
        mean = mean_gradient(gradients, weights)
        self._parameters = self._optimizer.step(self._parameters, mean)


def compensated(gradient: np.ndarray, read: np.ndarray, now: np.ndarray, strength: float) -> np.ndarray:
    """A gradient corrected for what the parameters did since it was read, g + lambda g * g * (now - read).

    The first-order correction of delay-compensated asynchronous SGD, with the outer product's diagonal for the
    Hessian: Zheng et al., arXiv:1609.08326, eq. 10. Nothing for a strength lambda of 0.
    """
    return gradient + np.float32(strength) * gradient * gradient * (now - read) if strength > 0 else gradient


def mean_gradient(gradients: list[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Mean of a step's gradients, each times its weight, in float32, shape (size,)."""
    if any(weight != 1.0 for weight in weights):
        gradients = [np.float32(w) * g for w, g in zip(weights, gradients, strict=True)]
    return gradients[0] if len(gradients) == 1 else np.asarray(np.mean(gradients, axis=0, dtype=np.float32))
