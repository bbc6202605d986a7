"""Structural model, factor forecaster and asset mapper as one predictor.

Panel -> model -> LatentFactorState -> forecaster -> FactorForecastResult -> mapper -> AssetForecastResult
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from latentfactors.errors import ConfigurationError, MissingCapabilityError, NotFittedError
from latentfactors.estimator import check_horizon
from latentfactors.frames import to_frame
from latentfactors.kernels.scores import r_squared
from latentfactors.model import AssetMapper, FactorForecaster, LatentFactorModel
from latentfactors.panel import Panel
from latentfactors.results import Prediction
from latentfactors.state import FitSummary
from latentfactors.store import class_path, fingerprint, load_object, save_object

__all__ = ["LatentFactorForecastPipeline"]


class LatentFactorForecastPipeline:
    """The flow of the library, from a panel to dated asset forecasts.

    Parameters
    ----------
    model
        Structural model; the pipeline fits a copy of it.
    forecaster
        Factor forecaster; a copy is fitted for every checkpoint of the model.
    mapper
        Asset mapper.

    Attributes
    ----------
    model, forecaster
        After `fit`: the fitted model, and the forecaster of its default checkpoint.

    Examples
    --------
    >>> from latentfactors.forecasters import ExpandingMeanFactorForecaster
    >>> from latentfactors.mappers import BetaLambdaMapper
    >>> from latentfactors.models.pca import PCAConfig, PCAModel
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=120, n_assets=30, n_factors=2, seed=1).panel
    >>> pipeline = LatentFactorForecastPipeline(
    ...     model=PCAModel(PCAConfig(n_factors=2)),
    ...     forecaster=ExpandingMeanFactorForecaster(),
    ...     mapper=BetaLambdaMapper(),
    ... )
    >>> summary = pipeline.fit(panel.between(0, 100))
    >>> prediction = pipeline.predict(panel, start=panel.times[100])
    >>> prediction.asset_forecast.wide().shape
    (20, 30)
    """

    def __init__(
        self, *, model: LatentFactorModel, forecaster: FactorForecaster, mapper: AssetMapper
    ) -> None:
        for name, part, kind in (
            ("model", model, LatentFactorModel),
            ("forecaster", forecaster, FactorForecaster),
            ("mapper", mapper, AssetMapper),
        ):
            if not isinstance(part, kind):
                raise ConfigurationError(f"{name} must be a {kind.__name__}, got {type(part).__name__}")
        self.model = model
        self.forecaster = forecaster
        self.mapper = mapper
        self._forecasters: dict[int | str, FactorForecaster] | None = None

    def fit(self, panel: Panel) -> FitSummary:
        """Fit the model, then a forecaster on the extracted state of every checkpoint.

        Parameters
        ----------
        panel
            Training data.

        Returns
        -------
        FitSummary
            The model's, with the forecasters' warnings added.
        """
        model, panel = self.model.clone(), self.share(panel)
        summary = model.fit(panel)
        training = panel.between(0, panel.n_realised)
        forecasters: dict[int | str, FactorForecaster] = {}
        warnings = list(summary.warnings)
        for label in model.available_checkpoints:
            forecasters[label] = self.forecaster.clone()
            remarks = forecasters[label].fit(model.extract(training, label)).warnings
            prefix = f"checkpoint {label}: " if len(model.available_checkpoints) > 1 else ""
            warnings += [prefix + remark for remark in remarks]
        self.model, self._forecasters = model, forecasters
        self.forecaster = forecasters[model.fitted.default]
        return replace(summary, warnings=tuple(warnings))

    def predict(
        self, panel: Panel, *, start: Any = None, horizon: int = 1, checkpoint: int | str | None = None
    ) -> Prediction:
        """Forecast every row of a panel, each from periods before its own.

        Parameters
        ----------
        panel
            Reaching back over the training period, or starting right after it.
        start
            First period to return; all when None.
        horizon
            Row p forecasts period p + horizon - 1.
        checkpoint
            Pairs the betas of one checkpoint with the forecaster fitted on the same one.

        Returns
        -------
        Prediction
            `.state`, `.factor_forecast`, `.asset_forecast`, `.reconstruction`.
        """
        forecasters = self._fitted_forecasters()
        for part in (self.forecaster, self.mapper):
            check_horizon(horizon, part.lowest_horizon)
        label, _ = self.model.estimates_at(checkpoint)
        state = self.model.extract(panel, label)
        factor_forecast = forecasters[label].predict(state, horizon)
        if start is not None:
            # the past has done its work: only the wanted rows are mapped
            a, b = state.index.position(start), state.index.n_periods
            state, factor_forecast = state.between(a, b), factor_forecast.between(a, b)
        return Prediction(
            index=state.index,
            state=state,
            factor_forecast=factor_forecast,
            asset_forecast=self.mapper.predict(state, factor_forecast),
            reconstruction=state.reconstruction(),
        )

    def checkpoint_table(self, panel: Panel, *, backend: str = "polars") -> Any:
        """What every checkpoint is worth downstream: predictive and total R2, against zero.

        Out-of-sample rows count where the panel has any, else all rows; the column `sample` says which.
        """
        rows: dict[str, list[Any]] = {
            name: [] for name in ("checkpoint", "default", "best", "sample", "predictive_r2", "total_r2")
        }
        fitted = self.model.fitted
        for label in self.model.available_checkpoints:
            prediction = self.predict(panel, checkpoint=label)
            forecast, reconstruction = prediction.asset_forecast, prediction.reconstruction
            assert forecast is not None
            assert reconstruction is not None
            fresh = ~forecast.in_sample[panel.index.period_codes]
            outside = bool((fresh & panel.observed).any())
            cells = fresh if outside else np.ones(panel.n_rows, dtype=bool)
            values = panel.values[cells]
            rows["checkpoint"].append(str(label))
            rows["default"].append(label == fitted.default)
            rows["best"].append(label == fitted.checkpoints.best)
            rows["sample"].append("out of sample" if outside else "in sample")
            rows["predictive_r2"].append(r_squared(values, forecast.expected_values[cells]))
            rows["total_r2"].append(r_squared(values, reconstruction[cells]))
        return to_frame({name: np.array(column) for name, column in rows.items()}, backend)

    def share(self, panel: Panel) -> Panel:
        """The same panel with what the model needs of every period, computed once for all its slices."""
        return self.model.share(panel)

    def clone(self) -> Self:
        """An unfitted copy."""
        return type(self)(model=self.model.clone(), forecaster=self.forecaster.clone(), mapper=self.mapper)

    def with_validation(self, n_periods: int) -> Self:
        """A copy whose model validates on its last `n_periods` training periods.

        Raises
        ------
        MissingCapabilityError
            When the model does not validate.
        """
        configure = getattr(self.model, "with_validation", None)
        if configure is None:
            raise MissingCapabilityError(f"{type(self.model).__name__} has no validation: use validation=0")
        return type(self)(model=configure(n_periods), forecaster=self.forecaster, mapper=self.mapper)

    @property
    def identity(self) -> str:
        """Class and config of all three parts."""
        mapper = f"{class_path(type(self.mapper))}:{fingerprint(self.mapper.config)}"
        return " | ".join([class_path(type(self)), self.model.identity, self.forecaster.identity, mapper])

    def save(self, directory: str | Path) -> Path:
        """Write model, forecasters and mapper; `load` gives them back exactly."""
        self._fitted_forecasters()
        card = self.model._card() | {
            "class": class_path(type(self)),
            "model": repr(self.model),
            "forecaster": repr(self.forecaster),
            "mapper": repr(self.mapper),
        }
        return save_object(directory, self, card)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read what `save` wrote."""
        return load_object(directory, cls)

    def _fitted_forecasters(self) -> dict[int | str, FactorForecaster]:
        if self._forecasters is None:
            raise NotFittedError("the pipeline is not fitted: call fit first")
        return self._forecasters

    def _to_store(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "forecaster": self.forecaster.clone(),
            "mapper": self.mapper,
            "forecasters": self._forecasters,
        }

    @classmethod
    def _from_store(cls, content: Mapping[str, Any]) -> Self:
        loaded = cls(model=content["model"], forecaster=content["forecaster"], mapper=content["mapper"])
        loaded._forecasters = content["forecasters"]
        if loaded._forecasters is not None:
            loaded.forecaster = loaded._forecasters[loaded.model.fitted.default]
        return loaded

    def __repr__(self) -> str:
        return f"<Pipeline {self.model!r} | {self.forecaster!r} | {self.mapper!r}>"
