"""Which schedule: search, explanation, check."""

from stalewise.planning.plan import Plan, plan

__all__ = ["Plan", "plan"]
