"""PCA with missing cells against exact recovery and a slow imputing twin."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.kernels.als import factor_step, fit_als, loading_step, observed_factors, start_loadings
from latentfactors.kernels.linalg import subspace_angle

SHAPES = [(120, 40), (40, 120)]


def _hide(values, share, seed):
    return np.where(np.random.default_rng(seed).random(values.shape) < share, np.nan, values)


def _noisy(n_periods=60, n_assets=30, n_factors=3, seed=0):
    rng = np.random.default_rng(seed)
    common = (
        rng.normal(size=(n_periods, n_factors)) @ (rng.normal(size=(n_assets, n_factors)) * [2, 1, 0.6]).T
    )
    return _hide(common + rng.normal(size=(n_periods, n_assets)), 0.3, seed + 1)


def _common(fit):
    return fit.intercept + fit.factors @ fit.loadings.T


def _imputing_pca(values, n_factors, intercept, n_iterations):
    """EM-PCA: fill the holes with the fit, decompose, repeat. Slow, obvious, the same objective."""
    observed = np.isfinite(values)
    fit = np.zeros(values.shape)
    for _ in range(n_iterations):
        filled = np.where(observed, values, fit)
        level = filled.mean(axis=0) if intercept else 0.0
        _, vectors = np.linalg.eigh((filled - level).T @ (filled - level))
        axes = vectors[:, -n_factors:]
        fit = level + (filled - level) @ axes @ axes.T
    return float(np.sum((values - fit)[observed] ** 2))


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_noise_free_values_are_recovered_with_30_percent_hidden(shape, intercept):
    rng = np.random.default_rng(10)
    loadings = rng.normal(size=(shape[1], 3))
    truth = rng.normal(size=(shape[0], 3)) @ loadings.T
    if intercept:
        truth = truth + 5.0 * rng.normal(size=shape[1])
    values = _hide(truth, 0.3, 11)
    before = values.copy()
    fit = fit_als(values, 3, intercept=intercept)
    assert fit.converged, fit.reason
    np.testing.assert_allclose(_common(fit), truth, atol=1e-10)
    assert subspace_angle(fit.loadings, loadings) < 1e-10
    np.testing.assert_allclose(fit.loadings.T @ fit.loadings, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(values, before)
    if intercept:
        np.testing.assert_allclose(fit.factors.mean(axis=0), 0.0, atol=1e-10)
    else:
        np.testing.assert_array_equal(fit.intercept, 0.0)


@pytest.mark.parametrize("intercept", [False, True])
def test_more_factors_than_the_data_hold_still_end_in_an_exact_fit(intercept):
    rng = np.random.default_rng(12)
    values = _hide(rng.normal(size=(120, 2)) @ rng.normal(size=(2, 40)), 0.3, 13)
    fit = fit_als(values, 3, intercept=intercept)
    assert fit.converged
    assert fit.objective_path[-1] < 1e-26


@pytest.mark.parametrize("intercept", [False, True])
def test_objective_falls_and_reaches_a_long_imputing_pca(intercept):
    values = _noisy()
    fit = fit_als(values, 3, intercept=intercept)
    assert fit.converged, fit.reason
    path = np.array(fit.objective_path)
    assert len(path) > 3
    assert np.all(np.diff(path) <= 1e-12 * path[:-1])
    observed = np.isfinite(values)
    sse = float(np.sum((values - _common(fit))[observed] ** 2))
    centred = values - (np.nanmean(values, axis=0) if intercept else 0.0)
    assert path[-1] == pytest.approx(sse / np.nansum(centred**2), rel=1e-12)
    # 2,000 steps leave the twin within 1e-12 of its limit here
    assert sse <= _imputing_pca(values, 3, intercept, 2000) * (1.0 + 1e-9)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("shape", [(60, 30), (30, 60)])
def test_the_limit_is_stationary(shape, intercept):
    values = _noisy(*shape)
    fit = fit_als(values, 3, intercept=intercept)
    residual = np.where(np.isfinite(values), values - _common(fit), 0.0)
    scale = np.sqrt(np.nansum(values**2))
    assert np.linalg.norm(residual @ fit.loadings) < 1e-8 * scale
    assert np.linalg.norm(residual.T @ fit.factors) < 1e-8 * scale * np.linalg.norm(fit.factors)
    if intercept:
        assert np.linalg.norm(residual.sum(axis=0)) < 1e-8 * scale


def test_acceleration_saves_sweeps_on_a_hard_case():
    # assets that live at different times: they agree on the factors through their overlaps only
    rng = np.random.default_rng(0)
    values = rng.normal(size=(120, 2)) @ rng.normal(size=(2, 60)) + rng.normal(size=(120, 60))
    age = np.arange(120)[:, None] - rng.integers(0, 90, size=60)
    values[(age < 0) | (age >= 30)] = np.nan
    values = values[np.isfinite(values).sum(axis=1) >= 8]
    fit = fit_als(values, 2)
    assert fit.converged
    observed = np.isfinite(values)
    filled, mask = np.where(observed, values, 0.0), observed.astype(float)
    loadings = start_loadings(filled, mask, 2)
    for _ in range(3 * fit.n_iterations):
        factors, sse = factor_step(filled, mask, loadings, np.zeros(60))
        loadings = np.linalg.qr(loading_step(filled, mask, factors, intercept=False)[1])[0]
    assert subspace_angle(loadings, fit.loadings) > 1e-8, "three times as many plain sweeps do as well"
    assert sse / np.sum(filled**2) >= fit.objective_path[-1] * (1.0 - 1e-12)
    short = fit_als(values, 2, max_iterations=6)
    assert not short.converged
    assert short.n_iterations == 6
    assert "still moving" in short.reason


@pytest.mark.parametrize("shape", [(60, 30), (30, 60)])
def test_complete_data_are_one_decomposition(shape):
    rng = np.random.default_rng(16)
    values = rng.normal(size=shape) + 3.0
    for intercept in (False, True):
        level = values.mean(axis=0) if intercept else np.zeros(shape[1])
        left, singular, right = np.linalg.svd(values - level, full_matrices=False)
        fit = fit_als(values, 2, intercept=intercept)
        np.testing.assert_allclose(_common(fit), level + (left[:, :2] * singular[:2]) @ right[:2], atol=1e-11)
        np.testing.assert_allclose(fit.intercept, level, atol=1e-12)
        assert fit.n_iterations == 1
        assert fit.objective_path[0] == pytest.approx(np.sum(singular[2:] ** 2) / np.sum(singular**2))


@pytest.mark.parametrize("intercept", [False, True])
def test_order_of_assets_and_periods_is_irrelevant(intercept):
    values = _noisy()
    rng = np.random.default_rng(17)
    rows, columns = rng.permutation(values.shape[0]), rng.permutation(values.shape[1])
    fit = fit_als(values, 3, intercept=intercept)
    permuted = fit_als(values[np.ix_(rows, columns)], 3, intercept=intercept)
    np.testing.assert_allclose(_common(permuted), _common(fit)[np.ix_(rows, columns)], atol=1e-8)
    assert subspace_angle(permuted.loadings, fit.loadings[columns]) < 1e-8


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("scale", [1e-4, 1e6, 2.0**-13, 2.0**20])
def test_scale_free(scale, intercept):
    values = _noisy()
    fit, scaled = fit_als(values, 3, intercept=intercept), fit_als(scale * values, 3, intercept=intercept)
    np.testing.assert_allclose(_common(scaled) / scale, _common(fit), rtol=1e-8, atol=1e-8)
    assert subspace_angle(scaled.loadings, fit.loadings) < 1e-8
    if np.frexp(scale)[0] == 0.5:
        assert scaled.loadings.tobytes() == fit.loadings.tobytes()
        assert (scaled.factors / scale).tobytes() == fit.factors.tobytes()
        assert scaled.objective_path == fit.objective_path


def test_a_large_level_does_not_blur_the_factors():
    values = _noisy()
    level = 1e5 * np.random.default_rng(18).normal(size=values.shape[1])
    fit, lifted = fit_als(values, 3, intercept=True), fit_als(values + level, 3, intercept=True)
    assert subspace_angle(lifted.loadings, fit.loadings) < 1e-8
    np.testing.assert_allclose(lifted.intercept - level, fit.intercept, atol=1e-8)


def test_empty_periods_and_assets_get_minimum_norm_answers():
    values = _noisy()
    values[4], values[:, 7] = np.nan, np.nan
    values[9, 1:] = np.nan
    fit = fit_als(values, 3)
    assert fit.converged, fit.reason
    np.testing.assert_allclose(fit.factors[4], 0.0, atol=1e-12)
    np.testing.assert_allclose(fit.loadings[7], 0.0, atol=1e-12)
    assert np.isfinite(fit.factors).all()


@pytest.mark.parametrize("shape", [(600, 20), (20, 600)])
def test_the_start_does_not_shrink_with_the_share_missing(shape):
    rng = np.random.default_rng(22)
    loadings = rng.normal(size=(shape[1], 2))
    values = rng.normal(size=(shape[0], 2)) @ loadings.T
    shares = np.linspace(0.0, 0.8, 20)
    values[rng.random(shape) < (shares if shape[1] == 20 else shares[:, None])] = np.nan
    observed = np.isfinite(values)
    filled = np.where(observed, values, 0.0)
    zero_filled = np.linalg.svd(filled, full_matrices=False)[2][:2].T
    start = start_loadings(filled, observed.astype(float), 2)
    assert subspace_angle(start, loadings) < 0.5 * subspace_angle(zero_filled, loadings)


def _panel_for_factors(n_assets=31):
    rng = np.random.default_rng(19)
    loadings = rng.normal(size=(n_assets, 3))
    loadings[5] = np.nan
    values = _hide(rng.normal(size=(50, n_assets)), 0.4, 20)
    values[3] = np.nan
    values[8, 5:] = np.nan  # five assets left
    values[9, 6:] = np.nan  # six, but one of them has no loading
    values[10, 2:] = np.nan
    return values, loadings


def test_observed_factors_equal_least_squares_period_by_period():
    values, loadings = _panel_for_factors()
    factors = observed_factors(values, loadings, min_observed=6)
    known = np.isfinite(loadings).all(axis=1)
    n_missing = 0
    for t, row in enumerate(values):
        seen = known & np.isfinite(row)
        if seen.sum() < 6:
            assert np.isnan(factors[t]).all()
            n_missing += 1
        else:
            expected = np.linalg.lstsq(loadings[seen], row[seen], rcond=None)[0]
            np.testing.assert_allclose(factors[t], expected, rtol=1e-10, atol=1e-12)
    assert n_missing >= 4


def test_observed_factors_refuse_periods_that_do_not_identify_them():
    rng = np.random.default_rng(21)
    base = rng.normal(size=(20, 3))
    # the first ten assets hardly tell the third factor from the first, and period 0 sees them alone
    for share, answered in ((0.0, False), (1e-8, False), (1e-5, True)):
        loadings = base.copy()
        loadings[:10, 2] = loadings[:10, 0] + share * base[:10, 2]
        values = rng.normal(size=(3, 20))
        values[0, 10:] = np.nan
        factors = observed_factors(values, loadings, min_observed=4)
        assert np.isfinite(factors[0]).all() == answered
        assert np.isfinite(factors[1:]).all()
        if answered:
            expected = np.linalg.lstsq(loadings[:10], values[0, :10], rcond=None)[0]
            np.testing.assert_allclose(factors[0], expected, rtol=1e-8)
    assert np.isnan(observed_factors(values[:, :2], base[:2], min_observed=1)).all()


@pytest.mark.parametrize("n_assets", [31, 400])
def test_observed_factors_keep_every_bit_when_the_panel_is_cut(n_assets):
    values, loadings = _panel_for_factors(n_assets)
    full = observed_factors(values, loadings, min_observed=6)
    for piece in (slice(0, 23), slice(7, 8), slice(11, 50), slice(1, 50, 2)):
        assert observed_factors(values[piece], loadings, min_observed=6).tobytes() == full[piece].tobytes()
    other = values.copy()
    other[30:] *= 7.0
    assert observed_factors(other, loadings, min_observed=6)[:30].tobytes() == full[:30].tobytes()
