"""The M-steps against definitions written out in loops, and against a numerical maximum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from latentfactors.kernels.autoregression import VectorAutoregression, companion_radius
from latentfactors.kernels.factor_em import (
    VarMoments,
    expected_loglikelihood,
    loading_moments,
    loading_step,
    residual_squares,
    var_moments,
    var_step,
)
from latentfactors.kernels.state_space import collapse, dynamics, filter_states, observe, smooth_states
from tests.oracles.dense_gaussian import dense


def _smoothed(seed, *, n_periods=8, lags=1, depth=None, d=4, r=2):
    rng = np.random.default_rng(seed)
    coefficients = 0.3 * rng.normal(size=(lags, r, r)) / lags
    var = VectorAutoregression(np.zeros(r), coefficients, np.eye(r))
    values = rng.normal(size=(n_periods, d))
    values[rng.random(values.shape) < 0.3] = np.nan
    loadings, variances = rng.normal(size=(d, r)), rng.uniform(0.5, 1.5, size=d)
    law = dynamics(var, depth=depth)
    information = collapse(observe(values), loadings, variances)
    smoothed = smooth_states(information, law, filter_states(information, law))
    deep = (depth or lags) + n_periods  # every factor from f_(1-depth+1) on, in one dense state
    mean, covariance, _ = dense(values, loadings, variances, coefficients, np.zeros(r), np.eye(r), deep)
    second = covariance + np.outer(mean, mean)
    m = deep * r
    last = slice((n_periods - 1) * m, n_periods * m)
    return values, smoothed, second[last, last]


@pytest.mark.parametrize(("lags", "depth"), [(1, 1), (2, 2), (1, 3), (2, 4)])
def test_var_moments_are_sums_over_the_joint_gaussian(lags, depth):
    values, smoothed, second = _smoothed(1, lags=lags, depth=depth)
    n_periods, r = len(values), 2
    moments = var_moments(smoothed, lags)

    def block(s, t, width=1, height=1):  # E of (f_s, ..., f_(s-height+1)) (f_t, ..., f_(t-width+1))'
        i, j = (n_periods - s) * r, (n_periods - t) * r
        return second[i : i + height * r, j : j + width * r]

    first = 1 - depth + lags  # the start state is (f_first, ..., f_(first-lags+1))
    times = range(first + 1, n_periods + 1)
    np.testing.assert_allclose(moments.present, sum(block(t, t) for t in times), atol=1e-10)
    np.testing.assert_allclose(moments.cross, sum(block(t, t - 1, lags) for t in times), atol=1e-10)
    np.testing.assert_allclose(moments.past, sum(block(t - 1, t - 1, lags, lags) for t in times), atol=1e-10)
    np.testing.assert_allclose(moments.start, block(first, first, lags, lags), atol=1e-10)
    assert moments.count == len(times)


def test_loading_step_is_least_squares_on_observed_cells():
    values, smoothed, _ = _smoothed(2, n_periods=30)
    values[:, 3] = np.where(np.isfinite(values[:, 3]), values[:, 3], 0.7)
    moments = loading_moments(observe(values), smoothed.mean, smoothed.covariance)
    loadings = loading_step(moments)
    squares = residual_squares(moments, loadings)
    for j in range(values.shape[1]):
        seen = np.isfinite(values[:, j])
        second = sum(
            smoothed.covariance[t] + np.outer(smoothed.mean[t], smoothed.mean[t])
            for t in np.flatnonzero(seen)
        )
        expected = np.linalg.solve(second, smoothed.mean[seen].T @ values[seen, j])
        np.testing.assert_allclose(loadings[j], expected, rtol=1e-9)
        error = sum(
            (values[t, j] - expected @ smoothed.mean[t]) ** 2 + expected @ smoothed.covariance[t] @ expected
            for t in np.flatnonzero(seen)
        )
        assert squares[j] == pytest.approx(error, rel=1e-9)


def _random_moments(rng, r, lags, n):
    m = r * lags
    path = np.zeros((n + lags, r))
    shocks = rng.normal(size=path.shape) * rng.uniform(0.5, 2.0)
    a = np.diag(rng.uniform(0.6, 0.99, size=r)) + 0.1 * rng.normal(size=(r, r))
    for t in range(1, len(path)):
        path[t] = a @ path[t - 1] + shocks[t]
    path = np.clip(path, -50, 50)
    states = np.hstack([path[lags - 1 - lag : len(path) - 1 - lag] for lag in range(lags)])
    present = path[lags:]
    return VarMoments(
        present.T @ present + 0.1 * np.eye(r),
        present.T @ states,
        states.T @ states + 0.1 * np.eye(m),
        np.outer(states[0], states[0]) + 0.1 * np.eye(m),
        n,
    )


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("lags", [1, 2])
def test_var_step_never_falls_stays_stationary_and_ends_at_the_maximum(lags, free):
    rng = np.random.default_rng(3)
    for n in (5, 80):
        moments = _random_moments(rng, 2, lags, n)
        a, q = np.zeros((lags, 2, 2)), np.eye(2)
        value = expected_loglikelihood(moments, a, q)
        for _ in range(40):
            a, q = var_step(moments, a, q, free_covariance=free)
            reached = expected_loglikelihood(moments, a, q)
            assert reached >= value
            assert companion_radius(a) < 1
            value = reached

        def loss(x, moments=moments, n=n):
            root = np.eye(2)
            if free:
                root[0, 0], root[1, 0], root[1, 1] = np.exp(x[-3]), x[-2], np.exp(x[-1])
            return -expected_loglikelihood(moments, x[: 4 * lags].reshape(lags, 2, 2), root @ root.T)

        root = np.linalg.cholesky(q)
        here = np.concatenate([a.ravel(), [np.log(root[0, 0]), root[1, 0], np.log(root[1, 1])]])
        found = minimize(loss, here if free else here[:-3], method="BFGS")
        assert value >= -found.fun - 1e-7 * abs(value)


def test_closed_form_would_lower_the_expected_likelihood_where_the_step_raises_it():
    rng = np.random.default_rng(4)
    lower = 0
    for _ in range(10):
        moments = _random_moments(rng, 2, 1, 12)
        a, q = np.zeros((1, 2, 2)), np.eye(2)
        for _ in range(20):
            a, q = var_step(moments, a, q, free_covariance=False)
        closed = (moments.cross @ np.linalg.inv(moments.past))[None]
        lower += expected_loglikelihood(moments, closed, q) < expected_loglikelihood(moments, a, q)
    assert lower == 10


def test_a_block_of_moments_is_the_moments_of_the_block():
    rng = np.random.default_rng(5)
    moments = _random_moments(rng, 3, 2, 30)
    factors = np.array([0, 2])
    part = moments.of(factors)
    np.testing.assert_array_equal(part.cross[:, 2:], moments.cross[np.ix_(factors, factors + 3)])
    blocks = np.zeros((2, 3, 3))
    blocks[:, [[0], [2]], [0, 2]] = 0.2 * rng.normal(size=(2, 2, 2))
    blocks[:, 1, 1] = 0.3
    q = np.diag([1.0, 2.0, 0.5])
    whole = expected_loglikelihood(moments, blocks, q)
    first = expected_loglikelihood(part, blocks[:, [[0], [2]], [0, 2]], q[np.ix_(factors, factors)])
    second = expected_loglikelihood(moments.of(np.array([1])), blocks[:, 1:2, 1:2], q[1:2, 1:2])
    assert whole == pytest.approx(first + second, rel=1e-12)
