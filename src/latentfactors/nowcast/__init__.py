"""Nowcasting: what was published when, what it says about a target now, and what news changed it."""

from latentfactors.nowcast.audit import VintageAudit, audit_vintages
from latentfactors.nowcast.bootstrap import ParameterBootstrap, bootstrap_parameters
from latentfactors.nowcast.calendar import Release, ReleaseCalendar
from latentfactors.nowcast.estimate import Nowcast, nowcast
from latentfactors.nowcast.fans import LevelFan
from latentfactors.nowcast.indicator import CompositeIndicator, composite_indicator
from latentfactors.nowcast.news import NewsDecomposition, nowcast_news
from latentfactors.nowcast.predictors import NowcastPredictor, SeriesBenchmark, SeriesBenchmarkConfig
from latentfactors.nowcast.vintages import VintageStore

__all__ = [
    "CompositeIndicator",
    "LevelFan",
    "NewsDecomposition",
    "Nowcast",
    "NowcastPredictor",
    "ParameterBootstrap",
    "Release",
    "ReleaseCalendar",
    "SeriesBenchmark",
    "SeriesBenchmarkConfig",
    "VintageAudit",
    "VintageStore",
    "audit_vintages",
    "bootstrap_parameters",
    "composite_indicator",
    "nowcast",
    "nowcast_news",
]
