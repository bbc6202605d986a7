"""Shocks to named factors, alone and with what is expected of the others; duration times spread."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError, PanelMismatchError
from latentfactors.risk import CovarianceOperator, duration_times_spread, risk_model, stress_test
from tests.risk.small import random_operator, world


def test_a_conditional_shock_by_the_normal_law():
    sigma, dense = random_operator(seed=2)
    w = np.random.default_rng(0).normal(size=9)
    shocks = {"size": 0.7, "country=FR": -1.1}
    result = stress_test(sigma, w, shocks)
    s, b = sigma.factor_covariance, sigma.loadings
    hit, rest = [1, 3], [0, 2]
    given = np.array([-1.1, 0.7])
    moves = np.empty(4)
    moves[hit] = given
    moves[rest] = s[np.ix_(rest, hit)] @ np.linalg.solve(s[np.ix_(hit, hit)], given)
    np.testing.assert_allclose(result.moves, moves, rtol=1e-10)
    np.testing.assert_allclose(result.by_asset, w * (b @ moves), rtol=1e-10)
    assert result.profit == pytest.approx(w @ b @ moves, rel=1e-10)
    assert result.by_factor.sum() == pytest.approx(result.profit, rel=1e-12)
    assert sum(result.by_family.values()) == pytest.approx(result.profit, rel=1e-12)
    assert result.plausibility == pytest.approx(
        np.sqrt(given @ np.linalg.solve(s[np.ix_(hit, hit)], given)), rel=1e-10
    )
    # what is left open: the portfolio's variance given two linear functions of it
    cross = s[:, hit].T @ b.T @ w
    left = w @ dense @ w - cross @ np.linalg.solve(s[np.ix_(hit, hit)], cross)
    assert result.uncertainty == pytest.approx(np.sqrt(left), rel=1e-9)


def test_a_shock_alone():
    sigma, dense = random_operator(seed=2)
    w = np.random.default_rng(0).normal(size=9)
    result = stress_test(sigma, w, {"market": 2.0}, conditional=False, in_deviations=True)
    size = 2.0 * np.sqrt(sigma.factor_covariance[0, 0])
    np.testing.assert_allclose(result.moves, [size, 0, 0, 0], rtol=1e-12)
    assert result.plausibility == pytest.approx(2.0)
    assert result.shocks["market"] == pytest.approx(size)
    rest = sigma.factor_covariance.copy()
    rest[0], rest[:, 0] = 0, 0
    x = sigma.loadings.T @ w
    specific = dense - sigma.loadings @ sigma.factor_covariance @ sigma.loadings.T
    assert result.uncertainty == pytest.approx(np.sqrt(x @ rest @ x + w @ specific @ w), rel=1e-9)
    assert result.frame("factor")["shocked"].to_list() == [True, False, False, False]
    assert result.frame()["profit"].sum() == pytest.approx(result.profit)
    assert repr(result).startswith("StressResult(market ")


def test_shocks_that_make_no_sense_are_refused():
    flat = CovarianceOperator(
        assets=np.array(["a"]), loadings=np.ones((1, 3)), specific_variance=np.ones(1),
        factor_covariance=np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
        factor_names=("x", "y", "z"),
    )  # fmt: skip
    assert stress_test(flat, {"a": 1.0}, {"x": 1.0}).moves.tolist() == pytest.approx([1.0, 1.0, 0.0])
    assert stress_test(flat, {"a": 1.0}, {"x": 1.0, "y": 1.0}).profit == pytest.approx(2.0)
    for shocks, said in (
        ({"x": 1.0, "y": -1.0}, "contradict"),
        ({"x": 1.0, "z": 1.0}, "factors z have no variance"),
        ({"q": 1.0}, "q; there are x, y, z"),
        ({}, "at least one"),
        ({"x": np.inf}, "finite"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            stress_test(flat, {"a": 1.0}, shocks)


def test_duration_times_spread():
    state, panel = world(ragged=False, seed=3)
    sigma = risk_model(state, panel).latest()
    rng = np.random.default_rng(0)
    duration, spread = rng.uniform(1, 9, 12), rng.uniform(0.005, 0.06, 12)
    found = duration_times_spread(sigma, duration, dict(zip(panel.assets.tolist(), spread, strict=True)))
    m = -duration * spread
    np.testing.assert_allclose(found.dense(), np.diag(m) @ sigma.dense() @ np.diag(m), rtol=1e-10)
    wider = stress_test(found, {"A01": 1.0}, {"market": 0.2}, conditional=False)
    assert wider.profit == pytest.approx(m[1] * sigma.loadings[1, 0] * 0.2, rel=1e-10)
    assert wider.profit < 0
    absolute = duration_times_spread(sigma, duration)
    np.testing.assert_allclose(absolute.loadings, -duration[:, None] * sigma.loadings, rtol=1e-12)
    with pytest.raises(ConfigurationError, match=r"duration must be positive.*A01"):
        duration_times_spread(sigma, {"A00": 1.0})
    with pytest.raises(PanelMismatchError, match="ZZ"):
        duration_times_spread(sigma, {"ZZ": 1.0})
