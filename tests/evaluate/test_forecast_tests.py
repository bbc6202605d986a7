"""Tests of forecasts: by hand, against statsmodels and arch where they are there, and by size and power."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.stats

from latentfactors.errors import ConfigurationError, InsufficientDataError, MissingCapabilityError
from latentfactors.evaluate import (
    clark_west,
    density_evaluation,
    diebold_mariano,
    giacomini_white,
    interval_tests,
    model_confidence_set,
    superior_predictive_ability,
)


def forecasts(T=200, seed=0, noise=(0.5, 0.8)):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=T)
    return y, *(y + s * rng.normal(size=T) for s in noise)


def newey_west_by_hand(d, lags):
    e = d - d.mean()
    total = sum(e * e)
    for lag in range(1, lags + 1):
        total += 2 * (1 - lag / (lags + 1)) * sum(e[lag:] * e[:-lag])
    return total / len(d) ** 2


# ------------------------------------------------------------------------ two forecasts


@pytest.mark.parametrize(
    ("loss", "horizon", "lags"), [("squared", 1, None), ("absolute", 3, 2), ("squared", 6, None)]
)
def test_diebold_mariano_by_hand(loss, horizon, lags):
    y, a, b = forecasts()
    test = diebold_mariano(y, a, b, loss=loss, horizon=horizon, lags=lags)
    power = 2 if loss == "squared" else 1
    d = np.abs(y - a) ** power - np.abs(y - b) ** power
    used = max(horizon - 1, 6) if lags is None else lags  # ceil(200^(1/3)) = 6
    plain = d.mean() / np.sqrt(newey_west_by_hand(d, used))
    T, h = len(d), horizon
    corrected = plain * np.sqrt((T + 1 - 2 * h + h * (h - 1) / T) / T)
    assert test.statistic == pytest.approx(corrected, rel=1e-12)
    assert test.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(corrected), T - 1), rel=1e-10)
    assert (test.lags, test.n_periods) == (used, T)
    assert test.loss_ratio == pytest.approx((np.abs(y - a) ** power).mean() / (np.abs(y - b) ** power).mean())
    raw = diebold_mariano(y, a, b, loss=loss, horizon=horizon, lags=lags, small_sample=False)
    assert raw.statistic == pytest.approx(plain, rel=1e-12)
    assert raw.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(plain)), rel=1e-10)
    assert diebold_mariano(y, b, a, loss=loss, horizon=horizon, lags=lags).statistic == -test.statistic


def test_diebold_mariano_agrees_with_statsmodels():
    peer = pytest.importorskip("statsmodels.tsa.stattools")
    if not hasattr(peer, "diebold_mariano_test"):
        pytest.skip("this statsmodels has no Diebold-Mariano test")
    for T in (30, 200, 343):
        y, a, b = forecasts(T)
        for h in (1, 4):
            theirs = peer.diebold_mariano_test(y, a, b, harvey_adj=True, horizon=h)
            ours = diebold_mariano(y, a, b, horizon=h)
            assert ours.lags == theirs.lags
            assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9)
            assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-8)


def test_a_panel_counts_a_period_once_and_missing_cells_not_at_all():
    rng = np.random.default_rng(1)
    common = rng.normal(size=(100, 1))
    y = common + 0.01 * rng.normal(size=(100, 50))
    a, b = np.zeros_like(y), np.full_like(y, 0.2)
    y[3, :10], a[4, 5], b[7] = np.nan, np.nan, np.nan
    seen = np.isfinite(y) & np.isfinite(a) & np.isfinite(b)
    d = np.array([((y - a) ** 2 - (y - b) ** 2)[t, seen[t]].mean() for t in range(100) if seen[t].any()])
    test = diebold_mariano(y, a, b)
    assert test.n_periods == 99
    expected = d.mean() / np.sqrt(newey_west_by_hand(d, 5)) * np.sqrt((99 - 1) / 99)
    assert test.statistic == pytest.approx(expected, rel=1e-10)


def test_size_of_diebold_mariano_and_power():
    rejected = []
    for seed in range(300):
        y, a, b = forecasts(80, seed, noise=(0.7, 0.7))
        rejected.append(diebold_mariano(y, a, b).p_value < 0.05)
    assert 0.02 < np.mean(rejected) < 0.11
    y, a, b = forecasts(200)
    test = diebold_mariano(y, a, b)
    assert test.p_value < 1e-4
    assert test.statistic < 0


def test_clark_west_by_hand_and_its_size_where_diebold_mariano_is_biased():
    y, a, b = forecasts()
    test = clark_west(y, a, b, lags=0)
    f = (y - a) ** 2 - ((y - b) ** 2 - (a - b) ** 2)
    assert test.statistic == pytest.approx(f.mean() / (f.std() / np.sqrt(len(f))), rel=1e-12)
    assert test.p_value == pytest.approx(scipy.stats.norm.sf(test.statistic), rel=1e-10)
    # nested and null: rolling slopes on a useless predictor only add noise
    adjusted, plain = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        y, x = rng.normal(size=(2, 160))
        larger = np.array(
            [x[t] * (x[t - 40 : t] @ y[t - 40 : t]) / (x[t - 40 : t] @ x[t - 40 : t]) for t in range(40, 160)]
        )
        adjusted.append(clark_west(y[40:], np.zeros(120), larger).p_value < 0.1)
        plain.append(diebold_mariano(y[40:], np.zeros(120), larger).statistic > 0)
    assert 0.04 < np.mean(adjusted) < 0.16
    assert np.mean(plain) < 0.25  # the unadjusted difference leans to the benchmark


def test_giacomini_white_by_hand_and_where_the_past_tells():
    y, a, b = forecasts()
    d = (y - a) ** 2 - (y - b) ** 2
    z = np.column_stack([np.ones(199), d[:-1]]) * d[1:, None]
    mean, omega = z.mean(axis=0), z.T @ z / 199
    test = giacomini_white(y, a, b)
    assert test.statistic == pytest.approx(199 * mean @ np.linalg.solve(omega, mean), rel=1e-8)
    assert test.p_value == pytest.approx(scipy.stats.chi2.sf(test.statistic, 2), rel=1e-8)
    # each forecast is good for twenty periods in turn: equal on average, and predictably different
    good = (np.arange(400) // 20) % 2 == 0
    rng = np.random.default_rng(2)
    y, e = rng.normal(size=(2, 400))
    a, b = y + np.where(good, 0.1, 1) * e, y + np.where(good, 1, 0.1) * rng.normal(size=400)
    assert giacomini_white(y, a, b).p_value < 0.01
    assert diebold_mariano(y, a, b).p_value > 0.05


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda y: diebold_mariano(y, y[:-1], y), ConfigurationError, "one shape"),
        (lambda y: diebold_mariano(y, 0 * y, y, loss="qlike"), ConfigurationError, "'squared' or 'absolute'"),
        (lambda y: diebold_mariano(y, 0 * y, 0 * y), InsufficientDataError, "same forecast twice"),
        (
            lambda y: diebold_mariano(y[:2], 0 * y[:2], y[:2]),
            InsufficientDataError,
            "needs 3 complete periods",
        ),
        (lambda y: diebold_mariano(y, 0 * y, y, horizon=0), ConfigurationError, "horizon"),
        (lambda y: diebold_mariano(y, 0 * y, y, lags=-1), ConfigurationError, "lags"),
        (lambda y: clark_west(y, np.nan * y, y), InsufficientDataError, "got 0"),
        (lambda y: giacomini_white(y[:4], 0 * y[:4], y[:4] ** 2), InsufficientDataError, "own past"),
        (lambda y: interval_tests(y, y - 1, y + 1, 90), ConfigurationError, "level"),
        (lambda y: interval_tests(y, y + 1, y - 1, 0.9), ConfigurationError, "swapped"),
        (lambda y: interval_tests(y[:5], y[:5] - 1, y[:5] + 1, 0.9), InsufficientDataError, "at least 10"),
        (lambda y: density_evaluation(y, 0 * y, 0 * y), ConfigurationError, "positive"),
        (lambda y: density_evaluation(y, y, y[:-1]), ConfigurationError, "three"),
    ],
)
def test_bad_input_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call(np.random.default_rng(0).normal(size=50))


# ------------------------------------------------------------------------ intervals and densities


def test_kupiec_and_christoffersen_by_hand():
    inside = np.random.default_rng(0).random(250) < 0.85
    y = np.where(inside, 0.0, 2.0)
    tests = interval_tests(y, np.full(250, -1.0), np.full(250, 1.0), 0.9)
    n, hits = 250, int(inside.sum())
    kupiec = 2 * (hits * np.log(hits / n / 0.9) + (n - hits) * np.log((n - hits) / n / 0.1))
    n11, n01 = (inside[:-1] & inside[1:]).sum(), (~inside[:-1] & inside[1:]).sum()
    n10, n00 = (inside[:-1] & ~inside[1:]).sum(), (~inside[:-1] & ~inside[1:]).sum()
    p1, p0, p = n11 / (n11 + n10), n01 / (n01 + n00), (n11 + n01) / (n - 1)
    chain = n11 * np.log(p1) + n10 * np.log(1 - p1) + n01 * np.log(p0) + n00 * np.log(1 - p0)
    independent = (n11 + n01) * np.log(p) + (n10 + n00) * np.log(1 - p)
    assert tests.unconditional == pytest.approx(kupiec, rel=1e-10)
    assert tests.independence == pytest.approx(2 * (chain - independent), rel=1e-9)
    assert tests.conditional == pytest.approx(kupiec + 2 * (chain - independent), rel=1e-9)
    assert tests.p_unconditional == pytest.approx(scipy.stats.chi2.sf(kupiec, 1), rel=1e-9)
    assert tests.p_conditional == pytest.approx(scipy.stats.chi2.sf(tests.conditional, 2), rel=1e-9)
    assert tests.coverage == hits / n


def test_clusters_are_seen_and_perfect_coverage_is_no_error():
    y = np.zeros(200)
    y[40:60] = 9.0  # 10% misses, all together
    tests = interval_tests(y, np.full(200, -1.0), np.full(200, 1.0), 0.9)
    assert tests.p_unconditional > 0.9
    assert tests.p_independence < 1e-6
    always = interval_tests(np.zeros(50), np.full(50, -np.inf), np.ones(50), 0.5)
    assert (always.coverage, always.independence) == (1.0, 0.0)
    assert always.unconditional == pytest.approx(-2 * 50 * np.log(0.5))


def test_densities():
    rng = np.random.default_rng(1)
    y = 2 + 3 * rng.normal(size=1000)
    y[5] = np.nan
    right = density_evaluation(y, np.full(1000, 2.0), np.full(1000, 9.0))
    assert (right.n_periods, np.isnan(right.pit).sum()) == (999, 1)
    assert right.crps == pytest.approx(3 * 0.5642, rel=0.05)  # sd / sqrt(pi)
    assert right.p_berkowitz > 0.05
    assert abs(right.coverage[0.9] - 0.9) < 0.03
    assert right.pit[0] == pytest.approx(scipy.stats.norm.cdf((y[0] - 2) / 3))
    narrow = density_evaluation(y, np.full(1000, 2.0), np.full(1000, 4.0))
    assert narrow.p_berkowitz < 1e-6
    assert narrow.coverage[0.9] < 0.8
    assert narrow.log_score < right.log_score
    persistent = np.zeros(500)
    for t in range(1, 500):
        persistent[t] = 0.5 * persistent[t - 1] + np.sqrt(0.75) * rng.normal()
    assert density_evaluation(persistent, np.zeros(500), np.ones(500)).p_berkowitz < 1e-6


def test_berkowitz_by_hand():
    z = np.random.default_rng(3).normal(size=60)
    past, now = z[:-1], z[1:]
    slope, intercept = np.polyfit(past, now, 1)
    s = np.sqrt(np.mean((now - intercept - slope * past) ** 2))
    free = scipy.stats.norm.logpdf(now, intercept + slope * past, s).sum()
    ratio = 2 * (free - scipy.stats.norm.logpdf(now).sum())
    assert density_evaluation(z, np.zeros(60), np.ones(60)).berkowitz == pytest.approx(ratio, rel=1e-9)


# ------------------------------------------------------------------------ many forecasts


def several(T=250):
    rng = np.random.default_rng(0)
    y = rng.normal(size=T)
    guesses = {"good": 0.3, "as good": 0.31, "bad": 1.0}
    return {name: (y - y - s * rng.normal(size=T)) ** 2 for name, s in guesses.items()}


def test_the_confidence_set_keeps_the_good_ones():
    pytest.importorskip("arch")
    losses = several()
    found = model_confidence_set(losses, size=0.1, seed=1)
    assert set(found.included) == {"good", "as good"}
    assert max(found.p_values.values()) == 1.0
    assert found.p_values["bad"] < 0.05
    assert model_confidence_set(losses, size=0.1, seed=1) == found
    p = superior_predictive_ability(losses["bad"], {"good": losses["good"]}, seed=1)
    assert p["consistent"] < 0.01
    assert p["lower"] <= p["consistent"] <= p["upper"]
    assert superior_predictive_ability(losses["good"], {"bad": losses["bad"]}, seed=1)["consistent"] > 0.2


def test_bad_tables_of_losses_are_refused():
    pytest.importorskip("arch")
    losses = several()
    for wrong, words in (
        ({"good": losses["good"]}, "two models or more"),
        ({"a": np.ones(20), "b": np.ones(21)}, "one length"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            model_confidence_set(wrong)
    with pytest.raises(InsufficientDataError, match="10 periods"):
        model_confidence_set({"a": np.ones(5), "b": np.zeros(5)})
    with pytest.raises(ConfigurationError, match="size"):
        model_confidence_set(losses, size=1.0)


def test_without_arch_one_line_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "arch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "arch", None)
    with pytest.raises(MissingCapabilityError, match=r"pip install 'latentfactors\[pricing\]'$"):
        model_confidence_set(several())
