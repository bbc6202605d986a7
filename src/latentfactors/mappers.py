"""Asset mappers: from loadings and factor forecasts to asset forecasts.

beta-lambda   mu = location + scale (alpha + loadings . premia)
              variance = scale^2 (b'V b + residual variance)
native        the model's own forecast of values, for models with a measurement of their own
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import MissingCapabilityError
from latentfactors.estimator import check_horizon
from latentfactors.model import AssetMapper
from latentfactors.results import AssetForecastResult, FactorForecastResult
from latentfactors.state import LatentFactorState, combine

__all__ = ["BetaLambdaConfig", "BetaLambdaMapper", "NativeMapper", "NativeMapperConfig"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BetaLambdaConfig:
    """Options of `BetaLambdaMapper`."""

    include_alpha: bool = True


@dataclass(frozen=True, kw_only=True)
class NativeMapperConfig:
    """Options of `NativeMapper`: none."""


class BetaLambdaMapper(AssetMapper[BetaLambdaConfig]):
    """Loadings times premia, in input units.

    Parameters
    ----------
    include_alpha
        Add the model's alpha where it has one.

    Notes
    -----
    Rows without loadings (new assets, quarterly series of a monthly panel) are NaN.
    """

    def __init__(self, include_alpha: bool = True) -> None:
        super().__init__(BetaLambdaConfig(include_alpha=include_alpha))

    def predict(self, state: LatentFactorState, factor_forecast: FactorForecastResult) -> AssetForecastResult:
        """Forecast every row of the state from its loadings and the period's premia.

        Raises
        ------
        HorizonError
            For nowcasts and backcasts, which need native values.
        """
        check_horizon(factor_forecast.horizon)
        measurement = state.measurement
        alpha = measurement.alpha if self.config.include_alpha else None
        return AssetForecastResult(
            index=state.index,
            fit_span=state.fit_span,
            horizon=factor_forecast.horizon,
            expected_values=combine(state, factor_forecast.premia, alpha),
            variance=predictive_variance(state, factor_forecast.covariance),
            state=state,
            factor_forecast=factor_forecast,
            includes_alpha=alpha is not None,
        )


class NativeMapper(AssetMapper[NativeMapperConfig]):
    """The model's own forecasts of values: horizon 1 and up ahead, 0 a nowcast of p-1, below a backcast."""

    lowest_horizon = None

    def __init__(self) -> None:
        super().__init__(NativeMapperConfig())

    def predict(self, state: LatentFactorState, factor_forecast: FactorForecastResult) -> AssetForecastResult:
        """Ask the model.

        Raises
        ------
        MissingCapabilityError
            When the model has no native forecasts.
        """
        if state.native is None:
            raise MissingCapabilityError("this model forecasts no values itself: use BetaLambdaMapper")
        mean, variance = state.native.values(factor_forecast.horizon)
        return AssetForecastResult(
            index=state.index,
            fit_span=state.fit_span,
            horizon=factor_forecast.horizon,
            expected_values=mean,
            variance=variance,
        )


def predictive_variance(state: LatentFactorState, covariance: FloatArray | None) -> FloatArray | None:
    """scale^2 (b'V b + residual variance) for every row, period by period; None without V."""
    if covariance is None:
        return None
    index, measurement = state.index, state.measurement
    out = np.empty(index.n_rows)
    for p in range(index.n_periods):
        b = measurement.loadings.at(p)
        out[index.rows(p)] = np.einsum("ij,jk,ik->i", b, covariance[p], b)
    scale = measurement.scale[index.asset_codes]
    return scale * scale * (out + measurement.residual_variance)
