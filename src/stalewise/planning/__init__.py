"""Which schedule: search, explanation, check; and sweeps."""

from stalewise.planning.objectives import OBJECTIVES, Goal
from stalewise.planning.plan import Plan, plan
from stalewise.planning.sweep import Sweep, parse_axes, sweep

__all__ = ["OBJECTIVES", "Goal", "Plan", "Sweep", "parse_axes", "plan", "sweep"]
