"""FRED-MD and FRED-QD: published layouts, official codes, the ragged edge, mixed panels, vintages."""

from __future__ import annotations

import gzip
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latentfactors import (
    FredVintages,
    HistoricalMeanPredictor,
    VintageSplits,
    fred_panel,
    mixed_frequency_panel,
    read_fred_csv,
    walk_forward,
)
from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.readers.fred import vintage_of

MONTHLY = """sasdate,RPI,UNRATE,S&P 500,EMPTY
Transform:,5,2,6,1
11/1/2019,100,3.5,3000,
12/1/2019,101,3.6,3100,
1/1/2020,102,3.5,3200,
2/1/2020,104,,3300,
3/1/2020,,4.4,2900,
,,,,
,,,,
"""
QUARTERLY = """sasdate,GDPC1,UNRATEq,HOUSE
factors,0,1,1
transform,5,2,1
6/1/2019,19000,3.6,7
9/1/2019,19100,3.6,8
12/1/2019,19200,3.5,9
"""
DATA = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not (DATA / "fred_md").exists(), reason="the shared data are not here")


def written(folder, text, name="2020-04.csv"):
    path = folder / name
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    return path


def test_a_file_is_read_as_published(tmp_path):
    file = read_fred_csv(written(tmp_path, MONTHLY))
    assert file.names == ("RPI", "UNRATE", "S&P 500", "EMPTY")
    assert (file.codes, file.frequency, str(file.vintage)) == ((5, 2, 6, 1), "M", "2020-04-30")
    assert [str(file.dates[0]), str(file.dates[-1])] == ["2019-11-30", "2020-03-31"]
    assert file.values.shape == (5, 4)
    np.testing.assert_array_equal(file.values[3], [104, np.nan, 3300, np.nan])
    quarters = read_fred_csv(written(tmp_path, QUARTERLY, "FRED-QD_2020m2.csv"))
    assert (quarters.frequency, quarters.in_factors) == ("Q", (False, True, True))
    assert [str(quarters.dates[0]), str(quarters.vintage)] == ["2019-06-30", "2020-02-29"]


def test_packed_and_plain_files_are_the_same(tmp_path):
    plain = read_fred_csv(written(tmp_path, MONTHLY))
    packed = tmp_path / "2020-04.csv.gz"
    packed.write_bytes(gzip.compress(MONTHLY.encode()))
    with zipfile.ZipFile(tmp_path / "2020-04.zip", "w") as archive:
        archive.writestr("current.csv", MONTHLY)
    for path in (packed, tmp_path / "2020-04.zip"):
        np.testing.assert_array_equal(read_fred_csv(path).values, plain.values)
    no_codes = (
        MONTHLY.replace("sasdate", "date")
        .replace("Transform:,5,2,6,1\n", "")
        .replace("11/1/2019", "2019-11-01")
    )
    bare = read_fred_csv(written(tmp_path, no_codes, "current.csv"))
    assert (bare.codes, bare.vintage) == ((), None)
    np.testing.assert_array_equal(bare.values, plain.values)


def test_the_panel_is_transformed_and_says_so(tmp_path):
    panel = fred_panel(written(tmp_path, MONTHLY))
    assert panel.assets.tolist() == ["RPI", "UNRATE", "S&P 500"]
    assert (panel.value_kind, panel.frequency, panel.n_rows) == ("series", "M", 15)
    nan, log = np.nan, np.log
    np.testing.assert_allclose(
        panel.wide(),
        [
            [nan, nan, nan],
            [log(101 / 100), 0.1, nan],
            [log(102 / 101), -0.1, log(3200 / 3100) - log(3100 / 3000)],
            [log(104 / 102), nan, log(3300 / 3200) - log(3200 / 3100)],
            [nan, nan, log(2900 / 3300) - log(3300 / 3200)],
        ],
        rtol=1e-10,
    )
    assert panel.series is not None
    assert panel.series.transformation == ("log_difference", "difference", "log_second_difference")
    assert panel.series.aggregation == ("mean",) * 3
    assert panel.transforms == ("FRED transformation codes",)
    assert panel.notes == ("vintage of 2020-04", "1 series ('EMPTY') without any value left out")
    levels = fred_panel(written(tmp_path, MONTHLY), transform=False)
    np.testing.assert_array_equal(levels.wide()[:, 0], [100, 101, 102, 104, nan])
    assert levels.transforms == ()
    assert levels.series is not None
    assert set(levels.series.transformation) == {""}


def test_codes_of_the_user_go_first_and_missing_ones_are_asked_for(tmp_path):
    other = fred_panel(written(tmp_path, MONTHLY), codes={"RPI": "seasonal_change", "S&P 500": 5})
    assert other.series is not None
    assert other.assets.tolist() == [
        "UNRATE",
        "S&P 500",
    ]  # thirteen months are needed: nothing is left of RPI
    assert "'RPI'" in other.notes[1]
    bare = written(tmp_path, MONTHLY.replace("Transform:,5,2,6,1\n", ""))
    with pytest.raises(PanelError, match=r"no transformation codes.*4 of its series \('RPI'.*give codes="):
        fred_panel(bare)
    assert fred_panel(bare, codes=dict.fromkeys(["RPI", "UNRATE", "S&P 500", "EMPTY"], 1)).n_assets == 3
    invalid = fred_panel(written(tmp_path, MONTHLY.replace(":,5", ":,0")))
    assert invalid.assets.tolist() == ["UNRATE", "S&P 500"]
    assert "1 series ('RPI') without a valid transformation code left out" in invalid.notes


def test_outliers_are_masked_and_counted(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=60)
    values[30] = 500.0
    lines = ["sasdate,A", "Transform:,1"]
    lines += [f"{m % 12 + 1}/1/{2000 + m // 12},{v}" for m, v in enumerate(values)]
    path = written(tmp_path, "\n".join(lines))
    panel = fred_panel(path, outlier_threshold=10)
    assert np.flatnonzero(np.isnan(panel.wide())).tolist() == [30]
    assert panel.notes[1] == "1 outlier masked in 1 series ('A')"
    assert panel.transforms[1] == "outliers beyond 10 interquartile ranges masked"


def test_quarters_stand_on_their_last_month(tmp_path):
    monthly, quarterly = written(tmp_path, MONTHLY), written(tmp_path, QUARTERLY, "2020-02-QD.csv")
    panel = mixed_frequency_panel(monthly, quarterly, quarterly_series=["GDPC1", "HOUSE"])
    assert panel.assets.tolist() == ["RPI", "UNRATE", "S&P 500", "GDPC1", "HOUSE"]
    assert (panel.frequency, str(panel.times[0]), str(panel.times[-1])) == ("M", "2019-06-30", "2020-03-31")
    gdp = panel.wide()[:, 3]
    assert np.flatnonzero(np.isfinite(gdp)).tolist() == [3, 6]
    np.testing.assert_allclose(gdp[[3, 6]], [np.log(19100 / 19000), np.log(19200 / 19100)])
    assert panel.series is not None
    assert panel.series.frequency == ("M", "M", "M", "Q", "Q")
    assert panel.series.aggregation[3:] == ("mariano_murasawa", "mean")
    assert panel.transforms == ("FRED transformation codes",)
    assert "Q: vintage of 2020-02" in panel.notes
    for options, words in (
        ({"quarterly_series": ["XYZ"]}, "has no series 'XYZ'"),
        ({"quarterly_series": "GDPC1"}, "must be a list"),
    ):
        with pytest.raises((PanelError, ConfigurationError), match=words):
            mixed_frequency_panel(monthly, quarterly, **options)
    with pytest.raises(PanelError, match="frequency 'M' here"):
        mixed_frequency_panel(quarterly, quarterly)
    with pytest.raises(PanelError, match=r"monthly series of .* already"):
        mixed_frequency_panel(
            monthly, written(tmp_path, QUARTERLY.replace("UNRATEq", "UNRATE"), "2020-03-QD.csv"),
            quarterly_series=["UNRATE"],
        )  # fmt: skip


def test_vintages_are_known_when_they_were_published(tmp_path):
    lines = MONTHLY.splitlines()
    files = [
        written(tmp_path, "\n".join(lines[:-3]), "2020-03.csv"),
        written(tmp_path, MONTHLY.replace("104", "105"), "2020-04.csv"),
    ]
    source = FredVintages.from_files(reversed(files))
    assert [str(date) for date in source.dates] == ["2020-03-31", "2020-04-30"]
    early, late = source.as_of("2020-04-29"), source.as_of("2020-04-30")
    assert (str(early.times[-1]), str(late.times[-1])) == ("2020-02-29", "2020-03-31")
    assert early.wide()[3, 0] == pytest.approx(np.log(104 / 102))
    assert late.wide()[3, 0] == pytest.approx(np.log(105 / 102))  # revised
    with pytest.raises(PanelError, match="no vintage was published by 2020-03-30"):
        source.as_of("2020-03-30")
    result = walk_forward(HistoricalMeanPredictor(), late, VintageSplits(source, source.dates))
    first, second = result.blocks
    np.testing.assert_allclose(first.expected_values[0], np.nanmean(early.wide()[:, 0]))
    np.testing.assert_allclose(second.expected_values[0], np.nanmean(late.wide()[:, 0]))
    mixed = FredVintages.from_files(files, [written(tmp_path, QUARTERLY, "2020-04-QD.csv")])
    assert [str(date) for date in mixed.dates] == ["2020-04-30"]
    assert mixed.as_of("2020-12-31").assets.tolist()[-1] == "GDPC1"
    with pytest.raises(PanelError, match="tells no vintage"):
        FredVintages.from_files(["current.csv"])
    with pytest.raises(PanelError, match="vintages of one month"):
        FredVintages.from_files(["2020-03.csv", "other/2020-03.csv"])
    with pytest.raises(PanelError, match="no monthly vintage"):
        FredVintages.from_files([])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2015-01.csv", "2015-01-31"),
        ("2026-02-MD.csv", "2026-02-28"),
        ("FRED-MD_2024m12.csv", "2024-12-31"),
        ("fred_md_2023-04.csv.gz", "2023-04-30"),
        ("current.csv", "None"),
        ("2023-17.csv", "None"),
        ("120230-04.csv", "None"),
    ],
)
def test_names_tell_vintages(name, expected):
    assert str(vintage_of(Path("1999-01") / name)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "first column must be 'sasdate', got ''"),
        ("month,A\n1/1/2020,1\n2/1/2020,1", "got 'month'"),
        ("sasdate,A,A\n1/1/2020,1,2\n2/1/2020,1,2", "name every series once"),
        ("sasdate,A\n1/1/2020,1\n2/1/2020,x", "line 3, series 'A': expected a number, got 'x'"),
        ("sasdate,A\n1/1/2020,1\n2/1/2020,inf", "finite number, got 'inf'"),
        ("sasdate,A\n1/1/2020,1\n2/1/2020,1,2", "line 3: 2 cells for 1 series"),
        ("sasdate,A\n1/1/2020,1\n13/1/2020,1", "expected a date"),
        ("sasdate,A\n1/1/2020,1\n2/1/2020,1\n4/1/2020,1", "2020-02-01 is followed by 2020-04-01"),
        ("sasdate,A\n1/1/2020,1", "got 1 date"),
        ("sasdate,A\nTransform:,5\n1/1/2020,1\n2/1/2020,-1", "series 'A': log_difference needs positive"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path, text, words):
    with pytest.raises(PanelError, match=words) as error:
        fred_panel(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(PanelError, match="cannot be read"):
        read_fred_csv(tmp_path / "none.csv")


@real
def test_the_real_vintages():
    for path in sorted((DATA / "fred_md").glob("*.csv.gz")):
        panel = fred_panel(path)
        assert panel.n_assets in (126, 127)
        assert str(panel.times[0]) == "1959-01-31"
        assert str(panel.times[-1])[:7] == str(vintage_of(path).astype("M8[M]") - np.timedelta64(1, "M"))
        assert 0.005 < np.isnan(panel.wide()[2:]).mean() < 0.02
    panel = mixed_frequency_panel(
        DATA / "fred_md" / "fred_md_2025-12.csv.gz", DATA / "fred_qd" / "fred_qd_2025-01.csv.gz"
    )
    gdp = panel.wide()[:, -1]
    quarters = np.flatnonzero(np.isfinite(gdp))
    assert np.all(np.diff(quarters) == 3)
    assert panel.times[quarters[-1]] == np.datetime64("2024-12-31")
    assert gdp[quarters[-1]] == pytest.approx(np.log(23530.909 / 23400.294))


@real
def test_eight_components_of_the_2023_vintage_explain_what_is_published():
    """McCracken & Ng's sample: transformed, outliers out, standardised; eight factors explain about 48%."""
    panel = fred_panel(DATA / "fred_md" / "fred_md_2023-04.csv.gz").until("2014-12-31")
    x = panel.wide()[2:]
    complete = x[:, np.isfinite(x).all(axis=0)]
    z = (complete - complete.mean(axis=0)) / complete.std(axis=0)
    eigenvalues = np.linalg.eigvalsh(z.T @ z)[::-1]
    assert 0.46 < eigenvalues[:8].sum() / eigenvalues.sum() < 0.51
    assert replace(panel, notes=()).n_periods == 672
