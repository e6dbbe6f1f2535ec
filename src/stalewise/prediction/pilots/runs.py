"""Pilots at work: their runs side by side in virtual time, and what their losses say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stalewise.prediction.in_time import in_time
from stalewise.prediction.pilots.design import SPREAD, Pilot
from stalewise.prediction.pilots.temperature import drawn_back, smoothed
from stalewise.simulation import NetworkRun, advance
from stalewise.simulation.network import SPACING
from stalewise.trajectory import settling_time

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

Array = NDArray[np.float64]
STALL_CYCLES = 80  # and not before, when the predicted loss no longer falls
PARTS = 8  # of a step, at which a loss is told that is placed by counts of steps,
STEPS, APART = 64, 0.015  # for so many steps; then at that share of the time passed
FAR = 1.5  # times the predicted time: from where on the colder pilot's own is far away


@dataclass(frozen=True)
class Forecast:
    """What pilots say of a study's loss, on its own clock.

    Attributes:
        time: [s], shape (points,).
        updates: Shape (points,).
        loss: Mean loss, with the ends of its 95 % band, each (points,).
        low: Lower end.
        high: Upper end.
        cold: Mean loss of the colder pilot.
    """

    time: Array
    updates: Array
    loss: Array
    low: Array
    high: Array
    cold: Array


@dataclass(frozen=True)
class Curves:
    """Losses of a study's pilots, averaged over a tenth of the time passed, on its own clock.

    Attributes:
        time: [s], shape (points,).
        updates: Shape (points,).
        losses: Of the colder and, where there is one that has not diverged, the hotter pilot, each (seeds, points).
        temperatures: Of these pilots over the study's own.
        diverged: Which of all pilots did.
        samples: Spent by all of them, over all seeds.
    """

    time: Array
    updates: Array
    losses: tuple[Array, ...]
    temperatures: tuple[float, ...]
    diverged: tuple[bool, ...]
    samples: int

    def first(self, seeds: int) -> "Curves":
        """Those of the first few seeds."""
        return replace(self, losses=tuple(one[:seeds] for one in self.losses))

    def joined(self, other: "Curves") -> "Curves":
        """With those of other seeds, as far as both go."""
        time = self.time[: max(int(np.searchsorted(self.time, other.time[-1], side="right")), 1)]
        points, seeds, more = len(time), len(self.losses[0]), len(other.losses[0])
        placed = [
            np.array([np.interp(time, other.time, row) for row in rows]) for rows in (*other.losses, [other.updates])
        ]
        both = zip(self.losses, placed[:-1], strict=True)
        return Curves(
            time=time,
            updates=(seeds * self.updates[:points] + more * placed[-1][0]) / (seeds + more),
            losses=tuple(np.concatenate([one[:, :points], also]) for one, also in both),
            temperatures=self.temperatures,
            diverged=tuple(np.logical_or(self.diverged, other.diverged).tolist()),
            samples=self.samples + other.samples,
        )

    def forecast(self, temperature: float = 1.0) -> Forecast:
        """Mean loss at a noise temperature, over the study's own."""
        cold, *hotter = self.losses
        if hotter:
            low, high = (one / temperature for one in self.temperatures)
            found = drawn_back(cold, hotter[0], (low, high))
        else:
            found = drawn_back(cold, cold, (1.0, 2.0))
        return Forecast(self.time, self.updates, *found, cold.mean(axis=0))


class Pilots:
    """Pilots of one study, each with a run for every seed.

    Args:
        pilots: The colder one first.
        network: What they train.
        seeds: Of each.
        seed: The first.
        cycle: The study's mean cycle [s].
        starts: First parameters that the seeds take in turn, those of ``seed``, ``seed`` + 1, ...
        spacing: Share of the time passed after which losses are told again.
    """

    def __init__(
        self, pilots: Sequence[Pilot], network: "Network", seeds: int, seed: int, cycle: float, *, starts: int = 1,
        spacing: float = SPACING,
    ) -> None:  # fmt: skip
        self.pilots: tuple[Pilot, ...] = tuple(pilots)
        self._cycle, self._until = cycle, 0.0
        first = [network.start(seed + i) for i in range(min(starts, seeds))]
        self._runs = [
            [NetworkRun(one.study, network, seed + i, first[i % starts], spacing=spacing) for i in range(seeds)]
            for one in pilots
        ]

    @property
    def samples(self) -> int:
        """Spent by all of them, over all seeds."""
        return sum(run.samples for runs in self._runs for run in runs)

    @property
    def whole(self) -> float:
        """Samples that the study's own runs would have spent by now, over all seeds, by the colder pilot's."""
        pilot, spent = self.pilots[0], sum(run.samples for run in self._runs[0])
        if pilot.steps is not None:  # it is ahead
            steps, _ = pilot.steps.counts(np.array([self._until]))
            spent = len(self._runs[0]) * pilot.study.batch_size * (float(steps[0]) + 1.0)
        return spent * pilot.temperature

    @property
    def diverged(self) -> tuple[bool, ...]:
        """Which of the pilots' losses grew without bound, in any seed."""
        return tuple(any(run.blew_up for run in runs) for runs in self._runs)

    def advance(self, until: float) -> None:
        """Run all of them on, to ``until`` [s] of the study's clock."""
        for pilot, runs in zip(self.pilots, self._runs, strict=True):
            if not any(run.blew_up for run in runs):
                advance(runs, pilot.reach(until))
        self._until = until

    def curves(self) -> Curves:
        """Their losses by now."""
        pilot, (time, *losses) = self.pilots[0], self._losses(0)
        if len(self.pilots) > 1 and not self.diverged[1]:
            theirs, hot = self._losses(1)
            losses.append(np.array([np.interp(time, theirs, row) for row in hot]))
        if pilot.steps is not None:
            updates, _ = pilot.steps.counts(time)
        else:
            updates = np.mean([run.updates[: len(time)] for run in self._runs[0]], axis=0) * pilot.updates
        heat = tuple(one.temperature for one in self.pilots)[: len(losses)]
        return Curves(time, updates, tuple(losses), heat, self.diverged, self.samples)

    def forecast(self) -> Forecast:
        """What they say by now."""
        return self.curves().forecast()

    def noise_decides(self, target: float) -> bool:
        """Whether what they say is drawn from far away: see `predict_network`."""
        if len(self.pilots) == 1 or self.diverged[0]:
            return False
        said = self.forecast()
        own, reached = (settling_time(said.time, loss, target) for loss in (said.cold, said.loss))
        far = reached is not None and (own is None or own > FAR * reached)
        return self.diverged[1] or far or (reached is None and self.stalled())

    def stalled(self) -> bool:
        """Whether the loss they predict no longer falls."""
        said = self.forecast()
        late = said.time > 0.5 * said.time[-1]
        enough = said.time[-1] >= STALL_CYCLES * self._cycle
        return bool(enough and said.loss[late].min() >= 0.999 * said.loss[~late].min())

    def _losses(self, which: int) -> tuple[Array, Array]:
        """Times on the study's clock, (points,), and smoothed losses of one pilot, (seeds, points), while finite."""
        time, losses = losses_of(self.pilots[which], self._runs[which], self._until)
        return time, smoothed(time, losses)


def losses_of(pilot: Pilot, runs: Sequence[NetworkRun], until: float = math.inf) -> tuple[Array, Array]:
    """Times [s] on the predicted study's clock, shape (points,), and losses there, shape (runs, points), while finite.

    Of a pilot that takes the steps one by one, the loss after each is placed where that many steps have been taken: a
    step is there at the end of its round, and how many there are by a time is random.

    Args:
        pilot: Whose runs.
        runs: Advanced equally far.
        until: Up to where steps are placed [s], at most as far as all but a few runs of the study would be.
    """
    points = min(len(run.time) - run.blew_up for run in runs)
    losses = np.array([run.loss[:points] for run in runs])
    if pilot.steps is None:
        return np.array(runs[0].time[:points]) * pilot.seconds, losses
    index, at = np.unique(runs[0].updates[:points], return_index=True)
    end = min(until / pilot.seconds, runs[0].time[points - 1])
    late = STEPS * np.exp(APART * np.arange(1 + max(math.log(max(end, 1.0) / STEPS), 0.0) / APART))
    grid = np.concatenate([np.arange(STEPS * PARTS) / PARTS, late])
    time = np.append(grid[grid < end], end) * pilot.seconds
    mean, variance = pilot.steps.counts(time)
    time = time[: max(int(np.searchsorted(mean + SPREAD * np.sqrt(variance), index[-1] + 1.0)), 1)]
    return time, in_time(pilot.steps, time, index.astype(float), losses[:, at])
