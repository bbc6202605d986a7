"""Factors that are observed: time-series regressions of every asset on known factor returns.

Model            r_ti = alpha_i + beta_i'f_t + e_ti        f_t (K,) from `panel.observed_factors`
Identification   nothing is latent: factors are what they are called, in their own units and order; betas are
                 unique where the factors are not collinear, and NaN where they are
Estimation       per asset, over the periods with its value and all K factors, by sums taken in one pass:
                 static: least squares over the training sample;
                 `window`: row p from periods p - window .. p - 1;
                 `half_life`: row p from all periods <= p - 1, weights 2^(-age / half_life)
Rows             rolling and weighted betas of row p use what was known at its origin p - 1. They continue the
                 training history (see `latentfactors.history`), so these two models are sequential
Cost             static O(T N K^2); rolling O(T N window K^2); weighted O(T N K^2 + T N K^3)
References       Jensen (1968), JF 23(2); Fama & French (1993), JFE 33(1), 3-56; Fama & French (2015), JFE
                 116(1), 1-22; Carhart (1997), JF 52(1); Fama & MacBeth (1973), JPE 81(3) (rolling betas)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, PanelMismatchError
from latentfactors.estimator import freeze
from latentfactors.history import continues
from latentfactors.kernels.regression import (
    Design,
    RegressionSums,
    fitted_values,
    rolling_regressions,
    solve_regressions,
    weighted_regressions,
)
from latentfactors.kernels.scores import r_squared
from latentfactors.kernels.static import by_asset
from latentfactors.model import LatentFactorModel, known_assets
from latentfactors.panel import Panel
from latentfactors.state import (
    ConditionalLoadings,
    Factors,
    FitSummary,
    LatentFactorState,
    Measurement,
    StaticLoadings,
)
from latentfactors.validate import count

__all__ = ["ObservedFactorConfig", "ObservedFactorEstimates", "ObservedFactorModel"]

FloatArray = npt.NDArray[np.float64]

_COLLINEAR = 1e-6


@dataclass(frozen=True, kw_only=True)
class ObservedFactorConfig:
    """CAPM, Fama-French, Carhart and any other model whose factors are data. Unknown factors: PCA, RP-PCA.

    Parameters
    ----------
    factors
        Names of columns of `panel.observed_factors`, in the order wanted.
    alpha
        Estimate an intercept for each asset. It is the mean that the factors leave unexplained: adding it to
        a forecast with expanding-mean premia gives back the asset's own historical mean, so use
        `BetaLambdaMapper(include_alpha=False)` to forecast by the factors alone.
    window
        Periods that a row's betas look back. None: no window.
    half_life
        Periods after which an observation counts half, > 0. None: equal weights. With neither, betas are
        static.
    min_observations
        Observations (value and all factors known) an asset needs for betas, more than its coefficients.
        None: twice the number of coefficients, 2K + 2 with alpha, but no more than the window.

    Raises
    ------
    ConfigurationError
        No or repeated names, window and half-life together, or numbers outside their ranges.
    """

    factors: tuple[str, ...]
    alpha: bool = True
    window: int | None = None
    half_life: float | None = None
    min_observations: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.factors, str):
            raise ConfigurationError(f"factors must be a tuple of names, got the text {self.factors!r}")
        names = tuple(str(name) for name in self.factors)
        object.__setattr__(self, "factors", names)
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(f"factors must be at least one name, each once, got {names}")
        if self.window is not None and self.half_life is not None:
            raise ConfigurationError(
                f"window={self.window} and half_life={self.half_life} are two ways to forget: give one"
            )
        for name, number in (("window", self.window), ("min_observations", self.min_observations)):
            whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if number is not None and (not whole or number <= self.n_coefficients):
                raise ConfigurationError(
                    f"{name} must be a whole number above the {count(self.n_coefficients, 'coefficient')} of "
                    f"a regression, got {number!r}"
                )
        if self.window is not None and self.needed > self.window:
            raise ConfigurationError(
                f"min_observations={self.min_observations} never fit into window={self.window}"
            )
        if self.half_life is not None:
            self._check_half_life(self.half_life)

    def _check_half_life(self, half_life: float) -> None:
        if not 0 < half_life < np.inf:
            raise ConfigurationError(f"half_life must be positive and finite, got {half_life!r}")
        decay = 2.0 ** (-1.0 / half_life)
        effective = (1.0 + decay) / (1.0 - decay)
        if effective <= self.n_coefficients:
            raise ConfigurationError(
                f"half_life={half_life} is worth {effective:.1f} equally weighted observations, no more than "
                f"the {count(self.n_coefficients, 'coefficient')} of a regression: give a longer one"
            )

    @property
    def n_coefficients(self) -> int:
        """Coefficients of a regression: K, and the intercept if there is one."""
        return len(self.factors) + bool(self.alpha)

    @property
    def needed(self) -> int:
        """Observations an asset needs."""
        if self.min_observations is not None:
            return int(self.min_observations)
        default = 2 * self.n_coefficients
        return default if self.window is None else min(default, int(self.window))


@dataclass(frozen=True, eq=False, kw_only=True)
class ObservedFactorEstimates:
    """What `fit` found. Betas are those of training or, if they move, those right after it.

    Attributes
    ----------
    assets : (N,) labels that the rows below belong to
    loadings : (N, K) betas, NaN where not identified
    alpha : (N,) intercepts, zeros if none were asked for, NaN without betas
    residual_variance : (N,) in squared input units, NaN without betas
    pooled_residual_variance : for assets without betas, new ones included
    design : centre and unit of the factors in the regressions' arithmetic
    sums : the sums behind these betas, from which weighted betas go on
    first, last : training span
    tail_values, tail_factors : (W, N) and (W, K), the last `window` training periods; empty without a window
    """

    assets: npt.NDArray[np.generic]
    loadings: FloatArray
    alpha: FloatArray
    residual_variance: FloatArray
    pooled_residual_variance: float
    design: Design
    sums: RegressionSums
    first: Any
    last: Any
    tail_values: FloatArray
    tail_factors: FloatArray

    def __post_init__(self) -> None:
        for record in (self, self.design, self.sums):
            freeze(record)


class ObservedFactorModel(LatentFactorModel[ObservedFactorConfig, ObservedFactorEstimates]):
    """Betas and alphas on observed factors: static, rolling or exponentially weighted.

    Realised factors are the observed ones, NaN where the panel has none. Identification needs no convention:
    factors keep their names, units and order.

    Parameters
    ----------
    config
        `ObservedFactorConfig`.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from latentfactors.simulate import static_panel
    >>> truth = static_panel(n_periods=120, n_assets=20, n_factors=2, seed=1)
    >>> panel = replace(truth.panel, observed_factors=truth.factors, observed_factor_names=("Mkt-RF", "HML"))
    >>> model = ObservedFactorModel(ObservedFactorConfig(factors=("Mkt-RF", "HML")))
    >>> _ = model.fit(panel)
    >>> bool(np.abs(model.estimates.loadings - truth.loadings).max() < 0.25)
    True
    >>> rolling = ObservedFactorModel(ObservedFactorConfig(factors=("Mkt-RF", "HML"), window=60))
    >>> _ = rolling.fit(panel)
    >>> rolling.extract(panel).asset_betas.shape
    (120, 20, 2)
    """

    sees = "observed factors"

    @property
    def sequential(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether betas depend on earlier periods."""
        return self.config.window is not None or self.config.half_life is not None

    def _estimate(self, panel: Panel) -> tuple[ObservedFactorEstimates, FitSummary]:
        config, active = self.config, panel.active_assets
        factors, values = factor_columns(panel, config), panel.wide()[:, active]
        design = Design.of(factors, config.alpha)
        rows = design.rows(factors)
        check_factors(factors, design, config)
        sums = sums_after(values, rows, config)
        alpha, loadings, variance = solve_regressions(sums, design, config.needed)
        tail = max(0, len(values) - config.window) if config.window else len(values)
        estimates = ObservedFactorEstimates(
            assets=panel.assets[active],
            loadings=loadings,
            alpha=alpha,
            residual_variance=variance,
            pooled_residual_variance=pooled_variance(values, rows, design, config),
            design=design,
            sums=sums,
            first=panel.times[0],
            last=panel.times[-1],
            tail_values=values[tail:].copy(),
            tail_factors=factors[tail:].copy(),
        )
        row_alpha, row_loadings, _ = self._regressions(panel, factors, estimates)
        fitted = fitted_values(row_alpha, row_loadings, factors[panel.index.period_codes])
        n_gaps = int((~np.isfinite(factors).all(axis=1)).sum())
        return estimates, FitSummary(
            metrics={"total_r2": r_squared(panel.values, fitted)},
            warnings=remarks(int(np.isnan(alpha).sum()), n_gaps, config),
        )

    def _extract(self, panel: Panel, estimates: ObservedFactorEstimates) -> LatentFactorState:
        index, n_realised = panel.index, panel.n_realised
        factors = factor_columns(panel, self.config)
        if self.sequential:
            alpha, rows, variance = self._regressions(panel, factors, estimates)
            loadings = ConditionalLoadings(rows, index)
        else:
            known = known_assets(index, estimates.assets, "ObservedFactorModel")
            alpha, rows, variance = self._regressions(panel, factors, estimates)
            loadings = StaticLoadings(by_asset(estimates.loadings, known), index)
        found = np.isfinite(rows).all(axis=1)
        with_betas = np.bincount(index.asset_codes, weights=found, minlength=index.n_assets) > 0
        return LatentFactorState(
            index=index,
            factors=Factors(values=factors, names=self.config.factors),
            measurement=Measurement(
                loadings=loadings,
                location=np.zeros(index.n_assets),
                scale=np.ones(index.n_assets),
                residual_variance=np.where(found, variance, estimates.pooled_residual_variance),
                alpha=alpha if self.config.alpha else None,
            ),
            n_realised=n_realised,
            fit_span=self.fitted.span,
            metadata={
                "n_assets_without_loadings": int((panel.active_assets & ~with_betas).sum()),
                "n_rows_without_loadings": int((~found).sum()),
                "n_periods_without_factors": int(np.isnan(factors[:n_realised]).any(axis=1).sum()),
            },
        )

    def _regressions(
        self, panel: Panel, factors: FloatArray, estimates: ObservedFactorEstimates
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Alpha (R,), betas (R, K) and residual variance (R,) of every row."""
        config, index, design = self.config, panel.index, estimates.design
        known = index.match_assets(estimates.assets)
        if not self.sequential:
            of_row = known[index.asset_codes]
            parts = (estimates.alpha, estimates.loadings, estimates.residual_variance)
            alpha, loadings, variance = (by_asset(part, of_row) for part in parts)
            return alpha, loadings, variance
        values, rows = panel.wide(), design.rows(factors)
        goes_on = continues(estimates.first, estimates.last, index, "ObservedFactorModel")
        if config.half_life is not None:
            past = estimates.sums.take(known if goes_on else np.full(index.n_assets, -1))
            return weighted_regressions(values, rows, index, design, config.half_life, config.needed, past)
        assert config.window is not None
        n_before = 0
        if goes_on:
            n_before = len(estimates.tail_values)
            values = np.concatenate([by_asset(estimates.tail_values.T, known).T, values])
            rows = np.concatenate([design.rows(estimates.tail_factors), rows])
        return rolling_regressions(values, rows, index, design, config.window, config.needed, n_before)


# ------------------------------------------------------------------------------------ the mathematics


def factor_columns(panel: Panel, config: ObservedFactorConfig) -> FloatArray:
    """(T, K) observed factors in the order of the config.

    Raises
    ------
    PanelMismatchError
        No observed factors in the panel, or not all of those wanted.
    """
    names = panel.observed_factor_names
    missing = [name for name in config.factors if name not in names]
    if panel.observed_factors is None or missing:
        has = f"it has {names}" if names else "it has none: panel.with_observed_factors(frame) adds them"
        raise PanelMismatchError(
            f"ObservedFactorModel needs the observed factors {config.factors}, the panel lacks "
            f"{tuple(missing)}: {has}"
        )
    return panel.observed_factors[:, [names.index(name) for name in config.factors]]


def check_factors(factors: FloatArray, design: Design, config: ObservedFactorConfig) -> None:
    """Refuse training factors that no regression can tell apart.

    Raises
    ------
    InsufficientDataError
        Fewer periods with all factors than an asset needs observations, or collinear factors.
    """
    n_known = int(np.isfinite(factors).all(axis=1).sum())
    if n_known < config.needed:
        raise InsufficientDataError(
            f"{count(len(config.factors), 'factor')} need {config.needed} periods in which all are known "
            f"(min_observations), got {n_known} of {len(factors)}: ask for fewer factors, or give a longer "
            "panel"
        )
    ratio = design.singular_ratio(factors)
    if ratio < _COLLINEAR:
        constant = " and a constant" if config.alpha else ""
        raise InsufficientDataError(
            f"factors {config.factors}{constant} are collinear in training (singular-value ratio "
            f"{ratio:.1e}, needed {_COLLINEAR:g}): leave one out"
        )


def sums_after(values: FloatArray, rows: FloatArray, config: ObservedFactorConfig) -> RegressionSums:
    """The sums that all of (T, N) values and (T, P) design rows leave behind for the next period."""
    if config.half_life is None:
        start = max(0, len(values) - config.window) if config.window else 0
        return RegressionSums.of(values[start:], rows[start:])
    return RegressionSums.weighted(values, rows, config.half_life)


def pooled_variance(
    values: FloatArray, rows: FloatArray, design: Design, config: ObservedFactorConfig
) -> float:
    """Mean residual variance of the assets' full-sample regressions.

    Raises
    ------
    InsufficientDataError
        When no asset has enough observations.
    """
    variance = solve_regressions(RegressionSums.of(values, rows), design, config.needed)[2]
    if np.isnan(variance).all():
        raise InsufficientDataError(
            f"no asset has the {config.needed} observations (value and all factors known) that betas on "
            f"{count(len(config.factors), 'factor')} need: ask for fewer factors, or give a longer panel"
        )
    return float(np.nanmean(variance))


def remarks(n_without: int, n_gaps: int, config: ObservedFactorConfig) -> tuple[str, ...]:
    """Sentences about assets without betas and periods without factors."""
    said = []
    if n_without:
        said.append(
            f"{count(n_without, 'asset')} with fewer than {config.needed} usable observations, or factors "
            "collinear in them: no betas"
        )
    if n_gaps:
        said.append(f"{count(n_gaps, 'period')} with an unknown factor: not used")
    return tuple(said)
