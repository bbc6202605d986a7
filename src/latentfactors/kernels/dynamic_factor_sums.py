"""Compiled sums of the dynamic factor model's iteration, which small panels spend their time on.

Each stands for a formula of `dynamic_factor_moments` or `factor_em`; matrices are packed as in `linalg.pack`.
"""

# The arrays are described where the functions are called; types are inferred at compilation.
# pyright: basic

from __future__ import annotations

import math

import numpy as np
from numba import njit

# A pivot this far below its diagonal sends an equation to LAPACK.
_SAFE_PIVOT = 1e-10


@njit(cache=True)
def packed_second_moments(means, covariances, r):  # pragma: no cover - compiled
    """(T, r (r+1)/2) E f_t f_t' of the leading r coordinates."""
    out = np.empty((means.shape[0], r * (r + 1) // 2))
    for t in range(means.shape[0]):
        place = 0
        for i in range(r):
            for j in range(i, r):
                out[t, place] = covariances[t, 0, i, j] + means[t, i] * means[t, j]
                place += 1
    return out


@njit(cache=True)
def packed_lagged_moments(means, covariances, time, gap, r):  # pragma: no cover - compiled
    """(G, r (r+1)/2) symmetric part of E f_t f_(t-gap)' at the given times."""
    out = np.empty((time.size, r * (r + 1) // 2))
    for g in range(time.size):
        t, place = time[g], 0
        past = t - gap
        for i in range(r):
            for j in range(i, r):
                both = covariances[t, gap, i, j] + covariances[t, gap, j, i]
                both += means[t, i] * means[past, j] + means[t, j] * means[past, i]
                out[g, place] = 0.5 * both
                place += 1
    return out


@njit(cache=True)
def transition_sums(means, covariances, weights, p, r):  # pragma: no cover - compiled
    """S_11 (r, r), S_10 (r, r p), S_00 (r p, r p) over weighted transitions into t >= p; the start's."""
    n_periods = means.shape[0]
    present, cross = np.zeros((r, r)), np.zeros((r, p * r))
    past, start = np.zeros((p * r, p * r)), np.zeros((p * r, p * r))
    for t in range(p, n_periods):
        w = weights[t]
        for a in range(r):
            for b in range(r):
                present[a, b] += w * (covariances[t, 0, a, b] + means[t, a] * means[t, b])
                for lag in range(1, p + 1):
                    moment = covariances[t, lag, a, b] + means[t, a] * means[t - lag, b]
                    cross[a, (lag - 1) * r + b] += w * moment
                for i in range(p):
                    at = t - 1 - i
                    for j in range(i, p):
                        # E f_(t-1-i) f_(t-1-j)' sits at period t-1-i with lag j-i
                        moment = covariances[at, j - i, a, b] + means[at, a] * means[at - j + i, b]
                        past[i * r + a, j * r + b] += w * moment
                        if t == p:
                            start[i * r + a, j * r + b] = moment
    for i in range(r, p * r):
        for j in range((i // r) * r):
            past[i, j], start[i, j] = past[j, i], start[j, i]
    return present, cross, past, start


@njit(cache=True)
def normal_equations(
    power, variance, gaps, now, cross, before, value_now, value_cross, value_before
):  # pragma: no cover - compiled
    """sum_d w_d E f~ f~' (n, r, r), sum_d w_d E f~ y~ (n, r); f~ = f_t - phi^d f_(t-d), w_d = 1/variance."""
    kinds, n, r = value_now.shape
    total, vectors = np.zeros((n, r, r)), np.zeros((n, r))
    for d in range(kinds):
        for s in range(n):
            w, c = 1.0 / variance[d, s], power[d, s]
            for i in range(r):
                vectors[s, i] += w * value_now[d, s, i]
                for j in range(r):
                    total[s, i, j] += w * now[d, s, i, j]
            if gaps[d] == 0:
                continue
            for i in range(r):
                vectors[s, i] += w * c * (c * value_before[d, s, i] - value_cross[d, s, i])
                for j in range(r):
                    total[s, i, j] += w * c * (c * before[d, s, i, j] - 2.0 * cross[d, s, i, j])
    return total, vectors


@njit(cache=True)
def solve_each(normal, right, ridge):  # pragma: no cover - compiled
    """(n, r) solutions of n systems (normal + ridge * mean diagonal) x = right; whether all were safe."""
    n, r = right.shape
    out, root = np.zeros((n, r)), np.zeros((r, r))
    for s in range(n):
        trace = 0.0
        for i in range(r):
            trace += normal[s, i, i] / r
        add = ridge * (trace if trace > 0.0 else 1.0)
        for i in range(r):
            for j in range(i + 1):
                total = normal[s, i, j]
                if i == j:
                    total += add
                for k in range(j):
                    total -= root[i, k] * root[j, k]
                if i == j:
                    if not total > _SAFE_PIVOT * normal[s, i, i]:
                        return out, False
                    root[i, i] = math.sqrt(total)
                else:
                    root[i, j] = total / root[j, j]
        for i in range(r):
            total = right[s, i]
            for k in range(i):
                total -= root[i, k] * out[s, k]
            out[s, i] = total / root[i, i]
        for i in range(r - 1, -1, -1):
            total = out[s, i]
            for k in range(i + 1, r):
                total -= root[k, i] * out[s, k]
            out[s, i] = total / root[i, i]
    return out, True
