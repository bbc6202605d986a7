"""VaR and ES: normal and from scenarios, their contributions, and their backtests."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.kernels.coverage import coverage_test
from latentfactors.risk import (
    EWMACovariance,
    RiskConfig,
    SpecificVariance,
    backtest_tail,
    historical_tail_risk,
    normal_tail_risk,
    risk_model,
)
from tests.risk.small import dense_parts, random_operator, world


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_normal_var_and_es_against_draws_and_slopes(level):
    sigma, _ = random_operator(issuers=True, seed=1)
    w = np.random.default_rng(1).normal(size=9)
    tail = normal_tail_risk(sigma, w, level=level)
    loss = -sigma.sample(400_000, seed=0) @ w
    assert tail.value_at_risk == pytest.approx(np.quantile(loss, level), rel=0.015)
    assert tail.expected_shortfall == pytest.approx(loss[loss > np.quantile(loss, level)].mean(), rel=0.015)
    step = 1e-6
    for i in range(9):
        up = normal_tail_risk(sigma, w + step * np.eye(9)[i], level=level)
        down = normal_tail_risk(sigma, w - step * np.eye(9)[i], level=level)
        slope = (up.value_at_risk - down.value_at_risk) / (2 * step)
        assert tail.var_by_asset[i] == pytest.approx(w[i] * slope, abs=1e-7)
    for parts, whole in (
        (tail.var_by_asset.sum(), tail.value_at_risk),
        (tail.var_by_factor.sum() + tail.var_specific, tail.value_at_risk),
        (tail.es_by_asset.sum(), tail.expected_shortfall),
        (tail.es_by_factor.sum() + tail.es_specific, tail.expected_shortfall),
    ):
        assert parts == pytest.approx(whole, rel=1e-10)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("conditional", [False, True])
def test_scenarios_by_slow_loops(filtered, conditional):
    state, panel = world(n_periods=80, conditional=conditional, units=True, live=1, seed=3)
    config = RiskConfig(
        factors=EWMACovariance(variance_half_life=10.0),
        specific=SpecificVariance(half_life=10.0),
        min_periods=20,
    )
    risk = risk_model(state, panel, config)
    now = risk.at(panel.times[80])
    rng = np.random.default_rng(2)
    weights = dict(zip(now.assets.tolist(), rng.normal(size=len(now.assets)), strict=True))
    weights[now.assets[1]] = 0.0
    tail = historical_tail_risk(risk, weights, panel.times[80], level=0.9, filtered=filtered)
    _, residuals, _ = dense_parts(state, panel)
    here = [panel.assets.tolist().index(label) for label in now.assets.tolist()]
    w = np.array([weights[label] for label in now.assets.tolist()])
    factor_parts, specific_parts, times = [], [], []
    for s in range(20 if filtered else 0, 80):
        f, e = state.factors.values[s].copy(), (state.measurement.scale * residuals[s])[here].copy()
        if filtered:
            then = risk.at(panel.times[s])
            f *= np.sqrt(np.diag(now.factor_covariance) / np.diag(then.factor_covariance))
            d = dict(zip(then.assets.tolist(), then.specific_variance, strict=True))
            e *= [
                np.sqrt(mine / d[label]) if label in d else np.nan
                for label, mine in zip(now.assets.tolist(), now.specific_variance, strict=True)
            ]
        seen = np.isfinite(e) & (w != 0)
        if not seen.any():
            continue
        size = w**2 * now.specific_variance
        stretch = np.sqrt(size.sum() / size[seen].sum())
        factor_parts.append(-(now.loadings * w[:, None]) * f)
        specific_parts.append(-np.where(seen, w * stretch * e, 0.0))
        times.append(panel.times[s])
    factor_parts, specific_parts = np.array(factor_parts), np.array(specific_parts)
    losses = factor_parts.sum(axis=(1, 2)) + specific_parts.sum(axis=1)
    np.testing.assert_allclose(tail.scenarios, losses, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(tail.scenario_times, times)
    order = np.argsort(-losses)
    n, mass = len(losses), len(losses) * 0.1
    at = order[n - int(np.ceil(n * 0.9 - 1e-9))]
    share = np.clip(mass - np.arange(n), 0.0, 1.0) / mass
    assert tail.value_at_risk == pytest.approx(losses[at], rel=1e-10)
    assert tail.expected_shortfall == pytest.approx(losses[order] @ share, rel=1e-9)
    np.testing.assert_allclose(tail.var_by_factor, factor_parts[at].sum(axis=0), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(
        tail.es_by_factor, np.einsum("s,sik->k", share, factor_parts[order]), rtol=1e-9, atol=1e-13
    )
    assert tail.es_specific == pytest.approx(share @ specific_parts[order].sum(axis=1), rel=1e-9)
    by_asset = share @ (factor_parts.sum(axis=2) + specific_parts)[order]
    np.testing.assert_allclose(tail.es_by_asset, by_asset, rtol=1e-9, atol=1e-13)
    assert tail.var_by_asset.sum() == pytest.approx(tail.value_at_risk, rel=1e-10)
    assert tail.frame("family")["expected_shortfall"].sum() == pytest.approx(
        tail.expected_shortfall, rel=1e-10
    )
    assert tail.frame("asset")["value_at_risk"].sum() == pytest.approx(tail.value_at_risk, rel=1e-10)


def test_too_few_scenarios_and_bad_levels():
    state, panel = world(seed=1)
    risk = risk_model(state, panel)
    with pytest.raises(InsufficientDataError, match="at least 100 scenarios, got 50 of 60"):
        historical_tail_risk(risk, {"A00": 1.0}, level=0.99)
    assert "50 scenarios" in repr(historical_tail_risk(risk, {"A00": 1.0}, level=0.95))
    for level in (99, 0.4, 1.0, "0.99"):
        with pytest.raises(ConfigurationError, match="level"):
            normal_tail_risk(risk.latest(), {"A00": 1.0}, level=level)


# ------------------------------------------------------------------------------------ coverage


def likelihood(probabilities, hits):
    return float(np.sum(np.where(hits, np.log(probabilities), np.log1p(-np.asarray(probabilities)))))


def test_coverage_tests_are_likelihood_ratios():
    from scipy.stats import chi2

    hits = np.random.default_rng(3).random(500) < 0.06
    hits[100:104] = True
    test = coverage_test(hits, 0.05)
    rate = np.full(500, hits.mean())
    unconditional = 2 * (likelihood(rate, hits) - likelihood(np.full(500, 0.05), hits))
    before, after = hits[:-1], hits[1:]
    chain = np.where(before, after[before].mean(), after[~before].mean())
    independence = 2 * (likelihood(chain, after) - likelihood(np.full(499, after.mean()), after))
    assert test.unconditional == pytest.approx(unconditional, rel=1e-10)
    assert test.independence == pytest.approx(independence, rel=1e-9)
    assert test.conditional == pytest.approx(unconditional + independence, rel=1e-10)
    assert test.unconditional_p == pytest.approx(chi2.sf(unconditional, 1), rel=1e-10)
    assert test.conditional_p == pytest.approx(chi2.sf(unconditional + independence, 2), rel=1e-10)
    assert sum(test.transitions) == 499
    assert test.rate == hits.mean()


def test_kupiec_of_a_trading_year():
    # 95% non-rejection regions of Kupiec (1995) for 255 days: fewer than 7 hits at 1%, 7 to 20 at 5%
    def accepted(p):
        lr = [coverage_test(np.arange(255) < n, p).unconditional for n in range(40)]
        return [n for n in range(40) if lr[n] < 3.841]

    assert accepted(0.01) == list(range(1, 7))
    assert accepted(0.05) == list(range(7, 21))


def test_coverage_has_its_size_under_the_null():
    rng = np.random.default_rng(0)
    p = np.array([coverage_test(rng.random(1000) < 0.05, 0.05).unconditional_p for _ in range(2000)])
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_no_hit_and_only_hits():
    none, all_ = coverage_test(np.zeros(50, bool), 0.05), coverage_test(np.ones(50, bool), 0.05)
    assert none.unconditional == pytest.approx(-100 * np.log(0.95))
    assert none.independence == 0
    assert all_.unconditional == pytest.approx(-100 * np.log(0.05))
    assert all_.independence == 0
    for hits, p in ((np.zeros(1, bool), 0.05), (np.zeros(9), 0.05), (np.zeros(9, bool), 1.0)):
        with pytest.raises(ValueError, match=r"hits|probability"):
            coverage_test(hits, p)


def test_backtest():
    rng = np.random.default_rng(0)
    r = rng.normal(size=20_000)
    var, es = np.full(r.size, 1.6448536), np.full(r.size, 2.0627128)
    right = backtest_tail(r, var, es, level=0.95)
    assert abs(right.shortfall_statistic) < 0.06
    assert right.coverage.unconditional_p > 0.01
    assert right.mean_excess == pytest.approx(1.0, abs=0.03)
    low = backtest_tail(1.3 * r, var, es, level=0.95)
    assert low.shortfall_statistic < -0.5
    assert low.coverage.unconditional_p < 1e-6
    r[5], var[7] = np.nan, np.nan
    assert backtest_tail(r, var, es, level=0.95).coverage.n_periods == 19_998
    assert "Kupiec" in repr(right)
    with pytest.raises(ConfigurationError, match="one length"):
        backtest_tail(r, var[1:], es)
    with pytest.raises(ConfigurationError, match="positive"):
        backtest_tail(r, var, -es)
    with pytest.raises(InsufficientDataError, match="two"):
        backtest_tail(r[:1], var[:1], es[:1])
