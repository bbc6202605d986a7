"""Readers for FRED-MD and FRED-QD files as published.

| name            | gives                                                                 |
|-----------------|-----------------------------------------------------------------------|
| `read_fred_csv` | a file as it is: levels, official codes, the vintage its name tells   |
| `fred_panel`    | one vintage as a `Panel` of series, transformed by the official codes |

Files            first column `sasdate`; FRED-MD: row "Transform:"; FRED-QD: rows "factors" and "transform"; a
                 line per period dated M/D/YYYY; empty lines at the end. FRED-QD dates a quarter by its last
                 month. Also read: plain tables dated YYYY-MM-DD without these rows; gzipped, zipped files.
Traps            series of one file end in different months (the ragged edge, kept as NaN); the official
                 outlier rule and every standardisation know the whole span they are given; a few months
                 of 2020 dominate squared errors

References: McCracken & Ng (2016), JBES 34(4); McCracken & Ng (2021), FRB St. Louis Review 103(1). Data:
https://www.stlouisfed.org/research/economists/mccracken/fred-databases
"""

from __future__ import annotations

import csv
import gzip
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import PanelError
from latentfactors.estimator import freeze
from latentfactors.panel import Panel
from latentfactors.periods import first_offenders, period_end
from latentfactors.rows import Aggregation, SeriesInfo
from latentfactors.transforms import (
    OFFICIAL_CODES,
    Transformation,
    find_outliers,
    transform_columns,
    transformation_named,
)
from latentfactors.validate import count

__all__ = ["FredFile", "fred_panel", "read_fred_csv", "read_fred_head", "read_lines", "vintage_of"]

FloatArray = npt.NDArray[np.float64]
Codes = Mapping[str, int | str]

_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})|(\d{4})-(\d{2})-(\d{2})")
_VINTAGE = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_m](\d{1,2})(?!\d)")
# what damaged, cut or locked archives raise
_UNREADABLE = (OSError, EOFError, IndexError, RuntimeError, zipfile.BadZipFile, zlib.error)
_MISSING = {"", "na", "nan", ".", "#n/a"}
_TRANSFORMED = "FRED transformation codes"


@dataclass(frozen=True, eq=False, kw_only=True)
class FredFile:
    """A file of FRED-MD or FRED-QD as published.

    Attributes
    ----------
    dates : (T,) datetime64[D]
        Last days of the months or quarters.
    names : N series
    values : (T, N)
        Levels, NaN where empty.
    codes : N official codes, 0 where the file states none of 1..7; or () where it has no such row
    in_factors : N flags of FRED-QD's row "factors", or ()
    frequency : "M" or "Q"
    vintage : datetime64[D] or None
        Last day of the month in the file's name.
    """

    dates: npt.NDArray[Any]
    names: tuple[str, ...]
    values: FloatArray
    codes: tuple[int, ...]
    in_factors: tuple[bool, ...]
    frequency: Literal["M", "Q"]
    vintage: np.datetime64 | None

    def __post_init__(self) -> None:
        freeze(self)


def read_fred_csv(path: str | Path) -> FredFile:
    """Read a file of FRED-MD or FRED-QD without changing a number.

    Parameters
    ----------
    path
        A CSV file as published, also gzipped (.gz) or zipped (.zip).

    Raises
    ------
    PanelError
        No such file; no table of dated series; a cell that is no number; periods that are neither months nor
        quarters in succession.

    Examples
    --------
    >>> import tempfile
    >>> lines = ["sasdate,RPI,UNRATE", "Transform:,5,2", "1/1/2020,100,3.5", "2/1/2020,101,", ",,"]
    >>> file = Path(tempfile.mkdtemp()) / "2020-03.csv"
    >>> _ = file.write_text(chr(10).join(lines))
    >>> found = read_fred_csv(file)
    >>> found.names, found.codes, str(found.dates[-1]), str(found.vintage)
    (('RPI', 'UNRATE'), (5, 2), '2020-02-29', '2020-03-31')
    """
    rows = [
        (number, [cell.strip() for cell in row])
        for number, row in enumerate(_cells(read_lines(path), path), start=1)
        if any(cell.strip() for cell in row)
    ]
    names = _names(rows[0][1] if rows else [""], path)
    heads: dict[str, list[str]] = {}
    days: list[np.datetime64] = []
    table: list[list[float]] = []
    for number, cells in rows[1:]:
        if len(cells) != len(names) + 1:
            raise PanelError(f"{str(path)!r} line {number}: {len(cells) - 1} cells for {len(names)} series")
        day = _day_of(cells[0])
        if day is not None:
            days.append(day)
            table.append(
                [_number(cell, name, number, path) for cell, name in zip(cells[1:], names, strict=True)]
            )
        elif not days and (key := cells[0].rstrip(":").casefold()) in ("transform", "factors"):
            heads[key] = cells[1:]
        else:
            raise PanelError(f"{str(path)!r} line {number}: expected a date M/D/YYYY, got {cells[0]!r}")
    frequency = _frequency_of(days, path)
    return FredFile(
        dates=period_end(np.array(days), frequency),
        names=names,
        values=np.array(table),
        codes=_official(heads.get("transform", [])),
        in_factors=tuple(flag == "1" for flag in heads.get("factors", [])),
        frequency=frequency,
        vintage=vintage_of(path),
    )


def fred_panel(
    path: str | Path,
    *,
    transform: bool = True,
    outlier_threshold: float | None = None,
    codes: Codes | None = None,
    series: Sequence[str] | None = None,
) -> Panel:
    """One vintage of FRED-MD or FRED-QD as a panel of series.

    Parameters
    ----------
    path
        As in `read_fred_csv`.
    transform
        Whether to apply the transformation codes; False keeps levels.
    outlier_threshold
        Hide transformed values farther than this many interquartile ranges from their series' median; the
        official rule is 10. None: no rule.
    codes
        Series -> code 1..7 or name of `latentfactors.transforms`; goes before the file's own row.
    series
        The ones to read, in the file's order; only they need a code. None: all.

    Returns
    -------
    Panel
        (T, N) cells, all of them rows, `value_kind="series"`, frequency "M" or "Q". `panel.series` holds the
        transformation by name ("" for levels) and, for quarterly series, how a quarter sums up its months:
        "mariano_murasawa" for differences and growth rates of quarterly averages, else "mean". Series without
        any value, or without a valid code in the file, are left out; `notes` names them, and the outliers.

    Raises
    ------
    PanelError
        As in `read_fred_csv`; a file without codes, or without one of `series`; a logarithm of a level that
        is not positive.

    Examples
    --------
    >>> import tempfile
    >>> lines = ["sasdate,RPI,UNRATE", "Transform:,5,2", "1/1/2020,100,3.5", "2/1/2020,101,3.6"]
    >>> file = Path(tempfile.mkdtemp()) / "2020-03.csv"
    >>> _ = file.write_text(chr(10).join(lines))
    >>> fred_panel(file).wide().round(4)
    array([[ nan,  nan],
           [0.01, 0.1 ]])
    """
    file = read_fred_csv(path) if series is None else _only(read_fred_csv(path), series, path)
    names, values, notes = np.array(file.names), np.array(file.values), []
    applied: list[Transformation | None] = [None] * len(names)
    transforms: tuple[str, ...] = ()
    if transform:
        applied = _chosen(file, codes, path)
        coded = np.array([code is not None for code in applied])
        if not coded.all():
            notes.append(f"{_listed(names[~coded])} without a valid transformation code left out")
        names, values = names[coded], values[:, coded]
        applied = [code for code in applied if code is not None]
        try:
            values = transform_columns(values, [code or "level" for code in applied], names.tolist())
        except PanelError as error:
            raise PanelError(f"{str(path)!r}: {error}") from None
        transforms = (_TRANSFORMED,)
    if outlier_threshold is not None:
        outliers = find_outliers(values, outlier_threshold)
        values[outliers] = np.nan
        transforms = (*transforms, f"outliers beyond {outlier_threshold:g} interquartile ranges masked")
        if outliers.any():
            hit = names[outliers.any(axis=0)]
            notes.append(f"{count(int(outliers.sum()), 'outlier')} masked in {_listed(hit)}")
    seen: npt.NDArray[np.bool_] = np.logical_or.reduce(np.isfinite(values), axis=0)
    if not seen.any():
        raise PanelError(f"{str(path)!r} has no observed value{' after transformation' * transform}")
    if not seen.all():
        notes.insert(0, f"{_listed(names[~seen])} without any value left out")
    if file.vintage is not None:
        notes.insert(0, f"vintage of {file.vintage.astype('datetime64[M]')}")
    kept = [code or "" for code, keep in zip(applied, seen.tolist(), strict=True) if keep]
    panel = Panel.from_wide(
        values[:, seen],
        universe="all",
        times=file.dates,
        assets=names[seen],
        frequency=file.frequency,
        value_kind="series",
        series=SeriesInfo(
            frequency=(file.frequency,) * len(kept),
            transformation=tuple(kept),
            aggregation=tuple(_aggregation(code) if file.frequency == "Q" else "mean" for code in kept),
        ),
    )
    return replace(panel, transforms=transforms, notes=(*panel.notes, *notes))


def read_fred_head(
    path: str | Path,
) -> tuple[tuple[str, ...], tuple[int, ...], Literal["M", "Q"]]:
    """Names, official codes and frequency of a file, from its first lines: see `FredFile`.

    Raises
    ------
    PanelError
        A file that cannot be read, or whose header is not one of FRED-MD or FRED-QD.
    """
    rows = [[cell.strip() for cell in row] for row in _cells(read_lines(path)[:5], path)]
    names = _names(rows[0] if rows else [""], path)
    heads = [row[1:] for row in rows[1:] if row and row[0].rstrip(":").casefold() == "transform"]
    days = [_day_of(row[0]) for row in rows[1:] if row]
    frequency = _frequency_of([day for day in days if day is not None], path)
    return names, _official(heads[0] if heads else []), frequency


def read_lines(path: str | Path) -> list[str]:
    """Lines of a text file, also gzipped (.gz) or zipped (.zip, its first member).

    Raises
    ------
    PanelError
        A file that cannot be read.
    """
    path = Path(path)
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                raw = archive.read(archive.namelist()[0])
        else:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except _UNREADABLE as error:
        raise PanelError(f"{str(path)!r} cannot be read: {error}") from error
    return raw.decode("utf-8-sig", errors="replace").splitlines()


# ------------------------------------------------------------------------------------------- the parts


def _cells(lines: list[str], path: str | Path) -> list[list[str]]:
    try:
        return list(csv.reader(lines))
    except csv.Error as error:
        raise PanelError(f"{str(path)!r} cannot be read as CSV: {error}") from None


def _names(head: list[str], path: str | Path) -> tuple[str, ...]:
    """The series of a header."""
    if head[0].casefold() not in ("sasdate", "date"):
        raise PanelError(
            f"{str(path)!r} is no FRED-MD or FRED-QD file: the first column must be 'sasdate', got "
            f"{head[0]!r}"
        )
    names = tuple(head[1:])
    if not names or len(set(names)) < len(names) or "" in names:
        raise PanelError(f"{str(path)!r}: the header must name every series once, got {len(names)} names")
    return names


def _day_of(text: str) -> np.datetime64 | None:
    found = _DATE.match(text)
    if not found:
        return None
    month, day, year = (found[1], found[2], found[3]) if found[3] else (found[5], found[6], found[4])
    try:
        return np.datetime64(f"{year}-{int(month):02d}-{int(day):02d}", "D")
    except ValueError:  # the 13th month
        return None


def _number(cell: str, name: str, line: int, path: str | Path) -> float:
    if cell.casefold() in _MISSING:
        return np.nan
    try:
        number = float(cell)
    except ValueError:
        raise PanelError(
            f"{str(path)!r} line {line}, series {name!r}: expected a number, got {cell!r}"
        ) from None
    if not np.isfinite(number):
        raise PanelError(
            f"{str(path)!r} line {line}, series {name!r}: expected a finite number, got {cell!r}"
        )
    return number


def _frequency_of(days: list[np.datetime64], path: str | Path) -> Literal["M", "Q"]:
    months = np.array(days, dtype="datetime64[M]").astype(np.int64)
    steps = np.diff(months)
    if steps.size and np.all(steps == 1):
        return "M"
    if steps.size and np.all(steps == 3):
        return "Q"
    odd = np.flatnonzero(steps != (steps[0] if steps.size else 0))
    where = f": {days[odd[0]]} is followed by {days[odd[0] + 1]}" if odd.size else ""
    raise PanelError(
        f"{str(path)!r}: expected months or quarters in succession, got {count(len(days), 'date')}{where}"
    )


def _official(row: list[str]) -> tuple[int, ...]:
    """Codes of a row "Transform:"; 0 for what is none of 1..7 (a published FRED-QD file has such a 0)."""
    official = {str(code): code for code in OFFICIAL_CODES}
    return tuple(official.get(cell.removesuffix(".0"), 0) for cell in row)


def _only(file: FredFile, series: Sequence[str], path: str | Path) -> FredFile:
    """The file with some of its series."""
    if unknown := [name for name in series if name not in file.names]:
        raise PanelError(f"{str(path)!r} has no series {first_offenders(map(repr, unknown))}")
    kept = [k for k, name in enumerate(file.names) if name in set(series)]
    return replace(
        file,
        names=tuple(file.names[k] for k in kept),
        values=file.values[:, kept],
        codes=tuple(file.codes[k] for k in kept if k < len(file.codes)),
        in_factors=tuple(file.in_factors[k] for k in kept if k < len(file.in_factors)),
    )


def _chosen(file: FredFile, codes: Codes | None, path: str | Path) -> list[Transformation | None]:
    """The transformation of every series, None where the file states no valid code."""
    known: dict[str, int | str] = dict(zip(file.names, file.codes, strict=False)) | dict(codes or {})
    lacking = [name for name in file.names if name not in known]
    if lacking:
        raise PanelError(
            f"{str(path)!r} states no transformation codes, and codes has none for {len(lacking)} of its "
            f"series ({first_offenders(map(repr, lacking))}): give codes={{name: code}}, or transform=False"
        )
    return [transformation_named(known[name]) if known[name] != 0 else None for name in file.names]


def _aggregation(name: str) -> Aggregation:
    """How a quarter's (transformed) average sums up its months' (transformed) values.

    A difference of three-month averages of x is (1, 2, 3, 2, 1)/3 of the monthly differences, exactly; a
    growth rate nearly so. A level is a mean. Second differences follow none of the rules; they get "mean".
    """
    return "mariano_murasawa" if name in ("difference", "log_difference") else "mean"


def vintage_of(path: str | Path) -> np.datetime64 | None:
    """Last day of the month that a file's name tells (2023-04.csv, 2023-04-MD.csv, fred_md_2023-04.csv.gz).

    Files are posted at the end of that month, so before its last day nobody had them.

    >>> str(vintage_of("2023-04-MD.csv")), vintage_of("current.csv")
    ('2023-04-30', None)
    """
    for found in _VINTAGE.finditer(Path(path).name):
        if 1 <= int(found[2]) <= 12:
            month = np.array([f"{found[1]}-{int(found[2]):02d}"], dtype="datetime64[M]")
            return period_end(month.astype("datetime64[D]"), "M")[0]
    return None


def _listed(names: npt.NDArray[Any]) -> str:
    return f"{len(names)} series ({first_offenders(map(repr, names.tolist()), 6)})"
