"""Gaussian sequences with terms that reach back several periods and with exact linear observations.

    x_t = A_1 x_(t-1) + ... + A_p x_(t-p) + u_t,  u_t ~ N(0, Q), stationary start          x_t (m,)
    terms        -1/2 (a_g - B_g f_t + C_g f_(t-d))' W (.)  collapsed to information on f_t and f_(t-d), where f
                 is the leading part (r,) of x: what quasi-differences over d periods say
    constraints  sum_l c_l' x_(t-l) = v exactly: an aggregate observed without noise

Everything together is a Gaussian in (x_0, ..., x_(T-1)) whose precision has a band of `band` blocks, so it is
solved by eliminating one period at a time from a window of band + 1 periods:

    forward      append x_t and whatever ends in t; an exact constraint replaces its pivot, the coordinate that it
                 determines given the others; then x_(t-band) | later ~ N(g + G (x_(t-band+1), ..., x_t), V) with
                 V = J_oo^-1, G = -V J_or, g = V h_o, which leaves the window (J, h)
    likelihood   log p = constants + sum_t (g'J_oo g - log|J_oo|)/2 - log|pivots|
    backward     means and covariances of the window from those of the window after it: Sigma_oo = G Sigma G' + V

One forward pass costs O(T m (band m)^2): a block-banded Cholesky, read backwards a selected (Takahashi) inverse.
A state-space filter of the same law would carry every idiosyncratic term in its state.

Filtered     given the terms and constraints up to t: the trailing part of the window's own Cholesky

References: Rue & Held (2005), Gaussian Markov Random Fields, sections 2.4 (band Cholesky) and 2.3.3 (linear
constraints); Takahashi, Fagan & Chen (1973) on selected inverses; Jungbacker & Koopman (2015) on collapsing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Coupling:
    """Information on the leading r coordinates of x, collapsed over series; groups sorted by time.

    Group g at period t = time[g] with gap d = gap[g] adds to the precision: now to block (t, t), -cross to
    (t, t-d) and its transpose, before to (t-d, t-d); to the information vector: vector_now to t, -vector_before
    to t-d. Gap 0 has only `now`.

    Attributes
    ----------
    time, gap : (G,)
    now, cross, before : (G, r, r)
    vector_now, vector_before : (G, r)
    """

    time: IntArray
    gap: IntArray
    now: FloatArray
    cross: FloatArray
    before: FloatArray
    vector_now: FloatArray
    vector_before: FloatArray


@dataclass(frozen=True, eq=False)
class Constraints:
    """sum_l coefficients[c, l]' x_(time[c] - l) = value[c], exactly; sorted by time.

    Attributes
    ----------
    time, value : (C,)
    coefficients : (C, L, m)
    pivot_lag, pivot : (C,) the coordinate that the constraint determines; no two may name the same one, and no
        other constraint at a later time may touch it
    """

    time: IntArray
    value: FloatArray
    coefficients: FloatArray
    pivot_lag: IntArray
    pivot: IntArray


@dataclass(frozen=True, eq=False)
class Elimination:
    """What the forward pass leaves behind.

    Attributes
    ----------
    loglikelihood_part : log-likelihood without the constants of the coupling terms
    filtered_mean : (T, keep, m), newest first, or empty
    filtered_covariance : (T, keep m, keep m), newest first, or empty
    """

    band: int
    loglikelihood_part: float
    shift: FloatArray
    gain: FloatArray
    variance: FloatArray
    last_mean: FloatArray
    last_covariance: FloatArray
    constraint_gain: FloatArray
    constraint_shift: FloatArray
    constraint_position: IntArray
    constraint_offsets: IntArray
    filtered_mean: FloatArray
    filtered_covariance: FloatArray


def eliminate(
    n_periods: int,
    coefficients: FloatArray,
    innovation: FloatArray,
    start_covariance: FloatArray,
    coupling: Coupling,
    constraints: Constraints,
    *,
    band: int,
    keep: int = 0,
) -> Elimination:
    """The forward pass.

    Parameters
    ----------
    n_periods : T > band
    coefficients : (p, m, m), p >= 1
    innovation : (m, m), positive definite
    start_covariance : (p m, p m) of (x_0, ..., x_(p-1)), oldest first, positive definite
    band : at least p, every gap and every lag of a constraint
    keep : newest periods whose filtered moments are wanted; 0 for none, at most band + 1
    """
    p, m = coefficients.shape[:2]
    root = np.concatenate([-coefficients[::-1], np.eye(m)[None]]).transpose(1, 0, 2).reshape(m, -1)
    precision = np.linalg.inv(innovation)
    transition = root.T @ (0.5 * (precision + precision.T)) @ root
    start = np.linalg.inv(start_covariance)
    size = (band + 1) * m
    n_constraints = constraints.time.size
    order = np.arange(n_periods + 1)
    group_offsets = np.searchsorted(coupling.time, order)
    constraint_offsets = np.searchsorted(constraints.time, order)
    shift = np.zeros((n_periods, m))
    gain = np.zeros((n_periods, m, band * m))
    variance = np.zeros((n_periods, m, m))
    constraint_gain = np.zeros((n_constraints, size))
    constraint_shift = np.zeros(n_constraints)
    lags = constraints.coefficients.shape[1]
    rows = np.zeros((n_constraints, size))
    for lag in range(lags):
        rows[:, (band - lag) * m : (band - lag + 1) * m] = constraints.coefficients[:, lag]
    position = (band - constraints.pivot_lag) * m + constraints.pivot
    means = np.zeros((n_periods if keep else 0, keep * m))
    covariances = np.zeros((n_periods if keep else 0, keep * m, keep * m))
    total, window, vector = _forward(
        n_periods,
        m,
        band,
        p,
        start,
        transition,
        group_offsets,
        coupling.gap,
        coupling.now,
        coupling.cross,
        coupling.before,
        coupling.vector_now,
        coupling.vector_before,
        constraint_offsets,
        rows,
        constraints.value,
        position,
        shift,
        gain,
        variance,
        constraint_gain,
        constraint_shift,
        keep,
        means,
        covariances,
    )
    factor = np.linalg.cholesky(window)
    inverse = np.linalg.inv(factor)
    covariance = inverse.T @ inverse
    mean = covariance @ vector
    total += 0.5 * float(vector @ mean) - float(np.log(np.diag(factor)).sum())
    # log|2 pi| of the integrals, of the start and of the transitions: the start and every transition have
    # their own m, so with one integral a coordinate they cancel but for those that a constraint determined
    total -= 0.5 * n_constraints * math.log(2.0 * math.pi)
    total -= 0.5 * (
        np.linalg.slogdet(start_covariance)[1] + (n_periods - p) * np.linalg.slogdet(innovation)[1]
    )
    newest_first = means.reshape(means.shape[0], keep, m)[:, ::-1] if keep else means.reshape(0, 0, m)
    if keep:
        flip = np.arange(keep * m).reshape(keep, m)[::-1].ravel()
        covariances = covariances[:, flip][:, :, flip]
    return Elimination(
        band=band,
        loglikelihood_part=float(total),
        shift=shift,
        gain=gain,
        variance=variance,
        last_mean=mean,
        last_covariance=covariance,
        constraint_gain=constraint_gain,
        constraint_shift=constraint_shift,
        constraint_position=position,
        constraint_offsets=constraint_offsets,
        filtered_mean=newest_first,
        filtered_covariance=covariances,
    )


def smooth(elimination: Elimination) -> tuple[FloatArray, FloatArray]:
    """The backward pass: (T, m) means, (T, band + 1, m, m) covariances of x_t with x_(t-l).

    Covariances with a pivot of a constraint hold for lags up to the constraint's own pivot lag.
    """
    n_periods, m = elimination.shift.shape
    means = np.zeros((n_periods, m))
    covariances = np.zeros((n_periods, elimination.band + 1, m, m))
    _backward(
        elimination.band,
        elimination.shift,
        elimination.gain,
        elimination.variance,
        elimination.last_mean,
        elimination.last_covariance,
        elimination.constraint_offsets,
        elimination.constraint_gain,
        elimination.constraint_shift,
        elimination.constraint_position,
        means,
        covariances,
    )
    return means, covariances


@numba.njit(cache=True)
def _forward(
    n_periods,
    m,
    band,
    p,
    start,
    transition,
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
                    J[low + i, low + j] += transition[i, j]
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
            # the pivot is determined: a placeholder that touches nothing keeps the window's shape
            for j in range(size):
                J[i, j] = 0.0
                J[j, i] = 0.0
            J[i, i] = 1.0
            h[i] = 0.0
        if keep > 0 and t >= p - 1:
            _trailing_moments(J, h, max(band - t, 0) * m, keep * m, factor, means[t], covariances[t])
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
def _trailing_moments(J, h, low, keep, factor, mean, covariance):  # pragma: no cover - compiled
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
def _backward(
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
    n_periods, m = shift.shape
    size, rest = (band + 1) * m, band * m
    mean, S = np.zeros(size), np.zeros((size, size))
    mean[m:] = last_mean
    S[m:, m:] = last_covariance
    row = np.zeros(size)
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
            i = constraint_position[c]
            s = constraint_shift[c]
            for j in range(size):
                s += constraint_gain[c, j] * mean[j]
            mean[i] = s
            for j in range(size):
                s = 0.0
                for k in range(size):
                    if constraint_gain[c, k] != 0.0:
                        s += constraint_gain[c, k] * S[k, j]
                row[j] = s
            s = 0.0
            for j in range(size):
                s += constraint_gain[c, j] * row[j]
            for j in range(size):
                S[i, j] = row[j]
                S[j, i] = row[j]
            S[i, i] = s
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
