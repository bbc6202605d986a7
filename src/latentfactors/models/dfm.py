"""Dynamic factor model of many series with gaps, ragged edges and mixed frequencies.

Model            y_it = lambda_i'f_t + e_it,  f_t = sum_l A_l f_(t-l) + u_t,  e_it iid or AR(1)    f_t (r,)
                 a low-frequency series is an aggregate (mean, sum, Mariano-Murasawa) of such a series,
                 exactly
Blocks           a block's factors are loaded by its series only; A and Q are block-diagonal
Identification   Var(f_t) = I in every block; Lambda'D^-1 Lambda diagonal, descending, with D the
                 idiosyncratic variances; the largest loading of each factor positive
Estimation       quasi maximum likelihood by accelerated ECM from a principal components start; stationary
                 start of the factors and of the idiosyncratic terms; certificate: the score
Factors          `extract`: filtered, given all series up to the period; `smooth`: given the whole panel
Forecast         native: every series and the factors, any horizon >= 0, densities included
Cost             O(T n r^2 + T (r + n_low)^3 band^2) an iteration
References       Banbura & Modugno (2014), J. of Applied Econometrics 29(1), 133-160; Doz, Giannone & Reichlin
                 (2012), REStat 94(4), 1014-1024; Mariano & Murasawa (2003), JAE 18(4), 427-443
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from latentfactors.aggregates import aggregation_weights
from latentfactors.conditional import Cell, ConditionalLaw, locate_cells
from latentfactors.errors import ConfigurationError, HorizonError, InsufficientDataError, PanelMismatchError
from latentfactors.estimator import at_least, check_number, freeze
from latentfactors.history import History
from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    expectation,
    observation_pattern,
)
from latentfactors.kernels.dynamic_factor_conditional import cell_law, completed
from latentfactors.kernels.dynamic_factor_em import (
    SMALLEST_VARIANCE,
    DynamicFactorFit,
    Structure,
    count_parameters,
    fit_dynamic_factor,
    start_parameters,
)
from latentfactors.kernels.dynamic_factor_forecast import (
    FilteredSequence,
    filter_sequence,
    forecast_sequence,
)
from latentfactors.model import LatentFactorModel, known_assets
from latentfactors.panel import Panel
from latentfactors.periods import first_offenders
from latentfactors.rows import RowIndex
from latentfactors.state import Factors, FitSummary, LatentFactorState, Measurement, StaticLoadings
from latentfactors.targeting import varies, wide_series
from latentfactors.validate import count

__all__ = ["Block", "DFMConfig", "DFMEstimates", "DynamicFactorModel"]

FloatArray = npt.NDArray[np.float64]
Idiosyncratic = Literal["iid", "ar1"]

# Observations below which a series says nothing.
_FEWEST = 5


@dataclass(frozen=True, kw_only=True)
class Block:
    """Factors that only some series load on, beside the factors of all.

    Parameters
    ----------
    name
        Prefix of the factors' names.
    series
        Labels of its members.
    n_factors
        1 or more.

    Raises
    ------
    ConfigurationError
        No name, fewer than two series, repeated series.
    """

    name: str
    series: tuple[str | int, ...]
    n_factors: int = 1

    def __post_init__(self) -> None:
        at_least("n_factors", self.n_factors, 1)
        if isinstance(self.series, str) or not isinstance(self.series, Sequence):
            raise ConfigurationError(f"series of a block must be a tuple of labels, got {self.series!r}")
        object.__setattr__(self, "series", tuple(self.series))
        if not self.name or len(self.series) < 2 or len(set(self.series)) < len(self.series):
            raise ConfigurationError(
                f"a block needs a name and two or more different series, got {self.name!r}, {self.series!r}"
            )


@dataclass(frozen=True, kw_only=True)
class DFMConfig:
    """Dynamics, gaps and frequencies in one likelihood. Static factors for a few targets: PTFA; returns: PCA.

    Parameters
    ----------
    n_factors
        r, factors that all series load on; 0 only with blocks.
    factor_lags
        p of the factor VAR, 1 or more.
    idiosyncratic
        "ar1": each series' own term is a stationary AR(1); "iid": white noise.
    blocks
        `Block`s beside the factors of all series.
    masked
        Periods (dates or integers) that estimation does not see, such as the first months of a pandemic. They
        are named in the summary; `extract` and forecasts use them like any other.
    tolerance
        Largest change of a parameter between cycles at which the iteration stops.
    max_iterations
        Most evaluations of the likelihood.

    Raises
    ------
    ConfigurationError
        Values outside these ranges.
    """

    n_factors: int
    factor_lags: int = 1
    idiosyncratic: Idiosyncratic = "ar1"
    blocks: tuple[Block, ...] = ()
    masked: tuple[Any, ...] = ()
    tolerance: float = 1e-5
    max_iterations: int = 3000

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        at_least("n_factors", self.n_factors, 0 if self.blocks else 1)
        at_least("factor_lags", self.factor_lags, 1)
        at_least("max_iterations", self.max_iterations, 1)
        object.__setattr__(self, "tolerance", check_number("tolerance", self.tolerance, positive=True))
        if self.idiosyncratic not in get_args(Idiosyncratic):
            raise ConfigurationError(
                f"idiosyncratic must be one of {get_args(Idiosyncratic)}, got {self.idiosyncratic!r}"
            )
        if not all(isinstance(block, Block) for block in self.blocks):
            raise ConfigurationError(f"blocks must be Block objects, got {self.blocks!r}")
        names = [block.name for block in self.blocks]
        if len(set(names)) < len(names):
            raise ConfigurationError(f"blocks must have different names, got {names}")
        if isinstance(self.masked, str) or not isinstance(self.masked, Sequence):
            raise ConfigurationError(
                f"masked must be a tuple of periods, got {self.masked!r}: write ('2020-04',)"
            )
        object.__setattr__(self, "masked", tuple(self.masked))

    @property
    def autoregressive(self) -> bool:
        """Whether idiosyncratic terms are AR(1)."""
        return self.idiosyncratic == "ar1"

    @property
    def factor_names(self) -> tuple[str, ...]:
        """F1, F2, ... of all series, then name 1, name 2, ... of the blocks."""
        common = [f"F{k + 1}" for k in range(self.n_factors)]
        return (*common, *(f"{b.name} {k + 1}" for b in self.blocks for k in range(b.n_factors)))


@dataclass(frozen=True, eq=False, kw_only=True)
class DFMEstimates:
    """What `fit` found; parameters are of standardised series.

    Attributes
    ----------
    series : (n,) labels
    location, scale : (n,) input units: standardised = (value - location) / scale
    weights : (n, L) of an aggregate's periods, newest first; (1, 0, ...) for an ordinary series
    loadings : (n, r)
    persistence : (n,) phi of the idiosyncratic AR(1), 0 for iid
    variance : (n,) of the idiosyncratic innovations
    transition : (p, r, r)
    innovation : (r, r)
    training : all training periods with values (S, n) in input units
    """

    series: npt.NDArray[Any]
    location: FloatArray
    scale: FloatArray
    weights: FloatArray
    loadings: FloatArray
    persistence: FloatArray
    variance: FloatArray
    transition: FloatArray
    innovation: FloatArray
    training: History

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def parameters(self) -> DynamicFactorParameters:
        """As the kernels take them."""
        return DynamicFactorParameters(
            self.loadings, self.persistence, self.variance, self.transition, self.innovation
        )

    @property
    def idiosyncratic_variance(self) -> FloatArray:
        """(n,) stationary variance of the idiosyncratic terms."""
        return self.variance / (1.0 - self.persistence**2)

    def read(self, panel: Panel) -> tuple[FloatArray, int]:
        """A panel's standardised values (B + T, n) and B, the training periods put before them."""
        wide = wide_series(panel, self.series)
        values, before = self.training.prepend(panel.index, wide, "DynamicFactorModel")
        return (values - self.location) / self.scale, before


class DynamicFactorModel(LatentFactorModel[DFMConfig, DFMEstimates]):
    """Factors with dynamics behind many series, whatever is missing and however often each is published.

    Parameters
    ----------
    config
        `DFMConfig`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> f = np.zeros(200)
    >>> for t in range(1, 200):
    ...     f[t] = 0.8 * f[t - 1] + rng.normal()
    >>> values = f[:, None] * rng.normal(size=10) + rng.normal(size=(200, 10))
    >>> values[rng.uniform(size=values.shape) < 0.3] = np.nan
    >>> panel = Panel.from_wide(values, universe="all", value_kind="series")
    >>> model = DynamicFactorModel(DFMConfig(n_factors=1, idiosyncratic="iid"))
    >>> summary = model.fit(panel)
    >>> summary.converged, bool(abs(np.corrcoef(model.smooth(panel).factor_returns[:, 0], f)[0, 1]) > 0.9)
    (True, True)
    >>> means, variances = model.extract(panel).native.values(3)
    >>> means.shape
    (2000,)
    """

    sequential = True

    def _estimate(self, panel: Panel) -> tuple[DFMEstimates, FitSummary]:
        config = self.config
        wide, labels, warnings = training_series(panel, config)
        weights = aggregation_weights(panel, labels)
        hidden, remarks = _masked(panel, config)
        location, scale = np.nanmean(wide, axis=0), np.nanstd(wide, axis=0)
        values = np.where(hidden[:, None], np.nan, (wide - location) / scale)
        structure = model_structure(config, labels)
        pattern = observation_pattern(
            values, autoregressive=config.autoregressive, lags=config.factor_lags, weights=weights
        )
        start = start_parameters(values, weights, structure, config.factor_lags)
        fit = fit_dynamic_factor(
            start, pattern, structure, tolerance=config.tolerance, max_iterations=config.max_iterations
        )
        found = fit.parameters
        estimates = DFMEstimates(
            series=labels,
            location=location,
            scale=scale,
            weights=weights,
            loadings=found.loadings,
            persistence=found.persistence,
            variance=found.variance,
            transition=found.transition,
            innovation=found.innovation,
            training=History(panel.times, wide),
        )
        return estimates, _summarise(fit, structure, values, labels, (*warnings, *remarks))

    def _extract(self, panel: Panel, estimates: DFMEstimates) -> LatentFactorState:
        values, before = estimates.read(panel)
        filtered = filter_sequence(
            values, estimates.parameters, estimates.weights, autoregressive=self.config.autoregressive
        )
        r = estimates.loadings.shape[1]
        factors = Factors(
            values=filtered.mean[before:, 0, :r],
            covariance=filtered.covariance[before:, :r, :r],
            names=self.config.factor_names,
            information="filtered",
        )
        native = DynamicForecasts(index=panel.index, estimates=estimates, filtered=filtered, before=before)
        return self._state(panel, estimates, factors, native)

    def _smooth(self, panel: Panel, estimates: DFMEstimates) -> LatentFactorState:
        values, before = estimates.read(panel)
        pattern = observation_pattern(
            values,
            autoregressive=self.config.autoregressive,
            lags=self.config.factor_lags,
            weights=estimates.weights,
        )
        expected = expectation(estimates.parameters, pattern)
        r, first = estimates.loadings.shape[1], before + pattern.lead
        factors = Factors(
            values=expected.means[first:, :r],
            covariance=expected.covariances[first:, 0, :r, :r],
            names=self.config.factor_names,
            information="smoothed",
        )
        return self._state(panel, estimates, factors, None)

    def conditional(self, panel: Panel, cells: Sequence[Cell]) -> ConditionalLaw:
        """The joint law of cells (series, period) given the panel: nowcasts, backcasts, scenarios.

        Whatever is observed is a condition, an assumed future value as well as a published one.

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
        estimates = self.estimates
        values, before = estimates.read(panel)
        places = locate_cells(panel, cells, estimates.series, "DynamicFactorModel")
        law = cell_law(
            values,
            estimates.parameters,
            estimates.weights,
            [(before + period, series) for period, series in places],
            autoregressive=self.config.autoregressive,
        )
        columns = np.array([series for _, series in places])
        scale = estimates.scale[columns]
        per_value = scale[:, None, None] * law.weights[:, before:] / estimates.scale
        known = panel.index.match_assets(estimates.series)[panel.asset_codes]
        by_row = per_value[:, panel.index.period_codes, np.maximum(known, 0)]
        return ConditionalLaw(
            mean=estimates.location[columns] + scale * law.mean,
            covariance=law.covariance * np.outer(scale, scale),
            weights=np.where(known >= 0, by_row, 0.0),
        )

    def expected_values(self, panel: Panel) -> FloatArray:
        """(R,) every row's value, observed or its mean given the whole panel; NaN for unknown series."""
        self._check_panel(panel)
        estimates = self.estimates
        values, before = estimates.read(panel)
        filled = completed(
            values, estimates.parameters, estimates.weights, autoregressive=self.config.autoregressive
        )[before:]
        known = panel.index.match_assets(estimates.series)[panel.asset_codes]
        by_row = (estimates.location + estimates.scale * filled)[
            panel.index.period_codes, np.maximum(known, 0)
        ]
        return np.where(known >= 0, np.where(panel.observed, panel.values, by_row), np.nan)

    def _state(
        self, panel: Panel, estimates: DFMEstimates, factors: Factors, native: DynamicForecasts | None
    ) -> LatentFactorState:
        known = known_assets(panel.index, estimates.series, "DynamicFactorModel")
        # an aggregate loads on several periods' factors, so it has no contemporaneous loading
        is_low = (estimates.weights[:, 1:] != 0.0).any(axis=1)
        loadings = np.where(is_low[:, None], np.nan, estimates.loadings)
        own = estimates.idiosyncratic_variance
        variance = np.where(known >= 0, own[known], own.mean())
        return LatentFactorState(
            index=panel.index,
            factors=factors,
            measurement=Measurement(
                loadings=StaticLoadings(_by_series(loadings, known), panel.index),
                location=_by_series(estimates.location, known),
                scale=_by_series(estimates.scale, known),
                residual_variance=variance[panel.asset_codes],
            ),
            n_realised=panel.n_realised,
            fit_span=self.fitted.span,
            native=native,
            metadata={
                "n_assets_without_loadings": int((panel.active_assets & (known < 0)).sum()),
                "aggregates": tuple(estimates.series[is_low].tolist()),
            },
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class DynamicForecasts:
    """Native forecasts of factors and of every series, from each row's past.

    Parameters
    ----------
    index
        Rows of the panel.
    estimates
        `DFMEstimates`.
    filtered
        Laws of the recent past at B + T periods.
    before
        B.

    Notes
    -----
    Row p looks one period back: origin p-1, target p-1 + horizon. The first period of all forecasts from the
    stationary law, since nothing is known before it.
    """

    index: RowIndex
    estimates: DFMEstimates
    filtered: FilteredSequence
    before: int

    def factors(self, horizon: int) -> tuple[FloatArray, FloatArray]:
        """(T, r) means and (T, r, r) covariances.

        Raises
        ------
        HorizonError
            Below 0: a backcast needs the panel as it is now, see `smooth`.
        """
        self._check(horizon)
        means, covariances, _, _ = forecast_sequence(self.filtered, self.estimates.parameters, horizon)
        r = means.shape[1]
        return self._shift(means, np.zeros(r)), self._shift(covariances, np.eye(r))

    def values(self, horizon: int) -> tuple[FloatArray, FloatArray]:
        """(R,) means and variances in input units; NaN for series that training did not know.

        Raises
        ------
        HorizonError
            Below 0.
        """
        self._check(horizon)
        estimates = self.estimates
        _, _, means, variances = forecast_sequence(self.filtered, estimates.parameters, horizon)
        unconditional = np.ones(means.shape[1])
        means = estimates.location + estimates.scale * self._shift(means, 0.0 * unconditional)
        variances = estimates.scale**2 * self._shift(variances, unconditional)
        known = self.index.match_assets(estimates.series)
        column = known[self.index.asset_codes]
        rows, position = self.index.period_codes, np.maximum(column, 0)
        return (
            np.where(column >= 0, means[rows, position], np.nan),
            np.where(column >= 0, variances[rows, position], np.nan),
        )

    def _shift(self, by_origin: FloatArray, first: FloatArray) -> FloatArray:
        """What was known one period before each of the panel's periods."""
        return np.concatenate([np.broadcast_to(first, (1, *by_origin.shape[1:])), by_origin])[
            self.before : -1
        ]

    def _check(self, horizon: int) -> None:
        if horizon < 0:
            raise HorizonError(
                f"the dynamic factor model forecasts horizons >= 0, got {horizon}: for a backcast smooth the "
                "panel as it is known now"
            )


# ------------------------------------------------------------------------------------ reading the panel


def training_series(panel: Panel, config: DFMConfig) -> tuple[FloatArray, npt.NDArray[Any], tuple[str, ...]]:
    """Values (T, n) and labels of the series that move, and what was left out.

    Raises
    ------
    InsufficientDataError
        Fewer series than factors, or too few periods.
    PanelMismatchError
        A block that names unknown series.
    """
    active = panel.active_assets
    wide, labels = panel.wide()[:, active], panel.assets[active]
    # an AR(1) term and a loading need a handful of observations to be told apart
    kept = (np.isfinite(wide).sum(axis=0) >= _FEWEST) & varies(wide)
    left = labels[~kept]
    remark = f"{left.size} series constant or with fewer than {_FEWEST} values left out: "
    warnings = (remark + ", ".join(map(str, left)),) if left.size else ()
    unknown = [s for block in config.blocks for s in block.series if s not in labels[kept].tolist()]
    if unknown:
        raise PanelMismatchError(
            f"blocks name {first_offenders(map(repr, unknown))}, which training does not have (unknown, "
            "constant or hardly observed): name series as the panel does"
        )
    r = len(config.factor_names)
    if kept.sum() < max(r, 2) or panel.n_periods <= config.factor_lags + r + 5:
        raise InsufficientDataError(
            f"{count(r, 'factor')} with {config.factor_lags} lag(s) from {int(kept.sum())} usable series and "
            f"{panel.n_periods} periods: give more series or periods, or ask for fewer factors"
        )
    return wide[:, kept], labels[kept], warnings


def model_structure(config: DFMConfig, labels: npt.NDArray[Any]) -> Structure:
    """Which loadings are free, and which factors form a block."""
    r, n = len(config.factor_names), labels.size
    allowed, groups, position = np.zeros((n, r), dtype=bool), [], 0
    members = [(config.n_factors, np.ones(n, dtype=bool))]
    members += [(b.n_factors, np.isin(labels, np.array(b.series, dtype=labels.dtype))) for b in config.blocks]
    for k, inside in members:
        if k:
            group = np.arange(position, position + k)
            allowed[np.ix_(np.flatnonzero(inside), group)] = True
            groups.append(group)
            position += k
    return Structure(config.autoregressive, allowed, tuple(groups))


def _masked(panel: Panel, config: DFMConfig) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """Periods hidden from estimation; those after the training panel do not count."""
    hidden = np.zeros(panel.n_periods, dtype=bool)
    named = []
    for each in config.masked:
        try:
            position = panel.index.position(each)
        except Exception as error:
            raise ConfigurationError(f"masked period {each!r}: {error}") from error
        hidden[position] = True
        named.append(str(panel.times[position]))
    return hidden, ((f"{count(len(named), 'period')} masked: {', '.join(named)}",) if named else ())


def _by_series(trained: FloatArray, known: npt.NDArray[np.int64]) -> FloatArray:
    out = trained[known]
    out[known < 0] = np.nan
    return out


def _summarise(
    fit: DynamicFactorFit,
    structure: Structure,
    values: FloatArray,
    labels: npt.NDArray[Any],
    warnings: tuple[str, ...],
) -> FitSummary:
    n_parameters = count_parameters(fit.parameters, structure)
    n_periods = values.shape[0]
    heywood = labels[fit.parameters.variance <= 2.0 * SMALLEST_VARIANCE]
    if heywood.size:
        warnings = (*warnings, f"reproduced by the factors without noise: {', '.join(map(str, heywood))}")
    if not fit.converged:
        warnings = (*warnings, f"not converged, {fit.reason}: raise max_iterations")
    return FitSummary(
        converged=fit.converged,
        reason=fit.reason,
        n_iterations=fit.n_iterations,
        objective=fit.objective_path,
        objective_name="log-likelihood",
        loglikelihood=fit.loglikelihood,
        metrics={
            "n_parameters": float(n_parameters),
            "aic": 2.0 * n_parameters - 2.0 * fit.loglikelihood,
            "bic": float(np.log(n_periods)) * n_parameters - 2.0 * fit.loglikelihood,
            "score": fit.score,
        },
        warnings=warnings,
    )
