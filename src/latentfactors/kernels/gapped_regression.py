"""Series on given factors when what these leave is an AR(1) with gaps: generalised least squares.

    y_t = a + lambda'x_t + e_t,   e_t = phi e_(t-1) + v_t,  v_t ~ N(0, s);  observations d periods apart:
    y_t - phi^d y_(t-d) = a (1 - phi^d) + lambda'(x_t - phi^d x_(t-d)) + N(0, s (1 - phi^2d)/(1 - phi^2))

and the first one has the stationary variance. Divided by their standard deviations these lines are white, so
least squares on them is exact generalised least squares, whatever the gaps; no covariance matrix is formed.
An aggregate Y_t = sum_l w_l (lambda'x_(t-l) + e_(t-l)) is whitened by the Cholesky factor of its terms'
covariances, which overlapping months fill even for phi = 0; ordinary least squares leaves them out of
account.

In turns             lambda and a given phi, (phi, s) given what they leave: each step raises the Gaussian
                     likelihood (without a prior), until loadings and phi stand still
Prior                one observation's worth of loadings lambda_0: + |lambda - lambda_0|^2 on the sum of
                     squares, in units of the stationary variance of e
Intercept            reported as the mean of y - lambda'x, not as the generalised one, which for phi near 1 is
                     little more than the first observation: forecasts return to the sample mean

References: Prais & Winsten (1954), Cowles Commission discussion paper 383; Beach & MacKinnon (1978),
Econometrica 46(1), 51-58 (maximum likelihood in turns); Banbura & Modugno (2014), J. of Applied Econometrics
29(1) (gaps); Doz, Giannone & Reichlin (2011), J. of Econometrics 164(1) (state space from given factors).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from latentfactors.kernels.dynamic_factor_em import SMALLEST_VARIANCE, aggregate
from latentfactors.kernels.gapped_residuals import aggregate_covariance, fit_aggregate, fit_gapped

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_ROUNDS = 20
_SETTLED = 1e-4


@dataclass(frozen=True, eq=False)
class GappedRegression:
    """Every series on the factors.

    Attributes
    ----------
    loadings : (n, k)
    intercept : (n,)
    residuals : (T, n), NaN where the series or its factors are missing
    persistence, variance : (n,) phi and s
    n_rounds : between loadings and persistence, 0 for least squares
    """

    loadings: FloatArray
    intercept: FloatArray
    residuals: FloatArray
    persistence: FloatArray
    variance: FloatArray
    n_rounds: int


def regress_gapped(
    prior: FloatArray,
    factors: FloatArray,
    values: FloatArray,
    weights: FloatArray,
    *,
    autoregressive: bool,
    generalised: bool,
) -> GappedRegression:
    """Loadings, intercepts and the law of what they leave.

    Parameters
    ----------
    prior : (n, k) loadings that a series without values keeps
    factors : (T, k) white
    values : (T, n), NaN where missing
    weights : (n, L) of aggregates, newest first
    autoregressive : whether the terms are AR(1)
    generalised : loadings given phi in turns with phi; else ordinary least squares, phi once from what it
        leaves. The same thing for iid terms of ordinary series
    """
    n = values.shape[1]
    designs = {w.tobytes(): aggregate(factors, w) for w in weights}
    loadings, intercept, residuals = prior.copy(), np.zeros(n), np.full(values.shape, np.nan)
    persistence, variance = np.zeros(n), np.ones(n)

    def refit(series: IntArray) -> FloatArray:
        """Loadings given persistence, then persistence given loadings; the largest change of a loading."""
        change = np.zeros(series.size)
        for place, i in enumerate(series.tolist()):
            found, intercept[i], residuals[:, i] = regress_towards(
                prior[i],
                designs[weights[i].tobytes()],
                values[:, i],
                float(persistence[i]),
                weights[i] if generalised else np.ones(1),
            )
            change[place] = np.abs(found - loadings[i]).max(initial=0.0)
            loadings[i] = found
        persistence[series], variance[series] = idiosyncratic_law(
            residuals[:, series], weights[series], autoregressive=autoregressive
        )
        return change

    moving, rounds = np.arange(n), 0
    refit(moving)  # phi is 0 here
    while generalised and autoregressive and moving.size and rounds < _ROUNDS:
        rounds += 1
        moving = moving[refit(moving) > _SETTLED]
    if generalised:
        seen = np.isfinite(residuals)
        rest = np.where(seen, residuals, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        intercept, residuals = intercept + rest, residuals - rest
        persistence, variance = idiosyncratic_law(residuals, weights, autoregressive=autoregressive)
    return GappedRegression(loadings, intercept, residuals, persistence, variance, rounds)


def regress_towards(
    prior: FloatArray, design: FloatArray, column: FloatArray, phi: float, weights: FloatArray
) -> tuple[FloatArray, float, FloatArray]:
    """Slopes, intercept and residuals of a column on a white design (T, k), NaN in either left out.

    Minimises the whitened sum of squares + |slopes - prior|^2 over slopes and the intercept, so a series with
    few values keeps its prior.
    """
    error = np.full(column.size, np.nan)
    rows = np.flatnonzero(np.isfinite(column) & np.isfinite(design).all(axis=1))
    if not rows.size:
        return prior, 0.0, error
    x, y = design[rows], column[rows]
    white = whiten(np.column_stack([np.ones(rows.size), y - x @ prior, x]), rows, phi, weights)
    one, target, regressors = white[:, 0], white[:, 1], white[:, 2:]
    # what is left of everything after the intercept's column
    size = one @ one
    target = target - one * (one @ target) / size
    regressors = regressors - np.outer(one, one @ regressors) / size
    gram = regressors.T @ regressors + np.eye(prior.size)
    slopes = prior + np.linalg.solve(gram, regressors.T @ target)
    intercept = float(one @ (white[:, 1] - white[:, 2:] @ (slopes - prior)) / size)
    error[rows] = y - intercept - x @ slopes
    return slopes, intercept, error


def whiten(block: FloatArray, periods: IntArray, phi: float, weights: FloatArray) -> FloatArray:
    """Rows (m, c) observed in these periods, such that the terms in them become white with variance 1.

    In units of the stationary variance of an observation: without persistence the rows stay as they are.
    """
    if (weights[1:] != 0.0).any():
        covariance = aggregate_covariance(periods, weights, phi)
        root = np.linalg.cholesky(covariance / covariance[0, 0])
        return np.asarray(solve_triangular(root, block, lower=True), dtype=np.float64)
    if phi == 0.0:
        return block
    power = (phi ** np.diff(periods))[:, None]
    out = block.copy()
    out[1:] = (block[1:] - power * block[:-1]) / np.sqrt(1.0 - power**2)
    return out


def idiosyncratic_law(
    residuals: FloatArray, weights: FloatArray, *, autoregressive: bool
) -> tuple[FloatArray, FloatArray]:
    """Maximum likelihood (phi, s), each (n,), of ordinary series and of the months behind aggregates."""
    persistence, variance = fit_gapped(
        residuals, autoregressive=autoregressive, smallest_variance=SMALLEST_VARIANCE
    )
    for i in np.flatnonzero((weights[:, 1:] != 0.0).any(axis=1)):
        persistence[i], variance[i] = fit_aggregate(
            residuals[:, i], weights[i], autoregressive=autoregressive, smallest_variance=SMALLEST_VARIANCE
        )
    return persistence, variance
