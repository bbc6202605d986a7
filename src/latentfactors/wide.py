"""Tables with a row per period and a column per asset become panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals as nw
import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.errors import PanelError
from latentfactors.ingest import calendar_grid
from latentfactors.panel import Panel, ValueKind
from latentfactors.periods import Frequency, first_offenders
from latentfactors.rows import SeriesInfo
from latentfactors.sources import check_columns, open_frame, period_days, read_dates, read_numbers
from latentfactors.validate import check_finite, check_labels, count

__all__ = ["panel_from_arrays", "panel_from_wide", "split_time"]


def panel_from_wide(
    data: Any,
    universe: Any,
    times: Any,
    assets: Any,
    frequency: Frequency | None,
    value_kind: ValueKind,
    series: SeriesInfo | None,
) -> Panel:
    """`Panel.from_wide`: choose the rows, then lay them out."""
    if isinstance(data, np.ndarray | list | tuple):
        values = _numbers(data, 2, "data")
    else:
        frame = open_frame(data)
        if assets is not None:
            raise PanelError("assets are a frame's column names: leave assets=None or rename the columns")
        if times is not None and not isinstance(times, str):
            raise PanelError(f"times must name a column of the frame, got {type(times).__name__}")
        times, names = split_time(frame, times)
        assets = np.array(names)
        values = (
            np.column_stack([read_numbers(frame.get_column(name), str(name)) for name in names])
            if names
            else np.empty((len(frame), 0))
        )
    mask = None
    if not isinstance(universe, str):
        mask = periods.as_array(universe, "universe")
        if mask.shape != values.shape or mask.dtype != np.bool_:
            raise PanelError(f"a universe mask must be boolean {values.shape}, got {mask.dtype} {mask.shape}")
    elif universe not in ("span", "all"):
        raise PanelError(f"universe must be 'span', 'all' or a boolean mask, got {universe!r}")
    times, order, where, frequency, notes = _lay_out(times, values.shape[0], frequency)
    grid = np.full((times.size, values.shape[1]), np.nan)
    grid[where] = values[order]
    if mask is not None:
        rows = np.zeros(grid.shape, dtype=bool)
        rows[where] = mask[order]
        dropped = int((np.isfinite(grid) & ~rows).sum())
        notes += [f"{count(dropped, 'value')} outside the universe left out"] * (dropped > 0)
    elif universe == "all":
        rows = np.ones(grid.shape, dtype=bool)
    else:
        seen = np.isfinite(grid)
        rows = np.logical_or.accumulate(seen, axis=0) & np.logical_or.accumulate(seen[::-1], axis=0)[::-1]
    return _from_cells(grid, rows, None, times, assets, (), frequency, value_kind, series, notes)


def panel_from_arrays(
    values: Any,
    characteristics: Any,
    times: Any,
    assets: Any,
    characteristic_names: Sequence[str] | None,
    frequency: Frequency | None,
    value_kind: ValueKind,
) -> Panel:
    """`Panel.from_arrays`: a row wherever there is a value or any characteristic."""
    table = _numbers(values, 2, "values")
    cube, names = None, tuple(characteristic_names or ())
    rows = np.isfinite(table)
    if isinstance(characteristic_names, str):
        raise PanelError(f"characteristic_names must be a list, got the text {characteristic_names!r}")
    if characteristics is not None:
        cube = _numbers(characteristics, 3, "characteristics")
        if cube.shape[:2] != table.shape:
            raise PanelError(f"characteristics must have shape {(*table.shape, 'L')}, got {cube.shape}")
        names = names or tuple(f"c{j}" for j in range(cube.shape[2]))
        rows = rows | np.isfinite(cube).any(axis=2)
    times, order, where, frequency, notes = _lay_out(times, table.shape[0], frequency)
    grid = np.full((times.size, table.shape[1]), np.nan)
    grid[where] = table[order]
    kept = np.zeros(grid.shape, dtype=bool)
    kept[where] = rows[order]
    if cube is not None:
        cube = cube[order][rows[order]]
    return _from_cells(grid, kept, cube, times, assets, names, frequency, value_kind, None, notes)


def split_time(frame: nw.DataFrame[Any], time: str | None) -> tuple[npt.NDArray[Any], list[Any]]:
    """A wide frame's dates and the names of its other columns; None takes the index of a pandas frame."""
    names = list(frame.columns)
    if time is not None:
        check_columns(names, [time])
        return read_dates(frame.get_column(time), time), [name for name in names if name != time]
    index = nw.maybe_get_index(frame)
    if index is None:
        raise PanelError(
            f"name the frame's time column, which is one of {first_offenders(map(repr, names), 12)}"
        )
    raw = index.to_numpy()
    if hasattr(index, "to_timestamp"):  # pandas PeriodIndex
        raw = period_days(raw)
    return periods.parse_times(raw, name="index"), names


def _numbers(data: Any, ndim: int, name: str) -> npt.NDArray[Any]:
    """A table of floats without infinities, float32 kept; text that looks like numbers is refused."""
    try:
        array = np.ma.asanyarray(data) if isinstance(data, np.ma.MaskedArray) else np.asarray(data)
        if array.dtype.kind not in "fiubO" or (array.dtype.kind == "O" and _any_text(array)):
            raise TypeError(f"it holds {'text' if array.dtype.kind in 'OUST' else array.dtype}")
        if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
            array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise PanelError(f"{name} must be a table of numbers with equal rows: {error}") from None
    if isinstance(array, np.ma.MaskedArray):
        array = array.filled(np.nan)
    if array.ndim != ndim:
        raise PanelError(f"{name} must have {ndim} dimensions, got shape {array.shape}")
    check_finite(array, name)
    return array


def _any_text(array: npt.NDArray[Any]) -> bool:
    return any(isinstance(item, str | bytes) for item in array.ravel())


def _lay_out(
    times: Any, n_periods: int, frequency: Frequency | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int64], Frequency | None, list[str]]:
    """Sorted period grid, the data's row order, and the place of every row in the grid."""
    periods.check_frequency(frequency)
    if times is None:
        times = np.arange(n_periods)
    parsed = periods.parse_times(times, name="times")
    if parsed.size != n_periods:
        raise PanelError(f"times has {parsed.size} entries for {n_periods} rows of data")
    if parsed.size == 0:
        raise PanelError("the data have no periods")
    unique, order = np.unique(parsed, return_index=True)
    if unique.size != parsed.size:
        again = np.setdiff1d(np.arange(parsed.size), order)[0]
        raise PanelError(f"times must be unique, got {parsed[again]} twice")
    grid, where, frequency, notes = calendar_grid(unique, frequency)
    if np.any(np.diff(order) < 0):
        notes.append("unsorted lines were sorted")
    if grid.size > unique.size:
        notes.append(f"{count(grid.size - unique.size, 'period')} without lines")
    return grid, order, where, frequency, notes


def _from_cells(
    values: npt.NDArray[np.float64],
    rows: npt.NDArray[np.bool_],
    characteristics: npt.NDArray[Any] | None,
    times: npt.NDArray[Any],
    assets: Any,
    names: tuple[str, ...],
    frequency: Frequency | None,
    value_kind: ValueKind,
    series: SeriesInfo | None,
    notes: list[str],
) -> Panel:
    labels = check_labels(np.arange(values.shape[1]) if assets is None else assets, "assets")
    if labels.size != values.shape[1]:
        raise PanelError(f"assets has {labels.size} labels for {values.shape[1]} columns")
    if not np.isfinite(values[rows]).any():
        raise PanelError("the data have no observed value at all")
    never = int((~rows.any(axis=0)).sum())
    if never:
        notes.append(f"{count(never, 'asset')} without rows")
    return Panel(
        times=times,
        assets=labels,
        offsets=np.concatenate([[0], np.cumsum(rows.sum(axis=1))]),
        asset_codes=np.nonzero(rows)[1].astype(np.int32),
        values=values[rows],
        value_kind=value_kind,
        frequency=frequency,
        characteristics=characteristics,
        characteristic_names=names,
        series=series,
        notes=tuple(notes),
    )
