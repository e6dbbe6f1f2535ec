"""A trace: what a cluster was measured to do, one row a gradient."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError

MOST_VERSION = 2.0**53  # whole numbers beyond it are not told apart
COLUMNS = ("worker", "start", "end", "pulled_version", "applied_version", "compute", "download", "upload", "grad_norm")


@dataclass(frozen=True)
class Trace:
    """Gradients of a fleet of workers, in the order in which they ended.

    Attributes:
        worker: Label of the worker, shape (n,), strings.
        start: When it began to read its parameters [s], shape (n,).
        end: When its gradient reached the server [s], shape (n,).
        optional: Further columns by name (`COLUMNS`), each of shape (n,), NaN where unknown.
        notes: What a reader assumed or repaired, one sentence each.
        source: Where it came from.
    """

    worker: NDArray[np.str_]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    optional: dict[str, NDArray[np.float64]]
    notes: tuple[str, ...] = ()
    source: str = "trace"

    def __post_init__(self) -> None:
        if len(self.worker) == 0:
            raise InputError(f"{self.source}: no gradient in it; a trace needs at least one row")
        for name, values in (("start", self.start), ("end", self.end)):
            if len(values) != len(self.worker):
                raise InputError(f"{self.source}: {name} has {len(values)} values for {len(self.worker)} gradients")
            bad = ~np.isfinite(values)
            if bad.any():
                self._refuse(name, values, int(np.argmax(bad)), "a finite number of seconds")
        wrong = self.end <= self.start
        if wrong.any():
            row = int(np.argmax(wrong))
            self._refuse("end", self.end, row, f"later than its start, {self.start[row]:g} s")
        for name in ("pulled_version", "applied_version"):
            versions = self.optional.get(name, np.zeros(0))
            with np.errstate(invalid="ignore"):
                wrong = ~np.isnan(versions) & ~((versions >= 0) & (versions < MOST_VERSION) & (versions % 1.0 == 0))
            if wrong.any():
                self._refuse(name, versions, int(np.argmax(wrong)), "a whole number, 0 or more")
        ages = self._ages
        if ages is not None and (ages < 0).any():
            row = int(np.argmax(ages < 0))
            pulled = f"its pulled_version, {self.optional['pulled_version'][row]:g}"
            self._refuse("applied_version", self.optional["applied_version"], row, f"at least {pulled}")

    def _refuse(self, name: str, values: NDArray[np.float64], row: int, allowed: str) -> None:
        raise InputError(f"{self.source}: {name} must be {allowed}, got {values[row]:g} in data row {row + 1}")

    def __len__(self) -> int:
        return len(self.worker)

    @property
    def durations(self) -> NDArray[np.float64]:
        """How long each gradient took [s], shape (n,)."""
        return self.end - self.start

    @property
    def staleness(self) -> NDArray[np.int64] | None:
        """Versions that went by between reading and applying, of the rows that say so; None if none does."""
        ages = self._ages
        known = ages[np.isfinite(ages)] if ages is not None else ()
        return np.asarray(known, np.int64) if len(known) else None

    @property
    def _ages(self) -> NDArray[np.float64] | None:
        if not {"pulled_version", "applied_version"} <= self.optional.keys():
            return None
        return self.optional["applied_version"] - self.optional["pulled_version"]

    def by_worker(self) -> dict[str, NDArray[np.float64]]:
        """Durations [s] of each worker, in the order of their starts; workers by label, 2 before 10."""
        order = np.argsort(self.start, kind="stable")
        labels, which = np.unique(self.worker[order], return_inverse=True)
        durations = self.durations[order]
        found = {str(label): durations[which == i] for i, label in enumerate(labels)}
        return {label: found[label] for label in sorted(found, key=_natural)}


def _natural(label: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", label) if part]
