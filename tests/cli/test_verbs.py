"""Every verb as a stranger uses it: good input, bad input, exit codes, pure JSON."""

import io
import json
from pathlib import Path

import pytest

from stalewise.cli.main import run

EXAMPLES = Path(__file__).parents[2] / "examples"
QUADRATIC = str(EXAMPLES / "quadratic.toml")
DIGITS = str(EXAMPLES / "digits.toml")
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


def test_fit_reads_other_columns_and_formats(capsys, tmp_path):
    """--columns renames, --format says what they mean, and repairs are printed."""
    path = tmp_path / "log.jsonl"
    rows = [{"worker": 0, "begin_ts": i, "done_ts": i + 1 + i / 100} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    assert run(["fit", str(path), "--columns", "start=begin_ts,end=done_ts", "--json"]) == 0
    answer = strict(capsys.readouterr().out)
    assert answer["pooled"]["count"] == 20
    assert answer["notes"][0] == "1 row the same as another in every column: removed"
    assert run(["fit", str(path)]) == 2
    assert "unknown columns 'worker, begin_ts, done_ts'" in capsys.readouterr().err
    assert run(["fit", TRACE, "--format", "gradients"]) == 2
    assert "format gradients needs worker,start,end; start is not among" in capsys.readouterr().err
    assert run(["fit", TRACE, "--columns", "start"]) == 2
    assert "columns must be like start=begin_ts" in capsys.readouterr().err


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


@pytest.mark.parametrize("verb", ["fit", "measure", "limit", "predict", "simulate", "train", "plan"])
def test_negative_seed_is_refused(verb, capsys):
    """By every verb, before it starts."""
    question = {"fit": TRACE, "measure": DIGITS, "train": DIGITS}.get(verb, QUADRATIC)
    assert run([verb, question, "--seed", "-1"]) == 2
    assert "--seed" in capsys.readouterr().err


def test_a_dash_is_no_folder(capsys, tmp_path, monkeypatch):
    """--out takes a folder, and - is none."""
    monkeypatch.chdir(tmp_path)
    assert run(["predict", QUADRATIC, "--out", "-"]) == 2
    assert "--out: needs a folder, got '-'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_compare_reads_standard_input_and_tells_different_studies(capsys, monkeypatch, tmp_path):
    """One trajectory from -; a note where the questions differ."""
    assert run(["predict", QUADRATIC, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert run(["predict", QUADRATIC, "--set", "cluster.workers=8", "--json"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(capsys.readouterr().out))
    assert run(["compare", str(tmp_path / "predict.json"), "-"]) == 0
    assert "different studies: cluster.workers 16 and 8" in capsys.readouterr().out


def test_compare_needs_two(capsys):
    """One trajectory is nothing to compare."""
    assert run(["compare", QUADRATIC]) == 2
    assert "SECOND" in capsys.readouterr().err


def test_copied_traces_keep_apart(tmp_path, capsys):
    """Two traces of one name, and a file that stands in the way: all kept, and the copied study says the same."""
    for name, delay in (("a", 1), ("b", 3)):
        (tmp_path / name).mkdir()
        rows = "".join(f"w,{i * delay},{(i + 1) * delay}\n" for i in range(20))
        (tmp_path / name / "log.csv").write_text("worker,start,end\n" + rows)
    study = tmp_path / "s.toml"
    laws = "compute = 'empirical(\"a/log.csv\") + constant(0.5)'\nupload = 'empirical(\"b/log.csv\")'"
    study.write_text(Path(QUADRATIC).read_text().replace('compute = "gamma(mean=1.0, shape=4)"', laws))
    out = tmp_path / "out"
    out.mkdir()
    (out / "log.csv").write_text("mine")
    assert run(["predict", str(study), "--set", "cluster.workers=2", "--json", "--out", str(out)]) == 0
    first = strict(capsys.readouterr().out)
    assert (out / "log.csv").read_text() == "mine"
    assert sorted(file.name for file in out.glob("log*")) == ["log-2.csv", "log-3.csv", "log.csv"]
    assert run(["predict", str(out / "study.toml"), "--json", "--out", str(out)]) == 0
    assert strict(capsys.readouterr().out)["time_to_target"] == first["time_to_target"]
    assert first["delay"]["mean"] == pytest.approx(4.5)


def test_train_spares_the_trace_it_reads(tmp_path, capsys):
    """The run would write trace.csv over its own input: refused; a copied trace never takes that name."""
    trace = Path(TRACE).read_text()
    (tmp_path / "trace.csv").write_text(trace)
    study = tmp_path / "s.toml"
    study.write_text(Path(DIGITS).read_text().replace("pai_job_1.csv", "trace.csv"))
    assert run(["train", str(study), "--set", "schedule.learning_rate=0.03", "--out", str(tmp_path)]) == 2
    assert "the study reads" in capsys.readouterr().err
    assert (tmp_path / "trace.csv").read_text() == trace
    assert run(["train", str(study), "--set", "schedule.learning_rate=0.03", "--time-limit", "-1", "--out",
                str(tmp_path / "new")]) == 2  # fmt: skip
    assert not (tmp_path / "new").exists()


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
    "verb",
    ["fit", "measure", "limit", "predict", "simulate", "train", "plan", "compare", "sweep", "report", "figures"],
)
def test_help_shows_an_example(verb, capsys):
    """Every verb teaches by an example."""
    run([verb, "--help"])
    assert f"Example: stalewise {verb}" in " ".join(capsys.readouterr().out.split())


def test_a_margin_is_for_quadratics(capsys):
    """Of a network it was taken and did nothing."""
    assert run(["plan", DIGITS, "--margin", "0.3", "--cores", "1"]) == 2
    assert "--margin is for quadratics, got 0.3" in capsys.readouterr().err


def test_a_sweep_says_which_target(capsys):
    """None where it is what is varied; and JSON is strict also of values that are no numbers."""
    axis = ["--vary", "target.loss=[0.3, 0.2, nan]", "--engine", "predict", "--cores", "1"]
    assert run(["sweep", QUADRATIC, *axis]) == 0
    assert "Time to the target, by predict" in capsys.readouterr().out
    assert run(["sweep", QUADRATIC, *axis, "--json"]) == 0
    assert len(strict(capsys.readouterr().out)["rows"]) == 3
