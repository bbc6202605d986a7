"""The compiled passes of `gaussian_sequence`, where the formulas are.

The window is kept as a dense (band + 1) m square of information, oldest period first. Every loop is over that
window, so nothing here depends on the number of series.
"""

# The arrays and their shapes are described by the callers; types are inferred at compilation.
# pyright: basic

from __future__ import annotations

import math

import numba
import numpy as np


@numba.njit(cache=True)
def eliminate_forward(
    n_periods,
    m,
    band,
    p,
    start,
    transition,
    strength,
    group_offsets,
    gap,
    now,
    cross,
    before,
    vector_now,
    vector_before,
    constraint_offsets,
    rows,
    value,
    position,
    shift,
    gain,
    variance,
    constraint_gain,
    constraint_shift,
    keep,
    means,
    covariances,
):  # pragma: no cover - compiled
    """Fill the law of every eliminated period; returns the log-likelihood and the last window (J, h)."""
    size, rest, r = (band + 1) * m, band * m, now.shape[1]
    J, h = np.zeros((size, size)), np.zeros(size)
    factor = np.zeros((size, size))
    solved = np.zeros((m, rest))
    total = 0.0
    for t in range(n_periods):
        # what begins here: the start's law once, later the transition into t
        if t == p - 1:
            low = size - p * m
            for i in range(p * m):
                for j in range(p * m):
                    J[low + i, low + j] += start[i, j]
        elif t >= p:
            low = size - (p + 1) * m
            for i in range((p + 1) * m):
                for j in range((p + 1) * m):
                    J[low + i, low + j] += strength[t] * transition[i, j]
        new = rest
        for g in range(group_offsets[t], group_offsets[t + 1]):
            d = gap[g]
            old = rest - d * m
            for i in range(r):
                h[new + i] += vector_now[g, i]
                for j in range(r):
                    J[new + i, new + j] += now[g, i, j]
            if d > 0:
                for i in range(r):
                    h[old + i] -= vector_before[g, i]
                    for j in range(r):
                        J[old + i, old + j] += before[g, i, j]
                        J[new + i, old + j] -= cross[g, i, j]
                        J[old + j, new + i] -= cross[g, i, j]
        for c in range(constraint_offsets[t], constraint_offsets[t + 1]):
            i = position[c]
            scale = rows[c, i]
            base = value[c] / scale
            total -= math.log(abs(scale))
            total += h[i] * base - 0.5 * J[i, i] * base * base
            constraint_shift[c] = base
            for j in range(size):
                constraint_gain[c, j] = 0.0 if j == i else -rows[c, j] / scale
            diagonal, own = J[i, i], h[i]
            for j in range(size):
                if j != i:
                    b = constraint_gain[c, j]
                    h[j] += b * own - J[j, i] * base - b * diagonal * base
            for j in range(size):
                if j == i:
                    continue
                b = constraint_gain[c, j]
                for k in range(size):
                    if k == i:
                        continue
                    e = constraint_gain[c, k]
                    if b != 0.0 or e != 0.0:
                        J[j, k] += b * J[i, k] + J[j, i] * e + b * e * diagonal
            # the pivot is determined: a coordinate that touches nothing keeps the window's shape
            for j in range(size):
                J[i, j] = 0.0
                J[j, i] = 0.0
            J[i, i] = 1.0
            h[i] = 0.0
        if keep > 0 and t >= p - 1:
            trailing_moments(J, h, max(band - t, 0) * m, keep * m, factor, means[t], covariances[t])
            offset = size - keep * m
            for c in range(constraint_offsets[t + 1] - 1, constraint_offsets[t] - 1, -1):
                gains = constraint_gain[c, offset:]
                _determine(position[c] - offset, gains, constraint_shift[c], means[t], covariances[t])
        if t >= band:
            # x_(t-band) given the rest of the window
            for i in range(m):
                for j in range(i + 1):
                    s = J[i, j]
                    for k in range(j):
                        s -= factor[i, k] * factor[j, k]
                    factor[i, j] = math.sqrt(s) if i == j else s / factor[j, j]
            for i in range(m):
                total -= math.log(factor[i, i])
                s = h[i]
                for k in range(i):
                    s -= factor[i, k] * shift[t, k]
                shift[t, i] = s / factor[i, i]
                total += 0.5 * shift[t, i] * shift[t, i]
                for j in range(rest):
                    s = J[i, m + j]
                    for k in range(i):
                        s -= factor[i, k] * solved[k, j]
                    solved[i, j] = s / factor[i, i]
            for k in range(m):
                for i in range(rest):
                    a = solved[k, i]
                    if a != 0.0:
                        h[m + i] -= a * shift[t, k]
                        for j in range(rest):
                            J[m + i, m + j] -= a * solved[k, j]
            for i in range(m - 1, -1, -1):
                s = shift[t, i]
                for k in range(i + 1, m):
                    s -= factor[k, i] * shift[t, k]
                shift[t, i] = s / factor[i, i]
                for j in range(rest):
                    s = -solved[i, j]
                    for k in range(i + 1, m):
                        s -= factor[k, i] * gain[t, k, j]
                    gain[t, i, j] = s / factor[i, i]
            for c in range(m):
                for i in range(m):
                    s = 1.0 if i == c else 0.0
                    for k in range(i):
                        s -= factor[i, k] * variance[t, k, c]
                    variance[t, i, c] = s / factor[i, i]
                for i in range(m - 1, -1, -1):
                    s = variance[t, i, c]
                    for k in range(i + 1, m):
                        s -= factor[k, i] * variance[t, k, c]
                    variance[t, i, c] = s / factor[i, i]
        for i in range(rest):
            h[i] = h[m + i]
            for j in range(rest):
                J[i, j] = J[m + i, m + j]
        for i in range(rest, size):
            h[i] = 0.0
            for j in range(size):
                J[i, j] = 0.0
                J[j, i] = 0.0
    return total, J[:rest, :rest].copy(), h[:rest].copy()


@numba.njit(cache=True)
def trailing_moments(J, h, low, keep, factor, mean, covariance):  # pragma: no cover - compiled
    """Moments of the last `keep` coordinates under the information (J, h) of coordinates low, low+1, ..."""
    size = J.shape[0]
    z = np.zeros(size)
    for i in range(low, size):
        for j in range(low, i + 1):
            s = J[i, j]
            for k in range(low, j):
                s -= factor[i, k] * factor[j, k]
            factor[i, j] = math.sqrt(s) if i == j else s / factor[j, j]
        s = h[i]
        for k in range(low, i):
            s -= factor[i, k] * z[k]
        z[i] = s / factor[i, i]
    first = max(size - keep, low)
    offset = size - keep
    for i in range(size - 1, first - 1, -1):
        s = z[i]
        for k in range(i + 1, size):
            s -= factor[k, i] * mean[k - offset]
        mean[i - offset] = s / factor[i, i]
    for c in range(first, size):
        for i in range(c, size):
            s = 1.0 if i == c else 0.0
            for k in range(c, i):
                s -= factor[i, k] * covariance[k - offset, c - offset]
            covariance[i - offset, c - offset] = s / factor[i, i]
        for i in range(size - 1, first - 1, -1):
            s = covariance[i - offset, c - offset] if i >= c else 0.0
            for k in range(i + 1, size):
                s -= factor[k, i] * covariance[k - offset, c - offset]
            covariance[i - offset, c - offset] = s / factor[i, i]


@numba.njit(cache=True)
def _determine(i, gains, shift, mean, covariance):  # pragma: no cover - compiled
    """Moments of coordinate i = shift + gains'x in place of the free coordinate i; gains[i] = 0."""
    size = gains.size
    row = np.zeros(size)
    mean[i] = shift
    for k in range(size):
        if gains[k] != 0.0:
            mean[i] += gains[k] * mean[k]
            for j in range(size):
                row[j] += gains[k] * covariance[k, j]
    own = 0.0
    for j in range(size):
        own += gains[j] * row[j]
    for j in range(size):
        covariance[i, j] = row[j]
        covariance[j, i] = row[j]
    covariance[i, i] = own


@numba.njit(cache=True)
def smooth_backward(
    band,
    shift,
    gain,
    variance,
    last_mean,
    last_covariance,
    constraint_offsets,
    constraint_gain,
    constraint_shift,
    constraint_position,
    means,
    covariances,
):  # pragma: no cover - compiled
    """Fill means (T, m) and covariances (T, band + 1, m, m) from the last period to the first."""
    n_periods, m = shift.shape
    size, rest = (band + 1) * m, band * m
    mean, S = np.zeros(size), np.zeros((size, size))
    mean[m:] = last_mean
    S[m:, m:] = last_covariance
    for t in range(n_periods - 1, -1, -1):
        if t >= band:
            for i in range(m):
                s = shift[t, i]
                for j in range(rest):
                    s += gain[t, i, j] * mean[m + j]
                mean[i] = s
                for k in range(rest):
                    s = 0.0
                    for j in range(rest):
                        s += gain[t, i, j] * S[m + j, m + k]
                    S[i, m + k] = s
                    S[m + k, i] = s
            for i in range(m):
                for k in range(i + 1):
                    s = variance[t, i, k]
                    for j in range(rest):
                        s += gain[t, k, j] * S[i, m + j]
                    S[i, k] = s
                    S[k, i] = s
        for c in range(constraint_offsets[t + 1] - 1, constraint_offsets[t] - 1, -1):
            _determine(constraint_position[c], constraint_gain[c], constraint_shift[c], mean, S)
        for i in range(m):
            means[t, i] = mean[rest + i]
        for lag in range(min(band, t) + 1):
            low = rest - lag * m
            for i in range(m):
                for j in range(m):
                    covariances[t, lag, i, j] = S[rest + i, low + j]
        for i in range(size - 1, m - 1, -1):
            mean[i] = mean[i - m]
        for i in range(size - 1, m - 1, -1):
            for j in range(size - 1, m - 1, -1):
                S[i, j] = S[i - m, j - m]
        for i in range(m):
            mean[i] = 0.0
            for j in range(size):
                S[i, j] = 0.0
                S[j, i] = 0.0
