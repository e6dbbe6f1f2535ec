"""Trials of schedules in virtual time, of one length and with the same seeds: what a trigger saves and costs.

They are calls on hands: they fan out, and are kept like all other answers of a plan.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stalewise.hands import Call, Hands
from stalewise.planning.arms import opened
from stalewise.planning.objectives import Goal, Spent, traffic_counted
from stalewise.planning.search import APART, percent
from stalewise.simulation import simulate, simulate_network
from stalewise.study import Study
from stalewise.trajectory import Trajectory

QUIET = ("refresh", "keep")
DEAR = 3e7  # mode updates of a trial, beyond which it has fewer seeds
UNTIL = 2.0  # times what the search found, within a budget: where the target must be reached without a trigger
SPENT = "the budget of gradients is spent"
LONGEST = 2.5  # times as long as without a trigger, at most
EDGE = 0.9  # of the target, below which the loss must stay in the last quarter: on the edge chance decides
NEVER, ALWAYS = 0.02, 0.98  # shares unsent: ends of the ladder


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


@dataclass
class Bench:
    """Where trials are made, and what they may cost.

    Attributes:
        hands: That make them.
        identity: What answers are kept by; None keeps none.
        batch: Samples of a gradient as they are counted here; None for each as it is.
        budget: Gradients of that size that may still be computed.
        expected: Time to the target that the search found [s].
        spent: Gradients of that size so far.
    """

    hands: Hands
    identity: Any = None
    batch: int | None = None
    budget: float = math.inf
    expected: float = 0.0
    spent: float = 0.0

    def affords(self, study: Study, seeds: int, horizon: float, trials: int = 1) -> bool:
        """Whether so many trials, of about this length [s], are within the budget."""
        return self.spent + trials * seeds * self._size(study) * study.workers().rate * horizon <= self.budget

    def _size(self, study: Study) -> float:
        """Of one of its gradients, in those that are counted."""
        return 1.0 if self.batch is None else study.batch_size / self.batch

    def each(self, studies: Sequence[Study], seeds: int, seed: int, horizon: float | None) -> list[dict[str, Any]]:
        """What `trial` says of each."""
        calls = []
        for study in studies:
            schedule = study.schedule.model_dump_json(exclude_none=True)
            key = {"of": self.identity, "trial": schedule, "seeds": seeds, "seed": seed, "horizon": horizon}
            name = f"{schedule} {seed}"
            calls.append(Call(name, trial, (study, seeds, seed, horizon), key if self.identity is not None else None))
        answers = self.hands.each(calls)
        self.spent += sum(
            self._size(study) * answer["computed"] for study, answer in zip(studies, answers, strict=True)
        )
        return answers


def trial(study: Study, seeds: int, seed: int, horizon: float | None) -> dict[str, Any]:
    """A schedule in virtual time, as plain values.

    Without a horizon it runs until it settles; ``traffic`` [bytes for each parameter] and ``unsent``, a share, are
    counted up to the time to the target, or all the way where it is not reached.
    """
    whole = _simulated(study, seeds, seed, horizon)
    time, last = whole.time_to_target.mean, whole.loss[-len(whole.loss) // 4 :]
    until = _simulated(study, seeds, seed, time) if time else whole
    count = until.gradients
    return {
        "time": None if whole.diverges else time,
        "ending": sum(last) / len(last),
        "traffic": traffic_counted(count, 1, keeps=study.rules().on_quiet == "keep") / seeds,
        "unsent": count.unsent / max(count.computed - count.in_flight, 1.0),
        "computed": whole.gradients.computed + (count.computed if time else 0.0),
    }


def _simulated(study: Study, seeds: int, seed: int, horizon: float | None) -> Trajectory:
    if study.workload.is_quadratic:
        return simulate(study, seeds=seeds, seed=seed, horizon=horizon)
    return simulate_network(study, opened(study), seeds=seeds, seed=seed, horizon=horizon, starts=seeds)


@dataclass(frozen=True)
class Trials:
    """Runs in virtual time of the same length and seeds: the same delays and noise, as far as may be."""

    plain: Study
    goal: Goal
    size: int
    seed: int
    seeds: int
    longest: float
    effort: Effort
    bench: Bench

    @classmethod
    def of(cls, plain: Study, goal: Goal, size: int, seed: int, bench: Bench) -> "Trials | str":
        """As long as it takes to see what a trigger does; or why that is not seen."""
        effort = effort_for(plain)
        if not bench.affords(plain, effort.seeds, UNTIL * bench.expected):
            return SPENT
        horizon = None if math.isinf(bench.budget) else UNTIL * bench.expected
        (first,) = bench.each([plain], effort.seeds, seed, horizon)
        if not first["time"]:
            return "without one the target is not reached in virtual time"
        longest = LONGEST * first["time"]
        seeds = int(DEAR / (size * plain.workers().rate * longest))
        return cls(plain, goal, size, seed, min(max(seeds, effort.fewest), effort.seeds), longest, effort, bench)

    def fresh(self) -> "Trials":
        """The same with more seeds, and other ones."""
        return replace(self, seed=self.seed + APART, seeds=self.effort.fresh * self.seeds)

    def affords(self, trials: int) -> bool:
        """Whether the budget is enough for so many."""
        return self.bench.affords(self.plain, self.seeds, self.longest + self.longest / LONGEST, trials)

    def outcomes(self, studies: Sequence[Study]) -> list[Outcome]:
        """What each takes until the mean loss has settled; of as many as the budget is enough for."""
        while studies and not self.affords(len(studies)):
            studies = studies[:-1]
        found = []
        for study, seen in zip(studies, self.bench.each(studies, self.seeds, self.seed, self.longest), strict=True):
            time, on_edge = seen["time"], seen["ending"] > EDGE * study.target.loss
            if not time or (on_edge and study.schedule.trigger > 0):
                found.append(Outcome(study, Spent(math.inf, math.inf, math.inf), math.nan))
                continue
            cost = self.goal.price * study.active_workers * time
            found.append(Outcome(study, Spent(time, cost, self.size * seen["traffic"]), seen["unsent"]))
        return found

    def ladder(self, plain: Study) -> list[float]:
        """Triggers under which from 2 to 98 % of the gradients of a run are unsent, by 15 % (networks: 30 %)."""
        shares: dict[float, float] = {}
        few, horizon = self.effort.few, self.longest / LONGEST

        def share(norm: float) -> float:
            if norm not in shares:
                (seen,) = self.bench.each([at_trigger(plain, norm, QUIET[0])], few, self.seed, horizon)
                shares[norm] = seen["unsent"]
            return shares[norm]

        def affordable() -> bool:
            return self.bench.affords(plain, few, 2.0 * horizon)

        low = high = 1.0
        while affordable() and share(low) > NEVER and low > 1e-30:
            low *= 0.5
        while affordable() and share(high) < ALWAYS and high < 1e30:
            high *= 2.0
        for _ in range(self.effort.looks):
            norms = sorted(norm for norm in shares if low <= norm <= high)
            gaps = [(share(b) - share(a), a, b) for a, b in itertools.pairwise(norms) if b > 1.02 * a]
            gap, below, above = max(gaps, default=(0.0, 0.0, 0.0))
            if gap <= self.effort.gap or not affordable():
                break
            share(math.sqrt(below * above))
        return sorted(norm for norm, unsent in shares.items() if NEVER < unsent < ALWAYS)

    def told(self, before: Outcome, after: Outcome) -> str:
        """What changes."""
        names = dict.fromkeys(("traffic", "time", self.goal.objective))
        then, now = after.spent, before.spent
        known = [
            f"{name} by {100 * (getattr(then, name) / getattr(now, name) - 1):+.0f} %"
            for name in names
            if math.isfinite(getattr(now, name))
        ]
        return (
            f"{', '.join(known) or 'what did not settle'}, to {then.traffic:.3g} bytes and {then.time:.4g} s to the "
            f"target ({self.seeds} simulated runs of each): {percent(after.unsent)} of the gradients stay unsent"
        )


def at_trigger(plain: Study, norm: float, way: str) -> Study:
    """Under that trigger, to three digits."""
    return plain.with_schedule(trigger=float(f"{norm:.3g}"), on_quiet=way if way != QUIET[0] else None)
