"""The conditional factor process has the moments that are printed about it."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError
from latentfactors.simulate import conditional_panel


@pytest.fixture(scope="module")
def truths():
    return {design: conditional_panel(design, 240, 300, 6, seed=3) for design in ("linear", "nonlinear")}


def test_characteristics_are_ranks(truths):
    panel = truths["linear"].panel
    grid = 2 * np.arange(1, 301) / 301 - 1
    for p in (0, 100, 239):
        c = panel.period(p).characteristics
        np.testing.assert_allclose(np.sort(c, axis=0), np.repeat(grid[:, None], 6, axis=1), atol=1e-12)
    # persistent: AR(1) with coefficients between .9 and 1
    first, later = panel.period(50).characteristics, panel.period(51).characteristics
    correlations = [np.corrcoef(first[:, j], later[:, j])[0, 1] for j in range(6)]
    assert min(correlations) > 0.85
    assert max(correlations) < 1.0


def test_loadings_are_the_formula(truths):
    c = truths["linear"].panel.characteristics
    assert np.array_equal(truths["linear"].loadings, c[:, :3])
    c = truths["nonlinear"].panel.characteristics
    expected = np.column_stack([c[:, 0] ** 2, 2 * c[:, 0] * c[:, 1], 0.6 * np.sign(c[:, 2])])
    np.testing.assert_allclose(truths["nonlinear"].loadings, expected)


def test_portfolios_factors_and_noise(truths):
    truth = truths["linear"]
    x = truth.panel.observed_factors
    assert np.abs(x.mean(axis=0) - 0.03).max() < 4 * 0.1 / np.sqrt(240)
    assert np.abs(x.std(axis=0) / 0.1 - 1).max() < 0.2
    shock = truth.factors - x[:, :3]
    assert shock.std() == pytest.approx(0.01, rel=0.1)
    noise = truth.complete - truth.expected
    assert noise.std() == pytest.approx(0.1 * np.sqrt(5 / 3), rel=0.05)
    period = truth.panel.index.period_codes
    np.testing.assert_allclose(truth.expected, (truth.loadings * truth.factors[period]).sum(axis=1))


def test_the_oracle_explains_two_fifths(truths):
    assert truths["linear"].oracle_r2() == pytest.approx(0.40, abs=0.05)
    assert truths["nonlinear"].oracle_r2() == pytest.approx(0.40, abs=0.05)


def test_options():
    truth = conditional_panel("linear", 120, 60, 4, missing=0.2, partial=0.5, persistence=0.8, live=2, seed=1)
    panel = truth.panel
    assert panel.n_periods == 122
    assert panel.n_realised == 120
    counts = np.diff(panel.offsets)
    assert counts.min() >= 30
    assert counts.max() < 60
    training = panel.between(0, 120)
    assert np.mean(~training.observed) == pytest.approx(0.2, abs=0.02)
    assert np.isnan(panel.observed_factors[120:]).all()
    x = panel.observed_factors[:120] - panel.observed_factors[:120].mean(axis=0)
    assert (x[1:] * x[:-1]).sum() / (x * x).sum() > 0.5
    again = conditional_panel("linear", 120, 60, 4, missing=0.4, partial=0.5, persistence=0.8, live=2, seed=1)
    assert np.array_equal(again.complete, truth.complete)
    assert np.all(np.isnan(again.panel.values[np.isnan(panel.values)]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"design": "cubic"}, "design must be one of"),
        ({"n_characteristics": 2}, "n_characteristics must be a whole number >= 3, got 2"),
        ({"missing": 1.0}, "missing must be a share"),
        ({"persistence": 1.0}, "persistence must lie in"),
        ({"n_periods": 1}, "n_periods must be a whole number >= 2"),
    ],
)
def test_bad_parameters_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        conditional_panel(**arguments)
