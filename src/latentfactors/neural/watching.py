"""Looking at training while it runs: a callback that sees every epoch and may stop it.

The callback travels in a context variable, so it reaches a model inside a pipeline or a walk-forward of one
process without being an argument of every class in between, and it is gone when the `with` block ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["EpochReport", "Watcher", "current_watcher", "watch"]


@dataclass(frozen=True, eq=False, kw_only=True)
class EpochReport:
    """What is known after an epoch.

    Attributes
    ----------
    epoch, epochs : this one, counted from 1, and the last one
    loss : (M,) mean training loss of every member
    validation : (M,) validation R2 of every member, or None
    active : (M,) members that still train
    """

    epoch: int
    epochs: int
    loss: npt.NDArray[np.float64]
    validation: npt.NDArray[np.float64] | None
    active: npt.NDArray[np.bool_]


Watcher = Callable[[EpochReport], bool | None]
_WATCHER: ContextVar[Watcher | None] = ContextVar("latentfactors_watcher", default=None)


@contextmanager
def watch(watcher: Watcher) -> Iterator[None]:
    """Call `watcher(report)` after every epoch trained inside the block; returning True stops training.

    A fit that was stopped is a fit: it can be used, saved, and resumed.

    Parameters
    ----------
    watcher
        Takes an `EpochReport`.

    Examples
    --------
    >>> from latentfactors import CAEConfig, CAEModel, TrainingConfig
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=24, n_assets=30, seed=1).panel
    >>> model = CAEModel(CAEConfig(n_factors=2, architecture="CA0", training=TrainingConfig(epochs=5)))
    >>> with watch(lambda report: report.epoch == 3):
    ...     summary = model.fit(panel)
    >>> summary.n_iterations, summary.reason
    (3, 'stopped by the watcher at epoch 3 of 5')
    """
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def current_watcher() -> Watcher | None:
    """The callback of the innermost `watch` block, if any."""
    return _WATCHER.get()
