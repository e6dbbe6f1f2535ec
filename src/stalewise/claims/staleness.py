"""What staleness does to the decay at one learning rate: a little accelerates, much diverges."""

import math

import numpy as np
from numpy.typing import NDArray

from stalewise.claims.figure import Axis, Curve, Effort, Figure, Mark, Panel, listed, measured, theory, with_error
from stalewise.claims.questions import example
from stalewise.delays import parse_delay
from stalewise.dynamics import best_staleness, decay_rate, fleet_gain_limit, gain_limit, step_limit
from stalewise.prediction import predict
from stalewise.simulation import simulate
from stalewise.simulation.quadratic import run_ensemble
from stalewise.staleness import arrivals
from stalewise.study import Study
from stalewise.trajectory import finite

Array = NDArray[np.float64]
LAWS = {"constant": "constant(1)", "gamma(4)": "gamma(mean=1, shape=4)", "memoryless": "exponential(1)"}
STEP = 0.05  # learning rate x curvature
SOFT = 0.1  # curvature of the soft mode, over that of the stiff one
COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 28)
SHOWN = (1, 2, 4, 6, 7, 8, 10, 14, 20, 28)
BLOCKS, BLOCK = 16, 64  # of seeds, for standard errors
LATE, LATEST = (8.0, 18.0, 4.0), (20.0, 50.0, 10.0)  # cycles at which two windows begin, and how long they are
ACCELERATES = "A small staleness need not slow convergence, it may accelerate it (implicit momentum)."

LIMITED = (2, 4, 8, 16, 32, 64)
MEASURED = (2, 4, 16, 64)
ABOUT = (0.95, 1.05)  # of the limit, learning rates at which growth is measured
EARLY = (4.0, 10.0, 4.0)  # cycles: the growth of memoryless workers is carried by ever fewer seeds
SIDES = (32, 40, 44, 50, 60)  # workers whose losses are shown
DIVERGES = "A large staleness diverges, and the limit can be told beforehand."


def acceleration(effort: Effort) -> Figure:
    """Decay rate an update against mean staleness at one small learning rate: three laws of delay, and a soft mode."""
    cases = [(name, law, 1.0) for name, law in LAWS.items()] + [("constant, curvature 0.1", LAWS["constant"], SOFT)]
    curves, rates = [], {}
    for colour, (name, law, curvature) in enumerate(effort.each(cases, "decay under {0[0]} delays")):
        rates[name] = [_gain(_one_mode(n, law, curvature), curvature, effort.seed) for n in COUNTS]
        seen = [_seen_gain(_one_mode(n, law, curvature), effort) for n in SHOWN]
        rates[name, "seen"] = seen
        curves.append(theory(name, np.subtract(COUNTS, 1), rates[name], colour))
        values, errors = zip(*seen, strict=True)
        curves.append(measured("", np.subtract(SHOWN, 1), values, errors, colour))
    panel = Panel(
        "", Axis("mean staleness", "updates"), Axis("decay rate, over that of fresh gradients"), curves,
        [Mark("y", 1.0, "fresh gradients")],
    )  # fmt: skip
    sample = _loss_panel(effort)
    holds = all(max(rates[name]) > 1.02 for name, _, _ in cases)
    return Figure("acceleration", ACCELERATES, holds, _accelerated(cases, rates), [panel, sample])


def _one_mode(workers: int, law: str, curvature: float = 1.0) -> Study:
    """A single mode without noise, from 1, all workers in their stationary state."""
    study = example(workers, eigenvalues=[curvature], gradient_noise=0.0, compute=law, learning_rate=STEP, loss=1e-9)
    return study.with_cluster(start="staggered")


def _gain(study: Study, curvature: float, seed: int) -> float:
    """Decay of the root mean square an update, over that of fresh gradients; NaN where it grows."""
    timing, step = arrivals(study, seed=seed), STEP * curvature
    if step >= step_limit(timing).mean_square:
        return math.nan
    return (decay_rate(step, timing) or math.nan) / timing.rate / -math.log1p(-step)


def _seen_gain(study: Study, effort: Effort) -> tuple[float, float]:
    """The same in virtual time, with a standard error over blocks of seeds."""
    curvature = study.workload.modes().eigenvalues[0]
    constant = study.delay().cv == 0.0
    growth = _growth(
        study, LATEST if constant else LATE, BLOCKS if constant else effort.repeats(BLOCKS) * BLOCK, effort
    )
    gain = 0.5 * growth / study.active_workers / math.log1p(-STEP * curvature)
    return float(gain.mean()), float(gain.std(ddof=1) / math.sqrt(len(gain)))


def _growth(study: Study, windows: tuple[float, float, float], seeds: int, effort: Effort) -> Array:
    """Growth of the mean loss between two windows of time [1/s], of each block of seeds."""
    first, second, length = windows
    time = np.concatenate([np.linspace(begin, begin + length, 40) for begin in (first, second)])
    run = run_ensemble(study, time, seeds=seeds, seed=effort.seed + 1)
    blocks = run.loss.reshape(min(BLOCKS, seeds), -1, len(time)).mean(axis=1)
    return np.log(blocks[:, 40:].mean(axis=1) / blocks[:, :40].mean(axis=1)) / (second - first)


def _loss_panel(effort: Effort) -> Panel:
    """Loss against updates under constant delays: fresh, best, and too stale."""
    curves = []
    for colour, workers in enumerate((1, 8, 24)):
        study, most = _one_mode(workers, LAWS["constant"]).with_cluster(start="together"), 96
        told = simulate(study, seeds=1, seed=effort.seed, horizon=most / workers)
        foretold = predict(study.with_target(time_limit=most / workers), seed=effort.seed)
        name = f"staleness {workers - 1}"
        inside = np.array(foretold.updates) <= most
        curves.append(theory(name, np.array(foretold.updates)[inside], np.array(foretold.loss)[inside], colour))
        at = np.unique(np.searchsorted(told.updates, np.arange(0, most + 1, 8 if workers < 24 else 24)))
        at = at[at < len(told.updates)]
        values = np.array([(told.updates[i], told.loss[i]) for i in at])
        curves.append(measured("", values[:, 0], values[:, 1], np.zeros(len(at)), colour))
    return Panel("constant delays, curvature 1", Axis("updates"), Axis("loss", log=True), curves)


def _accelerated(cases, rates) -> list[str]:
    lines = [
        f"One mode, learning rate x curvature {STEP:g}; decay of the root mean square, in time over the update rate."
    ]
    for name, law, curvature in cases:
        of = np.array(rates[name])
        top = int(np.nanargmax(of))
        n = COUNTS[top]
        last = np.flatnonzero(of > 1.0)[-1]
        most = best_staleness(STEP * curvature, parse_delay(law)).speed_up
        seen = rates[name, "seen"]
        peak = max(range(len(SHOWN)), key=lambda i: of[COUNTS.index(SHOWN[i])])
        slower = "" if last == len(COUNTS) - 1 else f"; beyond {COUNTS[last] - 1} slower than fresh gradients"
        lines.append(
            f"{name.capitalize()}: fastest at staleness {n - 1}, {of[top]:.2f} times as fast as fresh gradients "
            f"(at {SHOWN[peak] - 1} {of[COUNTS.index(SHOWN[peak])]:.2f}, simulated {_plain(seen[peak])}; the mean of "
            f"the delay equation, at its best delay, {most:.2f}){slower}."
        )
    lines.append(
        f"Simulated rates are those from cycle {LATE[0]:g} to {LATE[1] + LATE[2]:g} (constant delays to "
        f"{LATEST[1] + LATEST[2]:g}), which near the peak, a double root, are not quite those of the long run. "
        "It is the effect of a learning rate that is too small: one tuned for fresh gradients is faster still "
        "(figure workers). Stiff modes gain most, soft ones little at the staleness that is best for stiff ones."
    )
    return lines


def _plain(pair: tuple[float, float]) -> str:
    """A value with its error, if that shows in the third digit."""
    return with_error(*pair) if pair[1] > 5e-4 else f"{pair[0]:.2f}"


def divergence(effort: Effort) -> Figure:
    """Losses on both sides of the limit, and the limit against workers: mathematics, and growth in virtual time."""
    curves, ends = _both_sides(effort)
    laws = {name: law for name, law in LAWS.items() if name != "constant"}
    known, seen, limits = {}, {}, []
    for colour, (name, law) in enumerate(laws.items()):
        known[name] = [_limit(n, law, effort.seed) for n in LIMITED]
        seen[name] = [
            _seen_limit(n, law, known[name][LIMITED.index(n)], effort)
            for n in effort.each(MEASURED, name + " delays: limit of {} workers")
        ]
        scaled = np.array(LIMITED)
        limits.append(theory(f"{name}, mean square", LIMITED, scaled * known[name], colour))
        values, errors = np.array(seen[name]).T
        limits.append(measured("", MEASURED, np.multiply(MEASURED, values), np.multiply(MEASURED, errors), colour))
        edge = [gain_limit(parse_delay(law))] * len(LIMITED)
        if math.isfinite(edge[0]):
            limits.append(
                Curve(f"{name}, delay equation's mean", list(map(float, LIMITED)), edge, "aside", colour)  # type: ignore[arg-type]
            )
    scaled_axis = Axis("learning rate x curvature x workers")
    study = example(16)
    panels = [
        Panel(f"learning rate {study.learning_rate:g}, gamma(4) delays", Axis("time", "s"), Axis("loss", log=True),
              curves),
        Panel("limit", Axis("active workers", log=True), scaled_axis, limits),
    ]  # fmt: skip
    return Figure("divergence", DIVERGES, _told(ends), _limits_told(ends, laws, known, seen), panels)


def _both_sides(effort: Effort) -> tuple[list[Curve], dict[int, tuple[bool, float]]]:
    """Losses at one learning rate; by workers whether growth is foretold, and the simulated end over the start."""
    curves, ends = [], {}
    for colour, workers in enumerate(SIDES):
        study = example(workers, loss=1e-9)
        foretold = predict(study.with_target(time_limit=40.0), seed=effort.seed)
        told = simulate(study, seeds=effort.repeats(512), seed=effort.seed + 1, horizon=40.0)
        keep = np.array(foretold.time) <= 40.0
        curves.append(
            theory(f"{workers} workers", np.array(foretold.time)[keep], np.array(foretold.loss)[keep], colour)
        )
        curves.append(_dots(told, colour))
        ends[workers] = (foretold.diverges, told.loss[-1] / told.loss[len(told.loss) // 2])
    return curves, ends


def _dots(told, colour: int) -> Curve:
    """Twenty points of a simulated loss."""
    at = np.linspace(0, len(told.time) - 1, 21).astype(int)[1:]
    pick = [[finite(one[i]) for i in at] for one in (told.loss, told.loss_low, told.loss_high)]
    return Curve("", [told.time[i] for i in at], pick[0], "simulated", colour, pick[1], pick[2])


def _limit(workers: int, law: str, seed: int) -> float:
    """Mean-square limit of learning rate x curvature."""
    return step_limit(arrivals(_one_mode(workers, law), seed=seed)).mean_square


def _seen_limit(workers: int, law: str, expected: float, effort: Effort) -> tuple[float, float]:
    """Step at which the mean loss neither grows nor falls in virtual time, with a standard error."""
    study, seeds = _one_mode(workers, law), effort.repeats(BLOCKS) * BLOCK
    low, high = (_growth(study.with_schedule(learning_rate=s * expected), EARLY, seeds, effort) for s in ABOUT)
    slope = (high.mean() - low.mean()) / (ABOUT[1] - ABOUT[0])
    zeros = ABOUT[0] - low / slope
    return expected * float(zeros.mean()), expected * float(zeros.std(ddof=1) / math.sqrt(len(zeros)))


def _told(ends: dict[int, tuple[bool, float]]) -> bool:
    """Whether losses grow where that was foretold, and there alone, and both happen."""
    grows = {n: ratio > 1.0 for n, (_, ratio) in ends.items()}
    return all(grows[n] == foretold for n, (foretold, _) in ends.items()) and len(set(grows.values())) == 2


def _limits_told(ends, laws, known, seen) -> list[str]:
    low = [f"{n} workers ({ratio:.2g})" for n, (foretold, ratio) in ends.items() if not foretold]
    high = [f"{n} ({ratio:.2g})" for n, (foretold, ratio) in ends.items() if foretold]
    lines = [
        f"Learning rate 0.05: convergence is foretold for {listed(low)}, divergence for {listed(high)}; in brackets "
        "the simulated mean loss after 40 s over that after 20 s."
    ]
    for name, law in laws.items():
        told = dict(zip(LIMITED, known[name], strict=True))
        of = [f"{told[n]:.4f} (simulated {with_error(*one)})" for n, one in zip(MEASURED, seen[name], strict=True)]
        off = [one[0] / told[n] - 1.0 for n, one in zip(MEASURED, seen[name], strict=True)]
        mean, edge = gain_limit(parse_delay(law)), fleet_gain_limit(parse_delay(law), rate=16.0)
        paper = (
            f"the characteristic roots of the delay equation give {mean / 16:.4f} for 16, {_over(mean / 16, told[16])}"
            f" (with delays half an update shorter {_or_none(edge / 16)})"
            if math.isfinite(mean)
            else "the characteristic roots of the delay equation give no limit at all: the mean converges while the "
            "mean square, and so the loss, does not"
        )
        lines.append(
            f"{name.capitalize()} delays: learning rate x curvature may be {of[0]} for 2 workers, {of[1]} for 4, "
            f"{of[2]} for 16, {of[3]} for 64; simulation differs by {100 * max(map(abs, off)):.1f} % at most; {paper}."
        )
    lines.append(
        f"Errors are standard errors. Simulated limits are those at which the mean loss does not grow from cycle "
        f"{EARLY[0]:g} to {EARLY[1] + EARLY[2]:g}: of memoryless workers a few seeds carry its growth, later more and "
        "more of it, so that they come out high."
    )
    return lines


def _over(value: float, truth: float) -> str:
    share = value / truth - 1.0
    return f"{100 * abs(share):.1f} % too {'high' if share > 0 else 'low'}"


def _or_none(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "none"
