"""IPCAModel: recovery, identification, updates, alpha, observed factors, and the edges of the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from latentfactors import BetaLambdaMapper, ExpandingMeanFactorForecaster, LatentFactorForecastPipeline, Panel
from latentfactors.errors import (
    ConfigurationError,
    GapError,
    InsufficientDataError,
    NotFittedError,
    PanelMismatchError,
)
from latentfactors.kernels.linalg import subspace_angle
from latentfactors.kernels.rotation import fix_signs, principal_rotation
from latentfactors.kernels.scores import r_squared
from latentfactors.models.ipca import IPCAConfig, IPCAModel
from latentfactors.parquet_statistics import statistics_from_parquet
from latentfactors.simulate import characteristic_panel

VARIANTS = [
    {},
    {"alpha": True},
    {"intercept": True, "alpha": True},
    {"observed": ("MKT",)},
    {"observed": ("MKT", "SMB"), "alpha": True},
    {"weighting": "periods"},
    {"weighting": "panel"},
    {"factor_ridge": 0.1, "gamma_ridge": 0.05},
]


def fitted(panel, n_factors=3, **options):
    model = IPCAModel(IPCAConfig(n_factors=n_factors, **options))
    return model, model.fit(panel)


def simulated(**options):
    defaults = {"n_periods": 120, "n_assets": 60, "n_factors": 3, "n_characteristics": 8, "seed": 4}
    return characteristic_panel(**(defaults | options))


def equipped(panel, seed=0):
    """The same panel with weights and two observed factors."""
    rng = np.random.default_rng(seed)
    market, size = rng.normal(0.01, 0.05, panel.n_periods), rng.normal(0, 0.03, panel.n_periods)
    factors = pl.DataFrame({"time": panel.times, "MKT": market, "SMB": size})
    panel = panel.with_observed_factors(factors, time="time")
    return replace(panel, weights=rng.lognormal(size=panel.n_rows))


# ------------------------------------------------------------------------------------ recovery


@pytest.mark.parametrize("n_factors", [3, 5])
def test_factors_are_recovered_from_an_unbalanced_panel(n_factors):
    truth = simulated(
        n_periods=300, n_assets=150, n_factors=n_factors, n_characteristics=12, noise=0.005, missing=0.2
    )
    model, summary = fitted(truth.panel, n_factors)
    assert summary.converged
    assert summary.warnings == ()
    assert subspace_angle(model.estimates.gamma, truth.gamma) < 0.02
    rotated, turn = principal_rotation(truth.gamma, truth.factors)
    wanted = truth.factors @ turn
    signs = fix_signs(wanted, "mean_nonnegative")
    found = model.extract(truth.panel).factor_returns
    # order and signs are those of the truth, not only its space
    error = np.sqrt(np.mean((found - wanted * signs) ** 2, axis=0)) / wanted.std(axis=0)
    assert error.max() < 0.1
    np.testing.assert_allclose(model.estimates.gamma, truth.gamma @ rotated * signs, atol=0.03)
    assert model.estimates.residual_variance == pytest.approx(0.005**2, rel=0.02)


def test_the_default_tolerance_is_the_solution():
    panel = simulated(noise=0.1, missing=0.3).panel
    model, _ = fitted(panel, n_starts=4)
    exact, summary = fitted(panel, tolerance=1e-12)
    assert subspace_angle(model.estimates.gamma, exact.estimates.gamma) < 1e-9
    assert summary.converged
    assert summary.metrics["gradient_norm"] < 1e-13
    assert 0 < summary.metrics["curvature"] <= 1
    assert model.summary.metrics["start_spread"] < 1e-9
    assert model.summary.metrics["n_starts_agreeing"] == 4
    assert np.all(np.diff(summary.objective) <= 1e-12)
    assert summary.metrics["total_r2"] == pytest.approx(1 - summary.objective[-1], rel=1e-12)


def test_hidden_cells_of_a_noise_free_panel_are_reconstructed():
    truth = simulated(noise=0.0, missing=0.3)
    hidden = ~truth.panel.observed
    state = fitted(truth.panel)[0].extract(truth.panel)
    size = np.sqrt(np.mean(truth.expected**2))
    assert np.abs(state.reconstruction() - truth.expected)[hidden].max() < 1e-10 * size
    filled = truth.panel.with_values(np.nan_to_num(truth.panel.values))
    wrong = fitted(filled)[0].extract(filled).reconstruction()
    assert np.sqrt(np.mean((wrong - truth.expected)[hidden] ** 2)) > 0.05 * size


def grunfeld():
    data = pytest.importorskip("statsmodels.datasets").grunfeld.load_pandas().data
    return Panel.from_frame(
        data.assign(year=data.year.astype(int)), time="year", asset="firm", value="invest",
        characteristics=["value", "capital"], lag=0, value_kind="series",
    )  # fmt: skip


def test_grunfeld_agrees_with_the_ipca_package():
    """Numbers of `ipca` 0.6.7 (statsmodels 0.15.0's Grunfeld data, 11 firms, 1935-1954), recorded with

    InstrumentedPCA(n_factors=K, iter_tol=1e-13, max_iter=100000).fit(X=X, y=y, data_type="panel")
    .get_factors(label_ind=False), X = value, capital[, constant = 1.0], y = invest. Without the constant and
    with K = 2 every Gamma fits; the package's second factor of the last case has a negative mean.
    """
    panel = grunfeld()
    one, _ = fitted(panel, 1)
    np.testing.assert_allclose(one.estimates.gamma[:, 0], [0.991660204153103, 0.128879942190498], rtol=1e-10)
    first_years = [0.103196817565205, 0.088448933730499, 0.083849646961393]
    np.testing.assert_allclose(one.estimates.factors[:3, 0], first_years, rtol=1e-10)

    full, _ = fitted(panel, 2)
    gamma = [[0.969027533945541, -0.246952704895946], [0.246952704895946, 0.969027533945541]]
    np.testing.assert_allclose(full.estimates.gamma, gamma, rtol=1e-9)

    constant, _ = fitted(panel, 1, intercept=True)
    gamma = np.array([0.00989883625568, 0.003214378082425, -0.999945838940453])
    np.testing.assert_allclose(constant.estimates.gamma[:, 0], gamma, atol=1e-8)
    assert constant.estimates.characteristic_names == ("value", "capital", "constant")

    two, summary = fitted(panel, 2, intercept=True)
    assert summary.converged
    gamma = np.array(
        [
            [0.001370506113727, 0.998739300411523],
            [0.003024895678892, -0.050182952848099],
            [-0.999994485844359, 0.001216986830664],
        ]
    )
    np.testing.assert_allclose(np.abs(np.sum(two.estimates.gamma * gamma, axis=0)), 1.0, rtol=1e-12)
    assert subspace_angle(two.estimates.gamma, gamma) < 1e-9


# ------------------------------------------------------------------------------------ identification


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_identification_is_as_declared(options, missing):
    panel = equipped(simulated(missing=missing, noise=0.1).panel)
    model, summary = fitted(panel, **options)
    found = model.estimates
    assert summary.converged
    np.testing.assert_allclose(found.gamma.T @ found.gamma, np.eye(3), atol=1e-13)
    factors = model.extract(panel).factor_returns[:, :3]
    np.testing.assert_allclose(found.factors, factors, rtol=0, atol=1e-12 * np.abs(factors).max())
    moment = factors.T @ factors / len(factors)
    np.testing.assert_allclose(moment - np.diag(np.diag(moment)), 0, atol=1e-12 * moment[0, 0])
    assert np.all(np.diff(np.diag(moment)) < 0)
    assert np.all(factors.mean(axis=0) >= 0)
    for other in (found.gamma_alpha, found.gamma_observed):
        if other is not None:
            assert np.abs(other).max() > 1e-6
            np.testing.assert_allclose(found.gamma.T @ other, 0, atol=1e-14)
    assert (found.gamma_alpha is None) == (not options.get("alpha"))
    assert (found.gamma_observed is None) == ("observed" not in options)
    assert not found.gamma.flags.writeable


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_no_small_change_of_the_solution_fits_better(options):
    """The penalised, weighted sum of squares over rows, with the factors refitted by brute force."""
    panel = equipped(simulated(n_periods=40, n_assets=30, n_characteristics=5, missing=0.2).panel)
    model, _ = fitted(panel, 2, **options)
    found, rng = model.estimates, np.random.default_rng(0)
    Z = panel.characteristics
    if options.get("intercept"):
        Z = np.column_stack([Z, np.ones(panel.n_rows)])
    blocks = []
    for p in range(panel.n_periods):
        rows = panel.index.rows(p)
        seen = np.isfinite(panel.values[rows])
        w = np.ones(seen.sum())
        if options.get("weighting") == "panel":
            w = panel.weights[rows][seen]
            w = w / w.mean()
        if options.get("weighting") == "periods":
            w = w / seen.sum()
        blocks.append((Z[rows][seen], panel.values[rows][seen], w))
    sizes = np.array([np.trace(z.T @ (w[:, None] * z)) / Z.shape[1] for z, _, w in blocks])
    ridge = options.get("factor_ridge", 0) * sizes + options.get("gamma_ridge", 0) * sizes.mean()
    names = options.get("observed", ())
    g = panel.observed_factors[:, [panel.observed_factor_names.index(name) for name in names]]

    def loss(gamma, alpha, observed):
        total = 0.0
        for p, (z, r, w) in enumerate(blocks):
            c = np.zeros(Z.shape[1])
            if alpha is not None:
                c = c + alpha
            if observed is not None:
                c = c + observed @ g[p]
            left = np.vstack([np.sqrt(w)[:, None] * z, np.sqrt(ridge[p]) * np.eye(Z.shape[1])])
            right = np.concatenate([np.sqrt(w) * r, np.zeros(Z.shape[1])]) - left @ c
            f = np.linalg.lstsq(left @ gamma, right)[0]
            total += np.sum((right - left @ gamma @ f) ** 2)
        return total

    best = loss(found.gamma, found.gamma_alpha, found.gamma_observed)
    for size in (1e-2, 1e-4):
        for _ in range(8):
            changed = [
                None if part is None else part + size * np.abs(part).max() * rng.normal(size=part.shape)
                for part in (found.gamma, found.gamma_alpha, found.gamma_observed)
            ]
            assert loss(*changed) > best


def test_alpha_is_found_and_only_if_asked():
    truth = simulated(n_periods=400, n_assets=100, noise=0.02, n_characteristics=6)
    wanted = np.linalg.qr(np.column_stack([truth.gamma, np.random.default_rng(0).normal(size=6)]))[0][:, 3]
    panel = truth.panel.with_values(truth.panel.values + truth.panel.characteristics @ (0.02 * wanted))
    model, _ = fitted(panel, alpha=True)
    np.testing.assert_allclose(model.estimates.gamma_alpha, 0.02 * wanted, atol=0.002)
    state = model.extract(panel)
    np.testing.assert_allclose(
        state.measurement.alpha, panel.characteristics @ model.estimates.gamma_alpha, atol=1e-14
    )
    residual = panel.values - state.reconstruction()
    assert model.summary.metrics["total_r2"] == pytest.approx(r_squared(panel.values, state.reconstruction()))
    assert np.nanstd(residual) == pytest.approx(0.02, rel=0.05)
    assert fitted(panel)[0].extract(panel).measurement.alpha is None


def test_observed_factors_get_instrumented_loadings():
    truth = simulated(n_periods=300, n_assets=100, n_factors=2, noise=0.02, n_characteristics=6)
    panel = equipped(truth.panel)
    delta = np.linalg.qr(np.column_stack([truth.gamma, np.random.default_rng(1).normal(size=6)]))[0][:, 2]
    market = panel.observed_factors[panel.index.period_codes, 0]
    panel = panel.with_values(panel.values + panel.characteristics @ delta * market)
    model, _ = fitted(panel, 2, observed=("MKT",))
    np.testing.assert_allclose(model.estimates.gamma_observed[:, 0], delta, atol=0.03)
    assert subspace_angle(model.estimates.gamma, truth.gamma) < 0.03
    state = model.extract(panel)
    assert state.factors.names == ("F1", "F2", "MKT")
    np.testing.assert_array_equal(state.factor_returns[:, 2], panel.observed_factors[:, 0])
    assert r_squared(panel.values, state.reconstruction()) == pytest.approx(
        model.summary.metrics["total_r2"], rel=1e-10
    )
    assert np.isnan(model.extract(panel.extend(1)).factor_returns[-1]).all()


@pytest.mark.parametrize("options", VARIANTS[:5], ids=str)
def test_r2_are_those_of_the_rows(options):
    panel = equipped(simulated(missing=0.2).panel)
    model, summary = fitted(panel, **options)
    state = model.extract(panel)
    metrics, found = summary.metrics, model.estimates
    assert metrics["total_r2"] == pytest.approx(r_squared(panel.values, state.reconstruction()), rel=1e-10)
    forecast = state.measurement.loadings.rows() @ found.factor_mean
    forecast = forecast + (0.0 if state.measurement.alpha is None else state.measurement.alpha)
    assert metrics["predictive_r2"] == pytest.approx(r_squared(panel.values, forecast), rel=1e-8)
    top = bottom = 0.0
    Z = panel.characteristics
    Z = np.column_stack([Z, np.ones(len(Z))]) if options.get("intercept") else Z
    for p in range(panel.n_periods):
        rows = panel.index.rows(p)
        o = np.isfinite(panel.values[rows])
        z, r, fit = Z[rows][o], panel.values[rows][o], state.reconstruction()[rows][o]
        top += np.sum((z.T @ (r - fit) / o.sum()) ** 2)
        bottom += np.sum((z.T @ r / o.sum()) ** 2)
    assert metrics["managed_total_r2"] == pytest.approx(1 - top / bottom, rel=1e-9)


# ------------------------------------------------------------------------------------ updates and files


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_update_equals_a_refit(options):
    panel = equipped(simulated(missing=0.2, noise=0.1, live=1).panel)
    whole, _ = fitted(panel, **options)
    for given in (panel, panel.between(90, panel.n_periods)):
        model, _ = fitted(panel.between(0, 90), **options)
        summary = model.update(given)
        assert summary.converged
        assert model.fitted.span == whole.fitted.span
        for name in ("gamma", "gamma_alpha", "gamma_observed", "factors", "factor_mean", "residual_variance"):
            found, wanted = getattr(model.estimates, name), getattr(whole.estimates, name)
            if wanted is not None:
                np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())
        np.testing.assert_array_equal(model.estimates.times, whole.estimates.times)
        assert summary.metrics["total_r2"] == pytest.approx(whole.summary.metrics["total_r2"], rel=1e-10)


def test_update_month_by_month_and_after_loading(tmp_path):
    panel = simulated(n_periods=60, missing=0.1).panel
    model, _ = fitted(panel.between(0, 50))
    model.save(tmp_path / "model")
    model = IPCAModel.load(tmp_path / "model")
    for p in range(50, 60):
        model.update(panel.between(0, p + 1))
    whole, _ = fitted(panel)
    np.testing.assert_allclose(model.estimates.gamma, whole.estimates.gamma, atol=1e-9)


def test_update_refuses_gaps_and_nothing_new():
    panel = simulated(n_periods=60).panel
    with pytest.raises(NotFittedError):
        IPCAModel(IPCAConfig(n_factors=2)).update(panel)
    model, _ = fitted(panel.between(0, 50))
    before = model.estimates
    with pytest.raises(GapError, match="starts right after training, or earlier"):
        model.update(panel.between(52, 60))
    with pytest.raises(InsufficientDataError, match="needs observed values after"):
        model.update(panel.between(0, 50))
    assert model.estimates is before


def test_a_fit_to_statistics_read_from_a_file_is_the_fit_of_the_panel(tmp_path):
    panel = simulated(n_periods=60, missing=0.1, noise=0.1).panel
    period = panel.index.period_codes
    columns = {"month": panel.times[period], "firm": panel.assets[panel.asset_codes], "ret": panel.values}
    names = panel.characteristic_names
    columns |= {name: panel.characteristics[:, j] for j, name in enumerate(names)}
    pl.DataFrame(columns).write_parquet(tmp_path / "panel.parquet", row_group_size=500)
    times, statistics = statistics_from_parquet(
        tmp_path / "panel.parquet", time="month", asset="firm", value="ret", characteristics=names, lag=0,
        constant=True, batch_rows=300,
    )  # fmt: skip
    whole, _ = fitted(panel, intercept=True)
    model = IPCAModel(IPCAConfig(n_factors=3, intercept=True))
    assert model.fit_statistics(times, statistics, names, frequency="M").converged
    np.testing.assert_allclose(model.estimates.gamma, whole.estimates.gamma, atol=1e-12)
    assert model.fitted.span == whole.fitted.span
    np.testing.assert_allclose(
        model.extract(panel).factor_returns, whole.extract(panel).factor_returns, atol=1e-12
    )
    with pytest.raises(ConfigurationError, match="got statistics of 9 characteristics"):
        IPCAModel(IPCAConfig(n_factors=3)).fit_statistics(times, statistics, names)


# ------------------------------------------------------------------------------------ the ten rules


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_no_bit_of_a_period_depends_on_later_ones(options):
    truth = simulated(n_periods=60, missing=0.2)
    panel, s = equipped(truth.panel), 50
    model, _ = fitted(panel.between(0, 40), **options)
    first = int(panel.offsets[s])
    rng = np.random.default_rng(3)
    values, Z, weights = panel.values.copy(), panel.characteristics.copy(), panel.weights.copy()
    values[first:] = rng.normal(size=values.size - first)
    Z[int(panel.offsets[s + 1]) :] = rng.normal(size=(len(Z) - int(panel.offsets[s + 1]), Z.shape[1]))
    weights[int(panel.offsets[s + 1]) :] = 1.0
    factors = panel.observed_factors.copy()
    factors[s:] = 9.0
    other = replace(panel, values=values, characteristics=Z, weights=weights, observed_factors=factors)
    a, b, cut = (model.extract(each) for each in (panel, other, panel.between(0, s)))
    rows = slice(0, first)
    for state in (b, cut):
        np.testing.assert_array_equal(a.factor_returns[:s], state.factor_returns[:s])
        loadings = [each.measurement.loadings.rows() for each in (a, state)]
        np.testing.assert_array_equal(loadings[0][rows], loadings[1][rows])
        np.testing.assert_array_equal(a.reconstruction()[rows], state.reconstruction()[rows])
    upto = int(panel.offsets[s + 1])
    weights_a, weights_b = (model.factor_weights(each).weights[:upto] for each in (panel, other))
    np.testing.assert_array_equal(weights_a, weights_b)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1e6, 2.0**-13])
def test_answers_scale_with_the_values(options, scale):
    panel = equipped(simulated(missing=0.2).panel)
    scaled = panel.with_values(panel.values * scale)
    model, summary = fitted(panel, **options)
    other, other_summary = fitted(scaled, **options)
    np.testing.assert_allclose(other.estimates.gamma, model.estimates.gamma, atol=1e-10)
    np.testing.assert_allclose(other.estimates.factors, scale * model.estimates.factors, rtol=1e-8)
    assert other_summary.n_iterations == summary.n_iterations
    assert other.estimates.residual_variance == pytest.approx(scale**2 * model.estimates.residual_variance)


def test_order_of_assets_and_storage_do_not_matter():
    panel = simulated(missing=0.2, noise=0.1).panel
    model, _ = fitted(panel)
    shuffled = panel.select(np.random.default_rng(0).permutation(panel.assets))
    other, _ = fitted(shuffled)
    np.testing.assert_allclose(other.estimates.gamma, model.estimates.gamma, atol=1e-11)
    np.testing.assert_allclose(
        other.extract(shuffled).factor_returns, model.extract(panel).factor_returns, atol=1e-11
    )
    single = replace(panel, characteristics=panel.characteristics.astype(np.float32))
    double = replace(panel, characteristics=single.characteristics.astype(np.float64))
    narrow, wide = fitted(single)[0], fitted(double)[0]
    np.testing.assert_array_equal(narrow.estimates.gamma, wide.estimates.gamma)
    state = narrow.extract(single)
    assert state.measurement.loadings.rows().dtype == np.float64
    np.testing.assert_array_equal(state.factor_returns, wide.extract(double).factor_returns)
    assert np.abs(narrow.estimates.gamma - model.estimates.gamma).max() < 1e-5


def test_hidden_values_are_values_never_supplied():
    panel = simulated(missing=0.3, noise=0.1, live=2).panel
    keep = panel.observed
    period = panel.index.period_codes[keep]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(period, minlength=panel.n_periods))])
    bare = replace(
        panel, offsets=offsets, asset_codes=panel.asset_codes[keep], values=panel.values[keep],
        characteristics=panel.characteristics[keep],
    )  # fmt: skip
    model, without = fitted(panel)[0], fitted(bare)[0]
    np.testing.assert_array_equal(model.estimates.gamma, without.estimates.gamma)
    state = model.extract(panel)
    assert state.n_realised == 120
    assert np.isfinite(state.measurement.loadings.rows()).all()  # live rows too
    assert np.isnan(state.factor_returns[120:]).all()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_factor_weights_earn_the_factors(options):
    panel = equipped(simulated(live=1).panel)
    model, _ = fitted(panel, **options)
    weights = model.factor_weights(panel)
    assert weights.factor_names == ("F1", "F2", "F3")
    assert np.isfinite(weights.weights[panel.index.rows(120)]).all()
    state = model.extract(panel)
    values = panel.values - (0.0 if state.measurement.alpha is None else state.measurement.alpha)
    for j, name in enumerate(options.get("observed", ())):
        g = panel.observed_factors[panel.index.period_codes, panel.observed_factor_names.index(name)]
        values = values - state.measurement.loadings.rows()[:, 3 + j] * g
    earned = weights.returns(values)[:120]
    np.testing.assert_allclose(earned, state.factor_returns[:120, :3], atol=1e-12)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_the_pipeline_runs_as_designed(options, tmp_path):
    panel = equipped(simulated(live=1, missing=0.1).panel)
    pipeline = LatentFactorForecastPipeline(
        model=IPCAModel(IPCAConfig(n_factors=3, **options)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )
    pipeline.fit(panel)
    prediction = pipeline.predict(panel)
    live = panel.index.rows(120)
    assert np.isfinite(prediction.asset_forecast.expected_values[live]).all()
    assert np.isfinite(prediction.asset_forecast.variance[live]).all()
    pipeline.save(tmp_path)
    again = LatentFactorForecastPipeline.load(tmp_path).predict(panel)
    np.testing.assert_array_equal(
        again.asset_forecast.expected_values, prediction.asset_forecast.expected_values
    )


# ------------------------------------------------------------------------------------ edges of the data


def test_thin_periods_have_no_factors_and_poison_nothing():
    panel = simulated(n_periods=60, partial=0.0, noise=0.1).panel
    values = panel.values.copy()
    for p, left in ((10, 1), (20, 5), (30, 0)):
        values[panel.index.rows(p)][left:] = np.nan
    thin = panel.with_values(values)
    model, summary = fitted(thin)
    assert summary.warnings == ("3 periods with fewer than 6 observed assets: no factors",)
    state = model.extract(thin)
    assert np.flatnonzero(np.isnan(state.factor_returns).any(axis=1)).tolist() == [10, 20, 30]
    assert state.metadata["n_periods_without_factors"] == 3
    hidden = values.copy()
    for p in (10, 20):
        hidden[panel.index.rows(p)] = np.nan
    np.testing.assert_array_equal(fitted(panel.with_values(hidden))[0].estimates.gamma, model.estimates.gamma)
    np.testing.assert_allclose(
        model.estimates.factor_mean, np.nanmean(state.factor_returns, axis=0), atol=1e-14
    )


def test_new_assets_get_forecasts():
    panel = simulated(partial=0.0).panel
    model, _ = fitted(panel.select(panel.assets[:40]))
    state = model.extract(panel.select(panel.assets[40:]))
    assert np.isfinite(state.measurement.loadings.rows()).all()
    assert np.isfinite(state.factor_returns).all()


def test_collinear_characteristics_are_reported():
    panel = simulated(n_characteristics=4, n_factors=2).panel
    Z = panel.characteristics
    doubled = replace(
        panel, characteristics=np.column_stack([Z, Z[:, 1] + Z[:, 2]]), characteristic_names=tuple("abcde")
    )
    model, summary = fitted(doubled, 2)
    assert summary.warnings == ("characteristics have rank 4 of 5 (b, c, e): minimum-norm Gamma",)
    plain, _ = fitted(panel, 2)
    assert subspace_angle(doubled.characteristics @ model.estimates.gamma, Z @ plain.estimates.gamma) < 1e-9
    with pytest.raises(InsufficientDataError, match="n_factors=5 exceeds the rank 4 of the 5"):
        fitted(doubled, 5)


def test_a_second_constant_is_refused():
    panel = simulated(n_characteristics=3, n_factors=2).panel
    Z = panel.characteristics
    for extra, named in ((np.full(len(Z), 3.0), "'?x'?"), (1.0 - Z[:, 0], "'?c0'?, '?x'?")):
        other = replace(
            panel, characteristics=np.column_stack([Z, extra]), characteristic_names=("c0", "c1", "c2", "x")
        )
        with pytest.raises(ConfigurationError, match=f"intercept=True, but {named} already span a constant"):
            fitted(other, 2, intercept=True)
        assert fitted(other, 2)[1].converged


def test_bad_data_are_refused_in_one_line():
    panel = equipped(simulated(n_periods=40, n_characteristics=4).panel)
    with pytest.raises(ConfigurationError, match="n_factors=5 exceeds the 4 characteristics"):
        fitted(panel, 5)
    with pytest.raises(PanelMismatchError, match=r"no observed factor 'HML'; the panel has \('MKT', 'SMB'\)"):
        fitted(panel, observed=("HML",))
    gaps = panel.observed_factors.copy()
    gaps[[7, 9], 0] = np.nan
    holed = replace(panel, observed_factors=gaps)
    with pytest.raises(
        PanelMismatchError, match=r"'MKT' is missing in 2 training periods, the first 1990-08"
    ):
        fitted(holed, observed=("MKT",))
    model, _ = fitted(panel, observed=("MKT",))
    state = model.extract(holed)  # later panels may have gaps: those periods have no factors
    assert np.flatnonzero(np.isnan(state.factor_returns).any(axis=1)).tolist() == [7, 9]
    twins = replace(panel, observed_factors=panel.observed_factors[:, [0, 0]])
    with pytest.raises(InsufficientDataError, match="are collinear in training"):
        fitted(twins, observed=("MKT", "SMB"))
    with pytest.raises(PanelMismatchError, match="needs weights, the panel has none"):
        fitted(replace(panel, weights=None), weighting="panel")
    lost = panel.weights.copy()
    lost[panel.offsets[3]] = np.nan
    with pytest.raises(PanelMismatchError, match="1 are missing in period 1990-04-30"):
        fitted(replace(panel, weights=lost), weighting="panel")
    with pytest.raises(InsufficientDataError, match="all observed values are zero"):
        fitted(panel.with_values(np.zeros(panel.n_rows)))
    with pytest.raises(InsufficientDataError, match="need 3 periods with 6 observed assets"):
        fitted(panel.between(0, 2))
    with pytest.raises(InsufficientDataError, match="need 3 periods with 3 observed assets"):
        fitted(panel.select(panel.assets[:1]))
    broken = panel.characteristics.copy()
    broken[5, 2] = np.nan
    with pytest.raises(PanelMismatchError, match="'c2'"):
        fitted(replace(panel, characteristics=broken))
    with pytest.raises(PanelMismatchError, match="needs characteristics"):
        fitted(replace(panel, characteristics=None, characteristic_names=()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_factors": 0}, "n_factors must be a whole number"),
        ({"n_factors": 2.0}, "n_factors must be a whole number"),
        ({"n_starts": 0}, "n_starts must be a whole number"),
        ({"observed": "MKT"}, "observed must be different names"),
        ({"observed": ("F2",)}, "names a latent factor"),
        ({"weighting": "value"}, "weighting must be one of"),
        ({"factor_ridge": -1.0}, "factor_ridge must be a finite share"),
        ({"gamma_ridge": float("nan")}, "gamma_ridge must be a finite share"),
        ({"min_observed": 1}, "cannot identify 2 factors"),
        ({"tolerance": 0.0}, "tolerance must lie in"),
    ],
)
def test_configurations_that_cannot_work(options, message):
    with pytest.raises(ConfigurationError, match=message):
        IPCAConfig(**({"n_factors": 2} | options))


def test_a_fit_cut_short_says_so():
    model, summary = fitted(simulated(noise=0.3).panel, max_iterations=1)
    assert not summary.converged
    assert "Gamma not converged, stopped after 1 iterations" in summary.warnings[0]
    assert np.isfinite(model.estimates.gamma).all()
