"""What a fitted linear dynamic factor model says of a panel: states, laws of cells, expected values.

However loadings and dynamics were estimated, by likelihood or from a network's codes, the filter, the
smoother, the forecasts and the conditional laws are these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.conditional import Cell, ConditionalLaw, locate_cells
from latentfactors.dynamic.periods import BrokenPeriods
from latentfactors.dynamic.series import DynamicForecasts
from latentfactors.estimator import freeze
from latentfactors.history import History
from latentfactors.kernels.dynamic_factor import DynamicFactorParameters, expectation, observation_pattern
from latentfactors.kernels.dynamic_factor_conditional import CellLaw, cell_law, completed
from latentfactors.kernels.dynamic_factor_forecast import FilteredSequence, filter_sequence
from latentfactors.model import known_assets
from latentfactors.panel import Panel
from latentfactors.state import (
    Factors,
    FitSpan,
    LatentFactorState,
    Measurement,
    NativeForecasts,
    StaticLoadings,
)
from latentfactors.targeted.series import wide_series

__all__ = [
    "DynamicEstimates",
    "SeriesReading",
    "by_row",
    "dynamic_state",
    "filtered_state",
    "linear_conditional",
    "linear_expected_values",
    "read_series",
    "smoothed_state",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SeriesReading:
    """A panel's standardised values (B + T, n), B training periods first, and the parameters that hold there.

    Attributes
    ----------
    values : (B + T, n)
    before : B
    parameters : with the scales of the broken rows
    broken : (M,) rows
    weights : (n, L) of aggregates
    autoregressive : whether idiosyncratic terms are AR(1)
    """

    values: FloatArray
    before: int
    parameters: DynamicFactorParameters
    broken: IntArray
    weights: FloatArray
    autoregressive: bool

    def smoothed(self) -> tuple[FloatArray, FloatArray]:
        """(T, r) means and (T, r, r) covariances of the factors given the whole panel."""
        pattern = observation_pattern(
            self.values,
            autoregressive=self.autoregressive,
            lags=self.parameters.transition.shape[0],
            weights=self.weights,
            broken=self.broken,
        )
        expected = expectation(self.parameters, pattern)
        r, first = self.parameters.loadings.shape[1], self.before + pattern.lead
        return expected.means[first:, :r], expected.covariances[first:, 0, :r, :r]

    def filtered(self) -> FilteredSequence:
        """Laws of the recent past at all B + T periods."""
        return filter_sequence(
            self.values,
            self.parameters,
            self.weights,
            autoregressive=self.autoregressive,
            broken=self.broken,
        )

    def law(self, places: Sequence[tuple[int, int]]) -> CellLaw:
        """Of cells (period of the panel, series)."""
        return cell_law(
            self.values,
            self.parameters,
            self.weights,
            [(self.before + period, series) for period, series in places],
            autoregressive=self.autoregressive,
            broken=self.broken,
        )

    def completed(self) -> FloatArray:
        """(T, n) values, missing ones replaced by their means given the whole panel."""
        filled = completed(
            self.values,
            self.parameters,
            self.weights,
            autoregressive=self.autoregressive,
            broken=self.broken,
        )
        return filled[self.before :]


@dataclass(frozen=True, eq=False, kw_only=True)
class DynamicEstimates:
    """y_t = Lambda f_t + e_t as a fit leaves it; parameters are of standardised series.

    Attributes
    ----------
    series : (n,) labels
    location, scale : (n,) input units: standardised = (value - location) / scale
    weights : (n, L) of an aggregate's periods, newest first; (1, 0, ...) for an ordinary series
    loadings : (n, r)
    persistence : (n,) phi of the idiosyncratic AR(1), 0 for iid
    variance : (n,) of the idiosyncratic innovations
    transition : (p, r, r)
    innovation : (r, r)
    training : all training periods with values (S, n) in input units
    broken : (M,) periods of a variance break, in order of time
    shock_scale : (M,) how many times larger their shocks are
    """

    series: npt.NDArray[Any]
    location: FloatArray
    scale: FloatArray
    weights: FloatArray
    loadings: FloatArray
    persistence: FloatArray
    variance: FloatArray
    transition: FloatArray
    innovation: FloatArray
    training: History
    broken: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    shock_scale: FloatArray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def parameters(self) -> DynamicFactorParameters:
        """As the kernels take them."""
        return DynamicFactorParameters(
            self.loadings,
            self.persistence,
            self.variance,
            self.transition,
            self.innovation,
            self.shock_scale,
        )

    @property
    def idiosyncratic_variance(self) -> FloatArray:
        """(n,) stationary variance of the idiosyncratic terms."""
        return self.variance / (1.0 - self.persistence**2)

    @property
    def breaks(self) -> BrokenPeriods:
        """Periods with larger shocks."""
        return BrokenPeriods(self.broken, self.shock_scale)

    def read(self, panel: Panel, who: str) -> tuple[FloatArray, int]:
        """A panel's standardised values (B + T, n) and B, the training periods put before them."""
        wide = wide_series(panel, self.series)
        values, before = self.training.prepend(panel.index, wide, who)
        return (values - self.location) / self.scale, before


def read_series(
    panel: Panel, estimates: DynamicEstimates, who: str, *, autoregressive: bool
) -> SeriesReading:
    """A panel as the kernels take it, with the training periods before it that it continues."""
    values, before = estimates.read(panel, who)
    parameters, rows = estimates.parameters, np.zeros(0, dtype=np.int64)
    if estimates.broken.size:
        times = np.concatenate([estimates.training.times[:before], panel.times])
        broken = estimates.breaks.among(times)
        parameters, rows = replace(parameters, scale=broken.scale), broken.rows
    return SeriesReading(values, before, parameters, rows, estimates.weights, autoregressive)


def filtered_state(
    panel: Panel,
    estimates: DynamicEstimates,
    names: tuple[str, ...],
    fit_span: FitSpan,
    who: str,
    *,
    autoregressive: bool,
) -> LatentFactorState:
    """Factors given all series up to each period, and the native forecasts from there."""
    reading = read_series(panel, estimates, who, autoregressive=autoregressive)
    before, filtered = reading.before, reading.filtered()
    r = estimates.loadings.shape[1]
    factors = Factors(
        values=filtered.mean[before:, 0, :r],
        covariance=filtered.covariance[before:, :r, :r],
        names=names,
        information="filtered",
    )
    native = DynamicForecasts(
        index=panel.index,
        series=estimates.series,
        location=estimates.location,
        scale=estimates.scale,
        parameters=reading.parameters,
        filtered=filtered,
        before=before,
    )
    return dynamic_state(panel, estimates, factors, native, fit_span, who)


def smoothed_state(
    panel: Panel,
    estimates: DynamicEstimates,
    names: tuple[str, ...],
    fit_span: FitSpan,
    who: str,
    *,
    autoregressive: bool,
) -> LatentFactorState:
    """Factors given the whole panel."""
    means, covariances = read_series(panel, estimates, who, autoregressive=autoregressive).smoothed()
    factors = Factors(
        values=means,
        covariance=covariances,
        names=names,
        information="smoothed",
    )
    return dynamic_state(panel, estimates, factors, None, fit_span, who)


def linear_conditional(
    panel: Panel,
    estimates: DynamicEstimates,
    cells: Sequence[Cell],
    who: str,
    *,
    autoregressive: bool,
) -> ConditionalLaw:
    """The joint law of cells (series, period) given the panel, with the weight of every row."""
    reading = read_series(panel, estimates, who, autoregressive=autoregressive)
    places = locate_cells(panel, cells, estimates.series, who)
    law = reading.law(places)
    columns = np.array([series for _, series in places])
    scale = estimates.scale[columns]
    per_value = scale[:, None, None] * law.weights[:, reading.before :] / estimates.scale
    known = panel.index.match_assets(estimates.series)[panel.asset_codes]
    weights = per_value[:, panel.index.period_codes, np.maximum(known, 0)]
    return ConditionalLaw(
        mean=estimates.location[columns] + scale * law.mean,
        covariance=law.covariance * np.outer(scale, scale),
        weights=np.where(known >= 0, weights, 0.0),
    )


def linear_expected_values(
    panel: Panel, estimates: DynamicEstimates, who: str, *, autoregressive: bool
) -> FloatArray:
    """(R,) every row's value, observed or its mean given the whole panel; NaN for unknown series."""
    reading = read_series(panel, estimates, who, autoregressive=autoregressive)
    return by_row(panel, estimates, reading.completed())


def by_row(panel: Panel, estimates: DynamicEstimates, filled: FloatArray) -> FloatArray:
    """(R,) observed values as they are, else standardised ones (T, n) in input units; NaN where unknown."""
    known = panel.index.match_assets(estimates.series)[panel.asset_codes]
    values = (estimates.location + estimates.scale * filled)[panel.index.period_codes, np.maximum(known, 0)]
    return np.where(known >= 0, np.where(panel.observed, panel.values, values), np.nan)


def dynamic_state(
    panel: Panel,
    estimates: DynamicEstimates,
    factors: Factors,
    native: NativeForecasts | None,
    fit_span: FitSpan,
    who: str,
    alpha: FloatArray | None = None,
) -> LatentFactorState:
    """The state of a panel's rows; alpha (R,) is what is not linear in the factors."""
    known = known_assets(panel.index, estimates.series, who)
    # an aggregate loads on several periods' factors, so it has no contemporaneous loading
    is_low = (estimates.weights[:, 1:] != 0.0).any(axis=1)
    loadings = np.where(is_low[:, None], np.nan, estimates.loadings)
    own = estimates.idiosyncratic_variance
    variance = np.where(known >= 0, own[known], own.mean())
    return LatentFactorState(
        index=panel.index,
        factors=factors,
        measurement=Measurement(
            loadings=StaticLoadings(_by_series(loadings, known), panel.index),
            location=_by_series(estimates.location, known),
            scale=_by_series(estimates.scale, known),
            residual_variance=variance[panel.asset_codes],
            alpha=alpha,
        ),
        n_realised=panel.n_realised,
        fit_span=fit_span,
        native=native,
        metadata={
            "n_assets_without_loadings": int((panel.active_assets & (known < 0)).sum()),
            "aggregates": tuple(estimates.series[is_low].tolist()),
        },
    )


def _by_series(trained: FloatArray, known: npt.NDArray[np.int64]) -> FloatArray:
    out = trained[known]
    out[known < 0] = np.nan
    return out
