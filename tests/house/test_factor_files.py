"""Factor files of global-q.org and of Pastor and Stambaugh: dates, units, missing codes, refusals."""

import gzip
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from latentfactors.errors import PanelError
from latentfactors.readers.factor_files import read_liquidity_factors, read_q_factors

REAL = Path(__file__).parents[3] / "shared" / "data" / "french_portfolios"
LIQUIDITY = """% LIQUIDITY FACTORS
% Month\tAgg Liq.\tInnov Liq (eq8)\tTraded Liq (LIQ_V)
196711\t -0.01753665\t  0.00426023\t-99
196801\t -0.00407476\t  0.01175717\t  0.02500000

"""


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()))
    return path


def test_q_factors_by_month(tmp_path):
    text = "year,month,R_F,R_MKT,R_ME\n1967,1,0.39,8.0,-999\n1967,2,0.37,0.75,1.5\n"
    frame = read_q_factors(write(tmp_path / "q5.csv.gz", text))
    assert frame.columns == ["date", "R_MKT", "R_ME"]
    assert frame["date"].to_list() == [date(1967, 1, 31), date(1967, 2, 28)]
    np.testing.assert_allclose(frame["R_MKT"], [0.08, 0.0075])
    np.testing.assert_allclose(frame["R_ME"], [np.nan, 0.015])
    raw = read_q_factors(tmp_path / "q5.csv.gz", percent=False)
    assert raw["R_MKT"].to_list() == [8.0, 0.75]


@pytest.mark.parametrize(
    ("head", "lines", "days"),
    [
        ("year,quarter", ("1967,1", "1967,4"), (date(1967, 3, 31), date(1967, 12, 31))),
        ("year", ("1967", "1968"), (date(1967, 12, 31), date(1968, 12, 31))),
        ("DATE", ("19670103", "19670104"), (date(1967, 1, 3), date(1967, 1, 4))),
    ],
)
def test_q_factors_of_other_frequencies(tmp_path, head, lines, days):
    path = tmp_path / "q.csv"
    path.write_text("\n".join([f"{head},R_F,R_MKT", *(f"{line},0.1,1.0" for line in lines)]))
    assert tuple(read_q_factors(path)["date"]) == days


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a first line"),
        ("a,b\n1,2\n", "expected a first line"),
        ("year,month,R_F,R_F\n1967,1,1,2\n", "distinct columns R_F"),
        ("year,month,R_F,R_MKT\n", "no line of numbers"),
        ("year,month,R_F,R_MKT\n1967,1,1\n", "line 2: expected 4 entries, got 3 cells"),
        ("year,month,R_F,R_MKT\n1967,1,1,x\n", "expected numbers"),
        ("year,month,R_F,R_MKT\n1967,13,1,2\n", "dates that exist and ascend"),
        ("year,month,R_F,R_MKT\n1967,2,1,2\n1967,1,1,2\n", "dates that exist and ascend"),
        ("DATE,R_F,R_MKT\n19670231,1,2\n", "dates that exist and ascend"),
    ],
)
def test_what_is_no_q_file(tmp_path, text, said):
    path = tmp_path / "q.csv"
    path.write_text(text)
    with pytest.raises(PanelError, match=said):
        read_q_factors(path)


def test_liquidity(tmp_path):
    frame = read_liquidity_factors(write(tmp_path / "liq.txt.gz", LIQUIDITY))
    assert frame.columns == ["date", "liquidity_level", "liquidity_innovation", "LIQ_V"]
    assert frame["date"].to_list() == [date(1967, 11, 30), date(1968, 1, 31)]
    np.testing.assert_allclose(frame["LIQ_V"], [np.nan, 0.025])
    assert frame["liquidity_level"][0] == -0.01753665


def test_what_is_no_liquidity_file(tmp_path):
    for text in ("", "% only words\n", "196801 1 2\n", "196801 1 2 x\n", "196813 1 2 3\n"):
        path = tmp_path / "liq.txt"
        path.write_text(text)
        with pytest.raises(PanelError):
            read_liquidity_factors(path)


@pytest.mark.skipif(not REAL.is_dir(), reason="the files are not here")
def test_the_real_files():
    q = read_q_factors(next(REAL.glob("q5_factors_monthly*")))
    assert (q.height, q.columns[1:]) == (684, ["R_MKT", "R_ME", "R_IA", "R_ROE", "R_EG"])
    # The premium of expected growth that the abstract of Hou, Mo, Xue & Zhang (2021) prints.
    seen = q.filter(q["date"] < date(2019, 1, 1))
    assert 100 * seen["R_EG"].mean() == pytest.approx(0.84, abs=0.01)
    liquidity = read_liquidity_factors(next(REAL.glob("pastor_stambaugh*")))
    assert (liquidity.height, liquidity["date"][0]) == (737, date(1962, 8, 31))
    traded = liquidity["LIQ_V"].to_numpy()
    assert str(liquidity["date"].to_numpy()[np.isfinite(traded)][0])[:7] == "1968-01"
