"""Figures of pricing: alphas of test assets, tangency portfolios, correlations with observed factors."""

from __future__ import annotations

import html
from collections.abc import Mapping

import numpy as np

from latentfactors.evaluate.priced_assets import PricedAssets
from latentfactors.evaluate.tangency import TangencyPath
from latentfactors.report.pricing import FactorCorrelations
from latentfactors.report.style import DIVERGING, PALETTE, as_dates, finished, go, line_style

__all__ = ["alphas_figure", "correlations_figure", "tangency_figure"]


def alphas_figure(priced: Mapping[str, PricedAssets]) -> go.Figure:
    """t statistics of the alphas of all test assets, sorted, a line per model; the band is ±1.96.

    A model that prices the assets leaves a twentieth of them outside the band.

    Parameters
    ----------
    priced
        Name of a model -> what `evaluate.price_assets` returned.

    Examples
    --------
    >>> from latentfactors.evaluate import price_assets
    >>> rng = np.random.default_rng(0)
    >>> found = price_assets(rng.normal(size=(60, 5)), rng.normal(size=60))
    >>> len(alphas_figure({"noise": found}).data[0].y)
    5
    """
    figure = go.Figure()
    figure.add_hrect(y0=-1.96, y1=1.96, fillcolor="rgba(89, 89, 89, 0.12)", line_width=0)
    for i, (name, found) in enumerate(priced.items()):
        t = np.sort(found.t_statistics[np.isfinite(found.t_statistics)])
        share = 100 * (np.arange(t.size) + 0.5) / max(t.size, 1)
        figure.add_scatter(
            x=share, y=t, mode="lines", line=line_style(i), name=html.escape(name),
            hovertemplate="t %{y:.2f}, %{x:.0f}% of assets below<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="share of test assets", ticksuffix="%")
    figure.update_yaxes(title_text="t of alpha (Newey-West)")
    return finished(figure, "Alphas of the test assets, sorted by their t", 400)


def tangency_figure(paths: Mapping[str, TangencyPath]) -> go.Figure:
    """Returns of tangency portfolios out of sample, added up, in expected standard deviations of a period.

    Examples
    --------
    >>> times = np.array(["2020-01-31", "2020-02-29"], dtype="M8[D]")
    >>> path = TangencyPath(times=times, returns=np.array([1.0, 0.5]), n_factors=2, n_refits=1)
    >>> tangency_figure({"PCA": path}).data[0].y.tolist()
    [1.0, 1.5]
    """
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": PALETTE[6], "width": 1})
    for i, (name, path) in enumerate(paths.items()):
        figure.add_scatter(
            x=as_dates(path.times), y=np.nancumsum(path.returns), mode="lines", line=line_style(i),
            name=html.escape(name),
        )  # fmt: skip
    figure.update_yaxes(title_text="expected standard deviations")
    return finished(figure, "Tangency portfolios of the factors, out of sample", 420)


def correlations_figure(found: FactorCorrelations) -> go.Figure:
    """Heat map of the correlations of latent factors with observed ones, the numbers written in.

    Examples
    --------
    >>> found = FactorCorrelations(
    ...     values=np.array([[0.9, -0.1]]), factor_names=("F1",), observed_names=("Mkt", "HML"), n_periods=60
    ... )
    >>> correlations_figure(found).data[0].text.tolist()
    [['0.90', '-0.10']]
    """
    text = np.array([[f"{value:.2f}" if np.isfinite(value) else "" for value in row] for row in found.values])
    figure = go.Figure(
        go.Heatmap(
            z=found.values, text=text, texttemplate="%{text}",
            x=[html.escape(name) for name in found.observed_names],
            y=[html.escape(name) for name in found.factor_names],
            zmin=-1, zmax=1, colorscale=DIVERGING, xgap=1, ygap=1,
            colorbar={"thickness": 12, "len": 0.9, "outlinewidth": 0},
            hovertemplate="%{y} with %{x}: %{z:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, dtick=1, type="category")
    figure.update_xaxes(side="top", showgrid=False, type="category")
    title = f"Correlations with observed factors, {found.n_periods} periods"
    finished(figure, title, 110 + 30 * len(found.factor_names))
    return figure.update_layout(margin={"t": 72, "b": 12})
