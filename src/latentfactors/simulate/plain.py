"""Plain factor panels whose truth is known: for recovery tests, contracts and first steps.

Static           r_ti = b_i'f_t + e_ti        b_ik ~ N(0, 1)
Characteristic   r_p  = Z_p Gamma f_p + e_p   Z_p (N_p, L) ranks in [-1/2, 1/2], Gamma'Gamma = I_K: IPCA's
                 process
Null             r_p  = e_p                   the same Z_p, which say nothing
Factors          f_t = mu + rho (f_(t-1) - mu) + u_t, started in their stationary distribution; sd falls from
                 factor to factor, so the order of factors is identified
Noise            e ~ N(0, noise^2), independent

Loadings, factors, noise, lives and hidden cells each have a random stream of their own: another share of
missing cells hides more of the same panel, and live periods are appended to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least, check_number
from latentfactors.kernels.cross_section import period_ranks
from latentfactors.panel import Panel
from latentfactors.rows import RowIndex, read_only
from latentfactors.simulate.parts import (
    check_correlation,
    check_share,
    first_order,
    lives,
    monthly_rows,
    streams,
)

__all__ = ["SimulatedPanel", "characteristic_panel", "null_panel", "static_panel"]

FloatArray = npt.NDArray[np.float64]

# Factor k's standard deviation is the first one's times this to the k; its premium a fifth of it, the monthly
# Sharpe ratio of a good factor, so that 20 years see its sign.
_DECAY = 0.7
_SHARPE = 0.2
_STREAMS = ("loadings", "factors", "noise", "hidden", "lives", "characteristics")


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedPanel:
    """A panel and the truth behind it.

    Attributes
    ----------
    panel
        What a user would have: monthly from 1990-01-31, excess returns in decimals.
    factors : (T, K)
        Realised factors, live periods included.
    premia : (K,)
        Factor means, decimal per month.
    expected : (R,)
        Noise-free values, loadings times realised factors, of all rows: hidden and live ones included.
    complete : (R,)
        Values with noise before any was hidden.
    noise : float
        Standard deviation of the noise, decimal per month.
    loadings : (N, K) or None
        Of a static panel, in the order of `panel.assets`.
    gamma : (L, K) or None
        Of a characteristic panel; row loadings are `panel.characteristics @ gamma`.

    Examples
    --------
    >>> truth = static_panel(n_periods=24, n_assets=5, n_factors=2, noise=0.0)
    >>> np.allclose(truth.panel.wide(), truth.factors @ truth.loadings.T)
    True
    """

    panel: Panel
    factors: FloatArray
    premia: FloatArray
    expected: FloatArray
    complete: FloatArray
    noise: float
    loadings: FloatArray | None = None
    gamma: FloatArray | None = None

    def __post_init__(self) -> None:
        for name in ("factors", "premia", "expected", "complete", "loadings", "gamma"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, read_only(getattr(self, name)))

    def row_loadings(self) -> FloatArray:
        """(R, K) loadings of every row."""
        return _row_loadings(self.panel.index, self.panel.characteristics, self.loadings, self.gamma)


def static_panel(
    n_periods: int = 240,
    n_assets: int = 60,
    n_factors: int = 3,
    *,
    noise: float = 0.02,
    missing: float = 0.0,
    premia: Sequence[float] | None = None,
    factor_sd: float = 0.05,
    persistence: float = 0.0,
    live: int = 0,
    seed: int = 0,
) -> SimulatedPanel:
    """Values of assets with constant loadings; every cell is a row. For PCA and its relatives.

    Parameters
    ----------
    n_periods
        Months with values, at least 1.
    n_assets, n_factors
        N >= 1 and K >= 0.
    noise
        Standard deviation of the idiosyncratic part, decimal per month, >= 0.
    missing
        Share of cells with values that are hidden at random, in [0, 1).
    premia
        (K,) factor means, decimal per month; None takes a fifth of each factor's standard deviation.
    factor_sd
        Standard deviation of the first factor, decimal per month, > 0; each further one has 0.7 of the last.
    persistence
        AR(1) coefficient of every factor around its mean, in (-1, 1).
    live
        Months appended with rows and no values.
    seed
        Of the NumPy generators, >= 0.

    Returns
    -------
    SimulatedPanel
        With `loadings` (N, K).

    Raises
    ------
    ConfigurationError
        A parameter outside its range.

    Examples
    --------
    >>> static_panel(n_periods=120, n_assets=20, live=1).panel
    Panel(121 periods 1990-01-31..2000-01-31, 20 assets, 2420 rows, excess_return, 'M')
    """
    _check(n_periods, n_assets, n_factors, live, noise, missing, factor_sd, persistence, seed)
    rng = streams(seed, _STREAMS)
    loadings = rng["loadings"].normal(size=(n_assets, n_factors))
    alive = np.ones((n_periods + live, n_assets), dtype=bool)
    factors, means = _factors(rng["factors"], len(alive), n_factors, premia, factor_sd, persistence)
    return _simulated(rng, alive, n_periods, None, factors, means, noise, missing, loadings=loadings)


def characteristic_panel(
    n_periods: int = 240,
    n_assets: int = 200,
    n_factors: int = 2,
    n_characteristics: int = 6,
    *,
    noise: float = 0.05,
    missing: float = 0.0,
    premia: Sequence[float] | None = None,
    factor_sd: float = 0.15,
    persistence: float = 0.0,
    characteristic_persistence: float = 0.95,
    partial: float = 0.5,
    live: int = 0,
    seed: int = 0,
) -> SimulatedPanel:
    """IPCA's process on an unbalanced panel: loadings are characteristics times Gamma.

    Characteristics are AR(1) for each asset, replaced in every month by their cross-sectional ranks among the
    assets alive. With the defaults the factors explain about half of the variance of values.

    Parameters
    ----------
    n_periods, n_assets, noise, missing, premia, persistence, live, seed
        As in `static_panel`.
    n_factors, n_characteristics
        0 <= K <= L, L >= 1.
    factor_sd
        As in `static_panel`; ranks have a standard deviation of 0.29, so factors move more than values.
    characteristic_persistence
        AR(1) coefficient of every characteristic before ranking, in (-1, 1).
    partial
        Share of assets with a partial life, in [0, 1): it starts in a uniformly drawn month and ends in one
        drawn uniformly from the rest. Assets alive at the end of `n_periods` stay for the live months.

    Returns
    -------
    SimulatedPanel
        With `gamma` (L, K), Gamma'Gamma = I_K, the largest entry of every column positive.

    Raises
    ------
    ConfigurationError
        A parameter outside its range.

    Examples
    --------
    >>> truth = characteristic_panel(n_periods=60, n_assets=30, live=1)
    >>> truth.panel.characteristics.shape[1], truth.gamma.shape, bool(truth.panel.period(-1).values.any())
    (6, (6, 2), True)
    """
    _check(n_periods, n_assets, n_factors, live, noise, missing, factor_sd, persistence, seed)
    at_least("n_characteristics", n_characteristics, max(n_factors, 1))
    check_share(partial=partial)
    check_correlation(characteristic_persistence=characteristic_persistence)
    rng = streams(seed, _STREAMS)
    gamma = _orthonormal(rng["loadings"].normal(size=(n_characteristics, n_factors)))
    alive = lives(rng["lives"], n_periods, live, n_assets, int(partial * n_assets))
    ranks = _ranked_paths(rng["characteristics"], alive, n_characteristics, characteristic_persistence)
    factors, means = _factors(rng["factors"], len(alive), n_factors, premia, factor_sd, persistence)
    return _simulated(rng, alive, n_periods, ranks, factors, means, noise, missing, gamma=gamma)


def null_panel(
    n_periods: int = 240,
    n_assets: int = 200,
    n_characteristics: int = 6,
    *,
    noise: float = 0.1,
    missing: float = 0.0,
    partial: float = 0.5,
    live: int = 0,
    seed: int = 0,
) -> SimulatedPanel:
    """Characteristics without any signal: values are independent noise.

    Every forecast that beats 0 is luck.

    Parameters
    ----------
    n_periods, n_assets, n_characteristics, noise, missing, partial, live, seed
        As in `characteristic_panel`.

    Returns
    -------
    SimulatedPanel
        With K = 0 factors, `gamma` (L, 0) and `expected` 0.

    Raises
    ------
    ConfigurationError
        A parameter outside its range.

    Examples
    --------
    >>> truth = null_panel(n_periods=24, n_assets=10)
    >>> truth.factors.shape, float(np.abs(truth.expected).max())
    ((24, 0), 0.0)
    """
    return characteristic_panel(
        n_periods, n_assets, 0, n_characteristics,
        noise=noise, missing=missing, partial=partial, live=live, seed=seed,
    )  # fmt: skip


# -------------------------------------------------------------------- the parts of a process


def _factors(
    rng: np.random.Generator, n: int, K: int, premia: Any, first_sd: float, persistence: float
) -> tuple[FloatArray, FloatArray]:
    """(n, K) factors and their means (K,)."""
    sd = first_sd * _DECAY ** np.arange(K)
    means = np.asarray(_SHARPE * sd if premia is None else premia, dtype=np.float64)
    if means.shape != (K,) or not np.all(np.isfinite(means)):
        raise ConfigurationError(f"premia must be {K} finite numbers, one per factor, got {premia!r}")
    return means + sd * _unit_paths(rng, (n, K), persistence), means


def _unit_paths(rng: np.random.Generator, shape: tuple[int, ...], coefficient: float) -> FloatArray:
    """Stationary AR(1) paths of unit variance along the first axis."""
    return np.sqrt(1 - coefficient**2) * first_order(rng.normal(size=shape), coefficient)


def _orthonormal(draws: FloatArray) -> FloatArray:
    """(L, K) orthonormal columns with their largest entries positive."""
    columns = np.linalg.qr(draws)[0]
    if columns.size:
        largest = columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])]
        columns = columns * np.sign(largest)
    return columns


def _ranked_paths(
    rng: np.random.Generator, alive: npt.NDArray[np.bool_], L: int, persistence: float
) -> FloatArray:
    """(R, L) ranks in [-1/2, 1/2] of AR(1) characteristics among the assets alive in each month."""
    paths = _unit_paths(rng, (*alive.shape, L), persistence)
    return np.concatenate([period_ranks(path[here]) for path, here in zip(paths, alive, strict=True)])


def _row_loadings(
    index: RowIndex, characteristics: Any, loadings: FloatArray | None, gamma: FloatArray | None
) -> FloatArray:
    if loadings is not None:
        return loadings[index.asset_codes]
    return np.asarray(characteristics) @ gamma


def _simulated(
    rng: dict[str, np.random.Generator],
    alive: npt.NDArray[np.bool_],
    n_periods: int,
    characteristics: FloatArray | None,
    factors: FloatArray,
    premia: FloatArray,
    noise: float,
    missing: float,
    *,
    loadings: FloatArray | None = None,
    gamma: FloatArray | None = None,
) -> SimulatedPanel:
    """Lay out the rows, add noise, hide cells."""
    index = monthly_rows(alive, "1990-01")
    period = index.period_codes
    beta = _row_loadings(index, characteristics, loadings, gamma)
    expected = np.einsum("rk,rk->r", beta, factors[period])
    complete = expected + noise * index.gather(rng["noise"].normal(size=alive.shape))
    hidden = index.gather(rng["hidden"].random(size=alive.shape) < missing) | (period >= n_periods)
    L = 0 if characteristics is None else characteristics.shape[1]
    panel = Panel(
        times=index.times,
        assets=index.assets,
        offsets=index.offsets,
        asset_codes=index.asset_codes,
        values=np.where(hidden, np.nan, complete),
        frequency="M",
        characteristics=characteristics,
        characteristic_names=tuple(f"c{j}" for j in range(L)),
    )
    return SimulatedPanel(
        panel=panel,
        factors=factors,
        premia=premia,
        expected=expected,
        complete=complete,
        noise=noise,
        loadings=loadings,
        gamma=gamma,
    )


# -------------------------------------------------------------------- checks


def _check(
    n_periods: int, n_assets: int, n_factors: int, live: int,
    noise: float, missing: float, factor_sd: float, persistence: float, seed: int,
) -> None:  # fmt: skip
    for name, size, lowest in (
        ("n_periods", n_periods, 1), ("n_assets", n_assets, 1), ("n_factors", n_factors, 0),
        ("live", live, 0), ("seed", seed, 0),
    ):  # fmt: skip
        at_least(name, size, lowest)
    check_number("noise", noise)
    check_number("factor_sd", factor_sd, positive=True)
    check_share(missing=missing)
    check_correlation(persistence=persistence)
