"""Figures of factors show the numbers of the results they are given."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("plotly")

from latentfactors import PTFAConfig, PTFAModel, report
from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import number_of_factors
from latentfactors.models.pca import PCAConfig, PCAModel
from latentfactors.simulate import static_panel, targeted_panel


def test_scree_and_what_the_criteria_say():
    counts = number_of_factors(static_panel(n_periods=80, n_assets=30, n_factors=3, seed=1).panel)
    bars, marks = report.scree_figure(counts, most=12).data
    np.testing.assert_allclose(bars.y, 100 * counts.eigenvalues[:12])
    assert dict(zip(marks.y, marks.x, strict=True)) == dict(counts.chosen)


def test_bands_hold_the_true_factor_as_often_as_they_say():
    truth = targeted_panel(400, 10, 3, 1, seed=3)
    model = PTFAModel(PTFAConfig(n_factors=1, targets=tuple(truth.panel.assets[10:].tolist())))
    model.fit(truth.panel)
    state = model.extract(truth.panel)
    band, line = report.factor_bands_figure(state, level=0.9).data
    np.testing.assert_allclose(line.y, state.factor_returns[:, 0])
    half = (np.array(band.y)[:400] - np.array(line.y)) / 1.6448536269514722
    np.testing.assert_allclose(half, np.sqrt(state.factors.covariance[:, 0, 0]), rtol=1e-6)
    f = truth.factors[:, 0] * np.sign(np.corrcoef(truth.factors[:, 0], line.y)[0, 1])
    inside = np.abs(f - line.y) <= half * 1.6448536269514722
    assert 0.85 < inside.mean() < 0.95
    with pytest.raises(ConfigurationError, match="level"):
        report.factor_bands_figure(state, level=1.0)
    with pytest.raises(ConfigurationError, match="no f9"):
        report.factor_bands_figure(state, factors=["f9"])
    plain = PCAModel(PCAConfig(n_factors=1))
    plain.fit(truth.panel)
    with pytest.raises(InsufficientDataError, match="covariance"):
        report.factor_bands_figure(plain.extract(truth.panel))


def test_weights_are_sorted_by_size_and_share_their_axis():
    one, two = report.weights_figure(
        {"a": {"spread": -0.6, "yield": 0.1, "volatility": 0.3}, "b": {"spread": 0.2, "yield": 0.5}}
    ).data
    assert list(one.y) == list(two.y) == ["yield", "volatility", "spread"]
    assert list(one.x) == [0.1, 0.3, -0.6]
    assert two.x[0] == 0.5
    assert np.isnan(two.x[1])
    with pytest.raises(InsufficientDataError, match="at least one"):
        report.weights_figure({})


def test_heat_map_of_a_grid_and_of_differences():
    grid = np.array([[0.4, np.nan], [0.1, -0.25]])
    (plain,) = report.r_squared_heat_map(grid, ["a", "b"], ["c", "d"], title="R²").data
    np.testing.assert_array_equal(plain.z, grid)
    assert plain.zmin == 0.0
    assert [list(line) for line in plain.text] == [["0.40", ""], ["0.10", "−0.25"]]
    (gap,) = report.r_squared_heat_map(grid, ["a", "b"], ["c", "d"], title="", difference=True).data
    assert (gap.zmin, gap.zmax) == (-0.4, 0.4)
    with pytest.raises(ConfigurationError, match="labels make"):
        report.r_squared_heat_map(grid, ["a"], ["c", "d"], title="")
