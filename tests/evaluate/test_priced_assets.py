"""The table of pricing tests: against statsmodels and the GRS test, with gaps, and on the French 25."""

from pathlib import Path

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError
from latentfactors.evaluate import grs_test, price_assets, pricing_table
from latentfactors.readers.french import read_french_csv, read_french_factors, read_french_risk_free

FRENCH = Path(__file__).resolve().parents[3] / "shared" / "data" / "french_portfolios"


def draws(n_periods=200, n_assets=6, alpha=0.5):
    rng = np.random.default_rng(0)
    factors = 0.3 + rng.normal(size=(n_periods, 3))
    returns = factors @ rng.normal(size=(3, n_assets)) + rng.normal(size=(n_periods, n_assets))
    returns[:, 0] += alpha
    return returns, factors


def test_agrees_with_statsmodels_and_grs():
    api = pytest.importorskip("statsmodels.api")
    returns, factors = draws()
    found, test = price_assets(returns, factors, lags=4), grs_test(returns, factors)
    np.testing.assert_allclose(found.alphas, test.alphas, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.r_squared, test.r_squared, rtol=1e-9)
    assert (found.grs, found.p_value) == (test.statistic, test.p_value)
    for j in (0, 3):
        fit = api.OLS(returns[:, j], api.add_constant(factors)).fit(cov_type="HAC", cov_kwds={"maxlags": 4})
        assert found.t_statistics[j] == pytest.approx(fit.tvalues[0], rel=1e-8)
    line = found.line()
    assert line["share_unpriced"] == pytest.approx(
        np.abs(test.alphas).mean() / np.abs(returns.mean(axis=0)).mean()
    )
    assert line["n_above_3"] == int((np.abs(found.t_statistics) > 3).sum()) == 1


def test_gaps_and_too_many_assets():
    returns, factors = draws(n_periods=60, n_assets=70)
    factors[:3] = np.nan
    returns[10:20, 5] = np.nan
    returns[:, 6] = np.nan
    found = price_assets(returns, factors)
    assert found.n_periods == 57
    assert np.isnan(found.grs)
    assert "more complete periods" in found.grs_refused
    assert np.isnan(found.alphas[6])
    assert found.line()["n_assets"] == 69
    kept = np.r_[3:10, 20:60]
    alone = price_assets(returns[kept, 5:6], factors[kept])
    assert found.alphas[5] == pytest.approx(alone.alphas[0])
    assert found.means[5] == pytest.approx(returns[kept, 5].mean())


def test_table_lines_and_refusals():
    returns, factors = draws()
    table = pricing_table({"all": returns, "two": returns[:, :2]}, {"1": factors[:, 0], "3": factors})
    assert table.select("assets", "model").rows() == [("all", "1"), ("all", "3"), ("two", "1"), ("two", "3")]
    assert table["n_factors"].to_list() == [1, 3, 1, 3]
    assert table["mean_r_squared"][1] > table["mean_r_squared"][0]
    with pytest.raises(ConfigurationError, match="at least one"):
        pricing_table({}, {"1": factors})
    with pytest.raises(ConfigurationError, match="one T"):
        price_assets(returns[1:], factors)


@pytest.mark.skipif(not FRENCH.is_dir(), reason="the files of French's library are not here")
def test_the_french_25():
    import polars as pl

    file = FRENCH / "F-F_Research_Data_5_Factors_2x3.csv.gz"
    frame = read_french_csv(FRENCH / "25_Portfolios_5x5.csv.gz").join(read_french_factors(file), on="date")
    frame = frame.join(read_french_risk_free(file), on="date").filter(pl.col("date").dt.year() < 2014)
    f = 100 * frame.select("Mkt-RF", "SMB", "HML", "RMW", "CMA").to_numpy()
    r = 100 * (frame.to_numpy()[:, 1:26].astype(float) - frame["RF"].to_numpy()[:, None])
    table = pricing_table({"25": r}, {"CAPM": f[:, :1], "FF3": f[:, :3], "FF5": f})
    np.testing.assert_allclose(table["grs"], [4.450, 3.656, 3.069], atol=6e-4)
    np.testing.assert_allclose(table["mean_abs_alpha"], [0.263, 0.0988, 0.0907], atol=6e-4)
    assert (table["n_periods"] == 606).all()
