"""The folder of a vintage store: releases.parquet and vintages.json."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentfactors.errors import LatentFactorsError, StoreError
from latentfactors.frames import write_atomically
from latentfactors.rows import SeriesInfo

if TYPE_CHECKING:
    from latentfactors.nowcast.vintages import VintageStore

__all__ = ["read_store", "write_store"]

_FORMAT, _VERSION = "latentfactors-vintages", 1
_TABLE, _HEAD = "releases.parquet", "vintages.json"


def write_store(store: VintageStore, folder: Path) -> Path:
    """Write both files, the head last; other files in the folder are left alone.

    Raises
    ------
    StoreError
        A folder that cannot be written into.
    """
    import polars as pl

    frame = pl.DataFrame(
        {"code": store.code, "period": store.period, "release": store.release, "value": store.value}
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    table = buffer.getvalue()
    head = {
        "format": _FORMAT,
        "version": _VERSION,
        "series": store.series.tolist(),
        "info": asdict(store.info),
        "frequency": store.frequency,
        "codes": list(store.codes),
        "transforms": list(store.transforms),
        "sha256": hashlib.sha256(table).hexdigest(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _TABLE, table)
        write_atomically(folder / _HEAD, (json.dumps(head, indent=1) + "\n").encode())
    except OSError as error:
        raise StoreError(f"{str(folder)!r} cannot be written: {error}") from error
    return folder


def read_store(folder: Path) -> VintageStore:
    """Read what `write_store` wrote; see `VintageStore.load`."""
    import polars as pl

    from latentfactors.nowcast.vintages import VintageStore

    try:
        head = json.loads((folder / _HEAD).read_text(encoding="utf-8"))
        table = (folder / _TABLE).read_bytes()
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(folder)!r} holds no vintage store: {error}") from error
    if not isinstance(head, dict) or (head.get("format"), head.get("version")) != (_FORMAT, _VERSION):
        raise StoreError(f"{str(folder / _HEAD)!r} was not written by this version of VintageStore.save")
    if hashlib.sha256(table).hexdigest() != head.get("sha256"):
        raise StoreError(f"{str(folder / _TABLE)!r} does not match its checksum: it was changed or damaged")
    try:
        frame = pl.read_parquet(io.BytesIO(table))
        labels = head["series"]
        kind = np.int64 if labels and all(isinstance(each, int) for each in labels) else str
        return VintageStore(
            series=np.array(labels, dtype=kind),
            info=SeriesInfo(**{key: tuple(column) for key, column in head["info"].items()}),
            frequency=head["frequency"],
            code=frame["code"].to_numpy(),
            period=frame["period"].to_numpy().astype("datetime64[D]"),
            release=frame["release"].to_numpy().astype("datetime64[D]"),
            value=frame["value"].to_numpy(),
            codes=tuple(head["codes"]),
            transforms=tuple(head["transforms"]),
        )
    except (KeyError, TypeError, pl.exceptions.PolarsError, LatentFactorsError) as error:
        raise StoreError(f"{str(folder)!r} is damaged: {error}") from error
