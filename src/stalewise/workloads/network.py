"""A network, its data and its loss, seen as functions of one flat parameter vector."""

import copy
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from stalewise.errors import InputError
from stalewise.workloads.batches import CHUNK, EVALUATED, AbstractBatches, Addressed, Name, batches_of, to_device
from stalewise.workloads.derivatives import Derivatives
from stalewise.workloads.seeds import seeded
from stalewise.workloads.stacked import Stacked
from stalewise.workloads.task import Factory, Task

Vector = NDArray[np.float32]
P = ParamSpec("P")
R = TypeVar("R")
PARTS = 16  # of the samples that derivatives are taken over, for their standard errors
FEWEST = 4  # gradients computed together; below, one by one is as fast
MOST = 128
MOST_VALUES = 1 << 22  # parameters of all of them
LIGHT = 3e7  # operations of a gradient on a CPU: heavier ones keep it busy one by one
CLOSE = 1e-3  # what rounding may change of a gradient, by its norm


def _blaming(method: Callable[P, R]) -> Callable[P, R]:
    """A method of `Network` out of which what the user's task raises comes as a `TaskError`."""

    @functools.wraps(method)
    def told(*given: P.args, **named: P.kwargs) -> R:
        try:
            return method(*given, **named)
        except Exception as error:
            network = given[0]
            assert isinstance(network, Network)
            with network.blaming():
                raise error
        raise AssertionError("unreachable")

    return told


class Network:
    """What is trained, with parameters as one vector.

    Random numbers inside a model (dropout) are seeded by the batch's name. Batch normalisation uses the batch's own
    mean and variance, in training and in telling losses: running averages would be one more thing that workers do not
    share; `export` fills them in at the end.

    Args:
        build: Makes the task; called once, and once for each `start`. What its task raises is a `TaskError`.
        device: Where gradients are computed.

    Attributes:
        size: Trainable parameters.
        batch_size: Samples a gradient where the data say so, else None.

    Raises:
        InputError: Parameters are not dense float32, or there are none.
        TaskError: The task's own code raises; so in all methods.
    """

    @_blaming
    def __init__(self, build: Factory, device: str = "cpu") -> None:
        self.blaming = build.blaming
        self._build, self._device = build, torch.device(device)
        task = _seeded(build, 0)
        self._task, self._model = task, _without_averages(task.model).to(self._device)
        self._loss = _criterion(task.loss)
        self._normalises = any(isinstance(part, _BatchNorm) for part in self._model.modules())
        self._weights = _trainable(self._model)
        self.size = sum(weight.numel() for weight in self._weights)
        self._flat = torch.empty(self.size, device=self._device)
        self._gradient = torch.zeros(self.size, device=self._device)
        self._where = self._gradient.data_ptr()
        for weight, part, slot in zip(self._weights, self.parts(self._flat), self.parts(self._gradient), strict=True):
            weight.data, weight.grad = part.copy_(weight.data), slot
        self._data = batches_of(task.data)
        self._held_out = None if task.held_out is None else batches_of(task.held_out)
        self._first = self._flat.cpu().numpy().copy()
        self.batch_size = self._data.batch_size
        self._stacked = Stacked(self._model, self._loss, self._weights, self.parts)
        self._most: dict[int, int] = {}
        self._operations: dict[int, float] = {}

    def parts(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Views of a vector in the shapes of the parameters; of (n, size) those of n networks, stacked."""
        pieces = flat.split([weight.numel() for weight in self._weights], dim=-1)
        return [piece.unflatten(-1, w.shape or (1,)) for piece, w in zip(pieces, self._weights, strict=True)]

    @_blaming
    def start(self, seed: int) -> Vector:
        """First parameters, those that the factory makes when PyTorch is seeded with ``seed``, shape (size,)."""
        if seed == 0:
            return self._first.copy()
        model = _seeded(self._build, seed).model
        return torch.cat([weight.detach().ravel() for weight in _trainable(model)]).numpy().copy()

    @_blaming
    def draw(self, batch: Name, size: int) -> Any:
        """Samples of the batch named (seed, worker, index)."""
        return to_device(self._data.draw(batch, size), self._device)

    @_blaming
    def gradient(
        self, parameters: Vector, batch: Name, batch_size: int, room: Vector | None = None
    ) -> tuple[Vector, float]:
        """Gradient, shape (size,), and loss of the batch named (seed, worker, index).

        On a CPU the gradient is added up in ``room``, where that is given: it then costs no copy.
        """
        samples = self.draw(batch, batch_size)
        self._put(parameters)
        shared = room is not None and self._device.type == "cpu"
        gradient = torch.from_numpy(room) if shared else self._gradient
        if self._where != gradient.data_ptr():
            self._where = gradient.data_ptr()
            for weight, part in zip(self._weights, self.parts(gradient), strict=True):
                weight.grad = part.view_as(weight)
        gradient.zero_()
        self._train()
        seed = hash(batch) & 0x7FFFFFFF
        torch.default_generator.manual_seed(seed) if self._device.type == "cpu" else torch.manual_seed(seed)
        loss = self._loss(self._model, samples)
        loss.backward()
        return (gradient.numpy() if shared else gradient.cpu().numpy().copy()), float(loss.detach())

    @_blaming
    def gradients(self, parameters: Sequence[Vector], batches: Sequence[Name], batch_size: int) -> Vector:
        """`gradient` at many parameters, shape (n, size): the same up to rounding, together where that is faster."""
        found = np.empty((len(batches), self.size), np.float32)
        begin = 0
        while begin < len(batches):
            part = slice(begin, begin + self.at_once(batch_size))
            found[part] = self._gradients(parameters[part], batches[part], batch_size)
            begin = part.stop
        return found

    def at_once(self, batch_size: int) -> int:
        """How many gradients `gradients` computes together, 1 for one by one.

        One by one where that is as fast, where the model does not bear it (random layers, values that decide what is
        done) or comes out different: two gradients are tried.
        """
        if batch_size not in self._most:
            most = min(MOST, MOST_VALUES // self.size)
            self._most[batch_size] = most if most >= FEWEST and self._bears_stacking(batch_size) else 1
        return self._most[batch_size]

    def is_light(self, batch_size: int) -> bool:
        """Whether a gradient is too little work to keep a CPU busy by itself, let alone several cores."""
        if self._device.type != "cpu":
            return False
        if batch_size not in self._operations:
            try:
                with FlopCounterMode(display=False) as counter:
                    self.gradient(self._first, (0, 0, 0), batch_size)
                self._operations[batch_size] = counter.get_total_flops()
            except Exception:  # whatever the counter does not know
                self._operations[batch_size] = 2 * LIGHT
        return self._operations[batch_size] <= LIGHT

    def _bears_stacking(self, batch_size: int) -> bool:
        if self._device.type == "cpu" and not self.is_light(batch_size):
            return False
        names, parameters = [(0, 0, 0), (0, 0, 1)], [self._first] * 2
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of operations that vmap takes one by one
                alone = np.stack([self.gradient(self._first, name, batch_size)[0] for name in names])
                together = self._together(parameters, names, batch_size)
        except Exception:  # whatever a user's model may raise
            return False
        return bool(np.linalg.norm(together - alone) <= CLOSE * np.linalg.norm(alone))

    def _gradients(self, parameters: Sequence[Vector], batches: Sequence[Name], batch_size: int) -> Vector:
        if len(batches) >= FEWEST:
            try:
                return self._together(parameters, batches, batch_size)
            except ValueError:  # these batches are not of one shape
                pass
            except RuntimeError:  # out of memory, or what the trial did not meet
                self._most[batch_size] = 1
        pairs = zip(parameters, batches, strict=True)
        return np.stack([self.gradient(vector, batch, batch_size)[0] for vector, batch in pairs])

    def _together(self, parameters: Sequence[Vector], batches: Sequence[Name], batch_size: int) -> Vector:
        samples = to_device(self._data.draw_stacked(batches, batch_size), self._device)
        self._train()
        flat = torch.from_numpy(np.stack(parameters)).to(self._device)
        return self._stacked(flat, samples).cpu().numpy()

    @_blaming
    def local_gradient(
        self, parameters: Vector, batch: Name, batch_size: int, steps: int, learning_rate: float,
        room: Vector | None = None,
    ) -> Vector:  # fmt: skip
        """What a worker sends after ``steps`` steps of SGD by itself, shape (size,): its move over -learning_rate.

        Of one step that is the gradient. ``batch`` names the first step's samples, and the steps after it count on.
        """
        seed, worker, index = batch
        if steps == 1:
            return self.gradient(parameters, batch, batch_size, room)[0]
        rate, here = np.float32(learning_rate), parameters
        for step in range(steps):
            gradient, _ = self.gradient(here, (seed, worker, index + step), batch_size)
            here = np.asarray(here - rate * gradient, np.float32)
        return (parameters - here) / rate

    @_blaming
    def local_gradients(
        self, parameters: Sequence[Vector], batches: Sequence[Name], batch_size: int, steps: int, learning_rate: float
    ) -> Vector:
        """`local_gradient` at many parameters, shape (n, size): the same up to rounding."""
        if steps == 1:
            return self.gradients(parameters, batches, batch_size)
        first, rate = np.stack(parameters), np.float32(learning_rate)
        here = first
        for step in range(steps):
            names = [(seed, worker, index + step) for seed, worker, index in batches]
            here = here - rate * self.gradients(list(here), names, batch_size)
        return (first - here) / rate

    @_blaming
    def loss(self, parameters: Vector) -> float:
        """Training loss on all of the data, or on a fixed choice of 4,096 samples of it."""
        return self._mean(self._data, self._loss, parameters)

    @_blaming
    def score(self, parameters: Vector) -> float | None:
        """The task's score of the held-out data, its loss unless it has one; None without such data."""
        if self._held_out is None:
            return None
        return self._mean(self._held_out, self._task.score or self._loss, parameters)

    @property
    def score_name(self) -> str:
        """What `score` is."""
        return "loss" if self._task.score is None else getattr(self._task.score, "__name__", "score").replace("_", " ")

    @property
    def any_batch(self) -> bool:
        """Whether another batch size is the same loss with other noise.

        Not where a loader draws samples by itself, nor where layers normalise over the batch.
        """
        return isinstance(self._data, Addressed) and not self._normalises

    @property
    def samples(self) -> int | None:
        """Samples of the data; None where a loader draws them by itself."""
        return self._data.count if isinstance(self._data, Addressed) else None

    @_blaming
    def round(self, most: int) -> int | None:
        """Batches after which a loader with an order of its own begins anew, if it does within ``most``; else None."""
        return self._data.round(most)

    @_blaming
    def derivatives(self, parameters: Vector, samples: int = EVALUATED) -> Derivatives:
        """Second derivatives at ``parameters``, of `loss` if it is told on no more than so many ``samples``."""
        part = max(2 if self._normalises else 1, min(CHUNK, -(-samples // PARTS)))
        batches = [(to_device(batch, self._device), count) for batch, count in self._data.all(samples, part)]
        return Derivatives(self._model, self._loss, batches, lambda: self._put(parameters))

    @_blaming
    def export(self, parameters: Vector) -> dict[str, torch.Tensor]:
        """The model's ``state_dict`` at ``parameters``, running averages of batch normalisation over the data."""
        model = copy.deepcopy(_seeded(self._build, 0).model)
        flat = torch.from_numpy(np.asarray(parameters, np.float32).copy())
        with torch.no_grad():
            for weight, part in zip(_trainable(model), self.parts(flat), strict=True):
                weight.copy_(part.reshape(weight.shape))
        if _normalisers(model):
            _average(model, self._loss, self._data)
        return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}

    def _mean(self, data: AbstractBatches, of: Callable[[nn.Module, Any], Any], parameters: Vector) -> float:
        self._put(parameters)
        self._model.eval()
        total = samples = 0
        with torch.no_grad():
            for batch, count in data.all():
                total += count * float(of(self._model, to_device(batch, self._device)))
                samples += count
        return total / samples

    def _train(self) -> None:
        if not self._model.training:  # walking through its layers costs more than the step of a small network
            self._model.train()

    def _put(self, parameters: Vector) -> None:
        if self._device.type == "cpu":
            self._flat.numpy()[:] = parameters
        else:
            self._flat.copy_(torch.from_numpy(np.ascontiguousarray(parameters)))


def _seeded(build: Callable[[], Task], seed: int) -> Task:
    """A task made while the random numbers of PyTorch, NumPy and Python begin at ``seed``."""
    with seeded(seed):
        task = build()
    if not isinstance(task.model, nn.Module):
        raise InputError(f"workload.kind: model must be a torch.nn.Module, got {type(task.model).__name__}")
    return task


def _trainable(model: nn.Module) -> Sequence[nn.Parameter]:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise InputError("workload.kind: the model has no trainable parameters")
    if any(isinstance(weight, nn.parameter.UninitializedParameter) for weight in weights):
        raise InputError("workload.kind: the model has lazy layers; call it once on a batch in the factory")
    for weight in weights:
        if weight.dtype != torch.float32 or weight.layout != torch.strided:
            raise InputError(f"workload.kind: parameters must be dense float32, got {weight.dtype}, {weight.layout}")
    return weights


def _criterion(loss: Any) -> Callable[[nn.Module, Any], torch.Tensor]:
    if isinstance(loss, nn.Module):
        return lambda model, batch: loss(model(batch[0]), batch[1])
    return loss


def _normalisers(model: nn.Module) -> list[Any]:
    """Layers that keep running averages over batches."""
    return [part for part in model.modules() if getattr(part, "track_running_stats", False)]


def _without_averages(model: nn.Module) -> nn.Module:
    for part in _normalisers(model):
        part.track_running_stats = False
        part.running_mean = part.running_var = part.num_batches_tracked = None
    return model


def _average(model: nn.Module, loss: Callable[[nn.Module, Any], Any], data: AbstractBatches) -> None:
    """Fill in running averages: plain means over the data's batches."""
    for part in _normalisers(model):
        part.reset_running_stats()
        part.momentum = None
    model.train()
    with torch.no_grad():
        for batch, _ in data.all():
            loss(model, batch)
