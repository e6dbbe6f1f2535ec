"""Prediction against virtual time for every policy and cluster: rate, staleness, settling time."""

import numpy as np
import pytest

from stalewise import limit, predict, simulate
from stalewise.planning.shortlist import guess
from stalewise.simulation.quadratic import run_ensemble
from stalewise.staleness import arrivals
from stalewise.study import make_study

SCHEDULES = {
    "k-sync": {"group": 4},
    "k-batch-sync": {"group": 6},
    "k-async": {"group": 4},
    "k-batch-async": {"group": 4},
    "ssp": {"max_staleness": 1},
    "rennala": {"group": 4},
    "ringmaster": {"max_staleness": 4, "on_stale": "cancel"},
    "drop": {"policy": "async", "max_staleness": 5},
    "wait": {"policy": "async", "max_staleness": 9, "on_stale": "wait"},
    "admit": {"policy": "async", "max_staleness": 5, "on_stale": "admit"},
    "producer-consumer": {"group": 4, "max_staleness": 2},
    "inverse": {"policy": "async", "staleness_weight": "inverse"},
    "polynomial": {"policy": "k-batch-async", "group": 3, "staleness_weight": "polynomial(0.5)"},
    "unlike": {"policy": "async"},
    "unlike k-async": {"policy": "k-async", "group": 4},
    "link": {"policy": "async"},
    "local steps": {"policy": "async", "local_steps": 4},
    "local rounds": {"policy": "sync", "local_steps": 8},
}
CLUSTERS = {
    "producer-consumer": {"service": "constant(0.4)"},
    "unlike": {"group": [{"count": 4}, {"count": 4, "compute": "gamma(3, 4)"}]},
    "unlike k-async": {"group": [{"count": 4}, {"count": 4, "compute": "gamma(3, 4)"}]},
    "link": {"service": "exponential(0.1)"},
}


def study(name, rate=0.08, noise=0.01):
    """Eight workers on two curvatures."""
    return make_study(
        {
            "workload": {"eigenvalues": [1.0, 0.1], "gradient_noise": noise, "start": 1.0},
            "cluster": {"workers": 8, "compute": "gamma(1, 4)", "start": "staggered", **CLUSTERS.get(name, {})},
            "schedule": {"policy": name, "learning_rate": rate, **SCHEDULES[name]},
            "target": {"loss": 0.005},
        }
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_settling_time_is_that_of_virtual_time(name):
    """Within 4 %; rate within 3 % and staleness within 5 %: the simulation counts its own start."""
    rate = 0.02 if "local" in name else 0.08
    predicted, seen = predict(study(name, rate)), simulate(study(name, rate), seeds=128)
    assert predicted.time_to_target.mean == pytest.approx(seen.time_to_target.mean, rel=0.04)
    assert predicted.update_rate == pytest.approx(seen.update_rate, rel=0.03)
    assert predicted.staleness.mean == pytest.approx(seen.staleness.mean, rel=0.05, abs=0.02)


@pytest.mark.parametrize("name", ["inverse", "polynomial", "unlike", "k-async", "wait", "local steps"])
def test_limits_of_the_mean_square_hold(name):
    """Below the limit nothing diverges; twice it does."""
    most = limit(study(name)).learning_rate["mean_square"]
    assert not simulate(study(name, 0.9 * most, noise=0.0), horizon=400.0).diverges
    assert simulate(study(name, 2.0 * most, noise=0.0), horizon=400.0).diverges


@pytest.mark.parametrize("group", [1, 2])
def test_gradients_and_noise_of_steps_that_wait(group):
    """Gradients applied within 1 % of 32 runs; noise floor, also of a rough look, within 4.5 standard errors.

    Taken for the group, they were 2.7 and 1.7 times too few, and the rough floor 1.4 and 1.3 times too high.
    """
    one = study("wait", noise=0.2).with_schedule(
        policy="k-batch-async" if group > 1 else "async", group=group if group > 1 else None, max_staleness=3
    )
    said, rough = predict(one), arrivals(one, share=0.05)
    time = np.linspace(0.0, 2000.0, 1001)
    run = run_ensemble(one, time, seeds=32, seed=5)
    applied = said.gradients.applied / said.updates[-1]
    assert applied == pytest.approx(run.tally.applied / run.updates[:, -1].sum(), rel=0.01) and applied > 1.3 * group
    held = run.loss[:, 200:].mean(axis=1)
    error = held.std(ddof=1) / np.sqrt(len(held))
    assert error < 0.02 * held.mean()
    assert abs(said.noise_floor - held.mean()) < 4.5 * error + 0.01 * held.mean()
    assert guess(one, rough).floor == pytest.approx(said.noise_floor, rel=0.03)
