"""Figures of the source paper's claims: their theory by another route, what captions say, and the verb."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from stalewise.claims import CLAIMS, Axis, Curve, Effort, Figure, Mark, Panel, wanted
from stalewise.claims.figure import interval, listed, with_error
from stalewise.claims.staleness import LAWS, STEP, _gain, _growth, _one_mode, _seen_gain, _seen_limit
from stalewise.claims.triggers import CURVATURES, NOISE, mean_field, sent_shares
from stalewise.cli.main import run
from stalewise.errors import InputError
from stalewise.report.drawing import claim_svg
from stalewise.report.figures import claims_page, claims_text
from stalewise.trajectory import TargetTime

DOCS = Path(__file__).parents[2] / "docs"
QUICK = Effort(quick=True)


@pytest.mark.parametrize("workers", [1, 2, 8, 12])
def test_decay_of_constant_staleness_is_that_of_the_polynomial(workers):
    """z^N - z^(N-1) + h = 0: its largest root, by NumPy."""
    roots = np.roots([1.0, -1.0, *[0.0] * (workers - 2), STEP] if workers > 1 else [1.0, STEP - 1.0])
    expected = math.log(max(abs(roots))) / math.log1p(-STEP)
    assert _gain(_one_mode(workers, LAWS["constant"]), 1.0, 0) == pytest.approx(expected, rel=1e-6)


def test_a_small_staleness_accelerates_and_a_large_one_diverges():
    """Growth of the loss in virtual time, at staleness 0, 6 and 63."""
    growth = [_growth(_one_mode(n, LAWS["gamma(4)"]), (4.0, 10.0, 4.0), 256, QUICK).mean() / n for n in (1, 7, 64)]
    assert growth[1] < 1.5 * growth[0] < 0.0 < growth[2]


def test_limit_of_memoryless_workers_is_found_in_virtual_time():
    """(1 + sqrt(1 + 8 N))/(2 N), within four standard errors and 8 %."""
    exact = (1.0 + math.sqrt(1.0 + 8.0 * 4)) / 8.0
    value, error = _seen_limit(4, LAWS["memoryless"], exact, Effort())
    assert abs(value - exact) < 4.0 * error
    assert error < 0.02 * exact


def test_shares_sent_are_those_of_drawn_gradients():
    """p and k against a million normal gradients."""
    rng, mean = np.random.default_rng(1), np.array([0.3, 0.0, 0.1, 0.2])
    drawn = mean + rng.standard_normal((1_000_000, len(CURVATURES))) * math.sqrt(NOISE)
    over = np.linalg.norm(drawn, axis=1) > 0.6
    p, k = sent_shares(0.6, float(mean @ mean))
    assert over.mean() == pytest.approx(p, abs=0.002)
    assert (drawn[:, 0] * over).mean() / mean[0] == pytest.approx(k, abs=0.004)


def test_mean_field_without_a_trigger_is_plain_async():
    """Time to the target as `predict` gives it, 4 % (it neglects noise of arrivals); every gradient is sent."""
    from stalewise.claims.questions import predicted_time
    from stalewise.claims.triggers import _study

    time, sent, read = mean_field(0.0)
    plain = _study(0.0, 0.0, "refresh").with_schedule(policy="async")
    assert time == pytest.approx(predicted_time(plain, 0), rel=0.04)
    assert sent == pytest.approx(read - 8, rel=1e-6)


@pytest.mark.parametrize("law", ["constant", "gamma(4)"])
def test_simulated_decay_is_that_of_theory(law):
    """Four workers, 2 %."""
    study = _one_mode(4, LAWS[law])
    value, error = _seen_gain(study, QUICK)
    assert value == pytest.approx(_gain(study, 1.0, 0), rel=0.02, abs=4.0 * error)


def test_every_claim_is_on_the_page_with_its_picture_and_numbers():
    """docs/figures.md."""
    page = (DOCS / "figures.md").read_text()
    for name in CLAIMS:
        assert f"\n## {name}\n" in page
        assert f"](figures/{name}.svg)" in page
    assert page.count("The claim holds here.") + page.count("The claim does not hold here.") == len(CLAIMS)


def _tiny(holds: bool) -> Figure:
    curves = [
        Curve("<b>theory", [1.0, 2.0, 3.0], [1.0, None, 3.0]),
        Curve("", [1.0, 2.0], [1.0, 2.0], "simulated", 0, [0.9, None], [1.1, 2.2]),
        Curve("beside", [1.0, 3.0], [2.0, 2.0], "aside", 1),
    ]
    panel = Panel("left", Axis("time", "s", log=True), Axis("loss", log=True), curves, [Mark("x", 2.0, "here")])
    return Figure("tiny", "It is so.", holds, ["A < B."], [panel, panel])


def test_a_picture_is_the_same_bytes_each_time_and_escaped():
    """SVG, page and Markdown of a small figure; the verdict is computed."""
    one = _tiny(False).as_dict()
    assert claim_svg(one) == claim_svg(one)
    assert "time [s]" in claim_svg(one)
    page = claims_page([one], ["a note"])
    assert "A &lt; B." in page
    assert "The claim does not hold here." in page
    assert "The claim holds here." in claims_text([_tiny(True).as_dict()])


def test_words():
    """Times with errors, never, and lists."""
    assert interval(TargetTime(mean=9.871, low=9.79, high=9.95)) == "9.87 +- 0.08 s"
    assert interval(TargetTime()) == "never"
    assert with_error(26.4, 3.2) == "26 +- 3"
    assert listed([1, 2, 3]) == "1, 2 and 3"


def test_mnist_is_left_out_with_a_sentence():
    """Unless its folder is given; asked for by name it is an error."""
    names, notes = wanted([], Effort())
    assert "mnist" not in names
    assert "mnist is left out: it needs --data" in notes[0]
    assert wanted([], Effort(data=Path("x"))) == (list(CLAIMS), [])
    with pytest.raises(InputError, match="mnist needs --data"):
        wanted(["mnist"], Effort())


def test_the_verb_writes_page_data_captions_and_pictures(tmp_path, capsys):
    """One figure, a rough look."""
    assert run(["figures", "divergence", "--quick", "--json", "--out", str(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [one["name"] for one in answer["figures"]] == ["divergence"]
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["divergence.svg", "figures.html", "figures.json", "figures.md"]
    assert json.loads((tmp_path / "figures.json").read_text()) == answer["figures"]
    assert not re.search(r'src="http|href="http', (tmp_path / "figures.html").read_text().split("<body>")[-1][:2000])
    ends = [line for line in answer["figures"][0]["caption"] if "convergence is foretold for 32 workers" in line]
    assert ends


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["figures", "wokers"], "got 'wokers'; did you mean \"workers\"?"),
        (["figures", "mnist"], "mnist needs --data"),
        (["figures", "--seed", "-1"], "--seed"),
        (["figures", "--out", "-"], "needs a folder"),
        (["figures", "mnist", "--data", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line(argv, said, capsys, tmp_path, monkeypatch):
    """Exit 2, nothing on standard output, nothing written."""
    monkeypatch.chdir(tmp_path)
    assert run(argv) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_figure(capsys):
    """And teaches by an example."""
    run(["figures", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in CLAIMS)
    assert "Example: stalewise figures" in told
