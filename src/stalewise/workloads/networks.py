"""Networks to train: parameters as one flat vector, gradients from numbered batches."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError, MissingExtraError

Vector = NDArray[np.float32]


class AbstractNetwork(ABC):
    """A network, its data and its loss, seen as functions of one flat parameter vector.

    A batch is named by (seed, worker, index): the same name gives the same samples in every engine and process.
    """

    size: int

    @abstractmethod
    def start(self, seed: int) -> Vector:
        """First parameters, shape (size,)."""

    @abstractmethod
    def gradient(self, parameters: Vector, batch: tuple[int, int, int], batch_size: int) -> tuple[Vector, float]:
        """Gradient, shape (size,), and loss of the batch named (seed, worker, index)."""

    def local_gradient(
        self, parameters: Vector, batch: tuple[int, int, int], batch_size: int, steps: int, learning_rate: float
    ) -> Vector:
        """What a worker sends after ``steps`` steps of SGD by itself, shape (size,): its move over -learning_rate.

        Of one step that is the gradient. ``batch`` names the first step's samples, and the steps after it count on.
        """
        seed, worker, index = batch
        if steps == 1:
            return self.gradient(parameters, batch, batch_size)[0]
        rate, here = np.float32(learning_rate), parameters
        for step in range(steps):
            gradient, _ = self.gradient(here, (seed, worker, index + step), batch_size)
            here = np.asarray(here - rate * gradient, np.float32)
        return (parameters - here) / rate

    @abstractmethod
    def loss(self, parameters: Vector) -> float:
        """Training loss on all of the data."""

    @abstractmethod
    def hessian_product(self, parameters: Vector, direction: Vector) -> Vector:
        """Hessian of `loss` at ``parameters`` times ``direction``, shape (size,)."""

    @abstractmethod
    def accuracy(self, parameters: Vector) -> float:
        """Share of the held-out data classified right, 0 to 1."""


def load_network(kind: str) -> AbstractNetwork:
    """Build a network by its workload kind.

    Raises:
        MissingExtraError: PyTorch or scikit-learn is not installed.
    """
    if kind != "digits-mlp":
        raise InputError(f"workload.kind must be digits-mlp for a network, got {kind!r}")
    try:
        from stalewise.workloads.digits import DigitsMLP  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "torch") from None
    return DigitsMLP()
