"""``digits-mlp``: a small ReLU network on scikit-learn's bundled handwritten digits (1,797 images of 8 x 8)."""

import itertools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from stalewise import checks
from stalewise.workloads.task import Task

HELD_OUT = 297


def digits_mlp(width: int = 64, layers: int = 2) -> Task:
    """64-width-...-10 with cross-entropy, He's initialisation; 1,500 images to train on, 297 held out.

    Args:
        width: Units of a hidden layer.
        layers: Hidden layers.

    Raises:
        InputError: One of them is no such number.
    """
    checks.at_least("workload.options: width", width, 1)
    checks.at_least("workload.options: layers", layers, 0)
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x = torch.tensor(images[order] / 16.0, dtype=torch.float32)
    y = torch.tensor(labels[order], dtype=torch.int64)
    sizes = [64] + [width] * layers
    hidden = [part for pair in itertools.pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(sizes[-1], 10))
    initialise(model)
    return Task(
        model, nn.CrossEntropyLoss(), (x[:-HELD_OUT], y[:-HELD_OUT]), (x[-HELD_OUT:], y[-HELD_OUT:]), share_right
    )


def initialise(model: nn.Module) -> None:
    """He's initialisation of linear and convolutional layers, zero biases."""
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def share_right(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Share of a batch classified right."""
    x, y = batch
    return (model(x).argmax(1) == y).float().mean()
