"""Quantile portfolios on any forecast, loading or characteristic.

Formation    at the end of p-1 every row of p with a signal joins a quantile; whether its return will be
             observed plays no part
Quantile     q of n where b_(q-1) < signal <= b_q; b_q is the q/n quantile of the period's signals, or of a
             subset's (NYSE breakpoints), linearly interpolated. Equal signals share a quantile, so ties make
             unequal portfolios or empty ones, never an order of accident. No breakpoints from fewer signals
             than `min_assets`: that period has no portfolios
Return       sum w r / sum w over the members with a realised value; a member without one is left out and
             counted, never a zero
Long-short   top minus bottom, missing where either is
Turnover     sum_i |w_(p,i) - d_(p,i)|, buys plus sells, d what is left of the last weights: w (1 + r)/(1 + R)
             with drift, w without; long-short is the sum of both legs. The first formation counts nothing
Net return   gross minus cost times turnover (of both legs for long-short)
t            Newey-West, lags floor(4 (T/100)^(2/9)) unless stated (`kernels.newey_west`)

References: Gu, Kelly & Xiu (2020), RFS 33(5), section 3.4 and its turnover; Fama & French (1993), JFE 33(1),
breakpoints of a subset; Newey & West (1987), Econometrica 55(3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.estimator import check_horizon, freeze, one_of
from latentfactors.evaluate.pricing_tests import performance
from latentfactors.frames import to_frame
from latentfactors.panel import Panel
from latentfactors.results import AssetForecastResult
from latentfactors.rows import RowIndex
from latentfactors.track_record import TrackRecord, WalkForwardResult, look_up

__all__ = ["PortfolioSort", "Weighting", "sort_portfolios"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Weighting = Literal["equal", "value"]
Signal = WalkForwardResult | TrackRecord | AssetForecastResult | npt.ArrayLike | str
_PER_YEAR = {"M": 12.0, "Q": 4.0, "W": 52.0, "B": 252.0, "D": 365.0, None: 1.0}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PortfolioSort:
    """Quantile portfolios and their long-short spread.

    Attributes
    ----------
    times : (T,) the period each return was realised in
    returns : (T, n_quantiles) gross, in the values' unit; NaN where there was no portfolio
    turnover : (T, n_quantiles) traded at the start of the period; NaN at the first formation
    n_members, n_unrealised : (T, n_quantiles) assets held; of these, without a realised value
    assignment : (R,) quantile of every row of the signal, 1 the lowest, 0 for none
    factors : (T, M) or None, what alphas are measured against, named by factor_names
    risk_free : (T,) or None, subtracted from the quantiles (never from long-short) in all statistics
    weighting, drift, cost, lags, periods_per_year : as used; cost is per unit of turnover
    n_skipped : periods with signals but too few of them for breakpoints
    """

    times: npt.NDArray[Any]
    returns: FloatArray
    turnover: FloatArray
    n_members: IntArray
    n_unrealised: IntArray
    assignment: IntArray
    weighting: Weighting
    drift: bool
    cost: float
    lags: int | None
    periods_per_year: float
    n_skipped: int
    factors: FloatArray | None = None
    factor_names: tuple[str, ...] = ()
    risk_free: FloatArray | None = None

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The quantiles, "1" for the lowest signals, then "long_short"."""
        return (*map(str, range(1, self.returns.shape[1] + 1)), "long_short")

    @property
    def long_short(self) -> FloatArray:
        """(T,) top minus bottom, gross."""
        return self.returns[:, -1] - self.returns[:, 0]

    @property
    def gross(self) -> FloatArray:
        """(T, n_quantiles + 1) returns with long-short last; excess of `risk_free` where there is one."""
        quantiles = self.returns if self.risk_free is None else self.returns - self.risk_free[:, None]
        return np.column_stack([quantiles, self.long_short])

    @property
    def traded(self) -> FloatArray:
        """(T, n_quantiles + 1) turnover with long-short last."""
        return np.column_stack([self.turnover, self.turnover[:, 0] + self.turnover[:, -1]])

    @property
    def net(self) -> FloatArray:
        """(T, n_quantiles + 1) returns after cost; the first formation is free."""
        return self.gross - self.cost * np.nan_to_num(self.traded)

    def frame(self, backend: str = "polars") -> Any:
        """One line per portfolio.

        Returns
        -------
        frame
            portfolio; mean, volatility, sharpe, t and, with factors, alpha, alpha_t, r_squared as in
            `performance`; turnover (mean per period); mean_net, sharpe_net, t_net; n_periods with a return,
            n_assets (mean), n_unrealised (total). NaN where something cannot be estimated.
        """
        lines = [self._line(j) for j in range(len(self.names))]
        columns: dict[str, npt.NDArray[Any]] = {"portfolio": np.array(self.names)}
        columns |= {key: np.array([line[key] for line in lines]) for key in lines[0]}
        return to_frame(columns, backend)

    def returns_frame(self, backend: str = "polars") -> Any:
        """One line per period: time, the gross return of every quantile, long_short."""
        gross = np.column_stack([self.returns, self.long_short])
        named = dict(zip(self.names, np.ascontiguousarray(gross.T), strict=True))
        return to_frame({"time": self.times} | named, backend)

    def _line(self, j: int) -> dict[str, Any]:
        gross, traded = self.gross[:, j], self.traded[:, j]
        line = performance(gross, self.factors, self.lags, self.periods_per_year)
        after = performance(self.net[:, j], None, self.lags, self.periods_per_year)
        n_periods = line.pop("n_periods")
        line["turnover"] = float(np.nanmean(traded)) if np.isfinite(traded).any() else np.nan
        line |= {f"{name}_net": after[name] for name in ("mean", "sharpe", "t")}
        legs = [j] if j < self.returns.shape[1] else [0, -1]
        seen = np.isfinite(gross)
        line |= {"n_periods": n_periods, "n_assets": self.n_members[seen][:, legs].sum() / max(n_periods, 1)}
        return line | {"n_unrealised": int(self.n_unrealised[seen][:, legs].sum())}

    def __repr__(self) -> str:
        spread = self._line(len(self.names) - 1)
        return (
            f"PortfolioSort({self.returns.shape[1]} {self.weighting}-weighted quantiles, "
            f"{spread['n_periods']} periods, long-short mean {spread['mean']:.4g}, "
            f"Sharpe {spread['sharpe']:.2f} (x{self.periods_per_year:g} periods a year), t {spread['t']:.2f})"
        )


def sort_portfolios(
    signal: Signal,
    panel: Panel | None = None,
    *,
    n_quantiles: int = 10,
    weighting: Weighting = "equal",
    breakpoints: npt.ArrayLike | None = None,
    min_assets: int | None = None,
    factors: Sequence[str] = (),
    risk_free: str | None = None,
    cost: float = 0.0,
    drift: bool | None = None,
    lags: int | None = None,
    periods_per_year: float | None = None,
    horizon: int = 1,
) -> PortfolioSort:
    """Sort assets into quantile portfolios period by period and follow what they earn.

    Parameters
    ----------
    signal
        `WalkForwardResult` (its own panel is used), or with a panel: `TrackRecord`, `AssetForecastResult`,
        an (R,) array over the panel's rows (a loading column, say), or the name of a characteristic. A
        forecast with a fit span is sorted out of sample only.
    panel
        Where realised values, weights and observed factors come from.
    n_quantiles
        At least 2.
    weighting
        "equal", or "value": by `panel.weights`, known before the period; rows without one are not held.
    breakpoints : (panel.n_rows,) bool, optional
        Rows whose signals make the breakpoints. None: all.
    min_assets
        Signals that a period's breakpoints need. None: n_quantiles.
    factors
        Names of `panel.observed_factors` to measure alphas against; in excess of the risk-free rate.
    risk_free
        Name of an observed factor to subtract from raw returns. Refused for excess returns: never twice.
    cost
        Per unit of turnover, in the values' unit: 0.001 is ten basis points of what is bought or sold.
    drift
        Whether weights drift with returns between formations. None: yes for decimal returns, no otherwise.
    lags
        Newey-West lags; None: floor(4 (T/100)^(2/9)).
    periods_per_year
        None: 12, 4, 52, 252, 365 for "M", "Q", "W", "B", "D", and 1 (nothing annualised) without frequency.
    horizon
        Of an array's, a name's or a `TrackRecord`'s signals: row p is held in period p + horizon - 1.

    Returns
    -------
    PortfolioSort

    Raises
    ------
    ConfigurationError, PanelError
        A panel or weights that are missing, unknown names, raw returns where excess returns are needed,
        returns below -100% that cannot drift.

    Examples
    --------
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=60, n_assets=50, n_factors=2, seed=1).panel
    >>> sort = sort_portfolios(panel.characteristic_names[0], panel, n_quantiles=5)
    >>> sort.returns.shape, sort.n_members[0].tolist()
    ((60, 5), [6, 5, 5, 5, 5])
    """
    if isinstance(signal, WalkForwardResult):
        panel, horizon, signal = signal.panel, signal.horizon, signal.record
    if not isinstance(panel, Panel):
        raise ConfigurationError(f"panel must be given with a {type(signal).__name__}, got {panel!r}")
    if isinstance(n_quantiles, bool) or not isinstance(n_quantiles, int) or n_quantiles < 2:
        raise ConfigurationError(f"n_quantiles must be a whole number >= 2, got {n_quantiles!r}")
    one_of("weighting", weighting, Weighting)
    if not 0 <= cost < np.inf:
        raise ConfigurationError(f"cost must be a finite number >= 0, got {cost}")
    rows = _rows_of(signal, panel, check_horizon(horizon), weighting, breakpoints)
    wants_drift = panel.value_kind in ("return", "excess_return") if drift is None else bool(drift)
    if wants_drift and np.any(rows.realised < -1):
        raise ConfigurationError(
            f"drifting weights need decimal returns, got {np.nanmin(rows.realised):.4g}: divide percent by "
            "100 when building the panel, or say drift=False"
        )
    needed = n_quantiles if min_assets is None else max(int(min_assets), 1)
    assignment, n_skipped = _assign(rows, n_quantiles, needed)
    returns, turnover, members, unrealised = _follow(rows, assignment, n_quantiles, wants_drift)
    whole = np.zeros(rows.n_signals, dtype=np.int64)
    whole[rows.origin] = assignment
    per_year = _PER_YEAR[panel.frequency] if periods_per_year is None else float(periods_per_year)
    observed, rate = _observed(panel, rows.times, tuple(factors), risk_free)
    return PortfolioSort(
        times=rows.times, returns=returns, turnover=turnover, n_members=members, n_unrealised=unrealised,
        assignment=whole, weighting=weighting, drift=wants_drift, cost=float(cost), lags=lags,
        periods_per_year=per_year, n_skipped=n_skipped, factors=observed, factor_names=tuple(factors),
        risk_free=rate,
    )  # fmt: skip


# ------------------------------------------------------------------------- what is sorted, row by row


@dataclass(frozen=True, eq=False)
class _Rows:
    """Signals and what came true: times (T,), offsets (T + 1,), the rest (R,); origin, the signal's row."""

    times: npt.NDArray[Any]
    offsets: IntArray
    codes: IntArray
    signal: FloatArray
    realised: FloatArray
    weight: FloatArray
    marks: npt.NDArray[np.bool_]
    origin: IntArray
    n_signals: int
    n_assets: int


def _rows_of(
    signal: Any, panel: Panel, horizon: int, weighting: Weighting, breakpoints: npt.ArrayLike | None
) -> _Rows:
    index: RowIndex = panel.index
    if isinstance(signal, TrackRecord):
        scores, codes, offsets = signal.forecast, signal.asset_codes, signal.offsets
        targets, realised = signal.target_times, signal.realised
    else:
        if isinstance(signal, AssetForecastResult):
            index, horizon = signal.index, signal.horizon
            fresh = ~signal.in_sample[index.period_codes]
            scores = np.where(fresh, signal.expected_values, np.nan)
        else:
            scores = _column(signal, panel)
        codes, offsets = index.match_assets(panel.assets)[index.asset_codes], index.offsets
        targets = index.targets(horizon)[index.period_codes]
        realised = look_up(panel, targets, codes)
    # A period beyond the panel can have no returns; without a frequency it has no name either.
    period = np.searchsorted(panel.times, targets)
    inside = np.isin(targets, panel.times)
    kept = np.flatnonzero(inside)
    first_of = [int(low) for low, high in pairwise(offsets) if high > low and inside[low]]
    times = targets[first_of]
    if np.any(times[1:] <= times[:-1]):
        raise PanelError("several forecasts of one period: sort the forecasts of one run at a time")
    own = period[kept] - (horizon - 1)
    weight = np.ones(len(kept))
    if weighting == "value":
        if panel.weights is None:
            raise ConfigurationError("weighting='value' needs panel.weights: name a size column, or 'equal'")
        weight = _own_row(panel, panel.weights, own, codes[kept])
    marks = np.ones(len(kept), dtype=bool)
    if breakpoints is not None:
        flags = np.asarray(breakpoints)
        if flags.dtype != np.bool_ or flags.shape != (panel.n_rows,):
            raise ConfigurationError(
                f"breakpoints must be boolean of shape ({panel.n_rows},), got {flags.dtype} {flags.shape}"
            )
        marks = _own_row(panel, flags.astype(np.float64), own, codes[kept]) == 1.0
    known = np.isfinite(weight) & (weight > 0) & (codes[kept] >= 0)
    counts = np.searchsorted(kept, offsets)
    return _Rows(
        times, np.unique(counts).astype(np.int64) if len(kept) else np.zeros(1, dtype=np.int64), codes[kept],
        np.where(known, scores[kept], np.nan), realised[kept], weight, marks, kept, len(targets),
        panel.n_assets,
    )  # fmt: skip


def _column(signal: Any, panel: Panel) -> FloatArray:
    if isinstance(signal, str):
        if signal not in panel.characteristic_names or panel.characteristics is None:
            raise ConfigurationError(
                f"no characteristic {signal!r} in this panel, it has {panel.characteristic_names}"
            )
        return panel.characteristics[:, panel.characteristic_names.index(signal)].astype(np.float64)
    column = np.asarray(signal, dtype=np.float64)
    if column.shape != (panel.n_rows,):
        raise ConfigurationError(f"a signal has one number per row, ({panel.n_rows},), got {column.shape}")
    return column


def _own_row(panel: Panel, column: FloatArray, period: IntArray, codes: IntArray) -> FloatArray:
    """(R,) entries of a row column at given periods and assets, NaN where there is no such row."""
    times = panel.times[np.clip(period, 0, panel.n_periods - 1)]
    return np.where(period >= 0, look_up(panel.with_values(column), times, codes), np.nan)


def _observed(
    panel: Panel, times: npt.NDArray[Any], names: tuple[str, ...], risk_free: str | None
) -> tuple[FloatArray | None, FloatArray | None]:
    wanted = names if risk_free is None else (*names, risk_free)
    unknown = [name for name in wanted if name not in panel.observed_factor_names]
    if unknown:
        raise ConfigurationError(
            f"no observed factor {', '.join(map(repr, unknown))}, the panel has {panel.observed_factor_names}"
        )
    if risk_free is not None and panel.value_kind != "return":
        raise ConfigurationError(
            f"risk_free={risk_free!r} would be subtracted from values of kind {panel.value_kind!r}: only raw "
            "returns ('return') have a risk-free rate left to subtract"
        )
    if names and panel.value_kind == "return" and risk_free is None:
        raise ConfigurationError(
            "alphas of raw returns need risk_free: name the observed factor that holds the risk-free rate"
        )
    if panel.observed_factors is None or not wanted:
        return None, None
    rows = np.searchsorted(panel.times, times)
    table = panel.observed_factors[rows][:, [panel.observed_factor_names.index(name) for name in wanted]]
    return (table[:, : len(names)] if names else None), (None if risk_free is None else table[:, -1])


# ------------------------------------------------------------------------- portfolios


def quantile_breaks(signals: FloatArray, n_quantiles: int) -> FloatArray:
    """(n_quantiles - 1,) interpolated quantiles; where one falls on a signal it is that signal to the bit."""
    ordered = np.sort(signals)
    place = np.arange(1, n_quantiles) * (ordered.size - 1)
    below, rest = place // n_quantiles, (place % n_quantiles) / n_quantiles
    low, high = ordered[below], ordered[np.minimum(below + 1, ordered.size - 1)]
    return np.where(rest > 0, low + rest * (high - low), low)


def _assign(rows: _Rows, n_quantiles: int, min_assets: int) -> tuple[IntArray, int]:
    """(R,) quantile of every row, 0 for none, and the number of periods with too few signals."""
    assignment, skipped = np.zeros(rows.signal.size, dtype=np.int64), 0
    for low, high in pairwise(rows.offsets):
        signal = rows.signal[low:high]
        seen = np.isfinite(signal)
        base = signal[seen & rows.marks[low:high]]
        if base.size < min_assets:
            skipped += bool(seen.any())
            continue
        breaks = quantile_breaks(base, n_quantiles)
        assignment[low:high][seen] = np.searchsorted(breaks, signal[seen], side="left") + 1
    return assignment, skipped


def _follow(
    rows: _Rows, assignment: IntArray, n_quantiles: int, drift: bool
) -> tuple[FloatArray, FloatArray, IntArray, IntArray]:
    """Returns, turnover, members and members without a value, (T, n_quantiles) each."""
    shape, n_slots = (rows.times.size, n_quantiles), n_quantiles + 1
    returns, turnover = np.full(shape, np.nan), np.full(shape, np.nan)
    members, unrealised = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    # What is held from the last formation, by quantile and asset: an asset is in one quantile at most.
    held_in, held = np.zeros(rows.n_assets, dtype=np.int64), np.zeros(rows.n_assets)
    for t, (low, high) in enumerate(pairwise(rows.offsets)):
        mine = low + np.flatnonzero(assignment[low:high])
        group, code, value = assignment[mine], rows.codes[mine], rows.realised[mine]
        if mine.size == 0:
            continue
        weight = rows.weight[mine] / np.bincount(group, rows.weight[mine], n_slots)[group]
        members[t] = np.bincount(group, minlength=n_slots)[1:]
        known = np.isfinite(value)
        earned = np.bincount(group[known], (weight * value)[known], n_slots)
        invested = np.bincount(group[known], weight[known], n_slots)
        result = np.divide(earned, invested, out=np.full(n_slots, np.nan), where=invested > 0)
        returns[t] = result[1:]
        if known.any():  # a live period holds without a value by nature
            unrealised[t] = np.bincount(group[~known], minlength=n_slots)[1:]

        stays = held_in[code] == group
        change = np.bincount(group, np.abs(weight - np.where(stays, held[code], 0.0)), n_slots)
        left = held.copy()
        left[code[stays]] = 0.0
        change += np.bincount(held_in, left, n_slots)
        before = np.bincount(held_in, minlength=n_slots)[1:] > 0
        turnover[t] = np.where(before & (members[t] > 0), change[1:], np.nan)

        filled = members[t] > 0
        gone = np.concatenate([[False], filled])[held_in]  # an empty quantile keeps what it held
        held_in[gone], held[gone] = 0, 0.0
        if drift:
            level = np.nan_to_num(result[group])
            weight = weight * np.where(known, 1.0 + value, 1.0 + level) / np.maximum(1.0 + level, 1e-12)
        held_in[code], held[code] = group, weight
    return returns, turnover, members, unrealised
