"""Search for a network's schedule: theory shortlists, pilots race, full runs decide.

1. Structures by theory (`paces`): none that another one beats in stable drift and in gradients at once.
2. Of each a ladder of learning rates about its mean-square limit, with and without momentum, in a race (`race`) of
   cheap pilots.
3. The best ones with and without stale gradients at learning rates in between, with more seeds; the best of them with
   half and twice its group or bound at the same drift.
4. Fewer workers at the same drift are hotter and nothing else: their time is read off the pilots' two temperatures.
5. The last few as full runs in virtual time, and the last two of them with many seeds.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stalewise.errors import InputError
from stalewise.hands import Hands
from stalewise.planning import reasons
from stalewise.planning.arms import Arm, Shown
from stalewise.planning.finals import SEEDS as FINAL_SEEDS
from stalewise.planning.finals import STEADY, Finals
from stalewise.planning.knobs import structures, under
from stalewise.planning.network_questions import Asked, at_one_drift
from stalewise.planning.objectives import Goal, front
from stalewise.planning.paces import Pace, pace, raced
from stalewise.planning.questions import error_bars
from stalewise.planning.race import BEYOND, Race
from stalewise.planning.rules import RULES, Facts, Rule, under_rule
from stalewise.planning.search import (
    Candidate,
    Found,
    guard,
    guard_sentence,
    is_fresh,
    many,
    rank,
    rounded,
)
from stalewise.prediction.modes import learning_rate_limit, stiffest
from stalewise.protocol.rules import GROUPED
from stalewise.staleness import arrivals
from stalewise.study import Study
from stalewise.workloads import open_network

RUNGS = 2.0 ** np.arange(-3, 3)  # of the mean-square limit
UNKNOWN = 1e-3 * 10.0 ** np.arange(-1.0, 2.01, 0.5)  # learning rates of optimizers that no limit is known of
MOMENTA = (0.0, 0.9)
BELOW = 0.25, math.sqrt(0.125), 0.5  # of the lowest
BETWEEN = (math.sqrt(0.5), 1.0, math.sqrt(2.0))
BUDGET = 0.2  # of a run's samples: what its pilots in a race cost
SEEDS, MORE_SEEDS = 2, 4  # in the race and between its rungs
BATCHES = (2, 8, 32, 128, 512)
STRIDES = 2  # to neighbouring groups and bounds
RULE_REACH = 3.0  # times the pick's time: how far published rules are followed
SHARES = (0.4, 0.1)  # of the budget that the race, and that of one worker, may cost


def search_network(
    study: Study, seed: int, say: Callable[[float, str], None], goal: Goal, hands: Hands, *,
    budget: float = math.inf, identity: object = None, unsure: Mapping[str, float] | None = None,
) -> Found:  # fmt: skip
    """Search a network's schedule.

    Args:
        study: Its schedule may be empty.
        seed: Of pilots.
        say: Told how far it is.
        goal: What is to be saved.
        hands: That run pilots.
        budget: Gradients of the study's batch size that may be computed.
        identity: What answers are kept by.
        unsure: Factors by which noise and spread of the delays may be off, see `error_bars`.
    """
    bars = error_bars(study, unsure)
    network, study = open_network(study)
    batch, held = study.batch_size, study.schedule
    race = Race(
        hands, goal, identity, budget * batch, batch, lambda share, message: say(0.1 + 0.2 * share, message),
        held.policy,
    )  # fmt: skip
    search = _Search(study, seed, goal, race, network.size, network.any_batch)
    say(0.0, "staleness of possible structures")
    search.batches = _batches(study) if network.any_batch else ()
    sized = [study.with_schedule(batch_size=size) for size in search.batches] or [study]
    paces = [pace(one, goal, network.size, seed) for free in sized for one in structures(free)]
    chosen = raced(paces, study.schedule.policy)
    ladder = [arm for one in chosen for arm in search.ladder(one)]
    seen = search.raced(ladder, budget)
    race.say = lambda share, message: say(0.3 + 0.2 * share, message)
    better = search.around(search.between(seen))
    race.say = lambda share, message: say(0.5 + 0.3 * share, message)
    last = Finals(race, search.whole, held.learning_rate is not None, study.target.time_limit or math.inf)
    picks = last.run(better, search.fewer)
    pick, stale, fresh = last.pick(picks)
    if pick.time() == 0.0:
        before = float(pick.said.loss[0])
        raise InputError(f"target.loss must be below the loss at the start, {before:.4g}, got {study.target.loss:g}")
    race.say = lambda share, message: say(0.8 + 0.2 * share, message)
    searched = race.gradients
    search.starts = _starts(pick, race.look(pick.arm.study))
    rules = search.baselines(pick)
    said = [reasons.headline(pick, goal, race.ended), *reasons.of_starts(pick, search.starts)]
    said += search.reasons(pick, better, picks, bars)
    said += reasons.of_search(chosen, len(ladder), searched, race)
    if search.batches:
        said.append(reasons.of_batch(pick, race))
    final, guarded = _guarded(pick, study)
    said += guarded
    stay = is_fresh(pick.arm.study.policy) or pick.arm.study.active_workers == 1
    if stale is not None and fresh is not None and held.policy != "sync":
        won = search.order(fresh) <= search.order(stale)
        tie = held.policy is None and won != is_fresh(pick.arm.study.policy)
        stay = stay if tie else won
        said.append(reasons.of_tie(stale, fresh) if tie else reasons.of_kinds(stale, fresh, goal))
    said.append(reasons.of_cost(race, searched))
    others, best = search.tables(pick)
    return Found(
        final, others, said, stay, rules, best, search.asynchronous(), searched, race.gradients - searched, pick.time()
    )


@dataclass
class _Search:
    """What all steps of a search share."""

    study: Study
    seed: int
    goal: Goal
    race: Race
    size: int
    any_batch: bool
    batches: Sequence[int] = ()
    rules: frozenset[str] = frozenset()
    starts: float = 1.0

    def order(self, one: Shown) -> tuple[float, float, float]:
        """Least is best."""
        return self.race.order(one)

    def is_rule(self, one: Shown) -> bool:
        """Whether it was shown for a published rule alone."""
        return one.arm.name in self.rules

    def arm(self, study: Study, seeds: int, budget: float = BUDGET) -> Arm:
        """A schedule as it is shown in a step of the search."""
        return Arm(study, arrivals(study, seed=self.seed), seeds, self.seed, budget, self.size, self.any_batch)

    def whole(self, study: Study) -> Arm:
        """Full runs of a schedule, each from a start of its own."""
        return self.arm(study, FINAL_SEEDS, 1.0)

    def ladder(self, one: Pace) -> Iterator[Arm]:
        """Learning rates about the limit, with each momentum that is open."""
        held = self.study.schedule
        rate, plain = held.learning_rate, held.optimizer == "SGD"
        fixed = bool({"momentum", "nesterov"} & held.model_fields_set) or rate is not None or not plain
        for momentum in (held.momentum,) if fixed else MOMENTA:
            inert = one.study.with_schedule(momentum=momentum) if momentum != held.momentum else one.study
            if rate is not None:
                rates = [rate]
            elif plain:
                rates = learning_rate_limit(inert, replace(one.timing, path=None)).mean_square * RUNGS
            else:
                rates = UNKNOWN
            for at in rates:
                yield self.arm(inert.with_schedule(learning_rate=rounded(float(at))), SEEDS)

    def raced(self, ladder: Sequence[Arm], budget: float) -> list[Shown]:
        """The last few of a race, best first.

        Raises:
            InputError: The budget of gradients is not enough for a first look.
        """
        least = self.race.first_look(ladder, SHARES[0])
        if least > budget:
            raise InputError(
                f"gradients must be at least {math.ceil(least)} here, what a first look at "
                f"{many(len(ladder), 'schedule')} costs, got {budget:g}"
            )
        if len(ladder) > 1:
            return self.race.halved(ladder, SHARES[0])
        return self.race.show(ladder, [_some(ladder[0])], "the schedule")

    def between(self, seen: Sequence[Shown]) -> list[Shown]:
        """The best ones with and without stale gradients at learning rates in between, with more seeds; best first.

        Not of what takes half as long again as the other; and lower ones, where the best was the lowest of its ladder.
        """
        best, *others = self.race.leaders(seen)
        far = [one for one in others if self.order(one)[1] > BEYOND * self.order(best)[1]]
        near = [best, *(one for one in others if one not in far)]
        wanted = [(one, factor) for one in near for factor in self._factors(one)]
        arms = [self._more(_at(one, factor)) for one, factor in wanted]
        untils = [min(self._followed(one), self._limit) for one, _ in wanted]
        if not self.race.affords(arms, untils):
            return list(seen)
        return sorted([*self.race.judged(arms, untils, "learning rates in between"), *far], key=self.order)

    def _factors(self, one: Shown) -> Sequence[float]:
        """Of its learning rate."""
        if self.study.schedule.learning_rate:
            return (1.0,)
        plain = one.arm.study.with_schedule(learning_rate=1.0)
        known = [other.arm.study for other in self.race.looks]
        rates = [other.learning_rate for other in known if other.with_schedule(learning_rate=1.0) == plain]
        return (*BELOW, *BETWEEN) if one.arm.study.learning_rate == min(rates) else BETWEEN

    def _followed(self, one: Shown) -> float:
        """How long others are shown beside it [s]."""
        return BEYOND * one.time() if math.isfinite(one.time()) else float(one.said.time[-1])

    def around(self, better: Sequence[Shown]) -> list[Shown]:
        """The best one with half and twice its group or bound too, as long as that is better; best first."""
        found = list(better)
        for _ in range(STRIDES):
            best = next((one for one in found if self.race.may_be_taken(one)), found[0])
            known = {one.arm.name for one in found}
            arms = [arm for arm in map(self._more, self._neighbours(best.arm)) if arm.name not in known]
            untils = [min(BEYOND * best.time(), self._limit)] * len(arms)
            if not arms or not math.isfinite(best.time()) or not self.race.affords(arms, untils):
                break
            found = sorted([*found, *self.race.judged(arms, untils, "neighbours")], key=self.order)
            if next((one for one in found if self.race.may_be_taken(one)), None) is best:
                break
        return found

    def _more(self, study: Study) -> Arm:
        return self.arm(study, MORE_SEEDS)

    def _neighbours(self, arm: Arm) -> Iterator[Study]:
        """Half and twice the group, the bound or the batch at the same drift, where they are open."""
        study, held = arm.study, self.study.schedule
        now, workers = study.schedule, study.active_workers
        if held.learning_rate or now.optimizer != "SGD":
            return
        for factor in (0.5, 2.0):
            group, bound = now.group, now.max_staleness
            if study.policy in GROUPED and "group" not in held.model_fields_set:
                group = max(round(factor * group), 1)
            elif bound is not None and held.max_staleness is None:
                bound = max(round(factor * bound), 1)
            other = under(study, study.policy, workers, group=group, max_staleness=bound)
            if other is not None and (group, bound) != (now.group, now.max_staleness):
                yield self._as_fast(other, arm)
            if self.batches and factor * study.batch_size >= 1:
                yield self._as_fast(study.with_schedule(batch_size=int(factor * study.batch_size)), arm)

    def _as_fast(self, other: Study, arm: Arm) -> Study:
        """With the learning rate that gives it the arm's drift."""
        rate = arm.study.learning_rate * arm.timing.rate / arrivals(other, seed=self.seed).rate
        return other.with_schedule(learning_rate=rounded(rate))

    def fewer(self, one: Shown) -> Iterator[tuple[Study, float]]:
        """Half the workers, a quarter and so on at the same drift, as far as the pilots say they do as well."""
        heated = self.race.heated(one)
        if self.study.schedule.active_workers or self.study.schedule.learning_rate or heated is None:
            return
        last: tuple[Study, float] | None = None
        for study, heat in at_one_drift(one, 0.5, self.seed):
            time = heated.time(heat)
            if not time <= STEADY * heated.time():
                break
            last = study, time
        if last is not None:
            yield last

    def baselines(self, pick: Shown) -> list[dict[str, Any]]:
        """Published rules on the same study, as far as they say something of a network."""
        held = self.study.schedule
        if held.learning_rate or held.optimizer != "SGD" or not math.isfinite(pick.time()):
            return []
        plain = dict.fromkeys(("max_staleness", "on_stale", "group", "momentum", "nesterov", "staleness_weight"))
        one = self.study.with_schedule(**plain, policy="async", active_workers=1)
        before = set(self.race.shown)
        limit = learning_rate_limit(one, arrivals(one.with_schedule(learning_rate=1.0))).mean_square
        ladder = [self.arm(one.with_schedule(learning_rate=rounded(float(r * limit))), SEEDS) for r in RUNGS]
        if self.race.gradients + self.race.first_look(ladder, SHARES[1]) > self.race.budget / self.race.batch:
            return [self._unrun(rule, "left out: the budget of gradients is spent", pick) for rule in RULES]
        alone = min(self.race.halved(ladder, SHARES[1]), key=self.order).arm.study.learning_rate
        facts = Facts(self.study.cluster.workers, alone, stiffest(self.study)[0], None, None, self.study.target.loss)
        said = {rule.name: under_rule(self.study.with_schedule(**plain), rule, facts) for rule in RULES}
        arms = {name: self.arm(at, SEEDS) for name, at in said.items() if at is not None}
        reach = [min(RULE_REACH * pick.time(), self._limit)] * len(arms)
        rows: dict[str, Shown] = {}
        if self.race.affords(list(arms.values()), reach):
            rows = dict(zip(arms, self.race.show(list(arms.values()), reach, "published rules"), strict=True))
        self.rules = frozenset(set(self.race.shown) - before)
        found = []
        for rule in RULES:
            if rule.name in rows:
                row = self.candidate(rows[rule.name]).as_dict()
                found.append({"rule": rule.name, "source": rule.source, **row})
            elif said[rule.name] is None:
                found.append(self._unrun(rule, "asks for the accuracy of a gradient, which a loss does not tell", pick))
            else:
                found.append(self._unrun(rule, "left out: the budget of gradients is spent", pick))
        return found

    def _unrun(self, rule: Rule, why: str, pick: Shown) -> dict[str, Any]:
        """A rule that was not followed, and why."""
        row = Candidate(self.study, pick.arm.spent(math.inf, self.goal), why).as_dict() | {"schedule": {}}
        return {"rule": rule.name, "source": rule.source, **row}

    def candidate(self, one: Shown) -> Candidate:
        """For the tables; times of looks are those that other starts would give too, by the pick's."""
        seeds, starts = reasons.how(one), self.starts if one.arm.is_look else 1.0
        if one.diverged:
            note = f"{seeds}: diverges"
        elif math.isfinite(one.time()):
            note = seeds if one.arm.seeds == 1 else f"{seeds}: {reasons.over_seeds(one)}"
        else:
            note = f"{seeds}: loss {one.said.loss[-1]:.4g} after {one.said.time[-1]:.4g} s"
        if starts != 1.0 and math.isfinite(one.time()):
            note += f", times {starts:.3g} for more starts"
        return Candidate(one.arm.study, one.arm.spent(starts * one.time(), self.goal), note)

    @property
    def _known(self) -> list[Shown]:
        """What was shown of all schedules but those of published rules."""
        return [one for one in self.race.best_known if not self.is_rule(one)]

    def tables(self, pick: Shown) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Alternatives to the pick, best first, and what no other schedule beats in all that it takes."""
        others = [self.candidate(one) for one in self._known if one.arm.study != pick.arm.study]
        every = [self.candidate(one) for one in self._known]
        return rank(others, self.goal), [every[i].as_dict() for i in front([one.spent for one in every])]

    def asynchronous(self) -> Study | None:
        """The best schedule under policy async, if one was shown."""
        plain = [one for one in self._known if one.arm.study.policy == "async" and not one.diverged]
        return min(plain, key=self.order).arm.study if plain else None

    def reasons(
        self, pick: Shown, better: Sequence[Shown], picks: Sequence[Shown], bars: Mapping[str, float]
    ) -> list[str]:
        """Why this learning rate, this momentum and so many workers, what limits the run, and how sure all that is."""
        held, policy = self.study.schedule.learning_rate is not None, pick.arm.study.policy
        same = next(one for one in [*better, pick] if one.arm.study.policy == policy)
        asked = Asked(pick, same, self.race, self.seed, held)
        limit = None
        if pick.arm.study.schedule.optimizer == "SGD":
            limit = learning_rate_limit(pick.arm.study, pick.arm.timing).mean_square
        said = [reasons.of_rate(pick, held, limit), *reasons.of_momentum(pick, self.race), *asked.buys()]
        mine = [one for one in picks if one.arm.study.policy == policy]
        most = max(mine, key=lambda one: one.arm.study.active_workers, default=pick)
        if pick.arm.study.active_workers < most.arm.study.active_workers and math.isfinite(pick.time()):
            said.append(reasons.of_sparing(most, pick, STEADY - 1.0))
        return [*said, *asked.limits(), *([] if held else asked.sure(bars))]

    @property
    def _limit(self) -> float:
        return self.study.target.time_limit or math.inf


def _at(one: Shown, factor: float) -> Study:
    """Its schedule at another learning rate."""
    study = one.arm.study
    return study.with_schedule(learning_rate=rounded(factor * study.learning_rate))


def _starts(pick: Shown, look: Shown | None) -> float:
    """What the pick takes from many starts over what it takes from those of a look; 1 where that is not known."""
    if pick.arm.is_look or look is None or not (0.0 < look.time() < math.inf and pick.time() < math.inf):
        return 1.0
    return pick.time() / look.time()


def _guarded(pick: Shown, study: Study) -> tuple[Study, list[str]]:
    """The pick with a threshold that costs nothing, if it may have one, and what is told of it."""
    final = pick.arm.study
    few = final.active_workers
    if final.policy != "async" or study.schedule.max_staleness is not None or few == 1:
        return final, []
    bound = guard(pick.arm.timing, few)
    return final.with_schedule(max_staleness=bound), [guard_sentence(bound, few)]


def _batches(study: Study) -> Sequence[int]:
    """Batch sizes to choose from; none where one is given, or where samples cost no time."""
    open_ = study.schedule.batch_size is None and study.cluster.samples_cost_time
    return BATCHES if open_ else ()


def _some(arm: Arm) -> float:
    """How long a schedule is shown that nothing else races with [s]."""
    return min(arm.study.target.time_limit or math.inf, 100.0 * arm.study.workers().mean_cycle)
