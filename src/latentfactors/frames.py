"""Results out to frames and files, with the names that backtesters read.

    predictions.parquet   timestamp, asset, prediction_value, target_timestamp[, prediction_std]
    weights.parquet       timestamp, asset, weight, selected

`timestamp` is the origin: the last period whose values were known. Tools act and measure after it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import narwhals as nw
import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.errors import FrequencyError, PanelError, StoreError

if TYPE_CHECKING:
    from latentfactors.results import AssetForecastResult, AssetWeightsResult
    from latentfactors.rows import RowIndex

__all__ = [
    "FRAMES_FORMAT",
    "Backend",
    "claim_manifest",
    "predictions_frame",
    "to_frame",
    "weights_frame",
    "write_atomically",
    "write_frames",
]

Backend = Literal["polars", "pandas", "pyarrow"]
FRAMES_FORMAT = "latentfactors-frames"


def to_frame(columns: Mapping[str, npt.NDArray[Any]], backend: Backend | str = "polars") -> Any:
    """Columns as a frame of the wanted library.

    Raises
    ------
    PanelError
        For an unknown backend, or one that is not installed.
    """
    if backend not in get_args(Backend):
        raise PanelError(f"backend must be one of {get_args(Backend)}, got {backend!r}")
    # datetime64[D] is a date to polars and pyarrow; pandas knows no day unit and takes seconds.
    data = {
        name: column.astype("datetime64[s]") if backend == "pandas" and column.dtype.kind == "M" else column
        for name, column in columns.items()
    }
    try:
        return nw.from_dict(data, backend=cast(Backend, backend)).to_native()
    except ImportError as error:
        raise PanelError(f"backend {backend!r} is not installed: pip install {backend}") from error


def predictions_frame(
    forecast: AssetForecastResult, *, backend: str = "polars", in_sample: bool = False, as_of: Any = None
) -> Any:
    """Forecasts as a long frame.

    Parameters
    ----------
    forecast
        From a pipeline or a direct predictor.
    backend
        "polars", "pandas" or "pyarrow".
    in_sample
        Keep rows of the training span.
    as_of
        Timestamp of a nowcast; default is the origin.

    Returns
    -------
    frame
        timestamp, asset, prediction_value, target_timestamp, prediction_std if known. NaN rows are left out.

    Raises
    ------
    FrequencyError
        When a forecast's origin or target has no date because the panel has no frequency.
    """
    index = forecast.index
    kept = np.isfinite(forecast.expected_values) & (in_sample | ~forecast.in_sample[index.period_codes])
    columns = _stamps(index, kept, forecast.origins, as_of)
    columns["prediction_value"] = forecast.expected_values[kept]
    columns["target_timestamp"] = _dated(forecast.targets[index.period_codes[kept]], "target")
    if forecast.variance is not None:
        columns["prediction_std"] = np.sqrt(forecast.variance[kept])
    return to_frame(columns, backend)


def weights_frame(weights: AssetWeightsResult, *, backend: str = "polars", in_sample: bool = False) -> Any:
    """Weights as a long frame: timestamp, asset, weight, selected."""
    index = weights.index
    kept = np.isfinite(weights.weights) & (in_sample | ~weights.in_sample[index.period_codes])
    columns = _stamps(index, kept, weights.origins, None)
    columns["weight"] = weights.weights[kept]
    columns["selected"] = weights.weights[kept] != 0
    return to_frame(columns, backend)


def _stamps(
    index: RowIndex, kept: npt.NDArray[np.bool_], origins: npt.NDArray[Any], as_of: Any
) -> dict[str, npt.NDArray[Any]]:
    stamps = origins[index.period_codes[kept]]
    if as_of is not None:
        stamps = np.full(stamps.shape, periods.parse_times([as_of], name="as_of")[0])
    return {"timestamp": _dated(stamps, "origin"), "asset": index.assets[index.asset_codes[kept]]}


def _dated(stamps: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    if stamps.dtype.kind == "M" and np.isnat(stamps).any():
        raise FrequencyError(
            f"a forecast's {what} lies outside the panel and has no date without a frequency: "
            "state frequency='M', 'Q', 'W', 'B' or 'D' when building the panel"
        )
    return stamps


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a reader sees the old content or the new, never half of it."""
    _write_together({path: content})


def _write_together(contents: Mapping[Path, bytes]) -> None:
    """Prepare every file beside its place, then put them in place one after another."""
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            temporaries[path].write_bytes(content)
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def write_frames(
    directory: str | Path,
    *,
    predictions: Any = None,
    weights: Any = None,
    manifest: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write `predictions.parquet`, `weights.parquet` and `manifest.json`; nothing else there is touched.

    All files are prepared before the first is put in place, so a failure leaves the old ones.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    PanelError
        Something that is no frame.
    StoreError
        A directory that cannot be written into, one whose `manifest.json` belongs to something else, or a
        manifest with entries that JSON lacks (NaN).
    """
    folder = Path(directory)
    contents: dict[str, bytes] = {}
    for name, frame in (("predictions", predictions), ("weights", weights)):
        if frame is not None:
            contents[f"{name}.parquet"] = _parquet(frame, name)
    files = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in contents.items()
    }
    document = {**(manifest or {}), "format": FRAMES_FORMAT, "files": files}
    try:
        text = json.dumps(document, indent=2, allow_nan=False, default=str)
    except (TypeError, ValueError) as error:
        raise StoreError(f"the manifest cannot be written as JSON: {error}") from error
    contents["manifest.json"] = f"{text}\n".encode()
    claim_manifest(folder, FRAMES_FORMAT)
    _write_together({folder / name: data for name, data in contents.items()})
    return [folder / name for name in contents]


def _parquet(frame: Any, name: str) -> bytes:
    try:
        opened = nw.from_native(frame, eager_only=True)
    except TypeError as error:
        raise PanelError(
            f"{name} must be a pandas, polars or pyarrow frame, got {type(frame).__name__}"
        ) from error
    buffer = io.BytesIO()
    opened.to_polars().write_parquet(buffer)
    return buffer.getvalue()


def claim_manifest(folder: Path, file_format: str) -> None:
    """Make `folder` ready to be written into, unless its `manifest.json` belongs to something else.

    Raises
    ------
    StoreError
        `folder` is a file, or holds a manifest of another format.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{str(folder)!r} is a file, expected a directory to write into")
    folder.mkdir(parents=True, exist_ok=True)
    present = folder / "manifest.json"
    raw = present.read_bytes().strip() if present.exists() else b""
    # A damaged file of ours may be replaced, so the text is searched and not parsed.
    if raw and f'"format": "{file_format}"'.encode() not in raw:
        raise StoreError(
            f"{str(present)!r} belongs to something else (no {file_format!r}): choose another directory"
        )
