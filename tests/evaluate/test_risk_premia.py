"""Fama-MacBeth and two-pass premia: by loop, against linearmodels, and their errors against simulation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import characteristic_premia, fama_macbeth, two_pass
from latentfactors.simulate import characteristic_panel


def exposures_and_returns(n_periods=60, n_assets=40, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_periods, n_assets, 2))
    slopes = [0.1, 0.3, -0.2] + 0.5 * rng.normal(size=(n_periods, 3)).cumsum(axis=0) / np.sqrt(n_periods)
    r = slopes[:, :1] + np.einsum("tnk,tk->tn", z, slopes[:, 1:]) + rng.normal(size=(n_periods, n_assets))
    r[rng.random(r.shape) < 0.2] = np.nan
    return r, z


def priced(n_periods, n_assets=25, seed=0, premia=(0.5, 0.3), intercept=0.0, sigma=1.0):
    """Mean returns are betas times premia; factor means are not, as with factors that are not traded."""
    rng = np.random.default_rng(seed)
    betas = np.random.default_rng(99).normal([1.0, 0.0], [0.5, 0.8], size=(n_assets, 2))
    f = rng.normal(size=(n_periods, 2)) * [1.0, 0.7]
    r = intercept + betas @ premia + f @ betas.T + sigma * rng.normal(size=(n_periods, n_assets))
    return r, f + np.array([0.2, -0.1]), betas


# ------------------------------------------------------------------------- given exposures


@pytest.mark.parametrize("intercept", [True, False])
def test_fama_macbeth_by_loop(intercept):
    r, z = exposures_and_returns()
    found = fama_macbeth(r, z, intercept=intercept, lags=3, names=["a", "b"])
    slopes = []
    for t in range(len(r)):
        seen = np.isfinite(r[t])
        X = np.column_stack([np.ones(seen.sum()), z[t][seen]]) if intercept else z[t][seen]
        slopes.append(np.linalg.inv(X.T @ X) @ X.T @ r[t][seen])
    slopes = np.array(slopes)
    np.testing.assert_allclose(found.slopes, slopes, rtol=1e-9)
    np.testing.assert_allclose(found.premia, slopes.mean(axis=0), rtol=1e-9)
    u, T = slopes - slopes.mean(axis=0), len(slopes)
    S = sum(np.outer(x, x) for x in u)
    for lag in (1, 2, 3):
        G = sum(np.outer(u[t], u[t - lag]) for t in range(lag, T))
        S = S + (1 - lag / 4) * (G + G.T)
    np.testing.assert_allclose(found.covariance, S / T**2, rtol=1e-9, atol=1e-15)
    assert found.names == (("intercept", "a", "b") if intercept else ("a", "b"))
    assert (found.n_periods, found.n_skipped, found.lags) == (60, 0, 3)
    assert found.frame()["t"].to_list() == pytest.approx(found.t_statistics.tolist())


def test_fama_macbeth_agrees_with_linearmodels():
    panel_models = pytest.importorskip("linearmodels.panel")
    pandas = pytest.importorskip("pandas")
    r, z = exposures_and_returns()
    T, N = r.shape
    index = pandas.MultiIndex.from_product([range(N), pandas.date_range("2000-01-31", periods=T, freq="ME")])
    frame = pandas.DataFrame(
        {"y": r.T.ravel(), "one": 1.0, "a": z[..., 0].T.ravel(), "b": z[..., 1].T.ravel()}, index=index
    ).dropna()
    model = panel_models.FamaMacBeth(frame["y"], frame[["one", "a", "b"]])
    plain = model.fit(cov_type="robust", debiased=False)
    ours = fama_macbeth(r, z, lags=0)
    np.testing.assert_allclose(ours.premia, plain.params, rtol=1e-8)
    np.testing.assert_allclose(ours.standard_errors, plain.std_errors, rtol=1e-8)
    kernel = model.fit(cov_type="kernel", kernel="bartlett", bandwidth=4, debiased=False)
    np.testing.assert_allclose(fama_macbeth(r, z, lags=4).standard_errors, kernel.std_errors, rtol=1e-8)


def test_characteristics_of_a_panel_are_the_same_regressions():
    panel = characteristic_panel(n_periods=40, n_assets=60, n_factors=2, missing=0.2, seed=3).panel
    names = panel.characteristic_names[1:4]
    found = characteristic_premia(panel, names, lags=2)
    cube = panel.index.dense(panel.characteristics.astype(float))[..., 1:4]
    expected = fama_macbeth(panel.wide(), cube, names=names, lags=2)
    np.testing.assert_allclose(found.slopes, expected.slopes, rtol=1e-9)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9)
    assert found.names == ("intercept", *names)
    scaled = characteristic_premia(panel.with_values(panel.values * 1e-4), names, lags=2)
    np.testing.assert_allclose(scaled.t_statistics, found.t_statistics, rtol=1e-8)
    with pytest.raises(ConfigurationError, match="no characteristic 'nothing'"):
        characteristic_premia(panel, ["nothing"])
    with pytest.raises(ConfigurationError, match="at all"):
        characteristic_premia(replace(panel, characteristics=None, characteristic_names=()))


def test_thin_and_collinear_periods_are_left_out_and_counted():
    r, z = exposures_and_returns()
    r[5, 3:] = np.nan  # three assets, three premia: an exact fit says nothing
    z[9, :, 1] = 2 * z[9, :, 0]
    r[11] = np.nan
    found = fama_macbeth(r, z)
    assert (found.n_periods, found.n_skipped) == (57, 2)
    assert np.isnan(found.slopes[[5, 9, 11]]).all()
    with pytest.raises(InsufficientDataError, match="0 of 60 periods have 4 assets"):
        fama_macbeth(r, np.zeros((40, 2)))
    with pytest.raises(ConfigurationError, match="expected returns"):
        fama_macbeth(r, z[:, :-1])
    with pytest.raises(ConfigurationError, match="1 names"):
        fama_macbeth(r, z, names=["a"])
    with pytest.raises(ConfigurationError, match="lags must be"):
        fama_macbeth(r, z, lags=-1)


# ------------------------------------------------------------------------- estimated betas


def dense_two_pass(r, f, intercept, gls):
    """Equation by equation with explicit inverses: Cochrane (2005), sections 12.2 and 12.3."""
    T, N = r.shape
    X = np.column_stack([np.ones(T), f])
    coefficients = np.linalg.inv(X.T @ X) @ X.T @ r
    E = r - X @ coefficients
    B, sigma = coefficients[1:].T, E.T @ E / T
    B = np.column_stack([np.ones(N), B]) if intercept else B
    W = np.linalg.inv(sigma) if gls else np.eye(N)
    A = np.linalg.inv(B.T @ W @ B) @ B.T @ W
    premia = A @ r.mean(axis=0)
    omega = np.cov(f.T, ddof=0)
    own = premia[intercept:]
    c = own @ np.linalg.inv(omega) @ own
    padded = np.zeros((len(premia), len(premia)))
    padded[intercept:, intercept:] = omega
    covariance = (A @ sigma @ A.T * (1 + c) + padded) / T
    alpha = r.mean(axis=0) - B @ premia
    M = np.eye(N) - B @ A
    J = alpha @ np.linalg.pinv((1 + c) / T * M @ sigma @ M.T, rcond=1e-10) @ alpha
    return premia, covariance, c, alpha, J


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighting", ["ols", "gls"])
def test_two_pass_equals_the_textbook(intercept, weighting):
    r, f, _ = priced(300, n_assets=8)
    found = two_pass(r, f, intercept=intercept, weighting=weighting)
    premia, covariance, c, alpha, J = dense_two_pass(r, f, intercept, weighting == "gls")
    np.testing.assert_allclose(found.premia, premia, rtol=1e-9)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-8, atol=1e-14)
    assert found.shanken == pytest.approx(c, rel=1e-10)
    np.testing.assert_allclose(found.pricing_errors, alpha, atol=1e-12)
    assert found.statistic == pytest.approx(J, rel=1e-7)
    assert found.p_value == pytest.approx(stats.chi2.sf(J, 8 - 2 - intercept), rel=1e-6)


@pytest.mark.parametrize("intercept", [True, False])
def test_two_pass_agrees_with_linearmodels(intercept):
    asset_pricing = pytest.importorskip("linearmodels.asset_pricing")
    r, f, _ = priced(20_000, n_assets=10, seed=2)
    theirs = asset_pricing.LinearFactorModel(r, f, risk_free=intercept).fit(cov_type="robust", debiased=False)
    ours = two_pass(r, f, intercept=intercept)
    np.testing.assert_allclose(ours.premia, theirs.risk_premia, rtol=1e-8)
    np.testing.assert_allclose(ours.betas, np.asarray(theirs.betas), rtol=1e-8)
    # theirs allow for residuals whose variance moves with the factors; here it does not
    np.testing.assert_allclose(ours.standard_errors, theirs.risk_premia_se, rtol=0.02)
    assert ours.statistic == pytest.approx(theirs.j_statistic.stat, rel=0.05)


def test_the_standard_errors_are_those_of_repeated_samples():
    """The correction multiplies what comes from residuals; multiplying all of it is far too much."""
    draws = [two_pass(*priced(480, seed=seed, premia=(0.9, 0.6), sigma=2.0)[:2]) for seed in range(500)]
    spread = np.std([each.premia for each in draws], axis=0)
    corrected = np.mean([each.standard_errors for each in draws], axis=0)
    plain = np.mean([each.fama_macbeth_errors for each in draws], axis=0)
    whole = np.mean([each.fama_macbeth_errors * np.sqrt(1 + each.shanken) for each in draws], axis=0)
    np.testing.assert_allclose(corrected, spread, rtol=0.08)
    assert np.all(plain < 0.95 * spread)
    assert np.all(whole > 1.1 * spread)
    truth = np.mean([each.premia for each in draws], axis=0)
    np.testing.assert_allclose(truth, [0.9, 0.6], rtol=0.06)  # less a little: betas are measured with error
    rejected = np.mean([each.p_value < 0.05 for each in draws])
    assert 0.03 < rejected < 0.15  # J is asymptotic


def test_two_pass_knows_units_and_gaps():
    r, f, _ = priced(200)
    found = two_pass(r, f, lags=None)
    assert found.lags == 4
    moved = two_pass(1e-4 * r, f * [1e6, -1.0], lags=None)
    np.testing.assert_allclose(np.abs(moved.t_statistics), np.abs(found.t_statistics), rtol=1e-8)
    assert moved.statistic == pytest.approx(found.statistic, rel=1e-8)
    holed = r.copy()
    holed[[3, 7], 2] = np.nan
    assert (
        two_pass(holed, f).statistic == two_pass(np.delete(r, [3, 7], 0), np.delete(f, [3, 7], 0)).statistic
    )
    assert two_pass(holed, f).n_incomplete == 2
    exact = two_pass(r[:, :2], f)
    assert np.isnan(exact.statistic)
    np.testing.assert_allclose(exact.pricing_errors, 0, atol=1e-12)


def test_two_pass_refuses_what_has_no_answer():
    r, f, _ = priced(200)
    with pytest.raises(InsufficientDataError, match="got 1 assets"):
        two_pass(r[:, :1], f)
    with pytest.raises(InsufficientDataError, match="got 25 assets and 27 periods"):
        two_pass(r[:27], f[:27])
    with pytest.raises(InsufficientDataError, match="factors are collinear"):
        two_pass(r, f[:, [0, 0]])
    same = r[:, :1] + 1e-3 * np.random.default_rng(0).normal(size=(200, 4))
    with pytest.raises(InsufficientDataError, match="collinear"):
        two_pass(np.column_stack([same[:, 0] * k for k in (1.0, 2.0, 3.0)]), f)
    with pytest.raises(ConfigurationError, match="weighting must be"):
        two_pass(r, f, weighting="wls")
