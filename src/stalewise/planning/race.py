"""A race of schedules by successive halving: all are shown for an amount, the better half for twice as much, and so on.

The amount is of what is to be saved: seconds, worker-seconds or bytes. So all that are compared have spent the same.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stalewise.hands import Hands
from stalewise.planning.arms import Arm, Shown, shown
from stalewise.planning.objectives import Goal
from stalewise.planning.search import is_fresh
from stalewise.prediction.pilots import Curves
from stalewise.study import Study

FIRST = 8.0  # mean cycles of the cheapest arm before the first look
LEAST = 4.0  # and where the budget asks for fewer
BEYOND = 1.5  # times what the best one takes: what others may spend at most
ROUNDS = 9  # of doubled amounts
LEFT = 3  # arms among which a race ends
MOST_CYCLES = 2000.0
Say = Callable[[float, str], None]


@dataclass
class Race:
    """Runs arms and counts what they cost.

    Attributes:
        hands: That run them.
        goal: What is to be saved.
        identity: Of the study that is planned for, to keep answers by; None keeps none.
        budget: Samples that all races may cost.
        batch: Samples of a gradient, for what is told.
        say: Told how far it is.
        held: Policy of what may be taken in the end; all may if None.
        shown: What was shown last of every arm, by name.
        stages: How far each was shown [s], by name.
        finals: Full runs from many starts, by schedule.
    """

    hands: Hands
    goal: Goal
    identity: object
    budget: float
    batch: int
    say: Say
    held: str | None = None
    shown: dict[str, Shown] = field(default_factory=dict)
    stages: dict[str, Sequence[float]] = field(default_factory=dict)
    finals: dict[str, Shown] = field(default_factory=dict)
    ended: bool = False

    @property
    def spent(self) -> float:
        """Samples so far."""
        return float(sum(one.curves.samples for one in self.shown.values()))

    @property
    def gradients(self) -> float:
        """So many gradients."""
        return self.spent / self.batch

    @property
    def best_known(self) -> list[Shown]:
        """Of every schedule what tells most of it: the run itself before pilots, more seeds before fewer."""
        return list(({one.arm.study.schedule.model_dump_json(): one for one in self.looks} | self.finals).values())

    @property
    def looks(self) -> list[Shown]:
        """The same of what was shown from the starts that all looks share: their times can be compared."""
        looks = [one for one in self.shown.values() if one.arm.is_look]
        looks.sort(key=lambda one: (one.arm.budget, one.arm.seeds))
        return list({one.arm.study.schedule.model_dump_json(): one for one in looks}.values())

    def look(self, study: Study) -> Shown | None:
        """At a schedule, if there was one."""
        return next((one for one in self.looks if one.arm.study == study), None)

    def show(self, arms: Sequence[Arm], untils: Sequence[float], what: str) -> list[Shown]:
        """Each arm up to there [s], on from where it was before; no shorter than that."""
        stages = [self._onward(arm, until) for arm, until in zip(arms, untils, strict=True)]
        calls = [arm.call(list(times), self.identity) for arm, times in zip(arms, stages, strict=True)]

        def done(ready: int) -> None:
            self.say(ready / len(calls), f"{what}, {ready} of {len(calls)}; {self.gradients:.0f} gradients before")

        if not calls:
            return []
        done(0)
        answers = self.hands.each(calls, done)
        found = [shown(arm, answer) for arm, answer in zip(arms, answers, strict=True)]
        self.shown |= {one.arm.name: one for one in found}
        self.stages |= {arm.name: times for arm, times in zip(arms, stages, strict=True)}
        return found

    def heated(self, one: Shown) -> Shown | None:
        """A look at its schedule that tells of higher noise temperatures too; None where there is none.

        Pilots do, or where they show little but noise the run itself beside the colder one of them.
        """
        if len(one.curves.temperatures) > 1:
            return one
        known = [other for other in self.shown.values() if other.arm.study == one.arm.study and other.arm.is_look]
        pilots = [other for other in known if len(other.curves.temperatures) > 1]
        if not pilots:
            return None
        pilot = max(pilots, key=lambda other: other.arm.seeds)
        one = self.shown.get(pilot.arm.whole.name, pilot)
        if one is pilot:
            return pilot
        hot, time = pilot.curves, one.curves.time
        known = time[time <= hot.time[-1]]
        losses = one.curves.losses[0].mean(axis=0)[None, : len(known)]
        hotter = np.interp(known, hot.time, hot.losses[0].mean(axis=0))[None]
        curves = replace(
            one.curves, time=known, updates=one.curves.updates[: len(known)], losses=(losses, hotter),
            temperatures=(1.0, hot.temperatures[0]),
        )  # fmt: skip
        return Shown(one.arm, curves)

    def full(self, arms: Sequence[Arm], untils: Sequence[float], what: str) -> list[Shown]:
        """Full runs of each, in blocks of seeds that go on from where they were, up to there [s]."""
        parts = [(part, until) for arm, until in zip(arms, untils, strict=True) for part in arm.blocks()]
        seen = iter(self.show([part for part, _ in parts], [until for _, until in parts], what))
        found = []
        for arm in arms:
            curves = functools.reduce(Curves.joined, (next(seen).curves for _ in arm.blocks()))
            found.append(Shown(arm, curves))
        self.finals |= {one.arm.study.schedule.model_dump_json(): one for one in found}
        return found

    def affords_full(self, arms: Sequence[Arm], untils: Sequence[float]) -> bool:
        """Whether the budget is enough for that; if not, it has ended the search."""
        parts = [(part, until) for arm, until in zip(arms, untils, strict=True) for part in arm.blocks()]
        return self.affords([part for part, _ in parts], [until for _, until in parts])

    def affords(self, arms: Sequence[Arm], untils: Sequence[float]) -> bool:
        """Whether the budget is enough to show them up to there [s]; if not, it has ended the search."""
        enough = self.spent + self._cost(arms, untils) <= self.budget
        self.ended = self.ended or not enough
        return enough

    def _cost(self, arms: Sequence[Arm], untils: Sequence[float]) -> float:
        """Samples from where they are."""
        cost = 0.0
        for arm, until in zip(arms, untils, strict=True):
            before = self.stages.get(arm.name, ())
            cost += max(arm.cost(until) - (arm.cost(before[-1]) if before else 0.0), 0.0)
        return cost

    def _onward(self, arm: Arm, until: float) -> Sequence[float]:
        """Stages that end there, or where it was before."""
        before = self.stages.get(arm.name, ())
        return before if before and before[-1] >= until else (*before, until)

    def judged(self, arms: Sequence[Arm], untils: Sequence[float], what: str) -> list[Shown]:
        """`show`, and the runs themselves in place of pilots that show little but noise, if the budget is enough."""
        found = self.show(arms, untils, what)
        noisy = [i for i, one in enumerate(found) if one.noisy]
        whole, ends = [arms[i].whole for i in noisy], [untils[i] for i in noisy]
        if not self.affords(whole, ends):
            return found
        for i, one in zip(noisy, self.show(whole, ends, f"{what}; noise decides"), strict=True):
            found[i] = one
        return found

    def halved(self, arms: Sequence[Arm], share: float) -> list[Shown]:
        """The last few of a race, best first; the best one with stale gradients and the best without are among them.

        Args:
            arms: Of one number of seeds.
            share: Of the budget that it may cost, about: the first look is as short as that asks for.
        """
        left, amount = list(arms), self._first(arms, share)
        seen: list[Shown] = []
        for turn in range(ROUNDS):
            untils = [self._until(arm, amount) for arm in left]
            if turn > 0 and not self.affords(left, untils):
                break
            seen = self.judged(left, untils, f"round {turn + 1}: {len(left)} schedules")
            seen.sort(key=self.order)
            best = self._taken(next((one for one in seen if self.may_be_taken(one)), seen[0]))
            settled = best <= amount / BEYOND
            spread = all(one.diverged or self.stages[one.arm.name][-1] >= self._longest(one.arm) for one in seen)
            if settled or spread:
                break
            keep = max(math.ceil(len(seen) / 2), min(LEFT, len(seen)))
            left = [one.arm for one in self._both(seen, keep)]
            amount = min(2.0 * amount, BEYOND * best)
        return seen

    def first_look(self, arms: Sequence[Arm], share: float) -> float:
        """Gradients that the first round of `halved` costs, about; the budget ends a race only after it."""
        amount = self._first(arms, share)
        return sum(arm.cost(self._until(arm, amount)) for arm in arms) / self.batch

    def may_be_taken(self, one: Shown) -> bool:
        """Whether the study's own policy, if it has one, lets it be."""
        return self.held in (None, one.arm.study.policy)

    def order(self, one: Shown) -> tuple[float, float, float]:
        """Least is best."""
        return one.order(self.goal)

    def _first(self, arms: Sequence[Arm], share: float) -> float:
        """The first amount: 8 mean cycles of the cheapest arm, or as few as the share asks for, 4 at least."""
        cycle = min(arm.study.workers().mean_cycle * arm.price(self.goal) for arm in arms)
        rounds = math.log2(max(len(arms) / LEFT, 1.0)) + 2.0
        each = sum(arm.cost(self._until(arm, cycle)) for arm in arms)
        return cycle * min(max(share * self.budget / (rounds * each), LEAST), FIRST)

    def _taken(self, one: Shown) -> float:
        """By the best one, of what is to be saved."""
        return getattr(one.arm.spent(one.time(), self.goal), self.goal.objective)

    def _until(self, arm: Arm, amount: float) -> float:
        """Seconds that an amount is enough for."""
        return min(amount / arm.price(self.goal), self._longest(arm))

    def _longest(self, arm: Arm) -> float:
        return min(arm.study.target.time_limit or math.inf, MOST_CYCLES * arm.study.workers().mean_cycle)

    def _both(self, seen: Sequence[Shown], keep: int) -> list[Shown]:
        """The first few, the best ones with and without stale gradients, and the best that may be taken."""
        kept = [one for one in seen[:keep] if not one.diverged]
        kept += [one for one in self.leaders(seen) if one not in kept]
        return kept or list(seen[:1])

    def leaders(self, seen: Sequence[Shown]) -> list[Shown]:
        """The best that may be taken, then the best ones with and without stale gradients, of those not diverged."""
        alive = [one for one in seen if not one.diverged]
        mine = [one for one in alive if self.may_be_taken(one)][:1]
        kinds = [[one for one in alive if is_fresh(one.arm.study.policy) == kind][:1] for kind in (False, True)]
        both = [one for one in alive if any(one in kind for kind in kinds)]
        return [*mine, *(one for one in both if one not in mine)] or list(seen[:1])
