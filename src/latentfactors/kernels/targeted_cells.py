"""The joint law of any cells of a targeted factor model given all that is observed, and who moves it.

Static           z_t = L f_t + e_t, rows independent: cells of one row have means L m_t and covariance
                 L Omega_t L' + noise, and an observation z_tj enters the mean of cell i with weight
                 l_i'Omega_t l_j / s_tj. Cells of different rows are independent.
State space      with s the stacked states, J their precision given the data and h(z) the data's information,
                 E[s | z] = J^-1 h(z). For a cell that reads a's, everything follows from

                     q = J^-1 a = Cov(s, a's | z):

                 covariances a_i'q_j, and the weight b'q / v of an observation b's + n with noise variance v.
                 A cell's own noise is independent of all that is observed. q comes from one smoother run on
                 zeros with a's observed as 1 with noise v, whose means are d = q / (a'q + v).
References       Koopman & Harvey (2003), J. of Economic Dynamics and Control 27(7), on observation weights;
                 Banbura & Modugno (2014), J. of Applied Econometrics 29(1), section 2.3, on their use.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.dynamic_factor_conditional import CellLaw
from latentfactors.kernels.linalg import invert_pd_batch, pack, period_moments
from latentfactors.kernels.mixed_frequency import SeriesBlock, component_weights
from latentfactors.kernels.state_space import Dynamics, Information, filter_states, smooth_states
from latentfactors.kernels.targeted_dynamics import FactorParameters, carried_places, information, law

FloatArray = npt.NDArray[np.float64]
Places = Sequence[tuple[int, int]]


# ------------------------------------------------------------------------------------ independent rows


def row_law(values: FloatArray, loadings: FloatArray, noise: FloatArray, cells: Places) -> CellLaw:
    """Mean, covariance and weights of cells (row, series) of a static model.

    Parameters
    ----------
    values : (T, d) standardised, NaN where missing.
    loadings : (d, k).
    noise : (T, d) noise variances.
    cells : an observed one is what it is, without variance.
    """
    means, covariances = _row_factors(values, loadings, noise)
    rows, columns = np.array([t for t, _ in cells]), np.array([j for _, j in cells])
    own = loadings[columns]
    mean = np.einsum("ck,ck->c", own, means[rows])
    pulled = (covariances[rows] @ own[:, :, None])[:, :, 0]
    same_row = rows[:, None] == rows[None, :]
    covariance = same_row * (pulled @ own.T)
    covariance += np.where(same_row & (columns[:, None] == columns[None, :]), noise[rows, columns], 0.0)
    weights = np.zeros((len(cells), *values.shape))
    seen = np.isfinite(values)
    weights[np.arange(len(cells)), rows] = np.where(seen[rows], pulled @ loadings.T / noise[rows], 0.0)
    return _with_observed(values, rows, columns, CellLaw(mean, covariance, weights))


def completed_rows(values: FloatArray, loadings: FloatArray, noise: FloatArray) -> FloatArray:
    """(T, d) values, missing ones replaced by their means given the observed cells of their row."""
    means = _row_factors(values, loadings, noise)[0]
    return np.where(np.isfinite(values), values, means @ loadings.T)


def _row_factors(
    values: FloatArray, loadings: FloatArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """m_t (T, k) and Omega_t (T, k, k), collected over runs of series that share their variances."""
    k, n_periods = loadings.shape[1], len(values)
    grams, crosses = np.zeros((n_periods, k, k)), np.zeros((n_periods, k))
    for column in _runs(noise):
        gram, cross, _ = period_moments(values[:, column], loadings[column])
        precision = 1.0 / noise[:, column.start]
        grams += gram * precision[:, None, None]
        crosses += cross * precision[:, None]
    covariances = invert_pd_batch(grams + np.eye(k))[0]
    return (covariances @ crosses[:, :, None])[:, :, 0], covariances


def _runs(noise: FloatArray) -> list[slice]:
    """Runs of neighbouring series with the same variances in every row."""
    edges = np.flatnonzero((noise[:, 1:] != noise[:, :-1]).any(axis=0)) + 1
    ends = [0, *edges.tolist(), noise.shape[1]]
    return [slice(a, b) for a, b in pairwise(ends)]


# ------------------------------------------------------------------------------------ states


def state_law(
    blocks: Sequence[SeriesBlock],
    columns: Sequence[npt.NDArray[np.intp]],
    parameters: FactorParameters,
    cells: Places,
) -> CellLaw:
    """Mean, covariance and weights of cells (period, series) with dynamics, aggregates, or both.

    Parameters
    ----------
    blocks : all series, in the units of their values.
    columns : of each block, the numbers of its series among all.
    parameters : with one loadings array for every block.
    cells : an observed one is what it is, without variance. A cell of an aggregate has to be one of a period
        in which its weights are not all zero; where noise is carried, one of a period that ends a window.
    """
    data, motion = information(blocks, parameters), law(blocks, parameters)
    means = smooth_states(data, motion, filter_states(data, motion)).mean
    size = data.linear.shape[1]
    values, read_by = _values(blocks, columns), readings(blocks, parameters, size)
    where = {int(j): (b, i) for b, each in enumerate(columns) for i, j in enumerate(each)}
    rows, series = np.array([t for t, _ in cells]), np.array([j for _, j in cells])
    reads = np.array([read_by[b][t, i] for t, j in cells for b, i in (where[j],)])
    mean = np.einsum("cs,cs->c", reads, means[rows, :size])
    covariance, weights = np.zeros((len(cells), len(cells))), np.zeros((len(cells), *values.shape))
    for i, (t, j) in enumerate(cells):
        if np.isfinite(values[t, j]):
            continue
        direction = _response(data, motion, t, reads[i])
        covariance[i] = np.einsum("cs,cs->c", reads, direction[rows])
        noise = _noise(blocks[where[j][0]], parameters)[t]
        covariance[i] += np.where((rows == t) & (series == j), noise, 0.0)
        for block, numbers, reading in zip(blocks, columns, read_by, strict=True):
            precision = block.observations.mask / _noise(block, parameters)[:, None]
            weights[i][:, numbers] = precision * np.einsum("tds,ts->td", reading, direction)
    found = CellLaw(mean, 0.5 * (covariance + covariance.T), weights)
    return _with_observed(values, rows, series, found)


def _response(data: Information, motion: Dynamics, time: int, read: FloatArray) -> FloatArray:
    """q (T, size), covariances of all states with read's_time given the data."""
    size = read.size
    # as noisy as the state is before any data, so that neither of a'q and v drowns the other
    noise = float(read @ motion.start_covariance[:size, :size] @ read)
    if noise == 0.0:
        return np.zeros_like(data.linear)
    linear, precision = np.zeros_like(data.linear), data.precision.copy()
    linear[time] = read / noise
    precision[time] += pack(np.outer(read, read)[None] / noise)[0]
    unit = Information(linear, precision, np.zeros_like(data.remainder))
    found = smooth_states(unit, motion, filter_states(unit, motion)).mean[:, :size]
    return found * noise / (1.0 - float(read @ found[time]))


def completed_states(
    blocks: Sequence[SeriesBlock], columns: Sequence[npt.NDArray[np.intp]], parameters: FactorParameters
) -> FloatArray:
    """(T, d) values, missing ones replaced by their means given everything; NaN where weights are zero."""
    data, motion = information(blocks, parameters), law(blocks, parameters)
    size = data.linear.shape[1]
    means = smooth_states(data, motion, filter_states(data, motion)).mean[:, :size]
    out = _values(blocks, columns)
    for block, numbers, reading in zip(blocks, columns, readings(blocks, parameters, size), strict=True):
        mean = np.einsum("tds,ts->td", reading, means)
        if block.weights is not None:
            mean[~block.weights.any(axis=1)] = np.nan
        out[:, numbers] = np.where(block.observations.mask == 1.0, out[:, numbers], mean)
    return out


def readings(blocks: Sequence[SeriesBlock], parameters: FactorParameters, size: int) -> list[FloatArray]:
    """For each block (T, d_b, size): what its cells read of the stacked state, in the units of the values."""
    k = parameters.coefficients.shape[1]
    places = carried_places(blocks, k)
    width = places[-1].stop
    out = []
    for block, place, loadings in zip(blocks, places, parameters.loadings, strict=True):
        weights = component_weights(block, k, place) * block.scale[:, None, None]
        used = weights.shape[2]
        extended = np.zeros((block.n_series, used))
        extended[:, :k] = loadings
        if block.n_carried:
            extended[:, place] = np.eye(block.n_series)
        reading = np.zeros((len(block.scale), block.n_series, size // width, width))
        reading[:, :, : block.depth, :used] = weights[:, None] * extended[None, :, None, :]
        out.append(reading.reshape(*reading.shape[:2], size))
    return out


def _noise(block: SeriesBlock, parameters: FactorParameters) -> FloatArray:
    """(T,) variance of the block's own noise, in the units of the values."""
    return float(parameters.variances[block.group]) * block.share * block.scale**2


def _values(blocks: Sequence[SeriesBlock], columns: Sequence[npt.NDArray[np.intp]]) -> FloatArray:
    out = np.empty((len(blocks[0].scale), sum(each.size for each in columns)))
    for block, numbers in zip(blocks, columns, strict=True):
        values = block.observations.filled * block.scale[:, None]
        out[:, numbers] = np.where(block.observations.mask == 1.0, values, np.nan)
    return out


def _with_observed(
    values: FloatArray, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], found: CellLaw
) -> CellLaw:
    """Observed cells are their values: weight 1 on themselves, no variance."""
    seen = np.isfinite(values[rows, columns])
    mean = np.where(seen, values[rows, columns], found.mean)
    weights = np.where(seen[:, None, None], 0.0, found.weights)
    weights[np.flatnonzero(seen), rows[seen], columns[seen]] = 1.0
    return CellLaw(mean, found.covariance * ~(seen[:, None] | seen[None, :]), weights)
