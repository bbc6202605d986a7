"""Identification and alignment of factor models: which of the equivalent (B, F) is meant.

A factor model knows its loadings B (N, K) and factors F (T, K) only through the product F B': for any
invertible R_b, R_f with R_b R_f' = I, (B R_b, F R_f) fits as well. What pins one of them down:

    principal     B'B = I and F'F/T diagonal, descending; unique up to signs where the diagonal entries differ
    signs         each column's largest |loading| positive, or each factor's mean >= 0
    Procrustes    orthogonal Q minimising ||S Q - M||: Q = U V' from the singular value decomposition
                  S'M = U D V' of source S and target M
    matching      permutation and signs maximising the sum of |correlation| of the pairs (assignment problem)

The first two identify one fit, the last two line a refit up with its predecessor before anything is averaged
or drawn. Rows that are not finite are left out of every moment here; the maps apply to all rows (and to
factor covariances: V -> R_f' V R_f).

References: Bai & Ng (2013), Journal of Econometrics 176(1), identification of principal components; Kelly,
Pruitt & Su (2019), JFE 134(3), factor means >= 0; Schoenemann (1966), Psychometrika 31(1), Procrustes; Kuhn
(1955), Naval Research Logistics Quarterly 2, assignment.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentfactors.kernels.moments import unit_columns

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SignRule = Literal["largest_loading_positive", "mean_nonnegative"]


def fix_signs(columns: ArrayLike, rule: SignRule = "largest_loading_positive") -> FloatArray:
    """Signs that make each column satisfy the rule; multiply loadings and factors by them.

    Parameters
    ----------
    columns : (n, K) loadings, or factors for "mean_nonnegative"; rows with a NaN are ignored
    rule : "largest_loading_positive", the entry of largest absolute value is positive (of equals the first
        row), or "mean_nonnegative", the column mean is >= 0

    Returns
    -------
    signs : (K,) of +1 and -1; +1 for columns that are zero or have no finite row
    """
    x = np.asarray(columns, dtype=np.float64)
    x = x[_finite_rows(x)]
    if rule == "largest_loading_positive":
        decisive = x[np.abs(x).argmax(axis=0), np.arange(x.shape[1])] if x.size else np.zeros(x.shape[1])
    elif rule == "mean_nonnegative":
        decisive = x.sum(axis=0)
    else:
        raise ValueError(f"rule={rule!r}: expected 'largest_loading_positive' or 'mean_nonnegative'")
    return np.where(decisive < 0, -1.0, 1.0)


def principal_rotation(loadings: ArrayLike, factors: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The maps to principal form: B R_b has orthonormal columns, (F R_f)'(F R_f) is diagonal and descending.

    With B = Q L (QR) and F L' = W D U' (SVD): R_b = L^-1 U and R_f = L'U, hence R_b R_f' = I and F B' is
    unchanged. Neither B'B nor F'F is formed, so badly scaled columns keep their digits. Signs:
    "largest_loading_positive"; apply `fix_signs` again for another rule.

    Parameters
    ----------
    loadings : (N, K), rows with a NaN ignored
    factors : (T, K), rows with a NaN ignored

    Returns
    -------
    loading_rotation, factor_rotation : (K, K) each, the new pair being loadings @ first, factors @ second

    Raises
    ------
    ValueError
        if the finite rows of the loadings have rank below K, or no row of the factors is finite
    """
    b, f = np.asarray(loadings, dtype=np.float64), np.asarray(factors, dtype=np.float64)
    if b.ndim != 2 or f.ndim != 2 or b.shape[1] != f.shape[1]:
        raise ValueError(f"expected loadings (N, K), factors (T, K) with one K, got {b.shape}, {f.shape}")
    n_factors, n_periods = b.shape[1], len(f)
    b, f = b[_finite_rows(b)], f[_finite_rows(f)]
    rank = int(np.linalg.matrix_rank(unit_columns(b, centred=False)[0])) if len(b) else 0
    if rank < n_factors:
        raise ValueError(f"loadings: {len(b)} finite rows of rank {rank}, expected rank {n_factors}")
    if len(f) == 0:
        raise ValueError(f"factors: none of the {n_periods} rows is finite")
    lower = np.linalg.qr(b)[1]
    axes = np.linalg.svd(f @ lower.T, full_matrices=True)[2].T  # U (K, K), whether or not T >= K
    loading_rotation = np.linalg.solve(lower, axes)
    factor_rotation = lower.T @ axes
    signs = fix_signs(b @ loading_rotation, "largest_loading_positive")
    return loading_rotation * signs, factor_rotation * signs


def procrustes(source: ArrayLike, target: ArrayLike) -> FloatArray:
    """Orthogonal Q (K, K) that brings source @ Q closest to target in least squares.

    Parameters
    ----------
    source, target : (n, K); rows not finite in both are ignored

    Raises
    ------
    ValueError
        if the shapes differ or no row is finite in both
    """
    s, t = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if s.ndim != 2 or s.shape != t.shape:
        raise ValueError(f"expected source and target of one shape (n, K), got {s.shape} and {t.shape}")
    rows = _common_rows(s, t, minimum=1)
    left, _, right = np.linalg.svd(s[rows].T @ t[rows])
    return left @ right


def match_signed_permutation(
    source: ArrayLike, target: ArrayLike, centred: bool = True
) -> tuple[IntArray, FloatArray]:
    """Order and signs of the source's columns that match the target's: source[:, permutation] * signs.

    Hungarian assignment on absolute correlations over the rows finite in both; deterministic. A column
    without variation correlates zero with everything and keeps its sign.

    Parameters
    ----------
    source : (n, K_s)
    target : (n, K_t)
    centred : True correlates (factors); False takes cosines without demeaning (loadings: their level informs)

    Returns
    -------
    permutation : (K_s,) source columns in the order of their target columns, unmatched ones appended in
        their order. With K_s <= K_t every source column is matched and the targets left over are skipped.
    signs : (K_s,) of +1 and -1 in the same order; +1 for unmatched columns

    Raises
    ------
    ValueError
        if fewer than two rows are finite in both
    """
    # scipy.optimize takes longer to load than a small model to fit, and only refits are matched
    from scipy.optimize import linear_sum_assignment

    s, t = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if s.ndim != 2 or t.ndim != 2 or len(s) != len(t):
        raise ValueError(f"expected source (n, K_s), target (n, K_t) with one n, got {s.shape}, {t.shape}")
    rows = _common_rows(s, t, minimum=2)
    similarity = unit_columns(s[rows], centred)[0].T @ unit_columns(t[rows], centred)[0]
    matched, partner = linear_sum_assignment(np.abs(similarity), maximize=True)
    by_target = np.argsort(partner)
    matched, partner = matched[by_target], partner[by_target]
    unmatched = np.setdiff1d(np.arange(s.shape[1]), matched)
    signs = np.ones(s.shape[1])
    signs[: len(matched)] = np.where(similarity[matched, partner] < 0, -1.0, 1.0)
    return np.concatenate([matched, unmatched]).astype(np.int64), signs


def _finite_rows(x: FloatArray) -> NDArray[np.bool_]:
    return np.all(np.isfinite(x), axis=1)


def _common_rows(source: FloatArray, target: FloatArray, minimum: int) -> NDArray[np.bool_]:
    """Rows finite in both, refused when fewer than `minimum`."""
    rows = _finite_rows(source) & _finite_rows(target)
    n = np.count_nonzero(rows)
    if n < minimum:
        raise ValueError(
            f"{n} of {len(rows)} rows are finite in source and target, expected at least {minimum}"
        )
    return rows
