"""The command line: `latentfactors demo`, `walk-forward CONFIG`, `nowcast CONFIG`, `report RUN`.

Here live the progress bar, the exit codes (2 for bad input, 130 for Ctrl-C) and the one line that says what
was wrong. What a command does stands in `jobs` and `demo`; they are imported when a command runs, so that the
help is there at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentfactors._version import __version__
from latentfactors.errors import LatentFactorsError, MissingCapabilityError

if TYPE_CHECKING:
    from rich.console import Console

    from latentfactors.jobs import JobResult
    from latentfactors.nowcast_jobs import NowcastRun

__all__ = ["app", "main"]

_BAD_INPUT, _INTERRUPTED = 2, 130
_NEWS_SHOWN = 10

app = typer.Typer(
    name="latentfactors",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

EXAMPLE_CONFIG = """\
[data]
path = "returns.csv"             # or .parquet; one line per date and asset
time = "month"
asset = "firm"
value = "excess_return"
lag = 1                          # 1: a line's other columns are known at the end of its period, 0: before it
characteristics = ["size", "bm"]
# more columns: weights, attributes, context, observed_factors
# frequency = "M" (or "Q", "W", "B", "D") where the spacing of the dates does not show it
# value_kind = "excess_return" (or "return", "spread_change", "series")
# missing = ["NA"], texts that stand for a missing number in a CSV

[prepare]
steps = ["rank_standardise", { name = "winsorise", limits = [0.01, 0.99] }]
# or: characteristics_from_returns, zscore, fill_missing, neutralise, add_constant

[splits]
kind = "expanding"               # or "rolling", with size
first = 2000-01-31               # the first period that is forecast, or a number of training periods
step = 12                        # periods between fits

[run]
output = "results"
horizon = 1                      # periods ahead
n_jobs = 2                       # processes
store = "finished-splits"        # a stopped job goes on where it was

[[predictor]]
name = "PCA"
kind = "pipeline"
model = { type = "pca", n_factors = 3 }
forecaster = "expanding_mean"    # or { type = "ewma", half_life = 24 }, rolling_mean, ar1, var, native
mapper = "beta_lambda"           # or native

[[predictor]]
name = "ridge"
kind = "cross_sectional_ridge"   # or cross_sectional_ols, autoregressive, historical_mean, zero
penalty = 0.1
"""

# A paragraph that starts with "\b" keeps its lines.
_APP_HELP = """\
Latent factor models in finance and macroeconomics: one panel, one pipeline, one walk-forward.

\b
Examples:
  latentfactors demo
  latentfactors walk-forward config.toml
  latentfactors nowcast config.toml
  latentfactors report results
  latentfactors walk-forward --help       a configuration with all its keys
"""
_DEMO_HELP = """\
Forecast 30 US portfolios month by month from 1969 to 2017, and score the forecasts.

The data ship with linearmodels. Results, data and a configuration to go on with are written into a folder.

\b
Examples:
  latentfactors demo
  latentfactors demo --out my-first-run --jobs 2
"""
_WALK_FORWARD_HELP = """\
Fit on the past, forecast the next block, again and again, on your own CSV or Parquet file.

Writes predictions.parquet, metrics.csv, manifest.json and the data of the report into the output folder and
leaves other files there alone. `latentfactors demo` writes a configuration to start from.

\b
Examples:
  latentfactors walk-forward config.toml
  latentfactors walk-forward config.toml --out other-results --jobs -1

A configuration; its paths start from its own folder, and the options of a model, forecaster, mapper,
predictor or step are the arguments of the Python class or function of that name:

\b
""" + EXAMPLE_CONFIG.replace("\n\n", "\n\n\b\n")
_REPORT_HELP = """\
Write one HTML file about a run: scores, data, fits, factors, loadings, forecasts, portfolios, configuration.

RUN is a folder that `latentfactors demo` or `latentfactors walk-forward` wrote. The file loads nothing from
anywhere: mail it, print it, read it on a phone. It needs pip install 'latentfactors[report]'.

\b
Examples:
  latentfactors report latentfactors-demo
  latentfactors report results --out for-the-committee.html
"""

_NOWCAST_HELP = """\
Nowcast a series from releases, and say what moved the nowcast since the last time.

Fits the model on everything released by a day and writes a snapshot, a folder named by that day with
nowcasts.parquet, snapshot.json, the model, the vintage and report.html. The next run compares itself to it
and prints the news.

\b
Example:
  latentfactors nowcast config.toml --as-of 2016-07-29

A configuration; its paths start from its own folder:

\b
[data]
releases = "releases.csv"        # or .parquet; a line per release: series, period, release, value
# or store = "vintages", a folder that VintageStore.save wrote
\b
[[series]]                       # what is not named is monthly and used as it is
name = "GDP"
frequency = "Q"
aggregation = "mariano_murasawa"
code = 5                         # transformation 1..7, or its name
\b
[model]
type = "dfm"
n_factors = 1
\b
[nowcast]
target = "GDP"                   # further keys: as_of, ahead, level
indicator = "INDPRO"             # draws the composite indicator, which moves with this series
\b
[run]
output = "nowcasts"              # refit = false keeps the model of the snapshot before
"""

Jobs = Annotated[int | None, typer.Option("--jobs", "-j", help="Processes; -1 for one per core.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the interpreter with its exit code."""
    try:
        code = app(
            args=None if arguments is None else list(arguments),
            prog_name=app.info.name,
            standalone_mode=False,
        )
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:
        # Usage errors belong to click or, in later versions, to typer itself; both can say what was wrong.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        _say_error(f"{describe()} (latentfactors --help shows what there is)")
        code = _BAD_INPUT
    sys.exit(code)


@app.callback(invoke_without_command=True, help=_APP_HELP)
def latentfactors(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Show the version, or the help where no command is given."""
    if version:
        typer.echo(f"latentfactors {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(help=_DEMO_HELP, short_help="The main job on real data: monthly US portfolios.")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path(
        "latentfactors-demo"
    ),
    jobs: Jobs = None,
) -> None:
    """The main job on real data."""
    with _one_line_errors():
        from latentfactors.demo import run_demo, write_demo

        with _progress() as progress:
            result = run_demo(out, n_jobs=jobs, progress=progress)
        written = write_demo(result)
        console = _console()
        console.print(
            "US portfolios (12 industries, 9 by size and value, 9 by size and momentum), monthly returns in "
            "excess of the one-month Treasury bill, which was subtracted once."
        )
        _report(console, result, written)
        config = result.job.output / "config.toml"
        if config not in written:
            console.print(f"{config} was there already and is as it was.", soft_wrap=True)
        console.print("\nGo on: read the report that this writes,", soft_wrap=True)
        console.print(f"  latentfactors report {result.job.output}", soft_wrap=True)
        console.print(f"or edit {config}, then", soft_wrap=True)
        console.print(f"  latentfactors walk-forward {config}", soft_wrap=True)


@app.command(
    "walk-forward",
    help=_WALK_FORWARD_HELP,
    short_help="The same on your own CSV or Parquet file: CONFIG.toml.",
)
def walk_forward(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results.")] = None,
    jobs: Jobs = None,
) -> None:
    """The job that a configuration describes."""
    with _one_line_errors():
        from latentfactors.jobs import read_job, run_job, write_job

        job = read_job(config)
        run = job.run if jobs is None else replace(job.run, n_jobs=jobs)
        run = run if out is None else replace(run, output=str(out.absolute()))
        with _progress() as progress:
            result = run_job(replace(job, run=run), progress=progress)
        _report(_console(), result, write_job(result))


@app.command("nowcast", help=_NOWCAST_HELP, short_help="Nowcast a series from its releases: CONFIG.toml.")
def nowcast(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file.", show_default=False)],
    as_of: Annotated[str | None, typer.Option("--as-of", help="Day of the information.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the snapshots.")] = None,
) -> None:
    """The nowcast that a configuration describes."""
    with _one_line_errors():
        from latentfactors.nowcast_jobs import read_nowcast_job, run_nowcast_job

        job = read_nowcast_job(config)
        if as_of is not None:
            job = replace(job, options=replace(job.options, as_of=as_of))
        if out is not None:
            job = replace(job, run=replace(job.run, output=str(out.absolute())))
        run = run_nowcast_job(job)
        console = _console()
        _nowcast_report(console, run)
        try:
            from latentfactors.report.nowcast_page import write_nowcast_page
        except MissingCapabilityError as missing:
            console.print(f"note: no report.html: {missing}", soft_wrap=True)
        else:
            write_nowcast_page(run)
        console.print(f"\nWritten to {run.folder}", soft_wrap=True)


@app.command("report", help=_REPORT_HELP, short_help="One self-contained HTML file about a run.")
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; report.html in the folder of the run.")
    ] = None,
) -> None:
    """The report of a run."""
    with _one_line_errors():
        from latentfactors.report import write_report

        path = write_report(run, out)
        _console().print(f"Written to {path} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


# ------------------------------------------------------------------------------------ what the user sees


def _report(console: Console, result: JobResult, written: Sequence[Path]) -> None:
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
    console.print(_table(result))
    rows = result.table
    shared = rows["n_forecasts"].max()
    console.print(
        f"Out of sample, on the {shared:,} forecasts that all predictors have: R2 against a forecast of zero "
        "and against each asset's historical mean; rank IC, the rank correlation within a period, and its t. "
        "Total R2 uses the realised factors: it describes and forecasts nothing."
    )
    for row in rows.filter(rows["n_own"] > shared).iter_rows(named=True):
        console.print(f"note: {row['name']} has {row['n_own']:,} forecasts of its own")
    for name, each in results.items():
        if each.n_reused:
            console.print(
                f"{name}: {each.n_reused} of {len(each.splits)} splits reused from {result.job.store}"
            )
        if each.failures:
            first = each.failures[0]
            _say(
                f"warning: {name}: {len(each.failures)} of {len(each.splits)} splits failed, the first "
                f"({first.split}): {first.error}"
            )
    remarks = {
        remark for each in results.values() for summary in each.summaries for remark in summary.warnings
    }
    if remarks:
        console.print(f"{len(remarks)} different remarks of the fits stand in manifest.json")
    names = ", ".join(path.name for path in written)
    console.print(f"\nWritten to {result.job.output}: {names}", soft_wrap=True)


def _nowcast_report(console: Console, run: NowcastRun) -> None:
    """The nowcasts, and what moved them since the snapshot before."""
    from rich import box
    from rich.table import Table

    found, level = run.nowcast, run.job.options.level
    console.print(f"{found.target}, information up to {found.as_of}; {run.model.summary.reason}")
    low, high = found.intervals(level)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("period", "kind", "mean", "std", f"{level:.0%} interval"):
        table.add_column(head, justify="left" if head in ("period", "kind") else "right")
    numbers = zip(found.mean, found.standard_deviation, strict=True)
    for k, cells in enumerate(numbers):
        bounds = f"{low[k]:.4g} to {high[k]:.4g}"
        table.add_row(str(found.periods[k]), found.kinds[k], *(f"{each:.4g}" for each in cells), bounds)
    console.print(table)
    for period, news in run.news.items():
        since = "" if run.before is None else f" since {run.before.as_of}"
        console.print(f"{period}: {news.old:.4g} -> {news.new:.4g}{since}")
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("what moved it")
        table.add_column("contribution", justify="right")
        largest = list(news.by("series").items())[:_NEWS_SHOWN]
        for name, part in (
            *news.by("kind").items(),
            *((f"  {each}", part) for each, part in largest if each),
        ):
            table.add_row(name, f"{part:+.4g}")
        console.print(table)
    remarks = [remark for news in run.news.values() for remark in news.remarks]
    for note in dict.fromkeys((*remarks, *run.panel.notes, *run.notes, *run.model.summary.warnings)):
        console.print(f"note: {note}", soft_wrap=True)


def _table(result: JobResult) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("predictor", vertical="bottom", overflow="fold")
    shown = {
        "R2\nzero %": ("r2_zero", 100, 2),
        "R2\nmean %": ("r2_mean", 100, 2),
        "rank\nIC": ("rank_ic", 1, 3),
        "\nt": ("rank_ic_t", 1, 1),
        "total\nR2 %": ("total_r2", 100, 1),
    }
    for header in shown:
        table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    for row in result.table.iter_rows(named=True):
        cells = [_number(row[key] * unit, digits) for key, unit, digits in shown.values()]
        table.add_row(row["name"], *cells)
    return table


def _number(value: float, digits: int) -> str:
    if value != value:
        return "-"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
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


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Whatever the user can mend ends in one line on stderr and exit code 2; a bug keeps its traceback."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (LatentFactorsError, OSError) as error:
        _say_error(str(error))
        raise typer.Exit(_BAD_INPUT) from None
    except KeyboardInterrupt:
        _say("interrupted: nothing was written")
        raise typer.Exit(_INTERRUPTED) from None


def _say_error(message: str) -> None:
    _say(f"error: {message}")


def _say(message: str) -> None:
    typer.echo(" ".join(message.split()), err=True)
