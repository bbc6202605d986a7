"""Trained networks of an ensemble as a fitted model uses them: NumPy, float64, one period after another.

    loadings   mean over m of beta_m((c - centre)/spread) A_m
    factors    mean over m of scale W_m'(x/x_scale) A_m^(-T)

A period's numbers depend, to the bit, on its own rows only, and JAX is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from latentfactors.estimator import freeze
from latentfactors.neural.alignment import living_members, one_member
from latentfactors.neural.perceptron import forward
from latentfactors.rows import read_only

__all__ = ["Members"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Members:
    """Loading networks and linear factor networks of M members.

    Attributes
    ----------
    parameters : name -> (M, ...), weights; see `neural.perceptron`, and factor_weight (M, Q, K)
    layers : name -> (M, ...), batch norm's moments
    maps : (M, K, K), A_m into the common space; zeros for a member that collapsed, which means leave out
    centre, spread : (L,), of characteristics
    scale : root mean square of training values, input units
    input_scale : (Q,), root mean squares of the factor network's inputs
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

    def own_loadings(self, characteristics: npt.NDArray[Any]) -> FloatArray:
        """(M, n, K) loadings of rows (n, L) in each member's own space."""
        z = (characteristics.astype(np.float64) - self.centre) / self.spread
        return forward(z, self.parameters, self.layers)

    def loadings(self, characteristics: npt.NDArray[Any], offsets: npt.NDArray[np.int64]) -> FloatArray:
        """(R, K) mean loadings in the common space."""
        out, living = np.empty((len(characteristics), self.maps.shape[2])), self.living
        for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            if b > a:
                own = self.own_loadings(characteristics[a:b])
                out[a:b] = (own[living] @ self.maps[living]).mean(axis=0)
        return out

    def gram(
        self, characteristics: npt.NDArray[Any], offsets: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]
    ) -> FloatArray:
        """(M K, M K) pooled [B_1 ... B_M]'[B_1 ... B_M]/n over the rows that were seen."""
        size = self.maps.shape[0] * self.maps.shape[1]
        total = np.zeros((size, size))
        for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            here = characteristics[a:b][seen[a:b]]
            if len(here):
                own = self.own_loadings(here).transpose(1, 0, 2).reshape(len(here), size)
                total += own.T @ own
        return total / max(int(seen.sum()), 1)

    def network_factors(self, inputs: FloatArray) -> FloatArray:
        """(T, K) factors of the factor network from portfolios (T, Q), in input units."""
        weights, maps = self.parameters["factor_weight"][self.living], self.maps[self.living]
        own = self.scale * ((inputs / self.input_scale) @ weights)
        return (own @ np.linalg.inv(maps).transpose(0, 2, 1)).mean(axis=0)
