"""Four small models that exercise every contract: static, conditional, state-space, weight-native.

They are honest models of a few lines, so that a rule which fails on them is a fault of the house.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentfactors import FitSummary, LatentFactorState
from latentfactors.errors import HorizonError
from latentfactors.estimator import freeze
from latentfactors.history import History
from latentfactors.kernels.als import fit_als, observed_factors
from latentfactors.kernels.autoregression import fit_var
from latentfactors.kernels.rotation import fix_signs, principal_rotation
from latentfactors.model import LatentFactorModel, PanelPredictor, known_assets
from latentfactors.results import AssetWeightsResult, Prediction
from latentfactors.state import ConditionalLoadings, Factors, Measurement, StaticLoadings

K = 2


def standardised_components(values):
    """Location, scale, orthonormal loadings and residual variance of (T, N) values with gaps."""
    fit = fit_als(values, K, intercept=True, tolerance=1e-12)
    # The scale is a property of the model, not of the assets' sample: one for all keeps the fit exact.
    scale = np.full(values.shape[1], np.nanstd(values))
    basis = fit.loadings @ principal_rotation(fit.loadings, fit.factors)[0]
    basis = basis * fix_signs(basis)
    residual = (values - fit.intercept - fit.factors @ fit.loadings.T) / scale
    return fit.intercept, scale, basis, np.nanmean(residual**2, axis=0)


@dataclass(frozen=True, kw_only=True)
class DoubleConfig:
    """No options."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StaticEstimates:
    assets: np.ndarray
    location: np.ndarray
    scale: np.ndarray
    loadings: np.ndarray
    residual_variance: np.ndarray

    def __post_init__(self):
        freeze(self)


def estimate_static(panel):
    active = np.isfinite(panel.wide()).sum(axis=0) >= 2 * K
    location, scale, loadings, variance = standardised_components(panel.wide()[:, active])
    return StaticEstimates(
        assets=panel.assets[active],
        location=location,
        scale=scale,
        loadings=loadings,
        residual_variance=variance,
    )


def by_asset(trained, known):
    out = trained[known]
    out[known < 0] = np.nan
    return out


def static_measurement(panel, estimates, who):
    known = known_assets(panel.index, estimates.assets, who)
    loadings = by_asset(estimates.loadings, known)
    variance = by_asset(estimates.residual_variance, known)
    pooled = np.nanmean(estimates.residual_variance)
    measurement = Measurement(
        loadings=StaticLoadings(loadings, panel.index),
        location=by_asset(estimates.location, known),
        scale=by_asset(estimates.scale, known),
        residual_variance=np.where(np.isfinite(variance), variance, pooled)[panel.asset_codes],
    )
    unknown = int((panel.active_assets & (known < 0)).sum())
    return measurement, {"n_assets_without_loadings": unknown}


def standardised(panel, measurement):
    return (panel.wide() - measurement.location) / measurement.scale


class StaticDouble(LatentFactorModel[DoubleConfig, StaticEstimates]):
    """Principal components of standardised values: location and scale are not trivial."""

    def __init__(self):
        super().__init__(DoubleConfig())

    def _estimate(self, panel):
        return estimate_static(panel), FitSummary()

    def _extract(self, panel, estimates):
        measurement, metadata = static_measurement(panel, estimates, "StaticDouble")
        loadings = measurement.loadings.values
        factors = observed_factors(standardised(panel, measurement), loadings, min_observed=2 * K)
        return LatentFactorState(
            index=panel.index,
            factors=Factors(values=factors, names=("F1", "F2")),
            measurement=measurement,
            n_realised=panel.n_realised,
            fit_span=self.fitted.span,
            metadata=metadata,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ConditionalEstimates:
    residual_variance: float


class ConditionalDouble(LatentFactorModel[DoubleConfig, ConditionalEstimates]):
    """Loadings are the characteristics; factors are each period's cross-sectional regression slopes."""

    uses_characteristics = True

    def __init__(self):
        super().__init__(DoubleConfig())

    def _estimate(self, panel):
        residual = panel.values - self._fitted_values(panel, self._slopes(panel))
        return ConditionalEstimates(residual_variance=float(np.nanmean(residual**2))), FitSummary()

    def _extract(self, panel, estimates):
        z = np.array(panel.characteristics, dtype=np.float64)
        return LatentFactorState(
            index=panel.index,
            factors=Factors(values=self._slopes(panel), names=panel.characteristic_names),
            measurement=Measurement(
                loadings=ConditionalLoadings(z, panel.index),
                location=np.zeros(panel.n_assets),
                scale=np.ones(panel.n_assets),
                residual_variance=np.full(panel.n_rows, estimates.residual_variance),
            ),
            n_realised=panel.n_realised,
            fit_span=self.fitted.span,
        )

    def _slopes(self, panel):
        z = np.asarray(panel.characteristics, dtype=np.float64)
        slopes = np.full((panel.n_periods, z.shape[1]), np.nan)
        for p in range(panel.n_periods):
            rows = panel.index.rows(p)
            seen = np.isfinite(panel.values[rows])
            if seen.sum() >= 2 * z.shape[1]:
                slopes[p] = np.linalg.lstsq(z[rows][seen], panel.values[rows][seen], rcond=1e-6)[0]
        return slopes

    def _fitted_values(self, panel, slopes):
        return (panel.characteristics * slopes[panel.index.period_codes]).sum(axis=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class StateSpaceEstimates:
    static: StaticEstimates
    intercept: np.ndarray
    transition: np.ndarray
    innovation: np.ndarray
    training: History

    def __post_init__(self):
        freeze(self)


class StateSpaceDouble(LatentFactorModel[DoubleConfig, StateSpaceEstimates]):
    """Factors follow independent AR(1)s and are filtered; forecasts of factors and values are native."""

    sequential = True

    def __init__(self):
        super().__init__(DoubleConfig())

    def _estimate(self, panel):
        static = estimate_static(panel)
        measurement, _ = static_measurement(panel, static, "StateSpaceDouble")
        values = standardised(panel, measurement)
        factors = observed_factors(values, measurement.loadings.values, min_observed=2 * K)
        var, _, _ = fit_var(factors, 1, diagonal=True)
        # History keeps values by training asset, whatever assets a later panel lists.
        trained = panel.index.match_assets(static.assets) >= 0
        history = History(panel.times, panel.wide()[:, trained])
        return (
            StateSpaceEstimates(
                static=static,
                intercept=var.intercept,
                transition=var.coefficients[0],
                innovation=np.diag(np.diag(var.covariance)),
                training=history,
            ),
            FitSummary(),
        )

    def _extract(self, panel, estimates):
        return self._state(panel, estimates, smooth=False)

    def _smooth(self, panel, estimates):
        return self._state(panel, estimates, smooth=True)

    def _state(self, panel, estimates, *, smooth):
        static = estimates.static
        measurement, metadata = static_measurement(panel, static, "StateSpaceDouble")
        wide = np.full((panel.n_periods, static.assets.size), np.nan)
        known = panel.index.match_assets(static.assets)
        wide[:, known[known >= 0]] = panel.wide()[:, known >= 0]
        values, before = estimates.training.prepend(panel.index, wide, "StateSpaceDouble")
        filtered = kalman_filter((values - static.location) / static.scale, estimates)
        means, covariances = (smoother(filtered, estimates) if smooth else filtered)[:2]
        return LatentFactorState(
            index=panel.index,
            factors=Factors(
                values=means[before:],
                covariance=covariances[before:],
                names=("F1", "F2"),
                information="smoothed" if smooth else "filtered",
            ),
            measurement=measurement,
            n_realised=panel.n_realised,
            fit_span=self.fitted.span,
            native=StateSpaceForecasts(filtered[0], filtered[1], before, estimates, measurement, panel.index),
            metadata=metadata,
        )


def kalman_filter(values, estimates):
    """Filtered means (T, K), covariances (T, K, K), and the predictions that preceded them."""
    static, a = estimates.static, estimates.transition
    mean = np.linalg.solve(np.eye(K) - a, estimates.intercept)
    phi = np.diag(a)
    covariance = np.diag(np.diag(estimates.innovation) / (1 - phi**2))
    means, covariances = np.empty((len(values), K)), np.empty((len(values), K, K))
    # A floor relative to the standardised values: noise-free data would leave nothing to weigh.
    noise = np.maximum(static.residual_variance, 1e-14)
    for t, row in enumerate(values):
        seen = np.isfinite(row)
        b, d = static.loadings[seen], noise[seen]
        information = np.linalg.inv(covariance) + (b / d[:, None]).T @ b
        covariance = np.linalg.inv(information)
        mean = mean + covariance @ ((b / d[:, None]).T @ (row[seen] - b @ mean))
        means[t], covariances[t] = mean, covariance
        mean, covariance = estimates.intercept + a @ mean, a @ covariance @ a.T + estimates.innovation
    return means, covariances


def smoother(filtered, estimates):
    """Rauch-Tung-Striebel: two-sided means and covariances."""
    means, covariances = filtered[0].copy(), filtered[1].copy()
    a = estimates.transition
    for t in range(len(means) - 2, -1, -1):
        predicted = a @ filtered[1][t] @ a.T + estimates.innovation
        gain = filtered[1][t] @ a.T @ np.linalg.inv(predicted)
        means[t] += gain @ (means[t + 1] - estimates.intercept - a @ filtered[0][t])
        covariances[t] += gain @ (covariances[t + 1] - predicted) @ gain.T
    return means, covariances


@dataclass(frozen=True, eq=False)
class StateSpaceForecasts:
    means: np.ndarray
    covariances: np.ndarray
    before: int
    estimates: StateSpaceEstimates
    measurement: Measurement
    index: object

    def factors(self, horizon):
        if horizon < 0:
            raise HorizonError(f"this double serves horizons >= 0, got {horizon}")
        a, c, q = self.estimates.transition, self.estimates.intercept, self.estimates.innovation
        mean = np.linalg.solve(np.eye(K) - a, c)
        variance = np.diag(np.diag(q) / (1 - np.diag(a) ** 2))
        mean = np.concatenate([mean[None], self.means])[: len(self.means)]
        covariance = np.concatenate([variance[None], self.covariances])[: len(self.means)]
        for _ in range(horizon):
            mean, covariance = c + mean * np.diag(a), a @ covariance @ a.T + q
        return mean[self.before :], covariance[self.before :]

    def values(self, horizon):
        mean, covariance = self.factors(horizon)
        index, m = self.index, self.measurement
        b, period = m.loadings.rows(), index.period_codes
        scale = m.scale[index.asset_codes]
        spread = np.einsum("rj,rjk,rk->r", b, covariance[period], b)
        return m.location[index.asset_codes] + scale * (b * mean[period]).sum(axis=1), scale**2 * (
            spread + m.residual_variance
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightEstimates:
    slopes: np.ndarray

    def __post_init__(self):
        freeze(self)


class WeightDouble(PanelPredictor[DoubleConfig, WeightEstimates]):
    """Weights proportional to a fitted score about its period's mean; gross exposure 1."""

    uses_characteristics = True

    def __init__(self):
        super().__init__(DoubleConfig())

    def _estimate(self, panel):
        seen = panel.observed
        return WeightEstimates(
            slopes=np.linalg.lstsq(panel.characteristics[seen], panel.values[seen], rcond=None)[0]
        ), FitSummary()

    def _predict(self, panel, estimates, horizon):
        score = np.zeros(panel.n_rows)
        for j, slope in enumerate(estimates.slopes):
            score += panel.characteristics[:, j] * slope
        weights = np.empty(panel.n_rows)
        for p in range(panel.n_periods):
            rows = panel.index.rows(p)
            centred = score[rows] - score[rows].mean()
            gross = np.abs(centred).sum()
            weights[rows] = centred / gross if gross else 0.0
        held = AssetWeightsResult(
            index=panel.index, fit_span=self.fitted.span, horizon=horizon, weights=weights
        )
        return Prediction(index=panel.index, asset_weights=held)
