"""What the numbers mean for whoever writes `cluster.compute`, in plain English."""

from typing import TYPE_CHECKING

from stalewise.delays.laws import Constant

if TYPE_CHECKING:
    from stalewise.delays.fitting.result import Cost, DelayFit

SIGNIFICANT = 0.01
DEPENDENT = 0.0027  # three standard errors
UNLIKE = 0.005  # means and spreads are tested: together SIGNIFICANT
MATTERS = 0.02  # differences of means that are smaller are not told
CHEAP = 0.05  # a simplification that changes the variance of staleness by less is safe
_NAMED = 5


def recommended(fit: "DelayFit") -> str:
    """The simplest text that keeps what matters: the law, ``empirical`` where none fits, ``trace`` beyond that."""
    best = fit.candidates[0].text
    if isinstance(fit.law, Constant) or fit.file is None:
        return best
    if is_dependent(fit) or is_unlike(fit) or fit.changes:
        return f'trace("{fit.file}")'
    return best if passes(fit) else f'empirical("{fit.file}")'


def is_dependent(fit: "DelayFit") -> bool:
    """Whether a worker's delays are autocorrelated, far from chance and by enough to matter."""
    d = fit.dependence
    return d.lag1 is not None and d.p_value is not None and d.p_value < DEPENDENT and abs(d.lag1) > 0.05


def is_unlike(fit: "DelayFit") -> bool:
    """Whether workers differ in mean or spread, far from chance and by enough to matter."""
    return _means_differ(fit) or _spreads_differ(fit)


def passes(fit: "DelayFit") -> bool:
    """Whether the best pooled law survives its test."""
    return fit.goodness.p_value >= SIGNIFICANT


def sentences(fit: "DelayFit") -> list[str]:
    """All that a reader should know, one fact a sentence."""
    return [
        _summary(fit),
        *_censored(fit),
        *_shape(fit),
        *_held_out(fit),
        *_identical(fit),
        *_independent(fit),
        *_changes(fit),
        *_memoryless(fit),
        *_outliers(fit),
        *_small(fit),
        *_logged(fit),
        _advice(fit),
    ]


def _summary(fit: "DelayFit") -> str:
    workers = f" on {len(fit.workers)} workers" if len(fit.workers) > 1 else ""
    return (
        f"{fit.count} gradients{workers} took {fit.mean:.4g} s on average, "
        f"with a coefficient of variation of {fit.cv:.2g}."
    )


def _censored(fit: "DelayFit") -> list[str]:
    if not fit.censored:
        return []
    were, count = ("was", "it counts") if fit.censored == 1 else ("were", "they count")
    return [
        f"{fit.censored} more {were} in flight when the log ended (right-censored): {count} in the fits as lasting "
        "longer than seen, and in no average."
    ]


def _shape(fit: "DelayFit") -> list[str]:
    if isinstance(fit.law, Constant):
        return ["Every delay is the same to five digits: a constant law is safe."]
    best, goodness = fit.candidates[0], fit.goodness
    test = f"p = {goodness.p_value:.2g}, {goodness.points} delays, bootstrap of {goodness.replicates} refits"
    if passes(fit):
        return [f"The delays of all workers together follow {best.text}: it passes a Kolmogorov-Smirnov test ({test})."]
    return [
        f"No candidate describes all delays: even the best, {best.text}, fails a Kolmogorov-Smirnov test ({test}); "
        f"its cdf is off by up to {100 * best.ks:.2g} percentage points.{_step(fit, 'identical', 'fitted')}"
    ]


def _held_out(fit: "DelayFit") -> list[str]:
    best, by_aic = fit.candidates[0], min(fit.candidates, key=lambda c: c.aic)
    if best.held_out is None or by_aic.held_out is None or by_aic is best:
        return []
    return [
        f"AIC alone would take {by_aic.text}, but fitted to four fifths of the time it predicts the other fifth worse, "
        f"by {best.held_out - by_aic.held_out:.3g} in log-likelihood."
    ]


def _identical(fit: "DelayFit") -> list[str]:
    h = fit.heterogeneity
    if h.mean_ratio is None or h.between_share is None:
        return []
    measured = (
        f"the slowest one's mean is {h.mean_ratio:.3g} times the fastest's, "
        f"and {100 * h.between_share:.2g} % of the variance lies between workers"
    )
    cost = _step(fit, "independent", "identical")
    if not is_unlike(fit):
        return [
            f"Treating workers as identical is safe: {measured}, no more than chance or too little to matter.{cost}"
        ]
    if not _means_differ(fit):
        measured = f"their means are alike, but their spreads differ (p = {h.spread_p_value:.2g})"
    if _is_cheap(fit, "independent", "identical"):
        return [f"Workers are not identical: {measured}. One pool of delays for all is safe for staleness only.{cost}"]
    return [f"Treating workers as identical is not safe: {measured}.{cost}"]


def _independent(fit: "DelayFit") -> list[str]:
    d = fit.dependence
    if d.lag1 is None:
        return []
    r, cost = d.lag1, _step(fit, "replay", "independent")
    if not is_dependent(fit) and d.standard_error > 0.1:
        return [
            "Whether a worker's successive delays are independent cannot be told from so few: "
            f"their lag-1 autocorrelation is {r:.2g}, with a standard error of {d.standard_error:.1g}."
        ]
    if not is_dependent(fit):
        return [
            f"Treating a worker's successive delays as independent is safe: their lag-1 autocorrelation is {r:.2g} "
            f"(95 % of independent ones stay within {d.limit:.1g}).{cost}"
        ]
    trend = "slow gradients follow slow ones" if r > 0 else "slow gradients follow fast ones"
    left = "" if d.within_regimes is None else f", {d.within_regimes:.2g} between changes of regime"
    guide = "The p-value of the fit, which takes independence for granted, is only a guide."
    if _is_cheap(fit, "replay", "independent"):
        return [
            f"A worker's successive delays are not independent: their lag-1 autocorrelation is {r:.2g} "
            f"({trend}{left}). Treating them so is safe for staleness only.{cost} {guide}"
        ]
    return [
        f"Treating a worker's successive delays as independent is not safe: their lag-1 autocorrelation is {r:.2g} "
        f"({trend}{left}).{cost} {guide}"
    ]


def _changes(fit: "DelayFit") -> list[str]:
    if not fit.changes:
        return []
    largest = sorted(fit.changes, key=lambda c: -abs(c.after / c.before - 1.0))
    named = "; ".join(f"{c.worker} at {c.time:.4g} s, from {c.before:.3g} to {c.after:.3g} s" for c in largest[:_NAMED])
    more = f"; and {len(largest) - _NAMED} more" if len(largest) > _NAMED else ""
    workers = len({c.worker for c in fit.changes})
    which = "1 worker changes" if workers == 1 else f"{workers} workers change"
    return [f"One law for all times is not safe: {which} regime (median delay of worker {named}{more})."]


def _memoryless(fit: "DelayFit") -> list[str]:
    best = fit.candidates[0]
    memoryless = next((c for c in fit.candidates if c.family.name == "exponential"), None)
    if memoryless is None:
        return ["Treating delays as memoryless (exponential) is not safe: they do not vary at all."]
    worse = memoryless.aic - min(c.aic for c in fit.candidates)
    cost = _step(fit, "fitted", "memoryless")
    if worse <= 2 or best is memoryless:
        return [f"Treating delays as memoryless (exponential) is safe: no candidate is clearly better.{cost}"]
    stands = (
        f"a coefficient of variation of {fit.cv:.2g} stands where an exponential has 1"
        if not 0.8 < fit.cv < 1.25
        else "their coefficient of variation is near 1, but not the shape"
    )
    return [
        f"Treating delays as memoryless (exponential) is not safe: its AIC is {worse:.4g} worse, and {stands}.{cost}"
    ]


def _outliers(fit: "DelayFit") -> list[str]:
    o = fit.outliers
    if not o.number:
        return []
    named = ", ".join(
        f"worker {w.worker} at {w.time:.4g} s ({w.delay:.3g} s, {w.ratio:.2g} times)" for w in o.worst[:3]
    )
    what = "gradient takes" if o.number == 1 else "gradients take"
    return [
        f"{o.number} {what} far longer than others of the same worker: {100 * o.share_of_rows:.2g} % of the gradients, "
        f"{100 * o.share_of_time:.2g} % of the time. The worst against the median: {named}."
    ]


def _small(fit: "DelayFit") -> list[str]:
    small = [label for label, worker in fit.workers.items() if worker.law is None]
    if not small:
        return []
    names = ", ".join(small[:_NAMED]) + (f" and {len(small) - _NAMED} more" if len(small) > _NAMED else "")
    return [f"No law of their own for workers with fewer than 8 gradients: {names}."]


def _logged(fit: "DelayFit") -> list[str]:
    replay = _cost(fit, "replay")
    if fit.staleness is None or replay is None:
        return []
    return [
        f"The log saw a staleness of {fit.staleness['mean']:.4g} on average, 99 % within {fit.staleness['p99']:.0f}; "
        f"its workers, replayed under async, have {replay.mean:.4g} and {replay.p99}."
    ]


def _advice(fit: "DelayFit") -> str:
    text = recommended(fit)
    if text == fit.candidates[0].text:
        if fit.file is None and (is_dependent(fit) or fit.changes or not passes(fit)):
            return f'Use compute = "{text}" with care: a trace file of these delays could be replayed as measured.'
        return f'Use compute = "{text}".'
    why = (
        "replays every worker's delays in order, and so keeps what differs between workers and what persists"
        if text.startswith("trace")
        else "draws from the delays as measured, and needs no law"
    )
    return f"Use compute = '{text}': it {why}."


def _means_differ(fit: "DelayFit") -> bool:
    h = fit.heterogeneity
    return h.p_value is not None and h.p_value <= UNLIKE and (h.beyond_chance or 0.0) > MATTERS


def _spreads_differ(fit: "DelayFit") -> bool:
    p = fit.heterogeneity.spread_p_value
    spreads = [worker.cv for worker in fit.workers.values() if worker.cv is not None]
    return p is not None and p <= UNLIKE and max(spreads) - min(spreads) > MATTERS


def _cost(fit: "DelayFit", model: str) -> "Cost | None":
    return next((cost for cost in fit.costs if cost.model == model), None)


def _step(fit: "DelayFit", before: str, after: str) -> str:
    """What one more simplification does to staleness, as a sentence to append."""
    kept, simpler = _cost(fit, before), _cost(fit, after)
    if kept is None or simpler is None:
        return ""
    p99 = (
        f"within {simpler.p99} updates instead of {kept.p99}" if simpler.p99 != kept.p99 else f"still within {kept.p99}"
    )
    if _is_cheap(fit, before, after):
        return (
            f" In staleness that costs next to nothing: a variance of {simpler.variance:.3g} instead of "
            f"{kept.variance:.3g}, 99 % {p99}."
        )
    return (
        f" That costs: the variance of staleness becomes {simpler.variance:.3g} instead of {kept.variance:.3g}, "
        f"99 % {p99}."
    )


def _is_cheap(fit: "DelayFit", before: str, after: str) -> bool:
    kept, simpler = _cost(fit, before), _cost(fit, after)
    if kept is None or simpler is None:
        return False
    near = abs(simpler.variance - kept.variance) <= max(CHEAP * kept.variance, 0.02)
    return near and abs(simpler.p99 - kept.p99) <= max(1.0, CHEAP * kept.p99)
