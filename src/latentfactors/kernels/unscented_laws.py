"""Forecasts and laws of cells behind a nonlinear measurement, from the unscented filter and smoother.

Every value is a sum over periods of F_i(f_tau) and of idiosyncratic terms. With F = mu + J (f - m) + rest at
the law of f_tau (see `unscented`), means are exact to the transform and covariances follow from the joint law
of the factors at all the periods involved:

    Cov(F_i(f_a), F_j(f_b)) = J_i(a) Cov(f_a, f_b) J_j(b)' + 1{a = b} (rest'rest)_ij

The term of an ordinary series given its observed neighbours is that of a Gaussian AR(1) chain.

References: Sarkka (2013), Bayesian Filtering and Smoothing, sections 5.5, 8.2; Rauch, Tung & Striebel (1965),
AIAA Journal 3(8), on Cov(z_t, z_(t+k)) = C_t ... C_(t+k-1) P_(t+k).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.dynamic_factor import DynamicFactorParameters
from latentfactors.kernels.dynamic_factor_conditional import bridge
from latentfactors.kernels.gapped_residuals import last_seen
from latentfactors.kernels.unscented import (
    Decoder,
    UnscentedFilter,
    aggregate_variance,
    linearise,
    unscented_filter,
    unscented_smoother,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def unscented_forecasts(
    filtered: UnscentedFilter,
    values: FloatArray,
    decoder: Decoder,
    parameters: DynamicFactorParameters,
    weights: FloatArray,
    horizon: int,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Everything `horizon` >= 0 periods after each of T origins.

    Returns
    -------
    factors (T, r), their covariances (T, r, r), values (T, n), variances (T, n), standardised.
    """
    n_periods, size = filtered.mean.shape
    r = parameters.innovation.shape[0]
    depth = size // r
    power, noise = np.eye(size), np.zeros((size, size))
    for _ in range(horizon):
        noise = filtered.companion @ noise @ filtered.companion.T + filtered.noise
        power = filtered.companion @ power
    # period by period, so that an origin's bits do not depend on how many there are
    ahead = np.stack([power @ each for each in filtered.mean])
    half = np.matmul(power, filtered.covariance)
    covariance = np.matmul(half, power.T) + noise
    reach = weights.shape[1]
    blocks = [slice(lag * r, (lag + 1) * r) for lag in range(depth)]
    laws = [linearise(decoder, ahead[:, b], covariance[:, b, b]) for b in blocks[:reach]]
    out, spread = np.zeros(values.shape), np.zeros(values.shape)
    for a, law in enumerate(laws):
        out += weights[:, a] * law.mean
        spread += weights[:, a] ** 2 * (law.rest**2).sum(axis=1)
        for b, other in enumerate(laws):
            if weights[:, a].any() and weights[:, b].any():
                joint = np.einsum(
                    "tnr,trq,tnq->tn", law.slope, covariance[:, blocks[a], blocks[b]], other.slope
                )
                spread += weights[:, a] * weights[:, b] * joint
    phi, s = parameters.persistence, parameters.variance
    low = (weights[:, 1:] != 0.0).any(axis=1)
    own = s / (1.0 - phi**2)
    own[low] = aggregate_variance(phi[low], s[low], weights[low])
    spread += own
    seen = np.where(np.isfinite(values), np.arange(n_periods)[:, None], last_seen(values))
    since = np.arange(n_periods)[:, None] - seen
    last = np.take_along_axis(np.where(np.isfinite(values), values, 0.0), np.maximum(seen, 0), axis=0)
    for d in range(depth):
        here = (seen >= 0) & (since == d) & ~low
        if not here.any():
            continue
        then = linearise(decoder, filtered.mean[:, blocks[d]], filtered.covariance[:, blocks[d], blocks[d]])
        decay = phi ** (d + horizon) if d + horizon else np.ones_like(phi)
        past = np.einsum(
            "tnr,trq,tnq->tn", then.slope, filtered.covariance[:, blocks[d], blocks[d]], then.slope
        )
        rest = (then.rest**2).sum(axis=1)
        joint = np.einsum("tnr,trq,tnq->tn", laws[0].slope, half[:, blocks[0], blocks[d]], then.slope)
        if d + horizon == 0:
            joint = joint + rest
        out += np.where(here, decay * (last - then.mean), 0.0)
        spread += np.where(here, decay**2 * (past + rest - own) - 2.0 * decay * joint, 0.0)
    return ahead[:, :r], covariance[:, :r, :r], out, np.maximum(spread, 0.0)


def unscented_cells(
    values: FloatArray,
    decoder: Decoder,
    parameters: DynamicFactorParameters,
    weights: FloatArray,
    cells: Sequence[tuple[int, int]],
) -> tuple[FloatArray, FloatArray]:
    """Mean (C,) and covariance (C, C) of cells (period, series) given all of (T, n) standardised values."""
    r, n_cells = parameters.innovation.shape[0], len(cells)
    smoothed, covariance, gains = unscented_smoother(unscented_filter(values, decoder, parameters, weights))
    filled = _filled(values, smoothed[:, :r], covariance[:, :r, :r], decoder, parameters, weights)
    mean = np.array([filled[cell] for cell in cells])
    terms, own = _terms(values, parameters, weights, cells)
    times = sorted({time for each in terms for time in each})
    joint = _joint_covariance(times, covariance, gains, r)
    laws = {time: linearise(decoder, smoothed[time, :r], covariance[time, :r, :r]) for time in times}
    out = own
    for a in range(n_cells):
        for b in range(n_cells):
            i, j = cells[a][1], cells[b][1]
            for s, x in terms[a].items():
                for t, y in terms[b].items():
                    first, second = laws[s], laws[t]
                    total = first.slope[i] @ joint[s, t] @ second.slope[j]
                    if s == t:
                        total += first.rest[:, i] @ first.rest[:, j]
                    out[a, b] += x * y * total
    return mean, 0.5 * (out + out.T)


def unscented_completed(
    values: FloatArray, decoder: Decoder, parameters: DynamicFactorParameters, weights: FloatArray
) -> FloatArray:
    """(T, n) values with every missing one replaced by its mean given all that is observed."""
    r = parameters.innovation.shape[0]
    mean, covariance, _ = unscented_smoother(unscented_filter(values, decoder, parameters, weights))
    return _filled(values, mean[:, :r], covariance[:, :r, :r], decoder, parameters, weights)


def _filled(
    values: FloatArray,
    mean: FloatArray,
    covariance: FloatArray,
    decoder: Decoder,
    parameters: DynamicFactorParameters,
    weights: FloatArray,
) -> FloatArray:
    level = linearise(decoder, mean, covariance).mean
    low = (weights[:, 1:] != 0.0).any(axis=1)
    order, common = np.arange(len(values)), np.zeros_like(level)
    for lag in range(weights.shape[1]):
        common += weights[:, lag] * level[np.maximum(order - lag, 0)]
    own = bridge(values - common, np.where(low, 0.0, parameters.persistence))
    return np.where(np.isfinite(values), values, common + own)


def _terms(
    values: FloatArray,
    parameters: DynamicFactorParameters,
    weights: FloatArray,
    cells: Sequence[tuple[int, int]],
) -> tuple[list[dict[int, float]], FloatArray]:
    """Each cell as coefficients of F by period, and the covariance (C, C) of what its own term adds.

    An observed cell is a number: no coefficients, no covariance.
    """
    terms: list[dict[int, float]] = [{} for _ in cells]
    own = np.zeros((len(cells), len(cells)))
    for series in {series for _, series in cells}:
        phi, s = float(parameters.persistence[series]), float(parameters.variance[series])
        members = [c for c, (t, i) in enumerate(cells) if i == series and not np.isfinite(values[t, i])]
        low = bool((weights[series, 1:] != 0.0).any())
        for c in members:
            # what lies before the sample is taken as the first period
            for lag in np.flatnonzero(weights[series]):
                time = max(cells[c][0] - int(lag), 0)
                terms[c][time] = terms[c].get(time, 0.0) + float(weights[series, lag])
        if low:
            variance = aggregate_variance(
                parameters.persistence[[series]], parameters.variance[[series]], weights[[series]]
            )
            own[np.ix_(members, members)] = np.equal.outer(
                [cells[c][0] for c in members], [cells[c][0] for c in members]
            ) * float(variance[0])
            continue
        at = np.array([cells[c][0] for c in members], dtype=np.int64)
        seen = np.flatnonzero(np.isfinite(values[:, series]))
        near = np.unique([seen[k] for t in at for k in _neighbours(seen, int(t))]).astype(np.int64)

        def law(a: IntArray, b: IntArray, phi: float = phi, s: float = s) -> FloatArray:
            return s / (1.0 - phi**2) * phi ** np.abs(np.subtract.outer(a, b))

        share = np.linalg.solve(law(near, near), law(near, at)).T if near.size else np.zeros((at.size, 0))
        own[np.ix_(members, members)] = law(at, at) - share @ law(near, at)
        for row, c in enumerate(members):
            for column, time in enumerate(near.tolist()):
                if share[row, column]:
                    terms[c][time] = terms[c].get(time, 0.0) - float(share[row, column])
    return terms, own


def _neighbours(seen: npt.NDArray[np.int64], time: int) -> list[int]:
    place = int(np.searchsorted(seen, time))
    return [k for k in (place - 1, place) if 0 <= k < seen.size]


def _joint_covariance(
    times: Sequence[int], covariance: FloatArray, gains: FloatArray, r: int
) -> dict[tuple[int, int], FloatArray]:
    """Cov(f_s, f_t) given all values, for all pairs of periods."""
    out: dict[tuple[int, int], FloatArray] = {}
    for last in times:
        # walk back from the later period
        cross, wanted = covariance[last], {time for time in times if time <= last}
        for time in range(last, min(times) - 1, -1):
            if time < last:
                cross = gains[time] @ cross
            if time in wanted:
                out[time, last] = cross[:r, :r]
                out[last, time] = cross[:r, :r].T
    return out
