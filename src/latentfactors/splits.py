"""Which past is fitted for which future.

A split trains on periods train_start..start-1 and forecasts the rows of start..stop-1. Row `start` has origin
start-1, the last training period, so training values end at the first origin whatever the horizon; later rows
of the block use factors realised in the block before them, with estimates held fixed.

    expanding   train |################|      then |####################|
                test                   |####|                           |####|
    rolling     train |################|      then     |################|
                test                   |####|                           |####|
    vintage     everything released by a date, then the period after it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from latentfactors.errors import ConfigurationError
from latentfactors.panel import Panel

__all__ = [
    "ExpandingWindow",
    "RollingWindow",
    "Split",
    "Splits",
    "VintageSource",
    "VintageSplit",
    "VintageSplits",
]


@dataclass(frozen=True)
class Split:
    """Train on periods train_start..start-1, forecast rows of start..stop-1 (positions in the panel).

    Parameters
    ----------
    train_start, start, stop
        Positions.
    validation
        Last training periods that a model sets aside.
    """

    train_start: int
    start: int
    stop: int
    validation: int = 0

    @property
    def as_of(self) -> None:
        """No vintage date: the panel's own history is the information."""
        return None

    def panels(self, panel: Panel) -> tuple[Panel, Panel]:
        """The training panel and the panel to predict on; both start at train_start, neither copies rows."""
        return panel.between(self.train_start, self.start), panel.between(self.train_start, self.stop)

    def block(self, panel: Panel) -> tuple[Panel, int, int]:
        """The panel that the forecast rows belong to and their periods."""
        return panel, self.start, self.stop

    def key(self, digests: Sequence[str]) -> str:
        """Content key: what the split may see, and where it stands."""
        return f"{digests[self.stop - 1]}:{self.train_start}:{self.start}:{self.stop}:{self.validation}"

    def describe(self, panel: Panel) -> str:
        """The split in dates."""
        times = panel.times
        train = f"{times[self.train_start]}..{times[self.start - 1]}"
        return f"train {train}, forecast {times[self.start]}..{times[self.stop - 1]}"


class VintageSource(Protocol):
    """Something that knows what was published when."""

    def as_of(self, date: Any) -> Panel:
        """The panel of everything released by `date`, with its ragged edge."""
        ...


@dataclass(frozen=True)
class VintageSplit:
    """Train on everything released by a date, forecast the `ahead` rows after the last period."""

    as_of: Any
    source: VintageSource = field(repr=False)
    validation: int = 0
    ahead: int = 1

    def panels(self, panel: Panel) -> tuple[Panel, Panel]:
        """The vintage, and the vintage with its live periods."""
        vintage = self.source.as_of(self.as_of)
        return vintage, vintage.extend(self.ahead)

    def block(self, panel: Panel) -> tuple[Panel, int, int]:
        """The live periods of the vintage."""
        extended = self.panels(panel)[1]
        return extended, extended.n_periods - self.ahead, extended.n_periods

    def key(self, digests: Sequence[str]) -> str:
        """Content key of the vintage."""
        vintage = self.source.as_of(self.as_of)
        return f"{vintage.digests()[-1]}:{self.as_of}:{self.validation}:{self.ahead}"

    def describe(self, panel: Panel) -> str:
        """The split in dates."""
        return f"vintage of {self.as_of}"


class Splits(Protocol):
    """A rule that cuts a panel into splits."""

    def split(self, panel: Panel) -> Sequence[Split | VintageSplit]:
        """The splits of a panel, in time order."""
        ...


@dataclass(frozen=True)
class ExpandingWindow:
    """Refit every `step` periods on everything so far.

    Parameters
    ----------
    first
        First forecast period: a number of training periods, or a date.
    step
        Periods forecast by one fit.
    validation
        Last training periods set aside for models that validate.

    Examples
    --------
    >>> panel = Panel.from_arrays(np.ones((10, 2)))
    >>> [(split.start, split.stop) for split in ExpandingWindow(first=6, step=3).split(panel)]
    [(6, 9), (9, 10)]
    """

    first: Any
    step: int
    validation: int = 0

    def __post_init__(self) -> None:
        _check(step=self.step, validation=self.validation)

    def split(self, panel: Panel) -> list[Split]:
        """The splits of a panel; the last block may be short."""
        first = first_position(panel, self.first)
        _leave_training(first, self.validation)
        starts = range(first, panel.n_periods, self.step)
        return [Split(0, s, min(s + self.step, panel.n_periods), self.validation) for s in starts]


@dataclass(frozen=True)
class RollingWindow:
    """Refit every `step` periods on the last `size` periods.

    Parameters
    ----------
    size
        Training periods.
    step
        Periods forecast by one fit.
    first
        First forecast period as in `ExpandingWindow`; None: as soon as there are `size` periods.
    validation
        Last training periods set aside for models that validate.

    Examples
    --------
    >>> panel = Panel.from_arrays(np.ones((10, 2)))
    >>> RollingWindow(size=4, step=3).split(panel)[-1]
    Split(train_start=3, start=7, stop=10, validation=0)
    """

    size: int
    step: int
    first: Any = None
    validation: int = 0

    def __post_init__(self) -> None:
        _check(size=self.size, step=self.step, validation=self.validation)
        _leave_training(self.size, self.validation)

    def split(self, panel: Panel) -> list[Split]:
        """The splits of a panel; the last block may be short."""
        if self.first is None and self.size >= panel.n_periods:
            raise ConfigurationError(
                f"size={self.size} leaves nothing to forecast of the panel's {panel.n_periods} periods"
            )
        first = first_position(panel, self.size if self.first is None else self.first)
        if first < self.size:
            raise ConfigurationError(
                f"first={self.first} leaves {first} training periods, size is {self.size}"
            )
        starts = range(first, panel.n_periods, self.step)
        return [Split(s - self.size, s, min(s + self.step, panel.n_periods), self.validation) for s in starts]


@dataclass(frozen=True)
class VintageSplits:
    """One split per vintage date: fit on what was released, forecast what was not.

    Parameters
    ----------
    source
        Has `as_of(date) -> Panel`.
    dates
        Vintage dates.
    validation
        Last training periods set aside for models that validate.
    ahead
        Live periods that are forecast, all given the vintage. With horizon 1 - b they reach from b periods
        before to ahead - b periods after the vintage's last one, so one fit serves backcasts and forecasts.
    """

    source: VintageSource = field(repr=False)
    dates: tuple[Any, ...]
    validation: int = 0
    ahead: int = 1

    def __post_init__(self) -> None:
        _check(validation=self.validation, ahead=self.ahead)
        if isinstance(self.dates, str) or not hasattr(self.source, "as_of"):
            raise ConfigurationError(
                f"expected a source with as_of(date) and several dates, got {type(self.source).__name__} and "
                f"{self.dates!r}"
            )
        object.__setattr__(self, "dates", tuple(self.dates))

    def split(self, panel: Panel) -> list[VintageSplit]:
        """One split per date, in time order."""
        return [VintageSplit(date, self.source, self.validation, self.ahead) for date in sorted(self.dates)]


def first_position(panel: Panel, first: Any) -> int:
    """Position of the first forecast period, from a count of training periods or a date.

    Raises
    ------
    ConfigurationError
        When it leaves nothing to train on or nothing to forecast.
    """
    is_count = isinstance(first, int | np.integer) and not isinstance(first, bool)
    position = int(first) if is_count else panel.index.position(first)
    if not 1 <= position < panel.n_periods:
        raise ConfigurationError(
            f"first={first} must leave at least one training and one forecast period of the panel's "
            f"{panel.n_periods}"
        )
    return position


def _leave_training(n_periods: int, validation: int) -> None:
    if validation >= n_periods:
        raise ConfigurationError(
            f"validation={validation} leaves nothing of {n_periods} training periods to estimate from"
        )


def _check(**lengths: Any) -> None:
    for name, value in lengths.items():
        lowest = 0 if name == "validation" else 1
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
            raise ConfigurationError(f"{name} must be a whole number >= {lowest}, got {value!r}")
