"""Figures of the credit experiments: every function takes a frame of `evaluate.credit_experiments`."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from latentfactors.errors import ConfigurationError, MissingCapabilityError
from latentfactors.evaluate.credit_experiments import FactorCorrelations

try:
    import plotly.graph_objects as go
except ImportError as error:
    raise MissingCapabilityError(
        "figures need plotly, which is not installed: pip install 'latentfactors[report]'"
    ) from error

__all__ = [
    "comparison_figure",
    "correlation_figure",
    "heterogeneity_figure",
    "masking_figure",
    "normalisation_figure",
    "window_figure",
]

# Okabe & Ito: told apart by all kinds of colour vision
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#595959")


def comparison_figure(table: Any, title: str = "Share of variation explained, by model") -> go.Figure:
    """Bars of total R2 in sample, out of sample and for held-out assets, from `comparison_table`."""
    lines = _lines(table, ("model", "in_total_r2", "out_total_r2", "held_out_r2"))
    names = [html.escape(str(line[0])) for line in lines]
    figure = go.Figure()
    for j, what in enumerate(("in sample", "out of sample", "held-out assets"), start=1):
        figure.add_bar(x=names, y=[100 * line[j] for line in lines], name=what, marker_color=_COLOURS[j - 1])
    figure.update_layout(barmode="group")
    return _finish(figure, title, "", "total R², percent")


def normalisation_figure(table: Any) -> go.Figure:
    """The same bars of `normalisation_experiment`."""
    return comparison_figure(table, "Normalisations of the graph factor model")


def masking_figure(table: Any) -> go.Figure:
    """R2 of hidden cells (solid) and of the others (dotted) by the share hidden: `masking_experiment`."""
    figure = go.Figure()
    lines = _lines(table, ("model", "share", "masked_r2", "unmasked_r2"))
    for i, name in enumerate(dict.fromkeys(line[0] for line in lines)):
        own = [line for line in lines if line[0] == name]
        for j, (group, dash) in enumerate((("hidden", "solid"), ("others", "dot")), start=2):
            figure.add_scatter(
                x=[100 * line[1] for line in own], y=[100 * line[j] for line in own], mode="lines+markers",
                name=f"{html.escape(str(name))}, {group}",
                line={"color": _COLOURS[i % len(_COLOURS)], "dash": dash},
            )  # fmt: skip
    return _finish(figure, "Cells hidden from the extraction", "share hidden, percent", "total R², percent")


def window_figure(table: Any) -> go.Figure:
    """Out-of-sample R2 by the length of the training window, from `window_experiment`."""
    title = "Length of the training window"
    return _curves(table, "length", "out_total_r2", title, "training days")


def heterogeneity_figure(table: Any) -> go.Figure:
    """Held-out R2 by the heterogeneity of the true loadings, from `heterogeneity_experiment`."""
    title = "Where free loadings pay, and where they lose"
    return _curves(table, "heterogeneity", "held_out_r2", title, "standard deviation of true loadings")


def correlation_figure(found: FactorCorrelations) -> go.Figure:
    """Heat map of factor correlations, from `factor_correlations`."""
    names = [html.escape(name) for name in found.names]
    figure = go.Figure(
        go.Heatmap(z=found.correlation, x=names, y=names, zmin=-1, zmax=1, colorscale="RdBu", zmid=0)
    )
    figure.update_yaxes(autorange="reversed")
    number = found.condition_number
    size = "singular" if np.isinf(number) else f"condition number {number:.3g}"
    return _finish(figure, f"Factor correlations ({size})", "", "")


def _curves(table: Any, x: str, y: str, title: str, x_title: str) -> go.Figure:
    figure = go.Figure()
    lines = _lines(table, ("model", x, y))
    for i, name in enumerate(dict.fromkeys(line[0] for line in lines)):
        own = [line for line in lines if line[0] == name]
        figure.add_scatter(
            x=[line[1] for line in own], y=[100 * line[2] for line in own], mode="lines+markers",
            name=html.escape(str(name)), line={"color": _COLOURS[i % len(_COLOURS)]},
        )  # fmt: skip
    return _finish(figure, title, x_title, "R², percent")


def _lines(table: Any, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The named columns of a frame, line by line."""
    missing = [name for name in columns if name not in list(table.columns)]
    if missing:
        raise ConfigurationError(
            f"the frame has no columns {missing}, only {list(table.columns)}: give one of credit_experiments"
        )
    return list(zip(*(list(table[name]) for name in columns), strict=True))


def _finish(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0, "xref": "paper"},
        legend={"orientation": "h", "y": -0.2},
        paper_bgcolor="white",
        plot_bgcolor="white",
    )
    figure.update_xaxes(title_text=x, automargin=True)
    figure.update_yaxes(title_text=y, automargin=True)
    return figure
