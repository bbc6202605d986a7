"""SQUAREM and Anderson mixing: they accelerate, the objective falls, they stop for the stated reason."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.kernels.em import anderson, squarem


def _gap(new, old):
    return float(np.linalg.norm(new - old))


def _linear(rates, solution):
    """A contraction towards `solution` and the quadratic it descends."""

    def step(x):
        return solution + rates * (x - solution), float(np.sum((x - solution) ** 2))

    return step


def test_a_slow_linear_map_is_accelerated():
    rates = np.array([0.999, 0.9, 0.5, 0.1])
    solution = np.array([1.0, -2.0, 3.0, 0.5])
    found = squarem(
        _linear(rates, solution), np.zeros(4), distance=_gap, tolerance=1e-10, max_iterations=5000
    )
    assert found.converged
    np.testing.assert_allclose(found.parameters, solution, atol=1e-8)
    # the plain iteration needs log(1e-8)/log(.999) = 18,000 steps
    assert found.n_iterations < 600
    path = np.array(found.objective_path)
    assert np.all(np.diff(path) <= 1e-12 * path[:-1])
    assert len(path) <= found.n_iterations


def test_one_rate_is_solved_by_one_extrapolation():
    # S3 is exact for one error component; only the ceiling on the first steplengths (1, 4, 16, ...) delays it
    solution = np.array([2.0, 5.0])
    found = squarem(
        _linear(np.array([0.9, 0.9]), solution),
        np.zeros(2),
        distance=_gap,
        tolerance=1e-12,
        max_iterations=100,
    )
    assert found.converged
    assert found.n_iterations <= 18
    np.testing.assert_allclose(found.parameters, solution, rtol=1e-12)


def test_the_guard_takes_the_plain_double_step_where_extrapolation_raises_the_objective():
    """Steps of nearly constant length 1 call for an enormous extrapolation, past the minimum."""
    evaluated: list[tuple[float, float]] = []

    def step(x):
        objective = float(x[0] ** 2)
        evaluated.append((float(x[0]), objective))
        return x - 0.9 * np.tanh(x), objective

    found = squarem(step, np.array([20.0]), distance=_gap, tolerance=1e-12, max_iterations=200)
    assert found.converged
    assert abs(found.parameters[0]) < 1e-10
    path = np.array(found.objective_path)
    rejected = [pair for pair in evaluated if pair[1] not in set(path)]
    assert rejected, "no extrapolation was rejected: this test would not notice a missing guard"
    assert len(path) == found.n_iterations - len(rejected)
    assert np.all(np.diff(path) <= 1e-12 * np.abs(path[:-1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inadmissible_extrapolations_are_rejected(bad):
    """The objective exists for x >= 0 only, and the map's overshooting extrapolation leaves that region."""
    seen_bad = []

    def step(x):
        if x[0] < 0.0:
            seen_bad.append(x[0])
            return x, bad
        return 0.5 * np.sqrt(x) * x / (1.0 + x) ** 0.5, float(x[0] ** 2)

    found = squarem(step, np.array([30.0]), distance=_gap, tolerance=1e-12, max_iterations=500)
    assert seen_bad, "no extrapolation left the region: the test shows nothing"
    assert found.converged
    assert np.all(np.isfinite(found.objective_path))
    assert 0.0 <= found.parameters[0] < 1e-10


def test_stopping_needs_two_small_cycles_and_says_so():
    gaps = iter([1.0, 1e-12, 1.0, 1e-12, 1e-12])
    found = squarem(
        _linear(np.array([0.5, 0.25]), np.ones(2)),
        np.zeros(2),
        distance=lambda new, old: next(gaps),
        tolerance=1e-10,
        max_iterations=60,
    )
    assert found.converged
    assert found.n_iterations == 15
    assert "tolerance 1e-10" in found.reason


def test_cap_floor_and_fixed_point():
    step = _linear(np.array([0.99, 0.9]), np.ones(2))
    capped = squarem(step, np.zeros(2), distance=_gap, tolerance=1e-14, max_iterations=10)
    assert not capped.converged
    assert capped.n_iterations == 9
    assert "stopped after 9" in capped.reason
    floored = squarem(step, np.zeros(2), distance=_gap, tolerance=0.0, max_iterations=500, floor=1e-6)
    assert floored.converged
    assert "zero up to rounding" in floored.reason
    start = np.ones(2)
    still = squarem(step, start, distance=_gap, tolerance=1e-14, max_iterations=500)
    assert still.converged
    np.testing.assert_array_equal(still.parameters, start)
    assert start.tobytes() == np.ones(2).tobytes()


def test_mixing_removes_several_slow_directions_at_once():
    rates = np.array([0.999, 0.99, 0.97, 0.9, 0.5])
    solution = np.arange(1.0, 6.0)
    start, limits = np.zeros(5), {"distance": _gap, "tolerance": 1e-10, "max_iterations": 200}
    found = anderson(_linear(rates, solution), start, **limits)
    assert found.converged
    np.testing.assert_allclose(found.parameters, solution, atol=1e-6)
    assert found.n_iterations < 15
    assert (np.diff(found.objective_path) <= 0).all()
    assert not squarem(_linear(rates, solution), start, **limits).converged


def test_mixing_that_runs_out_says_so_and_returns_a_point_as_good_as_its_last():
    step = _linear(np.array([0.9]), np.array([1.0]))
    found = anderson(step, np.zeros(1), distance=_gap, tolerance=0.0, max_iterations=1)
    assert not found.converged
    assert "stopped after 1" in found.reason
    assert step(found.parameters)[1] <= found.objective_path[-1]
