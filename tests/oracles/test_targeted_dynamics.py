"""Dynamic factors of mixed frequencies against one dense Gaussian, and EM against its own likelihood."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.kernels.autoregression import companion_radius
from latentfactors.kernels.mixed_frequency import mariano_murasawa_weights, mean_weights, series_block
from latentfactors.kernels.state_space import forecast_states
from latentfactors.kernels.targeted_dynamics import (
    FactorParameters,
    dynamic_start,
    em_step,
    filter_factors,
    fit_factors,
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
def test_em_never_lowers_the_likelihood(kind, lags):
    blocks = _blocks(kind, 3)
    parameters = _parameters(blocks, lags, 3)
    floor = np.full(len(parameters.variances), 1e-6)
    last = -np.inf
    for _ in range(40):
        parameters, value = em_step(blocks, parameters, floor)
        assert value >= last - 1e-11 * abs(last)
        last = value


def _simulated(kind, lags, *, n_periods=160, seed=0):
    """Data of the model itself: two persistent factors, a tenth of the cells missing, a ragged edge."""
    rng = np.random.default_rng(seed)
    coefficients = np.array([[[0.8, 0.1], [-0.1, 0.6]]])[:lags]
    f = np.zeros((n_periods + 60, K))
    for t in range(1, len(f)):
        f[t] = (coefficients[0] @ f[t - 1] if lags else 0.0) + rng.normal(size=K)
    f = f[60 - 8 :]
    loadings = [rng.normal(size=(d, K)) for d in (8, 2, 2)]
    noise = rng.normal(size=(len(f), 2)) * 0.6
    now = f[8:]
    x = now @ loadings[0].T + rng.normal(size=(n_periods, 8))
    y = now @ loadings[1].T + 0.6 * rng.normal(size=(n_periods, 2))
    x[rng.random(x.shape) < 0.1] = np.nan
    y[-2:] = np.nan
    blocks = [series_block(x), series_block(y, group=1)]
    latent = f @ loadings[2].T + noise
    if kind != "none":
        mean = kind == "mean"
        weights = np.full(3, 1 / 3) if mean else MM
        low = sum(weight * latent[8 - h : 8 - h + n_periods] for h, weight in enumerate(weights))
        low[np.arange(n_periods) % 3 != 2] = np.nan
        how = {"mean": "aggregated", "mm own": "own", "mm carried": "carried"}[kind]
        blocks.append(series_block(low, group=2 if kind == "mm own" else 1, weights=weights, noise=how))
    truth = FactorParameters(
        tuple(loadings[: len(blocks)]),
        np.array([1.0, 0.36, 0.36 * 19 / 9][: 3 if kind == "mm own" else 2]),
        coefficients,
    )
    return blocks, truth, now


def _static_start(blocks, seed=5):
    rng = np.random.default_rng(seed)
    n_groups = 1 + max(block.group for block in blocks)
    loadings = tuple(rng.normal(size=(block.n_series, K)) for block in blocks)
    start = FactorParameters(loadings, np.ones(n_groups), np.zeros((0, K, K)))
    return fit_factors(blocks, start, max_iterations=60).parameters


@pytest.mark.parametrize(
    ("kind", "lags"), [("none", 1), ("mean", 0), ("mean", 1), ("mm own", 1), ("mm carried", 1)]
)
def test_the_fit_is_a_maximum_in_its_gauge_and_near_the_truth(kind, lags):
    blocks, truth, factors = _simulated(kind, lags)
    start = dynamic_start(blocks, _static_start(blocks), lags)
    fit = fit_factors(blocks, start, tolerance=1e-7)
    assert fit.converged
    path = np.array(fit.objective_path)
    assert np.all(np.diff(path) >= -1e-10 * np.abs(path[1:]))
    assert fit.loglikelihood == pytest.approx(_dense_free(blocks, fit.parameters), rel=1e-12)
    assert fit.loglikelihood >= filter_factors(blocks, truth).loglikelihood

    # stationary point: no direction in parameter space raises the likelihood
    p = fit.parameters
    for place, array in enumerate([*p.loadings, p.variances, p.coefficients]):
        for index in list(np.ndindex(array.shape))[:4]:
            values = []
            for sign in (-1.0, 1.0):
                moved = [part.copy() for part in [*p.loadings, p.variances, p.coefficients]]
                moved[place][index] += sign * 1e-4
                n = len(p.loadings)
                other = FactorParameters(tuple(moved[:n]), moved[n], moved[n + 1])
                values.append(filter_factors(blocks, other).loglikelihood)
            assert abs(values[1] - values[0]) / 2e-4 < 0.05

    precision = sum(
        part.T @ part / p.variances[block.group] for block, part in zip(blocks, p.loadings, strict=True)
    )
    np.testing.assert_allclose(precision, np.diag(np.diag(precision)), atol=1e-8 * precision.max())
    assert np.all(np.diff(np.diag(precision)) <= 0)
    assert np.all(p.loadings[-1][0] > 0)
    means = smooth_factors(blocks, p).mean[:, :K]
    slopes = np.linalg.lstsq(means, factors, rcond=None)[0]
    left = factors - means @ slopes
    assert 1 - left.var(axis=0).sum() / factors.var(axis=0).sum() > 0.8
    np.testing.assert_allclose(p.variances, truth.variances, rtol=0.4)


def _dense_free(blocks, parameters):
    """The likelihood once more, through a rotated copy of the parameters: it must not see the rotation."""
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return filter_factors(
        blocks,
        FactorParameters(
            tuple(part @ turn for part in parameters.loadings),
            parameters.variances,
            turn.T @ parameters.coefficients @ turn,
        ),
    ).loglikelihood


def test_scale_free_to_the_bit_for_powers_of_two():
    blocks, truth, _ = _simulated("none", 1, n_periods=60)
    scaled = [
        series_block(
            np.where(block.observations.mask == 1, block.observations.filled * 2.0**20, np.nan),
            group=block.group,
        )
        for block in blocks
    ]
    bigger = FactorParameters(
        tuple(part * 2.0**20 for part in truth.loadings), truth.variances * 2.0**40, truth.coefficients
    )
    a, b = fit_factors(blocks, truth, tolerance=1e-5), fit_factors(scaled, bigger, tolerance=1e-5)
    np.testing.assert_allclose(
        b.parameters.loadings[0], a.parameters.loadings[0] * 2.0**20, rtol=1e-8, atol=1.0
    )
    np.testing.assert_allclose(b.parameters.coefficients, a.parameters.coefficients, rtol=1e-8, atol=1e-8)
    n_cells = sum(block.observations.mask.sum() for block in blocks)
    assert b.loglikelihood == pytest.approx(a.loglikelihood - n_cells * 20 * np.log(2), rel=1e-10)


def test_windows_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="non-zero weight"):
        series_block(np.ones((4, 1)), weights=mean_weights([0, 2, 0, 2]))
    with pytest.raises(ValueError, match="carried noise"):
        series_block(np.ones((8, 1)), weights=MM, noise="carried")


def test_degenerate_data_give_finite_answers_or_a_sentence():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=(40, 1))
    holes = x.copy()
    holes[:, 2] = holes[7] = np.nan
    cases = {
        "a series and a period without a cell": (holes, y),
        "no target observed": (x, np.full_like(y, np.nan)),
        "nothing observed": (np.full_like(x, np.nan), np.full_like(y, np.nan)),
        "zeros": (0 * x, 0 * y),
        "exact factors": (np.cumsum(x[:, :2], axis=0) @ rng.normal(size=(2, 5)), np.cumsum(x[:, :1], axis=0)),
        "more factors than series": (x[:, :0], y),
    }
    for name, (predictors, targets) in cases.items():
        blocks = [series_block(predictors), series_block(targets, group=1)]
        loadings = tuple(rng.normal(size=(block.n_series, K)) for block in blocks)
        start = FactorParameters(loadings, np.ones(2), 0.5 * np.eye(K)[None])
        fit = fit_factors(blocks, start, max_iterations=60)
        for array in (*fit.parameters.loadings, fit.parameters.variances, fit.parameters.coefficients):
            assert np.isfinite(array).all(), name
        assert companion_radius(fit.parameters.coefficients) < 1, name
        assert np.isfinite(filter_factors(blocks, fit.parameters, use=(0,)).mean).all(), name
    with pytest.raises(ValueError, match="3 periods: expected at least 4"):
        fit_factors([series_block(x[:3]), series_block(y[:3], group=1)], start)
