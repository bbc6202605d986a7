"""One HTML file of a portfolio under a fitted model: named factors, group loadings, attribution, risk.

Made for models whose factors have names such as `country=FR`, whose families are then the attributes; a
latent model's page says what depends on its rotation. Like the report of a run, the page loads nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from latentfactors.errors import InsufficientDataError, StoreError
from latentfactors.frames import write_atomically
from latentfactors.panel import Panel
from latentfactors.report.page import drawn, number, render
from latentfactors.report.risk_figures import (
    attribution_figure,
    group_loadings_figure,
    named_factors_figure,
    risk_figure,
    shown_factors,
)
from latentfactors.risk import (
    LinkedAttribution,
    RiskConfig,
    RiskDecomposition,
    attribute_performance,
    decompose,
    risk_model,
)
from latentfactors.risk.portfolios import Weights
from latentfactors.state import LatentFactorState

__all__ = ["render_risk_report", "write_risk_report"]

Line = tuple[str, list[str]]


def write_risk_report(
    path: str | Path,
    state: LatentFactorState,
    panel: Panel,
    weights: Weights,
    benchmark: Weights | None = None,
    *,
    config: RiskConfig | None = None,
    title: str = "Risk and attribution",
) -> Path:
    """Write the page of a portfolio.

    Parameters
    ----------
    path
        The file, in a folder that exists. Replaced whole or not at all.
    state, panel
        From any model's `extract`, and the panel it was extracted from.
    weights
        Asset -> weight, or (N,) in the order of the state's assets: held through all periods.
    benchmark
        Likewise; risk and returns are then those of the difference.
    config
        Estimators of the covariance; None: those of `risk_model`.
    title
        Heading.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StoreError
        A file that cannot be written.
    PanelMismatchError, ConfigurationError, InsufficientDataError
        As `risk_model`, `decompose` and `attribute_performance`.

    Examples
    --------
    >>> import tempfile
    >>> from latentfactors import CreditFactorConfig, CreditFactorModel
    >>> from latentfactors.simulate import credit_panel
    >>> panel = credit_panel(n_assets=100, n_periods=60, live=1, seed=1).panel
    >>> model = CreditFactorModel(CreditFactorConfig(attributes=("tenor",), tolerance=1e-4))
    >>> _ = model.fit(panel)
    >>> state, last = model.extract(panel), panel.period(panel.n_periods - 1)
    >>> held = dict.fromkeys(last.assets.tolist(), 0.01)
    >>> write_risk_report(Path(tempfile.mkdtemp()) / "risk.html", state, panel, held).name
    'risk.html'
    """
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise StoreError(f"{str(path)!r} cannot be written: expected a file in a folder that exists")
    page = render_risk_report(state, panel, weights, benchmark, config=config, title=title)
    write_atomically(path, page.encode())
    return path


def render_risk_report(
    state: LatentFactorState,
    panel: Panel,
    weights: Weights,
    benchmark: Weights | None = None,
    *,
    config: RiskConfig | None = None,
    title: str = "Risk and attribution",
) -> str:
    """The page as text; parameters and errors are those of `write_risk_report`."""
    sigma = risk_model(state, panel, config).latest()
    risk = decompose(sigma, weights, benchmark)
    earned = attribute_performance(state, panel, weights, benchmark)
    linked = earned.linked("family")
    percent = panel.value_kind in ("return", "excess_return")
    active = benchmark is not None
    remarks = dict.fromkeys((*risk.remarks, *earned.remarks))
    linking = (
        f"Linked over {linked.n_periods} periods by Carino's method: parts add up to the compounded return."
        if linked.method == "carino"
        else f"Summed over {linked.n_periods} periods: values that are not returns do not compound."
    )
    waterfalls = [attribution_figure(linked, percent=percent)]
    risks = [risk_figure(risk, percent=percent)]
    if len(set(risk.factor_families)) < len(risk.factor_names):
        waterfalls.append(attribution_figure(earned, by="factor", percent=percent))
        risks.append(risk_figure(risk, by="factor", percent=percent))
    return render(
        "risk.html.j2",
        title=title,
        kind="Tracking error" if active else "Volatility",
        active=active,
        n_held=f"{np.count_nonzero(risk.weights):,}",
        when=str(risk.time) if risk.time is not None else "the next period",
        origin=str(risk.origin),
        facts=_facts(risk, linked, percent),
        remarks=list(remarks),
        factors=drawn(named_factors_figure(state)),
        n_factors=len(state.factors.names),
        n_shown=len(shown_factors(state)),
        loadings=_group_loadings(state, panel),
        linking=linking,
        earned=_parts(linked.names, linked.contributions, linked.total, percent),
        waterfalls=[drawn(each) for each in waterfalls],
        by_family=_parts(
            (*risk.by_family, "specific"),
            np.array([*risk.by_family.values(), risk.specific]),
            risk.volatility,
            percent,
        ),
        by_factor=_factor_lines(risk, percent),
        risks=[drawn(each) for each in risks],
    )


# ------------------------------------------------------------------------------------ sections


def _facts(risk: RiskDecomposition, linked: LinkedAttribution, percent: bool) -> list[tuple[str, str]]:
    unit, end = (100, "%") if percent else (1, "")
    whole = "volatility" if risk.beta is None else "tracking error"
    facts = [
        (f"{whole} per period", number(risk.volatility, unit, 4, end)),
        ("systematic share of variance", number(risk.systematic_share, 100, 1, "%")),
        ("return" if risk.beta is None else "active return", number(linked.total, unit, 2, end)),
        ("factors", f"{len(risk.factor_names)} in {len(set(risk.factor_families))} families"),
    ]
    if risk.beta is not None:
        facts.append(("beta", number(risk.beta, 1, 3)))
    return facts


def _parts(names: tuple[str, ...], parts: Any, total: float, percent: bool) -> list[Line]:
    """Name, contribution and share of the total; the total last."""
    unit, end = (100, "%") if percent else (1, "")
    lines = []
    for name, part in zip((*names, "total"), (*parts, total), strict=True):
        share = part / total if total else float("nan")
        lines.append((name, [number(part, unit, 4, end), number(share, 100, 1, "%")]))
    return lines


def _factor_lines(risk: RiskDecomposition, percent: bool) -> list[Line]:
    unit, end = (100, "%") if percent else (1, "")
    lines = []
    for row in risk.frame("factor").to_dicts():
        cells = [row["family"], number(row["exposure"], 1, 3), number(row["volatility"], unit, 4, end)]
        cells += [number(row["contribution"], unit, 4, end), number(row["share"], 100, 1, "%")]
        lines.append((row["factor"], cells))
    return lines


def _group_loadings(state: LatentFactorState, panel: Panel) -> list[dict[str, Any]]:
    figures = []
    for name in panel.attributes:
        try:
            figures.append(drawn(group_loadings_figure(state, panel, name)))
        except InsufficientDataError:
            continue  # nobody in the last period has this attribute
    return figures
