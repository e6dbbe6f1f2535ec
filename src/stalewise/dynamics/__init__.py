"""How it converges: delay equation and delayed recursion; roots, limits, moments."""

from stalewise.dynamics.batch import Settling, settle, settle_together, step_limits
from stalewise.dynamics.best import BestStaleness, FastestGain, best_staleness, fastest_gain
from stalewise.dynamics.best_schedule import BestChoice, best_threshold, best_workers
from stalewise.dynamics.counted import Dispersion, decay_along, dispersion
from stalewise.dynamics.half_step import fleet_gain_limit, fleet_root, shortened
from stalewise.dynamics.inertia import NO_INERTIA, Inertia, StepFilter
from stalewise.dynamics.limits import (
    StepLimit,
    constant_step_limit,
    decay_of,
    decay_rate,
    jitter_weight,
    learning_rate_at,
    stationary_variance,
    step_limit,
)
from stalewise.dynamics.memoryless import memoryless_second_moment, memoryless_step_limit
from stalewise.dynamics.recursion import decay_per_update, noise_response, reciprocal_series, transient
from stalewise.dynamics.roots import (
    Root,
    are_stable,
    characteristic_roots,
    gain_limit,
    index_root,
    index_roots,
    is_stable,
    rightmost_root,
    rightmost_roots,
)
from stalewise.dynamics.sdde import SDDE, ArrivalEquation, HittingTimes, Jumps, LossTimes, ModeLoss, SamplePaths

__all__ = [
    "NO_INERTIA",
    "SDDE",
    "ArrivalEquation",
    "BestChoice",
    "BestStaleness",
    "Dispersion",
    "FastestGain",
    "HittingTimes",
    "Inertia",
    "Jumps",
    "LossTimes",
    "ModeLoss",
    "Root",
    "SamplePaths",
    "Settling",
    "StepFilter",
    "StepLimit",
    "are_stable",
    "best_staleness",
    "best_threshold",
    "best_workers",
    "characteristic_roots",
    "constant_step_limit",
    "decay_along",
    "decay_of",
    "decay_per_update",
    "decay_rate",
    "dispersion",
    "fastest_gain",
    "fleet_gain_limit",
    "fleet_root",
    "gain_limit",
    "index_root",
    "index_roots",
    "is_stable",
    "jitter_weight",
    "learning_rate_at",
    "memoryless_second_moment",
    "memoryless_step_limit",
    "noise_response",
    "reciprocal_series",
    "rightmost_root",
    "rightmost_roots",
    "settle",
    "settle_together",
    "shortened",
    "stationary_variance",
    "step_limit",
    "step_limits",
    "transient",
]
