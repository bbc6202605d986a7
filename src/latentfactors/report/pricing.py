"""The pricing sections of a report, from what a run left: who prices the assets, and with what Sharpe ratio.

Test assets      the run's own assets over the forecast periods, those observed in at least half of them
Models           the observed factors (the first alone, then all), and the tangency portfolio of each
                 predictor's factors, whose weights come from the past of every refit
Sharpe ratios    in sample of the latest refit's factors, an upper bound; out of sample of the tangency paths
Correlations     of the latest refit's factors with the observed ones
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.evaluate.priced_assets import PricedAssets, price_assets
from latentfactors.evaluate.pricing_tests import maximal_sharpe, performance, tangency_weights
from latentfactors.evaluate.tangency import TangencyPath
from latentfactors.report.data import FactorBand, RunData

__all__ = [
    "FactorCorrelations",
    "SharpeLine",
    "distinct_paths",
    "factor_correlations",
    "priced_models",
    "run_correlations",
    "sharpe_lines",
]

FloatArray = npt.NDArray[np.float64]
_PER_YEAR = {"M": 12.0, "Q": 4.0, "W": 52.0, "B": 252.0, "D": 365.0, None: 1.0}


@dataclass(frozen=True, kw_only=True)
class SharpeLine:
    """Sharpe ratios a year (per period without a frequency) of one set of factors, NaN where unknown."""

    n_factors: int
    in_sample: float
    out_of_sample: float
    t: float
    alpha_t: float
    n_periods: int


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorCorrelations:
    """values (K, M) correlations of factors with observed factors over n_periods, and their names."""

    values: FloatArray
    factor_names: tuple[str, ...]
    observed_names: tuple[str, ...]
    n_periods: int

    def __post_init__(self) -> None:
        freeze(self)


def priced_models(data: RunData) -> dict[str, PricedAssets]:
    """Name of a model -> how it prices the run's assets; empty where values are no excess returns."""
    if data.value_kind not in ("excess_return", "spread_change") or not data.target_times.size:
        return {}
    times, observed = _forecast_periods(data)
    wide = data.panel().wide()[observed]
    wide = wide[:, np.isfinite(wide).mean(axis=0) >= 0.5]
    models: dict[str, FloatArray] = {}
    if data.observed_factors is not None:
        given, names = data.observed_factors[observed], data.observed_factor_names
        models[f"{names[0]} alone"] = given[:, :1]
        if len(names) > 1:
            models[f"{len(names)} observed factors"] = given
    for name, path in distinct_paths(data).items():
        models[name] = _on(times, path)[:, None]
    found = {}
    for name, factors in models.items():
        known = np.isfinite(factors).all(axis=1)
        if wide.shape[1] and known.sum() > factors.shape[1] + 2 and np.ptp(factors[known], axis=0).all():
            found[name] = price_assets(wide, factors)
    return found


def sharpe_lines(data: RunData) -> dict[str, SharpeLine]:
    """Name -> maximal Sharpe ratios of the predictor's factors, and of the observed ones."""
    if data.value_kind not in ("excess_return", "spread_change") or not data.target_times.size:
        return {}
    times, observed = _forecast_periods(data)
    per_year = _PER_YEAR[data.frequency]
    given = None if data.observed_factors is None else data.observed_factors[observed]
    found = {}
    for name, path in distinct_paths(data).items():
        line = performance(_on(times, path), given, None, per_year)
        found[name] = SharpeLine(
            n_factors=path.n_factors,
            in_sample=_in_sample(data.bands[name].values, per_year),
            out_of_sample=line["sharpe"],
            t=line["t"],
            alpha_t=line.get("alpha_t", float("nan")),
            n_periods=int(line["n_periods"]),
        )
    if data.observed_factors is not None:
        first = max(int(np.flatnonzero(observed)[0]), data.observed_factors.shape[1] + 2)
        try:
            best = maximal_sharpe(data.observed_factors, first=first, periods_per_year=per_year)
        except InsufficientDataError:
            return found
        line = performance(best.returns, None, None, per_year)
        n_observed = data.observed_factors.shape[1]
        label = f"{n_observed} observed factors" if n_observed > 1 else data.observed_factor_names[0]
        found[label] = SharpeLine(
            n_factors=n_observed,
            in_sample=best.in_sample,
            out_of_sample=best.out_of_sample,
            t=line["t"],
            alpha_t=float("nan"),
            n_periods=best.n_periods,
        )
    return found


def factor_correlations(
    band: FactorBand, times: npt.NDArray[np.generic], observed: FloatArray, names: tuple[str, ...]
) -> FactorCorrelations:
    """Correlations of a predictor's latest factors with observed factors (T, M) over common periods."""
    _, at, where = np.intersect1d(band.times, times, return_indices=True)
    both = np.column_stack([band.values[at], observed[where]])
    both = both[np.isfinite(both).all(axis=1)]
    k, values = band.values.shape[1], np.full((band.values.shape[1], len(names)), np.nan)
    if len(both) > 2:
        centred = both - both.mean(axis=0)
        size = np.sqrt(np.square(centred).sum(axis=0))
        scaled = np.divide(centred, size, out=np.full(both.shape, np.nan), where=size > 0)
        values = scaled[:, :k].T @ scaled[:, k:]
    return FactorCorrelations(
        values=values, factor_names=band.names, observed_names=names, n_periods=len(both)
    )


def run_correlations(data: RunData) -> Mapping[str, FactorCorrelations]:
    """Name -> correlations of the predictor's factors with the observed ones; empty without those."""
    if data.observed_factors is None:
        return {}
    times = data.coverage.times
    return {
        name: factor_correlations(band, times, data.observed_factors, data.observed_factor_names)
        for name, band in data.bands.items()
        if not set(band.names) <= set(data.observed_factor_names)
    }


def distinct_paths(data: RunData) -> dict[str, TangencyPath]:
    """First predictor's name -> path: predictors that share a structural model share its factors."""
    kept: dict[str, TangencyPath] = {}
    for name, path in data.tangencies.items():
        if not any(np.array_equal(path.returns, former.returns, equal_nan=True) for former in kept.values()):
            kept[name] = path
    return kept


def _forecast_periods(data: RunData) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
    """Realised periods that were forecast, and where they stand among `coverage.times`."""
    forecast = np.unique(data.target_times[np.isfinite(data.realised)])
    where = np.isin(data.coverage.times, forecast)
    return data.coverage.times[where], where


def _on(times: npt.NDArray[np.generic], path: TangencyPath) -> FloatArray:
    """(S,) returns of a path on the given periods."""
    out = np.full(len(times), np.nan)
    _, here, there = np.intersect1d(times, path.times, return_indices=True)
    out[here] = path.returns[there]
    return out


def _in_sample(factors: FloatArray, per_year: float) -> float:
    known = factors[np.isfinite(factors).all(axis=1)]
    try:
        weights = tangency_weights(known)
    except InsufficientDataError:
        return float("nan")
    earned = known @ weights
    return float(earned.mean() / earned.std() * np.sqrt(per_year)) if earned.std() > 0 else float("nan")
