"""Figures of risk and attribution show the numbers of the results they are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("plotly")

from latentfactors import CreditFactorConfig, CreditFactorModel, report
from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.risk import attribute_performance, decompose
from latentfactors.rows import Attribute
from latentfactors.simulate import credit_panel
from tests.risk.small import random_operator, world


def test_waterfall():
    state, panel = world(seed=2)
    found = attribute_performance(state, panel, {"A00": 1.0, "A05": -0.5})
    (bars,) = report.attribution_figure(found).data
    linked = found.linked("family")
    assert list(bars.x) == [*linked.names, "total"]
    np.testing.assert_allclose(bars.y, 100 * np.append(linked.contributions, linked.total))
    assert bars.y[-1] == pytest.approx(sum(bars.y[:-1]))
    assert list(bars.measure)[-1] == "total"
    (plain,) = report.attribution_figure(found.linked("factor"), percent=False).data
    assert len(plain.y) == 6 + 3 + 1
    many = replace(
        linked, names=tuple(f"s={i}" for i in range(40)), contributions=np.linspace(-1, 2, 40), total=20.0
    )
    (short,) = report.attribution_figure(many, percent=False).data
    assert len(short.x) == 21
    assert sum(short.y[:-1]) == pytest.approx(20.0)


@pytest.mark.parametrize("by", ["factor", "family"])
def test_risk_bars(by):
    sigma, _ = random_operator()
    w = np.random.default_rng(0).normal(size=9)
    risk = decompose(sigma, w, np.full(9, 1 / 9))
    figure = report.risk_figure(risk, by=by)
    (bars,) = figure.data
    assert sum(bars.x) == pytest.approx(100 * risk.volatility)
    assert dict(zip(bars.y, bars.x, strict=True))["specific"] == pytest.approx(100 * risk.specific)
    assert list(bars.x) == sorted(bars.x)
    assert figure.layout.title.text.startswith("Tracking error")
    with pytest.raises(ConfigurationError, match="by must be"):
        report.risk_figure(risk, by="asset")


def test_group_loadings():
    state, panel = world(conditional=True, seed=1)
    (heat,) = report.group_loadings_figure(state, panel, "rating", period=panel.times[7]).data
    rows = range(panel.offsets[7], panel.offsets[8])
    codes = panel.attributes["rating"].codes
    b = state.measurement.loadings.rows()
    for j, name in enumerate("AB"):
        mine = [r for r in rows if codes[r] == j]
        assert heat.y[j] == name
        np.testing.assert_allclose(heat.z[j], b[mine].mean(axis=0))
        assert heat.customdata[j][0] == len(mine)
    last = report.group_loadings_figure(state, panel, "country")
    assert str(panel.times[-1]) in last.layout.title.text
    with pytest.raises(ConfigurationError, match="no attribute 'sector'"):
        report.group_loadings_figure(state, panel, "sector")
    assert list(heat.x) == list(state.factors.names)
    nobody = {**panel.attributes, "country": Attribute(np.full(12, -1), ("FR",))}
    with pytest.raises(InsufficientDataError, match="both a country"):
        report.group_loadings_figure(state, replace(panel, attributes=nobody), "country")


def test_group_loadings_of_many_factors_show_the_market_and_the_group_s_own():
    panel = credit_panel(n_assets=150, n_periods=60, live=1, seed=1).panel
    model = CreditFactorModel(CreditFactorConfig(tolerance=1e-3))
    model.fit(panel)
    state = model.extract(panel)
    figure = report.group_loadings_figure(state, panel, "tenor")
    (heat,) = figure.data
    own = [name for name in state.factors.names if name.startswith("tenor=")]
    assert len(state.factors.names) > 16 > len(own)
    assert list(heat.x) == ["market", *(name.removeprefix("tenor=") for name in own)]
    codes = panel.attributes["tenor"].codes[panel.asset_codes]
    last = range(panel.offsets[-2], panel.offsets[-1])
    b = state.measurement.loadings.rows()
    for label, line in zip(heat.y, heat.z, strict=True):
        code = panel.attributes["tenor"].categories.index(label)
        mine = [r for r in last if codes[r] == code and np.isfinite(b[r]).all()]
        wanted = [b[mine][:, state.factors.names.index(name)].mean() for name in ("market", *own)]
        np.testing.assert_allclose(line, wanted)
    # an attribute that the model does not use: the factors that tell its categories apart
    latent = CreditFactorModel(CreditFactorConfig(attributes=("country",), tolerance=1e-3))
    latent.fit(panel)
    (heat,) = report.group_loadings_figure(latent.extract(panel), panel, "tenor").data
    assert len(heat.x) <= 16
