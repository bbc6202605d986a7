"""The pipeline: pairs, checkpoints, starts, horizons, copies, files."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import (
    AR1FactorForecaster,
    BetaLambdaMapper,
    EWMAFactorForecaster,
    ExpandingMeanFactorForecaster,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NativeMapper,
    Panel,
    PCAConfig,
    PCAModel,
    Predictor,
)
from latentfactors.errors import (
    ConfigurationError,
    HorizonError,
    MissingCapabilityError,
    NotFittedError,
    PanelError,
    StoreError,
)
from latentfactors.simulate import static_panel
from tests.house.small import PersistentConfig, PersistentModel, TurnsConfig, TurnsModel

PANEL = static_panel(n_periods=80, n_assets=12, n_factors=2, premia=(0.05, 0.03), live=1, seed=3).panel


def pca_pipeline(forecaster=None, **options):
    return LatentFactorForecastPipeline(
        model=PCAModel(PCAConfig(n_factors=2, **options)),
        forecaster=forecaster or ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )


def turns_pipeline(**options):
    return LatentFactorForecastPipeline(
        model=TurnsModel(TurnsConfig(**options)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )


# ------------------------------------------------------------------------------------ the flow


def test_forecasts_equal_a_hand_written_flow():
    pipeline = pca_pipeline()
    pipeline.fit(PANEL.between(0, 60))
    wide = PANEL.wide()
    basis = np.linalg.svd(wide[:60], full_matrices=False)[2][:2].T
    factors = wide @ basis  # signs cancel in the product
    for horizon in (1, 4):
        forecast = pipeline.predict(PANEL, horizon=horizon).asset_forecast
        for p in (60, 70, 80):
            expected = basis @ np.nanmean(factors[:p], axis=0)
            np.testing.assert_allclose(forecast.wide()[p], expected, rtol=1e-9)
        assert str(forecast.origins[-1]) == str(PANEL.times[79])
    np.testing.assert_array_equal(forecast.in_sample, np.arange(81) < 60)
    assert str(pipeline.predict(PANEL, horizon=4).asset_forecast.targets[-1]) == "1996-12-31"
    prediction = pipeline.predict(PANEL)
    np.testing.assert_allclose(
        prediction.reconstruction[: 80 * 12].reshape(80, 12), factors[:80] @ basis.T, rtol=1e-9
    )
    assert np.isnan(prediction.reconstruction[80 * 12 :]).all()  # a live period has no realised factors


def test_start_returns_exactly_those_rows():
    pipeline = pca_pipeline(AR1FactorForecaster())
    pipeline.fit(PANEL.between(0, 60))
    whole = pipeline.predict(PANEL)
    for start in (PANEL.times[70], "1995-11", "1995-11-30", "1995-11-02"):
        part = pipeline.predict(PANEL, start=start)
        assert part.index.n_periods == 11
        np.testing.assert_array_equal(part.index.times, PANEL.times[70:])
        np.testing.assert_array_equal(
            part.asset_forecast.expected_values, whole.asset_forecast.expected_values[70 * 12 :]
        )
        np.testing.assert_array_equal(part.asset_forecast.variance, whole.asset_forecast.variance[70 * 12 :])
        np.testing.assert_array_equal(part.reconstruction, whole.reconstruction[70 * 12 :])
        np.testing.assert_array_equal(part.state.factor_returns, whole.state.factor_returns[70:])
        np.testing.assert_array_equal(part.factor_forecast.premia, whole.factor_forecast.premia[70:])
        assert part.asset_forecast.origins[0] == PANEL.times[69]
    same = whole.between(70, 81)
    np.testing.assert_array_equal(same.reconstruction, part.reconstruction)
    with pytest.raises(PanelError, match="not in this panel"):
        pipeline.predict(PANEL, start="2030-01")


def test_the_live_period_is_forecast_out_of_sample():
    pipeline = pca_pipeline()
    pipeline.fit(PANEL)  # all that is observed is training; the live period is not
    frame = pipeline.predict(PANEL).asset_forecast.frame()
    assert frame.height == 12
    assert set(frame["timestamp"].cast(str)) == {"1996-08-31"}
    assert set(frame["target_timestamp"].cast(str)) == {"1996-09-30"}


def test_fit_does_not_see_the_live_tail_and_the_training_values_only():
    one, two = pca_pipeline(), pca_pipeline()
    one.fit(PANEL.between(0, 60))
    other = PANEL.with_values(np.where(PANEL.index.period_codes >= 60, np.nan, PANEL.values))
    two.fit(other)
    np.testing.assert_array_equal(
        one.predict(PANEL).asset_forecast.expected_values, two.predict(PANEL).asset_forecast.expected_values
    )


def test_summary_is_the_models_with_the_forecasters_warnings():
    values = PANEL.values.copy()
    values[3 * 12 : 5 * 12] = np.nan
    pipeline = pca_pipeline()
    summary = pipeline.fit(PANEL.with_values(values))
    assert summary.warnings == (
        "2 periods with fewer than 4 observed assets: no factors",
        "2 training periods with missing factors skipped",
    )
    assert summary.converged
    assert summary.reason == "complete data: closed form"
    assert summary.n_iterations == 1
    assert 0 < summary.metrics["total_r2"] < 1
    assert summary.objective_name == "SSE / SST of observed cells"
    assert summary.seconds > 0
    assert summary.loglikelihood is None


# ------------------------------------------------------------------------------------ horizons


def test_horizons():
    pipeline = pca_pipeline()
    pipeline.fit(PANEL.between(0, 60))
    for horizon in (0, -1, 1.5, "1", True):
        with pytest.raises(HorizonError, match="horizon must be a whole number"):
            pipeline.predict(PANEL, horizon=horizon)
    panel = PANEL.between(0, 80)
    native = LatentFactorForecastPipeline(
        model=PersistentModel(PersistentConfig(rho=0.5)),
        forecaster=NativeFactorForecaster(),
        mapper=NativeMapper(),
    )
    native.fit(panel.between(0, 60))
    nowcast = native.predict(panel, horizon=0).asset_forecast
    np.testing.assert_array_equal(nowcast.wide()[1:], panel.wide()[:-1])
    np.testing.assert_array_equal(nowcast.targets[1:], panel.times[:-1])
    ahead = native.predict(panel, horizon=2, start=panel.times[70]).asset_forecast
    np.testing.assert_allclose(ahead.wide(), panel.wide()[69:79] / 4)
    mixed = LatentFactorForecastPipeline(
        model=PersistentModel(PersistentConfig()),
        forecaster=NativeFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )
    mixed.fit(panel)
    with pytest.raises(HorizonError):  # loadings times premia cannot nowcast
        mixed.predict(panel, horizon=0)
    np.testing.assert_allclose(mixed.predict(panel).asset_forecast.wide()[5], panel.wide()[4].mean() / 2)


# ------------------------------------------------------------------------------------ checkpoints


def test_checkpoints_pair_betas_with_their_own_forecaster():
    pipeline = turns_pipeline()
    summary = pipeline.fit(PANEL.between(0, 60))
    assert summary.warnings == ("turned around",)
    one, two = (pipeline.predict(PANEL, checkpoint=label) for label in (1, 2))
    assert (one.state.checkpoint, two.state.checkpoint) == (1, 2)
    # other betas, other premia, the same forecasts: only right pairs do that
    assert np.nanmax(np.abs(one.state.asset_betas - two.state.asset_betas)) > 0.1
    assert np.nanmax(np.abs(one.factor_forecast.premia - two.factor_forecast.premia)) > 0.01
    np.testing.assert_allclose(
        one.asset_forecast.expected_values, two.asset_forecast.expected_values, rtol=1e-9, atol=1e-12
    )
    # also where the forecaster's own training history is all it has
    later = PANEL.between(60, 81)
    np.testing.assert_allclose(
        pipeline.predict(later, checkpoint=1).asset_forecast.expected_values,
        one.asset_forecast.expected_values[60 * 12 :],
        rtol=1e-9,
    )
    for label in (1, 2):
        state = pipeline.model.extract(PANEL.between(0, 60), label)
        forecaster = pipeline._fitted_forecasters()[label]
        np.testing.assert_allclose(forecaster.estimates.mean, state.factor_returns.mean(axis=0), rtol=1e-10)


def test_the_default_checkpoint_is_the_configs():
    for choice, label in [("last", 2), ("best", 1), (1, 1), (2, 2)]:
        pipeline = turns_pipeline(default_checkpoint=choice)
        pipeline.fit(PANEL.between(0, 60))
        prediction = pipeline.predict(PANEL)
        assert prediction.state.checkpoint == label
        assert pipeline.model.fitted.default == label
        np.testing.assert_array_equal(
            pipeline.forecaster.estimates.mean, pipeline._fitted_forecasters()[label].estimates.mean
        )
        np.testing.assert_array_equal(
            prediction.state.asset_betas, pipeline.predict(PANEL, checkpoint=label).state.asset_betas
        )
    pipeline = turns_pipeline()
    pipeline.fit(PANEL)
    assert pipeline.predict(PANEL, checkpoint="best").state.checkpoint == 1
    assert pipeline.predict(PANEL, checkpoint="last").state.checkpoint == 2
    with pytest.raises(ConfigurationError, match=r"checkpoint 3 does not exist, available: \[1, 2\]"):
        pipeline.predict(PANEL, checkpoint=3)
    with pytest.raises(ConfigurationError, match="'best' needs validation"):
        turns_pipeline(default_checkpoint="best", validates=False).fit(PANEL)


def test_checkpoint_table():
    pipeline = turns_pipeline()
    pipeline.fit(PANEL.between(0, 60))
    table = pipeline.checkpoint_table(PANEL)
    assert table["checkpoint"].to_list() == ["1", "2"]
    assert table["default"].to_list() == [False, True]
    assert table["best"].to_list() == [True, False]
    assert table["sample"].to_list() == ["out of sample"] * 2
    forecast = pipeline.predict(PANEL, start=PANEL.times[60]).asset_forecast.expected_values
    realised = PANEL.values[60 * 12 :]
    seen = np.isfinite(realised)
    r2 = 1 - np.sum((realised - forecast)[seen] ** 2) / np.sum(realised[seen] ** 2)
    np.testing.assert_allclose(table["predictive_r2"].to_numpy(), r2, rtol=1e-9)
    assert table["total_r2"].min() > r2
    assert pipeline.checkpoint_table(PANEL.between(0, 60))["sample"].to_list() == ["in sample"] * 2


def test_a_forecasters_warning_names_its_checkpoint():
    values = PANEL.values.copy()
    values[3 * 12 + 1 : 4 * 12] = np.nan  # one asset is not enough for two factors
    model = TurnsModel(TurnsConfig())
    fill = np.nan_to_num(values)
    model._estimate = lambda panel: TurnsModel._estimate(model, panel.with_values(fill[: panel.n_rows]))  # type: ignore[method-assign]
    model.clone = lambda: model  # type: ignore[method-assign]
    pipeline = LatentFactorForecastPipeline(
        model=model, forecaster=ExpandingMeanFactorForecaster(), mapper=BetaLambdaMapper()
    )
    assert pipeline.fit(PANEL.with_values(values)).warnings == (
        "turned around",
        "checkpoint 1: 1 training period with missing factors skipped",
        "checkpoint 2: 1 training period with missing factors skipped",
    )


# ------------------------------------------------------------------------------------ copies, identity, files


def test_originals_stay_unfitted():
    model, forecaster = PCAModel(PCAConfig(n_factors=2)), ExpandingMeanFactorForecaster()
    pipeline = LatentFactorForecastPipeline(model=model, forecaster=forecaster, mapper=BetaLambdaMapper())
    with pytest.raises(NotFittedError, match="the pipeline is not fitted"):
        pipeline.predict(PANEL)
    pipeline.fit(PANEL.between(0, 60))
    for part, call in ((model, lambda: model.estimates), (forecaster, lambda: forecaster.estimates)):
        with pytest.raises(NotFittedError):
            call()
        assert "unfitted" in repr(part)
    twin = pipeline.clone()
    with pytest.raises(NotFittedError):
        twin.predict(PANEL)
    twin.fit(PANEL.between(0, 30))
    assert str(pipeline.model.fitted.span.end) == "1994-12-31"  # the first one is left alone
    assert isinstance(pipeline, Predictor)


def test_a_failed_fit_changes_nothing():
    pipeline = pca_pipeline(AR1FactorForecaster())
    pipeline.fit(PANEL.between(0, 60))
    before = pipeline.predict(PANEL).asset_forecast.expected_values
    with pytest.raises(Exception, match="train longer"):
        pipeline.fit(PANEL.between(0, 3))  # enough for the model, not for the forecaster
    np.testing.assert_array_equal(pipeline.predict(PANEL).asset_forecast.expected_values, before)


def test_identity_follows_every_option_and_nothing_else():
    def build(n=2, half_life=3.0, include_alpha=True):
        return LatentFactorForecastPipeline(
            model=PCAModel(PCAConfig(n_factors=n)),
            forecaster=EWMAFactorForecaster(half_life=half_life),
            mapper=BetaLambdaMapper(include_alpha=include_alpha),
        )

    base = build()
    fitted = build()
    fitted.fit(PANEL)
    assert base.identity == build().identity == fitted.identity == fitted.clone().identity
    others = [build(n=3), build(half_life=4.0), build(include_alpha=False), pca_pipeline()]
    assert len({base.identity, *(other.identity for other in others)}) == 5


@pytest.mark.parametrize("build", [pca_pipeline, turns_pipeline], ids=["plain", "checkpoints"])
def test_save_and_load_are_exact(build, tmp_path):
    pipeline = build()
    with pytest.raises(NotFittedError):
        pipeline.save(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    pipeline.fit(PANEL.between(0, 60))
    pipeline.save(tmp_path / "pipeline")
    loaded = LatentFactorForecastPipeline.load(tmp_path / "pipeline")
    for panel in (PANEL, PANEL.between(60, 81)):  # the second one needs the stored history
        for label in pipeline.model.available_checkpoints:
            one, two = (each.predict(panel, checkpoint=label, horizon=2) for each in (pipeline, loaded))
            np.testing.assert_array_equal(
                one.asset_forecast.expected_values, two.asset_forecast.expected_values
            )
            np.testing.assert_array_equal(one.asset_forecast.variance, two.asset_forecast.variance)
    assert loaded.identity == pipeline.identity
    assert loaded.forecaster.config == pipeline.forecaster.config
    assert loaded.model.summary == pipeline.model.summary
    with pytest.raises(StoreError, match="expected a PCAModel"):
        PCAModel.load(tmp_path / "pipeline")


def test_validation_is_asked_of_the_model():
    assert turns_pipeline().with_validation(5).model.config.default_checkpoint == "best"
    with pytest.raises(MissingCapabilityError, match="PCAModel has no validation"):
        pca_pipeline().with_validation(5)


def test_parts_are_checked():
    model, mean, mapper = (
        PCAModel(PCAConfig(n_factors=1)),
        ExpandingMeanFactorForecaster(),
        BetaLambdaMapper(),
    )
    with pytest.raises(ConfigurationError, match="model must be a LatentFactorModel, got PCAConfig"):
        LatentFactorForecastPipeline(model=PCAConfig(n_factors=1), forecaster=mean, mapper=mapper)
    with pytest.raises(ConfigurationError, match="forecaster must be a FactorForecaster"):
        LatentFactorForecastPipeline(model=model, forecaster=mapper, mapper=mapper)
    with pytest.raises(ConfigurationError, match="mapper must be a AssetMapper"):
        LatentFactorForecastPipeline(model=model, forecaster=mean, mapper=mean)


def test_a_daily_panel_that_continues_training_starts_from_the_last_training_date():
    """Christmas is a weekday without data: the origin of the 26th is the 24th, whichever panel is given."""
    weekdays = np.arange(np.datetime64("2019-12-02"), np.datetime64("2019-12-28"))
    days = weekdays[np.is_busday(weekdays) & (weekdays != np.datetime64("2019-12-25"))]
    values = np.random.default_rng(0).normal(size=(len(days), 8)) * 0.01
    panel = Panel.from_wide(values, universe="all", times=days, frequency="B")
    pipeline = LatentFactorForecastPipeline(
        model=PCAModel(PCAConfig(n_factors=2)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )
    cut = int(panel.index.position("2019-12-26"))
    pipeline.fit(panel.between(0, cut))
    whole = pipeline.predict(panel, start="2019-12-26").asset_forecast
    tail = pipeline.predict(panel.between(cut, panel.n_periods)).asset_forecast
    assert [str(day) for day in whole.origins] == ["2019-12-24", "2019-12-26"]
    assert np.array_equal(tail.origins, whole.origins)
    assert np.array_equal(tail.expected_values, whole.expected_values)
    assert tail.frame().equals(whole.frame())
