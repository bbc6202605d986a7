"""What the figures of learned factors show is what the results hold."""

import numpy as np
import pytest

from latentfactors import IPCAConfig, IPCAModel
from latentfactors.errors import ConfigurationError
from latentfactors.evaluate import LoadingProfiles, MacroCorrelations, loading_profiles, sort_on_loadings
from latentfactors.report import learned_figures
from latentfactors.simulate import characteristic_panel


@pytest.fixture(scope="module")
def panel():
    return characteristic_panel(n_periods=90, n_assets=40, n_factors=2, seed=2).panel


@pytest.fixture(scope="module")
def state(panel):
    model = IPCAModel(IPCAConfig(n_factors=2))
    model.fit(panel.between(0, 60))
    return model.extract(panel)


def test_learned_factors(panel, state):
    figure = learned_figures.learned_factors_figure(state, cumulative=False)
    f = state.factor_returns
    for k, line in enumerate(figure.data):
        np.testing.assert_allclose(line.y, f[:, k] / f[:, k].std())
    added = learned_figures.learned_factors_figure(state)
    np.testing.assert_allclose(added.data[1].y[-1], f[:, 1].sum() / f[:, 1].std())
    assert added.layout.shapes[-1].x0 == str(state.fit_span.end)  # the end of training
    spreads = sort_on_loadings(state, panel, n_quantiles=5)
    assert len(learned_figures.learned_factors_figure(spreads).layout.shapes) == 1


def test_many_series_stand_in_lines():
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, size=(2, 15))
    values[0, 3] = np.nan
    found = MacroCorrelations(
        values=values, t_statistics=10 * values, n_periods=np.full((2, 15), 200),
        factor_names=("F1", "<b>"), series_names=tuple(f"s{m}" for m in range(15)),
    )  # fmt: skip
    heat = learned_figures.macro_correlations_figure(found).data[0]
    np.testing.assert_array_equal(heat.z, values.T)
    assert list(heat.x) == ["F1", "&lt;b&gt;"]
    assert heat.text[3][0] == ""
    starred = np.array([[cell.endswith("*") for cell in line] for line in heat.text])
    np.testing.assert_array_equal(starred, np.nan_to_num(np.abs(10 * values.T)) > 3)


def test_long_names_stand_in_lines_and_nothing_is_minus_zero():
    values = np.full((2, 8), -0.001)
    found = MacroCorrelations(
        values=values, t_statistics=10 * values, n_periods=np.full((2, 8), 200),
        factor_names=("F1", "F2"), series_names=tuple(f"industrial production {m}" for m in range(8)),
    )  # fmt: skip
    heat = learned_figures.macro_correlations_figure(found).data[0]
    assert heat.z.shape == (8, 2)
    assert (heat.text == "0.00").all()


def test_profiles_show_the_largest_or_the_chosen(panel, state):
    found = loading_profiles(state, panel, n_quantiles=5)
    name = panel.characteristic_names[2]
    figure = learned_figures.loading_profiles_figure(found, characteristics=[name])
    assert [line.name for line in figure.data] == ["F1", "F2"]
    np.testing.assert_array_equal(figure.data[1].y, found.averages[2, :, 1])
    many = LoadingProfiles(
        averages=np.arange(20.0)[:, None, None] * np.array([[0.0], [1.0]]), slopes=np.ones((20, 1)),
        names=tuple(f"c{j}" for j in range(20)), factor_names=("F1",),
    )  # fmt: skip
    shown = learned_figures.loading_profiles_figure(many)
    assert len(shown.data) == 12
    assert [note.text for note in shown.layout.annotations] == [f"c{j}" for j in range(8, 20)]
    with pytest.raises(ConfigurationError, match="'nothing'"):
        learned_figures.loading_profiles_figure(found, characteristics=["nothing"])
    with pytest.raises(ConfigurationError, match="'F9'"):
        learned_figures.loading_profiles_figure(found, factor="F9")


def test_portfolios_add_up(panel, state):
    found = sort_on_loadings(state, panel, n_quantiles=5)
    figure = learned_figures.loading_portfolios_figure(found)
    lines = [line for line in figure.data if line.name in found.names]
    np.testing.assert_allclose(lines[1].y, 100 * np.nancumsum(found.long_short[:, 1]))
    assert "by loading" in figure.layout.title.text
