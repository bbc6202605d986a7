"""Latent factor models of finance and macroeconomics under one flow.

    Panel -> model -> LatentFactorState -> forecaster -> FactorForecastResult -> mapper -> AssetForecastResult

Names below load when first used, so `import latentfactors` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentfactors._version import __version__

if TYPE_CHECKING:
    from latentfactors.characteristics import (
        RETURN_CHARACTERISTICS,
        ReturnWindows,
        characteristics_from_returns,
    )
    from latentfactors.datasets import french_frame, french_sample
    from latentfactors.dynamic.periods import VarianceBreak
    from latentfactors.dynamic.series import Block
    from latentfactors.evaluate import (
        AuditCertificate,
        AuditTrial,
        Comparison,
        FactorSpaceComparison,
        FamaMacBeth,
        GRSResult,
        HJDistance,
        LoadingPortfolios,
        LoadingProfiles,
        MacroCorrelations,
        MaximalSharpe,
        PortfolioSort,
        PricedAssets,
        PureAlpha,
        RawColumns,
        SearchResult,
        SelectedPredictor,
        SelectionConfig,
        SharpeComparison,
        SpanningTest,
        TangencyPath,
        TwoPass,
        anomaly_table,
        audit,
        characteristic_premia,
        compare,
        compare_factor_spaces,
        compare_sharpe,
        config_grid,
        default_models,
        fama_macbeth,
        grs_test,
        hj_distance,
        loading_profiles,
        macro_correlations,
        managed_portfolio_r2,
        maximal_sharpe,
        metrics_table,
        performance,
        predictions_table,
        price_anomalies,
        price_assets,
        pricing_table,
        pure_alpha,
        search,
        sort_on_loadings,
        sort_portfolios,
        spanning_test,
        tangency_path,
        tangency_weights,
        two_pass,
        weights_table,
    )
    from latentfactors.forecasters import (
        AR1FactorForecaster,
        EWMABaseFactorForecaster,
        EWMAFactorForecaster,
        ExpandingMeanFactorForecaster,
        NativeFactorForecaster,
        RollingMeanFactorForecaster,
        VARFactorForecaster,
    )
    from latentfactors.jobs import Job, JobResult, parse_job, read_job, run_job, write_job
    from latentfactors.mappers import BetaLambdaMapper, NativeMapper
    from latentfactors.model import (
        AssetMapper,
        FactorForecaster,
        LatentFactorModel,
        PanelPredictor,
        Predictor,
    )
    from latentfactors.models.autoregressive import AutoregressivePredictor
    from latentfactors.models.boosted_trees import GradientBoostingPredictor
    from latentfactors.models.cae import CAEConfig, CAEModel
    from latentfactors.models.credit_factor import CreditFactorConfig, CreditFactorModel
    from latentfactors.models.d2fm import D2FMConfig, D2FMModel
    from latentfactors.models.dfm import DFMConfig, DynamicFactorModel
    from latentfactors.models.direct import (
        CrossSectionalOLSPredictor,
        CrossSectionalRidgePredictor,
        HistoricalMeanPredictor,
        RegressorPredictor,
        ZeroPredictor,
    )
    from latentfactors.models.factor_regression import FactorRegressionConfig, FactorRegressionModel
    from latentfactors.models.graph_factor import GraphFactorConfig, GraphFactorModel
    from latentfactors.models.ipca import IPCAConfig, IPCAModel
    from latentfactors.models.neural_network import NeuralNetworkPredictor
    from latentfactors.models.neuralforecast import NeuralForecastPredictor
    from latentfactors.models.neurif import NeurIFConfig, NeurIFModel
    from latentfactors.models.observed import ObservedFactorConfig, ObservedFactorModel
    from latentfactors.models.pca import PCAConfig, PCAModel
    from latentfactors.models.ptfa import PTFAConfig, PTFAModel
    from latentfactors.models.rp_pca import RPPCAConfig, RPPCAModel
    from latentfactors.neural import TrainingConfig, watch
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
    from latentfactors.options import EWMA, VAR, Bootstrap
    from latentfactors.panel import Panel
    from latentfactors.pipeline import LatentFactorForecastPipeline
    from latentfactors.prepare import (
        add_constant,
        fill_missing,
        neutralise,
        rank_standardise,
        winsorise,
        zscore,
    )
    from latentfactors.readers.factor_files import read_liquidity_factors, read_q_factors
    from latentfactors.readers.fred import fred_panel, read_fred_csv
    from latentfactors.readers.fred_vintages import FredVintages, mixed_frequency_panel
    from latentfactors.readers.french import (
        excess_panel,
        french_sections,
        read_french_csv,
        read_french_factors,
        read_french_risk_free,
    )
    from latentfactors.readers.french_panel import FRENCH_SORTS, french_characteristic_panel, momentum_spread
    from latentfactors.readers.goyal_welch import equity_premium_panel, read_goyal_welch
    from latentfactors.report import (
        Run,
        alphas_figure,
        calibration_figure,
        correlations_figure,
        coverage_figure,
        errors_figure,
        factors_figure,
        fits_figure,
        learned_factors_figure,
        loading_portfolios_figure,
        loading_profiles_figure,
        loadings_figure,
        long_short_figure,
        macro_correlations_figure,
        read_run,
        render_report,
        tangency_figure,
        write_certificates,
        write_report,
    )
    from latentfactors.results import (
        AssetForecastResult,
        AssetWeightsResult,
        FactorForecastResult,
        Prediction,
    )
    from latentfactors.risk import RiskConfig, RiskModel, attribute_performance, decompose, risk_model
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
    "characteristics": (
        "RETURN_CHARACTERISTICS",
        "ReturnWindows",
        "characteristics_from_returns",
    ),
    "datasets": (
        "french_frame",
        "french_sample",
    ),
    "dynamic.periods": ("VarianceBreak",),
    "dynamic.series": ("Block",),
    "evaluate": (
        "AuditCertificate",
        "AuditTrial",
        "Comparison",
        "FactorSpaceComparison",
        "FamaMacBeth",
        "GRSResult",
        "HJDistance",
        "LoadingPortfolios",
        "LoadingProfiles",
        "MacroCorrelations",
        "MaximalSharpe",
        "PortfolioSort",
        "PricedAssets",
        "PureAlpha",
        "RawColumns",
        "SharpeComparison",
        "SpanningTest",
        "SearchResult",
        "SelectedPredictor",
        "SelectionConfig",
        "TangencyPath",
        "TwoPass",
        "anomaly_table",
        "audit",
        "characteristic_premia",
        "compare_factor_spaces",
        "compare_sharpe",
        "fama_macbeth",
        "compare",
        "default_models",
        "config_grid",
        "grs_test",
        "hj_distance",
        "loading_profiles",
        "macro_correlations",
        "managed_portfolio_r2",
        "maximal_sharpe",
        "metrics_table",
        "performance",
        "predictions_table",
        "price_anomalies",
        "price_assets",
        "pricing_table",
        "pure_alpha",
        "sort_on_loadings",
        "search",
        "sort_portfolios",
        "spanning_test",
        "tangency_path",
        "tangency_weights",
        "two_pass",
        "weights_table",
    ),
    "readers.factor_files": (
        "read_liquidity_factors",
        "read_q_factors",
    ),
    "forecasters": (
        "AR1FactorForecaster",
        "EWMABaseFactorForecaster",
        "EWMAFactorForecaster",
        "ExpandingMeanFactorForecaster",
        "NativeFactorForecaster",
        "RollingMeanFactorForecaster",
        "VARFactorForecaster",
    ),
    "readers.fred": (
        "fred_panel",
        "read_fred_csv",
    ),
    "readers.fred_vintages": (
        "FredVintages",
        "mixed_frequency_panel",
    ),
    "readers.french": (
        "excess_panel",
        "french_sections",
        "read_french_csv",
        "read_french_factors",
        "read_french_risk_free",
    ),
    "readers.french_panel": (
        "FRENCH_SORTS",
        "french_characteristic_panel",
        "momentum_spread",
    ),
    "readers.goyal_welch": (
        "equity_premium_panel",
        "read_goyal_welch",
    ),
    "jobs": (
        "Job",
        "JobResult",
        "parse_job",
        "read_job",
        "run_job",
        "write_job",
    ),
    "mappers": (
        "BetaLambdaMapper",
        "NativeMapper",
    ),
    "model": (
        "AssetMapper",
        "FactorForecaster",
        "LatentFactorModel",
        "PanelPredictor",
        "Predictor",
    ),
    "models.autoregressive": ("AutoregressivePredictor",),
    "models.cae": (
        "CAEConfig",
        "CAEModel",
    ),
    "models.credit_factor": (
        "CreditFactorConfig",
        "CreditFactorModel",
    ),
    "models.d2fm": (
        "D2FMConfig",
        "D2FMModel",
    ),
    "models.dfm": (
        "DFMConfig",
        "DynamicFactorModel",
    ),
    "models.direct": (
        "CrossSectionalOLSPredictor",
        "CrossSectionalRidgePredictor",
        "HistoricalMeanPredictor",
        "RegressorPredictor",
        "ZeroPredictor",
    ),
    "models.factor_regression": (
        "FactorRegressionConfig",
        "FactorRegressionModel",
    ),
    "models.graph_factor": (
        "GraphFactorConfig",
        "GraphFactorModel",
    ),
    "models.ipca": (
        "IPCAConfig",
        "IPCAModel",
    ),
    "models.boosted_trees": ("GradientBoostingPredictor",),
    "models.neural_network": ("NeuralNetworkPredictor",),
    "models.neuralforecast": ("NeuralForecastPredictor",),
    "models.neurif": (
        "NeurIFConfig",
        "NeurIFModel",
    ),
    "models.observed": (
        "ObservedFactorConfig",
        "ObservedFactorModel",
    ),
    "models.pca": (
        "PCAConfig",
        "PCAModel",
    ),
    "models.ptfa": (
        "PTFAConfig",
        "PTFAModel",
    ),
    "models.rp_pca": (
        "RPPCAConfig",
        "RPPCAModel",
    ),
    "neural": (
        "TrainingConfig",
        "watch",
    ),
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
    "options": (
        "Bootstrap",
        "EWMA",
        "VAR",
    ),
    "panel": ("Panel",),
    "pipeline": ("LatentFactorForecastPipeline",),
    "prepare": (
        "add_constant",
        "fill_missing",
        "neutralise",
        "rank_standardise",
        "winsorise",
        "zscore",
    ),
    "report": (
        "Run",
        "alphas_figure",
        "calibration_figure",
        "correlations_figure",
        "coverage_figure",
        "errors_figure",
        "factors_figure",
        "fits_figure",
        "learned_factors_figure",
        "loading_portfolios_figure",
        "loading_profiles_figure",
        "loadings_figure",
        "long_short_figure",
        "macro_correlations_figure",
        "read_run",
        "render_report",
        "tangency_figure",
        "write_certificates",
        "write_report",
    ),
    "results": (
        "AssetForecastResult",
        "AssetWeightsResult",
        "FactorForecastResult",
        "Prediction",
    ),
    "risk": (
        "RiskConfig",
        "RiskModel",
        "attribute_performance",
        "decompose",
        "risk_model",
    ),
    "rows": (
        "Attribute",
        "SeriesInfo",
    ),
    "splits": (
        "ExpandingWindow",
        "RollingWindow",
        "VintageSplits",
    ),
    "state": (
        "FitSummary",
        "LatentFactorState",
    ),
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
