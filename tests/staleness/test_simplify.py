"""What simplifications cost: against formulas, and on workers whose simplification is known to matter or not."""

import dataclasses
import math

import numpy as np
import pytest

from stalewise.delays import Gamma, Replay, fit_delay
from stalewise.staleness import arrivals, simplification_costs, staleness_law
from stalewise.staleness.simplify import MODELS
from stalewise.study import make_study
from stalewise.traces import Trace, read_trace


def trace_of(sequences):
    end = [np.cumsum(x) for x in sequences]
    labels = np.repeat([str(i) for i in range(len(sequences))], [len(x) for x in sequences])
    return Trace(labels, np.concatenate(end) - np.concatenate(sequences), np.concatenate(end), {}, source="log.csv")


def costs_of(sequences):
    trace = trace_of(sequences)
    fit = fit_delay(trace)
    costs = simplification_costs(trace, fit)
    return fit.with_costs(costs), {cost.model: cost for cost in costs}


def test_identical_independent_workers_cost_nothing():
    """Every model but the memoryless one agrees with the formula for the true law, and the sentences say so."""
    rng = np.random.default_rng(0)
    fit, costs = costs_of([rng.gamma(4, 0.25, 2000) for _ in range(8)])
    true = staleness_law(Gamma(1.0, 4.0), 8)
    assert list(costs) == list(MODELS)
    for model in MODELS[:-1]:
        assert costs[model].variance == pytest.approx(true.variance, rel=0.06)
        assert costs[model].mean == pytest.approx(7.0, abs=0.001)
    assert costs["memoryless"].variance == pytest.approx(8 * 7)
    assert costs["replay"].variance_error == 0
    text = " ".join(fit.sentences)
    assert text.count("In staleness that costs next to nothing") == 2
    assert "(exponential) is not safe" in text and "variance of staleness becomes 56 instead of" in text


def test_unlike_workers_cost():
    """Half of the workers three times as slow: one pool for all misses the variance, each worker's own law keeps it."""
    rng = np.random.default_rng(1)
    fit, costs = costs_of([(1 + 2 * (i % 2)) * rng.gamma(25, 0.04, 400) for i in range(6)])
    assert abs(costs["identical"].variance_error) > 0.2
    assert abs(costs["per_worker"].variance_error) < 0.05
    assert any("identical is not safe" in s and "That costs: the variance" in s for s in fit.sentences)


def test_slow_spells_cost():
    """Workers that are ten times as slow for thirty gradients at a time: shuffling them changes staleness."""
    rng = np.random.default_rng(2)
    logs = [rng.gamma(25, 0.04, 1500) * np.repeat(np.where(rng.random(50) < 0.3, 10.0, 1.0), 30) for _ in range(6)]
    fit, costs = costs_of(logs)
    assert abs(costs["independent"].variance_error) > 0.1
    assert any("independent is not safe" in s and "That costs: the variance" in s for s in fit.sentences)


def test_one_worker_has_no_staleness():
    """Nothing to simplify."""
    x = np.random.default_rng(3).gamma(4, 0.25, 100)
    assert simplification_costs(trace_of([x]), fit_delay(x)) == ()


def test_constant_delays():
    """Every gradient is N - 1 old; the error of a variance of 0 does not exist."""
    fit, costs = costs_of([np.full(20, 0.5) for _ in range(4)])
    assert (costs["replay"].mean, costs["replay"].variance) == (3.0, 0.0)
    assert costs["memoryless"].variance_error is None
    assert costs["fitted"].p99 == 3
    assert all(math.isfinite(v) for cost in fit.as_dict()["costs"] for v in cost.values() if isinstance(v, float))


def test_counted_staleness_leaves_out_the_start():
    """Replay of draws of a law has the mean N - 1 and the variance of the formula: 2 % is six standard errors."""
    law = Gamma(1.0, 100.0)
    drawn = Replay(tuple(law.sample(30_000, np.random.default_rng(i)) for i in range(32)))
    question = make_study(
        {
            "workload": {"eigenvalues": [1.0]},
            "cluster": {"workers": 32, "compute": "exponential(1)", "start": "staggered"},
            "schedule": {"policy": "async", "learning_rate": 0.01},
            "target": {"loss": 1.0},
        }
    )
    counted = arrivals(question.with_delay(drawn)).staleness
    assert counted.mean == pytest.approx(31.0, abs=0.005)
    assert counted.variance == pytest.approx(staleness_law(law, 32).variance, rel=0.02)


def test_recorded_job():
    """The recorded job: the pool and the fitted law keep the variance within 5 and 15 %, memorylessness does not."""
    trace = read_trace("examples/pai_job_1.csv")
    fit = fit_delay(trace)
    costs = {cost.model: cost for cost in simplification_costs(trace, fit)}
    assert abs(costs["identical"].variance_error) < 0.05
    assert abs(costs["fitted"].variance_error) < 0.15
    assert abs(costs["per_worker"].variance_error) < 0.15
    assert costs["memoryless"].variance_error > 10
    assert dataclasses.replace(fit, costs=()).sentences != fit.with_costs(tuple(costs.values())).sentences
