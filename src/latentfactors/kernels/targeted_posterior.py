"""What observed cells say about targeted factors: posterior moments, likelihood, forecasts of targets.

Model            z_tj = l_j'f_t + e_tj,  f_t ~ N(0, I),  e_tj ~ N(0, s_j):  the first p series with s_x^2, the
                 others with s_y^2
Posterior        G_t = I + sum_{j observed} l_j l_j'/s_j,  Omega_t = G_t^-1,
                 m_t = Omega_t sum_{j observed} l_j z_tj/s_j
Target           E[y_t | x_t] = Q m_t, variance Q Omega_t Q' + s_y^2, Omega_t that of the observed x alone
References       Herculano & Montoya-Blandon (2026); Tipping & Bishop (1999), JRSS B 61(3), 611-622.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.linalg import (
    distinct_rows,
    invert_pd_batch,
    outer_products,
    period_moments,
    unpack,
)
from latentfactors.kernels.patterns import Patterns, invert_few

FloatArray = npt.NDArray[np.float64]


def noise_by_series(x_variance: float, y_variance: float, n_predictors: int, n_series: int) -> FloatArray:
    """(d,) s_x^2 for the first p series, s_y^2 for the others."""
    out = np.full(n_series, y_variance)
    out[:n_predictors] = x_variance
    return out


def posterior_moments(
    filled: FloatArray,
    mask: FloatArray,
    loadings: FloatArray,
    noise: FloatArray,
    patterns: Patterns | None = None,
) -> tuple[FloatArray, FloatArray, float]:
    """m_t (T, k), Omega_t (T, k, k) of the factors given the observed cells, and their log-likelihood.

    G_t = I + sum_{j observed} l_j l_j'/s_j,  Omega_t = G_t^-1,  m_t = Omega_t sum_{j observed} l_j z_tj/s_j;
    log|Sigma_t| = sum log s_j + log|G_t|,  z'Sigma_t^-1 z = sum (z_tj - l_j'm_t)^2/s_j + m_t'm_t, which has
    no difference of large numbers.

    Parameters
    ----------
    filled : (T, d), zero where missing.
    mask : (T, d), 1.0 where observed, else 0.0.
    loadings : (d, k).
    noise : (d,), or (T, d) where variances move.
    patterns : of the mask's rows, if they are few and the noise does not move: Omega_t once for each.
    """
    k = loadings.shape[1]
    precision = 1.0 / noise
    if patterns is not None and noise.ndim == 1:
        grams = unpack(mask[patterns.first] @ (outer_products(loadings) * precision[:, None]))
        few, few_logdet = invert_few(grams + np.eye(k))
        covariances, logdet = few[patterns.codes], few_logdet[patterns.codes]
    else:
        if noise.ndim == 1:
            grams = unpack(mask @ (outer_products(loadings) * precision[:, None]))
        else:
            grams = unpack((mask * precision) @ outer_products(loadings))
        covariances, logdet = invert_pd_batch(grams + np.eye(k))
    means = (covariances @ ((filled * precision) @ loadings)[:, :, None])[:, :, 0]
    residual = means @ loadings.T
    residual *= mask
    residual -= filled
    quadratic = float(np.vdot(residual * residual, np.broadcast_to(precision, residual.shape)))
    n_cells = float(mask.sum())
    deviance = n_cells * math.log(2.0 * math.pi) + float(
        np.vdot(mask, np.broadcast_to(np.log(noise), mask.shape))
    )
    deviance += float(logdet.sum()) + quadratic + float(np.vdot(means, means))
    return means, covariances, -0.5 * deviance


def row_posterior(
    values: FloatArray,
    loadings: FloatArray,
    n_predictors: int,
    x_variance: float | FloatArray,
    y_variance: float | FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """m_t (T, k), Omega_t (T, k, k) given the observed cells of each row, to the bit a function of that row.

    Hide the targets' columns for E[f | x]; periods without an observed cell have the prior, 0 and I.

    Parameters
    ----------
    values : (T, d), NaN where missing, predictors first.
    loadings : (d, k).
    n_predictors : p.
    x_variance, y_variance : s_x^2 and s_y^2, numbers or (T,).
    """
    p, k, n_periods = n_predictors, loadings.shape[1], len(values)
    grams, crosses = np.zeros((n_periods, k, k)), np.zeros((n_periods, k))
    for part, variance in ((slice(0, p), x_variance), (slice(p, None), y_variance)):
        gram, cross, _ = period_moments(values[:, part], loadings[part])
        precision = np.broadcast_to(1.0 / np.asarray(variance, dtype=np.float64), (n_periods,))
        grams += gram * precision[:, None, None]
        crosses += cross * precision[:, None]
    if np.ndim(x_variance) or np.ndim(y_variance):
        covariances = invert_pd_batch(grams + np.eye(k))[0]
    else:
        first, codes = distinct_rows(np.isfinite(values).astype(np.float64))
        covariances = invert_pd_batch(grams[first] + np.eye(k))[0][codes]
    return (covariances @ crosses[:, :, None])[:, :, 0], covariances


def target_moments(
    given: FloatArray,
    means: FloatArray,
    covariances: FloatArray,
    target_loadings: FloatArray,
    target_variance: float | FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Q m_t and diag(Q Omega_t Q') + s_y^2, (T, q) each; a target among the given cells is known.

    Omega_t has to be that of the cells the factors were read from: the joint Omega of x and y would claim to
    have seen the target, and intervals from it cover far too little.

    Parameters
    ----------
    given : (T, p + q), what the factors were read from; NaN where missing or not looked at.
    means, covariances : (T, k), (T, k, k).
    target_loadings : (q, k), Q.
    target_variance : s_y^2, a number or (T,).
    """
    n_targets = len(target_loadings)
    forecast = np.einsum("tk,qk->tq", means, target_loadings)
    variance = np.einsum("qj,tjk,qk->tq", target_loadings, covariances, target_loadings)
    variance += np.broadcast_to(target_variance, (len(given),))[:, None]
    released = given[:, given.shape[1] - n_targets :]
    known = np.isfinite(released)
    return np.where(known, released, forecast), np.where(known, 0.0, variance)
