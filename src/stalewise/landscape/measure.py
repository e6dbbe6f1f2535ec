"""A first look at a network's landscape: curvature, gradient noise, time of one gradient."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stalewise import checks
from stalewise.landscape.curvature import leading_curvature
from stalewise.study import Workload
from stalewise.workloads import load_network


@dataclass(frozen=True)
class Landscape:
    """What was measured at the first parameters.

    Attributes:
        curvature: Largest Hessian eigenvalue of the training loss.
        gradient_noise: Total variance of one batch's gradient over all parameters; ``standard_error`` of it.
        noise_scale: Batch size at which that variance equals the squared length of the mean gradient [samples].
        seconds_per_gradient: Median and 10 % to 90 % range of the time of one gradient here [s].
        batches: Gradients spent, each of ``batch_size`` samples.
    """

    curvature: float
    gradient_noise: dict[str, float]
    noise_scale: float | None
    seconds_per_gradient: dict[str, float]
    batches: int
    batch_size: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def measure(workload: Workload, *, batch_size: int | None = None, batches: int = 200, seed: int = 0) -> Landscape:
    r"""Measure a network at its first parameters.

    With B-sample gradients :math:`g_i` of mean :math:`\bar g`, the noise is :math:`S = \sum_i |g_i - \bar g|^2/(n-1)`
    and the noise scale :math:`B S/(|\bar g|^2 - S/n)`: the batch size at which noise and signal are equal (McCandlish
    et al. 2018, the simple noise scale). None where the mean gradient is lost in the noise.

    Args:
        workload: A network.
        batch_size: Samples a gradient; the loader's, or 32, unless given.
        batches: Gradients to spend, 2 or more.
        seed: Of the first parameters and the batches.
    """
    checks.at_least("batches", batches, 2)
    checks.at_least("seed", seed, 0)
    network = load_network(workload)
    batch_size = batch_size or network.batch_size or 32
    parameters = network.start(seed)
    gradients, seconds = [], []
    for index in range(batches + 1):
        begun = time.perf_counter()
        gradient, _ = network.gradient(parameters, (seed, 0, index), batch_size)
        if index > 0:  # the first one warms up
            seconds.append(time.perf_counter() - begun)
            gradients.append(gradient.astype(np.float64))
    mean = np.mean(gradients, axis=0)
    squares = np.array([float((g - mean) @ (g - mean)) for g in gradients])
    noise = float(squares.sum() / (batches - 1))
    signal = float(mean @ mean) - noise / batches
    low, median, high = (float(q) for q in np.quantile(seconds, [0.1, 0.5, 0.9]))
    return Landscape(
        curvature=leading_curvature(network, parameters, seed=seed),
        gradient_noise={"variance": noise, "standard_error": float(squares.std(ddof=1) / math.sqrt(batches))},
        noise_scale=batch_size * noise / signal if signal > 0 else None,
        seconds_per_gradient={"median": median, "low": low, "high": high},
        batches=batches,
        batch_size=batch_size,
    )
