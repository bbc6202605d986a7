"""Long frames and Parquet files become panels: read, check, sort, lag.

Columns are read one at a time from a source (a frame or a file), so the panel is the only full copy.
A `RowPlan` says, for every row of the panel, which line of the source holds what was known before the period
and which line holds its value; with `lag=1` these are two different lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.errors import FrequencyError, PanelError
from latentfactors.panel import Panel, ValueKind
from latentfactors.periods import Frequency, first_offenders
from latentfactors.rows import Attribute
from latentfactors.sources import (
    Columns,
    ColumnSource,
    FrameSource,
    check_columns,
    open_frame,
    read_dates,
    read_labels,
    read_numbers,
)
from latentfactors.validate import count

__all__ = ["asset_attributes", "build_panel", "calendar_grid", "period_columns"]


# ------------------------------------------------------------------------------------ rows


@dataclass(frozen=True)
class RowPlan:
    """Which line of the source fills which row; `value_line` is -1 where the value is not known."""

    times: npt.NDArray[Any]
    assets: npt.NDArray[Any]
    frequency: Frequency | None
    offsets: npt.NDArray[np.int64]
    asset_codes: npt.NDArray[np.int32]
    known_line: npt.NDArray[np.int64] | None  # None: the source is already in order
    value_line: npt.NDArray[np.int64] | None
    grid: npt.NDArray[Any]  # (G,) the periods of the source
    grid_position: npt.NDArray[np.int64]  # (n,) each line's period in the grid
    left_out: npt.NDArray[np.int64]  # lines whose value has no row
    notes: tuple[str, ...]


def build_panel(
    source: ColumnSource, columns: Columns, lag: int, frequency: Frequency | None, value_kind: ValueKind
) -> Panel:
    """Read every column once and put it where the row plan says."""
    _check_lag(lag)
    check_columns(source.names, columns.names())
    plan = plan_rows(source, columns, lag, periods.check_frequency(frequency))
    raw_values = read_numbers(source.column(columns.value), columns.value)
    values = _pick(raw_values, plan.value_line, fill=True)
    if not np.isfinite(values).any():
        raise PanelError(
            f"column {columns.value!r} has no observed value in any row of the panel"
            + (" (with lag=1 a value needs a line of its asset one period earlier)" if lag else "")
        )
    characteristics, constant = _read_characteristics(source, columns, plan)
    left_out = int(np.isfinite(raw_values[plan.left_out]).sum())
    notes = list(plan.notes)
    if left_out:
        notes.append(f"{count(left_out, 'value')} left out: no line of the asset one period earlier (lag=1)")
    if constant:
        notes.append(f"constant characteristics: {first_offenders(constant)}")
    weights = None
    if columns.weights is not None:
        weights = _pick(read_numbers(source.column(columns.weights), columns.weights), plan.known_line)
    context, observed = (
        _read_period_columns(source, names, plan) for names in (columns.context, columns.observed_factors)
    )
    if lag and observed is not None:
        observed = np.concatenate([observed[1:], np.full((1, observed.shape[1]), np.nan)])
    return Panel(
        times=plan.times,
        assets=plan.assets,
        offsets=plan.offsets,
        asset_codes=plan.asset_codes,
        values=values,
        value_kind=value_kind,
        frequency=plan.frequency,
        characteristics=characteristics,
        characteristic_names=columns.characteristics,
        weights=weights,
        attributes={name: _read_attribute(source.column(name), name, plan) for name in columns.attributes},
        context=context,
        context_names=columns.context,
        observed_factors=observed,
        observed_factor_names=columns.observed_factors,
        notes=tuple(notes),
    )


def _check_lag(lag: Any) -> None:
    if not isinstance(lag, int | np.integer) or isinstance(lag, bool) or lag not in (0, 1):
        raise PanelError(
            "lag must be 0 (what a line says was known before its period) or 1 (known at the end of it), "
            f"got {lag!r}"
        )


def plan_rows(source: ColumnSource, columns: Columns, lag: int, frequency: Frequency | None) -> RowPlan:
    """Parse times and labels, sort, check for duplicates, and apply the lag to the row set."""
    assets, codes = read_labels(source.column(columns.asset), columns.asset)
    if codes.size == 0:
        raise PanelError("the data have no lines")
    days = read_dates(source.column(columns.time), columns.time)
    _refuse_swapped(days, assets, columns)
    unlabelled = np.flatnonzero(codes < 0)
    if unlabelled.size:
        raise PanelError(
            f"asset column {columns.asset!r} has no label in {count(unlabelled.size, 'line')}, the first in "
            f"line {unlabelled[0]}: drop or repair such lines"
        )
    unique_days, day_code = np.unique(days, return_inverse=True)
    grid, where, frequency, notes = calendar_grid(unique_days, frequency)
    position = where[day_code]
    key = position * assets.size + codes
    order = None
    if np.any(np.diff(key) <= 0):
        order = np.argsort(key, kind="stable")
        key = key[order]
        _refuse_duplicates(key, grid, assets)
        notes.append("unsorted lines were sorted")
    grid_sorted = key // assets.size
    offsets = np.concatenate([[0], np.cumsum(np.bincount(grid_sorted, minlength=grid.size))])
    lines = np.arange(key.size) if order is None else order
    value_line, left_out, times = order, lines[:0], grid
    if lag:
        times = _one_later(grid, frequency)
        found = np.minimum(np.searchsorted(key, key + assets.size), key.size - 1)
        has_value = key[found] == key + assets.size
        value_line = np.where(has_value, lines[found], -1)
        without_row = np.ones(key.size, dtype=bool)
        without_row[found[has_value]] = False
        left_out = lines[without_row]
    empty = int((np.diff(offsets) == 0).sum())
    if empty:
        notes.append(f"{count(empty, 'period')} without lines")
    return RowPlan(
        times=times,
        assets=assets,
        frequency=frequency,
        offsets=offsets,
        asset_codes=(key % assets.size).astype(np.int32),
        known_line=order,
        value_line=value_line,
        grid=grid,
        grid_position=position,
        left_out=left_out,
        notes=tuple(notes),
    )


def calendar_grid(
    unique_days: npt.NDArray[Any], frequency: Frequency | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], Frequency | None, list[str]]:
    """Period ends of sorted, unique dates; holes of M, Q, W filled by empty periods."""
    notes: list[str] = []
    if not periods.is_date(unique_days):
        if frequency is not None:
            raise FrequencyError(f"frequency={frequency!r} needs dates, got integer periods: leave it None")
        return unique_days, np.arange(unique_days.size), None, notes
    if frequency is None:
        frequency = periods.infer_frequency(unique_days)
    ends = periods.period_end(unique_days, frequency)
    repeated = np.flatnonzero(ends[1:] == ends[:-1])
    if repeated.size:
        first = repeated[0]
        raise FrequencyError(
            f"two dates in one period of frequency {frequency!r}: {unique_days[first]} and "
            f"{unique_days[first + 1]} ({count(repeated.size, 'such pair')}): "
            "state the data's own frequency or keep one date per period"
        )
    grid = ends
    if frequency in periods.CALENDAR_FREQUENCIES:
        grid = periods.period_range(ends[0], ends[-1], frequency)
    return grid, np.searchsorted(grid, ends), frequency, notes


def _one_later(grid: npt.NDArray[Any], frequency: Frequency | None) -> npt.NDArray[Any]:
    """The grid moved by one period; the live period at its end follows the calendar."""
    if periods.is_date(grid) and frequency is None:
        raise FrequencyError(
            f"lag=1 needs the period after {grid[-1]}, and the spacing of the dates shows no frequency: "
            "state frequency='M', 'Q', 'W', 'B' or 'D'"
        )
    return np.concatenate([grid[1:], periods.shift(grid[-1:], 1, frequency)])


def _refuse_duplicates(key: npt.NDArray[np.int64], grid: npt.NDArray[Any], assets: npt.NDArray[Any]) -> None:
    repeated = np.flatnonzero(np.diff(key) == 0)
    if repeated.size:
        pairs = [f"({grid[key[i] // assets.size]}, {assets[key[i] % assets.size]})" for i in repeated[:4]]
        raise PanelError(
            f"{count(repeated.size, 'duplicate')} of (time, asset), the first {first_offenders(pairs)}: "
            "keep one line per period and asset"
        )


def _refuse_swapped(days: npt.NDArray[Any], assets: npt.NDArray[Any], columns: Columns) -> None:
    """Dates among the labels and plain numbers among the times: somebody exchanged the two columns."""
    if periods.is_date(days) or not assets.size or not days.size:
        return

    def calendar_like(numbers: npt.NDArray[Any]) -> bool:
        low, high = int(numbers.min()), int(numbers.max())
        return (low >= 1850 and high <= 2150) or (low >= 185001 and high <= 215012)

    if assets.dtype.kind == "U":
        swapped = all(map(periods.is_date_text, assets.tolist()))
    else:
        swapped = calendar_like(assets) and not calendar_like(days)
    if swapped:
        raise PanelError(
            f"asset column {columns.asset!r} looks like dates ({first_offenders(assets)}) and time column "
            f"{columns.time!r} like numbers: the two are swapped (if not, put a letter before the labels)"
        )


# ------------------------------------------------------------------------------------ columns


def _pick(
    column: npt.NDArray[Any], lines: npt.NDArray[np.int64] | None, *, fill: bool = False
) -> npt.NDArray[Any]:
    if lines is None:
        return np.array(column)
    picked = column[lines]
    if fill and np.issubdtype(picked.dtype, np.floating):
        picked[lines < 0] = np.nan
    return picked


def _read_characteristics(
    source: ColumnSource, columns: Columns, plan: RowPlan
) -> tuple[npt.NDArray[Any] | None, list[str]]:
    if not columns.characteristics:
        return None, []
    single = all(source.dtype(name) == nw.Float32 for name in columns.characteristics)
    dtype = np.float32 if single else np.float64
    out = np.empty((plan.asset_codes.size, len(columns.characteristics)), dtype=dtype)
    constant = []
    for j, name in enumerate(columns.characteristics):
        column = read_numbers(source.column(name), name, dtype)
        out[:, j] = column if plan.known_line is None else column[plan.known_line]
        finite = column[np.isfinite(column)]
        if finite.size and finite.min() == finite.max():
            constant.append(name)
    return out, constant


def _read_attribute(series: nw.Series[Any], name: str, plan: RowPlan) -> Attribute:
    """Categories by asset where they never change, else by row."""
    labels, codes = read_labels(series, name)
    rows = _pick(codes.astype(np.int32), plan.known_line)
    by_asset = np.full(plan.assets.size, -1, dtype=np.int32)
    by_asset[plan.asset_codes[::-1]] = rows[::-1]
    categories = tuple(str(label) for label in labels)
    if np.array_equal(by_asset[plan.asset_codes], rows):
        return Attribute(by_asset, categories, by="asset")
    return Attribute(rows, categories, by="row")


def _read_period_columns(
    source: ColumnSource, names: Sequence[str], plan: RowPlan
) -> npt.NDArray[np.float64] | None:
    """(G, Q) columns that are the same for all lines of a period."""
    if not names:
        return None
    out = np.full((plan.grid.size, len(names)), np.nan)
    for j, name in enumerate(names):
        column = read_numbers(source.column(name), name)
        out[plan.grid_position, j] = column
        again = out[plan.grid_position, j]
        differs = np.flatnonzero(~((again == column) | (np.isnan(again) & np.isnan(column))))
        if differs.size:
            raise PanelError(
                f"column {name!r} must be the same for all assets of a period, it differs in "
                f"{plan.grid[plan.grid_position[differs[0]]]}: is it a characteristic?"
            )
    return out


def period_columns(
    panel: Panel, frame: Any, time: str | None, lag: int
) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    """Period-level columns of a frame on a panel's periods; lag=1 puts the frame's p-1 on period p."""
    from latentfactors.wide import split_time

    _check_lag(lag)
    opened = open_frame(frame)
    days, names = split_time(opened, time)
    if not names:
        raise PanelError("the frame has no column beside its time")
    if not days.size:
        raise PanelError("the frame has no lines")
    table = np.column_stack([read_numbers(opened.get_column(name), name) for name in names])
    if periods.is_date(days) != periods.is_date(panel.times):
        raise PanelError(f"the frame's times are {days.dtype}, those of the panel {panel.times.dtype}")
    ends = periods.period_end(days, panel.frequency)
    unique, first = np.unique(ends, return_index=True)
    if unique.size != ends.size:
        again = np.setdiff1d(np.arange(ends.size), first)[0]
        raise PanelError(f"the frame has two lines in one period, the first {ends[again]} in line {again}")
    wanted = periods.neighbour(panel.times, -1, panel.frequency) if lag else panel.times
    found = np.minimum(np.searchsorted(unique, wanted), unique.size - 1)
    matched = unique[found] == wanted
    if not matched.any():
        raise PanelError(
            f"no period in common: the frame covers {unique[0]}..{unique[-1]}, "
            f"the panel {panel.times[0]}..{panel.times[-1]}"
        )
    return tuple(names), np.where(matched[:, None], table[first[found]], np.nan)


def asset_attributes(panel: Panel, frame: Any, asset: str) -> dict[str, Attribute]:
    """Static categories from a frame with one line per asset; assets the frame lacks are unknown (-1)."""
    source = FrameSource(frame)
    check_columns(source.names, [asset])
    labels, codes = read_labels(source.column(asset), asset)
    if np.any(codes < 0) or labels.size != codes.size:
        wrong = "has lines without a label" if np.any(codes < 0) else "names an asset twice"
        raise PanelError(f"column {asset!r} must name every asset once, it {wrong}")
    line_of = np.full(labels.size, -1)
    line_of[codes] = np.arange(codes.size)
    known = panel.index.match_assets(labels)
    if np.all(known < 0):
        raise PanelError(
            f"no asset of column {asset!r} is in the panel: it names {first_offenders(labels)}, "
            f"the panel {first_offenders(panel.assets)}"
        )
    attributes = {}
    for name in source.names:
        if name != asset:
            categories, category = read_labels(source.column(name), name)
            by_asset = np.where(known < 0, -1, category[line_of[known]])
            attributes[name] = Attribute(by_asset, tuple(map(str, categories)), by="asset")
    return attributes
