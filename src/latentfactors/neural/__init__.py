"""The engine of neural models: one training primitive, and the policy around it. Extra `deep`.

The engine
    config       `TrainingConfig`: epochs, batches, optimiser, validation, checkpoints, ensemble, device
    watching     `watch`: a callback that sees every epoch and may stop training
    batches      rows flat on the device, periods sliced by offset into buffers of a bucketed size
    primitive    `train(carry, step, data, n_steps, key)`: one compiled scan of a model's own step
    policy       epochs, validation, early stopping, checkpoints, ensembles, history, resume
Networks
    perceptron   [Linear, BatchNorm, ReLU] x layers, Linear
    attention    multi-head and induced-point attention
    conditional, factorisation, denoising
                 what the conditional autoencoder, NeurIF and the deep dynamic factor model minimise
    instrumented, autoencoder, code_network
                 the networks of the last two
A fitted model
    rows         a panel's observed rows, flat and standardised
    ensemble     trained members: weights, units, maps; `members` and `instrumented_members` are its kinds
    alignment    one latent space for the members
    network_model   what models of an ensemble share: checkpoints, resuming, copies

A fitted model is plain NumPy, float64: JAX, Equinox and Optax are imported when something is trained.
"""

from latentfactors.neural.config import TrainingConfig
from latentfactors.neural.watching import EpochReport, watch

__all__ = ["EpochReport", "TrainingConfig", "require_deep", "watch"]


def require_deep(who: str) -> None:
    """Refuse to train without the packages of the extra `deep`.

    Raises
    ------
    MissingCapabilityError
        JAX, Equinox or Optax is not installed; the message names the extra.
    """
    from importlib.util import find_spec

    from latentfactors.errors import MissingCapabilityError

    missing = [name for name in ("jax", "equinox", "optax") if find_spec(name) is None]
    if missing:
        raise MissingCapabilityError(
            f"{who} is trained with JAX, Equinox and Optax, and {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed: pip install 'latentfactors[deep]'"
        )
