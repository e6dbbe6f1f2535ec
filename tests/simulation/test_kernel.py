"""The compiled kernel is the protocol, event for event, under every policy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.protocol import POLICIES, Deliveries, Drop, Expire, Start, Step, Unsent
from stalewise.protocol.rules import BOUNDED, GROUPED, KEPT_BY, NEEDS_BOUND, ON_STALE, ONE_EACH
from stalewise.simulation.events import DROP, HOLD, STEP, UNSENT
from stalewise.simulation.kernel import Records, run
from stalewise.simulation.loop import TRAINER, VirtualCluster
from stalewise.simulation.quadratic import FATES, fleet_of, problem_of
from stalewise.study import make_study

LAWS = (
    "constant(1)",
    "gamma(1, 4)",
    "exponential(1)",
    "lognormal(1, 1)",
    "uniform(0.5, 1.5) + constant(0.1)",
    "mixture([constant(0.3), pareto(2, 1.5)], [0.7, 0.3])",
    "regimes([gamma(0.5, 9), weibull(3, 0.8)], [5, 6])",
)
WEIGHTS = ("constant", "inverse", "polynomial(0.5)", "hinge(0.5, 2)", "delay-adaptive(3)")
HORIZON = 12.3


@st.composite
def studies(draw):
    """Any cluster under any policy, with any settings that have a meaning under it."""
    workers = draw(st.integers(1, 9))
    policy = draw(st.sampled_from(POLICIES))
    schedule = {"policy": policy, "learning_rate": 0.05, "staleness_weight": draw(st.sampled_from(WEIGHTS))}
    schedule["local_steps"] = draw(st.sampled_from([1, 1, 3]))
    if draw(st.booleans()):
        schedule |= {"momentum": draw(st.sampled_from([0.5, 0.9])), "nesterov": draw(st.booleans())}
    schedule["weight_decay"] = draw(st.sampled_from([0.0, 0.3]))
    if policy in GROUPED:
        schedule["group"] = draw(st.integers(1, workers if policy in ONE_EACH else 12))
    if policy in NEEDS_BOUND or (policy in BOUNDED and draw(st.booleans())):
        schedule["max_staleness"] = draw(st.integers(0, 12))
        schedule["on_stale"] = draw(st.sampled_from(KEPT_BY.get(policy, ON_STALE)))
    if policy == "event-triggered":
        schedule["trigger"] = draw(st.sampled_from([0.2, 0.6]))
        schedule["on_quiet"] = draw(st.sampled_from(["refresh", "keep"]))
    cluster = {"workers": workers, "compute": draw(st.sampled_from(LAWS))}
    cluster["start"] = draw(st.sampled_from(["together", "staggered"]))
    cluster["service"] = draw(st.sampled_from(["constant(0)", "constant(0.2)", "exponential(0.1)"]))
    if draw(st.booleans()):
        cluster["sample_time"], schedule["batch_size"] = 0.01, draw(st.sampled_from([1, 40]))
    if schedule["local_steps"] > 1:
        cluster["compute"] = draw(st.sampled_from(LAWS[:-1]))  # regimes have no such sum
    if workers > 2 and draw(st.booleans()):
        few = draw(st.integers(1, workers - 1))
        cluster["group"] = [{"count": few}, {"count": workers - few, "compute": draw(st.sampled_from(LAWS[:-1]))}]
        cluster["group"][0]["sample_time"] = draw(st.sampled_from([0.0, 0.02]))
    noise = draw(st.sampled_from([0.0, 0.1]))
    workload = {"eigenvalues": [1.0, 0.1], "gradient_noise": noise, "start": 1.0}
    if schedule["local_steps"] == 1:
        workload["noise_growth"] = draw(st.sampled_from([0.0, [0.3, 0.1]]))
    return make_study({"workload": workload, "cluster": cluster, "schedule": schedule, "target": {"loss": 0.005}})


def local_noise(study):
    """Variance of what local steps send, over that of one gradient: each step's noise, as far as later ones keep it."""
    kept = 1.0 - study.learning_rate * study.workload.modes().eigenvalues
    return sum(kept ** (2 * step) for step in range(study.schedule.local_steps))


def plain(study, seed):
    """Drive the protocol in a plain loop; events, loss at the end, and the server."""
    delay_rng, noise_rng = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    eigenvalues, variance, growth, x = study.workload.modes()
    variance, growth = variance * local_noise(study) / study.batch_size, growth / study.batch_size
    velocity, schedule = np.zeros_like(x), study.schedule
    server = study.server()
    triggered = study.rules().trigger > 0
    delivered, read, computed = Deliveries(), {}, {}

    def gradient(worker):
        """What a worker has computed, step by step; with a trigger its noise is drawn now, else by the step."""
        here = read[worker]
        for _ in range(study.schedule.local_steps):
            here = here - study.learning_rate * eigenvalues * here
        sent = (read[worker] - here) / study.learning_rate
        noise = variance + growth * 0.5 * float(eigenvalues @ read[worker] ** 2)
        if triggered and noise.max() > 0:
            sent += np.sqrt(noise) * [noise_rng.standard_normal() for _ in x]
        computed[worker] = sent, noise
        return float(np.sqrt(np.sum(sent**2)))

    cluster = VirtualCluster(study, server, delay_rng, gradient)
    read.update({i.worker: x.copy() for i in cluster.first if isinstance(i, Start)})
    events = []
    while cluster.next_time <= HORIZON:
        now, worker, instructions = next(cluster)
        if worker != TRAINER:
            if not triggered:
                gradient(worker)
            delivered.add(worker, computed[worker])
        kind, staleness = HOLD, -1
        for one in instructions:
            match one:
                case Step(gradients=contributions) as step:
                    kind, staleness = STEP, contributions[-1].staleness
                    weights = np.array([c.weight for c in contributions])
                    sent, noises = (np.array(part) for part in zip(*delivered.used(step), strict=True))
                    along = weights @ sent / len(contributions) + schedule.weight_decay * x
                    noise = weights**2 @ noises
                    if noise.max() > 0 and not triggered:
                        along = along + np.sqrt(noise) / len(contributions) * [noise_rng.standard_normal() for _ in x]
                    velocity = schedule.momentum * velocity + along
                    along = along + schedule.momentum * velocity if schedule.nesterov else velocity
                    x = x - study.learning_rate * along
                case Drop(staleness=age):
                    kind, staleness = DROP, age
                    delivered.last(worker)
                case Expire(worker=other):
                    delivered.oldest(other)
                case Unsent():
                    kind, staleness = UNSENT, 0
                    delivered.last(worker)
                case Start(worker=other):
                    read[other] = x.copy()
        events.append((now, worker, kind, staleness))
    return np.array(events).reshape(-1, 4), 0.5 * float(eigenvalues @ x**2), server


def compiled(study, seed):
    """The same through the kernel."""
    grid = np.array([0.0, HORIZON])
    records = Records(grid, np.zeros(2), np.zeros(2), np.zeros(4096, np.int64), np.zeros((4000, 4)))
    rngs = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    counts = run(fleet_of(study), study.rules(), problem_of(study), records, *rngs)
    log = records.log[: counts.events]
    log[log[:, 2] == HOLD, 3] = -1
    return log, records, counts


@settings(max_examples=400, deadline=None)
@given(study=studies(), seed=st.integers(0, 10_000))
def test_events_are_those_of_the_protocol(study, seed):
    """Same generators in, same events out: times, workers, fates, staleness, and the loss they lead to."""
    events, loss, server = plain(study, seed)
    logged, records, counts = compiled(study, seed)
    np.testing.assert_array_equal(logged, events)
    assert records.loss[-1] == pytest.approx(loss, rel=1e-9)
    assert records.updates[-1] == server.version
    for fate in FATES:
        assert getattr(counts, fate) == getattr(server.tally, fate), fate
