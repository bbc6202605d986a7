"""Instrumented principal components: loadings that move with characteristics.

Model            r_p = Z_p (Gamma_alpha + Gamma f_p + Gamma_g g_p) + e_p
                 r_p (N_p,)   Z_p (N_p, L) known before p   Gamma (L, K)   f_p (K,) latent
                 Gamma_alpha (L,) if `alpha`   g_p (M,) observed factors and Gamma_g (L, M) if `observed`
Identification   Gamma'Gamma = I_K; F'F/T diagonal, descending; mean(f_k) >= 0; Gamma_alpha and Gamma_g
                 orthogonal to Gamma (what they share with it is the factors' mean, and their part in g)
Estimation       least squares over observed rows through W_p = Z_p'Z_p and x_p = Z_p'r_p: alternating steps,
                 then Newton steps on the same objective (`kernels.ipca`); stops on principal angles
Factors          f_p = (Gamma'W_pGamma)^-1 Gamma'(x_p - W_p(Gamma_alpha + Gamma_g g_p)): one rule for training
                 and new periods
Cost             one pass over the rows, then O(T L^2 K^3) an iteration, independent of N
References       Kelly, Pruitt & Su (2019), JFE 134(3), 501-524: eqs. (6)-(8), alpha in section 2.2, observed
                 factors in section 2.4; Kelly, Pruitt & Su (2020), "Instrumented Principal Component
                 Analysis", working paper (asymptotics)
"""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.derive import observed_columns, periods_after
from latentfactors.errors import ConfigurationError, PanelMismatchError
from latentfactors.estimator import PanelSignature, freeze, one_of
from latentfactors.kernels import ipca as kernel
from latentfactors.kernels import sufficient
from latentfactors.kernels.instrumented_loadings import InstrumentedLoadings
from latentfactors.kernels.instruments import (
    check_instruments,
    fit_metrics,
    fit_summary,
    identify,
    too_few_periods,
)
from latentfactors.kernels.static import factor_names
from latentfactors.kernels.sufficient import PanelStatistics
from latentfactors.model import LatentFactorModel, input_unit_state
from latentfactors.panel import Panel, ValueKind
from latentfactors.periods import Frequency
from latentfactors.results import FactorWeights
from latentfactors.rows import PerPeriod
from latentfactors.state import Factors, FitSpan, FitSummary, LatentFactorState
from latentfactors.validate import check_row_weights, check_whole, count

__all__ = ["IPCAConfig", "IPCAEstimates", "IPCAModel"]

FloatArray = npt.NDArray[np.float64]
Weighting = Literal["rows", "periods", "panel"]


@dataclass(frozen=True, kw_only=True)
class IPCAConfig:
    """Loadings linear in characteristics, for assets that come, go and change. Constant loadings: PCA.

    Parameters
    ----------
    n_factors
        K latent factors, 1 to L.
    alpha
        Also estimate mispricing that is linear in characteristics.
    intercept
        Append a characteristic that is 1 in every row, named "constant" and last.
    observed
        Names of `panel.observed_factors` that get instrumented loadings of their own.
    weighting
        What counts alike: "rows", "periods" (whatever their number of rows), or "panel": rows by
        `panel.weights`, scaled to mean 1 in every period; factors are then weighted as well.
    factor_ridge
        Share >= 0 of the mean diagonal of W_p that is added to it: shrinks a period's coefficients
        Gamma f_p towards zero, in the fit and in `extract`.
    gamma_ridge
        The same with the mean over all periods, in the fit only: thin periods say less about Gamma.
    min_observed
        Observed assets a period needs to take part and to have factors. None: 2K, or the largest
        cross-section if that is smaller.
    tolerance
        Largest sine of the angle between successive spaces of Gamma that counts as standing still.
    max_iterations
        Most steps of a start.
    n_starts
        Further starts are random; the best is kept and the summary says how far they differ.
    seed
        Of the random starts.

    Raises
    ------
    ConfigurationError
        Values outside these ranges.
    """

    n_factors: int
    alpha: bool = False
    intercept: bool = False
    observed: tuple[str, ...] = ()
    weighting: Weighting = "rows"
    factor_ridge: float = 0.0
    gamma_ridge: float = 0.0
    min_observed: int | None = None
    tolerance: float = 1e-8
    max_iterations: int = 500
    n_starts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, n_factors=1, max_iterations=1, n_starts=1, seed=0)
        if isinstance(self.observed, str) or len(set(self.observed)) < len(self.observed):
            raise ConfigurationError(f"observed must be different names in a tuple, got {self.observed!r}")
        object.__setattr__(self, "observed", tuple(self.observed))
        if set(self.observed) & set(factor_names(self.n_factors)):
            raise ConfigurationError(
                f"observed={self.observed} names a latent factor, F1 to F{self.n_factors}"
            )
        one_of("weighting", self.weighting, Weighting)
        for name in ("factor_ridge", "gamma_ridge"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigurationError(f"{name} must be a finite share >= 0, got {getattr(self, name)!r}")
        if self.min_observed is not None and self.min_observed < self.n_factors:
            raise ConfigurationError(
                f"min_observed={self.min_observed} cannot identify {self.n_factors} factors: raise it"
            )
        if not 0 < self.tolerance < 1:
            raise ConfigurationError(f"tolerance must lie in (0, 1), got {self.tolerance!r}")


@dataclass(frozen=True, eq=False, kw_only=True)
class IPCAEstimates:
    """What `fit` found.

    Attributes
    ----------
    characteristic_names : L names of the rows below, "constant" last if there is one
    gamma : (L, K)
    gamma_alpha : (L,), or None unless asked for
    gamma_observed : (L, M), or None without observed factors
    factors : (T, K) in training, NaN where not identified
    observed : (T, M) observed factors in training, or None
    times : (T,) training periods
    factor_mean : (K + M,), latent and then observed, over training
    factor_covariance : (K + M, K + M), divisor T
    residual_variance : pooled over rows, squared input units, degrees of freedom taken off
    min_observed : observed assets a period needs
    statistics : W_p, x_p, r_p'r_p and n_p of every training period, for `update`
    """

    characteristic_names: tuple[str, ...]
    gamma: FloatArray
    gamma_alpha: FloatArray | None
    gamma_observed: FloatArray | None
    factors: FloatArray
    observed: FloatArray | None
    times: npt.NDArray[Any]
    factor_mean: FloatArray
    factor_covariance: FloatArray
    residual_variance: float
    min_observed: int
    statistics: PanelStatistics

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def tangency(self) -> FloatArray:
        """(K + M,) factor portfolio of maximal in-sample Sharpe ratio, absolute weights summing to 1."""
        weights = np.linalg.lstsq(self.factor_covariance, self.factor_mean)[0]
        return weights / np.abs(weights).sum()


class IPCAModel(LatentFactorModel[IPCAConfig, IPCAEstimates]):
    """Instrumented principal components (Kelly, Pruitt & Su).

    Parameters
    ----------
    config
        `IPCAConfig`.

    Examples
    --------
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=120, n_assets=60, n_factors=2, seed=1).panel
    >>> model = IPCAModel(IPCAConfig(n_factors=2))
    >>> summary = model.fit(panel.between(0, 108))
    >>> summary.converged, model.estimates.gamma.shape
    (True, (6, 2))
    >>> model.extract(panel).factor_returns.shape
    (120, 2)
    >>> model.update(panel).converged, model.estimates.factors.shape  # twelve more months
    (True, (120, 2))
    """

    uses_characteristics = True

    def update(self, panel: Panel) -> FitSummary:
        """Add the periods after training and refit from the solution so far.

        Equal to a refit on all periods, at the price of the new ones. Values of training periods are not read
        again: after a revision of the past, `fit`.

        Parameters
        ----------
        panel
            Starts right after the training end, or before it: then only later periods are read.

        Returns
        -------
        FitSummary

        Raises
        ------
        NotFittedError, PanelMismatchError, GapError, InsufficientDataError
            Before `fit`; a panel prepared otherwise; a gap after training; nothing observed after training.
        """
        began = clock.perf_counter()
        self._check_panel(panel)
        fitted, former = self.fitted, self.estimates
        fresh = periods_after(panel.between(0, panel.n_realised), former.times)
        statistics = former.statistics.concatenate(self._statistics(fresh))
        observed = observed_columns(fresh, self.config.observed)
        if observed is not None and former.observed is not None:
            observed = np.concatenate([former.observed, observed])
        times = np.concatenate([former.times, fresh.times])
        found, summary = self._solve(statistics, times, observed, former.characteristic_names, former.gamma)
        return self._keep(found, summary, FitSpan(fitted.span.start, times[-1]), fitted.signature, began)

    def fit_statistics(
        self,
        times: npt.NDArray[Any],
        statistics: PanelStatistics,
        characteristic_names: Sequence[str],
        *,
        frequency: Frequency | None = None,
        value_kind: ValueKind = "excess_return",
    ) -> FitSummary:
        """Fit to statistics collected elsewhere, such as `statistics_from_parquet` reads from a large file.

        They must have been collected with `constant=config.intercept`, and with weights if and only if
        `config.weighting` is "panel". The result is that of `fit` on the panel. Observed factors need
        a panel.
        """
        began, names = clock.perf_counter(), self._names(tuple(characteristic_names))
        if self.config.observed or len(names) != statistics.n_characteristics:
            raise ConfigurationError(
                f"expected statistics of {names} and no observed factors, got statistics of "
                f"{statistics.n_characteristics} characteristics and observed={self.config.observed}"
            )
        found, summary = self._solve(statistics, times, None, names, None)
        span = FitSpan(times[np.flatnonzero(statistics.counts)[0]], times[-1])
        signature = PanelSignature(value_kind, (), tuple(characteristic_names), frequency)
        return self._keep(found, summary, span, signature, began)

    # ---------------------------------------------------------------- the contract

    def _estimate(self, panel: Panel) -> tuple[IPCAEstimates, FitSummary]:
        names = self._names(panel.characteristic_names)
        observed = observed_columns(panel, self.config.observed)
        return self._solve(self._statistics(panel), panel.times, observed, names, None)

    def _extract(self, panel: Panel, estimates: IPCAEstimates) -> LatentFactorState:
        observed = observed_columns(panel, self.config.observed, gaps=True)
        alpha, names = None, (*factor_names(self.config.n_factors), *self.config.observed)
        if estimates.gamma_alpha is not None:
            alpha = self._loadings(panel, estimates.gamma_alpha[:, None]).values[:, 0]
        factors = self._factors(panel, estimates, observed)
        every, columns = factors, estimates.gamma
        if observed is not None and estimates.gamma_observed is not None:
            every = np.hstack([factors, observed])
            columns = np.hstack([columns, estimates.gamma_observed])
        return input_unit_state(
            panel,
            Factors(values=every, names=names),
            self._loadings(panel, columns),
            np.full(panel.n_rows, estimates.residual_variance),
            alpha=alpha,
            n_without=0,
            fit_span=self.fitted.span,
        )

    def _factors(self, panel: Panel, found: IPCAEstimates, observed: FloatArray | None) -> FloatArray:
        """(T, K) from the statistics of every period, from its rows where these are too rounded."""
        known = np.zeros((panel.n_periods, len(found.gamma)))
        if found.gamma_alpha is not None:
            known += found.gamma_alpha
        if observed is not None and found.gamma_observed is not None:
            for given, slopes in zip(observed.T, found.gamma_observed.T, strict=True):
                known += given[:, None] * slopes
        shrink = self._shrink(statistics := self._statistics(panel))
        factors, doubtful = sufficient.projected_factors(
            statistics,
            found.gamma,
            known=known if known.any() else None,
            min_observed=found.min_observed,
            shrink=shrink,
        )
        for p in doubtful.tolist():
            part = panel.between(p, p + 1)
            factors[p] = sufficient.conditional_factors(
                self._loadings(part, found.gamma).values,
                part.values - self._loadings(part, known[p][:, None]).values[:, 0],
                part.offsets,
                min_observed=found.min_observed,
                weights=self._row_weights(part),
                shrink=None if shrink is None else shrink[p : p + 1],
            )[0]
        return factors

    def _factor_weights(self, panel: Panel, estimates: IPCAEstimates) -> FactorWeights:
        """D_pZ_pGamma (Gamma'W_pGamma)^-1 over the whole row set; alpha and observed factors stay in it."""
        everyone = panel.with_values(np.zeros(panel.n_rows))  # the portfolios of the whole row set
        with threadpool_limits(limits=1, user_api="blas"):
            weights = sufficient.portfolio_weights(
                self._loadings(panel, estimates.gamma).values,
                panel.offsets,
                min_observed=estimates.min_observed,
                weights=self._row_weights(everyone),
                shrink=self._shrink(self._statistics(everyone)),
            )
        return FactorWeights(
            weights=weights, index=panel.index, factor_names=factor_names(self.config.n_factors)
        )

    # ---------------------------------------------------------------- reading a panel

    def _names(self, characteristics: tuple[str, ...]) -> tuple[str, ...]:
        names = (*characteristics, "constant") if self.config.intercept else characteristics
        if self.config.n_factors > len(names):
            raise ConfigurationError(
                f"n_factors={self.config.n_factors} exceeds the {count(len(names), 'characteristic')}: "
                "ask for fewer factors or give more characteristics"
            )
        return names

    @property
    def _name_of_statistics(self) -> str:
        """Under which `Panel.shared` keeps them: all that they depend on besides the panel."""
        weighted = " of weighted rows" * (self.config.weighting == "panel")
        return f"moments{weighted}" + " with a constant" * self.config.intercept

    def _shareable(self, panel: Panel) -> dict[str, PerPeriod]:
        try:
            return {self._name_of_statistics: self._statistics(panel)}
        except PanelMismatchError:  # weights that some period lacks: windows without it can still be fitted
            return {}

    def _statistics(self, panel: Panel) -> PanelStatistics:
        found = panel.shared.get(self._name_of_statistics)
        if isinstance(found, PanelStatistics):
            return found
        assert panel.characteristics is not None  # the base class has checked
        return sufficient.period_statistics(
            panel.values,
            panel.characteristics,
            panel.offsets,
            weights=self._row_weights(panel),
            constant=self.config.intercept,
        )

    def _loadings(self, panel: Panel, columns: FloatArray) -> InstrumentedLoadings:
        assert panel.characteristics is not None
        return InstrumentedLoadings(panel.characteristics, columns, panel.index)

    def _shrink(self, statistics: PanelStatistics) -> FloatArray | None:
        """(T,) what `factor_ridge` adds to the diagonal of every period's normal equations."""
        if not self.config.factor_ridge:
            return None
        return self.config.factor_ridge * sufficient.mean_diagonals(statistics.grams)

    def _row_weights(self, panel: Panel) -> FloatArray | None:
        """(R,) weights with mean 1 over a period's observed rows, or None."""
        if self.config.weighting != "panel":
            return None
        if panel.weights is None:
            raise PanelMismatchError("weighting='panel' needs weights, the panel has none: name their column")
        check_row_weights(panel.values, panel.weights, panel.offsets, panel.times)
        return sufficient.scaled_weights(panel.values, panel.weights, panel.offsets)

    # ---------------------------------------------------------------- from statistics to estimates

    def _solve(
        self,
        statistics: PanelStatistics,
        times: npt.NDArray[Any],
        observed: FloatArray | None,
        names: tuple[str, ...],
        start: FloatArray | None,
    ) -> tuple[IPCAEstimates, FitSummary]:
        config = self.config
        min_observed = config.min_observed or min(2 * config.n_factors, int(statistics.counts.max(initial=0)))
        used = statistics.counts >= max(min_observed, 1)
        alpha = np.ones((len(times), int(config.alpha)))
        h = alpha if observed is None else np.hstack([alpha, observed])  # what is given of every period
        with threadpool_limits(limits=1, user_api="blas"):
            remarks = check_instruments(
                statistics.take(used),
                h[used],
                n_factors=config.n_factors,
                min_observed=min_observed,
                names=names,
                given_names=config.observed,
                alpha=config.alpha,
                intercept=config.intercept,
            )
            fit = kernel.fit_instrumented(
                statistics.take(used),
                config.n_factors,
                given=h[used],
                start=start,
                equal_periods=config.weighting == "periods",
                factor_ridge=config.factor_ridge,
                gamma_ridge=config.gamma_ridge,
                tolerance=config.tolerance,
                max_iterations=config.max_iterations,
                n_starts=config.n_starts,
                seed=config.seed,
            )
            gamma, factors = identify(
                fit, statistics, h, factor_ridge=config.factor_ridge, min_observed=min_observed
            )
            realised = np.isfinite(factors).all(axis=1)
            if realised.sum() < config.n_factors:
                raise too_few_periods(config.n_factors, int(realised.sum()), min_observed)
            metrics, variance = fit_metrics(statistics, gamma, fit.delta, factors, h)
        if not used.all():
            thin = count(int((~used).sum()), "period")
            remarks.append(f"{thin} with fewer than {min_observed} observed assets: no factors")
        everything = factors if observed is None else np.hstack([factors, observed])
        estimates = IPCAEstimates(
            characteristic_names=names,
            gamma=gamma,
            gamma_alpha=fit.delta[:, 0] if config.alpha else None,
            gamma_observed=fit.delta[:, int(config.alpha) :] if config.observed else None,
            factors=factors,
            observed=observed,
            times=times,
            factor_mean=everything[realised].mean(axis=0),
            factor_covariance=np.atleast_2d(np.cov(everything[realised].T, ddof=0)),
            residual_variance=variance,
            min_observed=min_observed,
            statistics=statistics,
        )
        ridge = max(config.factor_ridge, config.gamma_ridge)
        return estimates, fit_summary(fit, metrics, remarks, config.n_starts, ridged=ridge > 0)
