"""The number of factors: simulated truth, criteria by hand, EM for missing cells, FRED-MD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentfactors import fred_panel
from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import choose_by_bic, fill_by_factors, number_of_factors
from latentfactors.kernels.ppca import fit_ppca

DATA = Path(__file__).parents[3] / "shared" / "data" / "fred_md"
# PC_p3, IC_p3 (and PC_p1, PC_p2 on filled panels) penalise too little for panels of this size.
STEADY = ("IC_p1", "IC_p2", "ER", "GR")


def factor_data(T=200, N=80, K=3, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(T, K)) @ rng.normal(size=(K, N)) + noise * rng.normal(size=(T, N))


@pytest.mark.parametrize(("T", "N"), [(200, 80), (80, 200)])
def test_the_criteria_find_three_factors(T, N):
    found = number_of_factors(factor_data(T, N))
    for name in (*STEADY, "PC_p1", "PC_p2"):
        assert found.chosen[name] == 3, name
    assert 3 <= found.chosen["ED"] <= 4
    assert (found.n_missing, found.n_iterations, found.converged) == (0, 0, True)


def test_and_still_with_a_quarter_of_the_cells_missing():
    x = factor_data(noise=0.8)
    x[np.random.default_rng(1).random(x.shape) < 0.25] = np.nan
    found = number_of_factors(x)
    for name in (*STEADY, "ED"):
        assert found.chosen[name] == 3, name
    assert found.converged
    assert found.n_missing == np.isnan(x).sum()


def test_noise_has_none():
    found = number_of_factors(np.random.default_rng(2).normal(size=(200, 80)))
    for name in ("PC_p1", "PC_p2", "IC_p1", "IC_p2", "ER", "GR", "ED"):
        assert found.chosen[name] == 0, name


def test_criteria_by_hand():
    x = factor_data(60, 40)
    T, N, kmax = 60, 40, 8
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    found = number_of_factors(x)
    _, _, right = np.linalg.svd(z, full_matrices=False)
    left = []
    for k in range(kmax + 2):
        residual = z - z @ right[:k].T @ right[:k]
        left.append((residual**2).sum() / (N * T))
    left = np.array(left)
    penalties = (
        (N + T) / (N * T) * np.log(N * T / (N + T)),
        (N + T) / (N * T) * np.log(min(N, T)),
        np.log(min(N, T)) / min(N, T),
    )
    for i, g in enumerate(penalties, 1):
        k = np.arange(kmax + 1)
        np.testing.assert_allclose(found.criteria[f"PC_p{i}"], left[:-1] + k * left[kmax] * g, rtol=1e-10)
        np.testing.assert_allclose(found.criteria[f"IC_p{i}"], np.log(left[:-1]) + k * g, atol=1e-10)
    mu = np.linalg.eigvalsh(z @ z.T / (N * T))[::-1]
    np.testing.assert_allclose(found.eigenvalues[:10], mu[:10] / mu.sum(), rtol=1e-10)
    np.testing.assert_allclose(found.criteria["ER"][1:], mu[:kmax] / mu[1 : kmax + 1], rtol=1e-9)
    assert found.criteria["ER"][0] == pytest.approx(1 / np.log(40) / mu[0] * mu.sum())
    growth = np.log(left[:-2] / left[1:-1]) / np.log(left[1:-1] / left[2:])
    np.testing.assert_allclose(found.criteria["GR"][1:], growth, rtol=1e-9)
    frame = found.frame()
    assert frame.height == kmax + 1
    assert frame["cumulative"][3] == pytest.approx(1 - left[3] / left[0])


def test_nothing_depends_on_the_unit_or_the_order():
    x = factor_data()
    x[np.random.default_rng(3).random(x.shape) < 0.1] = np.nan
    base = number_of_factors(x)
    for other in (
        number_of_factors(1e6 * x + 3e6),
        number_of_factors(x[:, ::-1]),
        number_of_factors(x[::-1]),
    ):
        np.testing.assert_allclose(other.eigenvalues, base.eigenvalues, rtol=1e-6)
    raw = number_of_factors(x, standardise=False)
    np.testing.assert_allclose(
        number_of_factors(1e-6 * x, standardise=False).eigenvalues, raw.eigenvalues, rtol=1e-6
    )


def test_em_completes_a_noise_free_table_and_touches_no_observed_cell():
    x = factor_data(100, 40, 2, noise=0.0)
    hidden = np.random.default_rng(4).random(x.shape) < 0.2
    filled, k, steps, converged = fill_by_factors(np.where(hidden, np.nan, x), 2, max_iterations=2000)
    assert (k, converged) == (2, True)
    assert steps > 3
    np.testing.assert_array_equal(filled[~hidden], x[~hidden])
    assert np.abs(filled - x).max() < 0.1 * x.std()
    assert fill_by_factors(np.where(hidden, np.nan, x), 2, max_iterations=2)[3] is False


def test_empty_and_constant_series_are_left_out_and_named():
    x = factor_data()
    x[:, 5], x[:, 7], x[11] = np.nan, 1.0, np.nan
    found = number_of_factors(x)
    assert found.left_out == (5, 7)
    assert (found.n_periods, found.n_assets) == (199, 78)
    assert found.chosen["IC_p2"] == 3


def test_bic_over_probabilistic_components():
    x = factor_data(150, 20, 3)
    z = x - x.mean(axis=0)

    def fit(k):
        if k > 6:
            raise InsufficientDataError("too many")
        return fit_ppca(z, k).loglikelihood, 20 * k + 1 - k * (k - 1) // 2

    found = choose_by_bic(fit, range(1, 9), 150)
    assert found.best == 3
    assert found.bic[2] == pytest.approx(-2 * found.log_likelihood[2] + 40 * np.log(150))
    assert list(found.failed) == [7, 8]
    with pytest.raises(InsufficientDataError, match=r"every fit failed; the first: .*too many"):
        choose_by_bic(fit, [7], 150)
    with pytest.raises(ConfigurationError, match="at least one candidate"):
        choose_by_bic(fit, [], 150)
    with pytest.raises(ConfigurationError, match="finite"):
        choose_by_bic(lambda k: (np.nan, 1), [1], 150)


def test_small_panels_are_refused():
    with pytest.raises(InsufficientDataError, match=r"max_factors=8 needs at least 14 .* \(10, 80\)"):
        number_of_factors(factor_data(10))
    with pytest.raises(ConfigurationError, match="finite"):
        number_of_factors(np.full((20, 20), np.inf))
    with pytest.raises(ConfigurationError, match="max_factors"):
        number_of_factors(factor_data(), max_factors=0)


@pytest.mark.skipif(not DATA.exists(), reason="the shared data are not here")
def test_fred_md_has_eight_factors_that_explain_48_percent():
    """McCracken & Ng (2016), section 3: eight factors by their criterion, through 2014."""
    panel = fred_panel(DATA / "fred_md_2023-04.csv.gz").until("2014-12-31")
    panel = panel.between(2, panel.n_periods)
    for largest in (8, 15):
        found = number_of_factors(panel, max_factors=largest)
        assert found.chosen["IC_p2"] == 8
        assert (found.n_periods, found.n_assets, found.n_missing) == (670, 127, 988)
    assert found.eigenvalues[:8].sum() == pytest.approx(0.479, abs=0.001)
    assert number_of_factors(panel, max_factors=8).chosen["PC_p2"] == 8
