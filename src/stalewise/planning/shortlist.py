"""A first, rough look at many structures: settling times over a ladder of learning rates, compiled."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stalewise.dynamics import settle_together, step_limits
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
    spectrum = study.workload.modes()
    if not timing.rate > 0.0:  # nothing is ever applied
        rate = study.schedule.learning_rate or rounded(margin / float(spectrum.eigenvalues.max()))
        return Guess(study.with_schedule(learning_rate=rate), timing, math.inf, math.inf)
    seen = timing.coarse
    limit = float(step_limits([seen])[0])
    inert = 1.0 / (1.0 - study.schedule.momentum)
    pull = spectrum.eigenvalues * study.schedule.local_steps * seen.weight_mean * seen.block * inert
    if study.schedule.learning_rate:
        rates = np.array([study.learning_rate])
    else:
        rates = margin * limit / pull.max() * RATIO ** np.arange(RUNGS)
    samples = study.batch_size * seen.averaged
    noise = (rates[:, None] * inert) ** 2 * spectrum.noise * (seen.block * seen.weight_square / samples)
    time, floor = settle_together(
        seen, rates[:, None] * pull, spectrum.eigenvalues, noise, spectrum.start, study.target.loss, limit=limit
    )
    order = np.lexsort((floor, time))
    best = int(order[0])
    at = study if study.schedule.learning_rate else study.with_schedule(learning_rate=rounded(float(rates[best])))
    return Guess(at, timing, float(time[best]), float(floor[best]))
