"""Targeted probabilistic factors with complete data: maximum likelihood by one eigenproblem a noise ratio.

Model            z_t = [x_t; y_t] = L f_t + e_t,   L = [P; Q] (d, k),   f_t ~ N(0, I_k),
                 e_x ~ N(0, s_x^2 I_p),  e_y ~ N(0, s_y^2 I_q),  d = p + q
Profile          with rho = s_x/s_y and D = diag(1_p, rho 1_q), D z_t is probabilistic PCA with one noise
                 variance. With B(rho) = D S D, S = Z'Z/T, and its leading eigenpairs (mu_j, u_j):
                 s_x^2 = (tr B - sum mu_j)/(d - k),   D L = U (mu - s_x^2)^1/2,
                 F(rho) = (d - k) log s_x^2 + sum log mu_j - 2 q log rho,
                 log-likelihood = -T/2 (F + d + d log 2 pi),
                 dF/dlog rho = 2 {(rho^2 tr S_yy - sum mu_j |u_jy|^2)/s_x^2 + sum |u_jy|^2 - q}
                 so the maximum over all parameters is the minimum of F over one number.
Search           F has several minima, some of them narrow: a grid of log rho, carried on outwards as long as
                 F falls, is refined where its cubic interpolant may hide a lower value; the brackets left are
                 closed in on by the root of the derivative (Brent).
Boundary         s_y -> 0 (a Heywood case): for k >= q targets become factors and F has the finite limit
                 (d - k) log s_x^2 + log|S_yy| + sum_{j <= k - q} log lam_j,  s_x^2 and lam from S_xx.y,
                 the moment of x after regression on y. For k >= p the same with x and y exchanged. Where a
                 limit is the lowest, it is the answer, flagged, with the noise variance at its floor.
Identification   L_w = D L is returned with L_w'L_w/s_x^2 = P'P/s_x^2 + Q'Q/s_y^2 diagonal, descending; the
                 first target's loading on every factor is positive.
Cost             S once, or for T < d the two T x T Gram matrices; then about 25 partial eigenproblems.
References       Herculano & Montoya-Blandon (2026), probabilistic targeted factor analysis; Tipping & Bishop
                 (1999), JRSS B 61(3), 611-622, eqs. (7)-(8); Lawley & Maxwell (1971), Factor Analysis as a
                 Statistical Method, section 4.6 (Heywood cases).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.linalg import principal_subspace, top_eigenpairs
from latentfactors.kernels.rotation import fix_signs
from latentfactors.kernels.targeted_posterior import noise_by_series, posterior_moments

FloatArray = npt.NDArray[np.float64]

NOISE_FLOOR = 1e-10  # of the mean square: what stands for a noise variance of zero
_LOG_RATIOS = np.linspace(-4.4, 4.4, 12)
_NINTHS = np.linspace(0.0, 1.0, 9)[1:-1]
_HERMITE = np.column_stack(
    [
        (1.0 + 2.0 * _NINTHS) * (1.0 - _NINTHS) ** 2,
        _NINTHS * (1.0 - _NINTHS) ** 2,
        _NINTHS**2 * (3.0 - 2.0 * _NINTHS),
        _NINTHS**2 * (_NINTHS - 1.0),
    ]
)
_NARROW = 0.06  # of log rho: no interval is halved below it
_MOST = 150  # evaluations of F
_EDGE = math.log(1e4)  # beyond this ratio of standard deviations only the limit is left
_FAR = 7.0  # from here on rounding moves F as much as the ratio does: the limit speaks
_TOLERANCE = 1e-7  # of log rho: the likelihood is then within 1e-14 of its maximum
_SMALL = 40
_LANCZOS_SIZE = 300
_LANCZOS_TOLERANCE: Any = 1e-9  # SciPy's stubs say int


@dataclass(frozen=True, eq=False)
class TargetedFit:
    """Parameters of a targeted factor model, identified, and how they were found.

    Attributes
    ----------
    loadings : (p + q, k), predictors first.
    n_predictors : p.
    x_variance, y_variance : s_x^2 and s_y^2, at least 1e-10 of the mean square.
    loglikelihood : of the observed cells.
    objective_path : log-likelihoods on the way, the last one `loglikelihood`.
    n_iterations : eigenproblems or EM steps.
    converged, reason : whether the search met its tolerance, and the sentence that says so.
    boundary : "x" or "y" where that noise variance is held at its floor (a Heywood case), else "".
    """

    loadings: FloatArray
    n_predictors: int
    x_variance: float
    y_variance: float
    loglikelihood: float
    objective_path: tuple[float, ...] = ()
    n_iterations: int = 0
    converged: bool = True
    reason: str = ""
    boundary: str = ""

    @property
    def noise(self) -> FloatArray:
        """(p + q,) noise variance of every series."""
        return noise_by_series(self.x_variance, self.y_variance, self.n_predictors, self.loadings.shape[0])


@dataclass(frozen=True, eq=False)
class Profile:
    """F and dF/dlog rho at one log rho, with what they were made of.

    Attributes
    ----------
    value, slope : F, dF/dlog rho.
    noise : s_x^2.
    eigenvalues : (k,) mu.
    axes : (d, k) u_j of B(rho).
    """

    log_ratio: float
    value: float
    slope: float
    noise: float
    eigenvalues: FloatArray
    axes: FloatArray


def fit_complete(x: FloatArray, y: FloatArray, n_factors: int, *, ratio: float | None = None) -> TargetedFit:
    """Maximum-likelihood loadings and noise variances of complete zero-mean data.

    Parameters
    ----------
    x : (T, p) predictors, mean zero.
    y : (T, q) targets, mean zero.
    n_factors : 1 <= k < min(T, p + q).
    ratio : s_x/s_y imposed; None estimates it.

    Returns
    -------
    TargetedFit

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> f = rng.normal(size=(500, 2))
    >>> x, y = (f @ rng.normal(size=(2, n)) + s * rng.normal(size=(500, n)) for n, s in ((9, 1.0), (3, 0.5)))
    >>> fit = fit_complete(x, y, 2)
    >>> round(fit.x_variance, 1), round(fit.y_variance, 1)
    (1.0, 0.2)
    """
    n_periods, p, q = len(x), x.shape[1], y.shape[1]
    at = profile_function(x, y, n_factors)
    if ratio is not None:
        best, n_evaluations, sure = at(math.log(ratio)), 1, True
        reason = f"ratio of noise standard deviations imposed: {ratio:g}"
    else:
        best, n_evaluations, sure = _search(at)
        reason = f"exact maximum over the noise ratio, {n_evaluations} eigenproblems"
    value, boundary = best.value, ""
    if ratio is None:
        for side, limit in _limits(x, y, n_factors).items():
            at_edge = abs(best.log_ratio) > _FAR and (side == "y") == (best.log_ratio > 0.0)
            if limit < value or at_edge:
                value, boundary = limit, side
    floor = _floor(x, y)
    if boundary:
        fit = limit_fit(x, y, n_factors, boundary, floor)
    else:
        fit, noise = profile_fit(best, p, floor), best.noise
        if noise == floor:
            reason += "; the factors reproduce the data, the noise variances are held at their floor"
        if abs(best.log_ratio) > _FAR and ratio is None:
            boundary = "y" if best.log_ratio > 0.0 else "x"
    if boundary:
        reason += f"; Heywood case, the noise variance of {boundary} goes to zero"
    fit = identify(fit)
    # far out B(rho) is badly scaled and its eigenvalues have lost digits
    if boundary or abs(best.log_ratio) > 3.0 or min(fit.x_variance, fit.y_variance) == floor:
        filled, mask = np.hstack([x, y]), np.ones((n_periods, p + q))
        reached = posterior_moments(filled, mask, fit.loadings, fit.noise)[2]
    else:
        reached = -0.5 * n_periods * (value + (p + q) * (1.0 + math.log(2.0 * math.pi)))
    return replace(
        fit,
        loglikelihood=reached,
        objective_path=(reached,),
        n_iterations=n_evaluations,
        converged=sure,
        reason=reason,
        boundary=boundary,
    )


def profile_function(x: FloatArray, y: FloatArray, n_factors: int) -> Callable[[float], Profile]:
    """F and its derivative as a function of log rho, through the smaller of the two moment matrices."""
    n_periods, p = x.shape
    z, floor = np.hstack([x, y]), _floor(x, y)
    if n_periods >= z.shape[1]:
        return moment_profile(z.T @ z / n_periods, p, n_factors, floor)
    gram_x, gram_y = x @ x.T / n_periods, y @ y.T / n_periods
    traces = float(np.trace(gram_x)), float(np.trace(gram_y))
    start: list[FloatArray] = []

    def at(log_ratio: float) -> Profile:
        rho = math.exp(log_ratio)
        mu, left = _leading(gram_x + rho * rho * gram_y, n_factors, start)
        axes = z.T @ (left / np.sqrt(n_periods * np.maximum(mu, 1e-300)))
        axes[p:] *= rho
        return _profile(log_ratio, mu, axes, traces, p, floor)

    return at


def moment_profile(
    moment: FloatArray, n_predictors: int, n_factors: int, floor: float
) -> Callable[[float], Profile]:
    """F and its derivative from S (d, d); noise variances are held at `floor`."""
    p, d = n_predictors, len(moment)
    diagonal = np.diagonal(moment)
    traces = float(diagonal[:p].sum()), float(diagonal[p:].sum())
    start: list[FloatArray] = []

    def at(log_ratio: float) -> Profile:
        weights = np.ones(d)
        weights[p:] = math.exp(log_ratio)
        mu, axes = _leading(weights[:, None] * moment * weights, n_factors, start)
        return _profile(log_ratio, mu, axes, traces, p, floor)

    return at


def _profile(
    log_ratio: float,
    mu: FloatArray,
    axes: FloatArray,
    traces: tuple[float, float],
    p: int,
    floor: float,
) -> Profile:
    d, k = axes.shape
    q, trace_y = d - p, math.exp(2.0 * log_ratio) * traces[1]
    noise = max((traces[0] + trace_y - float(mu.sum())) / (d - k), floor)
    mu = np.maximum(mu, noise)
    weight_y = np.square(axes[p:]).sum(axis=0)
    value = (d - k) * math.log(noise) + float(np.log(mu).sum()) - 2.0 * q * log_ratio
    slope = (trace_y - float(mu @ weight_y)) / noise + float(weight_y.sum()) - q
    return Profile(log_ratio, value, 2.0 * slope, noise, mu, axes)


def _leading(moment: FloatArray, k: int, start: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Leading eigenpairs; large matrices by Lanczos from the sum of the eigenvectors found last."""
    size = moment.shape[0]
    if size <= _SMALL:  # where the wrapper of a partial solver costs more than the whole decomposition
        mu, vectors = np.linalg.eigh(moment)
        return mu[: -k - 1 : -1], vectors[:, : -k - 1 : -1]
    if size < _LANCZOS_SIZE or 10 * k > size:
        return top_eigenpairs(moment, k)
    from scipy.sparse.linalg import ArpackError, eigsh  # not loaded by a small fit

    first = start[-1] if start else np.cos(np.arange(1.0, size + 1.0) ** 2)
    try:
        mu, vectors = eigsh(moment, k=k, which="LA", v0=first, ncv=max(20, 3 * k), tol=_LANCZOS_TOLERANCE)
    except ArpackError:
        return top_eigenpairs(moment, k)
    order = np.argsort(mu)[::-1]
    start[:] = [vectors.sum(axis=1)]
    return mu[order], np.ascontiguousarray(vectors[:, order])


def _search(at: Callable[[float], Profile]) -> tuple[Profile, int, bool]:
    """The lowest F over log rho, evaluations used, and whether its bracket was closed.

    F bends sharply where a target's eigenvalue passes the k-th one, so two minima can lie close together. An
    interval is halved as long as the cubic through its ends' values and slopes, less what that cubic has been
    found wrong by, promises a value below the best one.
    """
    from scipy.optimize import brentq  # scipy.optimize is not loaded before it is used

    grid = [at(float(log_ratio)) for log_ratio in _LOG_RATIOS]
    step = 2.0 * float(_LOG_RATIOS[1] - _LOG_RATIOS[0])
    while grid[0].slope > 0.0 and grid[0].log_ratio > -_EDGE:
        grid.insert(0, at(max(grid[0].log_ratio - step, -_EDGE)))
    while grid[-1].slope < 0.0 and grid[-1].log_ratio < _EDGE:
        grid.append(at(min(grid[-1].log_ratio + step, _EDGE)))
    n_evaluations, best = len(grid), min(grid, key=_value)
    waiting = [(_promise(a, b, 0.0), a, b) for a, b in pairwise(grid)]
    brackets: list[tuple[Profile, Profile]] = []
    while waiting:
        waiting.sort(key=lambda each: -each[0])
        promise, a, b = waiting.pop()
        if promise >= best.value or b.log_ratio - a.log_ratio < _NARROW or n_evaluations >= _MOST:
            brackets.append((a, b))
            continue
        middle = at(0.5 * (a.log_ratio + b.log_ratio))
        n_evaluations += 1
        best = min(best, middle, key=_value)
        width = b.log_ratio - a.log_ratio
        error = abs(middle.value - 0.5 * (a.value + b.value) - width * (a.slope - b.slope) / 8.0)
        # of a smooth function a half as wide interval's cubic is 16 times as good; 8 is on the safe side
        waiting += [(_promise(*ends, error / 8.0), *ends) for ends in ((a, middle), (middle, b))]
    found: list[Profile] = []

    def slope(log_ratio: float) -> float:
        found.append(at(log_ratio))
        return found[-1].slope

    rising = [ends for ends in brackets if ends[0].slope < 0.0 < ends[1].slope]
    lowest = min((_cubic_minimum(*ends) for ends in rising), default=math.inf)
    for a, b in rising:
        if _cubic_minimum(a, b) <= min(lowest + 1e-3, best.value + 1e-12):
            brentq(slope, a.log_ratio, b.log_ratio, xtol=_TOLERANCE)
            best = min([best, *found], key=_value)
            n_evaluations += len(found)
            found.clear()
    return best, n_evaluations, n_evaluations < _MOST


def profile_fit(best: Profile, n_predictors: int, floor: float) -> TargetedFit:
    """D L = U (mu - s_x^2)^1/2 as parameters; the likelihood is left open."""
    rho = math.exp(best.log_ratio)
    loadings = best.axes * np.sqrt(np.maximum(best.eigenvalues - best.noise, 0.0))
    loadings[n_predictors:] /= rho
    return TargetedFit(loadings, n_predictors, best.noise, max(best.noise / rho**2, floor), math.nan)


def _value(profile: Profile) -> float:
    return profile.value


def _cubic_minimum(a: Profile, b: Profile) -> float:
    """Smallest of nine equidistant values of the cubic with the values and slopes of both ends."""
    width = b.log_ratio - a.log_ratio
    inside = _HERMITE @ (a.value, width * a.slope, b.value, width * b.slope)
    return min(float(inside.min()), a.value, b.value)


def _promise(a: Profile, b: Profile, error: float) -> float:
    """What an interval may still hide: the cubic's minimum less ten times the larger of two misfits."""
    width = b.log_ratio - a.log_ratio
    misfit = abs(b.value - a.value - 0.5 * width * (a.slope + b.slope))
    return _cubic_minimum(a, b) - 10.0 * max(misfit, error)


def _limits(x: FloatArray, y: FloatArray, n_factors: int) -> dict[str, float]:
    """F where a noise variance goes to zero: side -> limit, for the sides that have one."""
    limits: dict[str, float] = {}
    for side, (own, other) in {"y": (y, x), "x": (x, y)}.items():
        size, d = own.shape[1], x.shape[1] + y.shape[1]
        if n_factors < size or len(own) <= size:
            continue
        values = np.linalg.eigvalsh(own.T @ own / len(own))
        if values[0] <= 1e-10 * values[-1]:
            continue  # series that are combinations of each other: no finite limit, the floor decides
        residual = _regressed(other, own)
        rest = n_factors - size
        total = float(np.vdot(residual, residual)) / len(own)
        lam = principal_subspace(residual, rest)[1] if rest else np.zeros(0)
        noise = (total - float(lam.sum())) / (d - n_factors)
        if noise > 0.0 and np.all(lam > 0.0):
            limits[side] = (d - n_factors) * math.log(noise) + float(np.log(values).sum() + np.log(lam).sum())
    return limits


def limit_fit(x: FloatArray, y: FloatArray, n_factors: int, side: str, floor: float) -> TargetedFit:
    """The model in which one group's series are factors: Q = [S_yy^1/2, 0], P = [S_xy S_yy^-1/2, P_2]."""
    own, other = (y, x) if side == "y" else (x, y)
    size, rest, n_periods = own.shape[1], n_factors - own.shape[1], len(own)
    values, vectors = np.linalg.eigh(own.T @ own / n_periods)
    root = vectors * np.sqrt(values)
    cross = other.T @ (own @ (vectors / np.sqrt(values))) / n_periods
    residual = _regressed(other, own)
    total = float(np.vdot(residual, residual)) / n_periods
    axes, lam = principal_subspace(residual, rest) if rest else (np.zeros((other.shape[1], 0)), np.zeros(0))
    noise = max((total - float(lam.sum())) / (other.shape[1] - rest), floor)
    own_loadings = np.hstack([root, np.zeros((size, rest))])
    other_loadings = np.hstack([cross, axes * np.sqrt(np.maximum(lam - noise, 0.0))])
    p = x.shape[1]
    if side == "y":
        return TargetedFit(np.vstack([other_loadings, own_loadings]), p, noise, floor, math.nan)
    return TargetedFit(np.vstack([own_loadings, other_loadings]), p, floor, noise, math.nan)


def _regressed(values: FloatArray, on: FloatArray) -> FloatArray:
    """What a projection on the columns of `on` leaves of `values`."""
    basis = np.linalg.qr(on)[0]
    return values - basis @ (basis.T @ values)


def _floor(x: FloatArray, y: FloatArray) -> float:
    total = float(np.vdot(x, x)) + float(np.vdot(y, y))
    return NOISE_FLOOR * max(total / (x.size + y.size), float(np.finfo(np.float64).tiny))


# ------------------------------------------------------------------------------------ for all variants


def identify(fit: TargetedFit) -> TargetedFit:
    """The same model with L'diag(s)^-1 L diagonal, descending, and the first target's loadings positive."""
    return replace(
        fit, loadings=fit.loadings @ identifying_rotation(fit.loadings, fit.noise, fit.n_predictors)
    )


def identifying_rotation(loadings: FloatArray, noise: FloatArray, n_predictors: int) -> FloatArray:
    """Orthogonal R (k, k): (L R)'diag(s)^-1 (L R) diagonal, descending; the first target's row positive.

    A factor on which the first target does not load has its largest weighted loading positive instead.

    Parameters
    ----------
    loadings : (d, k).
    noise : (d,) noise variances.
    n_predictors : p; row p is the first target.
    """
    weighted = loadings / np.sqrt(noise)[:, None]
    rotation = np.linalg.svd(weighted, full_matrices=False)[2].T
    turned = weighted @ rotation
    first, size = turned[n_predictors], np.linalg.norm(turned, axis=0)
    decided = np.abs(first) > 1e-12 * size
    return rotation * np.where(decided, np.where(first < 0.0, -1.0, 1.0), fix_signs(turned))
