"""Networks in virtual time: real gradients, plain loop, one gradient computed when its parameters are read."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from stalewise.delays.compiled import DelayStream, encode
from stalewise.protocol import Again, Cancel, Deliveries, Drop, Instruction, Start, Step, Unsent
from stalewise.simulation.loop import VirtualCluster
from stalewise.study import Study
from stalewise.workloads import AbstractNetwork

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

    def __init__(self, study: Study, network: AbstractNetwork, seed: int, start: np.ndarray) -> None:
        law = study.cluster.delay()
        delay_rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[0])
        self.server = study.server()
        self._study, self._network, self._seed = study, network, seed
        self._parameters = start
        self._index: Counter[int] = Counter()
        self._computing: dict[int, Computed] = {}
        self._delivered: Deliveries[Computed] = Deliveries()
        self.counts: Counter[int] = Counter()
        self.age_moments = np.zeros(3)
        residual = law.mean if study.cluster.start == "staggered" else None
        self._cluster = VirtualCluster(
            self.server, DelayStream(encode(law.components()), study.active_workers, delay_rng), residual_mean=residual,
            norm=self._norm,
        )  # fmt: skip
        for instruction in self._cluster.first:
            self._obey(instruction, 0.0)
        self._interval = 0.5 * law.mean
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
            case Step() as step:
                self._step(step, now)

    def _compute(self, worker: int, parameters: np.ndarray, read_at: float) -> None:
        batch = (self._seed, worker, self._index[worker])
        gradient, _ = self._network.gradient(parameters, batch, self._study.batch_size)
        self._computing[worker] = Computed(gradient, parameters, read_at)
        self._index[worker] += 1

    def _norm(self, worker: int) -> float:
        return float(np.linalg.norm(self._computing[worker].gradient))

    def _step(self, step: Step, now: float) -> None:
        taken = self._delivered.used(step)
        for one, computed in zip(step.gradients, taken, strict=True):
            age = now - computed.read_at
            self.age_moments += (1.0, age, age * age)
            self.counts[one.staleness] += 1
        self._parameters = take_step(self._parameters, [c.gradient for c in taken], self._study.learning_rate)


def take_step(parameters: np.ndarray, gradients: list[np.ndarray], learning_rate: float) -> np.ndarray:
    """Parameters after one step along the average of ``gradients``; float32, shape (size,)."""
    total = gradients[0] if len(gradients) == 1 else np.mean(gradients, axis=0, dtype=np.float32)
    return parameters - np.float32(learning_rate) * total
