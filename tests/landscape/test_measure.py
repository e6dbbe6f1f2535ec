"""What is measured, by another route."""

import pytest
import torch
from torch.func import functional_call

from stalewise.landscape import leading_curvature, measure
from stalewise.study import Workload
from stalewise.workloads import load_network

DIGITS = Workload(kind="digits-mlp")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def test_leading_curvature_is_that_of_the_dense_hessian():
    """Differentiated twice by torch.func, another route; a network of 682 parameters on all of its data."""
    network = load_network(Workload(kind="digits-mlp", options={"width": 8}))
    start, task = network.start(0), network._build()
    names = [name for name, _ in task.model.named_parameters()]

    def loss(flat):
        weights = dict(zip(names, network.parts(flat), strict=True))
        return task.loss(functional_call(task.model, weights, (task.data[0],)), task.data[1])

    dense = torch.func.hessian(loss)(torch.from_numpy(start).clone())
    assert leading_curvature(network, start) == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-3)


def test_noise_falls_with_the_batch():
    """Four times the batch, a quarter of the variance (within 4.5 standard errors); the same noise scale."""
    small, large = measure(DIGITS, batch_size=8), measure(DIGITS, batch_size=32)
    error = 4 * large.gradient_noise["standard_error"] + small.gradient_noise["standard_error"]
    difference = small.gradient_noise["variance"] - 4 * large.gradient_noise["variance"]
    assert abs(difference) < 4.5 * error
    assert small.noise_scale == pytest.approx(large.noise_scale, rel=0.3)
