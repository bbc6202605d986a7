"""What the simulated processes share: random streams, autoregressive paths, lives, rows, and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.periods import Frequency, period_end
from latentfactors.rows import RowIndex

__all__ = ["check_correlation", "check_share", "first_order", "lives", "monthly_rows", "rows_of", "streams"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def streams(seed: int, names: Sequence[str]) -> dict[str, np.random.Generator]:
    """A generator for each part of a process: another share of hidden cells leaves the rest as it was."""
    children = np.random.SeedSequence(seed).spawn(len(names))
    return {name: np.random.default_rng(child) for name, child in zip(names, children, strict=True)}


def first_order(innovations: npt.ArrayLike, coefficient: Any) -> FloatArray:
    """x_t = a x_(t-1) + u_t along the first axis, stationary: x_1 = u_1 / sqrt(1 - a^2).

    Parameters
    ----------
    innovations : (T, ...)
    coefficient
        a in (-1, 1), a number or one per column.
    """
    paths = np.array(innovations, dtype=np.float64)
    a = np.asarray(coefficient, dtype=np.float64)
    paths[0] /= np.sqrt(1.0 - a**2)
    for t in range(1, len(paths)):
        paths[t] += a * paths[t - 1]
    return paths


def lives(rng: np.random.Generator, n_periods: int, live: int, n_assets: int, n_partial: int) -> BoolArray:
    """(n_periods + live, N) whether an asset is in the universe.

    `n_partial` assets start in a uniformly drawn period and end in one drawn uniformly from the rest; who is
    alive at the end of `n_periods` stays for the live periods.
    """
    start, stop = np.zeros(n_assets, dtype=np.int64), np.full(n_assets, n_periods)
    who = rng.permutation(n_assets)[:n_partial]
    start[who] = rng.integers(0, n_periods, size=n_partial)
    stop[who] = rng.integers(start[who] + 1, n_periods + 1)
    stop[stop == n_periods] = n_periods + live
    period = np.arange(n_periods + live)[:, None]
    return (start <= period) & (period < stop)


def monthly_rows(alive: BoolArray, first: str) -> RowIndex:
    """The rows of a universe of months from `first` ("1990-01") on; assets are A000, A001, ..."""
    months = (np.datetime64(first) + np.arange(len(alive)).astype("timedelta64[M]")).astype("datetime64[D]")
    return rows_of(alive, period_end(months, "M"), "A", "M")


def rows_of(alive: BoolArray, times: npt.NDArray[Any], letter: str, frequency: Frequency) -> RowIndex:
    """The rows of a universe (T, N) at given times; assets are a letter and a number."""
    n_assets = alive.shape[1]
    width = len(str(n_assets - 1))
    return RowIndex(
        times=times,
        assets=np.array([f"{letter}{i:0{width}d}" for i in range(n_assets)]),
        offsets=np.concatenate([[0], np.cumsum(alive.sum(axis=1))]),
        asset_codes=np.nonzero(alive)[1].astype(np.int32),
        frequency=frequency,
    )


def check_share(**shares: float) -> None:
    """Refuse what is not in [0, 1)."""
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ConfigurationError(f"{name} must be a share in [0, 1), got {share!r}")


def check_correlation(**coefficients: float) -> None:
    """Refuse what is not in (-1, 1)."""
    for name, coefficient in coefficients.items():
        if not -1 < coefficient < 1:
            raise ConfigurationError(f"{name} must lie in (-1, 1), got {coefficient!r}")
