"""The page of a portfolio: its numbers are those of `risk`, users' names are escaped, nothing is loaded."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("plotly")

from latentfactors import CreditFactorConfig, CreditFactorModel, PCAConfig, PCAModel, report
from latentfactors.errors import PanelMismatchError, StoreError
from latentfactors.report.page import number
from latentfactors.risk import attribute_performance, decompose, risk_model
from latentfactors.simulate import credit_panel
from tests.report.test_html import Page

NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def case():
    """(state, panel, weights, benchmark) of a credit factor model whose tenors have hostile names."""
    panel = credit_panel(n_assets=120, n_periods=70, live=1, seed=3).panel
    tenor = panel.attributes["tenor"]
    hostile = replace(tenor, categories=(NASTY, *tenor.categories[1:]))
    panel = replace(panel, attributes={"rating": panel.attributes["rating"], "tenor": hostile})
    model = CreditFactorModel(CreditFactorConfig(tolerance=1e-4))
    model.fit(panel)
    live = panel.period(panel.n_periods - 1).assets.tolist()
    weights = dict.fromkeys(live[:20], 0.05)
    return model.extract(panel), panel, weights, dict.fromkeys(live, 1.0 / len(live))


def words(page):
    return " ".join(Page(page).text.split())


def test_sections_and_numbers(case, tmp_path):
    state, panel, weights, benchmark = case
    path = report.write_risk_report(tmp_path / "a.html", state, panel, weights, benchmark, title=NASTY)
    page = path.read_text(encoding="utf-8")
    parsed = Page(page)
    sections = [attrs["id"] for tag, attrs in parsed.tags if tag == "section"]
    assert sections == ["summary", "named-factors", "group-loadings", "attribution", "risk"]
    text = words(page)
    risk = decompose(risk_model(state, panel).latest(), weights, benchmark)
    linked = attribute_performance(state, panel, weights, benchmark).linked("family")
    expected = (risk.volatility, risk.specific, *risk.by_family.values(), linked.total, *linked.contributions)
    for value in expected:  # spread changes: no percent
        assert number(value, 1, 4 if value != linked.total else 2) in text
    assert list(risk.by_family) == ["market", "rating", "tenor"]
    assert "Tracking error" in text
    assert "Summed over 70 periods" in text
    assert "rotation" not in text
    figures = [json.loads(each) for each in re.findall(r'application/json">(.*?)</script>', page, re.S)]
    assert len(figures) == 1 + 2 + 2 + 2
    names = {line["name"] for line in figures[0]["data"]}
    assert "market" in names
    assert len(names) == len(report.risk_figures.shown_factors(state)) < len(state.factors.names)


def test_nothing_is_loaded_and_names_are_escaped(case):
    state, panel, weights, _ = case
    page = report.render_risk_report(state, panel, weights, title=NASTY)
    for tag, attrs in Page(page).tags:
        for key in ("src", "href", "data", "action", "srcset", "poster"):
            address = attrs.get(key)
            assert address is None or address.startswith(("#", "data:")), (tag, address)
    assert "default-src 'none'" in page
    assert "<script>alert" not in page
    assert page.count("alert(1)") > 3
    assert "Volatility" in words(page)


def test_a_latent_model_says_what_rotates_and_bad_input_is_refused(case, tmp_path):
    _, panel, weights, _ = case
    model = PCAModel(PCAConfig(n_factors=2))
    model.fit(panel)
    state = model.extract(panel)
    known = np.isfinite(state.measurement.loadings.at(panel.n_periods - 1)).all(axis=1)
    assets = panel.period(panel.n_periods - 1).assets[known].tolist()
    held = {asset: w for asset, w in weights.items() if asset in assets}
    text = words(report.render_risk_report(state, panel, held))
    assert "F1, F2 are known up to a rotation" in text
    with pytest.raises(StoreError, match="folder that exists"):
        report.write_risk_report(tmp_path / "no" / "a.html", state, panel, held)
    with pytest.raises(PanelMismatchError, match="nobody"):
        report.write_risk_report(tmp_path / "a.html", state, panel, {"nobody": 1.0})
    assert not list(tmp_path.iterdir())


def test_factors_added_up(case):
    state, *_ = case
    figure = report.named_factors_figure(state)
    first = figure.data[0]
    assert first.name == "market"
    np.testing.assert_allclose(first.y, np.cumsum(np.nan_to_num(state.factors.values[: state.n_realised, 0])))
    assert first.line.color != figure.data[2].line.color
