"""What a vintage store does with tables of releases and with whole panels before it holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.panel import Panel
from latentfactors.periods import Frequency, first_offenders, shift
from latentfactors.rows import SeriesInfo
from latentfactors.transforms import transformation_named

__all__ = [
    "collect_info",
    "info_table",
    "named_codes",
    "observed_cells",
    "refuse_disorder",
    "refuse_early",
    "refuse_merged_periods",
    "sparse_series",
]

# Values of a series after which gaps between all of them are no accident.
_ENOUGH = 6


def observed_cells(panel: Panel) -> dict[tuple[Any, Any], float]:
    """(series, period) -> value of everything observed."""
    rows = np.flatnonzero(panel.observed)
    labels = panel.assets[panel.asset_codes[rows]].tolist()
    times = panel.times[panel.index.period_codes[rows]]
    return dict(zip(zip(labels, times, strict=True), panel.values[rows].tolist(), strict=True))


def collect_info(panel: Panel, fields: dict[Any, tuple[Any, ...]], date: Any) -> None:
    """Add a vintage's description of its series; refuse one that differs from an earlier vintage's."""
    info = panel.series or SeriesInfo(frequency=(panel.frequency,) * panel.n_assets)  # type: ignore[arg-type]
    columns = (
        info.frequency, info.transformation, info.aggregation, info.publication_lag, info.group,
        info.description,
    )  # fmt: skip
    for label, *entry in zip(panel.assets.tolist(), *columns, strict=True):
        if fields.setdefault(label, tuple(entry)) != tuple(entry):
            raise PanelError(
                f"the vintage of {date} describes {label!r} as {tuple(entry)}, an earlier one as "
                f"{fields[label]}: a series keeps its frequency, transformation and aggregation"
            )


def info_table(
    labels: npt.NDArray[Any], frequency: Frequency, given: Mapping[Any, Mapping[str, Any]]
) -> SeriesInfo:
    """The description of every series out of what was stated."""
    names = labels.tolist()
    if unknown := [each for each in given if each not in names]:
        raise PanelError(f"info names {first_offenders(map(repr, unknown))}, which the table does not have")
    known = ("frequency", "aggregation", "publication_lag", "group", "description", "transformation")
    if odd := sorted({key for each in given.values() for key in each} - set(known)):
        raise ConfigurationError(
            f"info has unknown fields {first_offenders(odd)}, expected {', '.join(known)}"
        )
    defaults = {
        "frequency": frequency, "aggregation": "mean", "publication_lag": 0, "group": "", "description": "",
        "transformation": "",
    }  # fmt: skip
    return SeriesInfo(
        **{key: tuple(given.get(name, {}).get(key, defaults[key]) for name in names) for key in known}
    )


def named_codes(labels: npt.NDArray[Any], codes: Mapping[Any, str | int] | None) -> tuple[str, ...]:
    """A transformation by name for every series, or () where none is asked for."""
    if not codes:
        return ()
    if unknown := [each for each in codes if each not in labels.tolist()]:
        raise PanelError(f"codes name {first_offenders(map(repr, unknown))}, which the store does not have")
    return tuple(transformation_named(codes.get(label, "level")) for label in labels.tolist())


def refuse_early(
    label: Any, periods: npt.NDArray[Any], releases: npt.NDArray[Any], frequency: Frequency
) -> None:
    """Nothing comes out before its period begins."""
    for name, given in (("period", periods), ("release", releases)):
        if not np.issubdtype(given.dtype, np.datetime64):
            raise PanelError(
                f"column {name}: expected dates, got {given.dtype} in the lines of series {label!r}: "
                "write the period's last day"
            )
    early = releases <= shift(periods, -1, frequency)
    if early.any():
        raise PanelError(
            f"series {label!r} of {periods[early][0]} cannot come out on {releases[early][0]}, before the "
            "period begins: are the columns of period and release swapped?"
        )


def refuse_merged_periods(
    labels: npt.NDArray[Any],
    code: npt.NDArray[np.int64],
    stated: npt.NDArray[Any],
    ends: npt.NDArray[Any],
    frequencies: Sequence[Frequency],
) -> None:
    """Lines of one period that state different days: months of one quarter would pass for its revisions."""
    order = np.lexsort((ends, code))
    same = (code[order][1:] == code[order][:-1]) & (ends[order][1:] == ends[order][:-1])
    differ = same & (stated[order][1:] != stated[order][:-1])
    if differ.any():
        one, two = order[:-1][differ][0], order[1:][differ][0]
        first, second = sorted([stated[one], stated[two]])
        position = int(code[one])
        raise PanelError(
            f"series {labels.tolist()[position]!r} of frequency {frequencies[position]!r} has lines for "
            f"{first} and {second}, which lie in one period: is its frequency labelled right? A revision "
            "repeats the day of the line that it revises"
        )


def sparse_series(
    wide: npt.NDArray[np.float64], labels: npt.NDArray[Any], own: Sequence[Frequency], frequency: Frequency
) -> tuple[str, ...]:
    """A remark on series of the panel's frequency that never have two neighbouring values.

    Raises
    ------
    PanelError
        Where that is so for all of several series: the panels' frequency is wrong.
    """
    seen = np.isfinite(wide)
    enough = (seen.sum(axis=0) >= _ENOUGH) & np.array([each == frequency for each in own], dtype=bool)
    sparse = enough & ~np.logical_or.reduce(seen[1:] & seen[:-1], axis=0)
    if not sparse.any():
        return ()
    odd = [repr(label) for label in labels[sparse].tolist()]
    if len(odd) > 1 and sparse.sum() == enough.sum():
        raise PanelError(
            f"no series has values in two neighbouring periods of frequency {frequency!r}: state the "
            "frequency that the values have"
        )
    return (
        f"no two neighbouring values in {first_offenders(odd, 6)}, of frequency {frequency!r} by label: a "
        "series that comes less often needs its own frequency",
    )


def refuse_disorder(
    labels: npt.NDArray[Any], code: npt.NDArray[np.int64], periods: npt.NDArray[Any], dates: npt.NDArray[Any]
) -> None:
    """Lines of one cell have to come in order of release: a table out of order has often been mixed up."""
    order = np.lexsort((np.arange(code.size), periods, code))
    same = (code[order][1:] == code[order][:-1]) & (periods[order][1:] == periods[order][:-1])
    back = same & (dates[order][1:] < dates[order][:-1])
    if back.any():
        line = order[1:][back][0]
        raise PanelError(
            f"releases of {labels.tolist()[code[line]]!r} for {periods[line]} are not in order of time, "
            f"{dates[line]} stands after a later one (line {line + 1} of the table): sort it by release date"
        )
