"""How loops over events and over paths are compiled: without reference counting.

numba counts a reference whenever an array is handed to a function or given another name, with an atomic instruction
each time, which is more than the work of an event itself. So here it is off: such functions cannot allocate, their
caller hands them all the room they need and keeps it alive.
"""

from typing import Any

from numba import njit

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}
_LANES: dict[str, Any] = {**_OPTIONS, "error_model": "numpy", "fastmath": {"contract"}}

compiled = njit(**_OPTIONS)
"""Compile a loop."""

inlined = njit(**_OPTIONS, forceinline=True)
"""Compile a part of a loop into it."""

lanewise = njit(**_LANES)
"""Compile a loop over lanes of equal work so that it becomes vector instructions: products and sums may fuse (the last
digits then differ between processors), and dividing by zero raises nothing, for a branch would forbid it.
"""

lanewise_part = njit(**_LANES, forceinline=True)
"""The same for a part of such a loop."""
