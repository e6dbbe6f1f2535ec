"""Which pilots a budget of samples buys: how many workers, and which two batch sizes."""

import math
from dataclasses import dataclass

import numpy as np

from stalewise.prediction.pilots.fleets import Fleet, fewest_workers, noise_is_additive, own_fleet, smaller_fleet
from stalewise.staleness import Arrivals
from stalewise.study import Study

MOST = 64  # workers of a pilot: more are as good as these at the same cost
COLDER = 5  # times the samples of the hotter pilot's gradient: the colder one's
SHARES = COLDER + 1
SPREAD = 2.0  # standard deviations of the number of steps by which a pilot that takes them one by one is ahead


@dataclass(frozen=True)
class Pilot:
    """A run that costs less than the study's and shows how it would go at a higher noise temperature.

    Attributes:
        study: What is run.
        seconds: Seconds of the predicted study for one of the pilot.
        updates: Updates of the predicted study for one of the pilot.
        temperature: Noise temperature over the study's; its inverse is the share of samples that it costs.
        steps: Arrivals of the predicted study's steps, where the pilot takes them one by one, one a second.
    """

    study: Study
    seconds: float
    updates: float
    temperature: float
    steps: Arrivals | None = None

    def reach(self, until: float) -> float:
        """How far it must run [s] to tell of the predicted study up to ``until`` [s]."""
        if self.steps is None:
            return until / self.seconds
        mean, variance = self.steps.counts(np.array([until]))
        return math.ceil(float(mean[0] + SPREAD * np.sqrt(variance[0])))


def pilots_of(study: Study, timing: Arrivals, budget: float, *, any_batch: bool = True) -> tuple[Pilot, ...]:
    """A colder and a hotter pilot of one fleet, which share the budget five to one.

    The fleet is the study's own up to 64 workers, or of as few as it takes for the hotter pilot's gradients to
    be of one sample or more: of few workers the same budget buys as low a temperature, with more samples a gradient. It
    costs more than the budget where neither batches nor workers can be so few. A budget of 1 buys the study itself.

    Args:
        study: What is predicted.
        timing: Its arrivals.
        budget: Samples of both pilots over those of the study, in the same time.
        any_batch: Whether gradients may have any number of samples.
    """
    own = own_fleet(study, timing)
    if budget >= 1.0 or not noise_is_additive(study.schedule):
        return (_pilot(own, own.study.batch_size),)
    if not any_batch:
        return _by_workers(study, timing, own, budget)
    fleet = _fleet(study, timing, own, budget)
    samples = budget * fleet.batch
    hot = max(1, round(samples / SHARES))
    cold = max(2 * hot, int(samples + 1e-9) - hot)
    if cold >= fleet.batch:
        return (_pilot(own, own.study.batch_size),)
    return _pilot(fleet, cold), _pilot(fleet, hot)


def _fleet(study: Study, timing: Arrivals, own: Fleet, budget: float) -> Fleet:
    """The largest fleet, up to 64 workers, by halves, that the budget is enough for; else the smallest known."""
    workers = own.study.active_workers
    fleet, few = own, workers
    if workers <= MOST and budget * own.batch >= SHARES:
        return own
    fewest = fewest_workers(study, timing) if own.study is study else workers
    while few > fewest and (few > MOST or budget * fleet.batch < SHARES):
        few = max(few // 2, fewest)
        fleet = smaller_fleet(study, timing, few) or fleet
    return fleet


def _by_workers(study: Study, timing: Arrivals, own: Fleet, budget: float) -> tuple[Pilot, ...]:
    """Fleets of two sizes at the study's own batch size, where that cannot be changed."""
    fewest = fewest_workers(study, timing) if own.study is study else own.study.active_workers
    fleets = [smaller_fleet(study, timing, max(few, fewest)) for few in _sizes(study.active_workers, budget)]
    found = [_pilot(fleet, study.batch_size) for fleet in fleets if fleet is not None]
    if len(found) < 2 or not found[0].temperature < found[1].temperature:
        return (_pilot(own, own.study.batch_size),)
    return tuple(found)


def _sizes(workers: int, budget: float) -> tuple[int, int]:
    return round(budget * workers * COLDER / SHARES), round(budget * workers / SHARES)


def _pilot(fleet: Fleet, batch: int) -> Pilot:
    study = fleet.study
    if batch != study.batch_size:
        study = study.with_cycles_held().with_schedule(batch_size=batch)
    return Pilot(study, fleet.seconds, fleet.updates, fleet.batch / batch, fleet.steps)
