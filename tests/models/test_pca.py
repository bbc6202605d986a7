"""PCAModel: recovery, missing cells, identification, and what happens at the edges of the data."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import (
    BetaLambdaMapper,
    ExpandingMeanFactorForecaster,
    LatentFactorForecastPipeline,
    Panel,
    PCAConfig,
    PCAModel,
)
from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
    NotFittedError,
    PanelError,
    PanelMismatchError,
    UnknownAssetsError,
)
from latentfactors.kernels.linalg import subspace_angle
from latentfactors.kernels.rotation import match_signed_permutation, principal_rotation
from latentfactors.simulate import static_panel

VARIANTS = [{}, {"demean": True}, {"probabilistic": True}, {"probabilistic": True, "demean": True}]
names_of = "-".join


def fitted(panel, n_factors=3, **options):
    model = PCAModel(PCAConfig(n_factors=n_factors, **options))
    summary = model.fit(panel)
    return model, summary


def months(n, start="2000-01"):
    ends = (np.datetime64(start, "M") + np.arange(1, n + 1).astype("timedelta64[M]")).astype(
        "datetime64[D]"
    ) - np.timedelta64(1, "D")
    return ends


def panel_of(values, assets=None, start="2000-01"):
    return Panel.from_wide(
        values, universe="all", times=months(len(values), start), assets=assets, frequency="M"
    )


def _imputing_objective(values, n_factors, n_iterations):
    """EM-PCA, slow and obvious: fill the holes with the fit, decompose, repeat."""
    observed = np.isfinite(values)
    fit = np.zeros(values.shape)
    for _ in range(n_iterations):
        _, vectors = np.linalg.eigh(np.where(observed, values, fit).T @ np.where(observed, values, fit))
        axes = vectors[:, -n_factors:]
        fit = np.where(observed, values, fit) @ axes @ axes.T
    return float(np.sum((values - fit)[observed] ** 2))


# ------------------------------------------------------------------------------------ recovery


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_three_factors_are_recovered(options, missing):
    truth = static_panel(n_periods=300, n_assets=80, n_factors=3, noise=0.002, missing=missing, seed=4)
    model, summary = fitted(truth.panel, **options)
    assert summary.converged
    assert subspace_angle(model.estimates.loadings, np.linalg.qr(truth.loadings)[0]) < 0.02
    centre = truth.factors.mean(axis=0) if options.get("demean") else 0.0
    rotation = principal_rotation(truth.loadings, truth.factors - centre)[1]
    found, wanted = model.extract(truth.panel).factor_returns, truth.factors @ rotation
    order, signs = match_signed_permutation(found, wanted, centred=False)
    np.testing.assert_array_equal(order, [0, 1, 2])  # the order is identified, only signs are free
    error = np.abs(found * signs - wanted).max(axis=0) / wanted.std(axis=0)
    assert error.max() < 0.05


def test_hidden_cells_of_a_noise_free_panel_are_reconstructed():
    truth = static_panel(n_periods=120, n_assets=40, n_factors=3, noise=0.0, missing=0.3, seed=2)
    hidden = ~truth.panel.observed
    assert 0.25 < hidden.mean() < 0.35
    state = fitted(truth.panel)[0].extract(truth.panel)
    size = np.sqrt(np.mean(truth.expected**2))
    assert np.abs(state.reconstruction() - truth.expected)[hidden].max() < 1e-10 * size
    # a PCA that takes missing for zero misses by a tenth and more, so this test can fail
    filled, _ = fitted(truth.panel.with_values(np.nan_to_num(truth.panel.values)))
    wrong = filled.extract(truth.panel).reconstruction()
    assert np.sqrt(np.mean((wrong - truth.expected)[hidden] ** 2)) > 0.05 * size


def test_the_fit_is_at_least_as_good_as_long_em():
    truth = static_panel(n_periods=80, n_assets=25, n_factors=3, noise=0.03, missing=0.3, seed=6)
    model, summary = fitted(truth.panel)
    residual = truth.panel.values - model.extract(truth.panel).reconstruction()
    sse = np.nansum(residual**2)
    assert sse <= _imputing_objective(truth.panel.wide(), 3, 3000) * (1 + 1e-9)
    assert summary.objective_name == "SSE / SST of observed cells"
    assert summary.objective[-1] == pytest.approx(sse / np.nansum(truth.panel.values**2), rel=1e-9)
    assert np.all(np.diff(summary.objective) <= 1e-12)
    assert summary.metrics["total_r2"] == pytest.approx(1 - summary.objective[-1], rel=1e-9)


@pytest.mark.parametrize("shape", [(25, 60), (90, 30)], ids=["T<N", "T>N"])
@pytest.mark.parametrize("demean", [False, True])
@pytest.mark.parametrize("probabilistic", [False, True])
def test_complete_data_agree_with_an_eigendecomposition(shape, demean, probabilistic):
    truth = static_panel(n_periods=shape[0], n_assets=shape[1], n_factors=3, noise=0.02, seed=7)
    values = truth.panel.wide()
    used = values - values.mean(axis=0) if demean else values
    eigenvalues, vectors = np.linalg.eigh(used.T @ used / len(used))
    basis = vectors[:, ::-1][:, :3]
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(3)])
    model, _ = fitted(truth.panel, demean=demean, probabilistic=probabilistic)
    np.testing.assert_allclose(model.estimates.loadings, basis, atol=1e-10)
    if probabilistic:
        noise = eigenvalues[:-3].sum() / (shape[1] - 3)
        assert model.estimates.noise_variance == pytest.approx(noise, rel=1e-8)
    else:
        np.testing.assert_allclose(model.extract(truth.panel).factor_returns, values @ basis, atol=1e-12)
        assert np.isnan(model.estimates.noise_variance)


# ------------------------------------------------------------------------------------ identification


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_identification_is_as_declared(options, missing):
    truth = static_panel(n_periods=90, n_assets=30, n_factors=3, noise=0.03, missing=missing, seed=8)
    model, _ = fitted(truth.panel, **options)
    b, found = model.estimates.loadings, model.estimates
    np.testing.assert_allclose(b.T @ b, np.eye(3), atol=1e-12)
    assert np.all(b[np.abs(b).argmax(axis=0), np.arange(3)] > 0)
    # least-squares factors, by hand
    factors = np.array([np.linalg.lstsq(b[np.isfinite(r)], r[np.isfinite(r)])[0] for r in truth.panel.wide()])
    if options.get("demean"):
        factors = factors - factors.mean(axis=0)
        np.testing.assert_allclose(factors.T @ factors / 90, found.factor_covariance, atol=1e-14)
    moment = factors.T @ factors / 90
    np.testing.assert_allclose(moment - np.diag(np.diag(moment)), 0, atol=1e-11 * moment[0, 0])
    assert np.all(np.diff(np.diag(moment)) < 0)


def test_demean_changes_the_loadings_only():
    truth = static_panel(n_periods=60, n_assets=20, n_factors=2, premia=(0.2, 0.1), seed=3)
    plain, centred = fitted(truth.panel, 2)[0], fitted(truth.panel, 2, demean=True)[0]
    assert np.abs(plain.estimates.loadings - centred.estimates.loadings).max() > 1e-3
    state = centred.extract(truth.panel)
    assert np.abs(state.factor_returns.mean(axis=0)).min() > 0.02  # factors keep their mean, the premium
    np.testing.assert_array_equal(state.measurement.location, 0.0)
    np.testing.assert_array_equal(state.measurement.scale, 1.0)
    np.testing.assert_allclose(
        state.factor_returns, truth.panel.wide() @ centred.estimates.loadings, atol=1e-12
    )


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_alpha_only_if_asked_and_then_the_unexplained_mean(options):
    truth = static_panel(n_periods=60, n_assets=20, n_factors=2, seed=3)
    shifted = truth.panel.with_values(truth.panel.values + 0.01 * (truth.panel.asset_codes % 3))
    assert fitted(shifted, 2, **options)[0].extract(shifted).measurement.alpha is None
    model, _ = fitted(shifted, 2, alpha=True, **options)
    state = model.extract(shifted)
    b, wide = model.estimates.loadings, shifted.wide()
    expected = wide.mean(axis=0) - b @ state.factor_returns.mean(axis=0)
    np.testing.assert_allclose(model.estimates.alpha, expected, atol=1e-12)
    np.testing.assert_allclose(state.measurement.alpha, expected[shifted.asset_codes], atol=1e-12)
    assert np.abs(expected).max() > 1e-3


# ------------------------------------------------------------------------------------ probabilistic


def test_probabilistic_factors_know_their_uncertainty_and_keep_their_mean():
    truth = static_panel(n_periods=400, n_assets=30, n_factors=2, noise=0.08, premia=(0.05, 0.02), seed=1)
    model, summary = fitted(truth.panel, 2, probabilistic=True)
    assert summary.loglikelihood is not None
    assert model.estimates.noise_variance == pytest.approx(0.08**2, rel=0.05)
    state = model.extract(truth.panel)
    # the premium is not shrunk: posterior factors have the training mean
    np.testing.assert_allclose(state.factor_returns.mean(axis=0), model.estimates.factor_mean, atol=1e-14)
    exact = truth.panel.wide() @ model.estimates.loadings
    np.testing.assert_allclose(exact.mean(axis=0), model.estimates.factor_mean, atol=1e-14)
    assert np.all(state.factor_returns.std(axis=0) < exact.std(axis=0))  # each realisation is
    # dense formula for one period with some cells missing
    values = truth.panel.wide().copy()
    values[5, 10:] = np.nan
    b, s2 = model.estimates.loadings[:10], model.estimates.noise_variance
    prior = model.estimates.factor_covariance
    cov = np.linalg.inv(np.linalg.inv(prior) + b.T @ b / s2)
    mean = model.estimates.factor_mean + cov @ b.T @ (values[5, :10] - b @ model.estimates.factor_mean) / s2
    state = model.extract(panel_of(values, truth.panel.assets, "1990-01"))
    np.testing.assert_allclose(state.factors.covariance[5], cov, rtol=1e-9)
    np.testing.assert_allclose(state.factor_returns[5], mean, rtol=1e-9)


# ------------------------------------------------------------------------------------ edges of the data


def test_new_assets_get_no_loadings_and_are_counted():
    truth = static_panel(n_periods=60, n_assets=12, n_factors=2, seed=1)
    model, _ = fitted(truth.panel.select(truth.panel.assets[:10]), 2)
    state = model.extract(truth.panel)
    missing = np.isnan(state.asset_betas).any(axis=(0, 2))
    np.testing.assert_array_equal(missing, [False] * 10 + [True] * 2)
    assert state.metadata["n_assets_without_loadings"] == 2
    assert np.isfinite(state.factor_returns).all()
    assert np.isfinite(state.measurement.residual_variance).all()  # pooled
    # factors are those of the known assets alone
    known = model.extract(truth.panel.select(truth.panel.assets[:10])).factor_returns
    np.testing.assert_array_equal(state.factor_returns, known)


def test_no_known_asset_is_an_error():
    truth = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1)
    model, _ = fitted(truth.panel, 2)
    with pytest.raises(UnknownAssetsError, match="none of the panel's assets"):
        model.extract(panel_of(truth.panel.wide(), [f"X{i}" for i in range(10)]))
    with pytest.raises(UnknownAssetsError):  # integers where text was
        model.extract(panel_of(truth.panel.wide(), range(10)))


def test_labels_without_rows_in_training_count_as_new():
    # a training view keeps the whole panel's labels; an asset that joins later is new all the same
    wide = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel.wide()
    mask = np.ones(wide.shape, dtype=bool)
    mask[:40, 8:] = False
    panel = Panel.from_wide(wide, universe=mask, times=months(60), frequency="M")
    model, summary = fitted(panel.between(0, 40), 2)
    assert summary.warnings == ()
    assert model.estimates.assets.tolist() == list(range(8))
    with pytest.raises(UnknownAssetsError):
        model.extract(panel.between(40, 60).select([8, 9]))


def test_live_period_gets_loadings_and_no_factors():
    truth = static_panel(n_periods=60, n_assets=10, n_factors=2, live=2, seed=1)
    model, _ = fitted(truth.panel, 2)
    state = model.extract(truth.panel)
    assert state.n_realised == 60
    assert np.isfinite(state.asset_betas[60:]).all()
    assert np.isnan(state.factor_returns[60:]).all()
    assert np.isfinite(state.factor_returns[:60]).all()
    assert state.metadata["n_periods_without_factors"] == 0


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_fit_does_not_see_the_live_tail(options):
    truth = static_panel(n_periods=60, n_assets=10, n_factors=2, live=3, missing=0.1, seed=1)
    with_tail, without = (
        fitted(truth.panel, 2, **options)[0],
        fitted(truth.panel.between(0, 60), 2, **options)[0],
    )
    np.testing.assert_array_equal(with_tail.estimates.loadings, without.estimates.loadings)
    assert with_tail.fitted.span == without.fitted.span
    assert str(with_tail.fitted.span.end) == "1994-12-31"


@pytest.mark.parametrize("probabilistic", [False, True])
def test_thin_periods_have_no_factors_and_poison_nothing(probabilistic):
    truth = static_panel(n_periods=80, n_assets=60, n_factors=3, noise=0.05, seed=5)
    values = truth.panel.wide().copy()
    values[10, 5:] = np.nan  # five assets for three factors: below 2K
    values[11, 3:] = np.nan  # as many assets as factors: exactly identified noise
    values[12] = np.nan
    model, summary = fitted(panel_of(values), 3, probabilistic=probabilistic)
    assert "3 periods with fewer than 6 observed assets: no factors" in summary.warnings
    state = model.extract(panel_of(values))
    assert np.isnan(state.factor_returns[10:13]).all()
    assert np.isfinite(np.delete(state.factor_returns, slice(10, 13), axis=0)).all()
    assert state.metadata["n_periods_without_factors"] == 3
    kept = np.delete(values, slice(10, 13), axis=0)
    other, _ = fitted(panel_of(kept), 3, probabilistic=probabilistic)
    np.testing.assert_allclose(model.estimates.loadings, other.estimates.loadings, atol=1e-10)
    np.testing.assert_allclose(model.estimates.factor_mean, other.estimates.factor_mean, atol=1e-12)


def test_min_observed_can_be_set():
    values = static_panel(n_periods=80, n_assets=20, n_factors=2, seed=5).panel.wide().copy()
    values[10, 3:] = np.nan
    assert np.isnan(fitted(panel_of(values), 2)[0].extract(panel_of(values)).factor_returns[10]).all()
    lenient = fitted(panel_of(values), 2, min_observed=2)[0].extract(panel_of(values))
    assert np.isfinite(lenient.factor_returns[10]).all()
    with pytest.raises(ConfigurationError, match=r"min_observed=1 cannot identify 2 factors"):
        PCAConfig(n_factors=2, min_observed=1)


def test_collinear_cross_section_has_no_factors():
    truth = static_panel(n_periods=80, n_assets=20, n_factors=2, seed=5)
    model, _ = fitted(truth.panel, 2)
    loadings = model.estimates.loadings
    # one factor only is in sight of these assets
    from dataclasses import replace

    flat = np.outer(loadings[:, 0], [1.0, 0.3])
    crossed = np.where(np.arange(20)[:, None] < 10, flat, loadings)
    crooked = replace(model.estimates, loadings=crossed)
    values = truth.panel.wide().copy()
    values[3, 10:] = np.nan
    state = model._extract(panel_of(values, truth.panel.assets), crooked)
    assert np.isnan(state.factor_returns[3]).all()
    assert np.isfinite(state.factor_returns[4]).all()


def test_short_lived_assets_get_no_loadings_and_are_counted():
    values = static_panel(n_periods=60, n_assets=20, n_factors=3, seed=5).panel.wide().copy()
    values[5:, 0] = np.nan  # five values, 2K = 6
    values[6:, 1] = np.nan
    model, summary = fitted(panel_of(values), 3)
    assert summary.warnings == (
        "1 asset with fewer than 15 useful values: loadings drawn to those of the others",
        "1 asset with fewer than 6 values: no loadings",
    )
    assert np.isnan(model.estimates.loadings[0]).all()
    assert np.isfinite(model.estimates.loadings[1:]).all()
    assert np.isnan(model.estimates.residual_variance[0])
    # its values are in no factor
    state = model.extract(panel_of(values))
    values[:5, 0] = 1e3
    np.testing.assert_array_equal(model.extract(panel_of(values)).factor_returns, state.factor_returns)


def test_values_in_thin_periods_do_not_count():
    values = static_panel(n_periods=60, n_assets=20, n_factors=3, seed=5).panel.wide().copy()
    values[:5, 5:] = np.nan  # thin periods: five of twenty assets
    values[7:, 0] = np.nan  # seven values, five of them in thin periods
    model, summary = fitted(panel_of(values), 3)
    assert np.isnan(model.estimates.loadings[0]).all()
    assert set(summary.warnings) == {
        "1 asset with fewer than 6 values: no loadings",
        "5 periods with fewer than 6 observed assets: no factors",
    }


def test_all_nan_periods_inside_are_no_zero_factors():
    truth = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1)
    values = truth.panel.wide().copy()
    values[20:30] = np.nan
    model, _ = fitted(panel_of(values), 2)
    state = model.extract(panel_of(values))
    assert np.isnan(state.factor_returns[20:30]).all()
    np.testing.assert_allclose(
        model.estimates.factor_mean, np.delete(state.factor_returns, slice(20, 30), axis=0).mean(axis=0)
    )


@pytest.mark.parametrize("shape", [(200, 12), (9, 30)])
def test_too_many_factors(shape):
    values = np.random.default_rng(0).normal(size=shape)
    limit = min(shape)
    fitted(panel_of(values), limit)
    with pytest.raises(InsufficientDataError, match=rf"n_factors={limit + 1} exceeds min\(T, N\)={limit} of"):
        fitted(panel_of(values), limit + 1)


def test_one_factor_one_asset_and_constant_values():
    rng = np.random.default_rng(0)
    model, _ = fitted(panel_of(rng.normal(size=(20, 1))), 1)
    np.testing.assert_allclose(model.estimates.loadings, [[1.0]])
    model, summary = fitted(panel_of(np.full((20, 3), 2.0)), 1)
    np.testing.assert_allclose(np.abs(model.estimates.loadings), 3**-0.5)
    assert summary.metrics["total_r2"] == pytest.approx(1.0)
    zero, _ = fitted(panel_of(np.zeros((20, 3))), 2)
    np.testing.assert_array_equal(zero.extract(panel_of(np.zeros((20, 3)))).factor_returns, 0.0)


def test_rank_below_the_number_of_factors_stays_finite():
    truth = static_panel(n_periods=50, n_assets=10, n_factors=2, noise=0.0, seed=1)
    for options in VARIANTS:
        model, _ = fitted(truth.panel, 3, **options)
        np.testing.assert_allclose(
            model.estimates.loadings.T @ model.estimates.loadings, np.eye(3), atol=1e-10
        )
        np.testing.assert_allclose(model.extract(truth.panel).reconstruction(), truth.expected, atol=1e-6)


# ------------------------------------------------------------------------------------ behaviour


def test_factor_weights_reproduce_the_factors_of_complete_data():
    truth = static_panel(n_periods=40, n_assets=15, n_factors=3, live=1, seed=1)
    model, _ = fitted(truth.panel, 3)
    weights = model.factor_weights(truth.panel)
    assert weights.weights.shape == (truth.panel.n_rows, 3)
    assert np.isfinite(weights.weights).all()  # the live period can be bought
    returns = weights.returns(truth.panel.values)
    np.testing.assert_allclose(returns[:40], model.extract(truth.panel).factor_returns[:40], atol=1e-13)
    assert np.isnan(returns[40]).all()


def test_factor_weights_follow_the_universe():
    wide = static_panel(n_periods=40, n_assets=15, n_factors=2, seed=1).panel.wide()
    mask = np.ones(wide.shape, dtype=bool)
    mask[30, 6:] = False
    mask[31, 3:] = False
    panel = Panel.from_wide(wide, universe=mask, times=months(40), frequency="M")
    model, _ = fitted(panel, 2)
    returns = model.factor_weights(panel).returns(panel.values)
    state = model.extract(panel)
    np.testing.assert_allclose(returns, state.factor_returns, atol=1e-12)
    assert np.isnan(returns[31]).all()


def test_the_pipeline_forecasts_the_premium_and_not_zero():
    truth = static_panel(n_periods=240, n_assets=30, n_factors=2, premia=(0.05, 0.03), noise=0.02, seed=1)
    for demean in (False, True):
        pipeline = LatentFactorForecastPipeline(
            model=PCAModel(PCAConfig(n_factors=2, demean=demean)),
            forecaster=ExpandingMeanFactorForecaster(),
            mapper=BetaLambdaMapper(),
        )
        pipeline.fit(truth.panel.between(0, 200))
        forecast = pipeline.predict(truth.panel, start=truth.panel.times[200]).asset_forecast.wide()
        expected = truth.loadings @ truth.premia
        np.testing.assert_allclose(forecast[-1], expected, atol=0.02)
        assert np.corrcoef(forecast[-1], expected)[0, 1] > 0.95
        assert np.abs(forecast).max() > 0.05


def test_missing_returns_are_not_zeros():
    truth = static_panel(n_periods=300, n_assets=40, n_factors=2, noise=0.0, missing=0.3, seed=9)
    state = fitted(truth.panel, 2)[0].extract(truth.panel)
    fit = state.reconstruction()
    slope = fit @ truth.expected / (truth.expected @ truth.expected)
    assert slope == pytest.approx(1.0, abs=1e-9)  # the peer's is .75
    for p in range(2):
        x, y = state.factor_returns[:, p], fitted(truth.panel.with_values(truth.expected), 2)[0]
        complete = y.extract(truth.panel.with_values(truth.expected)).factor_returns[:, p]
        assert abs(x @ complete / (complete @ complete)) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_permuting_assets_permutes_the_answer(options, missing):
    panel = static_panel(n_periods=60, n_assets=20, n_factors=2, missing=missing, seed=1).panel
    order = np.random.default_rng(0).permutation(20)
    one, two = fitted(panel, 2, **options)[0], fitted(panel.select(panel.assets[order]), 2, **options)[0]
    np.testing.assert_allclose(two.estimates.loadings, one.estimates.loadings[order], atol=1e-8)
    np.testing.assert_allclose(
        two.extract(panel.select(panel.assets[order])).factor_returns,
        one.extract(panel).factor_returns,
        atol=1e-9,
    )
    # a fitted model answers a permuted panel alike
    np.testing.assert_allclose(
        one.extract(panel.select(panel.assets[order])).factor_returns, one.extract(panel).factor_returns,
        atol=1e-14,
    )  # fmt: skip


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("factor", [2.0**20, 1e-4, 1e6, 2.0**-13])
def test_scale_free(options, factor):
    panel = static_panel(n_periods=60, n_assets=20, n_factors=2, missing=0.2, seed=1).panel
    scaled = panel.with_values(panel.values * factor)
    one, two = fitted(panel, 2, alpha=True, **options), fitted(scaled, 2, alpha=True, **options)
    np.testing.assert_allclose(two[0].estimates.loadings, one[0].estimates.loadings, rtol=1e-8, atol=1e-9)
    here, there = one[0].extract(panel), two[0].extract(scaled)
    np.testing.assert_allclose(
        there.factor_returns, here.factor_returns * factor, rtol=1e-7, atol=factor * 1e-9
    )
    np.testing.assert_allclose(
        two[0].estimates.residual_variance, one[0].estimates.residual_variance * factor**2, rtol=1e-7
    )
    assert one[1].n_iterations == two[1].n_iterations or not np.log2(factor).is_integer()
    assert two[1].metrics["total_r2"] == pytest.approx(one[1].metrics["total_r2"], rel=1e-8)


@pytest.mark.parametrize("alpha", [False, True])
def test_residual_variance_counts_degrees_of_freedom(alpha):
    truth = static_panel(n_periods=12, n_assets=60, n_factors=2, noise=0.03, missing=0.1, seed=3)
    panel = truth.panel.with_values(truth.panel.values + 0.05 * (truth.panel.asset_codes % 2))
    model, summary = fitted(panel, 2, alpha=alpha)
    residual = panel.index.dense(panel.values - model.extract(panel).reconstruction())
    n = np.isfinite(residual).sum(axis=0)
    expected = np.nansum(residual**2, axis=0) / (n - 2)
    np.testing.assert_allclose(model.estimates.residual_variance, expected, rtol=1e-9)
    assert model.estimates.pooled_residual_variance == pytest.approx(expected.mean())
    r2 = 1 - np.nansum(residual**2) / np.nansum(panel.values**2)
    assert summary.metrics["total_r2"] == pytest.approx(r2)


def test_a_fit_that_runs_out_of_iterations_says_so():
    panel = static_panel(n_periods=60, n_assets=20, n_factors=3, noise=0.05, missing=0.4, seed=1).panel
    for probabilistic in (False, True):
        _, summary = fitted(panel, 3, max_iterations=6, probabilistic=probabilistic)
        assert not summary.converged
        assert summary.reason.startswith("stopped after 6 iterations")
        (remark,) = (text for text in summary.warnings if "not converged" in text)
        assert "raise max_iterations" in remark
        assert "probabilistic=True" in remark
        assert not any(
            "converged" in text for text in fitted(panel, 3, probabilistic=probabilistic)[1].warnings
        )


def test_smooth_is_refused_and_fit_comes_first():
    panel = static_panel(n_periods=30, n_assets=10, n_factors=2, seed=1).panel
    model = PCAModel(PCAConfig(n_factors=2))
    for call in (model.extract, model.smooth, model.factor_weights):
        with pytest.raises(NotFittedError, match="PCAModel is not fitted: call fit first"):
            call(panel)
    with pytest.raises(NotFittedError):
        _ = model.estimates
    model.fit(panel)
    with pytest.raises(MissingCapabilityError, match="PCAModel has no smoother: use extract"):
        model.smooth(panel)
    with pytest.raises(PanelError, match="Panel"):
        model.extract(panel.wide())
    with pytest.raises(ConfigurationError, match=r"checkpoint 7 does not exist, available: \['last'\]"):
        model.extract(panel, 7)
    with pytest.raises(ConfigurationError, match="needs validation"):
        model.extract(panel, "best")


def test_a_panel_prepared_otherwise_is_refused():
    from dataclasses import replace

    panel = static_panel(n_periods=30, n_assets=10, n_factors=2, seed=1).panel
    model, _ = fitted(panel, 2)
    with pytest.raises(PanelMismatchError, match="value_kind"):
        model.extract(replace(panel, value_kind="return"))
    with pytest.raises(PanelMismatchError, match="transforms"):
        model.extract(replace(panel, transforms=("winsorise",)))
    days = np.datetime64("2020-01-01") + np.arange(panel.n_periods).astype("timedelta64[D]")
    with pytest.raises(PanelMismatchError, match="frequency 'M', got 'D'"):
        model.extract(replace(panel, times=days, frequency="D"))


def test_a_failed_fit_keeps_the_old_estimates():
    panel = static_panel(n_periods=30, n_assets=10, n_factors=2, seed=1).panel
    model, _ = fitted(panel, 2)
    before = model.estimates
    with pytest.raises(InsufficientDataError):
        model.fit(panel.between(0, 1))
    assert model.estimates is before
    with pytest.raises(InsufficientDataError, match="observed values"):
        PCAModel(PCAConfig(n_factors=1)).fit(panel.mask(np.ones(panel.n_rows, dtype=bool)))


@pytest.mark.parametrize(
    "options",
    [
        {"n_factors": 0},
        {"n_factors": 2.5},
        {"n_factors": True},
        {"n_factors": 2, "tolerance": 0.0},
        {"n_factors": 2, "tolerance": 1.0},
        {"n_factors": 2, "max_iterations": 0},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigurationError):
        PCAConfig(**options)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_save_and_load_are_exact(options, tmp_path):
    panel = static_panel(n_periods=40, n_assets=10, n_factors=2, missing=0.1, live=1, seed=1).panel
    model, _ = fitted(panel, 2, alpha=True, **options)
    model.save(tmp_path / "pca")
    loaded = PCAModel.load(tmp_path / "pca")
    one, two = model.extract(panel), loaded.extract(panel)
    np.testing.assert_array_equal(one.factor_returns, two.factor_returns)
    np.testing.assert_array_equal(one.reconstruction(), two.reconstruction())
    assert loaded.summary == model.summary
    assert loaded.identity == model.identity


def test_estimates_cannot_be_written_to():
    panel = static_panel(n_periods=30, n_assets=10, n_factors=2, seed=1).panel
    model, _ = fitted(panel, 2)
    with pytest.raises(ValueError, match="read-only"):
        model.estimates.loadings[0] = 0.0
