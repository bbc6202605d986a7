"""What training leaves behind in NumPy: parameters at an epoch, and all that is needed to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Snapshot", "TrainingState"]

FloatArray = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Snapshot:
    """Parameters and layer state of all members, arrays with a leading member axis."""

    parameters: Arrays
    layers: Arrays


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingState:
    """All that is needed to go on as if training had never stopped.

    Attributes
    ----------
    epoch : epochs done
    learner : the primitive's carry, by name of the leaf
    best : parameters and layers at every member's best validation epoch, or None
    best_score, best_epoch, stopped : (M,)
    history : name -> per-epoch path
    data : digest of the training data
    """

    epoch: int
    learner: Arrays
    best: Snapshot | None
    best_score: FloatArray
    best_epoch: npt.NDArray[np.int64]
    stopped: npt.NDArray[np.bool_]
    history: Mapping[str, tuple[float, ...]]
    data: str
