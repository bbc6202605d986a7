"""Where columns come from, frames or Parquet files, and how a column is read: dates, labels, numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import narwhals as nw
import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.errors import PanelError
from latentfactors.periods import first_offenders
from latentfactors.validate import check_finite

__all__ = [
    "ColumnSource",
    "Columns",
    "FrameSource",
    "ParquetSource",
    "check_columns",
    "open_frame",
    "period_days",
    "read_dates",
    "read_labels",
    "read_numbers",
]


@dataclass(frozen=True)
class Columns:
    """Which column plays which part."""

    time: str
    asset: str
    value: str
    characteristics: tuple[str, ...]
    weights: str | None
    attributes: tuple[str, ...]
    context: tuple[str, ...]
    observed_factors: tuple[str, ...]

    @classmethod
    def of(
        cls, time: Any, asset: Any, value: Any, characteristics: Any, weights: Any, *groups: Any
    ) -> Columns:
        """Check that lists are lists (a single text would be read letter by letter) and names are names."""
        for name, group in zip(
            ("characteristics", "attributes", "context", "observed_factors"),
            (characteristics, *groups),
            strict=True,
        ):
            if isinstance(group, str) or not isinstance(group, Iterable):
                raise PanelError(f"{name} must be a list of column names, got {group!r}: write [{group!r}]")
        columns = cls(
            time, asset, value, tuple(characteristics), weights, *(tuple(group) for group in groups)
        )
        for name in columns.names():
            if not isinstance(name, Hashable):
                raise PanelError(f"a column name must be text, got {name!r}")
        return columns

    def names(self) -> list[str]:
        """All columns that are read."""
        single = [self.time, self.asset, self.value, *([] if self.weights is None else [self.weights])]
        return [*single, *self.characteristics, *self.attributes, *self.context, *self.observed_factors]


class ColumnSource(Protocol):
    """Something that hands out one column at a time."""

    @property
    def names(self) -> list[str]:
        """All columns there are."""
        ...

    def dtype(self, name: str) -> nw.dtypes.DType:
        """Type of a column, without reading it."""
        ...

    def column(self, name: str) -> nw.Series[Any]:
        """One column."""
        ...


class FrameSource:
    """A pandas, polars or pyarrow frame; of a lazy frame only the columns wanted are collected."""

    def __init__(self, frame: Any, columns: Sequence[str] | None = None) -> None:
        self.frame = open_frame(frame, columns)
        self.names = list(self.frame.columns)

    def dtype(self, name: str) -> nw.dtypes.DType:
        """Type of a column."""
        return self.column(name).dtype

    def column(self, name: str) -> nw.Series[Any]:
        """One column."""
        return self.frame.get_column(name)


class ParquetSource:
    """A Parquet file, read column by column."""

    def __init__(self, path: str | Path) -> None:
        import polars as pl

        self.path = Path(path)
        if not self.path.is_file():
            raise PanelError(f"no Parquet file at {str(path)!r}")
        with self._readable():
            self.schema = pl.read_parquet_schema(self.path)
        self.names = list(self.schema)

    def dtype(self, name: str) -> nw.dtypes.DType:
        """Type of a column, from the file's footer."""
        import polars as pl

        return nw.from_native(pl.Series(dtype=self.schema[name]), series_only=True).dtype

    def column(self, name: str) -> nw.Series[Any]:
        """One column."""
        import polars as pl

        with self._readable():
            table = pl.read_parquet(self.path, columns=[name], glob=False)
            return nw.from_native(table[name], series_only=True)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        import polars as pl

        try:
            yield
        except (pl.exceptions.PolarsError, OSError) as error:
            raise PanelError(f"{str(self.path)!r} is not a readable Parquet file: {error}") from error


def open_frame(frame: Any, columns: Sequence[str] | None = None) -> nw.DataFrame[Any]:
    """Wrap a frame with narwhals; of a lazy frame, `columns` (None: all) are collected."""
    try:
        opened = nw.from_native(frame)
        if isinstance(opened, nw.LazyFrame):
            check_columns(opened.collect_schema().names(), columns or ())
            opened = (opened if columns is None else opened.select(list(columns))).collect()
        check_columns(list(opened.columns), ())
    except PanelError:
        raise
    except TypeError as error:
        raise PanelError(
            f"expected a pandas, polars or pyarrow frame, got {type(frame).__name__}"
            ": build one, or use Panel.from_wide or Panel.from_arrays for arrays"
        ) from error
    except Exception as error:  # whatever a lazy query, or a frame with repeated names, runs into
        raise PanelError(f"the frame cannot be read: {error}") from error
    return opened


def check_columns(available: Sequence[str], names: Sequence[str]) -> None:
    """Refuse unknown and repeated column names."""
    twice = [name for name, times in Counter(available).items() if times > 1]
    if twice:
        raise PanelError(f"the data have several columns named {first_offenders(map(repr, twice))}")
    missing = [name for name in names if name not in available]
    if missing:
        quoted = first_offenders(map(repr, missing))
        raise PanelError(f"no column {quoted}; the data have {first_offenders(map(repr, available), 12)}")
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise PanelError(
            f"every column has one part to play, got {first_offenders(map(repr, repeated))} in several"
        )


# ------------------------------------------------------------------------------------ numbers


def read_numbers(series: nw.Series[Any], name: str, dtype: Any = np.float64) -> npt.NDArray[Any]:
    """A column as floats, nulls as NaN.

    Raises
    ------
    PanelError
        Text, dates and infinities, with the first offender.
    """
    kind = series.dtype
    if kind.is_numeric() or kind == nw.Boolean:
        cast = series.cast(nw.Float32 if dtype == np.float32 else nw.Float64)
        filled = cast.fill_null(float("nan")) if cast.is_null().any() else cast
        numbers = np.asarray(filled.to_numpy()).astype(dtype, copy=False)
    elif kind in (nw.Object, nw.String, nw.Categorical, nw.Enum, nw.Unknown):
        numbers = _numbers_among_objects(series, name, dtype)
    else:
        raise PanelError(f"column {name!r} must hold numbers, got {kind}")
    check_finite(numbers, f"column {name!r}")
    return numbers


def _numbers_among_objects(series: nw.Series[Any], name: str, dtype: Any) -> npt.NDArray[Any]:
    """A column of no numeric type: nothing but nulls is fine, and so are Python numbers; text is not."""
    raw, missing = np.asarray(series.to_numpy()), series.is_null().to_numpy()
    if raw.ndim != 1 or raw.dtype.kind not in "fiubOU":
        raise PanelError(f"column {name!r} must hold numbers, got {raw.dtype}")
    numbers = np.full(raw.shape, np.nan, dtype=dtype)
    for line in np.flatnonzero(~missing):
        try:
            if isinstance(raw[line], str | bytes):
                raise TypeError
            numbers[line] = raw[line]
        except (TypeError, ValueError, OverflowError):
            raise PanelError(
                f"column {name!r} must hold numbers, got {raw[line]!r} in line {line}: "
                "cast it to a number, with null where there is none"
            ) from None
    return numbers


# ------------------------------------------------------------------------------------ labels


def read_labels(series: nw.Series[Any], name: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Sorted unique labels (int64 or str) and the code of every line; -1 for nulls.

    Raises
    ------
    PanelError
        Labels that are neither whole numbers nor text.
    """
    kind = series.dtype
    missing = series.is_null().to_numpy()
    if kind.is_integer() and kind not in (nw.Int128, nw.UInt128) and not missing.any():
        labels, codes = np.unique(periods.as_int64(series.to_numpy(), name), return_inverse=True)
        return labels, codes
    textual = kind in (nw.String, nw.Categorical, nw.Enum, nw.Boolean)
    if not (textual or kind.is_integer() or missing.all() or _holds_plain_objects(series, missing)):
        dated = (
            kind.is_temporal() or kind == nw.Unknown
        )  # pandas periods and zoned datetimes are unknown types
        hint = "are the time and asset columns swapped?" if dated else "cast it to int or text"
        raise PanelError(f"column {name!r} must hold int or text labels, got {kind}: {hint}")
    if missing.all():
        return np.empty(0, dtype="U1"), np.full(missing.size, -1)
    text = series.cast(nw.String)
    labels = np.array(sorted(text.filter(~series.is_null()).unique().to_list()), dtype=str)
    lookup = {label: code for code, label in enumerate(labels.tolist())}
    codes = text.replace_strict(list(lookup), list(lookup.values()), default=-1, return_dtype=nw.Int64)
    return labels, np.where(missing, -1, codes.to_numpy().astype(np.int64))


def _holds_plain_objects(series: nw.Series[Any], missing: npt.NDArray[np.bool_]) -> bool:
    """Whether an object column holds text and whole numbers only."""
    if series.dtype != nw.Object:
        return False
    return all(isinstance(item, str | int | np.integer) for item in series.to_numpy()[~missing])


# ------------------------------------------------------------------------------------ dates


def read_dates(series: nw.Series[Any], name: str) -> npt.NDArray[Any]:
    """A time column as datetime64[D] or int64; a zoned datetime counts by its own clock.

    Raises
    ------
    PanelError
        Missing and unparseable dates, with the first offender.
    """
    kind = series.dtype
    missing = series.is_null().to_numpy()
    if missing.any():
        line = int(np.flatnonzero(missing)[0])
        raise PanelError(f"time column {name!r} has no date in line {line}: drop or repair such lines")
    if kind.is_float() or kind in (nw.Decimal, nw.Boolean, nw.Int128, nw.UInt128):
        raise PanelError(
            f"time column {name!r} must hold dates or integer periods, got {kind}: is it the value column?"
        )
    if kind == nw.Datetime and kind.time_zone is not None:  # type: ignore[attr-defined]
        series = series.dt.replace_time_zone(None)
    if kind in (nw.String, nw.Categorical, nw.Enum):
        labels, codes = read_labels(series, name)  # parse every distinct text once
        return periods.parse_texts(labels, codes, name=name)
    raw = np.asarray(series.to_numpy())
    if raw.dtype.kind == "O" and raw.size and all(hasattr(item, "to_timestamp") for item in raw):
        raw = period_days(raw)
    return periods.parse_times(raw, name=name)


def period_days(items: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The last day of every pandas period."""
    ends = {item: item.to_timestamp(how="end").date() for item in set(items.tolist())}
    return np.array([ends[item] for item in items], dtype="datetime64[D]")
