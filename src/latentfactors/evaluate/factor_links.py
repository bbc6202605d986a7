"""What learned factors move with, and which characteristics make a loading large.

Correlations     of each factor with each series over the periods that both have, with the Newey-West t of the
                 regression of one on the other. With K factors and M series, K M / 20 of them exceed 1.96
                 by chance
Averages         mean loading in each quantile of a characteristic, quantiles formed period by period
Slopes           pooled least squares of loadings on all characteristics at once, per standard deviation:
                 what a characteristic adds beside the others. For loadings Z Gamma they are Gamma itself, in
                 these units; a network's averages show the curve, which one slope cannot

References: Kelly, Pruitt & Su (2019), JFE 134(3), section 4; Gu, Kelly & Xiu (2021), Journal of Econometrics
222(1), section 3.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
    PanelMismatchError,
)
from latentfactors.estimator import freeze
from latentfactors.evaluate.anomalies import FactorSource, factors_of
from latentfactors.evaluate.portfolios import quantile_breaks
from latentfactors.frames import to_frame
from latentfactors.kernels.moments import unit_columns
from latentfactors.kernels.newey_west import hac_regression
from latentfactors.panel import Panel
from latentfactors.state import LatentFactorState

__all__ = ["LoadingProfiles", "MacroCorrelations", "loading_profiles", "macro_correlations"]

FloatArray = npt.NDArray[np.float64]
_FEWEST = 24


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class MacroCorrelations:
    """Correlations of K factors with M series.

    Attributes
    ----------
    values, t_statistics : (K, M); NaN where there are fewer than 24 common periods or nothing varies
    n_periods : (K, M) common periods
    factor_names, series_names : K and M names
    """

    values: FloatArray
    t_statistics: FloatArray
    n_periods: npt.NDArray[np.int64]
    factor_names: tuple[str, ...]
    series_names: tuple[str, ...]

    def __post_init__(self) -> None:
        freeze(self)

    def frame(self, backend: str = "polars") -> Any:
        """One line per factor and series: factor, series, correlation, t, n_periods."""
        k, m = self.values.shape
        return to_frame(
            {
                "factor": np.repeat(np.array(self.factor_names), m),
                "series": np.tile(np.array(self.series_names), k),
                "correlation": self.values.ravel(),
                "t": self.t_statistics.ravel(),
                "n_periods": self.n_periods.ravel(),
            },
            backend,
        )

    def __repr__(self) -> str:
        k, m = self.values.shape
        large = int((np.abs(self.t_statistics) > 1.96).sum())
        return f"MacroCorrelations({k} factors, {m} series, {large} with |t| > 1.96)"


def macro_correlations(
    source: FactorSource, series: Panel, *, names: Sequence[str] = (), lags: int | None = None
) -> MacroCorrelations:
    """Correlate factors with series that the user gives, matched by the date of the period.

    Parameters
    ----------
    source
        A state, a walk-forward (factors out of sample), a panel with observed factors, or portfolios sorted
        on loadings.
    series
        A panel whose assets are the series, transformed as they are meant: growth rates, changes, spreads.
    names
        Series to take; none: all.
    lags
        Newey-West lags; None: floor(4 (T/100)^(2/9)).

    Returns
    -------
    MacroCorrelations

    Raises
    ------
    ConfigurationError, InsufficientDataError
        Unknown names; fewer than 24 common periods.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from latentfactors.simulate import static_panel
    >>> truth = static_panel(n_periods=120, n_assets=5, n_factors=2, seed=1)
    >>> panel = replace(truth.panel, observed_factors=truth.factors, observed_factor_names=("a", "b"))
    >>> macro_correlations(panel, panel).values.shape
    (2, 5)
    """
    times, factors, factor_names = factors_of("factors", source)
    labels = [str(each) for each in series.assets]
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise ConfigurationError(f"no series {', '.join(map(repr, unknown))} in this panel, it has {labels}")
    chosen = [labels.index(name) for name in names] if names else list(range(len(labels)))
    common, here, there = np.intersect1d(times, series.times, return_indices=True)
    if common.size < _FEWEST:
        raise InsufficientDataError(
            f"factors and series have {common.size} periods in common, expected at least {_FEWEST}: compare "
            f"{times[0]}..{times[-1]} with {series.times[0]}..{series.times[-1]}, and how they name a period"
        )
    f, x = factors[here], series.wide()[there][:, chosen]
    values, t, counts = np.full((3, f.shape[1], len(chosen)), np.nan)
    for k in range(f.shape[1]):
        for m in range(len(chosen)):
            both = np.isfinite(f[:, k]) & np.isfinite(x[:, m])
            counts[k, m] = both.sum()
            if both.sum() < _FEWEST:
                continue
            pair = unit_columns(np.column_stack([f[both, k], x[both, m]]))[0]
            if not pair.any(axis=0).all():
                continue
            values[k, m] = float(pair[:, 0] @ pair[:, 1])
            fit = hac_regression(pair[:, 0], np.column_stack([np.ones(len(pair)), pair[:, 1]]), lags)
            t[k, m] = fit.t_statistics[1]
    return MacroCorrelations(
        values=values,
        t_statistics=t,
        n_periods=counts.astype(np.int64),
        factor_names=factor_names,
        series_names=tuple(labels[j] for j in chosen),
    )


# ------------------------------------------------------------------------------------ characteristics


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LoadingProfiles:
    """How loadings depend on characteristics.

    Attributes
    ----------
    averages : (L, Q, K) mean loading on factor k of the rows in quantile q of characteristic l; NaN for an
        empty one
    slopes : (L, K) change of the loading per standard deviation of the characteristic, the others held fixed;
        NaN for a constant one
    names : L characteristics
    factor_names : K factors
    """

    averages: FloatArray
    slopes: FloatArray
    names: tuple[str, ...]
    factor_names: tuple[str, ...]

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def spreads(self) -> FloatArray:
        """(L, K) mean loading in the highest quantile minus the lowest."""
        return self.averages[:, -1] - self.averages[:, 0]

    def frame(self, backend: str = "polars") -> Any:
        """One line per characteristic and factor: characteristic, factor, slope, spread."""
        n, k = self.slopes.shape
        return to_frame(
            {
                "characteristic": np.repeat(np.array(self.names), k),
                "factor": np.tile(np.array(self.factor_names), n),
                "slope": self.slopes.ravel(),
                "spread": self.spreads.ravel(),
            },
            backend,
        )

    def __repr__(self) -> str:
        n, q, k = self.averages.shape
        return f"LoadingProfiles({n} characteristics, {k} factors, {q} quantiles)"


def loading_profiles(state: LatentFactorState, panel: Panel, *, n_quantiles: int = 10) -> LoadingProfiles:
    """Average loadings by quantile of every characteristic, and their partial slopes.

    Parameters
    ----------
    state
        Of the same rows as the panel.
    panel
        With characteristics.
    n_quantiles
        At least 2.

    Returns
    -------
    LoadingProfiles

    Raises
    ------
    ConfigurationError, MissingCapabilityError, PanelMismatchError, InsufficientDataError
        Too few quantiles; no characteristics; other rows than the state's; no loadings.

    Examples
    --------
    >>> from latentfactors.models.ipca import IPCAConfig, IPCAModel
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=60, n_assets=40, n_factors=2, seed=1).panel
    >>> model = IPCAModel(IPCAConfig(n_factors=2))
    >>> _ = model.fit(panel)
    >>> found = loading_profiles(model.extract(panel), panel, n_quantiles=5)
    >>> spread = found.slopes / panel.characteristics.std(axis=0)[:, None]
    >>> bool(np.allclose(spread, model.estimates.gamma))
    True
    """
    if isinstance(n_quantiles, bool) or not isinstance(n_quantiles, int) or n_quantiles < 2:
        raise ConfigurationError(f"n_quantiles must be a whole number >= 2, got {n_quantiles!r}")
    if panel.characteristics is None:
        raise MissingCapabilityError("loading profiles need a panel with characteristics")
    index = state.index
    if (
        not np.array_equal(panel.times, index.times)
        or not np.array_equal(panel.offsets, index.offsets)
        or not np.array_equal(panel.assets[panel.asset_codes], index.assets[index.asset_codes])
    ):
        raise PanelMismatchError(f"the state's rows are not the panel's: {index!r} and {panel!r}")
    loadings = state.measurement.loadings.rows()
    finite = np.isfinite(np.column_stack([loadings, panel.characteristics]))
    seen: npt.NDArray[np.bool_] = np.all(finite, axis=1)
    if not seen.any():
        raise InsufficientDataError("no row has both loadings and characteristics")
    z = panel.characteristics.astype(np.float64)
    n_names = z.shape[1]
    sums = np.zeros((n_names, n_quantiles, loadings.shape[1]))
    counts = np.zeros((n_names, n_quantiles, 1))
    for a, b in pairwise(panel.offsets):
        rows = a + np.flatnonzero(seen[a:b])
        if rows.size < n_quantiles:
            continue
        for j in range(n_names):
            place = np.searchsorted(quantile_breaks(z[rows, j], n_quantiles), z[rows, j], side="left")
            np.add.at(sums[j], place, loadings[rows])
            np.add.at(counts[j, :, 0], place, 1.0)
    return LoadingProfiles(
        averages=np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0),
        slopes=_slopes(z[seen], loadings[seen]),
        names=panel.characteristic_names,
        factor_names=state.factors.names,
    )


def _slopes(z: FloatArray, loadings: FloatArray) -> FloatArray:
    """(L, K) least squares with a constant, per standard deviation (ddof 0); NaN where z does not vary."""
    unit, lengths = unit_columns(z)
    varies = np.flatnonzero(lengths)
    found = np.full((z.shape[1], loadings.shape[1]), np.nan)
    fitted = np.linalg.lstsq(unit[:, varies], loadings - loadings.mean(axis=0), rcond=1e-10)[0]
    found[varies] = fitted / np.sqrt(len(z))  # columns of length 1 have a standard deviation of 1/sqrt(n)
    return found
