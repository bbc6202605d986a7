"""What a shock to named factors does to every position.

Alone            f_s = shock, all other factors 0
Conditional      f_o = E[f_o | f_s] = S_os S_ss^-1 f_s,   Var[f_o | f_s] = S_oo - S_os S_ss^-1 S_so
P&L              w_i b_i'f of position i, x'f of the portfolio; around it the standard deviation
                 (x_o' Var[f_o | f_s] x_o + w'D w)^1/2 of what the shock leaves open
Plausibility     (f_s' S_ss^-1 f_s)^1/2, how many standard deviations the shock is away from zero
Duration times   d(price) = -duration * spread * (relative change of the spread), so that a model of relative
spread           spread changes becomes one of returns: rows of B times m, D times m^2, m = -duration * spread

Shocks are deviations from the mean, in factor units.

References: Kupiec (1998), Stress Testing in a Value at Risk Framework, Journal of Derivatives 6(1)
(conditional shocks); Ben Dor, Dynkin, Hyman, Houweling, van Leeuwen & Penninga (2007), DTS (Duration Times
Spread), Journal of Portfolio Management 33(2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import freeze
from latentfactors.frames import to_frame
from latentfactors.risk.operator import CovarianceOperator
from latentfactors.risk.portfolios import Weights, group_sums, over_universe, rotation_remark

__all__ = ["StressResult", "duration_times_spread", "stress_test"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class StressResult:
    """A scenario's effect on a portfolio and on every position in it.

    Attributes
    ----------
    profit : of the portfolio, in input units times weight
    uncertainty : standard deviation around it, of what the shock leaves open
    plausibility : size of the shock in standard deviations
    shocks : factor -> shock, in factor units
    conditional : whether the other factors followed
    factor_names, factor_families : K each
    moves : (K,) scenario of all factors
    by_factor : (K,) x_k times move; they sum to `profit`
    assets, weights : (N,)
    asset_moves : (N,) b_i'f, in input units
    by_asset : (N,) P&L of positions; they sum to `profit`
    time : period of the covariance
    remarks : what has to be known to read it
    """

    profit: float
    uncertainty: float
    plausibility: float
    shocks: Mapping[str, float]
    conditional: bool
    factor_names: tuple[str, ...]
    factor_families: tuple[str, ...]
    moves: FloatArray
    by_factor: FloatArray
    assets: npt.NDArray[Any]
    weights: FloatArray
    asset_moves: FloatArray
    by_asset: FloatArray
    time: Any = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def by_family(self) -> Mapping[str, float]:
        """Family -> P&L; they sum to `profit`."""
        names, sums = group_sums(self.by_factor, self.factor_families)
        return dict(zip(names, sums.tolist(), strict=True))

    def frame(self, by: Literal["asset", "factor"] = "asset", backend: str = "polars") -> Any:
        """Positions (asset, weight, move, profit) or factors (factor, family, move, exposure, profit)."""
        if by == "asset":
            columns = {"asset": self.assets, "weight": self.weights, "move": self.asset_moves}
            columns["profit"] = self.by_asset
        elif by == "factor":
            columns = {"factor": np.array(self.factor_names), "family": np.array(self.factor_families)}
            columns |= {"shocked": np.array([name in self.shocks for name in self.factor_names])}
            columns |= {"move": self.moves, "profit": self.by_factor}
        else:
            raise ConfigurationError(f"by must be 'asset' or 'factor', got {by!r}")
        return to_frame(columns, backend)

    def __repr__(self) -> str:
        given = ", ".join(f"{name} {size:+.4g}" for name, size in self.shocks.items())
        rest = "the others as expected given it" if self.conditional else "the others still"
        return (
            f"StressResult({given}, {rest}: profit {self.profit:+.4g} +/- {self.uncertainty:.4g}, a shock of "
            f"{self.plausibility:.1f} standard deviations)"
        )


def stress_test(
    covariance: CovarianceOperator,
    weights: Weights,
    shocks: Mapping[str, float],
    *,
    conditional: bool = True,
    in_deviations: bool = False,
) -> StressResult:
    """Shock factors by name and see what the portfolio makes or loses.

    Parameters
    ----------
    covariance
        From `RiskModel.at` or `latest`.
    weights
        Asset -> weight, or an array in the order of the state's assets.
    shocks
        Factor -> deviation from its mean.
    conditional
        Other factors move to what is expected given the shock; otherwise they stand still.
    in_deviations
        Shocks are in standard deviations of each factor instead of factor units.

    Raises
    ------
    ConfigurationError
        Unknown factors, no shock, shocks that contradict each other under this covariance (a factor without
        variance, two collinear factors torn apart).

    Examples
    --------
    >>> sigma = CovarianceOperator(
    ...     assets=np.array(["a", "b"]),
    ...     loadings=np.array([[1.0, 0.0], [1.0, 1.0]]),
    ...     factor_covariance=np.array([[0.04, 0.02], [0.02, 0.04]]),
    ...     specific_variance=np.array([0.01, 0.01]),
    ...     factor_names=("market", "rating=BB"),
    ... )
    >>> result = stress_test(sigma, {"b": 1.0}, {"market": -0.1})
    >>> result.moves.round(3).tolist(), round(result.profit, 3), round(result.plausibility, 2)
    ([-0.1, -0.05], -0.15, 0.5)
    >>> round(stress_test(sigma, {"b": 1.0}, {"market": -0.1}, conditional=False).profit, 3)
    -0.1
    """
    names, covariances = covariance.factor_names, covariance.factor_covariance
    size = _shock_vector(shocks, names)
    hit = np.array([name in shocks for name in names])
    if in_deviations:
        size = size * np.sqrt(np.diagonal(covariances))
    within = covariances[np.ix_(hit, hit)]
    deviation = np.sqrt(np.diagonal(within))
    if np.any(deviation == 0):
        still = np.array(names)[hit][deviation == 0]
        raise ConfigurationError(f"factors {', '.join(still)} have no variance: a shock to them says nothing")
    # Through correlations, so that factors of very different size are inverted alike.
    inverse = np.linalg.pinv(within / np.outer(deviation, deviation), rcond=1e-10, hermitian=True)
    inverse = inverse / np.outer(deviation, deviation)
    pull = inverse @ size[hit]
    if np.abs((within @ pull - size[hit]) / deviation).max() > 1e-6 * np.abs(size[hit] / deviation).max():
        raise ConfigurationError(
            f"shocks {dict(shocks)} contradict each other: these factors are collinear, shock one of them"
        )
    moves, left = size, covariances.copy()
    left[hit], left[:, hit] = 0.0, 0.0
    if conditional:
        across = covariances[:, hit]
        moves = np.where(hit, size, across @ pull)
        left = covariances - across @ inverse @ across.T
        left[hit], left[:, hit] = 0.0, 0.0
    w = covariance.portfolio(weights)
    exposures, asset_moves = covariance.loadings.T @ w, covariance.loadings @ moves
    open_variance = float(exposures @ left @ exposures + w @ covariance.specific_matvec(w))
    return StressResult(
        profit=float(exposures @ moves),
        uncertainty=float(np.sqrt(max(open_variance, 0.0))),
        plausibility=float(np.sqrt(max(size[hit] @ pull, 0.0))),
        shocks={name: float(size[k]) for k, name in enumerate(names) if hit[k]},
        conditional=conditional,
        factor_names=names,
        factor_families=covariance.family_of,
        moves=moves,
        by_factor=exposures * moves,
        assets=covariance.assets,
        weights=w,
        asset_moves=asset_moves,
        by_asset=w * asset_moves,
        time=covariance.time,
        remarks=tuple(each for each in (rotation_remark(names),) if each),
    )


def duration_times_spread(
    covariance: CovarianceOperator, duration: Weights, spread: Weights | None = None
) -> CovarianceOperator:
    """The covariance of returns from one of spread changes: everything of asset i times -duration_i spread_i.

    Parameters
    ----------
    covariance
        Of *relative* spread changes; without `spread`, of absolute ones.
    duration
        Spread duration in years, asset -> number or an array in the order of the state's assets; > 0 for
        every asset of the covariance.
    spread
        In the unit that turns relative changes into absolute ones of the wanted return: 0.012 is 120 basis
        points and gives decimal returns.

    Raises
    ------
    PanelMismatchError, ConfigurationError
        Assets without a duration or spread, by name; numbers that are not positive.

    Examples
    --------
    >>> sigma = CovarianceOperator(
    ...     assets=np.array(["a", "b"]),
    ...     loadings=np.ones((2, 1)),
    ...     factor_covariance=np.array([[0.04]]),
    ...     specific_variance=np.array([0.01, 0.01]),
    ...     factor_names=("market",),
    ... )
    >>> returns = duration_times_spread(sigma, {"a": 5.0, "b": 2.0}, {"a": 0.01, "b": 0.05})
    >>> returns.loadings.ravel().tolist()
    [-0.05, -0.1]
    """
    multiplier = -_positive(covariance, duration, "duration")
    if spread is not None:
        multiplier = multiplier * _positive(covariance, spread, "spread")
    return covariance.scaled(multiplier)


def _positive(covariance: CovarianceOperator, numbers: Weights, what: str) -> FloatArray:
    universe = covariance.assets if covariance.universe is None else covariance.universe
    place = {label: i for i, label in enumerate(universe.tolist())}
    found = over_universe(numbers, universe, what)[[place[label] for label in covariance.assets.tolist()]]
    bad = ~(found > 0)
    if bad.any():
        raise ConfigurationError(
            f"{what} must be positive for every asset of the covariance, got {found[bad][0]:.4g} for "
            f"{covariance.assets[bad][0]!s} ({int(bad.sum())} such assets): give it, or leave them out with "
            "covariance.select"
        )
    return found


def _shock_vector(shocks: Mapping[str, float], names: tuple[str, ...]) -> FloatArray:
    """(K,) shocks in the factors' order, 0 where there is none."""
    if not isinstance(shocks, Mapping) or not shocks:
        raise ConfigurationError(f"shocks must map at least one factor to its move, got {shocks!r}")
    unknown = [name for name in shocks if name not in names]
    if unknown:
        shown = ", ".join(names[:10]) + ("" if len(names) <= 10 else ", ...")
        raise ConfigurationError(
            f"shocks name factors that do not exist: {', '.join(map(str, unknown))}; there are {shown}"
        )
    vector = np.array([float(shocks.get(name, 0.0)) for name in names])
    if not np.isfinite(vector).all():
        raise ConfigurationError(f"shocks must be finite, got {dict(shocks)}")
    return vector
