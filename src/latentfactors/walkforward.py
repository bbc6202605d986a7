"""`walk_forward`: fit on the past, predict the next block, for any predictor.

Every split is a task of its own, cold-started, so splits run in parallel under whatever backend joblib's
context names. A finished one is kept under a key of its content: library version, predictor, horizon, the
panel's digest chain at the split's last period, and the split's place. A new month changes the key of the
last block only.

What a predictor needs of every period apart from all others (IPCA: Z'Z and Z'r) is computed once, by the
method `share` if it has one, and travels with the panel: a window is a slice of it. Cold starts and slices of
numbers that know one period only: no window can learn anything from another.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import joblib
from threadpoolctl import threadpool_limits

from latentfactors._version import __version__
from latentfactors.errors import ConfigurationError, LatentFactorsError, MissingCapabilityError, StoreError
from latentfactors.estimator import check_horizon
from latentfactors.model import Predictor
from latentfactors.panel import Panel
from latentfactors.splits import Split, Splits, VintageSplit
from latentfactors.store import load_object, save_object
from latentfactors.track_record import BlockForecast, SplitFailure, WalkForwardResult

__all__ = ["walk_forward"]

Progress = Callable[[int, int], None]
_PROCESS = uuid.uuid4().hex


def walk_forward(
    predictor: Predictor,
    panel: Panel,
    splits: Splits,
    *,
    horizon: int = 1,
    n_jobs: int | None = None,
    store: str | Path | None = None,
    progress: Progress | None = None,
    keep_loadings: bool = False,
) -> WalkForwardResult:
    """Fit a fresh copy of a predictor on every split's past and forecast its block.

    Parameters
    ----------
    predictor
        Anything with fit, predict, clone and identity. It is not fitted itself.
    panel
        All data; workers slice it.
    splits
        `ExpandingWindow`, `RollingWindow` or `VintageSplits`.
    horizon
        Row p forecasts period p + horizon - 1.
    n_jobs
        Processes; None leaves the choice to `joblib.parallel_config`, which may also name Dask or Ray.
    store
        Folder that keeps finished splits; a second call takes up where the first was stopped.
    progress
        Called with (done, total) as splits finish.
    keep_loadings
        Whether blocks keep the loadings of their rows, (R_block, K) numbers each, to sort portfolios on.

    Returns
    -------
    WalkForwardResult

    Raises
    ------
    ConfigurationError
        At once, from whichever split meets it first: what cannot work in any window.
    LatentFactorsError
        When every split failed. A single failure is reported in `result.failures` and the others go on.

    Examples
    --------
    >>> from latentfactors.models.direct import HistoricalMeanPredictor
    >>> from latentfactors.simulate import static_panel
    >>> from latentfactors.splits import ExpandingWindow
    >>> panel = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel
    >>> result = walk_forward(HistoricalMeanPredictor(), panel, ExpandingWindow(first=36, step=12))
    >>> len(result.splits), result.metrics()["n_forecasts"]
    (2, 240.0)
    """
    if not isinstance(predictor, Predictor):
        raise ConfigurationError(
            f"predictor must have fit, predict, clone and identity, {type(predictor).__name__} lacks some: "
            "put models into a LatentFactorForecastPipeline"
        )
    if not isinstance(panel, Panel):
        raise ConfigurationError(f"panel must be a Panel, got {type(panel).__name__}")
    check_horizon(horizon, None)
    planned = list(splits.split(panel))
    if not planned:
        raise ConfigurationError("the splits leave nothing to forecast")
    outcomes: list[BlockForecast | SplitFailure | None] = [None] * len(planned)
    folders = _folders(store, predictor, horizon, panel, planned, keep_loadings)
    for position, folder in enumerate(folders):
        outcomes[position] = _stored(folder)
    n_reused = sum(outcome is not None for outcome in outcomes)
    done = n_reused
    _report(progress, done, len(planned))
    # Many small products: more than one BLAS thread costs more than it brings, above all in parallel.
    with threadpool_limits(limits=1, user_api="blas"):
        for position, outcome in _run_missing(
            predictor, panel, planned, outcomes, horizon, n_jobs, keep_loadings
        ):
            outcomes[position] = outcome
            folder = folders[position]
            if folder is not None and isinstance(outcome, BlockForecast):
                split = planned[position].describe(panel)
                save_object(folder, outcome, {"split": split, "predictor": repr(predictor)})
            done += 1
            _report(progress, done, len(planned))
    blocks = tuple(outcome if isinstance(outcome, BlockForecast) else None for outcome in outcomes)
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, SplitFailure))
    if len(failures) == len(planned):
        raise LatentFactorsError(
            f"all {len(planned)} splits failed; the first ({failures[0].split}): {failures[0].error}"
        )
    return WalkForwardResult(
        predictor=repr(predictor),
        identity=predictor.identity,
        panel=panel,
        horizon=horizon,
        splits=tuple(planned),
        blocks=blocks,
        failures=failures,
        n_reused=n_reused,
    )


def run_split(
    predictor: Predictor,
    panel: Panel,
    split: Split | VintageSplit,
    horizon: int,
    position: int,
    parent: str,
    keep_loadings: bool = False,
) -> tuple[int, BlockForecast | SplitFailure]:
    """One task: slice, fit a copy, predict the block. Runs in the worker."""
    # Where workers are threads, the process that started them has set the limit: limits taken and given back
    # by several threads at once would not find the way home.
    elsewhere = _this_process() != parent
    with threadpool_limits(limits=1, user_api="blas") if elsewhere else nullcontext():
        try:
            return position, _fit_and_predict(predictor, panel, split, horizon, keep_loadings)
        except ConfigurationError:
            raise
        except Exception as error:  # any window may fail for its own reasons; the others go on
            return position, SplitFailure(split.describe(panel), f"{type(error).__name__}: {error}")


def _fit_and_predict(
    predictor: Predictor, panel: Panel, split: Split | VintageSplit, horizon: int, keep_loadings: bool
) -> BlockForecast:
    training, test = split.panels(panel)
    fitted = _with_validation(predictor, split.validation) if split.validation else predictor.clone()
    began = time.perf_counter()
    summary = fitted.fit(training)
    fit_seconds = time.perf_counter() - began
    first = training.n_periods
    prediction = fitted.predict(test, start=test.times[first], horizon=horizon)
    forecast, weights, state = prediction.asset_forecast, prediction.asset_weights, prediction.state
    # Factors over the training periods too: only an overlap lets successive refits be aligned for a plot.
    factors = None
    if state is not None:
        model = getattr(fitted, "model", None)
        factors = state.factors if model is None else model.extract(test).factors
    return BlockForecast(
        expected_values=None if forecast is None else forecast.expected_values,
        variance=None if forecast is None else forecast.variance,
        weights=None if weights is None else weights.weights,
        reconstruction=prediction.reconstruction,
        sdf=prediction.sdf,
        factors=None if factors is None else factors.values,
        factor_times=None if factors is None else test.times[-len(factors.values) :],
        factor_names=() if factors is None else factors.names,
        summary=summary,
        fit_seconds=fit_seconds,
        predict_seconds=time.perf_counter() - began - fit_seconds,
        loadings=None if state is None or not keep_loadings else state.measurement.loadings.rows(),
    )


def _with_validation(predictor: Predictor, n_periods: int) -> Any:
    configure = getattr(predictor, "with_validation", None)
    if configure is None:
        raise MissingCapabilityError(
            f"{type(predictor).__name__} has no validation: use validation=0 in the splits"
        )
    return configure(n_periods)


def _run_missing(
    predictor: Predictor,
    panel: Panel,
    planned: Sequence[Split | VintageSplit],
    outcomes: Sequence[BlockForecast | SplitFailure | None],
    horizon: int,
    n_jobs: int | None,
    keep_loadings: bool,
) -> Iterator[tuple[int, BlockForecast | SplitFailure]]:
    """Outcomes of the splits that are not stored, as they finish."""
    unfitted = predictor.clone()  # whatever it found before stays here
    parent = _this_process()
    missing = [position for position, outcome in enumerate(outcomes) if outcome is None]
    if not missing:
        return iter(())
    share = getattr(unfitted, "share", None)
    if share is not None and any(isinstance(planned[position], Split) for position in missing):
        panel = share(panel)  # vintages bring panels of their own
    run = joblib.delayed(run_split)
    tasks = [
        run(unfitted, panel, planned[position], horizon, position, parent, keep_loadings)
        for position in missing
    ]
    finished: Any = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks)
    return finished


def _folders(
    store: str | Path | None,
    predictor: Predictor,
    horizon: int,
    panel: Panel,
    planned: Sequence[Split | VintageSplit],
    keep_loadings: bool,
) -> list[Path | None]:
    if store is None:
        return [None] * len(planned)
    root = Path(store)
    if root.exists() and not root.is_dir():
        raise ConfigurationError(f"store={str(root)!r} is a file, expected a folder")
    digests = panel.digests()
    head = f"{__version__}\n{predictor.identity}\n{horizon}\n" + "loadings\n" * keep_loadings
    keys = [hashlib.sha256((head + split.key(digests)).encode()).hexdigest()[:32] for split in planned]
    return [root / key for key in keys]


def _stored(folder: Path | None) -> BlockForecast | None:
    """A finished split, or None where there is none or it was damaged: then it is simply done again."""
    if folder is None:
        return None
    try:
        return load_object(folder, BlockForecast)
    except StoreError:
        # The folder is named by the key, so whatever stands there is ours to replace.
        (folder / "manifest.json").unlink(missing_ok=True)
        return None


def _this_process() -> str:
    """A name for this process among all processes of all machines."""
    return f"{_PROCESS}-{os.getpid()}"


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
