"""Algorithm 1 of the deep dynamic factor model: an autoencoder and its idiosyncratic terms, in turns.

    pre-train    an ordinary autoencoder on complete months; where there are few, on all months with gaps
                 interpolated by splines (observed cells alone count in the loss)
    repeat       e = y - F(g);  phi_i, s_i of AR(1) terms from observed pairs, whatever the gap between them
                 y~ = y - E[e_t | its last observation], the fitted value where y is missing
                 epochs of gradient steps on ||y - F(G(y~ + v))||^2, v ~ N(0, s) drawn anew in every step
                 g = mean of G(y~ + v) over draws
    until        the loss of every restart changes by less than the tolerance, relatively

Adam starts afresh once, after pre-training. Restarts differ in their initial weights and noise, run side by
side, and the one with the lowest loss counts.

References: Andreini, Izzo & Ricco (2020), Deep Dynamic Factor Models, section 3.2 and Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from latentfactors.errors import TrainingError
from latentfactors.kernels.gapped_residuals import expected_residuals, fit_gapped
from latentfactors.neural.autoencoder import (
    DenoisingAutoencoder,
    DenoisingCarry,
    DenoisingStep,
    Months,
    monte_carlo_codes,
)
from latentfactors.neural.batches import bucket, step_bucket
from latentfactors.neural.code_network import CodeNetwork, aggregated, glorot_normal
from latentfactors.neural.config import OptimiserSpec, TrainingConfig
from latentfactors.neural.perceptron import Activation, forward, fresh_layers
from latentfactors.neural.policy import device_scope
from latentfactors.neural.primitive import Ensemble, GradientStep, train

__all__ = ["Denoised", "DenoisingOptions", "fit_autoencoder"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Of a standardised series: its noise is never taken as smaller.
SMALLEST_VARIANCE = 1e-6
_WORST_LOSS = 2.0


@dataclass(frozen=True, kw_only=True)
class DenoisingOptions:
    """What Algorithm 1 needs to know; see `D2FMConfig` for the meaning."""

    n_factors: int
    factor_lags: int
    hidden_units: tuple[int, ...]
    activation: Activation
    batch_norm: bool
    decoder: Literal["linear", "symmetric"]
    code_link: Literal["linear", "relu"]
    input_lags: int
    autoregressive: bool
    n_draws: int
    epochs_per_iteration: int
    max_iterations: int
    tolerance: float
    batch_size: int
    learning_rate: float
    learning_rate_decay: float
    pretraining_epochs: int
    n_restarts: int
    dynamics_weight: float
    min_complete_rows: int
    seed: int
    device: Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Denoised:
    """Where the iteration ended, for the restart with the lowest loss.

    Attributes
    ----------
    network : as trained
    codes : (T, r)
    loss : (iterations + 1,) after pre-training and after every iteration
    restart_losses : (M,) last losses of all restarts
    converged, reason : whether every restart's loss settled
    n_complete : months without a gap in ordinary series; pre-training used splines where they are too few
    """

    network: CodeNetwork
    codes: FloatArray
    loss: tuple[float, ...]
    restart_losses: FloatArray
    converged: bool
    reason: str
    n_complete: int
    splined: bool


@dataclass(frozen=True, eq=False)
class _Problem:
    """Data of a run: standardised values (T, n), weights (n, L), and their padded sizes."""

    values: FloatArray
    weights: FloatArray
    low: npt.NDArray[np.bool_]
    objective: DenoisingAutoencoder
    step: Ensemble
    months: Months
    padded: tuple[int, int]
    usable: IntArray


def fit_autoencoder(values: FloatArray, weights: FloatArray, options: DenoisingOptions) -> Denoised:
    """Run Algorithm 1 on (T, n) standardised values, NaN where missing.

    Parameters
    ----------
    values : ordered in time, without holes
    weights : (n, L) of an aggregate's periods, newest first; (1, 0, ...) for an ordinary series
    options : `DenoisingOptions`

    Raises
    ------
    ConfigurationError
        A device that is not there.
    TrainingError
        A loss or gradient that is not finite, or a loss that did not fall below that of no model.
    """
    with device_scope(TrainingConfig(device=options.device)):
        problem = _prepare(values, weights, options)
        return _run(problem, options)


def _run(problem: _Problem, options: DenoisingOptions) -> Denoised:
    members = options.n_restarts
    rows, splined, n_complete = _pretraining_rows(problem, options)
    carry = _start(problem, options, spline_filled(problem.values))
    if options.pretraining_epochs:
        rate = options.learning_rate
        carry = _train(problem, options, carry, rows, options.pretraining_epochs, rate, 0, "pre-training")
        carry = carry._replace(learner=_fresh_optimiser(problem, carry))
    codes, fitted, loss = _look(problem, options, carry, 0)
    path, moving, n = [loss], np.ones(members, dtype=bool), 0
    change = np.full(members, np.inf)
    for n in range(1, options.max_iterations + 1):
        inputs, noise = _denoised_inputs(problem, fitted, autoregressive=options.autoregressive)
        carry = carry._replace(x=_padded_members(inputs, problem), noise=_padded_noise(noise, problem))
        learner = carry.learner._replace(active=jnp.asarray(moving))
        rate = options.learning_rate * options.learning_rate_decay ** (n - 1)
        carry = _train(
            problem, options, carry._replace(learner=learner), problem.usable,
            options.epochs_per_iteration, rate, n, f"iteration {n}",
        )  # fmt: skip
        codes, fitted, loss = _look(problem, options, carry, n)
        change = np.abs(loss - path[-1]) / np.maximum(path[-1], 1e-12)
        path.append(loss)
        moving = moving & (change >= options.tolerance)
        if not moving.any():
            break
    best = int(np.argmin(loss))
    if not loss[best] <= _WORST_LOSS:
        raise TrainingError(
            f"training diverged: the lowest mean squared error of {members} restart(s) is {loss[best]:.3g} "
            f"times the series' variance after {n} iterations: lower learning_rate={options.learning_rate:g}"
        )
    settled = not moving.any()
    reason = (
        f"the loss of every restart changed by less than {options.tolerance:g}"
        if settled
        else f"ran all {options.max_iterations} iterations, the loss still changed by {change.max():.1e}"
        if n
        else "pre-training only"
    )
    return Denoised(
        network=_network(problem, options, carry, best),
        codes=codes[best],
        loss=tuple(float(each[best]) for each in path),
        restart_losses=loss,
        converged=settled,
        reason=reason,
        n_complete=n_complete,
        splined=splined,
    )


# ------------------------------------------------------------------------------------ the data


def _prepare(values: FloatArray, weights: FloatArray, options: DenoisingOptions) -> _Problem:
    n_periods, n = values.shape
    low = (weights[:, 1:] != 0.0).any(axis=1)
    reach = 1 + (weights != 0.0).shape[1] - 1 - np.argmax((weights != 0.0)[:, ::-1], axis=1)
    depth = int(reach.max(initial=1))
    if options.dynamics_weight:
        depth = max(depth, options.factor_lags + 1)
    padded = (bucket(n_periods, per_octave=2, least=64), bucket(n, per_octave=8, least=16))
    observed = np.isfinite(values)
    # an aggregate whose first period lies before the sample has no fitted value
    seen = observed & (np.arange(n_periods)[:, None] >= reach[None, :] - 1)
    usable = np.flatnonzero(observed.any(axis=1))
    size = min(options.batch_size, bucket(usable.size, per_octave=1, least=32))
    wide = np.zeros((n, depth))
    wide[:, : min(depth, weights.shape[1])] = weights[:, :depth]
    objective = DenoisingAutoencoder(
        activation=options.activation,
        code_link=options.code_link,
        depth=depth,
        input_lags=options.input_lags,
        factor_lags=options.factor_lags,
        dynamics_weight=options.dynamics_weight,
    )
    months = Months(
        order=jnp.zeros(size, dtype=jnp.int32),
        y=_pad(np.where(observed, values, 0.0), padded),
        seen=_pad(seen.astype(np.float64), padded),
        weights=_pad(wide, (padded[1], depth)),
        size=size,
    )
    step = DenoisingStep(GradientStep(objective, OptimiserSpec(decay=0.0, clip=None)))
    return _Problem(
        values, wide, low, objective, Ensemble(step, "vmap"), months, padded, usable.astype(np.int64)
    )


def _pretraining_rows(problem: _Problem, options: DenoisingOptions) -> tuple[IntArray, bool, int]:
    """Months complete in their own and all lagged inputs, or all usable ones where these are too few."""
    gaps = (~np.isfinite(problem.values[:, ~problem.low])).sum(axis=1)
    complete = gaps == 0
    for lag in range(1, options.input_lags + 1):
        complete[lag:] &= gaps[: gaps.size - lag] == 0
    rows = np.intersect1d(np.flatnonzero(complete), problem.usable)
    # batch norm needs two rows whatever was asked for
    if rows.size < max(options.min_complete_rows, 2):
        return problem.usable, True, int(rows.size)
    return rows.astype(np.int64), False, int(rows.size)


def spline_filled(values: FloatArray) -> FloatArray:
    """(T, n) without gaps: a cubic spline through each series' own dates, flat before and after them."""
    from scipy.interpolate import CubicSpline

    n_periods, n = values.shape
    out, time = values.copy(), np.arange(n_periods)
    for i in range(n):
        known = np.flatnonzero(np.isfinite(values[:, i]))
        missing = np.flatnonzero(~np.isfinite(values[:, i]))
        if not known.size or not missing.size:
            out[missing, i] = 0.0
            continue
        out[missing, i] = np.interp(missing, known, values[known, i])
        inside = missing[(missing > known[0]) & (missing < known[-1])]
        if known.size >= 4 and inside.size:
            curve = CubicSpline(known, values[known, i], bc_type="natural")(time[inside])
            # a wide gap lets a cubic swing far outside of what was ever seen
            out[inside, i] = np.clip(curve, values[known, i].min(), values[known, i].max())
    return out


def _denoised_inputs(
    problem: _Problem, fitted: FloatArray, *, autoregressive: bool
) -> tuple[FloatArray, FloatArray]:
    """y~ (M, T, n) and the standard deviations (M, n) of the noise, from fitted values (M, T, n)."""
    members, n_periods, n = fitted.shape
    residuals = problem.values - fitted
    flat = residuals.transpose(1, 0, 2).reshape(n_periods, members * n)
    phi, variance = fit_gapped(flat, autoregressive=autoregressive, smallest_variance=SMALLEST_VARIANCE)
    low = np.tile(problem.low, members)
    # months inside a quarter are not neighbours of its end, so an aggregate's own past is left alone here
    square = np.nanmean(np.where(np.isfinite(flat), flat, np.nan)[:, low] ** 2, axis=0) if low.any() else 0.0
    phi[low], variance[low] = 0.0, np.maximum(square, SMALLEST_VARIANCE)
    ahead = expected_residuals(flat, phi).reshape(n_periods, members, n).transpose(1, 0, 2)
    inputs = np.where(np.isfinite(problem.values), problem.values - ahead, fitted)
    return inputs, np.sqrt(variance).reshape(members, n)


# ------------------------------------------------------------------------------------ the device


def _start(problem: _Problem, options: DenoisingOptions, filled: FloatArray) -> DenoisingCarry:
    """Networks, optimisers and noise-free inputs of all restarts."""
    n, width = problem.values.shape[1], 1 + options.input_lags
    hidden, r = options.hidden_units, options.n_factors
    sizes = (n * width, *hidden, r)
    behind = (r, *hidden[::-1], n) if options.decoder == "symmetric" else (r, n)
    members = []
    for m in range(options.n_restarts):
        rng = np.random.default_rng([options.seed, 0, m])
        parameters: dict[str, Any] = {
            "encoder": glorot_normal(rng, sizes, options.batch_norm),
            "decoder": glorot_normal(rng, behind, False),
        }
        first, last = parameters["encoder"]["weight_0"], f"weight_{len(behind) - 2}"
        extra = problem.padded[1] - n
        blocks = np.pad(first.reshape(width, n, -1), ((0, 0), (0, extra), (0, 0)))
        parameters["encoder"]["weight_0"] = blocks.reshape(width * problem.padded[1], -1)
        decoder = parameters["decoder"]
        decoder[last] = np.pad(decoder[last], ((0, 0), (0, extra)))
        decoder[last.replace("weight", "bias")] = np.zeros(problem.padded[1], dtype=np.float32)
        if options.dynamics_weight:
            parameters["dynamics"] = {
                "transition": np.zeros((options.factor_lags, r, r), dtype=np.float32),
                "intercept": np.zeros(r, dtype=np.float32),
            }
        members.append(parameters)
    stacked = jax.tree.map(lambda *each: jnp.asarray(np.stack(each)), *members)
    layers = {
        name: jnp.asarray(np.stack([array] * options.n_restarts))
        for name, array in fresh_layers(sizes, options.batch_norm).items()
    }
    learner = jax.vmap(problem.step.step.gradient.start)(stacked, layers)
    inputs = np.broadcast_to(filled, (options.n_restarts, *filled.shape))
    nothing = jnp.zeros((options.n_restarts, problem.padded[1]), dtype=jnp.float32)
    return DenoisingCarry(learner, _padded_members(inputs, problem), nothing)


def _fresh_optimiser(problem: _Problem, carry: DenoisingCarry) -> Any:
    learner = carry.learner
    return jax.vmap(problem.step.step.gradient.start)(learner.parameters, learner.layers)


def _train(
    problem: _Problem,
    options: DenoisingOptions,
    carry: DenoisingCarry,
    rows: IntArray,
    epochs: int,
    rate: float,
    iteration: int,
    where: str,
) -> DenoisingCarry:
    """Epochs over the months given, all in one compiled scan."""
    size, members = problem.months.size, options.n_restarts
    steps = -(-rows.size // size)
    rng = np.random.default_rng([options.seed, 1, iteration])
    order = np.full((step_bucket(epochs * steps), size), -1, dtype=np.int32)
    for epoch in range(epochs):
        for j, part in enumerate(np.array_split(rng.permutation(rows), steps)):
            order[epoch * steps + j, : part.size] = part
    rates = jnp.full(members, rate, dtype=jnp.float32)
    carry = carry._replace(learner=carry.learner._replace(rate=rates))
    data = replace(problem.months, order=jnp.asarray(order.reshape(-1)))
    key = jax.random.fold_in(jax.random.key(options.seed), 2 * iteration)
    carry, report = train(carry, problem.step, data, epochs * steps, key)
    bad = ~np.asarray(report.finite)
    if bad.any():
        number, member = np.argwhere(bad)[0]
        raise TrainingError(
            f"the loss or its gradient is not finite in {where}, epoch {number // steps + 1} of {epochs}, "
            f"restart {member + 1} of {members}: lower learning_rate={options.learning_rate:g}"
        )
    return carry


def _look(
    problem: _Problem, options: DenoisingOptions, carry: DenoisingCarry, iteration: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Codes (M, T, r), fitted values (M, T, n) and losses (M,) of all restarts."""
    key = jax.random.fold_in(jax.random.key(options.seed), 2 * iteration + 1)
    found = monte_carlo_codes(problem.objective, carry, key, options.n_draws)
    n_periods, n = problem.values.shape
    codes = np.asarray(found, dtype=np.float64)[:, :n_periods]
    decoder = _host(carry.learner.parameters["decoder"])
    decoded = np.asarray(forward(codes, decoder, {}, options.activation))[..., :n]
    fitted = aggregated(decoded, problem.weights)
    seen = np.asarray(problem.months.seen, dtype=np.float64)[:n_periods, :n] > 0.0
    errors = np.where(seen, problem.values - fitted, 0.0)
    return codes, fitted, (errors**2).sum(axis=(1, 2)) / seen.sum()


def _network(problem: _Problem, options: DenoisingOptions, carry: DenoisingCarry, member: int) -> CodeNetwork:
    """The trained network of one restart without its padding."""
    n, width = problem.values.shape[1], 1 + options.input_lags

    def own(tree: Any) -> dict[str, FloatArray]:
        return {name: array[member] for name, array in _host(tree).items()}

    learner = carry.learner
    encoder, decoder = own(learner.parameters["encoder"]), own(learner.parameters["decoder"])
    first = encoder["weight_0"]
    encoder["weight_0"] = first.reshape(width, problem.padded[1], -1)[:, :n].reshape(width * n, -1)
    last = sum(name.startswith("weight_") for name in decoder) - 1
    decoder[f"weight_{last}"] = decoder[f"weight_{last}"][:, :n]
    decoder[f"bias_{last}"] = decoder[f"bias_{last}"][:n]
    return CodeNetwork(
        encoder=encoder,
        layers=own(learner.layers),
        decoder=decoder,
        activation=options.activation,
        code_link=options.code_link,
        input_lags=options.input_lags,
    )


def _host(arrays: Any) -> dict[str, FloatArray]:
    return {name: np.array(array, dtype=np.float64) for name, array in arrays.items()}


def _padded_members(inputs: FloatArray, problem: _Problem) -> jax.Array:
    members, n_periods, n = inputs.shape
    out = np.zeros((members, *problem.padded), dtype=np.float32)
    out[:, :n_periods, :n] = inputs
    return jnp.asarray(out)


def _padded_noise(noise: FloatArray, problem: _Problem) -> jax.Array:
    out = np.zeros((len(noise), problem.padded[1]), dtype=np.float32)
    out[:, : noise.shape[1]] = noise
    return jnp.asarray(out)


def _pad(array: FloatArray, shape: tuple[int, int]) -> jax.Array:
    out = np.zeros(shape, dtype=np.float32)
    out[: array.shape[0], : array.shape[1]] = array
    return jnp.asarray(out)
