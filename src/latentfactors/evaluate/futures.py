"""Other futures than the one that came: what the audit changes, and what row s may know.

Row s knows   its row set, characteristics, weights, attributes by row and context, and values and observed
              factors of s-1 and before. A raw frame with lag 1: lines of s-1 and before; with lag 0: those of
              s too, less their values and observed factors
Change        everything else is redrawn (from the upper, then the lower tenth of what was ever seen),
              shuffled, reversed, hidden or cut off, a channel at a time and all at once
Holes         cells that row s may know go missing in the data themselves: a fill from both sides then shows

A change is (channel, action, changed data); what was given stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.derive import take_rows
from latentfactors.errors import ConfigurationError
from latentfactors.panel import Panel

__all__ = ["RawColumns", "frame_changes", "panel_changes", "with_holes"]

BoolArray = npt.NDArray[np.bool_]
Change = tuple[str, str, Any]  # channel, action, changed data
_HOLES = ("values missing before the cut", "characteristics missing before the cut")


@dataclass(frozen=True, kw_only=True)
class RawColumns:
    """How to read a raw frame: one line per date and asset, before it becomes a panel.

    Parameters
    ----------
    time, asset, value
        Column names.
    lag
        1: the other columns of a line became known at the end of its date. 0: they were known before it. The
        truth about the data, whatever `build` makes of it.
    by_date
        Columns constant within a date that are known like the others: context.
    observed_factors
        Columns constant within a date that are realised in it.
    """

    time: str
    asset: str
    value: str
    lag: int
    by_date: tuple[str, ...] = ()
    observed_factors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.lag not in (0, 1):
            raise ConfigurationError(f"lag must be 0 or 1, got {self.lag!r}")


# ------------------------------------------------------------------------- other futures of a panel


def panel_changes(panel: Panel, s: int, rng: np.random.Generator) -> Iterator[Change]:
    """Other futures than the one that came, for row s and before to be indifferent about."""
    late, later = panel.offsets[s], panel.offsets[s + 1]
    row, period = np.arange(panel.n_rows), np.arange(panel.n_periods)
    scopes: dict[str, BoolArray] = {
        "values": row >= late, "observed_factors": period >= s, "characteristics": row >= later,
        "weights": row >= later, "context": period > s,
    }  # fmt: skip
    present = {name: where for name, where in scopes.items() if getattr(panel, name) is not None}
    for name, where in present.items():
        column, title = getattr(panel, name), name.replace("_", " ")
        for action in ("upper", "lower", "shuffled"):
            yield title, action, replace(panel, **{name: _other(column, where, action, rng)})
    hidden = scopes["values"] & (rng.random(panel.n_rows) < 0.5)
    yield "values", "half hidden", panel.mask(hidden)
    by_row = {name: each for name, each in panel.attributes.items() if each.by == "row"}
    for name, each in by_row.items():
        codes = _other(each.codes, row >= later, "shuffled", rng)
        attributes = {**panel.attributes, name: replace(each, codes=codes)}
        yield "attributes", f"{name} shuffled", replace(panel, attributes=attributes)
    leaving = (rng.random(panel.n_assets) < 0.5)[panel.asset_codes] & (row >= later)
    leaving &= (
        np.minimum.reduceat(np.append(leaving, True), panel.offsets[:-1])[panel.index.period_codes] == 0
    )
    yield "row sets", "half of the assets leave", _pick(panel, np.flatnonzero(~leaving))
    n_after, held = panel.n_periods - s - 1, np.arange(late, later)
    sizes = np.append(np.diff(panel.offsets[: s + 1]), [held.size] * (n_after + 1))
    yield (
        "row sets",
        "nobody comes or goes",
        _pick(panel, np.concatenate([np.arange(late), np.tile(held, n_after + 1)]), sizes),
    )
    everything = {name: _other(getattr(panel, name), where, "upper", rng) for name, where in present.items()}
    yield (
        "everything",
        "upper, half of the assets leave",
        _pick(replace(panel, **everything), np.flatnonzero(~leaving)),
    )
    order = np.concatenate([period[: s + 1], period[:s:-1]])
    blocks = [row[panel.index.rows(int(p))] for p in order]
    turned = _pick(panel, np.concatenate(blocks), np.array([block.size for block in blocks]))
    by_period = {
        name: getattr(panel, name)[order] for name in present if name in ("context", "observed_factors")
    }
    yield "order of periods", "reversed", replace(turned, **by_period)
    cut = panel.between(0, s + 1)
    yield "end of the data", "after the cut", cut
    factors = {}
    if cut.observed_factors is not None:
        factors = {"observed_factors": _other(cut.observed_factors, period[: s + 1] >= s, "hidden", rng)}
    live = replace(cut, **factors).mask(row[:later] >= late)
    yield "end of the data", "live: no value of the cut known", live


def with_holes(
    panel: Panel, s: int, rng: np.random.Generator, prepared: bool
) -> Iterator[tuple[str, Panel, list[Change]]]:
    """The panel with cells missing up to what row s may know, and futures of that: two-sided fills show."""
    row, period = np.arange(panel.n_rows), panel.index.period_codes

    def gaps(last: int) -> BoolArray:  # half of the last period's cells, and some of the two before it
        found = (period >= last - 2) & (period < last) & (rng.random(row.size) < 0.25)
        cells = np.flatnonzero(period == last)
        found[rng.permutation(cells)[: (cells.size + 1) // 2]] = True
        return found

    holed = panel.mask(gaps(s - 1))
    kinds = ("upper", "lower")
    where = row >= panel.offsets[s]
    yield (
        _HOLES[0],
        holed,
        [("values", kind, replace(holed, values=_other(holed.values, where, kind, rng))) for kind in kinds],
    )
    if prepared and panel.characteristics is not None:
        empty = np.array(panel.characteristics)
        empty[gaps(s)] = np.nan
        where = row >= panel.offsets[s + 1]
        yield (
            _HOLES[1],
            replace(panel, characteristics=empty),
            [
                ("characteristics", kind, replace(panel, characteristics=_other(empty, where, kind, rng)))
                for kind in kinds
            ],
        )


def _pick(panel: Panel, rows: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64] | None = None) -> Panel:
    """The panel made of these rows; without sizes each stays in its period."""
    if sizes is None:
        sizes = np.bincount(panel.index.period_codes[rows], minlength=panel.n_periods)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return replace(panel, **take_rows(panel, rows, panel.asset_codes[rows], offsets))


def _other(
    column: npt.NDArray[Any], where: BoolArray, how: str, rng: np.random.Generator
) -> npt.NDArray[Any]:
    """A copy of a column (n,) or (n, m) with other entries where marked; what is missing stays missing."""
    out = np.array(column)
    if how == "shuffled":
        out[where] = rng.permutation(out[where], axis=0)
        return out
    for j in np.ndindex(out.shape[1:]):
        x = out[(slice(None), *j)]  # a view: one column
        seen = np.isfinite(x)
        if how == "hidden":
            x[where] = np.nan
        elif seen.any():
            pool = np.sort(x[seen])
            tail = pool[pool.size * 9 // 10 :] if how == "upper" else pool[: (pool.size + 9) // 10]
            x[where & seen] = rng.choice(tail, int((where & seen).sum()))
    return out


# ------------------------------------------------------------------------- other futures of a raw frame


def frame_changes(
    data: Any, columns: RawColumns, before: Any, time: Any, rng: np.random.Generator
) -> Iterator[Change]:
    """The same for lines of a frame: each column takes entries of other lines, or lines go."""
    import narwhals as nw

    frame = nw.from_native(data, eager_only=True)
    stamps = periods.parse_times(frame[columns.time].to_numpy(), name=columns.time)
    realised = stamps > before
    rest = realised if columns.lag else stamps > time
    dates, line_of, date_of = np.unique(stamps, return_index=True, return_inverse=True)

    def rewritten(names: list[str], how: str) -> Any:
        new = []
        for name in names:
            where = realised if name in (columns.value, *columns.observed_factors) else rest
            source, x = np.arange(len(stamps)), frame[name].to_numpy()
            if name in columns.by_date + columns.observed_factors:
                other = rng.integers(dates.size, size=dates.size)
                source[where] = line_of[other[date_of[where]]]
            elif how == "shuffled" or x.dtype.kind not in "iuf":
                source[where] = rng.permutation(source[where])
            else:
                order = np.argsort(x)[: int(np.isfinite(x).sum())]
                tail = order[order.size * 9 // 10 :] if how == "upper" else order[: (order.size + 9) // 10]
                source[where] = rng.choice(tail, int(where.sum()))
            new.append(frame[name][source.tolist()].alias(name))
        return frame.with_columns(*new).to_native()

    names = [name for name in frame.columns if name not in (columns.time, columns.asset)]
    for name in names:
        for how in ("upper", "lower", "shuffled"):
            yield f"column {name}", how, rewritten([name], how)
    yield "everything", "upper", rewritten(names, "upper")
    assets = np.unique(frame[columns.asset].to_numpy(), return_inverse=True)[1]
    leaving = rest & (rng.random(assets.max() + 1) < 0.5)[assets]
    yield "lines", "half of the assets leave", frame.filter((~leaving).tolist()).to_native()
    yield "end of the data", "after the cut", frame.filter((~rest).tolist()).to_native()
