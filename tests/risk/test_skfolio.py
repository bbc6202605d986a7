"""The export to skfolio, judged by skfolio's own arithmetic. Needs the extra `portfolio`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError, PanelMismatchError
from latentfactors.risk import RiskConfig, SpecificVariance, attribute_performance, decompose, risk_model
from tests.risk.small import dense_parts, world

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of skfolio's own dependencies
    skfolio = pytest.importorskip(
        "skfolio", reason="skfolio is not installed: pip install latentfactors[portfolio]"
    )
    from skfolio.optimization import MeanRisk

from latentfactors.risk import skfolio_factor_model, skfolio_prior


def small(issuers=False, **options):
    state, panel = world(ragged=False, seed=3, **options)
    specific = SpecificVariance(issuer="issuer" if issuers else None)
    return state, panel, risk_model(state, panel, RiskConfig(specific=specific)).latest()


@pytest.mark.parametrize("issuers", [False, True])
def test_risk_contributions_are_skfolios(issuers):
    _, _, sigma = small(issuers)
    w = np.random.default_rng(0).normal(size=12)
    theirs = skfolio_factor_model(sigma, premia=np.full(6, 0.001)).predicted_attribution(
        w, annualization_factor=1.0
    )
    ours = decompose(sigma, w)
    assert theirs.total.vol == pytest.approx(ours.volatility, rel=1e-12)
    assert theirs.systematic.vol_contrib == pytest.approx(ours.systematic, rel=1e-10)
    assert theirs.idio.vol_contrib == pytest.approx(ours.specific, rel=1e-10)
    np.testing.assert_allclose(theirs.factors.exposure, ours.exposures, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(theirs.factors.vol_contrib, ours.by_factor, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(theirs.factors.corr_with_ptf, ours.factor_correlation, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(theirs.assets.vol_contrib, ours.by_asset, rtol=1e-10, atol=1e-14)
    families = dict(zip(theirs.families.names, theirs.families.vol_contrib, strict=True))
    assert families == pytest.approx(dict(ours.by_family), rel=1e-10)


def test_performance_is_skfolios():
    from skfolio.attribution import realized_factor_attribution

    state, panel, _ = small(missing=0.0)
    w = np.random.default_rng(1).normal(size=12)
    ours = attribute_performance(state, panel, w)
    values, residuals, _ = dense_parts(state, panel)
    theirs = realized_factor_attribution(
        asset_names=panel.assets, factor_names=state.factors.names, weights=w,
        factor_returns=state.factors.values, portfolio_returns=values @ w,
        exposures=state.measurement.loadings.values, idio_returns=residuals, annualization_factor=1.0,
    )  # fmt: skip
    np.testing.assert_allclose(theirs.factors.mu_contrib, ours.by_factor.mean(axis=0), rtol=1e-9, atol=1e-14)
    assert theirs.idio.mu_contrib == pytest.approx(ours.specific.mean(), rel=1e-9)
    assert theirs.total.mu_contrib == pytest.approx(ours.returns.mean(), rel=1e-9)


@pytest.mark.parametrize("issuers", [False, True])
def test_an_optimiser_finds_the_minimum_variance_portfolio(issuers):
    pd = pytest.importorskip("pandas")
    _, panel, sigma = small(issuers, missing=0.0)
    frame = pd.DataFrame(panel.wide(), columns=panel.assets)
    closed = sigma.solve(np.ones(12))
    closed /= closed.sum()
    prior = skfolio_prior(sigma)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = MeanRisk(prior_estimator=prior, min_weights=-5.0, max_weights=5.0).fit(frame).weights_
        turned = frame[frame.columns[::-1]]
        other = MeanRisk(prior_estimator=prior, min_weights=-5.0, max_weights=5.0).fit(turned).weights_
    np.testing.assert_allclose(found, closed, atol=2e-4)
    np.testing.assert_allclose(other[::-1], closed, atol=2e-4)


def test_the_distribution_follows_the_columns():
    pd = pytest.importorskip("pandas")
    _, panel, sigma = small(issuers=True)
    returns = np.nan_to_num(panel.wide())
    frame = pd.DataFrame(returns, columns=panel.assets)
    mu = np.arange(12.0)
    order = np.random.default_rng(0).permutation(12)
    prior = skfolio_prior(sigma, expected_returns=mu).fit(frame[frame.columns[order]])
    found = prior.return_distribution_
    np.testing.assert_allclose(found.covariance, sigma.dense()[np.ix_(order, order)], rtol=1e-10)
    np.testing.assert_array_equal(found.mu, mu[order])
    np.testing.assert_array_equal(found.returns, returns[:, order])
    premia = np.linspace(-0.01, 0.01, 6)
    plain = skfolio_prior(sigma, premia=premia).fit(returns).return_distribution_
    np.testing.assert_allclose(plain.mu, sigma.loadings @ premia)
    assert plain.factor_model.factor_families.tolist() == ["market", *["country"] * 3, *["rating"] * 2]
    root = plain.covariance_sqrt
    again = sum(a @ a.T for a in root.components)
    again = again if root.diagonal is None else again + np.diag(root.diagonal**2)
    np.testing.assert_allclose(again, sigma.dense(), rtol=1e-8, atol=1e-14)
    with pytest.raises(PanelMismatchError, match="A00"):
        skfolio_prior(sigma).fit(frame.drop(columns="A00"))
    with pytest.raises(PanelMismatchError, match=r"\(60, 11\)"):
        skfolio_prior(sigma).fit(returns[:, 1:])
    with pytest.raises(PanelMismatchError, match="expected_returns"):
        skfolio_prior(sigma, expected_returns=np.ones(3))
    with pytest.raises(ConfigurationError, match="premia"):
        skfolio_factor_model(sigma, premia=np.ones(2))
    with pytest.raises(ConfigurationError, match="factor_returns"):
        skfolio_factor_model(sigma, factor_returns=np.ones((5, 2)))
