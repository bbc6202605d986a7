"""The French sample: its numbers, and the risk-free rate subtracted once."""

import sys

import numpy as np
import pytest

from latentfactors.datasets import french_frame, french_sample
from latentfactors.errors import MissingCapabilityError
from latentfactors.panel import Panel

french = pytest.importorskip("linearmodels.datasets.french")


def test_shape_and_span():
    panel = french_sample()
    assert (panel.n_periods, panel.n_assets, panel.n_rows) == (819, 30, 819 * 30)
    assert (str(panel.times[0]), str(panel.times[-1]), panel.frequency) == ("1949-01-31", "2017-03-31", "M")
    assert panel.value_kind == "excess_return"
    assert panel.observed_factor_names == ("MktRF", "SMB", "HML", "Mom")
    assert panel.observed.all()
    assert list(panel.assets[[0, 11, 12, 29]]) == ["NoDur", "Other", "S1V1", "S5M5"]


def test_the_risk_free_rate_is_subtracted_once():
    raw, panel = french.load(), french_sample()
    for asset, series in zip(panel.assets, panel.wide().T, strict=True):
        np.testing.assert_allclose(series + raw["RF"], raw[asset], atol=1e-15)


def test_numbers():
    panel = french_sample()
    mean = 100 * panel.observed_factors.mean(axis=0)
    np.testing.assert_allclose(mean, [0.645, 0.164, 0.351, 0.700], atol=0.01)
    # Twelve value-weighted industries make up the market, whose mean is an excess return already.
    assert abs(100 * panel.wide()[:, :12].mean() - mean[0]) < 0.1
    market = panel.observed_factors[:, 0]
    industries = panel.wide()[:, :12]
    fitted = industries @ np.linalg.lstsq(industries, market, rcond=None)[0]
    assert np.corrcoef(fitted, market)[0, 1] > 0.99


def test_the_long_frame_is_the_same_data():
    frame, panel = french_frame(), french_sample()
    assert frame.columns == ["date", "portfolio", "excess_return", "MktRF", "SMB", "HML", "Mom"]
    again = Panel.from_frame(
        frame,
        time="date",
        asset="portfolio",
        value="excess_return",
        lag=0,
        observed_factors=panel.observed_factor_names,
    )
    assert again.frequency == "M"
    np.testing.assert_array_equal(again.observed_factors, panel.observed_factors)
    np.testing.assert_array_equal(again.select(panel.assets).wide(), panel.wide())


def test_the_frame_survives_a_csv(tmp_path):
    import polars as pl

    frame = french_frame()
    frame.write_csv(tmp_path / "french.csv")
    again = pl.read_csv(tmp_path / "french.csv", try_parse_dates=True)
    assert again.schema == frame.schema
    np.testing.assert_array_equal(again["excess_return"], frame["excess_return"])


def test_without_linearmodels_one_line_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "linearmodels"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "linearmodels", None)
    for call in (french_sample, french_frame):
        with pytest.raises(MissingCapabilityError, match=r"pip install 'latentfactors\[pricing\]'$") as error:
            call()
        assert "\n" not in str(error.value)
