"""Linear-algebra kernels against dense NumPy twins."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.kernels.linalg import (
    align,
    binary_scale,
    invert_pd_batch,
    outer_products,
    pack,
    period_moments,
    principal_subspace,
    solve_psd_batch,
    subspace_angle,
    top_eigenpairs,
    unpack,
)


def _factor_moment(size, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(size // 2, 4)) @ rng.normal(size=(4, size)) + rng.normal(size=(size // 2, size))
    return values.T @ values


@pytest.mark.parametrize("size", [30, 650])
def test_top_eigenpairs_equal_the_full_decomposition(size):
    moment = _factor_moment(size)
    eigenvalues, vectors = top_eigenpairs(moment, 4)
    np.testing.assert_allclose(eigenvalues, np.linalg.eigvalsh(moment)[::-1][:4], rtol=1e-12)
    np.testing.assert_allclose(moment @ vectors, vectors * eigenvalues, atol=1e-11 * eigenvalues[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-12)


@pytest.mark.parametrize(
    "moment",
    [
        np.eye(650),
        np.zeros((650, 650)),
        # a Krylov space from one vector holds one copy of the 5
        np.diag(np.r_[np.linspace(1, 3, 648), 5, 5]),
        np.kron(np.eye(2), _factor_moment(320)),
        -np.eye(650) + np.ones((650, 650)) / 100,
    ],
)
def test_lanczos_neither_misses_repeated_eigenvalues_nor_fails(moment):
    eigenvalues, vectors = top_eigenpairs(moment, 3)
    expected = np.linalg.eigvalsh(moment)[::-1][:3]
    np.testing.assert_allclose(eigenvalues, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    again = top_eigenpairs(moment, 3)
    assert vectors.tobytes() == again[1].tobytes()


@pytest.mark.parametrize("shape", [(50, 20), (20, 50)])
def test_principal_subspace_equals_the_svd(shape):
    values = np.random.default_rng(1).normal(size=shape)
    loadings, eigenvalues = principal_subspace(values, 3)
    _, singular, right = np.linalg.svd(values, full_matrices=False)
    np.testing.assert_allclose(eigenvalues, singular[:3] ** 2 / shape[0], rtol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(loadings * right[:3].T, axis=0)), 1.0, rtol=1e-12)
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(3), atol=1e-13)


@pytest.mark.parametrize("shape", [(50, 20), (20, 50)])
def test_principal_subspace_is_scale_free_and_takes_deficient_rank(shape):
    values = np.random.default_rng(2).normal(size=shape)
    loadings, eigenvalues = principal_subspace(values, 3)
    for scale in (2.0**-13, 2.0**20):
        scaled, scaled_eigenvalues = principal_subspace(scale * values, 3)
        assert scaled.tobytes() == loadings.tobytes()
        np.testing.assert_array_equal(scaled_eigenvalues, scale**2 * eigenvalues)
    for scale in (1e-200, 1e150):
        assert subspace_angle(principal_subspace(scale * values, 3)[0], loadings) < 1e-12
    single = np.outer(values[:, 0], values[0])
    basis, eigenvalues = principal_subspace(single, 3)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    assert eigenvalues[1] <= 1e-25 * eigenvalues[0]


def test_principal_subspace_keeps_weak_factors_that_a_gram_matrix_blurs():
    rng = np.random.default_rng(3)
    left, right = np.linalg.qr(rng.normal(size=(60, 2)))[0], np.linalg.qr(rng.normal(size=(90, 2)))[0]
    for values, axes in (((left * [1.0, 1e-5]) @ right.T, right), ((right * [1.0, 1e-5]) @ left.T, left)):
        loadings, eigenvalues = principal_subspace(values, 2)
        np.testing.assert_allclose(np.sqrt(eigenvalues * len(values)), [1.0, 1e-5], rtol=1e-9)
        assert subspace_angle(loadings, axes) < 1e-9


@pytest.mark.parametrize("angle", [1e-12, 1e-9, 1e-3, 1.0])
def test_subspace_angle_is_accurate_far_below_the_cosine(angle):
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(rng.normal(size=(30, 4)))[0]
    p = basis[:, :3]
    q = np.column_stack([basis[:, :2], np.cos(angle) * basis[:, 2] + np.sin(angle) * basis[:, 3]])
    mixing = rng.normal(size=(3, 3))
    assert subspace_angle(p @ mixing, q) == pytest.approx(np.sin(angle), rel=1e-6, abs=5e-15)


def test_align_undoes_a_rotation():
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.normal(size=(12, 3)))[0]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    np.testing.assert_allclose(align(basis @ turn, basis), basis, atol=1e-13)


def test_solve_psd_batch_equals_solve_and_gives_the_minimum_norm_where_singular():
    rng = np.random.default_rng(6)
    root = rng.normal(size=(8, 4, 6))
    matrices = root @ root.transpose(0, 2, 1)
    matrices[3] = np.outer(np.arange(4.0), np.arange(4.0)) * 1e-9  # rank one, small
    matrices[5] = 0.0
    matrices[6] *= 1e30  # relative tolerances: neighbours' sizes do not matter
    matrices[7] = matrices[7] * np.outer([1, 1e-6, 1, 1e6], [1, 1e-6, 1, 1e6])  # badly scaled, not singular
    b = rng.normal(size=(8, 4))
    b[3] = 1e-9 * np.arange(4.0)
    x = solve_psd_batch(matrices, b)
    for i in (0, 1, 2, 4, 6, 7):
        np.testing.assert_allclose(x[i], np.linalg.solve(matrices[i], b[i]), rtol=1e-9)
    np.testing.assert_allclose(x[3], np.arange(4.0) / 14.0, atol=1e-12)
    np.testing.assert_array_equal(x[5], np.zeros(4))
    # a member's answer keeps every bit in another batch
    for i in range(8):
        assert solve_psd_batch(matrices[i : i + 1], b[i : i + 1]).tobytes() == x[i].tobytes()


def test_invert_pd_batch():
    rng = np.random.default_rng(7)
    root = rng.normal(size=(5, 4, 3)) * np.array([1, 1, 1, 1e3, 1e6])[:, None, None]
    matrices = np.eye(4) + root @ root.transpose(0, 2, 1)
    inverse, logdet = invert_pd_batch(matrices)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(matrices)[1], rtol=1e-4)
    np.testing.assert_allclose(inverse[:4], np.linalg.inv(matrices[:4]), atol=1e-9)
    np.testing.assert_allclose(logdet[:4], np.linalg.slogdet(matrices[:4])[1], rtol=1e-9)


def test_packed_moments_equal_loops():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(7, 3))
    full = x[:, :, None] * x[:, None, :]
    np.testing.assert_array_equal(unpack(outer_products(x)), full)
    np.testing.assert_array_equal(pack(full), outer_products(x))
    values = np.where(rng.random((5, 7)) < 0.4, np.nan, rng.normal(size=(5, 7)))
    loadings = x.copy()
    loadings[2, 1] = np.nan
    grams, crosses, counts = period_moments(values, loadings)
    for t in range(5):
        seen = np.isfinite(values[t]) & np.isfinite(loadings).all(axis=1)
        np.testing.assert_allclose(grams[t], x[seen].T @ x[seen], atol=1e-14)
        np.testing.assert_allclose(crosses[t], x[seen].T @ values[t, seen], atol=1e-14)
        assert counts[t] == seen.sum()


def test_binary_scale_is_an_exact_power_of_two():
    values = np.array([[3.0, np.nan], [4.0, 0.1]])
    scale = binary_scale(values)
    assert np.frexp(scale)[0] == 0.5
    assert 0.5 <= np.sqrt(np.nanmean(values**2)) / scale <= 1.0
    assert binary_scale(values * 2.0**-40) == scale * 2.0**-40
    assert binary_scale(np.zeros((2, 2))) == 1.0
    assert np.isfinite(binary_scale(values * 1e300))
