r"""Which law do measured delays follow? Maximum likelihood, ranked by AIC, with a verdict in plain English.

Every candidate is fitted by closed form where there is one; the gamma shape solves
:math:`\log k - \psi(k) = \log\bar x - \overline{\log x}` by Newton, and a constant shift is found by a bounded search
of the profile likelihood. Parameters are rounded to six significant digits before the likelihood is computed, so that
the reported text is the very law whose likelihood is reported.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from stalewise import checks
from stalewise.delays.laws import (
    AbstractContinuous,
    AbstractDelay,
    Constant,
    Exponential,
    Gamma,
    Lognormal,
    ShiftedExponential,
    Sum,
    Uniform,
)
from stalewise.errors import InputError
from stalewise.traces import Trace

Array = NDArray[np.float64]

LEAST = 8
"""Fewer delays than this are not fitted."""
CONSTANT_CV = 1e-5
"""Below this coefficient of variation the spread drowns in parameters of six digits: the delay is called constant."""
REPLICATES = 199
TESTED = 500
_SIGNIFICANT = 0.01


class Candidate(NamedTuple):
    """One fitted law: ``parameters`` counts the fitted ones, ``ks`` is the greatest gap between the two cdfs."""

    law: AbstractDelay
    parameters: int
    log_likelihood: float
    ks: float

    @property
    def text(self) -> str:
        """The law as `parse_delay` reads it."""
        return str(self.law)

    @property
    def aic(self) -> float:
        """Akaike's criterion: twice the parameters minus twice the log-likelihood; less is better."""
        return 2.0 * self.parameters - 2.0 * self.log_likelihood


class Goodness(NamedTuple):
    """Kolmogorov-Smirnov test of the best law against ``points`` of the delays.

    The p-value is a parametric bootstrap: ``replicates`` samples of the fitted law, the same family fitted again to
    each. It takes the draws to be independent.
    """

    ks: float
    p_value: float
    points: int
    replicates: int


class Heterogeneity(NamedTuple):
    """How much workers differ. All None for one worker.

    ``mean_ratio`` is the slowest worker's mean over the fastest's, ``cv_of_means`` the coefficient of variation of the
    workers' means, ``between_share`` the share of a delay's variance that lies between workers (variance components, so
    that chance alone gives about 0), and ``p_value`` the F test of equal means, its F reduced for autocorrelation.
    """

    mean_ratio: float | None = None
    between_share: float | None = None
    cv_of_means: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class WorkerFit:
    """One worker's delays: best law (None below `LEAST` of them), mean [s], cv, count, lag-1 autocorrelation."""

    law: AbstractDelay | None
    mean: float
    cv: float | None
    count: int
    autocorrelation: float | None


@dataclass(frozen=True)
class DelayFit:
    """What `fit_delay` found.

    Attributes:
        source: Where the delays came from.
        candidates: Fitted laws of all delays together, best first.
        goodness: Test of the best one.
        mean: Mean delay [s].
        cv: Coefficient of variation.
        count: Number of delays.
        workers: Fit of each worker, by label.
        autocorrelation: Lag-1 autocorrelation of a worker's successive delays, mean over workers; None if unknown.
        heterogeneity: How much workers differ.
        staleness: Mean, variance, p99 of the logged staleness; None if none was logged.
        recommended: Text of the law to use as ``cluster.compute``.
        sentences: Which simplification is safe and which is not, in plain English.
        notes: What the reader of the trace assumed.
        delays: The delays themselves [s], sorted, shape (count,).
    """

    source: str
    candidates: tuple[Candidate, ...]
    goodness: Goodness
    mean: float
    cv: float
    count: int
    workers: dict[str, WorkerFit]
    autocorrelation: float | None
    heterogeneity: Heterogeneity
    staleness: dict[str, float] | None
    recommended: str
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    delays: Array = field(repr=False, compare=False)

    @property
    def law(self) -> AbstractDelay:
        """The pooled law of least AIC."""
        return self.candidates[0].law

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
            fitted = np.exp(_log_density(self.law, 0.5 * (edges[1:] + edges[:-1])))
        density = counts / (self.count * np.diff(edges))
        return {"edges": edges.tolist(), "density": density.tolist(), "fitted_density": fitted.tolist()}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `stalewise fit --json` prints them."""
        return {
            "source": self.source,
            "pooled": {
                "law": str(self.law),
                "candidates": [
                    {
                        "law": c.text,
                        "log_likelihood": c.log_likelihood,
                        "aic": c.aic,
                        "ks": c.ks,
                        "parameters": c.parameters,
                    }
                    for c in self.candidates
                ],
                "goodness": self.goodness._asdict(),
                "mean": self.mean,
                "cv": self.cv,
                "count": self.count,
            },
            "workers": {
                label: {
                    "law": None if w.law is None else str(w.law),
                    "mean": w.mean,
                    "cv": w.cv,
                    "count": w.count,
                    "autocorrelation": w.autocorrelation,
                }
                for label, w in self.workers.items()
            },
            "autocorrelation": self.autocorrelation,
            "heterogeneity": self.heterogeneity._asdict(),
            "staleness": self.staleness,
            "quantiles": self.quantiles(),
            "histogram": self.histogram(),
            "recommended": self.recommended,
            "sentences": list(self.sentences),
            "notes": list(self.notes),
        }


def fit_delay(source: Trace | ArrayLike, *, seed: int = 0) -> DelayFit:
    r"""Fit delay laws to a trace or to a plain sample.

    Candidates: exponential, shifted exponential, gamma, lognormal, uniform, and gamma and lognormal with a constant
    shift; only the constant where the coefficient of variation is below `CONSTANT_CV` (its log-likelihood is then
    given as 0). They are ranked by AIC.

    The likelihood of a shifted gamma or lognormal is unbounded as the shift nears the smallest delay, so the shift is
    held at or below :math:`\min x - (\bar x - \min x)/n`. That is the gap one expects between the end of a law with
    positive density there and the least of n draws; a sample cannot tell a shift nearer than that.

    Args:
        source: A trace (fitted pooled and per worker) or delays [s] in the order in which one worker took them.
        seed: Of the bootstrap behind the p-value: `REPLICATES` refits of the best law to `TESTED` points at most.

    Raises:
        InputError: Fewer than `LEAST` delays, or one that is not positive and finite.

    Example:
        >>> import numpy as np
        >>> fit = fit_delay(np.random.default_rng(1).gamma(4.0, 0.25, 2000))
        >>> fit.law.mean, fit.goodness.p_value > 0.01
        (0.998424, True)
    """
    checks.at_least("seed", seed, 0)
    name, sequences, staleness, notes = _read(source)
    delays = np.sort(np.concatenate(list(sequences.values())))
    candidates = rank_laws(delays)
    goodness = _goodness(candidates[0], delays, np.random.default_rng(seed))
    workers = {label: _worker(values) for label, values in sequences.items()}
    correlation = _Correlation.of(workers)
    heterogeneity = _heterogeneity(list(sequences.values()), correlation.value)
    file = name if isinstance(source, Trace) else None
    verdict = _Verdict(delays, candidates, goodness, workers, correlation, heterogeneity, file)
    return DelayFit(
        source=name,
        candidates=candidates,
        goodness=goodness,
        mean=float(delays.mean()),
        cv=verdict.cv,
        count=len(delays),
        workers=workers,
        autocorrelation=correlation.value,
        heterogeneity=heterogeneity,
        staleness=_staleness(staleness),
        recommended=verdict.recommended(),
        sentences=tuple(verdict.sentences()),
        notes=notes,
        delays=delays,
    )


def _read(source: Trace | ArrayLike) -> tuple[str, dict[str, Array], NDArray[np.int64] | None, tuple[str, ...]]:
    if isinstance(source, Trace):
        name, sequences, staleness, notes = source.source, source.by_worker(), source.staleness, source.notes
    else:
        try:
            values = np.asarray(source, float)
        except (TypeError, ValueError):
            raise InputError(f"fit: takes a trace or delays in seconds, got {type(source).__name__}") from None
        if values.ndim != 1:
            raise InputError(f"fit: delays must be one sequence of numbers, got shape {values.shape}")
        name, sequences, staleness, notes = "sample", {"all": values}, None, ()
    count = sum(len(values) for values in sequences.values())
    if count < LEAST:
        raise InputError(f"fit: {name}: needs at least {LEAST} delays, got {count}")
    for values in sequences.values():
        bad = ~(np.isfinite(values) & (values > 0))
        if bad.any():
            raise InputError(
                f"fit: {name}: every delay must be positive and finite, got {values[np.argmax(bad)]} seconds"
            )
    return name, sequences, staleness, notes


# Candidates: each takes a sorted sample and returns a law with rounded parameters, or None where it adds nothing.


def _exponential(x: Array) -> AbstractDelay:
    return Exponential(_rounded(x.mean()))


def _shifted_exponential(x: Array) -> AbstractDelay:
    shift = _rounded(x[0], -1)
    return ShiftedExponential(shift, _rounded(x.mean() - shift))


def _uniform(x: Array) -> AbstractDelay:
    return Uniform(_rounded(x[0], -1), _rounded(x[-1], +1))


def _gamma(x: Array) -> AbstractDelay:
    mean = x.mean()
    return Gamma(_rounded(mean), _rounded(_gamma_shape(math.log(mean) - np.log(x).mean())))


def _lognormal(x: Array) -> AbstractDelay | None:
    logs = np.log(x)
    variance = logs.var()
    if variance > 100.0:  # a mean and cv that only exist on paper
        return None
    return Lognormal(_rounded(math.exp(logs.mean() + 0.5 * variance)), _rounded(math.sqrt(math.expm1(variance))))


def _gamma_profile(y: Array) -> float:
    mean, log_mean = y.mean(), np.log(y).mean()
    shape = _gamma_shape(math.log(mean) - log_mean)
    return shape * (math.log(shape / mean) - 1.0) - math.lgamma(shape) + (shape - 1.0) * log_mean


def _lognormal_profile(y: Array) -> float:
    logs = np.log(y)
    return -math.log(logs.std()) - logs.mean()


def _gamma_shape(gap: float) -> float:
    """Solve log k - digamma(k) = gap > 0; Minka's start is right to 1.5 %, Newton in 1/k does the rest."""
    shape = (3.0 - gap + math.sqrt((gap - 3.0) ** 2 + 24.0 * gap)) / (12.0 * gap)
    if shape > 1e4:
        return shape
    for _ in range(4):
        slope = shape - shape * shape * float(special.polygamma(1, shape))
        shape = 1.0 / (1.0 / shape + (math.log(shape) - float(special.digamma(shape)) - gap) / slope)
    return shape


def _shifted(
    fit: Callable[[Array], AbstractDelay | None], profile: Callable[[Array], float], x: Array
) -> AbstractDelay | None:
    """Search the log of the room between shift and smallest delay, then fit the rest given the rounded shift."""
    least = (x.mean() - x[0]) / len(x)
    if least >= x[0]:
        return None

    def loss(log_room: float) -> float:
        return -profile(x - (x[0] - math.exp(log_room)))

    rooms = np.linspace(math.log(least), math.log(x[0]), 25)
    best = int(np.argmin([loss(room) for room in rooms]))
    around = (rooms[max(best - 1, 0)], rooms[min(best + 1, len(rooms) - 1)])
    found = optimize.minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-4})
    room = min((found.x, rooms[best]), key=loss)
    shift = _rounded(max(x[0] - math.exp(room), 0.0), -1)
    moving = fit(x - shift) if shift > 1e-9 * x[0] else None
    return None if moving is None else moving + Constant(shift)


class _Family(NamedTuple):
    fit: Callable[[Array], AbstractDelay | None]
    parameters: int


_FAMILIES = (
    _Family(_exponential, 1),
    _Family(_shifted_exponential, 2),
    _Family(_gamma, 2),
    _Family(_lognormal, 2),
    _Family(_uniform, 2),
    _Family(lambda x: _shifted(_gamma, _gamma_profile, x), 3),
    _Family(lambda x: _shifted(_lognormal, _lognormal_profile, x), 3),
)


def _family(law: AbstractDelay) -> _Family:
    """The family that ``law`` came from."""
    if isinstance(law, Sum):
        return _FAMILIES[5] if isinstance(law.parts[0], Gamma) else _FAMILIES[6]
    if isinstance(law, ShiftedExponential):
        return _FAMILIES[0] if law.shift == 0 else _FAMILIES[1]
    return _FAMILIES[(Gamma, Lognormal, Uniform).index(type(law)) + 2]


def rank_laws(delays: Array) -> tuple[Candidate, ...]:
    """Fit every family to positive delays [s] and rank by AIC, best first; `fit_delay` without the tests around it."""
    x = np.sort(delays)
    if x.std() <= CONSTANT_CV * x.mean():
        return (Candidate(Constant(_rounded(x.mean())), 1, 0.0, 0.0),)
    laws = [(family.fit(x), family.parameters) for family in _FAMILIES]
    found = [
        Candidate(law, parameters, float(_log_density(law, x).sum()), _distance(law, x))
        for law, parameters in laws
        if law is not None
    ]
    return tuple(sorted(found, key=lambda c: c.aic))


def _log_density(law: AbstractDelay, t: Array) -> Array:
    if isinstance(law, Sum):
        moving, fixed = law.parts
        return _log_density(moving, t - fixed.mean)
    assert isinstance(law, AbstractContinuous)
    return np.asarray(law.frozen.logpdf(t), float)  # pyright: ignore[reportAttributeAccessIssue]


def _distance(law: AbstractDelay, x: Array) -> float:
    """Greatest gap between the law's cdf and that of the sorted sample."""
    fitted = law.cdf(x)
    steps = np.arange(len(x) + 1) / len(x)
    return float(max((steps[1:] - fitted).max(), (fitted - steps[:-1]).max()))


def _goodness(best: Candidate, x: Array, rng: np.random.Generator) -> Goodness:
    if isinstance(best.law, Constant):
        return Goodness(0.0, 1.0, len(x), 0)
    fit = _family(best.law).fit
    if len(x) > TESTED:
        x = np.sort(rng.choice(x, TESTED, replace=False))
    if x.std() <= CONSTANT_CV * x.mean():  # nearly all equal, yet not all: no law with a density
        return Goodness(best.ks, 1.0 / (REPLICATES + 1), len(x), REPLICATES)
    law = fit(x) or best.law
    observed = _distance(law, x)
    beyond = 0
    for _ in range(REPLICATES):
        draws = np.maximum(np.sort(law.sample(len(x), rng)), np.finfo(float).tiny)
        beyond += _distance(fit(draws) or law, draws) >= observed
    return Goodness(observed, (beyond + 1) / (REPLICATES + 1), len(x), REPLICATES)


def _rounded(value: float, direction: int = 0) -> float:
    """``value`` to six significant digits; not above it for ``direction`` -1, not below it for +1."""
    value = float(value)
    near = float(f"{value:.6g}")
    if value > 0 and (near - value) * direction < 0:
        near = float(f"{near + direction * 10.0 ** (math.floor(math.log10(value)) - 5):.6g}")
    return near


# Workers


def _worker(values: Array) -> WorkerFit:
    count, mean = len(values), float(values.mean())
    cv = float(values.std(ddof=1)) / mean if count > 1 else None
    if count < LEAST:
        return WorkerFit(None, mean, cv, count, None)
    best = rank_laws(values)[0].law
    return WorkerFit(best, mean, cv, count, None if isinstance(best, Constant) else _autocorrelation(values))


def _autocorrelation(values: Array) -> float:
    centred = values - values.mean()
    return float(centred[1:] @ centred[:-1] / (centred @ centred))


class _Correlation(NamedTuple):
    """Mean lag-1 autocorrelation over workers, its standard error, and how many of those it is from independence."""

    value: float | None
    error: float
    z: float

    @classmethod
    def of(cls, workers: dict[str, WorkerFit]) -> "_Correlation":
        known = [(w.autocorrelation, w.count) for w in workers.values() if w.autocorrelation is not None]
        if not known:
            return cls(None, 0.0, 0.0)
        values, counts = np.array(known).T
        # Independent draws: mean -1/n and variance 1/n for each worker.
        error = math.sqrt((1.0 / counts).sum()) / len(counts)
        return cls(float(values.mean()), error, float((values + 1.0 / counts).mean() / error))


def _heterogeneity(sequences: list[Array], correlation: float | None) -> Heterogeneity:
    workers = len(sequences)
    if workers < 2:
        return Heterogeneity()
    counts = np.array([len(values) for values in sequences])
    means = np.array([values.mean() for values in sequences])
    total = counts.sum()
    between = float(counts @ (means - counts @ means / total) ** 2) / (workers - 1)
    within = float(sum(((values - values.mean()) ** 2).sum() for values in sequences)) / max(total - workers, 1)
    typical = (total - (counts**2).sum() / total) / (workers - 1)
    component = max((between - within) / typical, 0.0)
    share = float(component / (component + within)) if component + within > 0 else 0.0
    r = min(max(correlation or 0.0, 0.0), 0.99)
    ratio = between * (1.0 - r) / (1.0 + r)
    p_value = (
        float(stats.f.sf(ratio / within, workers - 1, total - workers)) if within > 0 and total > workers else None
    )
    return Heterogeneity(float(means.max() / means.min()), share, float(means.std(ddof=1) / means.mean()), p_value)


def _staleness(values: NDArray[np.int64] | None) -> dict[str, float] | None:
    if values is None:
        return None
    return {
        "mean": float(values.mean()),
        "variance": float(values.var()),
        "p99": float(np.quantile(values, 0.99, method="inverted_cdf")),
        "max": float(values.max()),
        "count": len(values),
    }


@dataclass(frozen=True)
class _Verdict:
    """What the numbers mean for whoever writes `cluster.compute`."""

    delays: Array
    candidates: tuple[Candidate, ...]
    goodness: Goodness
    workers: dict[str, WorkerFit]
    correlation: _Correlation
    heterogeneity: Heterogeneity
    file: str | None

    @property
    def cv(self) -> float:
        return float(self.delays.std(ddof=1) / self.delays.mean())

    @property
    def dependent(self) -> bool:
        """Far from chance, and large enough to matter."""
        return self.correlation.value is not None and abs(self.correlation.z) > 3 and abs(self.correlation.value) > 0.05

    @property
    def different(self) -> bool:
        h = self.heterogeneity
        if h.cv_of_means is None or h.cv_of_means <= 0.02:
            return False
        return h.p_value < _SIGNIFICANT if h.p_value is not None else len(self.delays) > len(self.workers)

    @property
    def fits(self) -> bool:
        return self.goodness.p_value >= _SIGNIFICANT

    @property
    def memoryless(self) -> Candidate | None:
        return next((c for c in self.candidates if c.parameters == 1 and isinstance(c.law, ShiftedExponential)), None)

    def recommended(self) -> str:
        if isinstance(self.candidates[0].law, Constant) or self.file is None:
            return self.candidates[0].text
        if self.dependent or self.different:
            return f'trace("{self.file}")'
        return self.candidates[0].text if self.fits else f'empirical("{self.file}")'

    def sentences(self) -> list[str]:
        return [
            self._summary(),
            *self._fit(),
            *self._identical(),
            *self._independent(),
            *self._memoryless(),
            *self._small(),
            self._advice(),
        ]

    def _summary(self) -> str:
        workers = f" on {len(self.workers)} workers" if len(self.workers) > 1 else ""
        return (
            f"{len(self.delays)} gradients{workers} took {self.delays.mean():.4g} s on average, "
            f"with a coefficient of variation of {self.cv:.2g}."
        )

    def _fit(self) -> list[str]:
        if isinstance(self.candidates[0].law, Constant):
            return ["Every delay is the same to five digits: a constant law is safe."]
        best, goodness = self.candidates[0].text, self.goodness
        test = f"p = {goodness.p_value:.2g}, {goodness.points} delays, bootstrap of {goodness.replicates} refits"
        if self.fits:
            return [f"One law for all is safe as to shape: {best} passes a Kolmogorov-Smirnov test ({test})."]
        return [
            f"No candidate describes all delays: even the best, {best}, fails a Kolmogorov-Smirnov test ({test}); "
            f"its cdf is off by up to {100 * self.candidates[0].ks:.2g} percentage points."
        ]

    def _identical(self) -> list[str]:
        h = self.heterogeneity
        if h.mean_ratio is None or h.between_share is None:
            return []
        measured = (
            f"the slowest one's mean is {h.mean_ratio:.3g} times the fastest's, "
            f"and {100 * h.between_share:.2g} % of the variance lies between workers"
        )
        if self.different:
            return [f"Treating workers as identical is not safe: {measured}."]
        return [f"Treating workers as identical is safe: {measured}, no more than chance or too little to matter."]

    def _independent(self) -> list[str]:
        r = self.correlation.value
        if r is None:
            return []
        if not self.dependent and self.correlation.error > 0.1:
            return [
                "Whether a worker's successive delays are independent cannot be told from so few: "
                f"their lag-1 autocorrelation is {r:.2g}, with a standard error of {self.correlation.error:.1g}."
            ]
        if not self.dependent:
            return [
                f"Treating a worker's successive delays as independent is safe: their lag-1 autocorrelation is {r:.2g}."
            ]
        trend = "slow gradients follow slow ones" if r > 0 else "slow gradients follow fast ones"
        return [
            f"Treating a worker's successive delays as independent is not safe: their lag-1 autocorrelation is {r:.2g} "
            f"({trend}), and the p-value of the fit, which takes independence for granted, is only a guide."
        ]

    def _memoryless(self) -> list[str]:
        best, memoryless = self.candidates[0], self.memoryless
        if memoryless is None:
            return ["Treating delays as memoryless (exponential) is not safe: they do not vary at all."]
        worse = memoryless.aic - best.aic
        if worse <= 2:
            return ["Treating delays as memoryless (exponential) is safe: no candidate is clearly better."]
        return [
            f"Treating delays as memoryless (exponential) is not safe: its AIC is {worse:.4g} worse, "
            f"and a coefficient of variation of {self.cv:.2g} stands where an exponential has 1."
        ]

    def _small(self) -> list[str]:
        small = [label for label, worker in self.workers.items() if worker.law is None]
        if not small:
            return []
        names = ", ".join(small[:5]) + (f" and {len(small) - 5} more" if len(small) > 5 else "")
        return [f"No law of their own for workers with fewer than {LEAST} gradients: {names}."]

    def _advice(self) -> str:
        text = self.recommended()
        if text == self.candidates[0].text:
            if self.file is None and (self.dependent or not self.fits):
                return f'Use compute = "{text}" with care: a trace file of these delays could be replayed as measured.'
            return f'Use compute = "{text}".'
        why = (
            "replays every worker's delays in order, and so keeps what differs between workers and what persists"
            if text.startswith("trace")
            else "draws from the delays as measured, and needs no law"
        )
        return f"Use compute = '{text}': it {why}."
