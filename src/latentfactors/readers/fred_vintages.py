"""Vintages of FRED-MD and FRED-QD: what was published when, and both frequencies in one panel.

| name                    | gives                                                                     |
|-------------------------|---------------------------------------------------------------------------|
| `mixed_frequency_panel` | FRED-MD with some series of FRED-QD, a quarter's value on its last month  |
| `FredVintages`          | the source that `VintageSplits` asks for what was published by a date     |

Files are posted at the end of the month in their name, so a vintage is known on that month's last day and not
before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.panel import Panel
from latentfactors.periods import first_offenders, parse_times
from latentfactors.readers.fred import Codes, fred_panel, vintage_of

__all__ = ["FredVintages", "mixed_frequency_panel"]


def mixed_frequency_panel(
    monthly: str | Path,
    quarterly: str | Path,
    *,
    quarterly_series: Sequence[str] = ("GDPC1",),
    transform: bool = True,
    outlier_threshold: float | None = None,
    codes: Codes | None = None,
) -> Panel:
    """FRED-MD with some series of FRED-QD in one monthly panel.

    A quarter's value stands on the quarter's last month and is NaN in the other two; `panel.series` says
    which series are quarterly and how a quarter sums up its months. Quarterly series are
    transformed at their own frequency before they are joined: 5 is growth from quarter to quarter.

    Parameters
    ----------
    monthly, quarterly
        Files of FRED-MD and FRED-QD, best of one vintage.
    quarterly_series
        Series of FRED-QD, in order; GDPC1 is real GDP.
    transform, outlier_threshold, codes
        As in `fred_panel`, for both files.

    Raises
    ------
    PanelError
        As in `fred_panel`; files of another frequency; unknown series, or ones that FRED-MD has too.
    """
    options: dict[str, Any] = {"transform": transform, "outlier_threshold": outlier_threshold, "codes": codes}
    if isinstance(quarterly_series, str) or not quarterly_series:
        raise ConfigurationError(
            f"quarterly_series must be a list of one series or more, got {quarterly_series!r}"
        )
    # the other series of FRED-QD need no code
    panels = {
        "M": fred_panel(monthly, **options),
        "Q": fred_panel(quarterly, series=quarterly_series, **options),
    }
    for frequency, path in (("M", monthly), ("Q", quarterly)):
        if panels[frequency].frequency != frequency:
            raise PanelError(f"{str(path)!r}: expected periods of frequency {frequency!r} here")
    available, taken = set(panels["Q"].assets.tolist()), set(panels["M"].assets.tolist())
    # all of a series' cells may be empty, or taken for outliers
    if unknown := [name for name in quarterly_series if name not in available]:
        raise PanelError(f"{str(quarterly)!r} has no values of {first_offenders(map(repr, unknown))}")
    if twice := [name for name in quarterly_series if name in taken]:
        raise PanelError(
            f"{first_offenders(map(repr, twice))} are monthly series of {str(monthly)!r} already"
        )
    plain = {key: replace(panel, transforms=()) for key, panel in panels.items()}
    joined = Panel.join_frequencies(plain["M"], plain["Q"].select(list(quarterly_series)))
    notes = [f"{key}: {note}" for key, panel in panels.items() for note in panel.notes]
    return replace(joined, transforms=panels["M"].transforms, notes=(*joined.notes, *notes))


@dataclass(frozen=True, kw_only=True)
class FredVintages:
    """Vintages of FRED-MD, with series of FRED-QD or without: the source of a real-time walk-forward.

    Files are read when they are asked for, so a run of decades costs no memory and workers read their own.

    Parameters
    ----------
    monthly, quarterly
        (day of publication, path) in order of time. Build them with `from_files`.
    quarterly_series, transform, outlier_threshold, codes
        As in `mixed_frequency_panel`.

    Examples
    --------
    >>> source = FredVintages.from_files(["md/2023-04.csv", "md/2023-05.csv"])
    >>> [str(date) for date in source.dates]
    ['2023-04-30', '2023-05-31']

    With files there: `walk_forward(predictor, source.as_of(last), VintageSplits(source, source.dates))`.
    """

    monthly: tuple[tuple[np.datetime64, str], ...]
    quarterly: tuple[tuple[np.datetime64, str], ...] = ()
    quarterly_series: tuple[str, ...] = ("GDPC1",)
    transform: bool = True
    outlier_threshold: float | None = None
    codes: Codes | None = None

    @classmethod
    def from_files(
        cls,
        monthly: Iterable[str | Path],
        quarterly: Iterable[str | Path] = (),
        *,
        quarterly_series: Sequence[str] = ("GDPC1",),
        transform: bool = True,
        outlier_threshold: float | None = None,
        codes: Codes | None = None,
    ) -> FredVintages:
        """Vintages dated by the months in the names of their files.

        Raises
        ------
        PanelError
            A file whose name tells no month; two files of one month; no file.
        """
        return cls(
            monthly=_dated(monthly, "monthly"),
            quarterly=_dated(quarterly, "quarterly") if (quarterly := list(quarterly)) else (),
            quarterly_series=tuple(quarterly_series),
            transform=transform,
            outlier_threshold=outlier_threshold,
            codes=codes,
        )

    @property
    def dates(self) -> tuple[np.datetime64, ...]:
        """Days on which a monthly vintage came out, and (where asked for) a quarterly one was there."""
        first = self.quarterly[0][0] if self.quarterly else self.monthly[0][0]
        return tuple(date for date, _ in self.monthly if date >= first)

    def as_of(self, date: Any) -> Panel:
        """The newest vintage published by a date, with its ragged edge.

        Raises
        ------
        PanelError
            Nothing was published by then.
        """
        day = parse_times([date], name="date")[0]
        options: dict[str, Any] = {
            "transform": self.transform,
            "outlier_threshold": self.outlier_threshold,
            "codes": self.codes,
        }
        monthly = _newest(self.monthly, day)
        if not self.quarterly:
            return fred_panel(monthly, **options)
        return mixed_frequency_panel(
            monthly, _newest(self.quarterly, day), quarterly_series=self.quarterly_series, **options
        )


# ------------------------------------------------------------------------------------------- the parts


def _dated(paths: Iterable[str | Path], what: str) -> tuple[tuple[np.datetime64, str], ...]:
    found: dict[np.datetime64, str] = {}
    for path in paths:
        vintage = vintage_of(path)
        if vintage is None:
            raise PanelError(
                f"the name of {str(path)!r} tells no vintage: name it like 2023-04.csv, or give FredVintages "
                "its (date, path) pairs"
            )
        if vintage in found:
            raise PanelError(f"{found[vintage]!r} and {str(path)!r} are {what} vintages of one month")
        found[vintage] = str(path)
    if not found:
        raise PanelError(f"no {what} vintage was given")
    return tuple(sorted(found.items()))


def _newest(vintages: tuple[tuple[np.datetime64, str], ...], day: np.datetime64) -> str:
    published = [path for date, path in vintages if date <= day]
    if not published:
        raise PanelError(f"no vintage was published by {day}, the first came on {vintages[0][0]}")
    return published[-1]
