"""Figures of learned factors: over time, beside macroeconomic series, by characteristic, as portfolios."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from latentfactors.errors import ConfigurationError
from latentfactors.evaluate.anomalies import FactorSource, factors_of
from latentfactors.evaluate.factor_links import LoadingProfiles, MacroCorrelations
from latentfactors.evaluate.loading_portfolios import LoadingPortfolios
from latentfactors.report.figures import long_short_figure
from latentfactors.report.style import (
    DIVERGING,
    PALETTE,
    as_dates,
    finished,
    go,
    line_style,
    make_subplots,
    shortened,
)
from latentfactors.state import LatentFactorState

__all__ = [
    "learned_factors_figure",
    "loading_portfolios_figure",
    "loading_profiles_figure",
    "macro_correlations_figure",
]

_MOST_PANELS = 12
_MOST_LETTERS = 90  # of column heads that stand side by side without touching


def learned_factors_figure(source: FactorSource, *, cumulative: bool = True) -> go.Figure:
    """Learned factors over time, in units of their standard deviation so that one axis fits all.

    A state's training ends at the vertical line; a walk-forward shows factors out of sample only.

    Parameters
    ----------
    source
        A state, a walk-forward, a panel with observed factors, or portfolios sorted on loadings.
    cumulative
        Whether to add them up over time: premia show as slopes.

    Examples
    --------
    >>> from latentfactors.models.pca import PCAConfig, PCAModel
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel
    >>> model = PCAModel(PCAConfig(n_factors=2))
    >>> _ = model.fit(panel)
    >>> [line.name for line in learned_factors_figure(model.extract(panel)).data]
    ['F1', 'F2']
    """
    times, values, names = factors_of("factors", source)
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": PALETTE[6], "width": 1})
    for k, name in enumerate(names):
        seen = values[np.isfinite(values[:, k]), k]
        spread = float(seen.std()) if seen.size else 0.0
        path = values[:, k] / (spread or 1.0)
        if cumulative:
            path = np.where(np.isfinite(path), np.nancumsum(path), np.nan)
        figure.add_scatter(
            x=as_dates(times), y=path, mode="lines", line=line_style(k), name=html.escape(name)
        )
    if isinstance(source, LatentFactorState) and np.any(times > source.fit_span.end):
        end = as_dates(np.array([source.fit_span.end]))[0]
        figure.add_vline(x=end, line={"color": PALETTE[6], "dash": "dot", "width": 1.2})
    figure.update_yaxes(title_text="standard deviations" + (", added up" if cumulative else ""))
    return finished(figure, f"Learned factors{', cumulative' if cumulative else ''}", 420)


def macro_correlations_figure(found: MacroCorrelations) -> go.Figure:
    """Heat map of correlations of factors with series; a star: Newey-West |t| above 3.

    Examples
    --------
    >>> found = MacroCorrelations(
    ...     values=np.array([[0.31, -0.1]]),
    ...     t_statistics=np.array([[3.4, -1.0]]),
    ...     n_periods=np.array([[300, 300]]),
    ...     factor_names=("F1",),
    ...     series_names=("IP", "spread"),
    ... )
    >>> macro_correlations_figure(found).data[0].text.tolist()
    [['0.31*', '-0.10']]
    """
    text = [
        [
            f"{round(value, 2) + 0.0:.2f}{'*' if abs(t) > 3 else ''}" if np.isfinite(value) else ""
            for value, t in zip(values, ts, strict=True)
        ]
        for values, ts in zip(found.values, found.t_statistics, strict=True)
    ]
    # Many series, and long names, read better as lines than as columns.
    n_series, widest = len(found.series_names), max(len(shortened(name)) for name in found.series_names)
    turned = n_series > 10 or n_series * (widest + 1) > _MOST_LETTERS
    factors = [html.escape(name) for name in found.factor_names]
    series = [html.escape(shortened(name)) for name in found.series_names]
    z, t, n = found.values, found.t_statistics, found.n_periods
    figure = go.Figure(
        go.Heatmap(
            z=z.T if turned else z, text=np.array(text).T if turned else np.array(text),
            texttemplate="%{text}", x=factors if turned else series, y=series if turned else factors,
            customdata=np.stack([t.T, n.T] if turned else [t, n], axis=-1),
            zmin=-1, zmax=1, colorscale=DIVERGING, xgap=1, ygap=1,
            colorbar={"thickness": 12, "len": 0.9, "outlinewidth": 0},
            hovertemplate="%{y} with %{x}: %{z:.3f}, t %{customdata[0]:.2f}, "
            "%{customdata[1]} periods<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, dtick=1, type="category")
    figure.update_xaxes(side="top", showgrid=False, type="category")
    n_lines = len(series) if turned else len(factors)
    finished(figure, "Correlations of factors with series (* Newey-West |t| > 3)", 110 + 26 * n_lines)
    return figure.update_layout(margin={"t": 92, "b": 12})


def loading_profiles_figure(
    found: LoadingProfiles, *, characteristics: Sequence[str] = (), factor: str | None = None
) -> go.Figure:
    """Mean loading by quantile of the characteristics, a small plot each, a line per factor.

    Parameters
    ----------
    found
        What `evaluate.loading_profiles` returned.
    characteristics
        Which ones; none: up to twelve whose loadings differ most between the outer quantiles.
    factor
        One factor only, by name.

    Raises
    ------
    ConfigurationError
        Unknown names.

    Examples
    --------
    >>> found = LoadingProfiles(
    ...     averages=np.arange(12.0).reshape(2, 3, 2),
    ...     slopes=np.ones((2, 2)),
    ...     names=("size", "value"),
    ...     factor_names=("F1", "F2"),
    ... )
    >>> len(loading_profiles_figure(found).data), len(loading_profiles_figure(found, factor="F2").data)
    (4, 2)
    """
    unknown = [name for name in characteristics if name not in found.names]
    if unknown or (factor is not None and factor not in found.factor_names):
        raise ConfigurationError(
            f"no {', '.join(map(repr, unknown or [factor]))} among characteristics {found.names} and factors "
            f"{found.factor_names}"
        )
    factors = range(len(found.factor_names)) if factor is None else [found.factor_names.index(factor)]
    size = np.nan_to_num(np.abs(found.spreads[:, list(factors)])).max(axis=1)
    largest = np.argsort(-size, kind="stable")[:_MOST_PANELS]
    shown = [found.names.index(name) for name in characteristics] or sorted(int(j) for j in largest)
    n_columns = min(3, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure = make_subplots(
        rows=n_rows, cols=n_columns, shared_yaxes=True, shared_xaxes=True,
        subplot_titles=[html.escape(shortened(found.names[j])) for j in shown],
        vertical_spacing=0.3 / n_rows, horizontal_spacing=0.04,
    )  # fmt: skip
    figure.update_yaxes(matches="y")  # one axis for all, not for each row of plots
    quantiles = np.arange(1, found.averages.shape[1] + 1)
    for place, j in enumerate(shown):
        for k in factors:
            name = found.factor_names[k]
            figure.add_scatter(
                x=quantiles, y=found.averages[j, :, k], mode="lines+markers", line=line_style(k),
                marker={"size": 4}, name=html.escape(name), legendgroup=name, showlegend=place == 0,
                row=place // n_columns + 1, col=place % n_columns + 1,
            )  # fmt: skip
    few = "" if len(shown) == len(found.names) else f", {len(shown)} of {len(found.names)}"
    title = f"Mean loading by quantile of the characteristic{few}"
    finished(figure, title, 110 + 150 * n_rows)
    figure.update_annotations(font={"size": 12})
    return figure.update_layout(margin={"t": 80}, legend={"y": -0.22 / n_rows})


def loading_portfolios_figure(found: LoadingPortfolios, *, percent: bool = True) -> go.Figure:
    """Cumulative long-short returns of portfolios sorted on each factor's loadings, before cost.

    Parameters
    ----------
    found
        What `evaluate.sort_on_loadings` returned.
    percent
        Show decimal returns in percent.
    """
    figure = long_short_figure(found.sorts, percent=percent)
    title = "Cumulative long-short return by loading, top minus bottom quantile"
    return figure.update_layout(title={"text": title})
