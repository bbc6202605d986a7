"""`compare`: any number of predictors on one panel, under the same masks, splits and metrics.

Each is a `walk_forward` of its own, so a comparison that was stopped goes on from the store, and a model that
is added later computes only itself. A predictor that validates sets aside the last periods of the training
window that all others train on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latentfactors.errors import ConfigurationError, LatentFactorsError, MissingCapabilityError
from latentfactors.estimator import check_horizon, check_number
from latentfactors.evaluate.comparison import Comparison
from latentfactors.evaluate.contenders import default_models, named_predictors_of, what_it_sees
from latentfactors.model import Predictor
from latentfactors.panel import Panel
from latentfactors.splits import Split, Splits, VintageSplit
from latentfactors.track_record import WalkForwardResult
from latentfactors.walkforward import walk_forward

__all__ = ["compare"]

Progress = Callable[[str, int, int], None]


def compare(
    panel: Panel,
    models: Mapping[str, Any] | Sequence[Any] | None = None,
    *,
    splits: Splits,
    horizon: int = 1,
    n_jobs: int | None = None,
    store: str | Path | None = None,
    progress: Progress | None = None,
    n_quantiles: int | None = None,
    size: float = 0.1,
) -> Comparison:
    """Run predictors on the same splits and score them on the cells that all of them forecast.

    Parameters
    ----------
    panel
        All data.
    models
        Name -> predictor, or a list of them. A structural model is put into a pipeline whose premia are
        expanding means. None: `default_models(panel)`, whatever the library has that this panel can feed.
    splits
        `ExpandingWindow`, `RollingWindow` or `VintageSplits`. Predictors that do not validate use the whole
        training window where the splits ask for validation; `notes` names them.
    horizon
        Row p forecasts period p + horizon - 1.
    n_jobs, store
        As in `walk_forward`; with a store a second call takes up where the first was stopped.
    progress
        Called with (predictor, splits done, splits in all) over the whole comparison.
    n_quantiles
        Of the long-short portfolios; None: by the number of assets.
    size
        1 - confidence of the model confidence set.

    Returns
    -------
    Comparison

    Raises
    ------
    ConfigurationError
        What cannot work in any window: a model of yours that is configured wrongly aborts at once.
    LatentFactorsError
        When no predictor could run. One that fails in all windows, or misses an optional package, is left out
        with the reason in `left_out`.

    Examples
    --------
    >>> from latentfactors.models.pca import PCAConfig, PCAModel
    >>> from latentfactors.models.direct import HistoricalMeanPredictor
    >>> from latentfactors.simulate import static_panel
    >>> from latentfactors.splits import ExpandingWindow
    >>> panel = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel
    >>> models = [PCAModel(PCAConfig(n_factors=2)), HistoricalMeanPredictor()]
    >>> found = compare(panel, models, splits=ExpandingWindow(first=36, step=12))
    >>> found.table()["name"].to_list(), found.diebold_mariano.statistics.shape
    (['PCA(2)', 'HistoricalMean'], (2, 2))
    """
    if not isinstance(panel, Panel):
        raise ConfigurationError(f"panel must be a Panel, got {type(panel).__name__}")
    check_horizon(horizon, None)
    if not 0 < check_number("size", size) < 1:
        raise ConfigurationError(f"size must lie in (0, 1), got {size!r}")
    if models is None:
        defaults = default_models(panel, horizon=max(horizon, 1))
        predictors, left_out = dict(defaults.models), dict(defaults.left_out)
    else:
        predictors, left_out = named_predictors_of(models), {}
    n_splits = len(splits.split(panel))
    results: dict[str, WalkForwardResult] = {}
    notes: list[str] = []
    for number, (name, predictor) in enumerate(predictors.items()):

        def report(done: int, _: int, name: str = name, before: int = number * n_splits) -> None:
            if progress is not None:
                progress(name, before + done, n_splits * len(predictors))

        own = _splits_for(predictor, splits, panel)
        if own is not splits:
            notes.append(f"{name} does not validate and uses the whole training window")
        try:
            results[name] = walk_forward(
                predictor, panel, own, horizon=horizon, n_jobs=n_jobs, store=store, progress=report
            )
        except MissingCapabilityError as reason:
            left_out[name] = str(reason)
        except ConfigurationError as error:
            if models is not None:
                raise type(error)(f"{name!r}: {error}") from error
            left_out[name] = str(error)
        except LatentFactorsError as reason:
            left_out[name] = str(reason)
    if not results:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise LatentFactorsError(f"no predictor could run: {reasons}")
    return Comparison(
        results=results,
        sees={name: what_it_sees(predictors[name]) for name in results},
        left_out=left_out,
        notes=tuple(notes),
        n_quantiles=n_quantiles,
        size=float(size),
    )


@dataclass(frozen=True)
class _WholeWindow:
    """The same splits with nothing set aside."""

    splits: Splits

    def split(self, panel: Panel) -> list[Split | VintageSplit]:
        return [replace(split, validation=0) for split in self.splits.split(panel)]


def _splits_for(predictor: Predictor, splits: Splits, panel: Panel) -> Splits:
    """The splits, without their validation where the predictor has none."""
    n_periods = max((split.validation for split in splits.split(panel)), default=0)
    if not n_periods:
        return splits
    configure = getattr(predictor, "with_validation", None)
    try:
        if configure is not None:
            configure(n_periods)
            return splits
    except MissingCapabilityError:
        pass
    return _WholeWindow(splits)
