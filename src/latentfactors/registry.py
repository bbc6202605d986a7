"""What a configuration file can name, and how its tables become preparations and predictors.

A new model, forecaster, predictor or preparation is one line here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

from latentfactors.errors import ConfigurationError
from latentfactors.evaluate.selected import SelectedPredictor, SelectionConfig
from latentfactors.model import Predictor
from latentfactors.panel import Panel
from latentfactors.pipeline import LatentFactorForecastPipeline
from latentfactors.search_settings import read_search
from latentfactors.settings import as_table, checked, choose, make, refuse_unknown, selected, shown

__all__ = [
    "FORECASTERS",
    "MAPPERS",
    "MODELS",
    "PREDICTORS",
    "SPLITS",
    "STEPS",
    "named_predictors",
    "preparations",
]

# A model is built from the config that its base names: LatentFactorModel[XConfig, XEstimates].
MODELS = {
    "pca": "models.pca:PCAModel",
    "rp_pca": "models.rp_pca:RPPCAModel",
    "factor_regression": "models.factor_regression:FactorRegressionModel",
    "ipca": "models.ipca:IPCAModel",
    "cae": "models.cae:CAEModel",
    "d2fm": "models.d2fm:D2FMModel",
    "neurif": "models.neurif:NeurIFModel",
    "dfm": "models.dfm:DynamicFactorModel",
    "observed": "models.observed:ObservedFactorModel",
    "graph_factor": "models.graph_factor:GraphFactorModel",
    "credit_factor": "models.credit_factor:CreditFactorModel",
    "ptfa": "models.ptfa:PTFAModel",
}
FORECASTERS = {
    "expanding_mean": "forecasters:ExpandingMeanFactorForecaster",
    "ewma": "forecasters:EWMAFactorForecaster",
    "rolling_mean": "forecasters:RollingMeanFactorForecaster",
    "ar1": "forecasters:AR1FactorForecaster",
    "var": "forecasters:VARFactorForecaster",
    "native": "forecasters:NativeFactorForecaster",
}
MAPPERS = {"beta_lambda": "mappers:BetaLambdaMapper", "native": "mappers:NativeMapper"}
PREDICTORS = {
    "pipeline": "pipeline:LatentFactorForecastPipeline",
    "zero": "models.direct:ZeroPredictor",
    "historical_mean": "models.direct:HistoricalMeanPredictor",
    "autoregressive": "models.autoregressive:AutoregressivePredictor",
    "cross_sectional_ols": "models.direct:CrossSectionalOLSPredictor",
    "cross_sectional_ridge": "models.direct:CrossSectionalRidgePredictor",
    "neural_network": "models.neural_network:NeuralNetworkPredictor",
    "gradient_boosting": "models.boosted_trees:GradientBoostingPredictor",
    "neuralforecast": "models.neuralforecast:NeuralForecastPredictor",
    "selected": "evaluate.selected:SelectedPredictor",
}
STEPS = {
    "characteristics_from_returns": "characteristics:characteristics_from_returns",
    "rank_standardise": "prepare:rank_standardise",
    "zscore": "prepare:zscore",
    "winsorise": "prepare:winsorise",
    "fill_missing": "prepare:fill_missing",
    "neutralise": "prepare:neutralise",
    "add_constant": "prepare:add_constant",
}
SPLITS = {"expanding": "splits:ExpandingWindow", "rolling": "splits:RollingWindow"}


def preparations(section: Any) -> Iterator[tuple[str, Callable[[Panel], Panel]]]:
    """Label and function of every step of `[prepare]`."""
    section = as_table(section, "[prepare]")
    refuse_unknown(section, ("steps",), "[prepare]")
    steps = section.get("steps", [])
    if not isinstance(steps, list):
        raise ConfigurationError(f"[prepare] steps must be a list of names or tables, got {steps!r}")
    for number, entry in enumerate(steps, 1):
        function, options, where = selected(STEPS, entry, "name", f"[prepare] step {number}")
        yield where, partial(function, **checked(function, options, where, skip=("panel",)))


def named_predictors(entries: Any, horizon: int, store: str | Path | None = None) -> dict[str, Predictor]:
    """Name -> unfitted predictor, of a list of `[[predictor]]` tables.

    `store` keeps finished validation windows of predictors that search.

    Raises
    ------
    ConfigurationError
        One line that names the predictor, the key, what was expected and what came.
    """
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigurationError("predictors are a list of tables: write [[predictor]], with double brackets")
    if not entries:
        raise ConfigurationError("the list of predictors is empty: add a [[predictor]]")
    predictors: dict[str, Predictor] = {}
    for number, entry in enumerate(entries, 1):
        options = dict(entry)
        name = options.pop("name", None)
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f"[[predictor]] {number}: name must be a text, got {shown(name)}")
        where = f"[[predictor]] {name!r}"
        if name in predictors:
            raise ConfigurationError(f"{where}: the name is taken by an earlier predictor, give each its own")
        cls = choose(PREDICTORS, options.pop("kind", None), f"{where} kind")
        if cls is SelectedPredictor:
            predictors[name] = _among(options, predictors, horizon, store, where)
        elif "search" in options:
            predictors[name] = _searched(cls, options, horizon, store, where)
        else:
            predictors[name] = _predictor(cls, options, horizon, where)
    return predictors


def _predictor(cls: Any, options: Mapping[str, Any], horizon: int, where: str) -> Predictor:
    if cls is LatentFactorForecastPipeline:
        return _pipeline(options, where)
    if "horizon" in inspect.signature(cls).parameters:
        options = {"horizon": horizon, **options}
    return make(cls, options, where)


def _among(
    options: dict[str, Any],
    earlier: Mapping[str, Predictor],
    horizon: int,
    store: str | Path | None,
    where: str,
) -> SelectedPredictor:
    """The best of predictors that the file names above this one."""
    names = options.pop("candidates", None)
    if not isinstance(names, list) or not names:
        raise ConfigurationError(
            f"{where} candidates must be a list of names of predictors above it, got {shown(names)}"
        )
    for name in names:
        if not isinstance(name, str) or name not in earlier:
            raise ConfigurationError(
                f"{where} candidates: {shown(name)} is none of the predictors above it "
                f"({', '.join(earlier) or 'there is none'})"
            )
    config = make(SelectionConfig, {"horizon": horizon, **options}, where)
    return SelectedPredictor({name: earlier[name] for name in names}, config, store=store)


def _searched(
    cls: Any, options: dict[str, Any], horizon: int, store: str | Path | None, where: str
) -> SelectedPredictor:
    """The best over a grid of a predictor's options, or of its model's where it is a pipeline."""
    section, spot, base = options.pop("search"), f"{where} search", options
    piped = cls is LatentFactorForecastPipeline
    if piped:
        model = options.get("model", {})
        base = {"type": model} if isinstance(model, str) else as_table(model, f"{where} model")
    points, config = read_search(section, base, horizon, spot)
    candidates = {
        name: _predictor(cls, {**options, "model": each} if piped else each, horizon, f"{spot} ({name})")
        for name, each in points.items()
    }
    return SelectedPredictor(candidates, config, store=store)


def _pipeline(options: Mapping[str, Any], where: str) -> LatentFactorForecastPipeline:
    refuse_unknown(options, ("model", "forecaster", "mapper"), where)
    parts: dict[str, Any] = {"mapper": "beta_lambda", **options}
    for key, registry in (("model", MODELS), ("forecaster", FORECASTERS), ("mapper", MAPPERS)):
        if key not in parts:
            raise ConfigurationError(f"{where}: a pipeline needs {key}, one of {', '.join(registry)}")
        cls, chosen, spot = selected(registry, parts[key], "type", f"{where} {key}")
        if key == "model":
            config, _ = get_args(cls.__orig_bases__[0])
            parts[key] = cls(make(config, chosen, spot))
        else:
            parts[key] = make(cls, chosen, spot)
    return LatentFactorForecastPipeline(**parts)
