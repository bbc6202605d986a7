"""Snapshots of nowcasts: what earlier runs of a nowcast job left in their folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latentfactors.errors import ConfigurationError, LatentFactorsError, StoreError
from latentfactors.estimator import Estimator
from latentfactors.nowcast import VintageStore
from latentfactors.panel import Panel
from latentfactors.periods import parse_times

__all__ = ["SNAPSHOT_FORMAT", "Snapshot", "check_folder", "read_snapshots"]

SNAPSHOT_FORMAT = "latentfactors-nowcast"


@dataclass(frozen=True, eq=False, kw_only=True)
class Snapshot:
    """What an earlier run left: its day, target, nowcasts, model and vintage.

    Attributes
    ----------
    as_of, target
    means, deviations : period (text) -> number
    folder
    """

    as_of: np.datetime64
    target: str
    means: Mapping[str, float]
    deviations: Mapping[str, float]
    folder: Path

    def model(self, kind: type[Estimator[Any, Any]]) -> Any:
        """The fitted model."""
        return kind.load(self.folder / "model")

    def panel(self) -> Panel:
        """The vintage."""
        return VintageStore.load(self.folder / "vintage").as_of(self.as_of)


def read_snapshots(output: str | Path, target: str) -> tuple[Snapshot, ...]:
    """Snapshots of a target in a folder, oldest first.

    Raises
    ------
    StoreError
        A snapshot that is damaged.
    """
    found = []
    for path in sorted(Path(output).glob("*/snapshot.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != SNAPSHOT_FORMAT or document["target"] != target:
                continue
            periods = document["periods"]
            found.append(
                Snapshot(
                    as_of=parse_times([document["as_of"]], name="as_of")[0],
                    target=document["target"],
                    means=dict(zip(periods, document["mean"], strict=True)),
                    deviations=dict(zip(periods, document["std"], strict=True)),
                    folder=path.parent,
                )
            )
        except (OSError, KeyError, TypeError, ValueError, LatentFactorsError) as error:
            raise StoreError(f"{str(path)!r} is no snapshot of a nowcast: {error}") from error
    return tuple(sorted(found, key=lambda each: each.as_of))


def check_folder(folder: Path, target: str) -> None:
    """Refuse a day's folder that belongs to another target.

    Raises
    ------
    ConfigurationError
        It does.
    """
    try:
        other = json.loads((folder / "snapshot.json").read_bytes())["target"]
    except (OSError, ValueError, TypeError, KeyError):  # none there, or a damaged one that is written anew
        return
    if other != target:
        raise ConfigurationError(
            f"{str(folder)!r} holds the nowcast of {other!r}, not of {target!r}: use another [run] output"
        )
