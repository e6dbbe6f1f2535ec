"""Advice after a run of a network: it never costs the answer."""

from pathlib import Path

import pytest

import my_task
from stalewise.prediction import advice, advise
from stalewise.simulation import simulate
from stalewise.study import make_study
from stalewise.trajectory import Trajectory


def answered(kind, rate):
    """A study and its answer in virtual time."""
    study = make_study(
        {
            "workload": {"kind": kind},
            "cluster": {"workers": 2, "compute": "constant(1)"},
            "schedule": {"policy": "async", "learning_rate": rate},
            "target": {"loss": 1e-9},
        },
        folder=Path(my_task.__file__).parent,
    )
    return study, simulate(study, seeds=1, horizon=20.0)


def test_no_curvature_is_measured_for_nothing(monkeypatch):
    """A network that has not reached its target in time, but is stable, needs none."""
    monkeypatch.setattr(advice, "arrivals", lambda *_, **__: pytest.fail("measured"))
    assert advise(*answered("my_task:regression", 0.01)) is None


def test_models_without_second_derivatives_keep_their_answer():
    """Where no curvature can be measured there is no advice, and no error."""
    study, answer = answered("my_task:fused", 0.01)
    diverged = Trajectory.model_validate(answer.model_dump() | {"status": "diverges", "mean_square_stable": False})
    assert diverged.diverges
    assert advise(study, diverged) is None
