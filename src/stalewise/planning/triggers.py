"""Event-triggered sending on top of a plan: triggers tried in virtual time, what they save and what they cost."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stalewise.errors import InputError
from stalewise.planning.objectives import Goal, Spent, traffic_counted
from stalewise.planning.search import APART, STEADY, many, percent
from stalewise.simulation import simulate
from stalewise.study import Study

POLICY = "event-triggered"
QUIET = ("refresh", "keep")
DEAR = 3e7  # mode updates of a trial, beyond which it has fewer seeds
LONGEST = 2.5  # times as long as without a trigger, at most
EDGE = 0.9  # of the target, below which the loss must stay in the last quarter: on the edge chance decides
NEVER, ALWAYS = 0.02, 0.98  # shares unsent: ends of the ladder
AGAIN = 4  # of the best triggers are tried again with fresh seeds, until one is better there too


@dataclass(frozen=True)
class Effort:
    """How closely triggers are looked at.

    Attributes:
        seeds: Of a trial.
        fewest: Of a long one.
        few: Of a look at norms.
        fresh: Times as many for what is told.
        gap: Share unsent between rungs of the ladder.
        looks: At norms, at most.
        halvings: Of the distance between rungs, about the best.
    """

    seeds: int
    fewest: int
    few: int
    fresh: int
    gap: float
    looks: int
    halvings: int


QUADRATIC = Effort(64, 8, 8, 4, 0.15, 20, 2)
NETWORK = Effort(3, 3, 1, 3, 0.3, 3, 0)


def effort_for(study: Study) -> Effort:
    """A network's runs cost real gradients: there are few of them."""
    return QUADRATIC if study.workload.is_quadratic else NETWORK


@dataclass(frozen=True)
class Outcome:
    """What a schedule takes in virtual time, infinite where it does not settle, and the share of gradients unsent."""

    study: Study
    spent: Spent
    unsent: float


@dataclass(frozen=True)
class Choice:
    """A schedule with or without a trigger, and what to say of it."""

    study: Study
    sentence: str


def are_searched(study: Study, goal: Goal) -> bool:
    """Whether triggers are to be tried: traffic matters, and neither a trigger nor a policy without one is given."""
    held = study.schedule
    wanted = goal.objective == "traffic" or math.isfinite(goal.traffic)
    return wanted and "trigger" not in held.model_fields_set and held.policy in (None, POLICY)


def triggered(study: Study, **changes: object) -> Study | None:
    """A schedule that applies gradients one by one, under a trigger of 0 that may be raised; None where it has none."""
    schedule = study.schedule
    if schedule.policy not in ("async", POLICY) and not (schedule.policy == "sync" and study.active_workers == 1):
        return None
    try:
        return study.with_schedule(policy=POLICY, **changes)
    except InputError:
        return None


def choose_trigger(study: Study, pick: Study, base: Study | None, goal: Goal, size: int, seed: int) -> Choice:
    """The best trigger for the pick, or for another schedule that can have one, where that beats the pick.

    Args:
        study: What was asked.
        pick: The best schedule without a trigger.
        base: The best one that can have a trigger, where the pick can not.
        goal: What is to be least, and limits.
        size: Parameters.
        seed: Of simulations.

    Returns:
        What is better by 2 % or more with four times as many seeds, which chose nothing; else the pick.
    """
    plain = triggered(pick) or (triggered(base) if base is not None else None)
    if plain is None:
        return Choice(pick, "No trigger is tried: the schedule is none that applies gradients one by one as they come.")
    trials = _Trials.of(plain, goal, size, seed)
    if trials is None:
        return Choice(pick, "No trigger is tried: without one the target is not reached in virtual time.")
    held, tried = study.schedule, list[Outcome]()
    ladder = _ladder(plain, trials.longest / LONGEST, seed, trials.effort)
    for way in QUIET if "on_quiet" not in held.model_fields_set else (held.on_quiet,):
        here = [trials.outcome(_at(plain, norm, way)) for norm in ladder]
        for _ in range(trials.effort.halvings):
            here += [trials.outcome(_at(plain, norm, way)) for norm in _between(here, goal)]
        tried += here
    fresh = trials.fresh()
    before = fresh.outcome(pick)
    limit, now = goal.order(before.spent)
    for best in sorted(tried, key=lambda one: goal.order(one.spent))[:AGAIN]:
        after = fresh.outcome(best.study)
        over, least = goal.order(after.spent)
        if (over, STEADY * least) < (limit, now):
            return Choice(best.study, f"{_named(best.study, pick)} changes {fresh.told(before, after)}.")
    return Choice(pick, f"No trigger of {len(tried)} tried is worth it: none takes 2 % less {goal.objective}.")


def hold_trigger(study: Study, pick: Study, goal: Goal, size: int, seed: int) -> Choice:
    """The pick under the trigger that the study gives, and what that does."""
    norm = study.schedule.trigger
    text = f"trigger = {norm:g} is held as given; the rest was tuned as if all gradients were sent"
    plain = triggered(pick)
    if plain is None:
        raise InputError(f"schedule.trigger belongs to policy {POLICY!r}, got {norm:g} under {pick.policy!r}")
    best = plain.with_schedule(trigger=norm)
    trials = _Trials.of(plain, goal, size, seed)
    if trials is None:
        return Choice(best, f"{text}, and even so the target is not reached in virtual time.")
    fresh = trials.fresh()
    after = fresh.outcome(best)
    if not math.isfinite(after.spent.time):
        end = f"is not down to stay within {LONGEST:g} times the time without it: lower the trigger, or leave it out"
        return Choice(best, f"{text}. Under it the loss {end}.")
    keeps = "" if goal.holds(after.spent) else " Not all limits hold with it."
    return Choice(best, f"{text}. It changes {fresh.told(fresh.outcome(plain), after)}.{keeps}")


@dataclass(frozen=True)
class _Trials:
    """Runs in virtual time of the same length and seeds: the same delays and noise, as far as may be."""

    goal: Goal
    size: int
    seed: int
    seeds: int
    longest: float
    effort: Effort

    @classmethod
    def of(cls, plain: Study, goal: Goal, size: int, seed: int) -> "_Trials | None":
        """As long as it takes to see what a trigger does; None where the target is not reached without one."""
        effort = effort_for(plain)
        time = simulate(plain, seeds=effort.seeds, seed=seed).time_to_target.mean
        if not time:
            return None
        longest = LONGEST * time
        seeds = int(DEAR / (size * plain.workers().rate * longest))
        return cls(goal, size, seed, min(max(seeds, effort.fewest), effort.seeds), longest, effort)

    def fresh(self) -> "_Trials":
        """The same with more seeds, and other ones."""
        return replace(self, seed=self.seed + APART, seeds=self.effort.fresh * self.seeds)

    def outcome(self, study: Study) -> Outcome:
        """What it takes until the mean loss has settled."""
        whole = simulate(study, seeds=self.seeds, seed=self.seed, horizon=self.longest)
        time, last = whole.time_to_target.mean, whole.loss[-len(whole.loss) // 4 :]
        on_edge = study.schedule.trigger > 0 and sum(last) > EDGE * study.target.loss * len(last)
        if not time or whole.diverges or on_edge:
            return Outcome(study, Spent(math.inf, math.inf, math.inf), math.nan)
        count = simulate(study, seeds=self.seeds, seed=self.seed, horizon=time).gradients
        traffic = traffic_counted(count, self.size, keeps=study.rules().on_quiet == "keep") / self.seeds
        return Outcome(
            study,
            Spent(time, self.goal.price * study.active_workers * time, traffic),
            count.unsent / max(count.computed - count.in_flight, 1.0),
        )

    def told(self, before: Outcome, after: Outcome) -> str:
        """What changes."""
        names = dict.fromkeys(("traffic", "time", self.goal.objective))
        then, now = after.spent, before.spent
        ratios = {name: getattr(then, name) / getattr(now, name) - 1 for name in names}
        known = [f"{name} by {100 * more:+.0f} %" for name, more in ratios.items() if math.isfinite(more)]
        return (
            f"{', '.join(known) or 'what did not settle'}, to {then.traffic:.3g} bytes and {then.time:.4g} s to the "
            f"target ({self.seeds} simulated runs of each): {percent(after.unsent)} of the gradients stay unsent"
        )


def _named(study: Study, pick: Study) -> str:
    """The trigger, and of which schedule it is one."""
    schedule = study.schedule
    what = f"trigger = {schedule.trigger:g} (on_quiet = {schedule.on_quiet})"
    if triggered(pick) is not None:
        return what
    where = f"{many(study.active_workers)} and learning rate {study.learning_rate:.4g}"
    return f"{what} of {POLICY} with {where}, while all said so far is of {pick.policy} without a trigger,"


def _at(plain: Study, norm: float, way: str) -> Study:
    return plain.with_schedule(trigger=float(f"{norm:.3g}"), on_quiet=way if way != QUIET[0] else None)


def _ladder(plain: Study, time: float, seed: int, effort: Effort) -> list[float]:
    """Triggers under which from 2 to 98 % of the gradients of a run are unsent, in steps of 15 % (networks: 30 %)."""
    shares: dict[float, float] = {}

    def share(norm: float) -> float:
        if norm not in shares:
            count = simulate(_at(plain, norm, QUIET[0]), seeds=effort.few, seed=seed, horizon=time).gradients
            shares[norm] = count.unsent / max(count.computed - count.in_flight, 1.0)
        return shares[norm]

    low = high = 1.0
    while share(low) > NEVER and low > 1e-30:
        low *= 0.5
    while share(high) < ALWAYS and high < 1e30:
        high *= 2.0
    for _ in range(effort.looks):
        norms = sorted(norm for norm in shares if low <= norm <= high)
        gaps = [(share(b) - share(a), a, b) for a, b in itertools.pairwise(norms) if b > 1.02 * a]
        gap, below, above = max(gaps, default=(0.0, 0.0, 0.0))
        if gap <= effort.gap:
            break
        share(math.sqrt(below * above))
    return sorted(norm for norm, unsent in shares.items() if NEVER < unsent < ALWAYS)


def _between(tried: Sequence[Outcome], goal: Goal) -> list[float]:
    """Triggers on both sides of the best, half way to the next."""
    if not tried:
        return []
    best = min(tried, key=lambda one: goal.order(one.spent)).study.schedule.trigger
    norms = sorted({one.study.schedule.trigger for one in tried})
    place = norms.index(best)
    sides = [math.sqrt(best * norms[other]) for other in (place - 1, place + 1) if 0 <= other < len(norms)]
    return [norm for norm in sides if float(f"{norm:.3g}") not in norms]
