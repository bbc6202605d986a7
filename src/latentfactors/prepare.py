"""Preparation of characteristics and values: pure functions from a panel to a new panel.

Every step works period by period on what stands in that period, so nothing looks ahead, and adds one entry to
`panel.transforms`, so a fitted model can refuse a panel prepared otherwise. The input panel is never written
to. Float32 characteristics stay float32 (the arithmetic is float64), and a step keeps one new copy of them
and no more.

| function           | a characteristic becomes                        | missing characteristics |
|--------------------|-------------------------------------------------|-------------------------|
| `rank_standardise` | (rank - 1)/(n - 1) - 1/2, in [-1/2, 1/2]        | 0, the middle           |
| `zscore`           | (c - mean)/sd                                   | stay missing            |
| `winsorise`        | c, at most a quantile or bound                  | stay missing            |
| `fill_missing`     | c                                               | median, 0, or no row    |
| `neutralise`       | c - mean of its group                           | stay missing            |
| `add_constant`     | c, with a column of ones behind                 | stay missing            |

References       Kelly, Pruitt & Su (2019), JFE 134(3), and Gu, Kelly & Xiu (2020), RFS 33(5): cross-sectional
                 ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.derive import take_rows
from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.kernels.cross_section import demean_groups, period_quantiles, period_ranks, period_zscores
from latentfactors.panel import Panel
from latentfactors.validate import count

__all__ = [
    "add_constant",
    "fill_missing",
    "neutralise",
    "rank_standardise",
    "winsorise",
    "zscore",
]

FloatArray = npt.NDArray[np.float64]


def rank_standardise(panel: Panel) -> Panel:
    """Replace every characteristic by its rank in the cross-section: (rank - 1)/(n - 1) - 1/2.

    The rank runs over the period's n non-missing rows, 1 for the smallest; equal values share the mean of
    their ranks. Missing characteristics, and a period with one value, become 0: the middle. Units, outliers
    and the drift of a characteristic over time are gone; use `zscore` where distances should stay.

    Parameters
    ----------
    panel
        With characteristics (R, L).

    Returns
    -------
    Panel
        Characteristics (R, L) in [-0.5, 0.5], complete; transform "rank_standardise".

    Raises
    ------
    PanelError
        A panel without characteristics.

    Examples
    --------
    >>> sizes = np.array([[[10.0], [30.0], [np.nan], [20.0]]])
    >>> panel = Panel.from_arrays(np.zeros((1, 4)), sizes, characteristic_names=["size"])
    >>> ranked = rank_standardise(panel)
    >>> ranked.characteristics[:, 0], ranked.transforms
    (array([-0.5,  0.5,  0. ,  0. ]), ('rank_standardise',))
    """
    return _changed(panel, _each_period(panel, "rank_standardise", period_ranks), "rank_standardise")


def zscore(panel: Panel) -> Panel:
    """Centre every characteristic on the period's mean and divide by its standard deviation (ddof 0).

    Missing characteristics stay missing; one that is constant over a period becomes 0 there.

    Parameters
    ----------
    panel
        With characteristics (R, L).

    Returns
    -------
    Panel
        Characteristics (R, L) in standard deviations; transform "zscore".

    Raises
    ------
    PanelError
        A panel without characteristics.

    Examples
    --------
    >>> sizes = np.array([[[1.0], [2.0], [np.nan], [3.0]]])
    >>> panel = Panel.from_arrays(np.zeros((1, 4)), sizes, characteristic_names=["size"])
    >>> zscore(panel).characteristics[:, 0].round(3)
    array([-1.225,  0.   ,    nan,  1.225])
    """
    return _changed(panel, _each_period(panel, "zscore", period_zscores), "zscore")


def winsorise(
    panel: Panel,
    limits: tuple[float, float] = (0.01, 0.99),
    bounds: tuple[float, float] | None = None,
    of: Literal["characteristics", "values"] = "characteristics",
) -> Panel:
    """Pull extremes in to the period's quantiles, or to fixed bounds.

    Parameters
    ----------
    panel
        With characteristics (R, L) where `of="characteristics"`.
    limits
        Lower and upper probability, 0 <= lower < upper <= 1. The quantiles are those of the period's
        non-missing rows, linearly interpolated.
    bounds
        Lower and upper bound in the units of what is winsorised, the same for every period and column;
        infinite for one-sided. They take the place of `limits`.
    of
        "characteristics", or "values": training on winsorised values is a choice that a report should show,
        and accuracy should still be judged on the values as they were.

    Returns
    -------
    Panel
        Missing stays missing; transform such as "winsorise(limits=(0.01, 0.99))".

    Raises
    ------
    PanelError
        A panel without characteristics.
    ConfigurationError
        Limits or bounds that are not a rising pair, an unknown `of`.

    Examples
    --------
    >>> panel = Panel.from_arrays([[0.01, -0.02, 0.03, 4.0]])
    >>> winsorise(panel, bounds=(-0.5, 0.5), of="values").wide()
    array([[ 0.01, -0.02,  0.03,  0.5 ]])
    """
    if bounds is not None:
        low, high = _rising_pair(bounds, "bounds", -np.inf, np.inf)
        text = f"bounds=({low:g}, {high:g})"
    else:
        low, high = _rising_pair(limits, "limits", 0.0, 1.0)
        text = f"limits=({low:g}, {high:g})"

    def clip(block: npt.NDArray[Any]) -> FloatArray:
        lower, upper = (low, high) if bounds is not None else period_quantiles(block, (low, high))
        return np.clip(block.astype(np.float64), lower, upper)

    if of == "characteristics":
        return _changed(panel, _each_period(panel, "winsorise", clip), f"winsorise({text})")
    if of != "values":
        raise ConfigurationError(f"of must be 'characteristics' or 'values', got {of!r}")
    values = np.empty_like(panel.values)
    for rows in _filled_periods(panel):
        values[rows] = clip(panel.values[rows, None])[:, 0]
    return replace(panel, values=values, transforms=(*panel.transforms, f"winsorise({text}, of='values')"))


def fill_missing(panel: Panel, how: Literal["median", "zero", "drop"] = "median") -> Panel:
    """Fill missing characteristics, or leave their rows out.

    Parameters
    ----------
    panel
        With characteristics (R, L).
    how
        "median": the period's median of the column; where a period has none, the cells stay missing and are
        counted in `notes`. "zero": 0, the middle of centred characteristics. "drop": rows with any missing
        characteristic are left out and counted in `notes`; such an asset has no forecast in that period.

    Returns
    -------
    Panel
        Transform such as "fill_missing('median')".

    Raises
    ------
    PanelError
        A panel without characteristics; "drop" that leaves no row.
    ConfigurationError
        An unknown `how`.

    Examples
    --------
    >>> sizes = np.array([[[1.0], [2.0], [np.nan], [3.0]]])
    >>> panel = Panel.from_arrays(np.zeros((1, 4)), sizes, characteristic_names=["size"])
    >>> fill_missing(panel, "median").characteristics[:, 0]
    array([1., 2., 2., 3.])
    >>> fill_missing(panel, "drop").notes
    ("fill_missing('drop') left out 1 row with 1 observed value",)
    """
    step = f"fill_missing({how!r})"
    if how == "drop":
        return _drop_incomplete(panel, step)
    if how not in ("median", "zero"):
        raise ConfigurationError(f"how must be 'median', 'zero' or 'drop', got {how!r}")

    def fill(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        value = period_quantiles(block, (0.5,))[0] if how == "median" else 0.0
        return np.where(np.isnan(block), value, block)

    filled = _each_period(panel, "fill_missing", fill)
    left = sum(int(np.isnan(filled[rows]).sum()) for rows in _filled_periods(panel))
    notes = [f"{step} left {count(left, 'cell')} missing, in periods where nothing is observed"] * (left > 0)
    return replace(_changed(panel, filled, step), notes=(*panel.notes, *notes))


def add_constant(panel: Panel) -> Panel:
    """Append a characteristic "constant" that is 1 in every row.

    With it an instrumented model has a loading that all assets share, so that one factor can be the market.

    Parameters
    ----------
    panel
        With or without characteristics.

    Returns
    -------
    Panel
        Characteristics (R, L + 1), the constant last; transform "add_constant".

    Raises
    ------
    PanelError
        A panel that has a constant already: a column of this name, or one with the same number in every row.

    Examples
    --------
    >>> panel = add_constant(Panel.from_arrays([[0.01, -0.02]]))
    >>> panel.characteristic_names, panel.characteristics[:, 0]
    (('constant',), array([1., 1.]))
    """
    old = panel.characteristics if panel.characteristics is not None else np.empty((panel.n_rows, 0))
    for name, column in zip(panel.characteristic_names, old.T, strict=True):
        same = column.size > 1 and column[0] != 0 and bool(np.all(column == column[0]))
        if name == "constant" or same:
            raise PanelError(
                f"the panel has a constant characteristic already, {name!r}: a second one would make the "
                "characteristics collinear, leave out add_constant"
            )
    wider = np.empty((panel.n_rows, old.shape[1] + 1), dtype=old.dtype)
    wider[:, :-1], wider[:, -1] = old, 1.0
    return replace(
        panel,
        characteristics=wider,
        characteristic_names=(*panel.characteristic_names, "constant"),
        transforms=(*panel.transforms, "add_constant"),
    )


def neutralise(panel: Panel, groups: str | Sequence[str]) -> Panel:
    """Subtract from every characteristic the mean of its group in the period: value within sector, say.

    Parameters
    ----------
    panel
        With characteristics (R, L) and attributes.
    groups
        Name of an attribute, or of several: then a group is a combination (sector by country). Rows of
        unknown category are a group of their own.

    Returns
    -------
    Panel
        Characteristics (R, L) with group means 0, missing ones still missing; an asset alone in its group has
        0. Transform such as "neutralise(sector)".

    Raises
    ------
    PanelError
        A panel without characteristics or without such an attribute.
    ConfigurationError
        No attribute named.

    Examples
    --------
    >>> from latentfactors.rows import Attribute
    >>> sizes = np.array([[[1.0], [3.0], [10.0]]])
    >>> panel = Panel.from_arrays(np.zeros((1, 3)), sizes, characteristic_names=["size"])
    >>> panel = replace(panel, attributes={"sector": Attribute([0, 0, 1], ("energy", "health"))})
    >>> neutralise(panel, "sector").characteristics[:, 0]
    array([-1.,  1.,  0.])
    """
    names = (groups,) if isinstance(groups, str) else tuple(groups)
    characteristics = _characteristics(panel, "neutralise")
    codes = _group_codes(panel, names)
    out = np.empty_like(characteristics)
    for rows in _filled_periods(panel):
        out[rows] = demean_groups(characteristics[rows].astype(np.float64), codes[rows])
    return _changed(panel, out, f"neutralise({', '.join(names)})")


# ------------------------------------------------------------ one period's cross-section, (n, L) arrays


def _each_period(
    panel: Panel, who: str, function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """(R, L) the function of every period's characteristics, in their own precision."""
    characteristics = _characteristics(panel, who)
    out = np.empty_like(characteristics)
    for rows in _filled_periods(panel):
        out[rows] = function(characteristics[rows])
    return out


def _filled_periods(panel: Panel) -> list[slice]:
    bounds = panel.offsets.tolist()
    return [slice(a, b) for a, b in pairwise(bounds) if b > a]


def _changed(panel: Panel, characteristics: npt.NDArray[Any], step: str) -> Panel:
    return replace(panel, characteristics=characteristics, transforms=(*panel.transforms, step))


def _characteristics(panel: Panel, who: str) -> npt.NDArray[Any]:
    if panel.characteristics is None or not panel.characteristic_names:
        raise PanelError(
            f"{who} needs characteristics, this panel has none: name them when building the panel, or call "
            "characteristics_from_returns first"
        )
    return panel.characteristics


def _drop_incomplete(panel: Panel, step: str) -> Panel:
    characteristics = _characteristics(panel, "fill_missing")
    complete = np.empty(panel.n_rows, dtype=bool)
    for rows in _filled_periods(panel):
        complete[rows] = ~np.isnan(characteristics[rows]).any(axis=1)
    kept = np.flatnonzero(complete)
    if panel.n_rows and not kept.size:
        shares = np.isnan(characteristics).mean(axis=0)
        worst = int(shares.argmax())
        raise PanelError(
            f"{step} would leave no row: every row has a missing characteristic, most of all "
            f"{panel.characteristic_names[worst]!r} ({shares[worst]:.0%} missing): use 'median' or 'zero'"
        )
    offsets = np.concatenate([[0], np.cumsum(complete)])[panel.offsets]
    changes = take_rows(panel, kept, panel.asset_codes[kept], offsets)
    dropped, values = panel.n_rows - kept.size, int((panel.observed & ~complete).sum())
    notes = [f"{step} left out {count(dropped, 'row')} with {count(values, 'observed value')}"] * (
        dropped > 0
    )
    return replace(panel, **changes, transforms=(*panel.transforms, step), notes=(*panel.notes, *notes))


def _group_codes(panel: Panel, names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """(R,) one number per combination of categories; an unknown category counts as one."""
    if not names:
        raise ConfigurationError("groups must name at least one attribute, got none")
    codes = np.zeros(panel.n_rows, dtype=np.int64)
    for name in names:
        if name not in panel.attributes:
            raise PanelError(
                f"groups names {name!r}, which is no attribute of this panel: it has "
                f"{', '.join(panel.attributes) or 'none'}; add it with with_attributes"
            )
        attribute = panel.attributes[name]
        by_row = attribute.codes if attribute.by == "row" else attribute.codes[panel.asset_codes]
        codes = codes * (len(attribute.categories) + 1) + by_row + 1
    return codes


def _rising_pair(pair: Any, name: str, lowest: float, highest: float) -> tuple[float, float]:
    try:
        low, high = (float(each) for each in pair)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name} must be a pair of numbers (lower, upper), got {pair!r}") from None
    if not lowest <= low < high <= highest:
        raise ConfigurationError(
            f"{name} must satisfy {lowest:g} <= lower < upper <= {highest:g}, got {pair!r}"
        )
    return low, high
