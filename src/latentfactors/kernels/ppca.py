"""Probabilistic principal components, complete or with any pattern of missing cells.

Model            r_t = B f_t + e_t,  f_t ~ N(0, I_K),  e_t ~ N(0, s2 I_N):  r_t ~ N(0, BB' + s2 I),  B (N, K)
Complete data    maximum likelihood in closed form: with X'X/T = U diag(d) U', d descending,
                 s2 = mean(d_K+1, ..., d_N),  B = U_K (D_K - s2 I)^1/2.
Missing cells    period t observes the assets o: r_(t,o) ~ N(0, B_o B_o' + s2 I), exact for cells missing at
                 random. EM:
  E              Omega_t = (I + B_o'B_o/s2)^-1,   m_t = Omega_t B_o'r_(t,o)/s2
  M              b_i = (sum_t (Omega_t + m_t m_t'))^-1 sum_t m_t r_ti over the t that observe i;
                 s2 = mean over observed cells of (r_ti - b_i'm_t)^2 + b_i'Omega_t b_i;
                 B <- B V^1/2, V = mean_t (Omega_t + m_t m_t')  (parameter expansion: f_t ~ N(0, V) frees the
                 slow scale directions)
Likelihood       log|BB' + s2 I| = n log s2 + log|I + B'B/s2|;  r'(BB' + s2 I)^-1 r = |r - Bm|^2/s2 + m'm,
                 without a difference of large numbers.
Identification   B up to rotation: returned with B'B diagonal, descending. The E and M steps commute with
                 rotations, so accelerated iterates stay aligned by themselves.
Cost             O(T N K^2) an iteration, accelerated by SQUAREM on (B, log s2).
References       Tipping & Bishop (1999), JRSS B 61(3), 611-622, eqs. (7)-(8), appendix B; Ilin & Raiko
                 (2010), JMLR 11, 1957-2000; Liu, Rubin & Wu (1998), Biometrika 85(4), 755-770 (parameter
                 expansion).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.als import factor_step, start_loadings
from latentfactors.kernels.em import squarem
from latentfactors.kernels.linalg import (
    binary_scale,
    invert_pd_batch,
    outer_products,
    pack,
    period_moments,
    principal_subspace,
    solve_psd_batch,
    unpack,
)

FloatArray = npt.NDArray[np.float64]

# of the mean square: where K factors reproduce the data the likelihood has no maximum, s2 -> 0
_NOISE_FLOOR = 1e-12


@dataclass(frozen=True, eq=False)
class PPCAFit:
    """Maximum-likelihood probabilistic PCA.

    Attributes
    ----------
    loadings : (N, K), scaled: cov(r) = loadings @ loadings.T + noise_variance I. Principal axes: B'B
        diagonal, descending; signs arbitrary.
    noise_variance : s2, input units squared. At least 1e-12 of the mean square of the values.
    loglikelihood : of all observed cells, input units.
    objective_path : log-likelihoods, never falling; the last one is `loglikelihood`.
    n_iterations : EM steps (1 for complete data).
    converged, reason : whether the iteration met its tolerance, and the sentence that says so.
    """

    loadings: FloatArray
    noise_variance: float
    loglikelihood: float
    objective_path: tuple[float, ...]
    n_iterations: int
    converged: bool
    reason: str


def fit_ppca(
    values: FloatArray, n_factors: int, *, tolerance: float = 1e-9, max_iterations: int = 5000
) -> PPCAFit:
    """Maximum-likelihood loadings and noise variance of zero-mean data.

    Parameters
    ----------
    values : (T, N), NaN where missing, mean zero (the caller removes an intercept).
    n_factors : 1 <= K <= N. With K = N nothing is discarded and s2 is the smallest eigenvalue: cov(r) is then
        the sample moment. Beyond the rank of complete data the surplus columns of the loadings are zero.
    tolerance : stop when neither the loadings (relative to their norm) nor log s2 move by more.
    max_iterations : largest number of EM steps.

    Returns
    -------
    PPCAFit
    """
    observed = np.isfinite(values)
    scale = binary_scale(values)
    filled = np.where(observed, values, 0.0) / scale
    mask = observed.astype(np.float64)
    n_cells = int(observed.sum())
    mean_square = float(np.vdot(filled, filled)) / max(n_cells, 1)
    floor = max(_NOISE_FLOOR * mean_square, float(np.finfo(np.float64).tiny))
    jacobian = n_cells * math.log(scale)

    if observed.all():
        loadings, noise = closed_form(filled, n_factors, floor)
        path = (expectation(filled, mask, loadings, noise)[2] - jacobian,)
        n_iterations, converged, reason = 1, True, "complete data: closed form"
    else:
        shape = (values.shape[1], n_factors)

        def split(parameters: FloatArray) -> tuple[FloatArray, float]:
            # an extrapolated log s2 may be anything; the bounds keep exp finite and the guard judges the rest
            return parameters[:-1].reshape(shape), max(math.exp(min(parameters[-1], 300.0)), floor)

        def step(parameters: FloatArray) -> tuple[FloatArray, float]:
            given, noise = split(parameters)
            # in principal axes I + B_o'B_o/s2 is graded, which a Cholesky factorisation forgives
            axes = np.linalg.svd(given, full_matrices=False)[2]
            means, covariances, loglikelihood = expectation(filled, mask, given @ axes.T, noise)
            loadings, noise = maximisation(filled, mask, means, covariances, floor)
            return np.append((loadings @ axes).ravel(), math.log(noise)), -loglikelihood

        def distance(new: FloatArray, old: FloatArray) -> float:
            size = float(np.linalg.norm(new[:-1])) or 1.0
            return max(float(np.linalg.norm(new[:-1] - old[:-1])) / size, abs(float(new[-1] - old[-1])))

        loadings, noise = _start(filled, mask, n_factors, floor)
        found = squarem(
            step,
            np.append(loadings.ravel(), math.log(noise)),
            distance=distance,
            tolerance=tolerance,
            max_iterations=max_iterations,
        )
        loadings, noise = split(found.parameters)
        left, singular, _ = np.linalg.svd(loadings, full_matrices=False)
        loadings = left * singular
        last = expectation(filled, mask, loadings, noise)[2]
        path = tuple(-objective - jacobian for objective in (*found.objective_path, -last))
        n_iterations, converged, reason = found.n_iterations, found.converged, found.reason
    if noise <= floor * (1.0 + 1e-9):
        reason += "; the factors reproduce the data, the noise variance is held at its floor"
    return PPCAFit(scale * loadings, scale**2 * noise, path[-1], path, n_iterations, converged, reason)


def closed_form(values: FloatArray, n_factors: int, floor: float) -> tuple[FloatArray, float]:
    """B = U_K (D_K - s2)^1/2 (N, K), s2 = mean of the discarded eigenvalues or `floor`; values (T, N)."""
    n_periods, n_assets = values.shape
    rank = min(n_factors, n_periods, n_assets)
    axes, eigenvalues = principal_subspace(values, rank)
    if n_factors < n_assets:
        discarded = float(np.vdot(values, values)) / n_periods - float(eigenvalues.sum())
        noise = discarded / (n_assets - n_factors)
    else:
        noise = float(eigenvalues[-1]) if rank == n_assets else 0.0
    noise = max(noise, floor)
    loadings = np.zeros((n_assets, n_factors))
    loadings[:, :rank] = axes * np.sqrt(np.maximum(eigenvalues - noise, 0.0))
    return loadings, noise


def expectation(
    filled: FloatArray, mask: FloatArray, loadings: FloatArray, noise: float
) -> tuple[FloatArray, FloatArray, float]:
    """E step: m_t (T, K), Omega_t (T, K, K), and the log-likelihood of the observed cells.

    `filled` (T, N) is zero and `mask` (T, N) is 0.0 where a cell is missing.
    """
    grams = unpack(mask @ outer_products(loadings)) / noise
    covariances, logdet = invert_pd_batch(grams + np.eye(loadings.shape[1]))
    means = (covariances @ (filled @ loadings / noise)[:, :, None])[:, :, 0]
    residual = means @ loadings.T
    residual *= mask
    residual -= filled
    quadratic = float(np.vdot(residual, residual)) / noise + float(np.vdot(means, means))
    n_cells = float(mask.sum())
    deviance = n_cells * math.log(2.0 * math.pi * noise) + float(logdet.sum()) + quadratic
    return means, covariances, -0.5 * deviance


def maximisation(
    filled: FloatArray, mask: FloatArray, means: FloatArray, covariances: FloatArray, floor: float
) -> tuple[FloatArray, float]:
    """M step with parameter expansion: B (N, K) and s2, not below `floor`."""
    second = covariances + means[:, :, None] * means[:, None, :]
    crosses = filled.T @ means
    loadings = solve_psd_batch(unpack(mask.T @ pack(second)), crosses)
    # at the optimal b_i, residual squares plus b_i'Omega b_i sum to r'r - b_i'(sum_t m_t r_ti)
    noise = (float(np.vdot(filled, filled)) - float(np.vdot(loadings, crosses))) / float(mask.sum())
    # the symmetric root, because it commutes with rotations of the factors where a triangular one does not
    spread, axes = np.linalg.eigh(second.mean(axis=0))
    return loadings @ ((axes * np.sqrt(np.maximum(spread, 0.0))) @ axes.T), max(noise, floor)


def posterior(
    values: FloatArray,
    loadings: FloatArray,
    noise_variance: float,
    prior_mean: FloatArray,
    prior_covariance: FloatArray,
    min_observed: int,
) -> tuple[FloatArray, FloatArray]:
    """Factors f_t ~ N(prior_mean, prior_covariance) given the observed cells of r_t = B f_t + e_t.

    With prior N(mu, CC') and M = C (s2 I + C'B_o'B_o C)^-1 C': mean mu + M B_o'(r_o - B_o mu), covariance
    s2 M. The form needs neither an invertible prior covariance nor s2 > 0.

    Parameters
    ----------
    values : (T, N), NaN where missing.
    loadings : (N, K); assets with a NaN loading are left out.
    noise_variance : s2 >= 0.
    prior_mean : (K,).
    prior_covariance : (K, K), positive semi-definite.
    min_observed : periods with fewer observed assets (and those with none) get NaN.

    Returns
    -------
    mean : (T, K).
    covariance : (T, K, K). Both depend, to the bit, on their own period only.
    """
    n_factors = loadings.shape[1]
    spread, axes = np.linalg.eigh(prior_covariance)
    root = axes * np.sqrt(np.maximum(spread, 0.0))
    grams, crosses, counts = period_moments(values, loadings)
    n_periods = len(counts)
    mean = np.full((n_periods, n_factors), np.nan)
    covariance = np.full((n_periods, n_factors, n_factors), np.nan)
    live = np.flatnonzero(counts >= max(min_observed, 1))
    if not live.size:
        return mean, covariance
    # stacked matmul calls BLAS once a period, so no period's rounding depends on the others
    system = root.T @ grams[live] @ root + noise_variance * np.eye(n_factors)
    surprise = root.T @ (crosses[live, :, None] - grams[live] @ prior_mean[:, None])
    units = [np.broadcast_to(unit, (live.size, n_factors)) for unit in np.eye(n_factors)]
    inverse = np.stack([solve_psd_batch(system, unit) for unit in units], axis=2)
    mean[live] = prior_mean + (root @ (inverse @ surprise))[:, :, 0]
    spread_out = noise_variance * (root @ inverse @ root.T)
    covariance[live] = 0.5 * (spread_out + spread_out.transpose(0, 2, 1))
    return mean, covariance


def _start(filled: FloatArray, mask: FloatArray, n_factors: int, floor: float) -> tuple[FloatArray, float]:
    """B and s2 from the start of ALS: its least-squares factors carry the scale, what they leave is noise."""
    axes = start_loadings(filled, mask, min(n_factors, *filled.shape))
    factors, sse = factor_step(filled, mask, axes, np.zeros(filled.shape[1]))
    spread, rotation = np.linalg.eigh(factors.T @ factors / len(factors))
    loadings = np.zeros((filled.shape[1], n_factors))
    loadings[:, : axes.shape[1]] = axes @ (rotation * np.sqrt(np.maximum(spread, 0.0)))
    # zero noise (as many factors as assets seen) would freeze EM, which moves s2 by shares of itself
    mean_square = float(np.vdot(filled, filled)) / float(mask.sum())
    return loadings, max(sse / float(mask.sum()), 1e-3 * mean_square, floor)
