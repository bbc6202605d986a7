"""Spanning: determinants by hand, special cases, exact size, and where it must and must not reject."""

import numpy as np
import pytest
from scipy import stats

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import compare_sharpe, grs_test, maximal_sharpe, spanning_test


def spanned(n_periods, n_assets, n_benchmarks, seed):
    rng = np.random.default_rng(seed)
    y = 0.01 + 0.05 * rng.normal(size=(n_periods, n_benchmarks))
    betas = rng.normal(size=(n_benchmarks, n_assets))
    betas[-1] += 1.0 - betas.sum(axis=0)
    mixing = np.eye(n_assets) + 0.3
    return y @ betas + 0.03 * rng.normal(size=(n_periods, n_assets)) @ mixing, y


def restricted_determinants(x, y):
    """|S| free, with a = 0, with a = 0 and d = 0, the last two by restricted least squares."""
    T, K = y.shape
    X = np.column_stack([np.ones(T), y])
    inverse = np.linalg.inv(X.T @ X)
    B = inverse @ X.T @ x
    found = [np.linalg.det((x - X @ B).T @ (x - X @ B) / T)]
    for C, g in (
        (np.eye(1, K + 1), np.zeros((1, x.shape[1]))),
        (
            np.vstack([np.eye(1, K + 1), [0.0, *np.ones(K)]]),
            np.vstack([np.zeros(x.shape[1]), np.ones(x.shape[1])]),
        ),
    ):
        tied = B - inverse @ C.T @ np.linalg.inv(C @ inverse @ C.T) @ (C @ B - g)
        found.append(np.linalg.det((x - X @ tied).T @ (x - X @ tied) / T))
    return found


@pytest.mark.parametrize(("n_assets", "n_benchmarks"), [(1, 1), (1, 3), (4, 1), (5, 3)])
def test_statistics_are_those_of_restricted_least_squares(n_assets, n_benchmarks):
    x, y = spanned(90, n_assets, n_benchmarks, seed=1)
    x = x + 0.004
    found = spanning_test(x, y)
    free, no_alpha, both = restricted_determinants(x, y)
    T, N, K = 90, n_assets, n_benchmarks
    if N == 1:
        F, degrees = (both / free - 1) * (T - K - 1) / 2, (2, T - K - 1)
    else:
        F, degrees = (np.sqrt(both / free) - 1) * (T - K - N) / N, (2 * N, 2 * (T - K - N))
    assert found.degrees == degrees
    assert found.statistic == pytest.approx(F, rel=1e-8)
    assert found.p_value == pytest.approx(stats.f.sf(F, *degrees), rel=1e-7)
    first, second = (no_alpha / free - 1) * (T - K - N) / N, (both / no_alpha - 1) * (T - K - N + 1) / N
    assert found.alpha_statistic == pytest.approx(first, rel=1e-8)
    assert found.beta_statistic == pytest.approx(second, rel=1e-8)
    assert found.beta_p_value == pytest.approx(stats.f.sf(second, N, T - K - N + 1), rel=1e-7)
    assert found.alpha_statistic == pytest.approx(grs_test(x, y).statistic, rel=1e-8)
    np.testing.assert_allclose(found.alphas, grs_test(x, y).alphas, rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose(found.deltas, 1 - grs_test(x, y).betas.sum(axis=1), atol=1e-10)


def test_one_asset_is_the_f_test_of_two_linear_restrictions():
    api = pytest.importorskip("statsmodels.api")
    x, y = spanned(60, 1, 3, seed=2)
    fit = api.OLS(x[:, 0] + 0.01, api.add_constant(y)).fit()
    expected = fit.f_test(([[1, 0, 0, 0], [0, 1, 1, 1]], [0, 1]))
    found = spanning_test(x + 0.01, y)
    assert found.statistic == pytest.approx(float(np.squeeze(expected.fvalue)), rel=1e-8)
    assert found.p_value == pytest.approx(float(expected.pvalue), rel=1e-7)


@pytest.mark.parametrize("n_assets", [1, 6])
def test_the_size_is_exact_in_small_samples(n_assets):
    draws = [spanning_test(*spanned(25, n_assets, 3, seed)) for seed in range(500)]
    for name in ("p_value", "alpha_p_value", "beta_p_value"):
        p = np.array([getattr(each, name) for each in draws])
        assert stats.kstest(p, "uniform").pvalue > 0.01, name
    first = [each.alpha_p_value for each in draws]
    assert abs(np.corrcoef(first, [each.beta_p_value for each in draws])[0, 1]) < 0.12  # independent steps


def test_each_step_finds_its_own_departure():
    x, y = spanned(240, 3, 3, seed=4)
    levered, paid = spanning_test(0.5 * x, y), spanning_test(x + np.array([0.03, 0.0, 0.0]), y)
    assert levered.beta_p_value < 1e-8 < levered.alpha_p_value
    assert paid.alpha_p_value < 1e-8
    assert spanning_test(x, y).p_value > 0.05
    np.testing.assert_allclose(spanning_test(100 * x, 100 * y).statistic, spanning_test(x, y).statistic)
    turned = y @ np.array(
        [[0.5, 0.2, 0.0], [0.5, 0.8, -1.0], [0.0, 0.0, 2.0]]
    )  # portfolios of the benchmarks
    np.testing.assert_allclose(spanning_test(x, turned).statistic, spanning_test(x, y).statistic, rtol=1e-8)


def test_spanning_refuses_what_has_no_answer():
    x, y = spanned(60, 3, 3, seed=5)
    with pytest.raises(InsufficientDataError, match=r"got 6 for 3 \+ 3"):
        spanning_test(x[:6], y[:6])
    with pytest.raises(InsufficientDataError, match="benchmarks are collinear"):
        spanning_test(x, y[:, [0, 1, 0]])
    with pytest.raises(InsufficientDataError, match="repeat each other"):
        spanning_test(x[:, [0, 0]], y)
    with pytest.raises(InsufficientDataError, match=r"repeat each other|combination"):
        spanning_test(y @ [0.5, 0.25, 0.25], y)
    with pytest.raises(ConfigurationError, match="with one T"):
        spanning_test(x[:-1], y)


# ------------------------------------------------------------------------- squared Sharpe ratios


def test_ratios_nested_and_not():
    rng = np.random.default_rng(0)
    f = np.array([0.25, 0.15, 0.1, 0.0]) + rng.normal(size=(500, 4)) @ (np.eye(4) + 0.1)
    models = {
        "one": f[:, 0],
        "two": f[:, :2],
        "turned": f[:, :2] @ [[1.0, 2.0], [0.5, -1.0]],
        "other": f[:, 1:],
    }
    found = compare_sharpe(models)
    for name, squared in zip(found.names, found.squared, strict=True):
        assert squared == pytest.approx(maximal_sharpe(models[name], first=60).in_sample ** 2, rel=1e-9)
    expected = [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(found.nested, np.array(expected, dtype=bool))
    assert found.p_values[0, 1] == pytest.approx(grs_test(f[:, 1:2], f[:, :1]).p_value, rel=1e-8)
    assert found.p_values[0, 2] == pytest.approx(found.p_values[0, 1], rel=1e-6)
    assert np.isnan(found.p_values[1, 2])  # one span
    assert np.isnan(np.diag(found.p_values)).all()
    np.testing.assert_allclose(found.adjusted[3], (500 - 3 - 2) / 500 * found.squared[3] - 3 / 500)
    np.testing.assert_allclose(found.differences, -found.differences.T)
    holed = f[:, 1:].copy()
    holed[4, 1] = np.nan
    assert compare_sharpe(models | {"other": holed}).n_incomplete == 1


def test_the_variance_is_that_of_repeated_samples():
    """Two models of different factors and equal ratios: z is standard normal, and the bias is as stated."""
    z, adjusted, T = [], [], 400
    for seed in range(600):
        f = np.array([0.2, 0.1, 0.2, 0.1]) + np.random.default_rng(seed).normal(size=(T, 4))
        found = compare_sharpe({"a": f[:, :2], "b": f[:, 2:]})
        z.append(stats.norm.isf(found.p_values[0, 1] / 2) * np.sign(found.differences[0, 1]))
        adjusted.append(found.adjusted)
    assert abs(np.mean(z)) < 0.12
    assert 0.9 < np.std(z) < 1.1
    np.testing.assert_allclose(np.mean(adjusted, axis=0), 0.05, atol=0.003)


def test_comparison_refuses_what_has_no_answer():
    f = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(ConfigurationError, match="at least one model"):
        compare_sharpe({})
    with pytest.raises(ConfigurationError, match="same periods"):
        compare_sharpe({"a": f, "b": f[1:]})
    with pytest.raises(InsufficientDataError, match="'a' are collinear"):
        compare_sharpe({"a": f[:, [0, 0]]})
    with pytest.raises(InsufficientDataError, match="too few"):
        compare_sharpe({"a": f[:5]})
