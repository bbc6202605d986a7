"""One self-contained HTML page of a nowcast: numbers, path, fan, news, indicator; nothing to load."""

from __future__ import annotations

import html
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from latentfactors._version import __version__
from latentfactors.errors import LatentFactorsError, MissingCapabilityError
from latentfactors.evaluate import NowcastRecord
from latentfactors.frames import write_atomically
from latentfactors.nowcast import NewsDecomposition, composite_indicator
from latentfactors.nowcast_jobs import NowcastRun
from latentfactors.report import nowcast_figures as figures
from latentfactors.validate import count

try:
    import jinja2
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise MissingCapabilityError(
        "the page needs plotly and jinja2, which are not installed: pip install 'latentfactors[report]'"
    ) from error

__all__ = ["render_nowcast", "write_nowcast_page"]

_LINES_SHOWN = 20
_LINE_HEADS = ["series", "period", "kind", "value", "expected", "weight", "contribution"]


def write_nowcast_page(run: NowcastRun, out: str | Path | None = None) -> Path:
    """Write the page of a run; None: `report.html` in its snapshot."""
    path = run.folder / "report.html" if out is None else Path(out)
    write_atomically(path, render_nowcast(run).encode())
    return path


def render_nowcast(run: NowcastRun) -> str:
    """The page as text."""
    found, options = run.shown, run.job.options
    low, high = found.intervals(options.level)
    columns = (found.mean, found.standard_deviation, low, high)
    numbers = [
        [str(period), kind, *(_number(column[k]) for column in columns)]
        for k, (period, kind) in enumerate(zip(found.periods, found.kinds, strict=True))
    ]
    source = resources.files("latentfactors.report").joinpath("nowcast.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    summary = run.model.summary
    known = found.parameter_covariance is None
    return environment.from_string(source).render(
        title=f"Nowcast of {found.target}",
        as_of=str(found.as_of),
        version=__version__,
        numbers=numbers,
        unit=_unit(run),
        level=f"{options.level:.0%}",
        density="of the state, parameters taken as known" if known else "of state and parameters",
        sections=[*_path(run), *_fan(run), *_news(run), *_indicator(run)],
        remarks=[summary.reason, *summary.warnings, *run.panel.notes, *run.notes],
        plotly=get_plotlyjs(),
    )


def _unit(run: NowcastRun) -> str:
    """In words, what the numbers of the page are."""
    options, name = run.job.options, run.nowcast.transformation.replace("_", " ")
    if options.unit:
        return f"In {options.unit}"
    times = "" if options.scale == 1.0 else f", times {options.scale:g}"
    return f"In the units of the panel{f' ({name})' if name else ''}{times}"


def _path(run: NowcastRun) -> list[tuple[Any, ...]]:
    """Nowcasts of this run's periods over all snapshots."""
    found, scale = run.shown, run.job.options.scale
    lines = [
        (each.as_of, period, scale * each.means[str(period)], (scale * each.deviations[str(period)]) ** 2)
        for each in run.history
        for period in found.periods
        if str(period) in each.means
    ]
    variances = found.standard_deviation**2
    lines += [(found.as_of, *line) for line in zip(found.periods, found.mean, variances, strict=True)]
    days, periods, means, spreads = (np.array(column) for column in zip(*lines, strict=True))
    record = NowcastRecord(
        as_of=days, period=periods, days_to_release=np.zeros(days.size, dtype=np.int64), forecast=means,
        variance=spreads, realised=np.full(days.size, np.nan),
    )  # fmt: skip
    running = [period for period, kind in zip(found.periods, found.kinds, strict=True) if kind == "nowcast"]
    banded = (running or list(found.periods))[-1]
    figure = figures.nowcast_path_figure(record, level=run.job.options.level, banded=banded)
    text = (
        f"{count(len(run.history), 'earlier snapshot')} of the same target."
        if run.history
        else "The first snapshot."
    )
    text += f" The interval is that of {banded}." if len(found.periods) > 1 else ""
    lines = [[period, _number(value), _number(mean)] for period, (value, mean) in run.came_out.items()]
    heads = ["came out since the last snapshot", "value", "nowcast then"]
    return [("path", "Path", text, (heads, lines) if lines else None, _drawn(_in_units(figure, run)))]


def _fan(run: NowcastRun) -> list[tuple[Any, ...]]:
    found, panel = run.shown, run.panel
    values = run.job.options.scale * panel.wide()[:, panel.assets.tolist().index(found.target)]
    seen = np.flatnonzero(np.isfinite(values))[-24:]
    figure = figures.fan_figure(found, history=(panel.times[seen], values[seen]))
    return [("fan", "Fan chart", "", None, _drawn(_in_units(figure, run)))]


def _news(run: NowcastRun) -> list[tuple[Any, ...]]:
    sections: list[tuple[Any, ...]] = []
    for period, each in run.shown_news.items():
        before = "" if run.before is None else f" since {run.before.as_of}"
        text = f"From {_number(each.old)} to {_number(each.new)}{before}: the lines sum to the change."
        if not each.exact:
            text += (
                " The model is not linear, so the news are telescoped: cells entered one after another, new"
                " ones in the order of their release; another order would share the change out otherwise."
            )
        by_kind = [[kind, _number(part)] for kind, part in each.by("kind").items()]
        plot = _drawn(_in_units(figures.news_figure(each), run, "x")) if each.contribution.size else None
        sections.append(
            (f"news-{period}", f"News for {period}", text, (["kind", "contribution"], by_kind), plot)
        )
        if each.contribution.size:
            text = f"The largest of {count(each.contribution.size, 'line')}; values in the series' own units."
            sections.append(("", f"Lines for {period}", text, (_LINE_HEADS, _lines(each)), None))
        sections.extend(("", "", remark, None, None) for remark in each.remarks)
    return [each if each[1] else ("note", "Note", *each[2:]) for each in sections]


def _lines(news: NewsDecomposition) -> list[list[str]]:
    """The largest lines: which value came out, what was expected, and what the surprise did."""
    texts = [each.tolist() for each in (news.series, news.cell_period, news.kind)]
    numbers = [each.tolist() for each in (news.actual, news.expected, news.weight, news.contribution)]
    return [
        [each[k] for each in texts] + [_number(each[k]) if each[k] == each[k] else "" for each in numbers]
        for k in news.largest(_LINES_SHOWN).tolist()
    ]


def _in_units(figure: Any, run: NowcastRun, axis: str = "y") -> Any:
    """A figure whose axis says what its numbers are."""
    figure.update_layout({f"{axis}axis": {"title": {"text": html.escape(run.job.options.unit)}}})
    return figure


def _indicator(run: NowcastRun) -> list[tuple[Any, ...]]:
    series = run.job.options.indicator
    if series is None:
        return []
    try:
        found = composite_indicator(run.model.smooth(run.panel), series)
    except LatentFactorsError as error:
        return [("indicator", "Composite indicator", f"Not shown: {error}", None, None)]
    text = f"It explains {found.share:.0%} of the variance of the common component."
    return [("indicator", "Composite indicator", text, None, _drawn(figures.indicator_figure(found)))]


def _drawn(figure: Any) -> dict[str, Any]:
    """A figure as JSON that can stand in a script."""
    text = figure.to_json().replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return {"height": figure.layout.height, "json": text}


def _number(value: float) -> str:
    return html.escape(f"{value:.4g}")
