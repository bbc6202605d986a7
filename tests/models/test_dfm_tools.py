"""Standard errors, responses, contributions and draws of a fitted dynamic factor model."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import Block, DFMConfig, DynamicFactorModel
from latentfactors.dynamic.tools import (
    compare_factor_counts,
    draw_panel,
    factor_contributions,
    forecast_contributions,
    impulse_responses,
    standard_errors,
)
from latentfactors.errors import ConfigurationError, PanelMismatchError
from tests.models.test_dfm import PANDEMIC, draw, fitted, mixed, pandemic, panel_of


@pytest.fixture(scope="module")
def quarterly():
    panel, _, _ = mixed("mariano_murasawa", T=120)
    model, _ = fitted(panel, max_iterations=300, tolerance=1e-4)
    return panel, model


def halves(model):
    labels = model.estimates.series.tolist()
    return {"real": labels[:5], "nominal": labels[5:]}


@pytest.mark.parametrize("information", ["filtered", "smoothed"])
def test_factor_contributions_add_up(quarterly, information):
    panel, model = quarterly
    parts = factor_contributions(model, panel, halves(model), information)
    state = model.smooth(panel) if information == "smoothed" else model.extract(panel)
    np.testing.assert_allclose(parts["real"] + parts["nominal"], state.factor_returns, atol=1e-10)
    assert all(np.abs(part).max() > 0.1 for part in parts.values())


def test_forecast_contributions_add_up_and_name_the_mover(quarterly):
    panel, model = quarterly
    parts = forecast_contributions(model, panel, "s13", 1, halves(model))
    forecast = model.extract(panel).native.values(1)[0].reshape(panel.n_periods, -1)[:, 13]
    total = sum(parts.values()) + model.estimates.location[13]
    np.testing.assert_allclose(total[:-1], forecast[1:], atol=1e-9)
    # a change of one group's value moves that group's contribution only
    wide = panel.wide().copy()
    wide[-1, 2] += 5.0
    moved = forecast_contributions(
        model, panel.with_values(panel.index.gather(wide)), "s13", 1, halves(model)
    )
    np.testing.assert_allclose(moved["nominal"], parts["nominal"], atol=1e-12)
    assert abs(moved["real"][-1] - parts["real"][-1]) > 1e-3


def test_groups_must_be_a_partition(quarterly):
    panel, model = quarterly
    labels = model.estimates.series.tolist()
    for groups, message in (
        ({"a": labels[:-1]}, "in no group"),
        ({"a": labels, "b": labels[:1]}, "repeat"),
        ({"a": [*labels, "s99"]}, "do not exist"),
    ):
        with pytest.raises(PanelMismatchError, match=message):
            factor_contributions(model, panel, groups)
    with pytest.raises(PanelMismatchError, match="s99"):
        forecast_contributions(model, panel, "s99", 1, halves(model))
    with pytest.raises(ConfigurationError, match="horizon"):
        impulse_responses(model, -1)


def test_responses_are_the_difference_that_a_shock_makes(quarterly):
    """Powers of A on the shocks' Cholesky factor; months inside a quarter added up with its weights."""
    _, model = quarterly
    found = impulse_responses(model, 8)
    estimates = model.estimates
    root = np.linalg.cholesky(estimates.innovation)
    path = [root]
    for _ in range(8):
        path.append(estimates.transition[0] @ path[-1])
    np.testing.assert_allclose(found.factors, path, atol=1e-12)
    monthly = np.array([estimates.loadings @ each for each in path]) * estimates.scale[:, None]
    np.testing.assert_allclose(found.values[:, :12], monthly[:, :12], atol=1e-12)
    # the quarter's growth sums up the months with weights (1, 2, 3, 2, 1)/3, here at h = 4
    expected = np.tensordot(np.array([1, 2, 3, 2, 1]) / 3, monthly[4::-1, 13], axes=1)
    np.testing.assert_allclose(found.values[4, 13], expected, atol=1e-12)


def test_draws_have_the_moments_of_the_model_and_the_gaps_of_the_panel(quarterly):
    panel, model = quarterly
    drawn = draw_panel(model, panel, seed=1)
    np.testing.assert_array_equal(np.isfinite(drawn.values), np.isfinite(panel.values))
    np.testing.assert_array_equal(draw_panel(model, panel, seed=1).values, drawn.values)
    long = draw_panel(model, panel.extend(6000), seed=2, gaps=False).wide()
    found, r = model.estimates, 2
    own = found.variance / (1 - found.persistence**2)
    variance = ((found.loadings**2).sum(axis=1) + own) * found.scale**2
    ordinary = slice(0, 12)
    np.testing.assert_allclose(np.nanvar(long, axis=0)[ordinary], variance[ordinary], rtol=0.15)
    np.testing.assert_allclose(np.nanmean(long, axis=0), found.location, atol=0.6)
    assert np.isfinite(long[:, 13]).sum() == 2040
    # one step ahead the model forecasts its own draw with errors as large as it says
    again = panel.extend(6000)
    again = again.with_values(again.index.gather(long))
    means, variances = model.extract(again).native.values(1)
    z = (again.values - means) / np.sqrt(variances)
    z = z.reshape(-1, 14)[10:]
    assert np.nanmean(z[:, :12] ** 2) == pytest.approx(1.0, abs=0.03)
    assert np.nanmean(z[:, 12:] ** 2) == pytest.approx(1.0, abs=0.06)
    assert r == found.loadings.shape[1]


def test_standard_errors_of_blocks_and_other_panels():
    _, values = draw(120, 10, 2, seed=3)
    panel = panel_of(values)
    block = Block(name="real", series=("s00", "s01", "s02", "s03", "s04"))
    model = DynamicFactorModel(DFMConfig(n_factors=1, blocks=(block,), tolerance=1e-6))
    assert model.fit(panel).converged
    errors = standard_errors(model, panel)
    assert (errors.loadings[5:, 1] == 0).all()
    assert (errors.loadings[:, 0] > 0).all()
    assert (errors.transition[0][[0, 1], [1, 0]] == 0).all()
    assert ((errors.persistence > 0.03) & (errors.persistence < 0.6)).all()
    assert (errors.variance > 0).all()
    # twice the data's unit, the same standardised parameters
    scaled = panel.with_values(2.0 * panel.values)
    other = DynamicFactorModel(model.config)
    other.fit(scaled)
    np.testing.assert_allclose(standard_errors(other, scaled).loadings, errors.loadings, rtol=1e-4)
    with pytest.raises(PanelMismatchError, match="fitted to"):
        standard_errors(model, scaled)


def test_information_criteria_find_two_factors():
    _, values = draw(240, 16, 2, seed=5)
    found = compare_factor_counts(panel_of(values), DFMConfig(n_factors=1, tolerance=1e-4), (1, 2, 3))
    assert found[0].n_factors == 2
    assert [each.bic for each in found] == sorted(each.bic for each in found)
    by_count = sorted(found, key=lambda each: each.n_factors)
    assert by_count[0].loglikelihood < by_count[1].loglikelihood < by_count[2].loglikelihood


def test_scales_of_a_variance_break_have_standard_errors_and_are_drawn():
    panel, _, _ = pandemic()
    model, _ = fitted(panel, variance_break=PANDEMIC, tolerance=1e-6)
    found = model.estimates.shock_scale
    # 26 squares each, known factors and parameters: 1 / sqrt(52) = .14 of the scale
    relative = standard_errors(model, panel).shock_scale / found
    assert relative.min() > 0.13
    assert relative.max() < 0.25
    drawn = np.array([draw_panel(model, panel, seed, gaps=False).wide() for seed in range(200)])
    spread = np.diff(drawn[:, :, :5], axis=1).std(axis=0)
    # a change between two months has the shocks of both: in the first broken month mostly its own
    assert (spread[149] > 3.0 * spread[:140].mean(axis=0)).all()
    assert (spread[155:].mean(axis=0) < 1.3 * spread[:140].mean(axis=0)).all()
