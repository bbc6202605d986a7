"""Trained networks of an ensemble as a fitted model uses them: NumPy, float64, one period after another.

    loadings   mean over m of beta_m((c - centre)/spread) A_m
    factors    mean over m of scale W_m'(x/x_scale) A_m^(-T)

A period's numbers depend, to the bit, on its own rows only, and JAX is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.neural.ensemble import Ensemble, OwnLoadings
from latentfactors.neural.perceptron import forward

__all__ = ["Members"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Members(Ensemble):
    """Loading networks and linear factor networks of M members.

    Beside the weights of `neural.perceptron`, `parameters` holds factor_weight (M, Q, K); `layers` batch
    norm's moments.
    """

    def loadings(self, characteristics: npt.NDArray[Any], offsets: npt.NDArray[np.int64]) -> FloatArray:
        """(R, K) mean loadings in the common space."""
        return self.common_loadings(self.own(characteristics), offsets)

    def own(self, characteristics: npt.NDArray[Any]) -> OwnLoadings:
        """The members' own loadings of rows of (R, L)."""
        return lambda rows: forward(self.standardised(characteristics[rows]), self.parameters, self.layers)

    def network_factors(self, inputs: FloatArray) -> FloatArray:
        """(T, K) factors of the factor network from portfolios (T, Q), in input units."""
        weights, maps = self.parameters["factor_weight"][self.living], self.maps[self.living]
        own = self.scale * ((inputs / self.input_scale) @ weights)
        return (own @ np.linalg.inv(maps).transpose(0, 2, 1)).mean(axis=0)
