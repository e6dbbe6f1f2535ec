"""Draws docs/policies/*.svg: what each policy does, gradient by gradient, on the same four workers.

Every picture is a run of the protocol's own server in virtual time (`stalewise.simulation.loop.VirtualCluster`): worker
A needs 1.0 s for a gradient, B 1.3 s, C 1.7 s and D 3.1 s. Run: python docs/timelines.py [folder]   (make timelines)
"""

import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from stalewise.protocol import (
    Again,
    Cancel,
    Drop,
    Expire,
    Instruction,
    Server,
    Start,
    Step,
    Train,
    Unsent,
    parse_weight,
)
from stalewise.simulation.loop import TRAINER, VirtualCluster
from stalewise.study import make_study

SECONDS = 9.0
NAMES = "ABCD"
DELAYS = (1.0, 1.3, 1.7, 3.1)
APPLIED, HELD, DROPPED, CANCELLED, UNSENT, FLYING = "applied", "held", "dropped", "cancelled", "unsent", "in flight"
STYLE = {  # colours of Okabe and Ito, and a hatch, so that either tells
    APPLIED: ("#56B4E9", ""),
    HELD: ("#009E73", "//"),
    DROPPED: ("#D55E00", "xx"),
    CANCELLED: ("#CC79A7", ".."),
    UNSENT: ("#F0E442", "--"),
    FLYING: ("#DDDDDD", ""),
}
BOX = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}
LABELS = {HELD: "held, applied by a later step"}

Scene = tuple[dict, dict]
SCENES: dict[str, Scene] = {
    "sync": ({"policy": "sync"}, {}),
    "k-sync": ({"policy": "k-sync", "group": 2}, {}),
    "k-batch-sync": ({"policy": "k-batch-sync", "group": 3}, {}),
    "k-async": ({"policy": "k-async", "group": 2}, {}),
    "k-batch-async": ({"policy": "k-batch-async", "group": 2}, {}),
    "async": ({"policy": "async"}, {}),
    "ssp": ({"policy": "ssp", "max_staleness": 1}, {}),
    "rennala": ({"policy": "rennala", "group": 2}, {}),
    "ringmaster": ({"policy": "ringmaster", "max_staleness": 3, "on_stale": "cancel"}, {}),
    "drop": ({"policy": "async", "max_staleness": 3, "on_stale": "drop"}, {}),
    "wait": ({"policy": "async", "max_staleness": 3, "on_stale": "wait"}, {}),
    "admit": ({"policy": "async", "max_staleness": 3, "on_stale": "admit"}, {}),
    "cancel": ({"policy": "async", "max_staleness": 3, "on_stale": "cancel"}, {}),
    "event-triggered": ({"policy": "event-triggered", "trigger": 1.0, "on_quiet": "refresh"}, {}),
    "event-triggered-keep": ({"policy": "event-triggered", "trigger": 1.0, "on_quiet": "keep"}, {}),
    "producer-consumer": (
        {"policy": "producer-consumer", "group": 2, "max_staleness": 1},
        {"service": "constant(0.8)"},
    ),
    "shared-link": ({"policy": "async"}, {"service": "constant(0.5)"}),
    "local-steps": ({"policy": "sync", "local_steps": 2}, {}),
}  # fmt: skip


@dataclass
class Bar:
    """One gradient: from reading the parameters to its arrival [s]; staleness when it was applied or dropped."""

    worker: int
    begin: float
    version: int
    end: float = SECONDS
    fate: str = FLYING
    staleness: int | None = None


@dataclass
class Timeline:
    """All gradients of a run, when the server stepped [s], and when a trainer was busy [s]."""

    server: Server
    bars: list[Bar] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    training: list[list[float]] = field(default_factory=list)

    def counts(self) -> Counter[str]:
        """Gradients by fate, as a server's tally has them: what is held counts as in flight until a step takes it."""
        return Counter({APPLIED: "applied", HELD: "applied"}.get(bar.fate, bar.fate) for bar in self.bars)


def record(scene: Scene, seconds: float = SECONDS) -> Timeline:
    """Drive the server of a scene until then."""
    schedule, cluster = scene
    groups = [{"count": 1, "compute": f"constant({delay})"} for delay in DELAYS]
    study = make_study(
        {
            "workload": {"eigenvalues": [1.0]},
            "cluster": {"group": groups, **cluster},
            "schedule": {"learning_rate": 0.1, **schedule},
            "target": {"loss": 0.1},
        }
    )
    computed: Counter[int] = Counter()

    def norm(worker: int) -> float:
        """Every second gradient of a worker is small."""
        computed[worker] += 1
        return 2.0 if computed[worker] % 2 else 0.5

    server = study.server()
    world = VirtualCluster(study, server, np.random.default_rng(0), norm)
    line = Timeline(server)
    at_work: dict[int, Bar] = {}
    arrived: dict[int, deque[Bar]] = defaultdict(deque)
    _follow(line, 0.0, world.first, at_work, arrived)
    while world.next_time <= seconds:
        now, worker, instructions = next(world)
        if worker == TRAINER:
            line.training[-1][1] = now
        else:
            bar = at_work.pop(worker)
            bar.end = now
            arrived[worker].append(bar)
        _follow(line, now, instructions, at_work, arrived)
    return line


def _follow(
    line: Timeline, now: float, instructions: Iterable[Instruction], at_work: dict[int, Bar],
    arrived: dict[int, deque[Bar]],
) -> None:  # fmt: skip
    for instruction in instructions:
        match instruction:
            case Start(worker=worker, version=version):
                at_work[worker] = Bar(worker, now, version)
                line.bars.append(at_work[worker])
            case Again(worker=worker):
                at_work[worker] = Bar(worker, now, _last(line, worker).version)
                line.bars.append(at_work[worker])
            case Step(gradients=gradients):
                line.steps.append(now)
                for one in gradients:
                    bar = arrived[one.worker].popleft()
                    bar.fate, bar.staleness = (APPLIED if bar.end == now else HELD), one.staleness
            case Drop(worker=worker, staleness=staleness):
                bar = arrived[worker].pop()
                bar.fate, bar.staleness = DROPPED, staleness
            case Expire(worker=worker, staleness=staleness):
                bar = arrived[worker].popleft()
                bar.fate, bar.staleness = DROPPED, staleness
            case Unsent(worker=worker):
                arrived[worker].pop().fate = UNSENT
            case Cancel(worker=worker):
                bar = at_work.pop(worker)
                bar.end, bar.fate = now, CANCELLED
            case Train():
                line.training.append([now, SECONDS])


def _last(line: Timeline, worker: int) -> Bar:
    return next(bar for bar in reversed(line.bars) if bar.worker == worker)


def draw(line: Timeline) -> Figure:
    """A row a worker, and the server's steps below."""
    figure = Figure(figsize=(9.0, 2.7), layout="constrained")
    axes = figure.add_subplot()
    for bar in line.bars:
        colour, hatch = STYLE[bar.fate]
        width = max(bar.end - bar.begin, 0.02)
        axes.barh(-bar.worker, width, left=bar.begin, height=0.72, color=colour, hatch=hatch, edgecolor="black", lw=0.6)
        text = {"fontsize": 7, "va": "center", "bbox": BOX}
        if width > 0.35:
            axes.text(bar.begin + 0.05, -bar.worker, f"v{bar.version}", **text)
        if bar.staleness is not None and width > 0.8:
            axes.text(bar.end - 0.06, -bar.worker, f"{bar.staleness}", weight="bold", ha="right", **text)
    rows, labels = [-row for row in range(4)], [f"worker {name}" for name in NAMES]
    if line.server.rules.trains:
        rows, labels = [*rows, -4], [*labels, "trainer"]
        for begin, end in line.training:
            axes.barh(-4, end - begin, left=begin, height=0.5, color="#999999", edgecolor="black", lw=0.6)
    rows, labels = [*rows, min(rows) - 1], [*labels, "server"]
    last = -1.0
    for version, time in enumerate(line.steps, 1):
        axes.plot([time, time], [rows[-1] - 0.1, rows[-1] + 0.3], color="black", lw=1.2)
        axes.axvline(time, color="black", lw=0.4, alpha=0.25, zorder=0)
        if time - last > 0.22:
            axes.text(time, rows[-1] - 0.16, f"v{version}", fontsize=7, ha="center", va="top")
            last = time
    axes.set(xlim=(0, SECONDS), ylim=(rows[-1] - 0.7, 0.5), yticks=rows, yticklabels=labels, xlabel="time [s]")
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_size(8)
    axes.spines[["top", "right"]].set_visible(False)
    shown = [fate for fate in STYLE if any(bar.fate == fate for bar in line.bars)]
    patches = [Patch(facecolor=STYLE[f][0], hatch=STYLE[f][1], edgecolor="black", lw=0.6) for f in shown]
    names = [LABELS.get(fate, fate) for fate in shown]
    figure.legend(patches, names, loc="outside upper right", ncols=len(shown), fontsize=8, frameon=False)
    return figure


def draw_weights() -> Figure:
    """Weights against staleness."""
    figure = Figure(figsize=(6.0, 2.7), layout="constrained")
    axes = figure.add_subplot()
    staleness = np.arange(0, 21)
    texts = ("constant", "inverse", "polynomial(0.5)", "hinge(0.5, 4)", "delay-adaptive(6)")
    for text, marker in zip(texts, "os^Dv", strict=True):
        axes.plot(staleness, parse_weight(text).of(staleness), marker=marker, ms=3.5, lw=1, label=text)
    axes.set(xlabel="staleness [updates]", ylabel="weight", ylim=(0, 1.05), xlim=(0, 20))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure


def main(folder: Path) -> None:
    """Write every picture, the same bytes each time."""
    mpl.rcParams.update({"svg.hashsalt": "stalewise", "svg.fonttype": "none"})
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {name: draw(record(scene)) for name, scene in SCENES.items()}
    for name, figure in {**pictures, "weights": draw_weights()}.items():
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "policies")
