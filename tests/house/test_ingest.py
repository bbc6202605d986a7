"""From frames, files and tables to panels, against slow twins made of dictionaries."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latentfactors import periods
from latentfactors.errors import FrequencyError, PanelError
from latentfactors.panel import Panel

MONTHS = np.arange("2019-11", "2020-07", dtype="datetime64[M]")
ENDS = periods.period_end(MONTHS.astype("datetime64[D]"), "M")
HALF = settings(max_examples=60, deadline=None)
PARTS = {
    "characteristics": ["c", "d"], "weights": "w", "attributes": ["sector", "rating"], "context": ["x"],
    "observed_factors": ["f"],
}  # fmt: skip


def random_lines(seed, dates, *, n_assets=5, density=0.6, missing=0.2):
    """Random unbalanced lines with holes, in random order."""
    rng = np.random.default_rng(seed)
    labels = np.array([f"firm{k}" for k in range(n_assets)])
    lines = [(t, i) for t in range(len(dates)) for i in range(n_assets) if rng.random() < density]
    lines = [lines[k] for k in rng.permutation(len(lines))]
    t, i = (np.array(each, dtype=int) for each in (zip(*lines, strict=True) if lines else ((), ())))
    n = len(lines)
    level = rng.normal(size=(len(dates), 2))
    value = np.where(rng.random(n) < missing, np.nan, rng.normal(size=n))
    columns = {
        "t": dates[t], "i": labels[i], "r": value, "c": rng.normal(size=n).astype("f4"),
        "d": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)).astype("f4"), "w": rng.random(n),
        "sector": np.array(["s0", "s1"])[i % 2], "rating": np.array(["AA", "BB"])[rng.integers(0, 2, n)],
        "x": level[t, 0], "f": level[t, 1],
    }  # fmt: skip
    return columns


def twin(columns, grid, live, lag):
    """{period: {asset: row}} and the number of values without a row, straight from the definition."""
    names = ("c", "d", "w", "sector", "rating")
    lines = {(columns["t"][k], columns["i"][k]): k for k in range(len(columns["t"]))}
    later = [*grid[1:], live] if lag else list(grid)
    before = dict(zip(later, grid, strict=True))
    rows = {
        p: {
            i: {name: columns[name][k] for name in names}
            | {"r": columns["r"][lines[p, i]] if (p, i) in lines else np.nan}
            for (t, i), k in lines.items()
            if t == before[p]
        }
        for p in later
    }
    left_out = sum(
        np.isfinite(columns["r"][k]) and not (p in rows and i in rows[p]) for (p, i), k in lines.items()
    )
    return rows, left_out


def check_against_twin(panel, columns, rows, left_out, lag, grid):
    assert panel.times.tolist() == [p.item() if isinstance(p, np.datetime64) else int(p) for p in rows]
    sectors, ratings = panel.attributes["sector"], panel.attributes["rating"]
    for p, expected in enumerate(rows.values()):
        got = panel.period(p)
        assert got.assets.tolist() == sorted(expected)
        for k, row in enumerate(expected[i] for i in sorted(expected)):
            assert np.array_equal([got.values[k], got.weights[k]], [row["r"], row["w"]], equal_nan=True)
            assert np.array_equal(got.characteristics[k], [row["c"], row["d"]], equal_nan=True)
            position = panel.index.rows(p).start + k
            sector = sectors.codes[position if sectors.by == "row" else panel.asset_codes[position]]
            rating = ratings.codes[position if ratings.by == "row" else panel.asset_codes[position]]
            assert (sectors.categories[sector], ratings.categories[rating]) == (row["sector"], row["rating"])
    said = [note for note in panel.notes if "left out" in note]
    assert (f"{left_out} value" in said[0]) if left_out else not said
    level = {name: dict(zip(columns["t"].tolist(), columns[name], strict=True)) for name in ("x", "f")}
    known = [g.item() for g in grid]
    realised = [*known[1:], None] if lag else known
    np.testing.assert_array_equal(panel.context[:, 0], [level["x"].get(t, np.nan) for t in known])
    np.testing.assert_array_equal(panel.observed_factors[:, 0], [level["f"].get(t, np.nan) for t in realised])


def build(columns, lag, **arguments):
    return Panel.from_frame(
        pl.DataFrame(columns), time="t", asset="i", value="r", lag=lag, **PARTS, **arguments
    )


@HALF
@given(seed=st.integers(0, 10**6), lag=st.sampled_from([0, 1]), density=st.sampled_from([0.15, 0.6, 1.0]))
@example(seed=1, lag=1, density=1.0)
def test_the_lag_equals_its_definition_on_calendar_months(seed, lag, density):
    """Holes in the calendar are empty periods, so a value after a hole has no row."""
    columns = random_lines(seed, ENDS, density=density)
    if len(columns["t"]) == 0:
        return
    grid = periods.period_range(columns["t"].min(), columns["t"].max(), "M")
    live = periods.shift(grid[-1:], 1, "M")[0]
    rows, left_out = twin(columns, grid, live, lag)
    if not any(np.isfinite(row["r"]) for each in rows.values() for row in each.values()):
        with pytest.raises(PanelError, match="no observed value"):
            build(columns, lag, frequency="M")
        return
    panel = build(columns, lag, frequency="M")
    check_against_twin(panel, columns, rows, left_out, lag, grid)
    assert panel.characteristics.dtype == np.float32


@HALF
@given(seed=st.integers(0, 10**6), lag=st.sampled_from([0, 1]), kind=st.sampled_from(["B", "D", "integer"]))
def test_the_lag_follows_the_datas_own_dates_where_there_is_no_calendar(seed, lag, kind):
    rng = np.random.default_rng(seed)
    every = np.arange(20)
    if kind != "integer":
        every = np.arange("2020-01-01", "2020-02-01", dtype="datetime64[D]")
        every = every[np.is_busday(every)] if kind == "B" else every
    dates = np.sort(rng.choice(every, 7, replace=False))
    columns = random_lines(seed, dates, density=0.8, missing=0.1)
    grid = np.unique(columns["t"])
    frequency = None if kind == "integer" else kind
    one = 1 if kind == "integer" else np.timedelta64(1, "D")
    live = grid[-1] + one if kind != "B" else np.busday_offset(grid[-1], 1)
    panel = build(columns, lag, frequency=frequency)
    check_against_twin(panel, columns, *twin(columns, grid, live, lag), lag, grid)


def test_the_live_period_has_rows_and_no_values():
    frame = pl.DataFrame(
        {"t": ["2020-01-31", "2020-02-29"] * 2, "i": [1, 1, 2, 2], "r": [1.0, 2.0, 3.0, 4.0]}
    )
    panel = Panel.from_frame(frame, time="t", asset="i", value="r", lag=1)
    assert panel.times.astype(str).tolist() == ["2020-02-29", "2020-03-31"]
    np.testing.assert_array_equal(panel.wide(), [[2.0, 4.0], [np.nan, np.nan]])
    assert panel.n_realised == 1
    assert "2 values left out" in panel.notes[-1]


@HALF
@given(seed=st.integers(0, 10**6), lag=st.sampled_from([0, 1]))
def test_backends_files_and_line_orders_give_the_same_panel(seed, lag, tmp_path_factory):
    columns = random_lines(seed, ENDS, density=0.7)
    frame = pl.DataFrame(columns)
    arguments = {"time": "t", "asset": "i", "value": "r", "lag": lag, "frequency": "M", **PARTS}
    panel = Panel.from_frame(frame, **arguments)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=seed)
    path = tmp_path_factory.mktemp("panel") / "panel.parquet"
    frame.write_parquet(path)
    others = [
        Panel.from_frame(other, **arguments)
        for other in (frame.to_pandas(), frame.to_arrow(), frame.lazy(), shuffled, frame.sort("t", "i"))
    ]
    for other in (*others, Panel.from_parquet(path, **arguments), Panel.from_parquet(str(path), **arguments)):
        assert other.digests() == panel.digests()
        assert (other.times.dtype, other.assets.dtype.kind) == (panel.times.dtype, "U")
        assert other.characteristics.dtype == np.float32


def test_the_callers_frame_is_neither_changed_nor_shared():
    columns = random_lines(3, ENDS)
    frame = pd.DataFrame(columns)
    before = frame.copy(deep=True)
    arguments = {"time": "t", "asset": "i", "value": "r", "lag": 0, "frequency": "M", **PARTS}
    panel = Panel.from_frame(frame, **arguments)
    pd.testing.assert_frame_equal(frame, before)
    digests = panel.digests()
    frame.loc[:, ["r", "c", "d", "w"]] = 7.0
    assert panel.digests() == digests
    table, labels = np.ones((2, 2)), np.array(["A", "B"])
    wide = Panel.from_wide(table, universe="all", assets=labels)
    table[:], labels[:] = 5.0, "Z"
    assert wide.wide().tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert wide.assets.tolist() == ["A", "B"]


def test_sorted_frames_are_not_shared_either():
    """Columns that need no sorting and no conversion would come through without a copy."""
    for make in (pd.DataFrame, pl.DataFrame):
        frame = make({"t": [0, 1], "i": [0, 0], "r": [0.1, 0.2], "w": [1.0, 2.0]})
        panel = Panel.from_frame(frame, time="t", asset="i", value="r", weights="w", lag=0)
        for column, kept in (("r", panel.values), ("w", panel.weights), ("t", panel.times)):
            assert not np.shares_memory(frame[column].to_numpy(), kept)


def test_remarks_are_notes_not_errors():
    frame = pl.DataFrame(
        {"t": ["2020-04-30", "2020-01-31"], "i": ["A", "A"], "r": [0.1, 0.2], "one": [1.0, 1.0]}
    )
    panel = Panel.from_frame(
        frame, time="t", asset="i", value="r", characteristics=["one"], lag=0, frequency="M"
    )
    assert panel.notes == (
        "unsorted lines were sorted", "2 periods without lines", "constant characteristics: one",
    )  # fmt: skip
    assert panel.n_periods == 4


def test_an_attribute_is_by_asset_until_it_changes():
    frame = pl.DataFrame(
        {
            "t": [0, 0, 1, 1], "i": ["A", "B", "A", "B"], "r": [0.1] * 4,
            "sector": ["x", None, "x", None], "rating": [1, 2, 2, 2],
        }
    )  # fmt: skip
    panel = Panel.from_frame(frame, time="t", asset="i", value="r", attributes=["sector", "rating"], lag=0)
    sector, rating = panel.attributes["sector"], panel.attributes["rating"]
    assert (sector.by, sector.codes.tolist(), sector.categories) == ("asset", [0, -1], ("x",))
    assert (rating.by, rating.codes.tolist(), rating.categories) == ("row", [0, 1, 1, 1], ("1", "2"))


def test_mixed_precision_characteristics_are_float64():
    frame = pl.DataFrame({"t": [0, 1], "i": [0, 0], "r": [0.1, 0.2], "c": [1.0, 2.0], "k": [1, 2]})
    frame = frame.with_columns(s=pl.col("c").cast(pl.Float32))
    single = Panel.from_frame(frame, time="t", asset="i", value="r", characteristics=["s"], lag=0)
    mixed = Panel.from_frame(frame, time="t", asset="i", value="r", characteristics=["s", "k"], lag=0)
    assert single.characteristics.dtype == np.float32
    assert mixed.characteristics.dtype == np.float64


# ------------------------------------------------------------------------------------ tables


@HALF
@given(seed=st.integers(0, 10**6))
def test_the_three_universes_equal_their_definitions(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 7)), int(rng.integers(1, 5)))
    table = np.where(rng.random(shape) < 0.5, np.nan, rng.normal(size=shape))
    table[0, 0] = 1.0
    mask = rng.random(shape) < 0.5
    mask[0, 0] = True
    span = np.zeros(shape, dtype=bool)
    for j in range(shape[1]):
        seen = np.flatnonzero(np.isfinite(table[:, j]))
        if seen.size:
            span[seen[0] : seen[-1] + 1, j] = True
    for universe, rows in (("span", span), ("all", np.ones(shape, dtype=bool)), (mask, mask)):
        panel = Panel.from_wide(table, universe=universe)
        index = panel.index
        np.testing.assert_array_equal(index.dense(np.ones(panel.n_rows), 0.0) == 1, rows)
        np.testing.assert_array_equal(panel.wide(), np.where(rows, table, np.nan))
        hidden = int((np.isfinite(table) & ~rows).sum())
        assert any(f"{hidden} value" in note for note in panel.notes) == (hidden > 0)


@pytest.mark.parametrize("universe", ["span", "all", "mask"])
def test_rows_of_a_table_may_come_in_any_order_and_with_holes(universe):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4, 3))
    mask = rng.random((4, 3)) < 0.7
    times = ["2020-04-30", "2020-01-31", "2020-02-29", "2020-03-31"]
    order = [1, 2, 3, 0]
    chosen = mask if universe == "mask" else universe
    panel = Panel.from_wide(table, universe=chosen, times=times, frequency="M")
    in_order = mask[order] if universe == "mask" else universe
    straight = Panel.from_wide(table[order], universe=in_order, times=np.array(times)[order], frequency="M")
    assert panel.digests() == straight.digests()
    with_hole = Panel.from_wide(table[:3], universe="span", times=times[:3], frequency="M")
    assert with_hole.n_periods == 4
    assert with_hole.period(2).values.tolist() == pytest.approx([np.nan] * 3, nan_ok=True)


def test_wide_frames_of_every_backend_agree():
    table = np.array([[0.1, np.nan], [0.2, 0.3]])
    days = [dt.date(2020, 1, 15), dt.date(2020, 2, 15)]
    frame = pl.DataFrame({"A": table[:, 0], "date": days, "B": table[:, 1]})
    expected = Panel.from_wide(table, universe="span", times=["2020-01", "2020-02"], assets=["A", "B"])
    indexed = pd.DataFrame(table, index=pd.DatetimeIndex(days), columns=["A", "B"])
    by_period = indexed.set_axis(pd.PeriodIndex(days, freq="M"))
    zoned = indexed.tz_localize("Europe/Berlin")
    for data, times in ((frame, "date"), (frame.to_pandas(), "date"), (frame.to_arrow(), "date"),
                        (frame.lazy(), "date"), (indexed, None), (by_period, None),
                        (zoned, None)):  # fmt: skip
        panel = Panel.from_wide(data, universe="span", times=times)
        assert panel.digests() == expected.digests()


def test_integer_column_names_become_integer_labels():
    frame = pd.DataFrame({14593: [0.1, 0.2], 10107: [0.3, np.nan]})
    panel = Panel.from_wide(frame, universe="all")
    assert panel.assets.tolist() == [14593, 10107]
    np.testing.assert_array_equal(panel.wide(), frame.to_numpy())
    long = pd.DataFrame({0: [0, 1], 1: ["A", "A"], 2: [0.1, 0.2]})
    assert Panel.from_frame(long, time=0, asset=1, value=2, lag=0).values.tolist() == [0.1, 0.2]


def test_from_arrays_keeps_cells_with_a_value_or_a_characteristic():
    values = np.array([[0.1, np.nan, np.nan], [0.2, 0.3, np.nan]])
    cube = np.full((2, 3, 2), np.nan, dtype=np.float32)
    cube[0, 1, 0], cube[1, 0] = 5.0, [6.0, 7.0]
    panel = Panel.from_arrays(values, cube, times=["2020-03-31", "2020-02-29"], frequency="M")
    assert panel.asset_codes.tolist() == [0, 1, 0, 1]
    assert panel.times.astype(str).tolist() == ["2020-02-29", "2020-03-31"]
    np.testing.assert_array_equal(panel.values, [0.2, 0.3, 0.1, np.nan])
    np.testing.assert_array_equal(
        panel.characteristics, [[6, 7], [np.nan, np.nan], [np.nan, np.nan], [5, np.nan]]
    )
    assert panel.characteristics.dtype == np.float32
    assert panel.characteristic_names == ("c0", "c1")
    assert Panel.from_arrays([[1, 2]]).values.tolist() == [1.0, 2.0]


# ------------------------------------------------------------------------------------ later additions


def monthly_panel():
    return Panel.from_wide(np.ones((3, 2)), universe="all", times=ENDS[2:5], assets=["A", "B"], frequency="M")


def test_context_is_moved_by_its_lag_and_factors_are_not():
    panel = monthly_panel()
    frame = pl.DataFrame({"t": ENDS[[4, 1, 2]], "vix": [4.0, 1.0, 2.0], "term": [40.0, 10.0, 20.0]})
    moved = panel.with_context(frame, 1, time="t")
    np.testing.assert_array_equal(moved.context, [[1, 10], [2, 20], [np.nan, np.nan]])
    still = panel.with_context(frame, 0, time="t")
    np.testing.assert_array_equal(still.context, [[2, 20], [np.nan, np.nan], [4, 40]])
    factors = panel.with_observed_factors(frame, time="t")
    np.testing.assert_array_equal(factors.observed_factors, [[2, 20], [np.nan, np.nan], [4, 40]])
    assert factors.observed_factor_names == moved.context_names == ("vix", "term")
    assert np.shares_memory(moved.values, panel.values)
    middle = frame.with_columns(pl.col("t").dt.offset_by("-10d")).to_pandas().set_index("t")
    np.testing.assert_array_equal(panel.with_context(middle, 1).context, moved.context)
    business = Panel.from_wide(
        np.ones((2, 1)), universe="all", times=["2020-01-02", "2020-01-06"], frequency="B"
    )
    daily = pl.DataFrame({"t": ["2020-01-02", "2020-01-03"], "vix": [1.0, 2.0]})
    np.testing.assert_array_equal(business.with_context(daily, 1, time="t").context, [[np.nan], [1.0]])


def test_what_cannot_be_added_is_refused():
    panel = monthly_panel()
    frame = pl.DataFrame({"t": ENDS[:3], "vix": [1.0, 2.0, 3.0]})

    def refused(match, table, **arguments):
        with pytest.raises(PanelError, match=match):
            panel.with_context(table, **({"lag": 0, "time": "t"} | arguments))

    refused("lag must be 0", frame, lag=2)
    refused("no column 'date'", frame, time="date")
    refused("time column", frame, time=None)
    refused("no column beside its time", frame.select("t"))
    refused("no lines", frame.clear())
    refused("no period in common", frame.with_columns(pl.col("t").dt.offset_by("10y")))
    refused("two lines in one period", pl.concat([frame, frame.tail(1)]))
    refused("int64.*datetime64", frame.with_columns(t=pl.int_range(3)))
    refused("'vix'.*infinity", frame.with_columns(vix=pl.lit(float("inf"))))
    refused("'vix' must hold numbers", frame.with_columns(vix=pl.lit("high")))
    weekend = pl.DataFrame({"t": ["2020-01-03", "2020-01-04"], "vix": [1.0, 2.0]})
    business = Panel.from_wide(np.ones((1, 1)), universe="all", times=["2020-01-03"], frequency="B")
    with pytest.raises(FrequencyError, match="weekend"):
        business.with_context(weekend, 0, time="t")


def test_attributes_are_matched_by_label():
    panel = monthly_panel()
    frame = pl.DataFrame({"firm": ["Z", "B"], "sector": ["health", "energy"], "tier": [1, 2]})
    done = panel.with_attributes(frame, asset="firm")
    assert done.attributes["sector"].codes.tolist() == [-1, 0]
    assert done.attributes["tier"].categories[done.attributes["tier"].codes[1]] == "2"
    again = done.with_attributes(frame.select("firm", country=pl.lit("NL")), asset="firm")
    assert list(again.attributes) == ["sector", "tier", "country"]
    assert not panel.attributes
    for bad, match in (
        (pl.concat([frame, frame]), "names an asset twice"),
        (pl.DataFrame({"firm": ["A", None], "sector": ["x", "y"]}), "without a label"),
        (pl.DataFrame({"firm": ["Y", "Z"], "sector": ["x", "y"]}), "no asset of column 'firm'.*Y, Z.*A, B"),
        (pl.DataFrame({"firm": [1, 2], "sector": ["x", "y"]}), "no asset"),
        (pl.DataFrame({"sector": ["x", "y"]}), "no column 'firm'"),
        (pl.DataFrame({"firm": ["A"], "beta": [0.5]}), "'beta'.*cast it"),
    ):
        with pytest.raises(PanelError, match=match):
            panel.with_attributes(bad, asset="firm")


def test_a_parquet_name_is_no_pattern(tmp_path):
    """`x[1].parquet` is that file, not x1.parquet."""
    for name, value in (("x1.parquet", 1.0), ("x[1].parquet", 2.0)):
        frame = pl.DataFrame({"t": ["2020-01-31", "2020-02-29"], "i": ["A", "A"], "r": [value, value]})
        frame.write_parquet(tmp_path / name)
    panel = Panel.from_parquet(tmp_path / "x[1].parquet", time="t", asset="i", value="r", lag=0)
    assert panel.values.tolist() == [2.0, 2.0]
