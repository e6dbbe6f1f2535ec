"""Eigenvalues and spectral density of a symmetric matrix that is known by its products alone."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

Array = NDArray[np.float64]
Product = Callable[[Array], NDArray[np.floating]]
Told = Callable[[Array], tuple[NDArray[np.floating], Array]]
TOLERANCE = 1e-4  # residual over eigenvalue
BASIS = 3  # Lanczos vectors kept, in eigenvalues sought
SMALLEST_BASIS = 20


class Leading(NamedTuple):
    r"""Largest eigenvalues, descending, shape (found,), their unit eigenvectors, shape (size, found), and residuals.

    Some eigenvalue lies within :math:`r = |Av - \theta v|` of every :math:`\theta`, whatever A is. ``bends`` are
    what each batch says of :math:`v^\top A v`, shape (found, batches).
    """

    values: Array
    vectors: Array
    residuals: Array
    bends: Array


def products_needed(count: int) -> int:
    """Products that `leading` takes where eigenvalues separate well: its basis once, and one for each residual."""
    return max(BASIS * count, SMALLEST_BASIS) + 1 + count


def leading(product: Told, size: int, count: int, most: int, first: Array) -> Leading:
    r"""Largest eigenvalues by implicitly restarted Lanczos (ARPACK), to a residual of 1e-4 of each.

    Args:
        product: Gives A v, shape (size,), and what each batch says of v'Av.
        size: Rows of A.
        count: Eigenvalues sought.
        most: Products to spend before what has converged must do; the first filling of the basis is always spent.
        first: First Lanczos vector, shape (size,).

    Returns:
        As many as have converged; none if ``most`` was too few.

    Limits:
        Products in single precision: eigenvalues below 1e-6 of the largest are noise. Of equal eigenvalues ARPACK
        may miss some.
    """
    basis = max(BASIS * count, SMALLEST_BASIS)
    if size <= basis:
        whole = np.stack([product(unit)[0] for unit in np.eye(size)])
        values, vectors = np.linalg.eigh((whole + whole.T) / 2)
    else:
        restarts = max(1, (most - basis - count) // (basis - count))
        operator = LinearOperator((size, size), matvec=lambda v: product(v)[0], dtype=np.float64)  # type: ignore[call-arg]
        try:
            values, vectors = eigsh(operator, k=count, which="LA", v0=first, ncv=basis, tol=TOLERANCE, maxiter=restarts)  # type: ignore[arg-type]
        except ArpackNoConvergence as error:
            values, vectors = error.eigenvalues, error.eigenvectors
    order = np.argsort(values)[::-1][:count]
    return _checked(product, np.asarray(values)[order], np.asarray(vectors)[:, order])


def _checked(product: Told, values: Array, vectors: Array) -> Leading:
    """Eigenvalues as Rayleigh quotients of one more product each, with residuals."""
    theta, residuals, bends = np.empty(len(values)), np.empty(len(values)), []
    for i, vector in enumerate(vectors.T):
        moved, said = product(vector)
        theta[i] = vector @ moved
        residuals[i] = np.linalg.norm(moved - theta[i] * vector)
        bends.append(said)
    order = np.argsort(-theta)  # rounding may turn two equal ones round
    return Leading(theta[order], vectors[:, order], residuals[order], np.array([bends[i] for i in order]))


class Density(NamedTuple):
    """A spectral density as points: eigenvalues and the share of all eigenvalues at each, of every probe.

    Shapes (probes, points); shares of a probe add up to 1.
    """

    points: Array
    shares: Array

    def mean(self) -> tuple[float, float]:
        """Mean eigenvalue (trace over size) and its standard error over probes."""
        means = (self.points * self.shares).sum(1)
        return float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))


def density(product: Product, size: int, known: Leading, probes: int, steps: int, rng: np.random.Generator) -> Density:
    r"""Spectral density by stochastic Lanczos quadrature, leading eigenvalues put in as they are.

    A random unit vector orthogonal to the known eigenvectors has, in Lanczos' tridiagonal matrix T, the Gauss rule of
    its own spectral measure: the eigenvalues of T are points, the squared first components of its eigenvectors their
    weights. The mean over random vectors is the density of what is left; its moments to order 2 steps - 1 are exact
    for each vector. Basis vectors are made orthogonal twice, to the known ones too.

    Args:
        product: Gives A v, shape (size,).
        size: Rows of A.
        known: Its leading eigenvalues and eigenvectors.
        probes: Random vectors, 2 or more.
        steps: Of Lanczos.
        rng: Draws them.

    Returns:
        Points and shares, (probes, known + steps).

    Source:
        Ubaru, Chen & Saad (2017), Fast estimation of tr(f(A)) via stochastic Lanczos quadrature.
    """
    rest = size - len(known.values)
    points, shares = [], []
    for _ in range(probes):
        nodes, weights = _rule(product, known.vectors, rng.standard_normal(size), min(steps, rest))
        blank = np.zeros(max(0, min(steps, rest) - len(nodes)))
        points.append(np.concatenate([known.values, nodes, blank]))
        shares.append(np.concatenate([np.ones(len(known.values)), rest * weights, blank]) / size)
    return Density(np.array(points), np.array(shares))


def _rule(product: Product, apart: Array, first: Array, steps: int) -> tuple[Array, Array]:
    """Gauss rule of the spectral measure of ``first`` without its part in the columns of ``apart``."""
    if steps == 0:  # every eigenvector is known
        return np.empty(0), np.empty(0)
    basis = np.empty((steps, len(first)), np.float32)
    diagonal, beside = np.zeros(steps), np.zeros(steps)
    vector = _orthogonal(first.astype(np.float32), apart, basis[:0])
    scale = 0.0
    for i in range(steps):
        length = float(np.linalg.norm(vector))
        if i and length <= 1e-6 * scale:  # the space is exhausted
            steps = i
            break
        beside[i], basis[i] = length, vector / length
        moved = product(basis[i].astype(np.float64))
        diagonal[i] = basis[i] @ moved
        vector = _orthogonal(moved.astype(np.float32), apart, basis[: i + 1])
        scale = max(scale, abs(diagonal[i]), float(np.linalg.norm(vector)))
    nodes, rows = eigh_tridiagonal(diagonal[:steps], beside[1:steps])
    return nodes, rows[0] ** 2


def _orthogonal(vector: NDArray[np.float32], apart: Array, basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """``vector`` without its parts along columns and rows."""
    for _ in range(2):
        vector = vector - (apart @ (apart.T @ vector)).astype(np.float32)
        vector -= basis.T @ (basis @ vector)
    return vector
