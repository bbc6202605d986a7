"""What predictors without factors share: the value to explain, the horizon they were built for, their result.

A direct predictor explains the value of period p + horizon - 1 by row p, so the horizon is part of its fit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentfactors.errors import HorizonError, InsufficientDataError
from latentfactors.panel import Panel
from latentfactors.results import AssetForecastResult, Prediction
from latentfactors.state import FitSpan

__all__ = ["as_prediction", "pooled_rows", "same_horizon", "values_ahead"]

FloatArray = npt.NDArray[np.float64]


def values_ahead(panel: Panel, horizon: int) -> FloatArray:
    """(R,) value of the row's asset in period p + horizon - 1, NaN beyond the panel's end."""
    if horizon == 1:
        return panel.values
    wide = panel.wide()
    ahead = np.full_like(wide, np.nan)
    ahead[: max(panel.n_periods - horizon + 1, 0)] = wide[horizon - 1 :]
    return panel.index.gather(ahead)


def pooled_rows(panel: Panel, horizon: int) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Characteristics (n, L), values ahead (n,) and periods (n,) of the rows whose value ahead is known.

    Rows stand in the order of periods and labels, so that learners which read them in batches do not
    depend on the order of the assets.

    Raises
    ------
    InsufficientDataError
        There is no such row.
    """
    ahead = values_ahead(panel, horizon)
    seen = np.isfinite(ahead)
    if not seen.any():
        raise InsufficientDataError("no row has characteristics and a value: nothing to learn from")
    assert panel.characteristics is not None
    place = np.argsort(np.argsort(panel.assets))[panel.asset_codes]
    order = np.lexsort((place, panel.index.period_codes))
    rows = order[seen[order]]
    z = panel.characteristics[rows].astype(np.float64)
    return z, ahead[rows], panel.index.period_codes[rows].astype(np.int64)


def as_prediction(panel: Panel, expected: FloatArray, span: FitSpan, horizon: int) -> Prediction:
    """Wrap (R,) forecasts."""
    forecast = AssetForecastResult(
        index=panel.index, fit_span=span, horizon=horizon, expected_values=expected
    )
    return Prediction(index=panel.index, asset_forecast=forecast)


def same_horizon(name: str, built: int, asked: int) -> None:
    """Refuse a horizon that the predictor was not fitted for.

    Raises
    ------
    HorizonError
        Another horizon.
    """
    if built != asked:
        raise HorizonError(
            f"{name} was built for horizon={built}, asked for {asked}: build it with horizon={asked} and fit "
            "again"
        )
