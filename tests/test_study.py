"""Studies: TOML in and out, overrides, defaults, and one line for everything that is wrong."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.errors import InputError
from stalewise.protocol import Rules
from stalewise.study import load_study, make_study, parse_study

BASE = {
    "workload": {"kind": "quadratic", "eigenvalues": [1.0, 0.1], "gradient_noise": 0.01},
    "cluster": {"workers": 4, "compute": "gamma(mean=1.0, shape=4)"},
    "schedule": {"policy": "async", "learning_rate": 0.1},
    "target": {"loss": 0.01},
}


def changed(section, **fields):
    data = copy.deepcopy(BASE)
    data.setdefault(section, {}).update(fields)
    return data


positive = st.floats(1e-6, 1e6)
STUDIES = st.fixed_dictionaries(
    {
        "workload": st.fixed_dictionaries(
            {"eigenvalues": st.lists(positive, min_size=2, max_size=2)},
            optional={"gradient_noise": st.lists(positive, min_size=2, max_size=2) | positive, "start": positive},
        ),
        "cluster": st.fixed_dictionaries(
            {"workers": st.integers(5, 50), "compute": st.just("exponential(1)")},
            optional={"upload": st.just("constant(0.1)"), "start": st.sampled_from(["together", "staggered"])},
        ),
        "schedule": st.fixed_dictionaries(
            {},
            optional={
                "policy": st.just("async"),
                "learning_rate": positive,
                "active_workers": st.integers(1, 5),
                "max_staleness": st.integers(0, 9),
            },
        ),
        "target": st.fixed_dictionaries({"loss": positive}, optional={"time_limit": positive}),
    }
)


@settings(deadline=None, max_examples=50)
@given(STUDIES)
def test_toml_reads_back(data):
    """A study written as TOML and read again is the same study, with nothing added."""
    study = make_study(data)
    assert parse_study(study.to_toml()) == study
    assert study.as_dict() == data


@pytest.mark.parametrize("name", ["quadratic", "digits"])
def test_examples_are_valid(name):
    """The example studies load and survive a round trip."""
    study = load_study(f"examples/{name}.toml")
    assert parse_study(study.to_toml(), folder="examples") == study
    assert study.delay().mean > 0


def test_defaults():
    """All workers, one sample a gradient of a quadratic and 32 of a network, together, no policy."""
    study = make_study({**BASE, "schedule": {}})
    assert (study.active_workers, study.batch_size, study.cluster.start) == (4, 1, "together")
    assert study.schedule.policy is None and study.schedule.max_staleness is None
    network = make_study({**BASE, "workload": {"kind": "digits-mlp"}})
    assert network.batch_size == 32 and not network.workload.is_quadratic


def test_modes_spread_scalars_over_eigenvalues():
    """One number for noise or start stands for every mode."""
    eigenvalues, noise, growth, start = make_study(BASE).workload.modes()
    assert (eigenvalues.tolist(), noise.tolist(), start.tolist()) == ([1.0, 0.1], [0.01, 0.01], [1.0, 1.0])
    assert growth.tolist() == [0.0, 0.0]
    listed = make_study(changed("workload", start=[1.0, -2.0], noise_growth=0.5)).workload.modes()
    assert (listed.start.tolist(), listed.noise_growth.tolist()) == ([1.0, -2.0], [0.5, 0.5])


def test_cycle_is_download_plus_compute_plus_upload():
    """The delay of a cycle is the sum of its independent parts."""
    law = make_study(changed("cluster", download="exponential(0.5)", upload="constant(0.25)")).delay()
    assert law.mean == pytest.approx(1.75)
    assert law.variance == pytest.approx(0.5)


def test_samples_cost_time():
    """compute and its samples, for every local step; nothing where none is said, and groups have their own."""
    study = make_study(changed("cluster", sample_time=0.02, upload="constant(0.5)"))
    assert study.delay().mean == pytest.approx(1.52)
    many = study.with_schedule(batch_size=50, local_steps=3)
    assert (many.delay().mean, many.delay().variance) == pytest.approx((3 * (1.0 + 50 * 0.02) + 0.5, 3 / 4))
    assert study.with_cluster(sample_time=0.0).workers() == study.with_cluster(sample_time=None).workers()
    assert make_study(changed("cluster", compute="constant(0)", sample_time=1.0)).delay().mean == 1.0
    unlike = make_study(
        {
            **BASE,
            "cluster": {
                "compute": "constant(1)",
                "sample_time": 0.1,
                "group": [{"count": 1}, {"count": 2, "sample_time": 0}],
            },
        }
    ).with_schedule(batch_size=10)
    assert [law.mean for _, law in unlike.workers().groups] == [2.0, 1.0]
    assert unlike.cluster.samples_cost_time and parse_study(unlike.to_toml()).workers() == unlike.workers()


def test_cycles_that_are_held_do_not_follow_the_batch():
    """A stand-in with another batch keeps the delays of what it stands in for, whichever workers cost what."""
    group = [{"count": 1}, {"count": 2, "sample_time": 0.5}, {"count": 1, "compute": "exponential(1)"}]
    for cluster in ({"workers": 4, "compute": "gamma(1, 4)"}, {"compute": "gamma(1, 4)", "group": group}):
        study = make_study({**BASE, "cluster": {**cluster, "sample_time": 0.1}}).with_schedule(batch_size=8)
        other = study.with_cycles_held().with_schedule(batch_size=64)
        assert other.workers() == study.workers() != study.with_schedule(batch_size=64).workers()
    plain = make_study(BASE)
    assert plain.with_cycles_held() is plain


def test_server_follows_the_policy():
    """Its rules are those of the schedule; so many workers as are active."""
    study = make_study(changed("schedule", max_staleness=3, on_stale="wait", active_workers=2))
    server = study.server()
    assert (server.workers, server.rules) == (2, Rules(max_staleness=3, on_stale="wait"))
    together = study.with_schedule(policy="sync", max_staleness=None, on_stale=None)
    assert together.server().rules == Rules(group=2, idles=True, flushes=True)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"group": 2}, r"group has no meaning under policy 'async', got 2; it belongs to k-sync, .*"),
        ({"policy": "k-sync", "group": 5}, r"schedule.group must be at most the 4 active workers .* got 5"),
        ({"policy": "sync", "max_staleness": 1}, r"max_staleness has no meaning under policy 'sync', got 1"),
        ({"policy": "rennala", "max_staleness": 1}, r"max_staleness has no meaning under policy 'rennala', got 1"),
        ({"policy": "ssp"}, r"max_staleness is missing: policy 'ssp' needs it"),
        ({"policy": "ringmaster"}, r"max_staleness is missing: policy 'ringmaster' needs it"),
        ({"on_stale": "wait"}, r"on_stale = 'wait' needs max_staleness"),
        ({"policy": "ssp", "max_staleness": 2, "on_stale": "wait"}, r"on_stale must be one of drop under policy 'ssp'"),
        ({"policy": "ringmaster", "max_staleness": 2, "on_stale": "admit"}, r"on_stale must be one of drop, cancel"),
        ({"trigger": 0.1}, r"trigger belongs to policy 'event-triggered', got 0.1 under 'async'"),
        ({"policy": "asinc"}, r"schedule.policy must be 'async', .* or 'producer-consumer', got 'asinc'"),
        ({"delay_compensation": 2.0}, r"schedule.delay_compensation is for networks: .* got 2"),
        ({"on_stale": "hurry"}, r"schedule.on_stale must be 'drop', 'wait', 'admit' or 'cancel', got 'hurry'"),
    ],
)
def test_settings_without_a_meaning_are_refused(schedule, message):
    """One line that says what belongs where."""
    with pytest.raises(InputError, match=message):
        make_study(changed("schedule", **schedule))


def test_unlike_workers_are_numbered_group_by_group():
    """Counts add up, what a group leaves out is the cluster's, the first are active first, and TOML keeps it all."""
    cluster = {
        "compute": "constant(1)",
        "upload": "constant(0.5)",
        "group": [{"count": 2}, {"count": 3, "compute": "exponential(2)"}, {"count": 1, "upload": "constant(0)"}],
    }
    study = make_study({**BASE, "cluster": cluster})
    assert study.active_workers == study.cluster.workers == 6
    assert [(count, law.mean) for count, law in study.workers().groups] == [(2, 1.5), (3, 2.5), (1, 1.0)]
    assert study.workers().rate == pytest.approx(2 / 1.5 + 3 / 2.5 + 1)
    few = study.with_schedule(active_workers=3).workers()
    assert [count for count, _ in few.groups] == [2, 1]
    assert parse_study(study.to_toml()).workers() == study.workers()
    with pytest.raises(InputError, match="no formula for workers that are unlike"):
        study.delay()
    alike = make_study({**BASE, "cluster": {**cluster, "group": [{"count": 2}, {"count": 1}]}})
    assert alike.delay().mean == 1.5
    with pytest.raises(InputError, match="compute is missing in group 0"):
        make_study({**BASE, "cluster": {"group": [{"count": 2}]}})


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("constant", [1, 1, 1, 1]),
        ("inverse", [1, 1, 1 / 2, 1 / 8]),
        ("polynomial(0.5)", [1, 2**-0.5, 3**-0.5, 1 / 3]),
        ("hinge(10, 4)", [1, 1, 1, 1 / 41]),
        ("hinge(a=10, b=1)", [1, 1, 1 / 11, 1 / 71]),
        ("delay-adaptive(4)", [1, 1, 1, 1 / 2]),
    ],
)
def test_weights_of_stale_gradients(text, weights):
    """At staleness 0, 1, 2 and 8, as the sources define them."""
    weight = make_study(changed("schedule", staleness_weight=text)).rules().weight
    np.testing.assert_allclose(weight.of([0, 1, 2, 8]), weights)


def test_changes_make_a_new_study():
    """with_schedule and with_cluster leave the original alone, take fields out by None, and check what they make."""
    study = make_study(BASE)
    assert study.with_schedule(active_workers=np.int64(2)).active_workers == 2
    assert study.with_schedule(learning_rate=None).schedule.learning_rate is None
    assert study.with_cluster(workers=9).active_workers == 9
    assert (study.active_workers, study.learning_rate) == (4, 0.1)
    with pytest.raises(InputError, match=r"active_workers must be at most cluster.workers = 4, got 5"):
        study.with_schedule(active_workers=5)


def test_files_are_looked_up_beside_the_study(tmp_path):
    """A relative trace file belongs to the study's folder, also after a change."""
    (tmp_path / "log.csv").write_text("worker,start,end\na,0,2\n")
    (tmp_path / "study.toml").write_text(make_study(BASE).to_toml())
    study = load_study(tmp_path / "study.toml", overrides=["cluster.compute=trace('log.csv')"])
    assert study.delay().mean == study.with_schedule(active_workers=1).delay().mean == 2.0


@pytest.mark.parametrize(
    ("override", "section", "field", "value"),
    [
        ("schedule.learning_rate=0.2", "schedule", "learning_rate", 0.2),
        ("schedule.learning_rate = .5", "schedule", "learning_rate", 0.5),
        ("schedule.learning_rate=1e-3", "schedule", "learning_rate", 1e-3),
        ("schedule.policy=sync", "schedule", "policy", "sync"),
        ('schedule.policy="sync"', "schedule", "policy", "sync"),
        ("cluster.compute=gamma(mean=2, shape=3)", "cluster", "compute", "gamma(mean=2, shape=3)"),
        ("workload.eigenvalues=[2.0, 1.0]", "workload", "eigenvalues", [2.0, 1.0]),
        ("schedule.max_staleness=None", "schedule", "max_staleness", None),
        ("target.time_limit=60", "target", "time_limit", 60.0),
    ],
)
def test_overrides_replace_one_field(override, section, field, value):
    """TOML values, Python values and bare words all work; later ones win."""
    text = make_study(BASE).to_toml()
    study = parse_study(text, overrides=["schedule.learning_rate=7", override])
    assert getattr(getattr(study, section), field) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.learning_rate", r"--set: write section.field=value, for example .*; got 'schedule.learning_rate'"),
        ("learning_rate=1", r"--set: write section.field=value"),
        ("a.b.c=1", r"--set: write section.field=value"),
        ("=1", r"--set: write section.field=value"),
        ("schedule.learning_rate=nan", r"schedule.learning_rate must be .*got nan"),
        ("schedule.learning_rate=fast", r"schedule.learning_rate must be a number, got 'fast'"),
        ("schedule.learning_rate={[]: 1}", r"schedule.learning_rate must be a number"),
        ("nowhere.field=1", r"nowhere is not a known field; known: workload, cluster, schedule, target"),
    ],
)
def test_wrong_overrides_are_refused(override, message):
    """One line, naming the override or the field."""
    with pytest.raises(InputError, match=message) as caught:
        parse_study(make_study(BASE).to_toml(), overrides=[override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("workload", "kind", "cubic", r"workload.kind must be .*'quadratic'.*, got 'cubic'"),
        ("workload", "kind", "digits-mlp", r'eigenvalues belongs to kind = "quadratic"; digits-mlp brings its own'),
        ("workload", "eigenvalues", [], r"workload: eigenvalues is missing"),
        ("workload", "eigenvalues", [1.0, -1.0], r"workload.eigenvalues.1 must be positive, .*, got -1.0"),
        ("workload", "eigenvalues", 3.0, r"workload.eigenvalues must be a valid list, got 3.0"),
        ("workload", "gradient_noise", -1.0, r"workload.gradient_noise must be .*0 or more.*, got -1.0"),
        ("workload", "gradient_noise", [1.0, "x"], r"workload.gradient_noise.1 must be a number, got 'x'"),
        ("workload", "gradient_noise", [1.0], r"workload: gradient_noise has 1 values for 2 eigenvalues"),
        ("workload", "start", "far", r"workload.start must be a number, got 'far'"),
        ("workload", "start", float("nan"), r"workload.start must be finite, .*, got nan"),
        ("workload", "eigenvalue", [1.0], r'workload.eigenvalue is not a known field; did you mean "eigenvalues"\?'),
        ("cluster", "workers", 0, r"cluster.workers must be .*1 or more.*, got 0"),
        ("cluster", "workers", 2.5, r"cluster.workers must be a valid integer, got 2.5"),
        ("cluster", "workers", True, r"cluster.workers must be a number, got True"),
        ("cluster", "workers", "4", r"cluster.workers must be a number, got '4'"),
        ("cluster", "compute", "gama(1, 2)", r'cluster.compute: .* got \'gama\'; did you mean "gamma"\?'),
        ("cluster", "compute", "exponential(-1)", r"cluster.compute: exponential: mean must be .*got -1"),
        ("cluster", "compute", "trace('none.csv')", r"cluster.compute: trace file: 'none.csv' does not exist"),
        ("cluster", "compute", 3, r"cluster.compute must be a valid string, got 3"),
        ("cluster", "sample_time", -1, r"cluster.sample_time must be 0 or more, .*, got -1"),
        ("cluster", "sample_time", "constant(1)", r"cluster.sample_time must be a number, got 'constant\(1\)'"),
        ("cluster", "start", "later", r"cluster.start must be 'together' or 'staggered', got 'later'"),
        ("schedule", "policy", "asinc", r"schedule.policy must be 'async'.*, got 'asinc'"),
        ("schedule", "learning_rate", 0, r"schedule.learning_rate must be positive, .*, got 0"),
        ("schedule", "learning_rate", float("inf"), r"schedule.learning_rate must be positive, .*, got inf"),
        ("schedule", "active_workers", 5, r"schedule.active_workers must be at most cluster.workers = 4, got 5"),
        ("schedule", "max_staleness", -1, r"schedule.max_staleness must be .*0 or more.*, got -1"),
        ("schedule", "max_staleness", 1.5, r"schedule.max_staleness must be a valid integer, got 1.5"),
        ("schedule", "batch_size", 0, r"schedule.batch_size must be .*1 or more.*, got 0"),
        ("schedule", "batch_size", 10**18, r"schedule.batch_size must be 1 or more, 2,147,483,648 at most, got 10{18}"),
        ("cluster", "workers", 1_000_001, r"cluster.workers must be .*1,000,000 at most, got 1000001"),
        ("cluster", "service", "exponential(0)", r"cluster.service.*mean must be positive.*got 0"),
        ("cluster", "group", [{"count": 3}], r"cluster.* workers must be the sum of the groups' counts, 3, got 4"),
        ("cluster", "group", [{"count": 0}], r"cluster.group.0.count must be 1 or more"),
        ("cluster", "group", [{"count": 4, "comptue": "x"}], r'cluster.group.0.comptue .*; did you mean "compute"\?'),
        ("schedule", "staleness_weight", "inwerse", r"staleness_weight must be one of constant, .* got 'inwerse'"),
        ("schedule", "staleness_weight", "hinge(1)", r"staleness_weight: hinge takes \(a, b\), got 'hinge\(1\)'"),
        (
            "schedule",
            "staleness_weight",
            "polynomial(-1)",
            r"staleness_weight: p of polynomial must be 0 or more, got -1",
        ),
        ("schedule", "learningrate", 1, r'schedule.learningrate is not a known field; did you mean "learning_rate"\?'),
        ("target", "loss", 0, r"target.loss must be positive, .*, got 0"),
        ("target", "time_limit", -1, r"target.time_limit must be positive, .*, got -1"),
        ("targets", "loss", 1, r'targets is not a known field; did you mean "target"\?'),
    ],
)
def test_bad_fields_are_refused_in_one_line(section, field, value, message):
    """The line begins with the field, shows the value and says what is allowed."""
    with pytest.raises(InputError, match=message) as caught:
        make_study(changed(section, **{field: value}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, r"^workload is missing$"),
        ({**BASE, "target": {}}, r"^target.loss is missing$"),
        ({**BASE, "target": {"los": 1}}, r'^target.los is not a known field; did you mean "loss"\?$'),
        ({**BASE, "cluster": {"compute": "constant(1)", "wrokers": 2}}, r"^cluster.wrokers is not a known field"),
        ({**{k: v for k, v in BASE.items() if k != "target"}, "tagret": {"loss": 1}}, r'^tagret .* mean "target"\?$'),
        ({**BASE, "schedule": 3}, r"^schedule must be a valid dictionary"),
        (changed("schedule", policy="sync", max_staleness=3), r"^schedule: max_staleness has no meaning under"),
    ],
)
def test_missing_and_contradictory_parts_are_refused(data, message):
    """So are sections that are absent, of the wrong kind, or at odds with themselves."""
    with pytest.raises(InputError, match=message):
        make_study(data)


def test_what_is_left_out_is_asked_for_when_needed():
    """A study for `plan` may lack policy and learning rate; using them says so. A cluster must take time."""
    study = make_study({**BASE, "schedule": {}})
    with pytest.raises(InputError, match=r"schedule.learning_rate is missing"):
        _ = study.learning_rate
    with pytest.raises(InputError, match=r"schedule.policy is missing: give one of async, sync"):
        study.server()
    with pytest.raises(InputError, match=r"cluster.compute must take time"):
        make_study(changed("cluster", compute="constant(0)")).delay()


def test_unreadable_files_are_refused(tmp_path):
    """Missing, folder, binary, broken: one line each. A byte order mark is no reason to refuse."""
    with pytest.raises(InputError, match=r"study file: .*does not exist"):
        load_study(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"study file: cannot read .*directory"):
        load_study(tmp_path)
    path = tmp_path / "study.toml"
    path.write_bytes(b"\x80\xff")
    with pytest.raises(InputError, match=r"is not a text file"):
        load_study(path)
    path.write_text("workload = [")
    with pytest.raises(InputError, match=r"study.toml: not valid TOML: .*(line 1|end of document)"):
        load_study(path)
    with pytest.raises(InputError, match=r"not valid TOML"):
        parse_study("a = " + "[" * 5000)
    with pytest.raises(InputError, match=r"'schedule' is not a section of the study"):
        parse_study("schedule = 3", overrides=["schedule.policy=sync"])
    path.write_bytes(b"\xef\xbb\xbf" + make_study(BASE).to_toml().encode())
    assert load_study(path).as_dict() == make_study(BASE).as_dict()


def test_defaults_of_what_is_to_come_are_accepted():
    """A study written for the whole contract works as long as it says nothing new."""
    data = make_study(
        {
            "workload": {"eigenvalues": [1.0]},
            "cluster": {"workers": 4, "compute": "constant(1)", "service": "constant(0)"},
            "schedule": {"group": 1, "on_stale": "drop", "staleness_weight": "constant", "trigger": 0.0},
            "target": {"loss": 0.1},
        }
    ).as_dict()
    assert data["cluster"]["service"] == "constant(0)"
    assert data["schedule"]["group"] == 1


@pytest.mark.parametrize("law", ["constant(1e300)", "gamma(1e300, 4)"])
def test_cycles_whose_square_is_no_number_are_refused(law):
    """They ended in a traceback."""
    with pytest.raises(InputError, match=r"cluster.compute must take at most 1e\+100 s on average, got '"):
        make_study({**BASE, "cluster": {"workers": 2, "compute": law}}).workers()
