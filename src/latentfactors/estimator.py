"""Config + estimates: the machinery that everything fitted shares.

    Config       a frozen dataclass: what to do
    Estimates    a frozen dataclass of read-only arrays: what was found, set once at the end of `fit`
    Estimator    owns guards, checkpoint choice, identity, repr, save and load

A subclass writes functions and inherits behaviour; nothing concrete is overridden.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, get_args

import numpy as np

from latentfactors.derive import missing_characteristics
from latentfactors.errors import (
    ConfigurationError,
    HorizonError,
    InsufficientDataError,
    NotFittedError,
    PanelError,
    PanelMismatchError,
)
from latentfactors.panel import Panel
from latentfactors.rows import read_only
from latentfactors.state import FitSpan, FitSummary
from latentfactors.store import class_path, fingerprint, load_object, save_object

__all__ = [
    "Checkpoints",
    "Estimator",
    "Fitted",
    "PanelSignature",
    "at_least",
    "check_horizon",
    "check_number",
    "freeze",
]

ConfigT = TypeVar("ConfigT")
EstimatesT = TypeVar("EstimatesT")
_MISSING_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Checkpoints(Generic[EstimatesT]):
    """Estimates at several moments of training.

    Parameters
    ----------
    by_label
        Label (an epoch) -> estimates, in training order.
    best
        Label of the best validation result, if there was validation.
    """

    by_label: Mapping[int | str, EstimatesT]
    best: int | str | None = None

    def resolve(self, choice: int | str) -> int | str:
        """The label that "last", "best" or a label itself stands for.

        Raises
        ------
        ConfigurationError
            A label that does not exist, or "best" without validation.
        """
        if choice == "last":
            return list(self.by_label)[-1]
        if choice == "best":
            if self.best is None:
                raise ConfigurationError(
                    "checkpoint 'best' needs validation: none was run, use 'last' or a label"
                )
            return self.best
        if choice not in self.by_label:
            raise ConfigurationError(
                f"checkpoint {choice!r} does not exist, available: {list(self.by_label)}"
            )
        return choice


@dataclass(frozen=True)
class PanelSignature:
    """What a later panel has to have in common with the training panel."""

    value_kind: str
    transforms: tuple[str, ...]
    characteristic_names: tuple[str, ...]
    frequency: str | None

    @classmethod
    def of(cls, panel: Panel) -> PanelSignature:
        """The signature of a panel."""
        return cls(panel.value_kind, panel.transforms, panel.characteristic_names, panel.frequency)

    def check(self, panel: Panel, *, characteristics: bool) -> None:
        """Refuse a panel prepared otherwise.

        Raises
        ------
        PanelMismatchError
            Other value kind, preparation, frequency, or (where they are used) characteristics.
        """
        pairs = [
            ("value_kind", self.value_kind, panel.value_kind),
            ("transforms", self.transforms, panel.transforms),
        ]
        if self.frequency is not None and panel.frequency is not None:
            # a short stretch of daily data may look like weekdays, so the two count as one
            daily = {"B": "D"}
            fitted, given = (daily.get(each, each) for each in (self.frequency, panel.frequency))
            pairs.append(("frequency", fitted, given))
        if characteristics:
            pairs.append(("characteristics", self.characteristic_names, panel.characteristic_names))
        for name, expected, got in pairs:
            if expected != got:
                raise PanelMismatchError(
                    f"this was fitted on a panel with {name} {expected!r}, got {got!r}: prepare both alike"
                )


@dataclass(frozen=True, eq=False)
class Fitted(Generic[EstimatesT]):
    """What a fit leaves behind."""

    checkpoints: Checkpoints[EstimatesT]
    default: int | str
    summary: FitSummary
    span: FitSpan
    signature: PanelSignature


class Estimator(Generic[ConfigT, EstimatesT]):
    """Base of models, forecasters and direct predictors.

    Parameters
    ----------
    config
        What to do; validated when it was built.
    """

    uses_characteristics = False
    """Whether characteristics enter; then NaN in them is refused and their names are part of the contract."""

    allows_missing_characteristics = False
    """Whether NaN in characteristics is information that the estimator can use."""

    sees: str | None = None
    """What forecasts are made from, in words for a table, where neither of these two says it."""

    def __init__(self, config: ConfigT) -> None:
        self.config: ConfigT = config
        self._fitted: Fitted[EstimatesT] | None = None

    # ---------------------------------------------------------------- what was found

    @property
    def fitted(self) -> Fitted[EstimatesT]:
        """Everything that the fit left behind.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        if self._fitted is None:
            raise NotFittedError(f"{type(self).__name__} is not fitted: call fit first")
        return self._fitted

    @property
    def estimates(self) -> EstimatesT:
        """Estimates of the default checkpoint."""
        return self.fitted.checkpoints.by_label[self.fitted.default]

    @property
    def summary(self) -> FitSummary:
        """How the fit went."""
        return self.fitted.summary

    @property
    def available_checkpoints(self) -> tuple[int | str, ...]:
        """Labels that `checkpoint=` accepts."""
        return tuple(self.fitted.checkpoints.by_label)

    def estimates_at(self, checkpoint: int | str | None) -> tuple[int | str, EstimatesT]:
        """The label and estimates that a `checkpoint` argument stands for (None: the default)."""
        fitted = self.fitted
        label = fitted.default if checkpoint is None else fitted.checkpoints.resolve(checkpoint)
        return label, fitted.checkpoints.by_label[label]

    # ---------------------------------------------------------------- fitting, once for all

    def _fit_panel(
        self,
        panel: Panel,
        estimate: Callable[[Panel], tuple[EstimatesT | Checkpoints[EstimatesT], FitSummary]],
    ) -> FitSummary:
        """Cut the live tail, check, estimate, freeze; nothing is kept unless everything succeeded."""
        if not isinstance(panel, Panel):
            raise PanelError(
                f"fit needs a Panel, got {type(panel).__name__}: build one with Panel.from_frame"
            )
        began = time.perf_counter()
        training = panel.between(0, panel.n_realised)
        if training.n_periods == 0:
            raise InsufficientDataError(f"{type(self).__name__} needs observed values, the panel has none")
        self._check_characteristics(training)
        found, summary = estimate(training)
        first = int(training.index.period_codes[np.flatnonzero(training.observed)[0]])
        span = FitSpan(training.times[first], training.times[-1])
        return self._keep(found, summary, span, PanelSignature.of(panel), began)

    def _keep(
        self,
        found: EstimatesT | Checkpoints[EstimatesT],
        summary: FitSummary,
        span: FitSpan,
        signature: PanelSignature,
        began: float,
    ) -> FitSummary:
        checkpoints = found if isinstance(found, Checkpoints) else Checkpoints({"last": found})
        default = checkpoints.resolve(getattr(self.config, "default_checkpoint", "last"))
        summary = replace(summary, seconds=time.perf_counter() - began, checkpoint=default)
        self._fitted = Fitted(checkpoints, default, summary, span, signature)
        return summary

    def _check_panel(self, panel: Panel) -> None:
        """Guards of everything that reads a panel after `fit`."""
        if not isinstance(panel, Panel):
            raise PanelError(f"expected a Panel, got {type(panel).__name__}: build one with Panel.from_frame")
        self.fitted.signature.check(panel, characteristics=self.uses_characteristics)
        self._check_characteristics(panel)

    def _check_characteristics(self, panel: Panel) -> None:
        if not self.uses_characteristics:
            return
        if panel.characteristics is None:
            raise PanelMismatchError(
                f"{type(self).__name__} needs characteristics, the panel has none: name them when building it"
            )
        if self.allows_missing_characteristics:
            return
        missing = missing_characteristics(panel).values.sum(axis=0)
        if missing.any():
            worst = np.argsort(-missing, kind="stable")[:_MISSING_SHOWN]
            shares = ", ".join(
                f"{panel.characteristic_names[j]!r} {missing[j] / panel.n_rows:.1%}"
                for j in worst
                if missing[j]
            )
            raise PanelMismatchError(
                f"characteristics must have no NaN, missing are {shares}: call "
                "latentfactors.prepare.rank_standardise(panel) or fill_missing(panel, 'median') first"
            )

    # ---------------------------------------------------------------- identity, copies, files

    @property
    def identity(self) -> str:
        """Class and config as text: equal identities fit equally."""
        return f"{class_path(type(self))}:{fingerprint(self.config)}"

    def clone(self) -> Self:
        """An unfitted copy with the same config."""
        twin = object.__new__(type(self))
        Estimator.__init__(twin, self.config)
        return twin

    def save(self, directory: str | Path) -> Path:
        """Write config and estimates; `load` gives them back exactly. See `latentfactors.store`."""
        return save_object(directory, self, self._card())

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        StoreError
            Missing, damaged, tampered or foreign files, or another class.
        """
        return load_object(directory, cls)

    def _card(self) -> dict[str, Any]:
        fitted = self.fitted
        return {
            "class": class_path(type(self)),
            "config": repr(self.config),
            "training_span": [str(fitted.span.start), str(fitted.span.end)],
            "value_kind": fitted.signature.value_kind,
            "frequency": fitted.signature.frequency,
            "transforms": list(fitted.signature.transforms),
            "characteristics": list(fitted.signature.characteristic_names),
            "checkpoint": fitted.default,
            "converged": fitted.summary.converged,
            "reason": fitted.summary.reason,
            "metrics": dict(fitted.summary.metrics),
            "warnings": list(fitted.summary.warnings),
        }

    def _to_store(self) -> dict[str, Any]:
        return {"config": self.config, "fitted": self._fitted}

    @classmethod
    def _from_store(cls, content: Mapping[str, Any]) -> Self:
        loaded = object.__new__(cls)
        Estimator.__init__(loaded, content["config"])
        loaded._fitted = content["fitted"]
        return loaded

    def __repr__(self) -> str:
        fitted = "unfitted" if self._fitted is None else f"fitted on {self._fitted.span}"
        return f"<{type(self).__name__} {self.config!r}, {fitted}>"


def freeze(record: Any) -> Any:
    """Make every array of a frozen dataclass read-only; call it at the end of `__post_init__`."""
    for each in fields(record):
        value = getattr(record, each.name)
        if isinstance(value, np.ndarray):
            object.__setattr__(record, each.name, read_only(value))
    return record


def at_least(name: str, value: Any, lowest: int) -> None:
    """Refuse anything but a whole number >= `lowest`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise ConfigurationError(f"{name} must be a whole number >= {lowest}, got {value!r}")


def one_of(name: str, value: Any, choices: Any) -> None:
    """Refuse anything but one of a `Literal`'s values."""
    if value not in get_args(choices):
        known = ", ".join(map(repr, get_args(choices)))
        raise ConfigurationError(f"{name} must be one of {known}, got {value!r}")


def check_number(name: str, value: Any, *, positive: bool = False) -> float:
    """A finite number >= 0 (> 0) as a float, so that 12 and 12.0 are the same configuration."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not 0 <= value < np.inf or (positive and value == 0):
        raise ConfigurationError(
            f"{name} must be a finite number {'> 0' if positive else '>= 0'}, got {value!r}"
        )
    return float(value)


def check_horizon(horizon: Any, lowest: int | None = 1) -> int:
    """Refuse a horizon that is no whole number, or smaller than `lowest`."""
    whole = isinstance(horizon, int | np.integer) and not isinstance(horizon, bool)
    if not whole or (lowest is not None and horizon < lowest):
        bound = "" if lowest is None else f" >= {lowest}"
        raise HorizonError(
            f"horizon must be a whole number of periods{bound}, got {horizon!r}: nowcasts (0) and backcasts "
            "(below) exist for native forecasts only"
        )
    return int(horizon)
