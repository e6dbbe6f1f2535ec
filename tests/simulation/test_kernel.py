"""The compiled kernel is the protocol, event for event, under every policy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.delays.compiled import DelayStream, encode
from stalewise.protocol import POLICIES, Again, Drop, Start, Step, Unsent
from stalewise.simulation.kernel import DROP, HOLD, STEP, UNSENT, Fleet, Problem, Records, run
from stalewise.simulation.loop import VirtualCluster
from stalewise.simulation.quadratic import FATES
from studies import quadratic

LAWS = ("constant(1)", "gamma(1, 4)", "exponential(1)", "lognormal(1, 1)", "uniform(0.5, 1.5) + constant(0.1)")


@st.composite
def schedules(draw, workers):
    """Any policy with any settings that have a meaning under it."""
    policy = draw(st.sampled_from(POLICIES))
    schedule = {"policy": policy, "start": draw(st.sampled_from(["together", "staggered"]))}
    if policy in ("k-sync", "k-async"):
        schedule["group"] = draw(st.integers(1, workers))
    if policy in ("k-batch-sync", "k-batch-async", "rennala"):
        schedule["group"] = draw(st.integers(1, 12))
    if policy in ("ssp", "ringmaster") or (policy in ("async", "k-async", "k-batch-async") and draw(st.booleans())):
        schedule["max_staleness"] = draw(st.integers(0, 12))
        fates = {"ssp": ["drop"], "ringmaster": ["drop", "cancel"]}.get(policy, ["drop", "wait", "admit", "cancel"])
        schedule["on_stale"] = draw(st.sampled_from(fates))
    if policy == "event-triggered":
        schedule["trigger"] = draw(st.sampled_from([0.2, 0.6]))
        schedule["on_quiet"] = draw(st.sampled_from(["refresh", "keep"]))
    return schedule


def plain(study, horizon, seed):
    """Drive the protocol in a plain loop; events, loss at the end, and the tally."""
    delay_rng, noise_rng = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    law, workers = study.cluster.delay(), study.active_workers
    eigenvalues, variance, x = study.workload.modes()
    server = study.server()
    triggered = study.rules().trigger > 0
    held = {worker: [] for worker in range(workers)}
    read = {}

    def gradient(worker):
        """The gradient about to be delivered; with a trigger its noise is drawn now, else by the step."""
        g = eigenvalues * read[worker]
        if triggered and variance.max() > 0:
            g = g + np.sqrt(variance) * [noise_rng.standard_normal() for _ in x]
        held[worker].append(g)
        return float(np.sqrt(np.sum(g**2)))

    residual = law.mean if study.cluster.start == "staggered" else None
    stream = DelayStream(encode(law.components()), workers, delay_rng)
    cluster = VirtualCluster(server, stream, residual_mean=residual, norm=gradient)
    read.update({i.worker: x.copy() for i in cluster.first if isinstance(i, Start)})
    events = []
    while cluster.next_time <= horizon:
        now, worker, instructions = next(cluster)
        if not triggered:
            gradient(worker)
        kind, staleness = HOLD, server.version - server.reading.get(worker, server.version)
        for one in instructions:
            match one:
                case Step(gradients=contributions):
                    kind, staleness = STEP, contributions[-1].staleness
                    mean = np.mean([held[c.worker].pop(0) for c in contributions], axis=0)
                    if variance.max() > 0 and not triggered:
                        scale = np.sqrt(variance / len(contributions))
                        mean = mean + scale * [noise_rng.standard_normal() for _ in x]
                    x = x - study.learning_rate * mean
                case Drop(staleness=age):
                    kind, staleness = DROP, age
                    held[worker].pop()
                case Unsent():
                    kind, staleness = UNSENT, 0
                    held[worker].pop()
                case Start(worker=other):
                    read[other] = x.copy()
                case Again():
                    pass
        events.append((now, worker, kind, staleness if kind != HOLD else -1))
    return np.array(events), 0.5 * float(eigenvalues @ x**2), server


def compiled(study, horizon, seed):
    """The same through the kernel."""
    law = study.cluster.delay()
    eigenvalues, variance, start = study.workload.modes()
    fleet = Fleet(study.active_workers, encode(law.components()), law.mean, study.cluster.start == "staggered")
    grid = np.array([0.0, horizon])
    records = Records(grid, np.zeros(2), np.zeros(2), np.zeros(4096, np.int64), np.zeros((4000, 4)))
    problem = Problem(eigenvalues, np.sqrt(variance), start, study.learning_rate)
    rngs = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    counts = run(fleet, study.rules(), problem, records, *rngs)
    log = records.log[: counts.events]
    log[log[:, 2] == HOLD, 3] = -1
    return log, records, counts


@settings(max_examples=300, deadline=None)
@given(data=st.data(), law=st.sampled_from(LAWS), workers=st.integers(1, 9), noise=st.sampled_from([0.0, 0.1]),
       seed=st.integers(0, 10_000))  # fmt: skip
def test_events_are_those_of_the_protocol(data, law, workers, noise, seed):
    """Same generators in, same events out: times, workers, fates, staleness, and the loss they lead to."""
    study = quadratic(law, workers, 0.05, noise=noise, **data.draw(schedules(workers)))
    events, loss, server = plain(study, 12.3, seed)
    logged, records, counts = compiled(study, 12.3, seed)
    np.testing.assert_array_equal(logged, events)
    assert records.loss[-1] == pytest.approx(loss, rel=1e-12)
    assert records.updates[-1] == server.version
    for fate in FATES:
        assert getattr(counts, fate) == getattr(server.tally, fate), fate
