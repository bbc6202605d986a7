"""How a low-frequency series of a panel sums up the panel's own periods."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelMismatchError
from latentfactors.kernels.mixed_frequency import mariano_murasawa_weights
from latentfactors.panel import Panel

__all__ = ["aggregation_weights"]

FloatArray = npt.NDArray[np.float64]

_MONTHS = 3


def aggregation_weights(panel: Panel, labels: npt.NDArray[Any]) -> FloatArray:
    """(n, L) weights of every series' own periods, newest first, from the panel's series information.

    A quarterly series of a monthly panel: "mean" 1/3 each, "sum" 1 each, "mariano_murasawa" (1, 2, 3, 2, 1)/3
    (the quarterly growth of a mean of levels from monthly growth), "end" the last month.

    Raises
    ------
    ConfigurationError
        A frequency that does not fit the panel's.
    PanelMismatchError
        A quarterly value that does not stand in a quarter's last month.
    """
    n = labels.size
    if panel.series is None:
        return np.eye(1).repeat(n, axis=0)
    weights = np.zeros((n, 2 * _MONTHS - 1))
    weights[:, 0] = 1.0
    kinds = {
        "mean": np.full(_MONTHS, 1.0 / _MONTHS),
        "sum": np.ones(_MONTHS),
        "mariano_murasawa": mariano_murasawa_weights(),
    }
    column = {label: j for j, label in enumerate(panel.assets.tolist())}
    wide = panel.wide()
    for i, label in enumerate(labels.tolist()):
        j = column[label]
        own = panel.series.frequency[j]
        if own == panel.frequency or panel.frequency is None:
            continue
        if (panel.frequency, own) != ("M", "Q"):
            raise ConfigurationError(
                f"series {label!r} is of frequency {own!r} in a panel of {panel.frequency!r}: quarterly "
                "series in a monthly panel are supported, aggregate others first"
            )
        observed = panel.times[np.isfinite(wide[:, j])].astype("datetime64[M]").astype(np.int64)
        if (observed % 3 != 2).any():
            wrong = panel.times[np.isfinite(wide[:, j])][observed % 3 != 2][0]
            raise PanelMismatchError(
                f"quarterly series {label!r} has a value in {wrong}: a quarter's value stands in its "
                "last month"
            )
        kind = kinds.get(panel.series.aggregation[j])
        if kind is not None:
            weights[i] = 0.0
            weights[i, : kind.size] = kind
    return weights if (weights[:, 1:] != 0.0).any() else weights[:, :1]
