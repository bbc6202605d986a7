"""Generalised least squares with gaps against dense covariances, and what it is good for."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.kernels.code_dynamics import code_dynamics
from latentfactors.kernels.gapped_regression import (
    idiosyncratic_law,
    regress_gapped,
    regress_towards,
    whiten,
)

PLAIN = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
MARIANO_MURASAWA = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 3.0


def autoregressions(rng, T, n, phi, burn=200):
    """(T, n) with variance 1."""
    e = np.zeros((T + burn, n))
    for t in range(1, T + burn):
        e[t] = phi * e[t - 1] + np.sqrt(1.0 - phi**2) * rng.normal(size=n)
    return e[burn:]


def monthly_covariance(T, phi):
    return phi ** np.abs(np.subtract.outer(np.arange(T), np.arange(T)))


def dense(prior, design, column, covariance):
    """Slopes and intercept from the inverse of the covariance of the observed cells, variance 1 each."""
    rows = np.flatnonzero(np.isfinite(column) & np.isfinite(design).all(axis=1))
    precision = np.linalg.inv(covariance[np.ix_(rows, rows)] / covariance[rows[0], rows[0]])
    x = np.column_stack([np.ones(rows.size), design[rows]])
    weight = np.diag([0.0, *np.ones(prior.size)])
    right = x.T @ precision @ column[rows] + weight @ np.concatenate([[0.0], prior])
    found = np.linalg.solve(x.T @ precision @ x + weight, right)
    return found[1:], found[0]


@pytest.mark.parametrize("phi", [-0.6, 0.0, 0.5, 0.97])
@pytest.mark.parametrize("weights", [PLAIN, MARIANO_MURASAWA], ids=["months", "quarters"])
def test_loadings_given_persistence_are_those_of_the_dense_covariance(phi, weights):
    rng = np.random.default_rng(2)
    T, k = 60, 3
    x, y, prior = rng.normal(size=(T, k)), rng.normal(size=T), rng.normal(size=k)
    covariance = monthly_covariance(T, phi)
    if weights is PLAIN:
        y[rng.uniform(size=T) < 0.4] = np.nan
        x[7] = np.nan
    else:
        # an aggregate's covariance is that of its months: before the sample they go on alike
        longer, lift = monthly_covariance(T + 4, phi), np.zeros((T, T + 4))
        for t in range(T):
            lift[t, t : t + 5] = weights[::-1]
        covariance = lift @ longer @ lift.T
        y[np.arange(T) % 3 != 2] = np.nan
        y[20] = np.nan
    slopes, intercept, error = regress_towards(prior, x, y, phi, weights)
    expected, constant = dense(prior, x, y, covariance)
    np.testing.assert_allclose(slopes, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(intercept, constant, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(error, y - constant - x @ expected, rtol=1e-9, atol=1e-12)


def test_whitened_terms_are_white_with_variance_one():
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(90, 40, replace=False))
    for weights in (PLAIN, MARIANO_MURASAWA):
        white = whiten(np.eye(rows.size), rows, 0.8, weights)
        if weights is PLAIN:
            covariance = monthly_covariance(90, 0.8)[np.ix_(rows, rows)]
        else:
            lift = np.zeros((rows.size, 94))
            for j, t in enumerate(rows):
                lift[j, t : t + 5] = weights[::-1]
            covariance = lift @ monthly_covariance(94, 0.8) @ lift.T
            covariance = covariance / covariance[0, 0]
        np.testing.assert_allclose(white @ covariance @ white.T, np.eye(rows.size), atol=1e-10)


def test_without_persistence_it_is_least_squares():
    rng = np.random.default_rng(1)
    T, n, k = 80, 6, 2
    x, y = rng.normal(size=(T, k)), rng.normal(size=(T, n))
    y[rng.uniform(size=y.shape) < 0.3] = np.nan
    weights, prior = np.tile(PLAIN, (n, 1)), rng.normal(size=(n, k))
    found = regress_gapped(prior, x, y, weights, autoregressive=False, generalised=True)
    same = regress_gapped(prior, x, y, weights, autoregressive=False, generalised=False)
    np.testing.assert_array_equal(found.loadings, same.loadings)
    assert found.n_rounds == 0
    for i in range(n):
        rows = np.isfinite(y[:, i])
        design = np.column_stack([np.ones(rows.sum()), x[rows]])
        ridge = np.diag([0.0, 1.0, 1.0])
        right = design.T @ y[rows, i] + ridge @ np.array([0.0, *prior[i]])
        slopes = np.linalg.solve(design.T @ design + ridge, right)
        np.testing.assert_allclose([found.intercept[i], *found.loadings[i]], slopes, atol=1e-10)


def test_rounds_end_where_neither_step_moves_and_the_likelihood_has_risen():
    """The concentrated likelihood by dense matrices, of loadings, intercepts and phi jointly."""
    rng = np.random.default_rng(4)
    T, n = 70, 5
    x = autoregressions(rng, T, 2, 0.9)
    y = x @ rng.normal(size=(2, n)) + autoregressions(rng, T, n, 0.9)
    y[rng.uniform(size=y.shape) < 0.25] = np.nan
    weights = np.tile(PLAIN, (n, 1))

    def likelihood(found, i):
        rows = np.flatnonzero(np.isfinite(y[:, i]))
        covariance = monthly_covariance(T, found.persistence[i])[np.ix_(rows, rows)]
        covariance = covariance / (1.0 - found.persistence[i] ** 2)
        error = y[rows, i] - x[rows] @ found.loadings[i]
        inverse, one = np.linalg.inv(covariance), np.ones(rows.size)
        error = error - (one @ inverse @ error) / (one @ inverse @ one)
        s = error @ inverse @ error / rows.size
        return -0.5 * (rows.size * np.log(s) + np.linalg.slogdet(covariance)[1])

    prior = np.zeros((n, 2))
    ols = regress_gapped(prior, x, y, weights, autoregressive=True, generalised=False)
    gls = regress_gapped(prior, x, y, weights, autoregressive=True, generalised=True)
    gain = [likelihood(gls, i) - likelihood(ols, i) for i in range(n)]
    assert min(gain) > 0.0
    assert 1 < gls.n_rounds < 20


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_loadings_of_persistent_series_are_recovered_better_than_by_least_squares(missing):
    """Two factors, forty series with phi = .95: least squares is off twice as much and more."""
    rng = np.random.default_rng(3)
    T, n = 240, 40
    factors, loadings = autoregressions(rng, T, 2, 0.9), rng.normal(size=(n, 2))
    y = factors @ loadings.T + autoregressions(rng, T, n, 0.95)
    y[rng.uniform(size=y.shape) < missing] = np.nan
    weights, prior = np.ones((n, 1)), np.zeros((n, 2))
    off = {}
    for generalised in (False, True):
        found = regress_gapped(prior, factors, y, weights, autoregressive=True, generalised=generalised)
        off[generalised] = np.sqrt(np.mean((found.loadings - loadings) ** 2))
        # forecasts return to the sample mean whatever the weights of the regression
        np.testing.assert_allclose(np.nanmean(found.residuals, axis=0), 0.0, atol=1e-12)
    assert off[True] < 0.1
    assert off[True] < 0.5 * off[False]
    assert np.median(found.persistence) == pytest.approx(0.95, abs=0.03)


def test_quarters_of_persistent_months_are_regressed_on_their_months():
    rng = np.random.default_rng(5)
    T, n = 360, 12
    factors, loadings = autoregressions(rng, T, 2, 0.8), rng.normal(size=(n, 2))
    months = factors @ loadings.T + autoregressions(rng, T, n, 0.95)
    y = np.full((T, n), np.nan)
    for t in range(5, T, 3):
        y[t] = np.tensordot(MARIANO_MURASAWA, months[t - 4 : t + 1][::-1], 1)
    weights, prior = np.tile(MARIANO_MURASAWA, (n, 1)), np.zeros((n, 2))
    off = [
        np.sqrt(np.mean((found.loadings - loadings) ** 2))
        for found in (
            regress_gapped(prior, factors, y, weights, autoregressive=True, generalised=generalised)
            for generalised in (False, True)
        )
    ]
    assert off[1] < 0.7 * off[0]


def test_a_series_without_values_keeps_its_prior():
    rng = np.random.default_rng(6)
    x, y, prior = rng.normal(size=(50, 2)), rng.normal(size=(50, 3)), rng.normal(size=(3, 2))
    y[:, 1] = np.nan
    found = regress_gapped(prior, x, y, np.ones((3, 1)), autoregressive=True, generalised=True)
    np.testing.assert_array_equal(found.loadings[1], prior[1])
    assert (found.intercept[1], found.persistence[1]) == (0.0, 0.0)
    assert np.isfinite(found.variance).all()
    assert not idiosyncratic_law(y, np.ones((3, 1)), autoregressive=False)[0].any()


def test_the_choice_reaches_the_state_space():
    """Codes that are the factors up to a map: loadings of the reported model, in its own units."""
    rng = np.random.default_rng(7)
    T, n = 240, 30
    factors, loadings = autoregressions(rng, T, 2, 0.9), rng.normal(size=(n, 2))
    y = factors @ loadings.T + autoregressions(rng, T, n, 0.95)
    codes = 3.0 + factors @ np.array([[1.0, 0.5], [-0.3, 2.0]])
    off = {}
    for generalised in (False, True):
        law = code_dynamics(codes, y, np.ones((n, 1)), None, 1, autoregressive=True, generalised=generalised)
        # g = code_mean + M f, so loadings on the true factors are those on f times M^-1 times the map
        back = law.parameters.loadings @ np.linalg.inv(law.code_map) @ np.array([[1.0, 0.5], [-0.3, 2.0]]).T
        off[generalised] = np.sqrt(np.mean((back - loadings) ** 2))
    assert off[True] < 0.5 * off[False]


@pytest.mark.parametrize("autoregressive", [True, False])
def test_least_squares_stays_least_squares_for_overlapping_quarters(autoregressive):
    rng = np.random.default_rng(1)
    months, noise = rng.normal(size=(120, 2)), rng.normal(size=120)
    design, quarters = np.full((120, 2), np.nan), np.full((120, 1), np.nan)
    for t in range(4, 120):
        design[t] = sum(MARIANO_MURASAWA[lag] * months[t - lag] for lag in range(5))
    for t in range(5, 120, 3):
        quarters[t, 0] = design[t] @ [1.0, 0.5] + sum(
            MARIANO_MURASAWA[lag] * noise[t - lag] for lag in range(5)
        )
    found = regress_gapped(
        np.zeros((1, 2)), months, quarters, MARIANO_MURASAWA[None], autoregressive=autoregressive,
        generalised=False,
    )  # fmt: skip
    slopes, intercept = dense(np.zeros(2), design, quarters[:, 0], np.eye(120))
    np.testing.assert_allclose(found.loadings[0], slopes, rtol=1e-10)
    assert found.intercept[0] == pytest.approx(intercept, abs=1e-12)
    assert np.nanmean(found.residuals) == pytest.approx(0.0, abs=1e-12)
    other = regress_gapped(
        np.zeros((1, 2)), months, quarters, MARIANO_MURASAWA[None], autoregressive=autoregressive,
        generalised=True,
    )  # fmt: skip
    assert np.abs(other.loadings - found.loadings).max() > 1e-3
    assert np.nanmean(other.residuals) == pytest.approx(0.0, abs=1e-12)
