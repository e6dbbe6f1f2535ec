"""Trajectories side by side: what a prediction, a simulation and a real run say of the same study."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stalewise.errors import InputError
from stalewise.trajectory import Trajectory


@dataclass(frozen=True)
class Comparison:
    """One row a quantity, one column a trajectory; ratios are to the first."""

    names: list[str]
    rows: list[dict[str, Any]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values: ``names``, ``rows`` of {quantity, unit, values, ratios}, ``notes``."""
        return {"names": self.names, "rows": self.rows, "notes": self.notes}

    def lines(self) -> list[str]:
        """The table as text."""
        width = max(12, *(len(name) + 2 for name in self.names))
        head = f"{'quantity':<28}" + "".join(f"{name:>{width}}" for name in self.names)
        body = []
        for row in self.rows:
            label = f"{row['quantity']} [{row['unit']}]" if row["unit"] else row["quantity"]
            cells = "".join(f"{'-' if v is None else f'{v:.4g}':>{width}}" for v in row["values"])
            ratios = "  ".join("" if r is None else f"x{r:.3f}" for r in row["ratios"][1:])
            body.append(f"{label:<28}{cells}   {ratios}".rstrip())
        return [head, *body, *(["", *(f"note: {note}" for note in self.notes)] if self.notes else [])]


def compare(trajectories: Sequence[Trajectory], names: Sequence[str] | None = None) -> Comparison:
    """Set trajectories side by side.

    Args:
        trajectories: Two or more.
        names: One each; the engines unless given.

    Returns:
        Rates, staleness, times to target, and the loss at common times.
    """
    if len(trajectories) < 2:
        raise InputError(f"compare needs two or more trajectories, got {len(trajectories)}")
    labels = list(names or [t.engine for t in trajectories])
    rows = [
        _row("time to target", "s", [t.time_to_target.mean for t in trajectories]),
        _row("its interval, low", "s", [t.time_to_target.low for t in trajectories]),
        _row("its interval, high", "s", [t.time_to_target.high for t in trajectories]),
        _row("update rate", "1/s", [t.update_rate for t in trajectories]),
        _row("staleness, mean", "updates", [t.staleness.mean for t in trajectories]),
        _row("staleness, variance", "", [t.staleness.variance for t in trajectories]),
        _row("staleness, 99th percentile", "updates", [t.staleness.p99 for t in trajectories]),
        _row("age of gradients, mean", "s", [t.delay.mean for t in trajectories]),
        _row("age of gradients, cv", "", [t.delay.cv for t in trajectories]),
        _row("noise floor", "", [t.noise_floor for t in trajectories]),
    ]
    end = min(t.time[-1] for t in trajectories)
    for share in (0.25, 0.5, 1.0):
        at = share * end
        rows.append(_row(f"loss at {at:.4g} s", "", [float(np.interp(at, t.time, t.loss)) for t in trajectories]))
    return Comparison(labels, rows, differences(trajectories, labels))


def differences(trajectories: Sequence[Trajectory], names: Sequence[str]) -> list[str]:
    """Where the studies behind trajectories are not the first one's, a sentence each."""
    notes = []
    for name, other in zip(names[1:], trajectories[1:], strict=True):
        first, second = _fields(trajectories[0].study), _fields(other.study)
        changed = [key for key in {**first, **second} if first.get(key) != second.get(key)]
        if changed:
            shown = "; ".join(f"{key} {_short(first.get(key))} and {_short(second.get(key))}" for key in changed[:3])
            notes.append(f"{names[0]} and {name} answer different studies: {shown}")
    return notes


def _fields(study: dict[str, Any]) -> dict[str, Any]:
    sections = {key: value for key, value in study.items() if isinstance(value, dict)}
    return {f"{section}.{key}": value for section, fields in sections.items() for key, value in fields.items()}


def _short(value: Any) -> str:
    text = "not given" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _row(quantity: str, unit: str, values: list[float | None]) -> dict[str, Any]:
    first = values[0]
    ratios = [None if v is None or not first else v / first for v in values]
    return {"quantity": quantity, "unit": unit, "values": values, "ratios": ratios}
