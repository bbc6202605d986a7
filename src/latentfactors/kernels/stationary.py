"""Compiled pieces of a stationary start: the doubling sum of its covariance, a Gaussian at its moments."""

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
