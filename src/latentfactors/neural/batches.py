"""Minibatches of a ragged panel for a compiled program that does not know the panel's size.

Rows stay flat on the device. A step cuts B periods out of them, each from its offset, into a buffer of a
fixed capacity, and a mask says which rows of the buffer belong to the period:

    rows (R, ...)  --starts, counts-->  (B, capacity, ...) and mask (B, capacity)

Every size is rounded up to one of few bucket sizes, so a longer window runs through the program that is
already compiled; padding the whole panel to (T, capacity) would take several times the memory of the rows.
Batches of rows have the same form with capacity 1: every row is then a period of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

# small panels share one program
_FEWEST_PERIODS, _FEWEST_ROWS = 128, 1 << 13

__all__ = ["Batch", "PeriodBatches", "RowBatches", "bucket", "period_batches", "row_batches", "step_bucket"]


class Batch(NamedTuple):
    """What a step sees: named row arrays (B, capacity, ...), period arrays (B, ...), mask (B, capacity)."""

    rows: dict[str, jax.Array]
    periods: dict[str, jax.Array]
    mask: jax.Array


def bucket(n: int, per_octave: int = 8, least: int = 8) -> int:
    """The smallest size >= n of the form 2^j (1 + i/per_octave), and at least `least`.

    >>> [bucket(n) for n in (1, 17, 700, 1000)], bucket(1000, per_octave=2), bucket(1, least=64)
    ([8, 18, 704, 1024], 1024, 64)
    """
    n = max(n, least)
    step = 1 << max(int(n - 1).bit_length() - 1 - (per_octave.bit_length() - 1), 0)
    return -(-n // step) * step


def step_bucket(n_steps: int) -> int:
    """Length of the scan: a power of 2, since a step that is skipped costs next to nothing."""
    return bucket(n_steps, per_octave=1, least=64)


class PeriodBatches(eqx.Module):
    """Steps of `size` periods each, in the order of `order`; built by `period_batches`."""

    rows: dict[str, jax.Array]
    periods: dict[str, jax.Array]
    starts: jax.Array
    counts: jax.Array
    order: jax.Array
    size: int = eqx.field(static=True)
    capacity: int = eqx.field(static=True)

    def at(self, i: jax.Array) -> Batch:
        """The batch of step `i`."""
        chosen = jax.lax.dynamic_slice(self.order, (i * self.size,), (self.size,))
        starts = self.starts[chosen]

        def cut(array: jax.Array) -> jax.Array:
            return jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(array, start, self.capacity))(starts)

        mask = jnp.arange(self.capacity) < self.counts[chosen][:, None]
        return Batch(
            {name: cut(array) for name, array in self.rows.items()},
            {name: array[chosen] for name, array in self.periods.items()},
            mask.astype(jnp.float32),
        )


class RowBatches(eqx.Module):
    """Steps of `size` rows each, in the order of `order`; built by `row_batches`."""

    rows: dict[str, jax.Array]
    periods: dict[str, jax.Array]
    codes: jax.Array
    order: jax.Array
    size: int = eqx.field(static=True)

    def at(self, i: jax.Array) -> Batch:
        """The batch of step `i`; an order of -1 is an empty place."""
        chosen = jax.lax.dynamic_slice(self.order, (i * self.size,), (self.size,))
        codes = self.codes[chosen]
        return Batch(
            {name: array[chosen][:, None] for name, array in self.rows.items()},
            {name: array[codes] for name, array in self.periods.items()},
            (chosen >= 0).astype(jnp.float32)[:, None],
        )


def period_batches(
    rows: Mapping[str, npt.NDArray[np.float32]],
    periods: Mapping[str, npt.NDArray[np.float32]],
    offsets: npt.NDArray[np.int64],
    size: int,
    capacity: int | None = None,
) -> tuple[PeriodBatches, int]:
    """Flat rows on the device, cut by period.

    Parameters
    ----------
    rows : name -> (R, ...) float32
    periods : name -> (T, ...) float32
    offsets : (T + 1,)
    size : periods of a step
    capacity : rows of the buffer; None takes the bucket of the largest period

    Returns
    -------
    The batches in order of time, and the number of steps.
    """
    counts = np.diff(offsets)
    n_periods = counts.size
    size = min(size, n_periods)
    if capacity is None:
        capacity = bucket(int(counts.max()), least=32)
    # one more period, without rows, fills the last batch
    slots = bucket(n_periods + 1, per_octave=1, least=_FEWEST_PERIODS)
    filled = {name: _padded(array, slots) for name, array in periods.items()}
    total = bucket(int(offsets[-1]) + capacity, per_octave=2, least=_FEWEST_ROWS)
    batches = PeriodBatches(
        rows={name: _padded(array, total) for name, array in rows.items()},
        periods=filled,
        starts=_padded(offsets[:-1].astype(np.int32), slots),
        counts=_padded(counts.astype(np.int32), slots),
        order=padded_order(np.arange(n_periods), size, slots - 1),
        size=size,
        capacity=capacity,
    )
    return batches, -(-n_periods // size)


def row_batches(
    rows: Mapping[str, npt.NDArray[np.float32]],
    periods: Mapping[str, npt.NDArray[np.float32]],
    offsets: npt.NDArray[np.int64],
    size: int,
) -> tuple[RowBatches, int]:
    """Flat rows on the device, picked one by one; parameters as in `period_batches`, size in rows."""
    n_rows, n_periods = int(offsets[-1]), offsets.size - 1
    size = min(size, n_rows)
    codes = np.repeat(np.arange(n_periods, dtype=np.int32), np.diff(offsets))
    slots = bucket(n_periods + 1, per_octave=1, least=_FEWEST_PERIODS)
    total = bucket(n_rows + 1, per_octave=2, least=_FEWEST_ROWS)
    batches = RowBatches(
        rows={name: _padded(array, total) for name, array in rows.items()},
        periods={name: _padded(array, slots) for name, array in periods.items()},
        codes=_padded(codes, total),
        order=padded_order(np.arange(n_rows), size, -1),
        size=size,
    )
    return batches, -(-n_rows // size)


def padded_order(order: npt.NDArray[np.integer], size: int, nothing: int) -> jax.Array:
    """An order as int32, filled up with `nothing` to whole steps of a bucketed number."""
    steps = step_bucket(-(-order.size // size))
    out = np.full(steps * size, nothing, dtype=np.int32)
    out[: order.size] = order
    return jnp.asarray(out)


def _padded(array: npt.NDArray[np.generic], length: int) -> jax.Array:
    out = np.zeros((length, *array.shape[1:]), dtype=array.dtype)
    out[: len(array)] = array
    return jnp.asarray(out)
