"""Figures of risk and attribution, in the style of `figures`: a library result in, a plotly `Figure` out."""

from __future__ import annotations

import html
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.panel import Panel
from latentfactors.report.style import (
    DIVERGING,
    MOST_LINES,
    PALETTE,
    as_dates,
    finished,
    go,
    shortened,
    stacked,
)
from latentfactors.risk import LinkedAttribution, PerformanceAttribution, RiskDecomposition
from latentfactors.risk.portfolios import group_sums, resolve_families
from latentfactors.risk.rows import category_codes, check_same_rows
from latentfactors.state import LatentFactorState

__all__ = [
    "attribution_figure",
    "group_loadings_figure",
    "named_factors_figure",
    "risk_figure",
    "shown_factors",
]

FloatArray = npt.NDArray[np.float64]
_MOST_PARTS = 20  # of a waterfall that can still be read
_MOST_COLUMNS = 16  # of a heat map with names above its columns
_LETTER = 6.6  # pixels of a letter in them
_MOST_FACTORS = 7  # of a family: as many colours as there are


def attribution_figure(
    attribution: PerformanceAttribution | LinkedAttribution,
    *,
    by: Literal["factor", "family"] = "family",
    percent: bool = True,
) -> go.Figure:
    """Waterfall of a return over many periods: what each part added, up to the whole.

    Parameters
    ----------
    attribution
        Linked over its periods first, as `PerformanceAttribution.linked` does.
    by
        Parts of a `PerformanceAttribution`; the smallest are summed as "other" where there are many.
    percent
        Show decimal returns in percent.

    Examples
    --------
    >>> from latentfactors.risk import LinkedAttribution
    >>> linked = LinkedAttribution(
    ...     total=0.05,
    ...     names=("market", "specific"),
    ...     contributions=np.array([0.07, -0.02]),
    ...     method="carino",
    ...     n_periods=12,
    ... )
    >>> attribution_figure(linked).data[0].y
    (7.000000000000001, -2.0, 5.0)
    """
    linked = attribution.linked(by) if isinstance(attribution, PerformanceAttribution) else attribution
    names, parts = _largest(linked.names, linked.contributions)
    unit = 100.0 if percent else 1.0
    figure = go.Figure(
        go.Waterfall(
            x=[html.escape(shortened(name)) for name in (*names, "total")],
            y=tuple((unit * np.append(parts, linked.total)).tolist()),
            measure=["relative"] * len(names) + ["total"],
            increasing={"marker": {"color": PALETTE[0]}},
            decreasing={"marker": {"color": PALETTE[1]}},
            totals={"marker": {"color": PALETTE[6]}},
            connector={"line": {"color": "#9AA0A6", "width": 1}},
            hovertemplate="%{x}: %{delta:.3g}<extra></extra>",
        )
    )
    figure.update_yaxes(ticksuffix="%" if percent else "")
    how = "linked over" if linked.method == "carino" else "summed over"
    source = by if isinstance(attribution, PerformanceAttribution) else "source"
    finished(figure, f"Return by {source}, {how} {linked.n_periods} periods", 400, legend=False)
    figure.update_xaxes(type="category", dtick=1)
    if len(names) > _MOST_PARTS // 2:  # upright names, and the height that they need
        below = 16 + round(_LETTER * max(len(shortened(name)) for name in names))
        figure.update_xaxes(tickangle=-90, automargin=False)
        figure.update_layout(height=356 + below, margin={"b": below})
    return figure


def risk_figure(
    risk: RiskDecomposition, *, by: Literal["factor", "family"] = "family", percent: bool = True
) -> go.Figure:
    """Bars of what each family (or factor) and specific risk contribute; they sum to the portfolio's risk.

    Parameters
    ----------
    risk
        From `decompose`.
    by
        Factors or their families.
    percent
        Show decimal volatility in percent.
    """
    if by not in ("factor", "family"):
        raise ConfigurationError(f"by must be 'factor' or 'family', got {by!r}")
    labels = risk.factor_names if by == "factor" else risk.factor_families
    names, parts = _largest(*group_sums(risk.by_factor, labels))
    names, parts = (*names, "specific"), np.append(parts, risk.specific)
    order = np.argsort(parts, kind="stable")
    unit = 100.0 if percent else 1.0
    share = parts / risk.volatility if risk.volatility > 0 else np.zeros(len(parts))
    figure = go.Figure(
        go.Bar(
            x=(unit * parts[order]).tolist(),
            y=[html.escape(shortened(names[i])) for i in order],
            orientation="h",
            marker={"color": [PALETTE[4] if names[i] == "specific" else PALETTE[0] for i in order]},
            customdata=(100 * share[order]).tolist(),
            hovertemplate="%{y}: %{x:.3g}, %{customdata:.1f}% of variance<extra></extra>",
        )
    )
    suffix = "%" if percent else ""
    figure.update_xaxes(ticksuffix=suffix, title_text="contribution per period")
    figure.update_yaxes(type="category", automargin=True)
    kind = "Volatility" if risk.beta is None else "Tracking error"
    title = f"{kind} {unit * risk.volatility:.3g}{suffix} by {by}"
    return finished(figure, title, 120 + 26 * len(parts), legend=False)


def named_factors_figure(state: LatentFactorState) -> go.Figure:
    """Realised factors added up over time, a panel for each family, a line for each factor.

    Of a family with more factors than colours, those that moved most; a line's name shows under the pointer.

    Raises
    ------
    InsufficientDataError
        No period with factors.

    Examples
    --------
    >>> from latentfactors import PCAConfig, PCAModel
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel
    >>> model = PCAModel(PCAConfig(n_factors=2))
    >>> _ = model.fit(panel)
    >>> [line.name for line in named_factors_figure(model.extract(panel)).data]
    ['F1', 'F2']
    """
    names, values = state.factors.names, state.factors.values[: state.n_realised]
    if not np.isfinite(values).any():
        raise InsufficientDataError("no period of the state has factors")
    family_of = resolve_families(names, None)
    families = list(dict.fromkeys(family_of.values()))
    path = np.cumsum(np.nan_to_num(values), axis=0)
    figure = stacked(len(families), [1.0] * len(families))
    x = as_dates(state.index.times[: state.n_realised])
    drawn_before = dict.fromkeys(families, 0)
    for k in shown_factors(state):
        name, family = names[k], family_of[names[k]]
        row = families.index(family) + 1
        figure.add_scatter(
            x=x, y=path[:, k], name=html.escape(name), mode="lines", row=row, col=1, showlegend=False,
            line={"color": PALETTE[drawn_before[family] % len(PALETTE)], "width": 1.3},
        )  # fmt: skip
        drawn_before[family] += 1
        figure.update_yaxes(title_text=html.escape(shortened(family)), nticks=4, row=row, col=1)
    height = 90 + 150 * len(families)
    return finished(figure, "Factors added up over time, by family", height, legend=False)


def shown_factors(state: LatentFactorState) -> list[int]:
    """Positions of the factors that `named_factors_figure` draws: of each family those that moved most."""
    families = list(resolve_families(state.factors.names, None).values())
    moved = np.nansum(np.square(state.factors.values[: state.n_realised]), axis=0)
    chosen: list[int] = []
    for family in dict.fromkeys(families):
        own = [k for k, name in enumerate(families) if name == family]
        own.sort(key=lambda k: -moved[k])
        chosen += sorted(own[:_MOST_FACTORS])
    return chosen


def group_loadings_figure(
    state: LatentFactorState, panel: Panel, attribute: str, *, period: Any = None
) -> go.Figure:
    """Heat map of mean loadings, one line a category of an attribute, one column a factor.

    Of more factors than fit: those that belong to no attribute and those of this one; without any of its own
    those that differ most between its categories.

    Parameters
    ----------
    state, panel
        From any model's `extract`, and the panel it was extracted from.
    attribute
        Name of a panel attribute.
    period
        None: the last period with rows.

    Raises
    ------
    ConfigurationError
        No such attribute.
    InsufficientDataError
        No asset of the period has both a category and loadings.
    """
    categories, mean, counts, when = group_loadings(state, panel, attribute, period)
    size = np.nan_to_num(np.abs(mean)).max(axis=1)
    shown = np.sort(np.argsort(-size, kind="stable")[:MOST_LINES])
    columns, names = _columns(state, panel, attribute, mean)
    mean = mean[np.ix_(shown, columns)]
    limit = float(np.abs(mean).max()) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=mean, x=[html.escape(shortened(name)) for name in names],
            y=[html.escape(shortened(categories[i])) for i in shown], zmin=-limit, zmax=limit,
            colorscale=DIVERGING, xgap=1, ygap=1, customdata=np.tile(counts[shown][:, None], mean.shape[1]),
            colorbar={"thickness": 12, "len": 1.0, "outlinewidth": 0, "tickformat": ".2g",
                      "tickvals": [-limit, 0.0, limit]},
            hovertemplate="%{y}, %{x}: %{z:.3g} (%{customdata} assets)<extra></extra>",
        )
    )  # fmt: skip
    top = 52 + round(_LETTER * max(len(shortened(name)) for name in names))
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, dtick=1, type="category")
    title = f"Mean loadings by {html.escape(attribute)}, {when}"
    finished(figure, title, top + 12 + max(20 * len(shown), 60))
    figure.update_xaxes(side="top", showgrid=False, type="category", dtick=1, tickangle=-90, automargin=False)
    figure.update_layout(title={"yref": "container", "y": 1.0, "yanchor": "top", "pad": {"t": 14}})
    return figure.update_layout(margin={"t": top, "b": 12})


def _columns(
    state: LatentFactorState, panel: Panel, attribute: str, mean: FloatArray
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Which factors a heat map shows, and their names, without the attribute where all share it."""
    names = state.factors.names
    if len(names) <= _MOST_COLUMNS:
        return np.arange(len(names)), list(names)
    own = f"{attribute}="
    families = np.array([name.partition("=")[0] if "=" in name else "" for name in names])
    free = [not family or family not in panel.attributes for family in families.tolist()]
    if any(name.startswith(own) for name in names) and sum(free) < _MOST_COLUMNS:
        columns = np.flatnonzero(np.array(free) | np.array([name.startswith(own) for name in names]))
        return columns, [names[k].removeprefix(own) for k in columns]
    spread = np.ptp(np.nan_to_num(mean), axis=0) if len(mean) > 1 else np.nan_to_num(np.abs(mean[0]))
    columns = np.sort(np.argsort(-spread, kind="stable")[:_MOST_COLUMNS])
    return columns, [names[k] for k in columns]


def group_loadings(
    state: LatentFactorState, panel: Panel, attribute: str, period: Any = None
) -> tuple[tuple[str, ...], FloatArray, npt.NDArray[np.int64], Any]:
    """Categories with assets in the period, mean loadings (C, K), assets (C,), and the period."""
    check_same_rows(state, panel)
    if attribute not in panel.attributes:
        raise ConfigurationError(
            f"the panel has no attribute {attribute!r}, it has {tuple(panel.attributes)}"
        )
    index = state.index
    with_rows = np.flatnonzero(np.diff(index.offsets))
    p = int(with_rows[-1]) if period is None and with_rows.size else 0
    p = p if period is None else index.position(period)
    rows = np.arange(index.offsets[p], index.offsets[p + 1])
    codes, loadings = category_codes(panel, attribute, rows), state.measurement.loadings.at(p)
    assert codes is not None
    known = (codes >= 0) & np.isfinite(loadings).all(axis=1)
    if not known.any():
        raise InsufficientDataError(
            f"no asset of period {index.times[p]} has both a {attribute} and loadings"
        )
    present, place, counts = np.unique(codes[known], return_inverse=True, return_counts=True)
    total = np.zeros((present.size, loadings.shape[1]))
    np.add.at(total, place, loadings[known])
    names = tuple(panel.attributes[attribute].categories[code] for code in present)
    return names, total / counts[:, None], counts, index.times[p]


def _largest(names: tuple[str, ...], parts: FloatArray) -> tuple[tuple[str, ...], FloatArray]:
    """At most as many parts as can be read, in their order, the rest summed as "other"."""
    if len(names) <= _MOST_PARTS:
        return tuple(names), parts
    kept = np.sort(np.argsort(-np.abs(parts), kind="stable")[: _MOST_PARTS - 1])
    rest = float(parts.sum() - parts[kept].sum())
    return (*(names[i] for i in kept), "other"), np.append(parts[kept], rest)
