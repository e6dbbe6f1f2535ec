"""Leading Hessian eigenvalue of a network's training loss."""

import functools

import numpy as np
from scipy.sparse.linalg import aslinearoperator, eigsh

from stalewise.workloads import AbstractNetwork, load_network
from stalewise.workloads.networks import Vector


def leading_curvature(network: AbstractNetwork, parameters: Vector, *, seed: int = 0) -> float:
    """Largest Hessian eigenvalue at ``parameters``, by Lanczos on exact Hessian products, to about 1e-3.

    Args:
        network: Its loss on all training data.
        parameters: Where, shape (size,).
        seed: Of Lanczos' first vector.
    """
    operator = aslinearoperator(_Hessian(network, parameters))
    first = np.random.default_rng(seed).standard_normal(network.size).astype(np.float32)
    found = eigsh(operator, k=1, which="LA", v0=first, tol=1e-3, return_eigenvectors=False)  # type: ignore[arg-type]
    return float(np.ravel(found)[0])


@functools.lru_cache(maxsize=16)
def curvature_at_start(kind: str, seed: int = 0) -> float:
    """`leading_curvature` of a workload kind at its first parameters; kept, for it does not change."""
    network = load_network(kind)
    return leading_curvature(network, network.start(seed))


class _Hessian:
    """What SciPy needs to see a linear operator."""

    dtype = np.dtype(np.float32)

    def __init__(self, network: AbstractNetwork, parameters: Vector) -> None:
        self.shape = (network.size, network.size)
        self._network, self._parameters = network, parameters

    def matvec(self, direction: Vector) -> Vector:
        """Hessian times ``direction``."""
        return self._network.hessian_product(self._parameters, direction)
