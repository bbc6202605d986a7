"""Goyal-Welch files: dates, timing of premium and predictors, and columns that know the future."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from latentfactors import equity_premium_panel, read_goyal_welch
from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.readers.goyal_welch import FULL_SAMPLE, PREDICTORS

MONTHLY = """yyyymm,price,d12,e12,ret,Rfree,b/m,tbl,infl,cay,csp
202001,100,2,5,,0.001,0.3,0.015,0.004,,
202002,110,2,5,0.10,0.001,0.28,0.014,0.003,,0.1
202003,88,2.2,4,-0.20,0.002,0.35,0.005,-0.002,0.01,
"""
DATA = Path(__file__).parents[3] / "shared" / "data" / "goyal_welch"
real = pytest.mark.skipif(not DATA.exists(), reason="the shared data are not here")


def written(folder, text, name="sheet.csv"):
    (folder / name).write_text(text)
    return folder / name


def test_a_sheet_is_read_as_it_is(tmp_path):
    frame = read_goyal_welch(written(tmp_path, MONTHLY))
    assert frame.columns == ["date", *MONTHLY.splitlines()[0].split(",")[1:]]
    assert frame["date"].to_list() == [date(2020, 1, 31), date(2020, 2, 29), date(2020, 3, 31)]
    np.testing.assert_array_equal(frame["ret"].to_numpy(), [np.nan, 0.10, -0.20])
    quarterly = read_goyal_welch(written(tmp_path, "yyyyq,price\n20201,1\n20202,2\n"))
    assert quarterly["date"].to_list() == [date(2020, 3, 31), date(2020, 6, 30)]
    annual = read_goyal_welch(written(tmp_path, "yyyy,price\n2019,1\n2020,2\n"))
    assert annual["date"].to_list() == [date(2019, 12, 31), date(2020, 12, 31)]


def test_premium_over_the_period_and_predictors_at_its_end(tmp_path):
    names = ["dp", "dy", "ep", "de", "bm", "tbl", "infl", "d12"]
    panel = equity_premium_panel(written(tmp_path, MONTHLY), predictors=names)
    assert panel.assets.tolist() == ["equity_premium", *names]
    assert [str(time) for time in panel.times] == ["2020-02-29", "2020-03-31"]
    assert (panel.value_kind, panel.frequency) == ("series", "M")
    log = np.log
    np.testing.assert_allclose(
        panel.wide(),
        [
            [0.099, log(2 / 110), log(2 / 100), log(5 / 110), log(2 / 5), 0.28, 0.014, 0.004, 2],
            [-0.202, log(2.2 / 88), log(2.2 / 110), log(4 / 88), log(2.2 / 4), 0.35, 0.005, 0.003, 2.2],
        ],
        rtol=1e-12,
    )
    logs = equity_premium_panel(written(tmp_path, MONTHLY), predictors=["tbl"], log_returns=True)
    np.testing.assert_allclose(logs.wide()[:, 0], [log(1.1 / 1.001), log(0.8 / 1.002)])


def test_years_are_integer_periods(tmp_path):
    annual = written(tmp_path, "yyyy,ret,Rfree,tbl\n2019,0.1,0.02,0.01\n2020,0.2,0.01,0.005\n")
    panel = equity_premium_panel(annual, predictors=["tbl"])
    assert panel.times.tolist() == [2019, 2020]
    assert panel.extend(1).times[-1] == 2021


def test_columns_that_know_the_future_are_refused(tmp_path):
    path = written(tmp_path, MONTHLY)
    with pytest.raises(PanelError, match="'cay' were estimated on the whole sample"):
        equity_premium_panel(path, predictors=["tbl", "cay"])
    assert equity_premium_panel(path, predictors=["cay"], allow_full_sample=True).n_assets == 2
    assert not set(FULL_SAMPLE) & set(PREDICTORS)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("date,ret\n202001,1", {}, "no sheet of the Goyal-Welch workbook"),
        ("", {}, "no sheet"),
        ("yyyymm,ret,ret\n202001,1,1", {}, "names distinct"),
        ("yyyymm,ret\n202013,1", {}, "begin with yyyymm, got"),
        ("yyyymm,ret\n202001,1,2", {}, "expected 2 cells"),
        ("yyyymm,ret\n202001,x", {}, "202001, column 'ret': expected a number, got 'x'"),
        ("yyyymm,ret", {}, "no line below"),
        ("yyyymm,ret,tbl\n202001,1,1", {"predictors": ["tbl"]}, "no column 'Rfree'"),
        (MONTHLY, {"predictors": ["xyz"]}, "no column 'xyz'"),
        (MONTHLY.replace("0.10", "").replace("-0.20", ""), {"predictors": ["tbl"]}, "both ret and Rfree"),
        (MONTHLY.replace(",0.1\n", ",\n"), {"predictors": ["csp"]}, "no values of 'csp'"),
        (MONTHLY.replace("202001,100", "202001,-1"), {"predictors": ["dp"]}, "price must be positive"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path, text, options, words):
    with pytest.raises(PanelError, match=words) as error:
        equity_premium_panel(written(tmp_path, text), **options)
    assert "\n" not in str(error.value)


def test_lists_are_lists(tmp_path):
    for wrong in ((), "tbl", ["tbl", "tbl"]):
        with pytest.raises(ConfigurationError, match="list of distinct names"):
            equity_premium_panel(written(tmp_path, MONTHLY), predictors=wrong)


@real
def test_the_real_workbook():
    panel = equity_premium_panel(DATA / "gwz2024_monthly.csv.gz")
    assert (str(panel.times[0]), str(panel.times[-1])) == ("1926-01-31", "2024-12-31")
    wide = panel.wide()
    premium = wide[:, 0]
    assert 0.005 < premium.mean() < 0.008  # about 8% a year since 1926
    assert np.isfinite(wide[12:]).all()
    frame = read_goyal_welch(DATA / "gwz2024_monthly.csv.gz")
    raw = frame.filter(frame["date"] >= date(1926, 1, 31))
    ratio = raw["d/p"].to_numpy()
    np.testing.assert_allclose(np.exp(wide[:, 1]), ratio, rtol=1e-10)  # the file's own ratios
    np.testing.assert_allclose(np.exp(wide[1:, 2]), raw["d/y"].to_numpy()[1:], rtol=1e-10)
    np.testing.assert_allclose(wide[1:, 14], raw["infl"].to_numpy()[:-1])
    # the dividend yield regression of the literature: a positive slope, small R2
    x, y = wide[:-1, 1], premium[1:]
    slope = np.cov(x, y)[0, 1] / x.var(ddof=1)
    assert slope > 0
    assert np.corrcoef(x, y)[0, 1] ** 2 < 0.01
    assert equity_premium_panel(DATA / "gwz2023_quarterly.csv.gz", predictors=["dp", "i/k"]).frequency == "Q"
    assert equity_premium_panel(DATA / "gwz2023_annual.csv.gz", predictors=["dp", "eqis"]).times[-1] == 2023
