"""Hansen-Jagannathan distance: how far a linear discount factor is from pricing a set of assets.

Excess returns   m_t = 1 - (f_t - mean f)'b          e(b) = mean(m r) = mean r - C b,  C = cov(r, f)
                 d^2 = min_b e'V^-1 e                V covariance of r, divisor T (Kan & Robotti)
Gross returns    m_t = b_0 + f_t'b                   e(b) = mean(m R) - 1
                 d^2 = min_b e'G^-1 e                G = mean(R R') (Hansen & Jagannathan)
In words         gross: the smallest change of m, in root mean square, that prices all assets; excess: the
                 largest pricing error of a portfolio with unit variance
Law              T d^2 -> sum_j w_j X_j^2, X_j independent N(0, 1), w_j the N - P positive eigenvalues of
                 M L'S L M with W = L L' the weighting matrix, M = I - L'D (D'W D)^-1 D'L, D the derivative
                 of e, S the long-run covariance of the moments. For excess returns the moments are
                 r_t - (r_t - mean r)(f_t - mean f)'b: the mean of f is estimated, too

The law is asymptotic: with many assets and few periods the test rejects true models too often.

References: Hansen & Jagannathan (1997), JF 52(2); Jagannathan & Wang (1996), JF 51(1), the law; Kan & Robotti
(2008), Journal of Empirical Finance 15(5), excess returns; Ahn & Gadarowski (2004), Journal of Empirical
Finance 11(1), size in small samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.evaluate.pricing_tests import complete_periods
from latentfactors.kernels.newey_west import automatic_lags, long_run_sum
from latentfactors.kernels.quadratic_forms import inverse_quadratic, weighted_chi2_tail

__all__ = ["HJDistance", "hj_distance"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class HJDistance:
    """The distance and the discount factor that attains it.

    Attributes
    ----------
    distance : d, per period
    p_value : of d = 0, from the weighted chi-square law
    coefficients : (K,) prices b of the factors in the discount factor; (1 + K,), b_0 first, for gross returns
    pricing_errors : (N,) e(b)
    weights : (N - P,) of the law
    n_periods, n_assets, n_factors, n_incomplete : T used, N, K, periods left out
    """

    distance: float
    p_value: float
    coefficients: FloatArray
    pricing_errors: FloatArray
    weights: FloatArray
    n_periods: int
    n_assets: int
    n_factors: int
    n_incomplete: int

    def __post_init__(self) -> None:
        freeze(self)

    def __repr__(self) -> str:
        return (
            f"HJDistance({self.distance:.4f}, p = {self.p_value:.3g}, {self.n_assets} assets, "
            f"{self.n_factors} factors, T = {self.n_periods})"
        )


def hj_distance(
    returns: npt.ArrayLike, factors: npt.ArrayLike, *, gross: bool = False, lags: int | None = 0
) -> HJDistance:
    """Distance of a linear factor model's discount factor from those that price all assets.

    Parameters
    ----------
    returns : (T, N)
        Excess returns or spreads; with `gross`, one plus raw returns, of order 1.
    factors : (T, K) or (T,)
        Any factors, traded or not.
    gross
        What `returns` are.
    lags
        Newey-West lags of the moments; 0: none, as under the null; None: floor(4 (T/100)^(2/9)).

    Returns
    -------
    HJDistance

    Raises
    ------
    ConfigurationError
        Shapes that do not fit; gross returns that are not of order 1.
    InsufficientDataError
        As many coefficients as assets; T <= N + K; assets that repeat each other; factors that are collinear
        or without any covariance with the returns.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> f = 0.1 + rng.normal(size=(600, 2))
    >>> r = f @ rng.normal(1.0, 0.5, size=(2, 10)) + rng.normal(size=(600, 10))
    >>> hj_distance(r, f).p_value > 0.05, hj_distance(r + 0.5 * np.eye(10)[0], f).p_value < 0.05
    (True, True)
    """
    r, f, n_incomplete = complete_periods(returns, factors)
    (n_periods, n_assets), n_factors = r.shape, f.shape[1]
    n_coefficients = n_factors + gross
    if n_assets <= n_coefficients or n_periods <= n_assets + n_factors:
        raise InsufficientDataError(
            f"expected more assets than coefficients and more complete periods than assets and factors, got "
            f"{n_assets} assets, {n_coefficients} coefficients and {n_periods} periods"
        )
    if gross and not 0.5 < float(np.median(r)) < 2.0:
        raise ConfigurationError(
            f"gross returns are one plus raw returns, of order 1, their median is {float(np.median(r)):.4g}: "
            "add 1, or say gross=False for excess returns"
        )
    scale = np.maximum(np.abs(f - f.mean(axis=0)).max(axis=0), np.finfo(np.float64).tiny)
    centred = (f - f.mean(axis=0)) / scale
    inverse_quadratic(centred.T @ centred / n_periods, np.zeros(n_factors), "factors are collinear")
    moment, target, derivative = _problem(r, centred, gross)
    repeat = "test assets repeat each other"
    inverse_quadratic(moment, target, repeat)
    root = np.linalg.inv(np.linalg.cholesky(moment))  # L' with W = L L' the inverse of the moment
    left, values, right = np.linalg.svd(root @ derivative, full_matrices=True)
    if values[-1] <= 1e-10 * values[0] or values[0] == 0.0:
        raise InsufficientDataError(
            "the factors' covariances with the test assets are collinear or zero: their prices are unknown"
        )
    scaled = right.T @ ((left.T @ (root @ target))[:n_coefficients] / values)
    errors = target - derivative @ scaled
    distance_squared = float(np.square(root @ errors).sum())
    moments = _moments(r, centred, scaled, errors, gross)
    n_lags = automatic_lags(n_periods) if lags is None else lags
    long_run = long_run_sum(moments, n_lags) / n_periods
    complement = root.T @ left[:, n_coefficients:]  # L M in an orthonormal basis of M's range
    weights = np.maximum(np.linalg.eigvalsh(complement.T @ long_run @ complement), 0.0)
    coefficients = scaled / (np.concatenate([[1.0], scale]) if gross else scale)
    if gross:  # back to factors that are not demeaned
        coefficients[0] -= float(coefficients[1:] @ f.mean(axis=0))
    return HJDistance(
        distance=float(np.sqrt(distance_squared)),
        p_value=weighted_chi2_tail(n_periods * distance_squared, weights),
        coefficients=coefficients,
        pricing_errors=errors,
        weights=weights,
        n_periods=n_periods,
        n_assets=n_assets,
        n_factors=n_factors,
        n_incomplete=n_incomplete,
    )


def _problem(r: FloatArray, centred: FloatArray, gross: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The moment to invert (N, N), and target (N,) and derivative (N, P) of errors target - derivative b.

    For gross returns the errors carry the opposite sign, 1 - mean(m R), which no distance can see.
    """
    n = len(r)
    if gross:
        design = np.column_stack([np.ones(n), centred])
        return r.T @ r / n, np.ones(r.shape[1]), r.T @ design / n
    apart = r - r.mean(axis=0)
    return apart.T @ apart / n, r.mean(axis=0), apart.T @ centred / n


def _moments(
    r: FloatArray, centred: FloatArray, b: FloatArray, errors: FloatArray, gross: bool
) -> FloatArray:
    """(T, N) deviations of the moments from their mean, with the estimated mean of the factors in them."""
    if gross:
        return 1.0 - r * (b[0] + centred @ b[1:])[:, None] - errors
    return r - (r - r.mean(axis=0)) * (centred @ b)[:, None] - errors
