"""A comparison job: a walk-forward's configuration, run as a comparison and written as one folder.

The configuration is that of `jobs`, with an optional section `[compare]`. Without `[[predictor]]` all models
of the library take part that the data can feed. Finished splits are kept in the output folder unless a store
is named, so a comparison that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latentfactors.evaluate.comparison import Comparison
from latentfactors.evaluate.contenders import default_models
from latentfactors.evaluate.side_by_side import compare
from latentfactors.evaluate.tables import metrics_table
from latentfactors.jobs import Job, JobResult, check_on_panel, load_panel, parse_job, write_job
from latentfactors.panel import Panel
from latentfactors.report.data import last_exposures
from latentfactors.settings import from_toml

__all__ = ["ComparisonRun", "read_compare_job", "run_compare_job", "write_compare_job"]

STORE = "finished-splits"


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparisonRun:
    """What a comparison job found: the job's result as a walk-forward's, and the comparison."""

    result: JobResult
    comparison: Comparison


def read_compare_job(path: str | Path) -> Job:
    """Read and check a TOML file.

    Raises
    ------
    ConfigurationError
        One line that names the file, the key, what was expected and what came.
    """
    return from_toml(path, parse_compare_job)


def parse_compare_job(config: Mapping[str, Any], folder: str | Path = ".") -> Job:
    """Check a configuration given as plain values; predictors may be missing."""
    return parse_job(config, folder, need_predictors=False)


def run_compare_job(
    job: Job, *, panel: Panel | None = None, progress: Callable[[str, int, int], None] | None = None
) -> ComparisonRun:
    """Compare the job's predictors, or all that the data can feed.

    Parameters
    ----------
    job
        From `read_compare_job`.
    panel
        Prepared data; None reads and prepares the file that the job names.
    progress
        Called with (predictor, splits done, splits in all) over the whole job.
    """
    if job.run.store is None:
        job = replace(job, run=replace(job.run, store=str(Path(job.run.output) / STORE)))
    panel = load_panel(job) if panel is None else panel
    check_on_panel(job, panel)
    options = job.comparison
    found = compare(
        panel, job.predictors or None, splits=job.splits, horizon=job.run.horizon, n_jobs=job.run.n_jobs,
        store=job.store, progress=progress, n_quantiles=options.n_quantiles, size=options.size,
    )  # fmt: skip
    offered = job.predictors or default_models(panel, horizon=max(job.run.horizon, 1)).models
    job = replace(job, predictors={name: offered[name] for name in found.results})
    result = JobResult(
        job=job,
        panel=panel,
        results=found.results,
        table=metrics_table(found.results),
        exposures=last_exposures(job.predictors, found.results),
    )
    return ComparisonRun(result=result, comparison=found)


def write_compare_job(run: ComparisonRun) -> list[Path]:
    """Write what `write_job` writes, comparison.csv and diebold-mariano.csv beside it.

    `latentfactors report` reads the folder like any other run.
    """
    found = run.comparison
    extra = {
        "comparison.csv": found.table().fill_nan(None).write_csv().encode(),
        "diebold-mariano.csv": found.diebold_mariano.frame().fill_nan(None).write_csv().encode(),
    }
    return write_job(run.result, extra, remarks={"comparison": found.summary()})
