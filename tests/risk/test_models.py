"""Risk of every kind of structural model: latent and observed, static and conditional, centred and scaled.

A new model joins by one line; what it states about rows, units and gaps is what is tested here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    CreditFactorConfig,
    CreditFactorModel,
    GraphFactorConfig,
    GraphFactorModel,
    IPCAConfig,
    IPCAModel,
    ObservedFactorConfig,
    ObservedFactorModel,
    PCAConfig,
    PCAModel,
    RPPCAConfig,
    RPPCAModel,
)
from latentfactors.risk import (
    EWMACovariance,
    RiskConfig,
    SpecificVariance,
    attribute_performance,
    decompose,
    historical_tail_risk,
    risk_model,
    risk_record,
)
from tests.contracts.doubles import StateSpaceDouble
from tests.contracts.panels import contract_panel
from tests.risk.small import dense_parts

MODELS = {
    "PCA": lambda: PCAModel(PCAConfig(n_factors=2, alpha=True)),
    "PPCA": lambda: PCAModel(PCAConfig(n_factors=2, probabilistic=True)),
    "RP-PCA": lambda: RPPCAModel(RPPCAConfig(n_factors=2)),
    "IPCA": lambda: IPCAModel(IPCAConfig(n_factors=2)),
    "IPCA with observed": lambda: IPCAModel(IPCAConfig(n_factors=1, observed=("mkt",))),
    "observed": lambda: ObservedFactorModel(ObservedFactorConfig(factors=("mkt", "smb"))),
    "observed, rolling": lambda: ObservedFactorModel(ObservedFactorConfig(factors=("mkt", "smb"), window=24)),
    "state space": StateSpaceDouble,
    "graph factors": lambda: GraphFactorModel(GraphFactorConfig(attributes=("sector",))),
    "credit factors": lambda: CreditFactorModel(CreditFactorConfig(attributes=("sector",))),
    "credit factors, ratings migrate": lambda: CreditFactorModel(CreditFactorConfig()),
}


@pytest.mark.parametrize("name", MODELS)
def test_risk_and_attribution_of_every_model(name):
    panel = contract_panel()
    model = MODELS[name]()
    model.fit(panel.until(panel.times[45]))
    state = model.extract(panel)
    config = RiskConfig(
        factors=EWMACovariance(variance_half_life=12.0),
        specific=SpecificVariance(group="sector"),
        min_periods=12,
    )
    risk = risk_model(state, panel, config)
    live = panel.times[-1]
    sigma = risk.at(live)
    # a slow twin of the covariance, from the state alone
    values, residuals, loadings = dense_parts(state, panel)
    here = np.flatnonzero(np.isfinite(loadings[-1]).all(axis=1))
    np.testing.assert_array_equal(sigma.assets, panel.assets[here])
    f = state.factors.values[: state.n_realised]
    f = f[np.isfinite(f).all(axis=1)]
    weight = 0.5 ** (np.arange(len(f))[::-1] / 12.0)
    if len(f) == state.n_realised:
        wanted = (f * weight[:, None]).T @ f / weight.sum()
        np.testing.assert_allclose(sigma.factor_covariance, wanted, rtol=1e-10)
    sector = panel.attributes["sector"].codes[here]
    shares = np.ones(residuals.shape)
    if state.measurement.residual_share is not None:
        shares[panel.index.period_codes, panel.asset_codes] = state.measurement.residual_share
    q, seen = np.nansum(residuals[:-1, here] ** 2, axis=0), np.isfinite(residuals[:-1, here])
    n = np.where(seen, shares[:-1, here], 0.0).sum(axis=0)
    g = np.array([q[sector == each].sum() / n[sector == each].sum() for each in sector])
    d = state.measurement.scale[here] ** 2 * (q + 10 * g) / (n + 10)
    np.testing.assert_allclose(sigma.specific_variance, d, rtol=1e-10)
    dense = loadings[-1, here] @ sigma.factor_covariance @ loadings[-1, here].T + np.diag(d)
    w = np.full(len(here), 1.0 / len(here))
    held = dict(zip(sigma.assets.tolist(), w.tolist(), strict=True))
    parts = decompose(sigma, held)
    assert parts.volatility == pytest.approx(np.sqrt(w @ dense @ w), rel=1e-10)
    np.testing.assert_allclose(parts.by_asset, w * (dense @ w) / parts.volatility, rtol=1e-9)
    rotated = ("PCA", "PPCA", "RP-PCA", "IPCA", "state space")
    assert any("rotation" in each for each in parts.remarks) == (name in rotated)

    found = attribute_performance(state, panel, held)
    weights = np.zeros(panel.n_assets)
    weights[here] = w
    np.testing.assert_allclose(found.returns, np.nansum(values[:-1] * weights, axis=1), atol=1e-14)
    np.testing.assert_allclose(found.parts()[1].sum(axis=1), found.returns, atol=1e-14)
    known = np.isfinite(residuals[:-1])
    specific = np.where(known, residuals[:-1], 0.0) @ (weights * state.measurement.scale)
    np.testing.assert_allclose(found.specific, specific, rtol=1e-9, atol=1e-13)

    record = risk_record(risk)
    assert np.isfinite(record.distance).all()
    assert 0.3 < record.frame()["bias"][0] < 3.0
    assert record.in_sample.sum() < len(record.times)


@pytest.mark.parametrize("kind", [CreditFactorModel, GraphFactorModel])
def test_risk_and_performance_by_attribute(kind):
    """Names say the family: contributions of `sector=...` add up asset by asset."""
    panel = contract_panel()
    config = CreditFactorConfig if kind is CreditFactorModel else GraphFactorConfig
    model = kind(config(attributes=("sector",)))
    model.fit(panel.until(panel.times[45]))
    state = model.extract(panel)
    sigma = risk_model(state, panel).latest()
    rng = np.random.default_rng(0)
    held = dict(zip(sigma.assets.tolist(), rng.normal(size=len(sigma.assets)), strict=True))
    benchmark = dict.fromkeys(sigma.assets.tolist(), 1.0 / len(sigma.assets))
    parts = decompose(sigma, held, benchmark)
    assert parts.factor_names[0] == "market"
    assert list(parts.by_family) == ["market", "sector"]
    assert not any("rotation" in each for each in parts.remarks)
    w = np.array(list(held.values())) - np.array(list(benchmark.values()))
    in_sector = np.array([name.startswith("sector=") for name in state.factors.names])
    slope = sigma.dense() @ w / parts.volatility - sigma.specific_variance * w / parts.volatility
    own = np.where(in_sector, sigma.loadings, 0.0)
    through = sigma.factor_covariance @ (sigma.loadings.T @ w) / parts.volatility
    assert parts.by_family["sector"] == pytest.approx(float(w @ own @ through), rel=1e-9)
    assert sum(parts.by_family.values()) == pytest.approx(float(w @ slope), rel=1e-9)

    found = attribute_performance(state, panel, held, benchmark)
    names, earned = found.by_family()
    assert names == ("market", "sector")
    weight = dict(zip(sigma.assets.tolist(), w, strict=True))
    for p in (3, 30, 50):
        rows = range(panel.offsets[p], panel.offsets[p + 1])
        loadings, factors = state.measurement.loadings.at(p), state.factors.values[p]
        sector = 0.0
        for j, row in enumerate(rows):
            if np.isfinite(panel.values[row]) and np.isfinite(loadings[j]).all():
                active = weight.get(panel.assets[panel.asset_codes[row]], 0.0)
                sector += active * float(loadings[j, in_sector] @ factors[in_sector])
        assert earned[p, 1] == pytest.approx(sector, rel=1e-9, abs=1e-14)


def test_several_common_factors_are_said_to_rotate():
    panel = contract_panel(ragged=False)
    model = CreditFactorModel(CreditFactorConfig(attributes=("sector",), n_common=2))
    model.fit(panel)
    state = model.extract(panel)
    parts = decompose(risk_model(state, panel).latest(), dict.fromkeys(panel.assets[:5].tolist(), 0.2))
    assert [each for each in parts.remarks if "rotation" in each and each.startswith("common 1, common 2")]


@pytest.mark.parametrize("name", MODELS)
def test_what_happens_later_moves_no_covariance_of_any_model(name):
    panel = contract_panel()
    model = MODELS[name]()
    model.fit(panel.until(panel.times[30]))
    p = 45
    rng = np.random.default_rng(0)
    values, observed = panel.values.copy(), panel.observed_factors.copy()
    later = slice(int(panel.offsets[p]), None)
    values[later] = np.where(np.isfinite(values[later]), 5 * rng.normal(size=values[later].shape), np.nan)
    observed[p:-1] = rng.normal(size=observed[p:-1].shape)
    other = replace(panel.with_values(values), observed_factors=observed)
    one, two = (risk_model(model.extract(each), each).at(panel.times[p]) for each in (panel, other))
    for array in ("loadings", "factor_covariance", "specific_variance"):
        np.testing.assert_array_equal(getattr(one, array), getattr(two, array))
    assert not one.in_sample


@pytest.mark.parametrize("factor", [1e-4, 1e6, 2.0**-13, 2.0**20])
def test_answers_scale_with_the_values(factor):
    panel = contract_panel(ragged=False)
    held = dict.fromkeys(panel.assets[:10].tolist(), 0.1)
    risks, parts, tails, records = [], [], [], []
    for each in (panel, panel.with_values(factor * panel.values)):
        model = PCAModel(PCAConfig(n_factors=2))
        model.fit(each)
        risk = risk_model(model.extract(each), each)
        risks.append(risk.latest())
        parts.append(decompose(risks[-1], held))
        tails.append(historical_tail_risk(risk, held, level=0.9, filtered=True))
        records.append(risk_record(risk))
    np.testing.assert_allclose(risks[1].dense(), factor**2 * risks[0].dense(), rtol=1e-8)
    np.testing.assert_allclose(parts[1].by_asset, factor * parts[0].by_asset, rtol=1e-8)
    np.testing.assert_allclose(
        tails[1].es_by_asset, factor * tails[0].es_by_asset, rtol=1e-8, atol=1e-9 * factor
    )
    assert tails[1].expected_shortfall == pytest.approx(factor * tails[0].expected_shortfall, rel=1e-8)
    assert records[1].mahalanobis == pytest.approx(records[0].mahalanobis, rel=1e-8)


def test_the_order_of_assets_permutes_the_answer():
    panel = contract_panel(ragged=False)
    order = np.random.default_rng(0).permutation(panel.n_assets)
    other = panel.select(panel.assets[order])
    held = {label: 1.0 + 0.1 * i for i, label in enumerate(panel.assets[:10].tolist())}
    found = []
    for each in (panel, other):
        model = IPCAModel(IPCAConfig(n_factors=2))
        model.fit(each)
        state = model.extract(each)
        risk = decompose(risk_model(state, each).latest(), held)
        earned = attribute_performance(state, each, held)
        found.append((dict(zip(risk.assets.tolist(), risk.by_asset, strict=True)), earned.by_factor))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-8)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-7, atol=1e-12)
