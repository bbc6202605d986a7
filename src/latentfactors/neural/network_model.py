"""What every structural model around a network shares: validation panels, resuming, checkpoints as estimates.

A subclass trains in `_train`; its config has `training`, its estimates `members` and `training`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Self, cast

import numpy as np
import numpy.typing as npt

from latentfactors.errors import NotFittedError, PanelMismatchError
from latentfactors.estimator import Checkpoints, ConfigT, EstimatesT, PanelSignature
from latentfactors.model import LatentFactorModel
from latentfactors.neural.snapshots import Snapshot, TrainingState
from latentfactors.panel import Panel
from latentfactors.state import FitSummary
from latentfactors.validate import count

if TYPE_CHECKING:
    from latentfactors.neural.policy import Trained

__all__ = ["NetworkModel"]


class NetworkModel(LatentFactorModel[ConfigT, EstimatesT], ABC, Generic[ConfigT, EstimatesT]):
    """Base of structural models that are trained."""

    uses_characteristics = True

    def fit_validated(self, panel: Panel, validation: Panel) -> FitSummary:
        """Fit to all of `panel` and validate on another panel, prepared alike and later in time.

        Raises
        ------
        PanelMismatchError, InsufficientDataError, ConfigurationError
            As `fit`; a validation panel that begins before the training panel ends.
        """
        self._check_validation(panel, validation)
        return self._fit_panel(panel, lambda training: self._train(training, validation))

    def resume(self, panel: Panel, validation: Panel | None = None) -> FitSummary:
        """Go on from where training was stopped, up to the configured epochs: equal to a fit never stopped.

        Parameters
        ----------
        panel, validation
            The same data as in the fit that was stopped.

        Raises
        ------
        NotFittedError, PanelMismatchError
            Before `fit`; other data than those of the fit.
        """
        former = self.fitted.checkpoints
        if validation is not None:
            self._check_validation(panel, validation)
        return self._fit_panel(panel, lambda training: self._train(training, validation, former))

    def with_validation(self, n_periods: int) -> Self:
        """An unfitted copy that validates on its last `n_periods` training periods."""
        config: Any = self.config
        return type(self)(replace(config, training=config.training.with_validation(n_periods)))

    @abstractmethod
    def _train(
        self,
        panel: Panel,
        validation: Panel | None = None,
        former: Checkpoints[EstimatesT] | None = None,
    ) -> tuple[Checkpoints[EstimatesT], FitSummary]:
        """Checkpoints from a panel whose last period has an observed value."""

    def _estimate(self, panel: Panel) -> tuple[Checkpoints[EstimatesT], FitSummary]:
        return self._train(panel)

    def _former(
        self, former: Checkpoints[Any] | None, digest: str
    ) -> tuple[TrainingState | None, dict[int | str, Snapshot]]:
        """The state to go on from, and the checkpoints passed so far."""
        if former is None:
            return None, {}
        state = former.by_label[former.resolve("last")].training
        if state is None:
            raise NotFittedError("these estimates carry no training state: call fit")
        if state.data != digest:
            raise PanelMismatchError(
                "resume needs the data of the fit that was stopped, got others: call fit"
            )
        config: Any = self.config
        wanted = config.training.kept_epochs()
        return state, {
            label: Snapshot(parameters=each.members.parameters, layers=each.members.layers)
            for label, each in former.by_label.items()
            if label in wanted
        }

    def _check_validation(self, panel: Panel, validation: Panel) -> None:
        """The guards of `extract`, and time: a network must not be chosen by what it was trained on."""
        if not isinstance(validation, Panel):
            raise PanelMismatchError(f"validation must be a Panel, got {type(validation).__name__}")
        PanelSignature.of(panel).check(validation, characteristics=True)
        self._check_characteristics(validation)
        if validation.times[0] <= panel.times[panel.n_realised - 1]:
            raise PanelMismatchError(
                f"the validation panel begins at {validation.times[0]}, expected a period after the training "
                f"end {panel.times[panel.n_realised - 1]}"
            )

    def _summarised(
        self,
        trained: Trained,
        estimate: Callable[[Snapshot, TrainingState | None], tuple[EstimatesT, Mapping[str, float]]],
        *,
        objective_name: str,
        remarks: tuple[str, ...] = (),
    ) -> tuple[Checkpoints[EstimatesT], FitSummary]:
        """Estimates of every checkpoint, and how training went; `estimate` reads a snapshot."""
        last, state = list(trained.checkpoints.values())[-1], trained.state
        read = {  # several labels may stand for one snapshot
            snapshot: estimate(snapshot, state if snapshot is last else None)
            for snapshot in trained.checkpoints.values()
        }
        found = {label: read[snapshot][0] for label, snapshot in trained.checkpoints.items()}
        checkpoints = Checkpoints(found, "best" if "best" in found else None)
        config: Any = self.config
        used, metrics = read[trained.checkpoints[checkpoints.resolve(config.default_checkpoint)]]
        living = cast("Any", used).members.living
        if "best" in found:
            metrics = {**metrics, "best_validation_r2": float(state.best_score[living].mean())}
        factors = np.asarray(cast("Any", used).factors)
        left_out = len(factors) - int(np.isfinite(factors).all(axis=1).sum())
        without = (f"{count(left_out, 'period')} without identified factors",) if left_out else ()
        return checkpoints, FitSummary(
            converged=trained.converged,
            reason=trained.reason,
            n_iterations=state.epoch,
            objective=state.history["loss"],
            objective_name=objective_name,
            metrics=metrics,
            history=state.history,
            warnings=(*without, *_collapsed(living, config.n_factors, config.training.seed), *remarks),
        )


def _collapsed(living: npt.NDArray[np.bool_], n_factors: int, seed: int) -> tuple[str, ...]:
    """A remark on members (M,) that are left out, by number: with the seed it says which draws they were."""
    if living.all():
        return ()
    dead = [str(m + 1) for m in np.flatnonzero(~living)]
    return (
        f"{len(dead)} of {count(living.size, 'member')} of the ensemble left out, their loadings have a rank "
        f"below {n_factors}: {'member' if len(dead) == 1 else 'members'} {', '.join(dead)} of seed {seed}",
    )
