"""Principal components of a panel of values, missing cells included.

Model            r_t = B f_t + e_t           r_t (N,)   B (N, K)   f_t (K,)
Identification   B'B = I; F'F/T of the least-squares factors diagonal, descending (about the mean if
                 `demean`); the largest absolute loading of each factor positive
Estimation       complete data: top eigenvectors of the second moment R'R/T, uncentred by default, through the
                 smaller of its N x N and T x T forms; missing data: alternating least squares on the observed
                 cells; `probabilistic`: maximum likelihood of r_t ~ N(0, BB' + s2 I), exact EM if cells are
                 missing
Short histories  assets with fewer than 5K values take no part in finding the space; theirs are posterior
                 loadings given the factors and what the others load (`kernels.short_histories`)
Factors          f_t = (B_o'B_o)^-1 B_o' r_(t,o) over the observed assets o of period t: one rule for complete
                 and missing data, training and new periods. `probabilistic`: the posterior around the
                 training mean, so that premia are not shrunk towards zero
Cost             one eigendecomposition of min(N, T)^3, or O(N T K^2) a sweep
References       Connor & Korajczyk (1986), JFE 15(3), 373-394 (asymptotic principal components of returns);
                 Tipping & Bishop (1999), JRSS B 61(3), 611-622, eqs. (7)-(8); Bailey (2012), PASP 124,
                 1015-1023
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latentfactors.errors import InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.kernels.als import ALSFit, fit_als, observed_factors
from latentfactors.kernels.ppca import PPCAFit, fit_ppca, posterior
from latentfactors.kernels.rotation import principal_rotation
from latentfactors.kernels.scores import r_squared
from latentfactors.kernels.short_histories import fit_with_short_histories
from latentfactors.kernels.static import (
    asset_means,
    by_asset,
    check_limits,
    choose_cells,
    factor_moments,
    factor_names,
    left_out,
    projection_weights,
    residual_variances,
)
from latentfactors.model import LatentFactorModel, known_assets, static_state
from latentfactors.panel import Panel
from latentfactors.results import FactorWeights
from latentfactors.state import Factors, FitSummary, LatentFactorState
from latentfactors.validate import check_whole, count

__all__ = ["PCAConfig", "PCAEstimates", "PCAModel"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PCAConfig:
    """Static loadings on K latent factors; the model to beat. Loadings that move with characteristics: IPCA.

    Parameters
    ----------
    n_factors
        K, 1 to min(T, N).
    demean
        Estimate loadings from values about each asset's mean. Changes the loadings only: factors keep their
        mean, which is their premium.
    alpha
        Also estimate each asset's mean that its loadings leave unexplained.
    probabilistic
        Maximum likelihood with one noise variance; factors come with a posterior covariance.
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
    demean: bool = False
    alpha: bool = False
    probabilistic: bool = False
    min_observed: int | None = None
    tolerance: float = 1e-9
    max_iterations: int = 5000

    def __post_init__(self) -> None:
        check_whole(self, n_factors=1)
        check_limits(self.n_factors, self.min_observed, self.tolerance, self.max_iterations)


@dataclass(frozen=True, eq=False, kw_only=True)
class PCAEstimates:
    """What `fit` found.

    Attributes
    ----------
    assets : (N,) labels that the rows below belong to
    loadings : (N, K), NaN for assets with fewer than 2K training values
    alpha : (N,), zeros unless asked for
    residual_variance : (N,) in squared input units, NaN without loadings
    pooled_residual_variance : for new assets
    factor_mean : (K,) over training
    factor_covariance : (K, K) second moment about the mean, over training
    noise_variance : s2 of the probabilistic model, else NaN
    min_observed : observed assets a period needs
    """

    assets: npt.NDArray[np.generic]
    loadings: FloatArray
    alpha: FloatArray
    residual_variance: FloatArray
    pooled_residual_variance: float
    factor_mean: FloatArray
    factor_covariance: FloatArray
    noise_variance: float
    min_observed: int

    def __post_init__(self) -> None:
        freeze(self)


class PCAModel(LatentFactorModel[PCAConfig, PCAEstimates]):
    """Principal components with one rule for factors, whatever is missing.

    Parameters
    ----------
    config
        `PCAConfig`.

    Examples
    --------
    >>> from latentfactors.simulate import static_panel
    >>> simulated = static_panel(n_periods=120, n_assets=30, n_factors=2, missing=0.2, seed=1)
    >>> model = PCAModel(PCAConfig(n_factors=2))
    >>> summary = model.fit(simulated.panel)
    >>> summary.converged, model.estimates.loadings.shape
    (True, (30, 2))
    >>> model.extract(simulated.panel).factor_returns.shape
    (120, 2)
    """

    def _estimate(self, panel: Panel) -> tuple[PCAEstimates, FitSummary]:
        config, active = self.config, panel.active_assets
        values, assets = panel.wide()[:, active], panel.assets[active]
        kept_periods, kept_assets, min_observed = choose_cells(values, config.n_factors, config.min_observed)
        training = values[np.ix_(kept_periods, kept_assets)]
        basis, noise, summary = estimate_loadings(training, config, min_observed)
        loadings = np.full((assets.size, config.n_factors), np.nan)
        loadings[kept_assets] = identify(basis, training, config, min_observed)
        factors = observed_factors(values, loadings, min_observed=min_observed)
        mean, covariance = factor_moments(factors)
        residual = values - factors @ np.nan_to_num(loadings).T
        residual[:, ~kept_assets] = np.nan
        alpha = asset_means(residual) if config.alpha else np.zeros(assets.size)
        residual -= alpha
        variance = residual_variances(residual, config.n_factors)
        estimates = PCAEstimates(
            assets=assets,
            loadings=loadings,
            alpha=alpha,
            residual_variance=variance,
            pooled_residual_variance=float(np.nanmean(variance)),
            factor_mean=mean,
            factor_covariance=covariance,
            noise_variance=noise,
            min_observed=min_observed,
        )
        warnings = left_out(~kept_assets, ~kept_periods, config.n_factors, min_observed)
        score = r_squared(values.ravel(), (values - residual).ravel())
        return estimates, replace(
            summary, metrics={"total_r2": score}, warnings=(*summary.warnings, *warnings)
        )

    def _extract(self, panel: Panel, estimates: PCAEstimates) -> LatentFactorState:
        known = known_assets(panel.index, estimates.assets, "PCAModel")
        loadings = by_asset(estimates.loadings, known)
        covariance = None
        if self.config.probabilistic:
            factors, covariance = posterior(
                panel.wide(),
                loadings,
                estimates.noise_variance,
                estimates.factor_mean,
                estimates.factor_covariance,
                estimates.min_observed,
            )
        else:
            factors = observed_factors(panel.wide(), loadings, min_observed=estimates.min_observed)
        names = factor_names(self.config.n_factors)
        return static_state(
            panel,
            Factors(values=factors, names=names, covariance=covariance),
            loadings,
            by_asset(estimates.residual_variance, known),
            pooled_residual_variance=estimates.pooled_residual_variance,
            alpha=by_asset(estimates.alpha, known) if self.config.alpha else None,
            fit_span=self.fitted.span,
        )

    def _factor_weights(self, panel: Panel, estimates: PCAEstimates) -> FactorWeights:
        loadings = by_asset(estimates.loadings, known_assets(panel.index, estimates.assets, "PCAModel"))
        weights = projection_weights(panel.index, loadings, estimates.min_observed)
        return FactorWeights(
            weights=weights, index=panel.index, factor_names=factor_names(self.config.n_factors)
        )


# ------------------------------------------------------------------------------------ the mathematics


def estimate_loadings(
    values: FloatArray, config: PCAConfig, min_observed: int
) -> tuple[FloatArray, float, FitSummary]:
    """Loadings (N, K), noise variance (NaN unless probabilistic), and how the iteration went."""
    k, limits = config.n_factors, {"tolerance": config.tolerance, "max_iterations": config.max_iterations}
    found: list[ALSFit | PPCAFit] = []

    def fit(long: FloatArray) -> FloatArray:
        if config.probabilistic:
            found.append(fit_ppca(long - asset_means(long) if config.demean else long, k, **limits))
            return np.linalg.svd(found[0].loadings, full_matrices=False)[0]
        found.append(fit_als(long, k, intercept=config.demean, **limits))
        return found[0].loadings

    basis, remarks = fit_with_short_histories(values, k, min_observed, fit, centred=config.demean)
    how = found[0]
    likely = isinstance(how, PPCAFit)
    objective, loglikelihood = (
        ("log-likelihood", how.loglikelihood) if likely else ("SSE / SST of observed cells", None)
    )
    noise = how.noise_variance if likely else np.nan
    remark = (
        f"loadings not converged, {how.reason}: raise max_iterations; if the objective keeps falling the "
        "cells are too few for this many factors, ask for fewer or for probabilistic=True"
    )
    summary = FitSummary(
        converged=how.converged,
        reason=how.reason,
        n_iterations=how.n_iterations,
        objective=how.objective_path,
        objective_name=objective,
        loglikelihood=loglikelihood,
        warnings=(*(() if how.converged else (remark,)), *remarks),
    )
    return basis, noise, summary


def identify(basis: FloatArray, values: FloatArray, config: PCAConfig, min_observed: int) -> FloatArray:
    """Loadings that span the same space with B'B = I and the factors' F'F/T diagonal, falling; signs fixed.

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
    if config.demean:
        factors = factors - factors.mean(axis=0)
    return basis @ principal_rotation(basis, factors)[0]
