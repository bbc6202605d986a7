"""Conditional autoencoder: loadings a neural network of characteristics, factors linear in portfolios.

Model            r_(p,i) = beta(z_(p,i))'f_p + e_(p,i)     z (L,) known before p, beta(z) (K,), f_p (K,)
                 beta: [Linear, BatchNorm, ReLU] x hidden layers, then Linear(K): CA0 none, CA1 (32,),
                 CA2 (32, 16), CA3 (32, 16, 8)
                 f_p = W'x_p, x_p = (Z_p'Z_p)^+ Z_p'r_p the managed portfolios, or given portfolios
Identification   pooled beta'beta/rows = I_K over observed training rows; F'F/T diagonal, descending;
                 mean(f_k) >= 0
Estimation       mean squared error over observed rows plus an L1 penalty on all weights, Adam, early
                 stopping; members of an ensemble are aligned (`neural.alignment`), then averaged; those
                 whose loadings collapsed (rank below K) are left out, and the fit says so
Factors          least squares of r_p on the loadings (`factors="projection"`) or the factor network; the
                 ex-ante forecast always goes through a forecaster
Cost             an epoch is O(R (L h_1 + h_1 h_2 + ...)) a member, R the observed rows
References       Gu, Kelly & Xiu (2021), Journal of Econometrics 222(1), 429-450, eqs. (7)-(11), section 2.4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.derive import observed_columns
from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
)
from latentfactors.estimator import Checkpoints, check_number, freeze
from latentfactors.kernels import sufficient
from latentfactors.kernels.static import factor_names
from latentfactors.model import input_unit_state
from latentfactors.neural import TrainingConfig, require_deep
from latentfactors.neural.alignment import principal_turn
from latentfactors.neural.ensemble import remembered
from latentfactors.neural.members import Members
from latentfactors.neural.network_model import NetworkModel
from latentfactors.neural.perceptron import fresh_members
from latentfactors.neural.rows import (
    FlatRows,
    fit_metrics,
    flat_rows,
    input_sums,
    managed_portfolios,
    residual_variance,
    row_digest,
)
from latentfactors.neural.snapshots import Snapshot, TrainingState
from latentfactors.panel import Panel
from latentfactors.results import FactorWeights
from latentfactors.state import ConditionalLoadings, Factors, FitSummary, LatentFactorState
from latentfactors.validate import check_whole, count

__all__ = ["ARCHITECTURES", "CAEConfig", "CAEEstimates", "CAEModel"]

FloatArray = npt.NDArray[np.float64]
Architecture = Literal["CA0", "CA1", "CA2", "CA3"]
ARCHITECTURES: Mapping[str, tuple[int, ...]] = {"CA0": (), "CA1": (32,), "CA2": (32, 16), "CA3": (32, 16, 8)}
"""Hidden layers of the loading network by the paper's names."""


@dataclass(frozen=True, kw_only=True)
class CAEConfig:
    """Loadings nonlinear in characteristics. Where linear ones do, IPCA: faster, and no seeds.

    Parameters
    ----------
    n_factors
        K latent factors, at most the number of portfolios the factor network sees.
    architecture
        "CA0" to "CA3", or the units of each hidden layer.
    batch_norm
        Normalise every hidden layer over the batch.
    l1_penalty
        Weight >= 0 of the sum of absolute weights, in a loss whose values have a mean square of 1.
    factors
        Realised factors: "projection" of returns on loadings, or the factor "network".
    inputs
        Names of `panel.observed_factors` that the factor network takes; none: managed portfolios.
    intercept
        Append a constant to Z_p, so that an equal-weighted portfolio is among the managed ones.
    min_observed
        Observed assets a period needs to take part and to have factors. None: 2K, or the largest
        cross-section if that is smaller.
    training
        Epochs, batches, validation, ensemble: `TrainingConfig`.

    Raises
    ------
    ConfigurationError
        Values outside these ranges.
    """

    n_factors: int
    architecture: Architecture | tuple[int, ...] = "CA2"
    batch_norm: bool = True
    l1_penalty: float = 1e-4
    factors: Literal["projection", "network"] = "projection"
    inputs: tuple[str, ...] = ()
    intercept: bool = True
    min_observed: int | None = None
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(n_ensemble=10))

    def __post_init__(self) -> None:
        check_whole(self, n_factors=1)
        named = isinstance(self.architecture, str)
        if named and self.architecture not in get_args(Architecture):
            raise ConfigurationError(
                f"architecture must be one of {get_args(Architecture)} or a tuple of units, got "
                f"{self.architecture!r}"
            )
        if not named:
            object.__setattr__(self, "architecture", tuple(self.architecture))
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in self.hidden_units):
            raise ConfigurationError(f"hidden layers need at least one unit each, got {self.architecture!r}")
        object.__setattr__(self, "l1_penalty", check_number("l1_penalty", self.l1_penalty))
        if self.factors not in ("projection", "network"):
            raise ConfigurationError(f"factors must be 'projection' or 'network', got {self.factors!r}")
        if isinstance(self.inputs, str) or len(set(self.inputs)) < len(self.inputs):
            raise ConfigurationError(f"inputs must be different names in a tuple, got {self.inputs!r}")
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if self.min_observed is not None and self.min_observed < self.n_factors:
            raise ConfigurationError(
                f"min_observed={self.min_observed} cannot identify {self.n_factors} factors: raise it"
            )
        if not isinstance(self.training, TrainingConfig):
            raise ConfigurationError(f"training must be a TrainingConfig, got {self.training!r}")

    @property
    def hidden_units(self) -> tuple[int, ...]:
        """Units of every hidden layer."""
        if isinstance(self.architecture, str):
            return ARCHITECTURES[self.architecture]
        return self.architecture

    @property
    def default_checkpoint(self) -> int | str:
        """The checkpoint that counts when none is named."""
        return self.training.default_checkpoint


@dataclass(frozen=True, eq=False, kw_only=True)
class CAEEstimates:
    """What `fit` found, at one checkpoint.

    Attributes
    ----------
    members : the trained networks, see `neural.members`
    factors : (T, K) in training, NaN where not identified
    times : (T,) training periods
    residual_variance : pooled over rows, squared input units, degrees of freedom of the factors taken off
    min_observed : observed assets a period needs
    training : what `resume` needs, at the last checkpoint only
    """

    members: Members
    factors: FloatArray
    times: npt.NDArray[Any]
    residual_variance: float
    min_observed: int
    training: TrainingState | None = None

    def __post_init__(self) -> None:
        freeze(self)


class CAEModel(NetworkModel[CAEConfig, CAEEstimates]):
    """Conditional autoencoder (Gu, Kelly & Xiu).

    Parameters
    ----------
    config
        `CAEConfig`.

    Examples
    --------
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=60, n_assets=40, n_factors=2, seed=1).panel
    >>> training = TrainingConfig(epochs=5, validation=12, default_checkpoint="best")
    >>> model = CAEModel(CAEConfig(n_factors=2, architecture="CA1", training=training))
    >>> summary = model.fit(panel.between(0, 48))
    >>> model.available_checkpoints, summary.checkpoint
    (('best', 5), 'best')
    >>> model.extract(panel).factor_returns.shape
    (60, 2)
    """

    # ---------------------------------------------------------------- the contract

    def _extract(self, panel: Panel, estimates: CAEEstimates) -> LatentFactorState:
        loadings, factors = self._read(panel, estimates.members, estimates.min_observed)
        return input_unit_state(
            panel,
            Factors(values=factors, names=factor_names(self.config.n_factors)),
            ConditionalLoadings(loadings, panel.index),
            np.full(panel.n_rows, estimates.residual_variance),
            alpha=None,
            n_without=0,
            fit_span=self.fitted.span,
        )

    def _factor_weights(self, panel: Panel, estimates: CAEEstimates) -> FactorWeights:
        if self.config.factors != "projection":
            raise MissingCapabilityError("factor portfolios exist for factors='projection' only")
        assert panel.characteristics is not None
        with threadpool_limits(limits=1, user_api="blas"):
            loadings = estimates.members.loadings(panel.characteristics, panel.offsets)
            weights = sufficient.portfolio_weights(
                loadings, panel.offsets, min_observed=estimates.min_observed
            )
        names = factor_names(self.config.n_factors)
        return FactorWeights(weights=weights, index=panel.index, factor_names=names)

    # ---------------------------------------------------------------- training

    def _train(
        self,
        panel: Panel,
        validation: Panel | None = None,
        former: Checkpoints[CAEEstimates] | None = None,
    ) -> tuple[Checkpoints[CAEEstimates], FitSummary]:
        require_deep(type(self).__name__)
        from latentfactors.neural import batches, policy
        from latentfactors.neural.conditional import ConditionalAutoencoder

        config = self.config.training
        held_out = config.validation_periods(panel.n_periods, given=validation is not None)
        data = self._rows(panel.between(0, panel.n_periods - held_out))
        if validation is None and held_out:
            validation = panel.between(panel.n_periods - held_out, panel.n_periods)
        checked = None if validation is None else self._rows(validation, like=data)
        digest = row_digest(data, checked)
        state, kept = self._former(former, digest)
        with policy.device_scope(config):
            by_period = config.batch_unit == "periods"
            cut = batches.period_batches if by_period else batches.row_batches
            periods = {"x": data.x}
            if by_period and self.config.batch_norm and self.config.hidden_units:
                periods |= input_sums(data, config.batch)
            rows, n_steps = cut({"z": data.z, "r": data.r}, periods, data.offsets, config.batch)
            trained = policy.fit_members(
                ConditionalAutoencoder(self.config.l1_penalty, self.config.factors == "projection"),
                self._start(data),
                rows,
                n_steps,
                data.offsets.size - 1 if by_period else len(data.r),
                config,
                validation=None
                if checked is None
                else policy.Validation(
                    *batches.period_batches(
                        {"z": checked.z, "r": checked.r}, {"x": checked.x}, checked.offsets, config.batch
                    )
                ),
                resume=state,
                kept=kept,
                digest=digest,
            )
        return self._summarised(
            trained,
            lambda snapshot, state: self._identified(panel, data, snapshot, state),
            objective_name="mean squared error of scaled values + L1, mean over members",
        )

    def _start(self, data: FlatRows) -> Snapshot:
        """Initial weights: member m's depend on the seed and on m only."""
        config, training = self.config, self.config.training
        sizes = (data.z.shape[1], *config.hidden_units, config.n_factors)
        parameters, layers = fresh_members(
            sizes, data.x.shape[1], config.batch_norm, training.n_ensemble, training.seed
        )
        return Snapshot(parameters=parameters, layers=layers)

    # ---------------------------------------------------------------- reading a panel

    def _rows(self, panel: Panel, like: FlatRows | None = None) -> FlatRows:
        """Observed rows of usable periods, standardised as in training."""
        config, k = self.config, self.config.n_factors
        inputs = self.factor_inputs(panel, gaps=False)
        if k > inputs.shape[1]:
            raise ConfigurationError(
                f"n_factors={k} exceeds the {count(inputs.shape[1], 'portfolio')} that the factor network "
                "sees: ask for fewer factors or give more characteristics"
            )
        rows = flat_rows(panel, inputs, n_factors=k, min_observed=config.min_observed, like=like)
        needed = 1 if like is not None else max(2, k)
        if rows.offsets.size - 1 < needed:
            what = "validation" if like is not None else "training"
            raise InsufficientDataError(
                f"{what} needs {count(needed, 'period')} with {rows.min_observed} observed assets, got "
                f"{rows.offsets.size - 1} of {panel.n_periods}: give a longer or fuller panel"
            )
        return rows

    def factor_inputs(self, panel: Panel, *, gaps: bool = True) -> FloatArray:
        """(T, Q) what the factor network sees, in input units."""
        given = observed_columns(panel, self.config.inputs, gaps=gaps)
        if given is not None:
            return given
        self._check_characteristics(panel)
        assert panel.characteristics is not None
        statistics = sufficient.period_statistics(
            panel.values, panel.characteristics, panel.offsets, constant=self.config.intercept
        )
        return managed_portfolios(statistics)

    def _read(self, panel: Panel, members: Members, min_observed: int) -> tuple[FloatArray, FloatArray]:
        """(R, K) loadings and (T, K) realised factors."""
        assert panel.characteristics is not None
        with threadpool_limits(limits=1, user_api="blas"):
            loadings = members.loadings(panel.characteristics, panel.offsets)
            return loadings, self._factors(panel, members, loadings, min_observed)

    def _factors(self, panel: Panel, members: Members, loadings: FloatArray, min_observed: int) -> FloatArray:
        factors = sufficient.conditional_factors(
            loadings, panel.values, panel.offsets, min_observed=min_observed
        )
        if self.config.factors == "network":
            found = members.network_factors(self.factor_inputs(panel, gaps=True))
            factors = np.where(np.isfinite(factors), found, np.nan)
        return factors

    # ---------------------------------------------------------------- from training to estimates

    def _identified(
        self, panel: Panel, data: FlatRows, snapshot: Snapshot, state: TrainingState | None
    ) -> tuple[CAEEstimates, dict[str, float]]:
        """Members aligned, loadings normalised, factors principal: everything rotated together."""
        assert panel.characteristics is not None
        k, n_members = self.config.n_factors, self.config.training.n_ensemble
        raw = Members(
            parameters=snapshot.parameters,
            layers=snapshot.layers,
            maps=np.stack([np.eye(k)] * n_members),
            centre=data.centre,
            spread=data.spread,
            scale=data.scale,
            input_scale=data.input_scale,
        )
        with threadpool_limits(limits=1, user_api="blas"):
            own = remembered(raw.own(panel.characteristics), n_members, panel.n_rows, k)
            aligned = raw.aligned(own, panel.offsets, panel.observed)
            loadings = aligned.common_loadings(own, panel.offsets)
            factors = self._factors(panel, aligned, loadings, data.min_observed)
            turn = principal_turn(loadings[panel.observed], factors)
        loadings, factors = loadings @ turn, factors @ np.linalg.inv(turn).T
        estimates = CAEEstimates(
            members=replace(aligned, maps=aligned.maps @ turn),
            factors=factors,
            times=panel.times,
            residual_variance=residual_variance(panel, loadings, factors),
            min_observed=data.min_observed,
            training=state,
        )
        return estimates, fit_metrics(panel, loadings, factors)
