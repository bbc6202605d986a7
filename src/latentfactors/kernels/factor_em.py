"""The M-steps of dynamic factor models: loadings and noise, and a VAR with its stationary start.

Expected log-likelihood of zero-mean factors (E: given all data, by the smoother), apart from constants

    l(A, Q) = -1/2 log|P_0| - 1/2 tr(P_0^-1 E s_1 s_1') - n/2 log|Q| - 1/2 tr(Q^-1 W(A)),
    W(A) = S_11 - A S_10' - S_10 A' + A S_00 A',   A = (A_1 ... A_p),
    P_0 = F P_0 F' + Q, F the companion matrix,
    S_11 = sum E f_t f_t',  S_10 = sum E f_t s_(t-1)',  S_00 = sum E s_(t-1) s_(t-1)'  over n transitions.

The start moves with A and Q, so A = S_10 S_00^-1 is not the maximum: it may lower the likelihood or leave the
stationary region.

Step        with G = (P_0^-1 E s_1 s_1' P_0^-1 - P_0^-1)/2 and N = F'N F + G (the adjoint Lyapunov equation),
            the start has the gradients D_A = 2 (N F P_0)_(first r rows) and D_Q = N_(first r block). Solving
            the first-order conditions with these held,
                A+ = (S_10 + Q D_A) S_00^-1,   Q+ = (W(A) + 2 Q D_Q Q) / n,
            gives ascent directions, Q (dl/dA) S_00^-1 and (2/n) Q (dl/dQ) Q. A candidate is accepted only
            where l rises; otherwise the step is halved. The start weighs 1/n, so the first candidate is
            nearly always taken, and nearly the maximum.

References: Shumway & Stoffer (1982), Journal of Time Series Analysis 3(4), 253-264 (the steps with a free
start); Banbura & Modugno (2014), Journal of Applied Econometrics 29(1), 133-160, eqs. (6)-(11) (missing).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentfactors.kernels.linalg import outer_products, pack, solve_psd_batch, unpack
from latentfactors.kernels.state_space import (
    DOUBLINGS,
    Observations,
    SmootherResult,
)

FloatArray = NDArray[np.float64]

# Halvings of a step before the old parameters are kept.
_HALVINGS = 30


# Loadings and noise -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LoadingMoments:
    """Sums over the observed cells of each series; g the factors that the series load on.

    Attributes
    ----------
    cross : (d, k), sum_t z_tj E g_t
    second : (d, k, k), sum_t E g_t g_t' (one matrix repeated where no cell is missing)
    squares : (d,), sum_t z_tj^2
    counts : (d,), observed cells
    """

    cross: FloatArray
    second: FloatArray
    squares: FloatArray
    counts: FloatArray


def loading_moments(observations: Observations, mean: FloatArray, covariance: FloatArray) -> LoadingMoments:
    """Moments for `loading_step` from smoothed means (T, k) and covariances (T, k, k) of the factors."""
    packed = outer_products(mean) + pack(covariance)
    d = observations.mask.shape[1]
    if observations.complete.all():
        second = np.broadcast_to(unpack(packed.sum(axis=0)[None]), (d, mean.shape[1], mean.shape[1]))
    else:
        second = unpack(observations.mask.T @ packed)
    filled = observations.filled
    return LoadingMoments(
        filled.T @ mean, second, np.einsum("td,td->d", filled, filled), observations.mask.sum(axis=0)
    )


def loading_step(moments: LoadingMoments) -> FloatArray:
    """l_j = (sum E g g')^-1 sum z_tj E g, (d, k); minimum norm where a series has too few cells."""
    return solve_psd_batch(moments.second, moments.cross)


def residual_squares(moments: LoadingMoments, loadings: FloatArray) -> FloatArray:
    """sum_t E (z_tj - l_j'g_t)^2 over the observed cells of each series, (d,)."""
    fitted = np.einsum("dij,dj->di", moments.second, loadings)
    return moments.squares - np.einsum("di,di->d", loadings, 2.0 * moments.cross - fitted)


# Vector autoregression --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VarMoments:
    """Expected sufficient statistics of a zero-mean VAR(p) of r factors.

    Attributes
    ----------
    present : (r, r), S_11
    cross : (r, r p), S_10
    past : (r p, r p), S_00
    start : (r p, r p), E s s' of the first state
    count : transitions n
    """

    present: FloatArray
    cross: FloatArray
    past: FloatArray
    start: FloatArray
    count: int

    def of(self, factors: NDArray[np.intp]) -> VarMoments:
        """Moments of a block of factors: with block-diagonal A and Q every block is a VAR of its own."""
        r = len(self.present)
        lagged = np.concatenate([factors + lag * r for lag in range(len(self.past) // r)])
        return VarMoments(
            self.present[np.ix_(factors, factors)],
            self.cross[np.ix_(factors, lagged)],
            self.past[np.ix_(lagged, lagged)],
            self.start[np.ix_(lagged, lagged)],
            self.count,
        )


def var_moments(smoothed: SmootherResult, lags: int) -> VarMoments:
    """S_11, S_10, S_00 and the start's second moment, for a state at least `lags` deep.

    A deeper state reaches back before the first period: its oldest lags are the start, and the steps from
    there to f_1 are transitions like any other.
    """
    n_periods, r, m = smoothed.lagged.shape
    q = r * lags
    mean, covariance = smoothed.mean, smoothed.covariance
    first = covariance[0] + np.outer(mean[0], mean[0])
    present = covariance[1:, :r, :r].sum(axis=0) + mean[1:, :r].T @ mean[1:, :r]
    cross = smoothed.lagged[1:, :, :q].sum(axis=0) + mean[1:, :r].T @ mean[:-1, :q]
    past = covariance[:-1, :q, :q].sum(axis=0) + mean[:-1, :q].T @ mean[:-1, :q]
    earlier = range(0, m - q, r)
    for place in earlier:
        new, old = slice(place, place + r), slice(place + r, place + r + q)
        present, cross, past = present + first[new, new], cross + first[new, old], past + first[old, old]
    return VarMoments(present, cross, past, first[m - q :, m - q :], n_periods - 1 + len(earlier))


def expected_loglikelihood(moments: VarMoments, coefficients: FloatArray, covariance: FloatArray) -> float:
    """l(A, Q) of the module's first equation, the constant left out; -inf outside the admissible region.

    Parameters
    ----------
    moments : of r factors and p lags
    coefficients : (p, r, r)
    covariance : (r, r), Q
    """
    return _expected(moments, np.hstack(list(coefficients)), covariance)


def var_score(
    moments: VarMoments, coefficients: FloatArray, covariance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Gradients of l(A, Q) by A (p, r, r) and by Q (r, r), the start's law included."""
    a, r = np.hstack(list(coefficients)), len(covariance)
    slope_a, slope_q = _start_gradients(moments, a, covariance)
    precision = np.linalg.inv(covariance)
    slope_a = precision @ (moments.cross - a @ moments.past) + slope_a
    deviation = precision @ _value(moments, a, covariance)[1] @ precision
    slope_q = 0.5 * (deviation - moments.count * precision) + slope_q
    return slope_a.reshape(r, -1, r).transpose(1, 0, 2), slope_q


def var_step(
    moments: VarMoments,
    coefficients: FloatArray,
    covariance: FloatArray,
    *,
    free_covariance: bool = True,
    sweeps: int = 1,
) -> tuple[FloatArray, FloatArray]:
    """Raise l(A, Q) from the given point: a generalised M-step, stationary whenever the given point is.

    Parameters
    ----------
    moments : of r factors and p lags
    coefficients : (p, r, r), stationary
    covariance : (r, r), positive definite
    free_covariance : False keeps Q as given
    sweeps : rounds of (A, Q); more than one matters only in very short samples

    Returns
    -------
    coefficients, covariance : l is not below its value at the arguments, which come back where no step rises
    """
    r = len(covariance)
    a, q = np.hstack(list(coefficients)), covariance
    if free_covariance and sweeps == 1:
        from latentfactors.kernels.stationary import var_ascent

        new_a, new_q, safe = var_ascent(
            np.ascontiguousarray(moments.present),
            np.ascontiguousarray(moments.cross),
            np.ascontiguousarray(moments.past),
            np.ascontiguousarray(moments.start),
            float(moments.count),
            np.ascontiguousarray(a),
            np.ascontiguousarray(q),
            DOUBLINGS,
            _HALVINGS,
        )
        if safe:
            return np.ascontiguousarray(new_a.reshape(r, -1, r).transpose(1, 0, 2)), new_q
    value = _expected(moments, a, q)
    for _ in range(sweeps if math.isfinite(value) else 0):
        slope, _ = _start_gradients(moments, a, q)
        target = _right_divide(moments.cross + q @ slope, moments.past)
        a, value = _ascend(lambda new, q=q: _expected(moments, new, q), a, target, value)
        if free_covariance:
            _, slope = _start_gradients(moments, a, q)
            target = (_value(moments, a, q)[1] + 2.0 * q @ slope @ q) / max(moments.count, 1)
            q, value = _ascend(lambda new, a=a: _expected(moments, a, new), q, target, value)
    return np.ascontiguousarray(a.reshape(r, -1, r).transpose(1, 0, 2)), q


def _ascend(
    objective: Callable[[FloatArray], float], old: FloatArray, target: FloatArray, value: float
) -> tuple[FloatArray, float]:
    """The first point on the way back from the target to the old one at which the objective rises."""
    share = 1.0
    for _ in range(_HALVINGS):
        candidate = old + share * (target - old)
        reached = objective(candidate)
        if reached >= value:
            return candidate, reached
        share /= 2.0
    return old, value


def _expected(moments: VarMoments, a: FloatArray, covariance: FloatArray) -> float:
    return _value(moments, a, covariance)[0]


def _value(moments: VarMoments, a: FloatArray, covariance: FloatArray) -> tuple[float, FloatArray]:
    """l(A, Q) and W(A)."""
    from latentfactors.kernels.stationary import var_value

    value, residual = var_value(
        np.ascontiguousarray(moments.present),
        np.ascontiguousarray(moments.cross),
        np.ascontiguousarray(moments.past),
        np.ascontiguousarray(moments.start),
        float(moments.count),
        np.ascontiguousarray(a),
        np.ascontiguousarray(covariance),
        DOUBLINGS,
    )
    return float(value), residual


def _start_gradients(
    moments: VarMoments, a: FloatArray, covariance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """D_A (r, r p) and D_Q (r, r): gradients of -1/2 log|P_0| - 1/2 tr(P_0^-1 E s_1 s_1')."""
    from latentfactors.kernels.stationary import start_gradients

    slope_a, slope_q, found = start_gradients(
        np.ascontiguousarray(moments.start),
        np.ascontiguousarray(a),
        np.ascontiguousarray(covariance),
        DOUBLINGS,
    )
    if not found:
        raise ValueError("no stationary start with a positive definite covariance at these parameters")
    return slope_a, slope_q


def _right_divide(numerator: FloatArray, moment: FloatArray) -> FloatArray:
    """numerator @ moment^-1, by least squares on the scale of the diagonal where the moment is singular."""
    scale = np.sqrt(np.maximum(np.diag(moment), np.finfo(np.float64).tiny))
    correlation = moment / np.outer(scale, scale)
    return np.linalg.lstsq(correlation, (numerator / scale).T, rcond=1e-13)[0].T / scale
