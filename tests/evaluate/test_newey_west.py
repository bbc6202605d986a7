"""Newey-West standard errors against statsmodels and against the double sum they stand for."""

import numpy as np
import pytest

from latentfactors.kernels.newey_west import automatic_lags, hac_regression, long_run_sum


def regression(n=150, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    noise = np.convolve(rng.normal(size=n + 3), [1.0, 0.8, 0.4, 0.2], "valid") * (1 + np.abs(x[:, 1]))
    return x @ [0.1, 0.5, -0.3] + noise, x


@pytest.mark.parametrize("lags", [0, 1, 4, 12, 149])
def test_it_agrees_with_statsmodels(lags):
    api = pytest.importorskip("statsmodels.api")
    y, x = regression()
    ours = hac_regression(y, x, lags)
    theirs = api.OLS(y, x).fit(cov_type="HAC", cov_kwds={"maxlags": lags})
    np.testing.assert_allclose(ours.coefficients, theirs.params, rtol=1e-10)
    np.testing.assert_allclose(ours.covariance, theirs.cov_params(), rtol=1e-8, atol=1e-14)
    np.testing.assert_allclose(ours.t_statistics, theirs.tvalues, rtol=1e-8)
    assert ours.r_squared == pytest.approx(theirs.rsquared, rel=1e-10)


def test_the_long_run_sum_is_a_double_sum():
    scores = np.random.default_rng(1).normal(size=(30, 2))
    direct = np.zeros((2, 2))
    for s in range(30):
        for t in range(30):
            direct += max(0.0, 1.0 - abs(s - t) / 6.0) * np.outer(scores[s], scores[t])
    np.testing.assert_allclose(long_run_sum(scores, 5), direct, rtol=1e-10)


def test_missing_periods_are_left_out_and_nothing_else_moves():
    y, x = regression()
    holed = y.copy()
    holed[[5, 70]] = np.nan
    kept = np.isfinite(holed)
    ours, direct = hac_regression(holed, x, 4), hac_regression(y[kept], x[kept], 4)
    np.testing.assert_array_equal(ours.t_statistics, direct.t_statistics)
    assert np.isnan(ours.residuals[[5, 70]]).all()
    assert ours.n_periods == 148


def test_the_lag_rule():
    assert [automatic_lags(n) for n in (0, 1, 2, 100, 606)] == [0, 0, 1, 4, 5]
    y, x = regression()
    assert hac_regression(y, x).lags == 4


def test_what_cannot_be_estimated_is_nan():
    y, x = regression(n=3)
    assert np.isnan(hac_regression(y, x).t_statistics).all()
    y, x = regression()
    assert np.isnan(hac_regression(y, x[:, [0, 1, 1]]).coefficients).all()
    assert np.isnan(hac_regression(np.full(5, np.nan), np.ones((5, 1))).coefficients).all()
    with pytest.raises(ValueError, match="lags=-1"):
        hac_regression(y, x, -1)
    with pytest.raises(ValueError, match="with one T"):
        hac_regression(y[:-1], x)
