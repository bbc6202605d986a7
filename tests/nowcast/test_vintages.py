"""The vintage store and the calendar: nothing is shown before it came out, and bad tables are refused."""

from __future__ import annotations

from dataclasses import asdict, fields

import numpy as np
import polars as pl
import pytest

from latentfactors import Panel, ReleaseCalendar, SeriesInfo, VintageStore
from latentfactors.errors import ConfigurationError, PanelError, StoreError
from latentfactors.nowcast import audit_vintages
from latentfactors.transforms import transform_series


def table(n_periods=30, seed=0):
    """Two monthly series with revisions and one quarterly; every cell's whole history of releases."""
    rng = np.random.default_rng(seed)
    months = np.arange(np.datetime64("2010-01"), np.datetime64("2010-01") + n_periods)
    ends = (months + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
    lines = []
    for series, lag, step in (("ip", 15, 1), ("sales", 40, 1), ("gdp", 30, 3)):
        level = 100.0
        for k, end in enumerate(ends):
            level *= np.exp(0.01 * rng.normal())
            if (k + 1) % step:
                continue
            for revision in range(3):
                day = end + np.timedelta64(lag + 30 * revision, "D")
                lines.append((series, end, day, level * (1 + 0.002 * revision)))
    columns = list(zip(*lines, strict=True))
    return pl.DataFrame(
        {
            "series": columns[0],
            "period": np.array(columns[1]),
            "release": np.array(columns[2]),
            "value": columns[3],
        }
    )


INFO = {"gdp": {"frequency": "Q", "aggregation": "mariano_murasawa", "group": "output"}}
COLUMNS = {"series": "series", "period": "period", "release": "release", "value": "value"}


def store(**options):
    return VintageStore.from_long(table(), **COLUMNS, info=INFO, **options)


def test_no_vintage_shows_a_later_release():
    """Audit: every cell of every day's panel is its last release by that day, and no other cell is there."""
    frame, made = table(), store()
    for day in [*made.dates, np.datetime64("2011-03-03")]:
        panel = made.as_of(day)
        shown = panel.wide()
        truth = np.full(shown.shape, np.nan)
        lines = frame.filter(pl.col("release") <= day).sort("release")
        for line in lines.iter_rows(named=True):
            t = int(np.searchsorted(panel.times, np.datetime64(line["period"])))
            truth[t, panel.assets.tolist().index(line["series"])] = line["value"]
        np.testing.assert_array_equal(shown, truth)
        assert panel.times[-1] == lines["period"].max()


def test_the_audit_passes_what_is_sound_and_catches_what_leaks():
    for options in ({}, {"codes": dict.fromkeys(("gdp", "ip"), "log_difference")}):
        found = audit_vintages(store(**options))
        assert found.violations == ()
        assert len(store().dates) - 2 <= found.n_vintages <= len(store().dates)
        assert found.n_cells > 500
        assert found.passed

    class Final(VintageStore):
        """Shows final values on the ragged edge of the day: the usual mistake of a pseudo real-time study."""

        def as_of(self, date):
            panel, last = super().as_of(date), super().as_of(self.release[-1])
            rows = last.wide()[: panel.n_periods, np.searchsorted(last.assets, panel.assets)]
            return panel.with_values(np.where(panel.observed, rows.ravel(), np.nan))

    class Early(VintageStore):
        """Has everything a day before it comes out."""

        def as_of(self, date):
            return super().as_of(np.datetime64(date, "D") + np.timedelta64(1, "D"))

    sound = store()
    for kind in (Final, Early):
        leaking = kind(**{each.name: getattr(sound, each.name) for each in fields(sound)})
        found = audit_vintages(leaking)
        assert 0 < len(found.violations) <= found.n_vintages
        assert not found.passed
        assert found.violations[0].startswith("vintage of 20")
    with pytest.raises(PanelError, match="nothing was released"):
        audit_vintages(sound, ["1950-01-01"])


def test_what_is_released_later_never_changes_an_earlier_vintage():
    frame = table()
    day = np.datetime64("2011-06-20")
    later = frame.with_columns(
        pl.when(pl.col("release") > day)
        .then(pl.col("value") * 7 + 3)
        .otherwise(pl.col("value"))
        .alias("value")
    )
    for codes in ({}, {"ip": 5, "sales": 6, "gdp": 5}):
        one, two = (
            VintageStore.from_long(each, **COLUMNS, info=INFO, codes=codes) for each in (frame, later)
        )
        np.testing.assert_array_equal(one.as_of(day).values, two.as_of(day).values)
        assert one.as_of(day).digests() == two.as_of(day).digests()


def test_transformations_are_made_inside_the_vintage_at_the_series_own_frequency():
    plain, coded = store(), store(codes={"ip": 5, "gdp": 5})
    day = "2011-06-20"
    levels, changes = plain.as_of(day), coded.as_of(day)
    j = levels.assets.tolist().index("gdp")
    quarters = levels.wide()[2::3, j]
    np.testing.assert_allclose(changes.wide()[2::3, j], transform_series(quarters, 5))
    assert np.isnan(changes.wide()[3::3, j]).all()
    assert changes.series.transformation == ("log_difference", "log_difference", "level")
    assert changes.transforms != levels.transforms


def test_a_calendar_makes_pseudo_real_time_of_a_final_panel():
    final = store().as_of("2020-01-01")
    calendar = ReleaseCalendar(
        lags={"ip": 10, "sales": 45, "gdp": 28},
        dates={("ip", np.datetime64("2011-12-31")): np.datetime64("2012-01-25")},
        frequency={"ip": "M", "sales": "M", "gdp": "Q"},
    )
    made = VintageStore.from_calendar(final, calendar)
    panel = made.as_of("2012-01-24")
    edge = {
        name: panel.times[np.isfinite(panel.wide()[:, j])][-1] for j, name in enumerate(panel.assets.tolist())
    }
    assert [str(edge[name]) for name in ("ip", "sales", "gdp")] == ["2011-11-30", "2011-11-30", "2011-09-30"]
    assert str(made.as_of("2012-01-25").times[-1]) == "2011-12-31"
    with pytest.raises(ConfigurationError, match="no series"):
        VintageStore.from_calendar(final, ReleaseCalendar(lags={"ip": 1}, frequency={"ip": "M"}))
    # the panel's own publication lags
    lagged = Panel.from_wide(
        final.wide(), universe="all", times=final.times, assets=final.assets, frequency="M",
        value_kind="series", series=SeriesInfo(frequency=("Q", "M", "M"), publication_lag=(30, 15, 40)),
    )  # fmt: skip
    assert str(VintageStore.from_calendar(lagged).release[0]) == "2010-02-15"


def test_whole_vintages_go_in_and_come_out():
    made = store()
    days = ["2011-01-15", "2011-02-20", "2011-06-01"]
    again = VintageStore.from_vintages([(day, made.as_of(day)) for day in days])
    for day in days:
        one, two = made.as_of(day), again.as_of(day)
        order = [two.assets.tolist().index(name) for name in one.assets.tolist()]
        np.testing.assert_array_equal(one.wide(), two.wide()[:, order])
    np.testing.assert_array_equal(again.as_of("2011-05-31").values, again.as_of(days[1]).values)
    # only what changed is kept, and a withdrawn value leaves
    full = made.as_of(days[2])
    hidden = full.mask((full.index.period_codes == 3) & (full.asset_codes == 1))
    with_gap = VintageStore.from_vintages([(days[2], full), ("2011-06-02", hidden)])
    assert with_gap.releases(days[2], "2011-06-02")["value"].size == 1
    assert np.isnan(with_gap.as_of("2011-06-02").wide()[3, 1])
    with pytest.raises(PanelError, match="give them in order"):
        VintageStore.from_vintages([(days[1], full), (days[0], full)])


def test_a_store_is_saved_and_loaded_exactly(tmp_path):
    made = store(codes={"ip": 5})
    made.save(tmp_path / "vintages")
    back = VintageStore.load(tmp_path / "vintages")
    for day in made.dates[5::20]:
        one, two = made.as_of(day), back.as_of(day)
        assert one.digests() == two.digests()
        assert asdict(one.series) == asdict(two.series)
    (tmp_path / "vintages" / "releases.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="checksum"):
        VintageStore.load(tmp_path / "vintages")
    with pytest.raises(StoreError, match="no vintage store"):
        VintageStore.load(tmp_path)


def test_what_came_out_between_two_days():
    found = store().releases("2011-01-31", "2011-02-28")
    assert set(found["release"].astype(str)) <= {f"2011-02-{d:02d}" for d in range(1, 29)}
    assert found["revision"].any()
    assert not found["revision"].all()


def broken(**changes):
    frame = table(9).with_columns(**changes)
    return VintageStore.from_long(frame, **COLUMNS, info=INFO)


def test_bad_tables_are_refused_in_words():
    frame = table(9)
    with pytest.raises(PanelError, match="two releases on"):
        VintageStore.from_long(pl.concat([frame[:1], frame[:1], frame[1:]]), **COLUMNS, info=INFO)
    with pytest.raises(PanelError, match="not in order of time"):
        VintageStore.from_long(frame[::-1], **COLUMNS, info=INFO)
    with pytest.raises(PanelError, match="before the period begins"):
        VintageStore.from_long(frame, **{**COLUMNS, "period": "release", "release": "period"}, info=INFO)
    with pytest.raises(PanelError, match="quarterly series in monthly panels"):
        VintageStore.from_long(frame, **COLUMNS, info={"gdp": {"frequency": "W"}})
    made = VintageStore.from_long(frame, **COLUMNS)
    with pytest.raises(PanelError, match="is its frequency labelled right"):
        VintageStore(
            series=made.series, info=SeriesInfo(frequency=("M", "Q", "M")), frequency="M", code=made.code,
            period=made.period, release=made.release, value=made.value,
        )  # fmt: skip
    with pytest.raises(PanelError, match="must hold numbers"):
        broken(value=pl.lit("much"))
    with pytest.raises(PanelError, match="does not have"):
        VintageStore.from_long(frame, **COLUMNS, info={"gnp": {"frequency": "Q"}})
    with pytest.raises(ConfigurationError, match="unknown fields"):
        VintageStore.from_long(frame, **COLUMNS, info={"gdp": {"lag": 3}})
    with pytest.raises(PanelError, match="nothing was released"):
        store().as_of("2009-12-31")
    with pytest.raises(PanelError, match="nothing was released"):
        broken(value=pl.lit(None, dtype=pl.Float64)).as_of("2012-01-01")
    with pytest.raises(PanelError, match="never changed after the fact"):
        store().append(store())


def test_a_series_without_a_value_is_left_out_by_name():
    frame = table(9).with_columns(
        value=pl.when(pl.col("series") == "sales").then(None).otherwise(pl.col("value"))
    )
    panel = VintageStore.from_long(frame, **COLUMNS, info=INFO).as_of("2012-01-01")
    assert panel.assets.tolist() == ["gdp", "ip"]
    assert any("'sales'" in note for note in panel.notes)


def test_a_store_grows_forward():
    frame = table()
    day = np.datetime64("2011-06-20")
    labels = {"info": INFO}
    early = VintageStore.from_long(frame.filter(pl.col("release") <= day), **COLUMNS, **labels)
    late = VintageStore.from_long(frame.filter(pl.col("release") > day), **COLUMNS, **labels)
    whole = early.append(late)
    assert whole.as_of("2013-01-01").digests() == store().as_of("2013-01-01").digests()


def test_calendars():
    frequency = {"gdp": "Q", "ip": "M"}
    frame = pl.DataFrame(
        {
            "series": ["gdp", "gdp", "ip"],
            "period": ["2020-01-31", "2020-06-30", "2020-04-01"],
            "release": ["2020-04-29", "2020-07-30", "2020-05-15"],
        }
    )
    columns = {"series": "series", "period": "period", "release": "release", "frequency": frequency}
    calendar = ReleaseCalendar.from_frame(frame, **columns, lags={"ip": 16})
    assert str(calendar.release_date("gdp", "2020-03-31")) == "2020-04-29"
    assert str(calendar.release_date("ip", "2020-05-02")) == "2020-06-16"
    found = calendar.between("2020-04-29", "2020-06-16")
    assert [(str(each.date), each.series) for each in found] == [
        ("2020-04-29", "gdp"), ("2020-05-15", "ip"), ("2020-06-16", "ip"),
    ]  # fmt: skip
    with pytest.raises(PanelError, match="two release dates"):
        ReleaseCalendar.from_frame(pl.concat([frame, frame[:1]]), **columns)
    swapped = frame.with_columns(release=pl.Series(["2020-08-29", "2020-07-30", "2020-05-15"]))
    with pytest.raises(PanelError, match="out of order"):
        ReleaseCalendar.from_frame(swapped, **columns)
    early = frame.with_columns(release=pl.Series(["2019-12-29", "2020-07-30", "2020-05-15"]))
    with pytest.raises(PanelError, match="before the period begins"):
        ReleaseCalendar.from_frame(early, **columns)
    with pytest.raises(ConfigurationError, match="no frequency for 'ip'"):
        ReleaseCalendar(lags={"ip": 3}, frequency={})
    with pytest.raises(ConfigurationError, match="whole numbers of days"):
        ReleaseCalendar(lags={"ip": 3.5}, frequency={"ip": "M"})
    with pytest.raises(ConfigurationError, match="no release date"):
        calendar.release_date("gdp", "2021-03-31")
