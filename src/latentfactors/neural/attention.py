"""Attention and its surroundings as formulas that NumPy and JAX both read.

    attend      softmax(Q K'/sqrt(e)) V for every head, joined by an output map
    layer_norm  g (x - mean)/sd + b over the last axis
    sinusoids   PE(t, 2j) = sin(t/10^(4 2j/d)), PE(t, 2j+1) = cos(the same)

Weights are named arrays; heads can be read off their shapes. A masked key has a weight of exactly zero.
References: Vaswani et al. (2017), NeurIPS 30, eqs. (1) and section 3.5; Lee et al. (2019), ICML 97 (induced
points); Hendrycks & Gimpel (2016), arXiv:1606.08415 (GELU, the tanh form).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Weights",
    "attend",
    "feed_forward",
    "fresh_attention",
    "fresh_feed_forward",
    "fresh_layer",
    "fresh_norm",
    "fresh_weight",
    "gelu",
    "layer_norm",
    "read_rows",
    "sigmoid",
    "sinusoids",
    "tell_rows",
    "transformer_layer",
]

Weights = Mapping[str, Any]
Single = npt.NDArray[np.float32]
_HIDDEN = 1e9
_EPSILON = 1e-5


def gelu(x: Any) -> Any:
    """x Phi(x) in its tanh form."""
    return 0.5 * x * (1.0 + x.__array_namespace__().tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def sigmoid(x: Any) -> Any:
    """1/(1 + exp(-x)), through tanh so that it never overflows."""
    return 0.5 + 0.5 * x.__array_namespace__().tanh(0.5 * x)


def layer_norm(x: Any, weights: Weights, name: str) -> Any:
    """g (x - mean)/sd + b over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / (variance + _EPSILON) ** 0.5 * weights[f"{name}_gain"] + weights[f"{name}_bias"]


def sinusoids(position: Any, width: int) -> Any:
    """(..., width) encoding of positions (...): sines, then cosines, of width/2 frequencies."""
    xp = position.__array_namespace__()
    frequency = 10.0 ** (-4.0 * np.arange(width // 2) / (width // 2))
    angle = position[..., None] * frequency.astype(position.dtype)
    return xp.concatenate([xp.sin(angle), xp.cos(angle)], axis=-1)


def attend(x: Any, context: Any, mask: Any, weights: Weights, name: str) -> Any:
    """(..., a, d) answers of queries x (..., a, d) to a context (..., b, d).

    Parameters
    ----------
    mask : (..., b), 1 where a key exists
    weights : `name` + _query, _key, _value (heads, d, e), _out (heads, e, d)
    """
    heads, width, size = weights[f"{name}_query"].shape

    def split(rows: Any, part: str) -> Any:
        flat = weights[f"{name}_{part}"].swapaxes(0, 1).reshape(width, heads * size)
        return (rows @ flat).reshape(*rows.shape[:-1], heads, size).swapaxes(-2, -3)

    query, key, value = split(x, "query"), split(context, "key"), split(context, "value")
    scores = (query @ key.swapaxes(-1, -2)) * size**-0.5
    scores = scores + (_HIDDEN * (mask - 1.0))[..., None, None, :]
    joined = (_softmax(scores, -1) @ value).swapaxes(-2, -3)
    joined = joined.reshape(*joined.shape[:-2], heads * size)
    return joined @ weights[f"{name}_out"].reshape(heads * size, width)


def read_rows(points: Any, rows: Any, mask: Any, weights: Weights, name: str) -> Any:
    """`attend(points, rows, mask, ...)` for few points (m, d) and many rows (..., n, d), 2x faster.

    Queries and keys are joined first, q_j'K_i = (W_k q_j)'h_i, and values last: the rows are read by plain
    products, none of which splits heads.
    """
    heads, width, size = weights[f"{name}_query"].shape
    query = points @ weights[f"{name}_query"]  # (heads, m, e)
    joint = (query @ weights[f"{name}_key"].swapaxes(-1, -2)) * size**-0.5
    scores = joint.reshape(-1, width) @ rows.swapaxes(-1, -2)
    met = _softmax(scores + (_HIDDEN * (mask - 1.0))[..., None, :], -1) @ rows  # (..., heads m, d)
    met = met.reshape(*met.shape[:-2], heads, -1, width)
    values = met @ weights[f"{name}_value"] @ weights[f"{name}_out"]
    return values.sum(axis=-3)


def tell_rows(rows: Any, points: Any, weights: Weights, name: str) -> Any:
    """`attend(rows, points, 1, ...)` for many rows (..., n, d) and few points (..., m, d), alike."""
    heads, width, size = weights[f"{name}_query"].shape
    each = points[..., None, :, :]
    key = each @ weights[f"{name}_key"]  # (..., heads, m, e)
    joint = (key @ weights[f"{name}_query"].swapaxes(-1, -2)) * size**-0.5
    m = joint.shape[-2]
    scores = rows @ joint.reshape(*joint.shape[:-3], heads * m, width).swapaxes(-1, -2)
    share = _softmax(scores.reshape(*scores.shape[:-1], heads, m), -1).reshape(scores.shape)
    values = each @ weights[f"{name}_value"] @ weights[f"{name}_out"]
    return share @ values.reshape(*values.shape[:-3], heads * m, width)


def _softmax(scores: Any, axis: int) -> Any:
    share = scores.__array_namespace__().exp(scores - scores.max(axis=axis, keepdims=True))
    return share / share.sum(axis=axis, keepdims=True)


def feed_forward(x: Any, weights: Weights, name: str) -> Any:
    """gelu(x W_1 + b_1) W_2 + b_2."""
    h = gelu(x @ weights[f"{name}_in"] + weights[f"{name}_in_bias"])
    return h @ weights[f"{name}_back"] + weights[f"{name}_back_bias"]


def transformer_layer(
    h: Any, context: Any, mask: Any, weights: Weights, name: str, drop: Callable[[Any], Any]
) -> Any:
    """H <- LN(H + MHA(H, context)), H <- LN(H + FFN(H)); `drop` is dropout, or nothing."""
    h = layer_norm(h + drop(attend(h, context, mask, weights, f"{name}_heads")), weights, f"{name}_norm")
    return layer_norm(h + drop(feed_forward(h, weights, f"{name}_feed")), weights, f"{name}_last")


# ------------------------------------------------------------------------------------ initial weights


def fresh_weight(rng: np.random.Generator, *shape: int, n_in: int | None = None) -> Single:
    """Normal with variance 1/n_in, which keeps the size of what passes through."""
    n = shape[-2] if n_in is None else n_in
    return (rng.normal(size=shape) / np.sqrt(n)).astype(np.float32)


def fresh_attention(rng: np.random.Generator, name: str, width: int, heads: int) -> dict[str, Single]:
    """Weights of `attend`."""
    parts = {
        f"{name}_{part}": fresh_weight(rng, heads, width, width // heads)
        for part in ("query", "key", "value")
    }
    return parts | {f"{name}_out": fresh_weight(rng, heads, width // heads, width, n_in=width)}


def fresh_feed_forward(rng: np.random.Generator, name: str, width: int, inner: int) -> dict[str, Single]:
    """Weights of `feed_forward`."""
    return {
        f"{name}_in": fresh_weight(rng, width, inner),
        f"{name}_in_bias": np.zeros(inner, dtype=np.float32),
        f"{name}_back": fresh_weight(rng, inner, width),
        f"{name}_back_bias": np.zeros(width, dtype=np.float32),
    }


def fresh_norm(name: str, width: int) -> dict[str, Single]:
    """Weights of `layer_norm`."""
    return {
        f"{name}_gain": np.ones(width, dtype=np.float32),
        f"{name}_bias": np.zeros(width, dtype=np.float32),
    }


def fresh_layer(rng: np.random.Generator, name: str, width: int, heads: int) -> dict[str, Single]:
    """Weights of `transformer_layer`, with a feed-forward part four times as wide."""
    return {
        **fresh_attention(rng, f"{name}_heads", width, heads),
        **fresh_norm(f"{name}_norm", width),
        **fresh_feed_forward(rng, f"{name}_feed", width, 4 * width),
        **fresh_norm(f"{name}_last", width),
    }
