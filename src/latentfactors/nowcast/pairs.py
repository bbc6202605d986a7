"""Two vintages on one grid of periods and series, and which cells differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import PanelMismatchError
from latentfactors.panel import Panel
from latentfactors.periods import is_date, period_range, shift
from latentfactors.rows import SeriesInfo

__all__ = ["VintagePair", "pair_vintages"]

FloatArray = npt.NDArray[np.float64]
Places = list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class VintagePair:
    """Values of both vintages on the union of their periods and series.

    Attributes
    ----------
    template : panel of the grid, all cells rows
    old, new : (T, N) values
    new_series, dropped_series : positions of series that only one vintage has
    """

    template: Panel
    old: FloatArray
    new: FloatArray
    new_series: frozenset[int]
    dropped_series: frozenset[int]

    @property
    def series(self) -> npt.NDArray[Any]:
        """(N,) labels."""
        return self.template.assets

    @property
    def times(self) -> npt.NDArray[Any]:
        """(T,) periods."""
        return self.template.times

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Group of every series, "" where none is stated."""
        info = self.template.series
        return ("",) * self.series.size if info is None else info.group

    def panel(self, values: FloatArray) -> Panel:
        """The grid with other values (T, N)."""
        return self.template.with_values(self.template.index.gather(values))

    def spread(self, rows: FloatArray) -> FloatArray:
        """(T, N) of (R,) row values."""
        return self.template.index.dense(rows)

    @cached_property
    def withdrawn(self) -> Places:
        """Cells that only the old vintage has."""
        return _places(np.isfinite(self.old) & ~np.isfinite(self.new))

    @cached_property
    def released(self) -> Places:
        """Cells that only the new vintage has."""
        return _places(np.isfinite(self.new) & ~np.isfinite(self.old))

    @cached_property
    def revised(self) -> Places:
        """Cells that both have, with different values."""
        return _places(np.isfinite(self.old) & np.isfinite(self.new) & (self.old != self.new))

    @cached_property
    def common(self) -> FloatArray:
        """Old values of the cells that both have."""
        return np.where(np.isfinite(self.new), self.old, np.nan)

    @cached_property
    def revised_common(self) -> FloatArray:
        """New values of the cells that both have."""
        return np.where(np.isfinite(self.old), self.new, np.nan)


def pair_vintages(old: Panel, new: Panel, last: Any) -> VintagePair:
    """Both vintages on one grid that reaches to period `last`.

    Raises
    ------
    PanelMismatchError
        Another frequency, kind or preparation; a series whose own frequency or aggregation changed.
    """
    for name in ("frequency", "value_kind", "transforms"):
        if getattr(old, name) != getattr(new, name):
            raise PanelMismatchError(
                f"the vintages differ in {name}: {getattr(old, name)!r} and {getattr(new, name)!r}; prepare "
                "both alike"
            )
    if old.assets.dtype.kind != new.assets.dtype.kind or old.times.dtype.kind != new.times.dtype.kind:
        raise PanelMismatchError("the vintages have labels or periods of different types: build both alike")
    labels = new.assets.tolist()
    labels += [each for each in old.assets.tolist() if each not in set(labels)]
    infos = [_described(panel) for panel in (new, old)]
    _check_info(*infos)
    grid = _grid(old, new, last)
    values = []
    for panel in (old, new):
        wide = np.full((grid.size, len(labels)), np.nan)
        columns = [labels.index(each) for each in panel.assets.tolist()]
        wide[np.ix_(np.searchsorted(grid, panel.times), columns)] = panel.wide()
        values.append(wide)
    series = None
    if new.series is not None or old.series is not None:
        described = {**infos[1], **infos[0]}
        fields = ("frequency", "transformation", "aggregation", "publication_lag", "group", "description")
        columns_of = zip(*(described[label] for label in labels), strict=True)
        series = SeriesInfo(**dict(zip(fields, columns_of, strict=True)))
    template = Panel.from_wide(
        np.where(np.isfinite(values[1]), values[1], values[0]),
        universe="all",
        times=grid,
        assets=np.array(labels, dtype=np.int64 if new.assets.dtype.kind == "i" else str),
        frequency=new.frequency,
        value_kind=new.value_kind,
        series=series,
    )
    template = replace(template, transforms=new.transforms)
    known_old = {k for k, label in enumerate(labels) if label in set(old.assets[old.active_assets].tolist())}
    known_new = {k for k, label in enumerate(labels) if label in set(new.assets[new.active_assets].tolist())}
    return VintagePair(
        template, values[0], values[1], frozenset(known_new - known_old), frozenset(known_old - known_new)
    )


def _grid(old: Panel, new: Panel, last: Any) -> npt.NDArray[Any]:
    times = np.union1d(old.times, new.times)
    if not is_date(times):
        return np.arange(times[0], max(times[-1], last) + 1)
    if new.frequency in ("M", "Q", "W"):
        return period_range(times[0], max(times[-1], last), new.frequency)
    while times[-1] < last:
        times = np.append(times, shift(times[-1:], 1, new.frequency))
    return times


def _described(panel: Panel) -> dict[Any, tuple[Any, ...]]:
    info = panel.series
    if info is None:
        return {}
    columns = zip(
        info.frequency, info.transformation, info.aggregation, info.publication_lag, info.group,
        info.description, strict=True,
    )  # fmt: skip
    return dict(zip(panel.assets.tolist(), columns, strict=True))


def _check_info(new: dict[Any, tuple[Any, ...]], old: dict[Any, tuple[Any, ...]]) -> None:
    for label in new.keys() & old.keys():
        if new[label][:3] != old[label][:3]:
            raise PanelMismatchError(
                f"series {label!r} has (frequency, transformation, aggregation) {old[label][:3]} in the old "
                f"vintage and {new[label][:3]} in the new one: label it alike"
            )


def _places(cells: npt.NDArray[np.bool_]) -> Places:
    return [(int(t), int(i)) for t, i in np.argwhere(cells)]
