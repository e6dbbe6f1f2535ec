"""The server: each policy by its definition, and invariants over long random orders of events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.errors import InputError
from stalewise.protocol import (
    Again,
    Cancel,
    Contribution,
    Deliveries,
    Drop,
    Hold,
    Rules,
    Server,
    Start,
    Step,
    Unsent,
    rules_of,
)

WORKERS = st.integers(1, 8)
EVENTS = st.lists(st.integers(0, 10**6), min_size=50, max_size=400)


def begun(policy, workers, *finished, **settings_):
    """A server at work, after some arrivals."""
    server = Server(workers, rules_of(policy, workers, **settings_))
    server.begin()
    for worker in finished:
        server.finished(worker)
    return server


def steps(instructions):
    """The steps among instructions."""
    return [one for one in instructions if isinstance(one, Step)]


# -- definitions, one by one


def test_sync_waits_for_everybody():
    """The last of N closes the round."""
    server = begun("sync", 3, 2)
    assert server.finished(0) == [Hold(0)]
    gradients = tuple(Contribution(worker, 0) for worker in (2, 0, 1))
    assert server.finished(1) == [Step(1, gradients), Start(0, 1), Start(1, 1), Start(2, 1)]


def test_k_sync_cancels_the_stragglers():
    """The first K of N make the step; the others are stopped, and all restart."""
    server = begun("k-sync", 4, 3, group=2)
    assert server.finished(1) == [
        Step(1, (Contribution(3, 0), Contribution(1, 0))), Cancel(0), Cancel(2), *(Start(w, 1) for w in range(4)),
    ]  # fmt: skip
    assert (server.tally.applied, server.tally.cancelled, server.tally.in_flight) == (2, 2, 4)


def test_k_batch_sync_lets_a_fast_worker_give_several():
    """A worker that is early starts another gradient from the same parameters."""
    server = begun("k-batch-sync", 3, group=3)
    assert server.finished(0) == [Hold(0), Start(0, 0)]
    assert server.finished(0) == [Hold(0), Start(0, 0)]
    step, *rest = server.finished(0)
    assert step == Step(1, (Contribution(0, 0),) * 3)
    assert rest == [Cancel(1), Cancel(2), Start(0, 1), Start(1, 1), Start(2, 1)]


def test_k_async_renews_only_those_who_gave():
    """The others go on with what they read; a worker that gave waits for the step."""
    server = begun("k-async", 3, group=2)
    assert server.finished(2) == [Hold(2)]
    assert server.finished(0) == [Step(1, (Contribution(2, 0), Contribution(0, 0))), Start(2, 1), Start(0, 1)]
    assert server.finished(1) == [Hold(1)]
    assert server.finished(2) == [Step(2, (Contribution(1, 1), Contribution(2, 0))), Start(1, 2), Start(2, 2)]


def test_k_batch_async_renews_at_once():
    """Who gives reads again immediately, and may fill the buffer alone (FedBuff, gradient by gradient)."""
    server = begun("k-batch-async", 2, group=2)
    assert server.finished(0) == [Hold(0), Start(0, 0)]
    assert server.finished(0) == [Step(1, (Contribution(0, 0), Contribution(0, 0))), Start(0, 1)]
    assert server.finished(1) == [Hold(1), Start(1, 1)]
    assert server.finished(0) == [Step(2, (Contribution(1, 1), Contribution(0, 0))), Start(0, 2)]


def test_ssp_bounds_the_lead():
    """With a lead of 1, a worker two clocks ahead waits until the slowest has caught up."""
    server = begun("ssp", 2, max_staleness=1)
    assert server.finished(0) == [Step(1, (Contribution(0, 0),)), Start(0, 1)]
    assert server.finished(0) == [Step(2, (Contribution(0, 0),))]
    assert server.finished(1) == [Step(3, (Contribution(1, 2),)), Start(0, 3), Start(1, 3)]


def test_rennala_takes_only_what_is_of_the_newest_version():
    """Older gradients are thrown away; nobody is stopped."""
    server = begun("rennala", 3, group=2)
    assert server.finished(0) == [Hold(0), Start(0, 0)]
    assert server.finished(1) == [Step(1, (Contribution(0, 0), Contribution(1, 0))), Start(1, 1)]
    assert server.finished(2) == [Drop(2, 1), Start(2, 1)]
    assert server.finished(0) == [Drop(0, 1), Start(0, 1)]


def test_ringmaster_ignores_what_is_r_or_older():
    """With R = 2 (max_staleness 1) a gradient of delay 2 is dropped; its other form stops it before."""
    server = begun("ringmaster", 3, 0, 0, max_staleness=1)
    assert server.finished(1) == [Drop(1, 2), Start(1, 2)]
    stopping = begun("ringmaster", 3, 0, max_staleness=1, on_stale="cancel")
    assert stopping.finished(0) == [
        Step(2, (Contribution(0, 0),)),
        Cancel(1),
        Cancel(2),
        *(Start(w, 2) for w in range(3)),
    ]


def test_wait_holds_the_step_until_the_stalest_arrives():
    """One step then takes all that came in the meantime."""
    server = begun("async", 3, max_staleness=1, on_stale="wait")
    assert server.finished(0) == [Step(1, (Contribution(0, 0),)), Start(0, 1)]
    assert server.finished(0) == [Hold(0)]
    assert server.finished(1) == [Hold(1)]
    last = server.finished(2)
    assert last == [
        Step(2, (Contribution(0, 0), Contribution(1, 1), Contribution(2, 1))),
        *(Start(w, 2) for w in range(3)),
    ]


def test_admit_starts_no_work_that_could_be_late():
    """Bound 1 and groups of 1: at most two gradients are under way at a time."""
    server = Server(3, rules_of("async", 3, max_staleness=1, on_stale="admit"))
    assert server.begin() == [Start(0, 0), Start(1, 0)]
    assert server.finished(1) == [Step(1, (Contribution(1, 0),))]
    assert server.finished(0) == [Step(2, (Contribution(0, 1),)), Start(2, 2), Start(1, 2)]


def test_quiet_workers_refresh_or_keep():
    """A gradient not above the trigger is not sent; then the parameters are read again, or kept."""
    refresh = begun("event-triggered", 2, trigger=1.0)
    refresh.finished(0, 2.0)
    assert refresh.finished(1, 1.0) == [Unsent(1), Start(1, 1)]
    keep = begun("event-triggered", 2, trigger=1.0, on_quiet="keep")
    keep.finished(0, 2.0)
    assert keep.finished(1, 0.5) == [Unsent(1), Again(1)]
    assert keep.finished(1, 1.5) == [Step(2, (Contribution(1, 1),)), Start(1, 2)]
    assert (keep.tally.computed, keep.tally.unsent, keep.tally.applied) == (5, 1, 2)


# -- invariants


def settled(server):
    """No gradient is in two places, none is nowhere."""
    tally = server.tally
    parts = (tally.applied, tally.dropped, tally.cancelled, tally.unsent, tally.lost, tally.in_flight)
    return tally.computed == sum(parts) and min(parts) >= 0


@settings(deadline=None, max_examples=50)
@given(WORKERS, EVENTS)
def test_mean_staleness_of_busy_workers_is_one_less_than_their_number(workers, order):
    """Exactly: an update ages all other gradients by one, so ages seen and in flight add up to N-1 an update."""
    server = Server(workers)
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
    server = Server(workers, Rules(max_staleness=threshold))
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


@pytest.mark.parametrize("on_stale", ["drop", "wait", "admit", "cancel"])
@pytest.mark.parametrize("policy", ["async", "k-async", "k-batch-async"])
@settings(deadline=None, max_examples=40)
@given(workers=WORKERS, group=st.integers(1, 8), bound=st.integers(0, 6), order=EVENTS)
def test_the_bound_holds_however_it_is_kept(policy, on_stale, workers, group, bound, order):
    """In any order of arrival; somebody is always at work; wait and admit waste nothing."""
    group = {"async": 1, "k-async": min(group, workers)}.get(policy, group)
    server = Server(workers, rules_of(policy, workers, group=group, max_staleness=bound, on_stale=on_stale))
    server.begin()
    for event in order:
        at_work = sorted(server.reading)
        assert at_work
        for step in steps(server.finished(at_work[event % len(at_work)])):
            assert max(one.staleness for one in step.gradients) <= bound
            assert len(step.gradients) >= group if on_stale == "wait" else len(step.gradients) == group
        assert settled(server)
    assert server.version > 0 or len(order) < 2 * group + workers
    wasted = {"drop": server.tally.cancelled, "cancel": server.tally.dropped}
    assert wasted.get(on_stale, server.tally.dropped + server.tally.cancelled) == 0


@settings(deadline=None, max_examples=50)
@given(WORKERS, st.integers(0, 4), EVENTS)
def test_no_worker_leads_by_more(workers, lead, order):
    """Stale synchronous parallel: the clocks of workers at work are within the lead of the slowest."""
    server = Server(workers, rules_of("ssp", workers, max_staleness=lead))
    server.begin()
    clock = [0] * workers
    for event in order:
        at_work = sorted(server.reading)
        worker = at_work[event % len(at_work)]
        server.finished(worker)
        clock[worker] += 1
        assert all(clock[w] - min(clock) <= lead for w in server.reading)
        assert set(server.reading) == {w for w in range(workers) if clock[w] - min(clock) <= lead}


@pytest.mark.parametrize("policy", ["sync", "k-sync", "k-batch-sync", "rennala"])
@settings(deadline=None, max_examples=40)
@given(workers=WORKERS, group=st.integers(1, 8), order=EVENTS)
def test_synchronous_policies_apply_nothing_stale(policy, workers, group, order):
    """Every step has exactly the gradients of its group, all at staleness 0."""
    group = {"sync": 1, "k-sync": min(group, workers)}.get(policy, group)
    server = Server(workers, rules_of(policy, workers, group=group))
    server.begin()
    for event in order:
        at_work = sorted(server.reading)
        for step in steps(server.finished(at_work[event % len(at_work)])):
            assert {one.staleness for one in step.gradients} == {0}
            assert len(step.gradients) == server.rules.group
        assert settled(server)
    assert server.version > 0 or len(order) < 100


POLICIES = {
    "async": {}, "drop": {"policy": "async", "max_staleness": 2}, "sync": {}, "k-sync": {"group": 2},
    "k-batch-sync": {"group": 3}, "k-async": {"group": 2}, "k-batch-async": {"group": 3}, "rennala": {"group": 3},
    "ssp": {"max_staleness": 2}, "ringmaster": {"max_staleness": 2, "on_stale": "cancel"},
    "wait": {"policy": "async", "max_staleness": 2, "on_stale": "wait"},
    "admit": {"policy": "async", "max_staleness": 2, "on_stale": "admit"},
    "event-triggered": {"trigger": 0.5, "on_quiet": "keep"},
}  # fmt: skip


@pytest.mark.parametrize("name", POLICIES)
@settings(deadline=None, max_examples=30)
@given(workers=st.integers(2, 8), order=EVENTS)
def test_tally_adds_up_whoever_dies_and_returns(name, workers, order):
    """With workers lost and back at random: every start ends as exactly one of the fates; nobody is forgotten."""
    server = Server(workers, rules_of(**{"policy": name, **POLICIES[name]}, workers=workers))
    starts = len(server.begin())
    gone: set[int] = set()
    delivered: Deliveries[int] = Deliveries()
    for event in order:
        at_work = sorted(server.reading)
        assert at_work or gone
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
            worker = at_work[pick % len(at_work)]
            delivered.add(worker, worker)
            instructions = server.finished(worker, (pick % 7) / 7)
        else:
            continue
        for instruction in instructions:
            match instruction:
                case Step() as step:
                    assert delivered.used(step) == [one.worker for one in step.gradients] != []
                case Drop(worker=worker) | Unsent(worker=worker):
                    assert delivered.last(worker) == worker
        starts += sum(isinstance(instruction, (Start, Again)) for instruction in instructions)
        assert settled(server)
        assert server.tally.computed == starts
        assert not gone & set(server.reading)


def test_the_last_loss_closes_a_synchronous_round():
    """If the worker all wait for dies, the step is taken without it; it joins at the new version."""
    server = begun("sync", 3, 0, 2)
    step, *starts = server.lost(1)
    assert step == Step(1, (Contribution(0, 0), Contribution(2, 0)))
    assert starts == [Start(0, 1), Start(2, 1)]
    assert server.joined(1) == [Start(1, 1)]
    assert (server.tally.applied, server.tally.lost, server.tally.in_flight) == (2, 1, 3)


def test_the_loss_of_the_stalest_lets_the_step_go():
    """Who waits for a worker that dies, waits no longer."""
    server = begun("async", 2, 0, 0, max_staleness=1, on_stale="wait")
    assert server.lost(1) == [Step(2, (Contribution(0, 0),)), Start(0, 2)]


def test_the_loss_of_the_slowest_frees_the_others():
    """Stale synchronous parallel: the clock of a lost worker no longer counts; back, it begins at the slowest's."""
    server = begun("ssp", 3, 0, 1, 1, max_staleness=1)
    assert sorted(server.reading) == [0, 2]
    assert server.lost(2) == [Start(1, 3)]
    assert server.joined(2) == [Start(2, 3)]


def test_losing_everybody_leaves_nothing_to_do():
    """No step without a gradient; the first worker back carries on alone."""
    server = begun("sync", 2)
    assert server.lost(0) == server.lost(1) == []
    assert server.joined(1) == [Start(1, 0)]
    assert server.finished(1) == [Step(1, (Contribution(1, 0),)), Start(1, 1)]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Server(0), r"workers must be a whole number, 1 or more, got 0"),
        (lambda: Server(2.5), r"workers must be a whole number"),
        (lambda: Server(1).finished(0), r"worker 0 has no gradient in flight"),
        (lambda: Server(1).lost(0), r"worker 0 has no gradient in flight"),
        (lambda: begun("async", 1).joined(0), r"worker 0 is at work already; only a lost worker can join"),
        (lambda: begun("sync", 2, 0).finished(0), r"worker 0 has no gradient in flight"),
        (lambda: begun("sync", 2, 0).joined(0), r"worker 0 waits for the others already"),
    ],
)
def test_impossible_events_are_refused(act, message):
    """An event that cannot have happened is an error, not a silent miscount."""
    with pytest.raises(InputError, match=message):
        act()
