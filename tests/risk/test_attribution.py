"""Performance attribution: every cell by slow loops, exact sums, remainders, linking, standard errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import Panel, PCAConfig, PCAModel
from latentfactors.errors import ConfigurationError, InsufficientDataError, PanelMismatchError
from latentfactors.results import AssetWeightsResult
from latentfactors.risk import attribute_performance
from latentfactors.risk.attribution import carino
from latentfactors.state import StaticLoadings
from tests.risk.small import dense_parts, world

CLOSE = {"rtol": 1e-10, "atol": 1e-14}


def slow(state, panel, weights):
    """Cell by cell: returns, (T, K) factor parts, intercept, specific, |w| without value, without model."""
    values, residuals, loadings = dense_parts(state, panel)
    m, t, k = state.measurement, state.n_realised, len(state.factors.names)
    out = np.zeros((t, k + 5))
    for p in range(t):
        for i in range(panel.n_assets):
            w = weights[p, i]
            if not np.isfinite(values[p, i]):
                out[p, k + 3] += abs(w)
                continue
            out[p, k + 2] += w * values[p, i]
            if not np.isfinite(residuals[p, i]):
                out[p, k + 4] += abs(w)
                continue
            parts = loadings[p, i] * state.factors.values[p]
            out[p, :k] += w * parts
            specific = m.scale[i] * residuals[p, i]
            out[p, k + 1] += w * specific
            out[p, k] += w * (values[p, i] - parts.sum() - specific)
    return out


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("units", [False, True])
def test_every_part_by_slow_loops(conditional, units):
    state, panel = world(conditional=conditional, units=units, alpha=True, live=1, seed=3)
    if not conditional:
        loadings = state.measurement.loadings.values.copy()
        loadings[4] = np.nan
        state = replace(
            state, measurement=replace(state.measurement, loadings=StaticLoadings(loadings, state.index))
        )
    factors = state.factors.values.copy()
    factors[7] = np.nan
    state = replace(state, factors=replace(state.factors, values=factors))
    w = np.random.default_rng(0).normal(size=(61, 12))
    found = attribute_performance(state, panel, w)
    wanted = slow(state, panel, w)
    np.testing.assert_allclose(found.by_factor, wanted[:, :6], **CLOSE)
    np.testing.assert_allclose(found.intercept, wanted[:, 6], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.specific, wanted[:, 7], **CLOSE)
    np.testing.assert_allclose(found.returns, wanted[:, 8], **CLOSE)
    np.testing.assert_allclose(found.weight_unvalued, wanted[:, 9], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.weight_unmodelled, wanted[:, 10], rtol=1e-10, atol=1e-12)
    remainder = wanted[:, 8] - wanted[:, :8].sum(axis=1)
    np.testing.assert_allclose(found.remainder, remainder, atol=1e-12)
    assert np.abs(found.remainder[7]) > 1e-6
    assert found.by_factor[7].any() == np.False_
    names, parts = found.parts("family")
    assert names == ("market", "country", "rating", "intercept", "specific", "remainder")
    np.testing.assert_allclose(parts.sum(axis=1), found.returns, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(parts[:, 1], wanted[:, 1:4].sum(axis=1), **CLOSE)
    totals = found.asset_systematic.sum(), found.asset_specific.sum(), found.asset_intercept.sum()
    wanted_totals = wanted[:, :6].sum(), wanted[:, 7].sum(), wanted[:, 6].sum()
    np.testing.assert_allclose(totals, wanted_totals, rtol=1e-9, atol=1e-12)


def test_active_returns_are_the_difference():
    state, panel = world(seed=2)
    mine, theirs = {"A00": 0.6, "A03": 0.4}, np.full(12, 1 / 12)
    active = attribute_performance(state, panel, mine, theirs)
    one, two = attribute_performance(state, panel, mine), attribute_performance(state, panel, theirs)
    for name in ("returns", "by_factor", "specific", "exposures"):
        np.testing.assert_allclose(getattr(active, name), getattr(one, name) - getattr(two, name), atol=1e-14)
    np.testing.assert_allclose(active.benchmark_returns, two.returns, atol=1e-15)


def test_a_stated_return_leaves_costs_to_the_remainder():
    state, panel = world(ragged=False, missing=0.0, seed=2)
    w = np.full(12, 1 / 12)
    plain = attribute_performance(state, panel, w)
    np.testing.assert_allclose(plain.remainder, 0.0, atol=1e-15)
    costly = attribute_performance(state, panel, w, portfolio_returns=plain.returns - 0.001)
    np.testing.assert_allclose(costly.remainder, -0.001, atol=1e-14)
    np.testing.assert_array_equal(costly.specific, plain.specific)
    with pytest.raises(PanelMismatchError, match="portfolio_returns"):
        attribute_performance(state, panel, w, portfolio_returns=plain.returns[1:])


def test_carino_links_exactly():
    state, panel = world(seed=5)
    active = attribute_performance(state, panel, {"A00": 1.5}, {"A01": 1.0})
    portfolio, benchmark = active.benchmark_returns + active.returns, active.benchmark_returns
    total = np.prod(1 + portfolio) - np.prod(1 + benchmark)
    for by in ("factor", "family"):
        linked = active.linked(by)
        assert linked.total == pytest.approx(total, rel=1e-12)
        assert linked.method == "carino"
        assert linked.contributions.sum() == pytest.approx(total, rel=1e-10)
        assert linked.frame()["part"].to_list() == list(linked.names)
    # by the formula itself
    R, B = np.prod(1 + portfolio) - 1, np.prod(1 + benchmark) - 1
    k = (np.log1p(R) - np.log1p(B)) / (R - B)
    apart = portfolio != benchmark
    k_p = (np.log1p(portfolio) - np.log1p(benchmark))[apart] / (portfolio - benchmark)[apart]
    np.testing.assert_allclose(
        active.linked().contributions[:6], (k_p / k) @ active.by_factor[apart], rtol=1e-9
    )
    # where returns meet, the limit; no 0/0
    weight, same = carino(np.array([0.1, 0.02]), np.array([0.1, 0.02]))
    assert same == 0
    assert np.allclose(weight * (1 + np.array([0.1, 0.02])), 1.1 * 1.02)
    with pytest.raises(ConfigurationError, match="percent"):
        carino(np.array([-1.5]), np.zeros(1))


def test_spread_changes_add_up_without_compounding():
    state, panel = world(seed=5, value_kind="spread_change")
    found = attribute_performance(state, panel, {"A00": 1.0})
    linked = found.linked()
    assert linked.method == "sum"
    assert linked.total == pytest.approx(found.returns.sum())


def test_standard_errors():
    state, panel = world(posterior=True, seed=1)
    w = np.full(12, 1 / 12)
    found = attribute_performance(state, panel, w)
    v = state.factors.covariance
    for p in (0, 31):
        x = found.exposures[p]
        np.testing.assert_allclose(found.errors[p], np.abs(x) * np.sqrt(np.diag(v[p])), rtol=1e-12)
        assert found.systematic_error[p] == pytest.approx(np.sqrt(x @ v[p] @ x), rel=1e-10)
    mean = found.mean_errors()
    assert mean[-1] == pytest.approx(np.sqrt(np.sum(found.systematic_error**2)) / 60, rel=1e-12)
    without, _ = world(seed=1)
    assert attribute_performance(without, panel, w).errors is None
    assert attribute_performance(without, panel, w).mean_errors() is None


def test_cross_section_errors_cover_the_truth():
    rng = np.random.default_rng(0)
    loadings, factors = rng.normal(size=(60, 2)), rng.normal(0.0, 0.03, (400, 2))
    noise = rng.uniform(0.01, 0.05, 60)
    panel = Panel.from_arrays(factors @ loadings.T + noise * rng.normal(size=(400, 60)))
    model = PCAModel(PCAConfig(n_factors=2))
    model.fit(panel)
    state = model.extract(panel)
    estimated = np.linalg.lstsq(loadings, panel.wide().T, rcond=None)[0].T
    state = replace(
        state,
        factors=replace(state.factors, values=estimated),
        measurement=replace(
            state.measurement,
            loadings=StaticLoadings(loadings, state.index),
            residual_variance=np.tile(noise**2, 400),
        ),
    )
    w = rng.normal(size=60) / 60
    found = attribute_performance(state, panel, w, errors="cross_section")
    error = found.systematic - factors @ (loadings.T @ w)
    z = error / found.systematic_error
    assert np.std(z) == pytest.approx(1.0, abs=0.12)  # 3.4 standard errors of 400 periods
    z = (found.by_factor - found.exposures * factors) / found.errors
    np.testing.assert_allclose(z.std(axis=0), 1.0, atol=0.12)


def test_weights_of_every_kind_and_those_that_do_not_fit():
    state, panel = world(seed=4)
    constant = np.zeros(12)
    constant[[0, 3]] = 0.5
    wanted = attribute_performance(state, panel, {"A00": 0.5, "A03": 0.5})
    rows = AssetWeightsResult(index=state.index, weights=constant[panel.asset_codes])
    for weights in (constant, np.tile(constant, (60, 1)), rows):
        found = attribute_performance(state, panel, weights)
        np.testing.assert_allclose(found.by_factor, wanted.by_factor, atol=1e-15)
    for weights, said in (
        ({"A00": 0.5, "ZZ": 0.5}, "ZZ"),
        (np.ones(5), r"\(5,\)"),
        (np.ones((3, 12)), r"\(3, 12\)"),
        ({"A00": np.nan}, "A00"),
        (
            AssetWeightsResult(index=state.index.between(0, 5), weights=np.zeros(int(panel.offsets[5]))),
            "rows",
        ),
    ):
        with pytest.raises(PanelMismatchError, match=said):
            attribute_performance(state, panel, weights)
    with pytest.raises(ConfigurationError, match="errors must be"):
        attribute_performance(state, panel, constant, errors="bootstrap")
    with pytest.raises(InsufficientDataError, match="realised"):
        attribute_performance(replace(state, n_realised=0), panel, constant)
    table = wanted.frame("family")
    assert table.columns == [
        "time",
        "return",
        "market",
        "country",
        "rating",
        "intercept",
        "specific",
        "remainder",
    ]
    assert len(wanted.frame("asset")) == 12
    assert "specific" in repr(wanted)
