"""Nowcasts, densities in levels, indicators, and the walk-forward over vintages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    DFMConfig,
    DynamicFactorModel,
    NowcastPredictor,
    PCAConfig,
    PCAModel,
    ReleaseCalendar,
    SeriesBenchmark,
    SeriesBenchmarkConfig,
    VintageSplits,
    VintageStore,
    composite_indicator,
    walk_forward,
)
from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
    NotFittedError,
    PanelMismatchError,
)
from latentfactors.evaluate import nowcast_record, nowcast_table, released_values
from latentfactors.nowcast import nowcast
from latentfactors.nowcast.indicator import invariant_indicator, printed_indicator
from tests.nowcast.test_news import NAMES, economy, fit, panel_of


@pytest.fixture(scope="module")
def now():
    values, times = economy(n_periods=97, seed=3)  # the panel's last month opens a quarter
    values[96, 0] = np.nan
    values[95, 0] = np.nan  # the quarter before it is still unpublished
    panel = panel_of(values, times)
    return fit(panel), panel


def test_kinds_follow_the_day(now):
    model, panel = now
    found = nowcast(model, panel, "gdp", ahead=2)
    assert found.kinds == ("backcast", "nowcast", "forecast", "forecast")
    assert [str(p) for p in found.periods] == ["2007-12-31", "2008-03-31", "2008-06-30", "2008-09-30"]
    later = nowcast(model, panel, "gdp", ahead=0, as_of="2008-04-02")
    assert later.kinds == ("backcast", "backcast", "nowcast")
    # the nearer a period, the more is known about it
    assert (np.diff(found.standard_deviation) > 0).all()
    assert found.frame().shape == (4, 7)
    low, high = found.intervals(0.9)
    np.testing.assert_allclose((high - low) / found.standard_deviation, 2 * 1.6448536, rtol=1e-6)


def test_parameter_draws_widen_the_density(now):
    model, panel = now
    others = [fit(panel.mask(np.random.default_rng(k).uniform(size=panel.n_rows) < 0.2)) for k in range(3)]
    plain, wider = nowcast(model, panel, "gdp"), nowcast(model, panel, "gdp", parameter_draws=others)
    np.testing.assert_array_equal(plain.mean, wider.mean)
    assert (wider.standard_deviation > plain.standard_deviation).all()


def test_levels_keep_the_dependence_between_periods(now):
    model, panel = now
    scaled = panel.with_values(panel.values / 100)
    labelled = replace(
        scaled, series=replace(scaled.series, transformation=("log_difference",) * scaled.n_assets)
    )
    model = fit(labelled)
    found = nowcast(model, labelled, "gdp", ahead=3)
    past = 100 * np.exp(0.01 * np.arange(8.0))
    fan = found.levels(past, seed=1, n_draws=4000)
    n = found.periods.size
    assert fan.level.shape == (5, n)
    assert (np.diff(fan.level, axis=0) > 0).all()
    # log levels are sums of the changes: their law is known
    sums = np.tril(np.ones((n, n)))
    mean, spread = sums @ found.mean, np.sqrt(np.diag(sums @ found.covariance @ sums.T))
    np.testing.assert_allclose(np.log(fan.level[2] / past[-1]), mean, atol=0.05 * spread.max())
    width = np.log(fan.level[4] / fan.level[0])
    np.testing.assert_allclose(width, 2 * 1.645 * spread, rtol=0.1)
    np.testing.assert_allclose(fan.year_on_year[2, 0], fan.level[2, 0] / past[-4] - 1, rtol=1e-9)
    np.testing.assert_allclose(fan.annualised[2, 0], (fan.level[2, 0] / past[-1]) ** 4 - 1, rtol=1e-3)
    with pytest.raises(ConfigurationError, match="past_levels"):
        found.levels([])
    with pytest.raises(ConfigurationError, match="right after the last published"):
        nowcast(model, labelled, "gdp", periods=["2008-06-30"]).levels(past)
    with pytest.raises(ConfigurationError, match="does not say how"):
        replace(found, transformation="").levels(past)


def test_a_scenario_is_an_observed_cell(now):
    model, panel = now
    live = panel.extend(2)
    high = np.array(live.values)
    rows = (live.index.period_codes >= 97) & (live.asset_codes > 0)
    high[rows] = panel.wide()[:, 1:].max()
    base = model.conditional(live, [("gdp", "2008-03-31")])
    story = model.conditional(live.with_values(high), [("gdp", "2008-03-31")])
    assert story.mean[0] > base.mean[0]
    assert story.covariance[0, 0] < base.covariance[0, 0]


def test_bad_questions_are_answered_in_words(now):
    model, panel = now
    with pytest.raises(PanelMismatchError, match="no series 'gnp'"):
        nowcast(model, panel, "gnp")
    with pytest.raises(InsufficientDataError, match="no published value"):
        nowcast(model, panel.mask(panel.asset_codes == 0), "gdp")
    with pytest.raises(MissingCapabilityError, match="no law of single cells"):
        nowcast(PCAModel(PCAConfig(n_factors=1)), panel, "gdp")
    with pytest.raises(ConfigurationError, match="periods must be"):
        nowcast(model, panel, "gdp", periods=[])
    with pytest.raises(ConfigurationError, match="ahead"):
        nowcast(model, panel, "gdp", ahead=-1)
    with pytest.raises(PanelMismatchError, match="stands in its last month"):
        model.conditional(panel, [("gdp", "2008-01-31")])
    with pytest.raises(ConfigurationError, match="pairs"):
        model.conditional(panel, ["gdp"])
    with pytest.raises(PanelMismatchError, match="does not know"):
        model.conditional(panel, [("gnp", "2008-01-31")])
    with pytest.raises(NotFittedError):
        nowcast(DynamicFactorModel(DFMConfig(n_factors=1)), panel, "gdp")
    with pytest.raises(ConfigurationError, match="targets"):
        NowcastPredictor(model, "gdp")
    with pytest.raises(MissingCapabilityError):
        NowcastPredictor(PCAModel(PCAConfig(n_factors=1)), ("gdp",))
    with pytest.raises(PanelMismatchError, match="no target"):
        NowcastPredictor(model.clone(), ("gnp",)).fit(panel)


# ------------------------------------------------------------------------------------ indicator


def test_the_invariant_indicator_does_not_care_how_factors_are_turned():
    rng = np.random.default_rng(0)
    factors, loadings = rng.normal(size=(80, 2)) * [2.0, 0.5], rng.normal(size=(12, 2))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]]) @ np.diag([3.0, -0.2])
    turned = factors @ turn, loadings @ np.linalg.inv(turn).T
    one, share = invariant_indicator(factors, loadings)
    two, other = invariant_indicator(*turned)
    np.testing.assert_allclose(np.abs(one @ two), np.sqrt((one @ one) * (two @ two)), rtol=1e-12)
    assert share == pytest.approx(other, rel=1e-12)
    # the plain way: first principal component of the whole common component
    common = factors @ loadings.T
    left, singular, _ = np.linalg.svd(common - common.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(one), np.abs(left[:, 0] * singular[0]), atol=1e-12)
    printed = [np.corrcoef(printed_indicator(f), printed_indicator(factors))[0, 1] for f in (turned[0],)]
    assert abs(printed[0]) < 0.999


def test_the_indicator_moves_with_its_sign_series(now):
    model, panel = now
    state = model.smooth(panel)
    for form in ("invariant", "printed"):
        found = composite_indicator(state, "m1", form=form)
        assert np.nanmean(found.values) == pytest.approx(0, abs=1e-12)
        assert np.nanstd(found.values) == pytest.approx(1)
        assert np.corrcoef(found.values[:-1], panel.wide()[:-1, 1])[0, 1] > 0.5
    with pytest.raises(PanelMismatchError, match="has no loadings"):
        composite_indicator(state, "gdp")
    with pytest.raises(ConfigurationError, match="form must be"):
        composite_indicator(state, "m1", form="other")


# ------------------------------------------------------------------------------------ real time


def test_a_walk_forward_over_vintages_and_its_table(tmp_path):
    values, times = economy(n_periods=120, seed=3)
    final = panel_of(values, times)
    calendar = ReleaseCalendar(
        lags={name: 30 if name == "gdp" else 5 + 4 * k for k, name in enumerate(NAMES)},
        frequency={name: "Q" if name == "gdp" else "M" for name in NAMES},
    )
    store = VintageStore.from_calendar(final, calendar)
    dates = [np.datetime64(f"{year}-{month:02d}-20") for year in (2008, 2009) for month in (1, 2, 3, 6)]
    splits = VintageSplits(store, tuple(dates), ahead=9)
    config = DFMConfig(n_factors=1, tolerance=1e-2, max_iterations=30)
    runs = {
        "model": NowcastPredictor(DynamicFactorModel(config), ("gdp",)),
        "AR(1)": NowcastPredictor(SeriesBenchmark(SeriesBenchmarkConfig(targets=("gdp",))), ("gdp",)),
        "mean": NowcastPredictor(
            SeriesBenchmark(SeriesBenchmarkConfig(targets=("gdp",), method="mean")), ("gdp",)
        ),
    }
    results = {
        name: walk_forward(predictor, final, splits, horizon=-2, store=tmp_path / name.replace("(1)", ""))
        for name, predictor in runs.items()
    }
    released = released_values(store, "gdp")
    records = {name: nowcast_record(result, "gdp", released) for name, result in results.items()}
    record = records["model"]
    assert (record.days_to_release > 0).all()
    # what walk-forward forecast is what a fresh fit says on the vintage
    vintage = store.as_of(dates[2])
    model = DynamicFactorModel(config)
    model.fit(vintage)
    mine = (record.as_of == dates[2]) & (record.period == np.datetime64("2008-03-31"))
    direct = nowcast(model, vintage, "gdp", periods=["2008-03-31"])
    assert record.forecast[mine][0] == pytest.approx(direct.mean[0], abs=1e-9)
    assert record.variance[mine][0] == pytest.approx(direct.covariance[0, 0], rel=1e-8)
    scores = nowcast_table(records, benchmark="AR(1)", days_per_bin=90)
    last = scores.filter(scores["days_to_release"] == 0)
    assert last["name"].to_list() == ["model", "AR(1)", "mean"]
    assert last["relative_rmsfe"][1] == 1.0
    assert last["relative_rmsfe"][0] < 0.8
    assert 0 <= last["dm_p"][0] <= 1
    with pytest.raises(ConfigurationError, match="benchmark must be"):
        nowcast_table(records, benchmark="naive")
    with pytest.raises(InsufficientDataError, match="no nowcast"):
        nowcast_record(results["model"], "gdp", {})
    again = walk_forward(runs["model"], final, splits, horizon=-2, store=tmp_path / "model")
    assert again.n_reused == len(dates)


def test_nowcasts_keep_every_bit_whatever_is_released_later():
    """Rule 1 as vintages: values, revisions and new cells released after the last date change nothing."""
    values, times = economy(n_periods=90, seed=8)
    calendar = ReleaseCalendar(
        lags={name: 30 if name == "gdp" else 5 + 4 * k for k, name in enumerate(NAMES)},
        frequency={name: "Q" if name == "gdp" else "M" for name in NAMES},
    )
    store = VintageStore.from_calendar(panel_of(values, times), calendar)
    dates = (np.datetime64("2006-03-20"), np.datetime64("2006-05-20"))
    late = store.release > dates[-1]
    other = replace(store, value=np.where(late, 9 - 4 * store.value, store.value))
    predictor = NowcastPredictor(DynamicFactorModel(DFMConfig(n_factors=1, tolerance=1e-2)), ("gdp",))
    runs = [
        walk_forward(predictor, each.as_of(each.dates[-1]), VintageSplits(each, dates, ahead=6), horizon=-1)
        for each in (store, other)
    ]
    for one, two in zip(runs[0].blocks, runs[1].blocks, strict=True):
        assert np.isfinite(one.expected_values).sum() == 2
        assert one.expected_values.tobytes() == two.expected_values.tobytes()
        assert one.variance.tobytes() == two.variance.tobytes()
    # and it can fail: what came out before the date does move them
    early = replace(store, value=np.where(late, store.value, 9 - 4 * store.value))
    moved = walk_forward(
        predictor, early.as_of(early.dates[-1]), VintageSplits(early, dates, ahead=6), horizon=-1
    )
    assert moved.blocks[0].expected_values.tobytes() != runs[0].blocks[0].expected_values.tobytes()


def test_benchmarks_are_what_they_say():
    values, times = economy(n_periods=60, seed=2)
    panel = panel_of(values, times)
    own = values[2::3, 0]
    own = own[np.isfinite(own)]
    design = np.column_stack([np.ones(own.size - 1), own[:-1]])
    c, phi = np.linalg.lstsq(design, own[1:], rcond=None)[0]
    ar = SeriesBenchmark(SeriesBenchmarkConfig(targets=("gdp",)))
    ar.fit(panel)
    found = nowcast(ar, panel, "gdp", ahead=2)
    path = [own[-1]]
    for _ in found.periods:
        path.append(c + phi * path[-1])
    np.testing.assert_allclose(found.mean, path[1:], rtol=1e-8)
    mean = SeriesBenchmark(SeriesBenchmarkConfig(targets=("gdp",), method="mean"))
    mean.fit(panel)
    np.testing.assert_allclose(nowcast(mean, panel, "gdp", ahead=2).mean, own.mean())
    with pytest.raises(ConfigurationError, match="method"):
        SeriesBenchmarkConfig(targets=("gdp",), method="naive")
    with pytest.raises(InsufficientDataError, match="needs 5"):
        ar.fit(panel.between(0, 12))


def test_means_without_densities_are_the_same_means():
    values, times = economy(n_periods=90, seed=8)
    panel = panel_of(values, times).between(0, 88)
    live, found = panel.extend(4), {}
    for densities in (True, False):
        predictor = NowcastPredictor(
            DynamicFactorModel(DFMConfig(n_factors=1, tolerance=1e-2)), NAMES, densities=densities
        )
        predictor.fit(panel)
        found[densities] = predictor.predict(live, start=live.times[88], horizon=-1).asset_forecast
    full, means = found[True].expected_values, found[False].expected_values
    assert np.isfinite(full).sum() == 4 * 7 + 2  # March to June have two quarter ends
    np.testing.assert_allclose(means, full, rtol=0, atol=1e-10)
    assert found[True].variance is not None
    assert found[False].variance is None
    assert predictor.identity != NowcastPredictor(predictor.model, NAMES).identity
