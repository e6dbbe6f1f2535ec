"""Every family fitted to the same delays, ranked by held-out likelihood and AIC."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.delays.fitting.families import CONSTANT, FAMILIES, Family, log_density, log_survival, rounded
from stalewise.delays.fitting.sample import Sample, kaplan_meier
from stalewise.delays.laws import AbstractDelay, Constant

Array = NDArray[np.float64]

CONSTANT_CV = 1e-5
"""Below this coefficient of variation the spread drowns in parameters of six digits: the delay is called constant."""
FOLDS = 5
LEAST_HELD_OUT = 20
"""Fewer delays than this are not cut into folds."""
TIE = 2.0
"""Held-out log-likelihoods this close are a tie, broken by AIC."""


class Candidate(NamedTuple):
    """One fitted law.

    ``parameters`` counts the fitted ones, ``ks`` is the greatest gap between its cdf and that of the delays
    (Kaplan-Meier where some are censored), ``held_out`` the log-likelihood of every fold of time under the law
    fitted to the others (None if not computed).
    """

    law: AbstractDelay
    parameters: int
    log_likelihood: float
    ks: float
    family: Family = CONSTANT
    held_out: float | None = None

    @property
    def text(self) -> str:
        """The law as `parse_delay` reads it."""
        return str(self.law)

    @property
    def aic(self) -> float:
        """Akaike's criterion: twice the parameters minus twice the log-likelihood; less is better."""
        return 2.0 * self.parameters - 2.0 * self.log_likelihood

    def as_dict(self) -> dict[str, float | str | None]:
        """Plain values."""
        return {
            "law": self.text,
            "log_likelihood": self.log_likelihood,
            "aic": self.aic,
            "held_out": self.held_out,
            "ks": self.ks,
            "parameters": self.parameters,
        }


class Fold(NamedTuple):
    """Delays of one block of time, and the bounds of those that had not ended."""

    values: Array
    censored: Array


def is_constant(values: Array) -> bool:
    """Whether delays spread too little to be told from a constant."""
    return bool(values.std() <= CONSTANT_CV * values.mean())


def rank_laws(
    delays: Array, censored: Array | Sequence[float] = (), *, families: Sequence[Family] = FAMILIES
) -> tuple[Candidate, ...]:
    """Fit every family to positive delays [s] and rank by AIC, best first; `fit_delay` without the tests around it.

    Args:
        delays: Delays that ended [s], in any order.
        censored: Bounds [s] that further delays are known to exceed.
        families: What is tried.
    """
    x, bounds = np.sort(delays), np.sort(np.asarray(censored, float))
    if is_constant(x):
        return (Candidate(Constant(rounded(x.mean())), 1, 0.0, 0.0),)
    sample = Sample.of(x, bounds)
    found = []
    for family in families:
        law = family.fit(sample)
        value = -math.inf if law is None else log_likelihood(law, x, bounds)
        if law is not None and math.isfinite(value):
            found.append(Candidate(law, family.parameters, value, distance(law, x, bounds), family))
    return tuple(sorted(found, key=lambda c: c.aic))


def rank_held_out(folds: Sequence[Fold], *, families: Sequence[Family] = FAMILIES) -> tuple[Candidate, ...]:
    """Fit every family to all folds together; the best first, the rest by AIC.

    The best has the greatest held-out log-likelihood; of those within `TIE` of it, the one of least AIC.
    """
    whole = Fold(*(np.concatenate([fold[i] for fold in folds]) for i in (0, 1)))
    ranked = rank_laws(*whole, families=families)
    if len(whole.values) < LEAST_HELD_OUT or isinstance(ranked[0].law, Constant):
        return ranked
    scored = _held_out(ranked, folds)
    most = max(c.held_out for c in scored if c.held_out is not None)
    best = next(c for c in scored if c.held_out is not None and c.held_out >= most - TIE)
    return (best, *(c for c in scored if c is not best))


def _held_out(ranked: Sequence[Candidate], folds: Sequence[Fold]) -> tuple[Candidate, ...]:
    totals = np.zeros(len(ranked))
    for i, fold in enumerate(folds):
        others = [other for j, other in enumerate(folds) if j != i]
        train = Sample.of(*(np.concatenate([other[k] for other in others]) for k in (0, 1)))
        totals += [_score(c.family, c.law, train, fold) for c in ranked]
    return tuple(c._replace(held_out=float(total)) for c, total in zip(ranked, totals, strict=True))


def _score(family: Family, stand_in: AbstractDelay, train: Sample, test: Fold) -> float:
    """Log-likelihood of ``test`` under the family fitted to ``train``, one part in n + 1 of it spread wide.

    A law with an end calls delays beyond it impossible, which the next block of time may well hold. The wide part is a
    lognormal law of the training delays' median and twice their spread, in logarithms.
    """
    law = (family.fit(train) if train.spread > CONSTANT_CV * train.mean else None) or stand_in
    share = 1.0 / (train.count + 1.0)
    logs = np.log(train.values)
    middle = train.average(logs)
    sigma = max(2.0 * math.sqrt(train.average((logs - middle) ** 2)), 1e-3)
    z = (np.log(test.values) - middle) / sigma
    wide = -0.5 * z * z - math.log(sigma * math.sqrt(2.0 * math.pi)) - np.log(test.values)
    score = np.logaddexp(math.log1p(-share) + log_density(law, test.values), math.log(share) + wide).sum()
    if len(test.censored):
        score += np.log((1.0 - share) * law.survival(test.censored) + share).sum()
    return float(score)


def log_likelihood(law: AbstractDelay, values: Array, censored: Array) -> float:
    """Of delays that ended and of bounds that others exceed; -inf where the law makes them impossible."""
    total = log_density(law, values).sum()
    if len(censored):
        with np.errstate(divide="ignore"):
            total += log_survival(law, censored).sum()
    return float(total)


def distance(law: AbstractDelay, values: Array, censored: Array | Sequence[float] = ()) -> float:
    """Greatest gap between the law's cdf and that of the sorted delays, by Kaplan and Meier if some are censored."""
    fitted = law.cdf(values)
    n = len(values)
    if len(censored) == 0:
        steps = np.arange(n + 1) / n
    else:
        steps = np.concatenate([[0.0], 1.0 - kaplan_meier(values, np.asarray(censored, float))])
    return float(max((steps[1:] - fitted).max(), (fitted - steps[:-1]).max()))
