"""Laws of one delay: one file a family."""

from stalewise.delays.laws.base import AbstractContinuous, AbstractDelay, Constant, Equilibrium, Sum
from stalewise.delays.laws.heavy import Lognormal, Pareto, Weibull
from stalewise.delays.laws.light import Exponential, Gamma, Normal, ShiftedExponential, Uniform
from stalewise.delays.laws.mixtures import AbstractChoice, Hyperexponential, Mixture, Regimes
from stalewise.delays.laws.repeats import repeated
from stalewise.delays.laws.sampled import AbstractSampled, Empirical, Replay

__all__ = [
    "AbstractChoice",
    "AbstractContinuous",
    "AbstractDelay",
    "AbstractSampled",
    "Constant",
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
    "repeated",
]
