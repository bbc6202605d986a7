"""Which asset is linked to which named factor, kept on its pattern: a handful of links a row.

Links            (R, M) position of the factor that column m of the row's attributes names, -1 for none. The
                 adjacency matrix A in {0,1}^(R x K) has M ones in a row and is never formed.
Slots            one for every (asset, factor) that occurs: where a loading lives. An asset whose category
                 changes has a slot for each category it has had.
Normal equations sum over the rows of a group (a period, an asset) of x x' and x y, where x has M entries
                 that are not zero: M^2/2 products a row instead of K^2/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
SmallIntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Pattern:
    """Observed rows and their links, by period and by asset.

    Attributes
    ----------
    n_factors : K
    links : (R, M) factor of every link, ascending in a row where given, -1 for none
    slots : (R, M) slot of every link, -1 for none
    period_starts : (T + 1,) rows of period t are period_starts[t]:period_starts[t + 1]
    slot_asset, slot_factor : (S,) asset and factor of every slot, sorted by asset, then factor
    asset_slots : (N + 1,) slots of asset i are asset_slots[i]:asset_slots[i + 1]
    by_asset : (R,) rows sorted by asset, then period
    asset_starts : (N + 1,) bounds in `by_asset`
    own_slots : (R, M) in the order of `by_asset`: slot counted from the asset's first, -1 for none
    factor_cells : (R, M) in the order of `by_asset`: position in (T, K) factors laid flat
    """

    n_factors: int
    links: SmallIntArray
    slots: SmallIntArray
    period_starts: IntArray
    slot_asset: IntArray
    slot_factor: IntArray
    asset_slots: IntArray
    by_asset: IntArray
    asset_starts: IntArray
    own_slots: SmallIntArray
    factor_cells: SmallIntArray

    @property
    def n_periods(self) -> int:
        """Number of periods T."""
        return self.period_starts.size - 1

    @property
    def n_assets(self) -> int:
        """Number of assets N."""
        return self.asset_starts.size - 1

    @property
    def n_slots(self) -> int:
        """Number of (asset, factor) pairs S."""
        return self.slot_asset.size

    @property
    def row_periods(self) -> IntArray:
        """(R,) period of every row."""
        return np.repeat(np.arange(self.n_periods), np.diff(self.period_starts))


def build_pattern(
    links: SmallIntArray,
    asset_codes: npt.NDArray[np.integer],
    period_starts: IntArray,
    *,
    n_assets: int,
    n_factors: int,
) -> Pattern:
    """The pattern of R rows, sorted by period.

    Parameters
    ----------
    links : (R, M), -1 for none; no factor twice in a row.
    asset_codes : (R,) in 0..n_assets-1.
    period_starts : (T + 1,).
    """
    links = np.sort(links, axis=1)  # -1 first: the order in which sums run is the factors', not the caller's
    codes = asset_codes.astype(np.int64)
    linked = links >= 0
    key = codes[:, None] * n_factors + links
    occurs = np.zeros(n_assets * n_factors, dtype=bool)
    occurs[key[linked]] = True
    pairs = np.flatnonzero(occurs)
    number = np.full(occurs.size, -1, dtype=np.int32)
    number[pairs] = np.arange(pairs.size)
    slots = np.where(linked, number[np.where(linked, key, 0)], -1).astype(np.int32)
    slot_asset, slot_factor = np.divmod(pairs, n_factors)
    asset_slots = np.searchsorted(slot_asset, np.arange(n_assets + 1))
    by_asset = np.argsort(codes, kind="stable")
    asset_starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=n_assets))])
    period = np.repeat(np.arange(period_starts.size - 1), np.diff(period_starts))
    sorted_slots, sorted_links = slots[by_asset], links[by_asset]
    own = np.where(sorted_slots >= 0, sorted_slots - asset_slots[codes[by_asset], None], -1)
    cells = np.where(sorted_links >= 0, period[by_asset, None] * n_factors + sorted_links, -1)
    return Pattern(
        n_factors=n_factors,
        links=links,
        slots=slots,
        period_starts=np.asarray(period_starts, dtype=np.int64),
        slot_asset=slot_asset,
        slot_factor=slot_factor,
        asset_slots=asset_slots,
        by_asset=by_asset,
        asset_starts=asset_starts,
        own_slots=own.astype(np.int32),
        factor_cells=cells.astype(np.int32),
    )


def period_equations(
    pattern: Pattern, loadings: FloatArray, values: FloatArray, *, grams: bool = True
) -> tuple[FloatArray, FloatArray]:
    """sum_i b_i b_i' (T, K, K) and sum_i b_i y_i (T, K) over the rows of every period.

    `loadings` (S,) by slot, `values` (R,). Without `grams` the first answer is empty. Each period is summed
    from its own rows alone, in their order.
    """
    size = (pattern.n_periods, pattern.n_factors)
    gram, cross = np.zeros((*size, size[1] if grams else 0)), np.zeros(size)
    accumulate(pattern.period_starts, values, pattern.links, pattern.slots, loadings, gram, cross)
    return full_from_lower(gram), cross


def asset_equations(
    pattern: Pattern, factors: FloatArray, values: FloatArray, *, grams: bool = True
) -> tuple[FloatArray, FloatArray]:
    """sum_t f_t f_t' (N, P, P) and sum_t f_t y_t (N, P) over the rows of every asset, on its own P slots.

    `factors` (T, K), `values` (R,). P is the largest number of slots of an asset; what is beyond an asset's
    own number is zero.
    """
    most = int(np.diff(pattern.asset_slots).max(initial=0))
    gram, cross = np.zeros((pattern.n_assets, most, most if grams else 0)), np.zeros((pattern.n_assets, most))
    table = np.ascontiguousarray(factors).ravel()
    sorted_values = values[pattern.by_asset]
    accumulate(
        pattern.asset_starts, sorted_values, pattern.own_slots, pattern.factor_cells, table, gram, cross
    )
    return full_from_lower(gram), cross


def to_slots(pattern: Pattern, own: FloatArray) -> FloatArray:
    """(S,) from an asset's own slots (N, P)."""
    return own[pattern.slot_asset, np.arange(pattern.n_slots) - pattern.asset_slots[pattern.slot_asset]]


def common_rows(pattern: Pattern) -> FloatArray:
    """(K, K) number of rows linked to both factors."""
    whole = np.array([0, pattern.links.shape[0]])
    gram, cross = np.zeros((1, pattern.n_factors, pattern.n_factors)), np.zeros((1, pattern.n_factors))
    ones = np.ones(pattern.n_slots)
    accumulate(whole, np.zeros(whole[1]), pattern.links, pattern.slots, ones, gram, cross)
    return full_from_lower(gram)[0]


def rows_of_slots(pattern: Pattern) -> IntArray:
    """(S,) number of rows of every slot."""
    return np.bincount(pattern.slots[pattern.slots >= 0], minlength=pattern.n_slots)


def factor_names(attribute: str, categories: tuple[str, ...]) -> tuple[str, ...]:
    """`country=FR` and so on."""
    return tuple(f"{attribute}={category}" for category in categories)


# ------------------------------------------------------------------------------------ compiled


@nb.njit(cache=True, nogil=True)
def accumulate(starts, values, local, position, table, grams, crosses):  # pragma: no cover
    """Add x x' (lower triangle) and x y of every row to its group's sums; x_local[m] = table[position[m]].

    starts (G + 1,), values (R,), local and position (R, M) with -1 for none, table flat, grams (G, P, P) or
    (G, P, 0) for none, crosses (G, P).
    """
    with_grams = grams.shape[2] > 0
    for g in range(starts.size - 1):
        for r in range(starts[g], starts[g + 1]):
            for a in range(local.shape[1]):
                i = local[r, a]
                if i < 0:
                    continue
                x = table[position[r, a]]
                crosses[g, i] += x * values[r]
                if with_grams:
                    for b in range(a + 1):
                        j = local[r, b]
                        if j >= 0:
                            grams[g, i, j] += x * table[position[r, b]]


@nb.njit(cache=True, nogil=True)
def fitted_rows(starts, links, slots, loadings, factors):  # pragma: no cover
    """(R,) sum over a row's links of loading times factor: starts (T + 1,), loadings (S,), factors (T, K)."""
    out = np.zeros(links.shape[0])
    for t in range(starts.size - 1):
        for r in range(starts[t], starts[t + 1]):
            total = 0.0
            for m in range(links.shape[1]):
                if links[r, m] >= 0:
                    total += loadings[slots[r, m]] * factors[t, links[r, m]]
            out[r] = total
    return out


@nb.njit(cache=True, nogil=True)
def quadratic_rows(starts, links, loadings, matrices):  # pragma: no cover
    """(R,) b_r' V_t b_r: starts (T + 1,), links and loadings (R, M), -1 for none, matrices (T, K, K)."""
    out = np.zeros(links.shape[0])
    for t in range(starts.size - 1):
        for r in range(starts[t], starts[t + 1]):
            total = 0.0
            for a in range(links.shape[1]):
                i = links[r, a]
                if i < 0:
                    continue
                for b in range(links.shape[1]):
                    j = links[r, b]
                    if j >= 0:
                        total += loadings[r, a] * matrices[t, i, j] * loadings[r, b]
            out[r] = total
    return out


def fitted(pattern: Pattern, loadings: FloatArray, factors: FloatArray) -> FloatArray:
    """(R,) b_i'f_t of every row."""
    return fitted_rows(
        pattern.period_starts, pattern.links, pattern.slots, loadings, np.ascontiguousarray(factors)
    )


def full_from_lower(lower: FloatArray) -> FloatArray:
    """Full matrices from lower triangles (G, P, P), in place."""
    rows, columns = np.tril_indices(lower.shape[1], -1)
    if lower.shape[2]:
        lower[:, columns, rows] = lower[:, rows, columns]
    return lower
