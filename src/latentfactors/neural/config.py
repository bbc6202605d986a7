"""How a neural model is trained: the options that all of them share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.validate import check_whole, count

__all__ = ["OptimiserSpec", "TrainingConfig"]

_CHOICES = {
    "batch_unit": ("periods", "rows"),
    "optimiser": ("adam", "adamw"),
    "schedule": ("constant", "cosine"),
    "ensemble_axis": ("vmap", "map"),
    "device": ("auto", "cpu", "gpu"),
}


@dataclass(frozen=True, kw_only=True)
class OptimiserSpec:
    """What the compiled step needs to know of the optimiser; the learning rate is data."""

    decay: float
    clip: float | None


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Epochs, batches, optimiser, validation, checkpoints and ensemble of a neural model.

    Parameters
    ----------
    epochs
        Passes over the training rows, >= 1.
    batch
        Periods (or rows) of a step, >= 1.
    batch_unit
        "periods": a step sees whole cross-sections; "rows": rows drawn from all periods.
    optimiser
        "adam", or "adamw" with `weight_decay`.
    learning_rate
        Step size > 0.
    schedule
        "constant", or "cosine": from `learning_rate` to 0 over `epochs`, lowered once an epoch.
    weight_decay
        >= 0, adamw only.
    gradient_clip
        Largest norm of a step's gradient, > 0; None: no limit.
    validation
        Last periods of the training panel that are held out: a number of periods (int) or a share in (0, 1);
        0: none.
    patience
        Epochs without a better validation R2 after which a member stops; None: never. Needs validation.
    min_delta
        Gain in validation R2 that counts as better, >= 0.
    checkpoint_interval, checkpoint_epochs
        Epochs whose parameters are kept: every so many, and those named. The last epoch is always kept, and
        with validation every member's best one under the label "best".
    default_checkpoint
        "last", "best", or an epoch that is kept; a member that stopped before it counts with its last.
    seed
        Of initial weights, shuffling and dropout; member m of an ensemble depends on `seed` and m only.
    n_ensemble
        Members, >= 1. They see the same batches and differ in their initial weights.
    ensemble_axis
        "vmap" runs members side by side (a GPU needs it), "map" one after another (least memory).
    device
        "auto" takes JAX's default, "cpu" or "gpu" insist.

    Raises
    ------
    ConfigurationError
        Values outside these ranges.

    Examples
    --------
    >>> TrainingConfig(epochs=50, validation=0.2, patience=5, default_checkpoint="best").batch_unit
    'periods'
    """

    epochs: int = 100
    batch: int = 1
    batch_unit: Literal["periods", "rows"] = "periods"
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    gradient_clip: float | None = None
    validation: int | float = 0
    patience: int | None = None
    min_delta: float = 0.0
    checkpoint_interval: int | None = None
    checkpoint_epochs: tuple[int, ...] = ()
    default_checkpoint: int | str = "last"
    seed: int = 0
    n_ensemble: int = 1
    ensemble_axis: Literal["vmap", "map"] = "vmap"
    device: Literal["auto", "cpu", "gpu"] = "auto"

    def __post_init__(self) -> None:
        check_whole(self, epochs=1, batch=1, seed=0, n_ensemble=1)
        for name in ("patience", "checkpoint_interval"):
            if getattr(self, name) is not None:
                check_whole(self, **{name: 1})
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigurationError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        self._check_numbers()
        if self.weight_decay and self.optimiser != "adamw":
            raise ConfigurationError(f"weight_decay={self.weight_decay!r} needs optimiser='adamw'")
        self._check_validation()
        self._check_checkpoints()

    def _check_numbers(self) -> None:
        for name, positive in (("learning_rate", True), ("weight_decay", False), ("min_delta", False)):
            object.__setattr__(self, name, _number(name, getattr(self, name), positive))
        if self.gradient_clip is not None:
            object.__setattr__(self, "gradient_clip", _number("gradient_clip", self.gradient_clip, True))

    def _check_validation(self) -> None:
        given = self.validation
        whole = isinstance(given, int | np.integer) and not isinstance(given, bool) and given >= 0
        if not whole and not (isinstance(given, float) and 0 <= given < 1):
            raise ConfigurationError(
                f"validation must be a whole number of periods >= 0 or a share in [0, 1), got {given!r}"
            )

    def _check_checkpoints(self) -> None:
        object.__setattr__(self, "checkpoint_epochs", tuple(self.checkpoint_epochs))
        for epoch in self.checkpoint_epochs:
            if isinstance(epoch, bool) or not isinstance(epoch, int) or not 1 <= epoch <= self.epochs:
                raise ConfigurationError(
                    f"checkpoint_epochs must be epochs from 1 to {self.epochs}, got {epoch!r}"
                )
        choice = self.default_checkpoint
        if choice not in ("last", "best") and choice not in self.kept_epochs():
            raise ConfigurationError(
                f"default_checkpoint must be 'last', 'best' or one of the kept epochs {self.kept_epochs()}, "
                f"got {choice!r}: set checkpoint_interval or checkpoint_epochs"
            )

    def kept_epochs(self) -> tuple[int, ...]:
        """Epochs whose parameters are kept, in order; the last one is among them."""
        step = self.checkpoint_interval
        every = range(step, self.epochs + 1, step) if step else ()
        return tuple(sorted({*every, *self.checkpoint_epochs, self.epochs}))

    def validation_periods(self, n_periods: int, *, given: bool = False) -> int:
        """Number of the last of `n_periods` that are held out; `given`: a validation panel comes beside them.

        Raises
        ------
        ConfigurationError
            Early stopping or the default checkpoint "best" without validation.
        InsufficientDataError
            Nothing would be left to train on.
        """
        share = isinstance(self.validation, float)
        n = max(round(self.validation * n_periods), 1) if share and self.validation else int(self.validation)
        if given:
            return 0
        needs = {
            "patience": self.patience is not None,
            "default_checkpoint": self.default_checkpoint == "best",
        }
        if n == 0 and any(needs.values()):
            name = next(name for name, needed in needs.items() if needed)
            raise ConfigurationError(
                f"{name}={getattr(self, name)!r} needs validation periods, got validation=0: set "
                "TrainingConfig(validation=...)"
            )
        if n >= n_periods:
            raise InsufficientDataError(
                f"validation={self.validation!r} takes {count(n, 'period')} of {n_periods}: nothing is left "
                "to train on"
            )
        return n

    def with_validation(self, n_periods: int) -> Self:
        """A copy that validates on the last `n_periods`."""
        return replace(self, validation=n_periods)

    def optimiser_spec(self) -> OptimiserSpec:
        """What the compiled step depends on."""
        return OptimiserSpec(decay=self.weight_decay, clip=self.gradient_clip)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1.0 + float(np.cos(np.pi * (epoch - 1) / self.epochs)))


def _number(name: str, value: Any, positive: bool) -> float:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not 0 <= value < np.inf or (positive and value == 0):
        raise ConfigurationError(
            f"{name} must be a finite number {'> 0' if positive else '>= 0'}, got {value!r}"
        )
    return float(value)
