"""Maximum likelihood of the dynamic factor model: accelerated ECM, and a certificate that it has arrived.

    sweep        E-step; loadings given phi; (phi, s); (A, Q) including the stationary start; the scales of
                 broken periods. Each raises the expected log-likelihood, so the likelihood never falls.
    acceleration SQUAREM on (loadings, atanh phi, log s, A, log-Cholesky of Q, log c), extrapolations that
                 leave the stationary region or lower the likelihood rejected
    certificate  the score by Fisher's identity, d l(theta)/d theta = E[d log p(data, factors)/d theta |
                 data], in units of complete-data standard errors: the root mean square over all loadings. At
                 a maximum it is zero; plain EM that has merely become slow does not pass.

Identification is up to an invertible map of the factors until `normalise` fixes it: Var(f_t) = I,
Lambda' D^-1 Lambda diagonal and descending with D the idiosyncratic variances, the largest loading of each
factor positive; with blocks, inside every block.

References: Meng & Rubin (1993), Biometrika 80, 267-278; Varadhan & Roland (2008); Banbura & Modugno (2014),
section 3; Fisher's identity as in Cappe, Moulines & Ryden (2005), Inference in Hidden Markov Models, ch. 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.autoregression import fit_var
from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    Expectation,
    ObservationPattern,
    expectation,
    shock_precision,
)
from latentfactors.kernels.dynamic_factor_moments import (
    expected_moments,
    loading_score,
    loading_step,
    residual_moments,
)
from latentfactors.kernels.dynamic_factor_sums import transition_sums
from latentfactors.kernels.em import squarem
from latentfactors.kernels.factor_em import VarMoments, var_step
from latentfactors.kernels.idiosyncratic import LARGEST_PERSISTENCE, idiosyncratic_step
from latentfactors.kernels.ppca import fit_ppca, posterior
from latentfactors.kernels.rotation import fix_signs
from latentfactors.kernels.state_space import companion_matrix, stationary_covariance
from latentfactors.kernels.variance_break import scale_step

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

# Of a standardised series: a smaller idiosyncratic variance means that the factors reproduce it (Heywood
# case).
SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Structure:
    """What is estimated and what is fixed.

    Attributes
    ----------
    autoregressive : idiosyncratic terms are AR(1)
    allowed : (n, r) loadings that are not fixed at zero
    groups : factors by block; transition and innovation are block-diagonal over them
    """

    autoregressive: bool
    allowed: BoolArray
    groups: tuple[npt.NDArray[np.intp], ...]


@dataclass(frozen=True, eq=False)
class DynamicFactorFit:
    """Where the iteration ended.

    Attributes
    ----------
    parameters : normalised
    loglikelihood : at the parameters
    objective_path : log-likelihoods, never falling
    score : root mean square score of the loadings in complete-data standard errors
    """

    parameters: DynamicFactorParameters
    loglikelihood: float
    objective_path: tuple[float, ...]
    n_iterations: int
    converged: bool
    reason: str
    score: float


def fit_dynamic_factor(
    start: DynamicFactorParameters,
    pattern: ObservationPattern,
    structure: Structure,
    *,
    tolerance: float,
    max_iterations: int,
) -> DynamicFactorFit:
    """Climb from the start until parameters and score stand still.

    Parameters
    ----------
    tolerance : largest change of a parameter between cycles; loadings in units of their root mean square
    max_iterations : evaluations of the likelihood
    """

    def sweep(vector: FloatArray) -> tuple[FloatArray, float]:
        parameters = unpack(vector, start, structure)
        if parameters is None:
            return vector, math.inf
        try:
            expected = expectation(parameters, pattern)
        except (np.linalg.LinAlgError, ZeroDivisionError, ValueError):
            return vector, math.inf
        return pack(maximise(parameters, expected, pattern, structure), structure), -expected.loglikelihood

    def distance(new: FloatArray, old: FloatArray) -> float:
        return float(np.abs(new - old).max())

    found = squarem(
        sweep, pack(start, structure), distance=distance, tolerance=tolerance, max_iterations=max_iterations
    )
    parameters = unpack(found.parameters, start, structure)
    assert parameters is not None
    expected = expectation(parameters, pattern)
    moments = expected_moments(expected, pattern, parameters)
    score = loading_score(parameters, moments, pattern, structure.allowed)
    return DynamicFactorFit(
        parameters=normalise(parameters, structure),
        loglikelihood=expected.loglikelihood,
        objective_path=(*(-value for value in found.objective_path), expected.loglikelihood),
        n_iterations=found.n_iterations,
        converged=found.converged,
        reason=f"{found.reason}; score {score:.1e} standard errors",
        score=score,
    )


def maximise(
    parameters: DynamicFactorParameters,
    expected: Expectation,
    pattern: ObservationPattern,
    structure: Structure,
) -> DynamicFactorParameters:
    """One round of conditional maximisations."""
    moments = expected_moments(expected, pattern, parameters)
    new = loading_step(parameters, moments, pattern, structure.allowed)
    residuals = residual_moments(new, parameters.loadings, moments, pattern)
    new = idiosyncratic_step(
        new, residuals, autoregressive=structure.autoregressive, smallest_variance=SMALLEST_VARIANCE
    )
    precision = shock_precision(parameters, pattern) if pattern.broken.size else None
    statistics = factor_moments(expected, parameters.transition.shape, precision)
    if len(structure.groups) == 1:
        transition, innovation = var_step(statistics, new.transition, new.innovation)
    else:
        transition, innovation = np.zeros_like(new.transition), np.zeros_like(new.innovation)
        for group in structure.groups:
            block = np.ix_(group, group)
            a, q = var_step(statistics.of(group), new.transition[:, *block], new.innovation[block])
            transition[:, *block], innovation[block] = a, q
    new = DynamicFactorParameters(
        new.loadings, new.persistence, new.variance, transition, innovation, new.scale
    )
    return scale_step(new, parameters.loadings, expected, residuals, pattern)


def factor_moments(
    expected: Expectation, shape: tuple[int, ...], precision: FloatArray | None = None
) -> VarMoments:
    """S_11, S_10, S_00 and the start of the (p, r, r) factor VAR, from the smoothed sequence.

    precision : (T,) weights of the transitions into t; None: 1
    """
    p, r = shape[:2]
    n_periods = expected.means.shape[0]

    weights = np.ones(n_periods) if precision is None else precision
    sums = transition_sums(expected.means, expected.covariances, weights, p, r)
    return VarMoments(*sums, n_periods - p)


# ------------------------------------------------------------------------ parameters as one vector


def pack(parameters: DynamicFactorParameters, structure: Structure) -> FloatArray:
    """Free numbers for extrapolation."""
    pieces = [parameters.loadings[structure.allowed], np.log(parameters.variance)]
    if structure.autoregressive:
        pieces.append(np.arctanh(parameters.persistence))
    if len(structure.groups) == 1:
        root = np.linalg.cholesky(parameters.innovation)
        lower = _below_diagonal(len(root))
        pieces += [parameters.transition.ravel(), np.log(root.diagonal()), root[lower]]
    for group in structure.groups if len(structure.groups) > 1 else ():
        block = np.ix_(group, group)
        root = np.linalg.cholesky(parameters.innovation[block])
        lower = _below_diagonal(group.size)
        pieces += [parameters.transition[:, *block].ravel(), np.log(np.diag(root)), root[lower]]
    pieces.append(np.log(parameters.scale))
    return np.concatenate(pieces)


def unpack(
    vector: FloatArray, like: DynamicFactorParameters, structure: Structure
) -> DynamicFactorParameters | None:
    """Back from the vector; None where it is not stationary or not finite."""
    n, r = like.loadings.shape
    p = like.transition.shape[0]
    if not np.isfinite(vector).all():
        return None
    position = 0

    def take(count: int) -> FloatArray:
        nonlocal position
        position += count
        return vector[position - count : position]

    loadings = np.zeros((n, r))
    loadings[structure.allowed] = take(int(structure.allowed.sum()))
    # exp(60) is far outside whatever a standardised series can have, and still finite
    variance = np.maximum(np.exp(np.minimum(take(n), 60.0)), SMALLEST_VARIANCE)
    persistence = np.zeros(n)
    if structure.autoregressive:
        persistence = np.clip(np.tanh(take(n)), -LARGEST_PERSISTENCE, LARGEST_PERSISTENCE)
    transition, innovation = np.zeros((p, r, r)), np.zeros((r, r))
    for group in structure.groups:
        k, block = group.size, np.ix_(group, group)
        transition[:, *block] = take(p * k * k).reshape(p, k, k)
        root = np.diag(np.exp(np.minimum(np.maximum(take(k), -30.0), 30.0)))
        root[_below_diagonal(k)] = take(k * (k - 1) // 2)
        innovation[block] = root @ root.T
    scale = like.scale
    if scale.size:
        scale = np.exp(np.clip(take(scale.size), -7.0, 7.0))
    # row sums of |A_l| that add up to less than 1 bound the radius
    if np.abs(transition).sum(axis=(0, 2)).max() >= 1.0 - 1e-6:
        companion = companion_matrix(np.hstack(list(transition)))
        if np.abs(np.linalg.eigvals(companion)).max() >= 1.0 - 1e-9:
            return None
    return DynamicFactorParameters(loadings, persistence, variance, transition, innovation, scale)


@cache
def _below_diagonal(size: int) -> tuple[IntArray, IntArray]:
    """Rows and columns below the diagonal."""
    rows, columns = np.tril_indices(size, -1)
    rows.flags.writeable = columns.flags.writeable = False
    return rows, columns


def count_parameters(parameters: DynamicFactorParameters, structure: Structure) -> int:
    """Free parameters, less those that an invertible map of every block's factors makes redundant."""
    redundant = sum(group.size**2 for group in structure.groups)
    return pack(parameters, structure).size - redundant


# ------------------------------------------------------------------------ start and identification


def start_parameters(
    values: FloatArray, weights: FloatArray, structure: Structure, lags: int
) -> DynamicFactorParameters:
    """Principal components of the standardised values, block after block of what the blocks before left.

    Parameters
    ----------
    values : (T, n), NaN where missing
    weights : (n, L) of aggregates, newest first
    """
    n_periods, n = values.shape
    r = structure.allowed.shape[1]
    residual, factors = values.copy(), np.zeros((n_periods, r))
    for group in structure.groups:
        members = np.flatnonzero(structure.allowed[:, group[0]])
        block = components(residual[:, members], group.size)
        factors[:, group] = block
        residual[:, members] = _left_by(residual[:, members], block, weights[members])
    loadings, persistence, variance = np.zeros((n, r)), np.zeros(n), np.ones(n)
    for i in range(n):
        free = np.flatnonzero(structure.allowed[i])
        design = aggregate(factors[:, free], weights[i])
        loadings[i, free], error = _regress(design, values[:, i])
        persistence[i], variance[i] = _autoregress(error, structure.autoregressive, weights[i])
    transition, innovation = np.zeros((lags, r, r)), np.zeros((r, r))
    for group in structure.groups:
        var, _, _ = fit_var(factors[:, group], lags, max_radius=0.95)
        block = np.ix_(group, group)
        transition[:, *block], innovation[block] = var.coefficients, var.covariance
    return DynamicFactorParameters(loadings, persistence, variance, transition, innovation)


def components(values: FloatArray, k: int) -> FloatArray:
    """(T, k) posterior means of probabilistic principal components with unit variance."""
    fit = fit_ppca(values, k, tolerance=1e-4, max_iterations=200)
    mean, _ = posterior(values, fit.loadings, fit.noise_variance, np.zeros(k), np.eye(k), 1)
    mean = np.where(np.isfinite(mean), mean, 0.0)
    scale = mean.std(axis=0)
    return mean / np.where(scale > 0.0, scale, 1.0)


def aggregate(factors: FloatArray, weights: FloatArray) -> FloatArray:
    """(T, k) sum_l w_l f_(t-l), NaN where a lag is before the sample."""
    out = np.zeros_like(factors)
    for lag, weight in enumerate(weights):
        if weight:
            shifted = np.full_like(factors, np.nan)
            shifted[lag:] = factors[: len(factors) - lag]
            out += weight * shifted
    return out


def _left_by(values: FloatArray, factors: FloatArray, weights: FloatArray) -> FloatArray:
    out = values.copy()
    for i in range(values.shape[1]):
        _, error = _regress(aggregate(factors, weights[i]), values[:, i])
        out[:, i] = np.where(np.isfinite(error), error, values[:, i])
    return out


def _regress(design: FloatArray, column: FloatArray) -> tuple[FloatArray, FloatArray]:
    rows = np.isfinite(column) & np.isfinite(design).all(axis=1)
    error = np.full(column.size, np.nan)
    if np.count_nonzero(rows) <= design.shape[1] + 2:
        error[np.isfinite(column)] = column[np.isfinite(column)]
        return np.zeros(design.shape[1]), error
    slopes = np.asarray(np.linalg.lstsq(design[rows], column[rows], rcond=1e-8)[0], dtype=np.float64)
    error[rows] = column[rows] - design[rows] @ slopes
    return slopes, error


def _autoregress(error: FloatArray, autoregressive: bool, weights: FloatArray) -> tuple[float, float]:
    """phi of neighbours and the innovation variance, kept away from the edges."""
    seen = error[np.isfinite(error)]
    # an aggregate of iid terms has sum w^2 times their variance
    variance = max(float(np.mean(seen**2)) if seen.size else 1.0, 0.05) / float(weights @ weights)
    if not autoregressive:
        return 0.0, variance
    both = np.isfinite(error[1:]) & np.isfinite(error[:-1])
    phi = 0.1
    if np.count_nonzero(both) > 10:
        now, before = error[1:][both], error[:-1][both]
        phi = float(np.clip((now @ before) / max(before @ before, 1e-12), -0.5, 0.9))
    return phi, variance * (1.0 - phi**2)


def normalise(parameters: DynamicFactorParameters, structure: Structure) -> DynamicFactorParameters:
    """Var(f) = I; Lambda'D^-1 Lambda diagonal, descending; largest loadings positive; inside every block."""
    forward, backward = normalising_maps(parameters, structure)
    innovation = backward @ parameters.innovation @ backward.T
    return replace(
        parameters,
        loadings=np.where(structure.allowed, parameters.loadings @ forward, 0.0),
        transition=np.einsum("ij,ljk,km->lim", backward, parameters.transition, forward),
        innovation=(innovation + innovation.T) / 2,
    )


def normalising_maps(
    parameters: DynamicFactorParameters, structure: Structure
) -> tuple[FloatArray, FloatArray]:
    """The map from normalised factors to the given ones, f = forward g, and its inverse (r, r).

    Loadings go with `forward`, the law of g with `backward`.
    """
    p, r = parameters.transition.shape[:2]
    noise = np.zeros((p * r, p * r))
    noise[:r, :r] = parameters.innovation
    companion = companion_matrix(np.hstack(list(parameters.transition)))
    variance = stationary_covariance(companion, noise)[:r, :r]
    idiosyncratic = parameters.variance / (1.0 - parameters.persistence**2)
    forward, backward = np.zeros((r, r)), np.zeros((r, r))
    for group in structure.groups:
        block = np.ix_(group, group)
        root = np.linalg.cholesky(variance[block])
        scaled = parameters.loadings[:, group] @ root
        _, vectors = np.linalg.eigh(scaled.T @ (scaled / idiosyncratic[:, None]))
        vectors = vectors[:, ::-1]
        vectors = vectors * fix_signs(scaled @ vectors)
        forward[block] = root @ vectors
        backward[block] = vectors.T @ np.linalg.inv(root)
    return forward, backward
