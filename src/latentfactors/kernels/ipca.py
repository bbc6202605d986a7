"""Instrumented factor structure of panel statistics: alternating least squares, finished by Newton's method.

Model            r_t = Z_t (Gamma f_t + Delta h_t) + e_t     Gamma (L, K)   f_t (K,)   Delta (L, M)
                 h_t (M,) is given: a 1 for alpha, observed factors, or nothing (M = 0)
Objective        S(Gamma, Delta) = sum_t min_f sum_i d_ti e_ti^2, a function of W_t = Z_t'D_tZ_t,
                 x_t = Z_t'D_tr_t and r_t'D_tr_t. It depends on span(Gamma) and on Delta up to span(Gamma)
                 only: f_t absorbs the rest.
Alternating      f_t = (Gamma'W_tGamma)^-1 Gamma'(x_t - W_tDelta h_t), then vec[Gamma Delta] (row by row) from
                 the normal equations sum_t W_t (x) p_tp_t' = A, right side sum_t x_t (x) p_t,
                 p_t = (f_t, h_t).
                 S never rises; the error falls by a constant factor a step, which noise brings close to 1.
Newton           With f_t eliminated the Hessian of S/2 is H = A - B, B = sum_t C_t (Gamma'W_tGamma)^-1 C_t',
                 C_t[(l,c), j] = (W_tGamma)_lj p_tc - u_tl [c = j], u_t = x_t - W_t(Gamma f_t + Delta h_t), on
                 the directions N Y, N'Gamma = 0, that change the model. Replacing H by A is the alternating
                 step, so A - theta B, theta in [0, 1], damps one towards the other; theta falls until the
                 matrix is positive definite and S does not rise. Quadratic convergence: each step doubles the
                 digits, and a positive definite H at the end certifies a strict local minimum.
Coordinates      Characteristics are rotated and scaled so that sum_t W_t = I: neither their units nor their
                 correlation slows the iteration. Directions in which sum_t W_t vanishes get no coefficient:
                 the minimum-norm answer.
Stopping         sine of the largest principal angle between successive span(Gamma), in the original
                 coordinates, and the change of Delta relative to the root mean square of the values: at most
                 the tolerance in two steps in a row.
Cost             O(T L^2 K) an alternating step, O(T L^2 K^2 + T L^2 K^3) a Newton step, whatever N.
References       Kelly, Pruitt & Su (2019), JFE 134(3), eqs. (6)-(8); Ruhe & Wedin (1980), SIAM Review 22(3)
                 (elimination of linear parameters).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from latentfactors.kernels.linalg import (
    outer_products,
    solve_psd_batch,
    subspace_angle,
    top_eigenpairs,
    unpack,
)
from latentfactors.kernels.rotation import fix_signs, principal_rotation
from latentfactors.kernels.sufficient import PanelStatistics, gram_factors, mean_diagonals

FloatArray = npt.NDArray[np.float64]

_RANK = (
    1e-12  # eigenvalue of the characteristics' correlation matrix, relative to the largest, that is rounding
)
_SLACK = 1e-13  # rise of S, as a share of the values' sum of squares, that is rounding
_NEWTON_FROM = 0.3  # sine of the angle of an alternating step below which Newton steps are tried
_WARM_UP = 8  # alternating steps after which they are tried anyway
_SAME = 1e-6  # angle, and share of the objective, within which two starts have met


@dataclass(frozen=True, eq=False)
class InstrumentedFit:
    """Least-squares instrumented factor structure.

    Attributes
    ----------
    gamma : (L, K), orthonormal columns, rotation arbitrary.
    delta : (L, M), orthogonal to gamma.
    objective_path : S relative to the values' sum of squares, one entry a step; never rises beyond rounding.
    n_iterations : steps of the best start.
    converged, reason : whether the iteration met its tolerance, and the sentence that says so.
    rank : of the characteristics over all periods.
    gradient : norm of the gradient of S/2 in the coordinates above, values scaled to sum of squares 1.
    curvature : smallest eigenvalue of H over that of A, in (0, 1]: 0 where the data cannot tell directions
        apart, below it a saddle point. NaN where nothing is free.
    start_spread : largest angle between the best solution and that of any other start.
    n_agreeing : starts that reached the best solution, itself included.
    """

    gamma: FloatArray
    delta: FloatArray
    objective_path: tuple[float, ...]
    n_iterations: int
    converged: bool
    reason: str
    rank: int
    gradient: float
    curvature: float
    start_spread: float
    n_agreeing: int


@dataclass(frozen=True, eq=False)
class _Problem:
    """Statistics in coordinates with sum_t W_t = I, values scaled to sum of squares 1, h to unit size."""

    W: FloatArray  # (T, r, r)
    x: FloatArray  # (T, r)
    h: FloatArray  # (T, M)
    lift: FloatArray  # (L, r), back to the original coordinates


@dataclass(frozen=True, eq=False)
class _Descent:
    gamma: FloatArray
    delta: FloatArray
    path: tuple[float, ...]
    converged: bool
    reason: str


def fit_instrumented(
    statistics: PanelStatistics,
    n_factors: int,
    *,
    given: FloatArray | None = None,
    start: FloatArray | None = None,
    equal_periods: bool = False,
    factor_ridge: float = 0.0,
    gamma_ridge: float = 0.0,
    tolerance: float = 1e-8,
    max_iterations: int = 500,
    n_starts: int = 1,
    seed: int = 0,
) -> InstrumentedFit:
    """Minimise S over span(Gamma) and Delta.

    Parameters
    ----------
    statistics : of the T periods that take part; not all values zero.
    n_factors : 1 <= K <= rank of sum_t W_t (see `instrument_rank`).
    given : (T, M) factors that are known; None: none.
    start : (L, K) to begin with instead of the principal components of managed portfolios.
    equal_periods : divide a period's statistics by its number of rows.
    factor_ridge, gamma_ridge : shares of tr(W_t)/L, and of its mean over t, added to the diagonal of W_t:
        S then includes that multiple of |Gamma f_t + Delta h_t|^2, which no rotation changes.
    tolerance, max_iterations : of the stopping rule; of each start.
    n_starts : the further ones are random subspaces drawn with `seed`.

    Returns
    -------
    InstrumentedFit
    """
    share = 1.0 / statistics.counts if equal_periods else np.ones(statistics.n_periods)
    grams = statistics.grams * share[:, None, None]
    ridge = factor_ridge * mean_diagonals(grams) + gamma_ridge * mean_diagonals(grams).mean()
    if ridge.any():
        grams += ridge[:, None, None] * np.eye(statistics.n_characteristics)
    crosses = statistics.crosses * share[:, None]
    unit = np.sqrt(float(statistics.squares @ share))
    lift, null = whitening(grams)
    rank = lift.shape[1]
    W = lift.T @ grams @ lift
    h = np.zeros((len(grams), 0)) if given is None else given
    size = np.trace(W, axis1=1, axis2=2) / rank
    spread = np.sqrt(size @ (h * h))
    problem = _Problem(W, crosses @ lift / unit, h / spread, lift)

    rng = np.random.default_rng(seed)
    if start is None:
        starts = [start_gamma(problem, size, n_factors)]
    else:
        starts = [np.linalg.qr(np.linalg.lstsq(lift, start)[0])[0]]
    starts += [np.linalg.qr(rng.normal(size=(rank, n_factors)))[0] for _ in range(n_starts - 1)]
    descents = [
        descend(problem, each, tolerance, max_iterations, warm=start is not None and each is starts[0])
        for each in starts
    ]
    best = min(descents, key=lambda each: each.path[-1])
    gradient, curvature = certificate(problem, best.gamma, best.delta)
    angles = [subspace_angle(lift @ each.gamma, lift @ best.gamma) for each in descents]
    return InstrumentedFit(
        gamma=(gamma := np.linalg.qr(_without(null, lift @ best.gamma))[0]),
        delta=_without(gamma, _without(null, lift @ best.delta)) * (unit / spread),
        objective_path=best.path,
        n_iterations=len(best.path) - 1,
        converged=best.converged,
        reason=best.reason,
        rank=rank,
        gradient=gradient,
        curvature=curvature,
        start_spread=max(angles),
        n_agreeing=sum(angle <= _SAME for angle in angles),
    )


def whitening(grams: FloatArray) -> tuple[FloatArray, FloatArray]:
    """C (L, r) with C'(sum_t W_t)C = I_r, and an orthonormal basis (L, L - r) of the kernel of sum_t W_t."""
    pooled = grams.sum(axis=0)
    size = np.sqrt(np.diag(pooled))
    size = np.where(size > 0.0, size, 1.0)
    eigenvalues, vectors = np.linalg.eigh(pooled / np.outer(size, size))
    kept = eigenvalues > _RANK * eigenvalues[-1]
    lift = vectors[:, kept] / np.sqrt(eigenvalues[kept]) / size[:, None]
    return lift, np.linalg.qr(vectors[:, ~kept] / size[:, None])[0]


def instrument_rank(grams: FloatArray) -> tuple[int, FloatArray]:
    """Rank of the characteristics over all periods, and the combinations (L, L - r) that are always zero."""
    lift, null = whitening(grams)
    return lift.shape[1], null


def start_gamma(problem: _Problem, size: FloatArray, n_factors: int) -> FloatArray:
    """Top-K eigenvectors of sum_t x_tx_t'/size_t, what h explains taken out first.

    The solution itself where every W_t is a multiple of their sum.
    """
    root = np.sqrt(np.where(size > 0.0, size, 1.0))[:, None]
    portfolios, known = problem.x / root, problem.h * root
    if known.shape[1]:
        portfolios = portfolios - known @ np.linalg.lstsq(known, portfolios)[0]
    return top_eigenpairs(portfolios.T @ portfolios, n_factors)[1]


def descend(
    problem: _Problem, start: FloatArray, tolerance: float, max_iterations: int, *, warm: bool
) -> _Descent:
    """Alternating steps, then Newton steps damped towards them, until the subspace stands still."""
    gamma, delta = start, np.zeros((start.shape[0], problem.h.shape[1]))
    if warm and delta.size:
        delta = gamma_step(problem, factor_step(problem, gamma, delta)[0])[1]
        delta = _without(gamma, delta)
    factors, objective = factor_step(problem, gamma, delta)
    path = [objective]
    gap, close = (0.0 if warm else 1.0), 0
    for step in range(max_iterations):
        found = None
        if gap < _NEWTON_FROM or step >= _WARM_UP:
            found = newton_step(problem, gamma, delta, factors, objective)
        if found is None:
            new_gamma, new_delta = gamma_step(problem, factors)
            new_gamma = np.linalg.qr(new_gamma)[0]
            new_delta = _without(new_gamma, new_delta)
            found = new_gamma, new_delta, *factor_step(problem, new_gamma, new_delta)
        moved = subspace_angle(problem.lift @ found[0], problem.lift @ gamma)
        gap = max(moved, float(np.linalg.norm(_without(found[0], delta) - found[1])))
        gamma, delta, factors, objective = found
        path.append(objective)
        close = close + 1 if gap <= tolerance else 0
        if close == 2:
            reason = f"two successive steps moved by at most the tolerance {tolerance:g} (last {gap:.1e})"
            return _Descent(gamma, delta, tuple(path), True, reason)
    reason = f"stopped after {max_iterations} iterations, still moving by {gap:.1e} (tolerance {tolerance:g})"
    return _Descent(gamma, delta, tuple(path), False, reason)


def factor_step(problem: _Problem, gamma: FloatArray, delta: FloatArray) -> tuple[FloatArray, float]:
    """f_t = (Gamma'W_tGamma)^-1 Gamma'(x_t - W_tDelta h_t) for all t, (T, K), and S."""
    known = problem.h @ delta.T
    weighted = (problem.W @ known[:, :, None])[:, :, 0] if delta.size else np.zeros_like(problem.x)
    cross = (problem.x - weighted) @ gamma
    factors = solve_psd_batch(gamma.T @ _times(problem.W, gamma), cross)
    explained = np.vdot(factors, cross)
    return factors, float(1.0 + np.vdot(known, weighted - 2.0 * problem.x) - explained)


def gamma_step(problem: _Problem, factors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gamma (r, K) and Delta (r, M): vec[Gamma Delta] = A^-1 sum_t x_t (x) p_t."""
    regressors = np.hstack([factors, problem.h])
    rank, width = problem.x.shape[1], regressors.shape[1]
    A = _kronecker(problem.W, regressors).transpose(0, 2, 1, 3).reshape(rank * width, rank * width)
    right = (problem.x.T @ regressors).ravel()
    # minimum norm where a regressor vanishes or repeats another one
    scale = np.sqrt(np.maximum(np.diag(A), np.finfo(float).tiny))
    try:
        solution = scipy.linalg.solve(A / np.outer(scale, scale), right / scale, assume_a="pos") / scale
        if not np.isfinite(solution).all():
            raise np.linalg.LinAlgError
    except (np.linalg.LinAlgError, scipy.linalg.LinAlgWarning):
        solution = np.linalg.lstsq(A / np.outer(scale, scale), right / scale, rcond=1e-13)[0] / scale
    theta = solution.reshape(rank, width)
    return theta[:, : factors.shape[1]], theta[:, factors.shape[1] :]


def newton_system(
    problem: _Problem, gamma: FloatArray, delta: FloatArray, factors: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """N (r, r - K), A, B and minus the gradient, restricted to the directions N Y; Y counted row by row."""
    rank, k = gamma.shape
    N = np.linalg.qr(gamma, mode="complete")[0][:, k:]
    regressors = np.hstack([factors, problem.h])
    n, width = rank - k, regressors.shape[1]
    W_gamma = _times(problem.W, gamma)
    coefficients = regressors @ np.hstack([gamma, delta]).T
    residual = (problem.x - (problem.W @ coefficients[:, :, None])[:, :, 0]) @ N
    A = _kronecker(problem.W, regressors).transpose(2, 3, 0, 1)
    A = (N.T @ A @ N).transpose(2, 0, 3, 1).reshape(n * width, n * width)
    # C_t' with the factor's index first, whitened by the root of (Gamma'W_tGamma)^-1
    C = (W_gamma.transpose(0, 2, 1) @ N)[:, :, :, None] * regressors[:, None, None, :]
    own = np.arange(k)
    C[:, own, :, own] -= residual
    eigenvalues, vectors = np.linalg.eigh(gamma.T @ W_gamma)
    kept = eigenvalues > 1e-14 * eigenvalues[:, -1:]
    root = vectors * np.where(kept, 1.0 / np.sqrt(np.where(kept, eigenvalues, 1.0)), 0.0)[:, None, :]
    C = (root.transpose(0, 2, 1) @ C.reshape(len(C), k, n * width)).reshape(-1, n * width)
    return N, A, C.T @ C, (residual.T @ regressors).ravel()


def newton_step(
    problem: _Problem, gamma: FloatArray, delta: FloatArray, factors: FloatArray, objective: float
) -> tuple[FloatArray, FloatArray, FloatArray, float] | None:
    """The next Gamma, Delta, factors and S, or None where no damping of Newton's step lowers S."""
    if gamma.shape[0] == gamma.shape[1]:
        return gamma, delta, factors, objective
    N, A, B, descent = newton_system(problem, gamma, delta, factors)
    scale = np.sqrt(np.maximum(np.diag(A), np.finfo(float).tiny))
    for theta in (1.0, 0.95, 0.7):
        try:
            factor = scipy.linalg.cho_factor((A - theta * B) / np.outer(scale, scale))
        except np.linalg.LinAlgError:
            continue
        step = (scipy.linalg.cho_solve(factor, descent / scale) / scale).reshape(N.shape[1], -1)
        new_gamma = np.linalg.qr(gamma + N @ step[:, : gamma.shape[1]])[0]
        new_delta = _without(new_gamma, delta + N @ step[:, gamma.shape[1] :])
        new_factors, reached = factor_step(problem, new_gamma, new_delta)
        if reached <= objective + _SLACK:
            return new_gamma, new_delta, new_factors, reached
    return None


def certificate(problem: _Problem, gamma: FloatArray, delta: FloatArray) -> tuple[float, float]:
    """Norm of the gradient, and the smallest eigenvalue of H relative to A."""
    if gamma.shape[0] == gamma.shape[1]:
        return 0.0, float("nan")
    _, A, B, descent = newton_system(problem, gamma, delta, factor_step(problem, gamma, delta)[0])
    try:
        smallest = scipy.linalg.eigh(A - B, A, eigvals_only=True, subset_by_index=(0, 0))[0]
    except np.linalg.LinAlgError:
        smallest = 0.0
    return float(np.linalg.norm(descent)), float(smallest)


# ------------------------------------------------------------------------------------ after the fit


def identify(
    fit: InstrumentedFit,
    statistics: PanelStatistics,
    given: FloatArray,
    *,
    factor_ridge: float,
    min_observed: int,
) -> tuple[FloatArray, FloatArray]:
    """Gamma (L, K) with Gamma'Gamma = I, and factors (T, K) with F'F/T diagonal, falling, means >= 0.

    With fewer than K periods that have factors nothing is rotated.
    """
    W, gamma, k = statistics.grams, fit.gamma, fit.gamma.shape[1]
    known = given @ fit.delta.T
    crosses = (statistics.crosses - (W @ known[:, :, None])[:, :, 0]) @ gamma
    grams = gamma.T @ (W @ gamma) + (factor_ridge * mean_diagonals(W))[:, None, None] * np.eye(k)
    factors = gram_factors(grams, crosses, statistics.counts, min_observed=min_observed)
    if np.isfinite(factors).all(axis=1).sum() < k:
        return gamma, factors
    loading_rotation, factor_rotation = principal_rotation(gamma, factors)
    signs = fix_signs(factors @ factor_rotation, "mean_nonnegative")
    return gamma @ loading_rotation * signs, factors @ factor_rotation * signs


def fit_metrics(
    statistics: PanelStatistics, gamma: FloatArray, delta: FloatArray, factors: FloatArray, given: FloatArray
) -> tuple[dict[str, float], float]:
    """R2 of rows and of managed portfolios x_p/n_p, total and predictive, and the residual variance.

    With c_p = Gamma f_p + Delta h_p (predictive: their means over training) the residual sum of squares of a
    period is r_p'r_p - 2c_p'x_p + c_p'W_pc_p, and that of its portfolios |x_p - W_pc_p|^2/n_p^2.
    """
    realised = np.isfinite(factors).all(axis=1)
    kept, f, h = statistics.take(realised), factors[realised], given[realised]
    x, n = kept.crosses, kept.counts[:, None]
    total, portfolios = float(kept.squares.sum()), float(np.square(x / n).sum())
    coefficients = f @ gamma.T + h @ delta.T
    metrics, left = {}, []
    for name, c in (("total", coefficients), ("predictive", coefficients.mean(axis=0) + 0.0 * x)):
        fitted = (kept.grams @ c[:, :, None])[:, :, 0]
        left.append(max(total + float(np.vdot(c, fitted - 2.0 * x)), 0.0))
        metrics[f"{name}_r2"] = 1.0 - left[-1] / total
        metrics[f"managed_{name}_r2"] = 1.0 - float(np.square((x - fitted) / n).sum()) / portfolios
    free = f.size + (gamma.shape[0] - gamma.shape[1]) * (gamma.shape[1] + delta.shape[1])
    return metrics, left[0] / max(int(kept.counts.sum()) - free, 1)


# ------------------------------------------------------------------------------------ helpers


def _times(W: FloatArray, gamma: FloatArray) -> FloatArray:
    """W_t Gamma for all t as one product, (T, r, K)."""
    return (W.reshape(-1, W.shape[2]) @ gamma).reshape(*W.shape[:2], -1)


def _kronecker(W: FloatArray, regressors: FloatArray) -> FloatArray:
    """sum_t W_t[a, b] p_tc p_td, (r, r, P, P)."""
    rank = W.shape[1]
    summed = W.reshape(len(W), -1).T @ outer_products(regressors)
    return unpack(summed).reshape(rank, rank, regressors.shape[1], -1)


def _without(basis: FloatArray, columns: FloatArray) -> FloatArray:
    """Columns less their projection on an orthonormal basis."""
    return columns - basis @ (basis.T @ columns)
