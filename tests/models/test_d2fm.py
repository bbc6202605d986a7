"""D2FMModel: recovery, gaps, frequencies, decoders, forecasts, nowcasts, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import D2FMConfig, D2FMModel, DFMConfig, DynamicFactorModel, Panel, nowcast_news
from latentfactors.errors import (
    ConfigurationError,
    HorizonError,
    InsufficientDataError,
    PanelMismatchError,
    TrainingError,
)
from latentfactors.kernels.gapped_residuals import fit_aggregate, fit_gapped
from latentfactors.rows import SeriesInfo
from latentfactors.simulate import dynamic_factor_panel, trace_r_squareds

# One compiled program serves nearly all fits here: 65 to 96 months, 9 to 16 series, scans of up to 128 steps.
SMALL = D2FMConfig(
    n_factors=2,
    hidden_units=(8,),
    max_iterations=4,
    epochs_per_iteration=100,
    pretraining_epochs=100,
    n_draws=10,
)
LENGTH = 96


def fitted(panel, config=SMALL, **changes):
    model = D2FMModel(replace(config, **changes))
    return model, model.fit(panel)


def panel_of(values, series=None, assets=None):
    return Panel.from_wide(
        values,
        universe="all",
        times=(np.datetime64("1990-01") + np.arange(1, len(values) + 1)).astype("datetime64[D]")
        - np.timedelta64(1, "D"),
        assets=[f"s{j:02d}" for j in range(values.shape[1])] if assets is None else assets,
        frequency="M",
        value_kind="series",
        series=series,
    )


def mixed(order=None, T=LENGTH, n=12, n_low=2):
    """Monthly series and Mariano-Murasawa aggregates of two of them, in any order of columns."""
    values = dynamic_factor_panel(T, n, 2, rho=0.7, alpha=0.3, seed=2).complete + 3.0
    seen, weights = values.copy(), np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 3.0
    for j in range(n - n_low, n):
        total = np.convolve(values[:, j], weights)[:T]
        seen[:, j] = np.where((np.arange(T) % 3 == 2) & (np.arange(T) >= 5), total, np.nan)
    order = np.arange(n) if order is None else order
    frequency = np.array(["M"] * (n - n_low) + ["Q"] * n_low)[order]
    kind = np.array(["end"] * (n - n_low) + ["mariano_murasawa"] * n_low)[order]
    return panel_of(
        seen[:, order],
        SeriesInfo(frequency=tuple(frequency.tolist()), aggregation=tuple(kind.tolist())),
        [f"s{j:02d}" for j in order],
    )


@pytest.fixture(scope="module")
def truth():
    return dynamic_factor_panel(LENGTH, 15, 2, rho=0.8, alpha=0.5, missing=0.1, seed=3)


@pytest.fixture(scope="module")
def linear(truth):
    return fitted(truth.panel)


@pytest.fixture(scope="module")
def symmetric(truth):
    return fitted(truth.panel, decoder="symmetric", max_iterations=2)


@pytest.fixture(scope="module")
def quarterly():
    panel = mixed()
    return panel, fitted(panel)[0]


# ------------------------------------------------------------------------------------------- what is found


def test_two_linear_factors_are_found_as_well_as_by_the_linear_model(truth, linear):
    peer = DynamicFactorModel(DFMConfig(n_factors=2, tolerance=1e-3))
    peer.fit(truth.panel)
    best = trace_r_squareds(truth.factors, peer.extract(truth.panel).factor_returns)["centred"]
    model, summary = linear
    assert trace_r_squareds(truth.factors, model.encode(truth.panel))["centred"] > best - 0.04
    assert trace_r_squareds(truth.factors, model.extract(truth.panel).factor_returns)["centred"] > best - 0.02
    assert summary.objective[-1] < summary.objective[0]
    assert model.estimates.persistence.mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
def test_nonlinear_features_are_found_by_the_best_of_eight():
    found = []
    for seed in range(3):
        truth = dynamic_factor_panel(200, 100, 1, measurement="nonlinear", seed=seed)
        model, _ = fitted(
            truth.panel,
            D2FMConfig(n_factors=3, hidden_units=(24, 12, 6), activation="relu", code_link="relu"),
            n_restarts=8,
            max_iterations=10,
        )
        found.append(trace_r_squareds(truth.features, model.encode(truth.panel))["intercept"])
    assert np.median(found) >= 0.985


def test_the_symmetric_decoder_finds_and_filters_them_too(truth, symmetric):
    model, _ = symmetric
    for factors in (model.encode(truth.panel), model.smooth(truth.panel).factor_returns):
        assert trace_r_squareds(truth.factors, factors)["centred"] > 0.85
    state = model.extract(truth.panel)
    rows = truth.panel.observed
    fit = state.reconstruction()[rows]
    assert np.corrcoef(fit, truth.panel.values[rows])[0, 1] > 0.5


def test_codes_are_an_affine_map_of_the_factors_that_filtering_sharpens(truth, linear):
    model, _ = linear
    codes, factors = model.encode(truth.panel), model.smooth(truth.panel).factor_returns
    mapped = model.estimates.code_mean + factors @ model.estimates.code_map.T
    assert trace_r_squareds(codes, mapped)["centred"] > 0.8
    assert np.abs((mapped - codes).mean(axis=0)).max() < 0.2 * codes.std()


def test_codes_read_no_later_month(truth, linear):
    model, _ = linear
    cut = truth.panel.between(0, 80)
    np.testing.assert_allclose(model.encode(cut), model.encode(truth.panel)[:80], atol=1e-10)


@pytest.mark.slow
def test_the_first_of_several_restarts_is_the_one_without_others(truth):
    several, _ = fitted(truth.panel, n_restarts=3, max_iterations=1)
    alone, _ = fitted(truth.panel, n_restarts=1, max_iterations=1)
    assert several.summary.metrics["loss"] <= alone.summary.metrics["loss"] + 1e-3


def test_restarts_relu_codes_lags_of_inputs_iid_terms_and_a_loss_on_dynamics(truth):
    model, summary = fitted(
        truth.panel,
        code_link="relu",
        activation="relu",
        input_lags=1,
        idiosyncratic="iid",
        dynamics_weight=0.3,
        n_restarts=2,
        max_iterations=1,
    )
    assert summary.metrics["loss"] < summary.metrics["worst_restart_loss"]
    codes = model.encode(truth.panel)
    assert codes.shape == (LENGTH, 2)
    assert codes.min() >= 0.0
    assert not model.estimates.persistence.any()
    assert model.estimates.network.encoder["weight_0"].shape == (30, 8)


# ---------------------------------------------------------------------------------------------------- gaps


def test_persistence_is_found_whatever_the_gaps():
    """At 60% missing, neighbours after dropping the gaps would say .45."""
    rng = np.random.default_rng(0)
    e = np.zeros((600, 40))
    for t in range(1, 600):
        e[t] = 0.8 * e[t - 1] + rng.normal(size=40)
    e[rng.uniform(size=e.shape) < 0.6] = np.nan
    phi, s = fit_gapped(e[50:], autoregressive=True, smallest_variance=1e-6)
    assert np.median(phi) == pytest.approx(0.8, abs=0.03)
    assert np.median(s) == pytest.approx(1.0, abs=0.15)


def test_persistence_of_the_months_behind_aggregates():
    rng, weights = np.random.default_rng(1), np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 3.0
    found = []
    for _ in range(8):
        e = np.zeros(450)
        for t in range(1, 450):
            e[t] = 0.7 * e[t - 1] + rng.normal()
        total = np.convolve(e, weights)[:450]
        total[np.arange(450) % 3 != 2] = np.nan
        total[:50] = np.nan
        found.append(fit_aggregate(total, weights, autoregressive=True, smallest_variance=1e-6))
    phi, s = np.median(found, axis=0)
    assert phi == pytest.approx(0.7, abs=0.08)
    assert s == pytest.approx(1.0, abs=0.3)


def test_a_panel_with_most_cells_missing_is_fitted():
    truth = dynamic_factor_panel(
        LENGTH, 15, 2, rho=0.8, alpha=0.8, missing=0.6, noise="reference_code", seed=5
    )
    model, summary = fitted(truth.panel)
    assert any("splined" in each for each in summary.warnings)
    assert np.median(model.estimates.persistence) > 0.55
    factors = model.smooth(truth.panel).factor_returns
    assert trace_r_squareds(truth.factors, factors)["centred"] > 0.5


@pytest.mark.slow
def test_a_long_panel_with_most_cells_missing_keeps_its_persistence():
    truth = dynamic_factor_panel(300, 16, 1, rho=0.8, alpha=0.8, missing=0.6, noise="reference_code", seed=5)
    model, _ = fitted(truth.panel, n_factors=1, pretraining_epochs=150, max_iterations=6)
    assert np.median(model.estimates.persistence) == pytest.approx(0.8, abs=0.1)
    factors = model.smooth(truth.panel).factor_returns
    assert trace_r_squareds(truth.factors, factors)["centred"] > 0.7


# --------------------------------------------------------------------------------------------- frequencies


def test_the_order_of_monthly_and_quarterly_columns_does_not_matter(quarterly):
    panel, model = quarterly
    other = mixed(np.random.default_rng(0).permutation(12))
    again, _ = fitted(other)
    np.testing.assert_array_equal(model.estimates.loadings, again.estimates.loadings)
    np.testing.assert_array_equal(model.encode(panel), again.encode(other))
    low = [label in ("s10", "s11") for label in model.estimates.series]
    np.testing.assert_allclose(model.estimates.weights[low], [[1 / 3, 2 / 3, 1.0, 2 / 3, 1 / 3]] * 2)
    assert model.extract(panel).metadata["aggregates"] == ("s10", "s11")


def test_quarters_are_nowcast_and_months_between_are_no_neighbours(quarterly):
    panel, model = quarterly
    last = LENGTH - 1
    truth = panel.wide()[last, 10]
    late = panel.mask((panel.index.period_codes == last) & (panel.asset_codes == 10))
    law = model.conditional(late, [("s10", panel.times[last])])
    spread = np.nanstd(panel.wide()[:, 10])
    assert abs(law.mean[0] - truth) < 1.2 * spread
    assert 0.0 < law.covariance[0, 0] < spread**2
    with pytest.raises(PanelMismatchError, match="no value in"):
        model.conditional(late, [("s10", panel.times[last - 1])])


# ----------------------------------------------------------------------------------- forecasts and nowcasts


def test_a_distant_forecast_is_the_sample_mean():
    panel = dynamic_factor_panel(LENGTH, 15, 2, rho=0.9, seed=4).panel
    model, _ = fitted(panel, max_iterations=2)
    far, variance = model.extract(panel).native.values(400)
    wide = panel.wide()
    np.testing.assert_allclose(far[-15:], wide.mean(axis=0), atol=1e-6 * wide.std())
    np.testing.assert_allclose(np.sqrt(variance[-15:]) / wide.std(axis=0), 1.0, atol=0.25)


def test_a_distant_forecast_with_a_symmetric_decoder_stays_near_the_sample_mean(truth, symmetric):
    wide = truth.panel.wide()
    far, _ = symmetric[0].extract(truth.panel).native.values(400)
    assert np.abs((far[-15:] - np.nanmean(wide, axis=0)) / np.nanstd(wide, axis=0)).max() < 0.3


def test_news_are_exact_with_a_linear_decoder_and_telescoped_with_another(truth, linear, symmetric):
    panel = truth.panel
    last = panel.index.period_codes == LENGTH - 1
    new_cells = last & (panel.asset_codes < 4) & panel.observed
    old = panel.mask(new_cells | (last & (panel.asset_codes == 9)))
    new = panel.mask(last & (panel.asset_codes == 9))
    for (model, _), exact in ((linear, True), (symmetric, False)):
        news = nowcast_news(model, model, old, new, panel.assets[9].item(), panel.times[-1])
        assert news.exact is exact
        assert news.contribution.size == new_cells.sum()
        assert news.contribution.sum() == pytest.approx(news.revision, abs=1e-10)
        assert abs(news.revision) > 1e-6


@pytest.mark.parametrize("which", ["linear", "symmetric"])
def test_laws_of_cells_agree_with_expected_values(truth, which, request):
    model, _ = request.getfixturevalue(which)
    panel = truth.panel
    hidden = np.flatnonzero(~panel.observed)[[3, 40, -1]]
    cells = [
        (panel.assets[panel.asset_codes[row]].item(), panel.times[panel.index.period_codes[row]])
        for row in hidden
    ]
    law = model.conditional(panel, cells)
    np.testing.assert_allclose(law.mean, model.expected_values(panel)[hidden], rtol=1e-8)
    assert np.linalg.eigvalsh(law.covariance).min() > 0.0


def test_another_window_runs_through_the_compiled_program(truth):
    from latentfactors.neural import primitive

    fitted(truth.panel.between(0, 90), max_iterations=1)
    programs = primitive._scan._cached._cache_size()
    fitted(truth.panel.between(0, 93), max_iterations=1)
    fitted(truth.panel.select(truth.panel.assets[:-1]).between(0, 89), max_iterations=1)
    assert primitive._scan._cached._cache_size() == programs


# ---------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_factors": 0}, "n_factors"),
        ({"hidden_units": (8, 0)}, "hidden_units"),
        ({"hidden_units": 8}, "hidden_units"),
        ({"activation": "gelu"}, "activation"),
        ({"decoder": "deep"}, "decoder"),
        ({"batch_size": 1}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate_decay": 1.5}, "learning_rate_decay"),
        ({"dynamics_weight": float("nan")}, "dynamics_weight"),
        ({"loadings": "ols"}, "loadings"),
        ({"likelihood_iterations": -1}, "likelihood_iterations"),
        ({"likelihood_iterations": 5, "decoder": "symmetric"}, "needs decoder='linear'"),
        ({"device": "tpu"}, "device"),
        ({"pretraining_epochs": 0, "max_iterations": 0}, "train nothing"),
    ],
)
def test_configurations_that_make_no_sense(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        replace(SMALL, **changes)


def test_data_that_carry_no_model(truth):
    with pytest.raises(InsufficientDataError, match="n_factors=15"):
        D2FMModel(replace(SMALL, n_factors=15)).fit(truth.panel)
    with pytest.raises(InsufficientDataError, match="periods"):
        D2FMModel(SMALL).fit(truth.panel.between(0, 14))
    with pytest.raises(InsufficientDataError):
        D2FMModel(SMALL).fit(panel_of(np.ones((80, 5))))
    with pytest.raises(InsufficientDataError):
        D2FMModel(SMALL).fit(truth.panel.mask(np.ones(truth.panel.n_rows, dtype=bool)))
    wide = truth.panel.wide().copy()
    wide[4:, 2:] = np.nan  # two series remain usable: as many as there are factors
    with pytest.raises(InsufficientDataError, match="n_factors=2 is no reduction of 2 usable series"):
        D2FMModel(SMALL).fit(panel_of(wide))
    with pytest.raises(TrainingError, match="learning_rate"):
        D2FMModel(replace(SMALL, learning_rate=1e8)).fit(truth.panel)
    model, _ = fitted(truth.panel, max_iterations=1)
    with pytest.raises(HorizonError, match="backcast"):
        model.extract(truth.panel).native.values(-1)


@pytest.mark.parametrize("least", [0, 1, 50])
def test_too_few_complete_months_are_reported_and_do_not_stop_training(truth, least):
    """No month without a gap: pre-training reads all of them, gaps splined, and the summary says so."""
    wide = truth.panel.wide().copy()
    wide[np.arange(LENGTH), np.arange(LENGTH) % 15] = np.nan
    model, summary = fitted(panel_of(wide), max_iterations=1, min_complete_rows=least)
    assert "0 months without a gap: pre-trained on all months, gaps splined" in summary.warnings
    assert summary.metrics["n_complete_months"] == 0.0
    assert np.isfinite(model.estimates.loadings).all()


def test_months_without_any_value_are_not_trained_on(truth):
    wide = truth.panel.wide().copy()
    wide[10:13], wide[-2:] = np.nan, np.nan
    model, summary = fitted(panel_of(wide), max_iterations=1)
    factors = model.extract(panel_of(wide)).factor_returns
    assert np.isfinite(factors).all()
    assert np.isfinite(model.encode(panel_of(wide))).all()
    assert np.isfinite(summary.objective).all()


def test_a_device_is_taken_or_refused_in_one_line(truth):
    plain = replace(SMALL, hidden_units=(), pretraining_epochs=10, max_iterations=0)
    model, _ = fitted(truth.panel, plain)
    named, _ = fitted(truth.panel, plain, device="cpu")
    np.testing.assert_array_equal(model.estimates.loadings, named.estimates.loadings)
    jax = pytest.importorskip("jax")
    if jax.default_backend() == "cpu":
        with pytest.raises(ConfigurationError, match=r"device='gpu' is not there, JAX sees .*(?i:cpu)"):
            fitted(truth.panel, plain, device="gpu")


def test_loadings_by_least_squares_are_those_as_printed(truth):
    """One trained network, two state spaces: the codes agree, the loadings do not."""
    by_gls, _ = fitted(truth.panel, max_iterations=1)
    printed, _ = fitted(truth.panel, max_iterations=1, loadings="least_squares")
    for name, array in by_gls.estimates.network.encoder.items():
        np.testing.assert_array_equal(array, printed.estimates.network.encoder[name])
    assert not np.allclose(by_gls.estimates.loadings, printed.estimates.loadings, atol=1e-3)
    white = [
        replace(SMALL, max_iterations=1, idiosyncratic="iid", loadings=each)
        for each in ("gls", "least_squares")
    ]
    same = [fitted(truth.panel, config)[0].estimates.loadings for config in white]
    np.testing.assert_allclose(*same, rtol=1e-12)


def test_likelihood_from_the_codes_brings_few_series_up_to_the_linear_model():
    """Codes of ten series are noisy, and a law read off them smooths too little."""
    truth = dynamic_factor_panel(96, 10, 2, rho=0.9, alpha=0.0, missing=0.2, seed=5)

    def found(model):
        return trace_r_squareds(truth.factors, model.smooth(truth.panel).factor_returns)["intercept"]

    peer = DynamicFactorModel(DFMConfig(n_factors=2, factor_lags=2, tolerance=1e-3))
    peer.fit(truth.panel)
    printed, summary = fitted(truth.panel)
    assert "loglikelihood" not in summary.metrics
    refined, summary = fitted(truth.panel, likelihood_iterations=50)
    assert found(printed) < found(peer) - 0.05
    assert found(refined) > found(peer) - 0.02
    best = peer.summary.objective[-1]
    assert summary.metrics["loglikelihood_of_codes"] < best - 20.0
    assert summary.metrics["loglikelihood"] == pytest.approx(best, abs=0.5)
    # the network is the same one, its codes now a noisy reading of the factors
    for name, array in printed.estimates.network.encoder.items():
        np.testing.assert_array_equal(array, refined.estimates.network.encoder[name])
    factors = refined.smooth(truth.panel).factor_returns
    mapped = refined.estimates.code_mean + factors @ refined.estimates.code_map.T
    assert trace_r_squareds(refined.encode(truth.panel), mapped)["centred"] > 0.6


def test_likelihood_iterations_keep_quarters_aggregates(quarterly):
    panel, printed = quarterly
    refined, summary = fitted(panel, likelihood_iterations=20)
    assert summary.metrics["loglikelihood"] > summary.metrics["loglikelihood_of_codes"]
    again = fitted(mixed(order=np.roll(np.arange(12), 5)), likelihood_iterations=20)[0]
    np.testing.assert_allclose(again.estimates.loadings, refined.estimates.loadings, rtol=1e-6, atol=1e-9)
    # the trained law and the refined one speak of the same months
    cells = [("s11", panel.times[-1])]
    laws = [model.conditional(panel, cells).mean[0] for model in (printed, refined)]
    assert abs(laws[0] - laws[1]) < 1.0


def test_constant_and_empty_series_are_left_out_and_named(truth):
    wide = truth.panel.wide().copy()
    wide[:, 0], wide[:, 1] = 2.0, np.nan
    model, summary = fitted(panel_of(wide), max_iterations=1)
    assert model.estimates.series.size == 13
    assert "s00" in summary.warnings[0]
