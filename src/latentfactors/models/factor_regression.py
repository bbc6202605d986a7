"""Forecasting regressions on factors of many predictors: principal components, PLS, scaled PCA, three passes.

Model            f_s = map(x_s),  y_(s+lead) = a + c'f_s + e       x (p,) predictors   y (q,) named targets
Identification   the map's own (`kernels.supervised_factors`); the first target's covariance is positive
Estimation       predictors and targets standardised over the training pairs; the map; least squares of the
                 targets on the factors. Gaps: every regression uses the cells it has
Identification   the map's own (`kernels.supervised_factors`); covariance with the first target positive
Cost             one eigendecomposition, or a few passes over x
References       Stock & Watson (2002), JASA 97, 1167-1179; Kelly & Pruitt (2015), J. of Econometrics 186,
                 294-316; Huang, Jiang, Li, Tong & Zhou (2022), Management Science 68, 1678-1695; Wold (1975)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import at_least, check_number, freeze, one_of
from latentfactors.kernels.static import factor_names
from latentfactors.kernels.supervised_factors import (
    FactorMap,
    Method,
    apply_factor_map,
    fit_factor_map,
    target_regression,
)
from latentfactors.model import LatentFactorModel
from latentfactors.panel import Panel
from latentfactors.state import Factors, FitSummary, LatentFactorState
from latentfactors.targeted.series import (
    LeadForecasts,
    TargetedSeries,
    TargetedTraining,
    check_targets,
    measure,
    pair_series,
)

__all__ = ["FactorRegressionConfig", "FactorRegressionEstimates", "FactorRegressionModel"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FactorRegressionConfig:
    """Rivals of targeted factor analysis under the same protocol. With a likelihood, intervals: PTFA.

    Parameters
    ----------
    n_factors
        K, 1 to min(p, S - 1).
    targets
        Labels of the series to forecast. "spca" takes one; "three_pass" takes one, or as many as factors.
    lead
        Periods from a predictor to the target it is paired with.
    method
        "pcr": principal components, which know nothing of the target; "pls": partial least squares; "spca":
        scaled principal components; "three_pass": the three-pass regression filter.
    min_observed
        Observed predictors a period needs for its factors. None: 2K, or all predictors if fewer.
    tolerance, max_iterations
        Of principal components with missing cells.

    Raises
    ------
    ConfigurationError
        Values outside these ranges, an unknown method, targets that it cannot take.
    """

    n_factors: int
    targets: tuple[str | int, ...]
    lead: int = 0
    method: Method = "pls"
    min_observed: int | None = None
    tolerance: float = 1e-9
    max_iterations: int = 5000

    def __post_init__(self) -> None:
        at_least("n_factors", self.n_factors, 1)
        at_least("max_iterations", self.max_iterations, 1)
        object.__setattr__(self, "targets", check_targets(self.targets, self.lead))
        object.__setattr__(self, "tolerance", check_number("tolerance", self.tolerance, positive=True))
        if self.min_observed is not None:
            at_least("min_observed", self.min_observed, self.n_factors)
        one_of("method", self.method, Method)
        q = len(self.targets)
        if self.method == "spca" and q > 1:
            raise ConfigurationError(
                f"method='spca' scales for one target, got {q}: fit one model per target"
            )
        if self.method == "three_pass" and q not in (1, self.n_factors):
            raise ConfigurationError(
                f"method='three_pass' takes one target, or one per factor as proxies; got {q} targets and "
                f"n_factors={self.n_factors}"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorRegressionEstimates:
    """What `fit` found, in standardised units.

    Attributes
    ----------
    series : names, units and training values
    scale, level : (p,) applied to predictors before the map
    design : (p, J) regressors of the cross-section, or the weight vectors of PLS
    n_nuisance : leading columns of the design that are no factors
    deflation : (p, K) loadings of PLS; no columns otherwise
    signs : (K,)
    predictor_loadings : (p, K) least squares of predictors on factors
    intercept : (p + q,) of the regressions on the factors, predictors first; zero without gaps
    target_coefficients : (q, K)
    residual_variance : (p + q,) predictors first
    min_observed : observed predictors a period needs
    """

    series: TargetedSeries
    scale: FloatArray
    level: FloatArray
    design: FloatArray
    n_nuisance: int
    deflation: FloatArray
    signs: FloatArray
    predictor_loadings: FloatArray
    intercept: FloatArray
    target_coefficients: FloatArray
    residual_variance: FloatArray
    min_observed: int

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def factor_map(self) -> FactorMap:
        """The map from one period's predictors to its factors."""
        return FactorMap(self.scale, self.level, self.design, self.n_nuisance, self.deflation, self.signs)


class FactorRegressionModel(LatentFactorModel[FactorRegressionConfig, FactorRegressionEstimates]):
    """Factors of the predictors, and a regression of the targets on them.

    Parameters
    ----------
    config
        `FactorRegressionConfig`.

    Examples
    --------
    >>> from latentfactors.panel import Panel
    >>> rng = np.random.default_rng(0)
    >>> f = rng.normal(size=(120, 2))
    >>> x = f @ rng.normal(size=(2, 12)) + rng.normal(size=(120, 12))
    >>> y = np.roll(f[:, :1], 1, axis=0) + 0.5 * rng.normal(size=(120, 1))
    >>> names = [*(f"x{i}" for i in range(12)), "y"]
    >>> panel = Panel.from_wide(np.hstack([x, y]), assets=names, universe="all", value_kind="series")
    >>> model = FactorRegressionModel(FactorRegressionConfig(n_factors=2, targets=("y",), lead=1))
    >>> summary = model.fit(panel)
    >>> forecasts, variances = model.extract(panel).native.values(1)
    >>> forecasts.shape, bool(0.6 < summary.metrics["target_r2"] < 1.0)
    ((1560,), True)
    """

    sequential = True

    def _estimate(self, panel: Panel) -> tuple[FactorRegressionEstimates, FitSummary]:
        config = self.config
        training = pair_series(panel, config.targets, config.lead, "FactorRegressionModel")
        min_observed = check_size(training, config)
        limits = {"tolerance": config.tolerance, "max_iterations": config.max_iterations}
        found = fit_factor_map(training.x, training.y, config.n_factors, config.method, **limits)
        factors = apply_factor_map(found, training.x, min_observed=min_observed)
        require_factors(factors, training, config)
        intercept, coefficients, target_variance = target_regression(factors, training.y)
        level, loadings, predictor_variance = target_regression(factors, training.x)
        fitted = intercept + factors @ coefficients.T
        scored = np.isfinite(fitted) & np.isfinite(training.y)
        explained = 1.0 - np.mean((training.y - fitted)[scored] ** 2) / np.mean(training.y[scored] ** 2)
        estimates = FactorRegressionEstimates(
            series=training.series,
            scale=found.scale,
            level=found.level,
            design=found.design,
            n_nuisance=found.n_nuisance,
            deflation=found.loadings,
            signs=found.signs,
            predictor_loadings=loadings,
            intercept=np.concatenate([level, intercept]),
            target_coefficients=coefficients,
            residual_variance=np.concatenate([predictor_variance, target_variance]),
            min_observed=min_observed,
        )
        return estimates, FitSummary(metrics={"target_r2": float(explained)}, warnings=training.warnings)

    def _extract(self, panel: Panel, estimates: FactorRegressionEstimates) -> LatentFactorState:
        series, who = estimates.series, "FactorRegressionModel"
        values, before = series.read(panel, who)
        x = values[:, : series.n_predictors]
        factors = apply_factor_map(estimates.factor_map, x, min_observed=estimates.min_observed)
        means = np.tile(estimates.intercept[series.n_predictors :], (factors.shape[0], 1))
        # factor by factor, so that a row's bits do not depend on how many rows there are
        for k in range(factors.shape[1]):
            means += factors[:, k : k + 1] * estimates.target_coefficients[:, k]
        variance = np.tile(estimates.residual_variance[series.n_predictors :], (factors.shape[0], 1))
        loadings = np.vstack([estimates.predictor_loadings, estimates.target_coefficients])
        centred = replace(series, location=series.location + series.scale * estimates.intercept)
        measurement, metadata = measure(panel, centred, loadings, estimates.residual_variance, who)
        return LatentFactorState(
            index=panel.index,
            factors=Factors(values=factors[before:], names=factor_names(self.config.n_factors)),
            measurement=measurement,
            n_realised=panel.n_realised,
            fit_span=self.fitted.span,
            native=LeadForecasts(
                index=panel.index,
                series=series,
                before=before,
                target_means=means,
                target_variances=variance,
                factor_means=factors,
                who=who,
            ),
            metadata=metadata,
        )


# ------------------------------------------------------------------------------------ the mathematics


def check_size(training: TargetedTraining, config: FactorRegressionConfig) -> int:
    """Observed predictors a period needs.

    Raises
    ------
    ConfigurationError
        More factors than predictors or pairs allow.
    """
    n_pairs, p = training.x.shape
    highest = min(p, n_pairs - 1)
    if config.n_factors > highest:
        raise ConfigurationError(
            f"n_factors={config.n_factors} exceeds min(p, S - 1)={highest} of {p} predictors and {n_pairs} "
            "training pairs: ask for fewer factors, or give more series or periods"
        )
    wanted = 2 * config.n_factors if config.min_observed is None else config.min_observed
    # the second pass has an intercept beside the factors
    least = config.n_factors + (config.method == "three_pass")
    return max(min(wanted, p), least)


def require_factors(factors: FloatArray, training: TargetedTraining, config: FactorRegressionConfig) -> None:
    """Refuse a target with fewer than K + 2 pairs that have factors."""
    known = np.isfinite(factors).all(axis=1)
    for label, column in zip(training.series.targets, training.y.T, strict=True):
        n = int(np.count_nonzero(known & np.isfinite(column)))
        if n < config.n_factors + 2:
            raise InsufficientDataError(
                f"target {label!r} has {n} training pairs with factors, n_factors={config.n_factors} needs "
                f"{config.n_factors + 2} or more: train longer, or ask for fewer factors"
            )
