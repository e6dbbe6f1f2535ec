"""Which schedule: search, explanation, check."""

from stalewise.planning.objectives import OBJECTIVES, Goal
from stalewise.planning.plan import Plan, plan

__all__ = ["OBJECTIVES", "Goal", "Plan", "plan"]
