"""A model's own premia: a VAR(1) of realised factors beside what attention adds, as native forecasts.

f'_t = c + Phi'f^_(t-1) + a_t        c, Phi: least squares of f^_t - a_t on (1, f^_(t-1)) in training
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import HorizonError
from latentfactors.rows import RowIndex

__all__ = ["PremiumForecasts", "autoregression", "lagged"]

FloatArray = npt.NDArray[np.float64]
_PAIRS = 10


def autoregression(
    target: FloatArray, before: FloatArray, factors: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """c (K,) and Phi (K, K) of target (n, K) = c + Phi'before + e, pairs with NaN left out.

    With fewer than 10 pairs a coefficient: the mean of the factors (T, K), and 0.
    """
    k = factors.shape[1]
    pairs = np.isfinite(target).all(axis=1) & np.isfinite(before).all(axis=1)
    if pairs.sum() < _PAIRS * (k + 1):
        return np.nanmean(factors, axis=0), np.zeros((k, k))
    known = np.column_stack([np.ones(int(pairs.sum())), before[pairs]])
    found = np.asarray(np.linalg.lstsq(known, target[pairs])[0], dtype=np.float64)
    return found[0], found[1:]


def lagged(factors: FloatArray, mean: FloatArray) -> FloatArray:
    """(T, K) factors of the period before, their mean (K,) where they are not known."""
    before = np.concatenate([mean[None, :], factors[:-1]])[: len(factors)]
    return np.where(np.isfinite(before).all(axis=1, keepdims=True), before, mean)


@dataclass(frozen=True, eq=False, kw_only=True)
class PremiumForecasts:
    """Premia of every period given the periods before it, for the row's own period only.

    Attributes
    ----------
    index : rows
    loadings : (R, K)
    premia : (T, K)
    covariance : (K, K) of realised factors around their premia
    residual_variance : float
    """

    index: RowIndex
    loadings: FloatArray
    premia: FloatArray
    covariance: FloatArray
    residual_variance: float

    def factors(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        """(T, K) means and (T, K, K) covariances."""
        self._check(horizon)
        covariance = np.broadcast_to(self.covariance, (len(self.premia), *self.covariance.shape))
        return np.array(self.premia), np.array(covariance)

    def values(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        """(R,) means and variances in input units."""
        self._check(horizon)
        period = self.index.period_codes
        mean = np.zeros(self.index.n_rows)
        for k in range(self.premia.shape[1]):
            mean += self.loadings[:, k] * self.premia[period, k]
        spread = np.empty(self.index.n_rows)
        for p in range(self.index.n_periods):
            rows = self.index.rows(p)
            b = self.loadings[rows]
            spread[rows] = np.einsum("ij,jk,ik->i", b, self.covariance, b)
        return mean, spread + self.residual_variance

    @staticmethod
    def _check(horizon: int) -> None:
        if horizon != 1:
            raise HorizonError(
                f"these premia are learned for the next period only, got horizon={horizon}: use horizon=1, "
                "or a forecaster with dynamics, such as VARFactorForecaster"
            )
