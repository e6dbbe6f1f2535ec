"""A run beside what was expected of it: time left, the gap to the predicted loss, delays that leave the plan."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from stalewise.study import Study
from stalewise.trajectory import Trajectory

WINDOW = 50  # gradients a worker
OFF = 0.25  # of what was assumed, and 5 standard errors: beyond that a mean has left it
BLOCKS = 10


@dataclass(frozen=True)
class Expectation:
    """What a plan assumed.

    Attributes:
        delay: Mean age of the parameters behind an applied gradient [s].
        staleness: Its mean [updates].
        end: Predicted time to target [s].
        time: Times of the predicted loss [s].
        loss: The predicted loss.
    """

    delay: float | None = None
    staleness: float | None = None
    end: float | None = None
    time: tuple[float, ...] = ()
    loss: tuple[float, ...] = ()

    @classmethod
    def of(cls, predicted: Trajectory) -> "Expectation":
        """What `predict` said."""
        return cls(
            delay=predicted.delay.mean,
            staleness=predicted.staleness.mean,
            end=predicted.time_to_target.mean,
            time=tuple(predicted.time),
            loss=tuple(predicted.loss),
        )

    def loss_at(self, time: float) -> float | None:
        """The predicted loss at a time, None after the end of the prediction."""
        if not self.time or time > self.time[-1]:
            return None
        return float(np.exp(np.interp(time, self.time, np.log(np.maximum(self.loss, 1e-300)))))


class Watch:
    """Compares the last gradients with what was expected.

    A mean over the last 50 gradients a worker has left what was assumed if it is off by more than 25 % and by more than
    5 standard errors, from the means of 10 blocks: successive gradients hang together.
    """

    def __init__(self, study: Study, expected: Expectation) -> None:
        self._expected = expected
        length = max(WINDOW * study.active_workers, 4 * BLOCKS)
        self._seen = {name: deque[float](maxlen=length) for name in ("delay", "staleness")}
        self._left: set[str] = set()
        self.warnings: list[str] = []

    def applied(self, staleness: int, age: float) -> None:
        """One more gradient was applied."""
        self._seen["delay"].append(age)
        self._seen["staleness"].append(staleness)

    def look(self, now: float) -> list[str]:
        """Warnings that are new, of what has left what was assumed."""
        new = []
        for name, unit in (("delay", "s"), ("staleness", "updates")):
            assumed, seen = getattr(self._expected, name), self._seen[name]
            if assumed is None or len(seen) < (seen.maxlen or 0):
                continue
            mean, error = _mean(np.array(seen))
            off = abs(mean - assumed) > max(OFF * assumed, 5.0 * error)
            if off and name not in self._left:
                new.append(
                    f"after {now:.4g} s the mean {name} is {mean:.4g} {unit} over the last {len(seen)} gradients, the "
                    f"plan assumed {assumed:.4g}: fit the trace and plan again"
                )
            (self._left.add if off else self._left.discard)(name)
        self.warnings += new
        return new

    def outlook(self, now: float, loss: float) -> str:
        """Predicted end, and the gap to the predicted loss."""
        if self._expected.end is None:
            return ""
        left = self._expected.end - now
        told = f", predicted end in {left:.3g} s" if left > 0 else f", {-left:.3g} s past the predicted end"
        expected = self._expected.loss_at(now)
        if expected and math.isfinite(loss):
            told += f", loss {100 * (loss / expected - 1):+.0f} % of predicted"
        return told


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean, and its standard error from blocks."""
    blocks = values[: len(values) // BLOCKS * BLOCKS].reshape(BLOCKS, -1).mean(axis=1)
    return float(values.mean()), float(blocks.std(ddof=1) / math.sqrt(BLOCKS))
