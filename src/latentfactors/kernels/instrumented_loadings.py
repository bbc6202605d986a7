"""Loadings that are linear in characteristics, multiplied out only where somebody looks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.kernels.sufficient import exposures
from latentfactors.rows import RowIndex

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class InstrumentedLoadings:
    """Z_p times coefficients (L, K), or (L + 1, K) with a constant: `Loadings` that change with the row.

    Nothing is computed before the first question, and a slice is a slice of the question: whoever wants a
    panel's factors, or the loadings of its last period, does not pay for those of all rows.

    Attributes
    ----------
    characteristics : (R, L)
    coefficients : (L, K) or (L + 1, K)
    index : rows of the panel.
    """

    characteristics: npt.NDArray[Any]
    coefficients: FloatArray
    index: RowIndex

    @property
    def n_factors(self) -> int:
        """Number of factors K."""
        return self.coefficients.shape[1]

    @cached_property
    def values(self) -> FloatArray:
        """(R, K) loadings of every row."""
        with threadpool_limits(limits=1, user_api="blas"):
            return exposures(self.characteristics, self.index.offsets, self.coefficients)

    def rows(self) -> FloatArray:
        """(R, K) loadings of every row."""
        return self.values

    def at(self, p: int) -> FloatArray:
        """(N_p, K) loadings of period p's rows."""
        return self.values[self.index.rows(p)]

    def dense(self) -> FloatArray:
        """(T, N, K) loadings, NaN where an asset has no row."""
        return self.index.dense(self.values)

    def between(self, a: int, b: int) -> InstrumentedLoadings:
        """The loadings of periods a..b-1."""
        low, high = int(self.index.offsets[a]), int(self.index.offsets[b])
        part = InstrumentedLoadings(
            self.characteristics[low:high], self.coefficients, self.index.between(a, b)
        )
        if "values" in self.__dict__:
            part.__dict__["values"] = self.values[low:high]
        return part
