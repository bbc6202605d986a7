"""Figures of what a factor model found: how many factors, their paths with bands, weights, grids of R²."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import FactorCounts
from latentfactors.nowcast.fans import normal_quantile
from latentfactors.report.style import (
    DIVERGING,
    MOST_LINES,
    PALETTE,
    SHADE,
    as_dates,
    finished,
    go,
    shortened,
    stacked,
)
from latentfactors.state import LatentFactorState

__all__ = ["factor_bands_figure", "r_squared_heat_map", "scree_figure", "weights_figure"]

FloatArray = npt.NDArray[np.float64]

_RISING = ((0.0, "#F7F7F7"), (1.0, "#5AA3CE"))


def scree_figure(counts: FactorCounts, *, most: int = 20) -> go.Figure:
    """Eigenvalues as shares of the total variance, and what every criterion says about their number.

    Parameters
    ----------
    counts
        Of `evaluate.number_of_factors`.
    most
        Eigenvalues shown.

    Examples
    --------
    >>> from latentfactors.evaluate import number_of_factors
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=80, n_assets=30, n_factors=3, seed=1).panel
    >>> figure = scree_figure(number_of_factors(panel))
    >>> len(figure.data[0].x)
    20
    """
    shares = 100.0 * counts.eigenvalues[:most]
    places = np.arange(1, shares.size + 1)
    figure = stacked(2, [0.6, 0.4])
    figure.add_bar(
        x=places, y=shares, marker={"color": PALETTE[0]}, name="share of variance",
        hovertemplate="factor %{x}: %{y:.1f}%<extra></extra>", showlegend=False, row=1, col=1,
    )  # fmt: skip
    chosen = {name: k for name, k in counts.chosen.items() if k <= shares.size}
    figure.add_scatter(
        x=list(chosen.values()), y=list(chosen), mode="markers", marker={"size": 9, "color": PALETTE[1]},
        hovertemplate="%{y}: %{x}<extra></extra>", showlegend=False, row=2, col=1,
    )  # fmt: skip
    figure.update_yaxes(title_text="share of variance", ticksuffix="%", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(autorange="reversed", dtick=1, row=2, col=1)
    # a criterion that names the largest number tried may only have been stopped there
    figure.add_vline(
        x=counts.max_factors, line={"dash": "dot", "width": 1, "color": "#9AA0A6"},
        row=2, col=1,  # pyright: ignore[reportArgumentType] (numbers, as everywhere else)
        annotation={"text": "largest tried", "font": {"size": 12}}, annotation_position="bottom right",
    )  # fmt: skip
    figure.update_xaxes(range=[-0.6, shares.size + 0.6])
    figure.update_xaxes(title_text="number of factors", row=2, col=1)
    return finished(figure, "Eigenvalues, and the number of factors by criterion", 580, legend=False)


def factor_bands_figure(
    state: LatentFactorState, *, level: float = 0.9, factors: Sequence[str] = ()
) -> go.Figure:
    """Every factor over time with the band that holds it with a given probability, given the parameters.

    Parameters
    ----------
    state
        Of a model whose factors have a posterior (PTFA, DFM, probabilistic PCA).
    level
        Probability of the band, period by period.
    factors
        Names of those to draw; none: all.

    Raises
    ------
    ConfigurationError
        A level outside (0, 1), an unknown factor.
    InsufficientDataError
        A state whose factors have no covariance.

    Examples
    --------
    >>> from latentfactors.models.pca import PCAConfig, PCAModel
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel
    >>> model = PCAModel(PCAConfig(n_factors=2, probabilistic=True))
    >>> _ = model.fit(panel)
    >>> len(factor_bands_figure(model.extract(panel)).data)
    4
    """
    if not 0.0 < level < 1.0:
        raise ConfigurationError(f"level must lie between 0 and 1, got {level!r}")
    found = state.factors
    if found.covariance is None:
        raise InsufficientDataError(
            "the state's factors come without a covariance: draw those of a model with a posterior (PTFA, "
            "DFM, PCA with probabilistic=True)"
        )
    unknown = [name for name in factors if name not in found.names]
    if unknown:
        raise ConfigurationError(f"factors: no {', '.join(unknown)} among {', '.join(found.names)}")
    shown = [found.names.index(name) for name in (factors or found.names)]
    z = normal_quantile(0.5 + level / 2)
    figure = stacked(len(shown), [1.0 / len(shown)] * len(shown))
    x = as_dates(state.index.times)
    for row, k in enumerate(shown, start=1):
        mean = found.values[:, k]
        half = z * np.sqrt(found.covariance[:, k, k])
        known = np.isfinite(mean) & np.isfinite(half)
        figure.add_scatter(
            x=np.concatenate([x[known], x[known][::-1]]),
            y=np.concatenate([(mean + half)[known], (mean - half)[known][::-1]]),
            fill="toself", fillcolor=SHADE, line={"width": 0}, hoverinfo="skip",
            name=f"{level:.0%} band", legendgroup="band", showlegend=row == 1, row=row, col=1,
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=mean, mode="lines", line={"color": PALETTE[0], "width": 1.6}, name="factor",
            legendgroup="factor", showlegend=row == 1, row=row, col=1,
            hovertemplate="%{x}: %{y:.2f}<extra></extra>",
        )  # fmt: skip
        figure.update_yaxes(title_text=html.escape(found.names[k]), row=row, col=1)
    kind = {"smoothed": "given all periods", "filtered": "given the past and the present"}
    when = kind.get(found.information, "of each period's own values")
    return finished(figure, f"Factors, {when}", 160 + 170 * len(shown))


def weights_figure(weights: Mapping[str, Mapping[str, float]], *, title: str = "Weights") -> go.Figure:
    """Bars of the weights that series have in one index or several, the largest of the first index on top.

    Parameters
    ----------
    weights
        Index -> series -> weight.
    title
        Of the figure.

    Raises
    ------
    InsufficientDataError
        No index or no series.

    Examples
    --------
    >>> figure = weights_figure({"conditions": {"spread": 0.6, "volatility": -0.3}})
    >>> list(figure.data[0].y)
    ['volatility', 'spread']
    """
    first = next(iter(weights.values()), {})
    if not first:
        raise InsufficientDataError("weights: give at least one index with one series")
    names = sorted(first, key=lambda name: abs(first[name]))[-MOST_LINES:]
    figure = go.Figure()
    for i, (index, own) in enumerate(weights.items()):
        figure.add_bar(
            x=[own.get(name, np.nan) for name in names], y=[html.escape(shortened(n)) for n in names],
            orientation="h", name=html.escape(index), marker={"color": PALETTE[i % len(PALETTE)]},
            hovertemplate="%{y}: %{x:.3f}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": PALETTE[6], "width": 1})
    figure.update_layout(barmode="group", bargap=0.25)
    height = 130 + (14 + 8 * len(weights)) * len(names)
    finished(figure, title, height, legend=len(weights) > 1)
    return figure.update_layout(legend_y=-40 / height)


def r_squared_heat_map(
    values: npt.ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    row_name: str = "",
    column_name: str = "",
    difference: bool = False,
) -> go.Figure:
    """A grid of R² or of differences between two, with its numbers in the cells.

    Parameters
    ----------
    values : (I, J)
        NaN where there is none.
    rows, columns
        I and J labels.
    title, row_name, column_name
        Of the figure and its axes.
    difference
        Two colours around zero; otherwise one, from zero to the largest.

    Raises
    ------
    ConfigurationError
        Labels that do not fit the values.

    Examples
    --------
    >>> grid = [[0.4, 0.2], [0.3, 0.1]]
    >>> figure = r_squared_heat_map(grid, ["quiet x", "noisy x"], ["quiet y", "noisy y"], title="R²")
    >>> figure.data[0].text[0][1]
    '0.20'
    """
    grid = np.asarray(values, dtype=np.float64)
    if grid.shape != (len(rows), len(columns)):
        raise ConfigurationError(
            f"values are {grid.shape}, labels make {(len(rows), len(columns))}: give one label a line"
        )
    limit = float(np.nanmax(np.abs(grid), initial=0.0)) or 1.0
    text = [
        ["" if not np.isfinite(v) else f"{round(v, 2) + 0.0:.2f}".replace("-", "−") for v in line]
        for line in grid
    ]
    figure = go.Figure(
        go.Heatmap(
            z=grid, x=[html.escape(c) for c in columns], y=[html.escape(r) for r in rows], text=text,
            texttemplate="%{text}", zmin=-limit, zmax=limit, xgap=1, ygap=1,
            colorscale=DIVERGING, colorbar={"thickness": 12, "title": {"text": "R²"}},
            hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
        )
    )  # fmt: skip
    if not difference:
        figure.update_traces(zmin=0.0, colorscale=_RISING)
    figure.update_yaxes(title_text=row_name, autorange="reversed", type="category")
    figure.update_xaxes(title_text=column_name, type="category")
    return finished(figure, title, 170 + 44 * len(rows), legend=False)
