"""What each part of an instrumented factorisation is worth: the model without it, on the same months.

    without temporal attention   no premia of its own: the expanding mean of realised factors
    without channel gate         characteristics enter as they are
    without spatial attention    a firm's loadings depend on its own characteristics only
    without residual stack       attention's output goes straight into loadings
    with n temporal layers       0: premia are a VAR(1) of realised factors

References: Uddin (2025), Proceedings of CIKM, ablation study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.forecasters import ExpandingMeanFactorForecaster, NativeFactorForecaster
from latentfactors.frames import to_frame
from latentfactors.kernels.scores import r_squared
from latentfactors.mappers import BetaLambdaMapper
from latentfactors.models.neurif import NeurIFConfig, NeurIFModel
from latentfactors.panel import Panel
from latentfactors.pipeline import LatentFactorForecastPipeline

__all__ = ["ablate", "ablations", "published_periods"]

_WITHOUT: dict[str, dict[str, Any]] = {
    "without temporal attention": {"factor_mode": "realized"},
    "without channel gate": {"channel": None},
    "without spatial attention": {"spatial": None},
    "without residual stack": {"residual_blocks": 0},
}


def ablations(config: NeurIFConfig, layers: Sequence[int] = ()) -> dict[str, NeurIFConfig]:
    """The model, the four without a part that it has, and those with other numbers of temporal layers.

    Examples
    --------
    >>> list(ablations(NeurIFConfig(n_factors=3, channel=None), layers=(2,)))[1:3]
    ['without temporal attention', 'without spatial attention']
    """
    found = {"all parts": config}
    found |= {name: replace(config, **change) for name, change in _WITHOUT.items()}
    if config.factor_mode != "realized":
        found |= {f"with {n} temporal layers": replace(config, temporal_layers=n) for n in layers}
    first = {}
    for name, each in found.items():
        first.setdefault(each, name)
    return {name: each for each, name in first.items()}


def ablate(
    model_config: NeurIFConfig,
    panel: Panel,
    *,
    n_test: int | float = 1 / 3,
    layers: Sequence[int] = (0, 2, 6),
    backend: str = "polars",
) -> Any:
    """Fit the model and what is left of it without each part to the first months, and score the last.

    Parameters
    ----------
    model_config
        The model with all its parts; seed and training are shared by all.
    panel
        Prepared: ranked characteristics, no NaN in them.
    n_test
        Last months with values that are forecast: a number (int) or a share in (0, 1).
    layers
        Numbers of temporal layers to try besides.
    backend
        "polars", "pandas" or "pyarrow".

    Returns
    -------
    frame
        name; total_r2 with realised factors and predictive_r2 with premia, both out of sample against zero;
        epochs of training; seconds.

    Raises
    ------
    ConfigurationError, InsufficientDataError
        A bad `n_test`; what `fit` raises.

    Examples
    --------
    >>> from latentfactors import TrainingConfig
    >>> from latentfactors.simulate import instrumented_panel
    >>> panel = instrumented_panel(n_periods=48, n_assets=20, n_characteristics=5).panel
    >>> config = NeurIFConfig(
    ...     n_factors=2,
    ...     channel=None,
    ...     spatial=None,
    ...     width=4,
    ...     n_heads=2,
    ...     temporal_layers=1,
    ...     training=TrainingConfig(epochs=1, batch=12),
    ... )
    >>> ablate(config, panel, layers=())["name"].to_list()
    ['all parts', 'without temporal attention', 'without residual stack']
    """
    realised = panel.between(0, panel.n_realised)
    start = realised.n_periods - _test_periods(realised.n_periods, n_test)
    first = int(realised.offsets[start])
    lines: dict[str, list[Any]] = {
        "name": [],
        "total_r2": [],
        "predictive_r2": [],
        "epochs": [],
        "seconds": [],
    }
    for name, config in ablations(model_config, layers).items():
        native = config.factor_mode != "realized"
        pipeline = LatentFactorForecastPipeline(
            model=NeurIFModel(config),
            forecaster=NativeFactorForecaster() if native else ExpandingMeanFactorForecaster(),
            mapper=BetaLambdaMapper(),
        )
        pipeline.fit(realised.between(0, start))
        prediction = pipeline.predict(realised)
        assert prediction.asset_forecast is not None
        assert prediction.state is not None
        values, summary = realised.values[first:], pipeline.model.summary
        lines["name"].append(name)
        lines["total_r2"].append(r_squared(values, prediction.state.reconstruction()[first:]))
        lines["predictive_r2"].append(r_squared(values, prediction.asset_forecast.expected_values[first:]))
        lines["epochs"].append(summary.n_iterations)
        lines["seconds"].append(summary.seconds)
    return to_frame({name: np.array(column) for name, column in lines.items()}, backend)


def published_periods(panel: Panel, *, literal: bool = False) -> tuple[Panel, Panel, Panel]:
    """Training 1980-1999, validation 2000-2004 and test 2005-2020 of a dated panel.

    Parameters
    ----------
    panel
        With dates that cover these years.
    literal
        Train on 1980-1990, as one description of the study has it.

    Returns
    -------
    training, validation, test : for `NeurIFModel.fit_validated(training, validation)`

    Raises
    ------
    InsufficientDataError, ConfigurationError
        No month in one of the three spans; integer periods.
    """
    if panel.times.dtype.kind != "M":
        raise ConfigurationError(
            f"periods must be dates, got {panel.times.dtype}: build the panel with dates"
        )
    years = panel.times.astype("datetime64[Y]").astype(int) + 1970
    spans = ((1980, 1990 if literal else 1999), (2000, 2004), (2005, 2020))
    found = []
    for low, high in spans:
        at = np.flatnonzero((years >= low) & (years <= high))
        if at.size == 0:
            raise InsufficientDataError(
                f"the panel covers {panel.times[0]}..{panel.times[-1]} and has no month of {low}-{high}"
            )
        found.append(panel.between(int(at[0]), int(at[-1]) + 1))
    return found[0], found[1], found[2]


def _test_periods(n_periods: int, n_test: int | float) -> int:
    whole = isinstance(n_test, int | np.integer) and not isinstance(n_test, bool)
    n = int(n_test) if whole else round(float(n_test) * n_periods)
    if not 1 <= n < n_periods:
        raise ConfigurationError(
            f"n_test must leave periods on both sides of {n_periods}, got {n_test!r}: give a number of "
            "periods or a share in (0, 1)"
        )
    return n
