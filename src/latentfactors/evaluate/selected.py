"""A predictor that chooses among candidates inside its own fit, on the past alone.

    fit(panel)    the last `validation` periods of the panel are forecast by every candidate from expanding
                  windows before them; the candidate with the smallest loss is fitted on the whole panel
    predict       the chosen candidate's

Nothing outside `fit` chooses, so `walk_forward` measures the choice together with the forecasts: hyper-
parameters are selected again in every window, from that window's past. In a study with a vintage a month,
`reselect="yearly"` lets validation end with the last complete year: all vintages of a year choose on the same
windows, and with a `store` all but the first find these done, unless values were revised.

References: Andreini, Izzo & Ricco (2020), Deep Dynamic Factor Models, section 5 (hyper-parameters by
validation); Cawley & Talbot (2010), JMLR 11 (why the choice belongs inside the fit).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np

from latentfactors.errors import ConfigurationError, InsufficientDataError, NotFittedError
from latentfactors.estimator import at_least, check_horizon
from latentfactors.evaluate.search import SearchResult, SearchRule, check_candidates, search
from latentfactors.model import Predictor
from latentfactors.panel import Panel
from latentfactors.periods import is_date
from latentfactors.results import Prediction
from latentfactors.splits import ExpandingWindow
from latentfactors.state import FitSummary
from latentfactors.store import class_path, fingerprint, load_object, save_object

__all__ = ["SelectedPredictor", "SelectionConfig"]

Reselect = Literal["always", "yearly"]


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """How `SelectedPredictor` chooses.

    Parameters
    ----------
    validation
        Last periods of the training panel (of its complete years with reselect="yearly") that are forecast.
    step
        Periods of them that one fit forecasts; the smaller, the more fits.
    horizon
        That forecasts are judged at.
    targets
        Labels whose forecasts count; None: all.
    standardise
        Divide squared errors by the series' training variance; None: where the panel holds series.
    rule
        "best", or "one_standard_error": the first candidate within one standard error of the best.
    reselect
        "always", or "yearly": validation ends with the last complete calendar year.

    Raises
    ------
    ConfigurationError
        A value outside its range.
    """

    validation: int = 24
    step: int = 12
    horizon: int = 1
    targets: tuple[Any, ...] | None = None
    standardise: bool | None = None
    rule: SearchRule = "best"
    reselect: Reselect = "always"

    def __post_init__(self) -> None:
        at_least("validation", self.validation, 1)
        at_least("step", self.step, 1)
        check_horizon(self.horizon, None)
        for name, known in (("rule", get_args(SearchRule)), ("reselect", get_args(Reselect))):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.targets is not None:
            if isinstance(self.targets, str) or not len(self.targets):
                raise ConfigurationError(
                    f"targets must be a tuple of series, got {self.targets!r}: write ('gdp',)"
                )
            object.__setattr__(self, "targets", tuple(self.targets))


class SelectedPredictor:
    """The best of some candidates, chosen in every fit by forecasts over its last periods.

    Parameters
    ----------
    candidates
        Name -> unfitted predictor, from plain to rich; copies are kept.
    config
        `SelectionConfig`.
    n_jobs
        Candidates in parallel; None leaves the choice to `joblib.parallel_config`.
    store
        Folder that keeps finished validation windows for the next fit.

    Raises
    ------
    ConfigurationError
        No candidate, or something that is no predictor.

    Examples
    --------
    >>> from latentfactors import AutoregressivePredictor, HistoricalMeanPredictor
    >>> from latentfactors.simulate import dynamic_factor_panel
    >>> panel = dynamic_factor_panel(n_series=5, n_periods=100, seed=1).panel
    >>> candidates = {"mean": HistoricalMeanPredictor(), "AR": AutoregressivePredictor(lags=1)}
    >>> predictor = SelectedPredictor(candidates, SelectionConfig(validation=40, step=20))
    >>> _ = predictor.fit(panel)
    >>> predictor.selection.chosen
    'AR'
    """

    def __init__(
        self,
        candidates: Mapping[str, Predictor],
        config: SelectionConfig | None = None,
        *,
        n_jobs: int | None = None,
        store: str | Path | None = None,
    ) -> None:
        self.config = SelectionConfig() if config is None else config
        check_candidates(candidates, self.config.rule)
        self.candidates = {name: each.clone() for name, each in candidates.items()}
        self.n_jobs = n_jobs
        self.store = store
        self._found: tuple[SearchResult, Any] | None = None

    # ---------------------------------------------------------------- fitting and forecasting

    def fit(self, panel: Panel) -> FitSummary:
        """Choose on the panel's last periods, then fit the chosen candidate on all of it.

        Returns
        -------
        FitSummary
            The chosen candidate's, which is named in `reason`; `validation_loss` is in its metrics.

        Raises
        ------
        InsufficientDataError
            Validation leaves no period to fit on.
        ConfigurationError
            reselect="yearly" without dates.
        LatentFactorsError
            When every candidate failed; what the chosen one raises.
        """
        stop, config = self._validation_end(panel), self.config
        if stop <= config.validation:
            raise InsufficientDataError(
                f"validation={config.validation} leaves nothing of {stop} periods to fit candidates on"
            )
        found = search(
            self.candidates,
            panel.between(0, stop),
            ExpandingWindow(first=stop - config.validation, step=config.step),
            horizon=config.horizon,
            targets=config.targets,
            standardise=config.standardise,
            rule=config.rule,
            n_jobs=self.n_jobs,
            store=self.store,
        )
        predictor = self.candidates[found.chosen].clone()
        summary = predictor.fit(panel)
        self._found = (found, predictor)
        loss = float(found.loss[found.names.index(found.chosen)])
        return replace(
            summary,
            reason=f"chose {found.chosen!r} of {len(found.names)}; {summary.reason}",
            metrics={**summary.metrics, "validation_loss": loss},
        )

    def predict(self, panel: Panel, *, start: Any = None, horizon: int = 1) -> Prediction:
        """The chosen candidate's forecasts of every row from `start` on, each from its own past."""
        return self.chosen.predict(panel, start=start, horizon=horizon)

    def _validation_end(self, panel: Panel) -> int:
        """Number of periods that candidates may see."""
        stop = panel.n_realised
        if self.config.reselect == "always" or not stop:
            return stop
        if not is_date(panel.times):
            raise ConfigurationError(
                f"reselect='yearly' needs dates, the panel counts periods ({panel.times[0]}, ...): take "
                "'always'"
            )
        years = (panel.times[:stop] + np.timedelta64(1, "D")).astype("datetime64[Y]")
        # the day after a period's end: a panel that ends in December has that year complete
        return int(np.searchsorted(panel.times[:stop], years[-1].astype("datetime64[D]")))

    # ---------------------------------------------------------------- what was found

    @property
    def selection(self) -> SearchResult:
        """What validation said.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        return self._fitted()[0]

    @property
    def chosen(self) -> Any:
        """The chosen candidate, fitted on the whole training panel.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        return self._fitted()[1]

    def _fitted(self) -> tuple[SearchResult, Any]:
        if self._found is None:
            raise NotFittedError("SelectedPredictor is not fitted: call fit first")
        return self._found

    @property
    def uses_characteristics(self) -> bool:
        """Whether any candidate does."""
        return any(getattr(each, "uses_characteristics", False) for each in self.candidates.values())

    @property
    def _part(self) -> Any:
        """What carries the chosen candidate's estimates: a pipeline's model, else the candidate itself."""
        return getattr(self.chosen, "model", self.chosen)

    @property
    def fitted(self) -> Any:
        """What the chosen candidate's fit left behind."""
        return self._part.fitted

    @property
    def summary(self) -> FitSummary:
        """How the chosen candidate's fit went."""
        return self._part.summary

    @property
    def available_checkpoints(self) -> tuple[int | str, ...]:
        """Labels of the chosen candidate's estimates."""
        return self._part.available_checkpoints

    def estimates_at(self, checkpoint: int | str | None) -> tuple[int | str, Any]:
        """The chosen candidate's label and estimates that a `checkpoint` stands for."""
        return self._part.estimates_at(checkpoint)

    # ---------------------------------------------------------------- identity, copies, files

    def clone(self) -> Self:
        """An unfitted copy."""
        return type(self)(self.candidates, self.config, n_jobs=self.n_jobs, store=self.store)

    @property
    def identity(self) -> str:
        """Class, config, and names and identities of the candidates; not how or where they run."""
        inside = " | ".join(f"{name}: {each.identity}" for name, each in self.candidates.items())
        return f"{class_path(type(self))}:{fingerprint(self.config)} of ({inside})"

    def save(self, directory: str | Path) -> Path:
        """Write candidates, choice and the chosen one's estimates; `load` gives them back exactly."""
        card = self._part._card() | {
            "class": class_path(type(self)),
            "config": repr(self.config),
            "candidates": {name: repr(each) for name, each in self.candidates.items()},
            "selection": repr(self.selection),
            "chosen": repr(self.chosen),
        }
        return save_object(directory, self, card)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        StoreError
            Missing, damaged, tampered or foreign files.
        """
        return load_object(directory, cls)

    def _to_store(self) -> dict[str, Any]:
        found = None if self._found is None else {"selection": self._found[0], "predictor": self._found[1]}
        return {"candidates": self.candidates, "config": self.config, "found": found}

    @classmethod
    def _from_store(cls, content: Mapping[str, Any]) -> Self:
        loaded = cls(content["candidates"], content["config"])
        if content["found"] is not None:
            loaded._found = (content["found"]["selection"], content["found"]["predictor"])
        return loaded

    def __repr__(self) -> str:
        chosen = "unfitted" if self._found is None else f"chose {self._found[0].chosen!r}"
        return f"<SelectedPredictor of {', '.join(self.candidates)}, {chosen}>"
