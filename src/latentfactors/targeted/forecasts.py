"""Forecasts of targeted factors with dynamics or of mixed frequency.

forecasts    filter on x up to p-1 (and on released targets, if asked for), then f_(p-1+h-lead) by the law of
             motion, and the target's window over it. An aggregate is forecast for the periods that end
             one of its own; other rows are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.errors import HorizonError
from latentfactors.kernels.mixed_frequency import SeriesBlock
from latentfactors.kernels.state_space import FilterResult, forecast_states
from latentfactors.kernels.targeted_dynamics import filter_factors, law
from latentfactors.rows import RowIndex
from latentfactors.targeted.leads import target_rows
from latentfactors.targeted.refits import StateDraws
from latentfactors.targeted.series import TargetedSeries
from latentfactors.targeted.states import (
    StateParameters,
    make_blocks,
    to_kernel,
    window_lengths,
    window_weights,
)

__all__ = ["StateForecasts"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class StateForecasts:
    """Native forecasts of a targeted model with dynamics or aggregates.

    Parameters
    ----------
    index
        Rows of the panel.
    series
        Names and units.
    before
        Periods put before the panel's own, B.
    times : (B + T,)
        All periods.
    given : (B + T, p + q)
        Standardised values that the filter looked at.
    loadings : (p + q, k)
        Of standardised series.
    parameters, who
        `StateParameters`, name for messages.
    draws
        Bootstrap refits, whose spread is added to variances; None: plug-in variances.
    """

    index: RowIndex
    series: TargetedSeries
    before: int
    times: npt.NDArray[Any]
    given: FloatArray
    loadings: FloatArray
    parameters: StateParameters
    filtered: FilterResult
    blocks: list[SeriesBlock]
    who: str
    draws: StateDraws | None = None

    @classmethod
    def of(
        cls,
        index: RowIndex,
        given: FloatArray,
        before: int,
        series: TargetedSeries,
        loadings: FloatArray,
        parameters: StateParameters,
        who: str,
        draws: StateDraws | None = None,
    ) -> StateForecasts:
        """Filter what is given, period by period."""
        times = series.times(index, before)
        blocks = make_blocks(given, times, parameters, series.n_predictors, series.lead)
        kernel = to_kernel(loadings, parameters, series.n_predictors)
        filtered = filter_factors(blocks, kernel, by_period=True)
        return cls(
            index=index,
            series=series,
            before=before,
            times=times,
            given=given,
            loadings=loadings,
            parameters=parameters,
            filtered=filtered,
            blocks=blocks,
            who=who,
            draws=draws,
        )

    def moments(self, horizon: int) -> tuple[FloatArray, FloatArray]:
        """(B + T + 1, m) and (B + T + 1, m, m): the state `horizon` periods after each origin.

        The first origin lies before all data: the stationary state.
        """
        motion = law(self.blocks, to_kernel(self.loadings, self.parameters, self.series.n_predictors))
        mean = np.concatenate([motion.start_mean[None], self.filtered.mean])
        covariance = np.concatenate([motion.start_covariance[None], self.filtered.covariance])
        if horizon == 0:
            return mean, covariance
        return forecast_states(mean, covariance, motion, horizon)

    def factors(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        """(T, k) means and (T, k, k) covariances of what drives the targets of p-1+horizon, known in p-1.

        That is f_(p-1+horizon), with a lead f_(p-1+horizon-lead).
        """
        mean, covariance = self.moments(self._check(horizon))
        k, rows = self.loadings.shape[1], slice(self.before, -1)
        return mean[rows, :k], covariance[rows, :k, :k]

    def values(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        """(R,) means and variances in input units of the targets of p-1+horizon; other rows are NaN."""
        mean, variance = self.targets(horizon, *self.moments(self._check(horizon)))
        if self.draws is not None:
            variance = variance + self.spread(horizon) * (variance > 0.0)
        rows = slice(self.before, -1)
        p = self.series.n_predictors
        location, scale = self.series.location[p:], self.series.scale[p:]
        return (
            target_rows(self.index, self.series.targets, (location + scale * mean)[rows]),
            target_rows(self.index, self.series.targets, (scale * scale * variance)[rows]),
        )

    def spread(self, horizon: int) -> FloatArray:
        """(B + T + 1, q) variance of standardised forecasts over the refits, all reading the same data."""
        assert self.draws is not None
        p, means = self.series.n_predictors, []
        for b, loadings in enumerate(self.draws.loadings):
            location, scale = self.draws.location[b], self.draws.scale[b]
            parameters = replace(
                self.parameters, variances=self.draws.variances[b], coefficients=self.draws.coefficients[b]
            )
            own = StateForecasts.of(
                self.index, (self.given - location) / scale, self.before, self.series, loadings, parameters,
                self.who,
            )  # fmt: skip
            mean = own.targets(horizon, *own.moments(self._check(horizon)))[0]
            means.append(location[p:] + scale[p:] * mean)
        return np.asarray(np.var(means, axis=0, ddof=1))

    def targets(
        self, horizon: int, mean: FloatArray, covariance: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """(B + T + 1, q) standardised target means and variances of the period that each origin looks at."""
        p, k, frequency = self.series.n_predictors, self.loadings.shape[1], self.parameters.frequency
        # row i of the moments has origin i - 1, so it looks at period i - 1 + horizon
        whole = np.concatenate([periods.shift(self.times[:1], -1, frequency), self.times])
        when = periods.neighbour(whole, horizon, frequency)
        out_mean = np.full((len(mean), self.series.targets.size), np.nan)
        out_variance = out_mean.copy()
        for j in range(self.series.targets.size):
            kind, b = self.parameters.kinds[p + j], self.loadings[p + j]
            noise = float(self.parameters.variances[self.parameters.groups[p + j]])
            weights, ends = np.ones((len(mean), 1)), np.ones(len(mean), dtype=bool)
            if kind:
                low = periods.check_frequency(kind.partition(":")[2])
                assert frequency is not None
                assert low is not None
                ends = window_lengths(when, frequency, low) > 0
                given = window_weights(kind, when, frequency)
                assert given is not None
                weights = np.broadcast_to(given, (len(mean), given.shape[-1]))
                if kind.startswith("mean"):
                    noise = noise * np.square(weights).sum(axis=1)
            value, spread = np.zeros(len(mean)), np.zeros(len(mean))
            for h in range(weights.shape[1]):
                at = slice(h * k, (h + 1) * k)
                value += weights[:, h] * np.einsum("tk,k->t", mean[:, at], b)
                for i in range(weights.shape[1]):
                    other = slice(i * k, (i + 1) * k)
                    part = np.einsum("j,tjk,k->t", b, covariance[:, at, other], b)
                    spread += weights[:, h] * weights[:, i] * part
            out_mean[:, j] = np.where(ends, value, np.nan)
            out_variance[:, j] = np.where(ends, spread + noise, np.nan)
        if horizon == 0:
            released = np.vstack([np.full((1, out_mean.shape[1]), np.nan), self.given[:, p:]])
            seen = np.isfinite(released)
            out_mean, out_variance = np.where(seen, released, out_mean), np.where(seen, 0.0, out_variance)
        return out_mean, out_variance

    def _check(self, horizon: int) -> int:
        """Steps from the origin's factor to the one that drives the targets of `horizon`."""
        steps = horizon - self.series.lead
        if steps >= 0:
            return steps
        if self.series.lead:
            raise HorizonError(
                f"{self.who} was trained with lead={self.series.lead}: it serves that horizon and later "
                f"ones, got horizon {horizon}; train with a shorter lead"
            )
        raise HorizonError(
            f"{self.who} nowcasts (horizon 0) and forecasts, got horizon {horizon}: the past is "
            "described by smooth"
        )
