"""Small models and predictors for tests of the flow, importable so that workers and files find them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentfactors import Panel
from latentfactors.errors import ConfigurationError
from latentfactors.estimator import Checkpoints, freeze
from latentfactors.kernels.als import observed_factors
from latentfactors.kernels.scores import expanding_asset_mean
from latentfactors.model import LatentFactorModel, PanelPredictor
from latentfactors.results import AssetForecastResult, AssetWeightsResult, Prediction
from latentfactors.rows import RowIndex
from latentfactors.state import (
    Factors,
    FitSpan,
    FitSummary,
    LatentFactorState,
    Measurement,
    StaticLoadings,
)


def month_ends(n, start="2000-01"):
    return (np.datetime64(start, "M") + np.arange(1, n + 1).astype("timedelta64[M]")).astype(
        "datetime64[D]"
    ) - np.timedelta64(1, "D")


def full_index(times, n_assets, frequency="M"):
    n = len(times)
    return RowIndex(
        times=np.asarray(times),
        assets=np.array([f"A{i}" for i in range(n_assets)]),
        offsets=np.arange(n + 1) * n_assets,
        asset_codes=np.tile(np.arange(n_assets, dtype=np.int32), n),
        frequency=frequency,
    )


def hand_state(
    factors,
    *,
    times=None,
    frequency="M",
    loadings=None,
    alpha=None,
    location=None,
    scale=None,
    residual_variance=None,
    n_realised=None,
    fit_end=None,
    native=None,
    information="realised",
):
    """A state written down by hand: factors (T, K), static loadings (N, K), every asset in every period."""
    factors = np.asarray(factors, dtype=float)
    times = month_ends(len(factors)) if times is None else np.asarray(times)
    loadings = np.eye(factors.shape[1]) if loadings is None else np.asarray(loadings, dtype=float)
    index = full_index(times, len(loadings), frequency)
    n = len(loadings)
    return LatentFactorState(
        index=index,
        factors=Factors(
            values=factors,
            names=tuple(f"F{k + 1}" for k in range(factors.shape[1])),
            information=information,
        ),
        measurement=Measurement(
            loadings=StaticLoadings(loadings, index),
            location=np.zeros(n) if location is None else np.asarray(location, dtype=float),
            scale=np.ones(n) if scale is None else np.asarray(scale, dtype=float),
            residual_variance=np.zeros(index.n_rows) if residual_variance is None else residual_variance,
            alpha=alpha,
        ),
        n_realised=len(factors) if n_realised is None else n_realised,
        fit_span=FitSpan(times[0], times[-1] if fit_end is None else fit_end),
        native=native,
    )


# ---------------------------------------------------------------------------------- a model with checkpoints


@dataclass(frozen=True, kw_only=True)
class TurnsConfig:
    default_checkpoint: int | str = "last"
    validates: bool = True


@dataclass(frozen=True, eq=False)
class TurnsEstimates:
    assets: np.ndarray
    loadings: np.ndarray

    def __post_init__(self):
        freeze(self)


class TurnsModel(LatentFactorModel[TurnsConfig, TurnsEstimates]):
    """Two checkpoints that span the same space: right pairs forecast alike, mixed pairs nonsense."""

    TURN = np.array([[0.0, 2.0], [-0.25, 0.0]])

    def _estimate(self, panel):
        values = panel.wide()
        basis = np.linalg.svd(values, full_matrices=False)[2][:2].T
        basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), [0, 1]])
        found = {
            1: TurnsEstimates(panel.assets, basis),
            2: TurnsEstimates(panel.assets, basis @ np.linalg.inv(self.TURN).T),
        }
        best = 1 if self.config.validates else None
        return Checkpoints(found, best=best), FitSummary(reason="turned", warnings=("turned around",))

    def _extract(self, panel, estimates):
        index, loadings = panel.index, estimates.loadings
        return LatentFactorState(
            index=index,
            factors=Factors(
                values=observed_factors(panel.wide(), loadings, min_observed=2), names=("F1", "F2")
            ),
            measurement=Measurement(
                loadings=StaticLoadings(loadings, index),
                location=np.zeros(index.n_assets),
                scale=np.ones(index.n_assets),
                residual_variance=np.zeros(index.n_rows),
            ),
            n_realised=panel.n_realised,
            fit_span=self.fitted.span,
        )

    def with_validation(self, n_periods):
        return TurnsModel(TurnsConfig(default_checkpoint="best"))


# ----------------------------------------------------------------------------- a model that forecasts itself


@dataclass(frozen=True, kw_only=True)
class PersistentConfig:
    rho: float = 0.5


@dataclass(frozen=True, eq=False)
class PersistentEstimates:
    rho: float


@dataclass(frozen=True)
class PersistentForecasts:
    """y_(p+h-1) = rho^h y_(p-1) ahead; for h <= 0 the value of p+h-1 itself, which is known."""

    wide: np.ndarray
    index: RowIndex
    rho: float

    def _ahead(self, paths, horizon):
        out = np.full(paths.shape, np.nan)
        back = 1 if horizon >= 1 else 1 - horizon
        out[back:] = paths[:-back] * (self.rho**horizon if horizon >= 1 else 1.0)
        return out

    def factors(self, horizon):
        mean = self._ahead(self.wide.mean(axis=1, keepdims=True), horizon)
        return mean, np.full((len(mean), 1, 1), float(max(horizon, 0)))

    def values(self, horizon):
        mean = self.index.gather(self._ahead(self.wide, horizon))
        return mean, np.full(mean.shape, float(max(horizon, 0)))


class PersistentModel(LatentFactorModel[PersistentConfig, PersistentEstimates]):
    """Every series is an AR(1) with the rho of the config; the factor is the mean of the series."""

    def _estimate(self, panel):
        return PersistentEstimates(self.config.rho), FitSummary()

    def _extract(self, panel, estimates):
        index, wide = panel.index, panel.wide()
        return LatentFactorState(
            index=index,
            factors=Factors(values=wide.mean(axis=1, keepdims=True), names=("mean",), information="filtered"),
            measurement=Measurement(
                loadings=StaticLoadings(np.ones((index.n_assets, 1)), index),
                location=np.zeros(index.n_assets),
                scale=np.ones(index.n_assets),
                residual_variance=np.zeros(index.n_rows),
            ),
            n_realised=panel.n_realised,
            fit_span=self.fitted.span,
            native=PersistentForecasts(wide, index, estimates.rho),
        )


# ------------------------------------------------------------------------------------ predictors


@dataclass(frozen=True, kw_only=True)
class EqualWeightsConfig:
    pass


@dataclass(frozen=True, eq=False)
class Nothing:
    pass


class EqualWeights(PanelPredictor[EqualWeightsConfig, Nothing]):
    """Holds every row equally; forecasts no values."""

    def __init__(self):
        super().__init__(EqualWeightsConfig())

    def _estimate(self, panel):
        return Nothing(), FitSummary()

    def _predict(self, panel, estimates, horizon):
        sizes = np.diff(panel.offsets)[panel.index.period_codes]
        weights = AssetWeightsResult(
            index=panel.index, fit_span=self.fitted.span, horizon=horizon, weights=1.0 / sizes
        )
        return Prediction(index=panel.index, asset_weights=weights)


@dataclass(frozen=True, kw_only=True)
class LoggedConfig:
    """`folder` keeps a line per fit in log.txt and takes orders: limit, fail_at, misconfigured_at ..."""

    folder: str
    tilt: float = 0.0


@dataclass(frozen=True, eq=False)
class LoggedEstimates:
    level: float


class Logged(PanelPredictor[LoggedConfig, LoggedEstimates]):
    """Mean of all training values plus the asset's own mean up to the origin; every fit leaves a trace."""

    def __init__(self, folder, tilt=0.0):
        super().__init__(LoggedConfig(folder=str(folder), tilt=tilt))

    def order(self, name):
        path = Path(self.config.folder) / name
        return path.read_text() if path.exists() else None

    def _estimate(self, panel):
        log = Path(self.config.folder) / "log.txt"
        done = log.read_text().splitlines() if log.exists() else []
        limit = self.order("limit")
        if limit is not None and len(done) >= int(limit):
            raise KeyboardInterrupt
        with log.open("a") as lines:
            lines.write(f"{panel.times[0]} {panel.times[-1]} {panel.n_realised}\n")
        last = str(panel.times[-1])
        if last in (self.order("fail_at") or "").split():
            raise RuntimeError("no luck")
        if last in (self.order("misconfigured_at") or "").split():
            raise ConfigurationError("never works")
        if self.order("seconds"):
            time.sleep(float(self.order("seconds")))
        level = float(np.nanmean(panel.values)) + self.config.tilt
        return LoggedEstimates(level), FitSummary(metrics={"level": level}, warnings=("a remark",))

    def _predict(self, panel, estimates, horizon):
        means = expanding_asset_mean(panel.values, panel.offsets, panel.asset_codes, panel.n_assets)
        forecast = AssetForecastResult(
            index=panel.index,
            fit_span=self.fitted.span,
            horizon=horizon,
            expected_values=estimates.level + np.nan_to_num(means),
        )
        return Prediction(index=panel.index, asset_forecast=forecast)


def fits(folder):
    """What `Logged` fitted: last training periods, in order."""
    log = Path(folder) / "log.txt"
    return [line.split()[1] for line in log.read_text().splitlines()] if log.exists() else []


class Vintages:
    """A source that publishes the last month of a panel `lag` months late for its odd series."""

    def __init__(self, panel: Panel):
        self.panel = panel

    def as_of(self, date):
        seen = self.panel.until(date)
        late = (seen.index.period_codes == seen.n_periods - 1) & (seen.asset_codes % 2 == 1)
        return seen.mask(late)
