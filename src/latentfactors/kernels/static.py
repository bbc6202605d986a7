"""What models with static loadings share: who takes part in a fit, moments, residuals, portfolios.

Participation    an asset needs 2K values in the periods that stay, a period `min_observed` values of the
                 assets that stay; applied until nothing changes, for dropping one can disqualify the other
Moments          over observed cells only; a missing cell is in no sum
Portfolios       W_p = B_p (B_p'B_p)^-1 over a period's row set: W_p'r_p are its least-squares factors
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.kernels.linalg import binary_scale
from latentfactors.rows import RowIndex
from latentfactors.validate import count

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_NO_MOVEMENT = 1e-12  # standard deviation relative to the root mean square of an asset that stands still


def check_limits(n_factors: int, min_observed: int | None, tolerance: float, max_iterations: int) -> None:
    """Refuse settings no fit can work with.

    Raises
    ------
    ConfigurationError
        Fewer observed assets than factors; a tolerance outside (0, 1); no iteration.
    """
    if min_observed is not None and min_observed < n_factors:
        raise ConfigurationError(
            f"min_observed={min_observed} cannot identify {n_factors} factors: give at least as many"
        )
    if not 0 < tolerance < 1 or max_iterations < 1:
        raise ConfigurationError(
            f"tolerance must lie in (0, 1) and max_iterations be positive, got {tolerance} and "
            f"{max_iterations}"
        )


def choose_cells(
    values: FloatArray, n_factors: int, min_observed: int | None
) -> tuple[BoolArray, BoolArray, int]:
    """Periods and assets with enough observations to take part in the fit.

    An asset needs 2K values in the periods that stay, a period `min_observed` values of the assets that stay;
    dropping one can disqualify the other, so both rules are applied until nothing changes.

    Parameters
    ----------
    values : (T, N), NaN where missing
    n_factors : K
    min_observed : observed assets a period needs; None: 2K, or all assets that stay if fewer

    Returns
    -------
    periods : (T,), assets : (N,), min_observed

    Raises
    ------
    InsufficientDataError
        When what is left cannot hold K factors.
    """
    k, observed = n_factors, np.isfinite(values)
    assets: BoolArray = observed.sum(axis=0) >= min(2 * k, values.shape[0])
    periods = observed.any(axis=1)
    needed = 0
    while True:
        needed = min_observed or min(2 * k, int(assets.sum()))
        kept_periods = periods & (observed[:, assets].sum(axis=1) >= needed)
        kept_assets = assets & (observed[kept_periods].sum(axis=0) >= min(2 * k, int(kept_periods.sum())))
        if np.array_equal(kept_periods, periods) and np.array_equal(kept_assets, assets):
            break
        periods, assets = kept_periods, kept_assets
    shape = (int(periods.sum()), int(assets.sum()))
    if k > min(shape):
        whole = "" if shape == values.shape else f" with enough observations (of {values.shape})"
        raise InsufficientDataError(
            f"n_factors={k} exceeds min(T, N)={min(shape)} of values {shape}{whole}: ask for fewer factors, "
            "or give a longer or fuller panel"
        )
    return np.asarray(periods), np.asarray(assets), needed


def left_out(assets: BoolArray, periods: BoolArray, n_factors: int, min_observed: int) -> list[str]:
    """Sentences about the assets (N,) and periods (T,) that took no part in the fit."""
    remarks = []
    if assets.any():
        remarks.append(
            f"{count(int(assets.sum()), 'asset')} with fewer than {2 * n_factors} values: no loadings"
        )
    if periods.any():
        remarks.append(
            f"{count(int(periods.sum()), 'period')} with fewer than {min_observed} observed assets: no "
            "factors"
        )
    return remarks


def factor_moments(factors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean (K,) and covariance (K, K, divisor T) of the realised factors."""
    realised = factors[np.isfinite(factors).all(axis=1)]
    mean = realised.mean(axis=0)
    return mean, (realised - mean).T @ (realised - mean) / len(realised)


def maximal_sharpe_ratio(mean: FloatArray, covariance: FloatArray) -> float:
    """sqrt(mu' V^-1 mu) of factors with mean mu (K,) and covariance V (K, K): the tangency portfolio's.

    Directions without variance are left out (minimum norm): they are rounding, or an arbitrage no ratio
    describes.
    """
    inverse = np.linalg.pinv(covariance, rcond=1e-12, hermitian=True)
    return math.sqrt(max(float(mean @ inverse @ mean), 0.0))


def asset_means(values: FloatArray) -> FloatArray:
    """(N,) mean of each asset over its observed periods; 0 where it has none."""
    observed = np.isfinite(values)
    return np.where(observed, values, 0.0).sum(axis=0) / np.maximum(observed.sum(axis=0), 1)


def volatility_scale(values: FloatArray, wanted: bool) -> tuple[FloatArray, BoolArray]:
    """Volatilities (N,) relative to their root mean square, and which assets stand still (N,).

    Relative, so that factors keep the values' unit. Without `wanted`: ones, and nothing stands still; so for
    assets without an answer.
    """
    ones, observed = np.ones(values.shape[1]), np.isfinite(values)
    if not wanted:
        return ones, np.zeros(values.shape[1], dtype=np.bool_)
    unit = binary_scale(values)
    normed = values / unit
    deviation = np.where(observed, normed - asset_means(normed), 0.0)
    n = np.maximum(observed.sum(axis=0), 1)
    level = np.sqrt((np.where(observed, normed, 0.0) ** 2).sum(axis=0) / n)
    volatility = np.sqrt((deviation * deviation).sum(axis=0) / n)
    still = volatility <= _NO_MOVEMENT * level
    if still.all():
        raise InsufficientDataError(
            "scale_by_volatility: no asset's values vary over time, so none has a volatility to divide by: "
            "give a longer panel, or scale_by_volatility=False"
        )
    typical = math.sqrt(float(np.mean(volatility[~still] ** 2)))
    return np.where(still, 1.0, volatility / typical), still


def residual_variances(residual: FloatArray, n_factors: int) -> FloatArray:
    """(N,) sum of squared residuals over observed cells / (their number less K); NaN without residuals."""
    observed = np.isfinite(residual)
    n = observed.sum(axis=0)
    squares = np.where(observed, residual, 0.0)
    squares = (squares * squares).sum(axis=0)
    return np.where(n > 0, squares / np.maximum(n - n_factors, 1), np.nan)


def projection_weights(index: RowIndex, loadings: FloatArray, min_observed: int) -> FloatArray:
    """(R, K) weights B_p (B_p'B_p)^-1 over each period's row set: its factors if every row were observed."""
    weights = np.zeros((index.n_rows, loadings.shape[1]))
    for p in range(index.n_periods):
        rows = index.rows(p)
        b = loadings[index.asset_codes[rows]]
        known = np.isfinite(b).all(axis=1)
        if known.sum() < min_observed:
            weights[rows] = np.nan
            continue
        block = np.zeros_like(b)
        block[known] = np.linalg.pinv(b[known], rcond=1e-6).T
        weights[rows] = block
    return weights


def by_asset(trained: FloatArray, known: npt.NDArray[np.int64]) -> FloatArray:
    """Training estimates (N_trained, ...) in a panel's order of assets, NaN where `known` (N,) is -1."""
    out = trained[known]
    out[known < 0] = np.nan
    return out


def factor_names(n_factors: int) -> tuple[str, ...]:
    """F1, F2, ..."""
    return tuple(f"F{k + 1}" for k in range(n_factors))
