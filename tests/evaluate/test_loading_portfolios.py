"""Sorts on loadings by hand, strictly after training; anomaly tables by date; what factors move with."""

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    BetaLambdaMapper,
    ExpandingMeanFactorForecaster,
    ExpandingWindow,
    HistoricalMeanPredictor,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    Panel,
    PCAConfig,
    PCAModel,
    walk_forward,
)
from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
    PanelMismatchError,
)
from latentfactors.evaluate import (
    anomaly_table,
    loading_profiles,
    macro_correlations,
    price_anomalies,
    price_assets,
    sort_on_loadings,
    sort_portfolios,
)
from latentfactors.kernels.newey_west import hac_regression
from latentfactors.simulate import characteristic_panel

SPLITS = ExpandingWindow(first=60, step=15)


@pytest.fixture(scope="module")
def panel():
    truth = characteristic_panel(n_periods=120, n_assets=60, n_factors=2, missing=0.1, seed=4)
    return replace(truth.panel, observed_factors=truth.factors, observed_factor_names=("a", "b"))


@pytest.fixture(scope="module")
def state(panel):
    model = IPCAModel(IPCAConfig(n_factors=2))
    model.fit(panel.between(0, 80))
    return model.extract(panel)


def pipeline(model):
    return LatentFactorForecastPipeline(
        model=model, forecaster=ExpandingMeanFactorForecaster(), mapper=BetaLambdaMapper()
    )


@pytest.fixture(scope="module")
def walked(panel):
    return walk_forward(pipeline(IPCAModel(IPCAConfig(n_factors=2))), panel, SPLITS, keep_loadings=True)


def by_hand(panel, signal, n):
    """Equal-weighted top minus bottom quantile, period by period, NaN without signals."""
    spread = np.full(panel.n_periods, np.nan)
    for p in range(panel.n_periods):
        rows = np.arange(panel.offsets[p], panel.offsets[p + 1])
        rows = rows[np.isfinite(signal[rows])]
        if len(rows) < n:
            continue
        r, s = panel.values[rows], signal[rows]
        high, low = s > np.quantile(s, (n - 1) / n), s <= np.quantile(s, 1 / n)
        spread[p] = np.nanmean(r[high]) - np.nanmean(r[low])
    return spread


def test_a_state_is_sorted_after_its_training(panel, state):
    found = sort_on_loadings(state, panel, n_quantiles=5, factors=["a", "b"], lags=2)
    assert np.array_equal(found.times, panel.times[80:])
    loadings = state.measurement.loadings.rows()
    for k in range(2):
        np.testing.assert_allclose(found.long_short[:, k], by_hand(panel, loadings[:, k], 5)[80:], rtol=1e-10)
        line = found.frame().to_dicts()[k]
        own = found.long_short[:, k]
        X = np.column_stack([np.ones(40), panel.observed_factors[80:]])
        fit = hac_regression(own, X, 2)
        assert line["alpha"] == pytest.approx(12 * fit.coefficients[0])
        assert line["alpha_t"] == pytest.approx(fit.t_statistics[0])
        assert line["t"] == pytest.approx(hac_regression(own, np.ones((40, 1)), 2).t_statistics[0])
        expected = np.corrcoef(own, state.factor_returns[80:, k])[0, 1]
        assert line["correlation"] == pytest.approx(expected)
        assert line["correlation"] > 0.5  # long what loads on the factor, short what does not
    np.testing.assert_array_equal(found.factors, state.factor_returns[80:])


def test_a_description_covers_training_only_if_asked_for(panel, state):
    whole = sort_on_loadings(state, panel, n_quantiles=5, in_sample=True)
    assert np.array_equal(whole.times, panel.times)
    fresh = sort_on_loadings(state, panel, n_quantiles=5)
    np.testing.assert_array_equal(whole.long_short[80:], fresh.long_short)
    later = sort_on_loadings(state.between(70, 100), panel, n_quantiles=5)
    np.testing.assert_array_equal(later.long_short, fresh.long_short[:20])
    with pytest.raises(InsufficientDataError, match="after the end of training"):
        sort_on_loadings(state.between(0, 80), panel)


def test_a_walk_forward_uses_each_refits_own_loadings(panel, walked):
    found = sort_on_loadings(walked, n_quantiles=5)
    assert np.array_equal(found.times, panel.times[60:])
    paths = walked.factor_paths()
    for split, path in zip(walked.splits, paths, strict=True):
        model = IPCAModel(IPCAConfig(n_factors=2))
        model.fit(panel.between(0, split.start))
        state = model.extract(panel.between(0, split.stop))
        raw, aligned = state.factor_returns[split.start :], path.values[split.start :]
        turn = np.linalg.lstsq(aligned, raw, rcond=None)[0]  # a signed permutation
        loadings = state.measurement.loadings.rows() @ turn.T
        for k in range(2):
            expected = by_hand(panel.between(0, split.stop), loadings[:, k], 5)[split.start :]
            here = slice(split.start - 60, split.stop - 60)
            np.testing.assert_allclose(found.long_short[here, k], expected, rtol=1e-8)
        np.testing.assert_allclose(found.factors[split.start - 60 : split.stop - 60], aligned)


def test_the_future_does_not_reach_the_portfolios(panel):
    changed = panel.with_values(np.where(panel.index.period_codes >= 90, -3 * panel.values, panel.values))
    runs = [
        sort_on_loadings(
            walk_forward(pipeline(IPCAModel(IPCAConfig(n_factors=2))), each, SPLITS, keep_loadings=True),
            n_quantiles=5,
        )
        for each in (panel, changed)
    ]
    np.testing.assert_array_equal(runs[0].long_short[:30], runs[1].long_short[:30])
    members = [each.sorts["F1"].assignment for each in runs]
    known = panel.index.period_codes <= 90  # row 90 was known at 89
    np.testing.assert_array_equal(members[0][known], members[1][known])
    assert not np.allclose(runs[0].long_short[30:], runs[1].long_short[30:])


def test_static_loadings_and_options_reach_the_sort(panel):
    model = PCAModel(PCAConfig(n_factors=2))
    model.fit(panel.between(0, 80))
    state = model.extract(panel)
    found = sort_on_loadings(state, panel, n_quantiles=3, cost=0.001)
    signal = np.where(panel.index.period_codes >= 80, state.measurement.loadings.rows()[:, 1], np.nan)
    expected = sort_portfolios(signal, panel, n_quantiles=3, cost=0.001).frame().to_dicts()[-1]
    line = found.frame().to_dicts()[1]
    for key in ("mean", "t", "turnover", "mean_net", "n_unrealised"):
        assert line[key] == pytest.approx(expected[key])


def test_loadings_survive_the_store_and_are_kept_only_when_asked(panel, walked, tmp_path):
    predictor = pipeline(IPCAModel(IPCAConfig(n_factors=2)))
    plain = walk_forward(predictor, panel, SPLITS, store=tmp_path)
    with pytest.raises(MissingCapabilityError, match="keep_loadings=True"):
        plain.loadings()
    kept = walk_forward(predictor, panel, SPLITS, store=tmp_path, keep_loadings=True)
    assert kept.n_reused == 0
    again = walk_forward(predictor, panel, SPLITS, store=tmp_path, keep_loadings=True)
    assert again.n_reused == len(again.splits)
    np.testing.assert_array_equal(again.loadings(), walked.loadings())
    assert np.isnan(walked.loadings()[: panel.offsets[60]]).all()
    with pytest.raises(MissingCapabilityError, match="no loadings were kept"):
        walk_forward(HistoricalMeanPredictor(), panel, SPLITS, keep_loadings=True).loadings()


def test_what_does_not_fit_is_refused(panel, state, walked):
    with pytest.raises(ConfigurationError, match="panel must be given"):
        sort_on_loadings(state)
    with pytest.raises(ConfigurationError, match="leave panel out"):
        sort_on_loadings(walked, panel.between(0, 100))
    with pytest.raises(ConfigurationError, match="expected a LatentFactorState"):
        sort_on_loadings(panel, panel)
    with pytest.raises(PanelMismatchError, match="not rows of the panel"):
        sort_on_loadings(state, panel.between(0, 100))
    renamed = replace(panel, assets=np.array([f"x{i}" for i in range(60)]))
    with pytest.raises(PanelMismatchError, match="not rows of the panel"):
        sort_on_loadings(state, renamed)


# ------------------------------------------------------------------------- anomaly tables


def test_sets_meet_on_their_common_periods(panel, state, walked):
    sets = {"state": state, "walked": walked, "observed": panel}
    priced = price_anomalies(sets, {"all": panel}, lags=3)
    wide = panel.wide()[60:]
    wide = wide[:, np.isfinite(wide).any(axis=0)]
    expected = {
        "state": state.factor_returns[60:],
        "observed": panel.observed_factors[60:],
        "walked": np.concatenate(
            [path.values[a:b] for path, (a, b) in zip(
                walked.factor_paths(), ((60, 75), (75, 90), (90, 105), (105, 120)), strict=True
            )]
        ),
    }  # fmt: skip
    for name, factors in expected.items():
        own, found = price_assets(wide, factors, lags=3), priced["all", name]
        np.testing.assert_allclose(found.alphas, own.alphas, rtol=1e-10)
        np.testing.assert_allclose(found.t_statistics, own.t_statistics, rtol=1e-10)
        assert found.n_periods == 60
    table = anomaly_table(sets, {"all": panel}, lags=3)
    assert table["model"].to_list() == list(sets)
    assert table["mean_abs_alpha"][2] == pytest.approx(np.abs(expected_alpha(wide, panel)).mean())
    assert table["mean_r_squared"][2] > 0.05


def expected_alpha(wide, panel):
    f = panel.observed_factors[60:]
    alphas = []
    for column in wide.T:
        seen = np.isfinite(column)
        if seen.sum() > 3:
            X = np.column_stack([np.ones(seen.sum()), f[seen]])
            alphas.append(np.linalg.lstsq(X, column[seen], rcond=None)[0][0])
    return np.array(alphas)


def test_alphas_do_not_depend_on_rotation_sign_or_scale(panel, state):
    turned = replace(
        state, factors=replace(state.factors, values=state.factor_returns @ [[0.0, -2.0], [3.0, 0.1]])
    )
    table = anomaly_table({"one": state, "other": turned}, {"all": panel})
    assert table["mean_abs_alpha"][0] == pytest.approx(table["mean_abs_alpha"][1], rel=1e-8)
    spreads = sort_on_loadings(state, panel, n_quantiles=5)
    assert anomaly_table({"spreads": spreads}, {"all": panel})["n_periods"].to_list() == [40]


def test_sets_that_cannot_be_compared_are_refused(panel, state):
    with pytest.raises(ConfigurationError, match="at least one factor set"):
        anomaly_table({}, {"all": panel})
    with pytest.raises(ConfigurationError, match="alphas need excess returns"):
        anomaly_table({"s": state}, {"all": replace(panel, value_kind="return")})
    with pytest.raises(MissingCapabilityError, match="'p' is a panel without observed factors"):
        anomaly_table({"p": replace(panel, observed_factors=None, observed_factor_names=())}, {"all": panel})
    with pytest.raises(InsufficientDataError, match="have 0 periods in common"):
        anomaly_table({"s": state.between(0, 30)}, {"all": panel.between(40, 90)})
    with pytest.raises(ConfigurationError, match="must be a state"):
        anomaly_table({"f": panel.observed_factors}, {"all": panel})


# ------------------------------------------------------------------------- what factors and loadings go with


def test_macro_correlations_by_hand(panel, state):
    rng = np.random.default_rng(0)
    series = np.column_stack([state.factor_returns[:, 1] + 0.01 * rng.normal(size=120), rng.normal(size=120)])
    series[:30, 1] = np.nan
    macro = Panel.from_wide(
        np.vstack([series, rng.normal(size=(5, 2))]), times=[*panel.times, *panel.extend(5).times[-5:]],
        assets=["copy", "noise"], universe="all", value_kind="series",
    )  # fmt: skip
    found = macro_correlations(state, macro, lags=4)
    for k in range(2):
        for m, (a, n) in enumerate(((0, 120), (30, 90))):
            f, x = state.factor_returns[a:, k], series[a:, m]
            assert found.values[k, m] == pytest.approx(np.corrcoef(f, x)[0, 1], rel=1e-9)
            fit = hac_regression(f, np.column_stack([np.ones(n), x]), 4)
            assert found.t_statistics[k, m] == pytest.approx(fit.t_statistics[1], rel=1e-7)
            assert found.n_periods[k, m] == n
    assert macro_correlations(state, macro, names=["noise"]).values.shape == (2, 1)
    assert found.frame().height == 4
    with pytest.raises(ConfigurationError, match="no series 'gdp'"):
        macro_correlations(state, macro, names=["gdp"])
    with pytest.raises(InsufficientDataError, match="5 periods in common"):
        macro_correlations(state, macro.between(0, 5))


def test_loading_profiles_by_loop(panel, state):
    found = loading_profiles(state, panel, n_quantiles=4)
    loadings, z = state.measurement.loadings.rows(), panel.characteristics.astype(float)
    j, bins = 1, [[], [], [], []]
    for p in range(panel.n_periods):
        rows = np.arange(panel.offsets[p], panel.offsets[p + 1])
        for q in range(4):
            low = np.quantile(z[rows, j], q / 4) if q else -np.inf
            high = np.quantile(z[rows, j], (q + 1) / 4) if q < 3 else np.inf
            bins[q] += rows[(z[rows, j] > low) & (z[rows, j] <= high)].tolist()
    np.testing.assert_allclose(found.averages[j], [loadings[rows].mean(axis=0) for rows in bins], rtol=1e-8)
    np.testing.assert_allclose(found.spreads, found.averages[:, 3] - found.averages[:, 0])
    assert found.frame().height == found.slopes.size
    with pytest.raises(PanelMismatchError):
        loading_profiles(state, panel.between(0, 100))
    with pytest.raises(ConfigurationError, match="n_quantiles"):
        loading_profiles(state, panel, n_quantiles=1)


def test_a_constant_characteristic_has_no_slope(panel):
    names = (*panel.characteristic_names, "one")
    z = np.column_stack([panel.characteristics, np.ones(panel.n_rows)])
    wider = replace(panel, characteristics=z, characteristic_names=names)
    model = IPCAModel(IPCAConfig(n_factors=2))
    model.fit(wider)
    found = loading_profiles(model.extract(wider), wider)
    assert np.isnan(found.slopes[-1]).all()
    gamma = found.slopes[:-1] / panel.characteristics.std(axis=0, dtype=float)[:, None]
    np.testing.assert_allclose(gamma, model.estimates.gamma[:-1], rtol=1e-6, atol=1e-9)
