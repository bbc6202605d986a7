"""The best of many forecasts: bootstrap tests on tables of losses, through `arch`.

Confidence set   the models that remain when the worst is removed as long as equal accuracy is rejected
SPA              superior predictive ability: is the best of several better than a benchmark, or only lucky

References: Hansen (2005), JBES 23(4), 365-380; Hansen, Lunde & Nason (2011), Econometrica 79(2), 453-497;
Politis & Romano (1994), JASA 89(428) (the stationary bootstrap).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, MissingCapabilityError
from latentfactors.estimator import at_least

__all__ = ["ConfidenceSet", "model_confidence_set", "superior_predictive_ability"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ConfidenceSet:
    """The models that the best one cannot be told from.

    Attributes
    ----------
    included
        Names, best mean loss first.
    p_values
        Name -> p-value: a model is included where it exceeds `size`.
    size, n_periods
        1 - confidence, periods used.
    """

    included: tuple[str, ...]
    p_values: Mapping[str, float]
    size: float
    n_periods: int


def model_confidence_set(
    losses: Mapping[str, npt.ArrayLike],
    *,
    size: float = 0.1,
    block_size: int | None = None,
    reps: int = 1000,
    seed: int = 0,
) -> ConfidenceSet:
    """The set that holds the best of several forecasts with probability 1 - size.

    Parameters
    ----------
    losses
        Name -> (T,) losses of the same periods, lower is better.
    size
        In (0, 1).
    block_size
        Mean block of the stationary bootstrap; None: ceil(sqrt(T)).
    reps, seed
        Bootstrap draws and their seed.

    Raises
    ------
    MissingCapabilityError
        Without `arch`.
    ConfigurationError, InsufficientDataError
        Fewer than two models, arrays of several lengths; fewer than ten common periods.
    """
    bootstrap = _arch()
    names, table = _loss_table(losses)
    _check_draws(size, block_size, reps, seed)
    block = block_size or int(np.ceil(np.sqrt(len(table))))
    found = bootstrap.MCS(
        table, size=size, reps=reps, block_size=block, method="R", bootstrap="stationary", seed=seed
    )
    found.compute()
    values = {names[int(model)]: float(p) for model, p in found.pvalues["Pvalue"].items()}
    order = [names[j] for j in np.argsort(table.mean(axis=0), kind="stable")]
    return ConfidenceSet(
        included=tuple(name for name in order if values[name] > size),
        p_values={name: values[name] for name in order},
        size=size,
        n_periods=len(table),
    )


def superior_predictive_ability(
    benchmark: npt.ArrayLike,
    losses: Mapping[str, npt.ArrayLike],
    *,
    block_size: int | None = None,
    reps: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Test that none of several forecasts beats a benchmark, taking account of how many were tried.

    Parameters
    ----------
    benchmark : (T,) losses
    losses, block_size, reps, seed
        As in `model_confidence_set`; one model is enough.

    Returns
    -------
    dict
        p-values "lower", "consistent", "upper" of Hansen (2005); a small one: at least one model is better.

    Raises
    ------
    MissingCapabilityError, ConfigurationError, InsufficientDataError
        As in `model_confidence_set`.
    """
    bootstrap = _arch()
    _, table = _loss_table(
        {"benchmark": benchmark, **{f"model {name}": each for name, each in losses.items()}}
    )
    _check_draws(0.1, block_size, reps, seed)
    block = block_size or int(np.ceil(np.sqrt(len(table))))
    found = bootstrap.SPA(table[:, 0], table[:, 1:], block_size=block, reps=reps, seed=seed)
    found.compute()
    return {name: float(p) for name, p in found.pvalues.items()}


# ------------------------------------------------------------------------------------------- the parts


def _arch() -> Any:
    try:
        return importlib.import_module("arch.bootstrap")
    except ImportError as error:
        raise MissingCapabilityError(
            "the model confidence set and the SPA test use arch, which is not installed: "
            "pip install 'latentfactors[pricing]'"
        ) from error


def _loss_table(losses: Mapping[str, npt.ArrayLike]) -> tuple[list[str], FloatArray]:
    names, columns = list(losses), [np.asarray(each, dtype=np.float64) for each in losses.values()]
    if len(names) < 2 or any(each.ndim != 1 or each.shape != columns[0].shape for each in columns):
        shapes = ", ".join(f"{name} {each.shape}" for name, each in zip(names, columns, strict=True))
        raise ConfigurationError(f"expected (T,) losses of two models or more, of one length, got {shapes}")
    table = np.column_stack(columns)
    table = table[np.isfinite(table).all(axis=1)]
    if len(table) < 10:
        raise InsufficientDataError(f"a bootstrap needs 10 periods with all losses, got {len(table)}")
    return names, table


def _check_draws(size: float, block_size: int | None, reps: int, seed: int) -> None:
    if not 0 < size < 1:
        raise ConfigurationError(f"size must lie in (0, 1), got {size!r}")
    if block_size is not None:
        at_least("block_size", block_size, 1)
    at_least("reps", reps, 100)
    at_least("seed", seed, 0)
