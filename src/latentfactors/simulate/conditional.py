"""A conditional factor process with characteristics, linear or not: what the conditional autoencoder is for.

Characteristics   c_(i,j) AR(1) with a coefficient U(.9, 1) per characteristic and unit variance, replaced in
                  every period by 2 rank/(N + 1) - 1 among the assets alive
Portfolios        x_t ~ N(.03, .1^2 I_P), the panel's observed factors
Factors           f_t = first three of x_t + N(0, .01^2 I_3)
Loadings          linear (c_1, c_2, c_3); nonlinear (c_1^2, 2 c_1 c_2, .6 sgn c_3)
Returns           r = beta'f + e, e = .1 t_5

The factors depend on portfolios that the characteristics do not span. References: Gu, Kelly & Xiu (2021),
Journal of Econometrics 222(1), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from latentfactors.estimator import at_least, one_of
from latentfactors.kernels.cross_section import period_ranks
from latentfactors.kernels.scores import r_squared
from latentfactors.panel import Panel
from latentfactors.rows import read_only
from latentfactors.simulate.parts import (
    check_correlation,
    check_share,
    first_order,
    lives,
    monthly_rows,
    streams,
)

__all__ = ["ConditionalTruth", "conditional_panel"]

FloatArray = npt.NDArray[np.float64]
Design = Literal["linear", "nonlinear"]

_N_FACTORS = 3
_MEAN, _SD, _FACTOR_SD, _NOISE, _FREEDOM = 0.03, 0.1, 0.01, 0.1, 5
_STREAMS = ("characteristics", "portfolios", "factors", "noise", "lives", "hidden")


@dataclass(frozen=True, eq=False, kw_only=True)
class ConditionalTruth:
    """A panel and the truth behind it.

    Attributes
    ----------
    panel
        What a user would have: monthly from 1980-01-31, excess returns in decimals, characteristics `c1`...,
        observed factors `x1`... .
    loadings : (R, 3)
    factors : (T, 3)
        Realised factors, live periods included.
    expected : (R,)
        loadings . factors of all rows: hidden and live ones included.
    complete : (R,)
        Values with noise before any was hidden.

    Examples
    --------
    >>> truth = conditional_panel("nonlinear", n_periods=60, n_assets=100)
    >>> truth.loadings.shape, truth.factors.shape, 0.3 < truth.oracle_r2() < 0.5
    ((6000, 3), (60, 3), True)
    """

    panel: Panel
    loadings: FloatArray
    factors: FloatArray
    expected: FloatArray
    complete: FloatArray

    def __post_init__(self) -> None:
        for name in ("loadings", "factors", "expected", "complete"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def oracle_r2(self, first: int = 0) -> float:
        """Total R2 of true loadings and factors, against zero, in observed rows from period `first` on."""
        rows = slice(int(self.panel.offsets[first]), None)
        return r_squared(self.panel.values[rows], self.expected[rows])


def conditional_panel(
    design: Design = "linear",
    n_periods: int = 480,
    n_assets: int = 500,
    n_characteristics: int = 20,
    *,
    missing: float = 0.0,
    partial: float = 0.0,
    persistence: float = 0.0,
    live: int = 0,
    seed: int = 0,
) -> ConditionalTruth:
    """Simulate the process of the module's docstring.

    Parameters
    ----------
    design
        "linear" or "nonlinear" loadings.
    n_periods
        Months with values, at least 2.
    n_assets, n_characteristics
        N >= 2, P >= 3.
    missing
        Share of values hidden at random, in [0, 1).
    partial
        Share of assets with a partial life, in [0, 1): it starts in a uniformly drawn month and ends in one
        drawn uniformly from the rest.
    persistence
        AR(1) coefficient of the portfolios around their mean, in (-1, 1); .3 makes factors predictable.
    live
        Months appended with rows and no values.
    seed
        Of the NumPy generators, >= 0.

    Returns
    -------
    ConditionalTruth

    Raises
    ------
    ConfigurationError
        A parameter outside its range.

    Examples
    --------
    >>> conditional_panel(n_periods=24, n_assets=50, n_characteristics=4, live=1).panel
    Panel(25 periods 1980-01-31..1982-01-31, 50 assets, 1250 rows, 4 characteristics, 4 observed factors, \
excess_return, 'M')
    """
    _check(design, n_periods, n_assets, n_characteristics, live, seed, missing, partial, persistence)
    rng = streams(seed, _STREAMS)
    T = n_periods + live
    n_partial = min(int(partial * n_assets), n_assets - 2)  # ranks need two assets in every month
    alive = lives(rng["lives"], n_periods, live, n_assets, n_partial)
    ranks = _ranked_characteristics(rng["characteristics"], alive, n_characteristics)
    x = _portfolios(rng["portfolios"], T, n_characteristics, persistence)
    factors = x[:, :_N_FACTORS] + _FACTOR_SD * rng["factors"].normal(size=(T, _N_FACTORS))
    index = monthly_rows(alive, "1980-01")
    loadings = true_loadings(ranks, design)
    expected = np.einsum("rk,rk->r", loadings, factors[index.period_codes])
    complete = expected + _NOISE * index.gather(rng["noise"].standard_t(_FREEDOM, size=alive.shape))
    future = index.period_codes >= n_periods
    hidden = index.gather(rng["hidden"].random(size=alive.shape) < missing) | future
    observed = np.array(x)
    observed[n_periods:] = np.nan
    panel = Panel(
        times=index.times,
        assets=index.assets,
        offsets=index.offsets,
        asset_codes=index.asset_codes,
        values=np.where(hidden, np.nan, complete),
        frequency="M",
        characteristics=ranks,
        characteristic_names=tuple(f"c{j + 1}" for j in range(n_characteristics)),
        observed_factors=observed,
        observed_factor_names=tuple(f"x{j + 1}" for j in range(n_characteristics)),
    )
    return ConditionalTruth(
        panel=panel, loadings=loadings, factors=factors, expected=expected, complete=complete
    )


def true_loadings(c: FloatArray, design: Design) -> FloatArray:
    """(R, 3): (c_1, c_2, c_3), or (c_1^2, 2 c_1 c_2, .6 sgn c_3)."""
    if design == "linear":
        return np.array(c[:, :3])
    return np.column_stack([c[:, 0] ** 2, 2.0 * c[:, 0] * c[:, 1], 0.6 * np.sign(c[:, 2])])


def _ranked_characteristics(rng: np.random.Generator, alive: npt.NDArray[np.bool_], P: int) -> FloatArray:
    """(R, P) 2 rank/(N_t + 1) - 1 of AR(1) paths with unit variance."""
    T, N = alive.shape
    coefficient = rng.uniform(0.9, 1.0, size=P)
    path, blocks = rng.normal(size=(N, P)), []
    for t in range(T):
        if t:
            path = coefficient * path + np.sqrt(1.0 - coefficient**2) * rng.normal(size=(N, P))
        n = int(alive[t].sum())
        # period_ranks gives (rank - 1)/(n - 1) - 1/2
        blocks.append(period_ranks(path[alive[t]]) * (2.0 * (n - 1) / (n + 1)))
    return np.concatenate(blocks)


def _portfolios(rng: np.random.Generator, T: int, P: int, persistence: float) -> FloatArray:
    """(T, P) returns with mean .03 and standard deviation .1, AR(1) around their mean."""
    shocks = first_order(rng.normal(size=(T, P)), persistence)
    return _MEAN + _SD * np.sqrt(1.0 - persistence**2) * shocks


def _check(
    design: str, n_periods: int, n_assets: int, n_characteristics: int, live: int, seed: int,
    missing: float, partial: float, persistence: float,
) -> None:  # fmt: skip
    one_of("design", design, Design)
    least = {"n_periods": (n_periods, 2), "n_assets": (n_assets, 2), "live": (live, 0), "seed": (seed, 0)}
    least["n_characteristics"] = (n_characteristics, _N_FACTORS)
    for name, (value, lowest) in least.items():
        at_least(name, value, lowest)
    check_share(missing=missing, partial=partial)
    check_correlation(persistence=persistence)
