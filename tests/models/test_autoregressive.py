"""Autoregressions by series: coefficients and orders of a known process, gaps, horizons, thin series."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import AutoregressivePredictor, ExpandingWindow, Panel, walk_forward
from latentfactors.errors import ConfigurationError, GapError, HorizonError, InsufficientDataError
from latentfactors.jobs import parse_job
from latentfactors.kernels.autoregression import VectorAutoregression, conditional_forecasts
from latentfactors.kernels.scalar_autoregression import choose_order, regress


def ar2(T=400, N=6, phi=(0.5, 0.3), mean=2.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.zeros((T + 100, N))
    for t in range(2, T + 100):
        y[t] = phi[0] * y[t - 1] + phi[1] * y[t - 2] + rng.normal(size=N)
    return mean + y[100:]


def panel_of(values):
    first = np.datetime64("1980-01")
    times = (first + 1 + np.arange(len(values))).astype("M8[D]") - np.timedelta64(1, "D")
    names = [f"s{i}" for i in range(values.shape[1])]
    return Panel.from_wide(
        values, universe="all", times=times, assets=names, frequency="M", value_kind="series"
    )


def fitted(values, **options):
    predictor = AutoregressivePredictor(**options)
    predictor.fit(panel_of(values))
    return predictor


def test_a_known_process_is_found():
    estimates = fitted(ar2(2000)).estimates
    assert set(estimates.orders) <= {2, 3}
    np.testing.assert_allclose(estimates.coefficients[:, :2], np.tile([0.5, 0.3], (6, 1)), atol=0.08)
    np.testing.assert_allclose(estimates.intercept / (1 - estimates.coefficients.sum(axis=1)), 2.0, atol=0.4)
    np.testing.assert_allclose(estimates.variance, 1.0, atol=0.1)


def test_orders_and_regressions_by_hand():
    y = ar2(150, 1)[:, 0]
    y[[30, 31, 77]] = np.nan
    longest, ahead = 5, 3
    rows = [
        t for t in range(longest, 150 - ahead + 1) if np.isfinite(y[[t + ahead - 1, *range(t - 5, t)]]).all()
    ]
    bic = []
    for p in range(longest + 1):
        X = np.array([[1.0, *(y[t - lag] for lag in range(1, p + 1))] for t in rows])
        target = y[np.array(rows) + ahead - 1]
        residual = target - X @ np.linalg.lstsq(X, target, rcond=None)[0]
        bic.append(len(rows) * np.log(residual @ residual / len(rows)) + (p + 1) * np.log(len(rows)))
    assert choose_order(y, longest, ahead, fixed=False) == int(np.argmin(bic))
    rows = [t for t in range(2, 150 - ahead + 1) if np.isfinite(y[[t + ahead - 1, t - 1, t - 2]]).all()]
    X = np.array([[1.0, y[t - 1], y[t - 2]] for t in rows])
    target = y[np.array(rows) + ahead - 1]
    b = np.linalg.lstsq(X, target, rcond=None)[0]
    intercept, slopes, variance = regress(y, 2, ahead)
    np.testing.assert_allclose([intercept, *slopes], b, rtol=1e-9)
    assert variance == pytest.approx(((target - X @ b) ** 2).sum() / (len(rows) - 3), rel=1e-9)


def test_gaps_are_filtered_exactly():
    """Against the conditional law of the same autoregression, computed by another kernel."""
    values = ar2(120, 3, seed=3)
    values[np.random.default_rng(4).random(values.shape) < 0.2] = np.nan
    values[:4] = ar2(4, 3)
    for horizon in (1, 3):
        predictor = fitted(values, lags=2, method="iterated")
        found = predictor.predict(panel_of(values), horizon=horizon).asset_forecast
        e = predictor.estimates
        for i in range(3):
            law = VectorAutoregression(
                e.intercept[i : i + 1], e.coefficients[i][:, None, None], np.array([[e.variance[i]]])
            )
            mean, covariance = conditional_forecasts(values[:, i : i + 1], law, horizon)
            np.testing.assert_allclose(found.wide()[4:, i], mean[4:-1, 0], rtol=1e-8)
            got = found.index.dense(found.variance)[4:, i]
            np.testing.assert_allclose(got, covariance[4:-1, 0, 0], rtol=1e-8)


def test_before_the_first_value_stands_the_stationary_law():
    predictor = fitted(ar2(), lags=2)
    e = predictor.estimates
    first = predictor.predict(panel_of(ar2())).asset_forecast
    np.testing.assert_allclose(first.wide()[0], e.intercept / (1 - e.coefficients.sum(axis=1)))
    phi1, phi2 = e.coefficients.T
    gamma0 = (1 - phi2) * e.variance / ((1 + phi2) * ((1 - phi2) ** 2 - phi1**2))
    np.testing.assert_allclose(first.index.dense(first.variance)[0], gamma0, rtol=1e-8)


def test_direct_equals_iterated_at_one_step_and_serves_its_own_horizon_only():
    values = ar2()
    panel = panel_of(values)
    one, many = fitted(values), fitted(values, method="iterated")
    np.testing.assert_array_equal(
        one.predict(panel).asset_forecast.wide(), many.predict(panel).asset_forecast.wide()
    )
    far = fitted(values, horizon=4)
    y, i = values[:, 0], 0
    p = choose_order(y, 12, 4, fixed=False)
    intercept, slopes, variance = regress(y, p, 4)
    expected = intercept + sum(slopes[lag] * y[99 - lag] for lag in range(p))
    forecast = far.predict(panel, horizon=4).asset_forecast
    assert forecast.wide()[100, i] == pytest.approx(expected)
    assert forecast.index.dense(forecast.variance)[100, i] == pytest.approx(variance)
    assert str(forecast.targets[100]) == str(panel.times[103])
    with pytest.raises(HorizonError, match=r"built for horizon=4, asked for 1.*method='iterated'"):
        far.predict(panel)


def test_intervals_cover_out_of_sample_with_gaps():
    values = ar2(600, 8, seed=5)
    holed = values.copy()
    holed[np.random.default_rng(6).random(values.shape) < 0.3] = np.nan
    for options in ({}, {"horizon": 3}):
        predictor = fitted(holed[:300], max_lags=4, **options)
        forecast = predictor.predict(panel_of(holed), horizon=options.get("horizon", 1)).asset_forecast
        h = options.get("horizon", 1)
        mean, variance = (
            forecast.wide()[300 : 600 - h + 1],
            forecast.index.dense(forecast.variance)[300 : 600 - h + 1],
        )
        inside = np.abs(values[300 + h - 1 :] - mean) < 1.645 * np.sqrt(variance)
        assert 0.87 < inside.mean() < 0.93


def test_it_goes_on_from_training_or_starts_again():
    values = ar2(200)
    values[np.random.default_rng(7).random(values.shape) < 0.2] = np.nan
    predictor, panel = AutoregressivePredictor(max_lags=3), panel_of(values)
    predictor.fit(panel.between(0, 150))
    whole = predictor.predict(panel, start=panel.times[150]).asset_forecast
    after = predictor.predict(panel.between(150, 200)).asset_forecast
    np.testing.assert_allclose(after.wide(), whole.wide(), rtol=1e-9)
    np.testing.assert_allclose(after.variance, whole.variance, rtol=1e-9)
    with pytest.raises(GapError):
        predictor.predict(panel.between(160, 200))


def test_thin_series_and_strangers_get_their_own_mean():
    values = ar2(60, 3)
    values[:57, 1] = np.nan
    predictor = fitted(values, max_lags=2)
    assert predictor.estimates.orders[1] == -1
    assert "1 series with fewer than 5 values" in predictor.summary.warnings[0]
    found = predictor.predict(panel_of(values).extend(1)).asset_forecast
    assert found.wide()[60, 1] == pytest.approx(values[57:, 1].mean())
    assert np.isnan(found.index.dense(found.variance)[60, 1])
    with pytest.raises(InsufficientDataError, match="no series has 5"):
        fitted(values[:4])


def test_it_beats_the_mean_in_a_walk_forward():
    from latentfactors import HistoricalMeanPredictor

    panel, splits = panel_of(ar2(200)), ExpandingWindow(first=120, step=20)
    scores = {}
    for predictor in (AutoregressivePredictor(max_lags=4), HistoricalMeanPredictor()):
        result = walk_forward(predictor, panel, splits)
        wide = np.vstack([block.expected_values.reshape(-1, 6) for block in result.blocks])
        scores[type(predictor).__name__] = np.mean((panel.wide()[120:] - wide) ** 2)
    assert scores["AutoregressivePredictor"] < 0.7 * scores["HistoricalMeanPredictor"]


def test_trends_are_shrunk_and_said():
    trend = np.cumsum(1 + np.random.default_rng(8).normal(size=(200, 2)), axis=0)
    predictor = fitted(trend, lags=1)
    assert "beyond .99" in predictor.summary.warnings[0]
    np.testing.assert_allclose(predictor.estimates.coefficients[:, 0], 0.99)


@pytest.mark.parametrize(
    "options", [{"lags": -1}, {"lags": "aic"}, {"max_lags": -1}, {"horizon": 0}, {"method": "both"}]
)
def test_options_are_checked(options):
    with pytest.raises((ConfigurationError, HorizonError), match=next(iter(options))):
        AutoregressivePredictor(**options)


def test_a_job_can_name_it():
    job = parse_job(
        {
            "data": {"path": "a.csv", "time": "month", "asset": "series", "value": "x", "lag": 0},
            "splits": {"kind": "expanding", "first": 120, "step": 12},
            "run": {"output": "results", "horizon": 3},
            "predictor": [{"name": "AR", "kind": "autoregressive", "max_lags": 6, "lags": "bic"}],
        }
    )
    assert job.predictors["AR"].config.horizon == 3
