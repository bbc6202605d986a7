"""What a walk-forward leaves behind: forecasts beside what came true, scores, frames, aligned factors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors._version import __version__
from latentfactors.errors import MissingCapabilityError
from latentfactors.estimator import freeze
from latentfactors.frames import predictions_frame, to_frame, weights_frame, write_frames
from latentfactors.kernels import scores
from latentfactors.kernels.rotation import match_signed_permutation
from latentfactors.panel import Panel
from latentfactors.results import AssetForecastResult, AssetWeightsResult
from latentfactors.rows import RowIndex
from latentfactors.splits import Split, VintageSplit
from latentfactors.state import FitSummary, latent_names

__all__ = ["BlockForecast", "FactorPath", "SplitFailure", "TrackRecord", "WalkForwardResult"]

FloatArray = npt.NDArray[np.float64]
_NORMAL_90 = 1.6448536269514722


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockForecast:
    """One split's forecasts, in the order of its block's rows, and how the fit went.

    Attributes
    ----------
    expected_values, variance, weights, reconstruction : (R_block,) or None
    sdf : (T_block,) or None
    factors : (S, K) or None, over the training periods and the block, at factor_times (S,)
    summary : FitSummary
    fit_seconds, predict_seconds : wall time
    """

    expected_values: FloatArray | None
    variance: FloatArray | None
    weights: FloatArray | None
    reconstruction: FloatArray | None
    sdf: FloatArray | None
    factors: FloatArray | None
    factor_times: npt.NDArray[Any] | None
    factor_names: tuple[str, ...]
    summary: FitSummary
    fit_seconds: float
    predict_seconds: float

    def __post_init__(self) -> None:
        freeze(self)


@dataclass(frozen=True)
class SplitFailure:
    """A split that failed: which (in dates) and why."""

    split: str
    error: str


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorPath:
    """Factors of one refit, named, ordered and signed like the refit before it: times (S,), values (S, K)."""

    times: npt.NDArray[Any]
    values: FloatArray
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class TrackRecord:
    """Forecasts beside what came true, row by row over all blocks.

    Attributes
    ----------
    target_times : (R,) period that was forecast
    asset_codes : (R,) position in the panel's assets; -1 for an asset it no longer has
    offsets : (P + 1,) rows that share an origin
    forecast, variance, reconstruction : (R,) NaN where there is none
    realised : (R,) value of the asset in the target period, NaN where not (yet) observed
    own_value : (R,) value in the row's own period, which the reconstruction describes
    historical_mean : (R,) mean of the asset's values up to the origin
    """

    target_times: npt.NDArray[Any]
    asset_codes: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    forecast: FloatArray
    variance: FloatArray
    reconstruction: FloatArray
    realised: FloatArray
    own_value: FloatArray
    historical_mean: FloatArray

    def __post_init__(self) -> None:
        freeze(self)

    def metrics(self, cells: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Scores over all rows, or over `cells` (R,) so that several predictors meet on common ground.

        Returns
        -------
        dict
            r2_zero, r2_mean (out of sample, against zero and against the historical mean), rank_ic,
            rank_ic_t, icir, total_r2 (of reconstructions with realised factors: a description), rmse, mae,
            coverage_90 where there are variances, n_forecasts, and n_unforecast: realised values nobody
            forecast.
        """
        forecast = self.forecast if cells is None else np.where(cells, self.forecast, np.nan)
        realised = self.realised
        ic = scores.rank_ic(realised, forecast, self.offsets)
        both = np.isfinite(forecast) & np.isfinite(realised)
        sd = np.sqrt(self.variance)
        return {
            "r2_zero": scores.r_squared(realised, forecast),
            "r2_mean": scores.r_squared(realised, forecast, self.historical_mean),
            "rank_ic": ic.mean,
            "rank_ic_t": ic.t_statistic,
            "icir": ic.icir,
            "total_r2": scores.r_squared(self.own_value, self.reconstruction),
            "rmse": scores.rmse(realised, forecast),
            "mae": scores.mae(realised, forecast),
            "coverage_90": scores.coverage(realised, forecast - _NORMAL_90 * sd, forecast + _NORMAL_90 * sd),
            "n_forecasts": float(both.sum()),
            "n_unforecast": float((np.isfinite(realised) & ~np.isfinite(forecast)).sum()),
        }


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class WalkForwardResult:
    """Everything a walk-forward found out.

    Attributes
    ----------
    predictor, identity
        What ran.
    panel
        The data it ran on; realised values come from here.
    horizon
        Row p forecast period p + horizon - 1.
    splits, blocks
        One block per split; None where the split failed.
    failures
        Splits that failed, in dates, with the reason.
    n_reused
        Splits taken from the store.
    """

    predictor: str
    identity: str
    panel: Panel
    horizon: int
    splits: tuple[Split | VintageSplit, ...]
    blocks: tuple[BlockForecast | None, ...]
    failures: tuple[SplitFailure, ...] = ()
    n_reused: int = 0

    @cached_property
    def record(self) -> TrackRecord:
        """Forecasts beside what came true."""
        parts = [
            self._compare(index, block, source, rows) for index, block, source, rows, _ in self._finished()
        ]
        columns = {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "counts"
        }
        counts = np.concatenate([part["counts"] for part in parts])
        return TrackRecord(offsets=np.concatenate([[0], np.cumsum(counts)]), **columns)

    @property
    def summaries(self) -> tuple[FitSummary, ...]:
        """Fit summaries of the finished splits."""
        return tuple(block.summary for block in self.blocks if block is not None)

    @property
    def seconds(self) -> float:
        """Fitting and predicting time, summed over splits."""
        return sum(block.fit_seconds + block.predict_seconds for block in self.blocks if block is not None)

    def metrics(self) -> dict[str, float]:
        """Scores of `TrackRecord.metrics`."""
        return self.record.metrics()

    def frame(self, backend: str = "polars") -> Any:
        """All forecasts: timestamp (origin or vintage date), asset, prediction_value, target_timestamp ..."""
        import polars as pl

        frames = []
        for index, block, _, _, as_of in self._finished():
            if block.expected_values is None:
                raise MissingCapabilityError("this predictor forecasts no values: see weights_frame")
            forecast = AssetForecastResult(
                index=index,
                horizon=self.horizon,
                expected_values=block.expected_values,
                variance=block.variance,
            )
            frames.append(predictions_frame(forecast, as_of=as_of))
        return _as_backend(pl.concat(frames), backend)

    def weights_frame(self, backend: str = "polars") -> Any:
        """All weights: timestamp, asset, weight, selected.

        Raises
        ------
        MissingCapabilityError
            When the predictor gives no weights.
        """
        import polars as pl

        frames = []
        for index, block, _, _, _ in self._finished():
            if block.weights is None:
                raise MissingCapabilityError("this predictor gives no portfolio weights: see frame")
            frames.append(
                weights_frame(AssetWeightsResult(index=index, horizon=self.horizon, weights=block.weights))
            )
        return _as_backend(pl.concat(frames), backend)

    def factor_paths(self) -> tuple[FactorPath, ...]:
        """Factors of every refit under one tuple of names; nothing is averaged.

        Named factors (`market`, `country=FR`) are joined by name, NaN where a refit has no such factor;
        latent ones (F1, F2, ...) are put in the order and signs of the refit before.
        """
        blocks = [each for each in self.blocks if each is not None and each.factors is not None]
        names = tuple(dict.fromkeys(name for each in blocks for name in each.factor_names))
        latent = latent_names(names)
        paths: list[FactorPath] = []
        for block in blocks:
            assert block.factors is not None
            assert block.factor_times is not None
            values = np.full((len(block.factor_times), len(names)), np.nan)
            values[:, [names.index(name) for name in block.factor_names]] = block.factors
            if paths and latent.any():
                former = paths[-1]
                _, here, there = np.intersect1d(block.factor_times, former.times, return_indices=True)
                found, before = values[here], former.values[there]
                own = np.flatnonzero(latent & np.isfinite(values).any(axis=0))
                theirs = np.flatnonzero(latent & np.isfinite(former.values).any(axis=0))
                common = np.isfinite(found[:, own]).all(axis=1) & np.isfinite(before[:, theirs]).all(axis=1)
                if common.sum() > 1 and own.size and theirs.size:
                    order, signs = match_signed_permutation(
                        found[np.ix_(common, own)], before[np.ix_(common, theirs)]
                    )
                    values[:, own] = values[:, own[order]] * signs
            paths.append(FactorPath(times=block.factor_times, values=values, names=names))
        return tuple(paths)

    def save(self, directory: str | Path) -> list[Path]:
        """Write predictions.parquet (or weights.parquet) and manifest.json into a directory."""
        has_values = any(block is not None and block.expected_values is not None for block in self.blocks)
        has_weights = any(block is not None and block.weights is not None for block in self.blocks)
        return write_frames(
            directory,
            predictions=self.frame() if has_values else None,
            weights=self.weights_frame() if has_weights else None,
            manifest=self.manifest(),
        )

    def manifest(self) -> dict[str, Any]:
        """What ran, on what, and how it went, as plain values."""
        panel = self.panel
        return {
            "latentfactors": __version__,
            "predictor": self.predictor,
            "identity": self.identity,
            "horizon": self.horizon,
            "panel": {
                "periods": panel.n_periods,
                "first": str(panel.times[0]),
                "last": str(panel.times[-1]),
                "assets": panel.n_assets,
                "rows": panel.n_rows,
                "value_kind": panel.value_kind,
                "frequency": panel.frequency,
                "transforms": list(panel.transforms),
                "digest": panel.digests()[-1],
                "notes": list(panel.notes),
            },
            "splits": [split.describe(panel) for split in self.splits],
            "failures": [{"split": failure.split, "error": failure.error} for failure in self.failures],
            "warnings": sorted({remark for summary in self.summaries for remark in summary.warnings}),
            "converged": sum(summary.converged for summary in self.summaries),
            "seconds": round(self.seconds, 3),
            "metrics": {
                name: value if np.isfinite(value) else None for name, value in self.metrics().items()
            },
        }

    def _finished(self) -> Iterator[tuple[RowIndex, BlockForecast, Panel, slice, Any]]:
        """Row index, block, the panel its rows belong to, these rows, and the vintage date."""
        for split, block in zip(self.splits, self.blocks, strict=True):
            if block is not None:
                source, start, stop = split.block(self.panel)
                rows = slice(int(source.offsets[start]), int(source.offsets[stop]))
                yield source.index.between(start, stop), block, source, rows, split.as_of

    @cached_property
    def _historical_mean(self) -> FloatArray:
        return historical_mean(self.panel)

    def _compare(self, index: RowIndex, block: BlockForecast, source: Panel, rows: slice) -> dict[str, Any]:
        empty = np.full(index.n_rows, np.nan)
        mean = self._historical_mean if source is self.panel else historical_mean(source)
        targets = index.targets(self.horizon)[index.period_codes]
        codes = index.match_assets(self.panel.assets)[index.asset_codes]
        return {
            "target_times": targets,
            "asset_codes": codes,
            "counts": np.diff(index.offsets),
            "forecast": empty if block.expected_values is None else block.expected_values,
            "variance": empty if block.variance is None else block.variance,
            "reconstruction": empty if block.reconstruction is None else block.reconstruction,
            "realised": look_up(self.panel, targets, codes),
            "own_value": look_up(self.panel, index.times[index.period_codes], codes),
            "historical_mean": mean[rows],
        }

    def __repr__(self) -> str:
        done = sum(block is not None for block in self.blocks)
        return (
            f"WalkForwardResult({self.predictor}, {done} of {len(self.splits)} splits, "
            f"horizon {self.horizon}, {len(self.failures)} failed)"
        )


def historical_mean(panel: Panel) -> FloatArray:
    """(R,) mean of each row's asset over strictly earlier periods: the benchmark forecast."""
    return scores.expanding_asset_mean(panel.values, panel.offsets, panel.asset_codes, panel.n_assets)


def look_up(panel: Panel, times: npt.NDArray[Any], codes: npt.NDArray[np.int64]) -> FloatArray:
    """(R,) values of given periods and asset codes, NaN where the panel has no such row."""
    if panel.n_rows == 0:
        return np.full(times.size, np.nan)
    period = np.minimum(np.searchsorted(panel.times, times), panel.n_periods - 1)
    keys = panel.index.period_codes * panel.n_assets + panel.asset_codes
    wanted = period * panel.n_assets + codes
    row = np.minimum(np.searchsorted(keys, wanted), panel.n_rows - 1)
    found = (panel.times[period] == times) & (codes >= 0) & (keys[row] == wanted)
    return np.where(found, panel.values[row], np.nan)


def _as_backend(frame: Any, backend: str) -> Any:
    if backend == "polars":
        return frame
    return to_frame({name: frame[name].to_numpy() for name in frame.columns}, backend)
