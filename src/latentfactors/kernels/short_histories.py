"""Loadings of assets with short histories: from their own few values and from what others load.

Problem          2K values fit K loadings nearly exactly, whatever the noise. Such loadings are large and
                 wrong, least-squares factors give large loadings the most weight, and the sum of squares then
                 falls for ever along factors that serve a handful of cells
Long             an asset with at least 5K values (or half of the periods, if that is less): a fifth of its
                 noise is fitted by chance, not half. Long assets alone find the factor space
Others           given the factors, random effects: r_ti = f_t'b_i + e_ti,  b_i ~ N(m, L),  e ~ N(0, s2), so
                 b_i = m + V_i F_i'(r_i - F_i m)/s2,  V_i = (L^-1 + F_i'F_i/s2)^-1
Prior            m, L and s2 by EM (maximum likelihood) from the long assets. Noise-free values make s2 = 0
                 and b_i its exact regression, so nothing is shrunk that the data know
No long assets   too few to tell the factors apart in half of the periods: all find the space, and all get
                 the posterior, which is said in a remark
References       Swamy (1970), Econometrica 38(2), 311-323 (random coefficients); Vasicek (1973), Journal of
                 Finance 28(5), 1233-1239 (Bayesian betas); Ilin & Raiko (2010), JMLR 11, 1957-2000
                 (over-fitting of principal components with missing values)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import InsufficientDataError
from latentfactors.kernels.als import observed_factors
from latentfactors.kernels.static import choose_cells
from latentfactors.validate import count

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_LONG = 5  # values for every factor
_STEPS = 200
_STILL = 1e-6  # relative change of m, L and s2 that ends EM
_EXACT = 1e-24  # s2 relative to the mean square of the values: rounding alone


@dataclass(frozen=True, eq=False)
class Prior:
    """What loadings are like: b ~ N(mean, covariance), residual variance `noise`."""

    mean: FloatArray
    covariance: FloatArray
    noise: float


def fit_with_short_histories(
    values: FloatArray,
    n_factors: int,
    min_observed: int,
    fit: Callable[[FloatArray], FloatArray],
    *,
    centred: bool = False,
) -> tuple[FloatArray, list[str]]:
    """Loadings (N, K) of all assets, the space found by the long ones, and a remark about the others.

    Parameters
    ----------
    values : (T, N), NaN where missing, as `static.choose_cells` leaves them.
    n_factors : K.
    min_observed : observed assets a period needs for factors.
    fit : values (T', N') -> loadings (N', K).
    centred : whether loadings are those of values and factors about their means over an asset's periods.
    """
    periods, long = long_histories(values, n_factors, min_observed)
    if long.all():
        return fit(values), []
    loadings = np.full((values.shape[1], n_factors), np.nan)
    needed, shrunken = math.ceil(enough_values(len(values), n_factors)), ~long
    if long.any():
        loadings[long] = fit(values[np.ix_(periods, long)])
        who = count(int(shrunken.sum()), "asset")
        fate = f"{who} with fewer than {needed} useful values: loadings drawn to those of the others"
    else:
        loadings[:] = fit(values)
        fate = f"too few assets with {needed} values: all loadings drawn to their mean; ask for fewer factors"
    factors = observed_factors(values, loadings, min_observed=min_observed)
    prior = learn_prior(values[:, long | ~long.any()], factors, centred=centred)
    loadings[shrunken] = posterior_loadings(values[:, shrunken], factors, prior, centred=centred)
    return loadings, [fate]


def long_histories(values: FloatArray, n_factors: int, min_observed: int) -> tuple[BoolArray, BoolArray]:
    """Periods and assets that find the factor space; no asset where they could not do so on their own."""
    observed = np.isfinite(values)
    candidates = observed.sum(axis=0) >= enough_values(len(values), n_factors)
    everyone = np.ones(len(values), dtype=bool)
    if candidates.all():
        return everyone, candidates
    nobody = np.zeros(values.shape[1], dtype=bool)
    try:
        periods, kept, _ = choose_cells(values[:, candidates], n_factors, min_observed)
    except InsufficientDataError:
        return everyone, nobody
    if periods.sum() < len(values) / 2 or kept.sum() < 2 * n_factors:
        return everyone, nobody
    long = nobody.copy()
    long[np.flatnonzero(candidates)[kept]] = True
    return periods, long


def enough_values(n_periods: int, n_factors: int) -> float:
    """Values that make a history long."""
    return min(_LONG * n_factors, n_periods / 2)


def moments(
    values: FloatArray, factors: FloatArray, *, centred: bool
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """By asset over its periods: sum f f' (N, K, K), sum f r (N, K), sum r^2 (N,), number of values (N,)."""
    known = np.isfinite(factors).all(axis=1)
    r, f = values[known], factors[known]
    mask = np.isfinite(r).astype(np.float64)
    filled = np.where(mask > 0.0, r, 0.0)
    counts = mask.sum(axis=0)
    grams = np.einsum("ti,tk,tl->ikl", mask, f, f, optimize=True)
    crosses, squares = filled.T @ f, (filled * filled).sum(axis=0)
    if centred:
        each = np.maximum(counts, 1.0)[:, None]
        sums, total = mask.T @ f, filled.sum(axis=0)
        grams = grams - sums[:, :, None] * sums[:, None, :] / each[:, :, None]
        crosses, squares = crosses - sums * total[:, None] / each, squares - total**2 / each[:, 0]
        counts = counts - 1.0
    return grams, crosses, squares, np.maximum(counts, 0.0)


def posteriors(grams: FloatArray, crosses: FloatArray, prior: Prior) -> tuple[FloatArray, FloatArray]:
    """b_i (N, K) and V_i (N, K, K) in a form that holds for singular prior covariances."""
    spread, axes = np.linalg.eigh(prior.covariance)
    root = axes * np.sqrt(np.maximum(spread, 0.0))
    inner = np.linalg.inv(np.eye(len(spread)) + root.T @ (grams / prior.noise) @ root)
    variance = root @ (0.5 * (inner + inner.transpose(0, 2, 1))) @ root.T
    surprise = (crosses - grams @ prior.mean) / prior.noise
    return prior.mean + (variance @ surprise[:, :, None])[:, :, 0], variance


def learn_prior(values: FloatArray, factors: FloatArray, *, centred: bool = False) -> Prior:
    """Mean and covariance of loadings and residual variance, by EM from values (T, N) given factors (T, K).

    Starts at the pooled regression with the covariance of a loading that explains all of an asset's values.
    """
    grams, crosses, squares, counts = moments(values, factors, centred=centred)
    cells, n_factors = float(counts.sum()), factors.shape[1]
    floor = max(_EXACT * float(squares.sum()) / max(cells, 1.0), float(np.finfo(np.float64).tiny))
    pooled = grams.sum(axis=0)
    mean = np.linalg.lstsq(pooled, crosses.sum(axis=0), rcond=1e-12)[0]
    size = np.maximum(np.diagonal(pooled), np.finfo(np.float64).tiny)
    prior = Prior(mean, np.diag(squares.sum() / size), max(squares.sum() / max(cells, 1.0), floor))
    for _ in range(_STEPS):
        loadings, variance = posteriors(grams, crosses, prior)
        mean = loadings.mean(axis=0)
        away = loadings - mean
        covariance = (away[:, :, None] * away[:, None, :] + variance).mean(axis=0)
        fitted = np.einsum("ik,ikl,il->i", loadings, grams, loadings)
        left = squares - 2.0 * (loadings * crosses).sum(axis=1) + fitted
        left = np.maximum(left, 0.0) + np.einsum("ikl,ikl->i", grams, variance)
        former, prior = prior, Prior(mean, covariance, max(float(left.sum()) / max(cells, 1.0), floor))
        moved = max(
            float(np.linalg.norm(prior.covariance - former.covariance) / np.linalg.norm(prior.covariance)),
            abs(np.log(prior.noise / former.noise)),
        )
        if moved <= _STILL * n_factors or prior.noise <= floor:
            break
    return prior


def posterior_loadings(
    values: FloatArray, factors: FloatArray, prior: Prior, *, centred: bool = False
) -> FloatArray:
    """(N, K) posterior means for values (T, N) given factors (T, K), NaN rows left out."""
    grams, crosses, _, _ = moments(values, factors, centred=centred)
    return posteriors(grams, crosses, prior)[0]
