"""AR(1) terms from their own values with gaps: persistence, variance, and what one value says of the next.

    e_t = phi e_(t-1) + v_t,  v_t ~ N(0, s)        consecutive observations d periods apart:
    e_t | e_(t-d) ~ N(phi^d e_(t-d), s (1 - phi^(2d))/(1 - phi^2))

Neighbours after dropping the gaps would be d periods apart and count as one: phi = .8 then looks like .45 at
60% missing. Here every pair keeps its distance.

Aggregates Y_t = sum_l w_l e_(t-l) of an unseen monthly e, observed once a quarter, have autocovariances

    Cov(Y_t, Y_(t-k)) = s/(1 - phi^2) sum_(l, j) w_l w_j phi^|k + j - l|

and their exact likelihood is maximised over phi, with s concentrated out.

References: Banbura & Modugno (2014), J. of Applied Econometrics 29(1), section 3.1; Mariano & Murasawa
(2003), J. of Applied Econometrics 18(4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from latentfactors.kernels.dynamic_factor_moments import ResidualMoments
from latentfactors.kernels.idiosyncratic import autoregress

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_FEWEST = 8
_GRID = np.tanh(np.linspace(-1.5, 2.6, 33))


def last_seen(values: FloatArray) -> IntArray:
    """(T, N) period of the last value before t, -1 where there is none."""
    n_periods, n = values.shape
    seen = np.where(np.isfinite(values), np.arange(n_periods)[:, None], -1)
    last = np.maximum.accumulate(seen, axis=0)
    return np.vstack([np.full((1, n), -1), last[:-1]])


def residual_moments_of(residuals: FloatArray) -> ResidualMoments:
    """Squares and cross products of (T, N) residuals, NaN where missing, by series and gap."""
    before = last_seen(residuals)
    seen = np.isfinite(residuals)
    n = residuals.shape[1]
    rows, columns = np.nonzero(seen & (before >= 0))
    past = before[rows, columns]
    gaps, code = np.unique(rows - past, return_inverse=True)
    now, earlier = residuals[rows, columns], residuals[past, columns]
    places, size = columns * gaps.size + code, n * gaps.size

    def total(each: FloatArray) -> FloatArray:
        return np.bincount(places, each, minlength=size).reshape(n, gaps.size).astype(np.float64)

    first = seen & (before < 0)
    return ResidualMoments(
        gaps=gaps.astype(np.int64),
        window=np.zeros((gaps.size, 0), dtype=np.int64),
        first=np.where(first, np.where(seen, residuals, 0.0) ** 2, 0.0).sum(axis=0),
        n_first=first.sum(axis=0).astype(np.float64),
        now=total(now * now),
        cross=total(now * earlier),
        before=total(earlier * earlier),
        count=total(np.ones(now.size)),
    )


def fit_gapped(
    residuals: FloatArray, *, autoregressive: bool, smallest_variance: float
) -> tuple[FloatArray, FloatArray]:
    """Maximum likelihood (phi, s), each (N,), of (T, N) residuals with gaps; (0, 1) without any value."""
    moments = residual_moments_of(residuals)
    phi, s = autoregress(moments, autoregressive=autoregressive, smallest_variance=smallest_variance)
    n_seen = np.isfinite(residuals).sum(axis=0)
    # two or three values say nothing about persistence
    phi = np.where(n_seen >= _FEWEST, phi, 0.0)
    mean_square = np.divide(
        moments.first + moments.now.sum(axis=1), n_seen, out=np.ones_like(s), where=n_seen > 0
    )
    return phi, np.where(n_seen >= _FEWEST, s, np.maximum(mean_square, smallest_variance))


def expected_residuals(residuals: FloatArray, persistence: FloatArray) -> FloatArray:
    """(T, N) E[e_t | last value before t] = phi^d e_(t-d), 0 where nothing came before."""
    before = last_seen(residuals)
    distance = np.arange(len(residuals))[:, None] - before
    taken = np.take_along_axis(
        np.where(np.isfinite(residuals), residuals, 0.0), np.maximum(before, 0), axis=0
    )
    # a distance of 1 where there is none keeps 0^0 out of the way
    power = persistence ** np.where(before >= 0, distance, 1)
    return np.where(before >= 0, power * taken, 0.0)


def fit_aggregate(
    residuals: FloatArray, weights: FloatArray, *, autoregressive: bool, smallest_variance: float
) -> tuple[float, float]:
    """(phi, s) of the monthly terms behind one series (T,) of aggregates, NaN where not observed."""
    periods = np.flatnonzero(np.isfinite(residuals))
    values = residuals[periods]
    if values.size == 0:
        return 0.0, 1.0
    best, found = np.inf, (0.0, 1.0)
    grid = _GRID if autoregressive and values.size >= _FEWEST else np.zeros(1)
    for phi in grid.tolist():
        root = np.linalg.cholesky(aggregate_covariance(periods, weights, phi))
        white = solve_triangular(root, values, lower=True)
        s = max(float(white @ white) / values.size, smallest_variance)
        objective = values.size * np.log(s) + float(white @ white) / s + 2.0 * np.log(np.diag(root)).sum()
        if objective < best:
            best, found = objective, (float(phi), s)
    return found


def aggregate_covariance(periods: npt.NDArray[np.intp], weights: FloatArray, phi: float) -> FloatArray:
    """(m, m) covariances of aggregates observed in these periods, for innovations of variance 1."""
    distance = np.abs(np.subtract.outer(periods, periods))
    longest, reach = int(distance.max()), weights.size - 1
    power = phi ** np.arange(longest + weights.size) / (1.0 - phi**2)
    # sum over pairs of weights that lie l months apart, l = -reach..reach
    pairs = np.correlate(weights, weights, mode="full")
    apart = np.abs(np.subtract.outer(np.arange(longest + 1), np.arange(-reach, reach + 1)))
    by_distance = power[apart] @ pairs
    return by_distance[distance]
