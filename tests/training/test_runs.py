"""Real runs: the user's own code, recorded order, resumption, faults, metrics. One Ray for all of them."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import my_task
from on_ray import REAL
from stalewise.errors import InputError, NotConvergedError
from stalewise.hands.cluster import local_ray
from stalewise.simulation.replay import replay
from stalewise.study import make_study
from stalewise.traces import read_trace
from stalewise.training import train
from stalewise.training.checkpoint import load_checkpoint
from stalewise.training.fleet import Outcome
from stalewise.trajectory import Trajectory
from stalewise.workloads import open_network

pytestmark = REAL
HERE = Path(my_task.__file__).parent


@pytest.fixture(scope="module", autouse=True)
def ray():
    """One Ray for all tests; `train` uses it."""
    with local_ray() as ray:
        yield ray


def study_of(kind="digits-mlp", *, workers=4, compute="gamma(0.04, 4)", rate=0.03, **schedule):
    return make_study(
        {
            "workload": {"kind": kind},
            "cluster": {"workers": workers, "compute": compute},
            "schedule": {"policy": "async", "learning_rate": rate, **schedule},
            "target": {"loss": 1e-9},
        },
        folder=HERE,
    )


def adds_up(told):
    tally = told.gradients
    parts = (tally.applied, tally.dropped, tally.cancelled, tally.unsent, tally.lost, tally.in_flight)
    return tally.computed == sum(parts)


def rows_of(path):
    lines = Path(path).read_text().splitlines()
    return [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]


@pytest.mark.parametrize(
    "schedule",
    [
        {"momentum": 0.5},
        {"policy": "k-batch-async", "group": 3},
        {"max_staleness": 3},
        {"compression": "top-k(0.05)", "optimizer": "Adam"},
        {"policy": "k-sync", "group": 2},
        {"delay_compensation": 0.5, "local_steps": 2},
    ],
    ids="-".join,
)
def test_a_real_run_and_its_replay_end_alike(schedule, tmp_path):
    """Bit for bit: what the trace's order of arrivals says, decided and computed anew in virtual time, ends at the
    parameters of the real run."""
    study = study_of(rate=0.01, **schedule)
    told = train(study, seed=3, folder=tmp_path, time_limit=2.5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as on a worker
    again = replay(study, read_trace(tmp_path / "trace.csv"), seed=3)
    torch.set_num_threads(threads)
    _, tensors, _ = load_checkpoint(tmp_path)
    assert told.gradients.applied > 20
    np.testing.assert_array_equal(again.parameters, tensors["parameters"])
    assert again.tally.applied == told.gradients.applied and again.tally.dropped == told.gradients.dropped


def test_your_own_task_with_a_loader(tmp_path):
    """A factory of model, criterion and loader trains; its state_dict loads into its model and gives the loss told."""
    study = study_of("my_task:regression", rate=0.05, compute="constant(0.01)")
    told = train(study, folder=tmp_path, time_limit=2.0)
    assert told.study["schedule"]["batch_size"] == 8
    assert told.loss[-1] < 0.7 * told.loss[0]
    model, criterion, _ = my_task.regression()
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert float(criterion(model(my_task.X), my_task.Y).detach()) == pytest.approx(
        open_network(study)[0].loss(load_checkpoint(tmp_path)[1]["parameters"]), rel=1e-6
    )


def test_gradients_that_are_not_finite_are_refused(tmp_path):
    """They count as lost, nobody applies them, the others train on."""
    told = train(study_of("my_task:faulty", rate=0.05, compute="constant(0.01)"), folder=tmp_path, time_limit=2.0)
    assert told.gradients.lost > 10 and adds_up(told)
    assert told.loss[-1] < told.loss[0]
    assert np.isfinite(load_checkpoint(tmp_path)[1]["parameters"]).all()
    assert any("refused as not finite" in note for note in told.notes)
    assert len(rows_of(tmp_path / "trace.csv")) == told.gradients.computed


def test_a_factory_that_fails_is_told_in_one_line():
    """Before anything is started."""
    with pytest.raises(RuntimeError, match="no data here"):
        train(study_of("my_task:broken"), time_limit=1.0)


def test_triggered_gradients_stay_at_their_workers(tmp_path):
    """Bytes that came are those of the gradients that were sent."""
    from stalewise.training import engine

    seen = {}
    original = engine.trajectory_of

    def spy(run, warnings):
        seen["bytes"], seen["size"] = run.fleet.bytes, run.network.size
        return original(run, warnings)

    engine.trajectory_of = spy
    try:
        told = train(study_of(policy="event-triggered", trigger=1.0, rate=0.05), time_limit=2.5)
    finally:
        engine.trajectory_of = original
    assert told.gradients.unsent > 10
    in_flight = told.gradients.in_flight
    sent = seen["bytes"] / (4 * seen["size"])
    assert told.gradients.applied <= sent <= told.gradients.applied + in_flight


def test_a_finished_run_goes_on(tmp_path):
    """With --resume it continues: versions, losses, random numbers, trace; what was in flight is lost, once."""
    study = study_of(momentum=0.5)
    first = train(study, seed=1, folder=tmp_path, time_limit=2.0)
    rows = len(rows_of(tmp_path / "trace.csv"))
    second = train(study, seed=1, folder=tmp_path, time_limit=4.0, resume=True)
    assert second.time[: len(first.time)] == first.time and second.loss[: len(first.loss)] == first.loss
    assert second.updates[-1] > 1.3 * first.updates[-1]
    assert second.gradients.lost == first.gradients.in_flight and adds_up(second)
    after = rows_of(tmp_path / "trace.csv")
    assert len(after) == second.gradients.computed > rows
    applied = [int(row["applied_version"]) for row in after if row["applied_version"]]
    assert applied == list(range(int(second.updates[-1])))
    with pytest.raises(InputError, match=r"schedule.learning_rate was 0.03 and is 0.05: this is not the same study"):
        train(study_of(rate=0.05, momentum=0.5), seed=1, folder=tmp_path, resume=True)
    with pytest.raises(InputError, match="the checkpoint has seed 1, got --seed 2"):
        train(study, seed=2, folder=tmp_path, resume=True)
    with pytest.raises(InputError, match="--resume needs the folder of the run"):
        train(study, resume=True)


def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path, monkeypatch):
    """A stopped process loses its gradients, the run goes on at full strength afterwards."""
    from stalewise.training import engine

    class Stopping(engine.Fleet):
        stopped = math.inf

        def collect(self, timeout):
            event = super().collect(timeout)
            if self.stopped == math.inf and self.index.total() > 40:
                Stopping.stopped = time.monotonic()
                os.kill(self.hosts.seats[0].process, signal.SIGSTOP)
            if time.monotonic() > self.stopped + 2.0 and isinstance(event, Outcome):
                back.add(event.worker)
            return event

    class Ending(engine.Run):
        def _why_stop(self, now, limit):
            return "limit" if back == {0, 1, 2, 3} else super()._why_stop(now, limit)

    back = set()
    monkeypatch.setattr(engine, "Fleet", Stopping)
    monkeypatch.setattr(engine, "Run", Ending)
    told = train(study_of(), folder=tmp_path, time_limit=120.0, patience=2.0)
    assert told.gradients.lost >= 1 and adds_up(told)
    assert any("worker processes died 1 times" in note for note in told.notes)
    assert back == {0, 1, 2, 3}


def test_a_driver_killed_with_9_goes_on(tmp_path):
    """The command line: killed at work, then --resume: no update is missing or doubled, the trace is whole."""
    toml = tmp_path / "study.toml"
    toml.write_text(study_of().to_toml())
    command = [
        str(Path(sys.executable).with_name("stalewise")), "train", str(toml), "--out", str(tmp_path),
        "--checkpoint-every", "0.5",
    ]  # fmt: skip
    first = subprocess.Popen([*command, "--time-limit", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "checkpoint.previous.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.wait()
    with safe_open(tmp_path / "checkpoint.safetensors", framework="np") as file:
        state = json.loads(file.metadata()["state"])
    done = subprocess.run(
        [*command, "--resume", "--json", "--time-limit", str(state["elapsed"] + 2.0)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = Trajectory.model_validate(json.loads(done.stdout))
    assert told.updates[-1] > state["version"] and adds_up(told)
    rows = rows_of(tmp_path / "trace.csv")
    applied = [int(row["applied_version"]) for row in rows if row["applied_version"]]
    assert applied == list(range(int(told.updates[-1])))
    assert len(rows) == told.gradients.computed
    assert len({(row["worker"], row["start"]) for row in rows}) == len(rows)


def test_metrics_reach_tensorboard(tmp_path):
    """Losses by update, as TensorBoard reads them."""
    pytest.importorskip("tensorboard")
    told = train(study_of(), folder=tmp_path, time_limit=2.0, log=["tensorboard"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("loss")
    assert [one.step for one in scalars] == [int(k) for k in told.updates[1:]]
    np.testing.assert_allclose([one.value for one in scalars], told.loss[1:], rtol=1e-6)
    with pytest.raises(InputError, match="--log must be one of tensorboard, mlflow, got 'x'"):
        train(study_of(), folder=tmp_path, log=["x"])
    with pytest.raises(InputError, match="--log tensorboard needs a folder"):
        train(study_of(), log=["tensorboard"])


def test_metrics_reach_mlflow(tmp_path, monkeypatch):
    """Losses by update, as MLflow reads them from its database in the run's folder."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    told = train(study_of(), folder=tmp_path, time_limit=2.0, log=["mlflow"])
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("Default").experiment_id])
    assert run.info.status == "FINISHED"
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [one.step for one in losses] == [int(k) for k in told.updates[1:]]
    np.testing.assert_allclose([one.value for one in losses], told.loss[1:], rtol=1e-12)


def test_a_process_that_cannot_live_ends_the_run(monkeypatch):
    """Dying more often than is borne without one gradient in between (here: once) is not gone along with."""
    from stalewise.training import engine, hosts

    class Murderous(engine.Fleet):
        killed = False

        def collect(self, timeout):
            if not self.killed:
                self.killed = True
                self.hosts.kill(0)
            return super().collect(timeout)

    monkeypatch.setattr(engine, "Fleet", Murderous)
    monkeypatch.setattr(hosts, "MOST_DEATHS", 0)
    with pytest.raises(NotConvergedError, match="worker process 0 died 1 times without computing a gradient"):
        train(study_of(compute="constant(5)"), time_limit=30.0)
