r"""Event-triggered communication saves traffic.

A gradient :math:`g \sim N(\mu, \sigma^2 I_d)` is sent if its norm exceeds c. With :math:`\nu = |\mu|^2/\sigma^2`

.. math:: p = P(\chi'^2_d(\nu) > c^2/\sigma^2), \qquad
          \mathrm E[g\,1] = k\mu, \quad k = P(\chi'^2_{d+2}(\nu) > c^2/\sigma^2),

so that a mode of curvature lambda is damped by eta lambda k R while p R gradients a second are sent. k/p is at least 1:
what is kept back is what carries least. Both follow the loss on its way down.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from stalewise.claims.figure import (
    Axis,
    Curve,
    Effort,
    Figure,
    Panel,
    interval,
    measured,
    seconds,
    simulated,
    theory,
    with_error,
)
from stalewise.claims.questions import example
from stalewise.planning.objectives import traffic_of
from stalewise.simulation import simulate
from stalewise.study import Study
from stalewise.trajectory import TargetTime, Trajectory, settling_time

Array = NDArray[np.float64]
WORKERS, RATE, NOISE, TARGET = 8, 0.05, 0.05, 0.02
CURVATURES = (0.25, 0.5, 0.75, 1.0)
TRIGGERS = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 0.75])  # norm of a gradient
SLOW = 0.25  # seconds that a gradient sent holds the shared link
REFRESH, KEEP, LINKED = "refresh", "keep", "shared link"
CASES = {REFRESH: (0.0, "refresh"), KEEP: (0.0, "keep"), LINKED: (SLOW, "refresh")}
PARTS = 8  # of the seeds, for standard errors
STEP = 0.02  # of the mean field [s]
CLAIM = "Event-triggered communication saves traffic."


def trigger(effort: Effort) -> Figure:
    """Vectors sent and read, and time to the target, against the trigger; with and without a slow shared link."""
    runs = {}
    for name, (link, quiet) in CASES.items():
        told = name + ": trigger {:.2g}"
        runs[name] = [_run(_study(float(norm), link, quiet), effort) for norm in effort.each(TRIGGERS.tolist(), told)]
    fine = np.linspace(0.0, TRIGGERS[-1], 26)
    field = np.array([mean_field(float(norm)) for norm in fine])
    vectors = [
        theory("sent", fine, field[:, 1], 0),
        theory("sent and read", fine, field[:, 1] + field[:, 2], 1),
        _measured("", 0, [(one.sent, one.error) for one in runs[REFRESH]]),
        _measured("", 1, [(one.sent + one.read, one.error) for one in runs[REFRESH]]),
        _measured("sent and read, on_quiet = keep", 2, [(one.sent + one.read, one.error) for one in runs[KEEP]]),
    ]
    clock = [theory("no link", fine, field[:, 0], 0)]
    names = ("", "no link, on_quiet = keep", f"link of {1 / SLOW:g} gradients a second")
    for colour, name, case in zip((0, 2, 3), names, CASES, strict=True):
        clock.append(simulated(name, TRIGGERS, [one.time for one in runs[case]], colour))
    norm = Axis("trigger (norm of a gradient)")
    panels = [
        Panel("until the target, no link", norm, Axis("vectors of parameters", log=True), vectors),
        Panel("", norm, Axis("time to target", "s", log=True), clock),
    ]
    holds = min(one.sent for one in runs[REFRESH]) < 0.9 * runs[REFRESH][0].sent
    return Figure("trigger", CLAIM, holds, _caption(runs, field, fine), panels)


@dataclass(frozen=True)
class _Spent:
    """Time to the target [s]; gradients sent and parameters read until then, standard error of the former."""

    time: TargetTime
    sent: float
    error: float
    read: float


def _measured(name: str, colour: int, pairs: list[tuple[float, float]]) -> Curve:
    values, errors = zip(*pairs, strict=True)
    return measured(name, TRIGGERS, values, errors, colour)


def _study(norm: float, link: float, quiet: str) -> Study:
    """Four modes of noisy gradients."""
    study = example(
        WORKERS, eigenvalues=list(CURVATURES), gradient_noise=NOISE, service=f"constant({link})",
        policy="event-triggered", learning_rate=RATE, loss=TARGET,
    )  # fmt: skip
    return study.with_schedule(trigger=norm, on_quiet=quiet).with_cluster(start="staggered")


def _run(study: Study, effort: Effort) -> _Spent:
    whole = simulate(study, seeds=effort.repeats(512), seed=effort.seed + 1)
    reached = whole.time_to_target
    if reached.mean is None:
        return _Spent(reached, math.nan, math.nan, math.nan)
    parts = [
        _until(simulate(study, seeds=effort.repeats(64), seed=effort.seed + 2 + i, horizon=reached.mean))
        for i in range(PARTS)
    ]
    sent, read = np.array(parts).T
    half = 0.5 * ((reached.high or reached.mean) - (reached.low or reached.mean)) / 1.96
    error = math.hypot(sent.std(ddof=1) / math.sqrt(PARTS), sent.mean() * half / reached.mean)
    return _Spent(reached, float(sent.mean()), float(error), float(read.mean()))


def _until(run: Trajectory) -> tuple[float, float]:
    """Gradients sent and parameters read by the end of a run, of one seed; who keeps its parameters reads none."""
    count = run.gradients
    seeds = count.applied / run.updates[-1]
    keeps = run.as_study().schedule.on_quiet == "keep"
    return count.applied / seeds, (count.applied + count.in_flight + (0.0 if keeps else count.unsent)) / seeds


def mean_field(norm: float) -> tuple[float, float, float]:
    """Time to the target [s], gradients sent and parameters read until then, without a link.

    Means follow the delay equation with the gain of the moment, variances the gain without delay; the squared mean
    gradient of a worker is taken as its expectation.
    """
    rate, curvature = WORKERS / 1.0, np.array(CURVATURES)
    edges = stats.gamma(4, scale=0.25).cdf(np.arange(0.0, 4.0, STEP))
    ages = np.diff(edges, append=1.0)
    mean, variance = np.ones((len(ages), len(curvature))), np.zeros(len(curvature))
    time, loss, pushed, read = [0.0], [0.5 * curvature.sum()], [0.0], [float(WORKERS)]
    while loss[-1] > 0.5 * TARGET and time[-1] < 400.0:
        p, k = sent_shares(norm, float(curvature**2 @ (mean[0] ** 2 + variance)))
        now = mean[0] - STEP * RATE * curvature * k * rate * (ages @ mean)
        noise = RATE**2 * NOISE * rate * k
        variance = variance + STEP * (noise - 2.0 * RATE * curvature * k * rate * variance)
        mean = np.vstack([now, mean[:-1]])
        time.append(time[-1] + STEP)
        loss.append(float(0.5 * curvature @ (now**2 + variance)))
        pushed.append(pushed[-1] + STEP * p * rate)
        read.append(read[-1] + STEP * rate)
        if len(loss) > 500 and abs(loss[-1] / loss[-500] - 1.0) < 1e-4:
            break
    at = settling_time(time, loss, TARGET)
    if at is None:
        return math.inf, math.nan, math.nan
    return at, float(np.interp(at, time, pushed)), float(np.interp(at, time, read))


def sent_shares(norm: float, square: float) -> tuple[float, float]:
    """p, the share of gradients that are sent, and k, the share of the mean gradient that gets through.

    Args:
        norm: Trigger, norm of a gradient.
        square: Squared norm of the mean gradient.
    """
    return tuple(float(stats.ncx2.sf(norm**2 / NOISE, len(CURVATURES) + n, square / NOISE)) for n in (0, 2))  # type: ignore[return-value]


def _caption(runs: dict[str, list[_Spent]], field: Array, fine: Array) -> list[str]:
    lines = [
        f"{WORKERS} workers, curvatures {CURVATURES[0]:g} to {CURVATURES[-1]:g}, noise {NOISE:g} a direction (norm "
        f"{math.sqrt(NOISE * len(CURVATURES)):.2f}), learning rate {RATE:g}, target {TARGET:g}."
    ]
    first = runs[REFRESH][0]
    for i in (0, len(TRIGGERS) // 2, len(TRIGGERS) - 1):
        one, at = runs[REFRESH][i], int(np.argmin(abs(fine - TRIGGERS[i])))
        against = "" if i == 0 else f" ({_change(one.sent, first.sent)})"
        lines.append(
            f"Trigger {TRIGGERS[i]:g}: {with_error(one.sent, 1.96 * one.error)} gradients sent{against}, "
            f"{interval(one.time)}; mean field {field[at, 1]:.0f}, {seconds(field[at, 0])}."
        )
    refreshed, kept = ([traffic_of(1.0, len(CURVATURES), 0.5 * (one.sent + one.read)) for one in runs[name]]
                       for name in (REFRESH, KEEP))  # fmt: skip
    slow = [one.time for one in runs[LINKED]]
    best = min((i for i, one in enumerate(slow) if one.mean is not None), key=lambda i: slow[i].mean or math.inf)
    return [
        *lines,
        f"Workers with nothing to send read the newest parameters all the same: {refreshed[0]:.0f} bytes are read and "
        f"sent without a trigger, {refreshed[-1]:.0f} ({_change(refreshed[-1], refreshed[0])}) with trigger "
        f"{TRIGGERS[-1]:g}. With on_quiet = keep, under which they read nothing, it is {kept[-1]:.0f} "
        f"({_change(kept[-1], kept[0])}), in {interval(runs[KEEP][-1].time)}.",
        f"Where {1 / SLOW:g} gradients a second pass a shared link, trigger {TRIGGERS[best]:g} is fastest: "
        f"{interval(slow[best])}, without a trigger {interval(slow[0])}.",
        "The mean field takes a gradient as normal about its mean, and squares of means as their expectation. In many "
        "dimensions the norm of noise hardly scatters, and what a gradient sent is worth, k/p, comes down to 1.",
    ]


def _change(value: float, before: float) -> str:
    saved = 1.0 - value / before
    return f"{100 * abs(saved):.0f} % {'fewer' if saved > 0 else 'more'}"
