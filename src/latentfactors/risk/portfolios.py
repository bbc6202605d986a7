"""Portfolios and factor families, named: what the rest of `risk` takes and how it is checked.

A portfolio is a mapping asset -> weight (an asset that is not named is not held) or an array in the order of
a state's assets. Whatever does not fit is refused with the names that do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelMismatchError
from latentfactors.results import AssetWeightsResult
from latentfactors.state import LatentFactorState, latent_names
from latentfactors.validate import count

__all__ = [
    "HeldRows",
    "Weights",
    "aligned",
    "group_sums",
    "held_rows",
    "over_universe",
    "resolve_families",
    "rotation_remark",
    "sum_by",
]

FloatArray = npt.NDArray[np.float64]
Weights = Mapping[Any, float] | npt.ArrayLike
_SHOWN = 5


def over_universe(weights: Weights, universe: npt.NDArray[Any], what: str = "weights") -> FloatArray:
    """(M,) weights in the order of `universe`.

    Raises
    ------
    PanelMismatchError
        Unknown assets, an array of another length, weights that are not finite.
    """
    if isinstance(weights, Mapping):
        place = {label: i for i, label in enumerate(universe.tolist())}
        labels = [label.item() if isinstance(label, np.generic) else label for label in weights]
        unknown = [label for label in labels if label not in place]
        if unknown:
            raise PanelMismatchError(
                f"{what} name {count(len(unknown), 'asset')} that the state does not have: "
                f"{_names(unknown)}; its {len(universe):,} labels look like {_names(universe.tolist()[:2])}"
            )
        full = np.zeros(len(universe))
        full[[place[label] for label in labels]] = _numbers(list(weights.values()), what)
    else:
        full = _numbers(weights, what)
        if full.shape != (len(universe),):
            raise PanelMismatchError(
                f"{what} must be a mapping asset -> weight or have one entry for each of the state's "
                f"{len(universe):,} assets, got shape {full.shape}"
            )
    bad = ~np.isfinite(full)
    if bad.any():
        raise PanelMismatchError(
            f"{what} must be finite, got {full[bad][0]} for {_names(universe[bad].tolist())}: 0 is not held"
        )
    return full


def aligned(
    weights: Weights, assets: npt.NDArray[Any], universe: npt.NDArray[Any] | None, what: str = "weights"
) -> FloatArray:
    """(N,) weights in the order of `assets`, which are a part of `universe` (None: all of it).

    Raises
    ------
    PanelMismatchError
        As `over_universe`; weight on assets of the universe that are not among `assets`.
    """
    if universe is None:
        return over_universe(weights, assets, what)
    full = over_universe(weights, universe, what)
    place = {label: i for i, label in enumerate(universe.tolist())}
    codes = np.array([place[label] for label in assets.tolist()], dtype=np.int64)
    outside = full != 0
    outside[codes] = False
    if outside.any():
        raise PanelMismatchError(
            f"{what} hold {count(int(outside.sum()), 'asset')} without a covariance in this period (no row, "
            f"or no loadings): {_names(universe[outside].tolist())}; leave them out or give them loadings"
        )
    return full[codes]


def resolve_families(names: Sequence[str], given: Mapping[str, str] | None) -> dict[str, str]:
    """Factor name -> family: what was given, else the part of the name before "=", else the name itself.

    Raises
    ------
    ConfigurationError
        Families for factors that do not exist.

    Examples
    --------
    >>> resolve_families(["market", "country=FR", "country=IT", "HML"], {"HML": "style"})
    {'market': 'market', 'country=FR': 'country', 'country=IT': 'country', 'HML': 'style'}
    """
    stated = dict(given or {})
    unknown = [name for name in stated if name not in names]
    if unknown:
        raise ConfigurationError(
            f"families name factors that do not exist: {_names(unknown)}; the factors are {_names(names)}"
        )
    return {name: stated.get(name, name.split("=", 1)[0]) for name in names}


def rotation_remark(names: Sequence[str]) -> str:
    """What has to be said about contributions of latent factors; "" where every factor has a meaning.

    Models call factors F1, F2, ... (common 1, common 2, ... beside named ones) when only their span is in the
    data. With one of them nothing is open but its sign, which contributions do not have.

    Examples
    --------
    >>> rotation_remark(("market", "country=FR", "F1"))
    ''
    >>> rotation_remark(("F1", "F2", "Mkt-RF"))[:39]
    'F1, F2 are known up to a rotation: what'
    """
    latent = [name for name, is_latent in zip(names, latent_names(names), strict=True) if is_latent]
    if len(latent) < 2:
        return ""
    return (
        f"{_names(latent)} are known up to a rotation: what each contributes depends on the model's choice "
        "of axes (see its identification); their sum, and systematic against specific, do not"
    )


def group_sums(values: FloatArray, labels: Sequence[str]) -> tuple[tuple[str, ...], FloatArray]:
    """Names in order of first appearance and sums of the last axis of `values` (..., K) over K labels."""
    names = tuple(dict.fromkeys(labels))
    sums = np.zeros((*values.shape[:-1], len(names)))
    for k, label in enumerate(labels):
        sums[..., names.index(label)] += values[..., k]
    return names, sums


@dataclass(frozen=True, eq=False)
class HeldRows:
    """Weights by row (R,), and |weight| by period (T,) on assets that have no row there."""

    rows: FloatArray
    outside: FloatArray


def held_rows(weights: Any, state: LatentFactorState, what: str = "weights") -> HeldRows:
    """Weights by row: a mapping or (N,) for every period, (T, N), or an `AssetWeightsResult` of horizon 1.

    Raises
    ------
    PanelMismatchError
        As `over_universe`; weights of other rows or another shape.
    """
    index = state.index
    if isinstance(weights, AssetWeightsResult):
        same = weights.horizon == 1 and np.array_equal(weights.index.offsets, index.offsets)
        if not (
            same
            and np.array_equal(weights.index.assets, index.assets)
            and np.array_equal(weights.index.times, index.times)
            and np.array_equal(weights.index.asset_codes, index.asset_codes)
        ):
            raise PanelMismatchError(
                f"{what} must have the state's rows and horizon 1, got {weights.index!r}"
            )
        return HeldRows(np.nan_to_num(weights.weights), np.zeros(index.n_periods))
    dated = None if isinstance(weights, Mapping) else np.asarray(weights)
    if dated is not None and dated.ndim == 2:
        if dated.shape != (index.n_periods, index.n_assets) or not np.isfinite(dated).all():
            raise PanelMismatchError(
                f"{what} by period must be finite and of shape (T, N) = ({index.n_periods}, "
                f"{index.n_assets}), got shape {dated.shape}: 0 is not held"
            )
        rows = index.gather(dated.astype(np.float64))
        gross = np.abs(dated).sum(axis=1)
    else:
        constant = over_universe(weights, index.assets, what)
        rows, gross = constant[index.asset_codes], np.full(index.n_periods, np.abs(constant).sum())
    inside = sum_by(index.period_codes, np.abs(rows), index.n_periods)
    return HeldRows(rows, np.maximum(gross - inside, 0.0))


def sum_by(codes: npt.NDArray[Any], values: FloatArray, n: int) -> FloatArray:
    """(n,) sums of values over equal codes."""
    return np.bincount(codes, values, n).astype(np.float64, copy=False)


def _numbers(values: Any, what: str) -> FloatArray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PanelMismatchError(f"{what} must be numbers: {error}") from error


def _names(labels: Sequence[Any]) -> str:
    shown = ", ".join(str(label) for label in labels[:_SHOWN])
    return shown if len(labels) <= _SHOWN else f"{shown} and {len(labels) - _SHOWN:,} more"
