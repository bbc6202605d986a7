"""Searches in a configuration file: candidates, a choice in every window, one line for what is wrong."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from latentfactors import (
    CrossSectionalRidgePredictor,
    EWMAFactorForecaster,
    ExpandingWindow,
    LatentFactorForecastPipeline,
    PCAConfig,
    PCAModel,
    walk_forward,
)
from latentfactors.compare_jobs import read_compare_job, run_compare_job
from latentfactors.errors import ConfigurationError
from latentfactors.evaluate import SelectedPredictor, SelectionConfig
from latentfactors.jobs import load_panel, parse_job, read_job, run_job, write_job
from tests.cli.small import CONFIG, write_small_job

HEAD = CONFIG.partition("[[predictor]]")[0]
SEARCHED = """
[[predictor]]
name = "PCA"
kind = "pipeline"
model = { type = "pca", alpha = false }
forecaster = { type = "ewma", half_life = 12 }
search = { grid = { n_factors = [1, 2, 3] }, validation = 6, step = 3, rule = "one_standard_error" }

[[predictor]]
name = "ridge"
kind = "cross_sectional_ridge"

[predictor.search]
grid = { penalty = [0.01, 1] }
validation = 6
step = 6

[[predictor]]
name = "zero"
kind = "zero"

[[predictor]]
name = "best"
kind = "selected"
candidates = ["ridge", "zero"]
validation = 4
step = 2
"""


def pipeline(n_factors):
    from latentfactors import BetaLambdaMapper

    return LatentFactorForecastPipeline(
        model=PCAModel(PCAConfig(n_factors=n_factors, alpha=False)),
        forecaster=EWMAFactorForecaster(half_life=12),
        mapper=BetaLambdaMapper(),
    )


def test_a_file_searches_as_the_classes_do(tmp_path):
    job = read_job(write_small_job(tmp_path, HEAD + SEARCHED))
    assert list(job.predictors) == ["PCA", "ridge", "zero", "best"]
    result = run_job(job)
    by_hand = {
        "PCA": SelectedPredictor(
            {f"n_factors={k}": pipeline(k) for k in (1, 2, 3)},
            SelectionConfig(validation=6, step=3, rule="one_standard_error"),
        ),
        "ridge": SelectedPredictor(
            {f"penalty={x}": CrossSectionalRidgePredictor(penalty=float(x)) for x in ("0.01", "1")},
            SelectionConfig(validation=6, step=6),
        ),
    }
    panel = load_panel(job)
    for name, predictor in by_hand.items():
        assert predictor.identity == job.predictors[name].identity
        same = walk_forward(predictor, panel, ExpandingWindow(first=24, step=6))
        np.testing.assert_array_equal(result.results[name].record.forecast, same.record.forecast)
        for summary in result.results[name].summaries:
            assert summary.reason.startswith("chose '")
            assert "validation_loss" in summary.metrics
    nested = job.predictors["best"]
    assert list(nested.candidates) == ["ridge", "zero"]
    assert isinstance(nested.candidates["ridge"], SelectedPredictor)
    assert not any(each.failures for each in result.results.values())
    write_job(result)
    predictions = pl.read_parquet(tmp_path / "results" / "predictions.parquet")
    assert predictions["predictor"].unique(maintain_order=True).to_list() == list(job.predictors)


def test_finished_validation_windows_are_kept_in_the_store_of_the_run(tmp_path):
    config = HEAD.replace('output = "results"', 'output = "results"\nstore = "done"') + SEARCHED
    job = read_job(write_small_job(tmp_path, config))
    assert job.predictors["PCA"].store == tmp_path / "done"
    run_job(job)
    windows = len(list((tmp_path / "done").iterdir()))
    # every window of every predictor, and for those that search the windows of every candidate
    assert windows > 4 * 3 + 3 * 2
    run_job(job)
    assert len(list((tmp_path / "done").iterdir())) == windows


def test_a_comparison_takes_part_in_searches(tmp_path):
    run = run_compare_job(read_compare_job(write_small_job(tmp_path, HEAD + SEARCHED)))
    assert set(run.comparison.results) == {"PCA", "ridge", "zero", "best"}


def test_the_horizon_of_the_run_is_the_one_that_candidates_are_judged_at(tmp_path):
    config = HEAD.replace('output = "results"', 'output = "results"\nhorizon = 2') + SEARCHED
    job = read_job(write_small_job(tmp_path, config))
    assert {job.predictors[name].config.horizon for name in ("PCA", "ridge", "best")} == {2}


def test_deep_factors_are_searched_with_the_types_of_their_config(tmp_path):
    pytest.importorskip("jax")
    deep = """
[[predictor]]
name = "deep"
kind = "pipeline"
model = { type = "d2fm", n_factors = 1, max_iterations = 1 }
forecaster = "native"
mapper = "native"
search = { grid = { hidden_units = [[8], [8, 4]], decoder = ["linear"] }, targets = ["F1"] }
"""
    job = read_job(write_small_job(tmp_path, HEAD + deep))
    found = job.predictors["deep"]
    assert list(found.candidates) == [
        "hidden_units=[8], decoder=linear",
        "hidden_units=[8, 4], decoder=linear",
    ]
    assert [each.model.config.hidden_units for each in found.candidates.values()] == [(8,), (8, 4)]
    assert found.config == SelectionConfig(targets=("F1",))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("grid = { n_factors = [1, 2, 3] }, ", "", "'PCA' search: grid is missing"),
        ("n_factors = [1, 2, 3]", "", "'PCA' search grid must hold 1 to 1,000 candidates, got none"),
        ("n_factors = [1, 2, 3]", "n_factors = 3", "n_factors must be a list of values to try, got 3"),
        ("n_factors = [1, 2, 3]", "n_factors = [1, 1]", "grid n_factors holds a value twice"),
        ("n_factors = [1, 2, 3]", "n_factors = ['1', 1]", "grid n_factors holds a value twice"),
        ("n_factors = [1, 2, 3]", "n_factors = []", "grid n_factors must be a list of values to try"),
        ("n_factors = [1, 2, 3]", "factors = [1]", r"\(factors=1\) model \(pca\): unknown key 'factors'"),
        ("n_factors = [1, 2, 3]", "n_factors = ['two']", "n_factors must be a whole number, got 'two'"),
        ("n_factors = [1, 2, 3]", "n_factors = [0]", r"search \(n_factors=0\) model \(pca\): n_factors"),
        ("alpha = false", "n_factors = 2", "grid n_factors: the option also has the value 2"),
        ("validation = 6, step = 3", "validations = 6", "search: unknown key 'validations', expected grid, "),
        ("validation = 6, step = 3", "validation = 0", "search: validation must be a whole number >= 1"),
        ('"one_standard_error"', '"worst"', "search rule must be one of 'best', 'one_standard_error'"),
        ("penalty = [0.01, 1]", "penalty = [-1]", "penalty"),
        ('= ["ridge", "zero"]', '= ["ridge", "mean"]', "'mean' is none of the predictors above"),
        ('candidates = ["ridge", "zero"]', 'candidates = ["best"]', "'best' is none of the predictors above"),
        ('candidates = ["ridge", "zero"]', "candidates = []", "candidates must be a list of names"),
        ('candidates = ["ridge", "zero"]', "", "candidates must be a list of names .* above it, got nothing"),
        ("validation = 4", "window = 4", "'best': unknown key 'window'"),
        (
            "n_factors = [1, 2, 3]",
            "n_factors = [" + ", ".join(map(str, range(1, 40))) + "], min_observed = ["
            + ", ".join(map(str, range(1, 40))) + "]",
            "1 to 1,000 candidates, got more",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_before_anything_is_read(tmp_path, old, new, words):
    import tomllib

    assert old in SEARCHED
    with pytest.raises(ConfigurationError, match=words) as refusal:
        parse_job(tomllib.loads(HEAD + SEARCHED.replace(old, new)), tmp_path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "results").exists()
