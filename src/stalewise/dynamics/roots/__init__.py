"""Characteristic roots, certified: of the delay equation under any law of delay, and of the index equation."""

from stalewise.dynamics.roots.continuous import (
    are_stable,
    characteristic_roots,
    gain_limit,
    is_stable,
    rightmost_root,
    rightmost_roots,
)
from stalewise.dynamics.roots.discrete import index_root, index_roots
from stalewise.dynamics.roots.search import Root

__all__ = [
    "Root",
    "are_stable",
    "characteristic_roots",
    "gain_limit",
    "index_root",
    "index_roots",
    "is_stable",
    "rightmost_root",
    "rightmost_roots",
]
