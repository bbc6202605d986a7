"""The ragged row index that panels and states share, and the typed columns that hang on it.

A row (period, asset) says: this asset is in the universe of this period. Rows are sorted by period and,
inside a period, by asset code; `offsets[p]:offsets[p + 1]` are the rows of period p.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.errors import PanelError
from latentfactors.periods import Frequency

__all__ = [
    "Aggregation",
    "Attribute",
    "PerPeriod",
    "PeriodArray",
    "PeriodRows",
    "ReadOnlyAfterPickling",
    "RowIndex",
    "SeriesInfo",
    "read_integers",
    "read_only",
]

Aggregation = Literal["mean", "sum", "end", "mariano_murasawa"]
_SERIES_DEFAULTS: dict[str, Any] = {
    "transformation": "",
    "aggregation": "mean",
    "publication_lag": 0,
    "group": "",
    "description": "",
}


def read_only(array: npt.ArrayLike, dtype: Any = None) -> npt.NDArray[Any]:
    """A read-only view (or converted copy) of an array; the caller's own array keeps its flags."""
    view = np.asarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view


def read_integers(array: npt.ArrayLike, name: str, dtype: Any) -> npt.NDArray[Any]:
    """A read-only array of whole numbers; fractions and text are refused, not cut to size."""
    raw = np.asarray(array)
    if raw.size and raw.dtype.kind not in "iu":
        raise PanelError(f"{name} must be integers, got {raw.dtype}")
    return read_only(raw, dtype)


class ReadOnlyAfterPickling:
    """NumPy forgets the read-only flag on its way to a worker process; this puts it back."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, read_only(value) if isinstance(value, np.ndarray) else value)


class PerPeriod(Protocol):
    """Numbers about periods, each found from its period's own rows; see `Panel.shared`."""

    def take(self, periods: slice) -> PerPeriod:
        """The numbers of some successive periods."""
        ...


@dataclass(frozen=True, eq=False)
class PeriodArray(ReadOnlyAfterPickling):
    """A `PerPeriod` of one array (T, ...)."""

    values: npt.NDArray[Any]

    def take(self, periods: slice) -> PeriodArray:
        """The entries of some successive periods."""
        return PeriodArray(read_only(self.values[periods]))

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + self.values.nbytes


@dataclass(frozen=True, eq=False, repr=False)
class RowIndex(ReadOnlyAfterPickling):
    """Which assets stand in which period.

    Parameters
    ----------
    times : (T,) datetime64[D] or int64
        Period ends, sorted and unique.
    assets : (N,) int64 or str
        Unique labels.
    offsets : (T + 1,) int64
        Row bounds of every period.
    asset_codes : (R,) int32
        Position in `assets` of every row, ascending inside a period.
    frequency
        Spacing of `times`, where known.
    timeline, first
        Where this index is a slice: all periods of the whole, and the position of `times[0]` among them, so
        that origins and targets beyond the slice are the data's own dates.
    """

    times: npt.NDArray[Any]
    assets: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]
    asset_codes: npt.NDArray[np.int32]
    frequency: Frequency | None = None
    timeline: npt.NDArray[Any] | None = None
    first: int = 0

    @property
    def n_periods(self) -> int:
        """Number of periods T."""
        return self.times.size

    @property
    def n_assets(self) -> int:
        """Number of asset labels N, whether or not they have rows."""
        return self.assets.size

    @property
    def n_rows(self) -> int:
        """Number of rows R."""
        return self.asset_codes.size

    @property
    def period_codes(self) -> npt.NDArray[np.int64]:
        """(R,) period position of every row."""
        return np.repeat(np.arange(self.n_periods), np.diff(self.offsets))

    def rows(self, p: int) -> slice:
        """The rows of period `p`."""
        return slice(int(self.offsets[p]), int(self.offsets[p + 1]))

    def origins(self) -> npt.NDArray[Any]:
        """(T,) the last period whose values were known before each period."""
        return self._neighbours(-1)

    def targets(self, horizon: int) -> npt.NDArray[Any]:
        """(T,) the period that a forecast of each row speaks about: p + horizon - 1."""
        return self._neighbours(horizon - 1)

    def _neighbours(self, steps: int) -> npt.NDArray[Any]:
        whole = self.times if self.timeline is None else self.timeline
        return periods.neighbour(whole, steps, self.frequency)[self.first : self.first + self.times.size]

    def between(self, a: int, b: int) -> RowIndex:
        """Periods a..b-1 as a view: labels and codes stay, offsets are rebased."""
        low, high = int(self.offsets[a]), int(self.offsets[b])
        return replace(
            self,
            times=self.times[a:b],
            offsets=self.offsets[a : b + 1] - low,
            asset_codes=self.asset_codes[low:high],
            timeline=self.times if self.timeline is None else self.timeline,
            first=self.first + a,
        )

    def dense(self, rows: npt.NDArray[Any], fill: float = np.nan) -> npt.NDArray[Any]:
        """Spread (R, ...) row values over (T, N, ...); cells that are no row hold `fill`."""
        out = np.full((self.n_periods, self.n_assets, *rows.shape[1:]), fill, dtype=np.float64)
        out[self.period_codes, self.asset_codes] = rows
        return out

    def gather(self, wide: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Pick the rows out of a (T, N, ...) array: the inverse of `dense`."""
        return wide[self.period_codes, self.asset_codes]

    def position(self, time: Any) -> int:
        """Position of a period named by its end, any day in it (if the frequency is known), or its integer.

        Raises
        ------
        PanelError
            When the index has no such period.
        """
        raw = np.asarray([time])
        stated = periods.parse_times(raw, name="time")
        if periods.is_date(stated) != periods.is_date(self.times):
            kind = "dates" if periods.is_date(self.times) else "integers"
            raise PanelError(f"the periods of this panel are {kind}, got {time!r}")
        wanted = periods.period_end(stated, self.frequency)[0]
        position = int(np.searchsorted(self.times, wanted))
        if position == self.n_periods or self.times[position] != wanted:
            span = f"{self.times[0]} to {self.times[-1]}" if self.n_periods else "no period"
            raise PanelError(f"period {time} is not in this panel, which covers {span}")
        return position

    def match_assets(self, known: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """(N,) position of every label of this index in another label array, -1 where it is new."""
        if self.assets is known:
            return np.arange(self.n_assets)
        if self.assets.dtype.kind != known.dtype.kind:
            return np.full(self.n_assets, -1)
        order = np.argsort(known, kind="stable")
        if order.size == 0:
            return np.full(self.n_assets, -1)
        found = np.minimum(np.searchsorted(known, self.assets, sorter=order), order.size - 1)
        position = order[found]
        return np.where(known[position] == self.assets, position, -1)

    def __repr__(self) -> str:
        span = f"{self.times[0]}..{self.times[-1]}" if self.n_periods else "empty"
        return f"RowIndex({self.n_periods} periods {span}, {self.n_assets} assets, {self.n_rows} rows)"


@dataclass(frozen=True, eq=False)
class PeriodRows:
    """One period: labels, values, weights (n,) and characteristics (n, L); the last two may be None."""

    time: Any
    assets: npt.NDArray[Any]
    values: npt.NDArray[np.float64]
    characteristics: npt.NDArray[Any] | None
    weights: npt.NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class Attribute(ReadOnlyAfterPickling):
    """A category of every asset or every row: sector, rating, country, tenor.

    Parameters
    ----------
    codes : (N,) or (R,) int32
        Position in `categories`; -1 where unknown.
    categories
        Unique labels.
    by
        Whether codes run over assets or over rows (ratings migrate).

    Raises
    ------
    PanelError
        Codes outside the categories, repeated categories, or an unknown `by`.

    Examples
    --------
    >>> Attribute([0, 1, -1], ("energy", "health"), by="asset").categories
    ('energy', 'health')
    """

    codes: npt.NDArray[np.int32]
    categories: tuple[str, ...]
    by: Literal["asset", "row"] = "asset"

    def __post_init__(self) -> None:
        if isinstance(self.categories, str):
            raise PanelError(f"categories must be a list of labels, got the text {self.categories!r}")
        codes = read_integers(self.codes, "attribute codes", np.int32)
        categories = tuple(str(category) for category in self.categories)
        if self.by not in ("asset", "row"):
            raise PanelError(f"by must be 'asset' or 'row', got {self.by!r}")
        if len(set(categories)) != len(categories):
            raise PanelError(f"categories must be unique, got {categories}")
        if codes.size and (codes.min() < -1 or codes.max() >= len(categories)):
            raise PanelError(
                f"attribute codes must lie in -1..{len(categories) - 1}, got {codes.min()}..{codes.max()}"
            )
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "categories", categories)


@dataclass(frozen=True, eq=False, kw_only=True)
class SeriesInfo:
    """What is known about every series of a macro panel, in the order of `panel.assets`.

    Parameters
    ----------
    frequency
        (N,) own frequency of every series: "M", "Q", ...
    transformation
        (N,) transformation already applied, by name or official code; "" for none.
    aggregation
        (N,) how a low-frequency value sums up its months: "mean", "sum", "end" or "mariano_murasawa".
    publication_lag
        (N,) days from the end of the reference period to the release.
    group, description
        (N,) for reports.

    Raises
    ------
    PanelError
        Columns of unequal length or an unknown aggregation.
    """

    frequency: tuple[Frequency, ...]
    transformation: tuple[str, ...] = ()
    aggregation: tuple[Aggregation, ...] = ()
    publication_lag: tuple[int, ...] = ()
    group: tuple[str, ...] = ()
    description: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.frequency)
        object.__setattr__(self, "frequency", tuple(map(periods.check_frequency, self.frequency)))
        for name, default in _SERIES_DEFAULTS.items():
            column = tuple(getattr(self, name)) or (default,) * n
            if len(column) != n:
                raise PanelError(f"series info {name!r} has {len(column)} entries for {n} series")
            object.__setattr__(self, name, column)
        unknown = set(self.aggregation) - set(get_args(Aggregation))
        if unknown:
            raise PanelError(f"aggregation must be one of {get_args(Aggregation)}, got {sorted(unknown)}")

    def take(self, positions: npt.ArrayLike) -> SeriesInfo:
        """The same table for a selection of series."""
        chosen = np.asarray(positions, dtype=np.int64)
        columns = ("frequency", *_SERIES_DEFAULTS)
        return SeriesInfo(**{name: tuple(getattr(self, name)[i] for i in chosen) for name in columns})
