"""The policy around the primitive: epochs, validation, early stopping, checkpoints, ensembles, resume.

Members of an ensemble share data and batches and differ in their initial parameters. An epoch is one call of
the primitive; between epochs the host shuffles, looks at losses, and decides who goes on. A member that
stopped keeps its parameters and counts with them in later checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, TrainingError
from latentfactors.neural.batches import PeriodBatches, RowBatches, padded_order
from latentfactors.neural.config import TrainingConfig
from latentfactors.neural.primitive import (
    Ensemble,
    ErrorStep,
    GradientStep,
    Learner,
    ValidatedObjective,
    train,
)
from latentfactors.neural.snapshots import Snapshot, TrainingState
from latentfactors.neural.watching import EpochReport, current_watcher

__all__ = ["Trained", "Validation", "device_scope", "fit_members"]

FloatArray = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Trained:
    """What training found.

    Attributes
    ----------
    checkpoints : label -> snapshot, in training order; "best" comes first where there was validation. Epochs
        after all members stopped stand for the same snapshot
    state : where training stands
    converged, reason : whether the stopping rule fired, and what ended training, in words
    """

    checkpoints: Mapping[int | str, Snapshot]
    state: TrainingState
    converged: bool
    reason: str


@dataclass(frozen=True, eq=False)
class Validation:
    """Batches whose R2 decides, and their number of steps."""

    batches: PeriodBatches
    n_steps: int


@dataclass(eq=False)
class _Run:
    """What changes from epoch to epoch."""

    learner: Learner
    best: Any
    epoch: int
    best_score: FloatArray
    best_epoch: npt.NDArray[np.int64]
    stopped: npt.NDArray[np.bool_]
    history: dict[str, list[float]] = field(default_factory=dict)
    kept: dict[int | str, Snapshot] = field(default_factory=dict)


def device_scope(config: TrainingConfig) -> ExitStack:
    """A `with` block on the configured device, in full float32 products; JAX's own settings stay as they are.

    Raises
    ------
    ConfigurationError
        No such device, or JAX is told to use a platform that it does not have.
    """
    try:
        seen = [str(device) for device in jax.devices()]
    except (RuntimeError, AssertionError) as error:  # JAX asserts where a known platform finds no device
        told = getattr(jax.config, "jax_platforms", None)
        raise ConfigurationError(
            f"device={config.device!r} cannot be used, JAX starts on none of the platforms "
            f"{told!r} it is told to use: unset JAX_PLATFORMS, or install JAX for them"
        ) from error
    scope = ExitStack()
    scope.enter_context(jax.default_matmul_precision("float32"))
    if config.device != "auto":
        try:
            device = jax.devices(config.device)[0]
        except RuntimeError as error:
            raise ConfigurationError(
                f"device={config.device!r} is not there, JAX sees {seen}: use 'auto', or install JAX for "
                "this device"
            ) from error
        scope.enter_context(jax.default_device(device))
    return scope


def fit_members(
    objective: ValidatedObjective,
    start: Snapshot,
    data: PeriodBatches | RowBatches,
    n_steps: int,
    n_items: int,
    config: TrainingConfig,
    *,
    validation: Validation | None = None,
    resume: TrainingState | None = None,
    kept: Mapping[int | str, Snapshot] | None = None,
    digest: str = "",
) -> Trained:
    """Train all members; call it inside `device_scope`.

    Parameters
    ----------
    objective
        What is minimised.
    start
        Initial parameters (M, ...) and layer state (M, ...).
    data, n_steps, n_items
        Training batches, steps of an epoch, and periods (or rows) to shuffle.
    config
        Epochs and everything else.
    validation
        Held-out periods.
    resume, kept
        State and checkpoints of an interrupted training on the same data.
    digest
        Of the training data, stored for `resume`.

    Raises
    ------
    TrainingError
        A loss or gradient that is not finite: epoch, member and batch are named.
    """
    step = GradientStep(objective, config.optimiser_spec())
    ensemble = Ensemble(step, config.ensemble_axis)
    score = Ensemble(ErrorStep(objective), config.ensemble_axis)
    run = _begin(step, start, config) if resume is None else _continue(step, start, resume, kept or {})
    watcher, ended = current_watcher(), ""
    while run.epoch < config.epochs and not run.stopped.all():
        run.epoch += 1
        losses = _epoch(run, ensemble, data, n_steps, n_items, config)
        found = None if validation is None else _score(run, score, validation)
        _judge(run, config, losses, found)
        if run.epoch in config.kept_epochs():
            run.kept[run.epoch] = _snapshot(run.learner.parameters, run.learner.layers)
        report = EpochReport(
            epoch=run.epoch, epochs=config.epochs, loss=losses, validation=found, active=~run.stopped
        )
        if watcher is not None and watcher(report) and run.epoch < config.epochs:
            ended = f"stopped by the watcher at epoch {run.epoch} of {config.epochs}"
            break
    return _result(run, config, ended, digest, validated=validation is not None)


# ------------------------------------------------------------------------------------ the epochs


def _begin(step: GradientStep, start: Snapshot, config: TrainingConfig) -> _Run:
    n = config.n_ensemble
    return _Run(
        learner=_fresh(step, start),
        best=None,
        epoch=0,
        best_score=np.full(n, -np.inf),
        best_epoch=np.zeros(n, dtype=np.int64),
        stopped=np.zeros(n, dtype=bool),
    )


def _continue(
    step: GradientStep, start: Snapshot, state: TrainingState, kept: Mapping[int | str, Snapshot]
) -> _Run:
    best = None
    if state.best is not None:
        best = (_on_device(state.best.parameters), _on_device(state.best.layers))
    return _Run(
        learner=restored(_fresh(step, start), state.learner),
        best=best,
        epoch=state.epoch,
        best_score=np.array(state.best_score),
        best_epoch=np.array(state.best_epoch),
        stopped=np.array(state.stopped),
        history={name: list(path) for name, path in state.history.items()},
        kept={label: each for label, each in kept.items() if label != "best"},
    )


def _fresh(step: GradientStep, start: Snapshot) -> Learner:
    return jax.vmap(step.start)(_on_device(start.parameters), _on_device(start.layers))


def _epoch(
    run: _Run, step: Ensemble, data: Any, n_steps: int, n_items: int, config: TrainingConfig
) -> FloatArray:
    """(M,) mean losses of one pass in a new order."""
    order = np.random.default_rng([config.seed, 1, run.epoch]).permutation(n_items)
    nothing = -1 if isinstance(data, RowBatches) else int(data.starts.shape[0]) - 1
    shuffled = replace(data, order=padded_order(order, data.size, nothing))
    n_members = run.stopped.size
    rates = jnp.full(n_members, config.rate(run.epoch), dtype=jnp.float32)
    learner = run.learner._replace(active=jnp.asarray(~run.stopped), rate=rates)
    key = jax.random.fold_in(jax.random.key(config.seed), run.epoch)
    run.learner, report = train(learner, step, shuffled, n_steps, key)
    losses = np.asarray(report.loss, dtype=np.float64)
    bad = ~np.asarray(report.finite) & ~run.stopped
    if bad.any():
        batch, member = np.argwhere(bad)[0]
        raise TrainingError(
            f"the loss or its gradient is not finite in epoch {run.epoch}, member {member + 1} of "
            f"{n_members}, batch {batch + 1} of {n_steps} (loss {losses[batch, member]:g}): lower "
            f"learning_rate={config.learning_rate:g}, or set gradient_clip"
        )
    return losses.mean(axis=0)


def _score(run: _Run, step: Ensemble, validation: Validation) -> FloatArray:
    """(M,) validation R2 against zero."""
    sums = jnp.zeros((run.stopped.size, 2), dtype=jnp.float32)
    (_, sums), _ = train((run.learner, sums), step, validation.batches, validation.n_steps, jax.random.key(0))
    errors = np.asarray(sums, dtype=np.float64)
    with np.errstate(all="ignore"):
        found = 1.0 - errors[:, 0] / errors[:, 1]
    return np.where(np.isfinite(found), found, -np.inf)


def _judge(run: _Run, config: TrainingConfig, losses: FloatArray, found: FloatArray | None) -> None:
    """Keep what is better, stop who is out of patience, write the history."""
    run.history.setdefault("loss", []).append(float(losses.mean()))
    if found is None:
        return
    run.history.setdefault("validation_r2", []).append(float(found.mean()))
    bar = run.best_score + np.where(run.best_epoch > 0, config.min_delta, 0.0)
    better = ~run.stopped & (found > bar)
    if run.best is None:
        run.best = (run.learner.parameters, run.learner.layers)
    elif better.any():
        run.best = _choose(jnp.asarray(better), (run.learner.parameters, run.learner.layers), run.best)
    run.best_score = np.where(better, found, run.best_score)
    run.best_epoch = np.where(better, run.epoch, run.best_epoch)
    if config.patience is not None:
        run.stopped = run.stopped | (run.epoch - run.best_epoch >= config.patience)


@eqx.filter_jit
def _choose(which: jax.Array, new: Any, old: Any) -> Any:
    def pick(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(which.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, new, old)


def _result(run: _Run, config: TrainingConfig, ended: str, digest: str, *, validated: bool) -> Trained:
    last = _snapshot(run.learner.parameters, run.learner.layers)
    best = None if run.best is None else _snapshot(*run.best)
    checkpoints: dict[int | str, Snapshot] = {} if best is None else {"best": best}
    checkpoints |= {label: run.kept[label] for label in sorted(run.kept, key=int)}
    if run.stopped.all():
        # who stopped counts with its own last: labels are the same in every window of a walk-forward
        checkpoints |= {epoch: last for epoch in config.kept_epochs() if epoch >= run.epoch}
    else:
        checkpoints[run.epoch] = last
    state = TrainingState(
        epoch=run.epoch,
        learner=named(run.learner),
        best=best,
        best_score=run.best_score,
        best_epoch=run.best_epoch,
        stopped=run.stopped,
        history={name: tuple(path) for name, path in run.history.items()},
        data=digest,
    )
    if run.stopped.all():
        epochs = sorted(set(run.best_epoch.tolist()))
        reason = (
            f"no better validation R2 for {config.patience} epochs; best at "
            f"{'epoch' if len(epochs) == 1 else 'epochs'} {', '.join(map(str, epochs))}"
        )
    else:
        reason = ended or f"ran all {config.epochs} epochs" + " without a stopping rule" * (not validated)
    return Trained(checkpoints=checkpoints, state=state, converged=bool(run.stopped.all()), reason=reason)


# ------------------------------------------------------------------------------------ device and host


def named(tree: Any) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a pytree by the path of their leaf."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves if eqx.is_array(leaf)}


def restored(template: Any, arrays: Arrays) -> Any:
    """A pytree like the template with the arrays that `named` took out."""
    leaves, shape = jax.tree_util.tree_flatten_with_path(template)
    filled = [
        jnp.asarray(arrays[jax.tree_util.keystr(path)]) if eqx.is_array(leaf) else leaf
        for path, leaf in leaves
    ]
    return jax.tree_util.tree_unflatten(shape, filled)


def _on_device(arrays: Arrays) -> dict[str, jax.Array]:
    return {name: jnp.asarray(np.asarray(array, dtype=np.float32)) for name, array in arrays.items()}


def _snapshot(parameters: Any, layers: Any) -> Snapshot:
    """Host copies in float64; the float32 numbers come through exactly."""
    return Snapshot(
        parameters={name: np.array(array, dtype=np.float64) for name, array in parameters.items()},
        layers={name: np.array(array, dtype=np.float64) for name, array in layers.items()},
    )
