"""`latentfactors nowcast` on files in the layout of FRED-MD and FRED-QD, and what it says to bad ones."""

from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import polars as pl
import pytest

from latentfactors import fred_panel, mixed_frequency_panel
from latentfactors.nowcast_jobs import read_nowcast_job, run_nowcast_job
from tests.cli.test_cli import run
from tests.nowcast.test_news import economy

NAMES = tuple(f"M{k}" for k in range(1, 8))
CONFIG = """
[data]
monthly = "md/*.csv*"
quarterly = "qd/*.csv"
first = 2001-01-01

[[series]]
name = "M1"
group = "output"

[model]
type = "dfm"
n_factors = 1
tolerance = 1e-2
max_iterations = 30

[nowcast]
target = "GDPC1"
scale = 400
unit = "percent at an annual rate"

[run]
output = "nowcasts"
"""


def monthly_text(levels, months, *, codes=True, names=NAMES):
    head = ["sasdate", *names]
    lines = [",".join(head)] + (["Transform:," + ",".join(["5"] * len(names))] if codes else [])
    for month, row in zip(months, levels, strict=True):
        year, number = str(month)[:4], int(str(month)[5:7])
        lines.append(f"{number}/1/{year}," + ",".join("" if np.isnan(x) else f"{x:.6f}" for x in row))
    return "\r\n".join([*lines, "," * len(names), ""])


@pytest.fixture
def folder(tmp_path):
    """Two vintages: later values, one revised, M6 dropped and M7 new, GDP of one more quarter."""
    values, _ = economy(n_periods=102, seed=6)
    months = np.arange(np.datetime64("2000-01"), np.datetime64("2000-01") + 102)
    levels = 100 * np.exp(np.cumsum(values[:, 1:] / 400, axis=0))
    growth = values[2::3, 0] / 400
    gdp = 5000 * np.exp(np.cumsum(np.where(np.isfinite(growth), growth, 0.0)))
    (tmp_path / "md").mkdir()
    (tmp_path / "qd").mkdir()
    for stem, last, keep in (("2008-04", 99, range(6)), ("2008-05", 100, (0, 1, 2, 3, 4, 6))):
        shown = levels[:last].copy()
        shown[-1, 3:] = np.nan
        if stem == "2008-05":
            shown[95, 0] *= 1.01
        names = [NAMES[k] for k in keep]
        text = monthly_text(shown[:, list(keep)], months[:last], names=names)
        if stem == "2008-05":
            (tmp_path / "md" / f"{stem}.csv.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (tmp_path / "md" / f"{stem}.csv").write_text(text)
        quarters = 32 if stem == "2008-04" else 33
        lines = ["sasdate,OTHER,GDPC1", "factors,0,1", "transform,,5"]
        lines += [f"{3 * (q % 4) + 3}/1/{2000 + q // 4},-1,{gdp[q]:.6f}" for q in range(quarters)]
        (tmp_path / "qd" / f"{stem}.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def _growth(folder, stem, quarter):
    """Log change of GDP in a quarter, as a file has it."""
    lines = [line.split(",") for line in (folder / "qd" / f"{stem}.csv").read_text().splitlines()[3:]]
    levels = {f"{line[0].split('/')[2]}-{int(line[0].split('/')[0]):02d}": float(line[2]) for line in lines}
    now, before = quarter[:7], str(np.datetime64(quarter[:7], "M") - np.timedelta64(3, "M"))
    return np.log(levels[now] / levels[before])


def test_two_vintages_of_fred_files(capsys, folder):
    code, out, err = run(capsys, "nowcast", folder / "config.toml", "--as-of", "2008-04-30")
    assert (code, err) == (0, "")
    assert "GDPC1, percent at an annual rate; information up to 2008-04-30" in out
    first = json.loads((folder / "nowcasts" / "2008-04-30" / "snapshot.json").read_text())
    assert first["periods"][0] == "2008-03-31"
    assert f"{400 * first['mean'][0]:.4g}" in out
    code, out, err = run(capsys, "nowcast", folder / "config.toml")
    assert (code, err) == (0, "")
    for word in ("since 2008-04-30", "revision", "release", "new series", "dropped series: M6", "M7"):
        assert word in out
    # GDP of the first quarter came out in between
    growth = 400 * _growth(folder, "2008-05", "2008-03-31")
    assert f"2008-03-31: {growth:.4g} came out; the snapshot of 2008-04-30 had" in out
    snapshot = folder / "nowcasts" / "2008-05-31"
    second = json.loads((snapshot / "snapshot.json").read_text())
    assert second["periods"][0] == "2008-06-30"
    news = pl.read_parquet(snapshot / "news.parquet").filter(pl.col("nowcast_period") == "2008-06-30")
    assert {"revision", "release", "new series"} <= set(news["kind"])
    # the new fit does not know the dropped series: its weight went with the old parameters
    assert set(news.filter(pl.col("series") == "M6")["kind"]) == {"re-estimation"}
    moved = second["mean"][0] - first["mean"][first["periods"].index("2008-06-30")]
    assert news["contribution"].sum() == pytest.approx(moved, abs=1e-10)
    # the page is in the unit asked for, the files are in the panel's
    page = (snapshot / "report.html").read_text()
    assert "In percent at an annual rate" in page
    assert f"<td>{400 * second['mean'][0]:.4g}</td>" in page
    shown = run_nowcast_job(read_nowcast_job(folder / "config.toml"))
    np.testing.assert_allclose(shown.shown.mean, 400 * np.array(second["mean"]), rtol=1e-12)
    assert shown.panel.times[0] == np.datetime64("2001-01-31")
    group = dict(zip(shown.panel.assets.tolist(), shown.panel.series.group, strict=True))
    assert (group["M1"], group["M2"]) == ("output", "")


def test_the_vintage_is_what_the_reader_reads(folder):
    text = CONFIG.replace("first = 2001-01-01", "outlier_threshold = 10").replace('group = "output"', "")
    (folder / "config.toml").write_text(text)
    found = run_nowcast_job(read_nowcast_job(folder / "config.toml")).panel
    files = [folder / "md" / "2008-05.csv.gz", folder / "qd" / "2008-05.csv"]
    panel = mixed_frequency_panel(*files, outlier_threshold=10)
    # the first month has no growth rates and is left out
    assert not np.isfinite(panel.wide()[0]).any()
    assert found.digests() == panel.between(1, panel.n_periods).digests()
    # the other series of the quarterly file has no code and levels below zero: it is not needed
    assert fred_panel(files[1], series=["GDPC1"]).assets.tolist() == ["GDPC1"]


def test_files_without_codes_take_them_from_another_file(capsys, folder):
    plain = (folder / "md" / "2008-04.csv").read_text().replace("Transform:,5,5,5,5,5,5\n", "")
    assert "Transform" not in plain
    (folder / "plain").mkdir()
    (folder / "plain" / "2008-04.csv").write_text(plain)
    text = CONFIG.replace("md/*.csv*", "plain/*.csv").replace("first", "# first")
    (folder / "config.toml").write_text(text)
    code, out, err = run(capsys, "nowcast", folder / "config.toml")
    assert (code, out) == (2, "")
    assert "'2008-04.csv' states no transformation code for 6 series" in err
    assert "codes" in err
    assert len(err.splitlines()) == 1
    # the later file lacks M6: its code comes from [[series]], or the series is excluded
    text = text.replace('quarterly = "qd', 'codes = "md/2008-05.csv.gz"\nquarterly = "qd')
    (folder / "config.toml").write_text(text)
    assert "'M6'" in run(capsys, "nowcast", folder / "config.toml")[2]
    for added in ('exclude = ["M6"]', ""):
        more = text.replace("[[series]]", f"{added}\n[[series]]", 1)
        if not added:
            more += '\n[[series]]\nname = "M6"\ncode = "log_difference"\n'
        (folder / "config.toml").write_text(more)
        found = run_nowcast_job(read_nowcast_job(folder / "config.toml"))
        own = mixed_frequency_panel(folder / "md" / "2008-04.csv", folder / "qd" / "2008-04.csv")
        kept = [name for name in own.assets.tolist() if name != "M6" or not added]
        np.testing.assert_array_equal(found.panel.wide(), own.select(kept).wide()[1:])


BAD = {
    "no files": ('"md/*.csv*"', '"mds/*.csv"', "no file in"),
    "no file": ('"qd/*.csv"', '["qd/2007-01.csv"]', "there is no file 'qd/2007-01.csv'"),
    "swapped": ('"md/*.csv*"', '"qd/*.csv"', "'2008-04.csv' is of frequency 'Q', expected 'M' here"),
    "no month": ('"md/*.csv*"', '"md/current.csv"', "tells no vintage"),
    "frequency": ('group = "output"', 'frequency = "Q"', "leave frequency out"),
    "series": ('name = "M1"', 'name = "X1"', "[[series]] names 'X1'"),
    "exclude": ("first =", 'exclude = ["X1"]\nfirst =', "[data] exclude names 'X1'"),
    "code": ('group = "output"', "code = 9", "[[series]] 'M1': a transformation is a code 1..7"),
    "quarterly": ('"qd/*.csv"', '"qd/*.csv"\nquarterly_series = ["GNP"]', "has no series 'GNP'"),
    "column": ('quarterly = "qd', 'series = "name"\nquarterly = "qd', "series belongs to releases"),
    "two": ("first =", 'store = "old"\nfirst =', "got store and monthly"),
    "first": ("2001-01-01", "2031-01-01", "lies after the last period"),
    "day": ("2001-01-01", '"soon"', "first"),
    "outliers": ("first =", "outlier_threshold = -1\nfirst =", "outlier_threshold must be a number > 0"),
    "year": ("2001-01-01", "2001", "first must be a day such as 2016-07-29, got 2001"),
    "jobs": ('"nowcasts"', '"nowcasts"\nn_jobs = 0', "n_jobs must be a number of processes"),
    "excluded": ("first =", 'exclude = ["GDPC1"]\nfirst =', "'GDPC1' is excluded by [data] exclude"),
    "no code": (
        '"qd/*.csv"',
        '"qd/*.csv"\nquarterly_series = ["OTHER"]',
        "states no transformation code for 1",
    ),
    "no quarterly": (
        'quarterly = "qd/*.csv"',
        'quarterly_series = ["GNP"]',
        "quarterly_series are read from",
    ),
    "twice": ('"qd/*.csv"', '"qd/*.csv"\nquarterly_series = ["GDPC1", "GDPC1"]', "each once"),
    "lag": ('group = "output"', 'publication_lag = "soon"', "publication_lag"),
    "scale": ("scale = 400", "scale = 0", "scale must be"),
    "level": ("scale = 400", "level = 90", "level must lie between 0 and 1"),
    "target": ('"GDPC1"', '"GDP"', "there is no series 'GDP' in the data"),
    "indicator": ("scale = 400", 'indicator = "INDPRO"', "indicator: there is no series 'INDPRO'"),
    "dropped": ("scale = 400", 'indicator = "M6"', "'M6' has no value by 2008-05-31"),
    "unknown": ("first =", "ouliers = 10\nfirst =", "unknown key 'ouliers'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_line_and_nothing_is_written(capsys, folder, case):
    old, new, message = BAD[case]
    assert old in CONFIG
    (folder / "md" / "current.csv").write_text("sasdate,A\nTransform:,1\n1/1/2000,1\n2/1/2000,2\n")
    text = CONFIG if case == "no month" else CONFIG.replace("md/*.csv*", "md/2*.csv*")
    old = old.replace("md/*.csv*", "md/2*.csv*") if case != "no month" else old
    (folder / "config.toml").write_text(text.replace(old, new, 1))
    code, out, err = run(capsys, "nowcast", folder / "config.toml")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert any(part in err for part in message.split("|")), err
    assert not (folder / "nowcasts").exists()


def test_a_value_from_the_future_of_its_file_leaves_nothing_behind(capsys, folder):
    with (folder / "qd" / "2008-05.csv").open("a") as file:
        file.write("6/1/2008,-1,5500\n9/1/2008,-1,5510\n")
    code, out, err = run(capsys, "nowcast", folder / "config.toml")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "'GDPC1' of 2008-09-30 cannot come out on 2008-05-31" in err
    assert not (folder / "nowcasts").exists()


def test_a_later_first_period_is_compared_to_the_snapshot_before(capsys, folder):
    (folder / "config.toml").write_text(CONFIG.replace("first = 2001-01-01\n", ""))
    assert run(capsys, "nowcast", folder / "config.toml", "--as-of", "2008-04-30")[0] == 0
    code, out, err = run(capsys, "nowcast", folder / "config.toml")
    assert (code, err) == (0, "")
    assert "since 2008-04-30" in out


def test_a_folder_of_a_day_belongs_to_one_target_and_keeps_no_stale_news(capsys, folder):
    config = folder / "config.toml"
    for day in ("2008-04-30", "2008-05-31"):
        assert run(capsys, "nowcast", config, "--as-of", day)[0] == 0
    config.write_text(CONFIG.replace('"GDPC1"', '"M1"'))
    code, _, err = run(capsys, "nowcast", config)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "holds the nowcast of 'GDPC1', not of 'M1': use another [run] output" in err
    config.write_text(CONFIG.replace('type = "dfm"', 'type = "ptfa"\ntargets = ["GDPC1"]'))
    code, _, err = run(capsys, "nowcast", config)
    assert (code, len(err.splitlines())) == (2, 1)
    # the snapshot before is gone: so is what was said about it
    shutil.rmtree(folder / "nowcasts" / "2008-04-30")
    config.write_text(CONFIG)
    assert run(capsys, "nowcast", config)[0] == 0
    assert not (folder / "nowcasts" / "2008-05-31" / "news.parquet").exists()


@pytest.mark.parametrize("damage", ["flipped", "quote"])
def test_a_damaged_file_is_one_line(capsys, folder, damage):
    path = folder / "md" / "2008-05.csv.gz"
    if damage == "flipped":
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(bytes(raw))
    else:
        path.write_bytes(gzip.compress(b'sasdate,"' + b"M" * 140_000 + b"\n"))
    code, out, err = run(capsys, "nowcast", folder / "config.toml")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "2008-05.csv.gz" in err
    assert "cannot be read" in err
