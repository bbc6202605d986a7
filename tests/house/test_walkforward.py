"""walk_forward: what it computes, what it keeps, and what happens when something breaks."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import joblib
import numpy as np
import polars as pl
import pytest

from latentfactors import (
    AR1FactorForecaster,
    BetaLambdaMapper,
    CrossSectionalRidgePredictor,
    ExpandingMeanFactorForecaster,
    ExpandingWindow,
    HistoricalMeanPredictor,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NativeMapper,
    Panel,
    PCAConfig,
    PCAModel,
    RollingWindow,
    VintageSplits,
    ZeroPredictor,
    walk_forward,
)
from latentfactors.errors import (
    ConfigurationError,
    HorizonError,
    LatentFactorsError,
    MissingCapabilityError,
)
from latentfactors.kernels import sufficient
from latentfactors.simulate import characteristic_panel, static_panel
from tests.house.small import (
    EqualWeights,
    Logged,
    PersistentConfig,
    PersistentModel,
    TurnsConfig,
    TurnsModel,
    Vintages,
    fits,
)

ROOT = Path(__file__).resolve().parents[2]
STATIC = static_panel(n_periods=48, n_assets=8, n_factors=2, missing=0.1, live=1, seed=1).panel
CHARACTERISTIC = characteristic_panel(
    n_periods=48, n_assets=30, n_factors=2, n_characteristics=3, missing=0.05, live=1, seed=1
).panel


def trading_days():
    """40 weekdays of spring 2020 without Good Friday, Easter Monday and the first of May."""
    days = np.arange(np.datetime64("2020-03-30"), np.datetime64("2020-06-15"))
    closed = np.array(["2020-04-10", "2020-04-13", "2020-05-01"], dtype="datetime64[D]")
    return days[np.is_busday(days) & ~np.isin(days, closed)][:48]


def daily_panel():
    values = STATIC.wide()[:48]
    return Panel.from_wide(values, universe="all", times=trading_days(), frequency="B")


def pipeline(forecaster=None):
    return LatentFactorForecastPipeline(
        model=PCAModel(PCAConfig(n_factors=2)),
        forecaster=forecaster or ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )


def assert_same(one, two, tolerance=0.0):
    for name in ("forecast", "variance", "reconstruction", "realised", "own_value", "historical_mean"):
        np.testing.assert_allclose(
            getattr(one.record, name), getattr(two.record, name), rtol=tolerance, atol=0, err_msg=name
        )
    np.testing.assert_array_equal(one.record.target_times, two.record.target_times)
    np.testing.assert_array_equal(one.record.asset_codes, two.record.asset_codes)
    assert one.metrics() == pytest.approx(two.metrics(), rel=max(tolerance, 1e-15), nan_ok=True)


# ------------------------------------------------------------------------------------ what it computes

CASES = {
    "pipeline": (pipeline, STATIC),
    "ar1": (lambda: pipeline(AR1FactorForecaster()), STATIC),
    "ridge": (lambda: CrossSectionalRidgePredictor(penalty=0.2), CHARACTERISTIC),
    "mean": (HistoricalMeanPredictor, CHARACTERISTIC),
    "daily": (pipeline, daily_panel()),
}


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize(
    "splits", [ExpandingWindow(first=30, step=7), RollingWindow(size=25, step=6)], ids=type
)
def test_equals_a_hand_written_loop(case, horizon, splits):
    build, panel = CASES[case]
    if case == "ridge":
        result = walk_forward(
            CrossSectionalRidgePredictor(penalty=0.2, horizon=horizon), panel, splits, horizon=horizon
        )
    else:
        result = walk_forward(build(), panel, splits, horizon=horizon)
    values = {}
    for p in range(panel.n_periods):
        rows = panel.period(p)
        values |= {(p, a): v for a, v in zip(rows.assets.tolist(), rows.values.tolist(), strict=True)}
    at = 0
    record, frame = result.record, []
    for split in splits.split(panel):
        predictor = CrossSectionalRidgePredictor(penalty=0.2, horizon=horizon) if case == "ridge" else build()
        predictor.fit(panel.between(split.train_start, split.start))
        for p in range(split.start, split.stop):
            # the row's own period and all later values hidden: nothing of them may be needed
            known = panel.between(split.train_start, p + 1)
            known = known.mask(known.index.period_codes == known.n_periods - 1)
            forecast = predictor.predict(known, start=panel.times[p], horizon=horizon).asset_forecast
            for i, label in enumerate(panel.period(p).assets.tolist()):
                expected = forecast.expected_values[i]
                np.testing.assert_equal(record.forecast[at], expected)
                assert panel.assets[record.asset_codes[at]] == label
                np.testing.assert_equal(record.realised[at], values.get((p + horizon - 1, label), np.nan))
                np.testing.assert_equal(record.own_value[at], values[p, label])
                past = [v for q in range(p) if np.isfinite(v := values.get((q, label), np.nan))]
                np.testing.assert_allclose(record.historical_mean[at], np.mean(past) if past else np.nan)
                target = panel.index.targets(horizon)[p]
                assert record.target_times[at] == target
                if p + horizon - 1 < panel.n_periods:
                    assert target == panel.times[p + horizon - 1]
                if np.isfinite(expected):
                    frame.append((panel.times[p - 1].astype(object), label, expected, target.astype(object)))
                at += 1
    assert at == record.forecast.size
    table = result.frame()
    wanted = ["timestamp", "asset", "prediction_value", "target_timestamp"]
    assert table.columns[:4] == wanted
    assert table.select(wanted).rows() == frame


def test_daily_dates_are_the_panels_own():
    panel = daily_panel()
    result = walk_forward(HistoricalMeanPredictor(), panel, ExpandingWindow(first=5, step=10), horizon=2)
    table = result.frame().with_columns(pl.col("timestamp", "target_timestamp").cast(str))
    # the day after Maundy Thursday is Tuesday, two days ahead of it Wednesday
    row = table.filter(pl.col("timestamp") == "2020-04-09")["target_timestamp"].unique().to_list()
    assert row == ["2020-04-15"]
    assert "2020-04-10" not in set(table["timestamp"]) | set(table["target_timestamp"])


def test_metrics_equal_a_loop():
    result = walk_forward(pipeline(), STATIC, ExpandingWindow(first=30, step=7))
    record, metrics = result.record, result.metrics()
    both = np.isfinite(record.forecast) & np.isfinite(record.realised)
    y, f, m = record.realised[both], record.forecast[both], record.historical_mean[both]
    assert metrics["r2_zero"] == pytest.approx(1 - np.sum((y - f) ** 2) / np.sum(y**2))
    assert metrics["r2_mean"] == pytest.approx(1 - np.sum((y - f) ** 2) / np.sum((y - m) ** 2))
    assert metrics["rmse"] == pytest.approx(np.sqrt(np.mean((y - f) ** 2)))
    assert metrics["mae"] == pytest.approx(np.mean(np.abs(y - f)))
    inside = np.abs(y - f) <= 1.6448536269514722 * np.sqrt(record.variance[both])
    assert metrics["coverage_90"] == pytest.approx(inside.mean())
    assert 0.75 < metrics["coverage_90"] <= 1
    assert metrics["n_forecasts"] == both.sum() == len(y)
    assert metrics["n_unforecast"] == 0
    fitted = np.isfinite(record.own_value)
    own, fit = record.own_value[fitted], record.reconstruction[fitted]
    assert metrics["total_r2"] == pytest.approx(1 - np.nansum((own - fit) ** 2) / np.sum(own**2))
    half = record.metrics(np.arange(both.size) % 2 == 0)
    assert half["n_forecasts"] == both[::2].sum()


@pytest.mark.parametrize("horizon", [1, 3])
def test_training_ends_at_the_first_origin(horizon, tmp_path):
    splits = ExpandingWindow(first=30, step=9)
    walk_forward(Logged(tmp_path), STATIC, splits, horizon=horizon)
    assert fits(tmp_path) == [str(STATIC.times[s.start - 1]) for s in splits.split(STATIC)]
    # values from a block's first row on change no forecast of that row
    whole = walk_forward(pipeline(), STATIC, splits, horizon=horizon)
    for split, block in zip(whole.splits, whole.blocks, strict=True):
        moved = STATIC.with_values(np.where(STATIC.index.period_codes >= split.start, 0.3, STATIC.values))
        other = walk_forward(pipeline(), moved, splits, horizon=horizon)
        position = whole.splits.index(split)
        n = int(np.diff(STATIC.offsets)[split.start])
        np.testing.assert_array_equal(other.blocks[position].expected_values[:n], block.expected_values[:n])
        assert other.blocks[position].summary.objective == block.summary.objective


def test_training_pairs_of_several_steps_end_at_the_first_origin():
    predictor = CrossSectionalRidgePredictor(penalty=0.2, horizon=3)
    splits = ExpandingWindow(first=30, step=9)
    whole = walk_forward(predictor, CHARACTERISTIC, splits, horizon=3)
    codes = CHARACTERISTIC.index.period_codes
    moved = CHARACTERISTIC.with_values(np.where(codes >= 30, 5.0, CHARACTERISTIC.values))
    other = walk_forward(predictor, moved, splits, horizon=3)
    np.testing.assert_array_equal(other.blocks[0].expected_values, whole.blocks[0].expected_values)
    assert np.abs(other.blocks[1].expected_values - whole.blocks[1].expected_values).max() > 0.01


def test_the_live_period_is_forecast():
    result = walk_forward(pipeline(), STATIC, ExpandingWindow(first=30, step=7))
    table = result.frame().with_columns(pl.col("timestamp", "target_timestamp").cast(str))
    live = table.filter(pl.col("target_timestamp") == str(STATIC.times[-1]))
    assert live.height == 8
    assert set(live["timestamp"]) == {str(STATIC.times[-2])}
    assert np.isnan(result.record.realised[-8:]).all()


def test_the_predictor_given_is_neither_fitted_nor_used(tmp_path):
    predictor = pipeline()
    predictor.fit(STATIC)  # on everything: must not leak
    fresh = pipeline()
    splits = ExpandingWindow(first=30, step=9)
    assert_same(walk_forward(predictor, STATIC, splits), walk_forward(fresh, STATIC, splits))
    assert str(predictor.model.fitted.span.end) == str(STATIC.times[-2])
    assert "unfitted" in repr(fresh)


# ------------------------------------------------------------------------------------ resuming


def test_a_killed_run_takes_up_where_it_stopped(tmp_path):
    splits, store = ExpandingWindow(first=24, step=5), tmp_path / "store"
    straight = walk_forward(Logged(tmp_path), STATIC, splits)
    assert len(straight.blocks) == 5
    (tmp_path / "log.txt").unlink()
    (tmp_path / "limit").write_text("3")
    with pytest.raises(KeyboardInterrupt):
        walk_forward(Logged(tmp_path), STATIC, splits, store=store)
    assert len(fits(tmp_path)) == 3
    (tmp_path / "limit").unlink()
    resumed = walk_forward(Logged(tmp_path), STATIC, splits, store=store)
    assert len(fits(tmp_path)) == 5  # two more, none twice
    assert len(set(fits(tmp_path))) == 5
    assert resumed.n_reused == 3
    assert_same(resumed, straight)
    assert [s.metrics for s in resumed.summaries] == [s.metrics for s in straight.summaries]
    levels = [np.nanmean(STATIC.between(0, split.start).values) for split in straight.splits]
    assert [s.metrics["level"] for s in resumed.summaries] == levels
    assert {s.warnings for s in resumed.summaries} == {("a remark",)}
    again = walk_forward(Logged(tmp_path), STATIC, splits, store=store)
    assert again.n_reused == 5
    assert len(fits(tmp_path)) == 5
    assert_same(again, straight)
    assert again.seconds == pytest.approx(resumed.seconds)


@pytest.mark.parametrize("build", [pipeline, EqualWeights, HistoricalMeanPredictor, ZeroPredictor])
def test_stored_blocks_are_exact(build, tmp_path):
    splits = RollingWindow(size=24, step=5)
    first = walk_forward(build(), STATIC, splits, store=tmp_path)
    second = walk_forward(build(), STATIC, splits, store=tmp_path)
    assert second.n_reused == len(second.blocks) == 5
    for one, two in zip(first.blocks, second.blocks, strict=True):
        for name in ("expected_values", "variance", "weights", "reconstruction", "factors", "factor_times"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        assert one.summary == two.summary
        assert one.factor_names == two.factor_names


KILLED = """
import sys
from latentfactors import ExpandingWindow, walk_forward
from tests.house.small import Logged
from tests.house.test_walkforward import STATIC
walk_forward(Logged(sys.argv[1]), STATIC, ExpandingWindow(first=24, step=5), store=sys.argv[2])
"""


def test_a_process_killed_in_the_middle_is_resumed(tmp_path):
    (tmp_path / "seconds").write_text("0.4")
    store = tmp_path / "store"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(store)]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        deadline = time.monotonic() + 60
        while len(list(store.glob("*/manifest.json"))) < 2:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    finished = len(list(store.glob("*/manifest.json")))
    begun = len(fits(tmp_path))
    assert 2 <= finished < 5
    (tmp_path / "seconds").unlink()
    resumed = walk_forward(Logged(tmp_path), STATIC, ExpandingWindow(first=24, step=5), store=store)
    assert resumed.n_reused == finished
    assert len(fits(tmp_path)) == begun + 5 - finished
    assert_same(resumed, walk_forward(Logged(tmp_path), STATIC, ExpandingWindow(first=24, step=5)))


@pytest.mark.parametrize("change", ["config", "horizon", "panel", "splits", "version"])
def test_a_changed_question_gets_a_new_answer(change, tmp_path, monkeypatch):
    store, splits = tmp_path / "store", ExpandingWindow(first=24, step=5)
    walk_forward(Logged(tmp_path), STATIC, splits, store=store)
    predictor, panel, horizon = Logged(tmp_path), STATIC, 1
    reused = 0
    if change == "config":
        predictor = Logged(tmp_path, tilt=0.1)
    elif change == "horizon":
        horizon = 2
    elif change == "panel":
        panel = STATIC.with_values(np.where(STATIC.index.period_codes == 0, 0.5, STATIC.values))
    elif change == "splits":
        splits = RollingWindow(size=23, step=5, first=24)
    else:
        monkeypatch.setattr("latentfactors.walkforward.__version__", "99")
    result = walk_forward(predictor, panel, splits, horizon=horizon, store=store)
    assert result.n_reused == reused
    assert len(fits(tmp_path)) == 10
    fresh = walk_forward(predictor, panel, splits, horizon=horizon)
    assert_same(result, fresh)


def test_one_more_month_refits_the_last_block_only(tmp_path):
    store, splits = tmp_path / "store", ExpandingWindow(first=24, step=6)
    walk_forward(Logged(tmp_path), STATIC.between(0, 46), splits, store=store)  # blocks 24, 30, 36, 42..45
    assert len(fits(tmp_path)) == 4
    more = walk_forward(Logged(tmp_path), STATIC.between(0, 47), splits, store=store)
    assert more.n_reused == 3
    assert len(fits(tmp_path)) == 5
    full = walk_forward(Logged(tmp_path), STATIC.between(0, 48), splits, store=store)
    assert full.n_reused == 3
    new = walk_forward(Logged(tmp_path), STATIC, splits, store=store)  # a new block of its own
    assert new.n_reused == 4
    assert len(fits(tmp_path)) == 7
    assert_same(new, walk_forward(Logged(tmp_path), STATIC, splits))


def test_a_newcomer_does_not_disturb_finished_blocks(tmp_path):
    wide = STATIC.wide()[:48]
    mask = np.ones((48, 8), dtype=bool)
    mask[:47, 0] = False  # the first label in order joins in the last month
    labels = list("abcdefgh")
    options = {"times": STATIC.times[:48], "frequency": "M"}
    after = Panel.from_wide(wide, universe=mask, assets=labels, **options)
    before = Panel.from_wide(
        wide[:47, 1:], universe="all", times=STATIC.times[:47], assets=labels[1:], frequency="M"
    )
    splits = ExpandingWindow(first=24, step=6)
    walk_forward(Logged(tmp_path), before, splits, store=tmp_path / "store")
    result = walk_forward(Logged(tmp_path), after, splits, store=tmp_path / "store")
    assert result.n_reused == 3
    assert_same(result, walk_forward(Logged(tmp_path), after, splits))


@pytest.mark.parametrize("damage", ["manifest", "arrays", "half", "foreign"])
def test_a_damaged_split_is_done_again(damage, tmp_path):
    store, splits = tmp_path / "store", ExpandingWindow(first=24, step=5)
    straight = walk_forward(Logged(tmp_path), STATIC, splits, store=store)
    victim = sorted(store.iterdir())[2]
    if damage == "manifest":
        text = (victim / "manifest.json").read_text()
        (victim / "manifest.json").write_text(text[: len(text) // 2])
    elif damage == "arrays":
        (arrays,) = victim.glob("arrays-*.npz")
        arrays.write_bytes(arrays.read_bytes()[:-10] + b"0123456789")
    elif damage == "half":
        next(victim.glob("arrays-*.npz")).unlink()
    else:
        pipe = pipeline()
        pipe.fit(STATIC)
        pipe.save(victim)
    result = walk_forward(Logged(tmp_path), STATIC, splits, store=store)
    assert result.n_reused == 4
    assert len(fits(tmp_path)) == 6
    assert_same(result, straight)
    assert walk_forward(Logged(tmp_path), STATIC, splits, store=store).n_reused == 5


def test_store_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is a file, expected a folder"):
        walk_forward(ZeroPredictor(), STATIC, ExpandingWindow(first=24, step=5), store=tmp_path / "file")


# ------------------------------------------------------------------------------------ what breaks


def test_a_failing_split_is_reported_and_not_kept(tmp_path):
    store, splits = tmp_path / "store", ExpandingWindow(first=24, step=5)
    bad = str(STATIC.times[28])
    (tmp_path / "fail_at").write_text(bad)
    result = walk_forward(Logged(tmp_path), STATIC, splits, store=store)
    (failure,) = result.failures
    assert failure.split == f"train 1990-01-31..{bad}, forecast {STATIC.times[29]}..{STATIC.times[33]}"
    assert failure.error == "RuntimeError: no luck"
    assert [block is None for block in result.blocks] == [False, True, False, False, False]
    assert len(list(store.iterdir())) == 4
    assert "4 of 5 splits" in repr(result)
    assert len(result.summaries) == 4
    targets = set(result.record.target_times.astype(str))
    assert not targets & set(STATIC.times[29:34].astype(str))
    assert result.manifest()["failures"] == [{"split": failure.split, "error": failure.error}]
    (tmp_path / "fail_at").unlink()
    mended = walk_forward(Logged(tmp_path), STATIC, splits, store=store)
    assert mended.n_reused == 4
    assert mended.failures == ()


def test_all_splits_failing_is_an_error(tmp_path):
    (tmp_path / "fail_at").write_text(" ".join(STATIC.times.astype(str)))
    with pytest.raises(
        LatentFactorsError, match=r"all 5 splits failed; the first \(train .*\): RuntimeError: no"
    ):
        walk_forward(Logged(tmp_path), STATIC, ExpandingWindow(first=24, step=5))


def test_a_configuration_error_stops_everything(tmp_path):
    (tmp_path / "misconfigured_at").write_text(str(STATIC.times[28]))
    with pytest.raises(ConfigurationError, match="never works"):
        walk_forward(Logged(tmp_path), STATIC, ExpandingWindow(first=24, step=5))
    assert len(fits(tmp_path)) == 2
    splits = ExpandingWindow(first=24, step=5)
    with pytest.raises(HorizonError):
        walk_forward(pipeline(), STATIC, splits, horizon=0)
    with pytest.raises(HorizonError):
        walk_forward(pipeline(), STATIC, splits, horizon=1.5)
    with pytest.raises(MissingCapabilityError, match="PCAModel has no validation"):
        walk_forward(pipeline(), STATIC, ExpandingWindow(first=24, step=5, validation=3))
    with pytest.raises(MissingCapabilityError, match="ZeroPredictor has no validation: use validation=0"):
        walk_forward(ZeroPredictor(), STATIC, ExpandingWindow(first=24, step=5, validation=3))


def test_arguments_are_checked():
    splits = ExpandingWindow(first=24, step=5)
    with pytest.raises(ConfigurationError, match="put models into a LatentFactorForecastPipeline"):
        walk_forward(PCAModel(PCAConfig(n_factors=2)), STATIC, splits)
    with pytest.raises(ConfigurationError, match="panel must be a Panel, got ndarray"):
        walk_forward(ZeroPredictor(), STATIC.wide(), splits)
    with pytest.raises(ConfigurationError, match="nothing to forecast"):
        walk_forward(ZeroPredictor(), STATIC, VintageSplits(Vintages(STATIC), ()))


# ------------------------------------------------------------------------------------ workers and progress


def test_two_workers_equal_one(tmp_path):
    splits = ExpandingWindow(first=24, step=5)
    one = walk_forward(pipeline(), STATIC, splits, n_jobs=1)
    two = walk_forward(pipeline(), STATIC, splits, n_jobs=2, store=tmp_path)
    assert_same(one, two, tolerance=1e-10)
    assert walk_forward(pipeline(), STATIC, splits, store=tmp_path).n_reused == 5
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert_same(one, walk_forward(pipeline(), STATIC, splits), tolerance=1e-10)


def test_a_configuration_error_in_a_worker_reaches_the_caller():
    with pytest.raises(HorizonError), joblib.parallel_config(backend="threading", n_jobs=2):
        walk_forward(pipeline(), STATIC, ExpandingWindow(first=24, step=5), horizon=0)


def test_progress_rises_to_the_end(tmp_path):
    calls = []
    splits = ExpandingWindow(first=24, step=5)
    options = {"store": tmp_path / "store", "progress": lambda done, total: calls.append((done, total))}
    (tmp_path / "limit").write_text("2")
    with pytest.raises(KeyboardInterrupt):
        walk_forward(Logged(tmp_path), STATIC, splits, **options)
    assert calls == [(0, 5), (1, 5), (2, 5)]
    calls.clear()
    (tmp_path / "limit").unlink()
    walk_forward(Logged(tmp_path), STATIC, splits, **options)
    assert calls == [(2, 5), (3, 5), (4, 5), (5, 5)]
    calls.clear()
    with joblib.parallel_config(backend="threading", n_jobs=2):
        walk_forward(pipeline(), STATIC, splits, progress=options["progress"])
    assert calls == [(i, 5) for i in range(6)]


def test_the_callers_data_and_random_state_are_left_alone():
    values, state = STATIC.values.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    walk_forward(pipeline(), STATIC, ExpandingWindow(first=24, step=5))
    np.testing.assert_array_equal(values, STATIC.values)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


# ----------------------------------------------------------------------------- validation, vintages, weights


def test_validation_periods_reach_the_model():
    turning = LatentFactorForecastPipeline(
        model=TurnsModel(TurnsConfig()), forecaster=ExpandingMeanFactorForecaster(), mapper=BetaLambdaMapper()
    )
    complete = static_panel(n_periods=48, n_assets=8, n_factors=2, seed=1).panel
    plain = walk_forward(turning, complete, ExpandingWindow(first=24, step=12))
    validated = walk_forward(turning, complete, ExpandingWindow(first=24, step=12, validation=3))
    assert np.abs(plain.blocks[0].factors - validated.blocks[0].factors).max() > 0.01  # last against best
    assert_same(plain, validated, tolerance=1e-6)


def test_vintages_are_forecast_one_by_one():
    complete = static_panel(n_periods=48, n_assets=8, n_factors=2, seed=1).panel
    native = LatentFactorForecastPipeline(
        model=PersistentModel(PersistentConfig(rho=0.5)),
        forecaster=NativeFactorForecaster(),
        mapper=NativeMapper(),
    )
    dates = tuple(str(time)[:7] for time in complete.times[[30, 31, 32]])
    wide, even = complete.wide(), np.arange(0, 8, 2)
    for horizon in (1, 0):
        result = walk_forward(native, complete, VintageSplits(Vintages(complete), dates), horizon=horizon)
        record = result.record
        assert record.forecast.size == 3 * 8
        forecast, realised = record.forecast.reshape(3, 8), record.realised.reshape(3, 8)
        assert np.isnan(forecast[:, 1::2]).all()  # not released yet, so this model cannot say
        if horizon == 1:  # the period after the vintage
            np.testing.assert_allclose(forecast[:, even], wide[30:33][:, even] / 2)
            np.testing.assert_array_equal(realised, wide[31:34])
        else:  # the vintage's own last period
            np.testing.assert_array_equal(forecast[:, even], wide[30:33][:, even])
            np.testing.assert_array_equal(realised, wide[30:33])
        frame = result.frame().with_columns(pl.col("timestamp", "target_timestamp").cast(str))
        assert frame["timestamp"].unique().sort().to_list() == [f"{date}-01" for date in dates]
        target = complete.times[31 if horizon == 1 else 30]
        assert frame["target_timestamp"][0] == str(target)
    assert result.metrics()["n_unforecast"] == 12


def test_vintages_resume_until_they_are_revised(tmp_path):
    native = LatentFactorForecastPipeline(
        model=PersistentModel(PersistentConfig(rho=0.5)),
        forecaster=NativeFactorForecaster(),
        mapper=NativeMapper(),
    )
    complete = static_panel(n_periods=48, n_assets=8, n_factors=2, seed=1).panel
    dates = ("1992-06", "1992-07")
    walk_forward(native, complete, VintageSplits(Vintages(complete), dates), store=tmp_path)
    more = (*dates, "1992-08")
    assert (
        walk_forward(native, complete, VintageSplits(Vintages(complete), more), store=tmp_path).n_reused == 2
    )
    revised = complete.with_values(np.where(complete.index.period_codes >= 30, 1.0, complete.values))  # July
    assert (
        walk_forward(native, complete, VintageSplits(Vintages(revised), more), store=tmp_path).n_reused == 1
    )


def test_weights_only(tmp_path):
    result = walk_forward(EqualWeights(), STATIC, ExpandingWindow(first=30, step=7))
    frame = result.weights_frame()
    assert frame.columns == ["timestamp", "asset", "weight", "selected"]
    assert frame.height == 19 * 8
    assert frame["weight"].unique().to_list() == [0.125]
    with pytest.raises(MissingCapabilityError, match="forecasts no values: see weights_frame"):
        result.frame()
    with pytest.raises(MissingCapabilityError, match="no portfolio weights: see frame"):
        walk_forward(ZeroPredictor(), STATIC, ExpandingWindow(first=30, step=7)).weights_frame()
    assert np.isnan(result.metrics()["rmse"])
    assert result.metrics()["n_forecasts"] == 0
    written = result.save(tmp_path)
    assert sorted(path.name for path in written) == ["manifest.json", "weights.parquet"]
    assert pl.read_parquet(tmp_path / "weights.parquet").equals(frame)
    assert json.loads((tmp_path / "manifest.json").read_text())["metrics"]["rmse"] is None


# ------------------------------------------------------------------------------------ shared statistics


class Alone:
    """A predictor that keeps to itself: the same pipeline without `share`."""

    def __init__(self, inner):
        self.inner = inner

    def fit(self, panel):
        assert not panel.shared
        return self.inner.fit(panel)

    def predict(self, panel, *, start=None, horizon=1):
        return self.inner.predict(panel, start=start, horizon=horizon)

    def clone(self):
        return Alone(self.inner.clone())

    @property
    def model(self):
        return self.inner.model

    @property
    def identity(self):
        return self.inner.identity


def instrumented(**options):
    return LatentFactorForecastPipeline(
        model=IPCAModel(IPCAConfig(n_factors=2, **options)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )


def weighted_panel():
    market = np.random.default_rng(3).normal(0.01, 0.04, CHARACTERISTIC.n_periods)
    factors = pl.DataFrame({"time": CHARACTERISTIC.times, "MKT": market})
    weights = np.random.default_rng(2).lognormal(size=CHARACTERISTIC.n_rows)
    return replace(CHARACTERISTIC.with_observed_factors(factors, time="time"), weights=weights)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": True, "intercept": True},
        {"observed": ("MKT",)},
        {"weighting": "panel", "factor_ridge": 0.1},
        {"weighting": "periods", "gamma_ridge": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "splits", [ExpandingWindow(first=30, step=7), RollingWindow(size=25, step=6)], ids=type
)
def test_sharing_statistics_changes_no_bit(options, splits):
    panel = weighted_panel()
    shared = walk_forward(instrumented(**options), panel, splits)
    alone = walk_forward(Alone(instrumented(**options)), panel, splits)
    assert_same(shared, alone)
    for one, two in zip(shared.blocks, alone.blocks, strict=True):
        np.testing.assert_array_equal(one.factors, two.factors)
        np.testing.assert_array_equal(one.variance, two.variance)
        assert one.summary.objective == two.summary.objective
        assert one.summary.metrics == two.summary.metrics
    assert shared.panel is panel
    assert not panel.shared


def test_rows_are_read_once_for_all_windows(monkeypatch):
    read = []
    counted = sufficient.period_statistics

    def count(values, characteristics, offsets, **options):
        read.append(offsets.size - 1)
        return counted(values, characteristics, offsets, **options)

    monkeypatch.setattr(sufficient, "period_statistics", count)
    splits = ExpandingWindow(first=30, step=7)
    walk_forward(instrumented(), CHARACTERISTIC, splits)
    assert read == [CHARACTERISTIC.n_periods]
    walk_forward(Alone(instrumented()), CHARACTERISTIC, splits)
    assert len(read) == 1 + 3 * len(splits.split(CHARACTERISTIC))  # fit, predict, factors


def test_shared_statistics_follow_slices_and_leave_changed_copies():
    panel = instrumented().share(CHARACTERISTIC)
    (name, statistics), *_ = [item for item in panel.shared.items() if "moments" in item[0]]
    part = panel.between(5, 20)
    assert part.shared[name].grams.base is not None
    np.testing.assert_array_equal(part.shared[name].grams, statistics.grams[5:20])
    fresh = instrumented().share(CHARACTERISTIC.between(5, 20))
    for field in ("grams", "crosses", "squares", "counts"):
        np.testing.assert_array_equal(getattr(part.shared[name], field), getattr(fresh.shared[name], field))
        assert not getattr(part.shared[name], field).flags.writeable
    changed = (
        panel.with_values(panel.values + 1.0),
        panel.mask(panel.observed),
        panel.select(panel.assets[:5]),
        panel.extend(1),
        replace(panel, characteristics=panel.characteristics + 1.0),
    )
    assert all(not other.shared for other in changed)
    assert sys.getsizeof(panel) > sys.getsizeof(CHARACTERISTIC) + statistics.grams.nbytes
    travelled = pickle.loads(pickle.dumps(panel))
    assert not travelled.shared[name].grams.flags.writeable
    np.testing.assert_array_equal(travelled.shared[name].grams, statistics.grams)
    # statistics of other rows go by another name
    weighted = instrumented(weighting="panel", intercept=True)
    both = weighted.share(replace(CHARACTERISTIC, weights=np.ones(CHARACTERISTIC.n_rows)))
    assert name not in both.shared


def test_periods_that_cannot_be_fitted_fail_in_their_windows_only():
    panel = weighted_panel()
    characteristics, weights = panel.characteristics.copy(), panel.weights.copy()
    characteristics[panel.offsets[40], 1] = np.nan
    weights[panel.offsets[40]] = np.nan
    splits = ExpandingWindow(first=30, step=7)
    for broken, options, reason in (
        (replace(panel, characteristics=characteristics), {}, "characteristics must have no NaN"),
        (replace(panel, weights=weights), {"weighting": "panel"}, "are missing in period"),
    ):
        shared = walk_forward(instrumented(**options), broken, splits)
        alone = walk_forward(Alone(instrumented(**options)), broken, splits)
        assert [failure.error for failure in shared.failures] == [each.error for each in alone.failures]
        assert len(shared.failures) == 2
        assert reason in shared.failures[0].error
        np.testing.assert_array_equal(shared.blocks[0].expected_values, alone.blocks[0].expected_values)


def test_sharing_reaches_worker_processes(tmp_path):
    splits = ExpandingWindow(first=30, step=7)
    here = walk_forward(instrumented(), CHARACTERISTIC, splits, n_jobs=1)
    assert_same(here, walk_forward(instrumented(), CHARACTERISTIC, splits, n_jobs=2), tolerance=1e-10)
    # and is no part of what a stored split is known by
    walk_forward(Alone(instrumented()), CHARACTERISTIC, splits, store=tmp_path)
    assert walk_forward(instrumented(), CHARACTERISTIC, splits, store=tmp_path).n_reused == len(here.splits)


# ------------------------------------------------------------------------------------ results


def test_save_writes_predictions_and_a_manifest(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    result = walk_forward(pipeline(), STATIC, ExpandingWindow(first=30, step=7))
    written = result.save(tmp_path)
    assert sorted(path.name for path in written) == ["manifest.json", "predictions.parquet"]
    assert (tmp_path / "mine.txt").read_text() == "keep"
    stored = pl.read_parquet(tmp_path / "predictions.parquet")
    assert stored.equals(result.frame())
    assert stored.columns == [
        "timestamp", "asset", "prediction_value", "target_timestamp", "prediction_std"
    ]  # fmt: skip
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["identity"] == pipeline().identity
    assert manifest["horizon"] == 1
    assert manifest["splits"][0] == "train 1990-01-31..1992-06-30, forecast 1992-07-31..1993-01-31"
    assert manifest["panel"]["digest"] == STATIC.digests()[-1]
    assert (manifest["panel"]["periods"], manifest["panel"]["assets"]) == (49, 8)
    assert manifest["metrics"]["r2_zero"] == pytest.approx(result.metrics()["r2_zero"])
    assert manifest["converged"] == 3
    assert set(manifest["files"]) == {"predictions.parquet"}
    pandas = result.frame("pandas")
    assert list(pandas.columns) == stored.columns
    np.testing.assert_array_equal(pandas["prediction_value"], stored["prediction_value"])


def test_factor_paths_are_aligned():
    result = walk_forward(pipeline(), STATIC, RollingWindow(size=24, step=6))
    # refits may come in any sign and order: turn some on purpose
    turned = []
    for position, block in enumerate(result.blocks):
        values = block.factors
        if position % 2:
            values = values[:, ::-1] * [-1.0, 1.0]
        turned.append(type(block)(**{**vars(block), "factors": values}))
    mixed = type(result)(**{**_fields(result), "blocks": tuple(turned)})
    paths, plain = mixed.factor_paths(), result.factor_paths()
    assert len(paths) == 5
    for position, (path, other) in enumerate(zip(paths, plain, strict=True)):
        np.testing.assert_array_equal(path.values, other.values)
        assert path.times[0] == STATIC.times[position * 6]
        assert path.names == ("F1", "F2")
    for former, latter in pairwise(paths):
        _, here, there = np.intersect1d(latter.times, former.times, return_indices=True)
        assert here.size >= 18
        seen = np.isfinite(latter.values[here]).all(axis=1) & np.isfinite(former.values[there]).all(axis=1)
        for k in range(2):
            pair = np.corrcoef(latter.values[here][seen, k], former.values[there][seen, k])
            assert pair[0, 1] > 0.9
    assert walk_forward(ZeroPredictor(), STATIC, RollingWindow(size=24, step=6)).factor_paths() == ()


def _fields(result):
    names = ("predictor", "identity", "panel", "horizon", "splits", "blocks", "failures", "n_reused")
    return {name: getattr(result, name) for name in names}


def test_blocks_are_read_only():
    block = walk_forward(pipeline(), STATIC, ExpandingWindow(first=30, step=7)).blocks[0]
    with pytest.raises(ValueError, match="read-only"):
        block.expected_values[0] = 0.0


# ------------------------------------------------------------------------------------ a real cluster


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # a cluster warns about ports, memory and closing times of its own
@pytest.mark.parametrize("build", [lambda: CrossSectionalRidgePredictor(penalty=0.2), lambda: instrumented()])
def test_the_same_call_runs_on_dask_and_sends_the_panel_once(monkeypatch, build):
    distributed = pytest.importorskip("distributed")
    panel = characteristic_panel(n_periods=120, n_assets=200, n_factors=2, n_characteristics=10, seed=1).panel
    predictor, splits = build(), ExpandingWindow(first=40, step=5)
    here = walk_forward(predictor, panel, splits, n_jobs=1)
    sent = []

    def count(self, protocol):
        sent.append(self.n_rows)
        return object.__reduce_ex__(self, protocol)

    monkeypatch.setattr(Panel, "__reduce_ex__", count)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        with joblib.parallel_config(backend="dask"):
            there = walk_forward(predictor, panel, splits)
        assert len(client.scheduler_info()["workers"]) == 2
    assert len(there.blocks) == 16
    assert sent == [panel.n_rows]
    assert_same(here, there, tolerance=1e-10)


@pytest.mark.parametrize("content", [b"\0" * 500, b"{}", b"[]", b"null", b"", b"[" * 100_000])
def test_a_damaged_manifest_is_done_again(tmp_path, content):
    panel = static_panel(n_periods=40, n_assets=8, n_factors=2, seed=1).panel
    splits = ExpandingWindow(first=24, step=8)
    first = walk_forward(HistoricalMeanPredictor(), panel, splits, store=tmp_path)
    damaged = next(tmp_path.glob("*/manifest.json"))
    damaged.write_bytes(content)
    again = walk_forward(HistoricalMeanPredictor(), panel, splits, store=tmp_path)
    assert again.n_reused == len(splits.split(panel)) - 1
    assert np.array_equal(again.record.forecast, first.record.forecast, equal_nan=True)
    assert walk_forward(HistoricalMeanPredictor(), panel, splits, store=tmp_path).n_reused == 2
