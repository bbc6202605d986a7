"""Backcasts, nowcasts and forecasts of one series given a panel as it is now, with densities.

mean, covariance    of the target's periods given every published value: exact, see `ConditionalForecaster`
total covariance    + the spread of the means over models fitted on other draws, where given: parameters
levels              draws of the joint law through the inverse transformation, so that year-on-year and
                    annualised rates keep the dependence between periods
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.conditional import ConditionalForecaster
from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
    PanelMismatchError,
)
from latentfactors.estimator import at_least, freeze
from latentfactors.frames import to_frame
from latentfactors.nowcast.fans import LevelFan, level_fan, normal_quantile
from latentfactors.panel import Panel
from latentfactors.periods import Frequency, first_offenders, parse_times, period_end, shift

__all__ = ["Nowcast", "nowcast", "own_frequency"]

FloatArray = npt.NDArray[np.float64]
Kind = Literal["backcast", "nowcast", "forecast"]
_PER_YEAR = {"M": 12, "Q": 4, "W": 52}


@dataclass(frozen=True, eq=False, kw_only=True)
class Nowcast:
    """What is known about a target's periods, in the panel's (transformed) units.

    Attributes
    ----------
    target : label
    as_of : day of the information
    periods : (C,) last days of the periods
    kinds : C of "backcast" (over), "nowcast" (running), "forecast" (to come), as seen on `as_of`
    mean : (C,)
    covariance : (C, C) of the state: parameters taken as known
    parameter_covariance : (C, C) or None, of the means over other draws of the parameters
    frequency : of the target
    transformation : name of what was applied to the levels, "" where unknown
    last_published : last period with a value, or None
    """

    target: Any
    as_of: Any
    periods: npt.NDArray[Any]
    kinds: tuple[Kind, ...]
    mean: FloatArray
    covariance: FloatArray
    parameter_covariance: FloatArray | None
    frequency: Frequency | None
    transformation: str
    last_published: Any

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def total_covariance(self) -> FloatArray:
        """(C, C) of state and, where drawn, parameters."""
        if self.parameter_covariance is None:
            return self.covariance
        return self.covariance + self.parameter_covariance

    @property
    def standard_deviation(self) -> FloatArray:
        """(C,) predictive."""
        return np.sqrt(np.maximum(np.diag(self.total_covariance), 0.0))

    def quantiles(self, probabilities: Sequence[float]) -> FloatArray:
        """(P, C) quantiles of the predictive density."""
        z = np.array([normal_quantile(each) for each in probabilities])
        return self.mean + z[:, None] * self.standard_deviation

    def intervals(self, level: float = 0.9) -> tuple[FloatArray, FloatArray]:
        """(C,) lower and (C,) upper bounds of central intervals."""
        if not 0 < level < 1:
            raise ConfigurationError(f"level must lie between 0 and 1, got {level!r}")
        low, high = self.quantiles([0.5 - level / 2, 0.5 + level / 2])
        return low, high

    def levels(
        self,
        past_levels: npt.ArrayLike,
        *,
        transformation: str | int | None = None,
        probabilities: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
        n_draws: int = 10_000,
        seed: int = 0,
    ) -> LevelFan:
        """Quantiles of levels, year-on-year and annualised rates.

        Parameters
        ----------
        past_levels : (n,)
            Published levels up to the period before the first one here, at the target's frequency.
        transformation
            What turns levels into the panel's units; None: the panel's own record of it.
        probabilities, n_draws, seed
            Quantiles wanted, and the draws they come from.

        Raises
        ------
        ConfigurationError
            No known transformation, periods that do not follow the published ones, too few past levels.
        PanelError
            Past levels that are missing or not positive where they have to be.
        """
        code = self.transformation if transformation is None else transformation
        if code == "":
            raise ConfigurationError(
                f"the panel does not say how {self.target!r} was transformed: give transformation, such as "
                "'log_difference'"
            )
        expected = self.periods[:1] if self.last_published is None else self._following(self.periods.size)
        if self.last_published is None or not np.array_equal(expected, self.periods):
            raise ConfigurationError(
                "levels need the periods right after the last published one without a gap "
                f"({self.last_published}), got {first_offenders(self.periods)}: leave periods=None"
            )
        return level_fan(
            self.mean, self.total_covariance, past_levels, code, self.periods,
            _PER_YEAR.get(self.frequency or "", 1), probabilities, n_draws, seed,
        )  # fmt: skip

    def _following(self, n: int) -> npt.NDArray[Any]:
        last = np.array([self.last_published])
        return np.concatenate([shift(last, k, self.frequency) for k in range(1, n + 1)])

    def frame(self, backend: str = "polars", *, level: float = 0.9) -> Any:
        """A line per period: target, period, kind, mean, std, lower, upper."""
        low, high = self.intervals(level)
        n = self.periods.size
        return to_frame(
            {
                "target": np.array([str(self.target)] * n),
                "period": self.periods,
                "kind": np.array(self.kinds),
                "mean": self.mean,
                "std": self.standard_deviation,
                "lower": low,
                "upper": high,
            },
            backend,
        )


def nowcast(
    model: ConditionalForecaster,
    panel: Panel,
    target: Any,
    *,
    periods: Sequence[Any] | None = None,
    ahead: int = 1,
    as_of: Any = None,
    parameter_draws: Sequence[ConditionalForecaster] = (),
) -> Nowcast:
    """What a fitted model says about a target, given a panel as it is now.

    Parameters
    ----------
    model
        Fitted; one that has `conditional`, such as `DynamicFactorModel`.
    panel
        Everything published so far, with its ragged edge.
    target
        Label of a series.
    periods
        Reference periods, any day of each; None: from the first unpublished one to `ahead` periods of the
        target's frequency after the one that runs.
    ahead
        Forecast periods after the running one.
    as_of
        Day of the information; None: the panel's last period.
    parameter_draws
        The same model fitted on bootstrap panels, or otherwise redrawn: the spread of their means is added to
        the variance.

    Raises
    ------
    PanelMismatchError
        A target that the panel or the model does not know.
    InsufficientDataError
        A target without a published value.
    MissingCapabilityError
        A model without laws of single cells.
    ConfigurationError
        No period, an unknown one, a negative `ahead`.

    Examples
    --------
    >>> from latentfactors.models.dfm import DFMConfig, DynamicFactorModel
    >>> from latentfactors.simulate import dynamic_factor_panel
    >>> panel = dynamic_factor_panel(n_periods=120, n_series=8, seed=1).panel
    >>> late = panel.mask((panel.index.period_codes == 119) & (panel.asset_codes == 0))
    >>> model = DynamicFactorModel(DFMConfig(n_factors=1))
    >>> _ = model.fit(late)
    >>> found = nowcast(model, late, panel.assets[0].item())
    >>> found.kinds
    ('nowcast', 'forecast')
    """
    if not isinstance(model, ConditionalForecaster):
        raise MissingCapabilityError(
            f"{type(model).__name__} says no law of single cells (it has no conditional): use a dynamic "
            "factor model"
        )
    at_least("ahead", ahead, 0)
    own, column = own_frequency(panel, target)
    published = panel.times[np.isfinite(panel.wide()[:, column])]
    if not published.size:
        raise InsufficientDataError(f"target {target!r} has no published value, so no history to learn from")
    today = panel.times[-1] if as_of is None else as_of
    if isinstance(panel.times[0], np.datetime64):
        today = parse_times([today], name="as_of")[0]
    running = _containing(today, own)
    unpublished = periods is None
    wanted = _unpublished(published[-1], running, ahead, own) if unpublished else _stated(periods, own)
    longer = _reaching(panel, wanted[-1])
    cells = [(target, period) for period in wanted]
    law = model.conditional(longer, cells)
    spread = None
    if len(parameter_draws):
        means = np.array([draw.conditional(longer, cells).mean for draw in parameter_draws])
        spread = (
            np.atleast_2d(np.cov(means, rowvar=False)) if len(means) > 1 else np.zeros_like(law.covariance)
        )
    names = panel.series.transformation if panel.series is not None else ()
    return Nowcast(
        target=target,
        as_of=today,
        periods=wanted,
        kinds=tuple(_kind(period, running) for period in wanted),
        mean=law.mean,
        covariance=law.covariance,
        parameter_covariance=spread,
        frequency=own,
        transformation=names[column] if names else "",
        last_published=published[-1],
    )


def own_frequency(panel: Panel, target: Any) -> tuple[Frequency | None, int]:
    """A target's own frequency and its position among the panel's series.

    Raises
    ------
    PanelMismatchError
        A target that the panel does not have.
    """
    labels = panel.assets.tolist()
    if target not in labels:
        raise PanelMismatchError(
            f"no series {target!r} in the panel, which has {first_offenders(map(repr, labels))}: name the "
            "target as the panel does"
        )
    column = labels.index(target)
    own = panel.frequency if panel.series is None else panel.series.frequency[column]
    return own, column


def _containing(day: Any, own: Frequency | None) -> Any:
    return period_end(np.array([day]), own)[0]


def _unpublished(last: Any, running: Any, ahead: int, own: Frequency | None) -> npt.NDArray[Any]:
    """Periods after the last published one, up to `ahead` after the running one."""
    stop = shift(np.array([running]), ahead, own)[0]
    found, k = [], 1
    while not found or found[-1] < stop:
        found.append(shift(np.array([last]), k, own)[0])
        if isinstance(found[-1], np.datetime64) and np.isnat(found[-1]):
            raise ConfigurationError(
                "the period after the last one is unknown without a frequency: state frequency when building "
                "the panel"
            )
        k += 1
    return np.array(found)


def _stated(periods: Sequence[Any], own: Frequency | None) -> npt.NDArray[Any]:
    if isinstance(periods, str) or not len(periods):
        raise ConfigurationError(f"periods must be a list of one period or more, got {periods!r}")
    return np.unique(period_end(parse_times(np.asarray(periods), name="periods"), own))


def _reaching(panel: Panel, last: Any) -> Panel:
    """The panel with live periods up to `last`."""
    n = 0
    while shift(panel.times[-1:], n, panel.frequency)[0] < last:
        n += 1
    return panel.extend(n) if n else panel


def _kind(period: Any, running: Any) -> Kind:
    if period < running:
        return "backcast"
    return "nowcast" if period == running else "forecast"
