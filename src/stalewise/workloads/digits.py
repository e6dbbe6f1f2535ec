"""``digits-mlp``: a small ReLU network on scikit-learn's bundled handwritten digits (1,797 images of 8 x 8)."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from stalewise.workloads.networks import AbstractNetwork, Vector

HELD_OUT = 297


class DigitsMLP(AbstractNetwork):
    """64-64-64-10 with ReLU and cross-entropy; 1,500 images to train on, 297 held out."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        x = torch.tensor(images[order] / 16.0, dtype=torch.float32)
        y = torch.tensor(labels[order], dtype=torch.int64)
        self._x, self._y = x[:-HELD_OUT], y[:-HELD_OUT]
        self._held_out = x[-HELD_OUT:], y[-HELD_OUT:]
        self._model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.size = sum(p.numel() for p in self._model.parameters())
        self._flat = torch.zeros(self.size)
        self._gradient = torch.zeros(self.size)
        at = 0
        for parameter in self._model.parameters():
            part = slice(at, at + parameter.numel())
            parameter.data = self._flat[part].view_as(parameter)
            parameter.grad = self._gradient[part].view_as(parameter)
            at += parameter.numel()

    def start(self, seed: int) -> Vector:
        """He initialisation of the weights, zero biases."""
        rng = np.random.default_rng([seed, 0])
        parts = []
        for parameter in self._model.parameters():
            scale = (2.0 / parameter.shape[1]) ** 0.5 if parameter.ndim == 2 else 0.0
            parts.append(scale * rng.standard_normal(parameter.numel()))
        return np.concatenate(parts).astype(np.float32)

    def gradient(self, parameters: Vector, batch: tuple[int, int, int], batch_size: int) -> tuple[Vector, float]:
        """Gradient and loss of a batch drawn with replacement."""
        rows = torch.from_numpy(np.random.default_rng([1, *batch]).integers(len(self._y), size=batch_size))
        self._flat.numpy()[:] = parameters
        self._gradient.zero_()
        loss = functional.cross_entropy(self._model(self._x[rows]), self._y[rows])
        loss.backward()
        return self._gradient.numpy().copy(), float(loss.detach())

    def loss(self, parameters: Vector) -> float:
        """Cross-entropy on the 1,500 training images."""
        with torch.no_grad():
            self._flat.numpy()[:] = parameters
            return float(functional.cross_entropy(self._model(self._x), self._y))

    def hessian_product(self, parameters: Vector, direction: Vector) -> Vector:
        """Exact product by differentiating the gradient once more."""
        self._flat.numpy()[:] = parameters
        weights = list(self._model.parameters())
        loss = functional.cross_entropy(self._model(self._x), self._y)
        gradient = torch.cat([g.ravel() for g in torch.autograd.grad(loss, weights, create_graph=True)])
        along = gradient @ torch.from_numpy(np.asarray(direction, np.float32).ravel().copy())
        return torch.cat([g.ravel() for g in torch.autograd.grad(along, weights)]).numpy()

    def accuracy(self, parameters: Vector) -> float:
        """Share of the 297 held-out images classified right."""
        x, y = self._held_out
        with torch.no_grad():
            self._flat.numpy()[:] = parameters
            return float((self._model(x).argmax(1) == y).float().mean())
