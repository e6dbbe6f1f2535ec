"""A step of the server is one of torch.optim.SGD."""

import numpy as np
import pytest
import torch

from stalewise.protocol import Descent


@pytest.mark.parametrize(
    ("momentum", "nesterov", "decay"), [(0.0, False, 0.0), (0.0, False, 0.1), (0.9, False, 0.1), (0.5, True, 0.0)]
)
def test_steps_are_those_of_torch(momentum, nesterov, decay):
    """Ten steps along random gradients end where PyTorch's optimiser does, to rounding."""
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(50).astype(np.float32), rng.standard_normal((10, 50)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimiser = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    descent = Descent(0.1, momentum, nesterov, decay)
    ours, velocity = start, np.zeros_like(start)
    for gradient in gradients:
        ours, velocity = descent.step(ours, velocity, gradient)
        theirs.grad = torch.from_numpy(gradient.copy())
        optimiser.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-5, atol=1e-6)
