"""The dynamic factor likelihood and its maximum beside statsmodels."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.statespace.dynamic_factor import DynamicFactor
from statsmodels.tsa.statespace.dynamic_factor_mq import DynamicFactorMQ

from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    loglikelihood,
    observation_pattern,
)
from latentfactors.kernels.dynamic_factor_em import Structure, fit_dynamic_factor, start_parameters


def simulate(T, n, r, *, phi, missing, seed):
    """Standardised values (T, n) of a process with persistent idiosyncratic terms."""
    rng = np.random.default_rng(seed)
    f, e = np.zeros((T + 50, r)), np.zeros((T + 50, n))
    loadings, roots = rng.normal(size=(n, r)), np.linspace(0.8, 0.5, r)
    for t in range(1, T + 50):
        f[t] = roots * f[t - 1] + rng.normal(size=r)
        e[t] = phi * e[t - 1] + 1.5 * rng.normal(size=n)
    values = (f @ loadings.T + e)[50:]
    values[rng.uniform(size=values.shape) < missing] = np.nan
    return (values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(("lags", "ar"), [(1, False), (2, False), (1, True), (2, True)])
def test_likelihood_equals_statsmodels(missing, lags, ar):
    """At the same parameters, with and without gaps, idiosyncratic terms iid and AR(1)."""
    n, r, rng = 6, 2, np.random.default_rng(0)
    values = simulate(80, n, r, phi=0.5 if ar else 0.0, missing=missing, seed=1)
    transition = np.zeros((lags, r, r))
    transition[0] = [[0.5, 0.1], [-0.2, 0.4]]
    if lags == 2:
        transition[1] = [[0.2, 0.0], [0.1, -0.1]]
    parameters = DynamicFactorParameters(
        loadings=rng.normal(size=(n, r)),
        persistence=rng.uniform(-0.4, 0.8, n) if ar else np.zeros(n),
        variance=rng.uniform(0.5, 1.5, n),
        transition=transition,
        innovation=np.eye(r),
    )
    peer = DynamicFactor(values, k_factors=r, factor_order=lags, error_order=int(ar))
    named = {
        **{f"loading.f{k + 1}.y{i + 1}": parameters.loadings[i, k] for i in range(n) for k in range(r)},
        **{f"sigma2.y{i + 1}": parameters.variance[i] for i in range(n)},
        **{
            f"L{lag + 1}.f{k + 1}.f{j + 1}": transition[lag, j, k]
            for lag in range(lags)
            for j in range(r)
            for k in range(r)
        },
        **{f"L1.e(y{i + 1}).e(y{i + 1})": parameters.persistence[i] for i in range(n)},
    }
    theirs = peer.loglike([named[name] for name in peer.param_names])
    ours = loglikelihood(parameters, observation_pattern(values, autoregressive=ar, lags=lags))
    assert ours == pytest.approx(theirs, rel=1e-8)


def factor_names(r):
    return ["0"] if r == 1 else [f"0.{k + 1}" for k in range(r)]


def as_parameters(peer, vector, n, r):
    """statsmodels' DynamicFactorMQ parameters as ours."""
    named = dict(zip(peer.param_names, vector, strict=True))
    root = np.zeros((r, r))
    for i in range(r):
        for j in range(i + 1):
            root[i, j] = next(v for k, v in named.items() if k.endswith(f"cov.chol[{i + 1},{j + 1}]"))
    return DynamicFactorParameters(
        loadings=np.array([[named[f"loading.{k}->y{i}"] for k in factor_names(r)] for i in range(n)]),
        persistence=np.array([named[f"L1.eps_M.y{i}"] for i in range(n)]),
        variance=np.array([named[f"sigma2.y{i}"] for i in range(n)]),
        transition=np.array([[[named[f"L1.{k}->{j}"] for k in factor_names(r)] for j in factor_names(r)]]),
        innovation=root @ root.T,
    )


def as_vector(peer, parameters):
    """Ours as theirs."""
    n, r = parameters.loadings.shape
    root = np.linalg.cholesky(parameters.innovation)
    named = {}
    for i in range(n):
        named |= {
            f"loading.{name}->y{i}": parameters.loadings[i, k] for k, name in enumerate(factor_names(r))
        }
        named[f"L1.eps_M.y{i}"] = parameters.persistence[i]
        named[f"sigma2.y{i}"] = parameters.variance[i]
    for j, to in enumerate(factor_names(r)):
        named |= {f"L1.{k}->{to}": parameters.transition[0, j, i] for i, k in enumerate(factor_names(r))}
    return [
        named[name]
        if name in named
        else root[tuple(int(c) - 1 for c in name.split("[")[1].rstrip("]").split(","))]
        for name in peer.param_names
    ]


@pytest.mark.parametrize(("r", "phi", "missing"), [(1, 0.8, 0.0), (2, 0.5, 0.0), (1, 0.8, 0.3)])
def test_the_maximum_is_above_that_of_statsmodels(r, phi, missing):
    """With AR(1) terms its EM has no measurement noise left, so its loadings never leave their start.

    Both parameter vectors are evaluated by both codes.
    """
    n, T = 8, 120
    values = simulate(T, n, r, phi=phi, missing=missing, seed=3)
    frame = pd.DataFrame(
        values, index=pd.period_range("2000-01", periods=T, freq="M"), columns=[f"y{i}" for i in range(n)]
    )
    peer = DynamicFactorMQ(
        frame,
        factors=1,
        factor_multiplicities=r,
        factor_orders=1,
        idiosyncratic_ar1=True,
        standardize=False,
    )
    result = peer.fit(disp=False, maxiter=2000)
    found = np.asarray(result.params)
    theirs = as_parameters(peer, found, n, r)
    pattern = observation_pattern(values, autoregressive=True, lags=1)
    structure = Structure(True, np.ones((n, r), bool), (np.arange(r),))
    start = start_parameters(values, np.ones((n, 1)), structure, 1)
    fit = fit_dynamic_factor(start, pattern, structure, tolerance=1e-6, max_iterations=2000)
    ours = fit.parameters
    # one likelihood, two codes
    for parameters in (theirs, ours):
        mine = loglikelihood(parameters, pattern)
        assert peer.loglike(as_vector(peer, parameters)) == pytest.approx(mine, rel=1e-8)
    assert fit.loglikelihood > peer.loglike(found) + 1.0
    begin = as_parameters(peer, peer.start_params, n, r)
    np.testing.assert_allclose(theirs.loadings, begin.loadings, atol=1e-6)
    moved = np.abs(ours.loadings @ ours.loadings.T - start.loadings @ start.loadings.T).max()
    assert moved > 1e-2
