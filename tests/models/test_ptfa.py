"""PTFA on panels: what it reads, what it forecasts, in which units, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import (
    EWMA,
    VAR,
    Bootstrap,
    ExpandingWindow,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NativeMapper,
    Panel,
    PTFAConfig,
    PTFAModel,
    SeriesInfo,
    walk_forward,
)
from latentfactors.errors import (
    ConfigurationError,
    FrequencyError,
    HorizonError,
    InsufficientDataError,
)

P_NAMES = tuple(f"x{j:02d}" for j in range(10))
Y_NAMES = ("gdp", "cpi", "jobs")


def month_ends(T):
    months = np.datetime64("1990-02") + np.arange(T).astype("timedelta64[M]")
    return months.astype("datetime64[D]") - np.timedelta64(1, "D")


def panel_of(values, names=(*P_NAMES, *Y_NAMES), series=None):
    return Panel.from_wide(
        values,
        times=month_ends(len(values)),
        assets=list(names),
        universe="all",
        frequency="M",
        value_kind="series",
        series=series,
    )


def simulate(T=200, *, lead=0, persistence=(0.0, 0.0), missing=0.0, seed=0, p=10, q=3, noise=1.0):
    """x_t = P f_t + e, y_(t+lead) = Q f_t + e."""
    rng = np.random.default_rng(seed)
    f, a = np.zeros((T + lead, 2)), np.array(persistence)
    for t in range(T + lead):
        f[t] = (a * f[t - 1] if t else 0.0) + rng.normal(size=2)
    P, Q = rng.uniform(size=(p, 2)), rng.uniform(size=(q, 2))
    x = f[lead:] @ P.T + noise * rng.normal(size=(T, p))
    y = f[:T] @ Q.T + noise * rng.normal(size=(T, q))
    values = np.hstack([x, y]) * np.linspace(0.5, 3.0, p + q) + np.arange(p + q)
    values[rng.uniform(size=values.shape) < missing] = np.nan
    return values


def fitted(panel, **settings):
    model = PTFAModel(PTFAConfig(**{"n_factors": 2, "targets": Y_NAMES, **settings}))
    model.fit(panel)
    return model


def test_smooth_uses_targets_and_extract_does_not():
    values = simulate(missing=0.1)
    panel, model = panel_of(values), fitted(panel_of(values))
    moved = values.copy()
    moved[:, 10:] += 2.0
    extracted, after = (model.extract(panel_of(each)).factor_returns for each in (values, moved))
    smoothed, smoothed_after = (model.smooth(panel_of(each)).factor_returns for each in (values, moved))
    assert extracted.tobytes() == after.tobytes()
    assert np.abs(smoothed - smoothed_after).max() > 0.1
    assert model.smooth(panel).factors.information == "smoothed"
    assert model.extract(panel).factors.information == "filtered"


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("extra", [{}, {"volatility": EWMA()}, {"dynamics": VAR()}])
def test_units_do_not_matter(scale, extra):
    values = simulate(120, missing=0.1, noise=0.7)
    base, scaled = (fitted(panel_of(values * c), **extra) for c in (1.0, scale))
    horizon = 1 if "dynamics" in extra else 0
    (mean, variance), (mean_scaled, variance_scaled) = (
        model.extract(panel_of(values * c)).native.values(horizon)
        for model, c in ((base, 1.0), (scaled, scale))
    )
    np.testing.assert_allclose(mean_scaled, mean * scale, rtol=1e-6, atol=1e-8 * scale)
    np.testing.assert_allclose(variance_scaled, variance * scale**2, rtol=1e-6)
    assert scaled.summary.loglikelihood == pytest.approx(base.summary.loglikelihood, rel=1e-8)


def coverage(model, train, fresh):
    """Share of fresh targets inside 90% nowcast intervals from x alone."""
    state = model.extract(panel_of(np.vstack([train, fresh])))
    mean, variance = state.native.values(0)
    index = state.index
    # row p nowcasts p - 1
    mean, sd = index.dense(mean)[len(train) + 1 :, 10:], np.sqrt(index.dense(variance)[len(train) + 1 :, 10:])
    truth = fresh[:-1, 10:]
    return np.mean(np.abs(truth - mean) <= 1.6449 * sd)


def interval_study(n, **settings):
    shares = []
    for seed in range(n):
        values = simulate(300, seed=seed)
        train, fresh = values[:200].copy(), values[200:].copy()
        rng = np.random.default_rng(1000 + seed)
        train[rng.uniform(size=train.shape) < 0.3] = np.nan
        hidden = rng.uniform(size=fresh.shape) < 0.3
        hidden[:, 10:] = False  # fresh targets are what the intervals are judged by
        fresh[hidden] = np.nan
        model = PTFAModel(PTFAConfig(n_factors=2, targets=Y_NAMES, **settings))
        model.fit(panel_of(train))
        shares.append(coverage(model, train, fresh))
    return np.mean(shares), np.std(shares, ddof=1) / np.sqrt(n)


def test_intervals_cover_at_thirty_percent_missing():
    share, error = interval_study(20)
    # exact plug-in intervals cover about .894; three Monte Carlo standard errors on either side
    assert abs(share - 0.894) < 3 * error + 0.01


@pytest.mark.slow
def test_intervals_cover_over_four_hundred_replications():
    for settings in ({}, {"parameter_uncertainty": Bootstrap(20)}):
        share, error = interval_study(400, **settings)
        assert error < 0.0025
        assert 0.87 < share < 0.93


def test_bootstrap_widens_intervals_and_leaves_means():
    panel = panel_of(simulate(60, missing=0.2))
    plain, wide = fitted(panel), fitted(panel, parameter_uncertainty=Bootstrap(20, seed=1))
    (a, va), (b, vb) = (model.extract(panel).native.values(0) for model in (plain, wide))
    np.testing.assert_array_equal(a, b)
    known = np.isfinite(va)
    assert (vb[known] > va[known]).all()


@pytest.mark.parametrize("lead", [1, 3])
def test_lead_forecasts_the_future_and_no_other_horizon(lead):
    values = simulate(400, lead=lead, noise=0.5)
    panel = panel_of(values)
    model = fitted(panel.between(0, 300), lead=lead)
    assert model.score(panel.between(300, 400)) > 0.4
    native = model.extract(panel).native
    forecast = panel.index.dense(native.values(lead)[0])[:, 10:]
    # row p speaks about p - 1 + lead
    rows = np.arange(301, 400 - lead)
    realised = values[rows - 1 + lead][:, 10:]
    assert min(np.corrcoef(forecast[rows, j], realised[:, j])[0, 1] for j in range(3)) > 0.6
    misaligned = [np.corrcoef(forecast[rows, 0], values[rows + s, 10])[0, 1] for s in (lead, lead - 2)]
    assert max(misaligned) < 0.4
    with pytest.raises(HorizonError, match=f"lead={lead}"):
        native.values(lead + 1)
    assert np.isnan(model.extract(panel).asset_betas[0, 10:]).all()


def test_static_nowcaster_is_refused_by_walk_forward_with_advice():
    pipeline = LatentFactorForecastPipeline(
        model=PTFAModel(PTFAConfig(n_factors=2, targets=Y_NAMES)),
        forecaster=NativeFactorForecaster(),
        mapper=NativeMapper(),
    )
    panel = panel_of(simulate(60))
    with pytest.raises(HorizonError, match="train with lead=1"):
        walk_forward(pipeline, panel, ExpandingWindow(first=50, step=5))
    pipeline.fit(panel.between(0, 50))
    nowcast = pipeline.predict(panel, horizon=0).asset_forecast
    assert np.isfinite(nowcast.wide()[55, 10:]).all()
    assert nowcast.targets[55] == panel.times[54]


def test_released_targets_sharpen_the_others_and_are_themselves():
    values = simulate(200, noise=0.4)
    values[150:, 11:] = np.nan  # gdp is released first
    panel = panel_of(values)
    model = fitted(panel, use_released_targets=True)
    alone = fitted(panel)
    (mean, variance), (_, blind) = (each.extract(panel).native.values(0) for each in (model, alone))
    mean, variance, blind = (panel.index.dense(each) for each in (mean, variance, blind))
    np.testing.assert_allclose(mean[180, 10], values[179, 10])
    assert variance[180, 10] == 0.0
    assert (variance[180, 11:] < blind[180, 11:]).all()


def test_dynamics_forecast_any_horizon_and_beat_the_static_likelihood():
    values = simulate(300, persistence=(0.9, 0.6), missing=0.1)
    panel = panel_of(values)
    dynamic, static = fitted(panel.between(0, 240), dynamics=VAR(1)), fitted(panel.between(0, 240))
    assert dynamic.summary.loglikelihood > static.summary.loglikelihood + 50
    path = np.array(dynamic.summary.objective)
    assert (np.diff(path) >= -1e-9 * np.abs(path[:-1])).all()
    native = dynamic.extract(panel).native
    variances = [np.nanmean(native.values(h)[1]) for h in (0, 1, 4, 60)]
    assert variances[1] < variances[2] < variances[3]
    far = panel.index.dense(native.values(200)[0])[-1, 10:]
    np.testing.assert_allclose(far, dynamic.estimates.series.location[10:], rtol=1e-3)
    continued = dynamic.extract(panel.between(240, 300)).native.values(2)[0]
    whole = dynamic.extract(panel).between(240, 300).native.values(2)[0]
    np.testing.assert_array_equal(continued, whole)
    with pytest.raises(HorizonError, match="smooth"):
        native.values(-1)


@pytest.mark.parametrize("dynamics", [None, VAR(1)])
@pytest.mark.parametrize("aggregation", ["mean", "mariano_murasawa"])
def test_quarterly_target_in_a_monthly_panel(dynamics, aggregation):
    values = simulate(240, persistence=(0.8, 0.5) if dynamics else (0.0, 0.0), noise=0.5)
    weights = {"mean": np.ones(3) / 3, "mariano_murasawa": np.array([1, 2, 3, 2, 1]) / 3}[aggregation]
    latent = values[:, 12]
    values[:, 12] = np.convolve(latent, weights)[:240]
    ends = np.arange(240) % 3 == 2
    values[~ends, 12] = np.nan
    values[:5, 12] = np.nan
    info = SeriesInfo(frequency=("M",) * 12 + ("Q",), aggregation=("mean",) * 12 + (aggregation,))
    panel = panel_of(values, series=info)
    model = fitted(panel.between(0, 180), dynamics=dynamics)
    state = model.extract(panel)
    nowcast, variance = (panel.index.dense(each)[:, 12] for each in state.native.values(0))
    assert np.isfinite(nowcast[1:][ends[:-1]]).all()
    assert np.isnan(nowcast[1:][~ends[:-1]]).all()
    rows = np.flatnonzero(ends[:-1]) + 1
    rows = rows[rows > 181]
    error = values[rows - 1, 12] - nowcast[rows]
    assert np.corrcoef(nowcast[rows], values[rows - 1, 12])[0, 1] > 0.6
    assert 0.4 < np.mean(error**2) / np.mean(variance[rows]) < 2.0
    assert np.isnan(state.asset_betas[0, 12]).all()
    assert np.isfinite(state.asset_betas[0, 11]).all()


def test_moving_variances_widen_intervals_when_noise_grows():
    values = simulate(300, noise=0.5)
    values[200:, 10:] += 3.0 * np.random.default_rng(1).normal(size=(100, 3))
    panel = panel_of(values)
    model = fitted(panel.between(0, 200), volatility=EWMA(0.94, 0.94))
    variance = panel.index.dense(model.extract(panel).native.values(0)[1])[:, 10:]
    assert (variance[290] > 2.0 * variance[190]).all()


def test_cv_weight_is_recorded_and_used():
    model = fitted(panel_of(simulate(120)), target_weight="cv")
    e = model.estimates
    assert np.sqrt(e.predictor_variance / e.target_variance) == pytest.approx(e.noise_ratio, rel=1e-6)


def test_summary_carries_what_model_choice_needs():
    values = simulate(150)
    summary = fitted(panel_of(values)).summary
    d, k = 13, 2
    assert summary.metrics["n_parameters"] == d * k - 1 + 2
    bic = summary.metrics["n_parameters"] * np.log(150) - 2 * summary.loglikelihood
    assert summary.metrics["bic"] == pytest.approx(bic)
    shift = 150 * np.log(values.std(axis=0)).sum()
    assert summary.metrics["loglikelihood_input_units"] == pytest.approx(summary.loglikelihood - shift)
    # in-sample R2 from x alone: the paper's figures condition on the targets themselves and come out higher
    assert 0.1 < summary.metrics["target_r2"] < 0.9


def test_dropped_predictors_and_heywood_cases_are_reported():
    values = simulate(100)
    values[:, 3] = 7.0
    summary = fitted(panel_of(values)).summary
    assert any("constant in training left out: x03" in remark for remark in summary.warnings)
    one = simulate(40, p=5, q=1)
    names = (*P_NAMES[:5], "gdp")
    flagged = [
        fitted(panel_of(simulate(40, p=5, q=1, seed=s), names), targets=("gdp",)).summary.warnings
        for s in range(20)
    ]
    assert one.shape == (40, 6)
    assert any("Heywood" in " ".join(each) for each in flagged)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_factors": 0}, "n_factors"),
        ({"targets": "gdp"}, "tuple"),
        ({"target_weight": -1.0}, "target_weight"),
        ({"target_weight": "best"}, "target_weight"),
        ({"volatility": 0.94}, "EWMA"),
        ({"dynamics": 1}, "VAR"),
        ({"dynamics": VAR(), "volatility": EWMA()}, "volatility"),
        ({"volatility": EWMA(), "target_weight": "cv"}, "own"),
        ({"volatility": EWMA(), "parameter_uncertainty": Bootstrap()}, "filter"),
        ({"use_released_targets": True, "lead": 1}, "lead=0"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        PTFAConfig(**{"n_factors": 2, "targets": Y_NAMES, **settings})


def test_a_decay_of_zero_is_refused_with_the_reason():
    with pytest.raises(ConfigurationError, match="outweighs"):
        EWMA(0.0, 0.94)
    with pytest.raises(ConfigurationError, match="at most 1"):
        EWMA(0.94, 1.2)


def test_data_that_cannot_work_are_refused():
    panel = panel_of(simulate(60))
    with pytest.raises(InsufficientDataError, match="more series than factors"):
        fitted(panel, n_factors=13)
    with pytest.raises(InsufficientDataError, match="training pairs"):
        fitted(panel.between(0, 4), n_factors=4)
    weekly = SeriesInfo(frequency=("M",) * 12 + ("W",))
    with pytest.raises(FrequencyError, match="frequency 'W' in a panel of frequency 'M'"):
        fitted(panel_of(simulate(60), series=weekly))
    quarterly = SeriesInfo(frequency=("M",) * 12 + ("Q",))
    with pytest.raises(FrequencyError, match="inside one of its periods"):
        fitted(panel_of(simulate(60), series=quarterly))
    model, values = fitted(panel), simulate(60)
    values[:, 10:] = np.nan
    without_targets = panel_of(values)
    with pytest.raises(InsufficientDataError, match="observed targets"):
        model.score(without_targets)


def test_noise_free_values_end_in_numbers():
    model = fitted(panel_of(simulate(80, noise=0.0, missing=0.1)), max_iterations=300)
    mean, variance = model.extract(panel_of(simulate(80, noise=0.0, missing=0.1))).native.values(0)
    assert np.isfinite(mean).sum() == np.isfinite(variance).sum() == 79 * 3


def test_saved_estimates_come_back(tmp_path):
    values = simulate(80, missing=0.1)
    panel = panel_of(values)
    model = fitted(panel, dynamics=VAR(1), use_released_targets=True)
    model.save(tmp_path / "ptfa")
    loaded = PTFAModel.load(tmp_path / "ptfa")
    a, b = (each.extract(panel).native.values(2)[0] for each in (model, loaded))
    assert a.tobytes() == b.tobytes()
