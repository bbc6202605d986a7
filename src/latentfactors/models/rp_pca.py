"""Risk-premium PCA: principal components that also have to explain the assets' means.

Model            r_t = B f_t + e_t           r_t (N,)   B (N, K)   f_t (K,)
Objective        sum_t |r_t - B f_t|^2 + gamma T |rbar - B fbar|^2: least squares plus gamma times the squared
                 pricing errors. Its minimiser holds the top eigenvectors of
                     R'R/T + gamma rbar rbar' = Y'Y/T,   y_t = r_t + c rbar,   c = sqrt(1 + gamma) - 1,
                 so it is PCA of values whose mean counts sqrt(1 + gamma) times. gamma = -1: PCA of the 1/T
                 covariance; 0: uncentred PCA. A factor with a high Sharpe ratio and little variance is weak
                 for PCA and strong for a large gamma
Identification   B'B = I (D^-1 B orthonormal with `scale_by_volatility`, D the assets' relative volatilities);
                 F'F/T + gamma fbar fbar' of the least-squares factors diagonal, descending: the eigenvalues;
                 factor means >= 0 (the largest absolute loading positive where a mean is zero)
Estimation       complete data: eigenvectors of Y'Y/T through the smaller of its N x N and T x T forms.
                 Missing cells: the same objective over the observed cells, each asset's pricing error taken
                 over its own T_i periods,
                     sum_i [ sum_{t in o_i} (r_ti - f_t'b_i)^2 + gamma T_i (rbar_i - fbar_i'b_i)^2 ],
                 rbar_i and fbar_i both means over o_i. So a noise-free panel is an exact zero whatever is
                 hidden, which holds for no mean that is filled in. Alternating least squares, both steps
                 exact, accelerated; stops on the angle between successive loading spaces
Short histories  assets with fewer than 5K values take no part in finding the space; theirs are posterior
                 loadings given the factors and what the others load (`kernels.short_histories`)
Factors          f_t = (B_o'B_o)^-1 B_o' r_(t,o) over the observed assets, in volatility units if scaled: the
                 rule of PCA, for training and new periods
Cost             one eigendecomposition of min(N, T)^3; with missing cells O(T K N min(N, T K)) a sweep
References       Lettau & Pelger (2020), Journal of Econometrics 218(1), 1-31, eqs. (3)-(5); Lettau & Pelger
                 (2020), RFS 33(5), 2274-2325 (anomaly portfolios, gamma = 10)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from threadpoolctl import threadpool_limits

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.kernels.als import fit_als, observed_factors, start_loadings
from latentfactors.kernels.em import FixedPoint, squarem
from latentfactors.kernels.linalg import (
    align,
    binary_scale,
    orthonormal_basis,
    outer_products,
    principal_subspace,
    solve_psd_batch,
    subspace_angle,
    unpack,
)
from latentfactors.kernels.rotation import fix_signs, principal_rotation
from latentfactors.kernels.scores import r_squared, relative_pricing_error
from latentfactors.kernels.short_histories import fit_with_short_histories
from latentfactors.kernels.static import (
    asset_means,
    by_asset,
    check_limits,
    choose_cells,
    factor_moments,
    factor_names,
    left_out,
    maximal_sharpe_ratio,
    projection_weights,
    residual_variances,
    volatility_scale,
)
from latentfactors.model import LatentFactorModel, known_assets, static_state
from latentfactors.panel import Panel
from latentfactors.results import FactorWeights
from latentfactors.state import Factors, FitSummary, LatentFactorState
from latentfactors.validate import check_whole, count

__all__ = ["RPPCAConfig", "RPPCAEstimates", "RPPCAModel"]

FloatArray = npt.NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
_EXACT_FIT = 1e-27  # objective relative to its value without factors that is rounding alone


@dataclass(frozen=True, kw_only=True)
class RPPCAConfig:
    """Static loadings chosen for means as well as variances; for portfolios. Variances alone: PCA.

    Parameters
    ----------
    n_factors
        K, 1 to min(T, N).
    gamma
        Weight of the squared pricing errors, >= -1. -1: PCA about the mean; 0: uncentred PCA; 10 to 20 in the
        papers.
    scale_by_volatility
        Divide values by the assets' standard deviations for the decomposition, so that no volatile asset
        dominates (the paper's version on correlations). Answers stay in input units.
    min_observed
        Observed assets a period needs for its factors. None: 2K, or all assets with loadings if fewer.
    tolerance
        With missing data: largest sine of the angle between successive loading spaces that counts as standing
        still.
    max_iterations
        With missing data: most sweeps.

    Raises
    ------
    ConfigurationError
        Values outside these ranges.
    """

    n_factors: int
    gamma: float = 10.0
    scale_by_volatility: bool = False
    min_observed: int | None = None
    tolerance: float = 1e-9
    max_iterations: int = 5000

    def __post_init__(self) -> None:
        check_whole(self, n_factors=1)
        if not -1 <= self.gamma < np.inf:
            raise ConfigurationError(
                f"gamma must be a finite number >= -1, got {self.gamma!r}: -1 is PCA about the mean, 0 "
                "uncentred PCA, 10 the papers' weight on pricing errors"
            )
        check_limits(self.n_factors, self.min_observed, self.tolerance, self.max_iterations)


@dataclass(frozen=True, eq=False, kw_only=True)
class RPPCAEstimates:
    """What `fit` found.

    Attributes
    ----------
    assets : (N,) labels that the rows below belong to
    loadings : (N, K) in input units, NaN for assets with fewer than 2K training values
    scale : (N,) volatility relative to the assets' root mean square; ones unless asked for
    eigenvalues : (K,) of R'R/T + gamma rbar rbar' (of values / scale), descending, squared input units
    factor_mean : (K,) over training, >= 0
    factor_covariance : (K, K), divisor T, over training
    sharpe_ratio : sqrt(mean' covariance^-1 mean), the largest of any portfolio of the factors in training,
        per period, not annualised. It rises with K by construction
    alpha : (N,) means of the training residuals, the pricing errors; not part of the forecasts
    residual_variance : (N,) in squared input units, NaN without loadings
    pooled_residual_variance : for new assets
    min_observed : observed assets a period needs
    """

    assets: npt.NDArray[np.generic]
    loadings: FloatArray
    scale: FloatArray
    eigenvalues: FloatArray
    factor_mean: FloatArray
    factor_covariance: FloatArray
    sharpe_ratio: float
    alpha: FloatArray
    residual_variance: FloatArray
    pooled_residual_variance: float
    min_observed: int

    def __post_init__(self) -> None:
        freeze(self)


class RPPCAModel(LatentFactorModel[RPPCAConfig, RPPCAEstimates]):
    """Principal components that price: variance explained and pricing errors in one objective.

    Parameters
    ----------
    config
        `RPPCAConfig`.

    Examples
    --------
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=120, n_assets=30, n_factors=2, missing=0.2, seed=1).panel
    >>> model = RPPCAModel(RPPCAConfig(n_factors=2, gamma=10.0))
    >>> model.fit(panel).converged, model.estimates.loadings.shape
    (True, (30, 2))
    >>> bool((model.estimates.factor_mean >= 0).all())
    True
    """

    def _estimate(self, panel: Panel) -> tuple[RPPCAEstimates, FitSummary]:
        config, active = self.config, panel.active_assets
        values, assets = panel.wide()[:, active], panel.assets[active]
        scale, still = volatility_scale(values, config.scale_by_volatility)
        normed = np.where(still, np.nan, values / scale)
        kept_periods, kept_assets, needed = choose_cells(normed, config.n_factors, config.min_observed)
        training = normed[np.ix_(kept_periods, kept_assets)]
        spaces: list[FixedPoint] = []

        def fit(long: FloatArray) -> FloatArray:
            spaces.append(estimate_space(long, config))
            return spaces[0].parameters

        basis, short = fit_with_short_histories(
            training, config.n_factors, needed, fit, centred=config.gamma == -1.0
        )
        loadings = np.full((assets.size, config.n_factors), np.nan)
        loadings[kept_assets], eigenvalues = identify(basis, training, config, needed)
        factors = observed_factors(normed, loadings, min_observed=needed)
        loadings *= scale[:, None]
        mean, covariance = factor_moments(factors)
        residual = np.where(kept_assets, values - factors @ np.nan_to_num(loadings).T, np.nan)
        variance = residual_variances(residual, config.n_factors)
        estimates = RPPCAEstimates(
            assets=assets,
            loadings=loadings,
            scale=scale,
            eigenvalues=eigenvalues,
            factor_mean=mean,
            factor_covariance=covariance,
            sharpe_ratio=maximal_sharpe_ratio(mean, covariance),
            alpha=np.where(kept_assets, asset_means(residual), np.nan),
            residual_variance=variance,
            pooled_residual_variance=float(np.nanmean(variance)),
            min_observed=needed,
        )
        metrics = {
            "total_r2": r_squared(values.ravel(), (values - residual).ravel()),
            "sharpe_ratio": estimates.sharpe_ratio,
            "relative_pricing_error": relative_pricing_error(estimates.alpha, asset_means(values)),
        }
        remarks = left_out(~kept_assets & ~still, ~kept_periods, config.n_factors, needed)
        return estimates, summarise(spaces[0], metrics, (*short, *remarks, *standing_still(still)))

    def _extract(self, panel: Panel, estimates: RPPCAEstimates) -> LatentFactorState:
        known = known_assets(panel.index, estimates.assets, "RPPCAModel")
        loadings, scale = by_asset(estimates.loadings, known), by_asset(estimates.scale, known)
        factors = observed_factors(
            panel.wide() / scale, loadings / scale[:, None], min_observed=estimates.min_observed
        )
        return static_state(
            panel,
            Factors(values=factors, names=factor_names(self.config.n_factors)),
            loadings,
            by_asset(estimates.residual_variance, known),
            pooled_residual_variance=estimates.pooled_residual_variance,
            fit_span=self.fitted.span,
        )

    def _factor_weights(self, panel: Panel, estimates: RPPCAEstimates) -> FactorWeights:
        index = panel.index
        known = known_assets(index, estimates.assets, "RPPCAModel")
        scale = np.nan_to_num(by_asset(estimates.scale, known), nan=1.0)[:, None]
        loadings = by_asset(estimates.loadings, known) / scale
        weights = projection_weights(index, loadings, estimates.min_observed) / scale[index.asset_codes]
        return FactorWeights(weights=weights, index=index, factor_names=factor_names(self.config.n_factors))


# ------------------------------------------------------------------------------------ the mathematics


def estimate_space(values: FloatArray, config: RPPCAConfig) -> FixedPoint:
    """Orthonormal basis (N, K) of the loading space as `parameters`, and how it was found."""
    k, gamma = config.n_factors, config.gamma
    if np.isfinite(values).all():
        augmented = values + (math.sqrt(1.0 + gamma) - 1.0) * values.mean(axis=0)
        basis, eigenvalues = principal_subspace(augmented, k)
        total = float(np.vdot(augmented, augmented))
        left = max(1.0 - len(values) * float(eigenvalues.sum()) / total, 0.0) if total > 0.0 else 0.0
        return FixedPoint(basis, (left,), 1, True, "complete data: closed form")
    limits = {"tolerance": config.tolerance, "max_iterations": config.max_iterations}
    if gamma in (-1.0, 0.0):
        fit = fit_als(values, k, intercept=gamma == -1.0, **limits)
        return FixedPoint(fit.loadings, fit.objective_path, fit.n_iterations, fit.converged, fit.reason)
    with threadpool_limits(limits=1, user_api="blas"):  # many small products: threads cost ten times more
        return fit_penalised_als(values, k, gamma, **limits)


def fit_penalised_als(
    values: FloatArray, n_factors: int, gamma: float, *, tolerance: float, max_iterations: int
) -> FixedPoint:
    """Minimise sum_i [sum_{t in o_i} (r_ti - f_t'b_i)^2 + gamma T_i (rbar_i - fbar_i'b_i)^2], gamma > -1.

    `parameters` of the answer are an orthonormal basis (N, K); the objective is relative to its value without
    factors.
    """
    observed = np.isfinite(values)
    filled = np.where(observed, values, 0.0) / binary_scale(values)
    mask, counts = observed.astype(np.float64), observed.sum(axis=0)
    means = filled.sum(axis=0) / counts
    total = float(np.vdot(filled, filled) + gamma * np.sum(counts * means * means)) or 1.0
    n_assets = values.shape[1]

    def sweep(parameters: FloatArray) -> tuple[FloatArray, float]:
        given = parameters.reshape(n_assets, -1)
        loadings = orthonormal_basis(given)
        factors, objective = penalised_factor_step(filled, mask, loadings, gamma)
        new = penalised_loading_step(filled, mask, factors, gamma)
        return align(orthonormal_basis(new), given).ravel(), objective / total

    def distance(new: FloatArray, old: FloatArray) -> float:
        return subspace_angle(new.reshape(n_assets, -1), old.reshape(n_assets, -1))

    augmented = filled + (math.sqrt(1.0 + gamma) - 1.0) * mask * means
    found = squarem(
        sweep,
        start_loadings(augmented, mask, n_factors).ravel(),
        distance=distance,
        tolerance=tolerance,
        max_iterations=max_iterations,
        floor=_EXACT_FIT,
    )
    basis = np.linalg.qr(found.parameters.reshape(n_assets, -1))[0]
    path = (*found.objective_path, penalised_factor_step(filled, mask, basis, gamma)[1] / total)
    return FixedPoint(basis, path, found.n_iterations, found.converged, found.reason)


def penalised_factor_step(
    filled: FloatArray, mask: FloatArray, loadings: FloatArray, gamma: float
) -> tuple[FloatArray, float]:
    """Factors (T, K) that minimise the objective for given loadings, and its value.

    The pricing errors tie all periods together. With A_t = sum_i m_ti b_i b_i', its inverse root R_t, the
    plain least-squares factors f0 and their mean errors e_i = rbar_i - f0bar_i'b_i,

        f_t = f0_t + gamma R_t v_t,   v = V (I + gamma V'V)^-1 (sqrt(T_i) e_i)

    with V (TK, N), V_(t,i) = m_ti R_t'b_i / sqrt(T_i). V (I + gamma V'V)^-1 = (I + gamma VV')^-1 V lets the
    smaller side be solved. V'V <= I, so the system is positive definite for every gamma > -1.
    """
    (n_periods, n_assets), k = filled.shape, loadings.shape[1]
    counts = mask.sum(axis=0)
    eigenvalues, vectors = np.linalg.eigh(unpack(mask @ outer_products(loadings)))
    keep = eigenvalues > 4 * k * _EPS * eigenvalues[:, -1:]
    roots = vectors * np.where(keep, 1.0 / np.sqrt(np.where(keep, eigenvalues, 1.0)), 0.0)[:, None, :]
    plain = (roots @ (roots.transpose(0, 2, 1) @ (filled @ loadings)[:, :, None]))[:, :, 0]
    errors = (filled - mask * (plain @ loadings.T)).sum(axis=0) / np.sqrt(counts)  # sqrt(T_i) e_i
    tied = (roots.transpose(0, 2, 1) @ (loadings.T / np.sqrt(counts))) * mask[:, None, :]
    tied = tied.reshape(n_periods * k, n_assets)
    if n_assets <= n_periods * k:
        shift = tied @ _solve_shifted(tied.T @ tied, errors, gamma)
    else:
        shift = _solve_shifted(tied @ tied.T, tied @ errors, gamma)
    factors = plain + gamma * (roots @ shift.reshape(n_periods, k, 1))[:, :, 0]
    residual = filled - mask * (factors @ loadings.T)
    pricing = residual.sum(axis=0)
    return factors, float(np.vdot(residual, residual) + gamma * np.sum(pricing * pricing / counts))


def _solve_shifted(gram: FloatArray, right: FloatArray, gamma: float) -> FloatArray:
    """(I + gamma G)^-1 right."""
    system = gamma * gram
    system[np.diag_indices_from(system)] += 1.0
    return scipy.linalg.cho_solve(scipy.linalg.cho_factor(system), right)


def penalised_loading_step(
    filled: FloatArray, mask: FloatArray, factors: FloatArray, gamma: float
) -> FloatArray:
    """b_i = (sum_t f_t f_t' + gamma T_i fbar_i fbar_i')^-1 (sum_t f_t r_ti + gamma T_i fbar_i rbar_i)."""
    counts = mask.sum(axis=0)[:, None]
    means = mask.T @ factors / counts
    grams = mask.T @ outer_products(factors) + gamma * counts * outer_products(means)
    crosses = filled.T @ factors + gamma * filled.sum(axis=0)[:, None] * means
    return solve_psd_batch(unpack(grams), crosses)


def identify(
    basis: FloatArray, values: FloatArray, config: RPPCAConfig, min_observed: int
) -> tuple[FloatArray, FloatArray]:
    """Loadings (N, K) with B'B = I and F'F/T + gamma fbar fbar' diagonal, means >= 0; and that diagonal (K,).

    Raises
    ------
    InsufficientDataError
        When fewer than K periods have factors.
    """
    factors = observed_factors(values, basis, min_observed=min_observed)
    factors = factors[np.isfinite(factors).all(axis=1)]
    if len(factors) < config.n_factors:
        raise InsufficientDataError(
            f"n_factors={config.n_factors}, but only {count(len(factors), 'period')} of {len(values)} can "
            "tell the factors apart: ask for fewer factors, or give a longer or fuller panel"
        )
    augmented = factors + (math.sqrt(1.0 + config.gamma) - 1.0) * factors.mean(axis=0)
    loading_rotation, factor_rotation = principal_rotation(basis, augmented)
    turned = factors @ factor_rotation
    size = np.sqrt(np.mean(turned * turned, axis=0))
    # a mean that is rounding alone must not decide a sign
    means = np.where(np.abs(turned.mean(axis=0)) <= 1e-12 * size, 0.0, turned.mean(axis=0))
    eigenvalues = np.mean((augmented @ factor_rotation) ** 2, axis=0)
    return basis @ (loading_rotation * fix_signs(means[None, :], "mean_nonnegative")), eigenvalues


def standing_still(still: npt.NDArray[np.bool_]) -> list[str]:
    """The sentence about assets without volatility."""
    n = int(still.sum())
    return [f"{count(n, 'asset')} with constant values: no volatility to scale by, no loadings"] if n else []


def summarise(found: FixedPoint, metrics: dict[str, float], remarks: tuple[str, ...]) -> FitSummary:
    """How the fit went."""
    remark = (
        f"loadings not converged, {found.reason}: raise max_iterations; if the objective keeps falling the "
        "cells are too few for this many factors, ask for fewer"
    )
    return FitSummary(
        converged=found.converged,
        reason=found.reason,
        n_iterations=found.n_iterations,
        objective=found.objective_path,
        objective_name="(SSE + gamma T x squared pricing errors) / the same without factors",
        metrics=metrics,
        warnings=remarks if found.converged else (remark, *remarks),
    )
