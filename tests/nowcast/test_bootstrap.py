"""Parameter uncertainty of nowcasts: seeded, about the real data, and what short samples need."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import DFMConfig, DynamicFactorModel, PCAConfig, PCAModel
from latentfactors.errors import ConfigurationError, MissingCapabilityError
from latentfactors.nowcast import ParameterBootstrap, bootstrap_parameters, nowcast
from tests.models.test_dfm import draw, panel_of


def short_panel(seed, T=25, hidden=3):
    """T months of six series, the last of the first three unseen; what they are, and a month later."""
    _, values = draw(T + 1, 6, 2, phi=0.0, seed=seed)
    seen = values[:T].copy()
    seen[-1, :hidden] = np.nan
    return panel_of(seen), values[T - 1 :, :hidden]


def fit(panel):
    model = DynamicFactorModel(DFMConfig(n_factors=2, idiosyncratic="iid", tolerance=1e-2, max_iterations=60))
    model.fit(panel)
    return model


def test_draws_are_seeded_and_speak_about_the_real_data():
    panel, _ = short_panel(1)
    model = fit(panel)
    few = bootstrap_parameters(model, panel, ParameterBootstrap(n_draws=2, seed=7))
    more = bootstrap_parameters(model, panel, ParameterBootstrap(n_draws=3, seed=7), n_jobs=2)
    other = bootstrap_parameters(model, panel, ParameterBootstrap(n_draws=2, seed=8))
    for a, b, c in zip(few, more[:2], other, strict=True):
        np.testing.assert_allclose(a.estimates.loadings, b.estimates.loadings, atol=1e-10)
        assert np.abs(a.estimates.loadings - c.estimates.loadings).max() > 1e-3
        np.testing.assert_array_equal(a.estimates.training.values, model.estimates.training.values)
    assert np.abs(few[0].estimates.loadings - few[1].estimates.loadings).max() > 1e-3
    # a panel that continues the training panel is read with the real history, not with a draw's
    later = panel.extend(1).between(25, 26)
    cells = [("s00", later.times[0])]
    np.testing.assert_allclose(
        few[0].conditional(later, cells).mean, few[0].conditional(panel.extend(1), cells).mean, atol=1e-10
    )
    found = nowcast(model, panel, "s00", parameter_draws=more)
    means = np.array(
        [each.conditional(panel.extend(1), [("s00", p) for p in found.periods]).mean for each in more]
    )
    np.testing.assert_allclose(found.parameter_covariance, np.cov(means, rowvar=False))


def test_in_short_samples_intervals_of_the_state_alone_are_too_narrow():
    """Standardised errors of 72 cells: their mean square is 1 where densities are right."""
    errors, widths = {"state": [], "all": []}, []
    for seed in range(12):
        panel, truth = short_panel(1000 + seed)
        model = fit(panel)
        draws = bootstrap_parameters(model, panel, ParameterBootstrap(n_draws=8, seed=seed))
        for k in range(3):
            state = nowcast(model, panel, f"s0{k}", ahead=1)
            whole = nowcast(model, panel, f"s0{k}", ahead=1, parameter_draws=draws)
            np.testing.assert_array_equal(state.mean, whole.mean)
            errors["state"].append((truth[:, k] - state.mean) / state.standard_deviation)
            errors["all"].append((truth[:, k] - whole.mean) / whole.standard_deviation)
            widths.append(whole.standard_deviation / state.standard_deviation)
    state, whole = (np.abs(np.concatenate(errors[name])) for name in ("state", "all"))
    assert np.median(widths) > 1.05
    assert np.mean(state**2) > 1.3
    assert abs(np.mean(whole**2) - 1.0) < 0.8 * abs(np.mean(state**2) - 1.0)
    covered = [np.mean(each < 1.645) for each in (state, whole)]
    assert covered[0] < covered[1]
    assert abs(covered[1] - 0.9) < abs(covered[0] - 0.9)


def test_what_cannot_be_bootstrapped():
    for options in ({"n_draws": 1}, {"seed": -1}, {"n_draws": 2.5}):
        with pytest.raises(ConfigurationError, match="must be a whole number"):
            ParameterBootstrap(**options)
    panel, _ = short_panel(2)
    with pytest.raises(MissingCapabilityError, match="PCAModel cannot draw"):
        bootstrap_parameters(PCAModel(PCAConfig(n_factors=1)), panel, ParameterBootstrap())
