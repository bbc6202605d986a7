"""What is forecast: factors, assets, weights, each with the date it could have been made.

    FactorForecastResult   ex-ante factor forecasts                   what factors are expected to earn
    AssetForecastResult    asset-level expectations                   what assets are expected to earn
    AssetWeightsResult     portfolio weights                          the native output of weight learners
    Prediction             whatever of these one predictor produced

All are frozen, carry their row index, and know which of their rows lie inside the training span.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import PanelError
from latentfactors.periods import follows
from latentfactors.rows import RowIndex
from latentfactors.state import FitSpan, LatentFactorState, check_length

__all__ = [
    "AssetForecastResult",
    "AssetWeightsResult",
    "FactorForecastResult",
    "FactorWeights",
    "Prediction",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Dated:
    """Results whose rows have an origin (p-1) and a target (p + horizon - 1)."""

    index: RowIndex
    fit_span: FitSpan | None = None
    horizon: int = 1

    @property
    def times(self) -> npt.NDArray[Any]:
        """(T,) periods of the rows."""
        return self.index.times

    @property
    def origins(self) -> npt.NDArray[Any]:
        """(T,) last period whose values were known.

        Where the panel continues the training data, the first origin is the last training date itself: the
        calendar would name a weekday that may have been a holiday.
        """
        origins, span, index = self.index.origins(), self.fit_span, self.index
        if span is None or index.first or index.frequency is None or not index.n_periods:
            return origins
        if follows(span.end, index.times[0], index.frequency):
            origins[0] = span.end
        return origins

    @property
    def targets(self) -> npt.NDArray[Any]:
        """(T,) period that is forecast."""
        return self.index.targets(self.horizon)

    @property
    def in_sample(self) -> npt.NDArray[np.bool_]:
        """(T,) periods that lie in the training span."""
        if self.fit_span is None:
            return np.zeros(self.index.n_periods, dtype=bool)
        return self.fit_span.covers(self.index.times)


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorForecastResult(_Dated):
    """Ex-ante factor forecasts.

    Parameters
    ----------
    premia : (T, K)
        premia[p] = E[f_(p + horizon - 1) | periods <= p-1]; NaN before there is a past.
    covariance : (T, K, K), optional
        Of f_(p + horizon - 1) given the same.
    factor_names
        K names.
    """

    premia: FloatArray
    factor_names: tuple[str, ...]
    covariance: FloatArray | None = None

    def between(self, a: int, b: int) -> FactorForecastResult:
        """The forecasts of periods a..b-1."""
        covariance = None if self.covariance is None else self.covariance[a:b]
        return replace(self, index=self.index.between(a, b), premia=self.premia[a:b], covariance=covariance)


@dataclass(frozen=True, eq=False, kw_only=True)
class AssetForecastResult(_Dated):
    """Asset-level expectations in the units of the input.

    Parameters
    ----------
    expected_values : (R,)
        Forecast of every row's asset for the row's target; NaN where the model cannot say.
    variance : (R,), optional
        Predictive variance.
    state, factor_forecast
        What loadings times premia were multiplied from, and whether alpha was added; None where the forecast
        has no such parts.
    """

    expected_values: FloatArray
    variance: FloatArray | None = None
    state: LatentFactorState | None = None
    factor_forecast: FactorForecastResult | None = None
    includes_alpha: bool = False

    def __post_init__(self) -> None:
        check_length(self.expected_values, self.index.n_rows, "expected_values", "rows")

    @property
    def expected_returns(self) -> FloatArray:
        """(R,) the forecasts, by their asset-pricing name."""
        return self.expected_values

    def wide(self) -> FloatArray:
        """(T, N) forecasts."""
        return self.index.dense(self.expected_values)

    def frame(self, backend: str = "polars", *, in_sample: bool = False) -> Any:
        """Long frame: timestamp (the origin), asset, prediction_value, target_timestamp[, prediction_std]."""
        from latentfactors.frames import predictions_frame

        return predictions_frame(self, backend=backend, in_sample=in_sample)

    def explain(self, time: Any, asset: Any) -> dict[str, float]:
        """What a forecast is made of: loading x premium per factor, alpha and location; the parts sum to it.

        Raises
        ------
        PanelError
            No such row, or a forecast without parts.
        """
        if self.state is None or self.factor_forecast is None:
            raise PanelError(
                "this forecast has no parts to explain: it does not come from loadings and premia"
            )
        p = self.index.position(time)
        rows = self.index.rows(p)
        match = np.flatnonzero(self.index.assets[self.index.asset_codes[rows]] == asset)
        if match.size == 0:
            raise PanelError(f"asset {asset!r} has no row in period {time}")
        row, measurement = rows.start + int(match[0]), self.state.measurement
        code = self.index.asset_codes[row]
        scale = float(measurement.scale[code])
        parts = {"location": float(measurement.location[code])}
        if self.includes_alpha and measurement.alpha is not None:
            parts["alpha"] = scale * float(measurement.alpha[row])
        products = scale * measurement.loadings.at(p)[int(match[0])] * self.factor_forecast.premia[p]
        return parts | dict(zip(self.factor_forecast.factor_names, products.tolist(), strict=True))

    def between(self, a: int, b: int) -> AssetForecastResult:
        """The forecasts of periods a..b-1."""
        rows = slice(int(self.index.offsets[a]), int(self.index.offsets[b]))
        return replace(
            self,
            index=self.index.between(a, b),
            expected_values=self.expected_values[rows],
            variance=None if self.variance is None else self.variance[rows],
            state=None if self.state is None else self.state.between(a, b),
            factor_forecast=None if self.factor_forecast is None else self.factor_forecast.between(a, b),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class AssetWeightsResult(_Dated):
    """Portfolio weights held from the origin to the target.

    Parameters
    ----------
    weights : (R,)
        NaN where the row is not held by choice of the model's rules; 0 is a choice.
    """

    weights: FloatArray

    def __post_init__(self) -> None:
        check_length(self.weights, self.index.n_rows, "weights", "rows")

    def frame(self, backend: str = "polars", *, in_sample: bool = False) -> Any:
        """Long frame: timestamp (the origin), asset, weight, selected."""
        from latentfactors.frames import weights_frame

        return weights_frame(self, backend=backend, in_sample=in_sample)

    def between(self, a: int, b: int) -> AssetWeightsResult:
        """The weights of periods a..b-1."""
        rows = slice(int(self.index.offsets[a]), int(self.index.offsets[b]))
        return replace(self, index=self.index.between(a, b), weights=self.weights[rows])


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorWeights:
    """(R, K) investable portfolios whose returns are the factors: row weights known before the period."""

    weights: FloatArray
    index: RowIndex
    factor_names: tuple[str, ...]

    def returns(self, values: FloatArray) -> FloatArray:
        """(T, K) portfolio returns of (R,) values; a missing value counts as not held, never as a zero."""
        out = np.full((self.index.n_periods, self.weights.shape[1]), np.nan)
        for p in range(self.index.n_periods):
            rows = self.index.rows(p)
            held = np.isfinite(values[rows])
            if held.any():
                out[p] = self.weights[rows][held].T @ values[rows][held]
        return out


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """Everything one `predict` produced; what a family does not have is None.

    Parameters
    ----------
    state, factor_forecast, asset_forecast
        The flow's three objects.
    asset_weights
        Weights of weight-native predictors.
    sdf : (T,)
        Realised stochastic discount factor.
    reconstruction : (R,)
        Fitted values with realised factors.
    """

    index: RowIndex
    state: LatentFactorState | None = None
    factor_forecast: FactorForecastResult | None = None
    asset_forecast: AssetForecastResult | None = None
    asset_weights: AssetWeightsResult | None = None
    sdf: FloatArray | None = None
    reconstruction: FloatArray | None = None

    def between(self, a: int, b: int) -> Prediction:
        """The prediction of periods a..b-1."""
        parts = {
            name: None if getattr(self, name) is None else getattr(self, name).between(a, b)
            for name in ("state", "factor_forecast", "asset_forecast", "asset_weights")
        }
        rows = slice(int(self.index.offsets[a]), int(self.index.offsets[b]))
        return replace(
            self,
            index=self.index.between(a, b),
            sdf=None if self.sdf is None else self.sdf[a:b],
            reconstruction=None if self.reconstruction is None else self.reconstruction[rows],
            **parts,
        )
