"""Scalar autoregressions with missing values: choosing the order, fitting, and what is known of the lags.

    y_t = c + phi_1 y_(t-1) + ... + phi_p y_(t-p) + u_t,        and for a horizon h directly
    y_(t+h-1) = c_h + sum_l phi_(h,l) y_(t-l) + u

Many series are carried side by side, (T, N), each with coefficients of its own.

References: Durbin & Koopman (2012), Time Series Analysis by State Space Methods, section 4.10 (missing
observations); Schwarz (1978), Annals of Statistics 6(2) (BIC).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.moments import unit_columns

FloatArray = npt.NDArray[np.float64]

ROWS_PER_COEFFICIENT = 5
_STILL = 1e-24  # sum of squares relative to the level's below which a series is constant up to rounding


def choose_order(y: FloatArray, longest: int, ahead: int, *, fixed: bool) -> int:
    """The order with the smallest BIC among those that leave five complete rows per coefficient; -1: none.

    Parameters
    ----------
    y : (T,), NaN where missing
    longest, ahead : largest order; periods from the last lag to the target
    fixed : whether to answer the largest order that is possible instead of the best
    """
    for p in range(longest, -1, -1):
        now, past = complete_rows(y, p, ahead)
        if len(now) >= ROWS_PER_COEFFICIENT * (p + 1):
            break
    else:
        return -1
    level = now.mean()
    target, n = now - level, len(now)
    total = float(target @ target)
    if total <= _STILL * n * level**2 or fixed:
        return p if fixed and total > _STILL * n * level**2 else 0
    # one factorisation for all orders: each further lag takes (q'y)^2 off the sum of squares
    unit, _ = unit_columns(past)
    q, r = np.linalg.qr(unit)
    gain = np.where(np.abs(np.diag(r)) > 1e-10, np.square(q.T @ target), 0.0)
    left = np.maximum(total - np.concatenate([[0.0], np.cumsum(gain)]), _STILL * total)
    return int(np.argmin(n * np.log(left / n) + (np.arange(p + 1) + 1) * np.log(n)))


def regress(y: FloatArray, order: int, ahead: int) -> tuple[float, FloatArray, float]:
    """Intercept, slopes (order,), residual variance (divisor n - order - 1) of y_(t+ahead-1) on its lags."""
    now, past = complete_rows(y, order, ahead)
    unit, norms = unit_columns(past)
    level = now.mean()
    scaled = np.linalg.lstsq(unit, now - level, rcond=1e-12)[0]
    slopes = np.divide(scaled, norms, out=np.zeros_like(norms), where=norms > 0)
    residual = now - level - (past - past.mean(axis=0)) @ slopes
    variance = float(residual @ residual) / (len(now) - order - 1)
    return float(level - past.mean(axis=0) @ slopes), slopes, variance


def complete_rows(y: FloatArray, order: int, ahead: int) -> tuple[FloatArray, FloatArray]:
    """y_(t+ahead-1) (n,) and y_(t-1), ..., y_(t-order) (n, order) where all of them are observed."""
    n = len(y) - order - ahead + 1
    if n <= 0:
        return np.empty(0), np.empty((0, order))
    now = y[order + ahead - 1 :]
    past = np.empty((n, order))
    for lag in range(1, order + 1):
        past[:, lag - 1] = y[order - lag : order - lag + n]
    kept = np.isfinite(now) & np.isfinite(past).all(axis=1)
    return now[kept], past[kept]


def expected_lags(
    values: FloatArray,
    intercept: FloatArray,
    coefficients: FloatArray,
    variance: FloatArray,
    weights: FloatArray,
    start: tuple[FloatArray, FloatArray],
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """E[y_(t-1), ..., y_(t-P) | values up to t-1] for t = 0..T, series by series.

    Where the last P values are all observed they are the answer. Elsewhere s, V: predict one step with the
    companion form of the regression, then, if the new value is observed, condition on it without noise.

    Parameters
    ----------
    values : (T, N), NaN where missing
    intercept, coefficients, variance : (N,), (N, P), (N,) of the one-step equation
    weights : (N, P) of the forecast, for the variance that missing lags add to it
    start : (N, P) and (N, P, P) before the first value

    Returns
    -------
    lags : (T + 1, N, P)
    unknown : (T + 1, N) w'V w
    spread : (N, P, P) V after the last value
    """
    T, N = values.shape
    P = coefficients.shape[1]
    lags, unknown = np.empty((T + 1, N, P)), np.zeros((T + 1, N))
    lags[0], spread = start[0], np.array(start[1])
    unknown[0] = np.einsum("nk,nkl,nl->n", weights, spread, weights)
    places = np.arange(T)[:, None]
    last_gap = np.maximum.accumulate(np.where(np.isfinite(values), -1, places), axis=0)
    settled = np.zeros((T + 1, N), dtype=bool)
    settled[1:] = places - last_gap >= P
    for lag in range(P):
        lags[lag + 1 :, :, lag] = values[: max(T - lag, 0)]
    for t in range(1, T + 1):
        spread[settled[t - 1]] = 0.0
        at = np.flatnonzero(~settled[t])
        if not at.size:
            continue
        phi, old, V = coefficients[at], lags[t - 1, at], spread[at]
        new, W = np.empty_like(old), np.empty_like(V)
        new[:, 0] = intercept[at] + (phi * old).sum(axis=1)
        new[:, 1:] = old[:, :-1]
        cross = np.einsum("nk,nkl->nl", phi, V)
        W[:, 0, 0] = (cross * phi).sum(axis=1) + variance[at]
        W[:, 0, 1:] = W[:, 1:, 0] = cross[:, :-1]
        W[:, 1:, 1:] = V[:, :-1, :-1]
        y = values[t - 1, at]
        seen = np.isfinite(y)
        gain = np.divide(W[:, :, 0], W[:, :1, 0], out=np.zeros_like(new), where=W[:, :1, 0] > 0)
        gain[~seen] = 0.0
        new += gain * (np.where(seen, y, 0.0) - new[:, 0])[:, None]
        new[seen, 0] = y[seen]
        W -= gain[:, :, None] * W[:, None, 0, :]
        W[seen, 0, :] = W[seen, :, 0] = 0.0
        lags[t, at], spread[at] = new, W
        unknown[t, at] = np.einsum("nk,nkl,nl->n", weights[at], W, weights[at])
    spread[settled[T]] = 0.0
    return lags, np.maximum(unknown, 0.0), spread


def stationary_lags(
    intercept: FloatArray, coefficients: FloatArray, variance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean (N, P) and covariance (N, P, P) of P successive values in the stationary distribution.

    The covariance sum_j C^j Q C'^j of the companion form C is summed by doubling.
    """
    N, P = coefficients.shape
    mean = intercept / (1.0 - coefficients.sum(axis=1))
    companion = np.zeros((N, P, P))
    companion[:, 0] = coefficients
    companion[:, np.arange(1, P), np.arange(P - 1)] = 1.0
    total = np.zeros((N, P, P))
    total[:, 0, 0] = variance
    for _ in range(14):  # .99^(2^14) is zero
        total = total + companion @ total @ companion.transpose(0, 2, 1)
        companion = companion @ companion
    return np.repeat(mean[:, None], P, axis=1), total


def iterated_weights(
    intercept: FloatArray, coefficients: FloatArray, variance: FloatArray, horizon: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Constant (N,), weights (N, P) of the lags and noise variance (N,) of the forecast horizon steps on."""
    shift, noise = np.zeros_like(intercept), np.zeros_like(variance)
    weights = np.zeros_like(coefficients)
    weights[:, 0] = 1.0
    for _ in range(horizon):
        lead = weights[:, :1].copy()
        shift, noise = shift + lead[:, 0] * intercept, noise + lead[:, 0] ** 2 * variance
        weights = np.hstack([weights[:, 1:], np.zeros_like(lead)]) + lead * coefficients
    return shift, weights, noise
