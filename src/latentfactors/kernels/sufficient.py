"""What a linear conditional model needs of a panel, period by period: its rows are read once.

    W_t = Z_t' D_t Z_t (L, L)    x_t = Z_t' D_t r_t (L,)    r_t' D_t r_t    n_t        D_t = weights, or I

over the observed rows of period t. Everything a least-squares fit of r_t on Z_t can say follows from these,
for any linear map of the characteristics: the cost of an iteration no longer depends on the number of assets.

One contiguous product per period, [Z_t r_t]'[Z_t r_t], under one BLAS thread: a period is small, and threads
cost more than they bring. Characteristics stored as float32 are converted one period at a time. Statistics of
disjoint stretches of time are concatenated; `latentfactors.parquet_statistics` reads those of a file that is
larger than memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.kernels.linalg import solve_psd_batch
from latentfactors.rows import ReadOnlyAfterPickling

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PanelStatistics(ReadOnlyAfterPickling):
    """Second moments of every period over its observed rows.

    Attributes
    ----------
    grams : (T, L, L), W_t = Z_t'D_tZ_t
    crosses : (T, L), x_t = Z_t'D_tr_t
    squares : (T,), r_t'D_tr_t
    counts : (T,) int64, observed rows with a positive weight

    Examples
    --------
    >>> Z, r = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([3.0, np.nan])
    >>> statistics = period_statistics(r, Z, np.array([0, 2]))
    >>> statistics.grams[0].tolist(), statistics.crosses[0].tolist(), int(statistics.counts[0])
    ([[1.0, 2.0], [2.0, 4.0]], [3.0, 6.0], 1)
    """

    grams: FloatArray
    crosses: FloatArray
    squares: FloatArray
    counts: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("grams", "crosses", "squares", "counts"):
            view = np.asarray(getattr(self, name)).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @property
    def n_periods(self) -> int:
        """Number of periods T."""
        return self.counts.size

    @property
    def n_characteristics(self) -> int:
        """Number of characteristics L, the constant included."""
        return self.crosses.shape[1]

    def concatenate(self, later: PanelStatistics) -> PanelStatistics:
        """These periods and then those of another stretch of time."""
        return PanelStatistics(
            np.concatenate([self.grams, later.grams]),
            np.concatenate([self.crosses, later.crosses]),
            np.concatenate([self.squares, later.squares]),
            np.concatenate([self.counts, later.counts]),
        )

    def take(self, periods: Any) -> PanelStatistics:
        """Some periods: a slice, positions or a boolean mask."""
        return PanelStatistics(
            self.grams[periods], self.crosses[periods], self.squares[periods], self.counts[periods]
        )

    def __sizeof__(self) -> int:
        arrays = (self.grams, self.crosses, self.squares, self.counts)
        return object.__sizeof__(self) + sum(each.nbytes for each in arrays)


class Accumulator:
    """Collects the statistics of one period after another.

    Parameters
    ----------
    n_characteristics
        L without the constant.
    constant
        Append a characteristic that is 1 in every row, last.
    """

    def __init__(self, n_characteristics: int, *, constant: bool = False) -> None:
        self._width, self._constant = n_characteristics, constant
        self._buffer = np.empty((0, n_characteristics + constant + 1))
        self._moments: list[FloatArray] = []
        self._counts: list[int] = []

    def add(
        self,
        values: npt.NDArray[Any] | None,
        characteristics: npt.NDArray[Any] | None,
        weights: FloatArray | None = None,
    ) -> None:
        """Append a period of rows (n,), (n, L), (n,); rows whose value is NaN are left out."""
        size = self._buffer.shape[1]
        if values is None or characteristics is None:
            self._moments.append(np.zeros((size, size)))
            self._counts.append(0)
            return
        seen = np.isfinite(values)
        if weights is not None:
            seen &= weights > 0
        n = int(seen.sum())
        if n > self._buffer.shape[0]:
            self._buffer = np.empty((n + n // 4, size))
        block = self._buffer[:n]
        everything = n == values.size
        block[:, : self._width] = characteristics if everything else characteristics[seen]
        if self._constant:
            block[:, -2] = 1.0
        block[:, -1] = values if everything else values[seen]
        if weights is not None:
            block *= np.sqrt(weights[seen])[:, None]
        self._moments.append(block.T @ block)
        self._counts.append(n)

    def result(self) -> PanelStatistics:
        """The statistics of all periods so far."""
        size = self._buffer.shape[1]
        moments = np.stack(self._moments) if self._moments else np.zeros((0, size, size))
        return PanelStatistics(
            np.ascontiguousarray(moments[:, :-1, :-1]),
            np.ascontiguousarray(moments[:, :-1, -1]),
            np.ascontiguousarray(moments[:, -1, -1]),
            np.array(self._counts, dtype=np.int64),
        )


def period_statistics(
    values: FloatArray,
    characteristics: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    *,
    weights: FloatArray | None = None,
    constant: bool = False,
) -> PanelStatistics:
    """Statistics of a panel in memory.

    Parameters
    ----------
    values : (R,), NaN where not observed.
    characteristics : (R, L) float32 or float64, finite in observed rows.
    offsets : (T + 1,), period t's rows are offsets[t]:offsets[t + 1].
    weights : (R,), not negative; None weighs all rows 1. Rows with weight 0 count as unobserved.
    constant : append a characteristic that is 1 in every row, last.

    Returns
    -------
    PanelStatistics
        A period's numbers depend, to the bit, on its own rows only.
    """
    collected = Accumulator(characteristics.shape[1], constant=constant)
    with threadpool_limits(limits=1, user_api="blas"):
        for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            collected.add(values[a:b], characteristics[a:b], None if weights is None else weights[a:b])
    return collected.result()


def scaled_weights(values: FloatArray, weights: FloatArray, offsets: npt.NDArray[Any]) -> FloatArray:
    """Weights (R,) divided by their period's mean over observed rows: a period then counts as its rows do.

    Every observed row has a weight. A period whose observed rows weigh nothing gets zeros.
    """
    scaled = np.zeros(len(weights))
    for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        seen = np.isfinite(values[a:b])
        total = float(weights[a:b][seen].sum())
        if total > 0:
            scaled[a:b] = weights[a:b] * (seen.sum() / total)
    return scaled


# ------------------------------------------------------------------------------------ given coefficients


def mean_diagonals(grams: FloatArray) -> FloatArray:
    """tr(W_t)/L, (T,): what ridges are measured in."""
    return np.trace(grams, axis1=1, axis2=2) / grams.shape[1]


def exposures(
    characteristics: npt.NDArray[Any], offsets: npt.NDArray[np.int64], coefficients: FloatArray
) -> FloatArray:
    """Z_t times coefficients (L, C) period by period, (R, C); one coefficient more is that of a constant."""
    given = characteristics.shape[1]
    slopes = np.ascontiguousarray(coefficients[:given])
    out = np.empty((len(characteristics), coefficients.shape[1]))
    for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        np.matmul(np.ascontiguousarray(characteristics[a:b], dtype=np.float64), slopes, out=out[a:b])
    return out if len(coefficients) == given else out + coefficients[-1]


def gram_factors(
    grams: FloatArray,
    crosses: FloatArray,
    counts: npt.NDArray[np.int64],
    *,
    min_observed: int,
    ratio: float = 1e-6,
) -> FloatArray:
    """(B'DB)^-1 B'Dy of every period from B'DB (T, K, K) and B'Dy (T, K); see `conditional_factors`."""
    factors = np.full(crosses.shape, np.nan)
    enough = np.flatnonzero(counts >= max(min_observed, crosses.shape[1]))
    if enough.size:
        eigenvalues = np.linalg.eigvalsh(grams[enough])
        regular = enough[eigenvalues[:, 0] > ratio**2 * np.maximum(eigenvalues[:, -1], 0.0)]
        factors[regular] = solve_psd_batch(grams[regular], crosses[regular])
    return factors


def projected_factors(
    statistics: PanelStatistics,
    gamma: FloatArray,
    *,
    min_observed: int,
    known: FloatArray | None = None,
    shrink: FloatArray | None = None,
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """f_t = (Gamma'W_tGamma + s_t I)^-1 Gamma'(x_t - W_tc_t) of every period that allows it.

    Parameters
    ----------
    statistics : W_t, x_t and n_t.
    gamma : (L, K)
    min_observed : fewer observed rows than this give a NaN row.
    known : (T, L), c_t, or None for zeros; NaN gives a NaN row.
    shrink : (T,), s_t, or None for zeros.

    Returns
    -------
    factors : (T, K), each row, to the bit, from its own period only.
    doubtful : positions of periods that Gamma'W_tGamma is too rounded to solve: `conditional_factors` has to
        say from their rows. Its smallest eigenvalue there is less than 1e-6 of what its terms add up to
        without their signs.
    """
    W, crosses, k = statistics.grams, statistics.crosses, gamma.shape[1]
    if known is not None:
        crosses = crosses - (W @ known[:, :, None])[:, :, 0]
    # period by period, not as one product: its rounding would depend on the number of periods
    crosses = (crosses[:, None, :] @ gamma)[:, 0]
    grams = gamma.T @ (W @ gamma)
    size = np.square(np.sqrt(np.diagonal(W, axis1=1, axis2=2))[:, None, :] @ np.abs(gamma)).sum(axis=(1, 2))
    if shrink is not None:
        grams[:, np.arange(k), np.arange(k)] += shrink[:, None]
        size += shrink
    factors = np.full(crosses.shape, np.nan)
    enough = (statistics.counts >= max(min_observed, k)) & np.isfinite(crosses).all(axis=1)
    regular = np.zeros_like(enough)
    regular[enough] = np.linalg.eigvalsh(grams[enough])[:, 0] > 1e-6 * size[enough]
    factors[regular] = solve_psd_batch(grams[regular], crosses[regular])
    return factors, np.flatnonzero(enough & ~regular)


def conditional_factors(
    loadings: FloatArray,
    targets: FloatArray,
    offsets: npt.NDArray[np.int64],
    *,
    min_observed: int,
    weights: FloatArray | None = None,
    shrink: FloatArray | None = None,
) -> FloatArray:
    """f_t = (B_t'D_tB_t + s_t I)^-1 B_t'D_ty_t over the observed rows of every period.

    Parameters
    ----------
    loadings : (R, K), B_t = Z_tGamma stacked.
    targets : (R,), values less what is known of them; NaN where not observed.
    offsets : (T + 1,)
    min_observed : fewer observed rows than this give a NaN row.
    weights : (R,), the diagonals of D_t, or None for ones.
    shrink : (T,), s_t, or None for zeros.

    Returns
    -------
    (T, K). NaN where the singular values of B_t differ by more than 1e6. Each row depends, to the bit, on its
    own period only.
    """
    k, n_periods = loadings.shape[1], offsets.size - 1
    grams, crosses = np.zeros((n_periods, k, k)), np.zeros((n_periods, k))
    counts = np.zeros(n_periods, dtype=np.int64)

    def observed(t: int) -> tuple[FloatArray, FloatArray]:
        rows = slice(int(offsets[t]), int(offsets[t + 1]))
        seen = np.isfinite(targets[rows])
        if weights is None:
            return loadings[rows][seen], targets[rows][seen]
        seen &= weights[rows] > 0
        root = np.sqrt(weights[rows][seen])
        return loadings[rows][seen] * root[:, None], targets[rows][seen] * root

    for t in range(n_periods):
        b, y = observed(t)
        counts[t] = y.size
        np.matmul(b.T, b, out=grams[t])
        np.matmul(b.T, y, out=crosses[t])
    if shrink is not None:
        grams[:, np.arange(k), np.arange(k)] += shrink[:, None]
    # normal equations err by eps over the eigenvalue ratio: below 1e-6 the period is solved by SVD
    factors = gram_factors(grams, crosses, counts, min_observed=min_observed, ratio=1e-3)
    doubtful = np.isnan(factors).any(axis=1) & (counts >= max(min_observed, k))
    for t in np.flatnonzero(doubtful).tolist():
        b, y = observed(t)
        if shrink is not None:
            b, y = np.vstack([b, np.sqrt(shrink[t]) * np.eye(k)]), np.concatenate([y, np.zeros(k)])
        left, singular, right = np.linalg.svd(b, full_matrices=False)
        if singular[-1] > 0.0 and singular[-1] >= 1e-6 * singular[0]:
            factors[t] = ((y @ left) / singular) @ right
    return factors


def period_ridges(
    loadings: FloatArray, rows: npt.NDArray[np.bool_], offsets: npt.NDArray[np.int64], ridge: float
) -> FloatArray | None:
    """(T,) ridge tr(B_t'B_t)/K over the marked rows (R,) of every period; None without a ridge."""
    if ridge == 0.0:
        return None
    squares = np.where(rows, np.einsum("rk,rk->r", loadings, loadings), 0.0)
    total = np.add.reduceat(np.append(squares, 0.0), offsets[:-1])
    return ridge / loadings.shape[1] * np.where(np.diff(offsets) > 0, total, 0.0)


def projection_weights(loadings: FloatArray, weights: FloatArray | None, shrink: float) -> FloatArray:
    """(n, K) portfolios DB(B'DB + sI)^-1 of one period's rows: what they earn is the factor."""
    root = np.ones(len(loadings)) if weights is None else np.sqrt(weights)
    b = loadings * root[:, None]
    if shrink > 0.0:
        b = np.linalg.solve(b.T @ b + shrink * np.eye(b.shape[1]), b.T).T
    else:
        b = np.linalg.pinv(b, rcond=1e-6).T
    return np.asarray(b * root[:, None], dtype=np.float64)


def portfolio_weights(
    loadings: FloatArray,
    offsets: npt.NDArray[Any],
    *,
    min_observed: int,
    weights: FloatArray | None = None,
    shrink: FloatArray | None = None,
) -> FloatArray:
    """(R, K) `projection_weights` of every period; NaN in periods of fewer rows than `min_observed`."""
    portfolios = np.full(loadings.shape, np.nan)
    for p, (a, b) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        if b - a >= min_observed:
            portfolios[a:b] = projection_weights(
                loadings[a:b],
                None if weights is None else weights[a:b],
                0.0 if shrink is None else float(shrink[p]),
            )
    return portfolios
