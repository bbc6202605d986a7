"""Quantile portfolios: by hand, against a slow twin, and where data are missing, tied or few."""

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import ExpandingWindow, HistoricalMeanPredictor, Panel, walk_forward
from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.evaluate import sort_portfolios
from latentfactors.evaluate.portfolios import quantile_breaks
from latentfactors.models.direct import CrossSectionalRidgePredictor
from latentfactors.simulate import characteristic_panel
from tests.evaluate.planted import full_panel

NAN = np.nan


def by_hand(values, signals=None, weights=None, **changes):
    """A monthly panel of (T, N) values and what to sort on."""
    values = np.asarray(values, dtype=float)
    times = (np.datetime64("2000-02") + np.arange(len(values)).astype("timedelta64[M]")).astype(
        "datetime64[D]"
    )
    times -= np.timedelta64(1, "D")
    cube = None if signals is None else np.broadcast_to(np.asarray(signals, float), values.shape)[..., None]
    names = None if signals is None else ["signal"]
    panel = Panel.from_arrays(values, cube, times=times, characteristic_names=names, frequency="M")
    if weights is not None:
        changes["weights"] = panel.index.gather(np.broadcast_to(np.asarray(weights, float), values.shape))
    return replace(panel, **changes)


def slow_twin(panel, signal, n, weights, drift):
    """Lists and dictionaries: returns, turnover and counts of missing, period by period."""
    returns, turnover, missing, held = [], [], [], {}
    for p in range(panel.n_periods):
        rows = range(panel.offsets[p], panel.offsets[p + 1])
        rows = [r for r in rows if np.isfinite(signal[r])]
        if len(rows) < n:
            returns.append([NAN] * n), turnover.append([NAN] * n), missing.append([0] * n)
            continue
        breaks = [np.quantile(signal[rows], q / n) for q in range(1, n)]
        line, traded, absent, new = [], [], [], {}
        for q in range(n):
            low, high = (-np.inf, *breaks)[q], (*breaks, np.inf)[q]
            members = [r for r in rows if low < signal[r] <= high]
            total = sum(weights[r] for r in members)
            w = {panel.asset_codes[r]: weights[r] / total for r in members}
            r_of = {panel.asset_codes[r]: panel.values[r] for r in members}
            seen = [a for a in w if np.isfinite(r_of[a])]
            r_p = sum(w[a] * r_of[a] for a in seen) / sum(w[a] for a in seen) if seen else NAN
            old = held.get(q)
            every = set(w) | set(old or {})
            traded.append(NAN if old is None else sum(abs(w.get(a, 0) - old.get(a, 0)) for a in every))
            line.append(r_p), absent.append(len(members) - len(seen))
            new[q] = {a: w[a] * (1 + r_of[a]) / (1 + r_p) if drift and a in seen else w[a] for a in w}
        returns.append(line), turnover.append(traded), missing.append(absent)
        held = new
    return np.array(returns), np.array(turnover), np.array(missing)


@pytest.mark.parametrize("drift", [True, False])
@pytest.mark.parametrize("weighting", ["equal", "value"])
def test_it_equals_the_slow_twin(weighting, drift):
    panel = full_panel(n_periods=30, n_assets=40)
    signal = panel.characteristics[:, 1].astype(float) + 0.1 * panel.weights
    signal[::17] = np.nan
    sort = sort_portfolios(signal, panel, n_quantiles=4, weighting=weighting, drift=drift)
    weights = np.ones(panel.n_rows) if weighting == "equal" else panel.weights
    returns, turnover, missing = slow_twin(panel, signal, 4, weights, drift)
    np.testing.assert_allclose(sort.returns, returns, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(sort.turnover, turnover, rtol=1e-10)
    np.testing.assert_array_equal(sort.n_unrealised, missing)
    assert missing.sum() > 10
    np.testing.assert_array_equal(sort.assignment == 0, np.isnan(signal))


def test_returns_by_hand():
    panel = by_hand([[0.01, 0.02, 0.03, 0.07]], [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 1.0, 4.0])
    equal = sort_portfolios("signal", panel, n_quantiles=2)
    np.testing.assert_allclose(equal.returns, [[0.015, 0.05]])
    np.testing.assert_allclose(equal.long_short, [0.035])
    value = sort_portfolios("signal", panel, n_quantiles=2, weighting="value")
    np.testing.assert_allclose(value.returns, [[0.0175, 0.062]])


def test_a_missing_return_is_no_zero_and_does_not_choose_the_portfolio():
    values = [[0.02, NAN, 0.03, 0.07]]
    sort = sort_portfolios("signal", by_hand(values, [1.0, 2.0, 3.0, 4.0]), n_quantiles=2)
    np.testing.assert_allclose(
        sort.returns, [[0.02, 0.05]]
    )  # with a zero: 0.01; without the asset: other breaks
    assert sort.n_members.tolist() == [[2, 2]]
    assert sort.n_unrealised.tolist() == [[1, 0]]
    assert sort.frame()["n_unrealised"].to_list() == [1, 0, 1]


def test_turnover_and_cost_by_hand():
    values = [[0.10, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    signals = [[1, 2, 3, 4], [1, 3, 2, 4], [1, 3, 2, 4]]
    still = sort_portfolios("signal", by_hand(values, signals), n_quantiles=2, drift=False, cost=0.01)
    # half of each leg is exchanged: half sold, half bought
    np.testing.assert_allclose(still.turnover, [[NAN, NAN], [1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(still.traded[:, 2], [NAN, 2.0, 0.0])
    np.testing.assert_allclose(still.net[:, 2], still.gross[:, 2] - [0.0, 0.02, 0.0])
    drifting = sort_portfolios("signal", by_hand(values, signals), n_quantiles=2)
    # low: 0.55/1.05 and 0.5/1.05 become 0.5 and 0; high: 0.5/1.25 and 0.75/1.25 become 0 and 0.5
    low = abs(0.5 - 0.55 / 1.05) + 0.5 / 1.05 + 0.5
    high = 0.4 + abs(0.5 - 0.6) + 0.5
    np.testing.assert_allclose(drifting.turnover[1], [low, high])
    assert drifting.frame()["turnover"].to_list()[2] == pytest.approx((low + high) / 2)


def test_breakpoints_of_a_subset():
    panel = by_hand(np.full((1, 8), 0.01), [1, 2, 3, 4, 5, 6, 7, 8])
    big = np.array([False, False, False, False, True, True, True, True])
    sort = sort_portfolios("signal", panel, n_quantiles=2, breakpoints=big)
    assert sort.n_members.tolist() == [[6, 2]]
    assert sort_portfolios("signal", panel, n_quantiles=2).n_members.tolist() == [[4, 4]]


def test_ties_share_a_portfolio():
    panel = by_hand(np.full((2, 6), 0.01), [[1, 1, 1, 1, 2, 3], [5, 5, 5, 5, 5, 5]])
    sort = sort_portfolios("signal", panel, n_quantiles=3)
    assert sort.n_members.tolist() == [[4, 0, 2], [6, 0, 0]]
    assert np.isnan(sort.returns[1]).tolist() == [False, True, True]
    assert np.isnan(sort.long_short).tolist() == [False, True]
    shuffled = sort_portfolios("signal", panel.select(panel.assets[::-1]), n_quantiles=3)
    np.testing.assert_array_equal(shuffled.n_members, sort.n_members)


def test_few_assets():
    panel = by_hand(np.full((2, 4), 0.01), [[1, 2, 3, 4], [1, 2, NAN, NAN]])
    sort = sort_portfolios("signal", panel, n_quantiles=3)
    assert sort.n_skipped == 1
    assert np.isnan(sort.returns[1]).all()
    assert sort.n_members.tolist() == [[2, 1, 1], [0, 0, 0]]
    assert sort_portfolios("signal", panel, n_quantiles=3, min_assets=2).n_members[1].tolist() == [1, 0, 1]


@pytest.mark.parametrize("n", [2, 3, 5, 7, 10])
def test_breaks_are_quantiles_and_exact_on_signals(n):
    x = np.random.default_rng(0).normal(size=7 * n + 1) * 1e-3
    np.testing.assert_allclose(quantile_breaks(x, n), np.quantile(x, np.arange(1, n) / n), rtol=1e-12)
    assert np.isin(quantile_breaks(x, n), x).all()  # (size - 1) q/n is whole: signals themselves, to the bit


@pytest.mark.parametrize("scale", [1e-4, 1e6, 2.0**-13])
def test_the_unit_of_the_signal_does_not_matter(scale):
    panel = full_panel(n_periods=12)
    signal = panel.characteristics[:, 0].astype(float)
    base = sort_portfolios(signal, panel, n_quantiles=3)
    np.testing.assert_array_equal(
        sort_portfolios(signal * scale, panel, n_quantiles=3).assignment, base.assignment
    )


# ------------------------------------------------------------------------- forecasts


def test_a_walk_forward_its_record_and_the_raw_forecasts_agree():
    panel = full_panel()
    result = walk_forward(CrossSectionalRidgePredictor(), panel, ExpandingWindow(first=24, step=8))
    sort = sort_portfolios(result, n_quantiles=3, weighting="value")
    same = sort_portfolios(result.record, panel, n_quantiles=3, weighting="value")
    np.testing.assert_array_equal(sort.returns, same.returns)
    np.testing.assert_array_equal(sort.times, panel.times[24:])
    wide = np.full(panel.n_rows, np.nan)
    wide[panel.offsets[24] :] = result.record.forecast
    third = sort_portfolios(wide, panel, n_quantiles=3, weighting="value")
    np.testing.assert_allclose(third.returns[24:], sort.returns)
    assert np.isnan(third.returns[:24]).all()


def test_a_forecast_is_sorted_out_of_sample_only():
    panel = full_panel()
    predictor = HistoricalMeanPredictor()
    predictor.fit(panel.between(0, 25))
    forecast = predictor.predict(panel).asset_forecast
    sort = sort_portfolios(forecast, panel, n_quantiles=3)
    assert np.isnan(sort.returns[:25]).all()
    assert np.isfinite(sort.returns[25:]).all()
    late = sort_portfolios(forecast.between(25, 40), panel, n_quantiles=3)
    np.testing.assert_array_equal(late.returns, sort.returns[25:])


def test_a_horizon_moves_the_return_not_the_weight():
    values = [[0.01, 0.02, 0.05], [0.03, 0.05, 0.09], [0.07, 0.11, 0.01]]
    panel = by_hand(values, [1.0, 2.0, 3.0], [[1, 3, 1], [1, 1, 1], [9, 1, 1]])
    sort = sort_portfolios("signal", panel, n_quantiles=2, horizon=2, weighting="value")
    np.testing.assert_array_equal(sort.times, panel.times[1:])
    np.testing.assert_allclose(sort.returns, [[0.045, 0.09], [0.09, 0.01]])
    live = sort_portfolios("signal", panel.extend(1), n_quantiles=2)
    assert np.isnan(live.returns[-1]).all()
    assert live.n_members[-1].tolist() == [2, 1]
    assert live.n_unrealised.sum() == 0


# ------------------------------------------------------------------------- statistics


def test_statistics_are_those_of_statsmodels():
    api = pytest.importorskip("statsmodels.api")
    panel = full_panel(n_periods=120, n_assets=40)
    sort = sort_portfolios(
        panel.characteristic_names[0],
        panel,
        n_quantiles=5,
        factors=["market", "size"],
        lags=3,
        cost=0.002,
    )
    table, spread = sort.frame(), sort.long_short
    kept = np.isfinite(spread)
    y, f = spread[kept], sort.factors[kept]
    hac = {"cov_type": "HAC", "cov_kwds": {"maxlags": 3}}
    mean = api.OLS(y, np.ones(y.size)).fit(**hac)
    alpha = api.OLS(y, api.add_constant(f)).fit(**hac)
    last = {name: table[name][-1] for name in table.columns}
    assert last["portfolio"] == "long_short"
    assert last["mean"] == pytest.approx(12 * y.mean())
    assert last["volatility"] == pytest.approx(np.sqrt(12) * y.std(ddof=1))
    assert last["sharpe"] == pytest.approx(np.sqrt(12) * y.mean() / y.std(ddof=1))
    assert last["t"] == pytest.approx(mean.tvalues[0])
    assert last["alpha"] == pytest.approx(12 * alpha.params[0])
    assert last["alpha_t"] == pytest.approx(alpha.tvalues[0])
    assert last["r_squared"] == pytest.approx(alpha.rsquared)
    assert last["mean"] - last["mean_net"] == pytest.approx(
        12 * 0.002 * np.nan_to_num(sort.traded[:, -1]).mean()
    )
    assert last["n_periods"] == y.size


def test_a_true_signal_earns_and_noise_does_not():
    truth = characteristic_panel(
        n_periods=240, n_assets=60, n_factors=2, noise=0.02, premia=[0.1, 0.05], seed=2
    )
    expected = truth.panel.characteristics @ truth.gamma @ truth.premia
    assert sort_portfolios(expected, truth.panel, n_quantiles=5).frame()["t"][-1] > 4
    noise = np.random.default_rng(1).normal(size=truth.panel.n_rows)
    assert abs(sort_portfolios(noise, truth.panel, n_quantiles=5).frame()["t"][-1]) < 2.5


def test_the_risk_free_rate_is_subtracted_once_and_from_raw_returns_only():
    rate = np.full((3, 1), 0.004)
    raw = by_hand([[0.01, 0.02], [0.03, 0.05], [0.0, 0.01]], [1.0, 2.0])
    raw = replace(raw, observed_factors=rate, observed_factor_names=("rf",), value_kind="return")
    sort = sort_portfolios("signal", raw, n_quantiles=2, risk_free="rf")
    np.testing.assert_allclose(sort.gross[:, :2], sort.returns - 0.004)
    np.testing.assert_allclose(sort.gross[:, 2], sort.long_short)
    with pytest.raises(ConfigurationError, match="only raw returns"):
        sort_portfolios("signal", replace(raw, value_kind="excess_return"), n_quantiles=2, risk_free="rf")
    with pytest.raises(ConfigurationError, match="alphas of raw returns need risk_free"):
        sort_portfolios("signal", raw, n_quantiles=2, factors=["rf"])


def test_frames_and_text():
    sort = sort_portfolios("signal", by_hand(np.full((2, 4), 0.01), [1, 2, 3, 4]), n_quantiles=2)
    frame = sort.returns_frame()
    assert frame.columns == ["time", "1", "2", "long_short"]
    assert frame["time"].to_list() == sort.times.tolist()
    assert np.isnan(sort.frame()["sharpe"].to_list()).all()  # constant returns have no volatility
    assert repr(sort).startswith("PortfolioSort(2 equal-weighted quantiles, 2 periods")


def test_bad_requests_are_refused():
    panel = by_hand(np.full((2, 4), 0.01), [1, 2, 3, 4])
    for options, match in (
        ({"n_quantiles": 1}, "n_quantiles must be"),
        ({"weighting": "cap"}, "weighting must be"),
        ({"weighting": "value"}, "needs panel.weights"),
        ({"cost": -1.0}, "cost must be"),
        ({"factors": ["market"]}, "no observed factor 'market'"),
        ({"breakpoints": np.ones(3, dtype=bool)}, "breakpoints must be boolean of shape"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            sort_portfolios("signal", panel, **{"n_quantiles": 2, **options})
    with pytest.raises(ConfigurationError, match="no characteristic 'size'"):
        sort_portfolios("size", panel)
    with pytest.raises(ConfigurationError, match="one number per row"):
        sort_portfolios(np.ones(3), panel)
    with pytest.raises(ConfigurationError, match="panel must be given"):
        sort_portfolios("signal")
    with pytest.raises(ConfigurationError, match="divide percent by 100"):
        sort_portfolios("signal", panel.with_values(panel.values - 3.0), n_quantiles=2)
    assert np.isfinite(
        sort_portfolios("signal", panel.with_values(panel.values - 3.0), n_quantiles=2, drift=False).returns
    ).all()
    record = walk_forward(HistoricalMeanPredictor(), full_panel(), ExpandingWindow(first=30, step=5)).record
    twice = replace(record, target_times=np.full_like(record.target_times, record.target_times[0]))
    with pytest.raises(PanelError, match="several forecasts of one period"):
        sort_portfolios(twice, full_panel(), n_quantiles=2)
