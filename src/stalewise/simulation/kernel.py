"""The compiled event kernel: SGD on a quadratic under any `Rules`, event for event what the protocol does.

Order is fixed by (time of arrival, order of start), and delays come from `stalewise.delays.compiled.draw` in start
order, so a plain loop around `stalewise.protocol` with the same generators gives the same events
(`tests/simulation/test_kernel.py`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.delays.compiled import Encoded, new_cursors
from stalewise.protocol import Rules
from stalewise.simulation.calendar import WORKER, new_calendar
from stalewise.simulation.events import HELD, NEVER, PLAIN, TALLY, EncodedRules, Lists, Position, run_any, run_plain

Array = NDArray[np.float64]


class Problem(NamedTuple):
    """A quadratic and how it is trained; arrays of shape (modes,).

    ``pull`` is what a worker sends in place of the curvature (`Study.pull`), ``noise`` one gradient's deviation, and
    ``growth`` what the loss where it was computed is multiplied by to be added to its square. The rest is a `Descent`.
    """

    eigenvalues: Array
    pull: Array
    noise: Array
    growth: Array
    start: Array
    grows: bool
    learning_rate: float
    momentum: float
    shares: tuple[float, float]
    weight_decay: float


_NONE = np.zeros(0)
NOTHING = Problem(_NONE, _NONE, _NONE, _NONE, _NONE, False, 1.0, 0.0, (0.0, 1.0), 0.0)
"""No parameters at all: for runs that only count."""


class Fleet(NamedTuple):
    """Workers and how long their gradients take; of the shared link or trainer, ``service``, if there is one."""

    workers: int
    law: Encoded
    mean_cycle: float
    staggered: bool
    serves: bool
    service: Encoded


class Counts(NamedTuple):
    """What the kernel counts: gradients by fate, sums of ages [s], [s^2] over the applied, points of the grid reached.

    ``point`` is negative if the loss blew up there.
    """

    applied: int
    dropped: int
    cancelled: int
    unsent: int
    in_flight: int
    largest: int
    ages: float
    ages_squared: float
    events: int
    point: int


class Records(NamedTuple):
    """What the kernel writes: loss and updates on a grid of times, applied staleness, and a log of events.

    The last entry of ``staleness`` takes the rest; ``log`` rows are (time, worker, fate, staleness), as many as fit.
    """

    grid: Array
    loss: Array
    updates: Array
    staleness: NDArray[np.int64]
    log: Array


def _encoded(rules: Rules, serves: bool) -> EncodedRules:
    bounded = rules.max_staleness is not None
    bound = -1 if rules.max_staleness is None else rules.max_staleness
    strict, waits, cancels = (bounded and rules.on_stale == mode for mode in ("admit", "wait", "cancel"))
    return EncodedRules(
        group=rules.group,
        idles=rules.idles,
        flushes=rules.flushes,
        bound=bound,
        lead=-1 if rules.lead is None else rules.lead,
        trigger=float(rules.trigger),
        keeps=rules.on_quiet == "keep",
        trains=rules.trains,
        admits=strict or rules.trains,
        strict=strict,
        waits=waits,
        cancels=cancels,
        drops_beyond=bound if bounded and rules.on_stale == "drop" else NEVER,
        in_order=rules.flushes or strict or waits or cancels,
        links=serves and not rules.trains,
        weight=rules.weight.code,
        first=float(rules.weight.first),
        second=float(rules.weight.second),
    )


Run = Callable[[Records, np.random.Generator, np.random.Generator], Counts]


def runner(fleet: Fleet, rules: Rules, problem: Problem) -> Run:
    """One policy's run until the grid's last time, or until the loss blows up, to be called for each seed.

    It takes what it writes to, and the generators of delays and of noise. Memory is that of the workers, whatever the
    number of events: 40 bytes each, 48 for the queue, 32 to 52 for lists, and their parameters.
    """
    workers, modes = fleet.workers, len(problem.start)
    encoded = _encoded(rules, fleet.serves)
    room = rules.group + workers
    if rules.trains:
        room += rules.group * (encoded.bound + 1)
    loop = run_plain if encoded._replace(bound=-1, drops_beyond=NEVER) == PLAIN else run_any

    def once(records: Records, delay_rng: np.random.Generator, noise_rng: np.random.Generator) -> Counts:
        in_flight = np.full(workers + 1 if encoded.in_order else 0, workers, np.int32)
        lists = Lists(
            waiting=np.empty(workers, np.int64),
            line=np.zeros(3, np.int64),
            idle=np.empty(workers, np.int64),
            freed=np.arange(workers + 1),
            older=in_flight,
            newer=in_flight.copy(),
            clock=np.zeros(workers if encoded.lead >= 0 else 0, np.int64),
            held=np.empty(room, HELD),
        )
        position = Position(
            problem.start.copy(),
            np.zeros(modes),
            np.empty((workers, modes)),
            np.empty(modes),
            np.zeros(modes),
            np.empty((room if rules.trains else 0, modes)),
        )
        tally = np.zeros(1, TALLY)
        tally["at_slowest"] = workers
        cursors = new_cursors(fleet.law, workers, delay_rng)
        point = loop(
            fleet, cursors, new_cursors(fleet.service, 1, delay_rng), np.zeros(workers + 2, WORKER),
            new_calendar(workers + 1, fleet.mean_cycle, encoded.cancels), encoded, lists, position, tally, problem,
            records, delay_rng, noise_rng,
        )  # fmt: skip
        return Counts(*tally[0].item()[: len(Counts._fields) - 1], point=int(point))

    return once


def run(
    fleet: Fleet, rules: Rules, problem: Problem, records: Records, delay_rng: np.random.Generator,
    noise_rng: np.random.Generator,
) -> Counts:  # fmt: skip
    """Run one policy once, see `runner`."""
    return runner(fleet, rules, problem)(records, delay_rng, noise_rng)
