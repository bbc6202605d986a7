"""`compare`: the same masks, splits and metrics for all, and numbers that a direct computation gives too."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from latentfactors import (
    BetaLambdaMapper,
    CrossSectionalOLSPredictor,
    ExpandingMeanFactorForecaster,
    ExpandingWindow,
    HistoricalMeanPredictor,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    NeuralNetworkPredictor,
    ObservedFactorConfig,
    ObservedFactorModel,
    Panel,
    PCAConfig,
    PCAModel,
    ZeroPredictor,
    compare,
    default_models,
    walk_forward,
)
from latentfactors.errors import ConfigurationError, InsufficientDataError, LatentFactorsError
from latentfactors.evaluate import contenders, diebold_mariano, diebold_mariano_table, sort_portfolios
from latentfactors.evaluate.comparison import confidence_set_of, period_losses, whole_records
from latentfactors.evaluate.contenders import named_predictors_of, observed_sets, what_it_sees
from latentfactors.evaluate.tables import metrics_table
from latentfactors.kernels import scores
from latentfactors.simulate import characteristic_panel, dynamic_factor_panel, static_panel

SPLITS = ExpandingWindow(first=40, step=10)


@pytest.fixture(scope="module")
def panel():
    truth = characteristic_panel(
        n_periods=70, n_assets=30, n_factors=2, n_characteristics=4, missing=0.05, live=1, seed=3
    )
    factors = {"observed_factors": truth.factors, "observed_factor_names": ("F1", "F2")}
    return replace(truth.panel, **factors)


def pipeline(model):
    return LatentFactorForecastPipeline(
        model=model, forecaster=ExpandingMeanFactorForecaster(), mapper=BetaLambdaMapper()
    )


MODELS = {
    "mean": HistoricalMeanPredictor(),
    "late": HistoricalMeanPredictor(min_periods=45),
    "ols": CrossSectionalOLSPredictor(),
    "IPCA": pipeline(IPCAModel(IPCAConfig(n_factors=2))),
    "PCA": pipeline(PCAModel(PCAConfig(n_factors=2))),
    "observed": pipeline(ObservedFactorModel(ObservedFactorConfig(factors=("F1", "F2"), alpha=False))),
    "zero": ZeroPredictor(),
}


@pytest.fixture(scope="module")
def found(panel):
    return compare(panel, MODELS, splits=SPLITS)


def line(found, name):
    return found.table().row(by_predicate=pl.col("name") == name, named=True)


def test_the_table_is_what_the_walk_forwards_give(found, panel):
    records = {name: walk_forward(each, panel, SPLITS).record for name, each in MODELS.items()}
    realised = records["zero"].realised
    shared = np.logical_and.reduce([np.isfinite(each.forecast) for each in records.values()])
    mask = shared & np.isfinite(realised)
    described = np.logical_and.reduce(
        [np.isfinite(records[name].reconstruction) for name in ("IPCA", "PCA", "observed")]
    ) & np.isfinite(realised)
    for name, record in records.items():
        row, r, f = line(found, name), realised[mask], record.forecast[mask]
        assert row["r2_zero"] == pytest.approx(1 - np.sum((r - f) ** 2) / np.sum(r**2), rel=1e-12)
        benchmark = record.historical_mean[mask]
        known = np.isfinite(benchmark)
        r2_mean = 1 - np.sum((r - f)[known] ** 2) / np.sum((r - benchmark)[known] ** 2)
        assert row["r2_mean"] == pytest.approx(r2_mean, rel=1e-12, abs=1e-14)
        assert row["rmse"] == pytest.approx(np.sqrt(np.mean((r - f) ** 2)), rel=1e-12)
        assert row["mae"] == pytest.approx(np.mean(np.abs(r - f)), rel=1e-12)
        assert row["n_forecasts"] == mask.sum()
        assert row["n_own"] == int((np.isfinite(record.forecast) & np.isfinite(realised)).sum())
        if name in ("IPCA", "PCA", "observed"):
            own, fitted = record.own_value[described], record.reconstruction[described]
            expected = 1 - np.sum((own - fitted) ** 2) / np.sum(own**2)
            assert row["total_r2"] == pytest.approx(expected, rel=1e-12)
        else:
            assert np.isnan(row["total_r2"])
    sort = sort_portfolios(
        replace(records["ols"], forecast=np.where(shared, records["ols"].forecast, np.nan)),
        panel,
        n_quantiles=3,  # 20 rows in a typical period
    )
    spread = sort.frame().row(-1, named=True)
    assert line(found, "ols")["long_short_sharpe"] == pytest.approx(spread["sharpe"], rel=1e-12)
    assert line(found, "ols")["long_short_t"] == pytest.approx(spread["t"], rel=1e-12)
    assert np.isnan(line(found, "zero")["long_short_t"])
    assert "nothing to sort" in found.unsorted["zero"]


def test_which_cells_are_common(found):
    record = found.records["zero"]
    known = np.isfinite(record.realised)
    forecast = {name: np.isfinite(each.forecast) for name, each in found.records.items()}
    assert found.cells.n_known == known.sum()
    assert found.cells.n_cells == found.mask.sum() < known.sum()
    others = np.logical_and.reduce([each for name, each in forecast.items() if name != "late"])
    assert found.cells.lost["late"] == (known & others & ~forecast["late"]).sum() > 0
    assert found.cells.lost["zero"] == 0
    assert f"late alone leaves out {found.cells.lost['late']:,}" in str(found.cells)
    assert str(found.cells) in repr(found)


def test_diebold_mariano_is_the_panel_test(found):
    """Each entry against the test on (T, N) tables of the common cells."""
    record, table = found.records["zero"], found.diebold_mariano
    n_assets = found.panel.n_assets
    period = np.repeat(np.arange(record.offsets.size - 1), np.diff(record.offsets))

    def wide(column):
        out = np.full((record.offsets.size - 1, n_assets), np.nan)
        out[period[found.mask], record.asset_codes[found.mask]] = column[found.mask]
        return out

    realised = wide(record.realised)
    for i, row in enumerate(table.names):
        assert np.isnan(table.statistics[i, i])
        for j, column in enumerate(table.names):
            if {row, column} <= {"mean", "late"}:  # on common cells the same forecast
                assert np.isnan(table.statistics[i, j])
            if row == column or {row, column} <= {"mean", "late"}:
                continue
            test = diebold_mariano(
                realised, wide(found.records[row].forecast), wide(found.records[column].forecast)
            )
            assert table.statistics[i, j] == pytest.approx(test.statistic, rel=1e-9)
            assert table.p_values[i, j] == pytest.approx(test.p_value, rel=1e-9)
    assert table.n_periods == found.cells.n_periods
    assert table.frame().columns == ["name", *table.names]


def test_the_same_forecast_twice_has_no_test(panel):
    found = compare(panel, {"a": ZeroPredictor(), "b": ZeroPredictor()}, splits=SPLITS)
    assert np.isnan(found.diebold_mariano.statistics).all()
    assert found.confidence_set is None
    assert "two different forecasts" in found.confidence_note


def test_the_better_model_is_better():
    """Slopes that never change: least squares finds them, and nobody who ignores characteristics can."""
    rng = np.random.default_rng(4)
    z = rng.uniform(-0.5, 0.5, (80, 25, 2))
    values = 0.1 * z[..., 0] - 0.05 * z[..., 1] + 0.1 * rng.standard_normal((80, 25))
    planted = Panel.from_arrays(values, z)
    models = {name: MODELS[name] for name in ("zero", "mean", "ols")}
    found = compare(planted, models, splits=SPLITS)
    zero, mean, ols = range(3)
    statistics = found.diebold_mariano.statistics
    assert statistics[zero, ols] > 3  # row zero, column OLS: the column is better
    assert statistics[mean, ols] > 3
    assert statistics[ols, zero] == -statistics[zero, ols]
    assert line(found, "ols")["r2_zero"] > 0.05 > line(found, "mean")["r2_zero"]
    assert line(found, "ols")["rank_ic"] > 0.2
    assert line(found, "ols")["long_short_t"] > 3


class Counting(HistoricalMeanPredictor):
    """Counts its fits, over all clones."""

    fits = 0

    def fit(self, panel):
        type(self).fits += 1
        return super().fit(panel)


def test_a_stopped_comparison_goes_on(panel, tmp_path):
    models = {"counting": Counting(), "ols": CrossSectionalOLSPredictor()}
    whole = compare(panel, models, splits=SPLITS)
    Counting.fits, seen = 0, []

    class StopError(Exception):
        pass

    def stop(name, done, total):
        seen.append((name, done, total))
        if done == 6:
            raise StopError

    with pytest.raises(StopError):
        compare(panel, models, splits=SPLITS, store=tmp_path, progress=stop)
    n_splits = len(SPLITS.split(panel))
    assert Counting.fits == n_splits
    resumed = compare(panel, models, splits=SPLITS, store=tmp_path)
    assert Counting.fits == n_splits  # none again
    assert resumed.results["counting"].n_reused == n_splits
    columns = [name for name in whole.table().columns if name != "seconds"]
    assert resumed.table().select(columns).equals(whole.table().select(columns), null_equal=True)
    np.testing.assert_array_equal(resumed.diebold_mariano.statistics, whole.diebold_mariano.statistics)
    assert [done for _, done, _ in seen] == [0, 1, 2, 3, 4, 4, 5, 6][: len(seen)]
    assert {total for *_, total in seen} == {2 * n_splits}


class Failing(HistoricalMeanPredictor):
    """Cannot fit windows longer than its limit."""

    limit = 0

    def fit(self, panel):
        if panel.n_periods > self.limit:
            raise InsufficientDataError("on purpose")
        return super().fit(panel)


class FailingLater(Failing):
    limit = 45


def test_who_cannot_run_is_left_out_with_the_reason(panel):
    found = compare(panel, {"bad": Failing(), "zero": ZeroPredictor()}, splits=SPLITS)
    assert list(found.results) == ["zero"]
    assert "on purpose" in found.left_out["bad"]
    with pytest.raises(LatentFactorsError, match=r"no predictor could run: bad: .*on purpose"):
        compare(panel, {"bad": Failing()}, splits=SPLITS)
    wrong = pipeline(PCAModel(PCAConfig(n_factors=99)))
    with pytest.raises((ConfigurationError, LatentFactorsError), match="n_factors=99"):
        compare(panel, {"wrong": wrong}, splits=SPLITS)


def test_failed_splits_take_their_cells_from_all(panel):
    found = compare(panel, {"half": FailingLater(), "zero": ZeroPredictor()}, splits=SPLITS)
    assert line(found, "half")["n_failed"] == len(SPLITS.split(panel)) - 1
    first = panel.offsets[50] - panel.offsets[40]
    assert not found.mask[first:].any()
    assert found.records["half"].forecast.size == found.records["zero"].forecast.size
    assert line(found, "zero")["n_forecasts"] == line(found, "half")["n_forecasts"] == found.mask.sum()


def test_validation_is_for_those_who_have_it(panel):
    splits = ExpandingWindow(first=40, step=10, validation=8)
    network = NeuralNetworkPredictor(hidden=(4,), epochs=2, n_ensemble=1)
    found = compare(panel, {"network": network, "zero": ZeroPredictor()}, splits=splits)
    assert found.notes == ("zero does not validate and uses the whole training window",)
    assert found.results["network"].splits[0].validation == 8
    assert found.results["zero"].splits[0].validation == 0
    rows = int(np.isfinite(panel.between(0, 32).values).sum())
    assert f"on {rows} rows" in found.results["network"].summaries[0].reason
    assert len(metrics_table(found.results)) == 2


def test_models_may_come_as_a_list(panel):
    models = [PCAModel(PCAConfig(n_factors=2)), ZeroPredictor(), ZeroPredictor()]
    named = named_predictors_of(models)
    assert list(named) == ["PCA(2)", "Zero", "Zero #2"]
    assert isinstance(named["PCA(2)"], LatentFactorForecastPipeline)
    for wrong in ([], "pca", {"a": PCAModel}, [object()], 3):
        with pytest.raises(ConfigurationError):
            named_predictors_of(wrong)
    with pytest.raises(ConfigurationError, match="Panel"):
        compare(np.zeros((3, 3)), models, splits=SPLITS)
    with pytest.raises(ConfigurationError, match="size"):
        compare(panel, models, splits=SPLITS, size=1.0)


def test_what_they_see(found):
    assert found.sees == {
        "mean": "own history", "late": "own history", "ols": "characteristics", "IPCA": "characteristics",
        "PCA": "all histories", "observed": "observed factors", "zero": "nothing",
    }  # fmt: skip
    assert found.table()["sees"].to_list() == list(found.sees.values())
    assert what_it_sees(object()) == "not said"


def test_default_models_are_those_that_the_panel_can_feed(panel):
    full = default_models(panel)
    assert list(full.models)[:5] == ["zero", "historical mean", "PCA(3)", "RP-PCA(3)", "observed factors"]
    assert {"OLS", "ridge", "neural network", "boosted trees", "IPCA(3)"} <= set(full.models)
    assert "attributes" in full.left_out["graph and credit factor models"]
    bare = Panel.from_arrays(np.random.default_rng(0).standard_normal((30, 3)))
    small = default_models(bare)
    assert list(small.models) == ["zero", "historical mean", "PCA(1)", "RP-PCA(1)"]
    assert small.left_out["models on characteristics"] == "the panel has none"
    gappy = np.array(panel.characteristics)
    gappy[0, 0] = np.nan
    part = default_models(replace(panel, characteristics=gappy))
    assert "boosted trees" in part.models
    assert not {"OLS", "IPCA(3)"} & set(part.models)
    assert "rank_standardise" in part.left_out["OLS, ridge, neural network, IPCA, CAE, NeurIF"]
    series = default_models(replace(bare, value_kind="series"))
    assert {"AR", "DFM(1)"} <= set(series.models)
    assert "PCA(1)" not in series.models


def test_a_deep_model_takes_part_where_values_are_series_and_jax_is_there(monkeypatch):
    pytest.importorskip("jax")
    panel = dynamic_factor_panel(60, 5, 1, seed=3).panel
    offered = default_models(panel, n_factors=1)
    deep = offered.models["D2FM(1)"]
    config = replace(deep.model.config, pretraining_epochs=5, epochs_per_iteration=5, max_iterations=1)
    small = LatentFactorForecastPipeline(
        model=type(deep.model)(config), forecaster=deep.forecaster, mapper=deep.mapper
    )
    splits = ExpandingWindow(first=50, step=5)
    found = compare(panel, {"zero": ZeroPredictor(), "deep": small}, splits=splits)
    assert list(found.results) == ["zero", "deep"]
    assert not found.left_out
    forecasts = found.results["deep"].blocks[0].expected_values
    assert np.isfinite(forecasts).all()
    assert np.abs(forecasts).max() > 0
    monkeypatch.setattr(contenders, "_deep", lambda: False)
    without = default_models(panel, n_factors=1)
    assert "D2FM(1)" not in without.models
    assert "latentfactors[deep]" in without.left_out["D2FM"]


def test_compare_without_models():
    simulated = static_panel(n_periods=50, n_assets=8, n_factors=2, seed=1).panel
    found = compare(simulated, splits=ExpandingWindow(first=40, step=10))
    assert list(found.results) == ["zero", "historical mean", "PCA(3)", "RP-PCA(3)"]
    assert "models on characteristics" in found.left_out
    assert found.summary()["left_out"] == dict(found.left_out)


def test_names_of_observed_factor_models():
    names = ["MKT_RF", "SMB", "HML", "RMW", "CMA", "Mom", "R_ROE", "R_IA", "R_ME", "RF"]
    found = observed_sets(names)
    assert list(found) == ["CAPM", "FF3", "FF3 + momentum", "FF5", "FF5 + momentum", "q4"]
    assert found["q4"] == ("MKT_RF", "R_ME", "R_IA", "R_ROE")
    assert observed_sets(["x1", "x2"]) == {}


def test_losses_by_period(found):
    record = found.records["ols"]
    losses = period_losses(found.records, found.mask)["ols"]
    by_hand = []
    for first, last in zip(record.offsets[:-1], record.offsets[1:], strict=True):
        cells = found.mask[first:last]
        if cells.any():
            errors = (record.realised - record.forecast)[first:last][cells]
            by_hand.append(np.mean(errors**2))
    np.testing.assert_allclose(losses, by_hand, rtol=1e-13)
    assert diebold_mariano_table({}).statistics.shape == (0, 0)
    assert list(whole_records(found.results)) == list(found.results)
    assert scores.rmse(record.realised[found.mask], record.forecast[found.mask]) > 0


def test_confidence_set():
    pytest.importorskip("arch")
    rng = np.random.default_rng(0)
    base = rng.random(80)
    chosen, note = confidence_set_of({"bad": base + 1, "good": base, "twin": base}, 0.1)
    assert note == ""
    assert chosen is not None
    assert chosen.included == ("good", "twin")
    assert chosen.p_values["twin"] == chosen.p_values["good"]


@pytest.mark.parametrize("backend", ["polars", "pandas", "pyarrow"])
def test_backends(found, backend):
    assert type(found.table(backend)).__module__.split(".")[0] == backend
