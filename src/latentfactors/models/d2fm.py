"""Deep dynamic factor model: factors that a denoising autoencoder reads off many series, with dynamics.

Model            g_t = G(y_t, y_(t-1), ...)   y_it = F_i(g_t) + e_it   g_t = c + sum_l A_l g_(t-l) + u_t
                 e_it iid or AR(1); G a network with batch norm, F linear or the mirror image of G
                 a low-frequency series is an aggregate (mean, sum, Mariano-Murasawa) of such a series
Identification   f_t, an invertible linear map of the codes g_t: E f = 0, Var(f_t) = I; Lambda'D^-1 Lambda
                 diagonal, descending, with Lambda the (linear) loadings and D the idiosyncratic variances;
                 the largest loading of each factor positive. With a nonlinear decoder, codes are those of
                 the network found: other restarts may bend them
Estimation       Algorithm 1: pre-training, then an autoencoder with noise drawn from the idiosyncratic terms
                 and those terms from what it leaves, in turns; best of several restarts; then the last layer
                 by generalised least squares given the terms' persistence, the VAR by least squares; if asked
                 for, iterations of quasi-maximum likelihood from there
Factors          `extract`: the filter (exact for a linear decoder, unscented otherwise); `smooth`: given the
                 whole panel; `encode`: the codes themselves
Forecast         native: every series and the factors, any horizon >= 0, densities included
Cost             an epoch is O(T n h) a restart, h the width of the first layer
References       Andreini, Izzo & Ricco (2020), Deep Dynamic Factor Models, arXiv:2007.11887, eqs. (1)-(18),
                 Algorithm 1; Mariano & Murasawa (2003), J. of Applied Econometrics 18(4), 427-443
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentfactors.aggregates import aggregation_weights
from latentfactors.conditional import Cell, ConditionalLaw, ConditionalModel
from latentfactors.dynamic.series import training_series
from latentfactors.dynamic.states import (
    filtered_state,
    linear_conditional,
    linear_expected_values,
    smoothed_state,
)
from latentfactors.dynamic.unscented import (
    DecodedEstimates,
    nonlinear_conditional,
    nonlinear_expected_values,
    nonlinear_state,
)
from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import at_least, check_number
from latentfactors.history import History
from latentfactors.kernels.code_dynamics import CodeDynamics, code_dynamics
from latentfactors.kernels.code_likelihood import towards_likelihood
from latentfactors.kernels.static import factor_names
from latentfactors.neural import require_deep
from latentfactors.neural.code_network import CodeNetwork, aggregated, filtered_codes
from latentfactors.panel import Panel
from latentfactors.state import FitSummary, LatentFactorState
from latentfactors.validate import count

if TYPE_CHECKING:
    from latentfactors.neural.denoising import Denoised

__all__ = ["D2FMConfig", "D2FMEstimates", "D2FMModel"]

FloatArray = npt.NDArray[np.float64]
_CHOICES = {
    "activation": ("tanh", "relu"),
    "decoder": ("linear", "symmetric"),
    "code_link": ("linear", "relu"),
    "idiosyncratic": ("ar1", "iid"),
    "loadings": ("gls", "least_squares"),
    "device": ("auto", "cpu", "gpu"),
}


@dataclass(frozen=True, kw_only=True)
class D2FMConfig:
    """Factors nonlinear in many series. Where linear ones do, `DynamicFactorModel`: a likelihood, no seeds.

    Parameters
    ----------
    n_factors
        r, width of the code.
    factor_lags
        p of the factor VAR, 1 or more.
    hidden_units
        Units of the encoder's layers, from the inputs to the code; may be ().
    activation
        "tanh" (macroeconomic data) or "relu" (the paper's Monte Carlo).
    batch_norm
        Normalise every hidden layer of the encoder over the batch.
    decoder
        "linear": one layer, exact filter; "symmetric": the encoder's mirror image, unscented filter.
    code_link
        "linear", or "relu" on the code: codes are then never negative.
    input_lags
        Earlier months that the encoder sees beside the current one.
    idiosyncratic
        "ar1": each series' own term is a stationary AR(1); "iid": white noise.
    loadings
        Of the state space on the trained codes, with a linear decoder: "gls" (given phi, in turns with phi),
        or "least_squares" (as printed). The same for iid terms.
    likelihood_iterations
        Of quasi-maximum likelihood on the state space of a linear decoder, started at the codes' law; 0:
        none, as printed. With few series the codes are noisy and 50 help much; to the end, they lead to the
        linear dynamic factor model.
    n_draws
        Draws of the noise over which codes are averaged.
    epochs_per_iteration
        Passes over the months between two looks at the idiosyncratic terms.
    max_iterations
        Most such iterations.
    tolerance
        Relative change of the loss at which a restart has settled.
    batch_size
        Months of a gradient step.
    learning_rate
        Of Adam, > 0.
    learning_rate_decay
        Factor in (0, 1] on the learning rate from iteration to iteration.
    pretraining_epochs
        Passes before the iterations; 0: none.
    n_restarts
        Trainings from other initial weights, side by side; the one with the lowest loss counts.
    dynamics_weight
        >= 0: weight of the codes' one-step forecast errors in the loss (share of their variance).
    min_complete_rows
        Pre-training reads complete months if there are this many, else all, with gaps splined.
    seed
        Of initial weights, order of months and noise; restart m depends on it and on m only.
    device
        "auto" trains on JAX's default, "cpu" or "gpu" insist.

    Raises
    ------
    ConfigurationError
        Values outside these ranges.
    """

    n_factors: int
    factor_lags: int = 2
    hidden_units: tuple[int, ...] = (24, 12)
    activation: Literal["tanh", "relu"] = "tanh"
    batch_norm: bool = True
    decoder: Literal["linear", "symmetric"] = "linear"
    code_link: Literal["linear", "relu"] = "linear"
    input_lags: int = 0
    idiosyncratic: Literal["ar1", "iid"] = "ar1"
    loadings: Literal["gls", "least_squares"] = "gls"
    likelihood_iterations: int = 0
    n_draws: int = 50
    epochs_per_iteration: int = 100
    max_iterations: int = 20
    tolerance: float = 5e-4
    batch_size: int = 100
    learning_rate: float = 5e-3
    learning_rate_decay: float = 1.0
    pretraining_epochs: int = 100
    n_restarts: int = 1
    dynamics_weight: float = 0.0
    min_complete_rows: int = 50
    seed: int = 0
    device: Literal["auto", "cpu", "gpu"] = "auto"

    def __post_init__(self) -> None:
        for name in ("n_factors", "factor_lags", "n_draws", "epochs_per_iteration", "n_restarts"):
            at_least(name, getattr(self, name), 1)
        for name in (
            "input_lags",
            "likelihood_iterations",
            "max_iterations",
            "pretraining_epochs",
            "min_complete_rows",
            "seed",
        ):
            at_least(name, getattr(self, name), 0)
        at_least("batch_size", self.batch_size, 2)
        for name, positive in (("tolerance", True), ("learning_rate", True), ("dynamics_weight", False)):
            object.__setattr__(self, name, check_number(name, getattr(self, name), positive=positive))
        decay = check_number("learning_rate_decay", self.learning_rate_decay, positive=True)
        if decay > 1.0:
            raise ConfigurationError(f"learning_rate_decay must lie in (0, 1], got {decay!r}")
        object.__setattr__(self, "learning_rate_decay", decay)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigurationError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        if isinstance(self.hidden_units, str) or not isinstance(self.hidden_units, Sequence):
            raise ConfigurationError(f"hidden_units must be a tuple of widths, got {self.hidden_units!r}")
        object.__setattr__(self, "hidden_units", tuple(self.hidden_units))
        for each in self.hidden_units:
            at_least("hidden_units", each, 1)
        if self.likelihood_iterations and self.decoder != "linear":
            raise ConfigurationError(
                f"likelihood_iterations={self.likelihood_iterations} needs decoder='linear', got "
                f"{self.decoder!r}: the likelihood behind a nonlinear decoder has no closed form"
            )
        if self.pretraining_epochs == 0 and self.max_iterations == 0:
            raise ConfigurationError("pretraining_epochs=0 and max_iterations=0 train nothing: raise one")

    @property
    def autoregressive(self) -> bool:
        """Whether idiosyncratic terms are AR(1)."""
        return self.idiosyncratic == "ar1"


@dataclass(frozen=True, eq=False, kw_only=True)
class D2FMEstimates(DecodedEstimates):
    """What `fit` found: a dynamic factor model of the codes (`DynamicEstimates`), and the network.

    Series are in the order of their labels; with a symmetric decoder the loadings are a linear description.

    Attributes
    ----------
    network : encoder and decoder, of inputs (value - input_location) / scale
    input_location : (n,) input units
    code_mean, code_map : (r,), (r, r): g = code_mean + code_map f; the least squares of g on f where the
        state space was moved towards its likelihood
    """

    network: CodeNetwork
    input_location: FloatArray
    code_mean: FloatArray
    code_map: FloatArray

    def decode(self, factors: FloatArray) -> FloatArray:
        """(..., n) standardised values F(f) of factors (..., r)."""
        shift = (self.location - self.input_location) / self.scale
        return self.network.decode(self.code_mean + factors @ self.code_map.T) - shift


class D2FMModel(ConditionalModel[D2FMConfig, D2FMEstimates]):
    """Deep dynamic factor model (Andreini, Izzo & Ricco).

    Parameters
    ----------
    config
        `D2FMConfig`.

    Examples
    --------
    >>> from latentfactors.simulate import dynamic_factor_panel
    >>> panel = dynamic_factor_panel(80, 12, 1, seed=1).panel
    >>> config = D2FMConfig(n_factors=1, hidden_units=(6,), max_iterations=2, epochs_per_iteration=20)
    >>> model = D2FMModel(config)
    >>> summary = model.fit(panel)
    >>> model.extract(panel).factor_returns.shape, model.encode(panel).shape
    ((80, 1), (80, 1))
    >>> means, variances = model.extract(panel).native.values(3)
    >>> means.shape
    (960,)
    """

    sequential = True

    def encode(self, panel: Panel) -> FloatArray:
        """(T, r) the network's codes g_t, each from the panel up to its month.

        The encoder sees y~_t = y_t - phi e_(t-1), corrupted by draws of the idiosyncratic innovations; codes
        are means over draws. Where a series is missing, the fitted value at the filtered factors stands in.

        Parameters
        ----------
        panel
            Prepared like the training panel.

        Raises
        ------
        NotFittedError, PanelMismatchError, UnknownAssetsError, GapError
            As `extract`.
        """
        state = self.extract(panel)  # all guards
        config, estimates = self.config, self.estimates
        values, before = estimates.read(panel, type(self).__name__)
        native: Any = state.native
        means = native.filtered.mean.reshape(len(values), -1)
        common = self._common(means[:, : config.n_factors], estimates)
        shift = (estimates.location - estimates.input_location) / estimates.scale
        with threadpool_limits(limits=1, user_api="blas"):
            codes = filtered_codes(
                estimates.network,
                values + shift,
                shift + aggregated(common, estimates.weights),
                estimates.weights,
                estimates.persistence,
                np.sqrt(estimates.variance),
                n_draws=config.n_draws,
                seed=config.seed,
            )
        return codes[before:]

    def _estimate(self, panel: Panel) -> tuple[D2FMEstimates, FitSummary]:
        require_deep(type(self).__name__)
        from latentfactors.neural.denoising import DenoisingOptions, fit_autoencoder

        config = self.config
        hidden = np.zeros(panel.n_periods, dtype=bool)
        wide, labels, warnings = training_series(panel, hidden, (), config.n_factors, config.factor_lags)
        # one order of series, whatever the panel's: networks start from draws by position
        order = np.argsort(labels, kind="stable")
        wide, labels = wide[:, order], labels[order]
        weights = aggregation_weights(panel, labels)
        self._check_size(wide)
        centre, scale = np.nanmean(wide, axis=0), np.nanstd(wide, axis=0)
        values = (wide - centre) / scale
        options = {f.name: getattr(config, f.name) for f in fields(DenoisingOptions)}
        with threadpool_limits(limits=1, user_api="blas"):
            found = fit_autoencoder(values, weights, DenoisingOptions(**options))
            law = self._law(found, values, weights)
            path: tuple[float, ...] = ()
            if config.likelihood_iterations:
                law, path = towards_likelihood(
                    law,
                    found.codes,
                    values,
                    weights,
                    autoregressive=config.autoregressive,
                    max_iterations=config.likelihood_iterations,
                )
        parameters = law.parameters
        estimates = D2FMEstimates(
            series=labels,
            location=centre + scale * law.intercept,
            scale=scale,
            weights=weights,
            loadings=parameters.loadings,
            persistence=parameters.persistence,
            variance=parameters.variance,
            transition=parameters.transition,
            innovation=parameters.innovation,
            network=found.network,
            input_location=centre,
            code_mean=law.code_mean,
            code_map=law.code_map,
            training=History(panel.times, wide),
        )
        return estimates, _summarise(found, law, path, config, warnings)

    def _extract(self, panel: Panel, estimates: D2FMEstimates) -> LatentFactorState:
        names, span, who = factor_names(self.config.n_factors), self.fitted.span, type(self).__name__
        if self.config.decoder == "symmetric":
            return nonlinear_state(panel, estimates, names, span, who)
        return filtered_state(panel, estimates, names, span, who, autoregressive=self.config.autoregressive)

    def _smooth(self, panel: Panel, estimates: D2FMEstimates) -> LatentFactorState:
        names, span, who = factor_names(self.config.n_factors), self.fitted.span, type(self).__name__
        if self.config.decoder == "symmetric":
            return nonlinear_state(panel, estimates, names, span, who, smoothed=True)
        return smoothed_state(panel, estimates, names, span, who, autoregressive=self.config.autoregressive)

    def _conditional(self, panel: Panel, estimates: D2FMEstimates, cells: Sequence[Cell]) -> ConditionalLaw:
        who = type(self).__name__
        if self.config.decoder == "symmetric":
            return nonlinear_conditional(panel, estimates, cells, who)
        return linear_conditional(panel, estimates, cells, who, autoregressive=self.config.autoregressive)

    def _expected_values(self, panel: Panel, estimates: D2FMEstimates) -> FloatArray:
        who = type(self).__name__
        if self.config.decoder == "symmetric":
            return nonlinear_expected_values(panel, estimates, who)
        return linear_expected_values(panel, estimates, who, autoregressive=self.config.autoregressive)

    def _common(self, factors: FloatArray, estimates: D2FMEstimates) -> FloatArray:
        """(T, n) standardised F(f_t), or Lambda f_t."""
        if self.config.decoder == "symmetric":
            return estimates.decode(factors)
        return factors @ estimates.loadings.T

    def _check_size(self, wide: FloatArray) -> None:
        """More series than factors, and enough months for the factor VAR."""
        config, (n_periods, n) = self.config, wide.shape
        needed = config.n_factors * config.factor_lags + config.factor_lags + 10
        if n_periods < needed:
            raise InsufficientDataError(
                f"{count(config.n_factors, 'factor')} with {config.factor_lags} lag(s) need {needed} "
                f"periods, got {n_periods}: give a longer panel, or ask for fewer factors or lags"
            )
        if config.n_factors >= n:
            raise InsufficientDataError(
                f"n_factors={config.n_factors} is no reduction of {n} usable series: ask for fewer factors"
            )

    def _law(self, found: Denoised, values: FloatArray, weights: FloatArray) -> CodeDynamics:
        """The dynamic factor model of the codes."""
        linear = self.config.decoder == "linear"
        decoder = found.network.decoder
        return code_dynamics(
            found.codes,
            values,
            weights,
            decoder["weight_0"].T if linear else None,
            self.config.factor_lags,
            autoregressive=self.config.autoregressive,
            generalised=self.config.loadings == "gls",
            fitted=None if linear else aggregated(found.network.decode(found.codes), weights),
        )


def _summarise(
    found: Denoised,
    law: CodeDynamics,
    path: tuple[float, ...],
    config: D2FMConfig,
    warnings: tuple[str, ...],
) -> FitSummary:
    if found.splined and config.pretraining_epochs:
        warnings = (
            *warnings,
            f"{count(found.n_complete, 'month')} without a gap: pre-trained on all months, gaps splined",
        )
    if law.n_still:
        warnings = (*warnings, f"{count(law.n_still, 'code')} never moved: ask for fewer factors")
    if law.shrunk:
        warnings = (*warnings, "the factor VAR was not stationary and had to be shrunk")
    if not found.converged:
        warnings = (*warnings, f"not converged, {found.reason}: raise max_iterations")
    return FitSummary(
        converged=found.converged,
        reason=found.reason,
        n_iterations=len(found.loss) - 1,
        objective=found.loss,
        objective_name="mean squared error of standardised observed values",
        metrics={
            "loss": found.loss[-1],
            "worst_restart_loss": float(found.restart_losses.max()),
            "n_complete_months": float(found.n_complete),
            **({"loglikelihood": path[-1], "loglikelihood_of_codes": path[0]} if path else {}),
        },
        warnings=warnings,
    )
