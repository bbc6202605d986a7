"""Factor models whose factors are weighted averages of their own assets' values.

Encoder          f_jt = sum over i in N(j) of w^_ij r_it, over the assets available in t:
                 mean     w^ = w_ij / n_jt                       n_jt available assets of factor j
                 relu     w^ = max(0, w_ij) / n_jt
                 softmax  w^ = exp(w_ij) / sum over available of exp(w_kj): the only one that sums to one
Decoder          r^_it = sum over j in N(i) of b_ij f_jt
Objective        sum over observed rows of (r - r^)^2 + (ridge T/n_j) sum (w - w0)^2 over W and B, with w0
                 equal weights; values divided by their root mean square. T/n_j is about the curvature in
                 w_ij, so ridge counts in curvatures. With more assets in a factor than periods W is not
                 identified without it
Estimation       B given W: a regression for each asset on its own factors. mean: W given B is linear least
                 squares, by conjugate gradients; sweeps are accelerated. softmax, relu: L-BFGS on W with B
                 projected out
Reference        Ghiye, Barreau, Carlier & Vazirgiannis (2025), Journal of Financial Data Science 7(3)
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.adjacency import Pattern, asset_equations, fitted, period_equations, to_slots
from latentfactors.kernels.gauge import find_nesting
from latentfactors.kernels.masked_als import MaskedFit, accelerate, first_loadings, root_mean_square, solve

FloatArray = npt.NDArray[np.float64]
Normalisation = Literal["mean", "softmax", "relu"]

_EXACT_FIT = 1e-27
_INNER_STEPS = 10  # of conjugate gradients in a sweep; what they leave is the next sweep's
_INNER_EXACT = 1e-15  # relative norm of the normal equations' residual that ends them earlier


def encode(
    pattern: Pattern, weights: FloatArray, values: FloatArray, normalisation: Normalisation
) -> FloatArray:
    """(T, K) factors of the module docstring for weights (S,); NaN where a factor has no row."""
    used = np.exp(weights) if normalisation == "softmax" else _positive(weights, normalisation)
    total = period_equations(pattern, used, values, grams=False)[1]
    below = used if normalisation == "softmax" else np.ones(used.size)
    size = period_equations(pattern, below, np.ones(values.size), grams=False)[1]
    return np.divide(total, size, out=np.full(total.shape, np.nan), where=size > 0.0)


def fit_encoder(
    values: FloatArray,
    pattern: Pattern,
    *,
    normalisation: Normalisation = "mean",
    ridge: float = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
) -> tuple[MaskedFit, FloatArray]:
    """Minimise the objective of the module docstring.

    Parameters
    ----------
    values : (R,) finite.
    pattern : of these rows.
    normalisation : of the encoder.
    ridge : >= 0, in curvatures.
    tolerance : "mean": largest relative change of W in a sweep that counts as standing still; otherwise the
        largest entry of the gradient times the number of weights, relative to the sum of squares.
    max_iterations : sweeps, or steps of L-BFGS.

    Returns
    -------
    fit : MaskedFit with loadings (S,) and factors (T, K)
    weights : (S,)
    """
    unit = root_mean_square(values)
    problem = _Problem(values / unit, pattern, normalisation, ridge)
    if normalisation == "mean":
        found = accelerate(
            problem.sweep,
            problem.start,
            distance=lambda new, old: float(np.linalg.norm(new - old) / np.linalg.norm(new)),
            tolerance=tolerance,
            max_iterations=max_iterations,
            floor=_EXACT_FIT,
        )
        weights, path = found.parameters, found.objective_path
        n, converged, reason = found.n_iterations, found.converged, found.reason
    else:
        from scipy.optimize import minimize

        steps: list[float] = [problem.value_and_gradient(problem.start)[0]]
        done = minimize(
            problem.value_and_gradient,
            problem.start,
            jac=True,
            method="L-BFGS-B",
            callback=lambda intermediate_result: steps.append(float(intermediate_result.fun)),
            options={
                "maxiter": max_iterations,
                "gtol": tolerance / problem.start.size,
                "ftol": 1e-14,
                "maxcor": 20,
            },
        )
        weights, path, n, converged = done.x, tuple(steps), int(done.nit), bool(done.success)
        reason = str(done.message)
    factors = problem.factors(weights)
    loadings = problem.decoder(factors)
    path = (*path, problem.objective(weights, loadings, factors))
    return MaskedFit(loadings, unit * factors, path, n, converged, reason), weights


class _Problem:
    """The objective on normalised values y (R,), with what does not change in it."""

    def __init__(self, y: FloatArray, pattern: Pattern, normalisation: Normalisation, ridge: float) -> None:
        self.y, self.pattern = y, pattern
        self.normalisation: Normalisation = normalisation
        self.total = float(y @ y) or 1.0
        ones = np.ones(pattern.n_slots)
        counts = period_equations(pattern, ones, np.ones(y.size), grams=False)[1]
        self.inverse_counts = np.divide(1.0, counts, out=np.zeros(counts.shape), where=counts > 0.0)
        members = np.bincount(pattern.slot_factor, minlength=pattern.n_factors)
        self.penalty = ridge * pattern.n_periods / members[pattern.slot_factor]
        self.start = first_loadings(y, pattern, find_nesting(pattern))
        if normalisation == "softmax":
            self.start = np.log(np.maximum(self.start, 1.0))

    def factors(self, weights: FloatArray) -> FloatArray:
        """(T, K), zero where a factor has no row: nobody is linked to it there."""
        return np.nan_to_num(encode(self.pattern, weights, self.y, self.normalisation))

    def decoder(self, factors: FloatArray) -> FloatArray:
        """(S,) each asset's regression on its own factors."""
        return to_slots(self.pattern, solve(*asset_equations(self.pattern, factors, self.y), 0.0))

    def objective(self, weights: FloatArray, loadings: FloatArray, factors: FloatArray) -> float:
        residual = self.y - fitted(self.pattern, loadings, factors)
        return float(residual @ residual + self.penalty @ (weights - self.start) ** 2) / self.total

    # ---------------------------------------------------------------- mean: linear in W

    def sweep(self, weights: FloatArray) -> tuple[FloatArray, float]:
        """B given W, then W given B by conjugate gradients on the normal equations, from the W that came."""
        factors = self.factors(weights)
        loadings = self.decoder(factors)
        reached = self.objective(weights, loadings, factors)
        residual = self.y - fitted(self.pattern, loadings, factors)
        slope = self._adjoint(loadings, residual) - self.penalty * (weights - self.start)
        direction, size = slope.copy(), float(slope @ slope)
        found, first = weights.copy(), size
        for _ in range(_INNER_STEPS):
            if size <= _INNER_EXACT**2 * first or size == 0.0:
                break
            seen = fitted(self.pattern, loadings, self.factors(direction))
            step = size / float(seen @ seen + self.penalty @ direction**2)
            found += step * direction
            slope = slope - step * (self._adjoint(loadings, seen) + self.penalty * direction)
            former, size = size, float(slope @ slope)
            direction = slope + (size / former) * direction
        return found, reached

    def _adjoint(self, loadings: FloatArray, residual: FloatArray) -> FloatArray:
        """(S,) sum_t r_it / n_jt sum_k b_kj e_kt: the transpose of W -> fitted values."""
        back = period_equations(self.pattern, loadings, residual, grams=False)[1] * self.inverse_counts
        return to_slots(self.pattern, asset_equations(self.pattern, back, self.y, grams=False)[1])

    # ---------------------------------------------------------------- softmax, relu

    def value_and_gradient(self, weights: FloatArray) -> tuple[float, FloatArray]:
        """Objective with B projected out and its gradient in W: that of the joint one at the best B."""
        pattern = self.pattern
        factors = self.factors(weights)
        loadings = self.decoder(factors)
        residual = self.y - fitted(pattern, loadings, factors)
        value = float(residual @ residual + self.penalty @ (weights - self.start) ** 2)
        back = -2.0 * period_equations(pattern, loadings, residual, grams=False)[1]
        if self.normalisation == "softmax":
            raw = np.exp(weights)
            size = period_equations(pattern, raw, np.ones(self.y.size), grams=False)[1]
            back = np.divide(back, size, out=np.zeros(back.shape), where=size > 0.0)
            own = asset_equations(pattern, back, self.y, grams=False)[1]
            own -= asset_equations(pattern, back * factors, np.ones(self.y.size), grams=False)[1]
            gradient = raw * to_slots(pattern, own)
        else:
            own = asset_equations(pattern, back * self.inverse_counts, self.y, grams=False)[1]
            gradient = np.where(weights > 0.0, to_slots(pattern, own), 0.0)
        gradient = gradient + 2.0 * self.penalty * (weights - self.start)
        return value / self.total, gradient / self.total


def _positive(weights: FloatArray, normalisation: Normalisation) -> FloatArray:
    return np.maximum(weights, 0.0) if normalisation == "relu" else weights
