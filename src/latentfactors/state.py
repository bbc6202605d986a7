"""What models, forecasters and mappers hand to each other.

    LatentFactorState      exposures and factor realisations          what happened
    FactorForecastResult   ex-ante factor forecasts                   what factors are expected to earn
    AssetForecastResult    asset-level expectations                   what assets are expected to earn
    AssetWeightsResult     portfolio weights                          the native output of weight learners
    Prediction             whatever of these one predictor produced

All are frozen, carry their row index, and know which of their rows lie inside the training span.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from latentfactors.errors import PanelError
from latentfactors.rows import RowIndex

__all__ = [
    "AssetForecastResult",
    "AssetWeightsResult",
    "ConditionalLoadings",
    "FactorForecastResult",
    "FactorWeights",
    "Factors",
    "FitSpan",
    "FitSummary",
    "Information",
    "LatentFactorState",
    "Loadings",
    "Measurement",
    "NativeForecasts",
    "Prediction",
    "StaticLoadings",
]

FloatArray = npt.NDArray[np.float64]
Information = Literal["realised", "filtered", "smoothed"]


@dataclass(frozen=True)
class FitSpan:
    """First and last observed training period."""

    start: Any
    end: Any

    def covers(self, times: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """(T,) which periods lie at or before the end of training."""
        return times <= self.end

    def __str__(self) -> str:
        return f"{self.start}..{self.end}"


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """How a fit went.

    Parameters
    ----------
    converged
        The stopping rule fired (not merely: the loop ended).
    reason
        One sentence.
    n_iterations
        Steps taken; 0 for closed forms.
    objective, objective_name
        The path of what was optimised, first to last.
    loglikelihood
        Where the model has one, of standardised values.
    metrics
        Name -> value, for instance `total_r2`.
    history
        Name -> per-epoch path, for iterative learners.
    warnings
        Statistical remarks, as sentences. They never become Python warnings.
    seconds
        Wall time of the fit.
    """

    converged: bool = True
    reason: str = "closed form"
    n_iterations: int = 0
    objective: tuple[float, ...] = ()
    objective_name: str = ""
    loglikelihood: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


# ------------------------------------------------------------------------------------ loadings


class Loadings(Protocol):
    """Exposures of rows to K factors, NaN where the model has none."""

    @property
    def n_factors(self) -> int:
        """Number of factors K."""
        ...

    def rows(self) -> FloatArray:
        """(R, K) loadings of every row."""
        ...

    def at(self, p: int) -> FloatArray:
        """(N_p, K) loadings of period p's rows."""
        ...

    def dense(self) -> FloatArray:
        """(T, N, K) loadings, NaN where an asset has no row."""
        ...

    def between(self, a: int, b: int) -> Loadings:
        """The loadings of periods a..b-1."""
        ...


@dataclass(frozen=True, eq=False)
class StaticLoadings:
    """(N, K) loadings that an asset keeps over time.

    Raises
    ------
    PanelError
        When the number of loadings differs from the number of assets.
    """

    values: FloatArray
    index: RowIndex

    def __post_init__(self) -> None:
        _check_length(self.values, self.index.n_assets, "static loadings", "assets")

    @property
    def n_factors(self) -> int:
        """Number of factors K."""
        return self.values.shape[1]

    def rows(self) -> FloatArray:
        """(R, K) loadings of every row."""
        return self.values[self.index.asset_codes]

    def at(self, p: int) -> FloatArray:
        """(N_p, K) loadings of period p's rows."""
        return self.values[self.index.asset_codes[self.index.rows(p)]]

    def dense(self) -> FloatArray:
        """(T, N, K) loadings, NaN where an asset has no row."""
        return self.index.dense(self.rows())

    def between(self, a: int, b: int) -> StaticLoadings:
        """The loadings of periods a..b-1."""
        return StaticLoadings(self.values, self.index.between(a, b))


@dataclass(frozen=True, eq=False)
class ConditionalLoadings:
    """(R, K) loadings that change with the row's characteristics.

    Raises
    ------
    PanelError
        When the number of loadings differs from the number of rows.
    """

    values: FloatArray
    index: RowIndex

    def __post_init__(self) -> None:
        _check_length(self.values, self.index.n_rows, "conditional loadings", "rows")

    @property
    def n_factors(self) -> int:
        """Number of factors K."""
        return self.values.shape[1]

    def rows(self) -> FloatArray:
        """(R, K) loadings of every row."""
        return self.values

    def at(self, p: int) -> FloatArray:
        """(N_p, K) loadings of period p's rows."""
        return self.values[self.index.rows(p)]

    def dense(self) -> FloatArray:
        """(T, N, K) loadings, NaN where an asset has no row."""
        return self.index.dense(self.values)

    def between(self, a: int, b: int) -> ConditionalLoadings:
        """The loadings of periods a..b-1."""
        low, high = int(self.index.offsets[a]), int(self.index.offsets[b])
        return ConditionalLoadings(self.values[low:high], self.index.between(a, b))


# ------------------------------------------------------------------------------------ state


@dataclass(frozen=True, eq=False, kw_only=True)
class Factors:
    """Factor realisations.

    Parameters
    ----------
    values : (T, K)
        NaN where not identified (too few observations).
    names
        K names.
    covariance : (T, K, K), optional
        Uncertainty of each realisation, where the model has a posterior.
    information
        "realised" (from the period's own cross-section), "filtered" (data up to the period) or "smoothed"
        (two-sided; walk-forward refuses it).
    """

    values: FloatArray
    names: tuple[str, ...]
    covariance: FloatArray | None = None
    information: Information = "realised"


@dataclass(frozen=True, eq=False, kw_only=True)
class Measurement:
    """How factors become values: value = location + scale (alpha + loadings . f + e).

    Parameters
    ----------
    loadings
        `StaticLoadings` or `ConditionalLoadings`.
    location, scale : (N,)
        Units of every asset; 0 and 1 for return models.
    residual_variance : (R,)
        Of e, in model units; a pooled value for rows whose asset is new.
    alpha : (R,), optional
        Mispricing, where the model estimates it.
    """

    loadings: Loadings
    location: FloatArray
    scale: FloatArray
    residual_variance: FloatArray
    alpha: FloatArray | None = None


class NativeForecasts(Protocol):
    """Forecasts of a model with its own dynamics: horizon 1 is the row's own period, 0 a nowcast of p-1."""

    def factors(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        """(T, K) means and (T, K, K) covariances or None, given periods up to p-1."""
        ...

    def values(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        """(R,) means and variances or None in input units, given periods up to p-1."""
        ...


@dataclass(frozen=True)
class _NativeSlice:
    """Native forecasts of periods a..b-1."""

    native: NativeForecasts
    periods: slice
    rows: slice

    def factors(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        mean, covariance = self.native.factors(horizon)
        return mean[self.periods], None if covariance is None else covariance[self.periods]

    def values(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        mean, variance = self.native.values(horizon)
        return mean[self.rows], None if variance is None else variance[self.rows]


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentFactorState:
    """A structural model's view of a panel: who loads on what, and what the factors did.

    Parameters
    ----------
    index
        Rows of the panel.
    factors
        `Factors`: (T, K) realisations.
    measurement
        `Measurement`: loadings, alpha, location, scale, residual variance.
    n_realised
        Periods up to the last one with an observed value; the rest is live.
    fit_span
        Training span of the model.
    native
        The model's own forecasts, if it has any.
    checkpoint
        Label of the estimates used.
    metadata
        Counts and remarks: assets without loadings, periods without factors.
    """

    index: RowIndex
    factors: Factors
    measurement: Measurement
    n_realised: int
    fit_span: FitSpan
    native: NativeForecasts | None = None
    checkpoint: int | str = "last"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asset_betas(self) -> FloatArray:
        """(T, N, K) dense loadings."""
        return self.measurement.loadings.dense()

    @property
    def factor_returns(self) -> FloatArray:
        """(T, K) factor realisations."""
        return self.factors.values

    @property
    def timestamps(self) -> npt.NDArray[Any]:
        """(T,) periods."""
        return self.index.times

    @property
    def asset_ids(self) -> npt.NDArray[Any]:
        """(N,) asset labels."""
        return self.index.assets

    def reconstruction(self) -> FloatArray:
        """(R,) fitted values with *realised* factors: a description, never a forecast."""
        return combine(self, self.factors.values, self.measurement.alpha)

    def between(self, a: int, b: int) -> LatentFactorState:
        """The state of periods a..b-1; what was computed from earlier periods stays as it is."""
        low, high = int(self.index.offsets[a]), int(self.index.offsets[b])
        rows, span = slice(low, high), slice(a, b)
        factors, measurement = self.factors, self.measurement
        covariance = None if factors.covariance is None else factors.covariance[span]
        return replace(
            self,
            index=self.index.between(a, b),
            factors=replace(factors, values=factors.values[span], covariance=covariance),
            measurement=replace(
                measurement,
                loadings=measurement.loadings.between(a, b),
                residual_variance=measurement.residual_variance[rows],
                alpha=None if measurement.alpha is None else measurement.alpha[rows],
            ),
            n_realised=min(max(self.n_realised - a, 0), b - a),
            native=None if self.native is None else _NativeSlice(self.native, span, rows),
        )


def combine(state: LatentFactorState, factors: FloatArray, alpha: FloatArray | None) -> FloatArray:
    """location + scale (alpha + loadings . f): (R,) values for (T, K) factors, period by period.

    Row by row products would be the same on paper; taken period by period and factor by factor they are the
    same to the bit whatever stands in later periods.
    """
    index, measurement = state.index, state.measurement
    loadings, period = measurement.loadings.rows(), index.period_codes
    total = np.zeros(index.n_rows) if alpha is None else alpha.copy()
    for k in range(loadings.shape[1]):
        total += loadings[:, k] * factors[period, k]
    return measurement.location[index.asset_codes] + measurement.scale[index.asset_codes] * total


# ------------------------------------------------------------------------------------ forecasts


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
        """(T,) last period whose values were known."""
        return self.index.origins()

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
        _check_length(self.expected_values, self.index.n_rows, "expected_values", "rows")

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
        _check_length(self.weights, self.index.n_rows, "weights", "rows")

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


def _check_length(values: FloatArray, expected: int, what: str, of: str) -> None:
    if values.shape[0] != expected:
        raise PanelError(f"{what} must have one entry for each of {expected} {of}, got {values.shape[0]}")
