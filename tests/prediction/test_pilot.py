"""A pilot with few workers stands in for many."""

import pytest

from stalewise.prediction import predict
from stalewise.simulation import simulate
from stalewise.study import make_study
from stalewise.trajectory import settling_time


def test_pilot_predicts_sixteen_workers():
    """Time to loss 0.5 within 12 % of the 16-worker run (4 repetitions each), at a quarter of its gradients."""
    study = make_study(
        {
            "workload": {"kind": "digits-mlp"},
            "cluster": {"workers": 16, "compute": "gamma(1, 4)"},
            "schedule": {"policy": "async", "learning_rate": 0.006},
            "target": {"loss": 0.5},
        }
    )
    said, seen = predict(study), simulate(study)
    expected = settling_time(seen.time, seen.loss, 0.5)
    assert said.time_to_target.mean == pytest.approx(expected, rel=0.12)
    assert said.staleness.mean == pytest.approx(15.0, rel=1e-3)
    assert "pilot in virtual time" in said.notes[0]
