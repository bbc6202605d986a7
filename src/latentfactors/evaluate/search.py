"""Choosing among candidates by forecasts of what each of them has not seen.

Windows     every candidate is fitted on the past of every split and forecasts its block: `walk_forward`, so
            expanding, rolling and vintage windows all serve, and what is refused there is refused here
Loss        mean over cells of (y - forecast)^2 / s_i^2 on the cells that all candidates forecast. s_i^2 is
            series i's variance in the training part of the first split, which no forecast could miss; 1 for
            returns, which share a unit
Choice      the smallest loss; or the first candidate whose loss is within one standard error of it, with
            candidates listed from plain to rich

The loss of the chosen candidate is the smallest of several and so flatters it: what the choice is worth is
measured on later data, see `SelectedPredictor`.

References: Breiman, Friedman, Olshen & Stone (1984), Classification and Regression Trees, section 3.4.3 (one
standard error); Tashman (2000), International Journal of Forecasting 16(4), rolling origins.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import joblib
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.errors import ConfigurationError, InsufficientDataError, LatentFactorsError
from latentfactors.estimator import freeze
from latentfactors.frames import to_frame
from latentfactors.model import Predictor
from latentfactors.panel import Panel
from latentfactors.periods import first_offenders
from latentfactors.splits import Splits
from latentfactors.walkforward import walk_forward

__all__ = ["SearchResult", "SearchRule", "config_grid", "search"]

FloatArray = npt.NDArray[np.float64]
SearchRule = Literal["best", "one_standard_error"]
ConfigT = TypeVar("ConfigT")
_LEAST_COVERAGE = 0.9


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchResult:
    """What validation said about every candidate.

    Attributes
    ----------
    names : C candidates, in the order given
    chosen : one of them
    loss : (C,) mean squared error over common cells, in units of the series' variance where standardised; NaN
        for candidates that were left out
    standard_error : (C,) of the loss minus the smallest one, over target periods taken as independent
    n_forecasts : cells that the loss is a mean of
    reasons : C, why a candidate was left out; "" for the others
    seconds : (C,) of fits and forecasts
    """

    names: tuple[str, ...]
    chosen: str
    loss: FloatArray
    standard_error: FloatArray
    n_forecasts: int
    reasons: tuple[str, ...]
    seconds: FloatArray

    def __post_init__(self) -> None:
        freeze(self)

    def frame(self, backend: str = "polars") -> Any:
        """A line per candidate, in the order given: name, loss, standard_error, seconds, chosen, reason."""
        return to_frame(
            {
                "name": np.array(self.names),
                "loss": self.loss,
                "standard_error": self.standard_error,
                "seconds": self.seconds,
                "chosen": np.array([name == self.chosen for name in self.names]),
                "reason": np.array(self.reasons),
            },
            backend,
        )

    def __repr__(self) -> str:
        known = {n: f"{v:.4g}" for n, v in zip(self.names, self.loss, strict=True) if np.isfinite(v)}
        return f"SearchResult({self.chosen!r} of {known}, {self.n_forecasts} forecasts)"


def config_grid(config: ConfigT, axes: Mapping[str, Sequence[Any]]) -> dict[str, ConfigT]:
    """All combinations of some of a config's fields, by name, the last field changing fastest.

    Raises
    ------
    ConfigurationError
        No field, no value for one, a field that the config lacks, or a combination that it refuses.

    Examples
    --------
    >>> from latentfactors import PCAConfig
    >>> list(config_grid(PCAConfig(n_factors=1), {"n_factors": (1, 2)}))
    ['n_factors=1', 'n_factors=2']
    """
    known = getattr(config, "__dataclass_fields__", {})
    for name, values in axes.items():
        if name not in known:
            raise ConfigurationError(
                f"{type(config).__name__} has no field {name!r}, it has {', '.join(known) or 'none'}"
            )
        if isinstance(values, str) or not len(values):
            raise ConfigurationError(f"{name} must be a tuple of values to try, got {values!r}")
    if not axes:
        raise ConfigurationError("axes must name at least one field: {'n_factors': (1, 2, 3)}")
    found = {}
    for values in itertools.product(*axes.values()):
        changes = dict(zip(axes, values, strict=True))
        found[", ".join(f"{name}={value}" for name, value in changes.items())] = replace(config, **changes)  # type: ignore[type-var]
    return found


def search(
    candidates: Mapping[str, Predictor],
    panel: Panel,
    splits: Splits,
    *,
    horizon: int = 1,
    targets: Sequence[Any] | None = None,
    standardise: bool | None = None,
    rule: SearchRule = "best",
    end: Any = None,
    n_jobs: int | None = None,
    store: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SearchResult:
    """Forecast with every candidate over validation windows and choose.

    Parameters
    ----------
    candidates
        Name -> unfitted predictor, from plain to rich.
    panel
        Data up to the end of validation, or more of it together with `end`.
    splits
        `ExpandingWindow`, `RollingWindow` or `VintageSplits`.
    horizon
        Row p forecasts period p + horizon - 1.
    targets
        Labels whose forecasts count; None: all.
    standardise
        Divide squared errors by the series' training variance; None: where the panel holds series.
    rule
        "best", or "one_standard_error": the first candidate within one standard error of the best.
    end
        Last period that may be seen: everything later is cut off first. None: the whole panel.
    n_jobs
        Candidates in parallel; None leaves the choice to `joblib.parallel_config`.
    store
        Folder that keeps finished windows, as in `walk_forward`.
    progress
        Called with (done, total) as candidates finish.

    Returns
    -------
    SearchResult

    Raises
    ------
    ConfigurationError
        No candidate, something that is no predictor, unknown targets or rule.
    InsufficientDataError
        No cell that all candidates forecast.
    LatentFactorsError
        When every candidate failed. A candidate that fails in some window, or that forecasts less than 90% of
        the cells that any does, is left out, and the table says why.

    Examples
    --------
    >>> from latentfactors import AutoregressivePredictor, HistoricalMeanPredictor
    >>> from latentfactors.simulate import dynamic_factor_panel
    >>> from latentfactors.splits import ExpandingWindow
    >>> panel = dynamic_factor_panel(n_series=5, n_periods=100, seed=1).panel
    >>> candidates = {"mean": HistoricalMeanPredictor(), "AR": AutoregressivePredictor(lags=1)}
    >>> search(candidates, panel, ExpandingWindow(first=60, step=20)).chosen
    'AR'
    """
    check_candidates(candidates, rule)
    if end is not None:
        panel = panel.between(0, panel.index.position(end) + 1)
    if targets is not None:
        check_targets(panel, targets)
    scaled = panel.value_kind == "series" if standardise is None else standardise
    scale = _training_variance(panel, splits) if scaled else np.ones(panel.n_assets)
    run = joblib.delayed(_forecasts)
    tasks = [
        run(k, predictor.clone(), panel, splits, horizon, store)
        for k, predictor in enumerate(candidates.values())
    ]
    found: dict[int, _Forecasts] = {}
    # Where workers are threads, each takes the limit again and gives back what it found: the one set here.
    with threadpool_limits(limits=1, user_api="blas"):
        finished: Any = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks)
        for k, forecasts in finished:
            found[k] = forecasts
            if progress is not None:
                progress(len(found), len(tasks))
    wanted = None if targets is None else np.flatnonzero(np.isin(panel.assets, np.array(list(targets))))
    return _judge(tuple(candidates), [found[k] for k in range(len(tasks))], wanted, scale, rule)


def check_candidates(candidates: Mapping[str, Predictor], rule: str) -> None:
    """Refuse an empty set, things that are no predictors, and unknown rules."""
    if not isinstance(candidates, Mapping) or not candidates:
        raise ConfigurationError("candidates must map names to predictors, at least one")
    for name, each in candidates.items():
        if not isinstance(name, str) or not isinstance(each, Predictor):
            raise ConfigurationError(
                f"candidate {name!r} must be a text that names something with fit, predict, clone and "
                f"identity, got {type(each).__name__}: put models into a LatentFactorForecastPipeline"
            )
    if rule not in get_args(SearchRule):
        raise ConfigurationError(f"rule must be one of {get_args(SearchRule)}, got {rule!r}")


def check_targets(panel: Panel, targets: Sequence[Any]) -> None:
    """Refuse a bare text, no target, and labels that the panel lacks."""
    if isinstance(targets, str) or not len(targets):
        raise ConfigurationError(f"targets must be a tuple of series, got {targets!r}: write ('gdp',)")
    labels = set(panel.assets.tolist())
    unknown = [each for each in targets if each not in labels]
    if unknown:
        raise ConfigurationError(f"the panel has no target {first_offenders(map(repr, unknown))}")


# ------------------------------------------------------------------------------------ one candidate


@dataclass(frozen=True, eq=False)
class _Forecasts:
    """A candidate's forecasts beside what came true, (R,) each; or why there are none."""

    forecast: FloatArray
    realised: FloatArray
    times: npt.NDArray[Any]
    codes: npt.NDArray[np.int64]
    seconds: float
    reason: str = ""


def _forecasts(
    k: int, predictor: Predictor, panel: Panel, splits: Splits, horizon: int, store: str | Path | None
) -> tuple[int, _Forecasts]:
    """One task. The result leaves the panel behind: it travels between processes."""
    none, nothing = np.zeros(0), np.zeros(0, dtype=np.int64)
    try:
        result = walk_forward(predictor, panel, splits, horizon=horizon, n_jobs=1, store=store)
        if result.failures:
            first = result.failures[0]
            reason = f"failed in {len(result.failures)} of {len(result.splits)} windows: {first.error}"
            return k, _Forecasts(none, none, nothing, nothing, result.seconds, reason)
        record = result.record
    except LatentFactorsError as error:
        return k, _Forecasts(none, none, nothing, nothing, 0.0, f"{type(error).__name__}: {error}")
    return k, _Forecasts(
        record.forecast, record.realised, record.target_times, record.asset_codes, result.seconds
    )


def _training_variance(panel: Panel, splits: Splits) -> FloatArray:
    """(N,) variances before the first forecast, NaN where fewer than three values or none of them moves."""
    planned = splits.split(panel)
    if not planned:
        raise ConfigurationError("the splits leave nothing to forecast")
    training = planned[0].panels(panel)[0]
    place = training.index.match_assets(panel.assets)[training.asset_codes]
    kept = training.observed & (place >= 0)
    codes, values = place[kept], training.values[kept]
    count = np.bincount(codes, minlength=panel.n_assets)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(codes, values, minlength=panel.n_assets) / count
        variance = np.bincount(codes, (values - mean[codes]) ** 2, minlength=panel.n_assets) / count
    return np.where((count >= 3) & (variance > 0), variance, np.nan)


# ------------------------------------------------------------------------------------ all of them


def _judge(
    names: tuple[str, ...],
    found: list[_Forecasts],
    wanted: npt.NDArray[np.int64] | None,
    scale: FloatArray,
    rule: SearchRule,
) -> SearchResult:
    reasons = [each.reason for each in found]
    able = [k for k, reason in enumerate(reasons) if not reason]
    if not able:
        raise LatentFactorsError(f"all {len(names)} candidates failed; the first: {reasons[0]}")
    first = found[able[0]]
    counts = np.isfinite(first.realised) & (first.codes >= 0)
    counts &= np.isfinite(scale[first.codes])
    if wanted is not None:
        counts &= np.isin(first.codes, wanted)
    forecast = {k: np.isfinite(found[k].forecast) & counts for k in able}
    some = np.logical_or.reduce(list(forecast.values()))
    for k in able:
        covered = forecast[k].sum() / max(some.sum(), 1)
        if covered < _LEAST_COVERAGE:
            reasons[k] = f"forecasts {covered:.0%} of the cells that others do, 90% are needed"
    able = [k for k in able if not reasons[k]]
    common = np.logical_and.reduce([forecast[k] for k in able]) if able else np.zeros(0, dtype=bool)
    if not common.any():
        raise InsufficientDataError(
            "no realised cell is forecast by all candidates: lengthen validation, or search among fewer"
        )
    errors = np.full((len(names), int(common.sum())), np.nan)
    for k in able:
        errors[k] = (first.realised - found[k].forecast)[common] ** 2 / scale[first.codes[common]]
    loss = np.array([row.mean() for row in errors])
    best = int(np.nanargmin(loss))
    spread = _standard_error(errors - errors[best], first.times[common])
    chosen = best
    if rule == "one_standard_error":
        chosen = next(k for k in able if loss[k] - loss[best] <= np.nan_to_num(spread[k]))
    return SearchResult(
        names=names,
        chosen=names[chosen],
        loss=loss,
        standard_error=spread,
        n_forecasts=int(common.sum()),
        reasons=tuple(reasons),
        seconds=np.array([each.seconds for each in found]),
    )


def _standard_error(differences: FloatArray, times: npt.NDArray[Any]) -> FloatArray:
    """(C,) standard errors of the rows' means, (C, cells), from the sums of each target period."""
    _, codes = np.unique(times, return_inverse=True)
    n = int(codes.max()) + 1
    sums = np.array([np.bincount(codes, row, minlength=n) for row in differences])
    if n < 2:
        return np.full(len(sums), np.nan)
    return np.sqrt(n) * sums.std(axis=1, ddof=1) / len(times)
