"""Targeted factors against dense Gaussian likelihoods and against EM from random starts."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.kernels.targeted import TargetedFit, fit_complete
from latentfactors.kernels.targeted_em import (
    em_step,
    fill,
    filter_moving,
    fit_moving,
    fit_targeted,
)
from latentfactors.kernels.targeted_inference import choose_ratio, draw_parameters, forecast_spread
from latentfactors.kernels.targeted_posterior import posterior_moments, row_posterior


def draw(T, p, q, k, seed=0, noise=1.0, missing=0.0):
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(T, k))
    x = f @ rng.uniform(size=(p, k)).T + noise * rng.normal(size=(T, p))
    y = f @ rng.uniform(size=(q, k)).T + noise * rng.normal(size=(T, q))
    z = np.hstack([x, y])
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    z[rng.uniform(size=z.shape) < missing] = np.nan
    return z[:, :p], z[:, p:]


def dense_loglikelihood(x, y, loadings, noise):
    """Sum over rows of log N(0, L_o L_o' + diag s_o); noise (d,) or (T, d)."""
    z, total = np.hstack([x, y]), 0.0
    for t, row in enumerate(z):
        o = np.isfinite(row)
        s = noise if noise.ndim == 1 else noise[t]
        covariance = loadings[o] @ loadings[o].T + np.diag(s[o])
        _, logdet = np.linalg.slogdet(covariance)
        total -= 0.5 * (o.sum() * np.log(2 * np.pi) + logdet + row[o] @ np.linalg.solve(covariance, row[o]))
    return total


SIZES = [(200, 10, 3, 2), (40, 30, 1, 3), (25, 40, 2, 3), (30, 2, 3, 4), (60, 1, 1, 1), (50, 4, 2, 5)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("ratio", [None, 2.0])
def test_likelihood_is_the_dense_gaussian_one(size, missing, ratio):
    x, y = draw(*size, missing=missing)
    fit = fit_targeted(x, y, size[3], ratio=ratio)
    dense = dense_loglikelihood(x, y, fit.loadings, fit.noise)
    # at a boundary the covariance itself is known to fewer digits
    assert fit.loglikelihood == pytest.approx(dense, rel=1e-6 if fit.boundary else 1e-10)
    if ratio is not None:
        assert np.sqrt(fit.x_variance / fit.y_variance) == pytest.approx(ratio, rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_identification_is_the_declared_one(size):
    x, y = draw(*size, missing=0.1)
    fit = fit_targeted(x, y, size[3])
    precision = fit.loadings.T @ (fit.loadings / fit.noise[:, None])
    diagonal = np.diag(precision)
    assert np.abs(precision - np.diag(diagonal)).max() <= 1e-9 * diagonal[0]
    assert (np.diff(diagonal) <= 0).all()
    assert (fit.loadings[size[1]] >= -1e-9).all()


def best_em(x, y, k, n_starts, n_steps, rng):
    """Highest log-likelihood that plain EM reaches from random starts."""
    filled, mask = fill(np.hstack([x, y]))
    best = -np.inf
    for _ in range(n_starts):
        loadings = rng.normal(size=(filled.shape[1], k))
        variances = rng.uniform(0.05, 1.0, size=2)
        for _ in range(n_steps):
            loadings, variances, value = em_step(filled, mask, loadings, variances, x.shape[1], 1e-10)
        best = max(best, value)
    return best


def search_beats_em(n_draws, n_starts, n_steps):
    rng, n_boundary = np.random.default_rng(2), 0
    for seed in range(n_draws):
        p, q = int(rng.integers(2, 9)), int(rng.integers(1, 4))
        k, T = int(rng.integers(1, min(p + q, 5))), int(rng.integers(15, 70))
        x, y = draw(T, p, q, k, seed=seed, noise=float(rng.choice([0.2, 1.0, 3.0])))
        fit = fit_complete(x, y, k)
        n_boundary += bool(fit.boundary)
        best = best_em(x, y, k, n_starts, n_steps, rng)
        assert fit.loglikelihood >= best - 1e-6, (
            f"draw {seed} ({T}, {p}, {q}, {k}): {fit.loglikelihood} {best}"
        )
    return n_boundary


def test_search_beats_em_from_random_starts():
    search_beats_em(8, 5, 150)


@pytest.mark.slow
def test_search_beats_twenty_random_starts_on_fifty_draws_heywood_cases_included():
    assert search_beats_em(50, 20, 400) >= 2


def test_search_finds_the_lower_of_two_close_minima():
    # draws on which a coarse grid of noise ratios stops at a lower maximum
    for seed, (T, p, q, k) in {
        24: (23, 11, 1, 2),
        68: (52, 7, 3, 3),
        371: (63, 10, 3, 2),
        38: (52, 4, 3, 4),
    }.items():
        x, y = draw(T, p, q, k, seed=seed, noise=1.0)
        fit = fit_complete(x, y, k)
        fixed = [fit_complete(x, y, k, ratio=float(np.exp(r))).loglikelihood for r in np.linspace(-4, 4, 161)]
        assert fit.loglikelihood >= max(fixed) - 1e-9


def test_heywood_cases_are_flagged_and_their_limit_is_the_maximum():
    flagged = 0
    for seed in range(40):
        x, y = draw(40, 5, 1, 2, seed=seed)
        fit = fit_complete(x, y, 2)
        fixed = [fit_complete(x, y, 2, ratio=float(np.exp(r))).loglikelihood for r in np.linspace(-6, 6, 25)]
        assert fit.loglikelihood > max(fixed) - 1e-6
        if fit.boundary:
            flagged += 1
            assert min(fit.x_variance, fit.y_variance) <= 1e-8
            assert "Heywood" in fit.reason
        else:
            assert min(fit.x_variance, fit.y_variance) > 1e-8
    assert 3 <= flagged <= 35


@pytest.mark.parametrize("missing", [0.2, 0.5])
def test_em_never_falls_and_ends_where_a_plain_one_would(missing):
    x, y = draw(80, 12, 2, 3, seed=3, missing=missing)
    fit = fit_targeted(x, y, 3, tolerance=1e-9)
    path = np.array(fit.objective_path)
    assert (np.diff(path) >= -1e-9 * np.abs(path[:-1])).all()
    filled, mask = fill(np.hstack([x, y]))
    loadings, variances = fit.loadings, np.array([fit.x_variance, fit.y_variance])
    values = []
    for _ in range(50):
        loadings, variances, value = em_step(filled, mask, loadings, variances, 12, 1e-10)
        values.append(value)
    assert (np.diff(values) >= -1e-10 * abs(values[0])).all()
    assert values[-1] <= fit.loglikelihood + 1e-5


def test_missing_cells_of_a_complete_panel_change_nothing_when_none_is_missing():
    x, y = draw(100, 8, 2, 2, seed=4)
    filled, mask = fill(np.hstack([x, y]))
    exact = fit_complete(x, y, 2)
    loadings, variances, value = em_step(
        filled, mask, exact.loadings, np.array([exact.x_variance, exact.y_variance]), 8, 1e-10
    )
    assert value == pytest.approx(exact.loglikelihood, rel=1e-12)
    np.testing.assert_allclose(variances, [exact.x_variance, exact.y_variance], rtol=1e-6)
    np.testing.assert_allclose(loadings, exact.loadings, atol=1e-6)


def test_posterior_is_the_conditional_gaussian():
    x, y = draw(6, 5, 2, 2, missing=0.3)
    rng = np.random.default_rng(1)
    loadings, noise = rng.normal(size=(7, 2)), np.repeat([0.7, 0.2], [5, 2])
    means, covariances = row_posterior(np.hstack([x, y]), loadings, 5, 0.7, 0.2)
    for t, row in enumerate(np.hstack([x, y])):
        o = np.isfinite(row)
        gain = loadings[o].T @ np.linalg.inv(loadings[o] @ loadings[o].T + np.diag(noise[o]))
        np.testing.assert_allclose(means[t], gain @ row[o], atol=1e-12)
        np.testing.assert_allclose(covariances[t], np.eye(2) - gain @ loadings[o], atol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_moving_variances_likelihood_filter_and_static_limit(missing):
    x, y = draw(80, 9, 2, 2, seed=6, missing=missing)
    static = fit_targeted(x, y, 2, tolerance=1e-10)
    moving = fit_moving(x, y, static, (0.9, 0.95), tolerance=1e-9, max_iterations=2000)
    assert moving.fit.converged
    noise = np.column_stack([*[moving.x_path] * 9, *[moving.y_path] * 2])
    dense = dense_loglikelihood(x, y, moving.fit.loadings, noise)
    assert moving.fit.loglikelihood == pytest.approx(dense, rel=1e-10)
    # the fixed point of the whole path is the recursion that only looks back
    start = (moving.fit.x_variance, moving.fit.y_variance)
    path = filter_moving(np.hstack([x, y]), moving.fit.loadings, 9, start, (0.9, 0.95), joint=True)
    np.testing.assert_allclose(path[:-1, 0], moving.x_path, rtol=1e-6)
    np.testing.assert_allclose(path[:-1, 1], moving.y_path, rtol=1e-6)
    limit = fit_moving(x, y, static, (1.0, 1.0), tolerance=1e-9)
    assert limit.fit.loglikelihood == pytest.approx(static.loglikelihood, rel=1e-8)


def test_moving_variances_follow_a_change_of_volatility():
    rng = np.random.default_rng(3)
    f = rng.normal(size=(300, 2))
    x = f @ rng.normal(size=(2, 12)) + rng.normal(size=(300, 12))
    x[150:] += 2.0 * rng.normal(size=(150, 12))
    y = f @ rng.normal(size=(2, 2)) + rng.normal(size=(300, 2))
    moving = fit_moving(x, y, fit_targeted(x, y, 2), (0.94, 0.94))
    assert moving.x_path[280] > 2.5 * moving.x_path[140]
    assert 0.4 < moving.y_path[280] / moving.y_path[140] < 2.5


def test_recovers_what_it_was_drawn_from():
    rng = np.random.default_rng(5)
    T, p, q = 4000, 12, 3
    P, Q = rng.normal(size=(p, 2)), rng.normal(size=(q, 2))
    f = rng.normal(size=(T, 2))
    z = np.hstack([f @ P.T + 0.8 * rng.normal(size=(T, p)), f @ Q.T + 0.3 * rng.normal(size=(T, q))])
    z[rng.uniform(size=z.shape) < 0.2] = np.nan
    fit = fit_targeted(z[:, :p], z[:, p:], 2)
    truth = np.vstack([P, Q])
    np.testing.assert_allclose(fit.loadings @ fit.loadings.T, truth @ truth.T, atol=0.25)
    assert fit.x_variance == pytest.approx(0.64, abs=0.02)
    assert fit.y_variance == pytest.approx(0.09, abs=0.02)


def test_bootstrap_spread_is_the_sampling_spread_of_forecasts():
    truth = TargetedFit(np.random.default_rng(0).uniform(size=(9, 2)), 7, 0.5, 0.5, np.nan)
    rng = np.random.default_rng(1)
    at = np.full((1, 9), np.nan)
    at[0, :7] = 1.5
    observed = np.ones((60, 9), dtype=bool)
    forecasts = []
    for _ in range(150):
        z = rng.normal(size=(60, 2)) @ truth.loadings.T + np.sqrt(0.5) * rng.normal(size=(60, 9))
        location, scale = z.mean(axis=0), z.std(axis=0)
        unit = (z - location) / scale
        fit = fit_complete(unit[:, :7], unit[:, 7:], 2)
        mean = row_posterior((at - location) / scale, fit.loadings, 7, fit.x_variance, fit.y_variance)[0]
        forecasts.append(location[7:] + scale[7:] * (mean @ fit.loadings[7:].T)[0])
    sampling = np.var(forecasts, axis=0)
    spread = forecast_spread(at, draw_parameters(truth, observed, 150, 2), 7)[0]
    assert 0.6 < (spread / sampling).mean() < 1.6


def test_cross_validation_prefers_the_ratio_that_forecasts():
    # the second factor moves x much and y little: targets have to count for more than the likelihood gives
    rng = np.random.default_rng(7)
    f = rng.normal(size=(240, 3)) * [1.0, 3.0, 2.0]
    x = f @ rng.normal(size=(3, 15)) + 0.5 * rng.normal(size=(240, 15))
    y = f[:, :1] + 0.3 * rng.normal(size=(240, 1))
    z = np.hstack([x, y])
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    ratio, errors = choose_ratio(z[:, :15], z[:, 15:], 2, 0)
    assert errors.shape == (9,)
    assert errors.min() < 0.8 * errors[0]
    assert ratio > 0.1


def test_no_row_depends_on_another():
    x, y = draw(50, 6, 2, 2, missing=0.3)
    z = np.hstack([x, y])
    loadings = np.random.default_rng(0).normal(size=(8, 2))
    whole = row_posterior(z, loadings, 6, 0.5, 0.5)
    disturbed = z.copy()
    disturbed[20:] = np.random.default_rng(1).normal(size=disturbed[20:].shape)
    after = row_posterior(disturbed, loadings, 6, 0.5, 0.5)
    for a, b in zip(whole, after, strict=True):
        assert a[:20].tobytes() == b[:20].tobytes()
    filled, mask = fill(z)
    together = posterior_moments(filled, mask, loadings, np.full(8, 0.5))
    np.testing.assert_allclose(together[0], whole[0], atol=1e-12)
