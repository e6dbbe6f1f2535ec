"""Invariants of the servers over long random orders of events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.errors import InputError
from stalewise.protocol import AsyncServer, Contribution, Drop, Hold, Start, Step, SyncServer

WORKERS = st.integers(1, 8)
EVENTS = st.lists(st.integers(0, 10**6), min_size=50, max_size=400)


def settled(server):
    """No gradient is in two places, none is nowhere."""
    tally = server.tally
    parts = (tally.applied, tally.dropped, tally.cancelled, tally.unsent, tally.lost, tally.in_flight)
    return tally.computed == sum(parts) and min(parts) >= 0


@settings(deadline=None, max_examples=50)
@given(WORKERS, EVENTS)
def test_mean_staleness_of_busy_workers_is_one_less_than_their_number(workers, order):
    """Exactly: an update ages all other gradients by one, so ages seen and in flight add up to N-1 an update."""
    server = AsyncServer(workers)
    assert server.begin() == [Start(worker, 0) for worker in range(workers)]
    seen = 0
    for updates, event in enumerate(order, start=1):
        worker = event % workers
        read = server.reading[worker]
        step, start = server.finished(worker)
        assert step == Step(updates, (Contribution(worker, updates - 1 - read),))
        assert start == Start(worker, updates)
        seen += updates - 1 - read
        in_flight = sum(server.version - version for version in server.reading.values())
        assert seen + in_flight == (workers - 1) * updates
        assert settled(server) and server.tally.in_flight == workers


@settings(deadline=None, max_examples=50)
@given(WORKERS, st.integers(0, 6), EVENTS)
def test_nothing_staler_than_the_threshold_is_applied(workers, threshold, order):
    """A gradient is applied if and only if its staleness is within the threshold; a drop takes no step."""
    server = AsyncServer(workers, threshold)
    server.begin()
    ages = 0
    for event in order:
        worker, before = event % workers, server.version
        staleness = before - server.reading[worker]
        ages += staleness
        verdict, start = server.finished(worker)
        assert start == Start(worker, server.version)
        if staleness <= threshold:
            assert verdict == Step(before + 1, (Contribution(worker, staleness),))
        else:
            assert verdict == Drop(worker, staleness) and server.version == before
        in_flight = sum(server.version - version for version in server.reading.values())
        assert ages + in_flight == (workers - 1) * server.version
        assert settled(server)
    assert server.tally.applied + server.tally.dropped == len(order)


@settings(deadline=None, max_examples=50)
@given(WORKERS, EVENTS)
def test_synchronous_rounds_wait_for_everybody(workers, order):
    """A step holds every worker's gradient once, at staleness 0, and restarts all of them."""
    server = SyncServer(workers)
    server.begin()
    for event in order:
        at_work = sorted(server.reading)
        worker = at_work[event % len(at_work)]
        instructions = server.finished(worker)
        if len(at_work) > 1:
            assert instructions == [Hold(worker)]
        else:
            step, *starts = instructions
            assert step == Step(server.version, tuple(Contribution(w, 0) for w in range(workers)))
            assert starts == [Start(w, server.version) for w in range(workers)]
        assert settled(server) and server.tally.in_flight == workers
    assert server.version == len(order) // workers


@pytest.mark.parametrize("make", [AsyncServer, lambda n: AsyncServer(n, 2), SyncServer], ids=["async", "drop", "sync"])
@settings(deadline=None, max_examples=40)
@given(workers=WORKERS, order=EVENTS)
def test_tally_adds_up_whoever_dies_and_returns(make, workers, order):
    """With workers lost and back at random: every start ends as exactly one of applied, dropped, lost or in flight."""
    server = make(workers)
    starts = len(server.begin())
    gone: set[int] = set()
    for event in order:
        at_work = sorted(server.reading)
        kind, pick = event % 4, event // 4
        if (kind == 0 or not at_work) and gone:
            worker = sorted(gone)[pick % len(gone)]
            gone.discard(worker)
            instructions = server.joined(worker)
        elif kind == 1 and at_work:
            worker = at_work[pick % len(at_work)]
            gone.add(worker)
            instructions = server.lost(worker)
        elif at_work:
            instructions = server.finished(at_work[pick % len(at_work)])
        else:
            continue
        for instruction in instructions:
            if isinstance(instruction, Step):
                assert len({g.worker for g in instruction.gradients}) == len(instruction.gradients) > 0
        starts += sum(isinstance(instruction, Start) for instruction in instructions)
        assert settled(server)
        assert server.tally.computed == starts
        assert not gone & set(server.reading)
    assert server.tally.in_flight <= workers


def test_the_last_loss_closes_a_synchronous_round():
    """If the worker all wait for dies, the step is taken without it; it joins at the new version."""
    server = SyncServer(3)
    server.begin()
    server.finished(0)
    server.finished(2)
    step, *starts = server.lost(1)
    assert step == Step(1, (Contribution(0, 0), Contribution(2, 0)))
    assert starts == [Start(0, 1), Start(2, 1)]
    assert server.joined(1) == [Start(1, 1)]
    assert (server.tally.applied, server.tally.lost, server.tally.in_flight) == (2, 1, 3)


def test_losing_everybody_leaves_nothing_to_do():
    """No step without a gradient; the first worker back carries on alone."""
    server = SyncServer(2)
    server.begin()
    assert server.lost(0) == server.lost(1) == []
    assert server.joined(1) == [Start(1, 0)]
    assert server.finished(1) == [Step(1, (Contribution(1, 0),)), Start(1, 1)]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: AsyncServer(0), r"workers must be a whole number, 1 or more, got 0"),
        (lambda: SyncServer(2.5), r"workers must be a whole number"),
        (lambda: AsyncServer(1, -1), r"max_staleness must be a whole number, 0 or more, got -1"),
        (lambda: AsyncServer(1).finished(0), r"worker 0 has no gradient in flight"),
        (lambda: AsyncServer(1).lost(0), r"worker 0 has no gradient in flight"),
        (lambda: begun(AsyncServer(1)).joined(0), r"worker 0 is at work already; only a lost worker can join"),
        (lambda: begun(SyncServer(2), 0).finished(0), r"worker 0 has no gradient in flight"),
        (lambda: begun(SyncServer(2), 0).joined(0), r"worker 0 waits for the others already"),
    ],
)
def test_impossible_events_are_refused(act, message):
    """An event that cannot have happened is an error, not a silent miscount."""
    with pytest.raises(InputError, match=message):
        act()


def begun(server, *finished):
    server.begin()
    for worker in finished:
        server.finished(worker)
    return server
