"""Periods with larger shocks: likelihood, laws and steps against one dense Gaussian with the scales in it."""

from dataclasses import replace

import numpy as np
import pytest

from latentfactors.kernels.dynamic_factor import expectation, loglikelihood, observation_pattern
from latentfactors.kernels.dynamic_factor_conditional import cell_law, completed
from latentfactors.kernels.dynamic_factor_em import (
    Structure,
    count_parameters,
    fit_dynamic_factor,
    maximise,
    pack,
    start_parameters,
    unpack,
)
from latentfactors.kernels.dynamic_factor_forecast import filter_sequence, forecast_sequence
from latentfactors.kernels.dynamic_factor_moments import expected_moments, residual_moments
from latentfactors.kernels.dynamic_factor_score import score
from latentfactors.kernels.variance_break import scale_step
from tests.oracles.dense_dfm import dense_covariance, dense_dfm
from tests.oracles.test_dynamic_factor import DESIGNS, draw

BROKEN = (4, 7, 8)
SCALE = np.array([3.0, 0.5, 6.0])


def broken(design, seed=0, scale=SCALE, periods=BROKEN):
    """A draw whose series miss broken periods here and there, so that pairs span them; the dense sizes."""
    values, weights, parameters, _ = draw(*design, seed)
    values[7, 0] = values[8, 1] = np.nan
    # a series that begins after all broken periods, and one that begins in one
    values[:10, 2] = np.nan
    parameters = replace(parameters, scale=scale)
    pattern = observation_pattern(
        values, autoregressive=design[5], lags=design[3], weights=weights, broken=periods
    )
    size = np.ones(pattern.n_periods)
    size[pattern.lead + np.array(periods)] = scale
    return values, weights, parameters, pattern, size


@pytest.mark.parametrize("design", DESIGNS)
def test_likelihood_and_moments_are_those_of_the_joint_gaussian(design):
    values, weights, parameters, pattern, size = broken(design)
    expected = expectation(parameters, pattern)
    loglik, mean, covariance = dense_dfm(values, parameters, weights=weights, lead=pattern.lead, size=size)
    assert expected.loglikelihood == pytest.approx(loglik, rel=1e-10)
    r = design[2]
    np.testing.assert_allclose(expected.means[:, :r], mean, atol=1e-10)
    for t in range(len(mean)):
        for lag in range(min(pattern.band, t) + 1):
            np.testing.assert_allclose(
                expected.covariances[t, lag, :r, :r], covariance[t, :, t - lag], atol=1e-10
            )
    plain = replace(parameters, scale=np.ones(3))
    ordinary = observation_pattern(values, autoregressive=design[5], lags=design[3], weights=weights)
    same = loglikelihood(replace(parameters, scale=np.zeros(0)), ordinary)
    assert loglikelihood(plain, pattern) == pytest.approx(same, rel=1e-12)
    assert abs(same - loglik) > 0.1


@pytest.mark.parametrize("design", DESIGNS)
def test_score_is_the_derivative_of_the_likelihood(design):
    _, _, parameters, pattern, _ = broken(design)
    n, r = parameters.loadings.shape
    structure = Structure(design[5], np.ones((n, r), bool), (np.arange(r),))
    centre = pack(parameters, structure)
    found, value = score(parameters, pattern, structure)
    assert value == pytest.approx(loglikelihood(parameters, pattern), rel=1e-12)
    numeric = []
    for step in 1e-5 * np.eye(centre.size):
        up, down = (loglikelihood(unpack(centre + s * step, parameters, structure), pattern) for s in (1, -1))
        numeric.append((up - down) / 2e-5)
    np.testing.assert_allclose(found, numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("design", [DESIGNS[2], DESIGNS[5]])
def test_the_step_of_a_scale_is_its_maximum(design):
    """Against a grid of the expected log-likelihood: what the score integrates to along one log scale."""
    _, _, parameters, pattern, _ = broken(design, seed=2)
    expected = expectation(parameters, pattern)
    residuals = residual_moments(
        parameters, parameters.loadings, expected_moments(expected, pattern, parameters), pattern
    )
    found = scale_step(parameters, parameters.loadings, expected, residuals, pattern)
    assert np.abs(np.log(found.scale / parameters.scale)).min() > 1e-3
    again = scale_step(found, parameters.loadings, expected, residuals, pattern)
    # periods enter one another's pairs, so a second round still moves, and less
    first, second = (
        np.abs(np.log(a.scale / b.scale)).max() for a, b in ((found, parameters), (again, found))
    )
    assert second < 0.2 * first


@pytest.mark.parametrize("ar", [False, True])
@pytest.mark.parametrize("aggregates", [0, 2])
def test_every_sweep_raises_the_likelihood_with_40_percent_missing(ar, aggregates):
    values, weights, parameters, _ = draw(80, 8, 2, 2, 0.4, ar, aggregates, 3)
    periods = (30, 31, 32, 50)
    values[np.array(periods)] *= 8.0
    pattern = observation_pattern(values, autoregressive=ar, lags=2, weights=weights, broken=periods)
    structure = Structure(ar, np.ones((8, 2), bool), (np.arange(2),))
    parameters = replace(parameters, scale=np.ones(4))
    value = loglikelihood(parameters, pattern)
    for _ in range(25):
        parameters = maximise(parameters, expectation(parameters, pattern), pattern, structure)
        reached = loglikelihood(parameters, pattern)
        assert reached >= value - 1e-9 * abs(value)
        value = reached
    assert parameters.scale.max() > 5.0


def test_scales_and_everything_else_are_recovered():
    rng = np.random.default_rng(5)
    T, n, r, truth = 240, 30, 2, np.array([10.0, 6.0, 3.0])
    periods = (180, 181, 183)
    size = np.ones(T)
    size[list(periods)] = truth
    loadings, roots = rng.normal(size=(n, r)), np.array([0.8, 0.5])
    f, e = np.zeros((T, r)), np.zeros((T, n))
    for t in range(1, T):
        f[t] = roots * f[t - 1] + size[t] * rng.normal(size=r)
        e[t] = 0.5 * e[t - 1] + size[t] * rng.normal(size=n)
    values = f @ loadings.T + e
    values[rng.uniform(size=values.shape) < 0.2] = np.nan
    values /= np.nanstd(values[:180], axis=0)
    structure, weights = Structure(True, np.ones((n, r), bool), (np.arange(r),)), np.ones((n, 1))

    def fit(periods):
        pattern = observation_pattern(values, autoregressive=True, lags=1, broken=periods)
        start = start_parameters(values, weights, structure, 1)
        start = replace(start, scale=np.ones(len(periods)))
        found = fit_dynamic_factor(start, pattern, structure, tolerance=1e-6, max_iterations=1000)
        assert found.converged
        return found

    found, plain = fit(periods), fit(())
    assert found.score < 1e-4
    # n + r standardised squares each: a relative standard error of 1 / sqrt(2 (n + r)) = .125
    np.testing.assert_allclose(found.parameters.scale, truth, rtol=0.3)
    assert found.parameters.persistence.mean() == pytest.approx(0.5, abs=0.03)
    eigenvalues = np.sort(np.linalg.eigvals(found.parameters.transition[0]).real)
    np.testing.assert_allclose(eigenvalues, [0.5, 0.8], atol=0.12)
    assert found.loglikelihood > plain.loglikelihood + 500.0
    extra = count_parameters(found.parameters, structure) - count_parameters(plain.parameters, structure)
    assert extra == 3


@pytest.mark.parametrize("design", [DESIGNS[0], DESIGNS[2], DESIGNS[5], DESIGNS[6]])
def test_cells_have_the_law_of_the_joint_gaussian(design):
    values, weights, parameters, pattern, size = broken(design)
    T, n = values.shape
    values[T - 2 :] = np.nan
    cells = [(T - 1, 0), (8, 1), (7, 0), (T - 2, 2)]
    if design[6]:
        quarters = np.flatnonzero(np.arange(T) % 3 == 2)
        values[quarters[2], n - 1] = np.nan
        cells += [(int(quarters[-1]), n - 1), (int(quarters[2]), n - 1)]
    found = cell_law(values, parameters, weights, cells, autoregressive=design[5], broken=BROKEN)
    seen = [tuple(cell) for cell in np.argwhere(np.isfinite(values))]
    everything = dense_covariance(seen + cells, T, parameters, weights=weights, lead=pattern.lead, size=size)
    m = len(seen)
    gain = np.linalg.solve(everything[:m, :m], everything[:m, m:]).T
    y = np.array([values[cell] for cell in seen])
    np.testing.assert_allclose(found.mean, gain @ y, atol=1e-9)
    np.testing.assert_allclose(
        found.covariance, everything[m:, m:] - gain @ everything[:m, m:], rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose([w[np.isfinite(values)] for w in found.weights], gain, atol=1e-9)
    if not design[6]:
        filled = completed(values, parameters, weights, autoregressive=design[5], broken=BROKEN)
        np.testing.assert_allclose([filled[cell] for cell in cells], gain @ y, atol=1e-9)


@pytest.mark.parametrize("design", [DESIGNS[0], DESIGNS[2], DESIGNS[5]])
def test_forecasts_know_what_broke_before_their_origin(design):
    values, weights, parameters, pattern, size = broken(design)
    filtered = filter_sequence(values, parameters, weights, autoregressive=design[5], broken=BROKEN)
    n, h = values.shape[1], 2
    _, _, means, variances = forecast_sequence(filtered, parameters, h)
    for t in (6, 8, 9):
        known = np.full((t + 1 + h, n), np.nan)
        known[: t + 1] = values[: t + 1]
        past = size[: pattern.lead + t + 1 + h].copy()
        past[pattern.lead + t + 1 :] = 1.0
        cells = [(t + h, i) for i in range(n)]
        seen = [tuple(cell) for cell in np.argwhere(np.isfinite(known))]
        joint = dense_covariance(
            seen + cells, len(known), parameters, weights=weights, lead=pattern.lead, size=past
        )
        m = len(seen)
        gain = np.linalg.solve(joint[:m, :m], joint[:m, m:]).T
        y = np.array([known[cell] for cell in seen])
        np.testing.assert_allclose(means[t], gain @ y, atol=1e-9)
        np.testing.assert_allclose(variances[t], np.diag(joint[m:, m:] - gain @ joint[:m, m:]), rtol=1e-8)
