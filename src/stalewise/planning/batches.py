"""How many samples a gradient has: noise falls with them, time rises. Rough looks, by factors of 4 and then of 2."""

import math
from collections.abc import Callable, Sequence

from stalewise.planning.knobs import batch_is_open, fastest_first, structures
from stalewise.planning.objectives import Spent
from stalewise.planning.search import percent
from stalewise.planning.shortlist import Guess
from stalewise.study import Study

LARGEST = 1 << 20  # samples
WIDER = 4  # between the batches of the first look
WORSE = 3.0  # times the best: where a larger batch is no longer looked at
LEVEL = 1.02  # times the best: a smaller batch is preferred as long as it costs no more
CLIMBS = 4  # doublings and halvings for each policy
Order = Callable[[Guess], tuple[float, float, float]]
Looks = Callable[[Sequence[Study]], list[Guess]]


def first_batch(study: Study, looks: Looks, order: Order) -> int:
    """The best of 1, 4, 16, ... samples under synchrony, and under asynchrony or the policy that is given.

    Of all workers and of a quarter of them, as long as the best of one batch is not three times the best of all.
    """
    found: dict[int, tuple[float, float, float]] = {}
    size, over, least, floor = 1, math.inf, math.inf, math.inf
    while size <= LARGEST:
        found[size] = min(map(order, looks(_few(fastest_first(study.with_schedule(batch_size=size))[0]))))
        over, least, floor = min(found.values())
        if found[size] > (over, WORSE * least, math.inf):
            break
        size *= WIDER
    good = (over, LEVEL * least, math.inf) if math.isfinite(least) else (over, least, floor)
    return min(size for size, order in found.items() if order <= good)


def _few(study: Study) -> list[Study]:
    """Structures that tell one batch from another."""
    most = study.schedule.active_workers or study.cluster.workers
    policies, counts = ("sync", study.schedule.policy or "async"), (most, -(-most // 4))
    return [one for one in structures(study) if one.policy in policies and one.active_workers in counts]


def climbed(guesses: Sequence[Guess], free: Study, looks: Looks, order: Order) -> list[Guess]:
    """The best of each policy with twice its batch, and half of it, and on as long as that is better: all looked at."""
    tried: list[Guess] = []
    for policy in dict.fromkeys(one.study.policy for one in guesses):
        here = min((one for one in guesses if one.study.policy == policy), key=order)
        for factor in (2.0, 0.5):
            for _ in range(CLIMBS):
                size = int(factor * here.study.batch_size)
                if not 1 <= size <= LARGEST:
                    break
                (other,) = looks([of_size(here.study, free, size)])
                tried.append(other)
                (over, least, floor), (limit, now, level) = order(other), order(here)
                if (over, LEVEL * least if factor > 1.0 else least, floor) >= (limit, now, level):
                    break
                here = other
    return tried


def of_size(study: Study, free: Study, size: int) -> Study:
    """The same structure with batches of that size, its learning rate as open as it was in ``free``."""
    return study.with_schedule(batch_size=size, learning_rate=free.schedule.learning_rate)


def batch_sentence(
    pick: Study, free: Study, here: Guess, looks: Looks, taken: Callable[[Guess], Spent], objective: str
) -> list[str]:
    """Why this batch; nothing where it is given.

    Args:
        pick: What was chosen.
        free: What was asked.
        here: The rough look at the pick.
        looks: Rough looks.
        taken: What one takes.
        objective: What was to be least.
    """
    size = pick.batch_size
    if free.schedule.batch_size is not None:
        return []
    if not free.cluster.samples_cost_time:
        why = "cluster.sample_time, what a sample costs, is 0, so that more would only ever be better"
        return [f"batch_size is held at {size}: {why}."] if free.workload.modes().noisy else []
    if not batch_is_open(free):
        return [f"batch_size is held at {size}: gradients have no noise, and samples cost time."]
    cycle, bare = (one.workers().mean_cycle for one in (pick, pick.with_cluster(sample_time=None, group=_free(pick))))
    text = f"Batches of {size}: samples take {percent(1.0 - bare / cycle)} of a mean cycle of {cycle:.4g} s"
    if not math.isfinite(here.time):
        return [f"{text}."]
    sizes, now = [other for other in (size // 2, 2 * size) if other >= 1], taken(here)
    told = []
    for other, row in zip(sizes, looks([of_size(pick, free, other) for other in sizes]), strict=True):
        then = taken(row)
        changes = (f"{100 * (getattr(then, name) / getattr(now, name) - 1):+.0f} % {name}"
                   for name in dict.fromkeys((objective, "time")))  # fmt: skip
        told.append(f"{other} would take {', '.join(changes)}" if math.isfinite(row.time) else f"{other} never settles")
    return [f"{text}; {'; '.join(told)} (rough estimates)."]


def _free(study: Study) -> list[dict] | None:
    """Groups whose samples cost nothing."""
    groups = [one.model_dump(exclude_none=True, exclude={"sample_time"}) for one in study.cluster.group or ()]
    return groups or None
