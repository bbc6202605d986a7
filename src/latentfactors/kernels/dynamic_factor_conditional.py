"""The joint law of any cells of a dynamic factor model given all that is observed, and who moves it.

With x the factors and the idiosyncratic terms of aggregates, J its precision after the ordinary observations,
h(y) their information, A x = v the exact observations and c'x the value of a cell,

    E[c'x | y, v] = z'h(y) + mu'v,    z = Cov(x, c'x | y, v),    A'mu = c - J z,    Var(c'x | y, v) = c'z

so one smoother run per cell gives its variance, its covariances with all other cells and the weight of every
observation. The run is the ordinary one on zeros with the cell itself observed as 1: its means are q = z/V,
and the multiplier of that last observation is -1/V. Multipliers follow from the rows of the idiosyncratic
terms, where J is the precision of an AR(1).

A series whose cells are wanted enters as exact observations of lambda'f_t + e_t, so that its own term has a
place in x. They are entered one period late, as aggregates with weights (0, 1): an exact observation fixes
its oldest term, which no later transition may touch. Nothing about the law changes.

References: Banbura & Modugno (2014), J. of Applied Econometrics 29(1), section 2.3; Koopman & Harvey
(2003), J. of Economic Dynamics and Control 27(7), on observation weights; Rue & Held (2005), section 2.3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    ObservationPattern,
    expectation,
    observation_pattern,
    pair_weights,
    shock_precision,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CellLaw:
    """The law of C cells, standardised.

    Attributes
    ----------
    mean : (C,)
    covariance : (C, C)
    weights : (C, T, n) of every observation in the mean, 0 where nothing is observed
    """

    mean: FloatArray
    covariance: FloatArray
    weights: FloatArray


def cell_law(
    values: FloatArray,
    parameters: DynamicFactorParameters,
    aggregation: FloatArray,
    cells: Sequence[tuple[int, int]],
    *,
    autoregressive: bool,
    broken: Sequence[int] | IntArray = (),
) -> CellLaw:
    """Mean, covariance and observation weights of cells (period, series) of (T, n) standardised values.

    Parameters
    ----------
    values : NaN where missing
    aggregation : (n, L) weights of an aggregate's periods, newest first
    cells : any; an observed one is what it is, without variance
    broken : as in `observation_pattern`
    """
    late, aggregation = _late(aggregation, [series for _, series in cells])

    def pattern_of(data: FloatArray) -> ObservationPattern:
        longer = np.vstack([data, np.full((1, data.shape[1]), np.nan)])
        longer[:, late] = np.roll(longer[:, late], 1, axis=0)
        return observation_pattern(
            longer,
            autoregressive=autoregressive,
            lags=parameters.transition.shape[0],
            weights=aggregation,
            broken=broken,
        )

    pattern, n_cells = pattern_of(values), len(cells)
    seen = np.isfinite(values)
    entered = [(time + int(late[series]), series) for time, series in cells]
    rows = [_row(cell, parameters, pattern) for cell in entered]
    means = expectation(parameters, pattern).means
    mean = np.array([_value(row, means) for row in rows])
    covariance, weights = np.zeros((n_cells, n_cells)), np.zeros((n_cells, *values.shape))
    zeros = np.where(seen, 0.0, np.nan)
    for k, (time, series) in enumerate(cells):
        if seen[time, series]:
            mean[k], weights[k, time, series] = values[time, series], 1.0
            continue
        unit = zeros.copy()
        unit[time, series] = 1.0
        with_cell = pattern_of(unit)
        direction = expectation(parameters, with_cell).means
        variance, total = _multipliers(direction, parameters, with_cell, entered[k])
        response = variance * direction
        total += _ordinary_weights(response, parameters, with_cell)
        total[:, late] = np.roll(total[:, late], -1, axis=0)
        weights[k] = total[:-1]
        covariance[k] = [_value(row, response) for row in rows]
    unknown = np.array([not seen[cell] for cell in cells])
    covariance *= unknown[:, None] & unknown[None, :]
    return CellLaw(mean, 0.5 * (covariance + covariance.T), weights)


def completed(
    values: FloatArray,
    parameters: DynamicFactorParameters,
    aggregation: FloatArray,
    *,
    autoregressive: bool,
    broken: Sequence[int] | IntArray = (),
) -> FloatArray:
    """(T, n) values with every missing one replaced by its mean given all that is observed.

    An ordinary series' own term between observations a periods before and b periods after is the bridge

        E[e_t] = (phi^a V_b e_(t-a) + phi^b V_a e_(t+b)) / (V_b + phi^2b V_a),

    with e = y - lambda'E[f] where y is observed, V_a the variance of e_t given e_(t-a) and V_b that of
    e_(t+b) given e_t, in units of s; without an observation before, e_(t-a) is 0 and V_a the variance of e_t;
    without one after, E[e_t] = phi^a e_(t-a).
    """
    pattern = observation_pattern(
        values,
        autoregressive=autoregressive,
        lags=parameters.transition.shape[0],
        weights=aggregation,
        broken=broken,
    )
    means = expectation(parameters, pattern).means
    r = parameters.loadings.shape[1]
    common = means[pattern.lead :, :r] @ parameters.loadings.T
    residual = values - common
    size = 1.0 / shock_precision(parameters, pattern)[pattern.lead :]
    out = common + np.where(np.isfinite(residual), residual, bridge(residual, parameters.persistence, size))
    for k, series in enumerate(pattern.low):
        own = means[:, :r] @ parameters.loadings[series] + means[:, r + k]
        total = np.zeros(values.shape[0])
        for lag, weight in enumerate(pattern.weights[k]):
            total += weight * own[pattern.lead - lag : pattern.lead - lag + total.size]
        out[:, series] = total
    return np.where(np.isfinite(values), values, out)


def bridge(residual: FloatArray, persistence: FloatArray, size: FloatArray | None = None) -> FloatArray:
    """Means of AR(1) paths (T, n) with shock variances `size` (T,), None: 1, given their observed points."""
    seen, phi = np.isfinite(residual), persistence
    size = np.ones(len(residual)) if size is None else size
    filled = np.where(seen, residual, 0.0)
    # the mean of e_t given the last observation, and its variance; at an observation the value and none
    mean, variance = np.zeros_like(filled), np.zeros_like(filled)
    now, spread = np.zeros_like(phi), 1.0 / (1.0 - phi**2)
    for t in range(len(filled)):
        if t:
            now, spread = phi * now, phi**2 * spread + size[t]
        now, spread = np.where(seen[t], filled[t], now), np.where(seen[t], 0.0, spread)
        mean[t], variance[t] = now, spread
    # the next observation is slope e_t + noise of variance `noise`
    slope, noise, after = np.zeros_like(phi), np.ones_like(phi), np.zeros_like(phi)
    out = np.zeros_like(filled)
    for t in range(len(filled) - 1, -1, -1):
        gain = slope * variance[t] / (slope**2 * variance[t] + noise)
        out[t] = mean[t] + gain * (after - slope * mean[t])
        # what e_(t-1) says about the next observation, e_t itself where it is seen
        after = np.where(seen[t], filled[t], after)
        noise = np.where(seen[t], 0.0, noise) + np.where(seen[t], 1.0, slope**2) * size[t]
        slope = np.where(seen[t], 1.0, slope) * phi
    return out


def _late(aggregation: FloatArray, wanted: list[int]) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Which of the wanted series are ordinary, and all weights with (0, 1) for those."""
    late = np.zeros(aggregation.shape[0], dtype=bool)
    late[wanted] = True
    late &= (aggregation[:, 1:] == 0.0).all(axis=1)
    wide = np.zeros((aggregation.shape[0], max(aggregation.shape[1], 2)))
    wide[:, : aggregation.shape[1]] = aggregation
    wide[late] = 0.0
    wide[late, 1] = 1.0
    return late, wide


@dataclass(frozen=True, eq=False)
class _Row:
    """A cell as a functional of x: coefficients (reach, m), newest first, ending in period `time`."""

    time: int
    coefficients: FloatArray


def _row(cell: tuple[int, int], parameters: DynamicFactorParameters, pattern: ObservationPattern) -> _Row:
    time, series = cell
    r = parameters.loadings.shape[1]
    k = int(np.flatnonzero(pattern.low == series)[0])
    weights = pattern.weights[k]
    coefficients = np.zeros((weights.size, r + pattern.low.size))
    coefficients[:, :r] = weights[:, None] * parameters.loadings[series]
    coefficients[:, r + k] = weights
    return _Row(time + pattern.lead, coefficients)


def _value(row: _Row, path: FloatArray) -> float:
    recent = path[row.time - np.arange(row.coefficients.shape[0])]
    return float((row.coefficients * recent).sum())


def _multipliers(
    direction: FloatArray,
    parameters: DynamicFactorParameters,
    pattern: ObservationPattern,
    cell: tuple[int, int],
) -> tuple[float, FloatArray]:
    """Var(c'x | data) and the weights (T, n) of all exact observations.

    On the rows of series k's own term, P_k q + A_k' nu = 0 with P_k the precision of its AR(1); the cell's nu
    is -1/V and the others' V nu are their weights.
    """
    r, n_periods = parameters.loadings.shape[1], pattern.n_periods
    weights = np.zeros((n_periods - pattern.lead, parameters.loadings.shape[0]))
    for k, each in enumerate(pattern.low):
        observed = pattern.low_time[pattern.low_series == k]
        design = np.zeros((observed.size, n_periods))
        for lag, weight in enumerate(pattern.weights[k]):
            design[np.arange(observed.size), observed - lag] = weight
        pull = autoregressive_precision(
            direction[:, r + k],
            float(parameters.persistence[each]),
            float(parameters.variance[each]),
            shock_precision(parameters, pattern),
        )
        if observed.size:
            weights[observed - pattern.lead, each] = np.linalg.solve(design @ design.T, -(design @ pull))
    variance = -1.0 / weights[cell]
    weights *= variance
    weights[cell] = 0.0
    return float(variance), weights


def autoregressive_precision(
    path: FloatArray, phi: float, innovation: float, precision: FloatArray | None = None
) -> FloatArray:
    """P e for an AR(1) path e (T,) from its stationary law, shocks of variance s over `precision` (T,).

    With the shocks v_t = e_t - phi e_(t-1) and their precisions w_t: P e = w_t v_t - phi w_(t+1) v_(t+1), and
    (1 - phi^2) e_0/s in place of w_0 v_0.
    """
    shocks = path.copy()
    shocks[1:] -= phi * path[:-1]
    shocks[0] *= 1.0 - phi**2
    if precision is not None:
        shocks[1:] *= precision[1:]
    shocks[:-1] -= phi * shocks[1:] if path.size > 1 else 0.0
    return shocks / innovation


def _ordinary_weights(
    response: FloatArray,
    parameters: DynamicFactorParameters,
    pattern: ObservationPattern,
) -> FloatArray:
    """z'h(y) observation by observation: a quasi-difference y_t - phi^d y_(t-d) pulls at both its ends."""
    weights = np.zeros((pattern.n_periods - pattern.lead, parameters.loadings.shape[0]))
    if not pattern.time.size:
        return weights
    r = parameters.loadings.shape[1]
    kind = np.repeat(np.arange(pattern.gaps.size), np.diff(pattern.offsets))
    power, variance = (each[kind] for each in pair_weights(parameters, pattern))
    precision = pattern.present / variance
    pulled = response[:, :r] @ parameters.loadings[pattern.ordinary].T
    before = pattern.time - pattern.gap
    strength = precision * (pulled[pattern.time] - power * pulled[before])
    columns = pattern.ordinary[None, :]
    np.add.at(weights, (pattern.time[:, None] - pattern.lead, columns), strength)
    np.add.at(weights, (before[:, None] - pattern.lead, columns), -power * strength)
    return weights
