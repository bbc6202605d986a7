"""For every rule predictors that break it on purpose: what the suite has to catch.

Each is a healthy double or model with one deliberate fault, the kind of fault found in published code.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from latentfactors import (
    AR1FactorForecaster,
    BetaLambdaMapper,
    ExpandingMeanFactorForecaster,
    LatentFactorForecastPipeline,
    PCAConfig,
    PCAModel,
)
from latentfactors.estimator import Checkpoints
from latentfactors.models.direct import HistoricalMeanPredictor, ZeroPredictor, as_prediction
from tests.contracts.cases import broken, pipeline
from tests.contracts.doubles import StaticDouble, WeightDouble


def pca(**options):
    return PCAConfig(n_factors=2, tolerance=1e-12, **options)


# ------------------------------------------------------------------------ 1


class FullSampleMean(ExpandingMeanFactorForecaster):
    """Premium = mean of all factors it is shown, the future included."""

    def _forecast(self, factors, estimates, horizon):
        mean = np.nanmean(factors, axis=0)
        covariance = np.broadcast_to(estimates.covariance, (len(factors), 2, 2))
        return np.tile(mean, (len(factors), 1)), covariance


class SamePeriodMean(ExpandingMeanFactorForecaster):
    """Forgets to lag: period p's own factor is in p's forecast."""

    def _forecast(self, factors, estimates, horizon):
        mean, covariance = super()._forecast(factors, estimates, horizon)
        own = np.where(np.isfinite(factors), factors, mean)
        return 0.5 * (mean + own), covariance


class NextRowSet(WeightDouble):
    """Weights use the following period's cross-section."""

    def _predict(self, panel, estimates, horizon):
        size = np.diff(panel.offsets)
        following = np.append(panel.characteristics[:, 0].cumsum()[panel.offsets[1:] - 1][1:], 0.0)
        prediction = super()._predict(panel, estimates, horizon)
        weights = prediction.asset_weights
        factor = 1.0 + (following / size)[panel.index.period_codes]
        return replace(prediction, asset_weights=replace(weights, weights=weights.weights * factor))


# ------------------------------------------------------------------------ 2


class ZeroFillingPCA(PCAModel):
    """Reads a missing return as zero."""

    def _estimate(self, panel):
        return super()._estimate(panel.with_values(np.nan_to_num(panel.values)))

    def _extract(self, panel, estimates):
        filled = np.where(panel.index.period_codes < panel.n_realised, np.nan_to_num(panel.values), np.nan)
        return super()._extract(panel.with_values(filled), estimates)


class GarbageFactors(StaticDouble):
    """Takes factors from however few assets there are."""

    def _extract(self, panel, estimates):
        state = super()._extract(panel, estimates)
        values = (panel.wide() - estimates.location) / estimates.scale
        factors = np.array(state.factors.values)
        for t in np.flatnonzero(np.isnan(factors).any(axis=1)):
            seen = np.isfinite(values[t])
            if seen.any():
                factors[t] = np.linalg.lstsq(estimates.loadings[seen] * 0.01, values[t, seen], rcond=None)[0]
        return replace(state, factors=replace(state.factors, values=factors))


class LiveTailMatters(HistoricalMeanPredictor):
    """Counts live periods as observations of zero."""

    def fit(self, panel):
        n_live = panel.n_periods - panel.n_realised
        summary = super().fit(panel)
        object.__setattr__(self.estimates, "n", self.estimates.n + n_live)
        self.shrink = 1.0 / (1 + n_live)
        return summary

    def _predict(self, panel, estimates, horizon):
        prediction = super()._predict(panel, estimates, horizon)
        return as_prediction(
            panel, prediction.asset_forecast.expected_values * self.shrink, self.fitted.span, horizon
        )


# ------------------------------------------------------------------------ 3


class Turning(PCAModel):
    """The sign of the second factor depends on how many periods there are."""

    def _estimate(self, panel):
        estimates, summary = super()._estimate(panel)
        signs = np.array([1.0, -1.0 if panel.n_periods % 2 == 0 else 1.0])
        return replace(estimates, loadings=estimates.loadings * signs), summary


class Unrotated(PCAModel):
    """Spans the right space in an arbitrary basis."""

    def _estimate(self, panel):
        estimates, summary = super()._estimate(panel)
        turn = np.array([[0.8, -0.6], [0.6, 0.8]])
        return replace(estimates, loadings=estimates.loadings @ turn), summary


# ------------------------------------------------------------------------ 4, 5, 6


class AbsoluteRidge(PCAModel):
    """A ridge in absolute units: answers depend on whether returns are decimals or percent."""

    def _extract(self, panel, estimates):
        state = super()._extract(panel, estimates)
        size = np.abs(state.factors.values)
        return replace(
            state, factors=replace(state.factors, values=state.factors.values * size / (size + 0.01))
        )


class PositionMatters(PCAModel):
    """Tilts by the position of an asset in the table."""

    def _extract(self, panel, estimates):
        state = super()._extract(panel, estimates)
        loadings = state.measurement.loadings
        tilt = 1.0 + 0.01 * np.arange(panel.n_assets)[:, None]
        moved = replace(state.measurement, loadings=replace(loadings, values=loadings.values * tilt))
        return replace(state, measurement=moved)


class ForgetsUnits(StaticDouble):
    """Returns standardised forecasts."""

    def _extract(self, panel, estimates):
        state = super()._extract(panel, estimates)
        m = state.measurement
        plain = replace(m, location=np.where(np.isnan(m.location), np.nan, 0.0), scale=np.ones_like(m.scale))
        return replace(state, measurement=plain)


class VarianceInModelUnits(StaticDouble):
    """Forgets that variance scales with the square."""

    def _extract(self, panel, estimates):
        state = super()._extract(panel, estimates)
        variance = state.measurement.residual_variance * 100.0
        return replace(state, measurement=replace(state.measurement, residual_variance=variance))


# ------------------------------------------------------------------------ 7


class Unseeded(ZeroPredictor):
    """Draws without a seed."""

    def _predict(self, panel, estimates, horizon):
        noise = np.random.default_rng().normal(size=panel.n_rows)
        return as_prediction(panel, noise, self.fitted.span, horizon)


# ------------------------------------------------------------------------ 8


class TwoCheckpoints(PCAModel):
    """Healthy: two checkpoints of the same model, the second in another scale."""

    def _estimate(self, panel):
        estimates, summary = super()._estimate(panel)
        other = replace(estimates, loadings=estimates.loadings * 0.5, factor_mean=estimates.factor_mean * 2.0)
        return Checkpoints({1: estimates, 2: other}, best=1), summary


class MixedPairs(LatentFactorForecastPipeline):
    """Pairs one checkpoint's betas with another's forecaster."""

    def fit(self, panel):
        summary = super().fit(panel)
        labels, forecasters = list(self._forecasters), list(self._forecasters.values())
        self._forecasters = dict(zip(labels, reversed(forecasters), strict=True))
        return summary


def mixed_pairs():
    return MixedPairs(
        model=TwoCheckpoints(pca()), forecaster=AR1FactorForecaster(), mapper=BetaLambdaMapper()
    )


class Mislabelled(PCAModel):
    """Names a checkpoint in the state that does not exist."""

    def extract(self, panel, checkpoint=None):
        return replace(super().extract(panel, checkpoint), checkpoint=7)


# ------------------------------------------------------------------------ 9


class LossyStore(HistoricalMeanPredictor):
    """Comes back with another configuration."""

    def _to_store(self):
        content = super()._to_store()
        content["config"] = replace(self.config, min_periods=self.config.min_periods + 1)
        return content


class RoundedStore(StaticDouble):
    """Saves loadings in single precision."""

    def _to_store(self):
        content = super()._to_store()
        fitted = content["fitted"]
        estimates = fitted.checkpoints.by_label["last"]
        short = replace(estimates, loadings=estimates.loadings.astype(np.float32).astype(np.float64))
        return {**content, "fitted": replace(fitted, checkpoints=Checkpoints({"last": short}))}


# ------------------------------------------------------------------------ 10


class Seeds(ZeroPredictor):
    """Seeds NumPy's global generator."""

    def _estimate(self, panel):
        np.random.seed(0)
        return super()._estimate(panel)


class Silences(ZeroPredictor):
    """Installs a warnings filter for good."""

    def _estimate(self, panel):
        warnings.simplefilter("ignore")
        return super()._estimate(panel)


class Writes(ZeroPredictor):
    """Writes into the caller's panel through the read-only flag."""

    def _predict(self, panel, estimates, horizon):
        values = panel.values
        while values.base is not None and isinstance(values.base, np.ndarray):
            values = values.base
        values.flags.writeable = True
        values[np.isnan(values)] = 0.0
        values.flags.writeable = False
        return super()._predict(panel, estimates, horizon)


@dataclass(frozen=True)
class Breach:
    """A broken predictor, the rule it breaks, and words of the failure that must name it."""

    rule: int
    case: object
    words: str

    def __str__(self) -> str:
        return f"{self.rule}-{self.case.name}-{self.words[:20]}"


def of_pca(model, forecaster=None):
    return broken("PCA, expanding mean", pipeline(lambda: model(pca()), forecaster))


BREACHES = [
    Breach(1, of_pca(PCAModel, FullSampleMean), "changed when later numbers did"),
    Breach(1, of_pca(PCAModel, SamePeriodMean), "changed when later numbers did"),
    Breach(1, broken("weight double", NextRowSet), "changed when later numbers did"),
    Breach(2, of_pca(ZeroFillingPCA), "moved other rows' forecasts"),
    Breach(2, broken("static double", pipeline(GarbageFactors)), "one observation are not NaN"),
    Breach(2, broken("historical mean", LiveTailMatters), "a live tail changed the fit"),
    Breach(3, of_pca(Turning), "declared but violated"),
    Breach(3, of_pca(Unrotated), "declared but violated"),
    Breach(4, of_pca(AbsoluteRidge), "does not scale"),
    Breach(5, of_pca(PositionMatters), "does not permute"),
    Breach(6, broken("static double", pipeline(ForgetsUnits)), "not in input units"),
    Breach(6, broken("static double", pipeline(VarianceInModelUnits)), "variances are not in input units"),
    Breach(7, broken("zero", Unseeded), "differs between two equal calls"),
    Breach(8, broken("PCA, AR(1)", mixed_pairs), "paired with another checkpoint's forecaster"),
    Breach(8, of_pca(Mislabelled), "does not name the default checkpoint"),
    Breach(9, broken("historical mean", LossyStore), "not exact after loading"),
    Breach(9, broken("static double", pipeline(RoundedStore)), "not exact after loading"),
    Breach(10, broken("zero", Seeds), "random state"),
    Breach(10, broken("zero", Silences), "warnings filters"),
    Breach(10, broken("zero", Writes), "was written to"),
]
