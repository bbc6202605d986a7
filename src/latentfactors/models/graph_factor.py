"""Graph factor model: named category factors that are weighted averages of their own assets' values.

Model            f_jt = sum over i in N(j) of w^_ij r_it,   r^_it = sum over j in N(i) of b_ij f_jt
                 N(i): the market and one category of every attribute; W and B (N, K) on the pattern of links
Normalisation    w^ over the assets available in t: `mean` w_ij/n_jt, `relu` max(0, w_ij)/n_jt, `softmax`
                 (the only one whose weights sum to one)
Estimation       minimises the squared errors of r^ (`kernels.encoder`); weights are pulled to equal weights
                 by a ridge, for a factor with more assets than periods leaves them open
Identification   mean loading 1 in each factor (root mean square 1 where the mean is near zero); common
                 factors, which have the same links, on their principal axes. No shift between nested factors:
                 it would make a sector's factor an average over other sectors' assets
Factors          `infer="project"`: posterior given the training mean and covariance of the factors and each
                 asset's residual variance; `infer="encoder"`: the weighted averages themselves, the training
                 mean where no asset of a factor is observed
Portfolios       with `infer="encoder"` the factors are linear in the period's values given its row set, so
                 `factor_weights` are exact; a posterior is around a mean and no portfolio
Special cases    attributes=(), n_common=K, ridge=0: the linear autoencoder, whose optimum is the space of the
                 first K principal components
Cost             6 passes over the R M links a step, some 50 steps; mean: 40 a sweep, two or more
References       Ghiye, Barreau, Carlier & Vazirgiannis (2025), Journal of Financial Data Science 7(3)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.errors import ConfigurationError, MissingCapabilityError
from latentfactors.estimator import one_of
from latentfactors.kernels.adjacency import fitted
from latentfactors.kernels.encoder import Normalisation, fit_encoder
from latentfactors.kernels.gauge import find_nesting, fix_gauge
from latentfactors.kernels.scores import r_squared
from latentfactors.model import LatentFactorModel
from latentfactors.named.factors import (
    NamedFactorEstimates,
    check_named_config,
    is_static,
    read_training,
    row_links,
)
from latentfactors.named.states import estimates_of, project, state_of
from latentfactors.panel import Panel
from latentfactors.results import FactorWeights
from latentfactors.state import Factors, FitSummary, LatentFactorState

__all__ = ["GraphFactorConfig", "GraphFactorEstimates", "GraphFactorModel"]

FloatArray = npt.NDArray[np.float64]
Inference = Literal["project", "encoder"]


@dataclass(frozen=True, kw_only=True)
class GraphFactorConfig:
    """Named factors as portfolios of their own assets; for factors free in every period: CFM.

    Parameters
    ----------
    attributes
        Names of the panel's attributes; None takes all of them.
    n_common
        Factors that all assets share: 1 is the market.
    normalisation
        "mean", "softmax" or "relu".
    infer
        "project": posterior over the available assets; "encoder": the model's own weighted averages, which
        are portfolios.
    cold_start
        Whether assets without training history get the loadings expected of their links; NaN otherwise.
    min_group_size
        Training assets a category needs for a factor of its own; smaller ones are merged into `other`.
    min_history
        Training values an asset needs for loadings of its own. None: twice its number of links.
    min_observed
        Observed assets a period needs. None: twice the number of links, or the largest cross-section if
        that is smaller.
    ridge
        Pull of the weights to equal weights, as a share of the objective's typical curvature.
    tolerance
        Relative fall of the objective over ten steps that counts as standing still. "mean" then sweeps until
        the weights move by at most its square root.
    max_iterations
        Most steps, and again most sweeps.

    Raises
    ------
    ConfigurationError
        Values outside these ranges.
    """

    attributes: tuple[str, ...] | None = None
    n_common: int = 1
    normalisation: Normalisation = "mean"
    infer: Inference = "project"
    cold_start: bool = True
    min_group_size: int = 5
    min_history: int | None = None
    min_observed: int | None = None
    ridge: float = 1.0
    tolerance: float = 1e-4
    max_iterations: int = 500

    def __post_init__(self) -> None:
        check_named_config(self)
        for name, allowed in (("normalisation", Normalisation), ("infer", Inference)):
            one_of(name, getattr(self, name), allowed)
        if self.normalisation != "mean" and self.n_common > 1:
            raise ConfigurationError(
                f"normalisation={self.normalisation!r} keeps weights positive, which cannot tell "
                f"n_common={self.n_common} common factors apart: use 'mean'"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class GraphFactorEstimates(NamedFactorEstimates):
    """What `fit` found; see `NamedFactorEstimates`.

    Attributes
    ----------
    weights : (S,) w of every loading's link, before normalisation
    turn : (K, K) factors = weighted averages @ turn: the scale and axes of the identification
    """

    weights: FloatArray
    turn: FloatArray


class GraphFactorModel(LatentFactorModel[GraphFactorConfig, GraphFactorEstimates]):
    """Graph factor model (Ghiye, Barreau, Carlier & Vazirgiannis); identification in the module docstring.

    Parameters
    ----------
    config
        `GraphFactorConfig`.

    Examples
    --------
    >>> from latentfactors.simulate import credit_panel
    >>> panel = credit_panel(n_assets=150, n_periods=80, seed=1).panel
    >>> model = GraphFactorModel(GraphFactorConfig(attributes=("sector", "tenor")))
    >>> summary = model.fit(panel.between(0, 60))
    >>> summary.converged, model.estimates.factor_names[:2]
    (True, ('market', 'sector=Financial'))
    >>> model.extract(panel).factor_returns.shape[0]
    80
    """

    sees = "categories"

    def _estimate(self, panel: Panel) -> tuple[GraphFactorEstimates, FitSummary]:
        config, training = self.config, read_training(panel, self.config)
        with threadpool_limits(limits=1, user_api="blas"):
            fit, weights = fit_encoder(
                training.values,
                training.pattern,
                normalisation=config.normalisation,
                ridge=config.ridge,
                tolerance=config.tolerance,
                max_iterations=config.max_iterations,
            )
            nesting = find_nesting(training.pattern)
            loadings, factors, turn = fix_gauge(nesting, fit.loadings, fit.factors, shifts=False)
            # a weight that a ridge holds at half its curvature counts for half a parameter, and so on
            links = np.diff(training.pattern.asset_slots) * (1.0 + 1.0 / (1.0 + config.ridge))
            parts = estimates_of(training, panel, loadings, factors, links)
        remark = f"weights not converged, {fit.reason}: raise max_iterations"
        summary = FitSummary(
            converged=fit.converged,
            reason=fit.reason,
            n_iterations=fit.n_iterations,
            objective=fit.objective_path,
            objective_name="(SSE + penalty) / SST of observed rows",
            metrics={"total_r2": r_squared(training.values, fitted(training.pattern, loadings, factors))},
            warnings=(*training.remarks, *(() if fit.converged else (remark,))),
        )
        return GraphFactorEstimates(**parts, weights=weights, turn=turn), summary

    def _extract(self, panel: Panel, estimates: GraphFactorEstimates) -> LatentFactorState:
        def factors(links: npt.NDArray[np.int32], by_link: FloatArray, variance: FloatArray) -> Factors:
            if self.config.infer == "project":
                return project(panel, links, by_link, variance, estimates)
            return average(panel, links, estimates, self.config.normalisation)

        with threadpool_limits(limits=1, user_api="blas"):
            return state_of(
                panel,
                estimates,
                factors,
                cold_start=self.config.cold_start,
                fit_span=self.fitted.span,
                who="GraphFactorModel",
            )

    def _factor_weights(self, panel: Panel, estimates: GraphFactorEstimates) -> FactorWeights:
        if self.config.infer != "encoder":
            raise MissingCapabilityError(
                f"infer={self.config.infer!r}: a posterior around the factors' mean is no portfolio's "
                "return; factor portfolios exist for infer='encoder'"
            )
        links = row_links(panel, estimates.names)[0]
        links = links[panel.asset_codes] if is_static(panel, estimates.names) else links
        weights = portfolios(panel, links, estimates, self.config.normalisation)
        return FactorWeights(weights=weights, index=panel.index, factor_names=estimates.factor_names)


# ------------------------------------------------------------------------------------ the encoder


def raw_weights(
    panel: Panel, links: npt.NDArray[np.int32], estimates: GraphFactorEstimates, normalisation: Normalisation
) -> tuple[npt.NDArray[np.bool_], FloatArray, FloatArray]:
    """(R, M) each, of every row's links: which have a weight, w^ before division, part of the divisor."""
    size = len(estimates.factor_names)
    number = np.full(max(estimates.assets.size, 1) * size, -1)
    number[estimates.slot_asset * size + estimates.slot_factor] = np.arange(estimates.weights.size)
    position = panel.index.match_assets(estimates.assets)[panel.asset_codes]
    slot = np.where((links >= 0) & (position >= 0)[:, None], number[position[:, None] * size + links], -1)
    raw = estimates.weights[slot]
    used = {"mean": raw, "relu": np.maximum(raw, 0.0), "softmax": np.exp(raw)}[normalisation]
    return slot >= 0, used, used if normalisation == "softmax" else np.ones(used.shape)


def average(
    panel: Panel, links: npt.NDArray[np.int32], estimates: GraphFactorEstimates, normalisation: Normalisation
) -> Factors:
    """Each period's weighted averages; assets and links without a weight take no part.

    The training mean stands in where no asset of a factor is observed; NaN with fewer than `min_observed`.
    """
    weighted, used, below = raw_weights(panel, links, estimates, normalisation)
    weighted &= panel.observed[:, None]
    size = len(estimates.factor_names)
    factors = np.full((panel.n_periods, size), np.nan)
    usual = np.linalg.solve(estimates.turn.T, estimates.factor_mean)
    for t in range(panel.n_periods):
        rows = panel.index.rows(t)
        known = weighted[rows]
        if known.any(axis=1).sum() < estimates.min_observed:
            continue
        target, values = links[rows][known], np.broadcast_to(panel.values[rows, None], known.shape)[known]
        total = np.bincount(target, used[rows][known] * values, size)
        divisor = np.bincount(target, below[rows][known], size)
        factors[t] = np.divide(total, divisor, out=usual.copy(), where=divisor > 0.0) @ estimates.turn
    return Factors(values=factors, names=estimates.factor_names)


def portfolios(
    panel: Panel, links: npt.NDArray[np.int32], estimates: GraphFactorEstimates, normalisation: Normalisation
) -> FloatArray:
    """(R, K) w^ over each period's row set times the identification's turn: `average` if all are observed.

    NaN for a period with fewer than `min_observed` assets, and for a factor without an asset in it.
    """
    weighted, used, below = raw_weights(panel, links, estimates, normalisation)
    size = len(estimates.factor_names)
    out = np.full((panel.n_rows, size), np.nan)
    for t in range(panel.n_periods):
        rows = panel.index.rows(t)
        known = weighted[rows]
        if known.any(axis=1).sum() < estimates.min_observed:
            continue
        row, link = np.nonzero(known)
        target = links[rows][row, link]
        divisor = np.bincount(target, below[rows][row, link], size)
        plain = np.zeros((known.shape[0], size))
        plain[row, target] = used[rows][row, link] / divisor[target]
        absent = (estimates.turn[divisor == 0.0] != 0.0).any(axis=0)
        out[rows] = np.where(absent, np.nan, plain @ estimates.turn)
    return out
