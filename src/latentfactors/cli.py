"""The command line: `latentfactors demo`, `walk-forward`, `compare`, `nowcast CONFIG`, `report RUN`.

Here live the exit codes (2 for bad input, 130 for Ctrl-C) and the one line that says what was wrong; what is
printed stands in `console` and `help_texts`. What a command does stands in `jobs`, `compare_jobs`,
`nowcast_jobs` and `demo`; they are imported when a command runs, so that the help is there at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from latentfactors._version import __version__
from latentfactors.console import progress_bar, say, show_comparison, show_job, show_nowcast, stdout
from latentfactors.errors import LatentFactorsError, MissingCapabilityError
from latentfactors.help_texts import (
    APP_HELP,
    COMPARE_HELP,
    DEMO_HELP,
    NOWCAST_HELP,
    REPORT_HELP,
    WALK_FORWARD_HELP,
)

__all__ = ["app", "main"]

_BAD_INPUT, _INTERRUPTED = 2, 130

app = typer.Typer(
    name="latentfactors",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

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


@app.callback(invoke_without_command=True, help=APP_HELP)
def latentfactors(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Show the version, or the help where no command is given."""
    if version:
        typer.echo(f"latentfactors {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(help=DEMO_HELP, short_help="The main job on real data: monthly US portfolios.")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path(
        "latentfactors-demo"
    ),
    jobs: Jobs = None,
) -> None:
    """The main job on real data."""
    with _one_line_errors():
        from latentfactors.demo import run_demo, write_demo

        with progress_bar() as progress:
            result = run_demo(out, n_jobs=jobs, progress=progress)
        written = write_demo(result)
        console = stdout()
        console.print(
            "US portfolios (12 industries, 9 by size and value, 9 by size and momentum), monthly returns in "
            "excess of the one-month Treasury bill, which was subtracted once."
        )
        show_job(console, result, written)
        config = result.job.output / "config.toml"
        if config not in written:
            console.print(f"{config} was there already and is as it was.", soft_wrap=True)
        console.print("\nGo on: read the report that this writes,", soft_wrap=True)
        console.print(f"  latentfactors report {result.job.output}", soft_wrap=True)
        console.print(f"or edit {config}, then", soft_wrap=True)
        console.print(f"  latentfactors walk-forward {config}", soft_wrap=True)


@app.command(
    "walk-forward",
    help=WALK_FORWARD_HELP,
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
        with progress_bar() as progress:
            result = run_job(replace(job, run=run), progress=progress)
        show_job(stdout(), result, write_job(result))


@app.command("compare", help=COMPARE_HELP, short_help="All models side by side on your data: CONFIG.toml.")
def compare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results.")] = None,
    jobs: Jobs = None,
) -> None:
    """The comparison that a configuration describes."""
    with _one_line_errors():
        from latentfactors.compare_jobs import read_compare_job, run_compare_job, write_compare_job

        job = read_compare_job(config)
        run = job.run if jobs is None else replace(job.run, n_jobs=jobs)
        run = run if out is None else replace(run, output=str(out.absolute()))
        with progress_bar() as progress:
            found = run_compare_job(replace(job, run=run), progress=progress)
        show_comparison(stdout(), found, write_compare_job(found))


@app.command("nowcast", help=NOWCAST_HELP, short_help="Nowcast a series from its releases: CONFIG.toml.")
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
        console = stdout()
        show_nowcast(console, run)
        try:
            from latentfactors.report.nowcast_page import write_nowcast_page
        except MissingCapabilityError as missing:
            console.print(f"note: no report.html: {missing}", soft_wrap=True)
        else:
            write_nowcast_page(run)
        console.print(f"\nWritten to {run.folder}", soft_wrap=True)


@app.command("report", help=REPORT_HELP, short_help="One self-contained HTML file about a run.")
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
        stdout().print(f"Written to {path} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


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
        say("interrupted: nothing was written")
        raise typer.Exit(_INTERRUPTED) from None


def _say_error(message: str) -> None:
    say(f"error: {message}")
