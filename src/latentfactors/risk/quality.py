"""Are covariance forecasts right? Realised returns against what was said before them.

Standardised     z_p = r_p / sigma_p   of a portfolio, sigma_p from `RiskModel` before p; mean zero
Bias statistic   standard deviation of z over time; 1 if right, above 1 where risk was understated; for normal
                 z a 95% band of 1 +/- (2/T)^1/2
QLIKE            mean of ln sigma^2 + r^2 / sigma^2; lower is better, least at the true variance whatever the
                 proxy
Mahalanobis      mean of r'Sigma^-1 r / n over the n assets with a value; 1 if right (no portfolio has to be
                 chosen)

Assets without a value in a period are left out of both the return and its forecast.

References: Connor, Goldberg & Korajczyk (2010), Portfolio Risk Analysis, section 14.4; Menchero, Orr & Wang
(2011), USE4 Methodology Notes, appendix A (bias statistic); Patton (2011), Journal of Econometrics 160(1),
246-256 (QLIKE).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.frames import to_frame
from latentfactors.results import AssetWeightsResult
from latentfactors.risk.model import RiskModel
from latentfactors.risk.portfolios import Weights, held_rows
from latentfactors.risk.tail import TailBacktest, backtest_tail, check_level

__all__ = ["RiskRecord", "bias_statistic", "qlike", "risk_record"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class RiskRecord:
    """Ex ante risk and what happened, period by period.

    Attributes
    ----------
    times : (T,) periods with a covariance and a value
    names : P portfolios
    volatility, returns : (T, P) forecast before the period and realised in it, over assets with a value; NaN
        where
        the portfolio holds none of them
    distance : (T,) r'Sigma^-1 r / n
    n_assets : (T,) n
    in_sample : (T,) the model's loadings knew later periods
    """

    times: npt.NDArray[Any]
    names: tuple[str, ...]
    volatility: FloatArray
    returns: FloatArray
    distance: FloatArray
    n_assets: npt.NDArray[np.int64]
    in_sample: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def mahalanobis(self) -> float:
        """Mean of `distance`; 1 if the covariance is right."""
        return float(self.distance.mean())

    def frame(self, backend: str = "polars") -> Any:
        """One line per portfolio: portfolio, bias, its band (bias_low, bias_high), qlike, n_periods."""
        n = np.isfinite(self.returns / self.volatility).sum(axis=0)
        band = np.sqrt(2.0 / np.maximum(n, 1))
        pairs = list(zip(self.returns.T, self.volatility.T, strict=True))
        columns = {
            "portfolio": np.array(self.names),
            "bias": np.array([bias_statistic(r, s) for r, s in pairs]),
            "bias_low": 1.0 - band,
            "bias_high": 1.0 + band,
            "qlike": np.array([qlike(r, s) for r, s in pairs]),
            "n_periods": n,
        }
        return to_frame(columns, backend)

    def backtest(self, name: str | None = None, *, level: float = 0.99) -> TailBacktest:
        """Normal VaR and ES of one portfolio (None: the first) against its returns.

        Raises
        ------
        ConfigurationError
            No such portfolio.
        """
        from scipy.special import ndtri

        chosen = self.names[0] if name is None else name
        if chosen not in self.names:
            raise ConfigurationError(f"no portfolio {chosen!r} in this record, it has {self.names}")
        j, z = self.names.index(chosen), float(ndtri(check_level(level)))
        shortfall = float(np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi) / (1.0 - level))
        sigma = self.volatility[:, j]
        return backtest_tail(self.returns[:, j], z * sigma, shortfall * sigma, level=level, times=self.times)

    def __repr__(self) -> str:
        pairs = zip(self.names, self.returns.T, self.volatility.T, strict=True)
        bias = ", ".join(f"{name} {bias_statistic(r, s):.3f}" for name, r, s in list(pairs)[:4])
        seen = f", {int(self.in_sample.sum())} of them in sample" if self.in_sample.any() else ""
        distance = f"Mahalanobis {self.mahalanobis:.3f}"
        return f"RiskRecord({len(self.times)} periods{seen}: bias {bias}; {distance}; 1 is right)"


def risk_record(
    risk: RiskModel,
    portfolios: Mapping[str, Weights | AssetWeightsResult] | None = None,
    *,
    start: Any = None,
) -> RiskRecord:
    """Walk through the panel: the covariance before every period, then the period's returns.

    Parameters
    ----------
    risk
        A risk model.
    portfolios
        Name -> weights: asset -> weight or (N,) for all periods, (T, N), or an `AssetWeightsResult`. None:
        the assets of each period in equal parts, as "equal".
    start
        First period; None: the first that can have a covariance.

    Raises
    ------
    InsufficientDataError
        No period has both a covariance and a value.

    Examples
    --------
    >>> from latentfactors import PCAConfig, PCAModel
    >>> from latentfactors.risk import risk_model
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=200, n_assets=20, n_factors=2, seed=1).panel
    >>> model = PCAModel(PCAConfig(n_factors=2))
    >>> _ = model.fit(panel)
    >>> record = risk_record(risk_model(model.extract(panel), panel))
    >>> record.frame()["n_periods"].to_list(), 0.8 < record.mahalanobis < 1.2
    ([180], True)
    """
    state, values = risk.state, risk.panel.values
    index = state.index
    if portfolios is not None and (not isinstance(portfolios, Mapping) or not portfolios):
        raise ConfigurationError("portfolios must map names to weights, such as {'mine': {'AAPL': 0.1, ...}}")
    held = None
    if portfolios is not None:
        held = np.column_stack([held_rows(each, state, name).rows for name, each in portfolios.items()])
    names = ("equal",) if portfolios is None else tuple(portfolios)
    lines: list[tuple[Any, FloatArray, FloatArray, float, int, bool]] = []
    first = risk.first if start is None else index.position(start)
    # location and alpha are known before the period; what they say is no risk
    expected = state.measurement.location[index.asset_codes].copy()
    if state.measurement.alpha is not None:
        expected += state.measurement.scale[index.asset_codes] * np.nan_to_num(state.measurement.alpha)
    for p, rows, covariance in risk.steps(first):
        if p >= state.n_realised:
            break
        valued = np.isfinite(values[rows])
        if not valued.any():
            continue
        seen = covariance if valued.all() else covariance.select(valued)
        r = (values - expected)[rows[valued]]
        w = np.full((len(r), 1), 1.0 / len(r)) if held is None else held[rows[valued]]
        variance = np.einsum("ip,ip->p", w, seen.matvec(w))
        empty = ~(w != 0).any(axis=0)
        sigma = np.where(empty, np.nan, np.sqrt(np.maximum(variance, 0.0)))
        realised = np.where(empty, np.nan, w.T @ r)
        lines.append((p, sigma, realised, float(r @ seen.solve(r)) / len(r), len(r), covariance.in_sample))
    if not lines:
        raise InsufficientDataError(
            "no period has both a covariance from its past and a value: give a longer panel or lower "
            "min_periods"
        )
    position, sigma, realised, distance, n_assets, in_sample = zip(*lines, strict=True)
    return RiskRecord(
        times=index.times[list(position)],
        names=names,
        volatility=np.stack(sigma),
        returns=np.stack(realised),
        distance=np.array(distance),
        n_assets=np.array(n_assets, dtype=np.int64),
        in_sample=np.array(in_sample, dtype=np.bool_),
    )


def bias_statistic(returns: npt.ArrayLike, volatility: npt.ArrayLike) -> float:
    """Standard deviation (divisor T - 1) of returns over forecast volatilities, (T,) each; NaN for T < 2.

    Examples
    --------
    >>> round(bias_statistic([0.01, -0.01, 0.02, -0.02], [0.01, 0.01, 0.02, 0.02]), 3)
    1.155
    """
    z = _standardised(returns, volatility)
    return float(np.std(z, ddof=1)) if len(z) > 1 else float("nan")


def qlike(returns: npt.ArrayLike, volatility: npt.ArrayLike) -> float:
    """Mean of ln sigma^2 + r^2 / sigma^2 over (T,) returns and volatilities; NaN without any.

    Examples
    --------
    >>> round(qlike([1.0, -1.0], [1.0, 1.0]), 3)
    1.0
    """
    z = _standardised(returns, volatility)
    if not len(z):
        return float("nan")
    known = np.isfinite(np.asarray(returns, dtype=np.float64) / np.asarray(volatility, dtype=np.float64))
    sigma = np.asarray(volatility, dtype=np.float64)[known]
    return float(np.mean(2.0 * np.log(sigma) + z * z))


def _standardised(returns: npt.ArrayLike, volatility: npt.ArrayLike) -> FloatArray:
    r, sigma = np.asarray(returns, dtype=np.float64), np.asarray(volatility, dtype=np.float64)
    if r.ndim != 1 or r.shape != sigma.shape:
        raise ConfigurationError(
            f"expected returns and volatilities of one length, got {r.shape}, {sigma.shape}"
        )
    known = np.isfinite(r) & np.isfinite(sigma)
    if np.any(sigma[known] <= 0):
        raise ConfigurationError(
            "volatilities must be positive: a portfolio without risk has no bias statistic"
        )
    return r[known] / sigma[known]
