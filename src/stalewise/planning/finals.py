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
DUELS = ((3, 1.2, 8), (2, 1.1, 12))  # then so many within this factor, with so many seeds
CLIMBS, HIGHER = 3, math.sqrt(2.0)  # to larger learning rates, by this factor
CHECKS, HOLD = 3, 2.2  # of what would be taken: followed on to so many times what it takes
STEADY = 1.05  # fewer workers are preferred as long as they take no more than this factor


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
        found = self._climbed(self._longer(found))
        for most, close, seeds in DUELS:
            found = self._duel(found, most, close, seeds)
        return self._held(found)

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
        """The best of those with the most seeds, or what does as well with less."""
        mine = _longest([one for one in picks if self.race.may_be_taken(one)] or picks)
        best = min(mine, key=self.race.order)
        holding = [one for one in mine if one.holds and self._takes(one) <= CLOSE * self._takes(best)]
        if holding:  # else what is the fastest but for a few seeds is taken
            mine, best = holding, min(holding, key=self.race.order)
        return self._fewest([one for one in mine if one.arm.study.policy == best.arm.study.policy]) or best

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
        """The best at larger learning rates too, as long as they are better.

        What only a noise temperature keeps from a larger learning rate looks worse by pilots than it is.
        """
        found = list(found)
        for _ in range(0 if self.rate_is_given else CLIMBS):
            best = min((one for one in found if self.race.may_be_taken(one)), key=self.race.order, default=found[0])
            study = best.arm.study
            higher = self.whole(study.with_schedule(learning_rate=rounded(HIGHER * study.learning_rate)))
            until = self._until(best.time(), math.inf)
            known = any(one.arm.study == higher.study for one in found)
            if known or not math.isfinite(best.time()) or not self.race.affords_full([higher], [until]):
                break
            found += self.race.full([higher], [until], "a larger learning rate")
            if self.race.order(found[-1]) > self.race.order(best):
                break
        return found

    def _duel(self, found: Sequence[Shown], most: int, close: float, seeds: int) -> list[Shown]:
        """More seeds for the best few that may be taken, if they are close: chance would decide between them."""
        last = _longest([one for one in found if self.race.may_be_taken(one) and math.isfinite(one.time())])
        if not last:
            return list(found)
        best = min(last, key=self.race.order)
        sparing = self._fewest([one for one in last if one.arm.study.policy == best.arm.study.policy])
        last.sort(key=lambda one: (one is not best, one is not sparing, self.race.order(one)))
        near = [one for one in last if self._takes(one) <= close * self._takes(best)][:most]
        arms = [replace(one.arm, seeds=seeds) for one in near]
        untils = [self._until(one.time(), math.inf) for one in near]
        if len(near) < 2 or not self.race.affords_full(arms, untils):
            return list(found)
        again = self._longer(self.race.full(arms, untils, f"the last {len(near)}"))
        return [*again, *(one for one in found if one not in near)]

    def _held(self, found: Sequence[Shown]) -> list[Shown]:
        """What would be taken is followed on, to see whether it stays below the target; if not, the next one is."""
        found, seen = list(found), set[str]()
        for _ in range(CHECKS):
            best = self._taken(found)
            until = min(HOLD * best.time(), self.limit)
            if best.arm.name in seen or not math.isfinite(best.time()):
                break
            if not self.race.affords_full([best.arm], [until]):
                break
            seen.add(best.arm.name)
            (longer,) = self.race.full([best.arm], [until], "whether it stays there")
            found = [longer if one is best else one for one in found]
        return found

    def _fewest(self, some: Sequence[Shown]) -> Shown | None:
        """The best one, or of those that take no more than 5 % more the fewest workers, then the slowest drift.

        Beyond the mean-square limit the fastest is at the edge of what is stable, which a few seeds may not show.
        """
        if not some:
            return None
        best = min(some, key=self.race.order)
        over, least, _ = self.race.order(best)
        if not math.isfinite(least):
            return best
        near = [one for one in some if self.race.order(one)[0] <= over and self._takes(one) <= STEADY * least]
        return min(near, key=lambda one: (one.arm.study.active_workers, one.arm.drift, self.race.order(one)))


def _longest(some: Sequence[Shown]) -> list[Shown]:
    """Of full runs those with the most seeds that settle: the others fell behind. Looks are all alike."""
    full = [one for one in some if not one.arm.is_look]
    settled = [one.arm.seeds for one in full if math.isfinite(one.time())]
    if not settled:
        return full or list(some)
    return [one for one in full if one.arm.seeds == max(settled)]
