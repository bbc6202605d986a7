"""Dynamic factor model of many series with gaps, ragged edges and mixed frequencies.

Model            y_it = lambda_i'f_t + e_it,  f_t = sum_l A_l f_(t-l) + u_t,  e_it iid or AR(1)    f_t (r,)
                 a low-frequency series is an aggregate (mean, sum, Mariano-Murasawa) of such a series,
                 exactly
Broken periods   in named periods (`VarianceBreak`) all shocks, u_t and those of e_it, are c_t times as large
Blocks           a block's factors are loaded by its series only; A and Q are block-diagonal
Identification   Var(f_t) = I in every block; Lambda'D^-1 Lambda diagonal, descending, with D the
                 idiosyncratic variances; the largest loading of each factor positive
Estimation       quasi maximum likelihood by accelerated ECM from a principal components start; stationary
                 start of the factors and of the idiosyncratic terms; certificate: the score
Factors          `extract`: filtered, given all series up to the period; `smooth`: given the whole panel
Forecast         native: every series and the factors, any horizon >= 0, densities included
Cost             O(T n r^2 + T (r + n_low)^3 band^2) an iteration
References       Banbura & Modugno (2014), J. of Applied Econometrics 29(1), 133-160; Doz, Giannone & Reichlin
                 (2012), REStat 94(4), 1014-1024; Mariano & Murasawa (2003), JAE 18(4), 427-443; Lenza &
                 Primiceri (2022), JAE 37(4), 688-699 (broken periods)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.aggregates import aggregation_weights
from latentfactors.conditional import Cell, ConditionalLaw, ConditionalModel
from latentfactors.dynamic.periods import (
    VarianceBreak,
    broken_periods,
    masked_periods,
    start_scales,
)
from latentfactors.dynamic.series import (
    Block,
    model_structure,
    summarise_fit,
    training_series,
)
from latentfactors.dynamic.states import (
    DynamicEstimates,
    filtered_state,
    linear_conditional,
    linear_expected_values,
    smoothed_state,
)
from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least, check_number, one_of
from latentfactors.history import History
from latentfactors.kernels.dynamic_factor import observation_pattern
from latentfactors.kernels.dynamic_factor_em import fit_dynamic_factor, start_parameters
from latentfactors.panel import Panel
from latentfactors.state import FitSummary, LatentFactorState

__all__ = ["Block", "DFMConfig", "DFMEstimates", "DynamicFactorModel"]

FloatArray = npt.NDArray[np.float64]
Idiosyncratic = Literal["iid", "ar1"]


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
        `Block` objects beside the factors of all series.
    masked
        Periods (dates or integers) that estimation does not see, such as the first months of a pandemic. They
        are named in the summary; `extract` and forecasts use them like any other. Periods after the training
        panel are not there to be hidden, and the summary says so.
    variance_break
        `VarianceBreak`: periods whose shocks are larger by scales that are estimated, so that they are used
        for what they are worth; None: no such periods.
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
    variance_break: VarianceBreak | None = None
    tolerance: float = 1e-5
    max_iterations: int = 3000

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        at_least("n_factors", self.n_factors, 0 if self.blocks else 1)
        at_least("factor_lags", self.factor_lags, 1)
        at_least("max_iterations", self.max_iterations, 1)
        object.__setattr__(self, "tolerance", check_number("tolerance", self.tolerance, positive=True))
        one_of("idiosyncratic", self.idiosyncratic, Idiosyncratic)
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
        if not isinstance(self.variance_break, VarianceBreak | None):
            raise ConfigurationError(
                f"variance_break must be a VarianceBreak or None, got {self.variance_break!r}: write "
                "VarianceBreak(periods=('2020-03', '2020-04'))"
            )

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
class DFMEstimates(DynamicEstimates):
    """What `fit` found, at the maximum of the likelihood: the arrays of `DynamicEstimates`."""


class DynamicFactorModel(ConditionalModel[DFMConfig, DFMEstimates]):
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
        hidden, remarks = masked_periods(panel, config.masked)
        broken, aside = broken_periods(panel, config.variance_break, hidden)
        unusual = hidden.copy()
        unusual[broken] = True
        wide, labels, warnings = training_series(
            panel, unusual, config.blocks, config.n_factors, config.factor_lags
        )
        weights = aggregation_weights(panel, labels)
        visible = np.where(hidden[:, None], np.nan, wide)
        # units, means and the start are those of usual periods
        usual = np.where(unusual[:, None], np.nan, wide)
        location, scale = np.nanmean(usual, axis=0), np.nanstd(usual, axis=0)
        values, usual = (visible - location) / scale, (usual - location) / scale
        structure = model_structure(
            labels, config.blocks, config.n_factors, autoregressive=config.autoregressive
        )
        pattern = observation_pattern(
            values,
            autoregressive=config.autoregressive,
            lags=config.factor_lags,
            weights=weights,
            broken=broken,
        )
        start = start_parameters(usual, weights, structure, config.factor_lags)
        start = replace(start, scale=start_scales(values[broken]))
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
            broken=panel.times[broken],
            shock_scale=found.scale,
            training=History(panel.times, wide),
        )
        said = tuple(
            f"shocks of {time} are estimated to be {size:.1f} times as large as usual"
            for time, size in zip(estimates.broken, estimates.shock_scale, strict=True)
        )
        remarks = (*warnings, *remarks, *aside, *said)
        return estimates, summarise_fit(fit, structure, values, scale, labels, remarks)

    def _extract(self, panel: Panel, estimates: DFMEstimates) -> LatentFactorState:
        return filtered_state(
            panel,
            estimates,
            self.config.factor_names,
            self.fitted.span,
            type(self).__name__,
            autoregressive=self.config.autoregressive,
        )

    def _smooth(self, panel: Panel, estimates: DFMEstimates) -> LatentFactorState:
        return smoothed_state(
            panel,
            estimates,
            self.config.factor_names,
            self.fitted.span,
            type(self).__name__,
            autoregressive=self.config.autoregressive,
        )

    def _conditional(self, panel: Panel, estimates: DFMEstimates, cells: Sequence[Cell]) -> ConditionalLaw:
        return linear_conditional(
            panel, estimates, cells, type(self).__name__, autoregressive=self.config.autoregressive
        )

    def _expected_values(self, panel: Panel, estimates: DFMEstimates) -> FloatArray:
        return linear_expected_values(
            panel, estimates, type(self).__name__, autoregressive=self.config.autoregressive
        )
