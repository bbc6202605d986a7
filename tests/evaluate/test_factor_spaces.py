"""Comparing factor spaces: known rotations, nested spaces, unequal numbers."""

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError
from latentfactors.evaluate import compare_factor_spaces


def factors(n=200, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)) * [3.0, 2.0, 1.0][:k]


def test_order_and_signs_are_found():
    f = factors()
    mixed = f[:, [2, 0, 1]] * [-1.0, 1.0, -1.0]
    result = compare_factor_spaces(mixed, f)
    np.testing.assert_array_equal(result.aligned, f)
    np.testing.assert_allclose(result.correlations, 1.0)
    assert result.partners.tolist() == [0, 1, 2]


def test_a_rotation_is_undone():
    f = factors()
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    result = compare_factor_spaces(f @ q, f, alignment="rotation")
    np.testing.assert_allclose(result.aligned, f, atol=1e-10)
    np.testing.assert_allclose(result.canonical_correlations, 1.0)
    assert compare_factor_spaces(f @ q, f).correlations.max() < 0.999  # order and signs cannot


def test_a_space_inside_another():
    f = factors()
    result = compare_factor_spaces(-f[:, [2]], f)
    assert result.generalised_r_squared == pytest.approx(1.0)
    assert result.a_explained == pytest.approx(1.0)
    variance = f.var(axis=0)
    assert result.b_explained == pytest.approx(variance[2] / variance.sum(), abs=0.03)
    assert result.partners.tolist() == [2]
    np.testing.assert_array_equal(result.aligned, f[:, [2]])
    other = compare_factor_spaces(f, f[:, [2]])
    np.testing.assert_array_equal(other.aligned[:, 0], f[:, 2])
    assert other.aligned.shape == f.shape


def test_unrelated_spaces_and_missing_periods():
    a, b = factors(n=2000, k=2, seed=3), factors(n=2000, k=2, seed=4)
    a[:50] = np.nan
    result = compare_factor_spaces(a, b)
    assert result.canonical_correlations.max() < 0.1
    assert result.n_periods == 1950
    assert np.isnan(result.aligned[:50]).all()
    assert result.frame()["factor"].to_list() == [1, 2]


def test_bad_requests_are_refused():
    f = factors()
    with pytest.raises(ConfigurationError, match="as many factors in a as in b, got 2 and 3"):
        compare_factor_spaces(f[:, :2], f, alignment="rotation")
    with pytest.raises(ConfigurationError, match="with one T"):
        compare_factor_spaces(f[1:], f)
    with pytest.raises(ConfigurationError, match="alignment must be"):
        compare_factor_spaces(f, f, alignment="none")
    with pytest.raises(ConfigurationError, match="have 0 common periods"):
        compare_factor_spaces(np.full_like(f, np.nan), f)
