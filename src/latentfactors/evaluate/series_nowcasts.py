"""How good the nowcasts of all series of a panel were, by the time left to each one's own release.

    of a series     RMSFE_i / RMSFE_i of the benchmark on the reference periods that all forecasts have
    of the panel    the mean, the geometric mean and the median of these ratios over series, and how many are
                    below 1; a ratio per series has no unit, so no series rules the others

References: Andreini, Izzo & Ricco (2020), Deep Dynamic Factor Models, table 6 (monthly series relative to
AR(1)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate.nowcasts import NowcastRecord, nowcast_table
from latentfactors.frames import to_frame

__all__ = ["series_nowcast_summary", "series_nowcast_table"]


def series_nowcast_table(
    records: Mapping[str, Mapping[Any, NowcastRecord]],
    *,
    benchmark: str,
    days_per_bin: int = 7,
    skip: Sequence[Any] = (),
    backend: str = "polars",
) -> Any:
    """RMSFE of every series by time to its own release, relative to a benchmark: a `nowcast_table` each.

    Parameters
    ----------
    records
        Name of the forecast -> label -> record, see `nowcast_records`.
    benchmark
        The name that ratios and tests refer to.
    days_per_bin
        7 for weeks.
    skip
        Reference periods left out of all scores: say so where the table is shown.

    Returns
    -------
    frame
        series, then the columns of `nowcast_table`. Series that some forecast lacks are left out.

    Raises
    ------
    ConfigurationError
        An unknown benchmark.
    InsufficientDataError
        No series that all forecasts have.
    """
    if benchmark not in records:
        raise ConfigurationError(f"benchmark must be one of {', '.join(records)}, got {benchmark!r}")
    common = [label for label in records[benchmark] if all(label in each for each in records.values())]
    if not common:
        raise InsufficientDataError("no series is nowcast by all: give every predictor the same targets")
    columns: dict[str, list[Any]] = {}
    for label in common:
        frame = nowcast_table(
            {name: each[label] for name, each in records.items()},
            benchmark=benchmark,
            days_per_bin=days_per_bin,
            skip=skip,
        )
        columns.setdefault("series", []).extend([label] * frame.height)
        for name in frame.columns:
            columns.setdefault(name, []).extend(frame[name].to_list())
    return to_frame({name: np.array(column) for name, column in columns.items()}, backend)


def series_nowcast_summary(
    table: Any, *, level: float = 0.1, least_periods: int = 2, backend: str = "polars"
) -> Any:
    """The ratios of all series, a line per forecast and bin.

    Parameters
    ----------
    table
        From `series_nowcast_table`, as a polars frame.
    level
        Of the tests of equal accuracy that are counted.
    least_periods
        Reference periods that a series needs in a bin to enter it.

    Returns
    -------
    frame
        name, days_to_release, n_series, mean_ratio, geometric_mean_ratio, median_ratio, share_below_1,
        n_significantly_better, n_significantly_worse (two-sided tests at `level`, each series by itself: some
        are expected by chance alone).

    Raises
    ------
    ConfigurationError
        A level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ConfigurationError(f"level must lie between 0 and 1, got {level!r}")
    ratio, p = table["relative_rmsfe"].to_numpy(), table["dm_p"].to_numpy()
    usable = np.isfinite(ratio) & (ratio > 0) & (table["n_periods"].to_numpy() >= least_periods)
    names, edges = table["name"].to_numpy(), table["days_to_release"].to_numpy()
    lines = []
    for edge in np.unique(edges)[::-1]:
        for name in dict.fromkeys(names.tolist()):
            rows = usable & (names == name) & (edges == edge)
            if not rows.any():
                continue
            mine, found = ratio[rows], p[rows] < level
            lines.append(
                (
                    name, int(edge), int(rows.sum()), mine.mean(), np.exp(np.log(mine).mean()),
                    np.median(mine), np.mean(mine < 1), int((found & (mine < 1)).sum()),
                    int((found & (mine > 1)).sum()),
                )
            )  # fmt: skip
    heads = (
        "name", "days_to_release", "n_series", "mean_ratio", "geometric_mean_ratio", "median_ratio",
        "share_below_1", "n_significantly_better", "n_significantly_worse",
    )  # fmt: skip
    columns = zip(*lines, strict=True) if lines else [()] * len(heads)
    return to_frame({head: np.array(column) for head, column in zip(heads, columns, strict=True)}, backend)
