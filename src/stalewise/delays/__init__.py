"""How long one gradient takes [s]: laws, sums, Laplace transforms, fitting."""

from stalewise.delays.laws import (
    AbstractDelay,
    Constant,
    Empirical,
    Exponential,
    Gamma,
    Lognormal,
    Replay,
    ShiftedExponential,
    Sum,
    Uniform,
)
from stalewise.delays.text import parse_delay

__all__ = [
    "AbstractDelay",
    "Constant",
    "Empirical",
    "Exponential",
    "Gamma",
    "Lognormal",
    "Replay",
    "ShiftedExponential",
    "Sum",
    "Uniform",
    "parse_delay",
]
