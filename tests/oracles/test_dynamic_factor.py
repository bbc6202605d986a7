"""The dynamic factor kernels against one dense Gaussian, and their steps against the likelihood."""

from dataclasses import replace

import numpy as np
import pytest

from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    expectation,
    loglikelihood,
    observation_pattern,
)
from latentfactors.kernels.dynamic_factor_em import (
    Structure,
    fit_dynamic_factor,
    maximise,
    normalise,
    pack,
    start_parameters,
    unpack,
)
from latentfactors.kernels.dynamic_factor_forecast import filter_sequence, forecast_sequence
from latentfactors.kernels.dynamic_factor_moments import expected_moments, loading_step, residual_moments
from latentfactors.kernels.dynamic_factor_score import (
    information,
    parameter_covariance,
    restrictions,
    score,
)
from latentfactors.kernels.idiosyncratic import idiosyncratic_step
from latentfactors.kernels.stationary import doubling_sum, gaussian_value
from tests.oracles.dense_dfm import dense_dfm

MARIANO_MURASAWA = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 3.0

# periods, series, factors, lags, share missing, AR(1) terms, aggregates
DESIGNS = [
    (12, 4, 2, 1, 0.0, False, 0),
    (14, 5, 2, 2, 0.3, False, 0),
    (14, 5, 2, 1, 0.4, True, 0),
    (15, 4, 2, 3, 0.5, True, 0),
    (18, 4, 2, 1, 0.2, True, 1),
    (20, 5, 2, 2, 0.3, True, 2),
    (20, 5, 2, 2, 0.3, False, 2),
]


def draw(T, n, r, p, missing, ar, aggregates, seed=0):
    rng = np.random.default_rng(seed)
    transition = np.zeros((p, r, r))
    transition[0] = np.diag(rng.uniform(0.3, 0.7, r)) + 0.05 * rng.normal(size=(r, r))
    for lag in range(1, p):
        transition[lag] = 0.1 * rng.normal(size=(r, r))
    root = rng.normal(size=(r, r))
    parameters = DynamicFactorParameters(
        loadings=rng.normal(size=(n, r)),
        persistence=rng.uniform(-0.5, 0.9, n) if ar else np.zeros(n),
        variance=rng.uniform(0.3, 1.5, n),
        transition=transition,
        innovation=root @ root.T + 0.5 * np.eye(r),
    )
    values = rng.normal(size=(T, n))
    values[rng.uniform(size=values.shape) < missing] = np.nan
    weights = np.zeros((n, 5))
    weights[:, 0] = 1.0
    quarter_end = np.arange(T) % 3 == 2
    kinds = [MARIANO_MURASAWA, np.array([1.0, 1.0, 1.0, 0.0, 0.0]) / 3.0]
    for k in range(aggregates):
        weights[n - 1 - k] = kinds[k]
        values[:, n - 1 - k] = np.where(quarter_end, rng.normal(size=T), np.nan)
    weights = weights if aggregates else weights[:, :1]
    pattern = observation_pattern(values, autoregressive=ar, lags=p, weights=weights)
    return values, weights, parameters, pattern


@pytest.mark.parametrize("design", DESIGNS)
def test_likelihood_and_moments_are_those_of_the_joint_gaussian(design):
    values, weights, parameters, pattern = draw(*design)
    r = design[2]
    expected = expectation(parameters, pattern)
    loglik, mean, covariance = dense_dfm(values, parameters, weights=weights, lead=pattern.lead)
    assert expected.loglikelihood == pytest.approx(loglik, rel=1e-10)
    np.testing.assert_allclose(expected.means[:, :r], mean, atol=1e-10)
    for t in range(len(mean)):
        for lag in range(min(pattern.band, t) + 1):
            np.testing.assert_allclose(
                expected.covariances[t, lag, :r, :r], covariance[t, :, t - lag], atol=1e-10
            )


@pytest.mark.parametrize("design", DESIGNS)
def test_aggregates_are_reproduced_without_noise(design):
    values, _, parameters, pattern = draw(*design)
    expected = expectation(parameters, pattern)
    r, low = design[2], pattern.low
    for t, k, value in zip(pattern.low_time, pattern.low_series, pattern.low_value, strict=True):
        latent = expected.means[:, :r] @ parameters.loadings[low[k]] + expected.means[:, r + k]
        recent = latent[t - np.arange(pattern.weights.shape[1])]
        assert pattern.weights[k] @ recent == pytest.approx(value, abs=1e-10)
    assert pattern.low_time.size == np.isfinite(values[:, low]).sum()


def brute_forecast(values, parameters, weights, lead, t, h):
    """Mean and variance of y_(t+h) given the data up to t: the dense log-density is quadratic in y_(t+h)."""
    n = values.shape[1]
    known = np.full((t + 1 + h, n), np.nan)
    known[: t + 1] = values[: t + 1]
    out = []
    for i in range(n):
        logs = []
        for guess in (-1.0, 0.0, 1.0):
            trial = known.copy()
            trial[t + h, i] = guess
            logs.append(dense_dfm(trial, parameters, weights=weights, lead=lead)[0])
        curvature, slope = -(logs[0] - 2 * logs[1] + logs[2]), (logs[2] - logs[0]) / 2
        out.append((slope / curvature, 1 / curvature))
    return np.array(out).T


@pytest.mark.parametrize("design", [DESIGNS[1], DESIGNS[2], DESIGNS[5]])
def test_forecasts_are_conditional_laws_given_the_past(design):
    values, weights, parameters, pattern = draw(*design)
    filtered = filter_sequence(values, parameters, weights, autoregressive=design[5])
    for h in (1, 3):
        _, _, means, variances = forecast_sequence(filtered, parameters, h)
        for t in (design[0] - 1, 6):
            mean, variance = brute_forecast(values, parameters, weights, pattern.lead, t, h)
            np.testing.assert_allclose(means[t], mean, atol=1e-9)
            np.testing.assert_allclose(variances[t], variance, rtol=1e-8)


def test_nowcast_of_what_is_seen_is_what_was_seen():
    values, weights, parameters, _ = draw(*DESIGNS[5])
    filtered = filter_sequence(values, parameters, weights, autoregressive=True)
    _, _, means, variances = forecast_sequence(filtered, parameters, 0)
    seen = np.isfinite(values)
    np.testing.assert_allclose(means[seen], values[seen], atol=1e-9)
    assert variances[seen].max() < 1e-9
    assert variances[~seen].min() > 1e-3


def complete(design, seed, share=0.4):
    """A longer draw of the process itself, with gaps."""
    T, n, r, lags, _, ar, aggregates = design
    values, weights, parameters, pattern = draw(T, n, r, lags, share, ar, aggregates, seed)
    return values, weights, parameters, pattern, Structure(ar, np.ones((n, r), bool), (np.arange(r),))


@pytest.mark.parametrize("ar", [False, True])
@pytest.mark.parametrize("aggregates", [0, 2])
def test_every_step_raises_the_likelihood_with_40_percent_missing(ar, aggregates):
    _, _, parameters, pattern, structure = complete((80, 8, 2, 2, 0, ar, aggregates), seed=3)
    value = loglikelihood(parameters, pattern)
    for _ in range(25):
        expected = expectation(parameters, pattern)
        moments = expected_moments(expected, pattern, parameters)
        new = loading_step(parameters, moments, pattern, structure.allowed)
        moved = np.abs(new.loadings - parameters.loadings).max()
        for candidate in (
            new,
            idiosyncratic_step(
                new,
                residual_moments(new, parameters.loadings, moments, pattern),
                autoregressive=ar,
                smallest_variance=1e-6,
            ),
            maximise(parameters, expected, pattern, structure),
        ):
            reached = loglikelihood(candidate, pattern)
            assert reached >= value - 1e-9 * abs(value)
        assert moved > 0.0, "loadings stand still"
        parameters, value = candidate, reached


def test_persistence_step_is_the_maximum_of_its_objective():
    """Against a fine grid of the expected log-likelihood itself, gaps of several lengths included."""
    _, _, parameters, pattern, structure = complete((60, 5, 2, 1, 0, True, 1), seed=5)
    expected = expectation(parameters, pattern)
    moments = expected_moments(expected, pattern, parameters)
    moments = residual_moments(parameters, parameters.loadings, moments, pattern)
    best = idiosyncratic_step(parameters, moments, autoregressive=True, smallest_variance=1e-9)

    def objective(i, phi, s):
        total = moments.n_first[i] * np.log(s / (1 - phi**2)) + moments.first[i] * (1 - phi**2) / s
        for column, d in enumerate(moments.gaps):
            v = s * (1 - phi ** (2.0 * d)) / (1 - phi**2)
            square = moments.now[i, column] - 2 * phi**d * moments.cross[i, column]
            square += phi ** (2.0 * d) * moments.before[i, column]
            total += moments.count[i, column] * np.log(v) + square / v
        return total

    for i in range(5):
        got = objective(i, best.persistence[i], best.variance[i])
        for phi in np.linspace(-0.99, 0.99, 199):
            for s in best.variance[i] * np.array([0.9, 1.0, 1.1]):
                assert got <= objective(i, phi, s) + 1e-7
    assert structure.autoregressive


def simulate(T, n, r, *, phi, missing, seed):
    rng = np.random.default_rng(seed)
    f, e = np.zeros((T + 50, r)), np.zeros((T + 50, n))
    loadings, roots = rng.normal(size=(n, r)), np.linspace(0.8, 0.5, r)
    for t in range(1, T + 50):
        f[t] = roots * f[t - 1] + rng.normal(size=r)
        e[t] = phi * e[t - 1] + rng.normal(size=n)
    values = (f @ loadings.T + e)[50:]
    values[rng.uniform(size=values.shape) < missing] = np.nan
    return (values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0), f[50:]


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_two_factors_and_their_persistence_are_recovered(missing):
    values, truth = simulate(300, 30, 2, phi=0.5, missing=missing, seed=1)
    structure = Structure(True, np.ones((30, 2), bool), (np.arange(2),))
    weights = np.ones((30, 1))
    pattern = observation_pattern(values, autoregressive=True, lags=1, weights=weights)
    start = start_parameters(values, weights, structure, 1)
    fit = fit_dynamic_factor(start, pattern, structure, tolerance=1e-6, max_iterations=1000)
    assert fit.converged
    assert fit.score < 1e-4
    assert np.diff(fit.objective_path).min() > -1e-9 * abs(fit.loglikelihood)
    means = expectation(fit.parameters, pattern).means
    explained = 1.0 - (
        np.linalg.lstsq(means, truth, rcond=None)[1] / ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    )
    assert explained.min() > 0.9
    assert fit.parameters.persistence.mean() == pytest.approx(0.5, abs=0.05)
    # the certificate is not passed halfway
    half = fit_dynamic_factor(start, pattern, structure, tolerance=1e-6, max_iterations=3)
    assert not half.converged
    assert half.score > 1e-2


def test_persistence_is_not_biased_by_gaps():
    """phi = .8 with 60% of the cells missing: neighbours after dropping the gaps would say .45."""
    values, _ = simulate(480, 100, 2, phi=0.8, missing=0.6, seed=2)
    structure = Structure(True, np.ones((100, 2), bool), (np.arange(2),))
    weights = np.ones((100, 1))
    pattern = observation_pattern(values, autoregressive=True, lags=1, weights=weights)
    start = start_parameters(values, weights, structure, 1)
    fit = fit_dynamic_factor(start, pattern, structure, tolerance=1e-4, max_iterations=200)
    assert fit.parameters.persistence.mean() == pytest.approx(0.8, abs=0.03)


def test_normalised_parameters_are_the_same_model():
    values, weights, parameters, pattern = draw(*DESIGNS[5])
    del values, weights
    n, r = parameters.loadings.shape
    structure = Structure(True, np.ones((n, r), bool), (np.arange(r),))
    same = normalise(parameters, structure)
    assert loglikelihood(same, pattern) == pytest.approx(loglikelihood(parameters, pattern), rel=1e-12)
    scaled = same.loadings / np.sqrt(same.variance / (1 - same.persistence**2))[:, None]
    gram = scaled.T @ scaled
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-10 * gram.max())
    assert (np.diff(np.diag(gram)) < 0).all()


def test_dropping_a_series_equals_never_seeing_it():
    values, _, parameters, _ = draw(*DESIGNS[2])
    hidden = values.copy()
    hidden[:, -1] = np.nan
    without = replace(
        parameters,
        loadings=parameters.loadings[:-1],
        persistence=parameters.persistence[:-1],
        variance=parameters.variance[:-1],
    )
    full = expectation(parameters, observation_pattern(hidden, autoregressive=True, lags=1))
    fewer = expectation(without, observation_pattern(values[:, :-1], autoregressive=True, lags=1))
    assert full.loglikelihood == pytest.approx(fewer.loglikelihood, rel=1e-12)
    np.testing.assert_allclose(full.means, fewer.means, atol=1e-12)


@pytest.mark.parametrize("design", DESIGNS)
def test_score_is_the_derivative_of_the_likelihood(design):
    """Fisher's identity, in every free number: loadings, variances, persistence, A and Q, blocks included."""
    _, _, parameters, pattern = draw(*design)
    n, r, ar = *parameters.loadings.shape, design[5]
    allowed = np.ones((n, r), bool)
    allowed[0, 1] = False
    for structure in (
        Structure(ar, np.ones((n, r), bool), (np.arange(r),)),
        Structure(ar, allowed, (np.array([0]), np.array([1]))),
    ):
        centre = pack(normalised_to(parameters, structure), structure)
        at = unpack(centre, parameters, structure)
        found, value = score(at, pattern, structure)
        assert value == pytest.approx(loglikelihood(at, pattern), rel=1e-12)
        numeric = []
        for j in range(centre.size):
            step = 1e-5 * np.eye(centre.size)[j]
            up, down = (loglikelihood(unpack(centre + s * step, at, structure), pattern) for s in (1, -1))
            numeric.append((up - down) / 2e-5)
        np.testing.assert_allclose(found, numeric, rtol=1e-5, atol=1e-5)


def normalised_to(parameters, structure):
    """The same parameters with what the structure fixes at zero set to zero."""
    transition, innovation = np.zeros_like(parameters.transition), np.zeros_like(parameters.innovation)
    for group in structure.groups:
        block = np.ix_(group, group)
        transition[:, *block], innovation[block] = (
            parameters.transition[:, *block],
            parameters.innovation[block],
        )
    loadings = np.where(structure.allowed, parameters.loadings, 0.0)
    return replace(parameters, loadings=loadings, transition=transition, innovation=innovation)


def test_information_is_the_curvature_of_the_likelihood():
    _, _, parameters, pattern = draw(*DESIGNS[5])
    n, r = parameters.loadings.shape
    structure = Structure(True, np.ones((n, r), bool), (np.arange(r),))
    found = information(parameters, pattern, structure)
    centre, value = pack(parameters, structure), loglikelihood(parameters, pattern)
    for j in range(0, centre.size, 3):
        step = 1e-3 * np.eye(centre.size)[j]
        ends = [loglikelihood(unpack(centre + s * step, parameters, structure), pattern) for s in (1, -1)]
        curvature = -(sum(ends) - 2.0 * value) / 1e-6
        assert found[j, j] == pytest.approx(curvature, rel=1e-3, abs=1e-3)


def test_standard_errors_with_many_series_are_those_of_known_factors():
    """sqrt((1 - phi^2)/T) for phi, s sqrt(2/T) for s, up to what the factors' uncertainty adds."""
    T, n, r = 400, 24, 2
    values, _ = simulate(T, n, r, phi=0.5, missing=0.0, seed=3)
    structure = Structure(True, np.ones((n, r), bool), (np.arange(r),))
    pattern = observation_pattern(values, autoregressive=True, lags=1)
    start = start_parameters(values, np.ones((n, 1)), structure, 1)
    fit = fit_dynamic_factor(start, pattern, structure, tolerance=1e-6, max_iterations=600)
    assert np.abs(score(fit.parameters, pattern, structure)[0]).max() < 0.05
    assert np.abs(restrictions(fit.parameters, structure)).max() < 1e-9
    covariance = parameter_covariance(fit.parameters, pattern, structure)
    spread = np.sqrt(np.diag(covariance))[n * r :]
    phi = fit.parameters.persistence
    log_s, atanh_phi = spread[:n], spread[n : 2 * n]
    ratio = atanh_phi * (1 - phi**2) / np.sqrt((1 - phi**2) / T)
    assert np.median(ratio) == pytest.approx(1.05, abs=0.07)
    assert ratio.min() > 0.95
    ratio = log_s / np.sqrt(2 / T)
    assert np.median(ratio) == pytest.approx(1.05, abs=0.07)
    assert ratio.min() > 0.95
    # the restrictions take out r^2 directions
    assert np.linalg.matrix_rank(covariance, tol=1e-12 * np.abs(covariance).max()) == len(covariance) - r**2


@pytest.mark.parametrize("m", [1, 3, 6])
def test_compiled_sums_equal_their_plain_twins(m):
    rng = np.random.default_rng(m)
    companion = 0.5 * rng.normal(size=(m, m)) / np.sqrt(m)
    noise, second = (x @ x.T + np.eye(m) for x in rng.normal(size=(2, m, m)))
    total, converged = doubling_sum(noise, companion, 46)
    plain = np.linalg.solve(np.eye(m**2) - np.kron(companion, companion), noise.ravel()).reshape(m, m)
    assert converged
    np.testing.assert_allclose(total, plain, rtol=1e-12)
    value = -0.5 * (7.0 * np.linalg.slogdet(noise)[1] + np.trace(np.linalg.solve(noise, second)))
    assert gaussian_value(noise, second, 7.0) == pytest.approx(value, rel=1e-13)
    assert gaussian_value(-noise, second, 7.0) == -np.inf
    assert not doubling_sum(noise, np.eye(m) * 1.01, 46)[1]


def test_a_hole_of_many_months_is_one_quasi_difference():
    values, weights, parameters, _ = draw(30, 3, 2, 1, 0.1, True, 0)
    values[3:25, 2] = np.nan
    values[2, 2], values[25, 2] = 0.5, -0.5
    pattern = observation_pattern(values, autoregressive=True, lags=1, weights=weights)
    assert pattern.gaps[-1] == 23
    expected = expectation(parameters, pattern)
    loglik, mean, _ = dense_dfm(values, parameters, weights=weights, lead=0)
    assert expected.loglikelihood == pytest.approx(loglik, rel=1e-10)
    np.testing.assert_allclose(expected.means[:, :2], mean, atol=1e-9)
