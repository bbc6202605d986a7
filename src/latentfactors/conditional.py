"""Laws of chosen cells of a panel given everything that is observed in it: what nowcasting asks of a model.

A cell is (series, period). A model that can say the joint law of any cells given a panel nowcasts (cells not
yet published), backcasts, forecasts (cells of live periods) and answers scenarios: whatever value stands in
the panel is a condition.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelMismatchError
from latentfactors.estimator import ConfigT, EstimatesT, freeze
from latentfactors.model import LatentFactorModel
from latentfactors.panel import Panel
from latentfactors.periods import first_offenders
from latentfactors.state import FitSummary

__all__ = ["Cell", "ConditionalForecaster", "ConditionalLaw", "ConditionalModel", "locate_cells"]

FloatArray = npt.NDArray[np.float64]
Cell = tuple[Any, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class ConditionalLaw:
    """The joint law of C cells given a panel, in input units.

    Attributes
    ----------
    mean : (C,)
    covariance : (C, C)
        Zero for observed cells. Uncertainty of the state; parameters are taken as known.
    weights : (C, R) or None
        Of every row's value in the mean, 0 where it is not observed: the mean is a constant plus weights @
        values. None where the mean is not linear in the values.
    """

    mean: FloatArray
    covariance: FloatArray
    weights: FloatArray | None = None

    def __post_init__(self) -> None:
        freeze(self)


@runtime_checkable
class ConditionalForecaster(Protocol):
    """A model that says the law of any cells given a panel."""

    def fit(self, panel: Panel) -> FitSummary:
        """Estimate from a panel."""
        ...

    def conditional(self, panel: Panel, cells: Sequence[Cell]) -> ConditionalLaw:
        """The joint law of cells (series, period) of the panel given all its observed values."""
        ...

    def expected_values(self, panel: Panel) -> FloatArray:
        """(R,) every row's value where it is observed, else its mean given the whole panel."""
        ...


class ConditionalModel(LatentFactorModel[ConfigT, EstimatesT]):
    """A latent factor model that says the law of any cells.

    A subclass writes `_conditional` and `_expected_values`.
    """

    def conditional(self, panel: Panel, cells: Sequence[Cell]) -> ConditionalLaw:
        """The joint law of cells (series, period) given the panel: nowcasts, backcasts, scenarios.

        Whatever is observed is a condition, an assumed future value as well as a published one.

        Parameters
        ----------
        panel
            As it is known now, with the live periods of the cells (`panel.extend`).
        cells
            Pairs (series label, period).

        Returns
        -------
        ConditionalLaw
            With the weight of every observation where the law is linear in them, otherwise without weights.

        Raises
        ------
        NotFittedError, PanelMismatchError, GapError, PanelError, ConfigurationError
            Before `fit`; a series that training did not know; a period outside the panel; no cells.
        """
        self._check_panel(panel)
        return self._conditional(panel, self.estimates, cells)

    def expected_values(self, panel: Panel) -> FloatArray:
        """(R,) every row's value, observed or its mean given the whole panel; NaN for unknown series.

        Raises
        ------
        NotFittedError, PanelMismatchError, GapError
            As `conditional`.
        """
        self._check_panel(panel)
        return self._expected_values(panel, self.estimates)

    @abstractmethod
    def _conditional(self, panel: Panel, estimates: EstimatesT, cells: Sequence[Cell]) -> ConditionalLaw: ...

    @abstractmethod
    def _expected_values(self, panel: Panel, estimates: EstimatesT) -> FloatArray: ...


def locate_cells(
    panel: Panel, cells: Sequence[Cell], series: npt.NDArray[Any], who: str
) -> list[tuple[int, int]]:
    """(period, series) positions of cells, counting series in the model's own order.

    Raises
    ------
    ConfigurationError
        No cell, or something that is not a pair (series, period).
    PanelMismatchError
        A series that training did not know; a quarterly series in a month that ends no quarter.
    PanelError
        A period outside the panel.
    """
    pairs = not isinstance(cells, str) and all(isinstance(each, tuple) and len(each) == 2 for each in cells)
    if not pairs or not len(cells):
        raise ConfigurationError(f"cells must be pairs (series, period), at least one, got {cells!r}")
    known = {label: k for k, label in enumerate(series.tolist())}
    unknown = [label for label, _ in cells if label not in known]
    if unknown:
        raise PanelMismatchError(
            f"{who} does not know {first_offenders(map(repr, unknown))} (not in training, constant there, or "
            "hardly observed): name a series with a history"
        )
    quarterly: set[Any] = set()
    if panel.series is not None and panel.frequency == "M":
        labels = panel.assets.tolist()
        quarterly = {label for label, own in zip(labels, panel.series.frequency, strict=True) if own == "Q"}
    found = []
    for label, time in cells:
        position = panel.index.position(time)
        if label in quarterly and panel.times[position].astype("datetime64[M]").astype(int) % 3 != 2:
            raise PanelMismatchError(
                f"quarterly series {label!r} has no value in {panel.times[position]}: a quarter's value "
                "stands in its last month"
            )
        found.append((position, known[label]))
    return found
