"""RPPCAModel: the eigenproblem, the weak factor that PCA misses, missing cells, identification, edges."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from latentfactors import (
    AR1FactorForecaster,
    BetaLambdaMapper,
    EWMAFactorForecaster,
    ExpandingMeanFactorForecaster,
    LatentFactorForecastPipeline,
    Panel,
    PCAConfig,
    PCAModel,
    RollingMeanFactorForecaster,
    VARFactorForecaster,
)
from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
    UnknownAssetsError,
)
from latentfactors.kernels.als import fit_als
from latentfactors.kernels.linalg import subspace_angle
from latentfactors.kernels.static import maximal_sharpe_ratio, volatility_scale
from latentfactors.models.rp_pca import (
    RPPCAConfig,
    RPPCAModel,
    fit_penalised_als,
    penalised_factor_step,
    penalised_loading_step,
)
from latentfactors.simulate import static_panel
from tests.house.small import month_ends

GAMMAS = [-1.0, -0.5, 0.0, 10.0, 100.0]


def fitted(panel, n_factors=3, **options):
    model = RPPCAModel(RPPCAConfig(n_factors=n_factors, **options))
    return model, model.fit(panel)


def panel_of(values, assets=None):
    return Panel.from_wide(
        values, universe="all", times=month_ends(len(values)), assets=assets, frequency="M"
    )


def objective(values, factors, loadings, gamma):
    """The criterion, asset by asset, as it is written on paper."""
    total = 0.0
    for x, b in zip(values.T, loadings, strict=True):
        seen = np.isfinite(x)
        error = x[seen] - factors[seen] @ b
        total += error @ error + gamma * seen.sum() * error.mean() ** 2
    return total


# ------------------------------------------------------------------------------------ complete data


@pytest.mark.parametrize("shape", [(25, 60), (90, 30)], ids=["T<N", "T>N"])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("scaled", [False, True])
def test_complete_data_equal_a_direct_eigendecomposition(shape, gamma, scaled):
    truth = static_panel(n_periods=shape[0], n_assets=shape[1], n_factors=3, noise=0.02, seed=7)
    values = truth.panel.wide()
    volatility = values.std(axis=0)
    scale = volatility / np.sqrt(np.mean(volatility**2)) if scaled else np.ones(shape[1])
    used = values / scale
    mean = used.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(used.T @ used / len(used) + gamma * np.outer(mean, mean))
    basis, eigenvalues = vectors[:, ::-1][:, :3], eigenvalues[::-1][:3]
    basis = basis * np.sign((used @ basis).mean(axis=0))
    model, summary = fitted(truth.panel, gamma=gamma, scale_by_volatility=scaled)
    found = model.estimates
    np.testing.assert_allclose(found.loadings, basis * scale[:, None], atol=1e-10)
    np.testing.assert_allclose(found.eigenvalues, eigenvalues, rtol=1e-10)
    factors = model.extract(truth.panel).factor_returns
    np.testing.assert_allclose(factors, used @ basis, atol=1e-12)
    covariance = np.cov(factors.T, ddof=0)
    sharpe = np.sqrt(factors.mean(axis=0) @ np.linalg.solve(covariance, factors.mean(axis=0)))
    assert found.sharpe_ratio == pytest.approx(sharpe, rel=1e-10)
    assert summary.metrics["sharpe_ratio"] == found.sharpe_ratio
    residual = values - factors @ found.loadings.T
    np.testing.assert_allclose(found.alpha, residual.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(found.residual_variance, (residual**2).sum(axis=0) / (shape[0] - 3), rtol=1e-9)
    fit = objective(used, factors, basis, gamma)
    assert summary.converged
    assert summary.reason == "complete data: closed form"
    assert summary.objective[-1] <= fit / objective(used, 0 * factors, basis, gamma) + 1e-12


def test_gamma_minus_one_and_zero_are_pca():
    panel = static_panel(n_periods=80, n_assets=25, n_factors=2, noise=0.02, missing=0.2, seed=3).panel
    for gamma, demean in ((0.0, False), (-1.0, True)):
        pca = PCAModel(PCAConfig(n_factors=2, demean=demean, tolerance=1e-12))
        pca.fit(panel)
        model, _ = fitted(panel, 2, gamma=gamma, tolerance=1e-12)
        signs = np.sign((model.estimates.loadings * pca.estimates.loadings).sum(axis=0))
        np.testing.assert_allclose(model.estimates.loadings, pca.estimates.loadings * signs, atol=1e-9)


def test_a_weak_factor_with_a_high_sharpe_ratio_is_found_where_pca_misses_it():
    """Lettau & Pelger's case: the second factor's variance drowns in noise, its mean does not."""
    shares, sharpe = {0.0: [], 20.0: []}, {0.0: [], 20.0: []}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        n_periods, n_assets = 600, 100
        f = np.array([0.005, 0.02]) + rng.normal(size=(3 * n_periods, 2)) * [0.05, 0.02]
        b = np.column_stack([1 + 0.3 * rng.normal(size=n_assets), 0.12 * rng.normal(size=n_assets)])
        values = f @ b.T + 0.06 * rng.normal(size=(len(f), n_assets))
        weak = b[:, 1] - b[:, 0] * (b[:, 0] @ b[:, 1]) / (b[:, 0] @ b[:, 0])
        panel = panel_of(values)
        for gamma, found in shares.items():
            model, _ = fitted(panel.between(0, n_periods), 2, gamma=gamma)
            found.append(np.sum((model.estimates.loadings.T @ weak) ** 2) / (weak @ weak))
            tangency = np.linalg.solve(model.estimates.factor_covariance, model.estimates.factor_mean)
            later = model.extract(panel).factor_returns[n_periods:] @ tangency
            sharpe[gamma].append(later.mean() / later.std())
    assert np.mean(shares[0.0]) < 0.2 < 0.4 < np.mean(shares[20.0])
    assert np.mean(sharpe[20.0]) > 1.5 * np.mean(sharpe[0.0])  # out of sample


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("scaled", [False, True])
def test_three_factors_are_recovered(missing, scaled):
    truth = static_panel(n_periods=300, n_assets=80, n_factors=3, noise=0.002, missing=missing, seed=4)
    model, summary = fitted(truth.panel, scale_by_volatility=scaled)
    assert summary.converged
    assert subspace_angle(model.estimates.loadings, np.linalg.qr(truth.loadings)[0]) < 0.02
    found = model.extract(truth.panel).factor_returns
    rotation = np.linalg.lstsq(truth.factors, found)[0]
    assert np.abs(truth.factors @ rotation - found).max() < 0.05 * found.std()


# ------------------------------------------------------------------------------------ missing cells


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("scaled", [False, True])
def test_hidden_cells_of_a_noise_free_panel_are_reconstructed(gamma, scaled):
    truth = static_panel(n_periods=120, n_assets=40, n_factors=3, noise=0.0, missing=0.3, seed=2)
    hidden = ~truth.panel.observed
    assert 0.25 < hidden.mean() < 0.35
    model, summary = fitted(truth.panel, gamma=gamma, scale_by_volatility=scaled, tolerance=1e-11)
    assert summary.converged
    size = np.sqrt(np.mean(truth.expected**2))
    error = model.extract(truth.panel).reconstruction() - truth.expected
    assert np.abs(error).max() < 1e-10 * size
    filled, _ = fitted(truth.panel.with_values(np.nan_to_num(truth.panel.values)), gamma=gamma)
    wrong = filled.extract(truth.panel).reconstruction()
    assert np.sqrt(np.mean((wrong - truth.expected)[hidden] ** 2)) > 0.05 * size


@pytest.mark.parametrize("gamma", [-0.5, 2.0, 10.0])
def test_both_steps_are_exact_minimisers(gamma):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 7))
    values[rng.uniform(size=values.shape) < 0.25] = np.nan
    mask = np.isfinite(values).astype(float)
    filled, b = np.nan_to_num(values), np.linalg.qr(rng.normal(size=(7, 2)))[0]
    factors, value = penalised_factor_step(filled, mask, b, gamma)
    assert value == pytest.approx(objective(values, factors, b, gamma), rel=1e-12)
    numeric = scipy.optimize.minimize(lambda f: objective(values, f.reshape(12, 2), b, gamma), np.zeros(24))
    assert value <= numeric.fun + 1e-9
    np.testing.assert_allclose(factors.ravel(), numeric.x, atol=2e-4)
    loadings = penalised_loading_step(filled, mask, factors, gamma)
    numeric = scipy.optimize.minimize(
        lambda each: objective(values, factors, each.reshape(7, 2), gamma), b.ravel()
    )
    np.testing.assert_allclose(loadings.ravel(), numeric.x, atol=2e-4)
    # more assets than period-factors: the other side of the same identity
    wide, wide_mask = np.hstack([filled] * 5), np.hstack([mask] * 5)
    stacked, _ = penalised_factor_step(wide, wide_mask, np.vstack([b] * 5), gamma)
    np.testing.assert_allclose(stacked, factors, atol=1e-11)


@pytest.mark.parametrize("gamma", [-0.5, 10.0])
def test_the_fit_beats_a_general_minimiser_from_many_starts(gamma):
    rng = np.random.default_rng(1)
    truth = static_panel(n_periods=20, n_assets=8, n_factors=2, noise=0.03, missing=0.2, seed=6)
    values = truth.panel.wide()
    mask = np.isfinite(values).astype(float)

    def profile(flat):
        basis = np.linalg.qr(flat.reshape(8, 2))[0]
        return penalised_factor_step(np.nan_to_num(values), mask, basis, gamma)[1] / np.nansum(values**2)

    best = min(scipy.optimize.minimize(profile, rng.normal(size=16)).fun for _ in range(4))
    found = fit_penalised_als(values, 2, gamma, tolerance=1e-10, max_iterations=5000)
    assert found.converged
    assert profile(found.parameters.ravel()) <= best + 1e-9
    assert np.all(np.diff(found.objective_path) <= 1e-12)


def test_the_iteration_meets_its_closed_forms():
    complete = static_panel(n_periods=40, n_assets=12, n_factors=2, noise=0.03, seed=6).panel
    values = complete.wide()
    iterated = fit_penalised_als(values, 2, 10.0, tolerance=1e-11, max_iterations=5000).parameters
    assert subspace_angle(iterated, fitted(complete, 2)[0].estimates.loadings) < 1e-10
    holes = complete.mask(np.random.default_rng(0).uniform(size=complete.n_rows) < 0.2).wide()
    plain = fit_als(holes, 2, tolerance=1e-12).loadings
    weightless = fit_penalised_als(holes, 2, 0.0, tolerance=1e-12, max_iterations=5000).parameters
    assert subspace_angle(plain, weightless) < 1e-10
    _, summary = fitted(complete.mask(np.arange(complete.n_rows) % 5 == 0), 2, max_iterations=3)
    assert not summary.converged
    assert "raise max_iterations" in summary.warnings[0]


# ------------------------------------------------------------------------------------ identification


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("scaled", [False, True])
def test_identification_is_as_declared(gamma, missing, scaled):
    truth = static_panel(n_periods=90, n_assets=30, n_factors=3, noise=0.03, missing=missing, seed=8)
    model, _ = fitted(truth.panel, gamma=gamma, scale_by_volatility=scaled)
    found = model.estimates
    b = found.loadings / found.scale[:, None]
    np.testing.assert_allclose(b.T @ b, np.eye(3), atol=1e-12)
    values = truth.panel.wide() / found.scale
    f = np.array([np.linalg.lstsq(b[np.isfinite(r)], r[np.isfinite(r)])[0] for r in values])
    np.testing.assert_allclose(model.extract(truth.panel).factor_returns, f, atol=1e-10)
    moment = f.T @ f / 90 + gamma * np.outer(f.mean(axis=0), f.mean(axis=0))
    np.testing.assert_allclose(moment, np.diag(found.eigenvalues), atol=1e-11 * moment[0, 0])
    assert np.all(np.diff(found.eigenvalues) < 0)
    assert np.all(found.factor_mean >= 0)
    np.testing.assert_allclose(found.factor_mean, f.mean(axis=0), atol=1e-12)


def test_scaling_by_volatility_keeps_units_and_leaves_out_what_stands_still():
    truth = static_panel(n_periods=60, n_assets=12, n_factors=2, noise=0.02, seed=3)
    values = truth.panel.wide().copy()
    values[:, 4] = 0.1
    values[:, 5] *= 100
    model, summary = fitted(panel_of(values), 2, scale_by_volatility=True)
    assert summary.warnings == ("1 asset with constant values: no volatility to scale by, no loadings",)
    assert np.isnan(model.estimates.loadings[4]).all()
    assert np.isfinite(np.delete(model.estimates.loadings, 4, axis=0)).all()
    # the volatile asset does not dominate
    assert np.abs(model.estimates.loadings / model.estimates.scale[:, None])[5].max() < 0.6
    weights = model.factor_weights(panel_of(values))
    np.testing.assert_allclose(
        weights.returns(values.ravel()), model.extract(panel_of(values)).factor_returns, atol=1e-12
    )
    with pytest.raises(InsufficientDataError, match="no asset's values vary"):
        fitted(panel_of(np.full((10, 3), 0.1)), 1, scale_by_volatility=True)
    scale, still = volatility_scale(values, wanted=False)
    np.testing.assert_array_equal(scale, 1.0)
    assert not still.any()


def test_maximal_sharpe_ratio():
    mean, covariance = np.array([0.3, 0.4]), np.diag([1.0, 4.0])
    assert maximal_sharpe_ratio(mean, covariance) == pytest.approx(np.sqrt(0.09 + 0.04))
    assert maximal_sharpe_ratio(np.zeros(2), np.zeros((2, 2))) == 0.0


# ------------------------------------------------------------------------------------ behaviour


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("factor", [2.0**20, 1e-4, 1e6])
@pytest.mark.parametrize("scaled", [False, True])
def test_scale_free(missing, factor, scaled):
    panel = static_panel(n_periods=60, n_assets=20, n_factors=2, missing=missing, seed=1).panel
    changed = panel.with_values(panel.values * factor)
    options = {"scale_by_volatility": scaled, "tolerance": 1e-12}
    one, two = fitted(panel, 2, **options)[0], fitted(changed, 2, **options)[0]
    np.testing.assert_allclose(two.estimates.loadings, one.estimates.loadings, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(two.estimates.eigenvalues, one.estimates.eigenvalues * factor**2, rtol=1e-9)
    assert two.estimates.sharpe_ratio == pytest.approx(one.estimates.sharpe_ratio, rel=1e-9)
    here, there = one.extract(panel).factor_returns, two.extract(changed).factor_returns
    np.testing.assert_allclose(there, here * factor, rtol=1e-8, atol=factor * 1e-10)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_permuting_assets_permutes_the_answer(missing):
    panel = static_panel(n_periods=60, n_assets=20, n_factors=2, missing=missing, seed=1).panel
    order = np.random.default_rng(0).permutation(20)
    one = fitted(panel, 2, tolerance=1e-12)[0]
    two = fitted(panel.select(panel.assets[order]), 2, tolerance=1e-12)[0]
    np.testing.assert_allclose(two.estimates.loadings, one.estimates.loadings[order], atol=1e-10)


def test_later_values_change_no_earlier_factor_or_loading_by_a_bit():
    panel = static_panel(n_periods=60, n_assets=15, n_factors=2, missing=0.1, seed=1).panel
    model, _ = fitted(panel.between(0, 40), 2)
    values = np.array(panel.values)
    values[panel.index.period_codes >= 50] *= -3
    before, after = model.extract(panel), model.extract(panel.with_values(values))
    np.testing.assert_array_equal(after.factor_returns[:50], before.factor_returns[:50])
    np.testing.assert_array_equal(
        model.extract(panel.between(0, 50)).factor_returns, before.factor_returns[:50]
    )
    np.testing.assert_array_equal(after.asset_betas, before.asset_betas)
    # no history is needed: a gap after training is no error
    np.testing.assert_array_equal(
        model.extract(panel.between(45, 60)).factor_returns, before.factor_returns[45:]
    )


def test_live_periods_new_assets_and_strangers():
    truth = static_panel(n_periods=60, n_assets=12, n_factors=2, live=2, seed=1)
    model, _ = fitted(truth.panel.select(truth.panel.assets[:10]), 2)
    state = model.extract(truth.panel)
    assert state.n_realised == 60
    np.testing.assert_array_equal(np.isnan(state.asset_betas).any(axis=(0, 2)), [False] * 10 + [True] * 2)
    assert state.metadata == {"n_assets_without_loadings": 2, "n_periods_without_factors": 0}
    assert np.isnan(state.factor_returns[60:]).all()
    assert np.isfinite(state.measurement.residual_variance).all()
    weights = model.factor_weights(truth.panel)
    assert np.isfinite(weights.weights).all()
    np.testing.assert_array_equal(weights.weights[truth.panel.asset_codes >= 10], 0.0)
    strangers = panel_of(np.ones((5, 3)), ["X", "Y", "Z"])
    with pytest.raises(UnknownAssetsError, match="RPPCAModel"):
        model.extract(strangers)
    with pytest.raises(MissingCapabilityError):
        model.smooth(truth.panel)
    # a live tail is not in the fit
    again, _ = fitted(truth.panel.select(truth.panel.assets[:10]).between(0, 60), 2)
    np.testing.assert_array_equal(again.estimates.loadings, model.estimates.loadings)


def test_thin_periods_and_short_lived_assets_are_counted():
    values = static_panel(n_periods=80, n_assets=30, n_factors=3, noise=0.05, seed=5).panel.wide().copy()
    values[10, 5:] = np.nan
    values[5:, 0] = np.nan
    model, summary = fitted(panel_of(values))
    assert summary.warnings == (
        "1 asset with fewer than 6 values: no loadings",
        "1 period with fewer than 6 observed assets: no factors",
    )
    assert np.isnan(model.estimates.loadings[0]).all()
    assert np.isnan(model.estimates.alpha[0])
    assert np.isnan(model.extract(panel_of(values)).factor_returns[10]).all()


@pytest.mark.parametrize(
    "forecaster",
    [
        ExpandingMeanFactorForecaster(),
        EWMAFactorForecaster(half_life=24),
        RollingMeanFactorForecaster(window=36),
        AR1FactorForecaster(),
        VARFactorForecaster(lags=1),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_pipeline_runs_with_every_forecaster_and_is_saved_exactly(forecaster, tmp_path):
    truth = static_panel(
        n_periods=120, n_assets=20, n_factors=2, premia=(0.05, 0.03), missing=0.1, live=1, seed=1
    )
    pipeline = LatentFactorForecastPipeline(
        model=RPPCAModel(RPPCAConfig(n_factors=2, scale_by_volatility=True)),
        forecaster=forecaster,
        mapper=BetaLambdaMapper(),
    )
    pipeline.fit(truth.panel.between(0, 100))
    forecast = pipeline.predict(truth.panel, start=truth.panel.times[100]).asset_forecast.wide()
    assert np.isfinite(forecast).all()
    if isinstance(forecaster, ExpandingMeanFactorForecaster):
        assert np.corrcoef(forecast[-1], truth.loadings @ truth.premia)[0, 1] > 0.95
    pipeline.save(tmp_path / "it")
    loaded = LatentFactorForecastPipeline.load(tmp_path / "it")
    again = loaded.predict(truth.panel, start=truth.panel.times[100]).asset_forecast.wide()
    np.testing.assert_array_equal(again, forecast)


@pytest.mark.parametrize("shape", [(200, 12), (9, 30)])
def test_too_many_factors(shape):
    values = np.random.default_rng(0).normal(size=shape)
    limit = min(shape)
    fitted(panel_of(values), limit)
    with pytest.raises(InsufficientDataError, match=rf"n_factors={limit + 1} exceeds min\(T, N\)={limit} of"):
        fitted(panel_of(values), limit + 1)


def test_degenerate_values():
    zero, _ = fitted(panel_of(np.zeros((20, 3))), 2)
    np.testing.assert_array_equal(zero.extract(panel_of(np.zeros((20, 3)))).factor_returns, 0.0)
    constant, _ = fitted(panel_of(np.full((20, 3), 2.0)), 1)
    np.testing.assert_allclose(constant.estimates.loadings, 3**-0.5)
    rank_two = static_panel(n_periods=50, n_assets=10, n_factors=2, noise=0.0, missing=0.1, seed=1)
    model, _ = fitted(rank_two.panel, 3)
    assert np.isfinite(model.estimates.loadings).all()
    np.testing.assert_allclose(model.extract(rank_two.panel).reconstruction(), rank_two.expected, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"n_factors": 0},
        {"n_factors": True},
        {"n_factors": 2.0},
        {"n_factors": 2, "gamma": -1.5},
        {"n_factors": 2, "gamma": np.nan},
        {"n_factors": 2, "gamma": np.inf},
        {"n_factors": 2, "min_observed": 1},
        {"n_factors": 2, "tolerance": 0.0},
        {"n_factors": 2, "max_iterations": 0},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigurationError):
        RPPCAConfig(**options)
