"""Under which of several schedules the slowest mode decays fastest, at a given or at a re-tuned learning rate."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from stalewise import checks
from stalewise.delays import AbstractDelay, Constant
from stalewise.dynamics.limits import decay_rate, learning_rate_at, step_limit
from stalewise.errors import InputError
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study, make_study

Array = NDArray[np.float64]
FLAT = 0.1  # of the best rate that a choice may be slower by, to be as good
TUNED = 1e-4  # of the limit, to which a learning rate is re-tuned
STARTS = 12  # shares of the limit from which it is


@dataclass(frozen=True)
class BestChoice:
    """The choice with the fastest slowest mode, and what the others that were looked at reach.

    Attributes:
        best: Number of active workers, or threshold.
        rate: Decay rate of the root mean square of its slowest mode [1/s]; not above zero if none converges.
        learning_rate: Given, or that of the best choice.
        choices: What was looked at, ascending, shape (choices,).
        rates: Their rates, below zero where they diverge, shape (choices,) [1/s].
        learning_rates: Of each, shape (choices,).
        as_good: The least and the largest choice within 10 % of the best rate.
        note: What to know about it, empty if nothing.
    """

    best: int
    rate: float
    learning_rate: float
    choices: NDArray[np.int64]
    rates: Array
    learning_rates: Array
    as_good: tuple[int, int]
    note: str = ""


def best_workers(
    curvatures: ArrayLike, learning_rate: float | None, delay: AbstractDelay | float, most: int, *, seed: int = 0
) -> BestChoice:
    r"""Number of active workers at which the slowest mode decays fastest, plain async without noise.

    The rate is that of the root mean square, `decay_rate`: exact for memoryless workers and constant delays, else
    measured along a path recorded in virtual time. At a given learning rate workers count through
    :math:`\eta\lambda N`: the slowest mode is the softest for few, the stiffest for many. Re-tuned for each number,
    :math:`\eta N` is pinned by the delay and the rates are nearly level, for constant delays and gamma(4) within a
    third (memoryless workers gain twice): ``as_good`` and ``note`` say so. What workers buy then is a lower noise floor
    (`stationary_variance`, `settle`).

    Args:
        curvatures: Of the modes, above zero, shape (modes,).
        learning_rate: Fixed; None to re-tune it for each number.
        delay: Law of one worker's cycle, or a constant one [s].
        most: Workers at most.
        seed: Of recorded paths.

    Returns:
        The number, and all that were looked at: 1, 2, 4, ... up to ``most``, then ever closer about the best.

    Raises:
        InputError: An argument is out of range; heavy tails, under which nothing decays exponentially.

    Limits:
        Between the numbers looked at first the rate is taken to have one peak. Measured rates have standard errors of
        1 to 2 %, so that the best of a level stretch is chance: see ``as_good``.

    Example:
        >>> best_workers([1.0], 0.05, 1.0, 64).best
        8
    """
    law = delay if isinstance(delay, AbstractDelay) else Constant(checks.positive("delay", delay, "seconds"))
    most = checks.at_least("most", most, 1)
    known: dict[int, tuple[float, float]] = {}
    values = _checked(curvatures, learning_rate)

    def ask(workers: int) -> float:
        if workers not in known:
            known[workers] = _rate_of(arrivals(_study(law, workers), seed=seed), values, learning_rate)
        return known[workers][0]

    _climb([*(1 << k for k in range(most.bit_length())), most], ask)
    found = _chosen(known, "")
    if learning_rate is not None or not found.rate > 0:
        return found
    times = found.rate / known[1][0]
    note = f"learning rate re-tuned for each number: {found.best} of them are {times:.3g} times as fast as one"
    return replace(found, note=f"{note}; what more workers buy is averaging of noise")


def best_threshold(
    curvatures: ArrayLike, learning_rate: float | None, delay: AbstractDelay | float, workers: int,
    thresholds: Iterable[int], *, on_stale: str = "drop", seed: int = 0,
) -> BestChoice:  # fmt: skip
    """Staleness threshold at which the slowest mode decays fastest, plain async without noise.

    A threshold shortens the tail of the staleness and costs gradients (``drop``, ``cancel``) or time (``wait``).

    Args:
        curvatures: Of the modes, above zero, shape (modes,).
        learning_rate: Fixed; None to re-tune it for each threshold.
        delay: Law of one worker's cycle, or a constant one [s].
        workers: Active workers.
        thresholds: Largest staleness applied, those to look at.
        on_stale: ``drop``, ``wait``, ``admit`` or ``cancel``.
        seed: Of what is counted in virtual time.

    Raises:
        InputError: An argument is out of range; heavy tails that the threshold does not cut.

    Limits:
        As `best_workers`; each threshold is looked at.
    """
    law = delay if isinstance(delay, AbstractDelay) else Constant(checks.positive("delay", delay, "seconds"))
    values = _checked(curvatures, learning_rate)
    bounds = sorted({checks.at_least("thresholds", bound, 0) for bound in thresholds})
    if not bounds:
        raise InputError("thresholds are missing: name at least one")
    known = {}
    for bound in bounds:
        timing = arrivals(_study(law, workers, max_staleness=bound, on_stale=on_stale), seed=seed)
        known[bound] = _rate_of(timing, values, learning_rate)
    return _chosen(known, "")


def _checked(curvatures: ArrayLike, learning_rate: float | None) -> Array:
    values = np.atleast_1d(np.asarray(curvatures, float))
    if values.ndim != 1 or len(values) == 0 or not (np.isfinite(values) & (values > 0)).all():
        raise InputError(f"curvatures must be positive, finite and at least one, got {curvatures}")
    if learning_rate is not None:
        checks.positive("learning_rate", learning_rate)
    return np.array([values.min(), values.max()])  # rates rise with the curvature, and then fall


def _study(law: AbstractDelay, workers: int, **schedule: object) -> Study:
    """A study of which only the schedule matters."""
    study = make_study(
        {
            "workload": {"kind": "quadratic", "eigenvalues": [1.0]},
            "cluster": {"workers": workers, "compute": "constant(1)"},
            "schedule": {"policy": "async", "learning_rate": 1.0, **schedule},
            "target": {"loss": 1e-3},
        }
    )
    return study.with_delay(law)


def _rate_of(timing: Arrivals, curvatures: Array, learning_rate: float | None) -> tuple[float, float]:
    """Rate of the slowest mode, and the learning rate."""
    timing = timing.coarse
    if timing.heavy_tailed:
        raise InputError("delay is heavy-tailed: no mode decays exponentially under it, ask for times to target")
    scale = timing.block * timing.weight_mean

    def slowest(rate: float) -> float:
        found = [decay_rate(rate * curvature * scale, timing) for curvature in set(curvatures.tolist())]
        return min(-math.inf if one is None else one for one in found)

    if learning_rate is not None:
        return slowest(learning_rate), learning_rate
    limit = learning_rate_at(step_limit(timing).mean_square, float(curvatures[-1]), timing)
    shares = np.linspace(0.0, 1.0, STARTS + 2)[1:-1]
    place = int(np.argmax([slowest(share * limit) for share in shares]))
    found: Any = optimize.minimize_scalar(
        lambda share: -slowest(share * limit),
        bounds=(shares[place] - shares[0], min(shares[place] + shares[0], 1.0)),
        method="bounded",
        options={"xatol": TUNED},
    )
    return -float(found.fun), float(found.x) * limit


def _climb(begin: Sequence[int], ask: Callable[[int], float]) -> None:
    """Ask for the numbers given, and then for the middles beside the best, until no number is between."""
    seen = sorted(set(begin))
    for number in seen:
        ask(number)
    while True:
        place = max(range(len(seen)), key=lambda i: ask(seen[i]))
        beside = seen[max(place - 1, 0) : place + 2]
        middles = [(low + high) // 2 for low, high in itertools.pairwise(beside) if high - low > 1]
        if not middles:
            return
        for number in middles:
            ask(number)
        seen = sorted({*seen, *middles})


def _chosen(known: dict[int, tuple[float, float]], note: str) -> BestChoice:
    choices = np.array(sorted(known))
    rates = np.array([known[int(choice)][0] for choice in choices])
    tuned = np.array([known[int(choice)][1] for choice in choices])
    best = int(np.argmax(rates))
    good = choices[rates >= rates[best] * (1.0 - FLAT)] if rates[best] > 0 else choices[best : best + 1]
    if not rates[best] > 0:
        note = "none converges"
    return BestChoice(
        int(choices[best]), float(rates[best]), float(tuned[best]), choices, rates, tuned,
        (int(good[0]), int(good[-1])), note,
    )  # fmt: skip
