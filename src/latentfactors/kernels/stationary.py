"""Compiled pieces of a stationary start: its covariance by doubling, small inverses, Gaussians at moments."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True)
def doubling_sum(noise, companion, doublings):  # pragma: no cover - compiled
    """W + F W F' + F^2 W F^2' + ... by P <- P + F P F', F <- F F; and whether it converged."""
    m = noise.shape[0]
    total, power = noise.copy(), companion.copy()
    half, step, square = np.zeros((m, m)), np.zeros((m, m)), np.zeros((m, m))
    for _ in range(doublings):
        for i in range(m):
            for j in range(m):
                a, b = 0.0, 0.0
                for k in range(m):
                    a += power[i, k] * total[k, j]
                    b += power[i, k] * power[k, j]
                half[i, j], square[i, j] = a, b
        for i in range(m):
            for j in range(i + 1):
                a, b = 0.0, 0.0
                for k in range(m):
                    a += half[i, k] * power[j, k]
                    b += half[j, k] * power[i, k]
                step[i, j] = 0.5 * (a + b)
        size, largest = 0.0, 0.0
        for i in range(m):
            for j in range(i + 1):
                total[i, j] += step[i, j]
                total[j, i] = total[i, j]
                if not math.isfinite(step[i, j]):
                    return total, False
                size, largest = max(size, abs(step[i, j])), max(largest, abs(total[i, j]))
        if size <= 1e-17 * largest:
            return total, True
        power[:, :] = square
    return total, False


@njit(cache=True)
def gaussian_value(covariance, second, count):  # pragma: no cover - compiled
    """-(count log|S| + tr(S^-1 M))/2 by a Cholesky factor of S; -inf where S is not positive definite."""
    m = covariance.shape[0]
    root = np.zeros((m, m))
    column = np.zeros(m)
    value = 0.0
    for i in range(m):
        for j in range(i + 1):
            total = covariance[i, j]
            for k in range(j):
                total -= root[i, k] * root[j, k]
            if i == j:
                if not total > 0.0:
                    return -np.inf
                root[i, i] = math.sqrt(total)
                value -= count * math.log(root[i, i])
            else:
                root[i, j] = total / root[j, j]
    for j in range(m):
        for i in range(m):
            total = second[i, j]
            for k in range(i):
                total -= root[i, k] * column[k]
            column[i] = total / root[i, i]
        for i in range(m - 1, j - 1, -1):
            total = column[i]
            for k in range(i + 1, m):
                total -= root[k, i] * column[k]
            column[i] = total / root[i, i]
        value -= 0.5 * column[j]
    return value


@njit(cache=True)
def inverse_and_logdet(covariance):  # pragma: no cover - compiled
    """S^-1 and log|S| of a small positive definite S by Cholesky; (inverse, -inf) where it is not."""
    m = covariance.shape[0]
    root, inverse = np.zeros((m, m)), np.zeros((m, m))
    logdet = 0.0
    for i in range(m):
        for j in range(i + 1):
            total = 0.5 * (covariance[i, j] + covariance[j, i])
            for k in range(j):
                total -= root[i, k] * root[j, k]
            if i == j:
                if not total > 0.0:
                    return inverse, -np.inf
                root[i, i] = math.sqrt(total)
                logdet += 2.0 * math.log(root[i, i])
            else:
                root[i, j] = total / root[j, j]
    column = np.zeros(m)
    for j in range(m):
        for i in range(m):
            total = 1.0 if i == j else 0.0
            for k in range(i):
                total -= root[i, k] * column[k]
            column[i] = total / root[i, i]
        for i in range(m - 1, -1, -1):
            total = column[i]
            for k in range(i + 1, m):
                total -= root[k, i] * column[k]
            column[i] = total / root[i, i]
        for i in range(j + 1):
            inverse[i, j] = column[i]
            inverse[j, i] = column[i]
    return inverse, logdet


@njit(cache=True)
def stationary_start(a, covariance, doublings):  # pragma: no cover - compiled
    """P_0 = F P_0 F' + Q of the companion form of A (r, r p); and whether it exists."""
    r, m = a.shape
    companion, noise = np.zeros((m, m)), np.zeros((m, m))
    companion[:r] = a
    for i in range(m - r):
        companion[r + i, i] = 1.0
    noise[:r, :r] = covariance
    return doubling_sum(noise, companion, doublings)


@njit(cache=True)
def var_value(present, cross, past, first, count, a, covariance, doublings):  # pragma: no cover - compiled
    """Expected log-likelihood of a VAR with its stationary start, and W(A); -inf outside the region."""
    r, m = a.shape
    residual = present.copy()
    for i in range(r):
        for k in range(m):
            half = -2.0 * cross[i, k]
            for h in range(m):
                half += a[i, h] * past[h, k]
            for j in range(r):
                residual[i, j] += half * a[j, k]
    for i in range(r):
        for j in range(i):
            mean = 0.5 * (residual[i, j] + residual[j, i])
            residual[i, j], residual[j, i] = mean, mean
    start, converged = stationary_start(a, covariance, doublings)
    if not converged:
        return -np.inf, residual
    value = gaussian_value(covariance, residual, count) + gaussian_value(start, first, 1.0)
    return (value if math.isfinite(value) else -np.inf), residual


@njit(cache=True)
def start_gradients(first, a, covariance, doublings):  # pragma: no cover - compiled
    """D_A (r, r p), D_Q (r, r) of -1/2 log|P_0| - 1/2 tr(P_0^-1 M), M the start's moment; and success."""
    r, m = a.shape
    slope_a, slope_q = np.zeros((r, m)), np.zeros((r, r))
    start, converged = stationary_start(a, covariance, doublings)
    inverse, logdet = inverse_and_logdet(start)
    if not converged or not math.isfinite(logdet):
        return slope_a, slope_q, False
    half, change, transposed = np.zeros((m, m)), np.zeros((m, m)), np.zeros((m, m))
    for i in range(m):
        for j in range(m):
            for k in range(m):
                half[i, j] += inverse[i, k] * first[k, j]
    for i in range(m):
        for j in range(m):
            total = -inverse[i, j]
            for k in range(m):
                total += half[i, k] * inverse[k, j]
            change[i, j] = 0.5 * total
    for i in range(m):
        for j in range(i):
            mean = 0.5 * (change[i, j] + change[j, i])
            change[i, j], change[j, i] = mean, mean
    for i in range(m):
        for j in range(r):
            transposed[i, j] = a[j, i]
    for i in range(m - r):
        transposed[i, r + i] = 1.0
    adjoint, converged = doubling_sum(change, transposed, doublings)
    for i in range(m):
        for j in range(m):
            # F P, whose first rows are A P and whose others are P moved down
            total = 0.0
            if i < r:
                for k in range(m):
                    total += a[i, k] * start[k, j]
            else:
                total = start[i - r, j]
            half[i, j] = total
    for i in range(r):
        for j in range(m):
            for k in range(m):
                slope_a[i, j] += 2.0 * adjoint[i, k] * half[k, j]
        for j in range(r):
            slope_q[i, j] = adjoint[i, j]
    return slope_a, slope_q, converged


@njit(cache=True)
def var_ascent(
    present, cross, past, first, count, a, covariance, doublings, halvings
):  # pragma: no cover - compiled
    """One round of the (A, Q) step of `factor_em`; False where the lagged moments are near singular."""
    r, m = a.shape
    value, _ = var_value(present, cross, past, first, count, a, covariance, doublings)
    if not math.isfinite(value):
        return a, covariance, False
    slope, _, found = start_gradients(first, a, covariance, doublings)
    if not found:
        return a, covariance, False
    numerator = cross.copy()
    for i in range(r):
        for k in range(m):
            for h in range(r):
                numerator[i, k] += covariance[i, h] * slope[h, k]
    target = np.zeros((r, m))
    if not _solve_right(numerator, past, target):
        return a, covariance, False
    share, old = 1.0, a
    for _ in range(halvings):
        candidate = old + share * (target - old)
        reached, _ = var_value(present, cross, past, first, count, candidate, covariance, doublings)
        if reached >= value:
            a, value = candidate, reached
            break
        share /= 2.0
    _, slope, found = start_gradients(first, a, covariance, doublings)
    if not found:
        return a, covariance, False
    _, residual = var_value(present, cross, past, first, count, a, covariance, doublings)
    half, goal = np.zeros((r, r)), np.zeros((r, r))
    for i in range(r):
        for j in range(r):
            for h in range(r):
                half[i, j] += covariance[i, h] * slope[h, j]
    for i in range(r):
        for j in range(r):
            total = residual[i, j]
            for h in range(r):
                total += 2.0 * half[i, h] * covariance[h, j]
            goal[i, j] = total / max(count, 1.0)
    share, start = 1.0, covariance
    for _ in range(halvings):
        candidate = start + share * (goal - start)
        reached, _ = var_value(present, cross, past, first, count, a, candidate, doublings)
        if reached >= value:
            return a, candidate, True
        share /= 2.0
    return a, covariance, True


@njit(cache=True)
def _solve_right(numerator, moment, out):  # pragma: no cover - compiled
    """out = numerator moment^-1 by Cholesky on the scale of the diagonal; False where that loses digits."""
    r, m = numerator.shape
    root, scale = np.zeros((m, m)), np.zeros(m)
    for i in range(m):
        if not moment[i, i] > 0.0:
            return False
        scale[i] = math.sqrt(moment[i, i])
    for i in range(m):
        for j in range(i + 1):
            total = moment[i, j] / (scale[i] * scale[j])
            for k in range(j):
                total -= root[i, k] * root[j, k]
            if i == j:
                if not total > 1e-8:
                    return False
                root[i, i] = math.sqrt(total)
            else:
                root[i, j] = total / root[j, j]
    for row in range(r):
        for i in range(m):
            total = numerator[row, i] / scale[i]
            for k in range(i):
                total -= root[i, k] * out[row, k]
            out[row, i] = total / root[i, i]
        for i in range(m - 1, -1, -1):
            total = out[row, i]
            for k in range(i + 1, m):
                total -= root[k, i] * out[row, k]
            out[row, i] = total / root[i, i]
        for i in range(m):
            out[row, i] /= scale[i]
    return True
