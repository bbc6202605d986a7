"""A panel's rows, flat, standardised and in float32: what networks of characteristics train on.

Everything that depends on units is divided out here in float64: values by their root mean square,
characteristics by mean and standard deviation, portfolios by their root mean squares. Rows of a period stand
in the order of their asset labels: the order in which a panel lists its assets does not change a single bit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import InsufficientDataError, PanelMismatchError
from latentfactors.kernels.scores import r_squared
from latentfactors.kernels.sufficient import PanelStatistics
from latentfactors.panel import Panel

__all__ = [
    "FlatRows",
    "fit_metrics",
    "flat_rows",
    "input_sums",
    "managed_portfolios",
    "residual_variance",
    "row_digest",
]

FloatArray = npt.NDArray[np.float64]
SingleArray = npt.NDArray[np.float32]
_BLOCK = 1 << 11  # rows that stay in a cache
_ROWS_THAT_PAY = 16  # a characteristic and batch: at 8 the pass over rows is as fast


@dataclass(frozen=True, eq=False, kw_only=True)
class FlatRows:
    """Rows of usable periods, and the units that were divided out.

    Attributes
    ----------
    z : (R, L) float32 characteristics
    r : (R,) float32 values with a mean square of 1 in training, 0 where not observed
    seen : (R,) float32, 1 where observed
    rows, periods : (R,), (T,) their positions in the panel
    x : (T, Q) float32 portfolios
    offsets : (T + 1,)
    scale : root mean square of training values
    centre, spread : (L,); a constant characteristic has spread 1
    input_scale : (Q,)
    min_observed : rows a period needs
    """

    z: SingleArray
    r: SingleArray
    seen: SingleArray
    rows: npt.NDArray[np.int64]
    periods: npt.NDArray[np.int64]
    x: SingleArray
    offsets: npt.NDArray[np.int64]
    scale: float
    centre: FloatArray
    spread: FloatArray
    input_scale: FloatArray
    min_observed: int


def flat_rows(
    panel: Panel,
    inputs: FloatArray,
    *,
    n_factors: int,
    min_observed: int | None,
    like: FlatRows | None,
    unobserved: bool = False,
) -> FlatRows:
    """Observed rows of periods with at least `min_observed` of them (None: 2K, or the most).

    Parameters
    ----------
    panel
        With finite characteristics.
    inputs : (T, Q)
        Portfolios; periods where one is not finite are left out.
    like
        Takes units and `min_observed` from these rows: validation is measured as training was.
    unobserved
        Keep rows without a value as well: they belong to the period's cross-section.

    Raises
    ------
    InsufficientDataError, PanelMismatchError
        No usable period, values that are all zero; infinite characteristics.
    """
    assert panel.characteristics is not None
    counts = np.add.reduceat(np.append(panel.observed, False), panel.offsets[:-1])
    counts = np.where(np.diff(panel.offsets) > 0, counts, 0)
    if like is not None:
        least = like.min_observed
    else:
        least = min_observed or max(min(2 * n_factors, int(counts.max(initial=0))), n_factors)
    usable = (counts >= least) & np.isfinite(inputs).all(axis=1)
    if not usable.any():
        raise InsufficientDataError(
            f"no period of {panel.n_periods} has {least} observed assets and finite portfolios: give a "
            "fuller panel, or ask for fewer factors"
        )
    rows = _in_label_order(panel, usable, unobserved)
    seen = panel.observed[rows]
    r = np.where(seen, panel.values[rows], 0.0)
    units = _units(panel, rows[seen], r[seen], inputs[usable]) if like is None else _units_of(like)
    scale, centre, spread, input_scale = units
    lengths = np.diff(panel.offsets)[usable] if unobserved else counts[usable]
    return FlatRows(
        z=_standardised(panel.characteristics, rows, centre, spread),
        r=(r / scale).astype(np.float32),
        seen=seen.astype(np.float32),
        rows=rows,
        periods=np.flatnonzero(usable),
        x=(inputs[usable] / input_scale).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        scale=scale,
        centre=centre,
        spread=spread,
        input_scale=input_scale,
        min_observed=least,
    )


def managed_portfolios(statistics: PanelStatistics) -> FloatArray:
    """x_p = (Z_p'Z_p)^+ Z_p'r_p, (T, Q), with characteristics of unit length in the pseudo-inverse."""
    lengths = np.sqrt(np.diagonal(statistics.grams, axis1=1, axis2=2))
    shrink = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    scaled = statistics.grams * shrink[:, :, None] * shrink[:, None, :]
    inverse = np.linalg.pinv(scaled, rcond=1e-10, hermitian=True)
    return shrink * np.einsum("tlm,tm->tl", inverse, shrink * statistics.crosses)


def input_sums(data: FlatRows, batch: int) -> dict[str, SingleArray]:
    """Sums (T, L) and sums of squares (T, L, L) of every period's characteristics, or nothing.

    They give batch norm the moments of the first layer without a pass over rows. That pays where a batch of
    `batch` periods has many rows a characteristic.
    """
    n_periods, width = data.offsets.size - 1, data.z.shape[1]
    rows = len(data.z) / n_periods
    if width > rows or _ROWS_THAT_PAY * width > rows * min(batch, n_periods):
        return {}
    sums, squares = np.empty((n_periods, width), np.float32), np.empty((n_periods, width, width), np.float32)
    for p, (first, last) in enumerate(pairwise(data.offsets.tolist())):
        z = data.z[first:last]
        sums[p], squares[p] = z.sum(axis=0), z.T @ z
    return {"sums": sums, "squares": squares}


def row_digest(*parts: FlatRows | None) -> str:
    """A digest of training and validation data: equal data, equal text."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        for array in () if part is None else (part.z, part.r, part.seen, part.x, part.offsets):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _in_label_order(panel: Panel, usable: npt.NDArray[np.bool_], unobserved: bool) -> npt.NDArray[np.int64]:
    """Positions of the observed rows, or all, of usable periods, by period and then by asset label."""
    period = panel.index.period_codes
    rows = np.flatnonzero(usable[period] if unobserved else panel.observed & usable[period])
    rank = np.empty(panel.n_assets, dtype=np.int64)
    rank[np.argsort(panel.assets)] = np.arange(panel.n_assets)
    place = rank[panel.asset_codes[rows]]
    return rows[np.lexsort((place, period[rows]))]


def _units(
    panel: Panel, rows: npt.NDArray[np.int64], r: FloatArray, inputs: FloatArray
) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    centre, spread = _moments(panel, rows)
    largest = float(np.abs(r).max())
    if largest == 0.0:
        raise InsufficientDataError("all observed values are 0: there is nothing to explain")
    scale = largest * float(np.sqrt(np.mean((r / largest) ** 2)))
    size = np.abs(inputs).max(axis=0)
    size = np.where(size > 0, size, 1.0)
    input_scale = size * np.sqrt(np.mean((inputs / size) ** 2, axis=0))
    return scale, centre, spread, np.where(input_scale > 0, input_scale, 1.0)


def _moments(panel: Panel, rows: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of every characteristic, block by block: no float64 copy of them all."""
    assert panel.characteristics is not None
    blocks = [rows[i : i + _BLOCK] for i in range(0, rows.size, _BLOCK)]
    width = panel.characteristics.shape[1]
    total, squares, largest = np.zeros(width), np.zeros(width), np.zeros(width)
    for block in blocks:
        c = panel.characteristics[block].astype(np.float64)
        if not np.isfinite(c).all():
            j = int(np.flatnonzero(~np.isfinite(c).all(axis=0))[0])
            raise PanelMismatchError(
                f"characteristics must be finite, {panel.characteristic_names[j]!r} is not: winsorise or "
                "rank it first"
            )
        total += c.sum(axis=0)
        largest = np.maximum(largest, np.abs(c).max(axis=0))
    centre = total / rows.size
    for block in blocks:
        squares += np.square(panel.characteristics[block] - centre).sum(axis=0)
    spread = np.sqrt(squares / rows.size)
    still = spread <= 1e-12 * np.maximum(largest, np.finfo(float).tiny)
    return centre, np.where(still, 1.0, spread)


def _standardised(
    characteristics: npt.NDArray[Any], rows: npt.NDArray[np.int64], centre: FloatArray, spread: FloatArray
) -> SingleArray:
    out = np.empty((rows.size, characteristics.shape[1]), dtype=np.float32)
    for i in range(0, rows.size, _BLOCK):
        out[i : i + _BLOCK] = (characteristics[rows[i : i + _BLOCK]] - centre) / spread
    return out


def _units_of(like: FlatRows) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    return like.scale, like.centre, like.spread, like.input_scale


# ------------------------------------------------------------------------ how well they are explained


def residual_variance(panel: Panel, loadings: FloatArray, factors: FloatArray) -> float:
    """Mean square of r - beta'f over observed rows of periods with factors, K degrees of freedom a period."""
    period = panel.index.period_codes
    error = panel.values - np.einsum("rk,rk->r", loadings, factors[period])
    error = error[np.isfinite(error)]
    free = int(np.isfinite(factors).all(axis=1).sum()) * factors.shape[1]
    return float(error @ error) / max(error.size - free, 1)


def fit_metrics(panel: Panel, loadings: FloatArray, factors: FloatArray) -> dict[str, float]:
    """Total R2 with realised factors and predictive R2 with their training means, against zero."""
    period, mean = panel.index.period_codes, np.nanmean(factors, axis=0)
    total = np.einsum("rk,rk->r", loadings, factors[period])
    predicted = np.where(np.isfinite(total), loadings @ mean, np.nan)
    return {"total_r2": r_squared(panel.values, total), "predictive_r2": r_squared(panel.values, predicted)}
