"""Vector autoregressions against loops and dense conditioning of the joint Gaussian."""

import numpy as np
import pytest

from latentfactors.kernels.autoregression import (
    VectorAutoregression,
    companion_radius,
    conditional_forecasts,
    fit_var,
)


def model(K=3, lags=2, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(lags, K, K)) * 0.4
    a *= (0.8 / companion_radius(a)) ** np.arange(1, lags + 1)[:, None, None]
    root = np.tril(rng.normal(size=(K, K)))
    return VectorAutoregression(rng.normal(size=K), a, root @ root.T + 0.1 * np.eye(K))


def simulate(var, T, seed=1, missing=0.0):
    rng = np.random.default_rng(seed)
    lags, K, _ = var.coefficients.shape
    u = rng.multivariate_normal(np.zeros(K), var.covariance, size=T + 100)
    y = np.zeros((T + 100, K))
    for t in range(lags, T + 100):
        y[t] = var.intercept + u[t] + sum(var.coefficients[i] @ y[t - 1 - i] for i in range(lags))
    y = y[100:].copy()
    gaps = rng.random(y.shape) < missing
    gaps[4:12] = False
    y[gaps] = np.nan
    return y


# Fit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lags", [1, 2, 3])
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_full_fit_equals_regression_by_loop(lags, missing):
    y = simulate(model(), 120, missing=missing)
    var, n_rows, shrunk = fit_var(y, lags)
    rows = [t for t in range(lags, len(y)) if np.isfinite(y[t - lags : t + 1]).all()]
    x = np.array([np.concatenate([[1.0], *(y[t - i] for i in range(1, lags + 1))]) for t in rows])
    slopes = np.linalg.solve(x.T @ x, x.T @ y[rows])
    residuals = y[rows] - x @ slopes
    assert n_rows == len(rows)
    assert not shrunk
    np.testing.assert_allclose(var.intercept, slopes[0], rtol=1e-8)
    for i in range(lags):
        np.testing.assert_allclose(
            var.coefficients[i], slopes[1 + 3 * i : 4 + 3 * i].T, rtol=1e-8, atol=1e-10
        )
    np.testing.assert_allclose(
        var.covariance, residuals.T @ residuals / (len(rows) - 1 - 3 * lags), rtol=1e-9
    )


@pytest.mark.parametrize("lags", [1, 2])
def test_diagonal_fit_equals_one_regression_a_series(lags):
    y = simulate(model(), 120, missing=0.1)
    var, n_rows, _ = fit_var(y, lags, diagonal=True)
    residuals, counts = np.full(y.shape, np.nan), []
    for k in range(3):
        rows = [t for t in range(lags, len(y)) if np.isfinite(y[t - lags : t + 1, k]).all()]
        x = np.array([[1.0, *(y[t - i, k] for i in range(1, lags + 1))] for t in rows])
        slopes = np.linalg.solve(x.T @ x, x.T @ y[rows, k])
        residuals[rows, k] = y[rows, k] - x @ slopes
        counts.append(len(rows))
        assert var.intercept[k] == pytest.approx(slopes[0], rel=1e-8)
        np.testing.assert_allclose(var.coefficients[:, k, k], slopes[1:], rtol=1e-8)
        variance = np.nansum(residuals[:, k] ** 2) / (len(rows) - lags - 1)
        assert var.covariance[k, k] == pytest.approx(variance, rel=1e-10)
    assert n_rows == min(counts)
    assert (var.coefficients[:, ~np.eye(3, dtype=bool)] == 0).all()
    common = residuals[np.isfinite(residuals).all(axis=1)]
    moment = common.T @ common
    sd = np.sqrt(np.diag(var.covariance))
    scale = np.sqrt(np.diag(moment))
    np.testing.assert_allclose(var.covariance / np.outer(sd, sd), moment / np.outer(scale, scale), rtol=1e-9)
    assert np.linalg.eigvalsh(var.covariance)[0] > 0


def test_diagonal_covariance_on_complete_data_is_the_residual_covariance():
    y = simulate(model(), 80)
    var, _, _ = fit_var(y, 1, diagonal=True)
    u = y[1:] - var.intercept - y[:-1] * np.diag(var.coefficients[0])
    np.testing.assert_allclose(var.covariance, u.T @ u / (79 - 2), rtol=1e-10)


def test_ridge_is_relative_to_the_average_variance_of_the_regressors():
    y = simulate(model(), 60)
    ridge = 0.2
    var, n, _ = fit_var(y, 2, ridge=ridge)
    x = np.hstack([y[1:-1], y[:-2]])
    centred, target = x - x.mean(axis=0), y[2:] - y[2:].mean(axis=0)
    second = centred.T @ centred / n
    slopes = np.linalg.solve(second + ridge * np.trace(second) / 6 * np.eye(6), centred.T @ target / n)
    np.testing.assert_allclose(np.hstack(list(var.coefficients)), slopes.T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(var.intercept, y[2:].mean(axis=0) - x.mean(axis=0) @ slopes, rtol=1e-9)
    flat, _, _ = fit_var(y, 2, ridge=1e12)
    np.testing.assert_allclose(flat.coefficients, 0, atol=1e-10)
    np.testing.assert_allclose(flat.intercept, y[2:].mean(axis=0), rtol=1e-8)


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("lags", [1, 2])
def test_explosive_fits_are_shrunk_and_keep_the_mean(diagonal, lags):
    rng = np.random.default_rng(8)
    trend = 1.05 ** np.arange(60)
    y = np.column_stack([trend, np.zeros(60)]) + np.cumsum(rng.normal(size=(60, 2)), axis=0) * 0.1
    y[:, 1] = 0.5 * rng.normal(size=60) + 2
    raw, _, was_shrunk = fit_var(y, lags, diagonal=diagonal, max_radius=1 - 1e-12)
    assert was_shrunk
    var, _, was_shrunk = fit_var(y, lags, diagonal=diagonal, max_radius=0.9)
    assert was_shrunk
    assert companion_radius(var.coefficients) == pytest.approx(0.9, abs=1e-10)
    implied = np.linalg.solve(np.eye(2) - var.coefficients.sum(axis=0), var.intercept)
    used = [0] if diagonal else [0, 1]  # the second series alone is stationary and keeps least squares
    np.testing.assert_allclose(implied[used], y[lags:].mean(axis=0)[used], rtol=1e-9)
    powers = 0.9 ** np.arange(1, lags + 1)
    np.testing.assert_allclose(var.coefficients[:, 0, 0], raw.coefficients[:, 0, 0] * powers, rtol=1e-9)
    if diagonal:
        np.testing.assert_allclose(var.coefficients[:, 1, 1], raw.coefficients[:, 1, 1], rtol=1e-12)
        np.testing.assert_allclose(var.intercept[1], raw.intercept[1], rtol=1e-12)
    u = y[lags:] - var.intercept - sum(y[lags - i - 1 : -i - 1] @ var.coefficients[i].T for i in range(lags))
    q = 1 + lags * (1 if diagonal else 2)
    np.testing.assert_allclose(np.diag(var.covariance), (u**2).sum(axis=0) / (60 - lags - q), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-4, 1e6, 2.0**20])
@pytest.mark.parametrize("diagonal", [True, False])
def test_fit_and_forecast_scale(scale, diagonal):
    y = simulate(model(), 90, missing=0.1)
    var, n, _ = fit_var(y, 2, diagonal=diagonal, ridge=0.01)
    scaled, m, _ = fit_var(y * scale, 2, diagonal=diagonal, ridge=0.01)
    assert n == m
    np.testing.assert_allclose(scaled.coefficients, var.coefficients, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(scaled.intercept, var.intercept * scale, rtol=1e-8)
    np.testing.assert_allclose(scaled.covariance, var.covariance * scale**2, rtol=1e-8)
    mean, covariance = conditional_forecasts(y, var, 2)
    mean_s, covariance_s = conditional_forecasts(y * scale, scaled, 2)
    np.testing.assert_allclose(mean_s, mean * scale, rtol=1e-8, atol=1e-10 * scale)
    np.testing.assert_allclose(covariance_s, covariance * scale**2, rtol=1e-8, atol=1e-10 * scale**2)


def test_series_in_very_different_units():
    y = simulate(model(), 90)
    units = np.array([1e-4, 1.0, 1e6])
    var, _, _ = fit_var(y, 2)
    other, _, _ = fit_var(y * units, 2)
    expected = var.coefficients * units[:, None] / units
    np.testing.assert_allclose(other.coefficients, expected, rtol=1e-7, atol=0)


def test_constant_and_collinear_series_are_harmless():
    y = simulate(model(), 60)
    y = np.column_stack([y[:, :2], np.full(60, 0.1), y[:, 0] * 2])
    var, _, _ = fit_var(y, 1)
    assert (var.coefficients[0][:, 2] == 0).all()
    pair, _, _ = fit_var(y[:, :2], 1)
    y[30, 1] = y[41, 0] = y[41, 2] = np.nan
    mean, covariance = conditional_forecasts(y, var)
    expected, _ = conditional_forecasts(y[:, :2], pair)
    complete = np.isfinite(y).all(axis=1)
    rows = np.flatnonzero(complete) + 1
    np.testing.assert_allclose(mean[rows][:, :2], expected[rows], rtol=1e-7)
    assert np.isfinite(mean[1:]).all()
    assert np.isfinite(covariance[1:]).all()
    # series 4 is twice series 1, so the hidden cell of series 1 is known from it
    gap = conditional_forecasts(
        np.where(np.isnan(y) & (np.arange(60) == 41)[:, None], [y[41, 3] / 2, 0, 0.1, 0], y), var
    )
    np.testing.assert_allclose(mean[42], gap[0][42], rtol=1e-6)


def test_too_few_rows_are_refused_with_their_number():
    y = simulate(model(), 60)
    assert fit_var(y[:10], 2)[1] == 8
    with pytest.raises(ValueError, match=r"series \[0, 1, 2\]: 7 of 9 rows .* at least 8 for 7 parameters"):
        fit_var(y[:9], 2)
    y[3:, 1] = np.nan
    with pytest.raises(ValueError, match=r"series \[1\]: 2 of 60 rows .* 1 lags, expected at least 3"):
        fit_var(y, 1, diagonal=True)
    with pytest.raises(ValueError, match="0 of 1 rows"):
        fit_var(y[:1], 2)
    with pytest.raises(ValueError, match="lags=0"):
        fit_var(y, 0)
    with pytest.raises(ValueError, match="ridge=-1"):
        fit_var(y, 1, ridge=-1)
    with pytest.raises(ValueError, match="max_radius=1"):
        fit_var(y, 1, max_radius=1)


# Forecast ---------------------------------------------------------------------------------------------------


def dense_twin(y, var, horizon):
    """Condition the joint normal of everything after the first complete start on what is observed of it."""
    lags, K, _ = var.coefficients.shape
    T = len(y)
    mean, covariance = np.full((T + 1, K), np.nan), np.full((T + 1, K, K), np.nan)
    starts = [p for p in range(lags, T + 1) if np.isfinite(y[p - lags : p]).all()]
    if not starts:
        return mean, covariance
    p0 = starts[0]
    n = T + horizon - p0
    path = list(y[p0 - lags : p0])
    for _ in range(n):
        path.append(var.intercept + sum(var.coefficients[i] @ path[-1 - i] for i in range(lags)))
    joint_mean = np.concatenate(path[lags:])
    psi = [np.eye(K)]
    for j in range(1, n):
        psi.append(sum(var.coefficients[i] @ psi[j - 1 - i] for i in range(min(lags, j))))
    impulse = np.zeros((n * K, n * K))
    for i in range(n):
        for j in range(i + 1):
            impulse[i * K : i * K + K, j * K : j * K + K] = psi[i - j]
    joint = impulse @ np.kron(np.eye(n), var.covariance) @ impulse.T
    for p in range(p0, T + 1):
        known = y[p0:p].ravel()
        o = np.flatnonzero(np.isfinite(known))
        t = np.arange(K) + (p - p0 + horizon - 1) * K
        gain = np.linalg.solve(joint[np.ix_(o, o)], joint[np.ix_(o, t)]).T if len(o) else np.zeros((K, 0))
        mean[p] = joint_mean[t] + gain @ (known[o] - joint_mean[o])
        covariance[p] = joint[np.ix_(t, t)] - gain @ joint[np.ix_(o, t)]
    return mean, covariance


@pytest.mark.parametrize("horizon", [1, 2, 5])
@pytest.mark.parametrize(("lags", "missing"), [(1, 0.0), (1, 0.3), (2, 0.1), (2, 0.5), (3, 0.3)])
def test_forecasts_equal_dense_conditioning(lags, missing, horizon):
    var = model(lags=lags)
    y = simulate(var, 32, missing=missing)
    y[0, 0] = np.nan
    y[20:22] = np.nan
    mean, covariance = conditional_forecasts(y, var, horizon)
    expected = dense_twin(y, var, horizon)
    assert np.isfinite(expected[0]).all(axis=1).sum() >= 20
    assert np.isnan(expected[0][: lags + 1]).all()
    np.testing.assert_allclose(mean, expected[0], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(covariance, expected[1], rtol=1e-9, atol=1e-10)


def test_forecasts_on_complete_data_are_the_recursion():
    var = model()
    y = simulate(var, 40)
    mean, covariance = conditional_forecasts(y, var, 3)
    assert np.isnan(mean[:2]).all()
    for p in range(2, 41):
        path = [y[p - 2], y[p - 1]]
        for _ in range(3):
            path.append(var.intercept + var.coefficients[0] @ path[-1] + var.coefficients[1] @ path[-2])
        np.testing.assert_allclose(mean[p], path[-1], rtol=1e-11, atol=1e-12)
    a, b = var.coefficients
    psi = [np.eye(3), a, a @ a + b]
    np.testing.assert_allclose(covariance[17], sum(s @ var.covariance @ s.T for s in psi), rtol=1e-12)


def test_long_horizon_reaches_the_stationary_law():
    var = model()
    y = simulate(var, 4000, seed=3)
    mean, covariance = conditional_forecasts(y, var, 400)
    implied = np.linalg.solve(np.eye(3) - var.coefficients.sum(axis=0), var.intercept)
    np.testing.assert_allclose(mean[-1], implied, rtol=1e-10)
    np.testing.assert_allclose(covariance[-1], np.cov(y.T), rtol=0.3, atol=0.05)


@pytest.mark.parametrize("K", [2, 5])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_row_p_keeps_its_bits_whatever_follows(K, missing):
    var = model(K=K)
    y = simulate(var, 70, missing=missing)
    full = conditional_forecasts(y, var, 2)
    rng = np.random.default_rng(9)
    for p in range(1, 70):
        other = y.copy()
        other[p:] = rng.normal(size=other[p:].shape) * 9
        holes = y.copy()
        holes[p:] = np.nan
        for changed in (y[:p], other, holes):
            for a, b in zip(full, conditional_forecasts(changed, var, 2), strict=True):
                assert np.array_equal(a[: p + 1], b[: p + 1], equal_nan=True)
    for a, b in zip(full, conditional_forecasts(np.asfortranarray(y), var, 2), strict=True):
        assert np.array_equal(a, b, equal_nan=True)


def test_without_a_complete_start_there_is_no_forecast():
    var = model()
    y = simulate(var, 30)
    y[::2, 1] = np.nan
    mean, covariance = conditional_forecasts(y, var)
    assert np.isnan(mean).all()
    assert np.isnan(covariance).all()
    assert conditional_forecasts(y[:0], var)[0].shape == (1, 3)
    with pytest.raises(ValueError, match="horizon=0"):
        conditional_forecasts(y, var, 0)
    with pytest.raises(ValueError, match=r"expected \(T, 3\) for this model, got shape \(30, 2\)"):
        conditional_forecasts(y[:, :2], var)


def test_forecast_covariances_are_those_of_the_errors():
    var = model(seed=4)
    y = simulate(var, 6000, seed=5)
    hidden = y.copy()
    hidden[2::4, 0] = hidden[3::4, 1] = np.nan  # the same pattern every four periods
    mean, covariance = conditional_forecasts(hidden, var)
    rows = np.arange(404, 6000, 4)
    error = y[rows] - mean[rows]
    np.testing.assert_allclose(covariance[rows[0]], covariance[rows[-1]], rtol=1e-9)
    whitened = np.linalg.solve(np.linalg.cholesky(covariance[rows[0]]), error.T)
    np.testing.assert_allclose(whitened @ whitened.T / len(rows), np.eye(3), atol=0.12)


def test_inputs_are_left_alone():
    var = model()
    y = simulate(var, 50, missing=0.1)
    before, coefficients = y.copy(), var.coefficients.copy()
    fit_var(y, 1)
    conditional_forecasts(y, var)
    assert np.array_equal(before, y, equal_nan=True)
    assert np.array_equal(coefficients, var.coefficients)
