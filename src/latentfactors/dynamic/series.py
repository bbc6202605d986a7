"""What dynamic factor models share outside their likelihood: options, reading a panel, forecasts of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import (
    ConfigurationError,
    HorizonError,
    InsufficientDataError,
    PanelMismatchError,
)
from latentfactors.estimator import at_least
from latentfactors.kernels.dynamic_factor import DynamicFactorParameters
from latentfactors.kernels.dynamic_factor_em import (
    SMALLEST_VARIANCE,
    DynamicFactorFit,
    Structure,
    count_parameters,
)
from latentfactors.kernels.dynamic_factor_forecast import (
    FilteredSequence,
    forecast_sequence,
)
from latentfactors.panel import Panel
from latentfactors.periods import first_offenders
from latentfactors.rows import RowIndex
from latentfactors.state import FitSummary
from latentfactors.targeted.series import varies
from latentfactors.validate import count

__all__ = [
    "Block",
    "DynamicForecasts",
    "model_structure",
    "summarise_fit",
    "training_series",
]

FloatArray = npt.NDArray[np.float64]

# Observations below which a series says nothing.
_FEWEST = 5


@dataclass(frozen=True, kw_only=True)
class Block:
    """Factors that only some series load on, beside the factors of all.

    Parameters
    ----------
    name
        Prefix of the factors' names.
    series
        Labels of its members.
    n_factors
        1 or more.

    Raises
    ------
    ConfigurationError
        No name, fewer than two series, repeated series.
    """

    name: str
    series: tuple[str | int, ...]
    n_factors: int = 1

    def __post_init__(self) -> None:
        at_least("n_factors", self.n_factors, 1)
        if isinstance(self.series, str) or not isinstance(self.series, Sequence):
            raise ConfigurationError(f"series of a block must be a tuple of labels, got {self.series!r}")
        object.__setattr__(self, "series", tuple(self.series))
        if not self.name or len(self.series) < 2 or len(set(self.series)) < len(self.series):
            raise ConfigurationError(
                f"a block needs a name and two or more different series, got {self.name!r}, {self.series!r}"
            )


def training_series(
    panel: Panel, hidden: npt.NDArray[np.bool_], blocks: Sequence[Block], n_factors: int, factor_lags: int
) -> tuple[FloatArray, npt.NDArray[Any], tuple[str, ...]]:
    """Values (T, n) and labels of the series that move outside hidden periods (T,), and what was left out.

    Raises
    ------
    InsufficientDataError
        Fewer series than factors, or too few periods.
    PanelMismatchError
        A block that names unknown series.
    """
    active = panel.active_assets
    wide, labels = panel.wide()[:, active], panel.assets[active]
    # an AR(1) term and a loading need a handful of observations to be told apart
    visible = np.where(hidden[:, None], np.nan, wide)
    kept = (np.isfinite(visible).sum(axis=0) >= _FEWEST) & varies(visible)
    left = labels[~kept]
    remark = f"{left.size} series constant or with fewer than {_FEWEST} values left out: "
    warnings = (remark + ", ".join(map(str, left)),) if left.size else ()
    unknown = [s for block in blocks for s in block.series if s not in labels[kept].tolist()]
    if unknown:
        raise PanelMismatchError(
            f"blocks name {first_offenders(map(repr, unknown))}, which training does not have (unknown, "
            "constant or hardly observed): name series as the panel does"
        )
    r = n_factors + sum(block.n_factors for block in blocks)
    if kept.sum() < max(r, 2) or panel.n_periods <= factor_lags + r + 5:
        raise InsufficientDataError(
            f"{count(r, 'factor')} with {factor_lags} lag(s) from {int(kept.sum())} usable series and "
            f"{panel.n_periods} periods: give more series or periods, or ask for fewer factors"
        )
    return wide[:, kept], labels[kept], warnings


def model_structure(
    labels: npt.NDArray[Any], blocks: Sequence[Block], n_factors: int, *, autoregressive: bool
) -> Structure:
    """Which loadings are free, and which factors form a block."""
    r, n = n_factors + sum(block.n_factors for block in blocks), labels.size
    allowed, groups, position = np.zeros((n, r), dtype=bool), [], 0
    members = [(n_factors, np.ones(n, dtype=bool))]
    members += [(b.n_factors, np.isin(labels, np.array(b.series, dtype=labels.dtype))) for b in blocks]
    for k, inside in members:
        if k:
            group = np.arange(position, position + k)
            allowed[np.ix_(np.flatnonzero(inside), group)] = True
            groups.append(group)
            position += k
    return Structure(autoregressive, allowed, tuple(groups))


@dataclass(frozen=True, eq=False, kw_only=True)
class DynamicForecasts:
    """Native forecasts of factors and of every series, from each row's past.

    Parameters
    ----------
    index
        Rows of the panel.
    series
        (n,) labels.
    location, scale
        (n,), standardised = (value - location) / scale.
    parameters
        Of the standardised series.
    filtered
        Laws of the recent past at B + T periods.
    before
        B.

    Notes
    -----
    Row p looks one period back: origin p-1, target p-1 + horizon. The first period of all forecasts from the
    stationary law, since nothing is known before it.
    """

    index: RowIndex
    series: npt.NDArray[Any]
    location: FloatArray
    scale: FloatArray
    parameters: DynamicFactorParameters
    filtered: FilteredSequence
    before: int

    def factors(self, horizon: int) -> tuple[FloatArray, FloatArray]:
        """(T, r) means and (T, r, r) covariances.

        Raises
        ------
        HorizonError
            Below 0: a backcast needs the panel as it is now, see `smooth`.
        """
        self._check(horizon)
        means, covariances, _, _ = forecast_sequence(self.filtered, self.parameters, horizon)
        r = means.shape[1]
        return self._shift(means, np.zeros(r)), self._shift(covariances, np.eye(r))

    def values(self, horizon: int) -> tuple[FloatArray, FloatArray]:
        """(R,) means and variances in input units; NaN for series that training did not know.

        Raises
        ------
        HorizonError
            Below 0.
        """
        self._check(horizon)
        _, _, means, variances = forecast_sequence(self.filtered, self.parameters, horizon)
        unconditional = np.ones(means.shape[1])
        means = self.location + self.scale * self._shift(means, 0.0 * unconditional)
        variances = self.scale**2 * self._shift(variances, unconditional)
        known = self.index.match_assets(self.series)
        column = known[self.index.asset_codes]
        rows, position = self.index.period_codes, np.maximum(column, 0)
        return (
            np.where(column >= 0, means[rows, position], np.nan),
            np.where(column >= 0, variances[rows, position], np.nan),
        )

    def _shift(self, by_origin: FloatArray, first: FloatArray) -> FloatArray:
        """What was known one period before each of the panel's periods."""
        return np.concatenate([np.broadcast_to(first, (1, *by_origin.shape[1:])), by_origin])[
            self.before : -1
        ]

    def _check(self, horizon: int) -> None:
        if horizon < 0:
            raise HorizonError(
                f"the dynamic factor model forecasts horizons >= 0, got {horizon}: for a backcast smooth the "
                "panel as it is known now"
            )


def summarise_fit(
    fit: DynamicFactorFit,
    structure: Structure,
    values: FloatArray,
    scale: FloatArray,
    labels: npt.NDArray[Any],
    warnings: tuple[str, ...],
) -> FitSummary:
    """Criteria, certificate and remarks of a fit to values (T, n) that were divided by scale (n,)."""
    n_parameters = count_parameters(fit.parameters, structure)
    n_periods = values.shape[0]
    heywood = labels[fit.parameters.variance <= 2.0 * SMALLEST_VARIANCE]
    if heywood.size:
        warnings = (*warnings, f"reproduced by the factors without noise: {', '.join(map(str, heywood))}")
    if not fit.converged:
        warnings = (*warnings, f"not converged, {fit.reason}: raise max_iterations")
    return FitSummary(
        converged=fit.converged,
        reason=fit.reason,
        n_iterations=fit.n_iterations,
        objective=fit.objective_path,
        objective_name="log-likelihood",
        loglikelihood=fit.loglikelihood,
        metrics={
            "n_parameters": float(n_parameters),
            "aic": 2.0 * n_parameters - 2.0 * fit.loglikelihood,
            "bic": float(np.log(n_periods)) * n_parameters - 2.0 * fit.loglikelihood,
            "score": fit.score,
            # comparable between fits that standardise differently, as masks and breaks make them do
            "input_loglikelihood": fit.loglikelihood - float(np.isfinite(values).sum(axis=0) @ np.log(scale)),
        },
        warnings=warnings,
    )
