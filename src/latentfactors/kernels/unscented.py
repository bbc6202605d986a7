"""Filter and smoother of factors behind a nonlinear measurement with AR(1) terms, by the unscented transform.

    f_t = A_1 f_(t-1) + ... + A_p f_(t-p) + u_t,  u_t ~ N(0, Q), stationary start
    y_it = sum_l w_il F_i(f_(t-l)) + e_it         w = (1, 0, ...) for an ordinary series; e AR(1) or iid

State z_t = (f_t, ..., f_(t-D+1)). An ordinary series seen d < D periods ago enters as a quasi-difference,

    y_t - phi^d y_(t-d) = F(f_t) - phi^d F(f_(t-d)) + N(0, s (1 - phi^2d)/(1 - phi^2));

one seen longer ago as if it were the first time. The term of an aggregate has its stationary variance and no
memory.

A measurement is a sum over lags of functions of one period's factors, so the transform is taken lag by lag on
r coordinates: with 2r + 1 points of f ~ N(m, P), P = L L',

    m,  m +- sqrt(r + k) L_j     weights k/(r + k), 1/(2(r + k)),  k = max(3 - r, 0)
    mu = E F(f),  J = Cov(F, f) P^-1,  rest = F - mu - J (f - m)

and F = mu + J (f - m) + rest: the whole of Cov(F) is kept, as a factor with one row a point. With A the
factor of Cov(y) less noise, B that of P and G = A R^-1 A', the update needs no n x n matrix:

    m <- m + B'(I + G)^-1 A R^-1 v,     P <- B'(I + G)^-1 B

A linear F is filtered exactly, up to the memory D.

References: Julier & Uhlmann (2004), Proceedings of the IEEE 92(3), 401-422; Sarkka (2013), Bayesian Filtering
and Smoothing, sections 5.5 and 8.2; Andreini, Izzo & Ricco (2020), Deep Dynamic Factor Models, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.dynamic_factor import DynamicFactorParameters
from latentfactors.kernels.gapped_residuals import last_seen
from latentfactors.kernels.state_space import companion_matrix, stationary_covariance

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Decoder = Callable[[FloatArray], FloatArray]
"""Factors (..., r) to values (..., n)."""

# Periods that the state covers at least, so that short gaps in a series keep its memory.
LEAST_DEPTH = 4


@dataclass(frozen=True, eq=False)
class Linearised:
    """F at f ~ N(m, P) as the unscented transform sees it, for a batch of laws.

    Attributes
    ----------
    mean : (..., n)
    slope : (..., n, r)
    rest : (..., 2r + 1, n), Cov(F) = J P J' + rest'rest
    """

    mean: FloatArray
    slope: FloatArray
    rest: FloatArray


@dataclass(frozen=True, eq=False)
class UnscentedFilter:
    """Laws of z_t = (f_t, ..., f_(t-D+1)) at every period.

    Attributes
    ----------
    mean : (T, D r) given values up to t
    covariance : (T, D r, D r)
    predicted_mean, predicted_covariance : given values up to t - 1
    companion, noise : (D r, D r)
    """

    mean: FloatArray
    covariance: FloatArray
    predicted_mean: FloatArray
    predicted_covariance: FloatArray
    companion: FloatArray
    noise: FloatArray


def linearise(decoder: Decoder, mean: FloatArray, covariance: FloatArray) -> Linearised:
    """The transform at laws with means (..., r) and covariances (..., r, r)."""
    r = mean.shape[-1]
    extra = max(3.0 - r, 0.0)
    values, vectors = np.linalg.eigh(covariance)
    # eigenvalues that rounding made negative are zero
    root = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    steps = np.sqrt(r + extra) * np.swapaxes(root, -1, -2)
    points = np.concatenate([np.zeros((*mean.shape[:-1], 1, r)), steps, -steps], axis=-2)
    weight = np.full(2 * r + 1, 0.5 / (r + extra))
    weight[0] = extra / (r + extra)
    image = decoder(mean[..., None, :] + points)
    centre = np.einsum("j,...jn->...n", weight, image)
    away = image - centre[..., None, :]
    cross = np.einsum("j,...jn,...jr->...nr", weight, away, points)
    inverse = np.where(
        values > 1e-14 * np.maximum(values[..., -1:], 1e-300), 1.0 / np.maximum(values, 1e-300), 0.0
    )
    slope = cross @ ((vectors * inverse[..., None, :]) @ np.swapaxes(vectors, -1, -2))
    rest = (away - points @ np.swapaxes(slope, -1, -2)) * np.sqrt(weight)[:, None]
    return Linearised(centre, slope, rest)


def depth_of(parameters: DynamicFactorParameters, weights: FloatArray) -> int:
    """D."""
    reach = 1 + int(np.flatnonzero((weights != 0.0).any(axis=0))[-1])
    return max(parameters.transition.shape[0], reach, LEAST_DEPTH)


def stationary_start(parameters: DynamicFactorParameters, depth: int) -> tuple[FloatArray, ...]:
    """Companion matrix and noise (D r, D r) of z, and its stationary covariance."""
    p, r = parameters.transition.shape[:2]
    padded = np.zeros((depth, r, r))
    padded[:p] = parameters.transition
    companion = companion_matrix(np.hstack(list(padded)))
    noise = np.zeros_like(companion)
    noise[:r, :r] = parameters.innovation
    return companion, noise, stationary_covariance(companion, noise)


def unscented_filter(
    values: FloatArray, decoder: Decoder, parameters: DynamicFactorParameters, weights: FloatArray
) -> UnscentedFilter:
    """One-sided laws of the factors behind (T, n) standardised values, NaN where missing.

    Parameters
    ----------
    values : (T, n)
    decoder : F, of standardised values
    parameters : the loadings are not used
    weights : (n, L) of aggregates, newest first
    """
    depth, r = depth_of(parameters, weights), parameters.innovation.shape[0]
    companion, noise, covariance = stationary_start(parameters, depth)
    mean = np.zeros(depth * r)
    target, coefficients, variance = measurement(values, parameters, weights, depth)
    n_periods = len(values)
    out = UnscentedFilter(
        mean=np.zeros((n_periods, depth * r)),
        covariance=np.zeros((n_periods, depth * r, depth * r)),
        predicted_mean=np.zeros((n_periods, depth * r)),
        predicted_covariance=np.zeros((n_periods, depth * r, depth * r)),
        companion=companion,
        noise=noise,
    )
    for t in range(n_periods):
        if t:
            mean, covariance = companion @ mean, companion @ covariance @ companion.T + noise
        out.predicted_mean[t], out.predicted_covariance[t] = mean, covariance
        seen = np.flatnonzero(np.isfinite(values[t]))
        if seen.size:
            mean, covariance = _update(
                mean, covariance, decoder, target[t, seen], coefficients[t][seen], variance[t, seen], seen, r
            )
        out.mean[t], out.covariance[t] = mean, covariance
    return out


def measurement(
    values: FloatArray, parameters: DynamicFactorParameters, weights: FloatArray, depth: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Targets (T, n), coefficients (T, n, D) of F at each lag, and noise variances (T, n)."""
    n_periods, n = values.shape
    phi, s = parameters.persistence, parameters.variance
    low = (weights[:, 1:] != 0.0).any(axis=1)
    before = last_seen(values)
    distance = np.arange(n_periods)[:, None] - before
    tied = (before >= 0) & (distance < depth) & ~low
    lag = np.where(tied, distance, 1)
    power = np.where(tied, phi**lag, 0.0)
    past = np.take_along_axis(np.where(np.isfinite(values), values, 0.0), np.maximum(before, 0), axis=0)
    coefficients = np.zeros((n_periods, n, depth))
    coefficients[:, :, : weights.shape[1]] = weights[:, :depth]
    rows, columns = np.nonzero(tied)
    coefficients[rows, columns, lag[rows, columns]] -= power[rows, columns]
    variance = s * (1.0 - power**2) / (1.0 - phi**2)
    variance[:, low] = aggregate_variance(phi[low], s[low], weights[low])
    return values - power * past, coefficients, variance


def aggregate_variance(phi: FloatArray, s: FloatArray, weights: FloatArray) -> FloatArray:
    """(n,) Var(sum_l w_l e_(t-l)) of stationary AR(1) terms."""
    lags = np.abs(np.subtract.outer(np.arange(weights.shape[1]), np.arange(weights.shape[1])))
    power = phi[:, None, None] ** lags
    return np.einsum("il,ilj,ij->i", weights, power, weights) * s / (1.0 - phi**2)


def _update(
    mean: FloatArray,
    covariance: FloatArray,
    decoder: Decoder,
    target: FloatArray,
    coefficients: FloatArray,
    variance: FloatArray,
    seen: IntArray,
    r: int,
) -> tuple[FloatArray, FloatArray]:
    size = mean.size
    sizes, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(sizes, 0.0))).T
    lags = np.flatnonzero(coefficients.any(axis=0))
    expected, slope, rests = np.zeros(seen.size), np.zeros((seen.size, size)), []
    for lag in lags:
        block = slice(lag * r, (lag + 1) * r)
        found = linearise(decoder, mean[block], covariance[block, block])
        weight = coefficients[:, lag]
        expected += weight * found.mean[seen]
        slope[:, block] += weight[:, None] * found.slope[seen]
        rests.append(weight * found.rest[:, seen])
    factor = np.vstack([root @ slope.T, *rests])
    gram = np.eye(len(factor)) + (factor / variance) @ factor.T
    reduced = np.linalg.solve(
        gram, np.column_stack([(factor / variance) @ (target - expected), np.eye(len(factor))[:, :size]])
    )
    posterior = root.T @ reduced[:size, 1:] @ root
    return mean + root.T @ reduced[:size, 0], 0.5 * (posterior + posterior.T)


def unscented_smoother(filtered: UnscentedFilter) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Means (T, D r), covariances given all values, and gains C_t, Cov(z_t, z_(t+1)) = C_t P_(t+1).

    The law of motion is linear, so this is the Rauch-Tung-Striebel pass.
    """
    mean, covariance = filtered.mean.copy(), filtered.covariance.copy()
    gains = np.zeros_like(covariance)
    for t in range(len(mean) - 2, -1, -1):
        predicted = filtered.predicted_covariance[t + 1]
        cross = filtered.companion @ filtered.covariance[t]
        gain = np.linalg.lstsq(predicted, cross, rcond=1e-13)[0].T
        gains[t] = gain
        mean[t] += gain @ (mean[t + 1] - filtered.predicted_mean[t + 1])
        change = gain @ (covariance[t + 1] - predicted) @ gain.T
        covariance[t] += 0.5 * (change + change.T)
    return mean, covariance, gains
