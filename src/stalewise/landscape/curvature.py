"""Leading Hessian eigenvalue of a network's training loss."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.linalg import aslinearoperator, eigsh

from stalewise.study import Workload
from stalewise.workloads import load_network

if TYPE_CHECKING:
    from stalewise.workloads.network import Network, Vector


def leading_curvature(network: "Network", parameters: "Vector", *, seed: int = 0) -> float:
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


_KNOWN: dict[str, float] = {}


def curvature_at_start(workload: Workload) -> float:
    """`leading_curvature` of a workload at its first parameters; kept, for it does not change."""
    name = f"{workload.folder} {workload.model_dump_json()}"
    if name not in _KNOWN:
        network = load_network(workload)
        _KNOWN[name] = leading_curvature(network, network.start(0))
    return _KNOWN[name]


class _Hessian:
    """What SciPy needs to see a linear operator."""

    dtype = np.dtype(np.float32)

    def __init__(self, network: "Network", parameters: "Vector") -> None:
        self.shape = (network.size, network.size)
        self._network, self._parameters = network, parameters

    def matvec(self, direction: "Vector") -> "Vector":
        """Hessian times ``direction``."""
        return self._network.hessian_product(self._parameters, direction)
