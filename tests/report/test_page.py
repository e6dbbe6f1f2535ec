"""The page: complete, self-contained, and safe against what files say."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stalewise.cli.main import run
from stalewise.errors import InputError
from stalewise.report import write_report

STUDY = """
[workload]
eigenvalues = [1.0]
[cluster]
workers = 4
compute = "gamma(1, 4)"
[schedule]
learning_rate = 0.1
policy = "async"
[target]
loss = 0.01
"""
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def folder(tmp_path):
    """A folder with answers of four verbs."""
    study, trace = tmp_path / "a.toml", tmp_path / "t.csv"
    study.write_text(STUDY)
    rows = [f"{HOSTILE},{i},{i + 1 + (i * 7 % 5) / 10}" for i in range(40)]
    trace.write_text("worker,start,end\n" + "\n".join(rows))
    for argv in (["plan", study], ["predict", study], ["simulate", study, "--seeds", "8"], ["fit", trace]):
        assert run([str(word) for word in argv] + ["--out", str(tmp_path)]) == 0
    return tmp_path


def test_page_is_complete_and_loads_nothing(folder):
    """Five figures, the table, the sentences; no address that a browser would fetch."""
    text = write_report(folder).read_text()
    assert text.count("Plotly.newPlot(") >= 5
    for heading in ("Loss against time", "Staleness", "Stability", "Delays", "Alternatives", "Study"):
        assert f"<h2>{heading}</h2>" in text
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", text)


def test_real_runs_beside_one_another(folder):
    """train-NAME.json is a curve and a column of its own, its name escaped."""
    (folder / "train.json").write_text((folder / "simulate.json").read_text())
    (folder / "train-<b>default.json").write_text((folder / "simulate.json").read_text())
    text = write_report(folder).read_text()
    assert "<th>real run</th><th>real run, &lt;b&gt;default</th>" in text
    assert text.count('"name":"real run') == 4 and "<b>default" not in text


def test_files_are_escaped(folder):
    """A hostile status or note stays text."""
    answer = json.loads((folder / "predict.json").read_text())
    answer["status"] = answer["notes"][0] = HOSTILE
    (folder / "predict.json").write_text(json.dumps(answer))
    plan = json.loads((folder / "plan.json").read_text())
    plan["reasons"][0] = HOSTILE
    (folder / "plan.json").write_text(json.dumps(plan))
    fit = json.loads((folder / "fit.json").read_text())
    fit["pooled"]["law"] = HOSTILE
    (folder / "fit.json").write_text(json.dumps(fit))
    assert HOSTILE not in write_report(folder).read_text()


@pytest.mark.parametrize("name", ["plan", "fit", "chart"])
@pytest.mark.parametrize("text", ["{}", "[]", "null", "3", '{"reasons": 3}'])
def test_documents_of_the_wrong_kind(folder, name, text):
    """Empty, or not an object, or not what stalewise writes: one line, and the page stays as it was."""
    page = write_report(folder).read_text()
    (folder / f"{name}.json").write_text(text)
    with pytest.raises(InputError, match="not what stalewise writes"):
        write_report(folder)
    assert (folder / "report.html").read_text() == page


def test_a_study_without_a_target(folder):
    """A trajectory whose study was damaged."""
    answer = json.loads((folder / "predict.json").read_text())
    answer["study"]["target"] = None
    (folder / "predict.json").write_text(json.dumps(answer))
    with pytest.raises(InputError, match="not what stalewise writes"):
        write_report(folder)


def test_answers_to_different_studies_are_told(folder, tmp_path):
    """The page and compare say which field differs."""
    changed = ["simulate", str(tmp_path / "a.toml"), "--seeds", "4", "--set", "schedule.learning_rate=0.2"]
    assert run([*changed, "--out", str(folder)]) == 0
    told = "predict and simulate answer different studies: schedule.learning_rate 0.1 and 0.2"
    assert told in write_report(folder).read_text()


def test_bad_folders(tmp_path):
    """Empty, broken, and foreign files are refused in one line, and no page is written."""
    with pytest.raises(InputError, match="holds no answer"):
        write_report(tmp_path)
    (tmp_path / "predict.json").write_text("{")
    with pytest.raises(InputError, match=r"predict\.json is not JSON"):
        write_report(tmp_path)
    (tmp_path / "predict.json").write_text("{}")
    with pytest.raises(InputError, match="predict"):
        write_report(tmp_path)
    (tmp_path / "predict.json").unlink()
    (tmp_path / "fit.json").write_text("{}")
    with pytest.raises(InputError, match="not what stalewise writes"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_a_browser_draws_it(folder, tmp_path_factory):
    """Chromium, given only the file, draws every figure."""
    page = write_report(folder)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--virtual-time-budget=8000", "--dump-dom",
               page.as_uri()]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert dom.count('class="main-svg"') >= 5


def test_a_page_of_delays_alone(tmp_path):
    """A folder with one answer is enough, whichever it is."""
    source = Path(__file__).parents[2] / "examples" / "pai_job_1.csv"
    assert run(["fit", str(source), "--out", str(tmp_path)]) == 0
    assert "<h2>Delays</h2>" in write_report(tmp_path).read_text()
