"""One period's cross-section, column by column: ranks, z-scores, quantiles, group means. NaN is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["demean_groups", "period_quantiles", "period_ranks", "period_zscores"]

FloatArray = npt.NDArray[np.float64]


def period_ranks(block: npt.NDArray[Any]) -> FloatArray:
    """(n, L) ranks (rank - 1)/(n - 1) - 1/2 of every column, ties averaged; 0 for NaN and for n = 1."""
    columns = np.ascontiguousarray(block.T)
    order = np.argsort(columns, axis=1)  # NaN come last; the order among equals does not matter
    ordered = np.take_along_axis(columns, order, axis=1)
    n_seen = np.isfinite(ordered).sum(axis=1, keepdims=True)
    position = np.arange(columns.shape[1])
    opens = np.ones(ordered.shape, dtype=bool)
    opens[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    if opens.all():
        rank = position.astype(np.float64)
    else:  # a run of equals takes the mean of its first and last position
        closes = np.ones(ordered.shape, dtype=bool)
        closes[:, :-1] = opens[:, 1:]
        first = np.maximum.accumulate(np.where(opens, position, 0), axis=1)
        last = np.minimum.accumulate(np.where(closes, position, position.size)[:, ::-1], axis=1)[:, ::-1]
        rank = (first + last) / 2
    centred = np.where((position < n_seen) & (n_seen > 1), rank / np.maximum(n_seen - 1, 1) - 0.5, 0.0)
    out = np.empty(ordered.shape)
    np.put_along_axis(out, order, centred, axis=1)
    return out.T


def period_zscores(block: npt.NDArray[Any]) -> FloatArray:
    """(n, L) deviations from the mean over the standard deviation (ddof 0); NaN stays, a constant is 0."""
    # Measured from the smallest value, so that a constant column has deviations of exactly 0, and in units of
    # the largest deviation, so that squares neither overflow nor vanish.
    deviation = block.astype(np.float64)
    deviation -= np.fmin.reduce(deviation, axis=0)
    n_seen = np.maximum(np.isfinite(deviation).sum(axis=0), 1)
    deviation -= np.nansum(deviation, axis=0) / n_seen
    widest = np.fmax.reduce(np.abs(deviation), axis=0)
    deviation /= np.where(widest > 0, widest, 1.0)
    sd = np.sqrt(np.nansum(deviation**2, axis=0) / n_seen)
    return deviation / np.where(sd > 0, sd, 1.0)


def period_quantiles(block: npt.NDArray[Any], probabilities: Sequence[float]) -> FloatArray:
    """(len(probabilities), L) interpolated quantiles of the non-missing rows; NaN where there are none."""
    ordered = np.sort(block, axis=0)  # NaN come last
    last = np.maximum(np.isfinite(ordered).sum(axis=0) - 1, 0)
    column = np.arange(block.shape[1])
    out = np.empty((len(probabilities), block.shape[1]))
    for q, probability in enumerate(probabilities):
        at = probability * last
        below = np.floor(at).astype(np.int64)
        low = ordered[below, column].astype(np.float64)
        high = ordered[np.minimum(below + 1, last), column].astype(np.float64)
        out[q] = np.minimum(low + (high - low) * (at - below), high)
    return out


def demean_groups(block: FloatArray, codes: npt.NDArray[np.int64]) -> FloatArray:
    """(n, L) less the mean of each row's group over its non-missing rows; `codes` (n,) name the groups."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sizes = np.diff(starts, append=codes.size)
    x = block[order]
    # Measured from the group's smallest value: a characteristic constant in a group leaves exactly 0, no
    # rounding.
    x -= np.repeat(np.fmin.reduceat(x, starts, axis=0), sizes, axis=0)
    seen = np.isfinite(x)
    n_seen = np.maximum(np.add.reduceat(seen, starts, axis=0, dtype=np.int64), 1)
    means = np.add.reduceat(np.where(seen, x, 0.0), starts, axis=0) / n_seen
    out = np.empty_like(x)
    out[order] = x - np.repeat(means, sizes, axis=0)
    return out


# -------------------------------------------------------------------- the walk over periods, and the checks
