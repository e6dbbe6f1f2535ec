"""Event-triggered sending on top of a plan: triggers tried in virtual time, what they save and what they cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stalewise.errors import InputError
from stalewise.planning.objectives import Goal
from stalewise.planning.search import STEADY, many
from stalewise.planning.trials import LONGEST, QUIET, SPENT, Bench, Outcome, Trials, at_trigger
from stalewise.study import Study

POLICY = "event-triggered"
AGAIN = 4  # of the best triggers are tried again with fresh seeds, until one is better there too


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


def choose_trigger(
    study: Study, pick: Study, base: Study | None, goal: Goal, size: int, seed: int, bench: Bench
) -> Choice:
    """The best trigger for the pick, or for another schedule that can have one, where that beats the pick.

    Args:
        study: What was asked.
        pick: The best schedule without a trigger.
        base: The best one that can have a trigger, where the pick can not.
        goal: What is to be least, and limits.
        size: Parameters.
        seed: Of simulations.
        bench: Where they are made.

    Returns:
        What is better by 2 % or more with four times as many seeds, which chose nothing; else the pick.
    """
    plain = triggered(pick) or (triggered(base) if base is not None else None)
    if plain is None:
        return Choice(pick, "No trigger is tried: the schedule is none that applies gradients one by one as they come.")
    trials = Trials.of(plain, goal, size, seed, bench)
    if isinstance(trials, str):
        return Choice(pick, f"No trigger is tried: {trials}.")
    held, tried = study.schedule, list[Outcome]()
    ladder = trials.ladder(plain)
    for way in QUIET if "on_quiet" not in held.model_fields_set else (held.on_quiet,):
        here = trials.outcomes([at_trigger(plain, norm, way) for norm in ladder])
        for _ in range(trials.effort.halvings):
            here += trials.outcomes([at_trigger(plain, norm, way) for norm in _between(here, goal)])
        tried += here
    fresh = trials.fresh()
    best_few = [one.study for one in sorted(tried, key=lambda one: goal.order(one.spent))[:AGAIN]]
    if not fresh.affords(2):
        return Choice(pick, f"No trigger is chosen: {SPENT}.")
    (before,) = fresh.outcomes([pick])
    limit, now = goal.order(before.spent)
    for best in best_few:
        if not fresh.affords(1):
            return Choice(pick, f"No trigger is chosen: {SPENT}.")
        (after,) = fresh.outcomes([best])
        over, least = goal.order(after.spent)
        if (over, STEADY * least) < (limit, now):
            return Choice(best, f"{_named(best, pick)} changes {fresh.told(before, after)}.")
    return Choice(pick, f"No trigger of {len(tried)} tried is worth it: none takes 2 % less {goal.objective}.")


def hold_trigger(study: Study, pick: Study, goal: Goal, size: int, seed: int, bench: Bench) -> Choice:
    """The pick under the trigger that the study gives, and what that does."""
    norm = study.schedule.trigger
    text = f"trigger = {norm:g} is held as given; the rest was tuned as if all gradients were sent"
    plain = triggered(pick)
    if plain is None:
        raise InputError(f"schedule.trigger belongs to policy {POLICY!r}, got {norm:g} under {pick.policy!r}")
    best = plain.with_schedule(trigger=norm)
    trials = Trials.of(plain, goal, size, seed, bench)
    if isinstance(trials, str):
        return Choice(best, f"{text}. What it changes is not told: {trials}.")
    fresh = trials.fresh()
    if not fresh.affords(2):
        return Choice(best, f"{text}. What it changes is not told: {SPENT}.")
    before, after = fresh.outcomes([plain, best])
    if not math.isfinite(after.spent.time):
        end = f"is not down to stay within {LONGEST:g} times the time without it: lower the trigger, or leave it out"
        return Choice(best, f"{text}. Under it the loss {end}.")
    keeps = "" if goal.holds(after.spent) else " Not all limits hold with it."
    return Choice(best, f"{text}. It changes {fresh.told(before, after)}.{keeps}")


def _named(study: Study, pick: Study) -> str:
    """The trigger, and of which schedule it is one."""
    schedule = study.schedule
    what = f"trigger = {schedule.trigger:g} (on_quiet = {schedule.on_quiet})"
    if triggered(pick) is not None:
        return what
    where = f"{many(study.active_workers)} and learning rate {study.learning_rate:.4g}"
    return f"{what} of {POLICY} with {where}, while all said so far is of {pick.policy} without a trigger,"


def _between(tried: Sequence[Outcome], goal: Goal) -> list[float]:
    """Triggers on both sides of the best, half way to the next."""
    if not tried:
        return []
    best = min(tried, key=lambda one: goal.order(one.spent)).study.schedule.trigger
    norms = sorted({one.study.schedule.trigger for one in tried})
    place = norms.index(best)
    sides = [math.sqrt(best * norms[other]) for other in (place - 1, place + 1) if 0 <= other < len(norms)]
    return [norm for norm in sides if float(f"{norm:.3g}") not in norms]
