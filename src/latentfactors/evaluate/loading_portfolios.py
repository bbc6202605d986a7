"""Portfolios sorted on every column of loadings: what exposure to each latent factor earns.

Signal           column k of the loadings of row p, known at p-1: the portfolios can be held
Portfolios       quantiles of each period's loadings, long-short top minus bottom, one sort per factor
Judged by        mean with Newey-West t, alpha on observed factors, turnover, and the correlation of the
                 long-short return with the factor it was sorted on

A state is sorted after the end of its training only, unless asked otherwise: inside, its parameters have seen
the returns. Of a walk-forward every row has the loadings of the refit that forecast it, in the order and
signs of the refits before. A factor is known up to its sign, so a negative spread is no anomaly by itself.

References: Kelly, Pruitt & Su (2019), JFE 134(3); Gu, Kelly & Xiu (2021), Journal of Econometrics 222(1);
Fama & French (1993), JFE 33(1), breakpoints of a subset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
    PanelMismatchError,
)
from latentfactors.estimator import freeze
from latentfactors.evaluate.portfolios import PortfolioSort, Weighting, sort_portfolios
from latentfactors.frames import to_frame
from latentfactors.panel import Panel
from latentfactors.state import LatentFactorState
from latentfactors.track_record import WalkForwardResult

__all__ = ["LoadingPortfolios", "factors_out_of_sample", "sort_on_loadings"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LoadingPortfolios:
    """One sort per factor.

    Attributes
    ----------
    sorts : factor's name -> its quantile portfolios
    factors : (T, K) the factor's own realisations in `times`, NaN where there is none; in the aligned order
    times : (T,) periods in which portfolios were held
    """

    sorts: Mapping[str, PortfolioSort]
    factors: FloatArray
    times: npt.NDArray[Any]

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The K factors."""
        return tuple(self.sorts)

    @property
    def long_short(self) -> FloatArray:
        """(T, K) top minus bottom quantile of each factor's loadings, gross: traded factors."""
        return np.column_stack([self._on_times(each) for each in self.sorts.values()])

    def frame(self, backend: str = "polars") -> Any:
        """One line per factor, about its long-short portfolio.

        Returns
        -------
        frame
            factor; mean, volatility, sharpe, t and, where the sort has observed factors, alpha, alpha_t,
            r_squared; turnover, mean_net, sharpe_net, t_net, n_periods, n_assets, n_unrealised as in
            `PortfolioSort.frame`; correlation of the long-short return with the factor.
        """
        lines = [each.frame().to_dicts()[-1] for each in self.sorts.values()]
        columns: dict[str, npt.NDArray[Any]] = {"factor": np.array(self.names)}
        columns |= {key: np.array([line[key] for line in lines]) for key in lines[0] if key != "portfolio"}
        spreads = self.long_short
        columns["correlation"] = np.array(
            [_correlation(spreads[:, k], self.factors[:, k]) for k in range(len(self.names))]
        )
        return to_frame(columns, backend)

    def _on_times(self, sort: PortfolioSort) -> FloatArray:
        out = np.full(self.times.size, np.nan)
        out[np.searchsorted(self.times, sort.times)] = sort.long_short
        return out

    def __repr__(self) -> str:
        each = []
        for name, sort in self.sorts.items():
            spread = sort.frame()["t"].to_list()[-1]
            each.append(f"{name} t {spread:.2f}")
        return f"LoadingPortfolios({', '.join(each)}; {self.times.size} periods)"


def sort_on_loadings(
    source: LatentFactorState | WalkForwardResult,
    panel: Panel | None = None,
    *,
    n_quantiles: int = 10,
    weighting: Weighting = "equal",
    breakpoints: npt.ArrayLike | None = None,
    min_assets: int | None = None,
    factors: Sequence[str] = (),
    risk_free: str | None = None,
    cost: float = 0.0,
    lags: int | None = None,
    in_sample: bool = False,
) -> LoadingPortfolios:
    """Sort assets on each column of their loadings and follow the quantiles and their spread.

    Parameters
    ----------
    source
        A state, with the panel it describes (or a longer one), or a walk-forward that kept its loadings:
        `walk_forward(..., keep_loadings=True)`.
    panel
        Where realised values, weights and observed factors come from; a walk-forward's own if None.
    n_quantiles, weighting, breakpoints, min_assets, factors, risk_free, cost, lags
        As in `sort_portfolios`.
    in_sample
        Whether a state's training periods are sorted, too: a description then, no portfolio anybody held.

    Returns
    -------
    LoadingPortfolios

    Raises
    ------
    ConfigurationError, PanelMismatchError
        No panel with a state; rows that the panel does not have.
    InsufficientDataError
        No period after training has loadings.
    MissingCapabilityError
        A walk-forward without loadings.

    Examples
    --------
    >>> from latentfactors.models.ipca import IPCAConfig, IPCAModel
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=120, n_assets=60, n_factors=2, seed=1).panel
    >>> model = IPCAModel(IPCAConfig(n_factors=2))
    >>> _ = model.fit(panel.between(0, 80))
    >>> found = sort_on_loadings(model.extract(panel), panel, n_quantiles=5)
    >>> found.names, found.long_short.shape
    (('F1', 'F2'), (40, 2))
    """
    if isinstance(source, WalkForwardResult):
        if panel is not None and panel is not source.panel:
            raise ConfigurationError("a walk-forward is sorted on its own panel: leave panel out")
        panel, columns = source.panel, source.loadings()
        times, values, names = factors_out_of_sample(source)
    elif isinstance(source, LatentFactorState):
        if not isinstance(panel, Panel):
            raise ConfigurationError(f"panel must be given with a state, got {panel!r}")
        columns = _columns_of(source, panel, in_sample)
        times, values, names = source.timestamps, source.factor_returns, source.factors.names
    else:
        raise ConfigurationError(
            f"expected a LatentFactorState or a WalkForwardResult, got {type(source).__name__}"
        )
    if not np.isfinite(columns).any():
        raise InsufficientDataError(
            "no row after the end of training has loadings: extract the state of a longer panel, use a "
            "walk-forward, or say in_sample=True for a description"
        )
    sorts = {
        name: sort_portfolios(
            columns[:, k],
            panel,
            n_quantiles=n_quantiles,
            weighting=weighting,
            breakpoints=breakpoints,
            min_assets=min_assets,
            factors=factors,
            risk_free=risk_free,
            cost=cost,
            lags=lags,
        )
        for k, name in enumerate(names)
    }
    sorts = {name: _held(each) for name, each in sorts.items()}
    held = np.unique(np.concatenate([each.times for each in sorts.values()]))
    own = np.full((held.size, len(names)), np.nan)
    _, here, there = np.intersect1d(held, times, return_indices=True)
    own[here] = values[there]
    return LoadingPortfolios(sorts=sorts, factors=own, times=held)


def _columns_of(state: LatentFactorState, panel: Panel, in_sample: bool) -> FloatArray:
    """(R, K) loadings of the panel's rows, NaN outside the state and, unless asked for, in its training."""
    index = state.index
    start = int(np.searchsorted(panel.times, index.times[0])) if index.n_periods else 0
    stop = start + index.n_periods
    alike = stop <= panel.n_periods and np.array_equal(panel.times[start:stop], index.times)
    rows = slice(int(panel.offsets[start]), int(panel.offsets[stop])) if alike else slice(0, 0)
    alike = alike and np.array_equal(np.diff(panel.offsets[start : stop + 1]), np.diff(index.offsets))
    if not alike or not np.array_equal(
        panel.assets[panel.asset_codes[rows]], index.assets[index.asset_codes]
    ):
        raise PanelMismatchError(
            f"the state's rows are not rows of the panel: expected those of {panel!r}, got {index!r}"
        )
    loadings = state.measurement.loadings.rows()
    found = np.full((panel.n_rows, loadings.shape[1]), np.nan)
    known = state.fit_span.covers(index.times)[index.period_codes] & (not in_sample)
    found[rows] = np.where(known[:, None], np.nan, loadings)
    return found


def factors_out_of_sample(
    result: WalkForwardResult,
) -> tuple[npt.NDArray[Any], FloatArray, tuple[str, ...]]:
    """Times (S,), factors (S, K) by the refit that forecast the period, in aligned order, and K names.

    Raises
    ------
    MissingCapabilityError
        The predictor has no factors.
    """
    paths, starts = result.factor_paths(), []
    if not paths:
        raise MissingCapabilityError(f"{result.predictor} has no factors")
    for split, block in zip(result.splits, result.blocks, strict=True):
        if block is not None and block.factors is not None and block.factor_times is not None:
            source, start, _ = split.block(result.panel)
            starts.append(source.times[start])
    times = np.concatenate([path.times[path.times >= a] for path, a in zip(paths, starts, strict=True)])
    values = np.concatenate([path.values[path.times >= a] for path, a in zip(paths, starts, strict=True)])
    # Blocks of vintages may overlap: of several refits the latest speaks.
    every, last = np.unique(times[::-1], return_index=True)
    return every, values[::-1][last], paths[-1].names


def _held(sort: PortfolioSort) -> PortfolioSort:
    """The periods from the first to the last with a portfolio."""
    held = np.flatnonzero(sort.n_members.any(axis=1))
    if not held.size:
        return sort
    span = slice(int(held[0]), int(held[-1]) + 1)
    return replace(
        sort,
        times=sort.times[span],
        returns=sort.returns[span],
        turnover=sort.turnover[span],
        n_members=sort.n_members[span],
        n_unrealised=sort.n_unrealised[span],
        factors=None if sort.factors is None else sort.factors[span],
        risk_free=None if sort.risk_free is None else sort.risk_free[span],
    )


def _correlation(a: FloatArray, b: FloatArray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return float("nan")
    return float(np.corrcoef(a[both], b[both])[0, 1])
