"""GFM and CFM: special cases, a dense oracle, the gauge, updates, and the edges of the data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    Attribute,
    BetaLambdaMapper,
    CreditFactorConfig,
    CreditFactorModel,
    ExpandingMeanFactorForecaster,
    GraphFactorConfig,
    GraphFactorModel,
    LatentFactorForecastPipeline,
    Panel,
    RollingWindow,
    walk_forward,
)
from latentfactors.errors import (
    ConfigurationError,
    GapError,
    InsufficientDataError,
    MissingCapabilityError,
    PanelMismatchError,
    UnknownAssetsError,
)
from latentfactors.kernels.adjacency import asset_equations, build_pattern, fitted, period_equations
from latentfactors.kernels.als import fit_als
from latentfactors.kernels.encoder import _Problem, encode
from latentfactors.kernels.gauge import balance, find_nesting, fix_gauge
from latentfactors.kernels.linalg import principal_subspace, subspace_angle
from latentfactors.kernels.masked_als import fit_masked
from latentfactors.kernels.scores import r_squared
from latentfactors.risk import risk_model, risk_record
from latentfactors.simulate import credit_panel


def small(values, **codes):
    panel = Panel.from_wide(values, universe="all", assets=[f"A{i:02d}" for i in range(values.shape[1])])
    attributes = {
        name: Attribute(np.asarray(each, dtype=np.int32), tuple("abcdefgh"[: max(each) + 1]), by="asset")
        for name, each in codes.items()
    }
    return replace(panel, attributes=attributes)


def draws(T=60, N=24, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(T, 3)) * [3, 2, 1] @ rng.normal(size=(3, N)) + 0.5 * rng.normal(size=(T, N))
    values[rng.random(values.shape) < missing] = np.nan
    return values


def migrating_pattern(seed=0, T=40, N=12):
    """Rows with a market, a fixed and a migrating link, some links missing."""
    rng = np.random.default_rng(seed)
    here = rng.random((T, N)) < 0.8
    assets = np.nonzero(here)[1]
    links = np.column_stack([
        np.zeros(assets.size), 1 + assets % 2, 3 + rng.integers(0, 2, assets.size)
    ]).astype(np.int32)  # fmt: skip
    links[rng.random(assets.size) < 0.1, 2] = -1
    starts = np.concatenate([[0], np.cumsum(here.sum(axis=1))])
    pattern = build_pattern(links, assets, starts, n_assets=N, n_factors=5)
    return pattern, links, assets, rng


# ------------------------------------------------------------------------ special cases


def test_common_factors_only_are_principal_components_with_missing_data():
    values = draws(missing=0.15)
    config = CreditFactorConfig(attributes=(), n_common=3, ridge=0.0, tolerance=1e-12, max_iterations=5000)
    model = CreditFactorModel(config)
    assert model.fit(small(values)).converged
    wanted = fit_als(values, 3, tolerance=1e-12).loadings
    assert subspace_angle(model.estimates.matrix(), wanted) < 1e-8


def test_the_linear_autoencoder_spans_the_principal_components():
    values = draws(T=40, N=12)
    config = GraphFactorConfig(attributes=(), n_common=3, ridge=0.0, tolerance=1e-20, max_iterations=5000)
    model = GraphFactorModel(config)
    model.fit(small(values))
    assert subspace_angle(model.estimates.matrix(), principal_subspace(values, 3)[0]) < 1e-8


def test_loadings_of_one_and_one_attribute_give_group_means():
    values, sector = draws(missing=0.2), np.arange(24) % 3
    model = CreditFactorModel(CreditFactorConfig(n_common=0, shrinkage=math.inf))
    model.fit(small(values, sector=sector))
    wanted = np.column_stack([np.nanmean(values[:, sector == c], axis=1) for c in range(3)])
    np.testing.assert_allclose(model.estimates.factors, wanted, atol=1e-8)


def test_infinite_shrinkage_is_the_constrained_regression():
    values, sector, rating = draws(missing=0.2), np.arange(24) % 3, (np.arange(24) // 2) % 3
    model = CreditFactorModel(CreditFactorConfig(shrinkage=math.inf, infer="regression"))
    panel = small(values, sector=sector, rating=rating)
    model.fit(panel)
    links = np.column_stack([np.ones(24), *(sector == c for c in range(3)), *(rating == c for c in range(3))])
    constraint = np.zeros((2, 7))
    constraint[0, 1:4], constraint[1, 4:] = links.sum(axis=0)[1:4], links.sum(axis=0)[4:]
    for t in range(60):
        seen = np.isfinite(values[t])
        a = links[seen]
        # the Karush-Kuhn-Tucker system of least squares under linear constraints
        system = np.block([[a.T @ a, constraint.T], [constraint, np.zeros((2, 2))]])
        wanted = np.linalg.solve(system, np.r_[a.T @ values[t, seen], 0.0, 0.0])[:7]
        np.testing.assert_allclose(model.estimates.factors[t], wanted, atol=1e-8)
    np.testing.assert_allclose(model.extract(panel).factor_returns, model.estimates.factors, atol=1e-8)


def test_large_shrinkage_approaches_the_regression_as_one_over_shrinkage():
    values, sector = draws(missing=0.1), np.arange(24) % 3
    panel = small(values, sector=sector)
    gaps = []
    for shrinkage in (1e5, 1e6):
        config = CreditFactorConfig(n_common=0, shrinkage=shrinkage, ridge=0.0, tolerance=1e-13)
        model = CreditFactorModel(config)
        model.fit(panel)
        gaps.append(np.abs(model.estimates.loadings - 1.0).max())
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.05)


# ------------------------------------------------------------------------ kernels against dense twins


def test_normal_equations_are_the_dense_ones():
    pattern, _, assets, rng = migrating_pattern()
    b, y, f = rng.normal(size=pattern.n_slots), rng.normal(size=assets.size), rng.normal(size=(40, 5))
    dense = np.zeros((assets.size, 5))
    for r, m in np.argwhere(pattern.links >= 0):
        dense[r, pattern.links[r, m]] = b[pattern.slots[r, m]]
    grams, crosses = period_equations(pattern, b, y)
    rows = np.repeat(np.arange(40), np.diff(pattern.period_starts))
    for t in range(40):
        x = dense[rows == t]
        np.testing.assert_allclose(grams[t], x.T @ x, atol=1e-12)
        np.testing.assert_allclose(crosses[t], x.T @ y[rows == t], atol=1e-12)
    np.testing.assert_allclose(fitted(pattern, b, f), (dense * f[rows]).sum(axis=1), atol=1e-12)
    grams, crosses = asset_equations(pattern, f, y)
    for i in range(12):
        own = pattern.slot_factor[pattern.asset_slots[i] : pattern.asset_slots[i + 1]]
        linked = (pattern.links[assets == i][:, :, None] == own).any(axis=1)
        x = np.where(linked, f[rows[assets == i]][:, own], 0.0)
        np.testing.assert_allclose(grams[i][: own.size, : own.size], x.T @ x, atol=1e-12)
        np.testing.assert_allclose(crosses[i][: own.size], x.T @ y[assets == i], atol=1e-12)


def test_balance_and_gauge_keep_every_fitted_value():
    pattern, _, _, rng = migrating_pattern()
    nesting = find_nesting(pattern)
    nested = {(j, k) for j, k, _ in nesting.pairs}
    assert {(1, 0), (2, 0)} <= nested  # the fixed category in the market
    assert (3, 0) not in nested  # assets migrate in and out of the others
    b, f = rng.normal(size=pattern.n_slots), rng.normal(size=(40, 5))
    before = fitted(pattern, b, f)
    balanced = balance(nesting, b, f)
    np.testing.assert_allclose(fitted(pattern, *balanced), before, atol=1e-10)
    assert sum((x**2).sum() for x in balanced) <= (b**2).sum() + (f**2).sum()
    loadings, factors, turn = fix_gauge(nesting, b, f)
    np.testing.assert_allclose(fitted(pattern, loadings, factors), before, atol=1e-10)
    np.testing.assert_allclose(f @ turn, factors, atol=1e-10)
    assert np.abs(factors[:, [1, 2]].T @ factors[:, 0]).max() < 1e-10


@pytest.mark.parametrize(("shrinkage", "groups"), [(0.0, False), (3.0, False), (3.0, True)])
def test_alternating_least_squares_never_rises(shrinkage, groups):
    pattern, _, assets, rng = migrating_pattern()
    values = rng.normal(size=assets.size)
    fit = fit_masked(values, pattern, ridge=0.1, shrinkage=shrinkage, group_effects=groups)
    path = np.array(fit.objective_path)
    assert len(path) > 5
    assert np.diff(path).max() <= 1e-12


@pytest.mark.parametrize("normalisation", ["softmax", "relu"])
def test_encoder_gradient_is_the_numerical_one(normalisation):
    pattern, _, assets, rng = migrating_pattern()
    problem = _Problem(rng.normal(size=assets.size), pattern, normalisation, 0.3)
    w = problem.start + 0.2 + 0.1 * rng.random(pattern.n_slots)
    gradient = problem.value_and_gradient(w)[1]
    for slot in range(0, pattern.n_slots, 5):
        step = np.zeros(w.size)
        step[slot] = 1e-6
        up, down = (problem.value_and_gradient(w + s * step)[0] for s in (1, -1))
        assert (up - down) / 2e-6 == pytest.approx(gradient[slot], abs=1e-7)


def test_loadings_are_held_at_any_tolerance():
    """Without a ridge on loadings, those of short histories cost 0.05 of R2 on later days here."""
    truth = credit_panel(n_assets=200, n_periods=120, seed=5)
    later = truth.panel.index.period_codes >= 100
    for tolerance in (1e-4, 1e-8):
        model = GraphFactorModel(GraphFactorConfig(tolerance=tolerance))
        model.fit(truth.panel.between(0, 100))
        assert r_squared(truth.expected[later], model.extract(truth.panel).reconstruction()[later]) > 0.845


def test_softmax_weights_sum_to_one_over_the_assets_available():
    pattern, _, assets, rng = migrating_pattern()
    factors = encode(pattern, rng.normal(size=pattern.n_slots), np.full(assets.size, 7.0), "softmax")
    np.testing.assert_allclose(factors[np.isfinite(factors)], 7.0)


# ------------------------------------------------------------------------ recovery, inference, updates


@pytest.fixture(scope="module")
def credit():
    truth = credit_panel(n_assets=500, n_periods=200, seed=2)
    model = CreditFactorModel(CreditFactorConfig(tolerance=1e-6))
    summary = model.fit(truth.panel.between(0, 180))
    return truth, model, summary


def test_true_values_of_later_days_are_recovered(credit):
    truth, model, summary = credit
    assert summary.converged
    state = model.extract(truth.panel)
    later = truth.panel.index.period_codes >= 180
    assert r_squared(truth.expected[later], state.reconstruction()[later]) > 0.93
    market = np.corrcoef(state.factor_returns[180:, 0], truth.factors[180:, 0])[0, 1]
    assert market > 0.97
    assert np.linalg.eigvalsh(state.factors.covariance[185]).min() > -1e-9


def test_two_starts_agree_after_the_gauge():
    truth = credit_panel(n_assets=400, n_periods=150, heterogeneity=0.5, seed=3)
    panel, rng = truth.panel, np.random.default_rng(1)
    sector = np.repeat(np.arange(4), 100)[panel.asset_codes]
    links = np.column_stack([np.zeros(panel.n_rows), 1 + sector]).astype(np.int32)
    long = np.bincount(panel.asset_codes[panel.observed], minlength=400)[panel.asset_codes] >= 20
    kept = panel.observed & long
    starts = np.concatenate([[0], np.cumsum(np.bincount(panel.index.period_codes[kept], minlength=150))])
    names, codes = np.unique(panel.asset_codes[kept], return_inverse=True)
    pattern = build_pattern(links[kept], codes, starts, n_assets=names.size, n_factors=5)
    found = []
    for _ in range(2):
        start = 1.0 + 0.5 * rng.normal(size=pattern.n_slots)
        fit = fit_masked(panel.values[kept], pattern, ridge=0.1, start=start, tolerance=1e-10)
        found.append(fix_gauge(find_nesting(pattern), fit.loadings, fit.factors)[:2])
    for one, other in zip(*found, strict=True):
        assert np.abs(one - other).max() < 1e-5 * np.abs(other).max()


def test_premia_are_not_shrunk_by_the_projection():
    rng = np.random.default_rng(0)
    factors = np.array([0.5, 0.3, 0.2]) + rng.normal(size=(300, 3)) * [1.0, 0.7, 0.5]
    sector = np.arange(30) % 2
    loadings = 1 + 0.5 * rng.normal(size=(30, 3))
    loadings[:, 1] *= sector == 0
    loadings[:, 2] *= sector == 1
    panel = small(factors @ loadings.T + 2.0 * rng.normal(size=(300, 30)), sector=sector)
    model = CreditFactorModel(CreditFactorConfig(tolerance=1e-8))
    model.fit(panel)
    projected = model.extract(panel).factor_returns.mean(axis=0)
    np.testing.assert_allclose(projected, np.nanmean(model.estimates.factors, axis=0), atol=0.02)


def test_update_is_the_refit():
    panel = small(draws(T=80, missing=0.1), sector=np.arange(24) % 3)
    config = CreditFactorConfig(tolerance=1e-13, max_iterations=20000)
    grown, refit = CreditFactorModel(config), CreditFactorModel(config)
    grown.fit(panel.between(0, 60))
    grown.update(panel)
    refit.fit(panel)
    for name in ("loadings", "factors", "residual_variance"):
        wanted = getattr(refit.estimates, name)
        assert np.abs(getattr(grown.estimates, name) - wanted).max() < 1e-8 * np.abs(wanted).max()
    with pytest.raises(GapError, match="whole history"):
        grown.update(panel.between(10, 80))


def test_refits_are_joined_by_name():
    """A category that is too thin in early windows; latent factors of another model stay matched by sign."""
    values = draws(T=90, N=24)
    values[:60, 16:] = np.nan
    panel = small(values, sector=np.arange(24) // 8)
    pipeline = LatentFactorForecastPipeline(
        model=CreditFactorModel(CreditFactorConfig(min_group_size=8, tolerance=1e-6)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )
    result = walk_forward(pipeline, panel, RollingWindow(size=40, step=20))
    paths = result.factor_paths()
    assert {path.names for path in paths} == {("market", "sector=a", "sector=b", "sector=c")}
    assert [bool(np.isfinite(path.values[:, 3]).any()) for path in paths] == [False, False, True]
    for block, path in zip(result.blocks, paths, strict=True):
        for k, name in enumerate(block.factor_names):
            column = path.values[:, path.names.index(name)]
            np.testing.assert_array_equal(column, block.factors[:, k])


# ------------------------------------------------------------------------ degrees of freedom


@pytest.mark.parametrize(
    "model", [CreditFactorModel(CreditFactorConfig()), GraphFactorModel(GraphFactorConfig())]
)
def test_residual_shares_are_the_dense_ones(model):
    """(I - H) S (I - H)' with S = B V B' + D has the diagonal d (1 - h); loadings take 1 - p/T more."""
    panel = small(draws(missing=0.1), sector=np.arange(24) % 3)
    model = model.clone()
    model.fit(panel.between(0, 50))
    state, estimates = model.extract(panel), model.estimates
    loadings, share = state.measurement.loadings.values, state.measurement.residual_share
    floor = 0.01 * np.median(estimates.residual_variance)
    variance = np.maximum(estimates.residual_variance, floor)
    p, n = estimates.parameters, estimates.n_values
    for t in (10, 55):
        rows = panel.index.rows(t)
        seen = panel.observed[rows]
        b, d = loadings[seen], variance[seen]
        total = b @ estimates.factor_covariance @ b.T + np.diag(d)
        left = np.diag(d) @ np.linalg.inv(total) @ np.diag(d)
        wanted = np.diag(left) / d
        if t < 50:
            wanted = wanted * ((1 - p / n) / (1 + p / (n - p - 1)))[seen]
        np.testing.assert_allclose(share[rows][seen], wanted, rtol=1e-8)
        assert (share[rows][~seen] == 1.0).all()


def test_specific_risk_is_right_out_of_sample():
    """Uncorrected residuals of training put r'S^-1 r / n at 1.3; the noise is known here."""
    truth = credit_panel(n_assets=400, n_periods=180, seed=4)
    panel = truth.panel
    for model in (
        CreditFactorModel(CreditFactorConfig(tolerance=1e-4)),
        GraphFactorModel(GraphFactorConfig()),
    ):
        model.fit(panel.between(0, 150))
        state = model.extract(panel)
        plain = replace(state, measurement=replace(state.measurement, residual_share=None))
        found = [
            risk_record(risk_model(each, panel), start=panel.times[150]).mahalanobis
            for each in (state, plain)
        ]
        assert 0.95 < found[0] < 1.2
        assert found[1] > found[0] + 0.15
        if isinstance(model, CreditFactorModel):
            assert model.estimates.pooled_residual_variance == pytest.approx(truth.noise**2, rel=0.06)


def test_shrunken_loadings_use_up_fewer_parameters():
    panel = small(draws(missing=0.1), sector=np.arange(24) % 3)
    used = []
    for shrinkage in (0.0, 5.0, 50.0, math.inf):
        model = CreditFactorModel(CreditFactorConfig(shrinkage=shrinkage))
        model.fit(panel)
        used.append(float(model.estimates.parameters.mean()))
    assert used[0] == 2.0
    assert used[0] > used[1] > used[2] > used[3] == 0.0


# ------------------------------------------------------------------------ portfolios


@pytest.mark.parametrize("normalisation", ["mean", "softmax", "relu"])
def test_encoder_portfolios_earn_the_factors(normalisation):
    values, sector = draws(), np.arange(24) % 3
    config = GraphFactorConfig(normalisation=normalisation, infer="encoder")
    model = GraphFactorModel(config)
    panel = small(values, sector=sector)
    model.fit(panel.between(0, 50))
    weights = model.factor_weights(panel)
    earned = weights.returns(panel.values)
    np.testing.assert_allclose(earned, model.extract(panel).factor_returns, atol=1e-10 * np.abs(earned).max())
    held = weights.weights[:24, 1] != 0.0  # a sector's portfolio holds nothing else
    assert set(np.flatnonzero(held)) <= set(np.flatnonzero(sector == 0))
    hidden = panel.mask(panel.asset_codes == 0)
    assert np.array_equal(model.factor_weights(hidden).weights, weights.weights)  # known before the period
    projecting = GraphFactorModel(replace(config, infer="project"))
    projecting.fit(panel)
    with pytest.raises(MissingCapabilityError, match="no portfolio"):
        projecting.factor_weights(panel)


@pytest.mark.parametrize("shrinkage", [0.0, math.inf])
def test_regression_portfolios_earn_the_factors(shrinkage):
    values, sector = draws(), np.arange(24) % 3
    panel = small(values, sector=sector)
    model = CreditFactorModel(CreditFactorConfig(shrinkage=shrinkage, infer="regression"))
    model.fit(panel.between(0, 50))
    earned = model.factor_weights(panel).returns(panel.values)
    np.testing.assert_allclose(earned, model.extract(panel).factor_returns, atol=1e-8 * np.abs(earned).max())
    projecting = CreditFactorModel(CreditFactorConfig(tolerance=1e-3))
    projecting.fit(panel)
    with pytest.raises(MissingCapabilityError, match="infer='regression'"):
        projecting.factor_weights(panel)


def test_a_factor_without_assets_has_no_portfolio():
    values, sector = draws(), np.arange(24) % 3
    model = GraphFactorModel(GraphFactorConfig(infer="encoder"))
    model.fit(small(values, sector=sector))
    universe = np.ones(values.shape, dtype=bool)
    universe[10, sector == 2] = False
    thinner = Panel.from_wide(
        np.where(universe, values, np.nan), universe=universe, assets=[f"A{i:02d}" for i in range(24)]
    )
    thinner = replace(thinner, attributes=small(values, sector=sector).attributes)
    weights = model.factor_weights(thinner).weights[thinner.index.rows(10)]
    assert np.isfinite(weights[:, :3]).all()
    assert np.isnan(weights[:, 3]).all()


# ------------------------------------------------------------------------ edges


def test_small_categories_are_merged_or_dropped_and_said_so():
    values = draws(N=24)
    sector = np.array([0] * 10 + [1] * 10 + [2] * 3 + [3])
    model = CreditFactorModel(CreditFactorConfig(min_group_size=4))
    assert "merged into sector=other" in " ".join(model.fit(small(values, sector=sector)).warnings)
    assert model.estimates.factor_names == ("market", "sector=a", "sector=b", "sector=other")
    lone = np.array([0] * 12 + [1] * 11 + [2])
    assert "dropped" in " ".join(model.fit(small(values, sector=lone)).warnings)
    assert model.estimates.factor_names == ("market", "sector=a", "sector=b")


def test_unseen_categories_and_new_assets_get_what_is_known_of_them(credit):
    truth, model, _ = credit
    panel = truth.panel.between(170, 190)
    codes = np.array(panel.attributes["sector"].codes)
    codes[0], codes[1] = 10, -1
    sector = Attribute(codes, (*panel.attributes["sector"].categories, "Space"), by="asset")
    changed = replace(panel, attributes={**panel.attributes, "sector": sector})
    state = model.extract(changed)
    assert state.metadata["n_rows_with_unseen_categories"] == np.sum(panel.asset_codes == 0)
    assert np.isfinite(state.reconstruction()).all()
    strangers = replace(panel, assets=np.array([f"X{i}" for i in range(panel.n_assets)]))
    assert r_squared(panel.values, model.extract(strangers).reconstruction()) > 0.5  # market and categories
    strict = CreditFactorModel(CreditFactorConfig(cold_start=False, tolerance=1e-3))
    strict.fit(truth.panel.between(0, 180))
    with pytest.raises(UnknownAssetsError, match="none of the panel's assets"):
        strict.extract(strangers)


def test_assets_without_attributes_or_values():
    values = draws(missing=0.1)
    values[:, 5] = np.nan
    sector = np.arange(24) % 3
    panel = small(values, sector=sector)
    codes = np.array(panel.attributes["sector"].codes)
    codes[7] = -1
    panel = replace(panel, attributes={"sector": replace(panel.attributes["sector"], codes=codes)})
    for model in (CreditFactorModel(CreditFactorConfig()), GraphFactorModel(GraphFactorConfig())):
        summary = model.fit(panel)
        assert "fewer than 4 values" in " ".join(summary.warnings)
        state = model.extract(panel)
        assert np.isfinite(state.reconstruction()).all()
        assert np.count_nonzero(state.measurement.loadings.values[7]) == 1  # the market alone


def test_refusals():
    panel = small(draws())
    with pytest.raises(PanelMismatchError, match="no attribute 'sector'"):
        CreditFactorModel(CreditFactorConfig(attributes=("sector",))).fit(panel)
    with pytest.raises(PanelMismatchError, match="no attributes"):
        CreditFactorModel(CreditFactorConfig(n_common=0)).fit(panel)
    with pytest.raises(InsufficientDataError, match="min_observed"):
        CreditFactorModel(CreditFactorConfig(min_observed=99)).fit(panel)
    for options in (
        {"ridge": -1.0},
        {"tolerance": 0.0},
        {"infer": "encoder"},
        {"shrinkage": math.nan},
        {"shrinkage": math.inf, "n_common": 2},
        {"attributes": (), "n_common": 0},
        {"attributes": "sector"},
    ):
        with pytest.raises(ConfigurationError):
            CreditFactorConfig(**options)
    with pytest.raises(ConfigurationError, match="positive"):
        GraphFactorConfig(normalisation="softmax", n_common=2)
