"""Walk-forwards side by side, scored on the cells they have in common.

A predictor that leaves out the hard rows would look better than one that forecasts them all. So every score
is taken where *all* predictors have a forecast and the value is known; how many forecasts each one has of its
own stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.frames import to_frame
from latentfactors.track_record import WalkForwardResult

__all__ = ["check_alike", "common_cells", "metrics_table", "predictions_table", "weights_table"]

BoolArray = npt.NDArray[np.bool_]
_SCORES = (
    "r2_zero", "r2_mean", "rank_ic", "rank_ic_t", "icir", "total_r2", "rmse", "mae", "coverage_90",
)  # fmt: skip


def metrics_table(results: Mapping[str, WalkForwardResult], backend: str = "polars") -> Any:
    """One line per predictor, all of them scored on the same cells.

    Parameters
    ----------
    results
        Name -> walk-forward; all on the same panel, horizon and splits. How many of its training periods a
        predictor sets aside for validation may differ: what it forecasts does not depend on it.
    backend
        "polars", "pandas" or "pyarrow".

    Returns
    -------
    frame
        name; r2_zero, r2_mean, rank_ic, rank_ic_t, icir, total_r2, rmse, mae, coverage_90; n_forecasts, the
        number of common cells; n_own, the predictor's own forecasts of known values; n_failed, its failed
        splits; seconds. All scores are of the common cells but total_r2, which describes all rows with
        realised factors. NaN where a score is not defined, such as the rank IC of a constant forecast.

    Raises
    ------
    ConfigurationError
        No result, or results that differ in panel, horizon or splits.

    Examples
    --------
    >>> from latentfactors.models.direct import HistoricalMeanPredictor, ZeroPredictor
    >>> from latentfactors.simulate import static_panel
    >>> from latentfactors.splits import ExpandingWindow
    >>> from latentfactors.walkforward import walk_forward
    >>> panel = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel
    >>> predictors = {"mean": HistoricalMeanPredictor(), "zero": ZeroPredictor()}
    >>> splits = ExpandingWindow(first=36, step=12)
    >>> table = metrics_table({name: walk_forward(each, panel, splits) for name, each in predictors.items()})
    >>> table["name"].to_list(), table["r2_mean"][0], table["n_forecasts"].to_list()
    (['mean', 'zero'], 0.0, [240, 240])
    """
    cells = common_cells(results)
    scores = {name: result.record.metrics(cells[name]) for name, result in results.items()}
    columns: dict[str, npt.NDArray[Any]] = {"name": np.array(list(results))}
    columns |= {key: np.array([each[key] for each in scores.values()]) for key in _SCORES}
    columns["n_forecasts"] = np.array([int(mask.sum()) for mask in cells.values()])
    columns["n_own"] = np.array([int(_scorable(result).sum()) for result in results.values()])
    columns["n_failed"] = np.array([len(result.failures) for result in results.values()])
    columns["seconds"] = np.array([result.seconds for result in results.values()])
    return to_frame(columns, backend)


def common_cells(results: Mapping[str, WalkForwardResult]) -> dict[str, BoolArray]:
    """For every result a mask over the rows of its record: known values that all predictors forecast.

    A split that failed for one predictor is common ground for none. A predictor without any forecast (a
    portfolio learner) takes no cell away from the others.

    Raises
    ------
    ConfigurationError
        No result, or results that differ in panel, horizon or splits.
    """
    check_alike(results)
    first = next(iter(results.values()))
    blocks = [split.block(first.panel) for split in first.splits]
    sizes = [int(source.offsets[stop] - source.offsets[start]) for source, start, stop in blocks]
    # A record has the rows of finished splits only; `finished` says which of all rows these are.
    finished = {
        name: np.repeat([block is not None for block in result.blocks], sizes)
        for name, result in results.items()
    }
    common = np.ones(sum(sizes), dtype=bool)
    for name, result in results.items():
        if np.isfinite(result.record.forecast).any():
            scored = np.zeros(common.size, dtype=bool)
            scored[finished[name]] = _scorable(result)
            common &= scored
    return {name: common[finished[name]] & _scorable(result) for name, result in results.items()}


def predictions_table(results: Mapping[str, WalkForwardResult]) -> Any:
    """Forecasts of all predictors below each other.

    Returns
    -------
    polars.DataFrame or None
        predictor, timestamp, asset, prediction_value, target_timestamp, prediction_std (null where not
        known); None where no predictor forecasts values.
    """
    import polars as pl

    stacked = _stacked(results, "expected_values")
    if stacked is None or "prediction_std" in stacked.columns:
        return stacked
    return stacked.with_columns(pl.lit(None, dtype=pl.Float64).alias("prediction_std"))


def weights_table(results: Mapping[str, WalkForwardResult]) -> Any:
    """Weights of all predictors below each other: predictor, timestamp, asset, weight, selected; or None."""
    return _stacked(results, "weights")


def _stacked(results: Mapping[str, WalkForwardResult], what: Literal["expected_values", "weights"]) -> Any:
    import polars as pl

    frames = []
    for name, each in results.items():
        if any(block is not None and getattr(block, what) is not None for block in each.blocks):
            frame = each.frame() if what == "expected_values" else each.weights_frame()
            frames.append(frame.select(pl.lit(name).alias("predictor"), pl.all()))
    return pl.concat(frames, how="diagonal") if frames else None


def _scorable(result: WalkForwardResult) -> BoolArray:
    return np.isfinite(result.record.forecast) & np.isfinite(result.record.realised)


def check_alike(results: Mapping[str, WalkForwardResult]) -> None:
    """Refuse results that cannot be compared.

    Raises
    ------
    ConfigurationError
        No result, or results that differ in panel, horizon or splits.
    """
    if not results:
        raise ConfigurationError("there is no result to compare: give at least one walk-forward")
    (reference, first), *others = results.items()
    for name, result in others:
        if result.horizon != first.horizon:
            difference = f"horizon {result.horizon} and {first.horizon}"
        elif result.panel is not first.panel and result.panel.digests() != first.panel.digests():
            difference = f"different panels: {result.panel!r} and {first.panel!r}"
        elif _windows(result) != _windows(first):
            difference = f"different splits: {len(result.splits)} and {len(first.splits)} of them"
        else:
            continue
        raise ConfigurationError(
            f"results can be compared on one panel, horizon and set of splits, {name!r} and {reference!r} "
            f"have {difference}: run walk_forward on the same three"
        )


def _windows(result: WalkForwardResult) -> list[Any]:
    """The splits but for what a model sets aside inside its own training window."""
    return [replace(split, validation=0) for split in result.splits]
