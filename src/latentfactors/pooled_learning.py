"""What learners on pooled rows share: the periods they hold out, the unit of values, rows by period."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, MissingCapabilityError
from latentfactors.panel import Panel

__all__ = ["check_validation", "held_out", "period_rows", "scikit_learn", "standard"]

FloatArray = npt.NDArray[np.float64]


def held_out(
    periods: npt.NDArray[np.int64], n_periods: int, validation: int | float
) -> npt.NDArray[np.bool_]:
    """(n,) rows of the last training periods, a number or share of them.

    Raises
    ------
    InsufficientDataError
        A number of periods that leaves nothing to train on.
    """
    whole = isinstance(validation, int)
    held = periods >= n_periods - (validation if whole else round(validation * n_periods))
    if not held.all():
        return held
    if whole:
        raise InsufficientDataError(
            f"validation={validation} takes all of {n_periods} training periods with values: nothing is left "
            "to train on"
        )
    return np.zeros(len(periods), dtype=bool)


def standard(values: FloatArray) -> tuple[float, float]:
    """Mean and standard deviation; 1 for values that do not vary."""
    level, scale = float(values.mean()), float(values.std())
    # Rounding leaves equal values a deviation of a few units in the last place.
    return level, scale if scale > 1e-12 * float(np.abs(values).max(initial=0.0)) else 1.0


def period_rows(panel: Panel) -> Iterator[tuple[slice, FloatArray]]:
    """Rows and characteristics of every period that has rows: products period by period keep every bit."""
    assert panel.characteristics is not None
    for first, last in pairwise(panel.offsets.tolist()):
        if last > first:
            yield slice(first, last), panel.characteristics[first:last].astype(np.float64)


def check_validation(value: Any) -> None:
    """Refuse anything but a whole number of periods or a share of them below 1."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not whole and not (isinstance(value, float) and 0 <= value < 1):
        raise ConfigurationError(
            f"validation must be a whole number of periods >= 0 or a share in [0, 1), got {value!r}"
        )


def scikit_learn(module: str) -> Any:
    """A module of scikit-learn; a `MissingCapabilityError` says what to install."""
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise MissingCapabilityError(
            "this predictor is fitted by scikit-learn, which is not installed: "
            "pip install 'latentfactors[learners]'"
        ) from error
