"""One unit each: seconds for delays, optimiser updates for staleness; and what other units are in these.

Staleness here is `applied_version - pulled_version` of one applied gradient: the optimiser updates that went by between
reading the parameters and applying the gradient, its own update not counted. A fresh gradient has staleness 0. A
gradient whose data come from several versions counts from the oldest.
"""

from stalewise import checks
from stalewise.errors import InputError

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0}


def versions_to_updates(versions: float, updates_per_version: float = 1.0, *, place: float = 0.5) -> float:
    r"""Staleness from a lag counted in published versions of the parameters.

    .. math:: \tau = u\,v + p\,(u - 1)

    A trainer that publishes after every :math:`u` updates applies :math:`u` mini-batches that all lag :math:`v`
    versions; the first of them is :math:`u v` updates stale, each later one an update more.

    Args:
        versions: Lag v, 0 if the data come from the version that the trainer held when it began this batch.
        updates_per_version: Optimiser updates between two published versions, u, 1 or more.
        place: Which mini-batch of the version, p: 0 the first, 1 the last, 0.5 their mean.

    Returns:
        Staleness [updates].

    Raises:
        InputError: An argument is negative or not finite.

    Source:
        The lag that prime-rl (`off_policy/*`), SkyRL (`async/staleness_*`), verl (`trajectory_staleness/*`) and AReaL
        (`version_stats/sample_staleness_theta_*`) log; see `read_metrics` for each one's formula.
    """
    updates = checks.positive("updates_per_version", updates_per_version)
    if updates < 1.0:
        raise InputError(f"updates_per_version must be 1 or more, got {updates:g}")
    return updates * checks.non_negative("versions", versions) + checks.non_negative("place", place) * (updates - 1.0)


def samples_to_updates(samples: float, samples_per_update: float) -> float:
    r"""Staleness from a lag counted in training samples: :math:`\tau = s / b`.

    Args:
        samples: Samples trained on between reading and applying, s.
        samples_per_update: Samples of one optimiser update, b.

    Returns:
        Staleness [updates].

    Raises:
        InputError: An argument is negative or not finite, or ``samples_per_update`` is 0.

    Source:
        PipelineRL, whose version is the number of samples trained on (`pipelinerl/finetune_loop.py`, `stats/lag`,
        `max_lag`).
    """
    return checks.non_negative("samples", samples) / checks.positive("samples_per_update", samples_per_update)


def batch_fraction_to_updates(fraction: float, updates_per_batch: float = 1.0) -> float:
    r"""Mean staleness from the share of a batch that was made ahead of time: :math:`\tau = f u`.

    A stock of :math:`f B` samples, drawn down by :math:`B` in the :math:`u` updates between two synchronisations, lasts
    :math:`f u` updates (Little's law). At :math:`f = 1` everything is one synchronisation old.

    Args:
        fraction: Surplus samples over the samples of one synchronisation, f.
        updates_per_batch: Optimiser updates between two synchronisations, u.

    Returns:
        Mean staleness [updates]; an upper bound of it where ``fraction`` is a threshold.

    Raises:
        InputError: An argument is negative or not finite, or ``updates_per_batch`` is 0.

    Limits:
        The lag at synchronisation only: what the mini-batches between two of them add is in `versions_to_updates`.

    Source:
        verl's `async_training.staleness_threshold` with `trigger_parameter_sync_step` (`docs/advance/fully_async.md`).
    """
    return checks.non_negative("fraction", fraction) * checks.positive("updates_per_batch", updates_per_batch)


def queue_length_to_updates(length: float, items_per_update: float = 1.0) -> float:
    r"""Mean staleness from how many items are under way, by Little's law: :math:`\tau = L / b - 1`.

    An item is counted before each update from the one after its reading to its own: :math:`\tau + 1` times. With
    :math:`b` items applied an update, :math:`L = b (\tau + 1)`.

    Args:
        length: Mean number of items between reading and applying, L, counted just before an update: those in the
            queue, those still computed, and those about to be applied.
        items_per_update: Items applied in one update, b.

    Returns:
        Mean staleness [updates].

    Raises:
        InputError: An argument is negative or not finite, or fewer items are under way than one update applies.

    Limits:
        Items that are dropped lengthen the queue and not the staleness; count those that will be applied.

    Source:
        Little (1961). N workers that are always busy give N - 1. Queues are bounded in OpenRLHF
        (`--train.async_queue_size`), RLlib (`learner_queue_size`) and PERSIA (`embedding_staleness`).
    """
    per_update = checks.positive("items_per_update", items_per_update)
    if checks.positive("length", length) < per_update:
        raise InputError(f"length must be at least items_per_update, {per_update:g}, got {length:g}")
    return length / per_update - 1.0
