"""The compiled sums of an iteration against their plain NumPy twins."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.kernels import stationary
from latentfactors.kernels.dynamic_factor import Expectation
from latentfactors.kernels.dynamic_factor_em import factor_moments
from latentfactors.kernels.dynamic_factor_moments import second_moment
from latentfactors.kernels.dynamic_factor_sums import (
    normal_equations,
    packed_lagged_moments,
    packed_second_moments,
    solve_each,
)
from latentfactors.kernels.factor_em import VarMoments, expected_loglikelihood, var_step
from latentfactors.kernels.linalg import pack

RNG = np.random.default_rng(0)
T, M, R, BAND = 9, 3, 2, 4


@pytest.fixture
def expected():
    covariances = RNG.normal(size=(T, BAND + 1, M, M))
    covariances[:, 0] += covariances[:, 0].transpose(0, 2, 1)
    return Expectation(0.0, RNG.normal(size=(T, M)), covariances)


def test_moments_of_pairs(expected):
    means, covariances = expected.means, expected.covariances
    square = covariances[:, 0, :R, :R] + means[:, :R, None] * means[:, None, :R]
    np.testing.assert_allclose(packed_second_moments(means, covariances, R), pack(square), rtol=1e-13)
    time = np.array([3, 5, 8])
    lagged = covariances[time, 3, :R, :R] + means[time, :R, None] * means[time - 3][:, None, :R]
    lagged = 0.5 * (lagged + lagged.transpose(0, 2, 1))
    np.testing.assert_allclose(
        packed_lagged_moments(means, covariances, time, 3, R), pack(lagged), rtol=1e-12
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("p", [1, 3])
def test_moments_of_the_factor_var(expected, p, weighted):
    precision = RNG.uniform(0.2, 1.0, T) if weighted else None
    found = factor_moments(expected, (p, R, R), precision)
    weights = None if precision is None else precision[p:]

    def moment(lag, first, last, weights=weights):
        return second_moment(expected, lag, first, last, weights)[:R, :R]

    np.testing.assert_allclose(found.present, moment(0, p, T), rtol=1e-12)
    np.testing.assert_allclose(
        found.cross, np.hstack([moment(lag, p, T) for lag in range(1, p + 1)]), rtol=1e-11
    )
    for i in range(p):
        for j in range(i, p):
            block = np.s_[i * R : (i + 1) * R, j * R : (j + 1) * R]
            np.testing.assert_allclose(found.past[block], moment(j - i, p - 1 - i, T - 1 - i), rtol=1e-11)
            start = moment(j - i, p - 1 - i, p - i, None)
            np.testing.assert_allclose(found.start[block], start, rtol=1e-12)
            if i < j:
                np.testing.assert_array_equal(found.past[block], found.past.T[block])
    assert found.count == T - p


def test_equations_of_the_loadings():
    kinds, n = 3, 5
    gaps = np.array([0, 1, 4])
    power, variance = RNG.uniform(-0.9, 0.9, (kinds, n)), RNG.uniform(0.5, 2.0, (kinds, n))
    power[0] = 0.0
    root = RNG.normal(size=(kinds, n, 6, 2 * R))
    joint = np.einsum("dnai,dnaj->dnij", root, root)
    now, before = joint[..., :R, :R], joint[..., R:, R:]
    cross = 0.5 * (joint[..., :R, R:] + joint[..., R:, :R])
    values = RNG.normal(size=(3, kinds, n, R))
    normal, right = normal_equations(power, variance, gaps, now, cross, before, *values)
    for s in range(n):
        total, vector = np.zeros((R, R)), np.zeros(R)
        for d in range(kinds):
            c = power[d, s] if gaps[d] else 0.0
            difference = np.hstack([np.eye(R), -c * np.eye(R)])
            total += difference @ joint[d, s] @ difference.T / variance[d, s]
            vector += (values[0, d, s] - c * values[1, d, s] + c**2 * values[2, d, s]) / variance[d, s]
        np.testing.assert_allclose(normal[s], 0.5 * (total + total.T), rtol=1e-11)
        np.testing.assert_allclose(right[s], vector, rtol=1e-11)
    solved, safe = solve_each(normal, right, 0.0)
    assert safe
    np.testing.assert_allclose(solved, np.linalg.solve(normal, right[:, :, None])[:, :, 0], rtol=1e-10)
    normal[2] = np.outer(right[2], right[2])
    assert not solve_each(normal, right, 0.0)[1]


@pytest.mark.parametrize(("r", "p"), [(1, 1), (2, 1), (2, 3)])
def test_the_step_of_the_factor_var(monkeypatch, r, p):
    rng = np.random.default_rng(r + p)
    f = np.zeros((60, r))
    for t in range(1, 60):
        f[t] = 0.6 * f[t - 1] + rng.normal(size=r)
    lagged = np.hstack([f[p - lag : 60 - lag] for lag in range(1, p + 1)])
    start = np.outer(lagged[0], lagged[0]) + np.eye(r * p)
    moments = VarMoments(f[p:].T @ f[p:], f[p:].T @ lagged, lagged.T @ lagged, start, 60 - p)
    coefficients, covariance = np.zeros((p, r, r)), 2.0 * np.eye(r)
    coefficients[0] = 0.3 * np.eye(r)
    a, q = var_step(moments, coefficients, covariance)
    before = expected_loglikelihood(moments, coefficients, covariance)
    assert expected_loglikelihood(moments, a, q) > before + 0.1
    monkeypatch.setattr(stationary, "var_ascent", lambda *each: (each[5], each[6], False))
    plain_a, plain_q = var_step(moments, coefficients, covariance)
    np.testing.assert_allclose(a, plain_a, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(q, plain_q, rtol=1e-9, atol=1e-12)


def test_singular_moments_are_left_to_least_squares():
    f = np.random.default_rng(0).normal(size=(30, 1)) @ np.ones((1, 2))
    moments = VarMoments(f[1:].T @ f[1:], f[1:].T @ f[:-1], f[:-1].T @ f[:-1], np.eye(2), 29)
    arguments = (moments.present, moments.cross, moments.past, moments.start, 29.0)
    assert not stationary.var_ascent(*arguments, 0.3 * np.eye(2), np.eye(2), 46, 30)[2]
    a, q = var_step(moments, 0.3 * np.eye(2)[None], np.eye(2))
    assert np.isfinite(a).all()
    assert np.isfinite(q).all()
