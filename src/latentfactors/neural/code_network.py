"""A trained autoencoder of series as a fitted model uses it: NumPy, float64, JAX not needed.

g_t = G(y~_t, y~_(t-1), ...)    F(g) (n,)    in standardised units
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from latentfactors.neural.perceptron import Activation, forward
from latentfactors.rows import read_only

__all__ = ["CodeNetwork", "aggregated", "filtered_codes", "glorot_normal"]

FloatArray = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False, kw_only=True)
class CodeNetwork:
    """Encoder and decoder.

    Attributes
    ----------
    encoder : name -> array, see `neural.perceptron`; (n (1 + input_lags), ...) first, r outputs
    layers : name -> array, batch norm's moments of the encoder
    decoder : name -> array; r inputs, n outputs
    activation, code_link, input_lags : how they are read
    """

    encoder: Arrays
    layers: Arrays
    decoder: Arrays
    activation: Activation
    code_link: Literal["linear", "relu"]
    input_lags: int

    def __post_init__(self) -> None:
        for name in ("encoder", "layers", "decoder"):
            frozen = {key: read_only(array) for key, array in getattr(self, name).items()}
            object.__setattr__(self, name, frozen)

    def encode(self, inputs: FloatArray) -> FloatArray:
        """(..., n, r) codes of inputs (..., n, series * (1 + input_lags)), newest month first."""
        codes = np.asarray(forward(inputs, self.encoder, self.layers, self.activation))
        return np.maximum(codes, 0.0) if self.code_link == "relu" else codes

    def decode(self, codes: FloatArray) -> FloatArray:
        """(..., m, n) decoded codes (..., m, r)."""
        return np.asarray(forward(codes, self.decoder, {}, self.activation))


def aggregated(paths: FloatArray, weights: FloatArray) -> FloatArray:
    """(..., T, n) sums over l of w_il F_i(t - l); the first period stands for what came before it."""
    n_periods, out = paths.shape[-2], np.zeros_like(paths)
    for lag in range(weights.shape[1]):
        if weights[:, lag].any():
            back = np.maximum(np.arange(n_periods) - lag, 0)
            out += weights[:, lag] * paths[..., back, :]
    return out


def filtered_codes(
    network: CodeNetwork,
    values: FloatArray,
    stand_in: FloatArray,
    weights: FloatArray,
    persistence: FloatArray,
    noise: FloatArray,
    *,
    n_draws: int,
    seed: int,
) -> FloatArray:
    """(T, r) codes, month after month, each from values up to its own month.

    Parameters
    ----------
    values : (T, n) in the network's units, NaN where missing
    stand_in : (T, n) what a missing input is taken to be
    weights : (n, L) of aggregates, newest first
    persistence, noise : (n,) phi and standard deviations of the idiosyncratic terms
    n_draws, seed : of the noise, the same draws in every month and each with its mirror image
    """
    (n_periods, n), width = values.shape, 1 + network.input_lags
    half = np.random.default_rng([seed, 2]).normal(size=(-(-n_draws // 2), width, n))
    draws = np.concatenate([half, -half]) * noise
    ordinary = ~(weights[:, 1:] != 0.0).any(axis=1)
    inputs, paths = np.zeros((n_periods + width - 1, n)), np.zeros((n_periods, n))
    codes: list[FloatArray] = []
    error, distance, known = np.zeros(n), np.zeros(n), np.zeros(n, dtype=bool)
    for t in range(n_periods):
        seen = np.isfinite(values[t])
        distance = distance + 1.0
        expected = np.where(known & ordinary, persistence**distance * error, 0.0)
        inputs[t + width - 1] = np.where(seen, values[t] - expected, stand_in[t])
        recent = inputs[t : t + width][::-1] + draws
        recent[:, np.arange(width) > t] = 0.0
        codes.append(network.encode(recent.reshape(len(draws), width * n)).mean(axis=0))
        paths[t] = network.decode(codes[t][None])[0]
        fitted = np.zeros(n)
        for lag in range(weights.shape[1]):
            fitted += weights[:, lag] * paths[max(t - lag, 0)]
        error = np.where(seen, values[t] - fitted, error)
        distance, known = np.where(seen, 0.0, distance), known | seen
    return np.array(codes)


def glorot_normal(
    rng: np.random.Generator, sizes: tuple[int, ...], batch_norm: bool
) -> dict[str, npt.NDArray[np.float32]]:
    """Initial weights N(0, 2/(inputs + outputs)) of layer sizes (inputs, hidden..., outputs)."""
    parameters: dict[str, npt.NDArray[np.float32]] = {}
    for j, (n_in, n_out) in enumerate(pairwise(sizes)):
        weight = np.sqrt(2.0 / (n_in + n_out)) * rng.normal(size=(n_in, n_out))
        parameters[f"weight_{j}"] = weight.astype(np.float32)
        parameters[f"bias_{j}"] = np.zeros(n_out, dtype=np.float32)
        if j < len(sizes) - 2 and batch_norm:
            parameters[f"gain_{j}"] = np.ones(n_out, dtype=np.float32)
    return parameters
