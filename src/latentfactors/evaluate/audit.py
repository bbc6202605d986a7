"""The look-ahead audit: forecasts must not move when what comes after them is changed.

Cut s        a period; what row s may know of it, and how the rest is changed, is said in `evaluate.futures`
Estimates    held fixed (fitted on the periods before s of the data as they are), and refitted on the periods
             before s of the *changed* data wherever something stands between the data and the fit:
             preparation, building the panel, the choice of the predictor
Verdict      forecasts of all rows <= s, and which rows there are, must not move

A change is only seen by code that runs inside the audit. What was computed before (a characteristic that
contains its own period's return, an asset list of survivors) looks like data: hand over the raw frame with
`build`, and the preparation as `preparation`. Categories that belong to an asset are taken as known.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import check_horizon
from latentfactors.evaluate.futures import RawColumns, frame_changes, panel_changes, with_holes
from latentfactors.frames import to_frame
from latentfactors.model import Predictor
from latentfactors.models.direct import RegressorPredictor
from latentfactors.panel import Panel
from latentfactors.results import AssetForecastResult, AssetWeightsResult, Prediction
from latentfactors.rows import RowIndex
from latentfactors.splits import first_position

__all__ = ["AuditCertificate", "AuditTrial", "audit"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AuditTrial:
    """One change of the future and what it did to forecasts of rows up to the cut.

    Parameters
    ----------
    cut
        Period s.
    channel, action
        What was changed, and how.
    estimates
        "fixed" or "refitted".
    outcome
        "held", "moved", or "failed" where predicting raised an error.
    n_compared, n_moved
        Rows <= s; of these, with another forecast, or in one of the two row sets only.
    largest
        Largest change of a forecast relative to the largest absolute forecast; infinite where a forecast
        appeared or vanished.
    first_moved
        Earliest period that moved. Near the cut: a neighbour leaked. Far from it: a full-sample statistic.
    message
        The error, where one was raised.
    """

    cut: str
    channel: str
    action: str
    estimates: str
    outcome: str
    n_compared: int = 0
    n_moved: int = 0
    largest: float = 0.0
    first_moved: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class AuditCertificate:
    """What an audit tried and found, as plain data.

    Parameters
    ----------
    predictor, data
        What was audited.
    horizon, seed, tolerance
        As used.
    cuts
        Periods s.
    trials
        Everything that was tried.
    notes
        What could not be tried, in sentences.
    """

    predictor: str
    data: str
    horizon: int
    seed: int
    tolerance: float
    cuts: tuple[str, ...]
    trials: tuple[AuditTrial, ...]
    notes: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[AuditTrial, ...]:
        """Trials in which a forecast moved."""
        return tuple(trial for trial in self.trials if trial.outcome == "moved")

    @property
    def verdict(self) -> str:
        """What came of it: failed (something moved), incomplete (an error, nothing compared) or passed."""
        if self.findings:
            return "failed"
        tried = self.trials and all(trial.outcome == "held" and trial.n_compared for trial in self.trials)
        return "passed" if tried else "incomplete"

    @property
    def passed(self) -> bool:
        """Whether every trial ran and nothing moved."""
        return self.verdict == "passed"

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels that moved a forecast, in the order they were tried."""
        return tuple(dict.fromkeys(finding.channel for finding in self.findings))

    def frame(self, backend: str = "polars") -> Any:
        """One line per trial."""
        columns = {name: [getattr(trial, name) for trial in self.trials] for name in asdict(self.trials[0])}
        return to_frame({name: np.array(column) for name, column in columns.items()}, backend)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, verdict and findings included."""
        findings = [asdict(finding) for finding in self.findings]
        return {"verdict": self.verdict, "channels": list(self.channels), "findings": findings} | asdict(self)

    def __repr__(self) -> str:
        lines = [
            f"AuditCertificate: {self.verdict.upper()}, {len(self.findings)} of {len(self.trials)} changes "
            f"of the future moved a forecast, at {len(self.cuts)} cuts {self.cuts[0]}..{self.cuts[-1]}",
            f"  {self.predictor} on {self.data}, horizon {self.horizon}, seed {self.seed}",
        ]
        for channel in self.channels:
            found = [finding for finding in self.findings if finding.channel == channel]
            worst = max(found, key=lambda finding: (finding.n_moved, finding.largest))
            lines.append(
                f"  {channel} ({worst.action}, estimates {worst.estimates}) at {worst.cut}: {worst.n_moved} "
                f"of {worst.n_compared} forecasts moved from {worst.first_moved} on, by up to "
                f"{worst.largest:.1%} of the largest; {len(found)} trials"
            )
        lines += [f"  failed: {t.channel} ({t.action}): {t.message}" for t in self.trials if t.message][:3]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def audit(
    predictor: Any,
    panel: Any,
    *,
    start: Any = None,
    n_cuts: int = 3,
    seed: int = 0,
    preparation: Callable[[Panel], Panel] | None = None,
    build: Callable[[Any], Panel] | None = None,
    columns: RawColumns | None = None,
    horizon: int = 1,
    tolerance: float = 1e-9,
) -> AuditCertificate:
    """Change the future in many ways and look whether forecasts of the past move.

    Parameters
    ----------
    predictor
        Never fitted itself. Any object with `fit(panel)` and `predict(panel)`, the latter answering a
        `Prediction`, an `AssetForecastResult`, `AssetWeightsResult`, an (R,) array over the panel's rows or a
        (T, N) array; a scikit-learn style regressor, which is run on characteristics; or a function from the
        whole (prepared) panel to such an object: how it was tuned.
    panel
        The data; a raw frame together with `build` and `columns`.
    start
        First cut: a number of periods or a date. None: 60% of the realised periods.
    n_cuts
        Cuts, evenly spaced from `start` to the last period but one.
    seed
        Of the changes.
    preparation
        From panel to panel, run inside the audit on the whole changed panel.
    build, columns
        From a raw frame to a panel, run inside the audit, and what the frame's columns mean.
    horizon
        Handed to `predict` where it takes one.
    tolerance
        Largest change that is rounding, relative to the largest absolute forecast.

    Returns
    -------
    AuditCertificate

    Notes
    -----
    About 30 predictions a cut, and as many fits where preparation, `build` or a tuning function is audited.

    Raises
    ------
    ConfigurationError
        Something that cannot be audited. Errors of the predictor on the data as they are pass through.

    Examples
    --------
    >>> from latentfactors.models.direct import HistoricalMeanPredictor
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_periods=36, n_assets=8, n_factors=2, seed=1).panel
    >>> audit(HistoricalMeanPredictor(), panel).verdict
    'passed'
    >>> def smoothed(panel):  # a centred average: row p's past contains p
    ...     wide = panel.wide()
    ...     wide[1:-1] = (wide[:-2] + wide[1:-1] + wide[2:]) / 3
    ...     return panel.with_values(panel.index.gather(wide))
    >>> audit(HistoricalMeanPredictor(), panel, preparation=smoothed).channels
    ('values', 'everything', 'end of the data')
    """
    choose, name = _chooser(predictor, horizon)
    if (build is None) != (columns is None) or (build is None and not isinstance(panel, Panel)):
        raise ConfigurationError(
            f"expected a Panel, or a raw frame with build and columns, got {type(panel).__name__}"
        )

    def prepare(data: Any) -> Panel:
        built = data if build is None else build(data)
        return built if preparation is None else preparation(built)

    base = panel if build is None else build(panel)
    runs = _Runs(choose, prepare, check_horizon(horizon), tolerance)
    last = base.n_realised - 2
    first = first_position(base, int(0.6 * base.n_realised) if start is None else start)
    if n_cuts < 1 or first > last:
        raise ConfigurationError(f"n_cuts={n_cuts}, start={start}: no cut leaves a realised period behind it")
    always = preparation is not None or build is not None or not hasattr(predictor, "fit")
    cuts = np.unique(np.linspace(first, last, n_cuts).astype(int))
    trials: list[AuditTrial] = []
    notes: list[str] = []
    for s in cuts:
        rng = np.random.default_rng([seed, int(s)])
        time, before = base.times[s], base.times[s - 1]
        fitted, reference = runs.fit_and_forecast(panel, time)
        repeated = runs.fit_and_forecast(panel, time)[1]
        trials.append(runs.compare(reference, repeated, time, ("repetition", "nothing changed", "refitted")))
        changes = (
            frame_changes(panel, columns, before, time, rng) if columns else panel_changes(panel, s, rng)
        )
        for channel, action, changed in changes:
            labels = (channel, action)
            trials.append(runs.attempt(changed, time, reference, (*labels, "fixed"), fitted))
            if always or channel == "everything":
                trials.append(runs.attempt(changed, time, reference, (*labels, "refitted"), None))
        if columns is None:
            for what, holed, changes in with_holes(panel, s, rng, preparation is not None):
                try:
                    fitted, reference = runs.fit_and_forecast(holed, time)
                except Exception as error:  # a predictor may well refuse a panel with more holes
                    notes.append(f"not tried with {what} at {time}: {type(error).__name__}: {error}")
                    continue
                for channel, action, changed in changes:
                    labels = (channel, f"{action}, {what}")
                    trials.append(runs.attempt(changed, time, reference, (*labels, "fixed"), fitted))
                    trials.append(runs.attempt(changed, time, reference, (*labels, "refitted"), None))
    return AuditCertificate(
        predictor=name, data=repr(base), horizon=horizon, seed=seed, tolerance=tolerance,
        cuts=tuple(str(time) for time in base.times[cuts]), trials=tuple(trials), notes=tuple(notes),
    )  # fmt: skip


# ------------------------------------------------------------------------- running and comparing


def _chooser(predictor: Any, horizon: int) -> tuple[Callable[[Panel], Any], str]:
    """A function from the whole prepared panel to an unfitted predictor, and its name."""
    fits = hasattr(predictor, "fit") and hasattr(predictor, "predict")
    if isinstance(predictor, type) or not (fits or callable(predictor)):
        raise ConfigurationError(
            f"predictor must have fit and predict, or be a function that makes one, got {predictor!r}: put "
            "models into a LatentFactorForecastPipeline"
        )
    if not fits:
        return predictor, getattr(predictor, "__name__", repr(predictor))
    if hasattr(predictor, "get_params") and not isinstance(predictor, Predictor):
        predictor = RegressorPredictor(predictor, horizon)
    return (lambda _: predictor), repr(predictor)


@dataclass(frozen=True)
class _Runs:
    choose: Callable[[Panel], Any]
    prepare: Callable[[Any], Panel]
    horizon: int
    tolerance: float

    def fit_and_forecast(self, data: Any, time: Any, fitted: Any = None) -> tuple[Any, Any]:
        """A predictor fitted on the periods before `time`, and its forecasts of the whole panel."""
        panel = self.prepare(data)
        if fitted is None:
            chosen = self.choose(panel)
            if hasattr(chosen, "get_params") and not isinstance(chosen, Predictor):
                chosen = RegressorPredictor(chosen, self.horizon)
            fitted = chosen.clone() if isinstance(chosen, Predictor) else copy.deepcopy(chosen)
            fitted.fit(panel.between(0, int(np.searchsorted(panel.times, time))))
        # A copy predicts, so that nothing remembered from one call reaches the next.
        call = copy.deepcopy(fitted).predict
        takes = "horizon" in inspect.signature(call).parameters
        return fitted, _columns(call(panel, horizon=self.horizon) if takes else call(panel), panel.index)

    def attempt(
        self, data: Any, time: Any, reference: Any, labels: tuple[str, str, str], fitted: Any
    ) -> AuditTrial:
        try:
            return self.compare(reference, self.fit_and_forecast(data, time, fitted)[1], time, labels)
        except Exception as error:  # whatever stops it belongs into the certificate
            channel, action, estimates = labels
            return AuditTrial(
                cut=str(time), channel=channel, action=action, estimates=estimates, outcome="failed",
                message=f"{type(error).__name__}: {error}",
            )  # fmt: skip

    def compare(self, reference: Any, changed: Any, time: Any, labels: tuple[str, str, str]) -> AuditTrial:
        """Rows <= time of two forecasts of the same data, matched by period and asset."""
        (index, table), (other_index, other) = reference, changed
        stop = int(np.searchsorted(index.times, time, side="right"))
        same_times = np.array_equal(index.times[:stop], other_index.times[:stop])
        keys = _keys(index, index.assets, stop)
        others = _keys(other_index, index.assets, min(stop, other_index.n_periods))
        _, here, there = np.intersect1d(keys, others, return_indices=True)
        moved, seen, largest = np.ones(keys.size, dtype=bool), np.zeros(here.size, dtype=bool), 0.0
        moved[here] = False
        for name, column in table.items():
            a, b = column[here], other[name][there] if name in other else np.full(here.size, np.nan)
            level, known = np.abs(column[: keys.size]), np.isfinite(a)
            scale = float(level[np.isfinite(level)].max(initial=0.0)) or 1.0
            change = np.full(here.size, np.inf)
            np.divide(np.abs(a - b), scale, out=change, where=known & np.isfinite(b))
            change[~known & ~np.isfinite(b)] = 0.0
            moved[here] |= change > self.tolerance
            largest = max(largest, float(change.max(initial=0.0)))
            seen |= known
        extra = others.size - here.size
        n_moved = int(moved.sum()) + extra if same_times else max(keys.size, 1)
        at = index.period_codes[: keys.size][moved]
        channel, action, estimates = labels
        return AuditTrial(
            cut=str(time), channel=channel, action=action, estimates=estimates,
            outcome="moved" if n_moved else "held", n_compared=int(seen.sum()), n_moved=n_moved,
            largest=np.inf if extra or not same_times or here.size < keys.size else largest,
            first_moved=str(index.times[at[0] if at.size else 0]) if n_moved else "",
        )  # fmt: skip


def _keys(index: RowIndex, assets: npt.NDArray[Any], n_periods: int) -> npt.NDArray[np.int64]:
    """A number for every row of the first periods: its period and its place in `assets`; negative if new."""
    codes = index.match_assets(assets)[index.asset_codes[: index.offsets[n_periods]]]
    keys = index.period_codes[: codes.size] * assets.size + codes
    return np.where(codes < 0, -1 - np.arange(codes.size), keys)


def _columns(answer: Any, index: RowIndex) -> tuple[RowIndex, dict[str, FloatArray]]:
    """What a predictor answered as (R,) columns; factor forecasts are spread over their period's rows."""
    if isinstance(answer, Prediction):
        table: dict[str, FloatArray] = {}
        for part in (answer.asset_forecast, answer.asset_weights):
            table |= {} if part is None else _columns(part, index)[1]
        if answer.factor_forecast is not None:
            premia = answer.factor_forecast.premia[answer.index.period_codes]
            table |= {f"premium {k}": premia[:, k] for k in range(premia.shape[1])}
        return answer.index, table
    if isinstance(answer, AssetForecastResult):
        variance = {} if answer.variance is None else {"variance": answer.variance}
        return answer.index, {"forecast": answer.expected_values} | variance
    if isinstance(answer, AssetWeightsResult):
        return answer.index, {"weight": answer.weights}
    array = np.asarray(answer, dtype=np.float64)
    if array.shape == (index.n_periods, index.n_assets):
        array = index.gather(array)
    if array.shape != (index.n_rows,):
        raise ConfigurationError(
            f"predict must answer a Prediction, ({index.n_rows},) forecasts of the panel's rows or "
            f"{(index.n_periods, index.n_assets)} of its cells, got {type(answer).__name__} {array.shape}"
        )
    return index, {"forecast": array}
