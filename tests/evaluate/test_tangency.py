"""Tangency weights and paths: closed form, strictly from the past, indifferent to rotations."""

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    BetaLambdaMapper,
    ExpandingMeanFactorForecaster,
    ExpandingWindow,
    HistoricalMeanPredictor,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    ObservedFactorConfig,
    ObservedFactorModel,
    walk_forward,
)
from latentfactors.errors import InsufficientDataError, MissingCapabilityError
from latentfactors.evaluate import maximal_sharpe, performance, tangency_path, tangency_weights
from latentfactors.simulate import characteristic_panel

SPLITS = ExpandingWindow(first=60, step=15)


def pipeline(model):
    return LatentFactorForecastPipeline(
        model=model, forecaster=ExpandingMeanFactorForecaster(), mapper=BetaLambdaMapper()
    )


def panel_with_factors(n_periods=100):
    truth = characteristic_panel(n_periods=n_periods, n_assets=40, n_factors=2, seed=6)
    names = ("a", "b")
    return replace(truth.panel, observed_factors=truth.factors, observed_factor_names=names)


def test_weights_are_the_closed_form():
    f = 0.3 + np.random.default_rng(0).normal(size=(200, 3)) @ np.diag([1.0, 2.0, 0.1])
    mu, W = f.mean(axis=0), np.cov(f.T, ddof=0)
    expected = np.linalg.inv(W) @ mu
    expected /= np.sqrt(mu @ np.linalg.inv(W) @ mu)
    np.testing.assert_allclose(tangency_weights(f), expected, rtol=1e-9)
    turned = f @ np.array([[0.0, -2.0, 0.1], [3.0, 0.0, 1.0], [0.0, 0.5, -1e-3]])
    np.testing.assert_allclose(turned @ tangency_weights(turned), f @ expected, rtol=1e-7)
    holed = np.vstack([f, [np.nan, 1.0, 1.0]])
    np.testing.assert_array_equal(tangency_weights(holed), tangency_weights(f))
    with pytest.raises(InsufficientDataError, match="too few"):
        tangency_weights(f[:4])
    with pytest.raises(InsufficientDataError, match="collinear"):
        tangency_weights(f[:, [0, 0]])


def test_path_of_observed_factors_by_loop():
    panel = panel_with_factors()
    result = walk_forward(
        pipeline(ObservedFactorModel(ObservedFactorConfig(factors=("a", "b")))), panel, SPLITS
    )
    path, f = tangency_path(result), panel.observed_factors
    expected = [f[p] @ tangency_weights(f[: 60 + (p - 60) // 15 * 15]) for p in range(60, 100)]
    np.testing.assert_allclose(path.returns, expected, rtol=1e-12)
    assert (path.n_factors, path.n_refits, path.times.size) == (2, 3, 40)
    found = path.performance(f[60:], periods_per_year=12.0)
    assert found["sharpe"] == performance(path.returns, None, None, 12.0)["sharpe"]
    whole = maximal_sharpe(f, first=60)  # refits every period: another path, the same kind of number
    assert np.corrcoef(whole.returns[60:], path.returns)[0, 1] > 0.98


def test_the_future_of_a_block_does_not_enter():
    panel = panel_with_factors()
    values = panel.values.copy()
    values[panel.offsets[80] :] *= -3.0
    model = pipeline(IPCAModel(IPCAConfig(n_factors=2)))
    a = tangency_path(walk_forward(model, panel, SPLITS))
    b = tangency_path(walk_forward(model, panel.with_values(values), SPLITS))
    np.testing.assert_array_equal(a.returns[:20], b.returns[:20])
    assert not np.allclose(a.returns[20:], b.returns[20:])


def test_no_factors_no_path():
    result = walk_forward(HistoricalMeanPredictor(), panel_with_factors(), SPLITS)
    with pytest.raises(MissingCapabilityError, match="no factors"):
        tangency_path(result)
