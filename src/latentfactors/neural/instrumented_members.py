"""Trained networks of an instrumented factorisation as a fitted model uses them: NumPy, float64.

    loadings   mean over m of Lambda_m((c - centre)/spread) A_m
    premia     mean over m of scale f'_m A_m^(-T)

A period's loadings depend, to the bit, on its own rows only, its premia on earlier ones. JAX is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.neural.ensemble import Ensemble, OwnLoadings
from latentfactors.neural.histories import past_windows
from latentfactors.neural.instrumented import (
    amortized_premia,
    channel_gate,
    embedded_premia,
    linear_loadings,
    network_loadings,
)

__all__ = ["FactorMode", "InstrumentedMembers", "standardised_portfolios"]

FloatArray = npt.NDArray[np.float64]
FactorMode = Literal["amortized", "embedding", "realized"]


@dataclass(frozen=True, eq=False, kw_only=True)
class InstrumentedMembers(Ensemble):
    """Networks of M members; see `neural.instrumented` for the names of their weights.

    `layers` holds is_month (M, slots) of an embedding; `input_scale` (L + 1,) the root mean squares of the
    past's portfolios.

    Attributes
    ----------
    factor_mode : where premia come from
    window : months of the past
    """

    factor_mode: FactorMode
    window: int

    def loadings(
        self,
        characteristics: npt.NDArray[Any],
        offsets: npt.NDArray[np.int64],
        position: FloatArray | None,
    ) -> FloatArray:
        """(R, K) mean loadings in the common space; position (R,) of firms where the networks see it."""
        return self.common_loadings(self.own(characteristics, position), offsets)

    def gates(self, characteristics: npt.NDArray[Any]) -> FloatArray:
        """(n, L) mean channel gates of rows (n, L); 1 without a gate."""
        z = self.standardised(characteristics)
        gates = np.stack([channel_gate(z, weights) * np.ones(z.shape) for weights in self._each()])
        return gates[self.living].mean(axis=0)

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

    def own(self, characteristics: npt.NDArray[Any], position: FloatArray | None) -> OwnLoadings:
        """Own loadings of rows of (R, L). Those of a period see each other: it is the smallest piece."""

        def of_period(rows: slice) -> FloatArray:
            z = self.standardised(characteristics[rows])
            mask, place = np.ones(len(z)), None if position is None else position[rows]
            return np.stack(
                [linear_loadings(z, each) + network_loadings(z, mask, place, each) for each in self._each()]
            )

        return of_period

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
