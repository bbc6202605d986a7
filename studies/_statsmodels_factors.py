"""The factor model of statsmodels (`DynamicFactorMQ`) on panels of this library, beside ours.

Same model: r factors with a joint VAR(p), AR(1) idiosyncratic terms, quarterly series as Mariano-Murasawa
aggregates. It is given the standardised values that ours was fitted to, less the months hidden from ours,
and its law of a cell is read from its smoother: its default forecasts ignore values of the running month.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from latentfactors import DFMConfig, DynamicFactorModel, Panel
from latentfactors.evaluate import NowcastRecord
from latentfactors.kernels.dynamic_factor import DynamicFactorParameters, loglikelihood, observation_pattern
from latentfactors.nowcast import nowcast
from latentfactors.periods import period_range

# statsmodels' own defaults; its fits end when the log-likelihood gains less than this share of itself
TOLERANCE, MAX_ITERATIONS = 1e-6, 500


def statsmodels_version() -> str | None:
    """Its version, or None where it is not installed."""
    try:
        return version("statsmodels")
    except PackageNotFoundError:
        return None


@dataclass(frozen=True, eq=False, kw_only=True)
class PeerFit:
    """A fit of `DynamicFactorMQ`.

    Attributes
    ----------
    own : our fitted model, whose series, units and hidden months it shares
    params : statsmodels' parameter vector
    iterations, converged, seconds : of its EM; processor time
    loglikelihood : of its parameters, evaluated by this library on the values that both were fitted to; NaN
        where they make the factors explosive
    default : EM estimated the law of the initial state, as is its default; False: that failed, and the start
        is the stationary one
    """

    own: DynamicFactorModel
    params: np.ndarray
    iterations: int
    converged: bool
    seconds: float
    loglikelihood: float
    default: bool

    @property
    def explosive(self) -> bool:
        """Whether its factors have no stationary law."""
        return bool(np.isnan(self.loglikelihood))

    def law(self, panel: Panel, target: Any, periods: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances of a series' periods given a panel, in the panel's units; parameters held."""
        estimates = self.own.estimates
        times, values = standardised(self.own, panel, until=max(periods))
        model, order = peer_model(self.own, panel, times, values)
        if self.explosive:
            # no stationary start exists; after two hundred months it matters no more
            model.ssm.initialize_approximate_diffuse(1e3)
        found = model.smooth(self.params)
        row = order.index(target)
        loadings = np.asarray(model["design"])[row]
        positions = np.searchsorted(times, np.asarray(periods))
        states = found.smoother_results.smoothed_state[:, positions]
        covariances = found.smoother_results.smoothed_state_cov[:, :, positions]
        k = estimates.series.tolist().index(target)
        mean = estimates.location[k] + estimates.scale[k] * (loadings @ states)
        variance = estimates.scale[k] ** 2 * np.einsum("i,ijt,j->t", loadings, covariances, loadings)
        return mean, variance


def fit_peer(own: DynamicFactorModel, panel: Panel, tolerance: float = TOLERANCE) -> PeerFit:
    """Fit `DynamicFactorMQ` to what a fitted model of ours was fitted to."""
    hidden = [panel.index.position(each) for each in own.config.masked]
    times, values = standardised(own, panel)
    values[hidden] = np.nan
    began = time.process_time()
    model, order = peer_model(own, panel, times, values)
    options: dict[str, Any] = {"disp": False, "maxiter": MAX_ITERATIONS, "tolerance": tolerance}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found, default = model.fit(cov_type="none", **options), True
        except (ValueError, np.linalg.LinAlgError):
            # its default estimates the law of the initial state, and ends in NaN on some panels
            model, order = peer_model(own, panel, times, values)
            found, default = model.fit(cov_type="none", em_initialization=False, **options), False
    seconds = time.process_time() - began
    params = np.asarray(found.params)
    iterations = int(found.mle_retvals.iter)
    weights = own.estimates.weights
    pattern = observation_pattern(values, autoregressive=True, lags=own.config.factor_lags, weights=weights)
    try:
        reached = loglikelihood(translated(own, params, order), pattern)
    except ValueError:  # explosive factors have no stationary start
        reached = np.nan
    return PeerFit(
        own=own,
        params=params,
        iterations=iterations,
        converged=iterations < MAX_ITERATIONS,
        seconds=seconds,
        loglikelihood=reached,
        default=default,
    )


def translated(own: DynamicFactorModel, params: np.ndarray, order: list[Any]) -> DynamicFactorParameters:
    """Its parameters as this library takes them; its weights are (1, 2, 3, 2, 1), ours a third of them."""
    n, r, p = len(order), own.config.n_factors, own.config.factor_lags
    sizes = np.cumsum([n * r, r * r * p, r * (r + 1) // 2, n, n])
    loadings, transition, cholesky, persistence, variance = np.split(params, sizes)[:5]
    root = np.zeros((r, r))
    root[np.tril_indices(r)] = cholesky
    back = np.array([order.index(name) for name in own.estimates.series.tolist()])
    factor = 1.0 / own.estimates.weights[:, 0]
    return DynamicFactorParameters(
        loadings.reshape(n, r)[back] * factor[:, None],
        persistence[back],
        variance[back] * factor**2,
        transition.reshape(r, p, r).transpose(1, 0, 2),
        root @ root.T,
    )


def standardised(own: DynamicFactorModel, panel: Panel, until: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Periods up to `until`, and values (T, n) of our model's series in our model's units."""
    estimates, labels = own.estimates, panel.assets.tolist()
    last = panel.times[-1] if until is None else max(panel.times[-1], until)
    times = period_range(panel.times[0], last, "M")
    values = np.full((times.size, estimates.series.size), np.nan)
    columns = [labels.index(name) for name in estimates.series.tolist()]
    values[: panel.n_periods] = panel.wide()[:, columns]
    return times, (values - estimates.location) / estimates.scale


def peer_model(
    own: DynamicFactorModel, panel: Panel, times: np.ndarray, values: np.ndarray
) -> tuple[Any, list[Any]]:
    """The model before estimation, and its order of the series: monthly, then quarterly."""
    import pandas as pd
    from statsmodels.tsa.statespace.dynamic_factor_mq import DynamicFactorMQ

    names = own.estimates.series.tolist()
    assert panel.series is not None
    stated = dict(zip(panel.assets.tolist(), panel.series.frequency, strict=True))
    quarterly = [stated[name] == "Q" for name in names]
    months = pd.PeriodIndex(times.astype("datetime64[M]").astype(str), freq="M")
    ends = np.asarray(months.month) % 3 == 0
    low = [name for name, own_low in zip(names, quarterly, strict=True) if own_low]
    high = [name for name in names if name not in low]
    frame = pd.DataFrame(values, index=months, columns=names)
    quarters = frame.loc[ends, low].set_axis(months[ends].asfreq("Q"), axis=0)
    model = DynamicFactorMQ(
        frame[high],
        endog_quarterly=quarters if low else None,
        factors=1,
        factor_multiplicities=own.config.n_factors,
        factor_orders=own.config.factor_lags,
        idiosyncratic_ar1=True,
        standardize=False,
    )
    return model, [*high, *low]


# ------------------------------------------------------------------------------------ side by side


@dataclass(frozen=True, eq=False, kw_only=True)
class SideBySide:
    """Nowcasts of both models for the same cells, and what they cost.

    Attributes
    ----------
    records : name -> nowcasts, in the units of the record given
    fits : statsmodels' fits, whose `own` are ours
    own_seconds : of our fits, processor time
    law_seconds : name -> of all nowcasts at held parameters
    tighter : what a tolerance a thousand times smaller adds to the log-likelihood of statsmodels' last fit
    """

    records: Mapping[str, NowcastRecord]
    fits: tuple[PeerFit, ...]
    own_seconds: tuple[float, ...]
    law_seconds: Mapping[str, float]
    tighter: float

    def words(self) -> str:
        """What a reader has to know about the fits."""
        own = [each.own.summary for each in self.fits]
        gains = [float(a.loglikelihood) - b.loglikelihood for a, b in zip(own, self.fits, strict=True)]
        explosive = int(np.isnan(gains).sum())
        n, done = len(self.fits), sum(each.converged for each in self.fits)
        steps = [np.median([each.iterations for each in self.fits]), np.median([s.n_iterations for s in own])]
        ours = self.fits[0].own.config.tolerance
        seconds = [np.median(self.own_seconds), np.median([each.seconds for each in self.fits])]
        laws, done_own = self.law_seconds, sum(s.converged for s in own)
        fallen = sum(not each.default for each in self.fits)
        low, middle, high = (each(gains) for each in (np.nanmin, np.nanmedian, np.nanmax))
        return f"""Theirs is `DynamicFactorMQ` of statsmodels {statsmodels_version()}: the same values, its
default EM with tolerance {TOLERANCE:g} and at most {MAX_ITERATIONS} iterations ({fallen} of {n} fits ended in
NaN and were repeated with `em_initialization=False`): {done} of {n} ended before, after {steps[0]:.0f}
iterations in the median; a tolerance a thousand times smaller changes the log-likelihood of the last one by
{abs(self.tighter):.2f}. Ours goes to a tolerance of {ours:g}: {done_own} of {n} fits converged, after
{steps[1]:.0f} evaluations in the median. Processor seconds of a fit, medians: {seconds[0]:.2f} ours,
{seconds[1]:.1f} theirs; of all nowcasts from these fits {laws["DFM"]:.0f} and {laws["statsmodels"]:.0f}.
Log-likelihood of our parameters less that of theirs, both evaluated by this library: from {low:.0f} to
{high:.0f}, median {middle:.0f}; {explosive} of their fits have explosive factors, so no stationary
likelihood, and nowcast from a diffuse start."""


def side_by_side(
    source: Any, record: NowcastRecord, config: DFMConfig, target: Any, factor: float
) -> SideBySide:
    """Nowcasts of a record's cells by both models, refitted on every vintage; values times `factor`."""
    n = record.period.size
    found = {name: np.full((2, n), np.nan) for name in ("DFM", "statsmodels")}
    spent = dict.fromkeys(found, 0.0)
    fits: list[PeerFit] = []
    own_seconds: list[float] = []
    for day in np.unique(record.as_of):
        panel = source.as_of(day)
        own = DynamicFactorModel(config)
        began = time.process_time()
        own.fit(panel)
        own_seconds.append(time.process_time() - began)
        fits.append(fit_peer(own, panel))
        print(f"{day}: ours {own_seconds[-1]:.1f} s, statsmodels {fits[-1].seconds:.1f} s", flush=True)
        rows = np.flatnonzero(record.as_of == day)
        rows = rows[np.argsort(record.period[rows])]
        periods = record.period[rows]
        began = time.process_time()
        law = nowcast(fits[-1].own, panel, target, periods=periods.tolist(), as_of=day)
        spent["DFM"] += time.process_time() - began
        found["DFM"][:, rows] = law.mean, law.standard_deviation**2
        began = time.process_time()
        found["statsmodels"][:, rows] = fits[-1].law(panel, target, periods)
        spent["statsmodels"] += time.process_time() - began
    records = {
        name: replace(record, forecast=factor * mean, variance=factor**2 * variance)
        for name, (mean, variance) in found.items()
    }
    last = fits[-1]
    panel = source.as_of(np.unique(record.as_of)[-1])
    return SideBySide(
        records=records,
        fits=tuple(fits),
        own_seconds=tuple(own_seconds),
        law_seconds=spent,
        tighter=fit_peer(last.own, panel, TOLERANCE / 1000).loglikelihood - last.loglikelihood,
    )
