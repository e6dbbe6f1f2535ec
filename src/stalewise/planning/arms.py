"""Schedules of a network in a race: pilots of each, run on from round to round in whichever process holds them."""

import functools
import itertools
import json
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stalewise.hands import Call, identity
from stalewise.planning.objectives import Goal, Spent, computed_rate, spent
from stalewise.prediction.pilots import Curves, Forecast, Pilots, pilots_of
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study
from stalewise.trajectory import settling_time
from stalewise.workloads import open_network

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

STARTS = 2  # first parameters that all looks of a search share
BLOCKS = (STARTS, 4, 8, 12)  # of full runs: their seeds, up to so many, are run together
SPACING = 0.2  # of the time passed, between losses told: of few images they cost as much as the gradients
MUCH = 0.25  # of the colder pilot's loss: what may be its noise
HELD_BYTES = 1 << 30  # of parameter versions that a process keeps from one round to the next, at most about that
HELD: "OrderedDict[str, tuple[list[float], Pilots]]" = OrderedDict()


@dataclass(frozen=True)
class Arm:
    """A schedule, how it is shown, and what its time costs.

    Attributes:
        study: Under the schedule; with its batch size.
        timing: Its arrivals.
        seeds: Of its pilots.
        seed: The first.
        budget: Samples of the pilots over those of the run they show, 1 for the run itself.
        size: Parameters of the network.
        any_batch: Whether gradients may have any number of samples.
        is_part: Whether it is a later block of full runs.
    """

    study: Study
    timing: Arrivals
    seeds: int
    seed: int
    budget: float
    size: int
    any_batch: bool = True
    is_part: bool = False

    @property
    def whole(self) -> "Arm":
        """The run itself, once from each of its starts."""
        return replace(self, budget=1.0, seeds=self.starts)

    def blocks(self) -> "list[Arm]":
        """Its full runs in blocks, the first of them those of a look."""
        ends = [*(end for end in BLOCKS if end < self.seeds), self.seeds]
        pairs = itertools.pairwise([0, *ends])
        return [replace(self, seeds=end - begin, seed=self.seed + begin, is_part=begin > 0) for begin, end in pairs]

    @property
    def is_look(self) -> bool:
        """Whether it is shown from the few starts that the race is about, and not as one of the last runs."""
        return not self.is_part and (self.budget < 1.0 or self.seeds <= STARTS)

    @property
    def starts(self) -> int:
        """First parameters that its seeds take in turn: of a look the same few as of any other."""
        return min(STARTS, self.seeds) if self.is_look else self.seeds

    @property
    def name(self) -> str:
        """Of one schedule, one show."""
        schedule = self.study.schedule.model_dump_json(exclude_none=True)
        return f"{schedule} {self.seeds} {self.seed} {self.budget:g}"

    @property
    def drift(self) -> float:
        """Learning rate times steps a second, over 1 - momentum [1/s]."""
        return self.study.learning_rate * self.timing.rate / (1.0 - self.study.schedule.momentum)

    def spent(self, time: float, goal: Goal) -> Spent:
        """What it takes up to a time."""
        return spent(self.timing, self.study.active_workers, self.size, time, goal.price)

    def price(self, goal: Goal) -> float:
        """What a second takes of what is to be saved."""
        return getattr(self.spent(1.0, goal), goal.objective)

    def cost(self, time: float) -> float:
        """Samples that its pilots cost up to a time, about."""
        return computed_rate(self.timing) * time * self.study.batch_size * self.seeds * self._share

    @functools.cached_property
    def _share(self) -> float:
        """Samples of its pilots over those of the run: the budget, or 1 where none is cheaper than the run."""
        if self.budget >= 1.0:
            return 1.0
        pilots = pilots_of(self.study, self.timing, self.budget, any_batch=self.any_batch)
        return sum(1.0 / pilot.temperature for pilot in pilots)

    def call(self, stages: list[float], study: Any) -> Call:
        """Show it, in stages up to the last [s]; ``study`` is the identity of what is planned for."""
        shown = {"arm": self.name, "stages": stages, "starts": self.starts, "spacing": SPACING}
        key = None if study is None else {"of": study, **shown}
        how = self.name, self.seeds, self.seed, self.budget, self.starts
        return Call(self.name, show, (self.study, *how, stages), key)


@dataclass(frozen=True)
class Shown:
    """An arm and the curves of its pilots so far."""

    arm: Arm
    curves: Curves

    def first(self, seeds: int) -> "Shown":
        """Of the first few seeds."""
        if seeds >= self.arm.seeds:
            return self
        return Shown(replace(self.arm, seeds=seeds), self.curves.first(seeds))

    @property
    def diverged(self) -> bool:
        """Whether the colder pilot did."""
        return self.curves.diverged[0]

    @functools.cached_property
    def said(self) -> Forecast:
        """What the pilots say of the run."""
        return self.curves.forecast()

    @property
    def noisy(self) -> bool:
        """Whether the pilots show little but their own noise: one diverges, or much of the colder one's loss is noise.

        Never of the run itself.
        """
        if self.arm.budget >= 1.0:
            return False
        told = any(self.curves.diverged) or self.said.loss[-1] < (1.0 - MUCH) * self.said.cold[-1]
        return bool(told)

    def time(self, temperature: float = 1.0) -> float:
        """To the target [s], at a noise temperature over the study's own; infinite where it is not reached."""
        if self.diverged:
            return np.inf
        said = self.said if temperature == 1.0 else self.curves.forecast(temperature)
        reached = settling_time(said.time, said.loss, self.arm.study.target.loss)
        return np.inf if reached is None else reached

    def order(self, goal: Goal) -> tuple[float, float, float]:
        """Least is best: those that reach the target by what that takes, the others by their loss in the end."""
        if self.diverged:
            return np.inf, np.inf, np.inf
        return *goal.order(self.arm.spent(self.time(), goal)), float(self.said.loss[-1])

    @property
    def holds(self) -> bool:
        """Whether the upper end of the band settles below the target too: not at the edge of what is stable."""
        return bool(np.isfinite(self.over_seeds[1]))

    @property
    def over_seeds(self) -> tuple[float, float]:
        """Ends of the 95 % band of the time to the target [s]."""
        target = self.arm.study.target.loss
        ends = (settling_time(self.said.time, loss, target) for loss in (self.said.low, self.said.high))
        low, high = (np.inf if self.diverged or end is None else end for end in ends)
        return low, high


def show(
    study: Study, name: str, seeds: int, seed: int, budget: float, starts: int, stages: list[float]
) -> dict[str, Any]:
    """Losses of an arm's pilots at the end of the last stage, as plain values; runs of earlier stages go on if held."""
    network = opened(study)
    name = f"{json.dumps(identity(study))} {name}"
    done, pilots = HELD.pop(name, (None, None))
    if done is None or pilots is None or done != stages[: len(done)]:
        timing = arrivals(study, seed=seed)
        chosen = pilots_of(study, timing, budget, any_batch=network.any_batch)
        cycle = study.workers().mean_cycle
        done, pilots = [], Pilots(chosen, network, seeds, seed, cycle, starts=starts, spacing=SPACING)
    for until in stages[len(done) :]:
        pilots.advance(until)
    HELD[name] = (list(stages), pilots)
    most = max(HELD_BYTES // (8 * network.size * seeds * (study.active_workers + 2)), 1)
    while len(HELD) > most:
        HELD.popitem(last=False)
    seen = pilots.curves()
    return {
        "time": seen.time.tolist(),
        "updates": seen.updates.tolist(),
        "losses": [one.tolist() for one in seen.losses],
        "temperatures": list(seen.temperatures),
        "diverged": list(seen.diverged),
        "samples": seen.samples,
    }


def shown(arm: Arm, answer: dict[str, Any]) -> Shown:
    """What `show` said of an arm."""
    arrays = {name: np.array(answer[name]) for name in ("time", "updates")}
    losses = tuple(np.array(one) for one in answer["losses"])
    curves = Curves(
        **arrays, losses=losses, temperatures=tuple(answer["temperatures"]), diverged=tuple(answer["diverged"]),
        samples=answer["samples"],
    )  # fmt: skip
    return Shown(arm, curves)


_OPEN: "dict[str, Network]" = {}


def opened(study: Study) -> "Network":
    """A study's network, opened once in a process."""
    name = json.dumps([str(study.workload.folder), study.workload.model_dump_json()])
    if name not in _OPEN:
        _OPEN.clear()
        HELD.clear()
        _OPEN[name], _ = open_network(study)
    return _OPEN[name]
