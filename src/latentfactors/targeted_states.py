"""Targeted factors with dynamics or of mixed frequency, between a panel and the state-space kernels.

kinds        every series is "" (a value of its own period) or, where `SeriesInfo` gives it a lower
             frequency than the panel's, an aggregate: "mean:Q" (also for sums, whose unit is
             standardised away) or "mariano_murasawa:Q". A value at the end of a period ("end") is one of
             its own period.
blocks       series of one kind and side share weights and a noise variance; means share that of the
             current series of their side, divided by the window's length
forecasts    filter on x up to p-1 (and on released targets, if asked for), then f_(p-1+h-lead) by the law of
             motion, and the target's window over it. An aggregate is forecast for the periods that end
             one of its own; other rows are NaN.
lead         a row of values holds x_t beside y_(t+lead); a target's windows are those of t + lead
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.errors import FrequencyError, HorizonError
from latentfactors.estimator import freeze
from latentfactors.kernels.mixed_frequency import (
    SeriesBlock,
    mariano_murasawa_weights,
    mean_weights,
    series_block,
)
from latentfactors.kernels.state_space import FilterResult, forecast_states
from latentfactors.kernels.targeted import TargetedFit
from latentfactors.kernels.targeted_dynamics import (
    FactorFit,
    FactorParameters,
    dynamic_start,
    filter_factors,
    fit_factors,
    law,
    smooth_factors,
)
from latentfactors.lead_forecasts import target_rows
from latentfactors.panel import Panel
from latentfactors.periods import Frequency
from latentfactors.rows import RowIndex
from latentfactors.targeting import TargetedSeries

__all__ = ["StateForecasts", "StateParameters", "fit_states", "read_kinds", "smooth_states"]

FloatArray = npt.NDArray[np.float64]

# Most periods of the panel (first) in one of the series' own (second); the state holds the factors of all.
_WINDOWS = {("M", "Q"): 3, ("W", "M"): 5, ("W", "Q"): 14}


@dataclass(frozen=True, eq=False, kw_only=True)
class StateParameters:
    """What a fit with dynamics or aggregates adds to loadings.

    Attributes
    ----------
    kinds : (p + q,) how each series looks back: "", "mean:Q", "mariano_murasawa:Q"
    groups : (p + q,) which noise variance is a series'
    variances : (G,) noise variances; of the latent values for means
    coefficients : (l, k, k) A_1 ... A_l, l = 0 without dynamics
    frequency : of the panel
    """

    kinds: tuple[str, ...]
    groups: npt.NDArray[np.int64]
    variances: FloatArray
    coefficients: FloatArray
    frequency: Frequency | None

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def current(self) -> npt.NDArray[np.bool_]:
        """(p + q,) series that load on the factor of their own period."""
        return np.array([kind == "" for kind in self.kinds])


# ------------------------------------------------------------------------------------ kinds and blocks


def read_kinds(panel: Panel, labels: npt.NDArray[Any], who: str) -> tuple[str, ...]:
    """How each labelled series looks back, from the panel's `SeriesInfo`; all "" where it has none.

    Raises
    ------
    FrequencyError
        A series more frequent than the panel, an aggregation that the frequencies do not allow, or values
        between the ends of a series' own periods.
    """
    info = panel.series
    if info is None:
        return ("",) * labels.size
    position = {label: i for i, label in enumerate(panel.assets.tolist())}
    wide = panel.wide()
    return tuple(
        _kind(panel, info.frequency[i], info.aggregation[i], str(label), wide[:, i], who)
        for label in labels.tolist()
        for i in (position[label],)
    )


def _kind(panel: Panel, low: Frequency, aggregation: str, label: str, values: FloatArray, who: str) -> str:
    own = panel.frequency
    if low == own or {low, own} == {"B", "D"}:
        return ""
    order = ("D", "B", "W", "M", "Q")
    if own is None or not periods.is_date(panel.times):
        raise FrequencyError(
            f"{who}: series {label!r} has frequency {low!r} and the panel has none: build the panel with "
            "dates and a frequency"
        )
    if order.index(low) < order.index(own):
        raise FrequencyError(
            f"{who}: series {label!r} of frequency {low!r} in a panel of frequency {own!r}: aggregate it to "
            f"{own!r} first, or build the panel at {low!r}"
        )
    if aggregation == "end":
        return ""
    if aggregation == "mariano_murasawa" and (own, low) != ("M", "Q"):
        raise FrequencyError(
            f"{who}: series {label!r}: Mariano-Murasawa weights are those of quarters in months, got {low!r} "
            f"in {own!r}: use aggregation 'mean'"
        )
    if (own, low) not in _WINDOWS:
        raise FrequencyError(
            f"{who}: series {label!r} of frequency {low!r} sums up periods of a panel of frequency "
            f"{own!r}, possible are {', '.join(f'{b} in {a}' for a, b in _WINDOWS)}: use aggregation 'end', "
            "or aggregate the panel"
        )
    lengths = window_lengths(panel.times, own, low)
    strays = np.flatnonzero(np.isfinite(values) & (lengths == 0))
    if strays.size:
        raise FrequencyError(
            f"{who}: series {label!r} of frequency {low!r} has a value in {panel.times[strays[0]]}, inside "
            "one of its periods: put values on the last period of each, as Panel.join_frequencies does"
        )
    return f"{'mariano_murasawa' if aggregation == 'mariano_murasawa' else 'mean'}:{low}"


def window_lengths(times: npt.NDArray[Any], own: Frequency, low: Frequency) -> npt.NDArray[np.int64]:
    """(T,) periods of the panel in the low-frequency period that ends in each; 0 inside one.

    >>> months = np.array(["2020-01-31", "2020-02-29", "2020-03-31"], dtype="datetime64[D]")
    >>> window_lengths(months, "M", "Q")
    array([0, 0, 3])
    """
    end = periods.period_end(times, low)
    is_last = periods.period_end(periods.shift(times, 1, own), low) != end
    lengths = np.ones(times.size, dtype=np.int64)
    for back in range(1, 100):
        inside = periods.period_end(periods.shift(times, -back, own), low) == end
        if not inside.any():
            break
        lengths += inside
    return np.where(is_last, lengths, 0)


def _weights(kind: str, times: npt.NDArray[Any], own: Frequency | None) -> FloatArray | None:
    """What a block's periods look back on: None, (H,) or (T, H)."""
    name, _, low = kind.partition(":")
    if not name:
        return None
    if name == "mariano_murasawa":
        return mariano_murasawa_weights()
    frequency = periods.check_frequency(low)
    assert own is not None
    assert frequency is not None
    weights = mean_weights(window_lengths(times, own, frequency))
    # as wide as any window, so that the state does not depend on which periods a panel happens to have
    return np.pad(weights, ((0, 0), (0, _WINDOWS[own, frequency] - weights.shape[1])))


def group_numbers(kinds: tuple[str, ...], n_predictors: int) -> npt.NDArray[np.int64]:
    """(d,) noise groups: predictors, targets, and Mariano-Murasawa series of either apart."""
    wanted = [(i >= n_predictors, kind.startswith("mariano")) for i, kind in enumerate(kinds)]
    order = sorted(set(wanted), key=lambda each: (each[1], each[0]))
    return np.array([order.index(each) for each in wanted], dtype=np.int64)


def block_columns(kinds: tuple[str, ...], n_predictors: int) -> list[npt.NDArray[np.intp]]:
    """Columns of each block: one side, one kind, in order."""
    keys = [(i >= n_predictors, kind) for i, kind in enumerate(kinds)]
    return [
        np.array([i for i, each in enumerate(keys) if each == key], dtype=np.intp)
        for key in dict.fromkeys(keys)
    ]


def make_blocks(
    values: FloatArray,
    times: npt.NDArray[Any],
    parameters: StateParameters,
    n_predictors: int,
    lead: int = 0,
) -> list[SeriesBlock]:
    """Standardised values (T, d) as blocks of the state-space kernel; `times` (T,) are the predictors'."""
    out = []
    for columns in block_columns(parameters.kinds, n_predictors):
        kind = parameters.kinds[columns[0]]
        ahead = bool(kind) and lead > 0 and columns[0] >= n_predictors
        own = periods.neighbour(times, lead, parameters.frequency) if ahead else times
        weights = _weights(kind, own, parameters.frequency)
        noise = "aggregated" if kind.startswith("mean") else "own"
        group = int(parameters.groups[columns[0]])
        out.append(series_block(values[:, columns], group=group, weights=weights, noise=noise))
    return out


def to_kernel(loadings: FloatArray, parameters: StateParameters, n_predictors: int) -> FactorParameters:
    """Loadings (d, k) and parameters as the kernel wants them."""
    columns = block_columns(parameters.kinds, n_predictors)
    return FactorParameters(
        tuple(loadings[each] for each in columns), parameters.variances, parameters.coefficients
    )


# ------------------------------------------------------------------------------------ fit


def fit_states(
    values: FloatArray,
    times: npt.NDArray[Any],
    kinds: tuple[str, ...],
    frequency: Frequency | None,
    static: TargetedFit,
    lags: int,
    *,
    tolerance: float,
    max_iterations: int,
    lead: int = 0,
) -> tuple[TargetedFit, StateParameters]:
    """Maximum likelihood with factor dynamics, aggregates, or both, from the static fit.

    Parameters
    ----------
    values : (T, d) standardised, predictors beside the targets `lead` later, NaN where missing.
    times : (T,) of the predictors.
    kinds, frequency : from `read_kinds`, of the panel.
    static : the fit that reads every value as one of its own period.
    lags : of the factors' autoregression; 0 for independent factors.
    """
    p, k = static.n_predictors, static.loadings.shape[1]
    groups = group_numbers(kinds, p)
    noise = static.noise
    parameters = StateParameters(
        kinds=kinds,
        groups=groups,
        variances=np.array([noise[groups == g].mean() for g in range(groups.max() + 1)]),
        coefficients=np.zeros((0, k, k)),
        frequency=frequency,
    )
    blocks, columns = make_blocks(values, times, parameters, p, lead), block_columns(kinds, p)
    start = dynamic_start(blocks, to_kernel(static.loadings, parameters, p), lags)
    sign_block = next(i for i, each in enumerate(columns) if p in each)
    found: FactorFit = fit_factors(
        blocks, start, tolerance=tolerance, max_iterations=max_iterations, sign_block=sign_block
    )
    loadings = np.empty_like(static.loadings)
    for each, part in zip(columns, found.parameters.loadings, strict=True):
        loadings[each] = part
    variances = found.parameters.variances
    fit = TargetedFit(
        loadings,
        p,
        float(variances[groups[0]]),
        float(variances[groups[p]]),
        found.loglikelihood,
        found.objective_path,
        found.n_iterations,
        found.converged,
        found.reason,
    )
    coefficients = found.parameters.coefficients
    return fit, replace(parameters, variances=variances, coefficients=coefficients)


# ------------------------------------------------------------------------------------ after training


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
        rows = slice(self.before, -1)
        p = self.series.n_predictors
        location, scale = self.series.location[p:], self.series.scale[p:]
        return (
            target_rows(self.index, self.series.targets, (location + scale * mean)[rows]),
            target_rows(self.index, self.series.targets, (scale * scale * variance)[rows]),
        )

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
                given = _weights(kind, when, frequency)
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


def smooth_states(
    values: FloatArray,
    times: npt.NDArray[Any],
    loadings: FloatArray,
    parameters: StateParameters,
    n_predictors: int,
    lead: int,
) -> tuple[FloatArray, FloatArray]:
    """E[f_t | X, Y] (T, k) and its covariance (T, k, k)."""
    blocks = make_blocks(values, times, parameters, n_predictors, lead)
    smoothed = smooth_factors(blocks, to_kernel(loadings, parameters, n_predictors))
    k = loadings.shape[1]
    return smoothed.mean[:, :k], smoothed.covariance[:, :k, :k]
