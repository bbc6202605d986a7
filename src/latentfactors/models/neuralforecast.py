"""Neural networks for sequences, from the library neuralforecast: every asset's future from its own past.

    r_(p+h-1,i) = g(r_(p-1,i), ..., r_(p-S,i))        S = input_size, one function g for all assets

DLinear, MLP, PatchTST and VanillaTransformer see one asset's history at a time, iTransformer the histories of
all assets at once. None of them sees characteristics: in a comparison they stand for what past values alone
can tell.

Values are centred and scaled by two numbers, the mean and the standard deviation of all training values, so
the unit does not matter. Missing values are masked out of the loss; in a window that the network reads, the
asset's own training mean stands in, and an asset with less than half of its window observed has no forecast.
Weights stay as they were fitted; row p reads the values up to p - 1.

References: Zeng, Chen, Zhang & Xu (2023), AAAI 37(9) (DLinear); Nie, Nguyen, Sinthong & Kalagnanam (2023),
ICLR (PatchTST); Liu et al. (2024), ICLR (iTransformer); Vaswani et al. (2017), NeurIPS 30.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, MissingCapabilityError, StoreError
from latentfactors.estimator import at_least, check_horizon, check_number, freeze, one_of
from latentfactors.history import continues
from latentfactors.kernels.static import by_asset
from latentfactors.model import PanelPredictor, from_start
from latentfactors.panel import Panel
from latentfactors.results import Prediction
from latentfactors.signals import as_prediction, same_horizon
from latentfactors.state import FitSummary

__all__ = ["NeuralForecastConfig", "NeuralForecastEstimates", "NeuralForecastPredictor"]

FloatArray = npt.NDArray[np.float64]
Network = Literal["DLinear", "MLP", "PatchTST", "VanillaTransformer", "iTransformer"]
_HEADS = 4
_SEEDED = "PL_GLOBAL_SEED"
_LOGGERS = ("lightning", "lightning.fabric", "lightning.pytorch", "lightning_fabric", "pytorch_lightning")


@dataclass(frozen=True, kw_only=True)
class NeuralForecastConfig:
    """Options of `NeuralForecastPredictor`; see there."""

    network: Network = "DLinear"
    input_size: int = 24
    hidden: int = 32
    max_steps: int = 300
    learning_rate: float = 1e-3
    seed: int = 0
    horizon: int = 1

    def __post_init__(self) -> None:
        one_of("network", self.network, Network)
        for name, lowest in (("input_size", 2), ("hidden", _HEADS), ("max_steps", 1), ("seed", 0)):
            at_least(name, getattr(self, name), lowest)
        if self.hidden % _HEADS:
            raise ConfigurationError(
                f"hidden must be a multiple of {_HEADS}, the attention heads, got {self.hidden}"
            )
        object.__setattr__(
            self, "learning_rate", check_number("learning_rate", self.learning_rate, positive=True)
        )
        check_horizon(self.horizon)


@dataclass(frozen=True, eq=False, kw_only=True)
class NeuralForecastEstimates:
    """The fitted foreign object, and what its inputs are made with.

    Attributes
    ----------
    forecaster
        A fitted `neuralforecast.NeuralForecast`.
    assets : (N,) labels
    means : (N,) training means, which stand in for missing inputs
    level, scale : of all training values
    tail : (S, N) last training values, from which forecasts go on
    first, last : training span
    """

    forecaster: Any
    assets: npt.NDArray[Any]
    means: FloatArray
    level: float
    scale: float
    tail: FloatArray
    first: Any
    last: Any

    def __post_init__(self) -> None:
        freeze(self)


class NeuralForecastPredictor(PanelPredictor[NeuralForecastConfig, NeuralForecastEstimates]):
    """A sequence network of the library neuralforecast on the assets' own histories.

    Parameters
    ----------
    network
        "DLinear", "MLP", "PatchTST", "VanillaTransformer" or "iTransformer".
    input_size
        S >= 2, periods of history that a forecast reads.
    hidden
        Width of the network, a multiple of 4; DLinear has none.
    max_steps
        Gradient steps.
    learning_rate
        Of Adam, > 0.
    seed
        Of initial weights and batches.
    horizon
        Periods ahead; `predict` serves this horizon only.

    Raises
    ------
    MissingCapabilityError
        By `fit`, where neuralforecast is not installed: pip install neuralforecast, which brings PyTorch.

    Notes
    -----
    A panel reaches back over the training period or starts right after it, else `GapError`. An
    asset that was not trained on gets a forecast where a network reads one history at a time, and NaN from
    iTransformer. `save` is refused: a foreign object has no representation without pickle.
    """

    def __init__(
        self,
        network: Network = "DLinear",
        input_size: int = 24,
        hidden: int = 32,
        max_steps: int = 300,
        learning_rate: float = 1e-3,
        seed: int = 0,
        horizon: int = 1,
    ) -> None:
        super().__init__(
            NeuralForecastConfig(
                network=network, input_size=input_size, hidden=hidden, max_steps=max_steps,
                learning_rate=learning_rate, seed=seed, horizon=horizon,
            )
        )  # fmt: skip

    @property
    def sees(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What forecasts are made from."""
        return "all histories" if self.config.network == "iTransformer" else "own history"

    def _estimate(self, panel: Panel) -> tuple[NeuralForecastEstimates, FitSummary]:
        config, active = self.config, panel.active_assets
        values, assets = panel.wide()[:, active], panel.assets[active]
        seen = np.isfinite(values)
        if len(values) < config.input_size + config.horizon:
            raise InsufficientDataError(
                f"input_size={config.input_size} and horizon={config.horizon} need "
                f"{config.input_size + config.horizon} training periods, got {len(values)}"
            )
        level, spread = float(values[seen].mean()), float(values[seen].std())
        scale = spread if spread > 0 else 1.0
        n = seen.sum(axis=0)
        means = np.divide(np.where(seen, values, 0.0).sum(axis=0), n, out=np.full(n.size, level), where=n > 0)
        with left_alone():
            forecaster = build_forecaster(config, assets.size)
            forecaster.fit(df=long_frame(standardised(values, means, level, scale), seen, assets))
        estimates = NeuralForecastEstimates(
            forecaster=forecaster, assets=assets, means=means, level=level, scale=scale,
            tail=values[-config.input_size :].copy(), first=panel.times[0], last=panel.times[-1],
        )  # fmt: skip
        reason = f"{config.network} of neuralforecast, {config.max_steps} gradient steps"
        return estimates, FitSummary(reason=reason, n_iterations=config.max_steps)

    def predict(self, panel: Panel, *, start: Any = None, horizon: int = 1) -> Prediction:
        """Forecast every row from `start` on; earlier periods are read and cost nothing.

        Raises
        ------
        NotFittedError, PanelMismatchError, HorizonError, GapError
            As for all predictors.
        """
        self._check_panel(panel)
        same_horizon(type(self).__name__, self.config.horizon, check_horizon(horizon))
        first = 0 if start is None else panel.index.position(start)
        prediction = self._forecasts(panel, self.estimates, first)
        return from_start(prediction, start)

    def _predict(self, panel: Panel, estimates: NeuralForecastEstimates, horizon: int) -> Prediction:
        same_horizon(type(self).__name__, self.config.horizon, horizon)
        return self._forecasts(panel, estimates, 0)

    def _forecasts(self, panel: Panel, estimates: NeuralForecastEstimates, first: int) -> Prediction:
        """Periods before `first` stay NaN."""
        size, index = self.config.input_size, panel.index
        known = index.match_assets(estimates.assets)
        before = np.full((size, index.n_assets), np.nan)
        if continues(estimates.first, estimates.last, index, type(self).__name__):
            before = by_asset(estimates.tail.T, known).T
        values = np.concatenate([before, panel.wide()])
        means = np.where(known < 0, estimates.level, estimates.means[known])
        expected = np.full(panel.n_rows, np.nan)
        for p in range(first, panel.n_periods):
            rows = index.rows(p)
            if rows.stop > rows.start:
                codes = np.unique(index.asset_codes[rows])
                forecast = np.full(index.n_assets, np.nan)
                forecast[codes] = self._next(values[p : p + size], means, known, codes, estimates)
                expected[rows] = forecast[index.asset_codes[rows]]
        return as_prediction(panel, expected, self.fitted.span, self.config.horizon)

    def _next(
        self,
        window: FloatArray,
        means: FloatArray,
        known: npt.NDArray[np.int64],
        codes: npt.NDArray[Any],
        estimates: NeuralForecastEstimates,
    ) -> FloatArray:
        """Forecasts of the assets `codes` from the (S, N) values before their period."""
        config = self.config
        together = config.network == "iTransformer"
        if together:  # all trained assets, in their order, whoever is in the universe
            place = np.full(estimates.assets.size, -1)
            place[known[known >= 0]] = np.flatnonzero(known >= 0)
            history, own = by_asset(window.T, place).T, estimates.means
        else:
            history, own = window[:, codes], means[codes]
        seen = np.isfinite(history)
        enough = 2 * seen.sum(axis=0) >= config.input_size
        if not enough.any():
            return np.full(len(codes), np.nan)
        inputs = standardised(history, own, estimates.level, estimates.scale)
        with left_alone():
            frame = long_frame(inputs, seen, np.arange(history.shape[1]))
            found = estimates.forecaster.predict(df=frame)
        found = found.sort(["unique_id", "ds"])[config.network].to_numpy().reshape(-1, config.horizon)[:, -1]
        forecast = np.where(enough, estimates.level + estimates.scale * found.astype(np.float64), np.nan)
        return by_asset(forecast, known[codes]) if together else forecast

    def save(self, directory: str | Path) -> Path:
        """Refused.

        Raises
        ------
        StoreError
            Always.
        """
        raise StoreError("a network of neuralforecast is a foreign object: save it its own way")


# ------------------------------------------------------------------------------------ the parts


def standardised(values: FloatArray, means: FloatArray, level: float, scale: float) -> FloatArray:
    """(S, N) values in training units; a missing one is replaced by its asset's training mean."""
    return (np.where(np.isfinite(values), values, means) - level) / scale


def long_frame(values: FloatArray, seen: npt.NDArray[np.bool_], labels: npt.NDArray[Any]) -> Any:
    """The frame that neuralforecast reads: a line per series and period, missing ones marked as such."""
    import polars as pl

    n_periods, n_series = values.shape
    return pl.DataFrame(
        {
            "unique_id": np.repeat(np.arange(len(labels)), n_periods),
            "ds": np.tile(np.arange(n_periods), n_series),
            "y": values.T.ravel(),
            "available_mask": seen.T.ravel().astype(np.float64),
        }
    )


def build_forecaster(config: NeuralForecastConfig, n_series: int) -> Any:
    """An unfitted `NeuralForecast` around one network."""
    try:
        library = importlib.import_module("neuralforecast")
        network = getattr(importlib.import_module("neuralforecast.models"), config.network)
        loss = importlib.import_module("neuralforecast.losses.pytorch").MSE()
    except ImportError as error:
        raise MissingCapabilityError(
            "sequence networks are neuralforecast's, which is not installed: pip install neuralforecast (it "
            "brings PyTorch)"
        ) from error
    model = network(
        h=config.horizon, input_size=config.input_size, loss=loss, max_steps=config.max_steps,
        learning_rate=config.learning_rate, random_seed=config.seed, scaler_type="identity",
        start_padding_enabled=True, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **network_sizes(config, n_series),
    )  # fmt: skip
    return library.NeuralForecast(models=[model], freq=1)


def network_sizes(config: NeuralForecastConfig, n_series: int) -> Mapping[str, Any]:
    """Widths under the names that each network has for them."""
    width = config.hidden
    sizes: dict[str, dict[str, Any]] = {
        "DLinear": {"moving_avg_window": 2 * (min(config.input_size, 25) // 2) - 1},
        "MLP": {"hidden_size": width, "num_layers": 2},
        "PatchTST": {
            "hidden_size": width, "n_heads": _HEADS, "linear_hidden_size": 2 * width, "encoder_layers": 2,
            "patch_len": min(16, config.input_size), "stride": max(min(16, config.input_size) // 2, 1),
        },
        "VanillaTransformer": {"hidden_size": width, "n_head": _HEADS, "conv_hidden_size": width},
        "iTransformer": {
            "n_series": n_series, "hidden_size": width, "n_heads": _HEADS, "d_ff": 4 * width, "e_layers": 2,
        },
    }  # fmt: skip
    return sizes[config.network]


@contextmanager
def left_alone() -> Iterator[None]:
    """Give back random states, warning filters, log levels and the environment as they were.

    The library seeds all generators of the process, and says so in its log.
    """
    # Importing sets log levels and filters of its own, so it comes first. What it and its trainer warn of is
    # about their own options and not about the caller's data; the caller's filters stand again afterwards.
    with warnings.catch_warnings(), suppress(ImportError):
        warnings.simplefilter("ignore")
        importlib.import_module("neuralforecast")
    torch = sys.modules.get("torch")
    kept = random.getstate(), np.random.get_state(), os.environ.get(_SEEDED)  # noqa: NPY002
    torch_state = None if torch is None else torch.random.get_rng_state()
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        if kept[2] is None:
            os.environ.pop(_SEEDED, None)
        else:
            os.environ[_SEEDED] = kept[2]
        if torch is not None:
            torch.random.set_rng_state(torch_state)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
