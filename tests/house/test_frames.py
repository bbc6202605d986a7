"""Results as frames and files: names, stamps, what is left out, and nothing half-written."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentfactors import frames, store
from latentfactors.errors import FrequencyError, PanelError, StoreError
from latentfactors.frames import (
    predictions_frame,
    to_frame,
    weights_frame,
    write_atomically,
    write_frames,
)
from latentfactors.panel import Panel
from latentfactors.results import AssetForecastResult, AssetWeightsResult
from latentfactors.state import FitSpan

DAYS = np.array(["2020-01-31", "2020-02-29", "2020-03-31", "2020-04-30"], dtype="datetime64[D]")


def forecast(*, horizon=1, variance=None, times=DAYS, frequency="M", assets=("A", "B")):
    """Four periods of two assets: two of training, one with a missing forecast, one live."""
    n = len(times)
    table = np.ones((n, 2))
    panel = Panel.from_wide(table, universe="all", times=times, assets=assets, frequency=frequency)
    expected = np.arange(2.0 * n)
    expected[5] = np.nan
    return AssetForecastResult(
        index=panel.index, expected_values=expected, variance=variance, horizon=horizon,
        fit_span=FitSpan(panel.times[0], panel.times[1]),
    )  # fmt: skip


def day(text):
    return dt.date.fromisoformat(text)


def test_the_timestamp_is_the_origin_and_training_rows_are_left_out():
    frame = predictions_frame(forecast(variance=np.full(8, 4.0)))
    assert frame.to_dict(as_series=False) == {
        "timestamp": [day("2020-02-29"), day("2020-03-31"), day("2020-03-31")],
        "asset": ["A", "A", "B"],
        "prediction_value": [4.0, 6.0, 7.0],
        "target_timestamp": [day("2020-03-31"), day("2020-04-30"), day("2020-04-30")],
        "prediction_std": [2.0, 2.0, 2.0],
    }


def test_in_sample_rows_come_on_request_and_missing_ones_never():
    frame = predictions_frame(forecast(), in_sample=True)
    assert frame["prediction_value"].to_list() == [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0]
    assert frame["timestamp"][0] == day("2019-12-31")  # the calendar goes on before the panel
    assert frame.columns == ["timestamp", "asset", "prediction_value", "target_timestamp"]


def test_a_longer_horizon_moves_the_target_and_not_the_origin():
    frame = predictions_frame(forecast(horizon=3))
    assert frame["timestamp"].to_list() == [day("2020-02-29"), day("2020-03-31"), day("2020-03-31")]
    assert frame["target_timestamp"].to_list() == [day("2020-05-31"), day("2020-06-30"), day("2020-06-30")]


@pytest.mark.parametrize(
    "as_of", ["2020-04-12", dt.datetime(2020, 4, 12, 9), pd.Timestamp("2020-04-12", tz="UTC")]
)
def test_a_nowcast_is_stamped_with_its_vintage(as_of):
    frame = predictions_frame(forecast(), as_of=as_of)
    assert set(frame["timestamp"]) == {day("2020-04-12")}
    with pytest.raises(PanelError, match="'as_of'"):
        predictions_frame(forecast(), as_of="yesterday")


@pytest.mark.parametrize("assets", [("A", "B"), (10107, 14593)])
def test_the_three_backends_hold_the_same(assets):
    result = forecast(variance=np.ones(8), assets=assets)
    polars, pandas, pyarrow = (predictions_frame(result, backend=b) for b in ("polars", "pandas", "pyarrow"))
    assert isinstance(pandas, pd.DataFrame)
    assert isinstance(pyarrow, pa.Table)
    assert polars.schema["timestamp"] == pl.Date
    assert pandas["timestamp"].dtype.kind == "M"
    assert pyarrow.to_pydict() == polars.to_dict(as_series=False)
    for name in polars.columns:
        column = pandas[name].dt.date if pandas[name].dtype.kind == "M" else pandas[name]
        assert column.tolist() == polars[name].to_list()
    assert polars["asset"].unique().sort().to_list() == list(assets)


def test_weights_keep_zeros_as_choices():
    index = forecast().index
    weights = np.array([1.0, 2.0, 3.0, 4.0, 0.0, 0.5, np.nan, -0.5])
    result = AssetWeightsResult(index=index, weights=weights, fit_span=FitSpan(DAYS[0], DAYS[1]))
    assert weights_frame(result).to_dict(as_series=False) == {
        "timestamp": [day("2020-02-29")] * 2 + [day("2020-03-31")],
        "asset": ["A", "B", "B"],
        "weight": [0.0, 0.5, -0.5],
        "selected": [False, True, True],
    }
    assert len(weights_frame(result, in_sample=True)) == 7


def test_a_stamp_without_a_date_is_refused_and_integers_are_stamps():
    uneven = np.array(["2020-01-31", "2020-02-03", "2021-04-05", "2021-04-06"], dtype="datetime64[D]")
    unknown = forecast(times=uneven, frequency=None)
    assert predictions_frame(unknown)["timestamp"].to_list() == uneven[[1, 2, 2]].tolist()
    with pytest.raises(FrequencyError, match=r"origin.*frequency"):
        predictions_frame(unknown, in_sample=True)  # nothing comes before the first date
    with pytest.raises(FrequencyError, match=r"target.*frequency"):
        predictions_frame(forecast(times=uneven, frequency=None, horizon=2))
    counted = predictions_frame(forecast(times=np.array([1, 2, 5, 7]), frequency=None, horizon=2))
    assert counted["timestamp"].to_list() == [2, 5, 5]
    assert counted["target_timestamp"].to_list() == [7, 8, 8]


def test_unknown_and_missing_backends_are_refused(monkeypatch):
    with pytest.raises(PanelError, match=r"backend must be one of.*'excel'"):
        predictions_frame(forecast(), backend="excel")

    def missing(*_, **__):
        raise ImportError

    monkeypatch.setattr(frames.nw, "from_dict", missing)
    with pytest.raises(PanelError, match="pip install pyarrow"):
        to_frame({"a": np.ones(1)}, "pyarrow")


# ------------------------------------------------------------------------------------ files


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_files_hold_the_frames_and_their_checksums(tmp_path):
    predictions = predictions_frame(forecast())
    written = write_frames(
        tmp_path / "a" / "b", predictions=predictions.to_pandas(), weights=pa.table({"w": [1.0]}),
        manifest={"model": "pca", "made": dt.date(2020, 1, 1)},
    )  # fmt: skip
    folder = tmp_path / "a" / "b"
    assert written == [folder / name for name in ("predictions.parquet", "weights.parquet", "manifest.json")]
    assert sorted(contents(folder)) == sorted(path.name for path in written)
    assert pq.read_table(written[0]).column_names == predictions.columns
    assert pl.read_parquet(written[1])["w"].to_list() == [1.0]
    manifest = json.loads(written[2].read_text())
    assert (manifest["model"], manifest["made"]) == ("pca", "2020-01-01")
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_nothing_else_in_the_directory_is_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "sub").mkdir()
    write_frames(tmp_path, weights=pl.DataFrame({"w": [1.0]}))
    first = (tmp_path / "weights.parquet").read_bytes()
    write_frames(tmp_path, predictions=pl.DataFrame({"p": [1.0]}))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "sub").is_dir()
    assert (tmp_path / "weights.parquet").read_bytes() == first
    assert {path.name for path in tmp_path.iterdir()} == {
        "notes.txt", "sub", "weights.parquet", "predictions.parquet", "manifest.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"predictions": pl.DataFrame({"p": [2.0]}), "weights": "no frame"}, PanelError),
        ({"predictions": pl.DataFrame({"p": [2.0]}), "weights": pl.LazyFrame({"w": [1.0]})}, PanelError),
        ({"predictions": pl.DataFrame({"p": [2.0]}), "manifest": {"r2": float("nan")}}, StoreError),
        ({"predictions": pl.DataFrame({"p": [2.0]}), "manifest": {(1, 2): 3}}, StoreError),
    ],
)
def test_what_cannot_be_written_leaves_the_old_files(tmp_path, arguments, error):
    write_frames(tmp_path, predictions=pl.DataFrame({"p": [1.0]}), manifest={"run": 1})
    before = contents(tmp_path)
    with pytest.raises(error):
        write_frames(tmp_path, **arguments)
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_the_old_files(tmp_path, monkeypatch):
    write_frames(tmp_path, predictions=pl.DataFrame({"p": [1.0]}), weights=pl.DataFrame({"w": [1.0]}))
    before = contents(tmp_path)
    write = type(tmp_path).write_bytes

    def full(path, data):
        if "manifest" in path.name:  # the last of the three
            write(path, data[:10])
            raise OSError("no space left on device")
        return write(path, data)

    monkeypatch.setattr(type(tmp_path), "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        write_frames(tmp_path, predictions=pl.DataFrame({"p": [2.0]}), weights=pl.DataFrame({"w": [2.0]}))
    monkeypatch.undo()
    assert contents(tmp_path) == before


def test_a_foreign_manifest_and_a_saved_model_are_not_overwritten(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(StoreError, match="belongs to something else"):
        write_frames(tmp_path, predictions=pl.DataFrame({"p": [1.0]}))
    assert contents(tmp_path) == {"manifest.json": b'{"name": "a web page"}'}
    model = tmp_path / "model"
    store.save_object(model, FitSpan(1, 2), {})
    with pytest.raises(StoreError, match="choose another directory"):
        write_frames(model, predictions=pl.DataFrame({"p": [1.0]}))
    assert store.load_object(model) == FitSpan(1, 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        write_frames(tmp_path / "file", predictions=pl.DataFrame({"p": [1.0]}))


def test_an_atomic_write_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "data.bin"
    write_atomically(path, b"old")

    def broken(*_):
        raise OSError("crash")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="crash"):
        write_atomically(path, b"new")
    assert contents(tmp_path) == {"data.bin": b"old"}
