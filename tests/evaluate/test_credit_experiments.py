"""The credit experiments: orderings that must hold, and figures that show what the tables say."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError
from latentfactors.evaluate import credit_experiments as experiments
from latentfactors.report import credit_figures as figures
from latentfactors.simulate import credit_panel
from latentfactors.simulate.credit import CREDIT_CATEGORIES

FOLD = (0, 189, 210)


@pytest.fixture(scope="module")
def panel():
    return credit_panel(n_assets=500, n_periods=210, seed=5).panel


@pytest.fixture(scope="module")
def table(panel):
    return experiments.comparison_table(panel, folds=[FOLD])


def column(table, name):
    return dict(zip(table["model"], table[name], strict=True))


def test_the_universe_is_the_published_one():
    assert {sum(counts.values()) for counts in CREDIT_CATEGORIES.values()} == {2625}
    assert 1 + sum(len(counts) for counts in CREDIT_CATEGORIES.values()) == 46
    truth = credit_panel(n_assets=400, n_periods=100, noise=0.0, missing=0.0, partial=0.0)
    wide = truth.factors @ truth.loadings.T
    np.testing.assert_allclose(truth.panel.wide(), wide, atol=1e-12)
    again = credit_panel(n_assets=400, n_periods=100)
    assert again.panel.observed.mean() == pytest.approx(0.85, abs=0.01)
    error = again.complete - again.expected
    assert error.std() == pytest.approx(1.2, rel=0.05)


def test_with_unequal_loadings_the_named_factor_models_lead(table):
    out = column(table, "out_total_r2")
    assert out["CFM"] > out["GFM"] > out["PCA-M"] > out["IPCA"]
    held_out = column(table, "held_out_r2")
    assert held_out["CFM"] == max(held_out.values())
    assert {"PCA-K", "BARRA", "AE"} <= set(out)


def test_with_equal_loadings_free_ones_lose():
    simulate = lambda level, seed: credit_panel(250, 100, heterogeneity=level, seed=seed)  # noqa: E731
    found = experiments.heterogeneity_experiment(
        simulate, levels=(0.0, 0.5), seeds=1, models=("BARRA", "CFM")
    )
    score = {
        (h, m): s
        for h, m, s in zip(*(found[c] for c in ("heterogeneity", "model", "held_out_r2")), strict=True)
    }
    assert score[0.0, "BARRA"] > score[0.0, "CFM"]
    assert score[0.5, "CFM"] > score[0.5, "BARRA"]
    assert len(figures.heterogeneity_figure(found).data) == 2


def test_hidden_cells_are_best_filled_by_the_projections(panel):
    models = experiments.credit_models(panel)
    chosen = {name: models[name] for name in ("PCA-M", "GFM", "CFM")}
    found = experiments.masking_experiment(panel, chosen, fold=FOLD, shares=(0.5,), seeds=2)
    masked = column(found, "masked_r2")
    assert masked["CFM"] > masked["PCA-M"]
    assert masked["GFM"] > masked["PCA-M"]
    assert list(figures.masking_figure(found).data[0].y) == [100 * found["masked_r2"][0]]
    with pytest.raises(ConfigurationError, match="shares"):
        experiments.masking_experiment(panel, chosen, fold=FOLD, shares=(0.0,))


def test_windows_normalisations_and_correlations(panel, table):
    model = {"BARRA": experiments.credit_models(panel)["BARRA"]}
    found = experiments.window_experiment(panel, model, lengths=(60, 120))
    assert list(figures.window_figure(found).data[0].x) == [60, 120]
    assert len(figures.comparison_figure(table).data) == 3
    fitted = model["BARRA"].clone()
    fitted.fit(panel.between(0, 189))
    correlations = experiments.factor_correlations(fitted.extract(panel))
    assert np.allclose(np.diag(correlations.correlation), 1.0)
    assert np.isinf(correlations.variance_inflation[1])  # the families sum to zero
    assert figures.correlation_figure(correlations).data[0].z.shape[0] == len(correlations.names)
    with pytest.raises(ConfigurationError, match="no columns"):
        figures.window_figure(table)


def test_folds_are_calendar_months():
    panel = credit_panel(n_assets=60, n_periods=240, live=3).panel
    folds = experiments.monthly_folds(panel, 9)
    times = panel.times.astype("datetime64[M]")
    for start, split, stop in folds:
        assert times[split] != times[split - 1]
        assert len(set(times[start:split])) == 9
        assert len(set(times[split:stop])) == 1
    assert folds[-1][2] == 240


@pytest.mark.slow
def test_the_ordering_holds_on_nine_of_ten_panels():
    ordered = leading = 0
    for seed in range(100, 110):
        panel = credit_panel(n_assets=500, n_periods=210, seed=seed).panel
        models = experiments.credit_models(panel)
        models = {name: models[name] for name in ("PCA-M", "IPCA", "BARRA", "GFM", "CFM")}
        out = column(experiments.comparison_table(panel, models, folds=[FOLD]), "out_total_r2")
        found = experiments.masking_experiment(panel, models, fold=FOLD, shares=(0.5,), seeds=1)
        masked = column(found, "masked_r2")
        ordered += out["CFM"] >= out["GFM"] > out["PCA-M"] > out["IPCA"]
        leading += min(masked["CFM"], masked["GFM"]) > max(masked["PCA-M"], masked["IPCA"])
    assert ordered >= 9
    assert leading >= 9
