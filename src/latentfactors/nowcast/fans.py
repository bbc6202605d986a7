"""From a Gaussian law of transformed values to quantiles of levels and growth rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least, freeze
from latentfactors.transforms import annualised_rate, inverse_transform, past_levels_needed, year_on_year

__all__ = ["LevelFan", "level_fan", "normal_quantile"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class LevelFan:
    """Quantiles of what users read.

    Attributes
    ----------
    periods : (C,)
    probabilities : (P,)
    level : (P, C) in the units of the past levels
    year_on_year, annualised : (P, C) decimals; NaN where levels are not positive or too short
    """

    periods: npt.NDArray[Any]
    probabilities: FloatArray
    level: FloatArray
    year_on_year: FloatArray
    annualised: FloatArray

    def __post_init__(self) -> None:
        freeze(self)


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal.

    >>> round(normal_quantile(0.95), 4)
    1.6449
    """
    if not isinstance(probability, float | int) or not 0 < probability < 1:
        raise ConfigurationError(f"probabilities must lie between 0 and 1, got {probability!r}")
    return NormalDist().inv_cdf(probability)


def level_fan(
    mean: FloatArray,
    covariance: FloatArray,
    past_levels: npt.ArrayLike,
    transformation: str | int,
    periods: npt.NDArray[Any],
    per_year: int,
    probabilities: Sequence[float],
    n_draws: int,
    seed: int,
) -> LevelFan:
    """Draws of N(mean, covariance) taken back to levels.

    Parameters
    ----------
    mean, covariance : (C,), (C, C) of C periods in succession
    past_levels : (n,) levels up to the period before them
    transformation : code or name
    per_year : periods a year
    """
    at_least("n_draws", n_draws, 100)
    at_least("seed", seed, 0)
    for each in probabilities:
        normal_quantile(each)
    past = np.asarray(past_levels, dtype=np.float64)
    if past.ndim != 1 or past.size < past_levels_needed(transformation):
        raise ConfigurationError(
            f"past_levels must be (n,) with n >= {past_levels_needed(transformation)}, got shape {past.shape}"
        )
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    # each draw with its mirror image: the median of a symmetric law is its mean without noise
    half = rng.standard_normal((mean.size, (n_draws + 1) // 2))
    draws = mean[:, None] + root @ np.hstack([half, -half])
    levels = inverse_transform(draws, transformation, past)
    path = np.vstack([np.broadcast_to(past[:, None], (past.size, levels.shape[1])), levels])
    chosen = np.asarray(probabilities, dtype=np.float64)
    positive = bool(np.all(path[np.isfinite(path)] > 0))
    rates = [np.full((chosen.size, mean.size), np.nan)] * 2
    if positive:
        rates = [
            _quantiles(rate[past.size :], chosen)
            for rate in (year_on_year(path, per_year), annualised_rate(path, per_year))
        ]
    return LevelFan(
        periods=periods,
        probabilities=chosen,
        level=_quantiles(levels, chosen),
        year_on_year=rates[0],
        annualised=rates[1],
    )


def _quantiles(draws: FloatArray, probabilities: FloatArray) -> FloatArray:
    out = np.full((probabilities.size, draws.shape[0]), np.nan)
    complete = np.isfinite(draws).all(axis=1)
    if complete.any():
        out[:, complete] = np.quantile(draws[complete], probabilities, axis=1)
    return out
