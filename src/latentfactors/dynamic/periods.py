"""Periods that dynamic factor models treat apart: hidden from estimation, or with larger shocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.panel import Panel
from latentfactors.periods import is_date, parse_times
from latentfactors.validate import count

__all__ = ["BrokenPeriods", "VarianceBreak", "broken_periods", "masked_periods", "start_scales"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Values below which a period says nothing about the size of its shocks.
_FEWEST = 5


@dataclass(frozen=True, kw_only=True)
class VarianceBreak:
    """Periods in which all shocks are larger, each by a scale that is estimated: a pandemic's first months.

    Factors' and idiosyncratic shocks of a named period share its scale, so extreme values are used for what
    they are worth, where masking throws them away. Means, units and the iteration's start are those of the
    other periods. The scales are in the estimates and in the summary.

    Parameters
    ----------
    periods
        Dates or integers, not the panel's first one. A period after the training panel, or with fewer than
        five values, keeps the usual variance, and the summary says so.

    Raises
    ------
    ConfigurationError
        No periods, or a bare text.

    References
    ----------
    Lenza & Primiceri (2022), How to estimate a VAR after March 2020, J. of Applied Econometrics 37(4).

    Examples
    --------
    >>> VarianceBreak(periods=("2020-03", "2020-04", "2020-05")).periods
    ('2020-03', '2020-04', '2020-05')
    """

    periods: tuple[Any, ...]

    def __post_init__(self) -> None:
        if isinstance(self.periods, str) or not isinstance(self.periods, Sequence) or not len(self.periods):
            raise ConfigurationError(
                f"periods of a variance break must be a tuple of one period or more, got {self.periods!r}: "
                "write ('2020-04',)"
            )
        object.__setattr__(self, "periods", tuple(self.periods))


@dataclass(frozen=True, eq=False)
class BrokenPeriods:
    """Where scales of shocks apply: periods or rows (M,), and scales (M,)."""

    rows: npt.NDArray[Any]
    scale: FloatArray

    def among(self, times: npt.NDArray[Any]) -> BrokenPeriods:
        """The rows of given periods that are broken; the first has no shock of its own."""
        position = np.searchsorted(times, self.rows)
        inside = (position > 0) & (position < times.size)
        inside &= times[np.minimum(position, times.size - 1)] == self.rows if times.size else False
        return BrokenPeriods(position[inside], self.scale[inside])


def masked_periods(panel: Panel, masked: Sequence[Any]) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """Periods (T,) hidden from estimation, and what the summary says about them."""
    hidden = np.zeros(panel.n_periods, dtype=bool)
    rows, later = _named_rows(panel, masked, "masked period")
    hidden[rows] = True
    named = ", ".join(str(each) for each in panel.times[hidden])
    said = (f"{count(int(hidden.sum()), 'period')} masked: {named}",) if rows else ()
    return hidden, (*said, *later)


def broken_periods(
    panel: Panel, variance_break: VarianceBreak | None, hidden: npt.NDArray[np.bool_]
) -> tuple[IntArray, tuple[str, ...]]:
    """Rows (M,) of the periods of a variance break, and what the summary says about those left usual.

    Raises
    ------
    ConfigurationError
        A period that the panel skips, its first one, or one that is masked (hidden (T,)).
    """
    if variance_break is None:
        return np.zeros(0, dtype=np.int64), ()
    rows, remarks = _named_rows(panel, variance_break.periods, "period of a variance break")
    kept = []
    seen = np.isfinite(panel.wide()).sum(axis=1)
    for row in sorted(set(rows)):
        name = panel.times[row]
        if hidden[row]:
            raise ConfigurationError(f"period {name} is masked and in the variance break: choose one")
        if row == 0:
            raise ConfigurationError(
                f"period {name} of a variance break is the first of the panel, where nothing says what is "
                "usual: begin the panel later or mask the period"
            )
        if seen[row] < _FEWEST:
            remarks = (*remarks, f"{name} has {count(int(seen[row]), 'value')}, too few for a scale: usual")
        else:
            kept.append(row)
    return np.array(kept, dtype=np.int64), remarks


def start_scales(values: FloatArray) -> FloatArray:
    """(M,) root mean squares of the standardised values (M, n) of broken periods, at least 1."""
    return np.sqrt(np.maximum(np.nanmean(values**2, axis=1), 1.0))


def _named_rows(panel: Panel, periods: Sequence[Any], what: str) -> tuple[list[int], tuple[str, ...]]:
    """Rows of named periods; those after the panel's last one are remarked on."""
    rows, later = [], []
    for each in periods:
        try:
            stated = parse_times([each], name="period")
            if is_date(stated) == is_date(panel.times) and stated[0] > panel.times[-1]:
                later.append(str(each))
                continue
            rows.append(panel.index.position(each))
        except PanelError as error:
            raise ConfigurationError(f"{what} {each!r}: {error}") from error
    if not later:
        return rows, ()
    return rows, (f"{what} not in the panel yet: {', '.join(later)}",)
