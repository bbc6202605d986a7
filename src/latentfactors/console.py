"""What the commands print: tables, notes, the progress bar; everything as wide as the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from latentfactors.compare_jobs import ComparisonRun
    from latentfactors.jobs import JobResult
    from latentfactors.nowcast import NewsDecomposition
    from latentfactors.nowcast_jobs import NowcastRun
    from latentfactors.track_record import WalkForwardResult

__all__ = ["progress_bar", "say", "show_comparison", "show_job", "show_nowcast", "stdout"]

# Lines of news: of the running period, of others.
_NEWS_SHOWN, _NEWS_IN_SHORT = 10, 3
# Header, key of the row, unit, digits.
_SCORES = (
    ("R2\nzero %", "r2_zero", 100, 2),
    ("R2\nmean %", "r2_mean", 100, 2),
    ("rank\nIC", "rank_ic", 1, 3),
    ("\nt", "rank_ic_t", 1, 1),
    ("total\nR2 %", "total_r2", 100, 1),
)
_SEES = {  # short enough for a terminal of 80 columns
    "characteristics": "chars",
    "own history": "own past",
    "all histories": "all pasts",
    "observed factors": "factors",
}
_EARNED = (("L-S\nSharpe", "long_short_sharpe", 1, 2), ("\nt", "long_short_t", 1, 1))


def show_job(console: Console, result: JobResult, written: Sequence[Path]) -> None:
    """The table, what it is about, what went wrong, and which files there are."""
    from latentfactors.validate import count

    panel, results = result.panel, result.results
    one = next(iter(results.values()))
    start = one.splits[0].block(panel)
    console.print(f"{panel!r}".removeprefix("Panel(").removesuffix(")"))
    console.print(
        f"{len(one.splits)} fits of each predictor, forecasts from {start[0].times[start[1]]} on, "
        f"{count(result.job.run.horizon, 'period')} ahead"
    )
    for note in panel.notes:
        console.print(f"note: {note}")
    console.print(score_table(result.table, _SCORES))
    rows = result.table
    shared = rows["n_forecasts"].max()
    console.print(
        f"Out of sample, on the {shared:,} forecasts that all predictors have: R2 against a forecast of zero "
        "and against each asset's historical mean; rank IC, the rank correlation within a period, and its t. "
        "Total R2 uses the realised factors: it describes and forecasts nothing."
    )
    for row in rows.filter(rows["n_own"] > shared).iter_rows(named=True):
        console.print(f"note: {row['name']} has {row['n_own']:,} forecasts of its own")
    _show_splits(console, results, result.job.store)
    names = ", ".join(path.name for path in written)
    console.print(f"\nWritten to {result.job.output}: {names}", soft_wrap=True)


def _show_splits(console: Console, results: Mapping[str, WalkForwardResult], store: Path | None) -> None:
    """What was reused, what failed, and how many remarks there are."""
    for name, each in results.items():
        if each.n_reused:
            console.print(f"{name}: {each.n_reused} of {len(each.splits)} splits reused from {store}")
        if each.failures:
            first = each.failures[0]
            say(
                f"warning: {name}: {len(each.failures)} of {len(each.splits)} splits failed, the first "
                f"({first.split}): {first.error}"
            )
    remarks = {
        remark for each in results.values() for summary in each.summaries for remark in summary.warnings
    }
    if remarks:
        console.print(f"{len(remarks)} different remarks of the fits stand in manifest.json")


def show_comparison(console: Console, run: ComparisonRun, written: Sequence[Path]) -> None:
    """The table, which cells it is of, who is missing, who cannot be told from the best."""
    found, result = run.comparison, run.result
    frame, panel = found.table(), result.panel
    console.print(f"{panel!r}".removeprefix("Panel(").removesuffix(")"))
    for note in panel.notes:
        console.print(f"note: {note}")
    console.print(score_table(frame, (*_SCORES, *_EARNED), sees=True))
    legend = [f"{short} = {what}" for what, short in _SEES.items() if what in found.sees.values()]
    if legend:
        console.print(f"sees: {', '.join(legend)}")
    console.print(f"Scored cells: {found.cells}.")
    console.print(
        "R2 against a forecast of zero and against each asset's past mean; rank IC, its t; total R2 of "
        f"the {found.cells.n_total:,} values that all models with realised factors describe; "
        "long-short of the top and bottom quantile, Newey-West t."
    )
    chosen = found.confidence_set
    if chosen is None:
        console.print(f"note: no model confidence set: {found.confidence_note}")
    else:
        names = ", ".join(chosen.included)
        console.print(f"Model confidence set, {1 - chosen.size:.0%}: {names}")
    for name, reason in found.left_out.items():
        console.print(f"left out: {name}: {reason}")
    for note in found.notes:
        console.print(f"note: {note}")
    _show_splits(console, result.results, result.job.store)
    names = ", ".join(path.name for path in written)
    console.print(f"\nWritten to {result.job.output}: {names}", soft_wrap=True)
    console.print(f"  latentfactors report {result.job.output}", soft_wrap=True)


def show_nowcast(console: Console, run: NowcastRun) -> None:
    """The nowcasts, and what moved them since the snapshot before."""
    from rich import box
    from rich.table import Table

    found, level, unit = run.shown, run.job.options.level, run.job.options.unit
    head = f"{found.target}{f', {unit}' if unit else ''}; information up to {found.as_of}"
    console.print(head, soft_wrap=True, markup=False)
    console.print(f"fit: {run.model.summary.reason}", soft_wrap=True)
    low, high = found.intervals(level)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("period", "kind", "mean", "std", f"{level:.0%} interval"):
        table.add_column(head, justify="left" if head in ("period", "kind") else "right")
    numbers = zip(found.mean, found.standard_deviation, strict=True)
    for k, cells in enumerate(numbers):
        bounds = f"{low[k]:.4g} to {high[k]:.4g}"
        table.add_row(str(found.periods[k]), found.kinds[k], *(f"{each:.4g}" for each in cells), bounds)
    console.print(table)
    day = "" if run.before is None else str(run.before.as_of)
    for period, (value, mean) in run.came_out.items():
        console.print(f"{period}: {value:.4g} came out; the snapshot of {day} had {mean:.4g}")
    kinds = dict(zip(map(str, found.periods), found.kinds, strict=True))
    for period, news in run.shown_news.items():
        console.print(f"{period}: {news.old:.4g} -> {news.new:.4g} ({news.revision:+.4g}) since {day}")
        console.print(_news_table(news, _NEWS_SHOWN if kinds[period] == "nowcast" else _NEWS_IN_SHORT))
    remarks = [remark for news in run.news.values() for remark in news.remarks]
    for note in dict.fromkeys((*remarks, *run.panel.notes, *run.notes, *run.model.summary.warnings)):
        console.print(f"note: {note}", soft_wrap=True)


def _news_table(news: NewsDecomposition, most: int) -> Table:
    """Contributions by kind, then the largest lines one by one and all others together."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("what moved it", "period"):
        table.add_column(head, overflow="fold")
    for head in ("value", "expected", "contribution"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, part in news.by("kind").items():
        table.add_row(name, "", "", "", f"{part:+.4g}")
    table.add_section()
    shown, rest = news.largest(most).tolist(), news.revision
    for line in shown:
        numbers = [float(each[line]) for each in (news.actual, news.expected)]
        cells = [f"{each:.4g}" if each == each else "" for each in numbers]
        name = f"{news.series[line] or 'level'} ({news.kind[line]})"
        table.add_row(name, str(news.cell_period[line]), *cells, f"{news.contribution[line]:+.4g}")
        rest -= float(news.contribution[line])
    if news.contribution.size > len(shown):
        table.add_row(f"{news.contribution.size - len(shown)} smaller lines", "", "", "", f"{rest:+.4g}")
    return table


def score_table(frame: Any, shown: Sequence[tuple[str, str, int, int]], *, sees: bool = False) -> Any:
    """A line per predictor; `sees` adds the column that says what forecasts are made from."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("predictor", vertical="bottom", overflow="fold")
    if sees:
        table.add_column("sees", vertical="bottom", no_wrap=True)
    for header, *_ in shown:
        table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    for row in frame.iter_rows(named=True):
        cells = [number(row[key] * unit, digits) for _, key, unit, digits in shown]
        table.add_row(row["name"], *([_SEES.get(row["sees"], row["sees"])] if sees else []), *cells)
    return table


def number(value: float, digits: int) -> str:
    """A number without the minus of a rounded zero; a dash where there is none."""
    if value != value:
        return "-"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def stdout() -> Console:
    """Where tables go: plain text, nothing highlighted."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr while a job runs; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("reading", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)


def say(message: str) -> None:
    """One line on stderr."""
    typer.echo(" ".join(message.split()), err=True)
