"""Who takes part in a comparison: names, what each one sees, and all models that a panel can feed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least
from latentfactors.forecasters import ExpandingMeanFactorForecaster
from latentfactors.mappers import BetaLambdaMapper
from latentfactors.model import LatentFactorModel, Predictor
from latentfactors.models.direct import (
    CrossSectionalOLSPredictor,
    CrossSectionalRidgePredictor,
    HistoricalMeanPredictor,
    ZeroPredictor,
)
from latentfactors.panel import Panel
from latentfactors.pipeline import LatentFactorForecastPipeline

__all__ = ["Contenders", "default_models", "named_predictors_of", "what_it_sees"]

# Names of a data set, reduced to letters and digits -> the observed-factor model they make up.
_OBSERVED = {
    "CAPM": ({"mktrf", "mkt", "market", "rmkt"},),
    "FF3": ({"mktrf", "mkt", "market"}, {"smb"}, {"hml"}),
    "FF3 + momentum": ({"mktrf", "mkt", "market"}, {"smb"}, {"hml"}, {"mom", "umd", "wml"}),
    "FF5": ({"mktrf", "mkt", "market"}, {"smb"}, {"hml"}, {"rmw"}, {"cma"}),
    "FF5 + momentum": (
        {"mktrf", "mkt", "market"}, {"smb"}, {"hml"}, {"rmw"}, {"cma"}, {"mom", "umd", "wml"},
    ),
    "q4": ({"rmkt", "mktrf", "mkt"}, {"rme", "me"}, {"ria", "ia"}, {"rroe", "roe"}),
    "q5": ({"rmkt", "mktrf", "mkt"}, {"rme", "me"}, {"ria", "ia"}, {"rroe", "roe"}, {"reg", "eg"}),
}  # fmt: skip


_NO_DEEP = "JAX is not installed: pip install 'latentfactors[deep]'"


@dataclass(frozen=True, kw_only=True)
class Contenders:
    """Models that a panel can feed, by name, and why others cannot take part."""

    models: Mapping[str, Predictor]
    left_out: Mapping[str, str]


def default_models(panel: Panel, *, n_factors: int = 3, horizon: int = 1, seed: int = 0) -> Contenders:
    """All models of the library that a panel can feed, with premia that are means of the past.

    Zero and the assets' historical means always; for returns PCA and RP-PCA; with observed factors the models
    that their names make up (CAPM, FF3, FF5, q), else all of them together; with characteristics OLS, ridge,
    a neural network, boosted trees, IPCA, the conditional autoencoder and NeurIF; with attributes the credit
    factor model; for series an autoregression, a dynamic factor model and a deep one. Networks are smaller
    than in their papers, since a comparison fits them again in every window.

    Parameters
    ----------
    panel
        Decides who can take part.
    n_factors
        Latent factors; fewer where the panel has fewer characteristics, or hardly more assets.
    horizon
        Periods ahead that the regressions look.
    seed
        Of the learners that draw random numbers.

    Returns
    -------
    Contenders
        Models, and a reason for every family that is left out.

    Examples
    --------
    >>> from latentfactors.simulate import static_panel
    >>> found = default_models(static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel)
    >>> list(found.models)
    ['zero', 'historical mean', 'PCA(3)', 'RP-PCA(3)']
    >>> found.left_out["models on characteristics"]
    'the panel has none'
    """
    at_least("n_factors", n_factors, 1)
    k = max(min(n_factors, (panel.n_assets - 1) // 2), 1)
    given = _Given(panel, k, horizon, seed, {})
    models: dict[str, Predictor] = {
        "zero": ZeroPredictor(), "historical mean": HistoricalMeanPredictor()
    }  # fmt: skip
    for family in (_components, _observed, _categories, _instrumented, _sequences):
        models |= dict(family(given))
    return Contenders(models=models, left_out=given.left_out)


def named_predictors_of(models: Mapping[str, Any] | Sequence[Any]) -> dict[str, Predictor]:
    """Name -> predictor; a structural model becomes a pipeline with expanding means and beta-lambda.

    Raises
    ------
    ConfigurationError
        Nothing given, or something that neither predicts nor is a structural model.
    """
    if not isinstance(models, Mapping):
        if isinstance(models, str) or not isinstance(models, Sequence):
            raise ConfigurationError(
                f"models must be a mapping of names to predictors, or a list, got {type(models).__name__}"
            )
        named: dict[str, Any] = {}
        for each in models:
            name = _name_of(each)
            twins = sum(other == name or other.startswith(f"{name} #") for other in named)
            named[f"{name} #{twins + 1}" if twins else name] = each
        models = named
    if not models:
        raise ConfigurationError("there is no model to compare: give at least one, or None for all")
    found = {}
    for name, each in models.items():
        predictor = _pipeline(each) if isinstance(each, LatentFactorModel) else each
        if not isinstance(predictor, Predictor) or isinstance(predictor, type):
            raise ConfigurationError(
                f"{name!r} must be a predictor (fit, predict, clone, identity) or a structural model, got "
                f"{each!r}"
            )
        found[str(name)] = predictor
    return found


def what_it_sees(predictor: Any) -> str:
    """What a predictor's forecasts are made from, in words: its own, or from what it says it uses."""
    part = getattr(predictor, "model", predictor)
    declared = getattr(part, "sees", None)
    if declared is not None:
        return str(declared)
    uses = getattr(part, "uses_characteristics", None)
    if uses is None:
        return "not said"
    return "characteristics" if uses else "all histories"


# ------------------------------------------------------------------------------------ the families


Named = Iterator[tuple[str, Predictor]]


@dataclass(frozen=True)
class _Given:
    """What decides who can take part, and where reasons go."""

    panel: Panel
    k: int
    horizon: int
    seed: int
    left_out: dict[str, str]


# Models are imported where they are wanted: compiled recursions and networks take a while to load.


def _components(given: _Given) -> Named:
    if given.panel.value_kind == "series":
        given.left_out["PCA, RP-PCA"] = "the values are series: factors of returns are not centred"
        return
    from latentfactors.models.pca import PCAConfig, PCAModel
    from latentfactors.models.rp_pca import RPPCAConfig, RPPCAModel

    yield f"PCA({given.k})", _pipeline(PCAModel(PCAConfig(n_factors=given.k)))
    yield f"RP-PCA({given.k})", _pipeline(RPPCAModel(RPPCAConfig(n_factors=given.k)))


def _observed(given: _Given) -> Named:
    names = given.panel.observed_factor_names
    if not names or given.panel.value_kind == "series":
        given.left_out["observed factors"] = "the panel has none" if not names else "the values are series"
        return
    from latentfactors.models.observed import ObservedFactorConfig, ObservedFactorModel

    sets = observed_sets(names) or {"observed factors": names}
    for name, factors in sets.items():
        # with an intercept the forecast would be the asset's historical mean again
        yield name, _pipeline(ObservedFactorModel(ObservedFactorConfig(factors=factors, alpha=False)))


def _categories(given: _Given) -> Named:
    if not given.panel.attributes:
        given.left_out["graph and credit factor models"] = "the panel has no attributes"
        return
    from latentfactors.models.credit_factor import CreditFactorConfig, CreditFactorModel

    yield "CFM", _pipeline(CreditFactorModel(CreditFactorConfig()))


def _instrumented(given: _Given) -> Named:
    from latentfactors.derive import missing_characteristics
    from latentfactors.models.boosted_trees import GradientBoostingPredictor
    from latentfactors.models.ipca import IPCAConfig, IPCAModel
    from latentfactors.models.neural_network import NeuralNetworkPredictor

    if given.panel.characteristics is None:
        given.left_out["models on characteristics"] = "the panel has none"
        return
    learners = importlib.util.find_spec("sklearn") is not None
    if not learners:
        given.left_out["neural network, boosted trees"] = (
            "scikit-learn is not installed: pip install 'latentfactors[learners]'"
        )
    complete = not missing_characteristics(given.panel).values.any()
    if not complete:
        given.left_out["OLS, ridge, neural network, IPCA, CAE, NeurIF"] = (
            "characteristics have gaps: call prepare.rank_standardise or fill_missing first"
        )
    if complete:
        yield "OLS", CrossSectionalOLSPredictor(horizon=given.horizon)
        yield "ridge", CrossSectionalRidgePredictor(horizon=given.horizon)
        if learners:
            yield "neural network", NeuralNetworkPredictor(seed=given.seed, horizon=given.horizon)
    if learners:
        yield "boosted trees", GradientBoostingPredictor(seed=given.seed, horizon=given.horizon)
    if complete:
        k = min(given.k, len(given.panel.characteristic_names))
        yield f"IPCA({k})", _pipeline(IPCAModel(IPCAConfig(n_factors=k)))
        yield from _networks(given, k)


def _networks(given: _Given, k: int) -> Named:
    if not _deep():
        given.left_out["CAE, NeurIF"] = _NO_DEEP
        return
    from latentfactors.forecasters import NativeFactorForecaster
    from latentfactors.models.cae import CAEConfig, CAEModel
    from latentfactors.models.neurif import NeurIFConfig, NeurIFModel
    from latentfactors.neural.config import TrainingConfig

    # Smaller than the papers' networks and ensembles: a comparison fits them again in every window.
    training = TrainingConfig(
        epochs=60, batch=12, validation=0.2, patience=5, default_checkpoint="best", n_ensemble=3,
        seed=given.seed,
    )  # fmt: skip
    yield f"CAE({k})", _pipeline(CAEModel(CAEConfig(n_factors=k, training=training)))
    attention = replace(
        training, epochs=40, n_ensemble=1, optimiser="adamw", learning_rate=2e-3, weight_decay=1e-5,
        gradient_clip=1.0,
    )  # fmt: skip
    config = NeurIFConfig(n_factors=k, width=32, temporal_layers=2, induced_points=16, training=attention)
    yield (
        f"NeurIF({k})",
        LatentFactorForecastPipeline(
            model=NeurIFModel(config), forecaster=NativeFactorForecaster(), mapper=BetaLambdaMapper()
        ),
    )


def _sequences(given: _Given) -> Named:
    given.left_out["neuralforecast's networks"] = (
        "they take long: name NeuralForecastPredictor(...) to have them in, they see own histories only"
    )
    if given.panel.value_kind != "series":
        return
    from latentfactors.forecasters import NativeFactorForecaster
    from latentfactors.mappers import NativeMapper
    from latentfactors.models.autoregressive import AutoregressivePredictor
    from latentfactors.models.dfm import DFMConfig, DynamicFactorModel

    yield "AR", AutoregressivePredictor(horizon=given.horizon)
    yield (
        f"DFM({given.k})",
        LatentFactorForecastPipeline(
            model=DynamicFactorModel(DFMConfig(n_factors=given.k)),
            forecaster=NativeFactorForecaster(),
            mapper=NativeMapper(),
        ),
    )
    if not _deep():
        given.left_out["D2FM"] = _NO_DEEP
        return
    from latentfactors.models.d2fm import D2FMConfig, D2FMModel

    # one restart of a small network: enough to see whether it helps, not what its best training would reach
    config = D2FMConfig(
        n_factors=given.k, hidden_units=(12,), pretraining_epochs=50, epochs_per_iteration=50,
        max_iterations=6, n_draws=10, seed=given.seed,
    )  # fmt: skip
    yield (
        f"D2FM({given.k})",
        LatentFactorForecastPipeline(
            model=D2FMModel(config), forecaster=NativeFactorForecaster(), mapper=NativeMapper()
        ),
    )


# ------------------------------------------------------------------------------------ the parts


def observed_sets(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Observed-factor models that the names make up -> their columns.

    >>> observed_sets(["Mkt-RF", "SMB", "HML", "RF"])
    {'CAPM': ('Mkt-RF',), 'FF3': ('Mkt-RF', 'SMB', 'HML')}
    """
    plain = {"".join(filter(str.isalnum, name.lower())): name for name in names}
    found = {}
    for model, wanted in _OBSERVED.items():
        columns = [next((plain[key] for key in plain if key in choices), None) for choices in wanted]
        if None not in columns:
            found[model] = tuple(column for column in columns if column is not None)
    return found


def _pipeline(model: LatentFactorModel[Any, Any]) -> LatentFactorForecastPipeline:
    return LatentFactorForecastPipeline(
        model=model, forecaster=ExpandingMeanFactorForecaster(), mapper=BetaLambdaMapper()
    )


def _deep() -> bool:
    """Whether the networks' libraries are there."""
    return all(importlib.util.find_spec(name) is not None for name in ("jax", "equinox", "optax"))


def _name_of(predictor: Any) -> str:
    """A short name: the class without its kind, and the number of factors."""
    part = getattr(predictor, "model", predictor)
    name = type(part).__name__.removesuffix("Model").removesuffix("Predictor")
    k = getattr(getattr(part, "config", None), "n_factors", None)
    return name if k is None else f"{name}({k})"
