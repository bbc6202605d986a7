"""What a portfolio's risk is made of; every breakdown adds up to the whole.

Portfolio        sigma^2 = w'Sigma w = x'S x + w'D w          x = B'w exposures
Factor k         x_k (S x)_k / sigma                          systematic = sum over factors = x'S x / sigma
Specific         w'D w / sigma
Asset i          w_i (Sigma w)_i / sigma                      its systematic part w_i b_i'S x / sigma
Asset x factor   w_i b_ik (S x)_k / sigma
Marginal         d sigma / d w_i = (Sigma w)_i / sigma        d sigma / d x_k = (S x)_k / sigma
Active           the same for w - w_benchmark; sigma is then the tracking error
Beta             w'Sigma w_b / w_b'Sigma w_b

Contributions are in the unit of sigma (input units per period). They are Euler's: sigma is homogeneous of
degree one in w. A portfolio without risk has contributions and marginals of zero.

References: Litterman (1996), Hot Spots and Hedges, Journal of Portfolio Management 23; Menchero & Davis
(2011), Risk Contribution Is Exposure Times Volatility Times Correlation, Journal of Portfolio Management
37(2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import freeze
from latentfactors.frames import to_frame
from latentfactors.risk.operator import CovarianceOperator
from latentfactors.risk.portfolios import Weights, group_sums, rotation_remark

__all__ = ["Breakdown", "RiskDecomposition", "decompose"]

FloatArray = npt.NDArray[np.float64]
Breakdown = Literal["component", "factor", "family", "asset", "asset_factor"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class RiskDecomposition:
    """Risk of a portfolio, or of its difference from a benchmark, in every breakdown.

    Attributes
    ----------
    volatility : standard deviation per period in input units; the tracking error of an active portfolio
    systematic, specific : contributions to it, which sum to it
    assets : (N,) labels
    weights : (N,) as analysed: active weights where there is a benchmark
    factor_names, factor_families : K each
    exposures : (K,) x
    factor_volatility : (K,) sqrt S_kk
    factor_correlation : (K,) of factor and portfolio returns, 0 for a factor that stands still
    by_factor : (K,) contributions; they sum to `systematic`
    marginal_factor : (K,) d volatility / d x_k
    asset_systematic, asset_specific : (N,) contributions; they sum to `systematic` and `specific`
    marginal_asset : (N,) d volatility / d w_i
    loadings : (N, K) B
    portfolio_volatility, benchmark_volatility, beta : of an active portfolio, else None
    time, origin : period, and last period whose data were used
    remarks : what has to be known to read it
    """

    volatility: float
    systematic: float
    specific: float
    assets: npt.NDArray[Any]
    weights: FloatArray
    factor_names: tuple[str, ...]
    factor_families: tuple[str, ...]
    exposures: FloatArray
    factor_volatility: FloatArray
    factor_correlation: FloatArray
    by_factor: FloatArray
    marginal_factor: FloatArray
    asset_systematic: FloatArray
    asset_specific: FloatArray
    marginal_asset: FloatArray
    loadings: FloatArray
    portfolio_volatility: float | None = None
    benchmark_volatility: float | None = None
    beta: float | None = None
    time: Any = None
    origin: Any = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def by_asset(self) -> FloatArray:
        """(N,) contributions of assets; they sum to `volatility`."""
        return self.asset_systematic + self.asset_specific

    @property
    def by_family(self) -> Mapping[str, float]:
        """Family -> contribution; they sum to `systematic`."""
        names, sums = group_sums(self.by_factor, self.factor_families)
        return dict(zip(names, sums.tolist(), strict=True))

    @property
    def by_asset_and_factor(self) -> FloatArray:
        """(N, K) contributions; rows sum to `asset_systematic`, columns to `by_factor`."""
        return self.weights[:, None] * self.loadings * self.marginal_factor

    @property
    def systematic_share(self) -> float:
        """Share of variance that factors explain, in [0, 1]; 0 without risk."""
        return self.systematic / self.volatility if self.volatility > 0 else 0.0

    def frame(self, by: Breakdown = "component", backend: str = "polars") -> Any:
        """One breakdown as a table; column `contribution` sums to the volatility, or to its systematic part.

        Parameters
        ----------
        by
            "component": systematic, specific, total. "factor": exposure, volatility, correlation,
            contribution, share, marginal. "family": contribution, share. "asset": weight, systematic,
            specific, contribution, share, marginal. "asset_factor": one line per held asset and factor.
        backend
            "polars", "pandas" or "pyarrow".

        Raises
        ------
        ConfigurationError
            Another breakdown.
        """
        if by == "component":
            columns = self._shared(
                {"component": np.array(["systematic", "specific", "total"])}, self._components
            )
        elif by == "factor":
            about = {
                "factor": np.array(self.factor_names),
                "family": np.array(self.factor_families),
                "exposure": self.exposures,
                "volatility": self.factor_volatility,
                "correlation": self.factor_correlation,
            }
            columns = {**self._shared(about, self.by_factor), "marginal": self.marginal_factor}
        elif by == "family":
            names, sums = group_sums(self.by_factor, self.factor_families)
            columns = self._shared({"family": np.array(names)}, sums)
        elif by == "asset":
            about = {
                "asset": self.assets,
                "weight": self.weights,
                "systematic": self.asset_systematic,
                "specific": self.asset_specific,
            }
            columns = {**self._shared(about, self.by_asset), "marginal": self.marginal_asset}
        elif by == "asset_factor":
            held = np.flatnonzero(self.weights)
            k = len(self.factor_names)
            about = {
                "asset": np.repeat(self.assets[held], k),
                "factor": np.tile(np.array(self.factor_names), len(held)),
                "family": np.tile(np.array(self.factor_families), len(held)),
            }
            columns = self._shared(about, self.by_asset_and_factor[held].ravel())
        else:
            raise ConfigurationError(f"by must be one of {get_args(Breakdown)}, got {by!r}")
        return to_frame(columns, backend)

    @property
    def _components(self) -> FloatArray:
        return np.array([self.systematic, self.specific, self.volatility])

    def _shared(self, about: dict[str, npt.NDArray[Any]], parts: FloatArray) -> dict[str, npt.NDArray[Any]]:
        share = parts / self.volatility if self.volatility > 0 else np.zeros(len(parts))
        return {**about, "contribution": parts, "share": share}

    def __repr__(self) -> str:
        kind = "volatility" if self.beta is None else "tracking error"
        when = "" if self.time is None else f" in {self.time}"
        largest = sorted(self.by_family.items(), key=lambda each: -abs(each[1]))[:4]
        families = ", ".join(f"{name} {part:.4g}" for name, part in largest)
        active = "" if self.beta is None else f", beta {self.beta:.3f}"
        lines = [
            f"RiskDecomposition({kind} {self.volatility:.4g}{when}: systematic {self.systematic:.4g} "
            f"({self.systematic_share:.0%}), specific {self.specific:.4g}; largest families "
            f"{families}{active})"
        ]
        return "\n".join([*lines, *(f"  note: {each}" for each in self.remarks)])


def decompose(
    covariance: CovarianceOperator, weights: Weights, benchmark: Weights | None = None
) -> RiskDecomposition:
    """Break a portfolio's risk down.

    Parameters
    ----------
    covariance
        From `RiskModel.at` or `latest`.
    weights
        Asset -> weight, or an array in the order of the state's assets; not rescaled.
    benchmark
        Likewise; what is broken down is then the difference.

    Raises
    ------
    PanelMismatchError
        Weights on assets that the covariance does not have, by name.

    Examples
    --------
    >>> sigma = CovarianceOperator(
    ...     assets=np.array(["a", "b"]),
    ...     loadings=np.array([[1.0, 1.0], [1.0, 0.0]]),
    ...     factor_covariance=np.diag([0.04, 0.01]),
    ...     specific_variance=np.array([0.02, 0.02]),
    ...     factor_names=("market", "country=FR"),
    ... )
    >>> risk = decompose(sigma, {"a": 0.5, "b": 0.5})
    >>> {name: round(part, 4) for name, part in risk.by_family.items()}, round(risk.specific, 4)
    ({'market': 0.1746, 'country': 0.0109}, 0.0436)
    >>> round(decompose(sigma, {"a": 1.0}, benchmark={"a": 0.5, "b": 0.5}).volatility, 4)
    0.1118
    """
    w = covariance.portfolio(weights)
    portfolio_volatility = benchmark_volatility = beta = None
    if benchmark is not None:
        b = covariance.portfolio(benchmark, what="benchmark weights")
        portfolio_volatility, benchmark_volatility = _deviation(covariance, w), _deviation(covariance, b)
        if benchmark_volatility == 0:
            raise ConfigurationError("the benchmark has no risk: every weight is zero")
        beta = float(w @ covariance.matvec(b)) / benchmark_volatility**2
        w = w - b
    exposures = covariance.loadings.T @ w
    toward = covariance.factor_covariance @ exposures
    specific = covariance.specific_matvec(w)
    variance = float(exposures @ toward + w @ specific)
    volatility = float(np.sqrt(max(variance, 0.0)))
    # Contributions of a portfolio without risk are zero, not 0/0.
    unit = 1.0 / volatility if volatility > 0 else 0.0
    systematic_slope, specific_slope = covariance.loadings @ toward * unit, specific * unit
    factor_volatility = np.sqrt(np.diagonal(covariance.factor_covariance))
    correlation = np.divide(
        toward * unit, factor_volatility, out=np.zeros(len(toward)), where=factor_volatility > 0
    )
    rotation = rotation_remark(covariance.factor_names)
    return RiskDecomposition(
        volatility=volatility,
        systematic=float(exposures @ toward) * unit,
        specific=float(w @ specific) * unit,
        assets=covariance.assets,
        weights=w,
        factor_names=covariance.factor_names,
        factor_families=covariance.family_of,
        exposures=exposures,
        factor_volatility=factor_volatility,
        factor_correlation=correlation,
        by_factor=exposures * toward * unit,
        marginal_factor=toward * unit,
        asset_systematic=w * systematic_slope,
        asset_specific=w * specific_slope,
        marginal_asset=systematic_slope + specific_slope,
        loadings=covariance.loadings,
        portfolio_volatility=portfolio_volatility,
        benchmark_volatility=benchmark_volatility,
        beta=beta,
        time=covariance.time,
        origin=covariance.origin,
        remarks=tuple(each for each in (rotation, *covariance.remarks) if each),
    )


def _deviation(covariance: CovarianceOperator, w: FloatArray) -> float:
    return float(np.sqrt(max(w @ covariance.matvec(w), 0.0)))
