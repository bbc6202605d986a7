"""Covariances per period: the estimators by hand, the rule of time, new days, gaps, groups, issuers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import PCAConfig, PCAModel
from latentfactors.errors import (
    ConfigurationError,
    GapError,
    InsufficientDataError,
    PanelMismatchError,
)
from latentfactors.kernels.newey_west import long_run_sum
from latentfactors.risk import (
    EWMACovariance,
    NeweyWestCovariance,
    RiskConfig,
    SampleCovariance,
    SpecificVariance,
    repair_covariance,
    risk_model,
)
from latentfactors.simulate import static_panel
from latentfactors.state import StaticLoadings
from latentfactors.store import load_object, save_object
from tests.risk.small import dense_parts, world

ESTIMATORS = [
    SampleCovariance(),
    SampleCovariance(demean=False),
    EWMACovariance(variance_half_life=8.0),
    EWMACovariance(variance_half_life=5.0, correlation_half_life=20.0, demean=True),
    NeweyWestCovariance(lags=3),
    NeweyWestCovariance(lags=2, demean=False),
]


def covariance_of(estimator, factors):
    moments = estimator.moments(factors.shape[1])
    return estimator.covariance(tuple(each.update(factors) for each in moments))


def slow_ewma(factors, half_life, demean):
    weight = 0.5 ** ((len(factors) - 1 - np.arange(len(factors))) / half_life)
    weight /= weight.sum()
    mean = weight @ factors if demean else 0.0
    return sum(w * np.outer(f, f) for w, f in zip(weight, factors - mean, strict=True))


def test_estimators_by_hand():
    factors = np.random.default_rng(0).normal(5.0, 1.0, (70, 3)) @ np.array(
        [[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 2.0]]
    )
    np.testing.assert_allclose(covariance_of(ESTIMATORS[0], factors), np.cov(factors.T), rtol=1e-11)
    np.testing.assert_allclose(covariance_of(ESTIMATORS[1], factors), factors.T @ factors / 70, rtol=1e-12)
    np.testing.assert_allclose(
        covariance_of(ESTIMATORS[2], factors), slow_ewma(factors, 8.0, False), rtol=1e-11
    )
    fast, slow = slow_ewma(factors, 5.0, True), slow_ewma(factors, 20.0, True)
    sd, correlation = np.sqrt(np.diag(fast)), slow / np.sqrt(np.outer(np.diag(slow), np.diag(slow)))
    np.testing.assert_allclose(
        covariance_of(ESTIMATORS[3], factors), correlation * np.outer(sd, sd), rtol=1e-11
    )
    centred = factors - factors.mean(axis=0)
    np.testing.assert_allclose(
        covariance_of(ESTIMATORS[4], factors), long_run_sum(centred, 3) / 70, rtol=1e-11
    )
    np.testing.assert_allclose(
        covariance_of(ESTIMATORS[5], factors), long_run_sum(factors, 2) / 70, rtol=1e-11
    )


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_new_days_equal_all_days(estimator, gaps):
    rng = np.random.default_rng(1)
    factors = rng.normal(3.0, 1.0, (90, 4))
    factors[rng.random(factors.shape) < gaps] = np.nan
    whole = covariance_of(estimator, factors)
    moments = estimator.moments(4)
    for block in (factors[:40], factors[40:41], factors[41:41], factors[41:43], factors[43:]):
        moments = tuple(each.update(block) for each in moments)
    np.testing.assert_allclose(estimator.covariance(moments), whole, rtol=1e-10)
    assert np.isfinite(whole).all()


def test_gaps_are_taken_pair_by_pair():
    factors = np.random.default_rng(2).normal(size=(50, 3))
    factors[:20, 0], factors[35:, 1] = np.nan, np.nan
    found = covariance_of(SampleCovariance(demean=False), factors)
    for j in range(3):
        for k in range(3):
            both = np.isfinite(factors[:, j] * factors[:, k])
            assert found[j, k] == pytest.approx(np.mean((factors[:, j] * factors[:, k])[both]), rel=1e-12)
    factors[20:, 0] = np.nan
    assert np.isnan(covariance_of(SampleCovariance(), factors)[0]).all()


def test_repair_keeps_variances_and_what_needs_none():
    rng = np.random.default_rng(0)
    good = np.cov(rng.normal(size=(4, 30)))
    same, remark = repair_covariance(good)
    assert remark == ""
    assert np.array_equal(same, good)
    scale = np.array([1.0, 10.0, 1e-3])
    bad = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]]) * np.outer(scale, scale)
    fixed, remark = repair_covariance(bad)
    assert "repaired" in remark
    np.testing.assert_allclose(np.diag(fixed), scale**2, rtol=1e-12)
    assert np.linalg.eigvalsh(fixed / np.outer(scale, scale)).min() > -1e-12
    with pytest.raises(ConfigurationError, match="square"):
        repair_covariance(np.ones((2, 3)))


# ------------------------------------------------------------------------------------ the model


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_a_period_by_brute_force(conditional, estimator):
    state, panel = world(conditional=conditional, units=True, alpha=True, live=2, seed=4)
    nu, half_life = 7.0, 15.0
    specific = SpecificVariance(half_life=half_life, group="rating", prior_observations=nu)
    risk = risk_model(state, panel, RiskConfig(factors=estimator, specific=specific, min_periods=10))
    _, residuals, loadings = dense_parts(state, panel)
    ratings = panel.index.dense(panel.attributes["rating"].codes.astype(float))
    for p in (10, 37, 59, 60, 61):
        sigma = risk.at(panel.times[p])
        past = min(p, 60)
        s = covariance_of(estimator, state.factors.values[:past])
        weight = 0.5 ** ((past - 1 - np.arange(past)) / half_life)
        seen = np.isfinite(residuals[:past])
        q = (weight[:, None] * np.where(seen, residuals[:past], 0.0) ** 2).sum(axis=0)
        n = (weight[:, None] * seen).sum(axis=0)
        here = np.flatnonzero(np.isfinite(loadings[p]).all(axis=1))
        d = np.empty(len(here))
        for j, i in enumerate(here):
            mates = here[ratings[p, here] == ratings[p, i]]
            g = q[mates].sum() / n[mates].sum()
            d[j] = state.measurement.scale[i] ** 2 * (q[i] + nu * g) / (n[i] + nu)
        dense = loadings[p, here] @ s @ loadings[p, here].T + np.diag(d)
        np.testing.assert_array_equal(sigma.assets, panel.assets[here])
        np.testing.assert_allclose(sigma.dense(), dense, rtol=1e-10)
        assert sigma.origin == panel.times[past - 1]
        assert sigma.in_sample == (p <= 30)
    np.testing.assert_allclose(risk.latest().dense(), risk.at(panel.times[61]).dense(), rtol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_the_future_changes_no_covariance(estimator):
    state, panel = world(conditional=True, seed=6)
    config = RiskConfig(
        factors=estimator, min_periods=10, specific=SpecificVariance(group="country", issuer="issuer")
    )
    p = 30
    row = int(panel.offsets[p])
    rng = np.random.default_rng(9)
    values = panel.values.copy()
    values[row:] = rng.normal(0.0, 9.0, panel.n_rows - row)
    factors = state.factors.values.copy()
    factors[p:] = rng.normal(0.0, 9.0, factors[p:].shape)
    other = replace(state, factors=replace(state.factors, values=factors))
    before = risk_model(state, panel, config).at(panel.times[p])
    after = risk_model(other, panel.with_values(values), config).at(panel.times[p])
    for name in ("loadings", "factor_covariance", "specific_variance"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert before.issuer_correlation == after.issuer_correlation
    later = panel.times[p + 1]
    assert risk_model(other, panel.with_values(values), config).at(later).specific_variance[0] > 0.1


def test_a_walk_equals_every_period_on_its_own():
    state, panel = world(live=1, seed=2)
    config = RiskConfig(
        factors=EWMACovariance(variance_half_life=6.0),
        specific=SpecificVariance(half_life=9.0, issuer="issuer"),
        min_periods=12,
    )
    risk = risk_model(state, panel, config)
    walked = list(risk.walk())
    assert [each.time for each in walked] == list(panel.times[12:])
    for each in walked:
        np.testing.assert_allclose(each.dense(), risk.at(each.time).dense(), rtol=1e-10)
    with pytest.raises(InsufficientDataError, match="12 earlier periods"):
        risk.at(panel.times[11])


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_update_equals_a_full_recomputation(estimator, tmp_path):
    state, panel = world(n_periods=70, conditional=True, units=True, seed=8)
    specific = SpecificVariance(half_life=20.0, group="country", issuer="issuer")
    config = RiskConfig(factors=estimator, specific=specific)
    whole = risk_model(state, panel, config)
    risk = risk_model(state.between(0, 50), panel.between(0, 50), config)
    for a, b in ((50, 51), (51, 60), (60, 70)):
        risk = risk.update(state.between(a, b), panel.between(a, b))
        np.testing.assert_allclose(
            risk.at(panel.times[b - 1]).dense(), whole.at(panel.times[b - 1]).dense(), rtol=1e-8
        )
    np.testing.assert_allclose(risk.latest().dense(), whole.latest().dense(), rtol=1e-10)
    # through a file, as a nightly job would
    half = risk_model(state.between(0, 50), panel.between(0, 50), config)
    save_object(tmp_path / "sums", half.moments(), {"what": "risk"})
    resumed = risk_model(state.between(50, 70), panel.between(50, 70), after=load_object(tmp_path / "sums"))
    np.testing.assert_allclose(resumed.latest().dense(), whole.latest().dense(), rtol=1e-8)
    with pytest.raises(GapError):
        half.update(state.between(52, 70), panel.between(52, 70))
    with pytest.raises(GapError):
        half.update(state.between(0, 50), panel.between(0, 50))
    renamed = replace(state, factors=replace(state.factors, names=tuple("abcdef")))
    with pytest.raises(PanelMismatchError, match="factors"):
        half.update(renamed.between(50, 70), panel.between(50, 70))
    with pytest.raises(ConfigurationError, match="not both"):
        risk_model(state.between(50, 70), panel.between(50, 70), config, after=half.moments())


def test_an_asset_without_a_past_has_its_groups_variance():
    state, panel = world(ragged=False, missing=0.0, seed=3)
    values = panel.wide()
    values[:, 5] = np.nan
    panel = panel.with_values(panel.index.gather(values))
    config = RiskConfig(specific=SpecificVariance(group="country", prior_observations=0.0))
    sigma = risk_model(state, panel, config).latest()
    _, residuals, _ = dense_parts(state, panel)
    country = panel.attributes["country"].codes
    mates = (country == country[5]) & (np.arange(12) != 5)
    assert mates.any()
    assert sigma.specific_variance[5] == pytest.approx(np.mean(residuals[:, mates] ** 2), rel=1e-10)
    assert sigma.specific_variance[4] == pytest.approx(np.mean(residuals[:, 4] ** 2), rel=1e-10)


def test_issuer_correlation_is_recovered():
    rng = np.random.default_rng(0)
    state, panel = world(n_periods=400, n_assets=20, ragged=False, missing=0.0, seed=1)
    common = np.repeat(rng.normal(size=(400, 10)), 2, axis=1)
    noise = 0.02 * (np.sqrt(0.6) * common + np.sqrt(0.4) * rng.normal(size=(400, 20)))
    panel = panel.with_values(
        panel.index.gather(state.factors.values @ state.measurement.loadings.values.T + noise)
    )
    sigma = risk_model(state, panel, RiskConfig(specific=SpecificVariance(issuer="issuer"))).latest()
    # 4,000 pairs, (1 - rho^2)^2 / n: a standard error of .01
    assert sigma.issuer_correlation == pytest.approx(0.6, abs=0.04)
    stated = SpecificVariance(issuer="issuer", issuer_correlation=0.25)
    assert risk_model(state, panel, RiskConfig(specific=stated)).latest().issuer_correlation == 0.25


def test_the_truth_is_recovered():
    truth = static_panel(n_periods=3000, n_assets=100, n_factors=3, noise=0.02, seed=2)
    f = truth.factors - truth.factors.mean(axis=0)
    wanted = truth.loadings @ (f.T @ f / len(f)) @ truth.loadings.T + 0.02**2 * np.eye(100)

    def error(n_factors):
        model = PCAModel(PCAConfig(n_factors=n_factors))
        model.fit(truth.panel)
        found = risk_model(model.extract(truth.panel), truth.panel).latest().dense()
        return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)

    assert error(3) < 0.015 < 0.1 < error(2)


def test_factors_and_assets_that_are_not_known():
    state, panel = world(ragged=False, missing=0.0, seed=5)
    loadings = state.measurement.loadings.values.copy()
    loadings[2] = np.nan
    holes = replace(
        state, measurement=replace(state.measurement, loadings=StaticLoadings(loadings, state.index))
    )
    sigma = risk_model(holes, panel).latest()
    assert "A02" not in sigma.assets.tolist()
    assert len(sigma.assets) == 11
    with pytest.raises(PanelMismatchError, match="A02"):
        sigma.variance(np.full(12, 1 / 12))
    factors = state.factors.values.copy()
    factors[:, 3] = np.nan
    unseen = replace(state, factors=replace(state.factors, values=factors))
    with pytest.raises(InsufficientDataError, match="country=ES"):
        risk_model(unseen, panel).latest()
    # harmless where nothing loads on it
    spain = state.measurement.loadings.values[:, 3] != 0
    assert spain.any()
    assert not spain.all()
    none = np.where(spain[:, None], np.nan, state.measurement.loadings.values)
    elsewhere = replace(
        unseen, measurement=replace(state.measurement, loadings=StaticLoadings(none, state.index))
    )
    assert len(risk_model(elsewhere, panel).latest().assets) == 12 - spain.sum()


def test_without_residuals_the_floor_keeps_it_positive():
    truth = static_panel(n_periods=60, n_assets=10, n_factors=2, noise=0.0, seed=1)
    model = PCAModel(PCAConfig(n_factors=2))
    model.fit(truth.panel)
    sigma = risk_model(model.extract(truth.panel), truth.panel).latest()
    assert np.linalg.eigvalsh(sigma.dense()).min() > 0
    assert "floor" in sigma.remarks[0]


def test_what_does_not_fit_is_refused():
    state, panel = world()
    with pytest.raises(PanelMismatchError, match="extracted"):
        risk_model(state, panel.between(0, 30))
    with pytest.raises(ConfigurationError, match="attribute 'sector'"):
        risk_model(state, panel, RiskConfig(specific=SpecificVariance(group="sector")))
    smooth = replace(state, factors=replace(state.factors, information="smoothed"))
    with pytest.raises(ConfigurationError, match="smoothed"):
        risk_model(smooth, panel)
    for bad in (
        lambda: EWMACovariance(variance_half_life=0.0),
        lambda: NeweyWestCovariance(lags=-1),
        lambda: SpecificVariance(issuer_correlation=0.3),
        lambda: SpecificVariance(issuer="issuer", issuer_correlation=1.0),
        lambda: SpecificVariance(prior_observations=-1.0),
        lambda: RiskConfig(min_periods=1),
        lambda: RiskConfig(factors="sample"),
    ):
        with pytest.raises(ConfigurationError):
            bad()
    assert repr(risk_model(state.between(0, 5), panel.between(0, 5))).endswith("no covariance yet)")
