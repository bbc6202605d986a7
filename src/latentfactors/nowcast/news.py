"""Why a nowcast changed: news, revisions, withdrawals and new parameters, exactly.

With m(theta, Omega) the conditional mean of the target's period, the change between two vintages is the sum
of

    re-estimation   m(new, Omega_old) - m(old, Omega_old)
    withdrawals     cells that the new vintage lacks: - w_j (y_j - E[y_j | Omega_common])
    revisions       cells with another value:          w_j (y_j,new - y_j,old), w of Omega_common
    releases        cells that are new: w_j (y_j - E[y_j | Omega_revised]), w of Omega_new: weight times news

where w_j is the weight of cell j in the mean of a linear Gaussian model. The coefficient on the news of a
release equals the weight of its value in the new vintage (Frisch & Waugh), so one law per vintage is enough.
Re-estimation is split by series as the change of weight times deviation from the series' mean over Omega_old;
what is left, the change of the level at average data, is its own line. Standardisation is part of the
parameters. Models whose mean is not linear are telescoped: cells enter one after another, new ones in the
order of their release dates, and each line is the step it caused. Another order would share out the same sum
otherwise.

References: Banbura & Modugno (2014), J. of Applied Econometrics 29(1), section 2.3, eqs. (8)-(13); Banbura,
Giannone & Reichlin (2011), Nowcasting, Oxford Handbook of Economic Forecasting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.conditional import Cell, ConditionalForecaster, ConditionalLaw
from latentfactors.errors import ConfigurationError, MissingCapabilityError, PanelMismatchError
from latentfactors.estimator import freeze
from latentfactors.frames import to_frame
from latentfactors.nowcast.calendar import ReleaseCalendar
from latentfactors.nowcast.estimate import own_frequency
from latentfactors.nowcast.pairs import VintagePair, pair_vintages
from latentfactors.panel import Panel
from latentfactors.periods import is_date, parse_times, period_end

__all__ = ["NewsDecomposition", "NewsKind", "nowcast_news"]

FloatArray = npt.NDArray[np.float64]
NewsKind = Literal["re-estimation", "withdrawal", "dropped series", "revision", "release", "new series"]


@dataclass(frozen=True, eq=False, kw_only=True)
class NewsDecomposition:
    """The change of one nowcast, line by line; contributions sum to it.

    Attributes
    ----------
    target, period : what was nowcast
    old, new : the two means, in the panel's units
    exact : whether lines are weight times news; False where they are steps of a telescope
    kind : (n,) of `NewsKind`
    series : (n,) labels as text; "" for the level line of re-estimation
    group : (n,) of the series, "" where the panel states none
    cell_period : (n,) as text, "" for lines of a whole series
    actual, expected : (n,) value, and what it was expected to be (revisions: the old value; a telescope:
        given the cells before it); NaN for re-estimation
    weight : (n,) NaN where a line has none
    contribution : (n,)
    remarks : what entered no line: series that the model does not know
    """

    target: Any
    period: Any
    old: float
    new: float
    exact: bool
    kind: npt.NDArray[Any]
    series: npt.NDArray[Any]
    group: npt.NDArray[Any]
    cell_period: npt.NDArray[Any]
    actual: FloatArray
    expected: FloatArray
    weight: FloatArray
    contribution: FloatArray
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def revision(self) -> float:
        """new - old, the sum of all contributions."""
        return self.new - self.old

    def by(self, key: Literal["kind", "series", "group"]) -> dict[str, float]:
        """Contributions summed by kind, series or group, largest first."""
        if key not in ("kind", "series", "group"):
            raise ConfigurationError(f"key must be 'kind', 'series' or 'group', got {key!r}")
        labels, codes = np.unique(getattr(self, key), return_inverse=True)
        sums = np.bincount(codes, self.contribution, minlength=labels.size)
        order = np.argsort(-np.abs(sums), kind="stable")
        return {str(labels[k]): float(sums[k]) for k in order}

    def largest(self, n: int) -> npt.NDArray[np.intp]:
        """Positions of the n largest lines in absolute value, the largest first."""
        return np.argsort(-np.abs(self.contribution), kind="stable")[:n]

    def frame(self, backend: str = "polars") -> Any:
        """A line per cause: kind, series, group, period, actual, expected, weight, contribution."""
        return to_frame(
            {
                "kind": self.kind,
                "series": self.series,
                "group": self.group,
                "period": self.cell_period,
                "actual": self.actual,
                "expected": self.expected,
                "weight": self.weight,
                "contribution": self.contribution,
            },
            backend,
        )

    def __repr__(self) -> str:
        way = "" if self.exact else ", telescoped"
        return (
            f"NewsDecomposition({self.target} {self.period}: {self.old:.4g} -> {self.new:.4g}, "
            f"{self.contribution.size} lines{way})"
        )


@dataclass
class _Lines:
    """Lines as they are found."""

    rows: list[tuple[str, str, str, str, float, float, float, float]]

    def add(
        self, kind: NewsKind, pair: VintagePair, place: tuple[int, int] | int | None,
        actual: float, expected: float, weight: float, contribution: float,
    ) -> None:  # fmt: skip
        series, group, period = "", "", ""
        if place is not None:
            column = place if isinstance(place, int) else place[1]
            series, group = str(pair.series[column]), pair.groups[column]
            period = "" if isinstance(place, int) else str(pair.times[place[0]])
        self.rows.append((kind, series, group, period, actual, expected, weight, contribution))


def nowcast_news(
    old_model: ConditionalForecaster,
    new_model: ConditionalForecaster,
    old_panel: Panel,
    new_panel: Panel,
    target: Any,
    period: Any,
    *,
    dates: tuple[Any, Any] | None = None,
    calendar: ReleaseCalendar | None = None,
) -> NewsDecomposition:
    """Decompose the change of a target's conditional mean between two vintages.

    Parameters
    ----------
    old_model, new_model
        Fitted before and now; the same object where nothing was re-estimated.
    old_panel, new_panel
        The vintages. The new one may have more periods, revised values, new series, and lack old ones.
    target, period
        A series and any day of a reference period of its own frequency.
    dates
        Days of the vintages, checked for their order.
    calendar
        Order of the releases where the mean is telescoped; None: the panel's publication lags, where it has
        any. Cells of one day enter by series.

    Returns
    -------
    NewsDecomposition

    Raises
    ------
    ConfigurationError
        A new vintage older than the old one.
    PanelMismatchError
        Vintages of another frequency, kind or preparation; a series whose own frequency or aggregation
        changed; a target that a model or vintage does not know.
    MissingCapabilityError
        Models without laws of single cells.
    """
    for each in (old_model, new_model):
        if not isinstance(each, ConditionalForecaster):
            raise MissingCapabilityError(f"{type(each).__name__} says no law of single cells: news need one")
    if dates is not None:
        first, second = parse_times(list(dates), name="dates")
        if second < first:
            raise ConfigurationError(
                f"the new vintage ({second}) is older than the old one ({first}): swap them, news run forward"
            )
    own, _ = own_frequency(old_panel, target)
    if own_frequency(new_panel, target)[0] != own:
        raise PanelMismatchError(f"target {target!r} changed its frequency between the vintages")
    end = period_end(parse_times([period], name="period"), own)[0]
    pair = pair_vintages(old_panel, new_panel, end)
    cells: list[Cell] = [(target, end)]
    lines = _Lines([])
    before = old_model.conditional(pair.panel(pair.old), cells)
    law = before if new_model is old_model else new_model.conditional(pair.panel(pair.old), cells)
    exact = before.weights is not None and law.weights is not None
    if new_model is not old_model:
        _reestimation(lines, pair, before, law)
    if exact:
        after = _linear(lines, pair, new_model, law, cells)
    else:
        after = _telescope(lines, pair, new_model, float(law.mean[0]), cells, calendar)
    columns = list(zip(*lines.rows, strict=True)) or [()] * 8
    texts = [np.array(column, dtype=str) for column in columns[:4]]
    numbers = [np.array(column, dtype=np.float64) for column in columns[4:]]
    return NewsDecomposition(
        target=target,
        period=end,
        old=float(before.mean[0]),
        new=after,
        exact=exact,
        kind=texts[0],
        series=texts[1],
        group=texts[2],
        cell_period=texts[3],
        actual=numbers[0],
        expected=numbers[1],
        weight=numbers[2],
        contribution=numbers[3],
        remarks=_remarks(pair, new_model),
    )


def _reestimation(lines: _Lines, pair: VintagePair, before: ConditionalLaw, law: ConditionalLaw) -> None:
    """Change of weights times deviations from each series' mean, and the change at average data."""
    total = float(law.mean[0] - before.mean[0])
    if before.weights is None or law.weights is None:
        lines.add("re-estimation", pair, None, np.nan, np.nan, np.nan, total)
        return
    change = pair.spread(law.weights[0] - before.weights[0])
    explained = 0.0
    for column in range(pair.series.size):
        seen = np.isfinite(pair.old[:, column])
        if not seen.any():
            continue
        values = pair.old[seen, column]
        part = float(change[seen, column] @ (values - values.mean()))
        if part != 0.0:
            lines.add("re-estimation", pair, column, np.nan, np.nan, np.nan, part)
            explained += part
    lines.add("re-estimation", pair, None, np.nan, np.nan, np.nan, total - explained)


def _linear(
    lines: _Lines, pair: VintagePair, model: ConditionalForecaster, law: ConditionalLaw, cells: list[Cell]
) -> float:
    """Withdrawals, revisions and releases by weights; the new mean."""
    current = pair.old
    gone = pair.withdrawn
    if gone:
        assert law.weights is not None
        weights = pair.spread(law.weights[0])
        current = pair.common
        expected = pair.spread(model.expected_values(pair.panel(current)))
        for place in gone:
            surprise = pair.old[place] - expected[place]
            _add_line(
                lines, pair, "withdrawal", place, pair.old[place], expected[place], -weights[place], surprise
            )
        law = model.conditional(pair.panel(current), cells)
    if pair.revised:
        assert law.weights is not None
        weights = pair.spread(law.weights[0])
        for place in pair.revised:
            _add_line(
                lines, pair, "revision", place, pair.new[place], pair.old[place], weights[place],
                pair.new[place] - pair.old[place],
            )  # fmt: skip
        current = pair.revised_common
    law = model.conditional(pair.panel(pair.new), cells)
    if pair.released:
        assert law.weights is not None
        weights = pair.spread(law.weights[0])
        expected = pair.spread(model.expected_values(pair.panel(current)))
        for place in pair.released:
            _add_line(
                lines, pair, "release", place, pair.new[place], expected[place], weights[place],
                pair.new[place] - expected[place],
            )  # fmt: skip
    return float(law.mean[0])


def _add_line(
    lines: _Lines, pair: VintagePair, kind: NewsKind, place: tuple[int, int], actual: float, expected: float,
    weight: float, surprise: float,
) -> None:  # fmt: skip
    """A line, unless its series is unknown to the model and so without any expectation."""
    if not np.isfinite(surprise):
        return
    if kind == "release" and place[1] in pair.new_series:
        kind = "new series"
    if kind == "withdrawal" and place[1] in pair.dropped_series:
        kind = "dropped series"
    lines.add(kind, pair, place, actual, expected, weight, weight * surprise)


def _telescope(
    lines: _Lines, pair: VintagePair, model: ConditionalForecaster, mean: float, cells: list[Cell],
    calendar: ReleaseCalendar | None,
) -> float:  # fmt: skip
    """Cells change one after another: withdrawals and revisions by period and series, releases by date."""
    current = pair.old.copy()
    steps: list[tuple[NewsKind, list[tuple[int, int]]]] = [
        ("withdrawal", pair.withdrawn), ("revision", pair.revised),
        ("release", _by_release_date(pair, calendar)),
    ]  # fmt: skip
    for kind, places in steps:
        for place in places:
            former, actual = current[place], pair.new[place]
            if kind == "withdrawal":
                current[place], actual = np.nan, former
            if kind != "revision":
                former = pair.spread(model.expected_values(pair.panel(current)))[place]
                if not np.isfinite(former):
                    # unknown to the model, as in the linear decomposition: no line
                    current[place] = pair.new[place]
                    continue
            current[place] = pair.new[place]
            now = float(model.conditional(pair.panel(current), cells).mean[0])
            named = kind
            if kind == "release" and place[1] in pair.new_series:
                named = "new series"
            if kind == "withdrawal" and place[1] in pair.dropped_series:
                named = "dropped series"
            lines.add(named, pair, place, float(actual), float(former), np.nan, now - mean)
            mean = now
    return mean


def _by_release_date(pair: VintagePair, calendar: ReleaseCalendar | None) -> list[tuple[int, int]]:
    """Released cells by day of release, then series, then period; what no calendar knows, by its period."""
    info = pair.template.series
    if calendar is None and info is not None and any(info.publication_lag) and pair.template.frequency:
        calendar = ReleaseCalendar.from_panel(pair.template)
    if calendar is None or not is_date(pair.times):
        return pair.released

    def day(place: tuple[int, int]) -> np.datetime64:
        period, label = pair.times[place[0]], pair.series[place[1]].item()
        known = label in calendar.lags or (label, period) in calendar.dates
        return calendar.release_date(label, period) if known else period

    return sorted(pair.released, key=lambda place: (day(place), str(pair.series[place[1]]), place[0]))


def _remarks(pair: VintagePair, model: ConditionalForecaster) -> tuple[str, ...]:
    remarks = []
    filled = pair.spread(model.expected_values(pair.panel(pair.new)))
    unknown = [str(pair.series[k]) for k in range(pair.series.size) if not np.isfinite(filled[:, k]).any()]
    if unknown:
        remarks.append(
            f"the model does not know {', '.join(unknown)}: they entered no line until it is refitted"
        )
    for what, positions in (("new", pair.new_series), ("dropped", pair.dropped_series)):
        if positions:
            names = ", ".join(str(pair.series[k]) for k in sorted(positions))
            remarks.append(f"{what} series: {names}")
    return tuple(remarks)
