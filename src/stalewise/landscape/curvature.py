"""The largest curvature of a network: read from a landscape file, or measured at its first parameters."""

from typing import TYPE_CHECKING

import numpy as np

from stalewise.errors import InputError, NotConvergedError
from stalewise.landscape.result import Landscape, load_landscape
from stalewise.landscape.spectrum import leading
from stalewise.study import Workload
from stalewise.workloads import load_network

if TYPE_CHECKING:
    from stalewise.workloads.network import Network, Vector

MOST_PRODUCTS = 600


def leading_curvature(network: "Network", parameters: "Vector", *, seed: int = 0) -> float:
    """Largest Hessian eigenvalue at ``parameters``, by Lanczos on exact Hessian products, to about 1e-4.

    Args:
        network: Its loss on all training data.
        parameters: Where, shape (size,).
        seed: Of Lanczos' first vector.
    """
    first = np.random.default_rng(seed).standard_normal(network.size)
    with network.blaming():
        found = leading(network.derivatives(parameters).hessian, network.size, 1, MOST_PRODUCTS, first).values
    if len(found) == 0:
        raise NotConvergedError(f"the largest curvature has not separated after {MOST_PRODUCTS} Hessian products")
    return float(found[0])


_KNOWN: dict[str, float] = {}


def curvature_of(workload: Workload) -> tuple[float, str]:
    """Largest curvature of a network and, in words, where it was found.

    From the workload's landscape file, the largest of its places, if it names one; else `leading_curvature` at the
    first parameters, which is kept, for it does not change.

    Raises:
        InputError: The file is missing, is no landscape, or that of something else.
        NotConvergedError: See `leading_curvature`.
    """
    if workload.landscape_path is not None:
        place = _landscape(workload).stiffest
        if place.curvature <= 0:
            raise InputError(f"workload.landscape: {workload.landscape_path.name} has no curvature above zero")
        after = f"after {place.updates} updates of SGD" if place.updates else "at its start"
        return place.curvature, f"{after}, by {workload.landscape_path.name}"
    name = f"{workload.folder} {workload.model_dump_json()}"
    if name not in _KNOWN:
        network = load_network(workload)
        _KNOWN[name] = leading_curvature(network, network.start(0))
    return _KNOWN[name], "at its start"


def _landscape(workload: Workload) -> Landscape:
    """A workload's landscape file; an error if it was measured on something else."""
    assert workload.landscape_path is not None
    found = load_landscape(workload.landscape_path)
    for field, asked in (("kind", workload.kind), ("options", workload.options)):
        measured = found.workload.get(field, {})
        if measured != asked:
            raise InputError(
                f"workload.landscape: {workload.landscape_path.name} was measured with {field} = {measured!r}, the "
                f"study has {asked!r}; measure anew"
            )
    return found
