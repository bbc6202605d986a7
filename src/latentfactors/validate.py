"""What makes a `Panel` valid: types, shapes, order, and the absence of infinities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.errors import ConfigurationError, FrequencyError, PanelError, PanelMismatchError
from latentfactors.rows import Attribute, read_integers, read_only

if TYPE_CHECKING:
    from latentfactors.panel import Panel

__all__ = ["check_finite", "check_labels", "check_panel", "check_times", "count"]

_CHUNK = 1 << 22  # cells looked at together, so that checking a large panel needs no second copy of it


def count(n: int, noun: str) -> str:
    """`1 value`, `3 values`: for messages and notes."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def check_panel(panel: Panel) -> dict[str, Any]:
    """The panel's fields in their final, read-only form.

    Raises
    ------
    PanelError
        Naming the field, what was expected, and the first offenders.
    """
    from latentfactors.panel import ValueKind

    if panel.value_kind not in get_args(ValueKind):
        kinds = ", ".join(map(repr, get_args(ValueKind)))
        raise PanelError(f"value_kind must be one of {kinds}, got {panel.value_kind!r}")
    periods.check_frequency(panel.frequency)
    times = check_times(panel.times, panel.frequency)
    assets = check_labels(panel.assets, "assets")
    values = _floats(panel.values, (None,), "values", keep_single=False)
    n_rows = values.size
    offsets, codes = _check_index(panel, times.size, assets.size, n_rows)
    checked: dict[str, Any] = {
        "times": times, "assets": assets, "offsets": offsets, "asset_codes": codes, "values": values,
    }  # fmt: skip
    for name, names_field, length in (
        ("characteristics", "characteristic_names", n_rows),
        ("context", "context_names", times.size),
        ("observed_factors", "observed_factor_names", times.size),
    ):
        names = tuple(getattr(panel, names_field))
        checked[names_field] = names
        checked[name] = _named_columns(getattr(panel, name), names, length, name)
    if panel.weights is not None:
        weights = _floats(panel.weights, (n_rows,), "weights", keep_single=False)
        if np.any(weights < 0):
            row = int(np.flatnonzero(weights < 0)[0])
            raise PanelError(f"weights must not be negative, got {weights[row]} in row {row}")
        checked["weights"] = weights
    checked["attributes"] = _check_attributes(panel.attributes, assets.size, n_rows)
    if panel.series is not None and len(panel.series.frequency) != assets.size:
        raise PanelError(
            f"series describes {len(panel.series.frequency)} series, the panel has {assets.size}"
        )
    checked["transforms"], checked["notes"] = tuple(panel.transforms), tuple(panel.notes)
    return checked


def check_times(times: npt.ArrayLike, frequency: periods.Frequency | None) -> npt.NDArray[Any]:
    """(T,) sorted, unique period ends; without holes for M, Q and W."""
    array = periods.parse_times(times, name="times")
    unsorted = array[1:] <= array[:-1]
    if unsorted.any():
        first = int(np.flatnonzero(unsorted)[0])
        raise PanelError(f"times must be sorted and unique, got {array[first]} before {array[first + 1]}")
    if frequency is None or not array.size:
        return read_only(array)
    if not periods.is_date(array):
        raise FrequencyError(f"frequency={frequency!r} needs dates, got integer times: leave frequency=None")
    ends = periods.period_end(array, frequency)
    if np.any(ends != array):
        wrong = int(np.flatnonzero(ends != array)[0])
        raise PanelError(
            f"times must be period ends: {array[wrong]} should be {ends[wrong]} for {frequency!r}"
        )
    if frequency in periods.CALENDAR_FREQUENCIES:
        whole = periods.period_range(array[0], array[-1], frequency)
        if whole.size != array.size:
            missing = np.setdiff1d(whole, array)
            raise PanelError(
                f"times of frequency {frequency!r} must have no holes, {missing.size} missing, first "
                f"{periods.first_offenders(missing)}: keep them as periods without rows"
            )
    return read_only(array)


def check_labels(labels: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """(N,) unique int64 or str labels."""
    array = periods.as_array(labels, name)
    if array.dtype.kind in "OT" and all(isinstance(label, str) for label in array.ravel()):
        array = array.astype(str)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iuU"):
        raise PanelError(
            f"{name} must be a one-dimensional array of int or str labels, got {array.dtype} {array.shape}"
        )
    unique, counts = np.unique(array, return_counts=True)
    if unique.size != array.size:
        raise PanelError(
            f"{name} must be unique, got {periods.first_offenders(unique[counts > 1])} more than once"
        )
    return read_only(array.copy() if array.dtype.kind == "U" else periods.as_int64(array, name))


def check_finite(array: npt.NDArray[Any], name: str, names: Sequence[str] = ()) -> None:
    """Refuse infinities, looking at a few million cells at a time."""
    rows = max(1, _CHUNK // max(1, array.shape[1] if array.ndim == 2 else 1))
    for start in range(0, array.shape[0], rows):
        infinite = np.isinf(array[start : start + rows])
        if infinite.any():
            where = np.argwhere(infinite)[0]
            column = f" column {names[where[1]]!r}" if array.ndim == 2 and names else ""
            raise PanelError(
                f"{name}{column} has an infinity in row {start + where[0]}: infinities are not observations, "
                "replace them by NaN or repair them"
            )


def check_whole(config: Any, **least: int) -> None:
    """Refuse a setting that is no whole number, or smaller than the number given under its name."""
    for name, smallest in least.items():
        given = getattr(config, name)
        whole = isinstance(given, int | np.integer) and not isinstance(given, bool)
        if not whole or given < smallest:
            raise ConfigurationError(f"{name} must be a whole number, at least {smallest}, got {given!r}")


def check_row_weights(
    values: npt.NDArray[Any], weights: npt.NDArray[Any], offsets: npt.NDArray[Any], times: npt.NDArray[Any]
) -> None:
    """Refuse observed rows without a weight; period p is offsets[p]:offsets[p + 1] and is called times[p]."""
    missing = np.isfinite(values) & np.isnan(weights)
    if missing.any():
        p = int(np.searchsorted(offsets, np.argmax(missing), side="right")) - 1
        raise PanelMismatchError(
            "weighting='panel' needs a weight in every observed row, "
            f"{int(missing[offsets[p] : offsets[p + 1]].sum())} are missing in period {times[p]}: fill them, "
            "or use weighting='rows'"
        )


def _check_index(panel: Panel, n_periods: int, n_assets: int, n_rows: int) -> tuple[Any, Any]:
    offsets = read_integers(panel.offsets, "offsets", np.int64)
    if (
        offsets.shape != (n_periods + 1,)
        or offsets[0] != 0
        or offsets[-1] != n_rows
        or np.any(np.diff(offsets) < 0)
    ):
        raise PanelError(
            f"offsets must rise from 0 to the number of rows ({n_rows}) in {n_periods + 1} steps, "
            f"got shape {offsets.shape}"
        )
    codes = read_integers(panel.asset_codes, "asset_codes", np.int32)
    if codes.shape != (n_rows,):
        raise PanelError(f"asset_codes must have one entry per row ({n_rows},), got {codes.shape}")
    if n_rows and (codes.min() < 0 or codes.max() >= n_assets):
        raise PanelError(f"asset_codes must lie in 0..{n_assets - 1}, got {codes.min()}..{codes.max()}")
    rising = np.diff(codes) > 0
    starts = offsets[1:-1]
    starts = starts[(starts > 0) & (starts < n_rows)]
    rising[starts - 1] = True
    if not rising.all():
        row = int(np.flatnonzero(~rising)[0]) + 1
        period = int(np.searchsorted(offsets, row, side="right")) - 1
        raise PanelError(
            "rows must be sorted by period and asset without duplicates: "
            f"period {panel.times[period]} breaks the order at row {row}"
        )
    return offsets, codes


def _floats(
    array: Any,
    shape: tuple[int | None, ...],
    name: str,
    *,
    keep_single: bool,
    names: Sequence[str] = (),
) -> npt.NDArray[Any]:
    raw = np.asarray(array)
    if raw.dtype.kind not in "fiub":
        raise PanelError(f"{name} must be numbers, got {raw.dtype}")
    out = read_only(raw, raw.dtype if keep_single and raw.dtype in (np.float32, np.float64) else np.float64)
    if out.ndim != len(shape) or any(e is not None and e != g for e, g in zip(shape, out.shape, strict=True)):
        raise PanelError(f"{name} must have shape {shape}, got {out.shape}")
    check_finite(out, name, names)
    return out


def _named_columns(array: Any, names: tuple[str, ...], length: int, name: str) -> npt.NDArray[Any] | None:
    if len(set(names)) != len(names) or not all(isinstance(each, str) for each in names):
        raise PanelError(f"{name} need unique text names, got {names}")
    if array is None:
        if names:
            raise PanelError(f"{name} are missing but named {names}")
        return None
    raw = np.asarray(array)
    if raw.shape != (length, len(names)):
        raise PanelError(
            f"{name} must have shape ({length}, {len(names)}) for names {names}, got {raw.shape}"
        )
    return _floats(raw, raw.shape, name, keep_single=name == "characteristics", names=names)


def _check_attributes(attributes: Any, n_assets: int, n_rows: int) -> dict[str, Attribute]:
    for name, attribute in attributes.items():
        if not isinstance(attribute, Attribute):
            raise PanelError(f"attribute {name!r} must be an Attribute, got {type(attribute).__name__}")
        expected = n_assets if attribute.by == "asset" else n_rows
        if attribute.codes.shape != (expected,):
            raise PanelError(
                f"attribute {name!r} by {attribute.by} must have {expected} codes, "
                f"got {attribute.codes.shape}"
            )
    return dict(attributes)
