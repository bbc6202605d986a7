"""Probabilistic targeted factors: the factors of many predictors that matter for a few named targets.

Model            x_t = P f_t + e_x,  y_(t + lead) = Q f_t + e_y,  f_t ~ N(0, I_k)       P (p, k)   Q (q, k)
                 e_x ~ N(0, s_x^2 I_p),  e_y ~ N(0, s_y^2 I_q),  series standardised (ddof 0)
Identification   P'P/s_x^2 + Q'Q/s_y^2 diagonal, descending; the first target loads positively on every factor
Estimation       complete data: the exact maximum of the likelihood, one eigenproblem a noise ratio; missing
                 cells: exact EM, whatever the pattern; nothing is imputed
Extensions       `volatility`: s_x^2 and s_y^2 move as exponentially smoothed squares; `target_weight`: the
                 ratio rho = s_x/s_y imposed, or chosen by the errors of forecasts from x alone
Factors          E[f_t | x up to t]: targets are not looked at, unless released ones are asked for. `smooth`
                 gives E[f_t | X, Y], a description
Forecasts        Q E[f | x] with variance Q Omega_x Q' + s_y^2, Omega_x = (I + P_o'P_o/s_x^2)^-1 over the
                 observed predictors o, in input units; plus the spread over bootstrap refits, if asked for
Cost             about 25 eigenproblems of the leading k pairs; or O(T d k^2) an EM step
References       Herculano & Montoya-Blandon (2026), probabilistic targeted factor analysis; Tipping & Bishop
                 (1999), JRSS B 61(3), 611-622. Differences from what the paper prints are listed on the
                 documentation page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import check_number, freeze
from latentfactors.kernels.static import factor_names
from latentfactors.kernels.targeted import TargetedFit, noise_by_series, row_posterior
from latentfactors.kernels.targeted_em import filter_moving, fit_moving, fit_targeted
from latentfactors.kernels.targeted_inference import (
    ParameterDraws,
    choose_ratio,
    draw_parameters,
    forecast_spread,
)
from latentfactors.model import LatentFactorModel
from latentfactors.options import EWMA, Bootstrap
from latentfactors.panel import Panel
from latentfactors.state import Factors, FitSummary, LatentFactorState
from latentfactors.targeting import (
    LeadForecasts,
    TargetedSeries,
    TargetedTraining,
    check_targets,
    measure,
    pair_series,
)
from latentfactors.validate import check_whole, count

__all__ = ["PTFAConfig", "PTFAEstimates", "PTFAModel"]

FloatArray = npt.NDArray[np.float64]

_WHO = "PTFAModel"


@dataclass(frozen=True, kw_only=True)
class PTFAConfig:
    """Few targets, many predictors, factors made for the targets. Without targets: PCA.

    Parameters
    ----------
    n_factors
        k, at least 1, fewer than predictors and targets together, fewer than training periods.
    targets
        Labels of the target series; all other series of the panel are predictors.
    lead
        Periods from a predictor to the target it is paired with. The model forecasts at this horizon and no
        other; 0 nowcasts and describes.
    volatility
        `EWMA(predictors, targets)`: noise variances that move. None: constant.
    target_weight
        "ml": the likelihood decides. A number: the ratio s_x/s_y of noise standard deviations imposed; the
        larger, the more targets count. "cv": the ratio whose forecasts from x
        alone err least in blocks of the later half of training.
    parameter_uncertainty
        `Bootstrap(n_draws, seed)` adds the estimates' own uncertainty to forecast variances; each draw is a
        fit. None: plug-in variances.
    use_released_targets
        With lead 0: condition factors on the targets already observed in a period too. A nowcast of a target
        that is itself observed is then its value.
    tolerance
        With missing cells or moving variances: largest relative move that counts as standing still.
    max_iterations
        Of the same: most steps.

    Raises
    ------
    ConfigurationError
        Values outside these ranges, and combinations that the model does not define: moving variances with an
        imposed ratio or with a bootstrap, released targets with a lead.
    """

    n_factors: int
    targets: tuple[str | int, ...]
    lead: int = 0
    volatility: EWMA | None = None
    target_weight: Literal["ml", "cv"] | float = "ml"
    parameter_uncertainty: Bootstrap | None = None
    use_released_targets: bool = False
    tolerance: float = 1e-7
    max_iterations: int = 3000

    def __post_init__(self) -> None:
        check_whole(self, n_factors=1, max_iterations=3)
        check_number("tolerance", self.tolerance, positive=True)
        object.__setattr__(self, "targets", check_targets(self.targets, self.lead))
        weight = self.target_weight
        if isinstance(weight, str) and weight not in ("ml", "cv"):
            raise ConfigurationError(f"target_weight must be 'ml', 'cv' or a number > 0, got {weight!r}")
        if not isinstance(weight, str):
            number = check_number("target_weight", weight, positive=True)
            object.__setattr__(self, "target_weight", number)
        self._check_kinds()
        if self.volatility is not None and weight != "ml":
            raise ConfigurationError(
                f"target_weight={weight!r} imposes one ratio s_x/s_y, volatility lets either variance move "
                "on its own: use target_weight='ml' with volatility"
            )
        if self.volatility is not None and self.parameter_uncertainty is not None:
            raise ConfigurationError(
                "parameter_uncertainty draws data from the fitted model, and exponentially smoothed "
                "variances are a filter, not a law to draw from: use one or the other"
            )
        if self.use_released_targets and self.lead:
            raise ConfigurationError(
                f"use_released_targets needs lead=0, got lead={self.lead}: factors of different periods are "
                "independent, so a target released today says nothing about a later one"
            )

    def _check_kinds(self) -> None:
        for name, kind in (("volatility", EWMA), ("parameter_uncertainty", Bootstrap)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ConfigurationError(f"{name} must be {kind.__name__}(...) or None, got {value!r}")
        if not isinstance(self.use_released_targets, bool):
            raise ConfigurationError(
                f"use_released_targets must be True or False, got {self.use_released_targets!r}"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class PTFAEstimates:
    """What `fit` found, of standardised series.

    Attributes
    ----------
    series : names, units and training values of the series
    predictor_loadings : (p, k) P
    target_loadings : (q, k) Q, of the target `lead` periods later
    predictor_variance, target_variance : s_x^2 and s_y^2; with moving variances those before the first period
    predictor_variances, target_variances : (S,) paths over the training pairs, None where constant
    boundary : "x" or "y" where that noise variance went to zero (Heywood case), else ""
    noise_ratio : s_x/s_y imposed, NaN where the likelihood decided
    draws : bootstrap refits, None unless asked for
    """

    series: TargetedSeries
    predictor_loadings: FloatArray
    target_loadings: FloatArray
    predictor_variance: float
    target_variance: float
    predictor_variances: FloatArray | None = None
    target_variances: FloatArray | None = None
    boundary: str = ""
    noise_ratio: float = math.nan
    draws: ParameterDraws | None = None

    def __post_init__(self) -> None:
        freeze(self)
        if self.draws is not None:
            freeze(self.draws)

    @property
    def loadings(self) -> FloatArray:
        """(p + q, k) P above Q."""
        return np.vstack([self.predictor_loadings, self.target_loadings])


class PTFAModel(LatentFactorModel[PTFAConfig, PTFAEstimates]):
    """Probabilistic targeted factor analysis of a series panel.

    Parameters
    ----------
    config
        `PTFAConfig`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> f = rng.normal(size=(161, 2))
    >>> x = f @ rng.normal(size=(2, 12)) + rng.normal(size=(161, 12))
    >>> y = np.vstack([np.zeros((1, 1)), f[:-1, :1]]) + 0.3 * rng.normal(size=(161, 1))
    >>> names = [f"x{j}" for j in range(12)] + ["growth"]
    >>> panel = Panel.from_wide(np.hstack([x, y]), assets=names, universe="all", value_kind="series")
    >>> model = PTFAModel(PTFAConfig(n_factors=2, targets=("growth",), lead=1))
    >>> summary = model.fit(panel.between(0, 120))
    >>> bool(model.score(panel.between(120, 161)) > 0.6)
    True
    >>> mean, variance = model.extract(panel).native.values(horizon=1)
    >>> panel.index.dense(mean)[-1, -1].round(1), panel.values[-1].round(1)
    """

    sequential = True

    def _estimate(self, panel: Panel) -> tuple[PTFAEstimates, FitSummary]:
        config = self.config
        training = pair_series(panel, config.targets, config.lead, _WHO)
        check_sizes(training, config.n_factors)
        x, y, k = training.x, training.y, config.n_factors
        limits = {"tolerance": config.tolerance, "max_iterations": config.max_iterations}
        ratio = None if isinstance(config.target_weight, str) else config.target_weight
        if config.target_weight == "cv":
            ratio = choose_ratio(x, y, k, config.lead)[0]
        fit, paths = fit_targeted(x, y, k, ratio=ratio, **limits), None
        if config.volatility is not None:
            moving = fit_moving(x, y, fit, decays(config.volatility), **limits)
            fit, paths = moving.fit, (moving.x_path, moving.y_path)
        draws, bootstrap = None, config.parameter_uncertainty
        if bootstrap is not None:
            observed = np.isfinite(np.hstack([x, y]))
            draws = draw_parameters(fit, observed, bootstrap.n_draws, bootstrap.seed, ratio=ratio)
        p = training.series.n_predictors
        estimates = PTFAEstimates(
            series=training.series,
            predictor_loadings=fit.loadings[:p],
            target_loadings=fit.loadings[p:],
            predictor_variance=fit.x_variance,
            target_variance=fit.y_variance,
            predictor_variances=None if paths is None else paths[0],
            target_variances=None if paths is None else paths[1],
            boundary=fit.boundary,
            noise_ratio=math.nan if ratio is None else ratio,
            draws=draws,
        )
        return estimates, self._summary(estimates, fit, training)

    def _extract(self, panel: Panel, estimates: PTFAEstimates) -> LatentFactorState:
        series = estimates.series
        values, before = series.read(panel, _WHO)
        variances = self._variances(values, estimates)
        given = values if self.config.use_released_targets else predictors_only(values, series)
        means, covariances = posterior(given, estimates, variances)
        forecast, spread = target_forecasts(given, means, covariances, estimates, variances[1])
        native = LeadForecasts(
            index=panel.index,
            series=series,
            before=before,
            target_means=forecast,
            target_variances=spread,
            factor_means=means,
            factor_covariances=covariances,
            who=_WHO,
        )
        state = self._state(panel, estimates, means[before:], covariances[before:])
        return replace(state, native=native)

    def _smooth(self, panel: Panel, estimates: PTFAEstimates) -> LatentFactorState:
        values, before = estimates.series.read(panel, _WHO)
        pairs = paired(values, estimates.series)
        variances = self._variances(values, estimates, joint=True)
        means, covariances = posterior(pairs, estimates, variances)
        state = self._state(panel, estimates, means[before:], covariances[before:])
        return replace(state, factors=replace(state.factors, information="smoothed"))

    def score(self, panel: Panel) -> float:
        """R2 of target forecasts from x alone, 1 - SSE/SST about the training mean, averaged over targets.

        Parameters
        ----------
        panel
            Periods whose targets, `lead` periods later, lie in the same panel.

        Returns
        -------
        float

        Raises
        ------
        InsufficientDataError
            No target observed in the panel.
        """
        self._check_panel(panel)
        estimates = self.estimates
        values, before = estimates.series.read(panel, _WHO)
        return self._r2(values, estimates, before)

    def _r2(self, values: FloatArray, estimates: PTFAEstimates, before: int) -> float:
        series = estimates.series
        given = predictors_only(values, series)
        means = posterior(given, estimates, self._variances(values, estimates))[0]
        error = (paired(values, series)[:, series.n_predictors :] - means @ estimates.target_loadings.T)[
            before:
        ]
        realised = paired(values, series)[before:, series.n_predictors :]
        seen = np.isfinite(realised).any(axis=0)
        if not seen.any():
            raise InsufficientDataError(
                "score needs observed targets, the panel has none: give periods whose targets are known"
            )
        total = np.nansum(realised[:, seen] ** 2, axis=0)
        return float(np.mean(1.0 - np.nansum(error[:, seen] ** 2, axis=0) / total))

    def _variances(
        self, values: FloatArray, estimates: PTFAEstimates, *, joint: bool = False
    ) -> tuple[float | FloatArray, float | FloatArray]:
        """s_x^2 of each period and s_y^2 of the target it forecasts: numbers, or (T,) if moving."""
        start = estimates.predictor_variance, estimates.target_variance
        if self.config.volatility is None:
            return start
        series, n = estimates.series, len(values)
        found = filter_moving(
            paired(values, series),
            estimates.loadings,
            series.n_predictors,
            start,
            decays(self.config.volatility),
            joint=joint,
        )
        # at its origin only pairs that ended by then are known; the smoothed variance is a martingale
        last = np.arange(n) if joint else np.maximum(np.arange(n) + 1 - max(series.lead, 1), 0)
        return found[:n, 0], found[last, 1]

    def _state(
        self, panel: Panel, estimates: PTFAEstimates, means: FloatArray, covariances: FloatArray
    ) -> LatentFactorState:
        noise = estimates.predictor_variance, estimates.target_variance
        if estimates.predictor_variances is not None and estimates.target_variances is not None:
            noise = float(estimates.predictor_variances[-1]), float(estimates.target_variances[-1])
        p, loadings = estimates.series.n_predictors, estimates.loadings
        measurement, metadata = measure(
            panel, estimates.series, loadings, noise_by_series(*noise, p, len(loadings)), _WHO
        )
        names = factor_names(self.config.n_factors)
        return LatentFactorState(
            index=panel.index,
            factors=Factors(values=means, names=names, covariance=covariances, information="filtered"),
            measurement=measurement,
            n_realised=panel.n_realised,
            fit_span=self.fitted.span,
            metadata=metadata,
        )

    def _summary(self, estimates: PTFAEstimates, fit: TargetedFit, training: TargetedTraining) -> FitSummary:
        pairs = np.hstack([training.x, training.y])
        cells = np.isfinite(pairs).sum(axis=0)
        n_parameters = count_parameters(fit.loadings, imposed=not math.isnan(estimates.noise_ratio))
        metrics = {
            "target_r2": self._r2(
                estimates.series.standardise(estimates.series.training.values), estimates, 0
            ),
            "n_parameters": float(n_parameters),
            "bic": n_parameters * math.log(len(pairs)) - 2.0 * fit.loglikelihood,
            "loglikelihood_input_units": fit.loglikelihood - float(cells @ np.log(estimates.series.scale)),
        }
        return FitSummary(
            converged=fit.converged,
            reason=fit.reason,
            n_iterations=fit.n_iterations,
            objective=fit.objective_path,
            objective_name="log-likelihood",
            loglikelihood=fit.loglikelihood,
            metrics=metrics,
            warnings=(*training.warnings, *remarks(fit, estimates.series)),
        )


# ------------------------------------------------------------------------------------ the mathematics


def check_sizes(training: TargetedTraining, n_factors: int) -> None:
    """Refuse as many factors as series, or as periods."""
    (n_periods, p), q = training.x.shape, training.y.shape[1]
    if n_factors >= p + q:
        raise InsufficientDataError(
            f"n_factors={n_factors} needs more series than factors, got {count(p, 'predictor')} and "
            f"{count(q, 'target')}: ask for fewer factors"
        )
    if n_factors >= n_periods:
        raise InsufficientDataError(
            f"n_factors={n_factors} needs more than {n_factors} training pairs, got {n_periods}: ask for "
            "fewer factors or train longer"
        )


def decays(volatility: EWMA) -> tuple[float, float]:
    """lambda of predictors and targets."""
    return volatility.predictors, volatility.targets


def predictors_only(values: FloatArray, series: TargetedSeries) -> FloatArray:
    """(T, d) values with the targets hidden."""
    out = values.copy()
    out[:, series.n_predictors :] = np.nan
    return out


def paired(values: FloatArray, series: TargetedSeries) -> FloatArray:
    """(T, d) values, each period's predictors beside the targets `lead` periods later; NaN beyond the end."""
    out, p, lead = predictors_only(values, series), series.n_predictors, series.lead
    out[: len(out) - lead, p:] = values[lead:, p:]
    return out


def posterior(
    given: FloatArray, estimates: PTFAEstimates, variances: tuple[float | FloatArray, float | FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """m_t (T, k) and Omega_t (T, k, k) given the observed cells of each row."""
    return row_posterior(given, estimates.loadings, estimates.series.n_predictors, *variances)


def target_forecasts(
    given: FloatArray,
    means: FloatArray,
    covariances: FloatArray,
    estimates: PTFAEstimates,
    target_variance: float | FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Q m_t and diag(Q Omega_t Q') + s_y^2 (T, q), standardised; a target among the given cells is known.

    Omega_t is that of the cells the factors were read from. The joint Omega of x and y would claim to have
    seen the target: intervals from it cover far too little.
    """
    loadings, p = estimates.target_loadings, estimates.series.n_predictors
    forecast = np.einsum("tk,qk->tq", means, loadings)
    variance = np.einsum("qj,tjk,qk->tq", loadings, covariances, loadings)
    variance += np.broadcast_to(target_variance, (len(given),))[:, None]
    if estimates.draws is not None:
        variance += forecast_spread(given, estimates.draws, p)
    released = np.isfinite(given[:, p:])
    return np.where(released, given[:, p:], forecast), np.where(released, 0.0, variance)


def count_parameters(loadings: FloatArray, *, imposed: bool) -> int:
    """d k + 2 less the k(k-1)/2 rotations, less an imposed ratio."""
    d, k = loadings.shape
    return d * k - k * (k - 1) // 2 + 2 - int(imposed)


def remarks(fit: TargetedFit, series: TargetedSeries) -> tuple[str, ...]:
    """Statistical remarks on a fit."""
    out = []
    if not fit.converged:
        out.append(f"not converged, {fit.reason}: raise max_iterations, or ask for fewer factors")
    for side, name, labels in (("x", "predictors", series.predictors), ("y", "targets", series.targets)):
        if side in fit.boundary:
            out.append(
                f"Heywood case: the likelihood rises as the {name}' noise variance goes to zero, factors "
                f"reproduce the {count(labels.size, name[:-1])}; ask for fewer factors, impose "
                "target_weight, or read the fit as a regression on them"
            )
    return tuple(out)
