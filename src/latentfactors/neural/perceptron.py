"""The network [Linear, BatchNorm, ReLU] x hidden layers, then Linear.

    u_j = h_(j-1) W_j        h_j = max(g_j (u_j - mean_j)/sqrt(var_j + eps) + b_j, 0)        out = h_J W + b

`forward` reads it with the running moments of training, on NumPy arrays in float64 or on the device;
`neural.batch_norm` with the moments of a batch, which trains. Without batch norm u_j is used as it is, and
tanh may stand in place of max(., 0). Parameters are named arrays: weight_j, gain_j, bias_j, and
weight_J, bias_J of the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "EPSILON",
    "Activation",
    "activate",
    "depth",
    "fresh_layers",
    "fresh_members",
    "fresh_parameters",
    "forward",
]

Activation = Literal["relu", "tanh"]

EPSILON = 1e-5


def fresh_parameters(
    rng: np.random.Generator, sizes: tuple[int, ...], batch_norm: bool
) -> dict[str, npt.NDArray[np.float32]]:
    """Initial weights of a network with layer sizes (inputs, hidden..., outputs): He, then Glorot."""
    parameters: dict[str, npt.NDArray[np.float32]] = {}
    last = len(sizes) - 2
    for j, (n_in, n_out) in enumerate(pairwise(sizes)):
        deviation = np.sqrt(2.0 / n_in if j < last else 2.0 / (n_in + n_out))
        parameters[f"weight_{j}"] = (deviation * rng.normal(size=(n_in, n_out))).astype(np.float32)
        parameters[f"bias_{j}"] = np.zeros(n_out, dtype=np.float32)
        if j < last and batch_norm:
            parameters[f"gain_{j}"] = np.ones(n_out, dtype=np.float32)
    return parameters


def fresh_layers(sizes: tuple[int, ...], batch_norm: bool) -> dict[str, npt.NDArray[np.float32]]:
    """Running moments before any batch; `seen` is the weight of the batches so far."""
    layers: dict[str, npt.NDArray[np.float32]] = {}
    if batch_norm and len(sizes) > 2:
        layers["seen"] = np.zeros((), dtype=np.float32)
        for j, n_out in enumerate(sizes[1:-1]):
            layers[f"mean_{j}"] = np.zeros(n_out, dtype=np.float32)
            layers[f"variance_{j}"] = np.zeros(n_out, dtype=np.float32)
    return layers


def fresh_members(
    sizes: tuple[int, ...], n_inputs: int, batch_norm: bool, n_members: int, seed: int
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, npt.NDArray[np.float32]]]:
    """Parameters and layers (M, ...) of M networks with a linear factor network (n_inputs, K) beside each.

    Member m's numbers depend on the seed and on m only.
    """
    members, n_factors = [], sizes[-1]
    for m in range(n_members):
        rng = np.random.default_rng([seed, 0, m])
        parameters = fresh_parameters(rng, sizes, batch_norm)
        weight = rng.normal(size=(n_inputs, n_factors)) / np.sqrt(n_inputs)
        members.append(parameters | {"factor_weight": weight.astype(np.float32)})
    layers = fresh_layers(sizes, batch_norm)
    return (
        {name: np.stack([each[name] for each in members]) for name in members[0]},
        {name: np.stack([array] * n_members) for name, array in layers.items()},
    )


def depth(parameters: Mapping[str, Any]) -> int:
    """Number of hidden layers."""
    return sum(name.startswith("weight_") for name in parameters) - 1


def activate(h: Any, activation: Activation) -> Any:
    """max(h, 0) or tanh(h) of NumPy or JAX arrays."""
    if activation == "tanh":
        return h.__array_namespace__().tanh(h)
    # to JAX the derivative of a maximum is 1/2 where both are equal, here it has to be 0
    return np.maximum(h, 0.0) if isinstance(h, np.ndarray) else h * (h > 0)


def forward(
    z: Any, parameters: Mapping[str, Any], layers: Mapping[str, Any], activation: Activation = "relu"
) -> Any:
    """(..., n, K) outputs for inputs (..., n, L) with the moments of training.

    Batch norm is folded into the weights, so a layer costs one product.
    """
    h, last = z, depth(parameters)
    for j in range(last):
        weight, bias = parameters[f"weight_{j}"], parameters[f"bias_{j}"]
        if f"gain_{j}" in parameters:
            seen = layers["seen"][..., None]
            k = parameters[f"gain_{j}"] / (layers[f"variance_{j}"] / seen + EPSILON) ** 0.5
            weight, bias = weight * k[..., None, :], bias - layers[f"mean_{j}"] / seen * k
        h = activate(_product(h, weight) + bias[..., None, :], activation)
    return _product(h, parameters[f"weight_{last}"]) + parameters[f"bias_{last}"][..., None, :]


def _product(h: Any, weight: Any) -> Any:
    """h W; inputs that all members share go through one product."""
    if h.ndim > 2 or weight.ndim < 3:
        return h @ weight
    n_members, n_in, n_out = weight.shape
    joined = h @ weight.transpose(1, 0, 2).reshape(n_in, n_members * n_out)
    return joined.reshape(len(h), n_members, n_out).transpose(1, 0, 2)
