"""Loadings from characteristics by two attentions, and premia from the past by a third, as formulas.

Loadings of the rows z_i of one period (NumPy or JAX, leading axes allowed):

    gate      a_i = sigmoid(conv(gelu(conv(z_i)))) in (0, 1)^P along the features, or squeeze-and-excitation
    inside    h_i = W_e (a_i o z_i) + b_e, plus the sinusoids of a position where firms have one
    across    H <- H + MHA(H, I'), I' = LN(I + MHA(I, H)): m induced points read the period's rows and every
              row reads the points, O(N m); or H <- H + MHA(H, H), O(N^2)
    stack     h <- h + FFN(h), twice
    out       Lambda_i = W_L h_i + Gamma'(z_i, 1)

Premia from the past months' managed portfolios x_s = Z_s'(M_s o r_s)/n_s:

    tokens    E_s = W_x x_s + b_x + sinusoids of the lag
    queries   K learned tokens, four layers Q <- LN(Q + MHA(Q, [Q, E])), Q <- LN(Q + FFN(Q))
    out       f'_k = w_k'Q_k/d + c_k + (Phi'R'x_(t-1))_k; 1/d lets premia learn slowly, their signal is weak

With W_L = 0 the loadings are IPCA's; with w = 0 the premia are a VAR(1) of portfolios. Which parts there are
is read off the names of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.neural.attention import (
    Weights,
    attend,
    feed_forward,
    fresh_attention,
    fresh_feed_forward,
    fresh_layer,
    fresh_norm,
    fresh_weight,
    gelu,
    layer_norm,
    read_rows,
    sigmoid,
    sinusoids,
    tell_rows,
    transformer_layer,
)

__all__ = [
    "amortized_premia",
    "channel_gate",
    "embedded_premia",
    "fresh_embedding",
    "fresh_loadings",
    "fresh_premia",
    "linear_loadings",
    "network_loadings",
]

Single = npt.NDArray[np.float32]
_REACH = 1  # features on either side that a convolution sees
_FILTERS = 4
_SQUEEZE = 4


def linear_loadings(z: Any, weights: Weights) -> Any:
    """(..., n, K) Gamma'(z, 1) of characteristics (..., n, P)."""
    gamma = weights["gamma"]
    return z @ gamma[:-1] + gamma[-1]


def network_loadings(z: Any, mask: Any, position: Any, weights: Weights) -> Any:
    """(..., n, K) W_L h, what the loadings are beyond `linear_loadings`.

    Parameters
    ----------
    z : (..., n, P)
    mask : (..., n), 1 for rows of the period: no row attends to another
    position : (..., n), or None where firms have none
    """
    h = channel_gate(z, weights) * z @ weights["embed"] + weights["embed_bias"]
    if position is not None:
        h = h + sinusoids(position, h.shape[-1])
    if "points" in weights:
        points = weights["points"]
        points = layer_norm(points + read_rows(points, h, mask, weights, "read"), weights, "read_norm")
        h = h + tell_rows(h, points, weights, "tell")
    elif "across_query" in weights:
        h = h + attend(h, h, mask, weights, "across")
    for j in range(_count(weights, "stack_{}_in")):
        h = h + feed_forward(h, weights, f"stack_{j}")
    return h @ weights["loading"]


def channel_gate(z: Any, weights: Weights) -> Any:
    """(..., P) a in (0, 1), or 1 without a gate; a convolution reads features in their order."""
    if "gate_in" in weights:
        h = gelu(_windows(z) @ weights["gate_in"] + weights["gate_in_bias"])
        out = h @ weights["gate_out"]  # (..., P, width): each feature's part in its neighbours' gates
        ends = [out[..., k] for k in range(out.shape[-1])]
        moved = sum(_shift(each, k - _REACH) for k, each in enumerate(ends))
        return sigmoid(moved + weights["gate_out_bias"])
    if "squeeze_in" in weights:
        return sigmoid(feed_forward(z, weights, "squeeze"))
    return 1.0


def _windows(z: Any) -> Any:
    """(..., P, 2 reach + 1) every feature with its neighbours, zeros beyond the ends."""
    return z.__array_namespace__().stack([_shift(z, k) for k in range(-_REACH, _REACH + 1)], axis=-1)


def _shift(z: Any, k: int) -> Any:
    """Feature j + k in the place of j, zero beyond the ends."""
    if k == 0:
        return z
    xp, still = z.__array_namespace__(), z[..., : abs(k)] * 0.0
    return xp.concatenate([z[..., k:], still] if k > 0 else [still, z[..., :k]], axis=-1)


def amortized_premia(
    history: Any, seen: Any, weights: Weights, drop: Callable[[Any], Any] = lambda h: h
) -> tuple[Any, Any]:
    """(..., K) premia of periods from the portfolios of the months before, and attention's part of them.

    Parameters
    ----------
    history : (..., window, Q), the month before the period last, zeros where there is none
    seen : (..., window), 1 where a month has portfolios
    drop : dropout
    """
    window = history.shape[-2]
    lag = np.arange(window, 0, -1).astype(weights["read_history"].dtype)
    premia = weights["premium"] + (history[..., -1, :] @ weights["portfolio"]) @ weights["carry"]
    n_layers = _count(weights, "time_{}_heads_query")
    if n_layers == 0:
        return premia, premia * 0.0
    tokens = history @ weights["read_history"] + weights["read_history_bias"]
    tokens = tokens + sinusoids(history.__array_namespace__().asarray(lag), tokens.shape[-1])
    xp = tokens.__array_namespace__()
    h = xp.broadcast_to(weights["queries"], (*history.shape[:-2], *weights["queries"].shape))
    mask = xp.concatenate([h[..., 0] * 0.0 + 1.0, seen], axis=-1)
    for j in range(n_layers):
        context = xp.concatenate([h, tokens], axis=-2)
        h = transformer_layer(h, context, mask, weights, f"time_{j}", drop)
    attention = (h * weights["answer"]).mean(axis=-1)
    return premia + attention, attention


def embedded_premia(mask: Any, weights: Weights, drop: Callable[[Any], Any] = lambda h: h) -> tuple[Any, Any]:
    """(slots, K) premia of training months, each from an embedding that sees all others; attention's part.

    `mask` (slots,) is 1 where a slot is a month.
    """
    xp = mask.__array_namespace__()
    month = xp.asarray(np.arange(mask.shape[-1]).astype(weights["months"].dtype))
    h = weights["months"] + sinusoids(month, weights["months"].shape[-1])
    for j in range(_count(weights, "time_{}_heads_query")):
        h = transformer_layer(h, h, mask, weights, f"time_{j}", drop)
    attention = h @ weights["answer"].T / h.shape[-1]
    return weights["premium"] + attention, attention


def _count(weights: Weights, pattern: str) -> int:
    j = 0
    while pattern.format(j) in weights:
        j += 1
    return j


# ------------------------------------------------------------------------------------ initial weights


def fresh_loadings(
    rng: np.random.Generator,
    gamma: npt.NDArray[np.float64],
    *,
    width: int,
    heads: int,
    channel: str | None,
    spatial: str | None,
    points: int,
    blocks: int,
) -> dict[str, Single]:
    """Weights of the loadings: Gamma (P + 1, K) is given, and the network says nothing yet (W_L = 0)."""
    P, K = gamma.shape[0] - 1, gamma.shape[1]
    weights = {
        "gamma": gamma.astype(np.float32),
        "embed": fresh_weight(rng, P, width),
        "embed_bias": np.zeros(width, dtype=np.float32),
        "loading": np.zeros((width, K), dtype=np.float32),
    }
    if channel == "conv":
        reach = 2 * _REACH + 1
        weights["gate_in"] = fresh_weight(rng, reach, _FILTERS)
        weights["gate_in_bias"] = np.zeros(_FILTERS, dtype=np.float32)
        weights["gate_out"] = fresh_weight(rng, _FILTERS, reach, n_in=_FILTERS * reach)
        weights["gate_out_bias"] = np.zeros((), dtype=np.float32)
    elif channel == "se":
        inner = max(P // _SQUEEZE, 2)
        weights["squeeze_in"] = fresh_weight(rng, P, inner)
        weights["squeeze_in_bias"] = np.zeros(inner, dtype=np.float32)
        weights["squeeze_back"] = fresh_weight(rng, inner, P)
        weights["squeeze_back_bias"] = np.zeros(P, dtype=np.float32)
    if spatial == "induced":
        weights["points"] = fresh_weight(rng, points, width, n_in=1)
        weights |= fresh_attention(rng, "read", width, heads) | fresh_norm("read_norm", width)
        weights |= fresh_attention(rng, "tell", width, heads)
    elif spatial == "full":
        weights |= fresh_attention(rng, "across", width, heads)
    for j in range(blocks):
        weights |= fresh_feed_forward(rng, f"stack_{j}", width, width)
    return weights


def fresh_premia(
    rng: np.random.Generator,
    portfolio: npt.NDArray[np.float64],
    premium: npt.NDArray[np.float64],
    carry: npt.NDArray[np.float64],
    *,
    width: int,
    heads: int,
    layers: int,
) -> dict[str, Single]:
    """Weights of `amortized_premia`: R (Q, K), c (K,), Phi (K, K) are given, attention says nothing yet."""
    Q, K = portfolio.shape
    return {
        "premium": premium.astype(np.float32),
        "portfolio": portfolio.astype(np.float32),
        "carry": carry.astype(np.float32),
        "read_history": fresh_weight(rng, Q, width),
        "read_history_bias": np.zeros(width, dtype=np.float32),
        "queries": fresh_weight(rng, K, width, n_in=1),
        "answer": np.zeros((K, width), dtype=np.float32),
        **_layers(rng, width, heads, layers),
    }


def fresh_embedding(
    rng: np.random.Generator,
    slots: int,
    premium: npt.NDArray[np.float64],
    *,
    width: int,
    heads: int,
    layers: int,
) -> dict[str, Single]:
    """Weights of `embedded_premia`."""
    return {
        "premium": premium.astype(np.float32),
        "months": fresh_weight(rng, slots, width, n_in=1),
        "answer": np.zeros((premium.size, width), dtype=np.float32),
        **_layers(rng, width, heads, layers),
    }


def _layers(rng: np.random.Generator, width: int, heads: int, layers: int) -> Mapping[str, Single]:
    found: dict[str, Single] = {}
    for j in range(layers):
        found |= fresh_layer(rng, f"time_{j}", width, heads)
    return found
