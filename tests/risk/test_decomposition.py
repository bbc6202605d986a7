"""Risk decomposition: every component against dense arithmetic, and every sum."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import PCAConfig, PCAModel
from latentfactors.errors import ConfigurationError, PanelMismatchError
from latentfactors.risk import CovarianceOperator, decompose, risk_model
from latentfactors.simulate import static_panel
from tests.risk.small import random_operator, world

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.mark.parametrize("issuers", [False, True])
@pytest.mark.parametrize("active", [False, True])
def test_every_component_equals_dense_arithmetic(issuers, active):
    sigma, dense = random_operator(issuers=issuers, seed=7)
    rng = np.random.default_rng(2)
    held, bench = rng.normal(size=9), rng.uniform(size=9)
    w = held - bench if active else held
    risk = decompose(sigma, held, bench if active else None)
    b, s = sigma.loadings, sigma.factor_covariance
    specific = dense - b @ s @ b.T
    vol = np.sqrt(w @ dense @ w)
    assert risk.volatility == pytest.approx(vol, rel=1e-12)
    assert risk.systematic == pytest.approx(w @ b @ s @ b.T @ w / vol, rel=1e-10)
    assert risk.specific == pytest.approx(w @ specific @ w / vol, rel=1e-10)
    x = b.T @ w
    np.testing.assert_allclose(risk.exposures, x, **CLOSE)
    np.testing.assert_allclose(risk.by_factor, x * (s @ x) / vol, **CLOSE)
    np.testing.assert_allclose(risk.by_asset, w * (dense @ w) / vol, **CLOSE)
    np.testing.assert_allclose(risk.asset_systematic, w * (b @ s @ x) / vol, **CLOSE)
    np.testing.assert_allclose(risk.asset_specific, w * (specific @ w) / vol, **CLOSE)
    both = np.array([[w[i] * b[i, k] * (s @ x)[k] / vol for k in range(4)] for i in range(9)])
    np.testing.assert_allclose(risk.by_asset_and_factor, both, **CLOSE)
    np.testing.assert_allclose(both.sum(axis=1), risk.asset_systematic, **CLOSE)
    np.testing.assert_allclose(both.sum(axis=0), risk.by_factor, **CLOSE)
    family = risk.by_family
    np.testing.assert_allclose(family["country"], risk.by_factor[1] + risk.by_factor[2], **CLOSE)
    assert sum(family.values()) == pytest.approx(risk.systematic, rel=1e-12)
    assert risk.by_asset.sum() == pytest.approx(vol, rel=1e-12)
    step = 1e-6
    slopes = [
        (np.sqrt((w + step * e) @ dense @ (w + step * e)) - np.sqrt((w - step * e) @ dense @ (w - step * e)))
        / (2 * step)
        for e in np.eye(9)
    ]
    np.testing.assert_allclose(risk.marginal_asset, slopes, atol=1e-8)
    np.testing.assert_allclose(risk.marginal_factor, s @ x / vol, **CLOSE)
    np.testing.assert_allclose(risk.factor_volatility, np.sqrt(np.diag(s)), **CLOSE)
    # exposure times volatility times correlation, the way managers read it
    np.testing.assert_allclose(
        risk.exposures * risk.factor_volatility * risk.factor_correlation, risk.by_factor, **CLOSE
    )
    if active:
        assert risk.portfolio_volatility == pytest.approx(np.sqrt(held @ dense @ held), rel=1e-12)
        assert risk.benchmark_volatility == pytest.approx(np.sqrt(bench @ dense @ bench), rel=1e-12)
        assert risk.beta == pytest.approx(held @ dense @ bench / (bench @ dense @ bench), rel=1e-12)
    else:
        assert risk.beta is risk.benchmark_volatility is risk.portfolio_volatility is None


def test_tables():
    state, panel = world(ragged=False, seed=1)
    risk = decompose(risk_model(state, panel).latest(), np.full(12, 1 / 12))
    for by, total in (
        ("factor", risk.systematic),
        ("family", risk.systematic),
        ("asset", risk.volatility),
        ("asset_factor", risk.systematic),
    ):
        table = risk.frame(by)
        assert table["contribution"].sum() == pytest.approx(total, rel=1e-10)
        assert table["share"].sum() == pytest.approx(total / risk.volatility, rel=1e-10)
    assert risk.frame("family")["family"].to_list() == ["market", "country", "rating"]
    assert risk.frame("component", backend="pandas")["contribution"].tolist()[2] == risk.volatility
    assert len(risk.frame("asset_factor")) == 12 * 6
    assert repr(risk).startswith("RiskDecomposition(volatility ")
    assert "market" in repr(risk)
    with pytest.raises(ConfigurationError, match="by must be"):
        risk.frame("sector")


def test_rotating_latent_factors_moves_their_parts_and_nothing_else():
    panel = static_panel(n_periods=200, n_assets=15, n_factors=3, seed=1).panel
    model = PCAModel(PCAConfig(n_factors=3))
    model.fit(panel)
    sigma = risk_model(model.extract(panel), panel).latest()
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = CovarianceOperator(
        assets=sigma.assets, loadings=sigma.loadings @ turn,
        factor_covariance=turn.T @ sigma.factor_covariance @ turn,
        specific_variance=sigma.specific_variance, factor_names=sigma.factor_names,
    )  # fmt: skip
    w = np.full(15, 1 / 15)
    one, other = decompose(sigma, w), decompose(turned, w)
    assert one.systematic == pytest.approx(other.systematic, rel=1e-10)
    assert one.specific == pytest.approx(other.specific, rel=1e-10)
    np.testing.assert_allclose(one.by_asset, other.by_asset, rtol=1e-10)
    assert np.abs(one.by_factor - other.by_factor).max() > 0.1 * one.systematic
    assert "rotation" in one.remarks[0]
    assert "note: F1, F2, F3" in repr(one)


def test_a_benchmark_hugger_has_no_risk_and_no_nan():
    sigma, _ = random_operator()
    w = np.full(9, 1 / 9)
    risk = decompose(sigma, w, w)
    assert risk.volatility == 0
    assert risk.systematic_share == 0
    for each in (risk.by_factor, risk.by_asset, risk.marginal_asset, risk.factor_correlation):
        np.testing.assert_array_equal(each, 0.0)
    np.testing.assert_array_equal(risk.frame("component")["share"].to_numpy(), 0.0)
    with pytest.raises(ConfigurationError, match="benchmark has no risk"):
        decompose(sigma, w, np.zeros(9))
    with pytest.raises(PanelMismatchError, match=r"benchmark weights name 1 asset.*ZZ"):
        decompose(sigma, w, {"ZZ": 1.0})
