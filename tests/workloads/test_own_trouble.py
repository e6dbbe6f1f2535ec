"""What a user's own task raises is told in one line, with the place in their code."""

import contextlib
import pickle
import re
from pathlib import Path

import pytest

import my_task
import ray_in_threads
from stalewise.cli.main import run
from stalewise.errors import TaskError
from stalewise.landscape import measure
from stalewise.study import Workload
from stalewise.training import engine
from stalewise.workloads import load_network

TESTS = {"folder": "tests"}
SOURCE = Path(my_task.__file__).read_text().splitlines()
STUDY = """
[workload]
kind = "{kind}"
options = {{ {options} }}
[cluster]
workers = 2
compute = "gamma(1, 4)"
[schedule]
policy = "async"
learning_rate = 0.05
batch_size = 4
[target]
loss = 0.1
"""


def line(text):
    """Number of the line of my_task.py that holds a text."""
    (found,) = [i for i, one in enumerate(SOURCE, 1) if text in one]
    return found


PLACES = {
    "model": ("KeyError: 'no such\\n layer'", 'raise KeyError("no such'),
    "loss": ("IndexError: tuple index out of range", "/ batch[2].sum()"),
    "data": ("IndexError: index 1", "return X[at + 10_000]"),
    "factory": ("NameError: name 'undefined' is not defined", "loss, undefined"),
}


def own(part, **options):
    """A task that fails in that part."""
    return Workload.model_validate({"kind": "my_task:stumbling", "options": {"part": part, **options}}, context=TESTS)


def used(workload):
    """Its network, a loss and a gradient."""
    network = load_network(workload)
    network.loss(network.start(0))
    return network.gradient(network.start(0), (0, 0, 0), 4)


@pytest.mark.parametrize("part", PLACES)
def test_the_place_in_the_users_code_is_told(part):
    """Type, text, file and line; the cause is the exception itself. It goes between processes as it is."""
    what, text = PLACES[part]
    with pytest.raises(TaskError, match=re.escape(f"my_task:stumbling raised {what}")) as caught:
        used(own(part))
    assert str(caught.value).endswith(f"my_task.py:{line(text)})")
    assert type(caught.value.__cause__).__name__ == what.partition(":")[0]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.raised) == (str(caught.value), caught.value.raised)


def test_what_pytorch_raises_of_a_model_is_the_models():
    """Shapes that do not fit have no line of the user's; a loader's processes have one in their text."""
    with pytest.raises(TaskError, match=r"my_task:stumbling raised RuntimeError: mat1 and mat2 shapes"):
        used(own("shapes"))
    with pytest.raises(TaskError, match=rf"IndexError: index 1.*my_task.py:{line('return X[at + 10_000]')}\)$"):
        used(own("processes", processes=1))


def test_what_is_not_the_tasks_stays_as_it_is():
    """A fault of ours, or of a caller, is no task's."""
    network = load_network(own("none"))
    with pytest.raises(ValueError, match="shape"):
        network.loss(network.start(0)[:2])
    with pytest.raises(TaskError, match="KeyError"):
        measure(own("model"), budget=1000)


@pytest.mark.parametrize("verb", ["measure", "predict", "simulate", "plan --cores 1", "limit", "train"])
def test_verbs_say_it_in_a_line(verb, tmp_path, capsys, monkeypatch):
    """Exit code 2; all of it with STALEWISE_TRACEBACK."""
    monkeypatch.setattr(engine, "local_ray", lambda: contextlib.nullcontext(ray_in_threads))
    (tmp_path / "their_task.py").write_text("import my_task\n\n\ndef make(part):\n    return my_task.stumbling(part)\n")
    study = tmp_path / "study.toml"
    study.write_text(STUDY.format(kind="their_task:make", options='part = "model"'))
    assert run([*verb.split(), str(study)]) == 2
    said = capsys.readouterr().err.strip()
    place = rf"my_task.py:{line(PLACES['model'][1])}\)"
    assert re.fullmatch(rf"stalewise: workload.kind: their_task:make raised KeyError: .*{place}; STALEWISE.*", said)
    monkeypatch.setenv("STALEWISE_TRACEBACK", "1")
    assert run([*verb.split(), str(study)]) == 2
    told = capsys.readouterr().err
    assert "Traceback" in told and "in forward" in told and told.strip().endswith(said[-60:])


def test_a_module_that_cannot_be_imported(tmp_path, capsys):
    """Wrong syntax, or an exception on its way: at that line."""
    study = tmp_path / "study.toml"
    for name, text, what in (
        ("half_written", "def make(:\n    pass\n", r"SyntaxError: .*half_written.py:1\)"),
        ("half_there", "\n\nx = 1 / 0\n", r"ZeroDivisionError: division by zero \(.*half_there.py:3\)"),
        ("half_installed", "import surely_not_there\n", r"ModuleNotFoundError: .*half_installed.py:1\)"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
        study.write_text(STUDY.format(kind=f"{name}:make", options=""))
        assert run(["simulate", str(study)]) == 2
        assert re.search(what, capsys.readouterr().err)
