"""Targets by name, pairs, units, and forecasts on the right rows."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import Panel
from latentfactors.errors import (
    ConfigurationError,
    GapError,
    HorizonError,
    InsufficientDataError,
    PanelMismatchError,
    UnknownAssetsError,
)
from latentfactors.targeted.leads import LeadForecasts
from latentfactors.targeted.series import check_targets, measure, pair_series

T = 30
NAMES = ["orders", "gdp", "sales", "cpi"]


def macro(values=None, names=NAMES):
    if values is None:
        values = np.random.default_rng(3).normal(size=(T, len(names))) * [1e-3, 5.0, 1.0, 1e4] + [
            0.0,
            3.0,
            1.0,
            -2.0,
        ]
    months = np.datetime64("2001-02") + np.arange(len(values)).astype("timedelta64[M]")
    times = months.astype("datetime64[D]") - np.timedelta64(1, "D")
    return Panel.from_wide(
        values, times=times, assets=names, universe="all", frequency="M", value_kind="series"
    )


@pytest.mark.parametrize("lead", [0, 1, 3])
def test_pairs_are_aligned_and_standardised(lead):
    panel = macro()
    pairs = pair_series(panel, ("cpi", "gdp"), lead, "PTFA")
    wide, n = panel.wide(), T - lead
    x, y = wide[:n][:, [0, 2]], wide[lead:][:, [3, 1]]
    assert pairs.series.predictors.tolist() == ["orders", "sales"]
    assert pairs.series.targets.tolist() == ["cpi", "gdp"]
    np.testing.assert_allclose(pairs.x, (x - x.mean(0)) / x.std(0), atol=1e-12)
    np.testing.assert_allclose(pairs.y, (y - y.mean(0)) / y.std(0), atol=1e-12)
    assert pairs.complete.all()
    assert pairs.warnings == ()


def test_missing_cells_stay_missing_and_units_use_what_is_observed():
    values = macro().wide()
    values[4, 0] = values[7, 3] = np.nan
    pairs = pair_series(macro(values), ("cpi",), 0, "PTFA")
    assert np.isnan(pairs.x[4, 0])
    assert np.isnan(pairs.y[7, 0])
    np.testing.assert_allclose(np.nanstd(pairs.x, axis=0), 1.0)
    assert pairs.complete.sum() == T - 2


@pytest.mark.parametrize("scale", [1e-250, 1e-6, 1e6, 1e200])
def test_units_survive_any_scale(scale):
    base = pair_series(macro(), ("cpi",), 1, "PTFA")
    scaled = pair_series(macro(macro().wide() * scale), ("cpi",), 1, "PTFA")
    np.testing.assert_allclose(scaled.x, base.x, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(scaled.series.scale, base.series.scale * scale, rtol=1e-12)


def test_predictors_that_never_move_are_left_out_and_named():
    values = macro().wide()
    values[:, 0], values[:, 2] = 0.1, np.nan
    with pytest.raises(InsufficientDataError, match="no predictor is left"):
        pair_series(macro(values), ("cpi", "gdp"), 0, "PTFA")
    pairs = pair_series(macro(values), ("cpi",), 0, "PTFA")
    assert pairs.series.predictors.tolist() == ["gdp"]
    assert pairs.warnings == (
        "1 predictor never observed in training left out: sales",
        "1 predictor constant in training left out: orders",
    )


def test_impossible_targets_are_refused_by_name():
    with pytest.raises(PanelMismatchError, match="no target 'gnp' in the panel"):
        pair_series(macro(), ("gnp",), 0, "PTFA")
    values = macro().wide()
    values[:, 1], values[:, 3] = np.nan, 2.5
    with pytest.raises(InsufficientDataError, match="target 'gdp' is never observed"):
        pair_series(macro(values), ("gdp",), 0, "PTFA")
    with pytest.raises(InsufficientDataError, match="target 'cpi' is constant over its 30 observed values"):
        pair_series(macro(values), ("cpi",), 0, "PTFA")
    values[0, 1] = 1.0
    with pytest.raises(InsufficientDataError, match="never observed after the first 1 period"):
        pair_series(macro(values), ("gdp",), 1, "PTFA")
    with pytest.raises(InsufficientDataError, match="lead=30 needs more than 30 periods"):
        pair_series(macro(), ("gdp",), T, "PTFA")


@pytest.mark.parametrize(
    ("targets", "lead", "words"),
    [
        ("gdp", 0, r"write \('gdp',\)"),
        ((), 0, "at least one"),
        (("gdp", "gdp"), 0, "named once"),
        ((1.5,), 0, "series names"),
        (("gdp",), -1, "lead must be"),
        (None, 0, "tuple"),
    ],
)
def test_config_values_are_checked(targets, lead, words):
    with pytest.raises(ConfigurationError, match=words):
        check_targets(targets, lead)


def test_reading_a_panel_puts_training_before_what_continues_it():
    panel = macro()
    series = pair_series(panel.between(0, 20), ("cpi",), 1, "PTFA").series
    whole, none = series.read(panel, "PTFA")
    tail, before = series.read(panel.between(20, T), "PTFA")
    assert (none, before) == (0, 20)
    np.testing.assert_array_equal(whole, tail)
    wide = panel.wide()[:, [0, 1, 2, 3]]
    np.testing.assert_allclose(whole * series.scale + series.location, wide)
    with pytest.raises(GapError):
        series.read(panel.between(21, T), "PTFA")
    with pytest.raises(UnknownAssetsError):
        series.read(macro(names=["a", "b", "c", "d"]), "PTFA")
    without, _ = series.read(panel.select(["gdp", "sales"]), "PTFA")
    assert np.isnan(without[:, [0, 3]]).all()


@pytest.mark.parametrize("lead", [0, 2])
@pytest.mark.parametrize("continues", [False, True])
def test_forecasts_stand_on_the_row_after_their_origin(lead, continues):
    whole = macro()
    series = pair_series(whole.between(0, 20), ("cpi", "gdp"), lead, "PTFA").series
    panel = whole.between(20, T) if continues else whole
    before = series.read(panel, "PTFA")[1]
    # the forecast made in period t is the number t, so that positions show
    made_in = np.arange(float(T))
    native = LeadForecasts(
        index=panel.index,
        series=series,
        before=before,
        target_means=np.column_stack([made_in, -made_in]),
        target_variances=np.column_stack([made_in, made_in]),
        factor_means=made_in[:, None],
        who="PTFAModel",
    )
    mean, variance = native.values(lead)
    mean, variance = panel.index.dense(mean), panel.index.dense(variance)
    origin = np.arange(T, dtype=float)[before:] - 1
    origin[origin < 0] = np.nan
    location, scale = series.location[2:], series.scale[2:]
    np.testing.assert_allclose(mean[:, 3], location[0] + scale[0] * origin)
    np.testing.assert_allclose(mean[:, 1], location[1] - scale[1] * origin)
    np.testing.assert_allclose(variance[:, 1], scale[1] ** 2 * origin)
    assert np.isnan(mean[:, [0, 2]]).all()
    factors, covariance = native.factors(lead)
    np.testing.assert_array_equal(factors[:, 0], origin)
    assert covariance is None
    for wrong in {-1, 0, 1, 2} - {lead}:
        with pytest.raises(HorizonError, match=f"trained with lead={lead}"):
            native.values(wrong)
        with pytest.raises(HorizonError):
            native.factors(wrong)


@pytest.mark.parametrize("lead", [0, 1])
def test_targets_load_on_factors_of_their_own_period_only(lead):
    panel = macro()
    series = pair_series(panel, ("gdp",), lead, "PTFA").series
    loadings, variance = np.arange(8.0).reshape(4, 2), np.array([0.1, 0.2, 0.3, 0.4])
    renamed = macro(names=["orders", "gdp", "sales", "new"])
    measurement, metadata = measure(renamed, series, loadings, variance, "PTFA")
    by_asset = measurement.loadings.at(0)
    np.testing.assert_array_equal(by_asset[[0, 2]], loadings[:2])
    np.testing.assert_array_equal(by_asset[1], [np.nan, np.nan] if lead else loadings[3])
    assert np.isnan(by_asset[3]).all()
    np.testing.assert_allclose(measurement.residual_variance[:4], [0.1, 0.4, 0.2, 0.25])
    assert metadata == {"n_assets_without_loadings": 1, "targets": ("gdp",), "lead": lead}
