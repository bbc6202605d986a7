"""The report: figures of results, and one self-contained HTML file of a run.

data       what a run leaves for its report, and how a run folder is read back
figures    a plotly figure from a library result, one public function each (extra `report`)
html       `write_report`: the page, with plotly.js inside and nothing to load (extra `report`)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentfactors.report.data import Coverage, Exposures, FactorBand, FitHistory
from latentfactors.report.folder import Run, read_run

if TYPE_CHECKING:
    from latentfactors.report.figures import (
        calibration_figure,
        coverage_figure,
        errors_figure,
        factors_figure,
        fits_figure,
        loadings_figure,
        long_short_figure,
    )
    from latentfactors.report.html import render_report, write_report
    from latentfactors.report.risk_figures import attribution_figure, group_loadings_figure, risk_figure

_RISK_FIGURES = ("attribution_figure", "group_loadings_figure", "risk_figure")

__all__ = [
    "Coverage",
    "Exposures",
    "FactorBand",
    "FitHistory",
    "Run",
    "attribution_figure",
    "calibration_figure",
    "coverage_figure",
    "errors_figure",
    "factors_figure",
    "fits_figure",
    "group_loadings_figure",
    "loadings_figure",
    "long_short_figure",
    "read_run",
    "render_report",
    "risk_figure",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Figures and page load when used: a run is written without plotly and jinja2."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "figures" if name.endswith("_figure") else "html"
    home = "risk_figures" if name in _RISK_FIGURES else home
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
