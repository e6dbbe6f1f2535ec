r"""Planning anew while a run goes on: who takes part, the learning rate, the bound on the staleness.

A plan chose a learning rate at some share of the mean-square limit under the delays it assumed. Limits depend on how
workers' speeds compare, not on the clock, so when they change, that share is kept: of the sets of fastest workers the
one is taken whose learning rate times update rate is largest, the speed of descent at the same distance from
instability. Where nothing changes nothing is done: the run is then the fixed plan's, event for event.
"""

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from stalewise.errors import InputError
from stalewise.planning.search import guard
from stalewise.prediction.modes import learning_rate_limit
from stalewise.staleness import arrivals
from stalewise.study import Study, make_study

LAST = 4  # gradients of a worker that tell how fast it is now
KEPT = 8  # and how even its gradients are
APART = 1.5  # times slower or faster: what counts as another speed
ERRORS = 4.0  # and so many standard errors
FRESH = 8.0  # mean cycles between two looks that must agree
WORTH = 1.1  # a change must promise so much
REST = 10.0  # mean cycles between two changes
PROBE = 25.0  # mean cycles after which workers that were left out are tried again
EVEN = 0.02  # a coefficient of variation below this is none


@dataclass(frozen=True)
class Setting:
    """What a run can change: workers that take part, learning rate, bound on the staleness (None for none)."""

    workers: frozenset[int]
    learning_rate: float
    max_staleness: int | None


@dataclass(frozen=True)
class Change:
    """A new setting, and why."""

    setting: Setting
    reason: str


class Adapter:
    """Watches how long workers take, and says what to change.

    Args:
        study: The plan; its policy must be ``async``, with no bound on the staleness or one kept by dropping.

    Raises:
        InputError: The policy is another, workers take several local steps, or the variance of delays is infinite.
    """

    def __init__(self, study: Study) -> None:
        schedule = study.schedule
        if study.policy != "async" or schedule.on_stale != "drop" or schedule.local_steps > 1:
            raise InputError(
                f"--adapt is for policy 'async' with on_stale 'drop' and one local step, got {study.policy!r}, "
                f"{schedule.on_stale!r} and {schedule.local_steps}"
            )
        workers = study.workers()
        if not all(math.isfinite(law.variance) for _, law in workers.groups):
            raise InputError("--adapt needs delays of finite variance; give cluster.compute a lighter tail")
        self._study = study
        self._plan = Setting(frozenset(range(workers.count)), study.learning_rate, schedule.max_staleness)
        self.now = self._plan
        means = np.concatenate([np.full(count, law.mean) for count, law in workers.groups])
        self._cv = math.sqrt(max(law.variance / law.mean**2 for _, law in workers.groups))
        self._assumed = means / np.median(means)
        self._limit = self._limit_at(self._assumed, self._cv)
        self._seen = [deque[float](maxlen=KEPT) for _ in means]
        self._cycle = float(np.median(means))
        self._rests_until = REST * self._cycle
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="adapt")
        self._planning: Future[tuple[Setting | None, np.ndarray]] | None = None
        self._doubt: frozenset[tuple[int, bool]] = frozenset()
        self._probed = 0.0

    def arrived(self, worker: int, seconds: float) -> None:
        """``worker`` took so long for a gradient [s]."""
        self._seen[worker].append(seconds)

    def look(self, now: float) -> Change | None:
        """What to change, if anything: workers must be seen to have changed twice, with fresh gradients in between."""
        if self._planning is not None:
            if not self._planning.done():
                return None
            planning, self._planning = self._planning, None
            self._rests_until = now + REST * self._cycle
            if planning.exception() is not None:  # no limit was found: the run goes on as it is
                return None
            found, speeds = planning.result()
            return None if found is None else self._take(found, speeds, now)
        if now < self._rests_until:
            return None
        changed = self._changed()
        if not changed & self._doubt:
            self._doubt, self._rests_until = changed, now + FRESH * self._cycle
            return None
        self._doubt = frozenset()
        self._planning = self._pool.submit(self._best, self._speeds(changed), self._spread())
        return None

    def probes(self, now: float) -> list[int]:
        """Workers left out that should compute one gradient, to see how fast they are."""
        left = [w for w in range(len(self._seen)) if w not in self.now.workers]
        if not left or now - self._probed < PROBE * self._cycle:
            return []
        self._probed = now
        return left

    def _ratios(self) -> np.ndarray:
        """How much slower than assumed each worker is, beside the others at work; 1 where too few gradients came."""
        means = np.array([np.mean(list(seen)[-LAST:]) if len(seen) >= LAST else math.nan for seen in self._seen])
        ratios = means / self._assumed
        known = ratios[list(self.now.workers)]
        if np.isnan(known).mean() >= 0.5:
            return np.ones(len(ratios))
        return np.nan_to_num(ratios / np.nanmedian(known), nan=1.0)

    def _changed(self) -> frozenset[tuple[int, bool]]:
        """Workers whose speed is another than was assumed, and whether they are slower."""
        ratios = self._ratios()
        off = np.flatnonzero(np.abs(np.log(ratios)) > max(math.log(APART), ERRORS * self._spread() / math.sqrt(LAST)))
        return frozenset((int(w), bool(ratios[w] > 1.0)) for w in off)

    def _speeds(self, changed: frozenset[tuple[int, bool]]) -> np.ndarray:
        """Seconds a gradient, relative: as assumed, but for those that have changed."""
        ratios, speeds = self._ratios(), self._assumed.copy()
        for worker, _ in changed:
            speeds[worker] *= ratios[worker]
        return speeds

    def _spread(self) -> float:
        """Coefficient of variation of a worker's own gradients: the median over workers, as assumed until they tell."""
        known = [np.std(seen, ddof=1) / np.mean(seen) for seen in self._seen if len(seen) == KEPT]
        return float(np.median(known)) if len(known) > len(self._seen) // 2 else self._cv

    def _best(self, speeds: np.ndarray, cv: float) -> tuple[Setting | None, np.ndarray]:
        """The setting of fastest descent at the plan's distance from instability, None if that is hardly faster."""
        order = np.argsort(speeds, kind="stable")
        sizes = [k for k in range(1, len(order)) if speeds[order[k]] > APART * speeds[order[k - 1]]] + [len(order)]
        found = []
        for size in sizes:
            taken = order[:size]
            rate = self._plan.learning_rate * self._limit_at(speeds[taken], cv) / self._limit
            found.append((rate * float((1.0 / speeds[taken]).sum()), size, rate, taken))
        drift, _, rate, taken = max(found, key=lambda row: row[:2])
        mine = np.array(sorted(self.now.workers))
        safe = (
            self.now.learning_rate <= WORTH * self._plan.learning_rate * self._limit_at(speeds[mine], cv) / self._limit
        )
        if safe and drift < WORTH * self.now.learning_rate * float((1.0 / speeds[mine]).sum()):
            return None, speeds
        bound = self._plan.max_staleness
        if bound is not None:
            bound = max(bound, guard(arrivals(self._conditions(speeds[taken], cv)), len(taken)))
        return Setting(frozenset(int(w) for w in taken), float(f"{rate:.3g}"), bound), speeds

    def _take(self, found: Setting, speeds: np.ndarray, now: float) -> Change:
        before, slower = self.now, int((speeds > APART * self._assumed).sum())
        faster = int((speeds < self._assumed / APART).sum())
        self.now, self._assumed, self._probed = found, speeds, now
        for worker in before.workers - found.workers:
            self._seen[worker].clear()
        reason = (
            f"after {now:.4g} s {slower} of {len(speeds)} workers are slower and {faster} faster than assumed: "
            f"learning rate {before.learning_rate:g} -> {found.learning_rate:g}, workers {len(before.workers)} -> "
            f"{len(found.workers)}"
        )
        if found.max_staleness != before.max_staleness:
            reason += f", max_staleness {before.max_staleness} -> {found.max_staleness}"
        return Change(found, reason)

    def _limit_at(self, speeds: np.ndarray, cv: float) -> float:
        """Mean-square limit of the learning rate, for a curvature of 1."""
        study = self._conditions(speeds, cv)
        return learning_rate_limit(study, arrivals(study)).mean_square

    def _conditions(self, speeds: np.ndarray, cv: float) -> Study:
        """One curvature, the plan's momentum, workers of these relative mean delays, one coefficient of variation."""
        classes: list[list[float]] = []
        for mean in sorted(float(s) for s in speeds):
            if classes and mean <= 1.2 * classes[-1][0]:
                classes[-1].append(mean)
            else:
                classes.append([mean])
        groups = [{"count": len(one), "compute": _law(float(np.mean(one)), cv)} for one in classes]
        alike = {"workers": len(speeds), "compute": groups[0]["compute"]}
        schedule = self._study.schedule
        return make_study(
            {
                "workload": {"eigenvalues": [1.0]},
                "cluster": {"group": groups} if len(groups) > 1 else alike,
                "schedule": {
                    "policy": "async", "learning_rate": 1e-3,
                    "momentum": schedule.momentum, "nesterov": schedule.nesterov,
                },
                "target": {"loss": 1e-9},
            }
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What is set, and the speeds assumed, as plain values."""
        now = self.now
        return {
            "workers": sorted(now.workers), "learning_rate": now.learning_rate, "max_staleness": now.max_staleness,
            "assumed": self._assumed.tolist(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.now = Setting(frozenset(state["workers"]), state["learning_rate"], state["max_staleness"])
        self._assumed = np.array(state["assumed"])

    def close(self) -> None:
        """End the thread that plans."""
        self._pool.shutdown(cancel_futures=True)


def _law(mean: float, cv: float) -> str:
    return f"constant({mean!r})" if cv < EVEN else f"gamma({mean!r}, {1.0 / cv**2!r})"
