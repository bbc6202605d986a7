"""Forecasters against loops, skipping what is missing and using everything up to the origin."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import (
    AR1FactorForecaster,
    EWMABaseFactorForecaster,
    EWMAFactorForecaster,
    ExpandingMeanFactorForecaster,
    NativeFactorForecaster,
    RollingMeanFactorForecaster,
    VARFactorForecaster,
)
from latentfactors.errors import (
    ConfigurationError,
    HorizonError,
    InsufficientDataError,
    MissingCapabilityError,
    NotFittedError,
    PanelMismatchError,
)
from tests.house.small import PersistentForecasts, full_index, hand_state, month_ends

RETURNS = {
    "mean": ExpandingMeanFactorForecaster(),
    "ewma": EWMAFactorForecaster(half_life=6.0),
    "rolling": RollingMeanFactorForecaster(window=8),
    "ar1": AR1FactorForecaster(),
    "var": VARFactorForecaster(lags=2, ridge=0.01),
}


def draws(n=40, k=2, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    x = np.zeros((n, k))
    for t in range(1, n):
        x[t] = 0.02 + 0.5 * x[t - 1] + rng.normal(size=k) * 0.1
    return np.where(rng.random((n, 1)) < missing, np.nan, x)


def trained(forecaster, factors, n_train=None, **state):
    n_train = len(factors) if n_train is None else n_train
    fresh = forecaster.clone()
    fresh.fit(hand_state(factors[:n_train], **state))
    return fresh


def slow_mean(past, weights):
    """Weighted mean of each factor over its realised periods, and the predictive covariance."""
    k = past.shape[1]
    mean = np.full(k, np.nan)
    for j in range(k):
        seen = np.isfinite(past[:, j])
        if seen.any():
            mean[j] = np.average(past[seen, j], weights=weights[seen])
    whole = np.isfinite(past).all(axis=1)
    cov = np.full((k, k), np.nan)
    if whole.sum() >= 2:
        w = weights[whole] / weights[whole].sum()
        d = past[whole] - np.average(past[whole], axis=0, weights=w)
        q = np.sum(w**2)
        cov = (d * w[:, None]).T @ d / (1 - q) * (1 + q)
    return mean, cov


WEIGHTS = {
    "mean": lambda age: np.ones(age.shape),
    "ewma": lambda age: 0.5 ** (age / 6.0),
    "rolling": lambda age: (age < 8).astype(float),
}


@pytest.mark.parametrize("name", list(WEIGHTS))
@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_means_equal_their_loops(name, missing):
    factors = draws(missing=missing)
    factors[3, 0] = np.nan  # one factor alone
    forecaster = trained(RETURNS[name], factors, 25)
    for horizon in (1, 4):
        forecast = forecaster.predict(hand_state(factors), horizon)
        for p in range(len(factors)):
            age = np.arange(p)[::-1].astype(float)
            weights = WEIGHTS[name](age)
            past, weights = factors[:p][weights > 0], weights[weights > 0]
            mean, cov = slow_mean(past, weights)
            np.testing.assert_allclose(forecast.premia[p], mean, rtol=1e-10)
            np.testing.assert_allclose(forecast.covariance[p], cov, rtol=1e-9)
        np.testing.assert_array_equal(forecast.origins[1:], forecast.times[:-1])
        np.testing.assert_array_equal(
            forecast.targets[: len(factors) - horizon + 1], forecast.times[horizon - 1 :]
        )


def test_expanding_mean_expands_beyond_training():
    factors = draws()
    premia = trained(RETURNS["mean"], factors, 20).predict(hand_state(factors)).premia
    assert np.isnan(premia[0]).all()
    for p in (1, 20, 21, 39):
        np.testing.assert_allclose(premia[p], factors[:p].mean(axis=0))
    assert np.abs(premia[39] - premia[20]).max() > 1e-3  # the peer repeats the training mean for ever


def test_min_periods():
    factors = draws(12)
    factors[0] = np.nan
    premia = (
        trained(ExpandingMeanFactorForecaster(min_periods=4), factors).predict(hand_state(factors)).premia
    )
    assert np.isnan(premia[:5]).all()
    assert np.isfinite(premia[5:]).all()


def test_skipped_periods_are_counted():
    factors = draws(30)
    factors[[3, 4]] = np.nan
    for forecaster in RETURNS.values():
        assert forecaster.clone().fit(hand_state(factors)).warnings == (
            "2 training periods with missing factors skipped",
        )
    assert RETURNS["mean"].clone().fit(hand_state(draws(30))).warnings == ()


# ------------------------------------------------------------------------------------ autoregressions


def slow_ar1(y):
    """c, phi of one factor over its complete pairs."""
    pairs = [(y[t - 1], y[t]) for t in range(1, len(y)) if np.isfinite(y[t - 1]) and np.isfinite(y[t])]
    x, z = np.array(pairs).T
    phi = np.cov(x, z, ddof=0)[0, 1] / np.var(x)
    return z.mean() - phi * x.mean(), phi


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("horizon", [1, 3])
def test_ar1_equals_its_loop(missing, horizon):
    factors = draws(missing=missing)
    factors[30, 0] = np.nan
    factors[36:39, 1] = np.nan
    forecaster = trained(RETURNS["ar1"], factors, 28)
    forecast = forecaster.predict(hand_state(factors), horizon)
    for k in range(2):
        c, phi = slow_ar1(factors[:28, k])
        for p in range(len(factors)):
            seen = np.flatnonzero(np.isfinite(factors[:p, k]))
            if not seen.size:
                assert np.isnan(forecast.premia[p, k])
                continue
            value = factors[seen[-1], k]
            for _ in range(p - 1 - seen[-1] + horizon):  # from the last realised factor to the target
                value = c + phi * value
            assert forecast.premia[p, k] == pytest.approx(value, rel=1e-9)


def test_ar1_starts_from_the_last_realised_factor():
    factors = draws(40)
    forecaster = trained(RETURNS["ar1"], factors, 20)
    c, phi = slow_ar1(factors[:20, 0])
    premia = forecaster.predict(hand_state(factors)).premia
    assert premia[39, 0] == pytest.approx(c + phi * factors[38, 0])  # realised long after training
    gap = factors.copy()
    gap[37:39] = np.nan
    premia = forecaster.predict(hand_state(gap)).premia
    expected = c + phi * (c + phi * (c + phi * factors[36, 0]))
    assert premia[39, 0] == pytest.approx(expected)


def test_ar1_factors_do_not_wait_for_each_other():
    factors = draws(60)
    factors[:40, 1] = np.nan  # the second factor starts late
    forecaster = trained(RETURNS["ar1"], factors)
    forecast = forecaster.predict(hand_state(factors))
    assert np.isfinite(forecast.premia[1:, 0]).all()
    alone = trained(AR1FactorForecaster(), factors[:, :1]).predict(hand_state(factors[:, :1]))
    np.testing.assert_array_equal(forecast.premia[:, 0], alone.premia[:, 0])
    np.testing.assert_allclose(forecast.covariance[1:, 0, 0], alone.covariance[1:, 0, 0], rtol=1e-12)
    assert np.isnan(forecast.premia[:41, 1]).all()
    assert np.isfinite(forecast.premia[41:]).all()
    assert np.isnan(forecast.covariance[40, 0, 1])
    assert np.isfinite(forecast.covariance[41:]).all()


def test_ar1_covariance_is_that_of_its_errors():
    # by simulation: two series with correlated shocks, the second last seen two periods before the origin
    factors = draws(200, seed=3)
    estimates = trained(RETURNS["ar1"], factors).estimates
    history = factors[:50].copy()
    history[48:, 1] = np.nan
    state = hand_state(np.vstack([history, np.full((1, 2), np.nan)]), n_realised=50)
    found = trained(RETURNS["ar1"], factors).predict(
        hand_state(np.vstack([history, np.full((150, 2), np.nan)]), n_realised=50), horizon=2
    )
    assert state.n_realised == 50
    rng = np.random.default_rng(0)
    phi = np.diag(estimates.coefficients[0])
    shocks = rng.multivariate_normal(np.zeros(2), estimates.covariance, size=(400_000, 4))
    error = np.zeros((400_000, 2))
    for i in range(4):  # two unseen periods and two steps ahead; the first factor knows the first two
        error = error * phi + shocks[:, i] * [i >= 2, True]
    np.testing.assert_allclose(found.covariance[50], np.cov(error.T), rtol=0.02, atol=2e-5)
    assert abs(found.covariance[50, 0, 1]) > 1e-5


def test_explosive_factors_are_kept_stationary_and_noted():
    factors = 1.05 ** np.arange(40)[:, None] * np.array([1.0, 0.5])
    for forecaster in (AR1FactorForecaster(), VARFactorForecaster()):
        summary = forecaster.fit(hand_state(factors + 0.01 * draws(40)))
        assert any("inside the unit circle" in text for text in summary.warnings)
        premia = forecaster.predict(hand_state(factors), horizon=200).premia
        assert np.abs(premia[1:]).max() < 100
    calm = AR1FactorForecaster().fit(hand_state(draws(100)))
    assert calm.warnings == ()


def test_var_equals_its_loop():
    factors = draws(60, k=3)
    forecaster = trained(VARFactorForecaster(lags=2), factors, 45)
    y = factors[:45]
    design = np.column_stack([np.ones(43), y[1:-1], y[:-2]])
    beta = np.linalg.lstsq(design, y[2:])[0]
    for horizon in (1, 3):
        premia = forecaster.predict(hand_state(factors), horizon).premia
        assert np.isnan(premia[:2]).all()
        for p in range(2, 60):
            path = [factors[p - 2], factors[p - 1]]
            for _ in range(horizon):
                path.append(np.concatenate([[1.0], path[-1], path[-2]]) @ beta)
            np.testing.assert_allclose(premia[p], path[-1], rtol=1e-8)
    residual = y[2:] - design @ beta
    one = forecaster.predict(hand_state(factors)).covariance[50]
    np.testing.assert_allclose(one, residual.T @ residual / (43 - 7), rtol=1e-9)


def test_long_horizons_reach_the_mean():
    factors = draws(200)
    for name in ("ar1", "var"):
        premia = trained(RETURNS[name], factors).predict(hand_state(factors), horizon=100).premia
        np.testing.assert_allclose(premia[-1], factors.mean(axis=0), atol=0.01)


# ------------------------------------------------------------------------------------ rules that hold for all


@pytest.mark.parametrize("name", list(RETURNS))
@pytest.mark.parametrize("horizon", [1, 3])
def test_forecasts_do_not_see_the_future(name, horizon):
    factors = draws(missing=0.1)
    forecaster = trained(RETURNS[name], factors, 25)
    whole = forecaster.predict(hand_state(factors), horizon)
    for p in (25, 30, 39):
        other = factors.copy()
        other[p:] = 7.0 + np.arange(len(factors) - p)[:, None]
        moved = forecaster.predict(hand_state(other), horizon)
        np.testing.assert_array_equal(moved.premia[: p + 1], whole.premia[: p + 1])
        np.testing.assert_array_equal(moved.covariance[: p + 1], whole.covariance[: p + 1])
        cut = forecaster.predict(hand_state(factors[: p + 1]), horizon)
        np.testing.assert_array_equal(cut.premia, whole.premia[: p + 1])


@pytest.mark.parametrize("name", list(RETURNS))
def test_live_factors_are_no_realisations(name):
    factors = draws(30)
    guessed = np.vstack([factors, np.full((3, 2), 5.0)])  # a filter's guesses about tomorrow
    live = np.vstack([factors, np.full((3, 2), np.nan)])
    one = trained(RETURNS[name], guessed, n_realised=30)
    two = trained(RETURNS[name], factors)
    np.testing.assert_array_equal(
        one.predict(hand_state(guessed, n_realised=30)).premia,
        two.predict(hand_state(live, n_realised=30)).premia,
    )
    assert one.fitted.span == two.fitted.span
    later = hand_state(draws(4, seed=7), times=month_ends(34)[30:])  # the tail is no history either
    np.testing.assert_array_equal(one.predict(later).premia, two.predict(later).premia)


@pytest.mark.parametrize("name", list(RETURNS))
def test_scale_free(name):
    factors = draws(30)
    one = trained(RETURNS[name], factors).predict(hand_state(factors), 2)
    for factor in (2.0**20, 1e-4):
        two = trained(RETURNS[name], factors * factor).predict(hand_state(factors * factor), 2)
        np.testing.assert_allclose(two.premia, one.premia * factor, rtol=1e-9)
        np.testing.assert_allclose(two.covariance, one.covariance * factor**2, rtol=1e-8)


@pytest.mark.parametrize("name", list(RETURNS))
def test_guards(name):
    forecaster, factors = RETURNS[name].clone(), draws(30)
    with pytest.raises(NotFittedError, match="is not fitted"):
        forecaster.predict(hand_state(factors))
    with pytest.raises(InsufficientDataError, match="needs realised factors"):
        forecaster.fit(hand_state(np.full((30, 2), np.nan)))
    with pytest.raises(ConfigurationError, match=r"call model\.extract"):
        forecaster.fit(factors)
    with pytest.raises(ConfigurationError, match="smoothed factors know the future"):
        forecaster.fit(hand_state(factors, information="smoothed"))
    forecaster.fit(hand_state(factors))
    with pytest.raises(ConfigurationError, match="smoothed factors know the future"):
        forecaster.predict(hand_state(factors, information="smoothed"))
    for horizon in (0, -1, 1.0, True):
        with pytest.raises(HorizonError, match="horizon must be a whole number"):
            forecaster.predict(hand_state(factors), horizon)
    with pytest.raises(PanelMismatchError, match="F1"):
        forecaster.predict(hand_state(draws(30, k=3)))


@pytest.mark.parametrize("name", ["ar1", "var"])
def test_too_few_factors_for_a_regression(name):
    with pytest.raises(InsufficientDataError, match="train longer"):
        RETURNS[name].clone().fit(hand_state(draws(3)))


@pytest.mark.parametrize(
    "build",
    [
        lambda: ExpandingMeanFactorForecaster(min_periods=0),
        lambda: EWMAFactorForecaster(half_life=0.0),
        lambda: EWMAFactorForecaster(half_life=np.inf),
        lambda: RollingMeanFactorForecaster(window=3, min_periods=4),
        lambda: RollingMeanFactorForecaster(window=2.5),
        lambda: VARFactorForecaster(lags=0),
        lambda: VARFactorForecaster(ridge=-1.0),
    ],
)
def test_bad_options_are_refused(build):
    with pytest.raises(ConfigurationError, match="must be"):
        build()


@pytest.mark.parametrize("name", list(RETURNS))
def test_save_and_load_are_exact(name, tmp_path):
    factors = draws(30)
    forecaster = trained(RETURNS[name], factors)
    forecaster.save(tmp_path)
    loaded = type(forecaster).load(tmp_path)
    later = hand_state(draws(5, seed=9), times=month_ends(35)[30:])  # continues from the stored history
    np.testing.assert_array_equal(loaded.predict(later).premia, forecaster.predict(later).premia)
    assert loaded.identity == forecaster.identity


def test_clone_is_unfitted_and_identity_follows_the_options():
    forecaster = trained(EWMAFactorForecaster(half_life=3.0), draws(20))
    twin = forecaster.clone()
    assert twin.config == forecaster.config
    assert twin.identity == forecaster.identity
    with pytest.raises(NotFittedError):
        twin.predict(hand_state(draws(20)))
    assert twin.identity != EWMAFactorForecaster(half_life=4.0).identity
    assert EWMABaseFactorForecaster is EWMAFactorForecaster


# ------------------------------------------------------------------------------------ native


def test_native_forecasts_come_from_the_model():
    factors = draws(20, k=1)
    index = full_index(month_ends(20), 1)
    state = hand_state(factors, native=PersistentForecasts(factors, index, 0.5))
    forecaster = trained(NativeFactorForecaster(), factors)
    for horizon in (1, 3):
        premia = forecaster.predict(state, horizon).premia
        np.testing.assert_allclose(premia[1:], 0.5**horizon * factors[:-1])
    np.testing.assert_array_equal(forecaster.predict(state, 0).premia[1:], factors[:-1])  # nowcast of p-1
    np.testing.assert_array_equal(forecaster.predict(state, -2).premia[3:], factors[:-3])  # backcast
    with pytest.raises(MissingCapabilityError, match="no dynamics of its own"):
        forecaster.predict(hand_state(factors))
    with pytest.raises(HorizonError):
        forecaster.predict(state, 0.5)
