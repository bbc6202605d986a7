"""What a dynamic factor model with a nonlinear decoder says of a panel, by the unscented filter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.conditional import Cell, ConditionalLaw, locate_cells
from latentfactors.dynamic.states import DynamicEstimates, by_row, dynamic_state
from latentfactors.errors import HorizonError
from latentfactors.kernels.unscented import UnscentedFilter, unscented_filter, unscented_smoother
from latentfactors.kernels.unscented_laws import unscented_cells, unscented_completed, unscented_forecasts
from latentfactors.panel import Panel
from latentfactors.rows import RowIndex
from latentfactors.state import Factors, FitSpan, LatentFactorState

__all__ = [
    "DecodedEstimates",
    "NonlinearForecasts",
    "nonlinear_conditional",
    "nonlinear_expected_values",
    "nonlinear_state",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodedEstimates(DynamicEstimates, ABC):
    """y_t = F(f_t) + e_t as a fit leaves it; the loadings describe F linearly."""

    @abstractmethod
    def decode(self, factors: FloatArray) -> FloatArray:
        """(..., n) standardised values F(f) of factors (..., r)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NonlinearForecasts:
    """Native forecasts of factors and of every series, from each row's past.

    Parameters
    ----------
    index
        Rows of the panel.
    estimates
        Of the model.
    values_before
        (B + T, n) standardised.
    filtered
        Laws of the recent past at B + T periods.
    before
        B.

    Notes
    -----
    Row p looks one period back: origin p-1, target p-1 + horizon. The first period of all has the factors'
    stationary law and the series' sample moments, since nothing is known before it.
    """

    index: RowIndex
    estimates: DecodedEstimates
    values_before: FloatArray
    filtered: UnscentedFilter
    before: int

    def factors(self, horizon: int) -> tuple[FloatArray, FloatArray]:
        """(T, r) means and (T, r, r) covariances.

        Raises
        ------
        HorizonError
            Below 0: a backcast needs the panel as it is now, see `smooth`.
        """
        means, covariances, _, _ = self._ahead(horizon)
        r = means.shape[1]
        return self._shift(means, np.zeros(r)), self._shift(covariances, np.eye(r))

    def values(self, horizon: int) -> tuple[FloatArray, FloatArray]:
        """(R,) means and variances in input units; NaN for series that training did not know.

        Raises
        ------
        HorizonError
            Below 0.
        """
        _, _, means, variances = self._ahead(horizon)
        unconditional, known = np.ones(means.shape[1]), self.estimates
        means = known.location + known.scale * self._shift(means, 0.0 * unconditional)
        variances = known.scale**2 * self._shift(variances, unconditional)
        column = self.index.match_assets(known.series)[self.index.asset_codes]
        rows, position = self.index.period_codes, np.maximum(column, 0)
        return (
            np.where(column >= 0, means[rows, position], np.nan),
            np.where(column >= 0, variances[rows, position], np.nan),
        )

    def _ahead(self, horizon: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        if horizon < 0:
            raise HorizonError(
                f"the deep dynamic factor model forecasts horizons >= 0, got {horizon}: for a backcast "
                "smooth the panel as it is known now"
            )
        known = self.estimates
        return unscented_forecasts(
            self.filtered, self.values_before, known.decode, known.parameters, known.weights, horizon
        )

    def _shift(self, by_origin: FloatArray, first: FloatArray) -> FloatArray:
        """What was known one period before each of the panel's periods."""
        return np.concatenate([np.broadcast_to(first, (1, *by_origin.shape[1:])), by_origin])[
            self.before : -1
        ]


def nonlinear_state(
    panel: Panel,
    estimates: DecodedEstimates,
    names: tuple[str, ...],
    fit_span: FitSpan,
    who: str,
    *,
    smoothed: bool = False,
) -> LatentFactorState:
    """Filtered factors and native forecasts, or smoothed factors; alpha is what is not linear in them."""
    values, before = estimates.read(panel, who)
    r = estimates.loadings.shape[1]
    found = unscented_filter(values, estimates.decode, estimates.parameters, estimates.weights)
    mean, covariance, native = found.mean, found.covariance, None
    if smoothed:
        mean, covariance, _ = unscented_smoother(found)
    else:
        native = NonlinearForecasts(
            index=panel.index, estimates=estimates, values_before=values, filtered=found, before=before
        )
    factors = Factors(
        values=mean[before:, :r],
        covariance=covariance[before:, :r, :r],
        names=names,
        information="smoothed" if smoothed else "filtered",
    )
    # period by period, so that a period's bits do not depend on how many there are
    bend = np.stack([estimates.decode(f[None])[0] - estimates.loadings @ f for f in factors.values])
    known = panel.index.match_assets(estimates.series)[panel.asset_codes]
    alpha = np.where(known >= 0, bend[panel.index.period_codes, np.maximum(known, 0)], np.nan)
    return dynamic_state(panel, estimates, factors, native, fit_span, who, alpha)


def nonlinear_conditional(
    panel: Panel, estimates: DecodedEstimates, cells: Sequence[Cell], who: str
) -> ConditionalLaw:
    """The joint law of cells (series, period) given the panel; without weights, since it is not linear."""
    values, before = estimates.read(panel, who)
    places = locate_cells(panel, cells, estimates.series, who)
    mean, covariance = unscented_cells(
        values,
        estimates.decode,
        estimates.parameters,
        estimates.weights,
        [(before + period, series) for period, series in places],
    )
    columns = np.array([series for _, series in places])
    scale = estimates.scale[columns]
    return ConditionalLaw(
        mean=estimates.location[columns] + scale * mean, covariance=covariance * np.outer(scale, scale)
    )


def nonlinear_expected_values(panel: Panel, estimates: DecodedEstimates, who: str) -> FloatArray:
    """(R,) every row's value, observed or its mean given the whole panel; NaN for unknown series."""
    values, before = estimates.read(panel, who)
    filled = unscented_completed(values, estimates.decode, estimates.parameters, estimates.weights)
    return by_row(panel, estimates, filled[before:])
