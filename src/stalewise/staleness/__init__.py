"""How old a gradient is: update rate, staleness, age."""

from stalewise.staleness.arrivals import Arrivals, arrivals, longest_of
from stalewise.staleness.law import (
    CONSTANT,
    StalenessLaw,
    has_formula,
    is_exponential,
    law_from_counts,
    mixed_poisson,
    staleness_law,
)
from stalewise.staleness.simplify import simplification_costs

__all__ = [
    "CONSTANT",
    "Arrivals",
    "StalenessLaw",
    "arrivals",
    "has_formula",
    "is_exponential",
    "law_from_counts",
    "longest_of",
    "mixed_poisson",
    "simplification_costs",
    "staleness_law",
]
