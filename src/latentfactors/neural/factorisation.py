"""What the instrumented factorisation minimises, as a compiled step sees it."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from latentfactors.neural.batches import Batch
from latentfactors.neural.instrumented import (
    amortized_premia,
    embedded_premia,
    linear_loadings,
    network_loadings,
)
from latentfactors.neural.primitive import ValidatedObjective

__all__ = ["InstrumentedFactorisation"]

_TINY = 1e-6


class _Reading(NamedTuple):
    """What the network says about a batch.

    Loadings and what they are beyond the linear part, factors, premia and attention's part of them.
    """

    loadings: jax.Array
    bent: jax.Array
    factors: jax.Array
    premia: jax.Array
    attention: jax.Array
    seen: jax.Array


class InstrumentedFactorisation(ValidatedObjective):
    """w MSE(r, Lambda f^) + (1 - w) [MSE(r, Lambda f') + shrinkage MS(Lambda a)] + two penalties.

    Batches carry by row `z` (B, n, P), `r` and `seen` (B, n), and `position` where firms have one; by period
    `x` (B, Q) and, by the mode of the premia, `history` (B, window, Q) with `known` (B, window), or `month`::

        f^_t = (Lambda'M Lambda + rho I)^-1 Lambda'M r_t, rho = ridge tr(Lambda'M Lambda)/K
        a               attention's part of f': shrunk by 1/(1 + shrinkage) where the past says little
        orthogonality   mean over j != k of corr(f'_j, f'_k)^2 over the periods of the batch
        instruments     tr[(Lambda'Lambda)^-1 (Lambda - Z Gamma)'(Lambda - Z Gamma)]/K, pooled over the batch:
                        whitened, since (c Lambda, f/c) fits alike; or the same of f^ and its regression
                        X Theta on managed portfolios

    Validation errors are weighed by w as in training, or those of premia alone (`stopping="premia"`).
    """

    mode: str = eqx.field(static=True)
    realised_weight: float = eqx.field(static=True)
    orthogonality: float = eqx.field(static=True)
    instruments: float = eqx.field(static=True)
    instrument_penalty: str = eqx.field(static=True)
    shrinkage: float = eqx.field(static=True)
    ridge: float = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    stopping: str = eqx.field(static=True)

    def loss(self, parameters: Any, layers: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """The penalised loss of a batch; layers stay as they are."""
        read = self._read(parameters, layers, batch, key)
        loss = self.realised_weight * _mean_square(batch, read, read.factors)
        if self.realised_weight < 1.0:
            ex_ante = _mean_square(batch, read, read.premia)
            if self.shrinkage:
                moved = jnp.einsum("bnk,bk->bn", read.loadings, read.attention) * read.seen
                ex_ante = ex_ante + self.shrinkage * jnp.vdot(moved, moved) / read.seen.sum()
            loss = loss + (1.0 - self.realised_weight) * ex_ante
        there = (read.seen.sum(axis=1) > 0).astype(jnp.float32)
        if self.orthogonality and read.factors.shape[-1] > 1:
            what = read.factors if self.mode == "realized" else read.premia
            loss = loss + self.orthogonality * _mean_squared_correlation(what, there)
        if self.instruments:
            if self.instrument_penalty == "loadings":
                rows = (read.loadings * read.seen[..., None]).reshape(-1, read.loadings.shape[-1])
                rest = (read.bent * read.seen[..., None]).reshape(rows.shape)
            else:
                rows = read.factors * there[:, None]
                rest = rows - batch.periods["x"] @ parameters["theta"] * there[:, None]
            loss = loss + self.instruments * _whitened(rows, rest)
        return loss, layers

    def errors(self, parameters: Any, layers: Any, batch: Batch) -> jax.Array:
        """(2,) squared error and sum of squares of the batch's rows."""
        read = self._read(parameters, layers, batch, None)
        r = batch.rows["r"] * read.seen
        ways = ((self._weight, read.factors), (1.0 - self._weight, read.premia))
        total = jnp.zeros(())
        for weight, factors in ways:
            error = (r - jnp.einsum("bnk,bk->bn", read.loadings, factors)) * read.seen
            total = total + weight * jnp.vdot(error, error)
        return jnp.stack([total, jnp.vdot(r, r)])

    @property
    def _weight(self) -> float:
        return 0.0 if self.stopping == "premia" and self.mode != "realized" else self.realised_weight

    def _read(self, parameters: Any, layers: Any, batch: Batch, key: jax.Array | None) -> _Reading:
        z, seen = batch.rows["z"], batch.rows["seen"] * batch.mask
        bent = network_loadings(z, batch.mask, batch.rows.get("position"), parameters)
        loadings = linear_loadings(z, parameters) + bent
        factors = _projected(loadings, batch.rows["r"], seen, self.ridge)
        premia, attention = factors, jnp.zeros_like(factors)
        drop = _dropout(self.dropout, key)
        if self.mode == "amortized":
            premia, attention = amortized_premia(
                batch.periods["history"], batch.periods["known"], parameters, drop
            )
        elif self.mode == "embedding":
            every, part = embedded_premia(layers["is_month"], parameters, drop)
            mean = layers["is_month"] @ every / layers["is_month"].sum()
            month = batch.periods["month"].astype(jnp.int32)
            premia = jnp.where(month[:, None] >= 0, every[month], mean)
            attention = jnp.where(month[:, None] >= 0, part[month], 0.0)
        return _Reading(loadings, bent, factors, premia, attention, seen)


def _dropout(rate: float, key: jax.Array | None) -> Any:
    """Dropout whose every call takes a key of its own."""
    if key is None or rate == 0.0:
        return lambda h: h
    calls = iter(range(1 << 16))

    def drop(h: jax.Array) -> jax.Array:
        keep = jax.random.bernoulli(jax.random.fold_in(key, next(calls)), 1.0 - rate, h.shape)
        return h * keep / (1.0 - rate)

    return drop


def _mean_square(batch: Batch, read: _Reading, factors: jax.Array) -> jax.Array:
    error = (batch.rows["r"] - jnp.einsum("bnk,bk->bn", read.loadings, factors)) * read.seen
    return jnp.vdot(error, error) / read.seen.sum()


def _projected(loadings: jax.Array, r: jax.Array, seen: jax.Array, ridge: float) -> jax.Array:
    """(B, K) least squares of every period; a period without rows has factors of 0."""
    known = loadings * seen[..., None]
    gram = jnp.einsum("bnk,bnj->bkj", known, known)
    k = gram.shape[-1]
    size = jnp.trace(gram, axis1=1, axis2=2)[:, None, None] / k
    gram = gram + (max(ridge, _TINY) * size + (size == 0)) * jnp.eye(k, dtype=gram.dtype)
    cross = jnp.einsum("bnk,bn->bk", known, r)
    return jnp.linalg.solve(gram, cross[..., None])[..., 0]


def _mean_squared_correlation(factors: jax.Array, there: jax.Array) -> jax.Array:
    """Mean over j != k of corr^2 of the periods that are there."""
    n, k = there.sum(), factors.shape[-1]
    centred = (factors - there @ factors / n) * there[:, None]
    moment = centred.T @ centred / n
    variance = jnp.diagonal(moment)
    size = variance[:, None] * variance + _TINY * (variance.mean() ** 2 + _TINY)
    return (moment**2 / size * (1.0 - jnp.eye(k))).sum() / (k * (k - 1))


def _whitened(rows: jax.Array, rest: jax.Array) -> jax.Array:
    """tr[(rows'rows)^-1 rest'rest]/K."""
    gram = rows.T @ rows
    k = gram.shape[-1]
    gram = gram + (_TINY * jnp.trace(gram) / k + (jnp.trace(gram) == 0)) * jnp.eye(k)
    return jnp.trace(jnp.linalg.solve(gram, rest.T @ rest)) / k
