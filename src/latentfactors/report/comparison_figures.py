"""Figures of a comparison: R2 against both benchmarks, and the tests of all pairs."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from latentfactors.evaluate.comparison import DieboldMarianoTable
from latentfactors.report.style import DIVERGING, PALETTE, finished, go, shortened

__all__ = ["diebold_mariano_figure", "r2_figure"]

_SHADED_TO = 4.0  # statistics beyond it have the full colour
_LOWEST = -2.0  # times the best R2: one hopeless predictor must not flatten all others


def r2_figure(table: Any) -> go.Figure:
    """Out-of-sample R2 of every predictor against a forecast of zero and against the historical mean.

    The axis ends at twice the best R2 below zero; a bar that is cut there has its number written on it.

    Parameters
    ----------
    table
        A polars frame with name, r2_zero and r2_mean: `Comparison.table()` or `evaluate.metrics_table`.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame({"name": ["a", "b"], "r2_zero": [0.01, 0.0], "r2_mean": [0.0, -0.02]})
    >>> [bars.x.tolist() for bars in r2_figure(table).data]
    [[1.0, 0.0], [0.0, -2.0]]
    """
    names = [html.escape(shortened(name)) for name in table["name"].to_list()]
    figure = go.Figure()
    shown: list[float] = []
    for label, column, colour in (
        ("against zero", "r2_zero", PALETTE[0]),
        ("against the historical mean", "r2_mean", PALETTE[4]),
    ):
        values = 100.0 * table[column].to_numpy().astype(np.float64)
        shown += values[np.isfinite(values)].tolist()
        figure.add_bar(
            x=values, y=names, orientation="h", name=label, marker={"color": colour},
            text=[f"{value:.2f}%" if np.isfinite(value) else "" for value in values], textposition="auto",
            hovertemplate="%{y}: %{x:.3f}%<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    top = max([*shown, 0.0]) or 1.0
    low = max(min([*shown, 0.0]), _LOWEST * top)
    figure.add_vline(x=0, line={"color": PALETTE[6], "width": 1})
    figure.update_layout(barmode="group", bargap=0.25, uniformtext={"minsize": 9, "mode": "show"})
    room = 0.22 * (top - low)  # for the numbers beside short bars
    figure.update_xaxes(
        title_text="out-of-sample R²", ticksuffix="%", range=[low - room * (low < 0), top + room]
    )
    figure.update_yaxes(autorange="reversed", automargin=True, type="category", showgrid=False)
    return finished(figure, "R² against both benchmarks", 130 + 38 * len(names))


def diebold_mariano_figure(found: DieboldMarianoTable) -> go.Figure:
    """Heat map of the statistics of all pairs, written in; blue: the column forecasts better than the row.

    Examples
    --------
    >>> found = DieboldMarianoTable(
    ...     names=("a", "b"),
    ...     statistics=np.array([[np.nan, 2.0], [-2.0, np.nan]]),
    ...     p_values=np.array([[np.nan, 0.05], [0.05, np.nan]]),
    ...     n_periods=60,
    ...     lags=4,
    ... )
    >>> diebold_mariano_figure(found).data[0].text.tolist()
    [['', '2.0'], ['-2.0', '']]
    """
    names = [html.escape(shortened(name)) for name in found.names]
    text = [[f"{value:.1f}" if np.isfinite(value) else "" for value in row] for row in found.statistics]
    figure = go.Figure(
        go.Heatmap(
            z=found.statistics, text=np.array(text), texttemplate="%{text}", x=names, y=names,
            customdata=found.p_values, zmin=-_SHADED_TO, zmax=_SHADED_TO, colorscale=DIVERGING, xgap=1,
            ygap=1, colorbar={"thickness": 12, "len": 0.9, "outlinewidth": 0},
            hovertemplate="%{x} against %{y}: %{z:.2f}, p %{customdata:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, dtick=1, type="category")
    figure.update_xaxes(side="top", showgrid=False, automargin=True, dtick=1, type="category", tickangle=-90)
    finished(figure, f"Diebold-Mariano, {found.n_periods} periods", 230 + 30 * len(names))
    return figure.update_layout(margin={"t": 150, "b": 12})
