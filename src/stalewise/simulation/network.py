"""Networks in virtual time: real gradients, each computed when it is needed, with all others that are known by then."""

import ctypes
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stalewise.errors import InputError
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
from stalewise.simulation.loop import TRAINER, RecordedCluster, VirtualCluster
from stalewise.study import Study

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

BLOW_UP = 1e3
SPACING = 0.03  # of the time passed, between records


@dataclass(slots=True, eq=False)
class Begun:
    """A gradient: the parameters behind it, when they were read [s], its batch, and itself once it is computed."""

    parameters: np.ndarray
    read_at: float
    batch: tuple[int, int, int]
    gradient: np.ndarray | None = None
    sent: np.ndarray | None = None


class NetworkRun:
    """One repetition of a network study in virtual time, advanced as far as the caller asks.

    ``seed`` names its batches and delays, ``start`` its first parameters.

    Args:
        study: What to run.
        network: What it trains.
        seed: Of batches and delays.
        start: First parameters, shape (size,); versions are shared by all that read them, never copied.
        arrivals: Times [s] and workers of gradients that arrive, one after the other, in place of the study's delays.
        spacing: Share of the time passed after which the loss is told again.

    Raises:
        InputError: The first loss is not finite.

    Attributes:
        study: What is run.
        network: What it trains.
        time: Times of record [s]: every half mean cycle, later every ``spacing`` of the time passed.
        loss: Training loss on all of the data at those times; infinite once it blew up.
        updates: Steps taken by then.
        server: The protocol's server, with its tally.
        counts: How often each staleness was applied.
    """

    def __init__(
        self, study: Study, network: "Network", seed: int, start: np.ndarray,
        arrivals: Sequence[tuple[float, int]] | None = None, spacing: float = SPACING,
    ) -> None:  # fmt: skip
        from stalewise.workloads.compressor import Compressor  # noqa: PLC0415  (PyTorch is an extra)
        from stalewise.workloads.optimizer import Optimizer  # noqa: PLC0415

        self.server = study.server()
        self.study, self.network, self._seed = study, network, seed
        self._optimizer = Optimizer(study.schedule, network.size)
        self._compressor = Compressor(parse_compression(study.schedule.compression), network.size)
        self._parameters = start
        self._index: Counter[int] = Counter()
        self._begun: dict[int, Begun] = {}
        self._unknown: dict[int, Begun] = {}
        self._delivered: Deliveries[Begun] = Deliveries()
        self.counts: Counter[int] = Counter()
        self.age_moments = np.zeros(3)
        if arrivals is None:
            delay_rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[0])
            self._cluster = VirtualCluster(study, self.server, delay_rng, self._norm)
        else:
            self._cluster = RecordedCluster(self.server, arrivals, self._norm)
        for instruction in self._cluster.first:
            self._obey(instruction, 0.0)
        self._interval, self._tick, self._spacing = 0.5 * study.workers().mean_cycle, 0, spacing
        self.time, self.loss, self.updates = [0.0], [network.loss(self._parameters)], [0]
        if not np.isfinite(self.loss[0]):
            raise InputError(f"workload.kind: the loss at the first parameters must be finite, got {self.loss[0]}")
        self._most = highest_loss(self.loss[0], study.target.loss)
        self.blew_up = False

    @property
    def samples(self) -> int:
        """Training samples spent on gradients so far."""
        return sum(self._index.values()) * self.study.batch_size

    @property
    def parameters(self) -> np.ndarray:
        """Parameters as they are now, shape (size,)."""
        return self._parameters

    @property
    def needed(self) -> Begun:
        """The gradient that the run waits for, where `proceed` says that it does."""
        return self._begun[self._cluster.upcoming[1]]

    @property
    def unknown(self) -> list[Begun]:
        """Gradients in flight that are not computed yet."""
        return [begun for begun in self._begun.values() if begun.gradient is None]

    def advance(self, until: float) -> None:
        """Run on until the records reach ``until`` [s] or the loss blows up."""
        advance([self], until)

    def proceed(self, until: float) -> bool:
        """`advance` as far as gradients are known; whether that is all the way."""
        while not self.blew_up and self.time[-1] < until:
            tick = self._next_tick(until)
            due = tick * self._interval
            if not self._run(due):
                return False
            self._tick = tick
            self._record(due)
        return True

    def _next_tick(self, until: float) -> int:
        """Half cycles at the next record, none far beyond ``until``."""
        spaced = self._tick + max(1, int(self._spacing * self._tick))
        return max(self._tick + 1, min(spaced, math.ceil(until / self._interval)))

    def _run(self, due: float) -> bool:
        """All that happens up to ``due`` [s], or up to the first gradient that is not computed yet; whether all."""
        while True:
            now, worker = self._cluster.upcoming
            if now > due:
                return True
            if worker != TRAINER and self._begun[worker].gradient is None:
                return False
            if self._cluster.next_time > due:
                return True
            now, worker, instructions = next(self._cluster)
            if worker != TRAINER:
                if Unsent(worker) not in instructions:
                    self._pack(worker)
                self._delivered.add(worker, self._begun[worker])
            for instruction in instructions:
                self._obey(instruction, now)

    def _record(self, now: float) -> None:
        same = self.server.version == self.updates[-1]
        loss = self.loss[-1] if same else self.network.loss(self._parameters)
        self.blew_up = not (np.isfinite(loss) and loss < self._most)
        self.time.append(now)
        self.loss.append(np.inf if self.blew_up else loss)
        self.updates.append(self.server.version)

    def _obey(self, instruction: Instruction, now: float) -> None:
        match instruction:
            case Start(worker=worker):
                self._begin(worker, self._parameters, now)
            case Again(worker=worker):
                self._begin(worker, self._begun[worker].parameters, self._begun[worker].read_at)
            case Cancel(worker=worker):
                del self._begun[worker]
            case Drop(worker=worker) | Unsent(worker=worker):
                self._delivered.last(worker)
            case Expire(worker=worker):
                self._delivered.oldest(worker)
            case Step() as step:
                self._step(step, now)

    def _begin(self, worker: int, parameters: np.ndarray, read_at: float) -> None:
        self._begun[worker] = Begun(parameters, read_at, (self._seed, worker, self._index[worker]))
        self._index[worker] += self.study.schedule.local_steps

    def _pack(self, worker: int) -> None:
        """Find what ``worker`` sends of its gradient; one that is cancelled or unsent changes nothing it keeps back."""
        self._begun[worker].sent = self._compressor.sent(worker, self._gradient(worker))

    def _gradient(self, worker: int) -> np.ndarray:
        begun = self._begun[worker]
        if begun.gradient is None:
            compute([begun], self.study, self.network)
        assert begun.gradient is not None
        return begun.gradient

    def _norm(self, worker: int) -> float:
        return gradient_norm(self._gradient(worker))

    def _step(self, step: Step, now: float) -> None:
        taken = self._delivered.used(step)
        for one, begun in zip(step.gradients, taken, strict=True):
            age = now - begun.read_at
            self.age_moments += (1.0, age, age * age)
            self.counts[one.staleness] += 1
        strength = self.study.schedule.delay_compensation
        gradients = [compensated(b.sent, b.parameters, self._parameters, strength) for b in taken if b.sent is not None]
        weights = [one.weight for one in step.gradients]
        self._parameters = self._optimizer.step(self._parameters, mean_gradient(gradients, weights))


def highest_loss(first: float, target: float) -> float:
    """Loss from where on it counts as grown without bound: 1,000 times the first, or the target if that is more.

    A loss may be zero or negative.
    """
    return BLOW_UP * max(abs(first), target)


def advance(runs: Sequence[NetworkRun], until: float, *, exactly: bool = False) -> None:
    """Run repetitions of one study on, side by side: all that they wait for is computed together.

    Args:
        runs: Repetitions of one study, of one network.
        until: Where their records go to [s].
        exactly: Compute gradients one by one, bit for bit as a worker does.
    """
    from stalewise.workloads.threads import threads  # noqa: PLC0415  (PyTorch is an extra)

    study, network = runs[0].study, runs[0].network
    together = not exactly and network.at_once(study.batch_size) > 1
    with threads(1) if network.is_light(study.batch_size) else nullcontext():
        waiting = [run for run in runs if not run.proceed(until)]
        while waiting:
            wanted = [begun for run in waiting for begun in (run.unknown if together else [run.needed])]
            compute(wanted, study, network, exactly=exactly)
            waiting = [run for run in waiting if not run.proceed(until)]
    _give_back()


def _give_back() -> None:
    """Return freed memory to the system, where the C library can.

    Small vectors that runs keep lie between what large ones left: a search of mnist-cnn held 13 GB for 1.4 in use.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def compute(gradients: Sequence[Begun], study: Study, network: "Network", *, exactly: bool = False) -> None:
    """Fill in gradients, together where the network can."""
    how = (study.batch_size, study.schedule.local_steps, study.learning_rate)
    if exactly:
        for begun in gradients:
            begun.gradient = network.local_gradient(begun.parameters, begun.batch, *how)
        return
    found = network.local_gradients([b.parameters for b in gradients], [b.batch for b in gradients], *how)
    for begun, gradient in zip(gradients, found, strict=True):
        begun.gradient = gradient


def gradient_norm(gradient: np.ndarray) -> float:
    """Euclidean norm of a vector of float32; in float64 where its square overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(np.dot(gradient, gradient))
        return float(np.sqrt(square)) if np.isfinite(square) else float(np.linalg.norm(gradient.astype(np.float64)))


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
