import json
import tomllib

import numpy as np
import polars as pl
import pytest

from latentfactors import jobs
from latentfactors import registry as names
from latentfactors.errors import ConfigurationError, PanelError, StoreError
from latentfactors.help_texts import EXAMPLE_CONFIG
from latentfactors.jobs import load_panel, parse_job, read_job, run_job, write_job
from latentfactors.settings import choose
from tests.cli.small import CONFIG, small_frame, write_small_job


def test_every_name_of_the_registries_exists():
    registries = (
        names.MODELS,
        names.FORECASTERS,
        names.MAPPERS,
        names.PREDICTORS,
        names.STEPS,
        names.SPLITS,
    )
    for registry in registries:
        for name in registry:
            assert callable(choose(registry, name, "here"))


def test_the_example_of_the_help_is_a_job():
    job = parse_job(tomllib.loads(EXAMPLE_CONFIG))
    assert list(job.predictors) == ["PCA", "ridge"]
    for name in [*names.FORECASTERS, *names.MAPPERS, *names.PREDICTORS, *names.STEPS]:
        assert name in EXAMPLE_CONFIG, name
    for option in jobs.DataOptions.__dataclass_fields__ | jobs.RunOptions.__dataclass_fields__:
        assert option in EXAMPLE_CONFIG, option


def test_a_job_writes_what_it_says(tmp_path):
    job = read_job(write_small_job(tmp_path))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "notes.txt").write_text("mine")
    seen = []
    result = run_job(job, progress=lambda *step: seen.append(step))
    written = write_job(result)
    assert sorted(path.name for path in written) == [
        "manifest.json", "metrics.csv", "predictions.parquet", "report-data.zip"
    ]  # fmt: skip
    assert {path.name for path in (tmp_path / "results").iterdir()} == {path.name for path in written} | {
        "notes.txt"
    }
    assert seen[-1] == ("zero", 12, 12)
    assert [step[1] for step in seen] == sorted(step[1] for step in seen)

    predictions = pl.read_parquet(tmp_path / "results" / "predictions.parquet")
    assert predictions["predictor"].unique(maintain_order=True).to_list() == ["PCA", "ridge", "mean", "zero"]
    # lag = 1: the month after the last line is live, forecast from the last line's month
    assert str(predictions["target_timestamp"].max()) == "2013-05-31"
    assert str(predictions["timestamp"].max()) == "2013-04-30"
    assert predictions.filter(pl.col("predictor") == "PCA")["prediction_std"].null_count() == 0

    metrics = pl.read_csv(tmp_path / "results" / "metrics.csv")
    assert metrics["name"].to_list() == ["PCA", "ridge", "mean", "zero"]
    assert metrics["rank_ic"].null_count() == 1  # of the constant forecast

    manifest = json.loads((tmp_path / "results" / "manifest.json").read_text())
    assert manifest["config"] == tomllib.loads(CONFIG)
    assert manifest["panel"]["transforms"] == ["rank_standardise"]
    assert manifest["predictors"]["PCA"]["failures"] == []
    assert len(manifest["splits"]) == 3
    assert "predictions.parquet" in manifest["files"]
    assert set(manifest["versions"]) == {"python", "numpy", "scipy", "polars"}


def test_csv_and_parquet_give_the_same(tmp_path):
    csv = run_job(read_job(write_small_job(tmp_path)))
    small_frame().write_parquet(tmp_path / "data.parquet")
    (tmp_path / "config.toml").write_text(CONFIG.replace("data.csv", "data.parquet"))
    parquet = run_job(read_job(tmp_path / "config.toml"))
    assert csv.table.drop("seconds").equals(parquet.table.drop("seconds"), null_equal=True)


def test_options_reach_their_objects(tmp_path):
    windows = "{ mom6m = [3, 1], beta = 6, min_share = 1 }"
    step = f'{{ name = "characteristics_from_returns", names = ["mom6m", "beta"], windows = {windows} }}'
    text = CONFIG.replace('["rank_standardise"]', f'[{step}, "rank_standardise", "add_constant"]')
    text = text.replace("first = 24", "first = 2012-01-31")
    text = text.replace('kind = "expanding"', 'kind = "rolling"\nsize = 20')
    text = text.replace('output = "results"', 'output = "results"\nhorizon = 2')
    job = read_job(write_small_job(tmp_path, text))
    assert job.predictors["PCA"].forecaster.config.half_life == 12.0
    assert job.predictors["ridge"].config.horizon == 2  # direct predictors learn at the job's horizon
    assert job.splits.size == 20
    result = run_job(job)
    assert result.panel.characteristic_names == ("size", "mom6m", "beta", "constant")
    assert str(result.panel.times[result.results["PCA"].splits[0].start]) == "2012-01-31"


def test_a_second_run_takes_up_the_finished_splits(tmp_path):
    path = write_small_job(tmp_path, CONFIG.replace("[run]", '[run]\nstore = "store"'))
    first, second = run_job(read_job(path)), run_job(read_job(path))
    assert [each.n_reused for each in first.results.values()] == [0] * 4
    assert [each.n_reused for each in second.results.values()] == [3] * 4
    same = [name for name in first.table.columns if name != "seconds"]
    assert first.table.select(same).equals(second.table.select(same), null_equal=True)
    path.write_text(path.read_text().replace("half_life = 12", "half_life = 6"))
    third = run_job(read_job(path))
    assert [each.n_reused for each in third.results.values()] == [0, 3, 3, 3]


def test_what_cannot_be_written_leaves_the_old_results(tmp_path, monkeypatch):
    job = read_job(write_small_job(tmp_path))
    result = run_job(job)
    write_job(result)
    before = {path.name: path.read_bytes() for path in job.output.iterdir()}

    def fail(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr(jobs, "write_frames", fail)
    with pytest.raises(OSError, match="full"):
        write_job(result)
    assert {path.name: path.read_bytes() for path in job.output.iterdir()} == before


def test_results_never_replace_the_data(tmp_path):
    small_frame().write_parquet(tmp_path / "predictions.parquet")
    text = CONFIG.replace("data.csv", "predictions.parquet").replace('"results"', '"."')
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigurationError, match="replace the data"):
        read_job(tmp_path / "config.toml")


def test_dates_without_frequency_and_a_longer_horizon_are_refused_before_the_work(tmp_path):
    frame = small_frame().with_columns(pl.col("month").str.to_date())
    days = frame["month"].unique().sort().to_list()
    moved = {day: day.replace(day=1 + i % 20) for i, day in enumerate(days[:20])}
    frame = frame.with_columns(pl.col("month").replace(moved))
    frame.write_csv(tmp_path / "data.csv")
    text = CONFIG.replace("lag = 1", "lag = 0").replace('"results"', '"results"\nhorizon = 2')
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigurationError, match="frequency"):
        run_job(read_job(tmp_path / "config.toml"))


def csv_job(folder, times, firms=("A", "B", "C")):
    rng = np.random.default_rng(0)
    lines = ["month,firm,ret,size"]
    lines += [f"{month},{firm},{rng.normal():.4f},{rng.uniform():.4f}" for month in times for firm in firms]
    config = write_small_job(folder)
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    return read_job(config)


def test_a_csv_keeps_its_labels(tmp_path):
    months = [f"{2000 + k // 12}-{k % 12 + 1:02d}-15" for k in range(40)]
    assert load_panel(csv_job(tmp_path, months, ("007", "7", "1E5"))).assets.tolist() == ["007", "1E5", "7"]
    assert load_panel(csv_job(tmp_path, months, ("10107", "7"))).assets.tolist() == [7, 10107]


def test_a_csv_guesses_no_dates(tmp_path):
    american = [f"{k % 12 + 1:02d}/01/{2000 + k // 12}" for k in range(40)]
    with pytest.raises(PanelError, match="month"):
        load_panel(csv_job(tmp_path, american))


def test_a_zoned_evening_stays_in_its_month(tmp_path):
    days = (np.datetime64("2000-02") + np.arange(40).astype("timedelta64[M]")).astype("datetime64[D]")
    evenings = [f"{day}T23:30:00-05:00" for day in days - np.timedelta64(1, "D")]
    panel = load_panel(csv_job(tmp_path, evenings))
    # lag=1: the first row is the month after the first line's
    assert str(panel.times[0]) == "2000-02-29"


def test_a_foreign_manifest_is_left_alone(tmp_path):
    config = write_small_job(tmp_path)
    (tmp_path / "results").mkdir()
    foreign = tmp_path / "results" / "manifest.json"
    foreign.write_text('{"name": "my web app"}')
    job = read_job(config)
    with pytest.raises(StoreError, match="manifest"):
        write_job(run_job(job))
    assert foreign.read_text() == '{"name": "my web app"}'
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("horizon = 1000000000000000000000000000000", "horizon must be at most"),
        ("n_jobs = 100000000000000000000", "n_jobs must be"),
        ('store = "o\\u0000x"', "store must be the name of a folder"),
    ],
)
def test_absurd_options_are_refused_before_the_work(tmp_path, line, words):
    config = write_small_job(tmp_path, CONFIG.replace('output = "results"', f'output = "results"\n{line}'))
    with pytest.raises(ConfigurationError, match=words):
        read_job(config)


def test_a_bottomless_configuration_is_refused(tmp_path):
    (tmp_path / "config.toml").write_text("x = " + "[" * 5000)
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        read_job(tmp_path / "config.toml")
