"""Factor forecasters: premia[p] = E[f_(p + horizon - 1) | periods <= p-1].

    expanding mean   the mean of all factors up to the origin           Kelly, Pruitt & Su (2019), section 4.2
    EWMA             the same with weights that halve every half-life
    rolling mean     the last `window` periods
    AR(1)            f = c + phi f_- + u for each factor, from the last realised factor
    VAR              the same with all factors and several lags
    native           what the model itself expects

NaN factors are skipped, never read as zero. Parameters come from training; the information set moves on with
every row, so a forecast made long after training still knows yesterday's factors. Each forecast comes with
the covariance of the factor given the origin, the uncertainty of an estimated mean included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import InsufficientDataError, MissingCapabilityError
from latentfactors.estimator import at_least, check_number, freeze
from latentfactors.kernels.autoregression import (
    VectorAutoregression,
    conditional_forecasts,
    fit_var,
    separate_forecasts,
)
from latentfactors.kernels.moments import expanding_moments, exponential_moments, rolling_moments
from latentfactors.model import FactorForecaster
from latentfactors.state import FitSummary, LatentFactorState
from latentfactors.validate import count

__all__ = [
    "AR1FactorForecaster",
    "EWMABaseFactorForecaster",
    "EWMAFactorForecaster",
    "ExpandingMeanFactorForecaster",
    "MomentEstimates",
    "NativeFactorForecaster",
    "RollingMeanFactorForecaster",
    "VARFactorForecaster",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MomentEstimates:
    """The forecast right after training: mean (K,) and predictive covariance (K, K)."""

    mean: FloatArray
    covariance: FloatArray

    def __post_init__(self) -> None:
        freeze(self)


@dataclass(frozen=True, kw_only=True)
class ExpandingMeanConfig:
    """Options of `ExpandingMeanFactorForecaster`."""

    min_periods: int = 1

    def __post_init__(self) -> None:
        at_least("min_periods", self.min_periods, 1)


@dataclass(frozen=True, kw_only=True)
class EWMAConfig:
    """Options of `EWMAFactorForecaster`."""

    half_life: float = 12.0
    min_periods: int = 1

    def __post_init__(self) -> None:
        at_least("min_periods", self.min_periods, 1)
        object.__setattr__(self, "half_life", check_number("half_life", self.half_life, positive=True))


@dataclass(frozen=True, kw_only=True)
class RollingMeanConfig:
    """Options of `RollingMeanFactorForecaster`."""

    window: int
    min_periods: int = 1

    def __post_init__(self) -> None:
        at_least("min_periods", self.min_periods, 1)
        at_least("window", self.window, self.min_periods)


@dataclass(frozen=True, kw_only=True)
class AR1Config:
    """Options of `AR1FactorForecaster`: none."""


@dataclass(frozen=True, kw_only=True)
class VARConfig:
    """Options of `VARFactorForecaster`."""

    lags: int = 1
    ridge: float = 0.0

    def __post_init__(self) -> None:
        at_least("lags", self.lags, 1)
        object.__setattr__(self, "ridge", check_number("ridge", self.ridge))


@dataclass(frozen=True, kw_only=True)
class NativeConfig:
    """Options of `NativeFactorForecaster`: none."""


@dataclass(frozen=True, eq=False)
class NoEstimates:
    """A forecaster that leaves everything to the model."""


class ExpandingMeanFactorForecaster(FactorForecaster[ExpandingMeanConfig, MomentEstimates]):
    """Mean of all factors up to the origin: the random-walk-with-premium benchmark.

    Parameters
    ----------
    min_periods
        Realised periods a factor needs before it is forecast.

    Examples
    --------
    >>> from latentfactors.models.pca import PCAConfig, PCAModel
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=60, n_assets=20, n_factors=2, seed=1).panel
    >>> model, forecaster = PCAModel(PCAConfig(n_factors=2)), ExpandingMeanFactorForecaster()
    >>> _ = model.fit(panel)
    >>> state = model.extract(panel)
    >>> _ = forecaster.fit(state)
    >>> premia = forecaster.predict(state).premia
    >>> bool(np.allclose(premia[-1], state.factor_returns[:-1].mean(axis=0)))
    True
    """

    def __init__(self, min_periods: int = 1) -> None:
        super().__init__(ExpandingMeanConfig(min_periods=min_periods))

    def _estimate(self, factors: FloatArray) -> tuple[MomentEstimates, FitSummary]:
        return _last_moments(expanding_moments(factors, self.config.min_periods), factors)

    def _forecast(
        self, factors: FloatArray, estimates: MomentEstimates, horizon: int
    ) -> tuple[FloatArray, FloatArray | None]:
        return _rows(expanding_moments(factors, self.config.min_periods))


class EWMAFactorForecaster(FactorForecaster[EWMAConfig, MomentEstimates]):
    """Exponentially weighted mean of all factors up to the origin.

    Parameters
    ----------
    half_life
        Periods after which a weight has halved.
    min_periods
        Realised periods a factor needs before it is forecast.
    """

    def __init__(self, half_life: float = 12.0, min_periods: int = 1) -> None:
        super().__init__(EWMAConfig(half_life=half_life, min_periods=min_periods))

    def _estimate(self, factors: FloatArray) -> tuple[MomentEstimates, FitSummary]:
        config = self.config
        return _last_moments(exponential_moments(factors, config.half_life, config.min_periods), factors)

    def _forecast(
        self, factors: FloatArray, estimates: MomentEstimates, horizon: int
    ) -> tuple[FloatArray, FloatArray | None]:
        return _rows(exponential_moments(factors, self.config.half_life, self.config.min_periods))


EWMABaseFactorForecaster = EWMAFactorForecaster


class RollingMeanFactorForecaster(FactorForecaster[RollingMeanConfig, MomentEstimates]):
    """Mean of the last `window` periods up to the origin; missing factors in the window are skipped.

    Parameters
    ----------
    window
        Periods, at least `min_periods`.
    min_periods
        Realised periods inside the window a factor needs before it is forecast.
    """

    def __init__(self, window: int, min_periods: int = 1) -> None:
        super().__init__(RollingMeanConfig(window=window, min_periods=min_periods))

    def _estimate(self, factors: FloatArray) -> tuple[MomentEstimates, FitSummary]:
        config = self.config
        return _last_moments(rolling_moments(factors, config.window, config.min_periods), factors)

    def _forecast(
        self, factors: FloatArray, estimates: MomentEstimates, horizon: int
    ) -> tuple[FloatArray, FloatArray | None]:
        return _rows(rolling_moments(factors, self.config.window, self.config.min_periods))


class AR1FactorForecaster(FactorForecaster[AR1Config, VectorAutoregression]):
    """`f_t = c + phi f_(t-1) + u_t` for each factor by least squares, phi kept inside the unit circle.

    Each factor's forecast starts from its own last realised value: where the newest are missing it looks that
    much further, and a factor that starts late leaves the others' forecasts alone.

    Raises
    ------
    InsufficientDataError
        On `fit`, with fewer than three consecutive pairs of a factor.
    """

    def __init__(self) -> None:
        super().__init__(AR1Config())

    def _estimate(self, factors: FloatArray) -> tuple[VectorAutoregression, FitSummary]:
        return _fit_autoregression(type(self).__name__, factors, lags=1, ridge=0.0, diagonal=True)

    def _forecast(
        self, factors: FloatArray, estimates: VectorAutoregression, horizon: int
    ) -> tuple[FloatArray, FloatArray | None]:
        return _rows(separate_forecasts(factors, estimates, horizon))


class VARFactorForecaster(FactorForecaster[VARConfig, VectorAutoregression]):
    """Vector autoregression of the factors, kept stationary.

    Parameters
    ----------
    lags
        Number of lags.
    ridge
        Penalty on the coefficients relative to the regressors' average variance; 0 is least squares.

    Raises
    ------
    InsufficientDataError
        On `fit`, with fewer complete rows than parameters of an equation.
    """

    def __init__(self, lags: int = 1, ridge: float = 0.0) -> None:
        super().__init__(VARConfig(lags=lags, ridge=ridge))

    def _estimate(self, factors: FloatArray) -> tuple[VectorAutoregression, FitSummary]:
        config = self.config
        return _fit_autoregression(
            type(self).__name__, factors, lags=config.lags, ridge=config.ridge, diagonal=False
        )

    def _forecast(
        self, factors: FloatArray, estimates: VectorAutoregression, horizon: int
    ) -> tuple[FloatArray, FloatArray | None]:
        return _rows(conditional_forecasts(factors, estimates, horizon))


class NativeFactorForecaster(FactorForecaster[NativeConfig, NoEstimates]):
    """What the model itself expects of its factors: for models with their own dynamics.

    Horizon 0 is a nowcast of the period before the row, negative horizons are backcasts.
    """

    lowest_horizon = None

    def __init__(self) -> None:
        super().__init__(NativeConfig())

    def _estimate(self, factors: FloatArray) -> tuple[NoEstimates, FitSummary]:
        return NoEstimates(), FitSummary(reason="the model's own dynamics are used")

    def _predict(
        self, state: LatentFactorState, estimates: NoEstimates, horizon: int
    ) -> tuple[FloatArray, FloatArray | None]:
        if state.native is None:
            raise MissingCapabilityError(
                "this model has no dynamics of its own (state.native is None): models that have "
                "are those with a factor VAR or a temporal network; use ExpandingMeanFactorForecaster or "
                "AR1FactorForecaster"
            )
        return state.native.factors(horizon)

    def _forecast(
        self, factors: FloatArray, estimates: NoEstimates, horizon: int
    ) -> tuple[FloatArray, FloatArray | None]:
        raise MissingCapabilityError(
            "native forecasts come from the model's state, not from realised factors"
        )


def _rows(moments: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Kernels answer for one row more than they were given: the row after the data."""
    mean, covariance = moments
    return mean[:-1], covariance[:-1]


def _last_moments(
    moments: tuple[FloatArray, FloatArray], factors: FloatArray
) -> tuple[MomentEstimates, FitSummary]:
    mean, covariance = moments
    return MomentEstimates(mean[-1], covariance[-1]), FitSummary(warnings=_skipped(factors))


def _skipped(factors: FloatArray) -> tuple[str, ...]:
    n = int(np.isnan(factors).any(axis=1).sum())
    return (f"{count(n, 'training period')} with missing factors skipped",) if n else ()


def _fit_autoregression(
    name: str, factors: FloatArray, *, lags: int, ridge: float, diagonal: bool
) -> tuple[VectorAutoregression, FitSummary]:
    try:
        var, n_rows, shrunk = fit_var(factors, lags, ridge=ridge, diagonal=diagonal)
    except ValueError as error:
        raise InsufficientDataError(
            f"{name}: {error}; use ExpandingMeanFactorForecaster or train longer"
        ) from None
    warnings = _skipped(factors)
    if shrunk:
        warnings += ("coefficients shrunk to keep the process inside the unit circle (radius .99)",)
    return var, FitSummary(reason=f"least squares on {n_rows} rows", warnings=warnings)
