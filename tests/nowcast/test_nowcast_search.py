"""Options of the nowcasting model, chosen by the configuration's [search]."""

from __future__ import annotations

import json
import shutil

import pytest

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import SelectionConfig
from latentfactors.nowcast_jobs import read_nowcast_job, run_nowcast_job
from tests.nowcast import test_nowcast_jobs as desk

folder = desk.folder
SEARCHED = (
    desk.CONFIG.replace("n_factors = 1\n", "")
    + """
[search]
grid = { n_factors = [1, 2], factor_lags = [1] }
validation = 12
step = 12
targets = ["gdp", "m1"]
"""
)


def job(folder, text):
    (folder / "config.toml").write_text(text)
    return read_nowcast_job(folder / "config.toml")


def test_the_desk_takes_the_options_with_the_best_forecasts(folder):
    found = job(folder, SEARCHED)
    assert found.search is not None
    assert list(found.search.models) == ["n_factors=1, factor_lags=1", "n_factors=2, factor_lags=1"]
    assert found.search.config == SelectionConfig(validation=12, step=12, targets=("gdp", "m1"))
    run = run_nowcast_job(found)
    chosen = run.model.config
    note = (
        f"n_factors={chosen.n_factors}, factor_lags=1 was chosen of 2 candidates by forecasts of the last 12 "
        "periods"
    )
    assert note in run.notes
    snapshot = json.loads((run.folder / "snapshot.json").read_text())
    assert note in snapshot["notes"]
    shutil.rmtree(folder / "nowcasts")
    by_hand = run_nowcast_job(
        job(folder, desk.CONFIG.replace("n_factors = 1", f"n_factors = {chosen.n_factors}"))
    )
    assert run.nowcast.mean.tolist() == by_hand.nowcast.mean.tolist()


def test_a_kept_model_is_not_searched_again(folder):
    run_nowcast_job(job(folder, SEARCHED))
    later = SEARCHED.replace("2008-02-25", "2008-03-28").replace(
        'output = "nowcasts"', 'output = "nowcasts"\nrefit = false'
    )
    run = run_nowcast_job(job(folder, later))
    assert not any("was chosen" in note for note in run.notes)
    assert any("only data moved the nowcast" in note for note in run.notes)
    assert run.news


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("n_factors = [1, 2]", "n_factors = [0]", r"\[search\] \(n_factors=0, .*\[model\].*n_factors"),
        ("n_factors = [1, 2]", "factors = [1]", "unknown key 'factors'"),
        ("factor_lags = [1]", "tolerance = [1e-2]", "tolerance: the option also has the value"),
        ("validation = 12", "validation = 0", r"\[search\]: validation must be a whole number >= 1"),
        ("grid = { n_factors = [1, 2], factor_lags = [1] }", "", r"\[search\]: grid is missing"),
    ],
)
def test_a_bad_search_is_one_line(folder, old, new, words):
    assert old in SEARCHED
    with pytest.raises(ConfigurationError, match=words) as refusal:
        job(folder, SEARCHED.replace(old, new))
    assert "\n" not in str(refusal.value)


def test_what_the_data_cannot_validate_is_refused_and_nothing_is_written(folder):
    with pytest.raises(InsufficientDataError, match=r"\[search\]: validation=5000 leaves nothing"):
        run_nowcast_job(job(folder, SEARCHED.replace("validation = 12", "validation = 5000")))
    with pytest.raises(ConfigurationError, match=r"\[search\]: .*no target 'm9'"):
        run_nowcast_job(job(folder, SEARCHED.replace('"m1"]', '"m9"]')))
    assert not (folder / "nowcasts").exists() or not list((folder / "nowcasts").iterdir())
