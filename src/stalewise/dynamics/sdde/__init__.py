"""The delay equation with noise: moments by formula, sample paths, hitting times."""

from stalewise.dynamics.sdde.arrivals import ArrivalEquation
from stalewise.dynamics.sdde.ensemble import HittingTimes, SamplePaths
from stalewise.dynamics.sdde.equation import SDDE, Jumps

__all__ = ["SDDE", "ArrivalEquation", "HittingTimes", "Jumps", "SamplePaths"]
