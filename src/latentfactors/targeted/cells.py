"""Laws of single cells under a fitted targeted model: what nowcasting asks, between a panel and the kernels.

A row of the kernels holds a period's predictors beside the targets `lead` periods later. The rows of the
first targets, whose predictors lie before all data, are kept: targets of one period speak about each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.conditional import Cell, ConditionalLaw, locate_cells
from latentfactors.errors import PanelMismatchError
from latentfactors.kernels.targeted_cells import completed_rows, completed_states, row_law, state_law
from latentfactors.panel import Panel
from latentfactors.targeted.series import TargetedSeries
from latentfactors.targeted.states import StateParameters, block_columns, make_blocks, to_kernel

__all__ = ["CellReader"]

FloatArray = npt.NDArray[np.float64]


class CellReader(NamedTuple):
    """A fitted targeted model as the joint law of all cells.

    Parameters
    ----------
    series
        Names, units, lead.
    loadings : (p + q, k)
        Of standardised series.
    variances : s_x^2 and s_y^2
        Of a model without states: numbers, or (B + T,) of the pairs of each period.
    states
        Coefficients, kinds and noise variances; None without dynamics and aggregates.
    who
        Name for messages.
    """

    series: TargetedSeries
    loadings: FloatArray
    variances: tuple[float | FloatArray, float | FloatArray]
    states: StateParameters | None
    who: str

    def law(self, panel: Panel, values: FloatArray, before: int, cells: Sequence[Cell]) -> ConditionalLaw:
        """The joint law of cells (series, period) of a panel.

        Parameters
        ----------
        panel
            What is known.
        values : (B + T, p + q)
            Its standardised values, B periods of training before it.
        before
            B.
        cells
            Pairs (series, period).

        Raises
        ------
        ConfigurationError, PanelMismatchError, PanelError
            No cells; a series that training did not know, or a period in which it has no value; a period
            outside the panel.
        """
        series, lead, p = self.series, self.series.lead, self.series.n_predictors
        asked = locate_cells(panel, cells, series.labels, self.who)
        rows = self._rows(values)
        # targets stand beside the predictors `lead` periods earlier, which `_rows` puts `lead` rows later
        places = [(before + t + (lead if j < p else 0), j) for t, j in asked]
        if self.states is None:
            found = row_law(rows, self.loadings, self._noise(rows), places)
        else:
            self._refuse_inside(panel, asked)
            times, states = self._times(panel, before), self.states
            blocks = make_blocks(rows, times, states, p, lead)
            kernel = to_kernel(self.loadings, states, p)
            found = state_law(blocks, block_columns(states.kinds, p), kernel, places)
        columns = np.array([j for _, j in asked])
        location, scale = series.location[columns], series.scale[columns]
        moving = not all(isinstance(each, float) for each in self.variances)
        return ConditionalLaw(
            mean=location + scale * found.mean,
            covariance=found.covariance * np.outer(scale, scale),
            # where variances move they are read off the values, and the mean is not linear in them
            weights=None if moving else self._by_row(panel, before, scale, self._unpair(found.weights)),
        )

    def expected(self, panel: Panel, values: FloatArray, before: int) -> FloatArray:
        """(R,) every row's value, observed or its mean given the whole panel; NaN for unknown series."""
        series, p = self.series, self.series.n_predictors
        rows = self._rows(values)
        if self.states is None:
            filled = completed_rows(rows, self.loadings, self._noise(rows))
        else:
            blocks = make_blocks(rows, self._times(panel, before), self.states, p, series.lead)
            columns = block_columns(self.states.kinds, p)
            filled = completed_states(blocks, columns, to_kernel(self.loadings, self.states, p))
        means = (series.location + series.scale * self._unpair(filled))[before:]
        known = panel.index.match_assets(series.labels)[panel.asset_codes]
        by_row = means[panel.index.period_codes, np.maximum(known, 0)]
        return np.where(known >= 0, np.where(panel.observed, panel.values, by_row), np.nan)

    def _rows(self, values: FloatArray) -> FloatArray:
        """(lead + T, d): row i has the targets of period i and the predictors of period i - lead."""
        lead, p = self.series.lead, self.series.n_predictors
        out = np.full((len(values) + lead, values.shape[1]), np.nan)
        out[lead:, :p] = values[:, :p]
        out[: len(values), p:] = values[:, p:]
        return out

    def _unpair(self, rows: FloatArray) -> FloatArray:
        """(..., T, d) of (..., lead + T, d): every period's own predictors and targets."""
        lead, p = self.series.lead, self.series.n_predictors
        n = rows.shape[-2] - lead
        return np.concatenate([rows[..., lead:, :p], rows[..., :n, p:]], axis=-1)

    def _noise(self, rows: FloatArray) -> FloatArray:
        """(lead + T, d) variances; rows before the data have those of the first pair."""
        p, (n, d) = self.series.n_predictors, rows.shape
        out = np.empty((n, d))
        for part, variance in zip((slice(0, p), slice(p, d)), self.variances, strict=True):
            path = np.broadcast_to(variance, (n - self.series.lead,))
            out[:, part] = np.concatenate([np.full(self.series.lead, path[0]), path])[:, None]
        return out

    def _times(self, panel: Panel, before: int) -> npt.NDArray[Any]:
        """(lead + B + T,) periods of the rows' predictors."""
        times = self.series.times(panel.index, before)
        if not self.series.lead:
            return times
        frequency = self.states.frequency if self.states is not None else panel.frequency
        earlier = periods.neighbour(times, -self.series.lead, frequency)[: self.series.lead]
        return np.concatenate([earlier, times])

    def _refuse_inside(self, panel: Panel, asked: Sequence[tuple[int, int]]) -> None:
        assert self.states is not None
        for t, j in asked:
            name, _, low = self.states.kinds[j].partition(":")
            own = periods.check_frequency(low) if name else None
            if own is None:
                continue
            following = periods.shift(panel.times[t : t + 1], 1, self.states.frequency)
            if periods.period_end(following, own) == periods.period_end(panel.times[t : t + 1], own):
                raise PanelMismatchError(
                    f"series {self.series.labels[j]!r} of frequency {own!r} has no value in "
                    f"{panel.times[t]}: its values stand in the last period of each of its own"
                )

    def _by_row(self, panel: Panel, before: int, scale: FloatArray, weights: FloatArray) -> FloatArray:
        """(C, R) weights of the panel's rows in input units, from (C, B + T, d)."""
        per_value = scale[:, None, None] * weights[:, before:] / self.series.scale
        known = panel.index.match_assets(self.series.labels)[panel.asset_codes]
        return np.where(known >= 0, per_value[:, panel.index.period_codes, np.maximum(known, 0)], 0.0)
