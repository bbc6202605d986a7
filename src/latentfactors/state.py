"""What a structural model says about a panel: exposures, factor realisations, and how the fit went.

    value = location + scale (alpha + loadings . f + e)

A `LatentFactorState` describes what happened; what is expected to happen is in `results`. All records are
frozen and carry their row index.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from latentfactors.errors import PanelError
from latentfactors.rows import RowIndex, read_only

__all__ = [
    "ConditionalLoadings",
    "Factors",
    "FitSpan",
    "FitSummary",
    "Information",
    "LatentFactorState",
    "Loadings",
    "Measurement",
    "NativeForecasts",
    "StaticLoadings",
]

FloatArray = npt.NDArray[np.float64]
_LATENT = re.compile(r"F[0-9]+|common [0-9]+")
Information = Literal["realised", "filtered", "smoothed"]


@dataclass(frozen=True)
class FitSpan:
    """First and last observed training period."""

    start: Any
    end: Any

    def covers(self, times: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """(T,) which periods lie at or before the end of training."""
        return times <= self.end

    def __str__(self) -> str:
        return f"{self.start}..{self.end}"


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """How a fit went.

    Parameters
    ----------
    converged
        The stopping rule fired (not merely: the loop ended).
    reason
        One sentence.
    n_iterations
        Steps taken; 0 for closed forms.
    objective, objective_name
        The path of what was optimised, first to last.
    loglikelihood
        Where the model has one, of standardised values.
    metrics
        Name -> value, for instance `total_r2`.
    history
        Name -> per-epoch path, for iterative learners.
    warnings
        Statistical remarks, as sentences. They never become Python warnings.
    seconds
        Wall time of the fit.
    checkpoint
        Label of the checkpoint that counts when none is named.
    """

    converged: bool = True
    reason: str = "closed form"
    n_iterations: int = 0
    objective: tuple[float, ...] = ()
    objective_name: str = ""
    loglikelihood: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    checkpoint: int | str = "last"


# ------------------------------------------------------------------------------------ loadings


class Loadings(Protocol):
    """Exposures of rows to K factors, NaN where the model has none."""

    @property
    def n_factors(self) -> int:
        """Number of factors K."""
        ...

    def rows(self) -> FloatArray:
        """(R, K) loadings of every row."""
        ...

    def at(self, p: int) -> FloatArray:
        """(N_p, K) loadings of period p's rows."""
        ...

    def dense(self) -> FloatArray:
        """(T, N, K) loadings, NaN where an asset has no row."""
        ...

    def between(self, a: int, b: int) -> Loadings:
        """The loadings of periods a..b-1."""
        ...


@dataclass(frozen=True, eq=False)
class StaticLoadings:
    """(N, K) loadings that an asset keeps over time.

    Raises
    ------
    PanelError
        When the number of loadings differs from the number of assets.
    """

    values: FloatArray
    index: RowIndex

    def __post_init__(self) -> None:
        check_length(self.values, self.index.n_assets, "static loadings", "assets")

    @property
    def n_factors(self) -> int:
        """Number of factors K."""
        return self.values.shape[1]

    def rows(self) -> FloatArray:
        """(R, K) loadings of every row."""
        return self.values[self.index.asset_codes]

    def at(self, p: int) -> FloatArray:
        """(N_p, K) loadings of period p's rows."""
        return self.values[self.index.asset_codes[self.index.rows(p)]]

    def dense(self) -> FloatArray:
        """(T, N, K) loadings, NaN where an asset has no row."""
        return self.index.dense(self.rows())

    def between(self, a: int, b: int) -> StaticLoadings:
        """The loadings of periods a..b-1."""
        return StaticLoadings(self.values, self.index.between(a, b))


@dataclass(frozen=True, eq=False)
class ConditionalLoadings:
    """(R, K) loadings that change with the row's characteristics.

    Raises
    ------
    PanelError
        When the number of loadings differs from the number of rows.
    """

    values: FloatArray
    index: RowIndex

    def __post_init__(self) -> None:
        check_length(self.values, self.index.n_rows, "conditional loadings", "rows")

    @property
    def n_factors(self) -> int:
        """Number of factors K."""
        return self.values.shape[1]

    def rows(self) -> FloatArray:
        """(R, K) loadings of every row."""
        return self.values

    def at(self, p: int) -> FloatArray:
        """(N_p, K) loadings of period p's rows."""
        return self.values[self.index.rows(p)]

    def dense(self) -> FloatArray:
        """(T, N, K) loadings, NaN where an asset has no row."""
        return self.index.dense(self.values)

    def between(self, a: int, b: int) -> ConditionalLoadings:
        """The loadings of periods a..b-1."""
        low, high = int(self.index.offsets[a]), int(self.index.offsets[b])
        return ConditionalLoadings(self.values[low:high], self.index.between(a, b))


# ------------------------------------------------------------------------------------ state


@dataclass(frozen=True, eq=False, kw_only=True)
class Factors:
    """Factor realisations.

    Parameters
    ----------
    values : (T, K)
        NaN where not identified (too few observations).
    names
        K names.
    covariance : (T, K, K), optional
        Uncertainty of each realisation, where the model has a posterior.
    information
        "realised" (from the period's own cross-section), "filtered" (data up to the period) or "smoothed"
        (two-sided; walk-forward refuses it).
    """

    values: FloatArray
    names: tuple[str, ...]
    covariance: FloatArray | None = None
    information: Information = "realised"

    def __post_init__(self) -> None:
        _protect(self, "values", "covariance")


@dataclass(frozen=True, eq=False, kw_only=True)
class Measurement:
    """How factors become values: value = location + scale (alpha + loadings . f + e).

    Parameters
    ----------
    loadings
        `StaticLoadings` or `ConditionalLoadings`.
    location, scale : (N,)
        Units of every asset; 0 and 1 for return models.
    residual_variance : (R,)
        Of e, in model units; a pooled value for rows whose asset is new.
    alpha : (R,), optional
        Mispricing, where the model estimates it.
    residual_share : (R,), optional
        Expected square of what the realised factors leave of the row's value, relative to the error with
        which the model meets a value it has not seen: below 1 where loadings or factors were fitted to the
        value itself. None: not known, taken as 1.
    """

    loadings: Loadings
    location: FloatArray
    scale: FloatArray
    residual_variance: FloatArray
    alpha: FloatArray | None = None
    residual_share: FloatArray | None = None

    def __post_init__(self) -> None:
        _protect(self, "location", "scale", "residual_variance", "alpha", "residual_share")


class NativeForecasts(Protocol):
    """Forecasts of a model with its own dynamics: horizon 1 is the row's own period, 0 a nowcast of p-1."""

    def factors(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        """(T, K) means and (T, K, K) covariances or None, given periods up to p-1."""
        ...

    def values(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        """(R,) means and variances or None in input units, given periods up to p-1."""
        ...


@dataclass(frozen=True)
class _NativeSlice:
    """Native forecasts of periods a..b-1."""

    native: NativeForecasts
    periods: slice
    rows: slice

    def factors(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        mean, covariance = self.native.factors(horizon)
        return mean[self.periods], None if covariance is None else covariance[self.periods]

    def values(self, horizon: int) -> tuple[FloatArray, FloatArray | None]:
        mean, variance = self.native.values(horizon)
        return mean[self.rows], None if variance is None else variance[self.rows]


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentFactorState:
    """A structural model's view of a panel: who loads on what, and what the factors did.

    Parameters
    ----------
    index
        Rows of the panel.
    factors
        `Factors`: (T, K) realisations.
    measurement
        `Measurement`: loadings, alpha, location, scale, residual variance.
    n_realised
        Periods up to the last one with an observed value; the rest is live.
    fit_span
        Training span of the model.
    native
        The model's own forecasts, if it has any.
    checkpoint
        Label of the estimates used.
    metadata
        Counts and remarks: assets without loadings, periods without factors.
    """

    index: RowIndex
    factors: Factors
    measurement: Measurement
    n_realised: int
    fit_span: FitSpan
    native: NativeForecasts | None = None
    checkpoint: int | str = "last"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asset_betas(self) -> FloatArray:
        """(T, N, K) dense loadings."""
        return self.measurement.loadings.dense()

    @property
    def factor_returns(self) -> FloatArray:
        """(T, K) factor realisations."""
        return self.factors.values

    @property
    def timestamps(self) -> npt.NDArray[Any]:
        """(T,) periods."""
        return self.index.times

    @property
    def asset_ids(self) -> npt.NDArray[Any]:
        """(N,) asset labels."""
        return self.index.assets

    def reconstruction(self) -> FloatArray:
        """(R,) fitted values with *realised* factors: a description, never a forecast."""
        return combine(self, self.factors.values, self.measurement.alpha)

    def between(self, a: int, b: int) -> LatentFactorState:
        """The state of periods a..b-1; what was computed from earlier periods stays as it is."""
        low, high = int(self.index.offsets[a]), int(self.index.offsets[b])
        rows, span = slice(low, high), slice(a, b)
        factors, measurement = self.factors, self.measurement
        covariance = None if factors.covariance is None else factors.covariance[span]
        return replace(
            self,
            index=self.index.between(a, b),
            factors=replace(factors, values=factors.values[span], covariance=covariance),
            measurement=replace(
                measurement,
                loadings=measurement.loadings.between(a, b),
                residual_variance=measurement.residual_variance[rows],
                alpha=None if measurement.alpha is None else measurement.alpha[rows],
                residual_share=None
                if measurement.residual_share is None
                else measurement.residual_share[rows],
            ),
            n_realised=min(max(self.n_realised - a, 0), b - a),
            native=None if self.native is None else _NativeSlice(self.native, span, rows),
        )


def combine(state: LatentFactorState, factors: FloatArray, alpha: FloatArray | None) -> FloatArray:
    """location + scale (alpha + loadings . f): (R,) values for (T, K) factors, period by period.

    Row by row products would be the same on paper; taken period by period and factor by factor they are the
    same to the bit whatever stands in later periods.
    """
    index, measurement = state.index, state.measurement
    loadings, period = measurement.loadings.rows(), index.period_codes
    total = np.zeros(index.n_rows) if alpha is None else alpha.copy()
    for k in range(loadings.shape[1]):
        total += loadings[:, k] * factors[period, k]
    return measurement.location[index.asset_codes] + measurement.scale[index.asset_codes] * total


def check_length(values: FloatArray, expected: int, what: str, of: str) -> None:
    """Refuse arrays that do not fit the row index."""
    if values.shape[0] != expected:
        raise PanelError(f"{what} must have one entry for each of {expected} {of}, got {values.shape[0]}")


def _protect(record: Any, *names: str) -> None:
    """Make the named arrays of a frozen record read-only; the caller's own arrays keep their flags."""
    for name in names:
        if getattr(record, name) is not None:
            object.__setattr__(record, name, read_only(getattr(record, name)))


def latent_names(names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(K,) which factors are known by their span alone: F1, F2, ..., or common 1, common 2, ...

    Examples
    --------
    >>> latent_names(("market", "country=FR", "F1")).tolist()
    [False, False, True]
    """
    return np.array([_LATENT.fullmatch(name) is not None for name in names], dtype=bool)
