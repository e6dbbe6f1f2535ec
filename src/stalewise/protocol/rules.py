"""A policy as a row of a table: what each of the field's names means in terms of a few rules.

================ ======= ===== ======= =====================================================================
policy           group   idles flushes source
================ ======= ===== ======= =====================================================================
sync             N       yes   yes     synchronous SGD
k-sync           K       yes   yes     Chen et al., arXiv:1604.00981 (backup workers); Dutta et al., arXiv:1803.01113
k-batch-sync     K       no    yes     Dutta et al.
k-async          K       yes   no      Dutta et al.
k-batch-async    K       no    no      Dutta et al.; FedBuff, Nguyen et al., arXiv:2106.06639, for gradients
async            1       no    no      Downpour, Dean et al., NIPS 2012
ssp              1       no    no      Ho et al., NIPS 2013; ``max_staleness`` bounds the lead in clocks, not the age
rennala          S       no    no      Tyurin, Richtarik, arXiv:2305.12387; drops what is not of the newest version
ringmaster       1       no    no      Maranjyan et al., arXiv:2501.16168; ``max_staleness`` = R - 1; drop, or cancel
event-triggered  1       no    no      a gradient whose norm is at most ``trigger`` is not sent
producer-        K       no    no      asynchronous RL: who generates does not wait, a trainer takes K at a time, in the
consumer                               order of their arrival, and is busy for a while; Fu et al., arXiv:2505.24298
                                       (AReaL), whose rule of capacity bounds what is under way
================ ======= ===== ======= =====================================================================
"""

from dataclasses import dataclass

from stalewise.errors import InputError
from stalewise.protocol.weights import Weight

DROP, WAIT, ADMIT, CANCEL = "drop", "wait", "admit", "cancel"
ON_STALE = (DROP, WAIT, ADMIT, CANCEL)
POLICIES = (
    "async", "sync", "k-sync", "k-batch-sync", "k-async", "k-batch-async", "ssp", "rennala", "ringmaster",
    "event-triggered", "producer-consumer",
)  # fmt: skip
GROUPED = ("k-sync", "k-batch-sync", "k-async", "k-batch-async", "rennala", "producer-consumer")
ONE_EACH = ("k-sync", "k-async")
BOUNDED = ("k-async", "k-batch-async", "async", "ssp", "ringmaster", "event-triggered", "producer-consumer")
NEEDS_BOUND = ("ssp", "ringmaster", "producer-consumer")
MOST_QUEUED = 10_000_000
KEPT_BY = {"ssp": (DROP,), "ringmaster": (DROP, CANCEL), "event-triggered": (DROP,), "producer-consumer": (DROP, ADMIT)}
UNWEIGHTED = Weight()
_IDLES = ("sync", "k-sync", "k-async")
_FLUSHES = ("sync", "k-sync", "k-batch-sync")


@dataclass(frozen=True)
class Rules:
    """What a server does with gradients.

    Attributes:
        group: Gradients averaged in one step, K.
        idles: Whether a worker whose gradient is held waits for the step; otherwise it begins another one at once.
        flushes: Whether a step cancels all gradients in flight, so that everybody restarts from its result.
        max_staleness: Largest staleness applied, in updates; None for any.
        on_stale: How that is kept. ``drop``: an older gradient is thrown away when it arrives. ``wait``: a step that
            would make a gradient in flight older is held back until that gradient is there, and takes all that is
            held by then; whoever delivers in the meantime idles. ``admit``: no work is begun that could make any
            gradient older, whatever the order of arrival. ``cancel``: work in flight is stopped as soon as it is
            older, and begun anew.
        lead: Most gradients a worker may be ahead of the slowest (stale synchronous parallel); None for any.
        trigger: A gradient is pushed only if its norm exceeds this.
        on_quiet: What a worker with nothing to push does. ``refresh``: read the parameters and go on. ``keep``: go on
            from the parameters it has.
        trains: Whether a step takes time: it begins when K gradients are held and ends when the world says so; what
            arrives meanwhile is queued. With ``drop``, no work is begun unless less than K (max_staleness + 1)
            gradients are under way or queued (AReaL's rule), and what is too old for the next step even so is dropped.
        weight: What a gradient is multiplied by for its staleness.
    """

    group: int = 1
    idles: bool = False
    flushes: bool = False
    max_staleness: int | None = None
    on_stale: str = DROP
    lead: int | None = None
    trigger: float = 0.0
    on_quiet: str = "refresh"
    trains: bool = False
    weight: Weight = UNWEIGHTED


def rules_of(
    policy: str, workers: int, *, group: int = 1, max_staleness: int | None = None, on_stale: str = DROP,
    trigger: float = 0.0, on_quiet: str = "refresh", weight: Weight = UNWEIGHTED,
) -> Rules:  # fmt: skip
    """The rules behind a policy's name.

    Args:
        policy: One of `POLICIES`.
        workers: Active workers N.
        group: K (S for rennala), at most N where a worker contributes once; for those that have one.
        max_staleness: In updates; the lead in gradients for ssp.
        on_stale: How max_staleness is kept, one of `ON_STALE`.
        trigger: Norm that a gradient must exceed to be sent; event-triggered only.
        on_quiet: What a worker with nothing to send does; event-triggered only.
        weight: What a stale gradient is multiplied by.

    Raises:
        InputError: A setting has no meaning under the policy.
    """
    _check(policy, workers, group, max_staleness, on_stale, trigger)
    if policy == "rennala":
        return Rules(group, max_staleness=0, weight=weight)
    if policy == "ssp":
        return Rules(lead=max_staleness, weight=weight)
    return Rules(
        workers if policy == "sync" else group,
        idles=policy in _IDLES,
        flushes=policy in _FLUSHES,
        max_staleness=max_staleness,
        on_stale=on_stale,
        trigger=trigger,
        on_quiet=on_quiet,
        trains=policy == "producer-consumer",
        weight=weight,
    )


def _check(policy: str, workers: int, group: int, bound: int | None, on_stale: str, trigger: float) -> None:
    kept_by = KEPT_BY.get(policy, ON_STALE)
    wrong = {
        f"group has no meaning under policy {policy!r}, got {group}; it belongs to {', '.join(GROUPED)}":
            group > 1 and policy not in GROUPED,
        f"group must be at most the {workers} active workers under policy {policy!r}, got {group}":
            group > workers and policy in ONE_EACH,
        f"max_staleness has no meaning under policy {policy!r}, got {bound}; it belongs to {', '.join(BOUNDED)}":
            bound is not None and policy not in BOUNDED,
        f"max_staleness is missing: policy {policy!r} needs it": bound is None and policy in NEEDS_BOUND,
        f"on_stale = {on_stale!r} needs max_staleness": on_stale != DROP and bound is None,
        f"on_stale must be one of {', '.join(kept_by)} under policy {policy!r}, got {on_stale!r}":
            on_stale not in kept_by,
        f"max_staleness x group must be at most {MOST_QUEUED:,} under policy {policy!r}, got {(bound or 0) * group:,}":
            policy == "producer-consumer" and (bound or 0) * group > MOST_QUEUED,
        f"trigger belongs to policy 'event-triggered', got {trigger:g} under {policy!r}":
            trigger > 0 and policy != "event-triggered",
    }  # fmt: skip
    for message, holds in wrong.items():
        if holds:
            raise InputError(message)
