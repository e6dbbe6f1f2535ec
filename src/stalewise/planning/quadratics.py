"""Search for a quadratic's schedule, by mathematics alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize

from stalewise.errors import InputError, NotConvergedError
from stalewise.planning.batches import batch_sentence, climbed, first_batch
from stalewise.planning.knobs import batch_is_open, fastest_first, neighbours, structures, under
from stalewise.planning.objectives import Goal, Spent, front, spent
from stalewise.planning.questions import error_bars, what_limits
from stalewise.planning.rules import RULES, facts_of, under_rule
from stalewise.planning.search import (
    ALONE,
    MARGIN,
    STEADY,
    Candidate,
    Found,
    fresh_sentence,
    guard,
    guard_sentence,
    is_fresh,
    many,
    percent,
    plain_sentence,
    rank,
    rounded,
)
from stalewise.planning.shortlist import ROUGH, Guess, guess, look
from stalewise.planning.triggers import are_searched
from stalewise.prediction.modes import learning_rate_limit
from stalewise.prediction.quadratic import settling
from stalewise.simulation import simulate
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study

INNER = 0.9  # of the target is planned for
FINALISTS = 3  # policies that are tuned
WIDTH, STEPS, LOWER = 0.5, 6, 8  # of the logarithm of the learning rate: to both sides, looks, and steps down
SHORTER = 0.25  # of what is counted and recorded in virtual time, for all but what is said of the pick
CLOSER = 2  # of the looks, that are looked at along the path
NEAR, LEVEL, REACH = 2.0, 1.3, 1.15  # times the best: what may take the steps to neighbours, momentum, its polish
WORTH = 1.03  # what a threshold saves at least, as a factor
MODES = ("drop", "wait", "admit")  # of keeping a bound on async; to cancel is policy ringmaster, with its own
CONFIRMED = 512  # seeds
FEW_STEPS = 40  # until the target: where neighbours are looked at closely
STRIDES = 4  # to neighbouring structures
MOMENTA, BOOSTS, POLISH = (0.3, 0.6, 0.8, 0.9, 0.95), (0.2, 0.7), 25  # boosts of the log of the learning rate; looks
Say = Callable[[float, str], None]


@dataclass(frozen=True)
class _Tuned:
    """The best learning rate of one policy and number of workers."""

    study: Study
    timing: Arrivals
    time: float
    floor: float
    share: float
    longest: float = math.inf

    @property
    def workers(self) -> int:
        return self.study.active_workers

    @property
    def unresolved(self) -> bool:
        """Whether it settles, but later than the search looked."""
        return not math.isfinite(self.time) and self.floor < self.study.target.loss and math.isfinite(self.longest)

    def candidate(self, search: "_Search") -> Candidate:
        if math.isfinite(self.time):
            note = f"{percent(self.share)} of the mean-square limit, noise floor {self.floor:.3g}"
        elif self.unresolved:
            note = f"takes more than {self.longest:.3g} s, noise floor {self.floor:.3g}"
        elif math.isfinite(self.floor):
            note = f"does not settle; noise floor {self.floor:.3g}"
        else:
            note = "diverges"
        return Candidate(self.study, search.spent(self), note)


def search_quadratic(
    study: Study, seed: int, say: Say, goal: Goal, margin: float = MARGIN, unsure: Mapping[str, float] | None = None
) -> Found:
    """Look at every structure roughly, tune the best of a few policies, then momentum and threshold.

    All of it for nine tenths of the target: where the loss only just gets below, chance decides whether it stays there.
    """
    held, target = study.schedule, study.target.loss
    spectrum = study.workload.modes()
    before = 0.5 * float(spectrum.eigenvalues @ spectrum.start**2)
    if before <= target:
        raise InputError(f"target.loss must be below the loss at the start, {before:.4g}, got {target:g}")
    study = study.with_target(loss=INNER * target)
    search = _Search(study, seed, goal, margin, error_bars(study, unsure))
    size = first_batch(study, search.look, search.order) if batch_is_open(study) else held.batch_size
    study, reordered = fastest_first(study.with_schedule(batch_size=size))
    search.study = study.with_schedule(batch_size=held.batch_size)
    guesses = look(structures(study), seed, margin, lambda share, message: say(0.6 * share, message))
    if batch_is_open(search.study):
        guesses += climbed(guesses, search.study, search.look, search.order)
    guesses.sort(key=search.order)
    tuned = _tuned(search, guesses, say)
    own = min((row for name, row in tuned.items() if name == held.policy or not is_fresh(name)), key=search.order)
    fresh = min((row for name, row in tuned.items() if is_fresh(name)), key=search.order)
    behind = is_fresh(own.study.policy) or search.order(fresh) <= search.order(own)
    pick = fresh if behind and held.policy is None else own
    stay = behind or own.workers == 1  # alone nothing is stale
    final, reasons = _explained(pick, search, reordered=reordered)
    if held.policy != "sync":
        reasons.append(_of_kinds(own, fresh, tuned["sync"], search))
    say(0.95, "published rules")
    rows = [*(row for row in tuned.values() if row is not pick), *guesses]
    others = [search.candidate(row) for row in rows if isinstance(row, _Tuned) or row.study.policy not in tuned]
    every = [*tuned.values(), *guesses]
    best = [search.candidate(every[i]).as_dict() for i in front([search.spent(row) for row in every])]
    loose = tuned.get("async")
    return Found(
        final.study.with_target(loss=target), rank(others, goal), reasons, stay, search.baselines(final), best,
        None if loose is None else loose.study.with_target(loss=target),
    )  # fmt: skip


def _tuned(search: "_Search", guesses: Sequence[Guess], say: Say) -> dict[str, _Tuned]:
    """The best of some policies, tuned: the leading ones, the best stale one, ``sync``; ``guesses`` come best first."""
    held = search.study.schedule.policy
    by_policy: dict[str, list[Guess]] = {}
    for one in guesses:
        by_policy.setdefault(one.study.policy, []).append(one)
    stale = next((policy for policy in by_policy if not is_fresh(policy)), "async")
    leading = [] if held else [*by_policy][:FINALISTS]
    sending = ["async"] if not held and are_searched(search.study, search.goal) else []  # can have a trigger
    finalists: list[str] = list(dict.fromkeys([held or stale, "sync", *leading, *sending]))
    tuned: dict[str, _Tuned] = {}
    for done, policy in enumerate(finalists):
        say(0.6 + 0.3 * done / len(finalists), f"tuning {policy}")
        best = search.fewest(by_policy[policy])
        near = search.order(best) <= search.near(guesses[0], NEAR)
        tuned[policy] = search.tune(best, steps=STEPS if near else 0)
        if near:
            tuned[policy] = search.refined(tuned[policy])
    first = min(tuned, key=lambda policy: search.order(tuned[policy]))
    tuned[first] = search.polished(tuned[first])
    say(0.9, "momentum")
    bar, best = search.near(tuned[first], LEVEL), tuned[first]
    for policy, row in sorted(tuned.items(), key=lambda one: search.order(one[1])):
        if search.order(row) <= bar:
            tuned[policy] = search.inert(row, best)
            best = min(best, tuned[policy], key=search.order)
    return tuned | {best.study.policy: search.sized(best)}


def _explained(pick: _Tuned, search: "_Search", *, reordered: bool) -> tuple[_Tuned, list[str]]:
    """The pick with a threshold where one is open, and why it is the pick."""
    held, final = search.study.schedule, pick
    reasons = [_headline(pick, search), *_more_or_fewer(pick, search)]
    reasons.append(_learning_rate(pick, held.learning_rate is not None))
    here = guess(search.open(pick.study), pick.timing, search.margin)
    reasons += batch_sentence(pick.study, search.study, here, search.look, search.spent, search.goal.objective)
    if pick.study.policy == "k-batch-sync" and pick.study.schedule.group < pick.workers:
        reasons.append(
            "Every step stops all other work: this counts on delays that are drawn anew at each start. Where a slow "
            "gradient would be slow again, plan with policy 'sync' or 'async' given."
        )
    if reordered:
        reasons.append("Workers are numbered by their speed, so that those that take part are the fastest.")
    if pick.study.policy == "async" and held.max_staleness is None and pick.workers > 1:
        final, sentence = _threshold(pick, search.seed)
        reasons.append(sentence)
    reasons.append(_floor_sentence(final))
    return final, reasons + what_limits(
        final.study, search.seed, search.margin, search.unsure, held=held.learning_rate is not None
    )


def _settling(study: Study, timing: Arrivals, longest: float, *, along: bool = True) -> tuple[float, float]:
    """Settling time and floor for a search; infinite also where a mode is so near its limit that none is known."""
    try:
        return settling(study, timing, longest=longest, along=along)
    except NotConvergedError:
        return math.inf, math.inf


class _Search:
    """What all steps of a search share: the study, what is to be saved, and how candidates compare."""

    def __init__(self, study: Study, seed: int, goal: Goal, margin: float, unsure: Mapping[str, float]) -> None:
        self.study, self.seed, self.goal, self.margin, self.unsure = study, seed, goal, margin, unsure
        self.size = len(study.workload.modes().eigenvalues)

    def look(self, studies: Sequence[Study]) -> list[Guess]:
        """Guess at all of them."""
        return look(studies, self.seed, self.margin)

    def spent(self, row: "Guess | _Tuned") -> Spent:
        """What it takes."""
        return spent(row.timing, row.study.active_workers, self.size, row.time, self.goal.price)

    def order(self, row: "Guess | _Tuned") -> tuple[float, float, float]:
        """Least is best; of those that never settle the lowest floor."""
        return *self.goal.order(self.spent(row)), row.floor

    def candidate(self, row: "Guess | _Tuned") -> Candidate:
        """For the tables."""
        if isinstance(row, _Tuned):
            return row.candidate(self)
        note = "rough estimate" if math.isfinite(row.time) else "does not settle, roughly"
        return Candidate(row.study, self.spent(row), note)

    def near(self, best: "Guess | _Tuned", factor: float) -> tuple[float, float, float]:
        """What others may take to be worth a closer look: so many times the best."""
        over, least, _ = self.order(best)
        return over, factor * least, math.inf

    def fewest(self, guesses: Sequence[Guess]) -> Guess:
        """Of one policy, best first: the fewest workers within 2 % of the best."""
        over, least, _ = self.order(guesses[0])
        if not math.isfinite(least):
            return guesses[0]
        near = [one for one in guesses if self.order(one)[0] <= over and self.order(one)[1] <= STEADY * least]
        return min(near, key=lambda one: one.study.active_workers)

    def tune(self, about: Guess, steps: int = STEPS) -> "_Tuned":
        """The best learning rate near the guessed one, below the margin, in so many steps.

        The steps go by the index equation alone; the best of them, and the first, are looked at along the path.
        """
        timing = arrivals(about.study, seed=self.seed, length=SHORTER)
        limit = learning_rate_limit(about.study, timing).mean_square
        longest = 4.0 * about.time

        def evaluate(rate: float, *, along: bool = True) -> _Tuned:
            at = about.study.with_schedule(learning_rate=rate)
            time, floor = _settling(at, timing, longest, along=along)
            return _Tuned(at, timing, time, floor, rate / limit, longest)

        if self.study.schedule.learning_rate:
            return evaluate(self.study.learning_rate)
        top = self.margin * limit
        tried = [evaluate(rounded(min(about.study.learning_rate, top)))]
        middle = math.log(tried[0].study.learning_rate)
        while not math.isfinite(tried[-1].time) and len(tried) < LOWER:
            middle -= WIDTH
            tried.append(evaluate(rounded(math.exp(middle))))
        low, high = middle - WIDTH, min(middle + WIDTH, math.log(top))
        looked: dict[float, float] = {}

        def log_time(log_rate: float) -> float:
            rate = rounded(math.exp(log_rate))
            looked[rate] = min(evaluate(rate, along=False).time, 1e300)
            return looked[rate]

        if math.isfinite(tried[-1].time) and low < high and steps:
            options = {"maxiter": steps, "xatol": 0.03}
            optimize.minimize_scalar(log_time, bounds=(low, high), method="bounded", options=options)
            tried += [evaluate(rate) for rate in sorted(looked, key=lambda rate: looked[rate])[:CLOSER]]
        return min(tried, key=lambda row: (row.time, row.floor))

    def open(self, study: Study) -> Study:
        """The same structure with learning rate and momentum as open as they were."""
        held = self.study.schedule
        return study.with_schedule(
            learning_rate=held.learning_rate, momentum=held.momentum, nesterov=held.nesterov or None
        )

    def refined(self, row: "_Tuned") -> "_Tuned":
        """Neighbours in workers or group, as long as one looks better by more than 1 %; the last one tuned."""
        here = guess(self.open(row.study), row.timing, self.margin)
        first = here
        for _ in range(STRIDES):
            near = look(neighbours(self.open(here.study), self.study), self.seed, self.margin)
            best = min(near, key=self.order, default=here)
            (over, least, _), (limit, now, _) = self.order(best), self.order(here)
            if over > limit or least > 0.99 * now:
                break
            here = best
        return row if here is first else min(row, self.tune(here), key=self.order)

    def polished(self, row: "_Tuned") -> "_Tuned":
        """The same after a few steps, where the rough look is far off: neighbours by the exact recursion."""
        if self.study.schedule.learning_rate or not row.time * row.timing.rate < FEW_STEPS:
            return row
        here = row
        for _ in range(STRIDES):
            near = []
            for one in neighbours(self.open(here.study), self.study):
                timing = arrivals(one.with_schedule(learning_rate=1.0), seed=self.seed, length=SHORTER)
                fresher = (here.timing.staleness.mean + 1.0) / (timing.staleness.mean + 1.0)
                at = one.with_schedule(learning_rate=rounded(here.study.learning_rate * fresher))
                near.append(_Tuned(at, timing, *_settling(at, timing, 2.0 * here.time), here.share))
            best = min(near, key=self.order, default=here)
            if self.order(best) >= self.near(here, 0.99):
                break
            here = best
        if here is row:
            return row
        return min(row, self.tune(Guess(here.study, here.timing, here.time, here.floor)), key=self.order)

    def inert(self, row: "_Tuned", best: "_Tuned") -> "_Tuned":
        """The same with momentum, where that is left open and saves more than 2 %.

        A ladder of momenta first, at two learning rates each, then, unless the best so far is out of reach, downhill
        over both (Nelder and Mead), with staleness noise by the index equation; what it finds is looked at along a
        recorded path, in up to so many steps down.
        """
        held = self.study.schedule
        if {"momentum", "nesterov"} & held.model_fields_set or held.learning_rate or not math.isfinite(row.time):
            return row
        seen: dict[tuple[float, float], float] = {}
        timing = replace(row.timing, path=None)

        def time(x: Sequence[float]) -> float:
            rate, momentum = rounded(math.exp(x[0])), round(1.0 - math.exp(min(x[1], 0.0)), 3)
            if (rate, momentum) not in seen:
                at = row.study.with_schedule(learning_rate=rate, momentum=momentum)
                seen[rate, momentum] = min(_settling(at, timing, 4.0 * row.time)[0], 1e300)
            return seen[rate, momentum]

        middle = math.log(row.study.learning_rate)
        left = [math.log(1.0 - momentum) for momentum in MOMENTA]
        start = min(((middle + one + boost, one) for one in left for boost in BOOSTS), key=time)
        x, y = start
        simplex = [(x, y), (x + 0.25, y), (x - 0.1, y - 0.3 if y > -0.1 else y + 0.3 * min(1.0, -y / 0.3))]
        options = {"maxfev": POLISH, "xatol": 0.02, "fatol": 0.005 * row.time, "initial_simplex": simplex}
        share = min(1.0, min(seen.values()) / row.time)  # of what it takes without
        if share * self.order(row)[1] < REACH * self.order(best)[1]:
            optimize.minimize(time, start, method="Nelder-Mead", options=options)
        rate, momentum = min(seen, key=lambda key: seen[key])
        if momentum == 0.0:
            return row
        at = row.study.with_schedule(learning_rate=rate, momentum=momentum)
        tuned = self.tune(Guess(at, row.timing, row.time, row.floor), steps=0)
        return tuned if self.order(tuned)[1] < self.order(row)[1] / STEADY else row

    def sized(self, row: "_Tuned") -> "_Tuned":
        """The same with a larger or smaller batch where that is open, by 1.4 as long as it saves more than 1 %."""
        if not batch_is_open(self.study) or not math.isfinite(row.time):
            return row
        best = row
        for factor in (math.sqrt(2.0), math.sqrt(0.5)):
            while best is row or (factor > 1.0) == (best.study.batch_size > row.study.batch_size):
                size = round(factor * best.study.batch_size)
                if size in (0, best.study.batch_size):
                    break
                at = best.study.with_schedule(batch_size=size)
                other = self.tune(Guess(at, best.timing, best.time, best.floor), steps=STEPS // 2)
                (over, least, _), (limit, now, _) = self.order(other), self.order(best)
                if (over, least) >= (limit, 0.99 * now):
                    break
                best = other
        return best

    def baselines(self, pick: _Tuned) -> list[dict[str, Any]]:
        """Published rules on the same study, with the pick's batch; none where the learning rate is given."""
        if self.study.schedule.learning_rate:
            return []
        study = self.study.with_schedule(batch_size=pick.study.schedule.batch_size)
        plain = dict.fromkeys(("max_staleness", "on_stale", "group", "momentum", "nesterov"))
        (one,) = look([study.with_schedule(**plain, policy="async", active_workers=1)], self.seed, self.margin)
        whole = study.with_target(loss=study.target.loss / INNER)
        facts, found = facts_of(whole, self.tune(one).study.learning_rate), []
        for rule in RULES:
            at = under_rule(study, rule, facts)
            if at is not None:
                row = guess(at, arrivals(at, seed=self.seed, share=ROUGH), self.margin)
                found.append({"rule": rule.name, "source": rule.source, **self.candidate(row).as_dict()})
        return found


def _threshold(pick: _Tuned, seed: int) -> tuple[_Tuned, str]:
    """A staleness threshold, kept in whichever way, that saves time, or else a guard that costs none."""
    best, held = pick, pick.study.schedule
    modes = (held.on_stale,) if "on_stale" in held.model_fields_set else MODES
    bounds = [math.ceil(multiple * (pick.workers - 1)) for multiple in (1.5, 2.0, 3.0)]
    studies = [pick.study.with_schedule(max_staleness=bound, on_stale=mode) for mode in modes for bound in bounds]
    free = guess(pick.study, pick.timing).time
    rough = [guess(at, arrivals(at, seed=seed, share=ROUGH)).time for at in studies]
    at = studies[int(np.argmin(rough))]
    if not math.isfinite(free) or min(rough) < free / WORTH:
        timing = arrivals(at, seed=seed, length=SHORTER)
        time, floor = settling(at, timing, longest=4.0 * pick.time)
        best = _Tuned(at, timing, time, floor, pick.share) if time < pick.time else pick
    if math.isfinite(best.time) and best.time < pick.time / WORTH and (saved := _saved(pick, best, seed)) > 0.0:
        bound, discarded = best.study.schedule.max_staleness, f"{100 * (1 - best.timing.acceptance):.1f} %"
        how, what = {
            "drop": (f"Dropping gradients more than {bound} versions old", discarded),
            "wait": (f"Waiting for gradients that would become over {bound} versions old", "none"),
            "cancel": (f"Cancelling gradients that become over {bound} versions old", discarded),
            "admit": (f"Beginning no gradient that could become over {bound} versions old", "none"),
        }[best.study.schedule.on_stale]
        return best, (
            f"{how} saves {saved:.0f} %: it discards {what} of the gradients and cuts the tail of the staleness."
        )
    bound = guard(pick.timing, pick.workers)
    guarded = _Tuned(pick.study.with_schedule(max_staleness=bound), pick.timing, pick.time, pick.floor, pick.share)
    return guarded, guard_sentence(bound, pick.workers)


def _saved(pick: _Tuned, bounded: _Tuned, seed: int) -> float:
    """Per cent of the time that a threshold saves in virtual time, with the same seeds; 0 if that is not worth it."""
    longest = 4.0 * min(pick.time, bounded.time)
    runs = [simulate(one.study, seeds=CONFIRMED, seed=seed, horizon=longest) for one in (bounded, pick)]
    now, before = (math.inf if one.time_to_target.mean is None else one.time_to_target.mean for one in runs)
    return 100 * (1 - now / before) if now < before / WORTH else 0.0


def _of_kinds(own: _Tuned, fresh: _Tuned, plain: _Tuned, search: _Search) -> str:
    """How the best schedule with stale gradients, or of the policy given, compares with the best without, and sync."""
    taken = {row.study.policy: getattr(search.spent(row), search.goal.objective) for row in (plain, fresh, own)}
    if own.workers == fresh.workers == plain.workers == 1:
        return ALONE
    if is_fresh(own.study.policy):
        return plain_sentence(own.study.policy, taken[own.study.policy], taken["sync"], search.goal.objective)
    policy = fresh.study.policy
    return fresh_sentence(policy, taken[own.study.policy], taken[policy], search.goal.objective)


def _headline(pick: _Tuned, search: _Search) -> str:
    if not math.isfinite(pick.floor):
        return (
            f"No schedule tried is stable: {pick.study.policy} with {many(pick.workers)} diverges at learning rate "
            f"{pick.study.learning_rate:.4g}."
        )
    if not math.isfinite(pick.time):
        return (
            f"No schedule tried settles below the target {pick.study.target.loss:g}; the closest is "
            f"{pick.study.policy} with {many(pick.workers)}, whose loss settles at {pick.floor:.4g}."
        )
    taken = search.spent(pick)
    text = (
        f"{pick.study.policy} with {many(pick.workers)} reaches {pick.study.target.loss:g} in {pick.time:.4g} s, for "
        f"{pick.workers * pick.time:.4g} worker-seconds and {taken.traffic:.3g} bytes: {100 * INNER:.0f} % of the "
        "target, for which all here is planned, since on its edge chance decides."
    )
    if not search.goal.holds(taken):
        text += " No schedule tried keeps all limits; this one is nearest."
    limit = pick.study.target.time_limit
    if limit and pick.time > limit:
        text += f" That is the best, and still past the time limit of {limit:g} s."
    return text


def _more_or_fewer(pick: _Tuned, search: _Search) -> list[str]:
    """What one worker more would do, and half of them, by the rough look."""
    open_ = search.open(pick.study)
    here = guess(open_, pick.timing, search.margin)
    if not 0.0 < here.time < math.inf or not math.isfinite(pick.time) or search.study.schedule.active_workers:
        return []
    found, bound = [], pick.study.schedule.max_staleness
    for workers in (pick.workers // 2, pick.workers + 1):
        if not 1 <= workers <= search.study.cluster.workers:
            continue
        other = under(open_, pick.study.policy, workers, group=pick.study.schedule.group, max_staleness=bound)
        if other is None:  # fewer than the group
            continue
        (row,) = look([other], search.seed, search.margin)
        which = f"{_ordinal(workers)} worker" if workers > pick.workers else f"With {workers}"
        if not math.isfinite(row.time):
            found.append(
                f"{which} would keep it from settling" if workers > pick.workers else f"{which} it would not settle"
            )
            continue
        sooner, time = row.timing.rate / here.timing.rate - 1, row.time / here.time - 1
        old, new = here.timing.staleness.mean, row.timing.staleness.mean
        aged = f" and {100 * (new / old - 1):+.0f} % staleness" if old > 0 else ""
        objective = search.goal.objective
        more = getattr(search.spent(row), objective) / getattr(search.spent(here), objective) - 1
        also = "" if objective == "time" else f", {100 * more:+.1f} % {objective}"
        found.append(f"{which}: {100 * sooner:+.1f} % updates a second{aged}, {100 * time:+.1f} % time{also}")
    return [f"{'; '.join(found)} (rough estimates)."] if found else []


def _ordinal(number: int) -> str:
    """A 2nd, an 8th, an 11th, a 23rd."""
    text = str(number)
    article = "An" if text[0] == "8" or (text[:2] in ("11", "18") and len(text) % 3 == 2) else "A"
    ending = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{article} {text}{ending}"


def _learning_rate(pick: _Tuned, fixed: bool) -> str:
    how = "is held as given" if fixed else "was tuned for this number of workers (each alternative has its own)"
    return (
        f"The learning rate {pick.study.learning_rate:.4g} {how}; it uses {percent(pick.share)} of the mean-square "
        f"limit {pick.study.learning_rate / pick.share:.4g}."
    )


def _floor_sentence(pick: _Tuned) -> str:
    share = pick.floor / pick.study.target.loss
    if not math.isfinite(share):
        return "Nothing can be said of gradient noise: the schedule is unstable."
    return f"Gradient noise leaves a floor of {percent(share)} of {pick.study.target.loss:g}."
