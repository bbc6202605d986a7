"""A perceptron on pooled rows: a machine-learning rival of factor models, on characteristics alone.

    r_(p+h-1,i) = g(z_(p,i)) + error          one function g for all assets and periods

g is a perceptron with ReLU units, squared loss plus an L2 penalty, stochastic gradient steps by Adam; it
stops where the last training periods are no longer explained better. The forecast is the average of several
networks with different initial weights.

What is held out for this choice are the *last* training periods, never rows at random: rows of one period
share its shocks. Values are standardised inside and returned in their own units. g says what an asset is
expected to earn and knows no factors, so there are no betas, no realised factors and no total R2.

References: Gu, Kelly & Xiu (2020), Review of Financial Studies 33(5), 2223-2273, section 1.7. The fits are
scikit-learn's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least, check_horizon, check_number, freeze
from latentfactors.kernels.moments import unit_columns
from latentfactors.model import PanelPredictor
from latentfactors.panel import Panel
from latentfactors.pooled_learning import check_validation, held_out, period_rows, scikit_learn, standard
from latentfactors.results import Prediction
from latentfactors.signals import as_prediction, pooled_rows, same_horizon
from latentfactors.state import FitSummary
from latentfactors.validate import count

__all__ = ["NeuralNetworkConfig", "NeuralNetworkEstimates", "NeuralNetworkPredictor"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class NeuralNetworkConfig:
    """Options of `NeuralNetworkPredictor`; see there."""

    hidden: tuple[int, ...] = (32, 16, 8)
    penalty: float = 1e-3
    learning_rate: float = 3e-3
    epochs: int = 100
    batch: int = 2000
    validation: int | float = 0.2
    patience: int = 5
    n_ensemble: int = 3
    seed: int = 0
    horizon: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if not self.hidden:
            raise ConfigurationError("hidden must name the units of one layer or more, got none")
        for units in self.hidden:
            at_least("hidden", units, 1)
        for name in ("epochs", "batch", "patience", "n_ensemble"):
            at_least(name, getattr(self, name), 1)
        at_least("seed", self.seed, 0)
        for name in ("penalty", "learning_rate"):
            number = check_number(name, getattr(self, name), positive=name == "learning_rate")
            object.__setattr__(self, name, number)
        check_validation(self.validation)
        check_horizon(self.horizon)


@dataclass(frozen=True, eq=False)
class NeuralNetworkEstimates:
    """Networks as arrays, for standardised characteristics and values.

    Attributes
    ----------
    weights, biases
        Member -> layer -> (units in, units out), (units out,).
    centre, unit : (L,) of the training rows' characteristics; a constant one has the unit 1
    level, scale : of the training values
    """

    weights: tuple[tuple[FloatArray, ...], ...]
    biases: tuple[tuple[FloatArray, ...], ...]
    centre: FloatArray
    unit: FloatArray
    level: float
    scale: float

    def __post_init__(self) -> None:
        freeze(self)


class NeuralNetworkPredictor(PanelPredictor[NeuralNetworkConfig, NeuralNetworkEstimates]):
    """A small neural network from characteristics to values; with betas and factors, use CAE instead.

    Parameters
    ----------
    hidden
        Units of every hidden layer; (32, 16, 8) is the network NN3 of Gu, Kelly & Xiu.
    penalty
        L2 penalty on the weights, >= 0, of the mean squared error of standardised values.
    learning_rate
        Of Adam, > 0.
    epochs
        Most passes over the training rows.
    batch
        Rows per gradient step.
    validation
        Last training periods that decide when to stop: their number, or their share in [0, 1); 0: all epochs.
    patience
        Epochs without an improvement there before stopping.
    n_ensemble
        Networks whose forecasts are averaged; they differ in initial weights and order of batches.
    seed
        Of both.
    horizon
        Periods ahead; `predict` serves this horizon only.

    Notes
    -----
    Needs scikit-learn to fit, and nothing to predict: the weights are kept as arrays, so `save` works.

    Examples
    --------
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=40, n_assets=50, n_factors=2, seed=1).panel
    >>> predictor = NeuralNetworkPredictor(hidden=(4,), epochs=5, n_ensemble=2)
    >>> predictor.fit(panel.between(0, 30)).n_iterations
    5
    >>> predictor.predict(panel, start=panel.times[30]).asset_forecast.wide().shape
    (10, 50)
    """

    uses_characteristics = True

    def __init__(
        self,
        hidden: tuple[int, ...] = (32, 16, 8),
        penalty: float = 1e-3,
        learning_rate: float = 3e-3,
        epochs: int = 100,
        batch: int = 2000,
        validation: int | float = 0.2,
        patience: int = 5,
        n_ensemble: int = 3,
        seed: int = 0,
        horizon: int = 1,
    ) -> None:
        super().__init__(
            NeuralNetworkConfig(
                hidden=hidden, penalty=penalty, learning_rate=learning_rate, epochs=epochs, batch=batch,
                validation=validation, patience=patience, n_ensemble=n_ensemble, seed=seed, horizon=horizon,
            )
        )  # fmt: skip

    def with_validation(self, n_periods: int) -> Self:
        """A copy that decides on its last `n_periods` training periods."""
        twin = self.clone()
        twin.config = replace(self.config, validation=n_periods)
        return twin

    def _estimate(self, panel: Panel) -> tuple[NeuralNetworkEstimates, FitSummary]:
        config = self.config
        z, ahead, periods = pooled_rows(panel, config.horizon)
        held = held_out(periods, panel.n_periods, config.validation)
        level, scale = standard(ahead[~held])
        centre = z[~held].mean(axis=0)
        norms = unit_columns(z[~held])[1] / np.sqrt(len(ahead) - held.sum())
        unit = np.where(norms > 0, norms, 1.0)
        inputs, outputs = (z - centre) / unit, (ahead - level) / scale
        members = [train_network(inputs, outputs, held, config, m) for m in range(config.n_ensemble)]
        estimates = NeuralNetworkEstimates(
            weights=tuple(weights for weights, _, _ in members),
            biases=tuple(biases for _, biases, _ in members),
            centre=centre, unit=unit, level=level, scale=scale,
        )  # fmt: skip
        spent = [n for _, _, n in members]
        return estimates, FitSummary(
            converged=max(spent) < config.epochs or not held.any(),
            reason=f"{count(len(members), 'network')} on {int((~held).sum())} rows, stopped after "
            f"{' and '.join(map(str, spent))} epochs",
            n_iterations=max(spent),
        )

    def _predict(self, panel: Panel, estimates: NeuralNetworkEstimates, horizon: int) -> Prediction:
        same_horizon(type(self).__name__, self.config.horizon, horizon)
        forecast = np.empty(panel.n_rows)
        for rows, z in period_rows(panel):
            inputs = (z - estimates.centre) / estimates.unit
            members = [
                network_output(inputs, weights, biases)
                for weights, biases in zip(estimates.weights, estimates.biases, strict=True)
            ]
            forecast[rows] = estimates.level + estimates.scale * np.mean(members, axis=0)
        return as_prediction(panel, forecast, self.fitted.span, horizon)


def train_network(
    inputs: FloatArray,
    outputs: FloatArray,
    held: npt.NDArray[np.bool_],
    config: NeuralNetworkConfig,
    member: int,
) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...], int]:
    """Weights, biases and epochs of one network, those of its best epoch where rows are held out."""
    learner = scikit_learn("neural_network").MLPRegressor(
        hidden_layer_sizes=config.hidden, alpha=config.penalty, learning_rate_init=config.learning_rate,
        batch_size=min(config.batch, int((~held).sum())),
        random_state=int(np.random.SeedSequence([config.seed, member]).generate_state(1)[0]),
    )  # fmt: skip
    weights: tuple[FloatArray, ...] = ()
    biases: tuple[FloatArray, ...] = ()
    best, best_loss, since, epoch = (weights, biases), np.inf, 0, 0
    while epoch < config.epochs and since < config.patience:
        epoch += 1
        learner.partial_fit(inputs[~held], outputs[~held])
        weights, biases = tuple(learner.coefs_), tuple(learner.intercepts_)
        if not held.any():
            best = (weights, biases)
            continue
        loss = float(np.square(outputs[held] - network_output(inputs[held], weights, biases)).mean())
        if loss < best_loss:
            best, best_loss, since = (tuple(map(np.copy, weights)), tuple(map(np.copy, biases))), loss, 0
        else:
            since += 1
    return best[0], best[1], epoch


def network_output(
    inputs: FloatArray, weights: tuple[FloatArray, ...], biases: tuple[FloatArray, ...]
) -> FloatArray:
    """(n,) x <- max(x W + b, 0) through the hidden layers, x W + b at the end."""
    layer = inputs
    for depth, (matrix, shift) in enumerate(zip(weights, biases, strict=True)):
        layer = layer @ matrix + shift
        if depth + 1 < len(weights):
            layer = np.maximum(layer, 0.0)
    return layer[:, 0]
