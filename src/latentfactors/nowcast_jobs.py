"""A nowcast job: read from TOML, run on the vintage of a day, kept as a snapshot for the next run.

    [data]       releases (a table), store (a folder) or monthly (files of FRED-MD): see `nowcast_sources`
    [[series]]   name; frequency, aggregation, group, code, publication_lag
    [model]      type = "dfm", "ptfa" or "d2fm", n_factors = 1, ...
    [nowcast]    target; as_of, ahead, level, indicator, scale, unit
    [search]     grid = {n_factors = [1, 2, 3]}, validation, step, ...: options of the model, chosen by
                 forecasts of the last periods                                                 (optional)
    [bootstrap]  n_draws, seed: parameters drawn anew, for densities that know they are estimated   (optional)
    [run]        output; refit, n_jobs

    output/2016-07-29/   snapshot.json, nowcasts.parquet, news.parquet, model/, vintage/, report.html

Snapshots are named by their day. A run compares itself to the newest one before its own day: what moved each
nowcast since then, release by release. Files are in the panel's units; what is printed and drawn is
multiplied by `scale`.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from latentfactors._version import __version__
from latentfactors.errors import (
    ConfigurationError,
    StoreError,
)
from latentfactors.estimator import at_least
from latentfactors.frames import write_atomically
from latentfactors.nowcast import (
    NewsDecomposition,
    Nowcast,
    ParameterBootstrap,
    VintageStore,
    bootstrap_parameters,
    nowcast,
    nowcast_news,
)
from latentfactors.nowcast_snapshots import SNAPSHOT_FORMAT, Snapshot, check_folder, read_snapshots
from latentfactors.nowcast_sources import ReleaseData, SeriesEntry, check_series, day_of, open_vintages
from latentfactors.panel import Panel
from latentfactors.search_settings import ModelSearch, read_search
from latentfactors.settings import as_table, from_toml, make, named, refuse_unknown, selected

__all__ = ["NowcastJob", "NowcastRun", "parse_nowcast_job", "read_nowcast_job", "run_nowcast_job"]

# A model's config stands beside it: XModel is built from the XConfig named here.
MODELS = {
    "dfm": "models.dfm:DynamicFactorModel",
    "ptfa": "models.ptfa:PTFAModel",
    "d2fm": "models.d2fm:D2FMModel",
}
_CONFIGS = {"dfm": "DFMConfig", "ptfa": "PTFAConfig", "d2fm": "D2FMConfig"}


@dataclass(frozen=True, kw_only=True)
class NowcastOptions:
    """What is nowcast, and as of when.

    Parameters
    ----------
    target
        A series.
    as_of
        Day of the information; None: the last release.
    ahead
        Forecast periods after the running one.
    level
        Of the intervals.
    indicator
        Series that fixes the sign of the composite indicator; None: no indicator.
    scale
        What is shown is multiplied by it: 400 turns quarterly log differences into annualised percent. Files
        keep the panel's units.
    unit
        Of what is shown, such as "percent at an annual rate".

    Raises
    ------
    ConfigurationError
        Values outside these ranges.
    """

    target: str
    as_of: Any = None
    ahead: int = 1
    level: float = 0.9
    indicator: str | None = None
    scale: float = 1.0
    unit: str = ""

    def __post_init__(self) -> None:
        at_least("ahead", self.ahead, 0)
        if not 0.0 < self.level < 1.0:
            raise ConfigurationError(f"level must lie between 0 and 1, got {self.level!r}")
        if not 1e-100 < abs(self.scale) < 1e100:
            raise ConfigurationError(f"scale must be a number other than 0, got {self.scale!r}")
        if self.as_of is not None:
            day_of(self.as_of, "as_of")


@dataclass(frozen=True, kw_only=True)
class NowcastRunOptions:
    """Where snapshots are kept, and whether the model is fitted anew.

    Parameters
    ----------
    output
        Folder of the snapshots.
    refit
        False keeps the model of the snapshot before, if there is one: then only data move the nowcast.
    n_jobs
        Processes of a bootstrap; None leaves the choice to `joblib.parallel_config`.
    """

    output: str
    refit: bool = True
    n_jobs: int | None = None

    def __post_init__(self) -> None:
        if self.n_jobs == 0:
            raise ConfigurationError("n_jobs must be a number of processes, -1 for all cores, got 0")


@dataclass(frozen=True, kw_only=True)
class NowcastJob:
    """A checked configuration: nothing has been read or run yet."""

    config: Mapping[str, Any]
    folder: Path
    data: ReleaseData
    series: Mapping[str, Mapping[str, Any]]
    model: Any
    options: NowcastOptions
    run: NowcastRunOptions
    bootstrap: ParameterBootstrap | None = None
    search: ModelSearch | None = None

    @property
    def output(self) -> Path:
        """Folder of the snapshots."""
        return self.folder / self.run.output


@dataclass(frozen=True, eq=False, kw_only=True)
class NowcastRun:
    """What a run found.

    Attributes
    ----------
    job, model, panel, nowcast
    news : period (text) -> decomposition since `before`
    before : the snapshot compared to, or None
    history : snapshots up to this run's day, oldest first, this run's own not among them
    folder : of this run's snapshot
    notes : remarks for the reader
    """

    job: NowcastJob
    model: Any
    panel: Panel
    nowcast: Nowcast
    news: Mapping[str, NewsDecomposition]
    before: Snapshot | None
    history: tuple[Snapshot, ...]
    folder: Path
    notes: tuple[str, ...] = field(default=())

    @property
    def shown(self) -> Nowcast:
        """The nowcast times `scale`, for the reader."""
        found, scale = self.nowcast, self.job.options.scale
        spread = found.parameter_covariance
        return replace(
            found,
            mean=scale * found.mean,
            covariance=scale**2 * found.covariance,
            parameter_covariance=None if spread is None else scale**2 * spread,
        )

    @property
    def came_out(self) -> dict[str, tuple[float, float]]:
        """Period -> value now published and the mean of the snapshot before, both times `scale`."""
        if self.before is None:
            return {}
        scale, panel = self.job.options.scale, self.panel
        values = panel.wide()[:, panel.assets.tolist().index(self.nowcast.target)]
        published = {str(time): value for time, value in zip(panel.times, values.tolist(), strict=True)}
        return {
            period: (scale * published[period], scale * mean)
            for period, mean in self.before.means.items()
            if np.isfinite(published.get(period, np.nan))
        }

    @property
    def shown_news(self) -> dict[str, NewsDecomposition]:
        """The news times `scale`; values of other series stay in their own units."""
        scale = self.job.options.scale
        return {
            period: replace(
                each, old=scale * each.old, new=scale * each.new, weight=scale * each.weight,
                contribution=scale * each.contribution,
            )
            for period, each in self.news.items()
        }  # fmt: skip


# ------------------------------------------------------------------------------------ reading


def read_nowcast_job(path: str | Path) -> NowcastJob:
    """Read and check a TOML file.

    Raises
    ------
    ConfigurationError
        One line that names the file, the key, what was expected and what came.
    """
    return from_toml(path, parse_nowcast_job)


def parse_nowcast_job(config: Mapping[str, Any], folder: str | Path = ".") -> NowcastJob:
    """Check a configuration given as plain values, as `tomllib` reads them.

    Examples
    --------
    >>> job = parse_nowcast_job(
    ...     {
    ...         "data": {"releases": "releases.csv"},
    ...         "model": {"type": "dfm", "n_factors": 1},
    ...         "nowcast": {"target": "gdp"},
    ...         "run": {"output": "nowcasts"},
    ...     }
    ... )
    >>> job.model.config.n_factors, job.options.ahead
    (1, 1)
    """
    refuse_unknown(
        config,
        ("data", "series", "model", "search", "nowcast", "bootstrap", "run"),
        "configuration",
        "section",
    )
    for section in ("data", "model", "nowcast", "run"):
        if section not in config:
            raise ConfigurationError(f"the section [{section}] is missing")
    entries = config.get("series", [])
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise ConfigurationError("series are a list of tables: write [[series]], with double brackets")
    series: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name = entry.get("name")
        if not isinstance(name, str) or name in series:
            raise ConfigurationError(f"[[series]] needs a name of its own, got {name!r}")
        fields = {key: each for key, each in entry.items() if key != "name"}
        stated = make(SeriesEntry, fields, f"[[series]] {name!r}")
        series[name] = {key: getattr(stated, key) for key in fields}
    model = as_table(config["model"], "[model]")
    kind = model.get("type")
    cls, chosen, where = selected(MODELS, model, "type", "[model]")
    build = getattr(importlib.import_module(cls.__module__), _CONFIGS[str(kind)])
    search = None
    if "search" in config:
        points, selection = read_search(config["search"], chosen, 1, "[search]")
        models = {name: cls(make(build, each, f"[search] ({name}) {where}")) for name, each in points.items()}
        search = ModelSearch(models, selection)
    bootstrap = None
    if "bootstrap" in config:
        if kind != "dfm":
            raise ConfigurationError(
                f"[bootstrap] draws parameters of type = 'dfm', got {kind!r}: leave it out"
            )
        bootstrap = make(ParameterBootstrap, as_table(config["bootstrap"], "[bootstrap]"), "[bootstrap]")
    return NowcastJob(
        config=config,
        folder=Path(folder),
        data=make(ReleaseData, as_table(config["data"], "[data]"), "[data]"),
        series=series,
        model=cls(make(build, chosen, where)) if search is None else next(iter(search.models.values())),
        options=make(NowcastOptions, as_table(config["nowcast"], "[nowcast]"), "[nowcast]"),
        run=make(NowcastRunOptions, as_table(config["run"], "[run]"), "[run]"),
        bootstrap=bootstrap,
        search=search,
    )


# ------------------------------------------------------------------------------------ running


def run_nowcast_job(job: NowcastJob) -> NowcastRun:
    """Fit, nowcast, compare to the snapshot before, and write the own snapshot.

    Raises
    ------
    LatentFactorsError
        Bad data or options; nothing is written then.
    """
    store, options = open_vintages(job.data, job.series, job.folder), job.options
    as_of = store.dates[-1] if options.as_of is None else day_of(options.as_of, "as_of")
    panel = store.as_of(as_of)
    for key, name in (("target", options.target), ("indicator", options.indicator)):
        check_series(key, name, store, panel, as_of)
    check_folder(job.output / str(as_of), options.target)
    # what the snapshot will hold is made before anything is fitted or written
    vintage = VintageStore.from_vintages([(as_of, panel)])
    snapshots = read_snapshots(job.output, options.target)
    history = tuple(each for each in snapshots if each.as_of < as_of)
    notes = [] if len(history) == len([s for s in snapshots if s.as_of != as_of]) else [
        f"there are snapshots later than {as_of}; this run is compared to the last one before it"
    ]  # fmt: skip
    if as_of > store.dates[-1]:
        notes.append(f"nothing was released after {store.dates[-1]}, the last release in the data")
    before = history[-1] if history else None
    model: Any = job.model.clone()
    day = None if before is None else before.as_of
    compared = f"compared to the snapshot of {day} in {str(job.output)!r} (another output starts anew)"
    with named(compared):
        old_model: Any = None if before is None else before.model(type(model))
    if (before is None or job.run.refit) and job.search is not None:
        model, name = job.search.fit(panel, n_jobs=job.run.n_jobs)
        notes.append(f"{name} was chosen of {job.search.said}")
    elif before is None or job.run.refit:
        model.fit(panel)
    else:
        model = old_model
        notes.append(f"the model is that of {before.as_of}: only data moved the nowcast")
    draws: tuple[Any, ...] = ()
    if job.bootstrap is not None:
        # a kept model was fitted to an earlier vintage, the last one that stands
        fitted_to = panel if before is None or job.run.refit else before.panel()
        draws = bootstrap_parameters(model, fitted_to, job.bootstrap, n_jobs=job.run.n_jobs)
        notes.append(f"densities include parameter uncertainty: {len(draws)} bootstrap draws")
    found = nowcast(model, panel, options.target, ahead=options.ahead, as_of=as_of, parameter_draws=draws)
    decompositions = {}
    if before is not None:
        with named(compared):
            former = before.panel()
            for period in found.periods:
                if str(period) in before.means:
                    decompositions[str(period)] = nowcast_news(
                        old_model, model, former, panel, options.target, period, dates=(before.as_of, as_of)
                    )
    run = NowcastRun(
        job=job, model=model, panel=panel, nowcast=found, news=decompositions, before=before, history=history,
        folder=job.output / str(as_of), notes=tuple(notes),
    )  # fmt: skip
    _write(run, vintage)
    return run


def _write(run: NowcastRun, vintage: VintageStore) -> None:
    import polars as pl

    folder, found = run.folder, run.nowcast
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{str(folder)!r} cannot be written: {error}") from error
    run.model.save(folder / "model")
    vintage.save(folder / "vintage")
    frame = found.frame(level=run.job.options.level)
    _write_parquet(folder / "nowcasts.parquet", frame)
    if run.news:
        parts = [
            each.frame().with_columns(pl.lit(period).alias("nowcast_period"))
            for period, each in run.news.items()
        ]
        _write_parquet(folder / "news.parquet", pl.concat(parts))
    else:
        (folder / "news.parquet").unlink(missing_ok=True)
    document = {
        "format": SNAPSHOT_FORMAT,
        "latentfactors": __version__,
        "as_of": str(found.as_of),
        "target": str(found.target),
        "periods": [str(each) for each in found.periods],
        "kinds": list(found.kinds),
        "mean": found.mean.tolist(),
        "std": found.standard_deviation.tolist(),
        "compared_to": None if run.before is None else str(run.before.as_of),
        "news": {period: each.by("kind") for period, each in run.news.items()},
        "fit": {"converged": run.model.summary.converged, "reason": run.model.summary.reason,
                "warnings": list(run.model.summary.warnings)},
        "options": asdict(run.job.options) | {"as_of": str(found.as_of)},
        "notes": [*run.panel.notes, *run.notes],
    }  # fmt: skip
    text = json.dumps(document, indent=2, allow_nan=False, default=str)
    write_atomically(folder / "snapshot.json", f"{text}\n".encode())


def _write_parquet(path: Path, frame: Any) -> None:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    write_atomically(path, buffer.getvalue())
