"""A sweep: one study under every combination of some fields' values, each answered by one engine, in a table."""

import csv
import io
import itertools
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stalewise import checks
from stalewise.errors import InputError
from stalewise.hands import Call, Hands, identity
from stalewise.planning.objectives import traffic_of
from stalewise.planning.search import size_of
from stalewise.planning.shortlist import ROUGH
from stalewise.prediction import predict
from stalewise.protocol.rules import WAIT
from stalewise.simulation import simulate
from stalewise.staleness import arrivals
from stalewise.study import Study
from stalewise.trajectory import Trajectory

Engine = Literal["predict", "simulate"]
MOST = 10_000  # combinations
SECTIONS = ("workload", "cluster", "schedule", "target")
COLUMNS = ("time_to_target", "low", "high", "cost", "traffic", "staleness", "update_rate", "status")


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
        axes: Fields and their values.
        engine: That answered.
        rows: Of every combination {values, time_to_target [s], low, high (its 95 % interval), cost [worker-seconds],
            traffic [bytes], staleness (mean, in updates), update_rate [1/s], status}; of one that has no meaning the
            status says why and the rest is None.
    """

    axes: dict[str, list[Any]]
    engine: str
    rows: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any] | None:
        """The row that is first at the target; None where none gets there."""
        there = [row for row in self.rows if row["time_to_target"] is not None]
        return min(there, key=lambda row: row["time_to_target"], default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"axes": self.axes, "engine": self.engine, "rows": self.rows, "best": self.best}

    def to_csv(self) -> str:
        """A table with a column for every axis."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*self.axes, *COLUMNS])
        for row in self.rows:
            writer.writerow([*(row["values"][name] for name in self.axes), *(row[name] for name in COLUMNS)])
        return text.getvalue()


def sweep(
    study: Study, axes: Mapping[str, Sequence[Any]], *, engine: Engine = "simulate", seeds: int | None = None,
    seed: int = 0, hands: Hands | None = None, progress: Callable[[float, str], None] | None = None,
) -> Sweep:  # fmt: skip
    """Answer a study under every combination of values.

    Args:
        study: What stays the same.
        axes: Values of each field, named ``section.field``; the first field changes slowest.
        engine: ``simulate``, with common random numbers, or ``predict``.
        seeds: Repetitions, of ``simulate``; its own number unless given.
        seed: Root of all random numbers.
        hands: That do the work, see `stalewise.hands`; this process unless given.
        progress: Called with the fraction done and a message.

    Raises:
        InputError: A field is unknown, there are more than 10,000 combinations, or none has a meaning.
    """
    checks.at_least("seed", seed, 0)
    checks.one_of("engine", engine, ("predict", "simulate"))
    if seeds is not None:
        checks.at_least("seeds", seeds, 1)
    many = math.prod(len(values) for values in axes.values())
    if not axes or not 1 <= many <= MOST:
        raise InputError(f"--vary: a sweep needs 1 to {MOST:,} combinations, got {many if axes else 0:,}")
    studies: list[Study | InputError] = []
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    for values in combinations:
        try:
            studies.append(_with(study, values))
        except InputError as error:
            studies.append(error)
    if all(isinstance(one, InputError) for one in studies):
        raise InputError(f"no combination has a meaning; the first: {studies[0]}")
    calls = [_call(one, values, engine, seeds, seed) for one, values in zip(studies, combinations, strict=True)]

    def done(ready: int) -> None:
        if progress is not None:
            progress(ready / len(calls), f"{ready} of {len(calls)} combinations")

    answers = iter((hands or Hands()).each([call for call in calls if call is not None], done))
    rows = []
    for one, values, call in zip(studies, combinations, calls, strict=True):
        if call is None:
            rows.append({"values": values, **dict.fromkeys(COLUMNS), "status": f"no meaning: {one}"})
        else:
            rows.append({"values": values, **next(answers)})
    return Sweep({name: list(values) for name, values in axes.items()}, engine, rows)


def parse_axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Fields and their values, see `parse_axis`; each field once."""
    axes: dict[str, list[Any]] = {}
    for name, values in map(parse_axis, texts):
        if name in axes:
            raise InputError(f"--vary: {name} is given twice; put all of its values into one list")
        axes[name] = values
    return axes


def parse_axis(text: str) -> tuple[str, list[Any]]:
    """A field and its values from ``section.field=[0.1, 0.2]`` or ``section.field=geom(0.01, 1, 5)``."""
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals or name.partition(".")[0] not in SECTIONS or not name.partition(".")[2]:
        raise InputError(
            f"--vary: write section.field=[values], for example schedule.learning_rate=[0.01, 0.1], got {text!r}"
        )
    if values.startswith("geom("):
        return name, _geometric(name, values)
    found = _toml(values)
    if not isinstance(found, list) or not found:
        raise InputError(f"--vary: {name} needs a list of values, such as [1, 2, 4], got {values!r}")
    return name, found


def _geometric(name: str, text: str) -> list[float]:
    """Values at equal ratios from ``geom(first, last, how many)``."""
    found = _toml(f"[{text.removeprefix('geom(').removesuffix(')')}]")
    if isinstance(found, list) and len(found) == 3 and all(isinstance(one, int | float) for one in found):
        first, last, many = found
        if first > 0 and last > 0 and 2 <= many <= MOST and many == int(many):
            return [float(f"{one:.4g}") for one in np.geomspace(first, last, int(many))]
    raise InputError(f"--vary: {name}: geom takes two positive ends and a number of values, got {text!r}")


def _toml(text: str) -> Any:
    """A value; None where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None


def _with(study: Study, values: Mapping[str, Any]) -> Study:
    one = study.with_fields(values)
    _ = one.policy, one.learning_rate  # whatever is missing is told before anything runs
    return one


def _call(one: Study | InputError, values: Mapping[str, Any], engine: str, seeds: int | None, seed: int) -> Call | None:
    if isinstance(one, InputError):
        return None
    key = {"sweep": identity(one), "engine": engine, "seeds": seeds, "seed": seed}
    return Call(str(values), answered, (one, engine, seeds, seed), key)


def answered(study: Study, engine: str, seeds: int | None, seed: int) -> dict[str, Any]:
    """One row without its values."""
    try:
        told = predict(study, seed=seed) if engine == "predict" else simulate(study, seeds=seeds, seed=seed)
    except InputError as error:
        return {**dict.fromkeys(COLUMNS), "status": f"no answer: {error}"}
    reached = told.time_to_target
    time = None if told.diverges else reached.mean
    return {
        "time_to_target": time, "low": reached.low, "high": reached.high,
        "cost": None if time is None else study.active_workers * time,
        "traffic": None if time is None else traffic_of(_rate(told, study), size_of(study), time),
        "staleness": told.staleness.mean, "update_rate": told.update_rate, "status": told.status,
    }  # fmt: skip


def _rate(told: Trajectory, study: Study) -> float:
    """Gradients computed a second."""
    share, rules = told.gradients.computed / max(told.gradients.applied, 1), study.rules()
    counted = rules.on_stale == WAIT and rules.max_staleness is not None and rules.trigger == 0
    a_step = arrivals(study, share=ROUGH).gradients_a_step if counted else rules.group
    return (told.update_rate or 0.0) * a_step * share
