r"""Survival function of a sum of independent delays, with its tail.

:math:`P(A + B > t) = \sum_b P(B = b)\,P(A > t - b) + \int f_B(x)\,P(A > t - x)\,dx`, the integral by Gauss-Legendre
panels between B's own scales and A's seen from t. Nothing is subtracted, so small probabilities keep their digits.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline

from stalewise.delays.laws.inversion import first_reaching

if TYPE_CHECKING:
    from stalewise.delays.laws.base import AbstractDelay

Array = NDArray[np.float64]
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_ODDS = np.linspace(-23.0, 69.0, 700)
_GAPS = 600  # no two knots of the bulk are further apart than this part of it
_NEAR = 1e-6  # knots stand this close to both sides of a jump of the density, relative to the time
MOST_ATOMS, MOST_JUMPS = 20_000, 200
_ROWS = 64


class ConvolvedTail:
    """Sum of two independent delays, none of them constant: tabulated once, then interpolated.

    The knots are 700 sums of equal quantiles (to the 1e-30 tail) and the ends of both laws' panels; between them the
    logarithm of the survival function is the cubic with the density as its slope, cut back where it would not be
    monotone. Atoms of both laws stay exact up to 20,000 pairs, beyond that they
    are smeared over a knot's distance.
    """

    def __init__(self, left: "AbstractDelay | ConvolvedTail", right: "AbstractDelay | ConvolvedTail") -> None:
        self._left, self._right = left, right
        self.mean = left.mean + right.mean

    @classmethod
    def of(cls, laws: Sequence["AbstractDelay"]) -> "ConvolvedTail":
        """The sum of two laws or more."""
        total = cls(laws[0], laws[1])
        for law in laws[2:]:
            total = cls(total, law)
        return total

    @functools.cached_property
    def atoms(self) -> tuple[Array, Array]:
        """Sums of both laws' atoms, and their probabilities."""
        (a, p), (b, q) = self._left.atoms, self._right.atoms
        if len(a) * len(b) > MOST_ATOMS:
            return np.zeros(0), np.zeros(0)
        values, which = np.unique(np.add.outer(a, b).ravel(), return_inverse=True)
        weights = np.bincount(which.ravel(), np.multiply.outer(p, q).ravel(), minlength=len(values))
        return values, np.asarray(weights, np.float64)

    @functools.cached_property
    def _low(self) -> float:
        return float(self._left.quantile(0.0)) + float(self._right.quantile(0.0))

    @functools.cached_property
    def _knots(self) -> Array:
        upper = _ODDS > 0
        p, q = 1.0 / (1.0 + np.exp(-_ODDS[~upper])), 1.0 / (1.0 + np.exp(_ODDS[upper]))
        matched = [np.concatenate([law.quantile(p), law.tail_quantile(q)]) for law in (self._left, self._right)]
        jumps = np.concatenate([self._right_low + self._left.atoms[0], self._left_low + self._right.atoms[0]])
        jumps = jumps if len(jumps) <= MOST_JUMPS else np.zeros(0)
        alone = [self._right_low + self._left.panels(), self._left_low + self._right.panels()]
        low, high = np.interp([-9.0, 9.0], _ODDS, sum(matched))
        bulk = np.linspace(low, high, _GAPS)
        knots = np.unique(np.concatenate([sum(matched), *alone, bulk, (1.0 - _NEAR) * jumps, (1.0 + _NEAR) * jumps]))
        knots = knots[np.isfinite(knots) & (knots > self._low)]
        far = np.diff(knots, prepend=self._low) > 0.1 * _NEAR * (knots - self._low)
        return np.concatenate([[self._low], knots[far]])

    def _continuous_at(self, t: Array) -> tuple[Array, Array]:
        """P(sum > t, and the sum is no atom) and its density, by quadrature, t of shape (n,)."""
        total, density = np.zeros_like(t), np.zeros_like(t)
        values, weights = self._right.atoms
        survive = self._left.continuous_survival if len(self.atoms[0]) else self._left.survival
        points, masses = self._left.atoms
        edges, other = self._right.panels(), np.append(self._left.panels(), points if len(points) <= MOST_JUMPS else [])
        for row in range(0, len(t), _ROWS):
            rows, here = slice(row, row + _ROWS), t[row : row + _ROWS, None]
            if len(values):
                total[rows] += survive(here - values) @ weights
                density[rows] += self._left.density(here - values) @ weights
            if len(edges) == 0:
                continue
            if len(points):
                density[rows] += self._right.density(here - points) @ masses
            x, mass = _panelled(edges, np.clip(here - other, edges[0], edges[-1]))
            used = mass > 0
            mass[used] *= self._right.density(x[used])
            total[rows] += (mass * self._left.survival(here - x)).sum(axis=1)
            slope = np.zeros_like(mass)
            slope[used] = self._left.density((here - x)[used])
            slope[~np.isfinite(slope)] = 0.0  # a density infinite at the law's least delay
            density[rows] += (mass * slope).sum(axis=1)
        return total, density

    @functools.cached_property
    def _share(self) -> float:
        """Probability of no atom."""
        return float(max(1.0 - self.atoms[1].sum(), 0.0)) if len(self.atoms[0]) else 1.0

    @functools.cached_property
    def _log_survival(self) -> CubicHermiteSpline | None:
        """Logarithm of the continuous part's survival between the first knot and the last; None if it has none."""
        if self._share < 1e-14:
            return None
        knots = self._knots
        survival, density = self._continuous_at(knots)
        survival = np.minimum.accumulate(np.minimum(survival, self._share))
        kept = survival > 1e-290
        knots, height, slope = knots[kept], np.log(survival[kept]), density[kept] / survival[kept]
        fall = -np.diff(height) / np.diff(knots)
        steepest = 3.0 * np.minimum(np.append(fall, np.inf), np.insert(fall, 0, np.inf))
        return CubicHermiteSpline(knots, height, -np.minimum(slope, steepest), extrapolate=False)

    def continuous_survival(self, t: ArrayLike) -> Array:
        """P(sum > t, and the sum is no atom)."""
        t = np.asarray(t, float)
        table = self._log_survival
        if table is None:
            return np.zeros_like(t)
        first, last = table.x[0], table.x[-1]
        inside = np.exp(table(np.clip(t, first, last)))
        beyond = self._left.survival(t - self._right_low) + self._right.survival(t - self._left_low)
        return np.where(t < first, self._share, np.where(t > last, np.minimum(inside, beyond), inside))

    @functools.cached_property
    def _left_low(self) -> float:
        return float(self._left.quantile(0.0))

    @functools.cached_property
    def _right_low(self) -> float:
        return float(self._right.quantile(0.0))

    def survival(self, t: ArrayLike) -> Array:
        """P(sum > t)."""
        return self.continuous_survival(t) + atoms_beyond(self.atoms, t)

    def density(self, t: ArrayLike) -> Array:
        """Density of the continuous part: slope of its table."""
        t = np.asarray(t, float)
        table = self._log_survival
        if table is None:
            return np.zeros_like(t)
        slope = np.nan_to_num(table.derivative()(t), nan=0.0)
        return -slope * self.continuous_survival(t)

    def panels(self) -> Array:
        """The knots, every tenth: the table is smooth between them."""
        return np.zeros(0) if self._log_survival is None else self._log_survival.x[::10]

    def quantile(self, p: ArrayLike) -> Array:
        """Smallest t with P(sum <= t) >= p."""
        p = np.asarray(p, float)
        return self._first(lambda t: 1.0 - self.survival(t) >= p, p)

    def tail_quantile(self, q: ArrayLike) -> Array:
        """Smallest t with P(sum > t) <= q; at most the last knot, where it is 1e-30 or less."""
        q = np.asarray(q, float)
        return self._first(lambda t: self.survival(t) <= q, q)

    def _first(self, reached, like: Array) -> Array:
        ends = [self.atoms[0][-1:], [] if self._log_survival is None else self._log_survival.x[-1:]]
        last = float(np.max(np.concatenate(ends)))
        return first_reaching(reached, np.full_like(like, self._low), np.full_like(like, last))

    def excess(self, t: ArrayLike) -> Array:
        """E(sum - t)+ for t >= 0: the table's area right of t, by Gauss-Legendre between its knots."""
        t = np.asarray(t, float)
        values, weights = self.atoms
        total = np.zeros_like(t)
        if len(values):
            upto = np.searchsorted(values, t, side="right")
            mass, moment = (np.append(np.cumsum(x[::-1])[::-1], 0.0) for x in (weights, weights * values))
            total = moment[upto] - t * mass[upto]
        table = self._log_survival
        if table is None:
            return total
        knots, right = self._areas
        place = np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(knots) - 2)
        begin = np.clip(t, knots[0], knots[-1])
        partial = self._area(begin, np.maximum(knots[place + 1], begin))
        beyond = np.minimum(
            self._left.excess(np.maximum(t, knots[-1])) + self._right.excess(np.maximum(t, knots[-1])), right[-1]
        )
        inside = partial + right[place + 1] + np.maximum(knots[0] - t, 0.0) * self._share
        return total + np.where(t >= knots[-1], beyond, inside)

    @functools.cached_property
    def _areas(self) -> tuple[Array, Array]:
        """Knots, and the area under the continuous part's survival right of each."""
        assert self._log_survival is not None
        knots = self._log_survival.x
        pieces = self._area(knots[:-1], knots[1:])
        end = float(self._left.excess(knots[-1]) + self._right.excess(knots[-1]))
        return knots, np.append(np.cumsum(pieces[::-1])[::-1], 0.0) + end

    def _area(self, begin: Array, end: Array) -> Array:
        half = 0.5 * (end - begin)[..., None]
        return (half * _WEIGHTS * self.continuous_survival(begin[..., None] + half * (1.0 + _NODES))).sum(axis=-1)


def _panelled(edges: Array, seen: Array) -> tuple[Array, Array]:
    """Gauss-Legendre points and weights between ``edges`` and, row by row, ``seen``; shape (rows, points)."""
    rows = len(seen)
    cuts = np.sort(np.concatenate([np.broadcast_to(edges, (rows, len(edges))), seen], axis=1), axis=1)
    half = 0.5 * np.diff(cuts, axis=1)[..., None]
    return (cuts[:, :-1, None] + half * (1.0 + _NODES)).reshape(rows, -1), (half * _WEIGHTS).reshape(rows, -1)


def atoms_beyond(atoms: tuple[Array, Array], t: ArrayLike) -> Array:
    """Probability of the atoms above t; small values keep their digits."""
    values, weights = atoms
    mass = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
    return mass[np.searchsorted(values, np.asarray(t, float), side="right")]
