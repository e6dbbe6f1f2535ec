"""A figure: curves with units and error bars, and a caption that says what they came to."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from stalewise.trajectory import TargetTime, finite

Progress = Callable[[float, str], None]
Drawn = Literal["theory", "simulated", "aside"]


@dataclass(frozen=True)
class Axis:
    """What an axis shows, in which unit ("" for a pure number), and whether it is logarithmic."""

    name: str
    unit: str = ""
    log: bool = False


@dataclass(frozen=True)
class Curve:
    """One curve.

    Attributes:
        name: For the legend; empty to leave it out.
        x, y: Shape (points,); None where there is no number.
        drawn: ``theory`` is a line, ``simulated`` dots (a line with a band for more than 60), ``aside`` a broken line.
        colour: Curves of one case share a number.
        low, high: 95 % interval of y, shape (points,); None where it is not known.
    """

    name: str
    x: list[float]
    y: list[float | None]
    drawn: Drawn = "theory"
    colour: int = 0
    low: list[float | None] | None = None
    high: list[float | None] | None = None


@dataclass(frozen=True)
class Mark:
    """A broken line across a panel at a value of ``axis`` ("x" or "y"), with words."""

    axis: Literal["x", "y"]
    value: float
    text: str


@dataclass(frozen=True)
class Panel:
    """Curves on one pair of axes."""

    title: str
    x: Axis
    y: Axis
    curves: list[Curve]
    marks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    """A claim, the panels that test it, and what they came to.

    Attributes:
        name: Of the figure, as on the command line.
        claim: What the source paper says, one sentence.
        holds: Whether the numbers bear it out.
        caption: Sentences with the numbers of this run.
        panels: From left to right.
    """

    name: str
    claim: str
    holds: bool
    caption: list[str]
    panels: list[Panel]

    @property
    def verdict(self) -> str:
        """Whether the claim holds, as a sentence."""
        return "The claim holds here." if self.holds else "The claim does not hold here."

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "verdict": self.verdict}


def _silent(share: float, message: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Effort:
    """What a figure may cost.

    Attributes:
        seed: Root of all random numbers.
        quick: A rough look: an eighth of the repetitions.
        data: Folder of MNIST's IDX files; None if there is none.
        progress: Called with the fraction done of this figure and a message.
    """

    seed: int = 0
    quick: bool = False
    data: Path | None = None
    progress: Progress = _silent

    def repeats(self, number: int) -> int:
        """How many repetitions of so many are made."""
        return max(number // 8, 4) if self.quick else number

    def each(self, values: Sequence[Any], message: str) -> Iterable[Any]:
        """Go through values and tell how far it is; ``message`` may have a {} for the value."""
        for done, value in enumerate(values):
            self.progress(done / len(values), message.format(value))
            yield value


def theory(name: str, x: Iterable[float], y: Iterable[float], colour: int = 0) -> Curve:
    """A line; values that are not finite leave a gap."""
    return Curve(name, [float(one) for one in x], [finite(one) for one in y], colour=colour)


def simulated(name: str, x: Iterable[float], times: Iterable[TargetTime], colour: int = 0) -> Curve:
    """Dots with 95 % intervals; no dot where the target was never reached."""
    told = list(times)
    low, high = [one.low for one in told], [one.high for one in told]
    return Curve(name, [float(one) for one in x], [one.mean for one in told], "simulated", colour, low, high)


def measured(name: str, x: Iterable[float], values: Iterable[float], errors: Iterable[float], colour: int = 0) -> Curve:
    """Dots with 95 % intervals from standard errors."""
    pairs = [(float(value), 1.96 * float(error)) for value, error in zip(values, errors, strict=True)]
    return Curve(
        name, [float(one) for one in x], [finite(value) for value, _ in pairs], "simulated", colour,
        [finite(value - error) for value, error in pairs], [finite(value + error) for value, error in pairs],
    )  # fmt: skip


def seconds(value: float | None) -> str:
    """A time in words: three digits, or never."""
    return "never" if value is None or not math.isfinite(value) else f"{value:.3g} s"


def interval(time: TargetTime) -> str:
    """A simulated time and half of its 95 % interval."""
    if time.mean is None:
        return "never"
    if time.low is None or time.high is None:
        return seconds(time.mean)
    return f"{with_error(time.mean, 0.5 * (time.high - time.low))} s"


def with_error(value: float, error: float) -> str:
    """A number and its error to the error's first digit."""
    if not error > 0.0:
        return f"{value:.4g}"
    digits = max(-math.floor(math.log10(error)), 0)
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def listed(values: Iterable[Any]) -> str:
    """1, 2 and 3."""
    *most, last = (str(value) for value in values)
    return f"{', '.join(most)} and {last}" if most else last
