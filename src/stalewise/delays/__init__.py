"""How long one gradient takes [s]: laws, sums, Laplace transforms, fitting."""

from stalewise.delays.fitting import Cost, DelayFit, WorkerFit, fit_delay
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
from stalewise.delays.text import files_of, parse_delay, rename_files

__all__ = [
    "AbstractDelay",
    "Constant",
    "Cost",
    "DelayFit",
    "Empirical",
    "Exponential",
    "Gamma",
    "Lognormal",
    "Replay",
    "ShiftedExponential",
    "Sum",
    "Uniform",
    "WorkerFit",
    "files_of",
    "fit_delay",
    "parse_delay",
    "rename_files",
]
