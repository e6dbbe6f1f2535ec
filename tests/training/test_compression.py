"""Compressed gradients under policies that throw work away, without Ray: what a worker keeps back is what it should."""

import contextlib

import numpy as np
import pytest

import ray_in_threads
from stalewise.protocol import parse_compression
from stalewise.simulation.replay import replay
from stalewise.study import make_study
from stalewise.traces import read_trace
from stalewise.training import engine, train
from stalewise.training.checkpoint import load_checkpoint
from stalewise.workloads.compressor import Compressor
from stalewise.workloads.threads import threads


@pytest.mark.parametrize(
    ("schedule", "fate"),
    [
        ({"policy": "k-sync", "group": 2}, "cancelled"),
        ({"max_staleness": 1, "on_stale": "cancel"}, "cancelled"),
        ({"policy": "event-triggered", "trigger": 1.3}, "unsent"),
    ],
)
def test_what_is_cancelled_or_unsent_changes_nothing_at_its_worker(schedule, fate, tmp_path, monkeypatch):
    """With top-k, a real run ends bit for bit at the parameters of its replay, where such gradients leave no trace."""
    monkeypatch.setattr(engine, "local_ray", lambda: contextlib.nullcontext(ray_in_threads))
    study = make_study(
        {
            "workload": {"kind": "digits-mlp"},
            "cluster": {"workers": 3, "compute": "exponential(0.01)"},
            "schedule": {"policy": "async", "learning_rate": 0.05, "compression": "top-k(0.02)", **schedule},
            "target": {"loss": 1e-9},
        }
    )
    with threads(1):
        told = train(study, folder=tmp_path, time_limit=1.5)
        again = replay(study, read_trace(tmp_path / "trace.csv"))
    assert told.gradients.applied > 5 and getattr(told.gradients, fate) > 5
    np.testing.assert_array_equal(again.parameters, load_checkpoint(tmp_path)[1]["parameters"])


def test_what_was_packed_last_is_taken_back():
    """Once; the first is, too; the others' remainders stay."""
    rng = np.random.default_rng(0)
    packed, never = (Compressor(parse_compression("top-k(0.1)"), 50) for _ in range(2))
    for _ in range(2):
        packed.pack(0, rng.standard_normal(50).astype(np.float32))
        packed.undo(0)
        packed.undo(0)
        gradient = rng.standard_normal(50).astype(np.float32)
        np.testing.assert_array_equal(packed.sent(1, gradient), never.sent(1, gradient))
        gradient = rng.standard_normal(50).astype(np.float32)
        np.testing.assert_array_equal(packed.sent(0, gradient), never.sent(0, gradient))
