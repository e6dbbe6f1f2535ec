"""Staleness as other systems log it, in optimiser updates."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stalewise import checks
from stalewise.errors import InputError
from stalewise.traces.files import open_table, readable
from stalewise.traces.table import listed
from stalewise.traces.units import samples_to_updates, versions_to_updates


@dataclass(frozen=True)
class StalenessMetrics:
    """Staleness of applied gradients as a log of metrics tells it; None where it does not.

    Attributes:
        source: The log.
        system: Whose metrics they are.
        steps: Lines that had any of them.
        mean: Mean over those lines, each counted once [updates].
        min: Smallest [updates].
        max: Largest [updates].
        in_flight: Share of the mean that went by while the data were made [updates].
        in_queue: Share of the mean that went by while they waited [updates].
        dropped: Data dropped as too stale, all lines together, in the system's own pieces.
        notes: What the numbers mean and what was assumed, one sentence each.
    """

    source: str
    system: str
    steps: int
    mean: float | None
    min: float | None
    max: float | None
    in_flight: float | None
    in_queue: float | None
    dropped: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _System:
    """What a system's metrics mean: the names of each number, the first that is logged counts."""

    note: str
    names: dict[str, tuple[str, ...]]
    samples: bool = False


def _stem(*stems: str, mean: str = "mean") -> dict[str, tuple[str, ...]]:
    ends = {"mean": mean, "min": "min", "max": "max"}
    return {number: tuple(f"{stem}{end}" for stem in stems) for number, end in ends.items()}


_SYSTEMS = {
    "AReaL": _System(
        "AReaL: version in training less the version that made a token, over tokens",
        _stem("version_stats/sample_staleness_theta_", mean="avg"),
    ),
    "prime-rl": _System(
        "prime-rl: version in training less the oldest that made an episode, over episodes",
        {
            "mean": ("off_policy/mean",),
            "max": ("off_policy/max",),
            "in_flight": ("off_policy/in_flight/mean",),
            "in_queue": ("off_policy/in_queue/mean",),
            "dropped": ("off_policy/dropped",),
        },
    ),
    "SkyRL": _System(
        "SkyRL: step of training less the step at which a group was scheduled, over groups", _stem("async/staleness_")
    ),
    "verl": _System(
        "verl: version in training less the oldest that made a trajectory, over trajectories",
        _stem("off_policy/trajectory_staleness_worst/", "off_policy/trajectory_staleness/"),
    ),
    "PipelineRL": _System(
        "PipelineRL: samples at the last broadcast less those at the oldest version used since the last line",
        {"max": ("stats/lag",)},
        samples=True,
    ),
}
_PLACE = {"mean": 0.5, "min": 0.0, "max": 1.0, "in_flight": 0.0, "in_queue": 0.0}
_NEWEST = "off_policy/trajectory_staleness/"


def read_metrics(
    path: str | Path,
    *,
    system: str | None = None,
    updates_per_version: float = 1.0,
    samples_per_update: float | None = None,
) -> StalenessMetrics:
    """Read the staleness that another system logged, as CSV or JSON Lines with one line a step.

    Known are the metrics below, also under a prefix (`actor/version_stats/...`, `run - off_policy/mean`); in JSON
    Lines nested objects count as `outer/inner`. Lines without them are passed over.

    ========== ============================================ ==================================================
    system     metrics                                      meaning
    ========== ============================================ ==================================================
    AReaL      version_stats/sample_staleness_theta_*       version in training - version that made the token
    prime-rl   off_policy/{mean,max}, /{in_flight,in_queue} (step - 1) - oldest version that made the episode
    SkyRL      async/staleness_{mean,max,min}               step - step at which the group was scheduled
    verl       off_policy/trajectory_staleness[_worst]/*    (step - 1) - oldest (_worst) or newest version of it
    PipelineRL stats/lag                                    samples at last broadcast - samples at oldest version
    ========== ============================================ ==================================================

    Args:
        path: The log.
        system: Whose metrics to read where it has those of several; one of the names above.
        updates_per_version: Optimiser updates (mini-batches) of one step, for systems that count versions.
        samples_per_update: Samples of one optimiser update, for systems that count samples.

    Returns:
        Staleness in updates; `StalenessMetrics.notes` says what was assumed.

    Raises:
        InputError: The file cannot be read, has no metric known here or those of several systems, or a value is
            negative or no number.

    Limits:
        Means are over steps, each counted once; quantiles are not in these logs. verl's fully asynchronous trainer
        logs counts only (`fully_async/count/*`): use `batch_fraction_to_updates` on its threshold.

    Source:
        The systems' own code: AReaL cbff54d areal/trainer/ppo/actor.py, prime-rl 559b447 orchestrator/utils.py, SkyRL
        a956457 train/fully_async_trainer.py, verl 1dda039 trainer/ppo/v1/trainer_base.py, PipelineRL 58d3934
        finetune_loop.py.
    """
    path = Path(path)
    if system is not None:
        checks.one_of("system", system, _SYSTEMS)
    with readable(path, "metrics file"):
        table = open_table(path, {})
        name, columns = _recognised(table.source, table.header, system)
        values = table.read((), (), tuple(dict.fromkeys(columns.values()))).numbers
    numbers = {number: values[column] for number, column in columns.items()}
    for number, column in columns.items():
        wrong = ~np.isnan(numbers[number]) & ~(np.isfinite(numbers[number]) & (numbers[number] >= 0))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise table.wrong(column, table.cell(row, column), row, "zero or more")
    told = ~np.logical_and.reduce([np.isnan(v) for number, v in numbers.items() if number != "dropped"])
    if not told.any():
        raise InputError(f"{table.source}: {name} metrics are named in it, but no line has a value")
    convert = _converter(table.source, _SYSTEMS[name], updates_per_version, samples_per_update)
    found = {number: _over(number, v[told]) for number, v in numbers.items()}
    found = {n: v if v is None or n == "dropped" else convert(v, _PLACE[n]) for n, v in found.items()}
    return StalenessMetrics(
        source=table.source,
        system=name,
        steps=int(told.sum()),
        **{number: found.get(number) for number in (*_PLACE, "dropped")},
        notes=_notes(_SYSTEMS[name], columns, updates_per_version),
    )


def _recognised(source: str, header: list[str], system: str | None) -> tuple[str, dict[str, str]]:
    """The system, and the column of each number."""
    found = {}
    for name, meaning in _SYSTEMS.items():
        columns = {}
        for number, choices in meaning.names.items():
            column = next((c for c in (_column(source, header, metric) for metric in choices) if c), None)
            if column:
                columns[number] = column
        if columns.keys() - {"dropped"}:
            found[name] = columns
    if system is not None:
        found = {name: columns for name, columns in found.items() if name == system}
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        raise InputError(f"{source}: metrics of {', '.join(found)}; say which with system=")
    known = ", ".join(next(iter(meaning.names.values()))[0] for meaning in _SYSTEMS.values())
    raise InputError(
        f"{source}: no staleness metric{f' of {system}' if system else ''} among {listed(header)}; known: {known}"
    )


def _column(source: str, header: list[str], metric: str) -> str | None:
    """The column of a metric: its own name, or the one that ends in it; a dispatcher's gauges are no applied data."""
    if metric in header:
        return metric
    ends = [name for name in header if name.endswith((f"/{metric}", f" - {metric}")) and "dispatcher/" not in name]
    if len(ends) > 1:
        raise InputError(f"{source}: {metric} stands in several columns, {listed(ends)}; leave one of them in the file")
    return ends[0] if ends else None


def _converter(
    source: str, system: _System, updates_per_version: float, samples_per_update: float | None
) -> Callable[[float, float], float]:
    if not system.samples:
        return lambda value, place: versions_to_updates(value, updates_per_version, place=place)
    if samples_per_update is None:
        raise InputError(f"{source}: its staleness is in samples; say how many make an update with samples_per_update=")
    return lambda value, place: samples_to_updates(value, samples_per_update)  # noqa: ARG005


def _over(number: str, values: NDArray[np.float64]) -> float | None:
    """One number of all steps."""
    values = values[~np.isnan(values)]
    over = {"min": np.min, "max": np.max, "dropped": np.sum}.get(number, np.mean)
    return float(over(values)) if len(values) else None


def _notes(system: _System, columns: dict[str, str], updates_per_version: float) -> tuple[str, ...]:
    notes = [system.note, "means are over steps, each counted once"]
    if any(_NEWEST in column for column in columns.values()):
        notes[0] = "verl: version in training less the newest that made a trajectory: a lower bound of staleness"
    if not system.samples:
        updates = f"{updates_per_version:g} update{'s' if updates_per_version != 1 else ''}"
        notes.append(f"a version is taken to be {updates} (updates_per_version)")
    return tuple(notes)
