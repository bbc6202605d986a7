"""Rows that miss the same cells: solved once a pattern, the same answers as one by one."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.kernels.als import factor_step, fit_als, loading_step
from latentfactors.kernels.linalg import distinct_rows, subspace_angle
from latentfactors.kernels.patterns import find_patterns, invert_few, solve_few
from latentfactors.kernels.targeted_em import em_step, fill, fit_targeted
from latentfactors.kernels.targeted_posterior import noise_by_series


def macro_array(T=120, d=30, k=3, seed=0):
    """Standardised; one series starts late, one ends early, one misses two months."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(T, k)) @ rng.normal(size=(k, d)) + rng.normal(size=(T, d))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    z[:70, 3], z[-2:, 8], z[40:42, 11] = np.nan, np.nan, np.nan
    return z


def test_patterns_are_the_distinct_rows():
    _, mask = fill(macro_array())
    found = find_patterns(mask)
    assert found is not None
    assert len(found.members) == len(np.unique(mask, axis=0)) == 4
    np.testing.assert_array_equal(mask[found.first][found.codes], mask)
    assert sorted(np.concatenate(found.members).tolist()) == list(range(120))
    for kind, rows in enumerate(found.members):
        assert (found.codes[rows] == kind).all()
    assert find_patterns((np.random.default_rng(0).uniform(size=(120, 30)) > 0.3).astype(float)) is None
    first, codes = distinct_rows(np.ones((0, 4)))
    assert first.size == codes.size == 0
    assert distinct_rows(np.ones((5, 0)))[1].tolist() == [0] * 5


def test_few_systems_are_solved_as_numpy_solves_them_and_singular_ones_by_the_minimum_norm():
    rng = np.random.default_rng(1)
    A = np.array([m @ m.T for m in rng.normal(size=(2, 4, 6))])
    mask = np.repeat([[1.0, 0.0], [1.0, 1.0]], [4, 5], axis=0)
    patterns, b = find_patterns(mask), rng.normal(size=(9, 4))
    assert patterns is not None
    np.testing.assert_allclose(
        solve_few(A, b, patterns), np.linalg.solve(A[patterns.codes], b[:, :, None])[:, :, 0], rtol=1e-9
    )
    inverse, logdet = invert_few(A)
    np.testing.assert_allclose(inverse, np.linalg.inv(A), rtol=1e-9)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(A)[1], rtol=1e-12)
    flat = np.outer([1.0, 2.0, 0.0, 1.0], [1.0, 2.0, 0.0, 1.0])
    A[0] = flat
    b = b @ flat  # so that every system has a solution
    answer = solve_few(A, b, patterns)
    expected = np.array(
        [np.linalg.pinv(A[u], hermitian=True) @ r for u, r in zip(patterns.codes, b, strict=True)]
    )
    np.testing.assert_allclose(answer, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("ratio", [None, 1.5])
def test_an_em_step_is_the_same_with_and_without_patterns(ratio):
    filled, mask = fill(macro_array())
    loadings = np.random.default_rng(2).normal(size=(30, 3))
    patterns = find_patterns(mask), find_patterns(mask.T)
    assert None not in patterns
    plain = em_step(filled, mask, loadings, np.array([0.5, 0.2]), 28, 1e-10, ratio)
    quick = em_step(filled, mask, loadings, np.array([0.5, 0.2]), 28, 1e-10, ratio, patterns)
    for a, b in zip(plain, quick, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


def test_steps_of_least_squares_are_the_same_with_and_without_patterns():
    filled, mask = fill(macro_array())
    rows, columns = find_patterns(mask), find_patterns(mask.T)
    loadings, alpha = np.random.default_rng(3).normal(size=(30, 3)), 0.1 * np.arange(30.0)
    plain, quick = (factor_step(filled, mask, loadings, alpha, each) for each in (None, rows))
    np.testing.assert_allclose(quick[0], plain[0], rtol=1e-9, atol=1e-12)
    assert quick[1] == pytest.approx(plain[1], rel=1e-12)
    a, b = (loading_step(filled, mask, plain[0], True, each) for each in (None, columns))
    np.testing.assert_allclose(b[0], a[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(b[1], a[1], rtol=1e-9, atol=1e-12)


def test_the_mixed_iteration_ends_where_plain_alternation_does():
    z = macro_array(seed=4)
    fit = fit_als(z, 3, intercept=True, tolerance=1e-9)
    assert fit.converged
    assert np.diff(fit.objective_path).max() <= 1e-12
    filled, mask = fill(z)
    alpha, loadings = np.zeros(30), np.random.default_rng(5).normal(size=(30, 3))
    for _ in range(3000):
        factors, sse = factor_step(filled, mask, loadings, alpha)
        alpha, loadings = loading_step(filled, mask, factors, True)
    assert subspace_angle(np.linalg.qr(loadings)[0], fit.loadings) < 1e-6
    assert fit.objective_path[-1] <= sse / (np.nanvar(z, axis=0) * mask.sum(axis=0)).sum() + 1e-12


def test_cold_and_warm_starts_of_the_em_meet():
    """Walk-forward starts every window cold; a warm start would change estimates by the tolerance only."""
    z = macro_array(T=160, seed=6)
    windows = [(each - np.nanmean(each, axis=0)) / np.nanstd(each, axis=0) for each in (z[:150], z[1:151])]
    before = fit_targeted(windows[0][:, :28], windows[0][:, 28:], 3, tolerance=1e-8)
    cold, warm = (
        fit_targeted(windows[1][:, :28], windows[1][:, 28:], 3, start=start, tolerance=1e-8)
        for start in (None, before)
    )
    noise = noise_by_series(cold.x_variance, cold.y_variance, 28, 30)
    assert warm.loglikelihood == pytest.approx(cold.loglikelihood, rel=1e-11)
    np.testing.assert_allclose(warm.loadings @ warm.loadings.T, cold.loadings @ cold.loadings.T, atol=1e-5)
    np.testing.assert_allclose(warm.noise, noise, rtol=1e-5)
