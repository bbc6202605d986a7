"""The training primitive: one compiled scan of a model's own step.

    train(carry, step, data, n_steps, key)        carry, report_i = step(carry, data.at(i), key_i)

The carry holds whatever the step changes: parameters, layer state such as batch-norm statistics, optimiser
state, side data. Outer loops (an EM around a network, two players in turns) are loops over this function. The
length of the scan is a bucket size and the steps beyond `n_steps` are skipped: more steps do not compile
anew.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from latentfactors.neural.batches import Batch, step_bucket
from latentfactors.neural.config import OptimiserSpec

__all__ = [
    "Data",
    "Ensemble",
    "GradientStep",
    "Learner",
    "Objective",
    "StepReport",
    "ValidatedObjective",
    "train",
]

Step = Callable[[Any, Any, jax.Array], tuple[Any, Any]]


class Data(Protocol):
    """Anything that has a batch for step i."""

    def at(self, i: jax.Array) -> Any:
        """The batch of step `i`, a traced whole number."""
        ...


def train(carry: Any, step: Step, data: Data, n_steps: int, key: jax.Array) -> tuple[Any, Any]:
    """Run `n_steps` steps in one compiled scan.

    Parameters
    ----------
    carry
        A pytree; its arrays change, everything else stays.
    step
        `step(carry, batch, key) -> (carry, report)`, an `equinox.Module` or a function defined once: an equal
        step with equal shapes is not compiled again.
    data
        A pytree with `at(i)`.
    n_steps
        At least 1.
    key
        Folded with i for every step.

    Returns
    -------
    carry
    reports : NumPy arrays with a leading axis of `n_steps`
    """
    steps = jnp.asarray(n_steps, dtype=jnp.int32)
    carry, reports = _scan(carry, step, data, steps, key, step_bucket(n_steps))
    # cut on the host: on the device every length would be a program of its own
    return carry, jax.tree.map(lambda leaf: leaf[:n_steps], jax.device_get(reports))


@eqx.filter_jit
def _scan(
    carry: Any, step: Step, data: Data, n_steps: jax.Array, key: jax.Array, length: int
) -> tuple[Any, Any]:
    arrays, rest = eqx.partition(carry, eqx.is_array)

    def one(arrays: Any, i: jax.Array) -> tuple[Any, Any]:
        new, report = step(eqx.combine(arrays, rest), data.at(i), jax.random.fold_in(key, i))
        return eqx.partition(new, eqx.is_array)[0], report

    shape = jax.eval_shape(one, arrays, jnp.int32(0))[1]
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)

    def body(arrays: Any, i: jax.Array) -> tuple[Any, Any]:
        return jax.lax.cond(i < n_steps, lambda a: one(a, i), lambda a: (a, nothing), arrays)

    arrays, reports = jax.lax.scan(body, arrays, jnp.arange(length, dtype=jnp.int32))
    return eqx.combine(arrays, rest), reports


# ------------------------------------------------------------------------------------ gradient steps


class Objective(eqx.Module):
    """What a model minimises. Subclasses hold static options only, so that equal ones compile once."""

    @abstractmethod
    def loss(self, parameters: Any, layers: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """The loss of a batch, and the new layer state."""
        ...


class ValidatedObjective(Objective):
    """An objective whose training is watched on data that it does not see."""

    @abstractmethod
    def errors(self, parameters: Any, layers: Any, batch: Batch) -> jax.Array:
        """(2,) squared error and sum of squares of a validation batch, with layers as they stand."""
        ...


class Learner(NamedTuple):
    """The carry of a gradient step; a stopped member keeps its parameters."""

    parameters: Any
    layers: Any
    optimiser: Any
    active: jax.Array
    rate: jax.Array


class StepReport(NamedTuple):
    """The loss of a step, and whether loss and gradient were finite."""

    loss: jax.Array
    finite: jax.Array


class GradientStep(eqx.Module):
    """One step of Adam (or AdamW) on an objective; nothing moves where the loss or gradient is not finite."""

    objective: Objective
    optimiser: OptimiserSpec = eqx.field(static=True)

    def start(self, parameters: Any, layers: Any) -> Learner:
        """The carry before the first step."""
        return Learner(
            parameters,
            layers,
            transformation(self.optimiser).init(eqx.filter(parameters, eqx.is_inexact_array)),
            jnp.asarray(True),
            jnp.asarray(0.0, dtype=jnp.float32),
        )

    def __call__(self, learner: Learner, batch: Batch, key: jax.Array) -> tuple[Learner, StepReport]:
        """Differentiate, move, report."""
        value = eqx.filter_value_and_grad(self.objective.loss, has_aux=True)
        (loss, layers), gradient = value(learner.parameters, learner.layers, batch, key)
        updates, optimiser = transformation(self.optimiser).update(
            gradient, learner.optimiser, eqx.filter(learner.parameters, eqx.is_inexact_array)
        )
        steps = jax.tree.map(lambda update: -learner.rate * update, updates)
        moved = eqx.apply_updates(learner.parameters, steps)
        finite = jnp.isfinite(loss) & _all_finite(gradient)
        keep = finite & learner.active
        former = (learner.parameters, learner.layers, learner.optimiser)
        chosen = jax.tree.map(
            lambda new, old: jnp.where(keep, new, old) if eqx.is_array(new) else new,
            (moved, layers, optimiser),
            former,
        )
        learner = Learner(chosen[0], chosen[1], chosen[2], learner.active, learner.rate)
        return learner, StepReport(loss, finite)


class ErrorStep(eqx.Module):
    """Adds up an objective's validation errors; the carry is (learner, sums (2,))."""

    objective: ValidatedObjective

    def __call__(
        self, carry: tuple[Learner, jax.Array], batch: Batch, key: jax.Array
    ) -> tuple[tuple[Learner, jax.Array], jax.Array]:
        """Add one batch."""
        learner, sums = carry
        sums = sums + self.objective.errors(learner.parameters, learner.layers, batch)
        return (learner, sums), jnp.zeros((), dtype=jnp.float32)


class Ensemble(eqx.Module):
    """A step of all members at once: the carry has a leading member axis, the batch is shared."""

    step: Any
    axis: str = eqx.field(static=True)

    def __call__(self, carry: Any, batch: Any, key: jax.Array) -> tuple[Any, Any]:
        """Side by side ("vmap") or one after another ("map")."""
        n_members = jax.tree.leaves(carry)[0].shape[0]
        keys = jax.random.split(key, n_members)
        if self.axis == "vmap":
            return jax.vmap(self.step, in_axes=(0, None, 0))(carry, batch, keys)
        return jax.lax.map(lambda each: self.step(each[0], batch, each[1]), (carry, keys))


def _all_finite(tree: Any) -> jax.Array:
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all()


def transformation(spec: OptimiserSpec) -> optax.GradientTransformation:
    """Adam's direction with clipping before and decay after it; the learning rate is applied outside."""
    parts = [] if spec.clip is None else [optax.clip_by_global_norm(spec.clip)]
    parts.append(optax.scale_by_adam())
    if spec.decay:
        parts.append(optax.add_decayed_weights(spec.decay))
    return optax.chain(*parts)
