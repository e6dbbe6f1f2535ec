"""A trajectory: what every engine returns. JSON in and out, strictly valid, null for what does not exist."""

import itertools
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from stalewise.errors import InputError
from stalewise.protocol import Tally
from stalewise.study import Study, make_study


def finite(value: float | None) -> float | None:
    """``value`` as a plain float, or None where it does not exist as a number."""
    return None if value is None or not math.isfinite(value) else float(value)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StalenessSummary(_Part):
    """Versions that went by between reading the parameters and applying the gradient, over applied gradients."""

    mean: float | None
    variance: float | None
    p50: int | None
    p99: int | None
    max: int | None
    pmf: list[float]

    @classmethod
    def from_counts(cls, counts: np.ndarray) -> "StalenessSummary":
        """Summarise ``counts[k]``, how often (or how probably) staleness k was seen; shape (length,)."""
        counts = np.trim_zeros(np.asarray(counts, float), "b")
        total = counts.sum()
        if not total > 0:
            return cls(mean=None, variance=None, p50=None, p99=None, max=None, pmf=[])
        pmf = counts / total
        values = np.arange(len(pmf))
        mean = float(pmf @ values)
        cumulative = np.cumsum(counts[: len(pmf)])
        return cls(
            mean=mean,
            variance=float(pmf @ (values - mean) ** 2),
            p50=int(np.searchsorted(cumulative, 0.5 * total * (1 - 1e-12))),
            p99=int(np.searchsorted(cumulative, 0.99 * total * (1 - 1e-12))),
            max=len(pmf) - 1,
            pmf=[float(p) for p in pmf],
        )


class DelaySummary(_Part):
    """Age [s] of the parameters behind an applied gradient."""

    mean: float | None
    cv: float | None

    @classmethod
    def from_moments(cls, count: float, total: float, squares: float) -> "DelaySummary":
        """From the number of ages, their sum and the sum of their squares."""
        if not count:
            return cls(mean=None, cv=None)
        mean = total / count
        return cls(mean=mean, cv=math.sqrt(max(squares / count - mean * mean, 0.0)) / mean if mean > 0 else None)


class Gradients(_Part):
    """What became of every gradient; ``computed`` is the sum of the others. Expected numbers need not be whole."""

    computed: float
    applied: float
    dropped: float = 0
    cancelled: float = 0
    unsent: float = 0
    lost: float = 0
    in_flight: float = 0

    @classmethod
    def expected(cls, applied: float, acceptance: float, in_flight: int) -> "Gradients":
        """Of a prediction: a share ``acceptance`` of those that arrive is applied, the rest dropped."""
        dropped = applied * (1.0 / acceptance - 1.0)
        return cls(computed=applied + dropped + in_flight, applied=applied, dropped=dropped, in_flight=in_flight)

    @classmethod
    def from_tally(cls, tally: Tally) -> "Gradients":
        """From a server's own count."""
        return cls(computed=tally.computed, **{name: getattr(tally, name) for name in Tally.__dataclass_fields__})


class TargetTime(_Part):
    """Settling time [s] of the mean loss: after it the loss stays below the target. Null if never."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None


class Trajectory(_Part):
    """What happened, or will: time, updates, loss, staleness, delays, what was dropped, why it ended."""

    engine: Literal["predict", "simulate", "train"]
    study: dict[str, Any]
    seed: int | None = None
    time: list[float]
    updates: list[float]
    loss: list[float]
    loss_low: list[float] | None = None
    loss_high: list[float] | None = None
    update_rate: float | None
    staleness: StalenessSummary
    delay: DelaySummary
    gradients: Gradients
    mean_stable: bool | None = None
    mean_square_stable: bool | None = None
    decay_rate: float | None = None
    noise_floor: float | None = None
    time_to_target: TargetTime = TargetTime()
    status: str
    notes: list[str] = []

    @field_validator("time")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if not value or not all(math.isfinite(t) for t in value):
            raise ValueError("time must have one finite value or more")
        if any(later < earlier for earlier, later in itertools.pairwise(value)):
            raise ValueError("time must not fall")
        return value

    @field_validator("updates", "loss", "loss_low", "loss_high")
    @classmethod
    def _same_length(cls, value: list[float] | None, info) -> list[float] | None:
        if value is not None and len(value) != len(info.data.get("time", value)):
            raise ValueError(f"{info.field_name} must have as many values as time")
        return value

    @property
    def diverges(self) -> bool:
        """Whether the answer is "this diverges"."""
        return self.mean_stable is False or self.mean_square_stable is False

    def with_note(self, note: str | None) -> "Trajectory":
        """The same with one more note; unchanged for None."""
        return self if note is None else self.model_copy(update={"notes": [*self.notes, note]})

    def as_study(self, folder: str | Path = ".") -> Study:
        """The study this answers."""
        return make_study(self.study, folder=folder)

    def to_json(self) -> str:
        """One strictly valid JSON document."""
        return to_json(self.model_dump())


def settling_time(time: ArrayLike, loss: ArrayLike, target: float) -> float | None:
    """Last time at which the loss comes down through ``target`` to stay below it [s].

    Args:
        time: Rising times [s], shape (points,).
        loss: Loss at those times, shape (points,).
        target: The loss to stay below, above zero.

    Returns:
        The crossing, interpolated linearly in the logarithm of the loss; ``time[0]`` if the loss is never above; None
        if the loss ends above the target.
    """
    time, loss = np.asarray(time, float), np.asarray(loss, float)
    above = np.flatnonzero(~(loss <= target))
    if len(above) == 0:
        return float(time[0])
    last = int(above[-1])
    if last == len(loss) - 1:
        return None
    high, low = loss[last], max(loss[last + 1], 1e-300)
    share = math.log(high / target) / math.log(high / low) if math.isfinite(high) else 1.0
    return float(time[last] + share * (time[last + 1] - time[last]))


def load_trajectory(path: str | Path) -> Trajectory:
    """Read a trajectory from a JSON file.

    Args:
        path: What `predict`, `simulate` or `train` wrote.

    Raises:
        InputError: The file is missing or is not a trajectory.
    """
    path = Path(path)
    return _trajectory(load_json(path, "trajectory file"), path.name)


def parse_trajectory(text: str, *, source: str = "trajectory") -> Trajectory:
    """Read a trajectory from JSON text. See `load_trajectory`."""
    return _trajectory(_parse_json(text, "trajectory", source), source)


def _trajectory(data: Any, source: str) -> Trajectory:
    try:
        return Trajectory.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        raise InputError(f"trajectory file: {source}: {place}: {first['msg'].lower()}") from None


def load_json(path: str | Path, what: str) -> Any:
    """Read a JSON file; ``what`` names it in the error."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{what}: {str(path)!r} does not exist") from None
    except UnicodeDecodeError:
        raise InputError(f"{what}: {path.name} is not JSON: it is not text") from None
    except OSError as error:
        raise InputError(f"{what}: cannot read {str(path)!r}: {error.strerror}") from None
    return _parse_json(text, what, path.name)


def _parse_json(text: str, what: str, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: {source} is not JSON: {error}") from None


def to_json(value: Any) -> str:
    """Plain values as strictly valid JSON: numbers that are not finite become null."""
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=False)


def write_atomically(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
