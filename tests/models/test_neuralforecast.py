"""The adapter of neuralforecast, against a small module with the same doors; the real one brings PyTorch.

Where neuralforecast is installed the last test runs its five networks.
"""

import importlib.util
import os
import random
import sys
import types
import warnings

import numpy as np
import polars as pl
import pytest

from latentfactors import ExpandingWindow, NeuralForecastPredictor, Panel, walk_forward
from latentfactors.errors import (
    ConfigurationError,
    GapError,
    HorizonError,
    InsufficientDataError,
    MissingCapabilityError,
    StoreError,
)
from latentfactors.evaluate.contenders import what_it_sees
from latentfactors.simulate import static_panel

NETWORKS = ("DLinear", "MLP", "PatchTST", "VanillaTransformer", "iTransformer")
REAL = importlib.util.find_spec("neuralforecast") is not None
SMALL = {"input_size": 6, "max_steps": 5}


class Network:
    """Takes the arguments of neuralforecast's networks; forecasts the mean of the window."""

    def __init__(self, h, input_size, loss, random_seed, **options):
        self.h, self.input_size, self.options = h, input_size, options
        random.seed(random_seed)
        np.random.seed(random_seed)  # noqa: NPY002
        os.environ["PL_GLOBAL_SEED"] = str(random_seed)


class FakeNeuralForecast:
    """`fit(df=)` and `predict(df=)` on frames with unique_id, ds, y and available_mask."""

    def __init__(self, models, freq):
        assert freq == 1
        self.model = models[0]

    def fit(self, df):
        self.check(df)
        warnings.warn("the real one warns a lot", stacklevel=1)
        self.training = df

    def check(self, df):
        assert df.columns == ["unique_id", "ds", "y", "available_mask"]
        assert np.isfinite(df["y"].to_numpy()).all()
        assert set(df["available_mask"].unique()) <= {0.0, 1.0}

    def predict(self, df):
        self.check(df)
        sizes = df.group_by("unique_id").len()["len"]
        assert sizes.unique().to_list() == [self.model.input_size]
        means = df.group_by("unique_id").agg(pl.col("y").mean())
        steps = pl.DataFrame({"ds": np.arange(self.model.h)})
        forecast = (pl.col("y") + pl.col("ds").cast(pl.Float64)).cast(pl.Float32)
        name = type(self.model).__name__
        return means.join(steps, how="cross").select("unique_id", "ds", forecast.alias(name))


@pytest.fixture
def fake(monkeypatch):
    """The library replaced by the small one."""
    library = types.ModuleType("neuralforecast")
    library.NeuralForecast = FakeNeuralForecast
    models = types.ModuleType("neuralforecast.models")
    for name in NETWORKS:
        setattr(models, name, type(name, (Network,), {}))
    losses = types.ModuleType("neuralforecast.losses")
    pytorch = types.ModuleType("neuralforecast.losses.pytorch")
    pytorch.MSE = object
    for module in (library, models, losses, pytorch):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture(scope="module")
def panel():
    return static_panel(n_periods=50, n_assets=8, n_factors=2, missing=0.15, seed=1).panel


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("network", NETWORKS)
def test_forecasts_by_hand(panel, network):
    """The mean of a window in training units, missing cells replaced by the asset's training mean."""
    predictor = NeuralForecastPredictor(network, **SMALL)
    predictor.fit(panel.between(0, 40))
    forecast = predictor.predict(panel, start=panel.times[40]).asset_forecast.wide()
    wide = panel.wide()
    means = np.nanmean(wide[:40], axis=0)
    for p in range(40, 50):
        window = wide[p - 6 : p]
        filled = np.where(np.isfinite(window), window, means)
        enough = np.isfinite(window).sum(axis=0) >= 3
        np.testing.assert_allclose(
            forecast[p - 40][enough], filled.mean(axis=0)[enough], rtol=1e-4, atol=1e-7
        )
        assert np.isnan(forecast[p - 40][~enough]).all()


@pytest.mark.usefixtures("fake")
def test_history_new_assets_and_horizon(panel):
    predictor = NeuralForecastPredictor(**SMALL)
    predictor.fit(panel.between(0, 40))
    whole = predictor.predict(panel, start=panel.times[40]).asset_forecast.wide()
    after = predictor.predict(panel.between(40, 50)).asset_forecast.wide()
    np.testing.assert_array_equal(after, whole)
    with pytest.raises(GapError):
        predictor.predict(panel.between(45, 50))
    with pytest.raises(HorizonError, match="built for horizon=1"):
        predictor.predict(panel, horizon=2)
    two = NeuralForecastPredictor(horizon=2, **SMALL)
    two.fit(panel.between(0, 40))
    further = two.predict(panel, start=panel.times[40], horizon=2).asset_forecast.wide()
    # the small library adds one standard deviation a step
    scale = np.nanstd(panel.wide()[:40])
    np.testing.assert_allclose(further - whole, np.full(whole.shape, scale), rtol=1e-5)
    few = panel.select(panel.assets[:5])
    for network, known in (("DLinear", 8), ("iTransformer", 5)):
        predictor = NeuralForecastPredictor(network, **SMALL)
        predictor.fit(few.between(0, 40))
        forecast = predictor.predict(panel, start=panel.times[45]).asset_forecast.wide()
        assert np.isfinite(forecast).any(axis=0).sum() == known


@pytest.mark.usefixtures("fake")
def test_no_look_ahead_and_missing_is_missing(panel):
    predictor = NeuralForecastPredictor("iTransformer", **SMALL)
    predictor.fit(panel.between(0, 40))
    before = predictor.predict(panel, start=panel.times[40]).asset_forecast.wide()
    changed = np.array(panel.values)
    changed[panel.offsets[45] :] = 9.0
    after = predictor.predict(panel.with_values(changed), start=panel.times[40]).asset_forecast.wide()
    np.testing.assert_array_equal(after[:6], before[:6])
    assert not np.array_equal(after[6:], before[6:])
    wide = panel.wide()
    wide[:, 0] = np.nan
    predictor.fit(Panel.from_wide(wide, universe="all").between(0, 40))
    assert np.isnan(predictor.estimates.means).sum() == 0


@pytest.mark.usefixtures("fake")
def test_the_process_is_left_as_it_was(panel):
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    NeuralForecastPredictor(**SMALL).fit(panel)  # warnings are errors in these tests
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert "PL_GLOBAL_SEED" not in os.environ


@pytest.mark.usefixtures("fake")
def test_walks_forward(panel):
    result = walk_forward(NeuralForecastPredictor(**SMALL), panel, ExpandingWindow(first=40, step=5))
    assert result.metrics()["n_forecasts"] > 50
    assert what_it_sees(NeuralForecastPredictor()) == "own history"
    assert what_it_sees(NeuralForecastPredictor("iTransformer")) == "all histories"


@pytest.mark.usefixtures("fake")
def test_refusals(panel, tmp_path):
    for options in ({"network": "LSTM"}, {"hidden": 30}, {"input_size": 1}, {"learning_rate": 0.0}):
        with pytest.raises(ConfigurationError):
            NeuralForecastPredictor(**options)
    with pytest.raises(InsufficientDataError, match="need 25 training periods, got 10"):
        NeuralForecastPredictor().fit(panel.between(0, 10))
    predictor = NeuralForecastPredictor(**SMALL)
    predictor.fit(panel)
    with pytest.raises(StoreError):
        predictor.save(tmp_path)


@pytest.mark.skipif(REAL, reason="neuralforecast is installed")
def test_without_the_library(panel):
    with pytest.raises(MissingCapabilityError, match="pip install neuralforecast"):
        NeuralForecastPredictor(**SMALL).fit(panel)


@pytest.mark.skipif(not REAL, reason="neuralforecast is not installed")
@pytest.mark.parametrize("network", NETWORKS)
def test_the_real_one(panel, network):
    predictor = NeuralForecastPredictor(network, **SMALL)
    predictor.fit(panel.between(0, 40))
    first = predictor.predict(panel, start=panel.times[40]).asset_forecast.wide()
    assert np.isfinite(first).mean() > 0.8
    again = predictor.clone()
    again.fit(panel.between(0, 40))
    np.testing.assert_array_equal(again.predict(panel, start=panel.times[40]).asset_forecast.wide(), first)
