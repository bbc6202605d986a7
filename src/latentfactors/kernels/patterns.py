"""Small systems of rows that miss the same cells: solved once a pattern, not once a row.

In a macro panel one series starts late and another one ends early: of some 130 series all but two or three
are seen in the same months, and the months see one of a few sets of series. What depends on a row's mask
only (sum_i m_ti b_i b_i', its inverse) is then made for the few distinct rows of the mask. With so few
systems LAPACK's Cholesky, one call each, is faster than `linalg`'s batch of array operations.

For estimation only: which branch is taken, and so the last bit, depends on all rows together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

from latentfactors.kernels.linalg import distinct_rows, invert_pd_batch, solve_psd_batch

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_FEW = 16  # patterns; beyond, a batch of array operations costs less than as many calls
_SAFE_PIVOT = 1e-10  # as in `linalg`: below it, the eigenvalue branch there decides


class Patterns(NamedTuple):
    """The few distinct rows of a mask.

    Attributes
    ----------
    first : (U,) a row of each kind.
    codes : (n,) the kind of each row.
    members : U arrays, the rows of each kind.
    """

    first: IntArray
    codes: IntArray
    members: tuple[IntArray, ...]


def find_patterns(mask: FloatArray) -> Patterns | None:
    """Distinct rows of a mask (n, m); None where there are more than a few.

    Examples
    --------
    >>> found = find_patterns(np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]))
    >>> [rows.tolist() for rows in found.members]
    [[1], [0, 2, 3]]
    """
    first, codes = distinct_rows(mask)
    if first.size > _FEW or 2 * first.size > len(mask):
        return None
    return Patterns(first, codes, tuple(np.flatnonzero(codes == u) for u in range(first.size)))


def invert_few(A: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Inverses (u, K, K) and log-determinants (u,) of a few symmetric positive definite matrices."""
    out, logdet = np.empty_like(A), np.empty(len(A))
    lower = np.tri(A.shape[1], k=-1, dtype=np.bool_)
    for u, each in enumerate(A):
        factor = _safe_factor(each)
        if factor is None:
            return invert_pd_batch(A)
        logdet[u] = 2.0 * float(np.log(np.diagonal(factor)).sum())
        inverse = lapack.dpotri(factor)[0]  # pyright: ignore[reportAttributeAccessIssue]
        out[u] = np.where(lower, inverse.T, inverse)
    return out, logdet


def solve_few(A: FloatArray, b: FloatArray, patterns: Patterns) -> FloatArray:
    """(n, K) solutions of A_u x = b_i, u the kind of row i; singular systems by the minimum-norm answer.

    Parameters
    ----------
    A : (U, K, K) symmetric positive semi-definite.
    b : (n, K).
    patterns : of the n rows.
    """
    out = np.empty_like(b)
    for each, rows in zip(A, patterns.members, strict=True):
        factor = _safe_factor(each)
        if factor is None:
            out[rows] = solve_psd_batch(np.repeat(each[None], rows.size, axis=0), b[rows])
        else:
            out[rows] = lapack.dpotrs(factor, b[rows].T)[0].T  # pyright: ignore[reportAttributeAccessIssue]
    return out


def _safe_factor(matrix: FloatArray) -> FloatArray | None:
    """Upper Cholesky factor, or None where a pivot is too small for it to be trusted."""
    factor, failed = lapack.dpotrf(matrix)  # pyright: ignore[reportAttributeAccessIssue]
    if failed or (np.square(np.diagonal(factor)) <= _SAFE_PIVOT * np.diagonal(matrix)).any():
        return None
    return np.asarray(factor, dtype=np.float64)
