"""Claims as SVG files, by matplotlib, which is an extra; the same bytes each time."""

import io
import math
from typing import Any

from stalewise.errors import MissingExtraError
from stalewise.report.figures import CLAIM_NOTE, GREY, PALETTE

INK = "#3b4252"


def claim_svg(figure: dict[str, Any]) -> str:
    """One claim's panels side by side, as SVG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415  (an extra)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "svg") from None
    style: Any = {
        "svg.hashsalt": "stalewise", "svg.fonttype": "none", "axes.edgecolor": INK, "axes.labelcolor": INK,
        "xtick.color": INK, "ytick.color": INK, "text.color": INK, "axes.spines.top": False,
        "axes.spines.right": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        panels = figure["panels"]
        drawn = Figure(figsize=(9.6 if len(panels) > 1 else 6.4, 4.4), layout="constrained")
        for axes, panel in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _panel(axes, panel)
        drawn.supxlabel(CLAIM_NOTE, fontsize=8, color=GREY)
        file = io.StringIO()
        drawn.savefig(file, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _panel(axes: Any, panel: dict[str, Any]) -> None:
    for curve in panel["curves"]:
        _curve(axes, curve)
    for name, set_scale, axis in (("x", axes.set_xscale, axes.xaxis), ("y", axes.set_yscale, axes.yaxis)):
        if panel[name]["log"]:
            set_scale("log")
            _ticks(axes, axis, name)
    axes.set(xlabel=_titled(panel["x"]), ylabel=_titled(panel["y"]))
    for mark in panel["marks"]:
        _mark(axes, mark)
    axes.set_title(panel["title"], fontsize=10, pad=8)
    axes.grid(alpha=0.25)
    named = sum(bool(one["name"]) for one in panel["curves"])
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2 if named > 1 else 1)


def _ticks(axes: Any, axis: Any, name: str) -> None:
    """Plain numbers on an axis of less than three decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415  (an extra)

    low, high = axes.get_xlim() if name == "x" else axes.get_ylim()
    if math.log10(high / low) < 3.0:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _curve(axes: Any, curve: dict[str, Any]) -> None:
    colour = PALETTE[curve["colour"] % len(PALETTE)]
    y = [math.nan if one is None else one for one in curve["y"]]
    label = curve["name"] or "_"
    if curve["drawn"] != "simulated":
        axes.plot(curve["x"], y, color=colour, lw=1.6, ls="-" if curve["drawn"] == "theory" else "--", label=label)
        return
    ends = [
        [0.0 if end is None or one is None else abs(end - one) for end, one in zip(side, curve["y"], strict=True)]
        for side in (curve["low"], curve["high"])
    ]
    axes.errorbar(curve["x"], y, yerr=ends, fmt="o", ms=4, color=colour, lw=1, capsize=2, label=label)


def _mark(axes: Any, mark: dict[str, Any]) -> None:
    along = axes.axvline if mark["axis"] == "x" else axes.axhline
    along(mark["value"], color=GREY, ls=":", lw=1)
    x, y, how = (mark["value"], 0.98, "get_xaxis_transform") if mark["axis"] == "x" else (
        0.99, mark["value"], "get_yaxis_transform")  # fmt: skip
    axes.text(
        x, y, f" {mark['text']} ", transform=getattr(axes, how)(), fontsize=8, color=GREY, va="top",
        ha="right",
    )  # fmt: skip


def _titled(axis: dict[str, Any]) -> str:
    return f"{axis['name']} [{axis['unit']}]" if axis["unit"] else axis["name"]
