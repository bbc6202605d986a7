"""Factor covariances and specific variances from running sums; repair of what is no covariance.

Sample           S = sum (f - m)(f - m)' / (T - 1)
EWMA             S = diag(s) C diag(s): s^2 second moments with half-life h_v, C correlations with half-life
                 h_c, weights 0.5^(age / h); about zero unless `demean`
Newey-West       S = G_0 + sum_l (1 - l/(L + 1)) (G_l + G_l'),  G_l = sum (f_t - m)(f_(t-l) - m)' / T
Specific         d_i = (Q_i + nu g_i) / (n_i + nu):  Q_i weighted sum of squared residuals, n_i of weights,
                 g_i the pooled variance of i's group, nu pseudo-observations; in model units, then times
                 scale_i^2

A factor missing in some periods enters pair by pair. Pairs of unequal length, and means estimated from them,
can leave a matrix with negative eigenvalues; `repair_covariance` then cuts those of its correlation matrix to
zero and restores the diagonal. Complete factors never need it: all three estimators are sums of squares.

References: J.P. Morgan/Reuters (1996), RiskMetrics Technical Document, section 5.2 (exponential weights);
Newey & West (1987), Econometrica 55(3); Menchero, Orr & Wang (2011), The Barra US Equity Model (USE4):
Methodology Notes, sections 4-5 (separate half-lives, shrinking specific risk to a group).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least, check_number
from latentfactors.risk.moments import FactorMoments

__all__ = [
    "EWMACovariance",
    "FactorCovariance",
    "NeweyWestCovariance",
    "SampleCovariance",
    "SpecificVariance",
    "repair_covariance",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SampleCovariance:
    """All periods alike. Where risk changes over time take `EWMACovariance`.

    Parameters
    ----------
    demean
        About each factor's mean with divisor T - 1; otherwise about zero with divisor T.
    """

    demean: bool = True

    def moments(self, n_factors: int) -> tuple[FactorMoments, ...]:
        """Empty sums."""
        return (FactorMoments.empty(n_factors, centred=self.demean),)

    def covariance(self, moments: tuple[FactorMoments, ...]) -> FloatArray:
        """(K, K), NaN where fewer than two observations stand behind an entry."""
        (sums,) = moments
        n = sums.counts[0] - (1.0 if self.demean else 0.0)
        return _per(sums.centred_products()[0], n, n >= 1.0)


@dataclass(frozen=True, kw_only=True)
class EWMACovariance:
    """The recent past counts more. With unequal half-lives variances may move faster than correlations.

    Parameters
    ----------
    variance_half_life, correlation_half_life
        Periods after which an observation has half its weight, > 0. None for the second: the same.
    demean
        About the weighted mean; by default about zero, for short half-lives estimate means badly.
    """

    variance_half_life: float
    correlation_half_life: float | None = None
    demean: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "variance_half_life",
            check_number("variance_half_life", self.variance_half_life, positive=True),
        )
        slow = self.correlation_half_life
        slow = (
            self.variance_half_life
            if slow is None
            else check_number("correlation_half_life", slow, positive=True)
        )
        object.__setattr__(self, "correlation_half_life", slow)

    def moments(self, n_factors: int) -> tuple[FactorMoments, ...]:
        """Empty sums, fast then slow."""
        assert self.correlation_half_life is not None
        halves = (self.variance_half_life, self.correlation_half_life)
        return tuple(
            FactorMoments.empty(n_factors, decay=0.5 ** (1.0 / h), centred=self.demean) for h in halves
        )

    def covariance(self, moments: tuple[FactorMoments, ...]) -> FloatArray:
        """(K, K), NaN where no observation stands behind an entry."""
        fast, slow = (
            _per(each.centred_products()[0], each.counts[0], each.counts[0] > 0) for each in moments
        )
        if self.correlation_half_life == self.variance_half_life:
            return fast
        correlation = _correlation(slow)
        deviation = np.sqrt(np.maximum(np.diagonal(fast), 0.0))
        return correlation * deviation[:, None] * deviation


@dataclass(frozen=True, kw_only=True)
class NeweyWestCovariance:
    """The covariance per period of sums over many periods, where factors are serially correlated.

    Parameters
    ----------
    lags
        L >= 0, Bartlett weights; fixed, so that new periods can be added.
    demean
        About each factor's mean.
    """

    lags: int = 5
    demean: bool = True

    def __post_init__(self) -> None:
        at_least("lags", self.lags, 0)

    def moments(self, n_factors: int) -> tuple[FactorMoments, ...]:
        """Empty sums."""
        return (FactorMoments.empty(n_factors, centred=self.demean, lags=self.lags),)

    def covariance(self, moments: tuple[FactorMoments, ...]) -> FloatArray:
        """(K, K), NaN where fewer than two observations stand behind an entry."""
        (sums,) = moments
        products = sums.centred_products()
        weight = 1.0 - np.arange(1, self.lags + 1) / (self.lags + 1.0)
        total = products[0] + np.einsum("l,ljk->jk", weight, products[1:] + products[1:].transpose(0, 2, 1))
        return _per(total, sums.counts[0], sums.counts[0] >= (2.0 if self.demean else 1.0))


FactorCovariance = SampleCovariance | EWMACovariance | NeweyWestCovariance


@dataclass(frozen=True, kw_only=True)
class SpecificVariance:
    """Variance of what factors leave, an asset at a time, shrunk to its group.

    Parameters
    ----------
    half_life
        Of the weights, in periods, > 0; None weights all periods alike.
    group
        Name of a panel attribute (sector, rating); None: one group of all assets. An asset of unknown
        category is shrunk to all assets.
    prior_observations
        nu >= 0: how many observations the group's variance counts for. An asset without any residual has its
        group's variance.
    issuer
        Name of a panel attribute; assets of one category share specific risk.
    issuer_correlation
        rho in [0, 1) between them; None estimates it.
    floor
        Smallest specific variance relative to the asset's systematic variance plus the average specific one,
        > 0: keeps the covariance positive definite where a model leaves no residual.
    """

    half_life: float | None = None
    group: str | None = None
    prior_observations: float = 10.0
    issuer: str | None = None
    issuer_correlation: float | None = None
    floor: float = 1e-8

    def __post_init__(self) -> None:
        if self.half_life is not None:
            object.__setattr__(self, "half_life", check_number("half_life", self.half_life, positive=True))
        nu = check_number("prior_observations", self.prior_observations)
        object.__setattr__(self, "prior_observations", nu)
        object.__setattr__(self, "floor", check_number("floor", self.floor, positive=True))
        rho = self.issuer_correlation
        if rho is not None:
            if check_number("issuer_correlation", rho) >= 1:
                raise ConfigurationError(f"issuer_correlation must lie in [0, 1), got {rho}")
            if self.issuer is None:
                raise ConfigurationError(
                    f"issuer_correlation={rho} needs issuer: name the panel attribute that holds the issuers"
                )

    @property
    def decay(self) -> float:
        """Weight of an observation relative to the next one's."""
        return 1.0 if self.half_life is None else 0.5 ** (1.0 / self.half_life)


def shrunk_variances(
    squares: FloatArray, weights: FloatArray, groups: npt.NDArray[np.int64] | None, prior: float
) -> FloatArray:
    """(N,) d_i = (Q_i + nu g_i)/(n_i + nu) over the assets of one period, in model units.

    Parameters
    ----------
    squares, weights : (N,)
        Q_i and n_i; n_i = 0 for an asset without residuals.
    groups : (N,), optional
        Code of every asset's group, -1 for none; g_i = sum Q / sum n over the group's assets, over all of
        them where the group has no residual yet.
    prior : nu
    """
    total = weights.sum()
    pooled = squares.sum() / total if total > 0 else np.nan
    if groups is None:
        target = np.full(len(squares), pooled)
    else:
        width = int(groups.max(initial=-1)) + 2
        q, n = np.bincount(groups + 1, squares, width), np.bincount(groups + 1, weights, width)
        q[0], n[0] = 0.0, 0.0  # assets without a group belong to all
        by_group = np.divide(q, n, out=np.full(width, pooled), where=n > 0)
        target = by_group[groups + 1]
    denominator = weights + prior
    own = np.divide(squares + prior * target, denominator, out=target.copy(), where=denominator > 0)
    return np.where(weights > 0, own, target)


def repair_covariance(covariance: npt.ArrayLike) -> tuple[FloatArray, str]:
    """The matrix with negative eigenvalues of its correlation cut to zero, and a remark ("" if none was).

    Variances stay what they are. A pair of factors never seen together has correlation zero.

    Parameters
    ----------
    covariance : (K, K)
        Symmetric; NaN off the diagonal where a pair was never seen together.

    Examples
    --------
    >>> indefinite = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    >>> repaired, remark = repair_covariance(indefinite)
    >>> np.diag(repaired).round(12).tolist(), bool(np.linalg.eigvalsh(repaired).min() > -1e-12)
    ([1.0, 1.0, 1.0], True)
    """
    given = np.asarray(covariance, dtype=np.float64)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not np.isfinite(np.diagonal(given)).all():
        raise ConfigurationError(f"covariance must be square with a finite diagonal, got shape {given.shape}")
    given = np.where(np.isfinite(given), (given + given.T) / 2, 0.0)
    deviation = np.sqrt(np.maximum(np.diagonal(given), 0.0))
    correlation = _correlation(given)
    values, vectors = np.linalg.eigh(correlation)
    if values.min(initial=0.0) >= -1e-12 * len(values):
        return given, ""
    cut = (vectors * np.maximum(values, 0.0)) @ vectors.T
    unit = np.sqrt(np.maximum(np.diagonal(cut), np.finfo(np.float64).tiny))
    repaired = cut / unit[:, None] / unit * deviation[:, None] * deviation
    return (repaired + repaired.T) / 2, (
        f"factor correlation repaired: eigenvalues down to {values.min():.2g} cut to zero, variances kept"
    )


def _correlation(covariance: FloatArray) -> FloatArray:
    """(K, K) with ones on the diagonal; zero rows for factors that stand still."""
    deviation = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    scale = deviation[:, None] * deviation
    out = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    np.fill_diagonal(out, 1.0)
    return out


def _per(total: FloatArray, n: FloatArray, enough: npt.NDArray[np.bool_]) -> FloatArray:
    """total / n where there is enough, NaN elsewhere; symmetric to the bit."""
    out = np.divide(total, n, out=np.full(total.shape, np.nan), where=enough)
    return (out + out.T) / 2
