"""Characteristics of assets from their own past values: momentum, reversal, volatility, market beta.

Row (p, i) uses values of periods <= p-1 only, so what it holds was known when period p began. Windows count
periods back from p: (12, 2) is p-12, ..., p-2.

| name     | from periods   | what                                               | NaN unless         |
|----------|----------------|----------------------------------------------------|--------------------|
| mom12m   | p-12 .. p-2    | momentum: cumulative value                         | all observed       |
| mom6m    | p-6 .. p-2     | short momentum: cumulative value                   | all observed       |
| mom1m    | p-1            | short-term reversal: the last value                | observed           |
| mom36m   | p-36 .. p-13   | long-term reversal: cumulative value               | all observed       |
| retvol   | p-12 .. p-1    | standard deviation, ddof 1                         | a share, 2 or more |
| maxret   | p-12 .. p-1    | highest value                                      | a share            |
| beta     | p-36 .. p-1    | slope of r = a + b m + e, m the market             | a share, 3 or more |
| idiovol  | p-36 .. p-1    | residual standard deviation sqrt(sum e^2/(n - 2))  | a share, 3 or more |

Cumulative       prod(1 + r) - 1 of "return" and "excess_return" (decimal), the sum of "spread_change" and
                 "series".
Missing          is missing: a cumulative value with a hole is NaN, because leaving the hole out would read it
                 as 0. The others use what is observed, if that is at least `min_share` of the window (8 of
                 12, 24 of 36).
Market           the equally weighted mean of the values observed in a period, or an observed factor by name.
Cost             O(R W) for W the longest window; memory one (W, N) table and the new columns.
References       Names and windows: Gu, Kelly & Xiu (2020), RFS 33(5), with monthly values in place of daily
                 ones in retvol, maxret, beta and idiovol; Jegadeesh & Titman (1993), De Bondt & Thaler
                 (1985), Jegadeesh (1990), Ang, Hodrick, Xing & Zhang (2006), Bali, Cakici & Whitelaw (2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.panel import Panel

__all__ = ["RETURN_CHARACTERISTICS", "ReturnWindows", "characteristics_from_returns"]

FloatArray = npt.NDArray[np.float64]

RETURN_CHARACTERISTICS = ("mom12m", "mom6m", "mom1m", "mom36m", "retvol", "maxret", "beta", "idiovol")
_CUMULATIVE = ("mom12m", "mom6m", "mom1m", "mom36m")
_SMALLEST = {"retvol": 2, "maxret": 1, "beta": 3}
# Of its own sum of squares: below this the market did not move in the window and a slope would be rounding
# error.
_NO_VARIATION = 1e-24


@dataclass(frozen=True, kw_only=True)
class ReturnWindows:
    """How far back each characteristic looks, in periods. The defaults are months; the names speak of months.

    Parameters
    ----------
    mom12m, mom6m, mom1m, mom36m
        Farthest and nearest period before the row's own, farthest >= nearest >= 1: (12, 2) is p-12 to p-2.
    retvol, maxret
        Number of periods up to p-1, at least 2 and 1.
    beta
        The same for market beta and idiosyncratic volatility, at least 3.
    min_share
        Share of a window that must be observed for retvol, maxret, beta and idiovol, in (0, 1].

    Raises
    ------
    ConfigurationError
        Windows that are no such numbers.

    Examples
    --------
    >>> weekly = ReturnWindows(
    ...     mom12m=(52, 5), mom6m=(26, 5), mom1m=(4, 1), mom36m=(156, 53), retvol=52, maxret=52, beta=156
    ... )
    >>> weekly.min_observed("beta")
    104
    """

    mom12m: tuple[int, int] = (12, 2)
    mom6m: tuple[int, int] = (6, 2)
    mom1m: tuple[int, int] = (1, 1)
    mom36m: tuple[int, int] = (36, 13)
    retvol: int = 12
    maxret: int = 12
    beta: int = 36
    min_share: float = 2 / 3

    def __post_init__(self) -> None:
        for name in _CUMULATIVE:
            window = getattr(self, name)
            whole = (
                isinstance(window, tuple) and len(window) == 2 and all(isinstance(lag, int) for lag in window)
            )
            if not whole or not window[0] >= window[1] >= 1:
                raise ConfigurationError(
                    f"{name} must be a pair (farthest, nearest) of whole periods, farthest >= nearest >= 1, "
                    f"got {window!r}"
                )
        for name, smallest in _SMALLEST.items():
            window = getattr(self, name)
            if not isinstance(window, int) or window < smallest:
                raise ConfigurationError(
                    f"{name} must be a whole number of periods, at least {smallest}, got {window!r}"
                )
        if not isinstance(self.min_share, int | float) or not 0 < self.min_share <= 1:
            raise ConfigurationError(f"min_share must lie in (0, 1], got {self.min_share!r}")

    def min_observed(self, name: str) -> int:
        """Observed values that retvol, maxret, beta or idiovol needs in its window."""
        name = "beta" if name == "idiovol" else name
        # The slack keeps 2/3 of 36 at 24 where floating point says a hair more.
        return max(math.ceil(self.min_share * getattr(self, name) - 1e-9), _SMALLEST[name])

    def depth(self, name: str) -> int:
        """Periods back that a characteristic looks."""
        window = getattr(self, "beta" if name == "idiovol" else name)
        return window[0] if isinstance(window, tuple) else window


def characteristics_from_returns(
    panel: Panel,
    names: Sequence[str] = RETURN_CHARACTERISTICS,
    *,
    windows: ReturnWindows | None = None,
    market: str | None = None,
) -> Panel:
    """Append characteristics computed from each asset's own values before the row's period.

    The module's docstring has the definitions and the rule of missing values. Rows that look back too far are
    NaN: `rank_standardise` or `fill_missing` comes next.

    Parameters
    ----------
    panel
        Values (R,): decimal returns, spread changes or series. The live period's rows get characteristics
        too.
    names
        Which, in the order of the new columns: of `RETURN_CHARACTERISTICS`.
    windows
        Periods to look back. None takes the monthly defaults, and is refused for panels of another frequency.
    market
        Name of the observed factor that is the market of beta and idiovol; None takes the equally weighted
        mean of the values observed in a period.

    Returns
    -------
    Panel
        Characteristics (R, L + len(names)), in the precision of those that were there, else float64;
        momentum, reversal, volatility and max in the units of the values. Transform
        "characteristics_from_returns(...)".

    Raises
    ------
    ConfigurationError
        Unknown or repeated names; a panel that is not monthly without `windows`.
    PanelError
        Names that the panel has already; a market that is no observed factor.

    Examples
    --------
    >>> panel = Panel.from_wide([[0.1], [0.2], [0.0], [np.nan]], universe="all")
    >>> windows = ReturnWindows(mom6m=(3, 2))
    >>> known = characteristics_from_returns(panel, ["mom1m", "mom6m"], windows=windows)
    >>> known.characteristics.round(2)  # the last row: value 0.0 before it, 1.1 * 1.2 - 1 before that
    array([[ nan,  nan],
           [0.1 ,  nan],
           [0.2 ,  nan],
           [0.  , 0.32]])
    """
    names = _check_names(panel, names)
    windows = _check_windows(panel, windows)
    benchmark = _market(panel, market)
    depth = max(windows.depth(name) for name in names)
    compound = panel.value_kind in ("return", "excess_return")
    old = panel.characteristics if panel.characteristics is not None else np.empty((panel.n_rows, 0))
    wider = np.empty((panel.n_rows, old.shape[1] + len(names)), dtype=old.dtype)
    wider[:, : old.shape[1]] = old
    # The last `depth` periods of all assets, oldest first: what stands here when period p is served is older
    # than p.
    past, past_market = np.full((depth, panel.n_assets), np.nan), np.full(depth, np.nan)
    bounds = panel.offsets.tolist()
    for p in range(panel.n_periods):
        rows = slice(bounds[p], bounds[p + 1])
        codes = panel.asset_codes[rows]
        if codes.size:
            seen = np.take(past, codes, axis=1)
            wider[rows, old.shape[1] :] = _columns(seen, past_market, names, windows, compound)
        past[:-1], past_market[:-1] = past[1:], past_market[1:]
        past[-1], past_market[-1] = np.nan, benchmark[p]
        past[-1, codes] = panel.values[rows]
    return replace(
        panel,
        characteristics=wider,
        characteristic_names=(*panel.characteristic_names, *names),
        transforms=(*panel.transforms, _step(names, windows, market)),
    )


# -------------------------------------------------------------------- (W, n) tables of the past, oldest first


def _columns(
    past: FloatArray, market: FloatArray, names: tuple[str, ...], windows: ReturnWindows, compound: bool
) -> FloatArray:
    """(n, len(names)) characteristics of the assets whose past values are (W, n), the market's (W,)."""
    out = np.empty((past.shape[1], len(names)))
    slope = idiosyncratic = None
    for column, name in enumerate(names):
        if name in _CUMULATIVE:
            far, near = getattr(windows, name)
            out[:, column] = cumulative(past[len(past) - far : len(past) - near + 1], compound)
        elif name == "retvol":
            out[:, column] = volatility(past[-windows.retvol :], windows.min_observed(name))
        elif name == "maxret":
            out[:, column] = highest(past[-windows.maxret :], windows.min_observed(name))
        else:
            if slope is None or idiosyncratic is None:
                span = slice(-windows.beta, None)
                slope, idiosyncratic = market_model(past[span], market[span], windows.min_observed(name))
            out[:, column] = slope if name == "beta" else idiosyncratic
    return out


def cumulative(past: FloatArray, compound: bool) -> FloatArray:
    """(n,) prod(1 + r) - 1 or sum(r) over the rows of (W, n); NaN where any is missing."""
    return np.prod(1 + past, axis=0) - 1 if compound else past.sum(axis=0)


def volatility(past: FloatArray, min_observed: int) -> FloatArray:
    """(n,) standard deviation, ddof 1, of the observed rows; NaN below `min_observed`."""
    deviation, n = _deviations(past)
    variance = np.nansum(deviation**2, axis=0) / np.maximum(n - 1, 1)
    return np.where(n >= min_observed, np.sqrt(variance), np.nan)


def highest(past: FloatArray, min_observed: int) -> FloatArray:
    """(n,) largest observed row; NaN below `min_observed`."""
    return np.where(np.isfinite(past).sum(axis=0) >= min_observed, np.fmax.reduce(past, axis=0), np.nan)


def market_model(past: FloatArray, market: FloatArray, min_observed: int) -> tuple[FloatArray, FloatArray]:
    """(n,) slopes and residual standard deviations of r = a + b m + e, where both are observed."""
    both = np.isfinite(past) & np.isfinite(market)[:, None]
    r, n = _deviations(np.where(both, past, np.nan))
    m, _ = _deviations(np.where(both, market[:, None], np.nan))
    moved = np.nansum(m**2, axis=0)
    level = np.sum(np.where(both, market[:, None], 0.0) ** 2, axis=0)
    known = (n >= min_observed) & (moved > _NO_VARIATION * level)
    slope = np.nansum(m * r, axis=0) / np.where(known, moved, 1.0)
    residual = r - slope * m
    spread = np.sqrt(np.nansum(residual**2, axis=0) / np.maximum(n - 2, 1))
    return np.where(known, slope, np.nan), np.where(known, spread, np.nan)


def _deviations(past: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    n = np.isfinite(past).sum(axis=0)
    return past - np.nansum(past, axis=0) / np.maximum(n, 1), n


# -------------------------------------------------------------------- checks


def _check_names(panel: Panel, names: Any) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in names if name not in RETURN_CHARACTERISTICS]
    if unknown or not names or len(set(names)) != len(names):
        raise ConfigurationError(
            f"names must be some of {', '.join(RETURN_CHARACTERISTICS)}, each once, "
            f"got {', '.join(map(str, names)) or 'none'}"
        )
    taken = [name for name in names if name in panel.characteristic_names]
    if taken:
        raise PanelError(
            f"the panel has {', '.join(taken)} already: leave it out of names=..., or build the panel "
            "without it"
        )
    return names


def _check_windows(panel: Panel, windows: ReturnWindows | None) -> ReturnWindows:
    if windows is not None:
        return windows
    if panel.frequency not in ("M", None):
        raise ConfigurationError(
            f"the default windows count months, this panel has frequency {panel.frequency!r}: "
            "give windows=ReturnWindows(...) in periods of the panel"
        )
    return ReturnWindows()


def _market(panel: Panel, market: str | None) -> FloatArray:
    """(T,) market values, NaN where nothing is observed."""
    if market is None:
        out = np.full(panel.n_periods, np.nan)
        for p in range(panel.n_periods):
            values = panel.values[panel.offsets[p] : panel.offsets[p + 1]]
            values = values[np.isfinite(values)]
            out[p] = values.mean() if values.size else np.nan
        return out
    if panel.observed_factors is None or market not in panel.observed_factor_names:
        raise PanelError(
            f"market={market!r} is no observed factor of this panel: it has "
            f"{', '.join(panel.observed_factor_names) or 'none'}; add it with with_observed_factors"
        )
    return panel.observed_factors[:, panel.observed_factor_names.index(market)]


def _step(names: tuple[str, ...], windows: ReturnWindows, market: str | None) -> str:
    parts = [", ".join(names)]
    if market is not None:
        parts.append(f"market={market!r}")
    if windows != ReturnWindows():
        parts.append(repr(windows))
    return f"characteristics_from_returns({'; '.join(parts)})"
