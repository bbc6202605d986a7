"""Persistence and variance of idiosyncratic terms: the (phi, s) step of the dynamic factor model.

    e_t = phi e_(t-1) + v_t,  v_t ~ N(0, s); consecutive observations may lie d periods apart

    expected log-likelihood  -1/2 sum_g [log(s v_d) + E(e_t - phi^d e_(t-d))^2 / (s v_d)],
                             v_d = (1 - phi^2d)/(1 - phi^2), and 1/(1 - phi^2) for a first observation;
                             a broken period j before the end adds phi^2j (c^2 - 1)

The closed form sum e_t e_(t-1) / sum e_(t-1)^2 is the maximum only without gaps and without the first term;
with gaps it can lower the likelihood. Here s is concentrated out,

    n log s(phi) + sum_d n_d log v_d(phi) - n_0 log(1 - phi^2)

is evaluated on a grid over the whole of (-1, 1), and the slope's root beside the grid's best point found by
regula falsi with bisection behind it, series by series.

References: Banbura & Modugno (2014), J. of Applied Econometrics 29(1), 133-160, section 3.1; Meng & Rubin
(1993).
"""

# The arrays of the compiled functions are described where they are called.
# pyright: basic

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numba import njit

from latentfactors.kernels.dynamic_factor import DynamicFactorParameters, excess, window_weights
from latentfactors.kernels.dynamic_factor_moments import ResidualMoments

LARGEST_PERSISTENCE = 0.999

_GRID = np.tanh(np.linspace(-3.8, 3.8, 39))


def idiosyncratic_step(
    parameters: DynamicFactorParameters,
    moments: ResidualMoments,
    *,
    autoregressive: bool,
    smallest_variance: float,
) -> DynamicFactorParameters:
    """The pair (phi, s) of every series that maximises its expected log-likelihood."""
    persistence, variance = autoregress(
        moments,
        autoregressive=autoregressive,
        smallest_variance=smallest_variance,
        start=parameters.persistence,
        broken=excess(parameters),
    )
    if not autoregressive:
        return replace(parameters, variance=variance)
    return replace(parameters, persistence=persistence, variance=variance)


def autoregress(
    moments: ResidualMoments,
    *,
    autoregressive: bool,
    smallest_variance: float,
    start: np.ndarray | None = None,
    broken: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(phi, s), each (n,), from moments; phi = 0 for iid terms. A `start` is left only for a better pair.

    broken : (M,) c^2 - 1 of the broken periods
    """
    more = np.zeros(0) if broken is None else broken
    n_all = np.maximum(moments.n_first + moments.count.sum(axis=1), 1.0)
    persistence, variance = np.zeros_like(n_all), np.zeros_like(n_all)
    if not autoregressive:
        # a first observation, an aggregate's latent series: with phi = 0 all terms are squares of e_t
        unit = np.ones(moments.gaps.size)
        if moments.window.shape[1]:
            unit += (window_weights(np.zeros(1), moments.window) @ more)[:, 0]
        total = moments.first + moments.now @ (1.0 / unit)
        return persistence, np.maximum(total / n_all, smallest_variance)
    old = np.zeros_like(n_all) if start is None else start
    _search(
        np.clip(old, -LARGEST_PERSISTENCE, LARGEST_PERSISTENCE),
        moments.gaps,
        moments.window,
        more,
        moments.first,
        moments.n_first,
        moments.now,
        moments.cross,
        moments.before,
        moments.count,
        n_all,
        smallest_variance,
        _GRID,
        persistence,
        variance,
    )
    return persistence, variance


@njit(cache=True)
def concentrated(
    phi, gaps, window, excess, first, n_first, now, cross, before, count, n_all, smallest
):  # pragma: no cover - compiled
    """The objective at phi, its slope where s is above its floor, and s(phi); rows of one series."""
    left = 1.0 - phi * phi
    total, change = left * first, -2.0 * phi * first
    value, slope = -n_first * math.log(left), 2.0 * n_first * phi / left
    # phi^(d-1) and v_d grow from gap to gap, without cancellation near a unit root
    power, v, bend, d = 1.0, 1.0, 0.0, 1
    for c in range(gaps.size):
        while d < gaps[c]:
            # v_(d+1) = v_d + phi^(2d) with derivative v_d' + 2 d phi^(2d-1)
            bend += 2.0 * d * power * power * phi
            power *= phi
            v += power * power
            d += 1
        if count[c] == 0.0:
            continue
        reach, unit, bent, steep = power * phi, v, bend, 2.0 * d * power
        if gaps[c] == 0:
            reach, unit, bent, steep = 0.0, 1.0 / left, 2.0 * phi / (left * left), 0.0
        for b in range(excess.size):
            j = window[c, b]
            if j >= 0:
                unit += phi ** (2 * j) * excess[b]
            if j > 0:
                bent += 2.0 * j * phi ** (2 * j - 1) * excess[b]
        square = now[c] - 2.0 * reach * cross[c] + reach * reach * before[c]
        total += square / unit
        change += (steep * (reach * before[c] - cross[c]) - square * bent / unit) / unit
        value += count[c] * math.log(unit)
        slope += count[c] * bent / unit
    s = max(total / n_all, smallest)
    value += n_all * math.log(s)
    # at the floor s is a constant and the squares count by themselves
    if total / n_all < smallest:
        return value + total / s - n_all, slope + change / s, s
    return value, slope + n_all * change / total, s


@njit(cache=True)
def _search(
    old,
    gaps,
    window,
    excess,
    first,
    n_first,
    now,
    cross,
    before,
    count,
    n_all,
    smallest,
    grid,
    phi,
    variance,
):  # pragma: no cover - compiled
    """Fill phi (n,) and s (n,)."""
    for i in range(old.size):
        sums = (first[i], n_first[i], now[i], cross[i], before[i], count[i], n_all[i], smallest)
        args = (gaps, window, excess, *sums)
        reached, _, s = concentrated(old[i], *args)
        phi[i], variance[i] = old[i], s
        best, lowest = 0, math.inf
        for j in range(grid.size):
            value, _, _ = concentrated(grid[j], *args)
            if value < lowest:
                best, lowest = j, value
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
        _, down, _ = concentrated(low, *args)
        _, up, _ = concentrated(high, *args)
        candidate = grid[best]
        if down >= 0.0:
            candidate = low
        elif up <= 0.0:
            candidate = high
        else:
            side = 0
            for step in range(100):
                # regula falsi (Illinois), every third step a bisection
                middle = 0.5 * (low + high) if step % 3 == 2 else (low * up - high * down) / (up - down)
                _, slope, _ = concentrated(middle, *args)
                candidate = middle
                if slope > 0.0:
                    high, up = middle, slope
                    if side == 1:
                        down *= 0.5
                    side = 1
                elif slope < 0.0:
                    low, down = middle, slope
                    if side == -1:
                        up *= 0.5
                    side = -1
                else:
                    break
                if high - low <= 4e-16:
                    break
        value, _, s = concentrated(candidate, *args)
        # rounding must not turn a maximum already reached into a step down
        if value <= reached:
            phi[i], variance[i] = candidate, s
