"""Linear algebra the models share: leading eigenpairs, principal subspaces, angles, many small systems.

Principal subspace   X (T, N), X'X/T = U diag(d) U'. For T < N the T x T Gram matrix XX'/T = W diag(d) W' has
                     the same non-zero eigenvalues and span(X'W) = span(U). A Gram matrix squares the
                     condition number, so its eigenvectors only start one step of subspace iteration on X;
                     axes and eigenvalues are read off the SVD of X restricted to the result (Rayleigh-Ritz).
Subspace angle       sin(theta_max) = ||(I - QQ')P||_2. The cosine form loses every angle below sqrt(eps) =
                     1e-8; the sine does not.
Small systems        thousands of K x K systems, K about 5: a Cholesky factorisation written over the batch
                     (each operation acts on one matrix entry of all members at once) costs some 20 array
                     operations instead of one LAPACK call a member. Such operations round every member alike,
                     so a member's answer never depends, to the bit, on its neighbours.
Masked moments       sum_i m_ti x_i x_i' for every t: one product of the mask with the K(K+1)/2 distinct
                     products of x_i.
References           Golub & Van Loan (2013), Matrix Computations, 4th ed., sections 4.2, 8.1, 10.3;
                     Bjorck & Golub (1973), Mathematics of Computation 27, 579-594 (angles).
"""

from __future__ import annotations

import inspect
import math
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.linalg import lapack

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

_EPS = float(np.finfo(np.float64).eps)
_LANCZOS_SIZE = 600  # below it, a dense partial eigendecomposition is as fast
_SAFE_PIVOT = 1e-10  # a Cholesky pivot this far below its diagonal sends the member to the eigenvalue branch


def binary_scale(values: FloatArray) -> float:
    """Power of two next above the root mean square of the finite cells (1.0 if they are all zero).

    Dividing by a power of two is exact: values times 2^k give the same normalised numbers to the bit.
    """
    finite = np.isfinite(values)
    peak = float(np.max(np.abs(values), where=finite, initial=0.0))
    if peak == 0.0:
        return 1.0
    # relative to the peak, so that squares can neither overflow nor vanish
    share = np.where(finite, values, 0.0) / peak
    rms = peak * math.sqrt(float(np.vdot(share, share)) / int(finite.sum()))
    return math.ldexp(1.0, math.frexp(rms)[1])


def top_eigenpairs(moment: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """The k algebraically largest eigenpairs of a symmetric matrix.

    Parameters
    ----------
    moment : (N, N) symmetric.
    k : 1 <= k <= N.

    Returns
    -------
    eigenvalues : (k,) descending.
    eigenvectors : (N, k), orthonormal columns. Signs are not normalised.
    """
    size = moment.shape[0]
    if size > _LANCZOS_SIZE and 20 * k <= size:
        pairs = _lanczos(moment, k)
        if pairs is not None:
            return pairs
    eigenvalues, vectors = scipy.linalg.eigh(moment, subset_by_index=(size - k, size - 1))
    if eigenvalues.size < k:
        # LAPACK's bisection can lose count in a cluster of equal eigenvalues; scipy then returns none
        eigenvalues, vectors = scipy.linalg.eigh(moment, driver="evd")
        eigenvalues, vectors = eigenvalues[-k:], vectors[:, -k:]
    return eigenvalues[::-1].copy(), np.ascontiguousarray(vectors[:, ::-1])


def _lanczos(moment: FloatArray, k: int) -> tuple[FloatArray, FloatArray] | None:
    """Eigenpairs by restarted Lanczos to machine precision; None where they cannot be vouched for."""
    from scipy.sparse.linalg import ArpackError, eigsh  # not loaded by a small first fit

    size = moment.shape[0]
    # fixed start vectors without structure: nothing random, and not orthogonal to any vector that occurs
    grid = np.arange(1.0, size + 1.0)
    start, second_start = np.cos(grid * grid), np.sin(1.0 + grid * grid)
    ncv = min(size, max(20, 3 * k))
    # ARPACK draws a new vector where its Krylov space is exhausted; scipy 1.17 and later let us fix it
    fixed: dict[str, Any] = {"rng": 0} if "rng" in inspect.signature(eigsh).parameters else {}
    lanczos = partial(eigsh, which="LA", **fixed)
    try:
        eigenvalues, vectors = lanczos(moment, k=k, v0=start, ncv=ncv, maxiter=200)
        order = np.argsort(eigenvalues)[::-1]
        eigenvalues, vectors = eigenvalues[order], np.ascontiguousarray(vectors[:, order])
        size_of = float(np.max(np.abs(eigenvalues)))
        error = np.linalg.norm(moment @ vectors - vectors * eigenvalues)
        if not (size_of > 0.0 and error <= 1e-12 * size_of):
            return None
        # One start vector sees one copy of a repeated eigenvalue. What is left after deflation must not
        # exceed what was found (Ritz values are lower bounds, so a rough one, from another start vector, is
        # enough to expose a missing copy).
        deflated = moment - (vectors * eigenvalues) @ vectors.T
        rest = lanczos(
            deflated, k=1, v0=second_start, ncv=20, tol=1e-2, maxiter=50, return_eigenvectors=False
        )
    except ArpackError:
        return None
    missed = float(rest[0]) > float(eigenvalues[-1]) + 1e-12 * size_of
    return None if missed else (eigenvalues, vectors)


def principal_subspace(values: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """Principal axes of a complete array, through the smaller of its two second-moment matrices.

    Parameters
    ----------
    values : (T, N) finite.
    k : 1 <= k <= min(T, N).

    Returns
    -------
    loadings : (N, k), orthonormal columns; signs are not normalised. Beyond the rank of `values` they are an
        arbitrary completion.
    eigenvalues : (k,) of values'values/T, descending, >= 0.
    """
    n_periods, n_assets = values.shape
    scale = binary_scale(values)
    normed = values / scale
    if n_periods < n_assets:
        _, left = top_eigenpairs(normed @ normed.T, k)
        basis = np.linalg.qr(normed.T @ left)[0]
    else:
        basis = top_eigenpairs(normed.T @ normed, k)[1]
    # one step of subspace iteration on X itself, then Rayleigh-Ritz: undoes the squared condition number
    basis = np.linalg.qr(normed.T @ np.linalg.qr(normed @ basis)[0])[0]
    _, singular, right = np.linalg.svd(normed @ basis, full_matrices=False)
    return basis @ right.T, (scale * singular / math.sqrt(n_periods)) ** 2


def orthonormal_basis(a: FloatArray) -> FloatArray:
    """Q (N, K) of a = QR, N >= K, without R: faster than `numpy.linalg.qr` for thin matrices."""
    reflections, scales, _, _ = lapack.dgeqrf(a)  # pyright: ignore[reportAttributeAccessIssue]
    return np.ascontiguousarray(
        lapack.dorgqr(reflections, scales)[0]  # pyright: ignore[reportAttributeAccessIssue]
    )


def subspace_angle(p: FloatArray, q: FloatArray) -> float:
    """||(I - QQ')P||_2: sine of the largest principal angle between the column spaces of p and q, (N, K)."""
    p_basis, q_basis = orthonormal_basis(p), orthonormal_basis(q)
    outside = p_basis - q_basis @ (q_basis.T @ p_basis)
    # the largest singular value through the K x K Gram matrix: relative error eps, not its root
    return math.sqrt(max(float(np.linalg.eigvalsh(outside.T @ outside)[-1]), 0.0))


def align(basis: FloatArray, target: FloatArray) -> FloatArray:
    """`basis` (N, K) turned next to `target` (N, K): basis @ O, O'O = I, min ||basis O - target||_F."""
    left, _, right = np.linalg.svd(basis.T @ target)
    return basis @ (left @ right)


def solve_psd_batch(A: FloatArray, b: FloatArray) -> FloatArray:
    """Solve n symmetric positive semi-definite systems, the singular ones by the minimum-norm answer.

    Parameters
    ----------
    A : (n, K, K).
    b : (n, K).

    Returns
    -------
    (n, K). Eigenvalues below 4 K eps times the member's largest count as zero. A member's answer is the same,
    to the bit, in whatever batch it is solved.
    """
    size = A.shape[1]
    factor, safe = _cholesky_batch(A)
    x = [b[:, j].copy() for j in range(size)]
    for j in range(size):  # L y = b, then L' x = y
        x[j] /= factor[j][j]
        for i in range(j + 1, size):
            x[i] -= factor[i][j] * x[j]
    for j in reversed(range(size)):
        x[j] /= factor[j][j]
        for i in range(j):
            x[i] -= factor[j][i] * x[j]
    answer = np.stack(x, axis=1)
    doubtful = np.flatnonzero(~safe)
    if doubtful.size:
        eigenvalues, vectors = np.linalg.eigh(A[doubtful])
        keep = eigenvalues > 4 * size * _EPS * np.maximum(eigenvalues[:, -1:], 0.0)
        inverse = np.where(keep, 1.0 / np.where(keep, eigenvalues, 1.0), 0.0)
        projected = (vectors.transpose(0, 2, 1) @ b[doubtful, :, None])[:, :, 0]
        answer[doubtful] = (vectors @ (inverse * projected)[:, :, None])[:, :, 0]
    return answer


def invert_pd_batch(A: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Inverses (n, K, K) and log-determinants (n,) of n symmetric positive definite matrices A (n, K, K).

    For matrices such as I + G with G positive semi-definite, which cannot be singular.
    """
    size = A.shape[1]
    factor, safe = _cholesky_batch(A)
    # R = L^-1 column by column, then A^-1 = R'R
    root = np.zeros((size, size, A.shape[0]))
    for j in range(size):
        root[j, j] = 1.0 / factor[j][j]
        for i in range(j + 1, size):
            total = factor[i][j] * root[j, j]
            for m in range(j + 1, i):
                total += factor[i][m] * root[m, j]
            root[i, j] = -total / factor[i][i]
    inverse = np.empty((size, size, A.shape[0]))
    for i in range(size):
        for j in range(i + 1):
            total = root[i, i] * root[i, j]
            for m in range(i + 1, size):
                total += root[m, i] * root[m, j]
            inverse[i, j] = inverse[j, i] = total
    logdet = 2.0 * sum((np.log(factor[j][j]) for j in range(size)), np.zeros(A.shape[0]))
    answer = np.ascontiguousarray(inverse.transpose(2, 0, 1))
    doubtful = np.flatnonzero(~safe)
    if doubtful.size:
        eigenvalues, vectors = np.linalg.eigh(A[doubtful])
        # positive by assumption: what comes out below is rounding
        eigenvalues = np.maximum(eigenvalues, _EPS * eigenvalues[:, -1:])
        answer[doubtful] = (vectors / eigenvalues[:, None, :]) @ vectors.transpose(0, 2, 1)
        logdet[doubtful] = np.log(eigenvalues).sum(axis=1)
    return answer, logdet


def _cholesky_batch(A: FloatArray) -> tuple[list[list[FloatArray]], BoolArray]:
    """Lower Cholesky factors, L[i][j] of shape (n,), and which members are safely positive definite.

    The pivot of column j over the diagonal entry j is 1 - R^2 of variable j on those before it: a test of
    singularity that does not see the variables' scales. Members that fail get pivots 1, so that nothing
    divides by zero; their factor is meaningless.
    """
    n, size = A.shape[:2]
    safe = np.ones(n, dtype=np.bool_)
    factor: list[list[FloatArray]] = [[] for _ in range(size)]
    for j in range(size):
        pivot = A[:, j, j].copy()
        for m in range(j):
            pivot -= factor[j][m] * factor[j][m]
        safe &= pivot > _SAFE_PIVOT * A[:, j, j]
        root = np.sqrt(np.where(safe, pivot, 1.0))
        factor[j].append(root)
        for i in range(j + 1, size):
            entry = A[:, i, j].copy()
            for m in range(j):
                entry -= factor[i][m] * factor[j][m]
            factor[i].append(np.where(safe, entry / root, 0.0))
    return factor, safe


def outer_products(x: FloatArray) -> FloatArray:
    """x_i x_i' for the rows of x (n, K), packed: (n, K(K+1)/2), the upper triangle row by row."""
    rows, columns = _triangle(x.shape[1])
    return x[:, rows] * x[:, columns]


def pack(matrices: FloatArray) -> FloatArray:
    """Symmetric (n, K, K) to packed (n, K(K+1)/2), the upper triangle row by row."""
    rows, columns = _triangle(matrices.shape[1])
    return matrices[:, rows, columns]


def unpack(packed: FloatArray) -> FloatArray:
    """Packed (n, K(K+1)/2) to symmetric (n, K, K)."""
    return np.take(packed, _square((math.isqrt(8 * packed.shape[1] + 1) - 1) // 2), axis=1)


@cache
def _triangle(size: int) -> tuple[IntArray, IntArray]:
    """Rows and columns of the upper triangle; taken several times an iteration by everything packed."""
    rows, columns = np.triu_indices(size)
    rows.flags.writeable = columns.flags.writeable = False
    return rows, columns


def distinct_rows(mask: npt.NDArray[Any]) -> tuple[IntArray, IntArray]:
    """Of a mask (n, m), positive where seen: a row of each kind (U,), and the kind of every row (n,)."""
    if not mask.size:
        return np.arange(min(len(mask), 1)), np.zeros(len(mask), dtype=np.intp)
    bits = np.ascontiguousarray(np.packbits(mask > 0.0, axis=1))
    words = bits.view(np.dtype((np.void, bits.shape[1])))[:, 0]
    _, first, codes = np.unique(words, return_index=True, return_inverse=True)
    return first, codes


@cache
def _square(size: int) -> IntArray:
    """(K, K) places of a symmetric matrix's entries in its packed form."""
    rows, columns = _triangle(size)
    index = np.empty((size, size), dtype=np.intp)
    index[rows, columns] = index[columns, rows] = np.arange(rows.size)
    index.flags.writeable = False
    return index


def period_moments(values: FloatArray, loadings: FloatArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """B_o'B_o and B_o'r_o of every period over its observed assets, each period by products of its own.

    One product over all periods would be faster, but its rounding in one period depends on how many others
    there are; a forecast must keep every bit when later periods are cut off.

    Parameters
    ----------
    values : (T, N), NaN where missing.
    loadings : (N, K); assets with a NaN loading count as unobserved.

    Returns
    -------
    grams : (T, K, K).
    crosses : (T, K).
    counts : (T,), observed assets.
    """
    known = np.isfinite(loadings).all(axis=1)
    kept, b = values[:, known], np.ascontiguousarray(loadings[known])
    # row by row in memory, whatever the layout that came in: BLAS rounds a strided row differently
    observed = np.ascontiguousarray(np.isfinite(kept), dtype=np.float64)
    filled = np.ascontiguousarray(np.where(np.isfinite(kept), kept, 0.0))
    products = outer_products(b)
    n_periods = values.shape[0]
    crosses = np.empty((n_periods, b.shape[1]))
    for t in range(n_periods):
        np.dot(filled[t], b, out=crosses[t])
    # a period that sees what another one saw has the same product, to the bit
    first, codes = distinct_rows(observed)
    packed = np.empty((first.size, products.shape[1]))
    for row, t in zip(packed, first.tolist(), strict=True):
        np.dot(observed[t], products, out=row)
    return unpack(packed)[codes], crosses, np.isfinite(kept).sum(axis=1)
