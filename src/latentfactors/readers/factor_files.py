"""Readers for factor files of other authors than Kenneth French, as published.

| function                 | gives                                                          | published by  |
|--------------------------|----------------------------------------------------------------|---------------|
| `read_q_factors`         | R_MKT, R_ME, R_IA, R_ROE, R_EG: the q factors, without R_F     | global-q.org  |
| `read_liquidity_factors` | level, innovation and traded factor of aggregate liquidity     | Lubos Pastor  |

Both answer a frame for `Panel.with_observed_factors(frame, time="date")`.

References       Hou, Xue & Zhang (2015), RFS 28(3), q factors; Hou, Mo, Xue & Zhang (2021), Review of Finance
                 25(1), expected growth; Pastor & Stambaugh (2003), JPE 111(3), eqs. (5)-(8), liquidity.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from latentfactors.errors import PanelError
from latentfactors.periods import period_end
from latentfactors.readers.french import read_text
from latentfactors.validate import count

if TYPE_CHECKING:
    import polars as pl

__all__ = ["read_liquidity_factors", "read_q_factors"]

_Q_RISK_FREE = "R_F"
_LIQUIDITY = ("liquidity_level", "liquidity_innovation", "LIQ_V")
_LIQUIDITY_MISSING = -99.0


def read_q_factors(path: str | Path, *, percent: bool = True) -> pl.DataFrame:
    """Factors of a global-q file: monthly, quarterly, annual or daily.

    Parameters
    ----------
    path
        CSV as published, also gzipped (.gz) or zipped (.zip). Its dates stand in year and month, year and
        quarter, year alone, or one column DATE as 19670103.
    percent
        Whether to divide by 100. Published files are in percent.

    Returns
    -------
    polars.DataFrame
        `date`, the last day of the period (or the day), and a decimal column per factor. R_MKT is in excess
        of the risk-free rate R_F, the others are spreads; R_F itself is no factor and is left out.

    Raises
    ------
    PanelError
        No such file, or not of this form; -99.99 and -999 become NaN.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "q5.csv"
    >>> text = "year,month,R_F,R_MKT,R_ME" + chr(10) + "1967,1,0.3927,8.1852,6.8122"
    >>> _ = file.write_text(text)
    >>> read_q_factors(file).row(0)
    (datetime.date(1967, 1, 31), 0.08185200000000001, 0.068122)
    """
    lines = [line for line in csv.reader(read_text(Path(path)).splitlines()) if any(map(str.strip, line))]
    header = [name.strip() for name in lines[0]] if lines else []
    n_keys, to_days = _calendar(header, path)
    names = header[n_keys:]
    if _Q_RISK_FREE not in names or len(names) < 2 or len(set(names)) < len(names):
        raise PanelError(
            f"{str(path)!r} is no global-q file: expected distinct columns {_Q_RISK_FREE}, R_MKT, ... after "
            f"the date, got {names}"
        )
    table = _numbers(lines[1:], len(header), path, first_line=2)
    values = table[:, n_keys:]
    values[np.isin(values, (-99.99, -999.0))] = np.nan
    values *= 0.01 if percent else 1.0
    columns = {name: values[:, j] for j, name in enumerate(names) if name != _Q_RISK_FREE}
    return _frame(to_days(table[:, :n_keys]), columns, path)


def read_liquidity_factors(path: str | Path) -> pl.DataFrame:
    """Aggregate liquidity of Pastor and Stambaugh, monthly.

    Parameters
    ----------
    path
        The text file as published, also gzipped (.gz) or zipped (.zip): comment lines begin with %.

    Returns
    -------
    polars.DataFrame
        `date`, the last day of the month; `liquidity_level` (their figure 1), `liquidity_innovation` (their
        eq. 8, the non-traded factor: no return, so it has no place in a GRS test or a maximal Sharpe ratio),
        and `LIQ_V`, the decimal return of the traded spread, NaN before 1968 where the file has -99.

    Raises
    ------
    PanelError
        No such file, or not of this form.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "liquidity.txt"
    >>> _ = file.write_text("% Month Agg Innov Traded" + chr(10) + "196801 -0.02 0.004 0.01")
    >>> read_liquidity_factors(file).row(0)
    (datetime.date(1968, 1, 31), -0.02, 0.004, 0.01)
    """
    lines = read_text(Path(path)).splitlines()
    kept = [re.split(r"[\s,]+", line.strip()) for line in lines if line.strip() and line.lstrip()[0] != "%"]
    if not kept or any(len(line) != 1 + len(_LIQUIDITY) for line in kept):
        found = sorted({len(line) for line in kept})
        raise PanelError(
            f"{str(path)!r} is no liquidity file of Pastor and Stambaugh: expected month, level, innovation "
            f"and traded factor in every line without %, got lines of {found or 'no'} entries"
        )
    table = _numbers(kept, 1 + len(_LIQUIDITY), path, first_line=1)
    values = np.where(table[:, 1:] == _LIQUIDITY_MISSING, np.nan, table[:, 1:])
    months = _month_ends(table[:, 0] // 100, table[:, 0] % 100)
    return _frame(months, {name: values[:, j] for j, name in enumerate(_LIQUIDITY)}, path)


def _calendar(
    header: list[str], path: str | Path
) -> tuple[int, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.datetime64] | None]]:
    """Number of date columns, and the function from them to days."""
    plain = [name.casefold() for name in header]
    if plain[:2] == ["year", "month"]:
        return 2, lambda keys: _month_ends(keys[:, 0], keys[:, 1])
    if plain[:2] == ["year", "quarter"]:
        return 2, lambda keys: _month_ends(keys[:, 0], 3 * keys[:, 1])
    if plain[:1] == ["year"]:
        return 1, lambda keys: _month_ends(keys[:, 0], np.full(len(keys), 12.0))
    if plain[:1] == ["date"]:
        return 1, lambda keys: _exact_days(keys[:, 0])
    raise PanelError(
        f"{str(path)!r} is no global-q file: expected a first line 'year,month,R_F,R_MKT,...' or 'DATE,...', "
        f"got {','.join(header)[:80]!r}"
    )


def _month_ends(
    year: npt.NDArray[np.float64], month: npt.NDArray[np.float64]
) -> npt.NDArray[np.datetime64] | None:
    """Last days of the months, or None where a number is no month."""
    whole = (year == np.round(year)) & (month == np.round(month))
    if not np.all(whole & (month >= 1) & (month <= 12) & (year >= 1800) & (year < 2200)):
        return None
    return period_end((12 * (year - 1970) + month - 1).astype("M8[M]").astype("M8[D]"), "M")


def _exact_days(dates: npt.NDArray[np.float64]) -> npt.NDArray[np.datetime64] | None:
    """19670103 as a day, or None where a number is no date."""
    texts = [f"{date:08.0f}" for date in dates]
    try:
        return np.array([f"{text[:4]}-{text[4:6]}-{text[6:]}" for text in texts], "M8[D]")
    except ValueError:
        return None


def _numbers(
    lines: list[list[str]], width: int, path: str | Path, first_line: int
) -> npt.NDArray[np.float64]:
    for number, line in enumerate(lines, start=first_line):
        if len(line) != width:
            raise PanelError(
                f"{str(path)!r} line {number}: expected {width} entries, got {count(len(line), 'cell')}"
            )
    if not lines:
        raise PanelError(f"{str(path)!r} has no line of numbers")
    try:
        return np.array([[float(cell) for cell in line] for line in lines])
    except ValueError as error:
        raise PanelError(f"{str(path)!r}: expected numbers ({error})") from None


def _frame(
    days: npt.NDArray[np.datetime64] | None,
    columns: dict[str, npt.NDArray[np.float64]],
    path: str | Path,
) -> pl.DataFrame:
    import polars as pl

    if days is None or np.any(np.diff(days) <= np.timedelta64(0, "D")):
        raise PanelError(f"{str(path)!r}: expected dates that exist and ascend, one line each")
    return pl.DataFrame({"date": days, **columns})
