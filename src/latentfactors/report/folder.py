"""A run folder read back: checked against its manifest, forecasts beside what came true.

The forecasts are those of predictions.parquet, put beside the realised values of report-data.zip by target
and asset, so a report shows what was published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latentfactors.errors import StoreError
from latentfactors.evaluate.audit import AuditCertificate, AuditTrial
from latentfactors.frames import write_atomically
from latentfactors.report.data import REPORT_DATA, RunData, sha256_of
from latentfactors.track_record import TrackRecord

__all__ = ["AUDIT", "Run", "read_run", "write_certificates"]

AUDIT = "audit.json"


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """A run folder: manifest, metrics (polars), data, audits; records, all on the same rows."""

    folder: Path
    manifest: Mapping[str, Any]
    metrics: Any
    data: RunData
    records: Mapping[str, TrackRecord]
    certificates: Mapping[str, AuditCertificate] = field(default_factory=dict)


def write_certificates(folder: str | Path, certificates: Mapping[str, AuditCertificate]) -> Path:
    """Put the audits of a run's predictors into its folder, as `audit.json`, for the report to print.

    Parameters
    ----------
    folder
        Of a run; its manifest says what the audits belong to.
    certificates
        Predictor's name -> what `evaluate.audit` returned.

    Raises
    ------
    StoreError
        No run, or names that are no predictors of it.
    """
    run = read_run(folder)
    unknown = [name for name in certificates if name not in run.records]
    if unknown:
        raise StoreError(f"{str(folder)!r} has no predictor {unknown[0]!r}, only {', '.join(run.records)}")
    content = {
        "digest": run.manifest["panel"]["digest"],
        "certificates": {name: asdict(each) for name, each in certificates.items()},
    }
    path = run.folder / AUDIT
    write_atomically(path, json.dumps(content, indent=1).encode())
    return path


def read_run(folder: str | Path) -> Run:
    """Read a folder that `latentfactors walk-forward` or `latentfactors demo` wrote.

    Raises
    ------
    StoreError
        No run, files of two runs mixed, damaged or changed ones.
    """
    import polars as pl

    folder = Path(folder)
    if not folder.is_dir():
        raise StoreError(f"there is no run folder {str(folder)!r}")
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{str(folder)!r} is no run folder: it has no manifest.json") from None
    except ValueError:
        raise StoreError(f"{str(folder / 'manifest.json')!r} is damaged: run the job again") from None
    if not _is_manifest(manifest):
        raise StoreError(f"{str(folder)!r} is no run of latentfactors walk-forward: another manifest.json")
    sums = {name: each["sha256"] for name, each in manifest["files"].items()} | manifest.get(
        "extra_files", {}
    )
    contents = {name: _checked(folder / name, expected) for name, expected in sums.items()}
    if REPORT_DATA not in contents or "metrics.csv" not in contents:
        raise StoreError(f"{str(folder)!r} was written before there were reports: run the job again")
    data = RunData.from_bytes(contents[REPORT_DATA])
    if list(data.fits) != list(manifest["predictors"]):
        raise StoreError(
            f"{str(folder)!r} holds data of other predictors than its manifest names: run it again"
        )
    table = pl.read_csv(contents["metrics.csv"], schema_overrides={"name": pl.String})
    predictions = None
    if "predictions.parquet" in contents:
        predictions = pl.read_parquet(contents["predictions.parquet"])
    records = {name: _record(data, predictions, name) for name in manifest["predictors"]}
    certificates = _certificates(folder / AUDIT, manifest)
    return Run(
        folder=folder, manifest=manifest, metrics=table, data=data, records=records, certificates=certificates
    )


def _certificates(path: Path, manifest: Mapping[str, Any]) -> dict[str, AuditCertificate]:
    """What `write_certificates` wrote for this data; that of other data is left alone."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
        found = {
            name: AuditCertificate(
                **{
                    **each,
                    "cuts": tuple(each["cuts"]),
                    "notes": tuple(each["notes"]),
                    "trials": tuple(AuditTrial(**trial) for trial in each["trials"]),
                }
            )
            for name, each in content["certificates"].items()
        }
        digest = content["digest"]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise StoreError(f"{str(path)!r} is damaged: audit again, or remove it") from None
    if digest != manifest["panel"]["digest"]:
        return {}
    return {name: each for name, each in found.items() if name in manifest["predictors"]}


def _is_manifest(found: Any) -> bool:
    """Whether the parts that are read are there and of their kind."""
    if not isinstance(found, dict):
        return False
    tables = [found.get(key) for key in ("config", "predictors", "panel", "versions", "files")]
    if not all(isinstance(each, dict) for each in (*tables, found.get("extra_files", {}))):
        return False
    nested = [*found["predictors"].values(), *found["files"].values()]
    return (
        all(isinstance(each, dict) for each in nested)
        and all("sha256" in each for each in found["files"].values())
        and {"digest", "notes", "transforms", "value_kind"} <= found["panel"].keys()
        and isinstance(found.get("splits"), list)
    )


def _checked(path: Path, expected: str) -> bytes:
    if not path.is_file():
        raise StoreError(f"{str(path)!r} is missing: run the job again")
    content = path.read_bytes()
    if sha256_of({path.name: content})[path.name] != expected:
        raise StoreError(
            f"{str(path)!r} does not belong to this manifest: it was changed, damaged or left by another "
            "run; run the job again"
        )
    return content


def _record(data: RunData, predictions: Any, name: str) -> TrackRecord:
    """One predictor's forecasts, put beside the realised values by target and asset."""
    import polars as pl

    forecast, variance = np.full((2, data.realised.size), np.nan)
    if predictions is not None:
        keys = {"target_timestamp": data.target_times, "asset": data.assets[data.asset_codes]}
        rows = pl.DataFrame(keys).with_row_index("row")
        own = predictions.filter(pl.col("predictor") == name)
        found = own.join(rows, on=["target_timestamp", "asset"], how="inner", validate="1:1")
        at = found["row"].to_numpy()
        forecast[at] = found["prediction_value"].to_numpy()
        variance[at] = found["prediction_std"].cast(pl.Float64).fill_null(np.nan).to_numpy() ** 2
    unknown = np.full(data.realised.size, np.nan)
    return TrackRecord(
        target_times=data.target_times, asset_codes=data.asset_codes, offsets=data.offsets,
        forecast=forecast, variance=variance, reconstruction=unknown, realised=data.realised,
        own_value=unknown, historical_mean=data.historical_mean,
    )  # fmt: skip
