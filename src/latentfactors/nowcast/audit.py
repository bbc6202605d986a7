"""An audit of a vintage store: whether a vintage shows anything that was released later.

Every vintage is made twice, from the whole store and from a store that ends on its day, which cannot know
better: both have to be the same in every bit, transformations included. Where values are not transformed,
every cell is also compared with its last release by that day, line by line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from latentfactors.errors import PanelError
from latentfactors.nowcast.vintages import VintageStore
from latentfactors.panel import Panel
from latentfactors.periods import parse_times

__all__ = ["VintageAudit", "audit_vintages"]


@dataclass(frozen=True, kw_only=True)
class VintageAudit:
    """What an audit found.

    Attributes
    ----------
    n_vintages, n_cells
        Looked at.
    violations
        One sentence each, empty where no vintage shows a later release.
    """

    n_vintages: int
    n_cells: int
    violations: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no vintage shows a later release."""
        return not self.violations


def audit_vintages(store: VintageStore, dates: Sequence[Any] | None = None) -> VintageAudit:
    """Compare vintages with what a store that ends on their day would show.

    Parameters
    ----------
    store
        Any store.
    dates
        Days to look at; None: every day with a release from the first that shows a value.

    Raises
    ------
    PanelError
        A given day that shows no value.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {
    ...         "series": ["cpi", "cpi", "cpi"],
    ...         "period": ["2020-01-31", "2020-02-29", "2020-01-31"],
    ...         "release": ["2020-02-12", "2020-03-11", "2020-03-11"],
    ...         "value": [1.0, 1.2, 1.1],
    ...     }
    ... )
    >>> columns = {name: name for name in table.columns}
    >>> found = audit_vintages(VintageStore.from_long(table, **columns))
    >>> found.n_vintages, found.violations
    (2, ())
    """
    days = store.dates if dates is None else tuple(parse_times(list(dates), name="dates"))
    violations, n_vintages, n_cells = [], 0, 0
    for day in days:
        known = store.release <= day
        columns = {name: getattr(store, name)[known] for name in ("code", "period", "release", "value")}
        try:
            ended = replace(store, **columns).as_of(day)
        except PanelError:
            # the first days may not have what a transformation needs
            if dates is not None:
                raise
            continue
        shown = store.as_of(day)
        n_vintages, n_cells = n_vintages + 1, n_cells + int(shown.observed.sum())
        wrong = _difference(shown, ended)
        if not wrong and not store.codes:
            wrong = _last_releases(store, known, shown)
        if wrong:
            violations.append(f"vintage of {day}: {wrong}")
    return VintageAudit(n_vintages=n_vintages, n_cells=n_cells, violations=tuple(violations))


def _difference(shown: Panel, ended: Panel) -> str:
    """The first difference between two panels in words, "" where there is none."""
    if not np.array_equal(shown.times, ended.times):
        return f"its periods end in {shown.times[-1]}, known by then were those to {ended.times[-1]}"
    if not np.array_equal(shown.assets, ended.assets):
        extra = sorted(set(map(str, shown.assets)) ^ set(map(str, ended.assets)))
        return f"its series differ from those known by then in {extra[0]!r}"
    first, second = shown.wide(), ended.wide()
    differs = (first != second) & ~(np.isnan(first) & np.isnan(second))
    if not differs.any():
        return ""
    t, k = np.argwhere(differs)[0]
    return f"{shown.assets[k]!s} of {shown.times[t]} is {first[t, k]:g}, known by then was {second[t, k]:g}"


def _last_releases(store: VintageStore, known: Any, shown: Panel) -> str:
    last: dict[tuple[str, Any], float] = {}
    labels = store.series.tolist()
    for code, period, value in zip(
        store.code[known].tolist(), store.period[known], store.value[known].tolist(), strict=True
    ):
        last[str(labels[code]), period] = value
    wide = shown.wide()
    for t, period in enumerate(shown.times):
        for k, label in enumerate(shown.assets):
            truth = last.get((str(label), period), np.nan)
            if wide[t, k] != truth and not (np.isnan(wide[t, k]) and np.isnan(truth)):
                return f"{label!s} of {period} is {wide[t, k]:g}, its last release by then {truth:g}"
    return ""
