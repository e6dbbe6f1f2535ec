"""What a plan may choose: policies with their groups and bounds, how many workers take part, and which."""

import math
from collections.abc import Iterator

from stalewise.errors import InputError
from stalewise.protocol.rules import BOUNDED, GROUPED, NEEDS_BOUND, ONE_EACH
from stalewise.study import Study

SEARCHED = ("sync", "k-batch-sync", "async", "k-batch-async", "k-async", "ringmaster")
"""The policies that a plan considers; k-batch-sync takes K fresh gradients at least as early as k-sync and rennala."""
GROUPS = {  # gradients a step, over the workers, one at least
    "k-sync": (0.0, 1 / 16, 0.25, 0.5, 0.75, 0.9),
    "k-batch-sync": (0.0, 1 / 16, 0.25, 0.5, 1.0),
    "rennala": (0.0, 1 / 16, 0.25, 0.5, 1.0, 2.0),
    "k-async": (0.25, 0.5),
    "k-batch-async": (1 / 16, 0.25, 0.5),
    "producer-consumer": (0.25, 1.0),
}
BOUNDS = (1.0, 2.0)  # on the staleness, over N - 1, where a policy needs one
ASYNC_IF_ONE = ("k-async", "k-batch-async")
NEARBY = ((0.8, 1.0, 1.0), (1.25, 1.0, 1.0), (1.0, 0.7, 1.0), (1.0, 1.4, 1.0), (1.0, 1.0, 0.707), (1.0, 1.0, 1.415))
"""Neighbours: times workers, group over workers, batch."""
FEW = 4  # workers up to which every policy is looked at with every number of them
Knob = str | int | float | None


def structures(study: Study) -> list[Study]:
    """The study under everything but learning rate and momentum that its schedule leaves open.

    A policy that is given stays, beside ``sync`` to compare with, and so do workers, group and bound.
    """
    held = study.schedule
    own = (held.policy,) if held.policy else SEARCHED
    found: dict[tuple[Knob, ...], Study] = {}
    for policy in dict.fromkeys((*own, "sync")):
        for workers in _counts(study, policy):
            for group in _groups(study, policy, workers):
                for bound in _bounds(study, policy, workers):
                    one = under(study, policy, workers, group=group, max_staleness=bound)
                    if one is not None:
                        found[policy, workers, group, bound] = one
    return list(found.values())


def batch_is_open(study: Study) -> bool:
    """Whether a plan has batches to choose from: none is given, and samples both cost time and lessen noise."""
    return study.schedule.batch_size is None and study.cluster.samples_cost_time and study.workload.modes().noisy


def neighbours(study: Study, free: Study) -> list[Study]:
    """Structures near this one in what ``free`` leaves open: workers, group and batch, a quarter more or less."""
    held, now, policy = free.schedule, study.schedule, study.policy
    found: dict[tuple[Knob, ...], Study] = {}
    for more, wider, larger in NEARBY:
        workers = min(max(round(more * study.active_workers), 1), study.cluster.workers)
        group = max(round(wider * more * now.group), 1) if policy in GROUPED else 1
        if held.active_workers and workers != held.active_workers:
            continue
        if "group" in held.model_fields_set and group != held.group:
            continue
        batch = max(round(larger * study.batch_size), 1) if batch_is_open(free) else study.batch_size
        at = study if batch == study.batch_size else study.with_schedule(batch_size=batch)
        one = under(at, policy, workers, group=group, max_staleness=now.max_staleness)
        if one is not None and (workers, group, batch) != (study.active_workers, now.group, study.batch_size):
            found[workers, group, batch] = one
    return list(found.values())


def under(study: Study, policy: str, workers: int, *, group: int = 1, max_staleness: int | None = None) -> Study | None:
    """The study under that policy; what belongs to another one is taken out. None where it has no meaning."""
    changes: dict[str, Knob] = {"policy": policy, "active_workers": workers}
    changes["max_staleness"] = max_staleness if policy in BOUNDED else None
    changes["group"] = group if policy in GROUPED else None
    if policy != study.schedule.policy:
        changes["on_stale"] = "cancel" if policy == "ringmaster" else None
    try:
        return study.with_schedule(**changes)
    except InputError:
        return None


def fastest_first(study: Study) -> tuple[Study, bool]:
    """The study with its groups of workers in the order of their speed, and whether that is another order.

    Workers become active in the order of the groups.
    """
    groups = study.cluster.group
    if not groups or study.schedule.active_workers:
        return study, False
    every = study.cluster.all_workers(batch_size=study.batch_size, local_steps=study.schedule.local_steps)
    means = [law.mean for _, law in every.groups]
    order = sorted(range(len(groups)), key=means.__getitem__)
    if order == sorted(order):
        return study, False
    return study.with_cluster(group=[groups[i].model_dump(exclude_none=True) for i in order]), True


def _counts(study: Study, policy: str) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, ... up to all, and all; of many, under rarer policies, all, a half and a quarter."""
    most = study.cluster.workers
    if study.schedule.active_workers:
        return [study.schedule.active_workers]
    if policy not in ("sync", "async", study.schedule.policy) and most > FEW:
        return [-(-most // 4), -(-most // 2), most]
    counts, step = {1, most}, 1
    while step <= most:
        counts |= {n for n in (step, 3 * step // 2) if 1 <= n <= most}
        step *= 2
    return sorted(counts)


def _groups(study: Study, policy: str, workers: int) -> Iterator[int]:
    """Gradients a step, without those that make another policy of it."""
    if policy not in GROUPED:
        yield 1
        return
    if "group" in study.schedule.model_fields_set:
        yield study.schedule.group
        return
    sizes = {max(math.ceil(share * workers), 1) for share in GROUPS[policy]}
    if study.schedule.policy is None:
        sizes -= {1} if policy in ASYNC_IF_ONE else set()
        sizes -= {workers} if policy in ONE_EACH else set()
    yield from sorted(sizes)


def _bounds(study: Study, policy: str, workers: int) -> Iterator[int | None]:
    """On the staleness: what is given, to policies that can keep one; else none but where one is needed."""
    given = study.schedule.max_staleness
    if policy == "sync":
        yield None
    elif given is not None:
        yield from (given,) if policy in BOUNDED else ()
    elif policy not in NEEDS_BOUND:
        yield None
    elif workers > 1:
        yield from sorted({max(math.ceil(share * (workers - 1)), 1) for share in BOUNDS})
