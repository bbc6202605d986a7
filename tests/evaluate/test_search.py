"""Hyper-parameter search: the better candidate wins, on the past alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    AutoregressivePredictor,
    ExpandingWindow,
    HistoricalMeanPredictor,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NativeMapper,
    Panel,
    PCAConfig,
    PCAModel,
    ZeroPredictor,
    walk_forward,
)
from latentfactors.errors import ConfigurationError, InsufficientDataError, LatentFactorsError, NotFittedError
from latentfactors.evaluate import SelectedPredictor, SelectionConfig, audit, config_grid, search
from latentfactors.models.dfm import DFMConfig, DynamicFactorModel
from latentfactors.simulate import dynamic_factor_panel

CANDIDATES = {
    "zero": ZeroPredictor(),
    "mean": HistoricalMeanPredictor(),
    "AR": AutoregressivePredictor(lags=1),
}


def series(values, first="2000-01"):
    """A monthly panel of values (T, N)."""
    months = np.arange(np.datetime64(first), np.datetime64(first) + len(values) + 1)
    times = months[1:].astype("datetime64[D]") - np.timedelta64(1, "D")
    names = [f"y{k}" for k in range(values.shape[1])]
    return Panel.from_wide(
        values, universe="all", times=times, assets=names, frequency="M", value_kind="series"
    )


def autoregressive(phi, n_periods=120, n_series=4, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n_periods, n_series))
    for t in range(1, n_periods):
        y[t] += phi * y[t - 1]
    return mean + y


def test_the_loss_is_the_scaled_error_of_expanding_windows_by_hand():
    values = autoregressive(0.5, 60) * [1.0, 10.0, 0.1, 3.0]
    values[45, 2] = np.nan
    found = search({"mean": CANDIDATES["mean"]}, series(values), ExpandingWindow(first=40, step=10))
    errors = []
    for t in range(40, 60):
        for i in range(4):
            # the mean of everything up to the month before, whatever the step between fits
            forecast = np.nanmean(values[:t, i])
            errors.append((values[t, i] - forecast) ** 2 / np.var(values[:40, i]))
    assert found.n_forecasts == 79
    assert found.loss[0] == pytest.approx(np.nanmean(errors), rel=1e-12)
    plain = search(
        {"mean": CANDIDATES["mean"]}, series(values), ExpandingWindow(first=40, step=10),
        targets=["y1"], standardise=False,
    )  # fmt: skip
    by_hand = [(values[t, 1] - values[:t, 1].mean()) ** 2 for t in range(40, 60)]
    assert plain.loss[0] == pytest.approx(np.mean(by_hand), rel=1e-12)
    assert plain.n_forecasts == 20


@pytest.mark.parametrize(
    ("values", "winner"),
    [
        (autoregressive(0.9, mean=0.0), "AR"),
        (autoregressive(0.0, mean=3.0), "mean"),
        (autoregressive(0.0, mean=0.0, seed=4), "zero"),
    ],
)
def test_the_candidate_that_fits_the_process_is_chosen(values, winner):
    panel, splits = series(values), ExpandingWindow(first=60, step=20)
    found = search(CANDIDATES, panel, splits)
    assert found.chosen == winner
    assert found.loss.argmin() == list(CANDIDATES).index(winner)
    assert found.standard_error[found.loss.argmin()] == 0
    # what it says is what a walk-forward of its own says
    result = walk_forward(CANDIDATES[winner], panel, splits)
    errors = (result.record.realised - result.record.forecast) ** 2
    scale = values[:60].var(axis=0)[result.record.asset_codes]
    assert found.loss.min() == pytest.approx(np.mean(errors / scale))
    frame = found.frame()
    assert frame.filter(frame["chosen"])["name"].to_list() == [winner]


def test_the_number_of_factors_of_a_model_is_found():
    panel = dynamic_factor_panel(160, 12, 2, rho=0.9, alpha=0.0, u=0.05, seed=2).panel
    configs = config_grid(DFMConfig(n_factors=1, idiosyncratic="iid", tolerance=1e-2), {"n_factors": (1, 2)})
    candidates = {
        name: LatentFactorForecastPipeline(
            model=DynamicFactorModel(config), forecaster=NativeFactorForecaster(), mapper=NativeMapper()
        )
        for name, config in configs.items()
    }
    found = search(candidates, panel, ExpandingWindow(first=100, step=60))
    assert found.chosen == "n_factors=2"
    assert found.loss[1] < 0.9 * found.loss[0]


def test_one_standard_error_prefers_the_plain_candidate():
    values = autoregressive(0.15, seed=3, mean=2.0)
    panel, splits = series(values), ExpandingWindow(first=60, step=20)
    best = search(CANDIDATES, panel, splits)
    careful = search(CANDIDATES, panel, splits, rule="one_standard_error")
    assert (best.chosen, careful.chosen) == ("AR", "mean")
    assert 0 < best.loss[1] - best.loss[2] <= best.standard_error[1]
    # the standard error by hand: period sums of the differences, taken as independent
    runs = {name: walk_forward(CANDIDATES[name], panel, splits).record for name in ("mean", "AR")}
    scale = values[:60].var(axis=0)[runs["AR"].asset_codes]
    errors = {name: (each.realised - each.forecast) ** 2 / scale for name, each in runs.items()}
    sums = (errors["mean"] - errors["AR"]).reshape(60, 4).sum(axis=1)
    assert best.standard_error[1] == pytest.approx(np.sqrt(60) * sums.std(ddof=1) / 240)


def test_a_search_that_ends_early_sees_nothing_later():
    values = autoregressive(0.5)
    panel, splits = series(values), ExpandingWindow(first=60, step=12)
    end = panel.times[95]
    found = search(CANDIDATES, panel, splits, end=end)
    later, earlier = values.copy(), values.copy()
    later[96:] = 50.0 - 7.0 * later[96:]
    earlier[95] += 1.0
    assert search(CANDIDATES, series(later), splits, end=end).loss.tobytes() == found.loss.tobytes()
    assert search(CANDIDATES, series(earlier), splits, end=end).loss.tobytes() != found.loss.tobytes()
    assert search(CANDIDATES, series(later), splits).loss.tobytes() != found.loss.tobytes()


def test_candidates_that_fail_are_left_out_and_say_why():
    panel, splits = series(autoregressive(0.5, 80)), ExpandingWindow(first=50, step=10)

    def pca(k):
        return LatentFactorForecastPipeline(
            model=PCAModel(PCAConfig(n_factors=k)), forecaster=NativeFactorForecaster(), mapper=NativeMapper()
        )

    found = search({"too many": pca(40), "mean": CANDIDATES["mean"]}, panel, splits)
    assert found.chosen == "mean"
    assert np.isnan(found.loss[0])
    assert "n_factors=40" in found.reasons[0]
    assert found.reasons[1] == ""
    with pytest.raises(LatentFactorsError, match="all 1 candidates failed"):
        search({"too many": pca(40)}, panel, splits)

    class Shy(HistoricalMeanPredictor):
        """Forecasts the first series only."""

        def _predict(self, panel, estimates, horizon):
            found = super()._predict(panel, estimates, horizon)
            forecast = found.asset_forecast
            values = np.where(panel.asset_codes == 0, forecast.expected_values, np.nan)
            return replace(found, asset_forecast=replace(forecast, expected_values=values))

    partial = search({"shy": Shy(), "mean": CANDIDATES["mean"]}, panel, splits)
    assert partial.chosen == "mean"
    assert partial.n_forecasts == 30 * 4
    assert "forecasts 25% of the cells" in partial.reasons[0]
    both = {"shy": Shy(), "mean": CANDIDATES["mean"]}
    assert search(both, panel, splits, targets=["y0"]).n_forecasts == 30


def test_finished_windows_are_found_again(tmp_path):
    panel, splits = series(autoregressive(0.5, 80)), ExpandingWindow(first=50, step=10)
    found = search(CANDIDATES, panel, splits, store=tmp_path)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 9
    again = search(CANDIDATES, panel, splits, store=tmp_path, n_jobs=2)
    assert sorted(tmp_path.iterdir()) == folders
    assert again.loss.tobytes() == found.loss.tobytes()


def test_what_cannot_be_searched_is_refused_in_words():
    panel, splits = series(autoregressive(0.5, 80)), ExpandingWindow(first=50, step=10)
    with pytest.raises(ConfigurationError, match="at least one"):
        search({}, panel, splits)
    with pytest.raises(ConfigurationError, match="put models into"):
        search({"pca": PCAModel(PCAConfig(n_factors=1))}, panel, splits)
    with pytest.raises(ConfigurationError, match="rule must be"):
        search(CANDIDATES, panel, splits, rule="median")
    with pytest.raises(ConfigurationError, match=r"write \('gdp',\)"):
        search(CANDIDATES, panel, splits, targets="y1")
    with pytest.raises(ConfigurationError, match="no target 'gdp'"):
        search(CANDIDATES, panel, splits, targets=["gdp"])
    late = panel.mask(panel.index.period_codes >= 50)
    with pytest.raises(InsufficientDataError, match="no realised cell"):
        search(CANDIDATES, late, splits)
    with pytest.raises(ConfigurationError, match="no field 'factors'"):
        config_grid(PCAConfig(n_factors=1), {"factors": (1, 2)})
    with pytest.raises(ConfigurationError, match="values to try"):
        config_grid(PCAConfig(n_factors=1), {"n_factors": ()})
    with pytest.raises(ConfigurationError, match="at least one field"):
        config_grid(PCAConfig(n_factors=1), {})


# -------------------------------------------------------------------------- the choice inside the fit

CHOICE = SelectionConfig(validation=30, step=15)


def test_selection_follows_the_process_through_a_walk_forward():
    """White noise around a mean for ten years, then a persistent process: the choice changes with it."""
    values = np.vstack([autoregressive(0.0, 120, seed=5, mean=1.0), autoregressive(0.95, 120, seed=6)])
    panel = series(values)
    result = walk_forward(SelectedPredictor(CANDIDATES, CHOICE), panel, ExpandingWindow(first=100, step=60))
    chosen = [summary.reason.split("'")[1] for summary in result.summaries]
    assert chosen[0] == "mean"
    assert chosen[-1] == "AR"
    # and the block is the chosen candidate's own
    alone = walk_forward(CANDIDATES["AR"], panel, ExpandingWindow(first=100, step=60))
    assert result.blocks[-1].expected_values.tobytes() == alone.blocks[-1].expected_values.tobytes()


def test_the_choice_never_sees_the_future():
    values = autoregressive(0.5, 110)
    splits = ExpandingWindow(first=70, step=10)

    def run(changed):
        result = walk_forward(SelectedPredictor(CANDIDATES, CHOICE), series(changed), splits)
        return [
            (summary.metrics["validation_loss"], block.expected_values.tobytes())
            for summary, block in zip(result.summaries, result.blocks, strict=True)
        ]

    found = run(values)
    later, last = values.copy(), values.copy()
    later[90:] = 9.0 - 4.0 * later[90:]
    last[89] += 1.0  # the last month that the third fit may use
    assert run(later)[:2] == found[:2]
    assert run(later)[2][0] == found[2][0]
    assert run(later)[3] != found[3]
    assert run(last)[2] != found[2]


def test_the_audit_passes_and_finds_a_choice_made_on_everything():
    panel = series(autoregressive(0.3, 60, seed=1))
    config = SelectionConfig(validation=12, step=12)
    assert audit(SelectedPredictor(CANDIDATES, config), panel, n_cuts=2).passed

    def tuned(panel):
        """Hyper-parameters chosen on the whole sample, then walked forward: the usual mistake."""
        return CANDIDATES[search(CANDIDATES, panel, ExpandingWindow(first=30, step=30)).chosen]

    assert audit(tuned, panel, n_cuts=2).verdict == "failed"


def test_yearly_selection_chooses_on_complete_years():
    panel = series(autoregressive(0.5, 110, seed=2))  # January 2000 to February 2009
    yearly = SelectedPredictor(CANDIDATES, replace(CHOICE, reselect="yearly"))
    always = SelectedPredictor(CANDIDATES, CHOICE)

    def loss(predictor, n):
        return predictor.fit(panel.between(0, n)).metrics["validation_loss"]

    december = loss(always, 96)
    assert [loss(yearly, n) == december for n in (95, 96, 97, 107, 108, 109)] == [
        False, True, True, True, False, False,
    ]  # fmt: skip
    assert loss(always, 97) != december
    # the chosen candidate is fitted on everything, not on the complete years alone
    yearly.fit(panel.between(0, 107))
    assert yearly.chosen.fitted.span.end == panel.times[106]
    numbered = Panel.from_arrays(autoregressive(0.5, 60))
    with pytest.raises(ConfigurationError, match="needs dates"):
        yearly.fit(numbered)


def test_selected_predictors_refuse_what_cannot_work():
    with pytest.raises(NotFittedError):
        SelectedPredictor(CANDIDATES).predict(series(autoregressive(0.5, 60)))
    with pytest.raises(InsufficientDataError, match="validation=30 leaves nothing of 25"):
        SelectedPredictor(CANDIDATES, CHOICE).fit(series(autoregressive(0.5, 25)))
    with pytest.raises(ConfigurationError, match="reselect must be"):
        SelectionConfig(reselect="monthly")
    with pytest.raises(ConfigurationError, match="targets"):
        SelectionConfig(targets="gdp")
    with pytest.raises(ConfigurationError, match="validation"):
        SelectionConfig(validation=0)
