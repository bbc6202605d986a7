"""Panel statistics against sums over rows; the alternating and Newton steps against slow, obvious twins."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from latentfactors import Panel
from latentfactors.errors import PanelError, PanelMismatchError
from latentfactors.kernels import ipca
from latentfactors.kernels.instrumented_loadings import InstrumentedLoadings
from latentfactors.kernels.linalg import subspace_angle
from latentfactors.kernels.sufficient import (
    conditional_factors,
    exposures,
    period_statistics,
    projected_factors,
    projection_weights,
    scaled_weights,
)
from latentfactors.parquet_statistics import statistics_from_parquet
from latentfactors.simulate import characteristic_panel


def small_panel(**options):
    defaults = {
        "n_periods": 30, "n_assets": 25, "n_factors": 3, "n_characteristics": 5, "missing": 0.2, "seed": 3,
    }  # fmt: skip
    return characteristic_panel(**(defaults | options)).panel


def close(a, b, rel):
    for name in ("grams", "crosses", "squares", "counts"):
        x, y = getattr(a, name), getattr(b, name)
        np.testing.assert_allclose(x, y, rtol=0, atol=rel * np.abs(y).max())


# ------------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_statistics_are_sums_over_observed_rows(constant, weighted):
    panel = small_panel(live=1)
    rng = np.random.default_rng(0)
    weights = np.where(rng.random(panel.n_rows) < 0.1, 0.0, rng.random(panel.n_rows)) if weighted else None
    found = period_statistics(
        panel.values, panel.characteristics, panel.offsets, weights=weights, constant=constant
    )
    Z = np.column_stack([panel.characteristics, np.ones(panel.n_rows)]) if constant else panel.characteristics
    for t in range(panel.n_periods):
        grams, crosses, squares, n = np.zeros((Z.shape[1],) * 2), np.zeros(Z.shape[1]), 0.0, 0
        for i in range(panel.offsets[t], panel.offsets[t + 1]):
            w = 1.0 if weights is None else weights[i]
            if np.isfinite(panel.values[i]) and w > 0:
                grams += w * np.outer(Z[i], Z[i])
                crosses += w * Z[i] * panel.values[i]
                squares += w * panel.values[i] ** 2
                n += 1
        np.testing.assert_allclose(found.grams[t], grams, atol=1e-13)
        np.testing.assert_allclose(found.crosses[t], crosses, atol=1e-13)
        assert found.squares[t] == pytest.approx(squares, abs=1e-13)
        assert found.counts[t] == n
    assert found.counts[-1] == 0
    assert not found.grams.flags.writeable


def test_parts_concatenate_and_float32_is_converted():
    panel = small_panel()
    single = panel.characteristics.astype(np.float32)
    whole = period_statistics(panel.values, single, panel.offsets)
    close(whole, period_statistics(panel.values, single.astype(float), panel.offsets), 0.0)
    head, tail = panel.between(0, 11), panel.between(11, 30)
    cut = int(panel.offsets[11])
    joined = period_statistics(head.values, single[:cut], head.offsets).concatenate(
        period_statistics(tail.values, single[cut:], tail.offsets)
    )
    close(joined, whole, 0.0)
    close(whole.take(slice(11, None)), period_statistics(tail.values, single[cut:], tail.offsets), 0.0)


def frame_of(panel, dtype=pl.Float64):
    period = panel.index.period_codes
    columns = {
        "month": panel.times[period],
        "firm": panel.assets[panel.asset_codes],
        "ret": panel.values,
        "size": 1.0 + panel.asset_codes % 5,
    }
    columns |= {name: panel.characteristics[:, j] for j, name in enumerate(panel.characteristic_names)}
    return pl.DataFrame(columns).with_columns(pl.col(panel.characteristic_names).cast(dtype))


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32])
def test_out_of_core_equals_in_memory(tmp_path, lag, weighted, dtype):
    source = small_panel(n_periods=40, live=1)
    frame = frame_of(source, dtype)
    lost = source.times[17]  # a month without lines
    shuffled = frame.filter(pl.col("month") != lost).sample(fraction=1.0, shuffle=True, seed=1).sort("month")
    path = tmp_path / "panel.parquet"
    shuffled.write_parquet(path, row_group_size=64)
    columns = {
        "time": "month", "asset": "firm", "value": "ret", "lag": lag, "frequency": "M",
        "characteristics": list(source.characteristic_names), "weights": "size" if weighted else None,
    }  # fmt: skip
    panel = Panel.from_parquet(path, **columns)
    panel = panel.between(0, panel.n_realised)
    weights = None
    if weighted:
        weights = scaled_weights(panel.values, panel.weights, panel.offsets)
    expected = period_statistics(
        panel.values, panel.characteristics, panel.offsets, weights=weights, constant=True
    )
    for batch_rows in (1, 100, 10_000):
        times, found = statistics_from_parquet(path, **columns, constant=True, batch_rows=batch_rows)
        np.testing.assert_array_equal(times, panel.times)
        close(found, expected, 1e-13)


def test_files_that_cannot_be_read_in_batches_are_refused(tmp_path):
    frame = frame_of(small_panel(n_periods=6, n_assets=8))
    path = tmp_path / "panel.parquet"
    columns = {"time": "month", "asset": "firm", "value": "ret", "characteristics": ["c0", "c1"], "lag": 0}

    def read(table, **changes):
        table.write_parquet(path)
        return statistics_from_parquet(path, **(columns | changes))

    with pytest.raises(PanelError, match="must be sorted by 'month'"):
        read(frame.reverse())
    with pytest.raises(PanelError, match="repeats or lacks labels"):
        read(pl.concat([frame, frame[-1:]]))
    with pytest.raises(PanelMismatchError, match="'c1' has some in period"):
        read(frame.with_columns(c1=pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise(pl.col("c1"))))
    with pytest.raises(PanelError, match="no observed value"):
        read(frame.with_columns(ret=pl.lit(float("nan"))))
    with pytest.raises(PanelError, match="no column 'nothing'"):
        read(frame, value="nothing")
    with pytest.raises(PanelError, match="lag must be 0 or 1"):
        read(frame, lag=2)


# ------------------------------------------------------------------------------------ one period at a time


def test_factors_are_weighted_least_squares_of_each_period():
    panel = small_panel(live=1)
    rng = np.random.default_rng(1)
    gamma = rng.normal(size=(6, 2))
    loadings = exposures(panel.characteristics, panel.offsets, gamma)
    np.testing.assert_allclose(loadings, panel.characteristics @ gamma[:5] + gamma[5], atol=1e-14)
    weights, shrink = rng.random(panel.n_rows), rng.random(panel.n_periods)
    factors = conditional_factors(
        loadings, panel.values, panel.offsets, min_observed=4, weights=weights, shrink=shrink
    )
    for t in range(panel.n_periods - 1):
        rows = panel.index.rows(t)
        o = np.isfinite(panel.values[rows])
        B, w, r = loadings[rows][o], weights[rows][o], panel.values[rows][o]
        expected = np.linalg.solve(B.T @ (w[:, None] * B) + shrink[t] * np.eye(2), B.T @ (w * r))
        np.testing.assert_allclose(factors[t], expected, rtol=1e-10)
        portfolio = projection_weights(B, w, shrink[t])
        np.testing.assert_allclose(portfolio.T @ r, expected, rtol=1e-10)
    assert np.isnan(factors[-1]).all()


def test_nearly_collinear_periods_are_solved_and_collinear_ones_are_nan():
    rng = np.random.default_rng(2)
    f = np.array([0.3, -0.2])
    for ratio, known in ((1e-2, True), (1e-5, True), (1e-8, False), (0.0, False)):
        base = rng.normal(size=(40, 1))
        B = np.hstack([base, base + ratio * rng.normal(size=(40, 1))])
        found = conditional_factors(B, B @ f, np.array([0, 40]), min_observed=4)[0]
        if known:
            np.testing.assert_allclose(found, f, rtol=1e-9)
        else:
            assert np.isnan(found).all()


# ------------------------------------------------------------------------------------ steps


def naive_als(statistics, gamma, given, n_steps):
    """Alternating least squares in the coordinates as they are, one period and one equation at a time."""
    L, k = gamma.shape
    m = given.shape[1]
    delta = np.zeros((L, m))
    for _ in range(n_steps):
        A, b = np.zeros((L * (k + m),) * 2), np.zeros(L * (k + m))
        for W, x, h in zip(statistics.grams, statistics.crosses, given, strict=True):
            f = np.linalg.solve(gamma.T @ W @ gamma, gamma.T @ (x - W @ delta @ h))
            p = np.concatenate([f, h])
            A += np.kron(W, np.outer(p, p))
            b += np.kron(x, p)
        theta = np.linalg.lstsq(A, b)[0].reshape(L, k + m)
        gamma = np.linalg.qr(theta[:, :k])[0]
        delta = theta[:, k:] - gamma @ (gamma.T @ theta[:, k:])
    return gamma, delta


def objective(statistics, gamma, delta, given):
    total = 0.0
    for W, x, s, h in zip(statistics.grams, statistics.crosses, statistics.squares, given, strict=True):
        f = np.linalg.solve(gamma.T @ W @ gamma, gamma.T @ (x - W @ delta @ h))
        c = gamma @ f + delta @ h
        total += s - 2 * c @ x + c @ W @ c
    return total


@pytest.mark.parametrize("n_given", [0, 1, 2])
@pytest.mark.parametrize("k", [1, 3])
def test_the_fit_is_where_slow_alternation_ends(n_given, k):
    panel = small_panel(n_factors=max(k, 1), n_periods=60)
    statistics = period_statistics(panel.values, panel.characteristics, panel.offsets)
    rng = np.random.default_rng(5)
    given = np.column_stack([np.ones(60), rng.normal(size=60)])[:, :n_given]
    fit = ipca.fit_instrumented(statistics, k, given=given)
    start = np.linalg.eigh(statistics.crosses.T @ statistics.crosses)[1][:, -k:]
    gamma, delta = naive_als(statistics, start, given, 400)
    assert fit.converged
    assert fit.n_iterations < 15
    assert subspace_angle(fit.gamma, gamma) < 1e-9
    np.testing.assert_allclose(fit.delta, delta, atol=1e-9)
    np.testing.assert_allclose(fit.gamma.T @ fit.delta, 0, atol=1e-14)
    assert np.all(np.diff(fit.objective_path) <= 1e-12)
    expected = objective(statistics, gamma, delta, given) / statistics.squares.sum()
    assert fit.objective_path[-1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_given", [0, 2])
def test_gradient_and_hessian_are_those_of_the_objective(n_given):
    """Finite differences of the brute-force objective along random directions, away from the solution."""
    panel = small_panel(n_periods=40)
    statistics = period_statistics(panel.values, panel.characteristics, panel.offsets)
    rng = np.random.default_rng(7)
    given = rng.normal(size=(40, n_given))
    gamma = np.linalg.qr(rng.normal(size=(5, 2)))[0]
    delta = 0.02 * rng.normal(size=(5, n_given))
    delta -= gamma @ (gamma.T @ delta)
    problem = ipca._Problem(statistics.grams, statistics.crosses, given, np.eye(5))
    at = ipca.evaluate(problem, gamma, delta)
    N, A, B = ipca.newton_system(problem, at)
    descent = ipca.descent_direction(problem, at, N)

    def along(direction, step):
        Y = direction.reshape(-1, 3).T
        moved = gamma + step * N @ Y[:, :2], delta + step * N @ Y[:, 2:]
        return objective(statistics, *moved, given) / 2

    for _ in range(4):
        direction = rng.normal(size=descent.size)
        slope = (along(direction, 1e-5) - along(direction, -1e-5)) / 2e-5
        bend = (along(direction, 1e-3) - 2 * along(direction, 0.0) + along(direction, -1e-3)) / 1e-6
        assert -descent @ direction == pytest.approx(slope, rel=1e-6)
        assert direction @ (A - B) @ direction == pytest.approx(bend, rel=1e-3)


def test_the_gradient_vanishes_at_the_solution_and_the_curvature_is_positive():
    panel = small_panel(n_periods=60)
    statistics = period_statistics(panel.values, panel.characteristics, panel.offsets)
    fit = ipca.fit_instrumented(statistics, 3, n_starts=6, seed=1)
    assert fit.gradient < 1e-14
    assert 0 < fit.curvature <= 1
    assert fit.n_agreeing == 6
    assert fit.start_spread < 1e-9
    value = objective(statistics, fit.gamma, np.zeros((5, 0)), np.zeros((60, 0)))
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = np.linalg.qr(fit.gamma + 1e-3 * rng.normal(size=fit.gamma.shape))[0]
        assert objective(statistics, other, np.zeros((5, 0)), np.zeros((60, 0))) > value


def test_warm_starts_and_units_of_characteristics():
    panel = small_panel(n_periods=60)
    units = np.array([1e-3, 1.0, 50.0, 1e4, 1e-2])
    statistics = period_statistics(panel.values, panel.characteristics, panel.offsets)
    scaled = period_statistics(panel.values, panel.characteristics * units, panel.offsets)
    plain = ipca.fit_instrumented(statistics, 2)
    other = ipca.fit_instrumented(scaled, 2)
    assert subspace_angle(units[:, None] * other.gamma, plain.gamma) < 1e-9
    assert other.n_iterations <= plain.n_iterations + 1
    warm = ipca.fit_instrumented(statistics, 2, start=plain.gamma @ np.array([[2.0, 1.0], [0.0, 1.0]]))
    assert warm.n_iterations <= 3
    assert subspace_angle(warm.gamma, plain.gamma) < 1e-12


def test_collinear_characteristics_get_the_minimum_norm_answer():
    panel = small_panel(n_periods=60)
    Z = panel.characteristics
    doubled = np.column_stack([Z, Z[:, 0] - 2 * Z[:, 1], np.zeros(len(Z))])
    plain = ipca.fit_instrumented(period_statistics(panel.values, Z, panel.offsets), 2)
    fit = ipca.fit_instrumented(period_statistics(panel.values, doubled, panel.offsets), 2)
    assert fit.rank == 5
    null = np.array([[1, -2, 0, 0, 0, -1, 0], [0, 0, 0, 0, 0, 0, 1.0]])
    np.testing.assert_allclose(null @ fit.gamma, 0, atol=1e-12)
    # the same loadings
    assert subspace_angle(doubled @ fit.gamma, Z @ plain.gamma) < 1e-9


def test_as_many_factors_as_characteristics_is_a_regression_a_period():
    panel = small_panel(n_periods=20)
    statistics = period_statistics(panel.values, panel.characteristics, panel.offsets)
    fit = ipca.fit_instrumented(statistics, 5)
    assert fit.converged
    sse = sum(
        s - x @ np.linalg.solve(W, x)
        for W, x, s in zip(statistics.grams, statistics.crosses, statistics.squares, strict=True)
    )
    assert fit.objective_path[-1] == pytest.approx(sse / statistics.squares.sum(), rel=1e-9)


# ------------------------------------------------------------------------------------ factors from statistics


@pytest.mark.parametrize("weighted", [False, True])
def test_factors_from_statistics_are_those_from_rows(weighted):
    panel = small_panel(n_periods=40)
    rng = np.random.default_rng(3)
    weights = rng.lognormal(size=panel.n_rows) if weighted else None
    gamma = np.linalg.qr(rng.normal(size=(5, 2)))[0]
    known, shrink = rng.normal(size=(40, 5)), rng.uniform(0.1, 1.0, size=40)
    statistics = period_statistics(panel.values, panel.characteristics, panel.offsets, weights=weights)
    loadings = exposures(panel.characteristics, panel.offsets, gamma)
    targets = panel.values - (panel.characteristics * known[panel.index.period_codes]).sum(axis=1)
    wanted = conditional_factors(
        loadings, targets, panel.offsets, min_observed=4, weights=weights, shrink=shrink
    )
    found, doubtful = projected_factors(statistics, gamma, min_observed=4, known=known, shrink=shrink)
    assert doubtful.size == 0
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    # a period's row is the same, to the bit, whatever the other periods are
    for part in (slice(0, 7), slice(11, 12), slice(5, 40)):
        alone, _ = projected_factors(
            statistics.take(part), gamma, min_observed=4, known=known[part], shrink=shrink[part]
        )
        np.testing.assert_array_equal(alone, found[part])
    known[3, 0] = np.nan
    thin, _ = projected_factors(statistics, gamma, min_observed=int(statistics.counts[8]) + 1, known=known)
    assert np.isnan(thin[3]).all()
    assert np.isnan(thin[8]).all()


def test_rounded_statistics_are_left_to_the_rows():
    """Two characteristics that are one large number plus a little: W has lost what Gamma asks for."""
    rng = np.random.default_rng(4)
    little = rng.normal(size=(60, 2))
    Z = np.column_stack([1e7 + little[:, 0], np.full(60, 1e7), little[:, 1]])
    gamma = np.linalg.qr(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))[0]
    values, offsets = Z @ gamma @ [0.3, -0.2], np.array([0, 30, 60])
    statistics = period_statistics(values, Z, offsets)
    found, doubtful = projected_factors(statistics, gamma, min_observed=4)
    assert doubtful.tolist() == [0, 1]
    assert np.isnan(found).all()
    rows = conditional_factors(exposures(Z, offsets, gamma), values, offsets, min_observed=4)
    np.testing.assert_allclose(rows, [[0.3, -0.2]] * 2, rtol=1e-6)


def test_roots_of_inverses_are_pseudo_inverses_where_they_must_be():
    rng = np.random.default_rng(6)
    singular = np.concatenate([rng.normal(size=(20, 2, 3)), np.zeros((1, 2, 3))])
    for rows in (rng.normal(size=(20, 8, 3)), singular):
        grams = rows.transpose(0, 2, 1) @ rows
        roots = ipca._inverse_roots(grams)
        inverses = np.linalg.pinv(grams, rcond=1e-12)
        np.testing.assert_allclose(roots.transpose(0, 2, 1) @ roots, inverses, rtol=1e-7, atol=1e-9)


def test_a_fit_factorises_few_newton_systems(monkeypatch):
    """Once it is close, a factorised matrix serves the other steps: two systems, and the certificate's."""
    built = []
    system = ipca.newton_system
    monkeypatch.setattr(ipca, "newton_system", lambda *given: built.append(0) or system(*given))
    panel = characteristic_panel(
        n_periods=150, n_assets=120, n_factors=3, n_characteristics=10, missing=0.3, seed=2
    ).panel
    statistics = period_statistics(panel.values, panel.characteristics, panel.offsets)
    loose = ipca.fit_instrumented(statistics, 3)
    assert len(built) <= 3 < loose.n_iterations
    exact = ipca.fit_instrumented(statistics, 3, tolerance=1e-13)
    assert subspace_angle(loose.gamma, exact.gamma) < 1e-12
    assert loose.gradient < 1e-14
    assert np.all(np.diff(loose.objective_path) <= 1e-13)


# ------------------------------------------------------------------------------------ loadings on demand


def test_loadings_on_demand_are_the_rows_of_the_panel():
    panel = small_panel(n_periods=30)
    coefficients = np.random.default_rng(8).normal(size=(6, 2))  # the last one is that of a constant
    loadings = InstrumentedLoadings(panel.characteristics, coefficients, panel.index)
    part = loadings.between(20, 25)
    assert "values" not in loadings.__dict__
    wanted = panel.characteristics @ coefficients[:5] + coefficients[5]
    low, high = panel.offsets[20], panel.offsets[25]
    np.testing.assert_allclose(part.rows(), wanted[low:high], rtol=1e-12, atol=1e-13)
    assert "values" not in loadings.__dict__
    np.testing.assert_array_equal(loadings.rows()[low:high], part.rows())
    np.testing.assert_array_equal(loadings.between(20, 25).rows(), part.rows())
    np.testing.assert_array_equal(loadings.between(20, 30).between(0, 5).at(2), loadings.at(22))
    assert loadings.n_factors == 2
    assert loadings.dense().shape == (30, panel.n_assets, 2)
