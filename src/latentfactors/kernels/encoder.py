"""Factor models whose factors are weighted averages of their own assets' values.

Encoder          f_jt = sum over i in N(j) of w^_ij r_it, over the assets available in t:
                 mean     w^ = w_ij / n_jt                       n_jt available assets of factor j
                 relu     w^ = max(0, w_ij) / n_jt
                 softmax  w^ = exp(w_ij) / sum over available of exp(w_kj): the only one that sums to one
Decoder          r^_it = sum over j in N(i) of b_ij f_jt
Objective        sum over observed rows of (r - r^)^2 + (ridge T/n_j) sum (w - w0)^2 over W and B, with w0
                 equal weights, and (ridge / 10) sum (b f0)^2, f0 the typical factor value at equal weights;
                 values divided by their root mean square. T/n_j is about the curvature in w_ij, so ridge
                 counts in curvatures. With more assets in a factor than periods W is not identified without
                 it; without the one on B, loadings of short histories run away, the further the longer the
                 iteration
Estimation       B given W: a regression for each asset on its own factors. L-BFGS on W with B projected out:
                 its gradient is that of the joint objective at the best B. The valley is flat: factors with
                 few assets beside the market share directions, and weights a quarter apart fit alike to
                 three digits; so what stops is the objective
Polish           mean only, where W given B is linear least squares: sweeps of B and of conjugate gradients on
                 W, mixed (Anderson); they go on below the resolution of the objective
References       Ghiye, Barreau, Carlier & Vazirgiannis (2025), Journal of Financial Data Science 7(3); Golub
                 & Pereyra (1973), SIAM Journal on Numerical Analysis 10(2) (projecting out); Liu & Nocedal
                 (1989), Mathematical Programming 45 (L-BFGS)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.adjacency import Pattern, asset_equations, fitted, period_equations, to_slots
from latentfactors.kernels.em import anderson
from latentfactors.kernels.gauge import find_nesting
from latentfactors.kernels.masked_als import MaskedFit, first_loadings, root_mean_square, solve

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

FloatArray = npt.NDArray[np.float64]
Normalisation = Literal["mean", "softmax", "relu"]

_EXACT_FIT = 1e-27
_LOADING_RIDGE = 0.1  # observations of a typical factor value, for every curvature of the weights' ridge
_INNER_STEPS = 10  # of conjugate gradients in a sweep; what they leave is the next sweep's
_INNER_EXACT = 1e-15  # relative norm of the normal equations' residual that ends them earlier
_SPAN = 10  # steps of L-BFGS over which the fall of the objective is judged
_ROUNDING = 1e-12  # relative fall over them below which a line search may fail for want of digits


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
    tolerance : relative fall of the objective over ten steps that counts as standing still; "mean" then
        sweeps on until W moves by at most its square root: near its minimum the objective is quadratic in W.
    max_iterations : steps of L-BFGS, and again sweeps.

    Returns
    -------
    fit : MaskedFit with loadings (S,) and factors (T, K)
    weights : (S,)
    """
    unit = root_mean_square(values)
    problem = _Problem(values / unit, pattern, normalisation, ridge)
    weights, path, converged, reason = descend(problem, tolerance, max_iterations)
    n = len(path) - 1
    if normalisation == "mean":
        found = anderson(
            problem.sweep,
            weights,
            distance=lambda new, old: float(np.linalg.norm(new - old) / np.linalg.norm(new)),
            tolerance=math.sqrt(tolerance),
            max_iterations=max_iterations,
            floor=_EXACT_FIT,
        )
        weights, path = found.parameters, (*path, *found.objective_path)
        n, converged, reason = n + found.n_iterations, found.converged, found.reason
    factors = problem.factors(weights)
    loadings = problem.decoder(factors)
    path = (*path, problem.objective(weights, loadings, factors))
    return MaskedFit(loadings, unit * factors, path, n, converged, reason), weights


def descend(
    problem: _Problem, tolerance: float, max_iterations: int
) -> tuple[FloatArray, tuple[float, ...], bool, str]:
    """Weights (S,) by L-BFGS, the objective's path, and whether and why it came to rest."""
    from scipy.optimize import minimize

    path = [problem.value_and_gradient(problem.start)[0]]

    def fall() -> float:
        before = path[max(len(path) - 1 - _SPAN, 0)]
        return (before - path[-1]) / max(path[-1], _EXACT_FIT)

    def judge(intermediate_result: OptimizeResult) -> None:
        path.append(float(intermediate_result.fun))
        if path[-1] <= _EXACT_FIT or (len(path) > _SPAN and fall() <= tolerance):
            raise StopIteration

    found = minimize(
        problem.value_and_gradient,
        problem.start,
        jac=True,
        method="L-BFGS-B",
        callback=judge,
        options={
            "maxiter": max_iterations,
            "maxfun": 3 * max_iterations,
            "gtol": 0.0,
            "ftol": 0.0,
            "maxcor": 20,
        },
    )
    steps, lowered = len(path) - 1, fall()
    still = lowered <= max(tolerance, _ROUNDING) or path[-1] <= _EXACT_FIT
    state = "the last" if still else f"stopped after {steps} steps, the last"
    return (
        found.x,
        tuple(path),
        still,
        f"{state} {min(_SPAN, steps)} lowered the objective by {lowered:.1e} of it",
    )


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
        self.shrink = _LOADING_RIDGE * ridge * float(np.mean(self.factors(self.start) ** 2))

    def factors(self, weights: FloatArray) -> FloatArray:
        """(T, K), zero where a factor has no row: nobody is linked to it there."""
        if self.normalisation == "softmax":
            return np.nan_to_num(encode(self.pattern, weights, self.y, "softmax"))
        used = _positive(weights, self.normalisation)
        return period_equations(self.pattern, used, self.y, grams=False)[1] * self.inverse_counts

    def decoder(self, factors: FloatArray) -> FloatArray:
        """(S,) each asset's regression on its own factors."""
        return to_slots(self.pattern, solve(*asset_equations(self.pattern, factors, self.y), self.shrink))

    def objective(self, weights: FloatArray, loadings: FloatArray, factors: FloatArray) -> float:
        residual = self.y - fitted(self.pattern, loadings, factors)
        held = self.penalty @ (weights - self.start) ** 2 + self.shrink * (loadings @ loadings)
        return float(residual @ residual + held) / self.total

    # ---------------------------------------------------------------- sweeps: mean, linear in W

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

    # ---------------------------------------------------------------- L-BFGS

    def value_and_gradient(self, weights: FloatArray) -> tuple[float, FloatArray]:
        """Objective with B projected out and its gradient in W: that of the joint one at the best B."""
        pattern = self.pattern
        factors = self.factors(weights)
        loadings = self.decoder(factors)
        residual = self.y - fitted(pattern, loadings, factors)
        value = self.total * self.objective(weights, loadings, factors)
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
            gradient = to_slots(pattern, own)
            if self.normalisation == "relu":
                gradient = np.where(weights > 0.0, gradient, 0.0)
        gradient = gradient + 2.0 * self.penalty * (weights - self.start)
        return value / self.total, gradient / self.total


def _positive(weights: FloatArray, normalisation: Normalisation) -> FloatArray:
    return np.maximum(weights, 0.0) if normalisation == "relu" else weights
