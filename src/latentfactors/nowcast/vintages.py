"""What was known when: every release of every cell, and the panel of any day.

    releases        (series, reference period, release date, value), revisions as further lines
    as_of(date)     the last release of every cell up to the date, then the transformations, series by series
                    at their own frequency: a panel with its ragged edge

Nothing released after the date enters, neither a value nor a transformation made with one. A missing value in
a release withdraws the cell from that day on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.estimator import freeze
from latentfactors.nowcast.calendar import ReleaseCalendar
from latentfactors.nowcast.release_tables import (
    collect_info,
    info_table,
    named_codes,
    observed_cells,
    refuse_disorder,
    refuse_early,
    refuse_merged_periods,
    sparse_series,
)
from latentfactors.panel import Panel
from latentfactors.periods import Frequency, first_offenders, parse_times, period_end, period_range
from latentfactors.rows import SeriesInfo
from latentfactors.sources import FrameSource, check_columns, read_dates, read_labels, read_numbers
from latentfactors.transforms import transform_series, transformation_named

if TYPE_CHECKING:
    from narwhals.typing import IntoDataFrame

__all__ = ["VintageStore"]

_TRANSFORMED = "transformed vintage by vintage"


@dataclass(frozen=True, eq=False, kw_only=True)
class VintageStore:
    """Releases of N series; satisfies `VintageSource`. Build it with a constructor below.

    Parameters
    ----------
    series : (N,) unique labels
    info
        `SeriesInfo` of the series: frequency, aggregation, group.
    frequency
        Of the panels: "M" also holds quarterly series, whose values stand in a quarter's last month.
    code, period, release, value : (n,)
        Position of the series, last day of the reference period, release date, value; sorted by release date.
    codes : N transformations, or ()
        Codes 1..7 or names that `as_of` applies to the values; () for values used as they are.
    transforms
        Preparation that the values went through before they came here.

    Raises
    ------
    PanelError
        A cell released twice on one day, a release before its period begins, periods that do not end a period
        of the series' frequency, a quarterly series in panels that are not monthly.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {
    ...         "series": ["ip", "ip", "ip"],
    ...         "month": ["2020-01-31", "2020-01-31", "2020-02-29"],
    ...         "out": ["2020-02-15", "2020-03-16", "2020-03-16"],
    ...         "value": [1.0, 1.2, 0.5],
    ...     }
    ... )
    >>> store = VintageStore.from_long(table, series="series", period="month", release="out", value="value")
    >>> store.as_of("2020-03-15").values, store.as_of("2020-03-16").values
    (array([1.]), array([1.2, 0.5]))
    """

    series: npt.NDArray[Any]
    info: SeriesInfo
    frequency: Frequency
    code: npt.NDArray[np.int64]
    period: npt.NDArray[Any]
    release: npt.NDArray[Any]
    value: npt.NDArray[np.float64]
    codes: tuple[str, ...] = ()
    transforms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        freeze(self)
        n = self.series.size
        if len(self.info.frequency) != n or len(self.codes) not in (0, n):
            raise PanelError(
                f"{n} series need information and codes of {n}, got {len(self.info.frequency)} and "
                f"{len(self.codes)}"
            )
        object.__setattr__(self, "codes", tuple(transformation_named(each) for each in self.codes))
        for label, own in zip(self.series.tolist(), self.info.frequency, strict=True):
            if own != self.frequency and (self.frequency, own) != ("M", "Q"):
                raise PanelError(
                    f"series {label!r} is of frequency {own!r} in panels of {self.frequency!r}: quarterly "
                    "series in monthly panels are supported, aggregate others first"
                )
        self._check_cells()

    def _check_cells(self) -> None:
        """No cell twice on one day, no value before its period begins, all periods period ends."""
        for position, own in enumerate(self.info.frequency):
            mine = self.code == position
            periods, releases = self.period[mine], self.release[mine]
            if (period_end(periods, own) != periods).any():
                wrong = periods[period_end(periods, own) != periods]
                raise PanelError(
                    f"series {self.series.tolist()[position]!r} of frequency {own!r} "
                    f"has a value in {wrong[0]}, which ends no such period: is its frequency labelled right?"
                )
            refuse_early(self.series.tolist()[position], periods, releases, own)
        order = np.lexsort((self.release, self.period, self.code))
        keys = [each[order] for each in (self.code, self.period, self.release)]
        twice = np.logical_and.reduce([each[1:] == each[:-1] for each in keys])
        if twice.any():
            code, period, release = (each[1:][twice][0] for each in keys)
            raise PanelError(
                f"series {self.series.tolist()[code]!r} of {period} has two releases on {release}: keep the "
                "one that counted at the end of the day"
            )

    # ---------------------------------------------------------------- constructors

    @classmethod
    def from_long(
        cls,
        frame: IntoDataFrame,
        *,
        series: str,
        period: str,
        release: str,
        value: str,
        frequency: Frequency = "M",
        info: Mapping[Any, Mapping[str, Any]] | None = None,
        codes: Mapping[Any, str | int] | None = None,
    ) -> VintageStore:
        """A store from an ALFRED-like table: one line per release of a cell, revisions as further lines.

        Parameters
        ----------
        frame
            pandas, polars or pyarrow, the lines of each cell in order of release.
        series, period, release, value
            Its columns. Any day of a period may stand for it; an empty value withdraws the cell.
        frequency
            Of the panels.
        info
            Series -> fields of `SeriesInfo`, such as {"gdp": {"frequency": "Q", "aggregation":
            "mariano_murasawa"}}; series not named are of the panels' frequency.
        codes
            Series -> transformation; series not named stay levels.

        Raises
        ------
        PanelError
            As in the class; lines of a cell out of order; missing columns; text among numbers.
        """
        source = FrameSource(frame)
        check_columns(source.names, (series, period, release, value))
        labels, code = read_labels(source.column(series), series)
        if (code < 0).any() or not code.size:
            raise PanelError(f"column {series!r} must name a series in every line, and there must be lines")
        days, dates = (read_dates(source.column(name), name) for name in (period, release))
        numbers = read_numbers(source.column(value), value)
        table = info_table(labels, frequency, info or {})
        ends = days.copy()
        for position, own in enumerate(table.frequency):
            ends[code == position] = period_end(days[code == position], own)
        for position, own in enumerate(table.frequency):
            mine = code == position
            refuse_early(labels.tolist()[position], ends[mine], dates[mine], own)
        refuse_merged_periods(labels, code, days, ends, table.frequency)
        refuse_disorder(labels, code, ends, dates)
        order = np.argsort(dates, kind="stable")
        chosen = named_codes(labels, codes)
        return cls(
            series=labels, info=table, frequency=frequency, code=code[order], period=ends[order],
            release=dates[order], value=numbers[order], codes=chosen,
        )  # fmt: skip

    @classmethod
    def from_calendar(cls, panel: Panel, calendar: ReleaseCalendar | None = None) -> VintageStore:
        """Pseudo real time: a panel's final values, each released on its date of a calendar.

        Revisions are those of nobody: what a forecaster saw was an earlier estimate. None takes the
        publication lags of the panel's series information.

        Raises
        ------
        ConfigurationError, PanelError
            A series that the calendar lacks; a panel without frequency.
        """
        calendar = ReleaseCalendar.from_panel(panel) if calendar is None else calendar
        if panel.frequency is None or panel.times.dtype.kind != "M":
            raise ConfigurationError(
                "releases need dates: build the panel with dated periods and a frequency"
            )
        rows = np.flatnonzero(panel.observed)
        code = panel.asset_codes[rows].astype(np.int64)
        period = panel.times[panel.index.period_codes[rows]]
        labels = panel.assets.tolist()
        release = np.array(
            [calendar.release_date(labels[c], p) for c, p in zip(code.tolist(), period, strict=True)],
            dtype="datetime64[D]",
        )
        order = np.argsort(release, kind="stable")
        info = panel.series or SeriesInfo(frequency=(panel.frequency,) * panel.n_assets)
        return cls(
            series=panel.assets, info=info, frequency=panel.frequency, code=code[order],
            period=period[order], release=release[order], value=panel.values[rows][order],
            transforms=panel.transforms,
        )  # fmt: skip

    @classmethod
    def from_vintages(
        cls, vintages: Iterable[tuple[Any, Panel]], *, codes: Mapping[Any, str | int] | None = None
    ) -> VintageStore:
        """A store from whole panels and the days they were published, in order of time.

        Only what changed is kept. A series that a later panel lacks is withdrawn on its day.

        Raises
        ------
        PanelError
            Dates out of order; panels of several frequencies or preparations; a series whose information
            changes.
        """
        steps, last, former = list(vintages), None, {}
        if not steps:
            raise PanelError("no vintage was given")
        first = steps[0][1]
        fields: dict[Any, tuple[Any, ...]] = {}
        lines: list[tuple[Any, Any, Any, float]] = []
        for stated, panel in steps:
            date = parse_times([stated], name="date")[0]
            if last is not None and date <= last:
                raise PanelError(
                    f"the vintage of {date} comes after that of {last}: give them in order, once each"
                )
            last = date
            if panel.frequency is None or (panel.frequency, panel.transforms) != (
                first.frequency,
                first.transforms,
            ):
                raise PanelError(
                    f"the vintage of {date} has frequency {panel.frequency!r} and preparation "
                    f"{panel.transforms}, the first {first.frequency!r} and {first.transforms}"
                )
            collect_info(panel, fields, date)
            known = observed_cells(panel)
            for key in former.keys() | known.keys():
                value = known.get(key, np.nan)
                if key not in former or (
                    former[key] != value and not (np.isnan(former[key]) and np.isnan(value))
                ):
                    lines.append((*key, date, value))
            former = {**dict.fromkeys(former, np.nan), **known}
        labels = np.array(list(fields), dtype=first.assets.dtype if first.assets.dtype.kind != "U" else None)
        position = {label: k for k, label in enumerate(labels.tolist())}
        lines.sort(key=lambda line: (line[2], position[line[0]], line[1]))
        names = ("frequency", "transformation", "aggregation", "publication_lag", "group", "description")
        columns = dict(zip(names, zip(*fields.values(), strict=True), strict=True))
        frequency = first.frequency
        assert frequency is not None
        return cls(
            series=labels,
            info=SeriesInfo(**columns),
            frequency=frequency,
            code=np.array([position[line[0]] for line in lines], dtype=np.int64),
            period=np.array([line[1] for line in lines], dtype="datetime64[D]"),
            release=np.array([line[2] for line in lines], dtype="datetime64[D]"),
            value=np.array([line[3] for line in lines]),
            codes=named_codes(labels, codes),
            transforms=first.transforms,
        )

    # ---------------------------------------------------------------- questions

    @property
    def dates(self) -> tuple[np.datetime64, ...]:
        """Days on which something came out."""
        return tuple(np.unique(self.release))

    def as_of(self, date: Any) -> Panel:
        """The panel of everything released by a date, with its ragged edge.

        Raises
        ------
        PanelError
            Nothing was released by then; a level that its transformation cannot take.
        """
        day = parse_times([date], name="date")[0]
        stop = int(np.searchsorted(self.release, day, side="right"))
        code, period, value = self.code[:stop], self.period[:stop], self.value[:stop]
        seen = np.isfinite(value)
        if not seen.any():
            first = f", the first on {self.release[0]}" if self.release.size else ""
            raise PanelError(f"nothing was released by {day}{first}")
        times = period_range(period[seen].min(), period[seen].max(), self.frequency) if self.frequency in (
            "M", "Q", "W",
        ) else np.unique(period[seen])  # fmt: skip
        inside = (period >= times[0]) & (period <= times[-1])
        wide = np.full((times.size, self.series.size), np.nan)
        # lines are in order of release, and of several assignments to one cell the last one stands
        wide[np.searchsorted(times, period[inside]), code[inside]] = value[inside]
        notes = [f"vintage of {day}", *sparse_series(wide, self.series, self.info.frequency, self.frequency)]
        info = self.info
        if self.codes:
            wide, info = self._transformed(wide, times), replace(self.info, transformation=self.codes)
        empty = ~np.logical_or.reduce(np.isfinite(wide), axis=0)
        if empty.all():
            raise PanelError(f"no series has a transformed value by {day}")
        if empty.any():
            names = first_offenders(map(repr, self.series[empty].tolist()), 6)
            notes.append(f"{int(empty.sum())} series without any value by then left out ({names})")
        kept = np.flatnonzero(~empty)
        panel = Panel.from_wide(
            wide[:, kept], universe="all", times=times, assets=self.series[kept], frequency=self.frequency,
            value_kind="series", series=info.take(kept),
        )  # fmt: skip
        transforms = (*self.transforms, _TRANSFORMED) if self.codes else self.transforms
        return replace(panel, transforms=transforms, notes=(*panel.notes, *notes))

    def _transformed(self, wide: npt.NDArray[np.float64], times: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        out = np.full_like(wide, np.nan)
        quarter_ends = np.flatnonzero(period_end(times, "Q") == times)
        for j, code in enumerate(self.codes):
            low = self.frequency == "M" and self.info.frequency[j] == "Q"
            rows = quarter_ends if low else np.arange(times.size)
            try:
                out[rows, j] = transform_series(wide[rows, j], code)
            except PanelError as error:
                raise PanelError(f"series {self.series.tolist()[j]!r}: {error}") from None
        return out

    def releases(self, after: Any, until: Any) -> dict[str, npt.NDArray[Any]]:
        """Lines released after one day and until another: series, period, release, value, revision (bool)."""
        first, last = parse_times([after, until], name="date")
        begin, stop = np.searchsorted(self.release, [first, last], side="right")
        lines = slice(int(begin), int(stop))
        earlier = set(
            zip(self.code[: lines.start].tolist(), self.period[: lines.start].tolist(), strict=True)
        )
        keys = zip(self.code[lines].tolist(), self.period[lines].tolist(), strict=True)
        return {
            "series": self.series[self.code[lines]],
            "period": self.period[lines],
            "release": self.release[lines],
            "value": self.value[lines],
            "revision": np.array([key in earlier for key in keys], dtype=bool),
        }

    def append(self, later: VintageStore) -> VintageStore:
        """The store with the releases of a later one.

        Raises
        ------
        PanelError
            A release not after this store's last; other series, frequencies or transformations.
        """
        same = np.array_equal(self.series, later.series) and asdict(self.info) == asdict(later.info)
        if not same or (self.codes, self.frequency) != (later.codes, later.frequency):
            raise PanelError("the later store must hold the same series, frequencies and transformations")
        if later.release.size and later.release[0] <= self.release[-1]:
            raise PanelError(
                f"the store ends on {self.release[-1]} and the releases to add begin on {later.release[0]}: "
                "a vintage is never changed after the fact"
            )
        columns = {
            name: np.concatenate([getattr(self, name), getattr(later, name)])
            for name in ("code", "period", "release", "value")
        }
        return replace(self, **columns)

    # ---------------------------------------------------------------- files

    def save(self, directory: str | Path) -> Path:
        """Write releases.parquet and vintages.json; `load` gives the store back exactly."""
        from latentfactors.nowcast.files import write_store

        return write_store(self, Path(directory))

    @classmethod
    def load(cls, directory: str | Path) -> VintageStore:
        """Read what `save` wrote.

        Raises
        ------
        StoreError
            Missing, damaged or foreign files.
        """
        from latentfactors.nowcast.files import read_store

        return read_store(Path(directory))

    def __repr__(self) -> str:
        span = f", {self.release[0]}..{self.release[-1]}" if self.release.size else ""
        return f"VintageStore({self.series.size} series, {self.release.size} releases{span})"
