"""The report: figures of results, and one self-contained HTML file of a run.

data              what a run leaves for its report
folder            how a run folder is read back, and audits put beside it
figures           a plotly figure from a library result, one public function each (extra `report`)
comparison_figures   R2 bars and the tests of all pairs (extra `report`)
factor_figures    how many factors, their paths with bands, weights of an index, grids of R² (extra `report`)
pricing           the numbers of the pricing sections
pricing_figures   their figures (extra `report`)
page              what all pages share (extra `report`)
html              `write_report`: the page, with plotly.js inside and nothing to load (extra `report`)
risk_figures      figures of risk and attribution (extra `report`)
risk_page         `write_risk_report`: a portfolio's named factors, attribution and risk (extra `report`)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentfactors.report.data import Coverage, Exposures, FactorBand, FitHistory
from latentfactors.report.folder import Run, read_run, write_certificates

if TYPE_CHECKING:
    from latentfactors.report.comparison_figures import diebold_mariano_figure, r2_figure
    from latentfactors.report.factor_figures import (
        factor_bands_figure,
        r_squared_heat_map,
        scree_figure,
        weights_figure,
    )
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
    from latentfactors.report.pricing_figures import alphas_figure, correlations_figure, tangency_figure
    from latentfactors.report.risk_figures import (
        attribution_figure,
        group_loadings_figure,
        named_factors_figure,
        risk_figure,
    )
    from latentfactors.report.risk_page import render_risk_report, write_risk_report

# What has a module of its own; other figures are in `figures`, other functions in `html`.
_HOMES = {
    "alphas_figure": "pricing_figures",
    "attribution_figure": "risk_figures",
    "correlations_figure": "pricing_figures",
    "diebold_mariano_figure": "comparison_figures",
    "group_loadings_figure": "risk_figures",
    "named_factors_figure": "risk_figures",
    "r2_figure": "comparison_figures",
    "factor_bands_figure": "factor_figures",
    "r_squared_heat_map": "factor_figures",
    "render_risk_report": "risk_page",
    "risk_figure": "risk_figures",
    "scree_figure": "factor_figures",
    "tangency_figure": "pricing_figures",
    "weights_figure": "factor_figures",
    "write_risk_report": "risk_page",
}

__all__ = [
    "Coverage",
    "Exposures",
    "FactorBand",
    "FitHistory",
    "Run",
    "attribution_figure",
    "alphas_figure",
    "calibration_figure",
    "correlations_figure",
    "coverage_figure",
    "diebold_mariano_figure",
    "errors_figure",
    "factor_bands_figure",
    "factors_figure",
    "fits_figure",
    "group_loadings_figure",
    "loadings_figure",
    "long_short_figure",
    "named_factors_figure",
    "r2_figure",
    "r_squared_heat_map",
    "read_run",
    "render_report",
    "render_risk_report",
    "risk_figure",
    "scree_figure",
    "tangency_figure",
    "weights_figure",
    "write_certificates",
    "write_report",
    "write_risk_report",
]


def __getattr__(name: str) -> Any:
    """Figures and page load when used: a run is written without plotly and jinja2."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "figures" if name.endswith("_figure") else "html")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
