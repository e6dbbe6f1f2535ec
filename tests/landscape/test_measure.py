"""What is measured, by another route."""

import numpy as np
import pytest

from stalewise.landscape import leading_curvature, measure
from stalewise.workloads import load_network


def test_hessian_product_is_the_difference_of_gradients():
    """Along the leading direction the loss bends as the eigenvalue says (central difference, float32)."""
    network = load_network("digits-mlp")
    start = network.start(0)
    top = leading_curvature(network, start)
    direction = np.random.default_rng(1).standard_normal(network.size).astype(np.float32)
    for _ in range(200):
        direction = network.hessian_product(start, direction)
        direction /= np.linalg.norm(direction)
    assert float(direction @ network.hessian_product(start, direction)) == pytest.approx(top, rel=5e-3)
    step = np.float32(0.03)
    bend = network.loss(start + step * direction) - 2 * network.loss(start) + network.loss(start - step * direction)
    assert bend / step**2 == pytest.approx(top, rel=0.05)


def test_noise_falls_with_the_batch():
    """Four times the batch, a quarter of the variance (within 4.5 standard errors); the same noise scale."""
    small, large = measure("digits-mlp", batch_size=8), measure("digits-mlp", batch_size=32)
    error = 4 * large.gradient_noise["standard_error"] + small.gradient_noise["standard_error"]
    difference = small.gradient_noise["variance"] - 4 * large.gradient_noise["variance"]
    assert abs(difference) < 4.5 * error
    assert small.noise_scale == pytest.approx(large.noise_scale, rel=0.3)
