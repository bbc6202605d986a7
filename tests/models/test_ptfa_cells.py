"""PTFA as a law of cells: any cell of a panel given all others, against one dense Gaussian."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import EWMA, VAR, SeriesInfo
from latentfactors.conditional import ConditionalForecaster
from latentfactors.errors import PanelMismatchError
from latentfactors.nowcast import nowcast
from tests.models.test_ptfa import fitted, panel_of, simulate
from tests.oracles.dense_gaussian import joint_states

NAMES = ("x0", "x1", "x2", "x3", "jobs", "gdp")
TRAIN, T = 120, 20
BEFORE = 12


def data(aggregation, lead):
    """140 months of four predictors, a monthly target and one that may be quarterly."""
    values = simulate(TRAIN, lead=lead, persistence=(0.8, 0.4), missing=0.1, noise=0.6, p=4, q=2)
    values[-2:] = np.nan
    info = None
    if aggregation:
        weights = {"mean": np.ones(3) / 3, "mariano_murasawa": np.array([1, 2, 3, 2, 1]) / 3}[aggregation]
        full = simulate(TRAIN, lead=lead, persistence=(0.8, 0.4), noise=0.6, p=4, q=2)[:, 5]
        values[:, 5] = np.convolve(full, weights)[:TRAIN]
        values[np.arange(TRAIN) % 3 != 2, 5] = np.nan
        values[:5, 5] = np.nan
        values[-1, 5] = np.nan
        info = SeriesInfo(frequency=("M",) * 5 + ("Q",), aggregation=("mean",) * 5 + (aggregation,))
    return values, info


def dense(values, model, aggregation, lead):
    """Standardised values and the covariance of all cells under the fitted parameters."""
    e, k = model.estimates, 2
    coefficients = np.zeros((1, k, k)) if e.states is None else e.states.coefficients
    if not len(coefficients):
        coefficients = np.zeros((1, k, k))
    total = BEFORE + len(values)
    joint = joint_states(total, coefficients, np.zeros(k), np.eye(k), 1)[1]
    d = values.shape[1]
    design = np.zeros((len(values), d, total * k))
    noise = np.zeros((len(values), d))
    for j in range(d):
        window, share = np.ones(1), 1.0
        if j == 5 and aggregation == "mean":
            window, share = np.ones(3) / 3, 1 / 3
        elif j == 5 and aggregation:
            window = np.array([1, 2, 3, 2, 1]) / 3
        noise[:, j] = share * e.noise[j]
        for t in range(len(values)):
            for h, weight in enumerate(window):
                at = BEFORE + t - h - (lead if j >= 4 else 0)
                design[t, j, at * k : (at + 1) * k] += weight * e.loadings[j]
    flat = design.reshape(-1, total * k)
    z = (values - e.series.location) / e.series.scale
    return z, flat @ joint @ flat.T + np.diag(noise.ravel())


@pytest.mark.parametrize("lead", [0, 2])
@pytest.mark.parametrize("aggregation", ["", "mean", "mariano_murasawa"])
@pytest.mark.parametrize("dynamics", [None, VAR(1)])
def test_cells_have_the_law_of_the_joint_gaussian(dynamics, aggregation, lead):
    values, info = data(aggregation, lead)
    panel = panel_of(values, NAMES, series=info)
    settings = {"targets": ("jobs", "gdp"), "lead": lead, "dynamics": dynamics, "max_iterations": 40}
    model = fitted(panel, **settings)
    assert isinstance(model, ConditionalForecaster)
    cells = [("gdp", 119), ("jobs", 119), ("jobs", 118), ("x1", 118), ("jobs", 0), ("gdp", 65), ("x0", 3)]
    cells = [(name, panel.times[t]) for name, t in cells]
    law = model.conditional(panel, cells)
    z, covariance = dense(values, model, aggregation, lead)
    e = model.estimates
    column = [NAMES.index(name) for name, _ in cells]
    wanted = np.array([panel.index.position(t) * 6 + j for (_, t), j in zip(cells, column, strict=True)])
    seen = np.flatnonzero(np.isfinite(z).ravel())
    gain = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, wanted)]).T
    scale = e.series.scale[column]
    mean = e.series.location[column] + scale * (gain @ z.ravel()[seen])
    spread = covariance[np.ix_(wanted, wanted)] - gain @ covariance[np.ix_(seen, wanted)]
    np.testing.assert_allclose(law.mean, mean, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(law.covariance, spread * np.outer(scale, scale), rtol=1e-9, atol=1e-10)
    flat = panel.index.period_codes * 6 + panel.asset_codes
    full = np.zeros((len(cells), values.size))
    full[:, seen] = gain * scale[:, None] / e.series.scale[seen % 6]
    np.testing.assert_allclose(law.weights, full[:, flat], atol=1e-9)

    filled = model.expected_values(panel)
    np.testing.assert_array_equal(filled[panel.observed], panel.values[panel.observed])
    by_cell = dict(zip(flat.tolist(), filled.tolist(), strict=True))
    assert [by_cell[i] for i in wanted.tolist()] == pytest.approx(law.mean.tolist(), rel=1e-10, abs=1e-10)


def test_a_released_target_is_a_condition_and_the_desk_takes_the_model():
    values, info = data("mariano_murasawa", 0)
    panel = panel_of(values, NAMES, series=info)
    model = fitted(panel, targets=("jobs", "gdp"), dynamics=VAR(1))
    found = nowcast(model, panel, "gdp")
    assert found.kinds[0] == "nowcast"
    moved = values.copy()
    moved[:118, 4] += 1.0
    after = nowcast(model, panel_of(moved, NAMES, series=info), "gdp")
    assert abs(after.mean[0] - found.mean[0]) > 0.01
    longer = panel.extend(4)
    later = model.conditional(longer, [("gdp", longer.times[122]), ("gdp", panel.times[119])])
    assert later.covariance[0, 0] > later.covariance[1, 1] > 0.0
    with pytest.raises(PanelMismatchError, match="last month"):
        model.conditional(panel, [("gdp", panel.times[118])])


def test_moving_variances_have_a_law_without_weights():
    values, _ = data("", 0)
    panel = panel_of(values, NAMES)
    model = fitted(panel, targets=("jobs", "gdp"), volatility=EWMA())
    law = model.conditional(panel, [("jobs", panel.times[119]), ("gdp", panel.times[119])])
    assert law.weights is None
    # nothing is observed in the last month: the law is the unconditional one under the latest variances
    e = model.estimates
    common = e.target_loadings @ e.target_loadings.T
    scale = e.series.scale[4:]
    np.testing.assert_allclose(law.covariance[0, 1], (common * np.outer(scale, scale))[0, 1], rtol=1e-10)
    assert np.isfinite(model.expected_values(panel)).all()
