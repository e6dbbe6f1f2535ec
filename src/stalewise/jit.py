"""How loops over events and over paths are compiled: without reference counting.

numba counts a reference whenever an array is handed to a function or given another name, with an atomic instruction
each time, which is more than the work of an event itself. So here it is off: such functions cannot allocate, their
caller hands them all the room they need and keeps it alive.
"""

from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

_njit: Any = njit  # its stubs know few of its options
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False, "error_model": "numpy"}
_LANES: dict[str, Any] = {**_OPTIONS, "fastmath": {"contract"}}

_PART: dict[str, Any] = {**_OPTIONS, "cache": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

compiled = _njit(**_OPTIONS, no_cfunc_wrapper=True)
"""Compile a loop, for Python to call."""

called = _njit(**_PART)
"""Compile a part of loops, as a function of its own. Python must not call it, nor one that is inlined: what it would
go through takes as long to compile as the part, so there is none, and the process would crash.
"""

inlined = _njit(**_PART, forceinline=True)
"""Compile a part of a loop into it."""

lanewise = _njit(**_LANES)
"""Compile a loop over lanes of equal work so that it becomes vector instructions: products and sums may fuse (the last
digits then differ between processors), and dividing by zero raises nothing, for a branch would forbid it.
"""

lanewise_part = _njit(**_LANES, forceinline=True)
"""The same for a part of such a loop."""


def _as_double(typing_context, bits):  # noqa: ARG001
    """The float64 that these 64 bits are."""

    def generate(context, builder, signature, args):  # noqa: ARG001
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), generate


def _as_bits(typing_context, number):  # noqa: ARG001
    """The 64 bits of a float64."""

    def generate(context, builder, signature, args):  # noqa: ARG001
        return builder.bitcast(args[0], ir.IntType(64))

    return types.uint64(types.float64), generate


as_double: Any = intrinsic(_as_double)
as_bits: Any = intrinsic(_as_bits)
"""The same 64 bits read as a number, and back: how exponents are taken apart and put together."""
