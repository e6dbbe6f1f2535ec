r"""Event-triggered communication saves traffic.

A gradient :math:`g \sim N(\mu, \sigma^2 I_d)` is sent if its norm exceeds c. With :math:`\nu = |\mu|^2/\sigma^2`

.. math:: p = P(\chi'^2_d(\nu) > c^2/\sigma^2), \qquad
          \mathrm E[g\,1] = k\mu, \quad k = P(\chi'^2_{d+2}(\nu) > c^2/\sigma^2),

so that a mode of curvature lambda is damped by eta lambda k R while p R gradients a second are sent. k/p is at least 1:
what is kept back is what carries least. Both follow the loss on its way down.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from stalewise.claims.figure import Axis, Effort, Figure, Panel, interval, measured, seconds, simulated, theory
from stalewise.claims.questions import example
from stalewise.planning.objectives import traffic_of
from stalewise.simulation import simulate
from stalewise.study import Study
from stalewise.trajectory import TargetTime, Trajectory, settling_time

Array = NDArray[np.float64]
WORKERS, RATE, NOISE, TARGET = 8, 0.05, 0.05, 0.02
CURVATURES = (0.25, 0.5, 0.75, 1.0)
TRIGGERS = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 0.75])  # norm of a gradient
LINKS = (0.0, 0.25)  # seconds that a gradient sent holds the shared link
PARTS = 8  # of the seeds, for standard errors
STEP = 0.02  # of the mean field [s]
CLAIM = "Event-triggered communication saves traffic."


def trigger(effort: Effort) -> Figure:
    """Gradients sent, bytes and time to the target against the trigger, with and without a slow shared link."""
    times: dict[float, list[TargetTime]] = {}
    sent: dict[float, list[tuple[float, float, float]]] = {}
    for link in LINKS:
        times[link], sent[link] = [], []
        for norm in effort.each(TRIGGERS, f"link {link:g} s: trigger " + "{:.2g}"):
            time, spent = _run(_study(float(norm), link), effort)
            times[link].append(time)
            sent[link].append(spent)
    fine = np.linspace(0.0, TRIGGERS[-1], 26)
    field = np.array([mean_field(float(norm)) for norm in fine])
    gradients = [
        theory("sent, mean field", fine, field[:, 1], 0),
        theory("read and sent, mean field", fine, field[:, 1] + field[:, 2], 1),
        measured("", TRIGGERS, *zip(*(one[:2] for one in sent[0.0]), strict=True), 0),
        measured("", TRIGGERS, *zip(*((one[0] + one[2], one[1]) for one in sent[0.0]), strict=True), 1),
    ]
    clock = [theory("no link, mean field", fine, field[:, 0], 0)]
    clock += [simulated(_named(link), TRIGGERS, times[link], i) for i, link in enumerate(LINKS)]
    norm = Axis("trigger (norm of a gradient)")
    panels = [
        Panel("vectors until the target, no link", norm, Axis("vectors of parameters"), gradients),
        Panel("", norm, Axis("time to target", "s", log=True), clock),
    ]
    least = min(one[0] for one in sent[0.0])
    return Figure("trigger", CLAIM, least < 0.9 * sent[0.0][0][0], _caption(times, sent, field, fine), panels)


def _named(link: float) -> str:
    return f"link of {1 / link:g} gradients a second, simulated" if link else "no link, simulated"


def _study(norm: float, link: float) -> Study:
    """Four modes of noisy gradients."""
    study = example(
        WORKERS, eigenvalues=list(CURVATURES), gradient_noise=NOISE, service=f"constant({link})",
        policy="event-triggered", learning_rate=RATE, loss=TARGET,
    )  # fmt: skip
    return study.with_schedule(trigger=norm)


def _run(study: Study, effort: Effort) -> tuple[TargetTime, tuple[float, float, float]]:
    """Time to the target; gradients sent until then, their standard error, and parameters read until then."""
    whole = simulate(study, seeds=effort.repeats(512), seed=effort.seed + 1)
    reached = whole.time_to_target
    if reached.mean is None:
        return reached, (math.nan, math.nan, math.nan)
    parts = [
        _until(simulate(study, seeds=effort.repeats(64), seed=effort.seed + 2 + i, horizon=reached.mean))
        for i in range(PARTS)
    ]
    pushed, read = np.array(parts).T
    half = 0.5 * ((reached.high or reached.mean) - (reached.low or reached.mean)) / 1.96
    error = math.hypot(pushed.std(ddof=1) / math.sqrt(PARTS), pushed.mean() * half / reached.mean)
    return reached, (float(pushed.mean()), float(error), float(read.mean()))


def _until(run: Trajectory) -> tuple[float, float]:
    """Gradients sent and parameters read by the end of a run, of one seed."""
    count = run.gradients
    seeds = count.applied / run.updates[-1]
    return count.applied / seeds, (count.applied + count.unsent + count.in_flight) / seeds


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


def _caption(times, sent, field, fine) -> list[str]:
    free, full = times[0.0], sent[0.0]
    at = int(np.nanargmin([one[0] for one in full]))
    some = int(np.argmin(abs(fine - TRIGGERS[at])))
    bytes_of = [traffic_of(1.0, len(CURVATURES), 0.5 * (one[0] + one[2])) for one in full]
    saved = 1.0 - full[at][0] / full[0][0]
    fewer = 1.0 - bytes_of[at] / bytes_of[0]
    slow = times[LINKS[1]]
    best = min((i for i, one in enumerate(slow) if one.mean is not None), key=lambda i: slow[i].mean or math.inf)
    quicker = (
        f"the fastest trigger is {TRIGGERS[best]:g}, {interval(slow[best])} in place of {interval(slow[0])}"
        if best
        else f"no trigger is faster than none ({interval(slow[0])})"
    )
    return [
        f"{WORKERS} workers, curvatures {CURVATURES[0]:g} to {CURVATURES[-1]:g}, noise {NOISE:g} a direction (norm "
        f"{math.sqrt(NOISE * len(CURVATURES)):.2f}), learning rate {RATE:g}, target {TARGET:g}.",
        f"With no trigger {full[0][0]:.0f} gradients are sent in {interval(free[0])}; with trigger {TRIGGERS[at]:g} "
        f"{full[at][0]:.0f} +- {1.96 * full[at][1]:.0f} in {interval(free[at])}: {_change(saved)} gradients, "
        f"{_change(1.0 - free[at].mean / free[0].mean)} time. The mean field gives {field[0, 1]:.0f} in "
        f"{seconds(field[0, 0])} and {field[some, 1]:.0f} in {seconds(field[some, 0])}.",
        f"Workers with nothing to send read the newest parameters all the same: in bytes read and sent it is "
        f"{_change(fewer)} ({bytes_of[0]:.0f} and {bytes_of[at]:.0f}).",
        f"Where {1 / LINKS[1]:g} gradients a second pass a shared link, {quicker}.",
        "The mean field takes the law of a gradient as normal about its mean and neglects the link; of a network's "
        "many parameters the norms hardly scatter, and k/p, what a gradient sent is worth, comes down to 1.",
    ]


def _change(saved: float) -> str:
    return f"{100 * abs(saved):.0f} % {'less' if saved > 0 else 'more'}"
