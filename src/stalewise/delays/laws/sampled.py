"""Laws known by their samples: measured delays, drawn at random or replayed in order."""

import functools
import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from stalewise.delays.compiled import Component, Kind
from stalewise.delays.laws.base import AbstractDelay, Array, Complex
from stalewise.errors import InputError

_CHEBYSHEV = 16
_TURN = 2.0  # |s| times half a panel; the polynomial through 16 points then errs by 1e-13
_BLOCK = 1 << 21


class AbstractSampled(AbstractDelay):
    """A law known by samples: every one has the same weight."""

    @functools.cached_property
    @abstractmethod
    def values(self) -> Array:
        """Sorted sample, shape (n,) [s]."""

    @functools.cached_property
    def _identity(self) -> tuple[str, bytes]:
        """The text form, and a digest of the samples in their order."""
        digest = hashlib.blake2b()
        for component in self.components():
            for sequence in component.sequences:
                digest.update(len(sequence).to_bytes(8, "little") + np.ascontiguousarray(sequence).tobytes())
        return str(self), digest.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AbstractSampled) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def variance(self) -> float:
        return float(self.values.var())

    def cdf(self, t: ArrayLike) -> Array:
        return np.searchsorted(self.values, np.asarray(t, float), side="right") / len(self.values)

    def survival(self, t: ArrayLike) -> Array:
        above = len(self.values) - np.searchsorted(self.values, np.asarray(t, float), side="right")
        return above / len(self.values)

    def density(self, t: ArrayLike) -> Array:
        return np.zeros_like(np.asarray(t, float))

    def continuous_survival(self, t: ArrayLike) -> Array:
        return np.zeros_like(np.asarray(t, float))

    def panels(self) -> Array:
        return np.zeros(0)

    def quantile(self, p: ArrayLike) -> Array:
        return np.quantile(self.values, np.asarray(p, float), method="inverted_cdf")

    def tail_quantile(self, q: ArrayLike) -> Array:
        allowed = np.floor(np.asarray(q, float) * len(self.values) * (1.0 + 1e-14)).astype(np.int64)
        return self.values[np.clip(len(self.values) - 1 - allowed, 0, len(self.values) - 1)]

    @functools.cached_property
    def _area_right(self) -> Array:
        """Sum of the k largest values, k = n, ..., 0, shape (n + 1,)."""
        return np.append(np.cumsum(self.values[::-1])[::-1], 0.0)

    def excess(self, t: ArrayLike) -> Array:
        t = np.asarray(t, float)
        upto = np.searchsorted(self.values, t, side="right")
        return (self._area_right[upto] - t * (len(self.values) - upto)) / len(self.values)

    def laplace(self, s: ArrayLike) -> Complex:
        r"""Mean of :math:`e^{-s d}`, to rounding, at a cost that does not grow with the sample.

        Over a panel that is short against :math:`1/|s|` the exponential is a polynomial: each panel's delays stand on
        16 Chebyshev points with the weights of interpolation. Panels are halved until they are short enough; where
        that takes more of them than there are distinct delays, the sum is taken as it stands.
        """
        s = np.asarray(s, complex)
        flat = s.ravel()
        span = 0.5 * (self.values[-1] - self.values[0]) or 1.0
        level = np.ceil(np.log2(np.maximum(np.abs(flat) * span / _TURN, 1.0))).astype(np.int64)
        value: Complex = np.zeros(flat.shape, np.complex128)
        for depth in np.unique(level):
            here = level == depth
            direct = 1 << min(int(depth), 40) > len(self._distinct[0]) // 2
            value[here] = self._summed(flat[here]) if direct else self._interpolated(flat[here], int(depth))
        return np.asarray(value.reshape(s.shape), np.complex128)

    @functools.cached_property
    def _distinct(self) -> tuple[Array, Array]:
        values, counts = np.unique(self.values, return_counts=True)
        return values, counts / len(self.values)

    def _summed(self, s: Complex) -> Complex:
        values, weights = self._distinct
        rows = max(_BLOCK // len(values), 1)
        pieces = [np.exp(-s[i : i + rows, None] * values) @ weights for i in range(0, len(s), rows)]
        return np.asarray(np.concatenate(pieces), np.complex128)

    def _interpolated(self, s: Complex, depth: int) -> Complex:
        centers, half, table = self._panelled(depth)
        rows = max(_BLOCK // len(centers), 1)
        pieces = []
        for i in range(0, len(s), rows):
            part = s[i : i + rows, None]
            pieces.append(((np.exp(-part * centers) @ table) * np.exp(-part * half * _points())).sum(axis=1))
        return np.concatenate(pieces)

    @functools.cached_property
    def _tables(self) -> dict[int, tuple[Array, float, Array]]:
        return {}

    def _panelled(self, depth: int) -> tuple[Array, float, Array]:
        """Centers of the panels that hold delays, their half width, and weights of shape (panels, 16)."""
        if depth not in self._tables:
            values, weights = self._distinct
            low, count = values[0], 1 << depth
            half = 0.5 * (values[-1] - low) / count or 1.0
            panel = np.minimum(((values - low) / (2.0 * half)).astype(np.int64), count - 1)
            kept, place = np.unique(panel, return_inverse=True)
            centers = low + (2.0 * kept + 1.0) * half
            basis = _lagrange((values - centers[place]) / half)
            table = np.stack([np.bincount(place, weights * column) for column in basis.T], axis=1)
            self._tables[depth] = (centers, half, np.asarray(table, np.float64))
        return self._tables[depth]

    @property
    def atoms(self) -> tuple[Array, Array]:
        """The delays; of more than 4,000 distinct ones, 4,000 points with the mean and variance of each neighbourhood.

        Groups are cut half by count and half by width, which keeps the tail, where equal counts are far apart.
        """
        return self._condensed

    @functools.cached_property
    def _condensed(self) -> tuple[Array, Array]:
        values = self.values
        if len(self._distinct[0]) <= 4000:
            return self._distinct
        cuts = np.concatenate([values[:: -(-len(values) // 1000)], np.linspace(values[0], values[-1], 1000)])
        _, group = np.unique(np.searchsorted(np.unique(cuts), values, side="right"), return_inverse=True)
        counts = np.bincount(group)
        middle = np.bincount(group, values) / counts
        spread = np.sqrt(np.bincount(group, (values - middle[group]) ** 2) / counts)
        points, weights = np.concatenate([middle - spread, middle + spread]), np.tile(counts / (2.0 * len(values)), 2)
        order = np.argsort(points)
        return points[order], weights[order]

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        return rng.choice(self.values, n)

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        return rng.choice(self.values, n, p=self.values / self.values.sum())


def _points() -> Array:
    return np.cos((np.arange(_CHEBYSHEV) + 0.5) * (np.pi / _CHEBYSHEV))


def _lagrange(x: Array) -> Array:
    """Values at x in [-1, 1] of the polynomials that are one at one Chebyshev point, shape (n, 16)."""
    angles = np.arccos(np.clip(x, -1.0, 1.0))[:, None]
    orders = np.arange(_CHEBYSHEV)
    scale = np.where(orders == 0, 1.0, 2.0) / _CHEBYSHEV
    return (np.cos(angles * orders) * scale) @ np.cos(orders[:, None] * np.arccos(_points()))


@dataclass(frozen=True, eq=False)
class Empirical(AbstractSampled):
    """Independent draws from measured delays, pooled over workers. ``source`` is what the text form names."""

    sample_values: Array = field(repr=False)
    source: str = "sample"

    def __post_init__(self) -> None:
        _check_sample("empirical", self.sample_values)

    def __str__(self) -> str:
        return f"empirical({quoted(self.source)})"

    @functools.cached_property
    def values(self) -> Array:
        return np.sort(np.asarray(self.sample_values, float))

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.EMPIRICAL, sequences=(self.values,)),)


@dataclass(frozen=True, eq=False)
class Replay(AbstractSampled):
    """Measured delays replayed in order, per worker: keeps autocorrelation and differences between workers.

    Worker ``i`` replays sequence ``i mod len(sequences)`` from a random place, and starts over at its end. As a law
    (mean, cdf, transform) it is what one gradient picked at random from the record looks like: a worker that logged
    more gradients counts for more.
    """

    sequences: tuple[Array, ...] = field(repr=False)
    source: str = "trace"

    def __post_init__(self) -> None:
        if not self.sequences:
            raise InputError("trace: no worker in it, at least one is needed")
        for sequence in self.sequences:
            _check_sample("trace", sequence)

    def __str__(self) -> str:
        return f"trace({quoted(self.source)})"

    @functools.cached_property
    def values(self) -> Array:
        return np.sort(np.concatenate(self.sequences))

    @property
    def independent(self) -> bool:
        return False

    def autocovariance(self, lag: int) -> float:
        """Of a gradient picked at random from the record and the one ``lag`` later in its sequence, round and round."""
        mean = self.mean
        return sum(float((x - mean) @ (np.roll(x, -lag) - mean)) for x in self.sequences) / len(self.values)

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.REPLAY, sequences=self.sequences),)


def quoted(name: str) -> str:
    """A file's name in double quotes, as `parse_delay` reads it."""
    return json.dumps(name, ensure_ascii=False)


def _check_sample(name: str, values: Array | Sequence[float]) -> None:
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) == 0:
        raise InputError(f"{name}: needs at least one delay, got shape {values.shape}")
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{name}: every delay must be positive and finite, got {values[at]!r} seconds at position {at}"
        )
