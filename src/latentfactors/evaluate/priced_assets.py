"""Which factors price which assets: alphas of every set of test assets on every model, in one table.

A line        regressions of N excess returns on K factors over the periods in which all factors are known
Alphas        each asset over its own observed periods, t of Newey and West; counts of |t| > 1.96 and > 3.00
A|a|/A|r|     mean |alpha| over mean |average excess return|: the share of the spread that is left unpriced
GRS           over complete periods; NaN where it cannot be computed (too few periods, repeated assets)

Many |t| > 1.96 are expected where many assets are tried: 5% of them by chance under the null, more than that
where they are correlated. The bar of 3 is that of Harvey, Liu & Zhu.

References: Fama & French (2015), JFE 116(1), tables 5-6, the ratios; Harvey, Liu & Zhu (2016), RFS 29(1);
Hou, Xue & Zhang (2015), RFS 28(3), anomaly panels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.evaluate.pricing_tests import grs_test
from latentfactors.frames import to_frame
from latentfactors.kernels.newey_west import hac_regression

__all__ = ["PricedAssets", "price_assets", "pricing_table"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PricedAssets:
    """Alphas of one set of test assets on one set of factors.

    Attributes
    ----------
    alphas, t_statistics, r_squared, means : (N,) of each asset, NaN where it cannot be estimated; means are
        average excess returns over the same periods, all in the unit of the returns per period
    grs, p_value : of `grs_test`, NaN where `grs_refused` says why not
    grs_refused : one sentence, empty where there is a test
    n_periods : periods in which all factors are known
    n_factors : K
    """

    alphas: FloatArray
    t_statistics: FloatArray
    r_squared: FloatArray
    means: FloatArray
    grs: float
    p_value: float
    grs_refused: str
    n_periods: int
    n_factors: int

    def __post_init__(self) -> None:
        freeze(self)

    def line(self) -> dict[str, float]:
        """The numbers of a table's line; see `pricing_table`."""
        known = np.isfinite(self.alphas)
        alpha, mean = np.abs(self.alphas[known]), np.abs(self.means[known])
        t = np.abs(self.t_statistics[known])
        size = float(mean.mean()) if mean.size else 0.0
        nothing = float("nan")
        return {
            "mean_abs_alpha": float(alpha.mean()) if alpha.size else nothing,
            "share_unpriced": float(alpha.mean()) / size if size > 0 else nothing,
            "n_above_1.96": int((t > 1.96).sum()),
            "n_above_3": int((t > 3.0).sum()),
            "grs": self.grs,
            "p_value": self.p_value,
            "mean_r_squared": float(self.r_squared[known].mean()) if alpha.size else nothing,
            "n_assets": int(known.sum()),
            "n_factors": self.n_factors,
            "n_periods": self.n_periods,
        }

    def __repr__(self) -> str:
        line = self.line()
        return (
            f"PricedAssets({line['n_assets']} assets, {self.n_factors} factors, mean |alpha| "
            f"{line['mean_abs_alpha']:.4g}, {line['n_above_1.96']} with |t| > 1.96, GRS {self.grs:.3g})"
        )


def price_assets(returns: npt.ArrayLike, factors: npt.ArrayLike, *, lags: int | None = None) -> PricedAssets:
    """Regress test assets on factors and collect what stays unexplained.

    Parameters
    ----------
    returns : (T, N)
        Excess returns or spreads of the test assets, NaN where missing.
    factors : (T, K) or (T,)
        Excess returns or spreads, in the same unit.
    lags
        Newey-West lags; None: floor(4 (T/100)^(2/9)).

    Returns
    -------
    PricedAssets

    Raises
    ------
    ConfigurationError
        Shapes that do not fit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> market = 0.5 + 4.0 * rng.normal(size=240)
    >>> assets = market[:, None] * [0.8, 1.0, 1.2] + rng.normal(size=(240, 3)) + [0.0, 0.0, 0.5]
    >>> found = price_assets(assets, market)
    >>> (np.abs(found.t_statistics) > 3).tolist()
    [False, False, True]
    """
    r, f = np.asarray(returns, dtype=np.float64), np.asarray(factors, dtype=np.float64)
    f = f[:, None] if f.ndim == 1 else f
    if r.ndim != 2 or f.ndim != 2 or len(r) != len(f) or not r.shape[1] or not f.shape[1]:
        raise ConfigurationError(
            f"expected returns (T, N) and factors (T, K) with one T, got {np.shape(returns)} and "
            f"{np.shape(factors)}"
        )
    known = np.isfinite(f).all(axis=1)
    r, f = r[known], f[known]
    design = np.column_stack([np.ones(len(f)), f])
    fits = [hac_regression(column, design, lags) for column in r.T]
    seen = np.isfinite(r)
    means = np.divide(
        np.where(seen, r, 0.0).sum(axis=0), seen.sum(axis=0), out=np.full(r.shape[1], np.nan),
        where=seen.any(axis=0),
    )  # fmt: skip
    grs, p_value, refused = float("nan"), float("nan"), ""
    try:
        test = grs_test(r, f)
        grs, p_value = test.statistic, test.p_value
    except InsufficientDataError as error:
        refused = str(error)
    return PricedAssets(
        alphas=np.array([fit.coefficients[0] for fit in fits]),
        t_statistics=np.array([fit.t_statistics[0] for fit in fits]),
        r_squared=np.array([fit.r_squared for fit in fits]),
        means=means,
        grs=grs,
        p_value=p_value,
        grs_refused=refused,
        n_periods=len(f),
        n_factors=f.shape[1],
    )


def pricing_table(
    test_assets: Mapping[str, npt.ArrayLike],
    models: Mapping[str, npt.ArrayLike],
    *,
    lags: int | None = None,
    backend: str = "polars",
) -> Any:
    """One line per set of test assets and model.

    Parameters
    ----------
    test_assets
        Name -> (T, N) excess returns.
    models
        Name -> (T, K) factors over the same periods; all in one unit.
    lags
        Newey-West lags; None: floor(4 (T/100)^(2/9)).
    backend
        "polars", "pandas" or "pyarrow".

    Returns
    -------
    frame
        assets, model; mean_abs_alpha, share_unpriced (A|a|/A|r|), n_above_1.96, n_above_3 (Newey-West |t| of
        alphas), grs, p_value, mean_r_squared, n_assets, n_factors, n_periods.

    Raises
    ------
    ConfigurationError
        Nothing to compare, or shapes that do not fit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> f = 0.5 + rng.normal(size=(240, 2))
    >>> assets = {"six": f @ rng.normal(size=(2, 6)) + rng.normal(size=(240, 6))}
    >>> table = pricing_table(assets, {"one factor": f[:, :1], "both": f})
    >>> bool(table["mean_r_squared"][1] > table["mean_r_squared"][0])
    True
    """
    if not test_assets or not models:
        raise ConfigurationError("expected at least one set of test assets and one model")
    lines = [
        {"assets": assets, "model": model} | price_assets(returns, factors, lags=lags).line()
        for assets, returns in test_assets.items()
        for model, factors in models.items()
    ]
    return to_frame({key: np.array([line[key] for line in lines]) for key in lines[0]}, backend)
