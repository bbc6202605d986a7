"""What the maximisation steps of the dynamic factor model need from its E-step, and the step of the loadings.

    sums over the pairs of a series of one kind: d periods apart (d = 0: its first observation), with the same
    broken periods between
        count, E f_t f_t', E f_t f_(t-d)', E f_(t-d) f_(t-d)', and the same with y in place of one or both

are sufficient: whatever lambda, phi and s are,

    loadings     sum_d w_d E[f~ f~'] lambda = sum_d w_d E[f~ y~],  f~ = f_t - phi^d f_(t-d),
                 w_d = 1/variance_d
    residuals    E e_t e_(t-d) = y_t y_(t-d) - lambda'(...) + lambda'(...) lambda

Low frequency    complete data are the latent high-frequency y* = lambda'f + e, so lambda moves by
                 N^-1 sum E[f~ e~]; moments of (f, e) are over all periods, pairs one period apart
Cost             three products (n, G) @ (G, r (r+1)/2), once an iteration

References: Banbura & Modugno (2014), J. of Applied Econometrics 29(1), 133-160, eqs. (11)-(12); Meng & Rubin
(1993), Biometrika 80, on ECM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    Expectation,
    ObservationPattern,
    pair_weights,
    shock_precision,
)
from latentfactors.kernels.dynamic_factor_sums import (
    normal_equations,
    packed_lagged_moments,
    packed_second_moments,
    solve_each,
)
from latentfactors.kernels.linalg import unpack

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Relative to an equation's mean diagonal.
_RIDGE = 1e-13


@dataclass(frozen=True, eq=False)
class ExpectedMoments:
    """Expected sums over pairs, by kind d and ordinary series.

    Attributes
    ----------
    now, cross, before : (D, n_ordinary, r, r) of f_t f_t', (f_t f_(t-d)' + its transpose)/2, f_(t-d) f_(t-d)'
    value_now, value_before : (D, n_ordinary, r) of y_t f_t and y_(t-d) f_(t-d)
    value_cross : (D, n_ordinary, r) of y_t f_(t-d) + y_(t-d) f_t
    low_now, low_before, low_cross, low_first : (m, m) of x_t x_t', x_(t-1) x_(t-1)', the symmetric part of
        x_t x_(t-1)' over t >= 1, each over c_t^2, and of x_0 x_0'; x = (f, idiosyncratic terms of the
        aggregates)
    n_periods : T + lead
    """

    now: FloatArray
    cross: FloatArray
    before: FloatArray
    value_now: FloatArray
    value_cross: FloatArray
    value_before: FloatArray
    low_now: FloatArray
    low_before: FloatArray
    low_cross: FloatArray
    low_first: FloatArray
    n_periods: int


@dataclass(frozen=True, eq=False)
class ResidualMoments:
    """Expected squares of the idiosyncratic terms, by series and kind.

    Attributes
    ----------
    gaps : (K,) ascending; 0 for first observations (or white noise) that follow a broken period
    window : (K, M) as in `ObservationPattern`
    first : (n,) sum of E e^2 over the other first observations
    n_first : (n,) their number
    now, cross, before : (n, K) sums of E e_t^2, E e_t e_(t-d), E e_(t-d)^2
    count : (n, K)
    """

    gaps: npt.NDArray[np.int64]
    window: npt.NDArray[np.int64]
    first: FloatArray
    n_first: FloatArray
    now: FloatArray
    cross: FloatArray
    before: FloatArray
    count: FloatArray


def expected_moments(
    expected: Expectation, pattern: ObservationPattern, parameters: DynamicFactorParameters
) -> ExpectedMoments:
    """Sums over the pairs of the factors with every series."""
    r = parameters.loadings.shape[1]
    means = np.ascontiguousarray(expected.means[:, :r])
    squares = packed_second_moments(means, expected.covariances, r)
    n, k, n_gaps = pattern.ordinary.size, squares.shape[1], pattern.gaps.size
    if pattern.untied and not pattern.low.size:
        whole = pattern.time.size == len(means)
        present = pattern.present.T @ (squares if whole else squares[pattern.time])
        values = pattern.current.T @ (means if whole else means[pattern.time])
        none, nothing, low = np.zeros((1, n, r, r)), np.zeros((1, n, r)), np.zeros((0, 0))
        return ExpectedMoments(
            unpack(present)[None], none, none, values[None], nothing, nothing, low, low, low, low, len(means)
        )
    matrices, vectors = np.zeros((n_gaps, n, 3 * k)), np.zeros((n_gaps, n, 3 * r))
    for d, gap in enumerate(pattern.gaps):
        block = slice(pattern.offsets[d], pattern.offsets[d + 1])
        time, present, current = pattern.time[block], pattern.present[block].T, pattern.current[block].T
        if gap == 0:
            matrices[d, :, :k] = present @ squares[time]
            vectors[d, :, :r] = current @ means[time]
            continue
        before, previous = time - gap, pattern.previous[block].T
        lagged = packed_lagged_moments(means, expected.covariances, time, gap, r)
        matrices[d] = present @ np.hstack([squares[time], lagged, squares[before]])
        vectors[d, :, : 2 * r] = current @ np.hstack([means[time], means[before]])
        vectors[d, :, r:] += previous @ np.hstack([means[time], means[before]])
    full = unpack(matrices.reshape(-1, 3 * k).reshape(-1, k)).reshape(n_gaps, n, 3, r, r)
    low_now = low_before = low_cross = low_first = np.zeros((0, 0))
    if pattern.low.size:
        precision = shock_precision(parameters, pattern)[1:] if pattern.broken.size else None
        end = expected.means.shape[0]
        low_now = second_moment(expected, 0, 1, end, precision)
        low_before = second_moment(expected, 0, 0, end - 1, precision)
        low_cross = second_moment(expected, 1, 1, end, precision)
        low_first = second_moment(expected, 0, 0, 1)
    return ExpectedMoments(
        now=full[:, :, 0],
        cross=full[:, :, 1],
        before=full[:, :, 2],
        value_now=vectors[:, :, :r],
        value_cross=vectors[:, :, r : 2 * r],
        value_before=vectors[:, :, 2 * r :],
        low_now=low_now,
        low_before=low_before,
        low_cross=0.5 * (low_cross + low_cross.T),
        low_first=low_first,
        n_periods=expected.means.shape[0],
    )


def second_moment(
    expected: Expectation, lag: int, first: int, last: int, weights: FloatArray | None = None
) -> FloatArray:
    """(m, m) sum over t = first, ..., last - 1 of w_t E x_t x_(t-lag)'; first >= lag, w_t = 1 if None."""
    present, past = expected.means[first:last], expected.means[first - lag : last - lag]
    covariances = expected.covariances[first:last, lag]
    if weights is None:
        return covariances.sum(axis=0) + present.T @ past
    return np.tensordot(weights, covariances, 1) + (weights[:, None] * present).T @ past


# ------------------------------------------------------------------------------------------ the loadings


def loading_step(
    parameters: DynamicFactorParameters,
    moments: ExpectedMoments,
    pattern: ObservationPattern,
    allowed: BoolArray | None = None,
) -> DynamicFactorParameters:
    """lambda_i = (sum w E[f~ f~'])^-1 sum w E[f~] y~, given phi and s.

    `allowed` (n, r): loadings that are not fixed at zero (blocks).
    """
    normal, right = loading_equations(parameters, moments, pattern)
    return replace(parameters, loadings=_solve_allowed(normal, right, allowed))


def loading_score(
    parameters: DynamicFactorParameters,
    moments: ExpectedMoments,
    pattern: ObservationPattern,
    allowed: BoolArray | None = None,
) -> float:
    """Root mean square of the score of the loadings in complete-data standard errors, g_k / N_kk^1/2."""
    normal, right = loading_equations(parameters, moments, pattern)
    score = right - np.einsum("nij,nj->ni", normal, parameters.loadings)
    size = np.sqrt(np.maximum(np.einsum("nii->ni", normal), np.finfo(float).tiny))
    scaled = score / size
    return float(np.sqrt(np.mean((scaled if allowed is None else scaled[allowed]) ** 2)))


def loading_equations(
    parameters: DynamicFactorParameters, moments: ExpectedMoments, pattern: ObservationPattern
) -> tuple[FloatArray, FloatArray]:
    """Normal matrices (n, r, r) and right sides (n, r) of the generalised least squares of all series."""
    n, r = parameters.loadings.shape
    power, variance = pair_weights(parameters, pattern)
    total, vectors = normal_equations(
        power,
        variance,
        pattern.gaps,
        moments.now,
        moments.cross,
        moments.before,
        moments.value_now,
        moments.value_cross,
        moments.value_before,
    )
    if not pattern.low.size:
        return total, vectors
    normal, right = np.zeros((n, r, r)), np.zeros((n, r))
    normal[pattern.ordinary], right[pattern.ordinary] = total, vectors
    for k, series in enumerate(pattern.low):
        phi = parameters.persistence[series]
        total = moments.low_now - 2.0 * phi * moments.low_cross + phi**2 * moments.low_before
        total = (total + (1.0 - phi**2) * moments.low_first) / parameters.variance[series]
        normal[series] = total[:r, :r]
        # e is x[r + k]; the latent series' quasi-difference is lambda'f~ + e~
        right[series] = total[:r, :r] @ parameters.loadings[series] + total[:r, r + k]
    return normal, right


def _solve_allowed(normal: FloatArray, right: FloatArray, allowed: BoolArray | None) -> FloatArray:
    """Solutions of n small systems, restricted to the allowed coordinates."""
    n, r = right.shape
    everywhere = allowed is None or bool(allowed.all())
    if everywhere:
        solution, safe = solve_each(normal, right, _RIDGE)
        if safe:
            return solution
    # relative to the equation's own size: a factor that a series hardly sees must not blow up its loading
    trace = np.einsum("nii->n", normal) / r
    ridge = _RIDGE * np.where(trace > 0.0, trace, 1.0)
    normal = normal + ridge[:, None, None] * np.eye(r)
    if allowed is None or everywhere:
        return np.asarray(np.linalg.solve(normal, right[:, :, None])[:, :, 0], dtype=np.float64)
    solution = np.zeros((n, r))
    for pattern in np.unique(allowed, axis=0):
        rows, free = np.flatnonzero((allowed == pattern).all(axis=1)), np.flatnonzero(pattern)
        if free.size:
            block = normal[np.ix_(rows, free, free)]
            solution[np.ix_(rows, free)] = np.linalg.solve(block, right[np.ix_(rows, free)][:, :, None])[
                :, :, 0
            ]
    return solution


# ------------------------------------------------------------------------------------------ the residuals


def residual_moments(
    parameters: DynamicFactorParameters,
    old_loadings: FloatArray,
    moments: ExpectedMoments,
    pattern: ObservationPattern,
) -> ResidualMoments:
    """Moments of e_it = y_it - lambda_i'f_t given the data, for the series in their order.

    `old_loadings`: those of the E-step; a low-frequency e was defined with them.
    """
    n, r = parameters.loadings.shape
    loadings = parameters.loadings[pattern.ordinary]
    kinds = (
        (moments.value_now, moments.now, 2.0),
        (moments.value_cross, moments.cross, 1.0),
        (moments.value_before, moments.before, 2.0),
    )

    def square(kind: int, d: int) -> FloatArray:
        vectors, matrices, times = kinds[kind]
        half = np.matmul(matrices[d], loadings[:, :, None])[:, :, 0] - times * vectors[d]
        return pattern.squares[kind, d] + (half * loadings).sum(axis=1)

    plain = pattern.plain
    if pattern.untied and plain[0] and not pattern.low.size:
        return ResidualMoments(
            pattern.gaps[:0], pattern.window[:0], square(0, 0), pattern.count[0], *[np.zeros((n, 0))] * 4
        )
    is_first = plain & (pattern.gaps == 0)
    gaps, window = pattern.gaps[~is_first], pattern.window[~is_first]
    neighbours = np.flatnonzero((gaps == 1) & plain[~is_first])
    added = int(pattern.low.size > 0 and not neighbours.size)
    if added:
        gaps, window = np.append(1, gaps), np.vstack([np.full((1, window.shape[1]), -1), window])
    shape = (n, gaps.size)
    first, n_first = np.zeros(n), np.zeros(n)
    found = [np.zeros(shape) for _ in range(4)]
    for d in np.flatnonzero(is_first).tolist():
        first[pattern.ordinary], n_first[pattern.ordinary] = square(0, d), pattern.count[d]
    for column, d in enumerate(np.flatnonzero(~is_first).tolist(), start=added):
        for k in range(3 if pattern.gaps[d] else 1):
            found[k][pattern.ordinary, column] = square(k, d)
        found[3][pattern.ordinary, column] = pattern.count[d]
    # the sums of an aggregate are weighted already, so all its pairs are of one kind
    own = 0 if added or not neighbours.size else int(neighbours[0])
    for k, series in enumerate(pattern.low):
        # e under the new loadings is (old - new)'f + e under the old ones
        row = np.zeros(moments.low_now.shape[0])
        row[:r] = old_loadings[series] - parameters.loadings[series]
        row[r + k] = 1.0
        first[series], n_first[series] = row @ moments.low_first @ row, 1.0
        squares = (row @ each @ row for each in (moments.low_now, moments.low_cross, moments.low_before))
        for target, value in zip(found, (*squares, moments.n_periods - 1.0), strict=True):
            target[series, own] = value
    return ResidualMoments(gaps, window, first, n_first, *found)
