"""Characteristic roots: of the delay equation, certified, for any law of delay."""

from stalewise.dynamics.roots.continuous import (
    Root,
    characteristic_roots,
    gain_limit,
    is_stable,
    rightmost_root,
    rightmost_roots,
)

__all__ = ["Root", "characteristic_roots", "gain_limit", "is_stable", "rightmost_root", "rightmost_roots"]
