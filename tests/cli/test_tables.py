from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from latentfactors import (
    CrossSectionalOLSPredictor,
    ExpandingWindow,
    HistoricalMeanPredictor,
    ZeroPredictor,
    walk_forward,
)
from latentfactors.errors import ConfigurationError
from latentfactors.evaluate import metrics_table, predictions_table, weights_table
from latentfactors.evaluate.tables import common_cells
from latentfactors.kernels import scores
from latentfactors.simulate import characteristic_panel, static_panel
from latentfactors.track_record import SplitFailure

SPLITS = ExpandingWindow(first=30, step=10)


@pytest.fixture(scope="module")
def panel():
    return characteristic_panel(n_periods=60, n_assets=12, n_factors=2, seed=3).panel


@pytest.fixture(scope="module")
def results(panel):
    predictors = {
        "mean": HistoricalMeanPredictor(),
        "late": HistoricalMeanPredictor(min_periods=40),
        "ols": CrossSectionalOLSPredictor(),
        "zero": ZeroPredictor(),
    }
    return {name: walk_forward(each, panel, SPLITS) for name, each in predictors.items()}


def test_benchmarks_score_exactly_zero_against_themselves(results):
    table = metrics_table({name: results[name] for name in ("mean", "zero")})
    assert table.row(by_predicate=pl.col("name") == "mean", named=True)["r2_mean"] == 0.0
    zero = table.row(by_predicate=pl.col("name") == "zero", named=True)
    assert zero["r2_zero"] == 0.0
    assert np.isnan([zero["rank_ic"], zero["rank_ic_t"], zero["coverage_90"], zero["total_r2"]]).all()


def test_scores_are_of_the_cells_that_all_forecast(results):
    table = metrics_table(results)
    forecast = {name: np.isfinite(each.record.forecast) for name, each in results.items()}
    known = np.isfinite(results["zero"].record.realised)
    common = known & np.logical_and.reduce(list(forecast.values()))
    assert 0 < common.sum() < known.sum()
    assert table["n_forecasts"].to_list() == [common.sum()] * 4
    assert table["n_own"].to_list() == [int((each & known).sum()) for each in forecast.values()]
    record = results["ols"].record
    expected = scores.r_squared(record.realised[common], record.forecast[common])
    ols = table.row(by_predicate=pl.col("name") == "ols", named=True)
    assert ols["r2_zero"] == pytest.approx(expected, rel=1e-12)
    # the order of predictors changes the order of lines and nothing else
    turned = metrics_table(dict(reversed(results.items()))).reverse()
    assert turned.equals(table, null_equal=True)


def test_a_failed_split_is_common_ground_for_none(results):
    full = results["ols"]
    broken = replace(
        full, blocks=(None, *full.blocks[1:]), failures=(SplitFailure("the first", "for a test"),)
    )
    cells = common_cells({"ols": broken, "mean": results["mean"]})
    n_first = full.blocks[0].expected_values.size
    assert cells["ols"].size == full.record.realised.size - n_first
    assert not cells["mean"][:n_first].any()
    np.testing.assert_array_equal(cells["mean"][n_first:], cells["ols"])
    table = metrics_table({"ols": broken, "mean": results["mean"]})
    assert table["n_failed"].to_list() == [1, 0]
    assert table["n_forecasts"][0] == table["n_forecasts"][1] == cells["ols"].sum()


def test_only_comparable_results_are_compared(results, panel):
    other = static_panel(n_periods=60, n_assets=12, n_factors=2, seed=4).panel
    twin = replace(panel, notes=("the same data",))
    assert len(metrics_table({"a": results["zero"], "b": walk_forward(ZeroPredictor(), twin, SPLITS)})) == 2
    for strange, word in (
        (walk_forward(ZeroPredictor(), other, SPLITS), "panels"),
        (walk_forward(ZeroPredictor(), panel, SPLITS, horizon=2), "horizon 2 and 1"),
        (walk_forward(ZeroPredictor(), panel, ExpandingWindow(first=30, step=15)), "splits"),
    ):
        with pytest.raises(ConfigurationError, match=word):
            metrics_table({"one": results["zero"], "strange": strange})
    with pytest.raises(ConfigurationError, match="at least one"):
        metrics_table({})


@pytest.mark.parametrize("backend", ["polars", "pandas", "pyarrow"])
def test_backends(results, backend):
    table = metrics_table(results, backend)
    assert type(table).__module__.split(".")[0] == backend


def test_predictions_of_all_stand_below_each_other(results):
    stacked = predictions_table({name: results[name] for name in ("mean", "zero")})
    assert stacked.columns == [
        "predictor", "timestamp", "asset", "prediction_value", "target_timestamp", "prediction_std",
    ]  # fmt: skip
    assert stacked["prediction_std"].null_count() == stacked.height
    assert stacked["predictor"].unique(maintain_order=True).to_list() == ["mean", "zero"]
    assert weights_table(results) is None
    assert stacked.schema["prediction_std"].is_float()
