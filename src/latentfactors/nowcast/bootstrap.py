"""What a forecast density leaves out when it takes parameters as known: a parametric bootstrap of them.

    draw b       a panel of the fitted process with the gaps of the training panel, fitted anew: theta_b
    spread       Cov_b E[target | data; theta_b], the data being the real ones

added to Cov[target | data; theta^] by `nowcast(..., parameter_draws=)`. Estimation is repeated whole,
location and scale included, so nothing is asymptotic; conditional means do not depend on signs and order of
factors, so nothing has to be aligned.

References: Pfeffermann & Tiller (2005), J. of Time Series Analysis 26(6), 893-916, on bootstrapping the
prediction error of state-space models; Stoffer & Wall (1991), JASA 86, 1024-1033.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np

from latentfactors.dynamic.tools import draw_panel
from latentfactors.errors import MissingCapabilityError
from latentfactors.estimator import at_least
from latentfactors.models.dfm import DynamicFactorModel
from latentfactors.panel import Panel

__all__ = ["ParameterBootstrap", "bootstrap_parameters"]


@dataclass(frozen=True, kw_only=True)
class ParameterBootstrap:
    """How often the parameters are drawn.

    Parameters
    ----------
    n_draws
        2 or more; the spread of B draws has a relative standard error of sqrt(1/2(B - 1)).
    seed
        0 or more; draw b is the same whatever the number of draws or processes.

    Raises
    ------
    ConfigurationError
        Values outside these ranges.
    """

    n_draws: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("n_draws", self.n_draws, 2)
        at_least("seed", self.seed, 0)


def bootstrap_parameters(
    model: DynamicFactorModel, panel: Panel, options: ParameterBootstrap, *, n_jobs: int | None = None
) -> tuple[DynamicFactorModel, ...]:
    """The model fitted to draws of its own process: `parameter_draws` of `nowcast`.

    Parameters
    ----------
    model
        Fitted.
    panel
        The panel it was fitted to, whose rows and gaps the draws have.
    options
        Number of draws and seed.
    n_jobs
        Processes; None leaves the choice to `joblib.parallel_config`.

    Returns
    -------
    tuple of DynamicFactorModel
        Their parameters are of the draws, their history is the real one, so that they speak of real panels.

    Raises
    ------
    NotFittedError
        Before `fit`.
    MissingCapabilityError
        A model whose process cannot be drawn.
    PanelMismatchError, InsufficientDataError
        A panel that the model does not know; draws that cannot be fitted.

    Examples
    --------
    >>> from latentfactors.models.dfm import DFMConfig
    >>> from latentfactors.nowcast import nowcast
    >>> from latentfactors.simulate import dynamic_factor_panel
    >>> panel = dynamic_factor_panel(n_periods=60, n_series=6, seed=1).panel
    >>> late = panel.mask((panel.index.period_codes == 59) & (panel.asset_codes == 0))
    >>> model = DynamicFactorModel(DFMConfig(n_factors=1, tolerance=1e-2))
    >>> _ = model.fit(late)
    >>> draws = bootstrap_parameters(model, late, ParameterBootstrap(n_draws=4))
    >>> target = panel.assets[0].item()
    >>> narrow, wide = nowcast(model, late, target), nowcast(model, late, target, parameter_draws=draws)
    >>> bool((wide.standard_deviation > narrow.standard_deviation).all())
    True
    """
    if not isinstance(model, DynamicFactorModel):
        raise MissingCapabilityError(
            f"{type(model).__name__} cannot draw panels of its own process: bootstrap a DynamicFactorModel, "
            "or give models fitted in another way as parameter_draws"
        )
    seeds = np.random.SeedSequence(options.seed).generate_state(options.n_draws).tolist()
    run = joblib.delayed(_refit)
    found: Any = joblib.Parallel(n_jobs=n_jobs)(run(model, panel, int(each)) for each in seeds)
    return tuple(found)


def _refit(model: DynamicFactorModel, panel: Panel, seed: int) -> DynamicFactorModel:
    drawn = model.clone()
    drawn.fit(draw_panel(model, panel, seed))
    history = model.estimates.training
    fitted = drawn.fitted
    members = {label: replace(each, training=history) for label, each in fitted.checkpoints.by_label.items()}
    real = replace(fitted, checkpoints=replace(fitted.checkpoints, by_label=members))
    return DynamicFactorModel._from_store({"config": model.config, "fitted": real})
