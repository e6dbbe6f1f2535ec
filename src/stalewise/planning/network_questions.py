"""What a network's plan would be if something were otherwise; a quadratic's is asked in `questions`.

All answers come from what pilots and runs showed. At one drift (learning rate x steps a second) a loss depends on
staleness, which moves the largest stable drift, and on the noise temperature, which two pilots tell.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stalewise.planning import reasons
from stalewise.planning.arms import Shown
from stalewise.planning.knobs import under
from stalewise.planning.questions import LINKS, halved, has_link, respread
from stalewise.planning.race import Race
from stalewise.planning.search import is_fresh, of_limits, rounded
from stalewise.prediction.modes import learning_rate_limit
from stalewise.staleness import Arrivals, StalenessLaw, arrivals
from stalewise.study import Study

COLD = 1e-9  # of a noise temperature: none


@dataclass(frozen=True)
class Asked:
    """A pick and what was shown beside it.

    Attributes:
        pick: What is taken.
        same: The best one shown of its policy, of all structures and learning rates.
        race: All that was shown.
        seed: Of staleness that is counted.
        held: Whether the learning rate is given, and so the same whatever is otherwise.
    """

    pick: Shown
    same: Shown
    race: Race
    seed: int
    held: bool

    def buys(self) -> list[str]:
        """What half, twice and any number of workers buy at one drift, by the noise temperature."""
        source = self.race.heated(self.same)
        if source is None or not math.isfinite(source.time()):
            return []
        first = [next(at_one_drift(source, factor, self.seed), None) for factor in (0.5, 2.0)]
        others = [(other.active_workers, heat) for other, heat in filter(None, first)]
        ratios = [(workers, source.time(heat) / source.time()) for workers, heat in [*others, (None, COLD)]]
        return [reasons.of_workers(source.arm.study.active_workers, ratios)]

    def limits(self) -> list[str]:
        """What could be saved without staleness, without noise, with compute or a link twice as fast.

        Each time is the least over learning rates from the present one to one as near to the mean-square limit at the
        start as that is: T(temperature) over how much faster the drift is.
        """
        source = self.race.heated(self.pick) or self.race.heated(self.same)
        if source is None or not 0.0 < source.time() < math.inf:
            return []
        study, timing = source.arm.study, source.arm.timing
        saved = {"gradient noise (none)": min(source.time(COLD) / source.time(), 1.0)}
        if len(timing.staleness.pmf) > 1:
            fresh = replace(timing, staleness=StalenessLaw(np.ones(1), "none"), memoryless=False, path=None)
            saved["staleness (none at the same update rate)"] = min(self._ratio(source, study, fresh), 1.0)
        for name, fields in (("the link", LINKS), ("compute", ("compute",))):
            faster = halved(study, fields)
            if faster is not None:
                saved[f"{name} (twice as fast)"] = self._ratio(source, faster, arrivals(faster, seed=self.seed))
        if not has_link(study):
            saved["compute (twice as fast)"] = 0.5
        return [of_limits(saved, f"rough estimates, by the pilots of {reasons.name(study)}")]

    def _ratio(self, source: Shown, other: Study, timing: Arrivals) -> float:
        """Time over what it is now, under other arrivals."""
        study, now = source.arm.study, source.arm.timing
        raised = [1.0]
        if study.schedule.optimizer == "SGD" and not self.held:
            more = learning_rate_limit(other, timing).mean_square / learning_rate_limit(study, now).mean_square
            raised += [math.sqrt(more), more]
        faster, hotter = timing.rate / now.rate, now.averaged / timing.averaged
        return min(source.time(by * hotter) / (by * faster) for by in raised) / source.time()

    def sure(self, bars: Mapping[str, float]) -> list[str]:
        """How flat the optimum is, and the regret of its learning rate where noise or delays are otherwise."""
        same, known = self.race.look(self.pick.arm.study), self._beside(self.pick)
        if same is None or len(known) < 2:  # fewer workers than were raced
            same, known = self.same, self._beside(self.same)
        if not math.isfinite(same.time()):
            return []
        rate = same.arm.study.learning_rate
        raced = {one.arm.study.learning_rate: one for one in known}
        said = [reasons.of_rates(same, [(each, raced[each].time()) for each in sorted(raced)])]
        hot = {each: one for each, shown in raced.items() if (one := self.race.heated(shown)) is not None}
        losses = []
        for heat in (bars["noise"], 1.0 / bars["noise"]) if rate in hot else ():
            times = {each: one.time(heat) for each, one in hot.items()}
            least = min((time for each, time in times.items() if each != rate), default=math.inf)
            if math.isfinite(least):  # another one was followed to the target too
                losses.append(max(times[rate] / least - 1.0, 0.0))
        spreads = 1.0, bars["spread"], 1.0 / bars["spread"]
        return [*said, *reasons.of_doubt(bars, losses, [self._limit_at(by) for by in spreads])]

    def _beside(self, one: Shown) -> Sequence[Shown]:
        """What is best known of its structure at all learning rates."""
        plain = one.arm.study.with_schedule(learning_rate=1.0)
        return [other for other in self.race.looks if other.arm.study.with_schedule(learning_rate=1.0) == plain]

    def _limit_at(self, by: float) -> float | None:
        """Mean-square limit of the learning rate at the start where delays are so many times as spread."""
        study = self.pick.arm.study
        told = study.schedule.optimizer == "SGD" and not is_fresh(study.policy)
        other = respread(study, by) if told else None
        if other is None:
            return None
        return learning_rate_limit(other, arrivals(other, seed=self.seed)).mean_square


def at_one_drift(one: Shown, factor: float, seed: int) -> Iterator[tuple[Study, float]]:
    """The same drift with more or fewer workers, and its noise temperature over that of ``one``."""
    study, timing = one.arm.study, one.arm.timing
    workers = study.active_workers
    while True:
        workers = round(workers * factor)
        if workers < 1 or workers == study.active_workers:
            return
        wide = study if workers <= study.cluster.workers else study.with_cluster(workers=workers, group=None)
        group = max(round(study.schedule.group * workers / study.active_workers), 1)
        other = under(wide, study.policy, workers, group=group, max_staleness=study.schedule.max_staleness)
        if other is None:
            return
        theirs = arrivals(other, seed=seed)
        rate = study.learning_rate * timing.rate / theirs.rate
        heat = rate / study.learning_rate * timing.averaged / theirs.averaged
        yield other.with_schedule(learning_rate=rounded(rate)), heat
        if workers == 1 or factor > 1.0:
            return
