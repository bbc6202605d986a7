"""Rows of a state and its panel as risk needs them: do they belong together, residuals, categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, PanelMismatchError
from latentfactors.panel import Panel
from latentfactors.state import LatentFactorState

__all__ = ["above_floor", "category_codes", "check_same_rows", "model_residuals"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def check_same_rows(state: LatentFactorState, panel: Panel) -> None:
    """Refuse a panel other than the one a state was extracted from."""
    if not isinstance(state, LatentFactorState) or not isinstance(panel, Panel):
        raise ConfigurationError(
            f"expected a LatentFactorState and its Panel, got {type(state).__name__} and "
            f"{type(panel).__name__}"
        )
    index = state.index
    for name in ("times", "assets", "offsets", "asset_codes"):
        if not np.array_equal(getattr(index, name), getattr(panel, name)):
            raise PanelMismatchError(
                f"state and panel have other {name} ({index!r} and {panel!r}): give the panel that the state "
                "was extracted from"
            )


def model_residuals(state: LatentFactorState, panel: Panel, factors: FloatArray) -> FloatArray:
    """(R,) (value - location)/scale - alpha - b'f in model units; NaN without value, loadings or factors.

    A factor that was not realised leaves a residual unknown only where the loading on it is not zero.
    """
    index, measurement = state.index, state.measurement
    codes = index.asset_codes
    residual = (panel.values - measurement.location[codes]) / measurement.scale[codes]
    if measurement.alpha is not None:
        residual = residual - measurement.alpha
    # Period by period: loadings of all rows at once would be the largest array here.
    for p in range(index.n_periods):
        b, realised = measurement.loadings.at(p), np.isfinite(factors[p])
        fitted = b[:, realised] @ factors[p, realised]
        fitted[(b[:, ~realised] != 0).any(axis=1)] = np.nan
        residual[index.rows(p)] -= fitted
    return residual


def category_codes(panel: Panel, name: str | None, rows: Any) -> IntArray | None:
    """(R,) category codes of some rows."""
    if name is None:
        return None
    attribute = panel.attributes[name]
    codes = attribute.codes[panel.asset_codes[rows]] if attribute.by == "asset" else attribute.codes[rows]
    return codes.astype(np.int64)


def above_floor(
    variance: FloatArray, loadings: FloatArray, covariance: FloatArray, floor: float
) -> tuple[FloatArray, int]:
    """Specific variances raised to their floor, and how many were."""
    systematic = np.einsum("ij,jk,ik->i", loadings, covariance, loadings, optimize=True)
    lowest = floor * (np.maximum(systematic, 0.0) + variance.mean())
    below = ~(variance > lowest)
    raised = np.where(below, lowest, variance)
    if not np.all(raised > 0):
        raise InsufficientDataError(
            f"{int((~(raised > 0)).sum())} assets have neither systematic nor specific variance, so no "
            "covariance: their values never moved, leave them out"
        )
    return raised, int(below.sum())
