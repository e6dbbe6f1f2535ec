"""Versions of the parameters, and workers' gradients, in memory that the processes of one node share.

The memory has no name: its file descriptor goes from the server to the workers over a Unix socket, and the kernel frees
it when the last of them is gone, however it went.
"""

import mmap
import os
import tempfile
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import NotConvergedError

Vector = NDArray[np.float32]
ALIGNED = 1024  # float32 values: a page


class Memory:
    """Rows of one vector each: first those for versions of the parameters, then one for each worker's gradient.

    Args:
        size: Values of a vector.
        versions: Rows for versions.
        gradients: Rows for gradients.
        descriptor: Of the memory, where it is there already.

    Attributes:
        descriptor: To hand to another process of this node.
        shape: size, versions, gradients.
    """

    def __init__(self, size: int, versions: int, gradients: int, descriptor: int | None = None) -> None:
        stride = -(-size // ALIGNED) * ALIGNED
        length = 4 * stride * (versions + gradients)
        self.descriptor = _new(length) if descriptor is None else descriptor
        self.shape = (size, versions, gradients)
        rows = np.frombuffer(mmap.mmap(self.descriptor, length), np.float32).reshape(-1, stride)[:, :size]
        self.versions, self.gradients = rows[:versions], rows[versions:]

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last array that shows it."""
        os.close(self.descriptor)


class Slots:
    """Which rows of a `Memory` hold versions that somebody may still read."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._readers: Counter[int] = Counter()

    def take(self) -> int:
        """A free row, with one reader."""
        if not self._free:
            raise NotConvergedError("no memory left for another version of the parameters")
        row = self._free.pop()
        self._readers[row] = 1
        return row

    def hold(self, row: int) -> None:
        """One more reader."""
        self._readers[row] += 1

    def release(self, row: int) -> bool:
        """One reader less; whether that was the last, which frees the row."""
        self._readers[row] -= 1
        if self._readers[row] > 0:
            return False
        del self._readers[row]
        self._free.append(row)
        return True


def _new(length: int) -> int:
    """A descriptor of fresh memory of that many bytes."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("stalewise")
    else:  # no name either: the file is gone from its folder at once
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, length)
    return descriptor
