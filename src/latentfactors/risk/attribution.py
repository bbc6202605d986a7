"""Where a portfolio's realised return came from: factors, specific returns, and what cannot be said.

Asset            r_pi = location_i + scale_i (alpha_pi + b_pi'f_p + e_pi),  all of it in input units below
Period           r_p = sum_k x_pk f_pk + intercept_p + specific_p + remainder_p
                 x_p = sum_i w_pi scale_i b_pi,  intercept = sum w (location + scale alpha),  specific = sum w
                 scale e sums over assets whose value, loadings and factors are all known in p
Remainder        w r of assets without loadings or factors, plus whatever a stated portfolio return has beyond
                 the assets with a value (an asset without a value cannot be attributed, its weight is
                 reported)
Linking          C_k = sum_p (k_p / k) c_pk with Carino's k_p = [ln(1 + r_p) - ln(1 + b_p)]/(r_p - b_p) and k
                 the same of the compounded R and B; sum of all C = R - B exactly; b the benchmark's return, 0
                 if none
Errors           se(x_k f_k) = |x_k| V_kk^1/2, se(systematic) = (x'V x)^1/2 = se(specific), for what is taken
                 from one is given to the other; over T periods (sum se^2)^1/2 / T, errors being independent
V                the model's own covariance of each realisation, or for factors that are least squares of the
                 period's cross-section  H D H',  H = (B'B)^-1 B'

References: Carino (1999), Combining Attribution Effects over Time, Journal of Performance Measurement 3(4);
Menchero & Davis (2011), Journal of Portfolio Management 37(2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, PanelMismatchError
from latentfactors.estimator import freeze, one_of
from latentfactors.frames import to_frame
from latentfactors.model import realised_factors
from latentfactors.panel import Panel
from latentfactors.results import AssetWeightsResult
from latentfactors.risk.portfolios import (
    Weights,
    group_sums,
    held_rows,
    resolve_families,
    rotation_remark,
    sum_by,
)
from latentfactors.risk.rows import check_same_rows, model_residuals
from latentfactors.state import LatentFactorState

__all__ = ["LinkedAttribution", "PerformanceAttribution", "attribute_performance"]

FloatArray = npt.NDArray[np.float64]
Errors = Literal["model", "cross_section"]
_OTHERS = ("intercept", "specific", "remainder")


@dataclass(frozen=True, eq=False, kw_only=True)
class LinkedAttribution:
    """Contributions to a return over many periods.

    Attributes
    ----------
    total : R, or R - B against a benchmark; the contributions sum to it
    names : parts: factors or families, then intercept, specific, remainder
    contributions : one number a part
    method : "carino" for compounded returns, "sum" where nothing compounds
    n_periods : periods linked
    """

    total: float
    names: tuple[str, ...]
    contributions: FloatArray
    method: Literal["carino", "sum"]
    n_periods: int

    def __post_init__(self) -> None:
        freeze(self)

    def frame(self, backend: str = "polars") -> Any:
        """One line per part: part, contribution."""
        return to_frame({"part": np.array(self.names), "contribution": self.contributions}, backend)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PerformanceAttribution:
    """A portfolio's return, period by period, in parts that sum to it.

    Attributes
    ----------
    times : (T,) periods
    returns : (T,) of the portfolio, active where there is a benchmark; in input units
    factor_names, factor_families : K each
    exposures : (T, K) x
    by_factor : (T, K) x_k f_k; 0 where nothing is held that the factor moves
    intercept, specific, remainder : (T,)
    errors : (T, K) or None, standard errors of `by_factor`
    systematic_error : (T,) or None, of their sum and of `specific`
    weight_unvalued, weight_unmodelled : (T,) sum of |w| of assets without a value; of assets with one but
        without
        loadings or factors
    benchmark_returns : (T,) or None
    asset_systematic, asset_specific, asset_intercept : (N,) sums over periods, in the order of `assets`
    assets : (N,)
    compounds : whether values are returns that can be linked
    remarks : what has to be known to read it
    """

    times: npt.NDArray[Any]
    returns: FloatArray
    factor_names: tuple[str, ...]
    factor_families: tuple[str, ...]
    exposures: FloatArray
    by_factor: FloatArray
    intercept: FloatArray
    specific: FloatArray
    remainder: FloatArray
    errors: FloatArray | None
    systematic_error: FloatArray | None
    weight_unvalued: FloatArray
    weight_unmodelled: FloatArray
    benchmark_returns: FloatArray | None
    asset_systematic: FloatArray
    asset_specific: FloatArray
    asset_intercept: FloatArray
    assets: npt.NDArray[Any]
    compounds: bool
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def systematic(self) -> FloatArray:
        """(T,) sum over factors."""
        return self.by_factor.sum(axis=1)

    def by_family(self) -> tuple[tuple[str, ...], FloatArray]:
        """Families and (T, families) contributions; they sum to `systematic`."""
        return group_sums(self.by_factor, self.factor_families)

    def parts(self, by: Literal["factor", "family"] = "factor") -> tuple[tuple[str, ...], FloatArray]:
        """Names and (T, parts) contributions that sum to `returns`: factors or families, then the rest."""
        if by not in ("factor", "family"):
            raise ConfigurationError(f"by must be 'factor' or 'family', got {by!r}")
        names, values = (self.factor_names, self.by_factor) if by == "factor" else self.by_family()
        others = np.column_stack([self.intercept, self.specific, self.remainder])
        return (*names, *_OTHERS), np.column_stack([values, others])

    def linked(self, by: Literal["factor", "family"] = "factor") -> LinkedAttribution:
        """Contributions over all periods: Carino's for returns, plain sums for values that do not compound.

        Raises
        ------
        ConfigurationError
            A period that lost everything (return <= -100%), which cannot be linked.
        """
        names, values = self.parts(by)
        if not self.compounds:
            return LinkedAttribution(
                total=float(self.returns.sum()), names=names, contributions=values.sum(axis=0), method="sum",
                n_periods=len(self.returns),
            )  # fmt: skip
        benchmark = np.zeros(len(self.returns)) if self.benchmark_returns is None else self.benchmark_returns
        portfolio = benchmark + self.returns
        weight, total = carino(portfolio, benchmark)
        return LinkedAttribution(
            total=total, names=names, contributions=weight @ values, method="carino",
            n_periods=len(self.returns),
        )  # fmt: skip

    def mean_errors(self) -> FloatArray | None:
        """(K + 1,) standard errors of mean contributions: every factor's, then of their sum."""
        if self.errors is None or self.systematic_error is None:
            return None
        every = np.column_stack([self.errors, self.systematic_error])
        return np.sqrt(np.square(every).sum(axis=0)) / max(len(every), 1)

    def frame(self, by: Literal["factor", "family", "asset"] = "factor", backend: str = "polars") -> Any:
        """By factor or family: time, return, a column a part. By asset: sums over all periods."""
        if by == "asset":
            columns = {
                "asset": self.assets,
                "systematic": self.asset_systematic,
                "intercept": self.asset_intercept,
                "specific": self.asset_specific,
            }
        else:
            names, values = self.parts(by)
            columns = {"time": self.times, "return": self.returns}
            columns |= {name: values[:, j].copy() for j, name in enumerate(names)}
        return to_frame(columns, backend)

    def __repr__(self) -> str:
        span = f"{self.times[0]}..{self.times[-1]}" if len(self.times) else "no period"
        kind = "return" if self.benchmark_returns is None else "active return"
        return (
            f"PerformanceAttribution({len(self.times)} periods {span}, sum of {kind}s "
            f"{self.returns.sum():+.4g}: factors {self.by_factor.sum():+.4g}, intercept "
            f"{self.intercept.sum():+.4g}, specific {self.specific.sum():+.4g}, remainder "
            f"{self.remainder.sum():+.4g})"
        )


def attribute_performance(
    state: LatentFactorState,
    panel: Panel,
    weights: Weights | AssetWeightsResult,
    benchmark: Weights | AssetWeightsResult | None = None,
    *,
    portfolio_returns: npt.ArrayLike | None = None,
    families: Mapping[str, str] | None = None,
    errors: Errors = "model",
) -> PerformanceAttribution:
    """Attribute a portfolio's returns over the realised periods of a panel.

    Parameters
    ----------
    state, panel
        From any model's `extract`, and the panel it was extracted from.
    weights
        Held through each period, set before it: asset -> weight or (N,) for the same in every period, (T, N)
        in the order of the state's assets, or an `AssetWeightsResult` of horizon 1.
    benchmark
        Likewise; what is attributed is then the difference.
    portfolio_returns : (T,), optional
        What was earned, costs and cash included; None: the sum over assets with a value. Of the portfolio
        itself, also where there is a benchmark.
    families
        Factor name -> family, where names do not say it.
    errors
        Standard errors from the model's own factor covariance where the state has one ("model"), or from
        least squares in each cross-section with the state's residual variances.

    Raises
    ------
    PanelMismatchError
        Weights that do not fit the state's assets or periods, by name; a panel other than the state's.
    InsufficientDataError
        No realised period.

    Examples
    --------
    >>> from latentfactors import PCAConfig, PCAModel
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=60, n_assets=10, n_factors=2, seed=1).panel
    >>> model = PCAModel(PCAConfig(n_factors=2))
    >>> _ = model.fit(panel)
    >>> result = attribute_performance(model.extract(panel), panel, np.full(10, 0.1))
    >>> bool(np.allclose(result.systematic + result.specific, panel.wide().mean(axis=1)))
    True
    """
    check_same_rows(state, panel)
    one_of("errors", errors, Errors)
    index, t = state.index, state.n_realised
    if t == 0:
        raise InsufficientDataError("no period of this panel is realised: there is no return to attribute")
    held = held_rows(weights, state, "weights")
    base = None if benchmark is None else held_rows(benchmark, state, "benchmark weights")
    factors, values = realised_factors(state), panel.values
    active = held.rows if base is None else held.rows - base.rows
    sums = _add_up(state, panel, active, factors)
    by_factor = sums.exposures * np.where(np.isfinite(factors[:t]), factors[:t], 0.0)
    worth = np.where(np.isfinite(values), values, 0.0)[: int(index.offsets[t])]
    period = index.period_codes[: len(worth)]
    observed = sum_by(period, active[: len(worth)] * worth, t)
    of_benchmark = None if base is None else sum_by(period, base.rows[: len(worth)] * worth, t)
    if portfolio_returns is None:
        total = observed
    else:
        stated = np.asarray(portfolio_returns, dtype=np.float64)
        if stated.shape not in {(t,), (index.n_periods,)} or not np.isfinite(stated[:t]).all():
            raise PanelMismatchError(
                f"portfolio_returns must be finite and of shape ({t},), one for each realised period, got "
                f"shape {stated.shape}"
            )
        total = stated[:t] if of_benchmark is None else stated[:t] - of_benchmark
    covariance = state.factors.covariance if errors == "model" else cross_section_errors(state, panel)
    factor_errors = systematic_error = None
    if covariance is not None:
        covariance = np.nan_to_num(covariance[:t])
        factor_errors = np.abs(sums.exposures) * np.sqrt(np.einsum("tkk->tk", covariance))
        quadratic = np.einsum("tj,tjk,tk->t", sums.exposures, covariance, sums.exposures)
        systematic_error = np.sqrt(np.maximum(quadratic, 0.0))
    away = held.outside[:t] if base is None else held.outside[:t] + base.outside[:t]
    names = state.factors.names
    resolved = resolve_families(names, families)
    return PerformanceAttribution(
        times=index.times[:t],
        returns=total,
        factor_names=names,
        factor_families=tuple(resolved[name] for name in names),
        exposures=sums.exposures,
        by_factor=by_factor,
        intercept=sums.intercept,
        specific=sums.specific,
        remainder=total - by_factor.sum(axis=1) - sums.intercept - sums.specific,
        errors=factor_errors,
        systematic_error=systematic_error,
        weight_unvalued=sums.unvalued + away,
        weight_unmodelled=sums.unmodelled,
        benchmark_returns=of_benchmark,
        asset_systematic=sums.asset_systematic,
        asset_specific=sums.asset_specific,
        asset_intercept=sums.asset_intercept,
        assets=index.assets,
        compounds=panel.value_kind in ("return", "excess_return"),
        remarks=tuple(each for each in (rotation_remark(names),) if each),
    )


# ------------------------------------------------------------------------------------ the mathematics


@dataclass(frozen=True, eq=False)
class _Sums:
    """Parts by period (T,), exposures (T, K), and parts by asset (N,)."""

    exposures: FloatArray
    intercept: FloatArray
    specific: FloatArray
    unvalued: FloatArray
    unmodelled: FloatArray
    asset_systematic: FloatArray
    asset_specific: FloatArray
    asset_intercept: FloatArray


def _add_up(state: LatentFactorState, panel: Panel, weights: FloatArray, factors: FloatArray) -> _Sums:
    """All parts of a portfolio with weights by row (R,), period by period over the held assets."""
    index, measurement, t = state.index, state.measurement, state.n_realised
    residuals = model_residuals(state, panel, factors)
    zeros = [np.zeros(t) for _ in range(4)] + [np.zeros(index.n_assets) for _ in range(3)]
    sums = _Sums(np.zeros((t, factors.shape[1])), *zeros)
    for p in range(t):
        rows = np.arange(index.offsets[p], index.offsets[p + 1])
        rows = rows[weights[rows] != 0]
        valued = np.isfinite(panel.values[rows])
        known = valued & np.isfinite(residuals[rows])
        sums.unvalued[p] = np.abs(weights[rows[~valued]]).sum()
        sums.unmodelled[p] = np.abs(weights[rows[valued & ~known]]).sum()
        place = rows[known] - index.offsets[p]
        rows, codes = rows[known], index.asset_codes[rows[known]]
        w, scale, b = weights[rows], measurement.scale[codes], measurement.loadings.at(p)[place]
        alpha = 0.0 if measurement.alpha is None else measurement.alpha[rows]
        specific = w * scale * residuals[rows]
        intercept = w * (measurement.location[codes] + scale * alpha)
        sums.exposures[p] = (w * scale) @ b
        sums.specific[p], sums.intercept[p] = specific.sum(), intercept.sum()
        # An asset stands once in a period, so adding in place forgets none.
        sums.asset_systematic[codes] += w * scale * (b @ np.where(np.isfinite(factors[p]), factors[p], 0.0))
        sums.asset_specific[codes] += specific
        sums.asset_intercept[codes] += intercept
    return sums


def carino(portfolio: FloatArray, benchmark: FloatArray) -> tuple[FloatArray, float]:
    """(T,) weights k_p / k of active contributions, and R - B; both from returns (T,) above -1.

    Examples
    --------
    >>> weight, total = carino(np.array([0.1, 0.2]), np.zeros(2))
    >>> bool(np.isclose(weight @ [0.1, 0.2], total)), round(total, 4)
    (True, 0.32)
    """
    if np.any(portfolio <= -1) or np.any(benchmark <= -1):
        raise ConfigurationError(
            f"returns must be above -1 to be linked, got {min(portfolio.min(), benchmark.min()):.4g}: are "
            "they in percent? Divide by 100, or read `frame` period by period"
        )
    log_portfolio, log_benchmark = np.log1p(portfolio).sum(), np.log1p(benchmark).sum()
    total = float(np.expm1(log_portfolio) - np.expm1(log_benchmark))
    whole = _log_slope(np.array([np.expm1(log_portfolio)]), np.array([np.expm1(log_benchmark)]))[0]
    return _log_slope(portfolio, benchmark) / whole, total


def _log_slope(a: FloatArray, b: FloatArray) -> FloatArray:
    """[ln(1 + a) - ln(1 + b)]/(a - b), its limit 1/(1 + b) where they meet."""
    step = (a - b) / (1.0 + b)
    slope = np.divide(np.log1p(step), step, out=1.0 - step / 2.0, where=np.abs(step) > 1e-8)
    return slope / (1.0 + b)


def cross_section_errors(state: LatentFactorState, panel: Panel) -> FloatArray:
    """(T, K, K) H D H' with H = (B'B)^-1 B' over each period's rows with value and loadings; NaN without."""
    measurement, index = state.measurement, state.index
    k = measurement.loadings.n_factors
    out = np.full((index.n_periods, k, k), np.nan)
    for p in range(state.n_realised):
        rows = index.rows(p)
        b, noise = measurement.loadings.at(p), measurement.residual_variance[rows]
        known = np.isfinite(panel.values[rows]) & np.isfinite(b).all(axis=1) & np.isfinite(noise)
        if known.sum() >= k:
            h = np.linalg.pinv(b[known], rcond=1e-6)
            out[p] = (h * noise[known]) @ h.T
    return out
