"""Gaussian sequences with terms that reach back several periods and with exact linear observations.

    x_t = A_1 x_(t-1) + ... + A_p x_(t-p) + u_t,  u_t ~ N(0, Q), stationary start          x_t (m,)
    terms        -1/2 (a_g - B_g f_t + C_g f_(t-d))' W (.)  collapsed to information on f_t and f_(t-d), where
                 f is the leading part (r,) of x: what quasi-differences over d periods say
    constraints  sum_l c_l' x_(t-l) = v exactly: an aggregate observed without noise

Everything together is a Gaussian in (x_0, ..., x_(T-1)) whose precision has a band of `band` blocks, so it is
solved by eliminating one period at a time from a window of band + 1 periods:

    forward      append x_t and whatever ends in t; an exact constraint replaces its pivot, the coordinate
                 that it determines given the others; then x_(t-band) | later ~ N(g + G (x_(t-band+1), ...,
                 x_t), V) with V = J_oo^-1, G = -V J_or, g = V h_o, which leaves the window (J, h)
    likelihood   log p = constants + sum_t (g'J_oo g - log|J_oo|)/2 - log|pivots|
    backward     means and covariances of the window from those of the window after it: Sigma_oo = G Sigma G'
                 + V

One forward pass costs O(T m (band m)^2): a block-banded Cholesky, read backwards a selected (Takahashi)
inverse. A state-space filter of the same law would carry every idiosyncratic term in its state.

Filtered     given the terms and constraints up to t: the trailing part of the window's own Cholesky

References: Rue & Held (2005), Gaussian Markov Random Fields, sections 2.4 (band Cholesky) and 2.3.3 (linear
constraints); Takahashi, Fagan & Chen (1973) on selected inverses; Jungbacker & Koopman (2015) on collapsing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.sequence_recursions import eliminate_forward, smooth_backward
from latentfactors.kernels.stationary import inverse_and_logdet

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Coupling:
    """Information on the leading r coordinates of x, collapsed over series; groups sorted by time.

    Group g at period t = time[g] with gap d = gap[g] adds to the precision: now to block (t, t), -cross to
    (t, t-d) and its transpose, before to (t-d, t-d); to the information vector: vector_now to t,
    -vector_before to t-d. Gap 0 has only `now`.

    Attributes
    ----------
    time, gap : (G,)
    now, cross, before : (G, r, r)
    vector_now, vector_before : (G, r)
    offsets : (T + 1,) groups of period t are offsets[t] to offsets[t + 1]; None: from `time`
    """

    time: IntArray
    gap: IntArray
    now: FloatArray
    cross: FloatArray
    before: FloatArray
    vector_now: FloatArray
    vector_before: FloatArray
    offsets: IntArray | None = None


@dataclass(frozen=True, eq=False)
class Constraints:
    """sum_l coefficients[c, l]' x_(time[c] - l) = value[c], exactly; sorted by time.

    Attributes
    ----------
    time, value : (C,)
    coefficients : (C, L, m)
    pivot_lag, pivot : (C,) the coordinate that the constraint determines; no two may name the same one, and
    no
        other constraint at a later time may touch it
    offsets : (T + 1,) as in `Coupling`
    """

    time: IntArray
    value: FloatArray
    coefficients: FloatArray
    pivot_lag: IntArray
    pivot: IntArray
    offsets: IntArray | None = None


@dataclass(frozen=True, eq=False)
class Elimination:
    """What the forward pass leaves behind.

    Attributes
    ----------
    loglikelihood_part : log-likelihood without the constants of the coupling terms
    filtered_mean : (T, keep, m), newest first, or empty
    filtered_covariance : (T, keep m, keep m), newest first, or empty
    """

    band: int
    loglikelihood_part: float
    shift: FloatArray
    gain: FloatArray
    variance: FloatArray
    last_mean: FloatArray
    last_covariance: FloatArray
    constraint_gain: FloatArray
    constraint_shift: FloatArray
    constraint_position: IntArray
    constraint_offsets: IntArray
    filtered_mean: FloatArray
    filtered_covariance: FloatArray


def eliminate(
    n_periods: int,
    coefficients: FloatArray,
    innovation: FloatArray,
    start_covariance: FloatArray,
    coupling: Coupling,
    constraints: Constraints,
    *,
    band: int,
    keep: int = 0,
    precision: FloatArray | None = None,
) -> Elimination:
    """The forward pass.

    Parameters
    ----------
    n_periods : T > band
    coefficients : (p, m, m), p >= 1
    innovation : (m, m), positive definite
    start_covariance : (p m, p m) of (x_0, ..., x_(p-1)), oldest first, positive definite
    band : at least p, every gap and every lag of a constraint
    keep : newest periods whose filtered moments are wanted; 0 for none, at most band + 1, at least the lags
    of
        the constraints
    precision : (T,) factors of the innovations' precision, not of the start's; None: 1
    """
    p, m = coefficients.shape[:2]
    root = np.empty((m, p + 1, m))
    root[:, :p] = -coefficients[::-1].transpose(1, 0, 2)
    root[:, p] = np.eye(m)
    root = root.reshape(m, -1)
    inverse, innovation_logdet = inverse_and_logdet(np.ascontiguousarray(innovation))
    start, start_logdet = inverse_and_logdet(np.ascontiguousarray(start_covariance))
    if not (math.isfinite(innovation_logdet) and math.isfinite(start_logdet)):
        raise np.linalg.LinAlgError("innovation and start must be positive definite")
    transition = root.T @ inverse @ root
    strength = np.ones(n_periods) if precision is None else precision
    size = (band + 1) * m
    n_constraints = constraints.time.size
    group_offsets, constraint_offsets = (
        np.searchsorted(each.time, np.arange(n_periods + 1)) if each.offsets is None else each.offsets
        for each in (coupling, constraints)
    )
    shift = np.zeros((n_periods, m))
    gain = np.zeros((n_periods, m, band * m))
    variance = np.zeros((n_periods, m, m))
    constraint_gain = np.zeros((n_constraints, size))
    constraint_shift = np.zeros(n_constraints)
    lags = constraints.coefficients.shape[1]
    rows = np.zeros((n_constraints, size))
    for lag in range(lags if n_constraints else 0):
        rows[:, (band - lag) * m : (band - lag + 1) * m] = constraints.coefficients[:, lag]
    position = (band - constraints.pivot_lag) * m + constraints.pivot
    means = np.zeros((n_periods if keep else 0, keep * m))
    covariances = np.zeros((n_periods if keep else 0, keep * m, keep * m))
    total, window, vector = eliminate_forward(
        n_periods,
        m,
        band,
        p,
        start,
        transition,
        strength,
        group_offsets,
        coupling.gap,
        coupling.now,
        coupling.cross,
        coupling.before,
        coupling.vector_now,
        coupling.vector_before,
        constraint_offsets,
        rows,
        constraints.value,
        position,
        shift,
        gain,
        variance,
        constraint_gain,
        constraint_shift,
        keep,
        means,
        covariances,
    )
    covariance, logdet = inverse_and_logdet(window)
    if not math.isfinite(logdet):
        raise np.linalg.LinAlgError("the last window is not positive definite")
    mean = covariance @ vector
    total += 0.5 * float(vector @ mean) - 0.5 * logdet
    # log|2 pi| of the integrals, of the start and of the transitions: the start and every transition have
    # their own m, so with one integral a coordinate they cancel but for those that a constraint determined
    total -= 0.5 * n_constraints * math.log(2.0 * math.pi)
    total -= 0.5 * (start_logdet + (n_periods - p) * innovation_logdet)
    if precision is not None:
        total += 0.5 * m * float(np.log(strength[p:]).sum())
    newest_first = np.empty((0, 0, m))
    if keep:
        newest_first = means.reshape(n_periods, keep, m)[:, ::-1]
        flip = np.arange(keep * m).reshape(keep, m)[::-1].ravel()
        covariances = covariances[:, flip][:, :, flip]
    return Elimination(
        band=band,
        loglikelihood_part=float(total),
        shift=shift,
        gain=gain,
        variance=variance,
        last_mean=mean,
        last_covariance=covariance,
        constraint_gain=constraint_gain,
        constraint_shift=constraint_shift,
        constraint_position=position,
        constraint_offsets=constraint_offsets,
        filtered_mean=newest_first,
        filtered_covariance=covariances,
    )


def smooth(elimination: Elimination) -> tuple[FloatArray, FloatArray]:
    """The backward pass: (T, m) means, (T, band + 1, m, m) covariances of x_t with x_(t-l).

    Covariances with a pivot of a constraint hold for lags up to the constraint's own pivot lag.
    """
    n_periods, m = elimination.shift.shape
    means = np.zeros((n_periods, m))
    covariances = np.zeros((n_periods, elimination.band + 1, m, m))
    smooth_backward(
        elimination.band,
        elimination.shift,
        elimination.gain,
        elimination.variance,
        elimination.last_mean,
        elimination.last_covariance,
        elimination.constraint_offsets,
        elimination.constraint_gain,
        elimination.constraint_shift,
        elimination.constraint_position,
        means,
        covariances,
    )
    return means, covariances
