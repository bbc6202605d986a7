"""Dynamic factors of predictors and targets, of one frequency or several, by exact maximum likelihood.

Model            x_t = P f_t + e_x,  y_t = Q f_t + e_y,  e_x ~ N(0, s_x^2 I),  e_y ~ N(0, s_y^2 I)
                 f_t = A_1 f_(t-1) + ... + A_p f_(t-p) + u_t,  u_t ~ N(0, V_F = I), stationary;
                 p = 0: f_t ~ N(0, I), independent.
                 Blocks of series generalise (x, y): any number, each with its noise variance (shared by
                 naming the same group) and, for low-frequency targets, weights on the latest periods' factors
                 (`mixed_frequency`).
Gauge            V_F = I is the covariance of the *innovations*: it fixes the scale of the factors, whose own
                 covariance is the stationary P_0(A). Left free is a rotation, f -> R'f, A_l -> R'A_l R: it
                 makes the precision of the collapsed data, P'P/s_x^2 + Q'Q/s_y^2, diagonal and descending,
                 with signs such that the first target loads positively.
Estimation       EM over all observed cells, any pattern. The M-step estimates the innovation covariance
                 freely and then turns it into I (parameter expansion: the likelihood is the same, and scale
                 directions are no longer slow); the VAR step includes the stationary start and is accepted
                 only if it rises (`factor_em`). Accelerated by SQUAREM, whose guard refuses extrapolations
                 that lower the likelihood or leave the stationary region. The likelihood never decreases.
Prediction       the same filter over a subset of blocks: predictors alone, or with released targets.
Cost             O(T d k^2) an iteration and recursions of order k H

References: Herculano & Montoya-Blandon (2026), probabilistic targeted factor analysis; Shumway & Stoffer
(1982), Journal of Time Series Analysis 3(4), 253-264; Liu, Rubin & Wu (1998), Biometrika 85(4), 755-770
(parameter expansion); Varadhan & Roland (2008), Scandinavian Journal of Statistics 35(2), 335-353.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentfactors.kernels.autoregression import VectorAutoregression, fit_var
from latentfactors.kernels.em import squarem
from latentfactors.kernels.factor_em import (
    LoadingMoments,
    VarMoments,
    loading_moments,
    loading_step,
    residual_squares,
    var_moments,
    var_step,
)
from latentfactors.kernels.mixed_frequency import (
    SeriesBlock,
    aggregated_moments,
    block_information,
    jacobian,
    widened,
)
from latentfactors.kernels.state_space import (
    Dynamics,
    FilterResult,
    Information,
    SmootherResult,
    dynamics,
    filter_states,
    smooth_states,
)

FloatArray = NDArray[np.float64]

# of a group's mean square: where the factors reproduce the data the likelihood has no maximum; far below this
# its terms cancel to more digits than numbers have
_NOISE_FLOOR = 1e-8


@dataclass(frozen=True, eq=False)
class FactorParameters:
    """Parameters in the gauge V_F = I.

    Attributes
    ----------
    loadings : one (d_b, k) for every block
    variances : (G,), noise variance of every group
    coefficients : (p, k, k), A_1 ... A_p; p = 0 without dynamics
    """

    loadings: tuple[FloatArray, ...]
    variances: FloatArray
    coefficients: FloatArray


@dataclass(frozen=True, eq=False)
class FactorFit:
    """Maximum-likelihood fit of dynamic factors.

    Attributes
    ----------
    parameters : identified as the module says
    loglikelihood : of all observed cells, in the units of the values
    objective_path : log-likelihoods of the accepted points, never falling
    n_iterations : EM steps
    converged, reason : whether the iteration met its tolerance, and the sentence that says so
    """

    parameters: FactorParameters
    loglikelihood: float
    objective_path: tuple[float, ...]
    n_iterations: int
    converged: bool
    reason: str


def fit_factors(
    blocks: Sequence[SeriesBlock],
    start: FactorParameters,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 5000,
    sign_block: int = -1,
) -> FactorFit:
    """Maximum likelihood from a given start.

    Parameters
    ----------
    blocks : each (T, d_b); at least one observed cell in every group
    start : loadings, variances, and stationary coefficients, whose number of lags is that of the model; see
        `dynamic_start` for one from a static fit
    tolerance : stop when neither the loadings (relative to their norm), nor the coefficients, nor the log
        variances move by more
    max_iterations : largest number of EM steps
    sign_block : block whose first series loads positively on every factor

    Returns
    -------
    FactorFit

    Raises
    ------
    ValueError
        if there are fewer than k p + 2 periods: the transitions could be fitted without error

    Notes
    -----
    With p > 0 or windows of several periods there may be several maxima; the one reached depends on the
    start.
    """
    lags, k, _ = start.coefficients.shape
    n_periods = len(blocks[0].scale)
    if n_periods < k * lags + 2:
        raise ValueError(
            f"{n_periods} periods: expected at least {k * lags + 2} for {k} factors with {lags} lags"
        )
    shapes = [loadings.shape for loadings in start.loadings]
    sizes = [rows * columns for rows, columns in shapes]
    n_groups, lags_shape = len(start.variances), start.coefficients.shape
    floor = _floors(blocks, n_groups)
    ends = np.cumsum([*sizes, n_groups])

    def split(x: FloatArray) -> FactorParameters:
        parts = np.split(x, ends)
        loadings = tuple(part.reshape(shape) for part, shape in zip(parts[:-2], shapes, strict=True))
        variances = np.maximum(np.exp(np.minimum(parts[-2], 300.0)), floor)
        return FactorParameters(loadings, variances, parts[-1].reshape(lags_shape))

    def join(p: FactorParameters) -> FloatArray:
        return np.concatenate(
            [*(part.ravel() for part in p.loadings), np.log(p.variances), p.coefficients.ravel()]
        )

    def step(x: FloatArray) -> tuple[FloatArray, float]:
        try:
            image, value = em_step(blocks, split(x), floor)
        except (ValueError, np.linalg.LinAlgError):
            return x, math.inf  # an extrapolation outside the stationary region
        return join(image), -value

    def distance(new: FloatArray, old: FloatArray) -> float:
        change, loaded = new - old, int(ends[-2])
        size = float(np.linalg.norm(new[:loaded])) or 1.0
        return max(
            float(np.linalg.norm(change[:loaded])) / size, float(np.abs(change[loaded:]).max(initial=0.0))
        )

    found = squarem(step, join(start), distance=distance, tolerance=tolerance, max_iterations=max_iterations)
    parameters = identify(blocks, split(found.parameters), sign_block=sign_block)
    value = filter_factors(blocks, parameters).loglikelihood
    path = (*(-one for one in found.objective_path), value)
    return FactorFit(parameters, value, path, found.n_iterations, found.converged, found.reason)


def filter_factors(
    blocks: Sequence[SeriesBlock],
    parameters: FactorParameters,
    *,
    use: Sequence[int] | None = None,
    by_period: bool = False,
) -> FilterResult:
    """One-sided moments of the factors and the exact log-likelihood of the blocks used.

    Parameters
    ----------
    blocks : as in the fit; rows may be other periods
    parameters : one loadings array for every block
    use : places of the blocks to look at, None for all; `use=(0,)` with predictors first is the filter that
        knows no target
    by_period : bits of a period that do not depend on how many follow; for extraction

    Returns
    -------
    FilterResult
        whose state has f_t first, then carried noises of the blocks used, then the same for earlier periods;
        `law` gives the matching law of motion
    """
    blocks, parameters = _chosen(blocks, parameters, use)
    filtered = filter_states(information(blocks, parameters, by_period=by_period), law(blocks, parameters))
    shift = sum(jacobian(block) for block in blocks)
    return FilterResult(
        filtered.predicted_mean,
        filtered.predicted_covariance,
        filtered.mean,
        filtered.covariance,
        filtered.loglikelihood + shift,
        filtered.terms - sum(np.log(block.scale) * block.observations.mask.sum(axis=1) for block in blocks),
        filtered.source,
    )


def smooth_factors(blocks: Sequence[SeriesBlock], parameters: FactorParameters) -> SmootherResult:
    """Two-sided moments of the factors given all blocks."""
    data, motion = information(blocks, parameters), law(blocks, parameters)
    return smooth_states(data, motion, filter_states(data, motion))


def law(
    blocks: Sequence[SeriesBlock], parameters: FactorParameters, *, use: Sequence[int] | None = None
) -> Dynamics:
    """Law of motion of (f_t, carried noises), stacked as deep as the blocks and the lags ask."""
    blocks, parameters = _chosen(blocks, parameters, use)
    lags, k, _ = parameters.coefficients.shape
    places = carried_places(blocks, k)
    r = places[-1].stop if places else k
    coefficients, innovation = np.zeros((max(lags, 1), r, r)), np.eye(r)
    coefficients[:lags, :k, :k] = parameters.coefficients
    for block, place in zip(blocks, places, strict=True):
        innovation[place, place] *= parameters.variances[block.group]
    depth = max([lags, 1, *(block.depth for block in blocks)])
    return dynamics(VectorAutoregression(np.zeros(r), coefficients, innovation), depth=depth)


def information(
    blocks: Sequence[SeriesBlock], parameters: FactorParameters, *, by_period: bool = False
) -> Information:
    """Collapsed observations of all blocks."""
    places = carried_places(blocks, parameters.coefficients.shape[1])
    width = places[-1].stop
    size = width * max(block.depth for block in blocks)
    parts = [
        widened(
            block_information(
                block,
                loadings,
                float(parameters.variances[block.group]),
                carried=place,
                width=width,
                by_period=by_period,
            ),
            size,
        )
        for block, loadings, place in zip(blocks, parameters.loadings, places, strict=True)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


# EM ---------------------------------------------------------------------------------------------------------


def em_step(
    blocks: Sequence[SeriesBlock], parameters: FactorParameters, floor: FloatArray
) -> tuple[FactorParameters, float]:
    """One EM step and the log-likelihood at its *input*.

    Raises
    ------
    ValueError
        if the coefficients are not stationary
    """
    k = parameters.coefficients.shape[1]
    data, motion = information(blocks, parameters), law(blocks, parameters)
    filtered = filter_states(data, motion)
    smoothed = smooth_states(data, motion, filtered)
    value = filtered.loglikelihood + sum(jacobian(block) for block in blocks)
    places = carried_places(blocks, k)
    moments = var_moments(smoothed, max(len(parameters.coefficients), 1))

    loadings = []
    sums, counts = np.zeros(len(parameters.variances)), np.zeros(len(parameters.variances))
    for block, place in zip(blocks, places, strict=True):
        seen = loading_moments(block.observations, *aggregated_moments(block, smoothed, k, place))
        seen = _without_carried(block, seen, k, place)
        step = loading_step(seen)
        loadings.append(step)
        sums[block.group] += residual_squares(seen, step).sum() / block.share
        counts[block.group] += seen.counts.sum()
        if block.n_carried:  # its noises in the state are draws from the same variance
            starts = np.diag(moments.start).reshape(-1, places[-1].stop)[:, place]
            sums[block.group] += moments.present[place, place].trace() + starts.sum()
            counts[block.group] += block.n_carried * moments.count + starts.size
    variances = np.where(counts > 0, sums / np.maximum(counts, 1.0), parameters.variances)
    variances = np.maximum(variances, floor)
    coefficients, innovation = _motion_step(parameters.coefficients, moments, k)
    return in_unit_gauge(FactorParameters(tuple(loadings), variances, coefficients), innovation), value


def in_unit_gauge(parameters: FactorParameters, innovation: FloatArray) -> FactorParameters:
    """The same model with innovation covariance I: L V^1/2, V^-1/2 A_l V^1/2, by the symmetric root.

    Continuous, and the identity at V = I, so that successive iterates stay aligned.
    """
    eigenvalues, vectors = np.linalg.eigh(innovation)
    root = (vectors * np.sqrt(eigenvalues)) @ vectors.T
    inverse = (vectors / np.sqrt(eigenvalues)) @ vectors.T
    return FactorParameters(
        tuple(loadings @ root for loadings in parameters.loadings),
        parameters.variances,
        inverse @ parameters.coefficients @ root,
    )


def identify(
    blocks: Sequence[SeriesBlock], parameters: FactorParameters, *, sign_block: int = -1
) -> FactorParameters:
    """Rotate to the principal axes of sum_b L_b'L_b / s_b^2, descending; signs by a block's first series.

    A factor on which that series does not load takes its sign from its largest loading.
    """
    pairs = zip(blocks, parameters.loadings, strict=True)
    weighted = np.vstack([part / math.sqrt(parameters.variances[block.group]) for block, part in pairs])
    axes = np.linalg.svd(weighted, full_matrices=True)[2].T
    turned = weighted @ axes
    first = parameters.loadings[sign_block][0] @ axes
    largest = turned[np.abs(turned).argmax(axis=0), np.arange(turned.shape[1])]
    sizes = np.abs(parameters.loadings[sign_block] @ axes).max(axis=0)
    signs = np.where(np.abs(first) > 1e-12 * sizes, first, largest)
    axes = axes * np.where(signs < 0, -1.0, 1.0)
    return FactorParameters(
        tuple(part @ axes for part in parameters.loadings),
        parameters.variances,
        axes.T @ parameters.coefficients @ axes,
    )


def dynamic_start(blocks: Sequence[SeriesBlock], static: FactorParameters, lags: int) -> FactorParameters:
    """Start for `fit_factors` from the maximum of the static model (coefficients of zero lags).

    The VAR is fitted to the static posterior means, which move like the factors but vary less; its
    innovations are therefore rescaled so that the factors' stationary variance is the static one, I.
    """
    k = static.coefficients.shape[1]
    if lags == 0:
        return FactorParameters(static.loadings, static.variances, np.zeros((0, k, k)))
    means = smooth_factors(blocks, static).mean[:, :k]
    var, _, _ = fit_var(means, lags, max_radius=0.95)
    spread = dynamics(VectorAutoregression(np.zeros(k), var.coefficients, var.covariance)).start_covariance
    root = np.linalg.cholesky(np.linalg.inv(spread[:k, :k])).T
    undo = np.linalg.inv(root)
    innovation = root @ var.covariance @ root.T
    rescaled = FactorParameters(static.loadings, static.variances, root @ var.coefficients @ undo)
    return in_unit_gauge(rescaled, (innovation + innovation.T) / 2)


def _motion_step(coefficients: FloatArray, moments: VarMoments, k: int) -> tuple[FloatArray, FloatArray]:
    """New coefficients and innovation covariance of the factors; carried noises keep theirs."""
    own = moments.of(np.arange(k))
    if len(coefficients):
        return var_step(own, coefficients, np.eye(k))
    return coefficients, (own.present + own.start) / (own.count + 1)


def _without_carried(block: SeriesBlock, seen: LoadingMoments, k: int, place: slice) -> LoadingMoments:
    """Moments of z_j - (carried noise of j) with the factors: its moments with g move to the left."""
    if not block.n_carried:
        return seen
    own = np.arange(place.start, place.stop)
    series = np.arange(block.n_series)
    cross = seen.cross[:, :k] - seen.second[series, own, :k]
    squares = seen.squares - 2.0 * seen.cross[series, own] + seen.second[series, own, own]
    return LoadingMoments(cross, np.ascontiguousarray(seen.second[:, :k, :k]), squares, seen.counts)


def carried_places(blocks: Sequence[SeriesBlock], k: int) -> list[slice]:
    """Where each block's carried noises stand behind the k factors; empty slices for the others."""
    places, end = [], k
    for block in blocks:
        places.append(slice(end, end + block.n_carried))
        end += block.n_carried
    return places


def _chosen(
    blocks: Sequence[SeriesBlock], parameters: FactorParameters, use: Sequence[int] | None
) -> tuple[Sequence[SeriesBlock], FactorParameters]:
    if use is None:
        return blocks, parameters
    loadings = tuple(parameters.loadings[place] for place in use)
    return [blocks[place] for place in use], FactorParameters(
        loadings, parameters.variances, parameters.coefficients
    )


def _floors(blocks: Sequence[SeriesBlock], n_groups: int) -> FloatArray:
    """Smallest admissible variance of every group, a share of its mean square."""
    squares, cells = np.zeros(n_groups), np.zeros(n_groups)
    for block in blocks:
        squares[block.group] += np.vdot(block.observations.filled, block.observations.filled)
        cells[block.group] += block.observations.mask.sum()
    return np.maximum(_NOISE_FLOOR * squares / np.maximum(cells, 1.0), np.finfo(np.float64).tiny)
