"""Reader for the predictors of the equity premium kept by Amit Goyal.

| function               | gives                                                                        |
|------------------------|------------------------------------------------------------------------------|
| `read_goyal_welch`     | a sheet of the workbook, saved as CSV, with its dates as period ends         |
| `equity_premium_panel` | the premium and its usual predictors as a `Panel` of series, correctly dated |

Timing           row t: `equity_premium` is earned over t, predictors were known at the end of t. Regressing
                 the premium over t+1 on predictors at t pairs row t with row t+1: a lead of 1.
Traps            consumer prices of t are published in t+1, so `infl` stands one period later here. Price
                 ratios of the file are levels, their logarithms are what is usually regressed on. Some
                 columns were estimated on the whole sample and know the future: refused unless asked for.

| name         | at the end of t                           | name         | at the end of t             |
|--------------|-------------------------------------------|--------------|-----------------------------|
| `dp`         | log 12-month dividends less log price     | `tbl`        | Treasury bill rate          |
| `dy`         | the same, price of one period before      | `lty`, `ltr` | long yield; long return     |
| `ep`, `de`   | log earnings less log price; log payout   | `tms`        | lty - tbl                   |
| `svar`       | sum of squared daily returns              | `dfy`, `dfr` | BAA - AAA; corporate - ltr  |
| `bm`, `ntis` | book to market; net equity issuance       | `infl`       | inflation, one period late  |

References: Welch & Goyal (2008), RFS 21(4), 1455-1508, section 1 (definitions and timing); Goyal, Welch &
Zafirov (2024), RFS 37(11) (the 29 newer predictors). Data: https://sites.google.com/view/agoyal145
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.panel import Panel
from latentfactors.periods import Frequency, first_offenders, period_end
from latentfactors.readers.fred import read_lines
from latentfactors.rows import SeriesInfo

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FULL_SAMPLE", "PREDICTORS", "equity_premium_panel", "read_goyal_welch"]

FloatArray = npt.NDArray[np.float64]

PREDICTORS = (
    "dp", "dy", "ep", "de", "svar", "bm", "ntis", "tbl", "lty", "ltr", "tms", "dfy", "dfr", "infl",
)  # fmt: skip
"""The fourteen of Welch & Goyal (2008) that exist every month."""

FULL_SAMPLE = ("cay", "pce", "ogap", "sntm", "fbm", "tchi", "shtint")
"""Columns that the workbook's own notes call full-sample versions, to be recomputed every period."""

_DATES: dict[str, tuple[Frequency | None, str]] = {
    "yyyymm": ("M", r"(\d{4})(0[1-9]|1[0-2])"),
    "yyyyq": ("Q", r"(\d{4})([1-4])"),
    "yyyy": (None, r"(\d{4})()"),
}
_MISSING = {"", "na", "nan", "."}


def _log_ratio(over: str, under: str) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
    return lambda columns: _log(columns[over], over) - _log(columns[under], under)


# Predictors that are not a column of the file: how they are made, and of which columns.
_DERIVED: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, FloatArray]], FloatArray]]] = {
    "dp": (("d12", "price"), _log_ratio("d12", "price")),
    "dy": (
        ("d12", "price"),
        lambda columns: _log(columns["d12"], "d12") - _log(_late(columns["price"]), "price"),
    ),
    "ep": (("e12", "price"), _log_ratio("e12", "price")),
    "de": (("d12", "e12"), _log_ratio("d12", "e12")),
    "bm": (("b/m",), lambda columns: columns["b/m"]),
    "infl": (("infl",), lambda columns: _late(columns["infl"])),
}


def read_goyal_welch(path: str | Path) -> pl.DataFrame:
    """A monthly, quarterly or annual sheet, saved as CSV, without changing a number.

    Parameters
    ----------
    path
        A CSV file with dates yyyymm, yyyyq or yyyy in the first column; also gzipped or zipped.

    Returns
    -------
    polars.DataFrame
        `date` (last day of the month, quarter or year) and the columns under their own names, decimal, NaN
        where empty. A frame for `panel.with_context(frame, lag=1, time="date")`: what was known at the end
        of t-1 enters the row set of t.

    Raises
    ------
    PanelError
        No such file; a first column of another kind; a cell that is no number.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "monthly.csv"
    >>> _ = file.write_text("yyyymm,price,d12" + chr(10) + "202001,3225.5,58.7" + chr(10))
    >>> frame = read_goyal_welch(file)
    >>> frame.columns, str(frame["date"][0])
    (['date', 'price', 'd12'], '2020-01-31')
    """
    import polars as pl

    dates, _, columns = _read(path)
    return pl.DataFrame({"date": dates, **columns})


def equity_premium_panel(
    path: str | Path,
    *,
    predictors: Sequence[str] = PREDICTORS,
    log_returns: bool = False,
    allow_full_sample: bool = False,
) -> Panel:
    """The equity premium and predictors as a panel of series.

    Parameters
    ----------
    path
        As in `read_goyal_welch`.
    predictors
        Names of the table above, or of any column of the file.
    log_returns
        Whether the premium is log(1 + ret) - log(1 + Rfree) instead of ret - Rfree.
    allow_full_sample
        Whether columns that know the future (`FULL_SAMPLE`) may be used.

    Returns
    -------
    Panel
        Series "equity_premium" (ret - Rfree, decimal per period) and the predictors in order, from the first
        period with a premium; a predictor that starts later or has a lower frequency is NaN where it has
        none. Monthly and quarterly files: `value_kind="series"`, frequency "M" or "Q". Annual files: the
        same with years as integer periods.

    Raises
    ------
    PanelError
        As in `read_goyal_welch`; unknown columns; predictors without any value; full-sample columns.
    ConfigurationError
        An empty list of predictors, or one that is named twice.

    Examples
    --------
    >>> import tempfile
    >>> lines = ["yyyymm,price,ret,Rfree,tbl", "202001,100,0.02,0.001,0.015", "202002,90,-0.1,0.001,0.014"]
    >>> file = Path(tempfile.mkdtemp()) / "monthly.csv"
    >>> _ = file.write_text(chr(10).join(lines))
    >>> equity_premium_panel(file, predictors=["tbl"]).wide()
    array([[ 0.019,  0.015],
           [-0.101,  0.014]])
    """
    names = list(predictors) if not isinstance(predictors, str) else []
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f"predictors must be a list of distinct names, got {predictors!r}")
    known_later = [name for name in names if name in FULL_SAMPLE]
    if known_later and not allow_full_sample:
        raise PanelError(
            f"{first_offenders(map(repr, known_later))} were estimated on the whole sample, so row t knows "
            "what came after t: leave them out, or allow_full_sample=True to describe the past"
        )
    dates, frequency, columns = _read(path)
    needed = {"ret", "Rfree"}.union(*(_DERIVED.get(name, ((name,), None))[0] for name in names))
    if lacking := sorted(needed - columns.keys()):
        raise PanelError(
            f"{str(path)!r} has no column {first_offenders(map(repr, lacking))}, only "
            f"{first_offenders(columns, 70)}"
        )
    market, bill = columns["ret"], columns["Rfree"]
    premium = np.log1p(market) - np.log1p(bill) if log_returns else market - bill
    if not np.isfinite(premium).any():
        raise PanelError(f"{str(path)!r} has no period with both ret and Rfree")
    series = [_DERIVED[name][1](columns) if name in _DERIVED else columns[name] for name in names]
    table = np.column_stack([premium, *series])[int(np.argmax(np.isfinite(premium))) :]
    empty = [name for j, name in enumerate(names, 1) if not np.isfinite(table[:, j]).any()]
    if empty:
        raise PanelError(
            f"{str(path)!r} has no values of {first_offenders(map(repr, empty))} from the first premium on: "
            "they exist at another frequency, or not at all"
        )
    times = dates[-len(table) :]
    return Panel.from_wide(
        table,
        universe="all",
        times=times if frequency else times.astype("datetime64[Y]").astype(np.int64) + 1970,
        assets=["equity_premium", *names],
        frequency=frequency,
        value_kind="series",
        series=SeriesInfo(frequency=(frequency,) * (len(names) + 1)) if frequency else None,
    )


# ------------------------------------------------------------------------------------------- the parts


def _read(path: str | Path) -> tuple[npt.NDArray[Any], Frequency | None, dict[str, FloatArray]]:
    """Period ends (T,), their frequency, and the columns (T,) by name."""
    rows = [row for row in csv.reader(read_lines(path)) if any(cell.strip() for cell in row)]
    head = [cell.strip() for cell in rows[0]] if rows else [""]
    if head[0] not in _DATES or len(head) < 2 or len(set(head)) < len(head):
        raise PanelError(
            f"{str(path)!r} is no sheet of the Goyal-Welch workbook: the first column must be yyyymm, yyyyq "
            f"or yyyy and names distinct, got {first_offenders(map(repr, head), 4)}"
        )
    frequency, pattern = _DATES[head[0]]
    firsts, table = [], np.full((len(rows) - 1, len(head) - 1), np.nan)
    for t, row in enumerate(rows[1:]):
        found = re.fullmatch(pattern, row[0].strip().removesuffix(".0"))
        if not found or len(row) != len(head):
            raise PanelError(
                f"{str(path)!r}: expected {len(head)} cells that begin with {head[0]}, got {row[:3]}"
            )
        month = {"M": found[2], "Q": f"{3 * int(found[2] or 0):02d}", None: "12"}[frequency]
        firsts.append(f"{found[1]}-{month}-01")
        for j, cell in enumerate(row[1:]):
            table[t, j] = _number(cell, head[j + 1], row[0], path)
    if not firsts:
        raise PanelError(f"{str(path)!r} has a header and no line below it")
    dates = period_end(np.array(firsts, dtype="datetime64[D]"), "M")
    return dates, frequency, {name: table[:, j] for j, name in enumerate(head[1:])}


def _number(cell: str, name: str, date: str, path: str | Path) -> float:
    text = cell.strip()
    if text.casefold() in _MISSING:
        return np.nan
    try:
        return float(text)
    except ValueError:
        raise PanelError(f"{str(path)!r} {date}, column {name!r}: expected a number, got {cell!r}") from None


def _log(column: FloatArray, name: str) -> FloatArray:
    if np.any(column <= 0):
        raise PanelError(f"{name} must be positive for its logarithm, got {np.nanmin(column):g}")
    return np.log(column)


def _late(column: FloatArray) -> FloatArray:
    """The column one period later."""
    return np.concatenate([[np.nan], column[:-1]])
