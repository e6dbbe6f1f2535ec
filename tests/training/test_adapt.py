"""Planning anew: nothing changes where nothing has changed, and slow workers are met."""

import time

import numpy as np
import pytest

from stalewise.errors import InputError, NotConvergedError
from stalewise.prediction.modes import learning_rate_limit
from stalewise.staleness import arrivals
from stalewise.study import make_study
from stalewise.training.adapt import Adapter


def study(**schedule):
    return make_study(
        {
            "workload": {"kind": "digits-mlp"},
            "cluster": {"workers": 6, "compute": "gamma(2.0, 4)"},
            "schedule": {"policy": "async", "learning_rate": 0.05, **schedule},
            "target": {"loss": 0.1},
        }
    )


def drive(adapter, factors, cycles, rng, now=0.0, scale=2.0):
    """Gradients of workers slower by ``factors``, and what is said; ends at the time returned."""
    clock = now + scale * factors * rng.gamma(4, 0.25, size=len(factors))
    changes = []
    while clock.min() < now + scale * cycles:
        worker = int(np.argmin(clock))
        at = clock[worker]
        delay = scale * factors[worker] * rng.gamma(4, 0.25)
        adapter.arrived(worker, delay)
        clock[worker] += delay
        change = adapter.look(at)
        while adapter._planning is not None and not adapter._planning.done():
            time.sleep(0.001)
        if change is not None:
            changes.append(change)
    return now + scale * cycles, changes


@pytest.mark.parametrize("scale", [2.0, 0.002])
def test_nothing_changes_where_nothing_has_changed(scale):
    """300 cycles of 8 seeds at the assumed delays, or all of them faster alike: not one change. (A worker is taken for
    changed by chance in fewer than 1 of 1,000 looks, and must be twice.)"""
    for seed in range(8):
        adapter = Adapter(study())
        _, changes = drive(adapter, np.ones(6), 300, np.random.default_rng(seed), scale=scale)
        adapter.close()
        assert changes == []


def test_a_third_that_slows_down_is_met_and_its_return_too():
    """The learning rate rises, as update rate and limit allow, within 60 cycles; when all are alike again it is near
    the plan's; both are told in a sentence."""
    rng = np.random.default_rng(0)
    adapter = Adapter(study(max_staleness=30))
    now, changes = drive(adapter, np.ones(6), 50, rng)
    assert changes == []
    now, changes = drive(adapter, np.array([5.0, 1, 1, 5.0, 1, 1]), 120, rng, now)
    assert changes
    assert changes[-1].setting.learning_rate > 1.1 * 0.05
    assert changes[-1].setting.max_staleness >= 30
    assert "2 of 6 workers are slower" in changes[0].reason and "learning rate 0.05 -> " in changes[0].reason
    state = adapter.state()
    again = Adapter(study(max_staleness=30))
    again.restore(state)
    assert again.now == adapter.now
    again.close()
    assert len(adapter.now.workers) == 6
    _, changes = drive(adapter, np.ones(6), 500, rng, now)
    assert changes[-1].setting.learning_rate == pytest.approx(0.05, rel=0.15)
    adapter.close()


def test_workers_left_out_are_tried_again():
    """One gradient each now and then."""
    adapter = Adapter(study())
    adapter.now = adapter.now.__class__(frozenset({1, 2, 4, 5}), 0.07, None)
    assert adapter.probes(1.0) == []
    assert adapter.probes(60.0) == [0, 3]
    assert adapter.probes(61.0) == []
    adapter.close()


def test_other_policies_are_refused():
    """One line."""
    with pytest.raises(InputError, match="--adapt is for policy 'async' with on_stale 'drop' and one local step"):
        Adapter(study(policy="sync"))


def test_a_plan_that_is_not_found_changes_nothing(monkeypatch):
    """The search for a limit fails: no change, and the next look begins another."""

    adapter = Adapter(study())
    asked = []

    def fail(*_):
        asked.append(True)
        raise NotConvergedError("no limit")

    monkeypatch.setattr(Adapter, "_limit_at", fail)
    _, changes = drive(adapter, np.array([5.0, 1, 1, 5.0, 1, 1]), 120, np.random.default_rng(0))
    adapter.close()
    assert changes == [] and len(asked) > 1


def test_tails_without_a_variance_are_refused():
    """In a line that names them, not the law that stands in for them."""
    heavy = study().with_cluster(compute="pareto(1.0, 1.5)")
    with pytest.raises(InputError, match="--adapt needs delays of finite variance"):
        Adapter(heavy)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_limits_are_those_of_the_momentum(momentum):
    """A third slower: the learning rate follows the limit of those taken, which with momentum is another."""
    speeds = np.array([5.0, 1, 1, 5.0, 1, 1])
    adapter = Adapter(study(momentum=momentum))
    setting, _ = adapter._best(speeds, 0.5)
    adapter.close()
    assert setting is not None
    limits = []
    for some in (speeds[sorted(setting.workers)], np.ones(6)):
        groups = [{"count": int((some == mean).sum()), "compute": f"gamma({mean}, 4)"} for mean in sorted({*some})]
        one = make_study(
            {
                "workload": {"eigenvalues": [1.0]},
                "cluster": {"group": groups},
                "schedule": {"policy": "async", "learning_rate": 1e-3, "momentum": momentum},
                "target": {"loss": 0.1},
            }
        )
        limits.append(learning_rate_limit(one, arrivals(one)).mean_square)
    assert setting.learning_rate == pytest.approx(0.05 * limits[0] / limits[1], rel=0.01)
    assert len(setting.workers) == (6 if momentum == 0 else 4)
