"""Series that load on the factor of one period, or on a weighted sum of the latest periods' factors.

A series observed seldom is an aggregate of latent values of every period, y*_t = l'f_t + e_t:

    y_t = sum_(h<H) w_th y*_(t-h) = l'g_t + n_t,    g_t = sum_h w_th f_(t-h),   n_t = sum_h w_th e_(t-h)

    mean of L_t periods     w_th = 1/L_t, h < L_t (L_t may change: 4 or 5 weeks a month)
    Mariano-Murasawa        w = (1, 2, 3, 2, 1)/3: the change of a quarterly mean, y* the monthly changes. The
                            unscaled weights (1, 2, 3, 2, 1) give three times that.

Noise  own          n_t ~ N(0, s^2), independent, a variance of its own: for any weights, by declaration
       aggregated   n_t ~ N(0, s^2 sum_h w_th^2), independent, s^2 the variance of the latent noise: exact
                    where windows do not overlap, as with means
       carried      n_t as it follows from independent e_t: Mariano-Murasawa windows overlap by two months, so
                    neighbouring quarters correlate, 4/19 = .21, and Var n = 19/9 s^2. The month in the middle
                    of a window belongs to no other: its share is measurement noise, w_mid^2 s^2; the other
                    months' noises are factors of their own with A = 0, Q = s^2, loadings 1.

Stacked state s_t = (f_t, f_(t-1), ..., f_(t-H+1)): a series has the loading (w_t0 l, w_t1 l, ...), so what it
says about g_t lifts to the state by weights, b_h = w_h b, C_hi = w_h w_i C.

References: Mariano & Murasawa (2003), Journal of Applied Econometrics 18(4), 427-443; Banbura & Modugno
(2014), Journal of Applied Econometrics 29(1), 133-160, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentfactors.kernels.linalg import pack, unpack
from latentfactors.kernels.state_space import Information, Observations, SmootherResult, collapse, observe

FloatArray = NDArray[np.float64]

Noise = Literal["own", "aggregated", "carried"]


@dataclass(frozen=True, eq=False)
class SeriesBlock:
    """Series that share weights and a noise variance; build it with `series_block`.

    Attributes
    ----------
    observations : (T, d), each period divided by `scale`
    group : index of the noise variance
    weights : (T, H) or, on the current factor alone, None; divided by `scale`
    noise : own, aggregated or carried
    scale : (T,), sqrt(sum_h w_th^2) for aggregated noise, else ones
    middle : place of the window's unshared period, w_mid its weight (carried noise only)
    """

    observations: Observations
    group: int
    weights: FloatArray | None
    noise: Noise
    scale: FloatArray
    middle: int

    @property
    def depth(self) -> int:
        """Periods that the series look back on, H."""
        return 1 if self.weights is None else self.weights.shape[1]

    @property
    def n_series(self) -> int:
        """d."""
        return self.observations.mask.shape[1]

    @property
    def n_carried(self) -> int:
        """Noise factors that the block adds to the state."""
        return self.n_series if self.noise == "carried" else 0

    @property
    def share(self) -> float:
        """Measurement noise as a multiple of the group's variance."""
        if self.weights is None or self.noise != "carried":
            return 1.0
        return float(self.weights[0, self.middle] ** 2)


def mean_weights(lengths: ArrayLike) -> FloatArray:
    """Weights (T, max L) of the mean of the latest L_t periods; zeros where L_t = 0 (no observation).

    Examples
    --------
    >>> mean_weights([0, 2, 0, 1]).tolist()
    [[0.0, 0.0], [0.5, 0.5], [0.0, 0.0], [1.0, 0.0]]
    """
    length = np.asarray(lengths, dtype=np.intp)
    inside = np.arange(max(int(length.max(initial=1)), 1)) < length[:, None]
    return inside / np.maximum(length, 1)[:, None]


def mariano_murasawa_weights() -> FloatArray:
    """(1, 2, 3, 2, 1)/3: the change of a quarterly mean in terms of monthly changes, latest month first."""
    return np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 3.0


def series_block(
    values: ArrayLike, *, group: int = 0, weights: ArrayLike | None = None, noise: Noise = "own"
) -> SeriesBlock:
    """Series with their loading pattern and kind of noise.

    Parameters
    ----------
    values : (T, d), NaN where missing
    group : index of the noise variance, shared by all blocks that name it
    weights : (H,) or (T, H) of the latest H periods, latest first; None: the current period
    noise : own, aggregated or carried (module docstring)

    Raises
    ------
    ValueError
        if weights do not fit the values, a cell is observed where all weights are zero, or carried noise is
        asked for windows that differ or that share their middle period
    """
    array = np.asarray(values, dtype=np.float64)
    scale = np.ones(len(array))
    if weights is None:
        return SeriesBlock(observe(array), group, None, "own", scale, 0)
    given = np.asarray(weights, dtype=np.float64)
    table = np.array(np.broadcast_to(given, (len(array), given.shape[-1])))
    size = np.sqrt(np.square(table).sum(axis=1))
    if np.any(np.isfinite(array).any(axis=1) & (size == 0.0)):
        raise ValueError("weights: expected a non-zero weight in every period with an observation")
    middle = 0
    if noise == "aggregated":
        scale = np.where(size > 0.0, size, 1.0)
    elif noise == "carried":
        middle = table.shape[1] // 2
        gaps = [np.diff(np.flatnonzero(np.isfinite(column))).min(initial=middle + 1) for column in array.T]
        if given.ndim != 1 or table[0, middle] == 0.0 or min(gaps) <= middle:
            raise ValueError(
                "carried noise: expected one window, its middle weight not zero, and observations at least "
                f"{middle + 1} periods apart, got weights {given.shape}, smallest gap {min(gaps)}"
            )
    return SeriesBlock(observe(array / scale[:, None]), group, table / scale[:, None], noise, scale, middle)


def jacobian(block: SeriesBlock) -> float:
    """What dividing by `scale` adds to the log-likelihood: -sum n_t log scale_t, in input units."""
    return -float(block.observations.mask.sum(axis=1) @ np.log(block.scale))


def component_weights(block: SeriesBlock, n_factors: int, carried: slice) -> FloatArray:
    """Weights (T, H, k + c) of every factor and carried noise; other blocks' noises have weight zero."""
    n_periods = len(block.scale)
    weights = np.ones((n_periods, 1)) if block.weights is None else block.weights
    out = np.zeros((n_periods, block.depth, carried.stop if block.n_carried else n_factors))
    out[:, :, :n_factors] = weights[:, :, None]
    if block.n_carried:
        out[:, :, carried] = weights[:, :, None]
        out[:, block.middle, carried] = 0.0
    return out


def block_information(
    block: SeriesBlock,
    loadings: FloatArray,
    variance: float,
    *,
    carried: slice,
    width: int,
    by_period: bool = False,
) -> Information:
    """What the block says about the leading `width` factors and their lags, in stacked order.

    Parameters
    ----------
    block : d series
    loadings : (d, k), on the factors
    variance : of the block's group
    carried : place of the block's own noises among the `width` factors
    width : r, factors and carried noises of all blocks
    by_period : see `state_space.collapse`

    Returns
    -------
    Information
        of H r entries
    """
    k = loadings.shape[1]
    if block.n_carried:
        extended = np.zeros((block.n_series, width))
        extended[:, :k] = loadings
        extended[:, carried] = np.eye(block.n_series)
        loadings = extended
    noise = np.full(block.n_series, variance * block.share)
    information = collapse(block.observations, loadings, noise, by_period=by_period)
    if block.weights is None and k == width:
        return information
    n_periods, used = information.linear.shape
    weights = component_weights(block, k, carried)
    linear = np.zeros((n_periods, block.depth, width))
    linear[:, :, :used] = weights * information.linear[:, None, :]
    precision = np.zeros((n_periods, block.depth, width, block.depth, width))
    square = unpack(information.precision)
    for h in range(block.depth):
        for i in range(block.depth):
            precision[:, h, :used, i, :used] = weights[:, h, :, None] * square * weights[:, i, None, :]
    size = block.depth * width
    return Information(
        linear.reshape(n_periods, size), pack(precision.reshape(n_periods, size, size)), information.remainder
    )


def widened(information: Information, size: int) -> Information:
    """The same information about a longer leading part of the state, nothing said about the rest."""
    n_periods, k = information.linear.shape
    if k == size:
        return information
    linear = np.zeros((n_periods, size))
    linear[:, :k] = information.linear
    rows, columns = np.triu_indices(size)
    precision = np.zeros((n_periods, len(rows)))
    precision[:, (rows < k) & (columns < k)] = information.precision
    return Information(linear, precision, information.remainder)


def aggregated_moments(
    block: SeriesBlock, smoothed: SmootherResult, n_factors: int, carried: slice
) -> tuple[FloatArray, FloatArray]:
    """Mean (T, u) and covariance (T, u, u) of the weighted sums that the block loads on.

    u = k for the factors, or up to the end of `carried` where the block's noise is carried.
    """
    n_periods, r, m = smoothed.lagged.shape
    if block.weights is None:
        return smoothed.mean[:, :n_factors], smoothed.covariance[:, :n_factors, :n_factors]
    weights = component_weights(block, n_factors, carried)
    used = weights.shape[2]
    means = smoothed.mean.reshape(n_periods, m // r, r)[:, : block.depth, :used]
    mean = (weights * means).sum(axis=1)
    spread = smoothed.covariance.reshape(n_periods, m // r, r, m // r, r)
    covariance = np.zeros((n_periods, used, used))
    for h in range(block.depth):
        for i in range(block.depth):
            part = spread[:, h, :used, i, :used]
            covariance += weights[:, h, :, None] * part * weights[:, i, None, :]
    return mean, covariance
