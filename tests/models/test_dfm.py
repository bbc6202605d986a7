"""DynamicFactorModel: recovery, frequencies, blocks, gaps, and what happens at the edges of the data."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import Block, DFMConfig, DynamicFactorModel, Panel, VarianceBreak
from latentfactors.errors import (
    ConfigurationError,
    HorizonError,
    InsufficientDataError,
    NotFittedError,
    PanelMismatchError,
    UnknownAssetsError,
)
from latentfactors.rows import SeriesInfo
from latentfactors.simulate import dynamic_factor_panel

WEIGHTS = {
    "mean": np.array([1.0, 1.0, 1.0]) / 3.0,
    "sum": np.array([1.0, 1.0, 1.0]),
    "mariano_murasawa": np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 3.0,
    "end": np.array([1.0]),
}


def draw(T=180, n=12, r=2, *, phi=0.3, seed=0):
    """Factors (T, r) and values (T, n) of a process with AR(1) terms."""
    rng = np.random.default_rng(seed)
    loadings, roots = rng.normal(size=(n, r)), np.linspace(0.8, 0.5, r)
    f, e = np.zeros((T + 50, r)), np.zeros((T + 50, n))
    for t in range(1, T + 50):
        f[t] = roots * f[t - 1] + rng.normal(size=r)
        e[t] = phi * e[t - 1] + rng.normal(size=n)
    return f[50:], (f @ loadings.T + e)[50:]


def mixed(kind, T=180, n_low=2, seed=0, level=3.0):
    """A monthly panel whose last series are quarterly aggregates; the factors and the full monthly values."""
    f, values = draw(T, 14, 2, seed=seed)
    values = values + level
    seen, weights = values.copy(), WEIGHTS[kind]
    for j in range(14 - n_low, 14):
        total = np.convolve(values[:, j], weights)[:T]
        seen[:, j] = np.where((np.arange(T) % 3 == 2) & (np.arange(T) >= 5), total, np.nan)
    info = SeriesInfo(
        frequency=("M",) * (14 - n_low) + ("Q",) * n_low,
        aggregation=("end",) * (14 - n_low) + (kind,) * n_low,
    )
    return panel_of(seen, series=info), f, values


def panel_of(values, assets=None, series=None, start="1990-01"):
    return Panel.from_wide(
        values,
        universe="all",
        times=(np.datetime64(start, "M") + np.arange(1, len(values) + 1)).astype("datetime64[D]")
        - np.timedelta64(1, "D"),
        assets=[f"s{j:02d}" for j in range(values.shape[1])] if assets is None else assets,
        frequency="M",
        value_kind="series",
        series=series,
    )


def fitted(panel, n_factors=2, **options):
    model = DynamicFactorModel(DFMConfig(n_factors=n_factors, **options))
    return model, model.fit(panel)


def explained(factors, truth):
    """R2 of every true factor on the estimated ones."""
    X = np.column_stack([factors, np.ones(len(factors))])
    residual = truth - X @ np.linalg.lstsq(X, truth, rcond=None)[0]
    return 1.0 - residual.var(axis=0) / truth.var(axis=0)


# ------------------------------------------------------------------------------------------- what is found


@pytest.mark.parametrize("idiosyncratic", ["iid", "ar1"])
def test_two_factors_are_recovered_with_a_third_of_the_cells_missing(idiosyncratic):
    truth = dynamic_factor_panel(200, 40, 2, rho=0.7, alpha=0.5, missing=0.3, seed=3)
    model, summary = fitted(truth.panel, idiosyncratic=idiosyncratic)
    assert summary.converged
    assert np.diff(summary.objective).min() > -1e-9 * abs(summary.loglikelihood)
    assert explained(model.smooth(truth.panel).factor_returns, truth.factors).min() > 0.95
    if idiosyncratic == "ar1":
        assert model.estimates.persistence.mean() == pytest.approx(0.5, abs=0.06)


def test_identification_is_what_the_docstring_says():
    model, _ = fitted(panel_of(draw()[1]), factor_lags=2)
    found = model.estimates
    D = found.variance / (1 - found.persistence**2)
    gram = found.loadings.T @ (found.loadings / D[:, None])
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9 * gram.max())
    assert gram[0, 0] > gram[1, 1]
    assert (found.loadings[np.abs(found.loadings).argmax(axis=0), [0, 1]] > 0).all()
    # Var(f) = I: the stationary variance of a long run of the law of motion
    rng, f = np.random.default_rng(0), np.zeros((200_000, 2))
    shocks = rng.normal(size=f.shape) @ np.linalg.cholesky(found.innovation).T
    for t in range(2, len(f)):
        f[t] = found.transition[0] @ f[t - 1] + found.transition[1] @ f[t - 2] + shocks[t]
    np.testing.assert_allclose(np.cov(f.T), np.eye(2), atol=0.06)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_quarterly_series_are_aggregates_of_months(kind):
    """The months inside the quarters are recovered better than any constant could, and aggregate exactly."""
    panel, f, values = mixed(kind)
    model, summary = fitted(panel, max_iterations=600, tolerance=1e-4)
    assert explained(model.smooth(panel).factor_returns, f).min() > 0.8
    assert np.isfinite(summary.loglikelihood)
    weights = model.estimates.weights[-1]
    np.testing.assert_allclose(weights[: WEIGHTS[kind].size], WEIGHTS[kind])
    nowcast, variance = model.extract(panel).native.values(0)
    quarter_end = np.isfinite(panel.wide()[:, -1])
    now = nowcast.reshape(panel.n_periods, -1)[:, -1]
    # row p looks one period back: horizon 0 describes the origin, which has seen the value
    np.testing.assert_allclose(now[1:][quarter_end[:-1]], panel.wide()[:-1][quarter_end[:-1], -1], rtol=1e-6)
    ahead = model.extract(panel).native.values(1)[0].reshape(panel.n_periods, -1)[:, -1]
    target = panel.wide()[:, -1]
    rows = quarter_end & (np.arange(panel.n_periods) > 24)
    error = target[rows] - ahead[rows]
    assert np.mean(error**2) < 0.75 * np.var(target[rows])
    assert variance.min() >= 0.0
    state = model.extract(panel)
    # the last month's own value is no aggregate
    assert state.metadata["aggregates"] == (() if kind == "end" else ("s12", "s13"))
    assert np.isfinite(values).all()


def test_blocks_are_loaded_by_their_series_only(tmp_path):
    rng = np.random.default_rng(1)
    f, values = draw(240, 16, 1, seed=2)
    own, _ = draw(240, 1, 1, seed=9)
    values[:, :8] += 1.5 * own * rng.uniform(0.5, 1.5, 8)
    members = tuple(f"s{j:02d}" for j in range(8))
    panel = panel_of(values)
    model, summary = fitted(panel, 1, blocks=(Block(name="real", series=members),), tolerance=1e-4)
    assert model.config.factor_names == ("F1", "real 1")
    assert (model.estimates.loadings[8:, 1] == 0).all()
    assert (model.estimates.transition[:, 0, 1] == 0).all()
    assert (model.estimates.innovation[0, 1] == 0).all()
    factors = model.smooth(panel).factor_returns
    assert explained(factors[:, :1], f).min() > 0.8
    assert explained(factors[:, 1:], own).min() > 0.7
    model.save(tmp_path / "blocks.lf")
    assert DynamicFactorModel.load(tmp_path / "blocks.lf").config == model.config
    # a restriction of the two-factor model
    assert summary.loglikelihood < fitted(panel, 2, tolerance=1e-4)[1].loglikelihood
    assert summary.metrics["n_parameters"] == 16 + 8 + 32 + 2 + 2 - 2


def test_masked_months_are_hidden_from_estimation_and_named():
    _, values = draw(seed=4)
    wild = values.copy()
    wild[100] = 50.0
    clean, _ = fitted(panel_of(values), masked=("1998-05-31",))
    dirty, summary = fitted(panel_of(wild), masked=("1998-05",))
    plain, _ = fitted(panel_of(wild))
    assert any("1 period masked: 1998-05-31" in each for each in summary.warnings)
    # location and scale leave the month out as well
    np.testing.assert_allclose(dirty.estimates.loadings, clean.estimates.loadings, atol=1e-8)
    np.testing.assert_allclose(dirty.estimates.scale, clean.estimates.scale)
    assert np.abs(plain.estimates.loadings - clean.estimates.loadings).max() > 0.05
    # a series that moves in the masked month only says nothing
    values[:, 0] = 1.0
    values[100, 0] = 2.0
    _, summary = fitted(panel_of(values), masked=("1998-05",), max_iterations=6)
    assert any("left out: s00" in each for each in summary.warnings)
    with pytest.raises(ConfigurationError, match="masked period"):
        fitted(panel_of(values), masked=("1950-01",))
    # a real-time study names months that its first vintages do not have yet
    _, summary = fitted(panel_of(values), masked=("2050-01",), max_iterations=6)
    assert any("masked period not in the panel yet: 2050-01" in each for each in summary.warnings)


def pandemic(kind="mariano_murasawa", seed=2):
    """A mixed panel whose months 150-152 have shocks eight, six and four times as large; the truth."""
    size = np.ones(180)
    size[[150, 151, 152]] = 8.0, 6.0, 4.0
    rng = np.random.default_rng(seed)
    loadings, roots = rng.normal(size=(24, 2)), np.array([0.8, 0.5])
    f, e = np.zeros((230, 2)), np.zeros((230, 24))
    for t in range(1, 230):
        now = size[t - 50] if t >= 50 else 1.0
        f[t] = roots * f[t - 1] + now * rng.normal(size=2)
        e[t] = 0.3 * e[t - 1] + now * rng.normal(size=24)
    values = 3.0 + f @ loadings.T + e
    quarterly = np.convolve(values[:, -1], WEIGHTS[kind])[50:230]
    values = values[50:]
    values[:, -1] = np.where(np.arange(180) % 3 == 2, quarterly, np.nan)
    info = SeriesInfo(frequency=("M",) * 23 + ("Q",), aggregation=("end",) * 23 + (kind,))
    return panel_of(values, series=info, start="2007-10"), f[50:], size


PANDEMIC = VarianceBreak(periods=("2020-04", "2020-05", "2020-06"))


def test_a_variance_break_uses_extreme_months_for_what_they_are_worth(tmp_path):
    panel, f, size = pandemic()
    assert str(panel.times[150]) == "2020-04-30"
    model, summary = fitted(panel, variance_break=PANDEMIC)
    found = model.estimates
    assert [str(each) for each in found.broken] == ["2020-04-30", "2020-05-31", "2020-06-30"]
    # 26 squares each: a relative standard error of .14
    np.testing.assert_allclose(found.shock_scale, size[150:153], rtol=0.35)
    said = [each for each in summary.warnings if "times as large" in each]
    assert len(said) == 3
    assert f"{found.shock_scale[0]:.1f}" in said[0]
    plain, usual = fitted(panel)
    gain = summary.metrics["input_loglikelihood"] - usual.metrics["input_loglikelihood"]
    assert gain > 100.0
    assert summary.metrics["n_parameters"] == usual.metrics["n_parameters"] + 3
    # the break keeps the extreme months out of persistence, which the plain fit cannot
    truth = np.array([0.8, 0.5])
    errors = [
        np.abs(np.sort(np.linalg.eigvals(each.estimates.transition[0]).real)[::-1] - truth).max()
        for each in (model, plain)
    ]
    assert errors[0] < 0.15
    # units are those of usual months
    usual_months = np.ones(180, bool)
    usual_months[150:153] = False
    np.testing.assert_allclose(found.scale[0], np.std(panel.wide()[usual_months, 0]))
    # the months are in the factors
    assert explained(model.smooth(panel).factor_returns[148:156], f[148:156]).min() > 0.9
    # filtered states and forecasts before the break do not know of it
    state, cut = model.extract(panel), model.extract(panel.between(0, 152))
    np.testing.assert_allclose(state.factor_returns[:152], cut.factor_returns, atol=1e-10)
    np.testing.assert_allclose(
        state.native.values(1)[1][: cut.index.n_rows], cut.native.values(1)[1], rtol=1e-10
    )
    model.save(tmp_path / "break.lf")
    again = DynamicFactorModel.load(tmp_path / "break.lf")
    assert again.config == model.config
    np.testing.assert_array_equal(again.extract(panel).factor_returns, state.factor_returns)
    # a continuation finds the months in the stored history
    np.testing.assert_allclose(
        model.extract(panel.extend(2).between(180, 182)).factor_returns,
        model.extract(panel.extend(2)).factor_returns[180:],
        atol=1e-10,
    )


def test_conditional_means_and_completion_agree_through_a_break():
    panel, _, _ = pandemic(seed=7)
    model, _ = fitted(panel, variance_break=PANDEMIC, max_iterations=60)
    hidden = panel.mask((panel.index.period_codes >= 150) & (panel.asset_codes < 3))
    cells = [("s00", panel.times[150]), ("s02", panel.times[152]), ("s01", panel.times[160])]
    law = model.conditional(hidden, cells)
    filled = hidden.with_values(model.expected_values(hidden)).wide()
    np.testing.assert_allclose(law.mean, [filled[150, 0], filled[152, 2], filled[160, 1]], atol=1e-8)
    # wider in a broken month than in a usual one
    assert law.covariance[0, 0] > 4.0 * law.covariance[2, 2]
    np.testing.assert_allclose(
        law.weights @ np.where(hidden.observed, hidden.values, 0.0)
        - law.weights @ np.where(hidden.observed, model.estimates.location[hidden.asset_codes], 0.0)
        + model.estimates.location[[0, 2, 1]],
        law.mean,
        atol=1e-8,
    )


def test_what_a_variance_break_refuses_and_what_it_says():
    for periods in ("2020-04", (), 3):
        with pytest.raises(ConfigurationError, match="periods of a variance break"):
            VarianceBreak(periods=periods)
    with pytest.raises(ConfigurationError, match="variance_break must be"):
        DFMConfig(n_factors=1, variance_break=("2020-04",))
    panel, _, _ = pandemic()
    with pytest.raises(ConfigurationError, match="masked and in the variance break"):
        fitted(panel, variance_break=PANDEMIC, masked=("2020-05-31",))
    with pytest.raises(ConfigurationError, match="first of the panel"):
        fitted(panel, variance_break=VarianceBreak(periods=(panel.times[0],)))
    with pytest.raises(ConfigurationError, match="period of a variance break '1990-01'"):
        fitted(panel, variance_break=VarianceBreak(periods=("1990-01",)))
    hardly = panel.mask((panel.index.period_codes == 151) & (panel.asset_codes > 3))
    model, summary = fitted(
        hardly, variance_break=VarianceBreak(periods=("2020-05", "2050-01")), max_iterations=6
    )
    assert model.estimates.broken.size == 0
    for words in ("2020-05-31 has 4 values", "not in the panel yet: 2050-01"):
        assert any(words in each for each in summary.warnings)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_do_not_matter_and_come_back(unit):
    panel, _, _ = mixed("mariano_murasawa", T=120)
    model, summary = fitted(panel, max_iterations=60)
    scaled = panel.with_values(panel.values * unit)
    other, again = fitted(scaled, max_iterations=60)
    np.testing.assert_allclose(other.estimates.loadings, model.estimates.loadings, rtol=1e-6, atol=1e-8)
    assert again.loglikelihood == pytest.approx(summary.loglikelihood, rel=1e-9)
    for horizon in (0, 2):
        means, variances = model.extract(panel).native.values(horizon)
        scaled_means, scaled_variances = other.extract(scaled).native.values(horizon)
        np.testing.assert_allclose(scaled_means, unit * means, rtol=1e-6, atol=1e-7 * unit)
        np.testing.assert_allclose(scaled_variances, unit**2 * variances, rtol=1e-5, atol=1e-8 * unit**2)


def test_intervals_of_one_step_forecasts_cover():
    """The truth's own process: standardised errors have variance one."""
    truth = dynamic_factor_panel(300, 20, 2, rho=0.8, missing=0.2, seed=5)
    model, _ = fitted(truth.panel, tolerance=1e-4)
    means, variances = model.extract(truth.panel).native.values(1)
    z = (truth.panel.values - means) / np.sqrt(variances)
    z = z[np.isfinite(z)]
    assert np.mean(z**2) == pytest.approx(1.0, abs=0.06)
    assert np.mean(np.abs(z) < 1.645) == pytest.approx(0.9, abs=0.02)


def test_extract_is_one_sided_and_smooth_is_better():
    f, values = draw(seed=6)
    panel = panel_of(values)
    model, _ = fitted(panel)
    short = model.extract(panel.between(0, 120)).factor_returns
    np.testing.assert_allclose(model.extract(panel).factor_returns[:120], short, atol=1e-10)
    filtered, smoothed = model.extract(panel).factor_returns, model.smooth(panel).factor_returns
    assert explained(smoothed, f).mean() >= explained(filtered, f).mean()
    np.testing.assert_allclose(filtered[-1], smoothed[-1], atol=1e-10)


def test_save_and_load_is_exact(tmp_path):
    panel, _, _ = mixed("mean", T=120)
    model, _ = fitted(panel, max_iterations=30)
    model.save(tmp_path / "dfm.lf")
    again = DynamicFactorModel.load(tmp_path / "dfm.lf")
    one, other = model.extract(panel).native, again.extract(panel).native
    assert again.config == model.config
    for horizon in (0, 1):
        for got, want in zip(other.values(horizon), one.values(horizon), strict=True):
            np.testing.assert_array_equal(got, want)


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_factors": 0}, "n_factors"),
        ({"n_factors": 1, "factor_lags": 0}, "factor_lags"),
        ({"n_factors": 1, "idiosyncratic": "ma1"}, "idiosyncratic"),
        ({"n_factors": 1, "tolerance": 0.0}, "tolerance"),
        ({"n_factors": 1, "blocks": ("real",)}, "Block objects"),
        ({"n_factors": 1, "masked": "2020-04"}, "tuple of periods"),
        (
            {"n_factors": 1, "blocks": (Block(name="a", series=(1, 2)), Block(name="a", series=(3, 4)))},
            "names",
        ),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        DFMConfig(**options)


@pytest.mark.parametrize("series", ["abc", ("a",), ("a", "a")])
def test_bad_blocks_are_refused(series):
    with pytest.raises(ConfigurationError, match="block"):
        Block(name="real", series=series)


def test_series_that_say_nothing_are_left_out_and_named():
    _, values = draw()
    values[:, 3] = np.nan
    values[:, 5] = 2.0
    values[:176, 7] = np.nan
    panel = panel_of(values)
    model, summary = fitted(panel)
    (remark,) = [each for each in summary.warnings if "left out" in each]
    assert all(name in remark for name in ("3 series", "s03", "s05", "s07"))
    assert model.estimates.series.size == 9
    means, _ = model.extract(panel).native.values(1)
    unknown = np.isnan(means.reshape(panel.n_periods, -1))
    assert unknown[:, [3, 5, 7]].all()
    assert unknown.sum() == 3 * panel.n_periods


def test_too_many_factors_or_too_few_periods():
    _, values = draw(n=4)
    with pytest.raises(InsufficientDataError, match="5 factors"):
        fitted(panel_of(values), 5)
    with pytest.raises(InsufficientDataError, match="periods"):
        fitted(panel_of(values[:7]), 2)


def test_unknown_block_members_are_named():
    _, values = draw()
    with pytest.raises(PanelMismatchError, match="s99"):
        fitted(panel_of(values), 1, blocks=(Block(name="x", series=("s00", "s99")),))


def test_a_changed_set_of_series():
    """Dropped series are missing; new ones are counted and have no forecast; none known is an error."""
    _, values = draw(seed=7)
    model, _ = fitted(panel_of(values))
    assets = [f"s{j:02d}" for j in range(12)]
    fewer = panel_of(values[:, 2:], assets=assets[2:])
    hidden = values.copy()
    hidden[:, :2] = np.nan
    np.testing.assert_allclose(
        model.extract(fewer).factor_returns[-1], model.extract(panel_of(hidden)).factor_returns[-1], atol=1e-9
    )
    more = panel_of(np.column_stack([values, values[:, 0]]), assets=[*assets, "new"])
    state = model.extract(more)
    assert state.metadata["n_assets_without_loadings"] == 1
    assert np.isnan(state.native.values(1)[0].reshape(180, -1)[:, 12]).all()
    with pytest.raises(UnknownAssetsError, match="x0"):
        model.extract(panel_of(values, assets=[f"x{j}" for j in range(12)]))


def test_wrong_frequency_labels():
    panel, _, _ = mixed("mean")
    wide = panel.wide()
    shifted = np.roll(wide, 1, axis=0)
    with pytest.raises(PanelMismatchError, match="last month"):
        fitted(panel_of(shifted, series=panel.series))
    weekly = SeriesInfo(frequency=("M",) * 13 + ("W",))
    with pytest.raises(ConfigurationError, match="'W'"):
        fitted(panel_of(wide, series=weekly))


def test_before_fit_and_backwards():
    _, values = draw(T=60)
    panel = panel_of(values)
    with pytest.raises(NotFittedError):
        DynamicFactorModel(DFMConfig(n_factors=1)).extract(panel)
    model, summary = fitted(panel, 1, max_iterations=3)
    assert not summary.converged
    assert any("not converged" in each for each in summary.warnings)
    with pytest.raises(HorizonError, match=">= 0"):
        model.extract(panel).native.values(-1)


def test_an_empty_period_and_an_empty_panel_of_periods():
    _, values = draw(seed=8)
    values[90] = np.nan
    values[:3] = np.nan
    model, _ = fitted(panel_of(values))
    factors = model.smooth(panel_of(values)).factor_returns
    assert np.isfinite(factors).all()
    live = panel_of(values).extend(4)
    means, variances = model.extract(live).native.values(1)
    assert np.isfinite(means).all()
    assert (variances.reshape(184, -1)[-1] > variances.reshape(184, -1)[-4]).all()
