"""Risk of any structural model's state: covariance, decomposition, attribution, stress, and their quality.

covariance      estimators of factor covariance and specific variance      what to do
model           `risk_model`: a covariance per period, from its past only  what is known
operator        `CovarianceOperator`: B, S, D without their N x N sum
decomposition   `decompose`: risk by factor, family, asset, active
attribution     `attribute_performance`: returns by factor, specific, remainder; linked over time
stress, tail    shocks to named factors; VaR and ES with contributions and backtests
quality         `risk_record`: bias statistic, QLIKE, Mahalanobis
skfolio         B, S, D as a prior for an optimiser (extra `portfolio`)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentfactors.risk.attribution import (
    LinkedAttribution,
    PerformanceAttribution,
    attribute_performance,
)
from latentfactors.risk.covariance import (
    EWMACovariance,
    NeweyWestCovariance,
    SampleCovariance,
    SpecificVariance,
    repair_covariance,
)
from latentfactors.risk.decomposition import RiskDecomposition, decompose
from latentfactors.risk.model import RiskConfig, RiskModel, RiskMoments, risk_model
from latentfactors.risk.operator import CovarianceOperator
from latentfactors.risk.quality import RiskRecord, bias_statistic, qlike, risk_record
from latentfactors.risk.stress import StressResult, duration_times_spread, stress_test
from latentfactors.risk.tail import (
    TailBacktest,
    TailRisk,
    backtest_tail,
    historical_tail_risk,
    normal_tail_risk,
)

if TYPE_CHECKING:
    from latentfactors.risk.skfolio import LatentFactorPrior, skfolio_factor_model, skfolio_prior

__all__ = [
    "CovarianceOperator",
    "EWMACovariance",
    "LatentFactorPrior",
    "LinkedAttribution",
    "NeweyWestCovariance",
    "PerformanceAttribution",
    "RiskConfig",
    "RiskDecomposition",
    "RiskModel",
    "RiskMoments",
    "RiskRecord",
    "SampleCovariance",
    "SpecificVariance",
    "StressResult",
    "TailBacktest",
    "TailRisk",
    "attribute_performance",
    "backtest_tail",
    "bias_statistic",
    "decompose",
    "duration_times_spread",
    "historical_tail_risk",
    "normal_tail_risk",
    "qlike",
    "repair_covariance",
    "risk_model",
    "risk_record",
    "skfolio_factor_model",
    "skfolio_prior",
    "stress_test",
]


def __getattr__(name: str) -> Any:
    """What needs skfolio loads when used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.skfolio"), name)
