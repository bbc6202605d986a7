"""Short histories: the posterior against a dense Gaussian, exactness without noise, and no explosion."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import Panel, PCAConfig, PCAModel, RPPCAConfig, RPPCAModel
from latentfactors.kernels.scores import r_squared
from latentfactors.kernels.short_histories import (
    Prior,
    learn_prior,
    long_histories,
    moments,
    posterior_loadings,
    posteriors,
)

K, T, N, SPLIT = 3, 150, 120, 110
MEANS = np.linspace(0.3, 0.1, K)


def unbalanced(seed, noise=2.0):
    """Half of the assets live for 2K to 3K training periods; half of those go on to the end."""
    rng = np.random.default_rng(seed)
    loadings = 0.5 * rng.normal(size=(N, K)) + [1.0, 0.0, 0.0]
    factors = MEANS + rng.normal(size=(T, K))
    universe = np.ones((T, N), dtype=bool)
    for i in range(N // 2):
        length = rng.integers(2 * K, 3 * K + 1)
        start = SPLIT - length if i % 2 else rng.integers(0, T - length + 1)
        universe[:start, i] = False
        universe[T if i % 2 else start + length :, i] = False
    clean = factors @ loadings.T
    values = np.where(universe, clean + noise * rng.normal(size=(T, N)), np.nan)
    return Panel.from_wide(values, universe=universe), clean


MODELS = {
    "PCA": PCAModel(PCAConfig(n_factors=K)),
    "demeaned": PCAModel(PCAConfig(n_factors=K, demean=True)),
    "probabilistic": PCAModel(PCAConfig(n_factors=K, probabilistic=True)),
    "RP-PCA": RPPCAModel(RPPCAConfig(n_factors=K)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", [0, 1])
def test_short_histories_do_not_explode(name, seed):
    """Least squares on the 2K values made forecasts with R2 down to -11,740 here."""
    panel, clean = unbalanced(seed)
    model = MODELS[name].clone()
    summary = model.fit(panel.between(0, SPLIT))
    assert summary.converged
    assert any("drawn to those of the others" in remark for remark in summary.warnings)
    state = model.extract(panel)
    late = panel.index.period_codes >= SPLIT
    forecast = state.measurement.loadings.rows() @ model.estimates.factor_mean
    known = late & np.isfinite(forecast)
    assert r_squared(panel.values[known], forecast[known]) > -0.05
    fit = state.reconstruction()
    truth = panel.index.gather(clean)
    assert r_squared(truth[known], fit[known]) > 0.65


@pytest.mark.parametrize("model", [MODELS["PCA"], MODELS["RP-PCA"]])
def test_without_noise_a_short_history_is_as_good_as_a_long_one(model):
    panel, _ = unbalanced(3, noise=0.0)
    fresh = model.clone()
    fresh.fit(panel.between(0, SPLIT))
    state = fresh.extract(panel)
    fit, known = state.reconstruction(), np.isfinite(panel.values)
    known &= np.isfinite(fit)
    assert known.mean() > 0.9
    np.testing.assert_allclose(fit[known], panel.values[known], atol=1e-8)


@pytest.mark.parametrize("centred", [False, True])
def test_posterior_is_the_dense_conditional_mean(centred):
    rng = np.random.default_rng(0)
    values, factors = rng.normal(size=(30, 4)), rng.normal(size=(30, K))
    values[rng.random(values.shape) < 0.4] = np.nan
    root = rng.normal(size=(K, K))
    prior = Prior(rng.normal(size=K), root @ root.T, 0.7)
    found = posterior_loadings(values, factors, prior, centred=centred)
    for i in range(4):
        seen = np.isfinite(values[:, i])
        f, r = factors[seen], values[seen, i]
        if centred:  # what is left after the mean, whose effect a projection takes out exactly
            f, r = f - f.mean(axis=0), r - r.mean()
        joint = f @ prior.covariance @ f.T + prior.noise * np.eye(r.size)
        gain = prior.covariance @ f.T @ np.linalg.inv(joint)
        np.testing.assert_allclose(found[i], prior.mean + gain @ (r - f @ prior.mean), atol=1e-10)


def test_prior_is_a_stationary_point_of_the_marginal_likelihood():
    """The likelihood of N(F m, F L F' + s2 I), dense, falls in every direction tried."""
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(25, 2))
    loadings = np.array([1.0, -0.5]) + rng.normal(size=(60, 2)) @ np.array([[0.6, 0.0], [0.2, 0.4]])
    values = factors @ loadings.T + 0.8 * rng.normal(size=(25, 60))
    values[rng.random(values.shape) < 0.3] = np.nan
    prior = learn_prior(values, factors)

    def likelihood(mean, covariance, noise):
        total = 0.0
        for r in values.T:
            seen = np.isfinite(r)
            f = factors[seen]
            joint = f @ covariance @ f.T + noise * np.eye(int(seen.sum()))
            away = r[seen] - f @ mean
            total -= 0.5 * (np.linalg.slogdet(joint)[1] + away @ np.linalg.solve(joint, away))
        return total

    best = likelihood(prior.mean, prior.covariance, prior.noise)
    for step in (0.97, 1.03):
        assert likelihood(prior.mean * step, prior.covariance, prior.noise) < best
        assert likelihood(prior.mean, prior.covariance * step, prior.noise) < best
        assert likelihood(prior.mean, prior.covariance, prior.noise * step) < best
    np.testing.assert_allclose(prior.mean, [1.0, -0.5], atol=0.25)


def test_moments_leave_missing_cells_out():
    rng = np.random.default_rng(2)
    values, factors = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    values[4:, 1], factors[0] = np.nan, np.nan
    grams, crosses, squares, counts = moments(values, factors, centred=False)
    np.testing.assert_allclose(grams[1], factors[1:4].T @ factors[1:4])
    np.testing.assert_allclose(crosses[1], factors[1:4].T @ values[1:4, 1])
    assert squares[1] == pytest.approx((values[1:4, 1] ** 2).sum())
    assert counts.tolist() == [11.0, 3.0, 11.0]


def test_a_prior_without_spread_is_the_answer():
    rng = np.random.default_rng(3)
    values, factors = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    grams, crosses, _, _ = moments(values, factors, centred=False)
    found, variance = posteriors(grams, crosses, Prior(np.array([1.0, 2.0]), np.zeros((2, 2)), 1.0))
    np.testing.assert_array_equal(found, np.tile([1.0, 2.0], (3, 1)))
    assert not variance.any()


def test_full_panels_have_long_histories_only():
    values = np.random.default_rng(4).normal(size=(40, 10))
    values[np.random.default_rng(5).random(values.shape) < 0.3] = np.nan
    periods, assets = long_histories(values, 4, 8)
    assert periods.all()
    assert assets.all()
    values[12:, 2] = np.nan
    assert np.flatnonzero(~long_histories(values, 4, 4)[1]).tolist() == [2]
