"""Principal components of an array with missing cells, by alternating least squares on the observed cells.

Model            r_ti = a_i + f_t'b_i + e_ti over observed (t, i)      r (T, N)   B (N, K)   F (T, K)
                 a (N,), zero unless asked for
Objective        SSE = sum over observed (t, i) of (r_ti - a_i - f_t'b_i)^2. A missing cell is in no sum: it
                 is never a zero or a mean.
Sweep            f_t = (sum_i m_ti b_i b_i')^-1 sum_i m_ti b_i (r_ti - a_i),   then (a_i, b_i) by regression
                 on (1, f_t) over t with m_ti = 1. All left-hand sides at once: one product of the mask m with
                 the K(K+1)/2 products b_ij b_ik (or f_tj f_tk).
Start            leading eigenvectors of the moments over pairs available, sum_t r_ti r_tj / n_ij, on the
                 smaller of the two sides.
Acceleration     SQUAREM on (a, B). SSE with F projected out depends on span(B) only (and on a up to span(B)),
                 so B is kept orthonormal, a orthogonal to it, and each sweep's B is rotated next to the one
                 it came from. Where gaps come in few patterns (`kernels.patterns`), hundreds of sweeps shrink
                 to tens by Anderson mixing first; what it leaves undone SQUAREM does.
Stopping         sine of the largest principal angle between successive span(B): the objective is flat and
                 would stop too early.
Identification   B'B = I; with an intercept mean(F) = 0. The rotation is left open; the model fixes it.
Cost             O(T N K^2) a sweep. Complete data: one eigendecomposition instead.
References       Bailey (2012), PASP 124, 1015-1023 (weighted EM-PCA); Gabriel & Zamir (1979), Technometrics
                 21(4), 489-498; Xiong & Pelger (2023), Journal of Econometrics 233(1), 271-301 (moments over
                 pairs available).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.em import FixedPoint, anderson, squarem
from latentfactors.kernels.linalg import (
    align,
    binary_scale,
    orthonormal_basis,
    outer_products,
    period_moments,
    principal_subspace,
    solve_psd_batch,
    subspace_angle,
    top_eigenpairs,
    unpack,
)
from latentfactors.kernels.patterns import Patterns, find_patterns, solve_few

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_EXACT_FIT = 1e-27  # SSE/SST that is rounding alone, some hundred times eps^2
# eigenvalue ratio of a Gram matrix below which its period is solved by SVD: normal equations err by eps/ratio
_NORMAL_EQUATIONS = 1e-6
_MIXED = 300  # sweeps by Anderson mixing: where so many are not enough, rounding keeps throwing mixes out


@dataclass(frozen=True, eq=False)
class ALSFit:
    """Least-squares factor structure of the observed cells.

    Attributes
    ----------
    loadings : (N, K), orthonormal columns, rotation arbitrary.
    factors : (T, K), the least-squares factors given loadings and intercept; mean zero if there is an
        intercept.
    intercept : (N,), zeros if none was asked for.
    objective_path : SSE/SST, never rising; SST is about the assets' means if there is an intercept, about
        zero if not.
    n_iterations : sweeps (1 for complete data).
    converged, reason : whether the iteration met its tolerance, and the sentence that says so.
    """

    loadings: FloatArray
    factors: FloatArray
    intercept: FloatArray
    objective_path: tuple[float, ...]
    n_iterations: int
    converged: bool
    reason: str


def fit_als(
    values: FloatArray,
    n_factors: int,
    *,
    intercept: bool = False,
    tolerance: float = 1e-10,
    max_iterations: int = 5000,
) -> ALSFit:
    """Minimise the sum of squares of values - a_i - f_t'b_i over the observed cells.

    Parameters
    ----------
    values : (T, N), NaN where missing. Periods and assets with too few observations are the caller's to
        exclude; those that come nevertheless get minimum-norm answers.
    n_factors : 1 <= K <= min(T, N).
    intercept : whether each asset has a level a_i.
    tolerance : largest sine of the principal angle between successive loading spaces (and change of the
        intercept relative to the root mean square of the values) that counts as standing still.
    max_iterations : largest number of sweeps.

    Returns
    -------
    ALSFit

    Notes
    -----
    With few observations for the number of factors the problem may have no minimum: SSE then falls for ever
    while single factors grow without bound (Gillis & Glineur 2011, SIAM J. Matrix Anal. Appl. 32(4)). Such a
    fit does not converge and says so; fewer factors or probabilistic PCA (`ppca`) cure it.
    """
    observed = np.isfinite(values)
    # the model with an intercept is the same model for centred values; centring first keeps large levels out
    # of the arithmetic
    level = _observed_means(values, observed) if intercept else np.zeros(values.shape[1])
    centred = np.where(observed, values - level, 0.0)
    scale = binary_scale(np.where(observed, centred, np.nan))
    filled = centred / scale
    total = float(np.vdot(filled, filled)) or 1.0

    if observed.all():
        loadings, _ = principal_subspace(filled, n_factors)
        factors = filled @ loadings
        residual = filled - factors @ loadings.T
        path = (float(np.vdot(residual, residual)) / total,)
        return ALSFit(loadings, scale * factors, level, path, 1, True, "complete data: closed form")

    mask = observed.astype(np.float64)
    n_assets = values.shape[1]
    rows, columns = find_patterns(mask), find_patterns(mask.T)
    # the intercept travels divided by sqrt(N): its norm is then of the order of the loadings' and counts
    # alike in the steplength
    spread = math.sqrt(n_assets)

    def split(parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
        block = parameters.reshape(n_assets, -1)
        return (spread * block[:, 0], block[:, 1:]) if intercept else (np.zeros(n_assets), block)

    def join(alpha: FloatArray, loadings: FloatArray) -> FloatArray:
        return (np.column_stack([alpha / spread, loadings]) if intercept else loadings).ravel()

    def sweep(parameters: FloatArray) -> tuple[FloatArray, float]:
        alpha, given = split(parameters)
        loadings = orthonormal_basis(given)
        factors, sse = factor_step(filled, mask, loadings, alpha, rows)
        new_alpha, new_loadings = loading_step(filled, mask, factors, intercept, columns)
        basis = align(orthonormal_basis(new_loadings), given)
        return join(new_alpha - basis @ (basis.T @ new_alpha), basis), sse / total

    unit = math.sqrt(total / int(observed.sum()))

    def distance(new: FloatArray, old: FloatArray) -> float:
        (new_alpha, new_loadings), (old_alpha, old_loadings) = split(new), split(old)
        shift = float(np.linalg.norm(new_alpha - old_alpha)) / (spread * unit)
        return max(subspace_angle(new_loadings, old_loadings), shift)

    start = join(np.zeros(n_assets), start_loadings(filled, mask, n_factors))
    found = FixedPoint(start, (), 0, False, "")
    if rows is not None and columns is not None:
        most = min(_MIXED, max_iterations)
        found = anderson(
            sweep, start, distance=distance, tolerance=tolerance, max_iterations=most, floor=_EXACT_FIT
        )
    if not found.converged and found.n_iterations < max_iterations:
        former, most = found, max_iterations - found.n_iterations
        found = squarem(
            sweep,
            former.parameters,
            distance=distance,
            tolerance=tolerance,
            max_iterations=most,
            floor=_EXACT_FIT,
        )
        path = former.objective_path + found.objective_path
        found = replace(found, objective_path=path, n_iterations=former.n_iterations + found.n_iterations)
    alpha, loadings = split(found.parameters)
    factors, sse = factor_step(filled, mask, loadings, alpha)
    if intercept:
        mean = factors.mean(axis=0)
        factors, alpha = factors - mean, alpha + loadings @ mean
    return ALSFit(
        loadings=np.ascontiguousarray(loadings),
        factors=scale * factors,
        intercept=level + scale * alpha,
        objective_path=(*found.objective_path, sse / total),
        n_iterations=found.n_iterations,
        converged=found.converged,
        reason=found.reason,
    )


def factor_step(
    filled: FloatArray,
    mask: FloatArray,
    loadings: FloatArray,
    alpha: FloatArray,
    patterns: Patterns | None = None,
) -> tuple[FloatArray, float]:
    """f_t = (sum_i m_ti b_i b_i')^-1 sum_i m_ti b_i (r_ti - a_i) for all t, and the SSE that remains.

    `filled` (T, N) is zero and `mask` (T, N) is 0.0 where a cell is missing; `patterns` of its rows, where
    they are few, save time. Returns factors (T, K) and SSE.
    """
    crosses = filled @ loadings
    if alpha.any():
        crosses -= mask @ (alpha[:, None] * loadings)
    if patterns is None:
        factors = solve_psd_batch(unpack(mask @ outer_products(loadings)), crosses)
    else:
        factors = solve_few(unpack(mask[patterns.first] @ outer_products(loadings)), crosses, patterns)
    # the residuals themselves, not SST minus what is explained: the difference has no digits left when the
    # fit is nearly exact
    residual = factors @ loadings.T
    if alpha.any():
        residual += alpha
    residual *= mask
    residual -= filled
    return factors, float(np.vdot(residual, residual))


def loading_step(
    filled: FloatArray,
    mask: FloatArray,
    factors: FloatArray,
    intercept: bool,
    patterns: Patterns | None = None,
) -> tuple[FloatArray, FloatArray]:
    """(a_i, b_i) by least squares of r_ti on (1, f_t) over the observed t: a (N,) and B (N, K).

    `patterns` of the mask's columns, where they are few, save time.
    """
    design = np.column_stack([np.ones(len(factors)), factors]) if intercept else factors
    if patterns is None:
        coefficients = solve_psd_batch(unpack(mask.T @ outer_products(design)), filled.T @ design)
    else:
        grams = unpack(mask.T[patterns.first] @ outer_products(design))
        coefficients = solve_few(grams, filled.T @ design, patterns)
    if intercept:
        return coefficients[:, 0], coefficients[:, 1:]
    return np.zeros(filled.shape[1]), coefficients


def start_loadings(filled: FloatArray, mask: FloatArray, n_factors: int) -> FloatArray:
    """Orthonormal (N, K) from the leading eigenvectors of second moments averaged over the pairs available.

    Each entry of the moment matrix is a mean over the cells that both members have: unbiased whatever the
    share missing, where a zero-filled moment shrinks with it. A pair never observed together says nothing and
    gets 0, in the start only.
    """
    n_periods, n_assets = filled.shape
    by_period = n_periods < n_assets
    left, weight = (filled, mask) if by_period else (filled.T, mask.T)
    moment = (left @ left.T) / np.maximum(weight @ weight.T, 1.0)
    _, vectors = top_eigenpairs(moment, n_factors)
    if by_period:
        vectors = loading_step(filled, mask, vectors, intercept=False)[1]
    return np.linalg.qr(vectors)[0]


def observed_factors(
    values: FloatArray, loadings: FloatArray, *, min_observed: int, ratio: float = 1e-6
) -> FloatArray:
    """Least-squares factors of each period over its observed assets: f_t = (B_o'B_o)^-1 B_o'r_(t,o).

    Parameters
    ----------
    values : (T, N), NaN where missing.
    loadings : (N, K); assets with a NaN loading are left out.
    min_observed : fewer observed assets than this give a NaN row.
    ratio : smallest over largest singular value of B_o below which the period's factors are not identified: a
        NaN row.

    Returns
    -------
    (T, K). Each row depends, to the bit, on its own period only.
    """
    n_factors = loadings.shape[1]
    grams, crosses, counts = period_moments(values, loadings)
    factors = np.full(crosses.shape, np.nan)
    candidates = np.flatnonzero(counts >= max(min_observed, n_factors))
    if not candidates.size:
        return factors
    eigenvalues = np.linalg.eigvalsh(grams[candidates])
    # a ratio of 1e-6 is 1e-12 in the Gram matrix, with four digits left: clear cases by normal equations, the
    # others by SVD
    clear = eigenvalues[:, 0] > max(_NORMAL_EQUATIONS, 4.0 * ratio**2) * eigenvalues[:, -1]
    regular = candidates[clear]
    factors[regular] = solve_psd_batch(grams[regular], crosses[regular])
    known = np.isfinite(loadings).all(axis=1)
    for t in candidates[~clear]:
        seen = known & np.isfinite(values[t])
        left, singular, right = np.linalg.svd(loadings[seen], full_matrices=False)
        if singular[-1] > 0.0 and singular[-1] >= ratio * singular[0]:
            factors[t] = ((values[t, seen] @ left) / singular) @ right
    return factors


def _observed_means(values: FloatArray, observed: BoolArray) -> FloatArray:
    """Mean of each asset over its observed periods, (N,); 0 for an asset never observed."""
    return np.where(observed, values, 0.0).sum(axis=0) / np.maximum(observed.sum(axis=0), 1)
