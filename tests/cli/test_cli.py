"""The command line as a user meets it: exit codes, one line on stderr, nothing left half-written."""

import os
import signal
import subprocess
import sys
import time

import pytest

from latentfactors import __version__, cli, help_texts
from tests.cli.small import CONFIG, small_frame, write_small_job


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a call in this process."""
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return leaving.value.code or 0, captured.out, captured.err


def test_help_and_version(capsys):
    for arguments in ((), ("--help",), ("-h",)):
        code, out, err = run(capsys, *arguments)
        assert code == 0
        assert err == ""
        assert "walk-forward" in out
        assert "latentfactors demo" in out
    assert run(capsys, "--version") == (0, f"latentfactors {__version__}\n", "")
    code, out, _ = run(capsys, "walk-forward", "--help")
    for line in help_texts.EXAMPLE_CONFIG.splitlines():
        assert line in out


def test_the_help_loads_nothing_heavy():
    code = (
        "import sys; from latentfactors.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'polars', 'numba', 'joblib', 'linearmodels'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)


def test_walk_forward(capsys, tmp_path):
    config = write_small_job(tmp_path)
    code, out, err = run(capsys, "walk-forward", config)
    assert (code, err) == (0, "")
    for word in (
        "PCA",
        "ridge",
        "3 fits of each predictor, forecasts from 2012-02-29 on",
        "predictions.parquet",
    ):
        assert word in out
    code, _, _ = run(capsys, "walk-forward", config, "--out", tmp_path / "other", "--jobs", "1")
    assert code == 0
    assert (tmp_path / "other" / "metrics.csv").is_file()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_table_fits(capsys, tmp_path, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    text = CONFIG.replace('"PCA"', '"a predictor with a really long name that needs two lines"')
    _, out, _ = run(capsys, "walk-forward", write_small_job(tmp_path, text))
    table = [line for line in out.splitlines() if not line.startswith(("Written", " " * 200))]
    assert max(map(len, table)) <= width
    assert "…" not in out


def test_a_resumed_job_says_so(capsys, tmp_path):
    config = write_small_job(tmp_path, CONFIG.replace("[run]", '[run]\nstore = "store"'))
    _, out, _ = run(capsys, "walk-forward", config)
    assert "reused" not in out
    _, out, _ = run(capsys, "walk-forward", config)
    assert "PCA: 3 of 3 splits reused" in out


def test_failed_splits_are_reported_and_the_others_go_on(capsys, tmp_path):
    # K = 5 needs five training months; the first split has four
    text = CONFIG.replace("first = 24", "first = 4").replace("n_factors = 2", "n_factors = 5")
    code, out, err = run(capsys, "walk-forward", write_small_job(tmp_path, text))
    assert code == 0
    assert err.startswith("warning: PCA: 1 of 6 splits failed, the first (train 2010-02-28..")
    assert "note: ridge has" in out


BAD_CONFIGS = {
    "not TOML": ("[data]", "[data", "not valid TOML"),
    "unknown section": ("[prepare]", "[prepar]", "unknown section 'prepar'"),
    "missing section": ('[splits]\nkind = "expanding"\nfirst = 24\nstep = 6\n', "", "[splits] is missing"),
    "missing key": ("lag = 1\n", "", "[data]: lag is missing, expected a whole number"),
    "unknown key": ("lag = 1\n", "lag = 1\nlagg = 1\n", "unknown key 'lagg', expected path, time"),
    "wrong type": ("first = 24", "first = 2.5", "[splits] first must be a whole number or a date, got 2.5"),
    "no number": ("step = 6", 'step = "6"', "[splits] step must be a whole number, got '6'"),
    "bool is no number": ("lag = 1", "lag = true", "[data] lag must be a whole number, got True"),
    "no list": ('["size"]', '"size"', "characteristics must be a list, each a text, got 'size'"),
    "lag out of range": ("lag = 1", "lag = 2", "lag must be 0"),
    "value of an option": ("half_life = 12", "half_life = -1", "half_life must be a finite number > 0"),
    "unknown splits": ('"expanding"', '"sliding"', "[splits] kind must be one of expanding, rolling"),
    "missing size": ('"expanding"', '"rolling"', "[splits]: size is missing"),
    "unknown predictor": ('"historical_mean"', '"median"', "'mean' kind must be one of pipeline, zero"),
    "unknown model": ('"pca"', '"pcb"', "got 'pcb'"),
    "unknown forecaster": ('"ewma"', '"arma"', "forecaster type must be one of expanding_mean"),
    "unknown option": ("half_life", "halflife", "(ewma): unknown key 'halflife', expected half_life"),
    "missing model": ("model = { type", "mapper = { type", "a pipeline needs model, one of pca"),
    "unknown step": ('"rank_standardise"', '"rank"', "[prepare] step 1 name must be one of"),
    "steps no list": ('["rank_standardise"]', '"zscore"', "steps must be a list of names or tables"),
    "two of a name": ('"ridge"', '"PCA"', "the name is taken"),
    "single brackets": ("[[predictor]]", "[predictor]", "not valid TOML"),
    "output is a file": ('"results"', '"data.csv"', "'data.csv' is a file, expected a folder"),
    "store is a file": ("[run]", '[run]\nstore = "data.csv"', "is a file, expected a folder"),
    "no jobs": ("[run]", "[run]\nn_jobs = 0", "n_jobs must be a number of processes"),
    "horizon": ("[run]", "[run]\nhorizon = 0", "horizon must be"),
    "no such period": ("first = 24", "first = 2050-01-31", "2050-01-31 is not in this panel"),
    "nothing to train on": ("first = 24", "first = 400", "must leave at least one training"),
    "no such file": ("data.csv", "date.csv", "[data] date.csv: there is no such file"),
    "unknown ending": ("data.csv", "config.toml", "expected a .csv or .parquet file, got the ending '.toml'"),
    "no such column": ('"ret"', '"return"', "no column 'return'; the data have 'month'"),
    "swapped columns": ('time = "month"\nasset = "firm"', 'time = "firm"\nasset = "month"', "swapped"),
    "too many factors": ("n_factors = 2", "n_factors = 99", "all 3 splits failed"),
    "native without dynamics": ('{ type = "ewma", half_life = 12 }', '"native"', "no dynamics of its own"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_configuration_is_one_line_and_writes_nothing(capsys, tmp_path, monkeypatch, case):
    old, new, message = BAD_CONFIGS[case]
    assert old in CONFIG
    monkeypatch.chdir(tmp_path)
    write_small_job(tmp_path, CONFIG.replace(old, new))
    before = sorted(tmp_path.iterdir())
    code, out, err = run(capsys, "walk-forward", "config.toml")
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert message in err
    assert out == ""
    assert sorted(tmp_path.iterdir()) == before


BAD_DATA = {
    "empty": (b"", "cannot be read as CSV"),
    "only a header": (b"month,firm,ret,size\n", "no lines"),
    "binary": (bytes(range(256)) * 20, "cannot be read as CSV"),
    "text": (b"month,firm,ret,size\n2010-01-31,A,high,1\n2010-02-28,A,1,1\n", "must hold numbers"),
    "decimal comma": (b"month,firm,ret,size\n2010-01-31,A,0,1,1\n", "more fields"),
    "infinity": (b"month,firm,ret,size\n2010-01-31,A,inf,1\n2010-02-28,A,inf,1\n", "infinit"),
    "a column twice": (b"month,firm,ret,ret,size\n2010-01-31,A,1,1,1\n", "several columns named 'ret'"),
    "duplicates": (b"month,firm,ret,size\n2010-01-31,A,1,1\n2010-01-31,A,2,1\n", "duplicate"),
    "dates as integers": (b"month,firm,ret,size\n201001,A,1,1\n201002,A,2,1\n", "calendar dates"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_line_and_writes_nothing(capsys, tmp_path, case):
    content, message = BAD_DATA[case]
    config = write_small_job(tmp_path)
    (tmp_path / "data.csv").write_bytes(content)
    code, out, err = run(capsys, "walk-forward", config)
    assert (code, out) == (2, "")
    assert err.startswith("error: [data] data.csv: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "results").exists()


def test_a_parquet_file_that_is_none(capsys, tmp_path):
    config = write_small_job(tmp_path, CONFIG.replace("data.csv", "data.parquet"))
    (tmp_path / "data.parquet").write_text("month,firm\n")
    code, _, err = run(capsys, "walk-forward", config)
    assert code == 2
    assert err.count("\n") == 1
    assert "not a readable Parquet file" in err


def test_texts_that_stand_for_missing(capsys, tmp_path):
    config = write_small_job(tmp_path, CONFIG.replace("lag = 1", 'lag = 1\nmissing = ["NA", "."]'))
    lines = small_frame().write_csv().splitlines()
    lines[20] = ",".join([*lines[20].split(",")[:2], "NA", "."])
    (tmp_path / "data.csv").write_text("\n".join(lines))
    assert run(capsys, "walk-forward", config)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demmo"], "No such command 'demmo'"),
        (["walk-forward"], "Missing argument 'CONFIG'"),
        (["walk-forward", "nowhere.toml"], "no configuration file at 'nowhere.toml'"),
        (["walk-forward", "."], "no configuration file at '.'"),
        (["demo", "--jobs", "many"], "--jobs"),
        (["demo", "--jobs", "0"], "n_jobs"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_usage_errors_are_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_bug_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("latentfactors.jobs.run_job", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["walk-forward", str(write_small_job(tmp_path))])


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_interrupt_leaves_with_130(tmp_path):
    config = write_small_job(tmp_path, CONFIG.replace("step = 6", "step = 1"))
    # the job's own interpreter marks the moment it starts to run, then would run for a minute
    code = (
        "import time; import latentfactors.jobs as jobs\n"
        "def run_job(job, progress=None):\n"
        "    (job.folder / 'started').touch(); time.sleep(60)\n"
        "jobs.run_job = run_job\n"
        "from latentfactors.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "walk-forward", str(config)], stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if (tmp_path / "started").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "interrupted: nothing was written\n"
    assert not (tmp_path / "results").exists()
