"""What a fitted dynamic factor model says beyond factors and forecasts.

    standard_errors          of the parameters, from the observed information
    impulse_responses        of factors and series to one-standard-deviation shocks
    factor_contributions     which groups of series move the factors
    forecast_contributions   which groups of series make a forecast what it is
    draw_panel               a panel of the model's own process with the gaps of a given one
    compare_factor_counts    information criteria over numbers of factors and lags

Contributions rest on linearity: factors and forecasts are linear in the standardised data, whatever is
missing, so what a group contributes is the answer when all other series' values are at their means. They add
up.

References: Banbura & Modugno (2014), J. of Applied Econometrics 29(1), section 2.3 (contributions); Lutkepohl
(2005), New Introduction to Multiple Time Series Analysis, section 2.3.2 (orthogonalised responses).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.dynamic.periods import masked_periods
from latentfactors.dynamic.series import model_structure
from latentfactors.dynamic.states import SeriesReading, read_series
from latentfactors.errors import ConfigurationError, InsufficientDataError, PanelMismatchError
from latentfactors.estimator import at_least, freeze
from latentfactors.kernels.dynamic_factor import observation_pattern, state_law
from latentfactors.kernels.dynamic_factor_em import pack
from latentfactors.kernels.dynamic_factor_forecast import forecast_sequence
from latentfactors.kernels.dynamic_factor_score import parameter_covariance
from latentfactors.models.dfm import DFMConfig, DynamicFactorModel
from latentfactors.panel import Panel
from latentfactors.periods import first_offenders
from latentfactors.targeted.series import wide_series

__all__ = [
    "FactorCount",
    "ImpulseResponses",
    "ParameterErrors",
    "compare_factor_counts",
    "draw_panel",
    "factor_contributions",
    "forecast_contributions",
    "impulse_responses",
    "standard_errors",
]

FloatArray = npt.NDArray[np.float64]
Groups = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class ParameterErrors:
    """Standard errors, in the units of `DFMEstimates` (standardised series).

    Attributes
    ----------
    loadings : (n, r), 0 where a loading is fixed at zero
    persistence, variance : (n,); 0 for iid terms' persistence, and for variances on their floor
    transition : (p, r, r), 0 outside blocks
    shock_scale : (M,) of the broken periods
    """

    loadings: FloatArray
    persistence: FloatArray
    variance: FloatArray
    transition: FloatArray
    shock_scale: FloatArray

    def __post_init__(self) -> None:
        freeze(self)


def standard_errors(model: DynamicFactorModel, panel: Panel) -> ParameterErrors:
    """Standard errors from the observed information within the identifying restrictions.

    The score is exact (Fisher's identity) and costs one smoother run, so its 2 P differences cost what 2 P
    iterations of a fit cost: seconds for a hundred series, where a bootstrap would take as many fits as it
    has draws and would have to match signs and order of the factors. They hold location and scale as known
    and idiosyncratic terms as uncorrelated across series.

    Parameters
    ----------
    model
        Fitted to a maximum: loose tolerances may leave no positive definite information.
    panel
        The panel it was fitted to.

    Raises
    ------
    NotFittedError, PanelMismatchError
        Before `fit`; a panel other than the training panel.
    InsufficientDataError
        No positive definite information.

    Examples
    --------
    >>> from latentfactors.simulate import dynamic_factor_panel
    >>> panel = dynamic_factor_panel(n_series=8, seed=1).panel
    >>> model = DynamicFactorModel(DFMConfig(n_factors=1))
    >>> summary = model.fit(panel)
    >>> standard_errors(model, panel).loadings.shape
    (8, 1)
    """
    estimates, config = model.estimates, model.config
    wide = wide_series(panel, estimates.series)
    if not np.array_equal(wide, estimates.training.values, equal_nan=True):
        raise PanelMismatchError("standard errors need the panel that the model was fitted to, got another")
    hidden, _ = masked_periods(panel, config.masked)
    values = np.where(hidden[:, None], np.nan, (wide - estimates.location) / estimates.scale)
    parameters = estimates.parameters
    structure = model_structure(
        estimates.series, config.blocks, config.n_factors, autoregressive=config.autoregressive
    )
    pattern = observation_pattern(
        values,
        autoregressive=config.autoregressive,
        lags=config.factor_lags,
        weights=estimates.weights,
        broken=np.flatnonzero(np.isin(panel.times, estimates.broken)),
    )
    try:
        covariance = parameter_covariance(parameters, pattern, structure)
    except ValueError as error:
        raise InsufficientDataError(
            f"no standard errors: {error}; fit with a smaller tolerance, fewer factors or more periods"
        ) from error
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    assert spread.size == pack(parameters, structure).size
    n, (p, r) = len(estimates.series), parameters.transition.shape[:2]
    first = int(structure.allowed.sum())
    loadings, persistence, transition = np.zeros((n, r)), np.zeros(n), np.zeros((p, r, r))
    loadings[structure.allowed] = spread[:first]
    # log s and atanh phi, by the delta method
    variance = parameters.variance * spread[first : first + n]
    position = first + n
    if config.autoregressive:
        persistence = (1.0 - parameters.persistence**2) * spread[position : position + n]
        position += n
    for group in structure.groups:
        k = group.size
        transition[:, *np.ix_(group, group)] = spread[position : position + p * k * k].reshape(p, k, k)
        position += p * k * k + k * (k + 1) // 2
    return ParameterErrors(
        loadings=loadings,
        persistence=persistence,
        variance=variance,
        transition=transition,
        # of c, from those of log c
        shock_scale=estimates.shock_scale * spread[position:],
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class ImpulseResponses:
    """Responses h = 0, ..., H periods after a shock.

    Attributes
    ----------
    factors : (H + 1, r, r)
        Of factor i to shock j.
    values : (H + 1, n, r)
        Of the series, in input units; of an aggregate at the end of its own period h.
    series : (n,)
    """

    factors: FloatArray
    values: FloatArray
    series: npt.NDArray[Any]

    def __post_init__(self) -> None:
        freeze(self)


def impulse_responses(model: DynamicFactorModel, horizon: int) -> ImpulseResponses:
    """Psi_h L with Q = L L' (Cholesky, in the order of the factors), and what it means for every series.

    Factors are identified by convention, not by economics, and so are shocks to them: responses of series
    to a shock are facts about the estimated process, its name is the reader's.

    Raises
    ------
    NotFittedError
        Before `fit`.
    ConfigurationError
        A horizon below 0.
    """
    at_least("horizon", horizon, 0)
    estimates = model.estimates
    p, r = estimates.transition.shape[:2]
    responses = np.zeros((horizon + 1, r, r))
    responses[0] = np.linalg.cholesky(estimates.innovation)
    for h in range(1, horizon + 1):
        for lag in range(1, min(p, h) + 1):
            responses[h] += estimates.transition[lag - 1] @ responses[h - lag]
    values = np.zeros((horizon + 1, len(estimates.series), r))
    for lag in range(estimates.weights.shape[1]):
        weighted = estimates.loadings * estimates.weights[:, lag, None]
        values[lag:] += np.einsum("nk,hkj->hnj", weighted, responses[: horizon + 1 - lag])
    return ImpulseResponses(
        factors=responses, values=values * estimates.scale[:, None], series=estimates.series
    )


def factor_contributions(
    model: DynamicFactorModel,
    panel: Panel,
    groups: Groups,
    information: Literal["filtered", "smoothed"] = "smoothed",
) -> dict[str, FloatArray]:
    """(T, r) parts of the factors by group of series; they add up to the factors.

    Parameters
    ----------
    groups
        Labels by name of the group; every series that the model knows in exactly one.
    information
        Which factors: given all series up to a period, or given the whole panel.

    Raises
    ------
    NotFittedError
        Before `fit`.
    PanelMismatchError
        Groups that leave out, repeat or do not know a series.

    Examples
    --------
    >>> from latentfactors.simulate import dynamic_factor_panel
    >>> panel = dynamic_factor_panel(n_series=8, seed=1).panel
    >>> model = DynamicFactorModel(DFMConfig(n_factors=1))
    >>> summary = model.fit(panel)
    >>> labels = panel.assets.tolist()
    >>> parts = factor_contributions(model, panel, {"real": labels[:5], "prices": labels[5:]})
    >>> bool(np.allclose(parts["real"] + parts["prices"], model.smooth(panel).factor_returns))
    True
    """
    if information not in ("filtered", "smoothed"):
        raise ConfigurationError(f"information must be 'filtered' or 'smoothed', got {information!r}")
    estimates = model.estimates
    r = estimates.loadings.shape[1]
    out = {}
    reading = read_series(panel, estimates, type(model).__name__, autoregressive=model.config.autoregressive)
    for name, members in _members(groups, estimates.series).items():
        alone = _others_at_mean(reading, members)
        if information == "filtered":
            out[name] = alone.filtered().mean[reading.before :, 0, :r]
        else:
            out[name] = alone.smoothed()[0]
    return out


def forecast_contributions(
    model: DynamicFactorModel, panel: Panel, series: Any, horizon: int, groups: Groups
) -> dict[str, FloatArray]:
    """(T,) parts of a series' forecasts by group, in input units; they add up to forecast less mean.

    Entry t is the forecast made with the data up to period t for period t + horizon, so row t + 1 of
    `state.native.values(horizon)`.

    Raises
    ------
    NotFittedError, PanelMismatchError, ConfigurationError
        Before `fit`; an unknown series or groups that do not cover all series; a horizon below 0.
    """
    at_least("horizon", horizon, 0)
    estimates = model.estimates
    column = np.flatnonzero(estimates.series == series)
    if column.size != 1:
        raise PanelMismatchError(f"the model knows no series {series!r}")
    reading = read_series(panel, estimates, type(model).__name__, autoregressive=model.config.autoregressive)
    out = {}
    for name, members in _members(groups, estimates.series).items():
        filtered = _others_at_mean(reading, members).filtered()
        means = forecast_sequence(filtered, reading.parameters, horizon)[2]
        out[name] = estimates.scale[column[0]] * means[reading.before :, column[0]]
    return out


def draw_panel(model: DynamicFactorModel, panel: Panel, seed: int, *, gaps: bool = True) -> Panel:
    """A panel of the fitted process, stationary from its first period, with the rows of a given one.

    For parametric bootstraps and stress of a study's own code. Extend a panel first to draw more periods.

    Parameters
    ----------
    model
        Fitted.
    panel
        Rows, labels and gaps; series that the model does not know stay empty.
    seed
        Of the draw.
    gaps
        Whether cells that are missing in the panel are missing in the draw. With gaps=False an aggregate has
        a value in every quarter's last month.

    Raises
    ------
    NotFittedError, UnknownAssetsError
        Before `fit`; no known series.

    Examples
    --------
    >>> from latentfactors.simulate import dynamic_factor_panel
    >>> panel = dynamic_factor_panel(n_series=8, missing=0.2, seed=1).panel
    >>> model = DynamicFactorModel(DFMConfig(n_factors=1))
    >>> summary = model.fit(panel)
    >>> drawn = draw_panel(model, panel, seed=0)
    >>> bool((np.isfinite(drawn.values) == np.isfinite(panel.values)).all())
    True
    """
    estimates = model.estimates
    rng = np.random.default_rng(seed)
    parameters, n_periods = estimates.parameters, panel.n_periods
    n, (p, r) = len(estimates.series), parameters.transition.shape[:2]
    lead = estimates.weights.shape[1] - 1
    none = observation_pattern(np.zeros((1, n)), autoregressive=model.config.autoregressive, lags=p)
    _, _, start = state_law(parameters, none)
    factors = np.zeros((n_periods + lead + p, r))
    factors[:p] = rng.multivariate_normal(np.zeros(p * r), start, method="cholesky").reshape(p, r)
    shocks = rng.normal(size=(len(factors), r)) @ np.linalg.cholesky(parameters.innovation).T
    own = rng.normal(size=(len(factors), n)) * np.sqrt(parameters.variance)
    broken = estimates.breaks.among(panel.times)
    rows = broken.rows + lead + p
    shocks[rows], own[rows] = broken.scale[:, None] * shocks[rows], broken.scale[:, None] * own[rows]
    own[0] /= np.sqrt(1.0 - parameters.persistence**2)
    for t in range(1, len(factors)):
        own[t] += parameters.persistence * own[t - 1]
        if t >= p:
            factors[t] = shocks[t] + sum(
                parameters.transition[lag] @ factors[t - 1 - lag] for lag in range(p)
            )
    latent = (factors @ parameters.loadings.T + own)[p:]
    values = np.zeros((n_periods, n))
    for lag in range(lead + 1):
        values += estimates.weights[:, lag] * latent[lead - lag : len(latent) - lag]
    values = estimates.location + estimates.scale * values
    if gaps:
        values = np.where(np.isfinite(wide_series(panel, estimates.series)), values, np.nan)
    else:
        is_low = (estimates.weights[:, 1:] != 0.0).any(axis=1)
        months = panel.times.astype("datetime64[M]").astype(np.int64) if is_low.any() else np.zeros(n_periods)
        values[np.ix_(months % 3 != 2, is_low)] = np.nan
    known = panel.index.match_assets(estimates.series)[panel.asset_codes]
    rows = values[panel.index.period_codes, np.maximum(known, 0)]
    return panel.with_values(np.where(known >= 0, rows, np.nan))


@dataclass(frozen=True, kw_only=True)
class FactorCount:
    """One candidate: numbers of factors and lags, its criteria, whether its fit converged."""

    n_factors: int
    factor_lags: int
    loglikelihood: float
    aic: float
    bic: float
    converged: bool


def compare_factor_counts(
    panel: Panel, config: DFMConfig, n_factors: Sequence[int], factor_lags: Sequence[int] = (1,)
) -> tuple[FactorCount, ...]:
    """AIC and BIC of every pair of a number of factors and of lags, best BIC first.

    All candidates maximise the likelihood of the same values under a stationary start, so their criteria are
    comparable. `evaluate.number_of_factors` counts static factors without a likelihood.

    Raises
    ------
    ConfigurationError, InsufficientDataError
        As `DFMConfig` and `fit` do.
    """
    found = []
    for r in n_factors:
        for p in factor_lags:
            summary = DynamicFactorModel(replace(config, n_factors=r, factor_lags=p)).fit(panel)
            assert summary.loglikelihood is not None
            found.append(
                FactorCount(
                    n_factors=r,
                    factor_lags=p,
                    loglikelihood=summary.loglikelihood,
                    aic=summary.metrics["aic"],
                    bic=summary.metrics["bic"],
                    converged=bool(summary.converged),
                )
            )
    return tuple(sorted(found, key=lambda each: each.bic))


def _members(groups: Groups, series: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.bool_]]:
    """Membership (n,) by group, checked to be a partition."""
    labels = series.tolist()
    named = [label for members in groups.values() for label in members]
    unknown = [each for each in named if each not in labels]
    repeated = sorted({str(each) for each in named if named.count(each) > 1})
    left = [each for each in labels if each not in named]
    for what, offenders in (("do not exist", unknown), ("repeat", repeated), ("are in no group", left)):
        if offenders:
            raise PanelMismatchError(
                f"groups must hold every series of the model once: {first_offenders(map(repr, offenders))} "
                f"{what}"
            )
    return {name: np.isin(series, np.array(list(members))) for name, members in groups.items()}


def _others_at_mean(reading: SeriesReading, members: npt.NDArray[np.bool_]) -> SeriesReading:
    """Observed cells of all other series at 0, their mean."""
    return replace(reading, values=np.where(members | np.isnan(reading.values), reading.values, 0.0))
