"""What a period may know of the past: windows of earlier months' managed portfolios, and firms' ages.

x_s = Z_s'(M_s o r_s)/n_s        Z_s the month's characteristics and a constant, M_s what was observed
window of period t               x_(t-w), ..., x_(t-1), zeros where there is none: nothing of t itself
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from latentfactors.errors import GapError, PanelMismatchError
from latentfactors.history import History
from latentfactors.kernels.sufficient import period_statistics
from latentfactors.panel import Panel

__all__ = [
    "first_periods",
    "joined_past",
    "label_positions",
    "listing_ages",
    "mean_portfolios",
    "past_windows",
]

FloatArray = npt.NDArray[np.float64]


def mean_portfolios(panel: Panel) -> FloatArray:
    """(T, L + 1) x_s of every period, the constant's (the mean value) last; NaN where nothing is observed."""
    assert panel.characteristics is not None
    found = period_statistics(panel.values, panel.characteristics, panel.offsets, constant=True)
    n = np.where(found.counts > 0, found.counts, np.nan)
    return found.crosses / n[:, None]


def past_windows(x: FloatArray, length: int) -> tuple[FloatArray, FloatArray]:
    """(T, length, Q) portfolios of the `length` periods before each, and (T, length) 1 where they exist.

    Parameters
    ----------
    x : (T, Q), NaN rows where a period has none

    Examples
    --------
    >>> windows, known = past_windows(np.array([[1.0], [np.nan], [3.0]]), 2)
    >>> windows[..., 0].tolist(), known.tolist()
    ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    """
    there = np.asarray(np.isfinite(x).all(axis=1))
    filled = np.concatenate([np.zeros((length, x.shape[1])), np.where(there[:, None], x, 0.0)])
    known = np.concatenate([np.zeros(length), there.astype(np.float64)])
    at = np.arange(len(x))[:, None] + np.arange(length)
    return filled[at], known[at]


def joined_past(fitted: Panel, past: FloatArray, later: Panel) -> tuple[FloatArray, int]:
    """The past (S + T, Q) of a later panel, with that of the fit (S, Q) ahead where nothing lies between."""
    own = mean_portfolios(later)
    try:
        return History(fitted.times, past).prepend(later.index, own, "the fit")
    except GapError:
        return own, 0


def first_periods(panel: Panel) -> npt.NDArray[np.int64]:
    """(N,) position of the period of every asset's first row; T for an asset without rows."""
    first = np.full(panel.n_assets, panel.n_periods, dtype=np.int64)
    np.minimum.at(first, panel.asset_codes, panel.index.period_codes)
    return first


def listing_ages(
    panel: Panel, before: int, assets: npt.NDArray[np.generic], first: npt.NDArray[np.int64]
) -> FloatArray:
    """(R,) periods since an asset's first row, counted from `before` periods ahead of the panel.

    `assets` and `first` (A,) say when those assets had their first row in these earlier periods.
    """
    listed = first_periods(panel) + before
    if before:
        known = panel.index.match_assets(assets)
        listed = np.where(known >= 0, np.minimum(listed, first[np.maximum(known, 0)]), listed)
    return (panel.index.period_codes + before - listed[panel.asset_codes]).astype(np.float64)


def label_positions(panel: Panel) -> FloatArray:
    """(R,) asset labels as numbers.

    Raises
    ------
    PanelMismatchError
        Labels that are not whole numbers.
    """
    if panel.assets.dtype.kind not in "iu":
        shown: Sequence[str] = [str(each) for each in panel.assets[:2]]
        raise PanelMismatchError(
            f"firm_encoding='permno_sinusoid' needs whole numbers as asset labels, got {shown}: relabel the "
            "assets, or use firm_encoding='none'"
        )
    return panel.assets[panel.asset_codes].astype(np.float64)
