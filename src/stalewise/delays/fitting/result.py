"""What `fit_delay` found, and how it is written down."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.delays.fitting import verdict
from stalewise.delays.fitting.changes import Change
from stalewise.delays.fitting.dependence import Dependence
from stalewise.delays.fitting.families import log_density
from stalewise.delays.fitting.goodness import Goodness
from stalewise.delays.fitting.heterogeneity import Heterogeneity
from stalewise.delays.fitting.outliers import Outliers
from stalewise.delays.fitting.ranking import Candidate
from stalewise.delays.laws import AbstractDelay, Constant

Array = NDArray[np.float64]


class Cost(NamedTuple):
    """Staleness of asynchronous workers under one simplification of the trace, in updates.

    ``model`` is what is kept: ``replay`` everything, ``independent`` each worker's delays in random order,
    ``per_worker`` the law of each worker, ``identical`` delays of all workers in one pool, ``fitted`` the pooled law,
    ``memoryless`` an exponential law of the same mean. Errors are relative to the replay, None where that has none.
    """

    model: str
    mean: float
    variance: float
    p99: int
    variance_error: float | None
    p99_error: float | None


@dataclass(frozen=True)
class WorkerFit:
    """One worker's delays.

    Attributes:
        candidates: Fitted laws, best first; none below `LEAST` delays.
        goodness: Test of the best one; None if there is none, or beyond the first `TESTED_WORKERS` workers.
        mean, cv, count: Mean [s], coefficient of variation and number of the delays that ended.
        censored: Number of those that had not.
        autocorrelation: Of successive delays; None if unknown.
        changes: Changes of regime.
    """

    candidates: tuple[Candidate, ...]
    goodness: Goodness | None
    mean: float
    cv: float | None
    count: int
    censored: int
    autocorrelation: float | None
    changes: tuple[Change, ...]

    @property
    def law(self) -> AbstractDelay | None:
        """The best law."""
        return self.candidates[0].law if self.candidates else None

    @property
    def fits(self) -> bool:
        """Whether there is a law and it was not refuted."""
        return self.law is not None and (self.goodness is None or self.goodness.p_value >= verdict.SIGNIFICANT)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "law": None if self.law is None else str(self.law),
            "candidates": [c.as_dict() for c in self.candidates],
            "goodness": None if self.goodness is None else self.goodness._asdict(),
            "mean": self.mean,
            "cv": self.cv,
            "count": self.count,
            "censored": self.censored,
            "autocorrelation": self.autocorrelation,
            "change_points": [change._asdict() for change in self.changes],
        }


@dataclass(frozen=True)
class DelayFit:
    """What `fit_delay` found.

    Attributes:
        source: Where the delays came from.
        candidates: Fitted laws of all delays together, best first.
        goodness: Test of the best one.
        mean: Mean of the delays that ended [s].
        cv: Their coefficient of variation.
        count: Their number.
        censored: Number of gradients still in flight when the log ended.
        workers: Fit of each worker, by label.
        dependence: Of a worker's successive delays.
        heterogeneity: How much workers differ.
        changes: Changes of regime of all workers.
        outliers: Delays far beyond their worker's others.
        staleness: Mean, variance, p99 of the logged staleness; None if none was logged.
        file: Name of the trace, None for a plain sample.
        notes: What the reader of the trace assumed, and what was left out here.
        delays: The delays that ended [s], sorted, shape (count,).
        costs: Staleness under each simplification, see `stalewise.staleness.weigh`; empty if not computed.
    """

    source: str
    candidates: tuple[Candidate, ...]
    goodness: Goodness
    mean: float
    cv: float
    count: int
    censored: int
    workers: dict[str, WorkerFit]
    dependence: Dependence
    heterogeneity: Heterogeneity
    changes: tuple[Change, ...]
    outliers: Outliers
    staleness: dict[str, float] | None
    file: str | None
    notes: tuple[str, ...]
    delays: Array = field(repr=False, compare=False)
    costs: tuple[Cost, ...] = ()

    @property
    def law(self) -> AbstractDelay:
        """The best pooled law."""
        return self.candidates[0].law

    @property
    def autocorrelation(self) -> float | None:
        """Lag-1 autocorrelation of a worker's successive delays, mean over workers; None if unknown."""
        return self.dependence.lag1

    @property
    def recommended(self) -> str:
        """Text of the law to use as ``cluster.compute``."""
        return verdict.recommended(self)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Which simplification is safe, which is not, and what it costs, in plain English."""
        return tuple(verdict.sentences(self))

    def with_costs(self, costs: tuple[Cost, ...]) -> "DelayFit":
        """The same, with what simplifications cost in staleness."""
        return dataclasses.replace(self, costs=costs)

    def quantiles(self, points: int = 100) -> dict[str, list[float]]:
        """Observed and fitted quantiles [s] at the middles of ``points`` equal parts of (0, 1)."""
        probability = (np.arange(points) + 0.5) / points
        observed = np.quantile(self.delays, probability)
        return {
            "probability": probability.tolist(),
            "observed": observed.tolist(),
            "fitted": self.law.quantile(probability).tolist(),
        }

    def histogram(self) -> dict[str, list[float]]:
        """Densities [1/s] over equal bins, up to the 99.5 % quantile; the rest is left out, not squeezed in."""
        low, high = float(self.delays[0]), float(np.quantile(self.delays, 0.995))
        if isinstance(self.law, Constant) or high <= low:
            low, high = 0.99 * low, 1.01 * high
        bins = int(np.clip(math.sqrt(self.count), 5, 60))
        counts, edges = np.histogram(self.delays, bins, (low, high))
        if isinstance(self.law, Constant):
            fitted = np.diff(self.law.cdf(edges)) / np.diff(edges)
        else:
            fitted = np.exp(log_density(self.law, 0.5 * (edges[1:] + edges[:-1])))
        density = counts / (self.count * np.diff(edges))
        return {"edges": edges.tolist(), "density": density.tolist(), "fitted_density": fitted.tolist()}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `stalewise fit --json` prints them."""
        outliers = self.outliers._asdict() | {"worst": [one._asdict() for one in self.outliers.worst]}
        return {
            "source": self.source,
            "pooled": {
                "law": str(self.law),
                "candidates": [c.as_dict() for c in self.candidates],
                "goodness": self.goodness._asdict(),
                "mean": self.mean,
                "cv": self.cv,
                "count": self.count,
                "censored": self.censored,
            },
            "workers": {label: worker.as_dict() for label, worker in self.workers.items()},
            "autocorrelation": self.autocorrelation,
            "dependence": self.dependence._asdict(),
            "heterogeneity": self.heterogeneity._asdict(),
            "change_points": [change._asdict() for change in self.changes],
            "outliers": outliers,
            "staleness": self.staleness,
            "costs": [cost._asdict() for cost in self.costs],
            "quantiles": self.quantiles(),
            "histogram": self.histogram(),
            "recommended": self.recommended,
            "sentences": list(self.sentences),
            "notes": list(self.notes),
        }
