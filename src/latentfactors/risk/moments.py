"""Running sums from which covariances are made: they take new periods in and forget the periods themselves.

Factors      z_t = f_t - reference, o_t = 1 where observed, weights lambda^(age); for lags l = 0..L
             C_l = sum z_t z_(t-l)'   A_l = sum z_t o_(t-l)'   E_l = sum o_t z_(t-l)'   N_l = sum o_t o_(t-l)'
Centred      G_l = C_l - m o E_l - A_l o m' + mm' o N_l = sum (z_t - m)(z_(t-l) - m)' over observed pairs,
             m_k = A_0,kk / N_0,kk each factor's own mean ("o": entry by entry)
Residuals    by asset: Q_i = sum u_ti^2 and n_i = sum s_ti, weighted alike; s_ti = E u_ti^2 / d_i where the
             model says how much smaller than the error of a new value it is, 1 otherwise
Issuers      P = sum over periods and issuers of (sum_i u_i)^2 - sum_i u_i^2   (ordered pairs of one issuer)
             O = sum (n_g - 1) sum_i u_i^2;   P/O is the within-issuer correlation of equal variances

`update` returns a new record: sums over 1..t and then t+1..T equal sums over 1..T up to rounding. The
reference is each factor's first observed value, so that a large mean costs no digits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.estimator import freeze

__all__ = ["FactorMoments", "ResidualMoments"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorMoments:
    """Weighted sums of products of K factors at lags 0..L.

    Attributes
    ----------
    decay : lambda, in (0, 1]; 1 weights all periods alike
    centred : whether means are taken off; if not, the reference is zero
    reference : (K,) subtracted before anything is summed; NaN where no value was seen yet
    products, leads, lagged, counts : (L + 1, K, K) C_l, A_l, E_l, N_l
    tail : (L, K) the last L periods, z_t, NaN where not observed; empty before the first
    n_periods : periods with any factor, unweighted
    """

    decay: float
    centred: bool
    reference: FloatArray
    products: FloatArray
    leads: FloatArray
    lagged: FloatArray
    counts: FloatArray
    tail: FloatArray
    n_periods: int = 0

    def __post_init__(self) -> None:
        freeze(self)

    @classmethod
    def empty(
        cls, n_factors: int, *, decay: float = 1.0, centred: bool = True, lags: int = 0
    ) -> FactorMoments:
        """No period yet."""
        nothing = np.zeros((lags + 1, n_factors, n_factors))
        return cls(
            decay=decay,
            centred=centred,
            reference=np.full(n_factors, np.nan) if centred else np.zeros(n_factors),
            products=nothing,
            leads=nothing,
            lagged=nothing,
            counts=nothing,
            tail=np.full((lags, n_factors), np.nan),
        )

    def update(self, factors: FloatArray) -> FactorMoments:
        """With (S, K) further periods, NaN where a factor was not realised."""
        steps, lags = len(factors), len(self.counts) - 1
        if steps == 0:
            return self
        seen = np.isfinite(factors)
        first = np.where(seen.any(axis=0), factors[seen.argmax(axis=0), np.arange(factors.shape[1])], np.nan)
        reference = np.where(np.isnan(self.reference), first, self.reference)
        shifted = np.concatenate([self.tail, factors - reference])
        observed = np.isfinite(shifted)
        z, o = np.where(observed, shifted, 0.0), observed.astype(np.float64)
        weight = self.decay ** np.arange(steps - 1, -1, -1.0)[:, None]
        faded = self.decay**steps
        now_z, now_o = weight * z[lags:], weight * o[lags:]
        sums = []
        for lag in range(lags + 1):
            then = slice(lags - lag, lags - lag + steps)
            sums.append((now_z.T @ z[then], now_z.T @ o[then], now_o.T @ z[then], now_o.T @ o[then]))
        products, leads, lagged, counts = (np.stack(each) for each in zip(*sums, strict=True))
        return replace(
            self,
            reference=reference,
            products=faded * self.products + products,
            leads=faded * self.leads + leads,
            lagged=faded * self.lagged + lagged,
            counts=faded * self.counts + counts,
            tail=shifted[len(shifted) - lags :],
            n_periods=self.n_periods + int(seen.any(axis=1).sum()),
        )

    def centred_products(self) -> FloatArray:
        """(L + 1, K, K) G_l; C_l itself where means stay in."""
        if not self.centred:
            return self.products
        n = np.diagonal(self.counts[0])
        mean = np.divide(np.diagonal(self.leads[0]), n, out=np.zeros(len(n)), where=n > 0)
        return (
            self.products
            - mean[:, None] * self.lagged
            - self.leads * mean
            + mean[:, None] * mean * self.counts
        )

    def mean(self) -> FloatArray:
        """(K,) weighted means in the factors' own units, NaN for a factor never seen."""
        n = np.diagonal(self.counts[0])
        shift = np.divide(np.diagonal(self.leads[0]), n, out=np.full(len(n), np.nan), where=n > 0)
        return self.reference + shift


@dataclass(frozen=True, eq=False, kw_only=True)
class ResidualMoments:
    """Weighted sums of squared residuals by asset label.

    Attributes
    ----------
    decay : lambda, in (0, 1]
    assets : (N,) labels, in order of first appearance
    squares, weights : (N,) Q_i and n_i, where a residual that is small for having been fitted counts less
    issuer_pairs, issuer_own : P and O of the module's formula, 0 without issuers
    """

    decay: float
    assets: npt.NDArray[Any]
    squares: FloatArray
    weights: FloatArray
    issuer_pairs: float = 0.0
    issuer_own: float = 0.0

    def __post_init__(self) -> None:
        freeze(self)

    @classmethod
    def empty(cls, assets: npt.NDArray[Any], *, decay: float = 1.0) -> ResidualMoments:
        """No residual yet."""
        nothing = np.zeros(len(assets))
        return cls(decay=decay, assets=assets, squares=nothing, weights=nothing)

    def covering(self, assets: npt.NDArray[Any]) -> tuple[ResidualMoments, npt.NDArray[np.int64]]:
        """The same sums with labels added where they are new, and the (M,) positions of `assets` in them."""
        place = {label: i for i, label in enumerate(self.assets.tolist())}
        fresh = [label for label in assets.tolist() if label not in place]
        place |= {label: len(self.assets) + i for i, label in enumerate(fresh)}
        position = np.array([place[label] for label in assets.tolist()], dtype=np.int64)
        if not fresh:
            return self, position
        more = np.zeros(len(fresh))
        wider = replace(
            self,
            assets=np.concatenate([self.assets, np.array(fresh)]),
            squares=np.concatenate([self.squares, more]),
            weights=np.concatenate([self.weights, more]),
        )
        return wider, position

    def update(
        self,
        residuals: FloatArray,
        position: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        issuers: npt.NDArray[np.int64] | None = None,
        shares: FloatArray | None = None,
    ) -> ResidualMoments:
        """With the rows of further periods.

        Parameters
        ----------
        residuals : (R,), NaN where not known
        position : (R,) place of every row's asset among the labels
        offsets : (S + 1,) row bounds of the S periods, the first being 0
        issuers : (R,) code of every row's issuer, -1 for none
        shares : (R,) expected square of every residual, relative to the variance wanted; None: 1
        """
        steps = len(offsets) - 1
        if steps == 0:
            return self
        faded = self.decay**steps
        known = np.flatnonzero(np.isfinite(residuals))
        period = np.repeat(np.arange(steps), np.diff(offsets))[known]
        weight, u = self.decay ** (steps - 1.0 - period), residuals[known]
        n, place = len(self.assets), position[known]
        counted = weight if shares is None else weight * shares[known]
        pairs, own = 0.0, 0.0
        if issuers is not None:
            with_issuer = issuers[known] >= 0
            width = int(issuers.max(initial=0)) + 1
            key = period[with_issuer] * width + issuers[known][with_issuer]
            groups, code = np.unique(key, return_inverse=True)
            total = np.bincount(code, u[with_issuer], groups.size)
            square = np.bincount(code, u[with_issuer] ** 2, groups.size)
            members = np.bincount(code, minlength=groups.size)
            fade = self.decay ** (steps - 1.0 - groups // width)
            pairs = float(fade @ (total * total - square))
            own = float(fade @ ((members - 1.0) * square))
        return replace(
            self,
            squares=faded * self.squares + np.bincount(place, weight * u * u, n),
            weights=faded * self.weights + np.bincount(place, counted, n),
            issuer_pairs=faded * self.issuer_pairs + pairs,
            issuer_own=faded * self.issuer_own + own,
        )

    def issuer_correlation(self) -> float:
        """P/O, inside [0, 0.99]; 0 where no issuer had two assets in one period."""
        return min(max(self.issuer_pairs / self.issuer_own, 0.0), 0.99) if self.issuer_own > 0 else 0.0
