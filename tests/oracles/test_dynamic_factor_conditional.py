"""Laws of cells and observation weights against one dense Gaussian of everything."""

import numpy as np
import pytest

from latentfactors.kernels.dynamic_factor_conditional import autoregressive_precision, cell_law, completed
from tests.oracles.dense_dfm import dense_covariance
from tests.oracles.test_dynamic_factor import DESIGNS, draw


def dense_law(values, parameters, weights, lead, cells):
    """Mean, covariance and weights of cells by one regression of jointly Gaussian variables."""
    seen = [tuple(cell) for cell in np.argwhere(np.isfinite(values))]
    everything = dense_covariance(seen + list(cells), values.shape[0], parameters, weights=weights, lead=lead)
    m = len(seen)
    gain = np.linalg.solve(everything[:m, :m], everything[:m, m:]).T
    y = np.array([values[cell] for cell in seen])
    spread = np.zeros((len(cells), *values.shape))
    for column, cell in enumerate(seen):
        spread[(slice(None), *cell)] = gain[:, column]
    return gain @ y, everything[m:, m:] - gain @ everything[:m, m:], spread


@pytest.mark.parametrize("design", DESIGNS)
def test_cells_have_the_law_of_the_joint_gaussian(design):
    values, weights, parameters, pattern = draw(*design)
    T, n = values.shape
    values[T - 3 :] = np.nan  # periods still to come
    aggregates = design[6]
    cells = [(T - 1, 0), (T - 3, 1), (T - 4, 1), (2, 0)]
    # the last quarter end, and one in the middle that is hidden
    quarters = np.flatnonzero(np.arange(T) % 3 == 2)
    if aggregates:
        values[quarters[2], n - 1] = np.nan
        cells += [(int(quarters[-1]), n - 1), (int(quarters[2]), n - 1), (int(quarters[0]), n - 1)]
    found = cell_law(values, parameters, weights, cells, autoregressive=design[5])
    mean, covariance, spread = dense_law(values, parameters, weights, pattern.lead, cells)
    np.testing.assert_allclose(found.mean, mean, atol=1e-10)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-10)
    np.testing.assert_allclose(found.weights, spread, atol=1e-10)
    # the mean is linear in what is observed
    np.testing.assert_allclose((found.weights * np.nan_to_num(values)).sum(axis=(1, 2)), mean, atol=1e-10)


def test_weights_stay_exact_over_forty_years():
    values, weights, parameters, _ = draw(480, 8, 2, 1, 0.1, True, 1, seed=4)
    values[-3:] = np.nan
    cell = [(479, 7)]
    found = cell_law(values, parameters, weights, cell, autoregressive=True)
    by_weights = (found.weights[0] * np.nan_to_num(values)).sum()
    assert found.mean[0] == pytest.approx(by_weights, abs=1e-11)


def test_precision_of_an_autoregression():
    phi, s, n = 0.7, 1.3, 6
    covariance = s * phi ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / (1 - phi**2)
    path = np.random.default_rng(0).normal(size=n)
    np.testing.assert_allclose(autoregressive_precision(path, phi, s), np.linalg.solve(covariance, path))
    np.testing.assert_allclose(autoregressive_precision(path[:1], phi, s), path[:1] * (1 - phi**2) / s)


@pytest.mark.parametrize("design", DESIGNS[2:])
def test_a_panel_is_completed_by_conditional_means(design):
    values, weights, parameters, pattern = draw(*design)
    values[-2:] = np.nan
    filled = completed(values, parameters, weights, autoregressive=design[5])
    seen = np.isfinite(values)
    np.testing.assert_array_equal(filled[seen], values[seen])
    cells = [tuple(cell) for cell in np.argwhere(~seen)]
    start = pattern.weights.shape[1] if design[6] else 0
    cells = [cell for cell in cells if cell[0] >= start]
    mean, _, _ = dense_law(values, parameters, weights, pattern.lead, cells)
    np.testing.assert_allclose([filled[cell] for cell in cells], mean, atol=1e-10)
