"""The compiled recursions of `state_space`: one forward pass, one backward pass, on packed information.

Both passes rest on one product that needs no inverse of a singular matrix: for semidefinite X = L L' and Y,

    (X^-1 + Y)^-1 = X (I + Y X)^-1 = L (I + L'Y L)^-1 L'.

It is the filter's update (X the predicted covariance, Y the period's information), the backward pass's step
over a transition (X the information, Y the innovation covariance) and the combination of the two (X the
filtered covariance, Y the information of the future). Nothing is subtracted from a covariance, so covariances
stay semidefinite, and the small ones keep their digits.

Layout   state s_t = (f_t, f_(t-1), ...), m entries, r of them factors; observations load on the leading k.
         s_t = (A s_(t-1) + c + u_t ; leading m - r entries of s_(t-1)),  A (r, m),  u_t ~ N(0, Q)
         packed symmetric (k, k): the upper triangle row by row, as in `linalg.pack`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# Relative change of a covariance below which it counts as settled.
_SETTLED = 1e-14
_EPS = float(np.finfo(np.float64).eps)
# Sums may be taken in any order, which lets the compiler vectorise them; the order is the same in every call.
_ANY_ORDER = {"reassoc", "contract"}


@njit(cache=True, error_model="numpy", fastmath=_ANY_ORDER)
def semidefinite_root(x, root):
    """Lower triangular L with L L' = X for semidefinite X (n, n); a pivot that is rounding: a zero column."""
    n = x.shape[0]
    for j in range(n):
        pivot = x[j, j]
        for h in range(j):
            pivot -= root[j, h] * root[j, h]
            root[h, j] = 0.0
        if pivot > 4.0 * n * _EPS * x[j, j]:
            pivot = math.sqrt(pivot)
            root[j, j] = pivot
            for i in range(j + 1, n):
                value = x[i, j]
                for h in range(j):
                    value -= root[i, h] * root[j, h]
                root[i, j] = value / pivot
        else:
            for i in range(j, n):
                root[i, j] = 0.0


@njit(cache=True, error_model="numpy", fastmath=_ANY_ORDER)
def _root_of_identity_plus(root, y, k, work, factor):
    """Cholesky factor of I + L_k' Y L_k, L_k the leading (k, k) block of L; returns its log determinant."""
    for i in range(k):
        for j in range(k):
            work[i, j] = 0.0
            factor[i, j] = 0.0
        factor[i, i] = 1.0
        for h in range(k):
            weight = y[i, h]
            for j in range(h + 1):
                work[i, j] += weight * root[h, j]
    for h in range(k):
        for i in range(h + 1):
            weight = root[h, i]
            if weight != 0.0:
                for j in range(i + 1):
                    factor[i, j] += weight * work[h, j]
    logdet = 0.0
    for i in range(k):
        for j in range(i):
            value = factor[i, j]
            for h in range(j):
                value -= factor[i, h] * factor[j, h]
            factor[i, j] = value / factor[j, j]
        value = factor[i, i]
        for h in range(i):
            value -= factor[i, h] * factor[i, h]
        # I + L'YL >= I, hence every pivot is at least 1: less is rounding.
        value = max(value, 1.0)
        logdet += math.log(value)
        factor[i, i] = math.sqrt(value)
    return logdet


@njit(cache=True, error_model="numpy", fastmath=_ANY_ORDER)
def _combine(root, y, k, work, factor, out):
    """out = L diag((I + L_k' Y L_k)^-1, I) L', Y (k, k); returns log |I + L_k' Y L_k|."""
    n = root.shape[0]
    logdet = _root_of_identity_plus(root, y, k, work, factor)
    for i in range(n):
        for j in range(k):  # rows of L_k times the inverse transpose of the factor
            value = root[i, j]
            for h in range(j):
                value -= work[i, h] * factor[j, h]
            work[i, j] = value / factor[j, j]
        for j in range(k, n):
            work[i, j] = root[i, j]
    for i in range(n):
        for j in range(i + 1):
            value = 0.0
            for h in range(n):
                value += work[i, h] * work[j, h]
            out[i, j] = value
            out[j, i] = value
    return logdet


@njit(cache=True, error_model="numpy", fastmath=_ANY_ORDER)
def _step(root, factor, k, score, step):
    """step = (I + L_k' Y L_k)^-1 L_k' score (k,): the mean moves by L step."""
    for j in range(k):
        value = 0.0
        for h in range(j, k):
            value += root[h, j] * score[h]
        for h in range(j):
            value -= factor[j, h] * step[h]
        step[j] = value / factor[j, j]
    for j in range(k - 1, -1, -1):
        value = step[j]
        for h in range(j + 1, k):
            value -= factor[h, j] * step[h]
        step[j] = value / factor[j, j]


@njit(cache=True, error_model="numpy", fastmath=_ANY_ORDER)
def _settled(new, old):
    """Whether two semidefinite matrices agree to rounding, entry by entry on the scale of their diagonals."""
    n = new.shape[0]
    for i in range(n):
        for j in range(i + 1):
            if abs(new[i, j] - old[i, j]) > _SETTLED * math.sqrt(new[i, i] * new[j, j]):
                return False
    return True


@njit(cache=True, error_model="numpy", fastmath=_ANY_ORDER)
def _unpack(packed, k, out):
    place = 0
    for i in range(k):
        for j in range(i, k):
            out[i, j] = packed[place]
            out[j, i] = packed[place]
            place += 1


@njit(cache=True, error_model="numpy", fastmath=_ANY_ORDER)
def _same(a, b):
    equal = True
    for i in range(a.shape[0]):
        equal = equal and a[i] == b[i]
    return equal


@njit(cache=True, error_model="numpy", fastmath=_ANY_ORDER)
def _predict_covariance(transition, innovation, covariance, work, out):
    """Covariance of s_(t+1) from that of s_t: A P A' + Q in front, the rest shifted."""
    r, m = transition.shape
    for i in range(r):
        for j in range(m):
            work[i, j] = 0.0
        for h in range(m):
            weight = transition[i, h]
            if weight != 0.0:
                for j in range(m):
                    work[i, j] += weight * covariance[h, j]
    for i in range(r):
        for j in range(i + 1):
            value = innovation[i, j]
            for h in range(m):
                value += work[i, h] * transition[j, h]
            out[i, j] = value
            out[j, i] = value
    for i in range(r, m):
        for j in range(r):
            out[i, j] = work[j, i - r]
            out[j, i] = work[j, i - r]
        for j in range(r, m):
            out[i, j] = covariance[i - r, j - r]


@njit(cache=True, error_model="numpy", fastmath=_ANY_ORDER)
def forward(linear, precision, transition, intercept, innovation, start_mean, start_covariance):
    """Filter: predicted and filtered moments, log-likelihood terms, and where covariances were copied from.

    Returns
    -------
    predicted_mean (T, m), predicted_covariance (T, m, m), mean (T, m), covariance (T, m, m), likelihood (T,)
    without the part that does not depend on the state, and source (T,): the last period whose filtered
    covariance was computed; periods with one source share it to the bit.
    """
    n_periods, k = linear.shape
    r, m = transition.shape
    predicted_mean = np.empty((n_periods, m))
    predicted_covariance = np.empty((n_periods, m, m))
    mean = np.empty((n_periods, m))
    covariance = np.empty((n_periods, m, m))
    likelihood = np.empty(n_periods)
    source = np.empty(n_periods, dtype=np.int64)
    information = np.zeros((k, k))
    root, work, factor = np.zeros((m, m)), np.zeros((m, m)), np.zeros((k, k))
    score, step = np.zeros(k), np.zeros(k)
    settled = False
    logdet = 0.0
    for t in range(n_periods):
        if t == 0:
            for i in range(m):
                predicted_mean[0, i] = start_mean[i]
                for j in range(m):
                    predicted_covariance[0, i, j] = start_covariance[i, j]
        same = t > 0 and _same(precision[t], precision[t - 1])
        if settled and same:
            source[t] = source[t - 1]
            for i in range(m):
                for j in range(m):
                    covariance[t, i, j] = covariance[t - 1, i, j]
        else:
            settled = False
            source[t] = t
            _unpack(precision[t], k, information)
            semidefinite_root(predicted_covariance[t], root)
            logdet = _combine(root, information, k, work, factor, covariance[t])

        for i in range(k):
            value = linear[t, i]
            for j in range(k):
                value -= information[i, j] * predicted_mean[t, j]
            score[i] = value
        _step(root, factor, k, score, step)
        for i in range(m):
            value = predicted_mean[t, i]
            for j in range(min(i + 1, k)):
                value += root[i, j] * step[j]
            mean[t, i] = value
        # The exponent at its maximum: rounding of the mean enters it only squared.
        value = -0.5 * logdet
        for i in range(k):
            product = linear[t, i]
            for j in range(k):
                product -= 0.5 * information[i, j] * mean[t, j]
            value += mean[t, i] * product - 0.5 * step[i] * step[i]
        likelihood[t] = value

        if t + 1 < n_periods:
            for i in range(r):
                value = intercept[i]
                for j in range(m):
                    value += transition[i, j] * mean[t, j]
                predicted_mean[t + 1, i] = value
            for i in range(r, m):
                predicted_mean[t + 1, i] = mean[t, i - r]
            if settled:
                for i in range(m):
                    for j in range(m):
                        predicted_covariance[t + 1, i, j] = predicted_covariance[t, i, j]
            else:
                _predict_covariance(transition, innovation, covariance[t], work, predicted_covariance[t + 1])
                settled = same and _settled(predicted_covariance[t + 1], predicted_covariance[t])
    return predicted_mean, predicted_covariance, mean, covariance, likelihood, source


@njit(cache=True, error_model="numpy", fastmath=_ANY_ORDER)
def backward(linear, precision, transition, intercept, innovation, mean, covariance, source):
    """Smoother: means (T, m), covariances (T, m, m) and Cov(f_t, s_(t-1)) (T, r, m), the first one zero.

    The future's information on s_t is carried as (Omega_t, omega_t), log density -s'Omega s / 2 + omega's,

        Psi = Omega_t + C_t = U U',  N = I + U'Q U,   Omega_(t-1) = A'U N^-1 U'A,
        omega_(t-1) = A'U N^-1 U^-1 (omega_t + b_t - Psi c)

    and joined with the filter: V_t = (P_t^-1 + Omega_t)^-1, mean a_t + V_t (omega_t - Omega_t a_t). Given
    s_(t-1) and everything later, f_t has slope H_t = A - Q U N^-1 U'A: the lag-one covariance is H_t V_(t-1).
    """
    n_periods, k = linear.shape
    r, m = transition.shape
    smoothed = np.empty((n_periods, m))
    spread = np.empty((n_periods, m, m))
    lagged = np.zeros((n_periods, r, m))
    future, previous, total = np.zeros((m, m)), np.zeros((m, m)), np.zeros((m, m))
    future_linear, x, step = np.zeros(m), np.zeros(m), np.zeros(m)
    root, work, factor = np.zeros((m, m)), np.zeros((m, m)), np.zeros((m, m))
    upper, small = np.zeros((m, m)), np.zeros((r, r))
    crossed, slope, factor_r = np.zeros((m, m)), np.zeros((r, m)), np.zeros((r, r))
    settled = False
    for t in range(n_periods - 1, -1, -1):
        if t == n_periods - 1 or not (settled and source[t] == source[t + 1]):
            semidefinite_root(covariance[t], root)
            _combine(root, future, m, work, factor, spread[t])
        else:
            for i in range(m):
                for j in range(m):
                    spread[t, i, j] = spread[t + 1, i, j]
        for i in range(m):
            value = future_linear[i]
            for j in range(m):
                value -= future[i, j] * mean[t, j]
            x[i] = value
        _step(root, factor, m, x, step)
        for i in range(m):
            value = mean[t, i]
            for j in range(i + 1):
                value += root[i, j] * step[j]
            smoothed[t, i] = value
        if t + 1 < n_periods:
            for i in range(r):
                for h in range(m):
                    weight = slope[i, h]
                    for j in range(m):
                        lagged[t + 1, i, j] += weight * spread[t, h, j]
        if t == 0:
            break

        same = t + 1 < n_periods and _same(precision[t], precision[t + 1])
        if not (settled and same):
            for i in range(m):
                for j in range(m):
                    total[i, j] = future[i, j]
            place = 0
            for i in range(k):
                for j in range(i, k):
                    total[i, j] = future[i, j] + precision[t, place]
                    total[j, i] = total[i, j]
                    place += 1
            semidefinite_root(total, upper)
            _root_of_identity_plus(upper, innovation, r, small, factor_r)
            for h in range(m):  # U'A, the leading r rows multiplied by the inverse of N's factor
                for j in range(m):
                    crossed[h, j] = upper[j + r, h] if j + r < m else 0.0
            for i in range(r):
                for h in range(i + 1):
                    weight = upper[i, h]
                    for j in range(m):
                        crossed[h, j] += weight * transition[i, j]
            for h in range(r):
                for i in range(h):
                    weight = factor_r[h, i]
                    for j in range(m):
                        crossed[h, j] -= weight * crossed[i, j]
                weight = 1.0 / factor_r[h, h]
                for j in range(m):
                    crossed[h, j] *= weight
            for i in range(m):
                for j in range(i + 1):
                    previous[i, j] = 0.0
            for h in range(m):
                for i in range(m):
                    weight = crossed[h, i]
                    if weight != 0.0:
                        for j in range(i + 1):
                            previous[i, j] += weight * crossed[h, j]
            for i in range(m):
                for j in range(i):
                    previous[j, i] = previous[i, j]
            settled = same and _settled(previous, future)
            for i in range(m):
                for j in range(m):
                    future[i, j] = previous[i, j]
            for i in range(r):  # slope = A - (Q U_r F'^-1)(F^-1 U_r'A)
                for j in range(r):
                    value = 0.0
                    for h in range(j, r):
                        value += innovation[i, h] * upper[h, j]
                    for h in range(j):
                        value -= small[i, h] * factor_r[j, h]
                    small[i, j] = value / factor_r[j, j]
                for j in range(m):
                    slope[i, j] = transition[i, j]
                for h in range(r):
                    weight = small[i, h]
                    for j in range(m):
                        slope[i, j] -= weight * crossed[h, j]

        for i in range(m):  # x = U^-1 (omega + b - Psi c), then the leading part through N's factor
            value = future_linear[i]
            if i < k:
                value += linear[t, i]
            for j in range(r):
                value -= total[i, j] * intercept[j]
            for j in range(i):
                value -= upper[i, j] * x[j]
            x[i] = value / upper[i, i] if upper[i, i] > 0.0 else 0.0
        for i in range(r):
            value = x[i]
            for j in range(i):
                value -= factor_r[i, j] * x[j]
            x[i] = value / factor_r[i, i]
        for j in range(m):
            value = 0.0
            for h in range(m):
                value += crossed[h, j] * x[h]
            future_linear[j] = value
    return smoothed, spread, lagged
