"""Instrumented factorisation by attention: loadings from characteristics and peers, premia from the past.

Model            r_(t,i) = Lambda_(t,i)'f_t + e_(t,i)        Lambda_(t,i) = W_L h_(t,i) + Gamma'(z_(t,i), 1)
                 h: gates over characteristics, attention over the period's firms, a residual stack
                 f'_t = E[f_t | months before t]: attention over the last `window` months' managed portfolios
                 x_s = Z_s'(M_s o r_s)/n_s (`neural.instrumented` has the formulas)
Factors          f^_t = (Lambda'M Lambda + rho I)^-1 Lambda'M r_t realised, f'_t ex ante
Identification   pooled Lambda'Lambda/rows = I_K over observed training rows; F^'F^/T diagonal, descending;
                 mean(f^_k) >= 0; premia are rotated together with the factors
Estimation       w MSE(r, Lambda f^) + (1 - w) MSE(r, Lambda f') + orthogonality + instrument penalty, AdamW,
                 early stopping; Gamma starts at IPCA's, the network at zero; members of an ensemble are
                 aligned (`neural.alignment`), then averaged, without those whose loadings collapsed; premia
                 are f'_t = c + Phi'f^_(t-1) + a_t, whose VAR(1) is refitted to the identified factors
Limits           a large instrument penalty with w = 1 and no ridge gives IPCA with a constant
Cost             an epoch is O(R (P d + m d + d^2)) a member: R rows, width d, m induced points
References       Uddin (2025), Proceedings of CIKM (structure: temporal, channel and spatial attention,
                 residual stacks, three-part loss); Kelly, Pruitt & Su (2019), JFE 134(3) (the linear limit).
                 The paper's formulas and sizes are not public: those here are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.errors import InsufficientDataError
from latentfactors.estimator import Checkpoints, freeze
from latentfactors.history import History
from latentfactors.kernels import sufficient
from latentfactors.kernels.static import factor_names
from latentfactors.model import input_unit_state
from latentfactors.neural import require_deep
from latentfactors.neural.alignment import principal_turn
from latentfactors.neural.ensemble import remembered
from latentfactors.neural.histories import (
    first_periods,
    joined_past,
    label_positions,
    listing_ages,
    mean_portfolios,
    past_windows,
)
from latentfactors.neural.instrumented_config import NeurIFConfig
from latentfactors.neural.instrumented_members import (
    FactorMode,
    InstrumentedMembers,
    standardised_portfolios,
)
from latentfactors.neural.instrumented_start import LinearStart, NetworkShape, fresh_members, linear_start
from latentfactors.neural.network_model import NetworkModel
from latentfactors.neural.premium_forecasts import PremiumForecasts, autoregression, lagged
from latentfactors.neural.rows import FlatRows, fit_metrics, flat_rows, residual_variance, row_digest
from latentfactors.neural.snapshots import Snapshot, TrainingState
from latentfactors.panel import Panel
from latentfactors.results import FactorWeights
from latentfactors.state import ConditionalLoadings, Factors, FitSummary, LatentFactorState
from latentfactors.validate import count

__all__ = ["NeurIFConfig", "NeurIFEstimates", "NeurIFModel"]

FloatArray = npt.NDArray[np.float64]
SingleArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class NeurIFEstimates:
    """What `fit` found, at one checkpoint.

    Attributes
    ----------
    members : the trained networks, see `neural.instrumented_members`
    factors : (T, K) realised in training, NaN where not identified
    history : managed portfolios and factors (T, L + 1 + K) of the training periods, the past of later ones
    premium, carry : (K,) and (K, K), f'_t = premium + carry'f^_(t-1) + attention's part
    premium_covariance : (K, K) of realised factors around their premia, training
    assets, first_listed : (N,) labels, and the position of the period of their first row
    residual_variance : pooled over rows, squared input units, degrees of freedom of the factors taken off
    min_observed : observed assets a period needs
    training : what `resume` needs, at the last checkpoint only
    """

    members: InstrumentedMembers
    factors: FloatArray
    history: History
    premium: FloatArray
    carry: FloatArray
    premium_covariance: FloatArray
    assets: npt.NDArray[Any]
    first_listed: npt.NDArray[np.int64]
    residual_variance: float
    min_observed: int
    training: TrainingState | None = None

    def __post_init__(self) -> None:
        freeze(self)


class NeurIFModel(NetworkModel[NeurIFConfig, NeurIFEstimates]):
    """Neural instrumented factorisation. Identification: see the module's docstring.

    Parameters
    ----------
    config
        `NeurIFConfig`.

    Examples
    --------
    >>> from latentfactors import TrainingConfig
    >>> from latentfactors.simulate import instrumented_panel
    >>> panel = instrumented_panel(n_periods=48, n_assets=30, n_characteristics=5, seed=1).panel
    >>> training = TrainingConfig(epochs=3, batch=12, validation=8, default_checkpoint="best")
    >>> model = NeurIFModel(
    ...     NeurIFConfig(n_factors=2, width=8, n_heads=2, temporal_layers=1, training=training)
    ... )
    >>> summary = model.fit(panel.between(0, 40))
    >>> state = model.extract(panel)
    >>> state.factor_returns.shape, state.native.factors(1)[0].shape
    ((48, 2), (48, 2))
    """

    sequential = True

    # ---------------------------------------------------------------- the contract

    def _extract(self, panel: Panel, estimates: NeurIFEstimates) -> LatentFactorState:
        config, members, history = self.config, estimates.members, estimates.history
        before, name = 0, type(self).__name__
        if config.factor_mode == "amortized" or config.firm_encoding == "listing_age":
            before = history.prepend(panel.index, np.empty((panel.n_periods, history.values.shape[1])), name)[
                1
            ]
        position = self._positions(panel, before, estimates.assets, estimates.first_listed)
        loadings, factors = self._read(panel, members, position, estimates.min_observed)
        native = None
        if config.factor_mode != "realized":
            past = np.column_stack([mean_portfolios(panel), factors])
            past = np.concatenate([history.values[:before], past])
            premia = _premia(config.factor_mode, members, past, before, estimates.premium, estimates.carry)
            if config.factor_mode == "embedding":  # it saw these months
                premia[np.isin(panel.times, history.times)] = np.nan
            native = PremiumForecasts(
                index=panel.index,
                loadings=loadings,
                premia=premia,
                covariance=estimates.premium_covariance,
                residual_variance=estimates.residual_variance,
            )
        state = input_unit_state(
            panel,
            Factors(values=factors, names=factor_names(config.n_factors)),
            ConditionalLoadings(loadings, panel.index),
            np.full(panel.n_rows, estimates.residual_variance),
            alpha=None,
            n_without=0,
            fit_span=self.fitted.span,
        )
        return replace(state, native=native)

    def _factor_weights(self, panel: Panel, estimates: NeurIFEstimates) -> FactorWeights:
        loadings = self._extract(panel, estimates).measurement.loadings.rows()
        with threadpool_limits(limits=1, user_api="blas"):
            weights = sufficient.portfolio_weights(
                loadings,
                panel.offsets,
                min_observed=estimates.min_observed,
                shrink=sufficient.period_ridges(
                    loadings, np.ones(panel.n_rows, dtype=bool), panel.offsets, self.config.ridge
                ),
            )
        return FactorWeights(
            weights=weights, index=panel.index, factor_names=factor_names(self.config.n_factors)
        )

    # ---------------------------------------------------------------- training

    def _train(
        self,
        panel: Panel,
        validation: Panel | None = None,
        former: Checkpoints[NeurIFEstimates] | None = None,
    ) -> tuple[Checkpoints[NeurIFEstimates], FitSummary]:
        require_deep(type(self).__name__)
        from latentfactors.neural import batches, policy
        from latentfactors.neural.factorisation import InstrumentedFactorisation

        config, settings = self.config.training, self.config
        held_out = config.validation_periods(panel.n_periods, given=validation is not None)
        n_fit = panel.n_periods - held_out
        past = mean_portfolios(panel)
        data = self._rows(panel.between(0, n_fit), past[:n_fit])
        linear = linear_start(data, settings.n_factors)
        fitted = panel.between(0, n_fit)
        parts = [self._material(fitted, data, past[:n_fit], 0, fitted, linear.input_scale)]
        checked = None
        if validation is None and held_out:
            validation = panel.between(n_fit, panel.n_periods)
        if validation is not None:
            later, before = joined_past(fitted, past[:n_fit], validation)
            checked = self._rows(validation, later[before:], like=data)
            parts.append(self._material(validation, checked, later, before, fitted, linear.input_scale))
        digest = row_digest(data, checked)
        state, kept = self._former(former, digest)
        with policy.device_scope(config):
            cut = [batches.period_batches(*part, config.batch) for part in parts]
            trained = policy.fit_members(
                InstrumentedFactorisation(
                    mode=settings.factor_mode,
                    realised_weight=1.0 if settings.factor_mode == "realized" else settings.realised_weight,
                    orthogonality=settings.orthogonality,
                    instruments=settings.instruments,
                    instrument_penalty=settings.instrument_penalty,
                    shrinkage=settings.shrinkage,
                    ridge=settings.ridge,
                    dropout=settings.dropout,
                    stopping=settings.stopping,
                ),
                self._start(linear, data.offsets.size - 1),
                *cut[0],
                data.offsets.size - 1,
                config,
                validation=None if checked is None else policy.Validation(*cut[1]),
                resume=state,
                kept=kept,
                digest=digest,
            )
        return self._summarised(
            trained,
            lambda snapshot, state: self._identified(panel, past, data, linear.input_scale, snapshot, state),
            objective_name="w MSE realised + (1 - w) MSE ex ante + penalties, scaled, mean over members",
            remarks=self._remarks(panel),
        )

    def _remarks(self, panel: Panel) -> tuple[str, ...]:
        config = self.config
        if config.factor_mode == "embedding":
            return ("premia of months after training are the mean of the trained months' premia",)
        if config.factor_mode == "amortized" and panel.n_periods <= config.window:
            return (
                f"the attention window of {config.window} months is never full: the panel has "
                f"{count(panel.n_periods, 'period')}",
            )
        return ()

    def _rows(self, panel: Panel, past: FloatArray, like: FlatRows | None = None) -> FlatRows:
        """All rows of usable periods, standardised as in training."""
        k = self.config.n_factors
        rows = flat_rows(
            panel,
            past,
            n_factors=k,
            min_observed=self.config.min_observed,
            like=like,
            unobserved=True,
        )
        needed = 1 if like is not None else max(2, k)
        if rows.offsets.size - 1 < needed:
            what = "validation" if like is not None else "training"
            raise InsufficientDataError(
                f"{what} needs {count(needed, 'period')} with {rows.min_observed} observed assets, got "
                f"{rows.offsets.size - 1} of {panel.n_periods}: give a longer or fuller panel"
            )
        return rows

    def _material(
        self,
        panel: Panel,
        data: FlatRows,
        past: FloatArray,
        before: int,
        fitted: Panel,
        input_scale: FloatArray,
    ) -> tuple[dict[str, SingleArray], dict[str, SingleArray], npt.NDArray[np.int64]]:
        """What batches carry by row and by period; `past` begins `before` periods ahead of the panel."""
        rows = {"z": data.z, "r": data.r, "seen": data.seen}
        position = self._positions(panel, before, fitted.assets, first_periods(fitted))
        if position is not None:
            rows["position"] = position[data.rows].astype(np.float32)
        scaled = standardised_portfolios(past, data.centre, data.spread, data.scale) / input_scale
        at = before + data.periods
        periods = {"x": scaled[at]}
        if self.config.factor_mode == "amortized":
            windows, known = past_windows(scaled, self.config.window)
            periods |= {"history": windows[at], "known": known[at]}
        elif self.config.factor_mode == "embedding":
            months = np.arange(at.size, dtype=np.float64)
            periods["month"] = months if panel is fitted else np.full(at.size, -1.0)
        return rows, {name: array.astype(np.float32) for name, array in periods.items()}, data.offsets

    def _positions(
        self, panel: Panel, before: int, assets: npt.NDArray[Any], first: npt.NDArray[np.int64]
    ) -> FloatArray | None:
        """(R,) what the firm encoding encodes, or None; `first` is when `assets` had their first rows."""
        if self.config.firm_encoding == "permno_sinusoid":
            return label_positions(panel)
        if self.config.firm_encoding == "listing_age":
            return listing_ages(panel, before, assets, first)
        return None

    def _start(self, linear: LinearStart, months: int) -> Snapshot:
        config, training = self.config, self.config.training
        network = NetworkShape(
            factor_mode=config.factor_mode,
            width=config.width,
            heads=config.n_heads,
            temporal_layers=config.temporal_layers,
            channel=config.channel,
            spatial=config.spatial,
            points=config.induced_points,
            blocks=config.residual_blocks,
            spanned_factors=config.instruments > 0 and config.instrument_penalty == "factors",
        )
        return fresh_members(network, linear, months, training.n_ensemble, training.seed)

    # ---------------------------------------------------------------- reading a panel

    def _read(
        self, panel: Panel, members: InstrumentedMembers, position: FloatArray | None, min_observed: int
    ) -> tuple[FloatArray, FloatArray]:
        """(R, K) loadings and (T, K) realised factors."""
        assert panel.characteristics is not None
        with threadpool_limits(limits=1, user_api="blas"):
            loadings = members.loadings(panel.characteristics, panel.offsets, position)
            return loadings, self._factors(panel, loadings, min_observed)

    def _factors(self, panel: Panel, loadings: FloatArray, min_observed: int) -> FloatArray:
        return sufficient.conditional_factors(
            loadings,
            panel.values,
            panel.offsets,
            min_observed=min_observed,
            shrink=sufficient.period_ridges(loadings, panel.observed, panel.offsets, self.config.ridge),
        )

    def _identified(
        self,
        panel: Panel,
        past: FloatArray,
        data: FlatRows,
        input_scale: FloatArray,
        snapshot: Snapshot,
        state: TrainingState | None,
    ) -> tuple[NeurIFEstimates, dict[str, float]]:
        """Members aligned, loadings normalised, factors principal: everything rotated together."""
        assert panel.characteristics is not None
        k, n_members = self.config.n_factors, self.config.training.n_ensemble
        first = first_periods(panel)
        position = self._positions(panel, 0, panel.assets, first)
        raw = InstrumentedMembers(
            parameters=snapshot.parameters,
            layers=snapshot.layers,
            maps=np.stack([np.eye(k)] * n_members),
            centre=data.centre,
            spread=data.spread,
            scale=data.scale,
            input_scale=input_scale,
            factor_mode=self.config.factor_mode,
            window=self.config.window,
        )
        with threadpool_limits(limits=1, user_api="blas"):
            own = remembered(raw.own(panel.characteristics, position), n_members, panel.n_rows, k)
            aligned = raw.aligned(own, panel.offsets, panel.observed)
            loadings = aligned.common_loadings(own, panel.offsets)
            factors = self._factors(panel, loadings, data.min_observed)
            turn = principal_turn(loadings[panel.observed], factors)
            # the ridge knows lengths: once loadings are white, factors change with rotations only
            white = self._factors(panel, loadings @ turn, data.min_observed)
            turn = turn @ principal_turn((loadings @ turn)[panel.observed], white)
            loadings, members = loadings @ turn, replace(aligned, maps=aligned.maps @ turn)
            factors = self._factors(panel, loadings, data.min_observed)
            joined = np.column_stack([past, factors])
            premium, carry = self._refitted(members, joined, factors)
            premia = _premia(self.config.factor_mode, members, joined, 0, premium, carry)
        surprise = (factors - premia)[np.isfinite(factors).all(axis=1)]
        estimates = NeurIFEstimates(
            members=members,
            factors=factors,
            history=History(panel.times, joined),
            premium=premium,
            carry=carry,
            premium_covariance=surprise.T @ surprise / len(surprise),
            assets=panel.assets,
            first_listed=first,
            residual_variance=residual_variance(panel, loadings, factors),
            min_observed=data.min_observed,
            training=state,
        )
        return estimates, fit_metrics(panel, loadings, factors)

    def _refitted(
        self, members: InstrumentedMembers, past: FloatArray, factors: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """c (K,) and Phi (K, K) for the identified factors, given what attention says."""
        mode, k = self.config.factor_mode, self.config.n_factors
        none = np.zeros((k, k))
        if mode == "embedding":
            return members.mean_premium(), none
        if mode == "realized":
            return np.nanmean(factors, axis=0), none
        rest = factors - members.attention(past[:, :-k], 0)
        return autoregression(rest[1:], factors[:-1], rest)


def _premia(
    mode: FactorMode,
    members: InstrumentedMembers,
    past: FloatArray,
    before: int,
    premium: FloatArray,
    carry: FloatArray,
) -> FloatArray:
    """(T, K) c + Phi'f^_(t-1) + a_t from portfolios and factors (before + T, L + 1 + K)."""
    k = premium.size
    constant = np.tile(premium, (len(past) - before, 1))
    if mode != "amortized":
        return constant
    # a month without factors counts as the VAR's mean, (I - Phi')m = c
    mean = np.asarray(np.linalg.lstsq(np.eye(k) - carry.T, premium)[0], dtype=np.float64)
    former = lagged(past[:, -k:], mean)[before:]
    return constant + (former[:, None, :] @ carry)[:, 0] + members.attention(past[:, :-k], before)
