"""Dynamic factors from any pattern of missing cells: filter, smoother, likelihood, forecasts.

Model        z_t = L s_t,(1..k) + e_t,  e_t ~ N(0, diag(v_t))             z_t (d,)  L (d, k)  v_t (d,) > 0
             f_t = c + A_1 f_(t-1) + ... + A_p f_(t-p) + u_t,  u_t ~ N(0, Q)          f_t (r,)  Q semidefinite
State        s_t = (f_t, f_(t-1), ..., f_(t-n+1)),  m = n r entries, n = `depth` >= p: observations may load
             on lags, k = r for loadings on f_t alone, k = 2 r for f_t and f_(t-1), ...
Start        s_1 ~ N(mean, P_0), stationary unless given: mean = (I - sum A_l)^-1 c, P_0 = F P_0 F' + Q (F the
             companion matrix)
Collapse     with R_t = diag(v_t) over the cells o observed in t, everything the data say about s_t is
                 b_t = L_o' R_t^-1 z_o  (k,),   C_t = L_o' R_t^-1 L_o  (k, k),
             two matrix products for all periods; what does not depend on the state,
             -1/2 (|o| log 2 pi + log|R_t| + z_o' R_t^-1 z_o), is kept for the likelihood. Information from
             several groups of series adds up, so a caller may weight groups by time as it likes.
Recursions   of m x m matrices, independent of d: module `recursions`. Once C_t repeats and the covariances
             have settled they are copied. C_t may be singular or zero, Q and P_0 may be singular.
Cost         O(T d k^2) in two products, then O(T m^3)

Dividing zero-mean data by a power of two changes nothing but exponents: no tolerance here has a unit.

References: Jungbacker & Koopman (2015), Econometrics Journal 18(2), C1-C21, section 2 (collapsed
observations); Durbin & Koopman (2012), Time Series Analysis by State Space Methods, chapter 4; Fraser &
Potter (1969), IEEE Transactions on Automatic Control 14(4), 387-390 (the smoother as two filters).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentfactors.kernels.autoregression import VectorAutoregression, companion_radius
from latentfactors.kernels.linalg import outer_products

FloatArray = NDArray[np.float64]

# Doublings after which a radius of 1 - 1e-12 has died out.
DOUBLINGS = 46

# Rows up to which `stationary_covariance` sums in compiled loops.
_SMALL = 32


@dataclass(frozen=True, eq=False)
class Dynamics:
    """The factors' law of motion, stacked to the depth that observations need.

    Attributes
    ----------
    transition : (r, m), (A_1, ..., A_p, 0, ..., 0): f_t = intercept + transition @ s_(t-1) + u_t
    intercept : (r,)
    innovation : (r, r), Q
    start_mean : (m,), of s_1 = (f_1, f_0, ...) before any data
    start_covariance : (m, m), P_0
    """

    transition: FloatArray
    intercept: FloatArray
    innovation: FloatArray
    start_mean: FloatArray
    start_covariance: FloatArray


@dataclass(frozen=True, eq=False)
class Observations:
    """Values and their mask, prepared once for many evaluations.

    Attributes
    ----------
    filled : (T, d), values with 0 where missing
    mask : (T, d), 1.0 where observed, else 0.0
    complete : (T,), whether every cell of the period is observed
    """

    filled: FloatArray
    mask: FloatArray
    complete: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Information:
    """What the observations of each period say about the leading k entries of the state.

    log p(z_t | s_t) = remainder_t + linear_t's - s'C_t s / 2, s the leading k entries of s_t.

    Attributes
    ----------
    linear : (T, k), b_t
    precision : (T, k(k+1)/2), C_t packed: the upper triangle row by row (`linalg.pack`)
    remainder : (T,), -1/2 (n_t log 2 pi + log|R_t| + z_t'R_t^-1 z_t)
    """

    linear: FloatArray
    precision: FloatArray
    remainder: FloatArray

    def __add__(self, other: Information) -> Information:
        """Information of two groups of series whose noises are independent."""
        return Information(
            self.linear + other.linear,
            self.precision + other.precision,
            self.remainder + other.remainder,
        )


@dataclass(frozen=True, eq=False)
class FilterResult:
    """One-sided moments of the state.

    Attributes
    ----------
    predicted_mean, predicted_covariance : (T, m), (T, m, m): s_t given the data before t
    mean, covariance : (T, m), (T, m, m): s_t given the data up to and including t
    loglikelihood : log p(z_1, ..., z_T)
    terms : (T,), log p(z_t | z_1, ..., z_(t-1)); sum to `loglikelihood`
    source : (T,), period from which the filtered covariance was copied (its own number where computed)
    """

    predicted_mean: FloatArray
    predicted_covariance: FloatArray
    mean: FloatArray
    covariance: FloatArray
    loglikelihood: float
    terms: FloatArray
    source: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SmootherResult:
    """Moments of the state given all data.

    Attributes
    ----------
    mean, covariance : (T, m), (T, m, m)
    lagged : (T, r, m), Cov(f_t, s_(t-1)); the first entry is zero
    """

    mean: FloatArray
    covariance: FloatArray
    lagged: FloatArray


# Law of motion ----------------------------------------------------------------------------------------------


def companion_matrix(transition: FloatArray) -> FloatArray:
    """F (m, m): `transition` (r, m) above the shift that moves every lag down by one."""
    r, m = transition.shape
    return np.vstack([transition, np.eye(m - r, m)])


def stationary_covariance(companion: FloatArray, noise: FloatArray) -> FloatArray:
    """P = F P F' + W by doubling: P <- P + F P F', F <- F F. Semidefinite whenever W is.

    Parameters
    ----------
    companion : (m, m), spectral radius below 1
    noise : (m, m), W, semidefinite

    Raises
    ------
    ValueError
        if the sum does not converge: the radius is 1 or more
    """
    # compiled loops beat BLAS calls while matrices are small
    if len(noise) <= _SMALL:
        from latentfactors.kernels.stationary import doubling_sum

        first, step = np.ascontiguousarray(noise), np.ascontiguousarray(companion)
        total, converged = doubling_sum(first, step, DOUBLINGS)
        if converged:
            return total
    total, power = noise.copy(), companion
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(DOUBLINGS if len(noise) > _SMALL else 0):
            step = power @ total @ power.T
            total = total + (step + step.T) / 2
            size = float(np.abs(step).max(initial=0.0))
            if not math.isfinite(size):
                break
            if size <= 1e-17 * float(np.abs(total).max()):
                return total
            power = power @ power
    radius = float(np.abs(np.linalg.eigvals(companion)).max())
    raise ValueError(f"companion radius {radius:.12g}: expected below 1 for a stationary start")


def dynamics(
    var: VectorAutoregression,
    *,
    depth: int | None = None,
    start: tuple[FloatArray, FloatArray] | None = None,
) -> Dynamics:
    """Stack a VAR and give it a start.

    Parameters
    ----------
    var : p lags, r series
    depth : n, number of factor vectors in the state, at least p (default p)
    start : (mean (m,), covariance (m, m)) of s_1 = (f_1, f_0, ...) before any data; default: stationary

    Raises
    ------
    ValueError
        if the depth is below p, or no start is given and the VAR is not stationary

    Examples
    --------
    >>> import numpy as np
    >>> law = dynamics(VectorAutoregression(np.zeros(1), np.array([[[0.6]]]), np.array([[0.64]])), depth=2)
    >>> law.start_covariance.round(12).tolist()
    [[1.0, 0.6], [0.6, 1.0]]
    """
    lags, r, _ = var.coefficients.shape
    n = lags if depth is None else depth
    if n < lags:
        raise ValueError(f"depth={n}: expected at least the number of lags, {lags}")
    m = n * r
    transition = np.zeros((r, m))
    transition[:, : lags * r] = np.hstack(list(var.coefficients))
    intercept = np.array(var.intercept, dtype=np.float64)
    innovation = np.array(var.covariance, dtype=np.float64)
    if start is not None:
        return Dynamics(
            transition,
            intercept,
            innovation,
            np.array(start[0], dtype=np.float64),
            np.array(start[1], dtype=np.float64),
        )
    radius = companion_radius(var.coefficients)
    if not radius < 1.0:
        raise ValueError(f"companion radius {radius:.12g}: expected below 1 for a stationary start")
    noise = np.zeros((m, m))
    noise[:r, :r] = innovation
    mean = np.linalg.solve(np.eye(r) - var.coefficients.sum(axis=0), intercept)
    covariance = stationary_covariance(companion_matrix(transition), noise)
    return Dynamics(transition, intercept, innovation, np.tile(mean, n), covariance)


# Collapse ---------------------------------------------------------------------------------------------------


def observe(values: ArrayLike) -> Observations:
    """Values (T, d), NaN where missing, ready for `collapse`."""
    array = np.asarray(values, dtype=np.float64)
    mask = np.ascontiguousarray(np.isfinite(array), dtype=np.float64)
    filled = np.ascontiguousarray(np.where(mask == 1.0, array, 0.0))
    return Observations(filled, mask, np.asarray(mask.sum(axis=1) == array.shape[1]))


def collapse(
    observations: Observations, loadings: FloatArray, variances: FloatArray, *, by_period: bool = False
) -> Information:
    """b_t, C_t and the remainder of the likelihood over the observed cells of every period.

    Parameters
    ----------
    observations : (T, d), from `observe`
    loadings : (d, k)
    variances : (d,) or, different in every period, (T, d); positive
    by_period : every period by products of its own, so that its bits do not depend on how many periods there
        are: for one-sided extraction. One product for all periods is faster: for estimation.

    Raises
    ------
    ValueError
        if a variance is not positive and finite
    """
    if not np.all((variances > 0.0) & np.isfinite(variances)):
        raise ValueError("variances: expected positive finite numbers")
    filled, mask = observations.filled, observations.mask
    products = outer_products(loadings)
    logs = np.log(2.0 * math.pi * variances)
    if variances.ndim == 1:
        weighted, products = loadings / variances[:, None], products / variances[:, None]
        linear = _product(filled, weighted, by_period)
        precision = _product(mask, products, by_period)
        # complete periods share one matrix to the bit, which is what lets the recursions settle
        precision[observations.complete] = np.dot(np.ones(len(loadings)), products)
        remainder = _product(np.square(filled), 1.0 / variances[:, None], by_period)[:, 0]
        remainder += _product(mask, logs[:, None], by_period)[:, 0]
    else:
        scaled = filled / variances
        linear = _product(scaled, loadings, by_period)
        precision = _product(mask / variances, products, by_period)
        remainder = np.einsum("td,td->t", scaled, filled) + np.einsum("td,td->t", mask, logs)
    return Information(linear, precision, -0.5 * remainder)


def _product(left: FloatArray, right: FloatArray, by_period: bool) -> FloatArray:
    if not by_period:
        return left @ right
    out = np.empty((len(left), right.shape[1]))
    for t in range(len(left)):
        np.dot(left[t], right, out=out[t])
    return out


# Recursions -------------------------------------------------------------------------------------------------


def filter_states(information: Information, law: Dynamics) -> FilterResult:
    """Predicted and filtered moments and the exact log-likelihood.

    Parameters
    ----------
    information : (T, k) and (T, k(k+1)/2), k at most m; finite
    law : state of m entries

    Raises
    ------
    ValueError
        if shapes do not fit or the information is not finite
    """
    # numba loads in a third of a second: when used, not when imported
    from latentfactors.kernels import recursions

    linear, precision = _checked(information, law)
    predicted_mean, predicted_covariance, mean, covariance, terms, source = recursions.forward(
        linear,
        precision,
        *_arguments(law),
        *map(np.ascontiguousarray, (law.start_mean, law.start_covariance)),
    )
    terms = terms + information.remainder
    return FilterResult(
        predicted_mean, predicted_covariance, mean, covariance, float(terms.sum()), terms, source
    )


def smooth_states(information: Information, law: Dynamics, filtered: FilterResult) -> SmootherResult:
    """Moments given all data and lag-one covariances; `filtered` is `filter_states` of the same arguments."""
    from latentfactors.kernels import recursions

    linear, precision = _checked(information, law)
    return SmootherResult(
        *recursions.backward(
            linear, precision, *_arguments(law), filtered.mean, filtered.covariance, filtered.source
        )
    )


def forecast_states(
    mean: FloatArray, covariance: FloatArray, law: Dynamics, horizon: int
) -> tuple[FloatArray, FloatArray]:
    """Moments of s_(t+horizon) from those of s_t: F^h m + sum_(i<h) F^i c, F^h P F^h' + sum_(i<h) F^i Q F^i'.

    Parameters
    ----------
    mean, covariance : (T, m), (T, m, m), filtered; any number T of origins, treated one by one
    horizon : steps, at least 1

    Returns
    -------
    mean, covariance : (T, m), (T, m, m); the leading r entries are f_(t+horizon)
    """
    if horizon < 1:
        raise ValueError(f"horizon={horizon}: expected at least 1")
    r, m = law.transition.shape
    step = companion_matrix(law.transition)
    power, shift, noise = np.eye(m), np.zeros(m), np.zeros((m, m))
    drift, innovation = np.zeros(m), np.zeros((m, m))
    drift[:r], innovation[:r, :r] = law.intercept, law.innovation
    for _ in range(horizon):
        power, shift, noise = step @ power, step @ shift + drift, step @ noise @ step.T + innovation
    # the sums run over columns, so that no origin's bits depend on how many others there are
    means = np.broadcast_to(shift, mean.shape)
    for column in range(m):
        means = means + mean[:, column, None] * power[:, column]
    spread = (
        np.stack([power @ one @ power.T + noise for one in covariance]) if len(covariance) else covariance
    )
    return means, (spread + spread.transpose(0, 2, 1)) / 2


def _arguments(law: Dynamics) -> tuple[FloatArray, FloatArray, FloatArray]:
    return (
        np.ascontiguousarray(law.transition),
        np.ascontiguousarray(law.intercept),
        np.ascontiguousarray(law.innovation),
    )


def _checked(information: Information, law: Dynamics) -> tuple[FloatArray, FloatArray]:
    linear = np.ascontiguousarray(information.linear, dtype=np.float64)
    precision = np.ascontiguousarray(information.precision, dtype=np.float64)
    k, m = linear.shape[1], law.transition.shape[1]
    if k > m or precision.shape != (len(linear), k * (k + 1) // 2) or len(linear) == 0:
        raise ValueError(
            f"information: expected (T, k) and (T, k(k+1)/2) with T >= 1 and k at most {m}, "
            f"got {linear.shape} and {precision.shape}"
        )
    if not (np.isfinite(linear).all() and np.isfinite(precision).all()):
        raise ValueError("information: expected finite numbers; a missing cell adds nothing to either array")
    return linear, precision
