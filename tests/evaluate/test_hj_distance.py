"""The Hansen-Jagannathan distance: by direct minimisation, as a portfolio, its law against simulation."""

import numpy as np
import pytest
from scipy import optimize, stats

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import hj_distance
from latentfactors.kernels.quadratic_forms import weighted_chi2_tail

B = np.random.default_rng(5).normal(1.0, 0.5, size=(2, 6))


def correct(n_periods, seed, alpha=0.0):
    """Excess returns that a discount factor linear in two factors prices, up to alpha of the first asset."""
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(n_periods, 2))
    r = (f + np.array([0.15, 0.1])) @ B + rng.normal(size=(n_periods, 6))
    r[:, 0] += alpha
    return r, f


# ------------------------------------------------------------------------- the law


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("p", [1e-10, 1e-4, 0.05, 0.5, 0.99])
def test_equal_weights_are_the_chi_square_law(n, p):
    x = stats.chi2.isf(p, n)
    assert weighted_chi2_tail(3.7 * x, np.full(n, 3.7)) == pytest.approx(p, rel=1e-8)


@pytest.mark.parametrize("x", [0.1, 2.0, 20.0, 150.0])
def test_pairs_of_weights_have_a_closed_form(x):
    a, b = 4.0, 0.5
    exact = (a * np.exp(-x / 2 / a) - b * np.exp(-x / 2 / b)) / (a - b)
    assert weighted_chi2_tail(x, [a, b, b, a]) == pytest.approx(exact, rel=1e-9)


def test_unequal_weights_against_draws():
    w = np.array([5.0, 1.0, 0.3, 0.01, 0.0])
    draws = np.random.default_rng(0).chisquare(1, size=(400_000, 5)) @ w
    for x in (0.05, 1.0, 5.0, 20.0):
        assert weighted_chi2_tail(x, w) == pytest.approx((draws > x).mean(), abs=0.003)
    assert weighted_chi2_tail(-1.0, w) == 1.0
    with pytest.raises(ValueError, match="expected finite x and weights"):
        weighted_chi2_tail(1.0, [-1.0])


# ------------------------------------------------------------------------- the distance


def test_excess_returns_by_direct_minimisation():
    r, f = correct(150, seed=0, alpha=0.3)
    V = np.linalg.inv(np.cov(r.T, ddof=0))

    def squared(b):
        errors = (r * (1 - (f - f.mean(axis=0)) @ b)[:, None]).mean(axis=0)
        return errors @ V @ errors

    best = optimize.minimize(squared, np.zeros(2), tol=1e-14)
    found = hj_distance(r, f)
    assert found.distance == pytest.approx(np.sqrt(best.fun), rel=1e-6)
    np.testing.assert_allclose(found.coefficients, best.x, rtol=1e-4)
    m = 1 - (f - f.mean(axis=0)) @ found.coefficients
    np.testing.assert_allclose(found.pricing_errors, (r * m[:, None]).mean(axis=0), atol=1e-12)
    # the largest pricing error of a portfolio with unit variance
    w = V @ found.pricing_errors / found.distance
    assert w @ np.cov(r.T, ddof=0) @ w == pytest.approx(1.0)
    assert w @ found.pricing_errors == pytest.approx(found.distance)


def test_gross_returns_are_the_least_change_of_the_discount_factor():
    r, f = correct(150, seed=1, alpha=0.3)
    R = 1.0 + 0.01 + 0.02 * r
    found = hj_distance(R, f, gross=True)
    G = R.T @ R / len(R)

    def squared(b):
        errors = (R * (b[0] + f @ b[1:])[:, None]).mean(axis=0) - 1.0
        return errors @ np.linalg.solve(G, errors)

    best = optimize.minimize(squared, [1.0, 0.0, 0.0], method="BFGS", options={"gtol": 1e-12})
    assert found.distance == pytest.approx(np.sqrt(best.fun), rel=1e-4)
    m = found.coefficients[0] + f @ found.coefficients[1:]
    errors = 1.0 - (R * m[:, None]).mean(axis=0)
    np.testing.assert_allclose(found.pricing_errors, errors, atol=1e-9)
    change = R @ np.linalg.solve(G, errors)
    np.testing.assert_allclose((R * (m + change)[:, None]).mean(axis=0), 1.0, atol=1e-9)
    assert np.sqrt(np.mean(change**2)) == pytest.approx(found.distance, rel=1e-9)


@pytest.mark.parametrize("gross", [False, True])
def test_the_size_is_right_in_large_samples(gross):
    p = []
    for seed in range(300):
        r, f = correct(1500, seed)
        if gross:
            r = 1.003 + 0.03 * r
        p.append(hj_distance(r, f, gross=gross).p_value)
    assert stats.kstest(p, "uniform").pvalue > 0.005
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09


def test_a_wrong_model_is_found_and_units_do_not_matter():
    r, f = correct(600, seed=3, alpha=0.4)
    found = hj_distance(r, f)
    assert found.p_value < 1e-4
    assert hj_distance(*correct(600, seed=3)).p_value > 0.05
    moved = hj_distance(1e-4 * r, 3.0 + f * [1e6, -1e-3])
    assert moved.distance == pytest.approx(found.distance, rel=1e-8)
    assert moved.p_value == pytest.approx(found.p_value, rel=1e-5)
    np.testing.assert_allclose(moved.coefficients * [1e6, -1e-3], found.coefficients, rtol=1e-7)
    turned = hj_distance(r @ (np.eye(6) + 0.3), f)  # portfolios of the same assets
    assert turned.distance == pytest.approx(found.distance, rel=1e-9)


def test_what_has_no_answer_is_refused():
    r, f = correct(60, seed=4)
    with pytest.raises(InsufficientDataError, match="got 2 assets, 2 coefficients"):
        hj_distance(r[:, :2], f)
    with pytest.raises(InsufficientDataError, match="repeat each other"):
        hj_distance(r[:, [0, 1, 2, 0]], f)
    with pytest.raises(InsufficientDataError, match="factors are collinear"):
        hj_distance(r, f[:, [0, 0]])
    with pytest.raises(ConfigurationError, match="of order 1"):
        hj_distance(r, f, gross=True)
