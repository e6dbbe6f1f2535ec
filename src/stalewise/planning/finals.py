"""The last of a network's search: full runs in virtual time, each from first parameters of its own.

Pilots are hotter than what they stand for and begin at few starts; a start alone moves a time by up to twice. So the
last few schedules are run as they are, with more seeds for those that stay close.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from stalewise.planning.arms import Arm, Shown
from stalewise.planning.race import BEYOND, Race
from stalewise.planning.search import is_fresh, rounded
from stalewise.study import Study

SEEDS = 4  # at first
FINALISTS, CLOSE = 3, 1.3  # of the best, at first: so many, within this factor
DUEL, CLOSER, MORE = 3, 1.2, 8  # then so many within this factor, with so many seeds
CLIMBS, STEP = 3, math.sqrt(2.0)  # to larger learning rates, by this factor
CHECKS, SURE, HOLD = 3, (12, 20), 1.8  # of what would be taken: to so many seeds, then followed on so many times longer
STEADY = 1.05  # fewer workers are preferred as long as they take no more than this factor,
CALM = 1.1  # and slower drifts


@dataclass(frozen=True)
class Finals:
    """Full runs of the last few schedules.

    Attributes:
        race: That runs them, and knows what pilots showed.
        whole: Makes full runs of a schedule, with `SEEDS` seeds.
        rate_is_given: Whether the learning rate is.
        limit: Where a run ends [s].
    """

    race: Race
    whole: Callable[[Study], Arm]
    rate_is_given: bool
    limit: float = math.inf

    def run(self, better: Sequence[Shown], fewer: Callable[[Shown], Iterable[tuple[Study, float]]]) -> list[Shown]:
        """Of the last few, and of the best with fewer workers where that should do as well.

        The best one with stale gradients and the best one without are among them if they are close.

        Args:
            better: What pilots showed, best first.
            fewer: The same schedule with fewer workers, and the times [s] that pilots give it.

        Returns:
            What was run, or ``better`` where the budget is not enough for any.
        """
        leading = [one for one in better if self.race.may_be_taken(one)] or list(better)
        best = leading[0]
        near = [one for one in better if self._takes(one) <= CLOSE * self._takes(best)]
        chosen = [one for one in leading if one in near][:FINALISTS] or [best]
        chosen += [one for one in self.race.leaders(near) if one not in chosen]
        wanted = {one.arm.study.schedule.model_dump_json(): (one.arm.study, one.time()) for one in chosen}
        wanted |= {few.schedule.model_dump_json(): (few, time) for few, time in fewer(best)}
        arms = [self.whole(study) for study, _ in wanted.values()]
        untils = [self._until(time, float(best.said.time[-1])) for _, time in wanted.values()]
        if not self.race.affords_full(arms, untils):
            arms, untils = arms[:1], untils[:1]
            if not self.race.affords_full(arms, untils):
                return list(better)
        found = self.race.full(arms, untils, "full runs")
        return self._sure(self._duel(self._climbed(self._longer(found))))

    def pick(self, picks: Sequence[Shown]) -> tuple[Shown, Shown | None, Shown | None]:
        """What is taken, the best one with stale gradients and the best one without, these two by the same starts.

        That is by the full runs that both have, or else by looks.
        """
        taken = self._taken(picks)
        kind = is_fresh(taken.arm.study.policy)
        theirs = [one for one in picks if is_fresh(one.arm.study.policy) != kind and not one.arm.is_look]
        other = self._fewest(theirs)
        own: Shown | None = taken
        if other is None or taken.arm.is_look:
            looks = [one for one in self.race.looks if is_fresh(one.arm.study.policy) != kind and not one.diverged]
            other = min(looks, key=self.race.order, default=None)
            own = self.race.look(taken.arm.study) or taken
        else:
            seeds = min(taken.arm.seeds, other.arm.seeds)
            own, other = taken.first(seeds), other.first(seeds)
        return (taken, other, own) if kind else (taken, own, other)

    def _taken(self, picks: Sequence[Shown]) -> Shown:
        """The best by the seeds that all have, or what does as well with less; not what more seeds showed to fail."""
        mine = _longest([one for one in picks if self.race.may_be_taken(one)] or picks)
        mine = [one for one in mine if not self._fell(one)] or mine
        alike = {one.arm.study.schedule.model_dump_json(): one for one in mine}
        firsts = [one.first(MORE) for one in mine]
        best = min(firsts, key=self.race.order)
        holding = [one for one in firsts if one.holds and self._takes(one) <= CLOSE * self._takes(best)]
        if holding:  # else what is the fastest but for a few seeds is taken
            firsts, best = holding, min(holding, key=self.race.order)
        best = self._fewest([one for one in firsts if one.arm.study.policy == best.arm.study.policy]) or best
        return alike[best.arm.study.schedule.model_dump_json()]

    def _fell(self, one: Shown) -> bool:
        """Whether it takes far longer by all of its seeds than by the first of them."""
        return self._takes(one) > CLOSE * self._takes(one.first(MORE))

    def _takes(self, one: Shown) -> float:
        """Of what is to be saved."""
        return self.race.order(one)[1]

    def _until(self, time: float, otherwise: float) -> float:
        """How far a schedule is run that should take this long [s]."""
        return min(BEYOND * time if math.isfinite(time) else otherwise, self.limit)

    def _longer(self, found: Sequence[Shown]) -> list[Shown]:
        """Those that did not get there twice as far, if the budget is enough."""
        late = [one for one in found if not one.diverged and not math.isfinite(one.time())]
        untils = [min(2.0 * float(one.said.time[-1]), self.limit) for one in late]
        some = any(until > float(one.said.time[-1]) for one, until in zip(late, untils, strict=True))
        if not some or not self.race.affords_full([one.arm for one in late], untils):
            return list(found)
        on = dict(zip(map(id, late), self.race.full([one.arm for one in late], untils, "longer"), strict=True))
        return [on.get(id(one), one) for one in found]

    def _climbed(self, found: Sequence[Shown]) -> list[Shown]:
        """The best at larger learning rates too, as long as they are better, and at the next lower one.

        What only a noise temperature keeps from a larger learning rate looks worse by pilots than it is; a lower one
        may do as well, and more surely.
        """
        found = list(found)
        for factor in [] if self.rate_is_given else [*[STEP] * CLIMBS, 1.0 / STEP]:
            best = min((one for one in found if self.race.may_be_taken(one)), key=self.race.order, default=found[0])
            study = best.arm.study
            other = self.whole(study.with_schedule(learning_rate=rounded(factor * study.learning_rate)))
            until = self._until(best.time(), math.inf)
            known = any(_alike(one.arm.study, other.study) for one in found)
            if known or not math.isfinite(best.time()) or not self.race.affords_full([other], [until]):
                continue
            found += self.race.full([other], [until], "learning rates beside it")
        return found

    def _duel(self, found: Sequence[Shown]) -> list[Shown]:
        """More seeds for the best few that may be taken, if they are close: chance would decide between them."""
        last = _longest([one for one in found if self.race.may_be_taken(one) and math.isfinite(one.time())])
        if not last:
            return list(found)
        best = min(last, key=self.race.order)
        sparing = self._fewest([one for one in last if one.arm.study.policy == best.arm.study.policy])
        last.sort(key=lambda one: (one is not best, one is not sparing, self.race.order(one)))
        near = [one for one in last if self._takes(one) <= CLOSER * self._takes(best)][:DUEL]
        arms = [replace(one.arm, seeds=MORE) for one in near]
        untils = [self._until(one.time(), math.inf) for one in near]
        if len(near) < 2 or not self.race.affords_full(arms, untils):
            return list(found)
        again = self._longer(self.race.full(arms, untils, f"the last {len(near)}"))
        return [*again, *(one for one in found if one not in near)]

    def _sure(self, found: Sequence[Shown]) -> list[Shown]:
        """What would be taken from more starts, and followed on; where it then falls behind the next one is looked at.

        A schedule of which one start in five never leaves the plateau looks well in eight of ten sets of one.
        """
        found = list(found)
        for seeds, factor in [(seeds, BEYOND) for seeds in SURE for _ in range(CHECKS)] + [(SURE[-1], HOLD)] * CHECKS:
            best = self._taken(found)
            arm, until = replace(best.arm, seeds=max(seeds, best.arm.seeds)), min(factor * best.time(), self.limit)
            followed = best.said.time[-1] >= 0.99 * until
            if not math.isfinite(best.time()) or (arm.seeds == best.arm.seeds and followed):
                continue
            if not self.race.affords_full([arm], [until]):
                break
            (again,) = self.race.full([arm], [until], "more starts, and whether it stays there")
            found = [again if one is best else one for one in found]
        return found

    def _fewest(self, some: Sequence[Shown]) -> Shown | None:
        """The best one, or of those that take 5 % more at most the fewest workers, then of 10 % the slowest drift.

        Beyond the mean-square limit the fastest is at the edge of what is stable, which a few seeds may not show.
        """
        if not some:
            return None
        best = min(some, key=self.race.order)
        over, least, _ = self.race.order(best)
        if not math.isfinite(least):
            return best
        near = [one for one in some if self.race.order(one)[0] <= over and self._takes(one) <= CALM * least]
        steady = [one.arm.study.active_workers for one in near if self._takes(one) <= STEADY * least]
        near = [one for one in near if one.arm.study.active_workers == min(steady)]
        return min(near, key=lambda one: (one.arm.drift, self.race.order(one)))


def _longest(some: Sequence[Shown]) -> list[Shown]:
    """Of full runs those with `MORE` seeds, or if none settles those with fewer. Looks are all alike."""
    full = [one for one in some if not one.arm.is_look]
    settled = [one.arm.seeds for one in full if math.isfinite(one.time())]
    if not settled:
        return full or list(some)
    return [one for one in full if one.arm.seeds >= min(max(settled), MORE)]


def _alike(one: Study, other: Study) -> bool:
    """Whether two schedules differ by the rounding of the learning rate alone."""
    near = math.isclose(one.learning_rate, other.learning_rate, rel_tol=0.03)
    return near and one.with_schedule(learning_rate=1.0) == other.with_schedule(learning_rate=1.0)
