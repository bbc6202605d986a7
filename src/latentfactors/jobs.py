"""A walk-forward job: read from TOML, checked as a whole, run, and written as a whole.

    [data]          path, time, asset, value, lag; characteristics, weights, attributes, context,
                    observed_factors, frequency, value_kind, missing
    [prepare]       steps = ["rank_standardise", {name = "winsorise", limits = [0.01, 0.99]}, ...]
    [splits]        kind = "expanding", first, step     or     kind = "rolling", size, step, first
    [run]           output; horizon, n_jobs, store
    [[predictor]]   name, kind = "pipeline", model = {type = "pca", n_factors = 3}, forecaster = "ar1", mapper
    [[predictor]]   name, kind = "cross_sectional_ridge", penalty = 0.1
                    search = {grid = {n_factors = [1, 2, 3]}, validation, step, ...} beside the other keys
    [[predictor]]   name, kind = "selected", candidates = names of predictors above, validation, step, ...
    [compare]       n_quantiles, size; read by `latentfactors compare`

A key is an argument of the class or function that its table names, checked against the annotation there;
`registry` holds the names. Paths start from the folder of the configuration file.
"""

from __future__ import annotations

import csv
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.estimator import at_least, check_horizon
from latentfactors.evaluate.tables import metrics_table, predictions_table, weights_table
from latentfactors.frames import FRAMES_FORMAT, claim_manifest, write_frames
from latentfactors.model import Predictor
from latentfactors.panel import Panel, ValueKind
from latentfactors.periods import Frequency, is_date
from latentfactors.registry import SPLITS, named_predictors, preparations
from latentfactors.report.data import REPORT_DATA, Exposures, collect, last_exposures, sha256_of
from latentfactors.settings import (
    as_table,
    choose,
    from_toml,
    make,
    named,
    refuse_unknown,
)
from latentfactors.sources import check_columns
from latentfactors.splits import Splits
from latentfactors.track_record import WalkForwardResult
from latentfactors.walkforward import walk_forward

__all__ = ["Job", "JobResult", "load_panel", "parse_job", "read_job", "run_job", "write_job"]

_WRITTEN = ("predictions.parquet", "weights.parquet", "metrics.csv", REPORT_DATA, "manifest.json")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where the data are and which column plays which part; see `Panel.from_frame`.

    Parameters
    ----------
    path
        A `.csv` or `.parquet` file.
    missing
        Texts that stand for a missing number in a CSV, such as "NA".
    """

    path: str
    time: str
    asset: str
    value: str
    lag: int
    characteristics: tuple[str, ...] = ()
    weights: str | None = None
    attributes: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    observed_factors: tuple[str, ...] = ()
    frequency: Frequency | None = None
    value_kind: ValueKind = "excess_return"
    missing: tuple[str, ...] = ()


_LONGEST_HORIZON = 10_000
_MOST_JOBS = 10_000


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run and where to write.

    Parameters
    ----------
    output
        Folder of the results.
    horizon
        Row p forecasts period p + horizon - 1.
    n_jobs
        Processes, -1 for one per core; None leaves it to joblib's context, which is one.
    store
        Folder that keeps finished splits, so that a stopped job goes on where it was.
    """

    output: str
    horizon: int = 1
    n_jobs: int | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        check_horizon(self.horizon, None)
        if abs(self.horizon) > _LONGEST_HORIZON:
            raise ConfigurationError(
                f"horizon must be at most {_LONGEST_HORIZON:,} periods, got {self.horizon}"
            )
        if self.n_jobs == 0 or abs(self.n_jobs or 1) > _MOST_JOBS:
            raise ConfigurationError(
                f"n_jobs must be a number of processes up to {_MOST_JOBS:,}, or -1 for one per core, "
                f"got {self.n_jobs}"
            )
        for key, folder in (("output", self.output), ("store", self.store)):
            if "\0" in (folder or ""):
                raise ConfigurationError(f"{key} must be the name of a folder, got {folder!r}")


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What a comparison adds to a walk-forward.

    Parameters
    ----------
    n_quantiles
        Of the long-short portfolios; None: by the number of assets.
    size
        1 - confidence of the model confidence set, in (0, 1).
    """

    n_quantiles: int | None = None
    size: float = 0.1

    def __post_init__(self) -> None:
        if self.n_quantiles is not None:
            at_least("n_quantiles", self.n_quantiles, 2)
        if not 0 < self.size < 1:
            raise ConfigurationError(f"size must lie in (0, 1), got {self.size}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A checked configuration: nothing has been read or run yet.

    Attributes
    ----------
    config
        As it was written, for the manifest.
    folder
        Where relative paths start.
    steps
        Label and function of every preparation.
    predictors
        Name -> unfitted predictor; none where a comparison is to take all that the data can feed.
    comparison
        Options of `latentfactors compare`.
    """

    config: Mapping[str, Any]
    folder: Path
    data: DataOptions
    steps: tuple[tuple[str, Callable[[Panel], Panel]], ...]
    splits: Splits
    run: RunOptions
    predictors: Mapping[str, Predictor]
    comparison: CompareOptions = field(default_factory=CompareOptions)

    def __post_init__(self) -> None:
        for key, folder in (("output", self.output), ("store", self.store)):
            if folder is not None and folder.exists() and not folder.is_dir():
                raise ConfigurationError(f"[run] {key}: {str(folder)!r} is a file, expected a folder")
        data = self.folder / self.data.path
        if data.name in _WRITTEN and data.parent.resolve() == self.output.resolve():
            raise ConfigurationError(f"[run] output: the results would replace the data in {str(data)!r}")

    @property
    def output(self) -> Path:
        """Folder of the results."""
        return self.folder / self.run.output

    @property
    def store(self) -> Path | None:
        """Folder of finished splits."""
        return None if self.run.store is None else self.folder / self.run.store

    def prepare(self, panel: Panel) -> Panel:
        """Apply the preparation steps in order."""
        for label, step in self.steps:
            with named(label):
                panel = step(panel)
        return panel


@dataclass(frozen=True, eq=False, kw_only=True)
class JobResult:
    """What a job found: walk-forwards, the polars frame of `metrics_table`, loadings of the last refits."""

    job: Job
    panel: Panel
    results: Mapping[str, WalkForwardResult]
    table: Any
    exposures: Mapping[str, Exposures] = field(default_factory=dict)


# ------------------------------------------------------------------------------------ reading


def read_job(path: str | Path) -> Job:
    """Read and check a TOML file.

    Raises
    ------
    ConfigurationError
        One line that names the file, the key, what was expected and what came.
    """
    return from_toml(path, parse_job)


def parse_job(config: Mapping[str, Any], folder: str | Path = ".", *, need_predictors: bool = True) -> Job:
    """Check a configuration given as plain values, as `tomllib` reads them.

    A comparison needs no predictors: `need_predictors=False` lets the section be absent.

    Examples
    --------
    >>> job = parse_job(
    ...     {
    ...         "data": {"path": "a.csv", "time": "month", "asset": "firm", "value": "ret", "lag": 0},
    ...         "splits": {"kind": "expanding", "first": 120, "step": 12},
    ...         "run": {"output": "results"},
    ...         "predictor": [{"name": "mean", "kind": "historical_mean"}, {"name": "0", "kind": "zero"}],
    ...     }
    ... )
    >>> list(job.predictors), job.splits
    (['mean', '0'], ExpandingWindow(first=120, step=12, validation=0))
    """
    sections = ("data", "prepare", "splits", "run", "predictor", "compare")
    refuse_unknown(config, sections, "configuration", "section")
    for section in ("data", "splits", "run", "predictor"):
        if section not in config and (section != "predictor" or need_predictors):
            header = "[[predictor]]" if section == "predictor" else f"[{section}]"
            raise ConfigurationError(f"the section {header} is missing")
    run = make(RunOptions, as_table(config["run"], "[run]"), "[run]")
    splits = as_table(config["splits"], "[splits]")
    store = None if run.store is None else Path(folder) / run.store
    window = choose(SPLITS, splits.pop("kind", None), "[splits] kind")
    return Job(
        config=config,
        folder=Path(folder),
        data=make(DataOptions, as_table(config["data"], "[data]"), "[data]"),
        steps=tuple(preparations(config.get("prepare", {}))),
        splits=make(window, splits, "[splits]"),
        run=run,
        predictors=named_predictors(config["predictor"], run.horizon, store) if "predictor" in config else {},
        comparison=make(CompareOptions, as_table(config.get("compare", {}), "[compare]"), "[compare]"),
    )


# ------------------------------------------------------------------------------------ running and writing


def load_panel(job: Job) -> Panel:
    """Read the data file and prepare the panel.

    Raises
    ------
    PanelError, FrequencyError
        What cannot be read or is no panel, with the file's name in front.
    """
    columns = asdict(job.data)
    path, missing = columns.pop("path"), columns.pop("missing")
    file = job.folder / path
    with named(f"[data] {path}"):
        if not file.is_file():
            raise PanelError(f"there is no such file in {str(job.folder)!r}")
        if file.suffix.lower() == ".parquet":
            panel = Panel.from_parquet(file, **columns)
        elif file.suffix.lower() == ".csv":
            frame = _read_csv(file, missing, columns["asset"], columns["attributes"])
            panel = Panel.from_frame(frame, **columns)
        else:
            raise PanelError(f"expected a .csv or .parquet file, got the ending {file.suffix!r}")
    return job.prepare(panel)


def _read_csv(file: Path, missing: tuple[str, ...], asset: str, attributes: Sequence[str]) -> Any:
    """All columns, so that a line with a field too many is refused; all lines decide on a column's type.

    Dates stay text until the panel reads them: a guess would take 02/01/2000 for the second of January, and
    move a zoned evening into the next month. Labels stay text too, for 007 is not 7, unless all are integers.
    """
    import polars as pl

    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            header = next(csv.reader(lines), [])
        check_columns(header, ())  # polars would rename the second of two equal names
        nulls = list(missing) or None
        labels = {name: pl.String for name in (asset, *attributes) if name in header}
        frame = pl.read_csv(
            file.read_bytes(), infer_schema_length=None, null_values=nulls, schema_overrides=labels
        )
        if asset in labels and frame[asset].drop_nulls().str.contains(r"^(0|-?[1-9][0-9]{0,17})$").all():
            frame = frame.with_columns(pl.col(asset).cast(pl.Int64))
        return frame
    except (csv.Error, pl.exceptions.PolarsError) as error:
        raise PanelError(f"the file cannot be read as CSV: {error}") from None


def run_job(
    job: Job, *, panel: Panel | None = None, progress: Callable[[str, int, int], None] | None = None
) -> JobResult:
    """One walk-forward per predictor, all on the same splits.

    Parameters
    ----------
    job
        From `read_job` or `parse_job`.
    panel
        Prepared data; None reads and prepares the file that the job names.
    progress
        Called with (predictor, splits done, splits in all) over the whole job.
    """
    panel = load_panel(job) if panel is None else panel
    n_splits = check_on_panel(job, panel)
    results: dict[str, WalkForwardResult] = {}
    for number, (name, predictor) in enumerate(job.predictors.items()):

        def report(done: int, _: int, name: str = name, before: int = number * n_splits) -> None:
            if progress is not None:
                progress(name, before + done, n_splits * len(job.predictors))

        with named(f"[[predictor]] {name!r}"):
            results[name] = walk_forward(
                predictor, panel, job.splits, horizon=job.run.horizon, n_jobs=job.run.n_jobs,
                store=job.store, progress=report,
            )  # fmt: skip
    loadings = last_exposures(job.predictors, results)
    return JobResult(job=job, panel=panel, results=results, table=metrics_table(results), exposures=loadings)


def check_on_panel(job: Job, panel: Panel) -> int:
    """Refuse horizons and splits that do not fit the data; the number of splits."""
    if job.run.horizon > 1 and panel.frequency is None and is_date(panel.times):
        raise ConfigurationError(
            f"[run] horizon={job.run.horizon} needs dates after the last one, and their spacing shows no "
            "frequency: state frequency in [data]"
        )
    with named("[splits]"):
        return len(job.splits.split(panel))


def write_job(
    result: JobResult,
    extra: Mapping[str, bytes] | None = None,
    *,
    remarks: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write predictions.parquet, metrics.csv, report-data.zip and manifest.json into the job's output folder.

    Everything is written next door first and moved in when it is complete; other files stay as they are. The
    predictions of all predictors stand in one file, told apart by its column `predictor`; weights likewise.
    `extra` holds further files, name -> content; `remarks` further entries of the manifest. Returns the
    paths, the manifest's last.
    """
    folder = result.job.output
    predictions, weights = predictions_table(result.results), weights_table(result.results)
    own = {"metrics.csv": result.table.fill_nan(None).write_csv().encode()}
    own[REPORT_DATA] = collect(result.results, result.exposures).to_bytes()
    contents, manifest = {**(extra or {}), **own}, job_manifest(result)
    manifest |= {**(remarks or {}), "extra_files": sha256_of(own)}
    claim_manifest(folder, FRAMES_FORMAT)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as staging:
        for name, content in contents.items():
            (Path(staging) / name).write_bytes(content)
        written = write_frames(staging, predictions=predictions, weights=weights, manifest=manifest)
        names = [*contents, *(path.name for path in written)]
        for name in names:
            os.replace(Path(staging) / name, folder / name)
    return [folder / name for name in names]


def job_manifest(result: JobResult) -> dict[str, Any]:
    """What ran, on what, with what, and how it went, as plain values."""
    own = {name: each.manifest() | {"reused_splits": each.n_reused} for name, each in result.results.items()}
    shared = {key: next(iter(own.values()))[key] for key in ("latentfactors", "horizon", "panel", "splits")}
    versions = {name: version(name) for name in ("numpy", "scipy", "polars")}
    return {
        **shared,
        "versions": {"python": platform.python_version(), **versions},
        "config": result.job.config,
        "predictors": {
            name: {key: value for key, value in each.items() if key not in shared}
            for name, each in own.items()
        },
    }
