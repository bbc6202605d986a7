"""Probabilistic targeted factors: the factors of many predictors that matter for a few named targets.

Model            x_t = P f_t + e_x,  y_(t + lead) = Q f_t + e_y,  f_t ~ N(0, I_k)       P (p, k)   Q (q, k)
                 e_x ~ N(0, s_x^2 I_p),  e_y ~ N(0, s_y^2 I_q),  series standardised (ddof 0)
Identification   P'P/s_x^2 + Q'Q/s_y^2 diagonal, descending; the first target loads positively on every factor
Estimation       complete data: the exact maximum of the likelihood, one eigenproblem a noise ratio; missing
                 cells: exact EM, whatever the pattern; nothing is imputed
Extensions       `dynamics`: f_t = A_1 f_(t-1) + ... + u_t, u_t ~ N(0, I); series of lower frequency than the
                 panel (`SeriesInfo`) are means or Mariano-Murasawa sums of latent values; `volatility`:
                 s_x^2 and s_y^2 move as exponentially smoothed squares; `target_weight`: the ratio rho =
                 s_x/s_y imposed, or chosen by the errors of forecasts from x alone
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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from latentfactors.conditional import Cell, ConditionalLaw
from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import check_number
from latentfactors.kernels.static import factor_names
from latentfactors.kernels.targeted import TargetedFit
from latentfactors.kernels.targeted_em import filter_moving, fit_moving, fit_targeted
from latentfactors.kernels.targeted_inference import (
    choose_ratio,
    draw_parameters,
    forecast_spread,
)
from latentfactors.kernels.targeted_posterior import row_posterior, target_moments
from latentfactors.model import LatentFactorModel
from latentfactors.options import EWMA, VAR, Bootstrap
from latentfactors.panel import Panel
from latentfactors.rows import RowIndex
from latentfactors.state import Factors, FitSummary, LatentFactorState
from latentfactors.targeted.cells import CellReader
from latentfactors.targeted.estimates import PTFAEstimates, count_parameters
from latentfactors.targeted.forecasts import StateForecasts
from latentfactors.targeted.refits import choose_state_ratio, draw_states
from latentfactors.targeted.series import (
    LeadForecasts,
    TargetedTraining,
    check_targets,
    measure,
    pair_series,
    refuse_many_factors,
    remarks,
)
from latentfactors.targeted.states import (
    fit_states,
    read_kinds,
    smooth_states,
)
from latentfactors.validate import check_whole

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
        Periods from a predictor to the target it is paired with. Without dynamics the model forecasts at this
        horizon and no other; 0 nowcasts and describes.
    dynamics
        `VAR(lags)`: factors follow a stationary vector autoregression, so every horizon from the lead on is
        served. None: factors of different periods are independent.
    volatility
        `EWMA(predictors, targets)`: noise variances that move. None: constant.
    target_weight
        "ml": the likelihood decides. A number: the ratio s_x/s_y of noise standard deviations imposed; the
        larger, the more targets count. "cv": the ratio whose forecasts from x
        alone err least in blocks of the later half of training. Mariano-Murasawa series keep a variance of
        their own.
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
        Values outside these ranges, and combinations that are not defined; the message says why.
    """

    n_factors: int
    targets: tuple[str | int, ...]
    lead: int = 0
    dynamics: VAR | None = None
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
        if self.dynamics is not None:
            self.only_with("dynamics")
        moving = self.volatility is not None
        conflicts = {
            f"volatility lets either noise variance move on its own, target_weight={weight!r} imposes one "
            "ratio: use target_weight='ml'": moving and weight != "ml",
            "parameter_uncertainty draws data from the fitted model, and smoothed variances are a filter, "
            "not a law to draw from: leave it out": moving and self.parameter_uncertainty is not None,
            f"use_released_targets needs lead=0, got lead={self.lead}: a released target speaks about the "
            "factor that many periods back, not about the latest": self.use_released_targets
            and self.lead > 0,
        }
        for words, wrong in conflicts.items():
            if wrong:
                raise ConfigurationError(words)

    def only_with(self, what: str) -> None:
        """Refuse what the state-space form does not carry.

        Raises
        ------
        ConfigurationError
            Naming the setting.
        """
        refused = {
            "volatility": (
                None,
                "has constant noise variances: smoothed ones need residuals of factors, "
                "which here are filtered with the variances themselves",
            ),
        }
        for name, (default, reason) in refused.items():
            if getattr(self, name) != default:
                raise ConfigurationError(
                    f"a model with {what} {reason}, got {name}={getattr(self, name)!r}: leave {name} at "
                    f"{default!r}, or leave out {what}"
                )

    def _check_kinds(self) -> None:
        for name, kind in (("dynamics", VAR), ("volatility", EWMA), ("parameter_uncertainty", Bootstrap)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ConfigurationError(f"{name} must be {kind.__name__}(...) or None, got {value!r}")
        if not isinstance(self.use_released_targets, bool):
            raise ConfigurationError(
                f"use_released_targets must be a bool, got {self.use_released_targets!r}"
            )


class Reading(NamedTuple):
    """What x says about every period: factors (T, k), (T, k, k), standardised target forecasts (T, q)."""

    means: FloatArray
    covariances: FloatArray
    forecasts: FloatArray
    native: LeadForecasts | StateForecasts


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
    >>> print(round(float(mean[-1]), 1), round(float(panel.values[-1]), 1))
    -1.8 -1.1
    """

    sequential = True

    def _estimate(self, panel: Panel) -> tuple[PTFAEstimates, FitSummary]:
        config = self.config
        training = pair_series(panel, config.targets, config.lead, _WHO)
        refuse_many_factors(training, config.n_factors, _WHO)
        kinds = read_kinds(panel, training.series.labels, _WHO)
        if any(kinds):
            config.only_with("series of a lower frequency than the panel's")
        x, y, k = training.x, training.y, config.n_factors
        limits = {"tolerance": config.tolerance, "max_iterations": config.max_iterations}
        lags = 0 if config.dynamics is None else config.dynamics.lags
        motion = (panel.times[: len(x)], kinds, panel.frequency) if lags or any(kinds) else None
        ratio = None if isinstance(config.target_weight, str) else config.target_weight
        if config.target_weight == "cv" and motion is None:
            ratio = choose_ratio(x, y, k, config.lead)[0]
        elif config.target_weight == "cv" and motion is not None:
            ratio = choose_state_ratio(x, y, k, *motion, lags, lead=config.lead)[0]
        fit = fit_targeted(x, y, k, ratio=ratio, **limits)
        paths = states = draws = state_draws = None
        bootstrap, pairs = config.parameter_uncertainty, np.hstack([x, y])
        if config.volatility is not None:
            moving = fit_moving(x, y, fit, config.volatility.decays, **limits)
            fit, paths = moving.fit, (moving.x_path, moving.y_path)
        elif motion is not None:
            fit, states = fit_states(pairs, *motion, fit, lags, lead=config.lead, ratio=ratio, **limits)
        if bootstrap is not None:
            size = bootstrap.n_draws, bootstrap.seed
            observed = np.isfinite(pairs)
            if states is None:
                draws = draw_parameters(fit, observed, *size, ratio=ratio)
            else:
                times = panel.times[: len(x)]
                state_draws = draw_states(fit, states, observed, times, *size, lead=config.lead, ratio=ratio)
        p = training.series.n_predictors
        estimates = PTFAEstimates(
            series=training.series,
            predictor_loadings=fit.loadings[:p],
            target_loadings=fit.loadings[p:],
            predictor_variance=fit.x_variance,
            target_variance=fit.y_variance,
            predictor_variances=None if paths is None else paths[0],
            target_variances=None if paths is None else paths[1],
            states=states,
            boundary=fit.boundary,
            noise_ratio=math.nan if ratio is None else ratio,
            draws=draws,
            state_draws=state_draws,
        )
        return estimates, self._summary(estimates, fit, training)

    def _extract(self, panel: Panel, estimates: PTFAEstimates) -> LatentFactorState:
        values, before = estimates.series.read(panel, _WHO)
        reading = self._read(values, before, panel.index, estimates)
        state = self._state(panel, estimates, reading.means[before:], reading.covariances[before:])
        return replace(state, native=reading.native)

    def _smooth(self, panel: Panel, estimates: PTFAEstimates) -> LatentFactorState:
        series = estimates.series
        values, before = series.read(panel, _WHO)
        if estimates.states is None:
            variances = self._variances(values, estimates, joint=True)
            found = row_posterior(series.pair(values), estimates.loadings, series.n_predictors, *variances)
        else:
            times, p = series.times(panel.index, before), series.n_predictors
            found = smooth_states(
                series.pair(values), times, estimates.loadings, estimates.states, p, series.lead
            )
        state = self._state(panel, estimates, found[0][before:], found[1][before:])
        return replace(state, factors=replace(state.factors, information="smoothed"))

    def conditional(self, panel: Panel, cells: Sequence[Cell]) -> ConditionalLaw:
        """The joint law of cells (series, period) given the panel: nowcasts, backcasts, scenarios.

        Every observed value is a condition, targets included, an assumed future value as well as a published
        one. Moving variances are taken as the values before a period make them.

        Parameters
        ----------
        panel
            As it is known now, with the live periods of the cells (`panel.extend`).
        cells
            Pairs (series label, period).

        Raises
        ------
        NotFittedError, PanelMismatchError, GapError, PanelError, ConfigurationError
            Before `fit`; a series that training did not know; a period outside the panel; no cells.
        """
        self._check_panel(panel)
        values, before = self.estimates.series.read(panel, _WHO)
        return self._cells(values).law(panel, values, before, cells)

    def expected_values(self, panel: Panel) -> FloatArray:
        """(R,) every row's value, observed or its mean given the whole panel; NaN for unknown series."""
        self._check_panel(panel)
        values, before = self.estimates.series.read(panel, _WHO)
        return self._cells(values).expected(panel, values, before)

    def _cells(self, values: FloatArray) -> CellReader:
        estimates = self.estimates
        variances = self._variances(values, estimates, joint=True)
        return CellReader(estimates.series, estimates.loadings, variances, estimates.states, _WHO)

    def score(self, panel: Panel) -> float:
        """R2 of target forecasts from x alone, 1 - SSE/SST about the training mean, averaged over targets.

        Targets count that lie, `lead` periods later, in the same panel.

        Raises
        ------
        InsufficientDataError
            No target observed in the panel.
        """
        self._check_panel(panel)
        values, before = self.estimates.series.read(panel, _WHO)
        return self._r2(values, before, panel.index, self.estimates)

    def _r2(self, values: FloatArray, before: int, index: RowIndex, estimates: PTFAEstimates) -> float:
        series = estimates.series
        forecast = self._read(series.predictors_only(values), before, index, estimates).forecasts
        realised = series.pair(values)[before:, series.n_predictors :]
        error = realised - forecast[before:]
        seen = np.isfinite(error).any(axis=0)
        if not seen.any():
            raise InsufficientDataError(
                "score needs observed targets, the panel has none: give periods whose targets are known"
            )
        total = np.nansum(np.where(np.isfinite(error), realised, np.nan)[:, seen] ** 2, axis=0)
        return float(np.mean(1.0 - np.nansum(error[:, seen] ** 2, axis=0) / total))

    def _read(self, values: FloatArray, before: int, index: RowIndex, estimates: PTFAEstimates) -> Reading:
        """One-sided factors and forecasts of all periods."""
        series = estimates.series
        given = values if self.config.use_released_targets else series.predictors_only(values)
        if estimates.states is not None:
            k = self.config.n_factors
            native = StateForecasts.of(
                index,
                given,
                before,
                series,
                estimates.loadings,
                estimates.states,
                _WHO,
                estimates.state_draws,
            )
            mean, covariance = native.moments(0)
            forecasts = native.targets(series.lead, mean, covariance)[0]
            return Reading(mean[1:, :k], covariance[1:, :k, :k], forecasts[1:], native)
        variances = self._variances(values, estimates)
        means, covariances = row_posterior(given, estimates.loadings, series.n_predictors, *variances)
        forecasts, spread = target_moments(given, means, covariances, estimates.target_loadings, variances[1])
        if estimates.draws is not None:
            spread += forecast_spread(given, estimates.draws, series.n_predictors) * (spread > 0.0)
        native = LeadForecasts(
            index=index,
            series=series,
            before=before,
            target_means=forecasts,
            target_variances=spread,
            factor_means=means,
            factor_covariances=covariances,
            who=_WHO,
        )
        return Reading(means, covariances, forecasts, native)

    def _variances(
        self, values: FloatArray, estimates: PTFAEstimates, *, joint: bool = False
    ) -> tuple[float | FloatArray, float | FloatArray]:
        """s_x^2 of each period and s_y^2 of the target it forecasts: numbers, or (T,) if moving."""
        start = estimates.predictor_variance, estimates.target_variance
        if self.config.volatility is None:
            return start
        series, n = estimates.series, len(values)
        pairs, p = series.pair(values), series.n_predictors
        decays = self.config.volatility.decays
        found = filter_moving(pairs, estimates.loadings, p, start, decays, joint=joint)
        # at its origin only pairs that ended by then are known; the smoothed variance is a martingale
        last = np.arange(n) if joint else np.maximum(np.arange(n) + 1 - max(series.lead, 1), 0)
        return found[:n, 0], found[last, 1]

    def _state(
        self, panel: Panel, estimates: PTFAEstimates, means: FloatArray, covariances: FloatArray
    ) -> LatentFactorState:
        loadings = estimates.loadings.copy()
        if estimates.states is not None:
            loadings[~estimates.states.current] = np.nan
        measurement, metadata = measure(panel, estimates.series, loadings, estimates.noise, _WHO)
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
        pairs, series = np.hstack([training.x, training.y]), training.series
        cells = np.isfinite(pairs).sum(axis=0)
        n_parameters = count_parameters(estimates)
        values = series.standardise(series.training.values)
        metrics = {
            "target_r2": self._r2(values, 0, series.empty_index, estimates),
            "n_parameters": float(n_parameters),
            "bic": n_parameters * math.log(len(pairs)) - 2.0 * fit.loglikelihood,
            "loglikelihood_input_units": fit.loglikelihood - float(cells @ np.log(series.scale)),
        }
        return FitSummary(
            converged=fit.converged,
            reason=fit.reason,
            n_iterations=fit.n_iterations,
            objective=fit.objective_path,
            objective_name="log-likelihood",
            loglikelihood=fit.loglikelihood,
            metrics=metrics,
            warnings=(*training.warnings, *remarks(fit.converged, fit.reason, fit.boundary, series)),
        )
