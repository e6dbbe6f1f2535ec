"""Figures of the page. One function a figure; text from files is escaped, for Plotly reads some HTML in it."""

import itertools
import math
from html import escape
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio
from plotly.subplots import make_subplots

COLOURS = {"predict": "#0072B2", "simulate": "#E69F00", "train": "#009E73"}
NAMES = {"predict": "prediction", "simulate": "simulation", "train": "real run"}
OTHERS = ("#CC79A7", "#56B4E9", "#D55E00", "#F0E442")  # of further real runs
GREY = "#8a8f98"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of Okabe and Ito
PMF_SHOWN = 200


def named(engine: str) -> str:
    """What a curve is called; of train-NAME a real run, NAME."""
    return NAMES.get(engine) or f"{NAMES['train']}, {engine.partition('-')[2]}"


def _colours(trajectories: dict[str, Any]) -> dict[str, str]:
    others = [name for name in trajectories if name not in COLOURS]
    return COLOURS | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(others)}


def _figure(x: str, y: str, **layout: Any) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", height=400,
        margin={"l": 64, "r": 16, "t": 16, "b": 56}, xaxis_title=x, yaxis_title=y, hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#3b4252"},
        legend={"orientation": "h", "y": 1.12, "x": 0}, **layout,
    )  # fmt: skip
    return figure


def _level(figure: go.Figure, value: float, text: str) -> None:
    """A dashed line with words, on a logarithmic axis: Plotly takes the place of words there as an exponent."""
    figure.add_hline(y=value, line={"color": GREY, "dash": "dash"})
    figure.add_annotation(
        x=1.0, xref="paper", xanchor="right", y=math.log10(value), yanchor="bottom", text=text, showarrow=False
    )


def loss_figure(trajectories: dict[str, Any], target: float | None) -> go.Figure:
    """Loss against time for every engine, with bands, the target, and the times to it."""
    figure = _figure("time [s]", "loss")
    figure.update_yaxes(type="log", exponentformat="power")
    colours = _colours(trajectories)
    for engine, one in trajectories.items():
        colour = colours[engine]
        if one.get("loss_low") and one.get("loss_high"):
            figure.add_scatter(
                x=one["time"] + one["time"][::-1], y=one["loss_high"] + one["loss_low"][::-1], fill="toself",
                fillcolor=colour, opacity=0.15, line={"width": 0}, hoverinfo="skip", showlegend=False,
            )  # fmt: skip
        figure.add_scatter(x=one["time"], y=one["loss"], name=escape(named(engine)), line={"color": colour, "width": 2})
        reached = one["time_to_target"]["mean"]
        if reached is not None and target:
            figure.add_scatter(
                x=[reached], y=[target], mode="markers", showlegend=False, hovertext=f"{reached:.4g} s",
                marker={"color": colour, "size": 11, "line": {"color": "white", "width": 2}},
            )  # fmt: skip
    if target:
        _level(figure, target, f"target {target:g}")
    return figure


def staleness_figure(trajectories: dict[str, Any]) -> go.Figure:
    """Staleness: predicted, simulated and observed."""
    figure, colours = _figure("staleness [updates]", "share of applied gradients"), _colours(trajectories)
    for engine, one in trajectories.items():
        staleness = one["staleness"]
        pmf, mean = staleness["pmf"][:PMF_SHOWN], staleness["mean"]
        label = escape(named(engine)) + ("" if mean is None else f", mean {mean:.2f}")
        figure.add_scatter(
            y=pmf, name=label, mode="lines+markers", line={"color": colours[engine], "width": 2, "shape": "hvh"},
            marker={"size": 5},
        )  # fmt: skip
    return figure


def sweep_figure(sweep: dict[str, Any]) -> go.Figure:
    """Time to target against the field with most values, a line for every combination of the others."""
    axes = sweep["axes"]
    across = max(axes, key=lambda name: len(axes[name]))
    values = axes[across]
    figure = _figure(escape(across), "time to target [s]")
    figure.update_yaxes(type="log", exponentformat="power")
    if not all(isinstance(one, int | float) for one in values):
        figure.update_xaxes(type="category")
    elif min(values) > 0 and max(values) > 5 * min(values):
        figure.update_xaxes(type="log")
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in sweep["rows"]:
        rest = ", ".join(f"{k.partition('.')[2]} {v}" for k, v in row["values"].items() if k != across)
        lines.setdefault(rest, []).append(row)
    for i, (name, rows) in enumerate(lines.items()):
        times = [row["time_to_target"] for row in rows]
        above = [None if t is None or r["high"] is None else r["high"] - t for t, r in zip(times, rows, strict=True)]
        below = [None if t is None or r["low"] is None else t - r["low"] for t, r in zip(times, rows, strict=True)]
        figure.add_scatter(
            x=[row["values"][across] for row in rows], y=times, name=escape(name), mode="lines+markers",
            showlegend=bool(name), line={"color": PALETTE[i % len(PALETTE)], "width": 2},
            error_y={"array": above, "arrayminus": below, "thickness": 1, "width": 3},
            hovertext=[escape(str(row["status"])) for row in rows],
        )  # fmt: skip
    return figure


def delay_figure(fit: dict[str, Any]) -> go.Figure:
    """Measured delays and the best law."""
    histogram, law = fit["histogram"], fit["pooled"]["law"]
    edges = histogram["edges"]
    middle = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    width = [b - a for a, b in itertools.pairwise(edges)]
    figure = _figure("time of one gradient [s]", "density [1/s]", bargap=0)
    figure.add_bar(x=middle, y=histogram["density"], width=width, name="measured", marker_color="#c5ccd6")
    figure.add_scatter(
        x=middle, y=histogram["fitted_density"], name=escape(str(law)), line={"color": COLOURS["predict"], "width": 2}
    )
    return figure


def quantile_figure(fit: dict[str, Any]) -> go.Figure:
    """Quantiles of the measured delays against those of the law."""
    quantiles = fit["quantiles"]
    figure = _figure("fitted quantile [s]", "measured quantile [s]", showlegend=False)
    ends = [min(quantiles["fitted"]), max(quantiles["fitted"])]
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": GREY, "dash": "dash"})
    figure.add_scatter(
        x=quantiles["fitted"], y=quantiles["observed"], mode="markers", marker={"color": COLOURS["predict"], "size": 6}
    )
    return figure


def stability_figure(chart: dict[str, Any]) -> go.Figure:
    """Limits of the learning rate against workers, and the schedule's place."""
    figure = _figure("active workers", "learning rate")
    figure.update_xaxes(type="log", tickvals=[n for n in chart["workers"] if n & (n - 1) == 0])
    figure.update_yaxes(type="log", exponentformat="power")
    figure.add_scatter(
        x=chart["workers"], y=chart["mean_square"], name="mean-square limit (trust this)",
        line={"color": COLOURS["predict"], "width": 2},
    )  # fmt: skip
    figure.add_scatter(
        x=chart["workers"], y=chart["mean"], name="limit of the mean", line={"color": GREY, "dash": "dot"}
    )
    point = chart["point"]
    if point["learning_rate"]:
        figure.add_scatter(
            x=[point["workers"]], y=[point["learning_rate"]], mode="markers", name="this schedule",
            marker={"color": "#D55E00", "size": 14, "symbol": "star"},
        )  # fmt: skip
    return figure


def chart_figure(chart: dict[str, Any]) -> go.Figure:
    """A stability chart: contours of its levels, its boundaries, and where the study is."""
    figure = _figure(_titled(chart["x"]), _titled(chart["y"]))
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    levels = [[None if one is None or one <= 0 else math.log10(one) for one in row] for row in chart["levels"]]
    seen = [one for row in levels for one in row if one is not None]
    low, high = (math.floor(min(seen)), math.ceil(max(seen))) if seen else (0, 1)
    ticks = [k for k in range(low, high + 1)]
    figure.add_contour(
        x=chart["x"]["values"], y=chart["y"]["values"], z=levels, colorscale="Cividis", connectgaps=False,
        contours={"start": low, "end": high, "size": 0.25, "showlines": True}, line={"width": 0.5},
        colorbar={"title": {"text": escape(chart["level"]), "side": "right"}, "tickvals": ticks,
                  "ticktext": [f"{10.0**k:g}" for k in ticks]},
        hovertemplate="%{x:.4g}, %{y:.4g}: 10^%{z:.2f}<extra></extra>",
    )  # fmt: skip
    for (name, values), (colour, dash) in zip(chart["boundaries"].items(), _BOUNDARIES, strict=False):
        figure.add_scatter(
            x=chart["x"]["values"], y=values, name=escape(name), mode="lines",
            line={"color": colour, "dash": dash, "width": 2.5},
        )  # fmt: skip
    if chart["point"]:
        x, y = chart["point"]
        figure.add_scatter(
            x=[x], y=[y], mode="markers", name="this study", marker={"color": "#D55E00", "size": 14, "symbol": "star"}
        )
    return figure


def spectrum_figure(place: dict[str, Any]) -> go.Figure:
    """Spectral density of the Hessian: the share of eigenvalues in each bin, and the leading ones."""
    density = place["density"]
    figure = _figure("eigenvalue", "share of eigenvalues", bargap=0)
    edges, shares = _histogram(density["eigenvalues"], density["shares"])
    middle = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    width = [b - a for a, b in itertools.pairwise(edges)]
    figure.add_bar(x=middle, y=shares, width=width, name="Hessian", marker_color="#c5ccd6")
    single = density["shares"][-1] * density["probes"]  # the largest eigenvalue stands in every probe
    for name, key, colour, symbol in (
        ("largest of the Hessian", "hessian", COLOURS["predict"], "line-ns-open"),
        ("largest of the Gauss-Newton matrix", "gauss_newton", "#D55E00", "x-thin-open"),
    ):
        values = [one["value"] for one in place[key] or []]
        figure.add_scatter(
            x=values, y=[single] * len(values), name=f"{len(values)} {name}", mode="markers",
            marker={"color": colour, "size": 12, "symbol": symbol},
        )  # fmt: skip
    figure.update_yaxes(type="log", exponentformat="power", range=[math.log10(single / 3), 0.3])
    return figure


def _histogram(values: list[float], shares: list[float], bins: int = 60) -> tuple[list[float], list[float]]:
    """Shares that fall into each of equal bins."""
    low, high = min(values), max(values)
    width = (high - low) / bins or 1.0
    heights = [0.0] * bins
    for value, share in zip(values, shares, strict=True):
        heights[min(int((value - low) / width), bins - 1)] += share
    return [low + i * width for i in range(bins + 1)], heights


def noise_figure(place: dict[str, Any]) -> go.Figure:
    """Variance of one sample's gradient along the leading eigenvectors, beside their curvature."""
    noise = place["noise"]
    along, rest = noise["covariance"]["along"], noise["rest"]["value"]
    curvature = [one["value"] for one in place["hessian"]]
    figure = _figure("curvature (Hessian eigenvalue)", "variance of one sample's gradient")
    figure.update_yaxes(type="log", exponentformat="power")
    figure.add_scatter(
        x=curvature, y=[one["value"] for one in along], mode="markers", name="along leading eigenvectors",
        marker={"color": COLOURS["predict"], "size": 9},
        error_y={"array": [one["standard_error"] for one in along], "color": GREY},
        error_x={"array": [one["standard_error"] for one in place["hessian"]], "color": GREY},
    )  # fmt: skip
    if rest > 0:
        _level(figure, rest, "mean of all other directions")
    return figure


def landscape_page(landscape: dict[str, Any]) -> str:
    """A landscape's pictures, place by place, as one self-contained page."""
    parts = []
    for i, place in enumerate(landscape["places"]):
        after = f"After {place['updates']} updates of SGD" if place["updates"] else "At the start"
        drawn = (
            pio.to_html(one, include_plotlyjs=i == k == 0, full_html=False)
            for k, one in enumerate((spectrum_figure(place), noise_figure(place)))
        )
        parts.append(f"<h2>{after}: loss {place['loss']:.4g}</h2>{''.join(drawn)}")
    return _page(f"Landscape of {landscape['workload']['kind']}", "".join(parts))


_BOUNDARIES = (("#D55E00", "solid"), ("#333333", "dot"))


def _titled(axis: dict[str, Any]) -> str:
    return escape(f"{axis['name']} [{axis['unit']}]" if axis["unit"] else axis["name"])


def chart_page(charts: list[dict[str, Any]]) -> str:
    """Charts as one self-contained page."""
    parts = []
    for i, chart in enumerate(charts):
        notes = "".join(f"<p>{escape(note)}</p>" for note in chart["notes"])
        parts.append(pio.to_html(chart_figure(chart), include_plotlyjs=i == 0, full_html=False) + notes)
    return _page("Stability charts", "".join(parts))


def claim_figure(figure: dict[str, Any]) -> go.Figure:
    """Panels of a claim side by side: theory as lines, simulation as dots with 95 % intervals."""
    panels = figure["panels"]
    drawn = make_subplots(rows=1, cols=len(panels), subplot_titles=[escape(one["title"]) for one in panels])
    drawn.update_layout(
        template="plotly_white", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", height=460,
        margin={"l": 64, "r": 16, "t": 40, "b": 56}, hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#3b4252"},
        legend={"orientation": "h", "y": -0.2, "x": 0},
    )  # fmt: skip
    for column, panel in enumerate(panels, start=1):
        place: dict[str, Any] = {"row": 1, "col": column}
        for name, update in (("x", drawn.update_xaxes), ("y", drawn.update_yaxes)):
            kind: dict[str, Any] = {"type": "log", "exponentformat": "power"} if panel[name]["log"] else {}
            update(title_text=_titled(panel[name]), **kind, **place)
        shown = [one for one in panel["curves"] if column == 1 or one["name"] not in _named(panels[0])]
        for curve in panel["curves"]:
            drawn.add_scatter(**_claim_curve(curve, curve in shown), **place)
        for mark in panel["marks"]:
            add = drawn.add_vline if mark["axis"] == "x" else drawn.add_hline
            add(mark["value"], line={"color": GREY, "dash": "dot"}, annotation_text=escape(mark["text"]), **place)
    return drawn


def _named(panel: dict[str, Any]) -> set[str]:
    return {one["name"] for one in panel["curves"]}


def _claim_curve(curve: dict[str, Any], shown: bool) -> dict[str, Any]:
    """Arguments of a trace."""
    colour = PALETTE[curve["colour"] % len(PALETTE)]
    trace = {"x": curve["x"], "y": curve["y"], "name": escape(curve["name"]), "legendgroup": escape(curve["name"]),
             "showlegend": bool(curve["name"]) and shown}  # fmt: skip
    if curve["drawn"] != "simulated":
        dash = "solid" if curve["drawn"] == "theory" else "dash"
        return {**trace, "mode": "lines", "line": {"color": colour, "width": 2, "dash": dash}}
    above, below = (
        [0.0 if end is None or y is None else abs(end - y) for end, y in zip(ends, curve["y"], strict=True)]
        for ends in (curve["high"], curve["low"])
    )
    error = {"array": above, "arrayminus": below, "symmetric": False, "thickness": 1, "width": 3}
    return {**trace, "mode": "markers", "marker": {"color": colour, "size": 7}, "error_y": error}


CLAIM_NOTE = "Lines are theory, dots simulations with 95 % intervals over seeds."


def claims_page(figures: list[dict[str, Any]], notes: list[str]) -> str:
    """Claims, each with its picture and caption, as one self-contained page."""
    parts = [f"<p>{CLAIM_NOTE}</p>", *(f"<p>{escape(note)}.</p>" for note in notes)]
    for i, one in enumerate(figures):
        picture = pio.to_html(claim_figure(one), include_plotlyjs=i == 0, full_html=False)
        caption = "".join(f"<li>{escape(line)}</li>" for line in one["caption"])
        parts.append(
            f"<h2>{escape(one['claim'])}</h2><p><strong>{escape(one['verdict'])}</strong></p>{picture}<ul>{caption}</ul>"
        )
    return _page("Claims of the source paper", "".join(parts))


def claims_text(figures: list[dict[str, Any]], folder: str = "") -> str:
    """The same as Markdown, with pictures from ``folder``."""
    parts = []
    for one in figures:
        caption = "\n".join(f"* {line}" for line in one["caption"])
        picture = f"![{one['claim']}]({folder}{one['name']}.svg)"
        parts.append(f"## {one['name']}\n\n{one['claim']} **{one['verdict']}**\n\n{picture}\n\n{caption}\n")
    return "\n".join(parts)


def _page(title: str, body: str) -> str:
    style = "body{font:15px system-ui,sans-serif;color:#3b4252;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{style}</style>"
    return f"{head}<h1>{escape(title)}</h1>{body}</html>"
