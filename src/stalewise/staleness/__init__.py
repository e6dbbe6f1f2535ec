"""How old a gradient is: update rate, staleness, age."""

from stalewise.staleness.arrivals import arrivals
from stalewise.staleness.clusters import GroupStaleness, cluster_staleness, conditional_law
from stalewise.staleness.law import (
    CONSTANT,
    StalenessLaw,
    has_formula,
    is_exponential,
    law_from_counts,
    mixed_poisson,
    staleness_law,
)
from stalewise.staleness.link import link_rate
from stalewise.staleness.poisson import PoissonError, poisson_error
from stalewise.staleness.rounds import kth_of, longest_of
from stalewise.staleness.simplify import simplification_costs
from stalewise.staleness.timing import Arrivals, FirstSteps

__all__ = [
    "CONSTANT",
    "Arrivals",
    "FirstSteps",
    "GroupStaleness",
    "PoissonError",
    "StalenessLaw",
    "arrivals",
    "cluster_staleness",
    "conditional_law",
    "has_formula",
    "is_exponential",
    "kth_of",
    "law_from_counts",
    "link_rate",
    "longest_of",
    "mixed_poisson",
    "poisson_error",
    "simplification_costs",
    "staleness_law",
]
