"""Direct predictors: forecasts without factors, the benchmarks of every table.

zero               0
historical mean    mean of the asset's own values up to the origin
cross-sectional    r_(p+h-1,i) = a_p + z_(p,i)'b_p each period; forecast = mean(a) + z'mean(b)
                   (Fama-MacBeth averages as a forecast: Lewellen 2015, Critical Finance Review 4(1), 1-44)
regressor          any scikit-learn-like regressor on pooled (characteristics, value) rows
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, StoreError
from latentfactors.estimator import Estimator, at_least, check_horizon, check_number, freeze
from latentfactors.history import continues
from latentfactors.kernels.moments import unit_columns
from latentfactors.kernels.scores import running_asset_means
from latentfactors.model import PanelPredictor
from latentfactors.panel import Panel
from latentfactors.results import Prediction
from latentfactors.signals import as_prediction, pooled_rows, same_horizon, values_ahead
from latentfactors.state import FitSummary
from latentfactors.store import class_path, fingerprint
from latentfactors.validate import count

__all__ = [
    "CrossSectionalOLSPredictor",
    "CrossSectionalRidgePredictor",
    "HistoricalMeanPredictor",
    "RegressorPredictor",
    "ZeroPredictor",
]

FloatArray = npt.NDArray[np.float64]


# ------------------------------------------------------------------------------------ zero


@dataclass(frozen=True, kw_only=True)
class ZeroConfig:
    """Options of `ZeroPredictor`: none."""


@dataclass(frozen=True, eq=False)
class ZeroEstimates:
    """Nothing to estimate."""


class ZeroPredictor(PanelPredictor[ZeroConfig, ZeroEstimates]):
    """Expects nothing of any asset: the benchmark that excess-return forecasts rarely beat."""

    sees = "nothing"

    def __init__(self) -> None:
        super().__init__(ZeroConfig())

    def _estimate(self, panel: Panel) -> tuple[ZeroEstimates, FitSummary]:
        return ZeroEstimates(), FitSummary(reason="nothing to estimate")

    def _predict(self, panel: Panel, estimates: ZeroEstimates, horizon: int) -> Prediction:
        return as_prediction(panel, np.zeros(panel.n_rows), self.fitted.span, horizon)


# ------------------------------------------------------------------------------------ historical mean


@dataclass(frozen=True, kw_only=True)
class HistoricalMeanConfig:
    """Options of `HistoricalMeanPredictor`."""

    min_periods: int = 1

    def __post_init__(self) -> None:
        at_least("min_periods", self.min_periods, 1)


@dataclass(frozen=True, eq=False)
class HistoricalMeanEstimates:
    """Running sums at the end of training: assets (N,), total (N,), n (N,), and the span they cover."""

    assets: npt.NDArray[Any]
    total: FloatArray
    n: npt.NDArray[np.int64]
    first: Any
    last: Any

    def __post_init__(self) -> None:
        freeze(self)


class HistoricalMeanPredictor(PanelPredictor[HistoricalMeanConfig, HistoricalMeanEstimates]):
    """Mean of each asset's own observed values up to the origin; NaN for an asset without a past.

    Parameters
    ----------
    min_periods
        Observed values an asset needs.

    Notes
    -----
    Sequential: a panel reaches back over the training period or starts right after it, else `GapError`.
    """

    sees = "own history"

    def __init__(self, min_periods: int = 1) -> None:
        super().__init__(HistoricalMeanConfig(min_periods=min_periods))

    def _estimate(self, panel: Panel) -> tuple[HistoricalMeanEstimates, FitSummary]:
        _, total, n = running_asset_means(panel.values, panel.offsets, panel.asset_codes, panel.n_assets)
        return HistoricalMeanEstimates(panel.assets, total, n, panel.times[0], panel.times[-1]), FitSummary()

    def _predict(self, panel: Panel, estimates: HistoricalMeanEstimates, horizon: int) -> Prediction:
        before = None
        if continues(estimates.first, estimates.last, panel.index, type(self).__name__):
            known = panel.index.match_assets(estimates.assets)
            total = np.where(known < 0, 0.0, estimates.total[known])
            before = (total, np.where(known < 0, 0, estimates.n[known]))
        means, _, _ = running_asset_means(
            panel.values,
            panel.offsets,
            panel.asset_codes,
            panel.n_assets,
            before=before,
            min_periods=self.config.min_periods,
        )
        return as_prediction(panel, means, self.fitted.span, horizon)


# ------------------------------------------------------------------------------- cross-sectional regressions


@dataclass(frozen=True, kw_only=True)
class CrossSectionalConfig:
    """Options of the cross-sectional regressions.

    Parameters
    ----------
    horizon
        The regression explains the value of period p + horizon - 1 by the row of period p.
    penalty
        Ridge penalty relative to the characteristics' average sum of squares in the period; 0 is least
        squares.
    min_assets
        Observed rows a period needs. None: L + 2, or 2 with a penalty.
    """

    horizon: int = 1
    penalty: float = 0.0
    min_assets: int | None = None

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        object.__setattr__(self, "penalty", check_number("penalty", self.penalty))
        if self.min_assets is not None:
            at_least("min_assets", self.min_assets, 1)


@dataclass(frozen=True, eq=False)
class CrossSectionalEstimates:
    """Average coefficients: intercept, slopes (L,), Fama-MacBeth t statistics (L + 1,), periods used."""

    intercept: float
    slopes: FloatArray
    t_statistics: FloatArray
    n_periods: int

    def __post_init__(self) -> None:
        freeze(self)


class CrossSectionalRidgePredictor(PanelPredictor[CrossSectionalConfig, CrossSectionalEstimates]):
    """Average of period-by-period ridge regressions of values on characteristics.

    Parameters
    ----------
    penalty
        Relative to the characteristics' average sum of squares in the period, so that units do not matter.
    horizon
        Periods ahead the regression looks; `predict` serves this horizon only.
    min_assets
        Observed rows a period needs.

    Examples
    --------
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=40, n_assets=50, n_factors=2, seed=1).panel
    >>> predictor = CrossSectionalRidgePredictor(penalty=0.1)
    >>> predictor.fit(panel.between(0, 30)).converged
    True
    >>> predictor.predict(panel, start=panel.times[30]).asset_forecast.expected_values.shape == (
    ...     panel.between(30, 40).n_rows,
    ... )
    True
    """

    uses_characteristics = True

    def __init__(self, penalty: float = 0.1, horizon: int = 1, min_assets: int | None = None) -> None:
        super().__init__(CrossSectionalConfig(horizon=horizon, penalty=penalty, min_assets=min_assets))

    def _estimate(self, panel: Panel) -> tuple[CrossSectionalEstimates, FitSummary]:
        return fama_macbeth(panel, self.config)

    def _predict(self, panel: Panel, estimates: CrossSectionalEstimates, horizon: int) -> Prediction:
        same_horizon(type(self).__name__, self.config.horizon, horizon)
        forecast = linear_forecast(panel, estimates.intercept, estimates.slopes)
        return as_prediction(panel, forecast, self.fitted.span, horizon)


class CrossSectionalOLSPredictor(CrossSectionalRidgePredictor):
    """Average of period-by-period least-squares regressions of values on characteristics (Fama-MacBeth).

    Parameters
    ----------
    horizon, min_assets
        As in `CrossSectionalRidgePredictor`.
    """

    def __init__(self, horizon: int = 1, min_assets: int | None = None) -> None:
        super().__init__(penalty=0.0, horizon=horizon, min_assets=min_assets)


def fama_macbeth(panel: Panel, config: CrossSectionalConfig) -> tuple[CrossSectionalEstimates, FitSummary]:
    """Average the coefficients of one cross-sectional regression per period.

    Raises
    ------
    InsufficientDataError
        When no period has enough observed rows.
    """
    z = panel.characteristics
    assert z is not None
    n_names = z.shape[1]
    ahead = values_ahead(panel, config.horizon)
    needed = (2 if config.penalty else n_names + 2) if config.min_assets is None else config.min_assets
    coefficients, thin = [], 0
    for p in range(panel.n_periods):
        rows = panel.index.rows(p)
        seen = np.isfinite(ahead[rows])
        if seen.sum() < needed:
            thin += 1
            continue
        coefficients.append(
            ridge_regression(z[rows][seen].astype(np.float64), ahead[rows][seen], config.penalty)
        )
    if not coefficients:
        raise InsufficientDataError(
            f"no training period has {needed} rows with characteristics and a value {config.horizon} ahead: "
            "use fewer characteristics or a penalty"
        )
    table = np.array(coefficients)
    mean = table.mean(axis=0)
    n = len(table)
    error = table.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(n_names + 1, np.nan)
    t = np.divide(mean, error, out=np.full(n_names + 1, np.nan), where=error > 0)
    warnings = (f"{count(thin, 'period')} with fewer than {needed} observed rows left out",) if thin else ()
    return (
        CrossSectionalEstimates(float(mean[0]), mean[1:], t, n),
        FitSummary(reason=f"average of {n} cross-sectional regressions", warnings=warnings),
    )


def ridge_regression(z: FloatArray, r: FloatArray, penalty: float) -> FloatArray:
    """(intercept, slopes) minimising |r - a - zb|^2 + penalty * (tr z'z / L) |b|^2, z demeaned; a is free."""
    centre, level = z.mean(axis=0), r.mean()
    # Unit columns and no cross products: a market capitalisation beside a ratio would cost the ratio digits.
    unit, norms = unit_columns(z)
    root = np.sqrt(penalty * np.square(norms).mean())
    shrinkage = np.diag(np.divide(root, norms, out=np.zeros_like(norms), where=norms > 0))
    design, target = np.vstack([unit, shrinkage]), np.concatenate([r - level, np.zeros(len(norms))])
    # minimum norm where characteristics are collinear; a constant one gets no slope
    scaled = np.linalg.lstsq(design, target, rcond=1e-10)[0]
    slopes = np.divide(scaled, norms, out=np.zeros_like(norms), where=norms > 0)
    return np.concatenate([[level - centre @ slopes], slopes])


def linear_forecast(panel: Panel, intercept: float, slopes: FloatArray) -> FloatArray:
    """(R,) intercept + z'slopes, added column by column: the same bits whatever other rows there are."""
    assert panel.characteristics is not None
    total = np.full(panel.n_rows, intercept)
    for j, slope in enumerate(slopes):
        total += panel.characteristics[:, j] * slope
    return total


# ------------------------------------------------------------------------------------ foreign regressors


@dataclass(frozen=True, kw_only=True)
class RegressorConfig:
    """What a foreign regressor was built with: its class path, parameters as text, and the horizon."""

    regressor: str
    parameters: tuple[tuple[str, str], ...]
    horizon: int = 1

    def __post_init__(self) -> None:
        check_horizon(self.horizon)


@dataclass(frozen=True, eq=False)
class RegressorEstimates:
    """The fitted foreign object."""

    regressor: Any


class RegressorPredictor(PanelPredictor[RegressorConfig, RegressorEstimates]):
    """Any regressor with `fit(X, y)`, `predict(X)` and `get_params()`, on pooled rows.

    Parameters
    ----------
    regressor
        For instance a scikit-learn estimator. A copy is fitted, never the object given.
    horizon
        Periods ahead.

    Notes
    -----
    Saving is refused: a foreign object has no representation without pickle. Save its own way.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=30, n_assets=40, n_factors=2, seed=1).panel
    >>> RegressorPredictor(Ridge(alpha=1.0)).fit(panel).converged
    True
    """

    uses_characteristics = True

    def __init__(self, regressor: Any, horizon: int = 1) -> None:
        missing = [name for name in ("fit", "predict", "get_params") if not hasattr(regressor, name)]
        if missing:
            raise ConfigurationError(
                f"regressor must have fit, predict and get_params, lacks {', '.join(missing)}"
            )
        parameters = tuple(sorted((name, _as_text(value)) for name, value in regressor.get_params().items()))
        super().__init__(
            RegressorConfig(regressor=class_path(type(regressor)), parameters=parameters, horizon=horizon)
        )
        self._template = copy.deepcopy(regressor)

    def _estimate(self, panel: Panel) -> tuple[RegressorEstimates, FitSummary]:
        z, ahead, _ = pooled_rows(panel, self.config.horizon)
        regressor = copy.deepcopy(self._template)
        regressor.fit(z, ahead)
        return RegressorEstimates(regressor), FitSummary(reason=f"fitted on {len(z)} rows")

    def _predict(self, panel: Panel, estimates: RegressorEstimates, horizon: int) -> Prediction:
        same_horizon(type(self).__name__, self.config.horizon, horizon)
        assert panel.characteristics is not None
        forecast = np.empty(panel.n_rows)
        for p in range(panel.n_periods):
            rows = panel.index.rows(p)
            if rows.stop > rows.start:
                forecast[rows] = estimates.regressor.predict(panel.characteristics[rows].astype(np.float64))
        return as_prediction(panel, forecast, self.fitted.span, horizon)

    def clone(self) -> Self:
        """An unfitted copy around the same regressor."""
        twin = object.__new__(type(self))
        Estimator.__init__(twin, self.config)
        twin._template = self._template
        return twin

    def save(self, directory: str | Path) -> Path:
        """Refused.

        Raises
        ------
        StoreError
            Always.
        """
        raise StoreError(f"{self.config.regressor} is a foreign object and cannot be saved without pickle")

    @property
    def identity(self) -> str:
        """Class path and parameters of the regressor."""
        return f"{class_path(type(self))}:{self.config.regressor}:{fingerprint(self.config)}"


def _as_text(value: Any) -> str:
    """A parameter as text; the `repr` of a long array leaves most of it out."""
    return f"array {fingerprint(value)}" if isinstance(value, np.ndarray) else repr(value)
