"""What the conditional autoencoder minimises, as a compiled step sees it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from latentfactors.neural.batch_norm import batch_hidden
from latentfactors.neural.batches import Batch
from latentfactors.neural.perceptron import depth, forward
from latentfactors.neural.primitive import ValidatedObjective

__all__ = ["ConditionalAutoencoder"]

_JITTER = 1e-6


class ConditionalAutoencoder(ValidatedObjective):
    """Mean of (r - beta(z)'(x W))^2 over the batch's rows, plus `l1` times the sum of absolute weights.

    Batches carry `z` (B, n, L) and `r` (B, n) by row, `x` (B, Q) by period, and where it pays `sums` (B, L)
    and `squares` (B, L, L) of z. Validation errors use the factors that the fitted model will use: the
    cross-section's least squares with `projection`, else the network's.
    """

    l1: float = eqx.field(static=True)
    projection: bool = eqx.field(static=True)

    def loss(self, parameters: Any, layers: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """The penalised loss of a batch, and batch norm's new moments."""
        z, r = batch.rows["z"], batch.rows["r"]
        n_periods, n, _ = z.shape
        hidden, layers = batch_hidden(
            z.reshape(n_periods * n, -1),
            batch.mask.reshape(-1),
            parameters,
            layers,
            inputs=_moments(batch),
        )
        # beta'f = h'(W f) + b'f: one vector a period in place of K loadings a row
        factors, last = batch.periods["x"] @ parameters["factor_weight"], depth(parameters)
        slopes = factors @ parameters[f"weight_{last}"].T
        fitted = jnp.einsum("hpn,ph->pn", hidden.reshape(-1, n_periods, n), slopes)
        fitted = fitted + (factors @ parameters[f"bias_{last}"])[:, None]
        error = (r - fitted) * batch.mask
        loss = jnp.vdot(error, error) / batch.mask.sum()
        if self.l1:
            weights = [value for name, value in parameters.items() if "weight" in name]
            loss = loss + self.l1 * sum(jnp.abs(weight).sum() for weight in weights)
        return loss, layers

    def errors(self, parameters: Any, layers: Any, batch: Batch) -> jax.Array:
        """(2,) squared error and sum of squares of the batch's rows."""
        r = batch.rows["r"] * batch.mask
        loadings = forward(batch.rows["z"], parameters, layers) * batch.mask[..., None]
        if self.projection:
            gram = jnp.einsum("bnk,bnj->bkj", loadings, loadings)
            k = gram.shape[-1]
            # the place that fills the last batch has no rows: its gram is zero, and so is its error
            size = jnp.trace(gram, axis1=1, axis2=2)[:, None, None] / k
            ridge = (_JITTER * size + (size == 0)) * jnp.eye(k, dtype=gram.dtype)
            cross = jnp.einsum("bnk,bn->bk", loadings, r)
            factors = jnp.linalg.solve(gram + ridge, cross[..., None])[..., 0]
        else:
            factors = batch.periods["x"] @ parameters["factor_weight"]
        error = r - jnp.einsum("bnk,bk->bn", loadings, factors)
        return jnp.stack([jnp.vdot(error, error), jnp.vdot(r, r)])


def _moments(batch: Batch) -> tuple[jax.Array, jax.Array] | None:
    """Mean (L,) and covariance (L, L) of the batch's characteristics from those sums of its periods."""
    if "squares" not in batch.periods:
        return None
    n = batch.mask.sum()
    mean = batch.periods["sums"].sum(axis=0) / n
    return mean, batch.periods["squares"].sum(axis=0) / n - jnp.outer(mean, mean)
