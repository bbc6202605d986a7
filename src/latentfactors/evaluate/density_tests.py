"""Tests of interval and density forecasts: do they hold what they promise.

Coverage         hits I_t of an interval: likelihood ratios of their rate (Kupiec), of independence against
                 a first-order Markov chain, and of both together (Christoffersen)
Density          u_t = Phi((y - m)/s) is uniform and independent; Berkowitz: Phi^-1(u) is an independent
                 N(0, 1) against a normal AR(1), likelihood ratio ~ chi^2(3)

Only periods in which everything is observed enter.

References: Kupiec (1995), Journal of Derivatives 3(2); Christoffersen (1998), IER 39(4); Diebold, Gunther &
Tay (1998), IER 39(4) (the probability integral transform); Berkowitz (2001), JBES 19(4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.kernels.scores import coverage, crps_gaussian, log_score_gaussian, pit_gaussian

__all__ = ["CoverageTests", "DensityEvaluation", "density_evaluation", "interval_tests"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CoverageTests:
    """How often an interval held, and whether its failures cluster.

    Attributes
    ----------
    coverage, level
        Share of realised values inside, and what was promised.
    unconditional, independence, conditional
        Likelihood ratios of Kupiec, of independence, and of both together (Christoffersen).
    p_unconditional, p_independence, p_conditional
        Their p-values: chi-squared with 1, 1 and 2 degrees of freedom.
    n_periods
        Periods used.
    """

    coverage: float
    level: float
    unconditional: float
    independence: float
    conditional: float
    p_unconditional: float
    p_independence: float
    p_conditional: float
    n_periods: int


def interval_tests(
    realised: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike, level: float
) -> CoverageTests:
    """Test the coverage of one-step interval forecasts of one series.

    With horizons beyond one, failures overlap and cluster by construction: test every h-th period.

    Parameters
    ----------
    realised, lower, upper : (T,)
        An infinite bound is one-sided. Periods with NaN are left out, their neighbours taken as successive.
    level
        Promised coverage, in (0, 1).

    Raises
    ------
    ConfigurationError
        A level outside (0, 1), arrays of several lengths, a lower bound above the upper one.
    InsufficientDataError
        Fewer than ten periods.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> tests = interval_tests(rng.normal(size=500), np.full(500, -1.645), np.full(500, 1.645), 0.9)
    >>> tests.p_conditional > 0.05
    True
    """
    from scipy.special import chdtrc, xlogy

    if not 0 < level < 1:
        raise ConfigurationError(f"level must lie in (0, 1), got {level!r}")
    y, low, high = (np.asarray(each, dtype=np.float64) for each in (realised, lower, upper))
    if y.ndim != 1 or not y.shape == low.shape == high.shape:
        raise ConfigurationError(f"expected three (T,) arrays, got {y.shape}, {low.shape}, {high.shape}")
    kept = np.isfinite(y) & ~np.isnan(low) & ~np.isnan(high)
    if np.any(low[kept] > high[kept]):
        raise ConfigurationError("lower bounds must not exceed upper ones: are they swapped?")
    n = int(kept.sum())
    if n < 10:
        raise InsufficientDataError(f"coverage needs at least 10 periods with everything observed, got {n}")
    inside = ((low[kept] <= y[kept]) & (y[kept] <= high[kept])).astype(np.int64)
    moves = np.zeros((2, 2))
    np.add.at(moves, (inside[:-1], inside[1:]), 1)

    def likelihood(hits: float, misses: float, share: float) -> float:
        return float(xlogy(hits, share) + xlogy(misses, 1.0 - share))

    hits = int(inside.sum())
    unconditional = 2.0 * (likelihood(hits, n - hits, hits / n) - likelihood(hits, n - hits, level))
    pooled = moves[:, 1].sum() / (n - 1)
    chain = sum(likelihood(row[1], row[0], row[1] / max(row.sum(), 1.0)) for row in moves)
    independence = 2.0 * (chain - likelihood(moves[:, 1].sum(), moves[:, 0].sum(), pooled))
    unconditional, independence = max(unconditional, 0.0), max(independence, 0.0)
    return CoverageTests(
        coverage=hits / n,
        level=level,
        unconditional=unconditional,
        independence=independence,
        conditional=unconditional + independence,
        p_unconditional=float(chdtrc(1, unconditional)),
        p_independence=float(chdtrc(1, independence)),
        p_conditional=float(chdtrc(2, unconditional + independence)),
        n_periods=n,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class DensityEvaluation:
    """What normal density forecasts were worth.

    Attributes
    ----------
    crps, log_score
        Means; CRPS in the values' unit, lower is better; the log score higher.
    coverage
        Nominal level -> share inside the central interval, for 50%, 68%, 90% and 95%.
    pit : (T,)
        Phi((y - mean)/sd), NaN where something is missing.
    berkowitz, p_berkowitz
        Likelihood ratio of calibrated and independent against mean, variance and AR(1) of Phi^-1(pit).
    n_periods
        Periods used.
    """

    crps: float
    log_score: float
    coverage: Mapping[float, float]
    pit: FloatArray
    berkowitz: float
    p_berkowitz: float
    n_periods: int

    def __post_init__(self) -> None:
        freeze(self)


def density_evaluation(
    realised: npt.ArrayLike, mean: npt.ArrayLike, variance: npt.ArrayLike
) -> DensityEvaluation:
    """Score one-step normal densities of one series and test their calibration.

    Parameters
    ----------
    realised, mean, variance : (T,)
        Variance > 0 in the values' unit squared.

    Raises
    ------
    ConfigurationError
        Shapes that do not fit, a variance that is not positive.
    InsufficientDataError
        Fewer than ten periods.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = density_evaluation(rng.normal(size=400), np.zeros(400), np.ones(400))
    >>> round(found.crps, 2), found.p_berkowitz > 0.05
    (0.56, True)
    """
    from scipy.special import chdtrc, ndtri

    y, m, v = (np.asarray(each, dtype=np.float64) for each in (realised, mean, variance))
    if y.ndim != 1 or not y.shape == m.shape == v.shape:
        raise ConfigurationError(f"expected three (T,) arrays, got {y.shape}, {m.shape}, {v.shape}")
    kept = np.isfinite(y) & np.isfinite(m) & np.isfinite(v)
    if np.any(v[kept] <= 0):
        raise ConfigurationError(f"variances must be positive, got {v[kept].min():g}")
    n = int(kept.sum())
    if n < 10:
        raise InsufficientDataError(f"densities need at least 10 periods with everything observed, got {n}")
    sd = np.sqrt(v)
    shares = {}
    for level in (0.5, 0.68, 0.9, 0.95):
        reach = float(ndtri(0.5 + level / 2)) * sd
        shares[level] = coverage(y, m - reach, m + reach)
    statistic = _berkowitz(((y - m) / sd)[kept])
    return DensityEvaluation(
        crps=crps_gaussian(y, m, v),
        log_score=log_score_gaussian(y, m, v),
        coverage=shares,
        pit=pit_gaussian(y, m, v),
        berkowitz=statistic,
        p_berkowitz=float(chdtrc(3, statistic)),
        n_periods=n,
    )


# ------------------------------------------------------------------------------------------- the parts


def _berkowitz(z: FloatArray) -> float:
    """2 (log L of a normal AR(1) - log L of independent N(0, 1)) of z (n,), both given the first value."""
    past, now = np.column_stack([np.ones(len(z) - 1), z[:-1]]), z[1:]
    residual = now - past @ np.linalg.lstsq(past, now, rcond=None)[0]
    n, variance = len(now), float(np.mean(residual**2))
    if variance == 0:
        return float("inf")
    free = -0.5 * n * (np.log(2 * np.pi * variance) + 1.0)
    null = -0.5 * (n * np.log(2 * np.pi) + float(now @ now))
    return max(2.0 * float(free - null), 0.0)
