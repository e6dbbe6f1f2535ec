"""How a server's step moves the parameters of a network: any optimizer of ``torch.optim``, on one flat vector."""

import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stalewise.errors import InputError
from stalewise.protocol import parse_rate_schedule
from stalewise.study import Schedule

Vector = NDArray[np.float32]


class Optimizer:
    """Takes steps. Every step makes a new vector, so that whoever reads an older version keeps it.

    Plain SGD is written out with the very operations of ``torch.optim.SGD``, whose overhead a small network would feel;
    the results are bit for bit the same (tested).

    Args:
        schedule: Learning rate, its schedule, momentum, weight decay, and which optimizer.
        size: Parameters.

    Raises:
        InputError: The optimizer does not take these options.
    """

    def __init__(self, schedule: Schedule, size: int) -> None:
        if schedule.learning_rate is None:
            raise InputError("schedule.learning_rate is missing: give one, or let `stalewise plan` choose it")
        self._schedule, self._rate = schedule, parse_rate_schedule(schedule.learning_rate_schedule)
        self.learning_rate = schedule.learning_rate
        self.steps = 0
        self._velocity: torch.Tensor | None = None
        self._weight = torch.nn.Parameter(torch.zeros(size))
        self._inner = None if schedule.optimizer == "SGD" and not schedule.optimizer_options else self._make()

    def _make(self) -> torch.optim.Optimizer:
        schedule = self._schedule
        own = {"momentum": schedule.momentum, "nesterov": schedule.nesterov} if schedule.optimizer == "SGD" else {}
        if schedule.weight_decay:
            own["weight_decay"] = schedule.weight_decay
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in schedule.optimizer_options.items()}

        def made(weight: torch.nn.Parameter) -> torch.optim.Optimizer:
            return getattr(torch.optim, schedule.optimizer)([weight], lr=self.learning_rate, **own, **options)

        try:
            tried = torch.nn.Parameter(torch.zeros(1))
            tried.grad = torch.ones(1)
            with torch.no_grad():
                made(tried).step()  # some options are refused by the first step alone
            return made(self._weight)
        except Exception as error:  # an optimizer does not say what it may raise
            raise InputError(f"schedule.optimizer_options: {schedule.optimizer}: {error}") from None

    def step(self, parameters: Vector, gradient: Vector, out: Vector | None = None) -> Vector:
        """Parameters after a step along ``gradient``, both of shape (size,), unchanged; written to ``out`` if given."""
        before, along = _tensor(parameters), _tensor(gradient)
        after = torch.empty_like(before) if out is None else torch.from_numpy(out)
        rate = self.learning_rate * self._rate(self.steps)
        with torch.no_grad():
            if self._inner is None:
                torch.add(before, self._along(before, along), alpha=-rate, out=after)
            else:
                self._weight.data, self._weight.grad = after.copy_(before), along
                self._inner.param_groups[0]["lr"] = rate
                self._inner.step()
        self.steps += 1
        return after.numpy() if out is None else out

    def _along(self, parameters: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """What SGD moves along."""
        decay, momentum = self._schedule.weight_decay, self._schedule.momentum
        if decay:
            gradient = gradient.add(parameters, alpha=decay)
        if not momentum:
            return gradient
        if self._velocity is None:
            self._velocity = gradient.clone()
        else:
            self._velocity.mul_(momentum).add_(gradient)
        return gradient.add(self._velocity, alpha=momentum) if self._schedule.nesterov else self._velocity

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Everything that a later step depends on: tensors, and plain values."""
        plain: dict[str, Any] = {"steps": self.steps, "learning_rate": self.learning_rate, "state": {}}
        if self._inner is None:
            return ({} if self._velocity is None else {"velocity": self._velocity}), plain
        tensors = {}
        for name, value in self._inner.state_dict()["state"].get(0, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[name] = value
            else:
                plain["state"][name] = json.loads(json.dumps(value))
        return tensors, plain

    def restore(self, tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.steps, self.learning_rate = plain["steps"], plain["learning_rate"]
        if self._inner is None:
            self._velocity = tensors.get("velocity")
            return
        state = self._inner.state_dict()
        state["state"] = {0: {**tensors, **plain["state"]}} if tensors or plain["state"] else {}
        self._inner.load_state_dict(state)


def _tensor(vector: Vector) -> torch.Tensor:
    """The same memory as a tensor; a copy of what may not be written to, for PyTorch knows no such tensors."""
    return torch.from_numpy(vector if vector.flags.writeable else vector.copy())
