"""ObservedFactorModel: regressions against lstsq, one-sided rows, history, gaps, and the flow around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    AR1FactorForecaster,
    BetaLambdaMapper,
    EWMAFactorForecaster,
    ExpandingMeanFactorForecaster,
    ExpandingWindow,
    LatentFactorForecastPipeline,
    Panel,
    RollingMeanFactorForecaster,
    VARFactorForecaster,
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
from latentfactors.kernels.regression import Design, RegressionSums, solve_regressions
from latentfactors.models.observed import ObservedFactorConfig, ObservedFactorModel
from latentfactors.simulate import static_panel

NAMES = ("Mkt-RF", "SMB", "HML")
MODES = [{}, {"window": 40}, {"half_life": 20.0}]
ids = [str(mode) for mode in MODES]


def simulated(n_factors=3, **options):
    truth = static_panel(n_factors=n_factors, **{"n_periods": 120, "n_assets": 15, "seed": 1, **options})
    return truth, with_factors(truth.panel, truth.factors, NAMES[:n_factors])


def with_factors(panel, factors, names=NAMES):
    return replace(panel, observed_factors=factors, observed_factor_names=names)


def fitted(panel, factors=NAMES, **options):
    model = ObservedFactorModel(ObservedFactorConfig(factors=factors, **options))
    return model, model.fit(panel)


def by_hand(x, f, mode, alpha, needed):
    """Coefficients and residual variance of one asset from its past x (T,), f (T, K), the obvious way."""
    w = np.ones(len(x))
    if "window" in mode:
        w[: max(0, len(x) - mode["window"])] = 0.0
    if "half_life" in mode:
        w = 2.0 ** (-np.arange(len(x))[::-1] / mode["half_life"])
    design = np.column_stack([np.ones(len(x)), f]) if alpha else f
    used = np.isfinite(x) & np.isfinite(f).all(axis=1) & (w > 0)
    size = design.shape[1]
    if used.sum() < needed:
        return np.full(size, np.nan), np.nan
    root = np.sqrt(w[used])
    c = np.linalg.lstsq(design[used] * root[:, None], x[used] * root)[0]
    e, w = x[used] - design[used] @ c, w[used]
    effective = w.sum() ** 2 / (w**2).sum()
    return c, (w * e * e).sum() / (w.sum() * (1 - size / effective))


# ------------------------------------------------------------------------------------ the regressions


@pytest.mark.parametrize("mode", MODES, ids=ids)
@pytest.mark.parametrize("alpha", [True, False])
def test_every_row_equals_a_regression_by_hand(mode, alpha):
    truth, panel = simulated(noise=0.03, missing=0.2, live=1)
    factors = np.array(truth.factors)
    factors[[7, 30], [0, 2]] = np.nan
    values = panel.values + 0.01 * (panel.asset_codes % 3)
    panel = with_factors(panel.with_values(values), factors)
    wanted = ("HML", "Mkt-RF")  # in an order of its own
    model, _ = fitted(panel.between(0, 100), wanted, alpha=alpha, **mode)
    state, wide, needed = model.extract(panel), panel.wide(), model.config.needed
    betas, variance = state.asset_betas, panel.index.dense(state.measurement.residual_variance)
    assert (state.measurement.alpha is None) == (not alpha)
    f = factors[:, [2, 0]]
    np.testing.assert_array_equal(state.factor_returns, f)
    for p in (0, 3, 11, 50, 99, 110, 120):
        past = slice(0, p if mode else 100)
        for i in range(15):
            c, s2 = by_hand(wide[past, i], f[past], mode, alpha, needed)
            np.testing.assert_allclose(betas[p, i], c[-2:], rtol=0, atol=1e-10)
            if alpha:
                got = panel.index.dense(state.measurement.alpha)[p, i]
                np.testing.assert_allclose(got, c[0], rtol=0, atol=1e-12)
            expected = model.estimates.pooled_residual_variance if np.isnan(s2) else s2
            assert variance[p, i] == pytest.approx(expected, rel=1e-8)
    pooled = [by_hand(x, f[:100], {}, alpha, needed)[1] for x in wide[:100].T]
    assert model.estimates.pooled_residual_variance == pytest.approx(np.mean(pooled), rel=1e-9)


def test_factors_at_a_high_level_cost_no_digits():
    rng = np.random.default_rng(0)
    yields = 500.0 + 0.01 * rng.normal(size=(80, 1)).cumsum(axis=0)
    values = 0.3 + (yields - 500.0) @ rng.normal(size=(1, 5)) + 1e-4 * rng.normal(size=(80, 5))
    panel = with_factors(Panel.from_wide(values, universe="all"), yields, ("level",))
    model, _ = fitted(panel, ("level",))
    design = np.column_stack([np.ones(80), yields - 500.0])
    expected = np.linalg.lstsq(design, values)[0]
    np.testing.assert_allclose(model.estimates.loadings[:, 0], expected[1], rtol=1e-9)
    np.testing.assert_allclose(model.estimates.alpha + 500 * expected[1], expected[0], atol=1e-8)


def test_three_betas_are_recovered_and_hidden_cells_reconstructed():
    truth, panel = simulated(noise=0.0, missing=0.3)
    model, summary = fitted(panel)
    np.testing.assert_allclose(model.estimates.loadings, truth.loadings, atol=1e-10)
    np.testing.assert_allclose(model.estimates.alpha, 0, atol=1e-12)
    error = model.extract(panel).reconstruction() - truth.expected
    assert np.abs(error).max() < 1e-10 * np.sqrt(np.mean(truth.expected**2))
    assert summary.metrics["total_r2"] == pytest.approx(1.0)
    assert summary.warnings == ()
    # moving betas reconstruct every row that has a past
    for mode in MODES[1:]:
        state = fitted(panel, **mode)[0].extract(panel)
        late = panel.index.period_codes > 30
        assert np.abs(state.reconstruction() - truth.expected)[late].max() < 1e-10


def test_moving_betas_follow_a_change_that_static_ones_average():
    rng = np.random.default_rng(2)
    f = rng.normal(size=(200, 2)) * 0.05
    b = rng.normal(size=(2, 10, 2))
    values = np.vstack([f[:100] @ b[0].T, f[100:] @ b[1].T]) + 0.005 * rng.normal(size=(200, 10))
    panel = with_factors(Panel.from_wide(values, universe="all"), f, ("a", "b"))
    error = {}
    for mode in MODES:
        model, _ = fitted(panel, ("a", "b"), **mode)
        error[str(mode)] = np.abs(model.estimates.loadings - b[1]).max()
    assert error["{}"] > 0.3
    assert error["{'window': 40}"] < 0.06
    assert error["{'half_life': 20.0}"] < 0.2


# ------------------------------------------------------------------------------------ time


@pytest.mark.parametrize("mode", MODES, ids=ids)
def test_nothing_later_changes_a_row_by_a_bit(mode):
    _, panel = simulated(missing=0.1, live=1)
    model, _ = fitted(panel.between(0, 60), **mode)
    s = 80
    values, factors = np.array(panel.values), np.array(panel.observed_factors)
    values[panel.index.period_codes >= s] = 9.0
    factors[s:] = -7.0
    before = model.extract(panel)
    changed = model.extract(with_factors(panel.with_values(values), factors))
    cut = model.extract(panel.between(0, s + 1))
    n = panel.offsets[s + 1]
    for other in (changed, cut):
        for part in ("alpha", "residual_variance"):
            np.testing.assert_array_equal(
                getattr(other.measurement, part)[:n], getattr(before.measurement, part)[:n]
            )
        np.testing.assert_array_equal(other.asset_betas[: s + 1], before.asset_betas[: s + 1])
    if mode:
        assert np.abs(changed.asset_betas[s + 1] - before.asset_betas[s + 1]).max() > 0.01


@pytest.mark.parametrize("mode", MODES, ids=ids)
def test_a_panel_right_after_training_agrees_with_one_reaching_back(mode):
    _, panel = simulated(missing=0.1, live=1)
    panel = panel.mask((panel.asset_codes == 3) & (panel.index.period_codes < 70))
    model, _ = fitted(panel.between(0, 70).select(panel.assets[::-1]), **mode)
    whole, after = model.extract(panel), model.extract(panel.between(70, 121))
    np.testing.assert_allclose(after.asset_betas, whole.asset_betas[70:], atol=1e-13)
    np.testing.assert_allclose(
        after.measurement.residual_variance, whole.between(70, 121).measurement.residual_variance, rtol=1e-9
    )
    twin, _ = fitted(panel.between(0, 70), **mode)
    np.testing.assert_array_equal(
        twin.extract(panel.between(70, 121)).asset_betas, twin.extract(panel).asset_betas[70:]
    )
    if mode:
        # the betas that fit reports are those of the first row after training
        known = np.isfinite(twin.estimates.loadings).all(axis=1)
        np.testing.assert_allclose(
            twin.extract(panel).asset_betas[70][known], twin.estimates.loadings[known], atol=1e-14
        )
        assert twin.sequential
        with pytest.raises(GapError, match="ObservedFactorModel"):
            model.extract(panel.between(75, 121))
    else:
        assert not twin.sequential
        model.extract(panel.between(75, 121))


def test_a_live_tail_does_not_change_the_fit():
    for mode in MODES:
        _, panel = simulated(missing=0.1, live=3)
        one, two = fitted(panel, **mode)[0], fitted(panel.between(0, 120), **mode)[0]
        np.testing.assert_array_equal(one.estimates.loadings, two.estimates.loadings)
        state = one.extract(panel)
        assert state.n_realised == 120
        assert np.isfinite(state.asset_betas[120:]).all()


# ------------------------------------------------------------------------------------ missing and new


@pytest.mark.parametrize("mode", MODES, ids=ids)
def test_short_histories_and_gaps_in_factors_are_counted(mode):
    truth, panel = simulated()
    values, factors = panel.wide().copy(), np.array(truth.factors)
    values[:-7, 2] = np.nan  # seven values for the eight that three factors and an alpha need
    factors[[5, 6, 50], [0, 1, 2]] = np.nan
    panel = with_factors(panel.with_values(panel.index.gather(values)), factors)
    model, summary = fitted(panel, **mode)
    assert np.isnan(model.estimates.loadings[2]).all()
    assert np.isfinite(np.delete(model.estimates.loadings, 2, axis=0)).all()
    assert summary.warnings == (
        "1 asset with fewer than 8 usable observations, or factors collinear in them: no betas",
        "3 periods with an unknown factor: not used",
    )
    state = model.extract(panel)
    assert state.metadata["n_assets_without_loadings"] == 1
    assert state.metadata["n_periods_without_factors"] == 3
    assert np.isnan(state.factor_returns[5, 0])
    assert np.isfinite(state.factor_returns[5, 1:]).all()
    assert np.isfinite(state.measurement.residual_variance).all()
    # a value in a period without factors is as good as none
    values[5:7] = 1e6
    spoiled = with_factors(panel.with_values(panel.index.gather(values)), factors)
    np.testing.assert_array_equal(fitted(spoiled, **mode)[0].estimates.loadings, model.estimates.loadings)
    lenient, _ = fitted(panel, min_observations=6, **mode)
    assert np.isfinite(lenient.estimates.loadings).all()


def test_an_asset_with_collinear_history_has_no_betas():
    truth, panel = simulated(n_factors=2)
    factors = np.array(truth.factors)
    factors[:30, 1] = 2.0 * factors[:30, 0]
    values = panel.wide().copy()
    values[30:, 0] = np.nan
    panel = with_factors(panel.with_values(panel.index.gather(values)), factors, NAMES[:2])
    model, summary = fitted(panel, NAMES[:2])
    assert np.isnan(model.estimates.loadings[0]).all()
    assert np.isfinite(model.estimates.loadings[1:]).all()
    assert "1 asset" in summary.warnings[0]


def test_new_assets():
    _, panel = simulated(live=1)
    for mode in MODES:
        model, _ = fitted(panel.select(panel.assets[:12]).between(0, 60), **mode)
        state = model.extract(panel)
        fresh = state.asset_betas[:, 12:]
        if mode:  # they build a history of their own
            assert np.isnan(fresh[:8]).all()
            assert np.isfinite(fresh[8:]).all()
        else:
            assert np.isnan(fresh).all()
            assert state.metadata["n_assets_without_loadings"] == 3
        alone = model.extract(panel.select(panel.assets[:12]))
        np.testing.assert_allclose(state.asset_betas[:, :12], alone.asset_betas, atol=1e-13)
    strangers = replace(panel, assets=np.array([f"X{i}" for i in range(15)]))
    with pytest.raises(UnknownAssetsError, match="ObservedFactorModel"):
        fitted(panel)[0].extract(strangers)
    later = fitted(panel.between(0, 60), window=40)[0].extract(strangers.between(60, 121))
    assert np.isnan(later.asset_betas[:8]).all()


# ------------------------------------------------------------------------------------ behaviour


@pytest.mark.parametrize("mode", MODES, ids=ids)
@pytest.mark.parametrize("factor", [2.0**20, 1e-4, 1e6])
def test_scale_free(mode, factor):
    _, panel = simulated(missing=0.2)
    one, two = fitted(panel, **mode)[0], fitted(panel.with_values(factor * panel.values), **mode)[0]
    np.testing.assert_allclose(two.estimates.loadings, factor * one.estimates.loadings, rtol=1e-9)
    variance = factor**2 * one.estimates.residual_variance
    np.testing.assert_allclose(two.estimates.residual_variance, variance, rtol=1e-9)
    # and in the units of the factors
    percent = with_factors(panel, 100.0 * panel.observed_factors)
    np.testing.assert_allclose(
        100.0 * fitted(percent, **mode)[0].estimates.loadings, one.estimates.loadings, rtol=1e-9
    )


@pytest.mark.parametrize("mode", MODES, ids=ids)
def test_permuting_assets_permutes_the_answer(mode):
    _, panel = simulated(missing=0.2)
    order = np.random.default_rng(0).permutation(15)
    one = fitted(panel, **mode)[0].extract(panel).asset_betas
    permuted = panel.select(panel.assets[order])
    two = fitted(permuted, **mode)[0].extract(permuted).asset_betas
    np.testing.assert_allclose(two, one[:, order], atol=1e-12)


@pytest.mark.parametrize("mode", MODES, ids=ids)
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
def test_the_pipeline_runs_with_every_forecaster_and_is_saved_exactly(mode, forecaster, tmp_path):
    truth, panel = simulated(n_periods=140, premia=(0.05, 0.03, 0.02), missing=0.1, live=1)
    pipeline = LatentFactorForecastPipeline(
        model=ObservedFactorModel(ObservedFactorConfig(factors=NAMES, **mode)),
        forecaster=forecaster,
        mapper=BetaLambdaMapper(include_alpha=False),
    )
    pipeline.fit(panel.between(0, 100))
    forecast = pipeline.predict(panel, start=panel.times[100]).asset_forecast
    assert np.isfinite(forecast.wide()).all()
    assert np.isfinite(forecast.variance).all()
    if isinstance(forecaster, ExpandingMeanFactorForecaster):
        assert np.corrcoef(forecast.wide()[-1], truth.loadings @ truth.premia)[0, 1] > 0.9
    pipeline.save(tmp_path / "it")
    loaded = LatentFactorForecastPipeline.load(tmp_path / "it")
    for later in (panel, panel.between(100, 141)):
        again = loaded.predict(later, start=panel.times[100]).asset_forecast.wide()
        np.testing.assert_allclose(again, forecast.wide(), rtol=1e-12)
    assert loaded.model.summary == pipeline.model.summary


def test_alpha_gives_back_the_historical_mean():
    _, panel = simulated()
    pipeline = LatentFactorForecastPipeline(
        model=ObservedFactorModel(ObservedFactorConfig(factors=NAMES)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(include_alpha=True),
    )
    pipeline.fit(panel)
    forecast = pipeline.predict(panel.extend(1)).asset_forecast.wide()[-1]
    np.testing.assert_allclose(forecast, panel.wide().mean(axis=0), atol=1e-13)


def test_walk_forward_runs():
    _, panel = simulated(n_factors=1)
    pipeline = LatentFactorForecastPipeline(
        model=ObservedFactorModel(ObservedFactorConfig(factors=("Mkt-RF",), window=36)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )
    result = walk_forward(pipeline, panel, ExpandingWindow(first=60, step=30))
    assert all(np.isfinite(block.expected_values).all() for block in result.blocks)


# ------------------------------------------------------------------------------------ hostile input


def test_factors_that_are_not_there():
    _, panel = simulated()
    with pytest.raises(PanelMismatchError, match=r"lacks \('UMD',\): it has \('Mkt-RF', 'SMB', 'HML'\)"):
        fitted(panel, ("Mkt-RF", "UMD"))
    bare = replace(panel, observed_factors=None, observed_factor_names=())
    with pytest.raises(PanelMismatchError, match=r"it has none: panel\.with_observed_factors"):
        fitted(bare)
    model, _ = fitted(panel)
    with pytest.raises(PanelMismatchError, match="it has none"):
        model.extract(bare)
    with pytest.raises(MissingCapabilityError):
        model.factor_weights(panel)
    # factors in another order and with others among them are found by name
    shuffled = with_factors(panel, panel.observed_factors[:, [2, 0, 1]], ("HML", "Mkt-RF", "SMB"))
    np.testing.assert_array_equal(fitted(shuffled)[0].estimates.loadings, model.estimates.loadings)


def test_too_little_data_and_collinear_factors():
    truth, panel = simulated()
    with pytest.raises(InsufficientDataError, match=r"3 factors need 8 periods .* got 7 of 7"):
        fitted(panel.between(0, 7))
    fitted(panel.between(0, 8))
    with pytest.raises(InsufficientDataError, match="no asset has the 8 observations"):
        fitted(panel.mask(panel.index.period_codes % 2 == panel.asset_codes % 2).between(0, 14))
    factors = np.array(truth.factors)
    factors[:, 2] = factors[:, 0] - 3 * factors[:, 1]
    with pytest.raises(InsufficientDataError, match=r"are collinear in training"):
        fitted(with_factors(panel, factors))
    factors[:, 2] = 0.3
    with pytest.raises(InsufficientDataError, match=r"and a constant are collinear"):
        fitted(with_factors(panel, factors))
    fitted(with_factors(panel, factors), alpha=False)
    factors[:, 2] = np.nan
    with pytest.raises(InsufficientDataError, match="got 0 of 120"):
        fitted(with_factors(panel, factors))


@pytest.mark.parametrize(
    "options",
    [
        {"factors": ()},
        {"factors": "Mkt-RF"},
        {"factors": ("a", "a")},
        {"window": 24, "half_life": 12},
        {"window": 2},
        {"window": 24.0},
        {"window": True},
        {"window": 10, "min_observations": 11},
        {"min_observations": 2},
        {"half_life": 0.0},
        {"half_life": np.inf},
        {"half_life": np.nan},
        {"half_life": 0.5},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigurationError):
        ObservedFactorConfig(**{"factors": ("a",), **options})


def test_defaults_of_the_minimum():
    assert ObservedFactorConfig(factors=NAMES).needed == 8
    assert ObservedFactorConfig(factors=NAMES, alpha=False).needed == 6
    assert ObservedFactorConfig(factors=NAMES, window=6).needed == 6
    assert ObservedFactorConfig(factors=["a", "b"], min_observations=30).needed == 30
    assert ObservedFactorConfig(factors=["a", "b"]).factors == ("a", "b")


def test_estimates_cannot_be_written_to():
    _, panel = simulated()
    model, _ = fitted(panel, half_life=12)
    for array in (model.estimates.loadings, model.estimates.sums.grams, model.estimates.design.centre):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


# ------------------------------------------------------------------------------------ the kernel


def test_sums_one_period_at_a_time_are_the_sums_at_once():
    rng = np.random.default_rng(0)
    values, factors = rng.normal(size=(30, 6)), rng.normal(size=(30, 2))
    values[rng.uniform(size=values.shape) < 0.2] = np.nan
    factors[4, 1] = np.nan
    design = Design.of(factors, intercept=True)
    rows = design.rows(factors)
    assert np.isnan(rows[4]).all()
    once = RegressionSums.of(values, rows)
    sums = RegressionSums.zero(6, 3)
    for t in range(30):
        sums = sums.then(values[t], rows[t], 1.0)
    for name, part in vars(once).items():
        np.testing.assert_allclose(getattr(sums, name), part, atol=1e-12)
    alpha, slopes, _ = solve_regressions(once.take(np.array([2, -1])), design, 5)
    assert np.isnan(slopes[1]).all()
    used = np.isfinite(values[:, 2]) & np.isfinite(factors).all(axis=1)
    c = np.linalg.lstsq(np.column_stack([np.ones(30), factors])[used], values[used, 2])[0]
    np.testing.assert_allclose([alpha[0], *slopes[0]], c, atol=1e-13)
