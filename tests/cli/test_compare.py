"""`latentfactors compare`: a walk-forward's configuration, or one without predictors."""

import csv
import json
from importlib.util import find_spec

import pytest

from latentfactors.compare_jobs import parse_compare_job, read_compare_job
from latentfactors.errors import ConfigurationError
from latentfactors.jobs import parse_job
from tests.cli.small import CONFIG, write_small_job
from tests.cli.test_cli import run

BARE = CONFIG[: CONFIG.index("[[predictor]]")]
NETWORK = """
[[predictor]]
name = "network"
kind = "neural_network"
hidden = [4]
epochs = 2
validation = 0.1

[[predictor]]
name = "trees"
kind = "gradient_boosting"
max_trees = 5

[compare]
n_quantiles = 2
"""


def test_a_walk_forward_configuration_compares(capsys, tmp_path):
    config = write_small_job(tmp_path, CONFIG + NETWORK)
    code, out, err = run(capsys, "compare", config)
    assert (code, err) == (0, "")
    for word in (
        "known values are forecast by all 6 predictors", "own past = own history", "Sharpe", "chars",
        "Model confidence set" if find_spec("arch") else "no model confidence set",
        "comparison.csv, diebold-mariano.csv",
    ):  # fmt: skip
        assert word in " ".join(out.split()), word
    folder = tmp_path / "results"
    rows = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["PCA", "ridge", "mean", "zero", "network", "trees"]
    assert [row["sees"] for row in rows][:2] == ["all histories", "characteristics"]
    assert rows[3]["r2_zero"] == "0.0"
    assert rows[3]["long_short_t"] == ""
    pairs = list(csv.DictReader((folder / "diebold-mariano.csv").read_text().splitlines()))
    assert float(pairs[0]["ridge"]) == -float(pairs[1]["PCA"])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["comparison"]["sees"]["mean"] == "own history"
    # again: every split comes from the store beside the results
    _, again, _ = run(capsys, "compare", config)
    assert "trees: 3 of 3 splits reused" in again
    code, _, _ = run(capsys, "compare", config, "--out", tmp_path / "other", "--jobs", "1")
    assert code == 0
    assert (tmp_path / "other" / "finished-splits").is_dir()
    assert run(capsys, "report", folder)[0] == 0


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits(capsys, tmp_path, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    text = CONFIG.replace('"PCA"', '"a predictor with a really long name that needs two lines"')
    _, out, _ = run(capsys, "compare", write_small_job(tmp_path, text))
    assert (
        max(len(line) for line in out.splitlines() if not line.startswith(("Written", "  latent"))) <= width
    )
    assert "…" not in out


def test_without_predictors_all_take_part(tmp_path):
    path = write_small_job(tmp_path, BARE)
    assert read_compare_job(path).predictors == {}
    with pytest.raises(ConfigurationError, match=r"the section \[\[predictor\]\] is missing"):
        parse_job({key: {} for key in ("data", "splits", "run")})


def test_bad_options(capsys, tmp_path):
    for line, word in (
        ("[compare]\nsize = 2.0\n", "size"),
        ("[compare]\nn_quantiles = 1\n", "n_quantiles"),
        ("[compare]\nsizes = 1\n", "sizes"),
    ):
        code, out, err = run(capsys, "compare", write_small_job(tmp_path, CONFIG + line))
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert word in err
    assert parse_compare_job({**_config(), "compare": {"size": 0.25}}).comparison.size == 0.25


def _config():
    import tomllib

    return tomllib.loads(BARE)
