"""Probabilistic PCA against dense Gaussian brute force and a plain EM written out in loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from latentfactors.kernels.linalg import subspace_angle
from latentfactors.kernels.ppca import fit_ppca, posterior


def _panel(n_periods=60, n_assets=12, share=0.3, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n_periods, 2)) @ (rng.normal(size=(n_assets, 2)) * [2.0, 1.0]).T
    values = common + rng.normal(size=common.shape)
    return np.where(rng.random(values.shape) < share, np.nan, values)


def _dense_loglikelihood(values, loadings, noise):
    covariance = loadings @ loadings.T + noise * np.eye(len(loadings))
    total = 0.0
    for row in values:
        seen = np.isfinite(row)
        if seen.any():
            total += multivariate_normal(cov=covariance[np.ix_(seen, seen)]).logpdf(row[seen])
    return float(total)


def _plain_em(values, n_factors, n_iterations, seed):
    rng = np.random.default_rng(seed)
    n_assets = values.shape[1]
    observed = np.isfinite(values)
    loadings, noise = rng.normal(size=(n_assets, n_factors)), 1.0
    for _ in range(n_iterations):
        second, cross = np.zeros((n_assets, n_factors, n_factors)), np.zeros((n_assets, n_factors))
        expected = []
        for row, seen in zip(values, observed, strict=True):
            b = loadings[seen]
            omega = np.linalg.inv(np.eye(n_factors) + b.T @ b / noise)
            mean = omega @ b.T @ row[seen] / noise
            expected.append((mean, omega))
            second[seen] += omega + np.outer(mean, mean)
            cross[seen] += row[seen, None] * mean
        loadings = np.linalg.solve(second, cross[:, :, None])[:, :, 0]
        total = 0.0
        for row, seen, (mean, omega) in zip(values, observed, expected, strict=True):
            b = loadings[seen]
            total += np.sum((row[seen] - b @ mean) ** 2) + np.trace(b @ omega @ b.T)
        noise = total / observed.sum()
    return loadings, noise


@pytest.mark.parametrize("shape", [(60, 12), (12, 30)])
def test_closed_form_is_the_dense_likelihood_at_a_stationary_point(shape):
    values = _panel(*shape, share=0.0)
    fit = fit_ppca(values, 2)
    dense = _dense_loglikelihood(values, fit.loadings, fit.noise_variance)
    assert fit.loglikelihood == pytest.approx(dense, rel=1e-10)
    assert fit.n_iterations == 1
    # the gradient C^-1 (S - C) C^-1 must vanish along the loadings and, in its trace, along the noise
    covariance = fit.loadings @ fit.loadings.T + fit.noise_variance * np.eye(shape[1])
    inverse = np.linalg.inv(covariance)
    gradient = inverse @ (values.T @ values / shape[0] - covariance) @ inverse
    np.testing.assert_allclose(gradient @ fit.loadings, 0.0, atol=1e-9)
    assert abs(np.trace(gradient)) < 1e-9
    for moved in (fit.loadings * 1.01, fit.loadings + 0.01):
        assert _dense_loglikelihood(values, moved, fit.noise_variance) < fit.loglikelihood
    for factor in (0.98, 1.02):
        assert _dense_loglikelihood(values, fit.loadings, factor * fit.noise_variance) < fit.loglikelihood
    gram = fit.loadings.T @ fit.loadings
    assert abs(gram[0, 1]) < 1e-12 * gram[0, 0]
    assert gram[0, 0] > gram[1, 1]


def test_as_many_factors_as_assets_reproduce_the_moment():
    values = np.random.default_rng(1).normal(size=(40, 5))
    for n_factors in (4, 5):
        fit = fit_ppca(values, n_factors)
        covariance = fit.loadings @ fit.loadings.T + fit.noise_variance * np.eye(5)
        np.testing.assert_allclose(covariance, values.T @ values / 40, atol=1e-12)
        assert fit.noise_variance == pytest.approx(np.linalg.eigvalsh(values.T @ values / 40)[0])


@pytest.mark.parametrize("n_factors", [4, 6, 9])
def test_factors_beyond_the_rank_hold_the_noise_at_its_floor(n_factors):
    values = np.random.default_rng(2).normal(size=(4, 9))
    fit = fit_ppca(values, n_factors)
    assert fit.noise_variance == pytest.approx(1e-12 * np.mean(values**2))
    assert "floor" in fit.reason
    assert np.isfinite(fit.loglikelihood)
    np.testing.assert_allclose(fit.loadings @ fit.loadings.T, values.T @ values / 4, atol=1e-9)
    np.testing.assert_array_equal(fit.loadings[:, 4:], 0.0)


@pytest.mark.parametrize("shape", [(60, 12), (15, 30)])
def test_em_rises_to_the_dense_likelihood_of_a_long_plain_em(shape):
    values = _panel(*shape)
    before = values.copy()
    fit = fit_ppca(values, 2)
    assert fit.converged, fit.reason
    dense = _dense_loglikelihood(values, fit.loadings, fit.noise_variance)
    assert fit.loglikelihood == pytest.approx(dense, rel=1e-10)
    path = np.array(fit.objective_path)
    assert len(path) > 3
    assert path[-1] == fit.loglikelihood
    assert np.all(np.diff(path) >= -1e-12 * np.abs(path[:-1]))
    slow = _dense_loglikelihood(values, *_plain_em(values, 2, 400, seed=3))
    assert fit.loglikelihood >= slow - 1e-9 * abs(slow)
    np.testing.assert_array_equal(values, before)


def test_missing_em_agrees_with_the_closed_form_when_nothing_that_matters_is_missing():
    """One extra asset, observed never, sends complete data through EM."""
    values = _panel(share=0.0)
    closed = fit_ppca(values, 2)
    extended = fit_ppca(np.column_stack([values, np.full(len(values), np.nan)]), 2, tolerance=1e-11)
    assert extended.n_iterations > 1
    assert extended.loglikelihood == pytest.approx(closed.loglikelihood, rel=1e-10)
    assert extended.noise_variance == pytest.approx(closed.noise_variance, rel=1e-8)
    np.testing.assert_allclose(
        extended.loadings[:-1] @ extended.loadings[:-1].T, closed.loadings @ closed.loadings.T, atol=1e-7
    )
    np.testing.assert_allclose(extended.loadings[-1], 0.0, atol=1e-12)


@pytest.mark.parametrize("n_factors", [3, 4])
def test_noise_free_values_drive_the_noise_to_its_floor_and_rise_all_the_way(n_factors):
    rng = np.random.default_rng(4)
    loadings = rng.normal(size=(40, 3))
    values = np.where(rng.random((120, 40)) < 0.3, np.nan, rng.normal(size=(120, 3)) @ loadings.T)
    fit = fit_ppca(values, n_factors)
    assert fit.converged, fit.reason
    assert "floor" in fit.reason
    assert subspace_angle(fit.loadings[:, :3], loadings) < 1e-10
    path = np.array(fit.objective_path)
    assert np.all(np.diff(path) >= -1e-12 * np.abs(path[:-1]))


@pytest.mark.parametrize("scale", [1e-4, 1e6, 2.0**-13, 2.0**20])
def test_scale_free(scale):
    values = _panel()
    fit, scaled = fit_ppca(values, 2), fit_ppca(scale * values, 2)
    n_cells = np.isfinite(values).sum()
    assert scaled.noise_variance == pytest.approx(scale**2 * fit.noise_variance, rel=1e-8)
    np.testing.assert_allclose(
        scaled.loadings @ scaled.loadings.T / scale**2, fit.loadings @ fit.loadings.T, rtol=1e-8, atol=1e-8
    )
    assert scaled.loglikelihood + n_cells * np.log(scale) == pytest.approx(fit.loglikelihood, rel=1e-10)
    if np.frexp(scale)[0] == 0.5:
        assert (scaled.loadings / scale).tobytes() == fit.loadings.tobytes()


def test_order_of_assets_and_periods_is_irrelevant():
    values = _panel()
    rng = np.random.default_rng(5)
    rows, columns = rng.permutation(values.shape[0]), rng.permutation(values.shape[1])
    fit, permuted = fit_ppca(values, 2), fit_ppca(values[np.ix_(rows, columns)], 2)
    common = fit.loadings @ fit.loadings.T
    np.testing.assert_allclose(
        permuted.loadings @ permuted.loadings.T, common[np.ix_(columns, columns)], atol=1e-8
    )


def _posterior_case():
    rng = np.random.default_rng(6)
    values = _panel(20, 11, seed=7)
    values[4], values[5, 2:] = np.nan, np.nan
    loadings = rng.normal(size=(11, 2))
    loadings[3] = np.nan
    return values, loadings, np.array([0.5, -1.0])


@pytest.mark.parametrize("prior_covariance", [np.array([[2.0, 0.6], [0.6, 1.0]]), np.diag([1.0, 0.0])])
def test_posterior_equals_dense_conditioning(prior_covariance):
    values, loadings, prior_mean = _posterior_case()
    noise = 0.3
    mean, covariance = posterior(values, loadings, noise, prior_mean, prior_covariance, 1)
    for t, row in enumerate(values):
        seen = np.isfinite(row) & np.isfinite(loadings).all(axis=1)
        if not seen.any():
            assert np.isnan(mean[t]).all()
            assert np.isnan(covariance[t]).all()
            continue
        b = loadings[seen]
        gain = prior_covariance @ b.T @ np.linalg.inv(b @ prior_covariance @ b.T + noise * np.eye(len(b)))
        np.testing.assert_allclose(mean[t], prior_mean + gain @ (row[seen] - b @ prior_mean), atol=1e-10)
        np.testing.assert_allclose(covariance[t], prior_covariance - gain @ b @ prior_covariance, atol=1e-10)
        np.testing.assert_array_equal(covariance[t], covariance[t].T)
    fewer = posterior(values, loadings, noise, prior_mean, prior_covariance, 3)[0]
    assert np.isnan(fewer[[4, 5]]).all()
    assert np.isfinite(mean[5]).all()


def test_posterior_without_noise_is_least_squares():
    values, loadings, prior_mean = _posterior_case()
    mean, covariance = posterior(values, loadings, 0.0, prior_mean, np.eye(2), 4)
    seen = np.isfinite(values[0]) & np.isfinite(loadings).all(axis=1)
    expected = np.linalg.lstsq(loadings[seen], values[0, seen], rcond=None)[0]
    np.testing.assert_allclose(mean[0], expected, atol=1e-10)
    np.testing.assert_array_equal(covariance[0], 0.0)


def test_posterior_keeps_every_bit_when_the_panel_is_cut():
    values, loadings, prior_mean = _posterior_case()
    prior = np.array([[2.0, 0.6], [0.6, 1.0]])
    full = posterior(values, loadings, 0.3, prior_mean, prior, 1)
    for piece in (slice(0, 9), slice(7, 8), slice(3, 20), slice(1, 20, 2)):
        for part, whole in zip(
            posterior(values[piece], loadings, 0.3, prior_mean, prior, 1), full, strict=True
        ):
            assert part.tobytes() == whole[piece].tobytes()
