"""Quadratic forms in test statistics: x'C^-1 x, and the law of a weighted sum of chi-squares.

    Q = sum_j w_j X_j^2, X_j independent N(0, 1), w_j >= 0

Tail             P(Q > x) = 1/(2 pi i) int exp(-s x) prod_j (1 - 2 w_j s)^(-1/2) ds / s
                 over any path from below to above that meets the real axis between 0 and 1/(2 max w)
Path             s(u) = c + u^2/2 + iu: it bends around the branch points, so the integrand falls like
                 exp(-x u^2/2) and the trapezoid rule in v, u = sinh v, converges geometrically. c is the
                 saddle point of the integrand, so that no digits are lost in the tail
With equal weights this is the chi-square law. It is the limit of goodness-of-fit statistics whose weighting
matrix is not the inverse of the moments' covariance, such as the Hansen-Jagannathan distance.

References: Imhof (1961), Biometrika 48(3/4), the inversion along the imaginary axis; Rice (1980), SIAM
Journal on Scientific and Statistical Computing 1(4), saddle-point paths.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentfactors.errors import InsufficientDataError

__all__ = ["inverse_quadratic", "weighted_chi2_tail"]

FloatArray = NDArray[np.float64]
# Below this reciprocal condition of a correlation matrix the columns are one portfolio too many.
_SINGULAR = 1e-11
_POINTS = 1000
# exp(-40) is nothing beside the rounding of the rest
_DECAY = 40.0


def inverse_quadratic(covariance: FloatArray, vector: FloatArray, trouble: str) -> float:
    """x'C^-1 x for C (n, n) and x (n,), refused where C is singular up to the scale of its variables.

    Raises
    ------
    InsufficientDataError
        Singular C; the message begins with `trouble`.
    """
    scale = np.sqrt(np.diag(covariance))
    if np.all(scale > 0):
        correlation = covariance / np.outer(scale, scale)
        values, axes = np.linalg.eigh(correlation)
        if values[0] > _SINGULAR * values[-1]:
            return float((np.square(axes.T @ (vector / scale)) / values).sum())
    raise InsufficientDataError(
        f"{trouble}: the covariance of {len(scale)} series is singular, leave out the redundant ones"
    )


def weighted_chi2_tail(x: float, weights: ArrayLike) -> float:
    """P(sum_j w_j X_j^2 > x), to about 1e-10.

    Parameters
    ----------
    x
        Any number; 1 is returned for x <= 0.
    weights : (m,)
        >= 0; weights below 1e-12 of the largest count as 0.

    Raises
    ------
    ValueError
        No weights, a negative one, or numbers that are not finite.

    Examples
    --------
    >>> round(weighted_chi2_tail(3.84145882, [1.0]), 7), round(weighted_chi2_tail(4.0, [1.0, 1.0]), 7)
    (0.05, 0.1353353)
    """
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim != 1 or not w.size or not np.isfinite(w).all() or np.any(w < 0) or not np.isfinite(x):
        raise ValueError(f"expected finite x and weights (m,) >= 0, got x={x!r}, weights {weights!r}")
    largest = float(w.max())
    if largest == 0.0:
        return float(x < 0.0)
    if x <= 0.0:
        return 1.0
    scaled = w[w > 1e-12 * largest] / largest
    level = x / (2.0 * largest)  # of Q / (2 max w), whose transform is singular at 1
    start = _saddle(level, scaled)
    end = float(np.arcsinh(np.sqrt(2.0 * _DECAY / level)))
    v = (np.arange(_POINTS) + 0.5) * (end / _POINTS)
    u = np.sinh(v)
    s = start + 0.5 * u * u + 1j * u
    # sums of logarithms: a product of many small numbers would vanish
    exponent = -s * level - 0.5 * np.log(1.0 - scaled[:, None] * s).sum(axis=0)
    integrand = np.exp(exponent) / s * (u + 1j) * np.cosh(v)
    total = float(integrand.imag.sum()) * (end / _POINTS) / np.pi
    return min(max(total, 0.0), 1.0)


def _saddle(level: float, scaled: FloatArray) -> float:
    """c in [0.05, 1) with sum_j w_j / (2 (1 - w_j c)) - 1/c = level, by bisection: the left side rises."""
    low, high = 0.05, 1.0 - 1e-9
    for _ in range(60):
        middle = 0.5 * (low + high)
        slope = 0.5 * float((scaled / (1.0 - scaled * middle)).sum()) - 1.0 / middle
        low, high = (middle, high) if slope < level else (low, middle)
    return low
