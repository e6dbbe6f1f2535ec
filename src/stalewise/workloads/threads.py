"""How many threads of PyTorch compute."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def threads(most: int) -> Iterator[None]:
    """At most so many threads of PyTorch inside: more than there is work for wait for one another."""
    import torch  # noqa: PLC0415  (an extra)

    before = torch.get_num_threads()
    torch.set_num_threads(min(most, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
