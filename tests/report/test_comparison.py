"""The comparison in the report: figures show the comparison's numbers, the section says who was left out."""

import numpy as np
import polars as pl
import pytest

from latentfactors import CrossSectionalOLSPredictor, ExpandingWindow, HistoricalMeanPredictor, ZeroPredictor
from latentfactors import compare as compare_models
from latentfactors.compare_jobs import parse_compare_job, run_compare_job, write_compare_job
from latentfactors.report import diebold_mariano_figure, r2_figure, read_run, render_report
from latentfactors.simulate import characteristic_panel
from tests.cli.small import CONFIG, write_small_job
from tests.report.browser import Browser, find_chromium
from tests.report.test_html import Page


@pytest.fixture(scope="module")
def found():
    panel = characteristic_panel(n_periods=60, n_assets=30, n_factors=2, seed=3).panel
    models = {
        "<i>OLS": CrossSectionalOLSPredictor(),
        "mean": HistoricalMeanPredictor(),
        "zero": ZeroPredictor(),
    }
    return compare_models(panel, models, splits=ExpandingWindow(first=36, step=12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `latentfactors compare` writes, without predictors in its configuration."""
    import tomllib

    home = tmp_path_factory.mktemp("compared")
    write_small_job(home)
    config = tomllib.loads(CONFIG)
    config["predictor"] = [each for each in config["predictor"] if each["name"] != "ridge"]
    config["predictor"].append({"name": "trees", "kind": "gradient_boosting", "max_trees": 5})
    config["predictor"].append({"name": "sequence", "kind": "neuralforecast", "input_size": 500})
    run = run_compare_job(parse_compare_job(config, home))
    write_compare_job(run)
    return home / "results"


def test_bars_are_the_table(found):
    zero, mean = r2_figure(found.table()).data
    np.testing.assert_allclose(zero.x, 100 * found.table()["r2_zero"].to_numpy())
    np.testing.assert_allclose(mean.x, 100 * found.table()["r2_mean"].to_numpy())
    assert zero.y[0] == "&lt;i&gt;OLS"
    bad = pl.DataFrame({"name": ["good", "bad"], "r2_zero": [0.01, -5.0], "r2_mean": [0.0, np.nan]})
    low, high = r2_figure(bad).layout.xaxis.range
    assert -5 < low < -2 < 1 < high  # percent: cut at twice the best below zero


def test_the_heat_map_is_the_matrix(found):
    heat = diebold_mariano_figure(found.diebold_mariano).data[0]
    np.testing.assert_array_equal(heat.z, found.diebold_mariano.statistics)
    assert list(heat.x) == ["&lt;i&gt;OLS", "mean", "zero"]
    assert heat.text[0][0] == ""
    assert float(heat.text[2][0]) == pytest.approx(found.diebold_mariano.statistics[2, 0], abs=0.051)


def test_the_section(folder):
    run = read_run(folder)
    assert run.manifest["comparison"]["sees"]["trees"] == "characteristics"
    text = " ".join(Page(render_report(run)).text.split())
    for words in ("R² against both benchmarks", "own historymean", "Left out: sequence", "Diebold-Mariano"):
        assert words in text, words


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(folder, tmp_path, width):
    path = tmp_path / "report.html"
    path.write_text(render_report(read_run(folder)), encoding="utf-8")
    with Browser(find_chromium(), tmp_path / "profile") as browser:
        browser.open(path, width, ready="document.querySelectorAll('.js-plotly-plot').length > 3")
        assert browser.complaints() == []
        assert browser.requests() == [path.resolve().as_uri()]
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        bars = browser.evaluate("document.querySelectorAll('#comparison .bars .point').length")
        assert bars == 2 * len(read_run(folder).records)
