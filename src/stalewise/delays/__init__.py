"""How long one gradient takes [s]: laws, sums, Laplace transforms, fitting."""

from stalewise.delays.fitting import Cost, DelayFit, WorkerFit, fit_delay
from stalewise.delays.laws import (
    AbstractChoice,
    AbstractDelay,
    Constant,
    Empirical,
    Equilibrium,
    Exponential,
    Gamma,
    Hyperexponential,
    Lognormal,
    Mixture,
    Normal,
    Pareto,
    Regimes,
    Replay,
    ShiftedExponential,
    Sum,
    Uniform,
    Weibull,
)
from stalewise.delays.text import files_of, parse_delay, rename_files
from stalewise.delays.workers import Workers

__all__ = [
    "AbstractChoice",
    "AbstractDelay",
    "Constant",
    "Cost",
    "DelayFit",
    "Empirical",
    "Equilibrium",
    "Exponential",
    "Gamma",
    "Hyperexponential",
    "Lognormal",
    "Mixture",
    "Normal",
    "Pareto",
    "Regimes",
    "Replay",
    "ShiftedExponential",
    "Sum",
    "Uniform",
    "Weibull",
    "WorkerFit",
    "Workers",
    "files_of",
    "fit_delay",
    "parse_delay",
    "rename_files",
]
