"""Vector autoregressions of incomplete series: fit, and forecasts given exactly what is observed.

    y_t = c + A_1 y_(t-1) + ... + A_p y_(t-p) + u_t,  u_t ~ N(0, Q)          y_t (K,)   A_l (K, K)
    companion form  s_t = (y_t, ..., y_(t-p+1)),  s_t = (c, 0) + C s_(t-1) + (u_t, 0);  radius = max |eig(C)|

Fit         least squares on the rows whose present and lags are all observed; Q = U'U / (n - parameters of an
            equation). If the radius exceeds the bound, A_l is scaled by r^l, which scales every root by r,
            and c is chosen so that the implied mean (I - sum A_l)^-1 c is the sample mean.
Forecast    s | past is N(m, P). Predict: m <- C m + c, P <- C P C' + Q. Observe the entries o without noise:
            G = P_.o P_oo^-1, m <- m + G (y_o - m_o), P <- (I - G E_o) P (I - G E_o)', entries o then exactly
            known. This is the exact conditional law; past missing values are revised by later ones.
h steps     mean = c_h + Phi_h m with Phi_h the first K rows of C^h;
            covariance = Phi_h P Phi_h' + sum_(i<h) Psi_i Q Psi_i', Psi_i the leading block of C^i

Where the last p rows are complete, m is the data and P = 0: those rows need no recursion.

Separate    first-order series with a diagonal A_1 can be forecast one by one, each from its own last value,
            n_k steps before the target: mean = c (1 + phi + ... + phi^(n-1)) + phi^n y, and errors of two
            series share their last min(n_j, n_k) innovations: cov_jk = Q_jk sum_(i<min) (phi_j phi_k)^i

References: Luetkepohl (2005), New Introduction to Multiple Time Series Analysis, sections 2.1.1 (companion
form), 2.2.2 (forecast covariance), 3.2 (least squares); Durbin & Koopman (2012), Time Series Analysis by
State Space Methods, sections 4.3 (filtering) and 4.10 (missing observations).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentfactors.kernels.moments import unit_columns

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VectorAutoregression:
    """y_t = intercept + sum_l coefficients[l-1] y_(t-l) + u_t, u_t with the covariance given.

    Attributes
    ----------
    intercept : (K,)
    coefficients : (p, K, K), entry [l-1, i, j] is the effect of series j, l periods ago, on series i
    covariance : (K, K) of the innovations
    """

    intercept: FloatArray
    coefficients: FloatArray
    covariance: FloatArray


def fit_var(
    values: ArrayLike, lags: int, *, ridge: float = 0.0, diagonal: bool = False, max_radius: float = 0.99
) -> tuple[VectorAutoregression, int, bool]:
    """Least squares on complete rows, kept stationary.

    Parameters
    ----------
    values : (T, K), NaN where not observed
    lags : p, at least 1
    ridge : penalty on the coefficients (not the intercept), relative: minimises mean squared residual
        + ridge * v * sum of squared coefficients, v the average variance of the regressors; no unit, >= 0
    diagonal : each series on its own lags only, over the rows complete for that series; the covariance then
        has each series' own variance and the residual correlations of the rows complete for all
    max_radius : bound on the companion radius (diagonal: of each series), in (0, 1)

    Returns
    -------
    var : the model; its covariance is that of the residuals it leaves, after shrinking, with divisor
        n - K p - 1 (diagonal: n_k - p - 1)
    n_rows : rows used (diagonal: the fewest of any series)
    shrunk : whether the radius exceeded the bound

    Raises
    ------
    ValueError
        if fewer than K p + 2 rows (diagonal: p + 2 for a series) are complete
    """
    y = np.ascontiguousarray(values, dtype=np.float64)
    if y.ndim != 2 or y.shape[1] == 0:
        raise ValueError(f"values: expected (T, K) with K >= 1, got shape {y.shape}")
    if lags < 1 or not ridge >= 0 or not 0 < max_radius < 1:
        raise ValueError(
            f"lags={lags}, ridge={ridge}, max_radius={max_radius}: expected lags >= 1, "
            "ridge >= 0 and a radius between 0 and 1"
        )
    n_series = y.shape[1]
    everything = np.arange(n_series)
    groups = np.split(everything, n_series) if diagonal else [everything]
    coefficients, intercept = np.zeros((lags, n_series, n_series)), np.zeros(n_series)
    residuals, counts, shrunk = np.full((max(len(y) - lags, 0), n_series), np.nan), [], False
    for series in groups:  # all series at once, or one after another
        needed = len(series) * lags + 2
        present, past, rows = _lagged(y[:, series], lags)
        if len(present) < needed:
            raise ValueError(
                f"series {series.tolist()}: {len(present)} of {len(y)} rows are observed with {lags} lags, "
                f"expected at least {needed} for {needed - 1} parameters an equation"
            )
        a, c, was_shrunk = _stationary_fit(present, past, lags, ridge, max_radius)
        coefficients[:, series[:, None], series] = a
        intercept[series] = c
        residuals[rows[:, None], series] = present - c - past @ _stacked(a).T
        counts.append(len(present))
        shrunk |= was_shrunk
    covariance = _residual_covariance(residuals, 1 + len(groups[0]) * lags)
    return VectorAutoregression(intercept, coefficients, covariance), min(counts), shrunk


def companion_radius(coefficients: FloatArray) -> float:
    """Largest absolute eigenvalue of the companion matrix of (p, K, K) coefficients; stationary below 1."""
    return float(np.abs(np.linalg.eigvals(_companion(coefficients))).max())


def conditional_forecasts(
    values: ArrayLike, var: VectorAutoregression, horizon: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of y_(p+horizon-1) given values[0..p-1], for p = 0..T.

    Missing entries are integrated out exactly. Row p keeps every bit whatever the later values are and
    however many rows follow.

    Parameters
    ----------
    values : (T, K), NaN where not observed
    var : model with p lags
    horizon : steps, at least 1

    Returns
    -------
    mean : (T+1, K), NaN before the first p complete rows in succession
    covariance : (T+1, K, K), NaN on the same rows
    """
    y = np.ascontiguousarray(values, dtype=np.float64)
    lags, n_series, _ = var.coefficients.shape
    if y.ndim != 2 or y.shape[1] != n_series:
        raise ValueError(f"values: expected (T, {n_series}) for this model, got shape {y.shape}")
    if horizon < 1:
        raise ValueError(f"horizon={horizon}: expected at least 1")
    shift, weights, noise = _horizon(var, horizon)
    states = np.full((len(y) + 1, lags * n_series), np.nan)
    covariance = np.full((len(y) + 1, n_series, n_series), np.nan)

    settled = _settled(np.all(np.isfinite(y), axis=1), lags)  # rows whose last p rows are complete
    for lag in range(lags):
        block = slice(lag * n_series, (lag + 1) * n_series)
        states[settled, block] = y[np.flatnonzero(settled) - 1 - lag]
    covariance[settled] = noise

    companion = _companion(var.coefficients)
    spread = np.zeros_like(companion)
    drift, innovation = np.zeros(len(companion)), np.zeros_like(companion)
    drift[:n_series], innovation[:n_series, :n_series] = var.intercept, var.covariance
    for p in np.flatnonzero(~settled & np.logical_or.accumulate(settled)):
        if settled[p - 1]:
            spread = np.zeros_like(spread)
        states[p], spread = _step(states[p - 1], spread, y[p - 1], companion, drift, innovation)
        covariance[p] = noise + weights @ spread @ weights.T

    # Added column by column: a matrix product may round a row differently when the number of rows changes.
    mean = np.broadcast_to(shift, (len(y) + 1, n_series))
    for column in range(states.shape[1]):
        mean = mean + states[:, column, None] * weights[:, column]
    return mean, covariance


def separate_forecasts(
    values: ArrayLike, var: VectorAutoregression, horizon: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of y_(p+horizon-1), each series given its own last value up to p-1, for p = 0..T.

    Unlike `conditional_forecasts` a series that starts late or misses a value leaves the others' forecasts
    alone. Row p keeps every bit whatever the later values are and however many rows follow.

    Parameters
    ----------
    values : (T, K), NaN where not observed
    var : one lag, diagonal coefficients
    horizon : steps, at least 1

    Returns
    -------
    mean : (T+1, K), NaN before a series' first value
    covariance : (T+1, K, K) of the forecast errors, NaN in the rows and columns of such series
    """
    y = np.ascontiguousarray(values, dtype=np.float64)
    n_series = len(var.intercept)
    if y.ndim != 2 or y.shape[1] != n_series:
        raise ValueError(f"values: expected (T, {n_series}) for this model, got shape {y.shape}")
    phi = np.diagonal(var.coefficients[0])
    if len(var.coefficients) != 1 or np.any(var.coefficients[0] != np.diag(phi)):
        raise ValueError("expected one lag and diagonal coefficients: use conditional_forecasts")
    if horizon < 1:
        raise ValueError(f"horizon={horizon}: expected at least 1")
    places = np.arange(len(y) + 1)
    last = np.full((len(y) + 1, n_series), -1)
    last[1:] = np.maximum.accumulate(np.where(np.isfinite(y), places[:-1, None], -1), axis=0)
    seen = last >= 0
    steps = np.where(seen, places[:, None] - last - 1 + horizon, 0)
    # tables over n = 0, 1, ... by recursion, so that no entry depends on how long the table is
    longest = int(steps.max()) + 1
    power, shift = np.ones((longest, n_series)), np.zeros((longest, n_series))
    noise = np.zeros((longest, n_series, n_series))
    for n in range(1, longest):
        power[n] = power[n - 1] * phi
        shift[n] = var.intercept + phi * shift[n - 1]
        noise[n] = var.covariance + np.multiply.outer(phi, phi) * noise[n - 1]
    each = np.arange(n_series)
    value = np.take_along_axis(y, np.maximum(last, 0), axis=0) if len(y) else np.empty((1, n_series))
    mean = np.where(seen, shift[steps, each] + power[steps, each] * value, np.nan)
    shared = np.minimum(steps[:, :, None], steps[:, None, :])
    covariance = noise[shared, each[:, None], each]
    return mean, np.where(seen[:, :, None] & seen[:, None, :], covariance, np.nan)


# Fit --------------------------------------------------------------------------------------------------------


def _lagged(y: FloatArray, lags: int) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Complete (y_t; y_(t-1), ..., y_(t-p)) as (n, K), (n, K p), and their places t - p."""
    if len(y) <= lags:
        return y[:0], np.empty((0, lags * y.shape[1])), np.arange(0)
    past = np.hstack([y[lags - lag : len(y) - lag] for lag in range(1, lags + 1)])
    present = y[lags:]
    rows = np.flatnonzero(np.all(np.isfinite(np.hstack([present, past])), axis=1))
    return present[rows], past[rows], rows


def _stationary_fit(
    present: FloatArray, past: FloatArray, lags: int, ridge: float, max_radius: float
) -> tuple[FloatArray, FloatArray, bool]:
    """Coefficients (p, K, K), intercept (K,), and whether they were shrunk to the bound."""
    n_series = present.shape[1]
    slopes = _ridge_regression(past, present, ridge)
    a = slopes.T.reshape(n_series, lags, n_series).transpose(1, 0, 2).copy()
    radius = companion_radius(a)
    if radius <= max_radius:
        return a, present.mean(axis=0) - past.mean(axis=0) @ slopes, False
    a *= (max_radius / radius) ** np.arange(1, lags + 1)[:, None, None]
    mean = present.mean(axis=0)
    return a, mean - a.sum(axis=0) @ mean, True


def _ridge_regression(x: FloatArray, y: FloatArray, ridge: float) -> FloatArray:
    """Slopes (q, m) of demeaned y on demeaned x, the penalty as extra rows: x'x is never formed."""
    unit, norms = unit_columns(x)
    penalty = np.sqrt(ridge * np.square(norms).sum() / x.shape[1])
    root = np.diag(np.divide(penalty, norms, out=np.zeros_like(norms), where=norms > 0))
    target = np.vstack([y - y.mean(axis=0), np.zeros((x.shape[1], y.shape[1]))])
    scaled = np.linalg.lstsq(np.vstack([unit, root]), target, rcond=None)[0]
    # A constant regressor carries no slope; collinear ones share it (minimum norm).
    return np.divide(scaled, norms[:, None], out=np.zeros_like(scaled), where=norms[:, None] > 0)


def _residual_covariance(residuals: FloatArray, n_parameters: int) -> FloatArray:
    """Own variances from each series' residuals, correlations from rows where all have one; semidefinite."""
    observed = np.isfinite(residuals)
    freedom = observed.sum(axis=0) - n_parameters
    sd = np.sqrt(np.square(np.where(observed, residuals, 0.0)).sum(axis=0) / freedom)
    unit, _ = unit_columns(residuals[np.all(observed, axis=1)], centred=False)
    correlation = unit.T @ unit
    # Without a common row (or without residual) nothing is known of the correlation: taken as zero.
    np.fill_diagonal(correlation, 1.0)
    return sd[:, None] * correlation * sd


# Forecast ---------------------------------------------------------------------------------------------------


def _stacked(coefficients: FloatArray) -> FloatArray:
    """(A_1, ..., A_p) side by side, (K, K p)."""
    return np.hstack(list(coefficients))


def _companion(coefficients: FloatArray) -> FloatArray:
    """Companion matrix C (K p, K p)."""
    lags, n_series, _ = coefficients.shape
    return np.vstack([_stacked(coefficients), np.eye((lags - 1) * n_series, lags * n_series)])


def _horizon(var: VectorAutoregression, horizon: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """c_h (K,), Phi_h (K, K p) and sum_(i<h) Psi_i Q Psi_i' (K, K)."""
    companion, n_series = _companion(var.coefficients), len(var.intercept)
    shift, noise = np.zeros(n_series), np.zeros((n_series, n_series))
    weights = np.eye(n_series, len(companion))
    for _ in range(horizon):
        psi = weights[:, :n_series]
        shift = shift + psi @ var.intercept
        noise = noise + psi @ var.covariance @ psi.T
        weights = weights @ companion
    return shift, weights, (noise + noise.T) / 2


def _settled(complete: NDArray[np.bool_], lags: int) -> NDArray[np.bool_]:
    """(T+1,) whether the `lags` rows before p exist and are all complete."""
    places = np.arange(len(complete))
    last_gap = np.maximum.accumulate(np.where(complete, -1, places)) if len(complete) else places
    return np.concatenate([[False], places - last_gap >= lags])


def _step(
    state: FloatArray,
    spread: FloatArray,
    row: FloatArray,
    companion: FloatArray,
    drift: FloatArray,
    innovation: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Predict one period, then condition on the observed entries of `row`: (m, P) of the next origin."""
    state = drift + companion @ state
    spread = companion @ spread @ companion.T + innovation
    observed = np.flatnonzero(np.isfinite(row))
    if len(observed):
        cross = spread[:, observed]
        gain = _gain(cross, cross[observed])
        state = state + gain @ (row[observed] - state[observed])
        state[observed] = row[observed]
        left = np.eye(len(state))
        left[:, observed] -= gain
        spread = left @ spread @ left.T
        spread[observed, :] = 0.0
        spread[:, observed] = 0.0
    return state, (spread + spread.T) / 2


def _gain(cross: FloatArray, variance: FloatArray) -> FloatArray:
    """P_.o P_oo^-1, a pseudo-inverse in correlation form: Q of too short a sample is singular."""
    sd = np.sqrt(np.maximum(np.diag(variance), 0.0))
    inverse_sd = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
    values, vectors = np.linalg.eigh(inverse_sd[:, None] * variance * inverse_sd)
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=values > 1e-13 * len(values))
    return ((cross * inverse_sd) @ vectors * inverse) @ vectors.T * inverse_sd
