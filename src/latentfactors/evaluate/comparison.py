"""What a comparison found: every predictor scored on the same cells, and which differences are no accident.

Cells            known values that all predictors forecast; everything below is of these alone
Scores           R2 against zero and against each asset's mean so far, RMSE, MAE, rank IC
Total R2         of reconstructions with realised factors, on the cells that all models with factors describe
Portfolios       top minus bottom quantile of each forecast, equal weights, among the rows that all predictors
                 forecast, whether their value became known or not; t is Newey-West
Diebold-Mariano  d_t = mean over the common cells of period t of (r - row's forecast)^2 - (r - column's)^2:
                 errors of one period are correlated, so a period counts once. Positive: the column was better
Confidence set   on the same mean losses by period, through `arch` where it is installed

References: Diebold & Mariano (1995), JBES 13(3); Gu, Kelly & Xiu (2020), RFS 33(5), 2223-2273, section 1.9
and table 3; Hansen, Lunde & Nason (2011), Econometrica 79(2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import InsufficientDataError, LatentFactorsError, MissingCapabilityError
from latentfactors.estimator import freeze
from latentfactors.evaluate.forecast_sets import ConfidenceSet, model_confidence_set
from latentfactors.evaluate.forecast_tests import equal_accuracy
from latentfactors.evaluate.portfolios import PortfolioSort, sort_portfolios
from latentfactors.evaluate.tables import check_alike
from latentfactors.frames import to_frame
from latentfactors.kernels import scores
from latentfactors.panel import Panel
from latentfactors.state import FitSummary
from latentfactors.track_record import BlockForecast, TrackRecord, WalkForwardResult
from latentfactors.validate import count

__all__ = [
    "CommonCells", "Comparison", "DieboldMarianoTable", "common_forecasts", "confidence_set_of",
    "diebold_mariano_table", "period_losses", "quantiles_for", "sort_forecasts", "whole_records",
]  # fmt: skip

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_SCORES = ("r2_zero", "r2_mean", "rank_ic", "rank_ic_t", "rmse", "mae")


@dataclass(frozen=True, kw_only=True)
class CommonCells:
    """Which cells the scores are of.

    Attributes
    ----------
    n_cells, n_known
        Common cells, of this many values that are known in the forecast blocks.
    n_periods, first, last
        Periods with a common cell, and the first and last of them.
    n_total
        Cells that all models with realised factors describe, which total R2 is of.
    own
        Name -> the predictor's own forecasts of known values.
    lost
        Name -> cells that this predictor alone keeps from being common.
    """

    n_cells: int
    n_known: int
    n_periods: int
    first: str
    last: str
    n_total: int
    own: Mapping[str, int]
    lost: Mapping[str, int]

    def __str__(self) -> str:
        text = (
            f"{self.n_cells:,} of {self.n_known:,} known values are forecast by all {len(self.own)} "
            f"predictors: {count(self.n_periods, 'period')}, {self.first} to {self.last}"
        )
        for name, n in self.lost.items():
            if n:
                text += f"; {name} alone leaves out {n:,}"
        return text


@dataclass(frozen=True, eq=False, kw_only=True)
class DieboldMarianoTable:
    """Tests of equal accuracy of every pair of predictors.

    Attributes
    ----------
    names
        M predictors.
    statistics, p_values : (M, M)
        Row against column, two-sided; positive: the column was better. NaN on the diagonal, and for
        forecasts that are the same.
    n_periods, lags
        Periods used, Newey-West lags.
    """

    names: tuple[str, ...]
    statistics: FloatArray
    p_values: FloatArray
    n_periods: int
    lags: int

    def __post_init__(self) -> None:
        freeze(self)

    def frame(self, backend: str = "polars") -> Any:
        """One line per row predictor, one column per column predictor."""
        columns: dict[str, npt.NDArray[Any]] = {"name": np.array(self.names)}
        columns |= {name: self.statistics[:, j].copy() for j, name in enumerate(self.names)}
        return to_frame(columns, backend)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Comparison:
    """Predictors side by side: what `compare` returns. Tests and portfolios are computed when asked for.

    Attributes
    ----------
    results
        Name -> walk-forward, all on one panel, horizon and set of splits.
    sees
        Name -> what its forecasts are made from: "characteristics", "own history", "observed factors", ...
    left_out
        Name -> why a predictor could not run.
    notes
        Remarks on how the comparison was run.
    n_quantiles
        Of the portfolios; None: 10, 5, 3 or 2, by how many assets a typical period has.
    size
        1 - confidence of the confidence set.

    Examples
    --------
    >>> from latentfactors.evaluate import compare
    >>> from latentfactors.models.direct import HistoricalMeanPredictor, ZeroPredictor
    >>> from latentfactors.simulate import static_panel
    >>> from latentfactors.splits import ExpandingWindow
    >>> panel = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel
    >>> models = {"mean": HistoricalMeanPredictor(), "zero": ZeroPredictor()}
    >>> found = compare(panel, models, splits=ExpandingWindow(first=36, step=12))
    >>> print(found.cells)
    240 of 240 known values are forecast by all 2 predictors: 24 periods, 1993-01-31 to 1994-12-31
    >>> found.table()["sees"].to_list(), found.table()["r2_mean"][0]
    (['own history', 'nothing'], 0.0)
    """

    results: Mapping[str, WalkForwardResult]
    sees: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    n_quantiles: int | None = None
    size: float = 0.1

    def __post_init__(self) -> None:
        check_alike(self.results)

    @property
    def panel(self) -> Panel:
        """The data that all ran on."""
        return next(iter(self.results.values())).panel

    @property
    def horizon(self) -> int:
        """Row p forecasts period p + horizon - 1."""
        return next(iter(self.results.values())).horizon

    @cached_property
    def records(self) -> dict[str, TrackRecord]:
        """Name -> forecasts beside what came true, all on the same rows; NaN where a split failed."""
        return whole_records(self.results)

    @cached_property
    def mask(self) -> BoolArray:
        """(R,) rows of the records that are common cells."""
        return common_forecasts(self.records) & np.isfinite(self._one.realised)

    @cached_property
    def cells(self) -> CommonCells:
        """Which cells the scores are of."""
        known = np.isfinite(self._one.realised)
        forecast = {name: np.isfinite(each.forecast) for name, each in self.records.items()}
        rivals = {name: each for name, each in forecast.items() if each.any()}
        lacking = sum((~each & known for each in rivals.values()), np.zeros(known.size, dtype=np.int64))
        times = np.unique(self._one.target_times[self.mask])
        return CommonCells(
            n_cells=int(self.mask.sum()),
            n_known=int(known.sum()),
            n_periods=times.size,
            first=str(times[0]) if times.size else "",
            last=str(times[-1]) if times.size else "",
            n_total=int(self._described.sum()),
            own={name: int((each & known).sum()) for name, each in forecast.items()},
            lost={
                name: int((~each & known & (lacking == 1)).sum()) if name in rivals else 0
                for name, each in forecast.items()
            },
        )

    @cached_property
    def losses(self) -> dict[str, FloatArray]:
        """Name -> (P,) mean squared error by period over the common cells."""
        return period_losses(self.records, self.mask)

    @cached_property
    def diebold_mariano(self) -> DieboldMarianoTable:
        """Every pair's test of equal accuracy."""
        return diebold_mariano_table(self.losses, self.horizon)

    @property
    def confidence_set(self) -> ConfidenceSet | None:
        """The predictors that the best one cannot be told from; None where `confidence_note` says why."""
        return self._confidence[0]

    @property
    def confidence_note(self) -> str:
        """Why there is no confidence set; empty where there is one."""
        return self._confidence[1]

    @property
    def portfolios(self) -> dict[str, PortfolioSort]:
        """Name -> quantile portfolios on its forecasts, among the rows that all predictors forecast."""
        return self._sorts[0]

    @property
    def unsorted(self) -> dict[str, str]:
        """Name -> why its forecasts make no portfolios."""
        return self._sorts[1]

    def table(self, backend: str = "polars") -> Any:
        """One line per predictor.

        Returns
        -------
        frame
            name, sees; r2_zero, r2_mean, rank_ic, rank_ic_t, rmse, mae of the common cells; total_r2 of those
            that all models with factors describe; long_short_sharpe (a year, where the panel has a
            frequency), long_short_t; set_p, the p-value of the confidence set, whose members exceed `size`;
            n_forecasts (the common cells), n_own, n_failed splits, seconds. NaN where something is not
            defined.
        """
        rows = [self._line(name) for name in self.results]
        columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        return to_frame(columns, backend)

    def summary(self) -> dict[str, Any]:
        """What a manifest keeps: what predictors see, who is missing and why, the cells, the notes."""
        return {
            "sees": dict(self.sees),
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
            "cells": str(self.cells),
            "confidence_set": list(self.confidence_set.included) if self.confidence_set else None,
            "confidence_note": self.confidence_note,
        }

    # ---------------------------------------------------------------- the parts

    @property
    def _one(self) -> TrackRecord:
        return next(iter(self.records.values()))

    @cached_property
    def _described(self) -> BoolArray:
        """(R,) rows whose value is known and reconstructed by every model with realised factors."""
        found = [np.isfinite(each.reconstruction) for each in self.records.values()]
        found = [each for each in found if each.any()]
        if not found:
            return np.zeros(self._one.realised.size, dtype=bool)
        return np.isfinite(self._one.own_value) & np.logical_and.reduce(found)

    @cached_property
    def _confidence(self) -> tuple[ConfidenceSet | None, str]:
        return confidence_set_of(self.losses, self.size)

    @cached_property
    def _sorts(self) -> tuple[dict[str, PortfolioSort], dict[str, str]]:
        return sort_forecasts(self.records, self.panel, self.horizon, self.n_quantiles)

    def _line(self, name: str) -> dict[str, Any]:
        record, result = self.records[name], self.results[name]
        found = record.metrics(self.mask)
        described, chosen = self._described, self.confidence_set
        sort = self.portfolios.get(name)
        earned = {} if sort is None else sort.frame().to_dicts()[-1]
        return {
            "name": name,
            "sees": self.sees.get(name, ""),
            **{key: found[key] for key in _SCORES},
            "total_r2": scores.r_squared(record.own_value[described], record.reconstruction[described]),
            "long_short_sharpe": earned.get("sharpe", np.nan),
            "long_short_t": earned.get("t", np.nan),
            "set_p": np.nan if chosen is None else chosen.p_values.get(name, np.nan),
            "n_forecasts": int((self.mask & np.isfinite(record.forecast)).sum()),
            "n_own": self.cells.own[name],
            "n_failed": len(result.failures),
            "seconds": result.seconds,
        }

    def __repr__(self) -> str:
        missing = f", {len(self.left_out)} left out" if self.left_out else ""
        return f"Comparison({count(len(self.results), 'predictor')}{missing}; {self.cells})"


# ------------------------------------------------------------------------------- what all are measured by


_FAILED = BlockForecast(
    expected_values=None, variance=None, weights=None, reconstruction=None, sdf=None, factors=None,
    factor_times=None, factor_names=(), summary=FitSummary(converged=False, reason="failed"), fit_seconds=0.0,
    predict_seconds=0.0,
)  # fmt: skip


def whole_records(results: Mapping[str, WalkForwardResult]) -> dict[str, TrackRecord]:
    """Records over the rows of all splits, also of those that failed: they have rows and no forecasts."""
    return {
        name: replace(
            result, blocks=tuple(_FAILED if block is None else block for block in result.blocks)
        ).record
        for name, result in results.items()
    }


def common_forecasts(records: Mapping[str, TrackRecord]) -> BoolArray:
    """(R,) rows that every predictor with forecasts has forecast, whether their value is known or not."""
    forecast = [np.isfinite(each.forecast) for each in records.values()]
    forecast = [each for each in forecast if each.any()]
    size = next(iter(records.values())).forecast.size
    return np.logical_and.reduce(forecast) if forecast else np.zeros(size, dtype=bool)


def period_losses(records: Mapping[str, TrackRecord], mask: BoolArray) -> dict[str, FloatArray]:
    """Name -> (P,) mean of (r - f)^2 over the cells of each period that has any; without forecasts none."""
    one = next(iter(records.values()))
    period = np.repeat(np.arange(one.offsets.size - 1), np.diff(one.offsets))[mask]
    n_cells = np.bincount(period, minlength=one.offsets.size - 1)
    losses = {}
    for name, each in records.items():
        if np.isfinite(each.forecast).any():
            squared = np.square(each.realised[mask] - each.forecast[mask])
            losses[name] = np.bincount(period, squared, n_cells.size)[n_cells > 0] / n_cells[n_cells > 0]
    return losses


def diebold_mariano_table(losses: Mapping[str, FloatArray], horizon: int = 1) -> DieboldMarianoTable:
    """Diebold-Mariano of all pairs on losses by period (P,); rows against columns.

    The variance is Newey-West's with max(h - 1, ceil(P^(1/3))) lags; the small-sample factor of Harvey,
    Leybourne & Newbold is applied. Not for nested models: `evaluate.clark_west`.

    >>> rng = np.random.default_rng(0)
    >>> found = diebold_mariano_table({"bad": 2 + rng.random(60), "good": 1 + rng.random(60)})
    >>> bool(found.statistics[0, 1] > 5), bool(found.statistics[1, 0] < -5)
    (True, True)
    """
    names = tuple(losses)
    statistics, p_values = np.full((2, len(names), len(names)), np.nan)
    n_periods = len(next(iter(losses.values()))) if losses else 0
    lags = 0
    for i, row in enumerate(names):
        for j, column in enumerate(names[:i]):
            try:
                test = equal_accuracy(np.column_stack([losses[row], losses[column]]), horizon=max(horizon, 1))
            except InsufficientDataError:  # the same forecast twice, or too few periods
                continue
            statistics[i, j], statistics[j, i] = test.statistic, -test.statistic
            p_values[i, j] = p_values[j, i] = test.p_value
            lags = test.lags
    return DieboldMarianoTable(
        names=names, statistics=statistics, p_values=p_values, n_periods=n_periods, lags=lags
    )


def confidence_set_of(
    losses: Mapping[str, FloatArray], size: float = 0.1
) -> tuple[ConfidenceSet | None, str]:
    """The model confidence set and an empty note, or None and the reason.

    Predictors with the same losses in every period enter once and share their p-value: the bootstrap could
    not tell them apart.
    """
    twins: dict[str, str] = {}
    for name, each in losses.items():
        same = (other for other in dict.fromkeys(twins.values()) if np.array_equal(losses[other], each))
        twins[name] = next(same, name)
    distinct = {name: losses[name] for name in dict.fromkeys(twins.values())}
    if len(distinct) < 2:
        return None, "a confidence set needs two different forecasts"
    try:
        found = model_confidence_set(distinct, size=size)
    except (MissingCapabilityError, InsufficientDataError) as reason:
        return None, str(reason)
    order = sorted(losses, key=lambda name: float(losses[name].mean()))
    p_values = {name: found.p_values[twins[name]] for name in order}
    return replace(found, p_values=p_values, included=tuple(n for n in order if p_values[n] > size)), ""


def quantiles_for(offsets: npt.NDArray[np.int64]) -> int:
    """10, 5, 3 or 2 quantiles, by how many rows a typical period has: from 100, 25, 6 on, else."""
    sizes = np.diff(offsets)
    typical = float(np.median(sizes[sizes > 0])) if sizes.any() else 0.0
    return 10 if typical >= 100 else 5 if typical >= 25 else 3 if typical >= 6 else 2


def sort_forecasts(
    records: Mapping[str, TrackRecord],
    panel: Panel,
    horizon: int = 1,
    n_quantiles: int | None = None,
    factors: tuple[str, ...] = (),
) -> tuple[dict[str, PortfolioSort], dict[str, str]]:
    """Name -> quantile portfolios among the rows that all predictors forecast; name -> why there are none.

    A portfolio is formed before values are known, so rows count whether their value became known or not.
    """
    if panel.value_kind == "series":
        return {}, dict.fromkeys(records, "the values are series, not returns: no portfolios")
    one = next(iter(records.values()))
    shared = common_forecasts(records)
    decimal = panel.value_kind in ("return", "excess_return") and not bool(np.any(one.realised < -1))
    sorts: dict[str, PortfolioSort] = {}
    reasons: dict[str, str] = {}
    for name, record in records.items():
        if not np.isfinite(record.forecast).any():
            reasons[name] = "it forecasts no values"
            continue
        try:
            found = sort_portfolios(
                replace(record, forecast=np.where(shared, record.forecast, np.nan)), panel,
                n_quantiles=n_quantiles or quantiles_for(one.offsets), drift=None if decimal else False,
                horizon=horizon, factors=factors,
            )  # fmt: skip
        except LatentFactorsError as error:
            reasons[name] = str(error)
            continue
        if np.isfinite(found.long_short).sum() > 1:
            sorts[name] = found
        else:
            reasons[name] = "its forecasts do not differ between assets, so there is nothing to sort"
    return sorts, reasons
