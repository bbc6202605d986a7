"""A denoising autoencoder of a panel of series over time, as a compiled step sees it.

    g_t = G(x_t, x_(t-1), ...)           encoder, x the noisy series; the code may pass a ReLU
    y_it ~ sum_l w_il F_i(g_(t-l))       decoder; w = (1, 0, ...) but for aggregates of several periods
    loss = mean over observed cells of (y_it - fitted)^2
           + weight * mean_k Var(g_k - c_k - sum_l A_l g_(t-l)) / Var(g_k)

A step draws months in any order and fetches for each the months that came before it in time, so that neither
an aggregate nor a lag ever meets a neighbour in the batch. The noise is drawn anew in every step. Both
axes of the panel are padded, so that a longer window or another series runs through the same program.

References: Andreini, Izzo & Ricco (2020), Deep Dynamic Factor Models, section 3, Algorithm 1; Vincent et al.
(2008), Extracting and composing robust features with denoising autoencoders, ICML.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from latentfactors.neural.batch_norm import batch_forward
from latentfactors.neural.batches import Batch
from latentfactors.neural.perceptron import Activation, forward
from latentfactors.neural.primitive import GradientStep, Learner, Objective, StepReport

__all__ = ["DenoisingAutoencoder", "DenoisingCarry", "DenoisingStep", "Months", "monte_carlo_codes"]


class DenoisingAutoencoder(Objective):
    """The loss above.

    Batches carry `x` (B, S, n) by row: the S latest months of every month drawn, newest first; `y`, `seen`
    (B, n), `valid` (B, depth) and `weights` (n, depth) beside them.
    """

    activation: Activation = eqx.field(static=True)
    code_link: Literal["linear", "relu"] = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    input_lags: int = eqx.field(static=True)
    factor_lags: int = eqx.field(static=True)
    dynamics_weight: float = eqx.field(static=True)

    @property
    def span(self) -> int:
        """Months that one month's loss reads, S."""
        return self.depth + self.input_lags

    def loss(self, parameters: Any, layers: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """The loss of a batch, and batch norm's new moments."""
        x, valid = batch.rows["x"], batch.periods["valid"]
        size, _, n = x.shape
        width = 1 + self.input_lags
        inputs = jnp.stack([x[:, d : d + width].reshape(size, width * n) for d in range(self.depth)], axis=1)
        codes, layers = batch_forward(
            inputs.reshape(size * self.depth, width * n),
            valid.reshape(-1),
            parameters["encoder"],
            layers,
            self.activation,
        )
        codes = self._link(codes.T).reshape(size, self.depth, -1)
        decoded = forward(codes, parameters["decoder"], {}, self.activation)
        fitted = jnp.einsum("bdn,nd->bn", decoded, batch.periods["weights"])
        error = (batch.periods["y"] - fitted) * batch.periods["seen"]
        loss = jnp.vdot(error, error) / jnp.maximum(batch.periods["seen"].sum(), 1.0)
        if self.dynamics_weight:
            loss = loss + self.dynamics_weight * self._surprise(parameters["dynamics"], codes, valid)
        return loss, layers

    def _surprise(self, law: Any, codes: jax.Array, valid: jax.Array) -> jax.Array:
        """Mean share of the codes' variance that their own past does not foretell."""
        weight = jnp.prod(valid, axis=1)
        share = (weight / jnp.maximum(weight.sum(), 1.0))[:, None]
        now = codes[:, 0]
        past = jnp.einsum("blk,ljk->bj", codes[:, 1 : 1 + self.factor_lags], law["transition"])
        error = now - law["intercept"] - past
        centred = now - (share * now).sum(axis=0)
        variance = (share * centred * centred).sum(axis=0)
        return ((share * error * error).sum(axis=0) / (variance + 1e-6)).mean()

    def _link(self, codes: jax.Array) -> jax.Array:
        return codes * (codes > 0) if self.code_link == "relu" else codes


class Months(eqx.Module):
    """Shared data of a training run: an order of months, targets and what is known of them.

    Attributes
    ----------
    order : (steps * size,) months, -1 for an empty place
    y, seen : (T, n) targets, 0 where missing; 1.0 where a cell counts
    weights : (n, depth)
    """

    order: jax.Array
    y: jax.Array
    seen: jax.Array
    weights: jax.Array
    size: int = eqx.field(static=True)

    def at(self, i: jax.Array) -> tuple[jax.Array, Months]:
        """The months of step `i`."""
        return jax.lax.dynamic_slice(self.order, (i * self.size,), (self.size,)), self


class DenoisingCarry(NamedTuple):
    """A member: its network, its inputs (T, n), and the noise that is added to them (n,)."""

    learner: Learner
    x: jax.Array
    noise: jax.Array


class DenoisingStep(eqx.Module):
    """Corrupt the inputs of the months drawn, then one gradient step."""

    gradient: GradientStep

    def __call__(
        self, carry: DenoisingCarry, batch: tuple[jax.Array, Months], key: jax.Array
    ) -> tuple[DenoisingCarry, StepReport]:
        """Draw, differentiate, move."""
        months, data = batch
        objective: Any = self.gradient.objective
        back = months[:, None] - jnp.arange(objective.span)
        exists = ((months >= 0)[:, None] & (back >= 0)).astype(jnp.float32)
        x = carry.x[jnp.maximum(back, 0)]
        x = (x + carry.noise * jax.random.normal(key, x.shape)) * exists[..., None]
        taken = jnp.maximum(months, 0)
        ready = Batch(
            {"x": x},
            {
                "y": data.y[taken],
                "seen": data.seen[taken] * (months >= 0)[:, None],
                "valid": exists[:, : objective.depth],
                "weights": data.weights,
            },
            exists,
        )
        learner, report = self.gradient(carry.learner, ready, key)
        return DenoisingCarry(learner, carry.x, carry.noise), report


@partial(eqx.filter_jit)
def monte_carlo_codes(
    objective: DenoisingAutoencoder, carry: DenoisingCarry, key: jax.Array, n_draws: int
) -> jax.Array:
    """(M, T, r) mean codes of all months over draws of the noise, batch norm as it stands."""

    def of_member(member: DenoisingCarry, key: jax.Array) -> jax.Array:
        parameters, layers = member.learner.parameters["encoder"], member.learner.layers
        n_periods, n = member.x.shape
        reach = objective.input_lags

        def draw(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
            noise = jax.random.normal(jax.random.fold_in(key, i), (n_periods, n))
            noisy = member.x + member.noise * noise
            longer = jnp.concatenate([jnp.zeros((reach, n)), noisy])
            inputs = jnp.concatenate(
                [longer[reach - lag : reach - lag + n_periods] for lag in range(reach + 1)], axis=1
            )
            codes = forward(inputs, parameters, layers, objective.activation)
            return total + objective._link(codes), None

        r = parameters[f"bias_{_last(parameters)}"].shape[0]
        total, _ = jax.lax.scan(draw, jnp.zeros((n_periods, r)), jnp.arange(n_draws))
        return total / n_draws

    keys = jax.random.split(key, carry.x.shape[0])
    return jax.vmap(of_member)(carry, keys)


def _last(parameters: Any) -> int:
    return sum(name.startswith("weight_") for name in parameters) - 1
