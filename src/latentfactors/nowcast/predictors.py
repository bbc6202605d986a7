"""Nowcasts as predictors that `walk_forward` runs over vintages, and the benchmarks they have to beat.

Row p of a target forecasts period p + horizon - 1 given the values of periods before p. In a vintage all live
rows share one origin, so with `VintageSplits(..., ahead=k)` and horizon 1 - b one fit covers the periods from
b before to k - b after the vintage's last one: backcasts, the nowcast and forecasts together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from latentfactors.conditional import Cell, ConditionalForecaster, ConditionalLaw
from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
    PanelMismatchError,
)
from latentfactors.estimator import Estimator, check_horizon, freeze
from latentfactors.history import History
from latentfactors.kernels.autoregression import VectorAutoregression, conditional_forecasts, fit_var
from latentfactors.model import LatentFactorModel
from latentfactors.nowcast.estimate import own_frequency
from latentfactors.panel import Panel
from latentfactors.periods import is_date, period_end
from latentfactors.results import AssetForecastResult, Prediction
from latentfactors.state import FitSummary
from latentfactors.store import class_path, load_object, save_object
from latentfactors.validate import count

__all__ = [
    "NowcastPredictor",
    "SeriesBenchmark",
    "SeriesBenchmarkConfig",
    "SeriesBenchmarkEstimates",
]

FloatArray = npt.NDArray[np.float64]
Benchmark = Literal["ar1", "mean"]


class NowcastPredictor:
    """A model's nowcasts of some series, as a `Predictor`.

    Parameters
    ----------
    model
        A `LatentFactorModel` or `SeriesBenchmark` with `conditional`.
    targets
        Labels that are forecast; rows of other series are NaN.
    densities
        False: means alone, all from one pass through the data. The variances of many cells cost a pass each:
        leave them out where every series of a panel is a target.

    Raises
    ------
    MissingCapabilityError
        A model without `conditional`.
    ConfigurationError
        No target, or a bare text.

    Examples
    --------
    >>> from latentfactors.simulate import dynamic_factor_panel
    >>> panel = dynamic_factor_panel(n_periods=80, n_series=5, seed=1).panel
    >>> name = panel.assets[0].item()
    >>> benchmark = SeriesBenchmark(SeriesBenchmarkConfig(targets=(name,), method="ar1"))
    >>> predictor = NowcastPredictor(benchmark, targets=(name,))
    >>> _ = predictor.fit(panel)
    >>> found = predictor.predict(panel.extend(2), start=panel.extend(1).times[-1])
    >>> int(np.isfinite(found.asset_forecast.expected_values).sum())
    2
    """

    def __init__(self, model: Any, targets: Sequence[Any], *, densities: bool = True) -> None:
        if not isinstance(model, ConditionalForecaster) or not isinstance(model, Estimator):
            raise MissingCapabilityError(
                f"{type(model).__name__} says no law of single cells: use a dynamic factor model"
            )
        if isinstance(targets, str) or not len(targets):
            raise ConfigurationError(f"targets must be a tuple of series, got {targets!r}: write ('gdp',)")
        self.model: Any = model
        self.targets = tuple(targets)
        self.densities = bool(densities)

    def fit(self, panel: Panel) -> FitSummary:
        """Fit the model on what is known."""
        lacking = [each for each in self.targets if each not in panel.assets.tolist()]
        if lacking:
            raise PanelMismatchError(
                f"the panel has no target {lacking[0]!r}: name targets as the panel does"
            )
        return self.model.fit(panel)

    def predict(self, panel: Panel, *, start: Any = None, horizon: int = 1) -> Prediction:
        """Forecast the targets' rows from `start` on, each from values before its own period.

        Targets of a lower frequency are forecast in the months that end their period, else NaN.
        """
        horizon = check_horizon(horizon, None)
        structural = self.model
        state = structural.extract(panel) if isinstance(structural, LatentFactorModel) else None
        first = 0 if start is None else panel.index.position(start)
        mean, variance = np.full((2, panel.n_rows), np.nan)
        live = panel.n_realised
        # every live row shares one past; each earlier row has its own
        groups = [range(p, p + 1) for p in range(first, min(live, panel.n_periods))]
        if panel.n_periods > max(first, live):
            groups.append(range(max(first, live), panel.n_periods))
        # further periods for targets beyond the panel; integers and calendars know them
        longer = panel.extend(horizon - 1) if horizon > 1 else panel
        labels = panel.assets.tolist()
        wanted = [labels.index(each) for each in self.targets if each in labels]
        lowest = [own_frequency(panel, labels[column])[0] for column in wanted]
        for rows in groups:
            cells, places = self._cells(panel, longer, rows, horizon, wanted, lowest)
            if not cells:
                continue
            past = longer.mask(longer.index.period_codes >= rows.start)
            if self.densities:
                law = self.model.conditional(past, cells)
                mean[places], variance[places] = law.mean, np.diag(law.covariance)
            else:
                expected = longer.index.dense(self.model.expected_values(past))
                mean[places] = [
                    expected[longer.index.position(time), labels.index(label)] for label, time in cells
                ]
        index = panel.index.between(first, panel.n_periods)
        begin = int(panel.offsets[first])
        forecast = AssetForecastResult(
            index=index,
            fit_span=self.model.fitted.span,
            horizon=horizon,
            expected_values=mean[begin:],
            variance=variance[begin:] if self.densities else None,
        )
        if state is not None:
            state = state.between(first, panel.n_periods)
        return Prediction(index=index, state=state, asset_forecast=forecast)

    def _cells(
        self, panel: Panel, longer: Panel, rows: range, horizon: int, wanted: list[int], lowest: list[Any]
    ) -> tuple[list[Cell], list[int]]:
        cells: list[Cell] = []
        places: list[int] = []
        for p in rows:
            target = p + horizon - 1
            span = panel.index.rows(p)
            if not 0 <= target < longer.n_periods:
                continue
            time = longer.times[target]
            for column, own in zip(wanted, lowest, strict=True):
                found = np.flatnonzero(panel.asset_codes[span] == column)
                ends = own == panel.frequency or not is_date(longer.times) or own is None
                if found.size and (ends or period_end(np.array([time]), own)[0] == time):
                    cells.append((panel.assets[column].item(), time))
                    places.append(span.start + int(found[0]))
        return cells, places

    # ---------------------------------------------------------------- what the model found

    uses_characteristics = False

    @property
    def fitted(self) -> Any:
        """What the model's fit left behind."""
        return self.model.fitted

    @property
    def summary(self) -> FitSummary:
        """How the model's fit went."""
        return self.model.summary

    @property
    def available_checkpoints(self) -> tuple[int | str, ...]:
        """Labels of the model's estimates."""
        return self.model.available_checkpoints

    def estimates_at(self, checkpoint: int | str | None) -> tuple[int | str, Any]:
        """The label and estimates that a `checkpoint` stands for."""
        return self.model.estimates_at(checkpoint)

    # ---------------------------------------------------------------- identity, copies, files

    def clone(self) -> Self:
        """An unfitted copy."""
        return type(self)(self.model.clone(), self.targets, densities=self.densities)

    @property
    def identity(self) -> str:
        """Class, targets, whether densities are asked for, and the model's identity."""
        means = "" if self.densities else " means"
        return f"{class_path(type(self))}:{self.targets!r}{means} | {self.model.identity}"

    def save(self, directory: str | Path) -> Path:
        """Write the model and the targets; `load` gives them back exactly."""
        card = self.model._card() | {"class": class_path(type(self)), "targets": list(self.targets)}
        return save_object(directory, self, card)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read what `save` wrote."""
        return load_object(directory, cls)

    def _to_store(self) -> dict[str, Any]:
        return {"model": self.model, "targets": self.targets, "densities": self.densities}

    @classmethod
    def _from_store(cls, content: Mapping[str, Any]) -> Self:
        return cls(content["model"], tuple(content["targets"]), densities=content.get("densities", True))

    def __repr__(self) -> str:
        return f"<NowcastPredictor of {', '.join(map(str, self.targets))} by {self.model!r}>"


# ------------------------------------------------------------------------------------ benchmarks


@dataclass(frozen=True, kw_only=True)
class SeriesBenchmarkConfig:
    """A target forecast from its own past alone.

    Parameters
    ----------
    targets
        Labels.
    method
        "ar1": autoregression with intercept at the target's own frequency, iterated; "mean": its mean so far.

    Raises
    ------
    ConfigurationError
        No target, an unknown method.
    """

    targets: tuple[Any, ...]
    method: Benchmark = "ar1"

    def __post_init__(self) -> None:
        if isinstance(self.targets, str) or not len(self.targets):
            raise ConfigurationError(
                f"targets must be a tuple of series, got {self.targets!r}: write ('gdp',)"
            )
        object.__setattr__(self, "targets", tuple(self.targets))
        if self.method not in get_args(Benchmark):
            raise ConfigurationError(f"method must be one of {get_args(Benchmark)}, got {self.method!r}")


@dataclass(frozen=True, eq=False, kw_only=True)
class SeriesBenchmarkEstimates:
    """What `fit` found, per target.

    Attributes
    ----------
    intercept, slope, variance : (q,) of y_t = intercept + slope y_(t-1) + u_t at the target's own frequency
    training : the targets' training values (S, q), which later panels continue
    """

    intercept: FloatArray
    slope: FloatArray
    variance: FloatArray
    training: History

    def __post_init__(self) -> None:
        freeze(self)


class SeriesBenchmark(Estimator[SeriesBenchmarkConfig, SeriesBenchmarkEstimates]):
    """The AR(1) or the mean of a series' own past.

    Parameters
    ----------
    config
        `SeriesBenchmarkConfig`.
    """

    def fit(self, panel: Panel) -> FitSummary:
        """Least squares on the published values.

        Raises
        ------
        PanelMismatchError, InsufficientDataError
            A target that the panel lacks; fewer than five values, or pairs of neighbours for the AR(1).
        """
        return self._fit_panel(panel, self._estimate)

    def _estimate(self, panel: Panel) -> tuple[SeriesBenchmarkEstimates, FitSummary]:
        found = []
        columns = [own_frequency(panel, target)[1] for target in self.config.targets]
        wide = panel.wide()
        for target, column in zip(self.config.targets, columns, strict=True):
            values = wide[_own_periods(panel, target, panel.times), column]
            seen = values[np.isfinite(values)]
            if seen.size < 5:
                raise InsufficientDataError(
                    f"{target!r} has {seen.size} published values, a benchmark needs 5"
                )
            if self.config.method == "mean":
                found.append((seen.mean(), 0.0, seen.var()))
                continue
            pairs = int((np.isfinite(values[1:]) & np.isfinite(values[:-1])).sum())
            if pairs < 4:
                raise InsufficientDataError(
                    f"{target!r} has {count(pairs, 'pair')} of neighbouring values, an AR(1) needs 4"
                )
            var, _, _ = fit_var(values[:, None], 1)
            found.append((var.intercept[0], var.coefficients[0, 0, 0], var.covariance[0, 0]))
        intercept, slope, variance = np.array(found).T
        estimates = SeriesBenchmarkEstimates(
            intercept=intercept,
            slope=slope,
            variance=variance,
            training=History(panel.times, wide[:, columns]),
        )
        return estimates, FitSummary(reason="least squares")

    def conditional(self, panel: Panel, cells: Sequence[Cell]) -> ConditionalLaw:
        """Means and variances of the targets' cells given their own earlier values; cells are independent."""
        self._check_panel(panel)
        mean, variance = np.zeros(len(cells)), np.zeros(len(cells))
        for k, (label, time) in enumerate(cells):
            if label not in self.config.targets:
                raise PanelMismatchError(
                    f"this benchmark was fitted for {self.config.targets}, got {label!r}"
                )
            times, values = self._own_values(panel, label)
            place = int(np.searchsorted(times, panel.times[panel.index.position(time)]))
            mean[k], variance[k] = self._law(self.config.targets.index(label), values, place)
        return ConditionalLaw(mean=mean, covariance=np.diag(variance))

    def expected_values(self, panel: Panel) -> FloatArray:
        """(R,) values where observed, the targets' conditional means elsewhere; NaN for other series."""
        wide = panel.wide()
        for k, label in enumerate(self.config.targets):
            column = own_frequency(panel, label)[1]
            times, values = self._own_values(panel, label)
            filled = [self._law(k, values, place)[0] for place in range(values.size)]
            _, here, there = np.intersect1d(panel.times, times, return_indices=True)
            wide[here, column] = np.array(filled)[there]
        return panel.index.gather(wide)

    def _own_values(self, panel: Panel, label: Any) -> tuple[npt.NDArray[Any], FloatArray]:
        """Periods and values of a target at its own frequency, training periods first where continued."""
        training, k = self.estimates.training, self.config.targets.index(label)
        column = own_frequency(panel, label)[1]
        own = History(training.times, training.values[:, k : k + 1])
        values, before = own.prepend(panel.index, panel.wide()[:, column : column + 1], type(self).__name__)
        times = np.concatenate([training.times[:before], panel.times])
        kept = _own_periods(panel, label, times)
        return times[kept], values[kept, 0]

    def _law(self, target: int, values: FloatArray, place: int) -> tuple[float, float]:
        if place < values.size and np.isfinite(values[place]):
            return float(values[place]), 0.0
        found = self.estimates
        var = VectorAutoregression(
            intercept=found.intercept[target : target + 1],
            coefficients=found.slope[target : target + 1].reshape(1, 1, 1),
            covariance=found.variance[target : target + 1].reshape(1, 1),
        )
        seen = np.flatnonzero(np.isfinite(values[:place]))
        last = int(seen[-1]) + 1 if seen.size else 0
        means, covariances = conditional_forecasts(values[:last, None], var, place - last + 1)
        return float(means[-1, 0]), float(covariances[-1, 0, 0])


def _own_periods(panel: Panel, label: Any, times: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which periods can hold a value of a series of its frequency."""
    own = own_frequency(panel, label)[0]
    if own == panel.frequency or own is None or not is_date(times):
        return np.ones(times.size, dtype=bool)
    return np.asarray(period_end(times, own) == times)
