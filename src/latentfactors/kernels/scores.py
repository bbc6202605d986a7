"""Every metric of the library, defined once.

Cells. r = realised, f = forecast, b = benchmark; a cell counts when all that enter it are finite. Nothing is
demeaned unless the docstring says so: a return forecast is judged against zero, not against the mean it could
not know. No counting cell or a zero denominator answers NaN.

    total, predictive R2               1 - sum (r - f)^2 / sum (r - b)^2, pooled, b zero or a historical mean:
                                       `r_squared` of fitted values, of forecasts, of managed portfolios
    cross-sectional, time-series R2    the same by period, by asset, then averaged with equal weight
    rank IC                            Spearman correlation of r and f within the period
    CRPS, log score, PIT               of the forecast N(mean, variance); coverage of an interval
    trace R2, canonical correlations   of two factor spaces, whatever the rotation of the estimate

References: Kelly, Pruitt & Su (2019), JFE 134(3), total and predictive R2; Gu, Kelly & Xiu (2020), RFS 33(5),
why no demeaning; Gneiting & Raftery (2007), JASA 102(477), CRPS and log score; Diebold, Gunther & Tay (1998),
International Economic Review 39(4), PIT; Stock & Watson (2002), JASA 97(460), trace R2; Hotelling (1936),
Biometrika 28, canonical correlations.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentfactors.kernels.moments import unit_columns

FloatArray = NDArray[np.float64]


# Errors over cells ------------------------------------------------------------------------------------------


def r_squared(realised: ArrayLike, forecast: ArrayLike, benchmark: ArrayLike | None = None) -> float:
    """Pooled R2 = 1 - sum (r - f)^2 / sum (r - b)^2, the benchmark b being zero when None.

    Parameters
    ----------
    realised, forecast : (R,)
    benchmark : (R,) or None; with it only cells where it is finite count, in both sums
    """
    if benchmark is None:
        r, f = _counting(realised=realised, forecast=forecast)
        return 1.0 - _ratio(_sum_of_squares(r - f), _sum_of_squares(r))
    return 1.0 - mse_ratio(realised, forecast, benchmark)


def mse_ratio(realised: ArrayLike, forecast: ArrayLike, benchmark: ArrayLike) -> float:
    """MSFE ratio sum (r - f)^2 / sum (r - b)^2, cells finite in all three; below 1 beats the benchmark."""
    r, f, b = _counting(realised=realised, forecast=forecast, benchmark=benchmark)
    return _ratio(_sum_of_squares(r - f), _sum_of_squares(r - b))


def cross_sectional_r_squared(realised: ArrayLike, forecast: ArrayLike, offsets: ArrayLike) -> float:
    """Mean over periods t of 1 - sum_i (r_it - f_it)^2 / sum_i r_it^2; periods with sum r^2 = 0 left out.

    Parameters
    ----------
    realised, forecast : (R,)
    offsets : (T+1,) integers; period t's rows are offsets[t]:offsets[t+1]
    """
    r, f, periods = _counting_with(_periods_of(offsets, realised), realised=realised, forecast=forecast)
    return _mean_r_squared(r, f, periods, len(np.asarray(offsets)) - 1)


def time_series_r_squared(
    realised: ArrayLike, forecast: ArrayLike, asset_codes: ArrayLike, n_assets: int
) -> float:
    """Mean over assets i of 1 - sum_t (r_it - f_it)^2 / sum_t r_it^2; assets with sum r^2 = 0 left out.

    Parameters
    ----------
    realised, forecast : (R,)
    asset_codes : (R,) integers in 0..n_assets-1
    """
    r, f, assets = _counting_with(np.asarray(asset_codes), realised=realised, forecast=forecast)
    return _mean_r_squared(r, f, assets, n_assets)


def rmse(realised: ArrayLike, forecast: ArrayLike) -> float:
    """Root mean squared error, sqrt(mean (r - f)^2), in the unit of the values."""
    r, f = _counting(realised=realised, forecast=forecast)
    return float(np.sqrt(_ratio(_sum_of_squares(r - f), len(r))))


def mae(realised: ArrayLike, forecast: ArrayLike) -> float:
    """Mean absolute error, mean |r - f|, in the unit of the values."""
    r, f = _counting(realised=realised, forecast=forecast)
    return _ratio(float(np.abs(r - f).sum()), len(r))


def relative_pricing_error(alpha: ArrayLike, mean: ArrayLike) -> float:
    """sum alpha_i^2 / sum mean_i^2 over test assets (N,): the share of squared mean returns left unpriced."""
    a, m = _counting(alpha=alpha, mean=mean)
    return _ratio(_sum_of_squares(a), _sum_of_squares(m))


def expanding_asset_mean(
    values: ArrayLike, offsets: ArrayLike, asset_codes: ArrayLike, n_assets: int
) -> FloatArray:
    """(R,) mean of each row's asset over strictly earlier periods: the historical-mean benchmark."""
    return running_asset_means(values, offsets, asset_codes, n_assets)[0]


def running_asset_means(
    values: ArrayLike,
    offsets: ArrayLike,
    asset_codes: ArrayLike,
    n_assets: int,
    *,
    before: tuple[ArrayLike, ArrayLike] | None = None,
    min_periods: int = 1,
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """For each row the mean of its asset's observed values in strictly earlier periods: the historical mean.

    Each asset's values are added in the order of time, one period after another, so cutting the panel later
    keeps every bit of the earlier rows.

    Parameters
    ----------
    values : (R,), NaN where not observed
    offsets : (T+1,) integers delimiting periods
    asset_codes : (R,) integers in 0..n_assets-1, an asset at most once in a period
    before : sums (N,) and numbers (N,) of earlier observed values, to continue from
    min_periods : observed values an asset needs

    Returns
    -------
    means : (R,), NaN where the asset was observed less often before
    total, count : (N,) after the last period, for `before` of a panel that follows
    """
    x, starts, codes = np.asarray(values, dtype=np.float64), np.asarray(offsets), np.asarray(asset_codes)
    _periods_of(starts, x)
    total, count = (np.zeros(n_assets), np.zeros(n_assets)) if before is None else before
    total, count = np.array(total, dtype=np.float64), np.array(count, dtype=np.int64)
    means = np.full(len(x), np.nan)
    for first, last in pairwise(starts):
        assets, row = codes[first:last], x[first:last]
        np.divide(total[assets], count[assets], out=means[first:last], where=count[assets] >= min_periods)
        observed = np.isfinite(row)
        total[assets[observed]] += row[observed]
        count[assets[observed]] += 1
    return means, total, count


# Ranks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RankIC:
    """Rank information coefficient.

    Attributes
    ----------
    by_period : (T,) Spearman correlation of realised and forecast; NaN with too few assets or a constant side
    mean : average over the periods where it exists
    t_statistic : mean / (sd / sqrt(n_periods)), sd with divisor n - 1, periods taken as independent
    icir : mean / sd, per period, not annualised
    n_periods : number of periods where it exists
    """

    by_period: FloatArray
    mean: float
    t_statistic: float
    icir: float
    n_periods: int


def rank_ic(realised: ArrayLike, forecast: ArrayLike, offsets: ArrayLike, min_assets: int = 3) -> RankIC:
    """Spearman correlation of realised and forecast within each period, ties at their average rank.

    Parameters
    ----------
    realised, forecast : (R,)
    offsets : (T+1,) integers delimiting periods
    min_assets : cells a period needs to count
    """
    r, f, periods = _counting_with(_periods_of(offsets, realised), realised=realised, forecast=forecast)
    n_periods = len(np.asarray(offsets)) - 1
    x, y = _centred_ranks(r, periods, n_periods), _centred_ranks(f, periods, n_periods)
    # The ranks are integers, so these sums are exact and a constant forecast gives exactly zero.
    cross, x_squared, y_squared = (np.bincount(periods, w, n_periods) for w in (x * y, x * x, y * y))
    scale = np.sqrt(x_squared * y_squared)
    enough = (np.bincount(periods, minlength=n_periods) >= min_assets) & (scale > 0)
    by_period = np.divide(cross, scale, out=np.full(n_periods, np.nan), where=enough)

    ic = by_period[enough]
    n = len(ic)
    mean = _ratio(float(ic.sum()), n)
    # Identical coefficients have no dispersion; computed, it would be rounding noise and the t huge.
    sd = float(ic.std(ddof=1)) if n >= 2 and np.ptp(ic) > 0 else 0.0
    icir = _ratio(mean, sd)
    return RankIC(by_period, mean, icir * float(np.sqrt(n)), icir, n)


# Forecast distributions -------------------------------------------------------------------------------------


def coverage(realised: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Share of realised values in [lower, upper] (R,); an infinite bound is one-sided, a NaN no interval."""
    r, low, high = _same_shape(realised=realised, lower=lower, upper=upper)
    cells = np.isfinite(r) & ~np.isnan(low) & ~np.isnan(high)
    inside = (low[cells] <= r[cells]) & (r[cells] <= high[cells])
    return _ratio(float(np.count_nonzero(inside)), int(np.count_nonzero(cells)))


def crps_gaussian(realised: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> float:
    """Mean continuous ranked probability score of N(mean, variance), in the values' unit; lower is better.

    With s^2 = variance and z = (r - mean)/s: s (z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi)); |r - mean| where
    the variance is zero. A negative variance is refused.
    """
    from scipy.special import ndtr  # models score their fits with this module and need no normal law

    r, m, v = _gaussian_cells(realised, mean, variance)
    error, sd = r - m, np.sqrt(v)
    z = _standardised(error, sd)
    with np.errstate(over="ignore"):  # z^2 of a hopeless miss; exp(-inf) = 0 is right
        density = np.exp(-0.5 * np.square(z)) / np.sqrt(2.0 * np.pi)
    score = error * (2.0 * ndtr(z) - 1.0) + sd * (2.0 * density - 1.0 / np.sqrt(np.pi))
    return _ratio(float(score.sum()), len(r))


def log_score_gaussian(realised: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> float:
    """Mean log density of N(mean, variance) at the realised values; higher is better.

    -(log(2 pi variance) + (r - mean)^2 / variance) / 2, averaged. NaN when a counting cell has variance zero:
    a point forecast has no density, and leaving it out would flatter it. A negative variance is refused.
    """
    r, m, v = _gaussian_cells(realised, mean, variance)
    if not np.all(v > 0):
        return float("nan")
    score = -0.5 * (np.log(2.0 * np.pi * v) + np.square(r - m) / v)
    return _ratio(float(score.sum()), len(r))


def pit_gaussian(realised: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> FloatArray:
    """Probability integral transform Phi((r - mean)/sd) per cell (R,): uniform for a calibrated forecast.

    NaN in cells that do not count; 0, 1/2 or 1 where the variance is zero.
    """
    from scipy.special import ndtr

    r, m, v = _gaussian_cells(realised, mean, variance)
    cells = np.all(np.isfinite(_same_shape(realised=realised, mean=mean, variance=variance)), axis=0)
    pit = np.full(cells.shape, np.nan)
    pit[cells] = ndtr(_standardised(r - m, np.sqrt(v)))
    return pit


# Factor spaces ----------------------------------------------------------------------------------------------


def trace_r_squared(
    true_factors: ArrayLike, estimated: ArrayLike, intercept: bool = False, centred: bool = False
) -> float:
    """Share of the true factors' sum of squares that the estimated factors span.

    tr(F'G (G'G)^-1 G'F) / tr(F'F) over periods finite in both, F true, G estimated. It is 1 when G spans F,
    whatever G's rotation and scale, but depends on the scale of each column of F: the larger ones weigh more.

    Parameters
    ----------
    true_factors : (T, K)
    estimated : (T, K_hat); linearly dependent columns add nothing
    intercept : add a constant to G, F as it is (a G without the mean of F is not punished for it)
    centred : subtract the means of F and of G first, in the denominator too: the average share of variance
    """
    f, g = _common_rows(true_factors, estimated)
    if centred and len(f):
        unit, norms = unit_columns(f)
        f = unit * norms
    if intercept:
        g = np.column_stack([np.ones(len(g)), g])
    return _ratio(_sum_of_squares(_basis(g, centred).T @ f), _sum_of_squares(f))


def canonical_correlations(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Canonical correlations of two sets of factors: cosines of the angles between their column spaces.

    Both sets are demeaned over the periods finite in both, as correlations are.

    Parameters
    ----------
    a, b : (T, K_a), (T, K_b)

    Returns
    -------
    correlations : (min(K_a, K_b),), descending, in [0, 1]; 0 for dimensions a rank-deficient set lacks; all
        NaN when a set has no variation in the common periods. With T <= K_a + K_b some are 1 by
        counting alone.
    """
    x, y = _common_rows(a, b)
    result = np.zeros(min(x.shape[1], y.shape[1]))
    p, q = _basis(x, centred=True), _basis(y, centred=True)
    if p.shape[1] == 0 or q.shape[1] == 0:
        return np.full_like(result, np.nan)
    cosines = np.linalg.svd(p.T @ q, compute_uv=False)
    result[: len(cosines)] = np.clip(cosines, 0.0, 1.0)
    return result


def generalised_r_squared(a: ArrayLike, b: ArrayLike) -> float:
    """Mean squared canonical correlation of two factor spaces, (1/K) tr(P_a P_b) with K = min(K_a, K_b).

    Symmetric and free of rotation and scale on both sides. The name has no single definition in the field;
    this is the mean of the squared cosines. A space nested in a larger one scores 1: use `trace_r_squared`
    where the true factors are the yardstick.
    """
    squared = np.square(canonical_correlations(a, b))
    return _ratio(float(squared.sum()), len(squared))


# Helpers ----------------------------------------------------------------------------------------------------


def _same_shape(**arrays: ArrayLike) -> list[FloatArray]:
    """The arguments as float64; differing shapes are refused, for broadcasting would hide a mistake."""
    result = [np.asarray(array, dtype=np.float64) for array in arrays.values()]
    if len({array.shape for array in result}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(arrays, result, strict=True))
        raise ValueError(f"expected arrays of one shape, got {shapes}")
    return result


def _counting(**arrays: ArrayLike) -> list[FloatArray]:
    """The cells finite in all arguments."""
    full = _same_shape(**arrays)
    cells = np.logical_and.reduce([np.isfinite(array) for array in full])
    return [array[cells] for array in full]


def _counting_with(
    groups: NDArray[np.integer], *, realised: ArrayLike, forecast: ArrayLike
) -> tuple[FloatArray, FloatArray, NDArray[np.integer]]:
    """The cells finite in both, with the group of each."""
    r, f = _same_shape(realised=realised, forecast=forecast)
    if groups.shape != r.shape:
        raise ValueError(f"expected one group a row, got {groups.shape} groups for realised {r.shape}")
    cells = np.isfinite(r) & np.isfinite(f)
    return r[cells], f[cells], groups[cells]


def _periods_of(offsets: ArrayLike, rows: ArrayLike) -> NDArray[np.integer]:
    """(R,) period of each row."""
    starts, n_rows = np.asarray(offsets), len(np.asarray(rows))
    if len(starts) < 1 or starts[0] != 0 or starts[-1] != n_rows or np.any(np.diff(starts) < 0):
        raise ValueError(f"offsets: expected to rise from 0 to the {n_rows} rows, got {starts}")
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def _ratio(numerator: float, denominator: float) -> float:
    """numerator / denominator, NaN when the denominator is zero."""
    return numerator / denominator if denominator != 0 else float("nan")


def _sum_of_squares(x: FloatArray) -> float:
    return float(np.square(x).sum())


def _mean_r_squared(r: FloatArray, f: FloatArray, groups: NDArray[np.integer], n_groups: int) -> float:
    """Equal-weighted mean over groups of 1 - SSE/SST."""
    sse = np.bincount(groups, np.square(r - f), n_groups)
    sst = np.bincount(groups, np.square(r), n_groups)
    counts = sst > 0
    return _ratio(float((1.0 - sse[counts] / sst[counts]).sum()), int(np.count_nonzero(counts)))


def _centred_ranks(values: FloatArray, groups: NDArray[np.integer], n_groups: int) -> FloatArray:
    """Twice the average rank within the group less twice its mean: integers, so ties and sums are exact."""
    size = np.bincount(groups, minlength=n_groups)
    group_first = np.cumsum(size) - size
    order = np.arange(len(values))
    for first, last in pairwise(np.append(group_first, len(values))):  # rows come sorted by group
        order[first:last] = first + np.argsort(values[first:last])
    value, group = values[order], groups
    starts_run = np.ones(len(order), dtype=bool)
    starts_run[1:] = (value[1:] != value[:-1]) | (group[1:] != group[:-1])
    run_first = np.flatnonzero(starts_run)
    length = np.diff(np.append(run_first, len(order)))
    ranks = np.empty(len(order))
    # A run of ties at sorted places first..first+length-1 has average place first + (length - 1)/2.
    ranks[order] = np.repeat(2 * run_first + length - 1, length) - (2 * group_first + size - 1)[group]
    return ranks


def _gaussian_cells(realised: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> list[FloatArray]:
    cells = _counting(realised=realised, mean=mean, variance=variance)
    if np.any(cells[2] < 0):
        raise ValueError(f"variance: expected >= 0, got {cells[2].min()}")
    return cells


def _standardised(error: FloatArray, sd: FloatArray) -> FloatArray:
    """error / sd; with sd zero the limit: 0 for no error, infinite with its sign otherwise."""
    z = np.where(error == 0, 0.0, np.copysign(np.inf, error))
    with np.errstate(over="ignore"):
        return np.divide(error, sd, out=z, where=sd > 0)


def _common_rows(a: ArrayLike, b: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Rows of (T, K_a) and (T, K_b) finite in both."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"expected (T, K_a) and (T, K_b) with one T, got {x.shape} and {y.shape}")
    rows = np.all(np.isfinite(np.hstack([x, y])), axis=1)
    return x[rows], y[rows]


def _basis(x: FloatArray, centred: bool) -> FloatArray:
    """Orthonormal basis (n, rank) of the columns of (n, K), demeaned if `centred`, whatever their units."""
    unit, _ = unit_columns(x, centred)
    if unit.size == 0:
        return np.empty((len(unit), 0))
    left, singular, _ = np.linalg.svd(unit, full_matrices=False)
    tolerance = max(unit.shape) * np.finfo(np.float64).eps * singular[0]
    return left[:, singular > tolerance]
