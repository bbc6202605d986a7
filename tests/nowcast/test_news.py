"""News: the parts sum to the revision, and each is what a dense Gaussian says it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    VAR,
    DFMConfig,
    DynamicFactorModel,
    Panel,
    PTFAConfig,
    PTFAModel,
    ReleaseCalendar,
    SeriesInfo,
)
from latentfactors.errors import ConfigurationError, MissingCapabilityError, PanelMismatchError
from latentfactors.nowcast import nowcast, nowcast_news
from latentfactors.nowcast.pairs import pair_vintages
from tests.oracles.dense_dfm import dense_covariance

MM = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 3.0
NAMES = ("gdp", *(f"m{k}" for k in range(7)))


def economy(n_periods=96, seed=0, n=8):
    """A monthly factor, seven monthly series and the quarterly growth of an eighth."""
    rng = np.random.default_rng(seed)
    f, e = np.zeros(n_periods), np.zeros((n_periods, n))
    for t in range(1, n_periods):
        f[t] = 0.8 * f[t - 1] + rng.normal()
        e[t] = 0.4 * e[t - 1] + rng.normal(size=n)
    loadings = rng.uniform(0.5, 1.5, size=n)
    monthly = 2.0 + 3.0 * (f[:, None] * loadings + e)
    values = monthly.copy()
    values[:, 0] = np.nan
    for t in range(5, n_periods, 3):
        values[t, 0] = MM @ monthly[t - np.arange(5), 0]
    times = np.arange(np.datetime64("2000-02"), np.datetime64("2000-02") + n_periods).astype("datetime64[D]")
    return values, times - np.timedelta64(1, "D")


def panel_of(values, times, names=NAMES):
    quarterly = [name == "gdp" for name in names]
    info = SeriesInfo(
        frequency=tuple("Q" if q else "M" for q in quarterly),
        aggregation=tuple("mariano_murasawa" if q else "mean" for q in quarterly),
        group=tuple("output" if q else f"group {k % 3}" for k, q in enumerate(quarterly)),
    )
    return Panel.from_wide(
        values,
        universe="all",
        times=times,
        assets=list(names),
        frequency="M",
        value_kind="series",
        series=info,
    )


def vintages(seed=0, *, revisions=True, withdrawals=True):
    """An old vintage and one two months later, with releases at the edge, revisions and withdrawn cells."""
    values, times = economy(seed=seed)
    rng = np.random.default_rng(seed + 100)
    old, new = values[:-2].copy(), values.copy()
    for k in range(1, 8):
        old[len(old) - k % 3 :, k] = np.nan
        new[len(new) - (k + 1) % 3 :, k] = np.nan
    old[90:, 0] = np.nan  # the third quarter of the last year is still to come
    if revisions:
        for t, k in rng.integers(0, [88, 8], size=(25, 2)):
            new[t, k] += 0.3 * rng.normal()
    if withdrawals:
        new[[20, 50], [2, 3]] = np.nan
    return panel_of(old, times[: len(old)]), panel_of(new, times)


def fit(panel, idiosyncratic="ar1", **options):
    model = DynamicFactorModel(
        DFMConfig(n_factors=1, idiosyncratic=idiosyncratic, tolerance=1e-3, max_iterations=60, **options)
    )
    model.fit(panel)
    return model


@pytest.fixture(scope="module")
def fitted():
    old, new = vintages()
    return fit(old), fit(new), old, new


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("period", ["2007-09-30", "2007-12-31", "2008-03-31"])
def test_contributions_sum_to_the_revision_on_random_vintages(fitted, seed, period):
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
        assert abs(sum(found.by("series").values()) - found.revision) < 1e-10
        assert abs(sum(found.by("group").values()) - found.revision) < 1e-10


@pytest.fixture(scope="module")
def targeted():
    """PTFA with factor dynamics, fitted to the old and to the new vintage."""
    models = []
    for panel in vintages():
        model = PTFAModel(
            PTFAConfig(n_factors=1, targets=("gdp",), dynamics=VAR(1), tolerance=1e-3, max_iterations=60)
        )
        model.fit(panel)
        models.append(model)
    return models


@pytest.mark.parametrize("seed", range(3))
def test_contributions_sum_to_the_revision_for_targeted_factors_with_dynamics(targeted, seed):
    old, new = vintages(seed)
    for models in ((targeted[0], targeted[0]), targeted):
        for period in ("2007-09-30", "2008-03-31"):
            found = nowcast_news(*models, old, new, "gdp", period)
            assert found.exact
            assert abs(found.contribution.sum() - found.revision) < 1e-10
            assert {"revision", "release", "withdrawal"} <= set(found.kind)
            direct = [
                nowcast(model, panel, "gdp", periods=[period]).mean[0]
                for model, panel in zip(models, (old, new), strict=True)
            ]
            np.testing.assert_allclose([found.old, found.new], direct, rtol=0, atol=1e-10)
    # releases move it: the last months of the quarter say something about it
    assert np.abs(found.contribution[found.kind == "release"]).max() > 1e-3


def test_new_series_join_and_dropped_series_are_reported():
    old, new = vintages(3)
    kept = [name for name in NAMES if name != "m6"]
    before = old.select(kept)
    after = new.select([name for name in NAMES if name != "m1"])
    found = nowcast_news(fit(before), fit(after), before, after, "gdp", "2007-12-31")
    assert abs(found.contribution.sum() - found.revision) < 1e-10
    assert set(found.kind[found.series == "m6"]) == {"new series"}
    assert "dropped series" not in found.kind[found.series == "m6"]
    assert "new series: m6" in found.remarks
    assert "dropped series: m1" in found.remarks
    # a model that never saw a series lets it enter no line, and says so
    same = fit(before)
    silent = nowcast_news(same, same, before, after, "gdp", "2007-12-31")
    assert "m6" not in silent.series
    assert any("does not know m6" in remark for remark in silent.remarks)
    assert "dropped series" in silent.kind
    assert abs(silent.contribution.sum() - silent.revision) < 1e-10


def dense_mean(model, panel, cell):
    """The target's mean by one regression on all observed cells."""
    found = model.estimates
    columns = [panel.assets.tolist().index(name) for name in found.series.tolist()]
    values = (panel.wide()[:, columns] - found.location) / found.scale
    seen = [tuple(each) for each in np.argwhere(np.isfinite(values))]
    covariance = dense_covariance([*seen, cell], len(values), found.parameters, weights=found.weights, lead=4)
    gain = np.linalg.solve(covariance[:-1, :-1], covariance[:-1, -1])
    mean = gain @ np.array([values[each] for each in seen])
    variance = covariance[-1, -1] - gain @ covariance[:-1, -1]
    j = cell[1]
    return found.location[j] + found.scale[j] * mean, found.scale[j] ** 2 * variance


@pytest.mark.parametrize("idiosyncratic", ["iid", "ar1"])
def test_the_last_month_of_a_quarter_moves_the_nowcast_as_conditioning_says(idiosyncratic):
    """The quarter-end trap: a nowcast read off the state of the month before stands still."""
    values, times = economy(n_periods=30, seed=5)
    full = panel_of(values, times)
    model = fit(full, idiosyncratic)
    quarter = 29  # the last month of the last quarter
    assert times[quarter].astype(object).month % 3 == 0
    before = full.mask(full.index.period_codes >= quarter)
    without_gdp = full.mask((full.index.period_codes == quarter) & (full.asset_codes == 0))
    column = model.estimates.series.tolist().index("gdp")
    found = []
    for panel in (before, without_gdp):
        got = nowcast(model, panel, "gdp", periods=[times[quarter]])
        mean, variance = dense_mean(model, panel, (quarter, column))
        assert got.mean[0] == pytest.approx(mean, abs=1e-9)
        assert got.covariance[0, 0] == pytest.approx(variance, rel=1e-8)
        found.append(got)
    moved = found[1].mean[0] - found[0].mean[0]
    assert abs(moved) > 0.01 * found[0].standard_deviation[0]
    assert found[1].standard_deviation[0] < found[0].standard_deviation[0]
    split = nowcast_news(model, model, before, without_gdp, "gdp", times[quarter])
    assert set(split.kind) == {"release"}
    assert split.contribution.sum() == pytest.approx(moved, abs=1e-10)


def test_weight_times_news_is_the_dense_regression_on_surprises():
    old, new = (each.between(60, each.n_periods) for each in vintages(1, revisions=False, withdrawals=False))
    model = fit(old)
    found = nowcast_news(model, model, old, new, "gdp", "2007-12-31")
    pair = pair_vintages(old, new, np.datetime64("2007-12-31"))
    columns = [pair.series.tolist().index(name) for name in model.estimates.series.tolist()]
    inverse = np.argsort(columns)
    scaled = (pair.old[:, columns] - model.estimates.location) / model.estimates.scale
    seen = [tuple(each) for each in np.argwhere(np.isfinite(scaled))]
    released = [(t, int(inverse[k])) for t, k in pair.released]
    cell = (int(np.searchsorted(pair.times, np.datetime64("2007-12-31"))), int(inverse[0]))
    S = dense_covariance(
        [*seen, *released, cell],
        len(scaled),
        model.estimates.parameters,
        weights=model.estimates.weights,
        lead=4,
    )
    m, k = len(seen), len(released)
    gain = np.linalg.solve(S[:m, :m], S[:m, m:]).T
    residual = S[m:, m:] - gain @ S[:m, m:]
    weights = np.linalg.solve(residual[:k, :k], residual[:k, k])
    actual = (pair.new[:, columns] - model.estimates.location) / model.estimates.scale
    surprise = np.array([actual[c] for c in released]) - gain[:k] @ np.array([scaled[c] for c in seen])
    expected = model.estimates.scale[inverse[0]] * weights * surprise
    np.testing.assert_allclose(found.contribution, expected, atol=1e-9)


class WithoutWeights:
    """A linear model's laws, without its weights: what a nonlinear model offers."""

    def __init__(self, model):
        self.model = model

    def fit(self, panel):
        return self.model.fit(panel)

    def conditional(self, panel, cells):
        return replace(self.model.conditional(panel, cells), weights=None)

    def expected_values(self, panel):
        return self.model.expected_values(panel)


def test_a_nonlinear_mean_is_telescoped_and_says_so(fitted):
    old, new = vintages(2)
    model = WithoutWeights(fitted[0])
    found = nowcast_news(model, model, old, new, "gdp", "2007-12-31")
    assert not found.exact
    assert "telescoped" in repr(found)
    assert np.isnan(found.weight).all()
    assert abs(found.contribution.sum() - found.revision) < 1e-10
    linear = nowcast_news(fitted[0], fitted[0], old, new, "gdp", "2007-12-31")
    # the same cells under the same names, and together the same change
    assert sorted(zip(found.kind, found.series, found.cell_period, strict=True)) == sorted(
        zip(linear.kind, linear.series, linear.cell_period, strict=True)
    )
    assert found.revision == pytest.approx(linear.revision, abs=1e-12)
    for kind, part in linear.by("kind").items():
        assert found.by("kind")[kind] == pytest.approx(part, abs=1e-10)


def test_a_telescope_lets_releases_enter_by_their_dates(fitted):
    """Every line is the step between two laws, and the steps go by the calendar."""
    old, new = vintages(1, revisions=False, withdrawals=False)
    model = WithoutWeights(fitted[0])
    lags = {name: 5 * (8 - k) for k, name in enumerate(NAMES)}  # the last series comes out first
    calendar = ReleaseCalendar(lags=lags, frequency={n: "Q" if n == "gdp" else "M" for n in NAMES})
    found = nowcast_news(model, model, old, new, "gdp", "2007-12-31", calendar=calendar)
    days = [
        calendar.release_date(series, period)
        for series, period in zip(found.series, found.cell_period, strict=True)
    ]
    assert days == sorted(days)
    assert len(set(days)) > 5
    # the third line by hand: its own cell joins those of the first two
    pair = pair_vintages(old, new, np.datetime64("2007-12-31"))
    current, means = pair.old.copy(), []
    for k in range(4):
        means.append(model.conditional(pair.panel(current), [("gdp", "2007-12-31")]).mean[0])
        place = (
            int(np.searchsorted(pair.times, np.datetime64(found.cell_period[k]))),
            pair.series.tolist().index(found.series[k]),
        )
        expected = pair.spread(model.expected_values(pair.panel(current)))[place]
        assert found.expected[k] == pytest.approx(expected, abs=1e-12)
        current[place] = pair.new[place]
    np.testing.assert_allclose(found.contribution[:3], np.diff(means), atol=1e-12)
    # the panel's own lags serve where no calendar is given, and the order matters to the lines
    info = replace(new.series, publication_lag=tuple(lags[name] for name in NAMES))
    own = nowcast_news(
        model, model, replace(old, series=info), replace(new, series=info), "gdp", "2007-12-31"
    )
    np.testing.assert_array_equal(own.series, found.series)
    plain = nowcast_news(model, model, old, new, "gdp", "2007-12-31")
    assert plain.series.tolist() != found.series.tolist()
    assert plain.revision == pytest.approx(found.revision, abs=1e-12)
    by_series, other = found.by("series"), plain.by("series")
    assert max(abs(by_series[name] - other[name]) for name in by_series) > 1e-6


def test_bad_vintages_are_refused(fitted):
    model, _, old, new = fitted
    with pytest.raises(ConfigurationError, match="older than the old one"):
        nowcast_news(model, model, old, new, "gdp", "2007-12-31", dates=("2008-01-31", "2007-12-31"))
    with pytest.raises(PanelMismatchError, match="no series 'gnp'"):
        nowcast_news(model, model, old, new, "gnp", "2007-12-31")
    with pytest.raises(PanelMismatchError, match="transforms"):
        nowcast_news(model, model, old, replace(new, transforms=("logs",)), "gdp", "2007-12-31")
    relabelled = replace(new, series=replace(new.series, aggregation=("mean",) * 8))
    with pytest.raises(PanelMismatchError, match="label it alike"):
        nowcast_news(model, model, old, relabelled, "gdp", "2007-12-31")
    with pytest.raises(MissingCapabilityError, match="no law"):
        nowcast_news(object(), model, old, new, "gdp", "2007-12-31")
    with pytest.raises(ConfigurationError, match="key must be"):
        nowcast_news(model, model, old, new, "gdp", "2007-12-31").by("colour")
