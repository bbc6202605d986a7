"""Least squares whose standard errors hold under heteroskedasticity and autocorrelation.

Model            y_t = x_t'b + u_t               x_t (K,), u_t serially correlated, of changing variance
Covariance       V = (X'X)^-1 S (X'X)^-1         S = G_0 + sum_l w_l (G_l + G_l'),  G_l = sum_t s_t s_(t-l)'
                 with scores s_t = x_t u_t and Bartlett weights w_l = 1 - l/(lags + 1)
Lags             floor(4 (T/100)^(2/9)) unless stated
Conventions      no small-sample factor, t judged against the normal law: `cov_type="HAC"` of statsmodels

With x_t = 1 this is the t statistic of a mean.

References: Newey & West (1987), Econometrica 55(3), the estimator; Newey & West (1994), Review of Economic
Studies 61(4), the rate of the lag rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HACRegression:
    """A regression with Newey-West standard errors.

    Attributes
    ----------
    coefficients, standard_errors, t_statistics : (K,); NaN where they cannot be estimated
    covariance : (K, K) of the coefficients
    residuals : (T,), NaN in the periods left out
    r_squared : 1 - u'u / sum (y - mean y)^2
    n_periods : periods finite in y and X
    lags : lags used
    """

    coefficients: FloatArray
    standard_errors: FloatArray
    t_statistics: FloatArray
    covariance: FloatArray
    residuals: FloatArray
    r_squared: float
    n_periods: int
    lags: int


def automatic_lags(n_periods: int) -> int:
    """floor(4 (T/100)^(2/9)): 4 lags for 100 periods, 5 for 300, 6 for 720; at most T - 1.

    Examples
    --------
    >>> [automatic_lags(n) for n in (1, 60, 120, 606)]
    [0, 3, 4, 5]
    """
    return max(min(int(4.0 * (n_periods / 100.0) ** (2.0 / 9.0)), n_periods - 1), 0)


def long_run_sum(scores: FloatArray, lags: int) -> FloatArray:
    """S = G_0 + sum_l (1 - l/(lags + 1)) (G_l + G_l') of (T, K) scores, not demeaned: (K, K)."""
    total = scores.T @ scores
    for lag in range(1, min(lags, len(scores) - 1) + 1):
        moment = scores[lag:].T @ scores[:-lag]
        total += (1.0 - lag / (lags + 1.0)) * (moment + moment.T)
    return total


def hac_regression(y: ArrayLike, X: ArrayLike, lags: int | None = None) -> HACRegression:
    """Least squares of y on X with Newey-West standard errors.

    Periods not finite in y or X are left out; the lags then count the periods that remain. With T <= K, or
    columns of X that are collinear, everything is NaN.

    Parameters
    ----------
    y : (T,)
    X : (T, K), a constant among its columns if one is wanted
    lags : >= 0; None takes `automatic_lags`

    Examples
    --------
    >>> y = np.array([0.02, 0.01, 0.03, 0.00, 0.02, 0.01])
    >>> mean = hac_regression(y, np.ones((6, 1)), lags=0)
    >>> bool(np.isclose(mean.t_statistics[0], y.mean() / (y.std() / np.sqrt(6))))
    True
    """
    target, regressors = np.asarray(y, dtype=np.float64), np.asarray(X, dtype=np.float64)
    if target.ndim != 1 or regressors.ndim != 2 or len(target) != len(regressors):
        raise ValueError(f"expected y (T,) and X (T, K) with one T, got {target.shape}, {regressors.shape}")
    if lags is not None and lags < 0:
        raise ValueError(f"lags={lags}: expected a whole number >= 0, or None for the automatic rule")
    kept = np.isfinite(target) & np.isfinite(regressors).all(axis=1)
    v, x = target[kept], regressors[kept]
    n, k = x.shape
    lags = automatic_lags(n) if lags is None else int(lags)
    residuals = np.full(len(target), np.nan)
    if n <= k or np.linalg.matrix_rank(x / np.maximum(np.abs(x).max(axis=0), 1e-300)) < k:
        nothing = np.full(k, np.nan)
        return HACRegression(
            nothing, nothing, nothing, np.full((k, k), np.nan), residuals, float("nan"), n, lags
        )
    q, r = np.linalg.qr(x)
    coefficients: FloatArray = np.linalg.solve(r, q.T @ v).astype(np.float64, copy=False)
    u = v - x @ coefficients
    residuals[kept] = u
    inverse = np.linalg.solve(r, np.eye(k))
    # (X'X)^-1 x_t = R^-1 q_t: the sandwich never squares the condition of X
    covariance = inverse @ long_run_sum(q * u[:, None], lags) @ inverse.T
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    t = np.divide(coefficients, errors, out=np.full(k, np.nan), where=errors > 0)
    spread = float(np.square(v - v.mean()).sum())
    r_squared = 1.0 - float(u @ u) / spread if spread > 0 else float("nan")
    return HACRegression(coefficients, errors, t, covariance, residuals, r_squared, n, lags)
