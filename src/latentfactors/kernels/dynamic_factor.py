"""Expectation and conditional-maximisation steps of the dynamic factor model.

    y_it = lambda_i'f_t + e_it,   e_it = phi_i e_i,t-1 + v_it,  v_it ~ N(0, s_i)     (phi_i = 0: iid terms)
    f_t  = A_1 f_(t-1) + ... + A_p f_(t-p) + u_t,               u_t ~ N(0, Q), stationary start
    low-frequency series i:  Y_it = sum_l w_l (lambda_i'f_(t-l) + e_i,t-l)  without further noise

An ordinary series with any gaps is an exact chain of quasi-differences: its observations d periods apart give

    y_t - phi^d y_(t-d) = lambda'(f_t - phi^d f_(t-d)) + N(0, s (1 - phi^2d)/(1 - phi^2)),

and its first one has the stationary variance, so its idiosyncratic term needs no state. A low-frequency
series carries its own e in x_t = (f_t, e_t) and enters as an exact constraint. What remains is a
`gaussian_sequence`.

Steps       loadings by generalised least squares given phi; then (phi, s), see `idiosyncratic`. Each raises
            the expected log-likelihood, so the likelihood never falls (an ECM).
Low freq.   complete data are the latent high-frequency y*: lambda moves by N^-1 sum E[f~ e~]
Cost        the observations enter by three products (G, n) @ (n, r^2), G = periods x distinct gaps

References: Banbura & Modugno (2014), J. of Applied Econometrics 29(1), 133-160, eqs. (1)-(5), section 3;
Jungbacker & Koopman (2015), Econometrics Journal 18(2), C1-C21; Meng & Rubin (1993), Biometrika 80, on ECM;
Mariano & Murasawa (2003), J. of Applied Econometrics 18(4), eq. (4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.gaussian_sequence import Constraints, Coupling, Elimination, eliminate, smooth
from latentfactors.kernels.state_space import companion_matrix, stationary_covariance

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


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
    """

    loadings: FloatArray
    persistence: FloatArray
    variance: FloatArray
    transition: FloatArray
    innovation: FloatArray


@dataclass(frozen=True, eq=False)
class ObservationPattern:
    """Values and which of them form quasi-differences; periods count from `lead` periods before the data.

    Attributes
    ----------
    n_periods : T + lead
    lead : periods put before the data so that every lag of an aggregate exists
    band : reach of a term, in periods
    ordinary, low : positions of the series that are observed as they are, and as aggregates
    time, gap : (G,) groups of pairs
    present : (G, n_ordinary) 1.0 where the series has an observation in the group's period, d after its last
    current, previous : (G, n_ordinary) its value then and d periods before, 0 where absent
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
    low_time: IntArray
    low_series: IntArray
    low_value: FloatArray
    weights: FloatArray


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
    values: FloatArray, *, autoregressive: bool, lags: int, weights: FloatArray | None = None
) -> ObservationPattern:
    """Sort out (T, n) values with gaps.

    Parameters
    ----------
    values : NaN where missing
    autoregressive : whether consecutive observations of a series are tied
    lags : p of the factors
    weights : (n, L), newest first, the row (1, 0, ..., 0) for an ordinary series; None: all are
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
    widest = int(gap.max(initial=0)) + 1
    keys, group = np.unique(rows * widest + gap, return_inverse=True)
    shape = (keys.size, ordinary.size)
    present, current, previous = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    ordinary_values = values[:, ordinary]
    present[group, columns] = 1.0
    current[group, columns] = ordinary_values[rows, columns]
    tied = gap > 0
    previous[group[tied], columns[tied]] = ordinary_values[rows[tied] - gap[tied], columns[tied]]
    low_rows, low_columns = np.nonzero(np.isfinite(values[:, low]))
    return ObservationPattern(
        n_periods=n_periods + lead,
        lead=lead,
        band=max(lags, reach - 1, widest - 1),
        ordinary=ordinary,
        low=low,
        time=keys // widest + lead,
        gap=keys % widest,
        present=present,
        current=current,
        previous=previous,
        low_time=low_rows + lead,
        low_series=low_columns,
        low_value=values[:, low][low_rows, low_columns],
        weights=weights[low, :reach],
    )


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
    )
    return forward, constant


def state_law(
    parameters: DynamicFactorParameters, pattern: ObservationPattern
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Transition (p, m, m), innovation (m, m) and stationary covariance (p m, p m), oldest first, of x."""
    p, r = parameters.transition.shape[:2]
    phi, s = parameters.persistence[pattern.low], parameters.variance[pattern.low]
    m = r + phi.size
    transition, innovation = np.zeros((p, m, m)), np.zeros((m, m))
    transition[:, :r, :r] = parameters.transition
    innovation[:r, :r] = parameters.innovation
    inner = np.arange(r, m)
    transition[0, inner, inner] = phi
    innovation[inner, inner] = s
    start = np.zeros((p, m, p, m))
    companion, noise = companion_matrix(np.hstack(list(parameters.transition))), np.zeros((p * r, p * r))
    noise[:r, :r] = parameters.innovation
    factors = stationary_covariance(companion, noise).reshape(p, r, p, r)
    start[:, :r, :, :r] = factors[::-1, :, ::-1]
    distance = np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    for k, position in enumerate(inner):
        start[:, position, :, position] = s[k] * phi[k] ** distance / (1.0 - phi[k] ** 2)
    return transition, innovation, start.reshape(p * m, p * m)


def _relative_variance(phi: FloatArray, gap: IntArray) -> tuple[FloatArray, FloatArray]:
    """phi^d (G, n) and (1 - phi^2d)/(1 - phi^2), which is 1/(1 - phi^2) for gap 0, a first observation."""
    power = np.where(gap[:, None] > 0, phi[None, :] ** gap[:, None], 0.0)
    return power, (1.0 - power**2) / (1.0 - phi**2)


def _weights(
    parameters: DynamicFactorParameters, pattern: ObservationPattern
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """phi^d, precision of every quasi-difference (0 where there is none), and their variances."""
    phi, s = parameters.persistence[pattern.ordinary], parameters.variance[pattern.ordinary]
    power, relative = _relative_variance(phi, pattern.gap)
    variance = s * relative
    return power, pattern.present / variance, variance


def _collapse(parameters: DynamicFactorParameters, pattern: ObservationPattern) -> tuple[Coupling, float]:
    """Information of all ordinary observations on the factors, and the constants of their densities."""
    loadings = parameters.loadings[pattern.ordinary]
    n, r = loadings.shape
    power, precision, variance = _weights(parameters, pattern)
    products = (loadings[:, :, None] * loadings[:, None, :]).reshape(n, r * r)
    tied = precision * power
    difference = pattern.current - power * pattern.previous
    shape = (pattern.time.size, r, r)
    coupling = Coupling(
        time=pattern.time,
        gap=pattern.gap,
        now=(precision @ products).reshape(shape),
        cross=(tied @ products).reshape(shape),
        before=((tied * power) @ products).reshape(shape),
        vector_now=(precision * difference) @ loadings,
        vector_before=(tied * difference) @ loadings,
    )
    squares = float((precision * difference**2).sum())
    logs = float((pattern.present * np.log(variance)).sum())
    return coupling, -0.5 * (squares + logs + float(pattern.present.sum()) * math.log(2.0 * math.pi))


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
    )


# ------------------------------------------------------------------------ conditional maximisation


def second_moments(expected: Expectation, lag: int) -> FloatArray:
    """(T', m, m) E[x_t x_(t-lag)'] for t = lag, ..., T'-1 at positions t; zeros before."""
    means = expected.means
    moments = expected.covariances[:, lag].copy()
    moments[lag:] += means[lag:, :, None] * means[: means.shape[0] - lag, None, :]
    return moments


def loading_step(
    parameters: DynamicFactorParameters,
    expected: Expectation,
    pattern: ObservationPattern,
    allowed: BoolArray | None = None,
) -> DynamicFactorParameters:
    """lambda_i = (sum w E[f~ f~'])^-1 sum w E[f~] y~ with f~ = f_t - phi^d f_(t-d), w = 1/variance.

    `allowed` (n, r): loadings that are not fixed at zero (blocks).
    """
    normal, right = loading_equations(parameters, expected, pattern)
    return replace(parameters, loadings=_solve_allowed(normal, right, allowed))


def loading_score(
    parameters: DynamicFactorParameters,
    expected: Expectation,
    pattern: ObservationPattern,
    allowed: BoolArray | None = None,
) -> float:
    """Root mean square of the score of the loadings in complete-data standard errors, g_k / N_kk^1/2."""
    normal, right = loading_equations(parameters, expected, pattern)
    score = right - np.einsum("nij,nj->ni", normal, parameters.loadings)
    size = np.sqrt(np.maximum(np.einsum("nii->ni", normal), np.finfo(float).tiny))
    scaled = score / size
    return float(np.sqrt(np.mean((scaled if allowed is None else scaled[allowed]) ** 2)))


def loading_equations(
    parameters: DynamicFactorParameters, expected: Expectation, pattern: ObservationPattern
) -> tuple[FloatArray, FloatArray]:
    """Normal matrices (n, r, r) and right sides (n, r) of the generalised least squares of all series."""
    n, r = parameters.loadings.shape
    power, precision, _ = _weights(parameters, pattern)
    time, before = pattern.time, pattern.time - pattern.gap
    squares = second_moments(expected, 0)[:, :r, :r]
    tied = precision * power
    flat = (pattern.time.size, r * r)
    normal, right = np.zeros((n, r, r)), np.zeros((n, r))
    sums = precision.T @ squares[time].reshape(flat)
    difference, means = pattern.current - power * pattern.previous, expected.means[:, :r]
    vectors = (precision * difference).T @ means[time]
    if pattern.gap.any():
        cross = _lagged(expected, pattern, r)
        sums -= tied.T @ (cross + cross.transpose(0, 2, 1)).reshape(flat)
        sums += (tied * power).T @ squares[before].reshape(flat)
        vectors -= (tied * difference).T @ means[before]
    normal[pattern.ordinary], right[pattern.ordinary] = sums.reshape(-1, r, r), vectors
    if pattern.low.size:
        normal[pattern.low], right[pattern.low] = _low_equations(parameters, expected, pattern)
    return normal, right


def _lagged(expected: Expectation, pattern: ObservationPattern, r: int) -> FloatArray:
    """(G, r, r) E[f_t f_(t-d)'] of every group; zero for gap 0, where it is not used."""
    means = expected.means[:, :r]
    before = pattern.time - pattern.gap
    cross = expected.covariances[pattern.time, pattern.gap, :r, :r]
    cross = cross + means[pattern.time][:, :, None] * means[before][:, None, :]
    cross[pattern.gap == 0] = 0.0
    return cross


def _solve_allowed(normal: FloatArray, right: FloatArray, allowed: BoolArray | None) -> FloatArray:
    """Solutions of n small systems, restricted to the allowed coordinates."""
    n, r = right.shape
    # relative to the equation's own size: a factor that a series hardly sees must not blow up its loading
    trace = np.einsum("nii->n", normal) / r
    ridge = 1e-13 * np.where(trace > 0.0, trace, 1.0)
    normal = normal + ridge[:, None, None] * np.eye(r)
    if allowed is None or bool(allowed.all()):
        return np.asarray(np.linalg.solve(normal, right[:, :, None])[:, :, 0], dtype=np.float64)
    solution = np.zeros((n, r))
    for pattern in np.unique(allowed, axis=0):
        rows, free = np.flatnonzero((allowed == pattern).all(axis=1)), np.flatnonzero(pattern)
        if free.size:
            block = normal[np.ix_(rows, free, free)]
            solution[np.ix_(rows, free)] = np.linalg.solve(block, right[np.ix_(rows, free)][:, :, None])[
                :, :, 0
            ]
    return solution


def _low_equations(
    parameters: DynamicFactorParameters, expected: Expectation, pattern: ObservationPattern
) -> tuple[FloatArray, FloatArray]:
    """The same for aggregates: the latent y* = lambda'f + e is complete, its first term stationary."""
    r = parameters.loadings.shape[1]
    now, lagged = second_moments(expected, 0), second_moments(expected, 1)[1:]
    first, later, earlier = now[0], now[1:].sum(axis=0), now[:-1].sum(axis=0)
    cross = lagged.sum(axis=0)
    normal, right = [], []
    for k, series in enumerate(pattern.low):
        phi = parameters.persistence[series]
        moments = later - phi * (cross + cross.T) + phi**2 * earlier + (1.0 - phi**2) * first
        moments = moments / parameters.variance[series]
        normal.append(moments[:r, :r])
        # e is x[r + k]; the latent series' quasi-difference is lambda'f~ + e~
        right.append(moments[:r, :r] @ parameters.loadings[series] + moments[:r, r + k])
    return np.array(normal), np.array(right)
