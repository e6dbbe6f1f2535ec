"""What a run remembers of itself: a bounded number of losses, and sums."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stalewise.trajectory import DelaySummary, StalenessSummary

MOST = 4000  # losses; beyond them every other one is forgotten, and half as many are taken


@dataclass
class Records:
    """Losses over time, staleness and ages of applied gradients, how late injected delays were."""

    time: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    updates: list[int] = field(default_factory=list)
    staleness: Counter[int] = field(default_factory=Counter)
    ages: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    thinned: int = 1
    late: int = 0
    refused: int = 0
    deaths: int = 0
    overruns: list[float] = field(default_factory=list)

    def add(self, time: float, loss: float, updates: int) -> None:
        """One more loss."""
        self.time.append(time)
        self.loss.append(loss)
        self.updates.append(updates)
        if len(self.time) > MOST:
            self.thinned *= 2
            for values in (self.time, self.loss, self.updates):
                del values[1:-1:2]

    def applied(self, staleness: int, age: float) -> None:
        """One more gradient was applied."""
        self.staleness[staleness] += 1
        self.ages[0] += 1.0
        self.ages[1] += age
        self.ages[2] += age * age

    def overran(self, seconds: float) -> None:
        """An injected delay ended so much late."""
        if len(self.overruns) < MOST:
            self.overruns.append(seconds)
        else:
            self.overruns[int(self.ages[0]) % MOST] = seconds

    @property
    def mean_staleness(self) -> float:
        """Over applied gradients; 0 before the first."""
        total = sum(self.staleness.values())
        return sum(k * n for k, n in self.staleness.items()) / total if total else 0.0

    def staleness_summary(self) -> StalenessSummary:
        """Of applied gradients."""
        counts = np.zeros(max(self.staleness, default=0) + 1)
        counts[list(self.staleness)] = list(self.staleness.values())
        return StalenessSummary.from_counts(counts)

    def delay_summary(self) -> DelaySummary:
        """Of applied gradients."""
        return DelaySummary.from_moments(*self.ages)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint: copies, which a thread may write while the run goes on."""
        return {
            **{name: list(getattr(self, name)) for name in ("time", "updates", "ages")},
            **{name: getattr(self, name) for name in ("thinned", "late", "refused", "deaths")},
            "staleness": {str(k): n for k, n in self.staleness.items()},
            "loss": [loss if math.isfinite(loss) else None for loss in self.loss],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Records":
        """Read back what `as_dict` gave."""
        staleness = Counter({int(k): n for k, n in data["staleness"].items()})
        loss = [math.inf if value is None else value for value in data["loss"]]
        return cls(**{**data, "staleness": staleness, "loss": loss})
