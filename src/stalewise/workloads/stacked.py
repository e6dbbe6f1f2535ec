"""Gradients of many networks of one shape in one pass of the model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import vmap


class Stacked:
    """The loss's gradient at many parameter vectors, each on a batch of its own.

    The model's operations are batched over a new first axis by ``torch.func.vmap``; random numbers are refused, for
    there they would not follow from a batch's name.

    Args:
        model: What is trained.
        loss: Called with model and batch.
        weights: Its trainable parameters.
        parts: Makes of vectors, shape (n, size), what stands for those, each of shape (n, ...).
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], torch.Tensor],
        weights: Sequence[nn.Parameter],
        parts: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    ) -> None:
        self._model, self._loss, self._weights, self._parts = model, loss, weights, parts
        self._places = [_places(model, weight) for weight in weights]
        self._losses = vmap(self._told, randomness="error")

    def __call__(self, parameters: torch.Tensor, batches: Any) -> torch.Tensor:
        """Gradients, shape (n, size), at ``parameters`` of that shape, of batches stacked along their first axis."""
        weights = [part.detach().requires_grad_() for part in self._parts(parameters)]
        total = self._losses(weights, batches).sum()  # of independent terms: its gradient holds each one's
        slopes = torch.autograd.grad(total, weights, materialize_grads=True)
        return torch.cat([slope.flatten(1) for slope in slopes], dim=1)

    def _told(self, weights: Sequence[torch.Tensor], batch: Any) -> torch.Tensor:
        """The loss with other tensors in the places of the model's parameters."""
        try:
            self._put(weights)
            return self._loss(self._model, batch)
        finally:
            self._put(self._weights)

    def _put(self, weights: Sequence[torch.Tensor]) -> None:
        # not torch.func.functional_call: a layer that a model holds twice would keep what was put in
        for places, weight in zip(self._places, weights, strict=True):
            for table, name in places:
                table[name] = weight


def _places(model: nn.Module, weight: nn.Parameter) -> list[tuple[dict[str, Any], str]]:
    """Where a model keeps a parameter: tied layers have it in several tables."""
    tables = [part._parameters for part in model.modules()]
    return [(table, name) for table in tables for name, held in table.items() if held is weight]
