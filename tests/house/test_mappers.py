"""Mappers on states written by hand: units, variances, parts, horizons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    BetaLambdaMapper,
    ExpandingMeanFactorForecaster,
    NativeFactorForecaster,
    NativeMapper,
)
from latentfactors.errors import HorizonError, MissingCapabilityError, PanelError
from latentfactors.results import FactorForecastResult
from latentfactors.state import ConditionalLoadings
from tests.house.small import PersistentForecasts, full_index, hand_state, month_ends

T, N, K = 6, 4, 2


def premises(seed=0):
    """A state with everything non-trivial, and a factor forecast with a covariance."""
    rng = np.random.default_rng(seed)
    state = hand_state(
        rng.normal(size=(T, K)),
        loadings=rng.normal(size=(N, K)),
        alpha=rng.normal(size=T * N),
        location=rng.normal(size=N) + 5,
        scale=rng.uniform(0.5, 3.0, size=N),
        residual_variance=rng.uniform(0.1, 1.0, size=T * N),
    )
    roots = rng.normal(size=(T, K, K))
    forecast = FactorForecastResult(
        index=state.index,
        fit_span=state.fit_span,
        horizon=2,
        premia=rng.normal(size=(T, K)),
        covariance=roots @ roots.transpose(0, 2, 1),
        factor_names=("F1", "F2"),
    )
    return state, forecast


@pytest.mark.parametrize("include_alpha", [True, False])
def test_beta_lambda_equals_its_loop(include_alpha):
    state, forecast = premises()
    result = BetaLambdaMapper(include_alpha=include_alpha).predict(state, forecast)
    m = state.measurement
    for p in range(T):
        for i in range(N):
            row, b, v = p * N + i, m.loadings.values[i], forecast.covariance[p]
            alpha = m.alpha[row] if include_alpha else 0.0
            mean = m.location[i] + m.scale[i] * (alpha + b @ forecast.premia[p])
            variance = m.scale[i] ** 2 * (b @ v @ b + m.residual_variance[row])
            assert result.expected_values[row] == pytest.approx(mean, rel=1e-12)
            assert result.variance[row] == pytest.approx(variance, rel=1e-12)
    assert result.horizon == 2
    assert result.expected_returns is result.expected_values
    np.testing.assert_array_equal(result.wide(), result.expected_values.reshape(T, N))


@pytest.mark.parametrize("include_alpha", [True, False])
def test_explain_sums_to_the_forecast(include_alpha):
    state, forecast = premises()
    result = BetaLambdaMapper(include_alpha=include_alpha).predict(state, forecast)
    for p in range(T):
        for i in range(N):
            parts = result.explain(state.index.times[p], f"A{i}")
            assert sum(parts.values()) == pytest.approx(result.expected_values[p * N + i], rel=1e-12)
            assert list(parts) == ["location", *["alpha"] * include_alpha, "F1", "F2"]
    with pytest.raises(PanelError, match="asset 'nobody' has no row"):
        result.explain(state.index.times[0], "nobody")
    with pytest.raises(PanelError, match="not in this panel"):
        result.explain("1990-01", "A0")
    # slices explain themselves alike
    assert result.between(3, 5).explain(state.index.times[4], "A1") == result.explain(
        state.index.times[4], "A1"
    )


def test_conditional_loadings_are_taken_row_by_row():
    state, forecast = premises()
    rows = np.random.default_rng(1).normal(size=(T * N, K))
    conditional = replace(
        state, measurement=replace(state.measurement, loadings=ConditionalLoadings(rows, state.index))
    )
    result = BetaLambdaMapper().predict(conditional, forecast)
    m = state.measurement
    p, i = 4, 2
    row = p * N + i
    expected = m.location[i] + m.scale[i] * (m.alpha[row] + rows[row] @ forecast.premia[p])
    assert result.expected_values[row] == pytest.approx(expected)
    assert sum(result.explain(state.index.times[p], "A2").values()) == pytest.approx(expected)
    np.testing.assert_allclose(conditional.asset_betas[p, i], rows[row])
    with pytest.raises(PanelError, match="conditional loadings must have one entry for each of 24 rows"):
        ConditionalLoadings(rows[:-1], state.index)


def test_reconstruction_uses_realised_factors():
    state, _ = premises()
    m = state.measurement
    expected = m.location + m.scale * (m.alpha.reshape(T, N) + state.factor_returns @ m.loadings.values.T)
    np.testing.assert_allclose(state.reconstruction().reshape(T, N), expected, rtol=1e-12)


def test_rows_without_loadings_are_nan_and_alone():
    state, forecast = premises()
    loadings = state.measurement.loadings.values.copy()
    loadings[1] = np.nan
    holed = replace(
        state,
        measurement=replace(state.measurement, loadings=replace(state.measurement.loadings, values=loadings)),
    )
    result, whole = BetaLambdaMapper().predict(holed, forecast), BetaLambdaMapper().predict(state, forecast)
    assert np.isnan(result.wide()[:, 1]).all()
    assert np.isnan(result.variance.reshape(T, N)[:, 1]).all()
    others = [0, 2, 3]
    np.testing.assert_array_equal(result.wide()[:, others], whole.wide()[:, others])
    np.testing.assert_array_equal(
        result.variance.reshape(T, N)[:, others], whole.variance.reshape(T, N)[:, others]
    )


def test_no_covariance_no_variance():
    state, forecast = premises()
    assert BetaLambdaMapper().predict(state, replace(forecast, covariance=None)).variance is None


def test_nowcasts_need_native_values():
    state, forecast = premises()
    for horizon in (0, -1):
        with pytest.raises(HorizonError, match="native forecasts only"):
            BetaLambdaMapper().predict(state, replace(forecast, horizon=horizon))
    with pytest.raises(MissingCapabilityError, match="use BetaLambdaMapper"):
        NativeMapper().predict(state, forecast)


def test_native_values_at_every_horizon():
    values = np.random.default_rng(0).normal(size=(T, N))
    native = PersistentForecasts(values, full_index(month_ends(T), N), 0.5)
    state = hand_state(values.mean(axis=1, keepdims=True), loadings=np.ones((N, 1)), native=native)
    forecaster = NativeFactorForecaster()
    forecaster.fit(state)
    for horizon, expected in [(1, values[2] * 0.5), (3, values[2] * 0.125), (0, values[2]), (-1, values[1])]:
        result = NativeMapper().predict(state, forecaster.predict(state, horizon))
        np.testing.assert_allclose(result.wide()[3], expected)
        np.testing.assert_array_equal(result.variance, max(horizon, 0))
        assert str(result.targets[3]) == str(month_ends(12, "1999-07")[3 + 6 + horizon - 1])
        assert str(result.origins[3]) == "2000-03-31"
        with pytest.raises(PanelError, match="no parts to explain"):
            result.explain(state.index.times[3], "A0")
        # a slice of the state answers for its own rows
        part = NativeMapper().predict(state.between(2, 5), forecaster.predict(state, horizon).between(2, 5))
        np.testing.assert_array_equal(part.expected_values, result.between(2, 5).expected_values)
        again = state.between(1, 6).between(1, 4)
        np.testing.assert_array_equal(again.native.values(horizon)[0], part.expected_values)
        np.testing.assert_array_equal(again.native.factors(horizon)[0], native.factors(horizon)[0][2:5])


def test_in_sample_rows_are_left_out_of_frames_by_default():
    state, forecast = premises()
    state = replace(state, fit_span=replace(state.fit_span, end=state.index.times[3]))
    result = BetaLambdaMapper().predict(state, replace(forecast, horizon=1))
    np.testing.assert_array_equal(result.in_sample, [True] * 4 + [False] * 2)
    frame = result.frame()
    assert frame.columns == ["timestamp", "asset", "prediction_value", "target_timestamp", "prediction_std"]
    assert frame.height == 2 * N
    assert str(frame["timestamp"][0]) == "2000-04-30"  # the origin: the last period known
    assert str(frame["target_timestamp"][0]) == "2000-05-31"
    np.testing.assert_allclose(frame["prediction_std"].to_numpy() ** 2, result.variance[4 * N :])
    assert result.frame(in_sample=True).height == T * N


def test_a_state_is_cut_whole():
    state, forecast = premises()
    part = state.between(2, 5)
    assert part.n_realised == 3
    np.testing.assert_array_equal(part.factor_returns, state.factor_returns[2:5])
    np.testing.assert_array_equal(part.reconstruction(), state.reconstruction()[2 * N : 5 * N])
    cut = BetaLambdaMapper().predict(part, forecast.between(2, 5))
    whole = BetaLambdaMapper().predict(state, forecast)
    np.testing.assert_array_equal(cut.expected_values, whole.between(2, 5).expected_values)
    np.testing.assert_array_equal(cut.variance, whole.between(2, 5).variance)
    np.testing.assert_array_equal(cut.origins, state.index.times[1:4])  # not guessed from the slice
    assert replace(state, n_realised=4).between(2, 6).n_realised == 2
    assert replace(state, n_realised=1).between(2, 6).n_realised == 0


def test_an_expanding_mean_runs_on_a_state_by_hand():
    state, _ = premises()
    forecaster = ExpandingMeanFactorForecaster()
    forecaster.fit(state)
    result = BetaLambdaMapper(include_alpha=False).predict(state, forecaster.predict(state))
    m = state.measurement
    expected = m.location + m.scale * (m.loadings.values @ state.factor_returns[:4].mean(axis=0))
    np.testing.assert_allclose(result.wide()[4], expected, rtol=1e-12)
