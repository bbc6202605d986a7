"""The unscented filter, smoother and laws: exact where F is linear, Monte Carlo where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.kernels.dynamic_factor import DynamicFactorParameters
from latentfactors.kernels.dynamic_factor_conditional import cell_law, completed
from latentfactors.kernels.dynamic_factor_forecast import filter_sequence, forecast_sequence
from latentfactors.kernels.unscented import linearise, unscented_filter, unscented_smoother
from latentfactors.kernels.unscented_laws import unscented_cells, unscented_completed, unscented_forecasts

R, N, T = 2, 7, 40
WEIGHTS = np.eye(1).repeat(N, axis=0)


def parameters(phi=0.6):
    rng = np.random.default_rng(0)
    A = np.array([[[0.6, 0.1], [0.0, 0.5]], [[0.1, 0.0], [0.0, 0.2]]])
    return DynamicFactorParameters(
        rng.normal(size=(N, R)),
        np.full(N, phi),
        rng.uniform(0.2, 0.6, N),
        A,
        np.array([[1.0, 0.3], [0.3, 0.8]]),
    )


def data(gaps=True):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(T, N))
    if gaps:
        # gaps of one and two months, which the state's four periods remember
        values[5, 0] = values[9:11, 1] = values[20, 2] = values[21:23, 3] = np.nan
        values[T - 2 :, 4] = values[T - 1, 5] = np.nan
    return values


def linear(found):
    return lambda f: f @ found.loadings.T


def test_a_linear_decoder_is_filtered_as_by_the_exact_filter():
    found, values = parameters(), data()
    exact = filter_sequence(values, found, WEIGHTS, autoregressive=True)
    got = unscented_filter(values, linear(found), found, WEIGHTS)
    np.testing.assert_allclose(got.mean[:, :R], exact.mean[:, 0, :R], atol=1e-10)
    np.testing.assert_allclose(got.covariance[:, :R, :R], exact.covariance[:, :R, :R], atol=1e-10)
    for horizon in (0, 1, 3):
        for a, b in zip(
            unscented_forecasts(got, values, linear(found), found, WEIGHTS, horizon),
            forecast_sequence(exact, found, horizon),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, atol=1e-10)


def test_cells_and_completed_values_are_those_of_the_exact_smoother():
    found, values = parameters(), data()
    cells = [(5, 0), (9, 1), (10, 1), (T - 1, 4), (T - 2, 4), (T - 1, 5), (3, 3)]
    exact = cell_law(values, found, WEIGHTS, cells, autoregressive=True)
    mean, covariance = unscented_cells(values, linear(found), found, WEIGHTS, cells)
    np.testing.assert_allclose(mean, exact.mean, atol=1e-9)
    np.testing.assert_allclose(covariance, exact.covariance, atol=1e-9)
    np.testing.assert_allclose(
        unscented_completed(values, linear(found), found, WEIGHTS),
        completed(values, found, WEIGHTS, autoregressive=True),
        atol=1e-9,
    )


def test_aggregates_without_memory_are_exact_where_windows_do_not_overlap():
    """Quarterly means of iid monthly terms: the terms of two quarters are independent."""
    found = parameters(phi=0.0)
    weights = np.zeros((N, 3))
    weights[:, 0] = 1.0
    weights[6] = 1.0 / 3.0
    values = data(gaps=False)
    values[np.arange(T) % 3 != 2, 6] = np.nan
    exact = filter_sequence(values, found, weights, autoregressive=False)
    got = unscented_filter(values, linear(found), found, weights)
    np.testing.assert_allclose(got.mean[:, :R], exact.mean[:, 0, :R], atol=1e-9)
    for horizon in (0, 2):
        for a, b in zip(
            unscented_forecasts(got, values, linear(found), found, weights, horizon)[2:],
            forecast_sequence(exact, found, horizon)[2:],
            strict=True,
        ):
            # at horizon 0 the exact filter also remembers the part of a term that a quarter's end has shown
            rows = slice(2, None, 3) if horizon else slice(0, 0)
            np.testing.assert_allclose(a[rows, :6], b[rows, :6], atol=1e-9)


@pytest.mark.parametrize("r", [1, 2, 4])
def test_moments_of_a_quadratic_are_exact_to_second_order(r):
    """E[f'Bf + a'f] and its covariance with f; for r <= 3 the variance of a square in one direction too."""
    rng = np.random.default_rng(r)
    B, a = rng.normal(size=(r, r)), rng.normal(size=r)
    root = rng.normal(size=(r, r))
    mean, P = rng.normal(size=r), root @ root.T
    B = B + B.T

    def decoder(f):
        return ((f @ B) * f).sum(axis=-1, keepdims=True) + (f @ a)[..., None]

    found = linearise(decoder, mean, P)
    assert found.mean[0] == pytest.approx(mean @ B @ mean + a @ mean + np.trace(B @ P), rel=1e-10)
    np.testing.assert_allclose(found.slope[0], 2 * B @ mean + a, rtol=1e-8)
    if r == 1:
        assert (found.rest**2).sum() == pytest.approx(2.0 * (B[0, 0] * P[0, 0]) ** 2, rel=1e-8)


def test_a_bent_decoder_is_filtered_and_smoothed_close_to_the_exact_law_on_a_grid():
    """One factor behind tanh: forward and backward sums over a fine grid as the slow, obvious truth."""
    rng = np.random.default_rng(3)
    n, periods = 5, 80
    slopes, s = np.array([0.9, -0.6, 0.5, 1.1, -0.4]), 0.3
    law = DynamicFactorParameters(
        np.zeros((n, 1)), np.zeros(n), np.full(n, s), np.array([[[0.8]]]), np.array([[0.36]])
    )

    def decoder(f):
        return np.tanh(f * slopes)

    f = np.zeros(periods)
    for t in range(1, periods):
        f[t] = 0.8 * f[t - 1] + 0.6 * rng.normal()
    values = decoder(f[:, None]) + np.sqrt(s) * rng.normal(size=(periods, n))
    got = unscented_filter(values, decoder, law, np.ones((n, 1)))
    grid = np.linspace(-5.0, 5.0, 401)
    step = np.exp(-0.5 * np.subtract.outer(grid, 0.8 * grid) ** 2 / 0.36)
    step /= step.sum(axis=0)
    likelihood = np.exp(-0.5 * np.square(values[:, None] - decoder(grid[:, None])).sum(axis=2) / s)
    forward, belief = np.zeros((periods, grid.size)), np.exp(-0.5 * grid**2)
    for t in range(periods):
        belief = (step @ belief if t else belief) * likelihood[t]
        forward[t] = belief = belief / belief.sum()
    backward = np.ones((periods, grid.size))
    for t in range(periods - 2, -1, -1):
        ahead = step.T @ (likelihood[t + 1] * backward[t + 1])
        backward[t] = ahead / ahead.sum()
    both = forward * backward
    filtered, smoothed = forward @ grid, (both @ grid) / both.sum(axis=1)
    size = np.std(filtered)
    assert np.sqrt(np.mean((got.mean[:, 0] - filtered) ** 2)) < 0.1 * size
    assert np.sqrt(np.mean((unscented_smoother(got)[0][:, 0] - smoothed) ** 2)) < 0.1 * size
