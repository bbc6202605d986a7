"""Forecasts of every series from every origin, given the filtered law of the recent past.

With z = (x_t, ..., x_(t-D+1)) ~ N(m, C) given the data up to t (x = factors and the idiosyncratic terms of
aggregates), F the companion matrix of D periods and W_h = sum_(i<h) F^i W F^i':

    x_(t+h), ...      mean F^h m, covariance F^h C F^h' + W_h
    aggregate         its weights on (x_(t+h), x_(t+h-1), ...)
    ordinary series   last seen d periods before t, with k = d + h:  y_(t+h) = lambda'f_(t+h)
                      + phi^k (y_(t-d) - lambda'f_(t-d)) + N(0, s (1 - phi^2k)/(1 - phi^2)),
                      so mean and variance use the joint law of f_(t+h) and f_(t-d)

Shocks of broken periods up to the origin t have their scale, those after it the usual one: nobody knows at t
that they will break.

A series last seen D or more periods before t is forecast with its idiosyncratic term at its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    ObservationPattern,
    excess,
    forward_pass,
    observation_pattern,
    state_law,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Periods that the law of the recent past covers.
LARGEST_DEPTH = 25


@dataclass(frozen=True, eq=False)
class FilteredSequence:
    """The law of the recent past at every period t of T.

    Attributes
    ----------
    mean : (T, D, m) of x_t, x_(t-1), ...
    covariance : (T, D m, D m)
    since : (T, n) periods since the series was last seen, T + LARGEST_DEPTH where never
    last_value : (T, n) its value then, NaN where never
    pattern : how the values are observed
    """

    mean: FloatArray
    covariance: FloatArray
    since: IntArray
    last_value: FloatArray
    pattern: ObservationPattern


def filter_sequence(
    values: FloatArray,
    parameters: DynamicFactorParameters,
    weights: FloatArray,
    *,
    autoregressive: bool,
    broken: Sequence[int] | IntArray = (),
) -> FilteredSequence:
    """One-sided laws of (T, n) standardised values, NaN where missing; `broken` as the pattern has it."""
    n_periods = values.shape[0]
    pattern = observation_pattern(
        values,
        autoregressive=autoregressive,
        lags=parameters.transition.shape[0],
        weights=weights,
        broken=broken,
    )
    seen = np.isfinite(values)
    last = np.maximum.accumulate(np.where(seen, np.arange(n_periods)[:, None], -1), axis=0)
    # beyond every depth, in short sequences too
    since = np.where(last >= 0, np.arange(n_periods)[:, None] - last, n_periods + LARGEST_DEPTH)
    reach = pattern.weights.shape[1] if pattern.low.size else 1
    depth = max(parameters.transition.shape[0], reach)
    if autoregressive and pattern.ordinary.size:
        recent = since[:, pattern.ordinary]
        depth = max(depth, 1 + int(np.where(recent < LARGEST_DEPTH, recent, 0).max()))
    # no deeper than the sequence itself
    depth = min(depth, pattern.n_periods - 1)
    pattern = replace(pattern, band=max(pattern.band, depth - 1))
    forward, _ = forward_pass(parameters, pattern, keep=depth)
    taken = np.take_along_axis(np.where(seen, values, 0.0), np.maximum(last, 0), axis=0)
    return FilteredSequence(
        mean=forward.filtered_mean[pattern.lead :],
        covariance=forward.filtered_covariance[pattern.lead :],
        since=since,
        last_value=np.where(last >= 0, taken, np.nan),
        pattern=pattern,
    )


def forecast_sequence(
    filtered: FilteredSequence, parameters: DynamicFactorParameters, horizon: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Everything `horizon` periods after each of T origins.

    Parameters
    ----------
    horizon : 0 describes the origin itself

    Returns
    -------
    factors (T, r), their covariances (T, r, r), values (T, n), variances (T, n), standardised.
    """
    pattern = filtered.pattern
    n_periods, depth, m = filtered.mean.shape
    r = parameters.loadings.shape[1]
    power, noise = companion_power(parameters, pattern, depth, horizon)
    flat = filtered.mean.reshape(n_periods, depth * m)
    # period by period, so that an origin's bits do not depend on how many there are
    mean = np.stack([power @ each for each in flat]) if n_periods else np.zeros((0, depth * m))
    half = np.matmul(power, filtered.covariance)
    covariance = np.matmul(half, power.T) + noise
    values, variances = np.zeros(filtered.since.shape), np.zeros(filtered.since.shape)
    # the past that the future is joined with
    cross, own = half[:, :r], filtered.covariance
    for series in pattern.ordinary:
        values[:, series], variances[:, series] = _ordinary(
            filtered, parameters, int(series), horizon, mean[:, :r], covariance[:, :r, :r], cross, own, m
        )
    for k, series in enumerate(pattern.low):
        row = np.zeros((depth, m))
        reach = pattern.weights.shape[1]
        row[:reach, :r] = pattern.weights[k][:, None] * parameters.loadings[series]
        row[:reach, r + k] = pattern.weights[k]
        weight = row.ravel()
        values[:, series] = (mean * weight).sum(axis=1)
        variances[:, series] = np.einsum("i,tij,j->t", weight, covariance, weight)
    return mean[:, :r], covariance[:, :r, :r], values, np.maximum(variances, 0.0)


def companion_power(
    parameters: DynamicFactorParameters, pattern: ObservationPattern, depth: int, horizon: int
) -> tuple[FloatArray, FloatArray]:
    """F^h and W_h of the stacked (x_t, ..., x_(t-depth+1))."""
    transition, innovation, _ = state_law(parameters, pattern)
    p, m = transition.shape[:2]
    size = depth * m
    companion, shock = np.zeros((size, size)), np.zeros((size, size))
    companion[:m, : p * m] = np.hstack(list(transition))
    companion[m:, :-m] = np.eye(size - m)
    shock[:m, :m] = innovation
    power, noise = np.eye(size), np.zeros((size, size))
    for _ in range(horizon):
        noise = companion @ noise @ companion.T + shock
        power = companion @ power
    return power, noise


def _ordinary(
    filtered: FilteredSequence,
    parameters: DynamicFactorParameters,
    series: int,
    horizon: int,
    factors: FloatArray,
    covariance: FloatArray,
    cross: FloatArray,
    own: FloatArray,
    m: int,
) -> tuple[FloatArray, FloatArray]:
    """Means and variances of one ordinary series at every origin."""
    loading, phi, s = parameters.loadings[series], parameters.persistence[series], parameters.variance[series]
    r, depth = loading.size, filtered.mean.shape[1]
    since = filtered.since[:, series]
    mean = (factors * loading).sum(axis=1)
    variance = np.einsum("i,tij,j->t", loading, covariance, loading) + s / (1.0 - phi**2)
    variance += s * _broken_before(filtered, parameters, phi, since, horizon)
    for d in np.unique(since[since < depth]):
        rows = np.flatnonzero(since == d)
        lag = int(d)
        decay = phi ** (lag + horizon) if lag + horizon else 1.0
        if decay == 0.0:
            continue
        block = slice(lag * m, lag * m + r)
        before = (filtered.mean[rows, lag, :r] * loading).sum(axis=1)
        mean[rows] += decay * (filtered.last_value[rows, series] - before)
        joint = np.einsum("i,tij,j->t", loading, cross[rows][:, :, block], loading)
        past = np.einsum("i,tij,j->t", loading, own[rows][:, block, block], loading)
        variance[rows] += decay**2 * (past - s / (1.0 - phi**2)) - 2.0 * decay * joint
    return mean, variance


def _broken_before(
    filtered: FilteredSequence, parameters: DynamicFactorParameters, phi: float, since: IntArray, horizon: int
) -> FloatArray:
    """(T,) phi^2j (c^2 - 1) of the broken periods after a series was last seen and up to the origin."""
    out = np.zeros(since.size)
    origin = np.arange(since.size)
    depth = filtered.mean.shape[1]
    # a series not seen within the depth is forecast from the mean of its own term, as if never seen
    reach = np.where(since < depth, since, since.size + 1)
    for each, more in zip(filtered.pattern.broken - filtered.pattern.lead, excess(parameters), strict=True):
        lag = origin - each
        inside = (lag >= 0) & (lag < reach)
        out += np.where(inside, np.abs(phi) ** (2.0 * (np.maximum(lag, 0) + horizon)) * more, 0.0)
    return out
