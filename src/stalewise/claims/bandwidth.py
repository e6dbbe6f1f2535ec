"""Under limited bandwidth there is an optimum, of workers and of the learning rate."""

import math

import numpy as np

from stalewise.claims.figure import Axis, Effort, Figure, Panel, interval, seconds, simulated, theory
from stalewise.claims.questions import example, predicted_time, simulated_time, tuned
from stalewise.prediction import limit
from stalewise.study import Study

COUNTS = (1, 2, 4, 6, 8, 10, 12, 16, 24, 48)
SHOWN = (1, 4, 6, 8, 10, 12, 16, 24, 48)
SERVICES = (0.0, 0.05, 0.1, 0.2)  # seconds that one gradient holds the link
SHARES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.88)  # of the mean-square limit
RATED = 12  # workers whose learning rate is varied
CLAIM = "Under limited bandwidth there is a best number of workers, and a best learning rate."
Times = dict[float, dict]


def bandwidth(effort: Effort) -> Figure:
    """Time to the target against workers (learning rate tuned for each) and against the learning rate (12 workers)."""
    asked = [(s, n) for s in SERVICES for n in COUNTS]
    best: Times = {s: {} for s in SERVICES}
    for s, n in effort.each(asked, "link of {0[0]} s a gradient, {0[1]} workers"):
        best[s][n] = tuned(example(n, service=f"constant({s})"), effort.seed)
    times, seen = _times(best, SHOWN, effort)
    rated = {s: _ladder(example(RATED, service=f"constant({s})"), effort.seed) for s in SERVICES}
    rate_times, rate_seen = _times(rated, None, effort)
    time = Axis("time to target", "s", log=True)
    panels = [
        Panel("learning rate tuned for each number", Axis("active workers", log=True), time, _curves(times, seen)),
        Panel(f"{RATED} workers", Axis("learning rate", log=True), time, _curves(rate_times, rate_seen)),
    ]
    holds = all(_fastest(times[s]) < COUNTS[-1] for s in SERVICES[1:])
    return Figure("bandwidth", CLAIM, holds, _caption(times, seen, rate_times), panels)


def _ladder(study: Study, seed: int) -> dict[float, Study]:
    """The study at shares of its limit, by learning rate."""
    most = limit(study, seed=seed).learning_rate["mean_square"]
    assert most is not None
    return {share * most: study.with_schedule(learning_rate=share * most) for share in SHARES}


def _times(studies: Times, shown: tuple[int, ...] | None, effort: Effort) -> tuple[Times, Times]:
    """Times by mathematics and in virtual time; ``shown`` are simulated, every third of them unless given."""
    told = {s: {x: predicted_time(one, effort.seed) for x, one in of.items()} for s, of in studies.items()}
    seen = {
        s: {x: simulated_time(of[x], effort, told[s][x]) for x in shown or list(of)[1::3]} for s, of in studies.items()
    }
    return told, seen


def _curves(times: Times, seen: Times) -> list:
    curves = [theory(_link(s), of, of.values(), i) for i, (s, of) in enumerate(times.items())]
    return curves + [simulated("", of, of.values(), i) for i, of in enumerate(seen.values())]


def _link(service: float) -> str:
    return f"link of {1 / service:g} gradients a second" if service else "no limit"


def _fastest(times: dict) -> float:
    """The first that is within 1 % of the least time."""
    least = min(times.values())
    return next(x for x, value in times.items() if value <= 1.01 * least)


def _caption(times: Times, seen: Times, rated: Times) -> list[str]:
    lines = []
    for s in SERVICES:
        at, last = _fastest(times[s]), COUNTS[-1]
        gone = times[s][last] / times[s][at]
        near = at if at in seen[s] else min(seen[s], key=lambda n: abs(math.log(n / at)))
        lines.append(
            f"{_link(s).capitalize()}: {at} workers suffice, {seconds(times[s][at])} (simulated, {near} workers: "
            f"{interval(seen[s][near])}); {last} take {seconds(times[s][last])} (simulated {interval(seen[s][last])}), "
            f"{gone:.2f} times as long."
        )
    for s, of in rated.items():
        at = min(of, key=of.__getitem__)
        ends = [seconds(value) for value in of.values()]
        lines.append(
            f"{RATED} workers, {_link(s)}: best learning rate {at:.3g}, {seconds(of[at])}; at {SHARES[0]:g} and "
            f"{SHARES[-1]:g} of the limit {ends[0]} and {ends[-1]}."
        )
    free = np.array([seen[s][n].mean / times[s][n] - 1.0 for s in SERVICES for n in SHOWN if seen[s][n].mean])
    lines.append(
        f"A full link passes 1/service gradients a second, so that more workers add staleness alone. Arrivals at a "
        f"link are counted in virtual time, the rest is mathematics; {len(free)} simulated times differ by "
        f"{100 * np.median(abs(free)):.1f} % (median) and {100 * abs(free).max():.1f} % at most."
    )
    return lines
