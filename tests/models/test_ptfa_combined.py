"""PTFA with dynamics or low frequencies beside a lead, an imposed weight, a bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import EWMA, VAR, Bootstrap, PTFAConfig, SeriesInfo
from latentfactors.errors import ConfigurationError, HorizonError
from tests.models.test_ptfa import Y_NAMES, fitted, panel_of, simulate
from tests.oracles.dense_gaussian import joint_states


def test_a_lead_beside_dynamics_forecasts_from_the_lead_on():
    lead = 2
    values = simulate(300, lead=lead, persistence=(0.9, 0.6), noise=0.5)
    panel = panel_of(values)
    with_lead, without = (
        fitted(panel.between(0, 240), dynamics=VAR(1), lead=h, max_iterations=100) for h in (lead, 0)
    )
    # y_(t+2) loads on f_t: a model that says so finds more in x
    assert with_lead.summary.loglikelihood > without.summary.loglikelihood - 50
    assert with_lead.score(panel.between(240, 300)) > without.score(panel.between(240, 300)) + 0.05
    native = with_lead.extract(panel).native
    known = with_lead.extract(panel.between(0, 280)).native
    for h in (2, 3):
        np.testing.assert_array_equal(
            panel.index.dense(native.values(h)[0])[:280],
            panel.between(0, 280).index.dense(known.values(h)[0]),
        )
    forecast = panel.index.dense(native.values(3)[0])[:, 10:]
    rows = np.arange(242, 298)
    assert np.corrcoef(forecast[rows, 0], values[rows + 2, 10])[0, 1] > 0.5
    with pytest.raises(HorizonError, match="lead=2"):
        native.values(1)


@pytest.mark.parametrize("dynamics", [None, VAR(1)])
def test_an_imposed_weight_holds_and_the_likelihood_is_that_of_the_data(dynamics):
    T = 20
    values = simulate(T, persistence=(0.5, 0.2), p=3, q=2)
    values[np.arange(T) % 3 != 2, 4] = np.nan
    names, info = ("x0", "x1", "x2", "a", "b"), SeriesInfo(frequency=("M",) * 4 + ("Q",))
    model = fitted(
        panel_of(values, names, series=info), targets=("a", "b"), dynamics=dynamics, target_weight=2.0,
        n_factors=1, max_iterations=30,
    )  # fmt: skip
    e = model.estimates
    assert np.sqrt(e.predictor_variance / e.target_variance) == pytest.approx(2.0, rel=1e-8)
    # one dense Gaussian of all observed cells; the quarter is a mean of three months with noise s_y^2/3
    before = 6
    A = e.states.coefficients if len(e.states.coefficients) else np.zeros((1, 1, 1))
    joint = joint_states(before + T, A, np.zeros(1), np.eye(1), 1)[1]
    design, noise = np.zeros((T, 5, before + T)), np.zeros((T, 5))
    for j in range(5):
        width = 3 if j == 4 else 1
        noise[:, j] = (e.predictor_variance if j < 3 else e.target_variance) / width
        for t in range(T):
            design[t, j, before + t - width + 1 : before + t + 1] = e.loadings[j, 0] / width
    z = ((values - e.series.location) / e.series.scale).ravel()
    seen = np.isfinite(z)
    flat = design.reshape(-1, before + T)[seen]
    covariance = flat @ joint @ flat.T + np.diag(noise.ravel()[seen])
    quadratic = z[seen] @ np.linalg.solve(covariance, z[seen])
    dense = -0.5 * (seen.sum() * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + quadratic)
    assert model.summary.loglikelihood == pytest.approx(dense, rel=1e-10)
    path = np.array(model.summary.objective)
    assert (np.diff(path) >= -1e-9 * np.abs(path[:-1])).all()


def test_a_weight_by_cross_validation_with_dynamics():
    values = simulate(90, persistence=(0.8, 0.4), p=4, q=1)
    names = ("x0", "x1", "x2", "x3", "gdp")
    model = fitted(
        panel_of(values, names), targets=("gdp",), n_factors=1, dynamics=VAR(1), target_weight="cv",
        max_iterations=60,
    )  # fmt: skip
    e = model.estimates
    assert np.sqrt(e.predictor_variance / e.target_variance) == pytest.approx(e.noise_ratio, rel=1e-6)


@pytest.mark.parametrize("quarterly", [False, True])
def test_a_bootstrap_with_dynamics_widens_intervals_and_leaves_means(quarterly, tmp_path):
    values = simulate(60, persistence=(0.7, 0.3), missing=0.1, p=4, q=2)
    names, info = ("x0", "x1", "x2", "x3", "a", "b"), None
    if quarterly:
        values[np.arange(60) % 3 != 2, 5] = np.nan
        info = SeriesInfo(frequency=("M",) * 5 + ("Q",))
    panel = panel_of(values, names, series=info)
    shared = {"targets": ("a", "b"), "n_factors": 1, "dynamics": VAR(1), "max_iterations": 100}
    plain, wide = (
        fitted(panel, **shared, parameter_uncertainty=each) for each in (None, Bootstrap(12, seed=3))
    )
    for h in (0, 1):
        (a, va), (b, vb) = (model.extract(panel).native.values(h) for model in (plain, wide))
        np.testing.assert_array_equal(a, b)
        known = np.isfinite(va) & (va > 0)
        assert known.any()
        assert (vb[known] > va[known]).all()
        assert (vb[known] < 4 * va[known]).all()
    again = fitted(panel, **shared, parameter_uncertainty=Bootstrap(12, seed=3))
    np.testing.assert_array_equal(again.estimates.state_draws.loadings, wide.estimates.state_draws.loadings)
    wide.save(tmp_path / "model")
    loaded = type(wide).load(tmp_path / "model").extract(panel).native.values(1)[1]
    np.testing.assert_array_equal(loaded, vb)


def test_moving_variances_with_dynamics_are_refused_with_the_reason():
    with pytest.raises(ConfigurationError, match="filtered with the variances"):
        PTFAConfig(n_factors=2, targets=Y_NAMES, dynamics=VAR(), volatility=EWMA())
