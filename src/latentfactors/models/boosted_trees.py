"""Boosted trees on pooled rows: a machine-learning rival of factor models, on characteristics alone.

    r_(p+h-1,i) = g(z_(p,i)) + error          one function g for all assets and periods

g is a sum of small regression trees, each fitted to what the ones before left over; the number of trees is
the one that explains the last training periods best, and all training periods are then fitted with it.

What is held out for this choice are the *last* training periods, never rows at random: rows of one period
share its shocks. Values are standardised inside and returned in their own units. g says what an asset is
expected to earn and knows no factors, so there are no betas, no realised factors and no total R2.

References: Gu, Kelly & Xiu (2020), Review of Financial Studies 33(5), 2223-2273, section 1.8; Friedman
(2001), Annals of Statistics 29(5). The fits are scikit-learn's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from latentfactors.errors import StoreError
from latentfactors.estimator import at_least, check_horizon, check_number
from latentfactors.model import PanelPredictor
from latentfactors.panel import Panel
from latentfactors.pooled_learning import check_validation, held_out, period_rows, scikit_learn, standard
from latentfactors.results import Prediction
from latentfactors.signals import as_prediction, pooled_rows, same_horizon
from latentfactors.state import FitSummary
from latentfactors.validate import count

__all__ = ["GradientBoostingConfig", "GradientBoostingPredictor"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class GradientBoostingConfig:
    """Options of `GradientBoostingPredictor`; see there."""

    max_trees: int = 200
    learning_rate: float = 0.05
    leaves: int = 8
    min_rows: int = 200
    penalty: float = 1.0
    validation: int | float = 0.2
    seed: int = 0
    horizon: int = 1

    def __post_init__(self) -> None:
        for name, lowest in (("max_trees", 1), ("leaves", 2), ("min_rows", 1), ("seed", 0)):
            at_least(name, getattr(self, name), lowest)
        for name in ("penalty", "learning_rate"):
            number = check_number(name, getattr(self, name), positive=name == "learning_rate")
            object.__setattr__(self, name, number)
        check_validation(self.validation)
        check_horizon(self.horizon)


@dataclass(frozen=True, eq=False)
class GradientBoostingEstimates:
    """The fitted trees (scikit-learn's), their number, and the unit of the training values."""

    trees: Any
    n_trees: int
    level: float
    scale: float


class GradientBoostingPredictor(PanelPredictor[GradientBoostingConfig, GradientBoostingEstimates]):
    """Gradient-boosted regression trees from characteristics to values; missing characteristics are allowed.

    Parameters
    ----------
    max_trees
        Most trees.
    learning_rate
        Share of a tree that is added, > 0.
    leaves
        Most leaves of a tree.
    min_rows
        Rows that a leaf needs; fewer where the training rows are few.
    penalty
        L2 penalty on the leaves, in rows, >= 0.
    validation
        Last training periods that choose the number of trees: their number, or their share in [0, 1); 0:
        max_trees.
    seed
        Of the bins' subsample, which large data are cut into.
    horizon
        Periods ahead; `predict` serves this horizon only.

    Notes
    -----
    Needs scikit-learn. `save` is refused: foreign objects have no representation without pickle.

    Examples
    --------
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=40, n_assets=50, n_factors=2, seed=1).panel
    >>> predictor = GradientBoostingPredictor(max_trees=20)
    >>> predictor.fit(panel.between(0, 30)).converged
    True
    """

    uses_characteristics = True
    allows_missing_characteristics = True

    def __init__(
        self,
        max_trees: int = 200,
        learning_rate: float = 0.05,
        leaves: int = 8,
        min_rows: int = 200,
        penalty: float = 1.0,
        validation: int | float = 0.2,
        seed: int = 0,
        horizon: int = 1,
    ) -> None:
        super().__init__(
            GradientBoostingConfig(
                max_trees=max_trees, learning_rate=learning_rate, leaves=leaves, min_rows=min_rows,
                penalty=penalty, validation=validation, seed=seed, horizon=horizon,
            )
        )  # fmt: skip

    def with_validation(self, n_periods: int) -> Self:
        """A copy that decides on its last `n_periods` training periods."""
        twin = self.clone()
        twin.config = replace(self.config, validation=n_periods)
        return twin

    def _estimate(self, panel: Panel) -> tuple[GradientBoostingEstimates, FitSummary]:
        config = self.config
        z, ahead, periods = pooled_rows(panel, config.horizon)
        held = held_out(periods, panel.n_periods, config.validation)
        level, scale = standard(ahead)
        outputs = (ahead - level) / scale
        n_trees = config.max_trees
        if held.any():
            tried = _boosted(config, n_trees, int((~held).sum())).fit(z[~held], outputs[~held])
            losses = [float(np.square(outputs[held] - each).mean()) for each in tried.staged_predict(z[held])]
            n_trees = 1 + int(np.argmin(losses))
        trees = _boosted(config, n_trees, len(z)).fit(z, outputs)
        return GradientBoostingEstimates(trees, n_trees, level, scale), FitSummary(
            reason=f"{count(n_trees, 'tree')} on {len(z)} rows", n_iterations=n_trees
        )

    def _predict(self, panel: Panel, estimates: GradientBoostingEstimates, horizon: int) -> Prediction:
        same_horizon(type(self).__name__, self.config.horizon, horizon)
        forecast = np.empty(panel.n_rows)
        for rows, z in period_rows(panel):
            forecast[rows] = estimates.level + estimates.scale * estimates.trees.predict(z)
        return as_prediction(panel, forecast, self.fitted.span, horizon)

    def save(self, directory: str | Path) -> Path:
        """Refused.

        Raises
        ------
        StoreError
            Always.
        """
        raise StoreError("boosted trees are foreign objects and cannot be saved without pickle")


def _boosted(config: GradientBoostingConfig, n_trees: int, n_rows: int) -> Any:
    """An unfitted sum of trees; no leaf needs more than a twentieth of the rows."""
    return scikit_learn("ensemble").HistGradientBoostingRegressor(
        max_iter=n_trees, learning_rate=config.learning_rate, max_leaf_nodes=config.leaves,
        min_samples_leaf=max(min(config.min_rows, n_rows // 20), 1), l2_regularization=config.penalty,
        early_stopping=False, random_state=config.seed,
    )  # fmt: skip
