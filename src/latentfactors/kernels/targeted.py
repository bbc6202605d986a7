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
Cost             S once, or for T < d Gram matrices; then about 25 eigenproblems, small ones after the
                 compression of kernels.targeted_profile.
References       Herculano & Montoya-Blandon (2026), probabilistic targeted factor analysis; Tipping & Bishop
                 (1999), JRSS B 61(3), 611-622, eqs. (7)-(8); Lawley & Maxwell (1971), Factor Analysis as a
                 Statistical Method, section 4.6 (Heywood cases).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.linalg import principal_subspace
from latentfactors.kernels.rotation import fix_signs
from latentfactors.kernels.targeted_posterior import noise_by_series, posterior_moments
from latentfactors.kernels.targeted_profile import (
    Moment,
    Profile,
    ProfileFunction,
    compressed_moment,
    direct_profile,
    moment_profile,
    trusted,
)

FloatArray = npt.NDArray[np.float64]

NOISE_FLOOR = 1e-10  # of the mean square: what stands for a noise variance of zero
_LOG_RATIOS = np.linspace(-4.4, 4.4, 12)
_NARROW = 0.06  # of log rho: no interval is halved below it
_MOST = 150  # evaluations of F
_EDGE = math.log(1e4)  # beyond this ratio of standard deviations only the limit is left
_OUTER = np.array([6.0, 7.6, _EDGE])  # log rho outside the grid, tried only while F falls outwards
_FAR = 7.0  # from here on rounding moves F as much as the ratio does: the limit speaks
_TOLERANCE = 1e-7  # of log rho: the likelihood is then within 1e-14 of its maximum


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
    floor = _floor(x, y)
    core = None if ratio is not None else compressed_moment(x, y, n_factors)
    best: Profile | None = None
    n_evaluations, sure, reason = 1, True, ""
    if core is not None:
        best, n_evaluations, sure = _search(moment_profile(core, n_factors, floor))
        if not trusted([best]):
            best = None
    if best is None:
        at = direct_profile(x, y, n_factors, floor)
        if ratio is None:
            best, n_evaluations, sure = _search(at)
        else:
            best = at(np.array([math.log(ratio)]))[0]
            reason = f"ratio of noise standard deviations imposed: {ratio:g}"
    value, boundary = best.value, ""
    if ratio is None:
        reason = f"exact maximum over the noise ratio, {n_evaluations} eigenproblems"
        far = abs(best.log_ratio) > _FAR
        for side, limit in _limits(x, y, n_factors, core, math.inf if far else value).items():
            at_edge = far and (side == "y") == (best.log_ratio > 0.0)
            if limit < value or at_edge:
                value, boundary = limit, side
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


def _search(at: ProfileFunction) -> tuple[Profile, int, bool]:
    """The lowest F over log rho, evaluations used, and whether its bracket was closed.

    F bends sharply where a target's eigenvalue passes the k-th one, so two minima can lie close together. An
    interval is halved as long as the cubic through its ends' values and slopes, less what that cubic has been
    found wrong by, promises a value below the best one.
    """
    grid = at(_LOG_RATIOS)
    n_evaluations = len(grid)
    if grid[0].slope > 0.0:
        outwards = at(-_OUTER)
        n_evaluations += len(outwards)
        while outwards and grid[0].slope > 0.0:
            grid.insert(0, outwards.pop(0))
    if grid[-1].slope < 0.0:
        outwards = at(_OUTER)
        n_evaluations += len(outwards)
        while outwards and grid[-1].slope < 0.0:
            grid.append(outwards.pop(0))
    best = min(grid, key=_value)
    waiting = [(_promise(a, b, 0.0), a, b) for a, b in pairwise(grid)]
    brackets: list[tuple[Profile, Profile]] = []
    while waiting:
        halved: list[tuple[Profile, Profile]] = []
        for promise, a, b in waiting:
            narrow = b.log_ratio - a.log_ratio < _NARROW or n_evaluations >= _MOST
            (brackets if narrow or promise >= best.value else halved).append((a, b))
        middles = at(np.array([0.5 * (a.log_ratio + b.log_ratio) for a, b in halved])) if halved else []
        n_evaluations += len(middles)
        best = min([best, *middles], key=_value)
        waiting = []
        for (a, b), middle in zip(halved, middles, strict=True):
            width = b.log_ratio - a.log_ratio
            error = abs(middle.value - 0.5 * (a.value + b.value) - width * (a.slope - b.slope) / 8.0)
            # of a smooth function a half as wide interval's cubic is 16 times as good; 8 is on the safe side
            waiting += [(_promise(*ends, error / 8.0), *ends) for ends in ((a, middle), (middle, b))]
    rising = [ends for ends in brackets if ends[0].slope < 0.0 < ends[1].slope]
    lowest = min((_cubic_dip(*ends)[1] for ends in rising), default=math.inf)
    for a, b in rising:
        if _cubic_dip(a, b)[1] <= min(lowest + 1e-3, best.value + 1e-12):
            found = _close_in(at, a, b)
            n_evaluations += len(found)
            best = min([best, *found], key=_value)
    return best, n_evaluations, n_evaluations < _MOST


def _close_in(at: ProfileFunction, a: Profile, b: Profile) -> list[Profile]:
    """Profiles on the way to the minimum between a falling and a rising end, the last one next to it.

    Each is taken where the cubic through both ends' values and slopes is lowest; now and then the middle, so
    that the bracket shrinks whatever F looks like.
    """
    found: list[Profile] = []
    last = math.inf
    while len(found) < 60:
        width = b.log_ratio - a.log_ratio
        share = _cubic_dip(a, b)[0]
        if width < 1e-4:  # the values' differences are rounding
            share = a.slope / (a.slope - b.slope)
        if not 0.0 < share < 1.0:
            share = 0.5
        if len(found) % 6 == 5:
            share = 0.5
        log_ratio = a.log_ratio + share * width
        if abs(log_ratio - last) < _TOLERANCE or width < _TOLERANCE:
            break
        found += at(np.array([log_ratio]))
        last = log_ratio
        if found[-1].slope == 0.0:
            break
        if found[-1].slope < 0.0:
            a = found[-1]
        else:
            b = found[-1]
    return found


def profile_fit(best: Profile, n_predictors: int, floor: float) -> TargetedFit:
    """D L = U (mu - s_x^2)^1/2 as parameters; the likelihood is left open."""
    rho = math.exp(best.log_ratio)
    loadings = best.axes * np.sqrt(np.maximum(best.eigenvalues - best.noise, 0.0))
    loadings[n_predictors:] /= rho
    return TargetedFit(loadings, n_predictors, best.noise, max(best.noise / rho**2, floor), math.nan)


def _value(profile: Profile) -> float:
    return profile.value


def _cubic_dip(a: Profile, b: Profile) -> tuple[float, float]:
    """Where between a (0) and b (1) the cubic with both ends' values and slopes is lowest, and how low."""
    width, rise = b.log_ratio - a.log_ratio, b.value - a.value
    falling, rising = width * a.slope, width * b.slope
    bend, twist = 3.0 * rise - 2.0 * falling - rising, falling + rising - 2.0 * rise
    share, lowest = (0.0, a.value) if a.value <= b.value else (1.0, b.value)
    square = bend * bend - 3.0 * twist * falling
    if square >= 0.0:
        root = math.sqrt(square)  # of the two forms of one solution, the one in which nothing cancels
        above, below = (-falling, bend + root) if bend > 0.0 else (root - bend, 3.0 * twist)
        if 0.0 < above < below:
            at = above / below
            value = a.value + at * (falling + at * (bend + at * twist))
            if value <= lowest:
                share, lowest = at, value
    return share, lowest


def _promise(a: Profile, b: Profile, error: float) -> float:
    """What an interval may still hide: the cubic's minimum less ten times the larger of two misfits."""
    width = b.log_ratio - a.log_ratio
    misfit = abs(b.value - a.value - 0.5 * width * (a.slope + b.slope))
    return _cubic_dip(a, b)[1] - 10.0 * max(misfit, error)


def _limits(
    x: FloatArray, y: FloatArray, n_factors: int, core: Moment | None, value: float
) -> dict[str, float]:
    """F where a noise variance goes to zero: side -> limit, if it exists and may be below `value`.

    The limit of s_y is first estimated from `core`; the data are regressed only where it might win.
    """
    limits: dict[str, float] = {}
    for side, (own, other) in {"y": (y, x), "x": (x, y)}.items():
        size, d = own.shape[1], x.shape[1] + y.shape[1]
        if n_factors < size or len(own) <= size:
            continue
        values = np.linalg.eigvalsh(own.T @ own / len(own))
        if values[0] <= 1e-10 * values[-1]:
            continue  # series that are combinations of each other: no finite limit, the floor decides
        if side == "y" and core is not None and _rough_limit(core, n_factors) > value + 1.0:
            continue
        residual = _regressed(other, own)
        rest = n_factors - size
        total = float(np.vdot(residual, residual)) / len(own)
        lam = principal_subspace(residual, rest)[1] if rest else np.zeros(0)
        noise = (total - float(lam.sum())) / (d - n_factors)
        if noise > 0.0 and np.all(lam > 0.0):
            limits[side] = (d - n_factors) * math.log(noise) + float(np.log(values).sum() + np.log(lam).sum())
    return limits


def _rough_limit(core: Moment, n_factors: int) -> float:
    """The limit of F as s_y -> 0 from S_xx.y in the basis of `core`; -inf where that cannot be relied on."""
    q, rest = core.n_targets, n_factors - core.n_targets
    m = len(core.values) - q
    inner, cross, own = core.values[:m, :m], core.values[:m, m:], core.values[m:, m:]
    explained = cross @ np.linalg.solve(own, cross.T)
    lam, axes = np.linalg.eigh(inner - explained)
    lam, axes = lam[m - rest :], axes[:, m - rest :]
    noise = (core.x_trace - float(np.trace(explained)) - float(lam.sum())) / (core.n_series - n_factors)
    if noise <= 1e-9 * core.x_trace or np.any(lam <= noise):
        return -math.inf
    if core.leak is not None and np.any((axes * (core.leak @ axes)).sum(axis=0) > 1e-12 * lam * lam):
        return -math.inf
    log_det = float(np.linalg.slogdet(own)[1] + np.log(lam).sum())
    return (core.n_series - n_factors) * math.log(noise) + log_det


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
