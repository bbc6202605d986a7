"""The factor VAR's likelihood: several starts reach one maximum, and it is the dense Gaussian's value."""

from __future__ import annotations

import numpy as np

from latentfactors.kernels.mixed_frequency import series_block
from latentfactors.kernels.targeted_dynamics import (
    FactorParameters,
    dynamic_start,
    filter_factors,
    fit_factors,
)
from latentfactors.kernels.targeted_em import fit_targeted
from tests.oracles.test_targeted_cells import dense_values_loglikelihood


def test_starts_agree_on_one_maximum_and_the_dense_gaussian_on_its_value():
    T, p, q, k = 40, 6, 1, 2
    rng = np.random.default_rng(4)
    f = np.zeros((T, k))
    for t in range(1, T):
        f[t] = np.array([0.8, 0.4]) * f[t - 1] + rng.normal(size=k)
    z = f @ rng.normal(size=(k, p + q)) + rng.normal(size=(T, p + q))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    blocks = [series_block(z[:, :p], group=0), series_block(z[:, p:], group=1)]
    static = fit_targeted(z[:, :p], z[:, p:], k)
    given = FactorParameters(
        (static.loadings[:p], static.loadings[p:]),
        np.array([static.x_variance, static.y_variance]),
        np.zeros((0, k, k)),
    )
    starts = [dynamic_start(blocks, given, 1)]
    for _ in range(5):
        loadings = rng.normal(size=(p + q, k))
        coefficients = rng.uniform(-0.5, 0.5, size=(1, k, k))
        starts.append(FactorParameters((loadings[:p], loadings[p:]), np.array([0.5, 0.5]), coefficients))
    fits = [fit_factors(blocks, start, tolerance=1e-7) for start in starts]
    values = np.array([fit.loglikelihood for fit in fits])
    # the package's own start is not beaten by any other
    assert values[0] >= values.max() - 1e-3
    assert (values > values[0] - 1e-3).sum() >= 3
    best = fits[0].parameters
    assert filter_factors(blocks, best).loglikelihood == fits[0].loglikelihood
    dense = dense_values_loglikelihood(z, best)
    assert abs(dense - fits[0].loglikelihood) < 1e-10 * abs(dense)
