"""The network of `neural.perceptron` with the moments of the batch: the reading that trains.

Batch norm over rows i with weights w_i that add up to 1, and its backward pass written out::

    m = sum_i w_i u_i    v = sum_i w_i (u_i - m)^2    x_i = (u_i - m)/sqrt(v + eps)    h_i = a(g x_i + b)
    d_i = a'(.) dh_i     du_i = g/sqrt(v + eps) (d_i - w_i [sum_j d_j + x_i sum_j x_j d_j])

Where the inputs' own mean and covariance C are known, those of u = z W are m'W and diag(W'C W), and the first
layer is one product.

Automatic differentiation finds the same and passes over the arrays more often, which beside the products is
what a step costs on a CPU. Units come first, so that sums over rows run along memory; as products with a
vector they are faster still.

References: Ioffe & Szegedy (2015), Batch normalization, ICML, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from latentfactors.neural.perceptron import EPSILON, Activation, activate, depth

__all__ = ["batch_forward", "batch_hidden", "normalised"]

_MOMENTUM = 0.1


def batch_forward(
    z: jax.Array,
    mask: jax.Array,
    parameters: Mapping[str, Any],
    layers: Mapping[str, Any],
    activation: Activation = "relu",
) -> tuple[jax.Array, dict[str, Any]]:
    """(K, n) outputs for inputs (n, L) with the moments of the rows in the mask (n,), and new moments."""
    h, new = batch_hidden(z, mask, parameters, layers, activation)
    last = depth(parameters)
    return parameters[f"weight_{last}"].T @ h + parameters[f"bias_{last}"][:, None], new


def batch_hidden(
    z: jax.Array,
    mask: jax.Array,
    parameters: Mapping[str, Any],
    layers: Mapping[str, Any],
    activation: Activation = "relu",
    inputs: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, dict[str, Any]]:
    """(H, n) what the last layer reads, and new moments; the inputs (L, n) where no layer is hidden.

    `inputs` are mean (L,) and covariance (L, L) of the inputs in the mask, where they are known already.
    """
    share = mask / mask.sum()
    h, new = z.T, dict(layers)
    if "seen" in layers:
        new["seen"] = (1.0 - _MOMENTUM) * layers["seen"] + _MOMENTUM
    for j in range(depth(parameters)):
        weight, bias = parameters[f"weight_{j}"], parameters[f"bias_{j}"]
        if f"gain_{j}" not in parameters:
            h = activate(weight.T @ h + bias[:, None], activation)
            continue
        gain = parameters[f"gain_{j}"]
        if j == 0 and inputs is not None:
            # rounding may leave the variance of a unit that hardly moves below 0
            mean, variance = inputs[0] @ weight, ((inputs[1] @ weight) * weight).sum(axis=0)
            variance = jnp.maximum(variance, 0.0)
            scale = gain * (variance + EPSILON) ** -0.5
            h = activate((weight * scale).T @ h + (bias - mean * scale)[:, None], activation)
        else:
            h, mean, variance = normalised(weight.T @ h, gain, bias, share, activation)
        new[f"mean_{j}"] = (1.0 - _MOMENTUM) * layers[f"mean_{j}"] + _MOMENTUM * mean
        new[f"variance_{j}"] = (1.0 - _MOMENTUM) * layers[f"variance_{j}"] + _MOMENTUM * variance
    return h, new


def _normalised(
    u: jax.Array, gain: jax.Array, bias: jax.Array, share: jax.Array, activation: Activation
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """h (H, n), m and v (H,) of u (H, n); m and v are for keeping, no gradient runs through them."""
    return _forward(u, gain, bias, share, activation)[0]


def _forward(
    u: jax.Array, gain: jax.Array, bias: jax.Array, share: jax.Array, activation: Activation
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    mean = u @ share
    centred = u - mean[:, None]
    variance = (centred * centred) @ share
    scale = (variance + EPSILON) ** -0.5
    h = activate(centred * (gain * scale)[:, None] + bias[:, None], activation)
    return (h, mean, variance), (u, mean, scale, gain, h, share)


def _backward(
    activation: Activation, kept: tuple[jax.Array, ...], gradient: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, ...]:
    u, mean, scale, gain, h, share = kept
    d = gradient[0] * ((h > 0) if activation == "relu" else (1.0 - h * h))
    x = (u - mean[:, None]) * scale[:, None]
    ones = jnp.ones_like(share)
    d_bias, d_gain = d @ ones, (d * x) @ ones
    d_u = (gain * scale)[:, None] * (d - share * (d_bias[:, None] + x * d_gain[:, None]))
    return d_u, d_gain, d_bias, jnp.zeros_like(share)


normalised = jax.custom_vjp(_normalised, nondiff_argnums=(4,))
normalised.defvjp(_forward, _backward)
