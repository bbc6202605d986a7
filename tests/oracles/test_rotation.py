"""Identification and alignment against brute force."""

import itertools

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from latentfactors.kernels.rotation import (
    fix_signs,
    match_signed_permutation,
    principal_rotation,
    procrustes,
)


def fit(seed=0, N=30, T=50, K=3):
    rng = np.random.default_rng(seed)
    b = rng.normal(size=(N, K)) @ rng.normal(size=(K, K))
    f = rng.normal(size=(T, K)) * [3.0, 1.0, 0.3][:K] + [0.5, 0, 0][:K]
    b[[2, 11], [0, 1]] = np.nan
    f[[5, 9], [1, 2]] = np.nan
    return b, f


def finite(x):
    return x[np.isfinite(x).all(axis=1)]


def test_signs_make_the_largest_loading_positive():
    b = np.array(
        [[1.0, -2.0, 0.0, 3.0], [-4.0, 2.0, 0.0, 1.0], [np.nan, 9.0, 9.0, -9.0], [0.5, 1.0, 0.0, -3.0]]
    )
    assert np.array_equal(fix_signs(b, "largest_loading_positive"), [-1, -1, 1, 1])  # ties: the first row
    assert np.array_equal(fix_signs(b, "mean_nonnegative"), [-1, 1, 1, 1])
    assert np.array_equal(fix_signs(np.full((3, 2), np.nan)), [1, 1])
    assert np.array_equal(fix_signs(np.empty((0, 2))), [1, 1])
    with pytest.raises(ValueError, match="rule='first'"):
        fix_signs(b, "first")


def test_principal_form_and_product():
    b, f = fit()
    rb, rf = principal_rotation(b, f)
    new_b, new_f = finite(b) @ rb, finite(f) @ rf
    np.testing.assert_allclose(rb @ rf.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(new_f @ new_b.T, finite(f) @ finite(b).T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(new_b.T @ new_b, np.eye(3), atol=1e-12)
    moment = new_f.T @ new_f
    np.testing.assert_allclose(moment, np.diag(np.diag(moment)), atol=1e-10 * moment[0, 0])
    assert (np.diff(np.diag(moment)) < 0).all()
    assert (new_b[np.abs(new_b).argmax(axis=0), range(3)] > 0).all()
    # the oracle: singular vectors of the common component itself
    _, d, right = np.linalg.svd(finite(f) @ finite(b).T)
    np.testing.assert_allclose(np.sqrt(np.diag(moment)), d[:3], rtol=1e-10)
    np.testing.assert_allclose(np.abs(right[:3] @ new_b), np.eye(3), atol=1e-9)


def test_principal_form_depends_on_the_product_only():
    b, f = fit()
    rb, rf = principal_rotation(b, f)
    rng = np.random.default_rng(1)
    turn = rng.normal(size=(3, 3)) * [1e-4, 1.0, 1e6]
    other_b, other_f = b @ turn, f @ np.linalg.inv(turn).T
    sb, sf = principal_rotation(other_b, other_f)
    np.testing.assert_allclose(finite(other_b) @ sb, finite(b) @ rb, atol=1e-8)
    np.testing.assert_allclose(finite(other_f) @ sf, finite(f) @ rf, atol=1e-7)
    again_b, again_f = principal_rotation(b @ rb, f @ rf)
    np.testing.assert_allclose(again_b, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(again_f, np.eye(3), atol=1e-10)


@pytest.mark.parametrize("scale", [1e-4, 1e6, 2.0**20])
def test_principal_form_scales(scale):
    b, f = fit()
    rb, rf = principal_rotation(b, f)
    sb, sf = principal_rotation(b, f * scale)
    np.testing.assert_allclose(sb, rb, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sf, rf, rtol=1e-9, atol=1e-12)
    sb, sf = principal_rotation(b * scale, f)
    np.testing.assert_allclose(sb * scale, rb, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sf / scale, rf, rtol=1e-9, atol=1e-12)


def test_principal_form_with_fewer_periods_than_factors_and_deficient_loadings():
    b, f = fit()
    rb, rf = principal_rotation(b, f[:2])
    np.testing.assert_allclose(rb @ rf.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(finite(b @ rb).T @ finite(b @ rb), np.eye(3), atol=1e-12)
    with pytest.raises(ValueError, match="28 finite rows of rank 2, expected rank 3"):
        principal_rotation(b * [1, 1, 0], f)
    with pytest.raises(ValueError, match="2 finite rows of rank 2, expected rank 3"):
        principal_rotation(b[:4][[0, 1]], f)
    with pytest.raises(ValueError, match="none of the 50 rows is finite"):
        principal_rotation(b, np.full_like(f, np.nan))
    with pytest.raises(ValueError, match="with one K"):
        principal_rotation(b, f[:, :2])


def test_procrustes_equals_scipy_and_recovers_a_rotation():
    rng = np.random.default_rng(2)
    s, t = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    s[4, 1] = t[7, 0] = np.nan
    rows = np.isfinite(s).all(axis=1) & np.isfinite(t).all(axis=1)
    q = procrustes(s, t)
    np.testing.assert_allclose(q, orthogonal_procrustes(s[rows], t[rows])[0], atol=1e-12)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for scale in (1e-4, 1e6, 2.0**20):
        np.testing.assert_allclose(procrustes(s * scale, s @ turn), turn, atol=1e-12)
    with pytest.raises(ValueError, match="0 of 40 rows are finite"):
        procrustes(s, np.full_like(t, np.nan))
    with pytest.raises(ValueError, match="one shape"):
        procrustes(s, t[:, :2])


@pytest.mark.parametrize(("n_source", "n_target"), [(4, 4), (4, 2), (2, 4)])
def test_matching_equals_brute_force(n_source, n_target):
    rng = np.random.default_rng(3)
    for _ in range(20):
        s = rng.normal(size=(25, n_source)) + 3
        t = rng.normal(size=(25, n_target)) - 2
        s[0, 0] = t[3, 1] = np.nan
        permutation, signs = match_signed_permutation(s, t)
        assert sorted(permutation) == list(range(n_source))
        rows = np.isfinite(s).all(axis=1) & np.isfinite(t).all(axis=1)
        c = np.corrcoef(s[rows].T, t[rows].T)[:n_source, n_source:]
        n = min(n_source, n_target)
        pairs = [
            (abs(c[list(i), list(j)]).sum(), i, j)
            for i in itertools.permutations(range(n_source), n)
            for j in itertools.combinations(range(n_target), n)
        ]
        _, best, targets = max(pairs)
        assert list(permutation[:n]) == list(best)
        assert np.array_equal(signs[:n], np.sign(c[list(best), list(targets)]))
        assert list(permutation[n:]) == sorted(set(range(n_source)) - set(best))
        assert (signs[n:] == 1).all()


@pytest.mark.parametrize("scale", [1e-4, 1e6, 2.0**20])
def test_matching_undoes_a_signed_permutation(scale):
    rng = np.random.default_rng(4)
    t = rng.normal(size=(60, 5)) * [1e-3, 1, 10, 1, 1] + [0, 5, 0, 0, 0]
    order, flips = np.array([3, 0, 4, 1, 2]), np.array([-1, 1, -1, -1, 1])
    s = (t[:, order] * flips + 1e-4 * rng.normal(size=(60, 5))) * scale
    permutation, signs = match_signed_permutation(s, t)
    assert np.array_equal(order[permutation], np.arange(5))
    assert np.array_equal(signs, flips[permutation])


def test_matching_of_loadings_uses_their_level():
    rng = np.random.default_rng(5)
    t = np.column_stack([1 + 0.01 * rng.normal(size=50), rng.normal(size=50)])  # a market and a spread
    s = np.column_stack([t[:, 1], -1 + 0.01 * rng.normal(size=50)])
    permutation, signs = match_signed_permutation(s, t, centred=False)
    assert np.array_equal(permutation, [1, 0])
    assert np.array_equal(signs, [-1, 1])
    constant = np.column_stack([np.full(50, 0.1), t[:, 1]])
    permutation, signs = match_signed_permutation(constant, t[:, [1, 0]])
    assert np.array_equal(permutation, [1, 0])
    assert np.array_equal(signs, [1, 1])
    with pytest.raises(ValueError, match="1 of 50 rows are finite in source and target, expected at least 2"):
        match_signed_permutation(np.where(np.arange(50)[:, None] < 1, s, np.nan), t)
    with pytest.raises(ValueError, match="with one n"):
        match_signed_permutation(s[:9], t)


def test_inputs_are_left_alone():
    b, f = fit()
    before = b.copy(), f.copy()
    fix_signs(b)
    principal_rotation(b, f)
    procrustes(b, b)
    match_signed_permutation(f, f)
    assert np.array_equal(before[0], b, equal_nan=True)
    assert np.array_equal(before[1], f, equal_nan=True)
