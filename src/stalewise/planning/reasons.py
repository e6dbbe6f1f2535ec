"""Why a network's plan is what it is, in sentences; those of a quadratic's are in `questions`."""

import math
from collections.abc import Mapping, Sequence

from stalewise.planning.arms import STARTS, Shown
from stalewise.planning.objectives import Goal
from stalewise.planning.paces import Pace
from stalewise.planning.race import Race
from stalewise.planning.search import ALONE, fresh_sentence, many, percent
from stalewise.study import Study

DOUBT = 0.05  # of the time: what is worth measuring


def headline(pick: Shown, goal: Goal, ended: bool) -> str:
    """What is taken and what it takes; ``ended`` if the budget was spent early."""
    study, taken = pick.arm.study, pick.arm.spent(pick.time(), goal)
    if not math.isfinite(taken.time):
        end = "diverges" if pick.diverged else f"is at {_end(pick)}"
        if ended:
            return (
                f"The budget was spent before this policy had been followed down to {study.target.loss:g}; the best "
                f"by then, {name(study)}, {end}."
            )
        return f"No schedule tried settles below {study.target.loss:g}; the closest, {name(study)}, {end}."
    text = (
        f"{name(study)} reaches {study.target.loss:g} in about {taken.time:.4g} s ({over_seeds(pick)}), for "
        f"{study.active_workers * taken.time:.4g} worker-seconds and {taken.traffic:.3g} bytes."
    )
    return text if goal.holds(taken) else f"{text} No schedule tried keeps all limits; this one is nearest."


def of_rate(pick: Shown, held: bool, limit: float | None) -> str:
    """Where the learning rate comes from; ``limit``: the mean-square one at the start, where it is known."""
    study = pick.arm.study
    share = "" if limit is None else f", {study.learning_rate / limit:.2g} of the mean-square limit at the start"
    if held:
        return f"The learning rate {study.learning_rate:.4g} is held as given{share}."
    text = f"The learning rate {study.learning_rate:.4g}{share}, was the best of those raced"
    if share and study.learning_rate > (limit or math.inf):
        text += " (beyond it: curvature gives way in training)"
    if study.policy == "async":
        product = study.learning_rate * study.active_workers
        return f"{text}; with another number of workers keep learning rate x workers = {product:.3g}."
    return f"{text}."


def of_momentum(pick: Shown, race: Race) -> list[str]:
    """How the best one of its policy with another momentum compares."""
    momentum, policy = pick.arm.study.schedule.momentum, pick.arm.study.policy
    raced = [one for one in race.looks if one.arm.study.policy == policy]
    other = [one for one in raced if one.arm.study.schedule.momentum != momentum and not one.diverged]
    mine = [one for one in raced if one.arm.study.schedule.momentum == momentum and not one.diverged]
    if not other or not mine:
        return []
    best, own = min(other, key=race.order), min(mine, key=race.order)
    named = "Without momentum" if momentum else f"With momentum {best.arm.study.schedule.momentum:g}"
    if not math.isfinite(best.time()):
        return [f"{named} schedules fell behind in the race."]
    return [f"{named} it takes {best.time():.4g} s, by {how(best)}, against {own.time():.4g} s, by {how(own)}."]


def of_workers(beside: int, ratios: Sequence[tuple[int | None, float]]) -> str:
    """What workers buy at one drift: times over those of so many, by numbers of workers, None for any number."""
    parts = []
    for workers, ratio in ratios:
        if math.isfinite(ratio):
            parts.append(f"with {workers or 'any number'} {100 * (ratio - 1):+.0f} % time")
        elif workers:
            parts.append(f"with {workers} it would not get there")
    return (
        "At the same drift (learning rate x steps a second) more workers only cool the gradient noise: beside "
        f"{beside}, {', '.join(parts)}."
    )


def of_sparing(most: Shown, pick: Shown, share: float) -> str:
    """Why fewer workers are taken than the most that were run."""
    if not math.isfinite(most.time()):
        return f"With {many(most.arm.study.active_workers)} it did not get there."
    seeds = min(most.arm.seeds, pick.arm.seeds)
    ratio = most.first(seeds).time() / pick.first(seeds).time()
    return (
        f"{many(most.arm.study.active_workers)} took {100 * (ratio - 1):+.1f} % time: not worth it, a plan takes the "
        f"fewest within {100 * share:.0f} % of the best."
    )


def of_starts(pick: Shown, ratio: float) -> list[str]:
    """How the starts of the last runs compare with those of the race, where that is worth a word."""
    if abs(ratio - 1.0) < DOUBT:
        return []
    return [
        f"That is over {pick.arm.starts} first parameters. All schedules were raced from the same {STARTS}, from which "
        f"it takes {pick.time() / ratio:.4g} s; times of those that were not run further are told {ratio:.3g} times as "
        "long for that."
    ]


def of_rates(best: Shown, raced: Sequence[tuple[float, float]]) -> str:
    """How flat the optimum is: learning rates of one structure and their times to the target."""
    here = best.arm.study.learning_rate
    parts = [
        f"{rate:.3g} ({f'{100 * (time / best.time() - 1):+.0f} %' if math.isfinite(time) else 'behind or never'})"
        for rate, time in raced
        if rate != here
    ]
    of = f"of {name(best.arm.study)}, by learning rate and time"
    return f"How flat the optimum is, {of}: {here:.3g}, beside it {', '.join(parts)}."


def of_doubt(bars: Mapping[str, float], losses: Sequence[float], limits: Sequence[float | None]) -> list[str]:
    """What it costs if noise or delays are otherwise.

    Args:
        bars: Factors by which ``noise`` and ``spread`` of the delays may be off.
        losses: Regrets of the learning rate with more and less noise; none where pilots do not tell.
        limits: Mean-square limits of the learning rate, of the delays as they are, more and less spread; none where
            theory does not tell.
    """
    said, worst = [], 0.0
    if losses:
        worst = max(losses)
        loss = f"{100 * worst:.0f} %" if math.isfinite(worst) else "everything: it never settles"
        said.append(f"with gradient noise {bars['noise']:.3g} times larger or smaller this learning rate loses {loss}")
    now, *others = limits
    if now and all(others):
        moves = [100 * (other / now - 1) for other in others if other]
        worst = max(worst, -min(moves) / 100)
        said.append(
            f"delays {bars['spread']:.3g} times more or less spread move the largest stable learning rate at the start "
            f"by {moves[0]:+.1f} and {moves[1]:+.1f} %"
        )
    if not said:
        return []
    ending = "No measurement would change it much."
    if worst > DOUBT:
        noise = bool(losses) and worst == max(losses)
        ending = f"Measure the {'gradient noise (more seeds)' if noise else 'spread of the delays'} better first."
    return [f"If what was assumed is wrong: {'; '.join(said)}. {ending}"]


def of_batch(pick: Shown, race: Race) -> str:
    """How the best ones with other batches did."""
    study, best = pick.arm.study, dict[int, float]()
    for one in race.looks:
        size = one.arm.study.batch_size
        if not one.diverged and size != study.batch_size:
            best[size] = min(best.get(size, math.inf), one.time())
    told = [f"{size}: {'behind' if math.isinf(time) else f'{time:.4g} s'}" for size, time in sorted(best.items())]
    bare = study.with_cluster(sample_time=None).workers().mean_cycle / study.workers().mean_cycle
    return (
        f"Batches of {study.batch_size}, by pilots and runs of others ({'; '.join(told)}); samples take "
        f"{percent(1.0 - bare)} of a mean cycle."
    )


def of_kinds(stale: Shown, fresh: Shown, goal: Goal) -> str:
    """How the best schedules with and without stale gradients compare, as far as each was followed."""
    if stale.arm.study.active_workers == fresh.arm.study.active_workers == 1:
        return ALONE
    behind = [one for one in (stale, fresh) if not math.isfinite(one.time())]
    if not behind or any(one.diverged for one in behind):
        own, other = (getattr(one.arm.spent(one.time(), goal), goal.objective) for one in (stale, fresh))
        return fresh_sentence(fresh.arm.study.policy, own, other, goal.objective)
    parts = []
    for one in sorted((stale, fresh), key=lambda one: one.time()):
        kind = "with stale gradients" if one is stale else "without stale gradients"
        end = f"is still at {_end(one)}" if one in behind else f"takes {one.time():.4g} s"
        parts.append(f"the best one {kind}, {name(one.arm.study)}, {end}")
    text = " while ".join(parts)
    return f"{text[0].upper()}{text[1:]}, and was not followed further."


def of_tie(stale: Shown, fresh: Shown) -> str:
    """Where runs do not tell which kind is better."""
    return (
        f"With stale gradients ({name(stale.arm.study)}) it takes {stale.time():.4g} s, without "
        f"({name(fresh.arm.study)}) {fresh.time():.4g} s, from the same starts: no difference that these runs tell."
    )


def of_search(chosen: Sequence[Pace], schedules: int, searched: float, race: Race) -> list[str]:
    """What was raced, and whether the budget ended it early."""
    names = ", ".join(dict.fromkeys(name(one.study) for one in chosen))
    said = [f"Theory left {many(len(chosen), 'structure')} to race, {many(schedules, 'schedule')}: {names}."]
    if race.ended:
        budget = race.budget / race.batch
        said.append(f"The budget of {budget:.0f} gradients ended the search early, after {searched:.0f}.")
    return said


def of_cost(race: Race, searched: float) -> str:
    """What the search cost."""
    return (
        f"The search cost {searched:.0f} gradients of {race.batch} samples in virtual time; published rules "
        f"{race.gradients - searched:.0f} more."
    )


def name(study: Study) -> str:
    """Policy, workers and group."""
    group = f", group {study.schedule.group}" if study.schedule.group > 1 else ""
    return f"{study.policy} with {many(study.active_workers)}{group}"


def over_seeds(one: Shown) -> str:
    """Ends of the band of the time to the target, where there are seeds to tell it from."""
    if one.arm.seeds == 1:
        return "one run"
    low, high = one.over_seeds
    if not math.isfinite(high):
        return "not settled in every seed"
    return f"{low:.4g} to {high:.4g} s over seeds"


def how(one: Shown) -> str:
    """What was run of a schedule."""
    full = one.arm.budget >= 1.0
    return many(one.arm.seeds, "full run") if full else f"pilots of {many(one.arm.seeds, 'seed')}"


def _end(one: Shown) -> str:
    return f"{one.said.loss[-1]:.4g} after {one.said.time[-1]:.4g} s"
