"""The delay equation with noise: moments by formula, sample paths, hitting times; the loss of many modes."""

from stalewise.dynamics.sdde.arrivals import ArrivalEquation
from stalewise.dynamics.sdde.ensemble import HittingTimes, SamplePaths
from stalewise.dynamics.sdde.equation import SDDE, Jumps
from stalewise.dynamics.sdde.loss import LossTimes, ModeLoss

__all__ = ["SDDE", "ArrivalEquation", "HittingTimes", "Jumps", "LossTimes", "ModeLoss", "SamplePaths"]
