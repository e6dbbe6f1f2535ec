"""What a plan would be if something were otherwise: what limits it, how flat it is, what is worth measuring better.

What limits the run is told by ratios of the rough times of `shortlist`, without momentum, each with a learning rate of
its own unless that is held; how flat the optimum is and its regret by the index equation, of the pick as it is.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stalewise import checks
from stalewise.delays import Gamma, Replay, parse_delay
from stalewise.delays.fitting.families import scaled
from stalewise.errors import InputError, NotConvergedError
from stalewise.planning.search import change, of_limits
from stalewise.planning.shortlist import ROUGH, Guess, guess
from stalewise.prediction.modes import learning_rate_limit
from stalewise.prediction.quadratic import settling
from stalewise.staleness import Arrivals, StalenessLaw, arrivals
from stalewise.study import Study

LINKS = ("service", "download", "upload")
UNSURE = {"curvature": 1.2, "noise": 1.5, "spread": 1.3}  # factors up and down, unless a user or a log knows better
PARTS = 20  # of a log of delays, for its error
NAMES = {"curvature": "curvature", "noise": "gradient noise", "spread": "spread of the delays"}
FLAT = 1.05  # of the best time
STEP = 2.0 ** (1 / 6)  # between learning rates looked at
TUNED, HELD = 6, 24  # steps to both sides of one that was tuned, and of one that is given
NEAR, NEARER = ((0.71, 0.5), (1.41, 2.0)), 1.19  # times the learning rate: where a better one is looked for


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


def what_limits(
    study: Study, seed: int, margin: float, unsure: Mapping[str, float] = UNSURE, *, held: bool = False
) -> list[str]:
    """Sentences: what limits the run, what a faster link buys, how flat the optimum is, what to measure better.

    Args:
        study: The pick, with its learning rate.
        seed: Of staleness that is counted.
        margin: Of the mean-square limit.
        unsure: Factors by which what is assumed may be off, see `error_bars`.
        held: Whether the learning rate is given, and so the same whatever is otherwise.
    """
    timing = arrivals(study, seed=seed, share=ROUGH)
    free = study if held else study.with_schedule(learning_rate=None, momentum=None, nesterov=None)
    said = [
        _limits(free, guess(free, timing, margin), seed, margin),
        *_sure(study, timing, seed, margin, unsure, held=held),
    ]
    return [one for one in said if one]


def _limits(free: Study, here: Guess, seed: int, margin: float) -> str:
    """What could be saved: compute twice as fast, a link twice as fast, no staleness, no noise."""
    if not 0.0 < here.time < math.inf:
        return ""
    saved, spectrum = {}, free.workload.modes()
    if len(here.timing.staleness.pmf) > 1:
        fresh = replace(here.timing, staleness=StalenessLaw(np.ones(1), "none"), memoryless=False)
        saved["staleness (none at the same update rate)"] = guess(free, fresh, margin).time
    if spectrum.noise.any():
        quiet = free.with_workload(gradient_noise=0.0, noise_growth=0.0)
        saved["gradient noise (none)"] = guess(quiet, here.timing, margin).time
    saved = {name: min(time, here.time) for name, time in saved.items()}  # more of either never helps but by roughness
    for name, fields in (("the link", LINKS), ("compute", ("compute",))):
        faster = halved(free, fields)
        if faster is not None:
            timing = arrivals(faster.with_schedule(learning_rate=1.0), seed=seed, share=ROUGH)
            saved[f"{name} (twice as fast)"] = guess(faster, timing, margin).time
    if not has_link(free):  # all cycles are half as long: true of logs too, which nothing scales
        saved["compute (twice as fast)"] = 0.5 * here.time
    how = (
        "at this learning rate"
        if free.schedule.learning_rate
        else "of this structure, each with a learning rate of its own"
    )
    growth = "; what noise_growth costs is not looked at" if spectrum.noise_growth.any() else ""
    return of_limits({name: time / here.time for name, time in saved.items()}, f"rough estimates, {how}{growth}")


def has_link(study: Study) -> bool:
    """Whether anything but compute takes time in a cycle."""
    places = [study.cluster, *(study.cluster.group or ())]
    texts = [text for place in places for name in LINKS if (text := getattr(place, name, None)) is not None]
    return study.cluster._law is not None or any(
        parse_delay(text, folder=study.cluster._folder).mean > 0 for text in texts
    )


def halved(study: Study, names: tuple[str, ...]) -> Study | None:
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


def _sure(
    study: Study, timing: Arrivals, seed: int, margin: float, unsure: Mapping[str, float], *, held: bool
) -> tuple[str, ...]:
    """How flat the time is in the learning rate, and the regret of this one where what was assumed is wrong."""
    times, steps = _Times(study, timing, margin), HELD if held else TUNED
    factors = STEP ** np.arange(-steps, steps + 1.0)
    looked = [times.at(float(factor)) for factor in factors]
    least, here = min(looked), looked[steps]
    if not 0.0 < least < math.inf:
        return ()
    best = looked.index(least)
    good = here <= FLAT * least
    low, high = _within(looked, FLAT * least, steps if good else best)
    text = (
        f"The optimum is {'flat' if high > 2.5 * low else 'narrow'}: learning rates from {low:.2g} to {high:.2g} times "
        f"this one take at most {100 * (FLAT - 1):.0f} % longer than the best."
    )
    if good:
        return text, _unsure(study, timing, seed, margin, unsure)
    more = f"takes {change(here / least)[1:]} longer than" if math.isfinite(here) else "never settles, unlike"
    first = f"This learning rate {more} {factors[best]:.2g} times as much"
    if best in (0, len(looked) - 1):
        return (f"{first}, which is as far as was looked.",)
    return (f"{first}. {text}",)


def _within(looked: Sequence[float], most: float, about: int) -> tuple[float, float]:
    """Factors between which all take no more, about one that does, with those in between by straight lines."""
    ends = []
    for step in (-1, 1):
        i = about
        while 0 <= i + step < len(looked) and looked[i + step] <= most:
            i += step
        beyond = looked[i + step] if 0 <= i + step < len(looked) else math.inf
        share = (most - looked[i]) / (beyond - looked[i]) if math.isfinite(beyond) else 0.0
        ends.append(STEP ** (i - (len(looked) - 1) / 2 + step * share))
    return ends[0], ends[1]


@dataclass(frozen=True)
class _Times:
    """Times to the target [s] at multiples of a learning rate, by the index equation; infinite past the margin."""

    study: Study
    timing: Arrivals
    margin: float

    def at(self, factor: float) -> float:
        """At that many times the learning rate; at 1 also where that is past the margin."""
        one = self.study.with_schedule(learning_rate=factor * self.study.learning_rate)
        try:
            limit = learning_rate_limit(one, self.timing).mean_square
            if factor != 1.0 and one.learning_rate > self.margin * limit:
                return math.inf
            return settling(one, self.timing, along=False)[0]
        except NotConvergedError:
            return math.inf

    def regret(self) -> float | None:
        """Of the learning rate as it is; None where no other is any better known."""
        here = self.at(1.0)
        looked = {1.0: here}
        for side in NEAR:  # as long as it falls
            last = here
            for factor in side:
                looked[factor] = self.at(factor)
                if last <= looked[factor] and math.isfinite(last):
                    break
                last = looked[factor]
        best = min(looked, key=lambda factor: looked[factor])
        least = min(looked[best], *(self.at(best * by) for by in (NEARER, 1.0 / NEARER)))
        return here / least - 1.0 if 0.0 < least < math.inf else None


def _unsure(study: Study, timing: Arrivals, seed: int, margin: float, unsure: Mapping[str, float]) -> str:
    """Regret of keeping the learning rate where what was assumed is wrong."""
    found = {}
    for name, factor in unsure.items():
        regrets = [_Times(*other, margin).regret() for other in _others(study, timing, name, factor, seed)]
        known = [one for one in regrets if one is not None]
        if known:
            found[name] = max(known)
    if not found:
        return ""
    worst = max(found, key=found.__getitem__)
    parts = [f"{NAMES[name]} {unsure[name]:g} times larger or smaller: {change(1 + found[name])}" for name in found]
    if found[worst] > FLAT - 1:
        ending = f" Measure the {NAMES[worst]} better first."
    else:
        ending = " No measurement would change it much."
    return f"Regret of this learning rate if the study is wrong ({'; '.join(parts)}).{ending}"


def _others(study: Study, timing: Arrivals, name: str, factor: float, seed: int) -> Iterator[tuple[Study, Arrivals]]:
    """Studies in which that is larger and smaller, with their arrivals."""
    spectrum = study.workload.modes()
    for by in (factor, 1.0 / factor):
        if name == "curvature":
            yield study.with_workload(eigenvalues=(by * spectrum.eigenvalues).tolist()), timing
        elif name == "noise" and spectrum.noise.any():
            yield study.with_workload(gradient_noise=(by * spectrum.noise).tolist()), timing
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
