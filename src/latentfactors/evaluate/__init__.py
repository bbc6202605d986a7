"""Judgement: what forecasts are worth, predictors side by side."""

from latentfactors.evaluate.ablation import ablate, ablations, published_periods
from latentfactors.evaluate.anomalies import anomaly_table, price_anomalies
from latentfactors.evaluate.audit import AuditCertificate, AuditTrial, audit
from latentfactors.evaluate.comparison import (
    CommonCells,
    Comparison,
    DieboldMarianoTable,
    diebold_mariano_table,
)
from latentfactors.evaluate.conditional import PureAlpha, managed_portfolio_r2, pure_alpha
from latentfactors.evaluate.contenders import Contenders, default_models
from latentfactors.evaluate.density_tests import (
    CoverageTests,
    DensityEvaluation,
    density_evaluation,
    interval_tests,
)
from latentfactors.evaluate.factor_links import (
    LoadingProfiles,
    MacroCorrelations,
    loading_profiles,
    macro_correlations,
)
from latentfactors.evaluate.factor_spaces import FactorSpaceComparison, compare_factor_spaces
from latentfactors.evaluate.forecast_sets import (
    ConfidenceSet,
    model_confidence_set,
    superior_predictive_ability,
)
from latentfactors.evaluate.forecast_tests import (
    EqualAccuracyTest,
    clark_west,
    diebold_mariano,
    giacomini_white,
)
from latentfactors.evaluate.futures import RawColumns
from latentfactors.evaluate.hj_distance import HJDistance, hj_distance
from latentfactors.evaluate.loading_portfolios import LoadingPortfolios, sort_on_loadings
from latentfactors.evaluate.n_factors import (
    FactorCounts,
    InformationCriterion,
    choose_by_bic,
    fill_by_factors,
    number_of_factors,
)
from latentfactors.evaluate.nowcasts import (
    NowcastRecord,
    nowcast_record,
    nowcast_records,
    nowcast_table,
    released_tables,
    released_values,
)
from latentfactors.evaluate.portfolios import PortfolioSort, sort_portfolios
from latentfactors.evaluate.priced_assets import PricedAssets, price_assets, pricing_table
from latentfactors.evaluate.pricing_tests import (
    GRSResult,
    MaximalSharpe,
    grs_test,
    maximal_sharpe,
    performance,
    tangency_weights,
)
from latentfactors.evaluate.risk_premia import FamaMacBeth, characteristic_premia, fama_macbeth
from latentfactors.evaluate.search import SearchResult, config_grid, search
from latentfactors.evaluate.selected import SelectedPredictor, SelectionConfig
from latentfactors.evaluate.series_nowcasts import series_nowcast_summary, series_nowcast_table
from latentfactors.evaluate.sharpe_comparison import SharpeComparison, compare_sharpe
from latentfactors.evaluate.side_by_side import compare
from latentfactors.evaluate.spanning import SpanningTest, spanning_test
from latentfactors.evaluate.tables import metrics_table, predictions_table, weights_table
from latentfactors.evaluate.tangency import TangencyPath, tangency_path
from latentfactors.evaluate.two_pass_premia import TwoPass, two_pass

__all__ = [
    "AuditCertificate",
    "AuditTrial",
    "CommonCells",
    "Comparison",
    "ConfidenceSet",
    "Contenders",
    "CoverageTests",
    "DensityEvaluation",
    "DieboldMarianoTable",
    "EqualAccuracyTest",
    "FactorCounts",
    "FactorSpaceComparison",
    "FamaMacBeth",
    "GRSResult",
    "HJDistance",
    "InformationCriterion",
    "LoadingPortfolios",
    "LoadingProfiles",
    "MacroCorrelations",
    "MaximalSharpe",
    "NowcastRecord",
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
    "ablate",
    "ablations",
    "TwoPass",
    "anomaly_table",
    "audit",
    "characteristic_premia",
    "choose_by_bic",
    "clark_west",
    "compare_factor_spaces",
    "compare_sharpe",
    "compare",
    "default_models",
    "config_grid",
    "density_evaluation",
    "fama_macbeth",
    "diebold_mariano",
    "diebold_mariano_table",
    "fill_by_factors",
    "giacomini_white",
    "grs_test",
    "hj_distance",
    "managed_portfolio_r2",
    "interval_tests",
    "loading_profiles",
    "macro_correlations",
    "maximal_sharpe",
    "metrics_table",
    "model_confidence_set",
    "nowcast_record",
    "nowcast_records",
    "nowcast_table",
    "number_of_factors",
    "performance",
    "predictions_table",
    "price_anomalies",
    "price_assets",
    "pricing_table",
    "pure_alpha",
    "published_periods",
    "released_tables",
    "released_values",
    "sort_on_loadings",
    "search",
    "series_nowcast_summary",
    "series_nowcast_table",
    "sort_portfolios",
    "spanning_test",
    "tangency_path",
    "tangency_weights",
    "two_pass",
    "superior_predictive_ability",
    "weights_table",
]
