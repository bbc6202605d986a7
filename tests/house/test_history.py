"""One rule for how something fitted meets a later panel: it reaches back, it continues, or it is refused."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import (
    AR1FactorForecaster,
    BetaLambdaMapper,
    EWMAFactorForecaster,
    ExpandingMeanFactorForecaster,
    HistoricalMeanPredictor,
    LatentFactorForecastPipeline,
    Panel,
    PCAConfig,
    PCAModel,
    RollingMeanFactorForecaster,
    VARFactorForecaster,
)
from latentfactors.errors import GapError
from latentfactors.history import continues
from latentfactors.simulate import static_panel
from tests.house.small import full_index, hand_state, month_ends

FORECASTERS = [
    ExpandingMeanFactorForecaster(),
    EWMAFactorForecaster(),
    RollingMeanFactorForecaster(window=10),
    AR1FactorForecaster(),
    VARFactorForecaster(lags=2),
]


def dates(*days):
    return np.array(days, dtype="datetime64[D]")


@pytest.mark.parametrize("forecaster", FORECASTERS, ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_reaching_back_and_continuing_agree_to_the_bit(forecaster, missing):
    panel = static_panel(n_periods=60, n_assets=12, n_factors=2, missing=missing, live=1, seed=2).panel
    pipeline = LatentFactorForecastPipeline(
        model=PCAModel(PCAConfig(n_factors=2)), forecaster=forecaster, mapper=BetaLambdaMapper()
    )
    pipeline.fit(panel.between(0, 40))
    back = pipeline.predict(panel, start=panel.times[40], horizon=2)
    on = pipeline.predict(panel.between(40, 61), horizon=2)
    np.testing.assert_array_equal(on.factor_forecast.premia, back.factor_forecast.premia)
    np.testing.assert_array_equal(on.factor_forecast.covariance, back.factor_forecast.covariance)
    np.testing.assert_array_equal(on.asset_forecast.expected_values, back.asset_forecast.expected_values)
    assert np.isfinite(on.asset_forecast.expected_values).all()
    np.testing.assert_array_equal(on.asset_forecast.origins, back.asset_forecast.origins)
    # one row at a time, too
    alone = pipeline.predict(panel.between(40, 41), horizon=2)
    np.testing.assert_array_equal(
        alone.asset_forecast.expected_values, back.between(0, 1).asset_forecast.expected_values
    )


def test_the_panel_wins_where_it_reaches_back():
    factors = np.random.default_rng(0).normal(size=(20, 1))
    forecaster = ExpandingMeanFactorForecaster()
    forecaster.fit(hand_state(factors))
    revised = factors + 1.0
    longer = hand_state(np.vstack([revised[:5], revised]), times=month_ends(25, "1999-08"))
    np.testing.assert_allclose(forecaster.predict(longer).premia[-1], longer.factors.values[:-1].mean(axis=0))


@pytest.mark.parametrize("start", ["2000-02", "2001-08", "2001-10", "2003-01"])
def test_a_gap_names_both_dates(start):
    factors = np.random.default_rng(0).normal(size=(20, 1))  # 2000-01 to 2001-08
    forecaster = ExpandingMeanFactorForecaster()
    forecaster.fit(hand_state(factors))
    later = hand_state(factors[:3], times=month_ends(3, start))
    with pytest.raises(GapError) as caught:
        forecaster.predict(later)
    text = str(caught.value)
    assert "ExpandingMeanFactorForecaster was trained on 2000-01-31..2001-08-31" in text
    assert f"starts at {month_ends(1, start)[0]}" in text
    assert "starts right after 2001-08-31" in text


def test_a_model_without_memory_has_no_gap():
    panel = static_panel(n_periods=60, n_assets=12, n_factors=2, seed=2).panel
    model = PCAModel(PCAConfig(n_factors=2))
    model.fit(panel.between(0, 40))
    np.testing.assert_array_equal(
        model.extract(panel.between(50, 60)).factor_returns, model.extract(panel).factor_returns[50:]
    )


@pytest.mark.parametrize(
    ("frequency", "last", "first", "answer"),
    [
        ("M", "2020-01-31", "2020-02-29", True),
        ("M", "2020-01-31", "2020-03-31", False),
        ("Q", "2019-12-31", "2020-03-31", True),
        ("W", "2020-01-05", "2020-01-12", True),
        ("W", "2020-01-05", "2020-01-19", False),
        ("B", "2020-04-09", "2020-04-14", True),  # Easter: a holiday is no gap
        ("B", "2020-04-09", "2020-05-14", False),
        ("D", "2020-12-31", "2021-01-01", True),
        ("D", "2020-12-31", "2021-02-01", False),
    ],
)
def test_what_comes_next_depends_on_the_frequency(frequency, last, first, answer):
    index = full_index(dates(first), 1, frequency)
    if answer:
        assert continues(dates("2000-01-31")[0], dates(last)[0], index, "it")
    else:
        with pytest.raises(GapError, match=f"{last}.*{first}"):
            continues(dates("2000-01-31")[0], dates(last)[0], index, "it")


def test_dates_without_frequency_continue_nothing():
    index = full_index(dates("2020-02-29"), 1, None)
    with pytest.raises(GapError, match="no frequency that would tell"):
        continues(dates("2000-01-31")[0], dates("2020-01-31")[0], index, "it")
    assert not continues(dates("2020-02-29")[0], dates("2020-02-29")[0], index, "it")


def test_integer_periods():
    index = full_index(np.array([7, 8]), 1, None)
    assert continues(np.int64(0), np.int64(6), index, "it")
    assert not continues(np.int64(7), np.int64(9), index, "it")
    with pytest.raises(GapError, match=r"0\.\.5"):
        continues(np.int64(0), np.int64(5), index, "it")


def test_integers_do_not_meet_dates():
    with pytest.raises(GapError, match="dates and integer periods"):
        continues(dates("2000-01-31")[0], dates("2020-01-31")[0], full_index(np.array([7]), 1, None), "it")
    with pytest.raises(GapError, match="dates and integer periods"):
        continues(np.int64(0), np.int64(5), full_index(dates("2000-01-31"), 1, "M"), "it")


def test_historical_mean_continues_from_its_sums():
    panel = static_panel(n_periods=60, n_assets=12, n_factors=2, missing=0.3, seed=2).panel
    predictor = HistoricalMeanPredictor(min_periods=3)
    predictor.fit(panel.between(0, 40))
    back = predictor.predict(panel, start=panel.times[40]).asset_forecast.expected_values
    on = predictor.predict(panel.between(40, 60)).asset_forecast.expected_values
    np.testing.assert_array_equal(on, back)
    with pytest.raises(GapError, match="HistoricalMeanPredictor was trained on"):
        predictor.predict(panel.between(41, 60))
    with pytest.raises(GapError, match=r"1990-01-31\.\.1993-04-30"):
        predictor.predict(panel.between(1, 60))


def test_historical_mean_continues_on_a_panel_with_other_labels():
    wide = static_panel(n_periods=30, n_assets=4, n_factors=1, seed=2).panel.wide()
    first = Panel.from_wide(
        wide[:20], universe="all", times=month_ends(20), assets=list("abcd"), frequency="M"
    )
    later = Panel.from_wide(
        wide[20:][:, [2, 0, 1]],
        universe="all",
        times=month_ends(30)[20:],
        assets=["c", "a", "x"],
        frequency="M",
    )
    predictor = HistoricalMeanPredictor()
    predictor.fit(first)
    found = predictor.predict(later).asset_forecast.wide()
    np.testing.assert_allclose(found[0], [wide[:20, 2].mean(), wide[:20, 0].mean(), np.nan])
    np.testing.assert_allclose(found[-1, 2], wide[20:29, 1].mean())  # its own short past
