"""How good nowcasts were, by the time left to the release.

    root mean squared error of a target's nowcasts by days to release, relative to a benchmark's, and the
    test of equal accuracy over reference periods; coverage of the intervals

A reference period counts once in a bin: the last nowcast made in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import at_least, freeze
from latentfactors.evaluate.forecast_tests import diebold_mariano
from latentfactors.frames import to_frame
from latentfactors.kernels.scores import crps_gaussian
from latentfactors.nowcast import VintageStore
from latentfactors.periods import first_offenders, parse_times
from latentfactors.track_record import WalkForwardResult

__all__ = [
    "NowcastRecord",
    "nowcast_record",
    "nowcast_records",
    "nowcast_table",
    "released_tables",
    "released_values",
]

FloatArray = npt.NDArray[np.float64]
_NORMAL_90 = 1.6448536269514722


@dataclass(frozen=True, eq=False, kw_only=True)
class NowcastRecord:
    """Nowcasts of one target beside what was released.

    Attributes
    ----------
    as_of : (n,) vintage dates
    period : (n,) reference periods
    days_to_release : (n,) from the vintage to the release; below 0 afterwards
    forecast, variance : (n,) variance NaN where there is none
    realised : (n,)
    """

    as_of: npt.NDArray[Any]
    period: npt.NDArray[Any]
    days_to_release: npt.NDArray[np.int64]
    forecast: FloatArray
    variance: FloatArray
    realised: FloatArray

    def __post_init__(self) -> None:
        freeze(self)


def nowcast_record(
    result: WalkForwardResult, target: Any, released: Mapping[Any, tuple[Any, float]]
) -> NowcastRecord:
    """The nowcasts of a walk-forward over vintages, of periods that have been released since.

    Parameters
    ----------
    result
        From `walk_forward` with `VintageSplits`.
    target
        Label.
    released
        Last day of a period -> (release date, value), see `released_values`.

    Raises
    ------
    InsufficientDataError
        No nowcast of a released period made before its release.
    """
    return _record(result.frame(), target, released)


def _record(frame: Any, target: Any, released: Mapping[Any, tuple[Any, float]]) -> NowcastRecord:
    frame = frame.filter(frame["asset"] == target)
    stamps = frame["timestamp"].to_numpy().astype("datetime64[D]")
    periods = frame["target_timestamp"].to_numpy().astype("datetime64[D]")
    means = frame["prediction_value"].to_numpy()
    deviations = frame["prediction_std"].to_numpy() if "prediction_std" in frame.columns else means * np.nan
    known = {
        end: (date, float(value))
        for end, (date, value) in zip(
            parse_times(list(released), name="released") if released else [], released.values(), strict=True
        )
    }
    rows, lines = [], []
    for k, (stamp, period) in enumerate(zip(stamps, periods, strict=True)):
        if period not in known:
            continue
        date = parse_times([known[period][0]], name="release date")[0]
        # from the day of the release on, the value itself is in the vintage
        if stamp < date:
            rows.append(k)
            lines.append((int((date - stamp).astype(np.int64)), known[period][1]))
    if not rows:
        raise InsufficientDataError(
            f"no nowcast of {target!r} was made before the release of one of {len(known)} released periods"
        )
    order = np.array(rows)
    return NowcastRecord(
        as_of=stamps[order],
        period=periods[order],
        days_to_release=np.array([days for days, _ in lines]),
        forecast=means[order],
        variance=deviations[order] ** 2,
        realised=np.array([value for _, value in lines]),
    )


def nowcast_records(
    result: WalkForwardResult, released: Mapping[Any, Mapping[Any, tuple[Any, float]]]
) -> dict[Any, NowcastRecord]:
    """The nowcasts of several series: label -> record, see `nowcast_record`.

    Parameters
    ----------
    result
        From `walk_forward` with `VintageSplits` and a predictor of these series.
    released
        Label -> periods with release date and value, see `released_tables`.

    Raises
    ------
    InsufficientDataError
        No nowcast of any of them; a series without one is left out.
    """
    frame = result.frame()
    found = {}
    for target, own in released.items():
        try:
            found[target] = _record(frame, target, own)
        except InsufficientDataError:
            continue
    if not found:
        raise InsufficientDataError(
            f"no nowcast of {first_offenders(map(repr, released))} was made before a release"
        )
    return found


def released_values(
    store: VintageStore, target: Any, *, latest: bool = False
) -> dict[Any, tuple[np.datetime64, float]]:
    """First (or latest) released value of every period of a series, as the panel of that day shows it.

    Parameters
    ----------
    store
        Vintages; transformed values are those of the vintage of the day, not of today.
    target
        Label.
    latest
        The value in the store's last vintage instead of the first release; its date stays the first one's.

    Raises
    ------
    ConfigurationError
        A series that the store does not have.
    """
    return released_tables(store, (target,), latest=latest)[target]


def released_tables(
    store: VintageStore, targets: Sequence[Any] | None = None, *, since: Any = None, latest: bool = False
) -> dict[Any, dict[Any, tuple[np.datetime64, float]]]:
    """First (or latest) released values of several series: label -> period -> release date and value.

    Parameters
    ----------
    store
        Vintages.
    targets
        Labels; None: all series of the store.
    since
        First reference period wanted; None: all. A vintage is read for every day on which one of them came
        out, so this saves time.
    latest
        Values of the store's last vintage instead of first releases; dates stay those of the first.

    Raises
    ------
    ConfigurationError
        A series that the store does not have.
    """
    labels = store.series.tolist()
    wanted = labels if targets is None else list(targets)
    for target in wanted:
        if target not in labels:
            raise ConfigurationError(
                f"the store has no {target!r}, it has {first_offenders(map(repr, labels))}"
            )
    mine = np.isfinite(store.value) & np.isin(store.code, [labels.index(target) for target in wanted])
    if since is not None:
        mine &= store.period >= parse_times([since], name="since")[0]
    cells: dict[tuple[int, Any], np.datetime64] = {}
    for code, period, date in zip(store.code[mine], store.period[mine], store.release[mine], strict=True):
        cells.setdefault((int(code), period), date)
    by_day: dict[np.datetime64, list[tuple[int, Any]]] = {}
    for cell, date in cells.items():
        by_day.setdefault(date, []).append(cell)
    last = store.as_of(store.dates[-1]) if latest else None
    out: dict[Any, dict[Any, tuple[np.datetime64, float]]] = {target: {} for target in wanted}
    for day, released in sorted(by_day.items()):
        panel = store.as_of(day) if last is None else last
        values, column = panel.wide(), {label: k for k, label in enumerate(panel.assets.tolist())}
        for code, period in released:
            place = int(np.searchsorted(panel.times, period))
            if labels[code] in column and place < panel.n_periods:
                value = values[place, column[labels[code]]]
                if np.isfinite(value):
                    out[labels[code]][period] = (day, float(value))
    return {target: dict(sorted(found.items())) for target, found in out.items()}


def nowcast_table(
    records: Mapping[str, NowcastRecord],
    *,
    benchmark: str,
    days_per_bin: int = 7,
    skip: Sequence[Any] = (),
    backend: str = "polars",
) -> Any:
    """RMSFE by time to release, relative to a benchmark, on the periods that all forecasts have in a bin.

    Parameters
    ----------
    records
        Name -> record of one target.
    benchmark
        The name that ratios and tests refer to.
    days_per_bin
        7 for weeks.
    skip
        Reference periods left out of all scores, such as a pandemic's: say so where the table is shown.

    Returns
    -------
    frame
        name, days_to_release (lower bound of the bin), n_periods, rmsfe, relative_rmsfe, dm_p
        (two-sided, NaN where too few), bias, crps (NaN without variances), coverage_90.

    Raises
    ------
    ConfigurationError
        An unknown benchmark.
    """
    at_least("days_per_bin", days_per_bin, 1)
    if benchmark not in records:
        raise ConfigurationError(f"benchmark must be one of {', '.join(records)}, got {benchmark!r}")
    left_out = set(parse_times(list(skip), name="skip")) if len(skip) else set()
    binned = {name: _last_in_bin(each, days_per_bin, left_out) for name, each in records.items()}
    bins = sorted({key[0] for cells in binned.values() for key in cells}, reverse=True)
    lines: list[tuple[Any, ...]] = []
    for edge in bins:
        common = set.intersection(*({p for b, p in cells if b == edge} for cells in binned.values()))
        if not common:
            continue
        periods = sorted(common)
        rows = {name: np.array([binned[name][edge, period] for period in periods]) for name in records}
        reference = rows[benchmark]
        base = _rmse(reference)
        for name, cells in rows.items():
            lines.append(
                (
                    name,
                    edge * days_per_bin,
                    len(periods),
                    *_scores(cells, base),
                    _dm(cells, reference, name == benchmark),
                )
            )
    heads = (
        "name",
        "days_to_release",
        "n_periods",
        "rmsfe",
        "relative_rmsfe",
        "bias",
        "crps",
        "coverage_90",
        "dm_p",
    )
    columns = zip(*lines, strict=True) if lines else [()] * len(heads)
    return to_frame({head: np.array(column) for head, column in zip(heads, columns, strict=True)}, backend)


def _last_in_bin(record: NowcastRecord, width: int, left_out: set[Any]) -> dict[tuple[int, Any], FloatArray]:
    """(bin, period) -> forecast, variance, realised of the last nowcast in the bin."""
    order = np.argsort(-record.days_to_release, kind="stable")
    found: dict[tuple[int, Any], FloatArray] = {}
    for k in order:
        if record.period[k] not in left_out and np.isfinite(record.forecast[k]):
            key = (int(record.days_to_release[k]) // width, record.period[k])
            found[key] = np.array([record.forecast[k], record.variance[k], record.realised[k]])
    return found


def _rmse(cells: FloatArray) -> float:
    return float(np.sqrt(np.mean((cells[:, 0] - cells[:, 2]) ** 2)))


def _scores(cells: FloatArray, base: float) -> tuple[float, float, float, float, float]:
    forecast, variance, realised = cells.T
    rmse = _rmse(cells)
    crps = coverage = np.nan
    if np.isfinite(variance).all() and (variance > 0).all():
        crps = crps_gaussian(realised, forecast, variance)
        coverage = float(np.mean(np.abs(realised - forecast) <= _NORMAL_90 * np.sqrt(variance)))
    return rmse, rmse / base if base > 0 else np.nan, float(np.mean(forecast - realised)), crps, coverage


def _dm(cells: FloatArray, reference: FloatArray, is_benchmark: bool) -> float:
    if is_benchmark:
        return np.nan
    try:
        return float(diebold_mariano(cells[:, 2], cells[:, 0], reference[:, 0]).p_value)
    except InsufficientDataError:
        return np.nan
