"""Statistics of a panel that does not fit into memory: a Parquet file, read a batch of periods at a time.

What is kept of a period is what a linear conditional model needs of it, W_t, x_t, r_t'r_t and n_t of
`kernels.sufficient`: L^2 numbers instead of N_t L. Rows, calendar and lag are those of `Panel.from_parquet`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.errors import PanelError, PanelMismatchError
from latentfactors.ingest import calendar_grid
from latentfactors.kernels.sufficient import Accumulator, PanelStatistics, scaled_weights
from latentfactors.periods import check_frequency, is_date, shift
from latentfactors.sources import Columns, ParquetSource, check_columns, read_dates
from latentfactors.validate import check_row_weights

__all__ = ["statistics_from_parquet"]

FloatArray = npt.NDArray[np.float64]

_BATCH_ROWS = 250_000  # lines of a file held at a time: 0.1 GB with 100 float32 characteristics


def statistics_from_parquet(
    path: str | Path,
    *,
    time: str,
    asset: str,
    value: str,
    characteristics: Sequence[str],
    lag: int,
    weights: str | None = None,
    frequency: Any = None,
    constant: bool = False,
    normalise_weights: bool = True,
    batch_rows: int = _BATCH_ROWS,
) -> tuple[npt.NDArray[Any], PanelStatistics]:
    """Statistics of a Parquet file sorted by time, of which one batch of periods is in memory at a time.

    They equal those of `Panel.from_parquet` with the same arguments, cut after the last observed value, up to
    the order of the rows inside a period (relative 1e-12).

    Parameters
    ----------
    path, time, asset, value, characteristics, lag, weights, frequency
        As in `Panel.from_parquet`. Lines must be sorted by time; inside a period any order will do.
    constant
        Append a characteristic that is 1 in every row.
    normalise_weights
        Scale a period's weights to mean 1 over its observed rows.
    batch_rows
        Lines to hold; a batch is never less than a period.

    Returns
    -------
    times : (T,) period ends
    statistics : PanelStatistics

    Raises
    ------
    PanelError, FrequencyError, PanelMismatchError
        As in `Panel.from_parquet`; an unsorted file; NaN characteristics.
    """
    columns = Columns.of(time, asset, value, characteristics, weights, (), (), ())
    if isinstance(lag, bool) or lag not in (0, 1):
        raise PanelError(f"lag must be 0 or 1, got {lag!r}")
    source = ParquetSource(path)
    check_columns(source.names, columns.names())
    days = read_dates(source.column(time), time)
    if days.size == 0:
        raise PanelError("the data have no lines")
    later = np.flatnonzero(days[1:] < days[:-1])
    if later.size:
        raise PanelError(
            f"lines must be sorted by {time!r} to be read in batches, line {later[0] + 1} is earlier "
            "than the line before it: sort the file, or use Panel.from_parquet"
        )
    starts = np.concatenate([[0], np.flatnonzero(days[1:] != days[:-1]) + 1, [days.size]])
    grid, where, frequency, _ = calendar_grid(days[starts[:-1]], check_frequency(frequency))
    if lag and is_date(grid) and frequency is None:
        shift(grid[-1:], 1, frequency)  # raises: the next period is unknown
    collected = Accumulator(len(columns.characteristics), constant=constant)
    before: tuple[int, Any] | None = None
    done = 0
    with threadpool_limits(limits=1, user_api="blas"):
        for position, frame in zip(where, _read_periods(path, columns, starts, batch_rows), strict=True):
            rows = frame
            if lag:
                adjacent = before is not None and before[0] == position - 1
                rows = _with_next_values(before[1], frame, columns) if adjacent and before else None
                before = (int(position), frame)
            _refuse_duplicates(frame, columns, grid[position])
            for _ in range(done, int(position)):
                collected.add(None, None)
            done = int(position) + 1
            if rows is None:
                collected.add(None, None)
                continue
            table = rows.select(columns.characteristics).to_numpy()
            missing = np.isnan(table).any(axis=0)
            if missing.any():
                name = columns.characteristics[int(np.flatnonzero(missing)[0])]
                raise PanelMismatchError(
                    f"characteristics must have no NaN, {name!r} has some in period {grid[position]}: "
                    "fill or rank them first (latentfactors.prepare)"
                )
            held = None if weights is None else _numbers(rows, weights)
            values = _numbers(rows, value)
            if held is not None and normalise_weights:
                rows_of_period = np.array([0, values.size])
                check_row_weights(values, held, rows_of_period, grid[position : position + 1])
                held = scaled_weights(values, held, rows_of_period)
            collected.add(values, table, held)
    statistics = collected.result()
    first, last = lag, int(np.max(np.flatnonzero(statistics.counts), initial=-1)) + 1
    if last == 0:
        raise PanelError(f"column {value!r} has no observed value in any row")
    return grid[first:last], statistics.take(slice(first, last))


def _read_periods(path: Any, columns: Columns, starts: npt.NDArray[Any], batch_rows: int) -> Iterator[Any]:
    """The lines of one period after another, read many periods at a time."""
    import polars as pl

    names = [name for name in columns.names() if name != columns.time]
    first, n_periods = 0, starts.size - 1
    lazy = pl.scan_parquet(path).select(names)
    while first < n_periods:
        last = int(np.searchsorted(starts, starts[first] + batch_rows, side="right")) - 1
        last = min(max(last, first + 1), n_periods)
        low = int(starts[first])
        batch = lazy.slice(low, int(starts[last]) - low).collect()
        for p in range(first, last):
            yield batch.slice(int(starts[p]) - low, int(starts[p + 1] - starts[p]))
        first = last


def _with_next_values(known: Any, realised: Any, columns: Columns) -> Any:
    """Lag 1: the rows of one period earlier, with the values their assets have now."""
    right = realised.select(columns.asset, columns.value)
    return known.drop(columns.value).join(right, on=columns.asset, how="left", maintain_order="left")


def _refuse_duplicates(frame: Any, columns: Columns, period: Any) -> None:
    names = frame[columns.asset]
    if names.null_count() or names.n_unique() < len(names):
        raise PanelError(
            f"asset column {columns.asset!r} repeats or lacks labels in period {period}: keep one line per "
            "period and asset"
        )


def _numbers(frame: Any, name: str) -> FloatArray:
    import polars as pl

    return frame[name].cast(pl.Float64).to_numpy().astype(np.float64, copy=False)
