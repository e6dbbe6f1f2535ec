"""Plans of networks: theory shortlists, pilots race, full runs decide; within a budget, on hands that may be lost."""

import importlib
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from on_ray import REAL
from stalewise.delays import parse_delay
from stalewise.dynamics import step_limit
from stalewise.errors import InputError
from stalewise.hands import Hands, RayHands, local_ray
from stalewise.planning import Goal, arms, plan, reasons
from stalewise.planning.arms import Arm, Shown, show
from stalewise.planning.finals import Finals
from stalewise.planning.knobs import structures
from stalewise.planning.paces import HARDLY_LESS, QUARTER_MORE, pace, raced
from stalewise.planning.race import Race
from stalewise.planning.search import is_fresh
from stalewise.prediction.pilots import Curves
from stalewise.simulation import simulate
from stalewise.staleness import arrivals
from stalewise.study import make_study

LINKS = "constant(0.5)", "constant(0.25)"


def network(workers, target=0.4, **schedule):
    """A small network on uneven workers."""
    return make_study(
        {
            "workload": {"kind": "my_task:small", "path": str(Path(__file__).parents[1])},
            "cluster": {"workers": workers, "compute": "gamma(1, 2)"},
            "schedule": {"batch_size": 32, **schedule},
            "target": {"loss": target},
        }
    )


@pytest.mark.parametrize(("objective", "held"), [("time", None), ("cost", None), ("time", "async")])
def test_nothing_raced_is_beaten_and_nothing_left_out_is_needed(objective, held):
    """Of what is left out each is beaten in drift and gradients, or lies between others that are raced."""
    study = network(16, **({"policy": held} if held else {}))
    goal = Goal(objective)
    paces = [pace(one, goal, 1000, 0) for one in structures(study)]
    chosen = raced(paces, held)
    assert 2 <= len(chosen) <= 7
    assert {is_fresh(one.study.policy) for one in chosen} == {True, False}
    for one in chosen:
        for other in chosen:
            drift, samples = other.drift / one.drift, other.samples / one.samples
            needed = [c for c in chosen if is_fresh(c.study.policy) == is_fresh(one.study.policy)] == [one]
            assert needed or not (drift > 1 and samples > 1)
    ends = min(one.samples for one in chosen), max(one.samples for one in chosen)
    for one in paces:
        better = any(
            (other.drift >= one.drift and other.samples >= one.samples)
            or (other.drift >= HARDLY_LESS * one.drift and other.samples >= QUARTER_MORE * one.samples)
            for other in paces
            if other is not one
        )
        assert one in chosen or better or ends[0] <= one.samples <= ends[1]


def test_a_pace_is_what_a_schedule_does():
    """Drift and gradients of full asynchrony: the exact limit, N gradients a cycle; worker-seconds have a price."""
    study = network(8, policy="async")
    by_time, by_cost = (pace(study, Goal(objective, price=3.0), 1000, 0) for objective in ("time", "cost"))
    assert by_time.samples == pytest.approx(8.0 * 32, rel=1e-6) == by_cost.samples * 24
    alone = pace(study.with_schedule(active_workers=1), Goal(), 1000, 0)
    assert alone.drift == pytest.approx(2.0, rel=1e-3)  # h < 2, one update a second
    exact = step_limit(arrivals(study.with_schedule(learning_rate=1.0))).mean_square
    assert by_time.drift == pytest.approx(8.0 * exact, rel=0.16)


CLUSTERS = [
    {"workers": 16, "compute": "gamma(1, 4)"},
    {"workers": 16, "compute": "lognormal(1, 1)"},
    {"workers": 16, "compute": "pareto(1, 1.5)"},
    {"group": [{"count": 4, "compute": "gamma(1, 4)"}, {"count": 12, "compute": "gamma(5, 4)"}]},
    {"group": [{"count": 14, "compute": "gamma(1, 4)"}, {"count": 2, "compute": "gamma(10, 4)"}]},
]


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda one: str(one.get("compute", "groups")))
def test_why_thresholds_on_async_are_not_raced(cluster):
    """None of 15 raises the largest stable drift by more than a quarter, and what raises it costs gradients for it."""
    study = network(16, policy="async").with_cluster(**{"workers": None, "compute": None, **cluster})
    plain = pace(study, Goal(), 1000, 0)
    for mode in ("drop", "wait", "admit"):
        for bound in (8, 15, 23, 30, 45):
            one = pace(study.with_schedule(max_staleness=bound, on_stale=mode), Goal(), 1000, 0)
            drift, samples = one.drift / plain.drift, one.samples / plain.samples
            assert drift < 1.25 and samples < 1.01
            assert drift < 1.05 or samples < 1.1 / drift


def test_an_arm_goes_on_where_it_was_held_and_begins_anew_where_not():
    """In two stages, in one process or with all that was held lost in between: the same losses and cost."""
    study = network(4, policy="async", learning_rate=0.02)
    arm = Arm(study, arrivals(study), 2, 0, 0.5, 1000)
    first = show(*arm.call([4.0], None).arguments)
    went_on = show(*arm.call([4.0, 9.0], None).arguments)
    arms.HELD.clear()
    anew = show(*arm.call([4.0, 9.0], None).arguments)
    assert went_on == anew and went_on["samples"] > first["samples"]
    assert anew["samples"] == pytest.approx(arm.cost(9.0), rel=0.25)
    arms.HELD.clear()


@pytest.mark.parametrize("how", ["text", "object"])
def test_an_arm_of_another_cluster_is_another_one(how):
    """Two studies planned in one process, of one schedule: the second was answered with the first one's pilots."""
    study, law = network(4, policy="async", learning_rate=0.02), "constant(1)"
    other = study.with_cluster(compute=law) if how == "text" else study.with_delay(parse_delay(law))
    first, second = (Arm(one, arrivals(one), 2, 0, 0.5, 1000) for one in (study, other))
    arms.HELD.clear()
    alone = show(*second.call([16.0], None).arguments)
    arms.HELD.clear()
    show(*first.call([16.0], None).arguments)
    assert show(*second.call([16.0], None).arguments) == alone
    arms.HELD.clear()


def _line(arm, level, slope):
    """What an arm would have shown whose loss falls as a straight line, over 16 s."""
    time = np.linspace(0.0, 16.0, 33)
    curves = Curves(time, time, (np.tile(level - slope * time, (2, 1)),), (1.0,), (False,), 100)
    return Shown(arm, curves)


def test_the_order_of_arms():
    """Those that arrive by what they spend, then the others by their loss; for cost few workers win."""
    study = network(8, policy="async", learning_rate=0.02)
    few = study.with_schedule(active_workers=2)
    wide, narrow = (Arm(one, arrivals(one), 2, 0, 0.5, 1000) for one in (study, few))
    fast, slow, never = _line(wide, 1.8, 0.2), _line(narrow, 1.8, 0.1), _line(wide, 1.8, 0.01)
    assert fast.time() == pytest.approx(7.0, rel=1e-2) and slow.time() == pytest.approx(14.0, rel=1e-2)
    assert math.isinf(never.time())
    assert sorted((never, slow, fast), key=lambda one: one.order(Goal())) == [fast, slow, never]
    assert sorted((never, slow, fast), key=lambda one: one.order(Goal("cost"))) == [slow, fast, never]
    limited = Goal("cost", time=8.0)
    assert sorted((slow, fast), key=lambda one: one.order(limited)) == [fast, slow]


def test_one_run_has_no_band():
    """Of one seed nothing is known of others: it was told as 7 to 7 s over seeds."""
    study = network(8, policy="async", learning_rate=0.02)
    one = _line(Arm(study, arrivals(study), 1, 0, 1.0, 1000), 1.8, 0.2)
    text = reasons.headline(one, Goal(), ended=False)
    assert "s (one run), for" in text and "over seeds" not in text
    assert "over seeds" in reasons.headline(replace(one, arm=replace(one.arm, seeds=2)), Goal(), ended=False)


def racers(workers=4):
    """Six learning rates of full asynchrony."""
    study = network(workers, target=0.25, policy="async")
    some = [study.with_schedule(learning_rate=float(rate)) for rate in 0.1 * 2.0 ** np.arange(6)]
    return [Arm(one, arrivals(one), 2, 0, 0.5, 1000) for one in some]


def race(hands, budget=math.inf):
    """One for the least time."""
    return Race(hands, Goal(), None, budget, 32, lambda _share, _what: None)


def test_a_race_keeps_to_its_budget_and_finds_the_best():
    """The winner's own full runs are within a seventh of the best of all."""
    some, free = racers(), race(Hands())
    best = free.halved(some, 1.0)[0].arm.study
    seen = {
        one.study.learning_rate: simulate(one.study, seeds=6, horizon=90.0).time_to_target.mean or math.inf
        for one in some
    }
    assert seen[best.learning_rate] < 1.15 * min(seen.values())
    short = race(Hands(), 0.3 * free.spent)
    short.halved(some, 0.8)
    assert short.spent <= 0.3 * free.spent and short.ended


def test_a_plan_is_kept_and_taken_up(tmp_path, monkeypatch):
    """The second time nothing is run; cut off in the middle, it ends as if it had not been."""
    study = network(4)
    runs = []

    def counting(*arguments):
        if len(runs) == counting.most:
            raise KeyboardInterrupt
        runs.append(arguments[1])
        return show(*arguments)

    monkeypatch.setattr(arms, "show", counting)
    counting.most = 30
    with pytest.raises(KeyboardInterrupt):
        plan(study, gradients=3000, hands=Hands(tmp_path))
    counting.most = math.inf
    arms.HELD.clear()
    first, before = plan(study, gradients=3000, hands=Hands(tmp_path)), len(runs)
    again = plan(study, gradients=3000, hands=Hands(tmp_path))
    assert before > 40 and len(runs) == before
    assert again.as_dict() == first.as_dict()
    assert 0 < first.gradients <= 3000
    assert any(one.startswith(f"The search cost {first.gradients:.0f} gradients of 32") for one in first.reasons)
    assert first.checked.time_to_target.mean is not None
    assert {is_fresh(one["schedule"]["policy"]) for one in first.alternatives} == {True, False}
    rows = [(one["time_to_target"], one["cost"], one["traffic"]) for one in first.front]
    assert rows == sorted(rows) and not any(a != b and np.less_equal(a, b).all() for a in rows for b in rows)
    cheapest = min(one["cost"] for one in first.alternatives if one["time_to_target"])
    assert min(cost for _, cost, _ in rows) <= cheapest
    names = [one["rule"] for one in first.baselines]
    assert len(names) == 8 and all(one["note"] for one in first.baselines)


def test_the_plan_says_how_sure_it_is():
    """Times at other learning rates, the regret over noise and delays; the limit moves as the exact ones do."""
    found = plan(network(4, policy="async", momentum=0.0), unsure={"spread": 1.5})
    (flat,) = (reason for reason in found.reasons if reason.startswith("How flat"))
    assert f"{found.study.learning_rate:.3g}, beside it" in flat and flat.count("(") >= 5
    (doubt,) = (reason for reason in found.reasons if reason.startswith("If what was assumed"))
    assert "gradient noise 1.5 times" in doubt and "delays 1.5 times" in doubt
    more, less = (float(part) for part in doubt.split("at the start by ")[1].split(" %")[0].split(" and "))
    limits = []
    for shape in (2.0, 2.0 / 1.5**2, 2.0 * 1.5**2):
        study = found.study.with_cluster(compute=f"gamma(1, {shape!r})").with_schedule(max_staleness=None)
        limits.append(step_limit(arrivals(study.with_schedule(learning_rate=1.0))).mean_square)
    assert [more, less] == pytest.approx([100 * (one / limits[0] - 1) for one in limits[1:]], abs=1.0)
    with pytest.raises(InputError, match="curvature is for quadratics"):
        plan(network(4), unsure={"curvature": 2.0})


def test_how_flat_it_is_about_the_pick():
    """By full runs, which chose it; by pilots another learning rate was the best, and called so in the same answer."""
    found = plan(network(1), gradients=2000.0)
    (flat,) = (reason for reason in found.reasons if reason.startswith("How flat"))
    assert f"time: {found.study.learning_rate:.3g}, beside it" in flat
    assert found.reasons[-2].startswith("The search cost")
    assert any("with one worker nothing is stale" in reason for reason in found.reasons)


def test_what_limits_a_network_is_told():
    """A link twice as fast saves what planning for it anew does; workers without one halve the time twice as fast."""
    slow, fast = (network(4, 0.25, policy="async", momentum=0.0).with_cluster(service=law) for law in LINKS)
    before = plan(slow)
    (limits,) = (reason for reason in before.reasons if reason.startswith("What limits"))
    said = int(limits.split("the link (twice as fast) ")[1].split(" %")[0])
    seen = [simulate(found.study, seeds=64, seed=50, starts=64).time_to_target.mean for found in (before, plan(fast))]
    assert None not in seen and 100 * (seen[1] / seen[0] - 1) == pytest.approx(said, abs=10)
    assert "staleness" in limits and said < -25
    free, one = network(4, 0.25, policy="async", momentum=0.0), network(1, 0.25, policy="async", momentum=0.0)
    stale, fresh = plan(free), plan(one.with_cluster(compute="gamma(0.25, 2)"))  # as many updates, none stale
    (limits,) = (reason for reason in stale.reasons if reason.startswith("What limits"))
    assert "compute (twice as fast) -50 %" in limits
    said = int(limits.split("same update rate) ")[1].split(" %")[0])
    seen = [simulate(found.study, seeds=64, seed=50, starts=64).time_to_target.mean for found in (stale, fresh)]
    assert None not in seen and 100 * (seen[1] / seen[0] - 1) == pytest.approx(said, abs=10)


def test_a_plan_holds_for_any_start():
    """Its time, its prediction and its check are over starts, which alone move single runs here by half and more."""
    found = plan(network(4, policy="async", momentum=0.0), gradients=4000.0)
    told = float(found.reasons[0].split(" in about ")[1].split(" s")[0])
    times = [
        simulate(found.study, seeds=4, seed=100 * i, horizon=3.0 * told).time_to_target.mean or math.inf
        for i in range(12)
    ]
    assert max(times) > 1.15 * min(times)
    seen = simulate(found.study, seeds=48, seed=500, starts=48, horizon=3.0 * told).time_to_target
    for said in (found.predicted.time_to_target, found.checked.time_to_target):
        assert max(said.low, seen.low) <= min(said.high, seen.high)
    assert told == pytest.approx(seen.mean, rel=0.2)


def test_more_seeds_are_those_of_a_longer_run():
    """Full runs in blocks that go on from a look, then from each other, are what as many at once are, paid for once."""
    study = network(4, policy="async", learning_rate=0.05)
    few = Arm(study, arrivals(study), 4, 0, 1.0, 1000)
    one = race(Hands())
    (look,) = one.show([replace(few, seeds=2)], [4.0], "a look")
    (first,) = one.full([few], [6.0], "few")
    (both,) = one.full([replace(few, seeds=7)], [9.0], "more")
    at_once = race(Hands())
    for until in (4.0, 6.0, 9.0):
        (whole,) = at_once.show([replace(few, seeds=7)], [until], "many")
    time = both.curves.time
    assert time[-1] >= 9.0 and len(time) == len(first.curves.time) + len(time[time > first.curves.time[-1]])
    for row, other in zip(both.curves.losses[0], whole.curves.losses[0], strict=True):
        np.testing.assert_allclose(row, np.interp(time, whole.curves.time, other), rtol=0.02)
    assert one.spent == pytest.approx(whole.curves.samples, rel=1e-6)
    assert [each.arm.seeds for each in one.looks] == [2] and one.best_known == [both]
    np.testing.assert_array_equal(both.first(4).curves.losses[0], both.curves.losses[0][:4])
    assert look.arm.blocks()[0].name == few.blocks()[0].name and not few.blocks()[1].is_look


def _race_of(some, held=None):
    """A race that has shown these."""
    one = race(Hands())
    one.held = held
    one.shown = {each.arm.name: each for each in some}
    return one


def _known(policy, time, seeds, budget, **schedule):
    """An arm that reaches the target after so long, or never."""
    study = network(4, policy=policy, **{"learning_rate": 0.02, **schedule})
    arm = Arm(study, arrivals(study), seeds, 0, budget, 1000)
    shown = _line(arm, 0.4 + 0.1 * min(time, 1e3), 0.1)
    curves = replace(shown.curves, losses=(np.tile(shown.curves.losses[0][:1], (seeds, 1)),))
    return Shown(arm, curves)


def test_the_policy_that_is_given_is_planned_for():
    """Synchrony is twice as fast, and is not taken where another policy is given; both are told."""
    stale, fresh = _known("async", 14.0, 2, 0.2), _known("sync", 7.0, 2, 0.2)
    others = [_known("sync", 8.0, 2, 0.2, learning_rate=0.04), _known("sync", 9.0, 2, 0.2, learning_rate=0.08)]
    one = _race_of([fresh, stale, *others], "async")
    assert one.leaders([fresh, *others, stale]) == [stale, fresh]
    assert stale in one._both([fresh, *others, stale], 1)
    last = Finals(one, lambda study: Arm(study, arrivals(study), 4, 0, 1.0, 1000), rate_is_given=True)
    assert last.pick([stale, fresh]) == (stale, stale, fresh)
    assert replace(last, race=_race_of([fresh, stale])).pick([stale, fresh]) == (fresh, stale, fresh)
    found = plan(network(2, 0.25, policy="async", active_workers=2).with_cluster(compute="constant(1)"), gradients=2500)
    assert found.study.policy == "async"
    assert any("ynchronous" in reason or "resh gradients" in reason for reason in found.reasons)


def test_what_is_taken_has_settled():
    """More seeds decide where they settle; else fewer do, and looks only among themselves."""
    few, many_ = _known("async", 6.0, 4, 1.0), _known("async", math.inf, 12, 1.0, learning_rate=0.04)
    better = _known("async", 7.0, 12, 1.0, learning_rate=0.03)
    last = Finals(_race_of([]), lambda study: Arm(study, arrivals(study), 4, 0, 1.0, 1000), rate_is_given=True)
    assert last.pick([few, many_])[0] == few
    assert last.pick([few, many_, better])[0] == better
    run, pilots = _known("async", 5.0, 2, 1.0), _known("async", math.inf, 4, 0.2, learning_rate=0.04)
    assert last.pick([pilots, run])[0] == run


def test_a_run_of_the_race_goes_on_and_is_paid_once():
    """Whole runs have one name whatever pilots they stand for; what was shown longer stays, its cost with it."""
    study = network(4, policy="async", learning_rate=0.05)
    arm = Arm(study, arrivals(study), 2, 0, 0.2, 1000)
    one = race(Hands())
    (long,) = one.show([arm.whole], [8.0], "a round")
    spent = one.spent
    assert one.affords([replace(arm, seeds=4).whole], [5.0])
    (again,) = one.show([replace(arm, seeds=4).whole], [5.0], "more seeds")
    assert again.curves.time[-1] == long.curves.time[-1] >= 8.0 and one.spent == spent
    assert one._cost([arm.whole], [8.0]) == 0.0


@pytest.mark.parametrize("changes", [{"optimizer": "Adam", "learning_rate": 0.01}, {"batch_size": 2}])
def test_the_cost_of_pilots_that_are_the_run_itself(changes):
    """Where no pilot is cheaper an arm costs what the run does; it was taken for a fifth."""
    study = network(4, policy="async", **{"learning_rate": 0.05, **changes})
    arm = Arm(study, arrivals(study), 2, 0, 0.2, 1000)
    one = race(Hands())
    one.show([arm], [20.0], "a look")
    assert one.spent == pytest.approx(arm.cost(20.0), rel=0.25)


def test_a_budget_that_is_too_small_is_told():
    """It ends early, says so, and still answers; one that is none is refused."""
    found = plan(network(4, target=0.1, policy="async", momentum=0.0), gradients=150.0)
    assert found.reasons[0].startswith("The budget was spent before this policy had been followed down to 0.1")
    assert not any("reaches the target" in reason for reason in found.reasons)
    assert any("ended the search early" in reason for reason in found.reasons)
    with pytest.raises(InputError, match=r"gradients must be at least \d+ here, what a first look at \d+ schedules"):
        plan(network(4), gradients=50.0)
    with pytest.raises(InputError, match="gradients must be positive"):
        plan(network(4), gradients=-1.0)


@pytest.mark.parametrize(
    "keys",
    [{"optimizer": "Adam"}, {"delay_compensation": 0.1}, {"compression": "bfloat16"}],
    ids=lambda keys: next(iter(keys)),
)
def test_settings_of_networks_alone_are_planned_with(keys):
    """Staleness that is counted does not depend on them; it was refused as that of a quadratic with them."""
    found = plan(network(4, **keys), gradients=3000.0)
    (name,) = keys
    assert getattr(found.study.schedule, name) == keys[name]
    assert {is_fresh(one["schedule"]["policy"]) for one in found.alternatives} == {True, False}
    assert found.gradients <= 1.1 * 3000.0


def test_batches_are_chosen_where_samples_cost_time():
    """Dear samples ask for small batches, cheap ones for large ones; the answer says what others take."""
    sizes = {}
    for cost in (0.5, 0.002):
        study = network(4, policy="async", momentum=0.0, batch_size=None).with_cluster(sample_time=cost)
        found = plan(study, gradients=2500.0)
        sizes[cost] = found.study.batch_size
        (told,) = (reason for reason in found.reasons if reason.startswith("Batches of"))
        assert "of a mean cycle" in told and f"Batches of {sizes[cost]}" in told
    assert sizes[0.5] <= 8 < sizes[0.002]


def test_what_is_given_is_held():
    """Workers, momentum and policy stay, synchrony beside them; a learning rate that is given is not tuned."""
    found = plan(network(4, policy="async", active_workers=3, momentum=0.5), gradients=4000.0)
    assert (found.study.policy, found.study.active_workers, found.study.schedule.momentum) == ("async", 3, 0.5)
    assert {one["schedule"]["momentum"] for one in found.alternatives} == {0.5}
    fixed = plan(network(4, policy="async", learning_rate=0.03), gradients=4000.0)
    assert fixed.study.learning_rate == 0.03 and not fixed.baselines
    assert any("held as given" in reason for reason in fixed.reasons)


@pytest.mark.parametrize("mark", [pytest.param(0, marks=REAL)])
def test_a_race_on_hands_that_are_lost(tmp_path, monkeypatch, mark):
    """Two processes, one of which dies in the middle of a pilot: the same as in this one."""
    some = racers()[:4]
    expected = race(Hands()).halved(some, 1.0)
    gone = tmp_path / "gone"

    def fragile(*arguments):
        if len(arguments[-1]) > 1 and not gone.exists():
            gone.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return importlib.import_module("stalewise.planning.arms").show(*arguments)  # not what this test put there

    monkeypatch.setattr(arms, "show", fragile)
    with local_ray(2) as ray:
        found = race(RayHands(ray)).halved(some, 1.0)
    assert gone.exists()
    assert [one.arm.name for one in found] == [one.arm.name for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.curves.samples == other.curves.samples
        np.testing.assert_allclose(one.said.loss, other.said.loss, rtol=1e-3)


def test_a_target_above_the_start_is_refused():
    """There is nothing to plan; this divided by a time of zero."""
    with pytest.raises(InputError, match=r"target.loss must be below the loss at the start"):
        plan(network(4, target=50.0, policy="async"), gradients=2000.0)
