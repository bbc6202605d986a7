"""The nowcast command: snapshots, news since the last one, the page, and one line for what was wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from latentfactors import ReleaseCalendar, VintageStore, cli
from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import NowcastRecord
from latentfactors.nowcast import composite_indicator, nowcast, nowcast_news
from latentfactors.nowcast_jobs import read_nowcast_job, run_nowcast_job
from latentfactors.report import nowcast_figures as figures
from latentfactors.report.nowcast_page import render_nowcast
from tests.nowcast.test_news import NAMES, economy, fit, panel_of

CONFIG = """
[data]
releases = "releases.parquet"

[[series]]
name = "gdp"
frequency = "Q"
aggregation = "mariano_murasawa"
group = "output"

[model]
type = "dfm"
n_factors = 1
tolerance = 1e-2
max_iterations = 30

[nowcast]
target = "gdp"
as_of = 2008-02-25
indicator = "m1"

[run]
output = "nowcasts"
"""


@pytest.fixture
def folder(tmp_path):
    values, times = economy(n_periods=102, seed=6)
    calendar = ReleaseCalendar(
        lags={name: 30 if name == "gdp" else 5 + 4 * k for k, name in enumerate(NAMES)},
        frequency={name: "Q" if name == "gdp" else "M" for name in NAMES},
    )
    store = VintageStore.from_calendar(panel_of(values, times), calendar)
    pl.DataFrame(
        {
            "series": store.series[store.code],
            "period": store.period,
            "release": store.release,
            "value": store.value,
        }
    ).write_parquet(tmp_path / "releases.parquet")
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return leaving.value.code or 0, captured.out, captured.err


def test_a_later_run_compares_itself_to_the_snapshot(capsys, folder):
    code, out, err = run(capsys, "nowcast", folder / "config.toml")
    assert (code, err) == (0, "")
    assert "2008-03-31" in out
    first = json.loads((folder / "nowcasts" / "2008-02-25" / "snapshot.json").read_text())
    assert first["compared_to"] is None
    assert (folder / "nowcasts" / "2008-02-25" / "report.html").stat().st_size > 1e6
    code, out, err = run(capsys, "nowcast", folder / "config.toml", "--as-of", "2008-03-28")
    assert (code, err) == (0, "")
    for word in ("since 2008-02-25", "release", "re-estimation", "contribution"):
        assert word in out
    second = json.loads((folder / "nowcasts" / "2008-03-28" / "snapshot.json").read_text())
    assert second["compared_to"] == "2008-02-25"
    moved = dict(zip(second["periods"], second["mean"], strict=True))["2008-03-31"]
    moved -= dict(zip(first["periods"], first["mean"], strict=True))["2008-03-31"]
    assert sum(second["news"]["2008-03-31"].values()) == pytest.approx(moved, abs=1e-10)
    lines = pl.read_parquet(folder / "nowcasts" / "2008-03-28" / "news.parquet")
    lines = lines.filter(pl.col("nowcast_period") == "2008-03-31")
    assert lines["contribution"].sum() == pytest.approx(moved, abs=1e-10)
    page = (folder / "nowcasts" / "2008-03-28" / "report.html").read_text()
    for section in ('id="path"', 'id="fan"', 'id="news-2008-03-31"', 'id="indicator"'):
        assert section in page
    assert "http" not in page.split("<script>")[0].replace("http-equiv", "")


def test_without_a_refit_only_data_move_the_nowcast(folder):
    job = read_nowcast_job(folder / "config.toml")
    run_nowcast_job(job)
    text = (folder / "config.toml").read_text().replace("2008-02-25", "2008-03-28")
    (folder / "config.toml").write_text(text + "refit = false\n")
    found = run_nowcast_job(read_nowcast_job(folder / "config.toml"))
    assert set(found.news["2008-03-31"].kind) == {"release"}
    assert any("only data moved" in note for note in found.notes)
    # going back in time is compared to what came before it, and said
    (folder / "config.toml").write_text(text.replace("2008-03-28", "2008-03-20"))
    back = run_nowcast_job(read_nowcast_job(folder / "config.toml"))
    assert str(back.before.as_of) == "2008-02-25"
    assert any("later than 2008-03-20" in note for note in back.notes)


BAD = {
    "section": ("[model]", "[modell]", "unknown section 'modell'"),
    "missing": ('[nowcast]\ntarget = "gdp"', "[nowcast]", "target is missing"),
    "target": ('target = "gdp"', 'target = "gnp"', "no series 'gnp'"),
    "model": ('type = "dfm"', 'type = "dmf"', "must be one of dfm"),
    "factors": ("n_factors = 1", "n_factors = 0", "n_factors must be"),
    "file": ("releases.parquet", "release.parquet", "no such file"),
    "both": ('releases = "releases.parquet"', "", "either releases"),
    "too early": ("as_of = 2008-02-25", "as_of = 1990-01-01", "nothing was released"),
    "series": ('name = "gdp"', 'name = "gnp"', "does not have"),
    "field": ('group = "output"', 'colour = "red"', "unknown key 'colour'"),
    "label": ('frequency = "Q"', 'frequency = "W"', "quarterly series in monthly panels"),
    "ahead": ("[run]", "ahead = -1\n[run]", "unknown key|ahead must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_line_and_nothing_is_written(capsys, folder, case):
    old, new, message = BAD[case]
    assert old in CONFIG
    text = CONFIG.replace(old, new)
    if case == "ahead":
        text = CONFIG.replace('target = "gdp"', 'target = "gdp"\nahead = -1')
    (folder / "config.toml").write_text(text)
    code, out, err = run(capsys, "nowcast", folder / "config.toml")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert any(part in err for part in message.split("|"))
    assert not (folder / "nowcasts").exists()


# ------------------------------------------------------------------------------------ figures


def test_figures_show_what_was_found():
    values, times = economy(n_periods=60, seed=4)
    panel = panel_of(values, times)
    model = fit(panel)
    late = panel.mask(panel.index.period_codes > 57)
    found = nowcast_news(model, model, late, panel, "gdp", times[-1])
    drawn = figures.news_figure(found)
    assert sum(sum(each.x) for each in drawn.data) == pytest.approx(found.revision, abs=1e-10)
    few = figures.news_figure(found, most=2)
    assert list(few.data[0].y)[-1] == "all others"
    assert sum(sum(each.x) for each in few.data) == pytest.approx(found.revision, abs=1e-10)
    with pytest.raises(ConfigurationError, match="by must be"):
        figures.news_figure(found, by="colour")
    with pytest.raises(InsufficientDataError, match="no news"):
        figures.news_figure(nowcast_news(model, model, panel, panel, "gdp", times[-1]))
    now = nowcast(model, panel, "gdp", ahead=2)
    fan = figures.fan_figure(now, levels=(0.9,), history=(times, values[:, 0]))
    low, high = now.intervals(0.9)
    np.testing.assert_allclose(fan.data[0].y, np.concatenate([high, low[::-1]]))
    indicator = composite_indicator(model.smooth(panel), "m1")
    line = figures.indicator_figure(indicator, recessions=[("2001-03-01", "2001-11-30")])
    np.testing.assert_array_equal(line.data[0].y, indicator.values)
    assert line.layout.shapes[0].x0 == "2001-03-01"
    record = NowcastRecord(
        as_of=np.array(["2001-01-05", "2001-02-05"], dtype="datetime64[D]"),
        period=np.array(["2001-03-31"] * 2, dtype="datetime64[D]"),
        days_to_release=np.array([115, 84]),
        forecast=np.array([1.0, 2.0]),
        variance=np.array([1.0, 0.25]),
        realised=np.array([1.5, 1.5]),
    )
    path = figures.nowcast_path_figure(record, rivals={"AR(1)": record})
    assert path.data[2].x[0] == "2001-04-30"
    np.testing.assert_allclose(path.data[0].y[:2], [1 + 1.6448536, 2 + 0.5 * 1.6448536])
    quarters = np.array(["2001-03-31", "2001-06-30"], dtype="datetime64[D]")
    both = replace(record, as_of=record.as_of[[0, 0]], period=quarters)
    several = figures.nowcast_path_figure(both, banded=quarters[1])
    assert [each.name for each in several.data if each.showlegend] == [
        "2001-03-31", "released", "90% interval", "2001-06-30",
    ]  # fmt: skip
    assert len({each.line.color for each in several.data if each.mode == "lines+markers"}) == 2


# ------------------------------------------------------------------------------------ other models, densities


PTFA = 'type = "ptfa"\nn_factors = 1\ntargets = ["gdp"]\ndynamics = { lags = 1 }'


def test_targeted_factors_run_the_desk(capsys, folder):
    text = CONFIG.replace('type = "dfm"\nn_factors = 1', PTFA).replace('indicator = "m1"\n', "")
    (folder / "config.toml").write_text(text)
    first = run_nowcast_job(read_nowcast_job(folder / "config.toml"))
    code, out, err = run(capsys, "nowcast", folder / "config.toml", "--as-of", "2008-03-28")
    assert (code, err) == (0, "")
    second = json.loads((folder / "nowcasts" / "2008-03-28" / "snapshot.json").read_text())
    moved = dict(zip(second["periods"], second["mean"], strict=True))["2008-03-31"]
    moved -= first.nowcast.mean[list(map(str, first.nowcast.periods)).index("2008-03-31")]
    assert abs(moved) > 1e-6
    assert sum(second["news"]["2008-03-31"].values()) == pytest.approx(moved, abs=1e-10)
    # another model in the same folder is refused in one line, and says why
    (folder / "config.toml").write_text(CONFIG.replace("2008-02-25", "2008-04-20"))
    code, out, err = run(capsys, "nowcast", folder / "config.toml")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "PTFAModel" in err
    assert not (folder / "nowcasts" / "2008-04-20").exists()


D2FM = """type = "d2fm"
n_factors = 1
hidden_units = [6]
decoder = "{decoder}"
pretraining_epochs = 20
epochs_per_iteration = 10
max_iterations = 1
n_draws = 3"""


@pytest.mark.parametrize("decoder", ["linear", "symmetric"])
def test_deep_factors_run_the_desk(capsys, folder, decoder):
    pytest.importorskip("jax")
    linear = 'type = "dfm"\nn_factors = 1\ntolerance = 1e-2\nmax_iterations = 30'
    text = CONFIG.replace(linear, D2FM.format(decoder=decoder)).replace('indicator = "m1"\n', "ahead = 0\n")
    (folder / "config.toml").write_text(text)
    first = run_nowcast_job(read_nowcast_job(folder / "config.toml"))
    assert first.model.config.hidden_units == (6,)
    code, out, err = run(capsys, "nowcast", folder / "config.toml", "--as-of", "2008-03-04")
    assert (code, err) == (0, "")
    assert "re-estimation" in out
    second = json.loads((folder / "nowcasts" / "2008-03-04" / "snapshot.json").read_text())
    period = second["periods"][-1]
    moved = dict(zip(second["periods"], second["mean"], strict=True))[period]
    moved -= first.nowcast.mean[list(map(str, first.nowcast.periods)).index(period)]
    assert abs(moved) > 1e-6
    assert sum(second["news"][period].values()) == pytest.approx(moved, abs=1e-10)
    lines = pl.read_parquet(folder / "nowcasts" / "2008-03-04" / "news.parquet")
    weights = lines.filter((pl.col("kind") == "release") & (pl.col("nowcast_period") == period))["weight"]
    assert weights.len() > 0
    assert weights.is_nan().all() == (decoder == "symmetric")
    page = (folder / "nowcasts" / "2008-03-04" / "report.html").read_text()
    assert ("telescoped" in page) == (decoder == "symmetric")


def test_a_bootstrap_widens_the_densities_and_a_break_is_read(folder):
    plain = run_nowcast_job(read_nowcast_job(folder / "config.toml"))
    text = CONFIG.replace('output = "nowcasts"', 'output = "wide"') + "\n[bootstrap]\nn_draws = 3\nseed = 1\n"
    text = text.replace("n_factors = 1", 'n_factors = 1\nvariance_break = { periods = ["2005-03"] }')
    (folder / "config.toml").write_text(text)
    found = run_nowcast_job(read_nowcast_job(folder / "config.toml"))
    assert plain.nowcast.parameter_covariance is None
    assert found.nowcast.parameter_covariance.shape == found.nowcast.covariance.shape
    assert any("3 bootstrap draws" in note for note in found.notes)
    assert any("2005-03-31" in each for each in found.model.summary.warnings)
    assert "intervals of state and parameters" in render_nowcast(found)
    assert "parameters taken as known" in render_nowcast(plain)
    snapshot = json.loads((found.folder / "snapshot.json").read_text())
    np.testing.assert_allclose(snapshot["std"], found.nowcast.standard_deviation)
    ptfa = text.replace('type = "dfm"\nn_factors = 1', PTFA)
    ptfa = ptfa.replace('variance_break = { periods = ["2005-03"] }', "")
    (folder / "config.toml").write_text(ptfa)
    with pytest.raises(ConfigurationError, match=r"\[bootstrap\]"):
        read_nowcast_job(folder / "config.toml")
