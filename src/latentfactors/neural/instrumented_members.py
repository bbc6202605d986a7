"""Trained networks of an instrumented factorisation as a fitted model uses them: NumPy, float64.

    loadings   mean over m of Lambda_m((c - centre)/spread) A_m
    premia     mean over m of scale f'_m A_m^(-T)

A period's loadings depend, to the bit, on its own rows only, its premia on earlier ones. JAX is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from latentfactors.estimator import freeze
from latentfactors.neural.alignment import living_members, one_member
from latentfactors.neural.histories import past_windows
from latentfactors.neural.instrumented import (
    amortized_premia,
    channel_gate,
    embedded_premia,
    linear_loadings,
    network_loadings,
)
from latentfactors.rows import read_only

__all__ = ["FactorMode", "InstrumentedMembers", "standardised_portfolios"]

FloatArray = npt.NDArray[np.float64]
FactorMode = Literal["amortized", "embedding", "realized"]


@dataclass(frozen=True, eq=False, kw_only=True)
class InstrumentedMembers:
    """Networks of M members; see `neural.instrumented` for the names of their weights.

    Attributes
    ----------
    parameters : name -> (M, ...)
    layers : name -> (M, ...); is_month (M, slots) of an embedding
    maps : (M, K, K), A_m into the common space; zeros for a member that collapsed, which means leave out
    centre, spread : (L,), of characteristics
    scale : root mean square of training values, input units
    input_scale : (L + 1,), root mean squares of the past's portfolios
    factor_mode : where premia come from
    window : months of the past
    """

    parameters: Mapping[str, FloatArray]
    layers: Mapping[str, FloatArray]
    maps: FloatArray
    centre: FloatArray
    spread: FloatArray
    scale: float
    input_scale: FloatArray
    factor_mode: FactorMode
    window: int

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

    def own_loadings(self, characteristics: npt.NDArray[Any], position: FloatArray | None) -> FloatArray:
        """(M, n, K) loadings of a period's rows (n, L), in each member's own space."""
        z = (characteristics.astype(np.float64) - self.centre) / self.spread
        mask = np.ones(len(z))
        found = [
            linear_loadings(z, weights) + network_loadings(z, mask, position, weights)
            for weights in self._each()
        ]
        return np.stack(found)

    def gates(self, characteristics: npt.NDArray[Any]) -> FloatArray:
        """(n, L) mean channel gates of rows (n, L); 1 without a gate."""
        z = (characteristics.astype(np.float64) - self.centre) / self.spread
        gates = np.stack([channel_gate(z, weights) * np.ones(z.shape) for weights in self._each()])
        return gates[self.living].mean(axis=0)

    def loadings(
        self,
        characteristics: npt.NDArray[Any],
        offsets: npt.NDArray[np.int64],
        position: FloatArray | None,
    ) -> FloatArray:
        """(R, K) mean loadings in the common space."""
        out, living = np.empty((len(characteristics), self.maps.shape[2])), self.living
        for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            if b > a:
                own = self.own_loadings(characteristics[a:b], None if position is None else position[a:b])
                out[a:b] = (own[living] @ self.maps[living]).mean(axis=0)
        return out

    def gram(
        self,
        characteristics: npt.NDArray[Any],
        offsets: npt.NDArray[np.int64],
        position: FloatArray | None,
        seen: npt.NDArray[np.bool_],
    ) -> FloatArray:
        """(M K, M K) pooled [B_1 ... B_M]'[B_1 ... B_M]/n over the rows that were seen."""
        size = self.maps.shape[0] * self.maps.shape[1]
        total = np.zeros((size, size))
        for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            if seen[a:b].any():
                own = self.own_loadings(characteristics[a:b], None if position is None else position[a:b])
                joined = own[:, seen[a:b]].transpose(1, 0, 2).reshape(-1, size)
                total += joined.T @ joined
        return total / max(int(seen.sum()), 1)

    def attention(self, x: FloatArray, before: int) -> FloatArray:
        """(T, K) what attention adds to premia, in input units and the common space.

        Parameters
        ----------
        x : (before + T, L + 1), managed portfolios of consecutive periods in input units, NaN where there
            are none
        before : periods that only lend their past
        """
        scaled = standardised_portfolios(x, self.centre, self.spread, self.scale) / self.input_scale
        windows, known = past_windows(scaled, self.window)
        each, out = self._each(), np.empty((len(x) - before, self.maps.shape[2]))
        for t in range(len(out)):
            at = t + before
            out[t] = self._common([amortized_premia(windows[at], known[at], weights)[1] for weights in each])
        return out

    def mean_premium(self) -> FloatArray:
        """(K,) mean of the training months' premia of an embedding, in input units and the common space."""
        return self._common([self._mean_embedding(m, weights) for m, weights in enumerate(self._each())])

    def _common(self, own: list[FloatArray]) -> FloatArray:
        """The living members' mean (K,) of factors in their own spaces."""
        inverse = np.linalg.inv(self.maps[self.living]).transpose(0, 2, 1)
        return self.scale * (np.stack(own)[self.living, None, :] @ inverse).mean(axis=0)[0]

    def _mean_embedding(self, m: int, weights: Mapping[str, FloatArray]) -> FloatArray:
        months = self.layers["is_month"][m]
        return months @ embedded_premia(months, weights)[0] / months.sum()

    def _each(self) -> list[dict[str, FloatArray]]:
        return [{name: array[m] for name, array in self.parameters.items()} for m in range(self.n_members)]


def standardised_portfolios(
    x: FloatArray, centre: FloatArray, spread: FloatArray, scale: float
) -> FloatArray:
    """The portfolios (T, L + 1) of standardised characteristics and scaled values, from those of raw ones."""
    return np.column_stack([(x[:, :-1] - centre * x[:, -1:]) / spread, x[:, -1]]) / scale
