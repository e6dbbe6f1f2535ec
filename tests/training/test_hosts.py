"""Worker processes that fail, without Ray: what becomes of their gradients, and what is said of it."""

import contextlib
from pathlib import Path

import pytest

import my_task
import ray_in_threads
from stalewise.errors import NotConvergedError
from stalewise.study import make_study
from stalewise.training import engine, fleet, train
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
    with pytest.raises(NotConvergedError, match=r"died 6 times .*; the task raised ValueError: own trouble"):
        train(study_of("my_task:failing", 1), time_limit=60.0)
    monkeypatch.setattr(my_task.Failing, "after", 10**9)
    monkeypatch.setattr(my_task.Failing, "every", 40)
    told = train(study_of("my_task:failing"), time_limit=4.0)
    assert told.gradients.lost >= 1 and told.gradients.applied > 40
    assert any("the task raised ValueError: own trouble in a worker process" in note for note in told.notes)


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
