"""CovarianceOperator: equal to the dense matrix in everything, and never dense unless asked."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError, PanelMismatchError
from latentfactors.risk import CovarianceOperator, decompose
from tests.risk.small import random_operator

KINDS = [{}, {"issuers": True}, {"rank": 2}, {"n": 3, "k": 4}, {"n": 1, "k": 1}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_everything_equals_the_dense_matrix(kind):
    sigma, dense = random_operator(seed=3, **kind)
    n = len(dense)
    rng = np.random.default_rng(1)
    x, block = rng.normal(size=n), rng.normal(size=(n, 3))
    np.testing.assert_allclose(sigma.dense(), dense, rtol=1e-12, atol=1e-12)
    for given in (x, block):
        np.testing.assert_allclose(sigma @ given, dense @ given, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(sigma.solve(given), np.linalg.solve(dense, given), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(sigma.specific_matvec(given), sigma.dense_specific() @ given, atol=1e-12)
        np.testing.assert_allclose(
            sigma.specific_solve(given), np.linalg.solve(sigma.dense_specific(), given), atol=1e-12
        )
    np.testing.assert_allclose(sigma.diagonal(), np.diag(dense), rtol=1e-12)
    assert sigma.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], abs=1e-10)
    assert sigma.variance(x) == pytest.approx(x @ dense @ x, rel=1e-12)
    assert sigma.volatility(x) == pytest.approx(np.sqrt(x @ dense @ x), rel=1e-12)
    kept = np.arange(n) % 2 == 0
    np.testing.assert_allclose(sigma.select(kept).dense(), dense[np.ix_(kept, kept)], atol=1e-12)
    m = rng.uniform(0.5, 2.0, n)
    np.testing.assert_allclose(sigma.scaled(-m).dense(), dense * np.outer(m, m), atol=1e-12)


@pytest.mark.parametrize("issuers", [False, True])
def test_draws_have_the_covariance(issuers):
    sigma, dense = random_operator(n=6, k=2, issuers=issuers, seed=5)
    draws = sigma.sample(200_000, seed=0)
    found = draws.T @ draws / len(draws)
    spread = np.sqrt((np.outer(np.diag(dense), np.diag(dense)) + dense**2) / len(draws))
    assert np.abs((found - dense) / spread).max() < 4.5
    np.testing.assert_array_equal(draws[:2], sigma.sample(200_000, seed=0)[:2])


def test_twenty_thousand_assets_stay_small():
    n, k = 20_000, 46
    rng = np.random.default_rng(0)
    parts = {"loadings": rng.normal(size=(n, k)), "specific_variance": rng.uniform(0.5, 1.5, n)}
    tracemalloc.start()
    sigma = CovarianceOperator(
        assets=np.arange(n), factor_covariance=np.eye(k), factor_names=tuple(f"f={i}" for i in range(k)),
        issuers=np.arange(n) // 5, issuer_correlation=0.3, **parts,
    )  # fmt: skip
    x = np.full(n, 1.0 / n)
    back = sigma @ sigma.solve(x)
    sigma.logdet(), sigma.diagonal(), decompose(sigma, x).frame("family"), sigma.sample(3, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(back, x, rtol=1e-9)
    assert peak < 150e6  # the matrix alone would be 3,200 MB


def test_portfolios_are_refused_by_name():
    sigma, _ = random_operator()
    universe = np.array([*sigma.assets.tolist(), "gone"])
    part = CovarianceOperator(
        assets=sigma.assets, loadings=sigma.loadings, factor_covariance=sigma.factor_covariance,
        specific_variance=sigma.specific_variance, factor_names=sigma.factor_names, universe=universe,
    )  # fmt: skip
    w = np.zeros(10)
    w[3] = 0.5
    np.testing.assert_array_equal(part.portfolio(w), sigma.portfolio({"A3": 0.5}))
    for weights, said in (
        ({"A3": 0.5, "ZZ": 0.5}, "ZZ"),
        ({"gone": 1.0}, "gone"),
        ({"A1": float("nan")}, "A1"),
        (np.ones(9), r"\(9,\)"),
        ({"A1": "much"}, "numbers"),
    ):
        with pytest.raises(PanelMismatchError, match=said):
            part.variance(weights)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"specific_variance": np.array([1.0, 0.0])}, "positive"),
        ({"specific_variance": np.array([1.0])}, "shape"),
        ({"loadings": np.array([[1.0], [np.nan]])}, "finite"),
        ({"factor_covariance": np.array([[-1.0]])}, "eigenvalue"),
        ({"issuer_correlation": 1.0}, "issuer_correlation"),
        ({"families": {"size": "style"}}, "size"),
    ],
)
def test_what_is_no_covariance_is_refused(change, said):
    good = {
        "assets": np.array(["a", "b"]), "loadings": np.ones((2, 1)), "factor_covariance": np.eye(1),
        "specific_variance": np.ones(2), "factor_names": ("market",),
    }  # fmt: skip
    CovarianceOperator(**good)
    with pytest.raises(ConfigurationError, match=said):
        CovarianceOperator(**(good | change))
    with pytest.raises(ConfigurationError, match="symmetric"):
        CovarianceOperator(
            **good | {"factor_covariance": np.array([[1.0, 0.2], [0.0, 1.0]]), "loadings": np.ones((2, 2)),
                      "factor_names": ("a", "b")}
        )  # fmt: skip


def test_a_frame_and_a_line():
    sigma, dense = random_operator()
    table = sigma.frame()
    np.testing.assert_allclose(table["volatility"].to_numpy(), np.sqrt(np.diag(dense)))
    assert table.columns == ["asset", "volatility", "systematic", "specific", *sigma.factor_names]
    assert repr(sigma) == "CovarianceOperator(9 assets, 4 factors)"
    with pytest.raises(ConfigurationError, match="expected an array"):
        sigma.matvec(np.ones(4))
