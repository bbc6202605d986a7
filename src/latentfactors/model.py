"""Structural models, factor forecasters, asset mappers, and the `Predictor` protocol.

A subclass of `LatentFactorModel` writes `_estimate` and `_extract`; of `FactorForecaster`, `_estimate` and
`_forecast`; of `PanelPredictor`, `_estimate` and `_predict`. Fitting, guards, timing, checkpoints, history,
save and load live here and in `estimator`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Generic, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from latentfactors.derive import share, share_missing_characteristics
from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
    PanelMismatchError,
    UnknownAssetsError,
)
from latentfactors.estimator import Checkpoints, ConfigT, EstimatesT, Estimator, PanelSignature, check_horizon
from latentfactors.history import History
from latentfactors.panel import Panel
from latentfactors.results import AssetForecastResult, FactorForecastResult, FactorWeights, Prediction
from latentfactors.rows import PerPeriod, RowIndex
from latentfactors.state import (
    Factors,
    FitSpan,
    FitSummary,
    LatentFactorState,
    Loadings,
    Measurement,
    StaticLoadings,
)

__all__ = [
    "AssetMapper",
    "FactorForecaster",
    "LatentFactorModel",
    "PanelPredictor",
    "Predictor",
    "input_unit_state",
    "known_assets",
    "static_state",
]

FloatArray = npt.NDArray[np.float64]


@runtime_checkable
class Predictor(Protocol):
    """Anything that `walk_forward` can run: pipelines, direct predictors, weight learners, adapters."""

    def fit(self, panel: Panel) -> FitSummary:
        """Estimate from a panel whose values end at the first origin."""
        ...

    def predict(self, panel: Panel, *, start: Any = None, horizon: int = 1) -> Prediction:
        """Forecast every row from `start` on, each from its own past."""
        ...

    def clone(self) -> Self:
        """An unfitted copy."""
        ...

    @property
    def identity(self) -> str:
        """Class and config as text."""
        ...


class LatentFactorModel(Estimator[ConfigT, EstimatesT], ABC, Generic[ConfigT, EstimatesT]):
    """Base of structural models: exposures and factor realisations."""

    sequential = False
    """Whether `extract` depends on earlier periods, so that a gap after training is an error."""

    def fit(self, panel: Panel) -> FitSummary:
        """Estimate the model. Trailing periods without an observed value are cut first.

        Parameters
        ----------
        panel
            Training data.

        Returns
        -------
        FitSummary

        Raises
        ------
        InsufficientDataError, PanelMismatchError, ConfigurationError
            Nothing observed, NaN characteristics, more factors than the data allow.
        """
        return self._fit_panel(panel, self._estimate)

    def extract(self, panel: Panel, checkpoint: int | str | None = None) -> LatentFactorState:
        """Loadings and factors of a panel: one-sided and deterministic, always.

        Parameters
        ----------
        panel
            Any panel prepared like the training panel; live periods and new assets are welcome.
        checkpoint
            Label, "best" or "last"; None takes the config's default.

        Returns
        -------
        LatentFactorState

        Raises
        ------
        NotFittedError, PanelMismatchError, UnknownAssetsError, GapError
            Before `fit`; a panel prepared otherwise; no known asset; an unbridgeable gap.
        """
        self._check_panel(panel)
        label, estimates = self.estimates_at(checkpoint)
        return replace(self._extract(panel, estimates), checkpoint=label)

    def smooth(self, panel: Panel) -> LatentFactorState:
        """Two-sided description with all of the panel's data; never use it to forecast.

        Raises
        ------
        MissingCapabilityError
            When the model has no smoother.
        """
        self._check_panel(panel)
        return self._smooth(panel, self.estimates)

    def factor_weights(self, panel: Panel) -> FactorWeights:
        """Investable portfolios whose returns are the factors, from what was known before each period.

        Raises
        ------
        MissingCapabilityError
            When the model's factors are no portfolios.
        """
        self._check_panel(panel)
        return self._factor_weights(panel, self.estimates)

    def share(self, panel: Panel) -> Panel:
        """The same panel with what `fit` and `extract` ask of every period, computed once for all slices.

        Everything found is the same without it, to the bit; see `latentfactors.derive.share`.
        """
        if not isinstance(panel, Panel) or panel.characteristics is None or not self.uses_characteristics:
            return panel
        return share(share_missing_characteristics(panel), self._shareable(panel))

    def _shareable(self, panel: Panel) -> Mapping[str, PerPeriod]:
        """What `share` attaches of a panel that may have periods a fit would refuse."""
        return {}

    @abstractmethod
    def _estimate(self, panel: Panel) -> tuple[EstimatesT | Checkpoints[EstimatesT], FitSummary]:
        """Estimates from a panel whose last period has an observed value."""

    @abstractmethod
    def _extract(self, panel: Panel, estimates: EstimatesT) -> LatentFactorState:
        """The state of a panel that passed the guards."""

    def _smooth(self, panel: Panel, estimates: EstimatesT) -> LatentFactorState:
        raise MissingCapabilityError(f"{type(self).__name__} has no smoother: use extract")

    def _factor_weights(self, panel: Panel, estimates: EstimatesT) -> FactorWeights:
        raise MissingCapabilityError(f"{type(self).__name__} has no factor portfolios")


class FactorForecaster(Estimator[ConfigT, EstimatesT], ABC, Generic[ConfigT, EstimatesT]):
    """Base of factor forecasters: premia[p] = E[f_(p + horizon - 1) | periods <= p-1]."""

    lowest_horizon: int | None = 1
    """Smallest horizon this forecaster serves; None: any."""

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config)
        self._history: History | None = None

    def fit(self, state: LatentFactorState) -> FitSummary:
        """Estimate from training factors; periods after the last observed value are cut.

        Raises
        ------
        InsufficientDataError
            No identified factor, or too few for this forecaster.
        """
        began = time.perf_counter()
        self._check_state(state)
        factors = realised_factors(state)[: state.n_realised]
        if not np.isfinite(factors).any():
            raise InsufficientDataError(
                f"{type(self).__name__} needs realised factors, all {len(factors)} training periods are NaN"
            )
        estimates, summary = self._estimate(factors)
        times = state.index.times[: state.n_realised]
        self._history = History(times, factors)
        signature = PanelSignature("factors", (), state.factors.names, state.index.frequency)
        return self._keep(estimates, summary, FitSpan(times[0], times[-1]), signature, began)

    def predict(self, state: LatentFactorState, horizon: int = 1) -> FactorForecastResult:
        """Forecast every period's factors from strictly earlier periods.

        Parameters
        ----------
        state
            From the same model's `extract`.
        horizon
            1 forecasts the row's own period from the one before.

        Returns
        -------
        FactorForecastResult

        Raises
        ------
        NotFittedError, GapError, HorizonError, PanelMismatchError
            Before `fit`; a state that neither contains nor continues the training history; a bad horizon;
            other factors than those of `fit`.
        """
        self._check_state(state)
        estimates, trained = self.estimates, self.fitted.signature.characteristic_names
        if state.factors.names != trained:
            raise PanelMismatchError(
                f"{type(self).__name__} was fitted on factors {trained}, got {state.factors.names}: forecast "
                "from a state of the same model"
            )
        premia, covariance = self._predict(state, estimates, check_horizon(horizon, self.lowest_horizon))
        return FactorForecastResult(
            index=state.index,
            fit_span=self.fitted.span,
            horizon=int(horizon),
            premia=premia,
            covariance=covariance,
            factor_names=state.factors.names,
        )

    def _predict(
        self, state: LatentFactorState, estimates: EstimatesT, horizon: int
    ) -> tuple[FloatArray, FloatArray | None]:
        assert self._history is not None
        factors, n_before = self._history.prepend(state.index, realised_factors(state), type(self).__name__)
        premia, covariance = self._forecast(factors, estimates, horizon)
        return premia[n_before:], None if covariance is None else covariance[n_before:]

    @abstractmethod
    def _estimate(self, factors: FloatArray) -> tuple[EstimatesT, FitSummary]:
        """Estimates from (T, K) training factors, NaN where not realised."""

    @abstractmethod
    def _forecast(
        self, factors: FloatArray, estimates: EstimatesT, horizon: int
    ) -> tuple[FloatArray, FloatArray | None]:
        """(S, K) means and (S, K, K) covariances or None for (S, K) factors; row s uses rows < s only."""

    def _check_state(self, state: LatentFactorState) -> None:
        if not isinstance(state, LatentFactorState):
            raise ConfigurationError(
                f"expected a LatentFactorState, got {type(state).__name__}: call model.extract"
            )
        if state.factors.information == "smoothed":
            raise ConfigurationError(
                "smoothed factors know the future: forecast from model.extract, not model.smooth"
            )

    def clone(self) -> Self:
        """An unfitted copy with the same config."""
        twin = super().clone()
        twin._history = None
        return twin

    def _to_store(self) -> dict[str, Any]:
        return {**super()._to_store(), "history": self._history}

    @classmethod
    def _from_store(cls, content: Any) -> Self:
        loaded = super()._from_store(content)
        loaded._history = content["history"]
        return loaded


class AssetMapper(ABC, Generic[ConfigT]):
    """Base of mappers: from loadings and factor forecasts to asset forecasts. Mappers have nothing to fit.

    Parameters
    ----------
    config
        Options.
    """

    lowest_horizon: int | None = 1
    """Smallest horizon this mapper serves; None: any."""

    def __init__(self, config: ConfigT) -> None:
        self.config: ConfigT = config

    @abstractmethod
    def predict(self, state: LatentFactorState, factor_forecast: FactorForecastResult) -> AssetForecastResult:
        """Forecast every row of the state."""

    def _to_store(self) -> dict[str, Any]:
        return {"config": self.config}

    @classmethod
    def _from_store(cls, content: Any) -> Self:
        loaded = object.__new__(cls)
        AssetMapper.__init__(loaded, content["config"])
        return loaded

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.config!r}>"


class PanelPredictor(Estimator[ConfigT, EstimatesT], ABC, Generic[ConfigT, EstimatesT]):
    """Base of predictors outside the factor flow: direct predictors (signals), portfolio learners."""

    def fit(self, panel: Panel) -> FitSummary:
        """Estimate from a panel; trailing periods without an observed value are cut first."""
        return self._fit_panel(panel, self._estimate)

    def predict(self, panel: Panel, *, start: Any = None, horizon: int = 1) -> Prediction:
        """Predict every row from `start` on, each from its own past.

        Raises
        ------
        NotFittedError, PanelMismatchError, HorizonError, GapError
            As for models and forecasters.
        """
        self._check_panel(panel)
        prediction = self._predict(panel, self.estimates, check_horizon(horizon))
        return from_start(prediction, start)

    @abstractmethod
    def _estimate(self, panel: Panel) -> tuple[EstimatesT | Checkpoints[EstimatesT], FitSummary]:
        """Estimates from a panel whose last period has an observed value."""

    @abstractmethod
    def _predict(self, panel: Panel, estimates: EstimatesT, horizon: int) -> Prediction:
        """The prediction for a panel that passed the guards."""


def from_start(prediction: Prediction, start: Any) -> Prediction:
    """Exactly the rows of periods >= start."""
    if start is None:
        return prediction
    return prediction.between(prediction.index.position(start), prediction.index.n_periods)


def realised_factors(state: LatentFactorState) -> FloatArray:
    """(T, K) factors, NaN in live periods: a filter's guess about tomorrow is no realisation."""
    factors = np.array(state.factors.values)
    factors[state.n_realised :] = np.nan
    return factors


def known_assets(index: RowIndex, trained: npt.NDArray[Any], who: str) -> npt.NDArray[np.int64]:
    """(N,) position of every asset in the training labels, -1 where new.

    Raises
    ------
    UnknownAssetsError
        When the panel has rows and none of their assets was seen in training.
    """
    position = index.match_assets(trained)
    if index.n_rows and np.all(position[index.asset_codes] < 0):
        raise UnknownAssetsError(
            f"none of the panel's assets ({str(index.assets[index.asset_codes[0]])!r}, ...) was seen by "
            f"{who} in training ({trained.size} assets, {str(trained[0])!r}, ...): are the labels of "
            "another kind?"
        )
    return position


def static_state(
    panel: Panel,
    factors: Factors,
    loadings: FloatArray,
    residual_variance: FloatArray,
    *,
    pooled_residual_variance: float,
    fit_span: FitSpan,
    alpha: FloatArray | None = None,
) -> LatentFactorState:
    """The state of a model whose assets keep their loadings (N, K), in input units.

    Loadings, residual variances and alpha (N,) are in the panel's order of assets, NaN where the asset has
    none; the pooled residual variance then stands in.
    """
    codes = panel.asset_codes
    variance = np.where(np.isfinite(residual_variance), residual_variance, pooled_residual_variance)
    without = panel.active_assets & ~np.isfinite(loadings).all(axis=1)
    return input_unit_state(
        panel,
        factors,
        StaticLoadings(loadings, panel.index),
        variance[codes],
        alpha=None if alpha is None else alpha[codes],
        n_without=int(without.sum()),
        fit_span=fit_span,
    )


def input_unit_state(
    panel: Panel,
    factors: Factors,
    loadings: Loadings,
    residual_variance: FloatArray,
    *,
    alpha: FloatArray | None,
    n_without: int,
    fit_span: FitSpan,
) -> LatentFactorState:
    """The state of a model that neither centres nor scales; residual variance and alpha are (R,).

    `n_without`: assets of the panel that have no loadings.
    """
    index, n_realised = panel.index, panel.n_realised
    return LatentFactorState(
        index=index,
        factors=factors,
        measurement=Measurement(
            loadings=loadings,
            location=np.zeros(index.n_assets),
            scale=np.ones(index.n_assets),
            residual_variance=residual_variance,
            alpha=alpha,
        ),
        n_realised=n_realised,
        fit_span=fit_span,
        metadata={
            "n_assets_without_loadings": n_without,
            "n_periods_without_factors": int(np.isnan(factors.values[:n_realised]).any(axis=1).sum()),
        },
    )
