"""Where a nowcast job finds its data: a table of releases, a saved store, or files of FRED-MD and FRED-QD.

    [data]  releases (.csv or .parquet), series, period, release, value; frequency        one line per release
    [data]  store                                                                         of VintageStore.save
    [data]  monthly; quarterly, quarterly_series, codes, outlier_threshold                FRED, as published
            first, exclude                                                                with any of them

Files of FRED carry their month in the name and count as known on its last day. A series that only some of
them have joins or leaves with its vintage.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    PanelError,
    PanelMismatchError,
)
from latentfactors.nowcast import VintageStore
from latentfactors.panel import Panel
from latentfactors.periods import Frequency, first_offenders, parse_times
from latentfactors.readers.fred import read_fred_head
from latentfactors.readers.fred_vintages import FredVintages
from latentfactors.rows import Aggregation
from latentfactors.settings import named
from latentfactors.transforms import transformation_named
from latentfactors.validate import count

__all__ = ["ReleaseData", "SeriesEntry", "Vintages", "check_series", "day_of", "open_vintages"]

Described = Mapping[str, Mapping[str, Any]]

# Values of a target below which no model learns what it is.
_FEWEST = 5
_OF_A_TABLE = ("series", "period", "release", "value", "frequency")
_OF_FRED = ("quarterly", "quarterly_series", "codes", "outlier_threshold")


@dataclass(frozen=True, kw_only=True)
class ReleaseData:
    """Where the releases are. One of `releases`, `store` and `monthly`.

    Parameters
    ----------
    releases
        A `.csv` or `.parquet` file, one line per release of a cell, see `VintageStore.from_long`.
    series, period, release, value
        Its columns.
    frequency
        Of the panels.
    store
        Folder that `VintageStore.save` wrote.
    monthly
        Vintages of FRED-MD: paths, or patterns such as ``md/*.csv``.
    quarterly
        Vintages of FRED-QD for `quarterly_series`.
    quarterly_series
        Series of FRED-QD that join the monthly panel.
    codes
        A file in the layout of FRED whose row "Transform:" goes before those of the vintages, which may have
        none.
    outlier_threshold
        Hide transformed values farther than this many interquartile ranges from their series' median.
    first
        Periods before it are left out, after the transformations.
    exclude
        Series to leave out.

    Raises
    ------
    ConfigurationError
        None or several of the three, and options that belong to another one.
    """

    releases: str | None = None
    series: str = "series"
    period: str = "period"
    release: str = "release"
    value: str = "value"
    frequency: Frequency = "M"
    store: str | None = None
    monthly: str | tuple[str, ...] | None = None
    quarterly: str | tuple[str, ...] | None = None
    quarterly_series: tuple[str, ...] = ("GDPC1",)
    codes: str | None = None
    outlier_threshold: float | None = None
    first: Any = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sources = ("releases", "store", "monthly")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigurationError(
                "name either releases (a table), store (a folder) or monthly (files of FRED-MD), got "
                f"{' and '.join(given) or 'none of them'}"
            )
        defaults = {each.name: each.default for each in fields(self)}
        for owner, names in (("releases", _OF_A_TABLE), ("monthly", _OF_FRED)):
            for name in names:
                if owner != given[0] and getattr(self, name) != defaults[name]:
                    raise ConfigurationError(f"{name} belongs to {owner}, not to {given[0]}: leave it out")
        if self.outlier_threshold is not None and not 0 < self.outlier_threshold < math.inf:
            raise ConfigurationError(
                f"outlier_threshold must be a number > 0, got {self.outlier_threshold!r}"
            )
        wanted = self.quarterly_series
        if self.quarterly is None and wanted != defaults["quarterly_series"]:
            raise ConfigurationError(
                "quarterly_series are read from quarterly, which is not named: name its files"
            )
        if not wanted or len(set(wanted)) < len(wanted):
            raise ConfigurationError(
                f"quarterly_series must name one series or more, each once, got {wanted!r}"
            )
        if self.first is not None:
            day_of(self.first, "first")


@dataclass(frozen=True, kw_only=True)
class SeriesEntry:
    """What a [[series]] may say; None: as the data have it.

    Parameters
    ----------
    frequency, aggregation, group, publication_lag, description
        As in `SeriesInfo`.
    code
        Transformation of the levels, 1..7 or its name.
    """

    frequency: Frequency | None = None
    aggregation: Aggregation | None = None
    group: str | None = None
    code: int | str | None = None
    publication_lag: int | None = None
    description: str | None = None

    def __post_init__(self) -> None:
        if self.code is not None:
            object.__setattr__(self, "code", transformation_named(self.code))


@dataclass(frozen=True, eq=False, kw_only=True)
class Vintages:
    """What was known on any day, as a job asks for it.

    Attributes
    ----------
    source : a `VintageStore` or `FredVintages`
    dates : days on which something came out
    series : labels of all vintages
    described : series -> fields that the source cannot know, applied to every vintage
    first, exclude : see `ReleaseData`
    """

    source: VintageStore | FredVintages
    dates: tuple[np.datetime64, ...]
    series: tuple[Any, ...]
    described: Described = field(default_factory=dict)
    first: Any = None
    exclude: tuple[str, ...] = ()

    def as_of(self, date: Any) -> Panel:
        """The panel of everything known on a day.

        Raises
        ------
        PanelError
            Nothing was known by then, or nothing is left after `first` and `exclude`.
        """
        panel = self.source.as_of(date)
        if self.exclude:
            kept = [label for label in panel.assets.tolist() if label not in self.exclude]
            panel = panel.select(kept)
        if self.first is not None:
            start = int(np.searchsorted(panel.times, day_of(self.first, "first")))
            if start >= panel.n_periods:
                raise PanelError(f"[data] first = {self.first} lies after the last period, {panel.times[-1]}")
            panel = panel.between(start, panel.n_periods)
        # differencing empties the first periods; a model fitted to them could not read a vintage without them
        seen = np.flatnonzero(np.isfinite(panel.wide()).any(axis=1))
        if seen.size and seen[0]:
            panel = panel.between(int(seen[0]), panel.n_periods)
        return _describe(panel, self.described)


def day_of(value: Any, name: str) -> np.datetime64:
    """The day that an option names.

    Raises
    ------
    ConfigurationError
        What is no date.
    """
    try:
        day = parse_times([value], name=name)[0]
    except PanelError:
        day = None
    if not isinstance(day, np.datetime64):
        raise ConfigurationError(f"{name} must be a day such as 2016-07-29, got {value!r}")
    return day


def open_vintages(data: ReleaseData, series: Described, folder: Path) -> Vintages:
    """The vintages that a job's [data] and [[series]] name; paths start from `folder`.

    Raises
    ------
    PanelError, StoreError, ConfigurationError
        What cannot be read, is no table of releases, or names series that are not there.
    """
    if data.monthly is not None:
        return _fred(data, series, folder)
    if data.store is not None:
        if series:
            raise ConfigurationError("[[series]] describes a table; a saved store describes its own series")
        store = VintageStore.load(folder / data.store)
    else:
        store = _releases(data, series, folder / str(data.releases))
    labels = tuple(store.series.tolist())
    _refuse_unknown(data.exclude, labels, "[data] exclude")
    return Vintages(
        source=store, dates=store.dates, series=labels, first=data.first, exclude=data.exclude
    )  # fmt: skip


def check_series(key: str, name: str | None, store: Vintages, panel: Panel, as_of: np.datetime64) -> None:
    """Refuse a series that is not there, before a model is fitted for it.

    Raises
    ------
    InsufficientDataError, ConfigurationError, PanelMismatchError
        No or hardly any value by that day; excluded; unknown.
    """
    labels = panel.assets.tolist()
    if name is not None and name in labels:
        seen = int(np.isfinite(panel.wide()[:, labels.index(name)]).sum())
        if seen < _FEWEST:
            raise InsufficientDataError(
                f"[nowcast] {key} {name!r} has {count(seen, 'value')} by {as_of}, expected {_FEWEST} or more "
                "to learn from: choose a later as_of or another series"
            )
    if name is None or name in labels:
        return
    if name in store.series and name not in store.exclude:
        raise InsufficientDataError(
            f"[nowcast] {key} {name!r} has no value by {as_of}: choose a later as_of or another series"
        )
    if name in store.exclude:
        raise ConfigurationError(f"[nowcast] {key} {name!r} is excluded by [data] exclude: leave it in")
    known = [label for label in store.series if label not in store.exclude]
    raise PanelMismatchError(
        f"[nowcast] {key}: there is no series {name!r} in the data, they have "
        f"{first_offenders(map(repr, known), 6)}: name it as the data do"
    )


# ------------------------------------------------------------------------------------ tables


def _releases(data: ReleaseData, series: Described, file: Path) -> VintageStore:
    with named(f"[data] {data.releases}"):
        frame = _table(file)
        info = {
            name: {key: each for key, each in known.items() if key != "code"}
            for name, known in series.items()
        }
        codes = {name: known["code"] for name, known in series.items() if "code" in known}
        return VintageStore.from_long(
            frame, series=data.series, period=data.period, release=data.release, value=data.value,
            frequency=data.frequency, info=info, codes=codes,
        )  # fmt: skip


def _table(file: Path) -> Any:
    import polars as pl

    if not file.is_file():
        raise PanelError(f"there is no such file in {str(file.parent)!r}")
    try:
        if file.suffix.lower() == ".parquet":
            return pl.read_parquet(file)
        if file.suffix.lower() == ".csv":
            return pl.read_csv(file, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise PanelError(f"the file cannot be read: {error}") from None
    raise PanelError(f"expected a .csv or .parquet file, got the ending {file.suffix!r}")


# ------------------------------------------------------------------------------------ FRED


def _fred(data: ReleaseData, series: Described, folder: Path) -> Vintages:
    monthly = _paths(data.monthly, folder, "[data] monthly")
    quarterly = [] if data.quarterly is None else _paths(data.quarterly, folder, "[data] quarterly")
    for name, given in series.items():
        if "frequency" in given:
            raise ConfigurationError(
                f"[[series]] {name!r}: files of FRED say how often a series comes, leave frequency out"
            )
    with named("[data]"):
        source = FredVintages.from_files(
            monthly,
            quarterly,
            quarterly_series=data.quarterly_series,
            outlier_threshold=data.outlier_threshold,
        )
        heads = {path: _head(path, "M") for path in monthly}
        heads |= {path: _head(path, "Q", data.quarterly_series) for path in quarterly}
    if not source.dates:
        raise PanelError(
            f"[data] quarterly begins with {source.quarterly[0][0]}, after the last of monthly, "
            f"{source.monthly[-1][0]}: add an earlier file"
        )
    labels = tuple(dict.fromkeys(name for names, _ in heads.values() for name in names))
    for where, stated in (("[[series]]", tuple(series)), ("[data] exclude", data.exclude)):
        _refuse_unknown(stated, labels, where)
    codes = _codes(data, series, folder)
    for path, (names, own) in heads.items():
        stated = {name for name, code in zip(names, own, strict=False) if code or path not in quarterly}
        lacking = [name for name in names if name not in stated and name not in codes]
        if lacking:
            raise PanelError(
                f"[data] {path.name!r} states no transformation code for {len(lacking)} series "
                f"({first_offenders(map(repr, lacking))}): name a file that states it with codes = ..., give "
                "the [[series]] its code, or exclude it"
            )
    return Vintages(
        source=replace(source, codes=codes or None),
        dates=source.dates,
        series=labels,
        described={
            name: {key: each for key, each in given.items() if key != "code"}
            for name, given in series.items()
        },
        first=data.first,
        exclude=data.exclude,
    )


def _head(
    path: Path, expected: Frequency, wanted: Sequence[str] | None = None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and codes of a file's (wanted) series."""
    names, codes, frequency = read_fred_head(path)
    if frequency != expected:
        raise PanelError(f"{path.name!r} is of frequency {frequency!r}, expected {expected!r} here")
    if wanted is None:
        return names, codes
    if unknown := [name for name in wanted if name not in names]:
        raise PanelError(f"{path.name!r} has no series {first_offenders(map(repr, unknown))}")
    kept = [k for k, name in enumerate(names) if name in set(wanted)]
    return tuple(names[k] for k in kept), tuple(codes[k] for k in kept if k < len(codes))


def _codes(data: ReleaseData, series: Described, folder: Path) -> dict[str, int | str]:
    """Codes that go before a file's own: those of `codes`, and before them those of [[series]]."""
    codes: dict[str, int | str] = {}
    if data.codes is not None:
        with named("[data] codes"):
            names, stated, _ = read_fred_head(folder / data.codes)
            if not stated:
                raise PanelError(f"{data.codes!r} has no row 'Transform:'")
            codes |= {name: code for name, code in zip(names, stated, strict=False) if code}
    codes |= {name: given["code"] for name, given in series.items() if "code" in given}
    # series left out are read before they are, and may have no code, or levels that theirs cannot take
    return codes | dict.fromkeys(data.exclude, 1)


def _paths(stated: str | Sequence[str] | None, folder: Path, where: str) -> list[Path]:
    """Files that paths and patterns name."""
    found: list[Path] = []
    for pattern in (stated,) if isinstance(stated, str) else stated or ():
        if glob.has_magic(pattern) and not (folder / pattern).is_file():
            matched = sorted(glob.glob(pattern, root_dir=folder))
            if not matched:
                raise PanelError(f"{where}: no file in {str(folder)!r} matches {pattern!r}")
            found += [folder / each for each in matched]
        elif (folder / pattern).is_file():
            found.append(folder / pattern)
        else:
            raise PanelError(f"{where}: there is no file {pattern!r} in {str(folder)!r}")
    if not found:
        raise ConfigurationError(f"{where} names no file")
    return found


def _refuse_unknown(names: Sequence[str], labels: Sequence[Any], where: str) -> None:
    if unknown := [name for name in names if name not in set(labels)]:
        raise PanelError(
            f"{where} names {first_offenders(map(repr, unknown))}, which the data do not have: they have "
            f"{first_offenders(map(repr, labels))}"
        )


def _describe(panel: Panel, described: Described) -> Panel:
    """A vintage whose series carry what the job says about them; a note on those that it lacks."""
    labels, info = panel.assets.tolist(), panel.series
    if not described or info is None:
        return panel
    columns = {
        name: tuple(
            described.get(label, {}).get(name, own) for label, own in zip(labels, column, strict=True)
        )
        for name, column in ((each.name, getattr(info, each.name)) for each in fields(info))
    }
    absent = [name for name in described if name not in labels]
    notes = panel.notes
    if absent:
        notes = (*notes, f"{len(absent)} series of the job not in this vintage: {', '.join(absent)}")
    return replace(panel, series=replace(info, **columns), notes=notes)
