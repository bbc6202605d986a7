"""Laws of cells of targeted models, and who moves them, against one dense Gaussian of every cell."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from latentfactors.kernels.targeted_cells import completed_rows, completed_states, row_law, state_law
from tests.oracles.dense_gaussian import joint_states
from tests.oracles.test_targeted_dynamics import N_PERIODS, QUARTERS, K, _blocks, _parameters

BEFORE = 8  # periods before the first that windows may reach


def dense_cells(blocks, parameters):
    """(T, d) values and the covariance of all cells: loadings and windows over all factors, plus noise."""
    lags = max(len(parameters.coefficients), 1)
    coefficients = np.zeros((lags, K, K))
    coefficients[: len(parameters.coefficients)] = parameters.coefficients
    total, r = BEFORE + N_PERIODS, K * lags
    joint = joint_states(total, coefficients, np.zeros(K), np.eye(K), lags)[1]
    keep = (np.arange(total)[:, None] * r + np.arange(K)).ravel()
    joint = joint[np.ix_(keep, keep)]
    d = sum(block.n_series for block in blocks)
    values, design = np.full((N_PERIODS, d), np.nan), np.zeros((N_PERIODS, d, total * K))
    noise = np.zeros((N_PERIODS * d, N_PERIODS * d))
    first = 0
    for block, loadings in zip(blocks, parameters.loadings, strict=True):
        variance = parameters.variances[block.group]
        for i in range(block.n_series):
            j, latent = first + i, np.zeros((N_PERIODS, total))
            for t in range(N_PERIODS):
                weights = np.ones(1) if block.weights is None else block.weights[t] * block.scale[t]
                for h, weight in enumerate(weights):
                    at = BEFORE + t - h
                    design[t, j, at * K : (at + 1) * K] += weight * loadings[i]
                    latent[t, at] += weight
                if block.observations.mask[t, i]:
                    values[t, j] = block.observations.filled[t, i] * block.scale[t]
            own = block.noise == "own"
            spread = variance * (np.eye(N_PERIODS) if own else latent @ latent.T)
            at = np.arange(N_PERIODS) * d + j
            noise[np.ix_(at, at)] = spread
        first += block.n_series
    flat = design.reshape(N_PERIODS * d, -1)
    return values, flat @ joint @ flat.T + noise


def dense_law(values, covariance, cells):
    """Mean, covariance and weights by one regression of jointly Gaussian variables."""
    d = values.shape[1]
    seen = np.flatnonzero(np.isfinite(values).ravel())
    wanted = np.array([t * d + j for t, j in cells])
    gain = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, wanted)]).T
    weights = np.zeros((len(cells), values.size))
    weights[:, seen] = gain
    rest = covariance[np.ix_(wanted, wanted)] - gain @ covariance[np.ix_(seen, wanted)]
    return gain @ values.ravel()[seen], rest, weights.reshape(len(cells), *values.shape)


def columns_of(blocks):
    ends = np.cumsum([0, *(block.n_series for block in blocks)])
    return [np.arange(a, b) for a, b in pairwise(ends)]


@pytest.mark.parametrize("kind", ["monthly", "mean", "mm own", "mm carried"])
@pytest.mark.parametrize("lags", [0, 1, 2])
def test_cells_have_the_law_of_the_joint_gaussian(kind, lags):
    blocks = _blocks(kind, seed=lags)
    parameters = _parameters(blocks, lags, seed=lags)
    values, covariance = dense_cells(blocks, parameters)
    # a hidden predictor twice, an observed one, the ragged edge of the target, and aggregates
    cells = [(5, 0), (5, 2), (5, 0), (0, 1), (N_PERIODS - 1, 3), (N_PERIODS - 3, 3)]
    if kind != "monthly":
        cells += [(N_PERIODS - 1, 4), (2, 5)]
    found = state_law(blocks, columns_of(blocks), parameters, cells)
    mean, spread, weights = dense_law(values, covariance, cells)
    np.testing.assert_allclose(found.mean, mean, atol=1e-10)
    np.testing.assert_allclose(found.covariance, spread, atol=1e-10)
    np.testing.assert_allclose(found.weights, weights, atol=1e-10)

    filled = completed_states(blocks, columns_of(blocks), parameters)
    known = np.isfinite(filled)
    assert known[:, :4].all()
    if kind == "mm carried":
        known[~QUARTERS, 4:] = False  # windows between the quarters' own share their middle months' noise
    places = [tuple(cell) for cell in np.argwhere(known)]
    np.testing.assert_allclose(filled[known], dense_law(values, covariance, places)[0], atol=1e-10)


@pytest.mark.parametrize("moving", [False, True])
def test_cells_of_independent_rows(moving):
    rng = np.random.default_rng(3)
    T, p, q = 7, 4, 2
    values, loadings = rng.normal(size=(T, p + q)), rng.normal(size=(p + q, K))
    values[rng.random(values.shape) < 0.4] = np.nan
    values[-1] = np.nan
    paths = rng.uniform(0.3, 2.0, size=(T, 2)) if moving else np.tile([0.5, 1.5], (T, 1))
    noise = np.repeat(paths, [p, q], axis=1)
    covariance = np.zeros((values.size, values.size))
    for t in range(T):
        at = slice(t * (p + q), (t + 1) * (p + q))
        covariance[at, at] = loadings @ loadings.T + np.diag(noise[t])
    cells = [(6, 0), (6, 5), (6, 0), (2, 1), (0, 4), (3, 2)]
    found = row_law(values, loadings, noise, cells)
    mean, spread, weights = dense_law(values, covariance, cells)
    np.testing.assert_allclose(found.mean, mean, atol=1e-10)
    np.testing.assert_allclose(found.covariance, spread, atol=1e-10)
    np.testing.assert_allclose(found.weights, weights, atol=1e-10)
    every = [tuple(cell) for cell in np.argwhere(np.ones_like(values))]
    filled = completed_rows(values, loadings, noise).ravel()
    np.testing.assert_allclose(filled, dense_law(values, covariance, every)[0], atol=1e-10)


def dense_values_loglikelihood(z, parameters):
    """Log density of complete values (T, d) under a factor VAR(1), two blocks, by one Gaussian."""
    T, d = z.shape
    k = parameters.coefficients.shape[1]
    joint = joint_states(T, parameters.coefficients, np.zeros(k), np.eye(k), 1)[1]
    loadings = np.vstack(parameters.loadings)
    noise = np.repeat(parameters.variances, [len(part) for part in parameters.loadings])
    design = np.kron(np.eye(T), loadings)
    covariance = design @ joint @ design.T + np.diag(np.tile(noise, T))
    quadratic = z.ravel() @ np.linalg.solve(covariance, z.ravel())
    return -0.5 * (T * d * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + quadratic)
