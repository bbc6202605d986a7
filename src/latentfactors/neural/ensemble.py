"""What trained members of any ensemble share once they are NumPy arrays: their weights, maps and units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from latentfactors.estimator import freeze
from latentfactors.neural.alignment import align_members, living_members, one_member
from latentfactors.rows import read_only

__all__ = ["Ensemble", "OwnLoadings", "remembered"]

FloatArray = npt.NDArray[np.float64]
OwnLoadings = Callable[[slice], FloatArray]
"""Rows of a period -> (M, n, K) loadings, each member's in its own space."""
_MOST_REMEMBERED = 1 << 25  # numbers, 256 MB


@dataclass(frozen=True, eq=False, kw_only=True)
class Ensemble:
    """Trained networks of M members.

    Attributes
    ----------
    parameters : name -> (M, ...), weights
    layers : name -> (M, ...), what layers keep beside weights
    maps : (M, K, K), A_m into the common space; zeros for a member that collapsed, which means leave out
    centre, spread : (L,), of characteristics
    scale : root mean square of training values, input units
    input_scale : (Q,), root mean squares of the portfolios that enter as inputs
    """

    parameters: Mapping[str, FloatArray]
    layers: Mapping[str, FloatArray]
    maps: FloatArray
    centre: FloatArray
    spread: FloatArray
    scale: float
    input_scale: FloatArray

    def __post_init__(self) -> None:
        freeze(self)
        for name in ("parameters", "layers"):
            frozen = {key: read_only(array) for key, array in getattr(self, name).items()}
            object.__setattr__(self, name, frozen)

    @property
    def n_members(self) -> int:
        """Members M."""
        return len(self.maps)

    @property
    def living(self) -> npt.NDArray[np.bool_]:
        """(M,) members that count: not those whose loadings collapsed."""
        return living_members(self.maps)

    def only(self, m: int) -> Self:
        """Member m alone, with its map; a `TrainingError` if it collapsed."""
        one = one_member(self.maps, m)
        return replace(
            self,
            parameters={name: array[one] for name, array in self.parameters.items()},
            layers={name: array[one] for name, array in self.layers.items()},
            maps=self.maps[one],
        )

    def standardised(self, characteristics: npt.NDArray[Any]) -> FloatArray:
        """(n, L) characteristics as the networks see them."""
        return (characteristics.astype(np.float64) - self.centre) / self.spread

    def common_loadings(self, own: OwnLoadings, offsets: npt.NDArray[np.int64]) -> FloatArray:
        """(R, K) mean loadings of the living members in the common space, period by period."""
        out, living = np.empty((int(offsets[-1]), self.maps.shape[2])), self.living
        for first, last in pairwise(offsets.tolist()):
            if last > first:
                rows = slice(first, last)
                out[rows] = (own(rows)[living] @ self.maps[living]).mean(axis=0)
        return out

    def aligned(self, own: OwnLoadings, offsets: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]) -> Self:
        """With maps that bring the members' loadings on the rows that were seen together."""
        return replace(self, maps=align_members(self.joint_gram(own, offsets, seen), self.maps.shape[2]))

    def joint_gram(
        self, own: OwnLoadings, offsets: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]
    ) -> FloatArray:
        """(M K, M K) pooled [B_1 ... B_M]'[B_1 ... B_M]/n over the rows that were seen."""
        size = self.maps.shape[0] * self.maps.shape[1]
        total = np.zeros((size, size))
        for first, last in pairwise(offsets.tolist()):
            rows = slice(first, last)
            if seen[rows].any():
                joined = own(rows)[:, seen[rows]].transpose(1, 0, 2).reshape(-1, size)
                total += joined.T @ joined
        return total / max(int(seen.sum()), 1)


def remembered(own: OwnLoadings, n_members: int, n_rows: int, n_factors: int) -> OwnLoadings:
    """The same loadings, kept for a second reading where all of them find room."""
    if n_members * n_rows * n_factors > _MOST_REMEMBERED:
        return own
    kept: dict[int, FloatArray] = {}

    def again(rows: slice) -> FloatArray:
        if rows.start not in kept:
            kept[rows.start] = own(rows)
        return kept[rows.start]

    return again
