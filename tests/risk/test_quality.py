"""Covariance forecasts against what happened: by slow loops, and on a world whose risk is known."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import PCAConfig, PCAModel
from latentfactors.errors import ConfigurationError, InsufficientDataError, PanelMismatchError
from latentfactors.risk import RiskConfig, bias_statistic, qlike, risk_model, risk_record
from latentfactors.simulate import static_panel
from tests.risk.small import world


@pytest.mark.parametrize("conditional", [False, True])
def test_a_record_by_slow_loops(conditional):
    state, panel = world(conditional=conditional, units=True, alpha=True, live=1, seed=2)
    risk = risk_model(state, panel, RiskConfig(min_periods=25))
    w = np.random.default_rng(0).normal(size=12)
    record = risk_record(risk, {"mine": w, "one": {"A03": 1.0}})
    m, wide = state.measurement, panel.wide()
    j = 0
    for p in range(25, 60):
        sigma = risk.at(panel.times[p])
        here = np.array([panel.assets.tolist().index(each) for each in sigma.assets.tolist()])
        seen = np.isfinite(wide[p, here])
        dense, here = sigma.dense()[np.ix_(seen, seen)], here[seen]
        alpha = panel.index.dense(m.alpha)[p, here]
        r = wide[p, here] - m.location[here] - m.scale[here] * alpha
        assert record.times[j] == panel.times[p]
        assert record.n_assets[j] == len(here)
        np.testing.assert_allclose(record.volatility[j, 0], np.sqrt(w[here] @ dense @ w[here]), rtol=1e-10)
        np.testing.assert_allclose(record.returns[j, 0], w[here] @ r, rtol=1e-10)
        np.testing.assert_allclose(record.distance[j], r @ np.linalg.solve(dense, r) / len(r), rtol=1e-9)
        assert np.isfinite(record.returns[j, 1]) == (3 in here)
        assert record.in_sample[j] == (panel.times[p - 1] < state.fit_span.end)
        j += 1
    assert j == len(record.times)
    table = record.frame()
    z = record.returns[:, 0] / record.volatility[:, 0]
    assert table["bias"][0] == pytest.approx(np.std(z, ddof=1))
    assert table["qlike"][0] == pytest.approx(np.mean(2 * np.log(record.volatility[:, 0]) + z**2))
    assert table["n_periods"][1] == np.isfinite(record.returns[:, 1]).sum() < 35


def test_a_right_model_is_found_right_and_a_wrong_one_wrong():
    truth = static_panel(n_periods=1200, n_assets=100, n_factors=2, noise=0.03, seed=1)
    model = PCAModel(PCAConfig(n_factors=2))
    model.fit(truth.panel.between(0, 300))
    state = model.extract(truth.panel)
    portfolios = {"equal": np.full(100, 0.01), "tilt": np.linspace(-1, 1, 100)}
    record = risk_record(risk_model(state, truth.panel), portfolios, start=truth.panel.times[301])
    assert not record.in_sample.any()
    assert len(record.times) == 899
    table = record.frame()
    for bias, high in table.select("bias", "bias_high").rows():
        assert abs(bias - 1) < 2 * (high - 1)  # four standard errors
    # two factors out of 100 assets take 2% of the residuals' variance; 900 days leave an error of .005
    assert record.mahalanobis == pytest.approx(1 / (1 - 2 / 100), abs=0.015)
    test = record.backtest("tilt", level=0.95)
    assert test.coverage.unconditional_p > 0.01
    assert abs(test.shortfall_statistic) < 0.35
    assert qlike(record.returns[:, 0], record.volatility[:, 0]) < min(
        qlike(record.returns[:, 0], c * record.volatility[:, 0]) for c in (0.8, 1.25)
    )
    assert bias_statistic(record.returns[:, 0], 0.5 * record.volatility[:, 0]) > 1.5
    with pytest.raises(ConfigurationError, match="no portfolio 'mine'"):
        record.backtest("mine")


def test_refusals():
    state, panel = world()
    risk = risk_model(state, panel)
    with pytest.raises(PanelMismatchError, match=r"mine name 1 asset.*ZZ"):
        risk_record(risk, {"mine": {"ZZ": 1.0}})
    with pytest.raises(ConfigurationError, match="portfolios must map"):
        risk_record(risk, {})
    with pytest.raises(InsufficientDataError, match="no period"):
        risk_record(risk_model(state, panel, RiskConfig(min_periods=60)))
    with pytest.raises(ConfigurationError, match="positive"):
        bias_statistic([0.1, 0.1], [0.1, 0.0])
    with pytest.raises(ConfigurationError, match="one length"):
        qlike([0.1, 0.1], [0.1])
    assert np.isnan(qlike([np.nan], [0.1]))
    assert np.isnan(bias_statistic([0.1], [0.1]))
    assert "1 is right" in repr(risk_record(risk))
