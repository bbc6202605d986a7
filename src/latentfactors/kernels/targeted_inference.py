"""Around a targeted fit: how sure its forecasts are, and which noise ratio forecasts best.

Bootstrap        parametric: factors and noise are drawn from the fitted model, cells hidden where they were
                 missing, the draw is standardised and refitted. A forecast's variance is the plug-in one plus
                 the variance of its mean over the refits, all reading the same data.
Cross-validation noise ratios rho = s_x/s_y imposed one by one; each is judged by the squared errors of
                 forecasts from x alone in blocks of time, fitted on what was known before the block.
References       Herculano & Montoya-Blandon (2026); Efron & Tibshirani (1993), An Introduction to the
                 Bootstrap, section 6.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.targeted import TargetedFit
from latentfactors.kernels.targeted_em import fit_targeted
from latentfactors.kernels.targeted_posterior import row_posterior

FloatArray = npt.NDArray[np.float64]

_RATIOS = np.exp(np.linspace(np.log(0.1), np.log(30.0), 9))


@dataclass(frozen=True, eq=False)
class ParameterDraws:
    """Refits to data drawn from the model, in the units of the values that the model was fitted to.

    Attributes
    ----------
    loadings : (B, d, k) of each draw's own standardised values.
    variances : (B, 2) s_x^2, s_y^2 of the same.
    location, scale : (B, d) of each draw.
    """

    loadings: FloatArray
    variances: FloatArray
    location: FloatArray
    scale: FloatArray


def draw_parameters(
    fit: TargetedFit,
    observed: npt.NDArray[np.bool_],
    n_draws: int,
    seed: int,
    *,
    ratio: float | None = None,
    tolerance: float = 1e-4,
) -> ParameterDraws:
    """Parametric bootstrap of a static fit.

    Parameters
    ----------
    fit : what the draws come from.
    observed : (T, d) which cells a draw keeps.
    n_draws : B.
    seed : of the draws.
    ratio : the ratio that was imposed, if any.
    tolerance : of the refits; far below the sampling error that they measure.
    """
    rng = np.random.default_rng(seed)
    (n_periods, d), p, k = observed.shape, fit.n_predictors, fit.loadings.shape[1]
    draws = ParameterDraws(
        np.empty((n_draws, d, k)), np.empty((n_draws, 2)), np.empty((n_draws, d)), np.empty((n_draws, d))
    )
    for b in range(n_draws):
        z = rng.normal(size=(n_periods, k)) @ fit.loadings.T
        z += rng.normal(size=(n_periods, d)) * np.sqrt(fit.noise)
        z[~observed] = np.nan
        location, scale = np.nanmean(z, axis=0), np.nanstd(z, axis=0)
        # a series seen once or twice may come out constant; it keeps the fit's unit
        scale = np.where(scale > 1e-8, scale, 1.0)
        z = (z - location) / scale
        found = fit_targeted(z[:, :p], z[:, p:], k, ratio=ratio, start=fit, tolerance=tolerance)
        draws.loadings[b], draws.location[b], draws.scale[b] = found.loadings, location, scale
        draws.variances[b] = found.x_variance, found.y_variance
    return draws


def forecast_spread(values: FloatArray, draws: ParameterDraws, n_predictors: int) -> FloatArray:
    """(T, q) variance over the draws of the target forecasts made from `values` (T, d), NaN where missing."""
    p = n_predictors
    means = np.empty((len(draws.loadings), len(values), values.shape[1] - p))
    for b, loadings in enumerate(draws.loadings):
        location, scale = draws.location[b], draws.scale[b]
        own = (values - location) / scale
        factors = row_posterior(own, loadings, p, draws.variances[b, 0], draws.variances[b, 1])[0]
        means[b] = location[p:] + scale[p:] * (factors @ loadings[p:].T)
    return means.var(axis=0, ddof=1)


Forecaster = Callable[[FloatArray, FloatArray, float], FloatArray]


def choose_ratio(
    x: FloatArray,
    y: FloatArray,
    n_factors: int,
    lead: int,
    *,
    n_blocks: int = 5,
    forecaster: Forecaster | None = None,
) -> tuple[float, FloatArray]:
    """The noise ratio whose forecasts from x alone err least over blocks of the later half, and all errors.

    Parameters
    ----------
    x, y : (T, p) and (T, q) pairs in the order of time, NaN where missing; y is known `lead` periods later.
    n_factors : k.
    lead : periods between a pair's x and its y.
    n_blocks : blocks of the later half; each is forecast from a fit to all pairs known before it.
    forecaster : (known pairs (m, d), all rows to the block's end (b, d) without targets, ratio) -> (b, q)
        forecasts, all standardised; None: the static model.

    Returns
    -------
    ratio : s_x/s_y.
    errors : (9,) mean squared errors, averaged over targets, of ratios from 0.1 to 30.
    """
    n_periods, p = x.shape
    edges = np.linspace(n_periods // 2, n_periods, n_blocks + 1).astype(int)
    z = np.hstack([x, y])
    total = np.zeros((_RATIOS.size, y.shape[1]))
    cells = np.zeros(y.shape[1])
    for a, b in pairwise(edges.tolist()):
        known = z[: a - max(lead, 1) + 1]
        counts = np.isfinite(known).sum(axis=0)
        usable = counts >= 2
        location = np.where(usable, np.nansum(known, axis=0) / np.maximum(counts, 1), 0.0)
        squares = np.nansum((known - location) ** 2, axis=0) / np.maximum(counts, 1)
        scale = np.sqrt(np.where(squares > 1e-12, squares, 1.0))
        own, given = (known - location) / scale, (z[:b] - location) / scale
        given[:, p:] = np.nan
        cells += np.isfinite(z[a:b, p:]).sum(axis=0)
        for i, ratio in enumerate(_RATIOS):
            if forecaster is not None:
                found = forecaster(own, given, float(ratio))[a:]
            else:
                fit = fit_targeted(own[:, :p], own[:, p:], n_factors, ratio=float(ratio), tolerance=1e-4)
                factors = row_posterior(given[a:], fit.loadings, p, fit.x_variance, fit.y_variance)[0]
                found = factors @ fit.loadings[p:].T
            forecast = location[p:] + scale[p:] * found
            total[i] += np.nansum((z[a:b, p:] - forecast) ** 2, axis=0)
    errors = (total / np.maximum(cells, 1.0)).mean(axis=1)
    return float(_RATIOS[int(errors.argmin())]), errors
