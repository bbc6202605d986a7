"""Factors of many predictors, weighted for the sake of a target: PCR, PLS, scaled PCA, three passes.

    x (S, p), y (S, q), standardised, NaN where missing; factors f_s (K,) are functions of x_s alone

pcr         f_s = least squares of x_s on the leading principal loadings; y plays no part
spca        the same of g_i x_is, where g_i is the slope of y on x_i alone: predictors that predict count more
three_pass  1: slopes phi_i of x_i on proxies (the targets, or y and the residuals of the passes before)
            2: f_s = slopes of x_s on phi over the predictors     3: y on f
pls         w = leading left singular vector of x'y; f = x w / w'w; x <- x - f (x'f/f'f)'; repeat

Each works with gaps by using, in every regression, the cells it has. A `FactorMap` is what a fit leaves: the
regressions that turn one period's predictors into factors.

References: Stock & Watson (2002), JASA 97 (PCR, diffusion indices); Huang, Jiang, Li, Tong & Zhou (2022),
Management Science 68(3), section 2 (scaled PCA); Kelly & Pruitt (2015), J. of Econometrics 186(2), tables 1
and 2 (three-pass filter, automatic proxies); Wold (1975) and de Jong (1993) (PLS, NIPALS with missing cells).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.als import fit_als, observed_factors
from latentfactors.kernels.linalg import distinct_rows
from latentfactors.kernels.rotation import principal_rotation

FloatArray = npt.NDArray[np.float64]
Method = Literal["pcr", "pls", "spca", "three_pass"]


@dataclass(frozen=True, eq=False)
class FactorMap:
    """How one period's predictors become factors.

    Attributes
    ----------
    scale : (p,) multiplies x first
    level : (p,) subtracted from the scaled x
    design : (p, J) regressors of the cross-section; the K weight vectors of PLS
    n_nuisance : leading columns of the design that are no factors (the intercept of the second pass)
    loadings : (p, K) by which PLS takes a factor out of x before the next; empty otherwise
    signs : (K,)
    """

    scale: FloatArray
    level: FloatArray
    design: FloatArray
    n_nuisance: int
    loadings: FloatArray
    signs: FloatArray

    @property
    def n_factors(self) -> int:
        """K."""
        return self.design.shape[1] - self.n_nuisance


def fit_factor_map(
    x: FloatArray, y: FloatArray, n_factors: int, method: Method, *, tolerance: float, max_iterations: int
) -> FactorMap:
    """The map learned from x (S, p) and y (S, q); factors correlate positively with the first target."""
    if method == "pls":
        found = partial_least_squares(x, y, n_factors)
    elif method == "three_pass":
        found = three_pass_filter(x, y, n_factors)
    else:
        slopes = np.ones(x.shape[1]) if method == "pcr" else target_slopes(x, y[:, 0])
        found = scaled_components(x, slopes, n_factors, tolerance=tolerance, max_iterations=max_iterations)
    factors = apply_factor_map(found, x, min_observed=1)
    covariance = np.array([_pairwise_covariance(f, y[:, 0]) for f in factors.T])
    signs = np.where(covariance < 0.0, -1.0, 1.0)
    return FactorMap(found.scale, found.level, found.design, found.n_nuisance, found.loadings, signs)


def apply_factor_map(found: FactorMap, x: FloatArray, *, min_observed: int) -> FloatArray:
    """(T, K) factors of (T, p) predictors; NaN where fewer than `min_observed` are observed.

    Each row depends, to the bit, on its own period only.
    """
    scaled = x * found.scale - found.level
    if found.loadings.size:
        return found.signs * _sequential_scores(scaled, found, min_observed)
    factors = observed_factors(scaled, found.design, min_observed=min_observed)
    return found.signs * factors[:, found.n_nuisance :]


def scaled_components(
    x: FloatArray, slopes: FloatArray, n_factors: int, *, tolerance: float, max_iterations: int
) -> FactorMap:
    """Principal components of slopes_i x_i, whatever is missing."""
    scaled = x * slopes
    fit = fit_als(scaled, n_factors, intercept=True, tolerance=tolerance, max_iterations=max_iterations)
    design = fit.loadings @ principal_rotation(fit.loadings, fit.factors)[0]
    nothing = np.zeros((x.shape[1], 0))
    return FactorMap(slopes, fit.intercept, design, 0, nothing, np.ones(n_factors))


def target_slopes(x: FloatArray, y: FloatArray) -> FloatArray:
    """(p,) slope of y on every predictor alone, over the periods both are observed."""
    both = np.isfinite(x) & np.isfinite(y)[:, None]
    n = np.maximum(both.sum(axis=0), 1)
    columns, target = np.where(both, x, 0.0), np.where(both, y[:, None], 0.0)
    columns = np.where(both, columns - columns.sum(axis=0) / n, 0.0)
    squares = (columns**2).sum(axis=0)
    return np.divide((columns * target).sum(axis=0), squares, out=np.zeros(x.shape[1]), where=squares > 0.0)


def three_pass_filter(x: FloatArray, y: FloatArray, n_factors: int) -> FactorMap:
    """Proxies are the targets; with one target the others are residuals of the forecasts so far (table 2)."""
    p = x.shape[1]
    nothing = np.zeros((p, 0))
    proxies = y[:, :1] if y.shape[1] < n_factors else y
    while True:
        slopes = first_pass(x, proxies)
        design = np.column_stack([np.ones(p), slopes])
        k = proxies.shape[1]
        found = FactorMap(np.ones(p), np.zeros(p), design, 1, nothing, np.ones(k))
        if k == n_factors:
            return found
        factors = apply_factor_map(found, x, min_observed=k + 1)
        intercept, coefficients, _ = target_regression(factors, y)
        proxies = np.column_stack([proxies, y[:, 0] - intercept[0] - factors @ coefficients[0]])


def first_pass(x: FloatArray, proxies: FloatArray) -> FloatArray:
    """(p, L) slopes of every predictor on the proxies, with an intercept."""
    slopes = np.zeros((x.shape[1], proxies.shape[1]))
    known = np.isfinite(proxies).all(axis=1)
    for i, column in enumerate(x.T):
        rows = known & np.isfinite(column)
        if np.count_nonzero(rows) > proxies.shape[1] + 1:
            design = proxies[rows] - proxies[rows].mean(axis=0)
            slopes[i] = np.linalg.lstsq(design, column[rows] - column[rows].mean(), rcond=None)[0]
    return slopes


def partial_least_squares(x: FloatArray, y: FloatArray, n_factors: int) -> FactorMap:
    """NIPALS; moments are means over the cells that both members have."""
    p = x.shape[1]
    weights, loadings, remaining = np.zeros((p, n_factors)), np.zeros((p, n_factors)), x.copy()
    observed_y = np.where(np.isfinite(y), y, 0.0)
    for k in range(n_factors):
        filled = np.where(np.isfinite(remaining), remaining, 0.0)
        counts = np.isfinite(remaining).T.astype(float) @ np.isfinite(y).astype(float)
        moments = (filled.T @ observed_y) / np.maximum(counts, 1.0)
        left = np.linalg.svd(moments, full_matrices=False)[0][:, 0]
        weights[:, k] = left * np.sign(left[np.abs(left).argmax()])
        scores = _score(remaining, weights[:, k])
        usable = np.isfinite(scores)
        seen = np.isfinite(remaining) & usable[:, None]
        column = np.where(usable, scores, 0.0)[:, None]
        squares = (seen * column**2).sum(axis=0)
        sums = (np.where(seen, remaining, 0.0) * column).sum(axis=0)
        loadings[:, k] = np.divide(sums, squares, out=np.zeros(p), where=squares > 0.0)
        remaining = remaining - scores[:, None] * loadings[:, k]
    return FactorMap(np.ones(p), np.zeros(p), weights, 0, loadings, np.ones(n_factors))


def _sequential_scores(x: FloatArray, found: FactorMap, min_observed: int) -> FloatArray:
    remaining, scores = x, np.empty((x.shape[0], found.n_factors))
    for k in range(found.n_factors):
        scores[:, k] = _score(remaining, found.design[:, k])
        remaining = remaining - scores[:, k][:, None] * found.loadings[:, k]
    scores[np.isfinite(x).sum(axis=1) < min_observed] = np.nan
    return scores


def _score(x: FloatArray, weights: FloatArray) -> FloatArray:
    """x_s'w / w'w over the observed cells of each row; NaN where they carry no weight."""
    seen = np.isfinite(x)
    sums = np.where(seen, x * weights, 0.0).sum(axis=1)
    squares = np.where(seen, weights**2, 0.0).sum(axis=1)
    enough = squares > 1e-12 * float(weights @ weights)
    return np.divide(sums, squares, out=np.full(x.shape[0], np.nan), where=enough)


def target_regression(factors: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Third pass: y_j on (1, f) over the rows where both exist.

    Returns
    -------
    intercept (q,), coefficients (q, K), residual variance (q,) with S_j - K - 1 degrees of freedom.
    """
    q, k = y.shape[1], factors.shape[1]
    intercept, coefficients, variance = np.zeros(q), np.zeros((q, k)), np.zeros(q)
    observed = np.isfinite(y)
    observed &= np.isfinite(factors).all(axis=1, keepdims=True)
    # columns seen in the same periods share one decomposition
    first, codes = distinct_rows(observed.T)
    for kind, column in enumerate(first):
        rows, members = observed[:, column], np.flatnonzero(codes == kind)
        values = y[np.ix_(rows, members)]
        design = np.column_stack([np.ones(len(values)), factors[rows]])
        solution = np.linalg.lstsq(design, values, rcond=None)[0]
        residual = values - design @ solution
        intercept[members], coefficients[members] = solution[0], solution[1:].T
        variance[members] = np.square(residual).sum(axis=0) / max(len(values) - k - 1, 1)
    return intercept, coefficients, variance


def _pairwise_covariance(a: FloatArray, b: FloatArray) -> float:
    rows = np.isfinite(a) & np.isfinite(b)
    return float(((a[rows] - a[rows].mean()) * b[rows]).sum()) if rows.any() else 0.0
