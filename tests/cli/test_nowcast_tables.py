"""Tables of releases that are wrong, or change: what `latentfactors nowcast` says to a user who has them."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from latentfactors import ReleaseCalendar, VintageStore
from tests.cli.test_cli import run
from tests.nowcast.test_news import NAMES, economy, panel_of

CONFIG = """
[data]
releases = "releases.csv"

[[series]]
name = "gdp"
frequency = "Q"
aggregation = "mariano_murasawa"

[model]
type = "dfm"
n_factors = 1
tolerance = 1e-2
max_iterations = 30

[nowcast]
target = "gdp"
as_of = 2008-02-25

[run]
output = "nowcasts"
"""


def releases():
    """Every value on its day, and of m1 a revision a month later."""
    values, times = economy(n_periods=102, seed=6)
    calendar = ReleaseCalendar(
        lags={name: 30 if name == "gdp" else 5 + 4 * k for k, name in enumerate(NAMES)},
        frequency={name: "Q" if name == "gdp" else "M" for name in NAMES},
    )
    store = VintageStore.from_calendar(panel_of(values, times), calendar)
    frame = pl.DataFrame(
        {
            "series": store.series[store.code],
            "period": store.period,
            "release": store.release,
            "value": store.value,
        }
    )
    revised = frame.filter(pl.col("series") == "m1").with_columns(
        pl.col("release") + pl.duration(days=30), pl.col("value") + 0.1
    )
    return pl.concat([frame, revised]).sort("release")


def written(folder, frame, config=CONFIG):
    frame.write_csv(folder / "releases.csv")
    (folder / "config.toml").write_text(config)
    return folder / "config.toml"


def is_(name):
    return pl.col("series") == name


def value_where(condition, value):
    return pl.when(condition).then(value).otherwise(pl.col("value")).alias("value")


def late(name, day):
    return is_(name) & (pl.col("release") > pl.lit(day).str.to_date())


LABELLED = CONFIG + '\n[[series]]\nname = "m1"\nfrequency = "Q"\n'
WRONG = {
    "a month labelled a quarter": (lambda each: each, LABELLED, "'m1' of frequency 'Q' has lines for"),
    "weeks for months": (
        lambda each: each,
        CONFIG.replace("[[series]]", 'frequency = "W"\n[[series]]', 1).replace('frequency = "Q"\n', ""),
        "no series has values in two neighbouring periods of frequency 'W'",
    ),
    "twice": (lambda each: pl.concat([each, each[500:501]]).sort("release"), CONFIG, "two releases on"),
    "disorder": (lambda each: each.reverse(), CONFIG, "not in order of time"),
    "swapped": (
        lambda each: each.rename({"period": "release", "release": "period"}),
        CONFIG,
        "before the period begins|lie in one period",
    ),
    "text": (
        lambda each: each.with_columns(value_where(pl.int_range(pl.len()) == 7, pl.lit("n/a"))),
        CONFIG,
        "'value'",
    ),
    "no column": (lambda each: each.rename({"value": "level"}), CONFIG, "'value'"),
    "no date": (
        lambda each: each.with_columns(pl.lit("in March").alias("period")),
        CONFIG,
        "missing or unparseable dates",
    ),
    "years": (
        lambda each: each.with_columns(pl.col("period").dt.year()),
        CONFIG,
        "column period: expected dates",
    ),
    "empty": (lambda each: each[:0], CONFIG, "there must be lines"),
    "nothing known": (
        lambda each: each.with_columns(pl.lit(None, dtype=pl.Float64).alias("value")),
        CONFIG,
        "nothing was released by 2008-02-25",
    ),
    "target unknown so far": (
        lambda each: each.with_columns(value_where(is_("gdp"), None)),
        CONFIG,
        "target 'gdp' has no value by 2008-02-25",
    ),
    "target without history": (
        lambda each: each.filter(~is_("gdp") | (pl.col("period") > pl.date(2007, 6, 1))),
        CONFIG,
        "target 'gdp' has 3 values by 2008-02-25",
    ),
    "before everything": (
        lambda each: each,
        CONFIG.replace("2008-02-25", "1990-01-01"),
        "nothing was released",
    ),
    "no day": (lambda each: each, CONFIG.replace("2008-02-25", '"yesterday"'), "as_of must be a day"),
    "month 13": (lambda each: each, CONFIG.replace("2008-02-25", '"2008-13-01"'), "as_of must be a day"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_table_is_one_line(capsys, tmp_path, case):
    change, config, message = WRONG[case]
    path = written(tmp_path, change(releases()), config)
    code, out, err = run(capsys, "nowcast", path)
    assert (code, out) == (2, ""), out
    assert len(err.splitlines()) == 1, err
    assert any(part in err for part in message.split("|")), err
    assert not (tmp_path / "nowcasts").exists()


def test_a_quarterly_series_without_its_label_is_remarked_on(capsys, tmp_path):
    config = CONFIG.replace('frequency = "Q"\naggregation = "mariano_murasawa"', "")
    code, out, err = run(capsys, "nowcast", written(tmp_path, releases(), config))
    assert (code, err) == (0, "")
    assert "no two neighbouring values in 'gdp', of frequency 'M' by label" in out


def test_a_series_without_values_is_left_out_and_named(capsys, tmp_path):
    frame = releases().with_columns(value_where(is_("m6"), None))
    code, out, err = run(capsys, "nowcast", written(tmp_path, frame))
    assert (code, err) == (0, "")
    assert "1 series without any value by then left out ('m6')" in out


def test_a_changed_set_of_series_is_news(capsys, tmp_path):
    """m5 stops for good and is withdrawn, m6 begins: both enter the news, which sum to the change."""
    gone = releases().filter(~late("m5", "2008-02-25"))
    cells = (
        gone.filter(is_("m5"))
        .unique("period")
        .with_columns(
            pl.lit("2008-03-01").str.to_date().alias("release"), pl.lit(None, dtype=pl.Float64).alias("value")
        )
    )
    begins = (
        releases()
        .filter(is_("m6") & (pl.col("release") <= pl.date(2008, 3, 20)))
        .with_columns(pl.lit("2008-03-20").str.to_date().alias("release"))
    )
    later = releases().filter(late("m6", "2008-03-20"))
    frame = pl.concat([gone.filter(~is_("m6")), cells.select(gone.columns), begins, later]).sort("release")
    path = written(tmp_path, frame)
    assert run(capsys, "nowcast", path)[0] == 0
    code, out, err = run(capsys, "nowcast", path, "--as-of", "2008-03-28")
    assert (code, err) == (0, "")
    for words in ("new series: m6", "dropped series: m5", "revision"):
        assert words in out
    first, second = (
        json.loads((tmp_path / "nowcasts" / day / "snapshot.json").read_text())
        for day in ("2008-02-25", "2008-03-28")
    )
    news = pl.read_parquet(tmp_path / "nowcasts" / "2008-03-28" / "news.parquet")
    for period in second["news"]:
        mine = news.filter(pl.col("nowcast_period") == period)
        moved = [dict(zip(each["periods"], each["mean"], strict=True))[period] for each in (first, second)]
        assert mine["contribution"].sum() == pytest.approx(moved[1] - moved[0], abs=1e-10)
        # the new fit does not know m5: its weight went with the old parameters
        assert set(mine.filter(pl.col("series") == "m5")["kind"]) == {"re-estimation"}
        assert set(mine.filter(pl.col("kind") == "new series")["series"]) == {"m6"}


def test_an_older_vintage_is_compared_to_what_came_before_it(capsys, tmp_path):
    path = written(tmp_path, releases())
    assert run(capsys, "nowcast", path, "--as-of", "2008-03-28")[0] == 0
    code, out, err = run(capsys, "nowcast", path)
    assert (code, err) == (0, "")
    assert "there are snapshots later than 2008-02-25" in out
    assert "what moved it" not in out
    snapshot = json.loads((tmp_path / "nowcasts" / "2008-02-25" / "snapshot.json").read_text())
    assert snapshot["compared_to"] is None
    # beyond the last release there is nothing to know, which is said
    code, out, err = run(capsys, "nowcast", path, "--as-of", "2009-01-01")
    assert code == 0
    assert "nothing was released after" in out
    document = json.loads((tmp_path / "nowcasts" / "2009-01-01" / "snapshot.json").read_text())
    assert np.isfinite(document["mean"]).all()


def test_a_saved_store_is_cut_like_a_table(capsys, tmp_path):
    path = written(tmp_path, releases())
    frame = pl.read_csv(tmp_path / "releases.csv")
    columns = {name: name for name in ("series", "period", "release", "value")}
    info = {"gdp": {"frequency": "Q", "aggregation": "mariano_murasawa"}}
    VintageStore.from_long(frame, **columns, info=info).save(tmp_path / "vintages")
    cut = 'first = 2002-01-01\nexclude = ["m6"]\n[model]'
    table = CONFIG.replace("[[series]]", 'first = 2002-01-01\nexclude = ["m6"]\n\n[[series]]')
    series = CONFIG[CONFIG.index("[[series]]") : CONFIG.index("[model]")]
    stored = CONFIG.replace('releases = "releases.csv"', 'store = "vintages"').replace(series, "")
    means = []
    for config in (table, stored.replace("[model]", cut)):
        path.write_text(config.replace('"nowcasts"', f'"nowcasts{len(means)}"'))
        assert run(capsys, "nowcast", path)[0] == 0
        snapshot = tmp_path / f"nowcasts{len(means)}" / "2008-02-25"
        means.append(json.loads((snapshot / "snapshot.json").read_text())["mean"])
        kept = VintageStore.load(snapshot / "vintage").as_of("2008-02-25")
        assert "m6" not in kept.assets.tolist()
        assert str(kept.times[0]) == "2002-01-31"
    np.testing.assert_array_equal(*means)
    path.write_text(CONFIG.replace('releases = "releases.csv"', 'store = "vintages"'))
    code, out, err = run(capsys, "nowcast", path)
    assert (code, out) == (2, "")
    assert "a saved store describes its own series" in err
