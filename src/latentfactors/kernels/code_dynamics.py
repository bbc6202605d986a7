"""From the codes of a network to a dynamic factor model: measurement, idiosyncratic terms, factor VAR.

    y_t = a + Lambda (g_t - gbar) + e_t       given the codes, by generalised least squares in turns with phi
                                              (or least squares), with the decoder's own weights as a prior
                                              worth one observation: `gapped_regression`
    g_t = c + A_1 g_(t-1) + ... + u_t         by least squares with intercept; c puts the mean at gbar
    f_t                                       the codes mapped to Var(f) = I, Lambda'D^-1 Lambda diagonal and
                                              descending, largest loadings positive: g_t = gbar + M f_t

With the codes given, a linear decoder's loss is quadratic in its last layer, so least squares finishes what
gradient steps began. Where idiosyncratic terms are persistent it wastes what the data say: loadings given phi
are several times as precise. Residuals have mean zero, and forecasts return to the sample mean. A code that
never moves (a ReLU that died) becomes a factor without loadings.

References: Andreini, Izzo & Ricco (2020), Deep Dynamic Factor Models, section 3.3 (state space of the trained
model); Luetkepohl (2005), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.autoregression import fit_var
from latentfactors.kernels.dynamic_factor import DynamicFactorParameters
from latentfactors.kernels.dynamic_factor_em import (
    Structure,
    normalise,
    normalising_maps,
)
from latentfactors.kernels.gapped_regression import idiosyncratic_law, regress_gapped

FloatArray = npt.NDArray[np.float64]

# Share of the largest code's standard deviation below which a direction of the codes does not move.
_STILL = 1e-5


@dataclass(frozen=True, eq=False)
class CodeDynamics:
    """A dynamic factor model of standardised series whose factors are codes.

    Attributes
    ----------
    parameters : normalised
    intercept : (n,) a, or the mean of what a nonlinear decoder leaves
    code_mean : (r,) gbar
    code_map : (r, r) M
    n_still : directions of the codes that do not move
    shrunk : whether the VAR had to be made stationary
    """

    parameters: DynamicFactorParameters
    intercept: FloatArray
    code_mean: FloatArray
    code_map: FloatArray
    n_still: int
    shrunk: bool


def code_dynamics(
    codes: FloatArray,
    values: FloatArray,
    weights: FloatArray,
    prior: FloatArray | None,
    lags: int,
    *,
    autoregressive: bool,
    generalised: bool = True,
    fitted: FloatArray | None = None,
) -> CodeDynamics:
    """Everything after training.

    Parameters
    ----------
    codes : (T, r)
    values : (T, n) standardised, NaN where missing
    weights : (n, L) of aggregates, newest first
    prior : (n, r) the decoder's weights on the codes, or None
    lags : p of the factor VAR
    autoregressive : whether idiosyncratic terms are AR(1)
    generalised : loadings given phi, in turns with it; else least squares. Without a say where `fitted` is
        given
    fitted : (T, n) fitted values where they are not linear in the codes; the idiosyncratic terms are then
        what they leave, and the loadings a linear description

    Raises
    ------
    ValueError
        Too few periods for the VAR.
    """
    n_periods, r = codes.shape
    mean = codes.mean(axis=0)
    _, size, turn = np.linalg.svd(codes - mean, full_matrices=False)
    moving = size > _STILL * max(size[0], 1e-12)
    spread = turn[moving].T * (size[moving] / np.sqrt(n_periods))
    white = (codes - mean) @ np.linalg.pinv(spread).T
    k = white.shape[1]
    start = np.zeros((values.shape[1], k)) if prior is None else prior @ spread
    found = regress_gapped(
        start,
        white,
        values,
        weights,
        autoregressive=autoregressive,
        generalised=generalised and fitted is None,
    )
    loadings, intercept = np.zeros((values.shape[1], r)), found.intercept
    loadings[:, :k] = found.loadings
    persistence, variance = found.persistence, found.variance
    if fitted is not None:
        intercept = np.nanmean(values - fitted, axis=0)
        persistence, variance = idiosyncratic_law(
            values - fitted - intercept, weights, autoregressive=autoregressive
        )
    transition, innovation, shrunk = np.zeros((lags, r, r)), np.eye(r), False
    if k:
        var, _, shrunk = fit_var(white, lags)
        transition[:, :k, :k] = var.coefficients
        innovation[:k, :k] = var.covariance + 1e-10 * np.trace(var.covariance) * np.eye(k)
    structure = Structure(
        autoregressive, np.ones((values.shape[1], r), dtype=bool), (np.arange(r, dtype=np.intp),)
    )
    raw = DynamicFactorParameters(loadings, persistence, variance, transition, innovation)
    forward, _ = normalising_maps(raw, structure)
    full = np.zeros((r, r))
    full[:, :k] = spread
    return CodeDynamics(normalise(raw, structure), intercept, mean, full @ forward, r - k, shrunk)
