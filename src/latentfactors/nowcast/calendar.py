"""When which value comes out: release dates by table, or by publication lag."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.panel import Panel
from latentfactors.periods import Frequency, check_frequency, first_offenders, parse_times, period_end, shift
from latentfactors.sources import FrameSource, check_columns, read_dates, read_labels

if TYPE_CHECKING:
    from narwhals.typing import IntoDataFrame

__all__ = ["Release", "ReleaseCalendar"]

DayArray = npt.NDArray[np.datetime64]
_LARGEST_LAG = 3660


@dataclass(frozen=True, order=True)
class Release:
    """One value coming out.

    Attributes
    ----------
    date : datetime64[D] of the release
    series : label
    period : datetime64[D], last day of the reference period
    """

    date: np.datetime64
    series: Any
    period: np.datetime64


@dataclass(frozen=True, kw_only=True)
class ReleaseCalendar:
    """Release dates of series by reference period.

    Parameters
    ----------
    lags
        Series -> days from the end of the reference period to the release; below 0 for surveys that come out
        while the period runs. They hold for periods that `dates` does not name.
    dates
        (series, last day of the period) -> release date.
    frequency
        Series -> "M", "Q", "W", "B" or "D", the spacing of its periods; needed to say what comes next.

    Raises
    ------
    ConfigurationError
        Lags that are no whole numbers of days, or a series without a frequency.
    PanelError
        A period released before an earlier one of the same series, or before it begins.

    Examples
    --------
    >>> calendar = ReleaseCalendar(lags={"gdp": 30, "ip": 15}, frequency={"gdp": "Q", "ip": "M"})
    >>> str(calendar.release_date("gdp", "2020-03-31"))
    '2020-04-30'
    >>> [f"{each.date} {each.series}" for each in calendar.between("2020-04-01", "2020-04-30")]
    ['2020-04-15 ip', '2020-04-30 gdp']
    """

    lags: Mapping[Any, int] = field(default_factory=dict)
    dates: Mapping[tuple[Any, np.datetime64], np.datetime64] = field(default_factory=dict)
    frequency: Mapping[Any, Frequency]

    def __post_init__(self) -> None:
        for series, lag in self.lags.items():
            whole = isinstance(lag, int | np.integer) and not isinstance(lag, bool)
            if not whole or abs(lag) > _LARGEST_LAG:
                raise ConfigurationError(
                    f"publication lags are whole numbers of days, at most {_LARGEST_LAG}, got {lag!r} for "
                    f"{series!r}"
                )
        lacking = sorted(
            {str(s) for s in (*self.lags, *(s for s, _ in self.dates)) if s not in self.frequency}
        )
        if lacking:
            raise ConfigurationError(
                f"no frequency for {first_offenders(map(repr, lacking))}: give frequency={{series: 'M'}}"
            )
        for each in self.frequency.values():
            if check_frequency(each) is None:
                raise ConfigurationError("a series of a calendar needs a frequency, got None")
        self._check_order()

    def _check_order(self) -> None:
        by_series: dict[Any, list[tuple[np.datetime64, np.datetime64]]] = {}
        for (series, period), date in self.dates.items():
            by_series.setdefault(series, []).append((period, date))
        for series, pairs in by_series.items():
            pairs.sort()
            for (period, date), (later, next_date) in pairwise(pairs):
                if next_date < date:
                    raise PanelError(
                        f"releases of {series!r} are out of order: {period} comes out on {date} and {later} "
                        f"on {next_date}, before it: correct the calendar"
                    )
            for period, date in pairs:
                begin = shift(np.array([period]), -1, self.frequency[series])[0]
                if date <= begin:
                    raise PanelError(
                        f"{series!r} of {period} cannot come out on {date}, before the period begins: are "
                        "the columns of period and release swapped?"
                    )

    # ---------------------------------------------------------------- constructors

    @classmethod
    def from_frame(
        cls,
        frame: IntoDataFrame,
        *,
        series: str,
        period: str,
        release: str,
        frequency: Mapping[Any, Frequency],
        lags: Mapping[Any, int] | None = None,
    ) -> ReleaseCalendar:
        """A calendar from a table with one line per release.

        Parameters
        ----------
        frame
            pandas, polars or pyarrow.
        series, period, release
            Its columns. Any day of the period may stand for it.
        frequency, lags
            As in the class.

        Raises
        ------
        PanelError, ConfigurationError
            As in the class; two lines of one series and period.
        """
        source = FrameSource(frame)
        check_columns(source.names, (series, period, release))
        names, codes = read_labels(source.column(series), series)
        if (codes < 0).any():
            raise PanelError(f"column {series!r} has lines without a series: drop or repair them")
        labels = names[codes]
        periods, releases = (read_dates(source.column(name), name) for name in (period, release))
        dates: dict[tuple[Any, np.datetime64], np.datetime64] = {}
        for label, day, date in zip(labels.tolist(), periods, releases, strict=True):
            key = (label, period_end(np.array([day]), frequency.get(label))[0])
            if key in dates:
                raise PanelError(
                    f"{label!r} of {key[1]} has two release dates, {dates[key]} and {date}: a calendar holds "
                    "first releases; revisions belong into a VintageStore"
                )
            dates[key] = date
        return cls(dates=dates, lags=dict(lags or {}), frequency=dict(frequency))

    @classmethod
    def from_panel(cls, panel: Panel) -> ReleaseCalendar:
        """Publication lags and frequencies of a panel's series information.

        Raises
        ------
        ConfigurationError
            A panel without it.
        """
        if panel.series is None or panel.frequency is None:
            raise ConfigurationError(
                "the panel has no series information with publication lags, or no frequency: build it with "
                "series=SeriesInfo(frequency=..., publication_lag=...)"
            )
        labels = panel.assets.tolist()
        return cls(
            lags=dict(zip(labels, panel.series.publication_lag, strict=True)),
            frequency=dict(zip(labels, panel.series.frequency, strict=True)),
        )

    # ---------------------------------------------------------------- questions

    @property
    def series(self) -> tuple[Any, ...]:
        """All series that it names."""
        return tuple(dict.fromkeys([*self.lags, *(label for label, _ in self.dates)]))

    def release_date(self, series: Any, period: Any) -> np.datetime64:
        """When the value of a period comes out.

        Raises
        ------
        ConfigurationError
            A series that the calendar does not know, or a period without a date where no lag is stated.
        """
        if series not in self.frequency:
            raise ConfigurationError(
                f"the calendar has no series {series!r}, it has {first_offenders(map(repr, self.series))}"
            )
        end = period_end(parse_times([period], name="period"), self.frequency[series])[0]
        if (series, end) in self.dates:
            return self.dates[series, end]
        if series not in self.lags:
            raise ConfigurationError(
                f"the calendar has no release date of {series!r} for {end}, and no lag: add one of both"
            )
        return end + np.timedelta64(int(self.lags[series]), "D")

    def between(self, after: Any, until: Any, series: Iterable[Any] | None = None) -> tuple[Release, ...]:
        """What comes out from `after` to `until`, both included, in order of time."""
        first, last = parse_times([after, until], name="date")
        found: set[Release] = set()
        wanted = set(self.series if series is None else series)
        for (label, period), date in self.dates.items():
            if label in wanted and first <= date <= last:
                found.add(Release(date, label, period))
        for label in wanted & set(self.lags):
            own, lag = self.frequency[label], np.timedelta64(int(self.lags[label]), "D")
            for period in _periods_between(first - lag, last - lag, own):
                if (label, period) not in self.dates:
                    found.add(Release(period + lag, label, period))
        return tuple(sorted(found, key=lambda each: (each.date, str(each.series), each.period)))


def _periods_between(first: np.datetime64, last: np.datetime64, frequency: Frequency) -> DayArray:
    """Periods whose last day lies in a span."""
    days = np.arange(first, last + np.timedelta64(1, "D"))
    if frequency == "B":
        return days[np.is_busday(days)]
    return days[period_end(days, frequency) == days]
