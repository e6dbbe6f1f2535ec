"""What is trained: networks, built in or the user's own, as functions of one flat parameter vector."""

from typing import TYPE_CHECKING

from stalewise.errors import MissingExtraError
from stalewise.study import Study, Workload
from stalewise.workloads.task import EXTRA, Task, find_factory

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

__all__ = ["Task", "load_network", "open_network"]


def load_network(workload: Workload, device: str = "cpu") -> "Network":
    """Build what a network study trains.

    Args:
        workload: Its kind, data and options.
        device: Where gradients are computed, in PyTorch's words: "cpu", "cuda", "cuda:1".

    Raises:
        InputError: Kind, data or options are wrong, or the factory returns something else than model, loss and data.
        MissingExtraError: PyTorch, or what a built-in workload needs besides, is not installed.
    """
    try:
        from stalewise.workloads.network import Network  # noqa: PLC0415  (PyTorch is an extra)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise MissingExtraError(error.name or "torch", "torch") from None
    return Network(find_factory(workload), device)


def open_network(study: Study) -> "tuple[Network, Study]":
    """A study's network, and the study with the batch size of the user's own loader where it names none."""
    network = load_network(study.workload)
    if study.schedule.batch_size is None and network.batch_size is not None:
        study = study.with_schedule(batch_size=network.batch_size)
    return network, study
