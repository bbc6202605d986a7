"""From a fit of named factors to states: expected loadings of new assets, and the projection of new periods.

Names, links and training rows are in `named.factors`; this is what happens after the fit.

Degrees of freedom: residuals are smaller than errors, for loadings and factors were fitted to the values that
they are left of. With p_i effective parameters of an asset with T_i values, and h_it = b_i'P_t b_i / d_i the
weight of a value in its own fit (P_t posterior covariance of the factors),

    residual in training      d_i (1 - h_it)(1 - p_i/T_i)
    residual later            d_i (1 - h_it)(1 + l_i),  l_i = p_i/(T_i - p_i - 1): the loadings' error
    error of a new value      d_i (1 + l_i)

so d_i = sum of squared residuals / [(1 - p_i/T_i) sum (1 - h_it)], and a state's `residual_share` is the
first two lines over the third. l_i is exact for normal factors. The fit's factors have no prior, nor has P_t.

References: Rubin & Thayer (1982), Psychometrika 47(1), 69-76 (h: posterior of factors given loadings);
Stambaugh (1997), Journal of Financial Economics 45(3), 285-331 (predictive variance with estimated loadings
and unequal histories); Fan, Liao & Mincheva (2013), JRSS B 75(4), 603-680 (residual covariances of factor
models); Menchero, Orr & Wang (2011), USE4 Methodology Notes, section 5 (specific risk shrunk to groups).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.kernels import adjacency
from latentfactors.kernels.adjacency import Pattern
from latentfactors.kernels.gauge import find_nesting
from latentfactors.kernels.masked_als import inner_links, posterior_factors
from latentfactors.model import input_unit_state, known_assets
from latentfactors.named.factors import NamedFactorEstimates, Training, is_static, row_links
from latentfactors.panel import Panel
from latentfactors.state import ConditionalLoadings, Factors, FitSpan, LatentFactorState, StaticLoadings

__all__ = ["estimates_of", "expected_loadings", "project", "state_of", "weighted_equations"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_NO_VARIANCE = 1e-12  # of the factors' total variance: what a projection takes for none
_MOST_OF_ITSELF = 0.95  # of a value's fit can be its own: beyond, its residual says nothing
_FLAT = 1e6  # prior variances times this: factors of the fit are least squares, not posterior
_MOST_ERROR = 1.0  # of the variance that errors of loadings add: an asset with 2p + 1 values
_LEAST_VARIANCE = 0.01  # of the median: a bond fitted by chance must not dominate a projection

# ------------------------------------------------------------------------------------ estimates


def estimates_of(
    training: Training, panel: Panel, loadings: FloatArray, factors: FloatArray, parameters: FloatArray
) -> dict[str, Any]:
    """The fields of `NamedFactorEstimates` for loadings (S,) and factors (T', K) of the training rows.

    `parameters` (N,): effective number fitted to every asset's values.
    """
    pattern = training.pattern
    residual = training.values - adjacency.fitted(pattern, loadings, factors)
    squares = np.empty(residual.size)
    squares[:] = residual[pattern.by_asset] ** 2
    sums = np.add.reduceat(squares, pattern.asset_starts[:-1])
    rows = np.diff(pattern.asset_starts)
    every = np.full((panel.n_periods, pattern.n_factors), np.nan)
    every[training.periods] = factors
    mean = factors.mean(axis=0)
    covariance = (factors - mean).T @ (factors - mean) / len(factors)
    means, effects = expected_loadings(pattern, loadings)
    left = 1.0 - parameter_share(parameters, rows)
    plain = sums / (left * rows)
    floor = max(_LEAST_VARIANCE * float(np.median(plain)), np.finfo(np.float64).tiny)
    own = weights_in_own_fit(pattern, loadings, np.maximum(plain, floor), _FLAT * covariance)
    free = left * np.add.reduceat(1.0 - own[pattern.by_asset], pattern.asset_starts[:-1])
    return {
        "names": training.names,
        "assets": training.assets,
        "slot_asset": pattern.slot_asset,
        "slot_factor": pattern.slot_factor,
        "loadings": loadings,
        "mean_loadings": means,
        "effects": effects,
        "parameters": parameters,
        "n_values": rows,
        "residual_variance": sums / free,
        "pooled_residual_variance": float(sums.sum() / free.sum()),
        "factors": every,
        "times": panel.times,
        "factor_mean": mean,
        "factor_covariance": covariance,
        "min_observed": training.min_observed,
    }


def parameter_share(parameters: FloatArray, n_values: IntArray) -> FloatArray:
    """p_i / T_i, (N,): at most 1 - 1/T_i, so that a residual variance exists."""
    return np.minimum(parameters, n_values - 1.0) / np.maximum(n_values, 1)


def weights_in_own_fit(
    pattern: Pattern, loadings: FloatArray, variance: FloatArray, covariance: FloatArray
) -> FloatArray:
    """(R,) h_it = b_i'P_t b_i / d_i for loadings (S,), d (N,) and the factors' covariance (K, K)."""
    codes = np.empty(pattern.by_asset.size, dtype=np.int64)
    codes[pattern.by_asset] = np.repeat(np.arange(pattern.n_assets), np.diff(pattern.asset_starts))
    scale = max(float(np.trace(covariance)), np.finfo(np.float64).tiny)
    deviation = np.sqrt(np.maximum(variance, _NO_VARIANCE * scale))
    weighted = loadings / deviation[pattern.slot_asset]
    grams, crosses = adjacency.period_equations(pattern, weighted, np.zeros(codes.size))
    spread = posterior_factors(grams, crosses, np.zeros(pattern.n_factors), covariance)[1]
    table = np.where(pattern.slots >= 0, weighted[pattern.slots], 0.0)
    own = adjacency.quadratic_rows(pattern.period_starts, pattern.links, table, spread)
    return np.clip(own, 0.0, _MOST_OF_ITSELF)


def expected_loadings(pattern: Pattern, loadings: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(K,) mean loadings and (K, K) additive effects of nested links: what a new asset's links make of it.

    Moving a nested factor into its container moves the loadings on the container by those on the nested one;
    the effects follow, so that a new asset gets the same forecast whatever the gauge, up to the spread of
    loadings inside a category.
    """
    nesting, size = find_nesting(pattern), pattern.n_factors
    means, effects = np.zeros(size), np.zeros((size, size))
    for k, own in enumerate(nesting.members):
        if not own.size:
            continue
        means[k] = loadings[own].mean()
        inner, design, centre = inner_links(pattern, nesting, k)
        if inner.size:
            found = np.linalg.lstsq(design - centre, loadings[own] - means[k], rcond=1e-10)[0]
            effects[inner, k] = found
            means[k] -= float(centre @ found)
    return means, effects


# ------------------------------------------------------------------------------------ states


def loadings_of(
    estimates: NamedFactorEstimates, position: IntArray, links: npt.NDArray[np.int32], *, cold_start: bool
) -> FloatArray:
    """(n, M) loadings on links (n, M) of assets at training position (n,), -1 where new; 0 without a link.

    A link that the asset did not have in training, or all of a new asset's, get the expected loading; without
    `cold_start` those of new assets are NaN.
    """
    size = len(estimates.factor_names)
    number = np.full(max(estimates.assets.size, 1) * size, -1)
    number[estimates.slot_asset * size + estimates.slot_factor] = np.arange(estimates.loadings.size)
    linked = links >= 0
    slot = np.where(linked & (position >= 0)[:, None], number[position[:, None] * size + links], -1)
    out = np.where(slot >= 0, estimates.loadings[slot], 0.0)
    rows = np.flatnonzero((linked & (slot < 0)).any(axis=1))
    if rows.size:
        theirs, known = links[rows], linked[rows]
        expected = np.where(known, estimates.mean_loadings[theirs], 0.0)
        for a in range(links.shape[1]):
            effect = estimates.effects[theirs[:, a][:, None], theirs]
            expected += np.where(known & known[:, a][:, None], effect, 0.0)
        out[rows] = np.where(known & (slot[rows] < 0), expected, out[rows])
    if not cold_start:
        out[position < 0] = np.nan
    out[~linked.any(axis=1)] = np.nan
    return out


def state_of(
    panel: Panel,
    estimates: NamedFactorEstimates,
    factors_from: Any,
    *,
    cold_start: bool,
    fit_span: FitSpan,
    who: str,
) -> LatentFactorState:
    """The state of a panel; `factors_from(links, loadings, variance)` makes `Factors` of row-level arrays."""
    names, codes = estimates.names, panel.asset_codes
    if cold_start:
        position = panel.index.match_assets(estimates.assets)
    else:
        position = known_assets(panel.index, estimates.assets, who)
    links, unseen = row_links(panel, names)
    if is_static(panel, names):
        by_link = loadings_of(estimates, position, links, cold_start=cold_start)
        loadings = StaticLoadings(dense(links, by_link, len(names.names)), panel.index)
        without = int((panel.active_assets & np.isnan(by_link).any(axis=1)).sum())
        links, by_link, unseen = links[codes], by_link[codes], unseen[codes]
    else:
        by_link = loadings_of(estimates, position[codes], links, cold_start=cold_start)
        loadings = ConditionalLoadings(dense(links, by_link, len(names.names)), panel.index)
        without = np.unique(codes[np.isnan(by_link).any(axis=1)]).size
    pooled = estimates.pooled_residual_variance
    variance = np.where(position >= 0, estimates.residual_variance[position], pooled)[codes]
    floor = _LEAST_VARIANCE * float(np.median(estimates.residual_variance))
    factors = factors_from(links, by_link, np.maximum(variance, floor))
    realised = np.where(np.arange(panel.n_periods)[:, None] < panel.n_realised, factors.values, np.nan)
    state = input_unit_state(
        panel,
        replace(factors, values=realised, names=names.names),
        loadings,
        variance,
        alpha=None,
        n_without=int(without),
        fit_span=fit_span,
    )
    share = residual_share(panel, estimates, position, links, by_link, np.maximum(variance, floor), factors)
    state = replace(state, measurement=replace(state.measurement, residual_share=share))
    counts = {
        "n_new_assets": int((panel.active_assets & (position < 0)).sum()),
        "n_rows_with_unseen_categories": int(unseen.sum()),
    }
    return replace(state, metadata={**state.metadata, **counts})


def residual_share(
    panel: Panel,
    estimates: NamedFactorEstimates,
    position: IntArray,
    links: npt.NDArray[np.int32],
    by_link: FloatArray,
    variance: FloatArray,
    factors: Factors,
) -> FloatArray:
    """(R,) expected squared residual over the squared error of a new value; 1 where there is no residual."""
    spread = factors.covariance
    if spread is None:
        spread = project(panel, links, by_link, variance, estimates).covariance
    assert spread is not None
    table = np.where(links >= 0, np.nan_to_num(by_link), 0.0)
    own = adjacency.quadratic_rows(panel.offsets, links, table, spread) / np.maximum(variance, 1e-300)
    p, n = estimates.parameters, estimates.n_values
    error = np.minimum(p / np.maximum(n - p - 1.0, 1.0), _MOST_ERROR)
    fitted_to = np.append((1.0 - parameter_share(p, n)) / (1.0 + error), 1.0)[position][panel.asset_codes]
    trained = np.isin(panel.times, estimates.times)[panel.index.period_codes]
    share = (1.0 - np.clip(own, 0.0, _MOST_OF_ITSELF)) * np.where(trained, fitted_to, 1.0)
    return np.where(np.isfinite(share) & panel.observed, share, 1.0)


def dense(links: npt.NDArray[np.int32], by_link: FloatArray, n_factors: int) -> FloatArray:
    """(n, K) from loadings on links (n, M): 0 without a link, NaN where the entry has no loadings at all."""
    out = np.zeros((len(links), n_factors))
    rows, columns = np.nonzero(links >= 0)
    out[rows, links[rows, columns]] = by_link[rows, columns]
    out[np.isnan(by_link).any(axis=1)] = np.nan
    return out


def project(
    panel: Panel,
    links: npt.NDArray[np.int32],
    by_link: FloatArray,
    variance: FloatArray,
    estimates: NamedFactorEstimates,
) -> Factors:
    """Posterior factors and covariances of every period; NaN where fewer than `min_observed` are observed."""
    mean = estimates.factor_mean
    scale = max(float(np.trace(estimates.factor_covariance)), np.finfo(float).tiny)
    deviation = 1.0 / np.sqrt(np.maximum(variance, _NO_VARIANCE * scale))
    offset = np.where(links >= 0, by_link * mean[links], 0.0).sum(axis=1)
    used = np.isfinite(panel.values) & np.isfinite(offset)
    grams, crosses = weighted_equations(
        panel, links, by_link * deviation[:, None], (panel.values - offset) * deviation, used, mean.size
    )
    factors, covariance = posterior_factors(grams, crosses, mean, estimates.factor_covariance)
    thin = np.bincount(panel.index.period_codes[used], minlength=panel.n_periods) < estimates.min_observed
    factors[thin], covariance[thin] = np.nan, np.nan
    return Factors(values=factors, names=estimates.factor_names, covariance=covariance)


def weighted_equations(
    panel: Panel,
    links: npt.NDArray[np.int32],
    by_link: FloatArray,
    values: FloatArray,
    used: npt.NDArray[np.bool_],
    n_factors: int,
) -> tuple[FloatArray, FloatArray]:
    """sum b b' (T, K, K) and sum b y (T, K) over the used rows of every period."""
    counts = np.bincount(panel.index.period_codes[used], minlength=panel.n_periods)
    starts = np.concatenate([[0], np.cumsum(counts)])
    chosen = np.sort(np.where(links[used] >= 0, links[used], -1), axis=1)
    order = np.argsort(links[used], axis=1, kind="stable")
    table = np.take_along_axis(by_link[used], order, axis=1)
    cells = np.arange(table.size).reshape(table.shape)
    grams, crosses = np.zeros((panel.n_periods, n_factors, n_factors)), np.zeros((panel.n_periods, n_factors))
    adjacency.accumulate(
        starts,
        np.ascontiguousarray(values[used]),
        chosen,
        cells,
        np.ascontiguousarray(table).ravel(),
        grams,
        crosses,
    )
    return adjacency.full_from_lower(grams), crosses
