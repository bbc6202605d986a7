"""Files of French's data library: every section by title, missing codes, percent, and RF subtracted once."""

from __future__ import annotations

import gzip
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from latentfactors import Panel
from latentfactors.errors import PanelError
from latentfactors.readers.french import (
    excess_panel,
    french_sections,
    read_french_csv,
    read_french_factors,
    read_french_risk_free,
)

PORTFOLIOS = """This file was created using the 202602 CRSP database.
It contains value- and equal-weighted returns for portfolios formed on ME and BEME.

Missing data are indicated by -99.99 or -999.


  Average Value Weighted Returns -- Monthly
,SMALL LoBM,ME1 BM2,BIG HiBM
202001,   1.5000,  -2.0000, -99.99
202002,  -0.9900,   0.0000,   3.2500


  Average Value Weighted Returns -- Annual
,SMALL LoBM,ME1 BM2,BIG HiBM

  2020,   15.71, -99.99,   -999


  Number of Firms in Portfolios
,SMALL LoBM,ME1 BM2,BIG HiBM
202001,   10,   0,  12
202002,   11,   9,  -999


  Average Market Cap
,SMALL LoBM,ME1 BM2,BIG HiBM
202001,   10.25,   20.5,  30000.125
202002,   11,      21,    31000


  For portfolios formed in June of year t
  Value Weight Average of BE/ME Calculated for June of t to June of t+1 as:
  Sum[ME(Mth) * BE(Fiscal Year t-1) / ME(Dec t-1)] / Sum[ME(Mth)]
,SMALL LoBM,ME1 BM2,BIG HiBM
202001,   0.5,   1.5,  -99.9900
202002,   0.6,   1.6,  -999.0000

  Value Weight Average of OP Calculated as:
,SMALL LoBM,ME1 BM2,BIG HiBM
202001,  -0.99,   1.5,  0.25

Copyright 2026 Eugene F. Fama and Kenneth R. French
"""
FACTORS = """This file was created by CMPT_ME_BEME_OP_INV_RETS using the 202412 CRSP database.

,Mkt-RF,SMB,HML,RF
202001,   -0.39,   -0.41,   -0.97,    0.27
202002,    5.07,   -0.80,  -99.99,    0.25

 Annual Factors: January-December
,Mkt-RF,SMB,HML,RF
  2020,   12.54,    0.47,    9.72,    3.54
"""
SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "french_portfolios"


def written(folder, text, name="file.csv"):
    path = folder / name
    path.write_bytes(text.replace("\n", "\r\n").encode())
    return path


def column(frame, name):
    return frame[name].to_numpy()


def test_every_section_is_listed_in_order(tmp_path):
    titles = french_sections(written(tmp_path, PORTFOLIOS))
    assert titles[:4] == (
        "Average Value Weighted Returns -- Monthly",
        "Average Value Weighted Returns -- Annual",
        "Number of Firms in Portfolios",
        "Average Market Cap",
    )
    assert titles[4].startswith("For portfolios formed in June of year t Value Weight Average of BE/ME")
    assert titles[5] == "Value Weight Average of OP Calculated as:"
    assert french_sections(written(tmp_path, FACTORS)) == (
        "Monthly factors",
        "Annual Factors: January-December",
    )


def test_returns_are_decimal_and_missing_codes_are_nan(tmp_path):
    path = written(tmp_path, PORTFOLIOS)
    frame = read_french_csv(path)
    assert frame.columns == ["date", "SMALL LoBM", "ME1 BM2", "BIG HiBM"]
    assert frame["date"].to_list() == [date(2020, 1, 31), date(2020, 2, 29)]
    np.testing.assert_allclose(column(frame, "SMALL LoBM"), [0.015, -0.0099], rtol=1e-14)
    np.testing.assert_allclose(column(frame, "BIG HiBM"), [np.nan, 0.0325], rtol=1e-14)
    raw = read_french_csv(path, percent=False)
    np.testing.assert_array_equal(column(raw, "ME1 BM2"), [-2.0, 0.0])
    annual = read_french_csv(path, "returns -- annual")
    assert annual["date"].to_list() == [date(2020, 12, 31)]
    np.testing.assert_allclose(annual.drop("date").to_numpy(), [[0.1571, np.nan, np.nan]])


def test_other_sections_stay_as_published(tmp_path):
    path = written(tmp_path, PORTFOLIOS)
    np.testing.assert_array_equal(column(read_french_csv(path, "Number of Firms"), "BIG HiBM"), [12, np.nan])
    np.testing.assert_array_equal(column(read_french_csv(path, 3), "BIG HiBM"), [30000.125, 31000])
    np.testing.assert_array_equal(column(read_french_csv(path, "of  be/me"), "BIG HiBM"), [np.nan, np.nan])
    np.testing.assert_array_equal(column(read_french_csv(path, "average of OP"), "SMALL LoBM"), [-0.99])
    halved = read_french_csv(path, "average of OP", percent=True)
    np.testing.assert_allclose(column(halved, "ME1 BM2"), [0.015])


def test_compressed_files_are_read_alike(tmp_path):
    plain = written(tmp_path, PORTFOLIOS)
    (tmp_path / "file.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with zipfile.ZipFile(tmp_path / "file.zip", "w") as archive:
        archive.write(plain, "25_Portfolios.CSV")
    for name in ("file.csv.gz", "file.zip"):
        assert read_french_csv(tmp_path / name, 2).equals(read_french_csv(plain, 2), null_equal=True)


def test_factors_come_without_the_risk_free_rate(tmp_path):
    path = written(tmp_path, FACTORS)
    frame = read_french_factors(path)
    assert frame.columns == ["date", "Mkt-RF", "SMB", "HML"]
    np.testing.assert_allclose(column(frame, "HML"), [-0.0097, np.nan])
    np.testing.assert_allclose(column(read_french_risk_free(path), "RF"), [0.0027, 0.0025])
    np.testing.assert_allclose(column(read_french_factors(path, "annual"), "SMB"), [0.0047])
    momentum = written(tmp_path, "Date,Mom   \n2020/01/31,0.44\n2020/02/29,-2.01\n", "mom.csv")
    frame = read_french_factors(momentum)
    assert frame.columns == ["date", "Mom"]
    assert frame["date"].to_list() == [date(2020, 1, 31), date(2020, 2, 29)]
    np.testing.assert_allclose(column(frame, "Mom"), [0.0044, -0.0201])
    with pytest.raises(PanelError, match="no column 'RF'"):
        read_french_risk_free(momentum)
    daily = written(tmp_path, ",Mkt-RF,RF\n20200102,0.86,0.006\n20200103,-0.67,0.006\n", "daily.csv")
    assert read_french_factors(daily)["date"].to_list() == [date(2020, 1, 2), date(2020, 1, 3)]


def test_from_files_to_excess_returns_with_factors(tmp_path):
    portfolios = written(tmp_path, PORTFOLIOS)
    factors = written(tmp_path, FACTORS, "factors.csv")
    returns = Panel.from_wide(
        read_french_csv(portfolios), universe="all", times="date", frequency="M", value_kind="return"
    )
    panel = excess_panel(returns, read_french_risk_free(factors))
    assert panel.value_kind == "excess_return"
    np.testing.assert_allclose(panel.wide()[:, 0], [0.015 - 0.0027, -0.0099 - 0.0025])
    assert np.isnan(panel.wide()[0, 2])
    panel = panel.with_observed_factors(read_french_factors(factors), time="date")
    assert panel.observed_factor_names == ("Mkt-RF", "SMB", "HML")
    with pytest.raises(PanelError, match="never reduced by a risk-free rate again"):
        excess_panel(panel, read_french_risk_free(factors))
    # the caller's panel is as it was
    assert returns.value_kind == "return"
    np.testing.assert_allclose(returns.wide()[0, 0], 0.015)


def test_periods_without_a_rate_are_missing_and_counted(tmp_path):
    returns = Panel.from_wide(
        [[0.1, 0.2], [0.3, np.nan]],
        universe="all",
        times=["2020-01-31", "2020-02-29"],
        frequency="M",
        value_kind="return",
    )
    rate = pl.DataFrame({"date": [date(2020, 1, 31)], "RF": [0.01]})
    panel = excess_panel(returns, rate)
    np.testing.assert_allclose(panel.wide(), [[0.09, 0.19], [np.nan, np.nan]])
    assert panel.notes[-1] == "1 value in periods without a risk-free rate set to NaN"
    with pytest.raises(PanelError, match=r"no column 'rf'"):
        excess_panel(returns, rate, column="rf")
    with pytest.raises(PanelError, match="no period in common"):
        excess_panel(returns, pl.DataFrame({"date": [date(2019, 1, 31)], "RF": [0.01]}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing here\n", "no line begins with a date"),
        ("202001, 1.0\n", "expected a header"),
        ("T\n,A,A\n202001,1,2\n", "distinct column names"),
        ("T\n,A,B\n202001,1,2\n202002,1\n", "line 4: expected 2 numbers, got 1"),
        ("T\n,A\n202001,x\n", "line 3: expected numbers, got '202001,x'"),
        ("T\n,A\n202001,1\n2020,1\n", "dates of several kinds"),
        ("T\n,A\n202013,1\n", "a date cannot be read"),
    ],
)
def test_unreadable_files_say_where(tmp_path, text, says):
    with pytest.raises(PanelError, match=says):
        read_french_csv(written(tmp_path, text))


def test_unknown_and_ambiguous_sections(tmp_path):
    path = written(tmp_path, PORTFOLIOS)
    with pytest.raises(
        PanelError, match=r"sections \[0, 1\] fit 'Value Weighted Returns', choose one of 0: "
    ):
        read_french_csv(path, "Value Weighted Returns")
    with pytest.raises(PanelError, match="no section fits 'dividends'"):
        read_french_csv(path, "dividends")
    for position in (6, -1):
        with pytest.raises(PanelError, match=f"has no section {position}, it has 0: Average"):
            read_french_csv(path, position)
    with pytest.raises(PanelError, match="cannot be read"):
        read_french_csv(tmp_path / "absent.csv")
    (tmp_path / "broken.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(PanelError, match="cannot be read"):
        read_french_csv(tmp_path / "broken.csv.gz")


# ------------------------------------------------------------------------------------ the published files

published = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")


@published
def test_published_files_with_their_quirks_are_read():
    """Titles of one and of five lines, a blank line under a header, names a spreadsheet took for dates."""
    counts = {
        "25_Portfolios_ME_RESVAR_5x5": 11,
        "25_Portfolios_ME_Prior_12_2": 8,
        "49_Industry_Portfolios": 8,
        "Portfolios_Formed_on_BE-ME": 8,
        "Portfolios_Formed_on_VAR": 7,
    }
    for name, n in counts.items():
        titles = french_sections(SHARED / f"{name}.csv.gz")
        assert len(titles) == len(set(titles)) == n, name
        assert sum("Monthly" in title for title in titles) == 2, name


@published
def test_numbers_of_the_published_files():
    path = SHARED / "25_Portfolios_5x5.csv.gz"
    frame = read_french_csv(path)
    assert (frame.height, frame.width) == (1196, 26)
    assert (frame["date"][0], frame["date"][-1]) == (date(1926, 7, 31), date(2026, 2, 28))
    assert frame["SMALL LoBM"][0] == pytest.approx(0.058276)
    assert read_french_csv(path, "average of OP")["date"][0] == date(1963, 7, 31)
    annual = read_french_csv(path, "Average Value Weighted Returns -- Annual")
    monthly = frame.filter((pl.col("date") >= date(1990, 1, 1)) & (pl.col("date") <= date(1990, 12, 31)))
    compounded = np.prod(1 + monthly.drop("date").to_numpy(), axis=0) - 1
    published_year = annual.filter(pl.col("date") == date(1990, 12, 31)).drop("date").to_numpy()[0]
    # rebalanced once a year there and monthly here: close, and far off were it percent
    np.testing.assert_allclose(compounded, published_year, atol=0.02)


@published
def test_the_market_prices_its_own_portfolios_roughly():
    files = SHARED / "25_Portfolios_5x5.csv.gz", SHARED / "F-F_Research_Data_5_Factors_2x3.csv.gz"
    returns = Panel.from_wide(
        read_french_csv(files[0]), universe="span", times="date", frequency="M", value_kind="return"
    )
    panel = excess_panel(returns.until("1990-12-31"), read_french_risk_free(files[1]))
    assert panel.notes[-1].endswith("in periods without a risk-free rate set to NaN")  # those before 1963-07
    panel = panel.with_observed_factors(read_french_factors(files[1]), time="date")
    market, values = panel.observed_factors[:, 0], panel.wide()
    known = np.isfinite(market)
    assert known.sum() == 330
    assert np.isnan(values[~known]).all()
    correlation = [np.corrcoef(market[known], series[known])[0, 1] for series in values.T]
    assert min(correlation) > 0.7
