"""Compression of gradients at the workers; see `stalewise.protocol.compression`."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stalewise.protocol import Compression

Vector = NDArray[np.float32]
Payload = tuple[Any, ...]


class Compressor:
    """Makes gradients small and whole again, and remembers for each worker what was left out."""

    def __init__(self, compression: Compression, size: int) -> None:
        self._how, self._size = compression, size
        self._left: dict[int, Vector] = {}
        self._before: dict[int, Vector | None] = {}

    def pack(self, worker: int, gradient: Vector) -> Payload:
        """What ``worker`` sends of its gradient, shape (size,)."""
        match self._how.kind:
            case "none":
                return (gradient,)
            case "bfloat16":
                return (torch.from_numpy(gradient).bfloat16().view(torch.int16).numpy(),)
        whole = gradient + self._left[worker] if worker in self._left else gradient.copy()
        places = torch.topk(torch.from_numpy(np.abs(whole)), self._how.kept(self._size), sorted=False).indices.numpy()
        values = whole[places]
        whole[places] = 0.0
        self._before[worker], self._left[worker] = self._left.get(worker), whole
        return (places.astype(np.uint32), values)

    def undo(self, worker: int) -> None:
        """What ``worker`` packed last was stopped on its way: what it had left out before is left out again."""
        if worker not in self._before:
            return
        before = self._before.pop(worker)
        if before is None:
            del self._left[worker]
        else:
            self._left[worker] = before

    def unpack(self, payload: Payload) -> Vector:
        """The gradient that arrives, shape (size,)."""
        match self._how.kind:
            case "none":
                return payload[0]
            case "bfloat16":
                return torch.from_numpy(np.array(payload[0])).view(torch.bfloat16).float().numpy()
        gradient = np.zeros(self._size, np.float32)
        gradient[payload[0]] = payload[1]
        return gradient

    def sent(self, worker: int, gradient: Vector) -> Vector:
        """What arrives of ``worker``'s gradient, where both ends are here."""
        return self.unpack(self.pack(worker, gradient))
