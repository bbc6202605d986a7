"""Panels out of panels: selections, future periods, joined frequencies, fingerprints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.errors import (
    FrequencyError,
    GapError,
    InsufficientDataError,
    PanelError,
    PanelMismatchError,
)
from latentfactors.rows import Attribute, PeriodArray, PerPeriod, SeriesInfo, read_only
from latentfactors.validate import check_labels, count

if TYPE_CHECKING:
    from latentfactors.panel import Panel

_BEYOND_VALUES = ("characteristics", "weights", "attributes", "context", "observed_factors", "transforms")
_MISSING = "missing characteristics"

__all__ = [
    "digest_chain",
    "extend_panel",
    "hide_values",
    "join_frequencies",
    "missing_characteristics",
    "observed_columns",
    "periods_after",
    "replace_values",
    "select_assets",
    "share",
    "share_missing_characteristics",
    "slice_periods",
    "take_rows",
]


def take_rows(
    panel: Panel, rows: npt.NDArray[np.int64], codes: npt.NDArray[Any], offsets: npt.NDArray[Any]
) -> dict[str, Any]:
    """The row-level fields of a panel after picking `rows`, for `replace`."""
    return {
        "offsets": offsets,
        "asset_codes": codes,
        "values": panel.values[rows],
        "characteristics": None if panel.characteristics is None else panel.characteristics[rows],
        "weights": None if panel.weights is None else panel.weights[rows],
        "attributes": {
            name: attribute if attribute.by == "asset" else replace(attribute, codes=attribute.codes[rows])
            for name, attribute in panel.attributes.items()
        },
    }


def slice_periods(panel: Panel, a: int, b: int) -> Panel:
    """Periods at positions a..b-1, sliced out of a valid panel: nothing is copied, nothing checked again."""
    a, b, _ = slice(a, b).indices(panel.n_periods)
    b = max(a, b)
    rows, span = slice(int(panel.offsets[a]), int(panel.offsets[b])), slice(a, b)
    by_row = ("asset_codes", "values", "characteristics", "weights")
    by_period = ("times", "context", "observed_factors")
    parts = dict.fromkeys(by_row, rows) | dict.fromkeys(by_period, span)
    changes: dict[str, Any] = {
        name: getattr(panel, name)[part] for name, part in parts.items() if getattr(panel, name) is not None
    }
    changes["offsets"] = read_only(panel.offsets[a : b + 1] - rows.start)
    changes["attributes"] = {
        name: attribute if attribute.by == "asset" else replace(attribute, codes=attribute.codes[rows])
        for name, attribute in panel.attributes.items()
    }
    changes["shared"] = {name: each.take(span) for name, each in panel.shared.items()}
    view = object.__new__(type(panel))
    for each in fields(panel):
        object.__setattr__(view, each.name, changes.get(each.name, getattr(panel, each.name)))
    return view


def share(panel: Panel, found: Mapping[str, PerPeriod]) -> Panel:
    """The same panel with what was found about its periods, for whoever asks `panel.shared` by that name.

    Each entry must follow, to the bit, from its period's own rows: then a slice of it is what a slice of the
    panel would have given, and no period can learn of another.
    """
    view = slice_periods(panel, 0, panel.n_periods)
    object.__setattr__(view, "shared", {**panel.shared, **found})
    return view


def missing_characteristics(panel: Panel) -> PeriodArray:
    """(T, L) rows without a characteristic, counted in every period."""
    if isinstance(found := panel.shared.get(_MISSING), PeriodArray):
        return found
    assert panel.characteristics is not None
    counts = np.zeros((panel.n_periods, panel.characteristics.shape[1]), dtype=np.int64)
    for p in range(panel.n_periods):
        np.isnan(panel.characteristics[panel.index.rows(p)]).sum(axis=0, out=counts[p])
    return PeriodArray(read_only(counts))


def share_missing_characteristics(panel: Panel) -> Panel:
    """The same panel, for whose slices `missing_characteristics` counts nothing again."""
    return share(panel, {_MISSING: missing_characteristics(panel)})


def periods_after(panel: Panel, trained: npt.NDArray[Any]) -> Panel:
    """The periods of a panel after training, which have to begin right after it.

    Raises
    ------
    GapError, InsufficientDataError
        A gap between the training times (T,) and the panel; no later period.
    """
    last = trained[-1]
    if panel.n_periods and panel.times.dtype.kind != trained.dtype.kind:
        raise GapError(
            f"training ended in {last} and the panel starts at {panel.times[0]}: dates or integers?"
        )
    fresh = panel.between(int(np.searchsorted(panel.times, last, side="right")), panel.n_periods)
    if fresh.n_periods == 0:
        raise InsufficientDataError(f"update needs observed values after {last}, the panel has none")
    if panel.times[0] > last and not periods.follows(last, panel.times[0], panel.frequency):
        raise GapError(
            f"training ended in {last} and the panel starts at {panel.times[0]}: give a panel that starts "
            "right after training, or earlier"
        )
    return fresh


def observed_columns(
    panel: Panel, names: tuple[str, ...], *, gaps: bool = False
) -> npt.NDArray[np.float64] | None:
    """(T, M) observed factors in the order of `names`, or None without names.

    Raises
    ------
    PanelMismatchError
        A factor the panel does not have, or, unless `gaps`, one that is missing in some period.
    """
    if not names:
        return None
    unknown = [name for name in names if name not in panel.observed_factor_names]
    if unknown or panel.observed_factors is None:
        raise PanelMismatchError(
            f"no observed factor {periods.first_offenders(map(repr, unknown))}; the panel has "
            f"{panel.observed_factor_names}: add it with panel.with_observed_factors"
        )
    columns = [panel.observed_factor_names.index(name) for name in names]
    values = np.ascontiguousarray(panel.observed_factors[:, columns])
    missing = np.isnan(values)
    if missing.any() and not gaps:
        p, j = np.argwhere(missing)[0]
        raise PanelMismatchError(
            f"observed factor {names[j]!r} is missing in {count(int(missing[:, j].sum()), 'training period')}"
            f", the first {panel.times[p]}: fill the gaps, or start later"
        )
    return values


def hide_values(panel: Panel, cells: npt.ArrayLike) -> Panel:
    """The same rows with the marked values set to NaN."""
    marked, wide = periods.as_array(cells, "cells"), (panel.n_periods, panel.n_assets)
    if marked.dtype != np.bool_ or marked.shape not in ((panel.n_rows,), wide):
        raise PanelError(
            f"cells must be boolean of shape ({panel.n_rows},) or {wide}, got {marked.dtype} {marked.shape}"
        )
    by_row = marked if marked.ndim == 1 else panel.index.gather(marked)
    return replace(panel, values=np.where(by_row, np.nan, panel.values))


def replace_values(panel: Panel, values: npt.ArrayLike) -> Panel:
    """The same rows with other values, copied."""
    array = periods.as_array(values, "values")
    if array.shape != (panel.n_rows,):
        raise PanelError(f"values must have one entry per row ({panel.n_rows},), got {array.shape}")
    return replace(panel, values=array.copy())


def select_assets(panel: Panel, assets: npt.ArrayLike) -> Panel:
    """Rows of the given labels; the labels' order becomes the order of assets."""
    labels = check_labels(assets, "select: assets")
    wanted = replace(panel.index, assets=labels).match_assets(panel.assets)
    if np.any(wanted < 0):
        unknown = periods.first_offenders(labels[wanted < 0])
        raise PanelError(
            f"select: no asset {unknown} in this panel of {periods.first_offenders(panel.assets)}"
        )
    new_code = np.full(panel.n_assets, -1, dtype=np.int64)
    new_code[wanted] = np.arange(wanted.size)
    codes, period = new_code[panel.asset_codes], panel.index.period_codes
    kept = np.flatnonzero(codes >= 0)
    rows = kept[np.lexsort((codes[kept], period[kept]))]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(period[kept], minlength=panel.n_periods))])
    changes = take_rows(panel, rows, codes[rows], offsets)
    changes["attributes"] = {
        name: replace(attribute, codes=attribute.codes[wanted]) if attribute.by == "asset" else attribute
        for name, attribute in changes["attributes"].items()
    }
    series = None if panel.series is None else panel.series.take(wanted)
    return replace(panel, assets=panel.assets[wanted], series=series, **changes)


def extend_panel(panel: Panel, n: int) -> Panel:
    """Append n periods that repeat the last rows (of a macro panel: all series), with values unknown."""
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
        raise PanelError(f"extend needs a positive number of periods, got {n!r}")
    if panel.n_rows == 0:
        raise PanelError("an empty panel cannot be extended: it has no last period to repeat")
    if periods.is_date(panel.times) and panel.frequency is None:
        raise FrequencyError(
            f"the period after {panel.times[-1]} is unknown without a frequency: "
            "state frequency='M', 'Q', 'W', 'B' or 'D' when building the panel"
        )
    future = [periods.shift(panel.times[-1:], step, panel.frequency) for step in range(1, n + 1)]
    if panel.value_kind == "series":
        # The right edge of a macro panel is ragged: a series that is late is still alive.
        last = np.full(panel.n_assets, -1)
        last[panel.asset_codes] = np.arange(panel.n_rows)
        last = last[last >= 0]
    else:
        held = panel.index.rows(int(np.flatnonzero(np.diff(panel.offsets))[-1]))
        last = np.arange(held.start, held.stop)
    rows = np.concatenate([np.arange(panel.n_rows), np.tile(last, n)])
    offsets = np.concatenate([panel.offsets, panel.n_rows + last.size * np.arange(1, n + 1)])
    changes = take_rows(panel, rows, panel.asset_codes[rows], offsets)
    changes["values"][panel.n_rows :] = np.nan
    if panel.context is not None:
        changes["context"] = np.concatenate([panel.context, np.repeat(panel.context[-1:], n, axis=0)])
    if panel.observed_factors is not None:
        unknown = np.full((n, panel.observed_factors.shape[1]), np.nan)
        changes["observed_factors"] = np.concatenate([panel.observed_factors, unknown])
    return replace(panel, times=np.concatenate([panel.times, *future]), **changes)


def join_frequencies(monthly: Panel, quarterly: Panel) -> Panel:
    """Put quarterly series on the last month of their quarter, beside monthly ones, every cell a row."""
    from latentfactors.panel import Panel

    for panel, frequency in ((monthly, "M"), (quarterly, "Q")):
        if panel.frequency != frequency or panel.value_kind != "series" or not panel.n_periods:
            raise PanelError(
                f"join_frequencies needs series panels of frequency 'M' and 'Q', got {panel.value_kind!r} of "
                f"{panel.frequency!r}: build them with value_kind='series' and the frequency stated"
            )
        lost = [
            name for name in _BEYOND_VALUES if getattr(panel, name) is not None and len(getattr(panel, name))
        ]
        if lost:
            raise PanelError(
                f"join_frequencies joins values and series info; the panel of frequency {frequency!r} has "
                f"{', '.join(lost)} too: add them after joining"
            )
    if monthly.assets.dtype.kind != quarterly.assets.dtype.kind:
        raise PanelError(
            "join_frequencies needs labels of one type, "
            f"got {monthly.assets.dtype} and {quarterly.assets.dtype}"
        )
    assets = np.concatenate([monthly.assets, quarterly.assets])
    times = periods.period_range(
        min(monthly.times[0], quarterly.times[0]), max(monthly.times[-1], quarterly.times[-1]), "M"
    )
    values = np.full((times.size, assets.size), np.nan)
    for panel, columns in (
        (monthly, slice(0, monthly.n_assets)),
        (quarterly, slice(monthly.n_assets, None)),
    ):
        values[np.searchsorted(times, panel.times), columns] = panel.wide()
    infos = (
        monthly.series or SeriesInfo(frequency=("M",) * monthly.n_assets),
        quarterly.series or SeriesInfo(frequency=("Q",) * quarterly.n_assets),
    )
    names = [each.name for each in fields(SeriesInfo)]
    series = SeriesInfo(**{name: getattr(infos[0], name) + getattr(infos[1], name) for name in names})
    return Panel.from_wide(
        values, universe="all", times=times, assets=assets, frequency="M", value_kind="series", series=series
    )


def digest_chain(panel: Panel) -> list[str]:
    """Fingerprint of periods 0..p for every p, from labels and contents: codes may be renumbered."""
    head = [panel.value_kind, panel.frequency, panel.characteristic_names, panel.context_names]
    head += [
        panel.observed_factor_names,
        panel.transforms,
        tuple(panel.attributes),
        panel.weights is not None,
    ]
    head += [panel.times.dtype.str]
    link = hashlib.blake2b(repr(head).encode(), digest_size=16).digest()
    row_columns = [_asset_keys(panel)[panel.asset_codes], panel.values]
    row_columns += [column for column in (panel.characteristics, panel.weights) if column is not None]
    row_columns += [_attribute_keys(attribute, panel) for attribute in panel.attributes.values()]
    period_columns = [column for column in (panel.context, panel.observed_factors) if column is not None]
    chain = []
    for p, time in enumerate(panel.times):
        rows = panel.index.rows(p)
        digest = hashlib.blake2b(link, digest_size=16)
        digest.update(f"{time} {rows.stop - rows.start}".encode())
        for column in row_columns:
            digest.update(np.ascontiguousarray(column[rows]).data)
        for column in period_columns:
            digest.update(np.ascontiguousarray(column[p]).data)
        link = digest.digest()
        chain.append(link.hex())
    return chain


def _asset_keys(panel: Panel) -> npt.NDArray[np.uint64]:
    """A key per asset: its label and, in a macro panel, what is known about the series."""
    labels = panel.assets.tolist()
    if panel.series is None:
        return _label_keys(labels)
    info = (getattr(panel.series, each.name) for each in fields(SeriesInfo))
    return _label_keys(zip(labels, *info, strict=True))


def _label_keys(labels: Iterable[Any]) -> npt.NDArray[np.uint64]:
    """A 64-bit key per label, the same whatever the other labels are."""
    texts = (repr(label).encode() for label in labels)
    keys = [hashlib.blake2b(text, digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(keys), dtype=np.uint64)


def _attribute_keys(attribute: Attribute, panel: Panel) -> npt.NDArray[np.uint64]:
    keys = np.append(_label_keys(attribute.categories), np.uint64(0))  # the last one is code -1: unknown
    codes = attribute.codes if attribute.by == "row" else attribute.codes[panel.asset_codes]
    return keys[codes]
