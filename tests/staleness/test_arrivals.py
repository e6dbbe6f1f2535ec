"""Every policy's run time and staleness: formulas against simulation, invariants, and which of them is used."""

import numpy as np
import pytest

from stalewise.delays import parse_delay
from stalewise.simulation.paths import recorded_path
from stalewise.simulation.quadratic import run_ensemble
from stalewise.staleness import arrivals, staleness_law
from stalewise.staleness.bounds import bounded
from stalewise.staleness.groups import in_groups, waiting_rounds
from studies import quadratic

LAWS = ("gamma(1, 4)", "uniform(0.5, 1.5)", "lognormal(1, 0.5)")
WARM_UP = 40.0
FORMULAS = {
    "sync": (8, {}),
    "k-sync": (8, {"group": 3}),
    "k-batch-sync": (8, {"group": 12}),
    "k-async": (16, {"group": 8}),
    "k-batch-async": (8, {"group": 3}),
    "async": (8, {}),
    "event-triggered": (8, {}),
    "rennala": (8, {"group": 16}),
    "ssp": (8, {"max_staleness": 0}),
    "ringmaster": (64, {"max_staleness": 64}),
}


def counted(study, length=12_000.0, seed=9):
    """Update rate and staleness after a warm-up: (rate, mean, variance, mean age) of 100,000 gradients and more."""
    still = study.with_cluster(start="staggered").with_schedule(learning_rate=1e-9)
    length = length / study.active_workers
    at = np.array([0.0, WARM_UP, WARM_UP + length])
    begin, end = (run_ensemble(still, times, seeds=8, seed=seed) for times in (at[:2], at))
    rate = float((end.updates[:, 2] - end.updates[:, 1]).mean() / length)
    counts = end.counts.copy()
    counts[: len(begin.counts)] -= begin.counts
    k, pmf = np.arange(len(counts)), counts / counts.sum()
    mean = float(pmf @ k)
    return rate, mean, float(pmf @ (k - mean) ** 2), (end.ages - begin.ages) / counts.sum()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("policy", FORMULAS)
def test_formula_is_that_of_the_simulation(policy, law):
    """Rate and mean within 1 %, variance within 4 %: twice what validation/policies.py allows and finds with ten
    times the gradients; the sampling errors here are 0.2 and 0.7 %.
    """
    workers, settings = FORMULAS[policy]
    study = quadratic(law, workers, 1e-9, policy=policy, **settings)
    said = arrivals(study)
    assert not said.staleness.method.startswith("counted")
    rate, mean, variance, age = counted(study)
    assert said.rate == pytest.approx(rate, rel=0.01)
    assert said.staleness.mean == pytest.approx(mean, rel=0.01, abs=1e-9)
    assert said.staleness.variance == pytest.approx(variance, rel=0.04, abs=1e-9)
    if policy not in ("k-batch-sync", "rennala"):  # there ages run from the step, and a worker may start amid a round
        assert said.delay_mean == pytest.approx(age, rel=0.01)


@pytest.mark.parametrize("law", [*LAWS, "constant(1)", "exponential(1)", "lognormal(1, 1.5)"])
@pytest.mark.parametrize(("workers", "group"), [(1, 3), (4, 2), (5, 3), (16, 5), (64, 100)])
def test_mean_staleness_and_age_of_groups_follow_from_counting(law, workers, group):
    """Nobody idles: mean staleness is (N - 1)/K in steps, and parameters wait (K - 1)/2 arrivals beyond the delay."""
    timing = arrivals(quadratic(law, workers, 0.1, policy="k-batch-async", group=group))
    assert timing.staleness.mean == pytest.approx((workers - 1) / group, rel=1e-8, abs=1e-12)
    assert timing.staleness.pmf.sum() == pytest.approx(1.0)
    assert timing.rate == pytest.approx(workers / group)
    assert timing.delay_mean == pytest.approx(1.0 + (group - 1) / (2 * workers))


@pytest.mark.parametrize("law", [*LAWS, "gamma(1, 0.5)"])
@pytest.mark.parametrize(("workers", "group"), [(4, 2), (16, 4), (64, 32), (64, 63)])
def test_mean_staleness_of_waiting_groups(law, workers, group):
    """K-async: N - K gradients are overtaken at each step of K, so (N - K)/K, which the grid keeps to 3e-4."""
    rounds = waiting_rounds(parse_delay(law), workers, group)
    assert rounds.staleness.mean == pytest.approx((workers - group) / group, rel=1e-4, abs=3e-4)


def test_fixed_point_of_memoryless_rounds_is_the_closed_form():
    """By way of gamma(1, 1), which takes the grid: rounds last sum 1/i, staleness is geometric."""
    grid, exact = (waiting_rounds(parse_delay(law), 12, 4) for law in ("gamma(1, 1)", "exponential(1)"))
    assert grid.mean == pytest.approx(exact.mean, rel=1e-3)
    assert grid.variance == pytest.approx(exact.variance, rel=0.01)
    np.testing.assert_allclose(grid.staleness.pmf[:20], exact.staleness.pmf[:20], atol=1e-3)


def test_groups_of_constant_delays():
    """The gradient read at place U of a group and overtaken by N - 1 others: floor((U + N - 1)/K)."""
    law = in_groups(staleness_law(parse_delay("constant(1)"), 6), 4)
    np.testing.assert_allclose(law.pmf, [0.0, 0.75, 0.25], atol=1e-12)


@pytest.mark.parametrize("cancel", [False, True])
def test_a_bound_beyond_reach_is_none(cancel):
    """Then the fixed point is fully asynchronous: every gradient applied, mean N - 1, rate N."""
    found, free = (
        bounded(parse_delay("gamma(1, 4)"), 8, 60, cancel=cancel),
        staleness_law(parse_delay("gamma(1, 4)"), 8),
    )
    assert found.acceptance == pytest.approx(1.0, abs=1e-6)
    assert found.rate == pytest.approx(8.0, rel=1e-3)
    assert found.staleness.mean == pytest.approx(free.mean, rel=2e-3)
    assert found.staleness.variance == pytest.approx(free.variance, rel=0.01)
    assert found.growth == pytest.approx(8 * 0.25, rel=0.02)


@pytest.mark.parametrize("on_stale", ["drop", "cancel"])
@pytest.mark.parametrize("law", LAWS)
def test_fixed_point_of_bounds(law, on_stale):
    """64 workers, bound 64: rate and mean within 1 %, variance within 4 %, share applied within 1.5 %."""
    study = quadratic(law, 64, 1e-9, max_staleness=64, on_stale=on_stale)
    said, (rate, mean, variance, _) = arrivals(study), counted(study)
    assert said.staleness.method.startswith("renewal counts, fixed point")
    assert (said.rate, said.staleness.mean) == pytest.approx((rate, mean), rel=0.01)
    assert said.staleness.variance == pytest.approx(variance, rel=0.04)
    assert len(said.staleness.pmf) <= 65
    if on_stale == "drop":
        assert said.rate == pytest.approx(64 * said.acceptance, rel=1e-3)


def test_constant_workers_over_a_bound():
    """The same B + 1 workers are applied in every cycle, each overtaken by the B others."""
    for on_stale in ("drop", "cancel"):
        timing = arrivals(quadratic("constant(1)", 6, 1e-9, max_staleness=3, on_stale=on_stale))
        assert (timing.rate, timing.staleness.quantile(0.5), timing.acceptance) == pytest.approx((4.0, 3, 4 / 6))
        rate, mean, *_ = counted(quadratic("constant(1)", 6, 1e-9, max_staleness=3, on_stale=on_stale))
        assert (rate, mean) == pytest.approx((4.0, 3.0), rel=1e-3)


@pytest.mark.parametrize("law", [*LAWS, "exponential(1)"])
def test_bounds_of_zero_and_leads_of_zero(law):
    """Wait 0 is synchronous, admit 0 one worker at a time, lead 0 rounds of N single updates."""
    wait = arrivals(quadratic(law, 6, 0.1, max_staleness=0, on_stale="wait"))
    assert wait.rate == arrivals(quadratic(law, 6, 0.1, policy="sync")).rate
    assert counted(quadratic(law, 6, 0.1, max_staleness=0, on_stale="wait"))[0] == pytest.approx(wait.rate, rel=0.02)
    admit = arrivals(quadratic(law, 6, 0.1, max_staleness=0, on_stale="admit"))
    assert admit.rate == pytest.approx(1.0)
    assert counted(quadratic(law, 6, 0.1, max_staleness=0, on_stale="admit"))[:2] == pytest.approx((1.0, 0.0), rel=0.02)
    lead = arrivals(quadratic(law, 6, 0.1, policy="ssp", max_staleness=0))
    assert lead.rate == pytest.approx(6 * wait.rate)
    assert lead.staleness.mean == pytest.approx(2.5)


@pytest.mark.parametrize(
    "schedule",
    [
        {"policy": "ssp", "max_staleness": 3},
        {"max_staleness": 8, "on_stale": "wait"},
        {"max_staleness": 8, "on_stale": "admit"},
        {"max_staleness": 3},
        {"policy": "k-batch-async", "group": 2, "max_staleness": 2},
        {"policy": "k-async", "group": 2},
        {"policy": "rennala", "group": 2},
    ],
)
def test_what_has_no_formula_is_counted(schedule):
    """It says so, with its standard error, and agrees with other seeds to 2 %."""
    study = quadratic("gamma(1, 4)", 6, 1e-9, **schedule)
    said = arrivals(study)
    assert "no formula" in said.staleness.method
    assert "standard error" in said.staleness.method
    rate, mean, variance, age = counted(study)
    assert (said.rate, said.delay_mean) == pytest.approx((rate, age), rel=0.01)
    assert said.staleness.mean == pytest.approx(mean, rel=0.01, abs=1e-12)
    assert said.staleness.variance == pytest.approx(variance, rel=0.04, abs=1e-12)
    assert 0.0 < said.acceptance <= 1.0
    mean_steps, spread = said.counts(np.array([10.0, 500.0]))
    assert mean_steps[1] == pytest.approx(500 * said.rate, rel=0.03)
    assert (spread >= 0).all()


def test_a_trigger_is_counted_on_the_workload_itself():
    """With unit noise in two directions and a trigger of 1.5, about exp(-1.5^2/2) = 0.325 of the gradients are sent."""
    timing = arrivals(quadratic("gamma(1, 4)", 4, 1e-3, noise=1.0, policy="event-triggered", trigger=1.5))
    assert timing.acceptance == pytest.approx(np.exp(-1.125), rel=0.03)
    assert timing.rate == pytest.approx(4 * timing.acceptance, rel=0.01)
    silent = arrivals(quadratic("gamma(1, 4)", 4, 1e-4, policy="event-triggered", trigger=9.0))
    assert (silent.rate, silent.acceptance) == (0.0, 0.0)


@pytest.mark.parametrize("policy", FORMULAS)
def test_steps_by_a_time_grow_at_the_rate(policy):
    """Means and variances over time are finite, never fall, and end at the update rate."""
    workers, settings = FORMULAS[policy]
    timing = arrivals(quadratic("gamma(1, 4)", workers, 0.1, policy=policy, **settings))
    time = np.linspace(0.0, 300.0, 400)
    mean, variance = timing.counts(time)
    assert (np.diff(mean) >= -1e-9).all()
    assert (variance >= 0).all()
    assert (mean[-1] - mean[200]) / (time[-1] - time[200]) == pytest.approx(timing.rate, rel=0.01)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("policy", FORMULAS)
def test_steps_by_a_time_from_a_common_start(policy, law):
    """All workers begin at once: means of 4,000 simulated starts within 0.05 of a step, and 4 standard errors.

    Waiting groups were told 0.8 of a step early, bounds of 64 workers 12 steps: theirs began at a random moment. Sums
    of delays that are not gamma are taken for such, which moves them by up to a quarter of a step.
    """
    workers, settings = FORMULAS[policy]
    study = quadratic(law, workers, 1e-6, policy=policy, **settings)
    timing = arrivals(study)
    time = np.linspace(0.0, 8.0, 33)
    seen = run_ensemble(study, time, seeds=4000, seed=77).updates
    error = 4.0 * seen.std(axis=0) / np.sqrt(len(seen))
    few = seen.mean(axis=0) < 20  # beyond it is the rate that counts, known to 1 %
    off = np.abs(timing.counts(time)[0] - seen.mean(axis=0))
    known = 0.04 * seen.std(axis=0) * (timing.first_steps is not None)  # counted itself, from 512 starts
    sums = 0.05 if law.startswith("gamma") else 0.3
    assert (off[few] <= sums + error[few] + 4.0 * known[few]).all(), off.round(2)


@pytest.mark.parametrize(("workers", "group"), [(8, 8), (8, 4), (8, 20), (4, 8)])
def test_constant_rounds_of_fresh_gradients_end_with_a_cycle(workers, group):
    """Rennala, all begun together: every step at its time; rounds of equal length were a quarter step early."""
    study = quadratic("constant(1)", workers, 0.05, policy="rennala", group=group)
    time = np.linspace(0.0, 40.0, 401)
    seen = run_ensemble(study, time, seeds=1, seed=0).updates[0]
    assert arrivals(study).counts(time)[0] == pytest.approx(seen)


WAITING = {
    "constant": ("constant(1)", {"max_staleness": 3}, 2.0, 1.25),  # steps of 1, 1, 1 and 5 gradients
    "gamma": ("gamma(1, 4)", {"max_staleness": 3}, None, None),
    "groups": ("gamma(1, 4)", {"policy": "k-batch-async", "group": 2, "max_staleness": 2}, None, None),
    "waiting groups": ("gamma(1, 4)", {"policy": "k-async", "group": 3, "max_staleness": 1}, None, None),
}


@pytest.mark.parametrize("share", [1.0, 0.05])
@pytest.mark.parametrize("name", WAITING)
def test_gradients_of_steps_that_wait_are_counted(name, share):
    """Those applied over the steps taken, within 1 % of other seeds; and so many as have the noise of a step, 1/E[1/n].

    Eight constant workers begin every cycle together: three steps of one, then one of the five that were held.
    """
    law, schedule, mean, averaged = WAITING[name]
    study = quadratic(law, 8, 1e-9, on_stale="wait", start="staggered", **schedule)
    said, group = arrivals(study, share=share), schedule.get("group", 1)
    run = run_ensemble(study, np.array([0.0, 3000.0]), seeds=4, seed=9)
    seen = run.tally.applied / run.updates[:, -1].sum()
    assert said.gradients_a_step == pytest.approx(seen, rel=0.01) and seen > 1.3 * group
    path = recorded_path(study, 100_000, 1.0, seen * said.rate, seed=9)
    noise = np.mean(1.0 / np.diff(path.ends, prepend=0))
    assert said.averaged == pytest.approx(1.0 / noise, rel=0.02)
    if mean is not None:
        assert (said.gradients_a_step, said.averaged) == pytest.approx((mean, averaged), rel=1e-3)
