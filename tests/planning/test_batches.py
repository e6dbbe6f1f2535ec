"""Batch sizes: chosen where samples cost time, held and told where they do not."""

import math

import pytest

from stalewise.dynamics import step_limit
from stalewise.planning import Goal, plan
from stalewise.planning.knobs import batch_is_open
from stalewise.planning.questions import what_limits
from stalewise.simulation import simulate
from stalewise.staleness import arrivals
from stalewise.study import make_study
from studies import quadratic


def costly(sample_time, *, noise=0.1, workers=8, **keys):
    """A study whose samples cost that, its schedule left to the plan."""
    study = quadratic("gamma(1, 4)", workers, 0.1, noise=noise, **keys)
    return study.with_schedule(policy=None, learning_rate=None).with_cluster(sample_time=sample_time)


def test_the_batch_beats_a_grid_in_simulation():
    """The pick, simulated, is within 5 % of the best of a grid of policies, workers, batches and learning rates."""
    study = costly(0.05)
    found = plan(study)
    seen = simulate(found.study, seeds=1000, seed=1, horizon=60.0).time_to_target.mean
    times = {}
    for policy, top in (("async", 1.0), ("sync", 2.0), ("k-batch-sync", 2.0)):
        for batch in (1, 2, 4, 8, 16, 32, 64):
            for workers in (2, 4, 8):
                for factor in (0.1, 0.2, 0.4, 0.8):
                    rate = factor * (top if policy != "async" else 2.0 / workers)
                    one = study.with_schedule(
                        policy=policy, active_workers=workers, batch_size=batch, learning_rate=rate,
                        group=workers // 2 if policy == "k-batch-sync" else None,
                    )  # fmt: skip
                    time = simulate(one, seeds=64, seed=1, horizon=1.2 * seen).time_to_target.mean or math.inf
                    times[batch] = min(times.get(batch, math.inf), time)
    best = min(times, key=times.__getitem__)
    assert 1 < best < 64
    assert seen < 1.05 * times[best]
    assert best / 4 <= found.study.batch_size <= 4 * best


def test_cheaper_samples_make_larger_batches():
    """Up to where noise is none any more; and they save time."""
    found = [plan(costly(cost)) for cost in (1.0, 0.05, 0.002)]
    sizes = [one.study.schedule.batch_size for one in found]
    assert sizes[0] < sizes[1] < sizes[2] <= 4096
    times = [one.predicted.time_to_target.mean for one in found]
    assert times[0] > 1.3 * times[1] > 1.3 * 1.05 * times[2]
    for one in found:
        assert one.checked.time_to_target.mean == pytest.approx(one.predicted.time_to_target.mean, rel=0.2)
    (told,) = (reason for reason in found[1].reasons if reason.startswith(f"Batches of {sizes[1]}: "))
    assert f"{2 * sizes[1]} would take +" in told and f"{sizes[1] // 2} would take +" in told
    assert all(rule["schedule"]["batch_size"] == sizes[1] for rule in found[1].baselines)


def test_a_batch_is_held_where_there_is_nothing_to_choose():
    """Where it is given, where samples cost nothing, and where there is no noise; the latter two are told."""
    given = plan(costly(0.05, workers=2).with_schedule(batch_size=3, policy="async"))
    assert given.study.batch_size == 3 and not any("atch_size is held" in one for one in given.reasons)
    study = costly(0.0, workers=2).with_schedule(policy="async")
    free = plan(study)
    assert not batch_is_open(study) and free.study.batch_size == 1
    assert any("cluster.sample_time, what a sample costs, is 0" in one for one in free.reasons)
    quiet = plan(costly(0.05, noise=0.0, workers=2).with_schedule(policy="async"))
    assert quiet.study.batch_size == 1 and any("gradients have no noise" in one for one in quiet.reasons)


def test_traffic_is_saved_by_larger_batches():
    """Fewer and better gradients are sent; a limit on the time bounds them."""
    study = costly(0.05, workers=4).with_schedule(policy="async")
    fast, least = plan(study), plan(study, goal=Goal("traffic"))
    assert least.study.batch_size > fast.study.batch_size
    limit = 0.5 * least.predicted.time_to_target.mean
    between = plan(study, goal=Goal("traffic", time=limit))
    assert between.study.batch_size < least.study.batch_size
    assert between.checked.time_to_target.mean < 1.1 * limit


def test_groups_are_ordered_by_speed_at_the_batch_that_is_chosen():
    """Workers that are quick with one sample but slow with many come last."""
    group = [{"count": 3, "compute": "gamma(0.01, 4)", "sample_time": 0.9}, {"count": 3, "compute": "gamma(1, 4)"}]
    study = make_study(
        {
            "workload": {"eigenvalues": [1.0, 0.1], "gradient_noise": 1.0},
            "cluster": {"group": group, "sample_time": 0.02},
            "target": {"loss": 0.005},
        }
    )
    found = plan(study, goal=Goal("cost"))
    assert found.study.batch_size > 4
    assert found.study.cluster.group[0].sample_time is None
    assert any("numbered by their speed" in reason for reason in found.reasons)


def test_twice_as_fast_compute_has_faster_samples_too():
    """With nothing else in a cycle, half the compute is half the time, also where samples take most of it."""
    study = costly(0.05).with_schedule(policy="async", learning_rate=0.02, batch_size=60)
    (limits, *_) = what_limits(study, 0, 0.9)
    assert "compute (twice as fast) -50 %" in limits


def test_nearly_equal_delays_have_a_limit():
    """Two groups of four take turns, so that every staleness counted is 1, x' = x - h x_1: this divided by zero."""
    study = quadratic("gamma(1, 4)", 8, 0.1, policy="k-async", group=4).with_cluster(upload="constant(1000)")
    timing = arrivals(study).coarse
    assert timing.staleness.pmf[1] > 0.999
    assert step_limit(timing).mean_square == pytest.approx(1.0, rel=0.01)
