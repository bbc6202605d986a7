"""GRS against a textbook computation, closed forms, and the numbers of the French 25 in the literature."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import grs_test, maximal_sharpe

FRENCH = Path(__file__).resolve().parents[3] / "shared" / "data" / "french_portfolios"


def draws(n_periods=200, n_assets=6, n_factors=3, alpha=0.1, seed=0):
    rng = np.random.default_rng(seed)
    factors = 0.3 + rng.normal(size=(n_periods, n_factors)) @ rng.normal(size=(n_factors, n_factors))
    mixing = np.eye(n_assets) + 0.1 * rng.normal(size=(n_assets, n_assets))
    noise = rng.normal(size=(n_periods, n_assets)) @ mixing
    returns = alpha * rng.normal(size=n_assets) + factors @ rng.normal(size=(n_factors, n_assets)) + noise
    return returns, factors


def textbook_grs(returns, factors):
    """Equation by equation, with explicit inverses: Campbell, Lo & MacKinlay (1997), eq. (5.3.23)."""
    T, N = returns.shape
    K = factors.shape[1]
    X = np.column_stack([np.ones(T), factors])
    B = np.linalg.inv(X.T @ X) @ X.T @ returns
    E = returns - X @ B
    sigma = E.T @ E / T
    mu = factors.mean(axis=0)
    omega = sum(np.outer(f - mu, f - mu) for f in factors) / T
    F = (T - N - K) / N / (1 + mu @ np.linalg.inv(omega) @ mu) * (B[0] @ np.linalg.inv(sigma) @ B[0])
    return F, stats.f.sf(F, N, T - N - K), B[0], B[1:].T


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n_assets", "n_factors"), [(1, 1), (6, 3), (25, 5)])
def test_grs_equals_the_textbook(n_assets, n_factors, seed):
    returns, factors = draws(n_assets=n_assets, n_factors=n_factors, seed=seed)
    result = grs_test(returns, factors)
    statistic, p_value, alphas, betas = textbook_grs(returns, factors)
    assert result.statistic == pytest.approx(statistic, rel=1e-10)
    assert result.p_value == pytest.approx(p_value, rel=1e-8, abs=1e-15)
    np.testing.assert_allclose(result.alphas, alphas, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(result.betas, betas, rtol=1e-10, atol=1e-12)
    assert result.mean_abs_alpha == pytest.approx(np.abs(alphas).mean())


def test_grs_is_the_gain_in_squared_sharpe_ratio():
    returns, factors = draws()
    result = grs_test(returns, factors)
    everything = np.column_stack([factors, returns])
    assert result.sharpe_all == pytest.approx(maximal_sharpe(everything).in_sample, rel=1e-10)
    assert result.sharpe_factors == pytest.approx(maximal_sharpe(factors).in_sample, rel=1e-10)
    T, N, K = result.n_periods, result.n_assets, result.n_factors
    gain = (result.sharpe_all**2 - result.sharpe_factors**2) / (1 + result.sharpe_factors**2)
    assert result.statistic == pytest.approx((T - N - K) / N * gain, rel=1e-10)


def test_alpha_errors_are_those_of_least_squares():
    api = pytest.importorskip("statsmodels.api")
    returns, factors = draws()
    result = grs_test(returns, factors)
    fit = api.OLS(returns[:, 2], api.add_constant(factors)).fit()
    assert result.alpha_errors[2] == pytest.approx(fit.bse[0], rel=1e-10)
    assert result.t_statistics[2] == pytest.approx(fit.tvalues[0], rel=1e-8)
    assert result.r_squared[2] == pytest.approx(fit.rsquared, rel=1e-10)


def test_alphas_and_betas_agree_with_linearmodels():
    asset_pricing = pytest.importorskip("linearmodels.asset_pricing")
    returns, factors = draws()
    result = grs_test(returns, factors)
    fit = asset_pricing.TradedFactorModel(returns, factors).fit()
    np.testing.assert_allclose(result.alphas, fit.alphas, rtol=1e-8)
    np.testing.assert_allclose(result.betas, fit.betas, rtol=1e-8)


def test_the_size_of_the_test_is_right_in_small_samples():
    rng = np.random.default_rng(7)
    rejected = 0
    for _ in range(600):
        market = 0.5 + rng.normal(size=40)
        returns = market[:, None] * rng.normal(size=10) + rng.normal(size=(40, 10))
        rejected += grs_test(returns, market).p_value < 0.05
    assert 0.03 < rejected / 600 < 0.075  # the asymptotic chi2 test rejects four times as often here


def test_units_sign_rotation_and_order_do_not_matter():
    returns, factors = draws()
    base = grs_test(returns, factors).statistic
    turned = factors @ np.array([[0.0, -2.0, 0.1], [3.0, 0.0, 1.0], [0.0, 0.5, -1e-3]])
    assert grs_test(returns, turned).statistic == pytest.approx(base, rel=1e-9)
    assert grs_test(returns[:, ::-1] * 1e-4, factors * 1e6).statistic == pytest.approx(base, rel=1e-8)


def test_incomplete_periods_are_left_out_and_counted():
    returns, factors = draws()
    holed = returns.copy()
    holed[[3, 50], [1, 4]] = np.nan
    shorter = np.delete(returns, [3, 50], axis=0), np.delete(factors, [3, 50], axis=0)
    result = grs_test(holed, factors)
    assert result.statistic == grs_test(*shorter).statistic
    assert (result.n_periods, result.n_incomplete) == (198, 2)


def test_grs_refuses_what_has_no_answer():
    returns, factors = draws(n_periods=9)
    with pytest.raises(InsufficientDataError, match=r"got 9 \(and 0 incomplete\) for 6 \+ 3"):
        grs_test(returns, factors)
    assert np.isfinite(grs_test(*draws(n_periods=10)).statistic)
    returns, factors = draws()
    with pytest.raises(InsufficientDataError, match="factors are collinear"):
        grs_test(returns, factors[:, [0, 1, 0]])
    with pytest.raises(InsufficientDataError, match="test assets repeat each other"):
        grs_test(returns[:, [0, 1, 0]], factors)
    with pytest.raises(InsufficientDataError, match="1 test assets are combinations of the factors"):
        grs_test(np.column_stack([returns, factors @ [1.0, 2.0, 0.0]]), factors)
    with pytest.raises(ConfigurationError, match="with one T"):
        grs_test(returns[:-1], factors)


# ------------------------------------------------------------------------- maximal Sharpe ratio


def test_one_factor_has_its_own_sharpe_ratio():
    x = np.random.default_rng(3).normal(0.1, 1.0, size=300)
    result = maximal_sharpe(x, first=60, periods_per_year=12.0)
    assert result.in_sample == pytest.approx(abs(x.mean()) / x.std() * np.sqrt(12))
    assert result.weights_in_sample[0] == pytest.approx(np.sign(x.mean()) / x.std())


def test_weights_are_those_of_the_past_only():
    _, factors = draws(n_periods=120)
    result = maximal_sharpe(factors, first=40)
    assert np.isnan(result.weights[:40]).all()
    past = factors[:70]
    omega = np.cov(past, rowvar=False, ddof=0)
    tangency = np.linalg.solve(omega, past.mean(axis=0))
    np.testing.assert_allclose(result.weights[70], tangency / np.sqrt(past.mean(axis=0) @ tangency))
    assert result.weights[70] @ omega @ result.weights[70] == pytest.approx(1.0)
    changed = factors.copy()
    changed[70:] = changed[70:][::-1] * 3.0
    np.testing.assert_array_equal(maximal_sharpe(changed, first=40).weights[:71], result.weights[:71])
    assert not np.allclose(maximal_sharpe(changed, first=40).weights[71:], result.weights[71:])
    earned = result.returns[40:]
    np.testing.assert_allclose(earned, (result.weights[40:] * factors[40:]).sum(axis=1))
    assert result.out_of_sample == pytest.approx(earned.mean() / earned.std(ddof=1))


def test_a_rolling_window_forgets():
    _, factors = draws(n_periods=120)
    result = maximal_sharpe(factors, window=30)
    np.testing.assert_allclose(result.weights[90], maximal_sharpe(factors[60:90]).weights_in_sample)
    assert result.n_periods == 90


def test_missing_factors_are_left_out():
    _, factors = draws(n_periods=120)
    holed = factors.copy()
    holed[50, 1] = np.nan
    result = maximal_sharpe(holed, first=40)
    assert np.isnan(result.returns[50])
    np.testing.assert_allclose(
        result.weights[-1], maximal_sharpe(np.delete(factors, 50, axis=0)[:-1]).weights_in_sample
    )


def test_maximal_sharpe_refuses_windows_that_cannot_work():
    _, factors = draws(n_periods=60)
    for options in ({"first": 4}, {"window": 40, "first": 30}, {"window": 3}):
        with pytest.raises(ConfigurationError, match="<= window <= first"):
            maximal_sharpe(factors, **options)
    with pytest.raises(InsufficientDataError, match="4 complete periods are too few for 3 factors"):
        maximal_sharpe(factors[:4])


# ------------------------------------------------------------------------- the French 25


def monthly_section(name, title=None):
    """{month: numbers} of the first monthly block of a French file, or of the one under a title."""
    lines = gzip.decompress((FRENCH / name).read_bytes()).decode("latin-1").splitlines()
    start = 0 if title is None else next(i for i, line in enumerate(lines) if title in line)
    table = {}
    for line in lines[start + 1 :]:
        if re.match(r"\s*\d{6},", line):
            month, *numbers = line.split(",")
            table[int(month)] = [float(number) for number in numbers]
        elif table:
            return table
    return table


@pytest.mark.skipif(not FRENCH.exists(), reason="the studies' data are not here")
@pytest.mark.parametrize(
    ("columns", "statistic", "mean_abs_alpha"),
    [([0], 4.450, 0.263), ([0, 1, 2], 3.656, 0.0988), ([0, 1, 2, 3, 4], 3.069, 0.0907)],
    ids=["CAPM", "FF3", "FF5"],
)
def test_the_french_25_give_the_numbers_of_the_literature(columns, statistic, mean_abs_alpha):
    portfolios = monthly_section("25_Portfolios_5x5.csv.gz", "Average Value Weighted Returns -- Monthly")
    five = monthly_section("F-F_Research_Data_5_Factors_2x3.csv.gz")
    months = [month for month in five if 196307 <= month <= 201312]
    factors = np.array([five[month] for month in months])
    excess = np.array([portfolios[month] for month in months]) - factors[:, [5]]
    result = grs_test(excess, factors[:, columns])
    assert (result.n_periods, result.n_assets, result.n_incomplete) == (606, 25, 0)
    assert result.statistic == pytest.approx(statistic, abs=0.01)
    assert result.mean_abs_alpha == pytest.approx(mean_abs_alpha, abs=0.0006)
    assert result.p_value < 1e-5
