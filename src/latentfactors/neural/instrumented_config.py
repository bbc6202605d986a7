"""What an instrumented factorisation is asked to do; the model is in `models.neurif`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import check_number
from latentfactors.neural.config import TrainingConfig
from latentfactors.neural.instrumented_members import FactorMode
from latentfactors.validate import check_whole

__all__ = ["NeurIFConfig"]

Channel = Literal["conv", "se"]
Spatial = Literal["induced", "full"]
FirmEncoding = Literal["none", "permno_sinusoid", "listing_age"]


def _default_training() -> TrainingConfig:
    return TrainingConfig(
        epochs=100,
        batch=12,
        optimiser="adamw",
        learning_rate=1e-3,
        weight_decay=1e-5,
        gradient_clip=1.0,
        validation=0.2,
        patience=10,
        default_checkpoint="best",
        n_ensemble=5,
    )


@dataclass(frozen=True, kw_only=True)
class NeurIFConfig:
    """Loadings that bend in characteristics and depend on peers, premia that move with the past.

    Where loadings are linear, IPCA with a forecaster: faster, and no seeds. Where loadings bend but peers do
    not matter and premia are constant, the conditional autoencoder.

    Parameters
    ----------
    n_factors
        K latent factors, at most the rank of the characteristics and a constant.
    factor_mode
        Where premia come from. "amortized": attention over the last `window` months' managed portfolios, so
        new months have premia of their own. "embedding": a free embedding per training month that sees all
        training months; its training premia are NaN, later months get their mean. "realized": no temporal
        network, the state has no premia of its own: use a forecaster.
    window
        Months before t that "amortized" premia see, >= 1; a shorter panel has shorter windows.
    width, n_heads
        Width of all layers, an even multiple of the number of attention heads.
    temporal_layers
        Attention layers of the temporal network, >= 0; with 0 premia are a VAR(1) of managed portfolios
        ("amortized"), or constant ("embedding").
    dropout
        In the temporal network, in [0, 1).
    channel
        Gate over characteristics: "conv"olution over neighbouring features, so their order counts and is kept
        in `characteristic_names`; "se" (squeeze and excitation), which has no order; None.
    spatial
        Attention across the period's firms: "induced" through `induced_points`, linear in their number;
        "full"; None.
    induced_points
        m >= 1.
    firm_encoding
        What attention knows of a firm besides its characteristics: "none"; "permno_sinusoid" of a numeric
        label, as in the paper, with which the model may memorise firms; "listing_age", months since a firm's
        first row.
    residual_blocks
        Blocks of the residual stack, >= 0.
    realised_weight
        w in [0, 1] of the error with realised factors; the error with premia has 1 - w. "realized": 1.
    orthogonality
        Weight >= 0 of the mean squared correlation of factors in a batch.
    instruments
        Weight >= 0 of the part of loadings (or factors) that is not linear in the instruments.
    instrument_penalty
        "loadings" against Z Gamma, or realised "factors" against managed portfolios.
    shrinkage
        Weight >= 0 of the mean square of what attention adds to premia, Lambda a, over that of the error with
        premia: attention's part comes out 1 + shrinkage times smaller than the error alone would have it.
    ridge
        rho, as a share of tr(Lambda'M Lambda)/K, >= 0.
    stopping
        Validation R2: "criterion" weighs the errors with realised factors and with premia by w and 1 - w, as
        training does; "premia" takes the latter alone, which is noisy over a few years.
    min_observed
        Observed assets a period needs to take part and to have factors. None: 2K, or the largest
        cross-section if that is smaller.
    training
        Epochs, batches, validation, ensemble. The default: AdamW with 12 months a step, up to 100 epochs,
        patience 10 on the last fifth of the months, 5 members.

    Raises
    ------
    ConfigurationError
        Values outside these ranges.
    """

    n_factors: int
    factor_mode: FactorMode = "amortized"
    window: int = 36
    width: int = 64
    n_heads: int = 4
    temporal_layers: int = 4
    dropout: float = 0.1
    channel: Channel | None = "conv"
    spatial: Spatial | None = "induced"
    induced_points: int = 32
    firm_encoding: FirmEncoding = "none"
    residual_blocks: int = 2
    realised_weight: float = 0.5
    orthogonality: float = 0.01
    instruments: float = 0.01
    instrument_penalty: Literal["loadings", "factors"] = "loadings"
    shrinkage: float = 3.0
    ridge: float = 1e-4
    stopping: Literal["criterion", "premia"] = "criterion"
    min_observed: int | None = None
    training: TrainingConfig = field(default_factory=_default_training)

    def __post_init__(self) -> None:
        check_whole(
            self,
            n_factors=1,
            window=1,
            width=2,
            n_heads=1,
            temporal_layers=0,
            induced_points=1,
            residual_blocks=0,
        )
        choices = {
            "factor_mode": ("amortized", "embedding", "realized"),
            "channel": ("conv", "se", None),
            "spatial": ("induced", "full", None),
            "firm_encoding": ("none", "permno_sinusoid", "listing_age"),
            "instrument_penalty": ("loadings", "factors"),
            "stopping": ("criterion", "premia"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.width % (2 * self.n_heads):
            raise ConfigurationError(
                f"width must be an even multiple of n_heads={self.n_heads}, got {self.width}"
            )
        for name in ("dropout", "realised_weight", "orthogonality", "instruments", "shrinkage", "ridge"):
            object.__setattr__(self, name, check_number(name, getattr(self, name)))
        if self.dropout >= 1.0 or self.realised_weight > 1.0:
            raise ConfigurationError(
                f"dropout must be below 1 and realised_weight at most 1, got {self.dropout:g} and "
                f"{self.realised_weight:g}"
            )
        if self.firm_encoding != "none" and self.spatial is None and self.residual_blocks == 0:
            raise ConfigurationError(
                f"firm_encoding={self.firm_encoding!r} only adds a constant without attention and without a "
                "residual stack: set spatial or residual_blocks"
            )
        if self.min_observed is not None and self.min_observed < self.n_factors:
            raise ConfigurationError(
                f"min_observed={self.min_observed} cannot identify {self.n_factors} factors: raise it"
            )
        if not isinstance(self.training, TrainingConfig) or self.training.batch_unit != "periods":
            raise ConfigurationError(
                f"training must be a TrainingConfig with batch_unit='periods', got {self.training!r}"
            )

    @property
    def default_checkpoint(self) -> int | str:
        """The checkpoint that counts when none is named."""
        return self.training.default_checkpoint
