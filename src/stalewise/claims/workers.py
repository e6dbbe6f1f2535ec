"""More workers are not always faster."""

import math

import numpy as np

from stalewise.claims.figure import Axis, Effort, Figure, Mark, Panel, interval, listed, seconds, simulated, theory
from stalewise.claims.questions import example, predicted_time, simulated_time, tuned
from stalewise.prediction import limit
from stalewise.trajectory import TargetTime

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 64)
SHOWN = (1, 4, 8, 16, 24, 32, 40, 64)
SAME = 0.02  # of a time: as fast
CLAIM = "More workers are not always faster."


def workers(effort: Effort) -> Figure:
    """Time to the target against the number of workers, at one learning rate and with one tuned for each number."""
    fixed = {n: example(n) for n in COUNTS}
    best = {n: tuned(fixed[n], effort.seed) for n in effort.each(COUNTS, "tuning the learning rate of {} workers")}
    times = [{n: predicted_time(of[n], effort.seed) for n in COUNTS} for of in (fixed, best)]
    seen = [
        {n: simulated_time(of[n], effort, told[n]) for n in SHOWN}
        for of, told in zip((fixed, best), times, strict=True)
    ]
    most = limit(fixed[16], seed=effort.seed).active_workers["mean_square"]
    rate = fixed[1].learning_rate
    names = (f"learning rate {rate:g}", "tuned for each number")
    curves = [theory(names[i], COUNTS, times[i].values(), i) for i in range(2)]
    curves += [simulated("", SHOWN, seen[i].values(), i) for i in range(2)]
    marks = [] if most is None else [Mark("x", most, f"limit at {rate:g}")]
    panel = Panel("", Axis("active workers", log=True), Axis("time to target", "s", log=True), curves, marks)
    return Figure("workers", CLAIM, _slows(times[0]), _caption(rate, most, times, seen, best), [panel])


def _slows(times: dict[int, float]) -> bool:
    """Whether some number of workers above the fastest takes at least a tenth longer."""
    fastest = min(times, key=times.__getitem__)
    return any(times[n] > 1.1 * times[fastest] for n in times if n > fastest)


def _took(workers: int, time: float, seen: TargetTime) -> str:
    if math.isfinite(time):
        return f"{workers} take {seconds(time)} (simulated {interval(seen)})"
    return f"{workers} never get there (simulated: {interval(seen)})"


def _caption(rate, most, times, seen, best) -> list[str]:
    fixed, free = times
    fastest = min(fixed, key=fixed.__getitem__)
    told = [_took(n, fixed[n], seen[0][n]) for n in SHOWN if n >= 16]
    level = min(n for n in free if free[n] <= (1.0 + SAME) * min(free.values()))
    slowest = max(free[n] for n in free if n >= level) / min(free.values())
    after = "no number above is slower" if slowest <= 1.0 + SAME else f"more are up to {slowest:.2f} times slower"
    rates = listed(f"{best[n].learning_rate:.3g} for {n}" for n in (1, 8, 64))
    off = np.median([
        abs(one[n].mean / told[n] - 1.0)
        for one, told in zip(seen, times, strict=True) for n in SHOWN
        if one[n].mean is not None and math.isfinite(told[n])
    ])  # fmt: skip
    return [
        f"At learning rate {rate:g} {fastest} workers are fastest, {seconds(fixed[fastest])}; {listed(told)}.",
        f"The mean-square limit lies at {most} workers.",
        f"With a learning rate tuned for each number ({rates}) {level} workers are within {100 * SAME:.0f} % of the "
        f"best time, {seconds(min(free.values()))}, and {after}: one takes {seconds(free[1])} (simulated "
        f"{interval(seen[1][1])}), 64 take {seconds(free[64])} (simulated {interval(seen[1][64])}).",
        f"Theory and simulation differ by {100 * off:.1f} % (median of all dots).",
    ]
