"""Scales of broken periods: the step of c_t in the dynamic factor model.

In a broken period t all shocks are c_t times as large, u_t ~ N(0, c_t^2 Q) and v_it ~ N(0, c_t^2 s_i). With
a = c_t^2 the expected log-likelihood is -1/2 of

    f(a) = m log a + S/a + sum over pairs with t among their shocks [log v(a) + E(.)^2 / (s_i v(a))],
    v(a) = v_0 + phi_i^2j a,      j periods from t to the pair's end,  v_0 the share of the other shocks,

where S = E u'Q^-1 u + sum_k E v_k^2/s_k of the m shocks in the state (factors, latent series of aggregates).
Where t is alone in every pair, v_0 = 0 and a is the average of the standardised squares; a series that was
not observed in t makes f other than that, and the root of its slope is found by bisection in log a. One
period after another, so each step raises the expected log-likelihood.

References: Lenza & Primiceri (2022), How to estimate a VAR after March 2020, J. of Applied Econometrics
37(4), 688-699: free scales of all shocks in given months; Meng & Rubin (1993), Biometrika 80, on ECM.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    Expectation,
    ObservationPattern,
    excess,
    window_weights,
)
from latentfactors.kernels.dynamic_factor_moments import ResidualMoments

FloatArray = npt.NDArray[np.float64]

# Of log c^2: shocks a thousand times smaller or larger than usual.
_LOWEST, _HIGHEST = -14.0, 14.0


def scale_step(
    parameters: DynamicFactorParameters,
    old_loadings: FloatArray,
    expected: Expectation,
    residuals: ResidualMoments,
    pattern: ObservationPattern,
) -> DynamicFactorParameters:
    """The scale of every broken period that maximises its expected log-likelihood, given all else.

    `residuals` are under the new loadings, `old_loadings` those of the E-step.
    """
    for position in range(pattern.broken.size):
        terms = _terms(parameters, old_loadings, expected, residuals, pattern, position)
        scale = parameters.scale.copy()
        scale[position] = np.exp(0.5 * _best(terms, 2.0 * float(np.log(scale[position]))))
        parameters = replace(parameters, scale=scale)
    return parameters


def scale_score(
    parameters: DynamicFactorParameters,
    expected: Expectation,
    residuals: ResidualMoments,
    pattern: ObservationPattern,
) -> FloatArray:
    """(M,) derivatives of the expected log-likelihood by log c."""
    score = np.zeros(pattern.broken.size)
    for position in range(score.size):
        terms = _terms(parameters, parameters.loadings, expected, residuals, pattern, position)
        score[position] = -_slope(terms, 2.0 * float(np.log(parameters.scale[position])))
    return score


# Rows of counts, squares, v_0 and phi^2j; the state's shocks are the first column, with v_0 = 0.
Terms = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def _terms(
    parameters: DynamicFactorParameters,
    old_loadings: FloatArray,
    expected: Expectation,
    residuals: ResidualMoments,
    pattern: ObservationPattern,
    position: int,
) -> Terms:
    phi, s = parameters.persistence, parameters.variance
    columns = np.flatnonzero(residuals.window[:, position] >= 0)
    gap = residuals.gaps[columns, None]
    power = np.where(gap > 0, phi**gap, 0.0)
    weights = window_weights(phi, residuals.window[columns])
    own = weights[:, :, position]
    rest = (1.0 - power**2) / (1.0 - phi**2) + weights @ excess(parameters)
    # what the other shocks of the pair add; rounding must not make it negative
    mine = own * parameters.scale[position] ** 2
    rest = np.maximum(rest - mine, 0.0)
    rest[rest < 1e-12 * np.maximum(mine, own)] = 0.0
    now, cross, before = (each[:, columns].T for each in (residuals.now, residuals.cross, residuals.before))
    squares = (now - 2.0 * power * cross + power**2 * before) / s
    counts = residuals.count[:, columns].T
    seen = counts > 0.0
    total, size = _state_shocks(parameters, old_loadings, expected, pattern, int(pattern.broken[position]))
    pieces = [
        np.append(first, each[seen])
        for first, each in zip((size, total, 0.0, 1.0), (counts, squares, rest, own), strict=True)
    ]
    return pieces[0], pieces[1], pieces[2], pieces[3]


def _state_shocks(
    parameters: DynamicFactorParameters,
    old_loadings: FloatArray,
    expected: Expectation,
    pattern: ObservationPattern,
    t: int,
) -> tuple[float, float]:
    """Sum of the standardised expected squares of u_t and of the aggregates' shocks, and their number."""
    p, r = parameters.transition.shape[:2]
    m, reach = r + pattern.low.size, p + 1
    # E x_(t-i) x_(t-j)' for i, j = 0, ..., p
    joint = np.zeros((reach, m, reach, m))
    for i in range(reach):
        for j in range(i, reach):
            mean = np.outer(expected.means[t - i], expected.means[t - j])
            joint[i, :, j] = expected.covariances[t - i, j - i] + mean
            joint[j, :, i] = joint[i, :, j].T
    joint = joint.reshape(reach * m, reach * m)
    rows = np.zeros((m, reach, m))
    rows[np.arange(r), 0, np.arange(r)] = 1.0
    rows[:r, 1:, :r] = -parameters.transition.transpose(1, 0, 2)
    for k, series in enumerate(pattern.low):
        # the latent series' own term under the new loadings, less phi times its past
        rows[r + k, 0, :r] = old_loadings[series] - parameters.loadings[series]
        rows[r + k, 0, r + k] = 1.0
        rows[r + k, 1] -= parameters.persistence[series] * rows[r + k, 0]
    shocks = rows.reshape(m, -1)
    second = shocks @ joint @ shocks.T
    total = float(np.trace(np.linalg.solve(parameters.innovation, second[:r, :r])))
    own = np.diag(second)[r:] / parameters.variance[pattern.low]
    return total + float(own.sum()), float(m)


def _value(terms: Terms, log_a: float) -> float:
    counts, squares, rest, own = terms
    v = rest + own * np.exp(log_a)
    return float((counts * np.log(v) + squares / v).sum())


def _slope(terms: Terms, log_a: float) -> float:
    """Derivative of f by log a."""
    counts, squares, rest, own = terms
    part = own * np.exp(log_a)
    v = rest + part
    return float((part / v * (counts - squares / v)).sum())


def _best(terms: Terms, start: float) -> float:
    """log a at a minimum of f, no higher than at the start."""
    counts, squares, rest, own = terms
    if not rest.any():
        # own divides out: every term is n log a + square/(own a)
        candidate = float(np.log((squares / own).sum() / counts.sum()))
        return min(max(candidate, _LOWEST), _HIGHEST)
    grid = np.linspace(_LOWEST, _HIGHEST, 57)
    best = int(np.argmin([_value(terms, each) for each in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    if _slope(terms, low) >= 0.0:
        high = low
    elif _slope(terms, high) <= 0.0:
        low = high
    while high - low > 1e-13 * max(abs(low), abs(high), 1.0):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if _slope(terms, middle) > 0.0:
            high = middle
        else:
            low = middle
    candidate = float(0.5 * (low + high))
    return candidate if _value(terms, candidate) <= _value(terms, start) else start
