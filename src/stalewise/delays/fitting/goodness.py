"""Does the fitted law describe the delays? A test whose p-value knows that the law was fitted to them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.delays.fitting.ranking import Candidate, distance, is_constant
from stalewise.delays.fitting.sample import Sample, kaplan_meier
from stalewise.delays.laws import Constant

Array = NDArray[np.float64]

REPLICATES = 199
TESTED = 1000
_ENOUGH = 20


class Goodness(NamedTuple):
    """Kolmogorov-Smirnov test of a fitted law against ``points`` of the delays.

    The p-value is a parametric bootstrap: ``replicates`` samples of the fitted law, the same family fitted again to
    each, fewer where it is soon clear that the law fits. It takes
    draws to be independent. Where some delays are censored, the gap is
    to the Kaplan-Meier estimate, and replicates are censored at bounds drawn from the same estimate of the bounds' law.
    """

    ks: float
    p_value: float
    points: int
    replicates: int


def goodness_of_fit(
    best: Candidate, values: Array, censored: Array, rng: np.random.Generator, *, replicates: int = REPLICATES
) -> Goodness:
    """Test the best law; of more than `TESTED` delays that many are picked at random.

    After twenty replicates that lie further from their fit than the delays do it ends: p is then twenty over their
    number, as valid as the other (Besag & Clifford, 1991, Sequential Monte Carlo p-values).

    Source:
        Stute, Gonzalez-Manteiga & Presedo-Quindimil (1993), Bootstrap based goodness-of-fit tests; Efron (1981),
        Censored data and the bootstrap.
    """
    if isinstance(best.law, Constant):
        return Goodness(0.0, 1.0, len(values), 0)
    fit = best.family.fit
    x, bounds = _picked(values, censored, rng)
    if is_constant(x):  # nearly all equal, yet not all: no law with a density
        return Goodness(best.ks, 1.0 / (replicates + 1), len(x), replicates)
    law = fit(Sample.of(x, bounds)) or best.law
    observed = distance(law, x, bounds)
    size, times, survival = len(x) + len(bounds), *_bounds_law(x, bounds)
    beyond = 0
    for made in range(1, replicates + 1):
        draws = np.maximum(law.sample(size, rng), np.finfo(float).tiny)
        limits = _draw_bounds(times, survival, size, rng)
        ended = np.sort(draws[draws <= limits])
        lasting = np.sort(limits[draws > limits])
        if len(ended) < 4 or is_constant(ended):
            continue
        beyond += distance(fit(Sample.of(ended, lasting)) or law, ended, lasting) >= observed
        if beyond == _ENOUGH:
            return Goodness(observed, beyond / made, len(x), made)
    return Goodness(observed, (beyond + 1) / (replicates + 1), len(x), replicates)


def _picked(values: Array, censored: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    size = len(values) + len(censored)
    if size <= TESTED:
        return np.sort(values), np.sort(censored)
    kept = rng.choice(size, TESTED, replace=False)
    ended = kept < len(values)
    return np.sort(values[kept[ended]]), np.sort(censored[kept[~ended] - len(values)])


def _bounds_law(values: Array, censored: Array) -> tuple[Array, Array]:
    """Where the watching may end, and the probability that it goes on beyond: ended and censored change places."""
    return (censored, kaplan_meier(censored, values)) if len(censored) else (np.zeros(0), np.zeros(0))


def _draw_bounds(times: Array, survival: Array, size: int, rng: np.random.Generator) -> Array:
    if len(times) == 0:
        return np.full(size, np.inf)
    place = np.searchsorted(-survival, -rng.random(size), side="left")
    return np.append(times, np.inf)[place]
