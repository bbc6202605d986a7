"""Judgement: what forecasts are worth, predictors side by side."""

from latentfactors.evaluate.audit import AuditCertificate, AuditTrial, audit
from latentfactors.evaluate.conditional import PureAlpha, managed_portfolio_r2, pure_alpha
from latentfactors.evaluate.factor_spaces import FactorSpaceComparison, compare_factor_spaces
from latentfactors.evaluate.futures import RawColumns
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
from latentfactors.evaluate.tables import metrics_table, predictions_table, weights_table
from latentfactors.evaluate.tangency import TangencyPath, tangency_path

__all__ = [
    "AuditCertificate",
    "AuditTrial",
    "FactorSpaceComparison",
    "GRSResult",
    "MaximalSharpe",
    "PortfolioSort",
    "PricedAssets",
    "PureAlpha",
    "RawColumns",
    "TangencyPath",
    "audit",
    "compare_factor_spaces",
    "grs_test",
    "managed_portfolio_r2",
    "maximal_sharpe",
    "metrics_table",
    "performance",
    "predictions_table",
    "price_assets",
    "pricing_table",
    "pure_alpha",
    "sort_portfolios",
    "tangency_path",
    "tangency_weights",
    "weights_table",
]
