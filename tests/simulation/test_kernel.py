"""The compiled kernel is the protocol, event for event."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.delays.compiled import DelayStream, encode
from stalewise.protocol import Drop, Start, Step
from stalewise.simulation.kernel import DROP, HOLD, STEP, run_async, run_sync
from stalewise.simulation.loop import VirtualCluster
from studies import quadratic

LAWS = ("constant(1)", "gamma(1, 4)", "exponential(1)", "lognormal(1, 1)", "uniform(0.5, 1.5) + constant(0.1)")


def plain(study, horizon, seed):
    """Drive the protocol in a plain loop; events, x at the end, and the tally."""
    delay_rng, noise_rng = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    law, workers = study.cluster.delay(), study.active_workers
    eigenvalues, variance, x = study.workload.modes()
    server = study.server()
    residual = law.mean if study.cluster.start == "staggered" else None
    cluster = VirtualCluster(server, DelayStream(encode(law.components()), workers, delay_rng), residual_mean=residual)
    read = {i.worker: x.copy() for i in cluster.first if isinstance(i, Start)}
    events = []
    while cluster.next_time <= horizon:
        now, worker, instructions = next(cluster)
        kind, staleness = HOLD, 0
        for one in instructions:
            match one:
                case Step(gradients=contributions):
                    kind, staleness = STEP, contributions[-1].staleness
                    gradient = np.mean([eigenvalues * read[c.worker] for c in contributions], axis=0)
                    if variance.max() > 0:
                        scale = np.sqrt(variance / len(contributions))
                        gradient = gradient + scale * [noise_rng.standard_normal() for _ in x]
                    x = x - study.learning_rate * gradient
                case Drop(staleness=age):
                    kind, staleness = DROP, age
                case Start(worker=other):
                    read[other] = x.copy()
        events.append((now, worker, kind, staleness))
    return np.array(events), 0.5 * float(eigenvalues @ x**2), server.tally


def compiled(study, horizon, seed):
    """The same through the kernel."""
    law, workers, bound = study.cluster.delay(), study.active_workers, study.schedule.max_staleness
    eigenvalues, variance, start = study.workload.modes()
    grid, loss, updates = np.array([0.0, horizon]), np.zeros(2), np.zeros(2)
    counts, log = np.zeros(4096, np.int64), np.zeros((4000, 4))
    head = (encode(law.components()), law.mean, study.cluster.start == "staggered", workers)
    tail = (study.learning_rate, eigenvalues, np.sqrt(variance), start, grid, np.random.default_rng(seed),
            np.random.default_rng(seed + 1), loss, updates, counts, log)  # fmt: skip
    bound_or_none = -1 if bound is None else bound
    done = run_sync(*head, *tail) if study.policy == "sync" else run_async(*head, bound_or_none, *tail)
    return log[: done[5]], float(loss[-1]), done


@settings(max_examples=40, deadline=None)
@given(
    law=st.sampled_from(LAWS),
    workers=st.integers(1, 9),
    bound=st.none() | st.integers(0, 12),
    policy=st.sampled_from(["async", "sync"]),
    start=st.sampled_from(["together", "staggered"]),
    noise=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 10_000),
)
def test_events_are_those_of_the_protocol(law, workers, bound, policy, start, noise, seed):
    """Same generators in, same events out: times, workers, fates, staleness, and the loss they lead to."""
    schedule = {"policy": policy, "start": start}
    if policy == "async" and bound is not None:
        schedule["max_staleness"] = bound
    study = quadratic(law, workers, 0.05, noise=noise, **schedule)
    events, loss, tally = plain(study, 12.3, seed)
    logged, seen, done = compiled(study, 12.3, seed)
    np.testing.assert_array_equal(logged, events)
    assert seen == pytest.approx(loss, rel=1e-12)
    assert done[1] == tally.dropped
    if policy == "async":
        assert done[0] == tally.applied
