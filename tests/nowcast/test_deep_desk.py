"""The nowcasting desk with a deep factor model: news, indicators, predictors over vintages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    VAR,
    D2FMConfig,
    D2FMModel,
    NowcastPredictor,
    PTFAConfig,
    PTFAModel,
    ReleaseCalendar,
    VintageSplits,
    VintageStore,
    composite_indicator,
    walk_forward,
)
from latentfactors.nowcast import nowcast, nowcast_news
from latentfactors.nowcast.indicator import printed_indicator
from tests.nowcast.test_news import NAMES, economy, panel_of, vintages
from tests.nowcast.test_news import fit as fit_linear

pytest.importorskip("jax")

SMALL = D2FMConfig(
    n_factors=1,
    hidden_units=(6,),
    max_iterations=2,
    epochs_per_iteration=20,
    pretraining_epochs=20,
    n_draws=5,
)


def fit(panel, config=SMALL):
    model = D2FMModel(config)
    model.fit(panel)
    return model


@pytest.fixture(scope="module")
def fitted():
    old, new = vintages()
    return fit(old), fit(new), old, new


# ------------------------------------------------------------------------------------ news


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("period", ["2007-09-30", "2007-12-31"])
def test_news_of_a_linear_decoder_sum_to_the_revision(fitted, seed, period):
    old_model, new_model, _, _ = fitted
    old, new = vintages(seed)
    for models in ((old_model, old_model), (old_model, new_model)):
        found = nowcast_news(*models, old, new, "gdp", period)
        assert found.exact
        assert abs(found.contribution.sum() - found.revision) < 1e-10
        assert {"revision", "release", "withdrawal"} <= set(found.kind)
        assert ("re-estimation" in found.kind) == (models[0] is not models[1])
        direct = [
            nowcast(model, panel, "gdp", periods=[period]).mean[0]
            for model, panel in zip(models, (old, new), strict=True)
        ]
        np.testing.assert_allclose([found.old, found.new], direct, rtol=0, atol=1e-10)
        assert np.abs(found.contribution).max() > 1e-4


def test_a_weight_is_what_moving_the_value_does(fitted):
    model, _, old, new = fitted
    found = nowcast_news(model, model, old, new, "gdp", "2007-12-31")
    k = int(np.flatnonzero(found.kind == "release")[-1])
    row = int(
        np.flatnonzero(
            (new.times[new.index.period_codes] == np.datetime64(found.cell_period[k]))
            & (new.assets[new.asset_codes] == found.series[k])
        )[0]
    )
    moved = np.array(new.values)
    moved[row] += 1.0
    means = [nowcast(model, p, "gdp", periods=["2007-12-31"]).mean[0] for p in (new, new.with_values(moved))]
    assert means[1] - means[0] == pytest.approx(found.weight[k], abs=1e-9)


def test_news_of_a_nonlinear_decoder_are_telescoped():
    old, new = vintages(2)
    old, new = old.between(30, old.n_periods), new.between(30, new.n_periods)
    model = fit(old, replace(SMALL, decoder="symmetric"))
    found = nowcast_news(model, model, old, new, "gdp", "2007-12-31")
    assert not found.exact
    assert "telescoped" in repr(found)
    assert np.isnan(found.weight).all()
    assert abs(found.contribution.sum() - found.revision) < 1e-10
    direct = nowcast(model, new, "gdp", periods=["2007-12-31"]).mean[0]
    assert found.new == pytest.approx(direct, abs=1e-10)


# ------------------------------------------------------------------------------------ indicators


def targeted(panel):
    model = PTFAModel(PTFAConfig(n_factors=2, targets=("m6",), dynamics=VAR(1)))
    model.fit(panel)
    return model


MAKERS = {
    "DFM": lambda panel: fit_linear(panel, factor_lags=1),
    "PTFA": targeted,
    "D2FM": lambda panel: fit(panel, replace(SMALL, n_factors=2)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_indicator_is_the_first_component_of_the_common_component_of_any_model(name):
    values, times = economy(n_periods=90, seed=4)
    panel = panel_of(values[:, 1:], times, NAMES[1:])
    model = MAKERS[name](panel)
    state = model.extract(panel)
    found = composite_indicator(state, "m2")
    # the common component of every series, in its own units of scale, straight from the fitted values
    m = state.measurement
    common = (state.index.dense(state.reconstruction()) - m.location) / m.scale
    common = common - common.mean(axis=0)
    left, singular, _ = np.linalg.svd(common, full_matrices=False)
    assert np.corrcoef(found.values, left[:, 0])[0, 1] ** 2 == pytest.approx(1.0, abs=1e-9)
    assert found.share == pytest.approx(singular[0] ** 2 / (singular**2).sum(), rel=1e-8)
    assert np.corrcoef(found.values, common[:, 2])[0, 1] > 0
    assert (found.values.mean(), found.values.std()) == (pytest.approx(0, abs=1e-9), pytest.approx(1))
    # the printed form is the sum of the paper, up to sign, level and unit
    printed = composite_indicator(state, "m2", form="printed")
    f = state.factor_returns
    weights = np.linalg.norm(f, axis=0) ** 2 / np.linalg.norm(f) ** 2
    np.testing.assert_allclose(printed_indicator(f), f @ weights)
    assert abs(np.corrcoef(printed.values, f @ weights)[0, 1]) == pytest.approx(1.0, abs=1e-9)


def test_the_printed_indicator_depends_on_how_factors_are_turned_and_scaled():
    """Standardising the factors does not cure it: then every rotation gives other weights, all 1/K."""
    rng = np.random.default_rng(0)
    f = np.linalg.qr(rng.normal(size=(200, 2)))[0] * np.sqrt(200)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    for one, other in ((f, f @ turn), (f, f * [1.0, 3.0]), (f, f * [1.0, -1.0])):
        a, b = printed_indicator(one), printed_indicator(other)
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.95


# ------------------------------------------------------------------------------------ vintages


def test_deep_nowcasts_keep_every_bit_whatever_is_released_later():
    values, times = economy(n_periods=90, seed=8)
    calendar = ReleaseCalendar(
        lags={name: 30 if name == "gdp" else 5 + 4 * k for k, name in enumerate(NAMES)},
        frequency={name: "Q" if name == "gdp" else "M" for name in NAMES},
    )
    store = VintageStore.from_calendar(panel_of(values, times), calendar)
    dates = (np.datetime64("2006-05-20"),)
    late = store.release > dates[-1]
    predictor = NowcastPredictor(D2FMModel(SMALL), ("gdp", "m1"))
    blocks = []
    for changed in (late, np.zeros_like(late), ~late):
        each = replace(store, value=np.where(changed, 9 - 4 * store.value, store.value))
        final = each.as_of(each.dates[-1])
        result = walk_forward(predictor, final, VintageSplits(each, dates, ahead=6), horizon=-1)
        assert not result.failures
        blocks.append(result.blocks[0])
    assert np.isfinite(blocks[0].expected_values).sum() == 6 + 2
    assert blocks[0].expected_values.tobytes() == blocks[1].expected_values.tobytes()
    assert blocks[0].variance.tobytes() == blocks[1].variance.tobytes()
    assert blocks[2].expected_values.tobytes() != blocks[1].expected_values.tobytes()
