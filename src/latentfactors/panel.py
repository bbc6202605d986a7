"""`Panel`: the one data contract.

    period          p-1                |  p
    known at end of p-1:               |  realised in p:
      the row set of p, its            |    values of p
      characteristics, weights,        |    observed factors of p
      attributes, context              |

Everything in a row except its value was known before the period began, so a forecast of row p has origin p-1.
A Panel is ragged, never a dense (T, N, L) cube; its arrays are read-only and its views share memory.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.periods import Frequency
from latentfactors.rows import Attribute, PeriodRows, PerPeriod, ReadOnlyAfterPickling, RowIndex, SeriesInfo

if TYPE_CHECKING:
    from narwhals.typing import IntoDataFrame

__all__ = ["Panel", "ValueKind"]

ValueKind = Literal["excess_return", "return", "spread_change", "series"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Panel(ReadOnlyAfterPickling):
    """Values of assets over time with all that was known beforehand. Build it with a constructor below.

    Parameters
    ----------
    times : (T,) datetime64[D] or int64
        Period ends, sorted, unique; without holes where the frequency is "M", "Q" or "W".
    assets : (N,) int64 or str
        Unique labels.
    offsets : (T + 1,) int64
        Period p's rows are `offsets[p]:offsets[p + 1]`.
    asset_codes : (R,) int32
        Position in `assets`, strictly ascending inside a period.
    values : (R,) float64
        Realised in the period, NaN where not observed (yet): decimal returns, spread changes, series units.
    value_kind
        "excess_return", "return", "spread_change" or "series"; checked where it matters.
    frequency
        "M", "Q", "W", "B", "D" or None.
    characteristics : (R, L) float32 or float64, optional
        Known before the period; named by `characteristic_names`.
    weights : (R,) float64, optional
        Size known before the period (market capitalisation, liquidity), not negative.
    attributes
        Name -> `Attribute`.
    context : (T, Q) float64, optional
        Period-level variables known before the period; named by `context_names`.
    observed_factors : (T, M) float64, optional
        Period-level variables realised in the period (Mkt-RF, yields); named by `observed_factor_names`.
    series
        `SeriesInfo` of a macro panel.
    transforms
        Preparation already applied, in order. A fitted model refuses a panel prepared otherwise.
    notes
        Remarks of the constructor: what was left out, filled in or found constant, counted.
    shared
        What `derive.share` attached. Slices have their part of it, changed copies nothing.

    Raises
    ------
    PanelError
        Arrays that do not fit each other, infinities, duplicates, unsorted rows.

    Examples
    --------
    >>> panel = Panel.from_arrays(np.array([[0.01, 0.02], [np.nan, 0.03]]), assets=["A", "B"])
    >>> panel
    Panel(2 periods 0..1, 2 assets, 3 rows, excess_return)
    >>> panel.wide()
    array([[0.01, 0.02],
           [ nan, 0.03]])
    """

    times: npt.NDArray[Any]
    assets: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]
    asset_codes: npt.NDArray[np.int32]
    values: npt.NDArray[np.float64]
    value_kind: ValueKind = "excess_return"
    frequency: Frequency | None = None
    characteristics: npt.NDArray[Any] | None = None
    characteristic_names: tuple[str, ...] = ()
    weights: npt.NDArray[np.float64] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    context: npt.NDArray[np.float64] | None = None
    context_names: tuple[str, ...] = ()
    observed_factors: npt.NDArray[np.float64] | None = None
    observed_factor_names: tuple[str, ...] = ()
    series: SeriesInfo | None = None
    transforms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shared: Mapping[str, PerPeriod] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        from latentfactors.validate import check_panel

        for name, array in check_panel(self).items():
            object.__setattr__(self, name, array)

    # ---------------------------------------------------------------- constructors

    @classmethod
    def from_frame(
        cls,
        frame: IntoDataFrame,
        *,
        time: str,
        asset: str,
        value: str,
        characteristics: Sequence[str] = (),
        lag: int,
        weights: str | None = None,
        attributes: Sequence[str] = (),
        context: Sequence[str] = (),
        observed_factors: Sequence[str] = (),
        frequency: Frequency | None = None,
        value_kind: ValueKind = "excess_return",
    ) -> Panel:
        """Build a panel from a long frame: one line per date and asset.

        Parameters
        ----------
        frame
            pandas, polars or pyarrow. Not written to. Unsorted lines are sorted.
        time, asset, value
            Column names. Dates become period ends; two dates in one period are an error.
        characteristics, weights, attributes, context
            Columns known before a period. `context` is constant within a date.
        lag
            0: what a line says was known before its period. 1: it became known *in* that period, so it
            moves one period forward: row (p, i) exists if and only if the frame has (p-1, i), its value is
            that of the frame's (p, i), else NaN. So the live period after the last date is there; values
            without a line one period earlier are left out and counted in `notes`.
        observed_factors
            Columns realised in the period, constant within a date; never moved.
        frequency
            Inferred from clean spacing when None; required with lag=1 on dates whose spacing is not clean.
        value_kind
            What `value` is; excess returns are never reduced by a risk-free rate again.

        Raises
        ------
        PanelError, FrequencyError
            Unknown columns, duplicates, unparseable or off-frequency dates, infinities, text in a number
            column, swapped time and asset columns, no observed value.

        Examples
        --------
        >>> import polars as pl
        >>> months = ["2020-01-31", "2020-02-29"] * 2
        >>> firms, returns = ["A", "A", "B", "B"], [0.01, 0.02, 0.03, -0.01]
        >>> frame = pl.DataFrame({"month": months, "firm": firms, "ret": returns, "size": [1, 2, 3, 4]})
        >>> panel = Panel.from_frame(
        ...     frame, time="month", asset="firm", value="ret", characteristics=["size"], lag=1
        ... )
        >>> [str(time) for time in panel.times], panel.period(1).values  # March is live: rows, no values yet
        (['2020-02-29', '2020-03-31'], array([nan, nan]))
        """
        from latentfactors.ingest import build_panel
        from latentfactors.sources import Columns, FrameSource

        columns = Columns.of(
            time, asset, value, characteristics, weights, attributes, context, observed_factors
        )
        return build_panel(FrameSource(frame, columns.names()), columns, lag, frequency, value_kind)

    @classmethod
    def from_parquet(
        cls,
        path: str | Path,
        *,
        time: str,
        asset: str,
        value: str,
        characteristics: Sequence[str] = (),
        lag: int,
        weights: str | None = None,
        attributes: Sequence[str] = (),
        context: Sequence[str] = (),
        observed_factors: Sequence[str] = (),
        frequency: Frequency | None = None,
        value_kind: ValueKind = "excess_return",
    ) -> Panel:
        """Build a panel from a Parquet file, column by column, so that the panel is the only full copy.

        Parameters and errors are those of `from_frame`.
        """
        from latentfactors.ingest import build_panel
        from latentfactors.sources import Columns, ParquetSource

        columns = Columns.of(
            time, asset, value, characteristics, weights, attributes, context, observed_factors
        )
        return build_panel(ParquetSource(path), columns, lag, frequency, value_kind)

    @classmethod
    def from_wide(
        cls,
        data: IntoDataFrame | npt.ArrayLike,
        *,
        universe: Literal["span", "all"] | npt.ArrayLike,
        times: npt.ArrayLike | str | None = None,
        assets: npt.ArrayLike | None = None,
        frequency: Frequency | None = None,
        value_kind: ValueKind = "excess_return",
        series: SeriesInfo | None = None,
    ) -> Panel:
        """Build a panel from a (T, N) table: a row per period, a column per asset.

        Parameters
        ----------
        data
            Frame or array. Columns keep their order and become the assets.
        universe
            Which cells are rows. "span": from an asset's first to its last observed value, which describes
            the past but whose right edge knows the future. "all": every cell (macro series). A (T, N) boolean
            mask known in real time: to trade.
        times
            A frame's time column by name (None: the index of a pandas frame), or an array's (T,) dates or
            integers (None: 0..T-1).
        assets
            (N,) labels of an array's columns; None counts 0..N-1.
        frequency, value_kind, series
            As in the class.

        Raises
        ------
        PanelError, FrequencyError
            As in `from_frame`; a mask of another shape.

        Examples
        --------
        >>> Panel.from_wide([[0.1, np.nan], [0.2, 0.3], [np.nan, 0.1]], universe="span")
        Panel(3 periods 0..2, 2 assets, 4 rows, excess_return)
        """
        from latentfactors.wide import panel_from_wide

        return panel_from_wide(data, universe, times, assets, frequency, value_kind, series)

    @classmethod
    def from_arrays(
        cls,
        values: npt.ArrayLike,
        characteristics: npt.ArrayLike | None = None,
        *,
        times: npt.ArrayLike | None = None,
        assets: npt.ArrayLike | None = None,
        characteristic_names: Sequence[str] | None = None,
        frequency: Frequency | None = None,
        value_kind: ValueKind = "excess_return",
    ) -> Panel:
        """Build a panel from aligned arrays: values (T, N) and, if any, characteristics (T, N, L).

        A cell without a value *and* without any characteristic is not a row. Characteristics in cell (t, i)
        were known before period t: shift them yourself if they were not.

        Raises
        ------
        PanelError, FrequencyError
            Shapes that do not fit, infinities, no observed value, bad times.

        Examples
        --------
        >>> values = np.array([[0.1, np.nan], [0.2, 0.3]])
        >>> Panel.from_arrays(values, np.ones((2, 2, 1)), characteristic_names=["size"]).n_rows
        4
        """
        from latentfactors.wide import panel_from_arrays

        return panel_from_arrays(
            values, characteristics, times, assets, characteristic_names, frequency, value_kind
        )

    @classmethod
    def join_frequencies(cls, monthly: Panel, quarterly: Panel) -> Panel:
        """One monthly series panel in which a quarter's value stands on its last month.

        Examples
        --------
        >>> macro = {"times": ["2020-03-31"], "universe": "all", "value_kind": "series"}
        >>> monthly = Panel.from_wide([[3.0]], assets=["ip"], frequency="M", **macro)
        >>> quarterly = Panel.from_wide([[9.0]], assets=["gdp"], frequency="Q", **macro)
        >>> Panel.join_frequencies(monthly, quarterly).wide()
        array([[3., 9.]])
        """
        from latentfactors.derive import join_frequencies

        return join_frequencies(monthly, quarterly)

    # ---------------------------------------------------------------- size and index

    @property
    def index(self) -> RowIndex:
        """The ragged row index."""
        return RowIndex(self.times, self.assets, self.offsets, self.asset_codes, self.frequency)

    @property
    def n_periods(self) -> int:
        """Number of periods T."""
        return self.times.size

    @property
    def n_assets(self) -> int:
        """Number of labels N; views keep all labels, `active_assets` are those with rows."""
        return self.assets.size

    @property
    def n_rows(self) -> int:
        """Number of rows R."""
        return self.values.size

    @property
    def observed(self) -> npt.NDArray[np.bool_]:
        """(R,) the one observation mask of the library."""
        return np.isfinite(self.values)

    @property
    def active_assets(self) -> npt.NDArray[np.bool_]:
        """(N,) assets with at least one row."""
        return np.bincount(self.asset_codes, minlength=self.n_assets) > 0

    @property
    def n_realised(self) -> int:
        """Number of periods up to the last one with an observed value; the rest is live."""
        rows = np.flatnonzero(self.observed)
        return int(np.searchsorted(self.offsets, rows[-1], side="right")) if rows.size else 0

    # ---------------------------------------------------------------- views

    def wide(self) -> npt.NDArray[np.float64]:
        """(T, N) values, NaN where there is no row or no value."""
        return self.index.dense(self.values)

    def period(self, p: int) -> PeriodRows:
        """Rows of the period at position `p` (negative from the end)."""
        p = range(self.n_periods)[p]
        rows = self.index.rows(p)
        return PeriodRows(
            self.times[p],
            self.assets[self.asset_codes[rows]],
            self.values[rows],
            None if self.characteristics is None else self.characteristics[rows],
            None if self.weights is None else self.weights[rows],
        )

    def between(self, a: int, b: int) -> Panel:
        """Periods at positions a..b-1, without copying rows. Labels stay; models use active assets only."""
        from latentfactors.derive import slice_periods

        return slice_periods(self, a, b)

    def until(self, time: Any) -> Panel:
        """All periods up to and including the one named by `time`, without copying rows."""
        return self.between(0, self.index.position(time) + 1)

    # ---------------------------------------------------------------- changed copies

    def mask(self, cells: npt.ArrayLike) -> Panel:
        """The same panel with the marked values hidden; `cells` is boolean, (R,) by row or (T, N)."""
        from latentfactors.derive import hide_values

        return hide_values(self, cells)

    def select(self, assets: npt.ArrayLike) -> Panel:
        """The rows of some assets, in the order given; also the way to permute assets."""
        from latentfactors.derive import select_assets

        return select_assets(self, assets)

    def extend(self, n: int) -> Panel:
        """Append `n` future periods with the last period's rows and all they carry; values are NaN.

        Of a macro panel (`value_kind="series"`) every series goes on, also one that ends before the others.

        Raises
        ------
        FrequencyError
            When dates have no frequency, so that the next period is unknown.
        """
        from latentfactors.derive import extend_panel

        return extend_panel(self, n)

    def with_values(self, values: npt.ArrayLike) -> Panel:
        """The same rows with other values (R,)."""
        from latentfactors.derive import replace_values

        return replace_values(self, values)

    def with_observed_factors(self, frame: IntoDataFrame, *, time: str | None = None) -> Panel:
        """Add or replace factors realised in the period: a column each, NaN in periods the frame lacks.

        `time` names the frame's time column (None: the index of a pandas frame).
        """
        from latentfactors.ingest import period_columns

        names, columns = period_columns(self, frame, time, lag=0)
        return replace(self, observed_factors=columns, observed_factor_names=names)

    def with_context(self, frame: IntoDataFrame, lag: int, *, time: str | None = None) -> Panel:
        """Add or replace period-level variables; lag=1 moves a variable known in p-1 to the row set of p."""
        from latentfactors.ingest import period_columns

        names, columns = period_columns(self, frame, time, lag=lag)
        return replace(self, context=columns, context_names=names)

    def with_attributes(self, frame: IntoDataFrame, *, asset: str) -> Panel:
        """Add static categories: one line per asset, every column but `asset` an attribute."""
        from latentfactors.ingest import asset_attributes

        return replace(self, attributes={**self.attributes, **asset_attributes(self, frame, asset)})

    # ---------------------------------------------------------------- identity and size

    def digests(self) -> list[str]:
        """(T,) chained fingerprints: link p covers periods 0..p, so a new month changes no earlier link."""
        from latentfactors.derive import digest_chain

        return digest_chain(self)

    def __sizeof__(self) -> int:
        # Dask asks for this to decide whether to send an argument once or with every task.
        arrays = [getattr(self, each.name) for each in fields(self)]
        arrays += [attribute.codes for attribute in self.attributes.values()]
        size = sum(each.nbytes for each in arrays if isinstance(each, np.ndarray))
        return object.__sizeof__(self) + size + sum(map(sys.getsizeof, self.shared.values()))

    def __repr__(self) -> str:
        span = f"{self.times[0]}..{self.times[-1]}" if self.n_periods else "empty"
        parts = [f"{self.n_periods} periods {span}", f"{self.n_assets} assets", f"{self.n_rows} rows"]
        named = {"characteristics": self.characteristic_names, "observed factors": self.observed_factor_names}
        parts += [f"{len(names)} {what}" for what, names in named.items() if names]
        parts += [f"attributes {', '.join(self.attributes)}"] * bool(self.attributes)
        parts.append(self.value_kind if self.frequency is None else f"{self.value_kind}, {self.frequency!r}")
        return f"Panel({', '.join(parts)})"
