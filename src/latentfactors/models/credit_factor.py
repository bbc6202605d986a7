"""Credit factor model: named category factors with free realisations and a loading for every link.

Model            r_it = sum over j in N(i) of b_ij f_jt + e_it      N(i): the market and one category of every
                 attribute; B (N, K) on the pattern of links, F (T, K) free
Estimation       alternating least squares on the observed rows (`kernels.masked_als`), a small ridge on both
                 sides; shrinkage s pulls every loading towards 1, or towards the mean of the asset's groups
                 (b_ij = m_ij + d_ij, penalty on d): s = 0 is the model of the paper and s = infinity the
                 cross-sectional regression on categories (BARRA), an exact branch
Identification   s = 0, or a pull to group means: the gauge of `kernels.gauge`: a factor is orthogonal over
                 training to the factors it is nested in (every category: to the market), and has mean
                 loading 1. A pull to 1: the penalty. s =
                 infinity: the factors of a family sum to zero, weighted by their assets
Factors          `infer="project"`: posterior given the training mean and covariance of the factors and each
                 asset's residual variance, over the assets available; `infer="regression"`: least squares
Special cases    attributes=(), n_common=K: principal components with missing data
Cost             O(R M^2) a sweep for R observed rows with M links, plus T K^3
References       Ghiye, Barreau, Carlier & Vazirgiannis (2025), Journal of Financial Data Science 7(3)
"""

from __future__ import annotations

import math
import time as clock
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.errors import ConfigurationError, GapError, MissingCapabilityError
from latentfactors.estimator import check_number, one_of
from latentfactors.kernels.adjacency import asset_equations, fitted
from latentfactors.kernels.gauge import find_nesting, fix_gauge
from latentfactors.kernels.masked_als import (
    MaskedFit,
    category_regression,
    fit_masked,
    null_space,
    root_mean_square,
)
from latentfactors.kernels.scores import r_squared
from latentfactors.model import LatentFactorModel
from latentfactors.named.factors import NamedFactorEstimates, Training, check_named_config, read_training
from latentfactors.named.states import estimates_of, project, state_of, weighted_equations
from latentfactors.panel import Panel
from latentfactors.results import FactorWeights
from latentfactors.state import Factors, FitSpan, FitSummary, LatentFactorState, Loadings

__all__ = ["CreditFactorConfig", "CreditFactorEstimates", "CreditFactorModel"]

FloatArray = npt.NDArray[np.float64]
Inference = Literal["project", "regression"]
ShrinkageTarget = Literal["one", "group_mean"]
_RATIO = 1e-6  # smallest over largest singular value below which a period's factors are not identified


@dataclass(frozen=True, kw_only=True)
class CreditFactorConfig:
    """Named factors with free realisations; for factors that are weighted averages of their assets: GFM.

    Parameters
    ----------
    attributes
        Names of the panel's attributes; None takes all of them.
    n_common
        Factors that all assets share: 1 is the market.
    shrinkage
        Pull of every loading, in observations of the typical value: 0 is CFM, `math.inf` BARRA.
    shrink_to
        What loadings are pulled to: "one", or "group_mean", the mean of the asset's groups, estimated beside
        them: a market loading to that of the asset's sector, rating and so on. A factor that contains no
        other has one group, whose mean is 1 by scale. With infinite shrinkage both are BARRA.
    infer
        "project": posterior; "regression": least squares, which are portfolios' returns, NaN where a period
        cannot tell the factors apart.
    cold_start
        Whether assets without training history get the loadings expected of their links; NaN otherwise.
    min_group_size
        Training assets a category needs for a factor of its own; smaller ones are merged into `other`.
    min_history
        Training values an asset needs for loadings of its own. None: twice its number of links.
    min_observed
        Observed assets a period needs. None: twice the number of links, or the largest cross-section if
        that is smaller; the prior tells the rest, and the covariance says how well.
    ridge
        Weight of sum b^2 + sum f^2 beside the sum of squares, in units of one typical squared value.
    tolerance
        Largest relative change of the loadings in a sweep that counts as standing still.
    max_iterations
        Most sweeps.

    Raises
    ------
    ConfigurationError
        Values outside these ranges.
    """

    attributes: tuple[str, ...] | None = None
    n_common: int = 1
    shrinkage: float = 0.0
    shrink_to: ShrinkageTarget = "one"
    infer: Inference = "project"
    cold_start: bool = True
    min_group_size: int = 5
    min_history: int | None = None
    min_observed: int | None = None
    ridge: float = 0.1
    tolerance: float = 1e-9
    max_iterations: int = 2000

    def __post_init__(self) -> None:
        check_named_config(self)
        if self.shrinkage != math.inf:
            object.__setattr__(self, "shrinkage", check_number("shrinkage", self.shrinkage))
        elif self.n_common > 1:
            raise ConfigurationError(
                f"shrinkage=inf makes n_common={self.n_common} common factors one and the same: use 0 or 1"
            )
        for name, allowed in (("infer", Inference), ("shrink_to", ShrinkageTarget)):
            one_of(name, getattr(self, name), allowed)


@dataclass(frozen=True, eq=False, kw_only=True)
class CreditFactorEstimates(NamedFactorEstimates):
    """What `fit` found; see `NamedFactorEstimates`.

    Attributes
    ----------
    free : (K, K - C) orthonormal basis of the factors' space: all of it, unless C families sum to zero
    """

    free: FloatArray


class CreditFactorModel(LatentFactorModel[CreditFactorConfig, CreditFactorEstimates]):
    """Credit factor model (Ghiye, Barreau, Carlier & Vazirgiannis), by exact alternating least squares.

    Parameters
    ----------
    config
        `CreditFactorConfig`.

    Examples
    --------
    >>> from latentfactors.simulate import credit_panel
    >>> panel = credit_panel(n_assets=150, n_periods=80, seed=1).panel
    >>> model = CreditFactorModel(CreditFactorConfig(attributes=("sector", "tenor"), tolerance=1e-6))
    >>> summary = model.fit(panel.between(0, 60))
    >>> summary.converged, model.estimates.factor_names[:2]
    (True, ('market', 'sector=Financial'))
    >>> model.extract(panel).factor_returns.shape[0]
    80
    """

    sees = "categories"

    def update(self, panel: Panel) -> FitSummary:
        """Refit on training and new periods from the solution so far: the optimum of a refit in fewer sweeps.

        Factors are free in every period, so no summary of the past can replace its rows.

        Parameters
        ----------
        panel
            Reaches back to the start of training.

        Returns
        -------
        FitSummary

        Raises
        ------
        NotFittedError, PanelMismatchError, GapError
            Before `fit`; a panel prepared otherwise; one that starts after the training start.
        """
        self._check_panel(panel)
        former = self.estimates
        if panel.n_periods == 0 or panel.times[0] != former.times[0]:
            raise GapError(
                f"update reads all periods from the training start {former.times[0]} on, the panel starts at "
                f"{panel.times[0] if panel.n_periods else 'no period'}: give the whole history"
            )
        began, fitted_before = clock.perf_counter(), self.fitted
        realised = panel.between(0, panel.n_realised)
        found, summary = self._solve(realised, former)
        span = FitSpan(fitted_before.span.start, realised.times[-1])
        return self._keep(found, summary, span, fitted_before.signature, began)

    def _estimate(self, panel: Panel) -> tuple[CreditFactorEstimates, FitSummary]:
        return self._solve(panel, None)

    def _extract(self, panel: Panel, estimates: CreditFactorEstimates) -> LatentFactorState:
        def factors(links: npt.NDArray[np.int32], by_link: FloatArray, variance: FloatArray) -> Factors:
            if self.config.infer == "project":
                return project(panel, links, by_link, variance, estimates)
            return regress(panel, links, by_link, estimates)

        with threadpool_limits(limits=1, user_api="blas"):
            return state_of(
                panel,
                estimates,
                factors,
                cold_start=self.config.cold_start,
                fit_span=self.fitted.span,
                who="CreditFactorModel",
            )

    def _factor_weights(self, panel: Panel, estimates: CreditFactorEstimates) -> FactorWeights:
        if self.config.infer != "regression":
            raise MissingCapabilityError(
                f"infer={self.config.infer!r}: a posterior around the factors' mean is no portfolio's "
                "return; factor portfolios exist for infer='regression'"
            )
        state = self._extract(panel, estimates)
        weights = regression_portfolios(panel, state.measurement.loadings, estimates)
        return FactorWeights(weights=weights, index=panel.index, factor_names=estimates.factor_names)

    def _solve(
        self, panel: Panel, former: CreditFactorEstimates | None
    ) -> tuple[CreditFactorEstimates, FitSummary]:
        config, training = self.config, read_training(panel, self.config)
        with threadpool_limits(limits=1, user_api="blas"):
            constraint = np.zeros((0, training.pattern.n_factors))
            if config.shrinkage == math.inf:
                fit, constraint = regress_on_links(training)
            else:
                fit = fit_masked(
                    training.values,
                    training.pattern,
                    ridge=config.ridge,
                    shrinkage=config.shrinkage,
                    group_effects=config.shrink_to == "group_mean",
                    start=None if former is None else warm_start(training, former),
                    tolerance=config.tolerance,
                    max_iterations=config.max_iterations,
                )
            loadings, factors = fit.loadings, fit.factors
            if config.shrinkage == 0 or (config.shrink_to == "group_mean" and config.shrinkage < math.inf):
                loadings, factors, _ = fix_gauge(find_nesting(training.pattern), loadings, factors)
            parameters = effective_parameters(training, fit.factors, config.shrinkage)
            parts = estimates_of(training, panel, loadings, factors, parameters)
        score = r_squared(training.values, fitted(training.pattern, loadings, factors))
        remark = f"loadings not converged, {fit.reason}: raise max_iterations"
        summary = FitSummary(
            converged=fit.converged,
            reason=fit.reason,
            n_iterations=fit.n_iterations,
            objective=fit.objective_path,
            objective_name="(SSE + penalties) / SST of observed rows",
            metrics={"total_r2": score},
            warnings=(*training.remarks, *(() if fit.converged else (remark,))),
        )
        return CreditFactorEstimates(**parts, free=null_space(constraint)), summary


# ------------------------------------------------------------------------------------ the mathematics


def regress_on_links(training: Training) -> tuple[MaskedFit, FloatArray]:
    """Loadings 1 and each period's least-squares factors, the families that cover every row summing to zero.

    Without a common factor the first such family carries the level and is left free.
    """
    pattern, names = training.pattern, training.names
    families = [
        members
        for m in range(len(names.attributes))
        if (members := np.flatnonzero(names.families == m)).size
        and np.isin(pattern.links, members).any(axis=1).all()
    ]
    if not names.common:
        families = families[1:]
    sizes = np.bincount(pattern.slot_factor, minlength=pattern.n_factors).astype(np.float64)
    constraint = np.zeros((len(families), pattern.n_factors))
    for row, family in zip(constraint, families, strict=True):
        row[family] = sizes[family]
    factors = category_regression(pattern, training.values, families, sizes)
    ones = np.ones(pattern.n_slots)
    residual = training.values - fitted(pattern, ones, factors)
    share = float(residual @ residual) / (float(training.values @ training.values) or 1.0)
    return MaskedFit(ones, factors, (share,), 1, True, "closed form: regression of every period"), constraint


def effective_parameters(training: Training, factors: FloatArray, shrinkage: float) -> FloatArray:
    """(N,) tr (G_i + s I)^-1 G_i, G_i = sum f f' over asset i's links: their number at s = 0.

    Means of groups, which many assets share, count for nothing in one of them.
    """
    pattern = training.pattern
    links = np.diff(pattern.asset_slots).astype(np.float64)
    if shrinkage == 0:
        return links
    if shrinkage == math.inf:
        return np.zeros(pattern.n_assets)
    unit = root_mean_square(training.values)
    grams = asset_equations(pattern, factors / unit, training.values)[0]
    return (1.0 / (1.0 + shrinkage / np.maximum(np.linalg.eigvalsh(grams), 1e-300))).sum(axis=1)


def warm_start(training: Training, former: CreditFactorEstimates) -> FloatArray:
    """(S,) former loadings by asset and name, expected ones for what is new."""
    pattern = training.pattern
    where = {name: k for k, name in enumerate(former.factor_names)}
    column = np.array([where.get(name, -1) for name in training.names.names])[pattern.slot_factor]
    order = {label: i for i, label in enumerate(former.assets.tolist())}
    row = np.array([order.get(label, -1) for label in training.assets.tolist()])[pattern.slot_asset]
    known = former.matrix()[row, column]
    return np.where((row >= 0) & (column >= 0) & (known != 0.0), known, 1.0)


def regress(
    panel: Panel, links: npt.NDArray[np.int32], by_link: FloatArray, estimates: CreditFactorEstimates
) -> Factors:
    """Least-squares factors of every period; NaN with too few assets or a singular-value ratio below 1e-6."""
    used = np.isfinite(panel.values) & np.isfinite(by_link).all(axis=1)
    size, free = len(estimates.factor_names), estimates.free
    grams, crosses = weighted_equations(panel, links, by_link, panel.values, used, size)
    counts = np.bincount(panel.index.period_codes[used], minlength=panel.n_periods)
    factors = np.full(crosses.shape, np.nan)
    for t in np.flatnonzero(counts >= max(estimates.min_observed, free.shape[1])):
        inside = free.T @ grams[t] @ free
        eigenvalues = np.linalg.eigvalsh(inside)
        if eigenvalues[0] > _RATIO**2 * eigenvalues[-1]:
            factors[t] = free @ np.linalg.solve(inside, free.T @ crosses[t])
    return Factors(values=factors, names=estimates.factor_names)


def regression_portfolios(panel: Panel, loadings: Loadings, estimates: CreditFactorEstimates) -> FloatArray:
    """(R, K) B_p Z (Z'B_p'B_p Z)^-1 Z' over each period's row set: `regress` if every row were observed."""
    free = estimates.free
    weights = np.full((panel.n_rows, len(estimates.factor_names)), np.nan)
    for p in range(panel.n_periods):
        b = loadings.at(p)
        known = np.isfinite(b).all(axis=1)
        left, singular, right = np.linalg.svd(b[known] @ free, full_matrices=False)
        enough = known.sum() >= max(estimates.min_observed, free.shape[1])
        if enough and singular[-1] > _RATIO * singular[0]:
            block = np.zeros_like(b)
            block[known] = (left / singular) @ right @ free.T
            weights[panel.index.rows(p)] = block
    return weights
