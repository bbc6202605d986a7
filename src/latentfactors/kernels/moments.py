"""Running means and predictive covariances of an incomplete (T, K) series.

Row p of every answer is built from values[0..p-1] only: it forecasts the next draw. With weights w_i on the
rows used (normalised to sum 1) and q = sum w_i^2,

    mean         m = sum w_i x_i, each series over its own observed entries
    covariance   S = sum w_i (x_i - m)(x_i - m)' / (1 - q) over the rows complete in all series: unbiased
                 for independent rows (equal weights: 1 - q = (n - 1)/n, the usual divisor n - 1)
    predictive   S (1 + q): a new draw plus the error of the mean it is forecast with (equal weights: 1 + 1/n)

Expanding and exponential moments are one recursion. A new row enters with share a, the old keep b = 1 - a;
with d = x - m and u = 1 - q:

    m <- m + a d        S <- (u S + a dd') / (b u + 2 a)        u <- b (b u + 2 a)

Nothing large is ever subtracted (neither sum x^2 - n m^2 nor 1 - q), so the level of a series costs no digits
beyond those its own rounding cost. Only sums, products and quotients occur, so a change of unit by a power of
two is exact. No sum runs in an order that depends on T, so cutting the sample later keeps every bit.

References: Welford (1962), Technometrics 4(3); West (1979), Communications of the ACM 22(9), weighted
updating; GNU Scientific Library manual, weighted samples, for the divisor 1 - q ("reliability weights").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def expanding_moments(values: ArrayLike, min_periods: int = 1) -> tuple[FloatArray, FloatArray]:
    """Mean and predictive covariance of all rows up to each origin, equally weighted.

    Parameters
    ----------
    values : (T, K), NaN where not observed
    min_periods : observed entries a series needs before its mean is given, at least 1

    Returns
    -------
    mean : (T+1, K), NaN before `min_periods` observations of the series
    covariance : (T+1, K, K), NaN before two rows complete in all series and wherever a mean is NaN
    """
    return _recursive_moments(values, 1.0, min_periods)


def exponential_moments(
    values: ArrayLike, half_life: float, min_periods: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Mean and predictive covariance with weights that halve every `half_life` periods.

    A missing row ages the others without adding weight. The covariance divides by 1 - sum w^2 (unbiased for
    independent rows) and is multiplied by 1 + sum w^2 for the error of the mean.

    Parameters
    ----------
    values : (T, K), NaN where not observed
    half_life : periods, > 0; infinity is the expanding mean
    min_periods : observed entries a series needs before its mean is given, at least 1

    Returns
    -------
    mean, covariance : (T+1, K) and (T+1, K, K), NaN as in `expanding_moments`
    """
    if not half_life > 0:
        raise ValueError(f"half_life={half_life}: expected a number of periods > 0")
    return _recursive_moments(values, float(np.exp2(-1.0 / half_life)), min_periods)


def rolling_moments(values: ArrayLike, window: int, min_periods: int = 1) -> tuple[FloatArray, FloatArray]:
    """Mean and predictive covariance of the last `window` rows before each origin (fewer at the start).

    Two passes in each window: the mean, corrected by the mean of the deviations from it, then the deviations.

    Parameters
    ----------
    values : (T, K), NaN where not observed
    window : rows, at least 1; missing rows count towards it
    min_periods : observed entries a series needs inside the window, between 1 and `window`

    Returns
    -------
    mean, covariance : (T+1, K) and (T+1, K, K), NaN as in `expanding_moments`
    """
    if not 1 <= min_periods <= window:
        raise ValueError(f"min_periods={min_periods}, window={window}: expected 1 <= min_periods <= window")
    x, observed = _series(values)
    n_periods, n_series = x.shape
    mean = np.full((n_periods + 1, n_series), np.nan)
    covariance = np.full((n_periods + 1, n_series, n_series), np.nan)
    complete = np.all(observed, axis=1)
    filled = np.where(observed, x, 0.0)  # the zeros are never summed: `observed` multiplies them away below

    for p in range(1, n_periods + 1):
        rows = slice(max(0, p - window), p)
        seen = observed[rows]
        count = seen.sum(axis=0)
        share = 1.0 / np.maximum(count, 1)
        centre = filled[rows].sum(axis=0) * share
        centre = centre + ((filled[rows] - centre) * seen).sum(axis=0) * share
        mean[p] = np.where(count >= min_periods, centre, np.nan)
        whole = complete[rows]
        n = int(np.count_nonzero(whole))
        if n >= 2 and count.min() >= min_periods:
            deviation = filled[rows][whole] - centre
            deviation -= deviation.mean(axis=0)  # the complete rows' own mean
            covariance[p] = deviation.T @ deviation * ((1.0 + 1.0 / n) / (n - 1))
    return mean, covariance


def unit_columns(matrix: ArrayLike, centred: bool = True) -> tuple[FloatArray, FloatArray]:
    """Columns at unit length, after subtracting their means if `centred`.

    A column that is constant up to rounding becomes exactly zero with norm zero: its direction is noise.

    Parameters
    ----------
    matrix : (n, K), finite
    centred : subtract the column means first

    Returns
    -------
    unit : (n, K), columns of length 1 or 0
    norms : (K,), lengths after centring
    """
    x = np.array(matrix, dtype=np.float64)
    raw = _lengths(x)
    if centred and len(x):
        x -= x.mean(axis=0)
        x -= x.mean(axis=0)  # the second pass removes the rounding error of the first mean
    norms = _lengths(x)
    norms[norms <= 64 * np.finfo(np.float64).eps * raw] = 0.0
    return np.divide(x, norms, out=np.zeros_like(x), where=norms > 0), norms


def _lengths(x: FloatArray) -> FloatArray:
    """Euclidean length of every column of (n, K)."""
    return np.sqrt(np.square(x).sum(axis=0))


def _recursive_moments(values: ArrayLike, decay: float, min_periods: int) -> tuple[FloatArray, FloatArray]:
    """The recursion of the module docstring, weights multiplied by `decay` every period."""
    if min_periods < 1:
        raise ValueError(f"min_periods={min_periods}: expected at least 1")
    x, observed = _series(values)
    n_periods, n_series = x.shape
    mean = np.full((n_periods + 1, n_series), np.nan)
    covariance = np.full((n_periods + 1, n_series, n_series), np.nan)
    complete = np.all(observed, axis=1)
    filled = np.where(observed, x, 0.0)

    # Means, each series for itself. Its weight is >= 1 wherever an entry is seen; elsewhere the step is zero
    # and the mean stays.
    count = np.cumsum(observed, axis=0)
    step = observed / np.maximum(_discounted(observed, decay), 1.0)
    centre = np.zeros(n_series)
    for p in range(n_periods):
        centre = centre + (filled[p] - centre) * step[p]
        mean[p + 1] = centre
    mean[1:][count < min_periods] = np.nan

    # Covariances, over complete rows: their own weight, count and mean; u = 1 - q; S. Only the recursion runs
    # row by row; the products that enter it are taken for all rows at once.
    row_weight, n_rows, row_centre, u = 0.0, 0, np.zeros(n_series), 0.0
    deviation, keep, add = np.zeros_like(x), np.ones(n_periods), np.zeros(n_periods)
    widen = np.full(n_periods, np.nan)  # 1 + q
    for p, whole in enumerate(complete.tolist()):
        row_weight *= decay
        if whole:
            old, row_weight = row_weight, row_weight + 1.0
            enters, stays = 1.0 / row_weight, old / row_weight
            deviation[p] = filled[p] - row_centre
            row_centre = row_centre + enters * deviation[p]
            if n_rows:  # the first row has no covariance: u = 0
                divisor = stays * u + 2.0 * enters
                keep[p], add[p] = u / divisor, enters / divisor
                u = stays * divisor
            n_rows += 1
        if n_rows >= 2:
            widen[p] = 2.0 - u
    products = add[:, None, None] * (deviation[:, :, None] * deviation[:, None, :])
    now = np.zeros((n_series, n_series))
    for p in range(n_periods):
        if add[p]:
            now = keep[p] * now + products[p]
        covariance[p + 1] = now
    covariance[1:] *= widen[:, None, None]
    covariance[1:][count.min(axis=1) < min_periods] = np.nan
    return mean, covariance


def _discounted(observed: NDArray[np.bool_], decay: float) -> FloatArray:
    """(T, K) weight so far: what was seen, older rows multiplied by `decay` every period."""
    if decay == 1.0:
        return np.cumsum(observed, axis=0, dtype=np.float64)
    weight = observed.astype(np.float64)
    for p in range(1, len(weight)):
        weight[p] += decay * weight[p - 1]
    return weight


def _series(values: ArrayLike) -> tuple[FloatArray, NDArray[np.bool_]]:
    """(T, K) in row order, so that sums ignore the caller's memory layout, and what is observed in it."""
    x = np.ascontiguousarray(values, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"values: expected (T, K) with K >= 1, got shape {x.shape}")
    return x, np.isfinite(x)
