"""Figures of results: every public function takes a library result and returns a plotly `Figure`.

The colours are those of Okabe & Ito, told apart by all kinds of colour vision; where there are more lines
than colours, dashes go on. Decimal returns are shown in percent.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, MissingCapabilityError
from latentfactors.evaluate import PortfolioSort
from latentfactors.panel import Panel
from latentfactors.report.data import (
    Coverage,
    Exposures,
    FactorBand,
    FitHistory,
    coverage_of,
    exposures_of,
    factor_band,
    fit_history,
)
from latentfactors.report.style import (
    DIVERGING,
    MOST_LINES,
    PALETTE,
    SHADE,
    as_dates,
    finished,
    go,
    line_style,
    shortened,
    stacked,
)
from latentfactors.state import LatentFactorState
from latentfactors.track_record import TrackRecord, WalkForwardResult

__all__ = [
    "calibration_figure",
    "coverage_figure",
    "errors_figure",
    "factors_figure",
    "fits_figure",
    "loadings_figure",
    "long_short_figure",
]

FloatArray = npt.NDArray[np.float64]
Scored = WalkForwardResult | TrackRecord


def coverage_figure(panel: Panel | Coverage) -> go.Figure:
    """Assets in every period, those with a value among them, and the share of values that are missing.

    Examples
    --------
    >>> from latentfactors.simulate import static_panel
    >>> figure = coverage_figure(static_panel(n_periods=30, n_assets=10, n_factors=2, seed=1).panel)
    >>> int(figure.data[0].y[0])
    10
    """
    found = coverage_of(panel) if isinstance(panel, Panel) else panel
    figure = stacked(2, [0.62, 0.38])
    x = as_dates(found.times)
    for name, counts, style in (
        ("in the universe", found.n_assets, {"color": PALETTE[6], "dash": "dot"}),
        ("with a value", found.n_observed, {"color": PALETTE[0]}),
    ):
        figure.add_scatter(x=x, y=counts, name=name, mode="lines", line={"width": 1.8, **style}, row=1, col=1)
    figure.add_scatter(
        x=x, y=100 * found.missing, mode="lines", fill="tozeroy", line={"color": PALETTE[1], "width": 1.2},
        name="missing values", row=2, col=1, showlegend=False,
    )  # fmt: skip
    figure.update_yaxes(title_text="assets", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="missing", ticksuffix="%", rangemode="tozero", row=2, col=1)
    if np.nanmax(found.missing, initial=0.0) == 0:
        figure.update_yaxes(range=[0, 10], row=2, col=1)
    return finished(figure, "Assets per period and share of missing values", 380)


def fits_figure(results: Mapping[str, WalkForwardResult | FitHistory]) -> go.Figure:
    """Time of every refit, by the first period it forecasts; a cross marks one that did not converge."""
    figure = go.Figure()
    for i, (name, each) in enumerate(results.items()):
        fits = fit_history(each) if isinstance(each, WalkForwardResult) else each
        marks = np.where(fits.converged, "circle", "x")
        figure.add_scatter(
            x=as_dates(fits.starts), y=1000 * fits.seconds, name=html.escape(name), mode="lines+markers",
            line={**line_style(i), "width": 1}, marker={"symbol": marks, "size": 5},
            customdata=fits.iterations,
            hovertemplate="%{x}: %{y:.1f} ms, %{customdata} iterations<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_yaxes(title_text="milliseconds, log scale", type="log", dtick=1)
    figure.update_xaxes(title_text="first period forecast by the refit")
    return finished(figure, "Time of every refit", 360)


def factors_figure(result: WalkForwardResult | FactorBand) -> go.Figure:
    """Every factor over time: the latest refit that covers a period, and the range over all refits.

    Refits are put in each other's order and signs first; a wide band says that they disagree about the past.

    Raises
    ------
    MissingCapabilityError
        The predictor has no factors.
    """
    if isinstance(result, FactorBand):
        band = result
    else:
        paths = result.factor_paths()
        if not paths:
            raise MissingCapabilityError(f"{result.predictor} has no factors to show")
        band = factor_band(paths)
    n_factors = band.values.shape[1]
    figure = stacked(n_factors, [1.0] * n_factors)
    x = as_dates(band.times)
    for k, name in enumerate(band.names):
        row: dict[str, Any] = {"row": k + 1, "col": 1}
        none = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        figure.add_scatter(x=x, y=band.low[:, k], **none, **row)
        figure.add_scatter(
            x=x, y=band.high[:, k], mode="lines", line={"width": 0}, fill="tonexty", fillcolor=SHADE,
            hoverinfo="skip", name="range over refits", legendgroup="band", showlegend=k == 0, **row,
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=band.values[:, k], mode="lines", line={"color": PALETTE[0], "width": 1},
            name="latest refit", legendgroup="latest", showlegend=k == 0, **row,
        )  # fmt: skip
        figure.update_yaxes(title_text=html.escape(name), nticks=4, **row)
    title = f"Factors in the model's scale, {band.n_refits} aligned refits"
    return finished(figure, title, 90 + 120 * n_factors)


def loadings_figure(loadings: Exposures | LatentFactorState) -> go.Figure:
    """Heat map of loadings, one colour scale around zero; of many lines those with the largest loadings.

    Examples
    --------
    >>> from latentfactors.models.pca import PCAConfig, PCAModel
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel
    >>> model = PCAModel(PCAConfig(n_factors=2))
    >>> _ = model.fit(panel)
    >>> loadings_figure(model.extract(panel)).data[0].z.shape
    (10, 2)
    """
    found = exposures_of(loadings) if isinstance(loadings, LatentFactorState) else loadings
    values, labels = found.values, np.array(found.labels)
    size = np.nan_to_num(np.abs(values)).max(axis=1)
    shown = np.sort(np.argsort(-size, kind="stable")[:MOST_LINES])
    limit = float(size.max()) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=values[shown], x=[html.escape(name) for name in found.factor_names],
            y=[html.escape(shortened(label)) for label in labels[shown]],
            zmin=-limit, zmax=limit, colorscale=DIVERGING, xgap=1, ygap=1,
            colorbar={"thickness": 12, "len": 0.9, "outlinewidth": 0},
            hovertemplate="%{y}, %{x}: %{z:.3g}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, dtick=1, type="category")
    figure.update_xaxes(side="top", showgrid=False, type="category")
    few = "" if len(shown) == len(labels) else f", the {len(shown)} largest of {len(labels):,}"
    title = f"Loadings of {found.kind} on factors, last refit (data to {found.when}){few}"
    finished(figure, title, 84 + 18 * len(shown))
    return figure.update_layout(margin={"t": 72, "b": 12})


def calibration_figure(
    result: Scored, *, n_bins: int = 10, cells: npt.NDArray[np.bool_] | None = None, percent: bool = True
) -> go.Figure:
    """Forecasts in bins of equal size against what came true, with 95% intervals clustered by period.

    Points on the dotted line: the forecasts are right on average. A flat line: they tell nothing.

    Parameters
    ----------
    result
        A walk-forward or its record.
    n_bins
        Bins of equal numbers of forecasts.
    cells : (R,) bool, optional
        Rows to use, such as those that all predictors forecast.
    percent
        Show decimal values in percent.

    Raises
    ------
    InsufficientDataError
        Forecasts that hardly differ: there are no bins to make.
    """
    record = _record(result)
    mean_forecast, mean_realised, errors, counts = calibration(record, n_bins, cells)
    unit = 100.0 if percent else 1.0
    x, y = unit * mean_forecast, unit * mean_realised
    ends = [min(x.min(), 0.0), max(x.max(), 0.0)]
    figure = go.Figure()
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": PALETTE[6], "dash": "dot", "width": 1.2},
        hoverinfo="skip", name="forecast = realised",
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=y, mode="markers+lines", line={"color": PALETTE[0], "width": 1.2}, marker={"size": 7},
        error_y={"array": unit * 1.96 * errors, "thickness": 1, "width": 3}, name="mean of a bin",
        customdata=counts,
        hovertemplate="forecast %{x:.3g}, realised %{y:.3g}, %{customdata} cells<extra></extra>",
    )  # fmt: skip
    suffix = "%" if percent else ""
    figure.update_xaxes(title_text="mean forecast", ticksuffix=suffix)
    figure.update_yaxes(title_text="mean realised", ticksuffix=suffix)
    return finished(figure, "Realised values by forecast", 300, legend=False)


def errors_figure(results: Mapping[str, Scored]) -> go.Figure:
    """Squared errors saved against each asset's historical mean, added up over time.

    In percent of the benchmark's whole squared error, so every line ends at the out-of-sample R2 against the
    mean. Rising: better than the benchmark in these months; one jump: a single event decided.
    """
    records = {name: _record(each) for name, each in results.items()}
    cells = common_cells(records)
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": PALETTE[6], "width": 1})
    for i, (name, record) in enumerate(records.items()):
        if np.isfinite(record.forecast).any():
            times, saved = cumulative_saving(record, cells)
            figure.add_scatter(
                x=as_dates(times), y=100 * saved, mode="lines", line=line_style(i), name=html.escape(name)
            )
    figure.update_yaxes(title_text="squared error saved", ticksuffix="%")
    return finished(figure, "Cumulative squared error saved against the historical mean", 420)


def long_short_figure(
    sorts: Mapping[str, PortfolioSort], *, percent: bool = True, order: Sequence[str] = ()
) -> go.Figure:
    """Long-short returns added up over time (not compounded), before cost.

    Parameters
    ----------
    sorts
        Name -> what `evaluate.sort_portfolios` returned.
    percent
        Show decimal values in percent.
    order
        All names of a comparison, so that a line has the colour that it has in the other figures.
    """
    places = list(order) or list(sorts)
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": PALETTE[6], "width": 1})
    for name, each in sorts.items():
        earned = np.nancumsum(each.long_short) * (100.0 if percent else 1.0)
        figure.add_scatter(
            x=as_dates(each.times), y=earned, mode="lines", line=line_style(places.index(name)),
            name=html.escape(name),
        )  # fmt: skip
    figure.update_yaxes(title_text="sum of returns", ticksuffix="%" if percent else "")
    return finished(figure, "Cumulative long-short return, top minus bottom quantile", 420)


# ------------------------------------------------------------------------------------ what is drawn


def common_cells(records: Mapping[str, TrackRecord]) -> npt.NDArray[np.bool_]:
    """(R,) known values with a historical mean that every predictor with forecasts has forecast.

    Raises
    ------
    ConfigurationError
        Records of different rows.
    """
    first = next(iter(records.values()))
    cells = np.isfinite(first.realised) & np.isfinite(first.historical_mean)
    for name, each in records.items():
        if not np.array_equal(each.target_times, first.target_times):
            raise ConfigurationError(
                f"{name!r} has other rows than the first: compare runs on one set of splits"
            )
        if np.isfinite(each.forecast).any():
            cells &= np.isfinite(each.forecast)
    return cells


def calibration(
    record: TrackRecord, n_bins: int, cells: npt.NDArray[np.bool_] | None = None
) -> tuple[FloatArray, FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Mean forecast, mean realised value, its standard error and size of every bin.

    Values of one period move together, so the error sums their deviations within the period before squaring.
    """
    known = np.isfinite(record.forecast) & np.isfinite(record.realised)
    known = known if cells is None else known & cells
    forecast, realised = record.forecast[known], record.realised[known]
    period = np.unique(record.target_times[known], return_inverse=True)[1]
    inner = np.quantile(forecast, np.arange(1, n_bins) / n_bins) if forecast.size else np.empty(0)
    code = np.unique(np.searchsorted(inner, forecast), return_inverse=True)[1]
    counts = np.bincount(code)
    if counts.size < 2:
        raise InsufficientDataError("the forecasts are all alike: there are no bins to make of them")
    mean_forecast = np.bincount(code, forecast) / counts
    mean_realised = np.bincount(code, realised) / counts
    clusters = np.zeros((counts.size, period.max() + 1))
    np.add.at(clusters, (code, period), realised - mean_realised[code])
    return mean_forecast, mean_realised, np.sqrt(np.square(clusters).sum(axis=1)) / counts, counts


def cumulative_saving(
    record: TrackRecord, cells: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[Any], FloatArray]:
    """Periods, and sum of (r - mean)^2 - (r - forecast)^2 up to each, over the sum of all (r - mean)^2."""
    benchmark = np.square(record.realised - record.historical_mean)
    saved = np.where(cells, benchmark - np.square(record.realised - record.forecast), 0.0)
    starts = [a for a, b in pairwise(record.offsets) if b > a]
    total = float(benchmark[cells].sum())
    path = np.cumsum(np.add.reduceat(saved, starts))
    return record.target_times[starts], path / total if total else path * np.nan


def _record(result: Scored) -> TrackRecord:
    return result.record if isinstance(result, WalkForwardResult) else result
