"""Calendar arithmetic: period ends, neighbours, spacing, frequency.

A period is named by its last day (`datetime64[D]`), or by an integer when time is only an order.

| frequency | period                | end                    | next period of a known one     |
|-----------|-----------------------|------------------------|--------------------------------|
| "M"       | calendar month        | its last day           | the next month                 |
| "Q"       | calendar quarter      | its last day           | the next quarter               |
| "W"       | ISO week, Monday on   | its Sunday             | seven days later               |
| "B"       | the data's own days   | the day itself         | the next weekday               |
| "D"       | the data's own days   | the day itself         | the next day                   |
| None      | the data's own stamps | the stamp itself       | the next integer, else unknown |

M, Q and W follow the calendar, so a month without data is an empty period. B and D follow the data: a
holiday is no gap.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from latentfactors.errors import FrequencyError, PanelError

__all__ = [
    "CALENDAR_FREQUENCIES",
    "Frequency",
    "as_array",
    "as_int64",
    "check_frequency",
    "first_offenders",
    "follows",
    "infer_frequency",
    "is_date",
    "is_date_text",
    "neighbour",
    "parse_texts",
    "parse_times",
    "period_end",
    "period_range",
    "shift",
]

Frequency = Literal["M", "Q", "W", "B", "D"]
CALENDAR_FREQUENCIES: tuple[Frequency, ...] = ("M", "Q", "W")
# Exchanges close for up to nine days (the long Chinese holidays); a longer silence is a gap.
_LONGEST_HOLIDAY = 10
# What may lie between training and a panel that continues it without being noticed.
_LONGEST_WEEKEND = 5
# Shortest and longest distance in days of two dates that stand for neighbouring periods.
_CLEAN_GAPS: dict[Frequency, tuple[int, int]] = {"M": (25, 37), "Q": (80, 104), "W": (4, 10)}
_DAYS = np.dtype("datetime64[D]")
# NumPy also reads "202001" (as a year), "today" and "7" as dates; only what this pattern finds is passed on.
_ISO_DATE = re.compile(
    r"(\d{4}-\d{2}(?:-\d{2})?)"  # the day, or the month
    r"(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s?(?:Z|[+-]\d{2}:?\d{2})?)?"  # its clock and zone
)


def is_date(times: npt.NDArray[Any]) -> bool:
    """Whether an array holds dates (as opposed to integer periods)."""
    return times.dtype.kind == "M"


def first_offenders(items: Any, limit: int = 3) -> str:
    """The first few offenders of a check, for its message."""
    listed = [str(item) for item in islice(items, limit + 1)]
    return ", ".join(listed[:limit]) + (", ..." if len(listed) > limit else "")


def check_frequency(frequency: Any) -> Frequency | None:
    """Return `frequency` if it is one of the five or None.

    Raises
    ------
    FrequencyError
        For anything else.
    """
    if frequency is not None and frequency not in get_args(Frequency):
        raise FrequencyError(
            f"frequency must be one of {', '.join(map(repr, get_args(Frequency)))} or None, got {frequency!r}"
        )
    return frequency


def parse_times(raw: npt.ArrayLike, *, name: str = "time") -> npt.NDArray[Any]:
    """Read dates (or integer periods) from whatever an array-like holds.

    Parameters
    ----------
    raw
        Dates, datetimes, ISO strings (`2020-01`, `2020-01-31`), or integers that are plain counters.
    name
        The column's name, for messages.

    Returns
    -------
    (n,) datetime64[D] or int64

    Raises
    ------
    PanelError
        Missing or unparseable dates, and integers that look like calendar dates (202001, 20200131).
    """
    array = as_array(raw, repr(name))
    if array.ndim != 1:
        raise PanelError(f"{name!r} must be one-dimensional, got shape {array.shape}")
    if array.dtype.kind in "iu":
        _refuse_calendar_integers(array, name)
        return as_int64(array, name)
    if array.dtype.kind == "M":
        days = array.astype(_DAYS)
        _refuse_missing_dates(np.isnat(days), array, name)
        return days
    if array.dtype.kind in "OUT":
        texts = np.array([str(item) for item in array.tolist()], dtype=str)
        labels, codes = np.unique(texts, return_inverse=True)
        return parse_texts(labels, codes, name=name)
    raise PanelError(
        f"{name!r} must hold dates, ISO strings or integer periods, got {array.dtype}: "
        "convert the column to dates first (are the time and asset or value columns swapped?)"
    )


def _refuse_calendar_integers(array: npt.NDArray[Any], name: str) -> None:
    if array.size == 0:
        return
    low, high = int(array.min()), int(array.max())
    months = array % 100
    month_like = low >= 180001 and high <= 220012 and bool(np.all((months >= 1) & (months <= 12)))
    day_like = low >= 18000101 and high <= 22001231
    if month_like or day_like:
        pattern = "%Y%m" if month_like else "%Y%m%d"
        raise PanelError(
            f"{name!r} holds integers like {low}, which are calendar dates and not a running number of "
            f"periods: convert them first, with pandas "
            f"`pd.to_datetime(frame[{name!r}].astype(str), format={pattern!r})`"
        )


def parse_texts(
    labels: npt.NDArray[Any], codes: npt.NDArray[np.int64], *, name: str = "time"
) -> npt.NDArray[Any]:
    """The dates of lines that read `labels[codes]`: every distinct text is parsed once."""
    days = np.array([_day_of(text) for text in labels.tolist()], dtype=_DAYS)
    if np.isnat(days).any():
        _refuse_missing_dates(np.isnat(days)[codes], labels[codes], name)
    return days[codes]


def _refuse_missing_dates(missing: npt.NDArray[np.bool_], raw: npt.NDArray[Any], name: str) -> None:
    lines = np.flatnonzero(missing)
    if lines.size:
        raise PanelError(
            f"{name!r} has {lines.size:,} missing or unparseable dates, the first in row {lines[0]} "
            f"({str(raw[lines[0]])!r}): write them as 2020-01-31, or drop these rows "
            "(are the time and asset columns swapped?)"
        )


def _day_of(text: str) -> np.datetime64:
    """The calendar day that a text starts with, on its own clock and zone; NaT if it is no date."""
    found = _ISO_DATE.fullmatch(text.strip())
    try:
        return np.datetime64(found[1] if found else "NaT", "D")
    except ValueError:  # the 30th of February
        return np.datetime64("NaT", "D")


def is_date_text(text: str) -> bool:
    """Whether a text is an ISO date."""
    return not np.isnat(_day_of(text))


def as_array(raw: Any, name: str) -> npt.NDArray[Any]:
    """What NumPy makes of an argument; a ragged list is refused by name."""
    try:
        return np.asarray(raw)
    except ValueError as error:
        raise PanelError(f"{name} cannot be read as an array: {error}") from None


def as_int64(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.int64]:
    """A copy of an integer array as int64; unsigned numbers beyond its range are refused, not wrapped."""
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise PanelError(
            f"{name!r} holds {array.max()}, beyond the range of int64: convert the column to text"
        )
    return array.astype(np.int64)


def period_end(days: npt.NDArray[Any], frequency: Frequency | None) -> npt.NDArray[Any]:
    """The last day of the period that each day lies in; integers and unknown frequencies pass through.

    >>> period_end(np.array(["2020-02-03"], dtype="datetime64[D]"), "M")
    array(['2020-02-29'], dtype='datetime64[D]')
    """
    if not is_date(days) or frequency is None or frequency == "D":
        return days
    if frequency == "B":
        weekend = ~np.is_busday(days)
        if weekend.any():
            raise FrequencyError(
                f"frequency 'B' has no weekend days, got {first_offenders(np.unique(days[weekend]))}: "
                "use frequency='D', or move these dates to a weekday"
            )
        return days
    return _end_of(_ordinal(days, frequency), frequency)


def _ordinal(days: npt.NDArray[Any], frequency: Frequency) -> npt.NDArray[np.int64]:
    """Running number of the period (M, Q, W) that each day lies in."""
    if frequency == "W":
        # 1970-01-01 was a Thursday: with three days added, floor division cuts on Mondays.
        return (days.astype(np.int64) + 3) // 7
    months = days.astype("datetime64[M]").astype(np.int64)
    return months if frequency == "M" else months // 3


def _end_of(ordinal: npt.NDArray[np.int64], frequency: Frequency) -> npt.NDArray[Any]:
    if frequency == "W":
        return (ordinal * 7 + 3).astype(_DAYS)
    following_month = ordinal + 1 if frequency == "M" else 3 * (ordinal + 1)
    return following_month.astype("datetime64[M]").astype(_DAYS) - np.timedelta64(1, "D")


def shift(times: npt.NDArray[Any], steps: int, frequency: Frequency | None) -> npt.NDArray[Any]:
    """Move periods by whole steps; unknown neighbours (dates without a frequency) become NaT.

    >>> shift(np.array(["2020-02-29"], dtype="datetime64[D]"), -1, "M")
    array(['2020-01-31'], dtype='datetime64[D]')
    """
    if not is_date(times):
        return times + steps
    if steps == 0:
        return times
    if frequency is None:
        return np.full(times.shape, np.datetime64("NaT", "D"), dtype=_DAYS)
    if frequency == "D":
        return times + np.timedelta64(steps, "D")
    if frequency == "B":
        return np.busday_offset(times, steps, roll="backward" if steps > 0 else "forward")
    return _end_of(_ordinal(times, frequency) + steps, frequency)


def neighbour(times: npt.NDArray[Any], steps: int, frequency: Frequency | None) -> npt.NDArray[Any]:
    """The period `steps` after each of a sorted run of periods: the data's own where it has one.

    Inside the run this is plain indexing (a holiday is no gap); beyond either end the calendar goes on.

    >>> days = np.array(["2020-01-02", "2020-01-06"], dtype="datetime64[D]")
    >>> neighbour(days, -1, "B")
    array(['2020-01-01', '2020-01-02'], dtype='datetime64[D]')
    """
    n = times.size
    position = np.arange(n) + steps
    inside = (position >= 0) & (position < n)
    out = np.empty_like(times)
    out[inside] = times[position[inside]]
    for index in np.flatnonzero(~inside):
        edge, beyond = (0, position[index]) if position[index] < 0 else (n - 1, position[index] - n + 1)
        out[index] = shift(times[edge : edge + 1], int(beyond), frequency)[0]
    return out


def period_range(first: Any, last: Any, frequency: Frequency) -> npt.NDArray[Any]:
    """All calendar periods (M, Q, W) from `first` to `last`, both included."""
    ends = _ordinal(np.array([first, last], dtype=_DAYS), frequency)
    return _end_of(np.arange(ends[0], ends[1] + 1), frequency)


def infer_frequency(days: npt.NDArray[Any]) -> Frequency | None:
    """The frequency of sorted, unique dates if their spacing is clean, else None.

    Clean means: every month (quarter, ISO week) from first to last has exactly one date; or consecutive days;
    or weekdays only, most of them a day apart and no silence longer than a holiday.

    >>> infer_frequency(np.array(["2020-01-31", "2020-02-28", "2020-03-31"], dtype="datetime64[D]"))
    'M'
    """
    if not is_date(days) or days.size < 2:
        return None
    gaps = np.diff(days.astype(np.int64))
    if np.all(gaps == 1) and not np.all(np.is_busday(days)):
        return "D"
    for frequency, (shortest, longest) in _CLEAN_GAPS.items():
        evenly = gaps.min() >= shortest and gaps.max() <= longest
        if evenly and np.all(np.diff(_ordinal(days, frequency)) == 1):
            return frequency
    if np.all(np.is_busday(days)) and gaps.max() <= _LONGEST_HOLIDAY and np.median(gaps) == 1:
        return "B"
    return None


def follows(last: Any, first: Any, frequency: Frequency | None) -> bool:
    """Whether period `first` comes right after period `last`.

    Raises
    ------
    FrequencyError
        For dates without a frequency, where the question has no answer.
    """
    if isinstance(last, np.datetime64):
        if frequency is None:
            raise FrequencyError(
                f"cannot tell whether {first} follows {last} without a frequency: "
                "state frequency='M', 'Q', 'W', 'B' or 'D' when building the panel"
            )
        if frequency in ("B", "D"):
            # A weekend and a holiday or two; a longer silence needs the panel that has the dates in it.
            return 0 < (first - last).astype(int) <= _LONGEST_WEEKEND
    return bool(shift(np.array([last]), 1, frequency)[0] == first)
