"""The law of the dynamic factor model given incomplete data: its E-step and its likelihood.

    y_it = lambda_i'f_t + e_it,   e_it = phi_i e_i,t-1 + v_it,  v_it ~ N(0, s_i)     (phi_i = 0: iid terms)
    f_t  = A_1 f_(t-1) + ... + A_p f_(t-p) + u_t,               u_t ~ N(0, Q), stationary start
    low-frequency series i:  Y_it = sum_l w_l (lambda_i'f_(t-l) + e_i,t-l)  without further noise

An ordinary series with any gaps is an exact chain of quasi-differences: its observations d periods apart give

    y_t - phi^d y_(t-d) = lambda'(f_t - phi^d f_(t-d)) + N(0, s (1 - phi^2d)/(1 - phi^2)),

and its first one has the stationary variance, so its idiosyncratic term needs no state. A low-frequency
series carries its own e in x_t = (f_t, e_t) and enters as an exact constraint. What remains is a
`gaussian_sequence`.

Broken periods      in some periods all shocks, u_t and v_it, are c_t times as large (c_t a parameter): a
                    quasi-difference over d periods then has the variance s sum_(j<d) phi^2j c_(t-j)^2, and
                    the transition into t the innovation c_t^2 Q

Maximisation        `dynamic_factor_moments` (loadings), `idiosyncratic` (phi, s), `dynamic_factor_em` (A, Q)
Cost                three products (G, n) @ (n, r (r+1)/2), G = pairs of a period and a gap that occurs in it;
                    powers of phi are taken once for every distinct gap

References: Banbura & Modugno (2014), J. of Applied Econometrics 29(1), 133-160, eqs. (1)-(5), section 3;
Jungbacker & Koopman (2015), Econometrics Journal 18(2), C1-C21; Meng & Rubin (1993), Biometrika 80, on ECM;
Mariano & Murasawa (2003), J. of Applied Econometrics 18(4), eq. (4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.gaussian_sequence import Constraints, Coupling, Elimination, eliminate, smooth
from latentfactors.kernels.linalg import outer_products, unpack
from latentfactors.kernels.state_space import companion_matrix, stationary_covariance

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DynamicFactorParameters:
    """What the model is, in standardised units.

    Attributes
    ----------
    loadings : (n, r)
    persistence : (n,) phi, all 0 for iid terms
    variance : (n,) s, of the idiosyncratic innovations
    transition : (p, r, r)
    innovation : (r, r)
    scale : (M,) c > 0, of all shocks in the broken periods
    """

    loadings: FloatArray
    persistence: FloatArray
    variance: FloatArray
    transition: FloatArray
    innovation: FloatArray
    scale: FloatArray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, eq=False)
class ObservationPattern:
    """Values and which of them form quasi-differences; periods count from `lead` periods before the data.

    Attributes
    ----------
    n_periods : T + lead
    lead : periods put before the data so that every lag of an aggregate exists
    band : reach of a term, in periods
    ordinary, low : positions of the series that are observed as they are, and as aggregates
    time, gap : (G,) groups of pairs, by kind and within a kind by time; pairs of a kind share the gap and
        where broken periods lie between their ends, so without such periods a kind is a gap
    present : (G, n_ordinary) 1.0 where the series has an observation in the group's period, d after its last
    current, previous : (G, n_ordinary) its value then and d periods before, 0 where absent
    by_time : (G,) the groups in order of time
    gaps : (D,) of the kinds, ascending; the groups of kind d are offsets[d] to offsets[d + 1]
    offsets : (D + 1,)
    broken : (M,) periods with a scale of their own
    window : (D, M) periods from a broken one to the pair's end, -1 where it is not among the pair's shocks
    count : (D, n_ordinary) pairs
    squares : (3, D, n_ordinary) sums of y_t^2, y_t y_(t-d), y_(t-d)^2
    low_time, low_series, low_value : (C,) observations of aggregates; series counts within `low`
    weights : (n_low, L) of an aggregate's periods, newest first
    """

    n_periods: int
    lead: int
    band: int
    ordinary: IntArray
    low: IntArray
    time: IntArray
    gap: IntArray
    present: FloatArray
    current: FloatArray
    previous: FloatArray
    by_time: IntArray
    gaps: IntArray
    offsets: IntArray
    broken: IntArray
    window: IntArray
    count: FloatArray
    squares: FloatArray
    low_time: IntArray
    low_series: IntArray
    low_value: FloatArray
    weights: FloatArray

    @cached_property
    def group_offsets(self) -> IntArray:
        """(T + lead + 1,) the groups of period t, in order of time, are group_offsets[t] to [t + 1]."""
        return np.searchsorted(self.time[self.by_time], np.arange(self.n_periods + 1))

    @cached_property
    def low_offsets(self) -> IntArray:
        """(T + lead + 1,) the same of the observations of aggregates."""
        return np.searchsorted(self.low_time, np.arange(self.n_periods + 1))

    @cached_property
    def n_pairs(self) -> float:
        """Observations of ordinary series."""
        return float(self.count.sum())

    @cached_property
    def untied(self) -> bool:
        """Whether no observation is tied to an earlier one and all are of one kind: white noise."""
        return self.gaps.size == 1 and int(self.gaps[0]) == 0

    @cached_property
    def no_power(self) -> FloatArray:
        """(1, n_ordinary) zeros, phi^d where nothing is tied."""
        return np.zeros((1, self.ordinary.size))

    @cached_property
    def plain(self) -> npt.NDArray[np.bool_]:
        """(D,) kinds without a broken period among their shocks."""
        return np.asarray((self.window < 0).all(axis=1))


@dataclass(frozen=True, eq=False)
class Expectation:
    """The law of x = (f, e_low) given the data.

    Attributes
    ----------
    loglikelihood : of the observed values
    means : (T + lead, m)
    covariances : (T + lead, band + 1, m, m) of x_t with x_(t-l)
    """

    loglikelihood: float
    means: FloatArray
    covariances: FloatArray


def observation_pattern(
    values: FloatArray,
    *,
    autoregressive: bool,
    lags: int,
    weights: FloatArray | None = None,
    broken: Sequence[int] | IntArray = (),
) -> ObservationPattern:
    """Sort out (T, n) values with gaps.

    Parameters
    ----------
    values : NaN where missing
    autoregressive : whether consecutive observations of a series are tied
    lags : p of the factors
    weights : (n, L), newest first, the row (1, 0, ..., 0) for an ordinary series; None: all are
    broken : rows of `values` with a scale of their own, not the first: what came before it is the start
    """
    n_periods, n = values.shape
    weights = np.eye(1).repeat(n, axis=0) if weights is None else np.asarray(weights, dtype=np.float64)
    is_low = (weights[:, 1:] != 0.0).any(axis=1)
    low, ordinary = np.flatnonzero(is_low), np.flatnonzero(~is_low)
    reach = 1 + int(np.flatnonzero((weights != 0.0).any(axis=0))[-1]) if n else 1
    lead = max(reach - 1, lags - 1, 0)
    seen = np.isfinite(values[:, ordinary])
    position = np.where(seen, np.arange(n_periods)[:, None], -1)
    last = np.maximum.accumulate(position, axis=0)
    earlier = np.vstack([np.full((1, ordinary.size), -1), last[:-1]])
    gaps = np.where(seen & (earlier >= 0), np.arange(n_periods)[:, None] - earlier, 0)
    if not autoregressive:
        gaps[:] = 0
    rows, columns = np.nonzero(seen)
    gap = gaps[rows, columns]
    keys, group = np.unique(gap * n_periods + rows, return_inverse=True)
    positions = np.asarray(broken, dtype=np.int64)
    kinds, kind, order = _kinds(keys // n_periods, keys % n_periods, positions, autoregressive)
    keys, group = keys[order], np.argsort(order)[group]
    shape = (keys.size, ordinary.size)
    present, current, previous = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    ordinary_values = values[:, ordinary]
    present[group, columns] = 1.0
    current[group, columns] = ordinary_values[rows, columns]
    tied = gap > 0
    previous[group[tied], columns[tied]] = ordinary_values[rows[tied] - gap[tied], columns[tied]]
    time, gap = keys % n_periods + lead, keys // n_periods
    gaps = kinds[:, 0]
    offsets = np.searchsorted(kind[order], np.arange(gaps.size + 1))
    products = (present, current * current, current * previous, previous * previous)
    sums = [
        np.array([each[a:b].sum(axis=0) for a, b in pairwise(offsets)]).reshape(gaps.size, ordinary.size)
        for each in products
    ]
    low_rows, low_columns = np.nonzero(np.isfinite(values[:, low]))
    return ObservationPattern(
        n_periods=n_periods + lead,
        lead=lead,
        band=max(lags, reach - 1, int(gap.max(initial=0))),
        ordinary=ordinary,
        low=low,
        time=time,
        gap=gap,
        present=present,
        current=current,
        previous=previous,
        by_time=np.argsort(time, kind="stable"),
        gaps=gaps,
        offsets=offsets,
        broken=positions + lead,
        window=kinds[:, 1:],
        count=sums[0],
        squares=np.array(sums[1:]),
        low_time=low_rows + lead,
        low_series=low_columns,
        low_value=values[:, low][low_rows, low_columns],
        weights=weights[low, :reach],
    )


def _kinds(
    gap: IntArray, row: IntArray, broken: IntArray, autoregressive: bool
) -> tuple[IntArray, IntArray, IntArray]:
    """Distinct (gap, window) rows (D, 1 + M), the kind of every group, and the groups in order of kind."""
    since = row[:, None] - broken
    # the shocks of a first observation are all before it, those of white noise its own period's
    reach = np.where(gap > 0, gap, row.max(initial=0) + 1 if autoregressive else 1)
    inside = (since >= 0) & (since < reach[:, None])
    signature = np.column_stack([gap, np.where(inside, since, -1)])
    if not broken.size:
        kinds, kind = np.unique(gap, return_inverse=True)
        return kinds[:, None], kind, np.arange(gap.size)
    kinds, kind = np.unique(signature, axis=0, return_inverse=True)
    kind = kind.ravel()
    return kinds, kind, np.lexsort((row, kind))


def expectation(parameters: DynamicFactorParameters, pattern: ObservationPattern) -> Expectation:
    """E-step: smoothed moments and the log-likelihood."""
    forward, constant = forward_pass(parameters, pattern)
    means, covariances = smooth(forward)
    return Expectation(forward.loglikelihood_part + constant, means, covariances)


def loglikelihood(parameters: DynamicFactorParameters, pattern: ObservationPattern) -> float:
    """Log-likelihood of the observed values under the stationary start."""
    forward, constant = forward_pass(parameters, pattern)
    return forward.loglikelihood_part + constant


def forward_pass(
    parameters: DynamicFactorParameters, pattern: ObservationPattern, *, keep: int = 0
) -> tuple[Elimination, float]:
    """The elimination of `gaussian_sequence` and the constants of the observation terms."""
    coupling, constant = _collapse(parameters, pattern)
    coefficients, innovation, start = state_law(parameters, pattern)
    forward = eliminate(
        pattern.n_periods,
        coefficients,
        innovation,
        start,
        coupling,
        _constraints(parameters, pattern),
        band=pattern.band,
        keep=keep,
        precision=shock_precision(parameters, pattern) if pattern.broken.size else None,
    )
    return forward, constant


def state_law(
    parameters: DynamicFactorParameters, pattern: ObservationPattern
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Transition (p, m, m), innovation (m, m) and stationary covariance (p m, p m), oldest first, of x."""
    p, r = parameters.transition.shape[:2]
    phi, s = parameters.persistence[pattern.low], parameters.variance[pattern.low]
    m = r + phi.size
    companion, noise = companion_matrix(np.hstack(list(parameters.transition))), np.zeros((p * r, p * r))
    noise[:r, :r] = parameters.innovation
    factors = stationary_covariance(companion, noise).reshape(p, r, p, r)[::-1, :, ::-1]
    if not phi.size:
        return parameters.transition, parameters.innovation, factors.reshape(p * m, p * m)
    transition, innovation = np.zeros((p, m, m)), np.zeros((m, m))
    transition[:, :r, :r] = parameters.transition
    innovation[:r, :r] = parameters.innovation
    inner = np.arange(r, m)
    transition[0, inner, inner] = phi
    innovation[inner, inner] = s
    start = np.zeros((p, m, p, m))
    start[:, :r, :, :r] = factors
    distance = np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    for k, position in enumerate(inner):
        start[:, position, :, position] = s[k] * phi[k] ** distance / (1.0 - phi[k] ** 2)
    return transition, innovation, start.reshape(p * m, p * m)


def pair_weights(
    parameters: DynamicFactorParameters, pattern: ObservationPattern
) -> tuple[FloatArray, FloatArray]:
    """phi^d (D, n_ordinary), 0 for gap 0, and the variance of every kind of quasi-difference.

    s (1 + phi^2 + ... + phi^(2(d-1))), s/(1 - phi^2) for a first observation, and what broken periods add.
    """
    phi, s = parameters.persistence[pattern.ordinary], parameters.variance[pattern.ordinary]
    if pattern.untied and not pattern.broken.size:
        return pattern.no_power, (s / (1.0 - phi**2))[None]
    gap = pattern.gaps[:, None]
    power = np.where(gap > 0, phi**gap, 0.0)
    unit = (1.0 - power**2) / (1.0 - phi**2)
    if pattern.broken.size:
        unit = unit + window_weights(phi, pattern.window) @ excess(parameters)
    return power, s * unit


def excess(parameters: DynamicFactorParameters) -> FloatArray:
    """(M,) c^2 - 1."""
    return parameters.scale**2 - 1.0


def window_weights(phi: FloatArray, window: IntArray) -> FloatArray:
    """(D, n, M) phi^2j of the shock j periods before a pair's end, 0 where it is not among them."""
    lag = window[:, None, :]
    return np.where(lag >= 0, np.abs(phi)[None, :, None] ** (2 * np.maximum(lag, 0)), 0.0)


def shock_precision(parameters: DynamicFactorParameters, pattern: ObservationPattern) -> FloatArray:
    """(T + lead,) 1/c_t^2 of the shocks of every period."""
    precision = np.ones(pattern.n_periods)
    precision[pattern.broken] = parameters.scale**-2.0
    return precision


def _collapse(parameters: DynamicFactorParameters, pattern: ObservationPattern) -> tuple[Coupling, float]:
    """Information of all ordinary observations on the factors, and the constants of their densities."""
    loadings = parameters.loadings[pattern.ordinary]
    r = loadings.shape[1]
    power, variance = pair_weights(parameters, pattern)
    products = outer_products(loadings)
    k, n_groups = products.shape[1], pattern.time.size
    logs = float((pattern.count * np.log(variance)).sum()) + pattern.n_pairs * math.log(2.0 * math.pi)
    if pattern.untied:
        # white noise: nothing is tied to anything before it
        w = (1.0 / variance[0])[:, None]
        none, nothing = np.zeros((n_groups, r, r)), np.zeros((n_groups, r))
        coupling = Coupling(
            time=pattern.time,
            gap=pattern.gap,
            now=unpack(pattern.present @ (w * products)),
            cross=none,
            before=none,
            vector_now=pattern.current @ (w * loadings),
            vector_before=nothing,
            offsets=pattern.group_offsets,
        )
        return coupling, -0.5 * (float((pattern.squares[0, 0] * w[:, 0]).sum()) + logs)
    matrices, vectors = np.zeros((n_groups, 3 * k)), np.zeros((n_groups, 2 * r))
    for d, gap in enumerate(pattern.gaps):
        block = slice(pattern.offsets[d], pattern.offsets[d + 1])
        present, current = pattern.present[block], pattern.current[block]
        w, c = (1.0 / variance[d])[:, None], power[d][:, None]
        if gap == 0:
            matrices[block, :k] = present @ (w * products)
            vectors[block, :r] = current @ (w * loadings)
            continue
        matrices[block] = present @ np.hstack([w * products, w * c * products, w * c**2 * products])
        once = w * c * loadings
        vectors[block] = current @ np.hstack([w * loadings, once])
        vectors[block] -= pattern.previous[block] @ np.hstack([once, c * once])
    order = pattern.by_time
    tied = bool(pattern.gap.any())
    if pattern.gaps.size > 1:
        matrices, vectors = matrices[order], vectors[order]
    none = np.zeros((n_groups, r, r))
    coupling = Coupling(
        time=pattern.time[order],
        gap=pattern.gap[order],
        now=unpack(matrices[:, :k]),
        cross=unpack(matrices[:, k : 2 * k]) if tied else none,
        before=unpack(matrices[:, 2 * k :]) if tied else none,
        vector_now=np.ascontiguousarray(vectors[:, :r]),
        vector_before=np.ascontiguousarray(vectors[:, r:]),
        offsets=pattern.group_offsets,
    )
    now, cross, before = pattern.squares
    squares = float(((now - 2.0 * power * cross + power**2 * before) / variance).sum())
    return coupling, -0.5 * (squares + logs)


def _constraints(parameters: DynamicFactorParameters, pattern: ObservationPattern) -> Constraints:
    """Aggregates as exact observations; the oldest idiosyncratic term of an aggregate is its pivot."""
    r, n_low = parameters.loadings.shape[1], pattern.low.size
    weights = pattern.weights[pattern.low_series] if n_low else np.zeros((0, 1))
    count, reach = weights.shape
    coefficients = np.zeros((count, reach, r + n_low))
    rows = np.arange(count)
    if n_low:
        loadings = parameters.loadings[pattern.low][pattern.low_series]
        coefficients[:, :, :r] = weights[:, :, None] * loadings[:, None, :]
        coefficients[rows, :, r + pattern.low_series] = weights
        oldest = reach - 1 - (weights[:, ::-1] != 0.0).argmax(axis=1)
    else:
        oldest = np.zeros(0, dtype=np.int64)
    return Constraints(
        time=pattern.low_time,
        value=pattern.low_value,
        coefficients=coefficients,
        pivot_lag=oldest,
        pivot=r + pattern.low_series,
        offsets=pattern.low_offsets,
    )
