"""Targeted factors with dynamics or of mixed frequency, between a panel and the state-space kernels.

kinds        every series is "" (a value of its own period) or, where `SeriesInfo` gives it a lower
             frequency than the panel's, an aggregate: "mean:Q" (also for sums, whose unit is
             standardised away) or "mariano_murasawa:Q". A value at the end of a period ("end") is one of
             its own period.
blocks       series of one kind and side share weights and a noise variance; means share that of the
             current series of their side, divided by the window's length
lead         a row of values holds x_t beside y_(t+lead); a target's windows are those of t + lead
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors import periods
from latentfactors.errors import FrequencyError
from latentfactors.estimator import freeze
from latentfactors.kernels.mixed_frequency import (
    SeriesBlock,
    mariano_murasawa_weights,
    mean_weights,
    series_block,
)
from latentfactors.kernels.targeted import TargetedFit
from latentfactors.kernels.targeted_dynamics import (
    FactorFit,
    FactorParameters,
    dynamic_start,
    fit_factors,
    smooth_factors,
)
from latentfactors.panel import Panel
from latentfactors.periods import Frequency

__all__ = ["StateParameters", "fit_states", "read_kinds", "smooth_states"]

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


def window_weights(kind: str, times: npt.NDArray[Any], own: Frequency | None) -> FloatArray | None:
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


def group_numbers(kinds: tuple[str, ...], n_predictors: int, *, tied: bool = False) -> npt.NDArray[np.int64]:
    """(d,) noise groups: predictors, targets, and Mariano-Murasawa series of either apart.

    `tied` puts predictors and targets, Mariano-Murasawa series excepted, into one.
    """
    own = [kind.startswith("mariano") for kind in kinds]
    wanted = [(i >= n_predictors and (apart or not tied), apart) for i, apart in enumerate(own)]
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
        weights = window_weights(kind, own, parameters.frequency)
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
    ratio: float | None = None,
    start: StateParameters | None = None,
) -> tuple[TargetedFit, StateParameters]:
    """Maximum likelihood with factor dynamics, aggregates, or both, from the static fit.

    Parameters
    ----------
    values : (T, d) standardised, predictors beside the targets `lead` later, NaN where missing.
    times : (T,) of the predictors.
    kinds, frequency : from `read_kinds`, of the panel.
    static : the fit that reads every value as one of its own period; with `start` its loadings alone count.
    lags : of the factors' autoregression; 0 for independent factors.
    ratio : s_x/s_y imposed, Mariano-Murasawa series excepted; None estimates it.
    start : coefficients and variances to start from; None derives them from the static fit.
    """
    p, k = static.n_predictors, static.loadings.shape[1]
    # with rho y in the place of y, one noise variance for both sides is the ratio rho imposed
    units = np.ones(len(kinds))
    units[p:] = 1.0 if ratio is None else ratio
    groups = group_numbers(kinds, p, tied=ratio is not None)
    noise = (static.noise if start is None else start.variances[start.groups]) * units**2
    parameters = StateParameters(
        kinds=kinds,
        groups=groups,
        variances=np.array([noise[groups == g].mean() for g in range(groups.max() + 1)]),
        coefficients=np.zeros((0, k, k)) if start is None else start.coefficients,
        frequency=frequency,
    )
    blocks = make_blocks(values * units, times, parameters, p, lead)
    columns = block_columns(kinds, p)
    given = to_kernel(static.loadings * units[:, None], parameters, p)
    found: FactorFit = fit_factors(
        blocks,
        dynamic_start(blocks, given, lags) if start is None else given,
        tolerance=tolerance,
        max_iterations=max_iterations,
        sign_block=next(i for i, each in enumerate(columns) if p in each),
    )
    loadings = np.empty_like(static.loadings)
    for each, part in zip(columns, found.parameters.loadings, strict=True):
        loadings[each] = part / units[each, None]
    by_series = found.parameters.variances[groups] / units**2
    groups = group_numbers(kinds, p)
    variances = np.array([by_series[groups == g][0] for g in range(groups.max() + 1)])
    shift = float(np.isfinite(values).sum(axis=0) @ np.log(units))
    fit = TargetedFit(
        loadings,
        p,
        float(variances[groups[0]]),
        float(variances[groups[p]]),
        found.loglikelihood + shift,
        tuple(value + shift for value in found.objective_path),
        found.n_iterations,
        found.converged,
        found.reason,
    )
    coefficients = found.parameters.coefficients
    return fit, replace(parameters, groups=groups, variances=variances, coefficients=coefficients)


# ------------------------------------------------------------------------------------ description


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
