"""Do workers differ by more than chance?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PERMUTATIONS = 999
_MOST_BLOCKS = 20_000
_AT_ONCE = 2_000_000


class Heterogeneity(NamedTuple):
    """How much workers differ. All None for one worker.

    ``mean_ratio`` is the slowest worker's mean over the fastest's, ``cv_of_means`` the coefficient of variation of the
    workers' means, ``beyond_chance`` the same after what chance alone does to them is taken off, ``between_share`` the
    share of a delay's variance that lies between workers (variance components, so that chance alone gives about 0).
    ``p_value`` tests equal means, ``spread_p_value`` equal spreads around the worker's median: both permute blocks of
    successive delays over workers, three times as long as a delay is remembered.
    """

    mean_ratio: float | None = None
    between_share: float | None = None
    cv_of_means: float | None = None
    beyond_chance: float | None = None
    p_value: float | None = None
    spread_p_value: float | None = None


def heterogeneity(sequences: Sequence[Array], memory: float, rng: np.random.Generator) -> Heterogeneity:
    """Compare workers.

    Args:
        sequences: Delays of each worker in their order [s].
        memory: Successive delays that count as one, see `Dependence.memory`.
        rng: Of the permutations.

    Source:
        Searle, Casella & McCulloch (1992), Variance Components, 3.6; Good (2005), Permutation, Parametric and Bootstrap
        Tests of Hypotheses.
    """
    workers = len(sequences)
    if workers < 2:
        return Heterogeneity()
    means = np.array([values.mean() for values in sequences])
    between, within, typical = _variances(sequences)
    component = max((between - within * memory) / typical, 0.0)
    share = component / (component + within) if component + within > 0 else 0.0
    length = 1 if memory < 1.2 else int(np.ceil(3.0 * memory))
    around = [np.abs(values - np.median(values)) for values in sequences]
    return Heterogeneity(
        mean_ratio=float(means.max() / means.min()),
        between_share=float(share),
        cv_of_means=float(means.std(ddof=1) / means.mean()),
        beyond_chance=float(np.sqrt(component) / means.mean()),
        p_value=_permutation(sequences, length, rng),
        spread_p_value=_permutation(around, length, rng),
    )


def _variances(sequences: Sequence[Array]) -> tuple[float, float, float]:
    """Mean squares between and within workers, and the number of delays of a typical one."""
    workers = len(sequences)
    counts = np.array([len(values) for values in sequences])
    means = np.array([values.mean() for values in sequences])
    total = int(counts.sum())
    between = float(counts @ (means - counts @ means / total) ** 2) / (workers - 1)
    within = float(sum(((values - values.mean()) ** 2).sum() for values in sequences)) / max(total - workers, 1)
    return between, within, float(total - (counts**2).sum() / total) / (workers - 1)


def _permutation(sequences: Sequence[Array], length: int, rng: np.random.Generator) -> float | None:
    """How often blocks dealt out at random differ as much between workers; None where too few to be dealt."""
    length = max(length, -(-sum(len(values) for values in sequences) // _MOST_BLOCKS))
    cuts = [np.arange(0, len(values), length) for values in sequences]
    sums = np.concatenate([np.add.reduceat(values, cut) for values, cut in zip(sequences, cuts, strict=True)])
    sizes = np.concatenate(
        [np.diff(cut, append=len(values)) for values, cut in zip(sequences, cuts, strict=True)]
    ).astype(float)
    if len(sums) < len(sequences) + 4 or np.ptp(sums / sizes) <= 1e-12 * np.abs(sums).max():
        return None
    sums = sums - sizes * (sums.sum() / sizes.sum())
    starts = np.concatenate([[0], np.cumsum([len(cut) for cut in cuts])[:-1]])

    def differ(order: NDArray[np.intp]) -> Array:
        totals = np.add.reduceat(sums[order], starts, axis=-1)
        return (totals**2 / np.add.reduceat(sizes[order], starts, axis=-1)).sum(axis=-1)

    observed = differ(np.arange(len(sums))) * (1.0 - 1e-9)
    at_once = max(1, _AT_ONCE // len(sums))
    beyond, left = 0, PERMUTATIONS
    while left > 0:
        rows = min(at_once, left)
        order = rng.permuted(np.tile(np.arange(len(sums)), (rows, 1)), axis=1)
        beyond += int((differ(order) >= observed).sum())
        left -= rows
    return (beyond + 1) / (PERMUTATIONS + 1)
