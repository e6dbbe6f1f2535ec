"""The page: reads what the verbs left in a folder, lays it out, writes one HTML file that needs no network."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from stalewise.errors import InputError
from stalewise.landscape import load_landscape
from stalewise.prediction import differences
from stalewise.report import figures
from stalewise.trajectory import load_json, load_trajectory, write_atomically

ENGINES = ("predict", "simulate", "train")
OTHERS = ("fit", "plan", "chart", "sweep")
LANDSCAPE = "measure.json"
ROWS = (
    ("time to target [s]", lambda t: t["time_to_target"]["mean"]),
    ("update rate [1/s]", lambda t: t["update_rate"]),
    ("mean staleness [updates]", lambda t: t["staleness"]["mean"]),
    ("variance of staleness", lambda t: t["staleness"]["variance"]),
    ("99 % of staleness within [updates]", lambda t: t["staleness"]["p99"]),
    ("mean age of a gradient [s]", lambda t: t["delay"]["mean"]),
    ("gradients applied", lambda t: t["gradients"]["applied"]),
    ("gradients dropped", lambda t: t["gradients"]["dropped"]),
)


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a folder of answers.

    Args:
        folder: Holds any of fit.json, measure.json, plan.json, chart.json, sweep.json, predict.json, simulate.json,
            train.json, planned.toml; train-NAME.json are further real runs, to be seen beside.

    Returns:
        Path of the page.

    Raises:
        InputError: The folder holds none of them, or one is malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"report folder: {str(folder)!r} does not exist or is not a folder")
    files = {e: folder / f"{e}.json" for e in ENGINES}
    files |= {one.stem: one for one in sorted(folder.glob("train-*.json"))}
    answers = {name: load_trajectory(path) for name, path in files.items() if path.exists()}
    trajectories = {engine: answer.model_dump() for engine, answer in answers.items()}
    other = {n: _document(folder / f"{n}.json") for n in OTHERS if (folder / f"{n}.json").exists()}
    if (folder / LANDSCAPE).exists():
        other["landscape"] = load_landscape(folder / LANDSCAPE).model_dump()
    if not trajectories and not other:
        raise InputError(f"report folder: {str(folder)!r} holds no answer; run a verb with --out {folder} first")
    page = folder / "report.html"
    notes = differences(list(answers.values()), list(answers))
    write_atomically(page, _render(folder, trajectories, other, notes))
    return page


def _document(path: Path) -> dict[str, Any]:
    found = load_json(path, "report")
    if not isinstance(found, dict) or not found:
        raise InputError(f"report: {path.name} is not what stalewise writes, got {str(found)[:40]!r}")
    return found


def _render(folder: Path, trajectories: dict[str, Any], other: dict[str, Any], notes: list[str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stalewise.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    drawn: dict[str, Markup] = defaultdict(Markup)  # the page asks for figures that there may not be
    try:
        target = next((float(t["study"]["target"]["loss"]) for t in trajectories.values()), None)
        if trajectories:
            drawn["loss"] = _draw(figures.loss_figure(trajectories, target))
            drawn["staleness"] = _draw(figures.staleness_figure(trajectories))
        if "chart" in other:
            drawn["stability"] = _draw(figures.stability_figure(other["chart"]))
        if "sweep" in other:
            drawn["sweep"] = _draw(figures.sweep_figure(other["sweep"]))
        if "fit" in other:
            drawn["delay"] = _draw(figures.delay_figure(other["fit"]))
            drawn["quantile"] = _draw(figures.quantile_figure(other["fit"]))
        for i, place in enumerate(other.get("landscape", {}).get("places", ())):
            drawn[f"spectrum{i}"] = _draw(figures.spectrum_figure(place))
            drawn[f"noise{i}"] = _draw(figures.noise_figure(place))
        return environment.get_template("page.html").render(
            plotly=Markup(get_plotlyjs()),
            figures=drawn,
            fit=other.get("fit"),
            plan=other.get("plan"),
            chart=other.get("chart"),
            sweep=other.get("sweep"),
            landscape=other.get("landscape"),
            trajectories=trajectories,
            names={name: figures.named(name) for name in trajectories},
            notes=notes,
            rows=[(label, [_text(read(t)) for t in trajectories.values()]) for label, read in ROWS],
            study=_study_text(folder),
        )
    except (KeyError, TypeError, AttributeError, ValueError, jinja2.UndefinedError) as error:
        raise InputError(f"report: a file in {str(folder)!r} is not what stalewise writes: {error}") from None


def _draw(figure: go.Figure) -> Markup:
    """A figure as a fragment; Plotly escapes what would end its script."""
    return Markup(
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})
    )


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _study_text(folder: Path) -> str:
    for name in ("planned.toml", "study.toml"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8", errors="replace")
    return ""
