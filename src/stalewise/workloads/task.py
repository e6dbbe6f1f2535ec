"""What is trained, in the user's own terms: a factory that returns model, loss and data.

.. code-block:: python

    def factory(width=64):
        model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))
        data = DataLoader(TensorDataset(x, y), batch_size=64)
        return model, nn.MSELoss(), data

in ``my_module.py``, and ``kind = "my_module:factory"`` in the study.
"""

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stalewise.errors import InputError, MissingExtraError
from stalewise.study import BUILT_IN, Workload
from stalewise.workloads.blame import blaming

if TYPE_CHECKING:
    import torch

EXTRA = ("torch", "sklearn", "safetensors", "torchvision")


class Task(NamedTuple):
    """What a factory returns; a plain tuple of the first three will do.

    Attributes:
        model: Its trainable parameters, float32, are what is trained.
        loss: Called with model and batch, gives the mean loss over the batch; or a criterion (``nn.Module``), which is
            called with ``model(batch[0])`` and ``batch[1]``.
        data: A ``DataLoader``, a map-style ``Dataset``, or tensors whose first axis counts samples.
        held_out: Data of the same kind that is not trained on.
        score: Called with model and batch, gives what is told of ``held_out``: a mean over the batch, such as the share
            classified right. The loss unless given.
    """

    model: "torch.nn.Module"
    loss: "Callable[[torch.nn.Module, Any], torch.Tensor] | torch.nn.Module"
    data: Any
    held_out: Any = None
    score: "Callable[[torch.nn.Module, Any], torch.Tensor | float] | None" = None


@dataclass(frozen=True)
class Factory:
    """A factory with its options put in; called, it makes the task.

    Attributes:
        kind: The workload's.
        home: File of the module that holds it, if it has one.
        make: Makes the task.
    """

    kind: str
    home: str | None
    make: Callable[[], Any]

    def __call__(self) -> Task:
        """The task."""
        return _task(self.kind, self.make())

    def blaming(self) -> "contextlib.AbstractContextManager[None]":
        """While open, what the task raises becomes a `TaskError`."""
        return blaming(self.kind, self.home)


def find_factory(workload: Workload) -> Factory:
    """The factory behind a workload, with its options put in.

    Your own is looked up as Python does, and first in the folder of the study.

    Raises:
        InputError: There is no such module or function, or it does not take these options.
        MissingExtraError: A built-in one needs a package that is not installed.
        TaskError: Its module raises when it is imported.
    """
    kind = workload.kind
    module, _, name = BUILT_IN.get(kind, kind).partition(":")
    found = _import(kind, module, workload.folder)
    factory = getattr(found, name, None)
    if not callable(factory):
        raise InputError(f"workload.kind: module {module!r} has no function {name!r}")
    options = dict(workload.options)
    if workload.data_path is not None:
        options["data"] = str(workload.data_path)
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise InputError(f"workload.options: {kind} takes {inspect.signature(factory)}: {error}") from None
    return Factory(kind, getattr(found, "__file__", None), lambda: factory(**options))


def _import(kind: str, module: str, folder: Path) -> Any:
    place = str(folder)
    if kind not in BUILT_IN and place not in sys.path:
        sys.path.insert(0, place)
    with blaming(kind, None):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in EXTRA:
                raise MissingExtraError(missing, "torch") from None
            if missing != module.partition(".")[0]:
                raise
            raise InputError(
                f"workload.kind: there is no module {module!r} beside the study or on Python's path"
            ) from None


def _task(kind: str, made: Any) -> Task:
    fields = len(Task._fields)
    if not isinstance(made, tuple) or not 3 <= len(made) <= fields:
        raise InputError(f"workload.kind: {kind} must return (model, loss, data), got {type(made).__name__}")
    return Task(*made)
