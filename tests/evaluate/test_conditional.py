"""Managed-portfolio R2 and pure alpha: against loops, the fit's own numbers, a planted alpha."""

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    BetaLambdaMapper,
    ExpandingMeanFactorForecaster,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    Panel,
    PCAConfig,
    PCAModel,
)
from latentfactors.errors import ConfigurationError, MissingCapabilityError, PanelMismatchError
from latentfactors.evaluate import managed_portfolio_r2, pure_alpha
from latentfactors.simulate import characteristic_panel

PANEL = characteristic_panel(n_periods=90, n_assets=60, n_factors=2, seed=4).panel


def by_loop(panel, fitted):
    error = total = 0.0
    for p in range(panel.n_periods):
        for column in range(panel.characteristics.shape[1]):
            gap = value = n = 0.0
            for row in range(panel.offsets[p], panel.offsets[p + 1]):
                if np.isfinite(panel.values[row]) and np.isfinite(fitted[row]):
                    z = panel.characteristics[row, column]
                    gap += z * (panel.values[row] - fitted[row])
                    value += z * panel.values[row]
                    n += 1
            if n:
                error, total = error + (gap / n) ** 2, total + (value / n) ** 2
    return 1 - error / total


def alpha_panel(strength, seed=1, n_periods=240, n_assets=60):
    """Two factors, four characteristics, mispricing along the one direction that loads on neither."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(-0.5, 0.5, (n_periods, n_assets, 4))
    gamma, _ = np.linalg.qr(rng.normal(size=(4, 3)))
    f = 0.01 + 0.05 * rng.normal(size=(n_periods, 2))
    mispricing = strength * gamma[:, 2]
    values = np.einsum("tnl,lk,tk->tn", z, gamma[:, :2], f) + z @ mispricing
    panel = Panel.from_arrays(values + 0.02 * rng.normal(size=values.shape), z)
    return panel, mispricing, f


@pytest.mark.parametrize("alpha", [False, True])
def test_managed_r2_is_the_fits_own(alpha):
    model = IPCAModel(IPCAConfig(n_factors=2, alpha=alpha))
    metrics = model.fit(PANEL).metrics
    found = managed_portfolio_r2(model.extract(PANEL), PANEL)
    assert found == pytest.approx(metrics["managed_total_r2"], abs=1e-10)


def test_managed_r2_by_loop_with_holes_and_for_static_loadings():
    rng = np.random.default_rng(0)
    holed = PANEL.mask(rng.random(PANEL.n_rows) < 0.2)
    model = PCAModel(PCAConfig(n_factors=2))
    model.fit(holed)
    state = model.extract(holed)
    fitted = state.reconstruction().copy()
    assert managed_portfolio_r2(state, holed) == pytest.approx(by_loop(holed, fitted), rel=1e-10)
    fitted[::7] = np.nan
    assert managed_portfolio_r2(fitted, holed) == pytest.approx(by_loop(holed, fitted), rel=1e-10)


def test_managed_r2_of_forecasts():
    pipeline = LatentFactorForecastPipeline(
        model=IPCAModel(IPCAConfig(n_factors=2)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )
    pipeline.fit(PANEL)
    forecast = pipeline.predict(PANEL).asset_forecast
    total = managed_portfolio_r2(pipeline.model.extract(PANEL), PANEL)
    predictive = managed_portfolio_r2(forecast, PANEL)
    assert predictive == pytest.approx(by_loop(PANEL, forecast.expected_values), rel=1e-10)
    assert predictive < total


def test_managed_r2_refusals():
    model = IPCAModel(IPCAConfig(n_factors=2))
    model.fit(PANEL)
    with pytest.raises(PanelMismatchError, match="other rows"):
        managed_portfolio_r2(model.extract(PANEL.between(0, 50)), PANEL)
    with pytest.raises(PanelMismatchError, match="one number per row"):
        managed_portfolio_r2(np.zeros(3), PANEL)
    with pytest.raises(PanelMismatchError, match="need characteristics"):
        managed_portfolio_r2(np.zeros(4), Panel.from_arrays(np.ones((2, 2))))
    assert np.isnan(managed_portfolio_r2(np.full(PANEL.n_rows, np.nan), PANEL))


def test_pure_alpha_is_the_formula():
    panel, _, _ = alpha_panel(0.02)
    model = IPCAModel(IPCAConfig(n_factors=2, alpha=True))
    model.fit(panel.between(0, 200))
    held = pure_alpha(model, panel)
    p = 210
    rows = panel.index.rows(p)
    z = panel.characteristics[rows]
    weights = z @ np.linalg.inv(z.T @ z) @ model.estimates.gamma_alpha
    np.testing.assert_allclose(held.weights[rows], weights, rtol=1e-9, atol=1e-13)
    assert held.returns[p] == pytest.approx(weights @ panel.values[rows])
    assert np.abs(held.exposures).max() < 1e-9
    assert held.in_sample.sum() == 200


def test_pure_alpha_earns_what_was_planted_out_of_sample():
    panel, mispricing, factors = alpha_panel(0.02)
    model = IPCAModel(IPCAConfig(n_factors=2, alpha=True))
    model.fit(panel.between(0, 120))
    held = pure_alpha(model, panel)
    found = held.performance(factors)
    assert found["n_periods"] == 120
    assert found["alpha"] == pytest.approx(mispricing @ mispricing, rel=0.1)
    assert found["alpha_t"] > 5
    assert found["r_squared"] < 0.1


def test_pure_alpha_of_no_alpha_earns_nothing():
    t = []
    for seed in range(8):
        panel, _, factors = alpha_panel(0.0, seed=seed, n_periods=160)
        model = IPCAModel(IPCAConfig(n_factors=2, alpha=True))
        model.fit(panel.between(0, 80))
        t.append(pure_alpha(model, panel).performance(factors)["alpha_t"])
    assert np.mean(np.abs(t) > 2) <= 0.25
    assert abs(np.mean(t)) < 1.1


def test_pure_alpha_scales_counts_and_skips():
    panel, _, _ = alpha_panel(0.02, n_periods=60)
    model = IPCAModel(IPCAConfig(n_factors=2, alpha=True, intercept=True))
    model.fit(panel)
    cells = np.zeros((panel.n_periods, panel.n_assets), dtype=bool)
    cells[5, :3], cells[6] = True, True
    held = pure_alpha(model, panel.mask(cells), gross=2.0)
    sizes = np.add.reduceat(np.abs(held.weights), panel.offsets[:-1])
    np.testing.assert_allclose(sizes, 2.0)
    assert (held.n_unrealised[5], held.n_unrealised[6]) == (3, panel.n_assets)
    assert np.isfinite(held.returns[5])
    assert np.isnan(held.returns[6])
    assert np.isnan(held.performance()["mean"])  # everything is in sample
    assert held.performance(out_of_sample=False)["n_periods"] == 59
    assert held.frame().columns == ["time", "return", "in_sample", "n_unrealised"]
    few = panel.select(panel.assets[:4])  # four assets cannot hedge five characteristics
    assert np.isnan(pure_alpha(model, few).weights).all()


def test_pure_alpha_knows_nothing_of_the_period():
    panel, _, _ = alpha_panel(0.02, n_periods=60)
    model = IPCAModel(IPCAConfig(n_factors=2, alpha=True))
    model.fit(panel.between(0, 40))
    values = panel.values.copy()
    values[panel.offsets[50] :] = 9.0
    later = replace(panel, values=values)
    np.testing.assert_array_equal(pure_alpha(model, panel).weights, pure_alpha(model, later).weights)


def test_pure_alpha_refusals():
    model = IPCAModel(IPCAConfig(n_factors=2))
    model.fit(PANEL)
    with pytest.raises(MissingCapabilityError, match="alpha=True"):
        pure_alpha(model, PANEL)
    with pytest.raises(ConfigurationError, match="gross"):
        pure_alpha(model, PANEL, gross=0.0)
