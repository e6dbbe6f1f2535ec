"""Worker processes that fail, without Ray: what becomes of their gradients, and what is said of it."""

import contextlib
import random
import re
from pathlib import Path

import pytest

import my_task
import ray_in_threads
from stalewise.errors import InputError, TaskError
from stalewise.study import make_study
from stalewise.training import engine, fleet, hosts, train
from stalewise.training.checkpoint import load_checkpoint, save_checkpoint
from stalewise.training.host import Host
from stalewise.training.hosts import gpu_share


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch):
    monkeypatch.setattr(engine, "local_ray", lambda: contextlib.nullcontext(ray_in_threads))


def study_of(kind, workers=2):
    return make_study(
        {
            "workload": {"kind": kind},
            "cluster": {"workers": workers, "compute": "constant(0.01)"},
            "schedule": {"policy": "async", "learning_rate": 0.01},
            "target": {"loss": 1e-9},
        },
        folder=Path(my_task.__file__).parent,
    )


def test_what_the_task_raises_is_told(monkeypatch):
    """A run that ends because a process keeps failing says what it raised; a warning does where it goes on."""
    monkeypatch.setattr(my_task.Failing, "after", 20)
    with pytest.raises(
        TaskError, match=r"my_task:failing raised ValueError: own trouble \(.*my_task.py:\d+\); .* died 6 times"
    ):
        train(study_of("my_task:failing", 1), time_limit=60.0)
    monkeypatch.setattr(my_task.Failing, "after", 10**9)
    monkeypatch.setattr(my_task.Failing, "every", 40)
    told = train(study_of("my_task:failing"), time_limit=4.0)
    assert told.gradients.lost >= 1 and told.gradients.applied > 40
    assert any(
        re.search(r"the task raised ValueError: own trouble \(.*my_task.py:\d+\) in a worker process", note)
        for note in told.notes
    )


def test_a_process_that_dies_before_it_is_on_its_line_is_found(monkeypatch):
    """It is asked again; before, nobody ever looked for it."""

    class Shy(Host):
        shied = False

        def serve(self, path, host):
            if not Shy.shied:
                Shy.shied = True
                raise OSError("gone")
            super().serve(path, host)

    monkeypatch.setattr(fleet, "FIRST_WAIT", 10.0)
    monkeypatch.setattr(fleet, "OTHERS_WAIT", 10.0)
    study = study_of("my_task:regression")
    one = fleet.Fleet(ray_in_threads, study, 21, 0, real=False, host=Shy)
    assert one.gather() == {0, 1}
    assert Shy.shied
    one.close()


def test_another_model_at_a_worker_is_refused(tmp_path):
    """Gradients of another shape count as lost, each with a row; 100 in a row end the run, which says so."""
    my_task.Growing.made = 0
    told = train(study_of("my_task:growing"), time_limit=60.0, trace_path=tmp_path / "trace.csv")
    assert told.diverges
    assert told.status.startswith("diverges: 100 gradients in a row were not finite, misshapen or another run's by")
    assert told.gradients.applied == 0 and told.gradients.lost == 100
    assert len((tmp_path / "trace.csv").read_text().splitlines()) == 1 + told.gradients.computed
    assert told.loss[-1] == told.loss[0]


def test_a_loss_that_is_never_finite_is_told():
    """Data with NaN: no word of growth."""
    told = train(study_of("my_task:unknown"), time_limit=60.0)
    assert told.status == "diverges: the training loss is not finite from the start"


@pytest.mark.parametrize("processes", range(1, 12))
@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
def test_all_processes_find_a_place_on_a_gpu(processes, gpus):
    """Shares that whole GPUs can hold: a process is on one of them alone."""
    share = gpu_share(processes, float(gpus))
    assert int(1.0 / share + 1e-9) * gpus >= processes
    assert gpu_share(processes, 0.0) == 0.0


@pytest.mark.parametrize("address", ["", "local", "auto ", "head"])
def test_an_address_that_is_none_is_refused(address):
    """Before Ray is asked, which would take some of them for a wish to begin a cluster."""
    with pytest.raises(
        InputError, match=f"--address must be host:port of a Ray cluster's head, or auto, got '{address}'"
    ):
        train(study_of("my_task:regression"), address=address, time_limit=1.0)


@pytest.mark.parametrize(
    ("more", "seed", "message"),
    [
        (
            {"workload": {"kind": "my_task:regression", "options": {"width": float("inf")}}},
            0,
            "workload.options must be",
        ),
        (
            {"schedule": {"optimizer": "Adam", "optimizer_options": {"eps": float("nan")}}},
            0,
            "optimizer_options must be",
        ),
        ({"schedule": {"optimizer": "Adam", "optimizer_options": {"betas": [0.9]}}}, 0, "optimizer_options: Adam: "),
        ({}, 1 << 63, "seed must be below 9223372036854775808"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_once(more, seed, message, monkeypatch):
    """Before Ray is started, not with the first checkpoint."""
    monkeypatch.setattr(engine, "local_ray", None)
    data = study_of("my_task:regression").as_dict()
    data = {**data, **more, "schedule": data["schedule"] | more.get("schedule", {})}
    with pytest.raises(InputError, match=message):
        train(make_study(data, folder=Path(my_task.__file__).parent), seed=seed, time_limit=1.0)


def test_a_run_without_adapt_is_the_plans_again(tmp_path):
    """A run that was adapted goes on at the study's learning rate where it goes on without."""
    study = study_of("my_task:regression")
    train(study, folder=tmp_path, time_limit=0.5, adapt=True)
    state, arrays, _ = load_checkpoint(tmp_path)
    state["optimizer"]["learning_rate"] = 0.77
    save_checkpoint(tmp_path, state, arrays)
    train(study, folder=tmp_path, time_limit=state["elapsed"] + 0.5, resume=True)
    assert load_checkpoint(tmp_path)[0]["optimizer"]["learning_rate"] == 0.01


def test_a_worker_that_was_left_out_does_not_come_back_by_dying(monkeypatch):
    """It computes one gradient when its process is back, and is left out again."""
    from stalewise.training.adapt import Adapter, Setting
    from stalewise.training.fleet import Joined, Lost, Outcome

    study = study_of("my_task:regression", 3)
    seen, lost = [], []

    class Dying(engine.Fleet):
        def collect(self, timeout):
            event = super().collect(timeout)
            if not isinstance(event, Outcome):
                return event
            if event.worker == 2 and not lost:
                lost.append(event)
                self._events.appendleft(Joined(2))
                return Lost(2, event.began)
            seen.append(event.worker)
            return event

    class Leaving(Adapter):
        def __init__(self, study):
            super().__init__(study)
            self.now = Setting(frozenset({0, 1}), 0.01, None)

        def probes(self, now):
            return [] if lost else [2]

    monkeypatch.setattr(engine, "Fleet", Dying)
    monkeypatch.setattr(engine, "Adapter", Leaving)
    train(study, time_limit=1.0, adapt=True)
    assert lost and seen.count(2) == 1 and seen.count(0) > 10


def rows_of(path):
    lines = path.read_text().splitlines()
    return [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]


def test_gradients_lost_at_the_very_end_have_their_rows(tmp_path, monkeypatch):
    """A process dies, and the run ends before that was heard of: in the checkpoint, in the trace and after a resume."""

    class Dying(engine.Fleet):
        def in_flight(self):
            if self.hosts.seats[0].up:
                self._lines.hang_up(0)
                self._died(0)
            return super().in_flight()

    monkeypatch.setattr(engine, "Fleet", Dying)
    study = study_of("my_task:regression", 4)
    told = train(study, folder=tmp_path, time_limit=0.5)
    assert told.gradients.computed == told.gradients.applied + 4
    assert len(rows_of(tmp_path / "trace.csv")) == told.gradients.computed
    again = train(study, folder=tmp_path, time_limit=told.time[-1] + 0.5, resume=True)
    assert len(rows_of(tmp_path / "trace.csv")) == again.gradients.computed


@pytest.mark.parametrize("service", ["constant(0)", "constant(0.004)"])
@pytest.mark.parametrize(
    "schedule",
    [
        {}, {"policy": "sync"}, {"policy": "k-sync", "group": 2}, {"max_staleness": 2, "on_stale": "wait"},
        {"max_staleness": 1, "on_stale": "cancel"}, {"policy": "producer-consumer", "group": 2, "max_staleness": 1},
    ],
    ids=str,
)  # fmt: skip
def test_counts_add_up_whoever_dies(schedule, service, tmp_path, monkeypatch):
    """Processes die at random: each gradient has one fate and one row, and updates are 0, 1, 2, ..., each once."""
    rng = random.Random(1)

    class Dying(engine.Fleet):
        def collect(self, timeout):
            host = rng.randrange(len(self.hosts.seats))
            if rng.random() < 0.05 and self.hosts.seats[host].up:
                self._lines.hang_up(host)
                self._died(host)
            return super().collect(timeout)

    monkeypatch.setattr(engine, "Fleet", Dying)
    monkeypatch.setattr(hosts, "REST", 0.02)
    monkeypatch.setattr(hosts, "LOOK", 0.01)
    cluster = {"workers": 4, "compute": "exponential(0.01)", "service": service}
    data = study_of("my_task:regression").as_dict() | {"cluster": cluster}
    data["schedule"] |= schedule
    told = train(make_study(data, folder=Path(my_task.__file__).parent), folder=tmp_path, time_limit=1.0)
    tally, rows = told.gradients, rows_of(tmp_path / "trace.csv")
    fates = (tally.applied, tally.dropped, tally.cancelled, tally.unsent, tally.lost, tally.in_flight)
    assert tally.lost > 0 and tally.applied > 5
    assert len(rows) == len({(row["worker"], row["start"]) for row in rows}) == tally.computed == sum(fates)
    steps = [int(row["applied_version"]) for row in rows if row["applied_version"]]
    assert len(steps) == tally.applied and sorted(set(steps)) == list(range(int(told.updates[-1])))
