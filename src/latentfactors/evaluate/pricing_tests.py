"""Does a set of factors price a set of assets? Time-series tests on excess returns.

Regressions      r_ti = a_i + b_i'f_t + e_ti        t = 1..T, i = 1..N, factors f_t (K,) that are returns too
Hypothesis       a_1 = ... = a_N = 0
GRS              F = (T - N - K)/N * a'S^-1 a / (1 + mu'W^-1 mu)  ~  F(N, T - N - K)
                 S = E'E/T residual covariance, mu and W mean and covariance (1/T) of the factors
In words         a'S^-1 a = Sh^2(factors and assets) - Sh^2(factors), so F asks whether adding the assets
                 raises the best attainable Sharpe ratio Sh^2 = mu'W^-1 mu by more than chance

Returns and factors are in one unit and in excess of the risk-free rate, or spreads; nothing is subtracted
here. Only periods in which everything is observed enter, the others are counted.

References: Gibbons, Ross & Shanken (1989), Econometrica 57(5), eqs. (3)-(7), (23); Cochrane (2005), Asset
Pricing, section 12.1; Barillas & Shanken (2017), RFS 30(4), Sharpe ratios.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.kernels.newey_west import hac_regression
from latentfactors.kernels.quadratic_forms import inverse_quadratic

__all__ = ["GRSResult", "MaximalSharpe", "grs_test", "maximal_sharpe", "performance", "tangency_weights"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class GRSResult:
    """The test of Gibbons, Ross and Shanken, and what it is made of.

    Attributes
    ----------
    statistic, p_value : F with (n_assets, n_periods - n_assets - n_factors) degrees of freedom
    alphas : (N,) intercepts, in the returns' unit per period
    alpha_errors : (N,) their classical standard errors, divisor T - K - 1
    betas : (N, K) exposures
    r_squared : (N,) of the regressions
    mean_abs_alpha : average |alpha|
    sharpe_factors, sharpe_all : maximal Sharpe ratios per period, divisor T, of the factors alone and with
        the assets: statistic = (T - N - K)/N (sharpe_all^2 - sharpe_factors^2)/(1 + sharpe_factors^2)
    n_periods, n_assets, n_factors : T used, N, K
    n_incomplete : periods left out because something in them is missing
    """

    statistic: float
    p_value: float
    alphas: FloatArray
    alpha_errors: FloatArray
    betas: FloatArray
    r_squared: FloatArray
    mean_abs_alpha: float
    sharpe_factors: float
    sharpe_all: float
    n_periods: int
    n_assets: int
    n_factors: int
    n_incomplete: int = 0

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def t_statistics(self) -> FloatArray:
        """(N,) alpha / standard error."""
        return self.alphas / self.alpha_errors

    def __repr__(self) -> str:
        freedom = self.n_periods - self.n_assets - self.n_factors
        return (
            f"GRSResult(F({self.n_assets}, {freedom}) = {self.statistic:.3f}, p = {self.p_value:.3g}, "
            f"mean |alpha| {self.mean_abs_alpha:.4g}, T = {self.n_periods})"
        )


def grs_test(returns: npt.ArrayLike, factors: npt.ArrayLike) -> GRSResult:
    """Test that all alphas of test assets on factors are zero.

    Parameters
    ----------
    returns : (T, N)
        Excess returns or spreads of the test assets.
    factors : (T, K) or (T,)
        Excess returns or spreads of the factors, in the same unit. Latent factors: their sign and scale do
        not matter, but they have to be returns of portfolios.

    Returns
    -------
    GRSResult

    Raises
    ------
    ConfigurationError
        Shapes that do not fit.
    InsufficientDataError
        T <= N + K complete periods, collinear factors, or a residual covariance that is singular: assets that
        repeat each other or a factor.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> market = 0.5 + 4.0 * rng.normal(size=240)
    >>> assets = market[:, None] * [0.8, 1.0, 1.2] + rng.normal(size=(240, 3))
    >>> grs_test(assets, market).p_value > 0.05, grs_test(assets + 0.5, market).p_value < 1e-6
    (True, True)
    """
    from scipy.special import fdtrc  # the F law; scipy.stats takes much longer to load

    r, f, n_incomplete = complete_periods(returns, factors)
    n_periods, n_assets, n_factors = len(r), r.shape[1], f.shape[1]
    freedom = n_periods - n_assets - n_factors
    if freedom <= 0:
        raise InsufficientDataError(
            f"the GRS test needs more complete periods than assets and factors, got {n_periods} (and "
            f"{n_incomplete} incomplete) for {n_assets} + {n_factors}: use fewer test assets or a longer span"
        )
    mean, centred = f.mean(axis=0), f - f.mean(axis=0)
    sharpe_squared = inverse_quadratic(centred.T @ centred / n_periods, mean, "factors are collinear")
    betas = np.linalg.lstsq(centred, r - r.mean(axis=0), rcond=None)[0].T
    alphas = r.mean(axis=0) - betas @ mean
    residuals = r - alphas - f @ betas.T
    total = np.square(r - r.mean(axis=0)).sum(axis=0)
    sse = np.square(residuals).sum(axis=0)
    if np.any(sse <= 1e-20 * total):
        raise InsufficientDataError(
            f"{int((sse <= 1e-20 * total).sum())} test assets are combinations of the factors: leave them out"
        )
    spread = inverse_quadratic(residuals.T @ residuals / n_periods, alphas, "test assets repeat each other")
    statistic = freedom / n_assets * spread / (1.0 + sharpe_squared)
    errors = np.sqrt((1.0 + sharpe_squared) * sse / n_periods / (n_periods - n_factors - 1))
    return GRSResult(
        statistic=statistic,
        p_value=float(fdtrc(n_assets, freedom, statistic)),
        alphas=alphas,
        alpha_errors=errors,
        betas=betas,
        r_squared=1.0 - sse / total,
        mean_abs_alpha=float(np.abs(alphas).mean()),
        sharpe_factors=float(np.sqrt(sharpe_squared)),
        sharpe_all=float(np.sqrt(sharpe_squared + spread)),
        n_periods=n_periods,
        n_assets=n_assets,
        n_factors=n_factors,
        n_incomplete=n_incomplete,
    )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class MaximalSharpe:
    """The best Sharpe ratio that a set of factors attains, with hindsight and without.

    Attributes
    ----------
    in_sample : sqrt(mu'W^-1 mu) over the whole span (divisor T), annualised: an upper bound, biased upwards
    out_of_sample : mean / standard deviation (ddof 1) of `returns`, annualised
    weights : (T, K) of the tangency portfolio of strictly earlier periods; NaN before there are enough
    returns : (T,) what these weights earned in the period
    weights_in_sample : (K,) W^-1 mu, scaled like `weights`
    n_periods : periods with a return out of sample
    periods_per_year : as used
    """

    in_sample: float
    out_of_sample: float
    weights: FloatArray
    returns: FloatArray
    weights_in_sample: FloatArray
    n_periods: int
    periods_per_year: float

    def __post_init__(self) -> None:
        freeze(self)

    def __repr__(self) -> str:
        return (
            f"MaximalSharpe(in sample {self.in_sample:.2f}, out of sample {self.out_of_sample:.2f} over "
            f"{self.n_periods} periods)"
        )


def maximal_sharpe(
    factors: npt.ArrayLike,
    *,
    first: int | None = None,
    window: int | None = None,
    periods_per_year: float = 1.0,
) -> MaximalSharpe:
    """Maximal Sharpe ratio of factors in sample, and of tangency weights that know only the past.

    The weights of period t are W^-1 mu / sqrt(mu'W^-1 mu) of earlier periods: a portfolio expected to have a
    standard deviation of 1, so that no period counts for more because its estimates happen to be large.

    Parameters
    ----------
    factors : (T, K) or (T,)
        Excess returns or spreads. Rows with a missing factor are left out of every estimate.
    first
        Complete periods before the first weights. None: the window, or max(60, 2 (K + 1)) if that leaves any,
        else half of the span.
    window
        Rolling window in periods; None: all of the past.
    periods_per_year
        12 for months. 1 leaves the ratio per period, the one of `GRSResult`.

    Returns
    -------
    MaximalSharpe

    Raises
    ------
    ConfigurationError, InsufficientDataError
        Windows that cannot work; collinear factors; fewer periods than factors.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> maximal_sharpe(0.2 + rng.normal(size=(600, 2)), first=120).n_periods
    480
    """
    f = np.asarray(factors, dtype=np.float64)
    f = f[:, None] if f.ndim == 1 else f
    if f.ndim != 2 or f.shape[1] == 0:
        raise ConfigurationError(f"factors must be (T, K), got {np.shape(factors)}")
    complete: npt.NDArray[np.bool_] = np.all(np.isfinite(f), axis=1)
    n_complete, n_factors = int(complete.sum()), f.shape[1]
    if n_complete <= n_factors + 1:
        raise InsufficientDataError(f"{n_complete} complete periods are too few for {n_factors} factors")
    enough = max(60, 2 * (n_factors + 1))
    default = window or (enough if enough < n_complete else max(n_complete // 2, n_factors + 2))
    first = default if first is None else first
    if first < n_factors + 2 or (window is not None and not n_factors + 2 <= window <= first):
        raise ConfigurationError(
            f"first={first}, window={window}: expected {n_factors + 2} <= window <= first for {n_factors} "
            "factors"
        )
    optimum, ratio = _tangency(f[complete])
    weights = np.full(f.shape, np.nan)
    for t in range(len(f)):
        past = f[: int(t)][complete[: int(t)]]
        if len(past) >= first:
            weights[t] = _tangency(past if window is None else past[-window:])[0]
    earned = np.where(np.isfinite(weights).all(axis=1), (weights * f).sum(axis=1), np.nan)
    seen = earned[np.isfinite(earned)]
    annual = np.sqrt(periods_per_year)
    return MaximalSharpe(
        in_sample=ratio * annual,
        out_of_sample=float(seen.mean() / seen.std(ddof=1) * annual) if seen.size > 1 else float("nan"),
        weights=weights,
        returns=earned,
        weights_in_sample=optimum,
        n_periods=int(seen.size),
        periods_per_year=float(periods_per_year),
    )


def tangency_weights(factors: npt.ArrayLike) -> FloatArray:
    """W^-1 mu / sqrt(mu'W^-1 mu): the portfolio of maximal Sharpe ratio, scaled to a standard deviation of 1.

    Parameters
    ----------
    factors : (T, K) or (T,)
        Excess returns or spreads; rows with a missing factor are left out.

    Returns
    -------
    (K,) weights; zeros where all means are zero.

    Raises
    ------
    InsufficientDataError
        Collinear factors, or no more than K + 1 complete periods.

    Examples
    --------
    >>> f = 0.5 + np.random.default_rng(0).normal(size=(300, 2))
    >>> bool(np.isclose((f @ tangency_weights(f)).std(), 1.0))
    True
    """
    f = np.asarray(factors, dtype=np.float64)
    f = f[:, None] if f.ndim == 1 else f
    f = f[np.isfinite(f).all(axis=1)]
    if len(f) <= f.shape[1] + 1:
        raise InsufficientDataError(f"{len(f)} complete periods are too few for {f.shape[1]} factors")
    return _tangency(f)[0]


def performance(
    returns: npt.ArrayLike,
    factors: npt.ArrayLike | None = None,
    lags: int | None = None,
    periods_per_year: float = 1.0,
) -> dict[str, float]:
    """What a series of excess returns or spreads earned, and how sure that is.

    Parameters
    ----------
    returns : (T,)
        NaN where there was no position; such periods are left out.
    factors : (T, K) or (T,), optional
        Excess returns or spreads to measure alpha against.
    lags
        Newey-West lags; None: floor(4 (T/100)^(2/9)).
    periods_per_year
        mean and alpha are multiplied by it, volatility and Sharpe ratio by its root.

    Returns
    -------
    dict
        n_periods, mean, volatility (ddof 1), sharpe, t (Newey-West, of the mean); with factors alpha, alpha_t
        (Newey-West), r_squared. NaN where something cannot be estimated.

    Examples
    --------
    >>> round(performance([0.02, 0.01, 0.03, 0.00], periods_per_year=12)["mean"], 6)
    0.18
    """
    series = np.asarray(returns, dtype=np.float64)
    x = series[np.isfinite(series)]
    mean = float(x.mean()) if x.size else float("nan")
    sd = float(x.std(ddof=1)) if x.size > 1 and np.ptp(x) > 0 else float("nan")
    result = {
        "n_periods": x.size,
        "mean": mean * periods_per_year,
        "volatility": sd * float(np.sqrt(periods_per_year)),
        "sharpe": mean / sd * float(np.sqrt(periods_per_year)),
        "t": float(hac_regression(x, np.ones((x.size, 1)), lags).t_statistics[0]),
    }
    if factors is not None:
        fit = hac_regression(series, np.column_stack([np.ones(series.size), np.asarray(factors)]), lags)
        result |= {"alpha": float(fit.coefficients[0]) * periods_per_year}
        result |= {"alpha_t": float(fit.t_statistics[0]), "r_squared": fit.r_squared}
    return result


def _tangency(factors: FloatArray) -> tuple[FloatArray, float]:
    """(K,) W^-1 mu / sqrt(mu'W^-1 mu) and sqrt(mu'W^-1 mu), divisor T; zero weights for zero means."""
    mean, centred = factors.mean(axis=0), factors - factors.mean(axis=0)
    covariance = centred.T @ centred / len(factors)
    ratio = float(np.sqrt(inverse_quadratic(covariance, mean, "factors are collinear")))
    if ratio == 0:
        return np.zeros(mean.size), 0.0
    return np.linalg.solve(covariance, mean) / ratio, ratio


def complete_periods(returns: npt.ArrayLike, factors: npt.ArrayLike) -> tuple[FloatArray, FloatArray, int]:
    """Returns (T, N) and factors (T, K) of the periods in which all are known, and how many others there are.

    Raises
    ------
    ConfigurationError
        Shapes that do not fit.
    """
    r, f = np.asarray(returns, dtype=np.float64), np.asarray(factors, dtype=np.float64)
    r, f = (array[:, None] if array.ndim == 1 else array for array in (r, f))
    if r.ndim != 2 or f.ndim != 2 or len(r) != len(f) or not r.shape[1] or not f.shape[1]:
        raise ConfigurationError(
            f"expected returns (T, N) and factors (T, K) with one T, got {np.shape(returns)} and "
            f"{np.shape(factors)}"
        )
    rows = np.isfinite(r).all(axis=1) & np.isfinite(f).all(axis=1)
    return r[rows], f[rows], int((~rows).sum())
