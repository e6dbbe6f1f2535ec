"""Conditional staleness and unlike clusters against invariants and a plain event loop."""

import heapq

import numpy as np
import pytest

from stalewise.delays import parse_delay
from stalewise.errors import InputError
from stalewise.staleness import cluster_staleness, conditional_law, staleness_law

GROUPS = [("gamma(0.5, 4)", 4), ("gamma(3, 4)", 2), ("constant(1)", 2)]


def groups(of=GROUPS):
    return [(parse_delay(law), workers) for law, workers in of]


def event_loop(of, events: int) -> list[np.ndarray]:
    """Staleness of every gradient by group: the plainest simulation there is, the first tenth left out."""
    rng = np.random.default_rng(5)
    owner = [i for i, (_, workers) in enumerate(of) for _ in range(workers)]
    laws = [parse_delay(law) for law, _ in of]
    draws = [iter(law.sample(events + 1, rng)) for law in laws]
    heap = [(rng.random() * next(draws[g]), worker, 0) for worker, g in enumerate(owner)]
    heapq.heapify(heap)
    seen: list[list[int]] = [[] for _ in of]
    for version in range(events):
        now, worker, read = heapq.heappop(heap)
        if version > events // 10:
            seen[owner[worker]].append(version - read)
        heapq.heappush(heap, (now + next(draws[owner[worker]]), worker, version + 1))
    return [np.array(s) for s in seen]


def test_unlike_clusters_are_those_of_a_plain_simulation():
    """Share, mean, variance and law of each group; 200,000 gradients, of which the slowest group makes 1 in 18.

    Tolerances are four times the sampling error, and more where the constant workers' phases, which never mix, differ
    from those of staggered workers.
    """
    said, seen = cluster_staleness(groups()), event_loop(GROUPS, 200_000)
    total = sum(map(len, seen))
    for group, ages in zip(said, seen, strict=True):
        assert group.share == pytest.approx(len(ages) / total, rel=0.01)
        assert group.staleness.mean == pytest.approx(ages.mean(), rel=0.01)
        assert group.staleness.variance == pytest.approx(ages.var(), rel=0.06)


def test_unlike_laws_match_point_by_point():
    """Total variation to the plain simulation below 0.01: two groups, 90,000 gradients of the fast and 15,000 slow."""
    of = [("gamma(0.5, 4)", 3), ("lognormal(3, 0.5)", 3)]
    for group, ages in zip(cluster_staleness(groups(of)), event_loop(of, 120_000), strict=True):
        seen = np.bincount(ages) / len(ages)
        length = max(len(seen), len(group.staleness.pmf))
        gap = np.pad(seen, (0, length - len(seen))) - np.pad(
            group.staleness.pmf, (0, length - len(group.staleness.pmf))
        )
        assert np.abs(gap).sum() / 2 < 0.6 * np.sqrt(length / len(ages)) + 0.002


def test_mean_over_all_updates_is_workers_minus_one():
    """Shares weigh the groups' means to N - 1 exactly; a group's own is (R - 1/mu) mu."""
    said = cluster_staleness(groups())
    assert sum(g.share for g in said) == pytest.approx(1.0)
    assert sum(g.share * g.staleness.mean for g in said) == pytest.approx(7.0, rel=1e-4)
    rate = 4 / 0.5 + 2 / 3 + 2 / 1
    assert [g.staleness.mean for g in said] == pytest.approx([rate * 0.5 - 1, rate * 3 - 1, rate - 1], rel=3e-4)


def test_equal_workers_are_no_cluster():
    """Two groups of the same law have the law of one; more than 65 workers are taken as normal in both."""
    law = parse_delay("gamma(1, 4)")
    for half in (4, 40):
        for group in cluster_staleness([(law, half), (law, half)]):
            one = staleness_law(law, 2 * half)
            assert group.share == pytest.approx(0.5)
            assert (group.staleness.mean, group.staleness.variance) == pytest.approx((one.mean, one.variance), rel=2e-3)


def test_conditional_law_is_poisson_for_memoryless_others():
    """The grid route (gamma of shape 1) and the closed form; the mean is (N - 1) t/mu for any law."""
    exact = conditional_law(parse_delay("exponential(1)"), 5, 0.7)
    grid = conditional_law(parse_delay("gamma(1, 1)"), 5, 0.7)
    np.testing.assert_allclose(grid.pmf[:12], exact.pmf[:12], atol=2e-4)
    for law in ("constant(1)", "gamma(1, 4)", "lognormal(1, 1.5)"):
        assert conditional_law(parse_delay(law), 9, 1.3).mean == pytest.approx(8 * 1.3, rel=1e-3)


def test_conditional_laws_mix_to_the_staleness_law():
    """Averaged over the own delay, by 2,000 of its quantiles, they are the law of staleness."""
    law = parse_delay("gamma(1, 4)")
    delays = law.quantile((np.arange(400) + 0.5) / 400)
    mixed = np.zeros(60)
    for own in delays:
        pmf = conditional_law(law, 4, float(own)).pmf
        mixed[: len(pmf)] += pmf / len(delays)
    np.testing.assert_allclose(mixed[:12], staleness_law(law, 4).pmf[:12], atol=1e-3)


def test_wrong_clusters_are_refused():
    """No group, no worker, and a law that is no renewal process."""
    with pytest.raises(InputError, match="at least one"):
        cluster_staleness([])
    with pytest.raises(InputError, match="workers"):
        cluster_staleness([(parse_delay("constant(1)"), 0)])
    with pytest.raises(InputError, match="has no formula"):
        cluster_staleness([(parse_delay("lognormal(1, 8)"), 2)])
    with pytest.raises(InputError, match="own_delay"):
        conditional_law(parse_delay("constant(1)"), 2, -1.0)
