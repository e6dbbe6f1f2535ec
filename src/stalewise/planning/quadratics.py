"""Search for a quadratic's schedule, by mathematics alone."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scipy import optimize

from stalewise.planning.search import (
    MARGIN,
    Candidate,
    Found,
    guard,
    guard_sentence,
    many,
    percent,
    policies,
    rank,
    synchronous_sentence,
    under,
)
from stalewise.prediction.modes import learning_rate_limit
from stalewise.prediction.quadratic import settling
from stalewise.protocol.rules import ONE_EACH
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study

STEADY = 1.02  # fewer workers are preferred as long as they cost no more than this factor
RATIO = 0.6


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

    def candidate(self) -> Candidate:
        if math.isfinite(self.time):
            note = f"{percent(self.share)} of the mean-square limit, noise floor {self.floor:.3g}"
        elif self.unresolved:
            note = f"takes more than {self.longest:.3g} s, noise floor {self.floor:.3g}"
        elif math.isfinite(self.floor):
            note = f"does not settle; noise floor {self.floor:.3g}"
        else:
            note = "diverges"
        return Candidate(self.study, self.time, note)


def search_quadratic(study: Study, seed: int, say: Callable[[float, str], None]) -> Found:
    """Tune every number of workers under the policy and in synchrony, then the staleness threshold of the best."""
    held = study.schedule
    tried = policies(study)
    own = tried[0]
    counts = [held.active_workers] if held.active_workers else _counts(study.cluster.workers)
    counts = [n for n in counts if n >= held.group] if own in ONE_EACH else counts
    tuned: dict[str, list[_Tuned]] = {policy: [] for policy in tried}
    best = dict.fromkeys(tried, math.inf)
    for done, (policy, workers) in enumerate((p, n) for p in tried for n in counts):
        say(done / (len(tried) * len(counts)), f"{policy} with {many(workers)}")
        tuned[policy].append(_tune(under(study, policy, workers), seed, best[policy]))
        best[policy] = min(best[policy], tuned[policy][-1].time)
    picks = {policy: _fewest(rows) for policy, rows in tuned.items()}
    synchronous = picks["sync"].time
    stay = own == "sync" or synchronous <= picks[own].time
    pick = picks["sync"] if stay and held.policy is None else picks[own]
    reasons = [_headline(pick, tuned[pick.study.policy]), _learning_rate(pick, held.learning_rate is not None)]
    final = pick
    if pick.study.policy == "async" and held.max_staleness is None and pick.workers > 1:
        final, sentence = _threshold(pick, seed)
        reasons.append(sentence)
    reasons.append(_floor_sentence(final))
    if own != "sync":
        reasons.append(synchronous_sentence(picks[own].time, synchronous))
    others = [row.candidate() for rows in tuned.values() for row in rows if row is not pick]
    return Found(final.study, rank(others), reasons, stay)


def _counts(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, ... up to ``most`` and ``most`` itself."""
    counts, step = {1, most}, 1
    while step <= most:
        counts |= {n for n in (step, 3 * step // 2) if 1 <= n <= most}
        step *= 2
    return sorted(counts)


def _tune(study: Study, seed: int, best: float) -> _Tuned:
    """Best learning rate below the margin: down a ladder, then refined between its neighbours."""
    probe = study if study.schedule.learning_rate else study.with_schedule(learning_rate=1.0)
    timing = arrivals(probe, seed=seed)
    limit = learning_rate_limit(study, timing).mean_square
    longest = 4.0 * best

    def evaluate(rate: float) -> _Tuned:
        at = study.with_schedule(learning_rate=rate)
        time, floor = settling(at, timing, longest=longest)
        return _Tuned(at, timing, time, floor, rate / limit, longest)

    if study.schedule.learning_rate:
        return evaluate(study.learning_rate)
    tried = []
    for rate in _ladder(MARGIN * limit):
        tried.append(evaluate(rate))
        top = min(tried, key=_order)
        if math.isfinite(top.time) and tried[-1].time > 1.5 * top.time:
            break
    top = min(tried, key=_order)
    if not math.isfinite(top.time):
        return top
    middle = math.log(top.study.learning_rate)
    width = -math.log(RATIO)
    bounds = (middle - width, min(middle + width, math.log(MARGIN * limit)))

    def log_time(log_rate: float) -> float:
        tried.append(evaluate(_round(math.exp(log_rate))))
        return min(tried[-1].time, 1e300)

    optimize.minimize_scalar(log_time, bounds=bounds, method="bounded", options={"maxiter": 12})
    return min(tried, key=_order)


def _ladder(top: float) -> Iterator[float]:
    rate = top
    for _ in range(24):
        yield _round(rate)
        rate *= RATIO


def _round(rate: float) -> float:
    """Three significant digits: a learning rate people can read."""
    return float(f"{rate:.3g}")


def _order(row: _Tuned) -> tuple[float, float]:
    return row.time, row.floor


def _fewest(rows: list[_Tuned]) -> _Tuned:
    """The fewest workers within 2 % of the best time; if nothing settles, the lowest floor."""
    best = min(rows, key=_order)
    if not math.isfinite(best.time):
        return best
    return min((row for row in rows if row.time <= STEADY * best.time), key=lambda row: row.workers)


def _threshold(pick: _Tuned, seed: int) -> tuple[_Tuned, str]:
    """A staleness threshold that saves time, or else a guard that costs none."""
    others = pick.workers - 1
    best = pick
    for multiple in (1.5, 2.0, 3.0):
        at = pick.study.with_schedule(max_staleness=math.ceil(multiple * others))
        timing = arrivals(at, seed=seed)
        time, floor = settling(at, timing, longest=4.0 * pick.time)
        if time < best.time:
            best = _Tuned(at, timing, time, floor, pick.share)
    if math.isfinite(best.time) and best.time < pick.time / 1.03:
        bound = best.study.schedule.max_staleness
        saved = 100 * (1 - best.time / pick.time) if math.isfinite(pick.time) else 100.0
        return best, (
            f"Dropping gradients more than {bound} versions old saves {saved:.0f} %: it discards "
            f"{100 * (1 - best.timing.acceptance):.1f} % of the gradients and cuts the tail of the staleness."
        )
    bound = guard(pick.timing, pick.workers)
    guarded = _Tuned(pick.study.with_schedule(max_staleness=bound), pick.timing, pick.time, pick.floor, pick.share)
    return guarded, guard_sentence(bound, pick.workers)


def _headline(pick: _Tuned, rows: list[_Tuned]) -> str:
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
    text = f"{pick.study.policy} with {many(pick.workers)} reaches {pick.study.target.loss:g} in {pick.time:.4g} s."
    limit = pick.study.target.time_limit
    if limit and pick.time > limit:
        text += f" That is the fastest, and still past the time limit of {limit:g} s."
    fewer = [row for row in rows if row.workers < pick.workers]
    more = [row for row in rows if row.workers > pick.workers]
    if fewer:
        text += f" {_compare(fewer[-1], pick)}."
    if more:
        text += f" {_compare(more[0], pick)}: {_why_not_more(more[0], pick)}."
    return text


def _why_not_more(row: _Tuned, pick: _Tuned) -> str:
    if row.time < pick.time:
        return f"not worth the workers, a plan takes the fewest within {100 * (STEADY - 1):.0f} % of the best"
    if pick.study.policy == "sync":
        return "every step waits for the slowest of more workers"
    return "staleness grows with the update rate, so the learning rate must fall"


def _compare(row: _Tuned, pick: _Tuned) -> str:
    if row.unresolved:
        return f"With {row.workers} it would take more than {row.longest:.4g} s"
    if not math.isfinite(row.time):
        return f"With {row.workers} it would not settle"
    change = 100 * (row.time / pick.time - 1)
    return f"With {row.workers} it would take {row.time:.4g} s ({change:+.1f} %)"


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
    if share > 0.5:
        return f"Gradient noise limits this run: its floor is {percent(share)} of the target."
    return f"Gradient noise is not what limits this run: its floor is {percent(share)} of the target."
