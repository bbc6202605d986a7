"""Native forecasts of targeted models without dynamics: one horizon, on the rows that the time rule names.

Row p looks one period back: its forecast uses what was known in p-1 and speaks about p-1 + lead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import HorizonError
from latentfactors.rows import RowIndex

if TYPE_CHECKING:
    from latentfactors.targeted.series import TargetedSeries

__all__ = ["LeadForecasts", "first_row_is_unknown", "target_rows"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class LeadForecasts:
    """Native forecasts of a model without dynamics: it serves one horizon, its lead.

    Parameters
    ----------
    index
        Rows of the panel.
    series
        Names, units, lead.
    before
        Periods put before the panel's own, B.
    target_means : (B + T, q)
        Standardised target forecast made *in* each period, for `lead` periods later.
    target_variances : (B + T, q), optional
        Its predictive variance, standardised.
    factor_means : (B + T, K)
        The factor behind that forecast, given the period and those before it.
    factor_covariances : (B + T, K, K), optional
        Its uncertainty.
    who
        Name for messages.

    Notes
    -----
    Row p looks one period back, so its forecast has origin p-1 and target p-1 + lead. The first period of all
    has no past: NaN. With a lead, `factors` are those of the origin, p-1, because they drive the target.
    """

    index: RowIndex
    series: TargetedSeries
    before: int
    target_means: FloatArray
    factor_means: FloatArray
    target_variances: FloatArray | None = None
    factor_covariances: FloatArray | None = None
    who: str = "this model"

    def factors(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        """(T, K) means and (T, K, K) covariances of the factor that drives the target of p-1 + lead.

        Raises
        ------
        HorizonError
            For every horizon but the lead.
        """
        self._check(horizon)
        covariances = self.factor_covariances
        return (
            first_row_is_unknown(self.factor_means, self.before),
            None if covariances is None else first_row_is_unknown(covariances, self.before),
        )

    def values(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        """(R,) means and variances in input units: targets only, predictors are NaN.

        Raises
        ------
        HorizonError
            For every horizon but the lead.
        """
        self._check(horizon)
        p = self.series.n_predictors
        scale = self.series.scale[p:]
        means = self._rows(self.series.location[p:] + scale * self.target_means)
        if self.target_variances is None:
            return means, None
        return means, self._rows(scale * scale * self.target_variances)

    def _rows(self, by_origin: FloatArray) -> FloatArray:
        return target_rows(self.index, self.series.targets, first_row_is_unknown(by_origin, self.before))

    def _check(self, horizon: int) -> None:
        lead = self.series.lead
        if horizon == lead:
            return
        use = "it describes and nowcasts (horizon 0)" if lead == 0 else f"it serves horizon {lead} only"
        ahead = f"train with lead={horizon}" if horizon > 0 else "train with lead=0 to nowcast"
        raise HorizonError(
            f"{self.who} has no dynamics and was trained with lead={lead}: {use}, got horizon {horizon}; "
            f"{ahead}, or use a model with dynamics"
        )


def first_row_is_unknown(by_origin: npt.NDArray[Any], before: int) -> npt.NDArray[Any]:
    """(T, ...) what was known one period before each of the panel's T periods; NaN where none was before.

    Parameters
    ----------
    by_origin : (B + T, ...)
        Known in each period.
    before
        B, the periods that precede the panel.
    """
    none = np.full((1, *by_origin.shape[1:]), np.nan)
    return np.concatenate([none, by_origin])[before:-1]


def target_rows(index: RowIndex, targets: npt.NDArray[Any], by_period: FloatArray) -> FloatArray:
    """(R,) rows out of (T, q) forecasts of targets; rows of other series are NaN."""
    column = index.match_assets(targets)[index.asset_codes]
    return np.where(column >= 0, by_period[index.period_codes, np.maximum(column, 0)], np.nan)
