"""Readers for the files of Kenneth French's data library, as published.

| function                | gives                                                                        |
|-------------------------|------------------------------------------------------------------------------|
| `french_sections`       | titles of the tables in a file                                               |
| `read_french_csv`       | one of these tables: date, a column per portfolio                            |
| `read_french_factors`   | factor returns for `Panel.with_observed_factors`, without the risk-free rate |
| `read_french_risk_free` | the risk-free rate of a factor file                                          |
| `excess_panel`          | returns less the risk-free rate: the one place where it is subtracted        |

Traps            sections differ by file, so list titles first; -99.99 and -999 mean missing; returns are raw
                 and in percent; the risk-free rate may end before the portfolios do
Source           https://mba.tuck.dartmouth.edu/pages/faculty/ken.french/data_library.html
"""

from __future__ import annotations

import gzip
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from latentfactors.errors import PanelError
from latentfactors.ingest import period_columns
from latentfactors.panel import Panel
from latentfactors.periods import period_end
from latentfactors.validate import count

if TYPE_CHECKING:
    import polars as pl
    from narwhals.typing import IntoDataFrame

__all__ = [
    "excess_panel",
    "french_sections",
    "read_french_csv",
    "read_french_factors",
    "read_french_risk_free",
]

_RISK_FREE = "RF"
_MISSING = (-99.99, -999.0)
_LINE = re.compile(r"\s*(\d{4}|\d{6}|\d{8}|\d{4}[/-]\d{2}[/-]\d{2})\s*,")
_UNTITLED = {4: "Annual factors", 6: "Monthly factors", 8: "Factors by day"}
_IN_PERCENT = re.compile(r"\b(returns|factors)\b", re.IGNORECASE)


def french_sections(path: str | Path) -> tuple[str, ...]:
    """Titles of the tables in a file of Kenneth French's data library, in order.

    Parameters
    ----------
    path
        A CSV file as published, also gzipped (.gz) or zipped (.zip).

    Returns
    -------
    tuple of str
        Titles of several lines are joined by a space. A table without one (the first of a factor file) is
        called "Monthly factors", "Annual factors" or "Factors by day".

    Raises
    ------
    PanelError
        No such file, or none of this kind.

    Examples
    --------
    >>> import tempfile
    >>> lines = [
    ...     "Average Value Weighted Returns -- Monthly",
    ...     ",Lo,Hi",
    ...     "202001, 1.5, 2.0",
    ...     "202002,-2.0,-99.99",
    ... ]
    >>> file = Path(tempfile.mkdtemp()) / "portfolios.csv"
    >>> _ = file.write_text(chr(10).join(lines))
    >>> french_sections(file)
    ('Average Value Weighted Returns -- Monthly',)
    >>> read_french_csv(file, "value weighted").to_dict(as_series=False)["Lo"]
    [0.015, -0.02]
    """
    return tuple(section.title for section in read_sections(path))


def read_french_csv(
    path: str | Path, section: str | int | None = None, *, percent: bool | None = None
) -> pl.DataFrame:
    """One table of a file of Kenneth French's data library.

    Parameters
    ----------
    path
        A CSV file as published, also gzipped (.gz) or zipped (.zip).
    section
        Title, or a part of it that no other title has (case and spacing do not matter), or position. None:
        the first. `french_sections` lists them; they differ from file to file.
    percent
        Whether the table is in percent and is to be divided by 100. None: where the title speaks of returns
        or factors. Numbers of firms, market capitalisations (million USD) and averages of characteristics
        stay as published.

    Returns
    -------
    polars.DataFrame
        `date`, the last day of the month or year (or the day), and a column per portfolio under its published
        name. -99.99 and -999 are NaN. Returns are raw: no risk-free rate is subtracted.

    Raises
    ------
    PanelError
        No such file or section, several sections that fit, or lines that cannot be read.

    Notes
    -----
    When a number was known is the user's to settle. Dated by the month it describes, a characteristic enters
    a panel safely with `lag=1`.
    """
    import polars as pl

    found = choose_section(read_sections(path), section, path)
    scale = 0.01 if (bool(_IN_PERCENT.search(found.title)) if percent is None else percent) else 1.0
    columns = {name: scale * found.values[:, j] for j, name in enumerate(found.names)}
    return pl.DataFrame({"date": found.dates, **columns})


def read_french_factors(
    path: str | Path, section: str | int | None = None, *, percent: bool = True
) -> pl.DataFrame:
    """Factors of a file of Kenneth French's data library (three or five factors, momentum), without RF.

    Parameters
    ----------
    path, section
        As in `read_french_csv`; the first section is the monthly or daily one.
    percent
        Whether to divide by 100. Published files are in percent.

    Returns
    -------
    polars.DataFrame
        `date` and a column per factor, decimal: `panel.with_observed_factors(frame, time="date")`. The
        risk-free rate is no factor: `read_french_risk_free` reads it.

    Raises
    ------
    PanelError
        As in `read_french_csv`.
    """
    frame = read_french_csv(path, section, percent=percent)
    return frame.drop(_RISK_FREE) if _RISK_FREE in frame.columns else frame


def read_french_risk_free(
    path: str | Path, section: str | int | None = None, *, percent: bool = True
) -> pl.DataFrame:
    """The risk-free rate of a factor file: `date` and `RF`, decimal per period; arguments as for factors.

    Raises
    ------
    PanelError
        As in `read_french_csv`; a file without the column RF.
    """
    frame = read_french_csv(path, section, percent=percent)
    if _RISK_FREE not in frame.columns:
        raise PanelError(f"{str(path)!r} has no column 'RF', only {frame.columns[1:]}: use a factor file")
    return frame.select("date", _RISK_FREE)


def excess_panel(
    returns: Panel, risk_free: IntoDataFrame, *, time: str | None = "date", column: str = _RISK_FREE
) -> Panel:
    """Returns less the risk-free rate of their period, once: the answer is an "excess_return" panel.

    Parameters
    ----------
    returns
        Raw decimal returns, `value_kind="return"`.
    risk_free
        Frame with a line per period; `time` names its time column (None: the index of a pandas frame).
    column
        The rate, decimal per period.

    Returns
    -------
    Panel
        The same rows. Values of periods without a rate are NaN, counted in `notes`.

    Raises
    ------
    PanelError
        A panel that does not hold raw returns (so nothing is subtracted twice), no such column, no period in
        common.
    """
    if returns.value_kind != "return":
        raise PanelError(
            f"excess_panel needs raw returns, value_kind='return', got {returns.value_kind!r}: excess "
            "returns are never reduced by a risk-free rate again"
        )
    names, columns = period_columns(returns, risk_free, time, lag=0)
    if column not in names:
        raise PanelError(f"the frame has no column {column!r}, only {names}")
    rate = columns[:, names.index(column)][returns.index.period_codes]
    lost = int((returns.observed & ~np.isfinite(rate)).sum())
    notes = [f"{count(lost, 'value')} in periods without a risk-free rate set to NaN"] if lost else []
    return replace(
        returns,
        values=returns.values - rate,
        value_kind="excess_return",
        notes=(*returns.notes, f"less the risk-free rate {column!r}", *notes),
    )


@dataclass(frozen=True, eq=False)
class _Section:
    """A table: title, dates (T,), column names, values (T, N)."""

    title: str
    dates: npt.NDArray[np.datetime64]
    names: tuple[str, ...]
    values: npt.NDArray[np.float64]


def read_sections(path: str | Path) -> list[_Section]:
    """All tables: runs of lines that begin with a date, their header above, the title above that."""
    lines = read_text(Path(path)).splitlines()
    is_data = [_LINE.match(line) is not None for line in lines]
    sections, i = [], 0
    while i < len(lines):
        if not is_data[i]:
            i += 1
            continue
        end = i
        while end < len(lines) and is_data[end]:
            end += 1
        sections.append(_parse_section(lines, i, end, path))
        i = end
    if not sections:
        raise PanelError(
            f"{str(path)!r} is no file of French's data library: no line begins with a date as in '192607,'"
        )
    return sections


def _parse_section(lines: list[str], first: int, end: int, path: str | Path) -> _Section:
    top = first - 1
    while top > 0 and not lines[top].strip():  # some files leave a line between header and data
        top -= 1
    header = lines[top] if first else ""
    names = _cells(header)[1:]
    if not names or len(set(names)) != len(names):
        raise PanelError(
            f"{str(path)!r} line {first + 1}: expected a header of distinct column names above the data, got "
            f"{header!r}"
        )
    rows, digits = [], [re.sub("[/-]", "", _cells(line)[0]) for line in lines[first:end]]
    for number, line in enumerate(lines[first:end], start=first + 1):
        cells = _cells(line)[1:]
        try:
            rows.append([float(cell) if cell else np.nan for cell in cells])
        except ValueError:
            raise PanelError(f"{str(path)!r} line {number}: expected numbers, got {line!r}") from None
        if len(cells) != len(names):
            raise PanelError(
                f"{str(path)!r} line {number}: expected {count(len(names), 'number')}, got {len(cells)}"
            )
    if len({len(date) for date in digits}) > 1:
        raise PanelError(f"{str(path)!r} line {first + 1}: dates of several kinds in one table")
    values = np.array(rows)
    values[np.isin(values, _MISSING)] = np.nan
    above = top
    while above > 0 and lines[above - 1].strip():
        above -= 1
    title = " ".join(" ".join(lines[above:top]).split()) or _UNTITLED[len(digits[0])]
    return _Section(title, _dates(digits, path), names, values)


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.rstrip().rstrip(",").split(","))


def _dates(digits: list[str], path: str | Path) -> npt.NDArray[np.datetime64]:
    """Last day of the year (4 digits) or month (6), or the day itself (8)."""
    texts = [text + "12" if len(text) == 4 else text for text in digits]
    try:
        days = np.array(["-".join(filter(None, (t[:4], t[4:6], t[6:] or "01"))) for t in texts], "M8[D]")
    except ValueError as error:
        raise PanelError(f"{str(path)!r}: a date cannot be read ({error})") from None
    return days if len(digits[0]) == 8 else period_end(days, "M")


def read_text(path: Path) -> str:
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                raw = archive.read(archive.namelist()[0])
        else:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise PanelError(f"{str(path)!r} cannot be read: {error}") from error
    return raw.decode("utf-8", errors="replace")


def choose_section(sections: list[_Section], wanted: str | int | None, path: str | Path) -> _Section:
    titles = [section.title for section in sections]
    listing = "; ".join(f"{i}: {title}" for i, title in enumerate(titles))
    if not isinstance(wanted, str):
        position = 0 if wanted is None else wanted
        if not 0 <= position < len(sections):
            raise PanelError(f"{str(path)!r} has no section {wanted}, it has {listing}")
        return sections[position]
    plain = " ".join(wanted.split()).casefold()
    fits = [i for i, title in enumerate(titles) if title.casefold() == plain]
    fits = fits or [i for i, title in enumerate(titles) if plain in title.casefold()]
    if len(fits) != 1:
        several = f"sections {fits} fit" if fits else "no section fits"
        raise PanelError(f"{str(path)!r}: {several} {wanted!r}, choose one of {listing}")
    return sections[fits[0]]
