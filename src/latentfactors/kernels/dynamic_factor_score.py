"""Score, observed information and standard errors of the dynamic factor model.

    score         d l / d theta = E[d log p(data, factors) / d theta | data]        Fisher's identity
    information   H = -d score / d theta', central differences of the exact score: 2 P smoother runs
    errors        c(theta) = 0 are the r^2 identifying restrictions, N spans the null space of dc/d theta':
                  Var(theta^) = N (N'H N)^-1 N'

theta are the free numbers of `dynamic_factor_em.pack`: loadings, log s, atanh phi, A, log-Cholesky of Q,
log c. The likelihood does not move along maps of the factors, so H alone is singular; within the restrictions
it is not. Variances on their floor are held fixed.

References: Cappe, Moulines & Ryden (2005), Inference in Hidden Markov Models, section 10.1.6; Aitchison &
Silvey (1958), Annals of Mathematical Statistics 29(3), on maximum likelihood under restrictions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    ObservationPattern,
    excess,
    expectation,
    shock_precision,
    window_weights,
)
from latentfactors.kernels.dynamic_factor_em import (
    SMALLEST_VARIANCE,
    Structure,
    factor_moments,
    pack,
    unpack,
)
from latentfactors.kernels.dynamic_factor_moments import (
    ResidualMoments,
    expected_moments,
    loading_equations,
    residual_moments,
)
from latentfactors.kernels.factor_em import var_score
from latentfactors.kernels.state_space import companion_matrix, stationary_covariance
from latentfactors.kernels.variance_break import scale_score

FloatArray = npt.NDArray[np.float64]

# Of the free numbers, which are of order one; the score is exact, so its differences lose half the digits.
_STEP = 1e-5


def score(
    parameters: DynamicFactorParameters, pattern: ObservationPattern, structure: Structure
) -> tuple[FloatArray, float]:
    """Gradient of the log-likelihood in the coordinates of `pack`, and the log-likelihood."""
    expected = expectation(parameters, pattern)
    moments = expected_moments(expected, pattern, parameters)
    normal, right = loading_equations(parameters, moments, pattern)
    loadings = right - np.einsum("nij,nj->ni", normal, parameters.loadings)
    residuals = residual_moments(parameters, parameters.loadings, moments, pattern)
    log_variance, persistence = idiosyncratic_score(parameters, residuals)
    pieces = [loadings[structure.allowed], log_variance]
    if structure.autoregressive:
        pieces.append(persistence * (1.0 - parameters.persistence**2))
    precision = shock_precision(parameters, pattern) if pattern.broken.size else None
    statistics = factor_moments(expected, parameters.transition.shape, precision)
    for group in structure.groups:
        block = np.ix_(group, group)
        covariance = parameters.innovation[block]
        slope_a, slope_q = var_score(statistics.of(group), parameters.transition[:, *block], covariance)
        root = np.linalg.cholesky(covariance)
        # Q = L L'
        slope = 2.0 * slope_q @ root
        pieces += [slope_a.ravel(), np.diag(slope) * np.diag(root), slope[np.tril_indices(group.size, -1)]]
    pieces.append(scale_score(parameters, expected, residuals, pattern))
    return np.concatenate(pieces), expected.loglikelihood


def idiosyncratic_score(
    parameters: DynamicFactorParameters, moments: ResidualMoments
) -> tuple[FloatArray, FloatArray]:
    """(n,) derivatives of the expected log-likelihood by log s and by phi."""
    phi, s = parameters.persistence, parameters.variance
    left = 1.0 - phi**2
    total, change = left * moments.first, -2.0 * phi * moments.first
    slope = 2.0 * moments.n_first * phi / left
    extra = window_weights(phi, moments.window) @ excess(parameters)
    for column, d in enumerate(moments.gaps):
        powers = phi[:, None] ** np.arange(d + 1)
        v = (powers[:, :d] ** 2).sum(axis=1)
        lags = np.arange(1, d)
        bend = (2.0 * lags * powers[:, lags] * powers[:, lags - 1]).sum(axis=1)
        reach, before = powers[:, d], powers[:, d - 1]
        if d == 0:
            v, bend, reach, before = 1.0 / left, 2.0 * phi / left**2, np.zeros_like(phi), np.zeros_like(phi)
        v = v + extra[column]
        for j, more in zip(moments.window[column], excess(parameters), strict=True):
            if j > 0:
                bend = bend + 2.0 * j * phi ** (2 * j - 1) * more
        now, cross, past = (each[:, column] for each in (moments.now, moments.cross, moments.before))
        square = now - 2.0 * reach * cross + reach**2 * past
        total = total + square / v
        change = change + (2.0 * d * before * (reach * past - cross) - square * bend / v) / v
        slope = slope + moments.count[:, column] * bend / v
    n_all = moments.n_first + moments.count.sum(axis=1)
    return -0.5 * (n_all - total / s), -0.5 * (slope + change / s)


def information(
    parameters: DynamicFactorParameters, pattern: ObservationPattern, structure: Structure
) -> FloatArray:
    """(P, P) observed information in the coordinates of `pack`.

    Raises
    ------
    ValueError
        Parameters so close to a unit root that a step leaves the stationary region.
    """
    centre = pack(parameters, structure)
    found = np.zeros((centre.size, centre.size))
    for j in range(centre.size):
        ends = []
        for sign in (1.0, -1.0):
            moved = centre.copy()
            moved[j] += sign * _STEP
            at = unpack(moved, parameters, structure)
            if at is None:
                raise ValueError("a parameter is too close to a unit root to be moved")
            ends.append(score(at, pattern, structure)[0])
        found[j] = -(ends[0] - ends[1]) / (2.0 * _STEP)
    return 0.5 * (found + found.T)


def restrictions(parameters: DynamicFactorParameters, structure: Structure) -> FloatArray:
    """c(theta): Var(f) - I and the off-diagonal of Lambda'D^-1 Lambda by block; zero once normalised."""
    p, r = parameters.transition.shape[:2]
    noise = np.zeros((p * r, p * r))
    noise[:r, :r] = parameters.innovation
    variance = stationary_covariance(companion_matrix(np.hstack(list(parameters.transition))), noise)[:r, :r]
    precision = (1.0 - parameters.persistence**2) / parameters.variance
    out = []
    for group in structure.groups:
        block = np.ix_(group, group)
        columns = parameters.loadings[:, group]
        gram = columns.T @ (columns * precision[:, None])
        out += [
            (variance[block] - np.eye(group.size))[np.tril_indices(group.size)],
            # without the scale of the gram, which grows with the number of series
            (gram / np.trace(gram))[np.tril_indices(group.size, -1)],
        ]
    return np.concatenate(out)


def parameter_covariance(
    parameters: DynamicFactorParameters, pattern: ObservationPattern, structure: Structure
) -> FloatArray:
    """(P, P) covariance of the estimates in the coordinates of `pack`, within the restrictions.

    Raises
    ------
    ValueError
        The information is not positive definite within the restrictions: not a maximum, or a weak one.
    """
    found = information(parameters, pattern, structure)
    centre = pack(parameters, structure)
    jacobian = []
    for j in range(centre.size):
        ends = []
        for sign in (1.0, -1.0):
            moved = centre.copy()
            moved[j] += sign * _STEP
            at = unpack(moved, parameters, structure)
            assert at is not None
            ends.append(restrictions(at, structure))
        jacobian.append((ends[0] - ends[1]) / (2.0 * _STEP))
    held = np.zeros((centre.size, 0))
    first = int(structure.allowed.sum())
    on_floor = first + np.flatnonzero(parameters.variance <= 2.0 * SMALLEST_VARIANCE)
    if on_floor.size:
        held = np.eye(centre.size)[:, on_floor]
    conditions = np.hstack([np.array(jacobian), held])
    q, _ = np.linalg.qr(conditions, mode="complete")
    free = q[:, conditions.shape[1] :]
    inner = free.T @ found @ free
    try:
        root = np.linalg.cholesky(inner)
    except np.linalg.LinAlgError:
        smallest = float(np.linalg.eigvalsh(inner)[0])
        raise ValueError(
            f"the information is not positive definite (smallest eigenvalue {smallest:.1e})"
        ) from None
    half = np.linalg.solve(root, free.T)
    return half.T @ half
