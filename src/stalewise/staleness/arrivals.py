r"""How updates arrive and how old their gradients are: everything about time that the dynamics need."""

import functools
import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from stalewise.delays import AbstractDelay, Workers
from stalewise.protocol import Rules
from stalewise.protocol.rules import ADMIT, CANCEL, DROP, WAIT
from stalewise.simulation.paths import recorded_path
from stalewise.staleness.bounds import bounded
from stalewise.staleness.clusters import cluster_staleness
from stalewise.staleness.groups import in_groups, waiting_rounds
from stalewise.staleness.law import StalenessLaw, has_formula, is_exponential, staleness_law
from stalewise.staleness.measured import begun_together, measured
from stalewise.staleness.renewal import count_moments
from stalewise.staleness.rounds import first_rounds, kth_gradient, kth_left, kth_of
from stalewise.staleness.timing import Arrivals
from stalewise.study import Study

Array = NDArray[np.float64]
NEVER = 1e-4  # share of gradients beyond a bound that may be neglected
PATH, PATH_CYCLES = 1_000_000, 500  # gradients recorded, and cycles if that is more
DISPERSED = 0.75  # coefficient of variation from which on twice as many are, moments growing by rare events
LONGEST_PATH = 20_000  # mean staleness up to which paths are recorded


def arrivals(study: Study, *, seed: int = 0, share: float = 1.0, length: float = 1.0) -> Arrivals:
    r"""Arrivals and staleness of a study's schedule: by formula where one holds, else counted in virtual time.

    ============================ ===================================================================================
    policy                       how
    ============================ ===================================================================================
    sync, k-sync, k-batch-sync   exact: order statistics and renewal counts
    async, event-triggered       exact on a grid (event-triggered: nothing quiet, that is ``trigger = 0``)
    k-batch-async                exact from async
    k-async                      fixed point of the residual times from N = 16 on with 2K >= N, or N = 256 with
                                 4K >= N (round 0.2 %, variance 1.2 %); K = 1, K = N, memoryless and constant exact
    rennala                      residual times at a step as at a random moment, for N + 2S >= 32 and 4S >= N
                                 (round 0.5 %); one worker and memoryless workers exact
    drop, cancel, ringmaster     fixed point of the share applied where it is near 1 or N large, see `_bound_holds`
                                 (means 0.5 %, variance 2 %); constant delays exact
    wait, admit                  bound 0 exact (synchronous; one worker at a time)
    ssp                          lead 0 exact (rounds of N single updates)
    async, unlike workers        exact on a grid; under other policies, and with a shared link, they are counted
    producer-consumer            counted
    ============================ ===================================================================================

    ``share`` is that of the gradients counted which may do, for a rough look: standard errors grow as 1/sqrt(share).
    Below 1, bounds that bite are counted too. ``length`` is that share for a search: of what is counted, and of the
    recorded path, which has 500 cycles at least.

    A bound that fewer than 1 gradient in 10,000 (``wait``: 10,000 N) would exceed is none. The rest is counted:
    ``staleness.method`` says which, over how many gradients, and the standard error. The errors are the largest of
    `validation/policies.py`.
    """
    rules = study.rules()
    if rules.trigger > 0.0:
        return measured(study, seed, share)
    service = study.cluster.service_law()
    start, workers = study.cluster.start, study.workers()
    return _answered(_Question(study.policy, workers, rules, service, start, seed, share, length, study))


@dataclass(frozen=True)
class _Question:
    """What arrivals depend on, and a study that asks for it."""

    policy: str
    workers: Workers
    rules: Rules
    service: AbstractDelay
    start: str
    seed: int
    share: float
    length: float
    study: Study = field(compare=False)


@functools.lru_cache(maxsize=256)
def _answered(question: _Question) -> Arrivals:
    study, rules = question.study, question.rules
    found = None if _needs_counting(study, rules) else _by_formula(study, rules, rough=question.share < 1.0)
    if found is None:
        found = measured(study, question.seed, question.share, question.length)
    elif isinstance(found.counts, _Steady) and study.cluster.start == "together":
        found = begun_together(found, study, question.seed, question.share * min(question.length, 1.0))
    found = found.weighted(rules.weight)
    fixed = found.memoryless or found.delay_cv < 1e-9 or len(found.staleness.pmf) == 1
    if fixed or rules.trains or found.staleness.mean > LONGEST_PATH:
        return found
    least = PATH if found.delay_cv < DISPERSED else 2 * PATH
    gradients = round(max(question.length * least, PATH_CYCLES * (found.staleness.mean + 1.0) * found.gradients_a_step))
    rate = found.rate * found.gradients_a_step
    return replace(found, path=lambda: recorded_path(study, gradients, found.acceptance, rate, seed=question.seed))


def _needs_counting(study: Study, rules: Rules) -> bool:
    formulas = all(has_formula(law) for _, law in study.workers().groups)
    return rules.trains or study.cluster.service_law().mean > 0 or not formulas


def _by_formula(study: Study, rules: Rules, *, rough: bool = False) -> Arrivals | None:
    workers, together = study.workers(), study.cluster.start == "together"
    if workers.law is not None:
        return _formula(study.policy, workers.law, workers.count, rules, together, rough=rough)
    return _unlike(workers, together) if rules == Rules(weight=rules.weight) else None


@functools.lru_cache(maxsize=64)
def _unlike(workers: Workers, together: bool) -> Arrivals:
    """Fully asynchronous workers that are unlike, every gradient applied."""
    groups = cluster_staleness([(law, count) for count, law in workers.groups])
    shares = np.array([count / law.mean / workers.rate for count, law in workers.groups])
    pmf = np.zeros(max(len(group.staleness.pmf) for group in groups))
    for share, group in zip(shares, groups, strict=True):
        pmf[: len(group.staleness.pmf)] += share * group.staleness.pmf

    def counts(time: Array) -> tuple[Array, Array]:
        mean, variance = np.zeros_like(time), np.zeros_like(time)
        for count, law in workers.groups:
            one, spread = count_moments(law, time)
            mean += count * (one if together else time / law.mean)
            variance += count * spread
        return mean, variance

    means = np.array([law.mean for _, law in workers.groups])
    squares = np.array([law.variance + law.mean**2 for _, law in workers.groups])
    age = float(shares @ means)
    return Arrivals(
        rate=workers.rate,
        gradients_a_step=1,
        staleness=StalenessLaw(pmf / pmf.sum(), "renewal counts given the own delay, of unlike workers"),
        delay_mean=age,
        delay_cv=math.sqrt(max(float(shares @ squares) - age**2, 0.0)) / age,
        acceptance=1.0,
        counts=counts,
        memoryless=False,
        heavy_tailed=any(law.abscissa == 0.0 for _, law in workers.groups),
    )


def _formula(
    policy: str, delay: AbstractDelay, workers: int, rules: Rules, together: bool, *, rough: bool
) -> Arrivals | None:
    if rules.flushes:
        return _flushed(policy, delay, workers, rules.group, together)
    if policy == "rennala":
        return _rennala(delay, workers, rules.group, together)
    if rules.lead is not None:
        return _limited_lead(delay, workers, rules.lead, together)
    if rules.idles:
        free = _waiting(delay, workers, rules.group, together)
    else:
        free = _asynchronous(delay, workers, rules.group, together)
    if rules.max_staleness is None or free is None:
        return free
    everybody = workers if rules.on_stale == WAIT else 1  # one that is waited for holds up all
    if everybody * free.staleness.pmf[rules.max_staleness + 1 :].sum() <= NEVER and rules.on_stale != ADMIT:
        return free
    count = rough and rules.max_staleness > 0 and delay.cv > 1e-12  # some, sooner than the fixed point is found
    return None if count else _with_bound(delay, workers, rules, together)


def _with_bound(delay: AbstractDelay, workers: int, rules: Rules, together: bool) -> Arrivals | None:
    bound = rules.max_staleness or 0
    if rules.group > 1 or rules.idles:
        return None
    if bound == 0 and rules.on_stale == WAIT:
        return _flushed("sync", delay, workers, workers, together)
    if bound == 0 and rules.on_stale == ADMIT:
        return _asynchronous(delay, 1, 1, together)
    if rules.on_stale not in (DROP, CANCEL):
        return None
    found = bounded(delay, workers, bound, cancel=rules.on_stale == CANCEL)
    if not _bound_holds(delay, workers, rules, found.acceptance):
        return None
    cv = math.sqrt(found.delay_variance) / found.delay_mean
    return _steady(found.rate, 1, found.staleness, found.delay_mean, cv, found.acceptance, found.growth)


def _bound_holds(delay: AbstractDelay, workers: int, rules: Rules, acceptance: float) -> bool:
    """Whether the fixed point of `bounded` has been measured to be within 0.5 % (means) and 2 % (variance)."""
    if delay.cv < 1e-12 or workers == 1:
        return True
    bound = rules.max_staleness or 0
    enough = acceptance > 0.95 or bound >= (workers - 1 if workers >= 64 else 2 * workers)
    return workers >= (16 if rules.on_stale == CANCEL else 4) and enough


@functools.lru_cache(maxsize=256)
def _flushed(policy: str, delay: AbstractDelay, workers: int, group: int, together: bool) -> Arrivals:
    """Rounds that all workers begin together: renewal in steps."""
    if policy == "k-batch-sync":
        mean, variance = kth_gradient(delay, workers, group)
        acceptance, first = group / (group + workers - 1), group * delay.mean / workers
    else:
        mean, variance = kth_of(delay, workers, group)
        acceptance, first = group / workers, mean if together else kth_left(delay, workers, group)
    law = StalenessLaw(np.ones(1), "exact: synchronous")
    return _rounds(mean, variance, group, law, acceptance, first=mean if together else first)


@functools.lru_cache(maxsize=256)
def _rennala(delay: AbstractDelay, workers: int, group: int, together: bool) -> Arrivals | None:
    """Every step finds N - 1 gradients under way, which are useless, and takes S new ones."""
    exact = workers == 1 or is_exponential(delay) or delay.cv < 1e-12
    if not exact and (workers + 2 * group < 32 or 4 * group < workers):
        return None
    mean, variance = kth_gradient(delay, workers, group, stale_first=True)
    law = StalenessLaw(np.ones(1), "exact: none but the newest version is applied")
    first = kth_gradient(delay, workers, group)[0] if together else group * delay.mean / workers
    share, beat = group * delay.mean / (workers * mean), 0.0
    if together and delay.cv < 1e-12:  # everything arrives at whole cycles, also what ends a round
        first, beat = group * delay.mean / workers, delay.mean
    return _rounds(mean, variance, group, law, share, first=first, beat=beat)


def _limited_lead(delay: AbstractDelay, workers: int, lead: int, together: bool) -> Arrivals | None:
    """Stale synchronous parallel where it has a formula: without a lead, alone, or with equal constant delays."""
    if workers == 1 or (delay.cv < 1e-12 and lead > 0):
        return _asynchronous(delay, workers, 1, together)
    if lead > 0:
        return None
    mean, variance = kth_of(delay, workers, workers)
    law = StalenessLaw(np.full(workers, 1.0 / workers), "exact: rounds of single updates")
    growth = workers * variance / mean**3
    return _steady(workers / mean, 1, law, delay.mean, delay.cv, 1.0, growth * workers)


@functools.lru_cache(maxsize=256)
def _waiting(delay: AbstractDelay, workers: int, group: int, together: bool) -> Arrivals | None:
    """K-async: who contributed waits for the step."""
    if group == workers:
        return _flushed("sync", delay, workers, workers, together)
    if group == 1:
        return _asynchronous(delay, workers, 1, together)
    constant = delay.cv < 1e-12
    if constant and workers % group:
        return None
    large = (workers >= 16 and 2 * group >= workers) or (workers >= 256 and 4 * group >= workers)
    if not (constant or is_exponential(delay) or large):
        return None
    rounds = waiting_rounds(delay, workers, group)
    law = rounds.staleness
    mean = (law.mean + 1.0) * rounds.mean
    variance = law.variance * rounds.mean**2 + (law.mean + 1.0) * rounds.variance
    growth = rounds.variance / rounds.mean**3
    return _steady(1.0 / rounds.mean, group, law, mean, math.sqrt(variance) / mean, 1.0, growth)


@functools.lru_cache(maxsize=256)
def _asynchronous(delay: AbstractDelay, workers: int, group: int, together: bool) -> Arrivals:
    """Nobody ever waits: K = 1, or the gradients of K arrivals a step."""
    law = staleness_law(delay, workers)
    held, between = (group - 1) / 2.0, delay.mean / workers

    def counts(time: Array) -> tuple[Array, Array]:
        mean, variance = count_moments(delay, time)
        mean = workers * (mean if together else time / delay.mean)
        return np.maximum(mean - held, 0.0) / group, workers * variance / group**2

    age = delay.mean + held * between
    variance = delay.variance + ((group**2 - 1) / 12.0 + held * min(delay.cv**2, 1.0)) * between**2
    return Arrivals(
        rate=workers / delay.mean / group,
        gradients_a_step=group,
        staleness=law if group == 1 else in_groups(law, group),
        delay_mean=age,
        delay_cv=math.sqrt(variance) / age,
        acceptance=1.0,
        counts=counts,
        memoryless=group == 1 and law.method.startswith("exact: memoryless"),
        heavy_tailed=delay.abscissa == 0.0,
    )


def _rounds(
    mean: float,
    variance: float,
    group: int,
    law: StalenessLaw,
    acceptance: float,
    *,
    first: float | None = None,
    beat: float = 0.0,
) -> Arrivals:
    """Steps at the end of independent rounds [s], [s^2] that all see the same age; of the first one, its mean [s].

    Constant rounds end at the next multiple of ``beat`` [s], unless that is 0.
    """
    square = variance / mean**2
    first = mean if first is None else first

    def counts(time: Array) -> tuple[Array, Array]:
        if square < 1e-18:
            if beat > 0.0:
                time = beat * np.floor(time / beat * (1 + 1e-12))
            return np.floor(np.maximum(1.0 + (time - first) / mean * (1 + 1e-12), 0.0)), np.zeros_like(time)
        steps = np.maximum((time - first) / mean + 0.5 * (1.0 + square), 0.0)
        variance, early = square * steps, first_rounds(mean, square, first)
        few = time <= early.time[-1]
        steps[few], variance[few] = early.moments(time[few])
        return steps, variance

    return Arrivals(
        rate=1.0 / mean,
        gradients_a_step=group,
        staleness=law,
        delay_mean=mean,
        delay_cv=math.sqrt(square),
        acceptance=acceptance,
        counts=counts,
        memoryless=False,
        heavy_tailed=False,
        first_steps=None if square < 1e-18 else functools.partial(first_rounds, mean, square, first),
    )


@dataclass(frozen=True)
class _Steady:
    """Mean and variance of the steps by given times, where they begin at a random moment: both grow with time."""

    rate: float
    growth: float

    def __call__(self, time: Array) -> tuple[Array, Array]:
        return self.rate * time, self.growth * time


def _steady(
    rate: float, group: int, law: StalenessLaw, age: float, cv: float, acceptance: float, growth: float
) -> Arrivals:
    """Steps from a random moment on, their variance growing in proportion to time."""
    return Arrivals(
        rate=rate,
        gradients_a_step=group,
        staleness=law,
        delay_mean=age,
        delay_cv=cv,
        acceptance=acceptance,
        counts=_Steady(rate, growth),
        memoryless=False,
        heavy_tailed=False,
    )
