"""Loadings shrunken to the mean of an asset's groups: a dense oracle, the limits, recovery, new assets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from latentfactors import Attribute, CreditFactorConfig, CreditFactorModel, Panel
from latentfactors.errors import ConfigurationError
from latentfactors.kernels.adjacency import build_pattern, fitted
from latentfactors.kernels.gauge import find_nesting
from latentfactors.kernels.masked_als import fit_masked, group_spaces, settle, target

SECTORS, RATINGS = np.array([-0.45, -0.15, 0.15, 0.45]), np.array([-0.3, 0.0, 0.3])


def grouped(values, **codes):
    panel = Panel.from_wide(values, universe="all", assets=[f"A{i:03d}" for i in range(values.shape[1])])
    attributes = {
        name: Attribute(np.asarray(each, dtype=np.int32), tuple("abcdefgh"[: max(each) + 1]), by="asset")
        for name, each in codes.items()
    }
    return replace(panel, attributes=attributes)


def bonds(N=160, T=100, noise=0.7, spread=0.15, seed=0):
    """Panel, loadings (N, 8) and expected values of bonds whose market loading depends on their groups."""
    rng = np.random.default_rng(seed)
    sector, rating = np.arange(N) % 4, (np.arange(N) // 4) % 3
    factors = rng.normal(size=(T, 8)) * [1.5, *7 * [0.7]]
    market = factors[:, 0]
    factors[:, 1:] -= np.outer(market, market @ factors[:, 1:] / (market @ market))
    loadings = np.zeros((N, 8))
    loadings[:, 0] = 1.0 + SECTORS[sector] + RATINGS[rating]
    loadings[np.arange(N), 1 + sector] = loadings[np.arange(N), 5 + rating] = 1.0
    loadings += spread * (loadings != 0) * rng.normal(size=loadings.shape)
    expected = factors @ loadings.T
    panel = grouped(expected + noise * rng.normal(size=expected.shape), sector=sector, rating=rating)
    return panel, loadings, expected, sector, rating


def pattern_of(panel):
    """The pattern of a panel without gaps, by hand: market, sectors 1-4, ratings 5-7."""
    sector, rating = (panel.attributes[name].codes for name in ("sector", "rating"))
    N, T = panel.n_assets, panel.n_periods
    links = np.column_stack([np.zeros(N), 1 + sector, 5 + rating]).astype(np.int32)
    starts = np.arange(T + 1) * N
    return build_pattern(np.tile(links, (T, 1)), np.tile(np.arange(N), T), starts, n_assets=N, n_factors=8)


def test_the_optimum_is_that_of_the_joint_problem():
    """No small change of loadings, group means or factors lowers the objective, written out densely."""
    panel, _, _, sector, rating = bonds(N=48, T=30)
    pattern, s, ridge = pattern_of(panel), 4.0, 0.3
    fit = fit_masked(
        panel.values, pattern, ridge=ridge, shrinkage=s, group_effects=True, tolerance=1e-12,
        max_iterations=5000,
    )  # fmt: skip
    assert fit.converged
    unit = np.sqrt(np.mean(panel.values**2))
    y = panel.values.reshape(30, 48) / unit
    b, f = np.zeros((48, 8)), fit.factors / unit
    b[pattern.slot_asset, pattern.slot_factor] = fit.loadings
    dummies = np.column_stack([*(sector == c for c in range(4)), *(rating == c for c in range(3))])
    centred = dummies - dummies.mean(axis=0)
    effects = np.linalg.lstsq(centred, b[:, 0] - 1.0, rcond=1e-12)[0]
    assert np.abs(effects).max() > 0.2

    def objective(b, f, effects):
        aim = (b != 0).astype(float)
        aim[:, 0] += centred @ effects
        squares = ((y - f @ b.T) ** 2).sum() + s * ((b - aim) ** 2).sum() + ridge * (f**2).sum()
        return squares / (y**2).sum()

    least = objective(b, f, effects)
    assert least == pytest.approx(fit.objective_path[-1], rel=1e-12)
    rng = np.random.default_rng(1)
    for _ in range(30):
        moves = (b != 0) * rng.normal(size=b.shape), rng.normal(size=f.shape), rng.normal(size=7)
        for sign in (1e-4, -1e-4):
            moved = [x + sign * move for x, move in zip((b, f, effects), moves, strict=True)]
            assert objective(*moved) > least  # a slope of 1e-6 would show in one of the two directions


def test_settling_keeps_the_fit_and_lowers_the_penalty():
    panel, *_ = bonds(N=48, T=30)
    pattern, rng = pattern_of(panel), np.random.default_rng(0)
    nesting = find_nesting(pattern)
    groups = group_spaces(pattern, nesting)
    assert {k: basis.shape for k, basis in groups.items()} == {0: (48, 5)}  # 4 + 3 groups, less one each
    b, f, ridge = 1.0 + 0.5 * rng.normal(size=pattern.n_slots), rng.normal(size=(30, 8)), 0.2

    def penalty(b, f):
        return ((b - target(nesting, groups, b)) ** 2).sum() + ridge * (f**2).sum()

    settled = settle(nesting, groups, b, f, ridge)
    aims = fitted(pattern, b, f)
    # the factors that go with the settled loadings: those that keep every fitted value
    design = np.zeros((48, 8))
    design[pattern.slot_asset, pattern.slot_factor] = settled
    factors = np.linalg.lstsq(design, aims.reshape(30, 48).T, rcond=None)[0].T
    np.testing.assert_allclose(fitted(pattern, settled, factors), aims, atol=1e-10)
    assert penalty(settled, factors) < penalty(b, f)


def test_none_and_infinite_shrinkage_are_cfm_and_barra():
    panel, *_ = bonds(N=48, T=30)
    for shrinkage in (0.0, math.inf):
        one, groups = (
            CreditFactorModel(CreditFactorConfig(shrinkage=shrinkage, shrink_to=to, tolerance=1e-8))
            for to in ("one", "group_mean")
        )
        one.fit(panel), groups.fit(panel)
        np.testing.assert_array_equal(one.estimates.loadings, groups.estimates.loadings)
        np.testing.assert_array_equal(one.estimates.factors, groups.estimates.factors)
    with pytest.raises(ConfigurationError, match="shrink_to"):
        CreditFactorConfig(shrink_to="two")


def test_large_shrinkage_approaches_the_regression():
    """A common loading for each group times the market adds nothing to what the groups' factors span."""
    values = bonds(N=48, T=30)[0].values.reshape(30, 48)
    sector = np.arange(48) % 4 - 1  # a quarter of the assets has none, so that the regression is unique
    panel = grouped(values, sector=sector)
    barra = CreditFactorModel(CreditFactorConfig(shrinkage=math.inf))
    barra.fit(panel)
    wanted = barra.estimates.factors @ barra.estimates.matrix().T
    gaps = []
    for ridge in (1e-2, 1e-3):  # on the factors; the regression has none
        config = CreditFactorConfig(shrinkage=1e6, shrink_to="group_mean", ridge=ridge, tolerance=1e-7)
        model = CreditFactorModel(config)
        assert model.fit(panel).converged
        gaps.append(np.abs(model.estimates.factors @ model.estimates.matrix().T - wanted).max())
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.05)
    assert gaps[1] < 1e-3 * np.abs(wanted).max()


def test_means_of_groups_are_recovered_and_given_to_new_assets():
    panel, loadings, _, sector, rating = bonds()
    values = panel.values.reshape(panel.n_periods, 160)
    known = grouped(values[:, :148], sector=sector[:148], rating=rating[:148])
    model = CreditFactorModel(CreditFactorConfig(shrinkage=20.0, shrink_to="group_mean", tolerance=1e-8))
    assert model.fit(known).converged
    found = model.estimates.matrix()
    wanted = loadings[:148] / loadings[:148].sum(axis=0) * (loadings[:148] != 0).sum(axis=0)
    for codes in (sector[:148], rating[:148]):
        means = np.array([[x[codes == c, 0].mean() for c in range(codes.max() + 1)] for x in (found, wanted)])
        np.testing.assert_allclose(*means, atol=0.1)
    assert np.corrcoef(found[:, 0], wanted[:, 0])[0, 1] > 0.9
    # twelve bonds without a past, one for each pair of groups: the market loading of their groups
    state = model.extract(panel)
    new = state.measurement.loadings.at(0)[148:]
    truth = 1.0 + SECTORS[sector[148:]] + RATINGS[rating[148:]]
    np.testing.assert_allclose(new[:, 0], truth, atol=0.15)
    assert len({(s, r) for s, r in zip(sector[148:], rating[148:], strict=True)}) == 12
    one = CreditFactorModel(CreditFactorConfig(shrinkage=20.0, tolerance=1e-8))
    one.fit(known)
    assert np.abs(one.extract(panel).measurement.loadings.at(0)[148:, 0] - truth).max() > 0.4
