"""Plans: better than the obvious, honest about what cannot be done."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stalewise.errors import InputError
from stalewise.planning import Goal, plan
from stalewise.planning.objectives import spent
from stalewise.planning.quadratics import _ordinal
from stalewise.planning.questions import _Times, error_bars
from stalewise.planning.rules import RULES
from stalewise.planning.shortlist import guess
from stalewise.prediction.quadratic import settling
from stalewise.simulation import simulate
from stalewise.staleness import arrivals
from stalewise.study import make_study
from studies import quadratic


def open_study(law, workers, **keys):
    """A study whose schedule is left to the plan."""
    return quadratic(law, workers, 0.1, **keys).with_schedule(policy=None, learning_rate=None)


def test_plan_beats_a_grid_in_simulation():
    """The pick, simulated, is within 8 % of the best of a grid of workers and learning rates, stale and synchronous."""
    study = open_study("gamma(1, 4)", 16, noise=0.01)
    found = plan(study)
    seen = simulate(found.study, seeds=4000, seed=1, horizon=25.0).time_to_target.mean
    assert seen == pytest.approx(found.predicted.time_to_target.mean, rel=0.05)
    best = math.inf
    for policy, top in (("async", 2.0), ("sync", 16.0), ("k-batch-sync", 16.0)):
        for workers in (4, 8, 16):
            for factor in (0.35, 0.5, 0.7, 1.0):
                one = study.with_schedule(
                    policy=policy, active_workers=workers, learning_rate=factor * top / (16 if top > 2 else workers),
                    group=workers // 2 if policy == "k-batch-sync" else None,
                )  # fmt: skip
                best = min(best, simulate(one, seeds=256, seed=1, horizon=25.0).time_to_target.mean or math.inf)
    assert seen is not None and seen < 1.08 * best


def test_costs_and_traffic_are_what_is_spent():
    """Least cost takes fewer workers, a limit on the time takes more again; none on the front costs much less."""
    study = open_study("gamma(1, 4)", 16, noise=0.01)
    fast, cheap = plan(study), plan(study, goal=Goal("cost"))
    between = plan(study, goal=Goal("cost", time=1.2 * fast.predicted.time_to_target.mean))
    workers = [found.study.active_workers for found in (cheap, between, fast)]
    assert workers == sorted(workers) and workers[0] < workers[2]
    spent = [found.study.active_workers * found.predicted.time_to_target.mean for found in (cheap, between, fast)]
    assert spent[0] < spent[1] < 1.02 * spent[2]
    assert between.checked.time_to_target.mean < 1.3 * fast.checked.time_to_target.mean
    times = [one["time_to_target"] for one in fast.front]
    costs = [one["cost"] for one in fast.front]
    assert times == sorted(times) and len(times) > 2
    assert min(costs) < 0.8 * costs[0]
    less = plan(study, goal=Goal("traffic"))
    rate = less.checked.gradients.computed / less.checked.time[-1]
    assert "bytes" in less.reasons[0] and rate < fast.checked.gradients.computed / fast.checked.time[-1]


def test_a_limit_that_cannot_be_kept_is_told():
    """And the nearest schedule with it; a goal that is none is refused."""
    found = plan(open_study("gamma(1, 4)", 4, noise=0.01), goal=Goal(time=1e-3))
    assert "No schedule tried keeps all limits" in found.reasons[0]
    with pytest.raises(InputError, match="objective must be one of"):
        Goal("fun")
    with pytest.raises(InputError, match="cost must be positive"):
        Goal(cost=-1.0)
    with pytest.raises(InputError, match="margin must be above 0"):
        plan(open_study("gamma(1, 4)", 4), margin=1.5)


def test_published_rules_stand_beside_the_plan():
    """Each by its formula, none better than the plan on this study."""
    study = open_study("gamma(1, 4)", 16, noise=0.01)
    found = plan(study)
    rules = {one["rule"]: one for one in found.baselines}
    assert len(rules) == len(RULES)
    default, over = (next(one for name, one in rules.items() if key in name) for key in ("no rule", "over staleness"))
    assert over["schedule"]["staleness_weight"] == "inverse"
    assert over["schedule"]["learning_rate"] == default["schedule"]["learning_rate"]
    modes = study.workload.modes()
    group = math.ceil(modes.noise.sum() / (2 * modes.eigenvalues.min() * study.target.loss))
    assert rules["Rennala's batch"]["schedule"].get("group", 1) == group
    assert rules["Ringmaster's threshold"]["schedule"]["max_staleness"] == group - 1
    for one in found.baselines:
        assert (one["time_to_target"] or math.inf) > 0.98 * found.predicted.time_to_target.mean


def test_the_fastest_workers_take_part():
    """Groups given slow first are numbered by their speed, and a plan for the least cost leaves the slow ones out."""
    study = make_study(
        {
            "workload": {"eigenvalues": [1.0, 0.2], "gradient_noise": 1e-4},
            "cluster": {"group": [{"count": 4, "compute": "gamma(9, 4)"}, {"count": 2, "compute": "gamma(1, 4)"}]},
            "target": {"loss": 0.01},
        }
    )
    found = plan(study, goal=Goal("cost"))
    assert found.study.workers().groups[0][1].mean == pytest.approx(1.0)
    assert found.study.active_workers <= 2
    assert any("numbered by their speed" in reason for reason in found.reasons)


def test_what_limits_a_run_is_told():
    """Without noise nothing is said of it; twice a link that is always busy halves the time, faster workers nothing."""
    quiet = plan(open_study("gamma(1, 4)", 8))
    (limits,) = (reason for reason in quiet.reasons if reason.startswith("What limits"))
    assert "noise" not in limits and "link" not in limits and "compute (twice as fast) -50 %" in limits
    linked = open_study("gamma(1, 4)", 8).with_cluster(service="constant(1)")
    (limits,) = (
        reason
        for reason in plan(linked.with_schedule(policy="async", active_workers=8)).reasons
        if reason.startswith("What limits")
    )
    link, compute = (int(limits.split(f"{name} (twice as fast) ")[1].split(" %")[0]) for name in ("link", "compute"))
    assert -54 <= link <= -46 and -3 <= compute <= 3


def test_error_bars_are_the_users():
    """A wider one on the noise leaves more regret; names and factors that are none are refused."""
    study = open_study("gamma(1, 4)", 4, noise=0.02).with_schedule(policy="async", active_workers=4)

    def regret(**unsure):
        (told,) = (reason for reason in plan(study, unsure=unsure).reasons if reason.startswith("Regret"))
        part = told.split("gradient noise ")[1]
        return part.split(" times")[0], part.split(": ")[1].split(";")[0].split(")")[0]

    (own, small), (given, large) = regret(), regret(noise=1.05)
    assert (own, given) == ("1.5", "1.05")
    assert small == "never settles" or int(small.split()[0]) > int(large.split()[0])
    with pytest.raises(InputError, match="unsure must be one of"):
        plan(study, unsure={"delays": 2.0})
    with pytest.raises(InputError, match="noise must be a factor above 1, for example"):
        plan(study, unsure={"noise": 0.5})


def test_what_a_threshold_saves_is_seen_in_virtual_time():
    """A few fast and many slow workers: dropping saves what other seeds say, and the answer says how."""
    groups = [{"count": 4, "compute": "gamma(1, 4)"}, {"count": 12, "compute": "gamma(5, 4)"}]
    study = make_study(
        {
            "workload": {"eigenvalues": [1.0, 0.1], "gradient_noise": 0.02},
            "cluster": {"group": groups},
            "schedule": {"policy": "async", "active_workers": 16},
            "target": {"loss": 0.02},
        }
    )
    found = plan(study)
    (told,) = (reason for reason in found.reasons if "versions old saves" in reason)
    bounded = found.study.with_target(loss=0.9 * 0.02)  # what a plan is made for
    pair = bounded, bounded.with_schedule(max_staleness=None)
    times = [simulate(one, seeds=4000, seed=9, horizon=60.0).time_to_target.mean for one in pair]
    assert found.study.schedule.max_staleness and None not in times
    assert float(told.split("saves ")[1].split(" %")[0]) == pytest.approx(100 * (1 - times[0] / times[1]), abs=4)


def test_the_spread_of_a_log_has_its_own_error_bar(tmp_path):
    """Two standard errors: those of many logs drawn anew, by a factor of two; drift in the log widens it."""
    rng = np.random.default_rng(5)
    logs = [rng.lognormal(0.0, 0.6, 2000) for _ in range(40)]
    truth = 2.0 * np.std([one.std() / one.mean() for one in logs]) / np.mean([one.std() / one.mean() for one in logs])

    def bar(delays, law):
        path = tmp_path / "log.csv"
        ends = np.cumsum(delays)
        rows = (f"0,{end - delay!r},{end!r}" for end, delay in zip(ends.tolist(), delays.tolist(), strict=True))
        path.write_text("\n".join(["worker,start,end", *rows]))
        study = make_study(
            {
                "workload": {"eigenvalues": [1.0], "gradient_noise": 0.1},
                "cluster": {"workers": 4, "compute": f'{law}("{path}")'},
                "target": {"loss": 0.01},
            }
        )
        return error_bars(study, None)["spread"] - 1.0

    for law in ("trace", "empirical"):
        found = np.mean([bar(one, law) for one in logs[:8]])
        assert truth / 2 < found < 2 * truth
    assert bar(np.sort(logs[0]), "trace") > 2 * bar(logs[0], "trace")
    assert error_bars(open_study("gamma(1, 4)", 4), None)["spread"] == 1.3


def test_a_policy_that_is_given_is_compared_with_synchrony():
    """Of stale and synchronous gradients alone, stale ones win on these uneven delays, but not over k-batch-sync."""
    study = open_study("gamma(1, 4)", 16, noise=0.01)
    stale = plan(study.with_schedule(policy="async"))
    assert not stale.stay_synchronous and any("times as long" in reason for reason in stale.reasons)
    fresh = plan(study)
    assert fresh.study.policy == "k-batch-sync" and fresh.stay_synchronous
    assert any(reason.startswith("Apply fresh gradients alone: k-batch-sync") for reason in fresh.reasons)
    warned = [any("drawn anew" in reason for reason in found.reasons) for found in (stale, fresh)]
    assert warned == [False, True]


def test_momentum_at_its_limit_is_passed_over():
    """Constant delays, no noise: learning rates are tried at which k-async with momentum stands on its limit."""
    modes = {"eigenvalues": [1.0, 0.127, 0.0161, 0.00204, 0.000258], "gradient_noise": 0.0}
    one = make_study(
        {"workload": modes, "cluster": {"workers": 54, "compute": "constant(1)"}, "target": {"loss": 0.0039}}
    )
    found = plan(one)
    assert found.predicted.time_to_target.mean == pytest.approx(found.checked.time_to_target.mean, rel=0.01)


def test_a_target_after_four_steps_over_a_link():
    """Within 5 % of the best number of workers in simulation, as predicted; 19 of 60 were taken, 24 % slower."""
    modes = {"eigenvalues": [1.0, 0.19, 0.0364, 0.00694, 0.00132]}
    cluster = {"workers": 60, "compute": "exponential(1)", "service": "constant(0.03945)"}
    found = plan(make_study({"workload": modes, "cluster": cluster, "target": {"loss": 0.0405}}))
    times = {
        workers: simulate(found.study.with_schedule(active_workers=workers), seeds=2000, seed=1, horizon=0.6)
        for workers in (19, 24, 30, 38, 48, 60, found.study.active_workers)
    }
    seen = {workers: one.time_to_target.mean or math.inf for workers, one in times.items()}
    assert seen[found.study.active_workers] < 1.05 * min(seen.values())
    assert found.predicted.time_to_target.mean == pytest.approx(seen[found.study.active_workers], rel=0.05)


def test_what_fewer_workers_do_to_steps_of_several_gradients():
    """Update rates as arrivals have them; the time as the same structure takes it, tuned, within 10 points."""
    study = open_study("gamma(1, 4)", 12, noise=0.02).with_schedule(policy="k-batch-sync", group=4)
    found = plan(study)
    (told,) = (reason for reason in found.reasons if reason.startswith("With 6: "))
    half = plan(study.with_schedule(active_workers=6))
    whole = found.study.active_workers
    assert whole == 12 and found.study.schedule.group == half.study.schedule.group == 4
    rates = [arrivals(one.study).rate for one in (half, found)]
    assert f"{100 * (rates[0] / rates[1] - 1):+.0f}"[:3] == told.split("With 6: ")[1][:3]
    times = [simulate(one.study, seeds=2000, seed=3, horizon=40.0).time_to_target.mean for one in (half, found)]
    said = float(told.split(", ")[1].split(" %")[0])
    assert said == pytest.approx(100 * (times[0] / times[1] - 1), abs=10)


def test_what_is_given_is_held():
    """Learning rate and workers given in the schedule stay."""
    found = plan(quadratic("gamma(1, 4)", 16, 0.03, active_workers=8))
    assert found.study.learning_rate == 0.03
    assert found.study.active_workers == 8
    assert any("held as given" in reason for reason in found.reasons)


def test_synchronous_wins_when_delays_are_equal_and_noise_is_none():
    """Equal workers, no noise, one curvature range: asynchrony has nothing to win, and the plan says so."""
    found = plan(open_study("constant(1)", 8))
    assert found.stay_synchronous
    assert any("tay synchronous" in reason for reason in found.reasons)


def test_out_of_reach_is_an_answer():
    """A fixed learning rate whose floor is above the target: said, with the floor."""
    found = plan(quadratic("gamma(1, 4)", 1, 0.5, noise=1.0, target=1e-4))
    assert found.predicted.time_to_target.mean is None
    assert "No schedule tried" in found.reasons[0]


def test_where_nothing_is_ever_applied_nothing_settles():
    """Over a link that is too slow all may be cancelled: such a structure is looked at, and takes for ever."""
    study = open_study("gamma(1, 4)", 4).with_schedule(policy="async")
    timing = arrivals(study.with_schedule(learning_rate=1.0))
    never = guess(study, replace(timing, rate=0.0, acceptance=0.0))
    taken = spent(never.timing, 4, 2, never.time, 1.0)
    assert never.study.learning_rate > 0
    assert math.isinf(taken.time) and math.isinf(taken.cost) and math.isinf(taken.traffic)


def test_a_target_above_the_start_is_refused():
    """There is nothing to plan; this divided by a time of zero."""
    for target in (10.0, 0.56):
        with pytest.raises(InputError, match=r"target.loss must be below the loss at the start, 0.55, got"):
            plan(open_study("gamma(1, 4)", 4).with_target(loss=target))
    assert plan(open_study("gamma(1, 4)", 4).with_target(loss=0.54)).predicted.time_to_target.mean


def test_a_link_that_is_always_busy():
    """Service takes three times what a gradient does: hardly anything is stale under k-batch-sync."""
    found = plan(open_study("gamma(1, 4)", 16, noise=0.01, target=0.005).with_cluster(service="constant(3)"))
    assert found.study.active_workers < 8
    assert found.predicted.time_to_target.mean == pytest.approx(found.checked.time_to_target.mean, rel=0.3)


def told(study, word, **keys):
    """The one sentence of a plan that begins so."""
    (reason,) = (reason for reason in plan(study, **keys).reasons if reason.startswith(word))
    return reason


def times(study, at):
    """Settling times at learning rates, by the recursion of the index equation, to nine tenths of the target."""
    timing = arrivals(study.with_schedule(learning_rate=1.0), seed=0)
    near = study.with_target(loss=0.9 * study.target.loss)
    return np.array([settling(near.with_schedule(learning_rate=float(one)), timing, along=False)[0] for one in at])


@pytest.mark.parametrize(("noise", "doubt"), [(0.01, "curvature"), (0.1, "gradient noise")])
def test_the_regret_is_that_of_the_learning_rate_taken(noise, doubt):
    """Beside a fine ladder; of a rough look's learning rate it was told before, +79 % where it is 16, 20 for never."""
    study = quadratic("gamma(1, 4)", 16, 0.1, noise=noise, target=0.005, policy="async", active_workers=8)
    study = study.with_schedule(learning_rate=None, momentum=0.0)
    found = plan(study)
    rate, factors = found.study.learning_rate, np.geomspace(0.4, 2.5, 81)
    (said,) = (reason for reason in found.reasons if reason.startswith("Regret"))
    for name, field, factor in (("curvature", "eigenvalues", 1.2), ("gradient noise", "gradient_noise", 1.5)):
        worst = 0.0
        for by in (factor, 1.0 / factor):
            value = by * np.array(getattr(study.workload, field))
            other = found.study.with_workload(**{field: value.tolist()}).with_schedule(max_staleness=None)
            here, least = times(other, [rate])[0], times(other, rate * factors).min()
            worst = max(worst, here / least - 1)
        text = said.split(f"{name} {factor:g} times larger or smaller: ")[1].split(";")[0]
        if math.isinf(worst):
            assert text == "never settles"
        else:
            assert float(text.split()[0]) == pytest.approx(100 * worst, abs=3.0)
    assert said.endswith(f"Measure the {doubt} better first.")
    (flat,) = (reason for reason in found.reasons if reason.startswith("The optimum is narrow"))
    low, high = (float(flat.split(word)[1].split()[0]) for word in ("from ", "to "))
    ladder = times(found.study.with_schedule(max_staleness=None), rate * factors)
    good = factors[ladder <= 1.05 * ladder.min()]
    assert low == pytest.approx(good.min(), rel=0.05) and high == pytest.approx(good.max(), rel=0.05)


def test_a_learning_rate_that_is_held_is_the_one_spoken_of():
    """Far below the best one: staleness costs next to nothing there, and the answer says how far it is off."""
    study = quadratic("gamma(1, 4)", 16, 0.03, noise=0.01, target=0.005, policy="async", active_workers=8)
    limits = told(study, "What limits")
    assert "at this learning rate" in limits
    assert abs(int(limits.split("update rate) ")[1].split(" %")[0])) <= 10
    assert told(study, "This learning rate takes ").endswith("longer than the best.")
    assert "as far as was looked" in told(study.with_schedule(learning_rate=1e-4), "This learning rate takes ")
    assert "never settles, unlike" in told(study.with_schedule(learning_rate=0.29), "This learning rate")


def test_twice_as_fast_compute_halves_all_cycles_of_a_log():
    """Of one worker without noise nothing else is left to say; nothing at all was said."""
    law = f'trace("{Path(__file__).parents[2] / "examples" / "pai_job_1.csv"}")'
    assert "without it: compute (twice as fast) -50 % (" in told(open_study(law, 1), "What limits")


def test_the_check_is_told_from_the_prediction():
    """What mathematics said is not called a simulation."""
    checked = told(open_study("gamma(1, 4)", 2), "Checked in virtual time")
    assert "s predicted (" in checked and "simulation" not in checked


@pytest.mark.parametrize(
    ("policy", "keys", "word"),
    [
        ("rennala", {}, "rennala applies nothing stale; waiting for all workers, sync, takes "),
        (None, {"active_workers": 1}, "Stay synchronous: with one worker nothing is stale"),
    ],
)
def test_nothing_stale_is_made_up(policy, keys, word):
    """A policy without stale gradients was compared with itself as the best one with; one worker with itself."""
    found = plan(open_study("gamma(1, 4)", 8, noise=0.01).with_schedule(policy=policy, **keys))
    assert any(reason.startswith(word) for reason in found.reasons)
    assert not any(word in reason for word in ("with stale ones", "asynchrony to win") for reason in found.reasons)


def test_kinds_are_compared_in_what_is_to_be_least():
    """Bytes if that is traffic; and what one worker more would cost is told."""
    study = open_study("gamma(1, 4)", 8, noise=0.01).with_schedule(policy="async", active_workers=4, batch_size=1)
    told(study, "Synchronous training would take ")
    found = plan(study, goal=Goal("traffic"))
    (said,) = (one for one in found.reasons if "ynchronous" in one)
    assert found.stay_synchronous and said.startswith("Stay synchronous: ") and said.count(" bytes") == 2
    more = told(open_study("gamma(1, 4)", 4, noise=0.01), "A 2nd worker: ", goal=Goal("cost"))
    assert " % time, +" in more and " % cost" in more


def test_ordinals_have_their_article():
    """An 8th, an 11th, an 80th, a 112th."""
    assert [_ordinal(n) for n in (2, 8, 11, 18, 21, 80, 112)] == [
        "A 2nd", "An 8th", "An 11th", "An 18th", "A 21st", "An 80th", "A 112th",
    ]  # fmt: skip


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("rate", [0.03, 0.06, 0.12, 0.2, 0.27])
def test_the_regret_of_a_learning_rate_is_that_of_a_fine_grid(rate, noise):
    """Between 0.4 and 2.4 times it, from a few looks: too low, near the best, too high, and beyond the margin."""
    study = quadratic("gamma(1, 4)", 8, rate, noise=noise)
    one = _Times(study, arrivals(study), 0.9)
    here, times = one.at(1.0), [one.at(factor) for factor in np.geomspace(0.42, 2.38, 40)]
    least, told = min(here, *times), one.regret()
    assert told == pytest.approx(here / least - 1.0, abs=0.04) if math.isfinite(least) else told is None
