"""Latent factor models of finance and macroeconomics under one flow.

    Panel -> model -> LatentFactorState -> forecaster -> FactorForecastResult -> mapper -> AssetForecastResult

Names below load when first used, so `import latentfactors` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentfactors._version import __version__

if TYPE_CHECKING:
    from latentfactors.datasets import french_frame, french_sample
    from latentfactors.forecasters import (
        AR1FactorForecaster,
        EWMABaseFactorForecaster,
        EWMAFactorForecaster,
        ExpandingMeanFactorForecaster,
        NativeFactorForecaster,
        RollingMeanFactorForecaster,
        VARFactorForecaster,
    )
    from latentfactors.fred import fred_panel, read_fred_csv
    from latentfactors.fred_vintages import FredVintages, mixed_frequency_panel
    from latentfactors.french import (
        excess_panel,
        french_sections,
        read_french_csv,
        read_french_factors,
        read_french_risk_free,
    )
    from latentfactors.goyal_welch import equity_premium_panel, read_goyal_welch
    from latentfactors.mappers import BetaLambdaMapper, NativeMapper
    from latentfactors.model import (
        AssetMapper,
        FactorForecaster,
        LatentFactorModel,
        PanelPredictor,
        Predictor,
    )
    from latentfactors.models.dfm import Block, DFMConfig, DynamicFactorModel
    from latentfactors.models.direct import (
        CrossSectionalOLSPredictor,
        CrossSectionalRidgePredictor,
        HistoricalMeanPredictor,
        RegressorPredictor,
        ZeroPredictor,
    )
    from latentfactors.models.factor_regression import FactorRegressionConfig, FactorRegressionModel
    from latentfactors.models.ipca import IPCAConfig, IPCAModel
    from latentfactors.models.observed import ObservedFactorConfig, ObservedFactorModel
    from latentfactors.models.pca import PCAConfig, PCAModel
    from latentfactors.models.rp_pca import RPPCAConfig, RPPCAModel
    from latentfactors.nowcast import (
        Nowcast,
        NowcastPredictor,
        ReleaseCalendar,
        SeriesBenchmark,
        SeriesBenchmarkConfig,
        VintageStore,
        composite_indicator,
        nowcast_news,
    )
    from latentfactors.panel import Panel
    from latentfactors.pipeline import LatentFactorForecastPipeline
    from latentfactors.results import (
        AssetForecastResult,
        AssetWeightsResult,
        FactorForecastResult,
        Prediction,
    )
    from latentfactors.rows import Attribute, SeriesInfo
    from latentfactors.splits import ExpandingWindow, RollingWindow, VintageSplits
    from latentfactors.state import FitSummary, LatentFactorState
    from latentfactors.track_record import WalkForwardResult
    from latentfactors.transforms import (
        annualised_rate,
        find_outliers,
        inverse_transform,
        transform_columns,
        transform_series,
        year_on_year,
    )
    from latentfactors.walkforward import walk_forward

_HOMES = {
    "datasets": ("french_frame", "french_sample"),
    "french": (
        "excess_panel",
        "french_sections",
        "read_french_csv",
        "read_french_factors",
        "read_french_risk_free",
    ),
    "fred": ("fred_panel", "read_fred_csv"),
    "fred_vintages": ("FredVintages", "mixed_frequency_panel"),
    "forecasters": (
        "AR1FactorForecaster",
        "EWMABaseFactorForecaster",
        "EWMAFactorForecaster",
        "ExpandingMeanFactorForecaster",
        "NativeFactorForecaster",
        "RollingMeanFactorForecaster",
        "VARFactorForecaster",
    ),
    "goyal_welch": ("equity_premium_panel", "read_goyal_welch"),
    "mappers": ("BetaLambdaMapper", "NativeMapper"),
    "model": ("AssetMapper", "FactorForecaster", "LatentFactorModel", "PanelPredictor", "Predictor"),
    "models.dfm": ("Block", "DFMConfig", "DynamicFactorModel"),
    "models.direct": (
        "CrossSectionalOLSPredictor",
        "CrossSectionalRidgePredictor",
        "HistoricalMeanPredictor",
        "RegressorPredictor",
        "ZeroPredictor",
    ),
    "models.factor_regression": ("FactorRegressionConfig", "FactorRegressionModel"),
    "models.ipca": ("IPCAConfig", "IPCAModel"),
    "models.observed": ("ObservedFactorConfig", "ObservedFactorModel"),
    "models.pca": ("PCAConfig", "PCAModel"),
    "models.rp_pca": ("RPPCAConfig", "RPPCAModel"),
    "nowcast": (
        "Nowcast",
        "NowcastPredictor",
        "ReleaseCalendar",
        "SeriesBenchmark",
        "SeriesBenchmarkConfig",
        "VintageStore",
        "composite_indicator",
        "nowcast_news",
    ),
    "panel": ("Panel",),
    "pipeline": ("LatentFactorForecastPipeline",),
    "rows": ("Attribute", "SeriesInfo"),
    "splits": ("ExpandingWindow", "RollingWindow", "VintageSplits"),
    "results": ("AssetForecastResult", "AssetWeightsResult", "FactorForecastResult", "Prediction"),
    "state": ("FitSummary", "LatentFactorState"),
    "track_record": ("WalkForwardResult",),
    "transforms": (
        "annualised_rate",
        "find_outliers",
        "inverse_transform",
        "transform_columns",
        "transform_series",
        "year_on_year",
    ),
    "walkforward": ("walk_forward",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
