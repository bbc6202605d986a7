"""Refits of targeted factors with dynamics or of mixed frequency, for intervals and the weight of targets.

Bootstrap        parametric: states and noise are drawn from the fitted law, from its stationary start on,
                 windows taken, cells hidden where they were missing; each draw is standardised and refitted
                 from the parameters that it was drawn from.
Cross-validation the imposed ratio of noise standard deviations whose one-sided forecasts from x err least in
                 blocks of time (`kernels.targeted_inference.choose_ratio`), each a fit with dynamics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.estimator import freeze
from latentfactors.kernels.state_space import Dynamics, companion_matrix
from latentfactors.kernels.targeted import TargetedFit
from latentfactors.kernels.targeted_cells import readings
from latentfactors.kernels.targeted_dynamics import filter_factors, law
from latentfactors.kernels.targeted_em import fit_targeted
from latentfactors.kernels.targeted_inference import choose_ratio
from latentfactors.periods import Frequency
from latentfactors.targeted.states import StateParameters, block_columns, fit_states, make_blocks, to_kernel

__all__ = ["StateDraws", "choose_state_ratio", "draw_states"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class StateDraws:
    """Refits to data drawn from the model, in the units of the values that the model was fitted to.

    Attributes
    ----------
    loadings : (B, d, k) of each draw's own standardised values
    variances : (B, G) noise variances of the same
    coefficients : (B, l, k, k)
    location, scale : (B, d) of each draw
    """

    loadings: FloatArray
    variances: FloatArray
    coefficients: FloatArray
    location: FloatArray
    scale: FloatArray

    def __post_init__(self) -> None:
        freeze(self)


def draw_states(
    fit: TargetedFit,
    parameters: StateParameters,
    observed: npt.NDArray[np.bool_],
    times: npt.NDArray[Any],
    n_draws: int,
    seed: int,
    *,
    lead: int = 0,
    ratio: float | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
) -> StateDraws:
    """Parametric bootstrap of a fit with dynamics or aggregates.

    Parameters
    ----------
    fit, parameters : what `fit_states` found.
    observed : (T, d) which cells a draw keeps.
    times : (T,) of the predictors.
    n_draws, seed : B, of the draws.
    lead : periods from a row's predictors to its targets.
    ratio : the ratio that was imposed, if any.
    tolerance, max_iterations : of the refits; far below the sampling error that they measure.
    """
    rng = np.random.default_rng(seed)
    p, lags = fit.n_predictors, len(parameters.coefficients)
    blocks = make_blocks(np.where(observed, 0.0, np.nan), times, parameters, p, lead)
    kernel, columns = to_kernel(fit.loadings, parameters, p), block_columns(parameters.kinds, p)
    motion = law(blocks, kernel)
    found: list[tuple[FloatArray, ...]] = []
    for _ in range(n_draws):
        states = _drawn_states(motion, len(times), rng)
        z = np.empty(observed.shape)
        size = max(block.depth for block in blocks) * fit.loadings.shape[1]
        for block, numbers, reading in zip(blocks, columns, readings(blocks, kernel, size), strict=True):
            noise = np.sqrt(kernel.variances[block.group]) * block.scale[:, None]
            z[:, numbers] = np.einsum("tds,ts->td", reading, states[:, :size])
            z[:, numbers] += noise * rng.normal(size=(len(times), numbers.size))
        z[~observed] = np.nan
        location, scale = np.nanmean(z, axis=0), np.nanstd(z, axis=0)
        # a series seen once or twice may come out constant; it keeps the fit's unit
        scale = np.where(scale > 1e-8, scale, 1.0)
        refit, states_of = fit_states(
            (z - location) / scale, times, parameters.kinds, parameters.frequency, fit, lags, lead=lead,
            ratio=ratio, start=parameters, tolerance=tolerance, max_iterations=max_iterations,
        )  # fmt: skip
        found.append((refit.loadings, states_of.variances, states_of.coefficients, location, scale))
    names = ("loadings", "variances", "coefficients", "location", "scale")
    return StateDraws(**dict(zip(names, map(np.stack, zip(*found, strict=True)), strict=True)))


def _drawn_states(motion: Dynamics, n_periods: int, rng: np.random.Generator) -> FloatArray:
    """(T, m) one path of the stacked state, from the stationary start on."""
    r, m = motion.transition.shape
    values, axes = np.linalg.eigh(motion.start_covariance)
    step, root = companion_matrix(motion.transition), np.linalg.cholesky(motion.innovation)
    out = np.empty((n_periods, m))
    out[0] = axes @ (np.sqrt(np.maximum(values, 0.0)) * rng.normal(size=m))
    for t in range(1, n_periods):
        out[t] = step @ out[t - 1]
        out[t, :r] += root @ rng.normal(size=r)
    return out


def choose_state_ratio(
    x: FloatArray,
    y: FloatArray,
    n_factors: int,
    times: npt.NDArray[Any],
    kinds: tuple[str, ...],
    frequency: Frequency | None,
    lags: int,
    *,
    lead: int = 0,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
) -> tuple[float, FloatArray]:
    """The noise ratio of `choose_ratio`, every candidate fitted with dynamics and aggregates.

    Parameters
    ----------
    x, y : (T, p) and (T, q) pairs, NaN where missing.
    n_factors : k.
    times, kinds, frequency, lags, lead : as in `fit_states`.
    tolerance, max_iterations : of the fits.
    """
    p = x.shape[1]

    def forecaster(known: FloatArray, given: FloatArray, ratio: float) -> FloatArray:
        static = fit_targeted(known[:, :p], known[:, p:], n_factors, ratio=ratio, tolerance=tolerance)
        fit, states = fit_states(
            known, times[: len(known)], kinds, frequency, static, lags, lead=lead, ratio=ratio,
            tolerance=tolerance, max_iterations=max_iterations,
        )  # fmt: skip
        blocks = make_blocks(given, times[: len(given)], states, p, lead)
        kernel, columns = to_kernel(fit.loadings, states, p), block_columns(kinds, p)
        size = max(block.depth for block in blocks) * n_factors
        means = filter_factors(blocks, kernel).mean[:, :size]
        out = np.empty(given.shape)
        for numbers, reading in zip(columns, readings(blocks, kernel, size), strict=True):
            out[:, numbers] = np.einsum("tds,ts->td", reading, means)
        return out[:, p:]

    return choose_ratio(x, y, n_factors, lead, forecaster=forecaster)
