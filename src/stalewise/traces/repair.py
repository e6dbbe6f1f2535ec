"""What is wrong with a log: refused in one line, or repaired and said so in a note."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError
from stalewise.traces.table import Labels
from stalewise.traces.trace import Trace, grouped

_GAP = 100.0  # no delay of one worker lies between two scales this far apart
_SCALES = (1e3, 1e6, 1e9)  # ms, us and ns in a second
_FEW = 0.05  # share of a worker's gradients below which another scale may be outliers
_SILENT = 10.0  # times its longest pause so far
_LONG = 0.1  # of the log
_REGULAR = 3  # gradients of a worker of which more were to be expected


@dataclass(frozen=True)
class Log:
    """Rows of a log, in the order of its lines until sorted.

    Attributes:
        source: Where it came from.
        worker: Label of each row.
        start: When the gradient began [s], shape (n,).
        end: When it ended [s], NaN where it had not, shape (n,).
        optional: Further columns, each of shape (n,).
        notes: What was assumed and repaired so far.
    """

    source: str
    worker: Labels
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    optional: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start)

    def rows(self, chosen: NDArray, *notes: str) -> "Log":
        """Some of the rows, or all in another order."""
        optional = {name: values[chosen] for name, values in self.optional.items()}
        return Log(
            self.source, self.worker[chosen], self.start[chosen], self.end[chosen], optional, (*self.notes, *notes)
        )

    def noted(self, *notes: str) -> "Log":
        """The same rows with more notes."""
        return Log(self.source, self.worker, self.start, self.end, self.optional, (*self.notes, *notes))


def repaired(log: Log, *, unit_given: bool) -> Trace:
    """A log as a trace, with a note for everything that is odd in it.

    Sorted by end. Exact duplicates are removed. A gradient without an end is censored at its worker's next start, or
    else at the last time of the log. Kept as logged, but noted: a worker's rows out of order, its gradients that
    overlap, its silence at the end.

    Raises:
        InputError: Delays of one worker come in two units (noted only where they are few, or ``unit_given``).
    """
    log = _without_duplicates(log)
    by_worker = grouped(log.worker.codes)
    log = log.noted(
        *_out_of_order(log, by_worker), *_mixed_units(log, by_worker, unit_given=unit_given), *_parts_too_long(log),
        *_silent(log, by_worker),
    )  # fmt: skip
    by_start = grouped(log.worker.codes, log.start)
    end, notes = _censored(log, by_start)
    log = log.noted(*_overlaps(log, by_start), *notes)
    missing, order = np.isnan(log.end), np.argsort(end, kind="stable")
    log = log.rows(order)
    return Trace(
        log.worker.as_strings(), log.start, end[order], log.optional, log.notes, log.source, missing[order]
    )  # fmt: skip


def check_units(log: Log, *, unit_given: bool) -> Log:
    """The log, with a note of a worker's delays that come in two units.

    Raises:
        InputError: They are many, and ``unit_given`` is false.
    """
    return log.noted(*_mixed_units(log, grouped(log.worker.codes), unit_given=unit_given))


def _without_duplicates(log: Log) -> Log:
    """Only rows with an end that another row has too need looking at."""
    order = np.argsort(log.end, kind="stable")
    twins = repeats(log.end[order])
    suspects = np.sort(order[twins | np.append(twins[1:], False)])
    if not len(suspects):
        return log
    part = log.rows(suspects)
    keys = (*part.optional.values(), part.start, part.end, part.worker.codes)
    order = np.lexsort(keys)  # stable: of equal lines the first stays
    copies = suspects[order[np.logical_and.reduce([repeats(values[order]) for values in keys])]]
    if not len(copies):
        return log
    keep = np.ones(len(log), bool)
    keep[copies] = False
    return log.rows(np.flatnonzero(keep), f"{counted(len(copies))} the same as another in every column: removed")


def repeats(values: NDArray) -> NDArray[np.bool_]:
    """Whether each value is the one before it; NaN is NaN."""
    blank = np.isnan(values)
    return np.append(False, (values[1:] == values[:-1]) | (blank[1:] & blank[:-1]))


def _out_of_order(log: Log, by_worker: NDArray) -> list[str]:
    codes, start = log.worker.codes[by_worker], log.start[by_worker]
    back = np.flatnonzero((codes[1:] == codes[:-1]) & (start[1:] < start[:-1])) + 1
    if not len(back):
        return []
    return [
        f"{counted(len(back))} of {_workers(log, codes[back])} that began before the same worker's row above: "
        "read in the order of time; lines are out of order, or a clock was set back"
    ]


def _mixed_units(log: Log, by_worker: NDArray, *, unit_given: bool) -> list[str]:
    """Refuse delays of one worker that come in two scales a factor 1e3, 1e6 or 1e9 apart, as seconds and ms do.

    Two scales: no delay lies in a gap of a factor 100, and the medians on its two sides are within a factor 3 of
    that distance. A note only if one side has fewer than two or 5 % of the delays, or if the caller gave the unit.
    """
    done = by_worker[np.isfinite(log.end[by_worker])]
    delays, codes = log.end[done] - log.start[done], log.worker.codes[done]
    firsts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
    wide = np.maximum.reduceat(delays, firsts) > _GAP * np.minimum.reduceat(delays, firsts)
    notes = []
    for first, after in zip(firsts[wide], np.append(firsts[1:], len(delays))[wide], strict=True):
        own, code = np.sort(delays[first:after]), codes[first]
        split = int(np.argmax(own[1:] / own[:-1])) + 1
        small, large = float(np.median(own[:split])), float(np.median(own[split:]))
        if own[split] < _GAP * own[split - 1] or not any(1 / 3 < large / small / scale < 3 for scale in _SCALES):
            continue
        fewer = min(split, len(own) - split)
        said = (
            f"delays of worker {log.worker.names[code]} come in two scales, {split} about {small:.3g} s and "
            f"{len(own) - split} about {large:.3g} s, as if in two units"
        )
        if fewer >= max(2, _FEW * len(own)) and not unit_given:
            raise InputError(
                f"{log.source}: {said}; put every row in one unit, or give the unit if that is how it was "
                "(unit='s', --unit s)"
            )
        if len(notes) < 3:
            notes.append(f"{said}: kept as logged")
    return notes


def _parts_too_long(log: Log) -> list[str]:
    """Parts of a delay are no longer than the whole, unless in another unit."""
    notes = []
    for name in ("compute", "download", "upload"):
        with np.errstate(invalid="ignore"):
            longer = log.optional.get(name, np.zeros(0)) > 1.01 * (log.end - log.start) if name in log.optional else ()
        if np.any(longer):
            notes.append(
                f"{name} is longer than the time from start to end in {counted(int(np.sum(longer)))}: "
                "kept as logged; is it in another unit?"
            )
    return notes


def _overlaps(log: Log, by_start: NDArray) -> list[str]:
    done = by_start[np.isfinite(log.end[by_start])]
    codes, start, end = log.worker.codes[done], log.start[done], log.end[done]
    slack = 1e-6 * np.minimum(end[1:] - start[1:], end[:-1] - start[:-1]) + 4.0 * np.spacing(np.abs(end[:-1]))
    early = np.flatnonzero((codes[1:] == codes[:-1]) & (start[1:] < end[:-1] - slack)) + 1
    if not len(early):
        return []
    found = f"{counted(len(early), 'gradient')} of {_workers(log, codes[early])}"
    return [
        f"{found} began before the same worker's last one had ended: kept as logged; a clock was set back, or several "
        "compute under one label"
    ]


def _silent(log: Log, by_worker: NDArray) -> list[str]:
    """Workers that fell silent long before the log ended, though no row says that they began another gradient."""
    codes, start, end = log.worker.codes[by_worker], log.start[by_worker], log.end[by_worker]
    firsts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
    last = np.maximum.reduceat(end, firsts)  # NaN where a gradient is without an end
    pause = np.append(end[1:] - end[:-1], 0.0)
    pause[np.append(firsts[1:], len(end)) - 1] = 0.0
    longest = np.maximum.reduceat(np.fmax(pause, end - start), firsts)
    latest = np.nanmax(end)
    counts = np.diff(np.append(firsts, len(end)))
    silent = latest - last > np.maximum(_SILENT * longest, _LONG * (latest - start.min()))
    silent &= counts >= _REGULAR
    if not silent.any():
        return []
    return [
        f"{_workers(log, codes[firsts[silent]])} never returned after {last[silent].min():.6g} s, though the log goes "
        f"on to {latest:.6g} s; no row says what became of it"
    ]


def _censored(log: Log, by_start: NDArray) -> tuple[NDArray[np.float64], list[str]]:
    """Ends, with the time until which a gradient is known not to have ended where it has none."""
    missing = np.isnan(log.end)
    if not missing.any():
        return log.end, []
    last = max(float(np.max(log.start)), float(np.nanmax(log.end, initial=-np.inf)))
    codes = log.worker.codes[by_start]
    following = np.append(np.where(codes[1:] == codes[:-1], log.start[by_start][1:], last), last)
    until = np.empty(len(log))
    until[by_start] = following
    found = f"{counted(int(missing.sum()), 'gradient')} of {_workers(log, log.worker.codes[missing])} without an end"
    note = (
        f"{found}: in flight as the log ended at {last:.6g} s, or lost; censored there or at the worker's next start, "
        "not in means or replay"
    )
    return np.where(missing, until, log.end), [note]


def counted(count: int, noun: str = "row") -> str:
    """A number and its noun."""
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _workers(log: Log, codes: NDArray) -> str:
    """Three labels at most, and how many more."""
    found = np.unique(codes)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"worker{'s' if len(found) > 1 else ''} {', '.join(log.worker.names[code][:40] for code in found[:3])}{more}"
