"""What a run leaves for its report.

    predictions.parquet   the forecasts
    metrics.csv           the scores
    report-data.zip       realised values, coverage, fits, factors, loadings: one artifact of `store`
    manifest.json         what ran, and the checksums of the three

Only what a figure shows is kept: of all refits' factor paths the last one and the range, of all loadings the
last refit's. The factors of a refit are put in the order and signs of the one before it; the loadings follow.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.errors import LatentFactorsError, StoreError
from latentfactors.estimator import freeze
from latentfactors.evaluate.tangency import TangencyPath, tangency_path
from latentfactors.kernels.rotation import match_signed_permutation
from latentfactors.model import Predictor
from latentfactors.panel import Panel, ValueKind
from latentfactors.periods import Frequency
from latentfactors.pipeline import LatentFactorForecastPipeline
from latentfactors.state import LatentFactorState, latent_names
from latentfactors.store import load_object, save_object
from latentfactors.track_record import FactorPath, WalkForwardResult

__all__ = [
    "REPORT_DATA", "Coverage", "Exposures", "FactorBand", "FitHistory", "RunData", "collect", "coverage_of",
    "exposures_of", "factor_band", "fit_history", "last_exposures", "sha256_of",
]  # fmt: skip

FloatArray = npt.NDArray[np.float64]
REPORT_DATA = "report-data.zip"


@dataclass(frozen=True, eq=False, kw_only=True)
class Coverage:
    """How much data there is.

    Attributes
    ----------
    times : (T,) periods
    n_assets : (T,) assets with a row
    n_observed : (T,) of these, with a value
    columns : Name -> share of missing entries, of every characteristic
    """

    times: npt.NDArray[Any]
    n_assets: npt.NDArray[np.int64]
    n_observed: npt.NDArray[np.int64]
    columns: Mapping[str, float]

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def missing(self) -> FloatArray:
        """(T,) share of rows without a value; NaN where a period has no row."""
        gone = (self.n_assets - self.n_observed).astype(np.float64)
        return np.divide(gone, self.n_assets, out=np.full(gone.size, np.nan), where=self.n_assets > 0)


@dataclass(frozen=True, eq=False, kw_only=True)
class FitHistory:
    """How every refit went: starts (S,) first period forecast, seconds, iterations, converged, done (S,)."""

    starts: npt.NDArray[Any]
    seconds: FloatArray
    iterations: npt.NDArray[np.int64]
    converged: npt.NDArray[np.bool_]
    done: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        freeze(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorBand:
    """Factors over time: of the latest refit that covers a period, and the range over all that do.

    Attributes
    ----------
    times : (S,) periods
    values, low, high : (S, K)
    names : K names
    n_refits : number of refits
    """

    times: npt.NDArray[Any]
    values: FloatArray
    low: FloatArray
    high: FloatArray
    names: tuple[str, ...]
    n_refits: int

    def __post_init__(self) -> None:
        freeze(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Exposures:
    """Loadings of one fit: values (N, K), a label for every line, K factor names, what a line is, when."""

    values: FloatArray
    labels: tuple[str, ...]
    factor_names: tuple[str, ...]
    kind: Literal["assets", "characteristics"]
    when: str

    def __post_init__(self) -> None:
        freeze(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class RunData:
    """The artifact in `report-data.zip`: the rows of all predictors once, the rest by predictor's name.

    Attributes
    ----------
    target_times, asset_codes, realised, historical_mean : (R,) see `TrackRecord`
    offsets : (P + 1,) rows that share an origin
    assets : (N,) labels
    value_kind, frequency, horizon : of the panel and the job
    tangencies : Name -> tangency portfolio of the predictor's factors, for values that are returns
    observed_factors : (T, M) over `coverage.times`, named by observed_factor_names, or None
    """

    target_times: npt.NDArray[Any]
    asset_codes: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    realised: FloatArray
    historical_mean: FloatArray
    assets: npt.NDArray[Any]
    value_kind: ValueKind
    frequency: Frequency | None
    horizon: int
    coverage: Coverage
    fits: Mapping[str, FitHistory]
    bands: Mapping[str, FactorBand]
    exposures: Mapping[str, Exposures]
    tangencies: Mapping[str, TangencyPath] = field(default_factory=dict)
    observed_factors: FloatArray | None = None
    observed_factor_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        freeze(self)

    def to_bytes(self) -> bytes:
        """One zip with what `store.save_object` writes."""
        buffer = io.BytesIO()
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(buffer, "w") as archive:
            save_object(folder, self, {"purpose": "read by latentfactors report"})
            for path in sorted(Path(folder).iterdir()):
                entry = zipfile.ZipInfo(path.name)  # without the date: equal results, equal bytes
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> RunData:
        """Read what `to_bytes` made; `StoreError` for anything else."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive, tempfile.TemporaryDirectory() as folder:
                for name in archive.namelist():
                    (Path(folder) / Path(name).name).write_bytes(archive.read(name))
                return load_object(folder, cls)
        except (zipfile.BadZipFile, OSError) as error:
            raise StoreError(f"{REPORT_DATA} cannot be read: {error}") from None

    def panel(self) -> Panel:
        """The realised values as a panel over all realised periods, rows of the forecast ones only."""
        times, live = self.coverage.times, np.isfinite(self.realised)
        period = np.searchsorted(times, self.target_times[live])
        return Panel(
            times=times,
            assets=self.assets,
            offsets=np.concatenate([[0], np.cumsum(np.bincount(period, minlength=len(times)))]),
            asset_codes=self.asset_codes[live].astype(np.int32),
            values=self.realised[live],
            value_kind=self.value_kind,
            frequency=self.frequency,
            observed_factors=self.observed_factors,
            observed_factor_names=self.observed_factor_names,
        )


# ------------------------------------------------------------------------------------ from results


def coverage_of(panel: Panel) -> Coverage:
    """Count rows and values period by period, up to the last one with a value: what is live is not missing.

    >>> values = np.array([[0.1, 0.2], [np.nan, 0.3]])
    >>> coverage_of(Panel.from_arrays(values, np.ones((2, 2, 1)))).missing.tolist()
    [0.0, 0.5]
    """
    panel = panel.between(0, panel.n_realised)
    seen = np.concatenate([[0], np.cumsum(panel.observed)])
    columns = {}
    if panel.characteristics is not None:
        shares = np.isnan(panel.characteristics).mean(axis=0)
        columns = dict(zip(panel.characteristic_names, shares.tolist(), strict=True))
    return Coverage(
        times=panel.times,
        n_assets=np.diff(panel.offsets),
        n_observed=np.diff(seen[panel.offsets]).astype(np.int64),
        columns=columns,
    )


def fit_history(result: WalkForwardResult) -> FitHistory:
    """Seconds, iterations and convergence, split by split; NaN and 0 where one failed."""
    starts = []
    for split in result.splits:
        source, start, _ = split.block(result.panel)
        starts.append(source.times[start])
    blocks = result.blocks
    return FitHistory(
        starts=np.array(starts),
        seconds=np.array([np.nan if each is None else each.fit_seconds for each in blocks]),
        iterations=np.array([0 if each is None else each.summary.n_iterations for each in blocks]),
        converged=np.array([each is not None and each.summary.converged for each in blocks]),
        done=np.array([each is not None for each in blocks]),
    )


def factor_band(paths: Sequence[FactorPath]) -> FactorBand:
    """The latest value of every period and the range over the refits, which are aligned already."""
    times = np.unique(np.concatenate([path.times for path in paths]))
    values, low, high = np.full((3, times.size, paths[0].values.shape[1]), np.nan)
    for path in paths:
        at = np.searchsorted(times, path.times)
        values[at] = np.where(np.isfinite(path.values), path.values, values[at])
        low[at], high[at] = np.fmin(low[at], path.values), np.fmax(high[at], path.values)
    return FactorBand(
        times=times, values=values, low=low, high=high, names=paths[-1].names, n_refits=len(paths)
    )


def exposures_of(state: LatentFactorState) -> Exposures:
    """Loadings of the assets of a state's last period."""
    index = state.index
    last = index.n_periods - 1
    return Exposures(
        values=state.measurement.loadings.at(last),
        labels=tuple(str(each) for each in index.assets[index.asset_codes[index.rows(last)]]),
        factor_names=state.factors.names,
        kind="assets",
        when=str(index.times[last]),
    )


def last_exposures(
    predictors: Mapping[str, Predictor], results: Mapping[str, WalkForwardResult]
) -> dict[str, Exposures]:
    """Loadings of every pipeline's last refit, in the order and signs of its aligned factors."""
    found = {name: _last_exposures(each, results[name]) for name, each in predictors.items()}
    return {name: each for name, each in found.items() if each is not None}


def _last_exposures(predictor: Predictor, result: WalkForwardResult) -> Exposures | None:
    """Loadings of the last refit, in the order and signs of the aligned factors.

    Walk-forward keeps forecasts and factors only, so a pipeline's last split is fitted once more. None where
    there is no structural model, or no split to fit.
    """
    finished = [split for split, block in zip(result.splits, result.blocks, strict=True) if block is not None]
    if not isinstance(predictor, LatentFactorForecastPipeline) or not finished:
        return None
    split = finished[-1]
    training, test = split.panels(result.panel)
    model = predictor.model.clone()
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            if split.validation:
                model = predictor.with_validation(split.validation).model
            model.fit(training)
            state = model.extract(test)
    except LatentFactorsError:  # the run itself is done: worth more than a picture of its last loadings
        return None
    found, aligned = exposures_of(state), result.factor_paths()[-1]
    values, labels, kind = found.values, found.labels, found.kind
    # An instrumented model says the same once for all assets: characteristics by factors.
    parts = [getattr(model.estimates, name, None) for name in ("gamma", "gamma_observed")]
    gamma = np.column_stack([part for part in parts if part is not None]) if parts[0] is not None else values
    names = tuple(getattr(model.estimates, "characteristic_names", ()))
    if parts[0] is not None and gamma.shape == (len(names), values.shape[1]):
        values, labels, kind = gamma, names, "characteristics"
    factors = state.factors.values[-len(aligned.times) :]
    own = np.flatnonzero(latent_names(found.factor_names))  # named factors need no matching
    there = aligned.values[:, [aligned.names.index(found.factor_names[k]) for k in own]]
    both = np.isfinite(factors[:, own]).all(axis=1) & np.isfinite(there).all(axis=1)
    if both.sum() > 1 and own.size:
        order, signs = match_signed_permutation(factors[np.ix_(both, own)], there[both])
        values = values.copy()
        values[:, own] = values[:, own[order]] * signs
    last = str(training.times[training.n_realised - 1])
    return Exposures(values=values, labels=labels, factor_names=found.factor_names, kind=kind, when=last)


def collect(results: Mapping[str, WalkForwardResult], exposures: Mapping[str, Exposures]) -> RunData:
    """Everything that the report needs beside predictions and metrics."""
    first = next(iter(results.values()))
    shared: dict[str, list[Any]] = {
        name: [] for name in ("target_times", "asset_codes", "realised", "historical_mean", "counts")
    }
    place = {name: [0, 0] for name in results}  # periods and rows of its record already passed
    for split, (source, start, stop) in enumerate(each.block(first.panel) for each in first.splits):
        counts, taken = np.diff(source.offsets[start : stop + 1]), False
        for name, result in results.items():
            if result.blocks[split] is None:
                continue
            low = place[name][1]
            place[name][1] = low + int(counts.sum())
            if not taken:  # the rows are the same for every predictor that finished the split
                taken = True
                shared["counts"].append(counts)
                for key in ("target_times", "asset_codes", "realised", "historical_mean"):
                    shared[key].append(getattr(result.record, key)[low : place[name][1]])
    columns = {key: np.concatenate(parts) for key, parts in shared.items()}
    paths = {name: result.factor_paths() for name, result in results.items()}
    returns_like = first.panel.value_kind != "series"
    observed = first.panel.observed_factors
    return RunData(
        offsets=np.concatenate([[0], np.cumsum(columns.pop("counts"))]).astype(np.int64),
        assets=first.panel.assets,
        value_kind=first.panel.value_kind,
        frequency=first.panel.frequency,
        horizon=first.horizon,
        coverage=coverage_of(first.panel),
        fits={name: fit_history(result) for name, result in results.items()},
        bands={name: factor_band(each) for name, each in paths.items() if each},
        exposures=exposures,
        tangencies={name: tangency_path(results[name]) for name in paths if returns_like and paths[name]},
        observed_factors=None if observed is None else observed[: first.panel.n_realised],
        observed_factor_names=first.panel.observed_factor_names,
        **columns,
    )


def sha256_of(contents: Mapping[str, bytes]) -> dict[str, str]:
    """Checksums for the manifest, so that a report never mixes the files of two runs."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
