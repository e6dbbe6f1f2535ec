"""Which gradients each step took and how old they were, recorded in virtual time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stalewise.simulation.events import HOLD, STEP
from stalewise.simulation.kernel import NOTHING, Records, run
from stalewise.simulation.quadratic import fleet_of
from stalewise.study import Study

WARM_UP = 30.0  # cycles that are not recorded


@dataclass(frozen=True, eq=False)
class Path:
    """A long run of one schedule, seen from the server.

    Attributes:
        staleness: Of every gradient applied, in updates, in order, shape (gradients,).
        ends: How many gradients had been applied by the end of each step, shape (steps,).
        times: When each step was taken [s], shape (steps,).
    """

    staleness: NDArray[np.int32]
    ends: NDArray[np.int64]
    times: NDArray[np.float64]


def recorded_path(study: Study, gradients: int, share_applied: float, rate: float, *, seed: int = 0) -> Path:
    """Run a study's schedule, without a trigger or a trainer, until about that many gradients have been applied.

    Args:
        study: Whose schedule; its workload does not matter.
        gradients: How many to apply.
        share_applied: Share of the gradients computed that are applied, or less.
        rate: Gradients applied a second.
        seed: Of the delays.
    """
    fleet = fleet_of(study.with_cluster(start="staggered"))
    warm = WARM_UP * fleet.mean_cycle
    rows = int(1.1 * (gradients + warm * rate) / share_applied) + 64
    log = np.zeros((rows, 4))
    grid = np.array([0.0, warm + gradients / rate])
    records = Records(grid, np.zeros(2), np.zeros(2), np.zeros(1, np.int64), log)
    rngs = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    counts = run(fleet, study.rules(), NOTHING, records, *rngs)
    log = log[: min(counts.events, rows)]
    log = log[np.searchsorted(log[:, 0], warm, side="right") :]
    stepped = log[:, 2] == STEP
    taken = np.cumsum(stepped | (log[:, 2] == HOLD))
    steps = np.flatnonzero(stepped)
    first, last = steps[0] + 1, steps[-1] + 1  # whole steps only
    ends, staleness = taken[steps[1:]] - taken[steps[0]], log[first:last, 3]
    if len(staleness) > ends[-1]:
        staleness = staleness[np.diff(taken[first - 1 : last]) > 0]
    return Path(staleness.astype(np.int32), ends, log[steps[1:], 0])
