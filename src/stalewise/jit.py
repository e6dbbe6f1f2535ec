"""How loops over events are compiled: without reference counting.

numba counts a reference whenever an array is handed to a function or given another name, with an atomic instruction
each time, which is more than the work of an event itself. So here it is off: such functions cannot allocate, their
caller hands them all the room they need and keeps it alive.
"""

from typing import Any

from numba import njit

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}

compiled = njit(**_OPTIONS)
"""Compile a loop."""

inlined = njit(**_OPTIONS, forceinline=True)
"""Compile a part of a loop into it."""
