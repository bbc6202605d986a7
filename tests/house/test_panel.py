"""Views, changed copies, fingerprints and size of a panel, against slow twins made of dictionaries."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentfactors import periods
from latentfactors.errors import FrequencyError, PanelError
from latentfactors.panel import Panel
from latentfactors.rows import Attribute, RowIndex, SeriesInfo
from latentfactors.validate import check_panel

HALF = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 10**6)


def random_panel(seed, *, n_periods=6, n_assets=5, value_kind="excess_return"):
    """An unbalanced panel with everything a panel can carry."""
    rng = np.random.default_rng(seed)
    rows = rng.random((n_periods, n_assets)) < 0.7
    rows[0, 0] = rows[-1, -1] = True
    n = int(rows.sum())
    months = np.arange(n_periods) + np.datetime64("2019-11", "M")
    return Panel(
        times=periods.period_end(months.astype("datetime64[D]"), "M"),
        assets=np.array([f"firm{k}" for k in range(n_assets)]),
        offsets=np.concatenate([[0], np.cumsum(rows.sum(axis=1))]),
        asset_codes=np.nonzero(rows)[1],
        values=np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        value_kind=value_kind,
        frequency="M",
        characteristics=rng.normal(size=(n, 2)),
        characteristic_names=("size", "value"),
        weights=rng.random(n),
        attributes={
            "sector": Attribute(rng.integers(-1, 2, n_assets), ("energy", "health")),
            "rating": Attribute(rng.integers(-1, 3, n), ("AA", "BB", "CC"), by="row"),
        },
        context=rng.normal(size=(n_periods, 1)),
        context_names=("vix",),
        observed_factors=rng.normal(size=(n_periods, 2)),
        observed_factor_names=("mkt", "smb"),
        series=SeriesInfo(frequency=("M",) * n_assets) if value_kind == "series" else None,
        transforms=("rank",),
        notes=("a note",),
    )


def lines(panel):
    """{(time, asset): everything in the row}, {time: everything of the period}."""
    content, levels = {}, {}
    for p, time in enumerate(panel.times):
        levels[time.item()] = (
            panel.context[p].tolist(), np.nan_to_num(panel.observed_factors[p], nan=-99.0).tolist(),
        )  # fmt: skip
        rows = panel.index.rows(p)
        for row in range(rows.start, rows.stop):
            code = panel.asset_codes[row]
            content[time.item(), panel.assets[code].item()] = (
                np.nan_to_num(panel.values[row], nan=-99.0).item(),
                panel.characteristics[row].tolist(),
                panel.weights[row].item(),
                *(
                    attribute.codes[code if attribute.by == "asset" else row].item()
                    for attribute in panel.attributes.values()
                ),
            )
    return content, levels


def kept(panel, keep):
    content, levels = lines(panel)
    return {key: row for key, row in content.items() if keep(*key)}, levels


# ------------------------------------------------------------------------------------ views


@HALF
@given(seed=SEEDS, a=st.integers(-8, 8), b=st.integers(-8, 8))
def test_between_is_the_slice_of_periods_and_shares_memory(seed, a, b):
    panel = random_panel(seed)
    view = panel.between(a, b)
    times = panel.times[a:b].tolist()
    content, levels = lines(panel)
    assert lines(view) == (
        {key: row for key, row in content.items() if key[0] in times},
        {time: level for time, level in levels.items() if time in times},
    )
    check_panel(view)
    assert view.n_assets == panel.n_assets
    assert (view.transforms, view.notes, view.frequency) == (panel.transforms, panel.notes, panel.frequency)
    if view.n_rows:
        for name in ("values", "characteristics", "weights", "asset_codes"):
            assert np.shares_memory(getattr(view, name), getattr(panel, name))
    assert not any(array.flags.writeable for array in arrays_of(view))
    if times:
        until = panel.until(panel.times[a:b][-1])
        assert lines(until)[0] == {key: row for key, row in content.items() if key[0] <= times[-1]}


@HALF
@given(seed=SEEDS)
def test_period_and_wide_show_the_rows(seed):
    panel = random_panel(seed)
    content, _ = lines(panel)
    wide = panel.wide()
    for p in range(-panel.n_periods, panel.n_periods):
        time, rows = panel.times[p].item(), panel.period(p)
        assert rows.time == panel.times[p]
        assert rows.assets.tolist() == [asset for t, asset in content if t == time]
        for k, asset in enumerate(rows.assets):
            expected = content[time, asset]
            assert np.nan_to_num(rows.values[k], nan=-99.0) == expected[0]
            assert rows.characteristics[k].tolist() == expected[1]
            assert rows.weights[k] == expected[2]
            at = panel.assets.tolist().index(asset)
            assert np.array_equal(wide[p, at], rows.values[k], equal_nan=True)
    assert np.isfinite(wide).sum() == panel.observed.sum()
    np.testing.assert_array_equal(panel.index.gather(wide), panel.values)


def test_periods_are_found_by_any_day_in_them():
    panel = random_panel(0)
    assert panel.until("2020-02-10").n_periods == panel.until("2020-02-29").n_periods == 4
    assert panel.until(np.datetime64("2020-02")).n_periods == 4
    for bad, match in (
        ("2019-10-31", "not in this panel, which covers 2019-11-30 to 2020-04-30"),
        ("2030-01-31", "not in this panel"), ("soon", "'soon'"), (3, "panel are dates, got 3"),
        (None, "time"), ([1, 2], "time"),
    ):  # fmt: skip
        with pytest.raises(PanelError, match=match):
            panel.until(bad)
    counted = Panel.from_arrays(np.ones((3, 1)), times=[2, 4, 9])
    assert counted.until(4).n_periods == 2
    for bad in (5, "2020-01-31", 4.0):
        with pytest.raises(PanelError):
            counted.until(bad)
    with pytest.raises(PanelError, match="no period"):
        panel.between(0, 0).until("2020-02-29")


# ------------------------------------------------------------------------------------ changed copies


@HALF
@given(seed=SEEDS, data=st.data())
def test_select_keeps_the_rows_of_some_assets_in_any_order(seed, data):
    panel = random_panel(seed)
    chosen = data.draw(st.permutations(panel.assets.tolist()))[: data.draw(st.integers(0, 5))]
    selected = panel.select(chosen)
    assert lines(selected) == kept(panel, lambda _, asset: asset in chosen)
    assert selected.assets.tolist() == chosen
    assert selected.notes == panel.notes
    back = panel.select(chosen[::-1]).select(chosen)
    assert lines(back) == lines(selected)


def test_select_refuses_what_is_no_label():
    panel = random_panel(0)
    assert panel.select(pl.Series(["firm2", "firm0"]).to_numpy()).assets.tolist() == ["firm2", "firm0"]
    for bad, match in (
        (["firm9"], "no asset firm9"), (["firm0", "firm0"], "firm0 more than"), ("firm0", "one-dimensional"),
        ([0], "no asset 0"), ([True] * 5, "int or str labels"), ([0.5], "int or str"), (None, "labels"),
    ):  # fmt: skip
        with pytest.raises(PanelError, match=match):
            panel.select(bad)


@HALF
@given(seed=SEEDS, wide=st.booleans())
def test_mask_hides_values_and_nothing_else(seed, wide):
    panel = random_panel(seed)
    cells = np.random.default_rng(seed).random(panel.wide().shape if wide else panel.n_rows) < 0.4
    masked = panel.mask(cells)
    by_row = panel.index.gather(cells) if wide else cells
    np.testing.assert_array_equal(masked.values, np.where(by_row, np.nan, panel.values))
    assert np.shares_memory(masked.characteristics, panel.characteristics)
    assert masked.with_values(panel.values).digests() == panel.digests()


def test_mask_and_values_of_a_wrong_shape_are_refused():
    panel = random_panel(0)
    for cells in (np.ones(panel.n_rows), np.ones(3, bool), np.ones((5, 6), bool), None):
        with pytest.raises(PanelError, match="cells must be boolean"):
            panel.mask(cells)
    with pytest.raises(PanelError, match="cells cannot be read"):
        panel.mask([[True], [True, True]])
    for values in (np.ones(3), 1.0, np.ones((panel.n_rows, 1)), ["a"] * panel.n_rows, None):
        with pytest.raises(PanelError, match="values"):
            panel.with_values(values)
    with pytest.raises(PanelError, match="values has an infinity"):
        panel.with_values(np.full(panel.n_rows, np.inf))


@HALF
@given(seed=SEEDS, n=st.integers(1, 3))
def test_extend_repeats_the_last_row_set(seed, n):
    panel = random_panel(seed)
    content, levels = lines(panel)
    last = panel.times[-1].item()
    extended = panel.extend(n)
    check_panel(extended)
    assert extended.n_realised == panel.n_realised
    for k in range(1, n + 1):
        time = periods.shift(panel.times[-1:], k, "M")[0].item()
        levels[time] = (levels[last][0], [-99.0, -99.0])
        content |= {(time, asset): (-99.0, *row[1:]) for (t, asset), row in content.items() if t == last}
    assert lines(extended) == (content, levels)


def test_extend_of_a_macro_panel_keeps_the_series_that_are_late():
    ragged = Panel.from_wide(
        [[1.0, 2.0], [3.0, np.nan], [4.0, np.nan]], universe="span", times=["2020-01", "2020-02", "2020-03"],
        value_kind="series",
    )  # fmt: skip
    assert ragged.extend(1).period(-1).assets.tolist() == [0, 1]
    as_returns = Panel.from_wide(ragged.wide(), universe="span", times=ragged.times)
    assert as_returns.extend(1).period(-1).assets.tolist() == [0]


def test_extend_follows_the_frequency_and_skips_empty_periods():
    table = np.array([[1.0], [2.0]])
    business = Panel.from_wide(table, universe="all", times=["2020-01-02", "2020-01-03"], frequency="B")
    assert business.extend(2).times[2:].astype(str).tolist() == ["2020-01-06", "2020-01-07"]
    assert Panel.from_wide(table, universe="all", times=[1, 5]).extend(1).times.tolist() == [1, 5, 6]
    hollow = Panel.from_wide(table, universe=np.array([[True], [False]]), times=[0, 1])
    assert hollow.extend(1).period(-1).assets.tolist() == [0]
    unknown = Panel.from_wide(table, universe="all", times=["2020-01-02", "2021-01-03"])
    with pytest.raises(FrequencyError, match=r"2021-01-03.*state frequency"):
        unknown.extend(1)
    for n in (0, -1, 1.5, True, None):
        with pytest.raises(PanelError, match="positive number"):
            business.extend(n)
    with pytest.raises(PanelError, match="empty panel"):
        business.between(0, 0).extend(1)


def test_a_quarter_stands_on_its_last_month():
    months = ["2020-01", "2020-02", "2020-03", "2020-04", "2020-05"]
    macro = {"universe": "all", "value_kind": "series"}
    monthly = Panel.from_wide(
        np.arange(10.0).reshape(5, 2), times=months, assets=["ip", "cpi"], frequency="M", **macro
    )
    info = SeriesInfo(frequency=("Q",), aggregation=("sum",), publication_lag=(30,), group=("output",))
    quarterly = Panel.from_wide(
        [[7.0], [8.0], [9.0]], times=["2019-12", "2020-03", "2020-06"], assets=["gdp"], frequency="Q",
        series=info, **macro,
    )  # fmt: skip
    joined = Panel.join_frequencies(monthly, quarterly)
    assert joined.times[[0, -1]].astype(str).tolist() == ["2019-12-31", "2020-06-30"]
    expected = np.full((7, 3), np.nan)
    expected[1:6, :2] = monthly.wide()
    expected[[0, 3, 6], 2] = [7.0, 8.0, 9.0]
    np.testing.assert_array_equal(joined.wide(), expected)
    assert joined.n_rows == 21  # every cell is a row
    assert joined.series.frequency == ("M", "M", "Q")
    assert joined.series.aggregation == ("mean", "mean", "sum")
    assert joined.series.publication_lag == (0, 0, 30)
    with pytest.raises(PanelError, match="'M' and 'Q', got 'series' of 'Q'"):
        Panel.join_frequencies(quarterly, monthly)
    with pytest.raises(PanelError, match="context too"):
        Panel.join_frequencies(
            monthly.with_context(pl.DataFrame({"t": months, "x": range(5)}), 0, time="t"), quarterly
        )
    with pytest.raises(PanelError, match="labels of one type"):
        Panel.join_frequencies(
            Panel.from_wide(np.ones((5, 1)), times=months, frequency="M", **macro), quarterly
        )
    same = Panel.from_wide([[7.0]], times=["2020-03"], assets=["ip"], frequency="Q", **macro)
    with pytest.raises(PanelError, match="ip more than once"):
        Panel.join_frequencies(monthly, same)


# ------------------------------------------------------------------------------------ fingerprints


CHANGES = {
    "values": lambda panel, row: {"values": bumped(panel.values, row)},
    "missing": lambda panel, row: {"values": bumped(panel.values, row, np.nan)},
    "characteristics": lambda panel, row: {"characteristics": bumped(panel.characteristics, (row, 1))},
    "weights": lambda panel, row: {"weights": bumped(panel.weights, row)},
    "rating": lambda panel, row: {
        "attributes": panel.attributes
        | {"rating": another_rating(panel, row)}
    },
    "context": lambda panel, row: {"context": bumped(panel.context, (panel.index.period_codes[row], 0))},
    "factors": lambda panel, row: {
        "observed_factors": bumped(panel.observed_factors, (panel.index.period_codes[row], 1))
    },
}  # fmt: skip


def bumped(array, where, value=None):
    changed = array.copy()
    changed[where] = np.nan_to_num(array[where]) + 1e-9 if value is None else value
    return changed


def another_rating(panel, row):
    rating = panel.attributes["rating"]
    codes = rating.codes.copy()
    codes[row] = (codes[row] + 2) % 3
    return Attribute(codes, rating.categories, by="row")


@pytest.mark.parametrize("what", CHANGES)
@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, where=st.floats(0, 0.999))
def test_a_changed_cell_changes_its_link_and_all_later_ones(what, seed, where):
    panel = random_panel(seed)
    row = int(where * panel.n_rows)
    if what == "missing" and np.isnan(panel.values[row]):
        return
    changed = replace(panel, **CHANGES[what](panel, row))
    p = panel.index.period_codes[row]
    old, new = panel.digests(), changed.digests()
    assert old[:p] == new[:p]
    assert all(x != y for x, y in zip(old[p:], new[p:], strict=True))


@HALF
@given(seed=SEEDS, n=st.integers(1, 5))
def test_more_months_change_no_earlier_link(seed, n):
    panel = random_panel(seed)
    assert panel.between(0, n).digests() == panel.digests()[:n]
    assert panel.extend(2).digests()[: panel.n_periods] == panel.digests()
    assert len(set(panel.digests())) == panel.n_periods


def test_a_new_line_of_a_new_asset_changes_no_earlier_link():
    frame = pl.DataFrame({"t": [0, 0, 1, 1], "i": ["B", "C", "B", "C"], "r": [0.1, 0.2, 0.3, 0.4]})
    more = pl.concat([frame, pl.DataFrame({"t": [2, 2], "i": ["A", "a longer name"], "r": [0.5, 0.6]})])
    panels = [Panel.from_frame(each, time="t", asset="i", value="r", lag=0) for each in (frame, more)]
    assert panels[0].digests() == panels[1].digests()[:2]


def test_what_describes_the_whole_panel_changes_every_link():
    panel = random_panel(0, value_kind="series")
    late = SeriesInfo(frequency=("M",) * 5, publication_lag=(1, 0, 0, 0, 0))
    renamed = np.array(["firmX", *panel.assets[1:]])
    for changes in (
        {"value_kind": "return"}, {"transforms": ()}, {"series": late},
        {"characteristic_names": ("size", "bm")},
        {"context_names": ("term",)}, {"observed_factor_names": ("mkt", "hml")}, {"weights": None},
        {"attributes": {}}, {"characteristics": panel.characteristics.astype("f4")}, {"assets": renamed},
    ):  # fmt: skip
        changed = replace(panel, **changes).digests()
        assert all(x != y for x, y in zip(changed, panel.digests(), strict=True)), changes
    assert replace(panel, notes=()).digests() == panel.digests()  # remarks are not content


def test_other_dates_and_unknown_categories_are_other_contents():
    counted = [Panel.from_wide(np.ones((2, 1)), universe="all", times=times) for times in ([0, 1], [5, 6])]
    assert not set(counted[0].digests()) & set(counted[1].digests())
    panel = counted[0]
    known, unknown = (
        replace(panel, attributes={"sector": Attribute([code], ("energy", "health"))}).digests()
        for code in (1, -1)
    )
    assert not set(known) & set(unknown)
    renumbered = replace(panel, attributes={"sector": Attribute([0], ("health", "energy"))})
    assert renumbered.digests() == known


# ------------------------------------------------------------------------------------ size, copies, index


def arrays_of(panel):
    named = (getattr(panel, name) for name in panel.__dataclass_fields__)
    yield from (array for array in named if isinstance(array, np.ndarray))
    yield from (attribute.codes for attribute in panel.attributes.values())


@HALF
@given(seed=SEEDS)
def test_the_reported_size_is_that_of_the_arrays(seed):
    panel = random_panel(seed)
    whole = sum(array.nbytes for array in arrays_of(panel))
    assert whole < sys.getsizeof(panel) < whole + 500
    assert sys.getsizeof(panel.between(0, 2)) < sys.getsizeof(panel)


@pytest.mark.parametrize(
    "make", [lambda panel: panel, lambda panel: panel.between(1, 4)], ids=["panel", "view"]
)
def test_a_pickled_panel_comes_back_read_only_and_equal(make):
    panel = make(random_panel(0))
    back = pickle.loads(pickle.dumps(panel))
    assert back.digests() == panel.digests()
    assert not any(array.flags.writeable for array in arrays_of(back))
    index = pickle.loads(pickle.dumps(panel.index))
    assert not index.offsets.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        back.values[0] = 1.0


def test_a_panel_is_frozen():
    table = np.ones((2, 2))
    panel = random_panel(0)
    for array in arrays_of(panel):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(AttributeError):
        panel.values = table
    values = np.ones(2)
    Panel(times=[0], assets=["A", "B"], offsets=[0, 2], asset_codes=[0, 1], values=values)
    assert values.flags.writeable  # the caller's own array keeps its flag


def test_realised_and_active_leave_out_the_live_and_the_absent():
    panel = Panel.from_wide(
        [[1.0, np.nan], [np.nan, np.nan]], universe=np.array([[1, 0], [1, 0]], dtype=bool)
    )
    assert panel.n_realised == 1
    assert panel.active_assets.tolist() == [True, False]
    assert panel.mask(np.ones(2, dtype=bool)).n_realised == 0
    assert panel.observed.tolist() == [True, False]
    assert panel.between(1, 2).n_realised == 0


def test_repr_tells_the_span():
    expected = "characteristics, 2 observed factors, attributes sector, rating, excess_return, 'M')"
    assert repr(random_panel(0)).endswith(expected)
    assert repr(random_panel(0)).startswith("Panel(6 periods 2019-11-30..2020-04-30, 5 assets")
    assert "empty" in repr(random_panel(0).between(0, 0))


@HALF
@given(
    mine=st.lists(st.integers(0, 9), unique=True, max_size=8),
    known=st.lists(st.integers(0, 9), unique=True, max_size=8),
    text=st.booleans(),
)
def test_match_assets_finds_labels_in_any_order(mine, known, text):
    def label(numbers):
        return np.array([f"a{k}" for k in numbers], dtype="U9") if text else np.array(numbers, dtype=np.int64)

    index = RowIndex(np.array([0]), label(mine), np.array([0, 0]), np.array([], dtype=np.int32))
    expected = [known.index(k) if k in known else -1 for k in mine]
    assert index.match_assets(label(known)).tolist() == expected
    assert index.match_assets(index.assets).tolist() == list(range(len(mine)))
    other = np.array(known, dtype=np.int64) if text else np.array([str(k) for k in known], dtype="U9")
    assert index.match_assets(other).tolist() == [-1] * len(mine)


def test_origins_and_targets_of_a_view_are_the_datas_own_dates():
    dates = np.array(["2020-01-02", "2020-01-06", "2020-01-08"], dtype="datetime64[D]")
    index = Panel.from_wide(np.ones((3, 1)), universe="all", times=dates, frequency="B").index
    assert index.origins().astype(str).tolist() == ["2020-01-01", "2020-01-02", "2020-01-06"]
    assert index.targets(1).tolist() == dates.tolist()
    assert index.targets(2).astype(str).tolist() == ["2020-01-06", "2020-01-08", "2020-01-09"]
    assert index.between(1, 2).origins().astype(str).tolist() == ["2020-01-02"]
    assert index.between(1, 2).targets(2).astype(str).tolist() == ["2020-01-08"]


def test_attributes_and_series_info_are_checked():
    for arguments, match in (
        (([0, 2], ("a", "b")), "codes must lie in"), (([-2], ("a",)), "codes must lie in"),
        (([0], ("a", "a")), "unique"), (([0.5], ("a",)), "integers"), ((["x"], ("a",)), "integers"),
        (([0], "abc"), "list of labels"), (([0], ("a",), "period"), "by must be"),
    ):  # fmt: skip
        with pytest.raises(PanelError, match=match):
            Attribute(*arguments)
    with pytest.raises(PanelError, match="'group' has 1 entries for 2"):
        SeriesInfo(frequency=("M", "Q"), group=("output",))
    with pytest.raises(PanelError, match="aggregation"):
        SeriesInfo(frequency=("M",), aggregation=("median",))
    with pytest.raises(FrequencyError):
        SeriesInfo(frequency=("monthly",))
    table = SeriesInfo(frequency=("M", "Q"), description=("ip", "gdp")).take([1])
    assert (table.frequency, table.description, table.publication_lag) == (("Q",), ("gdp",), (0,))
    info = SeriesInfo(frequency=("M",))
    with pytest.raises(PanelError, match="describes 1 series, the panel has 2"):
        Panel.from_wide(np.ones((1, 2)), universe="all", series=info)
