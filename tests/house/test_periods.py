"""Calendar arithmetic against slow twins that walk the calendar day by day."""

from __future__ import annotations

import calendar
import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentfactors import periods
from latentfactors.errors import FrequencyError, PanelError

DATES = st.dates(dt.date(1900, 1, 1), dt.date(2100, 12, 31))


def days(*texts):
    return np.array(texts, dtype="datetime64[D]")


def slow_end(day, frequency):
    """The last day of the period, by walking forward until the period changes."""

    def name(date):
        if frequency == "M":
            return date.year, date.month
        if frequency == "Q":
            return date.year, (date.month - 1) // 3
        return date.isocalendar()[:2]

    while name(day + dt.timedelta(1)) == name(day):
        day += dt.timedelta(1)
    return day


def slow_shift(day, steps, frequency):
    one = dt.timedelta(1 if steps > 0 else -1)
    for _ in range(abs(steps)):
        if frequency in ("B", "D"):
            day += one
            while frequency == "B" and day.weekday() > 4:
                day += one
        elif steps > 0:
            day = slow_end(day + one, frequency)
        else:
            while slow_end(day + one, frequency) == slow_end(day, frequency):
                day += one
            day += one
    return day


@settings(max_examples=150, deadline=None)
@given(day=DATES, frequency=st.sampled_from(["M", "Q", "W"]))
def test_period_end_is_the_last_day_before_the_period_changes(day, frequency):
    assert periods.period_end(days(day), frequency)[0].item() == slow_end(day, frequency)


@settings(max_examples=150, deadline=None)
@given(day=DATES, steps=st.integers(-5, 5), frequency=st.sampled_from(["M", "Q", "W", "B", "D"]))
def test_shift_walks_whole_periods_and_back(day, steps, frequency):
    if frequency == "B":
        while day.weekday() > 4:
            day += dt.timedelta(1)
    elif frequency != "D":
        day = slow_end(day, frequency)
    there = periods.shift(days(day), steps, frequency)
    assert there[0].item() == slow_shift(day, steps, frequency)
    assert periods.shift(there, -steps, frequency)[0].item() == day


def test_month_ends_in_leap_years():
    feb = days("2020-02-01", "2021-02-28", "1900-02-10", "2000-02-10")
    assert periods.period_end(feb, "M").astype(str).tolist() == [
        "2020-02-29", "2021-02-28", "1900-02-28", "2000-02-29",
    ]  # fmt: skip
    assert periods.shift(days("2020-01-31"), 1, "M")[0] == np.datetime64("2020-02-29")
    assert periods.shift(days("2020-02-29"), 12, "M")[0] == np.datetime64("2021-02-28")
    assert periods.shift(days("2021-02-28"), 1, "M")[0] == np.datetime64("2021-03-31")
    assert periods.shift(days("2019-12-31"), 1, "Q")[0] == np.datetime64("2020-03-31")


def test_weeks_cross_the_end_of_the_year_on_sundays():
    # 2020-12-28 .. 2021-01-03 is ISO week 53 of 2020.
    week = np.arange(days("2020-12-28")[0], days("2021-01-04")[0])
    assert np.all(periods.period_end(week, "W") == np.datetime64("2021-01-03"))
    assert periods.shift(days("2021-01-03"), 1, "W")[0] == np.datetime64("2021-01-10")
    ends = periods.period_range(days("2020-12-27")[0], days("2021-01-10")[0], "W")
    assert ends.astype(str).tolist() == ["2020-12-27", "2021-01-03", "2021-01-10"]
    assert periods.period_end(days("1969-12-31", "1960-01-03"), "W").astype(str).tolist() == [
        "1970-01-04", "1960-01-03",
    ]  # fmt: skip


def test_business_days_step_over_weekends():
    friday, monday = days("2020-01-03"), days("2020-01-06")
    assert periods.shift(friday, 1, "B") == monday
    assert periods.shift(monday, -1, "B") == friday
    with pytest.raises(FrequencyError, match="2020-01-04, 2020-01-05"):
        periods.period_end(days("2020-01-04", "2020-01-05", "2020-01-06"), "B")


def test_integers_and_unknown_frequencies():
    assert periods.shift(np.array([3, 7]), 2, None).tolist() == [5, 9]
    assert np.isnat(periods.shift(days("2020-01-31"), 1, None)).all()
    assert periods.shift(days("2020-01-31"), 0, None) == days("2020-01-31")
    passed = days("2020-01-30")
    assert periods.period_end(passed, None) is passed


@pytest.mark.parametrize("frequency", ["M", "Q", "W"])
def test_period_range_has_every_period_once(frequency):
    span = periods.period_range(days("2019-11-30")[0], days("2021-03-01")[0], frequency)
    every = {slow_end(day.item(), frequency) for day in np.arange(span[0], span[-1] + np.timedelta64(1, "D"))}
    assert [end.item() for end in span] == sorted(every)
    assert slow_end(dt.date(2019, 11, 30), frequency) == span[0].item()
    assert slow_end(dt.date(2021, 3, 1), frequency) == span[-1].item()


# ------------------------------------------------------------------------------------ neighbours


def test_neighbours_inside_are_the_datas_own_dates():
    own = days("2020-01-02", "2020-01-06", "2020-01-08")  # holidays on the 3rd and the 7th
    assert periods.neighbour(own, 1, "B").astype(str).tolist() == ["2020-01-06", "2020-01-08", "2020-01-09"]
    assert periods.neighbour(own, -1, "B").astype(str).tolist() == ["2020-01-01", "2020-01-02", "2020-01-06"]
    assert periods.neighbour(own, 2, "D").astype(str).tolist() == ["2020-01-08", "2020-01-09", "2020-01-10"]
    np.testing.assert_array_equal(periods.neighbour(own, 0, None), own)


def test_neighbours_beyond_an_unknown_frequency_are_unknown():
    own = days("2020-01-02", "2020-01-06")
    assert np.isnat(periods.neighbour(own, 1, None)).tolist() == [False, True]
    assert periods.neighbour(np.array([1, 5]), 1, None).tolist() == [5, 6]
    assert periods.neighbour(np.array([1, 5]), -3, None).tolist() == [-2, -1]
    assert periods.neighbour(own[:0], 1, "M").size == 0


@settings(max_examples=60, deadline=None)
@given(
    start=DATES,
    n=st.integers(1, 6),
    steps=st.integers(-8, 8),
    frequency=st.sampled_from(["M", "Q", "W", "B", "D"]),
)
def test_neighbours_of_a_run_without_holes_are_shifts(start, n, steps, frequency):
    if frequency == "B":
        start = slow_shift(start, 1, "B")
    first = periods.period_end(days(start), frequency)
    run = np.concatenate([periods.shift(first, k, frequency) for k in range(n)])
    expected = np.concatenate([periods.shift(first, k + steps, frequency) for k in range(n)])
    np.testing.assert_array_equal(periods.neighbour(run, steps, frequency), expected)


def test_follows():
    def follows(last, first, frequency):
        return periods.follows(np.datetime64(last), np.datetime64(first), frequency)

    assert follows("2020-01-31", "2020-02-29", "M")
    assert not follows("2020-01-31", "2020-03-31", "M")
    assert not follows("2020-02-29", "2020-01-31", "M")
    assert follows("2019-12-31", "2020-03-31", "Q")
    assert follows("2020-12-27", "2021-01-03", "W")
    assert follows("2020-01-03", "2020-01-06", "B")
    assert follows("2020-04-09", "2020-04-14", "B")  # Easter is no gap
    assert not follows("2020-12-17", "2020-12-26", "B")  # five trading days are
    assert not follows("2020-01-03", "2020-01-03", "B")
    assert periods.follows(4, 5, None)
    assert not periods.follows(4, 6, None)
    with pytest.raises(FrequencyError, match="state frequency"):
        follows("2020-01-31", "2020-02-29", None)


# ------------------------------------------------------------------------------------ frequency from spacing


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (pd.date_range("2019-12-31", periods=5, freq="ME"), "M"),
        (pd.date_range("2019-12-01", periods=5, freq="MS"), "M"),
        (pd.date_range("2020-01-31", periods=2, freq="BME"), "M"),
        (pd.date_range("2000-01-31", periods=300, freq="BME"), "M"),
        (pd.date_range("2019-12-31", periods=5, freq="QE"), "Q"),
        (pd.date_range("2019-11-30", periods=5, freq="QE-NOV"), "Q"),
        (pd.date_range("2020-12-18", periods=5, freq="W-FRI"), "W"),
        (pd.date_range("2020-12-20", periods=200, freq="W-SUN"), "W"),
        (pd.bdate_range("2020-01-01", periods=30), "B"),
        (pd.bdate_range("2020-01-01", periods=30).delete([3, 10, 11]), "B"),
        (pd.bdate_range("2020-01-06", periods=5), "B"),
        (pd.date_range("2020-01-01", periods=30), "D"),
        (pd.date_range("2020-01-04", periods=2), "D"),
        (pd.date_range("2019-12-31", periods=5, freq="ME").delete(2), None),  # a hole is not clean
        (pd.date_range("2019-12-31", periods=5, freq="QE").delete(2), None),
        (pd.date_range("2020-12-18", periods=5, freq="W-FRI").delete(2), None),
        (pd.date_range("2020-01-01", periods=30).delete([3]), None),  # weekends among the dates, and a hole
        (pd.date_range("2015-12-31", periods=5, freq="YE"), None),
        (pd.bdate_range("2020-01-01", periods=60)[::2], None),
        (pd.bdate_range("2020-01-01", periods=60).delete(range(20, 30)), None),  # two silent weeks
        (pd.to_datetime(["2020-01-31", "2020-02-01"]), "D"),
        (pd.to_datetime(["2020-01-01", "2020-02-29", "2020-03-01"]), None),  # a month each, unevenly
        (pd.to_datetime(["2020-01-31"]), None),
    ],
    ids=str,
)
def test_frequency_is_inferred_from_clean_spacing_only(dates, expected):
    assert periods.infer_frequency(dates.to_numpy().astype("datetime64[D]")) == expected


def test_integers_have_no_frequency():
    assert periods.infer_frequency(np.arange(10)) is None


# ------------------------------------------------------------------------------------ parsing


def test_a_day_is_read_from_every_iso_spelling():
    texts = [
        "2020-02", "2020-02-03", "2020-02-03T10:00", "2020-02-03 10:00:00.123456789", "2020-02-03T23:59:59Z",
        "2020-02-03 23:00:00+05:30", " 2020-02-03 ", "2020-02-03T10:00:00-0500",
    ]  # fmt: skip
    assert periods.parse_times(texts).astype(str).tolist() == ["2020-02-01"] + ["2020-02-03"] * 7
    objects = [dt.date(2020, 2, 3), dt.datetime(2020, 2, 3, 5), pd.Timestamp("2020-02-03", tz="Asia/Tokyo")]
    assert periods.parse_times(np.array(objects, dtype=object)).astype(str).tolist() == ["2020-02-03"] * 3
    before_1970 = np.array(["1969-12-31T23:59:59"], dtype="datetime64[ns]")
    assert periods.parse_times(before_1970)[0] == np.datetime64("1969-12-31")


def test_errors_count_and_show_the_first_bad_date():
    with pytest.raises(
        PanelError, match=r"'when' has 2 missing or unparseable dates, the first in row 1 \('03/04"
    ):
        periods.parse_times(["2020-01-31", "03/04/2020", "2020-13-01"], name="when")
    with pytest.raises(PanelError, match="'when' has 1 missing"):
        periods.parse_times(np.array(["2020-01-31", "NaT"], dtype="datetime64[ns]"), name="when")


@pytest.mark.parametrize("numbers", [[201912, 202001], [20191231, 20200131], [190001, 190012]])
def test_calendar_integers_are_refused_with_the_fix(numbers):
    with pytest.raises(PanelError, match=r"pd\.to_datetime"):
        periods.parse_times(np.array(numbers))


@pytest.mark.parametrize("numbers", [[0, 1], [201900, 201999], [1990, 1991], [10107, 202001], [-5, 3], []])
def test_running_numbers_are_kept(numbers):
    parsed = periods.parse_times(np.array(numbers, dtype=np.int32))
    assert parsed.dtype == np.int64
    assert parsed.tolist() == numbers


def test_unsigned_integers_are_not_wrapped():
    with pytest.raises(PanelError, match="int64"):
        periods.parse_times(np.array([2**63], dtype=np.uint64))


def test_frequencies_are_the_five():
    assert [periods.check_frequency(each) for each in ("M", "Q", "W", "B", "D", None)] == [*"MQWBD", None]
    for wrong in ("m", "ME", "A", 1, ["M"]):
        with pytest.raises(FrequencyError, match="frequency must be one of"):
            periods.check_frequency(wrong)


def test_twin_itself_knows_the_calendar():
    assert slow_end(dt.date(2024, 2, 1), "M").day == calendar.monthrange(2024, 2)[1] == 29
