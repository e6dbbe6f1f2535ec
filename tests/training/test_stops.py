"""Runs that are stopped in the midst of something, without Ray: what a checkpoint tells is whole."""

import contextlib
import os
import signal
import threading
import time

import pytest

import ray_in_threads
from stalewise.cli.shared import stopped_by_signals
from stalewise.errors import InputError
from stalewise.study import make_study
from stalewise.training import checkpoint, engine, sinks, train
from stalewise.training.checkpoint import load_checkpoint
from stalewise.training.signals import held_signals
from stalewise.workloads.optimizer import Optimizer

STUDY = make_study(
    {
        "workload": {"kind": "digits-mlp"},
        "cluster": {"workers": 3, "compute": "gamma(0.02, 4)"},
        "schedule": {"policy": "async", "learning_rate": 0.03},
        "target": {"loss": 1e-9},
    }
)


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch):
    monkeypatch.setattr(engine, "local_ray", lambda: contextlib.nullcontext(ray_in_threads))


@pytest.fixture(autouse=True)
def _interruptible():
    """Whoever starts the tests in the background has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def go_on_and_check(folder):
    """Resume for a second: updates are 0, 1, 2, ..., each gradient has a row."""
    elapsed = load_checkpoint(folder)[0]["elapsed"]
    assert elapsed < 60.0
    told = train(STUDY, folder=folder, time_limit=elapsed + 1.0, resume=True)
    lines = (folder / "trace.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    assert [int(row["applied_version"]) for row in rows if row["applied_version"]] == list(range(int(told.updates[-1])))
    assert len(rows) == told.gradients.computed
    return told


@pytest.mark.parametrize("stop", ["ctrl-c", "error"])
def test_a_stop_within_a_step_leaves_a_whole_checkpoint(stop, tmp_path, monkeypatch):
    """Ctrl-C waits for the end of the step; after an error the checkpoint before stands."""
    step, stopped = Optimizer.step, []

    def stopping(self, *arguments, **more):
        if not stopped and self.steps > 20 and (tmp_path / checkpoint.NAME).exists():
            stopped.append(self.steps + 1)
            if stop == "error":
                raise RuntimeError("out of luck")
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments, **more)

    monkeypatch.setattr(Optimizer, "step", stopping)
    with pytest.raises(KeyboardInterrupt if stop == "ctrl-c" else RuntimeError):
        train(STUDY, folder=tmp_path, time_limit=30.0, checkpoint_every=0.1)
    version = load_checkpoint(tmp_path)[0]["version"]
    assert version == stopped[0] if stop == "ctrl-c" else 0 < version < stopped[0]
    told = go_on_and_check(tmp_path)
    assert told.updates[-1] > version


def test_ctrl_c_before_a_resumed_run_begins_changes_nothing(tmp_path, monkeypatch):
    """Its workers are not there yet: the checkpoint stands as it is."""
    train(STUDY, folder=tmp_path, time_limit=1.0)
    before = (tmp_path / checkpoint.NAME).read_bytes()

    class Stopped(engine.Fleet):
        def gather(self):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "Fleet", Stopped)
        train(STUDY, folder=tmp_path, time_limit=2.0, resume=True)
    assert (tmp_path / checkpoint.NAME).read_bytes() == before
    go_on_and_check(tmp_path)


def test_a_run_begun_anew_does_not_mix_with_the_one_before(tmp_path, monkeypatch):
    """Killed before its first checkpoint, it leaves another trace than the checkpoint's, which goes on."""
    first = train(STUDY, folder=tmp_path, time_limit=1.0)

    class Killed(engine.Run):
        whole = property(lambda _: False, lambda *_: None)

        def _why_stop(self, now, limit):
            if self.server.version > 2 * first.updates[-1]:
                raise KeyboardInterrupt
            return ""

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "Run", Killed)
        train(STUDY, folder=tmp_path, time_limit=30.0)
    told = go_on_and_check(tmp_path)
    assert told.loss[: len(first.loss)] == first.loss


def test_a_full_disk_costs_checkpoints_not_the_run(tmp_path):
    """Checkpoints and trace in one folder; no file may grow beyond 2,000 bytes for a while."""
    resource = pytest.importorskip("resource")
    before, warnings, calls = resource.getrlimit(resource.RLIMIT_FSIZE), [], []

    def fill(share, _):
        calls.append(share)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]) if 0.1 < share < 0.6 else before)

    try:
        told = train(STUDY, folder=tmp_path, time_limit=3.0, checkpoint_every=0.2, progress=fill, warn=warnings.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert any("a checkpoint could not be written (File too large)" in warning for warning in warnings)
    assert (tmp_path / "model.safetensors").exists()
    assert load_checkpoint(tmp_path)[0]["version"] == told.updates[-1]
    go_on_and_check(tmp_path)


def test_metrics_that_cannot_be_told_do_not_end_a_run(tmp_path, monkeypatch):
    """One warning, and no more attempts."""
    attempts = []

    def hand(update, metrics):
        attempts.append(update)
        raise ConnectionError("no server")

    monkeypatch.setattr(engine, "open_sinks", lambda *_: contextlib.nullcontext(hand))
    told = train(STUDY, folder=tmp_path, time_limit=1.0, log=["mlflow"])
    assert [note for note in told.notes if "metrics" in note] == [
        "no more metrics: they could not be handed over (ConnectionError: no server)"
    ]
    assert len(attempts) == 1 and len(told.loss) > 3


@pytest.mark.parametrize("damage", [("state", "tally"), ("arrays", "parameters"), ("value", "tally")])
def test_a_checkpoint_of_something_else_is_refused(tmp_path, damage):
    """Its checksum is right, but it lacks what a run needs, or that is of another kind."""
    train(STUDY, folder=tmp_path, time_limit=0.5)
    state, arrays, _ = load_checkpoint(tmp_path)
    what, name = damage
    if what == "value":
        state[name] = 3
    else:
        del {"state": state, "arrays": arrays}[what][name]
    state.pop("format")
    checkpoint.save_checkpoint(tmp_path, state, arrays)
    with pytest.raises(InputError, match="not one of a run"):
        train(STUDY, folder=tmp_path, time_limit=1.0, resume=True)


def test_a_tracking_server_that_hangs_holds_up_nothing(monkeypatch):
    """Metrics wait up to a limit, then it is told; what it has raised is told, too; the end waits for a while only."""
    monkeypatch.setattr(sinks, "PATIENCE", 0.1)
    monkeypatch.setattr(sinks, "WAITING", 3)
    answers, seen = threading.Event(), []

    def hang(update, _metrics):
        answers.wait()
        seen.append(update)

    with pytest.raises(TimeoutError, match="3 of them wait"), sinks._apart(hang) as sink:
        for update in range(6):
            sink(update, {})
    answers.set()

    def refuse(_update, _metrics):
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"), sinks._apart(refuse) as sink:
        for update in range(100):
            sink(update, {})
            time.sleep(0.01)
    with sinks._apart(hang) as sink:
        sink(7, {})
    assert seen[-1] == 7


def test_how_to_go_on_is_told(tmp_path, capsys):
    """Only where there is something to go on from."""
    for folder, told in ((None, "nothing was kept"), (tmp_path, "there is no checkpoint"), (tmp_path, "--resume")):
        if told == "--resume":
            (tmp_path / checkpoint.NAME).touch()
        with pytest.raises(KeyboardInterrupt), stopped_by_signals(folder):
            os.kill(os.getpid(), signal.SIGTERM)
        assert told in capsys.readouterr().err


def test_signals_wait_once():
    """The first until it is asked for, or the end; a second one does not wait; what was set before is set again."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), held_signals() as release:
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
        release()
        reached = False
    assert reached
    with pytest.raises(KeyboardInterrupt), held_signals():
        os.kill(os.getpid(), signal.SIGINT)
        reached = "the end"
    assert reached == "the end"
    with pytest.raises(KeyboardInterrupt), held_signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        reached = "too far"
    assert reached == "the end"
    assert signal.getsignal(signal.SIGINT) is before
