"""The instrumented process has the moments that are printed about it."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import IPCAConfig, IPCAModel
from latentfactors.errors import ConfigurationError
from latentfactors.simulate import instrumented_panel

PEERS, BEND = 8.0, 2.0


@pytest.fixture(scope="module")
def truths():
    return {kind: instrumented_panel(kind, seed=1) for kind in ("linear", "nonlinear")}


def test_characteristics_are_persistent_ranks(truths):
    panel = truths["linear"].panel
    grid = np.linspace(-0.5, 0.5, 300)
    for p in (0, 200, 359):
        c = panel.period(p).characteristics
        np.testing.assert_allclose(np.sort(c, axis=0), np.repeat(grid[:, None], 12, axis=1), atol=1e-12)
    first, later = panel.period(100).characteristics, panel.period(101).characteristics
    correlations = [np.corrcoef(first[:, j], later[:, j])[0, 1] for j in range(12)]
    assert 0.9 < np.mean(correlations) < 0.97


def test_loadings_are_the_formula(truths):
    for kind, truth in truths.items():
        z = truth.panel.characteristics
        bends = np.column_stack([z[:, 0] * z[:, 1], z[:, 2] ** 2 - 1 / 12, np.abs(z[:, 3]) - 0.25])
        expected = z @ truth.gamma + (BEND * bends if kind == "nonlinear" else 0.0)
        np.testing.assert_allclose(truth.loadings, expected, atol=1e-12)
        np.testing.assert_allclose(truth.gamma.T @ truth.gamma, np.eye(3), atol=1e-12)


def test_oracles_are_where_they_are_said_to_be():
    """Means over seeds: linear total .33-.36 and IPCA equal, nonlinear .41-.45 and IPCA about 70% of it."""
    total, predictive, linear = {}, {}, {}
    for kind in ("linear", "nonlinear"):
        found = []
        for seed in range(3):
            truth = instrumented_panel(kind, seed=seed)
            model = IPCAModel(IPCAConfig(n_factors=3))
            model.fit(truth.panel.between(0, 240))
            fitted = truth.r2(model.extract(truth.panel).reconstruction(), 240)
            found.append((truth.oracle_total_r2(240), truth.oracle_predictive_r2(240), fitted))
        total[kind], predictive[kind], linear[kind] = np.mean(found, axis=0)
    assert 0.33 < total["linear"] < 0.36
    assert 0.41 < total["nonlinear"] < 0.45
    assert abs(linear["linear"] - total["linear"]) < 0.015
    assert 0.65 < linear["nonlinear"] / total["nonlinear"] < 0.78
    assert 0.03 < predictive["linear"] < 0.05
    assert 0.036 < predictive["nonlinear"] < 0.054


def test_premia_are_conditional_means(truths):
    truth = truths["linear"]
    surprise = (truth.factors - truth.premia)[1:]
    former = truth.factors[:-1] - [0.01, 0.005, 0.005]
    np.testing.assert_allclose(truth.premia[1:], [0.01, 0.005, 0.005] + former * [0.4, 0.2, 0.0], atol=1e-15)
    np.testing.assert_allclose(surprise.std(axis=0), [0.05, 0.04, 0.03], rtol=0.1)
    period = truth.panel.index.period_codes
    np.testing.assert_allclose(truth.forecast, (truth.loadings * truth.premia[period]).sum(axis=1))


def test_noise_and_missing_cells(truths):
    truth = truths["nonlinear"]
    assert abs((truth.complete - truth.expected).std() - 0.03) < 5e-4
    assert abs(np.isnan(truth.panel.values).mean() - 0.2) < 0.01
    seen = truth.panel.observed
    assert np.array_equal(truth.panel.values[seen], truth.complete[seen])


def test_peers_know_what_a_firm_cannot(truths):
    truth = instrumented_panel("linear", peers=True, seed=1)
    z = truth.panel.characteristics.reshape(360, 300, 12)
    level = z[:, :, 4].mean(axis=1)
    assert 0.05 < level.std() < 0.2
    assert np.abs(z).max() <= 0.5 + 1e-12
    extra = truth.loadings - truth.panel.characteristics @ truth.gamma
    expected = PEERS * level[truth.panel.index.period_codes] * truth.panel.characteristics[:, 0]
    np.testing.assert_allclose(extra[:, 0], expected, atol=1e-12)
    assert np.abs(extra[:, 1:]).max() < 1e-12


def test_regimes_turn_the_sign():
    truth = instrumented_panel(regimes=True, n_periods=180, n_assets=20, seed=2)
    former = truth.factors[:-1, 0] - 0.01
    sign = np.where((np.arange(1, 180) // 60) % 2 == 1, -0.4, 0.4)
    np.testing.assert_allclose(truth.premia[1:, 0], 0.01 + sign * former, atol=1e-15)


def test_gated_loadings_by_hand():
    """A characteristic counts where the next one is high; the last has no next one and counts half."""
    truth = instrumented_panel("gated", n_periods=6, n_assets=40, n_characteristics=7, seed=3)
    z = truth.panel.characteristics
    for row in (0, 57, 239):
        gated = [2 * z[row, j] / (1 + np.exp(-12 * z[row, j + 1])) if j < 6 else z[row, j] for j in range(7)]
        np.testing.assert_allclose(truth.loadings[row], gated @ truth.gamma, atol=1e-12)


def test_crossed_loadings_by_hand():
    truth = instrumented_panel("crossed", n_periods=6, n_assets=40, n_characteristics=13, seed=3)
    z = truth.panel.characteristics
    pairs = np.column_stack([z[:, k] * z[:, k + 6] + z[:, k + 3] * z[:, k + 9] for k in range(3)])
    np.testing.assert_allclose(truth.loadings, z @ truth.gamma + 4 * pairs, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "total", "linear"), [("gated", (0.42, 0.48), 0.72), ("crossed", (0.63, 0.69), 0.32)]
)
def test_oracles_of_features_that_a_linear_model_lacks(kind, total, linear):
    """Mean total R2 over three seeds lies where the studies start from, and IPCA's share of it below."""
    found = []
    for seed in range(3):
        truth = instrumented_panel(kind, 240, 100, 16, seed=seed)
        model = IPCAModel(IPCAConfig(n_factors=3))
        model.fit(truth.panel.between(0, 160))
        fitted = truth.r2(model.extract(truth.panel).reconstruction(), 160)
        found.append((truth.oracle_total_r2(160), fitted))
    oracle, ipca = np.mean(found, axis=0)
    assert total[0] < oracle < total[1]
    assert 0.1 < ipca < linear * oracle


def test_hidden_premia_are_the_best_linear_forecast():
    """Kalman's filter against the regression on all past factors with the process's own covariances."""
    short = instrumented_panel(hidden_premia=True, n_periods=40, n_assets=2, seed=2)
    mean, sd = np.array([0.01, 0.005, 0.005]), np.array([0.05, 0.04, 0.03])
    lag = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    covariance = 0.64 * 0.95**lag + np.eye(40)
    seen = (short.factors - mean) / sd
    for t in (1, 2, 17, 39):
        expected = covariance[t, :t] @ np.linalg.solve(covariance[:t, :t], seen[:t])
        np.testing.assert_allclose(short.premia[t], mean + sd * expected, atol=1e-12)
    np.testing.assert_array_equal(short.premia[0], mean)

    long = instrumented_panel(hidden_premia=True, n_periods=20000, n_assets=2, seed=2)
    np.testing.assert_allclose(long.factors.std(axis=0), sd * np.sqrt(1.64), rtol=0.05)
    for k in range(3):
        found = [np.corrcoef(long.factors[j:, k], long.factors[:-j, k])[0, 1] for j in (1, 12, 36)]
        np.testing.assert_allclose(found, 0.64 / 1.64 * 0.95 ** np.array([1, 12, 36]), atol=0.04)
    surprise = long.factors - long.premia
    assert np.abs(np.corrcoef(surprise[1:].T, surprise[:-1].T)[:3, 3:]).max() < 0.03


def test_hidden_premia_can_be_forecast():
    found = [
        instrumented_panel(hidden_premia=True, n_periods=720, n_assets=50, seed=seed).oracle_predictive_r2(
            480
        )
        for seed in range(3)
    ]
    assert 0.08 < np.mean(found) < 0.17


def test_null_permutes_the_same_values():
    signal = instrumented_panel(n_periods=30, n_assets=40, missing=0.0, seed=4)
    null = instrumented_panel(n_periods=30, n_assets=40, missing=0.0, null=True, seed=4)
    np.testing.assert_array_equal(np.sort(null.panel.values), np.sort(signal.panel.values))
    assert not np.array_equal(null.panel.values, signal.panel.values)
    assert np.array_equal(null.panel.characteristics, signal.panel.characteristics)
    assert null.oracle_total_r2() == null.oracle_predictive_r2() == 0.0


def test_live_months_have_rows_and_no_values():
    truth = instrumented_panel(n_periods=24, n_assets=30, live=2, seed=5)
    assert truth.panel.n_periods == 26
    assert truth.panel.n_realised == 24
    assert np.isnan(truth.panel.period(25).values).all()
    assert np.isfinite(truth.forecast).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loadings": "cubic"}, "loadings must be one of"),
        ({"n_characteristics": 4}, "n_characteristics must be a whole number >= 5"),
        ({"loadings": "crossed", "n_characteristics": 11}, "n_characteristics must be a whole number >= 12"),
        ({"regimes": True, "hidden_premia": True}, "regimes and hidden_premia are two laws"),
        ({"missing": 1.0}, "missing must be a share"),
        ({"n_periods": 1}, "n_periods must be"),
    ],
)
def test_bad_parameters_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        instrumented_panel(**options)
