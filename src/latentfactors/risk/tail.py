"""Value at risk and expected shortfall, with contributions that add up, and whether they held.

Loss             L = -w'r; the mean return counts as zero, as is usual over short horizons
Normal           VaR = z sigma, ES = sigma phi(z)/(1 - a),  z = Phi^-1(a): contributions are those of sigma
Scenarios        every past period s with today's portfolio:  L_s = -(x'f_s + c_s sum_i w_i e_is), x of today;
                 assets without a residual in s are stood in for by the others,
                 c_s^2 = sum w_i^2 d_i / sum over assets with a residual
Filtered         f_sk and e_is times today's over that day's ex ante standard deviation: today's level of risk
                 with yesterday's tails
VaR of S         L_((ceil(S a))), the smallest loss that is not exceeded with frequency a
ES of S          sum_s v_s L_s, weights of the worst S(1 - a) scenarios, the last one in part
Contributions    the same average of each part of the loss, so they sum to VaR and ES
Backtest         hits L_p > VaR_p: Kupiec and Christoffersen (`kernels.coverage`), and Acerbi and Szekely's
                 Z_2 = 1 - sum L_p 1[hit] / (n (1 - a) ES_p), zero in the mean, negative where ES is too small

References: Jorion (2007), Value at Risk, 3rd ed., chapters 7, 10; Barone-Adesi, Giannopoulos & Vosper (1999),
Journal of Futures Markets 19(5), 583-602 (filtered historical simulation); Acerbi & Tasche (2002), Journal of
Banking and Finance 26(7), eq. (6); Tasche (2000), Risk contributions and performance measurement; Acerbi &
Szekely (2014), Back-testing expected shortfall, Risk, December.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.frames import to_frame
from latentfactors.kernels.coverage import CoverageTest, coverage_test
from latentfactors.risk.decomposition import decompose
from latentfactors.risk.model import RiskModel
from latentfactors.risk.operator import CovarianceOperator
from latentfactors.risk.portfolios import Weights, group_sums, rotation_remark, sum_by

__all__ = ["TailBacktest", "TailRisk", "backtest_tail", "historical_tail_risk", "normal_tail_risk"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TailRisk:
    """Value at risk and expected shortfall of a portfolio, losses positive, in input units.

    Attributes
    ----------
    level : a, 0.99 for 99%
    method : "normal", "historical" or "filtered"
    value_at_risk, expected_shortfall : of the whole portfolio
    factor_names, factor_families : K each
    var_by_factor, es_by_factor : (K,) contributions
    var_specific, es_specific : contribution of specific returns; with the factors' they sum to the whole
    assets : (N,)
    var_by_asset, es_by_asset : (N,) contributions; they sum to the whole
    scenarios : (S,) losses, empty for the normal method
    scenario_times : (S,) the periods they are taken from
    n_left_out : past periods that gave no scenario: a factor in use or all residuals missing
    time : period of the forecast
    remarks : what has to be known to read it
    """

    level: float
    method: Literal["normal", "historical", "filtered"]
    value_at_risk: float
    expected_shortfall: float
    factor_names: tuple[str, ...]
    factor_families: tuple[str, ...]
    var_by_factor: FloatArray
    es_by_factor: FloatArray
    var_specific: float
    es_specific: float
    assets: npt.NDArray[Any]
    var_by_asset: FloatArray
    es_by_asset: FloatArray
    scenarios: FloatArray
    scenario_times: npt.NDArray[Any]
    n_left_out: int = 0
    time: Any = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        freeze(self)

    def frame(self, by: Literal["factor", "family", "asset"] = "factor", backend: str = "polars") -> Any:
        """Contributions: part, value_at_risk, expected_shortfall; of factors and families also "specific"."""
        if by == "asset":
            columns = {
                by: self.assets,
                "value_at_risk": self.var_by_asset,
                "expected_shortfall": self.es_by_asset,
            }
        elif by in ("factor", "family"):
            labels = self.factor_names if by == "factor" else self.factor_families
            names, var = group_sums(self.var_by_factor, labels)
            columns = {by: np.array([*names, "specific"]), "value_at_risk": np.append(var, self.var_specific)}
            columns["expected_shortfall"] = np.append(
                group_sums(self.es_by_factor, labels)[1], self.es_specific
            )
        else:
            raise ConfigurationError(f"by must be 'factor', 'family' or 'asset', got {by!r}")
        return to_frame(columns, backend)

    def __repr__(self) -> str:
        size = f", {len(self.scenarios)} scenarios" if len(self.scenarios) else ""
        return (
            f"TailRisk({self.method} {self.level:.4g}{size}: VaR {self.value_at_risk:.4g}, "
            f"ES {self.expected_shortfall:.4g})"
        )


def normal_tail_risk(covariance: CovarianceOperator, weights: Weights, *, level: float = 0.99) -> TailRisk:
    """VaR and ES if returns were normal with this covariance.

    Parameters
    ----------
    covariance
        From `RiskModel.at` or `latest`.
    weights
        Asset -> weight, or an array in the order of the state's assets.
    level
        In (0.5, 1).

    Examples
    --------
    >>> sigma = CovarianceOperator(
    ...     assets=np.array(["a"]),
    ...     loadings=np.ones((1, 1)),
    ...     factor_covariance=np.array([[0.0003]]),
    ...     specific_variance=np.array([0.0001]),
    ...     factor_names=("market",),
    ... )
    >>> normal_tail_risk(sigma, {"a": 1.0}, level=0.99)
    TailRisk(normal 0.99: VaR 0.04653, ES 0.0533)
    """
    from scipy.special import ndtri

    z = float(ndtri(check_level(level)))
    shortfall = float(np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi) / (1.0 - level))
    risk = decompose(covariance, weights)
    return TailRisk(
        level=level,
        method="normal",
        value_at_risk=z * risk.volatility,
        expected_shortfall=shortfall * risk.volatility,
        factor_names=risk.factor_names,
        factor_families=risk.factor_families,
        var_by_factor=z * risk.by_factor,
        es_by_factor=shortfall * risk.by_factor,
        var_specific=z * risk.specific,
        es_specific=shortfall * risk.specific,
        assets=risk.assets,
        var_by_asset=z * risk.by_asset,
        es_by_asset=shortfall * risk.by_asset,
        scenarios=np.empty(0),
        scenario_times=np.empty(0),
        time=risk.time,
        remarks=risk.remarks,
    )


def historical_tail_risk(
    risk: RiskModel,
    weights: Weights,
    period: Any = None,
    *,
    level: float = 0.99,
    filtered: bool = False,
) -> TailRisk:
    """VaR and ES from what past factors and residuals would do to today's portfolio.

    Parameters
    ----------
    risk
        Its panel's periods before `period` are the scenarios.
    weights
        Asset -> weight, or an array in the order of the state's assets.
    period
        The period that is forecast; None: the one after the last, as `RiskModel.latest`.
    level
        In (0.5, 1); needs at least 1/(1 - level) scenarios.
    filtered
        Rescale every scenario to today's standard deviations, factor by factor and asset by asset.

    Raises
    ------
    InsufficientDataError
        Too few scenarios for the level.
    """
    check_level(level)
    index = risk.state.index
    covariance = risk.latest() if period is None else risk.at(period)
    stop = risk.state.n_realised if period is None else min(index.position(period), risk.state.n_realised)
    w = covariance.portfolio(weights)
    place = np.full(index.n_assets, -1)
    labels = {label: i for i, label in enumerate(index.assets.tolist())}
    place[[labels[label] for label in covariance.assets.tolist()]] = np.arange(len(w))

    rows = slice(0, int(index.offsets[stop]))
    own, period_of = place[index.asset_codes[rows]], index.period_codes[rows]
    factors = risk.factors[:stop].copy()
    specific = risk.residuals[rows] * risk.state.measurement.scale[index.asset_codes[rows]]
    start = 0
    if filtered:
        start = min(risk.first, stop)
        factors, specific = _rescaled(risk, covariance, start, stop, factors, specific, own)
    held = (own >= 0) & np.isfinite(specific)
    held[held] = w[own[held]] != 0
    position = own[held]
    part = np.zeros(len(own))
    part[held] = w[position] * specific[held]
    size = w * w * covariance.specific_variance
    cover = sum_by(period_of[held], size[position], stop)
    exposures = covariance.loadings.T @ w
    usable = (np.isfinite(factors) | (exposures == 0)).all(axis=1) & ((cover > 0) | (size.sum() == 0))
    usable[:start] = False
    kept = np.flatnonzero(usable)
    if len(kept) * (1.0 - level) < 1.0 - 1e-9:
        raise InsufficientDataError(
            f"a level of {level} needs at least {np.ceil(1.0 / (1.0 - level) - 1e-9):.0f} scenarios, got "
            f"{len(kept)} of {stop} past periods: lower the level or use normal_tail_risk"
        )
    stretch = np.sqrt(np.divide(size.sum(), cover, out=np.zeros(stop), where=cover > 0))
    moves = np.where(np.isfinite(factors), factors, 0.0)
    own_loss = -stretch * sum_by(period_of, part, stop)
    losses = (own_loss - moves @ exposures)[kept]
    at_var, in_tail = scenario_weights(losses, level)
    everything = np.zeros((2, stop))
    everything[:, kept] = at_var, in_tail
    by_factor = -(everything @ moves) * exposures
    by_asset = -w * (everything @ moves @ covariance.loadings.T)
    for j in range(2):
        by_asset[j] -= sum_by(position, ((everything[j] * stretch)[period_of] * part)[held], len(w))
    return TailRisk(
        level=level,
        method="filtered" if filtered else "historical",
        value_at_risk=float(at_var @ losses),
        expected_shortfall=float(in_tail @ losses),
        factor_names=covariance.factor_names,
        factor_families=covariance.family_of,
        var_by_factor=by_factor[0],
        es_by_factor=by_factor[1],
        var_specific=float(everything[0] @ own_loss),
        es_specific=float(everything[1] @ own_loss),
        assets=covariance.assets,
        var_by_asset=by_asset[0],
        es_by_asset=by_asset[1],
        scenarios=losses,
        scenario_times=index.times[kept],
        n_left_out=stop - start - len(kept),
        time=covariance.time,
        remarks=tuple(each for each in (rotation_remark(covariance.factor_names),) if each),
    )


def scenario_weights(losses: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """(S,) weights that average losses to VaR (one scenario) and to ES (the worst S(1 - a) of them).

    Examples
    --------
    >>> at_var, in_tail = scenario_weights(np.arange(10.0), 0.75)
    >>> float(at_var @ np.arange(10.0)), round(float(in_tail @ np.arange(10.0)), 6)
    (7.0, 8.2)
    """
    n = len(losses)
    worst = np.argsort(-losses, kind="stable")
    mass = n * (1.0 - level)
    whole = int(np.floor(mass + 1e-9))
    share = np.zeros(n)
    share[:whole] = 1.0
    if whole < n:
        share[whole] = max(mass - whole, 0.0)
    at_var, in_tail = np.zeros(n), np.zeros(n)
    in_tail[worst] = share / share.sum()
    at_var[worst[n - int(np.ceil(n * level - 1e-9))]] = 1.0
    return at_var, in_tail


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TailBacktest:
    """Whether losses exceeded VaR as often as announced, and by as much as ES says.

    Attributes
    ----------
    level : a
    coverage : Kupiec's and Christoffersen's tests of the hits
    shortfall_statistic : Z_2, about 0 where ES is right, negative where it is too small
    mean_excess : mean over hits of loss / ES; about 1, NaN without hits
    times, hits : (n,) periods and whether the loss exceeded VaR
    """

    level: float
    coverage: CoverageTest
    shortfall_statistic: float
    mean_excess: float
    times: npt.NDArray[Any]
    hits: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        freeze(self)

    def __repr__(self) -> str:
        test = self.coverage
        return (
            f"TailBacktest({test.n_hits} hits in {test.n_periods} periods, {test.rate:.2%} for "
            f"{1 - self.level:.2%}; Kupiec p {test.unconditional_p:.3f}, independence p "
            f"{test.independence_p:.3f}, both p {test.conditional_p:.3f}; ES statistic "
            f"{self.shortfall_statistic:+.3f})"
        )


def backtest_tail(
    returns: npt.ArrayLike,
    value_at_risk: npt.ArrayLike,
    expected_shortfall: npt.ArrayLike,
    *,
    level: float = 0.99,
    times: npt.NDArray[Any] | None = None,
) -> TailBacktest:
    """Backtest VaR and ES forecasts against what was realised.

    Parameters
    ----------
    returns, value_at_risk, expected_shortfall : (n,)
        Realised returns, and forecasts of losses (positive) made before each; periods with a NaN in one of
        them are left out.
    level
        Of the forecasts.
    times : (n,), optional
        For the result.

    Raises
    ------
    ConfigurationError, InsufficientDataError
        Lengths that differ, forecasts of ES that are not positive; fewer than two complete periods.

    Examples
    --------
    >>> r = np.tile([0.01, -0.02, 0.0, 0.005, -0.001], 40)
    >>> test = backtest_tail(r, np.full(200, 0.015), np.full(200, 0.02), level=0.8)
    >>> test.coverage.n_hits, round(test.coverage.unconditional_p, 3), test.coverage.independence_p < 0.001
    (40, 1.0, True)
    """
    check_level(level)
    r, var, es = (np.asarray(each, dtype=np.float64) for each in (returns, value_at_risk, expected_shortfall))
    if r.ndim != 1 or r.shape != var.shape or r.shape != es.shape:
        raise ConfigurationError(
            f"expected three arrays of one length, got {r.shape}, {var.shape}, {es.shape}"
        )
    known = np.isfinite(r) & np.isfinite(var) & np.isfinite(es)
    if known.sum() < 2:
        raise InsufficientDataError(f"a backtest needs two complete periods, got {int(known.sum())}")
    loss, var, es = -r[known], var[known], es[known]
    if np.any(es <= 0):
        raise ConfigurationError(f"expected_shortfall must be a positive loss, got {es.min():.4g}")
    hits = loss > var
    excess = np.where(hits, loss / es, 0.0)
    return TailBacktest(
        level=level,
        coverage=coverage_test(hits, 1.0 - level),
        shortfall_statistic=float(1.0 - excess.sum() / (len(loss) * (1.0 - level))),
        mean_excess=float(excess[hits].mean()) if hits.any() else float("nan"),
        times=np.arange(len(r))[known] if times is None else np.asarray(times)[known],
        hits=hits,
    )


def _rescaled(
    risk: RiskModel,
    now: CovarianceOperator,
    start: int,
    stop: int,
    factors: FloatArray,
    specific: FloatArray,
    own: npt.NDArray[np.int64],
) -> tuple[FloatArray, FloatArray]:
    """Past factors and specific returns times today's over their own ex ante standard deviation."""
    scaled_factors, scaled = np.full(factors.shape, np.nan), np.full(specific.shape, np.nan)
    today = np.sqrt(np.diagonal(now.factor_covariance))
    for s, rows, then in risk.steps(start):
        if s >= stop:
            break
        past = np.sqrt(np.diagonal(then.factor_covariance))
        ratio = np.divide(today, past, out=np.full(len(past), np.nan), where=past > 0)
        scaled_factors[s] = factors[s] * ratio
        mine = own[rows] >= 0
        place = own[rows][mine]
        ratio = np.sqrt(now.specific_variance[place] / then.specific_variance[mine])
        scaled[rows[mine]] = specific[rows[mine]] * ratio
    return scaled_factors, scaled


def check_level(level: float) -> float:
    if not isinstance(level, float) or not 0.5 < level < 1:
        raise ConfigurationError(f"level must lie in (0.5, 1), got {level!r}: 0.99 for 99%")
    return level
