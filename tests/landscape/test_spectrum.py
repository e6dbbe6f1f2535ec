"""Lanczos on matrices that are known."""

import numpy as np
import pytest

from stalewise.landscape.spectrum import Leading, density, leading

SIZE = 80


def matrix(seed=0):
    """Symmetric, eigenvalues -1 to 10, some close together."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]
    eigenvalues = np.concatenate([[10.0, 9.9, 5.0], rng.uniform(-1, 1, SIZE - 3)])
    return (basis * eigenvalues) @ basis.T


def by(a):
    """Its products, as two batches see them that differ by a tenth."""
    return lambda v: (a @ v, np.array([0.9, 1.1]) * (v @ a @ v))


def test_leading_eigenvalues_and_residuals():
    """All of them, and what batches say is kept."""
    a, first = matrix(), np.random.default_rng(1).standard_normal(SIZE)
    found = leading(by(a), SIZE, 5, 500, first)
    assert found.values == pytest.approx(np.linalg.eigvalsh(a)[::-1][:5], rel=1e-4)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(5), atol=1e-8)
    residuals = np.linalg.norm(a @ found.vectors - found.vectors * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, residuals, atol=1e-14)
    np.testing.assert_allclose(found.bends[:, 1], 1.1 * found.values)


def test_a_small_matrix_is_taken_whole():
    """No more columns than Lanczos would keep."""
    a = matrix()[:7, :7]
    found = leading(by(a), 7, 7, 1, np.ones(7))
    assert found.values == pytest.approx(np.linalg.eigvalsh(a)[::-1])


def test_what_has_not_separated_is_left_out():
    """With products for one filling of the basis alone, the bulk has not; what is told is right."""
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((400, 400)))[0]
    eigenvalues = np.concatenate([[50.0, 40.0], np.linspace(0, 1, 398)])
    found = leading(by((basis * eigenvalues) @ basis.T), 400, 8, 1, rng.standard_normal(400))
    assert 2 <= len(found.values) < 8
    assert found.values[:2] == pytest.approx([50.0, 40.0], rel=1e-4)


def test_density_is_exact_when_lanczos_runs_to_the_end():
    """Points are the eigenvalues; shares are squared parts of the vector, whose mean is equal for all (4.5 errors)."""
    a = matrix()
    known = leading(by(a), SIZE, 3, 500, np.ones(SIZE))
    found = density(lambda v: a @ v, SIZE, known, 300, SIZE, np.random.default_rng(3))
    np.testing.assert_allclose(found.shares.sum(1), 1.0)
    np.testing.assert_allclose(np.sort(found.points[0]), np.linalg.eigvalsh(a), atol=1e-4)
    order = np.argsort(found.points, axis=1)
    shares = np.take_along_axis(found.shares, order, 1)[:, : SIZE - 3]
    error = shares.std(0, ddof=1) / np.sqrt(300)
    assert (np.abs(shares.mean(0) - 1 / SIZE) < 4.5 * error).all()
    mean, error = found.mean()
    assert abs(mean - np.trace(a) / SIZE) < 4.5 * error


def test_few_steps_keep_the_moments():
    """k steps know the vector's moments to order 2 k - 1: a vector's own, by matrix powers."""
    a, none = matrix(), Leading(np.empty(0), np.empty((SIZE, 0)), np.empty(0), np.empty((0, 1)))
    found = density(lambda v: a @ v, SIZE, none, 2, 4, np.random.default_rng(5))
    again = np.random.default_rng(5)
    for points, shares in zip(found.points, found.shares, strict=True):
        vector = again.standard_normal(SIZE)
        vector /= np.linalg.norm(vector)
        for power in range(8):
            exact = vector @ np.linalg.matrix_power(a, power) @ vector
            assert shares @ points**power == pytest.approx(exact, rel=1e-4, abs=1e-4)


def test_density_of_a_projector_stops_early():
    """Two distinct eigenvalues: two steps, and no more points than that carry weight."""
    a = np.diag([1.0] * 30 + [0.0] * 50)
    none = Leading(np.empty(0), np.empty((SIZE, 0)), np.empty(0), np.empty((0, 1)))
    found = density(lambda v: a @ v, SIZE, none, 2, 20, np.random.default_rng(0))
    assert (found.shares > 1e-9).sum(1).tolist() == [2, 2]
