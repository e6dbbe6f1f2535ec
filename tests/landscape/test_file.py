"""A landscape as a file, and studies that name one."""

import copy
import json

import pytest

from stalewise.cli.main import run
from stalewise.errors import InputError
from stalewise.landscape import load_landscape, measure
from stalewise.prediction import limit, stiffest
from stalewise.study import Workload, load_study, make_study

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
OPTIONS = {"width": 8}


@pytest.fixture(scope="module")
def measured():
    """A landscape of two places."""
    workload = Workload(kind="digits-mlp", options=OPTIONS)
    return measure(workload, budget=1000, eigenvalues=2, updates=[20], learning_rate=0.05)


def study(file, **workload):
    """A network's study that names a landscape file."""
    return {
        "workload": {"kind": "digits-mlp", "options": OPTIONS, "landscape": str(file), **workload},
        "cluster": {"workers": 4, "compute": "gamma(mean=1, shape=4)"},
        "schedule": {"policy": "async", "learning_rate": 0.01},
        "target": {"loss": 0.5},
    }


def test_file_reads_back_as_it_was(measured, tmp_path):
    """Every digit, in a file of a few kB."""
    path = tmp_path / "measure.json"
    path.write_text(measured.to_json())
    assert load_landscape(path) == measured
    assert path.stat().st_size < 40_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("format"), "is not what `stalewise measure` writes: no format"),
        (lambda d: d.update(version=2), "has version 2, 1 is what can be read; measure anew"),
        (lambda d: d.update(places=[]), "places: "),
        (lambda d: d.update(extra=1), "extra: extra inputs are not permitted"),
        (lambda d: d["places"][0].pop("loss"), "places.0.loss: field required"),
        (lambda d: d["places"][0]["hessian"][0].update(value="5"), "places.0.hessian.0.value: must be a valid number"),
        (lambda d: d["places"][0]["hessian"][0].update(value=1e300), "places.0.hessian.0.value: must be less than"),
        (lambda d: d["places"][0]["hessian"][1].update(value=1e50), "places.0: hessian must descend"),
        (lambda d: d["places"][0]["hessian"][0].update(residual=-1.0), "residual: must be greater than or equal to 0"),
        (lambda d: d["places"][0]["density"]["shares"].append(0.5), r"density: shares has \d+ values for \d+ eigen"),
        (lambda d: d["places"][0]["density"]["shares"].__setitem__(0, 0.9), "density: shares must add up to 1, got"),
        (lambda d: d["places"][0]["noise"]["covariance"]["matrix"].pop(), "matrix must have 2 rows and columns"),
        (lambda d: d["places"][0]["noise"]["covariance"].update(route="x"), "route: must be 'samples' or 'batches'"),
        (lambda d: d["places"].reverse(), "places must begin at update 0 and go on in the order of updates"),
    ],
)  # fmt: skip
def test_wrong_files(measured, tmp_path, change, message):
    """One line that says where."""
    document = copy.deepcopy(json.loads(measured.to_json()))
    change(document)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message) as caught:
        load_landscape(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("landscape file: wrong.json")


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"format": NaN}', "3"])
def test_what_is_no_landscape_at_all(tmp_path, text):
    """Not JSON, or something else."""
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"landscape file: x.json is not"):
        load_landscape(tmp_path / "x.json")


def test_a_study_takes_its_curvature_from_the_file(measured, tmp_path):
    """The largest of the file's places, nothing measured anew; limits fall in proportion."""
    document = json.loads(measured.to_json())
    document["places"][1]["hessian"][0]["value"] = 400.0
    path = tmp_path / "measure.json"
    path.write_text(json.dumps(document))
    one = make_study(study(path))
    curvature, (note,) = stiffest(one)
    assert curvature == 400.0
    assert "after 20 updates of SGD, by measure.json" in note
    document["places"][1]["hessian"][0]["value"] = 800.0
    path.write_text(json.dumps(document))
    stiffer = limit(one)
    path.write_text(json.dumps({**document, "places": document["places"][:1]}))
    softer = limit(one)
    ratio = 800.0 / measured.places[0].curvature
    assert softer.learning_rate["mean_square"] == pytest.approx(ratio * stiffer.learning_rate["mean_square"], rel=1e-3)


def test_the_file_is_found_beside_the_study(measured, tmp_path):
    """And from the folder that an answer goes into."""
    (tmp_path / "measure.json").write_text(measured.to_json())
    (tmp_path / "study.toml").write_text(make_study(study("measure.json")).to_toml())
    found = load_study(tmp_path / "study.toml")
    assert found.workload.landscape_path == tmp_path / "measure.json"
    assert found.with_places().workload.landscape == str(tmp_path / "measure.json")


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"kind": "char-transformer"}, "workload.landscape: m.json was measured with kind = 'digits-mlp', the study"),
        ({"options": {"width": 9}}, "was measured with options = {'width': 8}, the study has {'width': 9}"),
        ({"landscape": "none.json"}, "landscape file: .*none.json' does not exist"),
    ],
)
def test_a_file_that_does_not_fit(measured, tmp_path, workload, message):
    """Of another network, or missing."""
    (tmp_path / "m.json").write_text(measured.to_json())
    with pytest.raises(InputError, match=message):
        stiffest(make_study(study("m.json", **workload), folder=tmp_path))


def test_a_quadratic_has_no_landscape_file():
    """It stands in the study."""
    with pytest.raises(InputError, match="landscape belongs to networks; a quadratic stands in the study"):
        make_study(
            {
                "workload": {"eigenvalues": [1.0], "landscape": "x.json"},
                "cluster": {"workers": 1, "compute": "constant(1)"},
                "target": {"loss": 0.1},
            }
        )


def test_from_the_command_line_to_the_page(tmp_path, capsys):
    """`measure --out` writes what a study and the report read; --json prints the same document."""
    source = tmp_path / "study.toml"
    source.write_text(make_study({**study("x"), "workload": {"kind": "digits-mlp", "options": OPTIONS}}).to_toml())
    out = tmp_path / "out"
    words = ["measure", str(source), "--budget", "1000", "--eigenvalues", "2", "--updates", "5", "--out", str(out)]
    assert run([*words, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((out / "measure.json").read_text())
    assert printed.err == ""
    assert [place.updates for place in load_landscape(out / "measure.json").places] == [0, 5]
    assert (out / "measure.html").read_text().count("plotly-graph-div") >= 4
    assert run(["limit", str(source), "--set", f"workload.landscape={out / 'measure.json'}"]) in (0, 3)
    assert "by measure.json" in capsys.readouterr().out
    assert run(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "<h2>Landscape</h2>" in page
    assert "After 5 updates of SGD" in page


def test_lines_for_people(tmp_path, capsys):
    """What is printed names everything measured."""
    source = tmp_path / "study.toml"
    source.write_text(make_study({**study("x"), "workload": {"kind": "digits-mlp", "options": OPTIONS}}).to_toml())
    assert run(["measure", str(source), "--budget", "1000", "--eigenvalues", "2"]) == 0
    text = capsys.readouterr().out
    for word in ("at the start", "Hessian", "Gauss-Newton", "gradient noise", "noise scale", "one gradient", "spent"):
        assert word in text
