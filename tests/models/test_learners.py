"""Pooled learners: what they learn, what they hold out, what they refuse."""

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import GradientBoostingPredictor, NeuralNetworkPredictor, Panel
from latentfactors.errors import (
    ConfigurationError,
    HorizonError,
    InsufficientDataError,
    PanelMismatchError,
    StoreError,
)
from latentfactors.kernels.scores import r_squared
from latentfactors.models.neural_network import network_output
from latentfactors.pooled_learning import held_out, standard
from latentfactors.simulate import characteristic_panel

NETWORK = {"hidden": (16,), "epochs": 60, "n_ensemble": 2, "batch": 200, "learning_rate": 0.01}


def curved_panel(n_periods=60, n_assets=60, seed=0):
    """r = 2 z_1^2 + z_2 + small noise: a product that no linear model sees."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, (n_periods, n_assets, 3))
    r = 2 * z[..., 0] ** 2 + z[..., 1] + 0.1 * rng.standard_normal((n_periods, n_assets))
    return Panel.from_arrays(0.01 * r, z)


@pytest.mark.parametrize(
    "predictor",
    [NeuralNetworkPredictor(**NETWORK), GradientBoostingPredictor(learning_rate=0.1, min_rows=20)],
    ids=["network", "trees"],
)
def test_learns_what_is_curved(predictor):
    panel = curved_panel()
    summary = predictor.fit(panel.between(0, 45))
    forecast = predictor.predict(panel, start=panel.times[45]).asset_forecast.expected_values
    realised = panel.values[panel.offsets[45] :]
    assert r_squared(realised, forecast, np.full(realised.size, realised.mean())) > 0.9
    assert summary.n_iterations > 1


def test_the_network_is_scikit_learns():
    """Our forward pass from stored weights against MLPRegressor's own."""
    from sklearn.neural_network import MLPRegressor

    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((200, 3)), rng.standard_normal(200)
    learner = MLPRegressor(hidden_layer_sizes=(5, 4), max_iter=3, random_state=0)
    for _ in range(3):
        learner.partial_fit(x, y)
    ours = network_output(x, tuple(learner.coefs_), tuple(learner.intercepts_))
    np.testing.assert_allclose(ours, learner.predict(x), rtol=1e-12)


def test_stopping_keeps_the_best_epoch():
    """On noise the best epoch explains the held-out periods no worse than the first one."""
    rng = np.random.default_rng(2)
    panel = Panel.from_arrays(rng.standard_normal((40, 30)), rng.standard_normal((40, 30, 4)))
    once = NeuralNetworkPredictor(**{**NETWORK, "epochs": 1, "validation": 8})
    long = NeuralNetworkPredictor(**{**NETWORK, "validation": 8, "patience": 3})
    losses = []
    for predictor in (once, long):
        assert predictor.fit(panel).n_iterations < 60
        tail = predictor.predict(panel, start=panel.times[32]).asset_forecast.expected_values
        losses.append(np.square(panel.values[panel.offsets[32] :] - tail).mean())
    assert losses[1] <= losses[0] * (1 + 1e-3)


def test_the_last_periods_are_held_out():
    periods = np.repeat(np.arange(10), 2)
    assert held_out(periods, 10, 0.2).nonzero()[0].tolist() == [16, 17, 18, 19]
    assert held_out(periods, 10, 3).sum() == 6
    assert not held_out(periods, 10, 0).any()
    assert not held_out(periods[periods >= 8], 10, 0.2).any()  # nothing would be left: nothing is held out
    with pytest.raises(InsufficientDataError, match="validation=10 takes all of 10"):
        held_out(periods, 10, 10)


def test_trees_take_missing_characteristics_and_networks_do_not():
    panel = curved_panel()
    gappy = np.array(panel.characteristics)
    gappy[::3, 2] = np.nan
    panel = replace(panel, characteristics=gappy)
    trees = GradientBoostingPredictor(max_trees=20)
    trees.fit(panel)
    assert np.isfinite(trees.predict(panel).asset_forecast.expected_values).all()
    with pytest.raises(PanelMismatchError, match="NaN"):
        NeuralNetworkPredictor(**NETWORK).fit(panel)


def test_what_does_not_vary():
    assert standard(np.full(5, 0.1)) == (pytest.approx(0.1), 1.0)
    assert standard(np.full(1000, 0.1 + 0.2))[1] == 1.0
    panel = curved_panel(20, 10)
    constant = np.array(panel.characteristics)
    constant[:, 2] = 7.0
    panel = replace(panel, characteristics=constant, values=np.full(panel.n_rows, 0.25))
    for predictor in (NeuralNetworkPredictor(**NETWORK), GradientBoostingPredictor(max_trees=3)):
        predictor.fit(panel)
        forecast = predictor.predict(panel).asset_forecast.expected_values
        assert np.isfinite(forecast).all()
        assert np.abs(forecast - 0.25).max() < 0.2


def test_files(tmp_path):
    panel = curved_panel(30, 20)
    network = NeuralNetworkPredictor(**{**NETWORK, "epochs": 3})
    network.fit(panel)
    loaded = NeuralNetworkPredictor.load(network.save(tmp_path / "network"))
    np.testing.assert_array_equal(
        loaded.predict(panel).asset_forecast.expected_values,
        network.predict(panel).asset_forecast.expected_values,
    )
    trees = GradientBoostingPredictor(max_trees=3)
    trees.fit(panel)
    with pytest.raises(StoreError, match="pickle"):
        trees.save(tmp_path / "trees")


def test_bad_options_and_horizons():
    for options, word in (
        ({"hidden": ()}, "hidden"),
        ({"hidden": (0,)}, "hidden"),
        ({"validation": 1.0}, "validation"),
        ({"validation": -1}, "validation"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"epochs": 0}, "epochs"),
    ):
        with pytest.raises(ConfigurationError, match=word):
            NeuralNetworkPredictor(**options)
    for options, word in (({"leaves": 1}, "leaves"), ({"penalty": -1}, "penalty"), ({"max_trees": 0}, "max")):
        with pytest.raises(ConfigurationError, match=word):
            GradientBoostingPredictor(**options)
    panel = characteristic_panel(n_periods=30, n_assets=20, n_factors=2, seed=1).panel
    trees = GradientBoostingPredictor(max_trees=3, horizon=2)
    trees.fit(panel)
    with pytest.raises(HorizonError, match="built for horizon=2"):
        trees.predict(panel)
    assert trees.with_validation(6).config.validation == 6
    assert trees.with_validation(6).identity != trees.identity
