"""Prices of risk where betas are estimated from the same returns: two passes, Shanken's errors, a test.

First pass       r_t = a + B f_t + e_t           B (N, K), S_e residual covariance, divisor T
Second pass      l_t = (X'W X)^-1 X'W r_t        X = B, with a column of ones first if wanted; W = I or S_e^-1
Premia           l = mean_t l_t,  V_FM = S(l_t)/T as if betas were known
Shanken          V = (1 + c)(V_FM - S_f/T) + S_f/T,   c = l_f' C_f^-1 l_f
                 Only what comes from residuals is multiplied, never the whole. S_f is the long-run and C_f
                 the simple covariance of the factors; the intercept has no factor, so its entries are zero
Pricing errors   a = mean r - X l,  J = T a'Q (Q'S_e Q)^-1 Q'a / (1 + c)  ~  chi2(N - P)
                 Q (N, N - P) a basis of the complement of X

Returns are in excess of the risk-free rate, or spreads; factors may be traded or not. The errors assume
residuals whose variance does not move with the factors; J rejects too often where N is large beside T.

References: Shanken (1992), RFS 5(1), theorem 1; Cochrane (2005), Asset Pricing, sections 12.2-12.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import one_of
from latentfactors.evaluate.pricing_tests import complete_periods
from latentfactors.evaluate.risk_premia import PremiumEstimates, checked_lags, least_squares, over
from latentfactors.kernels.moments import unit_columns
from latentfactors.kernels.newey_west import long_run_sum
from latentfactors.kernels.quadratic_forms import inverse_quadratic

__all__ = ["TwoPass", "two_pass"]

FloatArray = npt.NDArray[np.float64]
Weighting = Literal["ols", "gls"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TwoPass(PremiumEstimates):
    """Premia of factors whose betas were estimated over the same periods, with Shanken's correction.

    Beside what `PremiumEstimates` has; `r_squared` is 1 - a'a / sum (mean r - its mean)^2 of the
    cross-section of average returns.

    Attributes
    ----------
    fama_macbeth_errors : (P,) standard errors without the correction, as if betas were known
    shanken : c, the squared Sharpe ratio that the premia imply for the factors
    betas : (N, K) of the first pass
    pricing_errors : (N,) mean return that exposures leave unexplained
    statistic, p_value : J that all pricing errors are zero, chi2 with N - P degrees of freedom; NaN for N = P
    n_incomplete : periods left out because something was missing
    """

    fama_macbeth_errors: FloatArray
    shanken: float
    betas: FloatArray
    pricing_errors: FloatArray
    statistic: float
    p_value: float
    n_incomplete: int

    def _columns(self) -> dict[str, Any]:
        return super()._columns() | {"t_fama_macbeth": over(self.premia, self.fama_macbeth_errors)}

    def _remark(self) -> str:
        return f"J p = {self.p_value:.3g}, "


def two_pass(
    returns: npt.ArrayLike,
    factors: npt.ArrayLike,
    *,
    names: Sequence[str] = (),
    intercept: bool = False,
    weighting: Weighting = "ols",
    lags: int | None = 0,
) -> TwoPass:
    """Regress returns on factors over time, then average returns on the betas across assets.

    Parameters
    ----------
    returns : (T, N)
        Excess returns of the test assets; periods with anything missing are left out.
    factors : (T, K) or (T,)
        Traded or not: premia are estimated from the test assets, not from the factors' means.
    names
        K names; none: "factor 1" and so on.
    intercept
        Whether the zero-beta excess return is free.
    weighting
        "ols", or "gls": by the inverse of the residual covariance, which needs T > N + K.
    lags
        Newey-West lags of premia and factors; 0: no autocorrelation; None: floor(4 (T/100)^(2/9)).

    Returns
    -------
    TwoPass

    Raises
    ------
    ConfigurationError, InsufficientDataError
        Shapes that do not fit; fewer assets than premia, T <= N + K, collinear factors or betas.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> f = [0.5, 0.2] + rng.normal(size=(600, 2))
    >>> r = f @ rng.normal(1.0, 0.5, size=(2, 25)) + rng.normal(size=(600, 25))
    >>> found = two_pass(r, f, names=["market", "value"])
    >>> bool(found.p_value > 0.05), bool(np.all(np.abs(found.premia - f.mean(axis=0)) < 0.1))
    (True, True)
    """
    one_of("weighting", weighting, Weighting)
    r, f, n_incomplete = complete_periods(returns, factors)
    (n_periods, n_assets), n_factors = r.shape, f.shape[1]
    labels = tuple(names) or tuple(f"factor {k + 1}" for k in range(n_factors))
    n_premia = n_factors + intercept
    if len(labels) != n_factors:
        raise ConfigurationError(f"{len(labels)} names {labels} for {n_factors} factors")
    if n_assets < n_premia or n_periods <= n_assets + n_factors:
        raise InsufficientDataError(
            f"{n_premia} premia need at least as many assets and more complete periods than assets and "
            f"factors, got {n_assets} assets and {n_periods} periods: use other test assets or a longer span"
        )
    mean, centred = f.mean(axis=0), f - f.mean(axis=0)
    factor_covariance = centred.T @ centred / n_periods
    inverse_quadratic(factor_covariance, mean, "factors are collinear")
    betas = np.linalg.lstsq(centred, r - r.mean(axis=0), rcond=None)[0].T
    residuals = r - r.mean(axis=0) - centred @ betas.T
    residual_covariance = residuals.T @ residuals / n_periods
    design = np.column_stack([np.ones(n_assets), betas]) if intercept else betas
    root = np.eye(n_assets)
    if weighting == "gls":
        root = np.linalg.inv(np.linalg.cholesky(_regular(residual_covariance)))
    slopes = least_squares(root @ design, root @ r.T)
    if slopes is None:
        raise InsufficientDataError(
            f"betas of {n_assets} assets on {n_factors} factors are collinear"
            f"{' with the intercept' if intercept else ''}: leave a factor out or add assets"
        )
    slopes = slopes.T
    premia = slopes.mean(axis=0)
    own = premia[intercept:]
    c = inverse_quadratic(factor_covariance, own, "factors are collinear")
    n_lags = checked_lags(lags, n_periods)
    plain = long_run_sum(slopes - premia, n_lags) / n_periods**2
    of_factors = np.zeros((n_premia, n_premia))
    of_factors[intercept:, intercept:] = long_run_sum(centred, n_lags) / n_periods**2
    covariance = (1.0 + c) * (plain - of_factors) + of_factors
    errors = r.mean(axis=0) - design @ premia
    statistic, p_value = _pricing_error_test(errors, design, residual_covariance, c, n_periods)
    spread = float(np.square(r.mean(axis=0) - r.mean()).sum())
    return TwoPass(
        names=("intercept", *labels) if intercept else labels,
        premia=premia,
        covariance=covariance,
        fama_macbeth_errors=np.sqrt(np.maximum(np.diag(plain), 0.0)),
        shanken=c,
        betas=betas,
        pricing_errors=errors,
        statistic=statistic,
        p_value=p_value,
        r_squared=1.0 - float(errors @ errors) / spread if spread > 0 else float("nan"),
        n_periods=n_periods,
        n_incomplete=n_incomplete,
        lags=n_lags,
    )


def _pricing_error_test(
    errors: FloatArray, design: FloatArray, residual_covariance: FloatArray, c: float, n_periods: int
) -> tuple[float, float]:
    """J = T a'Q (Q'S_e Q)^-1 Q'a / (1 + c) and its chi2 p-value."""
    from scipy.special import chdtrc  # the chi2 law; scipy.stats takes much longer to load

    n_assets, n_premia = design.shape
    if n_assets == n_premia:
        return float("nan"), float("nan")
    complement = np.linalg.qr(unit_columns(design, centred=False)[0], mode="complete")[0][:, n_premia:]
    spread = inverse_quadratic(
        complement.T @ residual_covariance @ complement,
        complement.T @ errors,
        "test assets repeat each other",
    )
    statistic = n_periods * spread / (1.0 + c)
    return statistic, float(chdtrc(n_assets - n_premia, statistic))


def _regular(covariance: FloatArray) -> FloatArray:
    inverse_quadratic(covariance, np.zeros(len(covariance)), "test assets repeat each other or a factor")
    return covariance
