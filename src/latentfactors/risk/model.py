"""A risk model: for every period the covariance that was known before it.

    Sigma_p = B_p S_p B_p' + D_p     B_p   loadings of period p's rows in input units, scale_i b_i
                                     S_p   from factors of periods <= p - 1
                                     D_p   from residuals of periods <= p - 1,  scale_i^2 d_i

Whether the loadings themselves knew the future is a matter of the fit: a covariance whose origin lies before
the end of the model's training span is marked `in_sample`. Walk the model forward for a record without
hindsight.

Sums over the past are kept, not the past: `update` adds new periods at their own cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, GapError, InsufficientDataError, PanelMismatchError
from latentfactors.estimator import at_least, freeze
from latentfactors.history import continues
from latentfactors.model import realised_factors
from latentfactors.panel import Panel
from latentfactors.risk.covariance import (
    FactorCovariance,
    SampleCovariance,
    SpecificVariance,
    repair_covariance,
    shrunk_variances,
)
from latentfactors.risk.moments import FactorMoments, ResidualMoments
from latentfactors.risk.operator import CovarianceOperator
from latentfactors.risk.portfolios import resolve_families
from latentfactors.risk.rows import above_floor, category_codes, check_same_rows, model_residuals
from latentfactors.state import LatentFactorState

__all__ = ["RiskConfig", "RiskModel", "risk_model"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RiskConfig:
    """How covariances are estimated.

    Parameters
    ----------
    factors
        `SampleCovariance`, `EWMACovariance` or `NeweyWestCovariance`.
    specific
        `SpecificVariance`.
    min_periods
        Periods with factors that the first covariance needs, >= 2.
    """

    factors: FactorCovariance = field(default_factory=SampleCovariance)
    specific: SpecificVariance = field(default_factory=SpecificVariance)
    min_periods: int = 20

    def __post_init__(self) -> None:
        if not isinstance(self.factors, FactorCovariance):
            raise ConfigurationError(
                "factors must be SampleCovariance, EWMACovariance or NeweyWestCovariance, got "
                f"{type(self.factors).__name__}"
            )
        if not isinstance(self.specific, SpecificVariance):
            raise ConfigurationError(
                f"specific must be a SpecificVariance, got {type(self.specific).__name__}"
            )
        at_least("min_periods", self.min_periods, 2)


@dataclass(frozen=True, eq=False, kw_only=True)
class RiskMoments:
    """All that is kept of the periods first..last (None: there were none); `store.save_object` can write it.

    Attributes
    ----------
    config, factor_names : what was summed, and for which factors
    factors, residuals : the sums
    first, last : bounds of the periods with data
    """

    config: RiskConfig
    factor_names: tuple[str, ...]
    factors: tuple[FactorMoments, ...]
    residuals: ResidualMoments
    first: Any = None
    last: Any = None


def risk_model(
    state: LatentFactorState,
    panel: Panel,
    config: RiskConfig | None = None,
    *,
    families: Mapping[str, str] | None = None,
    after: RiskMoments | None = None,
) -> RiskModel:
    """The covariances of a fitted structural model's state.

    Parameters
    ----------
    state
        From any model's `extract`; smoothed states are refused, they know the future.
    panel
        The panel it was extracted from: values for residuals, attributes for groups and issuers.
    config
        Estimators; None: sample covariance, specific variances shrunk to their mean.
    families
        Factor name -> family, where names do not say it as `country=FR` does.
    after
        Sums of the periods before this panel, from `RiskModel.moments`; their config then holds.

    Raises
    ------
    PanelMismatchError
        A panel other than the state's; sums of other factors or another kind of asset labels.
    ConfigurationError
        Smoothed factors, attributes that the panel lacks, a config beside `after`.
    GapError
        A panel that does not start right after the last period of `after`.

    Examples
    --------
    >>> from latentfactors import PCAConfig, PCAModel
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=120, n_assets=8, n_factors=2, seed=1).panel
    >>> model = PCAModel(PCAConfig(n_factors=2))
    >>> _ = model.fit(panel)
    >>> risk = risk_model(model.extract(panel), panel)
    >>> risk
    RiskModel(120 periods 1990-01-31..1999-12-31, 2 factors, covariances from 1991-09-30)
    >>> risk.at("1999-12-31")
    CovarianceOperator(8 assets, 2 factors, 1999-12-31 from data to 1999-11-30)
    """
    if after is not None and config is not None:
        raise ConfigurationError("give config or after, not both: sums go on as they were begun")
    start = _nothing_yet(state, config) if after is None else after
    _check(state, panel, start)
    factors = realised_factors(state)
    residuals, place = start.residuals.covering(state.index.assets)
    return RiskModel(
        state=state,
        panel=panel,
        config=start.config,
        families=resolve_families(state.factors.names, families),
        factors=factors,
        residuals=model_residuals(state, panel, factors),
        start=replace(start, residuals=residuals),
        position=place[state.index.asset_codes],
    )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class RiskModel:
    """Dated covariances; built by `risk_model`.

    Attributes
    ----------
    state, panel, config, families : as given
    factors : (T, K) realised factors, NaN where there are none
    residuals : (R,) in model units, (value - location)/scale - alpha - b'f; NaN without value or model
    start : sums over everything before the first period
    position : (R,) place of every row's asset in `start.residuals`
    """

    state: LatentFactorState
    panel: Panel
    config: RiskConfig
    families: Mapping[str, str]
    factors: FloatArray
    residuals: FloatArray
    start: RiskMoments
    position: IntArray

    def __post_init__(self) -> None:
        freeze(self)

    # ---------------------------------------------------------------- covariances

    @property
    def first(self) -> int:
        """Position of the first period that has a covariance: `min_periods` with factors lie before it.

        T where no period of this panel has one yet.
        """
        known = np.isfinite(self.factors).any(axis=1).astype(np.int64)
        before = self.start.factors[0].n_periods + np.cumsum(known) - known
        return int(np.searchsorted(before, self.config.min_periods)) if known.size else 0

    def at(self, period: Any) -> CovarianceOperator:
        """The covariance of a period's rows from data up to the period before it.

        Parameters
        ----------
        period
            Its end, any day in it where the frequency is known, or an integer time.

        Raises
        ------
        PanelError
            No such period.
        InsufficientDataError
            Too short a past, no row with loadings, or a factor in use that was never seen.
        """
        p = self.state.index.position(period)
        return self._operator(p, self._until(p))

    def latest(self) -> CovarianceOperator:
        """The covariance of the last period's rows from all data: for the period to come."""
        n = self.state.index.n_periods
        if n == 0:
            raise InsufficientDataError("the panel has no period")
        return replace(self._operator(n - 1, self._until(n)), time=None)

    def walk(self, start: Any = None) -> Iterator[CovarianceOperator]:
        """The covariances of all periods from `start` (None: the first possible) on, each added to the last.

        Periods without rows or loadings are left out.
        """
        first = self.first if start is None else self.state.index.position(start)
        for _, _, covariance in self.steps(first):
            yield covariance

    def steps(self, first: int) -> Iterator[tuple[int, IntArray, CovarianceOperator]]:
        """`walk` from a position on, with each period's position and the rows of the covariance's assets."""
        moments = self._until(first)
        for p in range(first, self.state.index.n_periods):
            rows = self._modelled(p)
            if rows.size:
                yield p, rows, self._operator(p, moments)
            moments = self._add(moments, p, p + 1)

    # ---------------------------------------------------------------- new data

    def update(self, state: LatentFactorState, panel: Panel) -> RiskModel:
        """The same risk model moved on to the periods that follow; equal to one of all periods to rounding.

        Parameters
        ----------
        state, panel
            Of the new periods only, from the same fitted model.

        Raises
        ------
        GapError
            A panel that does not start right after this one's last period.
        PanelMismatchError
            Other factors, or other kinds of asset labels.
        """
        return risk_model(state, panel, families=self.families, after=self.moments())

    def moments(self) -> RiskMoments:
        """Sums over all periods with data: what `risk_model(..., after=...)` goes on from."""
        return self._until(self.state.n_realised)

    # ---------------------------------------------------------------- inside

    def _until(self, p: int) -> RiskMoments:
        return self._add(self.start, 0, min(p, self.state.n_realised))

    def _add(self, moments: RiskMoments, a: int, b: int) -> RiskMoments:
        b = min(b, self.state.n_realised)
        if b <= a:
            return moments
        index = self.state.index
        rows = slice(int(index.offsets[a]), int(index.offsets[b]))
        issuers = category_codes(self.panel, self.config.specific.issuer, rows)
        share = self.state.measurement.residual_share
        return replace(
            moments,
            factors=tuple(each.update(self.factors[a:b]) for each in moments.factors),
            residuals=moments.residuals.update(
                self.residuals[rows],
                self.position[rows],
                index.offsets[a : b + 1] - index.offsets[a],
                issuers,
                None if share is None else share[rows],
            ),
            first=index.times[a] if moments.first is None else moments.first,
            last=index.times[b - 1],
        )

    def _modelled(self, p: int) -> IntArray:
        """Rows of period p that have loadings and a unit."""
        index, measurement = self.state.index, self.state.measurement
        rows = np.arange(index.offsets[p], index.offsets[p + 1])
        loadings, scale = measurement.loadings.at(p), measurement.scale[index.asset_codes[rows]]
        return rows[np.isfinite(loadings).all(axis=1) & np.isfinite(scale)]

    def _operator(self, p: int, moments: RiskMoments) -> CovarianceOperator:
        index, measurement, specific = self.state.index, self.state.measurement, self.config.specific
        n_past = moments.factors[0].n_periods
        if n_past < self.config.min_periods:
            raise InsufficientDataError(
                f"the covariance of period {index.times[p]} needs {self.config.min_periods} earlier periods "
                f"with factors, got {n_past}: ask for a later period or lower min_periods"
            )
        rows = self._modelled(p)
        if not rows.size:
            raise InsufficientDataError(f"no row of period {index.times[p]} has loadings")
        codes = index.asset_codes[rows]
        scale = measurement.scale[codes]
        loadings = scale[:, None] * measurement.loadings.at(p)[rows - index.offsets[p]]
        covariance, remark = _factor_covariance(self, moments, loadings, index.times[p])
        position = self.position[rows]
        sums = moments.residuals
        group = category_codes(self.panel, specific.group, rows)
        variance = shrunk_variances(
            sums.squares[position], sums.weights[position], group, specific.prior_observations
        )
        if not sums.weights.any():
            raise InsufficientDataError(
                f"no residual is known before period {index.times[p]}, so specific risk cannot be estimated"
            )
        if not sums.weights[position].any():  # a universe of newcomers: the variance of those before them
            variance = np.full(len(position), sums.squares.sum() / sums.weights.sum())
        variance, floored = above_floor(scale**2 * variance, loadings, covariance, specific.floor)
        rho = specific.issuer_correlation
        remarks = (remark, f"specific variance of {floored} assets raised to the floor" * bool(floored))
        return CovarianceOperator(
            assets=index.assets[codes],
            loadings=loadings,
            factor_covariance=covariance,
            specific_variance=variance,
            factor_names=self.state.factors.names,
            families=self.families,
            issuers=category_codes(self.panel, specific.issuer, rows),
            issuer_correlation=sums.issuer_correlation() if rho is None else rho,
            universe=index.assets,
            time=index.times[p],
            origin=moments.last,
            in_sample=bool(self.state.fit_span.end > moments.last),
            remarks=tuple(each for each in remarks if each),
        )

    def __repr__(self) -> str:
        index = self.state.index
        times, first = index.times, self.first
        span = f"{times[0]}..{times[-1]}" if len(times) else "empty"
        since = f"covariances from {times[first]}" if first < len(times) else "no covariance yet"
        return f"RiskModel({len(times)} periods {span}, {len(self.state.factors.names)} factors, {since})"


def _factor_covariance(
    risk: RiskModel, moments: RiskMoments, loadings: FloatArray, period: Any
) -> tuple[FloatArray, str]:
    """(K, K) and a remark; a factor never seen is no matter where nothing loads on it."""
    raw = risk.config.factors.covariance(moments.factors)
    unseen = ~np.isfinite(np.diagonal(raw))
    used = unseen & (loadings != 0).any(axis=0)
    if used.any():
        names = ", ".join(name for name, each in zip(risk.state.factors.names, used, strict=True) if each)
        raise InsufficientDataError(
            f"factors {names} were not realised often enough before period {period} to have a variance, and "
            "assets load on them: ask for a later period, or merge them in the structural model"
        )
    raw = np.where(unseen[:, None] | unseen, 0.0, raw)
    return repair_covariance(raw)


def _nothing_yet(state: LatentFactorState, config: RiskConfig | None) -> RiskMoments:
    chosen = RiskConfig() if config is None else config
    return RiskMoments(
        config=chosen,
        factor_names=state.factors.names,
        factors=chosen.factors.moments(len(state.factors.names)),
        residuals=ResidualMoments.empty(state.index.assets, decay=chosen.specific.decay),
    )


def _check(state: LatentFactorState, panel: Panel, start: RiskMoments) -> None:
    check_same_rows(state, panel)
    if state.factors.information == "smoothed":
        raise ConfigurationError(
            "smoothed factors know the future: build a risk model from model.extract, not model.smooth"
        )
    for name in (start.config.specific.group, start.config.specific.issuer):
        if name is not None and name not in panel.attributes:
            raise ConfigurationError(
                f"the panel has no attribute {name!r}, it has {tuple(panel.attributes)}: add it with "
                "panel.with_attributes"
            )
    if start.factor_names != state.factors.names:
        raise PanelMismatchError(
            f"the sums so far are of factors {start.factor_names}, got {state.factors.names}: go on with a "
            "state of the same fitted model"
        )
    if start.last is None:
        return
    if start.residuals.assets.dtype.kind != state.index.assets.dtype.kind:
        raise PanelMismatchError("asset labels must stay numbers or stay text when a risk model goes on")
    if not continues(start.first, start.last, state.index, "the risk model"):
        raise GapError(
            f"the sums so far cover {start.first}..{start.last}, the new panel starts at "
            f"{state.index.times[:1]}: give the periods that follow"
        )
