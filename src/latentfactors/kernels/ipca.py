"""Instrumented factor structure of panel statistics: alternating least squares, finished by Newton's method.

Model            r_t = Z_t (Gamma f_t + Delta h_t) + e_t     Gamma (L, K)   f_t (K,)   Delta (L, M)
                 h_t (M,) is given: a 1 for alpha, observed factors, or nothing (M = 0)
Objective        S(Gamma, Delta) = sum_t min_f sum_i d_ti e_ti^2, a function of W_t = Z_t'D_tZ_t,
                 x_t = Z_t'D_tr_t and r_t'D_tr_t. It depends on span(Gamma) and on Delta up to span(Gamma)
                 only: f_t absorbs the rest.
Alternating      f_t = (Gamma'W_tGamma)^-1 Gamma'(x_t - W_tDelta h_t), then vec[Gamma Delta] from the normal
                 equations sum_t p_tp_t' (x) W_t = A, right side sum_t p_t (x) x_t, p_t = (f_t, h_t): one
                 product of the distinct p_tc p_td with all W_t.
                 S never rises; the error falls by a constant factor a step, which noise brings close to 1.
Newton           With f_t eliminated the Hessian of S/2 is H = A - B, B = sum_t C_t (Gamma'W_tGamma)^-1 C_t',
                 C_t[(c,l), j] = (W_tGamma)_lj p_tc - u_tl [c = j], u_t = x_t - W_t(Gamma f_t + Delta h_t), on
                 the directions N Y, N'Gamma = 0, that change the model. Replacing H by A is the alternating
                 step, so A - theta B, theta in [0, 1], damps one towards the other; theta falls until the
                 matrix is positive definite and S does not rise. Quadratic convergence: each step doubles the
                 digits, and a positive definite H at the end certifies a strict local minimum.
Chord            Once a Newton step was shorter than 1e-3, H changes by as little: its Cholesky factor serves
                 the next steps too, each of which must be ten times shorter than the one before and not
                 raise S. They need the gradient only, and their length still measures the distance left.
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
from latentfactors.kernels.sufficient import PanelStatistics, mean_diagonals

FloatArray = npt.NDArray[np.float64]

_RANK = (
    1e-12  # eigenvalue of the characteristics' correlation matrix, relative to the largest, that is rounding
)
_SLACK = 1e-13  # rise of S, as a share of the values' sum of squares, that is rounding
_NEWTON_FROM = 0.3  # sine of the angle of an alternating step below which Newton steps are tried
_WARM_UP = 8  # alternating steps after which they are tried anyway
_SHARP = 1e-3  # length of a Newton step after which its matrix serves the next steps as well
_REGULAR = 1e-7  # smallest over largest Cholesky pivot below which a matrix counts as singular
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
class _Point:
    """Gamma and Delta, the factors and S that belong to them, and the products that gave these."""

    gamma: FloatArray  # (r, K), orthonormal columns
    delta: FloatArray  # (r, M), orthogonal to gamma
    factors: FloatArray  # (T, K)
    objective: float
    W_gamma: FloatArray  # (T, r, K)
    grams: FloatArray  # (T, K, K), Gamma'W_tGamma
    left: FloatArray  # (T, r), x_t - W_tDelta h_t


@dataclass(frozen=True, eq=False)
class _Curvature:
    """Cholesky factor of H, rows and columns over `scale`, on the directions N Y."""

    N: FloatArray
    root: tuple[FloatArray, bool]
    scale: FloatArray


@dataclass(frozen=True, eq=False)
class _Descent:
    at: _Point
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
    grams, crosses, squares = statistics.grams, statistics.crosses, statistics.squares
    if equal_periods:
        share = 1.0 / statistics.counts
        grams, crosses, squares = grams * share[:, None, None], crosses * share[:, None], squares * share
    if factor_ridge or gamma_ridge:
        ridge = factor_ridge * mean_diagonals(grams) + gamma_ridge * mean_diagonals(grams).mean()
        grams = grams + ridge[:, None, None] * np.eye(statistics.n_characteristics)
    unit = np.sqrt(float(squares.sum()))
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
    gradient, curvature = certificate(problem, best.at)
    angles = [subspace_angle(lift @ each.at.gamma, lift @ best.at.gamma) for each in descents]
    return InstrumentedFit(
        gamma=(gamma := np.linalg.qr(_without(null, lift @ best.at.gamma))[0]),
        delta=_without(gamma, _without(null, lift @ best.at.delta)) * (unit / spread),
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
    delta = np.zeros((start.shape[0], problem.h.shape[1]))
    if warm and delta.size:
        delta = _without(start, gamma_step(problem, evaluate(problem, start, delta).factors)[1])
    at = evaluate(problem, start, delta)
    path, curvature = [at.objective], None
    gap, close = (0.0 if warm else 1.0), 0
    for step in range(max_iterations):
        found = None if curvature is None or gap > _SHARP else move(problem, at, curvature)
        moved = 1.0 if found is None else distance(problem, found, at)
        if found is None or moved > 0.1 * gap:
            newton, curvature = None, None
            if gap < _NEWTON_FROM or step >= _WARM_UP:
                newton, curvature = newton_step(problem, at)
            found = alternating_step(problem, at) if newton is None else newton
            moved = distance(problem, found, at)
        gap, at = moved, found
        path.append(at.objective)
        close = close + 1 if gap <= tolerance else 0
        if close == 2:
            reason = f"two successive steps moved by at most the tolerance {tolerance:g} (last {gap:.1e})"
            return _Descent(at, tuple(path), True, reason)
    reason = f"stopped after {max_iterations} iterations, still moving by {gap:.1e} (tolerance {tolerance:g})"
    return _Descent(at, tuple(path), False, reason)


def alternating_step(problem: _Problem, at: _Point) -> _Point:
    """Gamma and Delta given the factors, then the factors given these."""
    gamma, delta = gamma_step(problem, at.factors)
    gamma = _orthonormal(gamma)
    return evaluate(problem, gamma, _without(gamma, delta))


def distance(problem: _Problem, new: _Point, old: _Point) -> float:
    """Sine of the largest angle between the spaces of Gamma, or the change of Delta if that is larger."""
    moved = subspace_angle(problem.lift @ new.gamma, problem.lift @ old.gamma)
    return max(moved, float(np.linalg.norm(_without(new.gamma, old.delta) - new.delta)))


def evaluate(problem: _Problem, gamma: FloatArray, delta: FloatArray) -> _Point:
    """f_t = (Gamma'W_tGamma)^-1 Gamma'(x_t - W_tDelta h_t) for all t, and S there."""
    known = problem.h @ delta.T
    left, linear = problem.x, 0.0
    if delta.size:
        weighted = (problem.W @ known[:, :, None])[:, :, 0]
        left, linear = problem.x - weighted, float(np.vdot(known, weighted - 2.0 * problem.x))
    W_gamma = (problem.W.reshape(-1, gamma.shape[0]) @ gamma).reshape(*problem.x.shape, -1)
    grams, cross = gamma.T @ W_gamma, left @ gamma
    factors = solve_psd_batch(grams, cross)
    return _Point(gamma, delta, factors, 1.0 + linear - float(np.vdot(factors, cross)), W_gamma, grams, left)


def gamma_step(problem: _Problem, factors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gamma (r, K) and Delta (r, M): vec[Gamma Delta] = A^-1 sum_t x_t (x) p_t."""
    regressors = np.hstack([factors, problem.h])
    rank, width = problem.x.shape[1], regressors.shape[1]
    A = _blocks(_weighted_sums(problem.W, regressors))
    right = (regressors.T @ problem.x).ravel()
    # minimum norm where a regressor vanishes or repeats another one
    scale = np.sqrt(np.maximum(np.diag(A), np.finfo(float).tiny))
    try:
        factor = scipy.linalg.cho_factor(A / np.outer(scale, scale), check_finite=False)
        solution = scipy.linalg.cho_solve(factor, right / scale, check_finite=False) / scale
        diagonal = np.diag(factor[0])
        if not np.isfinite(solution).all() or diagonal.min() <= _REGULAR * diagonal.max():
            raise np.linalg.LinAlgError
    except np.linalg.LinAlgError:
        solution = np.linalg.lstsq(A / np.outer(scale, scale), right / scale, rcond=1e-13)[0] / scale
    theta = solution.reshape(width, rank).T
    return theta[:, : factors.shape[1]], theta[:, factors.shape[1] :]


def newton_system(problem: _Problem, at: _Point) -> tuple[FloatArray, FloatArray, FloatArray]:
    """N (r, r - K), A and B on the directions N Y; Y counted column by column."""
    rank, k = at.gamma.shape
    N = np.linalg.qr(at.gamma, mode="complete")[0][:, k:]
    regressors = np.hstack([at.factors, problem.h])
    A = _blocks(N.T @ _weighted_sums(problem.W, regressors) @ N)
    # C_t', the factor's index first, times a root of (Gamma'W_tGamma)^-1
    root = _inverse_roots(at.grams)
    slopes = root @ (at.W_gamma.transpose(0, 2, 1).reshape(-1, rank) @ N).reshape(-1, k, rank - k)
    C = slopes[:, :, None, :] * regressors[:, None, :, None]
    C[:, :, :k] -= root[:, :, :, None] * _residual(at, N)[:, None, None, :]
    C = C.reshape(-1, len(A))
    return N, A, C.T @ C


def descent_direction(problem: _Problem, at: _Point, N: FloatArray) -> FloatArray:
    """Minus the gradient of S/2 along N Y: vec(N' sum_t u_tp_t'), column by column."""
    return (np.hstack([at.factors, problem.h]).T @ _residual(at, N)).ravel()


def newton_step(problem: _Problem, at: _Point) -> tuple[_Point | None, _Curvature | None]:
    """The next point and what led there, or None where no damping of Newton's step lowers S."""
    if at.gamma.shape[0] == at.gamma.shape[1]:
        return at, None
    N, A, B = newton_system(problem, at)
    scale = np.sqrt(np.maximum(np.diag(A), np.finfo(float).tiny))
    for theta in (1.0, 0.95, 0.7):
        try:
            root = scipy.linalg.cho_factor((A - theta * B) / np.outer(scale, scale), check_finite=False)
        except np.linalg.LinAlgError:
            continue
        curvature = _Curvature(N, root, scale)
        found = move(problem, at, curvature)
        if found is not None:
            return found, curvature if theta == 1.0 else None
    return None, None


def move(problem: _Problem, at: _Point, curvature: _Curvature) -> _Point | None:
    """The point that the gradient at one point and the curvature there or nearby lead to, unless S rises."""
    N, k = curvature.N, at.gamma.shape[1]
    descent = descent_direction(problem, at, N) / curvature.scale
    step = scipy.linalg.cho_solve(curvature.root, descent, check_finite=False)
    Y = (step / curvature.scale).reshape(-1, N.shape[1]).T
    gamma = _orthonormal(at.gamma + N @ Y[:, :k])
    found = evaluate(problem, gamma, _without(gamma, at.delta + N @ Y[:, k:]))
    return found if found.objective <= at.objective + _SLACK else None


def certificate(problem: _Problem, at: _Point) -> tuple[float, float]:
    """Norm of the gradient, and the smallest eigenvalue of H relative to A."""
    if at.gamma.shape[0] == at.gamma.shape[1]:
        return 0.0, float("nan")
    N, A, B = newton_system(problem, at)
    gradient = descent_direction(problem, at, N)
    try:
        smallest = scipy.linalg.eigh(A - B, A, eigvals_only=True, subset_by_index=(0, 0))[0]
    except np.linalg.LinAlgError:
        smallest = 0.0
    return float(np.linalg.norm(gradient)), float(smallest)


# ------------------------------------------------------------------------------------ helpers


def _residual(at: _Point, N: FloatArray) -> FloatArray:
    """N'u_t, u_t = x_t - W_t(Gamma f_t + Delta h_t), (T, r - K)."""
    return (at.left - (at.W_gamma @ at.factors[:, :, None])[:, :, 0]) @ N


def _weighted_sums(W: FloatArray, regressors: FloatArray) -> FloatArray:
    """sum_t p_tc p_td W_t, (P(P+1)/2, r, r): c <= d, row by row."""
    return (outer_products(regressors).T @ W.reshape(len(W), -1)).reshape(-1, *W.shape[1:])


def _blocks(packed: FloatArray) -> FloatArray:
    """The symmetric matrix (P s, P s) of blocks (P(P+1)/2, s, s), given for c <= d and symmetric each."""
    size = packed.shape[1]
    blocks = unpack(packed.reshape(len(packed), -1).T)
    width = blocks.shape[1]
    blocks = blocks.reshape(size, size, width, width).transpose(2, 0, 3, 1)
    return blocks.reshape(width * size, width * size)


def _inverse_roots(grams: FloatArray) -> FloatArray:
    """R_t (T, K, K) with R_t'R_t = (Gamma'W_tGamma)^-1, of singular ones the pseudo-inverse."""
    try:
        lower = np.linalg.cholesky(grams)
        pivots = np.diagonal(lower, axis1=1, axis2=2)
        if (pivots.min(axis=1) > _REGULAR * pivots.max(axis=1)).all():
            return np.asarray(np.linalg.inv(lower), dtype=np.float64)
    except np.linalg.LinAlgError:
        pass
    eigenvalues, vectors = np.linalg.eigh(grams)
    kept = eigenvalues > _REGULAR**2 * eigenvalues[:, -1:]
    roots = np.where(kept, 1.0 / np.sqrt(np.where(kept, eigenvalues, 1.0)), 0.0)
    return roots[:, :, None] * vectors.transpose(0, 2, 1)


def _orthonormal(columns: FloatArray) -> FloatArray:
    """Gram-Schmidt: next to columns that are almost orthonormal it stays next to them, signs included."""
    basis, triangle = np.linalg.qr(columns)
    return np.asarray(basis * np.where(np.diag(triangle) < 0.0, -1.0, 1.0), dtype=np.float64)


def _without(basis: FloatArray, columns: FloatArray) -> FloatArray:
    """Columns less their projection on an orthonormal basis."""
    return columns - basis @ (basis.T @ columns)
