"""Figures of nowcasts: the path to a release, news, fan charts, the composite indicator."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import NowcastRecord
from latentfactors.nowcast import CompositeIndicator, LevelFan, NewsDecomposition, Nowcast
from latentfactors.nowcast.fans import normal_quantile
from latentfactors.report.style import PALETTE, SHADE, as_dates, finished, go, line_style, shortened

__all__ = ["fan_figure", "indicator_figure", "news_figure", "nowcast_path_figure"]

FloatArray = npt.NDArray[np.float64]
_APART = 6  # paths that a reader can tell apart


def nowcast_path_figure(
    record: NowcastRecord,
    *,
    level: float = 0.9,
    rivals: Mapping[str, NowcastRecord] | None = None,
    banded: Any = None,
) -> go.Figure:
    """Nowcasts of every period as information came in, their intervals, and what was released.

    Up to six periods have lines of their own look; more, whose paths follow each other, share one.

    Parameters
    ----------
    record
        As `evaluate.nowcast_record` makes it; values of unreleased periods are NaN.
    level
        Of the intervals.
    rivals
        Name -> records drawn as lines without intervals.
    banded
        The one period whose interval is drawn, where several on the same days would cover each other; None:
        all.
    """
    z = normal_quantile(0.5 + level / 2)
    figure = go.Figure()
    periods = np.unique(record.period)
    apart = 1 < periods.size <= _APART
    for i, period in enumerate(periods):
        rows = np.flatnonzero(record.period == period)
        rows = rows[np.argsort(record.as_of[rows], kind="stable")]
        x, mean = as_dates(record.as_of[rows]), record.forecast[rows]
        spread = z * np.sqrt(record.variance[rows])
        first = i == 0
        if np.isfinite(spread).all() and (banded is None or period == banded):
            figure.add_scatter(
                x=np.concatenate([x, x[::-1]]), y=np.concatenate([mean + spread, (mean - spread)[::-1]]),
                mode="lines", fill="toself", fillcolor=SHADE, line={"width": 0}, hoverinfo="skip",
                name=f"{level:.0%} interval", legendgroup="interval",
                showlegend=first or banded is not None,
            )  # fmt: skip
        figure.add_scatter(
            x=x, y=mean, mode="lines+markers", marker={"size": 4},
            line=line_style(i) if apart else {"color": PALETTE[0], "width": 1.6},
            name=str(period)[:10] if apart else "nowcast", legendgroup=f"{period}" if apart else "nowcast",
            showlegend=first or apart,
            hovertemplate=f"%{{x}}: %{{y:.3g}} for {str(period)[:7]}<extra></extra>",
        )  # fmt: skip
        realised = record.realised[rows[-1]]
        if np.isfinite(realised):
            day = record.as_of[rows[-1]] + np.timedelta64(int(record.days_to_release[rows[-1]]), "D")
            figure.add_scatter(
                x=[str(day)], y=[realised], mode="markers", name="released", legendgroup="released",
                marker={"color": PALETTE[1], "size": 9, "symbol": "diamond"}, showlegend=first,
            )  # fmt: skip
    for i, (name, each) in enumerate((rivals or {}).items(), 1):
        order = np.lexsort((each.as_of, each.period))
        # a gap between periods, so that two quarters are two lines
        breaks = np.flatnonzero(np.diff(np.unique(each.period[order], return_inverse=True)[1])) + 1
        days = as_dates(each.as_of[order]).tolist()
        for place in breaks[::-1].tolist():
            days.insert(place, None)
        figure.add_scatter(
            x=days, y=np.insert(each.forecast[order], breaks, np.nan), mode="lines", name=html.escape(name),
            line=line_style(i + 1),
        )  # fmt: skip
    return finished(figure, "Nowcasts as information came in", 420)


def news_figure(
    found: NewsDecomposition, *, by: str = "series", most: int = 15, scale: float = 1.0
) -> go.Figure:
    """Bars of what moved a nowcast, largest first; what is left over is one bar.

    Parameters
    ----------
    found
        From `nowcast_news`.
    by
        "series", "group" or "kind"; bars of series and groups are split by kind.
    most
        Largest number of bars.
    scale
        Unit: 100 shows decimals in percent.

    Raises
    ------
    ConfigurationError
        An unknown `by`.
    InsufficientDataError
        A nowcast that nothing moved.
    """
    if by not in ("series", "group", "kind"):
        raise ConfigurationError(f"by must be 'series', 'group' or 'kind', got {by!r}")
    if not found.contribution.size:
        raise InsufficientDataError("nothing changed between the vintages: there is no news to draw")
    totals = found.by(by)
    names = list(totals)[:most]
    keys = np.where(np.isin(getattr(found, by), names), getattr(found, by), "all others")
    order = names + (["all others"] if len(totals) > most else [])
    figure = go.Figure()
    for i, kind in enumerate(dict.fromkeys(found.kind.tolist())):
        rows = found.kind == kind
        sums = [scale * float(found.contribution[rows & (keys == name)].sum()) for name in order]
        figure.add_bar(
            x=sums, y=[html.escape(shortened(name or "level")) for name in order], orientation="h",
            name=kind, marker={"color": PALETTE[i % len(PALETTE)]},
        )  # fmt: skip
    figure.update_layout(barmode="relative")
    figure.update_yaxes(autorange="reversed")
    title = f"What moved the nowcast of {found.target} {str(found.period)[:7]}"
    return finished(figure, html.escape(title), 120 + 26 * len(order))


def fan_figure(
    found: Nowcast | LevelFan,
    *,
    history: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    measure: str = "level",
    levels: Sequence[float] = (0.5, 0.7, 0.9),
) -> go.Figure:
    """A fan chart: darker where the density is higher.

    Parameters
    ----------
    found
        A `Nowcast` (transformed units), or the `LevelFan` of `Nowcast.levels`.
    history
        Periods and values before the fan.
    measure
        Of a `LevelFan`: "level", "year_on_year" or "annualised".
    levels
        Of a nowcast's intervals; a `LevelFan` shows its own quantiles.
    """
    if isinstance(found, Nowcast):
        probabilities = sorted({0.5, *(0.5 + s * each / 2 for each in levels for s in (-1, 1))})
        paths, periods, title = found.quantiles(probabilities), found.periods, str(found.target)
    else:
        if measure not in ("level", "year_on_year", "annualised"):
            raise ConfigurationError(
                f"measure must be 'level', 'year_on_year' or 'annualised', got {measure!r}"
            )
        probabilities = found.probabilities.tolist()
        paths, periods, title = getattr(found, measure), found.periods, measure.replace("_", " ")
    figure, x = go.Figure(), as_dates(periods)
    n = len(probabilities)
    for k in range(n // 2):
        low, high = paths[k], paths[n - 1 - k]
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]), mode="lines",
            fill="toself", fillcolor="rgba(0, 114, 178, 0.18)", line={"width": 0}, hoverinfo="skip",
            name=f"{probabilities[n - 1 - k] - probabilities[k]:.0%}",
        )  # fmt: skip
    if n % 2:
        figure.add_scatter(
            x=x, y=paths[n // 2], mode="lines+markers", line={"color": PALETTE[0]}, name="median"
        )
    if history is not None:
        times, values = (np.asarray(each) for each in history)
        figure.add_scatter(
            x=as_dates(times), y=values, mode="lines", line={"color": PALETTE[6]}, name="published"
        )
    return finished(figure, html.escape(f"Fan chart: {title}"), 380)


def indicator_figure(found: CompositeIndicator, *, recessions: Sequence[tuple[Any, Any]] = ()) -> go.Figure:
    """The composite indicator with recessions (first and last day of each) shaded."""
    figure = go.Figure()
    for first, last in recessions:
        figure.add_vrect(x0=str(first), x1=str(last), fillcolor="#9AA0A6", opacity=0.25, line_width=0)
    figure.add_hline(y=0, line={"color": PALETTE[6], "width": 1})
    figure.add_scatter(
        x=as_dates(found.times), y=found.values, mode="lines", line={"color": PALETTE[0], "width": 1.6},
        name="indicator",
    )  # fmt: skip
    figure.update_yaxes(title_text="standard deviations")
    title = f"Composite indicator ({found.form} form, moves with {found.sign_series})"
    return finished(figure, html.escape(title), 380, legend=False)
