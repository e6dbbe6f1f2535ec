"""Products with the second derivatives of a network's loss, and slopes of single samples, at one place."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

Vector = NDArray[np.float32]
Direction = NDArray[np.floating]  # computed with in single precision
Loss = Callable[[Any, Any], torch.Tensor]
SAME = 1e-4  # mean of single losses and loss of the batch, relative


class Derivatives:
    r"""Second derivatives of a mean loss over fixed samples.

    With :math:`z = f(\theta)` what the model returns and :math:`\ell` the loss of it,

    .. math:: H = J^\top \ell'' J + \sum_j \ell'_j z_j'', \qquad G = J^\top \ell'' J.

    G, the Gauss-Newton matrix, needs a loss that sees the parameters through one call of the model alone, which
    returns one tensor; see `splits`. Normalising layers and dropout are in the mode that losses are told in.

    Args:
        model: Holds the parameters.
        loss: Called with model and batch, gives the mean over the batch.
        batches: Samples with their numbers, on the model's device.
        put: Puts the parameters into the model; called before every use, for others use the model too.

    Limits:
        Everything on the way needs a derivative of the derivative. Fused attention has none on CPUs: attention is
        computed by its plain form here.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, batches: Sequence[tuple[Any, int]], put: Callable[[], None]
    ) -> None:
        self._model, self._loss, self._batches, self._put = model, loss, batches, put
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.shares = np.array([count for _, count in batches], float)
        self.samples = int(self.shares.sum())
        self.shares /= self.samples

    def hessian(self, direction: Direction) -> tuple[Vector, NDArray[np.float64]]:
        """Hessian times ``direction`` v, shape (size,), and v'Hv of each batch, shape (batches,)."""
        return self._times(self._hessian, direction)

    def gauss_newton(self, direction: Direction) -> tuple[Vector, NDArray[np.float64]]:
        """As `hessian`, of the Gauss-Newton matrix."""
        return self._times(self._gauss_newton, direction)

    def splits(self) -> bool:
        """Whether the loss is one of a single output of the model, so that a Gauss-Newton matrix exists."""
        with self._open():
            with _Cut(self._model) as cut:
                loss = self._loss(self._model, self._batches[0][0])
            if cut.calls != 1 or not cut.output.requires_grad or not loss.requires_grad:
                return False
            past = torch.autograd.grad(loss, self._weights, allow_unused=True)
            return all(gradient is None for gradient in past)

    def slopes(self, directions: Direction) -> NDArray[np.float64] | None:
        r"""Derivatives of single samples' losses, :math:`g_i^\top v_j`, shape (samples, directions).

        One forward pass with tangents for each direction, over all samples of a batch at once.

        Args:
            directions: Shape (size, directions).

        Returns:
            None where samples have no losses of their own: the batch's is not their mean (normalisation over the
            batch, say), or the model cannot be mapped over samples.
        """
        whole = _Whole(self._model, self._loss)
        names = [name for name, weight in whole.named_parameters() if weight.requires_grad]
        found = []
        with self._open(), torch.no_grad():
            weights = tuple(weight.detach() for weight in self._weights)
            tangents = [self._like_weights(column) for column in directions.T]
            for batch, _ in self._batches:
                if not all(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(batch)):
                    return None

                def single(*given: torch.Tensor, batch: Any = batch) -> torch.Tensor:
                    """Losses of the batch's samples, each a batch of one."""
                    named = dict(zip(names, given, strict=True))
                    one = lambda sample: functional_call(whole, named, (tree_map(lambda t: t[None], sample),))  # noqa: E731
                    return vmap(one)(batch)

                try:
                    mean = single(*weights).mean()
                    together = self._loss(self._model, batch)
                    if not torch.isclose(mean, together, rtol=SAME):
                        return None
                    parts = [jvp(single, weights, tangent)[1] for tangent in tangents]
                except (RuntimeError, ValueError, IndexError, NotImplementedError):
                    return None  # mapping over samples is not for every model; its user has lost nothing
                found.append(torch.stack(parts, 1).cpu().numpy().astype(np.float64))
        return np.concatenate(found)

    def _times(
        self, product: Callable[[Any, tuple[torch.Tensor, ...]], Sequence[torch.Tensor]], direction: Direction
    ) -> tuple[Vector, NDArray[np.float64]]:
        along = self._like_weights(direction)
        flat = torch.cat([part.ravel() for part in along])
        total, bends = torch.zeros_like(flat), []
        with self._open():
            for (batch, _), share in zip(self._batches, self.shares, strict=True):
                one = torch.cat([part.ravel() for part in product(batch, along)])
                bends.append(float(one @ flat))
                total.add_(one, alpha=float(share))
        return total.cpu().numpy(), np.array(bends)

    def _hessian(self, batch: Any, along: tuple[torch.Tensor, ...]) -> Sequence[torch.Tensor]:
        loss = self._loss(self._model, batch)
        gradient = torch.autograd.grad(loss, self._weights, create_graph=True, materialize_grads=True)
        return _moving(gradient, along, self._weights)

    def _gauss_newton(self, batch: Any, along: tuple[torch.Tensor, ...]) -> Sequence[torch.Tensor]:
        """J v as the derivative by u of J'u, then the loss' own Hessian, then J'."""
        with _Cut(self._model) as cut:
            loss = self._loss(self._model, batch)
        back = torch.zeros_like(cut.leaf, requires_grad=True)
        pulled = torch.autograd.grad(cut.output, self._weights, back, create_graph=True, materialize_grads=True)
        (pushed,) = _moving(pulled, along, [back])
        slope = torch.autograd.grad(loss, cut.leaf, create_graph=True)
        (bent,) = _moving(slope, (pushed,), [cut.leaf])
        return torch.autograd.grad(cut.output, self._weights, bent, materialize_grads=True)

    def _like_weights(self, direction: Direction) -> tuple[torch.Tensor, ...]:
        """A vector in the shapes of the parameters."""
        flat = torch.from_numpy(np.array(direction, np.float32).ravel()).to(self._weights[0].device)
        pieces = flat.split([weight.numel() for weight in self._weights])
        return tuple(piece.reshape(weight.shape) for piece, weight in zip(pieces, self._weights, strict=True))

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        self._put()
        self._model.eval()
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _moving(
    values: Sequence[torch.Tensor], along: Sequence[torch.Tensor], by: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    """Derivative of sum(values x along), leaving out values that depend on nothing."""
    kept = [(value, one) for value, one in zip(values, along, strict=True) if value.requires_grad]
    if not kept:
        return [torch.zeros_like(one) for one in by]
    moving, weights = zip(*kept, strict=True)
    return torch.autograd.grad(moving, by, weights, materialize_grads=True)


class _Cut:
    """While open, a model hands its output on as a leaf, so that what comes after stands alone."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self.calls = model, 0
        self.output = self.leaf = torch.empty(0)

    def __enter__(self) -> "_Cut":
        self._hook = self._model.register_forward_hook(self._hand_on)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _hand_on(self, model: nn.Module, given: Any, output: Any) -> Any:  # noqa: ARG002  (PyTorch calls it so)
        self.calls += 1
        if not isinstance(output, torch.Tensor):
            return output
        self.output, self.leaf = output, output.detach().requires_grad_()
        return self.leaf


class _Whole(nn.Module):
    """Model and loss as one module, so that parameters are put into both."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, batch: Any) -> torch.Tensor:
        """The loss."""
        return self._loss(self.model, batch)
