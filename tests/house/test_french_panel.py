"""The French characteristic panel: what stands in a row was known before it; nothing is subtracted twice."""

import gzip
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.readers.french import read_french_csv
from latentfactors.readers.french_panel import FRENCH_SORTS, french_characteristic_panel, momentum_spread
from tests.house.small_french import MOMENTUM, MONTHS, RATED, sort_tables, write_files

REAL = Path(__file__).parents[3] / "shared" / "data" / "french_portfolios"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("french"))


@pytest.fixture(scope="module")
def panel(folder):
    return french_characteristic_panel(folder)


def test_rows_and_labels(panel):
    assert (panel.n_periods, panel.n_assets, panel.frequency) == (RATED, 175, "M")
    assert (str(panel.times[0]), panel.n_realised) == ("1963-08-31", RATED - 1)
    assert panel.times[-1] == np.datetime64("1968-01-31")  # live: the rate ended in December
    assert panel.value_kind == "excess_return"
    assert panel.assets[:2].tolist() == ["BEME: SMALL LoBEME", "BEME: ME1 BEME2"]
    assert panel.observed_factor_names == ("Mkt-RF", "SMB", "HML", "RMW", "CMA", "Mom")
    sort, size, second = (panel.attributes[name] for name in ("sort", "size", "second"))
    i = panel.assets.tolist().index("OP: ME3 OP4")
    assert sort.categories[sort.codes[i]] == "OP"
    assert size.categories[size.codes[i]] == "ME3"
    assert second.categories[second.codes[i]] == "4"
    assert any(f"{MONTHS - RATED} months after 1967-12-31" in note for note in panel.notes)


@pytest.mark.parametrize("number", range(7))
def test_a_row_has_its_own_return_and_the_line_before(panel, number):
    tables, cells = sort_tables(number), slice(25 * number, 25 * number + 25)
    wide = panel.wide()[:, cells]
    np.testing.assert_allclose(wide[: RATED - 1], tables["ret"][1:RATED] / 100 - 0.0025, atol=1e-8)
    assert np.isnan(wide[RATED - 1]).all()
    cube = panel.index.dense(panel.characteristics)[:, cells]
    expected = [np.log(tables["cap"]), tables["beme"], tables["op"], tables["inv"]]
    for j, known in enumerate(expected):  # row m: line m - 1
        np.testing.assert_allclose(cube[:, :, j], known[:RATED], rtol=2e-3, atol=1e-6)
    weights = panel.index.dense(panel.weights)[:, cells]
    np.testing.assert_allclose(weights, (tables["firms"] * tables["cap"])[:RATED], rtol=2e-3)


def test_price_based_characteristics_know_only_the_past(panel):
    j = panel.characteristic_names.index("mom12m")
    cube, wide = panel.index.dense(panel.characteristics), panel.wide()
    np.testing.assert_allclose(cube[20, :, j], np.prod(1 + wide[8:19], axis=0) - 1)
    assert np.isnan(cube[:12, :, j]).all()
    assert np.isfinite(cube[RATED - 1, :, j]).all()


def test_no_cell_of_the_month_enters_its_row(folder, tmp_path, panel):
    """Change every file from a month on: rows up to that month keep their characteristics."""
    other = write_files(tmp_path)
    line = "196612,"
    for path in other.glob("25_Portfolios*.csv.gz"):
        text = gzip.decompress(path.read_bytes()).decode().splitlines()
        text = [
            f"{row.split(',')[0]}," + ",".join(["9.5"] * 25) if row[:7] >= line and row[:6].isdigit() else row
            for row in text
        ]
        path.write_bytes(gzip.compress("\n".join(text).encode()))
    changed = french_characteristic_panel(other)
    at = int(np.searchsorted(panel.times, np.datetime64("1966-12-31")))
    rows = slice(0, int(panel.offsets[at + 1]))
    np.testing.assert_array_equal(changed.characteristics[rows], panel.characteristics[rows])
    np.testing.assert_array_equal(changed.weights[rows], panel.weights[rows])
    after = slice(int(panel.offsets[at + 1]), int(panel.offsets[at + 2]))
    assert (changed.characteristics[after, 0] != panel.characteristics[after, 0]).all()


def test_lag_zero_and_momentum_from_sorts(folder):
    panel = french_characteristic_panel(folder, sorts=("OP",), lag=0, momentum="sorts", price_based=())
    assert (str(panel.times[0]), panel.n_assets) == ("1963-07-31", 25)
    assert panel.characteristic_names == ("size", "beme", "op", "inv")
    np.testing.assert_allclose(
        panel.index.dense(panel.characteristics)[:, :, 1], sort_tables(4)["beme"][: RATED + 1], atol=1e-6
    )
    returns = read_french_csv(folder / "25_Portfolios_ME_Prior_12_2.csv")
    by_hand = np.mean([returns.row(3)[1 + 5 * i + 4] - returns.row(3)[1 + 5 * i] for i in range(5)])
    assert panel.observed_factors[3, -1] == pytest.approx(by_hand)


def test_momentum_that_ends_is_said(panel):
    assert np.isnan(panel.observed_factors[MOMENTUM - 1 : RATED - 1, -1]).all()
    assert any("Mom is missing in 4 months, it ends 1967-08-31" in note for note in panel.notes)


def test_refusals(folder, tmp_path):
    with pytest.raises(ConfigurationError, match="sorts must be some of BEME"):
        french_characteristic_panel(folder, sorts=("BEME", "HAIR"))
    with pytest.raises(ConfigurationError, match="'published' or 'sorts'"):
        french_characteristic_panel(folder, momentum="made up")
    with pytest.raises(PanelError, match="lag must be 0"):
        french_characteristic_panel(folder, lag=2)
    with pytest.raises(PanelError, match="no file F-F_Research"):
        french_characteristic_panel(tmp_path)
    with pytest.raises(PanelError, match="there is no folder"):
        french_characteristic_panel(tmp_path / "none")
    with pytest.raises(PanelError, match="prior return"):
        momentum_spread(folder / "25_Portfolios_5x5.csv.gz")


@pytest.mark.skipif(not REAL.is_dir(), reason="the files of French's library are not here")
def test_the_real_files():
    panel = french_characteristic_panel(REAL)
    assert (panel.n_assets, len(FRENCH_SORTS)) == (175, 7)
    assert (str(panel.times[0]), str(panel.times[-1])) == ("1963-08-31", "2025-01-31")
    assert str(panel.times[panel.n_realised - 1]) == "2024-12-31"
    assert np.isfinite(panel.values[: panel.offsets[panel.n_realised]]).all()
    assert np.isfinite(panel.characteristics[:, :4]).all()
    # The market factor is the portfolios' own return: value-weighted over one sort it comes back.
    rows = panel.index.rows(400)
    one = slice(rows.start, rows.start + 25)
    market = np.average(panel.values[one], weights=panel.weights[one])
    assert market == pytest.approx(panel.observed_factors[400, 0], abs=0.004)
    spread = momentum_spread(next(REAL.glob("25_Portfolios_ME_Prior_12_2*")))
    assert spread["date"].max() == date(2026, 2, 28)
    mom = panel.observed_factors[:, -1]
    ours = spread["Mom"].to_numpy()[-panel.n_periods - 13 : -13]
    seen = np.isfinite(mom)
    assert np.corrcoef(mom[seen], ours[seen])[0, 1] > 0.95
