"""What a plan would be if something were otherwise: what limits it, how flat it is, what is worth measuring better.

All answers are ratios of the rough times of `shortlist`, without momentum, each with a learning rate of its own unless
it says so.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stalewise import checks
from stalewise.delays import Gamma, Replay, parse_delay
from stalewise.delays.fitting.families import scaled
from stalewise.errors import InputError
from stalewise.planning.shortlist import ROUGH, Guess, guess
from stalewise.staleness import Arrivals, StalenessLaw, arrivals
from stalewise.study import Study

LINKS = ("service", "download", "upload")
UNSURE = {"curvature": 1.2, "noise": 1.5, "spread": 1.3}  # factors up and down, unless a user or a log knows better
PARTS = 20  # of a log of delays, for its error
NAMES = {"curvature": "curvature", "noise": "gradient noise", "spread": "spread of the delays"}
FLAT = 1.05  # of the best time
FACTORS = np.geomspace(0.25, 4.0, 25)


def error_bars(study: Study, given: Mapping[str, float] | None) -> dict[str, float]:
    """Factors by which curvature, noise and spread of the delays may be off.

    Those given; for the spread of a measured law two standard errors of its coefficient of variation; else ours.

    Raises:
        InputError: A factor of something else, not above 1, or of the curvature of a network, which nothing assumes.
    """
    for name, factor in (given or {}).items():
        checks.one_of("unsure", name, UNSURE)
        if not 1.0 < factor < math.inf:
            raise InputError(f"unsure: {name} must be a factor above 1, for example {UNSURE[name]:g}, got {factor:g}")
    if "curvature" in (given or {}) and not study.workload.is_quadratic:
        raise InputError("unsure: curvature is for quadratics: a network's plan runs the network, and assumes none")
    measured = {} if (error := _spread_error(study)) is None else {"spread": 1.0 + 2.0 * error}
    return UNSURE | measured | dict(given or {})


def _spread_error(study: Study) -> float | None:
    """Relative standard error of a measured law's coefficient of variation; None where none is measured.

    By the jackknife over parts of the log that follow each other, so that drift and slow workers count.
    """
    law = study.workers().law
    values = np.concatenate(law.sequences) if isinstance(law, Replay) else getattr(law, "sample_values", np.empty(0))
    if len(values) < 2 * PARTS or not values.std() > 0:
        return None
    parts = np.array_split(values, PARTS)
    without = [np.concatenate([*parts[:i], *parts[i + 1 :]]) for i in range(PARTS)]
    found = np.array([one.std() / one.mean() for one in without])
    return float(np.sqrt((PARTS - 1) * found.var()) / (values.std() / values.mean()))


def what_limits(study: Study, seed: int, margin: float, unsure: Mapping[str, float] = UNSURE) -> list[str]:
    """Sentences: what limits the run, what a faster link buys, how flat the optimum is, what to measure better.

    Args:
        study: The pick, with its learning rate.
        seed: Of staleness that is counted.
        margin: Of the mean-square limit.
        unsure: Factors by which what is assumed may be off, see `error_bars`.
    """
    timing = arrivals(study, seed=seed, share=ROUGH)
    free = study.with_schedule(learning_rate=None, momentum=None, nesterov=None)
    here = guess(free, timing, margin)
    if not math.isfinite(here.time):
        return []
    said = [_limits(free, here, seed, margin), _flat(here, margin), _unsure(here, seed, margin, unsure)]
    return [one for one in said if one]


def _limits(free: Study, here: Guess, seed: int, margin: float) -> str:
    """What could be saved: compute twice as fast, a link twice as fast, no staleness, no noise."""
    saved = {}
    if len(here.timing.staleness.pmf) > 1:
        fresh = replace(here.timing, staleness=StalenessLaw(np.ones(1), "none"), memoryless=False)
        saved["staleness (none at the same update rate)"] = guess(free, fresh, margin).time
    if free.workload.modes().noisy:
        quiet = free.with_workload(gradient_noise=0.0, noise_growth=0.0)
        saved["gradient noise (none)"] = guess(quiet, here.timing, margin).time
    for name, fields in (("the link", LINKS), ("compute", ("compute",))):
        faster = _halved(free, fields)
        if faster is not None:
            timing = arrivals(faster.with_schedule(learning_rate=1.0), seed=seed, share=ROUGH)
            saved[f"{name} (twice as fast)"] = guess(faster, timing, margin).time
    order = sorted(saved, key=saved.__getitem__)
    parts = [f"{name} {100 * (saved[name] / here.time - 1):+.0f} %" for name in order]
    return f"What limits this run, as time saved without it: {', '.join(parts)} (rough estimates)."


def _halved(study: Study, names: tuple[str, ...]) -> Study | None:
    """The study with these delays half as long; None where there are none, or a law of theirs cannot be scaled."""

    def half(text: str) -> str:
        law = parse_delay(text, folder=study.cluster._folder)
        return str(scaled(law, 0.5)) if law.mean > 0 else text

    try:
        changes: dict[str, Any] = {
            name: half(text) for name in names if (text := getattr(study.cluster, name)) is not None
        }
        groups: list[dict[str, Any]] = [one.model_dump(exclude_none=True) for one in study.cluster.group or ()]
        for one in groups:
            one.update({name: half(one[name]) for name in names if name in one})
        if "compute" in names and study.cluster.samples_cost_time:
            changes["sample_time"] = 0.5 * study.cluster.sample_time
            for one in groups:
                one.update({name: 0.5 * one[name] for name in one if name == "sample_time"})
    except KeyError:
        return None
    other = study.with_cluster(**changes, group=groups or None)
    return None if other == study else other


def _flat(here: Guess, margin: float) -> str:
    """Between which factors of the learning rate the time is within 5 % of the best."""
    rates = here.study.learning_rate * FACTORS
    times = [guess(here.study.with_schedule(learning_rate=float(rate)), here.timing, margin).time for rate in rates]
    good = FACTORS[np.array(times) <= FLAT * min(times)]
    low, high = good.min(), good.max()
    return (
        f"The optimum is {'flat' if high > 2.5 * low else 'narrow'}: learning rates from {low:.2g} to {high:.2g} times "
        f"this one take at most {100 * (FLAT - 1):.0f} % longer than the best (rough estimates, without momentum)."
    )


def _unsure(here: Guess, seed: int, margin: float, unsure: Mapping[str, float]) -> str:
    """Regret of keeping the learning rate where what was assumed is wrong."""
    found = {}
    for name, factor in unsure.items():
        regrets = [
            guess(other, timing, margin).time / best.time - 1
            for other, timing in _others(here, name, factor, seed)
            if math.isfinite((best := guess(other.with_schedule(learning_rate=None), timing, margin)).time)
        ]
        if regrets:
            found[name] = max(regrets)
    if not found:
        return ""
    worst = max(found, key=found.__getitem__)
    said = {name: "never settles" if math.isinf(loss) else f"{100 * loss:+.0f} %" for name, loss in found.items()}
    parts = [f"{NAMES[name]} {unsure[name]:g} times larger or smaller: {text}" for name, text in said.items()]
    ending = (
        f" Measure the {NAMES[worst]} better first."
        if found[worst] > FLAT - 1
        else " No measurement would change it much."
    )
    return f"Regret of this learning rate if the study is wrong ({'; '.join(parts)}).{ending}"


def _others(here: Guess, name: str, factor: float, seed: int) -> Iterator[tuple[Study, Arrivals]]:
    """Studies in which that is larger and smaller, with their arrivals."""
    study, spectrum = here.study, here.study.workload.modes()
    for by in (factor, 1.0 / factor):
        if name == "curvature":
            yield study.with_workload(eigenvalues=(by * spectrum.eigenvalues).tolist()), here.timing
        elif name == "noise" and spectrum.noise.any():
            yield study.with_workload(gradient_noise=(by * spectrum.noise).tolist()), here.timing
        elif name == "spread":
            other = respread(study, by)
            if other is not None:
                yield other, arrivals(other, seed=seed, share=ROUGH)


def respread(study: Study, by: float) -> Study | None:
    """The study with gamma delays of its mean and so many times its spread; None where one law does not tell all."""
    law = study.workers().law
    if law is None or not 0.02 < law.cv * by < 3.0 or study.cluster.service_law().mean > 0:
        return None
    return study.with_delay(Gamma(law.mean, (by * law.cv) ** -2))
