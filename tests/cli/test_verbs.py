"""Every verb as a stranger uses it: good input, bad input, exit codes, pure JSON."""

import io
import json
from pathlib import Path

import pytest

from stalewise.cli.main import run

EXAMPLES = Path(__file__).parents[2] / "examples"
QUADRATIC = str(EXAMPLES / "quadratic.toml")
TRACE = str(EXAMPLES / "pai_job_1.csv")


def strict(text):
    """Parse JSON, refusing NaN and Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


@pytest.mark.parametrize(
    "argv",
    [
        ["fit", TRACE],
        ["limit", QUADRATIC],
        ["predict", QUADRATIC],
        ["simulate", QUADRATIC, "--seeds", "8"],
        ["plan", QUADRATIC],
    ],
)
def test_json_is_one_strict_document(argv, capsys):
    """With --json standard output is one document and nothing else; without, it is text; both exit with 0."""
    assert run([*argv, "--json"]) == 0
    assert isinstance(strict(capsys.readouterr().out), dict)
    assert run(argv) == 0
    assert len(capsys.readouterr().out.splitlines()) > 2


@pytest.mark.parametrize("verb", ["predict", "simulate", "limit"])
def test_divergence_exits_with_three(verb, capsys):
    """The answer "this diverges" is printed all the same."""
    assert run([verb, QUADRATIC, "--set", "schedule.learning_rate=0.5", "--json"]) == 3
    answer = strict(capsys.readouterr().out)
    assert answer.get("diverges", True) is True


def test_target_below_the_floor_is_an_answer(capsys):
    """Exit 0, null time, and a sentence."""
    assert run(["predict", QUADRATIC, "--set", "target.loss=1e-5", "--json"]) == 0
    answer = strict(capsys.readouterr().out)
    assert answer["time_to_target"]["mean"] is None
    assert "never settles" in answer["status"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["fit", "missing.csv"], "missing.csv' does not exist"),
        (["predict", "missing.toml"], "missing.toml' does not exist"),
        (["predict", QUADRATIC, "--set", "cluster.workers=0"], "cluster.workers"),
        (["predict", QUADRATIC, "--set", "schedule.active_workers=99"], "at most cluster.workers = 16, got 99"),
        (["predict", QUADRATIC, "--set", "schedule.learning_rat=1"], 'did you mean "learning_rate"'),
        (["predict", QUADRATIC, "--set", "cluster.compute=gama(1, 2)"], 'did you mean "gamma"'),
        (["predict", QUADRATIC, "--set", "schedule.learning_rate=nan"], "schedule.learning_rate"),
        (["predict", QUADRATIC, "--set", "cluster.compute=gamma(-1, 2)"], "mean"),
        (["predict", QUADRATIC, "--wrong"], "--wrong"),
        (["predct", QUADRATIC], 'Did you mean "predict"'),
        (["predict"], "STUDY"),
        (["simulate", QUADRATIC, "--seeds", "0"], "seeds"),
        (["measure", QUADRATIC], "its landscape stands in the study"),
        (["train", QUADRATIC], "use simulate for quadratics"),
        (["compare", QUADRATIC, QUADRATIC], "not JSON"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line(argv, said, capsys, tmp_path, monkeypatch):
    """Exit 2, one line that names what is wrong, nothing on standard output, nothing written."""
    monkeypatch.chdir(tmp_path)
    out = [] if argv[0] in ("compare", "report") else ["--out", str(tmp_path / "out")]
    assert run([*argv, *out]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith("stalewise: ")
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "worker,start,end\n", "worker,start,end\na,0,-1\n", "worker,start,end\na,0,nan\n", "x\n1\n"]
)
def test_bad_traces_are_one_line(text, capsys, monkeypatch):
    """Empty, negative, NaN, unknown columns; read from standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert run(["fit", "-"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_standard_input_and_out(capsys, monkeypatch, tmp_path):
    """A study from - is that of the file; --out leaves answers that report and compare read."""
    assert run(["predict", QUADRATIC, "--json", "--out", str(tmp_path)]) == 0
    first = strict(capsys.readouterr().out)
    monkeypatch.setattr("sys.stdin", io.StringIO(Path(QUADRATIC).read_text()))
    assert run(["predict", "-", "--json"]) == 0
    assert strict(capsys.readouterr().out) == first
    assert run(["simulate", str(tmp_path / "study.toml"), "--seeds", "8", "--out", str(tmp_path)]) == 0
    assert run(["compare", str(tmp_path / "predict.json"), str(tmp_path / "simulate.json")]) == 0
    assert run(["report", str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    "verb", ["fit", "measure", "limit", "predict", "simulate", "train", "plan", "compare", "report"]
)
def test_help_shows_an_example(verb, capsys):
    """Every verb teaches by an example."""
    run([verb, "--help"])
    assert f"Example: stalewise {verb}" in " ".join(capsys.readouterr().out.split())
