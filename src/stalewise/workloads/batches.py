"""Batches by name: the same (seed, worker, index) gives the same samples in every engine and process."""

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from stalewise.errors import InputError
from stalewise.workloads.seeds import seeded

Name = tuple[int, int, int]
EVALUATED = 4096  # samples of a large data set on which its loss is told
CHUNK = 512  # told at once: what a convolution makes of more falls out of a core's cache


class AbstractBatches(ABC):
    """Data as batches.

    Attributes:
        batch_size: Samples a batch where the data say so themselves, else None.
    """

    batch_size: int | None

    @abstractmethod
    def draw(self, name: Name, size: int) -> Any:
        """The batch of this name, of ``size`` samples."""

    def round(self, most: int) -> int | None:  # noqa: ARG002  (of some data alone)
        """Batches after which the data begin anew; None if they never do, or not within ``most``."""
        return None

    def draw_stacked(self, names: Sequence[Name], size: int) -> Any:
        """Batches stacked along a new first axis, tensor by tensor.

        Raises:
            ValueError: They are not of one shape, or hold other things than tensors.
        """
        return _stacked([self.draw(name, size) for name in names])

    @abstractmethod
    def all(self, most: int = EVALUATED, part: int = CHUNK) -> Iterator[tuple[Any, int]]:
        """All of the data, or the same ``most`` samples of it, in batches of ``part`` with their sizes."""


class Addressed(AbstractBatches):
    """Data whose samples are numbered: a batch is drawn with replacement.

    What is random in a sample (augmentation) is seeded by the batch's name too.

    Attributes:
        count: Samples.
    """

    def __init__(self, dataset: Any, collate: Any = default_collate, batch_size: int | None = None) -> None:
        self.count = len(dataset)
        if self.count == 0:
            raise InputError("workload.data: the data set is empty")
        self._tensors = dataset.tensors if isinstance(dataset, TensorDataset) and collate is default_collate else None
        self._dataset, self._collate = dataset, collate
        self.batch_size = batch_size

    def draw(self, name: Name, size: int) -> Any:
        """The batch of this name."""
        return self._rows(self._chosen(name, size), hash((1, *name)))  # another seed than dropout's

    def draw_stacked(self, names: Sequence[Name], size: int) -> Any:
        """Rows of tensors are taken at once."""
        if self._tensors is None:
            return super().draw_stacked(names, size)
        return self._rows(np.stack([self._chosen(name, size) for name in names]))

    def _chosen(self, name: Name, size: int) -> np.ndarray:
        words = [1, *name]  # the same numbers as an array of 32 bits, which is three times as fast to seed with
        seed = np.array(words, np.uint32) if max(words) < 1 << 32 else words
        return np.random.default_rng(seed).integers(self.count, size=size)

    def all(self, most: int = EVALUATED, part: int = CHUNK) -> Iterator[tuple[Any, int]]:
        """All samples in order, or a fixed choice of them."""
        rows = np.arange(self.count)
        if self.count > most:
            rows = np.sort(np.random.default_rng(0).choice(self.count, most, replace=False))
        ends = [*range(part, len(rows) - (part > 1), part), len(rows)]  # none of one sample: that has no variance
        for begin, end in itertools.pairwise([0, *ends]):
            yield self._rows(rows[begin:end], begin), end - begin

    def _rows(self, rows: np.ndarray, seed: int = 0) -> Any:
        if self._tensors is not None:
            chosen = torch.from_numpy(rows)
            return tuple(tensor[chosen] for tensor in self._tensors)
        with seeded(seed & 0x7FFFFFFF):
            return self._collate([self._dataset[int(row)] for row in rows])


class Streamed(AbstractBatches):
    """A loader with an order of its own: a worker takes batch after batch, and begins anew at the end.

    A name means the same batch again if what is random in the loader is PyTorch's.
    """

    def __init__(self, loader: DataLoader) -> None:
        self._loader, self._whole = loader, _alone(loader)
        self.batch_size = loader.batch_size
        self._streams: dict[tuple[int, int], _Stream] = {}

    def draw(self, name: Name, size: int) -> Any:
        """The batch of this name; its size is the loader's."""
        if self.batch_size is not None and size != self.batch_size:
            raise InputError(
                f"schedule.batch_size must be the loader's own {self.batch_size}, for it samples by itself; got {size}"
            )
        *whose, index = name
        stream = self._streams.get((whose[0], whose[1]))
        if stream is None or index < stream.taken:
            stream = self._streams[whose[0], whose[1]] = _Stream(self._loader, hash(tuple(whose)))
        while stream.taken < index:
            stream.next()
        return stream.next()

    def round(self, most: int) -> int | None:
        """Batches of the loader, counted by walking through it once."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            count = sum(1 for _ in itertools.islice(self._whole, most + 1))
        return count if count <= most else None

    def all(self, most: int = EVALUATED, part: int = CHUNK) -> Iterator[tuple[Any, int]]:  # noqa: ARG002
        """The first batches of an order of its own, as large as the loader makes them."""
        seen = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for batch in self._whole:
                size = _length(batch)
                yield batch, size
                seen += size
                if seen >= most:
                    return


class _Stream:
    """A loader, over and over, with random numbers of its own."""

    def __init__(self, loader: DataLoader, seed: int) -> None:
        self._loader, self.taken = _alone(loader), 0
        self._batches: Iterator[Any] = iter(())
        self._state = torch.Generator().manual_seed(seed & 0x7FFFFFFF).get_state()

    def next(self) -> Any:
        """The next batch."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._state)
            batch = next(self._batches, None)
            if batch is None:
                self._batches = iter(self._loader)
                batch = next(self._batches, None)
            self._state = torch.get_rng_state()
        if batch is None:
            raise InputError("workload.data: the loader gives no batch")
        self.taken += 1
        return batch


def _alone(loader: DataLoader) -> DataLoader:
    """The same loader with an iterator of its own: where worker processes persist, a loader has only one."""
    own = copy.copy(loader)
    own._iterator = None
    return own


def batches_of(data: Any) -> AbstractBatches:
    """Data of a task as batches.

    Args:
        data: A loader, a map-style data set, a tensor, or a tuple of tensors of equal length.

    Raises:
        InputError: It is none of these.
    """
    if isinstance(data, DataLoader):
        plain = type(data.sampler) in (RandomSampler, SequentialSampler) and data.batch_size is not None
        if plain and not isinstance(data.dataset, IterableDataset):
            return Addressed(data.dataset, data.collate_fn, data.batch_size)
        return Streamed(data)
    if isinstance(data, torch.Tensor):
        data = (data,)
    if isinstance(data, tuple) and data and all(isinstance(part, torch.Tensor) for part in data):
        if any(part.ndim == 0 for part in data):
            raise InputError("workload.data: the first axis of a tensor counts samples, got one without axes")
        if len({len(part) for part in data}) > 1:
            raise InputError(f"workload.data: tensors must be of one length, got {[len(part) for part in data]}")
        return Addressed(TensorDataset(*data))
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return Addressed(data)
    raise InputError(
        f"workload.data: needs a DataLoader, a map-style Dataset or tensors, got {type(data).__name__}; wrap an "
        "iterable data set in a DataLoader"
    )


def _stacked(batches: Sequence[Any]) -> Any:
    first = batches[0]
    if isinstance(first, torch.Tensor):
        if any(batch.shape != first.shape for batch in batches):
            raise ValueError("batches of several shapes")
        return torch.stack(list(batches))
    if isinstance(first, dict):
        return {key: _stacked([batch[key] for batch in batches]) for key in first}
    if type(first) in (tuple, list):
        return type(first)(_stacked(parts) for parts in zip(*batches, strict=True))
    raise ValueError(f"batches hold {type(first).__name__}")


def _length(batch: Any) -> int:
    """Samples in a batch: the first tensor's first axis."""
    if isinstance(batch, torch.Tensor):
        return len(batch)
    if isinstance(batch, dict):
        batch = tuple(batch.values())
    return next((_length(part) for part in batch if isinstance(part, torch.Tensor | tuple | list | dict)), 1)


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch's tensors on ``device``."""
    if device.type == "cpu":
        return batch
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(part, device) for key, part in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(to_device(part, device) for part in batch)
    return batch
