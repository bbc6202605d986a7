"""Dynamic factors of mixed frequencies against one dense Gaussian, and EM against its own likelihood."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.kernels.autoregression import companion_radius
from latentfactors.kernels.mixed_frequency import mariano_murasawa_weights, mean_weights, series_block
from latentfactors.kernels.state_space import forecast_states
from latentfactors.kernels.targeted_dynamics import (
    FactorParameters,
    em_step,
    filter_factors,
    law,
    smooth_factors,
)
from tests.oracles.dense_gaussian import condition, joint_states

N_PERIODS, K = 12, 2
IRREGULAR = [0, 0, 3, 0, 2, 0, 0, 0, 4, 0, 0, 3]
MM = mariano_murasawa_weights()
QUARTERS = np.arange(N_PERIODS) % 3 == 2


def _low(rng, releases, d):
    values = rng.normal(size=(N_PERIODS, d))
    values[~np.asarray(releases, dtype=bool)] = np.nan
    values[-1, 0] = np.nan  # ragged edge
    return values


def _blocks(kind, seed):
    """Predictors, a monthly target and, by kind, low-frequency targets."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(N_PERIODS, 3)), rng.normal(size=(N_PERIODS, 1))
    x[rng.random(x.shape) < 0.3] = np.nan
    x[5] = np.nan
    y[-3:] = np.nan
    blocks = [series_block(x), series_block(y, group=1)]
    if kind == "mean":
        weights = mean_weights(IRREGULAR)
        blocks.append(
            series_block(_low(rng, weights.any(axis=1), 2), group=1, weights=weights, noise="aggregated")
        )
    elif kind == "mm own":
        blocks.append(series_block(_low(rng, QUARTERS, 2), group=2, weights=MM))
    elif kind == "mm carried":
        blocks.append(series_block(_low(rng, QUARTERS, 2), group=1, weights=MM, noise="carried"))
    return blocks


def _parameters(blocks, lags, seed):
    rng = np.random.default_rng(seed + 100)
    n_groups = 1 + max(block.group for block in blocks)
    coefficients = 0.35 * rng.normal(size=(lags, K, K))
    if lags:
        assert companion_radius(coefficients) < 1
    return FactorParameters(
        tuple(rng.normal(size=(block.n_series, K)) for block in blocks),
        rng.uniform(0.3, 1.5, size=n_groups),
        coefficients,
    )


def _dense(blocks, parameters, use=None, upto=N_PERIODS, beyond=0):
    """Law of all factors f_t (T, K) given the blocks' cells, log density of the input values."""
    lags = max(len(parameters.coefficients), 1)
    coefficients = np.zeros((lags, K, K))
    coefficients[: len(parameters.coefficients)] = parameters.coefficients
    before = 8  # periods before the first that windows may reach
    total = before + N_PERIODS + beyond
    r = K * lags
    mean, joint = joint_states(total, coefficients, np.zeros(K), np.eye(K), lags)
    keep = (np.arange(total)[:, None] * r + np.arange(K)).ravel()
    mean, joint = mean[keep], joint[np.ix_(keep, keep)]
    rows, data, mixes = [], [], []
    latent = 0
    columns = {}
    for place, block in enumerate(blocks):
        if use is not None and place not in use:
            continue
        values = np.where(block.observations.mask == 1, block.observations.filled, np.nan)
        values = values * block.scale[:, None]
        variance = parameters.variances[block.group]
        for t in range(upto):
            for j in range(block.n_series):
                if not np.isfinite(values[t, j]):
                    continue
                weights = np.ones(1) if block.weights is None else block.weights[t] * block.scale[t]
                row, mix = np.zeros(total * K), {}
                for h, weight in enumerate(weights):
                    at = before + t - h
                    row[at * K : at * K + K] += weight * parameters.loadings[place][j]
                    if block.noise == "own":
                        mix[place, j, t] = np.sqrt(variance)
                    else:
                        mix[place, j, t - h] = weight * np.sqrt(variance)
                for name in mix:
                    columns.setdefault(name, len(columns))
                rows.append(row)
                data.append(values[t, j])
                mixes.append(mix)
    latent = np.zeros((len(rows), len(columns)))
    for i, mix in enumerate(mixes):
        for name, weight in mix.items():
            latent[i, columns[name]] = weight
    mean, covariance, fit = condition(mean, joint, np.array(rows), latent @ latent.T, np.array(data))
    mean = mean.reshape(total, K)[before:]
    covariance = covariance.reshape(total, K, total, K)[before:, :, before:]
    return mean, covariance, fit


KINDS = ["none", "mean", "mm own", "mm carried"]


@pytest.mark.parametrize("lags", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_likelihood_and_moments_equal_the_joint_gaussian(kind, lags):
    blocks = _blocks(kind, 1)
    parameters = _parameters(blocks, lags, 1)
    mean, covariance, fit = _dense(blocks, parameters)
    filtered = filter_factors(blocks, parameters)
    smoothed = smooth_factors(blocks, parameters)
    assert filtered.loglikelihood == pytest.approx(fit, rel=1e-10)
    assert filtered.terms.sum() == pytest.approx(fit, rel=1e-10)
    np.testing.assert_allclose(smoothed.mean[:, :K], mean, atol=1e-10)
    own = np.array([covariance[t, :, t] for t in range(N_PERIODS)])
    np.testing.assert_allclose(smoothed.covariance[:, :K, :K], own, atol=1e-10)
    lagged = np.array([covariance[t, :, t - 1] for t in range(1, N_PERIODS)])
    np.testing.assert_allclose(smoothed.lagged[1:, :K, :K], lagged, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_predictors_alone_and_forecasts_from_them(kind):
    blocks = _blocks(kind, 2)
    parameters = _parameters(blocks, 1, 2)
    for use in ((0,), (0, len(blocks) - 1)):
        filtered = filter_factors(blocks, parameters, use=use, by_period=True)
        for t in (4, N_PERIODS - 1):
            mean, covariance, _ = _dense(blocks, parameters, use, upto=t + 1)
            np.testing.assert_allclose(filtered.mean[t, :K], mean[t], atol=1e-10)
            np.testing.assert_allclose(filtered.covariance[t, :K, :K], covariance[t, :, t], atol=1e-10)
        mean, covariance, _ = _dense(blocks, parameters, use, beyond=2)
        ahead, spread = forecast_states(
            filtered.mean[-1:], filtered.covariance[-1:], law(blocks, parameters, use=use), 2
        )
        np.testing.assert_allclose(ahead[0, :K], mean[-1], atol=1e-10)
        np.testing.assert_allclose(spread[0, :K, :K], covariance[-1, :, -1], atol=1e-10)


@pytest.mark.parametrize("lags", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_em_never_lowers_the_likelihood_and_ends_where_its_gradient_vanishes(kind, lags):
    blocks = _blocks(kind, 3)
    parameters = _parameters(blocks, lags, 3)
    floor = np.full(len(parameters.variances), 1e-6)
    last = -np.inf
    for _ in range(40):
        parameters, value = em_step(blocks, parameters, floor)
        assert value >= last - 1e-11 * abs(last)
        last = value
