"""Whatever is thrown at a constructor: a valid panel comes out, or a `PanelError` that names the thing."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from latentfactors.errors import FrequencyError, PanelError
from latentfactors.panel import Panel
from latentfactors.validate import check_panel

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def build(make, *names):
    """A valid panel, or None where the constructor refused in one readable sentence that names the thing."""
    try:
        panel = make()
    except PanelError as error:
        message = str(error)
        assert len(message) > 15
        assert "Traceback" not in message
        assert not names or any(name in message for name in names), message
        return None
    assert isinstance(panel, Panel)
    check_panel(panel)
    assert not any(np.isinf(each).any() for each in (panel.values, panel.characteristics) if each is not None)
    assert np.isfinite(panel.values).any()
    return panel


def refused(make, *fragments):
    with pytest.raises(PanelError) as caught:
        make()
    for fragment in fragments:
        assert fragment in str(caught.value), str(caught.value)


def long(frame, **changes):
    arguments = {"time": "t", "asset": "i", "value": "r", "lag": 0} | changes
    return Panel.from_frame(frame, **arguments)


# ------------------------------------------------------------------------------------ random long frames

TIMES = [
    [dt.date(2019, 12, 31), dt.date(2020, 1, 31), dt.date(2020, 2, 29), dt.date(2020, 4, 30)],
    ["2019-12-31", "2020-01-31", "2020-02-29", "nonsense"],
    ["2020-01-31T12:00:00Z", "2020-02-29 00:00:00+02:00", "2020-03", None],
    [202001, 202002, 202003, 202012],
    [20200131, 20200229, 20200331, 20201231],
    [0, 1, 2, 7],
    [-(2**63), 2**63 - 1, 0, 1],
    [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2020, 1, 1), None],
    [dt.datetime(2020, 1, 31, 23, 59), dt.datetime(2020, 1, 31, 0), dt.datetime(2020, 2, 1), None],
    [dt.date(2020, 1, 4), dt.date(2020, 1, 6), dt.date(2020, 1, 7), dt.date(2020, 1, 8)],
    [1.5, 2.5, 3.5, 4.5],
    [True, False, True, False],
    ["today", "now", "7", ""],
    [None, None, None, None],
]
LABELS = [
    ["A", "B", "C", "D"],
    [10001, 10002, 10003, 10004],
    [2001, 2002, 2003, 2004],
    ["2020-01-31", "2020-02-29", "2020-03-31", "2020-04-30"],
    [dt.date(2020, 1, 31), dt.date(2020, 2, 29), dt.date(2020, 3, 31), dt.date(2020, 4, 30)],
    ["A", None, "C", ""],
    ["A", "A\0", " A", "a"],
    [1.0, 2.0, 3.0, float("nan")],
    [True, False, None, True],
    [2**63 - 1, -(2**63), 0, 1],
    [None, None, None, None],
]
NUMBERS = st.sampled_from([0.1, -0.2, 0.0, 1e300, -1e-300, float("nan"), float("inf"), -float("inf"), None])
ORDINARY = st.sampled_from([0.1, -0.2, 0.0, 3.0, float("nan"), None])


@st.composite
def long_frames(draw):
    n = draw(st.integers(0, 9))
    # The first spellings are sound and are drawn most of the time, so that a fair share becomes a panel.
    times = draw(st.sampled_from([TIMES[0]] * 12 + [TIMES[5]] * 6 + TIMES))
    labels = draw(st.sampled_from([LABELS[0]] * 12 + [LABELS[1]] * 6 + LABELS))
    numbers = draw(st.sampled_from([NUMBERS] + [ORDINARY] * 9))
    unique = draw(st.integers(0, 4)) > 0  # otherwise duplicates are all but certain
    cells = st.tuples(st.integers(0, 3), st.integers(0, 3))
    pairs = draw(st.lists(cells, min_size=n, max_size=n, unique=unique))
    columns = {
        "t": [times[k] for k, _ in pairs],
        "i": [labels[k] for _, k in pairs],
        **{name: draw(st.lists(numbers, min_size=n, max_size=n)) for name in ("r", "c", "w", "x", "f")},
        "g": draw(st.lists(st.sampled_from(["energy", "health", None]), min_size=n, max_size=n)),
    }
    if draw(st.integers(0, 5)) > 0:
        columns["x"], columns["f"] = ([float(k) for k, _ in pairs] for _ in range(2))
        columns["w"] = [None if x is None else abs(x) for x in columns["w"]]
    if draw(st.integers(0, 9)) == 0:
        columns[draw(st.sampled_from(["r", "c", "w"]))] = ["0.5"] * n
    return columns


def as_backend(columns, backend):
    if backend == "pandas":
        return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in columns.items()})
    if backend == "pandas-inferred":
        return pd.DataFrame(columns)
    if backend == "pyarrow":
        return pa.table({name: pa.array(column) for name, column in columns.items()})
    frame = pl.DataFrame({name: pl.Series(name, column, strict=True) for name, column in columns.items()})
    return frame.lazy() if backend == "polars-lazy" else frame


@settings(FEW, max_examples=300)
@given(
    columns=long_frames(),
    backend=st.sampled_from(["pandas", "pandas-inferred", "pyarrow", "polars", "polars-lazy"]),
    lag=st.sampled_from([0, 1]),
    frequency=st.sampled_from([None, None, None, "M", "M", "M", "Q", "W", "B", "D"]),
    parts=st.sets(
        st.sampled_from(["characteristics", "weights", "context", "observed_factors", "attributes"])
    ),
)
def test_a_random_long_frame_becomes_a_valid_panel_or_a_named_error(columns, backend, lag, frequency, parts):
    try:
        frame = as_backend(columns, backend)
    except (TypeError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, pd.errors.OutOfBoundsDatetime):
        return  # the frame library itself refuses such a column
    chosen = {"characteristics": ["c"], "weights": "w", "context": ["x"], "observed_factors": ["f"]}
    chosen["attributes"] = ["g"]
    before = frame.copy(deep=True) if isinstance(frame, pd.DataFrame) else None
    panel = build(
        lambda: long(frame, lag=lag, frequency=frequency, **{part: chosen[part] for part in parts}),
        *("'t'", "'i'", "'r'", "'c'", "'w'", "'x'", "'f'", "'g'", "weights", "frequency", "lines", "times"),
        *("assets", "duplicate", "period"),
    )
    if before is not None:
        pd.testing.assert_frame_equal(frame, before)
    event("refused" if panel is None else "a panel")
    if panel is not None and lag == 0:
        expected = sorted(x for x in columns["r"] if x is not None and np.isfinite(x))
        assert sorted(panel.values[panel.observed]) == expected  # no value is invented, moved or lost


@FEW
@given(columns=long_frames(), lag=st.sampled_from([0, 1]))
def test_backends_agree_on_what_they_accept(columns, lag):
    """The same columns through polars and pyarrow: both refuse, or both give the same panel."""
    try:
        frames = [as_backend(columns, backend) for backend in ("polars", "pyarrow")]
    except (TypeError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return
    panels = [build(lambda frame=frame: long(frame, lag=lag, characteristics=["c"])) for frame in frames]
    assert (panels[0] is None) == (panels[1] is None)
    if panels[0] is not None:
        assert panels[0].digests() == panels[1].digests()


# ------------------------------------------------------------------------------------ random tables


@st.composite
def tables(draw):
    shape = draw(st.tuples(st.integers(0, 5), st.integers(0, 4)))
    flat = draw(st.lists(NUMBERS, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    return np.array([np.nan if x is None else x for x in flat], dtype=float).reshape(shape)


@settings(FEW, max_examples=150)
@given(
    table=tables(),
    universe=st.sampled_from(["span", "all", "every", None, "true", "short"]),
    times=st.sampled_from([None, *TIMES]),
)
@example(table=np.array([[np.inf], [1.0]]), universe="span", times=None)
def test_a_random_wide_table_becomes_a_valid_panel_or_a_named_error(table, universe, times):
    mask = {"true": np.ones(table.shape, bool), "short": np.ones((1, 9), bool)}
    chosen = mask.get(universe, universe)
    stamps = None if times is None else times[: len(table)]
    before = table.copy()
    panel = build(lambda: Panel.from_wide(table, universe=chosen, times=stamps))
    np.testing.assert_array_equal(table, before)
    if np.isinf(table).any():
        assert panel is None  # an infinity at the edge of a span is not "outside the data"
    if panel is not None:
        assert panel.observed.sum() == np.isfinite(table).sum()


@settings(FEW, max_examples=120)
@given(
    table=tables(),
    depth=st.integers(0, 2),
    lost=st.sampled_from([None, 0, 1]),
    names=st.sampled_from([None, ["a"], ["a", "b"], ["a", "a"], "ab"]),
    seed=st.integers(0, 99),
)
def test_random_arrays_become_a_valid_panel_or_a_named_error(table, depth, lost, names, seed):
    rng = np.random.default_rng(seed)
    cube = np.where(rng.random((*table.shape, depth)) < 0.4, np.nan, 1.0)
    if lost is not None and cube.shape[lost]:
        cube = np.take(cube, range(cube.shape[lost] - 1), axis=lost)
    panel = build(lambda: Panel.from_arrays(table, cube, characteristic_names=names))
    if panel is not None:
        rows = np.isfinite(table) | np.isfinite(cube).any(axis=2)
        assert panel.n_rows == rows.sum()
        np.testing.assert_array_equal(panel.values, table[rows])
        np.testing.assert_array_equal(panel.characteristics, cube[rows])


# ------------------------------------------------------------------------------------ named cases

DAYS = [dt.date(2020, 1, 31), dt.date(2020, 2, 29), dt.date(2020, 3, 31)]
GOOD = {"t": DAYS, "i": ["A"] * 3, "r": [0.1, 0.2, 0.3]}


def test_an_empty_frame_is_refused_in_every_backend():
    for frame in (
        pl.DataFrame({"t": [], "i": [], "r": []}),
        pl.DataFrame(schema={"t": pl.Date, "i": pl.String, "r": pl.Float64}),
        pd.DataFrame({"t": [], "i": [], "r": []}),
        pa.table({"t": [], "i": [], "r": []}),
    ):
        refused(lambda frame=frame: long(frame), "no lines")
    refused(lambda: long(pl.DataFrame()), "no column 't'")


def test_an_unreadable_file_is_refused_by_name(tmp_path):
    arguments = {"time": "t", "asset": "i", "value": "r", "lag": 0}
    empty, text = tmp_path / "empty.parquet", tmp_path / "text.parquet"
    empty.touch()
    text.write_text("t,i,r\n2020-01-31,A,0.1\n")
    good = tmp_path / "good.parquet"
    pl.DataFrame(GOOD).write_parquet(good)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:100])
    for path in (empty, text, cut, tmp_path / "missing.parquet", tmp_path):
        refused(lambda path=path: Panel.from_parquet(path, **arguments), str(path.name))


def test_a_damaged_column_of_a_file_is_refused(tmp_path):
    path = tmp_path / "damaged.parquet"
    rng = np.random.default_rng(0)
    n = 20_000
    frame = {"t": np.arange(n) // 10, "i": np.arange(n) % 10, "r": rng.normal(size=n)}
    pl.DataFrame(frame).write_parquet(path, compression="zstd")
    raw = bytearray(path.read_bytes())
    raw[4:2000] = b"\xff" * 1996  # the first pages; the footer still reads
    path.write_bytes(raw)
    refused(
        lambda: Panel.from_parquet(path, time="t", asset="i", value="r", lag=0), "not a readable Parquet file"
    )


def test_swapped_time_and_asset_columns_are_recognised():
    swapped = {"time": "i", "asset": "t"}
    dates = pl.DataFrame(GOOD)
    refused(lambda: long(dates, **swapped), "swapped")
    refused(lambda: long(dates.to_pandas(), **swapped), "swapped")
    refused(lambda: long(dates.with_columns(pl.col("t").cast(pl.String)), **swapped), "swapped")
    by_number = pl.DataFrame({"t": ["2020-01-31", "2020-02-29"], "i": [7, 7], "r": [0.1, 0.2]})
    refused(lambda: long(by_number, **swapped), "swapped", "'t'", "'i'")
    years = pl.DataFrame({"t": [2001, 2002, 2003], "i": [10107, 10107, 14593], "r": [0.1, 0.2, 0.3]})
    refused(lambda: long(years, **swapped), "swapped")
    assert long(years).n_periods == 3
    numeric_text = pl.DataFrame({"t": [0, 1], "i": ["0003611", "1001234"], "r": [0.1, 0.2]})
    assert long(numeric_text).n_assets == 2  # digits are not dates
    value_as_time = pl.DataFrame(GOOD)
    refused(lambda: long(value_as_time, time="r", value="t"), "'r'", "value column")


@pytest.mark.parametrize(
    ("column", "fragment"),
    [
        (["0.1", "0.2", "0.3"], "0.1"),
        ([0.1, "n/a", 0.3], "n/a"),
        ([0.1, 1j, 0.3], "must hold numbers"),
        ([dt.date(2020, 1, 1)] * 3, "must hold numbers"),
        ([dt.timedelta(1)] * 3, "must hold numbers"),
        ([[1.0], [2.0], [3.0]], "must hold numbers"),
        ([b"1", b"2", b"3"], "must hold numbers"),
        ([10**400, 1, 2], "must hold numbers"),
        ([0.1, float("inf"), 0.3], "infinity in row 1"),
    ],
)
def test_what_is_no_number_is_refused_with_its_column(column, fragment):
    for make in (pd.DataFrame, lambda data: pl.DataFrame(data, strict=False), pa.table):
        for part in ("r", "c"):
            columns = GOOD | {"c": [1.0, 2.0, 3.0]} | {part: column}
            try:
                frame = make(columns)
            except (TypeError, OverflowError, pa.ArrowInvalid, pa.ArrowTypeError, pl.exceptions.PolarsError):
                continue
            if isinstance(frame, pl.DataFrame) and frame[part].null_count():
                continue  # polars itself replaced what it could not hold
            refused(lambda frame=frame: long(frame, characteristics=["c"]), repr(part))
            if not isinstance(frame, pl.DataFrame):
                refused(lambda frame=frame: long(frame, characteristics=["c"]), fragment)


@pytest.mark.parametrize(
    "column",
    [
        pd.array([0.1, None, 0.3], dtype="Float64"),
        pd.array([1, None, 3], dtype="Int64"),
        pd.array([0.1, None, 0.3], dtype="float64[pyarrow]"),
        pd.array([True, None, False], dtype="boolean"),
        pd.Series([0.1, None, 0.3], dtype=object),
        pd.Series([0.1, pd.NA, 0.3], dtype=object),
        pd.Series([decimal.Decimal("0.5"), None, decimal.Decimal(1)], dtype=object),
        pd.Series([0.1, np.nan, 0.3], dtype="float32"),
        pd.arrays.SparseArray([0.1, np.nan, 0.3]),
    ],
    ids=lambda column: str(getattr(column, "dtype", column)),
)
def test_every_pandas_spelling_of_a_missing_number_is_nan(column):
    panel = long(pd.DataFrame(GOOD | {"r": column}))
    expected = [float(x) if not pd.isna(x) else np.nan for x in column]
    np.testing.assert_array_equal(panel.values, np.array(expected))


def test_a_column_of_nothing_but_nulls_is_missing_not_text():
    for nothing in (pl.Series("c", [None] * 3), pl.Series("c", [None] * 3, dtype=pl.String)):
        panel = long(pl.DataFrame(GOOD).with_columns(nothing), characteristics=["c"])
        assert np.isnan(panel.characteristics).all()
    refused(lambda: long(pl.DataFrame(GOOD | {"r": [None] * 3})), "'r'", "no observed value")
    refused(lambda: long(pl.DataFrame(GOOD | {"r": [float("nan")] * 3})), "'r'", "no observed value")


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series(["A", "B", "A"], dtype="category"),
        pd.Series(["A", "B", "A"], dtype=object),
        pd.Series(["A", "B", "A"], dtype="string"),
        pd.Series(["A", "B", "A"], dtype="string[pyarrow]"),
        pd.Series(pd.Categorical(["A", "B", "A"], categories=["Z", "B", "A"])),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_every_spelling_of_text_labels_is_one(labels):
    panel = long(pd.DataFrame(GOOD | {"i": labels}))
    assert panel.assets.tolist() == ["A", "B"]
    assert panel.assets.dtype.kind == "U"
    assert panel.asset_codes.tolist() == [0, 1, 0]


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint16", "Int64", "int64[pyarrow]"])
def test_every_spelling_of_integer_labels_is_int64(dtype):
    panel = long(pd.DataFrame(GOOD | {"i": pd.Series([3, 1, 3], dtype=dtype)}))
    assert panel.assets.dtype == np.int64
    assert panel.assets.tolist() == [1, 3]


def test_labels_that_are_neither_text_nor_whole_numbers_are_refused():
    for labels in ([1.0, 2.0, 3.0], [dt.date(2020, 1, 1)] * 3, [[1], [2], [3]], [b"A", b"B", b"C"]):
        for make in (pd.DataFrame, pl.DataFrame, pa.table):
            refused(lambda labels=labels, make=make: long(make(GOOD | {"i": labels})), "'i'")
    for hole in (None, np.nan, pd.NA):
        refused(lambda hole=hole: long(pd.DataFrame(GOOD | {"i": ["A", hole, "A"]})), "'i'", "line 1")
    refused(lambda: long(pd.DataFrame(GOOD | {"i": [object()] * 3})), "'i'")
    too_large = pl.DataFrame(GOOD).with_columns(pl.Series("i", [2**63, 1, 2], dtype=pl.UInt64))
    refused(lambda: long(too_large), "'i'", "int64")


@pytest.mark.parametrize(
    "dates",
    [
        pd.Series(DAYS),
        pd.Series(pd.to_datetime(DAYS)),
        pd.Series(pd.to_datetime(DAYS).tz_localize("America/New_York")),
        pd.Series(pd.to_datetime(DAYS).tz_localize("UTC")),
        pd.Series(pd.to_datetime(DAYS)).astype("timestamp[ns][pyarrow]"),
        pd.Series(pd.to_datetime(DAYS)).astype("date32[pyarrow]"),
        pd.Series(pd.PeriodIndex(DAYS, freq="M")),
        pd.Series([str(day) for day in DAYS]),
        pd.Series([str(day) for day in DAYS], dtype="category"),
        pd.Series([f"{day}T16:00:00-05:00" for day in DAYS]),
        pd.Series(["2020-01", "2020-02", "2020-03"]),
        pd.Series(pd.to_datetime(DAYS), dtype=object),
    ],
    ids=lambda dates: str(dates.dtype),
)
def test_every_spelling_of_dates_is_one(dates):
    for lag in (0, 1):
        panel = long(pd.DataFrame(GOOD | {"t": dates}), lag=lag)
        expected = ["2020-01-31", "2020-02-29", "2020-03-31", "2020-04-30"]
        assert [str(time) for time in panel.times] == expected[lag : 3 + lag]
        assert panel.frequency == "M"


def test_zoned_datetimes_of_polars_and_pyarrow_count_by_their_own_clock():
    late = [
        dt.datetime(2020, 1, 31, 23, 30),
        dt.datetime(2020, 2, 29, 23, 30),
        dt.datetime(2020, 3, 31, 23, 30),
    ]
    zoned = pl.DataFrame(GOOD | {"t": late}).with_columns(
        pl.col("t").dt.replace_time_zone("America/New_York")
    )
    for frame in (zoned, zoned.to_arrow()):
        assert [str(time) for time in long(frame).times] == ["2020-01-31", "2020-02-29", "2020-03-31"]


def test_bad_dates_are_refused_with_the_line_and_the_text():
    refused(
        lambda: long(pd.DataFrame(GOOD | {"t": ["2020-01-31", "31.02.2020", "2020-03-31"]})), "31.02.2020"
    )
    refused(lambda: long(pl.DataFrame(GOOD | {"t": ["2020-01-31", "2020-02-30", "2020-03-31"]})), "row 1")
    for text in ("today", "202001", "20200131", "7", "2020", "NaT", ""):
        refused(lambda text=text: long(pl.DataFrame(GOOD | {"t": [text, "2020-02-29", "2020-03-31"]})), "'t'")
    refused(lambda: long(pl.DataFrame(GOOD | {"t": [DAYS[0], None, DAYS[2]]})), "'t'", "line 1")
    refused(lambda: long(pd.DataFrame(GOOD | {"t": [DAYS[0], pd.NaT, DAYS[2]]})), "'t'", "line 1")
    refused(lambda: long(pl.DataFrame(GOOD | {"t": [202001, 202002, 202003]})), "202001", "%Y%m")
    refused(lambda: long(pl.DataFrame(GOOD | {"t": [20200131, 20200229, 20200331]})), "%Y%m%d")
    for column in ([0.5, 1.5, 2.5], [True, False, True], [dt.time(1)] * 3, [[1], [2], [3]]):
        refused(lambda column=column: long(pl.DataFrame(GOOD | {"t": column})), "'t'")


def test_dates_off_the_frequency_are_refused():
    weekend = {"t": [dt.date(2020, 1, 3), dt.date(2020, 1, 4), dt.date(2020, 1, 6)]}
    with pytest.raises(FrequencyError, match="2020-01-04"):
        long(pl.DataFrame(GOOD | weekend), frequency="B")
    two = {"t": [dt.date(2020, 1, 15), dt.date(2020, 1, 31), dt.date(2020, 2, 29)]}
    with pytest.raises(FrequencyError, match=r"two dates in one period.*2020-01-15 and 2020-01-31"):
        long(pl.DataFrame(GOOD | two), frequency="M")
    with pytest.raises(FrequencyError, match="'X'"):
        long(pl.DataFrame(GOOD), frequency="X")
    with pytest.raises(FrequencyError, match="needs dates"):
        long(pl.DataFrame(GOOD | {"t": [0, 1, 2]}), frequency="M")
    uneven = {"t": [dt.date(2020, 1, 31), dt.date(2020, 2, 3), dt.date(2021, 3, 31)]}
    assert long(pl.DataFrame(GOOD | uneven)).frequency is None
    with pytest.raises(FrequencyError, match="state frequency"):
        long(pl.DataFrame(GOOD | uneven), lag=1)
    with pytest.raises(FrequencyError, match="state frequency"):  # one date shows no spacing
        long(pl.DataFrame(GOOD).head(1), lag=1)


def test_duplicates_are_refused_with_the_first_pairs():
    twice = pl.concat([pl.DataFrame(GOOD), pl.DataFrame(GOOD).tail(1)])
    refused(lambda: long(twice), "1 duplicate", "(2020-03-31, A)")
    for frame in (
        pd.DataFrame([[1, 2, 3, 4]], columns=["t", "i", "r", "r"]),
        pd.DataFrame([[1]], columns=["r"]),
    ):
        refused(lambda frame=frame: long(frame), "'")


def test_columns_must_exist_and_play_one_part():
    frame = pl.DataFrame(GOOD | {"c": [1.0, 2.0, 3.0]})
    refused(lambda: long(frame, value="q"), "no column 'q'", "'t'")
    refused(lambda: long(frame.lazy(), value="q"), "no column 'q'", "'t'")
    refused(lambda: long(frame, characteristics=["c", "r"]), "'r'", "several")
    refused(lambda: long(frame, characteristics=["c", "c"]), "'c'", "several")
    refused(lambda: long(frame, characteristics="c"), "characteristics", "['c']")
    refused(lambda: long(frame, characteristics=None), "characteristics")
    refused(lambda: long(frame, time=None), "None")
    refused(lambda: long(frame, time=["t"]), "['t']")
    repeated = pd.DataFrame(GOOD)
    repeated.columns = ["t", "i", "i"]
    refused(lambda: long(repeated), "'i'")


def test_what_is_no_frame_is_refused():
    for data in (None, 3, "frame", np.ones((2, 2)), {"t": [1]}, [1, 2], pd.Series([1.0]), pl.Series([1.0])):
        refused(lambda data=data: long(data), "frame")
    failing = pl.DataFrame(GOOD | {"r": ["a", "b", "c"]}).lazy().with_columns(pl.col("r").cast(pl.Float64))
    refused(lambda: long(failing), "cannot be read")
    for lag in (2, -1, None, "1", True, 0.5, [1]):
        refused(lambda lag=lag: long(pl.DataFrame(GOOD), lag=lag), "lag must be 0")
    refused(lambda: long(pl.DataFrame(GOOD), value_kind="yield"), "value_kind", "yield")


def test_weights_context_and_factors_are_checked():
    frame = pl.DataFrame(
        {"t": DAYS[:1] * 2 + DAYS[1:2], "i": ["A", "B", "A"], "r": [0.1, 0.2, 0.3], "w": [1.0, -2.0, 1.0]}
    )
    refused(lambda: long(frame, weights="w"), "weights", "negative", "-2.0")
    refused(lambda: long(frame, context=["w"]), "'w'", "2020-01-31", "characteristic")
    refused(lambda: long(frame, observed_factors=["w"]), "'w'", "2020-01-31")
    half = frame.with_columns(pl.Series("w", [None, 1.0, 1.0]))
    refused(lambda: long(half, context=["w"]), "'w'")  # missing for one asset, known for another


def test_one_period_and_one_asset_are_panels():
    one = long(pl.DataFrame(GOOD).head(1))
    assert (one.n_periods, one.n_assets, one.n_rows) == (1, 1, 1)
    assert one.frequency is None
    live = long(pl.DataFrame(GOOD).head(2), lag=1, frequency="M")
    assert live.values[0] == 0.2
    assert np.isnan(live.values[1])


def test_wide_frames_and_tables_are_checked():
    good = [[0.1, 0.2], [0.3, 0.4]]
    wide = {"universe": "all"}
    refused(lambda: Panel.from_wide(good, universe="some"), "universe", "some")
    refused(lambda: Panel.from_wide(good, universe=np.ones((2, 2))), "universe", "boolean")
    refused(lambda: Panel.from_wide(good, universe=[[True], [True, False]]), "universe")
    refused(lambda: Panel.from_wide(good, universe=None), "universe")
    refused(lambda: Panel.from_wide([[0.1], [0.2, 0.3]], **wide), "equal rows")
    refused(lambda: Panel.from_wide([0.1, 0.2], **wide), "2 dimensions")
    refused(lambda: Panel.from_wide([["0.1", "0.2"]], **wide), "text")
    refused(lambda: Panel.from_wide([[0.1, "0.2"]], **wide), "text")
    refused(lambda: Panel.from_wide(np.array([[0.1, "0.2"]], dtype=object), **wide), "text")
    refused(lambda: Panel.from_wide([[1j]], **wide), "complex")
    refused(lambda: Panel.from_wide(np.array([["2020-01-01"]], dtype="datetime64[D]"), **wide), "datetime64")
    refused(lambda: Panel.from_wide(good, assets=["A"], **wide), "assets", "1 labels for 2")
    refused(lambda: Panel.from_wide(good, assets=["A", "A"], **wide), "unique")
    refused(lambda: Panel.from_wide(good, assets=[0.5, 1.5], **wide), "int or str")
    refused(lambda: Panel.from_wide(good, assets=["A", ["B", "C"]], **wide), "assets")
    refused(lambda: Panel.from_wide(good, times=["2020-01-31"], **wide), "times has 1 entries for 2")
    refused(lambda: Panel.from_wide(good, times=["2020-01-31", "2020-01-31"], **wide), "unique", "2020-01-31")
    refused(lambda: Panel.from_wide(good, times="date", **wide), "one-dimensional")
    refused(lambda: Panel.from_wide(good, times=[[0], [1, 2]], **wide), "times")
    refused(lambda: Panel.from_wide([[np.nan]], **wide), "no observed value")
    refused(lambda: Panel.from_wide(np.empty((0, 2)), **wide), "no periods")
    refused(lambda: Panel.from_wide(np.empty((2, 0)), **wide), "no observed value")
    refused(lambda: Panel.from_wide([[np.inf, 1.0], [1.0, 1.0]], universe="span"), "infinity in row 0")
    frame = pl.DataFrame({"t": DAYS[:2], "A": [0.1, 0.2]})
    refused(lambda: Panel.from_wide(frame, **wide), "time column", "'A'")
    refused(lambda: Panel.from_wide(frame, times="date", **wide), "no column 'date'")
    refused(lambda: Panel.from_wide(frame, times=DAYS[:2], **wide), "times must name a column")
    refused(lambda: Panel.from_wide(frame, times="t", assets=["A"], **wide), "rename")
    refused(lambda: Panel.from_wide(frame.with_columns(A=pl.lit("x")), times="t", **wide), "'A'")
    dated = pd.DataFrame({"t": DAYS[:2], "A": [0.1, 0.2]})
    refused(lambda: Panel.from_wide(dated, **wide), "'t'")  # the dates are a column, the index only counts


def test_masked_arrays_keep_their_holes():
    table = np.ma.masked_array([[0.1, 99.0], [0.3, 0.4]], mask=[[False, True], [False, False]])
    np.testing.assert_array_equal(Panel.from_wide(table, universe="all").wide(), [[0.1, np.nan], [0.3, 0.4]])
    assert Panel.from_arrays(table).n_rows == 3
    whole = np.ma.masked_array([[1, 2]], mask=[[False, True]])
    np.testing.assert_array_equal(Panel.from_arrays(whole).wide(), [[1.0, np.nan]])


def test_a_panel_built_by_hand_is_checked():
    good = {
        "times": np.array([0, 1]), "assets": np.array(["A", "B"]), "offsets": np.array([0, 2, 3]),
        "asset_codes": np.array([0, 1, 1]), "values": np.array([0.1, 0.2, 0.3]),
    }  # fmt: skip
    assert Panel(**good).n_rows == 3
    for name, value, fragment in (
        ("times", [1, 0], "sorted"),
        ("times", [0.0, 1.0], "times"),
        ("times", [0], "offsets"),
        ("assets", ["A", "A"], "unique"),
        ("assets", ["A"], "asset_codes"),
        ("offsets", [0, 3], "offsets"),
        ("offsets", [0, 2, 4], "offsets"),
        ("offsets", [0, 4, 3], "offsets"),
        ("offsets", [0.0, 2.5, 3.0], "offsets"),
        ("asset_codes", [1, 0, 1], "breaks the order at row 1"),
        ("asset_codes", [0, 0, 1], "breaks the order at row 1"),
        ("asset_codes", [0, 2, 1], "asset_codes"),
        ("asset_codes", [-1, 1, 1], "asset_codes"),
        ("asset_codes", [0, 1], "asset_codes"),
        ("values", [0.1, 0.2], "offsets"),
        ("values", [0.1, np.inf, 0.3], "values"),
        ("values", ["a", "b", "c"], "values"),
        ("value_kind", "price", "value_kind"),
        ("frequency", "M", "frequency"),
        ("weights", [1.0, -1.0, 1.0], "weights"),
        ("weights", [1.0, 1.0], "weights"),
        ("context", np.ones((2, 1)), "context"),
        ("context_names", ("vix",), "context"),
        ("characteristics", np.ones((3, 2)), "characteristics"),
        ("attributes", {"sector": np.array([0, 1])}, "'sector'"),
    ):
        refused(lambda name=name, value=value: Panel(**(good | {name: value})), fragment)
    named = {"characteristics": np.array([[1.0], [np.inf], [1.0]]), "characteristic_names": ("size",)}
    refused(lambda: Panel(**good, **named), "'size'", "row 1")
    dates = {"times": np.array(["2020-01-31", "2020-03-31"], dtype="datetime64[D]"), "frequency": "M"}
    refused(lambda: Panel(**(good | dates)), "no holes", "2020-02-29")
    middle = {"times": np.array(["2020-01-30", "2020-02-29"], dtype="datetime64[D]"), "frequency": "M"}
    refused(lambda: Panel(**(good | middle)), "2020-01-30 should be 2020-01-31")
