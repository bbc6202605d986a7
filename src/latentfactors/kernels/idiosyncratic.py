"""Persistence and variance of idiosyncratic terms: the (phi, s) step of the dynamic factor model.

    e_t = phi e_(t-1) + v_t,  v_t ~ N(0, s); consecutive observations may lie d periods apart

    expected log-likelihood  -1/2 sum_g [log(s v_d) + E(e_t - phi^d e_(t-d))^2 / (s v_d)],
                             v_d = (1 - phi^2d)/(1 - phi^2), and 1/(1 - phi^2) for a first observation

The closed form sum e_t e_(t-1) / sum e_(t-1)^2 is the maximum only without gaps and without the first term;
with gaps it can lower the likelihood. Here s is concentrated out and phi found by a search over one
dimension.

References: Banbura & Modugno (2014), J. of Applied Econometrics 29(1), 133-160, section 3.1; Meng & Rubin
(1993).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    Expectation,
    ObservationPattern,
    second_moments,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LARGEST_PERSISTENCE = 0.999

# Of a bracket on phi that is a few hundredths wide: down to rounding.
_HALVINGS = 48


@dataclass(frozen=True, eq=False)
class ResidualMoments:
    """Expected squares of the idiosyncratic terms, by series and gap.

    Attributes
    ----------
    gaps : (D,) distinct gaps >= 1
    first : (n,) sum of E e^2 over first observations
    n_first : (n,) their number
    now, cross, before : (n, D) sums of E e_t^2, E e_t e_(t-d), E e_(t-d)^2
    count : (n, D)
    """

    gaps: IntArray
    first: FloatArray
    n_first: FloatArray
    now: FloatArray
    cross: FloatArray
    before: FloatArray
    count: FloatArray


def residual_moments(
    parameters: DynamicFactorParameters,
    old_loadings: FloatArray,
    expected: Expectation,
    pattern: ObservationPattern,
) -> ResidualMoments:
    """Moments of e_it = y_it - lambda_i'f_t given the data, for the series in their order.

    `old_loadings`: those of the E-step; a low-frequency e was defined with them.
    """
    r, n = parameters.loadings.shape[1], parameters.loadings.shape[0]
    loadings = parameters.loadings[pattern.ordinary]
    products = (loadings[:, :, None] * loadings[:, None, :]).reshape(-1, r * r).T
    time, before, gap = pattern.time, pattern.time - pattern.gap, pattern.gap
    flat = (time.size, r * r)
    own = expected.covariances[:, 0, :r, :r]
    fitted = expected.means[:, :r] @ loadings.T
    residual, lagged = pattern.current - fitted[time], pattern.previous - fitted[before]
    now = pattern.present * (residual**2 + own[time].reshape(flat) @ products)
    cross = expected.covariances[time, gap, :r, :r].reshape(flat) @ products
    cross = pattern.present * (residual * lagged + cross)
    earlier = pattern.present * (lagged**2 + own[before].reshape(flat) @ products)
    gaps = np.unique(np.append(gap[gap > 0], 1 if pattern.low.size else [])).astype(np.int64)
    shape = (n, gaps.size)
    first, n_first = np.zeros(n), np.zeros(n)
    sums = [np.zeros(shape) for _ in range(4)]
    starts = gap == 0
    first[pattern.ordinary] = now[starts].sum(axis=0)
    n_first[pattern.ordinary] = pattern.present[starts].sum(axis=0)
    for column, d in enumerate(gaps):
        chosen = gap == d
        for target, source in zip(sums, (now, cross, earlier, pattern.present), strict=True):
            target[pattern.ordinary, column] = source[chosen].sum(axis=0)
    if pattern.low.size:
        squares, ties = second_moments(expected, 0), second_moments(expected, 1)[1:]
        column = int(np.searchsorted(gaps, 1))
        for k, series in enumerate(pattern.low):
            # e under the new loadings is (old - new)'f + e under the old ones
            row = np.zeros(expected.means.shape[1])
            row[:r] = old_loadings[series] - parameters.loadings[series]
            row[r + k] = 1.0
            e2 = squares @ row @ row
            first[series], n_first[series] = e2[0], 1.0
            for target, value in zip(
                sums, (e2[1:].sum(), (ties @ row @ row).sum(), e2[:-1].sum(), e2.size - 1.0), strict=True
            ):
                target[series, column] = value
    return ResidualMoments(gaps, first, n_first, *sums)


def idiosyncratic_step(
    parameters: DynamicFactorParameters,
    moments: ResidualMoments,
    *,
    autoregressive: bool,
    smallest_variance: float,
) -> DynamicFactorParameters:
    """The pair (phi, s) of every series that maximises its expected log-likelihood.

    With s concentrated out, n log s(phi) + sum_d n_d log v_d(phi) - n_0 log(1 - phi^2) is minimised over phi
    by a grid and then by bisection of its slope around the grid's best point, all series at once.
    """
    n_first = moments.n_first
    n_all = n_first + moments.count.sum(axis=1)
    n_all = np.maximum(n_all, 1.0)

    def variance_at(phi: FloatArray) -> FloatArray:
        """s(phi) for (n, J) candidates."""
        total = (1.0 - phi**2) * moments.first[:, None]
        for column, d in enumerate(moments.gaps):
            power = phi**d
            relative = _geometric(phi, int(d))
            a, x, b = (each[:, column][:, None] for each in (moments.now, moments.cross, moments.before))
            total = total + (a - 2.0 * power * x + power**2 * b) / relative
        return np.maximum(total / n_all[:, None], smallest_variance)

    def objective(phi: FloatArray) -> FloatArray:
        value = n_all[:, None] * np.log(variance_at(phi)) - n_first[:, None] * np.log1p(-(phi**2))
        for column, d in enumerate(moments.gaps):
            if d > 1:
                value = value + moments.count[:, column][:, None] * np.log(_geometric(phi, int(d)))
        return value

    def slope(phi: FloatArray) -> FloatArray:
        """Derivative of the objective."""
        total, change = (1.0 - phi**2) * moments.first[:, None], -2.0 * phi * moments.first[:, None]
        value = 2.0 * n_first[:, None] * phi / (1.0 - phi**2)
        for column, d in enumerate(moments.gaps):
            power, before = phi**d, phi ** (d - 1)
            v = _geometric(phi, int(d))
            bend = 2.0 * (phi * v - d * power * before) / (1.0 - phi**2)
            a, x, b = (each[:, column][:, None] for each in (moments.now, moments.cross, moments.before))
            square = a - 2.0 * power * x + power**2 * b
            total = total + square / v
            change = change + (2.0 * d * before * (power * b - x) - square * bend / v) / v
            value = value + moments.count[:, column][:, None] * bend / v
        return value + n_all[:, None] * change / total

    n = n_first.size
    if not autoregressive:
        return replace(parameters, variance=variance_at(np.zeros((n, 1)))[:, 0])
    old = np.clip(parameters.persistence, -LARGEST_PERSISTENCE, LARGEST_PERSISTENCE)[:, None]
    grid = np.tanh(np.linspace(-3.8, 3.8, 39))
    best = objective(np.broadcast_to(grid, (n, grid.size))).argmin(axis=1)
    low = grid[np.maximum(best - 1, 0)][:, None]
    high = grid[np.minimum(best + 1, grid.size - 1)][:, None]
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        rising = slope(middle) > 0.0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    candidate = np.clip(0.5 * (low + high), -LARGEST_PERSISTENCE, LARGEST_PERSISTENCE)
    # rounding must not turn a maximum already reached into a step down
    phi = np.where(objective(candidate) <= objective(old), candidate, old)
    return replace(parameters, persistence=phi[:, 0], variance=variance_at(phi)[:, 0])


def _geometric(phi: FloatArray, d: int) -> FloatArray:
    """1 + phi^2 + ... + phi^(2(d-1)) = (1 - phi^2d)/(1 - phi^2)."""
    return (1.0 - phi ** (2 * d)) / (1.0 - phi**2)
