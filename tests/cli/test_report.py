"""`latentfactors report`: a file, or one line and exit code 2."""

import json
import subprocess
import sys

import pytest

from latentfactors import cli
from latentfactors.jobs import read_job, run_job, write_job
from tests.cli.small import write_small_job


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return leaving.value.code or 0, captured.out, captured.err


@pytest.fixture
def folder(tmp_path):
    write_job(run_job(read_job(write_small_job(tmp_path))))
    return tmp_path / "results"


def test_a_report_is_written(capsys, folder, tmp_path):
    code, out, err = run(capsys, "report", folder)
    assert (code, err) == (0, "")
    assert f"Written to {folder / 'report.html'}" in out
    assert run(capsys, "report", folder, "--out", tmp_path / "b.html")[0] == 0
    assert (tmp_path / "b.html").read_bytes()[:15] == b"<!doctype html>"


def damage(folder, what):
    manifest = folder / "manifest.json"
    document = json.loads(manifest.read_text())
    if what == "no manifest":
        manifest.unlink()
    elif what == "text":
        manifest.write_text("{")
    elif what == "list":
        manifest.write_text("[]")
    elif what == "foreign":
        manifest.write_text('{"name": "app"}')
    elif what == "odd parts":
        manifest.write_text(json.dumps(document | {"files": [1], "predictors": 3}))
    elif what == "fewer parts":
        manifest.write_text(json.dumps(document | {"panel": {}}))
    elif what == "other predictors":
        manifest.write_text(json.dumps(document | {"predictors": {"new": {}}}))
    elif what == "old":
        del document["extra_files"]
        manifest.write_text(json.dumps(document))
    elif what == "mixed":
        (folder / "metrics.csv").write_text("name,r2_zero\nmine,1.0\n")
    elif what == "cut":
        (folder / "report-data.zip").write_bytes((folder / "report-data.zip").read_bytes()[:1000])
    else:
        (folder / "predictions.parquet").unlink()


@pytest.mark.parametrize(
    "what",
    [
        "no manifest",
        "text",
        "list",
        "foreign",
        "odd parts",
        "fewer parts",
        "other predictors",
        "old",
        "mixed",
        "cut",
        "no predictions",
    ],
)
def test_a_bad_folder_is_one_line(capsys, folder, what):
    damage(folder, what)
    code, out, err = run(capsys, "report", folder)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (folder / "report.html").exists()
    assert not list(folder.glob(".*"))


def test_no_folder(capsys, tmp_path):
    code, _, err = run(capsys, "report", tmp_path / "nowhere")
    assert code == 2
    assert "there is no run folder" in err
    code, _, err = run(capsys, "report", tmp_path)
    assert code == 2
    assert "no manifest.json" in err


@pytest.mark.parametrize("missing", ["plotly", "jinja2"])
def test_without_the_extra(folder, missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from latentfactors.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'latentfactors[report]'" in done.stderr
    assert not (folder / "report.html").exists()


def test_a_run_needs_no_plotly(tmp_path):
    code = (
        "import sys; sys.modules['plotly'] = sys.modules['jinja2'] = None\n"
        "from latentfactors.cli import main; main()"
    )
    config = write_small_job(tmp_path)
    subprocess.run([sys.executable, "-c", code, "walk-forward", str(config)], check=True, capture_output=True)
