"""The demo on the real sample: once whole in a process of its own, else from 2016 on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from latentfactors import cli, demo
from latentfactors.datasets import french_frame
from latentfactors.jobs import load_panel

NAMES = [
    "PCA(5), expanding mean", "PCA(5), EWMA", "PCA(5), rolling mean", "PCA(5), AR(1)", "PCA(5), VAR(1)",
    "RP-PCA(5), expanding mean", "IPCA(3), expanding mean", "CAPM, expanding mean", "FF3+Mom, expanding mean",
    "cross-sectional ridge", "cross-sectional OLS", "historical mean", "zero",
]  # fmt: skip


def run_cli(capsys, *arguments):
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return leaving.value.code or 0, captured.out, captured.err


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(demo, "DEMO_CONFIG", demo.DEMO_CONFIG.replace("1969-01-31", "2016-01-31"))


def test_the_whole_demo(tmp_path):
    code = "from latentfactors.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "demo", "--jobs", "2"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    for words in (*NAMES, "which was subtracted once", "49 fits", "describes and forecasts nothing"):
        assert words in " ".join(done.stdout.split())
    assert "latentfactors walk-forward latentfactors-demo/config.toml" in done.stdout
    folder = tmp_path / "latentfactors-demo"
    files = {"french.csv", "config.toml", "metrics.csv", "predictions.parquet", "manifest.json"}
    files |= {"report-data.zip"}
    assert {path.name for path in folder.iterdir()} == files

    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert table_of(readme) == table_of(done.stdout)  # the README shows what is printed now

    table = pl.read_csv(folder / "metrics.csv")
    assert table["name"].to_list() == NAMES
    assert table["n_forecasts"].unique().to_list() == [579 * 30]  # 1969-01 to 2017-03
    assert table["n_failed"].sum() == 0
    scores = dict(zip(table["name"], table.to_dicts(), strict=True))
    assert scores["historical mean"]["r2_mean"] == 0.0
    assert scores["zero"]["r2_zero"] == 0.0
    assert scores["zero"]["rank_ic"] is None
    for name in NAMES[:5]:
        assert scores[name]["r2_zero"] != 0.0  # factors keep their mean: the forecast is not zero
        assert 0.85 < scores[name]["total_r2"] < 0.92
        assert scores[name]["coverage_90"] == pytest.approx(0.9, abs=0.04)

    predictions = pl.read_parquet(folder / "predictions.parquet")
    assert str(predictions["timestamp"].min()) == "1968-12-31"
    assert str(predictions["target_timestamp"].min()) == "1969-01-31"
    mean = predictions.filter(pl.col("predictor") == NAMES[0])["prediction_value"]
    assert 0.002 < mean.mean() < 0.012  # a monthly premium in decimals
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["panel"]["value_kind"] == "excess_return"
    assert manifest["panel"]["notes"] == [
        "fill_missing('drop') left out 1,080 rows with 1,080 observed values"
    ]


def test_the_configuration_repeats_the_demo(capsys, tmp_path, short):
    code, out, err = run_cli(capsys, "demo", "--out", tmp_path / "demo")
    assert (code, err) == (0, "")
    code, again, err = run_cli(capsys, "walk-forward", tmp_path / "demo" / "config.toml")
    assert (code, err) == (0, "")
    assert table_of(again) == table_of(out)
    first, second = (
        pl.read_csv(folder / "metrics.csv").drop("seconds")
        for folder in (tmp_path / "demo", tmp_path / "demo" / "walk-forward")
    )
    assert first.equals(second, null_equal=True)
    predictions = [
        (folder / "predictions.parquet").read_bytes()
        for folder in (tmp_path / "demo", tmp_path / "demo" / "walk-forward")
    ]
    assert predictions[0] == predictions[1]


def table_of(out):
    """The table's lines as words; prose that opens with a predictor's name has no such line."""
    rows = (line for line in out.splitlines() if line.startswith(tuple(f" {name} " for name in NAMES)))
    return [line.split() for line in rows]


def test_the_risk_free_rate_is_subtracted_once():
    from linearmodels.datasets import french

    panel = demo.demo_panel(demo.parse_job(demo.tomllib.loads(demo.DEMO_CONFIG)))
    raw = french.load()
    excess = (raw["NoDur"] - raw["RF"]).to_numpy()
    got = panel.wide()[:, panel.assets == "NoDur"][:, 0]
    # the first 36 months lack characteristics and are dropped
    np.testing.assert_array_equal(got[36:], excess[36:])
    assert np.isnan(got[:36]).all()


def test_the_file_holds_the_same_panel(tmp_path):
    job = demo.parse_job(demo.tomllib.loads(demo.DEMO_CONFIG), tmp_path)
    demo._sample().write_csv(tmp_path / "french.csv")
    assert load_panel(job).digests()[-1] == demo.demo_panel(job).digests()[-1]


def test_characteristics_are_built_from_earlier_returns(short):
    job = demo.parse_job(demo.tomllib.loads(demo.DEMO_CONFIG))
    panel = demo.demo_panel(job)
    assert panel.characteristic_names[:2] == ("mom12m", "mom6m")
    assert panel.transforms[-3:] == ("fill_missing('drop')", "rank_standardise", "add_constant")
    cut = french_frame().filter(pl.col("date") <= pl.date(2000, 12, 31))
    earlier = job.prepare(
        demo.Panel.from_frame(cut, time="date", asset="portfolio", value="excess_return", lag=0)
    )
    np.testing.assert_array_equal(earlier.characteristics, panel.characteristics[: earlier.n_rows])


def test_an_edited_configuration_is_kept(capsys, tmp_path, short):
    mine = demo.DEMO_CONFIG.replace("n_factors = 5", "n_factors = 2")
    (tmp_path / "config.toml").write_text(mine)
    code, out, _ = run_cli(capsys, "demo", "--out", tmp_path)
    assert code == 0
    assert (tmp_path / "config.toml").read_text() == mine
    assert "was there already" in out


def test_without_linearmodels(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "linearmodels.datasets", None)
    code, out, err = run_cli(capsys, "demo", "--out", tmp_path / "demo")
    assert (code, out) == (2, "")
    assert err.startswith(
        "error: the French sample ships in linearmodels, which is not installed: pip install"
    )
    assert err.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_a_file_in_the_way(capsys, tmp_path):
    (tmp_path / "demo").write_text("mine")
    code, _, err = run_cli(capsys, "demo", "--out", tmp_path / "demo")
    assert code == 2
    assert "is a file, expected a folder" in err
    assert (tmp_path / "demo").read_text() == "mine"
