"""RMSFE of all series by time to each one's release."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import (
    NowcastPredictor,
    ReleaseCalendar,
    SeriesBenchmark,
    SeriesBenchmarkConfig,
    VintageSplits,
    VintageStore,
    walk_forward,
)
from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import (
    nowcast_record,
    nowcast_records,
    released_tables,
    released_values,
    series_nowcast_summary,
    series_nowcast_table,
)
from tests.nowcast.test_news import NAMES, economy, panel_of

LAGS = {name: 30 if name == "gdp" else 5 + 4 * k for k, name in enumerate(NAMES)}
MONTHLY = NAMES[1:]


@pytest.fixture(scope="module")
def runs():
    values, times = economy(n_periods=120, seed=3)
    final = panel_of(values, times)
    calendar = ReleaseCalendar(lags=LAGS, frequency={n: "Q" if n == "gdp" else "M" for n in NAMES})
    store = VintageStore.from_calendar(final, calendar)
    dates = np.arange(np.datetime64("2007-01"), np.datetime64("2009-01")).astype("datetime64[D]")
    splits = VintageSplits(store, tuple(dates + np.timedelta64(19, "D")), ahead=5)
    results = {
        method: walk_forward(
            NowcastPredictor(
                SeriesBenchmark(SeriesBenchmarkConfig(targets=NAMES, method=method)), targets=NAMES
            ),
            final,
            splits,
            horizon=-1,
        )
        for method in ("ar1", "mean")
    }
    return store, final, results


def test_released_tables_are_those_of_each_series(runs):
    store, final, _ = runs
    tables = released_tables(store)
    assert list(tables) == list(NAMES)
    for name in ("gdp", "m3"):
        assert tables[name] == released_values(store, name)
    day, value = tables["m3"][np.datetime64("2005-03-31")]
    assert day == np.datetime64("2005-03-31") + np.timedelta64(LAGS["m3"], "D")
    assert value == final.wide()[final.index.position("2005-03-31"), NAMES.index("m3")]
    late = released_tables(store, ("m3",), since="2008-01-01")
    assert min(late["m3"]) == np.datetime64("2008-01-31")
    assert late["m3"].items() <= tables["m3"].items()
    with pytest.raises(ConfigurationError, match="no 'gnp'"):
        released_tables(store, ("gnp",))


def test_first_and_latest_values_differ_where_there_were_revisions():
    values, times = economy(n_periods=40, seed=1)
    first, second = panel_of(values[:-1], times[:-1]), values.copy()
    second[30, 2] += 1.0
    store = VintageStore.from_vintages([("2003-05-20", first), ("2003-06-20", panel_of(second, times))])
    early, final = released_tables(store, ("m1", "m2")), released_tables(store, ("m1", "m2"), latest=True)
    changed = [p for p in early["m1"] if early["m1"][p] != final["m1"][p]]
    assert changed == [times[30]]
    assert final["m1"][times[30]][1] == pytest.approx(early["m1"][times[30]][1] + 1.0)
    assert early["m2"] == final["m2"]


def test_every_series_is_scored_at_its_own_distance_to_release(runs):
    store, _, results = runs
    released = released_tables(store, since="2007-01-01")
    records = {name: nowcast_records(result, released) for name, result in results.items()}
    assert set(records["ar1"]) == set(NAMES)
    one = nowcast_record(results["ar1"], "m4", released["m4"])
    np.testing.assert_array_equal(one.forecast, records["ar1"]["m4"].forecast)
    table = series_nowcast_table(records, benchmark="ar1", days_per_bin=30)
    # one cell by hand: m4 within the last 30 days before its release
    ratios = []
    for method in ("mean", "ar1"):
        record = records[method]["m4"]
        near = record.days_to_release < 30
        assert np.unique(record.period[near]).size == near.sum()
        ratios.append(np.sqrt(np.mean((record.forecast - record.realised)[near] ** 2)))
    line = table.filter(
        (table["series"] == "m4") & (table["days_to_release"] == 0) & (table["name"] == "mean")
    )
    assert line["rmsfe"][0] == pytest.approx(ratios[0])
    assert line["relative_rmsfe"][0] == pytest.approx(ratios[0] / ratios[1])
    summary = series_nowcast_summary(table)
    near = summary.filter((summary["days_to_release"] == 0) & (summary["name"] == "mean"))
    mine = table.filter((table["days_to_release"] == 0) & (table["name"] == "mean"))
    each = mine["relative_rmsfe"].to_numpy()
    assert near["n_series"][0] == 8
    assert near["mean_ratio"][0] == pytest.approx(each.mean())
    assert near["geometric_mean_ratio"][0] == pytest.approx(np.prod(each) ** (1 / 8))
    assert near["share_below_1"][0] == np.mean(each < 1)
    p = mine["dm_p"].to_numpy()
    assert near["n_significantly_worse"][0] == int(((p < 0.1) & (each > 1)).sum())
    # a persistent series is better forecast by its own past than by its mean
    assert near["mean_ratio"][0] > 1
    assert summary.filter(summary["name"] == "ar1")["mean_ratio"].to_list() == [1.0] * (summary.height // 2)


def test_series_that_some_forecast_lacks_are_left_out(runs):
    store, _, results = runs
    released = released_tables(store, MONTHLY[:3], since="2007-01-01")
    whole = nowcast_records(results["ar1"], released)
    part = {name: record for name, record in whole.items() if name != "m1"}
    table = series_nowcast_table({"ar1": whole, "other": part}, benchmark="ar1", days_per_bin=30)
    assert set(table["series"]) == {"m0", "m2"}
    with pytest.raises(InsufficientDataError, match="no series is nowcast by all"):
        series_nowcast_table({"ar1": whole, "other": {}}, benchmark="ar1")
    with pytest.raises(ConfigurationError, match="benchmark must be"):
        series_nowcast_table({"ar1": whole}, benchmark="naive")
    with pytest.raises(ConfigurationError, match="level"):
        series_nowcast_summary(table, level=1.0)
    with pytest.raises(InsufficientDataError, match="before a release"):
        nowcast_records(results["ar1"], {"m1": {}})
