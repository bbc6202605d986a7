"""Autoregressions, series by series: the benchmark that macroeconomic forecasts have to beat.

One step         y_t = c + phi_1 y_(t-1) + ... + phi_p y_(t-p) + u_t
Iterated         E[y_(p+h-1) | values up to p-1] by the recursion of that equation
Direct           y_(p+h-1) = c_h + sum_l phi_(h,l) y_(p-l) + u, a regression for the horizon itself; for h = 1
                 the two are the same
Order            smallest BIC = n log(RSS/n) + (p + 1) log n over p = 0..max_lags, all on the rows that are
                 complete for the longest; the longest leaves 5 complete rows per coefficient
Missing cells    a row enters a regression where all its values are there, so a gap is never bridged. In the
                 forecast, lags that are missing (a gap, a late release, the time before the series began)
                 are replaced by their expectation given the past under the one-step equation, started in
                 its stationary distribution, and their variance is added
Stationarity     roots of the one-step equation are kept within .99: difference trending series first
Little data      a series never seen in training, or with fewer than 5 values there, is forecast by the mean
                 of its own past, without a variance

References: Marcellino, Stock & Watson (2006), JoE 135(1-2), direct and iterated forecasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, HorizonError, InsufficientDataError
from latentfactors.estimator import at_least, check_horizon, freeze
from latentfactors.history import continues
from latentfactors.kernels.autoregression import fit_var
from latentfactors.kernels.scalar_autoregression import (
    ROWS_PER_COEFFICIENT,
    choose_order,
    expected_lags,
    iterated_weights,
    regress,
    stationary_lags,
)
from latentfactors.kernels.scores import running_asset_means
from latentfactors.model import PanelPredictor
from latentfactors.panel import Panel
from latentfactors.results import AssetForecastResult, Prediction
from latentfactors.state import FitSummary
from latentfactors.validate import count

__all__ = ["AutoregressiveConfig", "AutoregressiveEstimates", "AutoregressivePredictor"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class AutoregressiveConfig:
    """Options of `AutoregressivePredictor`; see there."""

    lags: int | Literal["bic"] = "bic"
    max_lags: int = 12
    horizon: int = 1
    method: Literal["direct", "iterated"] = "direct"

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        at_least("max_lags", self.max_lags, 0)
        if self.lags != "bic":
            if isinstance(self.lags, str):
                raise ConfigurationError(f"lags must be 'bic' or a whole number, got {self.lags!r}")
            at_least("lags", self.lags, 0)
        if self.method not in ("direct", "iterated"):
            raise ConfigurationError(f"method must be 'direct' or 'iterated', got {self.method!r}")


@dataclass(frozen=True, eq=False, kw_only=True)
class AutoregressiveEstimates:
    """What `fit` found, for N series and P lags (the longest order; coefficients beyond a series' own are 0).

    assets (N,); orders (N,), -1 where there was too little data; one step: intercept (N,), coefficients
    (N, P), variance (N,); for the config's horizon: horizon_intercept, horizon_coefficients,
    horizon_variance alike; at the end of training: lags (N, P) expected, spread (N, P, P) their covariance,
    total and n (N,) of the observed values; first and last training period.
    """

    assets: npt.NDArray[Any]
    orders: IntArray
    intercept: FloatArray
    coefficients: FloatArray
    variance: FloatArray
    horizon_intercept: FloatArray
    horizon_coefficients: FloatArray
    horizon_variance: FloatArray
    lags: FloatArray
    spread: FloatArray
    total: FloatArray
    n: IntArray
    first: Any
    last: Any

    def __post_init__(self) -> None:
        freeze(self)


class AutoregressivePredictor(PanelPredictor[AutoregressiveConfig, AutoregressiveEstimates]):
    """An autoregression per series, of fixed order or chosen by BIC, with predictive variances.

    Parameters
    ----------
    lags
        "bic", or the order of every series.
    max_lags
        Longest order that BIC may choose.
    horizon
        Periods ahead of the direct regressions; `predict` then serves this horizon only.
    method
        "direct", or "iterated", which serves any horizon.

    Notes
    -----
    Sequential: a panel reaches back over the training period or starts right after it, else `GapError`.

    Examples
    --------
    >>> from latentfactors.simulate import dynamic_factor_panel
    >>> panel = dynamic_factor_panel(n_periods=120, n_series=5, missing=0.1, seed=1).panel
    >>> predictor = AutoregressivePredictor(max_lags=4)
    >>> _ = predictor.fit(panel.between(0, 100))
    >>> forecast = predictor.predict(panel, start=panel.times[100]).asset_forecast
    >>> forecast.wide().shape, bool((forecast.variance > 0).all())
    ((20, 5), True)
    """

    sees = "own history"

    def __init__(
        self,
        lags: int | Literal["bic"] = "bic",
        max_lags: int = 12,
        horizon: int = 1,
        method: Literal["direct", "iterated"] = "direct",
    ) -> None:
        super().__init__(AutoregressiveConfig(lags=lags, max_lags=max_lags, horizon=horizon, method=method))

    def _estimate(self, panel: Panel) -> tuple[AutoregressiveEstimates, FitSummary]:
        return fit_autoregressions(panel, self.config)

    def _predict(self, panel: Panel, estimates: AutoregressiveEstimates, horizon: int) -> Prediction:
        if self.config.method == "direct" and horizon != self.config.horizon:
            raise HorizonError(
                f"{type(self).__name__} was built for horizon={self.config.horizon}, asked for {horizon}: "
                f"build it with horizon={horizon} and fit again, or use method='iterated'"
            )
        goes_on = continues(estimates.first, estimates.last, panel.index, type(self).__name__)
        mean, variance = forecast_series(panel, estimates, self.config, horizon, goes_on=goes_on)
        forecast = AssetForecastResult(
            index=panel.index,
            fit_span=self.fitted.span,
            horizon=horizon,
            expected_values=mean,
            variance=variance,
        )
        return Prediction(index=panel.index, asset_forecast=forecast)


# ------------------------------------------------------------------------------------ estimation


def fit_autoregressions(
    panel: Panel, config: AutoregressiveConfig
) -> tuple[AutoregressiveEstimates, FitSummary]:
    """One regression per series for one step, and one for the horizon where it is direct and longer.

    Raises
    ------
    InsufficientDataError
        When no series has five values.
    """
    values = panel.wide()
    longest = config.max_lags if config.lags == "bic" else int(config.lags)
    N, shrunk = values.shape[1], 0
    orders = np.full(N, -1)
    one, far = ((np.full(N, np.nan), np.zeros((N, max(longest, 1))), np.full(N, np.nan)) for _ in range(2))
    direct = config.method == "direct" and config.horizon > 1
    for i, y in enumerate(values.T):
        orders[i] = choose_order(y, longest, 1, fixed=config.lags != "bic")
        if orders[i] < 0:
            continue
        if orders[i] == 0:
            one[0][i], _, one[2][i] = regress(y, 0, 1)
        else:
            var, _, bound = fit_var(y[:, None], int(orders[i]))
            one[0][i], one[2][i] = var.intercept[0], var.covariance[0, 0]
            one[1][i, : orders[i]] = var.coefficients[:, 0, 0]
            shrunk += bound
        p = choose_order(y, longest, config.horizon, fixed=config.lags != "bic") if direct else -1
        if p >= 0:
            far[0][i], far[1][i, :p], far[2][i] = regress(y, p, config.horizon)
        else:  # one step, iterated, or too short for a regression so far ahead
            alone = iterated_weights(one[0][i : i + 1], one[1][i : i + 1], one[2][i : i + 1], config.horizon)
            for array, found in zip(far, alone, strict=True):
                array[i] = found[0]
    if np.all(orders < 0):
        raise InsufficientDataError(
            f"no series has {ROWS_PER_COEFFICIENT} observed values in training: give a longer panel"
        )
    used = max(int(orders.max()), int(np.flatnonzero(far[1].any(axis=0)).max(initial=-1)) + 1, 1)
    known = np.flatnonzero(orders >= 0)
    one, far = ((each[0], each[1][:, :used], each[2]) for each in (one, far))
    lags, spread = np.full((N, used), np.nan), np.full((N, used, used), np.nan)
    start = stationary_lags(one[0][known], one[1][known], one[2][known])
    path, _, spread[known] = expected_lags(
        values[:, known], one[0][known], one[1][known], one[2][known], one[1][known], start
    )
    lags[known] = path[-1]
    _, total, n = running_asset_means(panel.values, panel.offsets, panel.asset_codes, panel.n_assets)
    seen = panel.active_assets
    warnings = []
    if few := int((orders[seen] < 0).sum()):
        warnings.append(f"{few} series with fewer than {ROWS_PER_COEFFICIENT} values: forecast by their mean")
    if shrunk:
        warnings.append(f"{count(shrunk, 'autoregression')} with a root beyond .99, shrunk: is it a trend?")
    chosen = orders[known]
    return (
        AutoregressiveEstimates(
            assets=panel.assets,
            orders=orders,
            intercept=one[0],
            coefficients=one[1],
            variance=one[2],
            horizon_intercept=far[0],
            horizon_coefficients=far[1],
            horizon_variance=far[2],
            lags=lags,
            spread=spread,
            total=total,
            n=n,
            first=panel.times[0],
            last=panel.times[-1],
        ),
        FitSummary(
            reason=f"{known.size} regressions of orders {chosen.min()} to {chosen.max()}",
            warnings=tuple(warnings),
        ),
    )


# ------------------------------------------------------------------------------------ forecasting


def forecast_series(
    panel: Panel,
    estimates: AutoregressiveEstimates,
    config: AutoregressiveConfig,
    horizon: int,
    *,
    goes_on: bool,
) -> tuple[FloatArray, FloatArray]:
    """(R,) means and variances of every row's value horizon - 1 periods on, from values before the row."""
    position = panel.index.match_assets(estimates.assets)
    trained = position >= 0
    before = None
    if goes_on:
        before = (
            np.where(trained, estimates.total[position], 0.0),
            np.where(trained, estimates.n[position], 0),
        )
    mean, _, _ = running_asset_means(
        panel.values, panel.offsets, panel.asset_codes, panel.n_assets, before=before
    )
    variance = np.full(panel.n_rows, np.nan)
    columns = np.flatnonzero(trained & (estimates.orders[position] >= 0))
    if columns.size == 0:
        return mean, variance
    own = position[columns]
    one = estimates.intercept[own], estimates.coefficients[own], estimates.variance[own]
    if config.method == "direct":
        shift, weights = estimates.horizon_intercept[own], estimates.horizon_coefficients[own]
        noise = estimates.horizon_variance[own]
    else:
        shift, weights, noise = iterated_weights(*one, horizon)
    start = (estimates.lags[own], estimates.spread[own]) if goes_on else stationary_lags(*one)
    lags, unknown, _ = expected_lags(panel.wide()[:, columns], *one, weights, start)
    wide = np.full((2, panel.n_periods, panel.n_assets), np.nan)
    wide[0][:, columns] = shift
    for lag in range(weights.shape[1]):  # added lag by lag: the same bits whatever other rows there are
        wide[0][:, columns] += lags[:-1, :, lag] * weights[:, lag]
    wide[1][:, columns] = noise + unknown[:-1]
    own_mean, own_variance = (panel.index.gather(each) for each in wide)
    modelled = np.isfinite(own_mean)
    return np.where(modelled, own_mean, mean), own_variance
