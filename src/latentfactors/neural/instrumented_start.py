"""Where an instrumented factorisation starts: IPCA's loadings and the portfolios that earn its factors.

Gamma   least squares of r on Z Gamma f, turned to pooled (Z Gamma)'(Z Gamma)/rows = I and principal factors
R       Gamma (Gamma'W Gamma)^-1, W pooled Z'Z/rows: R'x_s is the factor that x_s says was realised
c       mean of the factors
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.kernels.ipca import fit_instrumented, instrument_rank
from latentfactors.kernels.sufficient import gram_factors, period_statistics
from latentfactors.neural.alignment import principal_turn
from latentfactors.neural.instrumented import fresh_embedding, fresh_loadings, fresh_premia
from latentfactors.neural.premium_forecasts import autoregression
from latentfactors.neural.rows import FlatRows
from latentfactors.neural.snapshots import Snapshot

__all__ = ["LinearStart", "NetworkShape", "fresh_members", "linear_start"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """Sizes and parts of the network; `spanned_factors` adds Theta of the penalty on factors."""

    factor_mode: str
    width: int
    heads: int
    temporal_layers: int
    channel: str | None
    spatial: str | None
    points: int
    blocks: int
    spanned_factors: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearStart:
    """What training begins with, for standardised characteristics, a constant last.

    Attributes
    ----------
    gamma : (L + 1, K)
    portfolio : (L + 1, K), R for portfolios divided by their root mean squares
    mean : (K,) of factors
    premium : (K,), c
    carry : (K, K), Phi
    input_scale : (L + 1,) these root mean squares
    """

    gamma: FloatArray
    portfolio: FloatArray
    mean: FloatArray
    premium: FloatArray
    carry: FloatArray
    input_scale: FloatArray


def linear_start(data: FlatRows, n_factors: int) -> LinearStart:
    """IPCA with a constant on standardised rows.

    Raises
    ------
    ConfigurationError
        More factors than the rank of the characteristics and a constant.
    """
    values = np.where(data.seen > 0, data.r.astype(np.float64), np.nan)
    statistics = period_statistics(values, data.z, data.offsets, constant=True)
    rank = instrument_rank(statistics.grams)[0]
    if n_factors > rank:
        raise ConfigurationError(
            f"n_factors={n_factors} exceeds the rank {rank} of {data.z.shape[1]} characteristics and a "
            "constant: ask for fewer factors or give more characteristics"
        )
    gamma = fit_instrumented(statistics, n_factors, tolerance=1e-6, max_iterations=100).gamma
    factors = gram_factors(
        gamma.T @ statistics.grams @ gamma,
        statistics.crosses @ gamma,
        statistics.counts,
        min_observed=n_factors,
    )
    pooled = statistics.grams.sum(axis=0) / statistics.counts.sum()
    # (Z Gamma)'(Z Gamma) = A'A: the turn asks for loadings, and A has their second moments
    roots = np.linalg.cholesky(gamma.T @ pooled @ gamma).T * np.sqrt(n_factors)
    turn = principal_turn(roots, factors)
    gamma, factors = gamma @ turn, factors @ np.linalg.inv(turn).T
    x = statistics.crosses / statistics.counts[:, None]
    input_scale = np.sqrt(np.mean(x * x, axis=0))
    input_scale = np.where(input_scale > 0, input_scale, 1.0)
    portfolio = gamma @ np.linalg.inv(gamma.T @ pooled @ gamma) * input_scale[:, None]
    after = 1 + np.flatnonzero(np.diff(data.periods) == 1)
    premium, carry = autoregression(factors[after], ((x / input_scale) @ portfolio)[after - 1], factors)
    return LinearStart(
        gamma=gamma,
        portfolio=portfolio,
        mean=np.nanmean(factors, axis=0),
        premium=premium,
        carry=carry,
        input_scale=input_scale,
    )


# ------------------------------------------------------------------------------------ initial weights


def fresh_members(
    shape: NetworkShape, linear: LinearStart, n_months: int, n_members: int, seed: int
) -> Snapshot:
    """Initial weights: member m's depend on the seed and on m only."""
    slots = _month_slots(n_months)
    members = []
    for m in range(n_members):
        rng = np.random.default_rng([seed, 0, m])
        weights = fresh_loadings(
            rng,
            linear.gamma,
            width=shape.width,
            heads=shape.heads,
            channel=shape.channel,
            spatial=shape.spatial,
            points=shape.points,
            blocks=shape.blocks,
        )
        time = {"width": shape.width, "heads": shape.heads, "layers": shape.temporal_layers}
        if shape.factor_mode == "amortized":
            weights |= fresh_premia(rng, linear.portfolio, linear.premium, linear.carry, **time)
        elif shape.factor_mode == "embedding":
            weights |= fresh_embedding(rng, slots, linear.mean, **time)
        if shape.spanned_factors:
            weights["theta"] = linear.portfolio.astype(np.float32)
        members.append(weights)
    is_month = (np.arange(slots) < n_months).astype(np.float32)
    return Snapshot(
        parameters={name: np.stack([each[name] for each in members]) for name in members[0]},
        layers={"is_month": np.stack([is_month] * n_members)} if shape.factor_mode == "embedding" else {},
    )


def _month_slots(n_months: int) -> int:
    """Months an embedding has room for: a power of 2, so that a longer window runs the compiled program."""
    return 1 << max(int(n_months - 1).bit_length(), 7)
