"""The state-space kernel against a joint Gaussian, a plain NumPy filter and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.tsa.statespace.mlemodel import MLEModel

from latentfactors.kernels.autoregression import VectorAutoregression
from latentfactors.kernels.linalg import pack
from latentfactors.kernels.state_space import (
    Information,
    collapse,
    companion_matrix,
    dynamics,
    filter_states,
    forecast_states,
    observe,
    smooth_states,
    stationary_covariance,
)
from tests.oracles.dense_gaussian import dense, plain_filter, plain_smoother


def _var(rng, r, lags, radius=0.8):
    coefficients = rng.normal(size=(lags, r, r))
    m = r * lags
    F = np.vstack([np.hstack(list(coefficients)), np.eye(m - r, m)])
    size = np.abs(np.linalg.eigvals(F)).max()
    coefficients *= (radius / size) ** np.arange(1, lags + 1)[:, None, None]
    root = rng.normal(size=(r, r))
    return VectorAutoregression(rng.normal(size=r), coefficients, root @ root.T + 0.1 * np.eye(r))


def _case(seed, *, n_periods=7, d=4, r=2, lags=1, depth=None, loaded=1, missing=0.3, scale=1.0):
    rng = np.random.default_rng(seed)
    var = _var(rng, r, lags)
    var = VectorAutoregression(var.intercept * scale, var.coefficients, var.covariance * scale**2)
    values = scale * rng.normal(size=(n_periods, d)) * 2
    values[rng.random(values.shape) < missing] = np.nan
    if missing:
        values[2] = np.nan
    loadings = rng.normal(size=(d, loaded * r))
    variances = scale**2 * rng.uniform(0.2, 2.0, size=d)
    return values, loadings, variances, var, depth or max(lags, loaded)


def _close(actual, expected, scale, tolerance=1e-10):
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max() <= tolerance * max(scale, np.abs(expected).max())


CASES = [
    {"lags": 1},
    {"lags": 2},
    {"lags": 3, "r": 2},
    {"lags": 1, "r": 3, "depth": 2, "loaded": 2},
    {"lags": 2, "depth": 5, "loaded": 5, "d": 3},
    {"lags": 1, "scale": 1e-6},
    {"lags": 2, "scale": 1e6},
    {"lags": 1, "missing": 0.0},
    {"lags": 1, "missing": 0.8},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_moments_and_likelihood_equal_the_joint_gaussian(case):
    values, loadings, variances, var, depth = _case(3, **case)
    scale = case.get("scale", 1.0)
    n_periods, r = len(values), len(var.intercept)
    m = depth * r
    law = dynamics(var, depth=depth)
    information = collapse(observe(values), loadings, variances)
    filtered = filter_states(information, law)
    smoothed = smooth_states(information, law, filtered)
    arguments = values, loadings, variances, var.coefficients, var.intercept, var.covariance, depth

    mean, covariance, fit = dense(*arguments)
    assert filtered.loglikelihood == pytest.approx(fit, rel=1e-10)
    blocks = covariance.reshape(n_periods, m, n_periods, m)
    for t in range(n_periods):
        _close(smoothed.mean[t], mean.reshape(n_periods, m)[t], scale)
        _close(smoothed.covariance[t], blocks[t, :, t], scale**2)
        if t:
            _close(smoothed.lagged[t], blocks[t, :r, t - 1], scale**2)
        before, spread, earlier = dense(*arguments, upto=t)
        _close(filtered.predicted_mean[t], before.reshape(n_periods, m)[t], scale)
        _close(
            filtered.predicted_covariance[t], spread.reshape(n_periods, m, n_periods, m)[t, :, t], scale**2
        )
        now, spread, fit = dense(*arguments, upto=t + 1)
        _close(filtered.mean[t], now.reshape(n_periods, m)[t], scale)
        _close(filtered.covariance[t], spread.reshape(n_periods, m, n_periods, m)[t, :, t], scale**2)
        assert filtered.terms[t] == pytest.approx(fit - earlier, rel=1e-9, abs=1e-9)


def test_variances_of_every_period_and_a_given_start():
    values, loadings, _, var, depth = _case(5, lags=2)
    rng = np.random.default_rng(0)
    variances = rng.uniform(0.1, 3.0, size=values.shape)
    start = rng.normal(size=4), np.diag([1.0, 2.0, 0.5, 0.0])
    law = dynamics(var, start=start)
    information = collapse(observe(values), loadings, variances)
    filtered = filter_states(information, law)
    smoothed = smooth_states(information, law, filtered)
    mean, covariance, fit = dense(
        values, loadings, variances, var.coefficients, var.intercept, var.covariance, depth, start=start
    )
    assert filtered.loglikelihood == pytest.approx(fit, rel=1e-10)
    _close(smoothed.mean.ravel(), mean, 1.0)
    blocks = covariance.reshape(len(values), 4, len(values), 4)
    _close(smoothed.covariance, np.array([blocks[t, :, t] for t in range(len(values))]), 1.0)


def test_groups_add_up_and_one_period_alone_has_the_same_bits():
    values, loadings, variances, _, _ = _case(7, d=6, n_periods=40)
    whole = collapse(observe(values), loadings, variances)
    parts = collapse(observe(values[:, :2]), loadings[:2], variances[:2]) + collapse(
        observe(values[:, 2:]), loadings[2:], variances[2:]
    )
    for name in ("linear", "precision", "remainder"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-12)
        short = collapse(observe(values[:17]), loadings, variances, by_period=True)
        long = collapse(observe(values), loadings, variances, by_period=True)
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:17])


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_compiled_passes_equal_their_plain_twins(missing):
    values, loadings, variances, var, _ = _case(11, n_periods=120, d=8, r=3, lags=2, missing=missing)
    law = dynamics(var, depth=2)
    information = collapse(observe(values), loadings, variances)
    filtered = filter_states(information, law)
    smoothed = smooth_states(information, law, filtered)
    a, P, mean, covariance, terms = plain_filter(information.linear, information.precision, law)
    _close(filtered.predicted_mean, a, 1.0)
    _close(filtered.predicted_covariance, P, 1.0)
    _close(filtered.mean, mean, 1.0)
    _close(filtered.covariance, covariance, 1.0)
    np.testing.assert_allclose(filtered.terms, terms + information.remainder, rtol=1e-9, atol=1e-9)
    expected = plain_smoother(law, mean, covariance)
    _close(smoothed.mean, expected[0], 1.0)
    _close(smoothed.covariance, expected[1], 1.0)
    _close(smoothed.lagged, expected[2], 1.0)


def test_settled_covariances_are_copied_and_change_nothing():
    values, loadings, variances, var, _ = _case(13, n_periods=300, d=10, lags=1, missing=0.0)
    values[200, 3] = np.nan
    law = dynamics(var)
    information = collapse(observe(values), loadings, variances)
    filtered = filter_states(information, law)
    assert len(np.unique(filtered.source)) < 100
    exact = filter_states(
        # a last-bit difference between neighbours forbids the shortcut
        Information(
            information.linear,
            information.precision * (1 + 1e-15 * (np.arange(300)[:, None] % 2)),
            information.remainder,
        ),
        law,
    )
    assert len(np.unique(exact.source)) == 300
    assert filtered.loglikelihood == pytest.approx(exact.loglikelihood, rel=1e-12)
    a = smooth_states(information, law, filtered)
    b = smooth_states(information, law, exact)
    _close(a.mean, b.mean, 1.0, 1e-12)
    _close(a.covariance, b.covariance, 1.0, 1e-12)
    _close(a.lagged, b.lagged, 1.0, 1e-12)


@pytest.mark.parametrize("noise", [1e-9, 1.0])
def test_singular_innovations_and_singular_information(noise):
    rng = np.random.default_rng(17)
    coefficients = np.array([[[0.7, 0.1], [0.0, 0.5]]])
    direction = np.array([1.0, -0.5])
    innovation = np.outer(direction, direction)
    values = rng.normal(size=(8, 2))
    values[3, 0] = np.nan
    loadings = np.array([[1.0, 2.0], [2.0, 4.0]])  # rank one
    variances = np.array([noise, 2 * noise])
    values = values[:, :1] * [1.0, 2.0] + np.sqrt(variances) * rng.normal(size=(8, 2))
    law = dynamics(VectorAutoregression(np.zeros(2), coefficients, innovation))
    information = collapse(observe(values), loadings, variances)
    filtered = filter_states(information, law)
    smoothed = smooth_states(information, law, filtered)
    mean, covariance, fit = dense(values, loadings, variances, coefficients, np.zeros(2), innovation, 1)
    # the dense solve itself loses digits at a signal-to-noise ratio of 1e9
    tolerance = 1e-10 if noise == 1.0 else 1e-6
    assert filtered.loglikelihood == pytest.approx(fit, rel=tolerance)
    _close(smoothed.mean.ravel(), mean, 1.0, tolerance)
    blocks = covariance.reshape(8, 2, 8, 2)
    _close(smoothed.covariance, np.array([blocks[t, :, t] for t in range(8)]), 1.0, tolerance)
    _close(smoothed.lagged[1:], np.array([blocks[t, :, t - 1] for t in range(1, 8)]), 1.0, tolerance)
    assert np.linalg.eigvalsh(smoothed.covariance).min() > -1e-15


def test_forecasts_equal_the_joint_gaussian():
    values, loadings, variances, var, depth = _case(19, lags=2)
    longer = np.vstack([values, np.full((3, values.shape[1]), np.nan)])
    law = dynamics(var)
    filtered = filter_states(collapse(observe(values), loadings, variances), law)
    mean, covariance = forecast_states(filtered.mean, filtered.covariance, law, 3)
    expected, spread, _ = dense(
        longer, loadings, variances, var.coefficients, var.intercept, var.covariance, depth
    )
    _close(mean[-1], expected[-4:], 1.0)
    _close(covariance[-1], spread[-4:, -4:], 1.0)
    alone = forecast_states(filtered.mean[2:3], filtered.covariance[2:3], law, 3)
    np.testing.assert_array_equal(alone[0][0], mean[2])
    np.testing.assert_array_equal(alone[1][0], covariance[2])


def test_likelihood_equals_statsmodels():
    values, loadings, variances, var, _ = _case(23, n_periods=60, d=5, lags=2, missing=0.2)
    law = dynamics(var)
    model = MLEModel(values, k_states=4, k_posdef=2)
    model["design"] = np.hstack([loadings, np.zeros((5, 2))])
    model["obs_cov"] = np.diag(variances)
    model["transition"] = companion_matrix(law.transition)
    model["state_intercept"] = np.concatenate([law.intercept, np.zeros(2)])
    model["selection"] = np.eye(4, 2)
    model["state_cov"] = law.innovation
    model.ssm.initialize_known(law.start_mean, law.start_covariance)
    information = collapse(observe(values), loadings, variances)
    filtered = filter_states(information, law)
    result = model.ssm.smooth()
    assert filtered.loglikelihood == pytest.approx(result.llf, rel=1e-8)
    smoothed = smooth_states(information, law, filtered)
    np.testing.assert_allclose(smoothed.mean, result.smoothed_state.T, rtol=1e-7, atol=1e-8)


def test_stationary_covariance_near_a_unit_root_and_beyond():
    P = stationary_covariance(np.array([[1 - 1e-9]]), np.array([[2e-9]]))
    assert P[0, 0] == pytest.approx(2e-9 / (1 - (1 - 1e-9) ** 2), rel=1e-7)
    with pytest.raises(ValueError, match="radius"):
        stationary_covariance(np.array([[1.01]]), np.eye(1))
    with pytest.raises(ValueError, match="radius"):
        dynamics(VectorAutoregression(np.zeros(1), np.array([[[1.0]]]), np.eye(1)))


def test_bad_arguments_are_refused():
    values, loadings, variances, var, _ = _case(29)
    law = dynamics(var)
    with pytest.raises(ValueError, match="variances"):
        collapse(observe(values), loadings, variances * 0)
    with pytest.raises(ValueError, match="depth"):
        dynamics(_var(np.random.default_rng(0), 2, 3), depth=2)
    information = collapse(observe(values), loadings, variances)
    information.linear[1, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        filter_states(information, law)
    with pytest.raises(ValueError, match="expected"):
        filter_states(Information(np.zeros((5, 3)), pack(np.zeros((5, 3, 3))), np.zeros(5)), law)
    with pytest.raises(ValueError, match="horizon"):
        forecast_states(np.zeros((1, 2)), np.zeros((1, 2, 2)), law, 0)


def test_one_period_and_no_observation_at_all():
    values, loadings, variances, var, _ = _case(31, lags=2)
    law = dynamics(var)
    for data in (values[:1], np.full_like(values, np.nan)):
        information = collapse(observe(data), loadings, variances)
        filtered = filter_states(information, law)
        smoothed = smooth_states(information, law, filtered)
        _, _, fit = dense(data, loadings, variances, var.coefficients, var.intercept, var.covariance, 2)
        assert filtered.loglikelihood == pytest.approx(fit, rel=1e-10, abs=1e-12)
        np.testing.assert_array_equal(smoothed.mean[-1], filtered.mean[-1])
    np.testing.assert_allclose(smoothed.covariance[3], law.start_covariance, rtol=1e-12)
