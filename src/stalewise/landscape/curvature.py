"""Leading Hessian eigenvalue of a network's training loss."""

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from stalewise.workloads import AbstractNetwork
from stalewise.workloads.networks import Vector


def leading_curvature(network: AbstractNetwork, parameters: Vector, *, seed: int = 0) -> float:
    """Largest Hessian eigenvalue at ``parameters``, by Lanczos on exact Hessian products, to about 1e-3.

    Args:
        network: Its loss on all training data.
        parameters: Where, shape (size,).
        seed: Of Lanczos' first vector.
    """
    operator = LinearOperator(
        (network.size, network.size), matvec=lambda v: network.hessian_product(parameters, v), dtype=np.float32
    )
    first = np.random.default_rng(seed).standard_normal(network.size).astype(np.float32)
    return float(eigsh(operator, k=1, which="LA", v0=first, tol=1e-3, return_eigenvectors=False)[0])
