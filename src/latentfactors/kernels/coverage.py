"""Whether interval or quantile forecasts fail as often as they say, and independently of the last failure.

Hits             I_t = 1 where the forecast failed in period t (a loss beyond VaR, a value outside its
                 interval), announced with probability p;  n1 hits in n periods,  pi = n1/n
Unconditional    LR_uc  = 2 [l(pi; n0, n1) - l(p; n0, n1)]  ~ chi2(1),   l(q; a, b) = a ln(1 - q) + b ln q
Independence     LR_ind = 2 [l(pi01; n00, n01) + l(pi11; n10, n11) - l(pi2; n00 + n10, n01 + n11)]  ~ chi2(1)
                 n_ij: transitions from i to j;  pi_ij = n_ij / (n_i0 + n_i1);  pi2 the share of hits among
                 the periods that have a predecessor
Conditional      LR_cc  = LR_uc + LR_ind  ~ chi2(2)

0 ln 0 = 0, so no hit at all, or hits only, is a case like any other. LR_uc uses all n periods, LR_ind the n -
1 transitions.

References: Kupiec (1995), Journal of Derivatives 3(2), 73-84; Christoffersen (1998), International Economic
Review 39(4), 841-862, eqs. (1)-(3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CoverageTest", "coverage_test"]


@dataclass(frozen=True, kw_only=True)
class CoverageTest:
    """Kupiec's and Christoffersen's tests of a series of hits.

    Attributes
    ----------
    probability : announced probability of a hit
    n_periods, n_hits : as observed
    transitions : n00, n01, n10, n11
    unconditional, unconditional_p : LR_uc and its p-value, chi2(1)
    independence, independence_p : LR_ind and its p-value, chi2(1)
    conditional, conditional_p : LR_cc and its p-value, chi2(2)
    """

    probability: float
    n_periods: int
    n_hits: int
    transitions: tuple[int, int, int, int]
    unconditional: float
    unconditional_p: float
    independence: float
    independence_p: float
    conditional: float
    conditional_p: float

    @property
    def rate(self) -> float:
        """Observed share of hits."""
        return self.n_hits / self.n_periods


def coverage_test(hits: npt.ArrayLike, probability: float) -> CoverageTest:
    """Both tests for hits (T,) announced with one probability.

    Parameters
    ----------
    hits : (T,) bool
        In the order of time, T >= 2; leave out periods without a forecast.
    probability
        Of a hit, in (0, 1): 0.01 for a 99% VaR.

    Raises
    ------
    ValueError
        Hits that are not boolean or fewer than two, a probability outside (0, 1).

    Examples
    --------
    >>> test = coverage_test([False] * 250 + [True] * 5, 0.01)
    >>> round(test.unconditional, 4), round(test.unconditional_p, 4), test.transitions
    (1.8573, 0.1729, (249, 1, 0, 4))
    """
    from scipy.special import chdtrc

    flags = np.asarray(hits)
    if flags.ndim != 1 or flags.dtype != np.bool_ or flags.size < 2:
        raise ValueError(
            f"hits must be a boolean array (T,) with T >= 2, got {flags.dtype} of shape {flags.shape}"
        )
    if not 0.0 < probability < 1.0:
        raise ValueError(f"probability of a hit must lie in (0, 1), got {probability}")
    n, n1 = flags.size, int(flags.sum())
    before, after = flags[:-1], flags[1:]
    n11, n01 = int((before & after).sum()), int((~before & after).sum())
    n10, n00 = int((before & ~after).sum()), int((~before & ~after).sum())
    unconditional = 2.0 * (_loglik(n1 / n, n - n1, n1) - _loglik(probability, n - n1, n1))
    pooled = (n01 + n11) / (n - 1)
    chain = _loglik(_share(n01, n00), n00, n01) + _loglik(_share(n11, n10), n10, n11)
    independence = 2.0 * (chain - _loglik(pooled, n00 + n10, n01 + n11))
    # Both ratios are non-negative on paper; rounding may leave -1e-16.
    unconditional, independence = max(unconditional, 0.0), max(independence, 0.0)
    both = unconditional + independence
    return CoverageTest(
        probability=float(probability),
        n_periods=n,
        n_hits=n1,
        transitions=(n00, n01, n10, n11),
        unconditional=unconditional,
        unconditional_p=float(chdtrc(1, unconditional)),
        independence=independence,
        independence_p=float(chdtrc(1, independence)),
        conditional=both,
        conditional_p=float(chdtrc(2, both)),
    )


def _loglik(q: float, misses: int, hits: int) -> float:
    """l(q; a, b) = a ln(1 - q) + b ln q, with 0 ln 0 = 0."""
    return (misses * math.log1p(-q) if misses else 0.0) + (hits * math.log(q) if hits else 0.0)


def _share(hits: int, misses: int) -> float:
    return hits / (hits + misses) if hits + misses else 0.0
