"""First hitting times under several laws of delay."""

import math

import numpy as np

from stalewise.claims.figure import Axis, Curve, Effort, Figure, Panel, measured, theory, with_error
from stalewise.claims.questions import example
from stalewise.delays import parse_delay
from stalewise.dynamics import ModeLoss
from stalewise.simulation.quadratic import run_ensemble
from stalewise.study import Study

LAWS = {
    "constant": "constant(1)",
    "gamma(4)": "gamma(mean=1, shape=4)",
    "shifted exponential": "shifted_exponential(shift=0.5, mean=0.5)",
    "memoryless": "exponential(1)",
    "lognormal, cv 1": "lognormal(mean=1, cv=1)",
}
COUNTS = (4, 8, 12, 16, 24, 32)
CURVATURES = np.geomspace(0.1, 1.0, 10).round(4)
RATE, NOISE, TARGET, WORKERS = 0.04, 0.2, 0.1, 12
HORIZON, SAVED, STEP, PATHS = 100.0, 2000, 0.1, 1280
CLAIM = "First hitting times of the delay equation quantify training time under various laws of delay."


def hitting(effort: Effort) -> Figure:
    """Law and mean of the first time at the target: paths of the delay equation, and workers in virtual time."""
    laws, means, errors, panels = {}, {}, {}, []
    for colour, (name, text) in enumerate(effort.each(list(LAWS.items()), "first hitting times: {0[0]}")):
        told = {n: _foretold(text, n, effort) for n in COUNTS}
        seen = {n: _seen(text, n, effort) for n in COUNTS}
        means[name] = ({n: told[n][0] for n in COUNTS}, {n: float(seen[n].mean()) for n in COUNTS})
        errors[name] = {n: float(seen[n].std(ddof=1) / math.sqrt(len(seen[n]))) for n in COUNTS}
        laws[name] = [*_law_curves(name, told[WORKERS][1:], seen[WORKERS], colour)]
        panels += [
            theory(name, COUNTS, means[name][0].values(), colour),
            measured("", COUNTS, means[name][1].values(), errors[name].values(), colour),
        ]
    shown = [curve for name in ("constant", "gamma(4)", "memoryless") for curve in laws[name]]
    time = Axis("first hitting time", "s")
    answer = [
        Panel(f"{WORKERS} workers", time, Axis("share of runs at the target"), shown),
        Panel("mean", Axis("active workers", log=True), Axis("mean first hitting time", "s", log=True), panels),
    ]
    off = {name: max(abs(one[0][n] / one[1][n] - 1.0) for n in COUNTS) for name, one in means.items()}
    return Figure("hitting", CLAIM, max(off.values()) < 0.1, _caption(means, errors, off, effort), answer)


def _foretold(text: str, workers: int, effort: Effort) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean first hitting time of the delay equation [s], and its law: times [s] and shares."""
    loss = ModeLoss.of_workers(CURVATURES, RATE, workers, parse_delay(text), NOISE)
    rng = np.random.default_rng(effort.seed)
    found = loss.hitting_time(TARGET, HORIZON, STEP, effort.repeats(PATHS), rng, settling=False)
    return found.mean, found.time, found.cdf


def _seen(text: str, workers: int, effort: Effort) -> np.ndarray:
    """First time at the target of every seed in virtual time [s], shape (seeds,)."""
    time = np.linspace(0.0, HORIZON, SAVED + 1)
    run = run_ensemble(_study(text, workers), time, seeds=effort.repeats(512), seed=effort.seed + 1)
    below = run.loss <= TARGET
    return np.where(below.any(axis=1), time[below.argmax(axis=1)], HORIZON)


def _study(text: str, workers: int) -> Study:
    """Ten modes under one law of delay, workers in their stationary state, which is that of the equation."""
    study = example(
        workers, eigenvalues=CURVATURES.tolist(), gradient_noise=NOISE, compute=text, learning_rate=RATE, loss=TARGET
    )
    return study.with_cluster(start="staggered")


def _law_curves(name: str, told: tuple[np.ndarray, np.ndarray], seen: np.ndarray, colour: int) -> list[Curve]:
    """Shares of runs at the target by a time."""
    span = (seen.min() - 1.0, seen.max() + 1.0)
    inside = (told[0] >= span[0]) & (told[0] <= span[1])
    at = np.linspace(*span, 16)
    share = (seen[:, None] <= at).mean(axis=0)
    error = np.sqrt(share * (1.0 - share) / len(seen))
    return [theory(name, told[0][inside], told[1][inside], colour), measured("", at, share, error, colour)]


def _caption(means, errors, off, effort: Effort) -> list[str]:
    lines = [
        f"Ten curvatures from {CURVATURES[0]:g} to {CURVATURES[-1]:g}, noise {NOISE:g}, learning rate {RATE:g}, target "
        f"{TARGET:g}, delays of mean 1 s, workers "
        "in their stationary state (those that begin together come half a cycle later, less where delays scatter)."
    ]
    for name, (told, seen) in means.items():
        lines.append(
            f"{name.capitalize()}: {WORKERS} workers {told[WORKERS]:.2f} s (simulated "
            f"{with_error(seen[WORKERS], 1.96 * errors[name][WORKERS])} s), 32 workers {told[32]:.2f} s (simulated "
            f"{with_error(seen[32], 1.96 * errors[name][32])} s); off by {100 * off[name]:.1f} % at most."
        )
    spread = _spreads(effort)
    lines.append(
        "The delay equation knows the noise of gradients, not that of their number: it takes arrivals as evenly "
        "spread, and delays half an update too long. Standard deviations with "
        f"{WORKERS} gamma(4) workers: {spread[0]:.2f} s, simulated {spread[1]:.2f} s; what the number of arrivals "
        f"adds by formula is {spread[2]:.2f} s."
    )
    return lines


def _spreads(effort: Effort) -> tuple[float, float, float]:
    """Standard deviation of the first hitting time [s]: delay equation, virtual time, and from arrivals alone."""
    text = LAWS["gamma(4)"]
    _, time, share = _foretold(text, WORKERS, effort)
    weight, middle = np.diff(share), 0.5 * (time[1:] + time[:-1])
    mean = weight @ middle / weight.sum()
    equation = math.sqrt(weight @ (middle - mean) ** 2 / weight.sum())
    loss = ModeLoss.of_workers(CURVATURES, RATE, WORKERS, parse_delay(text), NOISE)
    arrivals = loss.settling_time(TARGET, workers=WORKERS).spread
    return equation, float(_seen(text, WORKERS, effort).std(ddof=1)), arrivals or 0.0
