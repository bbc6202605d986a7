"""The profile likelihood of targeted factors over the noise ratio, evaluated at many ratios at once.

Function         F(rho) and dF/dlog rho of `kernels.targeted`, from the k leading eigenpairs of
                 B(rho) = D S D, D = diag(1_p, rho 1_q).
Compression      D scales the targets only, so an orthonormal V (p, m) of predictor space turns every B(rho)
                 at once into the small [V'S_xx V, rho V'S_xy; rho S_yx V, rho^2 S_yy] (Rayleigh-Ritz). V
                 holds the k + 2 leading eigenvectors of S_xx and, orthogonal to them, the block Krylov space
                 S_xy, S_xx S_xy, ..., S_xx^r S_xy: what is left out has eigenvalues of at most
                 lambda_(k+2) <= mu_k and meets the targets only through S_xx^(r+1) S_xy.
Check            a Ritz pair (mu, [V c_x; c_y]) leaves the residual R c_x, R = (I - VV')S_xx V, at any rho;
                 mu is wrong by at most |R c_x|^2 over its distance to what is left out. Where |R c_x| is
                 above 1e-9 mu, the compression is given up.
References       Golub & Van Loan (2013), Matrix Computations, 4th ed., sections 8.1 and 10.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.linalg import top_eigenpairs

FloatArray = npt.NDArray[np.float64]

_SMALL = 40  # up to here the wrapper of a partial solver costs more than the whole decomposition
_LANCZOS_SIZE = 300
_LANCZOS_TOLERANCE: Any = 1e-9  # SciPy's stubs say int
_TINY = float(np.finfo(np.float64).tiny)
_POWERS = 8  # of S_xx in the Krylov space
_LEAK = 1e-9  # largest residual of a Ritz pair relative to its eigenvalue
_PROBES = np.array([-9.2, -4.4, 0.0, 4.4, 9.2])  # the range searched


@dataclass(frozen=True, eq=False)
class Moment:
    """S, or its compression, predictors first.

    Attributes
    ----------
    values : (m + q, m + q).
    n_targets : q.
    n_series : d, of the whole S.
    x_trace : tr S_xx of the whole S.
    basis : (p, m) V; None where nothing is compressed (m = p).
    leak : (m, m) R'R; None where nothing is compressed.
    """

    values: FloatArray
    n_targets: int
    n_series: int
    x_trace: float
    basis: FloatArray | None = None
    leak: FloatArray | None = None


class Profile(NamedTuple):
    """F and dF/dlog rho at one log rho, with what they were made of.

    Attributes
    ----------
    value, slope : F, dF/dlog rho.
    noise : s_x^2.
    eigenvalues : (k,) mu.
    vectors : (d, k) u_j of B(rho), or (m + q, k) in the basis.
    basis : (p, m) or None.
    leak : largest |R c_x|/mu.
    """

    log_ratio: float
    value: float
    slope: float
    noise: float
    eigenvalues: FloatArray
    vectors: FloatArray
    basis: FloatArray | None = None
    leak: float = 0.0

    @property
    def axes(self) -> FloatArray:
        """(d, k) u_j of B(rho)."""
        if self.basis is None:
            return self.vectors.copy()
        m = self.basis.shape[1]
        return np.vstack([self.basis @ self.vectors[:m], self.vectors[m:]])


ProfileFunction = Callable[[FloatArray], list[Profile]]


def whole_moment(x: FloatArray, y: FloatArray) -> Moment:
    """S of zero-mean data (T, p) and (T, q)."""
    n_periods, p = x.shape
    z = np.hstack([x, y])
    values = z.T @ z / n_periods
    return Moment(values, y.shape[1], len(values), float(np.trace(values[:p, :p])))


def compressed_moment(x: FloatArray, y: FloatArray, n_factors: int) -> Moment | None:
    """S in a basis that keeps the leading eigenpairs of every B(rho); None where that would save nothing.

    A small S (up to 40 series) comes whole.
    """
    (n_periods, p), q = x.shape, y.shape[1]
    if p + q <= min(_SMALL, n_periods):
        return whole_moment(x, y)
    n_leading, size = n_factors + 2, n_factors + 2 + q * (_POWERS + 1)
    if 2 * (size + q) > min(n_periods, p + q):
        return None
    wide = n_periods < p
    gram = (x @ x.T if wide else x.T @ x) / n_periods
    basis = np.empty((p, size))
    leading = top_eigenpairs(gram, n_leading)[1]
    basis[:, :n_leading] = np.linalg.qr(x.T @ leading)[0] if wide else leading
    cross = x.T @ y / n_periods
    block = cross
    for start in range(n_leading, size, q):
        known = basis[:, :start]
        # twice, each time normalised: what rounding leaves of the known directions would grow
        for _ in range(2):
            block = np.linalg.qr(block - known @ (known.T @ block))[0]
        basis[:, start : start + q] = block
        block = x.T @ (x @ block) / n_periods if wide else gram @ block
    image = x.T @ (x @ basis) / n_periods if wide else gram @ basis
    values = np.empty((size + q, size + q))
    inner = basis.T @ image
    values[:size, :size] = 0.5 * (inner + inner.T)
    values[:size, size:] = basis.T @ cross
    values[size:, :size] = values[:size, size:].T
    values[size:, size:] = y.T @ y / n_periods
    rest = image - basis @ inner
    moment = Moment(values, q, p + q, float(np.trace(gram)), basis, rest.T @ rest)
    probes = moment_profile(moment, n_factors, _TINY)(_PROBES)
    return moment if trusted(probes) else None


def trusted(profiles: list[Profile]) -> bool:
    """Whether no compression falsified these."""
    return all(each.leak <= _LEAK for each in profiles)


def moment_profile(moment: Moment, n_factors: int, floor: float) -> ProfileFunction:
    """F and its derivative at many log rho by whole decompositions; s_x^2 is at least `floor`."""
    n, q, k = len(moment.values), moment.n_targets, n_factors
    y_trace = float(np.trace(moment.values[n - q :, n - q :]))

    def at(log_ratios: FloatArray) -> list[Profile]:
        scaled = np.repeat(moment.values[None], len(log_ratios), axis=0)
        rho = np.exp(log_ratios)[:, None, None]
        scaled[:, n - q :] *= rho
        scaled[:, :, n - q :] *= rho
        mu, vectors = np.linalg.eigh(scaled)
        mu, vectors = mu[:, : -k - 1 : -1], vectors[:, :, : -k - 1 : -1]
        leaks = [0.0] * len(log_ratios)
        if moment.leak is not None:
            inside = vectors[:, : n - q]
            squares = (inside * (moment.leak @ inside)).sum(axis=1)
            leaks = np.sqrt(
                (np.maximum(squares, 0.0) / np.square(np.maximum(mu, 1e-300))).max(axis=1)
            ).tolist()
        found = _profiles(
            log_ratios, mu, vectors[:, n - q :], (moment.x_trace, y_trace), moment.n_series, floor
        )
        return [
            Profile(at_ratio, value, slope, noise, values, axes, moment.basis, leak)
            for at_ratio, (value, slope, noise, values), axes, leak in zip(
                log_ratios.tolist(), found, vectors, leaks, strict=True
            )
        ]

    return at


def direct_profile(x: FloatArray, y: FloatArray, n_factors: int, floor: float) -> ProfileFunction:
    """F and its derivative by a partial decomposition a ratio, of B or for T < d of its T x T counterpart."""
    n_periods, p = x.shape
    z = np.hstack([x, y])
    if n_periods >= z.shape[1]:
        return partial_profile(z.T @ z / n_periods, p, n_factors, floor)
    gram_x, gram_y = x @ x.T / n_periods, y @ y.T / n_periods
    traces = float(np.trace(gram_x)), float(np.trace(gram_y))
    start: list[FloatArray] = []

    def one(log_ratio: float) -> Profile:
        rho = math.exp(log_ratio)
        mu, left = _leading(gram_x + rho * rho * gram_y, n_factors, start)
        axes = z.T @ (left / np.sqrt(n_periods * np.maximum(mu, 1e-300)))
        axes[p:] *= rho
        return _single(log_ratio, mu, axes, p, traces, floor)

    return lambda log_ratios: [one(each) for each in log_ratios.tolist()]


def partial_profile(values: FloatArray, n_predictors: int, n_factors: int, floor: float) -> ProfileFunction:
    """F and its derivative from S (d, d) by a partial decomposition a ratio."""
    p, diagonal = n_predictors, np.diagonal(values)
    traces = float(diagonal[:p].sum()), float(diagonal[p:].sum())
    start: list[FloatArray] = []

    def one(log_ratio: float) -> Profile:
        weights = np.ones(len(values))
        weights[p:] = math.exp(log_ratio)
        mu, axes = _leading(weights[:, None] * values * weights, n_factors, start)
        return _single(log_ratio, mu, axes, p, traces, floor)

    return lambda log_ratios: [one(each) for each in log_ratios.tolist()]


def _single(
    log_ratio: float, mu: FloatArray, axes: FloatArray, p: int, traces: tuple[float, float], floor: float
) -> Profile:
    ratios = np.array([log_ratio])
    value, slope, noise, mu = _profiles(ratios, mu[None], axes[None, p:], traces, len(axes), floor)[0]
    return Profile(log_ratio, value, slope, noise, mu, axes)


def _profiles(
    log_ratios: FloatArray,
    mu: FloatArray,
    y_axes: FloatArray,
    traces: tuple[float, float],
    n_series: int,
    floor: float,
) -> list[tuple[float, float, float, FloatArray]]:
    """F, its derivative, s_x^2 and mu at each ratio, from mu (g, k) and the targets' part of u (g, q, k)."""
    (q, k), d = y_axes.shape[1:], n_series
    trace_y = np.exp(2.0 * log_ratios) * traces[1]
    noise = np.maximum((traces[0] + trace_y - mu.sum(axis=1)) / (d - k), floor)
    mu = np.maximum(mu, noise[:, None])
    weight_y = np.square(y_axes).sum(axis=1)
    value = (d - k) * np.log(noise) + np.log(mu).sum(axis=1) - 2.0 * q * log_ratios
    slope = 2.0 * ((trace_y - (mu * weight_y).sum(axis=1)) / noise + weight_y.sum(axis=1) - q)
    return list(zip(value.tolist(), slope.tolist(), noise.tolist(), mu, strict=True))


def _leading(moment: FloatArray, k: int, start: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Leading eigenpairs; large matrices by Lanczos from the sum of the eigenvectors found last."""
    size = moment.shape[0]
    if size <= _SMALL:
        mu, vectors = np.linalg.eigh(moment)
        return mu[: -k - 1 : -1], vectors[:, : -k - 1 : -1]
    if size < _LANCZOS_SIZE or 10 * k > size:
        return top_eigenpairs(moment, k)
    from scipy.sparse.linalg import ArpackError, eigsh  # not loaded by a small fit

    first = start[-1] if start else np.cos(np.arange(1.0, size + 1.0) ** 2)
    try:
        mu, vectors = eigsh(moment, k=k, which="LA", v0=first, ncv=max(20, 3 * k), tol=_LANCZOS_TOLERANCE)
    except ArpackError:
        return top_eigenpairs(moment, k)
    order = np.argsort(mu)[::-1]
    start[:] = [vectors.sum(axis=1)]
    return mu[order], np.ascontiguousarray(vectors[:, order])
