"""Tangency portfolios of a walk-forward's factors: what they earn once they are known only from the past.

    w_s = W^-1 mu / sqrt(mu'W^-1 mu)        mean and covariance (1/T) of refit s's factors before its block
    r_p = w_s'f_p                           p in the block, f_p the factors of the same refit

Where factors are portfolios of known weights (loadings formed from the past, or observed factors that are
returns) r_p can be traded. Rotation, sign and scale of latent factors cancel. Every period is expected to
have a standard deviation of 1, so no refit counts for more than another.

References: Kelly, Pruitt & Su (2019), JFE 134(3), out-of-sample tangency portfolios; Barillas & Shanken
(2017), RFS 30(4), comparing models by attainable Sharpe ratios.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import InsufficientDataError, MissingCapabilityError
from latentfactors.estimator import freeze
from latentfactors.evaluate.pricing_tests import performance, tangency_weights
from latentfactors.track_record import WalkForwardResult

__all__ = ["TangencyPath", "tangency_path"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TangencyPath:
    """Out-of-sample returns of tangency portfolios.

    Attributes
    ----------
    times : (S,) periods after each refit's training
    returns : (S,) with an expected standard deviation of 1; NaN where factors are missing or a refit's
        factors were collinear
    n_factors : K
    n_refits : refits that had weights
    """

    times: npt.NDArray[Any]
    returns: FloatArray
    n_factors: int
    n_refits: int

    def __post_init__(self) -> None:
        freeze(self)

    def performance(
        self, factors: npt.ArrayLike | None = None, *, lags: int | None = None, periods_per_year: float = 1.0
    ) -> dict[str, float]:
        """Sharpe ratio, t and, with factors (S, M), alpha: see `evaluate.performance`."""
        return performance(self.returns, factors, lags, periods_per_year)

    def __repr__(self) -> str:
        n = int(np.isfinite(self.returns).sum())
        return f"TangencyPath({self.n_factors} factors, {self.n_refits} refits, {n} periods)"


def tangency_path(result: WalkForwardResult) -> TangencyPath:
    """Tangency portfolio of each refit's factors, followed through the refit's block.

    Parameters
    ----------
    result
        Of a predictor with factors; failed splits are left out.

    Returns
    -------
    TangencyPath

    Raises
    ------
    MissingCapabilityError
        The predictor has no factors.

    Examples
    --------
    >>> from latentfactors import ExpandingMeanFactorForecaster, ExpandingWindow, walk_forward
    >>> from latentfactors import BetaLambdaMapper, LatentFactorForecastPipeline, PCAConfig, PCAModel
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=120, n_assets=20, n_factors=2, seed=1).panel
    >>> pipeline = LatentFactorForecastPipeline(
    ...     model=PCAModel(PCAConfig(n_factors=2)),
    ...     forecaster=ExpandingMeanFactorForecaster(),
    ...     mapper=BetaLambdaMapper(),
    ... )
    >>> tangency_path(walk_forward(pipeline, panel, ExpandingWindow(first=60, step=20)))
    TangencyPath(2 factors, 3 refits, 60 periods)
    """
    times, returns, n_factors, n_refits = [], [], 0, 0
    for split, block in zip(result.splits, result.blocks, strict=True):
        if block is None or block.factors is None or block.factor_times is None:
            continue
        source, start, _ = split.block(result.panel)
        n_factors = block.factors.shape[1]
        fresh = block.factor_times >= source.times[start]
        try:
            weights = tangency_weights(block.factors[~fresh])
            n_refits += 1
        except InsufficientDataError:
            weights = np.full(n_factors, np.nan)
        times.append(block.factor_times[fresh])
        returns.append(block.factors[fresh] @ weights)
    if not times:
        raise MissingCapabilityError(f"{result.predictor} has no factors to make a tangency portfolio of")
    every, earned = np.concatenate(times), np.concatenate(returns)
    # Blocks of vintages may overlap: of several refits the latest speaks.
    _, last = np.unique(every[::-1], return_index=True)
    kept = len(every) - 1 - last
    return TangencyPath(times=every[kept], returns=earned[kept], n_factors=n_factors, n_refits=n_refits)
