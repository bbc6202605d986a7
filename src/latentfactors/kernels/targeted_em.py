"""Targeted probabilistic factors with missing cells: exact EM for any pattern, and with moving variances.

Model            z_tj = l_j'f_t + e_tj, the first p series with noise variance s_x^2, the others with s_y^2
E                G_t = I + sum_{j observed} l_j l_j'/s_j,  Omega_t = G_t^-1,
                 m_t = Omega_t sum_{j observed} l_j z_tj/s_j:  all G_t by one product (T, d) (d, k(k+1)/2)
M                l_j = (sum_{t: j observed} (Omega_t + m_t m_t'))^-1 sum_{t: j observed} m_t z_tj,
                 s_x^2 = mean over observed cells of (z_tj - l_j'm_t)^2 + l_j'Omega_t l_j, s_y^2 alike,
                 L <- L V^1/2, V = mean_t (Omega_t + m_t m_t') (parameter expansion: f_t ~ N(0, V))
Fixed ratio      s_x = rho s_y imposed: s_x^2 = (SSE_x + rho^2 SSE_y)/(n_x + n_y)
Start            the complete-data solution of the pairwise second moments; nothing is imputed
Moving variances s_x^2(t) = lambda s_x^2(t-1) + (1 - lambda) v_x(t-1), v_x(t) the mean over period t's
                 observed predictors of (z_tj - l_j'm_t)^2 + l_j'Omega_t l_j; s_x^2(1) is the pooled
                 variance, s_y^2 alike; loadings are weighted by 1/s^2(t). A variance is known before its
                 period, so the likelihood is the product of N(0, L L' + diag s^2(t)). Iterating this to a
                 fixed point is no EM: the variances do not maximise anything, and the likelihood may fall on
                 the way. lambda = 1 is the static model. lambda = 0 would let one well-fitted period take
                 over
Cost             O(T d k^2) an iteration, accelerated by SQUAREM
References       Herculano & Montoya-Blandon (2026), algorithms 2 and 4, with the pattern of missing cells
                 kept in Omega_t and the loadings weighted; Dempster, Laird & Rubin (1977), JRSS B 39(1),
                 1-38; Liu, Rubin & Wu (1998), Biometrika 85(4), 755-770; RiskMetrics (1996), technical
                 document, 4th ed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.em import squarem
from latentfactors.kernels.linalg import outer_products, pack, period_moments, solve_psd_batch, unpack
from latentfactors.kernels.patterns import Patterns, find_patterns, solve_few
from latentfactors.kernels.targeted import (
    NOISE_FLOOR,
    TargetedFit,
    fit_complete,
    identify,
    profile_fit,
)
from latentfactors.kernels.targeted_posterior import noise_by_series, posterior_moments
from latentfactors.kernels.targeted_profile import partial_profile

FloatArray = npt.NDArray[np.float64]

_START_RATIOS = np.linspace(-2.4, 2.4, 9)


def fit_targeted(
    x: FloatArray,
    y: FloatArray,
    n_factors: int,
    *,
    ratio: float | None = None,
    start: TargetedFit | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 3000,
) -> TargetedFit:
    """Maximum-likelihood loadings and noise variances of zero-mean data, complete or with missing cells.

    Parameters
    ----------
    x : (T, p) predictors, NaN where missing.
    y : (T, q) targets, NaN where missing.
    n_factors : 1 <= k < p + q.
    ratio : s_x/s_y imposed; None estimates it.
    start : parameters to start from, for missing cells; None takes them from pairwise second moments.
    tolerance : stop when neither the loadings (relative to their norm) nor log variances move by more.
    max_iterations : largest number of EM steps.

    Returns
    -------
    TargetedFit
        Identified; `boundary` names a noise variance that ended near its floor.
    """
    seen = np.isfinite(x).any(axis=1) | np.isfinite(y).any(axis=1)
    x, y = x[seen], y[seen]
    if np.isfinite(x).all() and np.isfinite(y).all() and len(x) > n_factors:
        return fit_complete(x, y, n_factors, ratio=ratio)
    p, shape = x.shape[1], (x.shape[1] + y.shape[1], n_factors)
    filled, mask = fill(np.hstack([x, y]))
    patterns = find_patterns(mask), find_patterns(mask.T)
    floor = NOISE_FLOOR * float(np.vdot(filled, filled)) / float(mask.sum())
    if start is None:
        start = start_values(filled, mask, p, n_factors, floor, ratio)

    def split(parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
        # extrapolated logarithms may be anything; the bounds keep exp finite and the guard judges the rest
        variances = np.maximum(np.exp(np.minimum(parameters[-2:], 300.0)), floor)
        return parameters[:-2].reshape(shape), variances

    def step(parameters: FloatArray) -> tuple[FloatArray, float]:
        given, variances = split(parameters)
        # in principal axes G_t is graded, which a Cholesky factorisation forgives
        noise = noise_by_series(float(variances[0]), float(variances[1]), p, shape[0])
        axes = np.linalg.svd(given / np.sqrt(noise)[:, None], full_matrices=False)[2]
        loadings, variances, loglikelihood = em_step(
            filled, mask, given @ axes.T, variances, p, floor, ratio, patterns
        )
        return np.append((loadings @ axes).ravel(), np.log(variances)), -loglikelihood

    def distance(new: FloatArray, old: FloatArray) -> float:
        size = float(np.linalg.norm(new[:-2])) or 1.0
        moved = np.abs(new[-2:] - old[-2:])
        # a variance on its way to the boundary moves for ever without consequence
        moved = moved[np.maximum(new[-2:], old[-2:]) > math.log(100.0 * floor)]
        return max(float(np.linalg.norm(new[:-2] - old[:-2])) / size, float(moved.max(initial=0.0)))

    variances = np.array([start.x_variance, start.y_variance])
    found = squarem(
        step,
        np.append(start.loadings.ravel(), np.log(variances)),
        distance=distance,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    loadings, variances = split(found.parameters)
    low = variances <= 1e3 * floor
    reason = found.reason
    boundary = "xy" if low.all() else "x" if low[0] else "y" if low[1] else ""
    if boundary:
        reason += f"; Heywood case, the noise variance of {' and '.join(boundary)} goes to zero"
    fit = identify(TargetedFit(loadings, p, float(variances[0]), float(variances[1]), math.nan))
    last = posterior_moments(filled, mask, fit.loadings, fit.noise)[2]
    return replace(
        fit,
        loglikelihood=last,
        objective_path=tuple(-objective for objective in (*found.objective_path, -last)),
        n_iterations=found.n_iterations,
        converged=found.converged,
        reason=reason,
        boundary=boundary,
    )


def fill(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Values with zeros where missing, and the mask (1.0 where observed)."""
    observed = np.isfinite(values)
    return np.where(observed, values, 0.0), observed.astype(np.float64)


def em_step(
    filled: FloatArray,
    mask: FloatArray,
    loadings: FloatArray,
    variances: FloatArray,
    n_predictors: int,
    floor: float,
    ratio: float | None = None,
    patterns: tuple[Patterns | None, Patterns | None] = (None, None),
) -> tuple[FloatArray, FloatArray, float]:
    """One EM step: loadings (d, k), variances (s_x^2, s_y^2), and the log-likelihood of what was given.

    `patterns` of the mask's rows and of its columns, where they are few, save time and change nothing else.
    """
    p, d = n_predictors, len(loadings)
    noise = noise_by_series(float(variances[0]), float(variances[1]), p, d)
    rows, columns = patterns
    means, covariances, loglikelihood = posterior_moments(filled, mask, loadings, noise, rows)
    second = covariances + means[:, :, None] * means[:, None, :]
    crosses = filled.T @ means
    if columns is None:
        loadings = solve_psd_batch(unpack(mask.T @ pack(second)), crosses)
    else:
        loadings = solve_few(unpack(mask.T[columns.first] @ pack(second)), crosses, columns)
    # at the optimal l_j, squared residuals plus l_j'Omega l_j sum to z_j'z_j - l_j'(sum_t m_t z_tj)
    errors = np.einsum("tj,tj->j", filled, filled) - np.einsum("jk,jk->j", loadings, crosses)
    cells = mask.sum(axis=0)
    sums = np.array([[each[:p].sum(), each[p:].sum()] for each in (errors, cells)])
    if ratio is None:
        updated = sums[0] / np.maximum(sums[1], 1.0)
    else:
        weights = np.array([1.0, ratio**2])
        updated = float(weights @ sums[0]) / float(sums[1].sum()) / weights
    # the symmetric root, because it commutes with rotations of the factors where a triangular one does not
    spread, axes = np.linalg.eigh(second.mean(axis=0))
    loadings = loadings @ ((axes * np.sqrt(np.maximum(spread, 0.0))) @ axes.T)
    return loadings, np.maximum(updated, floor), loglikelihood


def start_values(
    filled: FloatArray,
    mask: FloatArray,
    n_predictors: int,
    n_factors: int,
    floor: float,
    ratio: float | None,
) -> TargetedFit:
    """The complete-data solution of the pairwise second moments, with noise that EM can move."""
    together = mask.T @ mask
    moment = filled.T @ filled / np.maximum(together, 1.0)
    # a pair that hardly meets would get a covariance out of chance: shrink it by what it lacks
    moment *= together / (together + 3.0 * (together > 0.0))
    np.fill_diagonal(moment, np.square(filled).sum(axis=0) / np.maximum(np.diagonal(together), 1.0))
    least = 1e-3 * float(np.diagonal(moment).mean())
    at = partial_profile(moment, n_predictors, n_factors, max(least, floor))
    ratios = _START_RATIOS if ratio is None else np.array([math.log(ratio)])
    best = min(at(ratios), key=lambda each: each.value)
    return profile_fit(best, n_predictors, max(least, floor))


# ------------------------------------------------------------------------------------ moving variances


@dataclass(frozen=True, eq=False)
class MovingFit:
    """A targeted model whose noise variances move.

    Attributes
    ----------
    fit : loadings; `x_variance` and `y_variance` are those of the first period (the pooled ones).
    x_path, y_path : (T,) s_x^2(t) and s_y^2(t).
    """

    fit: TargetedFit
    x_path: FloatArray
    y_path: FloatArray


def fit_moving(
    x: FloatArray,
    y: FloatArray,
    start: TargetedFit,
    decays: tuple[float, float],
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
) -> MovingFit:
    """Loadings weighted by exponentially smoothed noise variances, iterated to a fixed point.

    Parameters
    ----------
    x, y : (T, p) and (T, q), zero mean, NaN where missing, in the order of time.
    start : the static fit.
    decays : lambda of the predictors' and the targets' variance, in (0, 1].
    tolerance : stop when loadings and log variances move by at most this.
    max_iterations : most iterations.
    """
    p, (filled, mask) = x.shape[1], fill(np.hstack([x, y]))
    n_periods, d = filled.shape
    floor = NOISE_FLOOR * float(np.vdot(filled, filled)) / float(mask.sum())
    loadings = start.loadings
    paths = np.tile([max(start.x_variance, floor), max(start.y_variance, floor)], (n_periods, 1))
    path: list[float] = []
    moved, converged, n = math.inf, False, 0
    group = np.repeat([0, 1], [p, d - p])
    while n < max_iterations and not converged:
        n += 1
        noise = paths[:, group]
        means, covariances, loglikelihood = posterior_moments(filled, mask, loadings, noise)
        path.append(loglikelihood)
        second = covariances + means[:, :, None] * means[:, None, :]
        precision = mask / noise
        following = solve_psd_batch(unpack(precision.T @ pack(second)), (filled * precision).T @ means)
        errors = mask * (filled - means @ following.T) ** 2
        errors += mask * (pack(covariances) * _twice(loadings.shape[1]) @ outer_products(following).T)
        new_paths = np.column_stack(
            [
                smoothed_path(errors[:, part].sum(axis=1), mask[:, part].sum(axis=1), decay, floor)
                for part, decay in zip((slice(0, p), slice(p, d)), decays, strict=True)
            ]
        )
        moved = max(
            float(np.linalg.norm(following - loadings) / max(np.linalg.norm(following), 1e-300)),
            float(np.abs(np.log(new_paths / paths)).max()),
        )
        loadings, paths = following, new_paths
        converged = moved <= tolerance
    last = posterior_moments(filled, mask, loadings, paths[:, group])[2]
    reason = f"fixed point of the smoothed variances (no EM): moved by {moved:.1e} after {n} iterations"
    fit = TargetedFit(
        loadings, p, float(paths[0, 0]), float(paths[0, 1]), last, (*path, last), n, converged, reason
    )
    return MovingFit(identify(fit), paths[:, 0], paths[:, 1])


def _twice(k: int) -> FloatArray:
    """Weights that turn a sum over the upper triangle into one over the whole matrix."""
    rows, columns = np.triu_indices(k)
    return np.where(rows == columns, 1.0, 2.0)


def smoothed_path(sums: FloatArray, counts: FloatArray, decay: float, floor: float) -> FloatArray:
    """s^2(t) (T,) from sums of squares and numbers of cells; a period without cells moves nothing."""
    path, level = np.empty(len(sums)), max(float(sums.sum()) / max(float(counts.sum()), 1.0), floor)
    for t in range(len(sums)):
        path[t] = level
        if counts[t] > 0.0:
            level = max(decay * level + (1.0 - decay) * float(sums[t] / counts[t]), floor)
    return path


def filter_moving(
    values: FloatArray,
    loadings: FloatArray,
    n_predictors: int,
    start: tuple[float, float],
    decays: tuple[float, float],
    *,
    joint: bool = False,
) -> FloatArray:
    """(T, 2) s_x^2(t) and s_y^2(t), each from earlier rows only, plus one row for the period after the last.

    s_x^2 moves with what x leaves unexplained given x (`joint`: given x and y), s_y^2 with what y leaves
    given both: either is an unbiased estimate of the period's variance under the model.

    Parameters
    ----------
    values : (T, d), NaN where missing.
    start : both variances before the first row.
    """
    k, p = loadings.shape[1], n_predictors
    parts = (slice(0, p), slice(p, None))
    moments = [period_moments(values[:, part], loadings[part]) for part in parts]
    squares = [np.nansum(np.square(values[:, part]), axis=1) for part in parts]
    out = np.empty((len(values) + 1, 2))
    out[0] = start
    floor = NOISE_FLOOR * min(start)
    for t in range(len(values)):
        level = out[t].copy()
        (gram_x, cross_x), (gram_y, cross_y) = [(each[0][t], each[1][t]) for each in moments]
        information, weighted = np.eye(k) + gram_x / level[0], cross_x / level[0]
        both = information + gram_y / level[1], weighted + cross_y / level[1]
        for group, given in ((0, both if joint else (information, weighted)), (1, both)):
            cells = int(moments[group][2][t])
            if not cells:
                continue
            covariance = np.linalg.inv(given[0])
            mean = covariance @ given[1]
            gram, cross = moments[group][0][t], moments[group][1][t]
            error = float(squares[group][t] - 2.0 * mean @ cross + mean @ gram @ mean)
            error = max(error, 0.0) + float(np.vdot(gram, covariance))
            level[group] = decays[group] * level[group] + (1.0 - decays[group]) * error / cells
        out[t + 1] = np.maximum(level, floor)
    return out
