"""Hyper-parameter searches in a configuration file: which candidates there are and how one is chosen.

    search = { grid = { n_factors = [1, 2, 3] }, validation = 96, step = 48, reselect = "yearly" }

The grid's keys are options of what is searched, each with a list of values to try; the other keys are fields
of `SelectionConfig`. A candidate is what the file would have built with those values written out, so names
and types are checked as they are everywhere else.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentfactors.errors import ConfigurationError
from latentfactors.evaluate.selected import SelectedPredictor, SelectionConfig
from latentfactors.forecasters import NativeFactorForecaster
from latentfactors.mappers import NativeMapper
from latentfactors.panel import Panel
from latentfactors.pipeline import LatentFactorForecastPipeline
from latentfactors.settings import as_table, make, named, refuse_unknown, shown
from latentfactors.validate import count

__all__ = ["ModelSearch", "read_search"]

_MOST = 1000


def read_search(
    section: Any, base: Mapping[str, Any], horizon: int, where: str
) -> tuple[dict[str, dict[str, Any]], SelectionConfig]:
    """Name -> options of every candidate, the grid's last key changing fastest, and how one is chosen.

    Parameters
    ----------
    section
        The table as it was written.
    base
        Options that all candidates share.
    horizon
        That forecasts are judged at unless the section says otherwise.
    where
        The place in words.

    Raises
    ------
    ConfigurationError
        No grid, a key without a list of values, an option that the base states too, more than a thousand
        candidates; an unknown or bad field of `SelectionConfig`.

    Examples
    --------
    >>> points, how = read_search({"grid": {"n_factors": [1, 2]}, "step": 6}, {"alpha": True}, 1, "search")
    >>> points["n_factors=2"], how.step
    ({'alpha': True, 'n_factors': 2}, 6)
    """
    section = as_table(section, where)
    fields = tuple(SelectionConfig.__dataclass_fields__)
    refuse_unknown(section, ("grid", *fields), where)
    if "grid" not in section:
        raise ConfigurationError(f"{where}: grid is missing, expected a table of lists: {{ key = [1, 2] }}")
    grid = as_table(section.pop("grid"), f"{where} grid")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigurationError(
                f"{where} grid {key} must be a list of values to try, got {shown(values)}"
            )
        if key in base:
            raise ConfigurationError(
                f"{where} grid {key}: the option also has the value {shown(base[key])}, leave one of them out"
            )
    for key, values in grid.items():
        if len({str(value) for value in values}) < len(values):
            raise ConfigurationError(f"{where} grid {key} holds a value twice: {shown(values)}")
    points = {
        ", ".join(f"{key}={value}" for key, value in zip(grid, values, strict=True)): {
            **base,
            **dict(zip(grid, values, strict=True)),
        }
        for values in itertools.islice(itertools.product(*grid.values()), _MOST + 1)
    }
    if not grid or len(points) > _MOST:
        raise ConfigurationError(
            f"{where} grid must hold 1 to {_MOST:,} candidates, got {'none' if not grid else 'more'}"
        )
    return points, make(SelectionConfig, {"horizon": horizon, **section}, where)


@dataclass(frozen=True)
class ModelSearch:
    """Models among which forecasts choose.

    Attributes
    ----------
    models : name -> unfitted model with native forecasts, from plain to rich
    config : how
    """

    models: Mapping[str, Any]
    config: SelectionConfig

    @property
    def said(self) -> str:
        """What is chosen from, and by what."""
        return (
            f"{count(len(self.models), 'candidate')} by forecasts of the last "
            f"{count(self.config.validation, 'period')}"
        )

    def fit(self, panel: Panel, *, n_jobs: int | None = None) -> tuple[Any, str]:
        """The best model, fitted on the panel, and its name.

        Raises
        ------
        LatentFactorsError
            What `SelectedPredictor.fit` raises.
        """
        candidates = {
            name: LatentFactorForecastPipeline(
                model=model.clone(), forecaster=NativeFactorForecaster(), mapper=NativeMapper()
            )
            for name, model in self.models.items()
        }
        found = SelectedPredictor(candidates, self.config, n_jobs=n_jobs)
        with named("[search]"):
            found.fit(panel)
        return found.chosen.model, found.selection.chosen
