"""Time-series regressions of many assets on the same factors, by weighted sums over the observed cells.

Model            x_ti = a_i + f_t'b_i + e_ti over periods with x_ti and f_t known; design d_t = (1, f_t)
Sums             S_i = sum_t w_t m_ti d_t d_t',  c_i = sum_t w_t m_ti d_t x_ti,  q_i = sum_t w_t m_ti x_ti^2,
                 in one pass. w_t = 1: static; 1 in a window: rolling; 2^(-age / half_life): exponential, by
                 S <- decay S + m d d'
Coefficients     (a_i, b_i) = S_i^-1 c_i for all assets at once; NaN with too few observations, or where the
                 design's columns, at unit length, have a singular-value ratio below 1e-6
Residuals        s2_i = (q_i - c_i'S_i^-1 c_i) / (W_i (1 - P/n_i)), W = sum w, n = W^2 / sum w^2 the effective
                 number of observations: SSE / (n - P) with equal weights
Units            factors enter as (f - centre) / unit, both fixed beforehand, so that a level (a yield of 5
                 that moves by .01) costs no digits; the answers are turned back
Bits             row p is made from periods before p by products of that past alone: nothing later rounds it
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.kernels.linalg import binary_scale, outer_products, solve_psd_batch, unpack
from latentfactors.rows import RowIndex

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_RATIO = 1e-6
# a correlation matrix of P variables has eigenvalues of at least its determinant / e
_CLEAR_DETERMINANT = 1e-9


@dataclass(frozen=True, eq=False)
class Design:
    """How factors become regressors: (f - centre) / unit, a one in front if there is an intercept.

    Attributes
    ----------
    centre : (K,), unit : (K,)
    intercept : whether a_i is estimated; without it the centre is zero
    """

    centre: FloatArray
    unit: FloatArray
    intercept: bool

    @classmethod
    def of(cls, factors: FloatArray, intercept: bool) -> Design:
        """Centre and unit of (T, K) factors, from the periods in which all are known."""
        known = factors[np.isfinite(factors).all(axis=1)]
        centre = known.mean(axis=0) if intercept and len(known) else np.zeros(factors.shape[1])
        unit = np.array([binary_scale(column) for column in (known - centre).T])
        return cls(centre, unit, intercept)

    @property
    def size(self) -> int:
        """Number of coefficients P."""
        return self.centre.size + self.intercept

    def rows(self, factors: FloatArray) -> FloatArray:
        """(T, P) regressors; rows with an unknown factor are NaN."""
        known = np.isfinite(factors).all(axis=1)
        scaled = (factors - self.centre) / self.unit
        full = np.column_stack([np.ones(len(factors)), scaled]) if self.intercept else scaled
        full[~known] = np.nan
        return full

    def singular_ratio(self, factors: FloatArray) -> float:
        """Smallest over largest singular value of the known regressors, columns at unit length."""
        rows = self.rows(factors)
        rows = rows[np.isfinite(rows).all(axis=1)]
        lengths = np.linalg.norm(rows, axis=0)
        if len(rows) < self.size or not np.all(lengths > 0.0):
            return 0.0
        singular = np.linalg.svd(rows / lengths, compute_uv=False)
        return float(singular[-1] / singular[0])

    def turn_back(self, coefficients: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Intercepts (n,), zero if there are none, and slopes (n, K) in the units of the factors."""
        slopes = coefficients[:, self.intercept :] / self.unit
        if not self.intercept:
            return np.where(np.isfinite(slopes).all(axis=1), 0.0, np.nan), slopes
        return coefficients[:, 0] - slopes @ self.centre, slopes


@dataclass(frozen=True, eq=False)
class RegressionSums:
    """Weighted sums of n regressions.

    Attributes
    ----------
    grams : (n, P(P+1)/2) packed S_i
    crosses : (n, P) c_i
    squares : (n,) q_i
    weights, squared_weights : (n,) sum of w and of w^2
    counts : (n,) observations, unweighted
    """

    grams: FloatArray
    crosses: FloatArray
    squares: FloatArray
    weights: FloatArray
    squared_weights: FloatArray
    counts: FloatArray

    @classmethod
    def zero(cls, n: int, size: int) -> RegressionSums:
        """No observations of n regressions with P = size coefficients."""
        shapes = [(n, size * (size + 1) // 2), (n, size), (n,), (n,), (n,), (n,)]
        return cls(*(np.zeros(shape) for shape in shapes))

    @classmethod
    def of(cls, values: FloatArray, design: FloatArray) -> RegressionSums:
        """Equally weighted sums over (T, n) values, NaN where missing, and (T, P) design rows."""
        known = np.asarray(np.isfinite(design).all(axis=1))
        observed = np.isfinite(values) & known[:, None]
        mask = observed.astype(np.float64)
        filled, rows = np.where(observed, values, 0.0), np.where(known[:, None], design, 0.0)
        counts = mask.sum(axis=0)
        return cls(
            mask.T @ outer_products(rows),
            filled.T @ rows,
            (filled * filled).sum(axis=0),
            counts,
            counts,
            counts,
        )

    @classmethod
    def weighted(cls, values: FloatArray, design: FloatArray, half_life: float) -> RegressionSums:
        """Sums over (T, n) values with weights 2^(-age / half_life), the last period at age 0."""
        sums = cls.zero(values.shape[1], design.shape[1])
        for t in range(len(values)):
            sums = sums.then(values[t], design[t], decay_of(half_life))
        return sums

    def then(self, values: FloatArray, row: FloatArray, decay: float) -> RegressionSums:
        """The sums one period later: the past times `decay`, plus (n,) values on the design row (P,).

        A period without values or with unknown factors ages the past and adds nothing.
        """
        observed = np.isfinite(values) & bool(np.isfinite(row).all())
        mask, filled = observed.astype(np.float64), np.where(observed, values, 0.0)
        row = np.where(np.isfinite(row), row, 0.0)
        return RegressionSums(
            decay * self.grams + mask[:, None] * outer_products(row[None, :]),
            decay * self.crosses + filled[:, None] * row,
            decay * self.squares + filled * filled,
            decay * self.weights + mask,
            decay * decay * self.squared_weights + mask,
            self.counts + mask,
        )

    def take(self, positions: IntArray) -> RegressionSums:
        """The sums of some regressions; position -1 is one without observations."""
        fresh = positions < 0
        parts = [np.array(part[positions]) for part in vars(self).values()]
        for part in parts:
            part[fresh] = 0.0
        return RegressionSums(*parts)


def solve_regressions(
    sums: RegressionSums, design: Design, min_observations: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Intercepts (n,), slopes (n, K) and residual variances (n,); NaN where not identified.

    Parameters
    ----------
    sums
        Of n regressions.
    design
        The design whose rows were summed.
    min_observations
        Observations a regression needs; the effective number must exceed the number of coefficients, too.
    """
    n, size = len(sums.counts), design.size
    coefficients, variance = np.full((n, size), np.nan), np.full(n, np.nan)
    effective = np.divide(
        sums.weights**2, sums.squared_weights, out=np.zeros(n), where=sums.squared_weights > 0.0
    )
    enough = np.flatnonzero((sums.counts >= min_observations) & (effective > size))
    grams = unpack(sums.grams[enough])
    usable = _identified(grams)
    solved = enough[usable]
    found = solve_psd_batch(grams[usable], sums.crosses[solved])
    coefficients[solved] = found
    # summed column by column: a product over columns would round by the shape of its neighbours
    explained = np.zeros(solved.size)
    for j in range(size):
        explained += found[:, j] * sums.crosses[solved, j]
    share = 1.0 - size / effective[solved]
    variance[solved] = np.maximum(sums.squares[solved] - explained, 0.0) / (sums.weights[solved] * share)
    return *design.turn_back(coefficients), variance


def rolling_regressions(
    values: FloatArray,
    rows: FloatArray,
    index: RowIndex,
    design: Design,
    window: int,
    min_observations: int,
    n_before: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Regressions of every row of `index` over the `window` periods before its own, as `solve_regressions`.

    Parameters
    ----------
    values : (n_before + T, N), rows : (n_before + T, P)
        Values and design rows, the history before the panel first.
    """
    out = _nothing(index.n_rows, design.centre.size)
    with threadpool_limits(limits=1, user_api="blas"):  # small products: threads cost more
        for p in range(index.n_periods):
            here, end = index.rows(p), p + n_before
            span = slice(max(0, end - window), end)
            # the period's own assets only: labels of assets that come later must not change a product's shape
            sums = RegressionSums.of(values[span][:, index.asset_codes[here]], rows[span])
            for part, found in zip(out, solve_regressions(sums, design, min_observations), strict=True):
                part[here] = found
    return out


def weighted_regressions(
    values: FloatArray,
    rows: FloatArray,
    index: RowIndex,
    design: Design,
    half_life: float,
    min_observations: int,
    past: RegressionSums,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Regressions of every row over all periods before its own, weights 2^(-age / half_life).

    Parameters
    ----------
    values : (T, N), rows : (T, P)
        Values and design rows of the panel.
    past
        (N,) sums of what happened before the panel.
    """
    out, decay = _nothing(index.n_rows, design.centre.size), decay_of(half_life)
    for p in range(index.n_periods):
        here = index.rows(p)
        sums = past.take(index.asset_codes[here].astype(np.int64))
        for part, found in zip(out, solve_regressions(sums, design, min_observations), strict=True):
            part[here] = found
        past = past.then(values[p], rows[p], decay)
    return out


def decay_of(half_life: float) -> float:
    """2^(-1 / half_life)."""
    return float(np.exp2(-1.0 / half_life))


def fitted_values(alpha: FloatArray, slopes: FloatArray, factors: FloatArray) -> FloatArray:
    """alpha + slopes . factors for n rows: (n,), (n, K) and (n, K) or (K,)."""
    total = alpha.copy()
    for k in range(slopes.shape[1]):
        total += slopes[:, k] * factors[..., k]
    return total


def _nothing(n_rows: int, n_factors: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    return np.full(n_rows, np.nan), np.full((n_rows, n_factors), np.nan), np.full(n_rows, np.nan)


def _identified(grams: FloatArray) -> BoolArray:
    """(n,) whether the columns behind the Gram matrices (n, P, P) are independent to a ratio of 1e-6."""
    diagonal = np.diagonal(grams, axis1=1, axis2=2)
    lengths = np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    unit = grams / (lengths[:, :, None] * lengths[:, None, :])
    clear = np.linalg.det(unit) > _CLEAR_DETERMINANT
    doubtful = np.flatnonzero(~clear)
    if doubtful.size:
        eigenvalues = np.linalg.eigvalsh(unit[doubtful])
        clear[doubtful] = eigenvalues[:, 0] > _RATIO**2 * eigenvalues[:, -1]
    return clear
