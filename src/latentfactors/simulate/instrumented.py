"""Loadings instrumented by characteristics, linear or not, with premia that move: what `NeurIFModel` is for.

Characteristics   z (P,), AR(1) with coefficient .95 for every asset, replaced in every period by ranks in
                  [-1/2, 1/2]
Loadings          linear      Lambda = Gamma'z, Gamma (P, 3) orthonormal
                  nonlinear   Lambda = Gamma'z + 2 [z_1 z_2, z_3^2 - 1/12, |z_4| - 1/4]
                  gated       Lambda = 2 Gamma'(s o z), s_j = 1/(1 + exp(-12 z_(j+1))): whether a
                              characteristic counts depends on the next one, by one rule for all of them;
                              the last one has none and counts half. The mean slope is Gamma
                  crossed     Lambda_k = gamma_k'z + 4 (z_k z_(k+6) + z_(k+3) z_(k+9)): characteristics far
                              apart multiply, each pair in its own factor
Factors           f_t = mu + A_t (f_(t-1) - mu) + u_t, started in its stationary distribution;
                  A = diag(.4, .2, 0), mu = (.01, .005, .005), sd of u (.05, .04, .03)
Returns           r = Lambda'f + e, sd of e .03; 20% of the cells hidden at random

Peers     the first loading adds 8 m_t z_1, m_t the period's mean of z_5. Ranks have no mean that moves, so
          z_5 then is rank/2 + m_t, m_t a common level: a stationary AR(1) with coefficient .95 and sd .144
          (that of a uniform variable on [-1/4, 1/4]), clipped to [-1/4, 1/4]. A firm's own z_5 is a noisy
          reading of m_t, its peers know it
Regimes   A changes its sign every 60 months
Hidden    f_t = mu + m_t + u_t, m_t a stationary AR(1) with coefficient .95 and .8 times the sd of u_t that
          nobody sees: a premium is what the past months together say about m_t (Kalman's filter), which the
          mean of all months does not follow and the last month alone tells poorly
Null      returns permuted across all cells: the same distribution, nothing to explain or to forecast

Every parameter is fixed. References: the process follows the structure of Uddin (2025), Proceedings of CIKM,
whose own design is not public; its numbers are ours. Hidden premia: Pastor & Stambaugh (2009), Journal of
Finance 64(4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least
from latentfactors.kernels.cross_section import period_ranks
from latentfactors.kernels.scores import r_squared
from latentfactors.panel import Panel
from latentfactors.rows import read_only
from latentfactors.simulate.parts import check_share, first_order, monthly_rows, streams

__all__ = ["InstrumentedTruth", "instrumented_panel"]

FloatArray = npt.NDArray[np.float64]
Loading = Literal["linear", "nonlinear", "gated", "crossed"]

_MEAN, _SD, _PERSISTENCE = np.array([0.01, 0.005, 0.005]), np.array([0.05, 0.04, 0.03]), (0.4, 0.2, 0.0)
_NOISE, _BEND, _AGING = 0.03, 2.0, 0.95
_PEER, _LEVEL_SD, _LEVEL_BOUND, _REGIME = 8.0, 1.0 / np.sqrt(48.0), 0.25, 60
_STEEPNESS, _CROSS, _FAR = 12.0, 4.0, 6
_HIDDEN_AGING, _HIDDEN_SIZE = 0.95, 0.8
_FEWEST = {"linear": 5, "nonlinear": 5, "gated": 5, "crossed": 12}
_STREAMS = ("characteristics", "gamma", "factors", "noise", "hidden", "level", "null")


@dataclass(frozen=True, eq=False, kw_only=True)
class InstrumentedTruth:
    """A panel and the truth behind it.

    Attributes
    ----------
    panel
        What a user would have: monthly from 1980-01-31, excess returns in decimals, characteristics `z1`... .
    loadings : (R, 3)
    factors : (T, 3)
        Realised factors, live periods included.
    premia : (T, 3)
        E[f_t | the factors before], the mean where there are none.
    gamma : (P, 3)
    expected, forecast : (R,)
        loadings . factors and loadings . premia of all rows; 0 in a null panel.
    complete : (R,)
        Values with noise before any was hidden.

    Examples
    --------
    >>> truth = instrumented_panel("nonlinear", n_periods=120, n_assets=100)
    >>> truth.loadings.shape, truth.premia.shape, 0.3 < truth.oracle_total_r2() < 0.55
    ((12000, 3), (120, 3), True)
    """

    panel: Panel
    loadings: FloatArray
    factors: FloatArray
    premia: FloatArray
    gamma: FloatArray
    expected: FloatArray
    forecast: FloatArray
    complete: FloatArray

    def __post_init__(self) -> None:
        for name in ("loadings", "factors", "premia", "gamma", "expected", "forecast", "complete"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def oracle_total_r2(self, first: int = 0) -> float:
        """R2 against zero of true loadings and true factors, in observed rows from period `first` on."""
        return self.r2(self.expected, first)

    def oracle_predictive_r2(self, first: int = 0) -> float:
        """R2 against zero of true loadings and true premia, in observed rows from period `first` on."""
        return self.r2(self.forecast, first)

    def r2(self, fitted: FloatArray, first: int = 0) -> float:
        """R2 against zero of any fitted values (R,), in observed rows from period `first` on."""
        rows = slice(int(self.panel.offsets[first]), None)
        return r_squared(self.panel.values[rows], fitted[rows])


def instrumented_panel(
    loadings: Loading = "linear",
    n_periods: int = 360,
    n_assets: int = 300,
    n_characteristics: int = 12,
    *,
    peers: bool = False,
    regimes: bool = False,
    hidden_premia: bool = False,
    null: bool = False,
    missing: float = 0.2,
    live: int = 0,
    seed: int = 0,
) -> InstrumentedTruth:
    """Simulate the process of the module's docstring.

    Parameters
    ----------
    loadings
        "linear" in the characteristics; "nonlinear"; "gated" by the next one; "crossed" by one far off.
    n_periods
        Months with values, at least 2.
    n_assets, n_characteristics
        N >= 2, P >= 5, with crossed loadings P >= 12.
    peers
        The first loading also depends on the period's mean of z_5.
    regimes
        A changes its sign every 60 months.
    hidden_premia
        Premia are slow and hidden in the factors; not with regimes.
    null
        Values permuted across all cells.
    missing
        Share of values hidden at random, in [0, 1).
    live
        Months appended with rows and no values.
    seed
        Of the NumPy generators, >= 0.

    Returns
    -------
    InstrumentedTruth

    Raises
    ------
    ConfigurationError
        A parameter outside its range.

    Examples
    --------
    >>> instrumented_panel(n_periods=24, n_assets=50, live=1).panel
    Panel(25 periods 1980-01-31..1982-01-31, 50 assets, 1250 rows, 12 characteristics, excess_return, 'M')
    """
    _check(loadings, n_periods, n_assets, n_characteristics, live, seed, missing)
    if regimes and hidden_premia:
        raise ConfigurationError("regimes and hidden_premia are two laws of the same premia: choose one")
    rng = streams(seed, _STREAMS)
    T, N, P = n_periods + live, n_assets, n_characteristics
    z = _ranks(rng["characteristics"], T, N, P)
    level = _level(rng["level"], T) if peers else np.zeros(T)
    if peers:
        z[:, :, 4] = 0.5 * z[:, :, 4] + level[:, None]
    gamma = np.linalg.qr(rng["gamma"].normal(size=(P, 3)))[0]
    true = true_loadings(z, gamma, loadings, level).reshape(T * N, 3)
    factors, premia = _hidden(rng["factors"], T) if hidden_premia else _factors(rng["factors"], T, regimes)
    month = np.repeat(np.arange(T), N)
    expected = (true * factors[month]).sum(axis=1)
    forecast = (true * premia[month]).sum(axis=1)
    complete = expected + _NOISE * rng["noise"].normal(size=T * N)
    if null:
        complete[: n_periods * N] = rng["null"].permutation(complete[: n_periods * N])
        expected, forecast = np.zeros(T * N), np.zeros(T * N)
    unseen = (rng["hidden"].random(size=T * N) < missing) | (month >= n_periods)
    index = monthly_rows(np.ones((T, N), dtype=np.bool_), "1980-01")
    panel = Panel(
        times=index.times,
        assets=index.assets,
        offsets=index.offsets,
        asset_codes=index.asset_codes,
        values=np.where(unseen, np.nan, complete),
        frequency="M",
        characteristics=z.reshape(T * N, P),
        characteristic_names=tuple(f"z{j + 1}" for j in range(P)),
    )
    return InstrumentedTruth(
        panel=panel,
        loadings=true,
        factors=factors,
        premia=premia,
        gamma=gamma,
        expected=expected,
        forecast=forecast,
        complete=complete,
    )


def true_loadings(z: FloatArray, gamma: FloatArray, kind: Loading, level: FloatArray) -> FloatArray:
    """(T, N, 3) loadings of characteristics (T, N, P); `level` (T,) is what peers share, 0 without."""
    loadings = z @ gamma
    if kind == "gated":
        following = np.concatenate([z[..., 1:], np.zeros_like(z[..., :1])], axis=-1)
        loadings = 2.0 * (z / (1.0 + np.exp(-_STEEPNESS * following))) @ gamma
    elif kind == "crossed":
        for j in range(_FAR):
            loadings[..., j % 3] += _CROSS * z[..., j] * z[..., j + _FAR]
    elif kind == "nonlinear":
        bends = (z[..., 0] * z[..., 1], z[..., 2] ** 2 - 1.0 / 12.0, np.abs(z[..., 3]) - 0.25)
        loadings = loadings + _BEND * np.stack(bends, axis=-1)
    loadings[..., 0] += _PEER * level[:, None] * z[..., 0]
    return loadings


def _ranks(rng: np.random.Generator, T: int, N: int, P: int) -> FloatArray:
    path, ranked = rng.normal(size=(N, P)), np.empty((T, N, P))
    for t in range(T):
        if t:
            path = _AGING * path + np.sqrt(1.0 - _AGING**2) * rng.normal(size=(N, P))
        ranked[t] = period_ranks(path)
    return ranked


def _level(rng: np.random.Generator, T: int) -> FloatArray:
    shocks = rng.normal(size=T)
    for t in range(1, T):
        shocks[t] = _AGING * shocks[t - 1] + np.sqrt(1.0 - _AGING**2) * shocks[t]
    return np.clip(_LEVEL_SD * shocks, -_LEVEL_BOUND, _LEVEL_BOUND)


def _factors(rng: np.random.Generator, T: int, regimes: bool) -> tuple[FloatArray, FloatArray]:
    """(T, 3) realised factors and what was expected of them."""
    persistence = np.array(_PERSISTENCE)
    shocks = _SD * rng.normal(size=(T, 3))
    factors, premia = np.empty((T, 3)), np.empty((T, 3))
    premia[0], factors[0] = _MEAN, _MEAN + shocks[0] / np.sqrt(1.0 - persistence**2)
    for t in range(1, T):
        sign = -1.0 if regimes and (t // _REGIME) % 2 else 1.0
        premia[t] = _MEAN + sign * persistence * (factors[t - 1] - _MEAN)
        factors[t] = premia[t] + shocks[t]
    return factors, premia


def _hidden(rng: np.random.Generator, T: int) -> tuple[FloatArray, FloatArray]:
    """(T, 3) realised factors and what Kalman's filter expects of them, in units of the sd of u within.

    With m_t|t-1 of variance P: m_t|t = m_t|t-1 + P/(P + 1) (f_t - mu - m_t|t-1), a period on times .95.
    """
    shocks, news = rng.normal(size=(2, T, 3))
    path = first_order(np.sqrt(1.0 - _HIDDEN_AGING**2) * news, _HIDDEN_AGING)
    seen = _HIDDEN_SIZE * path + shocks
    expected, variance = np.zeros((T, 3)), _HIDDEN_SIZE**2
    for t in range(T - 1):
        gain = variance / (variance + 1.0)
        expected[t + 1] = _HIDDEN_AGING * (expected[t] + gain * (seen[t] - expected[t]))
        left = variance - gain * variance
        variance = _HIDDEN_AGING**2 * left + _HIDDEN_SIZE**2 * (1.0 - _HIDDEN_AGING**2)
    return _MEAN + _SD * seen, _MEAN + _SD * expected


def _check(
    loadings: str, n_periods: int, n_assets: int, n_characteristics: int, live: int, seed: int,
    missing: float,
) -> None:  # fmt: skip
    if loadings not in get_args(Loading):
        raise ConfigurationError(f"loadings must be one of {get_args(Loading)}, got {loadings!r}")
    least = {"n_periods": (n_periods, 2), "n_assets": (n_assets, 2), "live": (live, 0), "seed": (seed, 0)}
    least["n_characteristics"] = (n_characteristics, _FEWEST[loadings])
    for name, (value, lowest) in least.items():
        at_least(name, value, lowest)
    check_share(missing=missing)
