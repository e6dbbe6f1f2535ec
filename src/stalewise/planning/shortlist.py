"""A first, rough look at many structures: settling times over a ladder of learning rates, compiled."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stalewise.dynamics import settle, step_limits
from stalewise.planning.search import MARGIN, rounded
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study

ROUGH = 0.05  # of the gradients counted where arrivals have no formula
RUNGS, RATIO = 20, 0.75  # of the ladder, each that share of the one above


@dataclass(frozen=True)
class Guess:
    """A structure with a learning rate that should suit it; its rough settling time [s] and noise floor."""

    study: Study
    timing: Arrivals
    time: float
    floor: float


def look(
    studies: Sequence[Study], seed: int, margin: float = MARGIN, say: Callable[[float, str], None] | None = None
) -> list[Guess]:
    """Guess at all of them."""
    found = []
    for done, one in enumerate(studies):
        if say is not None:
            say(done / len(studies), f"{one.policy} with {one.active_workers} workers")
        timing = arrivals(
            one if one.schedule.learning_rate else one.with_schedule(learning_rate=1.0), seed=seed, share=ROUGH
        )
        found.append(guess(one, timing, margin))
    return found


def guess(study: Study, timing: Arrivals, margin: float = MARGIN) -> Guess:
    """The best of a ladder of learning rates up to a share of the mean-square limit, or of the one that is given.

    The loss of all modes is to be below the target: each is given its own noise floor and an equal share of what is
    left. Momentum counts as a learning rate that is 1/(1 - momentum) times as large.
    """
    seen = timing.coarse
    limit = step_limits([seen])
    spectrum = study.workload.modes()
    inert = 1.0 / (1.0 - study.schedule.momentum)
    pull = spectrum.eigenvalues * study.schedule.local_steps * seen.weight_mean * seen.block * inert
    if study.schedule.learning_rate:
        rates = np.array([study.learning_rate])
    else:
        rates = margin * limit[0] / pull.max() * RATIO ** np.arange(RUNGS)
    step = rates[:, None] * pull
    samples = study.batch_size * seen.averaged
    noise = (rates[:, None] * inert) ** 2 * spectrum.noise * (seen.block * seen.weight_square / samples)
    wide = (len(rates), len(pull))
    half, start = (np.broadcast_to(one, wide).ravel()[None] for one in (spectrum.eigenvalues, spectrum.start))
    ones = (step.ravel()[None], half, noise.ravel()[None], start)
    floor = settle([seen], *ones, 1e300, limit=limit).floor.reshape(wide)
    left = study.target.loss - floor.sum(axis=1)
    begun = 0.5 * spectrum.eigenvalues * spectrum.start**2
    parts = max(int((begun > study.target.loss / len(begun)).sum()), 1)
    wanted = np.zeros(wide)
    wanted[left > 0] = floor[left > 0] + left[left > 0, None] / parts
    time = settle([seen], *ones, wanted.ravel()[None], limit=limit).time.reshape(wide).max(axis=1)
    time[~(left > 0)] = math.inf
    order = np.lexsort((floor.sum(axis=1), time))
    best = int(order[0])
    at = study if study.schedule.learning_rate else study.with_schedule(learning_rate=rounded(float(rates[best])))
    return Guess(at, timing, float(time[best]), float(floor[best].sum()))
