"""What a fit of targeted factors found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.estimator import freeze
from latentfactors.kernels.targeted_inference import ParameterDraws
from latentfactors.kernels.targeted_posterior import noise_by_series
from latentfactors.targeted.refits import StateDraws
from latentfactors.targeted.series import TargetedSeries
from latentfactors.targeted.states import StateParameters

__all__ = ["PTFAEstimates", "count_parameters"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class PTFAEstimates:
    """What `fit` found, of standardised series.

    Attributes
    ----------
    series : names, units and training values of the series
    predictor_loadings : (p, k) P
    target_loadings : (q, k) Q, of the target `lead` periods later
    predictor_variance, target_variance : s_x^2 and s_y^2; with moving variances those before the first period
    predictor_variances, target_variances : (S,) paths over the training pairs, None where constant
    states : coefficients, kinds of series and their noise variances, with dynamics or aggregates; else None
    boundary : "x" or "y" where that noise variance went to zero (Heywood case), else ""
    noise_ratio : s_x/s_y imposed, NaN where the likelihood decided
    draws, state_draws : bootstrap refits without and with states, None unless asked for
    """

    series: TargetedSeries
    predictor_loadings: FloatArray
    target_loadings: FloatArray
    predictor_variance: float
    target_variance: float
    predictor_variances: FloatArray | None = None
    target_variances: FloatArray | None = None
    states: StateParameters | None = None
    boundary: str = ""
    noise_ratio: float = math.nan
    draws: ParameterDraws | None = None
    state_draws: StateDraws | None = None

    def __post_init__(self) -> None:
        freeze(self)
        if self.draws is not None:
            freeze(self.draws)

    @property
    def loadings(self) -> FloatArray:
        """(p + q, k) P above Q."""
        return np.vstack([self.predictor_loadings, self.target_loadings])

    @property
    def noise(self) -> FloatArray:
        """(p + q,) noise variance of every standardised series, the latest where variances move."""
        if self.states is not None:
            return self.states.variances[self.states.groups]
        latest = self.predictor_variance, self.target_variance
        if self.predictor_variances is not None and self.target_variances is not None:
            latest = float(self.predictor_variances[-1]), float(self.target_variances[-1])
        return noise_by_series(*latest, self.series.n_predictors, len(self.loadings))


def count_parameters(estimates: PTFAEstimates) -> int:
    """d k less the k(k-1)/2 rotations, the noise variances less an imposed ratio, and l k^2 of a VAR."""
    d, k = estimates.loadings.shape
    states = estimates.states
    others = 2 if states is None else states.variances.size + states.coefficients.size
    return d * k - k * (k - 1) // 2 + others - int(not math.isnan(estimates.noise_ratio))
