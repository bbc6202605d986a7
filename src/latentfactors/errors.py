"""Every error the library raises on purpose.

A message says four things: what was wrong, what was expected, what came instead, and what to do about it.
`ConfigurationError` marks mistakes that no amount of data can mend: a walk-forward stops at the first one,
while any other error of a single window is reported with its dates and the other windows go on.
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "FrequencyError",
    "GapError",
    "HorizonError",
    "InsufficientDataError",
    "LatentFactorsError",
    "MissingCapabilityError",
    "NotFittedError",
    "PanelError",
    "PanelMismatchError",
    "StoreError",
    "TrainingError",
    "UnknownAssetsError",
]


class LatentFactorsError(Exception):
    """Base class of all errors of this library."""


class PanelError(LatentFactorsError, ValueError):
    """Data that cannot become a `Panel`: duplicates, bad dates, infinities, text among numbers, no values."""


class FrequencyError(PanelError):
    """Dates do not follow the stated frequency, or a frequency is needed and none could be inferred."""


class ConfigurationError(LatentFactorsError, ValueError):
    """An argument or a combination of arguments that cannot work whatever the data are."""


class HorizonError(ConfigurationError):
    """A forecast horizon that this predictor cannot serve."""


class MissingCapabilityError(ConfigurationError):
    """The model has no such view: no native forecasts, no smoother, no factor portfolios."""


class NotFittedError(LatentFactorsError, RuntimeError):
    """`fit` has to come first."""


class PanelMismatchError(LatentFactorsError, ValueError):
    """The panel differs from the one the model was fitted on: preparation, value kind, characteristics."""


class GapError(PanelMismatchError):
    """A sequential model cannot bridge the periods between its training data and this panel."""


class InsufficientDataError(LatentFactorsError, ValueError):
    """Too few observations for what was asked."""


class UnknownAssetsError(LatentFactorsError, ValueError):
    """No asset of the panel was seen in training."""


class StoreError(LatentFactorsError):
    """A saved artifact is missing, damaged, foreign, or written by something else."""


class TrainingError(LatentFactorsError, RuntimeError):
    """A network's training left the finite numbers, or ended in loadings that say nothing."""
