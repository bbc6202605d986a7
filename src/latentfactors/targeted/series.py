"""What every targeted model of a series panel shares: targets by name, pairs, units, dated forecasts.

A targeted model extracts factors from predictors x (p) for the sake of named targets y (q). All are series of
one panel.

    training     x_s is paired with y_(s + lead), both standardised over these pairs (ddof 0)
    row p        carries the factor of x up to p, and as native forecast, from x up to p-1, the target in
                 p-1 + lead: that is horizon `lead` in the library's time rule. Predictors get no forecast.

With lead 0 a target loads on the factor of its own period, so the state reconstructs it. With lead > 0 it
loads on the factor `lead` periods earlier: its contemporaneous loading is NaN, and the model's estimates keep
the loading that the pairs taught.

Flow of a model: `check_targets` in the config, `pair_series` in `_estimate`; in `_extract`
`TargetedSeries.read`, `measure` and a `LeadForecasts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, PanelMismatchError
from latentfactors.estimator import at_least, freeze
from latentfactors.history import History
from latentfactors.model import known_assets
from latentfactors.panel import Panel
from latentfactors.periods import first_offenders
from latentfactors.rows import RowIndex
from latentfactors.state import Measurement, StaticLoadings
from latentfactors.targeted.leads import LeadForecasts
from latentfactors.validate import count

__all__ = [
    "LeadForecasts",
    "TargetedSeries",
    "TargetedTraining",
    "check_targets",
    "measure",
    "pair_series",
    "refuse_many_factors",
    "remarks",
]

FloatArray = npt.NDArray[np.float64]

# A standard deviation this small beside the largest value is the rounding of a constant.
_CONSTANT = 1e-13


# ------------------------------------------------------------------------------------ training


def check_targets(targets: Any, lead: Any) -> tuple[str | int, ...]:
    """The targets of a config as a tuple of labels.

    Raises
    ------
    ConfigurationError
        No target, repeated targets, a bare text, something that is no label; a lead below 0.

    Examples
    --------
    >>> check_targets(["gdp", "cpi"], 1)
    ('gdp', 'cpi')
    """
    at_least("lead", lead, 0)
    if isinstance(targets, str) or not isinstance(targets, Sequence):
        raise ConfigurationError(f"targets must be a tuple of names, got {targets!r}: write ('gdp',)")
    labels = tuple(targets)
    strange = [each for each in labels if isinstance(each, bool) or not isinstance(each, str | int)]
    if strange:
        raise ConfigurationError(f"targets must be series names (text or whole numbers), got {strange[0]!r}")
    if not labels:
        raise ConfigurationError("targets must name at least one series, got none")
    repeated = sorted({str(each) for each in labels if labels.count(each) > 1})
    if repeated:
        raise ConfigurationError(f"targets must be named once, got {first_offenders(repeated)} twice")
    return labels


@dataclass(frozen=True, eq=False, kw_only=True)
class TargetedSeries:
    """The series a targeted model was trained on, in what units, and their training values.

    Attributes
    ----------
    predictors : (p,) labels, in the order of the training panel
    targets : (q,) labels, in the order of the config
    location, scale : (p + q,) input units, predictors first: standardised = (value - location) / scale
    training : all training periods (S,) with values (S, p + q) in input units; a later panel continues them
    lead : periods from a predictor to the target it is paired with
    """

    predictors: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    location: FloatArray
    scale: FloatArray
    training: History
    lead: int

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def labels(self) -> npt.NDArray[Any]:
        """(p + q,) predictors, then targets."""
        return np.concatenate([self.predictors, self.targets])

    @property
    def n_predictors(self) -> int:
        """Number of predictors p."""
        return self.predictors.size

    def standardise(self, values: FloatArray) -> FloatArray:
        """(T, p + q) values in input units, standardised."""
        return (values - self.location) / self.scale

    def predictors_only(self, values: FloatArray) -> FloatArray:
        """(T, p + q) values with the targets hidden."""
        out = values.copy()
        out[:, self.n_predictors :] = np.nan
        return out

    def pair(self, values: FloatArray) -> FloatArray:
        """(T, p + q) values, each period's predictors beside the targets `lead` later; NaN beyond the end."""
        out, p = self.predictors_only(values), self.n_predictors
        out[: max(len(out) - self.lead, 0), p:] = values[self.lead :, p:]
        return out

    @property
    def empty_index(self) -> RowIndex:
        """The training periods without rows, for what is judged by period."""
        n = self.training.times.size
        nothing = np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
        return RowIndex(self.training.times, self.labels, *nothing)

    def times(self, index: RowIndex, before: int) -> npt.NDArray[Any]:
        """(B + T,) periods of what `read` returned."""
        return np.concatenate([self.training.times[:before], index.times])

    def read(self, panel: Panel, who: str) -> tuple[FloatArray, int]:
        """A panel's standardised values (B + T, p + q), and B, the training periods put before them.

        Series that the panel lacks are missing. B > 0 where the panel continues the training span.

        Raises
        ------
        UnknownAssetsError, GapError
            No known series; a panel that neither contains nor continues the training span.
        """
        known_assets(panel.index, self.labels, who)
        values, before = self.training.prepend(panel.index, wide_series(panel, self.labels), who)
        return self.standardise(values), before


@dataclass(frozen=True, eq=False, kw_only=True)
class TargetedTraining:
    """Pairs to train on.

    Attributes
    ----------
    series
        `TargetedSeries`: names, units, history.
    x : (S, p)
        Standardised predictors of S periods, NaN where missing.
    y : (S, q)
        Standardised targets `lead` periods later.
    warnings
        Series left out, by name.
    """

    series: TargetedSeries
    x: FloatArray
    y: FloatArray
    warnings: tuple[str, ...] = ()

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """(S,) pairs without a missing cell."""
        return np.asarray(np.isfinite(np.hstack([self.x, self.y])).all(axis=1))


def pair_series(panel: Panel, targets: Sequence[str | int], lead: int, who: str) -> TargetedTraining:
    """Split a training panel into predictors and targets, pair x_s with y_(s + lead), standardise the pairs.

    A predictor that never moves within the pairs (constant, or never observed) is left out and reported.

    Parameters
    ----------
    panel
        Training data; its series are the panel's active assets.
    targets
        Labels, as `check_targets` returned them.
    lead
        Periods ahead.
    who
        Name for messages.

    Raises
    ------
    PanelMismatchError
        A target that is no series of the panel.
    InsufficientDataError
        A target never observed or constant; no predictor left; no more periods than the lead.

    Examples
    --------
    >>> values = np.array([[1.0, 5.0], [2.0, 7.0], [3.0, 9.0], [5.0, 11.0]])
    >>> macro = Panel.from_wide(values, assets=["orders", "output"], universe="all", value_kind="series")
    >>> pairs = pair_series(macro, ("output",), 1, "PTFA")
    >>> pairs.x[:, 0].round(2), pairs.y[:, 0].round(2)
    (array([-1.22,  0.  ,  1.22]), array([-1.22,  0.  ,  1.22]))
    """
    chosen = target_positions(panel, targets, who)
    if panel.n_periods <= lead:
        raise InsufficientDataError(
            f"{who}: lead={lead} needs more than {count(lead, 'period')}, the training panel has "
            f"{panel.n_periods}: train longer, or shorten the lead"
        )
    active = panel.active_assets
    active[chosen] = False
    others, wide = np.flatnonzero(active), panel.wide()
    n_pairs = panel.n_periods - lead
    x, y = wide[:n_pairs, others], wide[lead:, chosen]
    for name, column in zip(targets, y.T, strict=True):
        refuse_target(name, column, lead, who)
    moves = varies(x)
    if not moves.any():
        raise InsufficientDataError(
            f"{who}: no predictor is left beside the targets ({count(others.size, 'other series')}, each "
            "constant or never observed): add series, or name fewer targets"
        )
    kept = np.concatenate([others[moves], chosen])
    pairs = np.hstack([x[:, moves], y])
    location = np.nanmean(pairs, axis=0)
    # in two steps, so that squares of values about 1e-200 or 1e200 neither vanish nor overflow
    size = np.nanmax(np.abs(pairs - location), axis=0)
    scale = size * np.sqrt(np.nanmean(((pairs - location) / size) ** 2, axis=0))
    series = TargetedSeries(
        predictors=panel.assets[others[moves]],
        targets=panel.assets[chosen],
        location=location,
        scale=scale,
        training=History(panel.times, wide[:, kept]),
        lead=lead,
    )
    standardised, p = series.standardise(pairs), int(moves.sum())
    return TargetedTraining(
        series=series,
        x=standardised[:, :p],
        y=standardised[:, p:],
        warnings=_left_out(panel.assets[others], x, moves),
    )


def refuse_many_factors(training: TargetedTraining, n_factors: int, who: str) -> None:
    """Raise `InsufficientDataError` for as many factors as series, or as training pairs."""
    (n_pairs, p), q = training.x.shape, training.y.shape[1]
    if n_factors >= p + q:
        raise InsufficientDataError(
            f"{who}: n_factors={n_factors} needs more series than factors, got {count(p, 'predictor')} and "
            f"{count(q, 'target')}: ask for fewer factors"
        )
    if n_factors >= n_pairs:
        raise InsufficientDataError(
            f"{who}: n_factors={n_factors} needs more than {n_factors} training pairs, got {n_pairs}: ask "
            "for fewer factors, or train longer"
        )


def remarks(converged: bool, reason: str, boundary: str, series: TargetedSeries) -> tuple[str, ...]:
    """Statistical remarks on a fit; `boundary` names the sides whose noise variance went to zero."""
    out = [] if converged else [f"not converged, {reason}: raise max_iterations, or ask for fewer factors"]
    for side, name, labels in (("x", "predictor", series.predictors), ("y", "target", series.targets)):
        if side in boundary:
            out.append(
                f"Heywood case: the likelihood rises as the {name}s' noise variance goes to zero, factors "
                f"reproduce the {count(labels.size, name)}; ask for fewer factors, impose target_weight, or "
                "read the fit as a regression on them"
            )
    return tuple(out)


def target_positions(panel: Panel, targets: Sequence[str | int], who: str) -> npt.NDArray[np.intp]:
    """(q,) positions of the targets among the panel's labels."""
    labels = panel.assets.tolist()
    unknown = [each for each in targets if each not in labels]
    if unknown:
        raise PanelMismatchError(
            f"{who}: no target {first_offenders(map(repr, unknown))} in the panel, whose series are "
            f"{first_offenders(map(repr, labels))}: name targets as the panel does"
        )
    return np.array([labels.index(each) for each in targets], dtype=np.intp)


def refuse_target(name: str | int, column: FloatArray, lead: int, who: str) -> None:
    """Raise `InsufficientDataError` for a target that is never observed in the pairs, or constant."""
    if varies(column[:, None])[0]:
        return
    seen = int(np.isfinite(column).sum())
    fault = f"is constant over its {count(seen, 'observed value')}" if seen else "is never observed"
    after = f" after the first {count(lead, 'period')}" if lead else ""
    raise InsufficientDataError(
        f"{who}: target {name!r} {fault}{after}: train on periods in which it moves, or drop it from targets"
    )


def varies(values: FloatArray) -> npt.NDArray[np.bool_]:
    """(N,) columns of (T, N) values whose observed cells are not all the same up to rounding."""
    seen = np.isfinite(values)
    low = np.min(values, axis=0, where=seen, initial=np.inf)
    high = np.max(values, axis=0, where=seen, initial=-np.inf)
    largest = np.maximum(np.abs(low), np.abs(high))
    return (high > low) & (high - low > _CONSTANT * largest)


def wide_series(panel: Panel, labels: npt.NDArray[Any]) -> FloatArray:
    """(T, n) values of the labelled series in the labels' order; NaN for those that the panel lacks."""
    known = panel.index.match_assets(labels)
    out = np.full((panel.n_periods, labels.size), np.nan)
    out[:, known[known >= 0]] = panel.wide()[:, known >= 0]
    return out


def _left_out(labels: npt.NDArray[Any], x: FloatArray, moves: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    if moves.all():
        return ()
    seen = np.isfinite(x).any(axis=0)
    kinds = {"never observed": ~moves & ~seen, "constant": ~moves & seen}
    return tuple(
        f"{count(int(which.sum()), 'predictor')} {kind} in training left out: "
        + ", ".join(map(str, labels[which]))
        for kind, which in kinds.items()
        if which.any()
    )


# ------------------------------------------------------------------------------------ after training


def measure(
    panel: Panel, series: TargetedSeries, loadings: FloatArray, residual_variance: FloatArray, who: str
) -> tuple[Measurement, dict[str, Any]]:
    """The measurement of a panel's rows, and the metadata that a state carries.

    Parameters
    ----------
    panel
        What is described.
    series
        Names and units.
    loadings : (p + q, K)
        Of standardised values, predictors first; NaN for series that load on other periods' factors too.
        Those of the targets count only with lead 0.
    residual_variance : (p + q,)
        Of standardised values; the mean stands in for series never seen in training.
    who
        Name for messages.

    Returns
    -------
    measurement, metadata
        `n_assets_without_loadings` counts active series that training did not know.
    """
    known = known_assets(panel.index, series.labels, who)
    if series.lead:
        loadings = loadings.copy()
        loadings[series.n_predictors :] = np.nan
    variance = _by_asset(residual_variance, known)
    variance = np.where(np.isfinite(variance), variance, np.nanmean(residual_variance))
    measurement = Measurement(
        loadings=StaticLoadings(_by_asset(loadings, known), panel.index),
        location=_by_asset(series.location, known),
        scale=_by_asset(series.scale, known),
        residual_variance=variance[panel.asset_codes],
    )
    metadata = {
        "n_assets_without_loadings": int((panel.active_assets & (known < 0)).sum()),
        "targets": tuple(series.targets.tolist()),
        "lead": series.lead,
    }
    return measurement, metadata


def _by_asset(trained: FloatArray, known: npt.NDArray[np.int64]) -> FloatArray:
    out = trained[known]
    out[known < 0] = np.nan
    return out
