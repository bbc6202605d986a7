"""The papers' processes for series: moments, shares, frequencies, random streams that do not touch."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError
from latentfactors.simulate import (
    dynamic_factor_panel,
    nonlinear_features,
    targeted_panel,
    trace_r_squareds,
)


def noise_of(truth):
    p = len(truth.predictors)
    e = truth.complete - truth.common
    return e[:, :p], e[:, p:]


def autocorrelation(x):
    x = x - x.mean(axis=0)
    return (x[1:] * x[:-1]).sum(axis=0) / (x**2).sum(axis=0)


# ------------------------------------------------------------------------ targets


def test_the_papers_defaults():
    truth = targeted_panel()
    assert truth.panel.wide().shape == (200, 13)
    assert (truth.predictor_loadings.shape, truth.target_loadings.shape) == ((10, 2), (3, 2))
    both = np.vstack([truth.predictor_loadings, truth.target_loadings])
    assert both.min() >= 0
    assert both.max() <= 1
    np.testing.assert_allclose(truth.common, truth.factors @ both.T)
    np.testing.assert_array_equal(truth.panel.wide(), truth.complete)
    assert (truth.panel.value_kind, truth.panel.frequency) == ("series", "M")
    assert targeted_panel(loadings="normal").predictor_loadings.min() < 0


def test_dgp_1_is_white_normal_noise_of_the_stated_size():
    truth = targeted_panel(20_000, predictor_noise=0.5, target_noise=2.0)
    x, y = noise_of(truth)
    np.testing.assert_allclose(np.cov(x.T), 0.25 * np.eye(10), atol=0.012)
    np.testing.assert_allclose(np.cov(y.T), 4.0 * np.eye(3), atol=0.15)
    np.testing.assert_allclose(np.cov(truth.factors.T), np.eye(2), atol=0.04)
    np.testing.assert_array_equal(truth.volatility[0], [0.5, 2.0])


def test_dgp_2_is_toeplitz():
    x, y = noise_of(targeted_panel(20_000, process="DGP.2", predictor_noise=2.0))
    places = np.arange(10)
    np.testing.assert_allclose(np.cov(x.T), 4 * 0.5 ** np.abs(places[:, None] - places), atol=0.2)
    np.testing.assert_allclose(np.corrcoef(y.T)[0], [1, 0.5, 0.25], atol=0.03)


def test_dgp_3_has_t_and_chi_squared_noise():
    x, y = noise_of(targeted_panel(20_000, process="DGP.3", predictor_noise=2.0))
    # quartiles of t(3) are -.7649 and .7649, of chi^2(1) .1015, .4549, 1.3233
    np.testing.assert_allclose(np.percentile(x, [25, 50, 75]), [-1.530, 0, 1.530], atol=0.03)
    np.testing.assert_allclose(np.percentile(y, [25, 50, 75]), [0.1015, 0.4549, 1.3233], atol=0.02)
    assert y.min() > 0


def test_factors_of_the_autoregressive_variant_have_unit_innovations():
    f = targeted_panel(40_000, persistence=(0.8, 0.5)).factors
    np.testing.assert_allclose(autocorrelation(f), [0.8, 0.5], atol=0.02)
    np.testing.assert_allclose(f.var(axis=0), [1 / (1 - 0.64), 1 / (1 - 0.25)], rtol=0.05)
    starts = np.array([targeted_panel(1, persistence=(0.8, 0.5), seed=s).factors[0] for s in range(2000)])
    np.testing.assert_allclose(starts.var(axis=0), [1 / (1 - 0.64), 1 / (1 - 0.25)], rtol=0.1)


def test_ewma_volatility_follows_its_own_recursion():
    truth = targeted_panel(300, predictor_noise=2.0, decay=0.94)
    for side, noise in enumerate(noise_of(truth)):
        path = truth.volatility[:, side] ** 2
        np.testing.assert_allclose(path[1:], 0.94 * path[:-1] + 0.06 * (noise[:-1] ** 2).mean(axis=1))
    x, _ = noise_of(truth)
    assert truth.volatility[0, 0] == 2.0
    assert 0.9 < (x / truth.volatility[:, :1]).std() < 1.1
    assert np.ptp(truth.volatility[:, 0]) > 0.1


def test_quarterly_targets_are_means_of_three_months():
    truth = targeted_panel(200, quarterly_targets=True)
    y = truth.panel.wide()[:, 10:]
    seen = np.flatnonzero(np.isfinite(y).all(axis=1))
    assert seen.tolist() == list(range(2, 198, 3))
    np.testing.assert_allclose(y[5], truth.complete[3:6, 10:].mean(axis=0))
    months = truth.panel.times[seen].astype("M8[M]").astype(int) % 12
    assert set(months) == {2, 5, 8, 11}
    assert truth.panel.series is not None
    assert truth.panel.series.frequency == ("M",) * 10 + ("Q",) * 3
    assert truth.panel.series.aggregation[-1] == "mean"


def test_missing_shares_hide_more_of_the_same_panel():
    full = targeted_panel(1000)
    holed = targeted_panel(1000, missing_predictors=0.3, missing_targets=0.1)
    x, y = np.isnan(holed.panel.wide()[:, :10]), np.isnan(holed.panel.wide()[:, 10:])
    assert abs(x.mean() - 0.3) < 0.02
    assert abs(y.mean() - 0.1) < 0.02
    np.testing.assert_array_equal(holed.complete, full.complete)
    more = np.isnan(targeted_panel(1000, missing_predictors=0.5).panel.wide()[:, :10])
    assert np.all(more[x])
    with pytest.raises(ValueError, match="read-only"):
        holed.factors[0] = 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_periods": 0}, "n_periods"),
        ({"process": "DGP.4"}, "one of DGP.1"),
        ({"loadings": "gamma"}, "one of uniform"),
        ({"predictor_noise": -1.0}, "predictor_noise"),
        ({"missing_targets": 1.0}, r"missing_targets must be a share in \[0, 1\)"),
        ({"process": "DGP.3", "target_noise": 2.0}, "chi"),
        ({"process": "DGP.2", "decay": 0.9}, "process='DGP.1'"),
        ({"decay": 1.0}, r"\(0, 1\)"),
        ({"persistence": (0.8,)}, "2 numbers"),
        ({"persistence": (0.8, 1.0)}, r"\(-1, 1\)"),
        ({"seed": -1}, "seed"),
    ],
)
def test_targets_outside_the_designs_are_refused(options, words):
    with pytest.raises(ConfigurationError, match=words):
        targeted_panel(**options)


# ------------------------------------------------------------------------ dynamic factors


def test_moments_of_the_linear_process():
    truth = dynamic_factor_panel(40_000, 6, 3, rho=0.9, alpha=0.5, tau=0.4)
    np.testing.assert_allclose(autocorrelation(truth.factors), 0.9, atol=0.02)
    np.testing.assert_allclose(truth.factors.var(axis=0), 1 / 0.19, rtol=0.1)
    e, g = truth.idiosyncratic, truth.idiosyncratic_variance
    np.testing.assert_allclose(e.var(axis=0), g, rtol=0.06)
    np.testing.assert_allclose(autocorrelation(e), 0.5, atol=0.02)
    places = np.arange(6)
    np.testing.assert_allclose(np.corrcoef(e.T), 0.4 ** np.abs(places[:, None] - places), atol=0.03)
    np.testing.assert_allclose(truth.complete, truth.features @ truth.loadings.T + e)
    # b_i, the share of noise in the variance, lies in [u, 1 - u]
    common = (truth.loadings**2).sum(axis=1) / (1 - 0.81)
    share = g / (g + common)
    assert share.min() >= 0.1
    assert share.max() <= 0.9
    shares = dynamic_factor_panel(2, 20_000, 1)
    g, common = shares.idiosyncratic_variance, (shares.loadings**2).sum(axis=1) / 0.19
    np.testing.assert_allclose(np.percentile(g / (g + common), [25, 50, 75]), [0.3, 0.5, 0.7], atol=0.02)


def test_the_authors_code_has_less_noise():
    paper = dynamic_factor_panel(50, 10, 3, rho=0.9, alpha=0.5)
    code = dynamic_factor_panel(50, 10, 3, rho=0.9, alpha=0.5, noise="reference_code")
    np.testing.assert_allclose(
        paper.idiosyncratic_variance / code.idiosyncratic_variance, (1 - 0.25) / (1 - 0.81)
    )
    np.testing.assert_allclose((1 - 0.25) / (1 - 0.81), 3.95, atol=0.005)
    np.testing.assert_array_equal(paper.factors, code.factors)


def test_nonlinear_features():
    truth = dynamic_factor_panel(50, 10, 3, measurement="nonlinear")
    f = truth.factors
    assert truth.features.shape == (50, 12)
    np.testing.assert_array_equal(truth.features[:, :3], f)
    products = [f[:, i] * f[:, j] for i in range(3) for j in range(i, 3)]
    np.testing.assert_array_equal(truth.features[:, 3:9], np.column_stack(products))
    np.testing.assert_array_equal(truth.features[:, 9:], np.sign(f))
    assert nonlinear_features(f[:, :1]).shape == (50, 3)


def test_missing_cells_and_the_panel():
    truth = dynamic_factor_panel(200, 50, 1, missing=0.3)
    wide = truth.panel.wide()
    assert abs(np.isnan(wide).mean() - 0.3) < 0.02
    seen = np.isfinite(wide)
    np.testing.assert_array_equal(wide[seen], truth.complete[seen])
    np.testing.assert_array_equal(truth.complete, dynamic_factor_panel(200, 50, 1).complete)


def test_the_three_trace_metrics_by_hand():
    rng = np.random.default_rng(0)
    features = dynamic_factor_panel(200, 10, 3, measurement="nonlinear").features
    guess = features[:, :4] + rng.normal(size=(200, 4))
    guess[5, 0] = np.nan

    def trace(f, g):
        fitted = g @ np.linalg.lstsq(g, f, rcond=None)[0]
        return np.trace(f.T @ fitted) / np.trace(f.T @ f)

    kept = np.isfinite(guess).all(axis=1)
    f, g = features[kept], guess[kept]
    scores = trace_r_squareds(features, guess)
    assert scores["printed"] == pytest.approx(trace(f, g))
    assert scores["intercept"] == pytest.approx(trace(f, np.column_stack([np.ones(len(g)), g])))
    assert scores["centred"] == pytest.approx(trace(f - f.mean(axis=0), g - g.mean(axis=0)))
    assert scores["printed"] < scores["intercept"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_series": 0}, "n_series"),
        ({"rho": 1.0}, "rho"),
        ({"alpha": -1.0}, "alpha"),
        ({"tau": 1.0}, "tau"),
        ({"u": 0.0}, "u must lie"),
        ({"missing": 1.0}, "missing"),
        ({"measurement": "cubic"}, "measurement"),
        ({"noise": "none"}, "noise"),
    ],
)
def test_processes_outside_the_range_are_refused(options, words):
    with pytest.raises(ConfigurationError, match=words):
        dynamic_factor_panel(**options)
