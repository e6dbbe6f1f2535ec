"""A trace: what a cluster was measured to do, one row a gradient."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError

MOST_VERSION = 2.0**53  # whole numbers beyond it are not told apart
COLUMNS = ("worker", "start", "end", "pulled_version", "applied_version", "compute", "download", "upload", "grad_norm")
LONGEST_FIELD = 1 << 17  # characters, as in Python's csv module
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Trace:
    """Gradients of a fleet of workers, in the order in which they ended.

    Attributes:
        worker: Label of the worker, shape (n,), strings.
        start: When it began to read its parameters [s], shape (n,).
        end: When its gradient reached the server [s]; where ``censored``, until when it is known not to have [s].
            Shape (n,).
        optional: Further columns by name (`COLUMNS`), each of shape (n,), NaN where unknown.
        notes: What a reader assumed or repaired, one sentence each.
        source: Where it came from.
        censored: Whether the gradient had not ended by ``end``, shape (n,); nowhere unless given.
    """

    worker: NDArray[np.str_]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    optional: dict[str, NDArray[np.float64]]
    notes: tuple[str, ...] = ()
    source: str = "trace"
    censored: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if self.censored.size == 0:
            object.__setattr__(self, "censored", np.zeros(len(self.worker), bool))
        check_rows(self.source, len(self.worker), self.start, self.end, self.optional, self.censored)

    def __len__(self) -> int:
        return len(self.worker)

    @property
    def durations(self) -> NDArray[np.float64]:
        """How long each gradient took [s], in the order of their ends; without the censored ones."""
        done = ~self.censored
        return self.end[done] - self.start[done]

    @property
    def censored_durations(self) -> NDArray[np.float64]:
        """How long each censored gradient is known to have taken at least [s]; may be 0."""
        return self.end[self.censored] - self.start[self.censored]

    @property
    def staleness(self) -> NDArray[np.int64] | None:
        """Updates between reading and applying, of the rows that say both versions; None if none does."""
        ages = _ages(self.optional)
        known = ages[np.isfinite(ages)] if ages is not None else ()
        return np.asarray(known, np.int64) if len(known) else None

    def by_worker(self) -> dict[str, NDArray[np.float64]]:
        """Durations [s] of each worker in the order of their starts, without the censored ones.

        Workers by label, 2 before 10; those of which no gradient ended are left out.
        """
        return {label: self.end[rows] - self.start[rows] for label, rows in self.rows_by_worker().items()}

    def rows_by_worker(self) -> dict[str, NDArray[np.intp]]:
        """Rows behind `by_worker`, in the same order."""
        done = np.flatnonzero(~self.censored)
        labels, which = _factorised(self.worker)
        done = done[grouped(which[done], self.start[done])]
        ends = np.searchsorted(which[done], np.arange(len(labels) + 1))
        found = {label: done[a:b] for label, (a, b) in zip(labels, pairwise(ends), strict=True) if b > a}
        return {label: found[label] for label in sorted(found, key=_natural)}


def check_rows(
    source: str,
    count: int,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    optional: dict[str, NDArray[np.float64]],
    censored: NDArray[np.bool_],
) -> None:
    """Refuse rows that no log can mean; the message counts rows in the order given."""

    def refuse(name: str, values: NDArray[np.float64], row: int, allowed: str) -> None:
        raise InputError(f"{source}: {name} must be {allowed}, got {values[row]:g} in data row {row + 1}")

    if count == 0:
        raise InputError(f"{source}: no gradient in it; a trace needs at least one row")
    for name, values in (("start", start), ("end", end), ("censored", censored), *optional.items()):
        if len(values) != count:
            raise InputError(f"{source}: {name} has {len(values)} values for {count} gradients")
    for name, values in (("start", start), ("end", end)):
        bad = ~np.isfinite(values)
        if bad.any():
            refuse(name, values, int(np.argmax(bad)), "a finite number of seconds")
    wrong = np.where(censored, end < start, end <= start)
    if wrong.any():
        row = int(np.argmax(wrong))
        refuse("end", end, row, f"later than its start, {start[row]:g} s")
    for name in ("pulled_version", "applied_version"):
        versions = optional.get(name, np.zeros(0))
        with np.errstate(invalid="ignore"):
            wrong = ~np.isnan(versions) & ~((versions >= 0) & (versions < MOST_VERSION) & (versions % 1.0 == 0))
        if wrong.any():
            refuse(name, versions, int(np.argmax(wrong)), "a whole number, 0 or more")
    ages = _ages(optional)
    if ages is not None and (ages < 0).any():
        row = int(np.argmax(ages < 0))
        refuse("applied_version", optional["applied_version"], row, _at_least(optional["pulled_version"][row]))
    if censored.all():
        raise InputError(f"{source}: none of its {count} gradients has ended; a trace needs at least one that has")


def _at_least(pulled: float) -> str:
    return f"at least its pulled_version, {pulled:g}"


def _ages(optional: dict[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    if not {"pulled_version", "applied_version"} <= optional.keys():
        return None
    return optional["applied_version"] - optional["pulled_version"]


def grouped(codes: NDArray[np.int32], values: NDArray | None = None) -> NDArray[np.intp]:
    """Order of rows by code, within a code by value or as they stand: as `numpy.lexsort`, several times as fast."""
    small = codes.astype(np.min_scalar_type(int(codes.max(initial=0))))  # short integers are sorted by radix
    if values is None:
        return np.argsort(small, kind="stable")
    order = np.argsort(values, kind="stable")
    return order[np.argsort(small[order], kind="stable")]


class Codes(dict[str, int]):
    """Numbers labels in the order in which they are first seen: 0, 1, 2, ..."""

    def __missing__(self, label: str) -> int:
        if len(label) > LONGEST_FIELD:
            raise ValueError(f"field larger than field limit ({LONGEST_FIELD})")
        self[label] = code = len(self)
        return code

    def encode(self, labels: Iterable[str], count: int) -> NDArray[np.int32]:
        """The numbers of ``count`` labels."""
        return np.fromiter(map(self.__getitem__, labels), np.int32, count)


def _factorised(labels: NDArray[np.str_]) -> tuple[list[str], NDArray[np.int32]]:
    """Distinct labels, and which of them each row has: a dictionary is several times as fast as sorting strings."""
    codes = Codes()
    which = np.concatenate(
        [codes.encode(part.tolist(), len(part)) for part in np.split(labels, range(_CHUNK, len(labels), _CHUNK))]
    )
    return list(codes), which


def _natural(label: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", label) if part]
