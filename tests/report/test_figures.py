"""What a figure shows is what an independent computation finds."""

import numpy as np
import pytest

from latentfactors import (
    BetaLambdaMapper,
    ExpandingMeanFactorForecaster,
    ExpandingWindow,
    HistoricalMeanPredictor,
    LatentFactorForecastPipeline,
    Panel,
    PCAConfig,
    PCAModel,
    ZeroPredictor,
    walk_forward,
)
from latentfactors.errors import InsufficientDataError, MissingCapabilityError
from latentfactors.evaluate import price_assets, sort_portfolios, tangency_path
from latentfactors.report import data, figures, pricing, pricing_figures
from latentfactors.simulate import static_panel


@pytest.fixture(scope="module")
def results():
    """Three predictors on an unbalanced panel, 5 refits each."""
    panel = static_panel(n_periods=84, n_assets=30, n_factors=2, seed=3).panel
    hidden = np.random.default_rng(1).random(panel.n_rows) < 0.1
    panel = panel.mask(hidden)
    pipeline = LatentFactorForecastPipeline(
        model=PCAModel(PCAConfig(n_factors=2)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )
    predictors = {"PCA <b>&": pipeline, "mean": HistoricalMeanPredictor(), "zero": ZeroPredictor()}
    return {
        name: walk_forward(each, panel, ExpandingWindow(first=24, step=12))
        for name, each in predictors.items()
    }


@pytest.fixture(scope="module")
def pca(results):
    return results["PCA <b>&"]


def test_coverage():
    values = np.array([[0.1, np.nan, 0.2], [0.1, 0.3, 0.2]])
    panel = Panel.from_arrays(values, np.ones((2, 3, 1)))
    universe, seen, missing = figures.coverage_figure(panel).data
    assert list(universe.y) == [3, 3]
    assert list(seen.y) == [2, 3]
    np.testing.assert_allclose(missing.y, [100 / 3, 0])
    assert len(figures.coverage_figure(panel.extend(2)).data[0].y) == 2  # a live period lacks nothing


def test_errors_end_at_the_r2_against_the_mean(results):
    figure = figures.errors_figure(results)
    lines = {each.name: each for each in figure.data}
    assert list(lines) == ["PCA &lt;b&gt;&amp;", "mean", "zero"]
    record = results["zero"].record
    r, m = record.realised, record.historical_mean
    cells = np.isfinite(r) & np.isfinite(m)
    for each in results.values():
        cells &= np.isfinite(each.record.forecast)
    for name, result in results.items():
        f = result.record.forecast
        expected = 1 - np.sum((r - f)[cells] ** 2) / np.sum((r - m)[cells] ** 2)
        line = lines[figures.html.escape(name)]
        assert line.y[-1] == pytest.approx(100 * expected, abs=1e-10)
        half = cells & (record.target_times <= record.target_times[len(r) // 2])
        shown = np.asarray(line.x) == str(record.target_times[len(r) // 2])
        saved = np.sum((r - m)[half] ** 2 - (r - f)[half] ** 2) / np.sum((r - m)[cells] ** 2)
        assert np.asarray(line.y)[shown][0] == pytest.approx(100 * saved, abs=1e-10)
    np.testing.assert_allclose(lines["mean"].y, 0, atol=1e-12)


def test_calibration(pca):
    record = pca.record
    line = figures.calibration_figure(pca, n_bins=4).data[1]
    known = np.isfinite(record.forecast) & np.isfinite(record.realised)
    f, r, t = record.forecast[known], record.realised[known], record.target_times[known]
    edges = np.quantile(f, [0.25, 0.5, 0.75])
    for b in range(4):
        low, high = ([-np.inf, *edges][b], [*edges, np.inf][b])
        here = (f > low) & (f <= high)
        assert line.customdata[b] == here.sum()
        assert line.x[b] == pytest.approx(100 * f[here].mean())
        assert line.y[b] == pytest.approx(100 * r[here].mean())
        away = r[here] - r[here].mean()
        error = np.sqrt(sum(away[t[here] == each].sum() ** 2 for each in np.unique(t))) / here.sum()
        assert line.error_y.array[b] == pytest.approx(196 * error)
    plain = figures.calibration_figure(record, n_bins=4, percent=False).data[1]
    np.testing.assert_allclose(np.asarray(line.x), 100 * np.asarray(plain.x))


def test_forecasts_that_are_alike_have_no_bins(results):
    with pytest.raises(InsufficientDataError, match="all alike"):
        figures.calibration_figure(results["zero"])


def test_factors_and_their_range(results, pca):
    figure = figures.factors_figure(pca)
    paths = pca.factor_paths()
    assert len(figure.data) == 3 * 2
    for k in range(2):
        low, high, latest = figure.data[3 * k : 3 * k + 3]
        np.testing.assert_array_equal(latest.y, paths[-1].values[:, k])
        time = str(paths[0].times[5])
        seen = [path.values[list(path.times.astype(str)).index(time), k] for path in paths]
        at = list(latest.x).index(time)
        assert (low.y[at], high.y[at]) == (min(seen), max(seen))
    with pytest.raises(MissingCapabilityError, match="no factors"):
        figures.factors_figure(results["mean"])


def test_loadings_follow_the_aligned_factors(pca):
    pipeline = LatentFactorForecastPipeline(
        model=PCAModel(PCAConfig(n_factors=2)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )
    predictors = {"PCA": pipeline, "mean": HistoricalMeanPredictor()}
    exposures = data.last_exposures(predictors, {"PCA": pca, "mean": pca})
    assert list(exposures) == ["PCA"]
    found = exposures["PCA"]
    training, test = pca.splits[-1].panels(pca.panel)
    model = PCAModel(PCAConfig(n_factors=2))
    model.fit(training)
    # Whatever order and signs: loadings times factors stay what they were.
    np.testing.assert_allclose(
        pca.factor_paths()[-1].values @ found.values.T,
        model.extract(test).factors.values @ model.estimates.loadings.T,
        atol=1e-12,
    )
    heat = figures.loadings_figure(found).data[0]
    np.testing.assert_array_equal(heat.z, found.values)
    assert heat.zmax == -heat.zmin == np.abs(found.values).max()


def test_many_loadings_are_cut_to_the_largest():
    values = np.arange(200.0).reshape(100, 2)
    found = data.Exposures(
        values=values, labels=tuple(f"a{i}" for i in range(100)), factor_names=("F1", "F2"), kind="assets",
        when="2020-01-31",
    )  # fmt: skip
    figure = figures.loadings_figure(found)
    np.testing.assert_array_equal(figure.data[0].z, values[40:])
    assert "60 largest of 100" in figure.layout.title.text


def test_fits(pca):
    (line,) = figures.fits_figure({"PCA": pca}).data
    np.testing.assert_allclose(line.y, [1000 * block.fit_seconds for block in pca.blocks])
    assert list(line.x) == [str(pca.panel.times[24 + 12 * i]) for i in range(5)]
    assert set(line.marker.symbol) == {"circle"}


def test_long_short(pca):
    found = sort_portfolios(pca, n_quantiles=5)
    figure = figures.long_short_figure({"PCA": found}, order=["other", "PCA"])
    (line,) = figure.data
    record, total = pca.record, 0.0
    for p in range(len(record.offsets) - 1):
        rows = slice(record.offsets[p], record.offsets[p + 1])
        f, r = record.forecast[rows], record.realised[rows]
        seen = np.isfinite(f)
        low, high = np.quantile(f[seen], [0.2, 0.8])
        total += np.nanmean(r[seen & (f > high)]) - np.nanmean(r[seen & (f <= low)])
    assert line.y[-1] == pytest.approx(100 * total)
    assert line.line.color == figures.PALETTE[1]


def test_what_is_kept_is_exact(results):
    kept = data.collect(results, {})
    back = data.RunData.from_bytes(kept.to_bytes())
    np.testing.assert_array_equal(back.realised, results["zero"].record.realised)
    np.testing.assert_array_equal(back.offsets, results["zero"].record.offsets)
    assert kept.to_bytes() == back.to_bytes()
    again = figures.factors_figure(back.bands["PCA <b>&"])
    assert again.to_json() == figures.factors_figure(results["PCA <b>&"]).to_json()
    # The realised values alone give the sorts of the whole panel.
    one = sort_portfolios(results["mean"], n_quantiles=3)
    other = sort_portfolios(results["mean"].record, back.panel(), n_quantiles=3)
    np.testing.assert_array_equal(one.returns, other.returns)


# ------------------------------------------------------------------------- pricing


def test_alphas_are_sorted_shares():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=80)
    returns = rng.normal(size=(80, 4)) + np.array([0.0, 0.0, 0.0, 1.0])
    returns[:, 1] = np.nan
    found = price_assets(returns, factor)
    (line,) = pricing_figures.alphas_figure({"<one>": found}).data
    np.testing.assert_array_equal(line.y, np.sort(found.t_statistics[[0, 2, 3]]))
    np.testing.assert_allclose(line.x, [100 / 6, 50, 500 / 6])
    assert line.name == "&lt;one&gt;"


def test_tangency_adds_up(pca):
    path = tangency_path(pca)
    (line,) = pricing_figures.tangency_figure({"PCA": path}).data
    np.testing.assert_allclose(line.y[-1], np.nansum(path.returns))
    assert len(line.x) == path.times.size == 60


def test_correlations_are_those_of_numpy(pca):
    band = data.factor_band(pca.factor_paths())
    rng = np.random.default_rng(2)
    observed = rng.normal(size=(84, 3)) + np.nan_to_num(band.values[:, :1])
    observed[5, 1] = np.nan
    times = pca.panel.times
    found = pricing.factor_correlations(band, times, observed, ("a", "b", "c<"))
    rows = np.isfinite(observed).all(axis=1) & np.isfinite(band.values).all(axis=1)
    expected = np.corrcoef(band.values[rows].T, observed[rows].T)[:2, 2:]
    np.testing.assert_allclose(found.values, expected, rtol=1e-10)
    assert found.n_periods == rows.sum()
    (heat,) = pricing_figures.correlations_figure(found).data
    assert list(heat.x) == ["a", "b", "c&lt;"]
    assert heat.text[0][0] == f"{expected[0, 0]:.2f}"
