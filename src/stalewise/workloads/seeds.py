"""Random numbers of a user's code, which may well be NumPy's legacy ones."""

# ruff: noqa: NPY002

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global random numbers of PyTorch, NumPy and Python begin at ``seed`` inside, and go on as before afterwards."""
    python, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpys)
            random.setstate(python)
