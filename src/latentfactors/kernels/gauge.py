"""What a fit of named factors leaves open, and how it is closed.

Freedom          r_it = sum_j b_ij f_jt. A factor's scale is free. Where factor j's links are nested in
                 factor k's (every sector in the market), f_j -> f_j - c f_k with b_ik -> b_ik + c b_ij for
                 j's assets leaves every fitted value unchanged: "market or sector" is a matter of convention.
                 Factors with the same links (several common ones, say) may be rotated into each other.
Nested           j in k if every row linked to j is linked to k, and every asset of j is linked to k in those
                 rows only: the loading b_ik must be free to move with them. A rating that migrates is not
                 nested in the market for the assets that migrated.
Gauge            1. along the nesting order, from the outside in: f_j orthogonal over the sample (sum_t, no
                 demeaning) to all factors it is nested in; 2. factors with the same links: principal axes of
                 their joint contribution; 3. mean loading over the factor's assets 1; where the mean is below
                 a tenth of the root mean square: root mean square 1, largest absolute loading positive.
Balance          the representative with the smallest sum of squared loadings and factors among those with
                 the same fitted values, by shifts and scalings in turn; used inside iterations, where it
                 leaves no flat direction to drift along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.adjacency import Pattern, common_rows, rows_of_slots

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_NEAR_ZERO = 0.1  # of the root mean square: a mean loading below it makes a poor unit


@dataclass(frozen=True, eq=False)
class Nesting:
    """Which factors can be shifted into which.

    Attributes
    ----------
    members : slots of every factor, by asset
    classes : factors with the same links, outer classes before inner ones
    outer : for every class the factors that strictly contain it
    pairs : (inner, outer, slots of outer at inner's assets) for all ordered pairs, equal links included
    """

    members: tuple[IntArray, ...]
    classes: tuple[IntArray, ...]
    outer: tuple[IntArray, ...]
    pairs: tuple[tuple[int, int, IntArray], ...]

    def beside(self, inner: int, outer: int) -> IntArray:
        """Slots of `outer` at the assets of `inner`, in the order of members[inner]."""
        return next(slots for j, k, slots in self.pairs if (j, k) == (inner, outer))


def find_nesting(pattern: Pattern) -> Nesting:
    """The nestings of a pattern."""
    size = pattern.n_factors
    joint = common_rows(pattern)
    own = np.zeros((pattern.n_assets, size))
    own[pattern.slot_asset, pattern.slot_factor] = rows_of_slots(pattern)
    # rows of k at the assets of j: more than j's own where an asset has k without j
    reach = (own > 0).astype(np.float64).T @ own
    rows = np.diag(joint)
    inside = (joint == rows[:, None]) & (reach == rows[:, None]) & (rows > 0)[:, None]
    np.fill_diagonal(inside, False)
    number = np.full((pattern.n_assets, size), -1)
    number[pattern.slot_asset, pattern.slot_factor] = np.arange(pattern.n_slots)
    members = tuple(np.flatnonzero(pattern.slot_factor == j) for j in range(size))
    pairs = tuple((int(j), int(k), number[pattern.slot_asset[members[j]], k]) for j, k in np.argwhere(inside))
    equal = inside & inside.T
    strict = inside & ~inside.T
    depth = strict.sum(axis=1)  # a factor has strictly more containers than each of its containers
    classes, seen = [], set()
    for j in np.argsort(depth, kind="stable"):
        if int(j) not in seen:
            alike = np.flatnonzero(equal[j] | (np.arange(size) == j))
            classes.append(alike)
            seen.update(alike.tolist())
    outer = tuple(np.flatnonzero(strict[each[0]]) for each in classes)
    return Nesting(members, tuple(classes), outer, pairs)


def balance(nesting: Nesting, loadings: FloatArray, factors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Shifts and scales that lower sum b^2 + sum f^2 with every fitted value kept; one round.

    A shift c of j into k changes the sum by a parabola in c with its minimum at
    (f_j'f_k - b_j'b_k) / (f_k'f_k + b_j'b_j), b_k at j's assets; a scale by its minimum at |b| = |f|.
    """
    b, f = loadings.copy(), np.asfortranarray(factors, dtype=np.float64).copy(order="F")
    for j, k, beside in nesting.pairs:
        inner = nesting.members[j]
        bend = float(f[:, k] @ f[:, k] + b[inner] @ b[inner])
        if bend > 0.0:
            shift = float(f[:, j] @ f[:, k] - b[beside] @ b[inner]) / bend
            f[:, j] -= shift * f[:, k]
            b[beside] += shift * b[inner]
    for j, own in enumerate(nesting.members):
        size_b, size_f = float(np.linalg.norm(b[own])), float(np.linalg.norm(f[:, j]))
        if size_b > 0.0 and size_f > 0.0:
            scale = np.sqrt(size_f / size_b)
            b[own] *= scale
            f[:, j] /= scale
    return b, f


def fix_gauge(
    nesting: Nesting, loadings: FloatArray, factors: FloatArray, *, shifts: bool = True
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The fit in the gauge of the module docstring.

    Parameters
    ----------
    loadings : (S,), factors : (T, K)
    shifts : whether step 1 applies; without it the answer is unique up to what only nested factors share.

    Returns
    -------
    loadings : (S,)
    factors : (T, K)
    turn : (K, K), factors = given factors @ turn
    """
    b, f, turn = loadings.copy(), np.array(factors, dtype=np.float64), np.eye(factors.shape[1])
    for alike, outer in zip(nesting.classes, nesting.outer, strict=True):
        if shifts and outer.size:
            shift = np.linalg.lstsq(f[:, outer], f[:, alike], rcond=1e-12)[0]
            for position, j in enumerate(alike):
                for coefficient, k in zip(shift[:, position], outer, strict=True):
                    b[nesting.beside(int(j), int(k))] += coefficient * b[nesting.members[j]]
            f[:, alike] -= f[:, outer] @ shift
            turn[:, alike] -= turn[:, outer] @ shift
        if alike.size > 1:
            block = np.column_stack([b[nesting.members[j]] for j in alike])
            basis, triangle = np.linalg.qr(block)
            right = np.linalg.svd(f[:, alike] @ triangle.T, full_matrices=False)[2]
            axes = triangle.T @ right.T
            f[:, alike], turn[:, alike] = f[:, alike] @ axes, turn[:, alike] @ axes
            block = basis @ right.T
            for position, j in enumerate(alike):
                b[nesting.members[j]] = block[:, position]
    for j, own in enumerate(nesting.members):
        unit = unit_of(b[own])
        b[own] /= unit
        f[:, j] *= unit
        turn[:, j] *= unit
    return b, f, turn


def unit_of(loadings: FloatArray) -> float:
    """The number that a factor's loadings (n,) are divided by: their mean, or their root mean square."""
    if not loadings.size or not loadings.any():
        return 1.0
    mean, size = float(loadings.mean()), float(np.sqrt(np.mean(loadings**2)))
    if abs(mean) >= _NEAR_ZERO * size:
        return mean
    return float(np.copysign(size, loadings[np.abs(loadings).argmax()]))
